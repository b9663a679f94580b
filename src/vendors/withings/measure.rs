//! What Withings measures at a moment: `measuregrps` of `getmeas`, and `v2/heart list`.

use crate::error::Reject;
use crate::model::event::flag;
use crate::model::metric::{self, Metric};
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::sheet::{Sheet, Zone};
use crate::vendors::withings::sheet::{
    Whats, elements, head, id, modified, record, time, what, zone,
};
use crate::vendors::{Raw, What};

/// A type of measure: its number, the metric, by how many powers of ten their units differ, and in which context.
type Type = (i64, &'static str, i64, Option<&'static str>);

const TYPES: &[Type] = &[
    (1, "body_weight", 0, None),
    // In metres.
    (4, "body_height", 2, None),
    (5, "lean_body_mass", 0, None),
    (6, "body_fat_percentage", 0, None),
    (9, "blood_pressure_diastolic", 0, None),
    (10, "blood_pressure_systolic", 0, None),
    (11, "heart_rate", 0, Some("spot")),
    (12, "body_temperature", 0, None),
    (54, "spo2", 0, Some("spot")),
    (71, "body_temperature", 0, None),
    // Of the wrist, at a moment and not over a night: a stream of its own.
    (73, "skin_temperature_sleep", 0, Some("spot")),
    (91, "pulse_wave_velocity", 0, None),
    (123, "vo2_max", 0, None),
];

/// Whether the atria fibrillated: by an ECG, and by light through the skin.
const RHYTHM: [(i64, &str); 2] = [(130, "ecg"), (139, "ppg")];

/// The powers of ten that are believed.
const POWERS: std::ops::RangeInclusive<i64> = -18..=18;
/// The category of goals.
const GOALS: i64 = 2;

/// The numbers of the types, as they are asked for.
pub(super) fn types() -> String {
    let mut numbers: Vec<i64> = TYPES.iter().map(|(number, ..)| *number).collect();
    numbers.extend(RHYTHM.map(|(number, _)| number));
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

/// Groups of what was measured at one moment.
pub(super) fn groups(raw: &Raw<'_>) -> Result<Whats, Reject> {
    let json = json::parse(raw.body)?;
    let mut whats = Vec::new();
    elements(&json.root(), "measuregrps", &mut |index, at, body| {
        whats.push((index, what(group(raw, at, body))));
    })?;
    Ok(whats)
}

fn group(raw: &Raw<'_>, at: &At<'_>, body: &At<'_>) -> Result<What, Reject> {
    let grpid = id(&at.object()?.need("grpid")?)?;
    if at.get("category").map(|at| at.integer()).transpose()? == Some(GOALS) {
        return Ok(What::Ignored("a goal, and no measurement"));
    }
    let zone = zone(at, body)?;
    let (head, start) = (head(raw, modified(at)?), time(&at.need("date")?, zone.as_deref())?);
    let mut sheet = Sheet::new(&head, "measurement", grpid, Zone::unknown(), (start, None));
    sheet.belongs(start.local_date(), "civil_midnight");
    let ambiguous = attributed(&mut sheet, at)?;
    for measure in at.need("measures")?.items()? {
        self::measure(&mut sheet, &measure)?;
    }
    if sheet.content.readings.is_empty() && !sheet.content.attributes.contains_key(RHYTHM_SAYS) {
        return Ok(What::Ignored("nothing that has a metric"));
    }
    if ambiguous {
        let flagged = |flags: &mut Vec<String>| flags.push(flag::AMBIGUOUS_USER.to_owned());
        flagged(&mut sheet.content.flags);
        sheet.content.readings.iter_mut().for_each(|reading| flagged(&mut reading.flags));
    }
    Ok(record(sheet))
}

/// How a group came to be this person's, which is an attribute; whether nobody knows that it is.
fn attributed(sheet: &mut Sheet<'_>, at: &At<'_>) -> Result<bool, Reject> {
    let attrib = at.get("attrib").map(|at| at.integer()).transpose()?;
    let (says, method) = match attrib {
        None => return Ok(false),
        Some(0 | 8) => ("device", "automatic"),
        Some(1) => ("ambiguous", "automatic"),
        Some(2) => ("manual", "manual"),
        Some(4) => ("manual_at_creation", "manual"),
        Some(5) => ("automatic_pressure", "automatic"),
        Some(7) => ("confirmed", "automatic"),
        Some(15) => ("guided", "active"),
        Some(_) => ("unlisted", "unknown"),
    };
    sheet.attribute("attribution", says);
    sheet.content.recording_method = Some(method.to_owned());
    Ok(says == "ambiguous")
}

fn measure(sheet: &mut Sheet<'_>, at: &At<'_>) -> Result<(), Reject> {
    let number = at.object()?.need("type")?.integer()?;
    if let Some((_, by)) = RHYTHM.into_iter().find(|(known, _)| *known == number) {
        rhythm(sheet, at.need("value")?.integer()?, by);
        return Ok(());
    }
    let known = TYPES.iter().find(|(known, ..)| *known == number);
    let Some((_, name, power, context)) = known else { return Ok(()) };
    let value = decimal(at, *power)?;
    if let Some(metric) = metric::find(name) {
        sheet.add(metric, value, None, *context);
    }
    Ok(())
}

/// `value · 10^(unit + power)` as the decimal that it is: no product of floats is.
fn decimal(at: &At<'_>, power: i64) -> Result<f64, Reject> {
    let (value_at, unit_at) = (at.need("value")?, at.need("unit")?);
    let (value, unit) = (value_at.integer()?, unit_at.integer()?);
    if !POWERS.contains(&unit) {
        return Err(unit_at.invalid("no power of ten that a unit has"));
    }
    let decimal = format!("{value}e{}", unit + power).parse::<f64>();
    decimal.map_err(|_text| value_at.malformed("not a number"))
}

const RHYTHM_SAYS: &str = "atrial_fibrillation";

/// What a recording says of the rhythm: only what is positive is an event.
fn rhythm(sheet: &mut Sheet<'_>, value: i64, by: &str) {
    let says = fibrillation(value);
    sheet.attribute(RHYTHM_SAYS, says);
    let metric: Option<&'static Metric> = metric::find("cardiac_rhythm_event");
    if let Some(metric) = metric.filter(|_| says == "positive") {
        sheet.add_symbol(metric, "irregular_rhythm", (sheet.start.at_us, None), Some(by));
    }
}

fn fibrillation(value: i64) -> &'static str {
    match value {
        0 => "negative",
        1 => "positive",
        2 => "inconclusive",
        _ => "unlisted",
    }
}

/// Recordings of an ECG, as far as they are numbers. That a rhythm was irregular is an event of the measurement that
/// the recording is, too, and here an attribute: it happened once.
pub(super) fn ecgs(raw: &Raw<'_>) -> Result<Whats, Reject> {
    let json = json::parse(raw.body)?;
    let mut whats = Vec::new();
    elements(&json.root(), "series", &mut |index, at, body| {
        whats.push((index, what(ecg(raw, at, body))));
    })?;
    Ok(whats)
}

fn ecg(raw: &Raw<'_>, at: &At<'_>, body: &At<'_>) -> Result<What, Reject> {
    let Some(signal) = at.object()?.get("ecg") else {
        return Ok(What::Ignored("no ECG"));
    };
    let record_id = id(&signal.object()?.need("signalid")?)?;
    let zone = zone(at, body)?;
    let (head, start) = (head(raw, modified(at)?), time(&at.need("timestamp")?, zone.as_deref())?);
    let mut sheet = Sheet::new(&head, "ecg", record_id, Zone::unknown(), (start, None));
    sheet.belongs(start.local_date(), "civil_midnight");
    if let Some(says) = signal.get("afib").map(|at| at.integer()).transpose()? {
        sheet.attribute(RHYTHM_SAYS, fibrillation(says));
    }
    let rate = at.get("heart_rate").map(|at| at.number()).transpose()?;
    // A rate of zero is one that was not found.
    if let (Some(rate), Some(metric)) = (rate.filter(|it| *it > 0.0), metric::find("heart_rate")) {
        sheet.add(metric, rate, None, Some("ecg"));
    }
    Ok(record(sheet))
}
