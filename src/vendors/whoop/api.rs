//! WHOOP's API v2: which calls fetch a record, and what their answers mean. Numbers are of
//! `vendors.md` §2.2 and §2.3 unless a line says that they are ours.
//!
//! Nothing is ever notified of a cycle, and its strain and energy grow until the next night begins.
//! So a recovery brings along the cycle that it opens and the one that it closed, and the sleeps by
//! which their days are known: four calls, five for a night with its sleep. What a workout adds to
//! its cycle is seen with the next recovery: the quota of an app is 10 000 calls a day for all.

use bytes::Bytes;
use uuid::Uuid;

use crate::model::time::{Day, Micros, Moment};
use crate::vendors::Named;
use crate::vendors::ask::{Answer, Api, Call, Need, Per, Quota, Renewal, Told, number, usual};
use crate::vendors::history::{self, Collection, Window, collection};
use crate::vendors::whoop::Whoop;
use crate::vendors::wire::json;

/// All of our calls together: 100 in a minute, 10 000 in a day. What of it history has is ours (`vendors.md` §2.7): a
/// person's three months are 24 calls.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::App, window_s: 60, calls: 100 },
    Quota { per: Per::App, window_s: 86_400, calls: 10_000 },
    Quota { per: Per::History, window_s: 60, calls: 20 },
    Quota { per: Per::History, window_s: 86_400, calls: 5_000 },
];

/// Nights are the sleeps, the cycles that they begin and the recoveries from them, because none of these is whole without
/// the others. Of so many days each of the three is a page, or two.
const HISTORY: &[Collection] = &[collection("window.nights", 20), collection("window.workout", 30)];

/// Ours, because nothing is documented: a notification names what is there or is about to be, and
/// WHOOP itself repeats one for about an hour. After seven tries, an hour and three quarters, the
/// record is given up.
const AGAIN_S: [u32; 6] = [30, 60, 300, 600, 1_800, 3_600];

/// Ours: how long before a sleep the one before it may have begun.
const BEFORE_US: Micros = 36 * 3_600 * 1_000_000;
/// The most objects of a page; more is refused.
const PAGE_MAX: u32 = 25;

/// The header that says how many calls the nearest limit leaves.
const LEFT: &str = "x-ratelimit-remaining";
/// The header that says in how many seconds it ends; a time to wait, not a date.
const RESET_S: &str = "x-ratelimit-reset";

impl Api for Whoop {
    fn base(&self) -> &'static str {
        "https://api.prod.whoop.com/developer"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        if history::of(need.record_type).is_some() {
            return page(need, &[]);
        }
        let path = match need.record_type {
            "sleep" => format!("/v2/activity/sleep/{}", uuid(need.record_id)?),
            // No route takes a sleep's id for its recovery: the sleep says of which cycle it is.
            "recovery" => {
                let sleep = need.record_id.strip_prefix("recovery:")?;
                format!("/v2/activity/sleep/{}", uuid(sleep)?)
            }
            "workout" => format!("/v2/activity/workout/{}", uuid(need.record_id)?),
            "cycle" => format!("/v2/cycle/{}", need.record_id.parse::<u64>().ok()?),
            "body" => "/v2/user/measurement/body".to_owned(),
            _ => return None,
        };
        Some(Call::get(path))
    }

    /// A recovery is its sleep, itself, and the cycles before and after that sleep, with their sleeps. A cycle is itself
    /// and the sleep that began it.
    fn then(&self, need: &Need<'_>, answers: &[Bytes]) -> Option<Call> {
        if history::of(need.record_type).is_some() {
            return page(need, answers);
        }
        let path = match (need.record_type, answers.len()) {
            ("recovery", 1) => format!("/v2/cycle/{}/recovery", night(answers.first()?)?.cycle),
            ("recovery", 2) => return around(answers.first()?, "/v2/cycle"),
            ("recovery", 3) => return around(answers.first()?, "/v2/activity/sleep"),
            ("cycle", 1) => format!("/v2/cycle/{}/sleep", need.record_id.parse::<u64>().ok()?),
            _ => return None,
        };
        Some(Call::get(path))
    }

    /// The cycle that a sleep began may come after its recovery.
    fn together(&self, need: &Need<'_>, answers: &[Bytes]) -> Answer {
        match (need.record_type, answers) {
            ("recovery", [sleep, _, cycles, ..])
                if night(sleep).is_some_and(|night| !has_cycle(cycles, night.cycle)) =>
            {
                Answer::Partly
            }
            _ => Answer::Document,
        }
    }

    fn answer(&self, status: u16, headers: &dyn Named) -> Answer {
        match usual(status, headers) {
            Answer::Limited(after) => Answer::Limited(after.or(number(headers, RESET_S))),
            other => other,
        }
    }

    fn told(&self, headers: &dyn Named) -> Option<Told> {
        Some(Told { left: number(headers, LEFT)?, reset_s: number(headers, RESET_S)? })
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        let before = usize::try_from(attempt.checked_sub(1)?).ok()?;
        AGAIN_S.get(before).copied()
    }

    /// Without the scope there is no refresh token in the answer.
    fn renewal(&self) -> Option<Renewal> {
        let url = "https://api.prod.whoop.com/oauth/oauth2/token";
        Some(Renewal { url, scope: Some("offline") })
    }

    fn quotas(&self) -> &'static [Quota] {
        QUOTAS
    }

    fn history(&self) -> &'static [Collection] {
        HISTORY
    }
}

/// Ours: how many days before and behind a window the sleeps are asked for that its cycles began with, and its recoveries
/// are from.
const AROUND: (i32, i32) = (2, 1);
/// Ours: the longest token of a page that is sent back.
const TOKEN_BYTES_MAX: usize = 2_048;

/// The next page of a window, after these: of a collection until one names none, and then of the next collection.
fn page(need: &Need<'_>, answers: &[Bytes]) -> Option<Call> {
    let window = Window::parse(need.record_id)?;
    let collections: &[(&str, Window)] = match history::of(need.record_type)? {
        "nights" => &[
            ("/v2/activity/sleep", window.widened(AROUND.0, AROUND.1)),
            ("/v2/cycle", window),
            ("/v2/recovery", window),
        ],
        "workout" => &[("/v2/activity/workout", window)],
        _ => return None,
    };
    let (mut at, mut token) = (0, None);
    for answer in answers {
        token = next_token(answer);
        at += usize::from(token.is_none());
    }
    let (path, window) = collections.get(at)?;
    let mut query = vec![
        ("start", format!("{}T00:00:00.000Z", window.from)),
        ("end", format!("{}T00:00:00.000Z", window.to)),
        ("limit", PAGE_MAX.to_string()),
    ];
    query.extend(token.map(|token| ("nextToken", token)));
    Some(Call::get_with(*path, query))
}

/// What a page names the next one by; none where there is no next one, or it is no page.
fn next_token(page: &[u8]) -> Option<String> {
    let json = json::parse(page).ok()?;
    let token = json.root().get("next_token")?.text().ok()?.to_owned();
    Some(token).filter(|token| (1..=TOKEN_BYTES_MAX).contains(&token.len()))
}

/// An id in the one way in which it stands in a path.
fn uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

/// A sleep as far as other calls go by it.
struct Night {
    cycle: u64,
    start: Micros,
    end: String,
}

/// What is asked for by this sleep; nothing by a nap, whose cycle's recovery is another sleep's, nor by one that lasts.
fn night(sleep: &[u8]) -> Option<Night> {
    let json = json::parse(sleep).ok()?;
    let root = json.root();
    let is_nap = root.get("nap")?.boolean().ok()?;
    let cycle = u64::try_from(root.get("cycle_id")?.integer().ok()?).ok().filter(|_| !is_nap)?;
    let start = Moment::parse(root.get("start")?.text().ok()?).ok()?.at_us;
    let end = root.get("end")?.text().ok()?;
    Moment::parse(end).ok()?;
    Some(Night { cycle, start, end: end.to_owned() })
}

/// Whether this page of cycles has this one; so it is where it is no page, so that the reader says so.
fn has_cycle(page: &[u8], id: u64) -> bool {
    let Ok(json) = json::parse(page) else { return true };
    let root = json.root();
    let Some(records) = root.get("records") else { return true };
    let Ok(mut cycles) = records.items() else { return true };
    cycles.any(|cycle| {
        let found = cycle.get("id").and_then(|id| id.integer().ok());
        found.is_none_or(|found| u64::try_from(found) == Ok(id))
    })
}

/// The page of a collection from a day and a half or more before this sleep to its end: the night before is in it.
fn around(sleep: &[u8], collection: &str) -> Option<Call> {
    let night = night(sleep)?;
    let from = Day::of_utc(night.start.saturating_sub(BEFORE_US));
    let query = vec![
        ("start", format!("{from}T00:00:00.000Z")),
        ("end", night.end),
        ("limit", PAGE_MAX.to_string()),
    ];
    Some(Call::get_with(collection, query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::whoop::VENDOR;

    const SLEEP: &str = "0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77";

    fn need<'a>(record_type: &'a str, record_id: &'a str) -> Need<'a> {
        Need { record_type, record_id, vendor_user: "481516" }
    }

    fn path(record_type: &str, record_id: &str) -> Option<String> {
        VENDOR.ask(&need(record_type, record_id)).map(|call| call.path)
    }

    #[test]
    fn every_type_has_its_path_and_nothing_else_gets_into_one() {
        for (record_type, record_id, expected) in [
            ("sleep", SLEEP, format!("/v2/activity/sleep/{SLEEP}")),
            ("workout", SLEEP, format!("/v2/activity/workout/{SLEEP}")),
            ("cycle", "93840022", "/v2/cycle/93840022".to_owned()),
            ("body", "body", "/v2/user/measurement/body".to_owned()),
        ] {
            assert_eq!(path(record_type, record_id), Some(expected), "{record_type}");
        }
        for (record_type, record_id) in [
            ("sleep", "../user"),
            ("workout", "10129"),
            ("cycle", "-1"),
            ("cycle", "1/recovery"),
            ("recovery", SLEEP),
            ("heartrate", SLEEP),
        ] {
            assert_eq!(path(record_type, record_id), None, "{record_type} {record_id}");
        }
    }

    #[test]
    fn a_recovery_is_asked_for_by_way_of_its_sleep_and_its_cycles_come_along() {
        let id = format!("recovery:{SLEEP}");
        let need = need("recovery", &id);
        let first = VENDOR.ask(&need).expect("a call");
        assert_eq!(first.path, format!("/v2/activity/sleep/{SLEEP}"), "never looked up as its own");
        let times = r#""start":"2026-03-28T22:14:30.000Z","end":"2026-03-29T06:02:30.000Z""#;
        let sleep = format!(r#"{{"id":"{SLEEP}","cycle_id":93840022,"nap":false,{times}}}"#);
        let mut answers = vec![Bytes::from(sleep)];
        let mut calls = Vec::new();
        while let Some(call) = VENDOR.then(&need, &answers) {
            calls.push(call);
            answers.push(Bytes::from("{}"));
        }
        let paths: Vec<&str> = calls.iter().map(|call| call.path.as_str()).collect();
        assert_eq!(paths, ["/v2/cycle/93840022/recovery", "/v2/cycle", "/v2/activity/sleep"]);
        let window = [
            ("start", "2026-03-27T00:00:00.000Z".to_owned()),
            ("end", "2026-03-29T06:02:30.000Z".to_owned()),
            ("limit", "25".to_owned()),
        ];
        assert!(calls[0].query.is_empty());
        assert!(calls[1..].iter().all(|call| call.query == window), "{calls:?}");
        for sleep in [
            format!(r#"{{"cycle_id":7,"nap":true,{times}}}"#),
            format!(r#"{{"nap":false,{times}}}"#),
            r#"{"cycle_id":7,"nap":false,"start":"2026-03-28T22:14:30.000Z"}"#.to_owned(),
            r#"{"cycle_id":7,"nap":false,"start":"yesterday","end":"today"}"#.to_owned(),
            "<html>".to_owned(),
        ] {
            assert_eq!(VENDOR.then(&need, &[Bytes::from(sleep.clone())]), None, "{sleep}");
        }
        let sleep = Need { record_type: "sleep", ..need };
        assert_eq!(VENDOR.then(&sleep, &answers[..1]), None, "a sleep is one call");
        let cycle = Need { record_type: "cycle", record_id: "93840022", ..need };
        let next = VENDOR.then(&cycle, &answers[..1]).map(|call| call.path);
        assert_eq!(next.as_deref(), Some("/v2/cycle/93840022/sleep"));
        assert_eq!(VENDOR.then(&cycle, &answers[..2]), None);
    }

    #[test]
    fn a_recovery_without_its_cycle_is_a_part() {
        let id = format!("recovery:{SLEEP}");
        let times = r#""start":"2026-03-28T22:14:30.000Z","end":"2026-03-29T06:02:30.000Z""#;
        let sleep = format!(r#"{{"cycle_id":93840022,"nap":false,{times}}}"#);
        let together = |record_type, cycles: &str| {
            let answers = [sleep.as_str(), "{}", cycles, "{}"].map(|it| Bytes::from(it.to_owned()));
            VENDOR.together(&need(record_type, &id), &answers)
        };
        let there = r#"{"records":[{"id":93840022},{"id":93840021}]}"#;
        let before = r#"{"records":[{"id":93840021}]}"#;
        assert_eq!(together("recovery", there), Answer::Document);
        assert_eq!(together("recovery", before), Answer::Partly);
        assert_eq!(together("recovery", r#"{"records":[]}"#), Answer::Partly);
        assert_eq!(together("cycle", before), Answer::Document, "it has no page of cycles");
        for bad in ["{}", "<html>", r#"{"records":7}"#, r#"{"records":[{"id":"7"}]}"#] {
            assert_eq!(together("recovery", bad), Answer::Document, "the reader says why: {bad}");
        }
    }

    #[test]
    fn a_window_of_nights_is_its_sleeps_cycles_and_recoveries_page_by_page() {
        let need = need("window.nights", "2026-03-01/2026-03-21");
        let more = |token: &str| Bytes::from(format!(r#"{{"records":[],"next_token":{token}}}"#));
        let mut calls = vec![VENDOR.ask(&need).expect("a call")];
        let mut answers = Vec::new();
        for answer in [more(r#""t/1==""#), more("null"), more(r#""""#), Bytes::from("{}")] {
            answers.push(answer);
            calls.extend(VENDOR.then(&need, &answers));
        }
        let asked: Vec<(&str, &str, usize)> = calls
            .iter()
            .map(|call| (call.path.as_str(), call.query[0].1.as_str(), call.query.len()))
            .collect();
        let sleeps = "2026-02-27T00:00:00.000Z";
        let first = "2026-03-01T00:00:00.000Z";
        assert_eq!(
            asked,
            [
                ("/v2/activity/sleep", sleeps, 3),
                ("/v2/activity/sleep", sleeps, 4),
                ("/v2/cycle", first, 3),
                ("/v2/recovery", first, 3),
            ]
        );
        assert_eq!(calls[1].query[3], ("nextToken", "t/1==".to_owned()));
        assert_eq!(calls[0].query[1].1, "2026-03-22T00:00:00.000Z");
        assert_eq!(calls[2].query[1].1, "2026-03-21T00:00:00.000Z");
        assert!(calls.iter().all(|call| call.query[2] == ("limit", "25".to_owned())));
        assert_eq!(path("window.nights", "2026-03-01"), None);
        assert_eq!(path("window.sleep", "2026-03-01/2026-03-02"), None);
    }

    #[test]
    fn what_is_told_of_the_quota_is_seconds_to_wait() {
        let headers = |pairs: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
            let of = |(name, value): &(&str, &str)| ((*name).into(), value.as_bytes().to_vec());
            pairs.iter().map(of).collect()
        };
        let limit = ("x-ratelimit-limit", "100, 100;window=60, 10000;window=86400");
        let both = headers(&[limit, (LEFT, "3"), (RESET_S, "17")]);
        assert_eq!(VENDOR.told(&both), Some(Told { left: 3, reset_s: 17 }));
        assert_eq!(VENDOR.told(&headers(&[limit])), None);
        assert_eq!(VENDOR.answer(429, &both), Answer::Limited(Some(17)));
        let after = headers(&[("retry-after", "5"), (RESET_S, "17")]);
        assert_eq!(VENDOR.answer(429, &after), Answer::Limited(Some(5)));
        assert_eq!(VENDOR.answer(404, &both), Answer::NotYet);
        assert_eq!(VENDOR.answer(401, &both), Answer::Unauthorised);
    }

    #[test]
    fn what_is_not_there_is_asked_for_less_and_less_and_then_given_up() {
        let waits: Vec<u32> = (1..).map_while(|attempt| VENDOR.again_s(attempt)).collect();
        assert!(waits.is_sorted() && waits.iter().sum::<u32>() > 3_600, "{waits:?}");
        assert_eq!(VENDOR.again_s(0), None);
    }
}
