//! What Oura's file promises, case by case.

use bytes::Bytes;

use super::*;
use crate::model::contract::header;
use crate::model::event::{Merge, Reading, flag};
use crate::model::record::Headers;
use crate::model::time::Day;
use crate::vendors::VendorRecord;
use crate::vendors::wire::hmac::{Key, sign_hex};

const KEY: &[u8] = b"not-a-secret-test-key";
const BODY: &[u8] = b"{\"event_type\":\"update\",\"data_type\":\"sleep\",\
    \"object_id\":\"7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11\",\
    \"event_time\":\"2026-03-29T06:41:12+00:00\",\"user_id\":\"u-4f2c81\"}";
const SIGNATURE: &str = "8F7EEA16285F5EB13CF8F9DE3FB3333BB41AD7FD76EF3623EAFD05F5FE99BAE1";
const SIGNED_AT: Micros = 1_774_766_472_000_000;

fn verify_at(now_us: Micros, keys: &[&[u8]], headers: &[(&str, &str)]) -> Result<(), Kind> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let keys: Vec<Key> = keys.iter().copied().map(Key::new).collect();
    let secrets = Secrets { signing: &keys, ..Secrets::default() };
    let request = Request { headers: &headers, body: BODY };
    VENDOR.verify(&request, &secrets, now_us).map(|_| ())
}

fn verify(timestamp: &str, signature: &str) -> Result<(), Kind> {
    let headers = [("x-oura-timestamp", timestamp), ("x-oura-signature", signature)];
    verify_at(SIGNED_AT, &[KEY], &headers)
}

fn item(body: &str) -> Result<Item, Reject> {
    let (headers, body) = (Headers::new(), Bytes::copy_from_slice(body.as_bytes()));
    let raw = Raw { headers: &headers, body: &body, received_at: SIGNED_AT };
    VENDOR.parse(&raw).map(|items| items.into_iter().next().expect("one item"))
}

fn notification(field: &str, value: &str) -> String {
    let mut json: serde_json::Value = serde_json::from_slice(BODY).expect("JSON");
    json[field] = serde_json::from_str(value).expect("a value");
    json.to_string()
}

#[test]
fn the_golden_vector_holds_in_either_case() {
    assert_eq!(verify("1774766472", SIGNATURE), Ok(()));
    assert_eq!(verify("1774766472", &SIGNATURE.to_lowercase()), Ok(()));
    for (timestamp, signature) in [
        ("1774766473", SIGNATURE),
        ("+1774766472", SIGNATURE),
        ("1774766472.0", SIGNATURE),
        ("", SIGNATURE),
        ("99999999999999999999", SIGNATURE),
        ("1774766472", ""),
        ("1774766472", SIGNATURE.trim_end_matches("E1")),
        ("1774766472", "YkdPmvWsym13R6xgYvzba3OsC4tUUb5Z6FbNUI1zIvA="),
    ] {
        assert_eq!(verify(timestamp, signature), Err(Kind::SignatureInvalid), "{timestamp}");
    }
}

#[test]
fn what_is_signed_is_the_bytes_and_not_what_they_say() {
    let as_sent = b"{ \"user_id\": \"u-4f2c81\",\n \"data_type\": \"sleep\" }".as_slice();
    let value: serde_json::Value = serde_json::from_slice(as_sent).expect("JSON");
    let again = value.to_string();
    let signature = sign_hex(&[b"1774766472", as_sent], KEY);
    let headers = vec![
        ("x-oura-timestamp".to_owned(), b"1774766472".to_vec()),
        ("x-oura-signature".to_owned(), signature.to_uppercase().into_bytes()),
    ];
    let keys = [Key::new(KEY)];
    let secrets = Secrets { signing: &keys, ..Secrets::default() };
    let verify = |body| VENDOR.verify(&Request { headers: &headers, body }, &secrets, SIGNED_AT);
    assert!(verify(as_sent).is_ok(), "spaces and order as they came");
    assert_eq!(verify(again.as_bytes()).map(|_| ()), Err(Kind::SignatureInvalid));
}

#[test]
fn two_secrets_live_and_a_header_stands_once() {
    let headers = [("x-oura-timestamp", "1774766472"), ("x-oura-signature", SIGNATURE)];
    assert_eq!(verify_at(SIGNED_AT, &[b"the-next", KEY], &headers), Ok(()));
    assert_eq!(verify_at(SIGNED_AT, &[b"the-next"], &headers), Err(Kind::SignatureInvalid));
    assert_eq!(verify_at(SIGNED_AT, &[], &headers), Err(Kind::SignatureInvalid));
    let twice = [headers[0], headers[1], headers[1]];
    assert_eq!(verify_at(SIGNED_AT, &[KEY], &twice), Err(Kind::SignatureInvalid));
    assert_eq!(verify_at(SIGNED_AT, &[KEY], &headers[..1]), Err(Kind::SignatureInvalid));
}

#[test]
fn the_window_is_two_hours_either_way_and_is_asked_last() {
    let headers = [("x-oura-timestamp", "1774766472"), ("x-oura-signature", SIGNATURE)];
    for (off, answer) in [
        (WINDOW_US, Ok(())),
        (-WINDOW_US, Ok(())),
        (WINDOW_US + 1, Err(Kind::SignatureExpired)),
        (-WINDOW_US - 1, Err(Kind::SignatureExpired)),
    ] {
        assert_eq!(verify_at(SIGNED_AT + off, &[KEY], &headers), answer, "{off}");
    }
    let late = verify_at(SIGNED_AT + WINDOW_US + 1, &[b"other"], &headers);
    assert_eq!(late, Err(Kind::SignatureInvalid), "who has no key does not learn about time");
}

#[test]
fn a_challenge_is_echoed_to_who_knows_the_token() {
    let secrets = Secrets {
        signing: &[Key::new(KEY)],
        handshake: Some(b"not-a-secret-token"),
        ..Secrets::default()
    };
    let ask = |query: &[(&str, &str)], secrets: &Secrets<'_>| {
        let query: Vec<_> =
            query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        VENDOR.handshake(&query, secrets).expect("Oura has one")
    };
    let token = ("verification_token", "not-a-secret-token");
    let long = "a".repeat(257);
    assert_eq!(
        ask(&[token, ("challenge", "c-1")], &secrets),
        Ok(r#"{"challenge":"c-1"}"#.to_owned())
    );
    for query in [
        &[token][..],
        &[("challenge", "c-1")],
        &[token, ("challenge", "")],
        &[token, ("challenge", "\"}<script>")],
        &[token, ("challenge", &long)],
        &[token, ("challenge", "c-1"), ("challenge", "c-2")],
        &[token, token, ("challenge", "c-1")],
        &[("verification_token", "not-a-secret-toke"), ("challenge", "c-1")],
        &[("verification_token", ""), ("challenge", "c-1")],
    ] {
        assert_eq!(ask(query, &secrets), Err(Kind::SignatureInvalid), "{query:?}");
    }
    let unset = Secrets { handshake: Some(b""), ..secrets };
    let empty = [("verification_token", ""), ("challenge", "c-1")];
    assert_eq!(ask(&empty, &unset), Err(Kind::SignatureInvalid), "no token lets nobody in");
}

#[test]
fn an_update_is_a_fetch_and_a_delete_a_tombstone() {
    let body = std::str::from_utf8(BODY).expect("text");
    let update = item(body).expect("an item");
    assert_eq!(update.vendor_user.as_deref(), Some("u-4f2c81"));
    let record_id = "7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11".to_owned();
    assert_eq!(update.what, What::Fetch { record_type: "sleep", record_id: record_id.clone() });
    let gone = item(&notification("event_type", r#""delete""#)).expect("an item");
    assert_eq!(gone.what, thin::change("oura", "sleep", record_id, true));
    for (field, value) in [("data_type", r#""heartrate""#), ("event_type", r#""expired""#)] {
        let item = item(&notification(field, value)).expect("an item");
        assert_eq!(item.what, What::Ignored("unknown type"), "{field}");
    }
}

#[test]
fn what_cannot_be_fetched_is_bad_and_what_is_nobodys_is_no_item() {
    for value in ["null", "7", r#""""#, r#""../../users""#, r#""a b""#] {
        let found = item(&notification("object_id", value)).expect("an item").what;
        let What::Bad(reject) = found else { panic!("{found:?}") };
        assert_eq!(reject.at.as_str(), "object_id");
    }
    for value in ["null", "7", r#""""#] {
        let reject = item(&notification("user_id", value)).expect_err("a reject");
        assert_eq!(reject.at.as_str(), "user_id", "{value}");
    }
    assert!(item("[]").is_err());
}

#[test]
fn the_key_is_the_user_that_parse_sees() {
    let verified = Verified::default();
    assert_eq!(VENDOR.key_user(&verified, BODY), KeyUser::One("u-4f2c81".to_owned()));
    let twice = br#"{"user_id":"a","user_id":"b"}"#;
    for body in [b"not json".as_slice(), b"{}", b"[]", twice] {
        assert_eq!(VENDOR.key_user(&verified, body), KeyUser::None);
    }
}

// ── documents ──────────────────────────────────────────────────────────────────────────────────────────────

fn read(record_type: &str, body: &str) -> Result<Vec<Item>, Reject> {
    let headers = Headers::new().with(header::VENDOR_USER, "u-4f2c81");
    let body = Bytes::copy_from_slice(body.as_bytes());
    VENDOR.document(&Raw { headers: &headers, body: &body, received_at: SIGNED_AT }, record_type)
}

fn one(record_type: &str, body: &str) -> VendorRecord {
    let items = read(record_type, body).expect("items");
    assert_eq!(items.len(), 1, "{items:?}");
    match items.into_iter().next().expect("one").what {
        What::Record(record) => *record,
        other => panic!("{other:?}"),
    }
}

fn values(record: &VendorRecord, metric: &str) -> Vec<f64> {
    let of = |reading: &&Reading| reading.metric == metric;
    record.content.readings.iter().filter(of).filter_map(|reading| reading.value).collect()
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/oura/document_", $name, ".json"))
    };
}

#[test]
fn a_night_over_a_change_of_the_clock_is_as_long_as_it_was() {
    let night = one("sleep", fixture!("sleep"));
    let content = &night.content;
    assert_eq!((content.start_offset_s, content.end_offset_s), (Some(3_600), Some(7_200)));
    assert!(content.flags.iter().any(|name| name == flag::OFFSET_CHANGE));
    assert_eq!(values(&night, "sleep_session"), [28_080.0]);
    assert_eq!(values(&night, "sleep_time_in_bed"), [28_080.0], "the vendor says the same");
    assert_eq!(content.day(), Day::parse("2026-03-29"));
    assert_eq!(content.day_rule.as_deref(), Some("vendor_day"));
    assert_eq!(night.version, None, "no field has one");
}

#[test]
fn one_night_gives_one_temperature_and_the_lowest_rate_is_no_resting_rate() {
    let night = one("sleep", fixture!("sleep"));
    for name in ["skin_temperature_deviation", "oura.readiness_score", "resting_heart_rate"] {
        assert_eq!(values(&night, name), [0.0; 0], "{name}");
    }
    assert_eq!(values(&night, "heart_rate_sleep_min"), [47.0]);
    assert_eq!(values(&night, "respiratory_rate_sleep_avg"), [13.75], "a minute, not a second");
    let readiness = one("daily_readiness", fixture!("readiness"));
    assert_eq!(values(&readiness, "skin_temperature_deviation"), [0.0], "zero is a value");
    assert_eq!(values(&readiness, "oura.readiness_contributor.activity_balance"), [0.0; 0]);
    assert_eq!(readiness.content.readings.len(), 11);
}

#[test]
fn null_is_absent_and_zero_is_not() {
    let nulls = one("sleep", fixture!("sleep_nulls"));
    let told: Vec<_> = nulls.content.readings.iter().map(|one| one.metric.as_str()).collect();
    assert_eq!(told, ["sleep_session", "sleep_time_in_bed"]);
    assert!(one("daily_readiness", fixture!("readiness_nulls")).content.readings.is_empty());
    let zeroes = one("sleep", fixture!("sleep_zeroes"));
    assert_eq!(values(&zeroes, "sleep_latency"), [0.0]);
    let hrv = zeroes.content.readings.iter().find(|one| one.metric == "hrv_rmssd_sleep_avg");
    assert_eq!(hrv.expect("a reading").flags, [flag::IMPLAUSIBLE_VALUE], "of a living person");
}

#[test]
fn a_series_has_gaps_and_a_stage_its_length() {
    let night = one("sleep", fixture!("sleep"));
    let start = night.content.start_at.expect("a start");
    let hrv: Vec<_> =
        night.content.readings.iter().filter(|one| one.metric == "hrv_rmssd").collect();
    let times: Vec<_> = hrv.iter().map(|one| (one.start_at - start) / 1_000_000).collect();
    assert_eq!((times, values(&night, "hrv_rmssd")), (vec![300, 600], vec![38.0, 44.0]));
    assert!(hrv.iter().all(|one| one.window_s == Some(300)));
    let stages = |record: &VendorRecord| -> Vec<(String, i64)> {
        let of = |reading: &Reading| {
            let end = reading.end_at?;
            Some((reading.symbol.clone()?, (end - reading.start_at) / 1_000_000))
        };
        record.content.readings.iter().filter_map(of).collect()
    };
    let named = |all: &[(&str, i64)]| -> Vec<(String, i64)> {
        all.iter().map(|(name, length)| ((*name).to_owned(), *length)).collect()
    };
    let coarse = [("awake", 300), ("light", 600), ("deep", 600), ("awake", 300), ("rem", 300)];
    assert_eq!(stages(&night), named(&coarse));
    // 8 min 30 s lie between start and end: the last interval would go on beyond it, and what comes after is cut.
    let fine = one("sleep", fixture!("sleep_30_sec"));
    let expected = [("awake", 90), ("light", 150), ("deep", 120), ("rem", 120), ("unknown", 30)];
    assert_eq!(stages(&fine), named(&expected));
    assert_eq!(fine.content.attributes["algorithm"], "unlisted");
    let items = read("sleep", fixture!("sleep_bad_interval")).expect("items");
    let What::Bad(reject) = &items[0].what else { panic!("{items:?}") };
    assert_eq!(reject.at.as_str(), "hrv.interval");
}

#[test]
fn what_is_rejected_is_gone_and_a_late_nap_is_the_next_days() {
    let gone = |record_type, id: &str| thin::tombstone("oura", record_type, id.to_owned());
    let id = "7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11";
    assert_eq!(one("sleep", fixture!("sleep_rest")), gone("sleep", id));
    assert_eq!(one("sleep", fixture!("sleep_deleted")), gone("sleep", id), "nothing else is known");
    let nap = one("sleep", fixture!("sleep_late_nap"));
    assert_eq!(nap.content.day(), Day::parse("2026-03-29"), "it ended at 18:20 on the 28th");
    assert_eq!(nap.content.attributes["is_nap"], "true");
}

#[test]
fn a_day_is_ouras_and_activity_begins_at_four() {
    let activity = one("daily_activity", fixture!("activity"));
    assert_eq!(activity.content.day_rule.as_deref(), Some("oura_0400"));
    assert_eq!(activity.content.day(), Day::parse("2026-03-28"));
    assert_eq!(values(&activity, "steps_daily"), [9_021.0]);
    assert_eq!(values(&activity, "distance_walk_run"), [0.0; 0], "made of energy");
    let again = one("daily_activity", fixture!("activity_correction"));
    assert_eq!(again.record_id, activity.record_id, "the next revision");
    let stress = one("daily_stress", fixture!("stress"));
    assert_eq!((stress.content.start_at, stress.content.day()), (None, Day::parse("2026-03-28")));
    assert!(stress.content.flags.iter().any(|name| name == flag::FLOATING_TIME));
    assert_eq!(one("daily_cardiovascular_age", fixture!("vessels")).record_id, "2026-03-28");
}

#[test]
fn words_of_a_person_stay_and_words_that_are_not_known_are_unlisted() {
    let resilience = one("daily_resilience", fixture!("resilience"));
    assert_eq!(resilience.content.readings[0].symbol.as_deref(), Some("solid"));
    let unlisted = one("daily_resilience", fixture!("resilience_unlisted"));
    assert_eq!(unlisted.content.attributes["level"], "unlisted");
    let walk = one("workout", fixture!("workout"));
    assert_eq!(walk.content.attributes["sport"], "nordic_walking");
    assert_eq!(values(&walk, "distance_walk_run"), [5_210.0]);
    assert_eq!(walk.content.recording_method.as_deref(), Some("automatic"));
    let other = one("workout", fixture!("workout_unlisted"));
    assert_eq!(values(&other, "distance_walk_run"), [0.0; 0]);
    let body = one("personal_info", fixture!("personal_info"));
    assert_eq!(
        (values(&body, "body_height"), values(&body, "body_weight")),
        (vec![183.0], vec![74.5])
    );
    let tag = read("enhanced_tag", fixture!("tag")).expect("items");
    assert_eq!(tag[0].what, What::Ignored("a type that measures nothing"));
}

#[test]
fn heart_rates_are_buckets_by_utc_day_with_ids_of_their_moments() {
    let items = read("heartrate", fixture!("heartrate")).expect("items");
    let indexes: Vec<_> = items.iter().map(|item| item.index).collect();
    assert_eq!(indexes, [0, 1, 2, 5], "each day at its first sample, each bad one where it is");
    let whats: Vec<&What> = items.iter().map(|item| &item.what).collect();
    let [What::Record(first), What::Record(second), What::Bad(time), What::Bad(rate)] = whats[..]
    else {
        panic!("{items:?}")
    };
    assert_eq!((time.at.as_str(), rate.at.as_str()), ("[0].data[2].timestamp", "[2].data[2].bpm"));
    assert_eq!((first.record_id.as_str(), first.merge), ("2026-03-28|oura", Merge::Union));
    assert_eq!(values(second, "heart_rate"), [51.0, 53.0], "of two at one moment the later counts");
    let contexts: Vec<_> = second.content.readings.iter().map(|one| one.context.clone()).collect();
    assert_eq!(contexts, [Some("sleep".to_owned()), Some("live".to_owned())]);
    assert_eq!(read("heartrate", fixture!("heartrate")), Ok(items.clone()), "the same ids again");
}

#[test]
fn a_day_of_more_pages_than_are_asked_for_says_so() {
    let whole = fixture!("heartrate");
    let items = read("heartrate", whole).expect("items");
    let cut = whole.replace(r#""next_token":null"#, r#""next_token":"canary""#);
    assert_ne!(cut, whole);
    let mut more = read("heartrate", &cut).expect("items");
    let last = more.pop().expect("an item");
    assert_eq!(more, items, "what came counts");
    assert!(matches!(last.what, What::Bad(_)), "{last:?}");
    assert_eq!(last.index, 6, "behind all that came");
}

#[test]
fn a_document_is_its_connections_and_a_meal_has_none() {
    let items = read("sleep", fixture!("sleep_page")).expect("items");
    assert!(items.iter().all(|item| item.vendor_user.as_deref() == Some("u-4f2c81")));
    let bad: Vec<_> = items.iter().filter(|item| matches!(item.what, What::Bad(_))).collect();
    assert_eq!((items.len(), bad.len()), (4, 2), "the others of the page live");
    assert_eq!(read("sleep", fixture!("sleep_page_empty")), Ok(vec![]), "pages go on all the same");
    assert!(read("users", fixture!("unknown_type")).is_err());
    for event in ["create", "delete"] {
        let body = notification("data_type", r#""meal""#).replace("update", event);
        let found = item(&body).expect("an item").what;
        assert_eq!(found, What::Ignored("a type that its API does not have"));
    }
}
