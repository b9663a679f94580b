//! HealthKit's types, stages and sources, and what they are in our vocabulary.
//!
//! A type that is not here is ignored because unknown: its bytes stay in the raw topic, and a replay after a row
//! was added reads them. Sources: `vendors.md` §4.3 and §4.6, the HealthKit column of `domain.md` §1.1.

use crate::model::metric::{self, Metric};

/// Where a sample's value stands and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// A number in the sample's unit.
    Quantity,
    /// HealthKit's per cent, which is a fraction of one: 0.97, and 1.0 is 100 %.
    Fraction,
    /// A stage of sleep.
    Stage,
    /// The sample's being there is what it says.
    Event(&'static str),
}

/// A type of HealthKit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    /// Apple's identifier.
    pub(super) identifier: &'static str,
    /// Ours.
    pub(super) metric: &'static str,
    /// How its value is read.
    pub(super) means: Means,
    /// How Apple makes it, where that makes it a stream of its own.
    pub(super) method: Option<&'static str>,
    /// The window of a statistic, seconds.
    pub(super) window_s: Option<i32>,
    /// Where on the body, where the type says so.
    pub(super) body_site: Option<&'static str>,
}

const fn read(identifier: &'static str, metric: &'static str, means: Means) -> Type {
    Type { identifier, metric, means, method: None, window_s: None, body_site: None }
}

const fn quantity(identifier: &'static str, metric: &'static str) -> Type {
    read(identifier, metric, Means::Quantity)
}

const fn fraction(identifier: &'static str, metric: &'static str) -> Type {
    read(identifier, metric, Means::Fraction)
}

const fn rhythm(identifier: &'static str, symbol: &'static str) -> Type {
    read(identifier, "cardiac_rhythm_event", Means::Event(symbol))
}

/// The elements of `data.sleep` have no type of their own: they are samples of this one.
pub(super) static SLEEP: Type =
    read("HKCategoryTypeIdentifierSleepAnalysis", "sleep_stage", Means::Stage);

/// The type of a workout, as a deletion names it.
pub(super) const WORKOUT: &str = "HKWorkoutTypeIdentifier";

static TYPES: &[Type] = &[
    quantity("HKQuantityTypeIdentifierHeartRate", "heart_rate"),
    Type {
        method: Some("daytime_sedentary"),
        ..quantity("HKQuantityTypeIdentifierRestingHeartRate", "resting_heart_rate")
    },
    quantity("HKQuantityTypeIdentifierWalkingHeartRateAverage", "walking_heart_rate_avg"),
    quantity("HKQuantityTypeIdentifierHeartRateRecoveryOneMinute", "heart_rate_recovery_1min"),
    // SDNN is not rMSSD, and no threshold for one fits the other: it has a metric of its own, over a minute.
    Type {
        window_s: Some(60),
        ..quantity("HKQuantityTypeIdentifierHeartRateVariabilitySDNN", "hrv_sdnn")
    },
    quantity("HKQuantityTypeIdentifierHeartRateVariabilityRMSSD", "hrv_rmssd"),
    fraction("HKQuantityTypeIdentifierOxygenSaturation", "spo2"),
    fraction("HKQuantityTypeIdentifierBodyFatPercentage", "body_fat_percentage"),
    fraction("HKQuantityTypeIdentifierAtrialFibrillationBurden", "afib_burden"),
    quantity("HKQuantityTypeIdentifierRespiratoryRate", "respiratory_rate"),
    quantity("HKQuantityTypeIdentifierBodyTemperature", "body_temperature"),
    quantity("HKQuantityTypeIdentifierBasalBodyTemperature", "basal_body_temperature"),
    Type {
        body_site: Some("wrist"),
        ..quantity(
            "HKQuantityTypeIdentifierAppleSleepingWristTemperature",
            "skin_temperature_sleep",
        )
    },
    quantity("HKQuantityTypeIdentifierStepCount", "steps"),
    quantity("HKQuantityTypeIdentifierFlightsClimbed", "floors_climbed"),
    quantity("HKQuantityTypeIdentifierDistanceWalkingRunning", "distance_walk_run"),
    quantity("HKQuantityTypeIdentifierActiveEnergyBurned", "energy_active"),
    quantity("HKQuantityTypeIdentifierBasalEnergyBurned", "energy_basal"),
    quantity("HKQuantityTypeIdentifierAppleExerciseTime", "apple.exercise_time"),
    quantity("HKQuantityTypeIdentifierTimeInDaylight", "time_in_daylight"),
    quantity("HKQuantityTypeIdentifierBodyMass", "body_weight"),
    quantity("HKQuantityTypeIdentifierLeanBodyMass", "lean_body_mass"),
    quantity("HKQuantityTypeIdentifierHeight", "body_height"),
    quantity("HKQuantityTypeIdentifierWaistCircumference", "waist_circumference"),
    quantity("HKQuantityTypeIdentifierBodyMassIndex", "body_mass_index"),
    quantity("HKQuantityTypeIdentifierBloodPressureSystolic", "blood_pressure_systolic"),
    quantity("HKQuantityTypeIdentifierBloodPressureDiastolic", "blood_pressure_diastolic"),
    quantity("HKQuantityTypeIdentifierBloodGlucose", "blood_glucose"),
    quantity("HKQuantityTypeIdentifierVO2Max", "vo2_max"),
    quantity("HKQuantityTypeIdentifierEnvironmentalAudioExposure", "audio_exposure"),
    quantity(
        "HKQuantityTypeIdentifierAppleSleepingBreathingDisturbances",
        "apple.breathing_disturbance",
    ),
    quantity("HKQuantityTypeIdentifierNumberOfAlcoholicBeverages", "alcoholic_beverages"),
    rhythm("HKCategoryTypeIdentifierIrregularHeartRhythmEvent", "irregular_rhythm"),
    rhythm("HKCategoryTypeIdentifierHighHeartRateEvent", "high_heart_rate"),
    rhythm("HKCategoryTypeIdentifierLowHeartRateEvent", "low_heart_rate"),
];

/// The type of this identifier with its metric; nothing where we do not know it.
pub(super) fn find(identifier: &str) -> Option<(&'static Type, &'static Metric)> {
    let found =
        TYPES.iter().chain(std::iter::once(&SLEEP)).find(|known| known.identifier == identifier)?;
    Some((found, metric::find(found.metric)?))
}

/// Our symbol of a stage by its name in `HKCategoryValueSleepAnalysis`, with that prefix (`export.xml`) or without it;
/// `asleep` is what iOS before 16 knew.
pub(super) fn stage_named(name: &str) -> Option<&'static str> {
    Some(match name.strip_prefix("HKCategoryValueSleepAnalysis").unwrap_or(name) {
        "inBed" | "InBed" => "in_bed",
        "asleepUnspecified" | "AsleepUnspecified" | "asleep" | "Asleep" => "asleep_unspecified",
        "awake" | "Awake" => "awake",
        "asleepCore" | "AsleepCore" => "light",
        "asleepDeep" | "AsleepDeep" => "deep",
        "asleepREM" | "AsleepREM" => "rem",
        _ => return None,
    })
}

/// Our symbol of a stage by its number in `HKCategoryValueSleepAnalysis`.
pub(super) fn stage_numbered(number: i64) -> Option<&'static str> {
    Some(match number {
        0 => "in_bed",
        1 => "asleep_unspecified",
        2 => "awake",
        3 => "light",
        4 => "deep",
        5 => "rem",
        _ => return None,
    })
}

/// The maker of what an app wrote: another maker's app writes that maker's measurements, all else is Apple's. The app
/// is a bundle id, or our word where only its name was known (`source.rs`).
pub(super) fn maker(bundle: Option<&str>) -> &'static str {
    const OTHERS: [(&str, &str); 6] = [
        ("com.ouraring", "oura"),
        ("com.whoop", "whoop"),
        ("com.garmin", "garmin"),
        ("com.withings", "withings"),
        ("com.polar", "polar"),
        ("com.fitbit", "fitbit"),
    ];
    let Some(bundle) = bundle else { return "apple" };
    let is_of = |owner: &str| {
        let (head, tail) = bundle.split_at_checked(owner.len()).unwrap_or_default();
        head.eq_ignore_ascii_case(owner) && (tail.is_empty() || tail.starts_with('.'))
    };
    let others = OTHERS.iter().find(|(owner, maker)| is_of(owner) || bundle == *maker);
    others.map_or("apple", |(_, maker)| maker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_metric_and_its_kind_of_value() {
        for row in TYPES.iter().chain([&SLEEP]) {
            let (found, metric) = find(row.identifier).expect(row.identifier);
            assert_eq!(found.metric, row.metric, "{} stands twice", row.identifier);
            match row.means {
                Means::Quantity => assert!(metric.unit.is_some(), "{}", row.identifier),
                Means::Fraction => assert_eq!(metric.unit, Some("%"), "{}", row.identifier),
                Means::Event(symbol) => assert!(metric.symbol(symbol, 0, None).is_some()),
                Means::Stage => {
                    let all = (0..=5).filter_map(stage_numbered);
                    let named =
                        ["inBed", "asleep", "awake", "asleepCore", "asleepDeep", "asleepREM"];
                    assert!(all.eq(named.into_iter().filter_map(stage_named)));
                    for symbol in named.into_iter().filter_map(stage_named) {
                        assert!(metric.symbol(symbol, 0, None).is_some(), "{symbol}");
                    }
                }
            }
        }
    }

    #[test]
    fn sdnn_is_never_rmssd() {
        let (sdnn, _) = find("HKQuantityTypeIdentifierHeartRateVariabilitySDNN").expect("known");
        assert_eq!((sdnn.metric, sdnn.window_s), ("hrv_sdnn", Some(60)));
        let rmssd: Vec<_> = TYPES.iter().filter(|row| row.metric.contains("rmssd")).collect();
        assert_eq!(rmssd.len(), 1);
        assert_eq!(rmssd[0].identifier, "HKQuantityTypeIdentifierHeartRateVariabilityRMSSD");
    }

    #[test]
    fn a_maker_is_told_by_its_own_name_only() {
        for (bundle, is) in [
            (None, "apple"),
            (Some("com.apple.health"), "apple"),
            (Some("com.ouraring.oura"), "oura"),
            (Some("com.garmin.connect.mobile"), "garmin"),
            (Some("com.Withings.wiScaleNG"), "withings"),
            (Some("com.whoop"), "whoop"),
            (Some("garmin"), "garmin"),
            (Some("autosleep"), "apple"),
            (Some("com.whoopee.cushion"), "apple"),
            (Some("com.polär"), "apple"),
        ] {
            assert_eq!(maker(bundle), is, "{bundle:?}");
        }
    }
}
