//! One thing read from a topic, one thing to be written to one.
//!
//! Values are plain bytes today. Where raw values are encrypted one day, the envelope opens and closes here, so
//! nothing reads a raw value other than through [`Record`].

use std::borrow::Cow;

use bytes::Bytes;

use super::contract::{Topic, header};
use super::id::Source;

/// Headers in their order; a name may stand more than once, as Kafka allows.
///
/// A name of ours is not copied: a record has a dozen, and each batch five hundred records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, Bytes)>);

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No headers yet, and room for this many.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// These headers and one more.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.push(name, value);
        self
    }

    /// Adds one.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        self.0.push((name.into(), value.into()));
    }

    /// Adds one as it was read: a name of ours is known by its place in the contract.
    pub fn push_read(&mut self, name: &str, value: Bytes) {
        let known = header::ALL.iter().find(|known| **known == name);
        let name = known.map_or_else(|| Cow::Owned(name.to_owned()), |known| Cow::Borrowed(*known));
        self.0.push((name, value));
    }

    /// The first of this name, as bytes.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The first of this name, as text; absent where it is not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Their size in bytes, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Kafka's timestamp, ms since the epoch: metrics only, never content.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
    /// The value; a record without one is malformed everywhere in this system.
    pub value: Option<Bytes>,
}

impl Record {
    /// The coordinates of the item at `index` of this record.
    #[must_use]
    pub fn source(&self, index: i32) -> Source {
        Source { topic: self.topic, partition: self.partition, offset: self.offset, index }
    }

    /// The size in bytes that bounds count.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.size()
    }
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutRecord {
    /// The topic.
    pub topic: Topic,
    /// The key; absent only where the input had none.
    pub key: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
    /// The value; absent only where the input had none (a dead letter keeps its original).
    pub value: Option<Bytes>,
}

impl OutRecord {
    /// The size in bytes that bounds count.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.size()
    }
}
