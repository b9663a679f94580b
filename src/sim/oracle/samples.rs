//! Samples, folded naively: what each record adds, replaces and takes away, and which nights are others for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cause, Expected, Place, night, place};
use crate::model::event::{Content, NormalisedRecord, Op, Reading, flag};
use crate::model::id::{ConnectionId, EventId};
use crate::model::time::Day;

/// The samples of one type of one connection.
#[derive(Debug, Default)]
pub(super) struct Samples {
    buckets: BTreeMap<EventId, Bucket>,
    /// Removed before they came.
    waiting: BTreeSet<String>,
    /// What was told of each night: its source, its date.
    nights: BTreeMap<(String, i32), Option<Content>>,
}

#[derive(Debug, Default)]
struct Bucket {
    record_id: String,
    /// By id; gone, or what it says, at which offset, and where that stands.
    samples: BTreeMap<String, Option<Said>>,
}

#[derive(Clone, Debug)]
struct Said {
    reading: Reading,
    offset_s: Option<i32>,
    at: Place,
}

/// All that must be told.
type Told = BTreeMap<EventId, Expected>;

impl Samples {
    pub(super) fn union(&mut self, cause: Cause, record: &NormalisedRecord, expected: &mut Told) {
        let bucket = self.buckets.entry(record.event_id).or_default();
        bucket.record_id.clone_from(&record.record_id);
        let (mut added, mut replaced) = (Vec::new(), BTreeSet::new());
        let is_night = record.record_type == night::SAMPLES;
        let offset_s = record.content.start_offset_s.filter(|_| is_night);
        for reading in &record.content.readings {
            let Some(id) = reading.sample_id.clone() else { continue };
            let said = Said { reading: reading.clone(), offset_s, at: place(record) };
            match bucket.samples.get(&id) {
                Some(None) => continue,
                Some(Some(known)) => {
                    let both = [known, &said].map(|said| &said.reading.flags);
                    let derived =
                        |flags: &&Vec<String>| flags.iter().any(|f| f == flag::DERIVED_ID);
                    if !both.iter().all(derived) || !above(said.at, known.at) {
                        continue;
                    }
                    let same = known.reading == *reading && known.offset_s == offset_s;
                    bucket.samples.insert(id.clone(), Some(said));
                    if same {
                        continue;
                    }
                    replaced.insert(id);
                }
                None if self.waiting.remove(&id) => {
                    bucket.samples.insert(id, None);
                    continue;
                }
                None => {
                    bucket.samples.insert(id, Some(said));
                }
            }
            added.push(reading.clone());
        }
        if added.is_empty() {
            return;
        }
        let skewed = |reading: &&Reading| reading.flags.iter().any(|name| name == flag::CLOCK_SKEW);
        let all = added.iter().all(|reading| skewed(&reading));
        let dated = || added.iter().filter(|reading| all || !skewed(reading));
        let start_at = dated().map(|reading| reading.start_at).min();
        let end_at = dated().map(|reading| reading.end_at.unwrap_or(reading.start_at)).max();
        let removed = replaced.into_iter().collect();
        let content =
            Content { start_at, end_at, readings: added, removed, ..record.content.clone() };
        expected.entry(record.event_id).or_default().tell(cause, record, content);
        self.tell_nights(cause, record, &[record.event_id], expected);
    }

    pub(super) fn remove(&mut self, cause: Cause, record: &NormalisedRecord, expected: &mut Told) {
        let mut gone: BTreeMap<EventId, BTreeSet<String>> = BTreeMap::new();
        for id in record.content.removed.iter().map(|id| id.to_ascii_lowercase()) {
            let holders =
                self.buckets.iter_mut().filter(|(_, bucket)| bucket.samples.contains_key(&id));
            // The newest day first: natural keys begin with it.
            let day = |bucket: &Bucket| bucket.record_id.get(..10).unwrap_or_default().to_owned();
            match holders.max_by(|one, other| (day(one.1), one.0).cmp(&(day(other.1), other.0))) {
                Some((event_id, bucket)) => {
                    if bucket.samples.insert(id.clone(), None).is_some_and(|was| was.is_some()) {
                        gone.entry(*event_id).or_default().insert(id);
                    }
                }
                None => {
                    self.waiting.insert(id);
                }
            }
        }
        let changed: Vec<EventId> = gone.keys().copied().collect();
        for (event_id, ids) in gone {
            let content = Content { removed: ids.into_iter().collect(), ..nothing() };
            // The bucket goes on, without them.
            let record = NormalisedRecord { op: Op::Upsert, ..record.clone() };
            expected.entry(event_id).or_default().tell(cause, &record, content);
        }
        self.tell_nights(cause, record, &changed, expected);
    }

    /// Every night for days around what changed, made anew; those that are others are told.
    fn tell_nights(
        &mut self,
        cause: Cause,
        record: &NormalisedRecord,
        changed: &[EventId],
        expected: &mut Told,
    ) {
        if record.record_type != night::SAMPLES {
            return;
        }
        for id in changed {
            let key = self.buckets.get(id).and_then(|bucket| split(&bucket.record_id));
            let Some((day, source)) = key else { continue };
            for date in day - 3..=day + 3 {
                let content = night::night(date, self.around(&source, date));
                let content = content.map(|content| named(content, &source));
                let told = self.nights.entry((source.clone(), date)).or_insert(None);
                if *told == content {
                    continue;
                }
                told.clone_from(&content);
                let op = if content.is_some() { Op::Upsert } else { Op::Delete };
                let record = NormalisedRecord { op, ..record.clone() };
                let id = session(record.connection_id, date, &source);
                let content = content.unwrap_or_else(nothing);
                expected.entry(id).or_default().tell(cause, &record, content);
            }
        }
    }

    /// What one source says of the three days around a date.
    fn around(&self, source: &str, date: i32) -> Vec<(Reading, Option<i32>)> {
        let near = |bucket: &&Bucket| {
            split(&bucket.record_id)
                .is_some_and(|(day, of)| of == source && (date - 1..=date + 1).contains(&day))
        };
        let buckets = self.buckets.values().filter(near);
        let said = buckets.flat_map(|bucket| bucket.samples.values().flatten());
        said.map(|said| (said.reading.clone(), said.offset_s)).collect()
    }
}

fn above(one: Place, other: Place) -> bool {
    if one.1 == other.1 { one.2 > other.2 } else { one > other }
}

fn split(record_id: &str) -> Option<(i32, String)> {
    let (day, source) = record_id.split_once('|')?;
    Some((Day::parse(day)?.0, source.to_owned()))
}

fn session(connection: ConnectionId, date: i32, source: &str) -> EventId {
    EventId::derive(connection, "sleep", &format!("{}|{source}", Day(date)))
}

fn named(content: Content, source: &str) -> Content {
    let mut parts =
        source.splitn(2, '|').map(str::to_owned).map(|part| Some(part).filter(|p| !p.is_empty()));
    Content { app: parts.next().flatten(), device_model: parts.next().flatten(), ..content }
}

fn nothing() -> Content {
    Content {
        offset_provenance: "unknown".to_owned(),
        state: "final".to_owned(),
        ..Content::default()
    }
}
