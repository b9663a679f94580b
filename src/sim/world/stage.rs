//! The vendors as they are asked: tokens, quotas, faults of calls, and what was seen by whom.
//!
//! The time is an argument, in the world's own microseconds. A fault of a call is decided by what is asked for and
//! how often it was asked for before, so that it does not depend on who else asks meanwhile.

use std::collections::{BTreeMap, HashMap};

use super::dice::Seed;
use super::fault::Fault;
use super::grant::{Exchange, Grant, Tokens};
use super::place::SECOND;
use super::player::{Ask, Manner, Played, Reply, Shelf, Wanted};
use super::quota::Quotas;
use super::story::{Account, Notice, Story, Version, Way};
use super::subscription::{Handshake, Subscriptions};
use super::terra::LINK_S;
use super::truth::{End, Excuse};
use crate::model::time::Micros;

/// The vendors while they are asked.
#[derive(Debug)]
pub struct Stage {
    story: Story,
    speed: i64,
    secrets: BTreeMap<Played, String>,
    grants: Vec<Grant>,
    /// Accounts by the access tokens that were ever given.
    bearers: HashMap<String, usize>,
    /// Accounts by the refresh tokens that were ever given.
    refreshers: HashMap<String, usize>,
    quotas: BTreeMap<Played, Quotas>,
    /// Records by their account and path: what is named by its day is named alike for everybody.
    paths: HashMap<(usize, String), usize>,
    /// The records of each account.
    own: Vec<Vec<usize>>,
    asked: HashMap<String, u64>,
    /// The latest version of each record that somebody was given.
    seen: Vec<u32>,
    /// The latest version of each record whose announcement was taken.
    heard: Vec<u32>,
    /// Records of which a later announcement was not heard, up to which version, and why.
    unheard: HashMap<usize, (u32, &'static str)>,
    /// What goes by a link, by its id.
    links: HashMap<String, Link>,
    /// The ids of links by what is behind them.
    linked: HashMap<(usize, u32), String>,
    counts: BTreeMap<(Played, &'static str), u64>,
    /// What webhooks hang on, where that is played.
    subscriptions: BTreeMap<Played, Subscriptions>,
}

/// A link to what was announced.
#[derive(Clone, Debug)]
struct Link {
    of: Vec<(usize, u32)>,
    body: String,
    dead: bool,
    written_at: Option<Micros>,
    followed: bool,
}

impl Link {
    /// The least time that one lives in real time, seconds.
    const REAL_S: i64 = 30;

    fn is_dead(&self, at: Micros, speed: i64) -> bool {
        let life = LINK_S.max(Self::REAL_S * speed) * SECOND;
        self.dead || self.written_at.is_some_and(|written| at >= written + life)
    }
}

impl Stage {
    /// The vendors of a story, which runs `speed` times as fast as real time. A vendor's secret is what its clients
    /// must name to exchange tokens.
    #[must_use]
    pub fn new(story: Story, speed: u32, secrets: BTreeMap<Played, String>) -> Self {
        let speed = i64::from(speed.max(1));
        let (mut grants, mut bearers, mut refreshers) =
            (Vec::new(), HashMap::new(), HashMap::new());
        for (place, account) in story.accounts.iter().enumerate() {
            let name = account.vendor.name();
            let house = account.vendor.house();
            let until = story.plan.connected() + house.lives(speed);
            let misfortune = (account.revoked_at, account.lost_at);
            grants.push(Grant::new((account.seed, name, house.rotates), misfortune, until));
            let first = Grant::pair(account.seed, name, 0);
            bearers.insert(first.access, place);
            refreshers.insert(first.refresh, place);
        }
        let paths = story.entries.iter().enumerate();
        let paths = paths.map(|(place, entry)| ((entry.account, entry.path.clone()), place));
        let mut own = vec![Vec::new(); story.accounts.len()];
        for (place, entry) in story.entries.iter().enumerate() {
            if let Some(own) = own.get_mut(entry.account) {
                own.push(place);
            }
        }
        let by_link = |way| matches!(way, Way::Link | Way::DeadLink);
        let mut links = HashMap::new();
        let mut linked = HashMap::new();
        for notice in story.notices.iter().filter(|notice| by_link(notice.way)) {
            linked.extend(notice.of.iter().map(|of| (*of, notice.id.clone())));
            let (of, body, dead) =
                (notice.of.clone(), notice.body.clone(), notice.way == Way::DeadLink);
            links.insert(
                notice.id.clone(),
                Link { of, body, dead, written_at: None, followed: false },
            );
        }
        let vendors = story.plan.vendors.iter();
        let subscriptions = vendors.clone().copied();
        let subscriptions =
            subscriptions.filter_map(|it| Some((it, Subscriptions::new(it, &story)?))).collect();
        let unsent = story.unsent.clone();
        let mut stage = Self {
            subscriptions,
            links,
            linked,
            own,
            paths: paths.collect(),
            quotas: vendors.map(|it| (*it, Quotas::new(it.house().limits))).collect(),
            seen: vec![0; story.entries.len()],
            heard: vec![0; story.entries.len()],
            asked: HashMap::new(),
            unheard: HashMap::new(),
            counts: BTreeMap::new(),
            story,
            speed,
            secrets,
            grants,
            bearers,
            refreshers,
        };
        for notice in unsent {
            stage.count(notice.vendor, "announcements that nobody was subscribed to");
            stage.unheard(&notice, "the subscription to its announcements had ended");
        }
        stage
    }

    /// The story.
    #[must_use]
    pub const fn story(&self) -> &Story {
        &self.story
    }

    /// How often what happened, by vendor.
    #[must_use]
    pub const fn counts(&self) -> &BTreeMap<(Played, &'static str), u64> {
        &self.counts
    }

    /// The quotas, by vendor.
    #[must_use]
    pub const fn quotas(&self) -> &BTreeMap<Played, Quotas> {
        &self.quotas
    }

    /// Each account's first pair of tokens, and how long the access token lives in simulated time, seconds.
    #[must_use]
    pub fn first_tokens(&self) -> Vec<(Tokens, i64)> {
        let of = |account: &Account| {
            let tokens = Grant::pair(account.seed, account.vendor.name(), 0);
            (tokens, account.vendor.house().lives(self.speed) / SECOND)
        };
        self.story.accounts.iter().map(of).collect()
    }

    fn count(&mut self, vendor: Played, what: &'static str) {
        *self.counts.entry((vendor, what)).or_default() += 1;
    }

    /// Answers a request at this time.
    pub fn answer(&mut self, ask: &Ask, at: Micros) -> Reply {
        let mut parts = ask.path.trim_start_matches('/').splitn(2, '/');
        let vendor = parts.next().and_then(Played::parse);
        let Some(vendor) = vendor.filter(|vendor| self.quotas.contains_key(vendor)) else {
            return Reply::json(404, r#"{"error":"no vendor of this name"}"#.to_owned());
        };
        let below = format!("/{}", parts.next().unwrap_or_default());
        if let Some(keyset) = vendor.keyset().filter(|_| below == "/keyset") {
            return Reply::json(200, keyset);
        }
        let house = vendor.house();
        if below == house.token {
            return self.exchange(vendor, ask, at);
        }
        let path = below.strip_prefix(house.api);
        if let Some(rest) = path.zip(vendor.subscribed()).and_then(|(it, at)| it.strip_prefix(at)) {
            return self.subscribe(vendor, rest, ask, at);
        }
        match path {
            Some(path) => match vendor.asks(ask, path) {
                Wanted::Nothing(status) => vendor.failed(status, "not here"),
                Wanted::Link => self.follow(vendor, path, at),
                wanted => self.call(vendor, (wanted, path), ask, at),
            },
            None => vendor.failed(404, "not found"),
        }
    }

    /// A request of the app's for its subscriptions.
    fn subscribe(&mut self, vendor: Played, below: &str, ask: &Ask, at: Micros) -> Reply {
        let secret = self.secrets.get(&vendor).map(String::as_str).unwrap_or_default();
        let known = |(id, given): &(String, String)| !id.is_empty() && given == secret;
        if !ask.client.as_ref().is_some_and(known) {
            self.count(vendor, "calls of no client");
            return vendor.failed(401, "unauthorized");
        }
        let left = self.quotas.get_mut(&vendor).map(|quotas| quotas.call(at));
        if !left.is_some_and(|left| left.granted) {
            self.count(vendor, "calls beyond the quota");
            return vendor.failed(429, "too many requests");
        }
        let reply = self.subscriptions.get_mut(&vendor).map(|all| all.answer(ask, below, at));
        self.count_subscriptions(vendor);
        reply.unwrap_or_else(|| vendor.failed(404, "not found"))
    }

    /// What is answered when the app's address was asked: whether it answered as it must.
    pub fn shaken(&mut self, handshake: &Handshake, answered: bool) -> Reply {
        let vendor = handshake.vendor;
        let what =
            if answered { "subscriptions made" } else { "subscriptions that were not verified" };
        self.count(vendor, what);
        let reply =
            self.subscriptions.get_mut(&vendor).map(|all| all.shaken(&handshake.id, answered));
        reply.unwrap_or_else(|| vendor.failed(404, "not found"))
    }

    /// Whether there is a subscription for all that will be announced, where they are played.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions.values().all(Subscriptions::is_whole)
    }

    /// Whether an announcement goes out at this time: where subscriptions are played, only if one of them is for it.
    /// It is noted where nobody is told.
    pub fn hears(&mut self, notice: &Notice, at: Micros) -> bool {
        let Some(all) = self.subscriptions.get_mut(&notice.vendor) else { return true };
        let subject = notice.vendor.subject(&notice.body);
        let heard = subject.is_none_or(|subject| all.hears(&subject, at));
        self.count_subscriptions(notice.vendor);
        if !heard {
            self.count(notice.vendor, "announcements that nobody was subscribed to");
            self.unheard(notice, "there was no subscription to its announcements");
        }
        heard
    }

    fn count_subscriptions(&mut self, vendor: Played) {
        if let Some(all) = self.subscriptions.get(&vendor) {
            self.counts.insert((vendor, "subscriptions deleted by somebody"), all.deleted);
            self.counts.insert((vendor, "subscriptions at their end"), all.ended);
        }
    }

    fn exchange(&mut self, vendor: Played, ask: &Ask, at: Micros) -> Reply {
        let refused = |status, error: &str| vendor.failed(status, error);
        if ask.method != "POST" {
            return refused(405, "invalid_request");
        }
        let field = |name: &str| ask.field(name).unwrap_or_default();
        let secret = self.secrets.get(&vendor).map(String::as_str).unwrap_or_default();
        if field("client_id").is_empty() || (!secret.is_empty() && field("client_secret") != secret)
        {
            self.count(vendor, "exchanges of no client");
            return refused(401, "invalid_client");
        }
        if field("grant_type") != "refresh_token" {
            return refused(400, "unsupported_grant_type");
        }
        let refresh = field("refresh_token");
        let lives = vendor.house().lives(self.speed);
        let place = self.refreshers.get(&refresh).copied();
        let Some((place, grant)) = place.and_then(|at| Some((at, self.grants.get_mut(at)?))) else {
            self.count(vendor, "exchanges of no token");
            return refused(400, "invalid_grant");
        };
        match grant.exchange(&refresh, at, at + lives) {
            Exchange::Pair(tokens) => {
                self.count(vendor, "exchanges");
                self.bearers.insert(tokens.access.clone(), place);
                self.refreshers.insert(tokens.refresh.clone(), place);
                Reply::json(200, vendor.pair(&tokens, lives / SECOND))
            }
            Exchange::Lost => {
                self.count(vendor, "exchanges with their answers lost");
                Reply { manner: Manner::HangUp, ..refused(503, "lost") }
            }
            Exchange::Refused => {
                let revoked = grant.is_revoked(at);
                let what =
                    if revoked { "exchanges after consent" } else { "exchanges of spent tokens" };
                self.count(vendor, what);
                refused(400, "invalid_grant")
            }
        }
    }

    fn call(
        &mut self,
        vendor: Played,
        (wanted, path): (Wanted, &str),
        ask: &Ask,
        at: Micros,
    ) -> Reply {
        let bearer = ask.bearer.as_deref().unwrap_or_default();
        let place = self.bearers.get(bearer).copied();
        let grant = place.and_then(|place| self.grants.get(place));
        let taken = grant.is_some_and(|grant| grant.takes(bearer, at));
        let Some(account) = place.filter(|_| taken) else {
            self.count(vendor, "calls without a token that lives");
            return vendor.failed(401, "unauthorized");
        };
        let Some(left) = self.quotas.get_mut(&vendor).map(|quotas| quotas.call(at)) else {
            return vendor.failed(404, "not found");
        };
        let reply = if left.granted {
            self.faulty(vendor, (wanted, path), ask, account, at)
        } else {
            self.count(vendor, "calls beyond the quota");
            vendor.failed(429, "too many requests")
        };
        vendor.rated(reply, left)
    }

    /// A call within the quota, and what goes wrong with it.
    fn faulty(
        &mut self,
        vendor: Played,
        (wanted, path): (Wanted, &str),
        ask: &Ask,
        account: usize,
        at: Micros,
    ) -> Reply {
        let query = format!("{}{}", ask.query, ask.form);
        let asked = self.asked.entry(format!("{account} {path} {query}")).or_default();
        *asked += 1;
        let asked = *asked;
        let seed = self.accounts_seed(account).of(path, asked).of(&query, 0);
        let shares = self.story.plan.shares;
        let hit = |fault, name: &str| seed.of(name, 0).within(shares.of(fault));
        if hit(Fault::Throttle, "throttle") {
            self.count(vendor, "calls throttled within the quota");
            return vendor.failed(429, "too many requests");
        }
        if hit(Fault::Unavailable, "unavailable") {
            self.count(vendor, "calls answered 503");
            return vendor.failed(503, "service unavailable");
        }
        if hit(Fault::Html, "html") {
            self.count(vendor, "calls answered with a page");
            let page = "<!DOCTYPE html><html><body>We will be right back.</body></html>";
            let headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
            return Reply { headers, ..Reply::json(200, page.to_owned()) };
        }
        if hit(Fault::Hang, "hang") {
            self.count(vendor, "calls never answered");
            return Reply { manner: Manner::Never, ..Reply::json(503, String::new()) };
        }
        let slow = hit(Fault::Slow, "slow");
        if slow {
            self.count(vendor, "calls answered slowly");
        }
        let reply = if wanted == Wanted::List {
            self.page(vendor, path, ask, account, at)
        } else {
            self.document(vendor, path, account, at)
        };
        Reply { manner: if slow { Manner::Slowly } else { Manner::AtOnce }, ..reply }
    }

    fn accounts_seed(&self, account: usize) -> Seed {
        let account = self.story.accounts.get(account);
        account.map_or(Seed(self.story.plan.seed), |account| account.seed.of("calls", 0))
    }

    /// What an object store answers: what is behind a link as long as that lives.
    fn follow(&mut self, vendor: Played, path: &str, at: Micros) -> Reply {
        let speed = self.speed;
        let id = path.rsplit('/').next().unwrap_or_default();
        let xml = |status, code: &str| Reply {
            headers: vec![("content-type", "application/xml; charset=UTF-8".to_owned())],
            ..Reply::json(
                status,
                format!("<?xml version='1.0'?><Error><Code>{code}</Code></Error>"),
            )
        };
        let Some(link) = self.links.get_mut(id) else { return xml(404, "NoSuchKey") };
        if link.is_dead(at, speed) {
            self.count(vendor, "links followed too late");
            return xml(403, "ExpiredToken");
        }
        link.followed = true;
        let (body, of) = (link.body.clone(), link.of.clone());
        for (place, order) in of {
            self.shown(place, order);
        }
        self.count(vendor, "links followed");
        Reply::json(200, body)
    }

    /// Notes that a link was written: from now on it lives.
    pub fn written(&mut self, id: &str, at: Micros) {
        if let Some(link) = self.links.get_mut(id) {
            link.written_at.get_or_insert(at);
        }
    }

    /// Some of a person's records.
    fn page(&mut self, vendor: Played, path: &str, ask: &Ask, account: usize, at: Micros) -> Reply {
        let own = self.own.get(account).into_iter().flatten();
        let own = own.filter_map(|place| Some((*place, self.story.entries.get(*place)?)));
        let shelf = Shelf { entries: own.collect(), at };
        let Some(listed) = vendor.list(&shelf, path, ask) else {
            self.count(vendor, "pages that nobody may ask for");
            return vendor.failed(400, "bad request");
        };
        for (place, order) in listed.shown {
            self.shown(place, order);
        }
        self.count(vendor, "pages");
        Reply::json(200, listed.body)
    }

    fn document(&mut self, vendor: Played, path: &str, account: usize, at: Micros) -> Reply {
        let place = self.paths.get(&(account, path.to_owned())).copied();
        let own = place.and_then(|place| Some((place, self.story.entries.get(place)?)));
        let now = own.and_then(|(place, entry)| Some((place, entry.current(at)?)));
        let Some((place, (order, document))) =
            now.map(|(place, version)| (place, (version.truth.order, version.document.clone())))
        else {
            self.count(vendor, "calls answered 404");
            return vendor.failed(404, "not found");
        };
        let Some(document) = document else {
            self.count(vendor, "calls for what is gone");
            return vendor.failed(404, "not found");
        };
        self.shown(place, order);
        self.count(vendor, "documents");
        Reply::json(200, document)
    }

    /// Notes that somebody was given this version.
    fn shown(&mut self, place: usize, order: u32) {
        if let Some(seen) = self.seen.get_mut(place) {
            *seen = (*seen).max(order);
        }
    }

    /// Notes that an announcement was taken.
    pub fn taken(&mut self, notice: &Notice) {
        for (entry, order) in &notice.of {
            if let Some(heard) = self.heard.get_mut(*entry) {
                *heard = (*heard).max(*order);
            }
            if self.unheard.get(entry).is_some_and(|(unheard, _)| unheard <= order) {
                self.unheard.remove(entry);
            }
        }
    }

    /// Notes that an announcement was given up: nobody took it.
    pub fn given_up(&mut self, notice: &Notice) {
        let heard = |(entry, order): &&(usize, u32)| {
            self.heard.get(*entry).is_some_and(|heard| heard >= order)
        };
        if !notice.of.iter().all(|of| heard(&of)) {
            self.count(notice.vendor, "announcements given up");
            self.unheard(notice, "its announcement was given up");
        }
    }

    fn unheard(&mut self, notice: &Notice, why: &'static str) {
        let vendor = notice.vendor;
        for (entry, order) in &notice.of {
            if self.heard.get(*entry).is_some_and(|heard| heard >= order) {
                continue;
            }
            let Some(found) = self.story.entries.get(*entry) else { continue };
            let along = vendor.along(&found.path).into_iter();
            let along = along.filter_map(|path| self.paths.get(&(found.account, path)).copied());
            // Whatever version of it there was: nobody was told by this announcement.
            let along: Vec<(usize, u32)> = along.map(|place| (place, u32::MAX)).collect();
            for (place, order) in [(*entry, *order)].into_iter().chain(along) {
                let unheard = self.unheard.entry(place).or_insert((order, why));
                unheard.0 = unheard.0.max(order);
            }
        }
    }

    /// How many records somebody still has to ask for: announced, there, within reach, and not seen in their last
    /// announced version.
    #[must_use]
    pub fn waiting(&self, at: Micros) -> usize {
        (0..self.story.entries.len())
            .filter(|place| self.unseen(*place).is_some() && self.reason(*place, at).is_none())
            .count()
    }

    /// What could not be known, each with its reason.
    #[must_use]
    pub fn excuses(&self, at: Micros) -> Vec<Excuse> {
        let excuse = |place: usize| {
            let truth = &self.unseen(place)?.truth;
            let order = self.seen.get(place).map_or(1, |seen| seen + 1);
            let reason = self.reason(place, at)?;
            Some(Excuse {
                vendor: truth.vendor.clone(),
                vendor_user: truth.vendor_user.clone(),
                record_type: truth.record_type.clone(),
                record_id: truth.record_id.clone(),
                order,
                reason: reason.to_owned(),
            })
        };
        (0..self.story.entries.len()).filter_map(excuse).collect()
    }

    /// Who can be asked for no more, since when and why.
    #[must_use]
    pub fn ends(&self, at: Micros) -> Vec<End> {
        let end = |(account, grant): (&Account, &Grant)| {
            let (at, reason) = grant.ended(at)?;
            Some(End {
                vendor: account.vendor.name().to_owned(),
                vendor_user: account.vendor_user.clone(),
                at,
                reason: reason.to_owned(),
            })
        };
        self.story.accounts.iter().zip(&self.grants).filter_map(end).collect()
    }

    /// The last version that was announced and has to be fetched, where nobody was given it or a later one.
    fn unseen(&self, place: usize) -> Option<&Version> {
        let entry = self.story.entries.get(place)?;
        let told = entry.versions.iter().rev().find(|version| version.truth.told)?;
        let unheard = self.unheard.contains_key(&place);
        let linked = self.linked.get(&(place, told.truth.order));
        let linked = linked.and_then(|id| self.links.get(id));
        let fetched = linked.is_some() || (!entry.path.is_empty() && told.document.is_some());
        let seen = self.seen.get(place).is_some_and(|seen| *seen >= told.truth.order);
        ((fetched && !seen) || (unheard && !fetched)).then_some(told)
    }

    fn reason(&self, place: usize, at: Micros) -> Option<&'static str> {
        let entry = self.story.entries.get(place)?;
        let grant = self.grants.get(entry.account)?;
        let told = self.unseen(place).map(|version| (place, version.truth.order));
        let link = told.and_then(|told| self.links.get(self.linked.get(&told)?));
        if let Some(link) = link {
            let dead = link.is_dead(at, self.speed);
            return dead.then_some("the link to it had expired before it was followed");
        }
        let ended = grant.ended(at).map(|(_, why)| why);
        ended.or_else(|| self.unheard.get(&place).map(|(_, why)| *why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Day;
    use crate::sim::world::fault::Shares;
    use crate::sim::world::story::{Entry, Plan};

    fn whoop() -> Played {
        Played::parse("whoop").expect("it is played")
    }

    const SECRET: &str = "not-a-secret-test-key";

    fn stage(people: u32, days: i32, faults: &str, speed: u32) -> Stage {
        let plan = Plan {
            history: 0,
            subscriptions: 0,
            seed: 11,
            people,
            first: Day::parse("2026-10-01").expect("a day"),
            days,
            vendors: vec![whoop()],
            shares: Shares::parse(faults).expect("shares"),
        };
        let secrets = BTreeMap::from([(whoop(), SECRET.to_owned())]);
        Stage::new(Story::new(plan), speed, secrets)
    }

    fn get(path: &str, access: &str) -> Ask {
        Ask {
            method: "GET".to_owned(),
            path: format!("/whoop/developer{path}"),
            bearer: Some(access.to_owned()),
            ..Ask::default()
        }
    }

    fn post(form: &str) -> Ask {
        let path = "/whoop/oauth/oauth2/token".to_owned();
        Ask { method: "POST".to_owned(), path, form: form.to_owned(), ..Ask::default() }
    }

    fn exchange(refresh: &str, secret: &str) -> Ask {
        post(&format!(
            "grant_type=refresh_token&refresh_token={refresh}&client_id=sim&client_secret={secret}&scope=offline"
        ))
    }

    /// Fetches what every announcement names, as a system without a flaw would; gives the tokens that it ended with.
    fn fetch_all(stage: &mut Stage) {
        let mut tokens: Vec<Tokens> =
            stage.first_tokens().into_iter().map(|(tokens, _)| tokens).collect();
        for notice in stage.story().notices.clone() {
            let Some((entry, _)) = notice.of.first() else { continue };
            let mut paths = vec![stage.story.entries[*entry].path.clone()];
            paths.extend(notice.vendor.along(&paths[0]));
            let mut at = notice.at;
            for (nth, path) in paths.into_iter().enumerate() {
                // The first night closes no cycle.
                for _ in 0..if nth < 2 { 20 } else { 3 } {
                    let access = tokens[notice.account].access.clone();
                    let reply = stage.answer(&get(&path, &access), at);
                    match reply.status {
                        401 => {
                            let refresh = tokens[notice.account].refresh.clone();
                            let answer = stage.answer(&exchange(&refresh, SECRET), at);
                            if answer.status != 200 {
                                break;
                            }
                            let pair: serde_json::Value =
                                serde_json::from_str(&answer.body).expect("JSON");
                            tokens[notice.account] = Tokens {
                                access: pair["access_token"].as_str().expect("a text").to_owned(),
                                refresh: pair["refresh_token"].as_str().expect("a text").to_owned(),
                            };
                        }
                        200 if reply.headers[0].1 == "application/json" => break,
                        _ => at += 10 * 60 * SECOND,
                    }
                }
            }
        }
    }

    #[test]
    fn who_asks_for_all_that_is_announced_sees_all() {
        let mut calm = stage(3, 12, "none", 1);
        let ends = calm.story.plan.ends();
        assert!(calm.waiting(ends) > 100);
        fetch_all(&mut calm);
        assert_eq!((calm.waiting(ends), calm.excuses(ends)), (0, vec![]));
        assert!(calm.counts[&(whoop(), "exchanges")] > 30, "an hour's tokens");
        let nothing = calm.counts.get(&(whoop(), "calls answered 404"));
        assert_eq!(
            nothing,
            Some(&9),
            "the cycles before the first of three people, asked for thrice"
        );
    }

    #[test]
    fn with_every_fault_what_is_not_seen_has_its_reason() {
        let mut wild = stage(30, 12, "all,revoked=20,lost_refresh=20", 1);
        let ends = wild.story.plan.ends();
        fetch_all(&mut wild);
        assert_eq!(wild.waiting(ends), 0, "{:?}", wild.counts);
        let excuses = wild.excuses(ends);
        assert!(excuses.iter().any(|it| it.reason.starts_with("the answer to an exchange")));
        for what in ["calls throttled within the quota", "calls answered 503", "calls answered 404"]
        {
            assert!(wild.counts.contains_key(&(whoop(), what)), "{what}");
        }
    }

    #[test]
    fn who_does_not_ask_has_an_excuse_only_where_asking_became_of_no_use() {
        let mut deaf = stage(10, 12, "revoked=50", 1);
        let ends = deaf.story.plan.ends();
        let all = deaf.waiting(ends) + deaf.excuses(ends).len();
        let revoked = deaf.excuses(ends).len();
        assert!((1..all).contains(&revoked), "{revoked} of {all}");
        let last = |deaf: &Stage, end: &str| {
            let mut told = deaf.story.notices.iter().rev();
            let own = |notice: &Notice| deaf.story.entries[notice.of[0].0].clone();
            let fine = |entry: &Entry| deaf.story.accounts[entry.account].revoked_at.is_none();
            told.find(|it| own(it).path.ends_with(end) && fine(&own(it))).cloned()
        };
        let both = |deaf: &Stage| (deaf.excuses(ends).len(), deaf.waiting(ends));
        let (excused, waiting) = both(&deaf);
        let recovery = last(&deaf, "/recovery").expect("one");
        deaf.given_up(&recovery);
        assert_eq!(both(&deaf), (excused + 3, waiting - 3), "itself and the cycles around it");
        deaf.taken(&recovery);
        deaf.given_up(&recovery);
        assert_eq!(both(&deaf).1, waiting - 2, "it was taken once: the other was a duplicate");
    }

    #[test]
    fn nobody_is_answered_without_a_token_of_ones_own() {
        let mut stage = stage(2, 5, "none", 1);
        let at = stage.story.plan.ends() - 1;
        let [(own, lives), (other, _)] = &stage.first_tokens()[..] else { panic!("two") };
        let (own, other, lives) = (own.clone(), other.clone(), *lives);
        assert_eq!(lives, 3_600);
        let begins = stage.story.plan.begins();
        let entry = stage.story.entries.iter().find(|it| it.account == 0).expect("one").clone();
        assert_eq!(stage.answer(&get(&entry.path, &own.access), at).status, 401, "it is old");
        let early = begins + 60 * SECOND;
        assert_eq!(stage.answer(&get(&entry.path, &own.access), early).status, 404, "not yet");
        let wrong = exchange(&own.refresh, "another");
        assert_eq!(stage.answer(&wrong, at).status, 401);
        assert_eq!(stage.answer(&post("grant_type=password&client_id=a"), at).status, 401);
        let renewed = |stage: &mut Stage, refresh: &str| {
            let answer = stage.answer(&exchange(refresh, SECRET), at);
            assert_eq!(answer.status, 200);
            let pair: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            pair["access_token"].as_str().expect("a text").to_owned()
        };
        let (own, other) = (renewed(&mut stage, &own.refresh), renewed(&mut stage, &other.refresh));
        let seen = stage.answer(&get(&entry.path, &own), at);
        let now = entry.versions.last().and_then(|it| it.document.clone());
        assert_eq!((seen.status, Some(seen.body)), (200, now));
        assert_eq!(stage.answer(&get(&entry.path, &other), at).status, 404, "somebody else's");
        assert_eq!(stage.answer(&exchange("sim-whoop-refresh-0", SECRET), at).status, 400);
    }

    #[test]
    fn a_quota_is_told_and_kept_in_the_worlds_own_time() {
        let mut stage = stage(1, 5, "none", 60);
        let (tokens, lives) = stage.first_tokens().remove(0);
        assert_eq!(lives, 3_600);
        let begins = stage.story.plan.begins();
        let mut ask = |after_s: i64| {
            stage.answer(&get("/v2/cycle/1", &tokens.access), begins + after_s * SECOND)
        };
        for nth in 0..100 {
            assert_eq!(ask(0).status, 404, "{nth}");
        }
        let over = ask(1);
        assert_eq!(over.status, 429);
        let of =
            |name: &str| over.headers.iter().find(|(it, _)| *it == name).map(|it| it.1.as_str());
        assert_eq!((of("x-ratelimit-remaining"), of("x-ratelimit-reset")), (Some("0"), Some("59")));
        assert_eq!(ask(60).status, 404);
        let quotas = &stage.quotas[&whoop()];
        assert_eq!((quotas.taken, quotas.exceeded), (101, 1));
    }

    #[test]
    fn nobody_is_told_what_no_subscription_is_for() {
        let oura = Played::parse("oura").expect("it is played");
        let plan = Plan {
            history: 0,
            subscriptions: 30,
            seed: 11,
            people: 1,
            first: Day::parse("2026-10-01").expect("a day"),
            days: 4,
            vendors: vec![oura],
            shares: Shares::default(),
        };
        let secrets = BTreeMap::from([(oura, SECRET.to_owned())]);
        let mut stage = Stage::new(Story::new(plan), 1, secrets);
        let ends = stage.story.plan.ends();
        let notice = stage.story.notices.first().cloned().expect("one");
        assert!(!stage.is_subscribed() && !stage.hears(&notice, notice.at));
        let excuses = stage.excuses(ends);
        assert_eq!(excuses.len(), 1);
        assert_eq!(excuses[0].reason, "there was no subscription to its announcements");
        let subject = oura.subject(&notice.body).expect("a subject");
        let body = serde_json::json!({
            "callback_url": "http://127.0.0.1:1/x", "verification_token": "t",
            "event_type": subject.0, "data_type": subject.1,
        });
        let mut make = |secret: &str| {
            let ask = Ask {
                method: "POST".to_owned(),
                path: "/oura/v2/webhook/subscription".to_owned(),
                client: Some(("sim".to_owned(), secret.to_owned())),
                form: body.to_string(),
                ..Ask::default()
            };
            stage.answer(&ask, notice.at)
        };
        assert_eq!(make("another").handshake, None, "by the app alone");
        let handshake = make(SECRET).handshake.expect("its address is asked");
        assert_eq!(stage.shaken(&handshake, true).status, 201);
        assert!(stage.hears(&notice, notice.at) && !stage.is_subscribed());
        stage.taken(&notice);
        assert_eq!(stage.excuses(ends), [], "it was said again, and heard");
    }

    #[test]
    fn a_page_has_what_began_within_its_window() {
        let mut stage = stage(1, 9, "none", 1_000_000);
        let (tokens, lives) = stage.first_tokens().remove(0);
        assert_eq!(lives, 20_000_000, "an hour would be some milliseconds: it lives longer");
        let at = stage.story.plan.ends() - 1;
        let mut ask = |query: &str| {
            let ask = Ask { query: query.to_owned(), ..get("/v2/cycle", &tokens.access) };
            let reply = stage.answer(&ask, at);
            (reply.status, serde_json::from_str::<serde_json::Value>(&reply.body).expect("JSON"))
        };
        let ids = |page: &serde_json::Value| -> Vec<u64> {
            let records = page["records"].as_array().expect("a list").iter();
            records.map(|record| record["id"].as_u64().expect("a number")).collect()
        };
        let (status, all) = ask("limit=25");
        let all_ids = ids(&all);
        assert_eq!((status, all_ids.len()), (200, 9));
        assert!(all_ids.is_sorted_by(|a, b| a > b), "the newest first: {all_ids:?}");
        let (_, first) = ask("limit=4");
        let (_, second) =
            ask(&format!("limit=4&nextToken={}", first["next_token"].as_str().expect("more")));
        assert_eq!([ids(&first), ids(&second)].concat(), all_ids[..8]);
        let start = all["records"][3]["start"].as_str().expect("a text");
        let end = all["records"][1]["start"].as_str().expect("a text");
        let (_, some) = ask(&format!("start={start}&end={end}"));
        assert_eq!(ids(&some), all_ids[2..4], "from its start on, and before its end");
        for wrong in ["limit=26", "limit=x", "start=today"] {
            assert_eq!(ask(wrong).0, 400, "{wrong}");
        }
    }
}
