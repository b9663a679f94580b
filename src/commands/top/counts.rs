//! What a process has counted, and by how much since the look before.
//!
//! A process that starts again counts from 0. That shows: a count fell, or a series is gone that was there. Then all
//! that it has counted is new, and nothing is below 0. What it counted in its life before stays in the sum.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;
use super::names;
use super::page::{Labels, Page};

type Key = (&'static str, Labels);

/// The most series that are added up: a page that makes new ones at every look must not fill the memory.
const SERIES_MAX: usize = 20_000;

/// Counters and histograms of the names that are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    counters: BTreeMap<Key, f64>,
    histograms: BTreeMap<Key, Histogram>,
}

impl Counts {
    /// What a page says.
    #[must_use]
    pub fn of(page: &Page) -> Self {
        let mut counts = Self::default();
        for name in names::COUNTERS {
            for (labels, value) in page.samples(name) {
                counts.counters.insert((name, labels.clone()), value);
            }
        }
        for name in names::HISTOGRAMS {
            let mut cumulative: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for (labels, count) in page.samples(&format!("{name}_bucket")) {
                let mut labels = labels.clone();
                if let Some(bound) = labels.remove("le").and_then(|bound| bound.parse().ok()) {
                    cumulative.entry(labels).or_default().push((bound, count));
                }
            }
            for (labels, buckets) in cumulative {
                counts.histograms.insert((name, labels), Histogram::of(buckets));
            }
        }
        counts
    }

    /// What came since `before`; absent where something fell or is gone, so that all is new.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        let mut came = self.clone();
        for (key, then) in &before.counters {
            let now = came.counters.get_mut(key).filter(|now| **now >= *then)?;
            *now -= then;
        }
        for (key, then) in &before.histograms {
            let now = came.histograms.get_mut(key)?;
            *now = now.since(then)?;
        }
        Some(came)
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.counters {
            if self.counters.len() < SERIES_MAX || self.counters.contains_key(key) {
                *self.counters.entry(key.clone()).or_default() += count;
            }
        }
        for (key, histogram) in &other.histograms {
            if self.histograms.len() < SERIES_MAX || self.histograms.contains_key(key) {
                self.histograms.entry(key.clone()).or_default().add(histogram);
            }
        }
    }

    /// Each counter of a name with its labels.
    pub fn counters(&self, name: &str) -> impl Iterator<Item = (&Labels, f64)> {
        let of_name = self.counters.iter().filter(move |((found, _), _)| *found == name);
        of_name.map(|((_, labels), count)| (labels, *count))
    }

    /// Each histogram of a name with its labels.
    pub fn histograms(&self, name: &str) -> impl Iterator<Item = (&Labels, &Histogram)> {
        let of_name = self.histograms.iter().filter(move |((found, _), _)| *found == name);
        of_name.map(|((_, labels), histogram)| (labels, histogram))
    }
}

/// The counts of one process over all its lives that were seen.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// When the page before was read, by the watch's own clock, and what stood on it.
    last: Option<(Duration, Counts)>,
    /// All that was counted.
    pub total: Counts,
    /// What came in the last interval, and how long that was; absent before the second page and while it is away.
    pub step: Option<(Counts, Duration)>,
    /// How often it started again.
    pub restarts: u32,
}

impl Account {
    /// Whether any page was ever read.
    #[must_use]
    pub const fn was_read(&self) -> bool {
        self.last.is_some()
    }

    /// Takes a page that was read at this time; absent where there was none.
    pub fn take(&mut self, at: Duration, page: Option<&Page>) {
        self.step = None;
        let Some(now) = page.map(Counts::of) else { return };
        let came = match &self.last {
            None => now.clone(),
            Some((then, before)) => {
                let came = now.since(before);
                self.restarts += u32::from(came.is_none());
                let came = came.unwrap_or_else(|| now.clone());
                let took = at.saturating_sub(*then);
                self.step = (!took.is_zero()).then(|| (came.clone(), took));
                came
            }
        };
        self.total.add(&came);
        self.last = Some((at, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(terra: u64, oura: Option<u64>, quick: u64, slow: u64) -> Page {
        let oura = oura
            .map(|oura| format!("webhook_events_total{{status=\"200\",vendor=\"oura\"}} {oura}\n"));
        let text = format!(
            "webhook_events_total{{status=\"200\",vendor=\"terra\"}} {terra}\n{}\
             bridge_batch_seconds_bucket{{part=\"load\",le=\"0.001\"}} {quick}\n\
             bridge_batch_seconds_bucket{{part=\"load\",le=\"+Inf\"}} {}\n",
            oura.unwrap_or_default(),
            quick + slow,
        );
        Page::read(text.as_bytes()).expect("a page")
    }

    fn sum(counts: &Counts) -> (f64, f64) {
        let requests = counts.counters(names::REQUESTS).map(|(_, count)| count).sum();
        let batches = counts.histograms(names::BATCH_SECONDS).map(|(_, found)| found.count());
        (requests, batches.sum())
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_page_is_a_sum_and_no_interval() {
        let mut account = Account::default();
        account.take(s(1), Some(&page(10, None, 3, 1)));
        assert_eq!((sum(&account.total), account.step.is_none()), ((10.0, 4.0), true));
        account.take(s(3), Some(&page(16, Some(2), 5, 1)));
        let (step, took) = account.step.clone().expect("an interval");
        assert_eq!((sum(&step), took), ((8.0, 2.0), s(2)));
        assert_eq!((sum(&account.total), account.restarts), ((18.0, 6.0), 0));
    }

    #[test]
    fn who_starts_again_counts_anew_and_never_below_nothing() {
        let fell = page(3, Some(9), 9, 9);
        let gone = page(500, None, 9, 9);
        let bucket_fell = page(500, Some(9), 2, 40);
        for after in [fell, gone, bucket_fell] {
            let mut account = Account::default();
            account.take(s(1), Some(&page(100, Some(5), 7, 1)));
            account.take(s(2), Some(&after));
            let (step, _) = account.step.clone().expect("an interval");
            assert_eq!(step, Counts::of(&after), "all that it has counted is new");
            assert_eq!(account.restarts, 1);
            let (requests, batches) = sum(&Counts::of(&after));
            assert_eq!(sum(&account.total), (105.0 + requests, 8.0 + batches));
        }
    }

    #[test]
    fn who_was_away_is_counted_over_the_whole_time() {
        let mut account = Account::default();
        account.take(s(1), Some(&page(10, None, 1, 0)));
        account.take(s(2), None);
        assert!(account.step.is_none(), "nothing is known of it");
        assert_eq!(sum(&account.total).0, 10.0, "what it has counted stays");
        account.take(s(11), Some(&page(30, None, 1, 0)));
        let (step, took) = account.step.clone().expect("an interval");
        assert_eq!((sum(&step).0, took), (20.0, s(10)));
    }
}
