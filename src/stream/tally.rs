//! What a loop counts: its part of the process' gauges, and what a batch became.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Owned;
use super::batch::Batch;
use super::task::{State, Task};
use crate::model::contract::Topic;
use crate::model::record::{OutRecord, Record};
use crate::model::state::{Decision, Facts, Outcome, Verdict};
use crate::telemetry::family::Peak;
use crate::telemetry::metrics::Metrics;

/// Where partitions stand, in the order of [`Standing::states`].
const STATES: [&str; 3] = ["ready", "recovering", "stopped"];

/// How a loop stands at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Records that are not committed.
    pub(super) lag: i64,
    /// When the oldest that was fetched and is not committed was written to its topic, ms since the epoch.
    pub(super) oldest_ms: Option<i64>,
    /// How many partitions are ready, recovering, stopped.
    pub(super) states: [i64; 3],
}

/// One loop's part of gauges that are every loop's of the process; what it added goes when it goes.
#[derive(Debug)]
pub(super) struct Tally {
    metrics: Metrics,
    stage: &'static str,
    peak: Peak,
    shown: Standing,
    owned: Vec<(i32, u64)>,
}

impl Tally {
    pub(super) fn new(metrics: &Metrics, stage: &'static str) -> Self {
        let peak = metrics.lag_seconds.join(stage);
        let (metrics, shown) = (metrics.clone(), Standing::default());
        Self { metrics, stage, peak, shown, owned: Vec::new() }
    }

    /// Counts where the partitions are others than they were.
    pub(super) fn owns(&mut self, owned: &[Owned]) {
        let now = || owned.iter().map(|one| (one.partition, one.term));
        if !now().eq(self.owned.iter().copied()) {
            self.owned = now().collect();
            self.metrics.rebalances.at([self.stage]).inc();
        }
    }

    /// Shows how this loop stands; `now_ms` is the wall clock.
    pub(super) fn shows(&mut self, now: Standing, now_ms: i64) {
        let lag = now.lag.saturating_sub(self.shown.lag);
        self.metrics.lag.at([self.stage]).add(lag);
        for ((state, now), before) in STATES.iter().zip(now.states).zip(self.shown.states) {
            self.metrics.partitions.at([self.stage, state]).add(now.saturating_sub(before));
        }
        let age_ms = now.oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest).max(0));
        self.peak.set(Duration::from_millis(age_ms.unsigned_abs()).as_secs_f64());
        self.shown = now;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.shows(Standing::default(), 0);
    }
}

/// How many of these are ready, recovering, stopped.
pub(super) fn states<'a>(tasks: impl Iterator<Item = &'a Task>) -> [i64; 3] {
    let (mut ready, mut recovering, mut stopped) = (0, 0, 0);
    for task in tasks {
        match task.state {
            State::Ready(_) | State::Applied(..) => ready += 1,
            State::Recovering(_) => recovering += 1,
            State::Stopped(_) => stopped += 1,
        }
    }
    [ready, recovering, stopped]
}

/// When the oldest of these was written to its topic, ms since the epoch.
pub(super) fn oldest_ms<'a>(
    taken: impl IntoIterator<Item = &'a Record>,
    waiting: impl IntoIterator<Item = i64>,
) -> Option<i64> {
    taken.into_iter().map(|record| record.timestamp_ms).chain(waiting).min()
}

/// How many records, for a histogram.
pub(super) fn size(records: usize) -> f64 {
    u32::try_from(records).map_or(f64::INFINITY, f64::from)
}

/// Counts a batch of decide that stands: `records` were sent, `now_us` is when they became visible.
pub(super) fn batch(
    metrics: &Metrics,
    batch: &Batch,
    outcome: &Outcome,
    records: &[OutRecord],
    now_us: i64,
) {
    metrics.batch_records.at(["decide"]).observe(size(batch.records().len()));
    let mut sent: BTreeMap<Topic, u64> = BTreeMap::new();
    for record in records {
        *sent.entry(record.topic).or_default() += 1;
    }
    for (topic, records) in sent {
        metrics.published.at([topic.name()]).inc_by(records);
    }
    facts(metrics, &outcome.facts, now_us);
    verdicts(metrics, &outcome.decisions);
}

/// Counts what only is counted; `now_us` is when the batch became visible.
fn facts(metrics: &Metrics, facts: &Facts, now_us: i64) {
    let seconds = |us: i64| Duration::from_micros(us.max(0).unsigned_abs()).as_secs_f64();
    for one in &facts.receipts {
        let took = seconds(now_us.saturating_sub(one.received_at));
        metrics.receipt_to_commit_seconds.at([one.vendor.as_str()]).observe(took);
        if let Some(late_us) = one.late_us {
            metrics.lateness_seconds.at([one.vendor.as_str()]).observe(seconds(late_us));
        }
    }
    for (action, severity) in &facts.triggers {
        metrics.triggers.at([action.as_str(), severity.as_str()]).inc();
    }
    for (name, value) in &facts.values {
        metrics.values.observe(name, *value);
    }
}

/// Counts how the records of a batch of decide ended.
fn verdicts(metrics: &Metrics, decisions: &[Decision]) {
    let mut ends: BTreeMap<&'static str, u64> = BTreeMap::new();
    for decision in decisions {
        *ends.entry(decision.verdict.name()).or_default() += 1;
        if let Verdict::DeadLettered(kind) = decision.verdict {
            metrics.failures.at(["decide", kind.name()]).inc();
            metrics.errors.at([kind.name()]).inc();
        }
    }
    for (verdict, records) in ends {
        metrics.verdicts.at(["decide", verdict]).inc_by(records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::Receipt;

    fn has(metrics: &Metrics, line: &str) {
        let page = metrics.text();
        assert!(page.lines().any(|one| one == line), "{line}\n{page}");
    }

    #[test]
    fn a_loop_shows_its_part_and_takes_it_along() {
        let metrics = Metrics::new();
        let (mut one, mut other) = (Tally::new(&metrics, "decide"), Tally::new(&metrics, "decide"));
        one.shows(Standing { lag: 7, oldest_ms: Some(1_000), states: [2, 1, 0] }, 3_500);
        other.shows(Standing { lag: 2, oldest_ms: None, states: [1, 0, 1] }, 3_500);
        has(&metrics, "bridge_lag_records{stage=\"decide\"} 9");
        has(&metrics, "bridge_lag_seconds{stage=\"decide\"} 2.5");
        has(&metrics, "bridge_partitions{stage=\"decide\",state=\"ready\"} 3");
        has(&metrics, "bridge_partitions{stage=\"decide\",state=\"stopped\"} 1");
        drop(one);
        has(&metrics, "bridge_lag_records{stage=\"decide\"} 2");
        has(&metrics, "bridge_lag_seconds{stage=\"decide\"} 0");
        has(&metrics, "bridge_partitions{stage=\"decide\",state=\"recovering\"} 0");
    }

    #[test]
    fn a_rebalance_is_a_change() {
        let metrics = Metrics::new();
        let mut tally = Tally::new(&metrics, "normalise");
        let owned = |terms: &[u64]| -> Vec<Owned> {
            let one = |term: &u64| Owned { partition: 3, term: *term, revoking: false };
            terms.iter().map(one).collect()
        };
        for terms in [&[][..], &[1], &[1], &[2], &[2], &[]] {
            tally.owns(&owned(terms));
        }
        has(&metrics, "bridge_rebalances_total{stage=\"normalise\"} 3");
    }

    #[test]
    fn facts_are_counted_by_vendor_and_kind() {
        let metrics = Metrics::of(&["oura"]);
        let receipt = |vendor: &str, late_us| Receipt {
            vendor: vendor.into(),
            received_at: 1_000_000,
            late_us,
        };
        let facts_of = Facts {
            receipts: vec![receipt("oura", Some(30_000_000)), receipt("jane.doe", None)],
            triggers: vec![("URGENT_INTERVENTION".into(), "CRITICAL".into())],
            values: vec![("steps_daily", 5_000.0)],
        };
        facts(&metrics, &facts_of, 1_250_000);
        has(&metrics, "bridge_receipt_to_commit_seconds_sum{vendor=\"oura\"} 0.25");
        has(&metrics, "bridge_receipt_to_commit_seconds_count{vendor=\"unknown\"} 1");
        has(&metrics, "bridge_lateness_seconds_sum{vendor=\"oura\"} 30");
        let trigger = "{severity=\"CRITICAL\",type=\"URGENT_INTERVENTION\"} 1";
        has(&metrics, &format!("cognitive_mode_triggers{trigger}"));
        has(&metrics, "biometric_values_count{metric=\"steps_daily\"} 1");
    }
}
