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

/// Its id is its moment's, so that what is said of it later can replace it; and it says so.
#[test]
fn a_sample_without_an_id_has_the_id_of_its_moment() {
    let nameless = with(beat(1), "id", Value::Null);
    let first = reading(&nameless);
    assert_eq!(first.flags, [flag::DERIVED_ID]);
    assert!(reading(&beat(1)).flags.is_empty());
    let items = parse(&json!({ "records": [beat(5), nameless] }));
    let again = &record(&items[0]).expect("a record").content.readings[1];
    assert_eq!(again.sample_id, first.sample_id, "wherever it stands");
    let id = |sample: &Value| reading(sample).sample_id;
    for (name, value) in [
        ("value", json!(62)),
        ("endDate", json!("2026-03-01T00:02:00Z")),
        ("zoneOffset", json!("+02:00")),
    ] {
        assert_eq!(id(&with(nameless.clone(), name, value)), first.sample_id, "{name}");
    }
    for (name, value) in [
        ("type", json!("HKQuantityTypeIdentifierRespiratoryRate")),
        ("startDate", json!("2026-03-01T00:00:59Z")),
        ("source", json!({ "productType": "Watch7,4" })),
    ] {
        assert_ne!(id(&with(nameless.clone(), name, value)), first.sample_id, "{name}");
    }
    let other = Headers::new().with(header::VENDOR_USER, CONNECTION.replace("3f", "4f"));
    let body = json!({ "data": { "records": [nameless] } }).to_string();
    let others = read(&other, body).expect("a push");
    assert_ne!(
        record(&others[0]).expect("a record").content.readings[0].sample_id,
        first.sample_id
    );
}

/// Of one derived id in one push the last is the sample; of one given id the first (trap 1).
#[test]
fn what_is_said_later_in_a_push_replaces_what_has_no_id_of_its_own() {
    let nameless = with(beat(1), "id", Value::Null);
    let later = with(with(nameless.clone(), "value", 70), "zoneOffset", "+02:00");
    let items = parse(&json!({ "records": [nameless, beat(9), later] }));
    let values: Vec<_> = items
        .iter()
        .filter_map(record)
        .flat_map(|record| record.content.readings.iter().map(|reading| reading.value))
        .collect();
    assert_eq!(values, [Some(61.0), Some(70.0)], "in the record of its offset");
}

/// In bed and asleep may begin at one moment, and neither corrects the other; a stage is corrected.
#[test]
fn lying_in_bed_is_no_stage_of_the_same_moment() {
    let stage = |stage: &str| {
        let at = ("2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z");
        json!({ "stage": stage, "startDate": at.0, "endDate": at.1 })
    };
    let sleep = ["inBed", "asleepCore", "asleepDeep"].map(stage);
    let items = parse(&json!({ "sleep": sleep }));
    let readings = &record(&items[0]).expect("a record").content.readings;
    let symbols: Vec<_> = readings.iter().filter_map(|reading| reading.symbol.as_deref()).collect();
    assert_eq!(symbols, ["in_bed", "deep"]);
}

#[test]
fn the_samples_of_one_record_have_one_pair_of_offsets() {
    let offsets = |zones: [&str; 2]| -> Vec<_> {
        let records =
            [with(beat(1), "zoneOffset", zones[0]), with(beat(2), "zoneOffset", zones[1])];
        let items = parse(&json!({ "records": records }));
        let ids: BTreeSet<_> = items.iter().filter_map(record).map(|one| &one.record_id).collect();
        assert_eq!(ids.len(), 1, "one bucket, whatever the offsets are");
        items
            .iter()
            .map(|item| {
                let content = &record(item).expect("a record").content;
                assert_eq!(content.local_date, None, "a UTC day is nobody's day");
                let provenance = content.offset_provenance.clone();
                (content.start_offset_s, content.end_offset_s, provenance, content.readings.len())
            })
            .collect()
    };
    let known = |offset, samples| (Some(offset), Some(offset), "device".to_owned(), samples);
    let unknown = (None, None, "unknown".to_owned(), 1);
    assert_eq!(offsets(["+02:00", "+0200"]), [known(7200, 2)]);
    assert_eq!(offsets(["+02:00", "+01:00"]), [known(7200, 1), known(3600, 1)]);
    assert_eq!(offsets(["Z", "+02:00"]), [unknown, known(7200, 1)]);
}

/// The arrays of `data` may stand in any order; positions do not move.
#[test]
fn positions_are_those_of_the_contract_whatever_order_the_body_has() {
    let sleep = json!({ "stage": "asleepDeep", "startDate": "2026-03-29T01:00:00Z",
                        "endDate": "2026-03-29T02:00:00Z" });
    let bad = json!(7);
    let [records, sleeps] =
        [json!([beat(1), bad.clone()]).to_string(), json!([sleep, bad]).to_string()];
    let one = format!(r#"{{"data":{{"records":{records},"sleep":{sleeps}}}}}"#);
    let other = format!(r#"{{"data":{{"sleep":{sleeps},"records":{records}}},"x":1}}"#);
    let one = read(&headers(), one).expect("a push");
    assert_eq!(one.iter().map(|item| item.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(read(&headers(), other).expect("a push"), one);
}

/// Trap 2, for workouts: the deletion stands above its workout whichever comes first.
#[test]
fn a_workout_is_below_its_deletion_in_any_order() {
    let id = "0F1D2C3B-1111-4A22-9B33-00000000AAAA";
    let workout = json!({ "id": id, "type": "running", "startDate": "2026-03-29T05:00:00Z",
                          "endDate": "2026-03-29T05:30:00Z" });
    let gone = json!({ "id": id, "type": "HKWorkoutTypeIdentifier" });
    let items = parse(&json!({ "workouts": [workout], "deleted": [gone] }));
    let (made, gone) = (record(&items[0]).expect("made"), record(&items[1]).expect("gone"));
    assert_eq!((&made.record_type, &made.record_id), (&gone.record_type, &gone.record_id));
    let version = made.version.expect("its end");
    assert!(gone.version.is_none() && version < RECEIVED_AT, "a receipt comes after the end");
}

/// A phone sends thousands of samples of types that we do not know: one word for all of them.
#[test]
fn what_is_ignored_is_told_once_for_each_reason() {
    let unknown = |minute| with(beat(minute), "type", "HKQuantityTypeIdentifierPhysicalEffort");
    let mut records: Vec<_> = (0..3000).map(unknown).collect();
    records.insert(0, beat(1));
    let items = parse(&json!({ "records": records }));
    assert_eq!(items.len(), 2);
    assert_eq!((items[1].index, &items[1].what), (1, &What::Ignored("unknown type")));
}

/// A million elements in a few bytes each: told one by one up to a bound, and the rest by the last word.
#[test]
fn a_million_bad_elements_cost_no_more_than_their_bound() {
    let body = format!(
        r#"{{"data":{{"records":[{}{}]}}}}"#,
        "1,".repeat(999_999),
        with(beat(1), "unit", Value::Null),
    );
    let items = read(&headers(), body).expect("a push");
    assert_eq!(items.len(), push::BAD_MAX + 1);
    let What::Bad(reject) = &items.last().expect("items").what else { panic!("not bad") };
    assert_eq!(reject.why, "the first of more bad elements than are told one by one");
    let mut good = "1,".repeat(push::BAD_MAX + 5);
    good.push_str(&beat(1).to_string());
    let body = format!(r#"{{"data":{{"records":[{good}]}}}}"#);
    let items = read(&headers(), body).expect("a push");
    assert_eq!(items.iter().filter_map(record).count(), 1, "a good one lives behind them");
}

/// What one element may hold is bounded, so that no element is a push of its own.
#[test]
fn an_element_with_a_book_in_it_is_bad() {
    let book = json!({ "HKMetadataKeyNote": "x".repeat(70_000) });
    let items = parse(&json!({ "records": [with(beat(1), "metadata", book), beat(2)] }));
    assert!(matches!(&items[0].what, What::Bad(reject) if reject.why.contains("64 KiB")));
    assert!(record(&items[1]).is_some());
}

/// What breaks the rules of a body breaks them wherever it stands.
#[test]
fn a_key_twice_in_a_source_is_a_body_with_a_key_twice() {
    for text in [r#""source":{"a":1,"a":2}"#, r#""metadata":{"a":[{"b":1,"b":1}]}"#] {
        let mut sample = beat(1);
        sample.as_object_mut().expect("an object").remove("source");
        let sample = sample.to_string();
        let body =
            format!(r#"{{"data":{{"records":[{},{text}}}]}}}}"#, sample.trim_end_matches('}'));
        let why = read(&headers(), body).expect_err("refused").why;
        assert_eq!(why, "a key stands twice in an object");
    }
}

// ── Health Auto Export ─────────────────────────────────────────────────────────────────────────────────────

fn series(name: &str, units: &str, elements: &Value) -> Value {
    json!({ "metrics": [{ "name": name, "units": units, "data": elements }] })
}

/// Trap 6: 0.97 of shape A and 97 of shape B are one value, and neither is guessed from its size.
#[test]
fn a_per_cent_is_a_fraction_in_one_shape_and_a_percentage_in_the_other() {
    let kind = "HKQuantityTypeIdentifierOxygenSaturation";
    let sample = with(with(with(beat(1), "type", kind), "unit", "%"), "value", 0.97);
    let ours = reading(&sample);
    let exported = |value: f64| {
        let at = json!([{ "date": "2026-03-29 06:41:12 +0200", "qty": value }]);
        let items = parse(&series("blood_oxygen_saturation", "%", &at));
        record(&items[0]).expect("a record").content.readings[0].clone()
    };
    let theirs = exported(97.0);
    assert_eq!((ours.metric, ours.value), (theirs.metric, theirs.value));
    assert!(exported(0.97).flags.contains(&flag::IMPLAUSIBLE_VALUE.to_owned()));
}

/// Today's steps are sent many times a day: more of the same sample, and no second one, whatever their source is
/// called by then.
#[test]
fn a_minute_that_grew_is_the_same_sample() {
    let sent = |value: u32, source: &str| {
        let at = json!([{ "date": "2026-03-29 06:00:00 +0200", "qty": value, "source": source }]);
        let items = parse(&series("step_count", "count", &at));
        let record = record(&items[0]).expect("a record");
        (record.record_id.clone(), record.content.readings[0].clone())
    };
    let (bucket, first) = sent(412, "Canary’s iPhone");
    for source in ["Canary's iPhone", "Canary’s Apple Watch|Canary’s iPhone", ""] {
        let (again, reading) = sent(530, source);
        assert_eq!((&again, &reading.sample_id), (&bucket, &first.sample_id), "{source}");
        assert_eq!(reading.value, Some(530.0));
        assert_eq!(reading.flags, [flag::DERIVED_ID]);
    }
    assert_ne!(sent(530, "Connect").0, bucket, "what Garmin's app wrote is Garmin's");
}

/// Trap 9: what another maker's app wrote is that maker's, told by its name where there is no bundle id.
#[test]
fn another_makers_app_is_known_by_its_name_where_it_has_no_more() {
    let named = |source: Value| {
        let items = parse(&json!({ "records": [with(beat(1), "source", source)] }));
        record(&items[0]).expect("a record").device_type.clone()
    };
    assert_eq!(named(json!({ "name": "Oura" })), "oura");
    assert_eq!(named(json!({ "name": "Oura", "bundleIdentifier": "com.example.x" })), "apple");
    assert_eq!(named(json!({ "name": "Canary's Oura" })), "apple");
}

/// A night of two sources that cross midnight and overlap: apart, stage by stage, each with its offsets.
#[test]
fn a_night_over_midnight_keeps_its_sources_apart() {
    let stage = |start: &str, end: &str, value: &str, source: &str| json!({ "startDate": start, "endDate": end, "value": value, "source": source });
    let (watch, phone) = ("Canary’s Apple Watch", "Canary’s iPhone");
    let night = json!([
        stage("2026-03-28 22:50:00 +0100", "2026-03-29 07:00:00 +0200", "In Bed", phone),
        stage("2026-03-28 23:00:00 +0100", "2026-03-29 00:30:00 +0100", "Core", watch),
        stage("2026-03-29 01:30:00 +0100", "2026-03-29 06:40:00 +0200", "Deep", watch),
        stage("2026-03-28 23:10:00 +0100", "2026-03-29 06:30:00 +0200", "Asleep", "AutoSleep"),
    ]);
    let items = parse(&series("sleep_analysis", "hr", &night));
    let found: Vec<_> = items
        .iter()
        .filter_map(record)
        .map(|record| {
            let content = &record.content;
            (record.record_id.as_str(), content.start_offset_s, content.end_offset_s)
        })
        .collect();
    let (winter, summer) = (Some(3600), Some(7200));
    assert_eq!(
        found,
        [
            ("2026-03-28||iPhone", winter, summer),
            ("2026-03-28||Watch", winter, winter),
            ("2026-03-29||Watch", winter, summer),
            ("2026-03-28|autosleep|", winter, summer),
        ]
    );
}

/// Sent three times, in parallel or not, by two normalisers or one: the same bytes are the same items.
#[test]
fn the_same_batch_three_times_is_the_same_batch() {
    let nameless = with(beat(3), "id", Value::Null);
    let body = json!({ "data": { "records": [beat(1), nameless, 7] } }).to_string();
    let read = |body: String| read(&headers(), body).expect("a push");
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| read(body.clone()))).collect();
        threads.into_iter().map(|thread| thread.join().expect("read")).collect()
    });
    assert!(all.windows(2).all(|two| two[0] == two[1]));
    assert_eq!(gathered(&all), gathered(&all[..1]), "nothing counts twice");
}
