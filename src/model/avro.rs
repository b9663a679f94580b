//! Records and events as Avro bytes with the registry's prefix, and back.
//!
//! The prefix is `0x00` and the schema's id, big-endian; the datum follows. Schemas are embedded at build from
//! `schemas/`, parsed once in a process; ids come from the registry at start, so nothing here waits for anything.
//! Bytes are written by serde straight from our types: there is no intermediate value, and `tests/it/schema.rs`
//! holds the bytes to goldens. A library's error text quotes values, so none of it leaves this file.
//!
//! # A content is written once
//! An Avro record is its fields, one after another, and the same content stands in the record and in the event that
//! becomes of it. So decide reads what stands before the content ([`Codec::open`]), takes the content's own bytes for
//! the hash and for the event, and reads the content itself only where it must know what it says.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::contract::Topic;
use super::event::{BiometricEvent, Content, Merge, NormalisedRecord, Op, Origin, RecordHead};
use super::id::{ConnectionId, ContentHash, EventId, Source, User};
use super::time::Micros;
use crate::error::{Error, Kind, Path, Reject, Result};

/// The schema of `normalised-records-value`, newest version.
pub const NORMALISED_RECORD: &str =
    include_str!("../../schemas/normalised-records-value/v001.avsc");
/// The schema of `biometric-events-value`, newest version.
pub const BIOMETRIC_EVENT: &str = include_str!("../../schemas/biometric-events-value/v001.avsc");
/// The schema of `terra-biometric-events-value`, newest version: the same as of `biometric-events-value`.
pub const TERRA_BIOMETRIC_EVENT: &str =
    include_str!("../../schemas/terra-biometric-events-value/v001.avsc");

/// The magic byte and the id.
const PREFIX_BYTES: usize = 5;
/// The most bytes of a value, and of one length inside it: twice the topics' `max.message.bytes`.
const VALUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the registry calls the schemas of the three subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaIds {
    /// `normalised-records-value`.
    pub normalised: u32,
    /// `biometric-events-value`.
    pub events: u32,
    /// `terra-biometric-events-value`; a registry gives equal schemas one id.
    pub terra_events: u32,
}

/// The parsed schemas; they live as long as the process, because writers and readers borrow them.
struct Schemas {
    record: Schema,
    record_head: Schema,
    event: Schema,
    event_head: Schema,
    content: Schema,
    triggers: Schema,
}

/// The schema of a record's fields before this one.
fn before(schema: &Schema, field: &str) -> Option<Schema> {
    let Schema::Record(record) = schema else { return None };
    let mut head = record.clone();
    head.fields.truncate(*record.lookup.get(field)?);
    head.lookup.retain(|_, at| *at < head.fields.len());
    Some(Schema::Record(head))
}

/// The schema of one field of a record.
fn field(schema: &Schema, name: &str) -> Option<Schema> {
    let Schema::Record(record) = schema else { return None };
    record.fields.get(*record.lookup.get(name)?).map(|field| field.schema.clone())
}

static SCHEMAS: LazyLock<Option<Schemas>> = LazyLock::new(|| {
    let record = Schema::parse_str(NORMALISED_RECORD).ok()?;
    let event = Schema::parse_str(BIOMETRIC_EVENT).ok()?;
    let (record_head, event_head) = (before(&record, "content")?, before(&event, "content")?);
    let (content, triggers) = (field(&record, "content")?, field(&event, "triggers")?);
    Some(Schemas { record, record_head, event, event_head, content, triggers })
});

/// Encodes and decodes; writers and readers are made once and shared.
pub struct Codec {
    ids: SchemaIds,
    record: Pair,
    record_head: GenericDatumReader<'static>,
    event: Pair,
    event_head: GenericDatumWriter<'static>,
    content: Pair,
    triggers: GenericDatumWriter<'static>,
}

/// A record of `normalised-records` of which the head is read and the content is not.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed {
    /// What stands before the content.
    pub head: RecordHead,
    /// The content's bytes.
    pub content: Bytes,
}

/// What stands in an event before its content.
#[derive(Serialize)]
#[serde(rename = "BiometricEvent")] // the schema is the event's, cut
struct EventHead<'a>(
    EventId,
    i32,
    Op,
    &'a User,
    ConnectionId,
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    Merge,
    Option<Micros>,
    Micros,
    Option<Micros>,
    Source,
    Origin,
    i32,
);

/// The writer and the reader of one schema.
struct Pair {
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
}

impl Pair {
    fn new(schema: &'static Schema) -> Option<Self> {
        Some(Self { writer: writer(schema)?, reader: reader(schema)? })
    }
}

fn reader(schema: &'static Schema) -> Option<GenericDatumReader<'static>> {
    GenericDatumReader::builder(schema).human_readable(false).build().ok()
}

fn writer(schema: &'static Schema) -> Option<GenericDatumWriter<'static>> {
    GenericDatumWriter::builder(schema).human_readable(false).build().ok()
}

impl Codec {
    /// A codec that writes these ids.
    ///
    /// # Errors
    /// [`Kind::SchemaError`] where an embedded schema cannot be parsed, which a test keeps from happening.
    pub fn new(ids: SchemaIds) -> Result<Self> {
        apache_avro::util::max_allocation_bytes(VALUE_BYTES_MAX);
        Self::of(ids).ok_or_else(|| Error::new(Kind::SchemaError, "parse the embedded schemas", ""))
    }

    fn of(ids: SchemaIds) -> Option<Self> {
        let schemas = SCHEMAS.as_ref()?;
        Some(Self {
            ids,
            record: Pair::new(&schemas.record)?,
            record_head: reader(&schemas.record_head)?,
            event: Pair::new(&schemas.event)?,
            event_head: writer(&schemas.event_head)?,
            content: Pair::new(&schemas.content)?,
            triggers: writer(&schemas.triggers)?,
        })
    }

    /// A record of `normalised-records`, prefix included.
    ///
    /// # Errors
    /// [`Kind::SchemaError`] where type and schema differ, which a test keeps from happening.
    pub fn encode_record(&self, record: &NormalisedRecord) -> Result<Vec<u8>> {
        encode(&self.record.writer, self.ids.normalised, record, "encode a normalised record")
    }

    /// The record of such a value.
    ///
    /// # Errors
    /// The reject of a value that is no record of this schema: another prefix, cut, or with bytes to spare.
    pub fn decode_record(&self, framed: &[u8]) -> std::result::Result<NormalisedRecord, Reject> {
        decode(&self.record.reader, &[self.ids.normalised], framed)
    }

    /// The head of such a value, and its content unread.
    ///
    /// # Errors
    /// As [`Codec::decode_record`], but for what is wrong in the content.
    pub fn open(&self, framed: &Bytes) -> std::result::Result<Sealed, Reject> {
        let datum = datum(&[self.ids.normalised], framed)?;
        let mut rest = datum;
        let head = self.record_head.read_deser(&mut rest);
        let position = framed.len() - rest.len();
        let head = head.map_err(|_| malformed("not a datum of the schema", position))?;
        Ok(Sealed { head, content: framed.slice(position..) })
    }

    /// The content of such bytes.
    ///
    /// # Errors
    /// The reject of bytes that are no content of this schema; the position counts from its first byte.
    pub fn decode_content(&self, bytes: &[u8]) -> std::result::Result<Content, Reject> {
        read(&self.content.reader, bytes, bytes.len())
    }

    /// The canonical bytes of a content.
    ///
    /// # Errors
    /// [`Kind::SchemaError`] where type and schema differ, which a test keeps from happening.
    pub fn encode_content(&self, content: &Content) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity(512);
        write(&self.content.writer, &mut bytes, content, "encode a content")?;
        Ok(Bytes::from(bytes))
    }

    /// An event for one of the two output topics, prefix included.
    ///
    /// # Errors
    /// [`Kind::SchemaError`] where type and schema differ; [`Kind::InternalError`] for a topic without events.
    pub fn encode_event(&self, topic: Topic, event: &BiometricEvent) -> Result<Vec<u8>> {
        encode(&self.event.writer, self.event_id(topic)?, event, "encode an event")
    }

    /// The same of an event whose content is written already.
    ///
    /// # Errors
    /// As [`Codec::encode_event`].
    pub fn seal_event(
        &self,
        topic: Topic,
        event: &BiometricEvent,
        content: &[u8],
    ) -> Result<Vec<u8>> {
        const DOING: &str = "encode an event";
        let head = EventHead(
            event.event_id,
            event.revision,
            event.op,
            &event.user_id,
            event.connection_id,
            &event.vendor,
            &event.device_type,
            &event.via,
            &event.record_type,
            &event.record_id,
            event.merge,
            event.version,
            event.received_at,
            event.freshness_us,
            event.source,
            event.origin,
            event.normaliser,
        );
        let mut bytes = Vec::with_capacity(content.len() + 512);
        prefix(&mut bytes, self.event_id(topic)?);
        write(&self.event_head, &mut bytes, &head, DOING)?;
        bytes.extend_from_slice(content);
        write(&self.triggers, &mut bytes, &event.triggers, DOING)?;
        Ok(bytes)
    }

    fn event_id(&self, topic: Topic) -> Result<u32> {
        match topic {
            Topic::BiometricEvents => Ok(self.ids.events),
            Topic::TerraBiometricEvents => Ok(self.ids.terra_events),
            _ => Err(Error::internal("encode an event for a topic without events")),
        }
    }

    /// The event of a value of either output topic.
    ///
    /// # Errors
    /// As [`Codec::decode_record`].
    pub fn decode_event(&self, framed: &[u8]) -> std::result::Result<BiometricEvent, Reject> {
        decode(&self.event.reader, &[self.ids.events, self.ids.terra_events], framed)
    }
}

/// What a record says, as a hash over its op and the canonical bytes of its content.
///
/// A new field of the content changes the bytes, so a schema that adds one makes every record that is read
/// again a new revision: `schemas/README.md` says when that may be done.
#[must_use]
pub fn content_hash(op: Op, content: &[u8]) -> ContentHash {
    let op = match op {
        Op::Upsert => 1,
        Op::Delete => 2,
    };
    ContentHash::of_parts(&[&[op], content])
}

fn prefix(bytes: &mut Vec<u8>, id: u32) {
    bytes.push(0);
    bytes.extend_from_slice(&id.to_be_bytes());
}

fn encode<T: Serialize>(
    writer: &GenericDatumWriter<'static>,
    id: u32,
    value: &T,
    doing: &'static str,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    prefix(&mut bytes, id);
    write(writer, &mut bytes, value, doing)?;
    Ok(bytes)
}

fn write<T: Serialize>(
    writer: &GenericDatumWriter<'static>,
    bytes: &mut Vec<u8>,
    value: &T,
    doing: &'static str,
) -> Result<()> {
    match writer.write_ser(bytes, value) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::new(Kind::SchemaError, doing, "")),
    }
}

fn malformed(why: &'static str, position: usize) -> Reject {
    Reject { position: Some(position), ..Reject::malformed(Path::root(), why) }
}

fn decode<T: DeserializeOwned>(
    reader: &GenericDatumReader<'static>,
    ids: &[u32],
    framed: &[u8],
) -> std::result::Result<T, Reject> {
    read(reader, datum(ids, framed)?, framed.len())
}

/// What follows the prefix, which must name one of these ids.
fn datum<'a>(ids: &[u32], framed: &'a [u8]) -> std::result::Result<&'a [u8], Reject> {
    if framed.len() > VALUE_BYTES_MAX {
        return Err(malformed("a value of more than 32 MiB", VALUE_BYTES_MAX));
    }
    let Some((&[magic, ref id @ ..], datum)) = framed.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(malformed("no schema id before the datum", 0));
    };
    if magic != 0 {
        return Err(malformed("no registry prefix", 0));
    }
    if !ids.contains(&u32::from_be_bytes(*id)) {
        return Err(malformed("a schema id that is not this topic's", 1));
    }
    Ok(datum)
}

/// A datum to its last byte; `length` is that of what positions count in.
fn read<T: DeserializeOwned>(
    reader: &GenericDatumReader<'static>,
    datum: &[u8],
    length: usize,
) -> std::result::Result<T, Reject> {
    let mut rest = datum;
    let value = reader.read_deser(&mut rest);
    let position = length - rest.len();
    match value {
        Ok(value) if rest.is_empty() => Ok(value),
        Ok(_) => Err(malformed("bytes after the datum", position)),
        Err(_) => Err(malformed("not a datum of the schema", position)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Merge, Origin};
    use crate::model::id::{ConnectionId, EventId, Source, User};

    fn codec() -> Codec {
        Codec::new(SchemaIds { normalised: 7, events: 8, terra_events: 9 }).expect("a codec")
    }

    fn record() -> NormalisedRecord {
        let user = User::parse("u1").expect("a user");
        let connection = ConnectionId::derive("terra", "v", &user);
        NormalisedRecord {
            event_id: EventId::derive(connection, "sleep", "r"),
            user_id: user,
            connection_id: connection,
            vendor: "terra".into(),
            device_type: "oura".into(),
            via: "terra".into(),
            record_type: "sleep".into(),
            record_id: "r".into(),
            merge: Merge::Replace,
            op: Op::Upsert,
            version: None,
            received_at: 5,
            source: Source { topic: Topic::RawWebhooks, partition: 1, offset: 2, index: 0 },
            origin: Origin::Live,
            normaliser: 1,
            content: Content::default(),
        }
    }

    fn event(record: NormalisedRecord) -> BiometricEvent {
        BiometricEvent {
            event_id: record.event_id,
            revision: 1,
            op: record.op,
            user_id: record.user_id,
            connection_id: record.connection_id,
            vendor: record.vendor,
            device_type: record.device_type,
            via: record.via,
            record_type: record.record_type,
            record_id: record.record_id,
            merge: record.merge,
            version: record.version,
            received_at: record.received_at,
            freshness_us: None,
            source: record.source,
            origin: record.origin,
            normaliser: record.normaliser,
            content: record.content,
            triggers: Vec::new(),
        }
    }

    #[test]
    fn ids_and_topics_stand_as_text() {
        let bytes = codec().encode_record(&record()).expect("bytes");
        assert_eq!(bytes.get(..5), Some(&[0, 0, 0, 0, 7][..]));
        let text = record().event_id.to_string();
        assert!(bytes.windows(36).any(|window| window == text.as_bytes()));
        assert!(bytes.windows(12).any(|window| window == b"raw-webhooks"));
    }

    #[test]
    fn a_foreign_prefix_is_refused() {
        let codec = codec();
        let good = codec.encode_record(&record()).expect("bytes");
        assert_eq!(codec.decode_record(&good), Ok(record()));
        for (at, byte) in [(0, 1), (1, 1), (4, 8)] {
            let mut bad = good.clone();
            bad[at] = byte;
            let reject = codec.decode_record(&bad).expect_err("a reject");
            assert_eq!(reject.kind, Kind::PayloadMalformed);
        }
        let mut longer = good;
        longer.push(0);
        assert!(codec.decode_record(&longer).is_err());
    }

    #[test]
    fn cut_or_hostile_bytes_are_a_reject() {
        let codec = codec();
        let good = codec.encode_record(&record()).expect("bytes");
        for cut in 0..good.len() {
            assert!(codec.decode_record(&good[..cut]).is_err(), "cut at {cut}");
        }
        // A length of 2^62 at every place, and of minus 2^63: neither is believed.
        for tail in [[0xfe; 8], [0xff; 8]] {
            for at in PREFIX_BYTES..good.len() {
                let mut bad = good[..at].to_vec();
                bad.extend_from_slice(&tail);
                bad.extend_from_slice(&[0xff, 0x01]);
                bad.extend_from_slice(&good[at..]);
                let read = codec.decode_record(&bad);
                assert!(read.is_err() || read != Ok(record()), "at {at}");
            }
        }
    }

    #[test]
    fn an_event_has_its_topics_id() {
        let codec = codec();
        let event = event(record());
        let direct = codec.encode_event(Topic::BiometricEvents, &event).expect("bytes");
        let terra = codec.encode_event(Topic::TerraBiometricEvents, &event).expect("bytes");
        assert_eq!((direct[4], terra[4]), (8, 9));
        assert_eq!(direct[5..], terra[5..]);
        assert_eq!(codec.decode_event(&terra), Ok(event.clone()));
        assert!(codec.encode_event(Topic::RawTerra, &event).is_err());
    }

    #[test]
    fn the_hash_covers_content_and_op_only() {
        let codec = codec();
        let bytes = |content| codec.encode_content(&content).expect("bytes");
        let one = bytes(Content::default());
        let other = bytes(Content { state: "final".into(), ..Content::default() });
        assert_eq!(content_hash(Op::Upsert, &one), content_hash(Op::Upsert, &one));
        assert_ne!(content_hash(Op::Upsert, &one), content_hash(Op::Delete, &one));
        assert_ne!(content_hash(Op::Upsert, &one), content_hash(Op::Upsert, &other));
    }
}
