//! What a vendor is to the world: one file that knows how it tells of a life, what it sends, and how it answers.
//!
//! # How to add a player
//! Write `src/sim/world/<name>.rs` with a `pub static PLAYER` that implements [`Player`], from the vendor's contract
//! alone; add `pub mod <name>;` beside this file and a line in [`Played::ALL`]. What all vendors share is not in it:
//! the order of things, tokens, quotas, and the faults of announcements and calls.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use serde_json::json;

use super::dice::Seed;
use super::grant::Tokens;
use super::place::SECOND;
use super::quota::{Left, Limit};
use super::story::{Account, Entry, Made, Notice, Plan, Telling, Version, Way};
use super::subscription::{Handshake, Subject};
use super::{dexcom, garmin, google, healthkit, oura, polar, terra, whoop, withings};
use crate::model::time::Micros;

/// Headers of a request or an answer.
pub type Headers = Vec<(&'static str, String)>;

/// A vendor as it is played. What it knows is a matter of a seed; a time comes as an argument.
pub trait Player: fmt::Debug + Sync {
    /// The name in paths, as in `vendors.*`.
    fn name(&self) -> &'static str;

    /// The id of a person.
    fn vendor_user(&self, seed: Seed) -> String;

    /// All that it knows of a person: records in all their versions.
    fn records(&self, telling: &Telling<'_>) -> Vec<Made>;

    /// The body that announces a version, or that carries it; nothing where nobody is told of it.
    fn notice(&self, seed: Seed, account: &Account, version: &Version) -> Option<String>;

    /// What it says of an account itself, and when: that it begins, ends, or has another id.
    fn of_account(&self, _account: &Account, _plan: &Plan) -> Vec<(Micros, String)> {
        Vec::new()
    }

    /// Announcements, in the order of their times, as they are put together in requests.
    fn gathered(&self, notices: Vec<Notice>) -> Vec<Notice> {
        notices
    }

    /// Whether its requests go out one after the other: it carries what has no version, or connections end by them.
    fn in_turn(&self) -> bool {
        false
    }

    /// Whether what it sends of this account has no version: of two, the one that comes later is the newer one, and
    /// so no fault may turn them round.
    fn undated(&self, _account: &Account) -> bool {
        false
    }

    /// Whether the subscription that its webhooks hang on ends by itself.
    fn subscription_ends(&self) -> bool {
        false
    }

    /// Where its app makes those subscriptions over its API, below [`House::api`].
    fn subscribed(&self) -> Option<&'static str> {
        None
    }

    /// What a body announces, where a subscription is for one such thing.
    fn subject(&self, _body: &str) -> Option<Subject> {
        None
    }

    /// The way of an announcement of this account with this id.
    fn way(&self, _account: &Account, _id: &str) -> Way {
        Way::Door
    }

    /// What stands in the log instead of the body of an announcement that goes by [`Way::Link`]: a link to it, below
    /// this address.
    fn pointer(&self, _notice: &Notice, _address: &str) -> String {
        String::new()
    }

    /// The request that carries an announcement when it goes out at this real time, µs.
    fn delivery(&self, notice: &Notice, secret: &str, now_us: Micros) -> Delivery;

    /// Whether its people have given consent before the world begins: connections and first tokens are then imported.
    /// Others are connected by what is sent.
    fn is_consented(&self) -> bool {
        true
    }

    /// Whether it gives out tokens of its people, to ask it for what they have.
    fn gives_tokens(&self) -> bool {
        true
    }

    /// How its server is built.
    fn house(&self) -> House;

    /// Whether what it announces may lead to a bucket, below its name ([`Wanted::Link`]).
    fn has_bucket(&self) -> bool {
        false
    }

    /// The public keys that verify what it sends, where it signs with a key of its own: below its name, at `/keyset`.
    fn keyset(&self) -> Option<String> {
        None
    }

    /// What a request wants; `path` is the one below [`House::api`].
    fn asks(&self, ask: &Ask, _path: &str) -> Wanted {
        if ask.method == "GET" { Wanted::Record } else { Wanted::Nothing(405) }
    }

    /// The answer to [`Wanted::List`]; none where nobody may ask so.
    fn list(&self, _shelf: &Shelf<'_>, _path: &str, _ask: &Ask) -> Option<Listed> {
        None
    }

    /// The records, by their paths, that nobody hears of but by the announcement of the one at this path.
    fn along(&self, _path: &str) -> Vec<String> {
        Vec::new()
    }

    /// An answer that is none, of this status.
    fn failed(&self, status: u16, error: &str) -> Reply {
        Reply::json(status, json!({ "error": error }).to_string())
    }

    /// The answer to an exchange of tokens.
    fn pair(&self, tokens: &Tokens, lives_s: i64) -> String {
        json!({
            "access_token": tokens.access, "refresh_token": tokens.refresh,
            "token_type": "bearer", "expires_in": lives_s,
        })
        .to_string()
    }

    /// The same answer with what it tells of its quotas.
    fn rated(&self, reply: Reply, _left: Left) -> Reply {
        reply
    }
}

/// One of the vendors that are played.
#[derive(Clone, Copy)]
pub struct Played(&'static dyn Player);

impl Played {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self(&dexcom::PLAYER),
        Self(&garmin::PLAYER),
        Self(&google::PLAYER),
        Self(&healthkit::PLAYER),
        Self(&oura::PLAYER),
        Self(&polar::PLAYER),
        Self(&terra::PLAYER),
        Self(&whoop::PLAYER),
        Self(&withings::PLAYER),
    ];

    /// The vendor of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|vendor| vendor.name() == name)
    }
}

impl Deref for Played {
    type Target = dyn Player;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl fmt::Debug for Played {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl PartialEq for Played {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Played {}

impl PartialOrd for Played {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Played {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl Hash for Played {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

/// A request that a vendor sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The path.
    pub path: String,
    /// Its headers.
    pub headers: Headers,
}

/// How a vendor's server is built.
#[derive(Clone, Copy, Debug)]
pub struct House {
    /// Where its API is, below its name.
    pub api: &'static str,
    /// Where tokens are exchanged; empty where they are not.
    pub token: &'static str,
    /// What its quotas are.
    pub limits: &'static [Limit],
    /// How long an access token lives, seconds.
    pub token_s: i64,
    /// Whether a refresh token is good for one exchange.
    pub rotates: bool,
}

impl House {
    /// The least time that an access token lives in real time, seconds: in a world that runs fast a vendor's hour
    /// would be over before the token is used.
    const TOKEN_REAL_S: i64 = 20;

    /// How long an access token lives in a world of this speed, µs.
    #[must_use]
    pub fn lives(&self, speed: i64) -> Micros {
        self.token_s.max(Self::TOKEN_REAL_S * speed) * SECOND
    }
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The record at this path.
    Record,
    /// Some of the person's records ([`Player::list`]).
    List,
    /// What an announcement's link leads to; its id is the last part of the path.
    Link,
    /// What there is not, or may not be asked: this status.
    Nothing(u16),
}

/// A person's records while they are asked for.
#[derive(Clone, Debug)]
pub struct Shelf<'a> {
    /// Each with its place in the story.
    pub entries: Vec<(usize, &'a Entry)>,
    /// Simulated time.
    pub at: Micros,
}

/// A version that a request is answered with.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The place of its record in the story.
    pub place: usize,
    /// The version.
    pub version: &'a Version,
    /// Its document.
    pub document: &'a str,
}

impl<'a> Shelf<'a> {
    /// What the API has now: each record that is there, in its current version.
    #[must_use]
    pub fn now(&self) -> Vec<Shown<'a>> {
        let shown = |(place, entry): &(usize, &'a Entry)| {
            let version = entry.current(self.at)?;
            Some(Shown { place: *place, version, document: version.document.as_deref()? })
        };
        self.entries.iter().filter_map(shown).collect()
    }

    /// Every version that was there up to now.
    #[must_use]
    pub fn versions(&self) -> Vec<Shown<'a>> {
        let of = |(place, entry): &(usize, &'a Entry)| {
            let (place, at) = (*place, self.at);
            let there = entry.versions.iter().filter(move |version| version.truth.at <= at);
            there.filter_map(move |version| {
                Some(Shown { place, version, document: version.document.as_deref()? })
            })
        };
        self.entries.iter().flat_map(of).collect()
    }
}

/// What a list is answered with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The body.
    pub body: String,
    /// The records in it, by their places, and which version each is.
    pub shown: Vec<(usize, u32)>,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The method.
    pub method: String,
    /// The path, which begins with the vendor's name.
    pub path: String,
    /// The query, as it came.
    pub query: String,
    /// The bearer token.
    pub bearer: Option<String>,
    /// The app's id and its secret, where they stand in headers of their own.
    pub client: Option<(String, String)>,
    /// The body.
    pub form: String,
}

impl Ask {
    /// A parameter of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        pairs(&self.query).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A field of the form.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        pairs(&self.form).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers, the content type among them.
    pub headers: Headers,
    /// The body.
    pub body: String,
    /// What is done with it.
    pub manner: Manner,
    /// What the app's own address is asked first; how it answers then decides ([`super::stage::Stage::shaken`]).
    pub handshake: Option<Handshake>,
}

/// How an answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// At once.
    AtOnce,
    /// After seconds.
    Slowly,
    /// Never: the connection stays open.
    Never,
    /// Never: the connection is closed.
    HangUp,
}

impl Reply {
    /// An answer of JSON.
    #[must_use]
    pub fn json(status: u16, body: String) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body, manner: Manner::AtOnce, handshake: None }
    }

    /// The same with another header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// The pairs of a query or a form.
#[must_use]
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(name), decoded(value))
    };
    text.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                let digits = String::from_utf8(digits).unwrap_or_default();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_is_found_by_its_name_and_once() {
        let mut names: Vec<&str> = Played::ALL.iter().map(|vendor| vendor.name()).collect();
        for name in &names {
            assert_eq!(Played::parse(name).map(|vendor| vendor.name()), Some(*name));
            assert!(crate::vendors::find(name).is_some(), "{name} is nobody whom we know");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Played::ALL.len());
        assert_eq!(Played::parse("nobody"), None);
    }

    #[test]
    fn forms_are_read() {
        let read = pairs("a=b%20c&d=e+f&g&&h=%C3%A4");
        let of = |name: &str| read.iter().find(|(it, _)| it == name).map(|it| it.1.clone());
        assert_eq!(of("a").as_deref(), Some("b c"));
        assert_eq!(of("d").as_deref(), Some("e f"));
        assert_eq!((of("g").as_deref(), of("h").as_deref()), (Some(""), Some("ä")));
    }
}
