//! All that is true, from a seed: accounts, records in all their versions, and what vendors say of them and when.
//!
//! Nothing here depends on what anybody asks. A vendor's own file makes its records out of a life ([`Telling`]); here
//! they are put in order, cut at the end of the simulated time, and announced, with the faults of announcements.

use std::collections::BTreeMap;

use super::dice::Seed;
use super::fault::{Fault, Shares};
use super::person::{Lived, Person};
use super::place::{HOUR, MINUTE};
use super::player::Played;
use super::truth::{Line, Truth};
use crate::model::time::{Day, Micros};

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
    /// How many of them lie before anybody connects: what came about in them is there, and nobody is told of it.
    pub history: i32,
    /// How many days a subscription lives that a vendor's webhooks hang on; 0 where all of them are simply there.
    pub subscriptions: i32,
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

    /// When people connect, µs: nothing is announced of what was before.
    #[must_use]
    pub fn connected(&self) -> Micros {
        Day(self.first.0.saturating_add(self.history)).start_utc_us()
    }

    /// Since when what comes about is news, µs: where there is no history all of it is, whenever it was.
    fn news_since(&self) -> Micros {
        if self.history > 0 { self.connected() } else { Micros::MIN }
    }

    /// Of what came about before people connect, what is there then must be known, where anybody would have been told of
    /// any of it; what was gone by then is not known of.
    fn forget(&self, versions: &mut [Version]) {
        let since = self.news_since();
        let before = versions.iter().filter(|version| version.truth.at < since).count();
        let told = versions.iter().take(before).any(|version| version.truth.told);
        for (nth, version) in (1..).zip(versions.iter_mut().take(before)) {
            version.truth.told = told && nth == before && !version.truth.gone;
        }
    }

    /// Whether this vendor's subscriptions are played: it is silent then where there is none, and not otherwise.
    fn subscribes(&self, vendor: Played) -> bool {
        self.subscriptions > 0 && vendor.subscribed().is_some()
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
    /// When the vendor gives its person another id, where that happens at this vendor.
    pub renamed_at: Option<Micros>,
    /// When its vendor tells nobody anything, where its subscriptions can end.
    pub silent: Option<(Micros, Micros)>,
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
    /// What its vendor calls its type, where that is not our name of it.
    pub kind: &'static str,
}

/// What a vendor sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When, in simulated time, µs.
    pub at: Micros,
    /// Since when it is so: what a vendor stamps it with, whenever it goes out.
    pub stamp: Micros,
    /// Who sends it.
    pub vendor: Played,
    /// Whose: a place in [`Story::accounts`]; of several people the first one.
    pub account: usize,
    /// The vendor's id of that account, as it was first.
    pub vendor_user: String,
    /// What of: places in [`Story::entries`], each with the version; nothing where it is of the account itself.
    pub of: Vec<(usize, u32)>,
    /// The id of the delivery, the same when it is sent again.
    pub id: String,
    /// The body.
    pub body: String,
    /// Whether it was sent before.
    pub again: bool,
    /// How it goes.
    pub way: Way,
}

/// How an announcement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the ingress.
    Door,
    /// Into the vendor's own topic, as it is.
    Log,
    /// Into the vendor's own topic, as a link to its body.
    Link,
    /// The same, and the link is dead when it is written.
    DeadLink,
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
    /// Announcements that nobody gets to hear, because a subscription had ended.
    pub unsent: Vec<Notice>,
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
        Version { truth, document: None, ready: at, kind: "" }
    }

    /// A version that the API answers with this document from its beginning on.
    #[must_use]
    pub fn version(&self, truth: Truth, document: &serde_json::Value) -> Version {
        Version { ready: truth.at, document: Some(document.to_string()), truth, kind: "" }
    }
}

/// How late an announcement is that others overtake.
const LATE: Micros = HOUR;
/// How long a subscription that ended is not there.
const SILENT: Micros = 8 * HOUR;
/// How long what is announced is not there.
const NOT_READY: Micros = 20 * MINUTE;

impl Entry {
    /// What the API has of it now.
    #[must_use]
    pub fn current(&self, at: Micros) -> Option<&Version> {
        let now = self.versions.iter().rev().find(|version| version.truth.at <= at)?;
        let ready = self.versions.first().is_some_and(|first| first.ready <= at);
        Some(now).filter(|_| ready)
    }
}

impl Story {
    /// The story of a plan.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut story = Self {
            plan,
            accounts: Vec::new(),
            entries: Vec::new(),
            notices: Vec::new(),
            unsent: Vec::new(),
        };
        let seed = Seed(story.plan.seed);
        for number in 0..story.plan.people {
            let person = Person::new(seed, number, story.plan.days);
            let changing = person.seed().of("clock change", 0);
            let changing = changing.within(story.plan.shares.of(Fault::ClockChange));
            let person = if changing { person.changing_clocks(story.plan.days) } else { person };
            let life = person.life(story.plan.first, story.plan.days);
            for vendor in vendors_of(&story.plan.vendors, number) {
                story.tell(&person, &life, vendor);
            }
        }
        let mut said: BTreeMap<Played, Vec<Notice>> = BTreeMap::new();
        for notice in std::mem::take(&mut story.notices) {
            said.entry(notice.vendor).or_default().push(notice);
        }
        for (vendor, mut notices) in said {
            notices.sort_by_key(|notice| notice.at);
            for notice in vendor.gathered(notices) {
                let account = story.accounts.get(notice.account);
                let silent = account.and_then(|account| account.silent);
                if silent.is_some_and(|(from, until)| (from..until).contains(&notice.at)) {
                    story.unsent.push(notice);
                } else {
                    story.send(notice);
                }
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
        let until = account.revoked_at.unwrap_or(Micros::MAX);
        for (number, Made { path, mut versions }) in (0..).zip(vendor.records(&telling)) {
            versions.sort_by_key(|version| version.truth.at);
            versions.retain(|version| version.truth.at < self.plan.ends());
            if versions.is_empty() {
                continue;
            }
            for (order, version) in (1..).zip(&mut versions) {
                version.truth.order = order;
                version.truth.told &= version.truth.at < until;
            }
            self.plan.forget(&mut versions);
            let seed = seed.of("record", number);
            if let Some(first) = versions.first_mut()
                && seed.of("not ready", 0).within(shares.of(Fault::NotReady))
            {
                first.ready += NOT_READY;
            }
            self.announce(seed, place, &account, &versions);
            self.entries.push(Entry { account: place, path, versions });
        }
        for (number, (at, body)) in (0..).zip(vendor.of_account(&account, &self.plan)) {
            let id = seed.of("account", number).uuid();
            // It is never behind a link: all else hangs on it.
            let way = match vendor.way(&account, &id) {
                Way::Door => Way::Door,
                Way::Log | Way::Link | Way::DeadLink => Way::Log,
            };
            let of = Vec::new();
            self.notices.push(Notice {
                at,
                stamp: at,
                vendor,
                account: place,
                vendor_user: account.vendor_user.clone(),
                of,
                id,
                body,
                again: false,
                way,
            });
        }
        self.accounts.push(account);
    }

    /// What the vendor says of a record.
    fn announce(&mut self, seed: Seed, place: usize, account: &Account, versions: &[Version]) {
        let vendor = account.vendor;
        let since = self.plan.news_since();
        let told = |version: &&Version| version.truth.told && version.truth.at >= since;
        for version in versions.iter().filter(told) {
            let seed = seed.of("notice", u64::from(version.truth.order));
            let Some(body) = vendor.notice(seed, account, version) else { continue };
            let id = seed.of("delivery", 0).uuid();
            self.notices.push(Notice {
                at: version.truth.at,
                stamp: version.truth.at,
                vendor,
                account: place,
                vendor_user: account.vendor_user.clone(),
                of: vec![(self.entries.len(), version.truth.order)],
                way: vendor.way(account, &id),
                id,
                body,
                again: false,
            });
        }
    }

    /// Puts an announcement among the others, with the faults of announcements.
    fn send(&mut self, mut notice: Notice) {
        let seed = Seed(self.plan.seed).of(&notice.id, 0);
        let hit = |fault, name: &str| seed.of(name, 0).within(self.plan.shares.of(fault));
        let (limit, undated) = self.limit(&notice);
        if hit(Fault::Reorder, "reorder") && !undated && notice.at + LATE < limit {
            notice.at += LATE;
        }
        if notice.way == Way::Link && hit(Fault::DeadLink, "dead link") {
            notice.way = Way::DeadLink;
        }
        let after = i64::from(seed.dice().between(1, 300)) * MINUTE / 10;
        let after = if undated { 0 } else { after };
        let again = hit(Fault::Duplicate, "duplicate") && notice.at + after < limit;
        let again = again.then(|| Notice { at: notice.at + after, again: true, ..notice.clone() });
        self.notices.push(notice);
        self.notices.extend(again);
    }

    /// Before when an announcement goes out at the latest, its repetition too, and whether nothing of what it carries
    /// says which of two is the newer one. Where an end is announced, what comes after it is nobody's.
    fn limit(&self, notice: &Notice) -> (Micros, bool) {
        let accounts = notice.of.iter().filter_map(|(place, _)| {
            let entry = self.entries.get(*place)?;
            self.accounts.get(entry.account)
        });
        let undated = accounts.clone().any(|account| notice.vendor.undated(account));
        let ends = accounts.filter_map(|account| account.revoked_at).min();
        let ends = ends.filter(|_| notice.vendor.in_turn()).unwrap_or(Micros::MAX);
        (if notice.of.is_empty() { Micros::MIN } else { ends }, undated)
    }

    fn account(&self, seed: Seed, number: u32, vendor: Played) -> Account {
        let (begins, ends) = (self.plan.connected(), self.plan.ends());
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
            vendor_user: vendor.vendor_user(seed),
            seed: seed.of("tokens", 0),
            revoked_at,
            // One misfortune each: after either the rest is out of reach.
            lost_at: hit(Fault::LostRefresh, "lost refresh").filter(|_| revoked_at.is_none()),
            renamed_at: hit(Fault::Renamed, "renamed"),
            silent: hit(Fault::Unsubscribed, "unsubscribed")
                .filter(|_| vendor.subscription_ends() && !self.plan.subscribes(vendor))
                .map(|from| (from, from + SILENT)),
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
            history: 0,
            subscriptions: 0,
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
    fn of_the_past_nobody_is_told_and_what_is_there_then_must_be_known() {
        let story = Story::new(Plan { history: 15, ..plan(8, 20, "rescore=100,delete=20") });
        let connected = story.plan.connected();
        assert!(story.notices.iter().any(|notice| !notice.of.is_empty()));
        let of_records = story.notices.iter().filter(|notice| !notice.of.is_empty());
        assert!(of_records.clone().all(|notice| notice.at >= connected));
        let mut known = 0;
        for entry in &story.entries {
            let mut before = entry.versions.iter().filter(|it| it.truth.at < connected);
            let told: Vec<&Version> = before.clone().filter(|it| it.truth.told).collect();
            known += told.len();
            assert!(told.len() <= 1, "the last one alone");
            assert!(told.iter().all(|it| !it.truth.gone));
            assert!(told.is_empty() || before.next_back().is_some_and(|last| last.truth.told));
        }
        assert!(known > 100, "{known}");
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
        let story = Story::new(plan(8, 20, "revoked=100"));
        let mut ended = std::collections::HashSet::new();
        for notice in &story.notices {
            for (place, order) in &notice.of {
                let entry = &story.entries[*place];
                let version = entry.versions.iter().find(|it| it.truth.order == *order);
                let revoked = story.accounts[entry.account].revoked_at.expect("revoked");
                assert!(version.expect("a version").truth.at < revoked);
                assert!(!ended.contains(&entry.account), "the end is the last that is said");
            }
            let revoked = story.accounts[notice.account].revoked_at.expect("revoked");
            if notice.of.is_empty() && notice.at >= revoked {
                ended.insert(notice.account);
            }
        }
        assert!(ended.len() > 1 && story.notices.len() > ended.len());
    }
}
