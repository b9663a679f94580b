//! Points with a name, a start and an end: sleeps and exercises.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::Micros;
use crate::vendors::VendorRecord;
use crate::vendors::google::point::{self, amount_at, instant, interval, word};
use crate::vendors::wire::json::At;
use crate::vendors::wire::sheet::{Field, Sheet, Time, Zone, boolean, field};

/// Seconds in a minute.
const S_PER_MIN: f64 = 60.0;

/// Minutes of the summary.
const SLEEP: &[(&[&str], &str)] = &[
    (&["summary", "minutesInSleepPeriod"], "sleep_time_in_bed"),
    (&["summary", "minutesAsleep"], "sleep_total_duration"),
    (&["summary", "minutesAwake"], "sleep_awake_duration"),
    (&["summary", "minutesToFallAsleep"], "sleep_latency"),
];
/// Minutes of the summary's stages.
const STAGES: &[(&str, &str)] = &[
    ("DEEP", "sleep_deep_duration"),
    ("LIGHT", "sleep_light_duration"),
    ("REM", "sleep_rem_duration"),
];
/// Stages by Google's names; those of a classic sleep are not told apart by depth.
const SYMBOLS: &[(&str, &str)] = &[
    ("AWAKE", "awake"),
    ("LIGHT", "light"),
    ("DEEP", "deep"),
    ("REM", "rem"),
    ("ASLEEP", "asleep_unspecified"),
];

const EXERCISE: &[Field] = &[
    field(&["metricsSummary", "averageHeartRateBeatsPerMinute"], "heart_rate")
        .method("mean")
        .context("workout"),
    field(&["metricsSummary", "caloriesKcal"], "energy_active").method("total").context("workout"),
    field(&["metricsSummary", "steps"], "steps").method("total").context("workout"),
];
const ON_FOOT: &[Field] = &[field(&["metricsSummary", "distanceMillimeters"], "distance_walk_run")
    .divisor(1_000.0)
    .method("total")
    .context("workout")];

/// Exercises by Google's names; ours are the same in lower case. True: it goes on foot.
const SPORTS: &[(&str, &str, bool)] = &[
    ("RUNNING", "running", true),
    ("TREADMILL", "treadmill", true),
    ("WALKING", "walking", true),
    ("HIKING", "hiking", true),
    ("BIKING", "biking", false),
    ("OUTDOOR_BIKE", "outdoor_bike", false),
    ("SPINNING", "spinning", false),
    ("SWIMMING", "swimming", false),
    ("SWIMMING_POOL", "swimming_pool", false),
    ("SWIMMING_OPEN_WATER", "swimming_open_water", false),
    ("ROWING", "rowing", false),
    ("ROWING_MACHINE", "rowing_machine", false),
    ("ELLIPTICAL", "elliptical", false),
    ("STAIR_CLIMBING", "stair_climbing", false),
    ("STRENGTH_TRAINING", "strength_training", false),
    ("WEIGHTLIFTING", "weightlifting", false),
    ("WEIGHTS", "weights", false),
    ("HIIT", "hiit", false),
    ("INTERVAL_WORKOUT", "interval_workout", false),
    ("CIRCUIT_TRAINING", "circuit_training", false),
    ("YOGA", "yoga", false),
    ("PILATES", "pilates", false),
    ("DANCING", "dancing", false),
    ("MARTIAL_ARTS", "martial_arts", false),
    ("BOXING", "boxing", false),
    ("GOLF", "golf", false),
    ("TENNIS", "tennis", false),
    ("SOCCER", "soccer", false),
    ("BASKETBALL", "basketball", false),
    ("SKIING", "skiing", false),
    ("SNOWBOARDING", "snowboarding", false),
    ("WORKOUT", "workout", false),
    ("SPORT", "sport", false),
    ("OTHER", "other", false),
];

/// A sleep. One that still lasts, or that Google has not processed, is tentative and has no values.
pub(super) fn sleep(
    received_at: Micros,
    name: String,
    point: &At<'_>,
    data: &At<'_>,
) -> Result<VendorRecord, Reject> {
    let head = point::head(received_at, version(point, data)?);
    let times = interval(data)?;
    let mut sheet = Sheet::new(&head, "sleep", name, Zone::unknown(), times);
    sheet.belongs(times.1.and_then(|end| end.local_date()), "sleep_end");
    point::tell(&mut sheet, point::origin(point)?);
    if let Some(kind) = word(data, "type", &[("STAGES", "stages"), ("CLASSIC", "classic")])? {
        sheet.attribute("sleep_type", kind);
    }
    for (theirs, ours) in [("nap", "is_nap"), ("manuallyEdited", "manually_edited")] {
        if let Some(is) = boolean(data, &["metadata", theirs])? {
            sheet.attribute(ours, is.to_string());
        }
    }
    let processed = boolean(data, &["metadata", "processed"])?;
    if times.1.is_none() || processed == Some(false) {
        "tentative".clone_into(&mut sheet.content.state);
        return Ok(sheet.finish());
    }
    sheet.lasted("sleep_session");
    for (path, name) in SLEEP {
        minutes(&mut sheet, name, amount_at(data, path)?);
    }
    summed(&mut sheet, data)?;
    stages(&mut sheet, data)?;
    Ok(sheet.finish())
}

fn minutes(sheet: &mut Sheet<'_>, name: &str, minutes: Option<f64>) {
    if let (Some(metric), Some(minutes)) = (metric::find(name), minutes) {
        sheet.add(metric, minutes * S_PER_MIN, None, None);
    }
}

/// What the summary says of each stage.
fn summed(sheet: &mut Sheet<'_>, data: &At<'_>) -> Result<(), Reject> {
    let Some(summary) = data.get("summary") else { return Ok(()) };
    let Some(list) = summary.object()?.get("stagesSummary") else { return Ok(()) };
    for stage in list.items()? {
        let found = word(stage.object()?, "type", STAGES)?;
        if let Some(name) = found.filter(|name| *name != "unlisted") {
            minutes(sheet, name, amount_at(&stage, &["minutes"])?);
        }
    }
    Ok(())
}

/// The stages as intervals, in the order of their starts.
fn stages(sheet: &mut Sheet<'_>, data: &At<'_>) -> Result<(), Reject> {
    let (Some(list), Some(metric)) = (data.get("stages"), metric::find("sleep_stage")) else {
        return Ok(());
    };
    let mut found = Vec::new();
    for stage in list.items()? {
        let start = instant(&stage.object()?.need("startTime")?)?.at_us;
        let end_at = stage.need("endTime")?;
        let end = instant(&end_at)?.at_us;
        if end < start {
            return Err(end_at.invalid("an end before its start"));
        }
        let symbol = word(&stage, "type", SYMBOLS)?.filter(|symbol| *symbol != "unlisted");
        if end > start {
            found.push((start, end, symbol.unwrap_or("unknown")));
        }
    }
    found.sort_unstable();
    for (start, end, symbol) in found {
        sheet.add_symbol(metric, symbol, (start, Some(end)), None);
    }
    Ok(())
}

/// An exercise. One that still lasts has no values.
pub(super) fn exercise(
    received_at: Micros,
    name: String,
    point: &At<'_>,
    data: &At<'_>,
) -> Result<VendorRecord, Reject> {
    let head = point::head(received_at, version(point, data)?);
    let times = interval(data)?;
    let mut sheet = Sheet::new(&head, "workout", name, Zone::unknown(), times);
    sheet.belongs(times.0.local_date(), "civil_midnight");
    point::tell(&mut sheet, point::origin(point)?);
    let kind = data.get("exerciseType").map(|at| at.text()).transpose()?;
    let known = kind.map(|text| SPORTS.iter().find(|(theirs, ..)| *theirs == text));
    if let Some(known) = known {
        sheet.attribute("sport", known.map_or("unlisted", |(_, ours, _)| *ours));
    }
    if times.1.is_none() {
        "tentative".clone_into(&mut sheet.content.state);
        return Ok(sheet.finish());
    }
    sheet.lasted("workout_session");
    point::fields(&mut sheet, data, EXERCISE)?;
    if known.flatten().is_some_and(|(.., on_foot)| *on_foot) {
        point::fields(&mut sheet, data, ON_FOOT)?;
    }
    Ok(sheet.finish())
}

/// When it was last changed; among what it says, or beside it.
fn version(point: &At<'_>, data: &At<'_>) -> Result<Option<Micros>, Reject> {
    let read = |at: At<'_>| instant(&at).map(|time: Time| time.at_us);
    let within = data.get("updateTime").map(read).transpose()?;
    let beside = point.get("updateTime").map(read).transpose()?;
    Ok(within.or(beside))
}
