//! How values stand in rows: codes, coordinates, sets of samples.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::contract::Topic;
use crate::model::event::Op;
use crate::model::id::{ContentHash, Place, Source, User};

/// A topic's code; [`Topic::code`] with the type of the column.
pub(super) fn topic_code(topic: Topic) -> i16 {
    i16::from(topic.code())
}

/// The topic of a column.
pub(super) fn topic_of(code: i16) -> Result<Topic> {
    u8::try_from(code).ok().and_then(Topic::of_code).ok_or_else(|| unreadable("topic"))
}

/// UPSERT is 1, DELETE is 2.
pub(super) const fn op_code(op: Op) -> i16 {
    match op {
        Op::Upsert => 1,
        Op::Delete => 2,
    }
}

/// The op of a column.
pub(super) fn op_of(code: i16) -> Result<Op> {
    match code {
        1 => Ok(Op::Upsert),
        2 => Ok(Op::Delete),
        _ => Err(unreadable("op")),
    }
}

/// The place of a column.
pub(super) fn place_of(bytes: &[u8]) -> Result<Place> {
    Place::decode(bytes).ok_or_else(|| unreadable("place"))
}

/// The hash of a column.
pub(super) fn hash_of(bytes: &[u8]) -> Result<ContentHash> {
    bytes.try_into().map(ContentHash).map_err(|_length| unreadable("content_hash"))
}

/// The user of a column.
pub(super) fn user_of(text: &str) -> Result<User> {
    User::parse(text).ok_or_else(|| unreadable("user_id"))
}

/// A row that this system cannot have written.
pub(super) fn unreadable(column: &'static str) -> Error {
    Error::new(crate::error::Kind::InternalError, "read a row: not written by this system", column)
}

/// A value of a row by its position.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(|_type| unreadable("column"))
}

/// Columns of sources, for `UNNEST`.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) topics: Vec<i16>,
    pub(super) partitions: Vec<i32>,
    pub(super) offsets: Vec<i64>,
    pub(super) indexes: Vec<i32>,
}

impl Sources {
    /// Adds one.
    pub(super) fn push(&mut self, source: Source) {
        self.topics.push(topic_code(source.topic));
        self.partitions.push(source.partition);
        self.offsets.push(source.offset);
        self.indexes.push(source.index);
    }
}

/// The source in four columns from this position on.
pub(super) fn source_at(row: &Row, at: usize) -> Result<Source> {
    Ok(Source {
        topic: topic_of(get(row, at)?)?,
        partition: get(row, at + 1)?,
        offset: get(row, at + 2)?,
        index: get(row, at + 3)?,
    })
}

/// Bytes of a sample in a bucket: its id and whether it is gone.
pub(super) const SAMPLE_BYTES: usize = 17;

/// A bucket's samples: sorted by id, [`SAMPLE_BYTES`] each.
pub(super) fn encode_samples(samples: &BTreeMap<Uuid, bool>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(samples.len() * SAMPLE_BYTES);
    for (id, gone) in samples {
        bytes.extend_from_slice(id.as_bytes());
        bytes.push(u8::from(*gone));
    }
    bytes
}

/// The samples of these bytes.
pub(super) fn decode_samples(bytes: &[u8]) -> Result<BTreeMap<Uuid, bool>> {
    let mut samples = BTreeMap::new();
    let chunks = bytes.chunks_exact(SAMPLE_BYTES);
    if !chunks.remainder().is_empty() {
        return Err(unreadable("samples"));
    }
    for chunk in chunks {
        let Some((flag, id)) = chunk.split_last() else { continue };
        let id = Uuid::from_slice(id).map_err(|_length| unreadable("samples"))?;
        samples.insert(id, *flag != 0);
    }
    Ok(samples)
}

/// Whether a sample of this id is among these bytes.
pub(super) fn holds_sample(bytes: &[u8], id: &Uuid) -> bool {
    let at = |index: usize| bytes.get(index * SAMPLE_BYTES..).and_then(|rest| rest.get(..16));
    let (mut low, mut high) = (0, bytes.len() / SAMPLE_BYTES);
    while low < high {
        let middle = low.midpoint(high);
        match at(middle).map(|found| found.cmp(id.as_bytes())) {
            Some(std::cmp::Ordering::Less) => low = middle + 1,
            Some(std::cmp::Ordering::Equal) => return true,
            Some(std::cmp::Ordering::Greater) | None => high = middle,
        }
    }
    false
}

/// Sorted ids, 16 bytes each.
pub(super) fn encode_ids(ids: &BTreeSet<Uuid>) -> Vec<u8> {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

/// The ids of these bytes.
pub(super) fn decode_ids(bytes: &[u8]) -> Result<BTreeSet<Uuid>> {
    let chunks = bytes.chunks_exact(16);
    if !chunks.remainder().is_empty() {
        return Err(unreadable("samples"));
    }
    chunks.map(|id| Uuid::from_slice(id).map_err(|_length| unreadable("samples"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_their_bytes() {
        let samples: BTreeMap<Uuid, bool> =
            (0..50).map(|n| (Uuid::from_u128(n * 7_919), n % 3 == 0)).collect();
        let bytes = encode_samples(&samples);
        assert_eq!(bytes.len(), 50 * SAMPLE_BYTES);
        assert_eq!(decode_samples(&bytes), Ok(samples.clone()));
        assert!(decode_samples(&bytes[1..]).is_err(), "a cut is not a set");
        let ids: BTreeSet<Uuid> = samples.into_keys().collect();
        let bytes = encode_ids(&ids);
        assert_eq!(decode_ids(&bytes), Ok(ids));
        assert!(decode_ids(&bytes[..17]).is_err());
    }

    #[test]
    fn codes_are_their_own_inverse() {
        for topic in Topic::ALL {
            assert_eq!(topic_of(topic_code(topic)), Ok(topic));
        }
        for op in [Op::Upsert, Op::Delete] {
            assert_eq!(op_of(op_code(op)), Ok(op));
        }
        assert!(op_of(0).is_err());
        assert!(topic_of(-1).is_err());
    }
}
