//! Schemas: the bytes of a version stand for ever, every version reads all earlier ones, and type and schema are
//! one thing in two notations.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use biometric_bridge::error::Kind;
use biometric_bridge::model::avro::{self, Codec, SchemaIds};
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::{
    BiometricEvent, Content, Merge, NormalisedRecord, Op, Origin, Reading,
};
use biometric_bridge::model::id::{ConnectionId, EventId, Source, User};
use biometric_bridge::model::trigger::Trigger;
use proptest::collection::{btree_map, vec};
use proptest::option::of as maybe;
use proptest::prelude::*;

const IDS: SchemaIds = SchemaIds { normalised: 1, events: 2, terra_events: 2 };

pub(crate) fn codec() -> Codec {
    Codec::new(IDS).expect("embedded schemas parse")
}

fn subject(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name)
}

/// The versions of a subject, oldest first: number and text.
fn versions(name: &str) -> Vec<(String, String)> {
    let mut found: Vec<_> = fs::read_dir(subject(name))
        .expect("a directory of the subject")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "avsc"))
        .map(|path| {
            let version = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (version, fs::read_to_string(path).expect("a schema"))
        })
        .collect();
    found.sort();
    found
}

const SUBJECTS: [(&str, &str); 3] = [
    ("normalised-records-value", avro::NORMALISED_RECORD),
    ("biometric-events-value", avro::BIOMETRIC_EVENT),
    ("terra-biometric-events-value", avro::TERRA_BIOMETRIC_EVENT),
];

fn reading() -> Reading {
    Reading {
        metric: "hrv_rmssd_sleep_avg".into(),
        value: Some(41.5),
        symbol: None,
        unit: Some("ms".into()),
        start_at: 1_774_736_070_000_000,
        end_at: Some(1_774_764_870_000_000),
        sample_id: None,
        method: Some("provider_unspecified".into()),
        window_s: Some(300),
        context: Some("sleep".into()),
        flags: vec!["soft_range".into()],
    }
}

pub(crate) fn record() -> NormalisedRecord {
    let user = User::parse("user-1").expect("a user");
    let connection = ConnectionId::derive("terra", "vendor-user", &user);
    NormalisedRecord {
        event_id: EventId::derive(connection, "sleep", "night-1"),
        user_id: user,
        connection_id: connection,
        vendor: "terra".into(),
        device_type: "oura".into(),
        via: "terra".into(),
        record_type: "sleep".into(),
        record_id: "night-1".into(),
        merge: Merge::Replace,
        op: Op::Upsert,
        version: Some(1_774_765_000_000_000),
        received_at: 1_774_765_100_000_000,
        source: Source { topic: Topic::RawWebhooks, partition: 3, offset: 77, index: 1 },
        origin: Origin::Live,
        normaliser: 1,
        content: Content {
            start_at: Some(1_774_736_070_000_000),
            end_at: Some(1_774_764_870_000_000),
            start_offset_s: Some(3600),
            end_offset_s: Some(7200),
            offset_provenance: "vendor".into(),
            local_date: Some(20_541),
            day_rule: Some("sleep_end".into()),
            state: "final".into(),
            attributes: BTreeMap::from([("is_nap".into(), "false".into())]),
            app: None,
            device_model: Some("ring".into()),
            recording_method: Some("automatic".into()),
            flags: vec!["offset_change".into()],
            readings: vec![reading()],
            removed: vec![],
        },
    }
}

fn trigger() -> Trigger {
    Trigger {
        trigger_id: "0b7e9c1e-2f63-5b0a-8a56-0d1f5f3f4a11".into(),
        rule: "v0.hrv_critical@1".into(),
        action: "URGENT_INTERVENTION".into(),
        severity: "CRITICAL".into(),
        metric: "hrv".into(),
        value: 18.25,
        recommendation: "rest".into(),
        step: "open".into(),
        muted: false,
    }
}

pub(crate) fn event(
    record: NormalisedRecord,
    revision: i32,
    triggers: Vec<Trigger>,
) -> BiometricEvent {
    BiometricEvent { triggers, ..record.revised(revision) }
}

/// Holds bytes to a golden of one line of hex. `UPDATE_GOLDEN` writes one that is not there, and never another: the
/// bytes of a version are for ever.
fn golden(subject_name: &str, bytes: &[u8]) {
    let path = subject(subject_name).join("v001.golden.hex");
    let now = hex::encode(bytes) + "\n";
    #[expect(clippy::disallowed_methods, reason = "a switch of the tests")]
    if std::env::var("UPDATE_GOLDEN").is_ok() && !path.exists() {
        fs::write(&path, &now).expect("a golden is written");
    }
    let then = fs::read_to_string(&path).expect("a golden");
    assert!(now == then, "the bytes of {subject_name} v001 have changed: old readers would break");
}

#[test]
fn the_bytes_of_a_version_stand_for_ever() {
    let codec = codec();
    let bytes = codec.encode_record(&record()).expect("bytes");
    golden("normalised-records-value", &bytes);
    assert_eq!(codec.decode_record(&bytes), Ok(record()));
    let event = event(record(), 2, vec![trigger()]);
    for (topic, name) in [
        (Topic::BiometricEvents, "biometric-events-value"),
        (Topic::TerraBiometricEvents, "terra-biometric-events-value"),
    ] {
        let bytes = codec.encode_event(topic, &event).expect("bytes");
        golden(name, &bytes);
        assert_eq!(codec.decode_event(&bytes), Ok(event.clone()));
    }
}

#[test]
fn the_embedded_schema_is_the_newest_version() {
    for (name, embedded) in SUBJECTS {
        let all = versions(name);
        assert_eq!(all.last().map(|(_, text)| text.as_str()), Some(embedded), "{name}");
        for (at, (version, _)) in all.iter().enumerate() {
            assert_eq!(*version, format!("v{:03}", at + 1), "versions of {name} have no gaps");
        }
    }
    assert_eq!(avro::BIOMETRIC_EVENT, avro::TERRA_BIOMETRIC_EVENT);
}

#[test]
fn every_version_reads_every_other() {
    for (name, _) in SUBJECTS {
        let all: Vec<_> = versions(name)
            .into_iter()
            .map(|(version, text)| (version, Schema::parse_str(&text).expect("a schema")))
            .collect();
        for (writer, from) in &all {
            for (reader, to) in &all {
                let can = SchemaCompatibility::can_read(from, to);
                assert!(can.is_ok(), "{name}: {reader} cannot read {writer}");
            }
        }
    }
}

/// Calls `see` with every JSON object of a schema that has a `name` and a `type`: records and fields.
fn each_named(schema: &serde_json::Value, see: &mut dyn FnMut(&serde_json::Value)) {
    match schema {
        serde_json::Value::Object(members) => {
            if members.contains_key("name") {
                see(schema);
            }
            members.values().for_each(|member| each_named(member, see));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| each_named(item, see)),
        _ => {}
    }
}

#[test]
fn every_record_and_field_is_documented_and_no_enum_stands_anywhere() {
    for (name, text) in SUBJECTS {
        let schema: serde_json::Value = serde_json::from_str(text).expect("JSON");
        each_named(&schema, &mut |named| {
            let title = &named["name"];
            assert!(named["doc"].as_str().is_some_and(|doc| doc.len() > 10), "{name}: {title}");
            let nullable = named["type"].as_array().is_some_and(|of| of[0] == "null");
            let default = named.as_object().and_then(|members| members.get("default"));
            assert_eq!(nullable, default == Some(&serde_json::Value::Null), "{name}: {title}");
        });
        assert!(!text.contains("\"enum\""), "{name}: a new symbol would break old readers");
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9_.äß☃]{0,12}"
}

fn number() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("a number", |value| !value.is_nan())
}

prop_compose! {
    fn readings()(
        metric in text(), value in maybe(number()), symbol in maybe(text()), unit in maybe(text()),
        (start_at, end_at) in any::<(i64, Option<i64>)>(), sample_id in maybe(text()),
        method in maybe(text()), window_s in any::<Option<i32>>(), context in maybe(text()),
        flags in vec(text(), 0..3),
    ) -> Reading {
        Reading {
            metric, value, symbol, unit, start_at, end_at, sample_id, method, window_s, context, flags,
        }
    }
}

prop_compose! {
    fn contents()(
        times in any::<(Option<i64>, Option<i64>)>(),
        offsets in any::<(Option<i32>, Option<i32>, Option<i32>)>(),
        (offset_provenance, state) in (text(), text()),
        (day_rule, app, device_model, recording_method) in
            (maybe(text()), maybe(text()), maybe(text()), maybe(text())),
        attributes in btree_map(text(), text(), 0..4),
        flags in vec(text(), 0..3), readings in vec(readings(), 0..5), removed in vec(text(), 0..3),
    ) -> Content {
        Content {
            start_at: times.0, end_at: times.1, start_offset_s: offsets.0, end_offset_s: offsets.1,
            local_date: offsets.2, offset_provenance, day_rule, state, attributes, app,
            device_model, recording_method, flags, readings, removed,
        }
    }
}

prop_compose! {
    fn records()(
        content in contents(), (user, vendor, device_type, via) in
            ("[a-zA-Z0-9_-]{1,64}", text(), text(), text()),
        (record_type, record_id) in (text(), text()),
        merge in prop::sample::select(vec![Merge::Replace, Merge::Union, Merge::Removal]),
        op in prop::sample::select(vec![Op::Upsert, Op::Delete]),
        origin in prop::sample::select(vec![Origin::Live, Origin::Backfill, Origin::Replay]),
        (version, received_at, normaliser) in any::<(Option<i64>, i64, i32)>(),
        topic in prop::sample::select(Topic::ALL.to_vec()),
        (partition, offset, index) in any::<(i32, i64, i32)>(),
    ) -> NormalisedRecord {
        let user_id = User::parse(&user).expect("a user");
        let connection_id = ConnectionId::derive(&vendor, &record_id, &user_id);
        NormalisedRecord {
            event_id: EventId::derive(connection_id, &record_type, &record_id),
            user_id, connection_id, vendor, device_type, via, record_type, record_id, merge, op,
            version, received_at, origin, normaliser, content,
            source: Source { topic, partition, offset, index },
        }
    }
}

proptest! {
    #[test]
    fn records_and_events_survive_their_bytes(
        record in records(), revision in any::<i32>(), triggers in 0_usize..3,
    ) {
        let codec = codec();
        let bytes = codec.encode_record(&record).expect("bytes");
        prop_assert_eq!(codec.decode_record(&bytes), Ok(record.clone()));
        let sealed = codec.open(&bytes.into()).expect("a head");
        let content = codec.decode_content(&sealed.content).expect("a content");
        prop_assert_eq!(&codec.encode_content(&content).expect("bytes"), &sealed.content);
        prop_assert_eq!(sealed.head.with(content), record.clone());
        let event = event(record, revision, vec![trigger(); triggers]);
        let bytes = codec.encode_event(Topic::BiometricEvents, &event).expect("bytes");
        let sent = codec.seal_event(Topic::BiometricEvents, &event, &sealed.content);
        prop_assert_eq!(sent.as_ref(), Ok(&bytes));
        prop_assert_eq!(codec.decode_event(&bytes), Ok(event));
    }

    #[test]
    fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..400), at in 0_usize..400, by in any::<u8>()) {
        let codec = codec();
        let mut framed = vec![0, 0, 0, 0, 1];
        framed.append(&mut bytes);
        let read = codec.decode_record(&framed);
        prop_assert!(read.is_ok() || read.is_err_and(|bad| bad.kind == Kind::PayloadMalformed));
        let mut good = codec.encode_record(&record()).expect("bytes");
        if let Some(byte) = good.get_mut(at) {
            *byte ^= by;
        }
        let read = codec.decode_record(&good);
        prop_assert!(read.is_ok() || read.is_err_and(|bad| bad.kind == Kind::PayloadMalformed));
    }
}
