//! A trigger rides on the event that caused it: what NEUROS may act on.

use serde::{Deserialize, Serialize};

/// How much a trigger asks for. The order is the rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth a change of the day.
    Medium,
    /// Worth an intervention.
    High,
    /// Worth one now.
    Critical,
}

impl Severity {
    /// The name in events and headers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }

    /// The severity of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High, Self::Critical]
            .into_iter()
            .find(|severity| severity.name() == name)
    }

    /// The priority header of an event whose highest severity this is (`design.md` §4).
    #[must_use]
    pub const fn priority(self) -> &'static str {
        match self {
            Self::Critical => "HIGH",
            Self::High => "MEDIUM",
            Self::Medium | Self::Low => "NORMAL",
        }
    }
}

/// One change of what a rule says, as it stands in `triggers[]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// Derived from user, rule, event and step: a replay finds it again.
    pub trigger_id: String,
    /// The rule's id and version, `v0.hrv_critical@1`.
    pub rule: String,
    /// v0's name of what is asked for, `URGENT_INTERVENTION`.
    #[serde(rename = "type")]
    pub action: String,
    /// `LOW`, `MEDIUM`, `HIGH` or `CRITICAL`.
    pub severity: String,
    /// The metric as the rule set prints it.
    pub metric: String,
    /// The value that the rule saw, in the metric's unit. In the event only, never in a header.
    pub value: f64,
    /// What to do about it, a code.
    pub recommendation: String,
    /// `open`, `update`, `close` or `retract`; rules without a state only open.
    pub step: String,
    /// Whether nobody is to act on it: not live, or older than 36 h at receipt (`design.md` §6).
    pub muted: bool,
}
