//! What is asked for: a type over whole days, as the id of a row.
//!
//! A row is a window as histories are made of ([`crate::vendors::history`]): `2026-03-28/2026-03-30` is two days, the
//! second date being the first that is not meant. `…/gone` behind it says that somebody deleted something in them, and
//! that a day of which there is nothing is to be told. Days are UTC's, or for types that Google filters by the person's
//! dates, those ([`Type::is_civil`]). Whoever asks, for a notification or for a history, asks in these rows: so ten
//! notifications of an afternoon are one fetch.

use std::collections::BTreeSet;
use std::fmt;

use jiff::civil::Date;

use super::types::Type;
use crate::error::Reject;
use crate::model::time::{Day, Micros, Moment};
use crate::vendors::history;
use crate::vendors::wire::json::At;

const HOUR_US: Micros = 3_600_000_000;
/// How far a local time may lie ahead of UTC, and behind it.
const EAST_US: Micros = 14 * HOUR_US;
const WEST_US: Micros = 12 * HOUR_US;
/// Up to so many days are asked for one by one: they are rows that other notifications ask for, too.
const NEAR_DAYS: i32 = 7;
/// The longest interval that is believed, days: Fitbit's accounts begin in 2007.
const DAYS_MAX: i32 = 40 * 366;
/// The most intervals of one notification.
const INTERVALS_MAX: usize = 1_000;
/// Ours: the most rows that one notification asks for.
const WINDOWS_MAX: usize = 5_000;
/// What marks a row that was asked for by a deletion.
const GONE: &str = "/gone";

/// Whole days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    /// The first.
    pub(super) from: Day,
    /// The first that is not meant.
    pub(super) until: Day,
    /// Whether a day without anything is to be told.
    pub(super) gone: bool,
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        history::Window { from: self.from, to: self.until }.fmt(out)?;
        out.write_str(if self.gone { GONE } else { "" })
    }
}

impl Window {
    /// The window of a row.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (days, gone) = match text.strip_suffix(GONE) {
            Some(days) => (days, true),
            None => (text, false),
        };
        let history::Window { from, to: until } = history::Window::parse(days)?;
        (until.0.saturating_sub(from.0) <= DAYS_MAX).then_some(Self { from, until, gone })
    }

    /// Whether a day is meant.
    pub(super) fn has(&self, day: Day) -> bool {
        (self.from..self.until).contains(&day)
    }

    /// Its days.
    pub(super) fn days(&self) -> impl Iterator<Item = Day> + use<> {
        (self.from.0..self.until.0).map(Day)
    }
}

/// The rows that a notification asks for.
pub(super) fn of_notification(
    data: &At<'_>,
    kind: &Type,
    gone: bool,
) -> Result<BTreeSet<Window>, Reject> {
    let mut windows = BTreeSet::new();
    match data.get("intervals") {
        Some(list) => {
            for (nth, interval) in list.items()?.enumerate() {
                if nth >= INTERVALS_MAX {
                    return Err(list.invalid("more than 1000 intervals"));
                }
                split(days(&interval, kind)?, kind, gone, &mut windows);
                if windows.len() > WINDOWS_MAX {
                    return Err(list.invalid("more than 5000 windows"));
                }
            }
        }
        // As older clients have it.
        None => split(days(data, kind)?, kind, gone, &mut windows),
    }
    if windows.is_empty() {
        return Err(data.malformed("no interval"));
    }
    Ok(windows)
}

/// Rows of these days: each its own where they are few, else by as many as one list has. Those begin at the same days
/// whoever asks, but for a deletion's, which must not speak of days that nobody named.
fn split((from, until): (Day, Day), kind: &Type, gone: bool, windows: &mut BTreeSet<Window>) {
    let near = until.0.saturating_sub(from.0) <= NEAR_DAYS;
    let step = if near { 1 } else { kind.days };
    let mut first = if gone { from.0 } else { from.0 - from.0.rem_euclid(step) };
    while first < until.0 {
        let next = first.saturating_add(step);
        let last = if gone { next.min(until.0) } else { next };
        windows.insert(Window { from: Day(first), until: Day(last), gone });
        first = next;
    }
}

/// The days of an interval, whichever of its three forms is there: the one that the type is asked for by, if it is.
fn days(interval: &At<'_>, kind: &Type) -> Result<(Day, Day), Reject> {
    let interval = interval.object()?;
    let physical = interval.get("physicalTimeInterval").map(|at| physical(&at)).transpose()?;
    let written = interval.get("civilIso8601TimeInterval").map(|at| written(&at)).transpose()?;
    let parts = interval.get("civilDateTimeInterval").map(|at| parts(&at)).transpose()?;
    let civil = written.or(parts);
    let (start, end) = match (physical, civil, kind.is_civil()) {
        (Some(exact), _, false) | (_, Some(exact), true) => exact,
        // The person's clock is not known: whatever it showed is within.
        (Some((start, end)), None, true) => (start - WEST_US, end + EAST_US),
        (None, Some((start, end)), false) => (start - EAST_US, end + WEST_US),
        (None, None, _) => return Err(interval.malformed("an interval of no form that is known")),
    };
    if end < start {
        return Err(interval.invalid("an end before its start"));
    }
    let (from, last) = (Day::of_utc(start), Day::of_utc(end));
    if last.0 - from.0 >= DAYS_MAX {
        return Err(interval.invalid("an interval of more than 40 years"));
    }
    Ok((from, last.next()))
}

fn physical(at: &At<'_>) -> Result<(Micros, Micros), Reject> {
    Ok((instant(&at.object()?.need("startTime")?)?, instant(&at.need("endTime")?)?))
}

fn instant(at: &At<'_>) -> Result<Micros, Reject> {
    let moment = Moment::parse(at.text()?).map_err(|_| at.malformed("not a date and time"))?;
    Ok(moment.at_us)
}

/// `2026-03-28T23:14:30`, twice; as if it were UTC.
fn written(at: &At<'_>) -> Result<(Micros, Micros), Reject> {
    let read = |at: &At<'_>| {
        let text = format!("{}Z", at.text()?.trim_end_matches('Z'));
        Moment::parse(&text).map_err(|_| at.malformed("not a date and time")).map(|at| at.at_us)
    };
    Ok((read(&at.object()?.need("startTime")?)?, read(&at.need("endTime")?)?))
}

/// `{"date": {…}, "time": {"hours": 23, …}}`, twice; as if it were UTC.
fn parts(at: &At<'_>) -> Result<(Micros, Micros), Reject> {
    let read = |at: &At<'_>| {
        let day = date(&at.object()?.need("date")?)?;
        let hours = match at.get("time") {
            Some(time) => time.object()?.get("hours").map(|at| at.integer()).transpose()?,
            None => None,
        };
        // Of a row only the day counts, and of the day's end only whether it is the next one's beginning.
        let hours = hours.unwrap_or(0).clamp(0, 24);
        Ok(day.start_utc_us() + hours * HOUR_US)
    };
    Ok((read(&at.object()?.need("startDateTime")?)?, read(&at.need("endDateTime")?)?))
}

/// A civil date as Google writes it, `{"year": 2026, "month": 3, "day": 29}`.
pub(super) fn date(at: &At<'_>) -> Result<Day, Reject> {
    let part = |name: &'static str| at.object()?.need(name)?.integer();
    let (year, month, day) = (part("year")?, part("month")?, part("day")?);
    let found = i16::try_from(year).ok().zip(i8::try_from(month).ok()).zip(i8::try_from(day).ok());
    let date = found.and_then(|((year, month), day)| Date::new(year, month, day).ok());
    // The first and the last years have neighbours that are no dates.
    let date = date.filter(|date| (1..9_999).contains(&date.year()));
    date.map(Day::of).ok_or_else(|| at.malformed("not a date"))
}
