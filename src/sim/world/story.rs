//! All that is true, from a seed: accounts, records in all their versions, and what vendors say of them and when.
//!
//! Nothing here depends on what anybody asks. A vendor's own file makes its records out of a life ([`Telling`]); here
//! they are put in order, cut at the end of the simulated time, and announced, with the faults of announcements.

use super::dice::Seed;
use super::fault::{Fault, Shares};
use super::person::{Lived, Person};
use super::place::{HOUR, MINUTE};
use super::truth::{Line, Truth};
use super::{oura, whoop};
use crate::model::time::{Day, Micros};

/// A vendor that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Played {
    /// Oura: thin webhooks, an API, rotating tokens.
    Oura,
    /// WHOOP: the same.
    Whoop,
}

impl Played {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Oura, Self::Whoop];

    /// The name in paths.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oura => "oura",
            Self::Whoop => "whoop",
        }
    }

    /// The vendor of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vendor| vendor.name() == name)
    }
}

/// What the world is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The same seed gives the same world.
    pub seed: u64,
    /// How many people.
    pub people: u32,
    /// The first simulated day; the world begins at its midnight in UTC.
    pub first: Day,
    /// How many days.
    pub days: i32,
    /// The vendors that people use.
    pub vendors: Vec<Played>,
    /// What goes wrong.
    pub shares: Shares,
}

impl Plan {
    /// When simulated time begins, µs.
    #[must_use]
    pub fn begins(&self) -> Micros {
        self.first.start_utc_us()
    }

    /// When it ends: nothing is true that comes about later.
    #[must_use]
    pub fn ends(&self) -> Micros {
        Day(self.first.0.saturating_add(self.days)).start_utc_us()
    }
}

/// A person's account with a vendor.
#[derive(Clone, Debug)]
pub struct Account {
    /// The vendor.
    pub vendor: Played,
    /// Our user.
    pub user: String,
    /// The vendor's id of the person.
    pub vendor_user: String,
    /// The seed of its tokens.
    pub seed: Seed,
    /// When consent is withdrawn.
    pub revoked_at: Option<Micros>,
    /// From when on the next exchange of its refresh token loses its answer.
    pub lost_at: Option<Micros>,
}

/// A record in all its versions.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose: a place in [`Story::accounts`].
    pub account: usize,
    /// Where the API has it, below the vendor's own path; nothing where there is no API.
    pub path: String,
    /// Its versions, in the order in which they come about.
    pub versions: Vec<Version>,
}

/// A record as its vendor's file makes it.
#[derive(Clone, Debug)]
pub struct Made {
    /// As [`Entry::path`].
    pub path: String,
    /// As [`Entry::versions`].
    pub versions: Vec<Version>,
}

/// A version of a record.
#[derive(Clone, Debug)]
pub struct Version {
    /// What the ledger says of it.
    pub truth: Truth,
    /// What the API answers; nothing where the record is gone, or where the vendor sends it and has no API.
    pub document: Option<String>,
    /// From when on the API has it: what is announced is not always there yet.
    pub ready: Micros,
}

/// What a vendor sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When, in simulated time, µs.
    pub at: Micros,
    /// Whose: a place in [`Story::accounts`].
    pub account: usize,
    /// What of: a place in [`Story::entries`], and the version.
    pub of: Option<(usize, u32)>,
    /// The body.
    pub body: String,
    /// Whether it was sent before.
    pub again: bool,
}

/// All that is true, and all that is said of it.
#[derive(Clone, Debug)]
pub struct Story {
    /// What it was made of.
    pub plan: Plan,
    /// Accounts, by person and vendor.
    pub accounts: Vec<Account>,
    /// Records, by account.
    pub entries: Vec<Entry>,
    /// Announcements, in the order of their times.
    pub notices: Vec<Notice>,
}

/// What a vendor's file makes its records of.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'a> {
    /// The seed of this account.
    pub seed: Seed,
    /// The account.
    pub account: &'a Account,
    /// The person.
    pub person: &'a Person,
    /// The person's days.
    pub life: &'a [Lived],
    /// What goes wrong.
    pub shares: Shares,
}

impl Telling<'_> {
    /// The beginnings of a version's truth.
    #[must_use]
    pub fn truth(&self, record_type: &str, record_id: &str, at: Micros) -> Truth {
        Truth {
            vendor: self.account.vendor.name().to_owned(),
            vendor_user: self.account.vendor_user.clone(),
            user: self.account.user.clone(),
            record_type: record_type.to_owned(),
            record_id: record_id.to_owned(),
            at,
            told: true,
            ..Truth::default()
        }
    }

    /// The tombstone of a record.
    #[must_use]
    pub fn gone(&self, record_type: &str, record_id: &str, at: Micros) -> Version {
        let truth = Truth { gone: true, ..self.truth(record_type, record_id, at) };
        Version { truth, document: None, ready: at }
    }

    /// A version that the API answers with this document from its beginning on.
    #[must_use]
    pub fn version(&self, truth: Truth, document: &serde_json::Value) -> Version {
        Version { ready: truth.at, document: Some(document.to_string()), truth }
    }
}

/// How late an announcement is that others overtake.
const LATE: Micros = HOUR;
/// How long what is announced is not there.
const NOT_READY: Micros = 20 * MINUTE;

impl Story {
    /// The story of a plan.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut story =
            Self { plan, accounts: Vec::new(), entries: Vec::new(), notices: Vec::new() };
        let seed = Seed(story.plan.seed);
        for number in 0..story.plan.people {
            let person = Person::new(seed, number, story.plan.days);
            let life = person.life(story.plan.first, story.plan.days);
            for vendor in vendors_of(&story.plan.vendors, number) {
                story.tell(&person, &life, vendor);
            }
        }
        story.notices.sort_by_key(|notice| notice.at);
        story
    }

    fn tell(&mut self, person: &Person, life: &[Lived], vendor: Played) {
        let seed = person.seed().of(vendor.name(), 0);
        let account = self.account(seed, person.number, vendor);
        let shares = self.plan.shares;
        let telling = Telling { seed, account: &account, person, life, shares };
        let place = self.accounts.len();
        let records = match vendor {
            Played::Oura => oura::records(&telling),
            Played::Whoop => whoop::records(&telling),
        };
        let until = account.revoked_at.unwrap_or(Micros::MAX);
        for Made { path, mut versions } in records {
            versions.sort_by_key(|version| version.truth.at);
            versions.retain(|version| version.truth.at < self.plan.ends());
            if versions.is_empty() {
                continue;
            }
            for (order, version) in (1..).zip(&mut versions) {
                version.truth.order = order;
                version.truth.told &= version.truth.at < until;
            }
            let number = u64::try_from(self.entries.len()).unwrap_or(0);
            let seed = Seed(self.plan.seed).of("record", number);
            if let Some(first) = versions.first_mut()
                && seed.of("not ready", 0).within(shares.of(Fault::NotReady))
            {
                first.ready += NOT_READY;
            }
            self.announce(seed, place, &account, &versions);
            self.entries.push(Entry { account: place, path, versions });
        }
        self.accounts.push(account);
    }

    /// What the vendor says of a record.
    fn announce(&mut self, seed: Seed, place: usize, account: &Account, versions: &[Version]) {
        for version in versions.iter().filter(|version| version.truth.told) {
            let seed = seed.of("notice", u64::from(version.truth.order));
            let body = match account.vendor {
                Played::Oura => oura::notice(account, version),
                Played::Whoop => whoop::notice(seed, account, version),
            };
            let Some(body) = body else { continue };
            let late = seed.of("reorder", 0).within(self.plan.shares.of(Fault::Reorder));
            let at = version.truth.at + if late { LATE } else { 0 };
            let of = Some((self.entries.len(), version.truth.order));
            let notice = Notice { at, account: place, of, body, again: false };
            if seed.of("duplicate", 0).within(self.plan.shares.of(Fault::Duplicate)) {
                let after = i64::from(seed.dice().between(1, 300)) * MINUTE / 10;
                let again = Notice { at: at + after, again: true, ..notice.clone() };
                self.notices.push(again);
            }
            self.notices.push(notice);
        }
    }

    fn account(&self, seed: Seed, number: u32, vendor: Played) -> Account {
        let (begins, ends) = (self.plan.begins(), self.plan.ends());
        let sometime = |name: &str| {
            let share = i64::from(seed.of(name, 1).dice().between(20, 80));
            begins + (ends - begins) / 100 * share
        };
        let hit = |fault, name: &str| {
            let share = self.plan.shares.of(fault);
            seed.of(name, 0).within(share).then(|| sometime(name))
        };
        let revoked_at = hit(Fault::Revoked, "revoked");
        Account {
            vendor,
            user: format!("sim-user-{}-{number}", self.plan.seed),
            vendor_user: match vendor {
                Played::Oura => oura::vendor_user(seed),
                Played::Whoop => whoop::vendor_user(seed),
            },
            seed: seed.of("tokens", 0),
            revoked_at,
            // One misfortune each: after either the rest is out of reach.
            lost_at: hit(Fault::LostRefresh, "lost refresh").filter(|_| revoked_at.is_none()),
        }
    }

    /// The ledger's lines, the same for the same plan.
    pub fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        let plan = &self.plan;
        let head = Line::World {
            seed: plan.seed,
            people: plan.people,
            first: plan.first.to_string(),
            days: u32::try_from(plan.days).unwrap_or(0),
            vendors: plan.vendors.iter().map(|vendor| vendor.name().to_owned()).collect(),
            faults: plan.shares.to_string(),
        };
        let versions = self.entries.iter().flat_map(|entry| &entry.versions);
        let versions = versions.map(|version| Line::Version(Box::new(version.truth.clone())));
        std::iter::once(head).chain(versions)
    }
}

/// Which vendors a person uses: one, and every fourth person the next one, too.
fn vendors_of(all: &[Played], number: u32) -> Vec<Played> {
    let at = |place: u32| {
        let count = u32::try_from(all.len()).unwrap_or(1).max(1);
        usize::try_from(place % count).ok().and_then(|place| all.get(place)).copied()
    };
    let second = at(number + 1).filter(|_| number % 4 == 3 && all.len() > 1);
    at(number).into_iter().chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn plan(people: u32, days: i32, faults: &str) -> Plan {
        Plan {
            seed: 11,
            people,
            first: Day::parse("2026-10-01").expect("a day"),
            days,
            vendors: Played::ALL.to_vec(),
            shares: Shares::parse(faults).expect("shares"),
        }
    }

    fn text(story: &Story) -> String {
        let lines: Vec<String> =
            story.lines().map(|line| serde_json::to_string(&line).expect("JSON")).collect();
        format!("{}\n{:?}", lines.join("\n"), story.notices)
    }

    #[test]
    fn a_story_is_a_matter_of_its_plan() {
        let story = text(&Story::new(plan(5, 20, "all")));
        assert_eq!(story, text(&Story::new(plan(5, 20, "all"))));
        assert_ne!(story, text(&Story::new(Plan { seed: 12, ..plan(5, 20, "all") })));
    }

    #[test]
    fn nothing_comes_about_after_the_end_and_versions_are_in_order() {
        let story = Story::new(plan(8, 20, "all"));
        for entry in &story.entries {
            let orders: Vec<u32> = entry.versions.iter().map(|it| it.truth.order).collect();
            assert_eq!(orders, (1..).take(orders.len()).collect::<Vec<u32>>());
            assert!(entry.versions.is_sorted_by_key(|it| it.truth.at));
            assert!(entry.versions.iter().all(|it| it.truth.at < story.plan.ends()));
            let dead = entry.versions.iter().position(|it| it.truth.gone);
            assert!(dead.is_none_or(|at| at + 1 == entry.versions.len()), "the end is the end");
        }
        assert!(story.notices.is_sorted_by_key(|notice| notice.at));
        assert!(story.notices.iter().any(|notice| notice.again));
    }

    #[test]
    fn who_withdrew_consent_is_not_spoken_of() {
        let story = Story::new(plan(4, 20, "revoked=100"));
        for notice in &story.notices {
            let account = &story.accounts[notice.account];
            assert!(notice.at < account.revoked_at.expect("revoked"));
        }
        assert!(!story.notices.is_empty());
    }
}
