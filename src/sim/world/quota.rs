//! A vendor's quotas as it counts them itself: windows of simulated time that a call opens, and who exceeds them.

use std::collections::VecDeque;

use crate::model::time::Micros;

/// So many calls in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The window, seconds.
    pub window_s: u32,
    /// The most calls of it.
    pub calls: u32,
}

impl Limit {
    fn window(self) -> Micros {
        i64::from(self.window_s) * 1_000_000
    }
}

/// One limit and what is used of it.
#[derive(Clone, Debug)]
struct Used {
    limit: Limit,
    opened: Option<Micros>,
    calls: u32,
    /// Calls of the last window's length, whenever it opened.
    sliding: VecDeque<Micros>,
    peak: usize,
}

/// The quotas of one client of a vendor.
#[derive(Clone, Debug)]
pub struct Quotas {
    used: Vec<Used>,
    /// Calls within all limits.
    pub taken: u64,
    /// Calls beyond one of them.
    pub exceeded: u64,
}

/// What is left, of the limit that is nearest to being hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The limit's calls.
    pub of: u32,
    /// How many are left.
    pub calls: u32,
    /// In how much simulated time its window ends, µs.
    pub ends_in: Micros,
    /// Whether this call was within all limits.
    pub granted: bool,
}

impl Left {
    /// How long to wait, in whole seconds of the world's own; one too many harms nobody, one too few is another refusal.
    #[must_use]
    pub const fn wait_s(&self) -> Micros {
        (self.ends_in + 999_999) / 1_000_000
    }
}

impl Quotas {
    /// Of these limits, nothing used.
    #[must_use]
    pub fn new(limits: &[Limit]) -> Self {
        let used = |limit: &Limit| Used {
            limit: *limit,
            opened: None,
            calls: 0,
            sliding: VecDeque::new(),
            peak: 0,
        };
        Self { used: limits.iter().map(used).collect(), taken: 0, exceeded: 0 }
    }

    /// Counts a call at this time. One that is refused uses nothing up.
    pub fn call(&mut self, at: Micros) -> Left {
        for used in &mut self.used {
            if used.opened.is_none_or(|opened| at - opened >= used.limit.window()) {
                (used.opened, used.calls) = (Some(at), 0);
            }
        }
        let granted = self.used.iter().all(|used| used.calls < used.limit.calls);
        if granted {
            self.taken += 1;
            self.used.iter_mut().for_each(|used| used.take(at));
        } else {
            self.exceeded += 1;
        }
        let left = |used: &Used| Left {
            of: used.limit.calls,
            calls: used.limit.calls.saturating_sub(used.calls),
            ends_in: used.opened.map_or(0, |opened| opened + used.limit.window() - at),
            granted,
        };
        // Of two that are used up the longer one says how long to wait.
        let nearest = self.used.iter().map(left);
        let none = Left { of: u32::MAX, calls: u32::MAX, ends_in: 0, granted };
        nearest.min_by_key(|left| (left.calls, -left.ends_in)).unwrap_or(none)
    }

    /// The most calls that any stretch of a window's length has seen, for each limit.
    #[must_use]
    pub fn peaks(&self) -> Vec<(Limit, usize)> {
        self.used.iter().map(|used| (used.limit, used.peak)).collect()
    }
}

impl Used {
    fn take(&mut self, at: Micros) {
        self.calls += 1;
        self.sliding.push_back(at);
        while self.sliding.front().is_some_and(|first| at - first >= self.limit.window()) {
            self.sliding.pop_front();
        }
        self.peak = self.peak.max(self.sliding.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Limit = Limit { window_s: 60, calls: 3 };
    const DAY: Limit = Limit { window_s: 86_400, calls: 5 };

    #[test]
    fn a_window_opens_with_a_call_and_the_nearest_limit_speaks() {
        let mut quotas = Quotas::new(&[MINUTE, DAY]);
        let second = 1_000_000;
        let left: Vec<u32> = [0, 58, 59].map(|at| quotas.call(at * second).calls).to_vec();
        assert_eq!(left, [2, 1, 0]);
        let over = quotas.call(59 * second);
        assert_eq!((over.granted, over.ends_in), (false, second));
        assert!(quotas.call(60 * second).granted, "the window that a call opened is over");
        assert!(quotas.call(61 * second).granted);
        let day = quotas.call(62 * second);
        assert_eq!((day.granted, day.of), (false, 5), "the day's are used up");
        assert_eq!((quotas.taken, quotas.exceeded), (5, 2));
        assert_eq!(quotas.peaks(), [(MINUTE, 4), (DAY, 5)], "a burst across two windows is seen");
    }
}
