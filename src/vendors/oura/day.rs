//! What Oura gives by the day. A document with a `timestamp` begins there; one without has its day
//! and no instant.

use crate::error::Reject;
use crate::model::metric;
use crate::vendors::VendorRecord;
use crate::vendors::oura::document::{attribute, day_of, key, word};
use crate::vendors::wire::json::At;
use crate::vendors::wire::sheet::{Field, Head, Sheet, Time, Zone, field};

/// Opens the record of a day. Where a document has no id its day is its key.
fn open<'a>(head: &'a Head, at: &At<'_>, record_type: &'static str) -> Result<Sheet<'a>, Reject> {
    let day = day_of(at)?;
    let start = match at.get("timestamp") {
        Some(time) => Zone::unknown().read(&time)?,
        None => Time::floating_midnight(day),
    };
    let mut sheet = Sheet::of_day(head, record_type, day, Zone::unknown(), (start, None));
    if at.get("id").is_some() {
        sheet.record_id = key(at)?;
    }
    Ok(sheet)
}

fn of_fields(
    head: &Head,
    at: &At<'_>,
    record_type: &'static str,
    fields: &[Field],
) -> Result<VendorRecord, Reject> {
    let mut sheet = open(head, at, record_type)?;
    sheet.fields(at, fields)?;
    Ok(sheet.finish())
}

/// The night's score.
pub(super) fn sleep(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    of_fields(head, at, "daily_sleep", &[field(&["score"], "oura.sleep_score")])
}

const READINESS: &[Field] = &[
    field(&["score"], "oura.readiness_score"),
    field(&["temperature_deviation"], "skin_temperature_deviation"),
    field(&["temperature_trend_deviation"], "skin_temperature_trend_deviation"),
    field(&["contributors", "activity_balance"], "oura.readiness_contributor.activity_balance"),
    field(&["contributors", "body_temperature"], "oura.readiness_contributor.body_temperature"),
    field(&["contributors", "hrv_balance"], "oura.readiness_contributor.hrv_balance"),
    field(
        &["contributors", "previous_day_activity"],
        "oura.readiness_contributor.previous_day_activity",
    ),
    field(&["contributors", "previous_night"], "oura.readiness_contributor.previous_night"),
    field(&["contributors", "recovery_index"], "oura.readiness_contributor.recovery_index"),
    field(&["contributors", "resting_heart_rate"], "oura.readiness_contributor.resting_heart_rate"),
    field(&["contributors", "sleep_balance"], "oura.readiness_contributor.sleep_balance"),
    field(&["contributors", "sleep_regularity"], "oura.readiness_contributor.sleep_regularity"),
];

/// The night's readiness, and its temperature.
pub(super) fn readiness(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    of_fields(head, at, "daily_readiness", READINESS)
}

/// The distance is made of energy, so it is not what was walked.
const ACTIVITY: &[Field] = &[
    field(&["score"], "oura.activity_score"),
    field(&["steps"], "steps_daily"),
    field(&["active_calories"], "energy_active").context("day"),
    field(&["total_calories"], "energy_total_daily"),
    field(&["medium_activity_time"], "activity_moderate_duration"),
    field(&["high_activity_time"], "activity_vigorous_duration"),
    field(&["sedentary_time"], "sedentary_duration"),
    field(&["non_wear_time"], "non_wear_duration"),
    field(&["sedentary_met_minutes"], "met_minutes").method("sedentary"),
    field(&["low_activity_met_minutes"], "met_minutes").method("low"),
    field(&["medium_activity_met_minutes"], "met_minutes").method("medium"),
    field(&["high_activity_met_minutes"], "met_minutes").method("high"),
];

/// A day of activity, which is one from four o'clock to four o'clock.
pub(super) fn activity(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let mut sheet = open(head, at, "daily_activity")?;
    sheet.belongs(Some(day_of(at)?), "oura_0400");
    sheet.fields(at, ACTIVITY)?;
    Ok(sheet.finish())
}

/// The night's oxygen and breathing.
pub(super) fn saturation(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    const FIELDS: &[Field] = &[
        field(&["spo2_percentage", "average"], "spo2_sleep_avg"),
        field(&["breathing_disturbance_index"], "oura.breathing_disturbance"),
    ];
    of_fields(head, at, "daily_spo2", FIELDS)
}

/// The day's stress.
pub(super) fn stress(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    const FIELDS: &[Field] = &[
        field(&["stress_high"], "oura.stress_high_duration"),
        field(&["recovery_high"], "oura.recovery_high_duration"),
    ];
    let mut sheet = open(head, at, "daily_stress")?;
    sheet.fields(at, FIELDS)?;
    let words = ["restored", "normal", "stressful"];
    attribute(&mut sheet, at, ("day_summary", "day_summary"), &words)?;
    Ok(sheet.finish())
}

/// The level of resilience, which is a word.
pub(super) fn resilience(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    let mut sheet = open(head, at, "daily_resilience")?;
    let Some(metric) = metric::find("oura.resilience_level") else { return Ok(sheet.finish()) };
    match word(at, "level", metric.symbols)? {
        Some("unlisted") => sheet.attribute("level", "unlisted"),
        Some(level) => sheet.add_symbol(metric, level, (sheet.start.at_us, None), None),
        None => {}
    }
    Ok(sheet.finish())
}

/// The age of the vessels.
pub(super) fn vessels(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    const FIELDS: &[Field] = &[
        field(&["vascular_age"], "oura.vascular_age"),
        field(&["pulse_wave_velocity"], "pulse_wave_velocity"),
    ];
    of_fields(head, at, "daily_cardiovascular_age", FIELDS)
}

/// The capacity for oxygen.
pub(super) fn vo2_max(head: &Head, at: &At<'_>) -> Result<VendorRecord, Reject> {
    of_fields(head, at, "vo2_max", &[field(&["vo2_max"], "vo2_max")])
}
