//! What WHOOP's file promises, case by case.

use bytes::Bytes;

use super::*;
use crate::model::contract::header;
use crate::model::record::Headers;
use crate::model::time::Day;
use crate::vendors::VendorRecord;
use crate::vendors::wire::hmac::{Key, sign_base64};

const KEY: &[u8] = b"not-a-secret-test-key";
const BODY: &[u8] = b"{\"user_id\":481516,\"id\":\"0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77\",\
    \"type\":\"recovery.updated\",\
    \"trace_id\":\"5f0c2a11-7d34-4d0a-9a53-0d8e6b1f9c20\"}";
const SIGNATURE: &str = "YkdPmvWsym13R6xgYvzba3OsC4tUUb5Z6FbNUI1zIvA=";
const SIGNED_AT: Micros = 1_774_766_691_903_000;

fn verify_at(now_us: Micros, headers: &[(&str, &str)]) -> Result<(), Kind> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let keys = [b"the-next", KEY].map(Key::new);
    let secrets = Secrets { signing: &keys, ..Secrets::default() };
    let request = Request { headers: &headers, body: BODY };
    VENDOR.verify(&request, &secrets, now_us).map(|_| ())
}

fn verify(timestamp: &str, signature: &str) -> Result<(), Kind> {
    let headers = [("x-whoop-signature-timestamp", timestamp), ("x-whoop-signature", signature)];
    verify_at(SIGNED_AT, &headers)
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
fn the_golden_vector_holds() {
    assert_eq!(verify("1774766691903", SIGNATURE), Ok(()));
    for (timestamp, signature) in [
        ("1774766691904", SIGNATURE),
        ("1774766691", SIGNATURE),
        ("-1774766691903", SIGNATURE),
        ("1774766691903", ""),
        ("1774766691903", SIGNATURE.trim_end_matches('=')),
        ("1774766691903", &SIGNATURE.to_lowercase()),
        ("1774766691903", "8F7EEA16285F5EB13CF8F9DE3FB3333BB41AD7FD76EF3623EAFD05F5FE99BAE1"),
    ] {
        assert_eq!(verify(timestamp, signature), Err(Kind::SignatureInvalid), "{timestamp}");
    }
    assert_eq!(verify_at(SIGNED_AT, &[]), Err(Kind::SignatureInvalid));
    let partner = [("x-whoop-signature-timestamp", "1774766691903"), ("whoop-signed", SIGNATURE)];
    assert_eq!(verify_at(SIGNED_AT, &partner), Err(Kind::SignatureInvalid));
}

#[test]
fn the_window_is_two_hours_either_way() {
    let headers =
        [("x-whoop-signature-timestamp", "1774766691903"), ("x-whoop-signature", SIGNATURE)];
    for (off, answer) in [
        (WINDOW_US, Ok(())),
        (-WINDOW_US, Ok(())),
        (WINDOW_US + 1, Err(Kind::SignatureExpired)),
        (-WINDOW_US - 1, Err(Kind::SignatureExpired)),
    ] {
        assert_eq!(verify_at(SIGNED_AT + off, &headers), answer, "{off}");
    }
}

#[test]
fn a_time_in_seconds_is_no_time_of_whoops() {
    let seconds = "1774766691";
    let signature = sign_base64(&[seconds.as_bytes(), BODY], KEY);
    assert_eq!(verify(seconds, &signature), Err(Kind::SignatureExpired), "it is read as of 1970");
}

#[test]
fn a_recovery_goes_by_its_sleep() {
    let body = std::str::from_utf8(BODY).expect("text");
    let update = item(body).expect("an item");
    assert_eq!(update.vendor_user.as_deref(), Some("481516"));
    let record_id = "recovery:0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77".to_owned();
    let what = What::Fetch { record_type: "recovery", record_id: record_id.clone() };
    assert_eq!(update.what, what);
    let gone = item(&notification("type", r#""recovery.deleted""#)).expect("an item");
    assert_eq!(gone.what, thin::change("whoop", "recovery", record_id, true));
    let sleep = item(&notification("type", r#""sleep.deleted""#)).expect("an item");
    let sleep_id = "0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77".to_owned();
    assert_eq!(sleep.what, thin::change("whoop", "sleep", sleep_id.clone(), true));
    let workout = item(&notification("type", r#""workout.updated""#)).expect("an item");
    let what = What::Fetch { record_type: "workout", record_id: sleep_id };
    assert_eq!(workout.what, what);
    let upper = item(&body.replace("0c7a4f62", "0C7A4F62")).expect("an item");
    assert_eq!(upper, update, "one record has one id");
}

#[test]
fn an_integer_id_is_refused_with_its_reason() {
    for value in ["10129", "10129.0"] {
        let found = item(&notification("id", value)).expect("an item").what;
        let What::Bad(reject) = found else { panic!("{found:?}") };
        assert_eq!(reject.at.as_str(), "id");
        assert!(reject.why.contains("v1"), "{}", reject.why);
    }
    for value in ["null", "[]", r#""x""#] {
        let found = item(&notification("id", value)).expect("an item").what;
        assert!(matches!(found, What::Bad(_)), "{found:?}");
    }
    let unknown = item(&notification("type", r#""cycle.updated""#)).expect("an item");
    assert_eq!(unknown.what, What::Ignored("unknown type"));
}

#[test]
fn a_user_is_a_number_of_64_bits() {
    let large = item(&notification("user_id", "9007199254740993")).expect("an item");
    assert_eq!(large.vendor_user.as_deref(), Some("9007199254740993"));
    for value in ["null", "-1", r#""481516""#, "18446744073709551615", "1.5"] {
        let reject = item(&notification("user_id", value)).expect_err("a reject");
        assert_eq!(reject.at.as_str(), "user_id", "{value}");
    }
    let verified = Verified::default();
    assert_eq!(VENDOR.key_user(&verified, BODY), KeyUser::One("481516".to_owned()));
    assert_eq!(VENDOR.key_user(&verified, b"[1]"), KeyUser::None);
}

// ── documents ──────────────────────────────────────────────────────────────────────────────────────────────

const SLEEP: &str = "0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77";

fn read(record_type: &str, body: &str) -> Result<Vec<Item>, Reject> {
    let headers = Headers::new().with(header::VENDOR_USER, "481516");
    let body = Bytes::copy_from_slice(body.as_bytes());
    VENDOR.document(&Raw { headers: &headers, body: &body, received_at: SIGNED_AT }, record_type)
}

/// The records of a body; nothing in it may be anything else.
fn records(record_type: &str, body: &str) -> Vec<VendorRecord> {
    let items = read(record_type, body).expect("items");
    let record = |item: Item| match item.what {
        What::Record(record) => *record,
        other => panic!("{other:?}"),
    };
    items.into_iter().map(record).collect()
}

fn one(record_type: &str, body: &str) -> VendorRecord {
    let found = records(record_type, body);
    assert_eq!(found.len(), 1);
    found.into_iter().next().expect("one")
}

fn value(record: &VendorRecord, metric: &str) -> Option<f64> {
    let found = record.content.readings.iter().find(|reading| reading.metric == metric);
    found.and_then(|reading| reading.value)
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/whoop/document_", $name, ".json"))
    };
}

#[test]
fn a_pending_score_is_not_a_value_and_neither_is_an_impossible_one() {
    let scored = one("sleep", fixture!("sleep"));
    for (body, state, score_state) in [
        (fixture!("sleep_pending"), "tentative", "pending"),
        (fixture!("sleep_running"), "tentative", "pending"),
        (fixture!("sleep_unscorable"), "final", "unscorable"),
        (fixture!("sleep_unlisted_state"), "tentative", "unlisted"),
    ] {
        let record = one("sleep", body);
        assert!(record.content.readings.is_empty(), "no zeros: {score_state}");
        assert_eq!(record.content.state, state);
        assert_eq!(record.content.attributes["score_state"], score_state);
        assert_eq!((&record.record_id, record.version), (&scored.record_id, scored.version));
    }
    assert!(one("sleep", fixture!("sleep_running")).content.local_date.is_none(), "not over yet");
    assert_eq!(scored.version, Some(1_774_766_690_100_000), "updated_at");
}

#[test]
fn a_night_has_seconds_and_what_has_no_data_is_not_slept() {
    let night = one("sleep", fixture!("sleep"));
    for (metric, expected) in [
        ("sleep_session", 28_080.0),
        ("sleep_time_in_bed", 28_080.0),
        ("sleep_awake_duration", 2_310.0),
        ("sleep_total_duration", 13_620.0 + 5_340.0 + 6_210.0),
        ("sleep_need", (27_395_716.0 + 352_230.0 + 208_595.0 - 12_312.0) / 1_000.0),
        ("whoop.disturbance_count", 9.0),
        ("respiratory_rate_sleep_avg", 16.113_281_25),
    ] {
        assert_eq!(value(&night, metric), Some(expected), "{metric}");
    }
    let nap = one("sleep", fixture!("nap"));
    assert_eq!(nap.content.attributes["is_nap"], "true");
    assert_eq!(value(&nap, "sleep_total_duration"), None, "a sum with a part missing is none");
    assert_eq!(value(&nap, "respiratory_rate_sleep_avg"), None, "null is not zero");
    assert!(value(&nap, "sleep_awake_duration").is_some());
}

#[test]
fn a_day_is_the_local_date_of_the_end_and_z_is_an_offset() {
    for (body, day, offset_s) in [
        (fixture!("sleep"), "2026-03-29", 7_200),
        (fixture!("sleep_zulu"), "2026-03-28", 0),
        (fixture!("sleep_west"), "2026-03-28", -28_800),
    ] {
        let content = one("sleep", body).content;
        assert_eq!(content.day(), Day::parse(day));
        assert_eq!(
            (content.start_offset_s, content.end_offset_s),
            (Some(offset_s), Some(offset_s))
        );
        assert_eq!(content.day_rule.as_deref(), Some("sleep_end"));
        assert_eq!(content.offset_provenance, "vendor");
    }
}

#[test]
fn a_recovery_has_the_times_of_its_sleep_and_milliseconds_stay_milliseconds() {
    let [recovery, cycle] = records("recovery", fixture!("recovery")).try_into().expect("two");
    let sleep = one("sleep", fixture!("sleep")).content;
    assert_eq!(recovery.record_id, format!("recovery:{SLEEP}"));
    let content = &recovery.content;
    assert_eq!((content.start_at, content.end_at), (sleep.start_at, sleep.end_at));
    assert_eq!((content.local_date, content.end_offset_s), (sleep.local_date, Some(7_200)));
    assert_eq!(value(&recovery, "hrv_rmssd_sleep_avg"), Some(47.318));
    assert_eq!(value(&recovery, "whoop.recovery_score"), Some(61.0));
    assert_eq!(recovery.version, Some(SIGNED_AT), "its own version, not its sleep's");
    assert_eq!((cycle.record_type.as_str(), cycle.content.state.as_str()), ("cycle", "tentative"));
    assert_eq!(cycle.content.local_date, sleep.local_date, "the day on which its sleep ended");
    let calibrating = &records("recovery", fixture!("recovery_calibrating"))[0];
    assert_eq!(value(calibrating, "whoop.recovery_score"), None);
    assert_eq!(value(calibrating, "hrv_rmssd_sleep_avg"), Some(47.318));
    assert_eq!(calibrating.content.attributes["user_calibrating"], "true");
    for name in ["spo2_sleep_avg", "skin_temperature_sleep"] {
        assert_eq!(value(calibrating, name), None, "{name}");
    }
}

#[test]
fn a_recovery_without_its_sleep_is_refused_alone_and_asked_for_from_a_page() {
    let items = read("recovery", fixture!("recovery_of_another_sleep")).expect("items");
    let What::Bad(reject) = &items[0].what else { panic!("{items:?}") };
    assert_eq!((reject.at.as_str(), reject.kind), ("[1].sleep_id", Kind::ValidationError));
    assert!(read("recovery", fixture!("recovery_only_its_sleep")).is_err());
    let items = read("recovery", fixture!("recovery_page")).expect("items");
    let kinds: Vec<_> = items
        .iter()
        .map(|item| match &item.what {
            What::Record(record) => (item.index, record.content.day().map(|day| day.to_string())),
            What::Fetch { record_id, .. } => (item.index, Some(record_id.clone())),
            What::Bad(reject) => (item.index, Some(reject.at.to_string())),
            other => panic!("{other:?}"),
        })
        .collect();
    let fetch = "recovery:91c3f0de-7c3a-4b6e-8a51-0d4e2f7b6a33";
    let expected = [
        (0, "2026-03-29"),
        (1, "2026-03-28"),
        (2, "[0].records[2].sleep_id"),
        (3, fetch),
        (4, "[0].records[4].user_id"),
        (5, "[0].records[5]"),
    ];
    assert_eq!(kinds, expected.map(|(index, what)| (index, Some(what.to_owned()))));
    assert_eq!(read("recovery", fixture!("recovery_page_empty")), Ok(vec![]));
}

#[test]
fn an_open_cycle_is_tentative_and_its_day_is_known_by_its_sleep() {
    let open = one("cycle", fixture!("cycle_open"));
    assert_eq!((open.record_id.as_str(), open.content.state.as_str()), ("93840022", "tentative"));
    assert_eq!(open.content.local_date, None, "the day is never guessed");
    let whole = one("cycle", fixture!("cycle_with_its_sleep"));
    assert_eq!(whole.record_id, open.record_id, "each look is a revision");
    assert_eq!(whole.content.state, "final");
    assert_eq!(whole.content.day(), Day::parse("2026-03-29"));
    assert_eq!(whole.content.day_rule.as_deref(), Some("whoop_cycle"), "and no nap's");
    let kilocalories = value(&whole, "energy_total_daily").expect("energy");
    assert!((kilocalories - 8_288.297 * 0.239_006).abs() < 0.01, "{kilocalories}");
}

#[test]
fn a_recovery_brings_its_cycle_and_the_one_before_which_is_over() {
    let found = records("recovery", fixture!("recovery_with_its_cycles"));
    let told: Vec<_> = found
        .iter()
        .map(|record| {
            let day = record.content.day().map(|day| day.to_string()).unwrap_or_default();
            (record.record_id.as_str(), record.content.state.as_str(), day)
        })
        .collect();
    let recovery = format!("recovery:{SLEEP}");
    let expected = [
        (recovery.as_str(), "final", "2026-03-29".to_owned()),
        ("93840022", "tentative", "2026-03-29".to_owned()),
        ("93720011", "final", "2026-03-28".to_owned()),
    ];
    assert_eq!(told, expected, "and not the one whose sleep is not there");
    assert_eq!(value(&found[2], "whoop.strain"), Some(13.6));
    assert_eq!(value(&found[2], "heart_rate_daily_max"), Some(158.0));
    assert!(read("recovery", fixture!("recovery_missing")).is_err(), "it is not in it");
}

#[test]
fn a_workout_needs_no_number_of_its_sport_and_a_user_may_be_large() {
    let run = one("workout", fixture!("workout").replace("9007199254740993", "481516").as_str());
    assert_eq!(run.content.attributes["sport"], "running");
    assert_eq!(value(&run, "distance_walk_run"), Some(7_772.8));
    assert_eq!(run.content.day(), Day::parse("2026-03-28"));
    let unknown = one("workout", fixture!("workout_running_unknown_sport"));
    assert_eq!(unknown.content.attributes["sport"], "unlisted");
    assert_eq!(unknown.content.state, "tentative", "without an end it still runs");
    assert_eq!(value(&unknown, "whoop.strain"), Some(8.2463));
    let (headers, body) = (Headers::new(), Bytes::from(fixture!("workout")));
    let raw = Raw { headers: &headers, body: &body, received_at: SIGNED_AT };
    let items = VENDOR.document(&raw, "workout").expect("items");
    assert_eq!(items[0].vendor_user.as_deref(), Some("9007199254740993"));
}

#[test]
fn what_is_not_what_it_said_is_bad_where_it_is() {
    for (record_type, body, at) in [
        ("sleep", fixture!("another_user"), "user_id"),
        ("sleep", fixture!("sleep_backwards"), "end"),
        ("sleep", fixture!("sleep_scored_without_score"), "score"),
        ("workout", fixture!("sleep_west").replace(SLEEP, "10129").as_str(), "id"),
        ("sleep", fixture!("sleep").replace("+02:00", "Europe/Berlin").as_str(), "timezone_offset"),
    ] {
        let items = read(record_type, body).expect("items");
        let What::Bad(reject) = &items[0].what else { panic!("{items:?}") };
        assert_eq!(reject.at.as_str(), at);
    }
    assert!(read("sleep", fixture!("malformed_html")).is_err());
    assert!(read("heartrate", fixture!("sleep")).is_err());
    let body = one("body", fixture!("body"));
    assert_eq!(
        (value(&body, "body_height"), value(&body, "body_weight")),
        (Some(182.88), Some(90.7185))
    );
}
