//! Google against its contract: who is believed, what is asked for, and the traps of `vendors.md` §6.6.

use bytes::Bytes;
use serde_json::json;

use super::window::Window;
use super::{SIGNATURES, VENDOR};
use crate::error::{Kind, Reject};
use crate::model::contract::header;
use crate::model::event::{Content, Op, flag};
use crate::model::record::Headers;
use crate::model::time::{Day, Micros, Moment};
use crate::vendors::wire::hmac::Key;
use crate::vendors::wire::tink::{Keyset, pinned};
use crate::vendors::{
    Item, KeyUser, Raw, Request, Secrets, Vendor as _, VendorRecord, Verified, What,
};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/google/", $name, ".json"))
    };
}

const SECRET: &str = "Bearer not-a-secret-test-key";
const VERIFICATION: &str = r#"{"type":"verification"}"#;
const USER: &str = "3f7a9c21";

struct Door {
    keyset: Keyset,
    keys: Vec<Key>,
}

impl Door {
    fn new() -> Self {
        let keyset = Keyset::parse(pinned::KEYSET.as_bytes()).expect("a keyset");
        Self { keyset, keys: vec![Key::new(SECRET.as_bytes())] }
    }

    fn secrets(&self) -> Secrets<'_> {
        Secrets { signing: &self.keys, keyset: Some(&self.keyset), ..Secrets::default() }
    }

    fn verify(&self, body: &str, headers: &[(&str, &str)]) -> Result<Verified, Kind> {
        VENDOR.verify(&request(body, &of(headers)), &self.secrets(), 0)
    }
}

fn of(headers: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    let header = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    headers.iter().map(header).collect()
}

fn request<'a>(body: &'a str, headers: &'a Vec<(String, Vec<u8>)>) -> Request<'a> {
    Request { headers, body: body.as_bytes() }
}

fn micros(text: &str) -> Micros {
    Moment::parse(text).expect("a moment").at_us
}

fn parse(body: &str) -> Result<Vec<Item>, Reject> {
    let (headers, body) = (Headers::new(), Bytes::from(body.to_owned()));
    VENDOR.parse(&Raw { headers: &headers, body: &body, received_at: 0 })
}

/// What a list says that was asked for by this row, fetched at this time.
fn read_at(body: &str, record_type: &str, record_id: &str, at: &str) -> Vec<Item> {
    let headers = Headers::new()
        .with(header::VENDOR_USER, USER)
        .with(header::RECORD_ID, record_id.to_owned());
    let body = Bytes::from(body.to_owned());
    let raw = Raw { headers: &headers, body: &body, received_at: micros(at) };
    VENDOR.document(&raw, record_type).expect("a list")
}

fn read(body: &str, record_type: &str, record_id: &str) -> Vec<Item> {
    read_at(body, record_type, record_id, "2026-03-29T07:00:00Z")
}

fn records(items: &[Item]) -> Vec<&VendorRecord> {
    let mut found = Vec::new();
    for item in items {
        if let What::Record(record) = &item.what {
            found.push(record.as_ref());
        }
    }
    found
}

fn values(content: &Content, metric: &str) -> Vec<f64> {
    content.readings.iter().filter(|it| it.metric == metric).filter_map(|it| it.value).collect()
}

fn fetches(items: &[Item]) -> Vec<(i32, &str, &str)> {
    let mut found = Vec::new();
    for item in items {
        if let What::Fetch { record_type, record_id } = &item.what {
            found.push((item.index, *record_type, record_id.as_str()));
        }
    }
    found
}

// ── who is believed ────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_request_names_the_secret_and_is_signed_under_either_name() {
    let (door, body, signature) = (Door::new(), pinned::BODY, pinned::SIGNATURE);
    for name in SIGNATURES {
        let verified = door.verify(body, &[("authorization", SECRET), (name, signature)]);
        assert_eq!(verified.map(|it| it.scheme), Ok("google-tink-ecdsa-p256"), "{name}");
    }
    let [one, other] = SIGNATURES;
    for headers in [
        &[(one, signature)][..],
        &[("authorization", SECRET)],
        &[("authorization", SECRET), (one, "")],
        &[("authorization", SECRET), (one, "AQAA")],
        &[("authorization", SECRET), ("x-oura-signature", signature)],
        &[("authorization", SECRET), (one, signature), (one, signature)],
        &[("authorization", SECRET), (one, signature), (other, signature)],
        &[("authorization", SECRET), ("authorization", SECRET), (one, signature)],
        // Byte for byte: the scheme is a part of it.
        &[("authorization", "not-a-secret-test-key"), (one, signature)],
        &[("authorization", "bearer not-a-secret-test-key"), (one, signature)],
        &[("authorization", "Bearer not-a-secret-test-key "), (one, signature)],
    ] {
        assert_eq!(door.verify(body, headers), Err(Kind::SignatureInvalid), "{headers:?}");
    }
    let newline = format!("{body}\n");
    let headers = [("authorization", SECRET), (one, signature)];
    assert_eq!(door.verify(&newline, &headers), Err(Kind::SignatureInvalid));
}

#[test]
fn of_two_live_secrets_either_is_named() {
    let mut door = Door::new();
    door.keys.push(Key::new(b"not-a-secret-other-key"));
    for secret in [SECRET, "not-a-secret-other-key"] {
        let headers = [("authorization", secret), (SIGNATURES[0], pinned::SIGNATURE)];
        assert!(door.verify(pinned::BODY, &headers).is_ok(), "{secret}");
    }
}

#[test]
fn without_a_keyset_nothing_is_accepted_and_nothing_is_refused() {
    let (door, body, signature) = (Door::new(), pinned::BODY, pinned::SIGNATURE);
    let keyless = Secrets { keyset: None, ..door.secrets() };
    let verify =
        |headers: &[(&str, &str)]| VENDOR.verify(&request(body, &of(headers)), &keyless, 0);
    let both = [("authorization", SECRET), (SIGNATURES[0], signature)];
    assert_eq!(verify(&both), Err(Kind::WearableApiError), "Google is to send it again");
    // Who does not know the secret does not learn how we are.
    assert_eq!(verify(&both[1..]), Err(Kind::SignatureInvalid));
    assert_eq!(verify(&both[..1]), Err(Kind::SignatureInvalid));
}

#[test]
fn a_verification_is_answered_to_who_names_the_secret_and_to_nobody_else() {
    let door = Door::new();
    let greets = |body: &str, headers: &[(&str, &str)]| {
        VENDOR.greets(&request(body, &of(headers)), &door.secrets())
    };
    let named = [("authorization", SECRET)];
    assert_eq!(greets(VERIFICATION, &named), Some(201));
    assert_eq!(greets(VERIFICATION, &[]), None);
    assert_eq!(greets(VERIFICATION, &[("authorization", "Bearer another")]), None);
    assert_eq!(door.verify(VERIFICATION, &[]), Err(Kind::SignatureInvalid), "so it is 401");
    let long = format!(r#"{{"type":"verification","x":"{}"}}"#, "x".repeat(600));
    let more = r#"{"type":"verification","data":{}}"#;
    for body in [fixture!("one_alone"), more, &long, "verification", "", r#"["verification"]"#] {
        assert_eq!(greets(body, &named), None, "{body}");
    }
}

// ── what is asked for ──────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn notifications_of_one_type_and_day_are_one_fetch() {
    let items = parse(fixture!("overlapping_intervals")).expect("items");
    let (before, day) = ("2026-03-28/2026-03-29", "2026-03-29/2026-03-30");
    assert_eq!(
        fetches(&items),
        [
            (0, "window.steps", before),
            (0, "window.steps", day),
            (1, "window.steps", day),
            (2, "window.distance", day)
        ]
    );
}

#[test]
fn the_days_of_an_interval_are_those_that_its_type_is_asked_for_by() {
    let of = |kind: &str, interval: &str| -> Vec<String> {
        let body = format!(
            r#"{{"data":{{"healthUserId":"u","operation":"UPSERT","dataType":"{kind}","intervals":[{interval}]}}}}"#
        );
        let items = parse(&body).expect("items");
        fetches(&items)
            .into_iter()
            .map(|(.., id)| id.chars().skip("2026-03-".len()).take(2).collect())
            .collect()
    };
    let physical = r#"{"physicalTimeInterval":{"startTime":"2026-03-28T22:14:30Z","endTime":"2026-03-29T06:02:30Z"}}"#;
    assert_eq!(of("sleep", physical), ["28", "29"]);
    assert_eq!(of("exercise", physical), ["28", "29"], "12 h west to 14 h east");
    let late = r#"{"physicalTimeInterval":{"startTime":"2026-03-28T11:00:00Z","endTime":"2026-03-28T11:30:00Z"}}"#;
    assert_eq!(of("steps", late), ["28"]);
    assert_eq!(of("daily-resting-heart-rate", late), ["27", "28", "29"]);
    let civil = r#"{"civilIso8601TimeInterval":{"startTime":"2026-03-28T11:00:00","endTime":"2026-03-28T11:30:00"}}"#;
    assert_eq!(of("daily-resting-heart-rate", civil), ["28"]);
    assert_eq!(of("steps", civil), ["27", "28"]);
}

#[test]
fn a_long_interval_is_asked_for_in_lists_that_others_ask_for_too() {
    let items = parse(fixture!("long_interval")).expect("items");
    let windows: Vec<Window> =
        fetches(&items).iter().map(|(.., id)| Window::parse(id).expect("a window")).collect();
    let (asked, gone): (Vec<Window>, Vec<Window>) = windows.into_iter().partition(|it| !it.gone);
    assert!(asked.iter().all(|it| it.from.0 % 30 == 0 && it.until.0 - it.from.0 == 30));
    let day = |text| Day::parse(text).expect("a day");
    assert!(asked[0].has(day("2026-01-10")) && asked[asked.len() - 1].has(day("2026-03-29")));
    // A deletion speaks of the days that it names, and of no other.
    assert_eq!((gone[0].from, gone[1].until), (day("2025-11-20"), day("2026-03-29")));
    assert_eq!(gone[0].until, gone[1].from);
}

#[test]
fn a_notification_asks_for_no_more_rows_than_are_believed() {
    let year = |nth: u32| {
        let year = 2007 + nth % 19;
        format!(
            r#"{{"physicalTimeInterval":{{"startTime":"{year}-01-01T00:00:00Z","endTime":"{year}-12-31T00:00:00Z"}}}}"#
        )
    };
    let whats = |many: u32, step: u32| {
        let intervals: Vec<String> = (0..many).map(|nth| year(nth * step)).collect();
        let body = format!(
            r#"{{"data":{{"healthUserId":"u","operation":"UPSERT","dataType":"heart-rate","intervals":[{}]}}}}"#,
            intervals.join(",")
        );
        parse(&body).expect("items")
    };
    assert!(whats(13, 1).len() > 4_000);
    assert_eq!(whats(100, 0).len(), 365, "said often, asked for once");
    let [Item { what: What::Bad(bad), .. }] = &whats(19, 1)[..] else { panic!("too many") };
    assert_eq!(bad.at.as_str(), "data.intervals");
}

#[test]
fn a_window_is_read_as_it_is_shown() {
    for text in ["2026-03-28/2026-03-29", "2026-03-28/2026-04-27/gone"] {
        assert_eq!(Window::parse(text).expect("a window").to_string(), text);
    }
}

#[test]
fn one_bad_element_leaves_the_others() {
    let items = parse(fixture!("one_malformed")).expect("items");
    let bad = |item: &Item| matches!(item.what, What::Bad(_));
    let places: Vec<i32> = items.iter().filter(|item| bad(item)).map(|item| item.index).collect();
    assert_eq!(places, [1, 2, 3, 4]);
    let kept: Vec<(i32, &str)> =
        fetches(&items).into_iter().map(|(index, kind, _)| (index, kind)).collect();
    assert_eq!(kept, [(0, "window.sleep"), (0, "window.sleep"), (5, "window.weight")]);
}

#[test]
fn the_key_is_the_one_person_of_a_body() {
    let key = |body: &str| VENDOR.key_user(&Verified::default(), body.as_bytes());
    assert_eq!(key(fixture!("sleep")), KeyUser::One(USER.to_owned()));
    assert_eq!(key(fixture!("one_alone")), KeyUser::One(USER.to_owned()));
    assert_eq!(key(fixture!("several_users")), KeyUser::None);
    assert_eq!(key("[]"), KeyUser::None);
}

#[test]
fn a_deletion_of_a_session_asks_for_the_days_that_it_names() {
    let items = parse(fixture!("deleted_sleep")).expect("items");
    assert_eq!(
        fetches(&items),
        [
            (0, "window.sleep", "2026-03-28/2026-03-29/gone"),
            (0, "window.sleep", "2026-03-29/2026-03-30/gone"),
            (1, "window.daily_heart_rate_variability", "2026-03-29/2026-03-30/gone"),
        ]
    );
}

// ── what came ──────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_a_list_does_not_have_any_more_is_gone() {
    let days = "2026-03-27/2026-03-29";
    let body = fixture!("document_steps_gone");
    let items = read(body, "steps", &format!("{days}/gone"));
    let told: Vec<(&str, Op)> =
        records(&items).iter().map(|it| (it.record_id.as_str(), it.op)).collect();
    assert_eq!(told, [("2026-03-28", Op::Upsert), ("2026-03-27", Op::Delete)]);
    let items = read(body, "steps", days);
    assert_eq!(records(&items).len(), 1, "nobody said that something is gone");
    let bad = fixture!("document_steps_gone_one_bad");
    let items = read(bad, "steps", &format!("{days}/gone"));
    assert!(records(&items).is_empty(), "what is bad may have been of that day");
    let items = read("{}", "sleep", &format!("{days}/gone"));
    assert!(items.is_empty(), "no session is known by its day");
}

/// Of what we had, only what the list would have if it were there: a night by its end, an exercise by the date on which it
/// began where it was.
#[test]
fn a_session_that_we_had_and_the_list_does_not_have_is_gone() {
    let gone = |body: &str, record_type: &str, held: &str| -> Vec<String> {
        let headers = Headers::new()
            .with(header::VENDOR_USER, USER)
            .with(header::RECORD_ID, "2026-03-29/2026-03-30/gone")
            .with(header::HELD, held.to_owned());
        let body = Bytes::from(body.to_owned());
        let raw = Raw { headers: &headers, body: &body, received_at: 0 };
        let items = VENDOR.document(&raw, record_type).expect("a list");
        let gone = records(&items).into_iter().filter(|it| it.op == Op::Delete);
        gone.map(|it| it.record_id.clone()).collect()
    };
    let held = |record_id: &str, start: &str, offset: i32, end: &str| {
        json!({
            "record_id": record_id, "start_at": micros(start), "start_offset_s": offset,
            "end_at": micros(end),
        })
    };
    let listed = "a1b2c3d4-e5f6-7890-1234-567890abcdef";
    let late = held("late", "2026-03-29T22:00:00Z", 7_200, "2026-03-30T01:00:00Z");
    let early = held("early", "2026-03-28T23:00:00Z", 7_200, "2026-03-29T01:00:00Z");
    let still = held(listed, "2026-03-28T22:14:30Z", 3_600, "2026-03-29T06:02:30Z");
    let all = json!([late, early, still]).to_string();
    assert_eq!(gone(fixture!("document_sleep"), "sleep", &all), ["early"]);
    assert_eq!(gone("{}", "sleep", &all), ["early", listed]);
    assert_eq!(gone("{}", "workout", &all), ["early"], "where late was, it was the 30th already");
    assert!(gone(fixture!("document_sleep_one_bad"), "sleep", &all).is_empty());
    assert!(gone("{}", "sleep", "[]").is_empty() && gone("{}", "sleep", "?").is_empty());
}

#[test]
fn a_deletion_of_what_is_not_there_is_no_error() {
    let items = read("{}", "heart_rate", "2026-03-28/2026-03-29/gone");
    let told: Vec<(&str, Op)> =
        records(&items).iter().map(|it| (it.record_id.as_str(), it.op)).collect();
    assert_eq!(told, [("2026-03-28", Op::Delete)]);
}

#[test]
fn a_day_is_never_told_by_a_part_of_it() {
    let body = fixture!("document_heart_rate_part_of_a_day");
    let items = read(body, "heart_rate", "2026-03-29/2026-03-30");
    let all = records(&items);
    assert_eq!(all.iter().map(|it| it.record_id.as_str()).collect::<Vec<_>>(), ["2026-03-29"]);
    let ignored = What::Ignored("outside of the days that were asked for");
    assert!(items.iter().any(|item| item.index == 1 && item.what == ignored));
}

#[test]
fn a_record_of_a_day_does_not_depend_on_the_order_of_its_points() {
    let pages = fixture!("document_heart_rate");
    let days = "2026-03-28/2026-03-30";
    let mut turned: serde_json::Value = serde_json::from_str(pages).expect("JSON");
    let pages_turned = turned.as_array_mut().expect("pages");
    pages_turned.reverse();
    pages_turned[0]["nextPageToken"] = "x".into();
    pages_turned[1].as_object_mut().expect("a page").remove("nextPageToken");
    for page in pages_turned {
        page["dataPoints"].as_array_mut().expect("points").reverse();
    }
    let contents = |body: &str| -> Vec<(String, Content)> {
        let items = read(body, "heart_rate", days);
        let of = |it: &&VendorRecord| (it.record_id.clone(), it.content.clone());
        let mut all: Vec<_> = records(&items).iter().map(of).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    assert_eq!(contents(pages), contents(&turned.to_string()));
    let first = &contents(pages)[0].1;
    assert!(first.flags.iter().any(|name| name == flag::OFFSET_CHANGE), "{:?}", first.flags);
    assert_eq!(first.attributes["sources"], "2");
}

#[test]
fn numbers_come_as_texts_and_units_by_their_names() {
    let of = |body: &str, kind: &str, day: &str, metric: &str| {
        let items = read(body, kind, day);
        values(&records(&items)[0].content, metric)
    };
    let day = "2026-03-29/2026-03-30";
    assert_eq!(of(fixture!("document_weight"), "weight", day, "body_weight"), [71.25]);
    assert_eq!(of(fixture!("document_height"), "height", day, "body_height"), [178.4]);
    let walked = of(fixture!("document_distance"), "distance", day, "distance_walk_run");
    assert_eq!(walked, [64.25]);
    let steps = of(fixture!("document_steps"), "steps", day, "steps");
    assert_eq!(steps, [0.0, 790.0, 812.0], "zero is a value, and what lasts has none");
    let hrv = of(
        fixture!("document_daily_hrv"),
        "daily_heart_rate_variability",
        "2026-03-28/2026-03-30",
        "hrv_rmssd_sleep_avg",
    );
    assert_eq!(hrv, [43.7, 47.9]);
}

#[test]
fn a_temperature_deviates_from_its_baseline_and_the_spread_of_a_month_is_none() {
    let items = read(
        fixture!("document_daily_skin"),
        "daily_sleep_temperature_derivations",
        "2026-03-28/2026-03-30",
    );
    let all = records(&items);
    let deviation = |at: usize| values(&all[at].content, "skin_temperature_deviation");
    assert_eq!((deviation(0), deviation(1)), (vec![0.3], vec![]), "no baseline, no deviation");
    assert_eq!(values(&all[1].content, "skin_temperature_sleep"), [33.6]);
}

#[test]
fn a_day_has_no_zone() {
    let items = read(fixture!("document_daily_breaths"), "daily_respiratory_rate", "");
    let content = &records(&items)[0].content;
    assert_eq!(content.day(), Day::parse("2026-03-29"));
    assert_eq!((content.start_at, content.start_offset_s), (None, None));
    assert!(content.flags.iter().any(|name| name == flag::FLOATING_TIME));
}

#[test]
fn a_day_that_may_still_change_is_tentative() {
    let (body, kind) = (fixture!("document_daily_resting"), "daily_resting_heart_rate");
    let states = |at: &str| -> Vec<String> {
        let items = read_at(body, kind, "", at);
        records(&items).iter().map(|it| it.content.state.clone()).collect()
    };
    assert_eq!(states("2026-03-29T07:00:00Z"), ["tentative", "final"]);
    assert_eq!(
        states("2026-03-30T11:59:59Z"),
        ["tentative", "final"],
        "it is the 29th in the west"
    );
    assert_eq!(states("2026-03-30T12:00:00Z"), ["final", "final"]);
}

#[test]
fn what_lasts_or_is_not_processed_has_no_values() {
    let items = read(fixture!("document_sleep_tentative"), "sleep", "2026-03-29/2026-03-30");
    let all = records(&items);
    assert_eq!(all.len(), 2);
    for record in all {
        assert_eq!(record.content.state, "tentative");
        assert!(record.content.readings.is_empty());
    }
}

#[test]
fn a_session_is_its_name_at_its_last_change() {
    let of = |body: &str| {
        let items = read(body, "sleep", "2026-03-29/2026-03-30");
        let record = records(&items)[0];
        (record.record_id.clone(), record.version, record.content.clone())
    };
    let (id, version, first) = of(fixture!("document_sleep"));
    let (same, later, second) = of(fixture!("document_sleep_correction"));
    assert_eq!(id, "a1b2c3d4-e5f6-7890-1234-567890abcdef");
    assert_eq!((same, version), (id, Some(micros("2026-03-29T06:05:00.123456Z"))));
    assert!(later > version && second.start_at > first.start_at, "edited by hand");
    // A clock change lies in that night: a duration is the instants', and both offsets stand.
    assert_eq!((first.start_offset_s, first.end_offset_s), (Some(3_600), Some(7_200)));
    assert_eq!((second.start_offset_s, second.end_offset_s), (Some(3_600), Some(7_200)));
    assert_eq!(values(&first, "sleep_session"), [28_080.0]);
    assert_eq!(first.day(), Day::parse("2026-03-29"));
}

#[test]
fn a_list_that_goes_on_is_no_whole() {
    let headers = Headers::new();
    let body = Bytes::from(r#"{"dataPoints":[],"nextPageToken":"more"}"#);
    let raw = Raw { headers: &headers, body: &body, received_at: 0 };
    let bad = VENDOR.document(&raw, "steps").expect_err("a reject");
    assert_eq!(bad.kind, Kind::ValidationError);
}
