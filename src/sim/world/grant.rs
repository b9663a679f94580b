//! A vendor's OAuth server: pairs of tokens, each refresh token good for one exchange.
//!
//! Tokens are a matter of the account's seed and a count, so that a file of them can be written before the world
//! begins. They open nothing but this world.

use super::dice::Seed;
use crate::model::time::Micros;

/// What an account has been given.
#[derive(Clone, Debug)]
pub struct Grant {
    seed: Seed,
    vendor: &'static str,
    /// How many pairs were given; the last one's refresh token is the one that is good.
    pairs: u64,
    /// Access tokens that live, with their ends.
    access: Vec<(u64, Micros)>,
    /// When consent is withdrawn.
    revoked_at: Option<Micros>,
    /// From when on an exchange's answer is lost, once.
    lost_at: Option<Micros>,
    /// When it was lost.
    lost: Option<Micros>,
    /// Whether a refresh token is good for one exchange.
    rotates: bool,
}

/// A pair of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// What calls are made with.
    pub access: String,
    /// What the next pair is had for.
    pub refresh: String,
}

/// How an exchange ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A new pair; the old refresh token is dead.
    Pair(Tokens),
    /// A new pair that nobody gets to see; the old refresh token is dead all the same.
    Lost,
    /// Refused: the token is not the good one, or consent is withdrawn.
    Refused,
}

impl Grant {
    /// What an account has when the world begins: the first pair.
    #[must_use]
    pub fn new(
        (seed, vendor, rotates): (Seed, &'static str, bool),
        (revoked_at, lost_at): (Option<Micros>, Option<Micros>),
        until: Micros,
    ) -> Self {
        let access = vec![(0, until)];
        Self { seed, vendor, pairs: 1, access, revoked_at, lost_at, lost: None, rotates }
    }

    /// The so-many-th pair, from 0.
    #[must_use]
    pub fn pair(seed: Seed, vendor: &str, number: u64) -> Tokens {
        let text = |what: &str| format!("sim-{vendor}-{what}-{}", seed.of(what, number).hex(40));
        Tokens { access: text("access"), refresh: text("refresh") }
    }

    /// Whether calls may be made with this token now.
    #[must_use]
    pub fn takes(&self, access: &str, at: Micros) -> bool {
        let alive = self.access.iter().filter(|(_, until)| at < *until);
        !self.is_revoked(at)
            && alive
                .into_iter()
                .any(|(number, _)| Self::pair(self.seed, self.vendor, *number).access == access)
    }

    /// Whether consent is withdrawn by now.
    #[must_use]
    pub fn is_revoked(&self, at: Micros) -> bool {
        self.revoked_at.is_some_and(|revoked| revoked <= at)
    }

    /// Since when there is no way to another token, and why; nothing while there is one.
    #[must_use]
    pub fn ended(&self, at: Micros) -> Option<(Micros, &'static str)> {
        let revoked = self.revoked_at.filter(|revoked| *revoked <= at);
        let revoked = revoked.map(|at| (at, "consent was withdrawn"));
        let lost =
            self.lost.map(|at| (at, "the answer to an exchange of the refresh token was lost"));
        revoked.into_iter().chain(lost).min()
    }

    /// The refresh token that is good now.
    #[must_use]
    pub fn refresh(&self) -> String {
        let number = if self.rotates { self.pairs.saturating_sub(1) } else { 0 };
        Self::pair(self.seed, self.vendor, number).refresh
    }

    /// Exchanges a refresh token for a pair whose access token lives until then.
    pub fn exchange(&mut self, refresh: &str, at: Micros, until: Micros) -> Exchange {
        if self.is_revoked(at) || refresh != self.refresh() {
            return Exchange::Refused;
        }
        let number = self.pairs;
        self.pairs += 1;
        // Where the old token is still good, an answer that is lost is asked for again.
        if self.rotates && self.lost.is_none() && self.lost_at.is_some_and(|lost| lost <= at) {
            self.lost = Some(at);
            return Exchange::Lost;
        }
        self.access.retain(|(_, until)| at < *until);
        self.access.push((number, until));
        let access = Self::pair(self.seed, self.vendor, number).access;
        Exchange::Pair(Tokens { access, refresh: self.refresh() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(revoked_at: Option<Micros>, lost_at: Option<Micros>) -> (Grant, Tokens) {
        let seed = Seed(4);
        (
            Grant::new((seed, "whoop", true), (revoked_at, lost_at), 100),
            Grant::pair(seed, "whoop", 0),
        )
    }

    #[test]
    fn a_refresh_token_is_good_once_and_an_access_token_for_its_time() {
        let (mut grant, first) = grant(None, None);
        assert!(grant.takes(&first.access, 99) && !grant.takes(&first.access, 100));
        let Exchange::Pair(second) = grant.exchange(&first.refresh, 50, 150) else {
            panic!("the token is good")
        };
        assert!(grant.takes(&first.access, 60), "what is not spent lives on");
        assert!(grant.takes(&second.access, 149) && !grant.takes(&second.refresh, 60));
        assert_eq!(grant.exchange(&first.refresh, 60, 150), Exchange::Refused, "it is spent");
        assert!(matches!(grant.exchange(&second.refresh, 60, 160), Exchange::Pair(_)));
    }

    #[test]
    fn a_token_that_does_not_rotate_is_good_as_long_as_the_consent() {
        let seed = Seed(4);
        let mut grant = Grant::new((seed, "google", false), (Some(90), Some(10)), 100);
        let first = Grant::pair(seed, "google", 0);
        for at in [20, 30] {
            let Exchange::Pair(next) = grant.exchange(&first.refresh, at, 150) else {
                panic!("it is good")
            };
            assert_eq!(next.refresh, first.refresh);
            assert!(next.access != first.access && grant.takes(&next.access, at));
        }
        assert_eq!(grant.exchange(&first.refresh, 90, 150), Exchange::Refused);
    }

    #[test]
    fn an_answer_that_is_lost_ends_it_and_so_does_the_person() {
        let (mut lost, first) = grant(None, Some(40));
        let Exchange::Pair(second) = lost.exchange(&first.refresh, 30, 130) else {
            panic!("not yet")
        };
        assert_eq!(lost.exchange(&second.refresh, 40, 140), Exchange::Lost);
        assert_eq!(lost.exchange(&second.refresh, 41, 141), Exchange::Refused);
        assert!(lost.ended(41).is_some_and(|(at, _)| at == 40) && lost.takes(&second.access, 129));
        let (mut revoked, first) = grant(Some(50), None);
        assert!(revoked.ended(49).is_none() && revoked.ended(50).is_some());
        assert!(revoked.takes(&first.access, 49) && !revoked.takes(&first.access, 50));
        assert_eq!(revoked.exchange(&first.refresh, 50, 150), Exchange::Refused);
    }
}
