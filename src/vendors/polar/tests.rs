//! Polar: what was decided, and the traps of `vendors.md` §8.5.

use bytes::Bytes;

use super::*;
use crate::model::record::Headers;
use crate::vendors::wire::hmac::Key;

const KEY: &[u8] = b"not-a-secret-test-key";
const SAYS: &str = "b680ddf10776ec2bba6340ed9f94e16fe7c5f732ec5e5cda135ff862d8409c2b";

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/polar/", $name, ".json"))
    };
}

fn verify(body: &str, headers: &[(&str, &str)]) -> Result<(), Kind> {
    let headers: Vec<(String, Vec<u8>)> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let keys = [b"the-next", KEY].map(Key::new);
    let secrets = Secrets { signing: &keys, ..Secrets::default() };
    let request = Request { headers: &headers, body: body.as_bytes() };
    VENDOR.verify(&request, &secrets, 0).map(|_| ())
}

fn whats(body: &str) -> Vec<What> {
    let (headers, body) = (Headers::new(), Bytes::copy_from_slice(body.as_bytes()));
    let raw = Raw { headers: &headers, body: &body, received_at: 0 };
    VENDOR.parse(&raw).expect("items").into_iter().map(|item| item.what).collect()
}

fn read_as(record_type: &str, body: &str) -> Result<Vec<Item>, Reject> {
    let headers = Headers::new().with(header::VENDOR_USER, "62713944");
    let body = Bytes::copy_from_slice(body.as_bytes());
    let received_at = Day::parse("2026-03-29").expect("a day").next().start_utc_us();
    VENDOR.document(&Raw { headers: &headers, body: &body, received_at }, record_type)
}

fn one(record_type: &str, body: &str) -> VendorRecord {
    let items = read_as(record_type, body).expect("items");
    let [Item { what: What::Record(record), .. }] = &items[..] else { panic!("{items:?}") };
    (**record).clone()
}

fn values(record: &VendorRecord, metric: &str) -> Vec<f64> {
    let all = record.content.readings.iter().filter(|reading| reading.metric == metric);
    all.filter_map(|reading| reading.value).collect()
}

#[test]
fn the_golden_vector_holds() {
    let name = "polar-webhook-signature";
    let body = fixture!("sleep");
    assert_eq!(verify(body, &[(name, SAYS)]), Ok(()));
    let spaced = body.replacen(',', ", ", 1);
    for (body, headers) in [
        (spaced.as_str(), &[(name, SAYS)][..]),
        (body, &[(name, SAYS.trim_start_matches("b6"))]),
        (body, &[(name, "")]),
        (body, &[("x-oura-signature", SAYS)]),
        (body, &[(name, SAYS), (name, SAYS)]),
    ] {
        assert_eq!(verify(body, headers), Err(Kind::SignatureInvalid), "{headers:?}");
    }
}

#[test]
fn only_a_ping_is_a_greeting() {
    let headers: Vec<(String, Vec<u8>)> = Vec::new();
    let greets = |body: &str| {
        let request = Request { headers: &headers, body: body.as_bytes() };
        VENDOR.greets(&request, &Secrets::default()).is_some()
    };
    assert!(greets(fixture!("ping")));
    let with_more = r#"{"event":"PING","user_id":7}"#;
    let long = format!(r#"{{"event":"PING","x":"{}"}}"#, "x".repeat(PING_BYTES_MAX));
    for body in [fixture!("sleep"), with_more, &long, "PING", "", r#"{"event":["PING"]}"#] {
        assert!(!greets(body), "{body}");
    }
}

#[test]
fn a_sleep_asks_for_its_recharge_and_no_body_chooses_a_path() {
    let fetch =
        |record_type, record_id: &str| What::Fetch { record_type, record_id: record_id.to_owned() };
    let both = ["sleep", "nightly_recharge", "spo2", "skin_temperature"]
        .map(|record_type| fetch(record_type, "2026-03-29"));
    assert_eq!(whats(fixture!("sleep")), both);
    assert_eq!(whats(fixture!("sleep_again")), both);
    assert_eq!(whats(fixture!("sleep_url_elsewhere")), both);
    assert_eq!(whats(fixture!("exercise")), [fetch("workout", "aQlC83")]);
    let rates = [fetch("daily_heart_rate", "2026-03-28")];
    assert_eq!(whats(fixture!("continuous_heart_rate")), rates);
    for body in [fixture!("exercise_bad_id"), fixture!("bad_date")] {
        assert!(matches!(whats(body)[..], [What::Bad(_)]));
    }
    assert_eq!(whats(fixture!("unknown_event")), [What::Ignored("unknown type")]);
    let large = fixture!("activity_summary").as_bytes();
    let key = VENDOR.key_user(&Verified::default(), large);
    assert_eq!(key, KeyUser::One("9007199254740993".to_owned()));
    assert_eq!(VENDOR.key_user(&Verified::default(), b"{}"), KeyUser::None);
}

#[test]
fn every_type_has_its_path_and_a_recharge_its_sleep() {
    let need = |record_type, record_id| Need { record_type, record_id, vendor_user: "7" };
    let path =
        |record_type, record_id| VENDOR.ask(&need(record_type, record_id)).map(|call| call.path);
    for (record_type, record_id, expected) in [
        ("sleep", "2026-03-29", "/v3/users/sleep/2026-03-29"),
        ("nightly_recharge", "2026-03-29", "/v3/users/sleep/2026-03-29"),
        ("daily", "2026-03-29", "/v3/users/activities/2026-03-29"),
        ("daily_heart_rate", "2026-03-29", "/v3/users/continuous-heart-rate/2026-03-29"),
        ("workout", "aQlC83", "/v3/exercises/aQlC83"),
    ] {
        assert_eq!(path(record_type, record_id).as_deref(), Some(expected));
    }
    for (record_type, record_id) in
        [("sleep", "../1"), ("workout", "a/b"), ("workout", ""), ("ecg", "2026-03-29")]
    {
        assert_eq!(path(record_type, record_id), None, "{record_type} {record_id}");
    }
    let answers = [Bytes::from(fixture!("document_sleep")), Bytes::from("{}")];
    let recharge = need("nightly_recharge", "2026-03-28");
    let next = VENDOR.then(&recharge, &answers[..1]).map(|call| call.path);
    assert_eq!(next.as_deref(), Some("/v3/users/nightly-recharge/2026-03-28"));
    assert_eq!(VENDOR.then(&recharge, &answers), None);
    assert_eq!(VENDOR.then(&need("sleep", "2026-03-28"), &answers[..1]), None);
}

#[test]
fn nothing_is_not_yet_and_the_nearer_window_counts() {
    let headers = |reset: &str| -> Vec<(String, Vec<u8>)> {
        [("usage", "519, 700"), ("limit", "520, 5100"), ("reset", reset)]
            .map(|(name, value)| (format!("ratelimit-{name}"), value.as_bytes().to_vec()))
            .to_vec()
    };
    let nearer = Told { left: 1, reset_s: 240 };
    assert_eq!(VENDOR.told(&headers("240, 80000")), Some(nearer));
    assert_eq!(VENDOR.told(&headers("240")), None);
    assert_eq!(VENDOR.answer(429, &headers("240, 80000")), Answer::Limited(Some(240)));
    assert_eq!(VENDOR.answer(204, &Vec::new()), Answer::NotYet);
    assert_eq!(VENDOR.answer(404, &Vec::new()), Answer::NotYet);
    assert_eq!(VENDOR.answer(200, &Vec::new()), Answer::Document);
    assert_eq!(VENDOR.answer(403, &Vec::new()), Answer::Forbidden, "no matter of tokens");
}

#[test]
fn a_clock_is_unwrapped_from_the_start_of_the_sleep() {
    let night = one("sleep", fixture!("document_sleep"));
    let start = night.content.start_at.expect("a start");
    let stages: Vec<_> = night
        .content
        .readings
        .iter()
        .filter_map(|reading| {
            let from = (reading.start_at - start + 30_000_000) / 60_000_000;
            Some((from, reading.symbol.as_deref()?))
        })
        .collect();
    let expected = [
        (0, "awake"),
        (6, "light"),
        (56, "deep"),
        (96, "rem"),
        (171, "unknown"),
        (196, "light"),
        (465, "awake"),
    ];
    assert_eq!(stages, expected, "two codes are light, and midnight is passed");
    assert_eq!(values(&night, "heart_rate"), [57.0, 51.0, 48.0], "in order, without the null");
    assert_eq!(values(&night, "sleep_total_duration"), [24_870.0]);
    assert_eq!(values(&night, "polar.sleep_score"), [78.0]);
    assert_eq!(night.content.attributes["unrecognised_s"], "60");
    assert_eq!(night.content.day(), Day::parse("2026-03-28"));
    let sparse = one("sleep", fixture!("document_sleep_sparse"));
    assert_eq!(values(&sparse, "sleep_total_duration"), [0.0; 0], "a part is missing");
    assert_eq!(values(&sparse, "polar.sleep_score"), [0.0; 0], "null is not zero");
    let changed = one("sleep", fixture!("document_sleep_clock_change"));
    assert!(changed.content.flags.iter().any(|name| name == flag::DST_GAP));
    assert!(changed.content.readings.iter().all(|reading| reading.symbol.is_none()));
    assert_eq!(values(&changed, "sleep_session"), [28_080.0], "its length is of instants");
    let bad = read_as("sleep", fixture!("document_sleep_bad_key")).expect("items");
    let What::Bad(reject) = &bad[0].what else { panic!("{bad:?}") };
    assert_eq!(reject.at.as_str(), "hypnogram");
    let page = read_as("sleep", fixture!("document_sleep_page")).expect("items");
    assert_eq!((page.len(), matches!(page[1].what, What::Bad(_))), (3, true), "others live");
}

#[test]
fn a_recharge_has_the_times_of_its_sleep() {
    let recharge = one("nightly_recharge", fixture!("document_recharge"));
    let sleep = one("sleep", fixture!("document_sleep"));
    assert_eq!(recharge.content.start_at, sleep.content.start_at);
    assert_eq!(values(&recharge, "hrv_rmssd_sleep_avg"), [62.0]);
    assert_eq!(values(&recharge, "polar.ans_charge"), [-2.3], "a charge may be less than none");
    assert_eq!(values(&recharge, "hrv_rmssd"), [66.0, 58.0]);
    let hrv = recharge.content.readings.iter().find(|one| one.metric == "hrv_rmssd_sleep_avg");
    assert_eq!(hrv.and_then(|one| one.method.as_deref()), Some("first_4h"));
    assert!(read_as("nightly_recharge", fixture!("document_recharge_missing")).is_err());
    let alone = one("nightly_recharge", fixture!("document_recharge_page"));
    assert_eq!((alone.content.start_at, alone.content.day()), (None, Day::parse("2026-03-28")));
    assert_eq!(values(&alone, "hrv_rmssd"), [0.0; 0], "nothing says when");
    assert_eq!(alone.record_id, recharge.record_id);
}

#[test]
fn days_and_exercises_have_their_lengths() {
    let day = one("daily", fixture!("document_daily"));
    assert_eq!(day.record_id, "2026-03-28");
    assert_eq!(day.content.attributes["active_s"], "25500");
    assert_eq!(values(&day, "energy_total_daily"), [2_610.0]);
    let whole = one("daily", fixture!("document_daily_whole"));
    assert_eq!(whole.content.attributes["active_s"], "86400");
    assert_eq!(values(&whole, "steps_daily"), [0.0], "zero is a value");
    let rates = one("daily_heart_rate", fixture!("document_heart_rate"));
    assert_eq!(values(&rates, "heart_rate"), [58.0, 61.0]);
    assert!(rates.content.flags.iter().any(|name| name == flag::FLOATING_TIME));
    let run = one("workout", fixture!("document_workout"));
    assert_eq!(values(&run, "workout_session"), [2_670.0]);
    assert_eq!(run.content.start_at, Some(1_774_712_470_000_000), "16:41:10 at +01:00");
    assert_eq!(values(&run, "distance_walk_run"), [7_772.8]);
    let other = one("workout", fixture!("document_workout_unlisted"));
    assert_eq!(other.content.attributes["sport"], "unlisted");
    assert_eq!(values(&other, "distance_walk_run"), [0.0; 0]);
}

#[test]
fn a_duration_is_read_strictly() {
    for (text, expected) in [
        ("PT24H", Some(86_400_000_000)),
        ("PT0S", Some(0)),
        ("PT7H5M", Some(25_500_000_000)),
        ("PT1M0.25S", Some(60_250_000)),
        ("PT", None),
        ("P1D", None),
        ("PT1.5H", None),
        ("PT5M7H", None),
        ("PT-5M", None),
        ("PT5", None),
    ] {
        let body = format!(r#"{{"d":"{text}"}}"#);
        let json = json::parse(body.as_bytes()).expect("JSON");
        let root = json.root();
        let at = root.get("d").expect("a value");
        assert_eq!(duration(&at).ok(), expected, "{text}");
    }
}

/// Trap 6, and what has no sensor.
#[test]
fn a_test_counts_where_it_passed_and_nobody_waits_for_a_sensor() {
    let items = read_as("spo2", fixture!("document_spo2")).expect("items");
    let [Item { what: What::Record(passed), .. }, inconclusive, far, unknown] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!(values(passed, "spo2"), [96.0]);
    assert_eq!(passed.content.start_offset_s, Some(10_800), "minutes: +03:00");
    assert_eq!(passed.record_id, "1774766400");
    assert_eq!(inconclusive.what, What::Ignored("a test that did not pass"));
    assert!(matches!(far.what, What::Bad(_)));
    let What::Record(unknown) = &unknown.what else { panic!("{unknown:?}") };
    assert_eq!((unknown.content.start_offset_s, unknown.content.day()), (None, None));
    let night = read_as("skin_temperature", fixture!("document_skin_temperature")).expect("items");
    let What::Record(night) = &night[0].what else { panic!("{night:?}") };
    assert_eq!(values(night, "skin_temperature_sleep"), [34.12]);
    assert_eq!(values(night, "skin_temperature_deviation"), [-0.3]);
    assert_eq!(night.content.day(), Day::parse("2026-03-29"));
    let need = |record_type| Need { record_type, record_id: "2026-03-29", vendor_user: "7" };
    for (record_type, status, answer) in [
        ("spo2", 204, Answer::Nothing),
        ("skin_temperature", 204, Answer::Nothing),
        ("spo2", 200, Answer::Document),
        ("spo2", 404, Answer::NotYet),
        ("nightly_recharge", 204, Answer::NotYet),
        ("sleep", 204, Answer::NotYet),
    ] {
        assert_eq!(VENDOR.answer_to(&need(record_type), status, &Vec::new()), answer);
    }
    let call = VENDOR.ask(&need("spo2")).expect("a call");
    assert_eq!(call.path, "/v3/users/biosensing/spo2");
    assert_eq!(call.query[0], ("from", "2026-03-28".to_owned()));
    assert_eq!(VENDOR.ask(&Need { record_id: "../1", ..need("skin_temperature") }), None);
}
