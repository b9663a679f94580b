//! WHOOP's API v2: which calls fetch a record, and what their answers mean. Numbers are of
//! `vendors.md` §2.2 and §2.3 unless a line says that they are ours.

use bytes::Bytes;
use uuid::Uuid;

use crate::vendors::Named;
use crate::vendors::ask::{Answer, Api, Call, Need, Per, Quota, Renewal, Told, number, usual};
use crate::vendors::whoop::Whoop;
use crate::vendors::wire::json;

/// All of our calls together: 100 in a minute, 10 000 in a day.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::App, window_s: 60, calls: 100 },
    Quota { per: Per::App, window_s: 86_400, calls: 10_000 },
];

/// Ours, because nothing is documented: a notification names what is there or is about to be, and
/// WHOOP itself repeats one for about an hour. After seven tries, an hour and three quarters, the
/// record is given up.
const AGAIN_S: [u32; 6] = [30, 60, 300, 600, 1_800, 3_600];

/// The header that says how many calls the nearest limit leaves.
const LEFT: &str = "x-ratelimit-remaining";
/// The header that says in how many seconds it ends; a time to wait, not a date.
const RESET_S: &str = "x-ratelimit-reset";

impl Api for Whoop {
    fn base(&self) -> &'static str {
        "https://api.prod.whoop.com/developer"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
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
        Some(Call { path, query: Vec::new() })
    }

    /// A recovery is its sleep, itself, and its cycle, of which nothing is ever notified.
    fn then(&self, need: &Need<'_>, answers: &[Bytes]) -> Option<Call> {
        if need.record_type != "recovery" {
            return None;
        }
        let cycle = cycle_of(answers.first()?)?;
        let path = match answers.len() {
            1 => format!("/v2/cycle/{cycle}/recovery"),
            2 => format!("/v2/cycle/{cycle}"),
            _ => return None,
        };
        Some(Call { path, query: Vec::new() })
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
}

/// An id in the one way in which it stands in a path.
fn uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

/// The cycle that a sleep belongs to; none of a nap, whose cycle's recovery is another sleep's.
fn cycle_of(sleep: &[u8]) -> Option<u64> {
    let json = json::parse(sleep).ok()?;
    let root = json.root();
    let is_nap = root.get("nap")?.boolean().ok()?;
    let cycle = root.get("cycle_id")?.integer().ok()?;
    u64::try_from(cycle).ok().filter(|_| !is_nap)
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
    fn a_recovery_is_asked_for_by_way_of_its_sleep_and_its_cycle_comes_along() {
        let id = format!("recovery:{SLEEP}");
        let need = need("recovery", &id);
        let first = VENDOR.ask(&need).expect("a call");
        assert_eq!(first.path, format!("/v2/activity/sleep/{SLEEP}"), "never looked up as its own");
        let sleep = Bytes::from(format!(r#"{{"id":"{SLEEP}","cycle_id":93840022,"nap":false}}"#));
        let mut answers = vec![sleep];
        let mut paths = Vec::new();
        while let Some(call) = VENDOR.then(&need, &answers) {
            paths.push(call.path);
            answers.push(Bytes::from("{}"));
        }
        assert_eq!(paths, ["/v2/cycle/93840022/recovery", "/v2/cycle/93840022"]);
        for sleep in [r#"{"cycle_id":7,"nap":true}"#, r#"{"nap":false}"#, "<html>"] {
            assert_eq!(VENDOR.then(&need, &[Bytes::from(sleep)]), None, "{sleep}");
        }
        let sleep = Need { record_type: "sleep", ..need };
        assert_eq!(VENDOR.then(&sleep, &answers[..1]), None, "a sleep is one call");
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
