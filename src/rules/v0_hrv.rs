//! v0's HRV thresholds, for everybody alike: below 25 ms an intervention now, below 40 ms a breathing exercise.
//!
//! They misfire for most people over 50 (`domain.md` §4.1); kept as a regression until the personal rules come.
//! rMSSD only, never SDNN. An event can carry a night's series: v0 saw one value an event, so the lowest one counts,
//! and an event fires once at most.

use super::{Firing, Rule, lowest};
use crate::model::event::Content;
use crate::model::trigger::Severity;

pub(super) struct Hrv;

/// The rule.
pub(super) static RULE: Hrv = Hrv;

impl Rule for Hrv {
    fn id(&self) -> &'static str {
        "v0.hrv@1"
    }

    fn fire(&self, content: &Content) -> Option<Firing> {
        let value =
            lowest(content, |metric| matches!(metric, "hrv_rmssd" | "hrv_rmssd_sleep_avg"))?;
        let (action, severity, recommendation) = if value < 25.0 {
            ("URGENT_INTERVENTION", Severity::Critical, "immediate_stress_protocol")
        } else if value < 40.0 {
            ("STRESS_INTERVENTION", Severity::High, "breathing_exercise")
        } else {
            return None;
        };
        Some(Firing { action, severity, metric: "hrv", value, recommendation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::metric;

    fn of(name: &str, value: f64) -> Content {
        let metric = metric::find(name).expect("a metric");
        Content { readings: vec![metric.reading(value, 0, None)], ..Content::default() }
    }

    #[test]
    fn the_thresholds_are_strict_and_zero_never_fires() {
        let severity =
            |value| RULE.fire(&of("hrv_rmssd_sleep_avg", value)).map(|firing| firing.severity);
        assert_eq!(severity(24.999), Some(Severity::Critical));
        assert_eq!(severity(25.0), Some(Severity::High));
        assert_eq!(severity(39.999), Some(Severity::High));
        assert_eq!(severity(40.0), None);
        assert_eq!(severity(0.0), None, "v0 tested truthiness");
        assert_eq!(severity(0.5), None, "quarantined: outside of the hard range");
    }

    #[test]
    fn sdnn_is_not_rmssd() {
        assert_eq!(RULE.fire(&of("hrv_sdnn", 10.0)), None);
        assert!(RULE.fire(&of("hrv_rmssd", 10.0)).is_some());
    }
}
