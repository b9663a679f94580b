//! The third face of a vendor: what to ask its API, and what an answer means. Pure: a call is described here and
//! performed by the hydrator.

use crate::vendors::Named;

/// A record that a notification named.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Our name of its type.
    pub record_type: &'a str,
    /// The vendor's id.
    pub record_id: &'a str,
    /// The vendor's user.
    pub vendor_user: &'a str,
}

/// A GET request of the vendor's API: relative to [`Api::base`], so that no answer of a vendor chooses a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The path, begun by `/`, every part of it percent-encoded.
    pub path: String,
    /// The query's parameters, not encoded yet.
    pub query: Vec<(&'static str, String)>,
}

/// Whose calls a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// All of ours.
    App,
    /// Those for one connection.
    User,
}

/// So many calls in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whose.
    pub per: Per,
    /// The window, seconds.
    pub window_s: u32,
    /// The most calls of one window.
    pub calls: u32,
}

/// What an answer's status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The record is in the body.
    Document,
    /// The record is not there yet: again later, as [`Api::again_s`] says.
    NotYet,
    /// The token is not taken: refresh it once, then the connection has to be made anew.
    Unauthorised,
    /// The person withdrew what this needs; nothing mends it but consent.
    Forbidden,
    /// Too many calls: not before so many seconds, where the vendor says so.
    Limited(Option<u32>),
    /// The vendor is in trouble: again later.
    Unavailable,
    /// A request that will be refused again: given up.
    Refused,
}

/// What a vendor tells of its quota in an answer's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How many calls are left in the window.
    pub left: u32,
    /// In how many seconds the window ends.
    pub reset_s: u32,
}

/// A vendor's API.
pub trait Api: Sync {
    /// Scheme and host, and the path that all calls share; configuration may name another.
    fn base(&self) -> &'static str;

    /// The call that fetches a record; none for a type that the API does not have.
    fn ask(&self, need: &Need<'_>) -> Option<Call>;

    /// What an answer of this status means.
    fn answer(&self, status: u16, headers: &dyn Named) -> Answer {
        match status {
            200..=299 => Answer::Document,
            401 => Answer::Unauthorised,
            403 => Answer::Forbidden,
            404 => Answer::NotYet,
            408 | 500..=599 => Answer::Unavailable,
            429 => Answer::Limited(retry_after_s(headers)),
            _ => Answer::Refused,
        }
    }

    /// What it tells of its quota.
    fn told(&self, _headers: &dyn Named) -> Option<Told> {
        None
    }

    /// How many seconds after the `attempt`-th [`Answer::NotYet`] in a row (from 1) it is asked again; none gives up.
    fn again_s(&self, attempt: u32) -> Option<u32>;

    /// The documented limits.
    fn quotas(&self) -> &'static [Quota];
}

/// The seconds of a `Retry-After` header; a date there is not read.
fn retry_after_s(headers: &dyn Named) -> Option<u32> {
    match headers.first_two("retry-after") {
        [Some(value), None] => std::str::from_utf8(value).ok()?.trim().parse().ok(),
        _ => None,
    }
}
