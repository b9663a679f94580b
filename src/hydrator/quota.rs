//! A vendor's limits as buckets: never more calls in any window than the vendor allows, and nearly all of them where
//! there is work.
//!
//! # Why slots
//! A bucket that fills steadily either lets twice the limit through in a bad window (full at its beginning, refilled
//! by its end), or must be so small that a day's limit is handed out in drops: of 10 000 a day one could not use 300 in
//! three minutes. So calls are counted in slots of a sixtieth of the window, and a call is made only if the slots that
//! the last window can have touched hold fewer than the limit. That needs 61 of them; one more is counted for the time
//! between our counting a call and the vendor's. At full demand 60 of every 62 slots' worth is used: 96.8 %.
//!
//! The counting itself is one statement over rows that all replicas share (`postgres/queue.rs`); the tests below hold
//! its arithmetic to the promise.

use crate::model::event::Origin;
use crate::model::id::ConnectionId;
use crate::stream::hydration::{Bucket, HISTORY};
use crate::vendors::ask::{Per, Quota};

/// Slots of a window.
const SLOTS: i64 = 60;
/// Slots that count: those that a window can touch, and one for the way to the vendor.
const COUNTED: i64 = SLOTS + 2;

/// The buckets of one call for this connection: those of the app first; those of history's share only where it is one of
/// history's calls. Windows are `speed` times as short as they are
/// documented, for a vendor that is played so fast; else it is 1.
#[must_use]
pub fn buckets(
    quotas: &[Quota],
    connection: ConnectionId,
    origin: Origin,
    speed: u32,
) -> Vec<Bucket> {
    let bucket = |quota: &Quota| Bucket {
        subject: match quota.per {
            Per::App => None,
            Per::User => Some(connection),
            Per::History => Some(HISTORY),
        },
        window_s: i32::try_from(quota.window_s).unwrap_or(i32::MAX).max(1),
        calls: i32::try_from(quota.calls).unwrap_or(i32::MAX).max(1),
        slot_us: i64::from(quota.window_s.max(1)) * 1_000_000 / (SLOTS * i64::from(speed.max(1)))
            + 1,
        slots: COUNTED,
    };
    let counts = |quota: &&Quota| quota.per != Per::History || origin == Origin::Backfill;
    let mut buckets: Vec<Bucket> = quotas.iter().filter(counts).map(bucket).collect();
    buckets.sort_by_key(|bucket| (bucket.subject, bucket.window_s));
    buckets
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const CONNECTION: ConnectionId = ConnectionId(Uuid::from_u128(7));

    /// The rows of a vendor, as the statement treats them.
    #[derive(Default)]
    struct Rows(BTreeMap<Bucket0, BTreeMap<i64, i32>>);

    type Bucket0 = (Option<ConnectionId>, i32);

    impl Rows {
        /// Counts a call in all of them, or says how long none may be made, µs.
        fn take(&mut self, buckets: &[Bucket], now_us: i64) -> Result<(), i64> {
            let mut wait = 0;
            for bucket in buckets {
                let slots = self.0.entry((bucket.subject, bucket.window_s)).or_default();
                slots.retain(|slot, _| *slot > now_us / bucket.slot_us - bucket.slots);
                if slots.values().sum::<i32>() >= bucket.calls {
                    let first = *slots.keys().next().expect("a slot");
                    wait = wait.max((first + bucket.slots) * bucket.slot_us - now_us);
                }
            }
            if wait > 0 {
                return Err(wait);
            }
            for bucket in buckets {
                let slots = self.0.entry((bucket.subject, bucket.window_s)).or_default();
                *slots.entry(now_us / bucket.slot_us).or_default() += 1;
            }
            Ok(())
        }
    }

    fn quota(per: Per, window_s: u32, calls: u32) -> Quota {
        Quota { per, window_s, calls }
    }

    /// The most calls that any window of this length holds, both of its ends included.
    fn densest(calls: &[i64], window_us: i64) -> usize {
        let (mut first, mut most) = (0, 0);
        for (last, at) in calls.iter().enumerate() {
            while at - calls[first] > window_us {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    proptest! {
        /// Whatever is asked for and when, in no window there are more than the vendor allows, of any of the limits;
        /// not even where calls reach the vendor up to a sixtieth of the window late.
        #[test]
        fn never_more_than_the_limit_in_any_window(
            minute in 1_u32..150,
            more in 1_u32..4,
            pauses in prop::collection::vec((0_u32..40, 0_i64..9_000_000), 20..200),
            late in prop::collection::vec(0_i64..1_000_000, 50),
        ) {
            let quotas = [quota(Per::App, 60, minute), quota(Per::App, 600, minute * 2 * more)];
            let buckets = buckets(&quotas, CONNECTION, Origin::Live, 1);
            let (mut rows, mut now, mut arrived) = (Rows::default(), 1_790_000_000_000_000, Vec::new());
            for (calls, pause) in pauses {
                for call in 0..calls {
                    if rows.take(&buckets, now).is_ok() {
                        arrived.push(now + late[usize::try_from(call).expect("few") % late.len()]);
                    }
                }
                now += pause;
            }
            arrived.sort_unstable();
            for quota in quotas {
                let most = densest(&arrived, i64::from(quota.window_s) * 1_000_000);
                prop_assert!(most <= usize::try_from(quota.calls).expect("few"), "{most} of {quota:?}");
            }
        }

        /// Who always asks at the moment that he is told, gets at least 95 % of what the vendor allows.
        #[test]
        fn nearly_all_of_it_is_used(calls in 1_u32..300, window_s in 1_u32..4_000) {
            let buckets = buckets(&[quota(Per::App, window_s, calls)], CONNECTION, Origin::Live, 1);
            let (mut rows, mut now, mut made) = (Rows::default(), 1_790_000_000_000_000, 0_i64);
            let end = now + i64::from(window_s) * 1_000_000 * 100;
            while now < end {
                match rows.take(&buckets, now) {
                    Ok(()) => made += 1,
                    Err(wait) => now += wait,
                }
            }
            prop_assert!(made * 100 >= 95 * 100 * i64::from(calls), "{made} of 100 times {calls}");
        }
    }

    #[test]
    fn a_day_s_limit_does_not_slow_a_minute_s() {
        let whoop = [quota(Per::App, 60, 100), quota(Per::App, 86_400, 10_000)];
        let buckets = buckets(&whoop, CONNECTION, Origin::Live, 1);
        let (mut rows, mut now, mut made) = (Rows::default(), 1_790_000_000_000_000, 0);
        let end = now + 180_000_000;
        while now < end {
            match rows.take(&buckets, now) {
                Ok(()) => made += 1,
                Err(wait) => now += wait,
            }
        }
        assert!(made >= 285, "{made} in three minutes");
    }

    #[test]
    fn whose_limit_it_is() {
        let quotas = [quota(Per::User, 60, 5), quota(Per::App, 60, 100)];
        let [app, user] = buckets(&quotas, CONNECTION, Origin::Live, 1)[..] else { panic!("two") };
        assert_eq!((app.subject, app.calls), (None, 100));
        assert_eq!((user.subject, user.calls), (Some(CONNECTION), 5));
        let share = [quota(Per::History, 60, 20), quota(Per::App, 60, 100)];
        let of = |origin| buckets(&share, CONNECTION, origin, 1);
        let [app] = of(Origin::Live)[..] else { panic!("one") };
        let [all, history] = of(Origin::Backfill)[..] else { panic!("two") };
        assert_eq!((app.subject, all.subject), (None, None), "what is new is not held by a share");
        assert_eq!((history.subject, history.calls), (Some(HISTORY), 20));
    }
}
