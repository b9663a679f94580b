//! The fourth face of a vendor: how a person's consent is asked for, whose it then is, and how it is given back. Pure:
//! requests are described here and performed by the hydrator.
//!
//! # Why the vendor's user is asked for
//! A webhook names the vendor's id of its user, and nothing else of the person. So a consent is worth nothing until we
//! know that id: some vendors put it into the answer that has the tokens, most have to be asked. It is read by the same
//! bounded reader as every body, and an id that could not stand in a path is none.
//!
//! # Subscriptions
//! Some vendors send webhooks to whatever address their developers' page names; there is nothing to do. Others want a
//! subscription for each kind of record, made by the app for all of its people, and let it end after a while. What is
//! wanted and what is there is compared here ([`steps`]), so that one that died is found in the same way as one that
//! was never made. With some vendors each person has their own, and the same is done for one after the other.

use bytes::Bytes;

use crate::model::time::Micros;
use crate::vendors::ask::Call;
use crate::vendors::wire::hmac::Key;

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Makes.
    Post,
    /// Renews.
    Put,
    /// Withdraws.
    Delete,
}

/// What a request is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The person's access token, as a bearer.
    Person,
    /// The person's access token, as this field of a form that is posted.
    PersonIn(&'static str),
    /// The app's id and secret, in these two headers.
    App([&'static str; 2]),
    /// What stands in its form: it is signed there.
    Form,
}

/// What a vendor's file signs our own requests with, where the vendor wants them signed.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// The app's id.
    pub id: &'a str,
    /// The app's secret, prepared.
    pub key: &'a Key,
    /// When they are signed, s.
    pub now_s: i64,
}

/// A request of the vendor's API, relative to [`crate::vendors::ask::Api::base`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub verb: Verb,
    /// Whether its path begins at the base's host, not below the base's path.
    pub at_host: bool,
    /// Its path and query.
    pub call: Call,
    /// Its body, JSON, where it has one. A call that has a form has that instead.
    pub body: Option<String>,
    /// What it is made with.
    pub by: By,
    /// The statuses that say that what it wants is so; any other says that it is not.
    pub good: &'static [u16],
    /// The member of a 200's JSON that has the status, where the vendor answers 200 whatever happened: it then stands
    /// for the answer's own.
    pub status_in: Option<&'static str>,
}

impl Request {
    /// A request without query and body.
    #[must_use]
    pub fn plain(verb: Verb, path: impl Into<String>, by: By, good: &'static [u16]) -> Self {
        let call = Call::get(path);
        Self { verb, at_host: false, call, body: None, by, good, status_in: None }
    }
}

/// Where the vendor's id of its user stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// In the answer that has the tokens.
    WithTokens,
    /// In the answer to this call, made with the person's token.
    Ask(Call),
}

/// How consent is had, and given back.
pub trait Consent: Sync {
    /// Where the person is asked; configuration may name another (`authorise_url`).
    fn authorise(&self) -> &'static str;

    /// Where a code is exchanged for tokens; configuration may name another (`renewal_url`).
    fn token(&self) -> &'static str;

    /// What is asked for.
    fn scopes(&self) -> &'static [&'static str];

    /// What the person's page is asked for besides (Google gives no refresh token without).
    fn besides(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Whether the vendor checks that who exchanges a code is who asked for it (RFC 7636, S256).
    fn pkce(&self) -> bool {
        false
    }

    /// Whether the exchange names the app by `Authorization: Basic`; else in its form (RFC 6749, §2.3.1).
    fn basic(&self) -> bool {
        false
    }

    /// Where the vendor's id of its user stands.
    fn who(&self) -> Who;

    /// That id, of the body that [`Consent::who`] names; none where it has no such id.
    fn user(&self, body: &[u8]) -> Option<String>;

    /// What must be done once before the vendor sends anything of this person; `label` is our name of the connection.
    fn register(&self, _label: &str) -> Option<Request> {
        None
    }

    /// What gives the consent of this user back: its tokens end, and its webhooks.
    fn withdraw(&self, _vendor_user: &str) -> Option<Request> {
        None
    }

    /// The same where it takes requests that we sign: the one after these answers; none where they are all.
    fn withdraw_signed(
        &self,
        _vendor_user: &str,
        _signer: &Signer<'_>,
        _answers: &[Bytes],
    ) -> Option<Request> {
        None
    }

    /// Whether that goes to where tokens are exchanged, and not to the API.
    fn withdraws_at_token(&self) -> bool {
        false
    }

    /// Its subscriptions, where webhooks need them.
    fn subscriptions(&self) -> Option<&'static dyn Subscriptions> {
        None
    }

    /// Its subscriptions, where each person has their own: made and listed with the person's token ([`By::Person`]).
    fn own_subscriptions(&self) -> Option<&'static dyn Subscriptions> {
        None
    }
}

/// What a subscription is for: a kind of change of a kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The kind of change.
    pub event: &'static str,
    /// The kind of record.
    pub record: &'static str,
}

/// A subscription as the vendor lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The vendor's id of it.
    pub id: String,
    /// Where its webhooks go.
    pub callback: String,
    /// The kind of change.
    pub event: String,
    /// The kind of record.
    pub record: String,
    /// When it ends, µs; absent where that cannot be read, and it is then taken to end at once.
    pub ends_at: Option<Micros>,
}

/// How a vendor's subscriptions are kept.
pub trait Subscriptions: Sync {
    /// All of them that we need.
    fn wanted(&self) -> Vec<Subject>;

    /// Asks for what is there.
    fn list(&self) -> Request;

    /// What is there; nothing where the answer is no list of them.
    fn read(&self, body: &[u8]) -> Option<Vec<Subscription>>;

    /// Makes one. The vendor then asks the callback for a handshake, which must name `token`.
    fn make(&self, subject: Subject, callback: &str, token: &str) -> Request;

    /// Lets one live on.
    fn renew(&self, id: &str) -> Option<Request>;

    /// Ends one.
    fn end(&self, id: &str) -> Option<Request>;

    /// How long before its end one is renewed, µs.
    fn ahead_us(&self) -> Micros;
}

/// What is to be done with a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none: it was never made, or it died.
    Make(Subject),
    /// It ends soon; what it is for, should it have died before it is renewed.
    Renew(String, Subject),
    /// It is there twice, or sends nothing that we read.
    End(String),
}

/// What makes of the subscriptions that are there those that are wanted. Those with another callback are not ours.
#[must_use]
pub fn steps(
    vendor: &dyn Subscriptions,
    there: &[Subscription],
    callback: &str,
    now_us: Micros,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut left: Vec<&Subscription> =
        there.iter().filter(|one| one.callback == callback).collect();
    for subject in vendor.wanted() {
        let is = |one: &&Subscription| one.event == subject.event && one.record == subject.record;
        let (mut found, others): (Vec<_>, Vec<_>) = left.into_iter().partition(is);
        left = others;
        // Of two the one that lives longest.
        found.sort_by_key(|one| one.ends_at);
        let ends_at = |one: &Subscription| one.ends_at.unwrap_or(now_us);
        match found.pop() {
            None => steps.push(Step::Make(subject)),
            Some(one) if ends_at(one).saturating_sub(now_us) < vendor.ahead_us() => {
                steps.push(Step::Renew(one.id.clone(), subject));
            }
            Some(_) => {}
        }
        steps.extend(found.into_iter().map(|one| Step::End(one.id.clone())));
    }
    steps.extend(left.into_iter().map(|one| Step::End(one.id.clone())));
    steps
}

/// Whether an id of a vendor's can stand for its user: short, and of characters that need no escape anywhere.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.')
}
