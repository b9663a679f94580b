//! Samples that gather by their id, samples that are gone, and the sessions that are made of them.
//!
//! What becomes of one sample is [`super::bucket`]'s; here a record becomes revisions. A bucket's revision says what it
//! adds and what it takes away (`model/event.rs` tells a reader how to apply it). Where a record changes what a bucket
//! of sleep holds, the sessions of its date and of the two beside it are made anew ([`super::sessions`]), after each
//! record, so that the size of a batch shows nowhere; one that says what was told last is not told again, and one
//! of which nothing is left is deleted.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::bucket::{Change, SLEEP_SAMPLES, gather, holder, lose, sample_ids};
use super::decide::Thread;
use super::flaw::Flaw;
use super::plan::sample_type;
use super::revise::place;
use super::sessions::session;
use crate::error::Result;
use crate::model::event::{Content, Merge, NormalisedRecord, Op, Reading, flag};
use crate::model::id::{ConnectionId, EventId};
use crate::model::record::Record;
use crate::model::sample::{Samples, Stage, Stages, Versions};
use crate::model::state::{AROUND_DAYS, Bucket, SampleType, Verdict};
use crate::model::time::Day;

/// The record type of a session of sleep.
pub const SESSION: &str = "sleep";

impl Thread<'_> {
    /// A push's samples of one bucket.
    pub(super) fn union(
        &mut self,
        input: &Record,
        mut record: NormalisedRecord,
    ) -> Result<Verdict> {
        let id = record.event_id;
        let sample_type = sample_type(&record);
        let mut bucket = self.known.buckets.remove(&id).unwrap_or_else(|| bucket_of(&record));
        let waiting = self.known.waiting.entry(sample_type.clone()).or_default();
        let at = place(&record);
        let change = gather(&mut bucket, waiting, &mut record, at, self.flaws);
        if change.waited {
            self.waited.insert(sample_type);
        }
        if change.is_some() {
            self.touched.insert(id);
        }
        let Change { added, replaced, seen, slept, .. } = change;
        let revision = bucket.revision + i32::from(!added.is_empty());
        bucket.revision = revision;
        self.known.buckets.insert(id, bucket);
        if added.is_empty() {
            return Ok(if seen {
                Verdict::Ignored("removed before it came")
            } else {
                Verdict::Duplicate(id, revision)
            });
        }
        let cause = slept.then(|| cause_of(&record));
        date(&mut record.content, &added);
        record.content.readings = added;
        record.content.removed = replaced.iter().map(Uuid::to_string).collect();
        let (current, content) = self.standing(&record, revision)?;
        self.publish(input, record.revised(revision), &content, current)?;
        if let Some(cause) = cause {
            self.tell_sessions(input, &cause, id)?;
        }
        Ok(Verdict::Published(id, revision))
    }

    /// Sample ids that are gone: marked where they are, waited for where they are not.
    pub(super) fn removal(&mut self, input: &Record, record: &NormalisedRecord) -> Result<Verdict> {
        let sample_type = sample_type(record);
        let mut lost: BTreeMap<EventId, Vec<Uuid>> = BTreeMap::new();
        let mut waits = Vec::new();
        let mut of_type: Vec<&Bucket> =
            self.known.buckets.values().filter(|one| one.sample_type == sample_type).collect();
        of_type.sort_unstable_by_key(|bucket| std::cmp::Reverse((bucket.day, bucket.event_id)));
        for id in sample_ids(&record.content.removed) {
            match holder(&of_type, &id) {
                Some(bucket) => lost.entry(bucket.event_id).or_default().push(id),
                None => waits.push(id),
            }
        }
        let mut verdict = Verdict::Duplicate(record.event_id, 0);
        let waiting = self.known.waiting.entry(sample_type.clone()).or_default();
        let waited = waiting.len();
        if !self.flaws.has(Flaw::EarlyRemovalForgotten) {
            waiting.extend(waits);
        }
        if waiting.len() != waited {
            self.waited.insert(sample_type);
            verdict = Verdict::Waiting;
        }
        let mut slept = Vec::new();
        for (event_id, ids) in lost {
            if let Some(revision) = self.take_away(input, record, (event_id, ids), &mut slept)? {
                verdict = Verdict::Published(event_id, revision);
            }
        }
        let cause = cause_of(record);
        for event_id in slept {
            self.tell_sessions(input, &cause, event_id)?;
        }
        Ok(verdict)
    }

    /// Takes these samples away from their bucket; gives its revision where it still had one of them.
    fn take_away(
        &mut self,
        input: &Record,
        record: &NormalisedRecord,
        (event_id, ids): (EventId, Vec<Uuid>),
        slept: &mut Vec<EventId>,
    ) -> Result<Option<i32>> {
        let Some(bucket) = self.known.buckets.get_mut(&event_id) else { return Ok(None) };
        let (mut removed, mut another_sleep) = (Vec::new(), false);
        for id in &ids {
            let Some(lost) = lose(bucket, id) else { continue };
            another_sleep |= lost.slept;
            removed.extend(lost.was_there.then(|| id.to_string()));
        }
        if removed.is_empty() {
            return Ok(None);
        }
        bucket.revision += 1;
        let revision = bucket.revision;
        let changed = NormalisedRecord {
            event_id,
            device_type: bucket.device_type.clone(),
            record_id: bucket.record_id.clone(),
            merge: Merge::Union,
            // The bucket is still there; it is samples of it that are gone.
            op: Op::Upsert,
            content: Content { removed, ..nothing() },
            ..cause_of(record)
        };
        self.touched.insert(event_id);
        slept.extend(another_sleep.then_some(event_id));
        let (current, content) = self.standing(&changed, revision)?;
        self.publish(input, changed.revised(revision), &content, current)?;
        Ok(Some(revision))
    }

    // ── sessions ───────────────────────────────────────────────────────────────────────────────────────────

    /// The sessions that this bucket of sleep can show in, as far as they are other than they were told last.
    fn tell_sessions(
        &mut self,
        input: &Record,
        cause: &NormalisedRecord,
        changed: EventId,
    ) -> Result<()> {
        let Some(bucket) = self.known.buckets.get(&changed) else { return Ok(()) };
        let Some((day, source)) = day_and_source(&bucket.record_id) else { return Ok(()) };
        let beside = Beside { connection: bucket.sample_type.0, source };
        let dates =
            beside.sessions(day).map(|(date, id)| (date, id, self.stages_of(&beside, date)));
        let untold = Bucket {
            user: bucket.user.clone(),
            vendor: bucket.vendor.clone(),
            device_type: bucket.device_type.clone(),
            ..blank((beside.connection, SESSION.to_owned()), cause)
        };
        let (app, model) = source.split_once('|').unwrap_or((source, ""));
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut told = Vec::new();
        for (date, id, stages) in dates {
            let content = session(date, &stages).map(|content| Content {
                app: named(app),
                device_model: named(model),
                ..content
            });
            let record_id = format!("{date}|{source}");
            told.push((Bucket { event_id: id, day: date.0, record_id, ..untold.clone() }, content));
        }
        for (untold, content) in told {
            self.tell_session(input, cause, untold, content)?;
        }
        Ok(())
    }

    /// The samples of sleep that a date's session is made of.
    fn stages_of(&self, beside: &Beside<'_>, date: Day) -> Vec<Stage> {
        let buckets = beside.buckets(date, 1);
        let known = buckets.filter_map(|id| self.known.buckets.get(&id));
        known.flat_map(|bucket| bucket.stages.values().copied()).collect()
    }

    /// A session's next revision, where it says something new; `untold` is its state if it has none yet.
    fn tell_session(
        &mut self,
        input: &Record,
        cause: &NormalisedRecord,
        untold: Bucket,
        content: Option<Content>,
    ) -> Result<()> {
        let id = untold.event_id;
        let known = self.known.buckets.get(&id);
        let told = known.and_then(|state| state.told);
        if content.is_none()
            && (told.is_none_or(|(op, _)| op == Op::Delete) || self.flaws.has(Flaw::SessionStays))
        {
            return Ok(());
        }
        let op = if content.is_some() { Op::Upsert } else { Op::Delete };
        let record = NormalisedRecord {
            event_id: id,
            user_id: untold.user.clone(),
            vendor: untold.vendor.clone(),
            device_type: untold.device_type.clone(),
            record_type: SESSION.to_owned(),
            record_id: untold.record_id.clone(),
            merge: Merge::Replace,
            op,
            version: None,
            content: content.unwrap_or_else(nothing),
            ..cause_of(cause)
        };
        let revision = known.map_or(0, |state| state.revision) + 1;
        let (current, content) = self.standing(&record, revision)?;
        if told == Some((op, current.hash)) {
            return Ok(());
        }
        let state = Bucket { revision, told: Some((op, current.hash)), ..untold };
        self.known.buckets.insert(id, state);
        self.touched.insert(id);
        self.publish(input, record.revised(revision), &content, current)
    }

    /// What the batch changed, whole: each bucket and each set of waiting deletions once.
    pub(super) fn finish(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            let bucket = self.known.buckets.remove(&id);
            self.outcome.buckets.extend(bucket.map(|bucket| (id, bucket)));
        }
        for sample_type in std::mem::take(&mut self.waited) {
            let waiting = self.known.waiting.remove(&sample_type);
            self.outcome.waiting.extend(waiting.map(|ids| (sample_type, ids)));
        }
    }
}

// ── what lies beside ───────────────────────────────────────────────────────────────────────────────────────

/// One source's sleep of one connection.
struct Beside<'a> {
    connection: ConnectionId,
    source: &'a str,
}

impl Beside<'_> {
    /// The ids of the buckets of sleep that are at most so many days away.
    fn buckets(&self, day: Day, days: i32) -> impl Iterator<Item = EventId> {
        let id = move |day| self.id(SLEEP_SAMPLES, day);
        (-days..=days).map(move |step| id(Day(day.0.saturating_add(step))))
    }

    /// The sessions that a bucket can show in: of its date and of the two beside it.
    fn sessions(&self, day: Day) -> impl Iterator<Item = (Day, EventId)> {
        (-1..=1).map(move |step| {
            let date = Day(day.0.saturating_add(step));
            (date, self.id(SESSION, date))
        })
    }

    fn id(&self, record_type: &str, day: Day) -> EventId {
        EventId::derive(self.connection, record_type, &format!("{day}|{}", self.source))
    }
}

/// What must be known beside a record's own bucket: for sleep the buckets around it and the sessions that they show in.
pub(super) fn beside(record: &NormalisedRecord) -> Vec<EventId> {
    let asked = (record.record_type == SLEEP_SAMPLES).then(|| day_and_source(&record.record_id));
    let Some((day, source)) = asked.flatten() else { return Vec::new() };
    let beside = Beside { connection: record.connection_id, source };
    let sessions = beside.sessions(day).map(|(_, id)| id);
    beside.buckets(day, AROUND_DAYS).chain(sessions).collect()
}

/// What must be known around the bucket that loses a sample, wherever that is.
pub(super) fn around(record: &NormalisedRecord) -> Vec<SampleType> {
    if record.record_type != SLEEP_SAMPLES {
        return Vec::new();
    }
    let of = |name: &str| (record.connection_id, name.to_owned());
    vec![of(SLEEP_SAMPLES), of(SESSION)]
}

/// A bucket's natural key: the UTC day, and the source behind it.
fn day_and_source(record_id: &str) -> Option<(Day, &str)> {
    let (day, source) = record_id.split_once('|')?;
    Some((Day::parse(day)?, source))
}

// ── records ────────────────────────────────────────────────────────────────────────────────────────────────

/// A record without what it says: how it came.
fn cause_of(record: &NormalisedRecord) -> NormalisedRecord {
    NormalisedRecord {
        event_id: record.event_id,
        user_id: record.user_id.clone(),
        connection_id: record.connection_id,
        vendor: record.vendor.clone(),
        device_type: record.device_type.clone(),
        via: record.via.clone(),
        record_type: record.record_type.clone(),
        record_id: record.record_id.clone(),
        merge: record.merge,
        op: record.op,
        version: record.version,
        received_at: record.received_at,
        source: record.source,
        origin: record.origin,
        normaliser: record.normaliser,
        content: Content::default(),
    }
}

/// A content that says nothing.
fn nothing() -> Content {
    Content {
        offset_provenance: "unknown".to_owned(),
        state: "final".to_owned(),
        ..Content::default()
    }
}

/// Dates a content by these readings: a reading from the future dates it only where all are, or one wrong clock would
/// be the latest for ever.
fn date(content: &mut Content, readings: &[Reading]) {
    let is_skewed = |reading: &&Reading| reading.flags.iter().any(|name| name == flag::CLOCK_SKEW);
    let all = readings.iter().all(|reading| is_skewed(&reading));
    let dated = || readings.iter().filter(|reading| all || !is_skewed(reading));
    content.start_at = dated().map(|reading| reading.start_at).min();
    content.end_at = dated().map(|reading| reading.end_at.unwrap_or(reading.start_at)).max();
}

/// A bucket that has seen nothing.
fn bucket_of(record: &NormalisedRecord) -> Bucket {
    Bucket { day: day_of(&record.record_id), ..blank(sample_type(record), record) }
}

/// The state of what this record is about, before there is any.
fn blank(sample_type: SampleType, record: &NormalisedRecord) -> Bucket {
    Bucket {
        event_id: record.event_id,
        user: record.user_id.clone(),
        sample_type,
        record_id: record.record_id.clone(),
        vendor: record.vendor.clone(),
        device_type: record.device_type.clone(),
        day: 0,
        revision: 0,
        samples: Samples::default(),
        versions: Versions::new(),
        stages: Stages::new(),
        told: None,
    }
}

/// The UTC day with which a bucket's natural key begins.
fn day_of(record_id: &str) -> i32 {
    let day = record_id.split('|').next().and_then(Day::parse);
    day.map_or(0, |day| day.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start_at: i64, skewed: bool) -> Reading {
        let metric = crate::model::metric::find("heart_rate").expect("a metric");
        let mut reading = metric.reading(60.0, start_at, None);
        reading.flags.extend(skewed.then(|| flag::CLOCK_SKEW.to_owned()));
        reading
    }

    #[test]
    fn a_reading_from_the_future_does_not_date_its_bucket() {
        let mut content = Content::default();
        date(&mut content, &[at(5, false), at(9, false), at(99, true)]);
        assert_eq!((content.start_at, content.end_at), (Some(5), Some(9)));
        date(&mut content, &[at(99, true)]);
        assert_eq!(content.end_at, Some(99), "it is all there is");
    }
}
