//! One element of a push: a sample with its source, or the reason why it is none.

use uuid::Uuid;

use crate::error::Reject;
use crate::model::event::{Reading, flag};
use crate::model::id;
use crate::model::metric::Metric;
use crate::model::time::{Micros, Moment, NotAMoment, parse_offset};
use crate::vendors::healthkit::table::{self, Means, Type};
use crate::vendors::wire::json::{At, Json};
use crate::vendors::wire::unit;

/// How far past its receipt a sample may be dated before its clock is not believed (`domain.md` §2.3).
const SKEW_US: Micros = 15 * 60 * 1_000_000;

/// Who wrote a sample. Its name is free text that its owner chose (`Anna's Watch`): it is not even read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Written {
    /// The bundle id of the app.
    pub(super) app: Option<String>,
    /// The product type of the device: `Watch7,5`.
    pub(super) model: Option<String>,
}

/// A sample: a reading, and what its bucket is told about it.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) id: Uuid,
    pub(super) reading: Reading,
    pub(super) written: Written,
    /// The UTC offset where the person was, seconds, if the sample says it.
    pub(super) offset_s: Option<i32>,
    pub(super) recording_method: &'static str,
}

/// What all samples of a push have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstance<'a> {
    /// The connection, for the ids of samples that have none.
    pub(super) connection: &'a str,
    /// When the door had the push, µs.
    pub(super) received_at: Micros,
}

impl Sample {
    /// Reads an element of this type; `value` is the name of the member that says what was measured.
    pub(super) fn read<'a>(
        at: &'a At<'a>,
        (kind, metric): (&'static Type, &'static Metric),
        value: &'static str,
        circumstance: Circumstance<'_>,
    ) -> Result<Self, Reject> {
        let given = sample_id(at)?;
        let start_us = moment(at, "startDate")?;
        let end_us = moment(at, "endDate")?;
        if end_us < start_us {
            return Err(at.need("endDate")?.invalid("the end is before the start"));
        }
        let offset_s = offset(at)?;
        let (written, recorded) = source(at)?;
        let mut reading = reading(at, kind, metric, value, (start_us, end_us))?;
        reading.method = kind.method.map(str::to_owned);
        reading.window_s = kind.window_s;
        if end_us > circumstance.received_at.saturating_add(SKEW_US) {
            reading.flags.push(flag::CLOCK_SKEW.to_owned());
        }
        let id = given
            .unwrap_or_else(|| derived(circumstance.connection, kind, &written, &reading, end_us));
        reading.sample_id = Some(id.to_string());
        let recording_method = if user_entered(at) { "manual" } else { recorded };
        Ok(Self { id, reading, written, offset_s, recording_method })
    }
}

/// The id of a sample or of what is deleted, whichever case it comes in; absent where it is absent or `null`.
pub(super) fn sample_id<'a>(at: &'a At<'a>) -> Result<Option<Uuid>, Reject> {
    let Some(given) = at.get("id") else { return Ok(None) };
    let text = given.text()?;
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    id.map(Some).ok_or_else(|| given.invalid("not a uuid"))
}

/// The id of a sample whose client gives none, over all that the sample says: sent again, it is the same one.
fn derived(
    connection: &str,
    kind: &Type,
    written: &Written,
    reading: &Reading,
    end_us: Micros,
) -> Uuid {
    let value = reading.value.map(|value| value.to_string());
    let value = value.as_deref().or(reading.symbol.as_deref()).unwrap_or_default();
    id::sample_id(
        connection,
        kind.identifier,
        reading.start_at,
        &written.key(),
        &format!("{value}|{end_us}"),
    )
}

impl Written {
    /// `<bundle id>|<product type>`, absent parts empty; neither can hold a bar.
    pub(super) fn key(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}|{}", part(&self.app), part(&self.model))
    }
}

fn moment<'a>(at: &'a At<'a>, name: &'static str) -> Result<Micros, Reject> {
    let given = at.need(name)?;
    match Moment::parse(given.text()?) {
        // The offset that a date is written with is the phone's when it sent, not the sample's: not taken.
        Ok(moment) => Ok(moment.at_us),
        Err(NotAMoment::NoOffset) => Err(given.invalid("a local time without its offset")),
        Err(NotAMoment::Malformed) => Err(given.malformed("not an RFC 3339 date and time")),
    }
}

/// The sample's own offset; `Z` says nothing about a person, so it is not known, as when it is absent.
fn offset<'a>(at: &'a At<'a>) -> Result<Option<i32>, Reject> {
    let Some(given) = at.get("zoneOffset") else { return Ok(None) };
    let text = given.text()?;
    if text.eq_ignore_ascii_case("z") {
        return Ok(None);
    }
    parse_offset(text).map(Some).ok_or_else(|| given.invalid("not an offset from UTC"))
}

fn source<'a>(at: &'a At<'a>) -> Result<(Written, &'static str), Reject> {
    let Some(source) = at.get("source") else { return Ok((Written::default(), "unknown")) };
    source.object()?;
    let written = Written {
        app: identifier(&source, "bundleIdentifier", b".-_")?,
        model: identifier(&source, "productType", b".-_,")?,
    };
    let method = match source.get("recordingMethod").map(|given| given.text()).transpose()? {
        Some("automatic") => "automatic",
        Some("manual") => "manual",
        Some("active") => "active",
        _ => "unknown",
    };
    Ok((written, method))
}

/// An identifier of a maker: ASCII letters, digits and these marks, 155 at most (Apple's limit for a bundle id).
/// It becomes part of a key and leaves the house, so that a person's words in its place are refused.
fn identifier<'a>(
    at: &'a At<'a>,
    name: &'static str,
    marks: &[u8],
) -> Result<Option<String>, Reject> {
    let Some(given) = at.get(name) else { return Ok(None) };
    let text = given.text()?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
    if text.len() > 155 || !text.bytes().all(fits) {
        return Err(given.invalid("not an identifier"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Whether a person typed it in: HealthKit says so in the metadata, an object or a list of objects.
fn user_entered<'a>(at: &'a At<'a>) -> bool {
    let says = |json: &Json<'_>| {
        let Json::Object(members) = json else { return false };
        members.iter().any(|(key, value)| {
            key == "HKWasUserEntered"
                && match value {
                    Json::Bool(value) => *value,
                    Json::Integer(value) => *value == 1,
                    Json::Text(text) => text == "1" || text.eq_ignore_ascii_case("true"),
                    _ => false,
                }
        })
    };
    at.get("metadata").is_some_and(|metadata| match metadata.json() {
        Json::List(list) => list.iter().any(says),
        other => says(other),
    })
}

fn reading<'a>(
    at: &'a At<'a>,
    kind: &Type,
    metric: &'static Metric,
    value: &'static str,
    (start_us, end_us): (Micros, Micros),
) -> Result<Reading, Reject> {
    let until = (end_us > start_us).then_some(end_us);
    let symbol = match kind.means {
        Means::Quantity | Means::Fraction => {
            let number = quantity(at, kind, metric, value)?;
            return Ok(metric.reading(number, start_us, until));
        }
        Means::Stage => {
            let given = at.need(value)?;
            let stage = match given.json() {
                Json::Text(name) => table::stage_named(name),
                _ => table::stage_numbered(given.integer()?),
            };
            stage.ok_or_else(|| given.invalid("an unknown stage of sleep"))?
        }
        Means::Event(symbol) => symbol,
    };
    metric.symbol(symbol, start_us, until).ok_or_else(|| at.invalid("not a value of its type"))
}

fn quantity<'a>(
    at: &'a At<'a>,
    kind: &Type,
    metric: &Metric,
    value: &'static str,
) -> Result<f64, Reject> {
    let given = at.need(value)?;
    let number = given.number()?;
    let Some(unit) = at.get("unit") else {
        // Absent and `null` alike: HealthKit's values have no unit of their own, so this one has none at all.
        return Err(Reject::invalid(at.path().key("unit"), "a value without its unit"));
    };
    let spelling = unit.text()?;
    let conversion = match kind.means {
        Means::Fraction => (spelling == "%").then_some(unit::FRACTION),
        _ => unit::conversion(metric.unit.unwrap_or_default(), spelling),
    };
    let converted = conversion.ok_or_else(|| unit.invalid("an unknown unit"))?.apply(number);
    if converted.is_finite() { Ok(converted) } else { Err(given.invalid("too large")) }
}
