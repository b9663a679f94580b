//! What a histogram of Prometheus says about latencies: quantiles, by linear interpolation within a bucket.
//!
//! A page gives, for each upper bound, how many observations lie at or below it. Here each bucket has its own count,
//! so that histograms of several processes add up even where their bounds differ: between two versions they may.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Observations by the upper bound of the bucket that they lie in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    buckets: BTreeMap<Bound, f64>,
}

/// An upper bound; infinity is one.
#[derive(Clone, Copy, Debug)]
struct Bound(f64);

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Bound {}

/// A quantile, in the histogram's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantile {
    /// It is about this.
    About(f64),
    /// It lies above the last bound, which is this.
    Above(f64),
}

impl Histogram {
    /// The histogram of counts that each include those of the smaller bounds, in any order. A count below that of a
    /// smaller bound, which no true histogram has, adds nothing.
    #[must_use]
    pub fn of(cumulative: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let sorted: BTreeMap<Bound, f64> =
            cumulative.into_iter().map(|(bound, count)| (Bound(bound), count)).collect();
        let mut below: f64 = 0.0;
        let mut buckets = BTreeMap::new();
        for (bound, count) in sorted {
            buckets.insert(bound, (count - below).max(0.0));
            below = below.max(count);
        }
        Self { buckets }
    }

    /// How many observations there are.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.buckets.values().sum()
    }

    /// What came since `before`; absent where a bucket has less than then: it counts anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        let fell =
            |(bound, then): (&Bound, &f64)| self.buckets.get(bound).is_none_or(|now| now < then);
        if before.buckets.iter().any(fell) {
            return None;
        }
        let then = |bound| before.buckets.get(bound).copied().unwrap_or(0.0);
        let buckets = self.buckets.iter().map(|(bound, now)| (*bound, now - then(bound)));
        Some(Self { buckets: buckets.collect() })
    }

    /// Adds another's observations.
    pub fn add(&mut self, other: &Self) {
        for (bound, count) in &other.buckets {
            *self.buckets.entry(*bound).or_default() += count;
        }
    }

    /// The value below which this share of the observations lies; absent where there is none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Quantile> {
        let rank = self.count() * share;
        let mut below = 0.0;
        let mut lower: f64 = 0.0;
        for (Bound(upper), count) in &self.buckets {
            if *count > 0.0 && below + count >= rank {
                if *upper == f64::INFINITY {
                    return Some(Quantile::Above(lower));
                }
                let lower = lower.min(*upper);
                return Some(Quantile::About(lower + (upper - lower) * (rank - below) / count));
            }
            below += count;
            lower = *upper;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: f64 = f64::INFINITY;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let seconds = Histogram::of([(0.1, 50.0), (0.2, 90.0), (0.4, 99.0), (NONE, 100.0)]);
        let about = |share| match seconds.quantile(share) {
            Some(Quantile::About(value)) => (value * 1e6).round() / 1e6,
            other => panic!("{other:?}"),
        };
        assert_eq!(seconds.count(), 100.0);
        assert_eq!((about(0.25), about(0.5), about(0.7)), (0.05, 0.1, 0.15));
        assert_eq!(about(0.99), 0.4);
        assert_eq!(seconds.quantile(0.995), Some(Quantile::Above(0.4)));
    }

    #[test]
    fn of_nothing_there_is_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(Histogram::of([(1.0, 0.0), (NONE, 0.0)]).quantile(0.99), None);
        let only = Histogram::of([(NONE, 3.0)]);
        assert_eq!(only.quantile(0.5), Some(Quantile::Above(0.0)));
    }

    #[test]
    fn what_came_since_is_a_difference_and_never_below_nothing() {
        let before = Histogram::of([(1.0, 2.0), (NONE, 3.0)]);
        let after = Histogram::of([(1.0, 12.0), (NONE, 13.0)]);
        let came = after.since(&before).expect("it grew");
        assert_eq!((came.count(), came.quantile(1.0)), (10.0, Some(Quantile::About(1.0))));
        assert_eq!(before.since(&after), None, "it counts anew");
        let moved = Histogram::of([(1.0, 1.0), (NONE, 20.0)]);
        assert_eq!(moved.since(&before), None, "more in all, but less in one bucket");
    }

    /// The bounds and counts of a page may be anything that the format can say.
    #[test]
    fn nonsense_is_no_panic_and_no_negative_count() {
        let odd = [NONE, f64::NEG_INFINITY, f64::NAN, -1.0, 0.0, 1e308];
        for first in odd {
            for second in odd {
                let histogram = Histogram::of([(first, 5.0), (second, 3.0)]);
                assert!(histogram.count() >= 0.0 && histogram.count() <= 5.0);
                for share in [0.0, 0.5, 1.0] {
                    let quantile = histogram.quantile(share);
                    assert!(quantile.is_some() || histogram.count() == 0.0, "{first} {second}");
                }
            }
        }
    }

    #[test]
    fn other_bounds_add_up_too() {
        let mut ours = Histogram::of([(1.0, 4.0), (NONE, 4.0)]);
        ours.add(&Histogram::of([(0.5, 2.0), (1.0, 4.0), (NONE, 5.0)]));
        assert_eq!(ours.count(), 9.0);
        assert_eq!(ours.quantile(1.0), Some(Quantile::Above(1.0)));
    }
}
