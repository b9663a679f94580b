//! Garmin's contract and its traps (`vendors.md` §5.6), each as a test.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::model::event::Content;
use crate::model::record::Headers;
use crate::model::time::Day;
use crate::vendors::ask::{Answer, Api as _, Need};

/// 2026-03-29T07:00:00Z.
const RECEIVED: Micros = 1_774_767_600_000_000;
/// 2026-03-28T22:00:00Z, the evening before in Berlin.
const NIGHT: i64 = 1_774_735_200;
/// 2026-03-28T23:00:00Z, midnight there.
const MIDNIGHT: i64 = 1_774_738_800;
const A: &str = "user-a";

fn parse_at(body: &Value, received_at: Micros) -> Vec<Item> {
    let (headers, body) = (Headers::new(), Bytes::from(body.to_string()));
    VENDOR.parse(&Raw { headers: &headers, body: &body, received_at }).expect("items")
}

fn parse(body: &Value) -> Vec<Item> {
    parse_at(body, RECEIVED)
}

fn records_of(items: Vec<Item>) -> Vec<VendorRecord> {
    let record = |item: Item| match item.what {
        What::Record(record) => *record,
        other => panic!("{other:?}"),
    };
    items.into_iter().map(record).collect()
}

fn one(key: &str, item: &Value) -> VendorRecord {
    one_at(key, item, RECEIVED)
}

fn one_at(key: &str, item: &Value, received_at: Micros) -> VendorRecord {
    let mut records = records_of(parse_at(&json!({ key: [item] }), received_at));
    assert_eq!(records.len(), 1);
    records.remove(0)
}

fn values(content: &Content, metric: &str) -> Vec<f64> {
    let of = content.readings.iter().filter(|reading| reading.metric == metric);
    of.filter_map(|reading| reading.value).collect()
}

/// A summary of this user with these fields more.
fn item(start: i64, duration: i64, more: &Value) -> Value {
    let mut item = json!({
        "userId": A, "summaryId": "x-1",
        "startTimeInSeconds": start, "startTimeOffsetInSeconds": 3600,
        "durationInSeconds": duration,
    });
    for (name, value) in more.as_object().expect("fields") {
        item[name] = value.clone();
    }
    item
}

fn verify(headers: &[(&str, &str)], ours: Option<&[u8]>) -> Result<Verified, Kind> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect();
    let request = Request { headers: &headers, body: b"{}" };
    VENDOR.verify(&request, &Secrets { handshake: ours, ..Secrets::default() }, 0)
}

#[test]
fn a_request_names_our_client_and_is_not_called_signed() {
    let given = [(CLIENT, "client-1")];
    assert_eq!(verify(&given, Some(b"client-1")).expect("ours").scheme, "garmin-path");
    assert!(verify(&given, None).is_ok(), "where none is configured, it must be there");
    for (headers, ours) in [
        (&given[..], Some(b"client-2".as_slice())),
        (&[][..], None),
        (&[][..], Some(b"".as_slice())),
        (&[(CLIENT, "")][..], None),
        (&[given[0], given[0]][..], None),
    ] {
        assert_eq!(verify(headers, ours), Err(Kind::SignatureInvalid), "{headers:?}");
    }
    assert!(VENDOR.secret_path());
}

#[test]
fn trap_1_keys_of_maps_are_numbers() {
    let map = json!({ "1165": 46, "65": 40, "565": 43, "10165": 50 });
    let record = one("hrv", &item(NIGHT, 29_880, &json!({ "hrvValues": map })));
    assert_eq!(values(&record.content, "hrv_rmssd"), [40.0, 43.0, 46.0, 50.0]);
    let first = &record.content.readings[0];
    assert_eq!((first.start_at, first.window_s), ((NIGHT + 65) * 1_000_000, Some(300)));
    for key in ["-60", "1.5", "", "x", "123456789"] {
        let body = json!({ "hrv": [item(NIGHT, 29_880, &json!({ "hrvValues": { key: 41 } }))] });
        let items = parse(&body);
        assert!(matches!(items[0].what, What::Bad(_)), "{key}");
    }
}

#[test]
fn trap_2_a_sentinel_is_no_value_and_zero_steps_are() {
    let map = json!({ "0": -1, "180": -2, "360": 0, "540": 31 });
    let fields = json!({ "timeOffsetStressLevelValues": map, "timeOffsetBodyBatteryValues": map });
    let stress = one("stressDetails", &item(MIDNIGHT, 600, &fields));
    assert_eq!(values(&stress.content, "garmin.stress_level"), [0.0, 31.0]);
    assert_eq!(values(&stress.content, "garmin.body_battery"), [0.0, 31.0]);
    let breaths = json!({ "timeOffsetEpochToBreaths": map });
    let breaths = one("allDayRespiration", &item(MIDNIGHT, 900, &breaths));
    assert_eq!(values(&breaths.content, "respiratory_rate"), [31.0]);
    let oxygen = one("pulseox", &item(MIDNIGHT, 900, &json!({ "timeOffsetSpo2Values": map })));
    assert_eq!(values(&oxygen.content, "spo2"), [31.0]);
    let day =
        one("dailies", &item(MIDNIGHT, 900, &json!({ "steps": 0, "averageStressLevel": -1 })));
    assert_eq!(values(&day.content, "steps_daily"), [0.0]);
    assert!(values(&day.content, "garmin.stress_level").is_empty());
}

#[test]
fn trap_3_each_item_has_its_own_user() {
    let mine = item(MIDNIGHT, 900, &json!({ "steps": 1 }));
    let mut yours = mine.clone();
    yours["userId"] = json!("user-b");
    let nobodys = json!({ "steps": 3 });
    let body = json!({ "dailies": [mine, nobodys, yours], "epochs": [mine] });
    let items = parse(&body);
    let users: Vec<_> = items.iter().map(|item| item.vendor_user.as_deref()).collect();
    assert_eq!(users, [Some(A), None, Some("user-b"), Some(A)]);
    let places: Vec<_> = items.iter().map(|item| item.index).collect();
    assert_eq!(places, [0, 1, 2, 3], "counted over all types");
    assert!(matches!(items[1].what, What::Bad(_)));
    let key = |body: &Value| VENDOR.key_user(&Verified::default(), body.to_string().as_bytes());
    assert_eq!(key(&body), KeyUser::None);
    assert_eq!(key(&json!({ "dailies": [mine, mine] })), KeyUser::One(A.to_owned()));
    assert_eq!(VENDOR.key_user(&Verified::default(), b"{\"dailies\":"), KeyUser::None);
}

#[test]
fn trap_4_epochs_of_one_start_are_records_of_their_own() {
    let epoch = |kind: &str, steps: i64| {
        item(MIDNIGHT, 900, &json!({ "activityType": kind, "steps": steps }))
    };
    let body = json!({ "epochs": [epoch("WALKING", 420), epoch("SEDENTARY", 9)] });
    let records = records_of(parse(&body));
    assert_ne!(records[0].record_id, records[1].record_id);
    let steps: f64 = records.iter().flat_map(|one| values(&one.content, "steps")).sum();
    assert_eq!(steps, 429.0);
    let again = records_of(parse(&json!({ "epochs": [epoch("WALKING", 421)] })));
    assert_eq!(again[0].record_id, records[0].record_id);
}

#[test]
fn trap_5_a_day_pushed_twelve_times_is_one_record_that_only_grows() {
    let push = |hour: i64| {
        let mut day = item(MIDNIGHT, hour * 3_600, &json!({ "steps": hour * 100 }));
        day["calendarDate"] = json!("2026-03-29");
        day["summaryId"] = json!(format!("x-{hour}"));
        one_at("dailies", &day, (MIDNIGHT + hour * 3_600 + 90) * 1_000_000)
    };
    let pushes: Vec<_> = (1..=12).map(push).collect();
    assert!(pushes.iter().all(|push| push.record_id == "2026-03-29"), "whatever its summaryId");
    assert!(pushes.is_sorted_by_key(|push| push.version));
    let epochs = pushes.iter().flat_map(|push| values(&push.content, "steps"));
    assert_eq!(epochs.count(), 0, "a day's steps are no epoch's");
    // The third push, which Garmin repeats in the evening.
    let mut late = item(MIDNIGHT, 3 * 3_600, &json!({ "steps": 300 }));
    late["calendarDate"] = json!("2026-03-29");
    let late = one_at("dailies", &late, (MIDNIGHT + 20 * 3_600) * 1_000_000);
    assert!(late.version < pushes[3].version && late.version > pushes[2].version);
    // A day that is over, and repaired two days later.
    let over = |received: i64| {
        one_at("dailies", &item(MIDNIGHT, 86_400, &json!({})), received * 1_000_000).version
    };
    assert!(over(MIDNIGHT + 90_000) < over(MIDNIGHT + 260_000));
}

#[test]
fn trap_6_tentative_and_final_are_one_night() {
    let night = |start: i64, validation: &str, received_at: Micros| {
        let fields = json!({
            "calendarDate": "2026-03-29", "validation": validation, "summaryId": format!("x-{start}"),
        });
        one_at("sleeps", &item(start, 28_800, &fields), received_at)
    };
    let tentative = night(NIGHT, "ENHANCED_TENTATIVE", RECEIVED);
    let settled = night(NIGHT - 300, "ENHANCED_FINAL", RECEIVED + 7_200_000_000);
    assert_eq!(tentative.record_id, settled.record_id);
    assert_eq!(tentative.content.state, "tentative");
    assert_eq!(settled.content.state, "final");
    assert_eq!(settled.version, None, "at its receipt");
    let repeated = night(NIGHT, "ENHANCED_TENTATIVE", RECEIVED + 72_000_000_000);
    let place = repeated.version.expect("below every final");
    assert!(place < RECEIVED + 7_200_000_000, "what is tentative never undoes what is final");
}

#[test]
fn trap_7_a_nap_has_its_own_offset() {
    let nap = json!({
        "napStartTimeInSeconds": NIGHT + 82_800, "napDurationInSeconds": 1_500,
        "napOffsetInSeconds": 43_200, "napValidation": "DEVICE",
    });
    let fields = json!({ "calendarDate": "2026-03-29", "naps": [nap] });
    let body = json!({ "sleeps": [item(NIGHT, 28_800, &fields)] });
    let records = records_of(parse_at(&body, RECEIVED + 86_400_000_000));
    let [night, nap] = records.as_slice() else { panic!("two sessions") };
    assert_eq!(night.content.start_offset_s, Some(3_600));
    assert_eq!(nap.content.start_offset_s, Some(43_200));
    assert_eq!(nap.content.day(), Day::parse("2026-03-30"), "where its person was by then");
    assert_eq!(nap.content.attributes["is_nap"], "true");
    assert_ne!(nap.record_id, night.record_id);
}

#[test]
fn a_bad_nap_is_bad_alone() {
    let good = json!({ "napStartTimeInSeconds": NIGHT + 50_000, "napDurationInSeconds": 1_500 });
    let naps = json!([{ "napStartTimeInSeconds": "canary" }, good]);
    let night = item(NIGHT, 28_800, &json!({ "calendarDate": "2026-03-29", "naps": naps }));
    let whats: Vec<What> =
        parse(&json!({ "sleeps": [night] })).into_iter().map(|item| item.what).collect();
    let [What::Record(night), What::Bad(bad), What::Record(nap)] = whats.as_slice() else {
        panic!("{whats:?}")
    };
    assert_eq!((&*night.record_id, &*nap.content.attributes["is_nap"]), ("2026-03-29", "true"));
    assert_eq!(bad.at.as_str(), "sleeps[0].naps[0].napStartTimeInSeconds");
    let odd = item(NIGHT, 28_800, &json!({ "naps": "canary" }));
    assert_eq!(parse(&json!({ "sleeps": [odd] })).len(), 2, "the night, and what is no list");
}

#[test]
fn a_day_of_oxygen_or_breaths_that_is_repeated_late_undoes_nothing() {
    for key in ["pulseox", "allDayRespiration"] {
        let push = |covered: i64, received: i64| {
            let day = item(MIDNIGHT, covered, &json!({}));
            one_at(key, &day, (MIDNIGHT + received) * 1_000_000).version
        };
        let (first, second) = (push(10_800, 10_890), push(21_600, 21_690));
        let repeated = push(10_800, 72_000);
        assert!(first < repeated && repeated < second, "{key}: {first:?} {second:?} {repeated:?}");
        assert!(push(86_400, 90_000) < push(86_400, 260_000), "what is repaired later counts");
    }
}

#[test]
fn trap_8_a_night_has_no_heart_rate() {
    let fields = json!({ "averageHeartRate": 51, "restingHeartRateInBeatsPerMinute": 47 });
    let night = one("sleeps", &item(NIGHT, 28_800, &fields));
    assert!(night.content.readings.iter().all(|reading| !reading.metric.contains("heart")));
}

#[test]
fn trap_9_a_ping_is_a_fetch_and_its_link_chooses_nothing() {
    let link = "https://apis.garmin.com/elsewhere?token=canary";
    let ping = json!({
        "userId": A, "callbackURL": link,
        "uploadStartTimeInSeconds": 1_774_760_000, "uploadEndTimeInSeconds": 1_774_763_600,
    });
    for (key, read) in TYPES {
        let Read::Summary(record_type, path, _) = read else { continue };
        let items = parse(&json!({ *key: [ping] }));
        let record_id = "1774760000-1774763600".to_owned();
        assert_eq!(
            items[0].what,
            What::Fetch { record_type, record_id: record_id.clone() },
            "{key}"
        );
        let need = Need { record_type, record_id: &record_id, vendor_user: A };
        let call = VENDOR.ask(&need).expect("a call");
        assert_eq!(call.path, format!("/{path}"));
        let from = ("uploadStartTimeInSeconds", "1774760000".to_owned());
        let to = ("uploadEndTimeInSeconds", "1774763600".to_owned());
        assert_eq!(call.query, [from, to]);
    }
    for id in ["", "1-", "-1", "1-2-3", "a-b", "1-2&token=x"] {
        let need = Need { record_type: "sleep", record_id: id, vendor_user: A };
        assert_eq!(VENDOR.ask(&need), None, "{id}");
    }
}

#[test]
fn a_link_to_somewhere_else_is_refused() {
    for link in [
        "https://apis.garmin.com.example/x",
        "http://apis.garmin.com/x",
        "https://user@apis.garmin.com/x",
        "https://apis.garmin.com:8443/x",
        "https://apis.garmin.com\\@example/x",
        "https://127.0.0.1/x",
        "//apis.garmin.com/x",
        "",
    ] {
        let ping = json!({
            "userId": A, "callbackURL": link,
            "uploadStartTimeInSeconds": 1, "uploadEndTimeInSeconds": 2,
        });
        let items = parse(&json!({ "sleeps": [ping] }));
        let What::Bad(reject) = &items[0].what else { panic!("{link}") };
        assert_eq!(reject.kind, Kind::ValidationError, "{link}");
    }
}

#[test]
fn trap_10_a_backfill_looks_like_a_live_push() {
    let night = item(NIGHT, 28_800, &json!({ "calendarDate": "2026-03-29" }));
    let years = one_at("sleeps", &night, RECEIVED + 94_608_000_000_000);
    assert_eq!(years.content, one("sleeps", &night).content, "its age decides, and it is not here");
}

#[test]
fn trap_11_an_offset_may_be_far_or_unknown() {
    for (offset, day) in [(50_400, "2026-03-29"), (-39_600, "2026-03-28"), (20_700, "2026-03-29")] {
        let mut epoch = item(MIDNIGHT, 900, &json!({}));
        epoch["startTimeOffsetInSeconds"] = json!(offset);
        let record = one("epochs", &epoch);
        assert_eq!(record.content.day(), Day::parse(day), "{offset}");
        assert_eq!(record.content.start_offset_s, Some(offset));
    }
    let mut epoch = item(MIDNIGHT, 900, &json!({}));
    epoch.as_object_mut().expect("an object").remove("startTimeOffsetInSeconds");
    let record = one("epochs", &epoch);
    assert_eq!((record.content.day(), record.content.start_offset_s), (None, None));
    assert_eq!(record.content.offset_provenance, "unknown", "never silently UTC");
}

#[test]
fn trap_12_names_drift_and_a_date_may_be_absent() {
    for name in ["averageStressLevel", "averageStresslevel"] {
        let day = one("dailies", &item(MIDNIGHT, 900, &json!({ name: 22 })));
        assert_eq!(values(&day.content, "garmin.stress_level"), [22.0], "{name}");
        assert_eq!(day.record_id, "2026-03-29", "the local date of its start");
        assert_eq!(day.content.day_rule.as_deref(), Some("civil_midnight"));
    }
    for name in ["timeOffsetEpochToBreaths", "timeOffsetRespirationValues"] {
        let fields = json!({ name: { "0": 14.5 } });
        let breaths = one("allDayRespiration", &item(MIDNIGHT, 900, &fields));
        assert_eq!(values(&breaths.content, "respiratory_rate"), [14.5], "{name}");
    }
}

#[test]
fn trap_13_a_file_is_a_link_in_every_mode_and_never_fetched() {
    let file = json!({ "userId": A, "callbackURL": "https://apis.garmin.com/x?id=1&token=t" });
    let items = parse(&json!({ "activityFiles": [file] }));
    assert!(matches!(items[0].what, What::Ignored(_)));
    assert_eq!(items[0].vendor_user.as_deref(), Some(A));
}

#[test]
fn a_deregistration_ends_the_connection() {
    let items = parse(&json!({ "deregistrations": [{ "userId": A }, { "userId": "user-b" }] }));
    let ends = |user: &str| What::Connection(Change::End { vendor_user: user.to_owned() });
    assert_eq!(items[0].what, ends(A));
    assert_eq!(items[1].what, ends("user-b"));
}

#[test]
fn an_activity_its_correction_and_its_samples_share_an_id() {
    let activity = item(MIDNIGHT, 900, &json!({ "summaryId": "77", "activityType": "RUNNING" }));
    let mut numbered = activity.clone();
    numbered["activityId"] = json!(77);
    let detail =
        json!({ "userId": A, "summaryId": "77-detail", "summary": activity, "samples": [] });
    for (key, item) in [
        ("activities", &activity),
        ("manuallyUpdatedActivities", &numbered),
        ("activityDetails", &detail),
    ] {
        assert_eq!(one(key, item).record_id, "77", "{key}");
    }
}

#[test]
fn a_limit_is_a_minute_where_garmin_says_nothing() {
    let none: Vec<(String, Vec<u8>)> = Vec::new();
    assert_eq!(VENDOR.answer(429, &none), Answer::Limited(Some(60)));
    assert_eq!(VENDOR.answer(200, &none), Answer::Document);
}
