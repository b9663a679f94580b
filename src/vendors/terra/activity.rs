//! `activity`: one workout.
//!
//! - `metadata.type` 0 (in a vehicle) and `upload_type` 0 are values, not absences.
//! - `upload_type` 4 deletes it; the record then needs no more than its id.
//! - Distance is `distance_walk_run` only where the sport goes on foot.
//! - A day's metrics (intensity durations, total energy) are not read off a workout: the day has
//!   them already.

use crate::error::Reject;
use crate::model::event::Op;
use crate::vendors::VendorRecord;
use crate::vendors::terra::day::{OXYGEN, TOTALS, VO2, upload};
use crate::vendors::terra::record::{Field, Head, Sheet, Time, Zone, field, id, integer, number};
use crate::vendors::terra::sport;
use crate::vendors::terra::vitals::{self, Saturation};
use crate::vendors::wire::json::At;

/// A workout's total, which its samples, where there are any, add up to.
const fn total(path: &'static [&'static str], metric: &'static str) -> Field {
    field(path, metric).method("total").context("workout")
}

pub(super) const FIELDS: &[Field] = &[
    field(&["heart_rate_data", "summary", "avg_hr_bpm"], "heart_rate")
        .method("mean")
        .context("workout"),
    field(&["heart_rate_data", "summary", "max_hr_bpm"], "heart_rate")
        .method("max")
        .context("workout"),
    field(&["heart_rate_data", "summary", "min_hr_bpm"], "heart_rate")
        .method("min")
        .context("workout"),
    field(&["heart_rate_data", "summary", "avg_hrv_rmssd"], "hrv_rmssd")
        .method("mean")
        .context("workout"),
    field(&["heart_rate_data", "summary", "avg_hrv_sdnn"], "hrv_sdnn")
        .method("mean")
        .context("workout"),
    total(&["distance_data", "summary", "steps"], "steps"),
    total(&["distance_data", "summary", "floors_climbed"], "floors_climbed"),
    total(&["calories_data", "net_activity_calories"], "energy_active"),
    total(&["calories_data", "BMR_calories"], "energy_basal"),
    field(&["oxygen_data", "vo2max_ml_per_min_per_kg"], "vo2_max"),
];

pub(super) const ON_FOOT: &[Field] =
    &[total(&["distance_data", "summary", "distance_meters"], "distance_walk_run")];

/// One workout.
pub(super) fn read(head: &Head, item: &At<'_>) -> Result<Vec<VendorRecord>, Reject> {
    let metadata = item.object()?.need("metadata")?;
    let metadata = metadata.object()?;
    let key = id(&metadata.need("summary_id")?)?;
    let zone = Zone::of(metadata)?;
    if integer(metadata, &["upload_type"])? == Some(4) {
        return Ok(vec![deleted(head, metadata, key, zone)?]);
    }
    let start = zone.read(&metadata.need("start_time")?)?;
    let end_at = metadata.need("end_time")?;
    let end = zone.read(&end_at)?;
    if end.at_us < start.at_us {
        return Err(end_at.invalid("an end before its start"));
    }
    let mut sheet = session(head, key, zone, (start, Some(end)));
    upload(&mut sheet, metadata)?;
    let kind = integer(metadata, &["type"])?;
    if let Some(kind) = kind {
        sheet.attribute("sport", sport::name(kind));
    }
    sheet.device(item)?;
    sheet.lasted("workout_session");
    measure(&mut sheet, item, kind.is_some_and(sport::is_on_foot))?;
    Ok(vec![sheet.finish()])
}

fn session<'a>(head: &'a Head, key: String, zone: Zone, times: (Time, Option<Time>)) -> Sheet<'a> {
    let mut sheet = Sheet::new(head, "activity", key, zone, times);
    sheet.belongs(times.0.local_date(), "civil_midnight");
    sheet
}

fn deleted(
    head: &Head,
    metadata: &At<'_>,
    key: String,
    zone: Zone,
) -> Result<VendorRecord, Reject> {
    let start = metadata.get("start_time").map(|at| zone.read(&at)).transpose()?;
    let end = metadata.get("end_time").map(|at| zone.read(&at)).transpose()?;
    let mut sheet = match start {
        Some(start) => session(head, key, zone, (start, end)),
        None => Sheet::timeless(head, "activity", key),
    };
    upload(&mut sheet, metadata)?;
    sheet.op = Op::Delete;
    Ok(sheet.finish())
}

fn measure(sheet: &mut Sheet<'_>, item: &At<'_>, on_foot: bool) -> Result<(), Reject> {
    sheet.fields(item, FIELDS)?;
    if on_foot {
        sheet.fields(item, ON_FOOT)?;
    }
    let strain = number(item, &["strain_data", "strain_level"])?;
    if let (Some(value), Some(metric)) = (strain, sheet.head.own("strain")) {
        sheet.add(metric, value, None, Some("workout"));
    }
    vitals::rates(sheet, item, &["heart_rate_data"], Some("workout"))?;
    vitals::saturation(sheet, item, &Saturation { context: Some("workout"), ..OXYGEN })?;
    sheet.series(item, VO2)?;
    for total in TOTALS.iter().filter(|total| on_foot || total.metric != "distance_walk_run") {
        sheet.running_total(item, total)?;
    }
    Ok(())
}
