//! A sample of shape A: a reading with its source, or the reason why it is none.

use uuid::Uuid;

use crate::error::{Path, Reject};
use crate::model::event::{Reading, flag};
use crate::model::id;
use crate::model::metric::Metric;
use crate::model::time::{Micros, NotAMoment, parse_offset};
use crate::vendors::healthkit::date;
use crate::vendors::healthkit::element::{Element, invalid, malformed, text};
use crate::vendors::healthkit::source::{Metadata, Sources, Unread};
use crate::vendors::healthkit::table::{self, Means, Type};
use crate::vendors::wire::unit::{self, Conversion};
use crate::vendors::wire::walk::Scalar;
use crate::vendors::wire::zone;

/// How far past its receipt a sample may be dated before its clock is not believed (`domain.md` §2.3).
pub(super) const SKEW_US: Micros = 15 * 60 * 1_000_000;

/// A type with its metric.
pub(super) type Found = (&'static Type, &'static Metric);

/// A sample: a reading without its id as text, and what its bucket is told about it.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) id: Uuid,
    /// Whether the id is ours, because the client gave none.
    pub(super) derived: bool,
    pub(super) reading: Reading,
    /// A place in [`Sources`].
    pub(super) source: usize,
    pub(super) offsets: Offsets,
    pub(super) recording_method: &'static str,
}

/// Where the person was, as UTC offsets at start and end, seconds; absent is not known, and never UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) start_s: Option<i32>,
    pub(super) end_s: Option<i32>,
    /// Whether they are the phone's when it wrote, not the sample's own.
    pub(super) inferred: bool,
}

impl Offsets {
    /// Where the offsets come from, in the words of the content.
    pub(super) const fn provenance(self) -> &'static str {
        match (self.start_s, self.inferred) {
            (None, _) => "unknown",
            (Some(_), false) => "device",
            (Some(_), true) => "inferred",
        }
    }
}

/// What all samples of a push have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstance<'a> {
    /// The connection, for the ids of samples that have none.
    pub(super) connection: &'a str,
    /// When the door had the push, µs.
    pub(super) received_at: Micros,
}

/// What was looked up last: a push is written type by type, so that the next sample mostly asks the same.
#[derive(Debug, Default)]
pub(super) struct Recent<'de> {
    kind: Option<(&'de str, Option<Found>)>,
    unit: Option<(&'static str, &'de str, Option<Conversion>)>,
    zone: Option<(&'de str, Option<i32>)>,
}

impl<'de> Recent<'de> {
    /// The type that an element names; nothing where we do not know it.
    pub(super) fn kind(&mut self, element: &Element<'de>) -> Result<Option<Found>, Reject> {
        let name = text(&element.kind, "type")?;
        if let Some((last, found)) = self.kind
            && last == name
        {
            return Ok(found);
        }
        let found = table::find(name);
        self.kind = element.kind.borrowed().map(|name| (name, found));
        Ok(found)
    }

    fn conversion(&mut self, found: Found, unit: &Scalar<'de>) -> Result<Conversion, Reject> {
        // Absent and `null` alike: HealthKit's values have no unit of their own, so this one has none at all.
        if !unit.is_there() {
            return Err(invalid("unit", "a value without its unit"));
        }
        let spelling = text(unit, "unit")?;
        let known = match self.unit {
            Some((metric, last, known)) if metric == found.1.name && last == spelling => known,
            _ => {
                let known = conversion(found, spelling);
                self.unit = unit.borrowed().map(|spelling| (found.1.name, spelling, known));
                known
            }
        };
        known.ok_or_else(|| invalid("unit", "an unknown unit"))
    }

    /// An offset alone. `Z` says nothing about a person, so it is not known, as when it is absent.
    fn offset(&mut self, given: &Scalar<'de>, name: &'static str) -> Result<Option<i32>, Reject> {
        if !given.is_there() {
            return Ok(None);
        }
        let spelled = text(given, name)?;
        if let Some((last, offset)) = self.zone
            && last == spelled
        {
            return Ok(offset);
        }
        let offset = if spelled.eq_ignore_ascii_case("z") {
            None
        } else {
            let parsed = parse_offset(spelled);
            Some(parsed.ok_or_else(|| invalid(name, "not an offset from UTC"))?)
        };
        self.zone = given.borrowed().map(|spelled| (spelled, offset));
        Ok(offset)
    }

    /// Where the person was: the sample's own offset, else its zone's, else the phone's when it wrote.
    pub(super) fn offsets(
        &mut self,
        element: &Element<'de>,
        metadata: &Metadata,
        (start_us, end_us): (Micros, Micros),
    ) -> Result<Offsets, Reject> {
        let own = self.offset(&element.zone, "zoneOffset")?;
        if own.is_some() {
            return Ok(Offsets { start_s: own, end_s: own, inferred: false });
        }
        let zone = metadata.zone.as_deref();
        if let Some((start, end)) = zone.and_then(|zone| zone::offsets_in(zone, start_us, end_us)) {
            return Ok(Offsets { start_s: Some(start), end_s: Some(end), inferred: false });
        }
        let phones = self.offset(&element.inferred, "inferredOffset")?;
        Ok(Offsets { start_s: phones, end_s: phones, inferred: phones.is_some() })
    }
}

/// How a value of this type in this spelling becomes ours: what `%` is depends on the shape, and here it is Apple's.
fn conversion((kind, metric): Found, spelling: &str) -> Option<Conversion> {
    match kind.means {
        Means::Fraction => (spelling == "%").then_some(unit::FRACTION),
        _ => unit::conversion(metric.unit.unwrap_or_default(), spelling),
    }
}

impl Sample {
    /// Reads an element of this type; `value` is the name of the member that says what was measured.
    pub(super) fn read<'de>(
        element: &Element<'de>,
        found: Found,
        value: &'static str,
        (recent, sources): (&mut Recent<'de>, &mut Sources<'de>),
        circumstance: Circumstance<'_>,
    ) -> Result<Self, Unread> {
        let given = uuid(&element.id)?;
        let (start_us, end_us) = times(element)?;
        let source = sources.source(element.source)?;
        let metadata = sources.metadata(element.metadata)?;
        let offsets = recent.offsets(element, &metadata, (start_us, end_us))?;
        let mut reading = reading(element, found, value, recent, (start_us, end_us))?;
        finish(&mut reading, found.0, circumstance);
        let id = given.unwrap_or_else(|| {
            derived(circumstance.connection, &mut reading, &sources.written(source.at).key())
        });
        let recording_method = if metadata.user_entered { "manual" } else { source.method };
        let (derived, source) = (given.is_none(), source.at);
        Ok(Self { id, derived, reading, source, offsets, recording_method })
    }
}

/// What a type adds to its readings, and what their time says about the clock.
pub(super) fn finish(reading: &mut Reading, kind: &Type, circumstance: Circumstance<'_>) {
    reading.method = kind.method.map(str::to_owned);
    reading.window_s = kind.window_s;
    let until = reading.end_at.unwrap_or(reading.start_at);
    if until > circumstance.received_at.saturating_add(SKEW_US) {
        reading.flags.push(flag::CLOCK_SKEW.to_owned());
    }
}

/// The id of a sample whose client gives none: what a later receipt of the same moment replaces. It is flagged so.
///
/// What lies in bed and what sleeps may begin at one moment, and so may two events of a heart: they are different
/// things and no corrections of each other. Every other symbol is.
pub(super) fn derived(connection: &str, reading: &mut Reading, source: &str) -> Uuid {
    reading.flags.push(flag::DERIVED_ID.to_owned());
    let apart = reading
        .symbol
        .as_deref()
        .filter(|symbol| reading.metric != table::SLEEP.metric || *symbol == "in_bed");
    match apart {
        Some(symbol) => {
            let kind = format!("{}|{symbol}", reading.metric);
            id::sample_id(connection, &kind, reading.start_at, source)
        }
        None => id::sample_id(connection, &reading.metric, reading.start_at, source),
    }
}

/// The id of a sample or of what is deleted, whichever case it comes in; absent where it is absent or `null`.
pub(super) fn uuid(id: &Scalar<'_>) -> Result<Option<Uuid>, Reject> {
    if !id.is_there() {
        return Ok(None);
    }
    let text = text(id, "id")?;
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    id.map(Some).ok_or_else(|| invalid("id", "not a uuid"))
}

/// Start and end, µs. The offset that they are written with is the phone's when it sent: not taken.
pub(super) fn times(element: &Element<'_>) -> Result<(Micros, Micros), Reject> {
    let start_us = moment(&element.start, "startDate")?;
    let end_us = moment(&element.end, "endDate")?;
    if end_us < start_us {
        return Err(invalid("endDate", "the end is before the start"));
    }
    Ok((start_us, end_us))
}

fn moment(given: &Scalar<'_>, name: &'static str) -> Result<Micros, Reject> {
    date::instant(text(given, name)?).map_err(|why| match why {
        NotAMoment::NoOffset => invalid(name, "a local time without its offset"),
        NotAMoment::Malformed => malformed(name, "not an RFC 3339 date and time"),
    })
}

fn reading<'de>(
    element: &Element<'de>,
    found: Found,
    value: &'static str,
    recent: &mut Recent<'de>,
    (start_us, end_us): (Micros, Micros),
) -> Result<Reading, Reject> {
    let (kind, metric) = found;
    let until = (end_us > start_us).then_some(end_us);
    let given = if value == "stage" { &element.stage } else { &element.value };
    let there = || {
        let absent = || malformed(value, "a required field is absent");
        given.is_there().then_some(given).ok_or_else(absent)
    };
    let symbol = match kind.means {
        Means::Quantity | Means::Fraction => {
            let number = there()?.number().ok_or_else(|| malformed(value, "not a number"))?;
            let converted = recent.conversion(found, &element.unit)?.apply(number);
            if !converted.is_finite() {
                return Err(invalid(value, "too large"));
            }
            return Ok(metric.reading(converted, start_us, until));
        }
        Means::Stage => {
            let stage = match there()? {
                Scalar::Text(name) => table::stage_named(name),
                other => {
                    let number = other.integer();
                    table::stage_numbered(number.ok_or_else(|| malformed(value, "not an integer"))?)
                }
            };
            stage.ok_or_else(|| invalid(value, "an unknown stage of sleep"))?
        }
        Means::Event(symbol) => symbol,
    };
    metric
        .symbol(symbol, start_us, until)
        .ok_or_else(|| Reject::invalid(Path::root(), "not a value of its type"))
}
