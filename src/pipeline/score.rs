//! What the rules make of an event.
//!
//! A change is muted where nobody is to act on it: what is not live, or was more than 36 h old when it was received.
//! Both come from the record, so a replay mutes the same.

use crate::model::event::{BiometricEvent, Op, Origin};
use crate::model::id::trigger_id;
use crate::model::time::Micros;
use crate::model::trigger::Trigger;
use crate::rules;

/// The age at receipt from which on a change is muted (`design.md` §6).
pub const MUTED_FROM_US: Micros = 36 * 3600 * 1_000_000;

/// The triggers of an event. A record that is gone has none: rules without a state have nothing to take back.
#[must_use]
pub fn score(event: &BiometricEvent) -> Vec<Trigger> {
    if event.op == Op::Delete {
        return Vec::new();
    }
    let old = event.freshness_us.is_none_or(|age| age > MUTED_FROM_US);
    let muted = event.origin != Origin::Live || old;
    let step = "open";
    rules::ALL
        .iter()
        .filter_map(|rule| {
            let firing = rule.fire(&event.content)?;
            Some(Trigger {
                trigger_id: trigger_id(&event.user_id, rule.id(), event.event_id, step).to_string(),
                rule: rule.id().to_owned(),
                action: firing.action.to_owned(),
                severity: firing.severity.name().to_owned(),
                metric: firing.metric.to_owned(),
                value: firing.value,
                recommendation: firing.recommendation.to_owned(),
                step: step.to_owned(),
                muted,
            })
        })
        .collect()
}
