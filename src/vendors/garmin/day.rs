//! What Garmin says of a day and its quarters of an hour: `dailies`, `epochs`, `stressDetails`,
//! `userMetrics`, `mct`.
//!
//! A day is pushed anew at every sync, with more in it each time; the last push stands. Epochs are
//! apart from it and never added to it: `steps` of epochs, `steps_daily` of the day.

use crate::error::Reject;
use crate::model::metric;
use crate::model::time::{Day, Micros};
use crate::vendors::VendorRecord;
use crate::vendors::garmin::sheet::{
    Samples, Span, USUAL, any, calendar, grown, head, not_negative, of_day, of_time, samples,
    second,
};
use crate::vendors::wire::json::At;
use crate::vendors::wire::sheet::{Field, Sheet, Time, Zone, boolean, field, number};

const DAILY: &[Field] = &[
    field(&["steps"], "steps_daily"),
    field(&["distanceInMeters"], "distance_walk_run").context("day"),
    field(&["activeKilocalories"], "energy_active").context("day"),
    field(&["bmrKilocalories"], "energy_basal").context("day"),
    field(&["floorsClimbed"], "floors_climbed").context("day"),
    field(&["moderateIntensityDurationInSeconds"], "activity_moderate_duration"),
    field(&["vigorousIntensityDurationInSeconds"], "activity_vigorous_duration"),
    field(&["restingHeartRateInBeatsPerMinute"], "resting_heart_rate")
        .method("provider_unspecified"),
    field(&["averageHeartRateInBeatsPerMinute"], "heart_rate_daily_avg"),
    field(&["maxHeartRateInBeatsPerMinute"], "heart_rate_daily_max"),
];

/// Levels of a day: the names that a field has had, the metric, the statistic.
const LEVELS: &[(&[&str], &str, &str)] = &[
    (&["averageStressLevel", "averageStresslevel"], "garmin.stress_level", "mean"),
    (&["maxStressLevel", "maxStresslevel"], "garmin.stress_level", "max"),
    (&["bodyBatteryHighestValue"], "garmin.body_battery", "max"),
    (&["bodyBatteryLowestValue"], "garmin.body_battery", "min"),
    (&["bodyBatteryMostRecentValue"], "garmin.body_battery", "latest"),
];

const RATES: Samples = Samples {
    name: "timeOffsetHeartRateSamples",
    metric: "heart_rate",
    context: None,
    window_s: None,
    is_value: any,
};
const STRESS: Samples = Samples {
    name: "timeOffsetStressLevelValues",
    metric: "garmin.stress_level",
    is_value: not_negative,
    ..RATES
};
const BATTERY: Samples =
    Samples { name: "timeOffsetBodyBatteryValues", metric: "garmin.body_battery", ..STRESS };

/// A day.
pub(super) fn daily(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let head = head(received_at, grown(span.last_us(), received_at));
    let mut sheet = of_day(&head, "daily", item, span)?;
    sheet.fields(item, DAILY)?;
    for (names, metric, method) in LEVELS {
        let mut value = None;
        for name in *names {
            value = value.or(number(item, &[name])?);
        }
        let value = value.filter(|value| not_negative(*value));
        if let (Some(value), Some(metric)) = (value, metric::find(metric)) {
            sheet.add(metric, value, Some(method), Some("day"));
        }
    }
    samples(&mut sheet, item, &RATES)?;
    Ok(sheet.finish())
}

/// A day's stress and body battery, every few minutes.
pub(super) fn stress(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let head = head(received_at, grown(span.last_us(), received_at));
    let mut sheet = of_day(&head, "stress", item, span)?;
    samples(&mut sheet, item, &STRESS)?;
    samples(&mut sheet, item, &BATTERY)?;
    Ok(sheet.finish())
}

const EPOCH: &[Field] =
    &[field(&["steps"], "steps"), field(&["activeKilocalories"], "energy_active")];
const ON_FOOT: &[Field] = &[field(&["distanceInMeters"], "distance_walk_run")];

/// Types of an epoch, our name of each, and whether its distance is walked or run.
const EPOCH_TYPES: &[(&str, &str, bool)] = &[
    ("SEDENTARY", "sedentary", true),
    ("GENERIC", "generic", true),
    ("WALKING", "walking", true),
    ("RUNNING", "running", true),
    ("CYCLING", "cycling", false),
    ("SWIMMING", "swimming", false),
    ("WHEELCHAIR_PUSH_WALK", "wheelchair_push_walk", false),
    ("WHEELCHAIR_PUSH_RUN", "wheelchair_push_run", false),
];

const INTENSITIES: &[(&str, &str)] =
    &[("SEDENTARY", "sedentary"), ("ACTIVE", "active"), ("HIGHLY_ACTIVE", "highly_active")];

/// A quarter of an hour of one type of activity: several may share a start, and each counts.
pub(super) fn epoch(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let span = Span::of(item, USUAL)?;
    let given = item.get("activityType");
    let given = given.map(|at| enumerated(&at)).transpose()?;
    let (_, name, on_foot) = EPOCH_TYPES
        .iter()
        .find(|(theirs, ..)| Some(*theirs) == given)
        .unwrap_or(&("", "unlisted", false));
    let head = head(received_at, None);
    let beside = given.map(str::to_ascii_lowercase);
    let mut sheet = of_time(&head, "epoch", item, span, beside.as_deref())?;
    sheet.attribute("activity", *name);
    if let Some(at) = item.get("intensity") {
        let text = at.text()?;
        let known = INTENSITIES.iter().find(|(theirs, _)| *theirs == text);
        sheet.attribute("intensity", known.map_or("unlisted", |(_, ours)| *ours));
    }
    sheet.fields(item, EPOCH)?;
    if *on_foot {
        sheet.fields(item, ON_FOOT)?;
    }
    Ok(sheet.finish())
}

/// A symbol of one of Garmin's enumerations: it becomes part of a key, known to us or not.
fn enumerated<'a>(at: &At<'a>) -> Result<&'a str, Reject> {
    let text = at.text()?;
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err(at.malformed("not a symbol"))
    }
}

const METRICS: &[Field] =
    &[field(&["vo2Max"], "vo2_max"), field(&["vo2MaxCycling"], "vo2_max").method("cycling")];

/// What Garmin estimates of a person by the day; all that is said of time is the date.
pub(super) fn metrics(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let at = item.need("calendarDate")?;
    let day = Day::parse(at.text()?).ok_or_else(|| at.malformed("not a date"))?;
    let head = head(received_at, None);
    let times = (Time::floating_midnight(day), None);
    let mut sheet = Sheet::of_day(&head, "user_metrics", day, Zone::unknown(), times);
    sheet.fields(item, METRICS)?;
    if let Some(enhanced) = boolean(item, &["enhanced"])? {
        sheet.attribute("enhanced", enhanced.to_string());
    }
    Ok(sheet.finish())
}

/// Phases of a cycle, our name of each, and the vocabulary's where it has one.
const PHASES: &[(&str, &str, Option<&str>)] = &[
    ("MENSTRUAL", "menstrual", Some("menstrual")),
    ("PERIOD", "menstrual", Some("menstrual")),
    ("FOLLICULAR", "follicular", Some("follicular")),
    ("OVULATION", "ovulation", Some("ovulation")),
    ("FERTILE_WINDOW", "fertile_window", None),
    ("LUTEAL", "luteal", Some("luteal")),
    ("FIRST_TRIMESTER", "first_trimester", None),
    ("SECOND_TRIMESTER", "second_trimester", None),
    ("THIRD_TRIMESTER", "third_trimester", None),
];

/// A day of a cycle: the summary is of the cycle and says which day of it has come, so each day is a
/// record of its own. Its pregnancy stays in the raw topic.
pub(super) fn cycle(received_at: Micros, item: &At<'_>) -> Result<VendorRecord, Reject> {
    let begin_at = item.need("periodStartDate")?;
    let begin =
        calendar(item, "periodStartDate")?.ok_or_else(|| begin_at.malformed("not a date"))?;
    let version = item.get("lastUpdatedTimeInSeconds").map(|at| second(&at)).transpose()?;
    let head = head(received_at, version);
    let count_at = item.need("dayInCycle")?;
    let count = i32::try_from(count_at.integer()?).ok().filter(|count| (1..=400).contains(count));
    let count = count.ok_or_else(|| count_at.invalid("not a day of a cycle"))?;
    let day = Day(begin.0.saturating_add(count - 1));
    let times = (Time::floating_midnight(day), None);
    let mut sheet = Sheet::of_day(&head, "menstrual_cycle", day, Zone::unknown(), times);
    let predicted = boolean(item, &["isPredictedCycle"])?;
    let method = (predicted == Some(true)).then_some("predicted");
    if let Some(predicted) = predicted {
        sheet.attribute("is_predicted", predicted.to_string());
    }
    if method.is_some() {
        "tentative".clone_into(&mut sheet.content.state);
    }
    if let Some(metric) = metric::find("menstrual_cycle_day") {
        sheet.add(metric, f64::from(count), method, None);
    }
    if let Some(at) = item.get("currentPhaseType") {
        let text = at.text()?;
        let known = PHASES.iter().find(|(theirs, ..)| *theirs == text);
        let (_, name, symbol) = known.unwrap_or(&("", "unlisted", None));
        sheet.attribute("phase", *name);
        if let (Some(symbol), Some(metric)) = (symbol, metric::find("menstrual_cycle_phase")) {
            sheet.add_symbol(metric, symbol, (sheet.start.at_us, None), method);
        }
    }
    Ok(sheet.finish())
}
