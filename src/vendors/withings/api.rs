//! Withings' API: a POST of a form for everything, answered with 200 whatever happened. Numbers are of `vendors.md` §7.2
//! and §7.3 unless a line says that they are ours.

use bytes::Bytes;

use crate::model::time::Micros;
use crate::vendors::ask::{Answer, Api, Call, Manner, Need, Per, Quota, Renewal, Wrapped};
use crate::vendors::history::{self, Collection, collection};
use crate::vendors::wire::glance;
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::withings::sheet::second;
use crate::vendors::withings::{Window, Withings, day, measure, night};

/// For the whole app, however many people it has.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::App, window_s: 60, calls: 120 },
    Quota { per: Per::History, window_s: 60, calls: 40 },
];
/// How far back is not documented. Of a week's nights each is a call more; the other windows are ours.
const HISTORY: &[Collection] = &[
    collection("window.sleep", 7),
    collection("window.measurement", 90),
    collection("window.daily", 30),
    collection("window.workout", 90),
];
/// Ours: what is notified is there, or in a moment.
const AGAIN_S: [u32; 3] = [60, 600, 3_600];

/// Where codes and refresh tokens are exchanged.
pub(super) const TOKEN: &str = "https://wbsapi.withings.net/v2/oauth2";

const WELL: i64 = 0;
/// A token that is not taken.
const UNAUTHORISED: [i64; 5] = [100, 101, 102, 200, 401];
/// Too many calls.
const LIMITED: i64 = 601;
/// Withings' own trouble: an error that it has no name for, a time-out, a bad state.
const TROUBLE: [i64; 3] = [522, 524, 2555];

/// Codes and refresh tokens that are not taken are "invalid parameters".
const WRAPPED: Wrapped =
    Wrapped { status: "status", good: WELL, body: "body", refused: &[503], limited: &[LIMITED] };

impl Api for Withings {
    fn base(&self) -> &'static str {
        "https://wbsapi.withings.net"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        let (kind, window) = Window::needed(need)?;
        Some(match kind {
            "measurement" | "rhythm" => {
                let besides = vec![("meastypes", measure::types()), ("category", "1".to_owned())];
                post("/measure", "getmeas", seconds(window), besides)
            }
            "sleep" => post(
                "/v2/sleep",
                "getsummary",
                days(window),
                vec![("data_fields", night::fields())],
            ),
            "daily" => {
                let fields = vec![("data_fields", day::of_days())];
                post("/v2/measure", "getactivity", days(window), fields)
            }
            "workout" => {
                let fields = vec![("data_fields", day::of_workouts())];
                post("/v2/measure", "getworkouts", days(window), fields)
            }
            "ecg" => post("/v2/heart", "list", seconds(window), Vec::new()),
            _ => return None,
        })
    }

    /// The next page; and after the last of a sleep's, the samples of each night that the window touches.
    fn then(&self, need: &Need<'_>, answers: &[Bytes]) -> Option<Call> {
        let pages = answers.iter().map(|answer| next_offset(answer));
        let whole = pages.clone().position(|offset| offset.is_none());
        let Some(last) = whole else {
            let offset = pages.last()??;
            let mut call = self.ask(need)?;
            call.form.as_mut()?.push(("offset", offset.to_string()));
            return Some(call);
        };
        let ("sleep", window) = Window::needed(need)? else { return None };
        let nights: Vec<(Micros, Micros)> =
            answers.iter().take(last + 1).flat_map(|page| touched(page, window)).collect();
        let asked = answers.len().checked_sub(last + 1)?;
        let (start, end) = *nights.get(asked)?;
        let times = [("startdate", start), ("enddate", end)];
        let times = times.map(|(name, at_us)| (name, (at_us / 1_000_000).to_string())).to_vec();
        Some(post("/v2/sleep", "get", times, vec![("data_fields", night::samples())]))
    }

    fn judge(&self, _need: &Need<'_>, body: &[u8]) -> Answer {
        match status(body) {
            // What has no status is none of Withings' answers: the reader says so, and where.
            None | Some(WELL) => Answer::Document,
            Some(LIMITED) => Answer::Limited(None),
            Some(status) if UNAUTHORISED.contains(&status) => Answer::Unauthorised,
            Some(status) if TROUBLE.contains(&status) => Answer::Unavailable,
            Some(_) => Answer::Refused,
        }
    }

    /// A window that was notified and has nothing yet is answered as an empty one is, and a night's samples may come
    /// after its summary. Of a day's workouts and of a recording's rhythm nobody said that there are any.
    fn together(&self, need: &Need<'_>, answers: &[Bytes]) -> Answer {
        // Of the past nobody said that there is something.
        if history::of(need.record_type).is_some() {
            return Answer::Document;
        }
        let list = match need.record_type {
            "measurement" | "rhythm" => "measuregrps",
            "daily" => "activities",
            _ => "series",
        };
        let window = Window::parse(need.record_id).filter(|_| need.record_type == "sleep");
        let has = |answer: &Bytes| match window {
            Some(window) => !touched(answer, window).is_empty(),
            None => length(answer, list) > 0,
        };
        let lacks_samples = || answers.iter().any(|answer| length(answer, list) == 0);
        match need.record_type {
            "sleep" if answers.iter().any(has) && lacks_samples() => Answer::Partly,
            _ if answers.iter().any(has) => Answer::Document,
            "workout" | "rhythm" => Answer::Nothing,
            _ => Answer::NotYet,
        }
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        let before = usize::try_from(attempt.checked_sub(1)?).ok()?;
        AGAIN_S.get(before).copied()
    }

    /// The old refresh token is good for eight hours more, unless the new pair was used: a crash before the new one is
    /// stored loses nothing.
    fn renewal(&self) -> Option<Renewal> {
        Some(Renewal { url: TOKEN, scope: None })
    }

    fn manner(&self) -> Manner {
        Manner { also: &[("action", "requesttoken")], wrapped: Some(WRAPPED) }
    }

    fn quotas(&self) -> &'static [Quota] {
        QUOTAS
    }

    fn history(&self) -> &'static [Collection] {
        HISTORY
    }
}

type Fields = Vec<(&'static str, String)>;

fn post(path: &str, action: &str, window: Fields, besides: Fields) -> Call {
    let mut form = vec![("action", action.to_owned())];
    form.extend(window);
    form.extend(besides);
    Call::post(path, form)
}

fn seconds(window: Window) -> Fields {
    let (from, to) = window.seconds();
    vec![("startdate", from.to_string()), ("enddate", to.to_string())]
}

fn days(window: Window) -> Fields {
    let (from, to) = window.days();
    vec![("startdateymd", from.to_string()), ("enddateymd", to.to_string())]
}

/// The status that stands in a body.
fn status(body: &[u8]) -> Option<i64> {
    let json = glance::members(body, &["status"])?;
    json.root().get("status")?.integer().ok()
}

/// How many elements a body's list has; as many as are none where it is none, so that the reader says so.
fn length(answer: &[u8], list: &'static str) -> usize {
    let Ok(json) = json::parse(answer) else { return 1 };
    let root = json.root();
    let body = root.get("body");
    match body.as_ref().and_then(|body| body.get(list)).map(|at| at.json()) {
        Some(Json::List(list)) => list.len(),
        _ => 1,
    }
}

/// Where the next page begins, where there is one.
fn next_offset(answer: &[u8]) -> Option<i64> {
    let json = json::parse(answer).ok()?;
    let root = json.root();
    let body = root.get("body")?;
    let more = match body.get("more")?.json() {
        Json::Bool(more) => *more,
        Json::Integer(more) => *more != 0,
        _ => false,
    };
    body.get("offset")?.integer().ok().filter(|_| more)
}

/// The nights of a page that this window touches.
fn touched(page: &[u8], window: Window) -> Vec<(Micros, Micros)> {
    let (from, to) = window.seconds();
    let (from, to) = (from.saturating_mul(1_000_000), to.saturating_mul(1_000_000));
    let times = |at: &At<'_>| {
        let (start, end) = (at.get("startdate")?, at.get("enddate")?);
        Some((second(&start).ok()?, second(&end).ok()?))
    };
    let Ok(json) = json::parse(page) else { return Vec::new() };
    let root = json.root();
    let Some(body) = root.get("body") else { return Vec::new() };
    let Some(series) = body.get("series") else { return Vec::new() };
    let Ok(items) = series.items() else { return Vec::new() };
    let nights = items.filter_map(|at| times(&at));
    nights.filter(|(start, end)| *start <= to && from <= *end && start < end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::withings::VENDOR;

    const ID: &str = "1774735200-1774764120";

    fn need<'a>(record_type: &'a str, record_id: &'a str) -> Need<'a> {
        Need { record_type, record_id, vendor_user: "363" }
    }

    fn form(call: &Call) -> String {
        let form = call.form.as_deref().unwrap_or_default();
        form.iter().map(|(name, value)| format!("{name}={value}&")).collect()
    }

    #[test]
    fn every_kind_is_a_form_of_its_window() {
        let call = |record_type, record_id| VENDOR.ask(&need(record_type, record_id));
        let first = "startdate=1774735200&enddate=1774764120&";
        for (record_type, record_id, path, begins) in [
            (
                "measurement",
                ID,
                "/measure",
                format!("action=getmeas&{first}meastypes=1,4,5,6,9,10,"),
            ),
            (
                "sleep",
                ID,
                "/v2/sleep",
                "action=getsummary&startdateymd=2026-03-28&enddateymd=2026-03-29&data_fields="
                    .into(),
            ),
            (
                "daily",
                "2026-03-28",
                "/v2/measure",
                "action=getactivity&startdateymd=2026-03-28&enddateymd=2026-03-28&data_fields="
                    .into(),
            ),
            (
                "workout",
                "2026-03-28",
                "/v2/measure",
                "action=getworkouts&startdateymd=2026-03-28&enddateymd=2026-03-28&".into(),
            ),
            ("ecg", ID, "/v2/heart", format!("action=list&{first}")),
        ] {
            let call = call(record_type, record_id).expect("a call");
            assert_eq!((call.path.as_str(), call.query.len()), (path, 0), "no query");
            assert!(form(&call).starts_with(&begins), "{record_type}: {}", form(&call));
        }
        let fields = form(&call("sleep", ID).expect("a call"));
        for name in ["sleep_score", "rmssd_start_avg", "asleepduration", "total_sleep_time"] {
            assert!(fields.contains(name), "trap 7: what is not named is not in the answer");
        }
        for (record_type, record_id) in [
            ("sleep", ""),
            ("sleep", "1-x"),
            ("sleep", "+1-2"),
            ("sleep", "2-1"),
            ("sleep", "1-99999999999999999999"),
            ("measurement", "../1"),
            ("glucose", ID),
        ] {
            assert_eq!(call(record_type, record_id), None, "{record_type} {record_id}");
        }
    }

    /// Trap 3.
    #[test]
    fn a_status_stands_in_the_body() {
        let judge = |body: &str| VENDOR.judge(&need("sleep", ID), body.as_bytes());
        for (body, answer) in [
            (r#"{"status":0,"body":{}}"#, Answer::Document),
            (r#"{"body":{},"status":401,"error":"XRequestID: canary"}"#, Answer::Unauthorised),
            (r#"{"status":100}"#, Answer::Unauthorised),
            (r#"{"status":601,"body":{}}"#, Answer::Limited(None)),
            (r#"{"status":2555}"#, Answer::Unavailable),
            (r#"{"status":503,"error":"Invalid Params"}"#, Answer::Refused),
            ("[]", Answer::Document),
            (r#"{"status":"0"}"#, Answer::Document),
        ] {
            assert_eq!(judge(body), answer, "{body}");
        }
    }

    #[test]
    fn a_window_that_has_nothing_yet_is_asked_for_again() {
        let together = |record_type, body: &str| {
            VENDOR.together(&need(record_type, ID), &[Bytes::copy_from_slice(body.as_bytes())])
        };
        let of = |body: &str| format!(r#"{{"status":0,"body":{body}}}"#);
        let (none, one) = (of(r#"{"measuregrps":[]}"#), of(r#"{"measuregrps":[{}]}"#));
        assert_eq!(together("measurement", &none), Answer::NotYet);
        assert_eq!(together("measurement", &one), Answer::Document);
        assert_eq!(together("rhythm", &none), Answer::Nothing);
        assert_eq!(together("daily", &of(r#"{"activities":[]}"#)), Answer::NotYet);
        assert_eq!(together("workout", &of(r#"{"series":[]}"#)), Answer::Nothing);
        assert_eq!(together("workout", &of(r#"{"series":[{}]}"#)), Answer::Document);
        let night = |start: i64, end: i64| {
            of(&format!(r#"{{"series":[{{"startdate":{start},"enddate":{end}}}],"more":false}}"#))
        };
        assert_eq!(together("sleep", &night(1_774_735_260, 1_774_764_060)), Answer::Document);
        let with = |samples: &str| {
            let answers = [night(1_774_735_260, 1_774_764_060), of(samples)].map(Bytes::from);
            VENDOR.together(&need("sleep", ID), &answers)
        };
        assert_eq!(with(r#"{"series":[{}],"model":32}"#), Answer::Document);
        assert_eq!(with(r#"{"series":[],"model":32}"#), Answer::Partly, "its samples come later");
        let neighbour = night(1_774_648_800, 1_774_677_600);
        assert_eq!(together("sleep", &neighbour), Answer::NotYet, "only its neighbour is there");
        for bad in ["<html>", r#"{"status":0}"#, r#"{"status":0,"body":{"measuregrps":7}}"#] {
            assert_eq!(together("measurement", bad), Answer::Document, "the reader says why");
        }
    }

    #[test]
    fn pages_are_asked_for_and_come_to_an_end() {
        let page = |more: &str| Bytes::from(format!(r#"{{"status":0,"body":{{{more}}}}}"#));
        let need = need("measurement", ID);
        for (more, offset) in [
            (r#""more":1,"offset":300"#, Some("300")),
            (r#""more":true,"offset":300"#, Some("300")),
            (r#""more":0,"offset":0"#, None),
            (r#""more":false,"offset":300"#, None),
            (r#""offset":300"#, None),
            (r#""more":true"#, None),
        ] {
            let next = VENDOR.then(&need, &[page(more)]);
            let last = next.and_then(|call| call.form?.pop());
            assert_eq!(last, offset.map(|offset| ("offset", offset.to_owned())), "{more}");
        }
        let past =
            Need { record_type: "window.measurement", record_id: "2026-03-01/2026-05-30", ..need };
        let first = VENDOR.ask(&past).expect("a call");
        assert!(
            form(&first).contains("startdate=1772323200&enddate=1780099199&"),
            "{}",
            form(&first)
        );
        assert!(VENDOR.then(&past, &[page(r#""more":1,"offset":300"#)]).is_some());
        assert_eq!(VENDOR.together(&past, &[page(r#""measuregrps":[]"#)]), Answer::Document);
    }

    /// The neighbours' samples are not asked for, those of the night itself by its own times.
    #[test]
    fn the_samples_of_the_nights_that_are_touched_are_asked_for() {
        let summary = Bytes::from(
            r#"{"status":0,"body":{"series":[
                {"id":1,"startdate":1774648800,"enddate":1774677600},
                {"id":2,"startdate":1774735260,"enddate":1774764060},
                {"id":3,"startdate":1774764100,"enddate":1774767000},
                {"id":4,"startdate":"x"}],"more":false}}"#,
        );
        let need = need("sleep", ID);
        let mut answers = vec![summary];
        let first = VENDOR.then(&need, &answers).expect("the night's");
        let begins = "action=get&startdate=1774735260&enddate=1774764060&data_fields=hr,rr,rmssd,";
        assert!(form(&first).starts_with(begins), "{}", form(&first));
        answers.push(Bytes::from(r#"{"status":0,"body":{"series":[]}}"#));
        let second = VENDOR.then(&need, &answers).expect("the nap's");
        assert!(form(&second).contains("startdate=1774764100&enddate=1774767000&"));
        answers.push(Bytes::from(r#"{"status":0,"body":{"series":[]}}"#));
        assert_eq!(VENDOR.then(&need, &answers), None);
    }
}
