//! v0's sleep score threshold: below 70, optimise sleep.
//!
//! The maker's own score only; what an aggregator computes beside it (`terra.sleep_score`) is another number about
//! the same night and would alarm twice.

use super::{Firing, Rule, lowest};
use crate::model::event::Content;
use crate::model::trigger::Severity;

pub(super) struct SleepScore;

/// The rule.
pub(super) static RULE: SleepScore = SleepScore;

impl Rule for SleepScore {
    fn id(&self) -> &'static str {
        "v0.sleep_score@1"
    }

    fn fire(&self, content: &Content) -> Option<Firing> {
        let value = lowest(content, |metric| {
            metric.ends_with(".sleep_score") && !metric.starts_with("terra.")
        })?;
        (value < 70.0).then_some(Firing {
            action: "RECOVERY_INTERVENTION",
            severity: Severity::Medium,
            metric: "sleep_score",
            value,
            recommendation: "sleep_optimization",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::metric;

    fn fires(name: &str, value: f64) -> bool {
        let metric = metric::find(name).expect("a metric");
        let readings = vec![metric.reading(value, 0, None)];
        RULE.fire(&Content { readings, ..Content::default() }).is_some()
    }

    #[test]
    fn below_seventy_and_not_zero() {
        assert!(fires("oura.sleep_score", 69.9));
        assert!(!fires("oura.sleep_score", 70.0));
        assert!(!fires("oura.sleep_score", 0.0));
        assert!(!fires("terra.sleep_score", 10.0));
    }
}
