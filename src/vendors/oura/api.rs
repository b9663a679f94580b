//! Oura's API v2: which calls fetch a document, and what their answers mean. Numbers are of
//! `vendors.md` §1.2 and §1.3 unless a line says that they are ours.

use bytes::Bytes;

use crate::model::time::Day;
use crate::vendors::Named;
use crate::vendors::ask::{Api, Call, Need, Per, Quota, Renewal};
use crate::vendors::history::{self, Collection, Poll, Window, collection as windows};
use crate::vendors::oura::{Oura, RECORD_TYPES, is_id};
use crate::vendors::wire::json;

/// 5 000 calls in five minutes, as Oura's page of questions says it; whose they are it does not say, so they are taken
/// for all of ours. Half of them for history is ours.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::App, window_s: 300, calls: 5_000 },
    Quota { per: Per::History, window_s: 300, calls: 2_500 },
];

/// Every collection that has something to read. A month is ours, but for heart rates, of which a call gives no more.
const HISTORY: &[Collection] = &[
    windows("window.sleep", 30),
    windows("window.daily_readiness", 30),
    windows("window.daily_sleep", 30),
    windows("window.daily_activity", 30),
    windows("window.daily_spo2", 30),
    windows("window.daily_stress", 30),
    windows("window.daily_resilience", 30),
    windows("window.daily_cardiovascular_age", 30),
    windows("window.vo2_max", 30),
    windows("window.workout", 30),
    windows("window.session", 30),
    windows("window.heartrate", 30),
];

/// A ring that was away from its phone brings its heart rates a day late; more is ours.
const POLLS: &[Poll] = &[Poll { record_type: "heartrate", late_days: 1, back_days: 30 }];

/// Ours, because nothing is documented: a document that is notified is there, or is in a moment; some were seen to take
/// longer. After seven tries, an hour and three quarters, it is given up.
const AGAIN_S: [u32; 6] = [30, 60, 300, 600, 1_800, 3_600];

/// Ours: the most pages that one record is. A day of heart rates is one or two.
const PAGES_MAX: usize = 32;
/// Ours: the longest token of a page that is sent back.
const TOKEN_BYTES_MAX: usize = 2_048;

impl Api for Oura {
    fn base(&self) -> &'static str {
        "https://api.ouraring.com"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        let one = |path: String| Some(Call::get(path));
        if let Some(collected) = history::of(need.record_type) {
            return range(collected, Window::parse(need.record_id)?);
        }
        match need.record_type {
            // Never notified: the person's heart rates of a UTC day, which is what names them.
            "heartrate" => {
                let day = Day::parse(need.record_id)?;
                Some(heart_rates(Window { from: day, to: day.next() }))
            }
            "personal_info" => one("/v2/usercollection/personal_info".to_owned()),
            known if RECORD_TYPES.contains(&known) && is_id(need.record_id) => {
                one(format!("/v2/usercollection/{}/{}", collection(known), need.record_id))
            }
            _ => None,
        }
    }

    /// The next page, until a page names none; one without a single element may name one, too.
    fn then(&self, need: &Need<'_>, answers: &[Bytes]) -> Option<Call> {
        // A window of too many pages is fetched in parts: that is not for us to see.
        let goes_on = match need.record_type {
            "heartrate" => answers.len() < PAGES_MAX,
            other => history::of(other).is_some(),
        };
        if !goes_on {
            return None;
        }
        let json = json::parse(answers.last()?).ok()?;
        let token = json.root().get("next_token")?.text().ok()?.to_owned();
        let mut call = self.ask(need)?;
        call.query.push(("next_token", Some(token).filter(|it| it.len() <= TOKEN_BYTES_MAX)?));
        Some(call)
    }

    fn limits(&self, headers: &dyn Named) -> Per {
        let [tier, _] = headers.first_two("x-ratelimit-tier");
        let tier = String::from_utf8_lossy(tier.unwrap_or_default()).to_ascii_lowercase();
        if tier.contains("token") { Per::User } else { Per::App }
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        let before = usize::try_from(attempt.checked_sub(1)?).ok()?;
        AGAIN_S.get(before).copied()
    }

    /// Apps of the new portal renew elsewhere: `vendors.oura.renewal_url`.
    fn renewal(&self) -> Option<Renewal> {
        Some(Renewal { url: "https://api.ouraring.com/oauth/token", scope: None })
    }

    fn quotas(&self) -> &'static [Quota] {
        QUOTAS
    }

    fn history(&self) -> &'static [Collection] {
        HISTORY
    }

    fn polls(&self) -> &'static [Poll] {
        POLLS
    }
}

/// The collection that a type of notification stands in.
fn collection(record_type: &str) -> &str {
    match record_type {
        "vo2_max" => "vO2_max",
        other => other,
    }
}

/// What a collection has of a window. Its days are the person's own, and whether the last one is in it differs by
/// collection: it is asked for, and a day that comes twice is a duplicate.
fn range(collected: &str, window: Window) -> Option<Call> {
    if collected == "heartrate" {
        return Some(heart_rates(window));
    }
    let known = RECORD_TYPES.contains(&collected).then(|| collection(collected))?;
    let query = vec![("start_date", window.from.to_string()), ("end_date", window.to.to_string())];
    Some(Call::get_with(format!("/v2/usercollection/{known}"), query))
}

fn heart_rates(window: Window) -> Call {
    let query = vec![
        ("start_datetime", format!("{}T00:00:00+00:00", window.from)),
        ("end_datetime", format!("{}T00:00:00+00:00", window.to)),
    ];
    Call::get_with("/v2/usercollection/heartrate", query)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::ask::Answer;
    use crate::vendors::oura::VENDOR;

    const ID: &str = "7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11";

    fn need<'a>(record_type: &'a str, record_id: &'a str) -> Need<'a> {
        Need { record_type, record_id, vendor_user: "u-4f2c81" }
    }

    fn path(record_type: &str, record_id: &str) -> Option<String> {
        VENDOR.ask(&need(record_type, record_id)).map(|call| call.path)
    }

    #[test]
    fn every_type_has_its_path_and_nothing_else_gets_into_one() {
        for record_type in RECORD_TYPES {
            let collection = if record_type == "vo2_max" { "vO2_max" } else { record_type };
            let expected = format!("/v2/usercollection/{collection}/{ID}");
            assert_eq!(path(record_type, ID), Some(expected));
        }
        for (record_type, record_id) in [
            ("sleep", "../personal_info"),
            ("sleep", ""),
            ("meal", ID),
            ("heartrate", ID),
            ("users", ID),
        ] {
            assert_eq!(path(record_type, record_id), None, "{record_type} {record_id}");
        }
    }

    #[test]
    fn heart_rates_are_asked_for_by_the_day_and_page_by_page() {
        let need = need("heartrate", "2026-03-28");
        let first = VENDOR.ask(&need).expect("a call");
        let day = [
            ("start_datetime", "2026-03-28T00:00:00+00:00".to_owned()),
            ("end_datetime", "2026-03-29T00:00:00+00:00".to_owned()),
        ];
        assert_eq!(first.query, day);
        let page = Bytes::from(r#"{"data":[],"next_token":"t/1=="}"#);
        let next = VENDOR.then(&need, std::slice::from_ref(&page)).expect("an empty page goes on");
        assert_eq!(next.query[..2], day);
        assert_eq!(next.query[2], ("next_token", "t/1==".to_owned()));
        let last = Bytes::from(r#"{"data":[{}],"next_token":null}"#);
        assert_eq!(VENDOR.then(&need, &[page.clone(), last]), None);
        let pages = vec![page; PAGES_MAX];
        assert_eq!(VENDOR.then(&need, &pages), None, "no pages without end");
        let window = Need { record_type: "window.heartrate", record_id: WINDOW, ..need };
        assert!(VENDOR.then(&window, &pages).is_some(), "none is left out: who asks divides it");
        let sleep = Need { record_type: "sleep", record_id: ID, ..need };
        assert_eq!(VENDOR.then(&sleep, &[Bytes::from(r#"{"next_token":"x"}"#)]), None);
    }

    const WINDOW: &str = "2026-03-01/2026-03-31";

    #[test]
    fn windows_of_every_collection_are_asked_for_page_by_page() {
        let id = WINDOW;
        for collection in VENDOR.history() {
            let need = need(collection.windows, id);
            let call = VENDOR.ask(&need).expect("a call");
            let name = collection.windows.strip_prefix("window.").expect("a window");
            let path = if name == "vo2_max" { "vO2_max" } else { name };
            assert_eq!(call.path, format!("/v2/usercollection/{path}"));
            let days = |value: &String| value.get(..10).is_some_and(|day| id.contains(day));
            let asked = call.query.iter().all(|(_, value)| days(value));
            assert!(asked && call.query.len() == 2, "{call:?}");
            let page = Bytes::from(r#"{"data":[],"next_token":"t"}"#);
            let next = VENDOR.then(&need, std::slice::from_ref(&page)).expect("the next page");
            assert_eq!(next.query[2], ("next_token", "t".to_owned()));
            let last = Bytes::from(r#"{"data":[{}],"next_token":null}"#);
            assert_eq!(VENDOR.then(&need, &[page, last]), None);
        }
        for (record_type, id) in [("window.sleep", "2026-03-01"), ("window.users", id)] {
            assert_eq!(path(record_type, id), None, "{record_type} {id}");
        }
    }

    #[test]
    fn a_429_says_whom_it_stops_and_a_403_is_no_matter_of_tokens() {
        let headers = |tier: &str| -> Vec<(String, Vec<u8>)> {
            vec![
                ("x-ratelimit-tier".into(), tier.as_bytes().to_vec()),
                ("retry-after".into(), b"120".to_vec()),
            ]
        };
        assert_eq!(VENDOR.limits(&headers("per-token")), Per::User);
        assert_eq!(VENDOR.limits(&headers("per-application")), Per::App);
        assert_eq!(VENDOR.limits(&Vec::new()), Per::App, "the safer of the two");
        assert_eq!(VENDOR.answer(429, &headers("per-token")), Answer::Limited(Some(120)));
        assert_eq!(VENDOR.answer(403, &Vec::new()), Answer::Forbidden);
        assert_eq!(VENDOR.answer(404, &Vec::new()), Answer::NotYet);
        assert_eq!(VENDOR.answer(422, &Vec::new()), Answer::Refused);
    }
}
