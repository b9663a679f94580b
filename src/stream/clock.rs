//! The only place that reads clocks.
//!
//! What a record says must not depend on when it was looked at, so a time comes in with the record
//! that has it and nothing else may ask. What is left for a clock is small: the receipt at the
//! door, deadlines, leases and metrics. They ask here, and clippy refuses them anywhere else. The
//! world in memory (`sim`) has a clock of its own behind the same [`Clock`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::Micros;
use crate::stream::Clock;

/// The machine's clock, for the engine.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    since: Instant,
}

impl RealClock {
    /// A clock whose time begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { since: now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    fn now_us(&self) -> i64 {
        now_us()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// The wall clock, µs since the Unix epoch: a receipt, a dead letter's time, a lease. Never
/// content.
#[must_use]
pub fn now_us() -> Micros {
    #[expect(clippy::disallowed_methods, reason = "this file owns time")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    // A machine that thinks it is before 1970 has receipts at 0, which every freshness window
    // refuses.
    since_epoch.map_or(0, |time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

/// Measures how long something takes, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    since: Instant,
}

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { since: now() }
    }

    /// How long it has been.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// How long it has been, µs.
    #[must_use]
    pub fn us(&self) -> Micros {
        i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// How long it has been, in seconds, as histograms want it.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this file owns time")]
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_in_microseconds() {
        let (in_2020, in_2100) = (1_577_836_800_000_000, 4_102_444_800_000_000);
        assert!((in_2020..in_2100).contains(&now_us()));
    }

    #[tokio::test]
    async fn a_clock_sees_what_it_slept() {
        let clock = RealClock::new();
        let watch = Stopwatch::start();
        clock.sleep(Duration::from_millis(20)).await;
        assert!(watch.elapsed() >= Duration::from_millis(20));
        assert!(clock.elapsed() >= Duration::from_millis(20));
        assert!(watch.seconds() >= 0.020);
    }
}
