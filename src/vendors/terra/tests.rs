//! The traps of `vendors.md` §3.7, one by one, and the signature. What a body becomes in full
//! stands in the goldens.

use bytes::Bytes;

use super::*;
use crate::model::connection::Change;
use crate::model::event::{Op, flag};
use crate::model::metric;
use crate::model::record::Headers;
use crate::model::time::Day;
use crate::vendors::wire::hmac::Key;

const KEY: &[u8] = b"not-a-secret-test-key";
const BODY: &[u8] = br#"{"type":"daily","user":{"user_id":"5a3d0e6b"},"data":[]}"#;
const SIGNATURE: &str =
    "t=1774766800,v1=e32b8871786ce539958ed3ce23da4faf76a7fafd22e850d548027e41291d280a";
const SIGNED_AT: Micros = 1_774_766_800_000_000;
/// 2026-03-29T07:00:00Z.
const RECEIVED_AT: Micros = 1_774_767_600_000_000;

fn verify(headers: &[(&str, &str)], body: &[u8], now: Micros) -> Result<Verified, Kind> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let keys = [b"the one before", KEY].map(Key::new);
    let secrets = Secrets { signing: &keys, ..Secrets::default() };
    VENDOR.verify(&Request { headers: &headers, body }, &secrets, now)
}

#[test]
fn a_right_signature_is_taken_under_either_name() {
    for name in SIGNATURES {
        let taken = verify(&[(name, SIGNATURE)], BODY, SIGNED_AT).expect("right");
        assert_eq!(taken, Verified { scheme: "terra-v1", vendor_user: None });
    }
    let both = [(SIGNATURES[0], SIGNATURE), (SIGNATURES[1], SIGNATURE)];
    assert!(verify(&both, BODY, SIGNED_AT).is_ok());
}

#[test]
fn two_signatures_that_differ_or_repeat_are_refused() {
    let tampered = SIGNATURE.replace("v1=e", "v1=f");
    for headers in [
        [(SIGNATURES[0], SIGNATURE), (SIGNATURES[1], &tampered)],
        [(SIGNATURES[0], &tampered), (SIGNATURES[1], SIGNATURE)],
        [(SIGNATURES[0], SIGNATURE), (SIGNATURES[0], SIGNATURE)],
    ] {
        assert_eq!(verify(&headers, BODY, SIGNED_AT), Err(Kind::SignatureInvalid));
    }
    let thrice =
        [(SIGNATURES[0], SIGNATURE), (SIGNATURES[1], SIGNATURE), (SIGNATURES[1], SIGNATURE)];
    assert_eq!(verify(&thrice, BODY, SIGNED_AT), Err(Kind::SignatureInvalid));
    assert_eq!(verify(&[], BODY, SIGNED_AT), Err(Kind::SignatureInvalid));
}

#[test]
fn a_signature_is_read_strictly() {
    let digest = SIGNATURE.split_once("v1=").expect("a digest").1;
    for bad in [
        "",
        "t=1774766800",
        digest,
        &format!("v1={digest},t=1774766800"),
        &format!("t=1774766800, v1={digest}"),
        &format!("t=1774766800,v1={digest},v1={digest}"),
        &format!("t=+1774766800,v1={digest}"),
        &format!("t= 1774766800,v1={digest}"),
        &format!("t=,v1={digest}"),
        &format!("t=17747668001774766800,v1={digest}"),
        &format!("t=1774766800,v0={digest}"),
        &format!("t=1774766800,v1={}", digest.trim_end_matches("0a")),
        &format!("t=1774766801,v1={digest}"),
    ] {
        let answer = verify(&[(SIGNATURES[0], bad)], BODY, SIGNED_AT);
        assert_eq!(answer, Err(Kind::SignatureInvalid), "{bad}");
    }
    let longer = [BODY, b"\n"].concat();
    let answer = verify(&[(SIGNATURES[0], SIGNATURE)], &longer, SIGNED_AT);
    assert_eq!(answer, Err(Kind::SignatureInvalid));
}

#[test]
fn the_window_is_25_hours_either_way() {
    let at = |now| verify(&[(SIGNATURES[0], SIGNATURE)], BODY, now);
    for edge in [SIGNED_AT + WINDOW_US, SIGNED_AT - WINDOW_US] {
        assert!(at(edge).is_ok());
    }
    for beyond in [SIGNED_AT + WINDOW_US + 1, SIGNED_AT - WINDOW_US - 1, Micros::MAX, Micros::MIN] {
        assert_eq!(at(beyond), Err(Kind::SignatureExpired));
    }
}

fn parse_as(body: &[u8], headers: &Headers) -> Vec<Item> {
    let body = Bytes::copy_from_slice(body);
    VENDOR.parse(&Raw { headers, body: &body, received_at: RECEIVED_AT }).expect("items")
}

fn parse(body: &[u8]) -> Vec<Item> {
    parse_as(body, &Headers::new())
}

fn records(body: &[u8]) -> Vec<VendorRecord> {
    let record = |item: Item| match item.what {
        What::Record(record) => Some(*record),
        _ => None,
    };
    parse(body).into_iter().filter_map(record).collect()
}

fn value(record: &VendorRecord, metric: &str) -> Option<f64> {
    record.content.readings.iter().find(|reading| reading.metric == metric)?.value
}

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/fixtures/terra/", $name, ".json")).as_slice()
    };
}

#[test]
fn manual_and_automatic_swap_between_sleep_and_activity() {
    let method = |record: &VendorRecord| record.content.recording_method.clone();
    let thin = records(fixture!("sleep_thin"));
    assert_eq!(method(&thin[0]).as_deref(), Some("manual"), "a sleep's 1");
    assert_eq!(thin[1].op, Op::Upsert, "a sleep's 4 deletes nothing");
    let run = records(fixture!("activity"));
    assert_eq!(method(&run[0]).as_deref(), Some("automatic"), "an activity's 1");
    let kinds = records(fixture!("activity_kinds"));
    let gone = kinds.iter().filter(|record| record.op == Op::Delete);
    assert_eq!(gone.map(|record| record.record_id.as_str()).collect::<Vec<_>>(), ["a-3", "a-4"]);
}

#[test]
fn zero_is_a_value() {
    let kinds = records(fixture!("activity_kinds"));
    assert_eq!(kinds[0].content.attributes["sport"], "in_vehicle");
    assert_eq!(value(&kinds[1], "steps"), Some(0.0));
    let days = records(fixture!("daily_by_date"));
    assert_eq!(value(&days[0], "steps_daily"), Some(0.0));
    assert_eq!(value(&days[1], "steps_daily"), None, "null is no zero");
}

#[test]
fn the_ordering_time_is_the_version() {
    let name = format!("{}{ORDERING}", header::REQUEST_PREFIX);
    for (text, version) in [
        ("1774766520123", Some(1_774_766_520_123_000)),
        ("", None),
        ("+1774766520123", None),
        ("-5", None),
        ("1774766520.5", None),
        ("99999999999999999999", None),
        ("9223372036854775807", None),
    ] {
        let headers = Headers::new().with(name.clone(), text.to_owned());
        let items = parse_as(fixture!("sleep"), &headers);
        let What::Record(record) = &items[0].what else { panic!("a record") };
        assert_eq!(record.version, version, "{text}");
    }
    assert_eq!(records(fixture!("sleep"))[0].version, None);
    assert_eq!(VENDOR.delivery_header(), Some("x-terra-trace-id"), "not terra-reference");
    assert!(VENDOR.kept_headers().contains(&ORDERING));
}

#[test]
fn a_day_is_the_date_as_it_is_written() {
    let days = records(fixture!("daily_by_date"));
    assert_eq!(days[0].record_id, "2026-03-28");
    assert_eq!(days[0].content.day(), Day::parse("2026-03-28"));
    let start = days[0].content.start_at.expect("known");
    assert_eq!(Day::of_utc(start), Day::parse("2026-03-27").expect("a day"), "by UTC it is not");
}

#[test]
fn a_deleted_day_takes_its_scores_along() {
    let days = records(fixture!("daily_by_date"));
    let gone: Vec<_> =
        days.iter().filter(|day| day.op == Op::Delete).map(|day| &day.record_type).collect();
    assert_eq!(gone.len(), 1 + day::SCORES.len());
}

#[test]
fn a_null_score_makes_no_record_and_a_given_one_does() {
    let types = |records: &[VendorRecord]| {
        records.iter().map(|record| record.record_type.clone()).collect::<Vec<_>>()
    };
    assert_eq!(types(&records(fixture!("sleep_correction"))), ["sleep"]);
    let given = records(fixture!("sleep"));
    let want = ["sleep", "terra.sleep_score", "terra.sleep_score_v2", "terra.respiratory_score_v2"];
    assert_eq!(types(&given), want);
    assert!(given.iter().all(|record| record.record_id == given[0].record_id));
}

#[test]
fn a_correction_has_the_key_of_what_it_corrects() {
    let (first, later) = (records(fixture!("sleep")), records(fixture!("sleep_correction")));
    assert_eq!(first[0].record_id, later[0].record_id);
    assert_ne!(first[0].content, later[0].content);
    assert_eq!(records(fixture!("sleep_duplicate"))[0].content, first[0].content);
}

#[test]
fn a_night_belongs_to_the_day_it_ends_on() {
    let night = &records(fixture!("sleep"))[0].content;
    assert_eq!(night.day(), Day::parse("2026-03-29"));
    assert_eq!(night.day_rule.as_deref(), Some("sleep_end"));
    assert_eq!((night.start_offset_s, night.end_offset_s), (Some(3600), Some(7200)));
    assert_eq!(night.flags, [flag::OFFSET_CHANGE]);
    let session = &night.readings[0];
    assert_eq!((session.metric.as_str(), session.value), ("sleep_session", Some(28_080.0)));
    let nap = &records(fixture!("sleep_thin"))[0].content;
    assert_eq!(nap.day(), Day::parse("2026-03-29"), "Oura's nap after 18:00 counts tomorrow");
}

#[test]
fn what_is_not_known_of_an_offset_is_not_made_up() {
    let nights = records(fixture!("sleep_without_offset"));
    let floating = &nights[0].content;
    assert_eq!(floating.flags, [flag::FLOATING_TIME]);
    assert_eq!((floating.start_at, floating.end_at), (None, None));
    assert_eq!(floating.offset_provenance, "unknown");
    assert_eq!(floating.day(), Day::parse("2026-03-29"), "a local date needs no offset");
    let utc = &nights[1].content;
    assert!(utc.start_at.is_some() && utc.start_offset_s.is_none(), "UTC is no one's offset");
    assert_eq!(utc.day(), None);
    let borrowed = nights[2].content.readings.last().expect("a sample");
    assert_eq!(borrowed.start_at, 1_774_742_400_000_000, "a sample has its item's offset");
}

#[test]
fn stages_fill_the_session_and_end_with_it() {
    let night = &records(fixture!("sleep"))[0].content;
    let of = |content: &crate::model::event::Content| {
        let stages = content.readings.iter().filter(|reading| reading.metric == "sleep_stage");
        stages.cloned().collect::<Vec<_>>()
    };
    let stages = of(night);
    let symbols: Vec<_> = stages.iter().filter_map(|stage| stage.symbol.as_deref()).collect();
    assert_eq!(symbols, ["awake", "light", "deep", "rem", "light", "awake"], "4.0 is a level");
    for pair in stages.windows(2) {
        assert_eq!(pair[0].end_at, Some(pair[1].start_at));
    }
    assert_eq!(stages.last().and_then(|stage| stage.end_at), night.end_at);
    let nap = &records(fixture!("sleep_thin"))[0].content;
    assert!(of(nap).iter().all(|stage| stage.end_at <= nap.end_at), "none beyond the end");
    assert_eq!(of(nap).len(), 3, "a null level is a gap");
}

#[test]
fn a_ratio_is_made_a_percentage() {
    for (given, percent) in [("0.57", 57.0), ("1", 100.0), ("0", 0.0), ("89.5", 89.5), ("1.5", 1.5)]
    {
        let body = format!(
            r#"{{"type":"sleep","user":{{"user_id":"u"}},"data":[{{"metadata":{{
            "start_time":"2026-03-28T23:00:00+01:00","end_time":"2026-03-29T07:00:00+02:00"}},
            "sleep_durations_data":{{"sleep_efficiency":{given}}}}}]}}"#
        );
        assert_eq!(value(&records(body.as_bytes())[0], "sleep_efficiency"), Some(percent));
    }
}

#[test]
fn a_days_hrv_is_never_the_nights() {
    let day = &records(fixture!("daily"))[0];
    assert_eq!(value(day, "hrv_rmssd_sleep_avg"), None);
    let hrv = day.content.readings.iter().find(|reading| reading.metric == "hrv_rmssd");
    assert_eq!(hrv.and_then(|hrv| hrv.context.as_deref()), Some("day"));
    assert_eq!(value(day, "steps_daily"), Some(7902.0), "an integer as a float");
}

#[test]
fn a_sentinel_is_no_value() {
    let day = &records(fixture!("daily"))[0];
    let stress = day.content.readings.iter().filter(|r| r.metric == "garmin.stress_level");
    assert!(stress.map(|reading| reading.value).all(|value| value >= Some(0.0)));
}

#[test]
fn running_totals_become_what_came_between() {
    let day = &records(fixture!("daily"))[0];
    let steps = day.content.readings.iter().filter(|reading| reading.metric == "steps");
    let found: Vec<_> = steps.filter_map(|reading| reading.value).collect();
    assert_eq!(found, [120.0, 820.0, 0.0, 25.0], "a reset begins anew, and is no negative step");
}

#[test]
fn muscle_is_not_blood() {
    let body = &records(fixture!("body"))[0];
    let spo2: Vec<_> =
        body.content.readings.iter().filter(|r| r.metric == "spo2").map(|r| r.value).collect();
    assert_eq!(spo2, [Some(97.0)], "neither muscle's sample nor a mean that may be muscle's");
    assert_eq!(value(&records(fixture!("activity_kinds"))[1], "spo2"), None);
}

#[test]
fn grams_are_made_kilograms_and_a_ride_is_not_walked() {
    assert_eq!(value(&records(fixture!("body"))[0], "lean_body_mass"), Some(59.04));
    let kinds = records(fixture!("activity_kinds"));
    assert_eq!(value(&kinds[1], "distance_walk_run"), None);
    let run = &records(fixture!("activity"))[0];
    assert_eq!(value(run, "distance_walk_run"), Some(8250.4));
    assert_eq!(value(&records(fixture!("body_fitbit"))[0], "rr_interval"), None);
    assert_eq!(value(&records(fixture!("body"))[0], "rr_interval"), Some(938.0));
}

#[test]
fn a_bad_item_is_bad_alone() {
    let items = parse(fixture!("sleep_one_bad"));
    let bad: Vec<_> = items
        .iter()
        .filter_map(|item| match &item.what {
            What::Bad(reject) => Some((item.index, reject.kind)),
            _ => None,
        })
        .collect();
    let (malformed, invalid) = (Kind::PayloadMalformed, Kind::ValidationError);
    assert_eq!(bad, [(0, malformed), (1, invalid), (3, malformed), (4, malformed), (5, malformed)]);
    let What::Record(lives) = &items[2].what else { panic!("item 2 lives") };
    let hrv = lives.content.readings.iter().find(|r| r.metric == "hrv_rmssd_sleep_avg");
    assert_eq!(hrv.expect("kept").flags, [flag::IMPLAUSIBLE_VALUE]);
}

#[test]
fn a_reading_from_the_future_says_so() {
    let nights = records(fixture!("clock_skew"));
    assert_eq!(nights[0].content.flags, [flag::OFFSET_CHANGE], "14 min 59 s is no skew");
    assert_eq!(nights[1].content.flags, [flag::OFFSET_CHANGE, flag::CLOCK_SKEW]);
    assert!(!nights[1].content.readings[0].is_plausible());
    let today = &records(fixture!("daily"))[0];
    assert!(today.content.end_at > Some(RECEIVED_AT), "a day that lasts");
    assert!(today.content.readings.iter().all(crate::model::event::Reading::is_plausible));
}

#[test]
fn connections_begin_end_and_are_renamed() {
    let change = |body: &[u8]| match parse(body).remove(0).what {
        What::Connection(change) => change,
        other => panic!("{other:?}"),
    };
    let user = "5a3d0e6b-7f0e-4d6d-9c51-2f5a7a1f0c44".to_owned();
    let Change::Begin { vendor_user, user: ours } = change(fixture!("auth")) else {
        panic!("a beginning")
    };
    assert_eq!((vendor_user, ours.as_str()), (user.clone(), "app-user-77"));
    for body in [fixture!("deauth"), fixture!("access_revoked")] {
        assert_eq!(change(body), Change::End { vendor_user: user.clone() });
    }
    let new = "e1a94b1c-55f0-4b93-b3c9-52b27ea9d700".to_owned();
    assert_eq!(change(fixture!("user_reauth")), Change::Rename { old: user, new });
}

fn window(record_type: &str, user: &str, body: &[u8]) -> Result<Vec<Item>, Reject> {
    let headers = Headers::new().with(header::VENDOR_USER, Bytes::copy_from_slice(user.as_bytes()));
    let body = Bytes::copy_from_slice(body);
    let raw = Raw { headers: &headers, body: &body, received_at: RECEIVED_AT };
    VENDOR.document(&raw, record_type)
}

/// What a webhook says and what a window says is the same record, whichever comes first.
#[test]
fn a_window_is_read_as_a_webhook_is() {
    let user = "5a3d0e6b-7f0e-4d6d-9c51-2f5a7a1f0c44";
    let (sent, asked) = (fixture!("sleep"), fixture!("document_sleep"));
    assert_eq!(window("window.sleep", user, asked).expect("items"), parse(sent));
}

#[test]
fn a_window_of_somebody_else_or_of_another_type_is_nothing_of_ours() {
    let user = "5a3d0e6b-7f0e-4d6d-9c51-2f5a7a1f0c44";
    let sleep = fixture!("document_sleep");
    for (record_type, user, body) in [
        ("window.sleep", "0f9b6c2e-3a51-4c1c-9a77-20b7f3d9ae05", sleep),
        ("window.sleep", "", sleep),
        ("window.daily", user, sleep),
        ("window.sleep", user, fixture!("auth")),
        ("window.sleep", user, fixture!("deauth")),
        ("window.sleep", user, &br#"{"type":"sleep","data":[]}"#[..]),
        ("window.daily", user, fixture!("no_user")),
        ("window.auth", user, fixture!("auth")),
        ("sleep", user, sleep),
    ] {
        assert!(window(record_type, user, body).is_err(), "{record_type}");
    }
    let whats = |body: &[u8]| {
        let items = window("window.sleep", user, body).expect("items");
        items.into_iter().map(|item| item.what).collect::<Vec<_>>()
    };
    let large = What::Ignored("a large request: it comes by webhook");
    assert_eq!(whats(fixture!("large_request_sending")), std::slice::from_ref(&large));
    assert_eq!(whats(fixture!("document_large_request")), [large]);
    assert_eq!(whats(fixture!("document_empty")), [What::Ignored("empty")]);
}

#[test]
fn an_address_is_no_user_of_ours() {
    let What::Bad(reject) = parse(fixture!("auth_of_an_address")).remove(0).what else {
        panic!("bad")
    };
    assert_eq!((reject.kind, reject.at.as_str()), (Kind::ValidationError, "user.reference_id"));
}

#[test]
fn a_maker_is_a_plain_word() {
    for (provider, device) in [
        ("OURA", "oura"),
        ("HEALTH_CONNECT", "health_connect"),
        ("", "unknown"),
        ("Ålesund", "unknown"),
        ("a:b", "unknown"),
        ("a b", "unknown"),
        (&"x".repeat(33), "unknown"),
    ] {
        assert_eq!(device_type(provider), device);
    }
}

#[test]
fn every_name_in_the_tables_is_in_the_vocabulary() {
    let fields = [sleep::FIELDS, day::DAILY, day::BODY, activity::FIELDS, activity::ON_FOOT];
    let series = [day::TOTALS, day::VO2, day::BODY_SERIES, day::BEATS, vitals::SERIES];
    let mut names: Vec<&str> = fields.concat().iter().map(|field| field.metric).collect();
    names.extend(series.concat().iter().map(|series| series.metric));
    names.extend([sleep::SCORES, day::SCORES].concat().iter().map(|score| score.2));
    names.extend([sleep::BREATHS.metric, day::OXYGEN.mean_metric, "spo2_sleep_avg", "spo2"]);
    names.extend(["sleep_session", "sleep_stage", "sleep_efficiency", "workout_session"]);
    names.extend(["menstrual_cycle_day", "menstrual_cycle_phase", "state_of_mind_valence"]);
    for name in names {
        assert!(metric::find(name).is_some(), "{name}");
    }
}
