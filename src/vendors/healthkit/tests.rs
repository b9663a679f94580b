//! Pushes as an app sends them, and what must not become of them. Bodies in full stand in the goldens.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::*;
use crate::model::event::{Merge, Reading, flag};
use crate::model::record::Headers;
use crate::vendors::VendorRecord;

const CONNECTION: &str = "3f1c2b7a-0d4e-5a6b-8c9d-112233445566";
/// 2026-03-29T07:00:00Z
const RECEIVED_AT: Micros = 1_774_767_600_000_000;

fn headers() -> Headers {
    Headers::new().with(header::VENDOR_USER, CONNECTION)
}

fn read(headers: &Headers, body: impl Into<Bytes>) -> Result<Vec<Item>, Reject> {
    VENDOR.parse(&Raw { headers, body: &body.into(), received_at: RECEIVED_AT })
}

fn parse(data: &Value) -> Vec<Item> {
    read(&headers(), json!({ "data": data }).to_string()).expect("a push")
}

fn record(item: &Item) -> Option<&VendorRecord> {
    match &item.what {
        What::Record(record) => Some(record),
        _ => None,
    }
}

/// The only reading of a push of one sample.
fn reading(sample: &Value) -> Reading {
    let items = parse(&json!({ "records": [sample] }));
    record(&items[0]).expect("a record").content.readings[0].clone()
}

/// Heart rate at this many minutes past 2026-03-29T00:00Z, with an id of its own.
fn beat(minute: u32) -> Value {
    let at =
        format!("2026-03-{:02}T{:02}:{:02}:00Z", 1 + minute / 1440, minute / 60 % 24, minute % 60);
    json!({
        "id": format!("0F1D2C3B-1111-4A22-9B33-{minute:012X}"),
        "type": "HKQuantityTypeIdentifierHeartRate", "value": 61, "unit": "count/min",
        "startDate": at, "endDate": at, "source": { "productType": "Watch7,5" },
    })
}

fn with(mut sample: Value, name: &str, value: impl Into<Value>) -> Value {
    sample[name] = value.into();
    sample
}

/// What decide counts by: the samples of each bucket, whatever push they came in.
fn gathered(pushes: &[Vec<Item>]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for record in pushes.iter().flatten().filter_map(record) {
        let ids = record.content.readings.iter().filter_map(|reading| reading.sample_id.clone());
        all.entry((record.record_type.clone(), record.record_id.clone())).or_default().extend(ids);
    }
    all
}

fn pack(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(9));
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn the_door_is_told_what_it_must_know() {
    assert_eq!(VENDOR.name(), "healthkit");
    assert_eq!(VENDOR.body_bytes_max(), 12 * 1024 * 1024);
    assert!(VENDOR.takes_gzip());
    assert_eq!(VENDOR.delivery_header(), Some("x-batch-id"));
    assert_eq!(VENDOR.window_us(), 90_000_000_000);
    let verified = Verified { scheme: "test", vendor_user: Some(CONNECTION.to_owned()) };
    assert_eq!(VENDOR.key_user(&verified, b"not JSON"), KeyUser::One(CONNECTION.to_owned()));
    assert_eq!(VENDOR.key_user(&Verified::default(), b"{}"), KeyUser::None);
}

#[test]
fn the_person_is_the_tokens_and_nobody_elses() {
    let body = json!({ "data": { "records": [beat(1)] }, "vendor_user": "mallory" }).to_string();
    let ours = read(&headers(), body.clone()).expect("a push");
    assert_eq!(ours[0].vendor_user.as_deref(), Some(CONNECTION));
    let nobodys = read(&Headers::new(), body).expect("a push");
    assert_eq!(nobodys[0].vendor_user, None);
}

#[test]
fn a_packed_push_is_the_push() {
    let body = json!({ "data": { "records": [beat(1), beat(2)] } }).to_string();
    let plain = read(&headers(), body.clone()).expect("a push");
    for name in ["gzip", "GZIP"] {
        let headers = headers().with(header::CONTENT_ENCODING, name);
        assert_eq!(read(&headers, pack(body.as_bytes())).as_ref(), Ok(&plain));
    }
    let bomb = pack(&vec![b' '; 4 * 1024 * 1024]);
    let headers = headers().with(header::CONTENT_ENCODING, "gzip");
    assert_eq!(read(&headers, bomb).expect_err("a bomb").kind, Kind::PayloadTooLarge);
    let zstd = Headers::new().with(header::CONTENT_ENCODING, "zstd");
    assert_eq!(read(&zstd, body).expect_err("zstd").kind, Kind::PayloadMalformed);
}

/// Traps 1, 3 and 14: what is sent again, in other pushes, another order and another case, brings nothing new.
#[test]
fn however_it_is_sent_a_sample_counts_once() {
    let all: Vec<_> = (0..4000).step_by(97).map(beat).collect();
    let once = gathered(&[parse(&json!({ "records": all }))]);
    assert_eq!(once.values().map(BTreeSet::len).sum::<usize>(), all.len());
    assert_eq!(once.len(), 3, "three UTC days");
    for size in [1, 2, 7] {
        let mut again: Vec<_> = all.iter().rev().cloned().collect();
        for (at, sample) in again.iter_mut().enumerate().filter(|(at, _)| at % 2 == 0) {
            let id = sample["id"].as_str().expect("an id").to_lowercase();
            *sample = with(sample.clone(), "id", id);
            *sample = with(sample.clone(), "zoneOffset", format!("+0{}:00", at % 9));
        }
        let pushes: Vec<_> =
            again.chunks(size).map(|some| parse(&json!({ "records": some }))).collect();
        assert_eq!(gathered(&pushes), once, "pushes of {size}");
    }
}

/// Trap 1: in one push the first of an id is the sample.
#[test]
fn an_id_that_stands_twice_in_a_push_is_one_sample() {
    let other = with(with(beat(1), "value", 99), "zoneOffset", "+02:00");
    let items = parse(&json!({ "records": [beat(1), other, beat(2)] }));
    let content = &record(&items[0]).expect("a record").content;
    let values: Vec<_> = content.readings.iter().map(|reading| reading.value).collect();
    assert_eq!((items.len(), values), (1, vec![Some(61.0), Some(61.0)]));
    assert_eq!(content.start_offset_s, None, "the one that is not there says nothing");
}

/// Trap 2: a deletion names what its sample will be called, whichever of the two comes first.
#[test]
fn a_deletion_names_its_sample_in_the_samples_own_form() {
    let sample = beat(7);
    let items = parse(&json!({ "records": [sample], "deleted": [
        { "id": sample["id"], "type": sample["type"] },
    ] }));
    let (bucket, removal) = (record(&items[0]).expect("one"), record(&items[1]).expect("two"));
    assert_eq!(removal.merge, Merge::Removal);
    assert_eq!(removal.record_type, bucket.record_type);
    assert_eq!(Some(&removal.content.removed[0]), bucket.content.readings[0].sample_id.as_ref());
}

/// Traps 6 and 7.
#[test]
fn a_unit_is_taken_at_its_word() {
    let of = |kind: &str, value: f64, unit: &str| {
        let sample = with(beat(1), "type", format!("HKQuantityTypeIdentifier{kind}"));
        reading(&with(with(sample, "value", value), "unit", unit))
    };
    assert_eq!(of("OxygenSaturation", 0.97, "%").value, Some(97.0));
    assert_eq!(of("OxygenSaturation", 1.0, "%").value, Some(100.0));
    let by_magnitude = of("OxygenSaturation", 97.0, "%");
    assert_eq!(by_magnitude.flags, [flag::IMPLAUSIBLE_VALUE], "never guessed from its size");
    let energy = of("ActiveEnergyBurned", 8.4, "kJ").value.expect("a value");
    assert!((energy - 2.01).abs() < 0.005);
}

/// Trap 8.
#[test]
fn sdnn_is_sdnn() {
    let sample = with(beat(1), "type", "HKQuantityTypeIdentifierHeartRateVariabilitySDNN");
    let found = reading(&with(sample, "unit", "ms"));
    assert_eq!((found.metric.as_str(), found.window_s), ("hrv_sdnn", Some(60)));
}

/// Trap 11.
#[test]
fn an_instant_has_no_end_and_no_time_runs_backwards() {
    assert_eq!(reading(&beat(1)).end_at, None);
    let later = reading(&with(beat(1), "endDate", "2026-03-01T00:02:00Z"));
    assert_eq!(later.end_at, Some(later.start_at + 60_000_000));
    let items = parse(&json!({ "records": [with(beat(1), "endDate", "2026-03-01T00:00:59Z")] }));
    let What::Bad(reject) = &items[0].what else { panic!("not bad") };
    assert_eq!(reject.kind, Kind::ValidationError);
    assert_eq!(reject.at.as_str(), "data.records[0].endDate");
}

/// Trap 12.
#[test]
fn one_bad_sample_of_5000_spoils_no_other() {
    let mut records: Vec<_> = (0..5000).map(beat).collect();
    records[4321] = with(records[4321].clone(), "unit", Value::Null);
    let items = parse(&json!({ "records": records }));
    let bad: Vec<_> = items.iter().filter(|item| matches!(item.what, What::Bad(_))).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].index, 4321);
    let What::Bad(reject) = &bad[0].what else { unreachable!() };
    assert_eq!(reject.at.as_str(), "data.records[4321].unit");
    assert_eq!(gathered(&[items]).values().map(BTreeSet::len).sum::<usize>(), 4999);
}

/// Trap 13: kept, flagged, and not what the bucket is dated by.
#[test]
fn a_sample_from_the_future_is_flagged_and_dates_nothing() {
    let at = |time: &str, minute: u32| with(with(beat(minute), "startDate", time), "endDate", time);
    let records = [at("2026-03-29T06:59:00Z", 1), at("2026-03-29T07:15:00.000001Z", 2)];
    let items = parse(&json!({ "records": records }));
    let content = &record(&items[0]).expect("a record").content;
    assert!(content.readings[0].flags.is_empty());
    assert_eq!(content.readings[1].flags, [flag::CLOCK_SKEW]);
    assert_eq!(content.end_at, Some(RECEIVED_AT - 60_000_000));
    assert!(content.flags.is_empty());

    let alone = parse(&json!({ "records": [at("2031-03-29T06:59:00Z", 1)] }));
    let content = &record(&alone[0]).expect("a record").content;
    assert_eq!(content.flags, [flag::CLOCK_SKEW]);
    assert_eq!(content.end_at, Some(content.readings[0].start_at));

    let edge = parse(&json!({ "records": [at("2026-03-29T07:15:00Z", 1)] }));
    assert!(record(&edge[0]).expect("a record").content.flags.is_empty());
}

#[test]
fn a_sample_without_an_id_finds_the_same_one_again() {
    let nameless = with(beat(1), "id", Value::Null);
    let id = reading(&nameless).sample_id;
    let items = parse(&json!({ "records": [beat(5), nameless] }));
    let again = &record(&items[0]).expect("a record").content.readings[1];
    assert_eq!(again.sample_id, id, "wherever it stands");
    for (name, value) in [("value", json!(62)), ("endDate", json!("2026-03-01T00:02:00Z"))] {
        assert_ne!(reading(&with(nameless.clone(), name, value)).sample_id, id, "{name}");
    }
    let other = Headers::new().with(header::VENDOR_USER, CONNECTION.replace("3f", "4f"));
    let body = json!({ "data": { "records": [nameless] } }).to_string();
    let others = read(&other, body).expect("a push");
    assert_ne!(record(&others[0]).expect("a record").content.readings[0].sample_id, id);
}

#[test]
fn a_buckets_offset_is_the_one_that_all_its_samples_have() {
    let offsets = |zones: [&str; 2]| {
        let records =
            [with(beat(1), "zoneOffset", zones[0]), with(beat(2), "zoneOffset", zones[1])];
        let items = parse(&json!({ "records": records }));
        let content = &record(&items[0]).expect("a record").content;
        assert_eq!(content.local_date, None, "a UTC day is nobody's day");
        (content.start_offset_s, content.end_offset_s, content.offset_provenance.clone())
    };
    assert_eq!(offsets(["+02:00", "+0200"]), (Some(7200), Some(7200), "device".to_owned()));
    assert_eq!(offsets(["+02:00", "+01:00"]), (None, None, "unknown".to_owned()));
    assert_eq!(offsets(["Z", "+02:00"]), (None, None, "unknown".to_owned()));
}
