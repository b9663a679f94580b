//! Withings: what was decided, and the traps of `vendors.md` §7.5.

use bytes::Bytes;

use super::*;
use crate::model::event::flag;
use crate::model::record::Headers;
use crate::vendors::VendorRecord;
use crate::vendors::ask::Call;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/withings/", $name, ".json"))
    };
}

fn raw(body: &str, read: impl FnOnce(&Raw<'_>) -> Result<Vec<Item>, Reject>) -> Vec<Item> {
    let headers = Headers::new().with(header::VENDOR_USER, "363");
    let body = Bytes::copy_from_slice(body.as_bytes());
    let received_at = Day::parse("2026-03-30").expect("a day").start_utc_us();
    read(&Raw { headers: &headers, body: &body, received_at }).expect("items")
}

fn whats(body: &str) -> Vec<What> {
    raw(body, |raw| VENDOR.parse(raw)).into_iter().map(|item| item.what).collect()
}

fn read(record_type: &str, body: &str) -> Vec<What> {
    raw(body, |raw| VENDOR.document(raw, record_type)).into_iter().map(|item| item.what).collect()
}

fn records(record_type: &str, body: &str) -> Vec<VendorRecord> {
    let records = read(record_type, body).into_iter().filter_map(|what| match what {
        What::Record(record) => Some(*record),
        _ => None,
    });
    records.collect()
}

fn one(record_type: &str, body: &str) -> VendorRecord {
    let mut all = records(record_type, body);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn values(record: &VendorRecord, metric: &str) -> Vec<f64> {
    let all = record.content.readings.iter().filter(|reading| reading.metric == metric);
    all.filter_map(|reading| reading.value).collect()
}

fn fetch(record_type: &'static str, record_id: &str) -> What {
    What::Fetch { record_type, record_id: record_id.to_owned() }
}

/// Trap 1.
#[test]
fn a_notification_is_a_form_in_any_order() {
    let night = [fetch("sleep", "1774735200-1774764120")];
    for body in [fixture!("sleep"), fixture!("sleep_again"), fixture!("sleep_other_order")] {
        assert_eq!(whats(body), night, "{body}");
        let key = VENDOR.key_user(&Verified::default(), body.as_bytes());
        assert_eq!(key, KeyUser::One("363".to_owned()));
    }
    let bodies = [fixture!("malformed_json"), fixture!("malformed_user"), fixture!("no_account")];
    for body in bodies {
        assert_eq!(VENDOR.key_user(&Verified::default(), body.as_bytes()), KeyUser::None);
    }
}

#[test]
fn a_request_is_a_form_by_its_header() {
    let verify = |content_type: &[&str]| {
        let headers: Vec<(String, Vec<u8>)> = content_type
            .iter()
            .map(|value| ("content-type".to_owned(), value.as_bytes().to_vec()))
            .collect();
        let request = Request { headers: &headers, body: b"userid=363&appli=44" };
        VENDOR.verify(&request, &Secrets::default(), 0).map(|verified| verified.scheme)
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(verify(&[form]), Ok("withings-path"));
    assert_eq!(verify(&[&format!("{form}; charset=UTF-8")]), Ok("withings-path"));
    for wrong in [&[][..], &["application/json"], &[form, form], &[""]] {
        assert_eq!(verify(wrong), Err(Kind::SignatureInvalid), "{wrong:?}");
    }
}

/// Trap 2: what looks before a subscription, and who looks with a browser, is answered with nothing.
#[test]
fn who_only_looks_is_answered() {
    for query in [Vec::new(), vec![("a".to_owned(), "canary".to_owned())]] {
        let answer = VENDOR.handshake(&query, &Secrets::default());
        assert_eq!(answer, Some(Ok(String::new())));
    }
}

#[test]
fn every_kind_asks_for_what_it_is_or_says_why_not() {
    let moment = "1774766400-1774766401";
    let measured = [fetch("measurement", moment)];
    for body in [fixture!("weight"), fixture!("temperature"), fixture!("pressure")] {
        assert_eq!(whats(body), measured, "one fetch, whichever kind says so");
    }
    let day = [fetch("daily", "2026-03-28"), fetch("workout", "2026-03-28")];
    assert_eq!(whats(fixture!("activity")), day);
    let window = "1774652400-1774738799";
    let of_window = [fetch("daily", window), fetch("workout", window)];
    assert_eq!(whats(fixture!("activity_by_window")), of_window);
    let recorded = "1774766400-1774766430";
    let both = [fetch("ecg", recorded), fetch("rhythm", recorded)];
    assert_eq!(whats(fixture!("ecg")), both);
    for body in [
        fixture!("into_bed"),
        fixture!("out_of_bed"),
        fixture!("inflated"),
        fixture!("no_account"),
        fixture!("ecg_failed"),
        fixture!("glucose"),
        fixture!("account_updated"),
        fixture!("unknown_type"),
    ] {
        assert!(matches!(whats(body)[..], [What::Ignored(_)]), "{body}");
    }
    let places = [
        (fixture!("window_backwards"), "enddate"),
        (fixture!("no_window"), "startdate"),
        (fixture!("date_is_none"), "date"),
    ];
    for (body, at) in places {
        let [What::Bad(reject)] = &whats(body)[..] else { panic!("{body}") };
        assert_eq!(reject.at.as_str(), at);
    }
    let large = VENDOR.key_user(&Verified::default(), fixture!("large_user").as_bytes());
    assert_eq!(large, KeyUser::One("9007199254740993".to_owned()));
}

/// Trap 9.
#[test]
fn an_account_that_is_gone_is_told_from_a_consent_that_is() {
    let end = What::Connection(Change::End { vendor_user: "363".to_owned() });
    let [deleted, unlinked] =
        [fixture!("account_deleted"), fixture!("account_unlinked")].map(whats);
    assert_eq!((&deleted[0], &unlinked[0]), (&end, &end));
    assert_ne!(deleted[1], unlinked[1]);
    assert!(matches!((&deleted[1], &unlinked[1]), (What::Ignored(_), What::Ignored(_))));
}

/// Trap 4.
#[test]
fn a_value_is_the_decimal_that_it_is() {
    let group = one("measurement", fixture!("document_weight"));
    assert_eq!(group.record_id, "4716596696");
    for (metric, value) in [
        ("body_weight", 36.545),
        ("body_fat_percentage", 24.12),
        ("lean_body_mass", 27.73),
        ("pulse_wave_velocity", 7.236),
        ("heart_rate", 61.0),
        ("body_height", 168.0),
    ] {
        assert_eq!(values(&group, metric), [value], "{metric}");
    }
    let positive = one("measurement", fixture!("document_weight_positive_unit"));
    assert_eq!(values(&positive, "body_weight"), [70.0]);
    assert_eq!(positive.content.readings.len(), 2, "a zero is a value, outside of its range");
    let pressure = one("measurement", fixture!("document_pressure"));
    assert_eq!(values(&pressure, "blood_pressure_systolic"), [109.0]);
    let bad = read("measurement", fixture!("document_one_bad"));
    let kinds: Vec<bool> = bad.iter().map(|what| matches!(what, What::Bad(_))).collect();
    assert_eq!(kinds, [true, false, true, true], "the others live");
}

/// Trap 5.
#[test]
fn nobody_s_weight_is_flagged_until_it_is_confirmed() {
    let ambiguous = one("measurement", fixture!("document_weight_ambiguous"));
    let confirmed = one("measurement", fixture!("document_weight_confirmed"));
    assert_eq!(ambiguous.record_id, confirmed.record_id);
    assert!(ambiguous.version < confirmed.version, "a revision");
    let flagged = |record: &VendorRecord| {
        record
            .content
            .readings
            .iter()
            .all(|one| one.flags.iter().any(|it| it == flag::AMBIGUOUS_USER))
    };
    assert!(flagged(&ambiguous) && !flagged(&confirmed));
    assert_eq!(ambiguous.content.attributes["attribution"], "ambiguous");
}

/// Trap 6.
#[test]
fn a_pressure_is_one_record() {
    let pressure = one("measurement", fixture!("document_pressure"));
    assert_eq!(pressure.content.readings.len(), 3);
    assert_eq!(pressure.content.start_offset_s, Some(-14_400), "New York's summer");
    let unknown = one("measurement", fixture!("document_no_zone"));
    assert_eq!((unknown.content.start_offset_s, unknown.content.day()), (None, None), "not UTC");
}

#[test]
fn only_what_is_positive_is_an_event() {
    let all = records("measurement", fixture!("document_rhythm"));
    let symbols = |record: &VendorRecord| -> Vec<String> {
        record.content.readings.iter().filter_map(|reading| reading.symbol.clone()).collect()
    };
    assert_eq!(symbols(&all[0]), ["irregular_rhythm"]);
    assert_eq!(symbols(&all[1]), [""; 0]);
    assert_eq!(all[1].content.attributes["atrial_fibrillation"], "negative");
    assert_eq!(values(&all[2], "vo2_max"), [41.2]);
    let ecgs = records("ecg", fixture!("document_ecg"));
    assert_eq!(ecgs.len(), 2);
    assert_eq!(values(&ecgs[0], "heart_rate"), [118.0]);
    assert_eq!(values(&ecgs[1], "heart_rate"), [0.0; 0], "none was found");
    assert!(ecgs.iter().all(|ecg| symbols(ecg).is_empty()), "it happened once");
    let goal = read("measurement", fixture!("document_goal_and_unmapped"));
    assert!(goal.iter().all(|what| matches!(what, What::Ignored(_))), "{goal:?}");
}

/// Trap 7: and those that are asked for are what is read.
#[test]
fn what_was_not_asked_for_is_not_there() {
    let bare = one("sleep", fixture!("document_sleep_no_fields"));
    let metrics: Vec<&str> =
        bare.content.readings.iter().map(|reading| reading.metric.as_str()).collect();
    assert_eq!(metrics, ["sleep_session"]);
    let need = Need { record_type: "sleep", record_id: "1-2", vendor_user: "363" };
    let Some(Call { form: Some(form), .. }) = VENDOR.ask(&need) else { panic!("a form") };
    let (_, fields) = form.last().expect("fields");
    let whole = one("sleep", fixture!("document_sleep_corrected"));
    assert_eq!(fields.split(',').count(), 21);
    assert!(whole.content.readings.len() > 15, "{:?}", whole.content.readings);
}

/// Trap 8.
#[test]
fn what_is_scored_again_is_a_later_version_of_the_same_night() {
    let before = records("sleep", fixture!("document_sleep_again"));
    let after = one("sleep", fixture!("document_sleep_corrected"));
    assert_eq!(before[0].record_id, after.record_id);
    assert!(before[0].version < after.version);
    assert_eq!(values(&after, "withings.sleep_score"), [84.0]);
}

#[test]
fn a_night_is_its_summary_and_its_samples() {
    let all = records("sleep", fixture!("document_sleep"));
    let [before, night, samples] = &all[..] else { panic!("{all:?}") };
    assert_eq!(
        (before.record_type.as_str(), samples.record_type.as_str()),
        ("sleep", "sleep_samples")
    );
    assert_eq!(samples.record_id, night.record_id, "of the night, and not of its neighbour");
    for (metric, value) in [
        ("sleep_total_duration", 24_600.0),
        ("sleep_awake_duration", 4_260.0),
        ("sleep_awakenings", 3.0),
        ("sleep_efficiency", 85.0),
        ("hrv_rmssd_sleep_start_avg", 38.0),
        ("apnea_hypopnea_index", 4.0),
    ] {
        assert_eq!(values(night, metric), [value], "{metric}; -1 is no index");
    }
    assert_eq!(night.content.attributes["waso_s"], "3300");
    let offsets = (night.content.start_offset_s, night.content.end_offset_s);
    assert_eq!(offsets, (Some(3_600), Some(7_200)), "the clocks changed in it");
    let stages: Vec<_> =
        samples.content.readings.iter().filter_map(|reading| reading.symbol.as_deref()).collect();
    assert_eq!(stages, ["awake", "light", "deep", "rem", "asleep_unspecified", "awake"]);
    assert_eq!(values(samples, "heart_rate"), [64.0, 60.0, 58.0, 56.0, 51.0], "in order");
    let hrv = samples.content.readings.iter().find(|one| one.metric == "hrv_rmssd").expect("one");
    assert_eq!((hrv.method.as_deref(), hrv.window_s), (Some("ultra_short"), None));
    let sdnn = samples.content.readings.iter().find(|one| one.metric == "hrv_sdnn").expect("one");
    assert_eq!(sdnn.window_s, Some(60));
    let quality = &samples.content.attributes;
    assert_eq!(
        (quality["hrv_quality_min"].as_str(), quality["hrv_quality_max"].as_str()),
        ("3", "5")
    );
    let again = records("sleep", fixture!("document_sleep_again"));
    assert_eq!(again[1].content, samples.content, "in whatever order the pieces come");
    let alone = read("sleep", fixture!("document_sleep_samples_alone"));
    assert!(matches!(alone[1], What::Ignored(_)), "said, not silent: {alone:?}");
}

#[test]
fn what_could_not_be_computed_is_no_value_and_zero_is_one() {
    let night = one("sleep", fixture!("document_sleep_not_computable"));
    assert_eq!(values(&night, "apnea_hypopnea_index"), [0.0; 0]);
    assert_eq!(values(&night, "withings.breathing_disturbance"), [0.0; 0]);
    assert_eq!(values(&night, "snoring_duration"), [0.0]);
    assert_eq!(values(&night, "sleep_efficiency"), [57.0], "a ratio, to the decimal");
    let external = one("sleep", fixture!("document_sleep_external"));
    assert_eq!(values(&external, "sleep_total_duration"), [25_200.0]);
    assert_eq!(values(&external, "sleep_light_duration"), [0.0; 0], "null is not zero");
    assert_eq!(one("sleep", fixture!("document_sleep_running")).content.state, "tentative");
}

#[test]
fn a_day_is_as_long_as_it_is_where_it_is() {
    let day = one("daily", fixture!("document_daily"));
    assert_eq!(values(&day, "steps_daily"), [9_120.0]);
    let lasts = |record: &VendorRecord| {
        let content = &record.content;
        content.end_at.zip(content.start_at).map(|(end, start)| (end - start) / 3_600_000_000)
    };
    assert_eq!(lasts(&day), Some(24));
    let short = one("daily", fixture!("document_daily_short_day"));
    assert_eq!(lasts(&short), Some(23), "the clocks go forward");
    assert_eq!(values(&short, "steps_daily"), [0.0], "zero is a value");
    let floating = one("daily", fixture!("document_daily_no_zone"));
    assert_eq!(
        (floating.content.start_at, floating.content.day()),
        (None, Day::parse("2026-03-28"))
    );
}

#[test]
fn a_workout_has_its_sport_and_on_foot_its_distance() {
    let all = records("workout", fixture!("document_workouts"));
    let sports: Vec<&str> =
        all.iter().map(|one| one.content.attributes["sport"].as_str()).collect();
    assert_eq!(sports, ["running", "cycling", "unlisted"], "and what is none is no workout");
    assert_eq!(values(&all[0], "distance_walk_run"), [7_772.8]);
    assert_eq!(values(&all[1], "distance_walk_run"), [0.0; 0]);
    assert_eq!(values(&all[0], "workout_session"), [2_670.0]);
    assert_eq!(all[2].content.recording_method.as_deref(), Some("manual"));
}

/// Trap 11: what is deleted is told by nothing; a window that has it no more is an answer like any.
#[test]
fn an_empty_window_says_nothing_and_a_refusal_is_no_document() {
    assert_eq!(read("measurement", fixture!("document_measurements_none")), []);
    let pages = records("measurement", fixture!("document_two_pages"));
    assert_eq!(pages.len(), 2);
    let headers = Headers::new();
    for (record_type, body, at) in [
        ("measurement", fixture!("document_refusal"), "status"),
        ("sleep", fixture!("document_without_body"), "body"),
        ("glucose", fixture!("document_unknown_type"), "$"),
    ] {
        let body = Bytes::from(body);
        let raw = Raw { headers: &headers, body: &body, received_at: 0 };
        let reject = VENDOR.document(&raw, record_type).expect_err("no document");
        assert_eq!(reject.at.as_str(), at);
    }
}
