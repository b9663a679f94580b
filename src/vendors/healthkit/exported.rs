//! Shape B: the JSON of Health Auto Export, an app that people point at a URL (`vendors.md` §4.4).
//!
//! What shapes it:
//!
//! - Nothing has an id. A sample's is derived from its moment and source, and what is sent later replaces it: today's
//!   steps are sent many times a day, each time more, and are no addition.
//! - `%` is a percentage, 97, where HealthKit's own is a fraction. Which it is, is known by the shape, never by size.
//! - A value stands for a second, a minute or a day, as the person set it, and does not say which: it has a start and
//!   no end. Where there is an average it is the value, and its method says so.
//! - Sources are names, several of them joined with `|`, and a minute's can grow from one send to the next. So they
//!   choose no bucket, with two exceptions of a closed list: another maker's app, and for sleep the app and the kind
//!   of device, because a night must not be mixed of two.
//! - The offset of a date is the phone's when it wrote: `inferred`.
//! - A night comes as samples with their stage, or, *aggregated*, as one element of durations in hours: that is a
//!   record of its own, the night of the day that the app says.

use serde::de::MapAccess;
use serde_json::value::RawValue;

use crate::error::{Path, Reject};
use crate::model::event::{Content, Merge, Op, Reading, flag};
use crate::model::metric;
use crate::model::time::Micros;
use crate::vendors::VendorRecord;
use crate::vendors::healthkit::date;
use crate::vendors::healthkit::element::{EachText, invalid, malformed};
use crate::vendors::healthkit::push::{Place, Push};
use crate::vendors::healthkit::sample::{Found, Offsets, SKEW_US, Sample, derived, finish};
use crate::vendors::healthkit::source::{Unread, Written, named, tree};
use crate::vendors::healthkit::table::{self, Means, Type};
use crate::vendors::healthkit::workout::spelled;
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::unit::{self, Conversion};
use crate::vendors::wire::walk::{AsScalar, List, Members, Met, Scalar};

/// The app's names of metrics, and HealthKit's type of each. They depend on the app's version, so what is not here is
/// ignored as unknown.
const METRICS: &[(&str, &str)] = &[
    ("heart_rate", "HeartRate"),
    ("resting_heart_rate", "RestingHeartRate"),
    ("walking_heart_rate_average", "WalkingHeartRateAverage"),
    ("cardio_recovery", "HeartRateRecoveryOneMinute"),
    ("heart_rate_variability", "HeartRateVariabilitySDNN"),
    ("blood_oxygen_saturation", "OxygenSaturation"),
    ("body_fat_percentage", "BodyFatPercentage"),
    ("atrial_fibrillation_burden", "AtrialFibrillationBurden"),
    ("respiratory_rate", "RespiratoryRate"),
    ("body_temperature", "BodyTemperature"),
    ("basal_body_temperature", "BasalBodyTemperature"),
    ("apple_sleeping_wrist_temperature", "AppleSleepingWristTemperature"),
    ("step_count", "StepCount"),
    ("flights_climbed", "FlightsClimbed"),
    ("walking_running_distance", "DistanceWalkingRunning"),
    ("active_energy", "ActiveEnergyBurned"),
    ("basal_energy_burned", "BasalEnergyBurned"),
    ("apple_exercise_time", "AppleExerciseTime"),
    ("time_in_daylight", "TimeInDaylight"),
    ("weight_body_mass", "BodyMass"),
    ("lean_body_mass", "LeanBodyMass"),
    ("height", "Height"),
    ("waist_circumference", "WaistCircumference"),
    ("body_mass_index", "BodyMassIndex"),
    ("blood_glucose", "BloodGlucose"),
    ("vo2_max", "VO2Max"),
    ("environmental_audio_exposure", "EnvironmentalAudioExposure"),
    ("breathing_disturbances", "AppleSleepingBreathingDisturbances"),
    ("number_of_alcoholic_beverages", "NumberOfAlcoholicBeverages"),
    ("alcohol_consumption", "NumberOfAlcoholicBeverages"),
];

/// Durations of an aggregated night, in the metric's order of a night's record.
const DURATIONS: &[(&str, &str)] = &[
    ("deep", "sleep_deep_duration"),
    ("core", "sleep_light_duration"),
    ("rem", "sleep_rem_duration"),
    ("awake", "sleep_awake_duration"),
    ("inBed", "sleep_time_in_bed"),
];

/// One element of `data.metrics`, with its position there.
#[derive(Debug, Default)]
pub(super) struct Series<'de> {
    pub(super) at: usize,
    pub(super) name: Scalar<'de>,
    pub(super) units: Scalar<'de>,
    pub(super) elements: Option<&'de str>,
}

/// What the elements of a series are.
enum Kind {
    Quantity(Found, Result<Conversion, Reject>),
    Pressure(Result<Conversion, Reject>),
    Sleep(Result<Conversion, Reject>),
    Unknown,
}

impl<'de> Members<'de> for Series<'de> {
    fn field(key: &str) -> Option<u8> {
        ["name", "units", "data"].iter().zip(0..).find(|(name, _)| **name == key).map(|(_, at)| at)
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match field {
            0 => self.name = map.next_value_seed(AsScalar(level))?,
            1 => self.units = map.next_value_seed(AsScalar(level))?,
            // Name and units may stand behind it, so it waits as text.
            _ => {
                let text = map.next_value::<&'de RawValue>()?.get();
                self.elements = (text != "null").then_some(text);
            }
        }
        Ok(())
    }
}

impl<'de> Series<'de> {
    fn path(&self) -> Path {
        Path::root().key("data").key("metrics").at(self.at)
    }

    /// Takes the elements into the push, the first of them at `place`; gives how many places they took.
    pub(super) fn take(&self, is_object: bool, push: &mut Push<'_, 'de>, place: Place) -> usize {
        let mut taken = 0;
        let read = || {
            if !is_object {
                return Err(Reject::malformed(Path::root(), "not an object"));
            }
            let absent = || malformed("data", "a required field is absent");
            Ok((self.kind()?, self.elements.ok_or_else(absent)?))
        };
        let (kind, elements) = match read() {
            Ok(found) => found,
            Err(reject) => {
                push.settle(place, || self.path(), Err(reject.into()));
                return 1;
            }
        };
        let mut each = EachText(|text: &'de str| {
            let place = Place { index: place.index.saturating_add(taken), ..place };
            self.element(&kind, text, push, place, taken);
            taken = taken.saturating_add(1);
        });
        match json::document(elements.as_bytes(), List(&mut each, 0)) {
            Ok(Met::It) => taken,
            Ok(_) => {
                push.settle(place, || self.path(), Err(malformed("data", "not an array").into()));
                1
            }
            Err(reject) => {
                push.fail(Reject { position: None, ..reject });
                taken
            }
        }
    }

    fn kind(&self) -> Result<Kind, Reject> {
        let name = match &self.name {
            Scalar::Text(name) => name.as_ref(),
            other if other.is_there() => return Err(malformed("name", "not a string")),
            _ => return Err(malformed("name", "a required field is absent")),
        };
        if name == "blood_pressure" {
            return Ok(Kind::Pressure(self.conversion("mm[Hg]", false)));
        }
        if name == "sleep_analysis" {
            return Ok(Kind::Sleep(self.conversion("s", false)));
        }
        let found = METRICS.iter().find(|(known, _)| *known == name);
        let found =
            found.and_then(|(_, kind)| table::find(&format!("HKQuantityTypeIdentifier{kind}")));
        Ok(found.map_or(Kind::Unknown, |found| {
            let fraction = found.0.means == Means::Fraction;
            Kind::Quantity(found, self.conversion(found.1.unit.unwrap_or_default(), fraction))
        }))
    }

    fn conversion(&self, ours: &str, percent: bool) -> Result<Conversion, Reject> {
        let spelling = match &self.units {
            Scalar::Text(spelling) => spelling.as_ref(),
            other if other.is_there() => return Err(malformed("units", "not a string")),
            _ => return Err(invalid("units", "values without their unit")),
        };
        let known = if percent {
            // Already 0 to 100 here.
            (spelling == "%").then_some(unit::SAME)
        } else {
            unit::conversion(ours, spelling)
        };
        known.ok_or_else(|| invalid("units", "an unknown unit"))
    }

    fn element(
        &self,
        kind: &Kind,
        text: &'de str,
        push: &mut Push<'_, 'de>,
        place: Place,
        index: usize,
    ) {
        let unit = match kind {
            Kind::Quantity(_, unit) | Kind::Pressure(unit) => unit.as_ref().err(),
            Kind::Sleep(_) => None,
            Kind::Unknown => return push.ignore("unknown type", place),
        };
        if let Some(reject) = unit {
            return push.settle(place, || self.path(), Err(reject.clone().into()));
        }
        let taken = read(kind, text, push, place);
        let at = || self.path().key("data").at(index);
        push.settle(place, at, taken.map(|()| None));
    }
}

/// One element of a series.
fn read(kind: &Kind, text: &str, push: &mut Push<'_, '_>, place: Place) -> Result<(), Unread> {
    let tree = tree(text)?;
    let root = tree.root();
    root.object()?;
    match kind {
        Kind::Quantity(found, Ok(conversion)) => {
            quantity(&root, *found, *conversion, push, place)?;
        }
        Kind::Pressure(Ok(conversion)) => pressure(&root, *conversion, push, place)?,
        Kind::Sleep(conversion) if root.get("value").is_none() => {
            let record = night(&root, conversion.as_ref(), push.circumstance.received_at)?;
            push.whole(place, record);
        }
        Kind::Sleep(_) => stage(&root, push, place)?,
        _ => {}
    }
    Ok(())
}

fn quantity<'t>(
    root: &'t At<'t>,
    found: Found,
    conversion: Conversion,
    push: &mut Push<'_, '_>,
    place: Place,
) -> Result<(), Reject> {
    let (value, method) = match root.get("Avg") {
        Some(mean) => (mean, Some("mean")),
        None => (root.need("qty")?, None),
    };
    add(root, found, &value, (conversion, method), push, place)
}

fn pressure<'t>(
    root: &'t At<'t>,
    conversion: Conversion,
    push: &mut Push<'_, '_>,
    place: Place,
) -> Result<(), Reject> {
    // One reading of a cuff: where one of the two cannot be read, neither is taken.
    let (systolic, diastolic) = (root.need("systolic")?, root.need("diastolic")?);
    systolic.number()?;
    diastolic.number()?;
    for (kind, value) in [("Systolic", systolic), ("Diastolic", diastolic)] {
        let kind = format!("HKQuantityTypeIdentifierBloodPressure{kind}");
        if let Some(found) = table::find(&kind) {
            add(root, found, &value, (conversion, None), push, place)?;
        }
    }
    Ok(())
}

/// Puts a value at its date into its bucket.
fn add<'t>(
    root: &'t At<'t>,
    (kind, metric): Found,
    value: &At<'_>,
    (conversion, method): (Conversion, Option<&'static str>),
    push: &mut Push<'_, '_>,
    place: Place,
) -> Result<(), Reject> {
    let at = spelled(root.need("date")?.text()?, "date")?;
    let converted = conversion.apply(value.number()?);
    if !converted.is_finite() {
        return Err(value.invalid("too large"));
    }
    let app = source(root, "source")?.and_then(|name| named(name).app);
    let written = Written {
        app: app.filter(|app| table::maker(Some(app)) != "apple").map(str::to_owned),
        model: None,
    };
    let mut reading = metric.reading(converted, at.at_us, None);
    finish(&mut reading, kind, push.circumstance);
    if method.is_some() {
        reading.method = method.map(str::to_owned);
    }
    let offsets = Offsets { start_s: at.offset_s, end_s: at.offset_s, inferred: true };
    put(push, kind, reading, written, offsets, place);
    Ok(())
}

/// Puts a reading, whose id is derived, into its bucket.
fn put(
    push: &mut Push<'_, '_>,
    kind: &'static Type,
    mut reading: Reading,
    written: Written,
    offsets: Offsets,
    place: Place,
) {
    let id = derived(push.circumstance.connection, &mut reading, &written.key());
    let source = push.sources.place(written);
    let recording_method = "unknown";
    let sample = Sample { id, derived: true, reading, source, offsets, recording_method };
    push.add(kind, sample, place);
}

/// A sample of sleep with its stage.
fn stage<'t>(root: &'t At<'t>, push: &mut Push<'_, '_>, place: Place) -> Result<(), Reject> {
    let Some((kind, metric)) = table::find(table::SLEEP.identifier) else { return Ok(()) };
    let start = spelled(root.need("startDate")?.text()?, "startDate")?;
    let end_at = root.need("endDate")?;
    let end = spelled(end_at.text()?, "endDate")?;
    if end.at_us < start.at_us {
        return Err(end_at.invalid("the end is before the start"));
    }
    let value = root.need("value")?;
    let symbol = match value.text()? {
        "In Bed" => "in_bed",
        "Asleep" | "Unspecified" => "asleep_unspecified",
        "Awake" => "awake",
        "Core" => "light",
        "Deep" => "deep",
        "REM" => "rem",
        _ => return Err(value.invalid("an unknown stage of sleep")),
    };
    let until = (end.at_us > start.at_us).then_some(end.at_us);
    let reading = metric.symbol(symbol, start.at_us, until);
    let mut reading = reading.ok_or_else(|| value.invalid("not a value of its type"))?;
    finish(&mut reading, kind, push.circumstance);
    let written = sleeper(source(root, "source")?);
    let offsets = Offsets { start_s: start.offset_s, end_s: end.offset_s, inferred: true };
    put(push, kind, reading, written, offsets, place);
    Ok(())
}

/// What a night is told apart by.
fn sleeper(name: Option<&str>) -> Written {
    let named = name.map(named).unwrap_or_default();
    Written { app: named.app.map(str::to_owned), model: named.device.map(str::to_owned) }
}

/// A source's name, of which nothing but what [`named`] tells is used.
fn source<'t>(root: &'t At<'t>, name: &'static str) -> Result<Option<&'t str>, Reject> {
    root.get(name).map(|at| at.text()).transpose()
}

/// An aggregated night: durations in the unit of its series.
fn night<'t>(
    root: &'t At<'t>,
    conversion: Result<&Conversion, &Reject>,
    received_at: Micros,
) -> Result<VendorRecord, Reject> {
    let date_at = root.need("date")?;
    let day = date::day(date_at.text()?).ok_or_else(|| date_at.malformed("not a date"))?;
    let conversion = *conversion.map_err(|_| Reject::invalid(Path::root(), "an unknown unit"))?;
    let moment = |name| root.get(name).map(|at| spelled(at.text()?, name)).transpose();
    let (Some(start), Some(end)) = (moment("sleepStart")?, moment("sleepEnd")?) else {
        return Err(Reject::malformed(Path::root(), "a night without its start and end"));
    };
    if end.at_us < start.at_us {
        return Err(invalid("sleepEnd", "the end is before the start"));
    }
    let readings = durations(root, conversion, (start.at_us, end.at_us))?;
    let source = source(root, "source")?.or(self::source(root, "sleepSource")?);
    let offsets = Offsets { start_s: start.offset_s, end_s: end.offset_s, inferred: true };
    let skewed = end.at_us > received_at.saturating_add(SKEW_US);
    let mut flags: Vec<_> = skewed.then(|| flag::CLOCK_SKEW.to_owned()).into_iter().collect();
    flags.extend((start.offset_s != end.offset_s).then(|| flag::OFFSET_CHANGE.to_owned()));
    let written = sleeper(source);
    Ok(VendorRecord {
        device_type: table::maker(written.app.as_deref()).to_owned(),
        via: "direct",
        record_type: "sleep".to_owned(),
        record_id: format!("aggregated|{day}|{}", written.key()),
        merge: Merge::Replace,
        op: Op::Upsert,
        version: None,
        content: Content {
            start_at: Some(start.at_us),
            end_at: Some(end.at_us),
            start_offset_s: offsets.start_s,
            end_offset_s: offsets.end_s,
            offset_provenance: offsets.provenance().to_owned(),
            local_date: Some(day.0),
            day_rule: Some("vendor_day".to_owned()),
            state: "final".to_owned(),
            app: written.app,
            device_model: written.model,
            recording_method: Some("unknown".to_owned()),
            flags,
            readings,
            ..Content::default()
        },
    })
}

/// The readings of an aggregated night: its length, how long it was slept, how long in each stage.
fn durations<'t>(
    root: &'t At<'t>,
    conversion: Conversion,
    (start_us, end_us): (Micros, Micros),
) -> Result<Vec<Reading>, Reject> {
    let seconds = |name: &'static str| -> Result<Option<f64>, Reject> {
        let Some(at) = root.get(name) else { return Ok(None) };
        let seconds = conversion.apply(at.number()?);
        if seconds.is_finite() { Ok(Some(seconds)) } else { Err(at.invalid("too large")) }
    };
    let mut readings = Vec::new();
    let mut add = |name: &str, value: Option<f64>| {
        if let (Some(metric), Some(value)) = (metric::find(name), value) {
            readings.push(metric.reading(value, start_us, Some(end_us)));
        }
    };
    #[expect(clippy::as_conversions, reason = "µs of a night are far below 2^53")]
    let length = (end_us - start_us) as f64 / 1e6;
    add("sleep_session", Some(length));
    let stages = [seconds("core")?, seconds("deep")?, seconds("rem")?];
    let staged: f64 = stages.iter().flatten().sum();
    // Stages of 0 beside sleep are of a device that knows none: not measured, which is not 0.
    let has_stages = staged > 0.0;
    let total = [seconds("totalSleep")?, seconds("asleep")?, Some(staged)];
    add("sleep_total_duration", total.into_iter().flatten().find(|total| *total > 0.0));
    for (name, metric) in DURATIONS {
        let is_stage = ["deep", "core", "rem"].contains(name);
        // In bed for no time beside sleep is not measured either.
        let value = seconds(name)?.filter(|value| match *name {
            "inBed" => *value > 0.0,
            _ => !is_stage || has_stages,
        });
        add(metric, value);
    }
    Ok(readings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_type() {
        for (name, kind) in METRICS {
            let found = table::find(&format!("HKQuantityTypeIdentifier{kind}"));
            assert!(found.is_some(), "{name}");
        }
        for (_, name) in DURATIONS {
            assert_eq!(metric::find(name).and_then(|metric| metric.unit), Some("s"), "{name}");
        }
    }
}
