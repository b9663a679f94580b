//! An independent checker: what must be in the topics and in Postgres, worked out again, naively, from the log.
//!
//! It shares [`crate::model`] with the pipeline and nothing else. It takes the whole of `normalised-records`, folds
//! the records of each id one after the other with plain lists (samples: `samples`, nights: `night`), and
//! compares: each revision told once, with the bytes that Postgres has, in the order of cause; each record
//! explained. The simulator asks it after every run, and `audit` asks the same one about real topics and a real database.

mod night;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use samples::Samples;

use crate::model::contract::{Topic, header};
use crate::model::event::{BiometricEvent, Content, Merge, NormalisedRecord, Op};
use crate::model::id::{EventId, Source};
use crate::model::record::Record;

/// A vendor's version further after the receipt than this is not believed (`design.md` §5), µs.
const AHEAD_US: i64 = 15 * 60 * 1_000_000;

/// Where an input stands: partition and offset in `normalised-records`.
type Cause = (i32, i64);

/// What is wrong, one line each; nothing, where all is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// It should be in a topic and is not.
    pub lost: Vec<String>,
    /// It is there more than once, with the same bytes.
    pub doubled: Vec<String>,
    /// One (`event_id`, revision) stands for two contents.
    pub differing: Vec<String>,
    /// A reader sees it before what came before it.
    pub reordered: Vec<String>,
    /// It is in a topic, and no input explains it.
    pub phantom: Vec<String>,
    /// Postgres and the topic do not say the same.
    pub apart: Vec<String>,
    /// An input that ended as nothing.
    pub unexplained: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lines().next().is_none()
    }

    /// Whether nothing is wrong but doubles with the same bytes: the stated limit of `exactly_once.md` §4.
    #[must_use]
    pub fn is_at_least_once(&self) -> bool {
        Self { doubled: Vec::new(), ..self.clone() }.is_clean()
    }

    /// What is wrong, with its kind.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let kinds = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("two contents", &self.differing),
            ("reordered", &self.reordered),
            ("phantom", &self.phantom),
            ("Postgres and topic differ", &self.apart),
            ("unexplained", &self.unexplained),
        ];
        kinds
            .into_iter()
            .flat_map(|(kind, lines)| lines.iter().map(move |line| (kind, line.as_str())))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return out.write_str("0 lost, 0 doubled, 0 reordered, 0 unexplained");
        }
        for (at, (kind, line)) in self.lines().enumerate() {
            if at > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{kind}: {line}")?;
        }
        Ok(())
    }
}

/// A revision that must be told.
#[derive(Debug)]
struct Told {
    op: Op,
    content: Content,
    source: Source,
    cause: Cause,
}

/// An event as a reader saw it.
#[derive(Debug)]
struct Seen {
    event: BiometricEvent,
    bytes: Bytes,
    key: String,
    topic: Topic,
    partition: i32,
    offset: i64,
}

/// A record's place in the order of its id.
type Place = (i64, Source, i32);

fn place(record: &NormalisedRecord) -> Place {
    let at = match record.version {
        Some(version) if version <= record.received_at.saturating_add(AHEAD_US) => version,
        Some(_) | None => record.received_at,
    };
    (at, record.source, record.normaliser)
}

/// The checker. Everything is given to it first, in any order; then it is asked once.
#[derive(Debug, Default)]
pub struct Oracle {
    inputs: BTreeMap<Cause, Option<NormalisedRecord>>,
    seen: Vec<Seen>,
    unreadable: Vec<String>,
    rows: BTreeMap<(EventId, i32), Bytes>,
    decisions: BTreeSet<Cause>,
    letters: BTreeMap<Cause, usize>,
    report: Report,
}

impl Oracle {
    /// One that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A record of `normalised-records`; absent where its value cannot be read.
    pub fn input(&mut self, partition: i32, offset: i64, record: Option<NormalisedRecord>) {
        self.inputs.insert((partition, offset), record);
    }

    /// A record of an output topic as a `read_committed` reader gets it, in the order of its partition.
    pub fn output(
        &mut self,
        topic: Topic,
        partition: i32,
        offset: i64,
        event: Option<BiometricEvent>,
        bytes: &Bytes,
    ) {
        match event {
            Some(event) => {
                let key = format!("{}:{}", event.user_id, event.device_type);
                let bytes = bytes.clone();
                self.seen.push(Seen { event, bytes, key, topic, partition, offset });
            }
            None => self.unreadable.push(format!("{} {partition} {offset}", topic.name())),
        }
    }

    /// A dead letter of decide, known by the coordinates of its input; others are not looked at.
    pub fn dead_letter(&mut self, record: &Record) {
        let text = |name| record.headers.text(name);
        if text(header::ORIGINAL_TOPIC) != Some(Topic::NormalisedRecords.name()) {
            return;
        }
        let partition = text(header::ORIGINAL_PARTITION).and_then(|text| text.parse().ok());
        let offset = text(header::ORIGINAL_OFFSET).and_then(|text| text.parse().ok());
        if let (Some(partition), Some(offset)) = (partition, offset) {
            *self.letters.entry((partition, offset)).or_default() += 1;
        }
    }

    /// A revision in Postgres, with the bytes that it says were sent.
    pub fn row(&mut self, event_id: EventId, revision: i32, bytes: &Bytes) {
        self.rows.insert((event_id, revision), bytes.clone());
    }

    /// Postgres has a decision on this input.
    pub fn decision(&mut self, partition: i32, offset: i64) {
        self.decisions.insert((partition, offset));
    }

    /// Compares what is with what must be.
    #[must_use]
    pub fn verdict(mut self) -> Report {
        let expected = self.expect();
        self.check_topics(&expected);
        self.check_order(&expected);
        self.check_rows();
        self.check_inputs(&expected);
        self.report
    }

    // ── what must be ───────────────────────────────────────────────────────────────────────────────────────

    /// Every revision that must be told, by id and number.
    fn expect(&mut self) -> BTreeMap<EventId, Expected> {
        let mut expected: BTreeMap<EventId, Expected> = BTreeMap::new();
        let mut samples: BTreeMap<(String, String), Samples> = BTreeMap::new();
        for (cause, record) in &self.inputs {
            let Some(record) = record.as_ref().filter(|_| !self.letters.contains_key(cause)) else {
                continue;
            };
            let of_type = (record.connection_id.to_string(), record.record_type.clone());
            match record.merge {
                Merge::Replace => {
                    expected.entry(record.event_id).or_default().replace(*cause, record);
                }
                Merge::Union => {
                    samples.entry(of_type).or_default().union(*cause, record, &mut expected);
                }
                Merge::Removal => {
                    samples.entry(of_type).or_default().remove(*cause, record, &mut expected);
                }
            }
        }
        expected
    }

    // ── what is ────────────────────────────────────────────────────────────────────────────────────────────

    fn check_topics(&mut self, expected: &BTreeMap<EventId, Expected>) {
        let mut seen: BTreeMap<(EventId, i32), Vec<&Seen>> = BTreeMap::new();
        for event in &self.seen {
            seen.entry((event.event.event_id, event.event.revision)).or_default().push(event);
        }
        let report = &mut self.report;
        report.phantom.append(&mut self.unreadable);
        for ((id, revision), times) in &seen {
            let Some(first) = times.first() else { continue };
            if times.iter().any(|again| again.bytes != first.bytes) {
                report.differing.push(format!("{id} revision {revision}"));
            } else if times.len() > 1 {
                report.doubled.push(format!("{id} revision {revision}, {} times", times.len()));
            }
            let known = expected.get(id).is_some_and(|all| all.explains(&first.event));
            if !known {
                let Seen { topic, partition, offset, .. } = first;
                let at = format!("{} {partition} {offset}", topic.name());
                report.phantom.push(format!("{id} revision {revision} at {at}"));
            }
        }
        for (id, all) in expected {
            let count = all.told.len();
            let last = seen.range((*id, 0)..=(*id, i32::MAX)).next_back();
            let Some(newest) = all.newest() else { continue };
            if all.partitions.len() > 1 {
                // Two writers: which numbers there are depends on who came first; how it ends does not.
                let ends = last.and_then(|(_, times)| times.first()).is_some_and(|seen| {
                    seen.event.op == newest.op && seen.event.content == newest.content
                });
                if !ends {
                    report.lost.push(format!("{id}: it does not end as its newest record"));
                }
                continue;
            }
            for at in 1..=count {
                let revision = i32::try_from(at).unwrap_or(i32::MAX);
                if !seen.contains_key(&(*id, revision)) {
                    report.lost.push(format!("{id} revision {revision} of {count}"));
                }
            }
        }
    }

    /// A reader of one partition sees what has one key in the order of its causes.
    fn check_order(&mut self, expected: &BTreeMap<EventId, Expected>) {
        let mut latest: BTreeMap<(Topic, i32, &str), (Cause, EventId, i32)> = BTreeMap::new();
        let mut done = BTreeSet::new();
        for seen in &self.seen {
            let (id, revision) = (seen.event.event_id, seen.event.revision);
            let number = usize::try_from(revision).unwrap_or(0);
            let told = expected.get(&id).filter(|all| all.partitions.len() == 1);
            let told = told.and_then(|all| all.told.get(number.checked_sub(1)?));
            // A double is reported as one; its second place says nothing about order.
            let Some(told) = told.filter(|_| done.insert((id, revision))) else { continue };
            let stream = (seen.topic, seen.partition, seen.key.as_str());
            if let Some((before, other, number)) = latest.get(&stream)
                && before.0 == told.cause.0
                && *before > told.cause
            {
                let line = format!("{id} revision {revision} after {other} revision {number}");
                self.report.reordered.push(line);
            }
            latest.insert(stream, (told.cause, id, revision));
        }
    }

    fn check_rows(&mut self) {
        let mut told: BTreeMap<(EventId, i32), &Bytes> = BTreeMap::new();
        for seen in &self.seen {
            told.entry((seen.event.event_id, seen.event.revision)).or_insert(&seen.bytes);
        }
        let report = &mut self.report;
        for ((id, revision), bytes) in &told {
            match self.rows.get(&(*id, *revision)) {
                None => report.apart.push(format!("{id} revision {revision}: no row")),
                Some(row) if row != *bytes => {
                    report.apart.push(format!("{id} revision {revision}: other bytes"));
                }
                Some(_) => {}
            }
        }
        for (id, revision) in self.rows.keys().filter(|key| !told.contains_key(key)) {
            report.apart.push(format!("{id} revision {revision}: a row and no event"));
        }
    }

    fn check_inputs(&mut self, expected: &BTreeMap<EventId, Expected>) {
        let told: BTreeSet<Cause> =
            expected.values().flat_map(|all| all.told.iter().map(|told| told.cause)).collect();
        for (cause, record) in &self.inputs {
            let letters = self.letters.get(cause).copied().unwrap_or(0);
            let at = format!("{} {}", cause.0, cause.1);
            if letters > 1 {
                self.report.doubled.push(format!("the dead letter of {at}, {letters} times"));
            }
            if record.is_none() && letters == 0 {
                self.report.lost.push(format!("the dead letter of {at}"));
            }
            let explained = letters > 0 || told.contains(cause) || self.decisions.contains(cause);
            if !explained {
                self.report.unexplained.push(at);
            }
        }
        let unknown = |cause: &&Cause| !self.inputs.contains_key(cause);
        for cause in self.letters.keys().filter(unknown) {
            self.report.phantom.push(format!("a dead letter of {} {}", cause.0, cause.1));
        }
    }
}

/// The revisions of one id.
#[derive(Debug, Default)]
struct Expected {
    told: Vec<Told>,
    /// All that was said, for ids that two partitions have.
    said: Vec<(Place, Told)>,
    standing: Option<Place>,
    partitions: BTreeSet<i32>,
}

impl Expected {
    fn tell(&mut self, cause: Cause, record: &NormalisedRecord, content: Content) {
        self.partitions.insert(cause.0);
        self.told.push(Told { op: record.op, content, source: record.source, cause });
    }

    fn replace(&mut self, cause: Cause, record: &NormalisedRecord) {
        let at = place(record);
        let content = record.content.clone();
        let said = Told { op: record.op, content, source: record.source, cause };
        self.said.push((at, said));
        self.partitions.insert(cause.0);
        let same = self
            .told
            .last()
            .is_some_and(|last| last.op == record.op && last.content == record.content);
        let above = self.standing.is_none_or(|standing| at >= standing);
        if above {
            self.standing = Some(at);
        }
        if above && !same {
            self.tell(cause, record, record.content.clone());
        }
    }

    /// What it must end as.
    fn newest(&self) -> Option<&Told> {
        let by_place = self.said.iter().max_by_key(|(at, told)| (*at, told.cause));
        by_place.map(|(_, told)| told).or_else(|| self.told.last())
    }

    /// Whether an event of this id is one that must be told; of an id of two partitions, one that can be.
    fn explains(&self, event: &BiometricEvent) -> bool {
        let fits = |told: &Told| {
            told.op == event.op && told.source == event.source && told.content == event.content
        };
        if self.partitions.len() > 1 {
            return self.said.iter().any(|(_, told)| fits(told));
        }
        let number = usize::try_from(event.revision).unwrap_or(0);
        number.checked_sub(1).and_then(|at| self.told.get(at)).is_some_and(fits)
    }
}
