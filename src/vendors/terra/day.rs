//! What Terra gives by the day: `daily`, `body`, `nutrition`, `menstruation`.
//!
//! Only the date in front of `start_time` means anything: it is cut off as text
//! (`2026-03-29T00:00:00+01:00` is the 29th; by way of UTC it would be the 28th) and is both the
//! record's key and its day.
//!
//! What is not taken, because the vocabulary has no metric for it: macros and micros, water,
//! ketones, skin temperature by day (the vocabulary knows the night's), a day's lowest heart rate,
//! stress durations, inactivity (makers count sleep in or not), AF classifications of an ECG (no
//! notification), hormones.

use crate::error::Reject;
use crate::model::event::Op;
use crate::model::metric;
use crate::model::time::Day;
use crate::vendors::VendorRecord;
use crate::vendors::terra::record::{
    Field, Head, Score, Series, Sheet, Time, Zone, boolean, field, named, number, samples, series,
    visit,
};
use crate::vendors::terra::vitals::{self, Saturation};
use crate::vendors::wire::json::At;

/// `upload_type` of activities and days; `sleep` has another one.
pub(super) const UPLOAD: &[(i64, &str)] = &[
    (0, "unknown"),
    (1, "automatic"),
    (2, "manual"),
    (3, "update"),
    (4, "delete"),
    (5, "pending"),
    (6, "third_party"),
];

pub(super) const DAILY: &[Field] = &[
    field(&["heart_rate_data", "summary", "avg_hr_bpm"], "heart_rate_daily_avg"),
    field(&["heart_rate_data", "summary", "max_hr_bpm"], "heart_rate_daily_max"),
    field(&["heart_rate_data", "summary", "resting_hr_bpm"], "resting_heart_rate")
        .method("provider_unspecified"),
    field(&["heart_rate_data", "summary", "avg_hrv_rmssd"], "hrv_rmssd")
        .method("mean")
        .context("day"),
    field(&["heart_rate_data", "summary", "avg_hrv_sdnn"], "hrv_sdnn")
        .method("mean")
        .context("day"),
    field(&["distance_data", "steps"], "steps_daily"),
    field(&["distance_data", "floors_climbed"], "floors_climbed").context("day"),
    field(&["distance_data", "distance_meters"], "distance_walk_run").context("day"),
    field(&["calories_data", "net_activity_calories"], "energy_active").context("day"),
    field(&["calories_data", "BMR_calories"], "energy_basal").context("day"),
    field(&["calories_data", "total_burned_calories"], "energy_total_daily"),
    field(&["active_durations_data", "moderate_intensity_seconds"], "activity_moderate_duration"),
    field(&["active_durations_data", "vigorous_intensity_seconds"], "activity_vigorous_duration"),
    field(&["oxygen_data", "vo2max_ml_per_min_per_kg"], "vo2_max"),
];

/// Running totals of a day or a workout, below the detailed object.
pub(super) const TOTALS: &[Series] = &[
    series(&["distance_data", "detailed", "step_samples"], "steps", "steps"),
    series(
        &["distance_data", "detailed", "distance_samples"],
        "distance_meters",
        "distance_walk_run",
    ),
    series(
        &["distance_data", "detailed", "floors_climbed_samples"],
        "floors_climbed",
        "floors_climbed",
    ),
];

pub(super) const VO2: &[Series] =
    &[series(&["oxygen_data", "vo2_samples"], "vo2max_ml_per_min_per_kg", "vo2_max")];

/// Oxygen of a day or a workout.
pub(super) const OXYGEN: Saturation = Saturation {
    samples: &["oxygen_data", "saturation_samples"],
    mean: &["oxygen_data", "avg_saturation_percentage"],
    mean_metric: "spo2",
    context: Some("day"),
};

/// The maker's own scores of a day: the path, and the name in the maker's namespace.
const OWN: &[(&[&str], &str)] = &[
    (&["scores", "sleep"], "sleep_score"),
    (&["scores", "recovery"], "recovery_score"),
    (&["scores", "activity"], "activity_score"),
    (&["strain_data", "strain_level"], "strain"),
];

/// The maker's own series of a day.
const OWN_SERIES: &[(&[&str], &str)] = &[
    (&["stress_data", "samples"], "stress_level"),
    (&["stress_data", "body_battery_samples"], "body_battery"),
];

const STRESS: &[(i64, &str)] =
    &[(0, "unknown"), (1, "rest"), (2, "low"), (3, "medium"), (4, "high")];

pub(super) const SCORES: &[Score] = &[
    ("total_stress_score", "terra.stress_score", "terra.stress_score", None),
    ("total_stress_score_v2", "terra.stress_score_v2", "terra.stress_score", Some("v2")),
    ("respiratory_score", "terra.respiratory_score", "terra.respiratory_score", None),
    ("immune_index", "terra.immune_score", "terra.immune_score", None),
];

/// Opens a record of a day.
fn open<'a>(head: &'a Head, item: &At<'_>, record_type: &'static str) -> Result<Sheet<'a>, Reject> {
    let metadata = item.object()?.need("metadata")?;
    let metadata = metadata.object()?;
    let zone = Zone::of(metadata)?;
    let start_at = metadata.need("start_time")?;
    let written = start_at.text()?;
    let day = written
        .get(..10)
        .and_then(Day::parse)
        .ok_or_else(|| start_at.malformed("no date stands in front"))?;
    let start =
        if written.len() == 10 { Time::floating_midnight(day) } else { zone.read(&start_at)? };
    let mut end = None;
    if let Some(end_at) = metadata.get("end_time") {
        let dated = end_at.text()?.len() == 10;
        end = if dated { None } else { Some(zone.read(&end_at)?) };
    }
    // Some makers write a day's end as its start: only the date counts, so that is no reason to
    // refuse it.
    let times = (start, end.filter(|end| end.at_us > start.at_us));
    let mut sheet = Sheet::of_day(head, record_type, day, zone, times);
    sheet.device(item)?;
    Ok(sheet)
}

/// Reads the `upload_type` of an activity or a day into the record.
pub(super) fn upload(sheet: &mut Sheet<'_>, metadata: &At<'_>) -> Result<(), Reject> {
    let upload = named(metadata, &["upload_type"], UPLOAD)?.unwrap_or("unknown");
    sheet.attribute("upload_type", upload);
    sheet.content.recording_method = Some(
        match upload {
            "automatic" | "manual" => upload,
            _ => "unknown",
        }
        .to_owned(),
    );
    match upload {
        "delete" => sheet.op = Op::Delete,
        "pending" => "tentative".clone_into(&mut sheet.content.state),
        _ => {}
    }
    Ok(())
}

/// A day's summary, with its samples and scores.
pub(super) fn daily(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let mut sheet = open(head, item, "daily")?;
    upload(&mut sheet, &item.need("metadata")?)?;
    if sheet.op == Op::Upsert {
        sheet.fields(item, DAILY)?;
        own(&mut sheet, item)?;
        vitals::rates(&mut sheet, item, &["heart_rate_data"], None)?;
        vitals::saturation(&mut sheet, item, &OXYGEN)?;
        sheet.series(item, VO2)?;
        for total in TOTALS {
            sheet.running_total(item, total)?;
        }
        tags(&mut sheet, item)?;
    }
    let mut records = sheet.scores(item, SCORES)?;
    records.insert(0, sheet.finish());
    Ok(records)
}

/// The maker's scores, where the vocabulary has a name for them. Below 0 Garmin says "could not be
/// measured".
fn own(sheet: &mut Sheet<'_>, item: &At<'_>) -> Result<(), Reject> {
    for (path, name) in OWN {
        if let (Some(value), Some(metric)) = (number(item, path)?, sheet.head.own(name)) {
            sheet.add(metric, value, None, None);
        }
    }
    let stress = number(item, &["stress_data", "avg_stress_level"])?;
    if let (Some(value), Some(metric)) =
        (stress.filter(|level| *level >= 0.0), sheet.head.own("stress_level"))
    {
        sheet.add(metric, value, Some("mean"), Some("day"));
    }
    for (path, name) in OWN_SERIES {
        let (list, metric) = (series(path, "level", name), sheet.head.own(name));
        samples(item, sheet.zone, &list, &mut |_, time, value| {
            if let (Some(metric), true) = (metric, value >= 0.0) {
                sheet.add_at(metric, value, (time.at_us, None), None, None);
            }
            Ok(())
        })?;
    }
    if let Some(rating) = named(item, &["stress_data", "stress_rating"], STRESS)? {
        sheet.attribute("stress_rating", rating);
    }
    Ok(())
}

/// How many tags a person set; which, and what they noted, are their own words and stay in the raw
/// topic.
fn tags(sheet: &mut Sheet<'_>, item: &At<'_>) -> Result<(), Reject> {
    count(sheet, item, &["tag_data", "tags"], "tags")
}

/// The number of elements at this path as an attribute.
fn count(
    sheet: &mut Sheet<'_>,
    item: &At<'_>,
    path: &[&'static str],
    name: &'static str,
) -> Result<(), Reject> {
    visit(item, path, &mut |list| {
        let found = list.items()?.count();
        sheet.attribute(name, found.to_string());
        Ok(())
    })
}

/// A day's average of what stands in single measurements beside it.
const fn day_mean(path: &'static [&'static str], metric: &'static str) -> Field {
    field(path, metric).method("mean").context("day")
}

pub(super) const BODY: &[Field] = &[
    field(&["heart_data", "heart_rate_data", "summary", "resting_hr_bpm"], "resting_heart_rate")
        .method("provider_unspecified"),
    day_mean(&["heart_data", "heart_rate_data", "summary", "avg_hr_bpm"], "heart_rate"),
    day_mean(&["heart_data", "heart_rate_data", "summary", "avg_hrv_rmssd"], "hrv_rmssd"),
    day_mean(&["heart_data", "heart_rate_data", "summary", "avg_hrv_sdnn"], "hrv_sdnn"),
    day_mean(&["measurements_data", "day_avg_weight_kg"], "body_weight"),
    day_mean(&["measurements_data", "day_avg_height_cm"], "body_height"),
    day_mean(&["measurements_data", "day_avg_bmi"], "body_mass_index"),
    day_mean(&["measurements_data", "day_avg_bodyfat_percentage"], "body_fat_percentage"),
    day_mean(&["measurements_data", "day_avg_lean_mass_g"], "lean_body_mass").divisor(GRAMS_PER_KG),
    day_mean(&["blood_pressure_data", "day_avg_systolic_bp"], "blood_pressure_systolic"),
    day_mean(&["blood_pressure_data", "day_avg_diastolic_bp"], "blood_pressure_diastolic"),
    day_mean(&["temperature_data", "day_avg_body_temperature_celsius"], "body_temperature"),
    day_mean(
        &["temperature_data", "day_avg_ambient_temperature_celsius"],
        "ambient_temperature_sleep",
    ),
    field(&["oxygen_data", "vo2max_ml_per_min_per_kg"], "vo2_max"),
];

const GRAMS_PER_KG: f64 = 1000.0;

/// One number of the measurements, which are timed by `measurement_time`.
const fn measured(value: &'static str, metric: &'static str) -> Series {
    let list = series(&["measurements_data", "measurements"], value, metric);
    Series { time: "measurement_time", ..list }
}

pub(super) const BODY_SERIES: &[Series] = &[
    measured("weight_kg", "body_weight"),
    measured("height_cm", "body_height"),
    measured("BMI", "body_mass_index"),
    measured("bodyfat_percentage", "body_fat_percentage"),
    Series { divisor: GRAMS_PER_KG, ..measured("lean_mass_g", "lean_body_mass") },
    series(
        &["blood_pressure_data", "blood_pressure_samples"],
        "systolic_bp",
        "blood_pressure_systolic",
    ),
    series(
        &["blood_pressure_data", "blood_pressure_samples"],
        "diastolic_bp",
        "blood_pressure_diastolic",
    ),
    series(&["glucose_data", "blood_glucose_samples"], "blood_glucose_mg_per_dL", "blood_glucose"),
    Series {
        method: Some("detailed"),
        ..series(
            &["glucose_data", "detailed_blood_glucose_samples"],
            "blood_glucose_mg_per_dL",
            "blood_glucose",
        )
    },
    series(
        &["temperature_data", "body_temperature_samples"],
        "temperature_celsius",
        "body_temperature",
    ),
    Series {
        context: Some("day"),
        ..series(
            &["temperature_data", "ambient_temperature_samples"],
            "temperature_celsius",
            "ambient_temperature_sleep",
        )
    },
    series(
        &["heart_data", "pulse_wave_velocity_samples"],
        "pulse_wave_velocity_meters_per_second",
        "pulse_wave_velocity",
    ),
];

/// Beat-to-beat intervals: not of Fitbit, whose are no measured beats.
pub(super) const BEATS: &[Series] =
    &[series(&["heart_data", "rr_interval_samples"], "rr_interval_ms", "rr_interval")];

/// A day's body measurements.
pub(super) fn body(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let mut sheet = open(head, item, "body")?;
    sheet.fields(item, BODY)?;
    // The spelling `…_per_dl` is Terra's old one of the same number.
    let mean = number(item, &["glucose_data", "day_avg_blood_glucose_mg_per_dL"])?;
    let old = number(item, &["glucose_data", "day_avg_blood_glucose_mg_per_dl"])?;
    if let (Some(value), Some(metric)) = (mean.or(old), metric::find("blood_glucose")) {
        sheet.add(metric, value, Some("mean"), Some("day"));
    }
    sheet.series(item, BODY_SERIES)?;
    sheet.series(item, VO2)?;
    if head.device_type != "fitbit" {
        sheet.series(item, BEATS)?;
    }
    vitals::rates(&mut sheet, item, &["heart_data", "heart_rate_data"], None)?;
    vitals::saturation(&mut sheet, item, &OXYGEN)?;
    Ok(vec![sheet.finish()])
}

/// A day's food: that there was some, and how many entries. The vocabulary has no metric for what
/// was in it.
pub(super) fn nutrition(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let mut sheet = open(head, item, "nutrition")?;
    count(&mut sheet, item, &["meals"], "meals")?;
    count(&mut sheet, item, &["drink_samples"], "drinks")?;
    Ok(vec![sheet.finish()])
}

const PHASE: &[(i64, &str)] = &[
    (0, "unknown"),
    (1, "period"),
    (2, "follicular"),
    (3, "fertile_window"),
    (4, "ovulation"),
    (5, "luteal"),
    (6, "pms"),
    (7, "first_trimester"),
    (8, "second_trimester"),
    (9, "third_trimester"),
];

/// A day of a cycle. A predicted one is tentative, and says so on its readings too.
pub(super) fn menstruation(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let mut sheet = open(head, item, "menstruation")?;
    let predicted = boolean(item, &["menstruation_data", "is_predicted_cycle"])?;
    let method = (predicted == Some(true)).then_some("predicted");
    if let Some(predicted) = predicted {
        sheet.attribute("is_predicted", predicted.to_string());
    }
    if method.is_some() {
        "tentative".clone_into(&mut sheet.content.state);
    }
    let day = number(item, &["menstruation_data", "day_in_cycle"])?;
    if let (Some(day), Some(metric)) = (day, metric::find("menstrual_cycle_day")) {
        sheet.add(metric, day, method, None);
    }
    if let Some(phase) = named(item, &["menstruation_data", "current_phase"], PHASE)? {
        sheet.attribute("phase", phase);
        // The fertile window spans two phases, and a pregnancy has none: no symbol is guessed for
        // them.
        let symbol = match phase {
            "period" => Some("menstrual"),
            "pms" => Some("luteal"),
            "follicular" | "ovulation" | "luteal" => Some(phase),
            _ => None,
        };
        if let (Some(symbol), Some(metric)) = (symbol, metric::find("menstrual_cycle_phase")) {
            let times = (sheet.start.at_us, sheet.end.map(|end| end.at_us));
            sheet.add_symbol(metric, symbol, times, method);
        }
    }
    Ok(vec![sheet.finish()])
}
