//! What the stream tells NEUROS to act on.
//!
//! # How to add a rule
//! 1. Write `src/rules/<name>.rs` with a `pub static RULE` that implements [`Rule`]: one threshold, its evidence, its
//!    wording. It sees what an event says and nothing else: no clock, no other user, no vendor's name.
//! 2. Put cases into `tests/fixtures/rules/<name>/`.
//! 3. Add two lines here: `mod <name>;` and `&<name>::RULE,`.
//!
//! The rule set `v0` keeps the thresholds of the bridge that this system replaces, bit for bit, until personal
//! baselines take over: it has no state, so its rules look at one event. Rules that fold over a user's nights will
//! bring their state through [`crate::model::state::Known`]; the seam is [`crate::pipeline::score`].

use crate::model::event::Content;
use crate::model::trigger::Severity;

mod v0_hrv;
mod v0_sleep_score;

/// Every rule, in the order in which v0 asked them.
pub static ALL: &[&dyn Rule] = &[&v0_hrv::RULE, &v0_sleep_score::RULE];

/// A rule.
pub trait Rule: Sync {
    /// `<rule set>.<name>@<version>`: a change of what it says is a new version.
    fn id(&self) -> &'static str;

    /// What it says of an event that is there; nothing where the event gives it nothing to say.
    fn fire(&self, content: &Content) -> Option<Firing>;
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Firing {
    /// v0's name of what is asked for.
    pub action: &'static str,
    /// How much it asks for.
    pub severity: Severity,
    /// The metric as the rule set prints it.
    pub metric: &'static str,
    /// The value that it saw.
    pub value: f64,
    /// What to do about it.
    pub recommendation: &'static str,
}

/// The lowest plausible value of these metrics that is not exactly 0: v0 tested truthiness, so 0 never fired, and
/// that is kept (`domain.md` §4.5, R0).
fn lowest(content: &Content, accepts: impl Fn(&str) -> bool) -> Option<f64> {
    content
        .readings
        .iter()
        .filter(|reading| accepts(&reading.metric) && reading.is_plausible())
        .filter_map(|reading| reading.value)
        .filter(|value| *value != 0.0)
        .min_by(f64::total_cmp)
}
