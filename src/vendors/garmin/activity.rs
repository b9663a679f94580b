//! What a person did: `activities` and `manuallyUpdatedActivities`, and their samples in
//! `activityDetails`.
//!
//! An activity that its person corrects comes under another key with the same id: a revision. Names,
//! places and devices' names stay in the raw topic.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::Micros;
use crate::vendors::VendorRecord;
use crate::vendors::garmin::sheet::{Span, USUAL, head, second};
use crate::vendors::wire::json::At;
use crate::vendors::wire::sheet::{Field, Head, Sheet, Zone, boolean, field, id, number};

const FIELDS: &[Field] = &[
    field(&["averageHeartRateInBeatsPerMinute"], "heart_rate").method("mean").context("workout"),
    field(&["maxHeartRateInBeatsPerMinute"], "heart_rate").method("max").context("workout"),
    field(&["activeKilocalories"], "energy_active").method("total").context("workout"),
    field(&["steps"], "steps").method("total").context("workout"),
];
const ON_FOOT: &[Field] =
    &[field(&["distanceInMeters"], "distance_walk_run").method("total").context("workout")];

/// Sports by Garmin's names; ours are the same in lower case. True: it goes on foot.
const SPORTS: &[(&str, &str, bool)] = &[
    ("RUNNING", "running", true),
    ("INDOOR_RUNNING", "indoor_running", true),
    ("STREET_RUNNING", "street_running", true),
    ("TRACK_RUNNING", "track_running", true),
    ("TRAIL_RUNNING", "trail_running", true),
    ("TREADMILL_RUNNING", "treadmill_running", true),
    ("WALKING", "walking", true),
    ("CASUAL_WALKING", "casual_walking", true),
    ("SPEED_WALKING", "speed_walking", true),
    ("HIKING", "hiking", true),
    ("CYCLING", "cycling", false),
    ("INDOOR_CYCLING", "indoor_cycling", false),
    ("GRAVEL_CYCLING", "gravel_cycling", false),
    ("MOUNTAIN_BIKING", "mountain_biking", false),
    ("ROAD_BIKING", "road_biking", false),
    ("VIRTUAL_RIDE", "virtual_ride", false),
    ("SWIMMING", "swimming", false),
    ("LAP_SWIMMING", "lap_swimming", false),
    ("OPEN_WATER_SWIMMING", "open_water_swimming", false),
    ("ROWING", "rowing", false),
    ("INDOOR_ROWING", "indoor_rowing", false),
    ("ELLIPTICAL", "elliptical", false),
    ("STAIR_CLIMBING", "stair_climbing", false),
    ("STRENGTH_TRAINING", "strength_training", false),
    ("INDOOR_CARDIO", "indoor_cardio", false),
    ("FITNESS_EQUIPMENT", "fitness_equipment", false),
    ("HIIT", "hiit", false),
    ("YOGA", "yoga", false),
    ("PILATES", "pilates", false),
    ("CROSS_COUNTRY_SKIING", "cross_country_skiing", false),
    ("RESORT_SKIING", "resort_skiing", false),
    ("SNOWBOARDING", "snowboarding", false),
    ("GOLF", "golf", false),
    ("TENNIS", "tennis", false),
    ("OTHER", "other", false),
];

/// One activity.
pub(super) fn summary(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let head = head(received_at, None);
    let mut sheet = open(&head, "activity", key(item)?, item)?;
    let on_foot = sport(&mut sheet, item)?;
    if let Some(manual) = boolean(item, &["manual"])? {
        let method = if manual { "manual" } else { "automatic" };
        sheet.content.recording_method = Some(method.to_owned());
    }
    sheet.lasted("workout_session");
    sheet.fields(item, FIELDS)?;
    if on_foot {
        sheet.fields(item, ON_FOOT)?;
    }
    Ok(sheet.finish())
}

/// The heart rates of one activity: what else there is of it is its summary's, which comes by itself.
pub(super) fn samples(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let head = head(received_at, None);
    let nested = item.get("summary");
    let summary = nested.as_ref().unwrap_or(item);
    let mut sheet = open(&head, "activity_samples", key(item)?, summary)?;
    sport(&mut sheet, summary)?;
    let (Some(list), Some(metric)) = (item.get("samples"), metric::find("heart_rate")) else {
        return Ok(sheet.finish());
    };
    for sample in list.items()? {
        let sample = sample.object()?;
        let at_us = sample.get("startTimeInSeconds").map(|at| second(&at)).transpose()?;
        let rate = number(sample, &["heartRate"])?;
        if let (Some(at_us), Some(rate)) = (at_us, rate) {
            sheet.add_at(metric, rate, (at_us, None), None, Some("workout"));
        }
    }
    Ok(sheet.finish())
}

fn open<'a>(
    head: &'a Head,
    record_type: &'static str,
    key: String,
    summary: &At<'_>,
) -> Result<Sheet<'a>, Reject> {
    let span = Span::of(summary.object()?, USUAL)?;
    let times = (span.start, span.end);
    let mut sheet = Sheet::new(head, record_type, key, Zone::unknown(), times);
    sheet.belongs(span.start.local_date(), "civil_midnight");
    Ok(sheet)
}

/// The id that a summary, its correction and its details share.
fn key(item: &At<'_>) -> Result<String, Reject> {
    if let Some(at) = item.get("activityId") {
        return at.integer().map(|number| number.to_string());
    }
    let id = id(&item.need("summaryId")?)?;
    let whole = id.strip_suffix("-detail").filter(|rest| !rest.is_empty());
    Ok(whole.unwrap_or(&id).to_owned())
}

/// Says which sport it was; whether it goes on foot.
fn sport(sheet: &mut Sheet<'_>, item: &At<'_>) -> Result<bool, Reject> {
    let Some(at) = item.get("activityType") else { return Ok(false) };
    let text = at.text()?;
    let known = SPORTS.iter().find(|(theirs, ..)| *theirs == text);
    let (_, name, on_foot) = known.unwrap_or(&("", "unlisted", false));
    sheet.attribute("sport", *name);
    Ok(*on_foot)
}
