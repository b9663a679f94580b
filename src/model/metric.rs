//! The vocabulary: every metric, its unit, its ranges, its kind.
//!
//! The statistic is part of the metric: `hrv_rmssd`, `hrv_rmssd_sleep_avg` and `hrv_sdnn` are three metrics, so
//! that no rule made for one can be given another. The table is `metrics.json` (with its sources in
//! `tests/fixtures/metrics.json`), row for row; a test holds the two equal.

use super::event::{Reading, flag};
use super::time::Micros;

/// A name of the vocabulary with what is known about it.
#[derive(Debug, PartialEq)]
pub struct Metric {
    /// The name, as it stands in events.
    pub name: &'static str,
    /// The canonical unit in UCUM; absent where values are symbols or the metric is a session.
    pub unit: Option<&'static str>,
    /// `I` instant, `V` interval, `N` night, `D` day, `S` session, `E` event, `P` profile.
    pub kind: &'static str,
    /// Outside of it a value is quarantined.
    pub hard: Option<(f64, f64)>,
    /// Outside of it a value is kept out of baselines.
    pub soft: Option<(f64, f64)>,
    /// The symbols, where values are symbols.
    pub symbols: &'static [&'static str],
}

const fn row(
    name: &'static str,
    unit: Option<&'static str>,
    kind: &'static str,
    hard: Option<(f64, f64)>,
    soft: Option<(f64, f64)>,
    symbols: &'static [&'static str],
) -> Metric {
    Metric { name, unit, kind, hard, soft, symbols }
}

/// The vocabulary.
#[rustfmt::skip]
pub static ALL: &[Metric] = &[
    row("heart_rate", Some("/min"), "I", Some((20.0, 260.0)), Some((30.0, 220.0)), &[]),
    row("heart_rate_sleep_avg", Some("/min"), "N", Some((25.0, 180.0)), Some((35.0, 110.0)), &[]),
    row("heart_rate_sleep_min", Some("/min"), "N", Some((20.0, 150.0)), Some((28.0, 95.0)), &[]),
    row("resting_heart_rate", Some("/min"), "D", Some((25.0, 150.0)), Some((35.0, 105.0)), &[]),
    row("heart_rate_daily_avg", Some("/min"), "D", Some((25.0, 200.0)), Some((40.0, 130.0)), &[]),
    row("heart_rate_daily_max", Some("/min"), "D", Some((40.0, 260.0)), Some((60.0, 220.0)), &[]),
    row("walking_heart_rate_avg", Some("/min"), "D", Some((30.0, 220.0)), Some((60.0, 160.0)), &[]),
    row("heart_rate_recovery_1min", Some("/min"), "E", Some((-10.0, 120.0)), Some((5.0, 80.0)), &[]),
    row("hrv_rmssd", Some("ms"), "I", Some((1.0, 300.0)), Some((5.0, 200.0)), &[]),
    row("hrv_rmssd_sleep_avg", Some("ms"), "N", Some((1.0, 300.0)), Some((5.0, 200.0)), &[]),
    row("hrv_rmssd_sleep_max", Some("ms"), "N", Some((1.0, 500.0)), Some((10.0, 300.0)), &[]),
    row("hrv_rmssd_sleep_start_avg", Some("ms"), "N", Some((1.0, 300.0)), Some((5.0, 200.0)), &[]),
    row("hrv_rmssd_sleep_end_avg", Some("ms"), "N", Some((1.0, 300.0)), Some((5.0, 200.0)), &[]),
    row("hrv_sdnn", Some("ms"), "I", Some((1.0, 500.0)), Some((8.0, 250.0)), &[]),
    row("hrv_sdnn_sleep_med", Some("ms"), "N", Some((1.0, 500.0)), Some((8.0, 250.0)), &[]),
    row("hrv_hf_power", Some("ms2"), "I", Some((0.0, 100000.0)), Some((1.0, 20000.0)), &[]),
    row("hrv_lf_power", Some("ms2"), "I", Some((0.0, 100000.0)), Some((1.0, 20000.0)), &[]),
    row("rr_interval", Some("ms"), "I", Some((250.0, 2500.0)), Some((300.0, 2000.0)), &[]),
    row("afib_burden", Some("%"), "V", Some((0.0, 100.0)), Some((0.0, 5.0)), &[]),
    row("cardiac_rhythm_event", None, "E", None, None, &["irregular_rhythm", "high_heart_rate", "low_heart_rate"]),
    row("respiratory_rate", Some("/min"), "I", Some((4.0, 60.0)), Some((8.0, 28.0)), &[]),
    row("respiratory_rate_sleep_avg", Some("/min"), "N", Some((5.0, 45.0)), Some((9.0, 24.0)), &[]),
    row("spo2", Some("%"), "I", Some((50.0, 100.0)), Some((85.0, 100.0)), &[]),
    row("spo2_sleep_avg", Some("%"), "N", Some((60.0, 100.0)), Some((90.0, 100.0)), &[]),
    row("spo2_sleep_min", Some("%"), "N", Some((50.0, 100.0)), Some((80.0, 100.0)), &[]),
    row("oxygen_desaturation_index", Some("/h"), "N", Some((0.0, 150.0)), Some((0.0, 15.0)), &[]),
    row("apnea_hypopnea_index", Some("/h"), "N", Some((0.0, 150.0)), Some((0.0, 15.0)), &[]),
    row("oura.breathing_disturbance", Some("{score}"), "N", Some((0.0, 100.0)), None, &[]),
    row("withings.breathing_disturbance", Some("{score}"), "N", None, None, &[]),
    row("apple.breathing_disturbance", Some("{score}"), "N", Some((0.0, 500.0)), None, &[]),
    row("snoring_duration", Some("s"), "N", Some((0.0, 50400.0)), Some((0.0, 14400.0)), &[]),
    row("body_temperature", Some("Cel"), "I", Some((30.0, 44.0)), Some((35.0, 40.5)), &[]),
    row("basal_body_temperature", Some("Cel"), "I", Some((33.0, 41.0)), Some((35.0, 38.5)), &[]),
    row("skin_temperature_sleep", Some("Cel"), "N", Some((15.0, 43.0)), Some((28.0, 38.0)), &[]),
    row("skin_temperature_deviation", Some("K"), "N", Some((-8.0, 8.0)), Some((-2.5, 2.5)), &[]),
    row("skin_temperature_trend_deviation", Some("K"), "N", Some((-8.0, 8.0)), Some((-2.0, 2.0)), &[]),
    row("ambient_temperature_sleep", Some("Cel"), "N", Some((-10.0, 50.0)), Some((10.0, 35.0)), &[]),
    row("sleep_session", None, "S", Some((300.0, 86400.0)), Some((0.0, 50400.0)), &[]),
    row("sleep_stage", None, "V", None, None, &["awake", "light", "deep", "rem", "in_bed", "asleep_unspecified", "unknown"]),
    row("sleep_total_duration", Some("s"), "N", Some((0.0, 72000.0)), Some((7200.0, 50400.0)), &[]),
    row("sleep_time_in_bed", Some("s"), "N", Some((0.0, 86400.0)), Some((7200.0, 54000.0)), &[]),
    row("sleep_awake_duration", Some("s"), "N", Some((0.0, 50400.0)), Some((0.0, 10800.0)), &[]),
    row("sleep_latency", Some("s"), "N", Some((0.0, 28800.0)), Some((0.0, 5400.0)), &[]),
    row("sleep_deep_duration", Some("s"), "N", Some((0.0, 43200.0)), Some((0.0, 14400.0)), &[]),
    row("sleep_light_duration", Some("s"), "N", Some((0.0, 57600.0)), Some((0.0, 32400.0)), &[]),
    row("sleep_rem_duration", Some("s"), "N", Some((0.0, 43200.0)), Some((0.0, 18000.0)), &[]),
    row("sleep_efficiency", Some("%"), "N", Some((0.0, 100.0)), Some((50.0, 100.0)), &[]),
    row("sleep_awakenings", Some("{count}"), "N", Some((0.0, 200.0)), Some((0.0, 40.0)), &[]),
    row("sleep_midpoint_offset", Some("min"), "N", Some((-720.0, 1440.0)), None, &[]),
    row("sleep_need", Some("s"), "N", Some((14400.0, 57600.0)), Some((21600.0, 39600.0)), &[]),
    row("sleep_debt", Some("s"), "D", Some((0.0, 360000.0)), Some((0.0, 72000.0)), &[]),
    row("whoop.sleep_consistency", Some("%"), "N", Some((0.0, 100.0)), None, &[]),
    row("whoop.sleep_performance", Some("%"), "N", Some((0.0, 150.0)), Some((0.0, 100.0)), &[]),
    row("oura.sleep_score", Some("{score}"), "N", Some((0.0, 100.0)), None, &[]),
    row("garmin.sleep_score", Some("{score}"), "N", Some((0.0, 100.0)), None, &[]),
    row("withings.sleep_score", Some("{score}"), "N", Some((0.0, 100.0)), None, &[]),
    row("polar.sleep_score", Some("{score}"), "N", Some((0.0, 100.0)), None, &[]),
    row("eight_sleep.sleep_score", Some("{score}"), "N", Some((0.0, 100.0)), None, &[]),
    row("fitbit.sleep_score", Some("{score}"), "N", Some((0.0, 100.0)), None, &[]),
    row("oura.readiness_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("whoop.recovery_score", Some("%"), "D", Some((0.0, 100.0)), None, &[]),
    row("garmin.training_readiness", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("polar.nightly_recharge_status", Some("{score}"), "D", Some((1.0, 6.0)), None, &[]),
    row("polar.ans_charge", Some("{score}"), "D", Some((-10.0, 10.0)), None, &[]),
    row("fitbit.readiness_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.activity_balance", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.body_temperature", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.hrv_balance", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.previous_day_activity", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.previous_night", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.recovery_index", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.resting_heart_rate", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.sleep_balance", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("oura.readiness_contributor.sleep_regularity", Some("{score}"), "D", Some((1.0, 100.0)), None, &[]),
    row("whoop.strain", Some("{score}"), "D", Some((0.0, 21.0)), None, &[]),
    row("garmin.body_battery", Some("{score}"), "I", Some((0.0, 100.0)), None, &[]),
    row("garmin.stress_level", Some("{score}"), "I", Some((0.0, 100.0)), None, &[]),
    row("oura.stress_high_duration", Some("s"), "D", Some((0.0, 86400.0)), None, &[]),
    row("oura.recovery_high_duration", Some("s"), "D", Some((0.0, 86400.0)), None, &[]),
    row("oura.activity_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("oura.resilience_level", None, "D", None, None, &["limited", "adequate", "solid", "strong", "exceptional"]),
    row("oura.vascular_age", Some("a"), "D", Some((18.0, 100.0)), None, &[]),
    row("terra.stress_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("terra.readiness_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("terra.immune_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("terra.respiratory_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("terra.sleep_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("terra.cardiovascular_score", Some("{score}"), "D", Some((0.0, 100.0)), None, &[]),
    row("steps", Some("{steps}"), "V", Some((0.0, 30000.0)), Some((0.0, 15000.0)), &[]),
    row("steps_daily", Some("{steps}"), "D", Some((0.0, 150000.0)), Some((0.0, 60000.0)), &[]),
    row("distance_walk_run", Some("m"), "V/D", Some((0.0, 200000.0)), Some((0.0, 80000.0)), &[]),
    row("energy_active", Some("kcal"), "V/D", Some((0.0, 15000.0)), Some((0.0, 6000.0)), &[]),
    row("energy_basal", Some("kcal"), "V/D", Some((0.0, 6000.0)), Some((800.0, 3500.0)), &[]),
    row("energy_total_daily", Some("kcal"), "D", Some((0.0, 20000.0)), Some((1000.0, 8000.0)), &[]),
    row("activity_moderate_duration", Some("s"), "D", Some((0.0, 86400.0)), Some((0.0, 28800.0)), &[]),
    row("activity_vigorous_duration", Some("s"), "D", Some((0.0, 86400.0)), Some((0.0, 28800.0)), &[]),
    row("apple.exercise_time", Some("s"), "V", Some((0.0, 86400.0)), Some((0.0, 28800.0)), &[]),
    row("sedentary_duration", Some("s"), "D", Some((0.0, 86400.0)), None, &[]),
    row("non_wear_duration", Some("s"), "D", Some((0.0, 86400.0)), None, &[]),
    row("floors_climbed", Some("{count}"), "V/D", Some((0.0, 2000.0)), Some((0.0, 200.0)), &[]),
    row("met_minutes", Some("{MET}.min"), "D", Some((0.0, 20000.0)), Some((0.0, 4000.0)), &[]),
    row("workout_session", None, "S", Some((30.0, 172800.0)), Some((0.0, 43200.0)), &[]),
    row("polar.cardio_load", Some("{score}"), "S/D", Some((0.0, 5000.0)), None, &[]),
    row("garmin.activity_training_load", Some("{score}"), "S/D", Some((0.0, 5000.0)), None, &[]),
    row("training_load_trimp", Some("{score}"), "S/D", Some((0.0, 5000.0)), None, &[]),
    row("vo2_max", Some("mL/kg/min"), "D", Some((10.0, 100.0)), Some((18.0, 85.0)), &[]),
    row("body_weight", Some("kg"), "I", Some((2.0, 600.0)), Some((30.0, 250.0)), &[]),
    row("body_height", Some("cm"), "P", Some((30.0, 275.0)), Some((120.0, 220.0)), &[]),
    row("body_mass_index", Some("kg/m2"), "I", Some((7.0, 150.0)), Some((14.0, 60.0)), &[]),
    row("body_fat_percentage", Some("%"), "I", Some((1.0, 80.0)), Some((3.0, 60.0)), &[]),
    row("lean_body_mass", Some("kg"), "I", Some((10.0, 250.0)), Some((25.0, 150.0)), &[]),
    row("waist_circumference", Some("cm"), "I", Some((30.0, 250.0)), Some((50.0, 180.0)), &[]),
    row("blood_pressure_systolic", Some("mm[Hg]"), "I", Some((40.0, 300.0)), Some((80.0, 200.0)), &[]),
    row("blood_pressure_diastolic", Some("mm[Hg]"), "I", Some((20.0, 200.0)), Some((45.0, 130.0)), &[]),
    row("blood_glucose", Some("mg/dL"), "I", Some((10.0, 1000.0)), Some((40.0, 400.0)), &[]),
    row("pulse_wave_velocity", Some("m/s"), "D", Some((2.0, 30.0)), Some((4.0, 15.0)), &[]),
    row("audio_exposure", Some("dB"), "V", Some((0.0, 194.0)), Some((20.0, 120.0)), &[]),
    row("time_in_daylight", Some("min"), "V", Some((0.0, 1440.0)), None, &[]),
    row("menstrual_cycle_day", Some("d"), "D", Some((1.0, 90.0)), None, &[]),
    row("menstrual_cycle_phase", None, "D", None, None, &["menstrual", "follicular", "ovulation", "luteal"]),
    row("alcoholic_beverages", Some("{count}"), "E", Some((0.0, 50.0)), None, &[]),
    row("state_of_mind_valence", Some("1"), "E", Some((-1.0, 1.0)), None, &[]),
    row("self_reported_tag", None, "E", None, None, &[]),
    row("whoop.disturbance_count", Some("{count}"), "N", Some((0.0, 500.0)), Some((0.0, 60.0)), &[]),
    row("oura.restless_periods", Some("{count}"), "N", Some((0.0, 1000.0)), Some((0.0, 400.0)), &[]),
];

/// The metrics of nights and days whose values are counted, of all people together ([`counted`]).
pub const COUNTED: [&str; 12] = [
    "resting_heart_rate",
    "heart_rate_sleep_avg",
    "hrv_rmssd_sleep_avg",
    "hrv_sdnn_sleep_med",
    "respiratory_rate_sleep_avg",
    "spo2_sleep_avg",
    "skin_temperature_deviation",
    "sleep_total_duration",
    "sleep_efficiency",
    "oura.sleep_score",
    "steps_daily",
    "vo2_max",
];

/// This name where it is one of [`COUNTED`]. It is asked of every reading, so the compiler makes it a comparison of
/// lengths and hardly ever more.
#[must_use]
pub fn counted(name: &str) -> Option<&'static str> {
    Some(match name {
        "resting_heart_rate" => "resting_heart_rate",
        "heart_rate_sleep_avg" => "heart_rate_sleep_avg",
        "hrv_rmssd_sleep_avg" => "hrv_rmssd_sleep_avg",
        "hrv_sdnn_sleep_med" => "hrv_sdnn_sleep_med",
        "respiratory_rate_sleep_avg" => "respiratory_rate_sleep_avg",
        "spo2_sleep_avg" => "spo2_sleep_avg",
        "skin_temperature_deviation" => "skin_temperature_deviation",
        "sleep_total_duration" => "sleep_total_duration",
        "sleep_efficiency" => "sleep_efficiency",
        "oura.sleep_score" => "oura.sleep_score",
        "steps_daily" => "steps_daily",
        "vo2_max" => "vo2_max",
        _ => return None,
    })
}

/// The metric of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| metric.name == name)
}

impl Metric {
    /// A reading of this metric, flagged by its ranges. `value` is in the canonical unit and finite.
    #[must_use]
    pub fn reading(&'static self, value: f64, start_at: Micros, end_at: Option<Micros>) -> Reading {
        debug_assert!(self.symbols.is_empty(), "{} has symbols", self.name);
        let outside = |range: Option<(f64, f64)>| {
            range.is_some_and(|(low, high)| !(low..=high).contains(&value))
        };
        let mut flags = Vec::new();
        if outside(self.hard) {
            flags.push(flag::IMPLAUSIBLE_VALUE.to_owned());
        } else if outside(self.soft) {
            flags.push(flag::SOFT_RANGE.to_owned());
        }
        Reading {
            value: Some(value),
            unit: self.unit.map(str::to_owned),
            flags,
            ..self.empty(start_at, end_at)
        }
    }

    /// A reading of this metric that is one of its symbols; none where it is not.
    #[must_use]
    pub fn symbol(
        &'static self,
        symbol: &str,
        start_at: Micros,
        end_at: Option<Micros>,
    ) -> Option<Reading> {
        self.symbols
            .contains(&symbol)
            .then(|| Reading { symbol: Some(symbol.to_owned()), ..self.empty(start_at, end_at) })
    }

    fn empty(&self, start_at: Micros, end_at: Option<Micros>) -> Reading {
        Reading {
            metric: self.name.to_owned(),
            value: None,
            symbol: None,
            unit: None,
            start_at,
            end_at,
            sample_id: None,
            method: None,
            window_s: None,
            context: None,
            flags: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Vec<serde_json::Value> {
        let text = include_str!("../../tests/fixtures/metrics.json");
        serde_json::from_str(text).expect("metrics.json is JSON")
    }

    fn range(value: &serde_json::Value) -> Option<(f64, f64)> {
        let pair = value.as_array()?;
        Some((pair[0].as_f64().expect("a number"), pair[1].as_f64().expect("a number")))
    }

    #[test]
    fn the_table_is_metrics_json() {
        let written = written();
        assert_eq!(ALL.len(), written.len());
        for (ours, theirs) in ALL.iter().zip(&written) {
            assert_eq!(Some(ours.name), theirs["name"].as_str());
            // The file explains some units in brackets after them.
            let unit = theirs["ucum"].as_str().map(|unit| unit.split(" (").next().unwrap_or(unit));
            assert_eq!(ours.unit, unit, "{}", ours.name);
            assert_eq!(Some(ours.kind), theirs["kind"].as_str(), "{}", ours.name);
            assert_eq!(ours.hard, range(&theirs["hard"]), "{}", ours.name);
            assert_eq!(ours.soft, range(&theirs["soft"]), "{}", ours.name);
            let symbols: Vec<_> = theirs["symbols"].as_array().into_iter().flatten().collect();
            assert_eq!(ours.symbols.len(), symbols.len(), "{}", ours.name);
        }
    }

    #[test]
    fn what_is_counted_is_in_the_vocabulary_and_has_a_range() {
        for name in COUNTED {
            assert_eq!(counted(name), Some(name));
            let metric = find(name).expect("a metric");
            assert!(metric.soft.or(metric.hard).is_some(), "{name}");
        }
        assert_eq!(ALL.iter().filter(|one| counted(one.name).is_some()).count(), COUNTED.len());
    }

    #[test]
    fn ranges_flag_and_keep() {
        let hrv = find("hrv_rmssd").expect("a metric");
        assert!(hrv.reading(41.0, 0, None).flags.is_empty());
        assert_eq!(hrv.reading(250.0, 0, None).flags, [flag::SOFT_RANGE]);
        let off = hrv.reading(900.0, 0, None);
        assert_eq!(off.flags, [flag::IMPLAUSIBLE_VALUE]);
        assert!(!off.is_plausible());
        assert!(find("sleep_stage").expect("a metric").symbol("dreaming", 0, None).is_none());
    }
}
