//! What is known of one process: whether it answers, whether it is ready, since when, and what it has counted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counts::Account;
use super::page::{Flaw, Page};
use crate::model::time::Micros;

/// The most of an answer of `/ready` that is read, bytes.
const READY_BYTES_MAX: usize = 64 * 1024;

/// When a look was taken.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// By the wall clock, µs since the epoch: for people.
    pub us: Micros,
    /// By a clock that does not jump, from the watch's beginning: for rates.
    pub elapsed: Duration,
}

/// What was said to the question for `/metrics`.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing, or not in time.
    Nothing,
    /// Something that is no page.
    Flawed(Flaw),
    /// A page.
    Page(Page),
}

/// What was said to the question for `/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ready {
    ready: bool,
    stopping: bool,
    parts: BTreeMap<String, bool>,
}

impl Ready {
    /// Reads it; absent where it is anything else.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let short = (bytes.len() <= READY_BYTES_MAX).then_some(bytes)?;
        serde_json::from_slice(short).ok()
    }
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does not answer.
    Away,
    /// What it answers is no page of metrics.
    Unreadable,
    /// It answers, and has not said yet whether it is ready.
    Answers,
    /// It may have no traffic.
    NotReady,
    /// It was told to stop, and finishes.
    Stopping,
    /// It may have traffic.
    Ready,
}

impl State {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Unreadable => "unreadable",
            Self::Answers => "answers",
            Self::NotReady => "not ready",
            Self::Stopping => "stopping",
            Self::Ready => "ready",
        }
    }

    /// Whether metrics come from it.
    #[must_use]
    pub const fn is_there(self) -> bool {
        !matches!(self, Self::Away | Self::Unreadable)
    }
}

/// One process.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where it was asked.
    pub url: String,
    /// How it is.
    pub state: State,
    /// When it was first seen so.
    pub since: Micros,
    /// What is wrong with its page, where it is unreadable.
    pub flaw: Option<Flaw>,
    /// Each dependency: whether it is up, and when it was first seen so.
    pub parts: BTreeMap<String, (bool, Micros)>,
    /// What it has counted.
    pub account: Account,
    /// Its latest page, while it is there.
    pub page: Option<Page>,
}

impl Seen {
    /// A process that has not been asked yet.
    #[must_use]
    pub fn new(url: &str, at: At) -> Self {
        Self {
            url: url.to_owned(),
            state: State::Away,
            since: at.us,
            flaw: None,
            parts: BTreeMap::new(),
            account: Account::default(),
            page: None,
        }
    }

    /// Takes what was answered by now.
    pub fn take(&mut self, at: At, answer: Answer, ready: Option<&Ready>) {
        let (flaw, page) = match answer {
            Answer::Nothing => (None, None),
            Answer::Flawed(flaw) => (Some(flaw), None),
            Answer::Page(page) => (None, Some(page)),
        };
        let state = match (&page, &flaw, ready) {
            (None, None, _) => State::Away,
            (None, Some(_), _) => State::Unreadable,
            (Some(_), _, None) => State::Answers,
            (Some(_), _, Some(ready)) if ready.stopping => State::Stopping,
            (Some(_), _, Some(ready)) if ready.ready => State::Ready,
            (Some(_), _, Some(_)) => State::NotReady,
        };
        if state != self.state {
            (self.state, self.since) = (state, at.us);
        }
        let parts = ready.filter(|_| state.is_there()).map(|ready| &ready.parts);
        self.parts = parts
            .into_iter()
            .flatten()
            .map(|(name, up)| {
                let before = self.parts.get(name).filter(|(was, _)| was == up);
                (name.clone(), (*up, before.map_or(at.us, |(_, since)| *since)))
            })
            .collect();
        self.account.take(at.elapsed, page.as_ref());
        (self.flaw, self.page) = (flaw, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: i64) -> At {
        At { us, elapsed: Duration::from_micros(us.unsigned_abs()) }
    }

    fn ready(text: &str) -> Option<Ready> {
        Ready::read(text.as_bytes())
    }

    #[test]
    fn a_state_and_a_dependency_have_their_since() {
        let mut seen = Seen::new("http://a:1", at(1));
        let there = || Answer::Page(Page::default());
        let known = |seen: &Seen| (seen.state, seen.since, seen.parts.get("kafka").copied());
        assert_eq!(known(&seen), (State::Away, 1, None));
        seen.take(at(2), there(), None);
        assert_eq!(known(&seen), (State::Answers, 2, None));
        let fine = ready(r#"{"ready":true,"stopping":false,"parts":{"kafka":true}}"#);
        seen.take(at(3), there(), fine.as_ref());
        seen.take(at(4), there(), fine.as_ref());
        assert_eq!(known(&seen), (State::Ready, 3, Some((true, 3))));
        let down = ready(r#"{"ready":false,"stopping":false,"parts":{"kafka":false,"pg":true}}"#);
        seen.take(at(5), there(), down.as_ref());
        assert_eq!(known(&seen), (State::NotReady, 5, Some((false, 5))));
        seen.take(at(6), Answer::Nothing, down.as_ref());
        assert_eq!(known(&seen), (State::Away, 6, None));
        let flaw = Flaw { line: 3, what: "the value is no number" };
        seen.take(at(7), Answer::Flawed(flaw), fine.as_ref());
        assert_eq!((known(&seen), seen.flaw), ((State::Unreadable, 7, None), Some(flaw)));
        let stopping = ready(r#"{"ready":false,"stopping":true,"parts":{}}"#);
        seen.take(at(8), there(), stopping.as_ref());
        assert_eq!((known(&seen), seen.flaw), ((State::Stopping, 8, None), None));
    }

    #[test]
    fn only_an_answer_of_ours_is_one() {
        for text in ["", "{}", "[]", r#"{"ready":1,"stopping":false,"parts":{}}"#, "<html>"] {
            assert_eq!(ready(text), None, "{text}");
        }
        let long = format!(
            r#"{{"ready":true,"stopping":false,"parts":{{"{}":true}}}}"#,
            "x".repeat(READY_BYTES_MAX)
        );
        assert_eq!(ready(&long), None);
    }
}
