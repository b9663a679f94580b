//! The types of Google's points: how each is asked for, what it is a record of, and what its fields are.
//!
//! A type is called `heart-rate` in paths and notifications, `heart_rate` in filters, `heartRate` in points. What is in
//! no table here is unknown, and is counted until somebody looks at it.

use crate::vendors::wire::sheet::{Field, field};

/// A type whose points are taken.
#[derive(Debug)]
pub(super) struct Type {
    /// In paths and notifications.
    pub(super) name: &'static str,
    /// In points.
    pub(super) member: &'static str,
    /// Our name of its records.
    pub(super) record_type: &'static str,
    pub(super) form: Form,
}

/// What points of a type are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A sleep, by its name.
    Sleep,
    /// An exercise, by its name.
    Exercise,
    /// A value at a time; a day's are one record.
    Sample(&'static [Field]),
    /// A value over a while; a day's are one record.
    Interval(&'static [Field]),
    /// The values of a civil day: a record by its date.
    Daily(&'static [Field], Daily),
}

/// Of what a day's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Daily {
    /// The night that ended on it: they are there when it is over.
    Night,
    /// The day, as far as it went.
    Day,
}

impl Type {
    /// Whether each of its points has a name.
    pub(super) const fn is_session(&self) -> bool {
        matches!(self.form, Form::Sleep | Form::Exercise)
    }

    /// Whether it is asked for by the person's dates; else by UTC days. Of an exercise Google filters by nothing else.
    pub(super) const fn is_civil(&self) -> bool {
        matches!(self.form, Form::Exercise | Form::Daily(..))
    }

    /// The days of one list where many are asked for: what Google gives in a few pages of a few megabytes.
    pub(super) const fn days(&self) -> i32 {
        match self.form {
            Form::Sample(_) => 1,
            Form::Interval(_) => 7,
            Form::Sleep | Form::Exercise => 30,
            Form::Daily(..) => 90,
        }
    }
}

const fn sample(
    name: &'static str,
    member: &'static str,
    record_type: &'static str,
    fields: &'static [Field],
) -> Type {
    Type { name, member, record_type, form: Form::Sample(fields) }
}

const fn daily(
    name: &'static str,
    member: &'static str,
    record_type: &'static str,
    form: (&'static [Field], Daily),
) -> Type {
    Type { name, member, record_type, form: Form::Daily(form.0, form.1) }
}

const HEART_RATE: &[Field] = &[field(&["beatsPerMinute"], "heart_rate")];
const HRV: &[Field] = &[
    field(&["rootMeanSquareOfSuccessiveDifferencesMilliseconds"], "hrv_rmssd"),
    field(&["standardDeviationMilliseconds"], "hrv_sdnn"),
];
const OXYGEN: &[Field] = &[field(&["percentage"], "spo2")];
const CORE: &[Field] = &[field(&["celsius"], "body_temperature")];
const VO2_MAX: &[Field] = &[field(&["runVo2Max"], "vo2_max").method("run")];
/// Grams, as the name says.
const WEIGHT: &[Field] = &[field(&["weightGrams"], "body_weight").divisor(1_000.0)];
const FAT: &[Field] = &[field(&["percentage"], "body_fat_percentage")];
/// Millimetres; ours are centimetres.
const HEIGHT: &[Field] = &[field(&["heightMillimeters"], "body_height").divisor(10.0)];
const STEPS: &[Field] = &[field(&["count"], "steps")];
/// Millimetres; ours are metres.
const DISTANCE: &[Field] = &[field(&["millimeters"], "distance_walk_run").divisor(1_000.0)];
const FLOORS: &[Field] = &[field(&["count"], "floors_climbed")];

const DAILY_HRV: &[Field] = &[
    field(&["averageHeartRateVariabilityMilliseconds"], "hrv_rmssd_sleep_avg").method("mean"),
    field(&["deepSleepRootMeanSquareOfSuccessiveDifferencesMilliseconds"], "hrv_rmssd_sleep_avg")
        .method("deep_only"),
];
const DAILY_RESTING: &[Field] =
    &[field(&["beatsPerMinute"], "resting_heart_rate").method("provider_unspecified")];
const DAILY_BREATHS: &[Field] = &[field(&["breathsPerMinute"], "respiratory_rate_sleep_avg")];
const DAILY_OXYGEN: &[Field] = &[field(&["averagePercentage"], "spo2_sleep_avg")];
const DAILY_SKIN: &[Field] = &[field(&["nightlyTemperatureCelsius"], "skin_temperature_sleep")];

#[rustfmt::skip]
static TYPES: &[Type] = &[
    Type { name: "sleep", member: "sleep", record_type: "sleep", form: Form::Sleep },
    Type { name: "exercise", member: "exercise", record_type: "workout", form: Form::Exercise },
    sample("heart-rate", "heartRate", "heart_rate", HEART_RATE),
    sample("heart-rate-variability", "heartRateVariability", "heart_rate_variability", HRV),
    sample("oxygen-saturation", "oxygenSaturation", "oxygen_saturation", OXYGEN),
    sample("core-body-temperature", "coreBodyTemperature", "core_body_temperature", CORE),
    sample("run-vo2-max", "runVo2Max", "run_vo2_max", VO2_MAX),
    sample("weight", "weight", "weight", WEIGHT),
    sample("body-fat", "bodyFat", "body_fat", FAT),
    sample("height", "height", "height", HEIGHT),
    Type { name: "steps", member: "steps", record_type: "steps", form: Form::Interval(STEPS) },
    Type { name: "distance", member: "distance", record_type: "distance", form: Form::Interval(DISTANCE) },
    Type { name: "floors", member: "floors", record_type: "floors", form: Form::Interval(FLOORS) },
    daily("daily-heart-rate-variability", "dailyHeartRateVariability", "daily_heart_rate_variability",
        (DAILY_HRV, Daily::Night)),
    daily("daily-resting-heart-rate", "dailyRestingHeartRate", "daily_resting_heart_rate",
        (DAILY_RESTING, Daily::Day)),
    daily("daily-respiratory-rate", "dailyRespiratoryRate", "daily_respiratory_rate",
        (DAILY_BREATHS, Daily::Night)),
    daily("daily-oxygen-saturation", "dailyOxygenSaturation", "daily_oxygen_saturation",
        (DAILY_OXYGEN, Daily::Night)),
    daily("daily-sleep-temperature-derivations", "dailySleepTemperatureDerivations",
        "daily_sleep_temperature_derivations", (DAILY_SKIN, Daily::Night)),
];

/// Types that say nothing that the vocabulary has a metric for, or nothing that others do not say better.
const UNTAKEN: &[&str] = &[
    "active-energy-burned",
    "active-minutes",
    "active-zone-minutes",
    "activity-level",
    "altitude",
    "blood-glucose",
    "daily-heart-rate-zones",
    "daily-vo2-max",
    "electrocardiogram",
    "hydration-log",
    "nutrition-log",
    "respiratory-rate-sleep-summary",
    "sedentary-period",
    "swim-lengths-data",
    "time-in-heart-rate-zone",
    "total-calories",
    "vo2-max",
];

/// The type of this name.
pub(super) fn of_name(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|known| known.name == name)
}

/// The type whose records have this type of ours.
pub(super) fn of_record(record_type: &str) -> Option<&'static Type> {
    TYPES.iter().find(|known| known.record_type == record_type)
}

/// Whether a type of this name is known, and left alone.
pub(super) fn is_untaken(name: &str) -> bool {
    UNTAKEN.contains(&name)
}

/// All that are taken.
#[cfg(test)]
pub(super) fn all() -> &'static [Type] {
    TYPES
}
