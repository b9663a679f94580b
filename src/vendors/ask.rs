//! The third face of a vendor: what to ask its API, and what an answer means. Pure: a call is described here and
//! performed by the hydrator.
//!
//! # A record in several answers
//! What a vendor calls one record may say nothing by itself: a recovery of WHOOP has neither a time nor a day, they
//! are its sleep's. So a record may take several calls ([`Api::then`]), and what is archived is one body: the one
//! answer as it came, or several as the elements of a JSON array, each as it came ([`joined`]). Nothing of what an
//! answer says has to be carried from call to call in a header or a row.
//!
//! # What an answer means
//! Mostly its status says it. It may depend on what was asked for: an empty answer to one type of record is "not yet",
//! and to another "there is none" ([`Api::answer_to`]). And some vendors answer 200 whatever happened, and say in the
//! body what it was: that is judged when the body is whole ([`Api::judge`]), and what it judges to be no document is
//! never archived as one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::time::Micros;
use crate::vendors::Named;
use crate::vendors::history::{Collection, Poll};

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

impl Need<'_> {
    /// No record at all: what is asked is whose a token is, or whether there is anything to ask for.
    pub const NO_RECORD: Self = Self { record_type: "", record_id: "", vendor_user: "" };
}

/// A request of the vendor's API, a GET or the POST of a form: relative to [`Api::base`], so that no answer of a vendor
/// chooses a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The path, begun by `/`, every part of it percent-encoded.
    pub path: String,
    /// The query's parameters, not encoded yet.
    pub query: Vec<(&'static str, String)>,
    /// The form that is posted, not encoded yet; absent where it is a GET.
    pub form: Option<Vec<(&'static str, String)>>,
}

impl Call {
    /// A GET of this path, without a query.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::get_with(path, Vec::new())
    }

    /// A GET of this path with these parameters.
    #[must_use]
    pub fn get_with(path: impl Into<String>, query: Vec<(&'static str, String)>) -> Self {
        Self { path: path.into(), query, form: None }
    }

    /// A POST of this form to this path.
    #[must_use]
    pub fn post(path: impl Into<String>, form: Vec<(&'static str, String)>) -> Self {
        Self { path: path.into(), query: Vec::new(), form: Some(form) }
    }
}

/// A record that we have, as far as it says whether an answer should name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The vendor's id.
    pub record_id: String,
    /// Its start, µs.
    pub start_at: Option<Micros>,
    /// The offset at its start, s.
    pub start_offset_s: Option<i32>,
    /// Its end, µs.
    pub end_at: Option<Micros>,
}

/// Whose calls a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// All of ours.
    App,
    /// Those for one connection.
    User,
    /// Those of ours that ask for history: a share of what all have, so that what is new always has the rest.
    History,
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
    /// A part of the record is in the answers, and more of it may come ([`Api::together`] alone says so): they are kept,
    /// and it is asked for again as [`Api::again_s`] says, until that gives up. What is there does not wait for the rest.
    Partly,
    /// There is no such record, and that is an answer, not a delay: the row is done, and nothing is archived.
    Nothing,
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
    /// More than the vendor gathers in the time that it has for an answer: a window is divided, because the whole of it
    /// would take as long again. What cannot be divided is asked for again later.
    TooMuch,
}

/// What a vendor tells of its quota in an answer's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How many calls are left in the window.
    pub left: u32,
    /// In how many seconds the window ends.
    pub reset_s: u32,
}

/// How a refresh token is exchanged for another pair: a POST of a form (RFC 6749, §6) with the client's id and secret
/// in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Where; configuration may name another.
    pub url: &'static str,
    /// The scope that must be asked for again, where the vendor wants one.
    pub scope: Option<&'static str>,
}

/// How a vendor's token endpoint differs from RFC 6749. The default is the standard's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// What stands in its forms besides.
    pub also: &'static [(&'static str, &'static str)],
    /// Where its answers are wrapped, how.
    pub wrapped: Option<Wrapped>,
}

/// An answer that has its status inside: `{"status": 0, "body": {…}}`, come with 200 whatever happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// The member that has the status.
    pub status: &'static str,
    /// The status of success.
    pub good: i64,
    /// The member that has what the standard's answer is.
    pub body: &'static str,
    /// The statuses that say that the code or the refresh token is not taken.
    pub refused: &'static [i64],
    /// The statuses that say that there were too many calls.
    pub limited: &'static [i64],
}

/// With what calls are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum With {
    /// The token of the person whose records they ask for, as a bearer's (RFC 6750).
    #[default]
    Token,
    /// The app's own id and key, whoever is asked for: no person has a token, and the key is in the configuration.
    Key(AppKey),
}

/// In which headers (lower case) the app's own credentials stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppKey {
    /// Its id.
    pub id: &'static str,
    /// Its key.
    pub key: &'static str,
}

/// A vendor's API.
pub trait Api: Sync {
    /// Scheme and host, and the path that all calls share; configuration may name another.
    fn base(&self) -> &'static str;

    /// With what its calls are made. Where it is the app's own key, nothing is asked before there is one, and an
    /// [`Answer::Unauthorised`] is everybody's: nothing is given up for it.
    fn with(&self) -> With {
        With::Token
    }

    /// The call that fetches a record; none for a type that the API does not have.
    fn ask(&self, need: &Need<'_>) -> Option<Call>;

    /// The call after these answers, each a [`Answer::Document`], of a record that takes more than one; nothing where
    /// they are all, or where they do not say what to ask next: [`crate::vendors::Vendor::document`] then says what is
    /// wrong with them. Each call is counted by the quotas, and each answer has its own meaning: one that is not there
    /// yet ends the attempt.
    fn then(&self, _need: &Need<'_>, _answers: &[Bytes]) -> Option<Call> {
        None
    }

    /// Of which records it must be said what we have ([`crate::model::contract::header::HELD`]): their type, and from when
    /// to when they were measured, at least. For vendors that say that something is gone and not what.
    fn held(&self, _need: &Need<'_>) -> Option<(&'static str, Micros, Micros)> {
        None
    }

    /// What an answer of this status means.
    fn answer(&self, status: u16, headers: &dyn Named) -> Answer {
        usual(status, headers)
    }

    /// What an answer of this status means to who asked for this record.
    fn answer_to(&self, _need: &Need<'_>, status: u16, headers: &dyn Named) -> Answer {
        self.answer(status, headers)
    }

    /// What a whole body means whose status says [`Answer::Document`]: for vendors that say in it what others say by
    /// their status.
    fn judge(&self, _need: &Need<'_>, _body: &[u8]) -> Answer {
        Answer::Document
    }

    /// What all answers of a record mean together, each a [`Answer::Document`] and none to follow: for vendors that
    /// answer a window in which nothing is yet as they answer one in which there is nothing.
    fn together(&self, _need: &Need<'_>, _answers: &[Bytes]) -> Answer {
        Answer::Document
    }

    /// Whose calls an [`Answer::Limited`] with these headers stops.
    fn limits(&self, _headers: &dyn Named) -> Per {
        Per::App
    }

    /// Whether it gathers an answer while we wait, and may cut that off: one that does not come in time is then
    /// [`Answer::TooMuch`], too.
    fn cuts_off(&self) -> bool {
        false
    }

    /// What it tells of its quota.
    fn told(&self, _headers: &dyn Named) -> Option<Told> {
        None
    }

    /// How many seconds after the `attempt`-th [`Answer::NotYet`] or [`Answer::Partly`] in a row (from 1) it is asked
    /// again; none gives up: what was never there, or the rest of what was.
    fn again_s(&self, attempt: u32) -> Option<u32>;

    /// How its tokens are renewed; none where they cannot be.
    fn renewal(&self) -> Option<Renewal> {
        None
    }

    /// How its token endpoint is asked and answers, where that is not the standard's way.
    fn manner(&self) -> Manner {
        Manner::default()
    }

    /// The documented limits, and the share of them that history has.
    fn quotas(&self) -> &'static [Quota];

    /// What it has of the time before a person connected: [`Api::ask`] and [`Api::then`] know these types of records, and
    /// their body is read by [`crate::vendors::Vendor::document`] as pages of what they collect.
    fn history(&self) -> &'static [Collection] {
        &[]
    }

    /// What it has and never announces; [`Api::ask`] knows these types of records by their day.
    fn polls(&self) -> &'static [Poll] {
        &[]
    }
}

/// What an answer of this status means to most vendors.
#[must_use]
pub fn usual(status: u16, headers: &dyn Named) -> Answer {
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

/// The seconds of a `Retry-After` header; a date there is not read.
#[must_use]
pub fn retry_after_s(headers: &dyn Named) -> Option<u32> {
    number(headers, "retry-after")
}

/// The number of a header that stands there once; nothing where it is anything else.
#[must_use]
pub fn number(headers: &dyn Named, name: &str) -> Option<u32> {
    match headers.first_two(name) {
        [Some(value), None] => std::str::from_utf8(value).ok()?.trim().parse().ok(),
        _ => None,
    }
}

/// The body of a record: its answer, or the JSON array of several. Every byte of an answer stands in it as it came.
#[must_use]
pub fn joined(answers: &[Bytes]) -> Bytes {
    if let [one] = answers {
        return one.clone();
    }
    let mut body = Vec::with_capacity(answers.iter().map(|one| one.len() + 1).sum::<usize>() + 1);
    body.push(b'[');
    for (at, answer) in answers.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(answer);
    }
    body.push(b']');
    Bytes::from(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_answers_are_one_body_and_one_is_itself() {
        let [one, two] = [r#"{"a": 1}"#, "[2]"].map(Bytes::from);
        assert_eq!(joined(std::slice::from_ref(&one)), one);
        assert_eq!(joined(&[one, two]), Bytes::from(r#"[{"a": 1},[2]]"#));
        assert_eq!(joined(&[]), Bytes::from("[]"));
    }

    #[test]
    fn a_number_of_a_header_is_plain_and_stands_there_once() {
        let of = |values: &[&str]| -> Vec<(String, Vec<u8>)> {
            values.iter().map(|value| ("retry-after".into(), value.as_bytes().to_vec())).collect()
        };
        assert_eq!(retry_after_s(&of(&["17"])), Some(17));
        for values in [&[][..], &["17", "17"], &["-1"], &["Sat, 21 Nov 2026 12:00:00 GMT"]] {
            assert_eq!(retry_after_s(&of(values)), None, "{values:?}");
        }
    }
}
