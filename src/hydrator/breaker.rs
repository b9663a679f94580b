//! Whether it is worth asking a vendor: pure, its time is an argument and only ever grows.
//!
//! Five failures in a row open it; open it lets nothing through for 60 s; then one call may try, and that call alone
//! decides: answered, all may go again, spoiled, it is open for another 60 s. Calls that were under way when it opened
//! count for nothing: they say how the vendor was, not how it is.

use std::time::Duration;

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;
/// How long it stays open before one call may try.
pub const OPEN_FOR: Duration = Duration::from_secs(60);

/// How many calls may be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// As many as there are.
    All,
    /// One, to see.
    One,
    /// None: not before so long, or until the one that tries has ended.
    None(Duration),
}

/// What a call was begun as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// One among others.
    Call,
    /// The one that tries.
    Probe,
}

/// What a call says of the vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It answers.
    Well,
    /// It does not, or not as it should.
    Ill,
    /// Nothing: the vendor was not asked.
    Nothing,
}

/// A circuit breaker of one vendor, in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    open_for: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration },
    Probing,
}

impl Breaker {
    /// A closed one that stays open for so long once it opens: [`OPEN_FOR`], but for a vendor that is played.
    #[must_use]
    pub const fn new(open_for: Duration) -> Self {
        Self { state: State::Closed { failures: 0 }, open_for }
    }

    /// How many calls may be begun now.
    #[must_use]
    pub fn room(&self, now: Duration) -> Room {
        match self.state {
            State::Closed { .. } => Room::All,
            State::Open { until } if now >= until => Room::One,
            State::Open { until } => Room::None(until.saturating_sub(now)),
            State::Probing => Room::None(self.open_for),
        }
    }

    /// A call begins; only as many as there is room for.
    pub fn begin(&mut self) -> Pass {
        match self.state {
            State::Closed { .. } => Pass::Call,
            State::Open { .. } | State::Probing => {
                self.state = State::Probing;
                Pass::Probe
            }
        }
    }

    /// A call has ended. Gives whether that opened it.
    pub fn end(&mut self, pass: Pass, said: Said, now: Duration) -> bool {
        let failures = match (self.state, pass) {
            (State::Closed { failures }, Pass::Call) => failures,
            (State::Probing, Pass::Probe) => FAILURES_MAX,
            _ => return false,
        };
        let (next, opens) = match said {
            Said::Well => (State::Closed { failures: 0 }, false),
            Said::Ill if failures + 1 >= FAILURES_MAX => {
                (State::Open { until: now.saturating_add(self.open_for) }, true)
            }
            Said::Ill => (State::Closed { failures: failures + 1 }, false),
            // The one that was to try could not: the next one may, at once.
            Said::Nothing if pass == Pass::Probe => (State::Open { until: now }, false),
            Said::Nothing => (self.state, false),
        };
        self.state = next;
        opens
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failed(breaker: &mut Breaker, times: u32, now: Duration) -> bool {
        (0..times).fold(false, |_, _| {
            let pass = breaker.begin();
            breaker.end(pass, Said::Ill, now)
        })
    }

    #[test]
    fn five_failures_open_it_and_one_probe_after_a_minute_decides() {
        let mut breaker = Breaker::new(OPEN_FOR);
        assert!(!failed(&mut breaker, 4, s(0)));
        assert_eq!(breaker.room(s(0)), Room::All, "four are not enough");
        assert!(failed(&mut breaker, 1, s(1)));
        assert_eq!(breaker.room(s(1)), Room::None(s(60)));
        assert_eq!(breaker.room(s(60)), Room::None(s(1)));
        assert_eq!(breaker.room(s(61)), Room::One);
        let probe = breaker.begin();
        assert_eq!(probe, Pass::Probe);
        assert!(matches!(breaker.room(s(62)), Room::None(_)), "no second one");
        assert!(breaker.end(probe, Said::Ill, s(63)), "open again");
        assert_eq!(breaker.room(s(122)), Room::None(s(1)));
        let probe = breaker.begin();
        assert!(!breaker.end(probe, Said::Well, s(123)));
        assert_eq!(breaker.room(s(123)), Room::All);
        assert!(!failed(&mut breaker, 4, s(123)), "counted anew");
    }

    #[test]
    fn what_was_under_way_says_nothing() {
        let mut breaker = Breaker::new(OPEN_FOR);
        let early = breaker.begin();
        assert!(failed(&mut breaker, 5, s(0)));
        assert!(!breaker.end(early, Said::Well, s(1)));
        assert!(matches!(breaker.room(s(1)), Room::None(_)), "an old answer closes nothing");
        let probe = breaker.begin();
        assert!(!breaker.end(early, Said::Ill, s(61)));
        assert!(!breaker.end(probe, Said::Nothing, s(61)));
        assert_eq!(breaker.room(s(61)), Room::One, "a probe that was not made is made by the next");
    }

    proptest! {
        /// Against a model that keeps the whole history: open exactly while the last five calls that counted failed,
        /// or the probe did; never two probes at once.
        #[test]
        fn it_does_what_the_history_says(steps in prop::collection::vec((0_u8..3, 0_u64..40), 1..300)) {
            let mut breaker = Breaker::new(OPEN_FOR);
            let (mut now, mut in_a_row, mut open_until) = (Duration::ZERO, 0_u32, None::<Duration>);
            for (what, pause) in steps {
                now += s(pause);
                let expected = match open_until {
                    None => Room::All,
                    Some(until) if now >= until => Room::One,
                    Some(until) => Room::None(until - now),
                };
                prop_assert_eq!(breaker.room(now), expected);
                if matches!(expected, Room::None(_)) {
                    continue;
                }
                let pass = breaker.begin();
                let said = [Said::Well, Said::Ill, Said::Nothing][usize::from(what)];
                let opens = breaker.end(pass, said, now);
                match said {
                    Said::Well => (in_a_row, open_until) = (0, None),
                    Said::Ill => in_a_row += 1,
                    Said::Nothing if open_until.is_some() => open_until = Some(now),
                    Said::Nothing => {}
                }
                let opened = said == Said::Ill && in_a_row >= 5;
                if opened {
                    open_until = Some(now + s(60));
                }
                prop_assert_eq!(opens, opened);
            }
        }
    }
}
