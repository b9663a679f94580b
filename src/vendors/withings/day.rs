//! What Withings says of a day: `getactivity`, and its `getworkouts`.

use crate::error::Reject;
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::sheet::{Field, Sheet, Zone, field, integer};
use crate::vendors::withings::sheet::{
    Whats, date, elements, head, id, modified, of_day, record, times, what, zone,
};
use crate::vendors::{Raw, What};

const ACTIVITY: &[Field] = &[
    field(&["steps"], "steps_daily"),
    field(&["distance"], "distance_walk_run").context("day"),
    field(&["elevation"], "floors_climbed"),
    field(&["moderate"], "activity_moderate_duration"),
    field(&["intense"], "activity_vigorous_duration"),
    field(&["calories"], "energy_active").context("day"),
    field(&["totalcalories"], "energy_total_daily"),
    field(&["hr_average"], "heart_rate_daily_avg"),
    field(&["hr_max"], "heart_rate_daily_max"),
];

/// The brand of Withings' own devices.
const OWN: i64 = 1;

/// The names of what a day and a workout are asked for.
pub(super) fn fields(all: &[&'static [Field]]) -> String {
    let names = all.iter().flat_map(|fields| fields.iter());
    let names: Vec<&str> = names.filter_map(|field| field.path.last().copied()).collect();
    names.join(",")
}

/// The fields of a day.
pub(super) fn of_days() -> String {
    fields(&[ACTIVITY])
}

/// The fields of a workout.
pub(super) fn of_workouts() -> String {
    fields(&[WORKOUT, ON_FOOT])
}

/// Days.
pub(super) fn days(raw: &Raw<'_>) -> Result<Whats, Reject> {
    let json = json::parse(raw.body)?;
    let mut whats = Vec::new();
    elements(&json.root(), "activities", &mut |index, at, body| {
        whats.push((index, what(activity(raw, at, body))));
    })?;
    Ok(whats)
}

fn activity(raw: &Raw<'_>, at: &At<'_>, body: &At<'_>) -> Result<What, Reject> {
    let date_at = at.object()?.need("date")?;
    let day = date(at)?.ok_or_else(|| date_at.malformed("not a date"))?;
    let zone = zone(at, body)?;
    let head = head(raw, modified(at)?);
    let mut sheet = of_day(&head, "daily", day, zone.as_deref());
    if let Some(brand) = integer(at, &["brand"])? {
        sheet.attribute("source", if brand == OWN { "withings" } else { "external" });
    }
    sheet.fields(at, ACTIVITY)?;
    Ok(record(sheet))
}

const WORKOUT: &[Field] = &[
    field(&["data", "hr_average"], "heart_rate").method("mean").context("workout"),
    field(&["data", "hr_max"], "heart_rate").method("max").context("workout"),
    field(&["data", "calories"], "energy_active").method("total").context("workout"),
];

const ON_FOOT: &[Field] =
    &[field(&["data", "distance"], "distance_walk_run").method("total").context("workout")];

/// Withings' categories that are known here; its others are `unlisted`.
#[rustfmt::skip]
const SPORTS: &[(i64, &str)] = &[
    (1, "walking"), (2, "running"), (3, "hiking"), (4, "skating"), (5, "bmx"), (6, "cycling"), (7, "swimming"),
    (8, "surfing"), (12, "tennis"), (13, "table_tennis"), (14, "squash"), (15, "badminton"), (16, "weight_lifting"),
    (17, "fitness"), (18, "elliptical"), (19, "pilates"), (20, "basketball"), (21, "soccer"), (22, "football"),
    (23, "rugby"), (24, "volleyball"), (26, "horse_riding"), (27, "golf"), (28, "yoga"), (29, "dancing"),
    (30, "boxing"), (33, "martial_arts"), (34, "skiing"), (35, "snowboarding"), (36, "other"), (187, "rowing"),
    (195, "climbing"), (272, "multisport"), (306, "indoor_walking"), (307, "indoor_running"),
    (308, "indoor_cycling"), (498, "trail_running"), (523, "mountain_biking"), (530, "nordic_skiing"),
    (550, "interval_training"), (566, "nordic_walking"),
];

const FEET: [&str; 7] = [
    "walking",
    "running",
    "hiking",
    "indoor_walking",
    "indoor_running",
    "trail_running",
    "nordic_walking",
];
/// The category of what is no workout.
const NONE: i64 = 128;

/// Workouts.
pub(super) fn workouts(raw: &Raw<'_>) -> Result<Whats, Reject> {
    let json = json::parse(raw.body)?;
    let mut whats = Vec::new();
    elements(&json.root(), "series", &mut |index, at, body| {
        whats.push((index, what(workout(raw, at, body))));
    })?;
    Ok(whats)
}

fn workout(raw: &Raw<'_>, at: &At<'_>, body: &At<'_>) -> Result<What, Reject> {
    let record_id = id(&at.object()?.need("id")?)?;
    let category = at.need("category")?.integer()?;
    if category == NONE {
        return Ok(What::Ignored("no workout"));
    }
    let zone = zone(at, body)?;
    let (start, end) = times(at, zone.as_deref())?;
    let head = head(raw, modified(at)?);
    let mut sheet = Sheet::new(&head, "workout", record_id, Zone::unknown(), (start, Some(end)));
    let day = date(at)?.map(|day| (day, "vendor_day"));
    if let Some((day, rule)) = day.or_else(|| Some((start.local_date()?, "civil_midnight"))) {
        sheet.belongs(Some(day), rule);
    }
    let known = SPORTS.iter().find(|(known, _)| *known == category);
    let sport = known.map_or("unlisted", |(_, sport)| *sport);
    sheet.attribute("sport", sport);
    let method = match integer(at, &["attrib"])? {
        Some(2 | 4) => "manual",
        Some(0 | 7 | 8) => "automatic",
        _ => "unknown",
    };
    sheet.content.recording_method = Some(method.to_owned());
    sheet.lasted("workout_session");
    sheet.fields(at, WORKOUT)?;
    if FEET.contains(&sport) {
        sheet.fields(at, ON_FOOT)?;
    }
    Ok(record(sheet))
}
