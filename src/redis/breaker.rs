//! Whether it is worth asking: pure, its time is an argument.

use std::time::Duration;

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;
/// How long it stays open before one call may try.
const OPEN_FOR: Duration = Duration::from_secs(5);

/// A circuit breaker: closed it lets calls through, open it refuses them, and after a while it lets one try.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    refuses_until: Option<Duration>,
}

impl Breaker {
    /// Whether a call may be made now.
    pub(super) fn allows(&self, now: Duration) -> bool {
        self.refuses_until.is_none_or(|until| now >= until)
    }

    /// A call was answered.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A call was not; from the fifth in a row on, each opens it. Gives whether this one did.
    pub(super) fn failed(&mut self, now: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = self.failures >= FAILURES_MAX;
        if opens {
            self.refuses_until = Some(now + OPEN_FOR);
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn five_failures_open_it_and_one_try_after_a_while_decides() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.failed(s(0));
        }
        assert!(breaker.allows(s(0)), "four are not enough");
        breaker.failed(s(1));
        assert!(!breaker.allows(s(1)));
        assert!(!breaker.allows(s(5)));
        assert!(breaker.allows(s(6)), "one may try");
        breaker.failed(s(6));
        assert!(!breaker.allows(s(10)), "it failed: open again at once");
        assert!(breaker.allows(s(11)));
        breaker.succeeded();
        breaker.failed(s(11));
        assert!(breaker.allows(s(11)), "counted anew");
    }

    #[test]
    fn failures_count_in_a_row_only() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 0..4 {
                breaker.failed(s(0));
            }
            breaker.succeeded();
        }
        assert!(breaker.allows(s(0)));
    }
}
