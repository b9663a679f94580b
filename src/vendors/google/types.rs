//! The types of Google's points: how each is asked for, what it is a record of, and what its fields are.
//!
//! A type is called `heart-rate` in paths and notifications, `heart_rate` in filters, `heartRate` in points. What is in
//! no table here is unknown, and is counted until somebody looks at it.

use crate::model::time::Micros;
use crate::vendors::ask::Held;
use crate::vendors::history::{self, Collection, collection};
use crate::vendors::wire::sheet::{Field, field};

/// A type whose points are taken.
#[derive(Debug)]
pub(super) struct Type {
    /// In paths and notifications.
    pub(super) name: &'static str,
    /// In points.
    pub(super) member: &'static str,
    /// The type of its windows, as rows are of it.
    pub(super) windows: &'static str,
    pub(super) form: Form,
    /// The days of one list where many are asked for. Ours: what Google gives in a few pages of a few megabytes.
    pub(super) days: i32,
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

    /// By which time Google lists a session in a window's days; nothing where that is not known.
    pub(super) fn listed_by(&self, held: &Held) -> Option<Micros> {
        match self.form {
            Form::Sleep => held.end_at,
            Form::Exercise => {
                let offset_us = Micros::from(held.start_offset_s?) * 1_000_000;
                held.start_at?.checked_add(offset_us)
            }
            Form::Sample(_) | Form::Interval(_) | Form::Daily(..) => None,
        }
    }

    /// Our name of its records.
    pub(super) fn record_type(&self) -> &'static str {
        history::of(self.windows).unwrap_or(self.windows)
    }
}

const fn sample(
    (name, member): (&'static str, &'static str),
    windows: &'static str,
    fields: &'static [Field],
    days: i32,
) -> Type {
    Type { name, member, windows, form: Form::Sample(fields), days }
}

const fn interval(name: &'static str, windows: &'static str, fields: &'static [Field]) -> Type {
    Type { name, member: name, windows, form: Form::Interval(fields), days: 7 }
}

const fn daily(
    name: &'static str,
    member: &'static str,
    windows: &'static str,
    (fields, of): (&'static [Field], Daily),
) -> Type {
    Type { name, member, windows, form: Form::Daily(fields, of), days: 90 }
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
    Type { name: "sleep", member: "sleep", windows: "window.sleep", form: Form::Sleep, days: 30 },
    Type { name: "exercise", member: "exercise", windows: "window.workout", form: Form::Exercise, days: 30 },
    sample(("heart-rate", "heartRate"), "window.heart_rate", HEART_RATE, 1),
    sample(("heart-rate-variability", "heartRateVariability"), "window.heart_rate_variability", HRV, 7),
    sample(("oxygen-saturation", "oxygenSaturation"), "window.oxygen_saturation", OXYGEN, 7),
    sample(("core-body-temperature", "coreBodyTemperature"), "window.core_body_temperature", CORE, 30),
    sample(("run-vo2-max", "runVo2Max"), "window.run_vo2_max", VO2_MAX, 90),
    sample(("weight", "weight"), "window.weight", WEIGHT, 90),
    sample(("body-fat", "bodyFat"), "window.body_fat", FAT, 90),
    sample(("height", "height"), "window.height", HEIGHT, 90),
    interval("steps", "window.steps", STEPS),
    interval("distance", "window.distance", DISTANCE),
    interval("floors", "window.floors", FLOORS),
    daily("daily-heart-rate-variability", "dailyHeartRateVariability",
        "window.daily_heart_rate_variability", (DAILY_HRV, Daily::Night)),
    daily("daily-resting-heart-rate", "dailyRestingHeartRate",
        "window.daily_resting_heart_rate", (DAILY_RESTING, Daily::Day)),
    daily("daily-respiratory-rate", "dailyRespiratoryRate",
        "window.daily_respiratory_rate", (DAILY_BREATHS, Daily::Night)),
    daily("daily-oxygen-saturation", "dailyOxygenSaturation",
        "window.daily_oxygen_saturation", (DAILY_OXYGEN, Daily::Night)),
    daily("daily-sleep-temperature-derivations", "dailySleepTemperatureDerivations",
        "window.daily_sleep_temperature_derivations", (DAILY_SKIN, Daily::Night)),
];

/// The history of each, what matters most first. Fitbit's accounts go back for ever.
pub(super) static HISTORY: &[Collection] = &[
    collection("window.sleep", 30),
    collection("window.daily_heart_rate_variability", 90),
    collection("window.daily_resting_heart_rate", 90),
    collection("window.daily_respiratory_rate", 90),
    collection("window.daily_oxygen_saturation", 90),
    collection("window.daily_sleep_temperature_derivations", 90),
    collection("window.workout", 30),
    collection("window.run_vo2_max", 90),
    collection("window.weight", 90),
    collection("window.body_fat", 90),
    collection("window.height", 90),
    collection("window.core_body_temperature", 30),
    collection("window.steps", 7),
    collection("window.distance", 7),
    collection("window.floors", 7),
    collection("window.heart_rate_variability", 7),
    collection("window.oxygen_saturation", 7),
    collection("window.heart_rate", 1),
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

/// The type whose windows these are, or whose records.
pub(super) fn of_record(record_type: &str) -> Option<&'static Type> {
    let plain = history::of(record_type).unwrap_or(record_type);
    TYPES.iter().find(|known| known.record_type() == plain)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_of_every_type_is_asked_for_in_its_own_lists() {
        assert_eq!(HISTORY.len(), TYPES.len());
        for kind in TYPES {
            assert!(HISTORY.contains(&collection(kind.windows, kind.days)), "{}", kind.name);
        }
    }
}
