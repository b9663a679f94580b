//! Google's API: the list of a type over whole days, page by page. Numbers are of `vendors.md` §6.2 and §6.3 unless a
//! line says that they are ours.

use bytes::Bytes;

use crate::model::time::Micros;
use crate::vendors::ask::{Answer, Api, Call, Need, Per, Quota, Renewal};
use crate::vendors::google::Google;
use crate::vendors::google::types::{self, Form, Type};
use crate::vendors::google::window::Window;
use crate::vendors::history::Collection;
use crate::vendors::wire::json;

/// Ours: Google counts queries of a project by the minute and tells nobody how many; one refusal stops all of a
/// project's people, so this is well below what a project begins with.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::App, window_s: 60, calls: 600 },
    Quota { per: Per::History, window_s: 60, calls: 300 },
];

/// Ours: a list is always there, and an empty one is an empty list; so a 404 is not expected at all. What was deleted is
/// asked for again until a day later: what comes meanwhile of another list, that was slow, had it still.
const AGAIN_S: [u32; 5] = [60, 600, 3_600, 21_600, 86_400];

/// The most points of a page of sleeps or exercises.
const SESSIONS: u32 = 25;
/// Ours; Google gives up to 10 000, which is more than half of what one record may have in the log.
const POINTS: u32 = 5_000;
/// Ours: the longest token of a page that is sent back.
const TOKEN_BYTES_MAX: usize = 4_096;

const DAY_US: Micros = 86_400_000_000;
/// Ours: no exercise is longer; one that is, is not known to be had by the day on which it began.
const SESSION_US: Micros = 3 * DAY_US;

impl Api for Google {
    fn base(&self) -> &'static str {
        "https://health.googleapis.com/v4"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        let kind = types::of_record(need.record_type)?;
        let window = Window::parse(need.record_id)?;
        let page = if kind.is_session() { SESSIONS } else { POINTS };
        let query = vec![("filter", filter(kind, window)), ("pageSize", page.to_string())];
        Some(Call::get_with(format!("/users/me/dataTypes/{}/dataPoints", kind.name), query))
    }

    /// The next page, until a page names none. A window of too many pages is fetched in parts: that is not for us to see.
    fn then(&self, need: &Need<'_>, answers: &[Bytes]) -> Option<Call> {
        let token = next_page(answers.last()?)?;
        let mut call = self.ask(need)?;
        call.query.push(("pageToken", token));
        Some(call)
    }

    /// A list may still have what was deleted, and what we have may not be known to us yet.
    fn together(&self, need: &Need<'_>, _answers: &[Bytes]) -> Answer {
        match Window::parse(need.record_id) {
            Some(window) if window.gone => Answer::Partly,
            _ => Answer::Document,
        }
    }

    fn held(&self, need: &Need<'_>) -> Option<(&'static str, Micros, Micros)> {
        let kind = types::of_record(need.record_type).filter(|kind| kind.is_session())?;
        let window = Window::parse(need.record_id).filter(|window| window.gone)?;
        Some((
            kind.record_type(),
            window.from.start_utc_us() - DAY_US,
            window.until.start_utc_us() + SESSION_US,
        ))
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        let before = usize::try_from(attempt.checked_sub(1)?).ok()?;
        AGAIN_S.get(before).copied()
    }

    /// The refresh token stays as it is.
    fn renewal(&self) -> Option<Renewal> {
        Some(Renewal { url: "https://oauth2.googleapis.com/token", scope: None })
    }

    fn quotas(&self) -> &'static [Quota] {
        QUOTAS
    }

    fn history(&self) -> &'static [Collection] {
        types::HISTORY
    }
}

/// The token of the page after this one.
fn next_page(page: &[u8]) -> Option<String> {
    let json = json::parse(page).ok()?;
    let token = json.root().get("nextPageToken")?.text().ok()?.to_owned();
    (1..=TOKEN_BYTES_MAX).contains(&token.len()).then_some(token)
}

/// What lies within these days. Google compares with `>=` and `<` alone, and each form by a field of its own.
fn filter(kind: &Type, window: Window) -> String {
    let (field, form) = match kind.form {
        Form::Sleep => ("interval.end_time", "T00:00:00Z"),
        Form::Exercise => ("interval.civil_start_time", "T00:00:00"),
        Form::Sample(_) => ("sample_time.physical_time", "T00:00:00Z"),
        Form::Interval(_) => ("interval.start_time", "T00:00:00Z"),
        Form::Daily(..) => ("date", ""),
    };
    let field = format!("{}.{field}", kind.name.replace('-', "_"));
    let Window { from, until, .. } = window;
    format!(r#"{field} >= "{from}{form}" AND {field} < "{until}{form}""#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::ask::Answer;
    use crate::vendors::google::VENDOR;

    fn need<'a>(record_type: &'a str, record_id: &'a str) -> Need<'a> {
        Need { record_type, record_id, vendor_user: "3f7a9c21" }
    }

    fn filter_of(record_type: &str, record_id: &str) -> String {
        let call = VENDOR.ask(&need(record_type, record_id)).expect("a call");
        call.query[0].1.clone()
    }

    #[test]
    fn each_form_is_filtered_by_its_own_field() {
        let two = "2026-03-28/2026-03-30";
        for (record_type, expected) in [
            (
                "sleep",
                r#"sleep.interval.end_time >= "2026-03-28T00:00:00Z" AND sleep.interval.end_time < "2026-03-30T00:00:00Z""#,
            ),
            (
                "workout",
                r#"exercise.interval.civil_start_time >= "2026-03-28T00:00:00" AND exercise.interval.civil_start_time < "2026-03-30T00:00:00""#,
            ),
            (
                "heart_rate",
                r#"heart_rate.sample_time.physical_time >= "2026-03-28T00:00:00Z" AND heart_rate.sample_time.physical_time < "2026-03-30T00:00:00Z""#,
            ),
            (
                "steps",
                r#"steps.interval.start_time >= "2026-03-28T00:00:00Z" AND steps.interval.start_time < "2026-03-30T00:00:00Z""#,
            ),
            (
                "daily_resting_heart_rate",
                r#"daily_resting_heart_rate.date >= "2026-03-28" AND daily_resting_heart_rate.date < "2026-03-30""#,
            ),
        ] {
            assert_eq!(filter_of(record_type, two), expected);
            assert_eq!(filter_of(record_type, &format!("{two}/gone")), expected);
        }
    }

    #[test]
    fn of_what_was_deleted_it_is_said_what_we_have_and_it_is_asked_for_again() {
        let (day, gone) = ("2026-03-28/2026-03-29", "2026-03-28/2026-03-29/gone");
        let day_us = crate::model::time::Day::parse("2026-03-28").expect("a day").start_utc_us();
        let of = |days: i64| day_us + days * DAY_US;
        assert_eq!(VENDOR.held(&need("window.sleep", gone)), Some(("sleep", of(-1), of(4))));
        assert_eq!(VENDOR.held(&need("window.sleep", day)), None);
        assert_eq!(VENDOR.held(&need("window.steps", gone)), None, "a day is known by its date");
        assert_eq!(VENDOR.together(&need("window.sleep", gone), &[]), Answer::Partly);
        assert_eq!(VENDOR.together(&need("window.sleep", day), &[]), Answer::Document);
    }

    #[test]
    fn every_type_has_its_path_and_nothing_else_gets_into_one() {
        let day = "2026-03-28/2026-03-29";
        for kind in types::all() {
            let call = VENDOR.ask(&need(kind.windows, day)).expect("a call");
            assert_eq!(call.path, format!("/users/me/dataTypes/{}/dataPoints", kind.name));
            let page = if kind.is_session() { "25" } else { "5000" };
            assert_eq!(call.query[1], ("pageSize", page.to_owned()));
        }
        for (record_type, record_id) in [
            ("sleep", "a1b2c3d4"),
            ("sleep", "2026-03-28"),
            ("sleep", "2026-03-29/2026-03-29"),
            ("sleep", "2026-03-30/2026-03-29"),
            ("sleep", "2026-03-28/2026-03-29/.."),
            ("sleep", r#"2026-03-28/"2026-03-29"#),
            ("exercise", day),
            ("users", day),
        ] {
            assert_eq!(
                VENDOR.ask(&need(record_type, record_id)),
                None,
                "{record_type} {record_id}"
            );
        }
    }

    #[test]
    fn a_list_is_asked_for_page_by_page() {
        let need = need("window.heart_rate", "2026-03-28/2026-03-29");
        let first = VENDOR.ask(&need).expect("a call");
        let page = Bytes::from(r#"{"dataPoints":[],"nextPageToken":"t/1=="}"#);
        let next = VENDOR.then(&need, std::slice::from_ref(&page)).expect("an empty page goes on");
        assert_eq!(next.query[..2], first.query);
        assert_eq!(next.query[2], ("pageToken", "t/1==".to_owned()));
        for last in ["{}", r#"{"nextPageToken":""}"#, r#"{"nextPageToken":null}"#, "<html>"] {
            assert_eq!(VENDOR.then(&need, &[page.clone(), Bytes::from(last)]), None, "{last}");
        }
    }

    #[test]
    fn a_429_stops_the_project_and_a_403_is_no_matter_of_tokens() {
        let headers: Vec<(String, Vec<u8>)> = Vec::new();
        assert_eq!(VENDOR.answer(429, &headers), Answer::Limited(None));
        assert_eq!(VENDOR.limits(&headers), Per::App);
        assert_eq!(VENDOR.answer(403, &headers), Answer::Forbidden);
        assert_eq!(VENDOR.answer(401, &headers), Answer::Unauthorised);
        assert_eq!(VENDOR.answer(400, &headers), Answer::Refused, "an account that is not linked");
    }
}
