//! What Withings' answers share: the wrapped body and its list, seconds since 1970 beside a named zone, `modified`.

use crate::error::Reject;
use crate::model::time::{Day, Micros};
use crate::vendors::wire::json::{At, Json};
use crate::vendors::wire::sheet::{Head, Sheet, Time, Zone};
use crate::vendors::wire::zone::offset_in;
use crate::vendors::withings::SECONDS_MAX;
use crate::vendors::{Raw, What};

const US_PER_S: Micros = 1_000_000;

/// The items of a body, by their positions.
pub(super) type Whats = Vec<(i32, What)>;

/// Calls `found` with each element of a list of this name, its position among all, and the body that it stands in. A
/// record may be several answers; one that has no such list is none.
pub(super) fn elements(
    root: &At<'_>,
    list: &'static str,
    found: &mut dyn FnMut(i32, &At<'_>, &At<'_>),
) -> Result<(), Reject> {
    let mut index = 0;
    let mut each = |answer: &At<'_>| -> Result<(), Reject> {
        let status = answer.object()?.need("status")?;
        if status.integer()? != 0 {
            return Err(status.invalid("a refusal, and no document"));
        }
        let body = answer.need("body")?;
        for element in body.object()?.need(list)?.items()? {
            found(index, &element, &body);
            index = index.saturating_add(1);
        }
        Ok(())
    };
    if let Json::List(_) = root.json() {
        for answer in root.items()? {
            each(&answer)?;
        }
        return Ok(());
    }
    each(root)
}

/// What an element is, or why it is bad.
pub(super) fn what(read: Result<What, Reject>) -> What {
    read.unwrap_or_else(What::Bad)
}

/// A record in the making, as an item.
pub(super) fn record(sheet: Sheet<'_>) -> What {
    What::Record(Box::new(sheet.finish()))
}

/// What all records of a body share, of this version.
pub(super) fn head(raw: &Raw<'_>, version: Option<Micros>) -> Head {
    let device_type = "withings".to_owned();
    Head { device_type, via: "direct", version, received_at: raw.received_at }
}

/// When an element was changed last.
pub(super) fn modified(at: &At<'_>) -> Result<Option<Micros>, Reject> {
    at.get("modified").map(|at| second(&at)).transpose()
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

/// A second where this zone is, if it is known.
pub(super) fn time(at: &At<'_>, zone: Option<&str>) -> Result<Time, Reject> {
    let at_us = second(at)?;
    let offset_s = zone.and_then(|zone| offset_in(zone, at_us));
    Ok(Time { at_us, offset_s, known: true })
}

/// The zone of an element, or of the body that it stands in.
pub(super) fn zone<'a>(at: &'a At<'a>, body: &'a At<'a>) -> Result<Option<String>, Reject> {
    let named = at.get("timezone").or_else(|| body.get("timezone"));
    named.map(|at| at.text().map(str::to_owned)).transpose()
}

/// The civil date of an element.
pub(super) fn date(at: &At<'_>) -> Result<Option<Day>, Reject> {
    let read = |at: At<'_>| Day::parse(at.text()?).ok_or_else(|| at.malformed("not a date"));
    at.get("date").map(read).transpose()
}

/// An id, which is a number that may have 64 bits.
pub(super) fn id(at: &At<'_>) -> Result<String, Reject> {
    let number = at.integer()?;
    if number > 0 { Ok(number.to_string()) } else { Err(at.malformed("not an id")) }
}

/// When an element begins and ends.
pub(super) fn times(at: &At<'_>, zone: Option<&str>) -> Result<(Time, Time), Reject> {
    let end_at = at.need("enddate")?;
    let (start, end) = (time(&at.need("startdate")?, zone)?, time(&end_at, zone)?);
    if end.at_us < start.at_us {
        return Err(end_at.invalid("an end before its start"));
    }
    Ok((start, end))
}

/// The whole of a civil day where this zone is; of no known zone it is a day all the same.
pub(super) fn of_day<'a>(
    head: &'a Head,
    record_type: &'static str,
    day: Day,
    zone: Option<&str>,
) -> Sheet<'a> {
    // The offset of a midnight is the one of the moment that it is.
    let midnight = |day: Day| {
        let utc = day.start_utc_us();
        let near = zone.and_then(|zone| offset_in(zone, utc))?;
        let offset_s = offset_in(zone?, utc - i64::from(near) * US_PER_S)?;
        let at_us = utc - i64::from(offset_s) * US_PER_S;
        Some(Time { at_us, offset_s: Some(offset_s), known: true })
    };
    let times = match midnight(day).zip(midnight(day.next())) {
        Some((start, end)) => (start, Some(end)),
        None => (Time::floating_midnight(day), None),
    };
    Sheet::of_day(head, record_type, day, Zone::unknown(), times)
}
