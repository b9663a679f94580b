//! Records and events as Avro bytes with the registry's prefix, and back.
//!
//! The prefix is `0x00` and the schema's id, big-endian; the datum follows. Schemas are embedded at build from
//! `schemas/`, parsed once in a process; ids come from the registry at start, so nothing here waits for anything.
//! Bytes are written by serde straight from our types: there is no intermediate value, and `tests/it/schema.rs`
//! holds the bytes to goldens. A library's error text quotes values, so none of it leaves this file.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::contract::Topic;
use super::event::{BiometricEvent, Content, NormalisedRecord, Op};
use super::id::ContentHash;
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
    event: Schema,
    content: Schema,
}

static SCHEMAS: LazyLock<Option<Schemas>> = LazyLock::new(|| {
    let record = Schema::parse_str(NORMALISED_RECORD).ok()?;
    let event = Schema::parse_str(BIOMETRIC_EVENT).ok()?;
    let Schema::Record(fields) = &record else { return None };
    let content = fields.fields.iter().find(|field| field.name == "content")?.schema.clone();
    Some(Schemas { record, event, content })
});

/// Encodes and decodes; writers and readers are made once and shared.
pub struct Codec {
    ids: SchemaIds,
    record: Pair,
    event: Pair,
    content: GenericDatumWriter<'static>,
}

/// The writer and the reader of one schema.
struct Pair {
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
}

impl Pair {
    fn new(schema: &'static Schema) -> Option<Self> {
        Some(Self {
            writer: writer(schema)?,
            reader: GenericDatumReader::builder(schema).human_readable(false).build().ok()?,
        })
    }
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
            event: Pair::new(&schemas.event)?,
            content: writer(&schemas.content)?,
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

    /// An event for one of the two output topics, prefix included.
    ///
    /// # Errors
    /// [`Kind::SchemaError`] where type and schema differ; [`Kind::InternalError`] for a topic without events.
    pub fn encode_event(&self, topic: Topic, event: &BiometricEvent) -> Result<Vec<u8>> {
        let id = match topic {
            Topic::BiometricEvents => self.ids.events,
            Topic::TerraBiometricEvents => self.ids.terra_events,
            _ => return Err(Error::internal("encode an event for a topic without events")),
        };
        encode(&self.event.writer, id, event, "encode an event")
    }

    /// The event of a value of either output topic.
    ///
    /// # Errors
    /// As [`Codec::decode_record`].
    pub fn decode_event(&self, framed: &[u8]) -> std::result::Result<BiometricEvent, Reject> {
        decode(&self.event.reader, &[self.ids.events, self.ids.terra_events], framed)
    }

    /// What a record says, as a hash over the canonical bytes of its op and its content.
    ///
    /// A new field of the content changes the bytes, so a schema that adds one makes every record that is read
    /// again a new revision: `schemas/README.md` says when that may be done.
    ///
    /// # Panics
    /// Where type and schema differ, which a test keeps from happening: memory takes all that is written.
    #[must_use]
    pub fn content_hash(&self, op: Op, content: &Content) -> ContentHash {
        let mut bytes = Vec::with_capacity(512);
        bytes.push(match op {
            Op::Upsert => 1,
            Op::Delete => 2,
        });
        let written = write(&self.content, &mut bytes, content, "encode a content");
        assert!(written.is_ok(), "invariant: a content is what its schema says");
        ContentHash::of(&bytes)
    }
}

fn encode<T: Serialize>(
    writer: &GenericDatumWriter<'static>,
    id: u32,
    value: &T,
    doing: &'static str,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    bytes.push(0);
    bytes.extend_from_slice(&id.to_be_bytes());
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

fn decode<T: DeserializeOwned>(
    reader: &GenericDatumReader<'static>,
    ids: &[u32],
    framed: &[u8],
) -> std::result::Result<T, Reject> {
    let malformed =
        |why, position| Reject { position: Some(position), ..Reject::malformed(Path::root(), why) };
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
    let mut rest = datum;
    let value = reader.read_deser(&mut rest);
    let position = framed.len() - rest.len();
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
        let one = Content::default();
        let other = Content { state: "final".into(), ..Content::default() };
        assert_eq!(codec.content_hash(Op::Upsert, &one), codec.content_hash(Op::Upsert, &one));
        assert_ne!(codec.content_hash(Op::Upsert, &one), codec.content_hash(Op::Delete, &one));
        assert_ne!(codec.content_hash(Op::Upsert, &one), codec.content_hash(Op::Upsert, &other));
    }
}
