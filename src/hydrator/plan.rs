//! What a fetch that ended means for its row: pure, its randomness is an argument.
//!
//! | how it ended | then |
//! | --- | --- |
//! | a document | done, once the log has it |
//! | a part of one | once the log has it, again as the vendor's contract says, then done |
//! | that there is none | done, with nothing for the log |
//! | not there yet | as the vendor's contract says, then given up |
//! | the token is not taken | renewed, and once more somewhat later; then given up: the connection has to be made anew |
//! | consent withdrawn, or a request that is refused | given up |
//! | too many calls | when the vendor says; nobody asks it before |
//! | the app's own key is not taken | again, a quarter of an hour later; nobody asks before |
//! | more than it gathers in time | a window is divided; else as the next |
//! | 5xx, not reached, silent, too slow, broken off | again, further and further apart, for ever: the vendor's fault |
//! | a redirect, no JSON, too large | the same, and given up after [`ODD_MAX`] in a row |
//!
//! A record is never given up for the world's fault, and the world is not asked for ever for a bad record.

use std::time::Duration;

use crate::error::Kind;
use crate::hydrator::breaker::Said;
use crate::stream::hydration::Fate;
use crate::vendors::ask::Answer;

/// How a fetch ended: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The vendor's answer, by its status; a document is whole and JSON.
    Answered(Answer),
    /// A status that leads elsewhere; it is not followed.
    Redirected,
    /// A success that is no JSON: a page for people.
    NotJson,
    /// A body above the cap; it was not read to its end.
    TooLarge,
    /// No connection: name, route or TLS.
    Unreachable,
    /// No first byte of an answer in time.
    Silent,
    /// An answer that did not end in time.
    TooSlow,
    /// An answer that broke off.
    BrokenOff,
}

impl Outcome {
    /// The name on metrics and in reasons.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered(Answer::Document) => "document",
            Self::Answered(Answer::Partly) => "partly",
            Self::Answered(Answer::Nothing) => "nothing",
            Self::Answered(Answer::NotYet) => "not_yet",
            Self::Answered(Answer::Unauthorised) => "unauthorised",
            Self::Answered(Answer::Forbidden) => "forbidden",
            Self::Answered(Answer::Limited(_)) => "limited",
            Self::Answered(Answer::Unavailable) => "unavailable",
            Self::Answered(Answer::Refused) => "refused",
            Self::Answered(Answer::TooMuch) => "too_much",
            Self::Redirected => "redirected",
            Self::NotJson => "not_json",
            Self::TooLarge => "too_large",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::TooSlow => "too_slow",
            Self::BrokenOff => "broken_off",
        }
    }

    /// What it says of the vendor, for the breaker. Too many calls is an answer: the quota's business.
    #[must_use]
    pub const fn said(self) -> Said {
        match self {
            // Too much for it is what all is while it is ill; one that is well answers the halves.
            Self::Answered(Answer::Unavailable | Answer::TooMuch)
            | Self::Redirected
            | Self::NotJson
            | Self::Unreachable
            | Self::Silent
            | Self::TooSlow
            | Self::BrokenOff => Said::Ill,
            Self::Answered(
                Answer::Document
                | Answer::Partly
                | Answer::Nothing
                | Answer::NotYet
                | Answer::Unauthorised
                | Answer::Forbidden
                | Answer::Limited(_)
                | Answer::Refused,
            )
            | Self::TooLarge => Said::Well,
        }
    }
}

impl Outcome {
    /// Whether it was too much to ask for at once: of a vendor that cuts its answers off, what does not come in time, too.
    #[must_use]
    pub const fn is_too_much(self, cuts_off: bool) -> bool {
        match self {
            Self::TooLarge | Self::Answered(Answer::TooMuch) => true,
            Self::Silent | Self::TooSlow => cuts_off,
            _ => false,
        }
    }
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The body goes to the log, and then the row goes on like this.
    Keep(Fate),
    /// There is no such record: the row is done, and says so.
    Nothing,
    /// Another token, and once more at once.
    Renew,
    /// The row waits.
    Later {
        /// How it goes on.
        fate: Fate,
        /// How long nobody asks this vendor at all.
        hold: Option<Duration>,
    },
    /// The row ends, with a dead letter of this kind.
    GiveUp {
        /// The kind.
        kind: Kind,
        /// Why, in our words.
        reason: &'static str,
    },
}

/// What stands before a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// "Not there yet", or not all of it, in a row.
    pub attempts: u32,
    /// Spoiled tries in a row.
    pub failures: u32,
    /// Whether the last of them was an outage ([`is_outage`]): what comes odd after it is the first that is.
    pub outage: bool,
    /// Whether the token was renewed for this very call.
    pub renewed: bool,
}

impl Tried {
    /// Spoiled tries in a row that no outage spoiled.
    const fn own_failures(self) -> u32 {
        if self.outage { 0 } else { self.failures }
    }
}

/// Tries in a row that end oddly before a record is given up.
pub const ODD_MAX: u32 = 10;
/// Why a record is given up whose connection's tokens the vendor does not take.
pub const NOT_TAKEN: &str = "a renewed token is not taken";
/// Why a record waits whose vendor does not take the app's own key.
pub const KEY_NOT_TAKEN: &str = "the app's key is not taken";
/// How long a vendor is left alone that does not take it.
const KEY_PAUSE: Duration = Duration::from_secs(900);
/// The first wait after a spoiled try; each next one is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// The longest wait after a spoiled try.
const PAUSE_MAX: Duration = Duration::from_secs(900);
/// The wait where a vendor says "too many" and not how long.
const LIMITED: Duration = Duration::from_secs(60);
/// The longest wait that a vendor's word is taken for: the longest window that any has.
const LIMITED_MAX: Duration = Duration::from_secs(86_400);

/// What follows. `again_s` is the vendor's word on "not there yet"; `chance` spreads rows that failed together.
#[must_use]
pub fn next(
    outcome: Outcome,
    tried: Tried,
    again_s: impl Fn(u32) -> Option<u32>,
    chance: u64,
) -> Next {
    match outcome {
        Outcome::Answered(Answer::Document) => Next::Keep(Fate::Done),
        Outcome::Answered(Answer::Partly) => {
            Next::Keep(again(outcome, tried, again_s, chance).unwrap_or(Fate::Done))
        }
        Outcome::Answered(Answer::Nothing) => Next::Nothing,
        Outcome::Answered(Answer::NotYet) => match again(outcome, tried, again_s, chance) {
            Some(fate) => Next::Later { fate, hold: None },
            None => give_up(Kind::WearableApiError, "never became available"),
        },
        Outcome::Answered(Answer::Unauthorised) if !tried.renewed => Next::Renew,
        Outcome::Answered(Answer::Unauthorised) if tried.own_failures() == 0 => {
            spoiled(Tried { failures: 0, ..tried }, outcome.name(), chance)
        }
        Outcome::Answered(Answer::Unauthorised) => give_up(Kind::AuthenticationError, NOT_TAKEN),
        Outcome::Answered(Answer::Forbidden) => {
            give_up(Kind::AuthenticationError, "the person's consent does not cover it")
        }
        Outcome::Answered(Answer::Refused) => {
            give_up(Kind::WearableApiError, "the vendor refuses the request")
        }
        Outcome::Answered(Answer::Limited(told)) => {
            let told = told.map_or(LIMITED, |seconds| Duration::from_secs(seconds.into()));
            let hold = told.clamp(Duration::from_secs(1), LIMITED_MAX);
            let after = hold.saturating_add(share(PAUSE_MIN, chance));
            Next::Later { fate: waits(after, tried, outcome.name()), hold: Some(hold) }
        }
        Outcome::Redirected => {
            oddly(outcome, tried, (Kind::WearableApiError, "the answer leads elsewhere"), chance)
        }
        Outcome::NotJson => {
            oddly(outcome, tried, (Kind::WearableApiError, "the answer is no JSON"), chance)
        }
        Outcome::TooLarge => {
            oddly(outcome, tried, (Kind::PayloadTooLarge, "the body is above the cap"), chance)
        }
        Outcome::Answered(Answer::Unavailable | Answer::TooMuch)
        | Outcome::Unreachable
        | Outcome::Silent
        | Outcome::TooSlow
        | Outcome::BrokenOff => spoiled(tried, outcome.name(), chance),
    }
}

/// What follows where a vendor does not take the app's own key: that is everybody's, so nothing is given up, and nobody
/// asks for a while. The row comes back somewhat later than that, so that it is not the first one over and over, should it
/// be its person after all.
#[must_use]
pub fn key_not_taken(tried: Tried, chance: u64) -> Next {
    let after = KEY_PAUSE.saturating_add(share(KEY_PAUSE, chance));
    Next::Later { fate: waits(after, tried, KEY_NOT_TAKEN), hold: Some(KEY_PAUSE) }
}

/// When a vendor is asked again for what it does not have yet; none where its contract says that it never will.
fn again(
    outcome: Outcome,
    tried: Tried,
    again_s: impl Fn(u32) -> Option<u32>,
    chance: u64,
) -> Option<Fate> {
    let attempts = tried.attempts.saturating_add(1);
    let after = Duration::from_secs(again_s(attempts)?.into());
    // Later by up to a tenth: never earlier than the contract says.
    let after = after.saturating_add(share(after / 10, chance));
    Some(Fate::Later { after, attempts, failures: 0, reason: outcome.name() })
}

/// Whether a row waits for this reason because its vendor was down or out of reach, or because something of ours failed.
#[must_use]
pub fn is_outage(reason: &str) -> bool {
    let outages = [
        Outcome::Answered(Answer::Unavailable),
        Outcome::Answered(Answer::TooMuch),
        Outcome::Unreachable,
        Outcome::Silent,
        Outcome::TooSlow,
        Outcome::BrokenOff,
    ];
    outages.iter().any(|outage| outage.name() == reason) || Kind::parse(reason).is_some()
}

/// An answer that is none. After an outage counting begins anew: a vendor that comes back shows a page for people, and
/// that page is not the record's end.
fn oddly(outcome: Outcome, tried: Tried, end: (Kind, &'static str), chance: u64) -> Next {
    let failures = tried.own_failures();
    if failures.saturating_add(1) >= ODD_MAX {
        return give_up(end.0, end.1);
    }
    spoiled(Tried { failures, ..tried }, outcome.name(), chance)
}

/// A try that our side of the world, or the vendor's, spoiled: again later, further apart each time.
#[must_use]
pub fn spoiled(tried: Tried, reason: &'static str, chance: u64) -> Next {
    let failures = tried.failures.saturating_add(1);
    let doubled = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let whole = doubled.min(PAUSE_MAX);
    // Between half and all of it, so that what failed together does not come back together.
    let after = (whole / 2).saturating_add(share(whole / 2, chance));
    let fate = Fate::Later { after, attempts: tried.attempts, failures, reason };
    Next::Later { fate, hold: None }
}

/// The row waits and has tried nothing that counts. What an outage counted ends with it: the row's reason, by which it
/// is known, is another one from now on.
#[must_use]
pub const fn waits(after: Duration, tried: Tried, reason: &'static str) -> Fate {
    Fate::Later { after, attempts: tried.attempts, failures: tried.own_failures(), reason }
}

const fn give_up(kind: Kind, reason: &'static str) -> Next {
    Next::GiveUp { kind, reason }
}

/// A share of this time by chance, from nothing to all but all of it.
fn share(time: Duration, chance: u64) -> Duration {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(chance % us)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRESH: Tried = Tried { attempts: 0, failures: 0, outage: false, renewed: false };

    /// Every way to end, by its name.
    fn all() -> Vec<Outcome> {
        let answers = [
            Answer::Document,
            Answer::Partly,
            Answer::Nothing,
            Answer::NotYet,
            Answer::Unauthorised,
            Answer::Forbidden,
            Answer::Limited(Some(30)),
            Answer::Unavailable,
            Answer::Refused,
            Answer::TooMuch,
        ];
        let others = [
            Outcome::Redirected,
            Outcome::NotJson,
            Outcome::TooLarge,
            Outcome::Unreachable,
            Outcome::Silent,
            Outcome::TooSlow,
            Outcome::BrokenOff,
        ];
        answers.into_iter().map(Outcome::Answered).chain(others).collect()
    }

    fn again_s(attempt: u32) -> Option<u32> {
        [30, 300].get(usize::try_from(attempt).expect("small") - 1).copied()
    }

    fn after(next: Next) -> Duration {
        match next {
            Next::Later { fate: Fate::Later { after, .. }, .. } => after,
            other => panic!("{other:?} does not wait"),
        }
    }

    #[test]
    fn each_outcome_has_a_name_that_the_metric_knows() {
        let names: Vec<&str> = all().into_iter().map(Outcome::name).collect();
        let known = crate::telemetry::table::OUTCOME.values(&[]);
        assert_eq!(names.iter().filter(|name| known.contains(name)).count(), 17, "{names:?}");
    }

    #[test]
    fn not_there_yet_is_tried_as_long_as_the_vendor_says() {
        let not_yet = Outcome::Answered(Answer::NotYet);
        for (attempts, least) in [(0, 30), (1, 300)] {
            for chance in [0, 1, u64::MAX] {
                let after = after(next(not_yet, Tried { attempts, ..FRESH }, again_s, chance));
                let least = Duration::from_secs(least);
                assert!((least..least + least / 10).contains(&after), "{after:?}");
            }
        }
        let last = next(not_yet, Tried { attempts: 2, ..FRESH }, again_s, 0);
        assert!(matches!(last, Next::GiveUp { kind: Kind::WearableApiError, .. }), "{last:?}");
    }

    #[test]
    fn a_part_is_kept_each_time_and_the_rest_is_asked_for_as_long_as_the_vendor_says() {
        let part = |attempts| {
            next(Outcome::Answered(Answer::Partly), Tried { attempts, ..FRESH }, again_s, 0)
        };
        let later = |attempts, after| {
            let after = Duration::from_secs(after);
            Next::Keep(Fate::Later { after, attempts, failures: 0, reason: "partly" })
        };
        assert_eq!([part(0), part(1)], [later(1, 30), later(2, 300)]);
        assert_eq!(part(2), Next::Keep(Fate::Done), "what is there was kept: nothing is given up");
    }

    #[test]
    fn a_token_is_renewed_and_later_once_more() {
        let refused = Outcome::Answered(Answer::Unauthorised);
        assert_eq!(next(refused, FRESH, again_s, 0), Next::Renew);
        let renewed = Tried { renewed: true, ..FRESH };
        let Next::Later { fate: Fate::Later { failures: 1, .. }, hold: None } =
            next(refused, renewed, again_s, 0)
        else {
            panic!("a token that was just made may not be known everywhere yet")
        };
        let again = next(refused, Tried { failures: 1, ..renewed }, again_s, 0);
        assert!(matches!(again, Next::GiveUp { kind: Kind::AuthenticationError, .. }));
    }

    #[test]
    fn a_key_that_is_not_taken_is_no_record_s_end() {
        let [soon, late] = [0, u64::MAX].map(|chance| key_not_taken(FRESH, chance));
        for next in [soon, late] {
            let Next::Later { fate: Fate::Later { attempts: 0, failures: 0, .. }, hold } = next
            else {
                panic!("{next:?}")
            };
            assert_eq!(hold, Some(KEY_PAUSE));
        }
        assert_eq!(after(soon), KEY_PAUSE);
        assert!(after(late) > KEY_PAUSE && after(late) < KEY_PAUSE * 2, "not all at once");
    }

    #[test]
    fn what_comes_too_late_is_too_much_where_it_may_be_cut_off() {
        let much = |cuts_off| {
            let all = all().into_iter().filter(move |one| one.is_too_much(cuts_off));
            all.map(Outcome::name).collect::<Vec<_>>()
        };
        assert_eq!(much(false), ["too_much", "too_large"]);
        assert_eq!(much(true), ["too_much", "too_large", "silent", "too_slow"]);
    }

    #[test]
    fn a_limit_holds_the_whole_vendor_as_long_as_it_says() {
        for (told, hold) in [(Some(30), 30), (None, 60), (Some(0), 1), (Some(u32::MAX), 86_400)] {
            let next = next(Outcome::Answered(Answer::Limited(told)), FRESH, again_s, 3);
            let Next::Later {
                fate: Fate::Later { after, attempts: 0, failures: 0, .. },
                hold: held,
            } = next
            else {
                panic!("{next:?}")
            };
            assert_eq!(held, Some(Duration::from_secs(hold)));
            assert!(after >= Duration::from_secs(hold), "{after:?}");
        }
    }

    #[test]
    fn a_page_for_people_after_an_outage_is_the_first_that_is_odd() {
        let long = Tried { failures: 50, outage: true, ..FRESH };
        let first = next(Outcome::NotJson, long, again_s, 3);
        let Next::Later { fate: Fate::Later { failures: 1, reason, .. }, .. } = first else {
            panic!("{first:?}")
        };
        assert!(!is_outage(reason) && is_outage(Outcome::Unreachable.name()));
        assert!(is_outage(Kind::BrokerUnavailable.name()), "ours is none of the record's either");
        let odd = Tried { failures: ODD_MAX - 1, ..FRESH };
        assert!(matches!(next(Outcome::NotJson, odd, again_s, 3), Next::GiveUp { .. }));
        let busy = Outcome::Answered(Answer::Limited(None));
        for (tried, left) in [(long, 0), (odd, ODD_MAX - 1)] {
            let waits = next(busy, tried, again_s, 3);
            let Next::Later { fate: Fate::Later { failures, .. }, .. } = waits else {
                panic!("{waits:?}")
            };
            assert_eq!(failures, left, "a refusal of the quota between them hides no outage");
        }
    }

    proptest! {
        /// The world's fault is tried for ever, ever further apart, up to a bound.
        #[test]
        fn the_world_s_fault_is_never_the_record_s_end(failures in 0_u32..10_000, chance: u64) {
            for outcome in all().into_iter().filter(|outcome| outcome.said() == Said::Ill) {
                let odd = matches!(outcome, Outcome::Redirected | Outcome::NotJson);
                let next = next(outcome, Tried { failures, ..FRESH }, again_s, chance);
                if odd && failures + 1 >= ODD_MAX {
                    prop_assert!(matches!(next, Next::GiveUp { .. }), "{:?}", next);
                    continue;
                }
                let whole = PAUSE_MIN.saturating_mul(1 << failures.min(20)).min(PAUSE_MAX);
                let after = after(next);
                prop_assert!(after >= whole / 2 && after <= whole, "{:?} of {:?}", after, whole);
            }
        }
    }
}
