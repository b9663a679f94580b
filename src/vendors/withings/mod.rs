//! Withings' public health data API: thin notifications by form, signed by nothing; what they name is fetched by the
//! window of time.
//!
//! # Decisions
//! - Whoever knows the path is believed: the door takes `/webhooks/withings/<secret>` alone, and a request must be a form,
//!   as Withings' always is. The scheme on the raw record says so (`withings-path`), so that nobody takes it for a signature.
//! - Before a subscription Withings asks the callback by HEAD, and a browser may by GET: answered, and nothing is written.
//! - A notification names a window and a kind, never a record. So what is fetched is a window, and its records are keyed
//!   by Withings' own ids: `grpid` of a measurement, `id` of a night or a workout, the date of a day. Whatever kind was
//!   notified, a window of measurements is asked for with all the types that are mapped, or one `grpid` would say
//!   less one time than the other.
//! - A night is two records: its summary, and what was measured through it (stages, heart rates, HRV). A window's
//!   neighbours come along in summaries, and asking for all of their samples, too, is worth no call; so the samples are of
//!   the nights that the window touches, each asked for by its own times, and of no others.
//! - `modified` is the version: what is scored again is a revision, what comes late and is older is superseded. Samples of
//!   a night have none, and take their night's.
//! - `attrib` 1 says that nobody knows whose it is: flagged, until it is confirmed, which is another `modified`.
//! - A value is `value · 10^unit`, made as a decimal: 36545 and -3 are 36.545 and not a neighbour of it.
//! - Zones are named, and the offset is the zone's at that moment: start and end of a night may have two.
//! - -1 in an index of breathing is "not computable", and no value.
//! - What was deleted is told by nothing: a window that has it no more says the same as one that never had it.
//! - `delete` and `unlink` both end the connection; which of the two it was is a verdict of its own, because what is kept
//!   of somebody who deleted the account is for an operator to decide.
//! - Not taken, for want of a metric: fat, muscle, water and bone masses, vascular age, segments, skin conductance, an
//!   ECG's intervals; hr_max of a night, times out of bed, phases of REM; goals (`category` 2). What a person wrote is never
//!   taken. Glucose (58) has no documented call.

use crate::error::{Kind, Path, Reject};
use crate::model::connection::Change;
use crate::model::contract::header;
use crate::model::time::{Day, Micros};
use crate::vendors::ask::{Api, Need};
use crate::vendors::consent::Consent;
use crate::vendors::history;
use crate::vendors::wire::form::Form;
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, Verified, What};

mod api;
mod consent;
mod day;
mod measure;
mod night;
mod sheet;
#[cfg(test)]
mod tests;

/// The vendor, as [`crate::vendors::ALL`] lists it.
pub(super) static VENDOR: Withings = Withings;

/// Withings.
#[derive(Debug)]
pub(super) struct Withings;

/// The longest id of a user; they are numbers.
const ID_CHARACTERS_MAX: usize = 20;
/// The last second that is believed: the end of the year 9998.
const SECONDS_MAX: i64 = 253_370_764_800;

impl Vendor for Withings {
    fn name(&self) -> &'static str {
        "withings"
    }

    fn secret_path(&self) -> bool {
        true
    }

    /// Nothing is signed, so nothing has a time that could be too old.
    fn window_us(&self) -> Micros {
        Micros::MAX
    }

    fn verify(
        &self,
        request: &Request<'_>,
        _secrets: &Secrets<'_>,
        _now_us: Micros,
    ) -> Result<Verified, Kind> {
        let essence = request.one("content-type")?.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Kind::SignatureInvalid);
        }
        Ok(Verified { scheme: "withings-path", vendor_user: None })
    }

    fn handshake(
        &self,
        _query: &[(String, String)],
        _secrets: &Secrets<'_>,
    ) -> Option<Result<String, Kind>> {
        Some(Ok(String::new()))
    }

    fn key_user(&self, _verified: &Verified, body: &[u8]) -> KeyUser {
        let user = Form::parse(body).and_then(|form| user(&form));
        user.map_or(KeyUser::None, |user| user.map_or(KeyUser::None, KeyUser::One))
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let form = Form::parse(raw.body)?;
        let vendor_user = user(&form)?;
        let whats = match &vendor_user {
            Some(user) => asked(&form, user).unwrap_or_else(|bad| vec![What::Bad(bad)]),
            None => vec![What::Ignored("no user")],
        };
        let item = |what| Item { index: 0, vendor_user: vendor_user.clone(), what };
        Ok(whats.into_iter().map(item).collect())
    }

    fn api(&self) -> Option<&'static dyn Api> {
        Some(&VENDOR)
    }

    fn consent(&self) -> Option<&'static dyn Consent> {
        Some(&VENDOR)
    }

    fn document(&self, raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
        let whats = match history::of(record_type).unwrap_or(record_type) {
            "measurement" | "rhythm" => measure::groups(raw)?,
            "sleep" => night::nights(raw)?,
            "daily" => day::days(raw)?,
            "workout" => day::workouts(raw)?,
            "ecg" => measure::ecgs(raw)?,
            _ => return Err(Reject::invalid(Path::root(), "no type of record of this vendor")),
        };
        let vendor_user = raw.headers.text(header::VENDOR_USER).map(str::to_owned);
        let item = |(index, what)| Item { index, vendor_user: vendor_user.clone(), what };
        let mut items: Vec<Item> = whats.into_iter().map(item).collect();
        items.sort_by_key(|item| item.index);
        Ok(items)
    }
}

/// Whose a notification is; nobody's where it names none, as those of a device without an account.
fn user(form: &Form<'_>) -> Result<Option<String>, Reject> {
    let Some(text) = form.get("userid") else { return Ok(None) };
    let plain = text.len() <= ID_CHARACTERS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    let user = plain.then(|| text.to_owned());
    user.map(Some).ok_or_else(|| Reject::malformed(Form::place("userid"), "not an id"))
}

/// What a notification asks for.
fn asked(form: &Form<'_>, user: &str) -> Result<Vec<What>, Reject> {
    let fetch = |record_type, window: &Window| What::Fetch { record_type, record_id: window.id() };
    let of_window = |types: &[&'static str]| -> Result<Vec<What>, Reject> {
        let window = Window::of(form)?;
        Ok(types.iter().map(|record_type| fetch(*record_type, &window)).collect())
    };
    Ok(match form.number("appli")? {
        1 | 2 | 4 => of_window(&["measurement"])?,
        16 => of_window(&["daily", "workout"])?,
        44 => of_window(&["sleep"])?,
        46 => account(form.need("action")?, user),
        50 => vec![What::Ignored("into bed: the night itself is notified")],
        51 => vec![What::Ignored("out of bed: the night itself is notified")],
        52 => vec![What::Ignored("a device: inflated")],
        53 => vec![What::Ignored("a device without an account")],
        // A recording tells of its rhythm among the measurements, too.
        54 => of_window(&["ecg", "rhythm"])?,
        55 => vec![What::Ignored("an ECG that failed")],
        58 => vec![What::Ignored("a type that its API does not have")],
        _ => vec![What::Ignored("unknown type")],
    })
}

/// What became of an account.
fn account(action: &str, user: &str) -> Vec<What> {
    let end = || What::Connection(Change::End { vendor_user: user.to_owned() });
    match action {
        "delete" => vec![end(), What::Ignored("the person deleted the account at the vendor")],
        "unlink" => vec![end(), What::Ignored("the person withdrew the consent at the vendor")],
        "update" => vec![What::Ignored("a profile changed")],
        _ => vec![What::Ignored("unknown type")],
    }
}

/// What a notification names: an interval, or a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    /// Seconds since 1970, both ends included.
    Span(i64, i64),
    /// A civil day.
    Day(Day),
    /// Some days of the past; the second is the one after the last.
    Days(history::Window),
}

impl Window {
    fn of(form: &Form<'_>) -> Result<Self, Reject> {
        if let Some(date) = form.get("date").filter(|_| form.get("startdate").is_none()) {
            let day = Day::parse(date).map(Self::Day);
            return day.ok_or_else(|| Reject::malformed(Form::place("date"), "not a date"));
        }
        let (from, to) = (form.number("startdate")?, form.number("enddate")?);
        Self::span(from, to)
            .ok_or_else(|| Reject::invalid(Form::place("enddate"), "an end before its start"))
    }

    fn span(from: i64, to: i64) -> Option<Self> {
        (0 <= from && from <= to && to <= SECONDS_MAX).then_some(Self::Span(from, to))
    }

    /// As the id of what is to be fetched.
    fn id(&self) -> String {
        match self {
            Self::Span(from, to) => format!("{from}-{to}"),
            Self::Day(day) => day.to_string(),
            Self::Days(days) => days.to_string(),
        }
    }

    /// What is needed, by its type and window: of records that were notified, or of the past.
    fn needed<'a>(need: &Need<'a>) -> Option<(&'a str, Self)> {
        match history::of(need.record_type) {
            Some(kind) => Some((kind, Self::Days(history::Window::parse(need.record_id)?))),
            None => Some((need.record_type, Self::parse(need.record_id)?)),
        }
    }

    /// The window of such an id.
    fn parse(id: &str) -> Option<Self> {
        if let Some(day) = Day::parse(id) {
            return Some(Self::Day(day));
        }
        let (from, to) = id.split_once('-')?;
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| text.parse().ok().filter(|_| plain(text));
        Self::span(number(from)?, number(to)?)
    }

    /// In seconds; a day of nobody knows which zone is as long as it may be anywhere.
    fn seconds(self) -> (i64, i64) {
        match self {
            Self::Span(from, to) => (from, to),
            Self::Day(day) => {
                let start = day.start_utc_us() / 1_000_000;
                (start - EAST_S, start + DAY_S + WEST_S)
            }
            Self::Days(days) => {
                let second = |day: Day| day.start_utc_us() / 1_000_000;
                (second(days.from), second(days.to) - 1)
            }
        }
    }

    /// In days that a zone may have it in, and those on which what begins in it may end.
    fn days(self) -> (Day, Day) {
        match self {
            Self::Day(day) => (day, day),
            Self::Days(days) => (days.from, Day(days.to.0.saturating_sub(1))),
            Self::Span(from, to) => {
                let day = |seconds: i64| Day::of_utc(seconds.saturating_mul(1_000_000));
                (day(from.saturating_sub(WEST_S)), day(to.saturating_add(EAST_S)))
            }
        }
    }
}

const DAY_S: i64 = 86_400;
/// The offsets that there are, s: how far east, and how far west.
const EAST_S: i64 = 14 * 3_600;
const WEST_S: i64 = 12 * 3_600;
