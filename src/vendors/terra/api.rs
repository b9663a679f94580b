//! Terra's REST API: what it has of the time before a person connected. What comes after is sent by webhook, so nothing
//! else is asked for. Numbers are of `vendors.md` §3.5 unless a line says that they are ours.
//!
//! # Decisions
//! - No person has a token: Terra holds the makers' tokens, and its calls are made with the app's own id and key. Whose
//!   days are asked for says the user's id.
//! - An answer is asked for as an answer (`to_webhook=false`, always said: sources differ in what it is where nothing is
//!   said). Sent to the webhook it would come without a place in history, before what is new, and unseen by whoever waits
//!   for it.
//! - Terra asks the maker while we wait, and gives up after 30 s with a 504. Such a window is too much, and is divided; so
//!   is one that does not come within our own deadline, which may be the shorter one.
//! - 429 is of the user, by Terra's own limit of days and by the maker's.

use crate::vendors::Named;
use crate::vendors::ask::{Answer, Api, AppKey, Call, Need, Per, Quota, With, usual};
use crate::vendors::history::{self, Collection, Window, collection};
use crate::vendors::terra::Terra;
use crate::vendors::terra::record::text;
use crate::vendors::wire::glance;

/// The app's id and key.
const KEY: AppKey = AppKey { id: "dev-id", key: "x-api-key" };

/// Days of a window are ours: with samples a night has thousands of values, and all of a window is gathered within 30 s.
/// How far back depends on the maker (Garmin five years, Polar not at all); where there is nothing, an answer says so.
const HISTORY: &[Collection] = &[
    collection("window.sleep", 7),
    collection("window.daily", 14),
    collection("window.activity", 7),
    collection("window.body", 28),
    collection("window.nutrition", 28),
    collection("window.menstruation", 28),
];

/// A user's 6 000 days in an hour are 214 windows of the longest kind. Of an app no limit is documented; history's share is
/// ours.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::User, window_s: 3_600, calls: 200 },
    Quota { per: Per::History, window_s: 60, calls: 60 },
];

/// Ours: a request that Terra says to be still working on.
const AGAIN_S: [u32; 4] = [60, 300, 900, 3_600];

impl Api for Terra {
    fn base(&self) -> &'static str {
        "https://api.tryterra.co/v2"
    }

    fn with(&self) -> With {
        With::Key(KEY)
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        let kind = kind(need.record_type)?;
        let window = Window::parse(need.record_id)?;
        let query = vec![
            ("user_id", need.vendor_user.to_owned()),
            ("start_date", window.from.to_string()),
            // Whether its last day is one of the answer's is not said: a day too many is recognised.
            ("end_date", window.to.to_string()),
            ("to_webhook", "false".to_owned()),
            ("with_samples", "true".to_owned()),
        ];
        Some(Call::get_with(format!("/{kind}"), query))
    }

    fn answer(&self, status: u16, headers: &dyn Named) -> Answer {
        match status {
            404 => Answer::Nothing,
            504 => Answer::TooMuch,
            _ => usual(status, headers),
        }
    }

    /// A request that is not done yet is an event of its own in the place of records.
    fn judge(&self, _need: &Need<'_>, body: &[u8]) -> Answer {
        let json = glance::members(body, &["type"]);
        let kind = json.and_then(|json| text(&json.root(), &["type"]).ok().flatten());
        match kind.as_deref() {
            Some("processing" | "rate_limit_hit") => Answer::NotYet,
            _ => Answer::Document,
        }
    }

    fn limits(&self, _headers: &dyn Named) -> Per {
        Per::User
    }

    fn cuts_off(&self) -> bool {
        true
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        let before = usize::try_from(attempt.checked_sub(1)?).ok()?;
        AGAIN_S.get(before).copied()
    }

    fn quotas(&self) -> &'static [Quota] {
        QUOTAS
    }

    fn history(&self) -> &'static [Collection] {
        HISTORY
    }
}

/// Terra's name of what windows of this type collect, which is its body's type, too; none for another type.
pub(super) fn kind(record_type: &str) -> Option<&str> {
    let known = HISTORY.iter().any(|known| known.windows == record_type);
    history::of(record_type).filter(|_| known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::terra::VENDOR;

    fn need<'a>(record_type: &'a str, record_id: &'a str) -> Need<'a> {
        Need { record_type, record_id, vendor_user: "5a3d0e6b-7f0e-4d6d-9c51-2f5a7a1f0c44" }
    }

    #[test]
    fn a_window_is_asked_for_as_an_answer_with_its_samples() {
        let window = "2026-03-23/2026-03-30";
        let call = VENDOR.ask(&need("window.sleep", window)).expect("a call");
        assert_eq!((call.path.as_str(), call.form), ("/sleep", None));
        let query: Vec<String> = call.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            query.join("&"),
            "user_id=5a3d0e6b-7f0e-4d6d-9c51-2f5a7a1f0c44&start_date=2026-03-23\
             &end_date=2026-03-30&to_webhook=false&with_samples=true"
        );
        for collection in HISTORY {
            let call = VENDOR.ask(&need(collection.windows, window)).expect("a call");
            let kind = call.path.trim_start_matches('/');
            assert_eq!(format!("window.{kind}"), collection.windows);
            assert!(super::super::shape(kind).is_some(), "{kind} is read");
        }
        for (record_type, id) in [
            ("sleep", "2026-03-23/2026-03-30"),
            ("window.athlete", "2026-03-23/2026-03-30"),
            ("window.sleep", "2026-03-30/2026-03-23"),
            ("window.sleep", "c1a0f1de"),
        ] {
            assert_eq!(VENDOR.ask(&need(record_type, id)), None, "{record_type} {id}");
        }
    }

    #[test]
    fn a_status_means_what_the_contract_says() {
        let none: Vec<(String, Vec<u8>)> = Vec::new();
        for (status, answer) in [
            (200, Answer::Document),
            (404, Answer::Nothing),
            (504, Answer::TooMuch),
            (503, Answer::Unavailable),
            (401, Answer::Unauthorised),
            (429, Answer::Limited(None)),
            (400, Answer::Refused),
        ] {
            assert_eq!(VENDOR.answer(status, &none), answer, "{status}");
        }
        assert_eq!(VENDOR.limits(&none), Per::User, "nobody else waits for one person's days");
        assert!(VENDOR.cuts_off() && VENDOR.with() == With::Key(KEY));
    }

    #[test]
    fn what_is_not_done_yet_is_no_document() {
        let judge = |body: &str| VENDOR.judge(&need("window.sleep", "x"), body.as_bytes());
        assert_eq!(judge(r#"{"type":"processing","retry_after_seconds":60}"#), Answer::NotYet);
        assert_eq!(judge(r#"{"status":"x","type":"rate_limit_hit"}"#), Answer::NotYet);
        for body in [r#"{"type":"sleep","data":[]}"#, r#"{"type":"auth"}"#, "<html>", "[]", ""] {
            assert_eq!(judge(body), Answer::Document, "{body}");
        }
    }

    #[test]
    fn the_days_of_an_hour_are_never_above_the_user_s_limit() {
        let longest = HISTORY.iter().map(|one| one.days).max().expect("one").unsigned_abs();
        let hour = QUOTAS.iter().find(|one| one.per == Per::User).expect("the user's");
        // Both ends may count.
        assert!(hour.window_s == 3_600 && hour.calls * (longest + 1) <= 6_000);
    }
}
