//! Rates: how many requests of a vendor are taken in a time, in all and from one peer.
//!
//! Off unless configured, and for a vendor best left off: what is refused here must come again, or
//! it is lost. So the answer is the one that makes this vendor come again
//! ([`crate::vendors::Vendor::limited`]), with the time after which it will be taken.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::InMemoryState;
use governor::state::direct::NotKeyed;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use serde::Deserialize;

use crate::stream::clock::Stopwatch;

/// The most peers that are remembered. Beyond, those whose time has passed are forgotten, and if
/// that is not enough new ones are not limited by themselves: the limit in all still holds.
const PEERS_MAX: usize = 16 * 1024;
/// How many requests go by between two looks at how many are remembered.
const LOOK_EVERY: usize = 1_024;

/// A number of requests in a time, as `100/minute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    count: NonZeroU32,
    period: Duration,
}

/// What a rate may be. The words before the comma are the form in which the configuration is told
/// what it may say.
const EXPECTED: &str = "invalid value: a rate, expected a count and a unit, as 100/minute";

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (count, unit) = text.split_once('/').ok_or(EXPECTED)?;
        let count = count.trim().parse().map_err(|_| EXPECTED)?;
        let seconds = match unit.trim() {
            "second" => 1,
            "minute" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            _ => return Err(EXPECTED),
        };
        let rate = Self { count, period: Duration::from_secs(seconds) };
        rate.quota().map(|_| rate).ok_or(EXPECTED)
    }
}

impl TryFrom<String> for Rate {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Rate {
    /// All of them may come at once; then they come back one by one. Absent where that is finer
    /// than the clock.
    fn quota(self) -> Option<Quota> {
        Some(Quota::with_period(self.period / self.count.get())?.allow_burst(self.count))
    }
}

/// Our clock, as the limiter asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(Stopwatch);

impl Clock for Since {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.elapsed())
    }
}

type All<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;
type Each<K, C> = RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A vendor's limits.
pub(super) struct Gate<C: Clock = Since> {
    clock: C,
    all: Option<All<C>>,
    each: Option<Peers<IpAddr, C>>,
}

/// A limit for each peer, and a bound on how many are remembered.
struct Peers<K: Hash + Eq + Clone, C: Clock> {
    limiter: Each<K, C>,
    asked: AtomicUsize,
}

impl Gate {
    /// The limits of these rates; where there is none, nothing is limited.
    pub(super) fn new(all: Option<Rate>, each: Option<Rate>) -> Self {
        Self::by(Since(Stopwatch::start()), all, each)
    }
}

impl<C: Clock + Clone> Gate<C> {
    fn by(clock: C, all: Option<Rate>, each: Option<Rate>) -> Self {
        let all = all.and_then(Rate::quota);
        let each = each.and_then(Rate::quota);
        Self {
            all: all.map(|quota| RateLimiter::direct_with_clock(quota, clock.clone())),
            each: each.map(|quota| Peers {
                limiter: RateLimiter::dashmap_with_clock(quota, clock.clone()),
                asked: AtomicUsize::new(0),
            }),
            clock,
        }
    }

    /// Whether a request of this peer is taken; else after how many whole seconds one will be.
    ///
    /// A peer that is over its own limit takes nothing of the limit in all.
    pub(super) fn pass(&self, peer: IpAddr) -> Result<(), u32> {
        if let Some(each) = &self.each
            && each.has_room()
            && let Err(not_until) = each.limiter.check_key(&peer)
        {
            return Err(seconds(not_until.wait_time_from(self.clock.now())));
        }
        if let Some(all) = &self.all
            && let Err(not_until) = all.check()
        {
            return Err(seconds(not_until.wait_time_from(self.clock.now())));
        }
        Ok(())
    }
}

impl<K: Hash + Eq + Clone, C: Clock> Peers<K, C> {
    /// Forgets who need not be remembered, now and then; `false` where that does not help.
    fn has_room(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if !asked.is_multiple_of(LOOK_EVERY) || self.limiter.len() < PEERS_MAX {
            return self.limiter.len() < PEERS_MAX + LOOK_EVERY;
        }
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.limiter.len() < PEERS_MAX
    }
}

fn seconds(wait: Duration) -> u32 {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(whole.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn a_rate_is_a_count_and_a_unit() {
        let rate: Rate = "100/minute".parse().expect("a rate");
        assert_eq!((rate.count.get(), rate.period), (100, Duration::from_secs(60)));
        assert!(" 5 / second ".parse::<Rate>().is_ok());
        for bad in ["", "100", "100/", "0/minute", "-1/minute", "1.5/hour", "5/fortnight", "a/day"]
        {
            assert_eq!(bad.parse::<Rate>(), Err(EXPECTED), "{bad}");
        }
        assert_eq!("2000000000/second".parse::<Rate>(), Err(EXPECTED), "finer than the clock");
    }

    #[test]
    fn nothing_is_limited_unless_asked_for() {
        let gate = Gate::new(None, None);
        assert!((0..100_000).all(|_| gate.pass(peer(1)).is_ok()));
    }

    #[test]
    fn a_limit_in_all_is_for_everybody_and_says_when() {
        let clock = FakeRelativeClock::default();
        let gate = Gate::by(clock.clone(), "60/minute".parse().ok(), None);
        for number in 0..60 {
            assert_eq!(gate.pass(peer(number)), Ok(()));
        }
        assert_eq!(gate.pass(peer(60)), Err(1), "one comes back each second");
        clock.advance(Duration::from_secs(1));
        assert_eq!(gate.pass(peer(60)), Ok(()));
        assert_eq!(gate.pass(peer(60)), Err(1));
        let slow = Gate::by(clock.clone(), "1/hour".parse().ok(), None);
        assert_eq!(slow.pass(peer(1)), Ok(()));
        clock.advance(Duration::from_millis(500));
        assert_eq!(slow.pass(peer(1)), Err(3_600), "rounded up: nobody comes too early");
    }

    #[test]
    fn a_peer_has_its_own_and_takes_nothing_of_the_others() {
        let clock = FakeRelativeClock::default();
        let rates = ("10/minute".parse().ok(), "2/minute".parse().ok());
        let gate = Gate::by(clock, rates.0, rates.1);
        for _ in 0..2 {
            assert_eq!(gate.pass(peer(1)), Ok(()));
        }
        for _ in 0..100 {
            assert!(gate.pass(peer(1)).is_err());
        }
        for number in 2..6 {
            assert_eq!((gate.pass(peer(number)), gate.pass(peer(number))), (Ok(()), Ok(())));
        }
        assert!(gate.pass(peer(7)).is_err(), "ten in all");
    }

    #[test]
    fn the_memory_of_peers_is_bounded() {
        let clock = FakeRelativeClock::default();
        let gate = Gate::by(clock.clone(), None, "1/minute".parse().ok());
        let many = u32::try_from(4 * PEERS_MAX).expect("few");
        for number in 0..many {
            assert_eq!(gate.pass(peer(number)), Ok(()), "a new peer is never refused");
        }
        let remembered = |gate: &Gate<FakeRelativeClock>| {
            gate.each.as_ref().map_or(0, |each| each.limiter.len())
        };
        assert!(remembered(&gate) <= PEERS_MAX + LOOK_EVERY, "{}", remembered(&gate));
        clock.advance(Duration::from_secs(120));
        for _ in 0..2 * LOOK_EVERY {
            gate.pass(peer(0)).ok();
        }
        assert!(remembered(&gate) <= LOOK_EVERY, "{}", remembered(&gate));
        assert!(gate.pass(peer(0)).is_err());
    }
}
