//! Metrics over closed sets of label values: every series is there from the start.
//!
//! # Why
//! A label that a sender can fill makes a series for each of his inventions, until the server that scrapes us is full.
//! So a label's values are a list that is known when the process starts, every combination is made then, and what is
//! not in the list counts as the list's last value (`unknown`, `other`). That also makes counting cheap: a short scan
//! over literals and an atomic addition, no hashing and no lock; and a series that never moved shows 0, over which a
//! rate can be taken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

use crate::model::metric;
use crate::telemetry::table::{Row, Shape};

/// Makes metrics of rows and enters them.
pub(super) struct Maker<'a> {
    pub(super) registry: &'a Registry,
    pub(super) vendors: &'a [&'static str],
}

impl Maker<'_> {
    /// One series: a row with values for its labels.
    fn one<M: Series>(&self, row: &Row, values: &[&str], buckets: &[f64]) -> M {
        assert_eq!(row.labels.len(), values.len(), "invariant: a value for each label");
        let mut opts = Opts::new(row.name, row.help);
        for (label, value) in row.labels.iter().zip(values) {
            opts = opts.const_label(label.name, *value);
        }
        #[expect(clippy::expect_used, reason = "literals of the table only; a test makes them all")]
        let made = M::series(opts, buckets)
            .expect("invariant: names, labels and buckets of the table are well-formed");
        let entered = self.registry.register(Box::new(made.clone()));
        assert!(entered.is_ok(), "invariant: a series stands once in the table");
        made
    }
}

/// A series of Prometheus'.
pub trait Series: Collector + Clone + 'static {
    /// What Prometheus calls it.
    const SHAPE: Shape;

    /// Makes it; only a histogram looks at the bounds.
    ///
    /// # Errors
    /// A name, a label or bounds that Prometheus does not take.
    fn series(opts: Opts, buckets: &[f64]) -> prometheus::Result<Self>;
}

impl Series for IntCounter {
    const SHAPE: Shape = Shape::Counter;

    fn series(opts: Opts, _buckets: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(opts)
    }
}

impl Series for IntGauge {
    const SHAPE: Shape = Shape::Gauge;

    fn series(opts: Opts, _buckets: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(opts)
    }
}

impl Series for Gauge {
    const SHAPE: Shape = Shape::Gauge;

    fn series(opts: Opts, _buckets: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(opts)
    }
}

impl Series for Histogram {
    const SHAPE: Shape = Shape::Histogram;

    fn series(opts: Opts, buckets: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()))
    }
}

/// What a row of the table is made into.
pub(super) trait Made: Sized {
    const SHAPE: Shape;
    fn made(maker: &Maker<'_>, row: &'static Row) -> Self;
}

impl<M: Series> Made for M {
    const SHAPE: Shape = <M as Series>::SHAPE;

    fn made(maker: &Maker<'_>, row: &'static Row) -> Self {
        maker.one(row, &[], row.buckets)
    }
}

/// A series for each combination of the values of `N` labels. Clones share them.
#[derive(Clone)]
pub struct Family<M, const N: usize>(Arc<Members<M, N>>);

struct Members<M, const N: usize> {
    /// The values of each label; the last stands for what is not among them.
    values: [Vec<&'static str>; N],
    /// In the order of the values, the last label's the fastest.
    series: Vec<M>,
    /// The last of them.
    last: M,
}

impl<M, const N: usize> std::fmt::Debug for Family<M, N> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(&self.0.values).finish()
    }
}

impl<M: Series, const N: usize> Made for Family<M, N> {
    const SHAPE: Shape = <M as Series>::SHAPE;

    fn made(maker: &Maker<'_>, row: &'static Row) -> Self {
        let mut labels = row.labels.iter();
        let values: [Vec<&'static str>; N] = std::array::from_fn(|_| {
            labels.next().map(|label| label.values(maker.vendors)).unwrap_or_default()
        });
        let mut combinations: Vec<Vec<&'static str>> = vec![Vec::new()];
        for values in &values {
            let with = |before: &Vec<&'static str>| -> Vec<Vec<&'static str>> {
                values.iter().map(|value| [before.as_slice(), &[*value]].concat()).collect()
            };
            combinations = combinations.iter().flat_map(with).collect();
        }
        let series: Vec<M> =
            combinations.iter().map(|values| maker.one(row, values, row.buckets)).collect();
        #[expect(clippy::expect_used, reason = "a test makes every row of the table")]
        let last = series.last().cloned().expect("invariant: no label's set is empty");
        Self(Arc::new(Members { values, series, last }))
    }
}

impl<M, const N: usize> Family<M, N> {
    /// The series of these values.
    #[must_use]
    pub fn at(&self, values: [&str; N]) -> &M {
        let mut place = 0;
        for (known, value) in self.0.values.iter().zip(values) {
            let at = known.iter().position(|known| *known == value);
            let rest = known.last().is_some_and(|last| matches!(*last, "other" | "unknown"));
            debug_assert!(at.is_some() || rest, "{value} is in no set: add it to its label");
            place = place * known.len() + at.unwrap_or(known.len().saturating_sub(1));
        }
        self.0.series.get(place).unwrap_or(&self.0.last)
    }
}

/// Gauges by one label that several workers of a process set: each shows the largest of them.
#[derive(Clone, Debug)]
pub struct Peaks(Family<Gauge, 1>, Arc<Mutex<Vec<Part>>>);

/// What one worker says, and of which stage; absent where the worker is gone.
type Part = Option<(&'static str, f64)>;

/// One worker's part of a [`Peaks`]; 0 once it is dropped.
#[derive(Debug)]
pub struct Peak {
    peaks: Peaks,
    place: usize,
    stage: &'static str,
}

impl Made for Peaks {
    const SHAPE: Shape = Shape::Gauge;

    fn made(maker: &Maker<'_>, row: &'static Row) -> Self {
        Self(Family::made(maker, row), Arc::default())
    }
}

impl Peaks {
    /// A part of its own, at 0.
    #[must_use]
    pub fn join(&self, stage: &'static str) -> Peak {
        let mut parts = self.parts();
        let part = Some((stage, 0.0));
        let place = match parts.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                parts.push(None);
                parts.len() - 1
            }
        };
        if let Some(free) = parts.get_mut(place) {
            *free = part;
        }
        drop(parts);
        Peak { peaks: self.clone(), place, stage }
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peak {
    /// Says how high it is here.
    pub fn set(&self, to: f64) {
        self.say(Some((self.stage, to)));
    }

    fn say(&self, part: Part) {
        let mut parts = self.peaks.parts();
        if let Some(place) = parts.get_mut(self.place) {
            *place = part;
        }
        let of_stage = parts.iter().flatten().filter(|(stage, _)| *stage == self.stage);
        let peak = of_stage.map(|(_, value)| *value).fold(0.0, f64::max);
        self.peaks.0.at([self.stage]).set(peak);
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.say(None);
    }
}

/// Gauges by one label that show only once they are set: nothing is known before, and 0 would be a claim.
#[derive(Clone)]
pub struct Seldom(Arc<Rare>);

/// What [`Seldom`] shares.
struct Rare {
    row: &'static Row,
    registry: Registry,
    gauges: Vec<(&'static str, OnceLock<IntGauge>)>,
}

impl std::fmt::Debug for Seldom {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.0.gauges.iter().map(|(name, _)| name)).finish()
    }
}

impl Made for Seldom {
    const SHAPE: Shape = Shape::Gauge;

    fn made(maker: &Maker<'_>, row: &'static Row) -> Self {
        let values = row.labels.iter().flat_map(|label| label.values(maker.vendors));
        let gauges = values.map(|value| (value, OnceLock::new())).collect();
        Self(Arc::new(Rare { row, registry: maker.registry.clone(), gauges }))
    }
}

impl Seldom {
    /// Sets the gauge of this value; nothing where the value is not of the label's set.
    pub fn set(&self, value: &str, to: i64) {
        let Rare { row, registry, gauges } = &*self.0;
        if let Some((value, gauge)) = gauges.iter().find(|(known, _)| *known == value) {
            let maker = Maker { registry, vendors: &[] };
            gauge.get_or_init(|| maker.one(row, &[*value], &[])).set(to);
        }
    }
}

/// How values of the vocabulary lie, by metric: of all people together, in eight steps of the metric's plausible range.
///
/// A value counts as the upper bound of its step, so that the sum beside the steps says no more than they do.
#[derive(Clone)]
pub struct Values(Arc<Lying>);

/// What [`Values`] shares.
struct Lying {
    counts: AtomicBool,
    metrics: Vec<Steps>,
}

/// A metric whose values are counted: its lowest plausible value and the height of a step.
struct Steps {
    metric: &'static str,
    low: f64,
    step: f64,
    seen: Histogram,
}

impl std::fmt::Debug for Values {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.0.metrics.iter().map(|of| of.metric)).finish()
    }
}

/// Steps of [`Values`].
const STEPS: u8 = 8;

impl Made for Values {
    const SHAPE: Shape = Shape::Histogram;

    fn made(maker: &Maker<'_>, row: &'static Row) -> Self {
        let counted = metric::COUNTED.iter().filter_map(|name| {
            let metric = metric::find(name)?;
            let (low, high) = metric.soft.or(metric.hard)?;
            let step = (high - low) / f64::from(STEPS);
            let bounds: Vec<f64> =
                (0..=STEPS).map(|number| low + step * f64::from(number)).collect();
            let seen = maker.one(row, &[metric.name], &bounds);
            Some(Steps { metric: metric.name, low, step, seen })
        });
        Self(Arc::new(Lying { counts: AtomicBool::new(true), metrics: counted.collect() }))
    }
}

impl Values {
    /// Counts nothing from here on.
    pub fn leave_empty(&self) {
        self.0.counts.store(false, Ordering::Relaxed);
    }

    /// Counts a value of a metric; nothing where the metric is not counted.
    pub fn observe(&self, metric: &str, value: f64) {
        if !self.0.counts.load(Ordering::Relaxed) {
            return;
        }
        if let Some(of) = self.0.metrics.iter().find(|of| of.metric == metric) {
            let above = ((value - of.low) / of.step).ceil().clamp(0.0, f64::from(STEPS) + 1.0);
            of.seen.observe(of.low + above * of.step);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn what_is_in_no_set_counts_as_the_last() {
        let metrics = Metrics::of(&["oura"]);
        metrics.requests.at(["oura", "200"]).inc();
        metrics.requests.at(["jane.doe", "200"]).inc();
        metrics.requests.at(["jane.doe", "799"]).inc();
        let page = metrics.text();
        for line in [
            r#"webhook_events_total{status="200",vendor="oura"} 1"#,
            r#"webhook_events_total{status="200",vendor="unknown"} 1"#,
            r#"webhook_events_total{status="other",vendor="unknown"} 1"#,
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        assert!(!page.contains("jane"), "{page}");
    }

    #[test]
    fn what_nobody_asked_is_not_said_to_be_down() {
        let metrics = Metrics::of(&[]);
        assert!(!metrics.text().contains("bridge_dependency_up"));
        metrics.up.set("kafka", 1);
        metrics.up.set("kafka", 0);
        metrics.up.set("jane.doe", 1);
        let page = metrics.text();
        assert!(page.contains(r#"bridge_dependency_up{dependency="kafka"} 0"#), "{page}");
        assert_eq!(page.matches("bridge_dependency_up{").count(), 1, "{page}");
    }

    #[test]
    fn the_worst_worker_is_what_is_seen() {
        let metrics = Metrics::of(&[]);
        let (one, other) = (metrics.lag_seconds.join("decide"), metrics.lag_seconds.join("decide"));
        one.set(3.5);
        other.set(1.0);
        let shown = |value: &str| {
            let line = format!("bridge_lag_seconds{{stage=\"decide\"}} {value}\n");
            assert!(metrics.text().contains(&line), "{line}");
        };
        shown("3.5");
        one.set(0.0);
        shown("1");
        drop(other);
        shown("0");
    }

    #[test]
    fn a_value_is_no_finer_than_its_step() {
        let metrics = Metrics::of(&[]);
        // Plausible is 35 to 105, a step is 8.75: 61.3 lies in the step that ends at 61.25 + 8.75.
        for value in [61.3, 62.0, 69.9, 70.0] {
            metrics.values.observe("resting_heart_rate", value);
        }
        for value in [-5.0, 300.0] {
            metrics.values.observe("resting_heart_rate", value);
        }
        metrics.values.observe("blood_glucose", 100.0);
        let page = metrics.text();
        let line = |name: &str| {
            let start = format!("biometric_values_{name}{{metric=\"resting_heart_rate\"");
            let lines = page.lines().filter(|line| line.starts_with(&start));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let counts: Vec<String> = line("bucket")
            .iter()
            .filter_map(|line| Some(line.rsplit(' ').next()?.into()))
            .collect();
        assert_eq!(counts, ["1", "1", "1", "1", "5", "5", "5", "5", "5", "6"]);
        assert_eq!(line("sum").concat().rsplit(' ').next(), Some("428.75"), "35, 4 × 70, 113.75");
        assert!(!page.contains("blood_glucose"), "{page}");
        metrics.values.leave_empty();
        metrics.values.observe("resting_heart_rate", 61.3);
        assert_eq!(metrics.text(), page, "left empty");
    }
}
