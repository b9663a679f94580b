//! What Garmin's summaries share: seconds since 1970 with an offset beside them, a civil date, and
//! maps of samples by their seconds since the start.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::{Day, Micros};
use crate::vendors::wire::json::{At, Json};
use crate::vendors::wire::sheet::{Head, Sheet, Time, Zone};

const US_PER_S: Micros = 1_000_000;
/// The last second that is believed: the end of the year 9998.
const SECONDS_MAX: i64 = 253_370_764_800;
/// The longest summary that is believed, s.
const DURATION_MAX: i64 = 40 * 86_400;
/// The farthest offset that is believed; +14 h exists.
const OFFSET_MAX: i64 = 18 * 3_600;
/// The most seconds that fit between two whole ones as µs.
const LATE_MAX: Micros = 999_999;

/// How the fields of one time are called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub(super) start: &'static str,
    pub(super) offset: &'static str,
    pub(super) duration: &'static str,
}

/// As most summaries call them.
pub(super) const USUAL: Names = Names {
    start: "startTimeInSeconds",
    offset: "startTimeOffsetInSeconds",
    duration: "durationInSeconds",
};

/// When a summary begins and ends. Garmin gives the offset at the start; at the end it is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: Time,
    pub(super) end: Option<Time>,
}

impl Span {
    /// Reads the times of a summary.
    pub(super) fn of(item: &At<'_>, names: Names) -> Result<Self, Reject> {
        let at_us = second(&item.need(names.start)?)?;
        let offset_s = item.get(names.offset).map(|at| offset(&at)).transpose()?;
        let start = Time { at_us, offset_s, known: true };
        let length = item.get(names.duration).map(|at| duration(&at)).transpose()?;
        let ends = |length| Time { at_us: at_us + length * US_PER_S, offset_s: None, known: true };
        Ok(Self { start, end: length.map(ends) })
    }

    /// The end of what is covered.
    pub(super) fn last_us(&self) -> Micros {
        self.end.unwrap_or(self.start).at_us
    }

    /// The person's date at the end, by the offset of the start.
    pub(super) fn date_of_end(&self) -> Option<Day> {
        Time { at_us: self.last_us(), ..self.start }.local_date()
    }
}

/// A second as µs.
pub(super) fn second(at: &At<'_>) -> Result<Micros, Reject> {
    let seconds = at.integer()?;
    if (0..=SECONDS_MAX).contains(&seconds) {
        Ok(seconds * US_PER_S)
    } else {
        Err(at.invalid("not a time"))
    }
}

fn offset(at: &At<'_>) -> Result<i32, Reject> {
    let seconds = at.integer()?;
    let fits = (-OFFSET_MAX..=OFFSET_MAX).contains(&seconds);
    let seconds = i32::try_from(seconds).ok().filter(|_| fits);
    seconds.ok_or_else(|| at.invalid("not an offset"))
}

/// A length in whole seconds.
pub(super) fn duration(at: &At<'_>) -> Result<i64, Reject> {
    let seconds = at.integer()?;
    if (0..=DURATION_MAX).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(at.invalid("not a length"))
    }
}

/// The civil date that Garmin gives a summary.
pub(super) fn calendar(item: &At<'_>, name: &'static str) -> Result<Option<Day>, Reject> {
    let read = |at: At<'_>| Day::parse(at.text()?).ok_or_else(|| at.malformed("not a date"));
    item.get(name).map(read).transpose()
}

/// What all records of one item share.
pub(super) fn head(received_at: Micros, version: Option<Micros>) -> Head {
    Head { device_type: "garmin".to_owned(), via: "direct", version, received_at }
}

/// The version of a summary that still grows: first by how far it reaches, then by when it came.
///
/// Garmin gives none. Its times are whole seconds, so the µs between two have room for the seconds
/// from the end to the receipt (up to eleven days, after which a day is pushed no more).
pub(super) fn grown(covered_us: Micros, received_at: Micros) -> Option<Micros> {
    let late_s = received_at.saturating_sub(covered_us).div_euclid(US_PER_S);
    covered_us.checked_add(late_s.clamp(0, LATE_MAX))
}

/// A record of a civil day, keyed by it: by the date that Garmin gives, else by the one at its start,
/// else, where the offset is not known either, by the start.
pub(super) fn of_day<'a>(
    head: &'a Head,
    record_type: &'static str,
    item: &At<'_>,
    span: Span,
) -> Result<Sheet<'a>, Reject> {
    let (given, zone, times) =
        (calendar(item, "calendarDate")?, Zone::unknown(), (span.start, span.end));
    let Some(day) = given.or_else(|| span.start.local_date()) else {
        return Ok(Sheet::new(head, record_type, by_start(span), zone, times));
    };
    let mut sheet = Sheet::of_day(head, record_type, day, zone, times);
    if given.is_none() {
        sheet.belongs(Some(day), "civil_midnight");
    }
    Ok(sheet)
}

/// A record of a night, keyed by its date: the one that Garmin gives, else the one at its end, else
/// by its start.
pub(super) fn of_night<'a>(
    head: &'a Head,
    record_type: &'static str,
    item: &At<'_>,
    span: Span,
) -> Result<Sheet<'a>, Reject> {
    let given = calendar(item, "calendarDate")?;
    let day = given.or_else(|| span.date_of_end());
    let key = day.map_or_else(|| by_start(span), |day| day.to_string());
    let mut sheet = Sheet::new(head, record_type, key, Zone::unknown(), (span.start, span.end));
    sheet.belongs(day, if given.is_some() { "vendor_day" } else { "sleep_end" });
    Ok(sheet)
}

/// A record of a measurement, keyed by its start and what else tells it from its neighbours.
pub(super) fn of_time<'a>(
    head: &'a Head,
    record_type: &'static str,
    item: &At<'_>,
    span: Span,
    beside: Option<&str>,
) -> Result<Sheet<'a>, Reject> {
    let given = calendar(item, "calendarDate")?;
    let mut key = by_start(span);
    if let Some(part) = beside {
        key = format!("{key}:{part}");
    }
    let mut sheet = Sheet::new(head, record_type, key, Zone::unknown(), (span.start, span.end));
    let day = given.or_else(|| span.start.local_date());
    sheet.belongs(day, if given.is_some() { "vendor_day" } else { "civil_midnight" });
    Ok(sheet)
}

fn by_start(span: Span) -> String {
    format!("start:{}", span.start.at_us / US_PER_S)
}

/// A map of samples by their seconds since the start, as text: `{"0": 60, "15": 61}`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples {
    pub(super) name: &'static str,
    pub(super) metric: &'static str,
    pub(super) context: Option<&'static str>,
    pub(super) window_s: Option<i32>,
    /// Whether a number is a value; others are Garmin's ways to say that there is none.
    pub(super) is_value: fn(f64) -> bool,
}

/// Any number.
pub(super) fn any(_: f64) -> bool {
    true
}

/// Zero or more: below it Garmin says why there is none.
pub(super) fn not_negative(value: f64) -> bool {
    value >= 0.0
}

/// More than zero: nobody breathes not at all.
pub(super) fn positive(value: f64) -> bool {
    value > 0.0
}

/// Reads a map of samples, in the order of their times, which is not the order of their texts.
pub(super) fn samples(sheet: &mut Sheet<'_>, item: &At<'_>, all: &Samples) -> Result<(), Reject> {
    let (Some(map), Some(metric)) = (item.get(all.name), metric::find(all.metric)) else {
        return Ok(());
    };
    let mut found = Vec::new();
    for (key, at) in map.members()? {
        let plain = (1..=8).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_digit());
        let seconds: Option<i64> = key.parse().ok().filter(|_| plain);
        let seconds = seconds.ok_or_else(|| at.malformed("a key that is no number of seconds"))?;
        if at.json() != &Json::Null {
            found.push((seconds, at.number()?));
        }
    }
    found.sort_by_key(|(seconds, _)| *seconds);
    for (seconds, value) in found.into_iter().filter(|(_, value)| (all.is_value)(*value)) {
        let at_us = sheet.start.at_us + seconds * US_PER_S;
        sheet.add_at(metric, value, (at_us, None), None, all.context);
        if let Some(last) = sheet.content.readings.last_mut() {
            last.window_s = all.window_s;
        }
    }
    Ok(())
}
