//! The subscriptions that a vendor's webhooks hang on, as they are played: made by the app over the API, verified by a
//! handshake, at their end after some days, and nothing is sent that none of them is for.
//!
//! Written from Oura's contract, which is the one that is played so. Two things end one: its time, where nobody renews it,
//! and a fault, as where somebody deletes it on the vendor's page. What is there is told to who asks; nobody is told that
//! one is gone.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::dice::Seed;
use super::fault::Fault;
use super::place::{HOUR, local};
use super::player::{Ask, Played, Reply};
use super::story::Story;
use crate::model::time::Micros;

/// A kind of change of a kind of record.
pub type Subject = (String, String);

/// What is to be asked of an app's address before a subscription for it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Who asks.
    pub vendor: Played,
    /// The subscription.
    pub id: String,
    /// Where its announcements are to go.
    pub callback: String,
    /// What the app has given to be named to it.
    pub token: String,
    /// What it must answer with.
    pub challenge: String,
}

#[derive(Clone, Debug)]
struct Subscription {
    id: String,
    callback: String,
    subject: Subject,
    until: Micros,
}

/// An app's subscriptions.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    vendor: Played,
    seed: Seed,
    /// How long one lives, µs.
    lives: Micros,
    made: u64,
    living: Vec<Subscription>,
    /// Those that wait for their handshake.
    asked: Vec<Subscription>,
    /// What there are announcements of.
    subjects: BTreeSet<Subject>,
    /// Which of them somebody deletes, and when.
    deaths: Vec<(Micros, Subject)>,
    /// How many were deleted.
    pub deleted: u64,
    /// How many came to their end.
    pub ended: u64,
}

/// The kinds of changes.
const EVENTS: [&str; 3] = ["create", "update", "delete"];

impl Subscriptions {
    /// Of a vendor in a story, where it has such: none is made yet.
    #[must_use]
    pub fn new(vendor: Played, story: &Story) -> Option<Self> {
        let plan = &story.plan;
        vendor.subscribed().filter(|_| plan.subscriptions > 0)?;
        let own = story.notices.iter().filter(|notice| notice.vendor == vendor);
        let subjects: BTreeSet<Subject> =
            own.filter_map(|notice| vendor.subject(&notice.body)).collect();
        let seed = Seed(plan.seed).of(vendor.name(), 0).of("subscriptions", 0);
        let share = plan.shares.of(Fault::Unsubscribed);
        let (begins, ends) = (plan.connected(), plan.ends());
        let dying = (0..).zip(&subjects).filter_map(|(nth, subject)| {
            let seed = seed.of("death", nth);
            let at =
                begins + (ends - begins) / 100 * i64::from(seed.of("at", 0).dice().between(20, 80));
            seed.within(share).then(|| (at, subject.clone()))
        });
        let mut deaths: Vec<(Micros, Subject)> = dying.collect();
        deaths.sort();
        Some(Self {
            vendor,
            seed,
            lives: i64::from(plan.subscriptions) * 24 * HOUR,
            made: 0,
            living: Vec::new(),
            asked: Vec::new(),
            deaths,
            subjects,
            deleted: 0,
            ended: 0,
        })
    }

    /// Answers a request of the app's; `below` is what stands behind the path of subscriptions.
    pub fn answer(&mut self, ask: &Ask, below: &str, at: Micros) -> Reply {
        self.pass(at);
        match (ask.method.as_str(), below.trim_start_matches('/')) {
            ("GET", "") => {
                let all: Vec<Value> = self.living.iter().map(Subscription::shown).collect();
                Reply::json(200, Value::from(all).to_string())
            }
            ("POST", "") => self.ask(&ask.form, at),
            ("PUT", path) if path.starts_with("renew/") => {
                let until = at + self.lives;
                self.one(path.trim_start_matches("renew/"), |one| one.until = until)
            }
            ("GET", id) => self.one(id, |_| {}),
            ("DELETE", id) => {
                let before = self.living.len();
                self.living.retain(|one| one.id != id);
                let status = if self.living.len() < before { 204 } else { 404 };
                Reply { body: String::new(), ..Reply::json(status, String::new()) }
            }
            _ => Reply::json(405, r#"{"detail":"method not allowed"}"#.to_owned()),
        }
    }

    /// The handshake that a new one needs first.
    fn ask(&mut self, body: &str, at: Micros) -> Reply {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let text =
            |name: &str| Some(body.get(name)?.as_str()?.to_owned()).filter(|it| !it.is_empty());
        let all = [text("callback_url"), text("verification_token"), text("event_type")];
        let ([Some(callback), Some(token), Some(event)], Some(record)) = (all, text("data_type"))
        else {
            return Reply::json(422, r#"{"detail":"a field is missing"}"#.to_owned());
        };
        if !EVENTS.contains(&event.as_str()) || !callback.starts_with("http") {
            return Reply::json(422, r#"{"detail":"a field is not valid"}"#.to_owned());
        }
        self.made += 1;
        let seed = self.seed.of("made", self.made);
        let (id, until) = (seed.uuid(), at + self.lives);
        let (subject, challenge) = ((event, record), seed.of("challenge", 0).hex(24));
        self.asked.push(Subscription {
            id: id.clone(),
            callback: callback.clone(),
            subject,
            until,
        });
        let handshake = Some(Handshake { vendor: self.vendor, id, callback, token, challenge });
        Reply { handshake, ..Reply::json(401, r#"{"detail":"not verified"}"#.to_owned()) }
    }

    /// What an app is answered whose address did, or did not, answer its handshake.
    pub fn shaken(&mut self, id: &str, answered: bool) -> Reply {
        let (found, others): (Vec<_>, Vec<_>) = self.asked.drain(..).partition(|one| one.id == id);
        self.asked = others;
        match found.into_iter().next().filter(|_| answered) {
            Some(one) => {
                let shown = one.shown().to_string();
                self.living.push(one);
                Reply::json(201, shown)
            }
            None => Reply::json(401, r#"{"detail":"the callback was not verified"}"#.to_owned()),
        }
    }

    fn one(&mut self, id: &str, change: impl Fn(&mut Subscription)) -> Reply {
        match self.living.iter_mut().find(|one| one.id == id) {
            Some(one) => {
                change(one);
                Reply::json(200, one.shown().to_string())
            }
            None => Reply::json(404, r#"{"detail":"not found"}"#.to_owned()),
        }
    }

    /// Whether one lives that is for this.
    pub fn hears(&mut self, subject: &Subject, at: Micros) -> bool {
        self.pass(at);
        self.living.iter().any(|one| one.subject == *subject)
    }

    /// Whether all that is announced has one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let lives = |subject: &Subject| self.living.iter().any(|one| one.subject == *subject);
        self.subjects.iter().all(lives)
    }

    /// What ends by this time.
    fn pass(&mut self, at: Micros) {
        let all = self.living.len();
        self.living.retain(|one| at < one.until);
        self.ended += u64::try_from(all - self.living.len()).unwrap_or(0);
        while let Some((_, subject)) = self.deaths.first().filter(|(dies, _)| *dies <= at).cloned()
        {
            self.deaths.remove(0);
            let all = self.living.len();
            self.living.retain(|one| one.subject != subject);
            self.deleted += u64::try_from(all - self.living.len()).unwrap_or(0);
        }
    }
}

impl Subscription {
    fn shown(&self) -> Value {
        json!({
            "id": self.id, "callback_url": self.callback, "event_type": self.subject.0,
            "data_type": self.subject.1, "expiration_time": local(self.until, 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Shares;
    use super::super::story::Plan;
    use super::*;
    use crate::model::time::Day;

    fn subscriptions(faults: &str) -> (Subscriptions, Story) {
        let oura = Played::parse("oura").expect("it is played");
        let plan = Plan {
            seed: 5,
            people: 2,
            first: Day::parse("2026-10-01").expect("a day"),
            days: 10,
            history: 0,
            subscriptions: 3,
            vendors: vec![oura],
            shares: Shares::parse(faults).expect("shares"),
        };
        let story = Story::new(plan);
        (Subscriptions::new(oura, &story).expect("they are played"), story)
    }

    fn ask(method: &str, form: &str) -> Ask {
        Ask { method: method.to_owned(), form: form.to_owned(), ..Ask::default() }
    }

    /// Makes one for each subject; gives their ids.
    fn make(all: &mut Subscriptions, at: Micros) -> Vec<String> {
        let subjects: Vec<Subject> = all.subjects.iter().cloned().collect();
        let make = |(event, record): Subject| {
            let body = json!({
                "callback_url": "http://127.0.0.1:1/webhooks/oura", "verification_token": "t",
                "event_type": event, "data_type": record,
            });
            let handshake = all.answer(&ask("POST", &body.to_string()), "", at).handshake;
            let handshake = handshake.expect("it is asked for first");
            assert_eq!(handshake.token, "t");
            assert_eq!(all.shaken(&handshake.id, true).status, 201);
            handshake.id
        };
        subjects.into_iter().map(make).collect()
    }

    #[test]
    fn one_is_made_when_its_address_has_answered_and_not_before() {
        let (mut all, story) = subscriptions("none");
        let (at, subject) = (story.plan.begins(), all.subjects.first().cloned().expect("one"));
        assert!(!all.hears(&subject, at) && !all.is_whole());
        let body = json!({
            "callback_url": "http://127.0.0.1:1/x", "verification_token": "t",
            "event_type": subject.0, "data_type": subject.1,
        });
        let refused = all.answer(&ask("POST", &body.to_string()), "", at);
        assert!(!all.hears(&subject, at), "nobody has answered yet");
        let id = refused.handshake.expect("a handshake").id;
        assert_eq!(all.shaken(&id, false).status, 401);
        assert_eq!(all.shaken(&id, true).status, 401, "it is over");
        for wrong in [
            "{}",
            "x",
            r#"{"callback_url":"http://a","verification_token":"t","event_type":"eat","data_type":"x"}"#,
        ] {
            let reply = all.answer(&ask("POST", wrong), "", at);
            assert_eq!((reply.status, reply.handshake), (422, None), "{wrong}");
        }
        assert!(!all.hears(&subject, at));
        make(&mut all, at);
        assert!(all.hears(&subject, at) && all.is_whole());
    }

    #[test]
    fn one_ends_unless_it_is_renewed_and_is_gone_when_it_is_deleted() {
        let (mut all, story) = subscriptions("none");
        let begins = story.plan.begins();
        let ids = make(&mut all, begins);
        let subjects: Vec<Subject> = all.subjects.iter().cloned().collect();
        let later = begins + 2 * 24 * HOUR;
        let put = |all: &mut Subscriptions, id: &str, at| {
            all.answer(&ask("PUT", ""), &format!("/renew/{id}"), at).status
        };
        assert_eq!(put(&mut all, &ids[0], later), 200);
        let end = begins + 3 * 24 * HOUR;
        assert!(all.hears(&subjects[1], end - 1));
        let heard = |all: &mut Subscriptions, at| [0, 1].map(|nth| all.hears(&subjects[nth], at));
        assert_eq!(heard(&mut all, end), [true, false]);
        assert_eq!(put(&mut all, &ids[1], end), 404, "what is dead is not renewed");
        let listed = all.answer(&ask("GET", ""), "", end).body;
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        assert_eq!(listed.as_array().map(Vec::len), Some(1));
        assert_eq!(listed[0]["id"], ids[0].as_str());
        assert_eq!(all.answer(&ask("DELETE", ""), &format!("/{}", ids[0]), end).status, 204);
        assert_eq!(all.answer(&ask("DELETE", ""), &format!("/{}", ids[0]), end).status, 404);
        assert_eq!(heard(&mut all, end), [false, false]);
    }

    #[test]
    fn a_fault_ends_each_once_and_another_one_lives_on() {
        let (mut all, story) = subscriptions("unsubscribed=100");
        let (begins, ends) = (story.plan.begins(), story.plan.ends());
        all.lives = ends - begins;
        make(&mut all, begins);
        let count = all.subjects.len();
        assert!(count > 5 && all.deaths.len() == count);
        let (middle, subject) = all.deaths[0].clone();
        assert!(all.hears(&subject, middle - 1) && !all.hears(&subject, middle));
        assert_eq!(all.deleted, 1);
        make(&mut all, middle);
        assert!(all.hears(&subject, ends - 1), "nobody deletes it twice");
        assert_eq!(story.unsent.len(), 0, "people are not silent besides");
    }
}
