//! Threads one batch through revise and score: what is known goes in, an [`Outcome`] comes out.
//!
//! Each record is decided on what is known after the one before it, so a record that comes twice in one batch behaves
//! as in two, and the size of a batch shows nowhere. No clock, batch or process may show in a row or a byte: after a
//! crash the same records are decided again, in other batches, and must come out the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::reject::{self, Stage};
use super::revise::{self, Revised, gather, holder, place, sample_ids};
use super::score::score;
use super::{emit, plan};
use crate::error::{Reject, Result};
use crate::model::avro::{Codec, Sealed, content_hash};
use crate::model::contract::header;
use crate::model::event::{
    BiometricEvent, Content, Merge, NormalisedRecord, Op, Origin, Reading, flag,
};
use crate::model::id::{EventId, Place, Source};
use crate::model::outbox::Output;
use crate::model::record::Record;
use crate::model::state::{
    Bucket, Current, Decision, Known, Outcome, Plan, Revision, Shown, Verdict,
};

/// How often a record was tried before it is given up (`stream::worker`).
const TRIES: u32 = 3;

/// Decide, pure.
pub struct Decide {
    codec: Arc<Codec>,
}

impl Decide {
    /// Decide over this codec.
    #[must_use]
    pub const fn new(codec: Arc<Codec>) -> Self {
        Self { codec }
    }

    /// What this batch must know, and the batch as far as it had to be read for that.
    #[must_use]
    pub fn plan(&self, batch: &[Record]) -> (Plan, Read) {
        let read = Read(batch.iter().map(|record| self.read(record)).collect());
        let mut plan = Plan::default();
        for one in read.0.iter().flatten() {
            match one {
                One::Sealed(sealed) => plan::replace(&mut plan, &sealed.head),
                One::Open(record) => plan::gather(&mut plan, record),
            }
        }
        (plan, read)
    }

    /// What becomes of this batch.
    ///
    /// # Errors
    /// `internal_error` or `schema_error` where an event cannot be written: ours to mend.
    pub fn decide(&self, batch: &[Record], read: Read, known: Known) -> Result<Outcome> {
        let mut thread = Thread { codec: &self.codec, known, outcome: Outcome::default() };
        for (input, one) in batch.iter().zip(read.0) {
            let source = one.as_ref().ok().map(One::source);
            let verdict = match one {
                Ok(one) => thread.record(input, one)?,
                Err(bad) => thread.reject(input, &bad, 0),
            };
            thread.outcome.decisions.push(Decision {
                partition: input.partition,
                offset: input.offset,
                source,
                verdict,
            });
        }
        Ok(thread.outcome)
    }

    /// A record that killed the process too often: its dead letter, untried.
    #[must_use]
    pub fn give_up(&self, record: &Record) -> Outcome {
        let mut thread =
            Thread { codec: &self.codec, known: Known::default(), outcome: Outcome::default() };
        let bad = Reject {
            kind: crate::error::Kind::InternalError,
            ..Reject::invalid(crate::error::Path::root(), "given up: the process died of it")
        };
        let verdict = thread.reject(record, &bad, TRIES);
        let (partition, offset) = (record.partition, record.offset);
        thread.outcome.decisions.push(Decision { partition, offset, source: None, verdict });
        thread.outcome
    }

    fn read(&self, record: &Record) -> std::result::Result<One, Reject> {
        let value = record.value.as_ref().ok_or_else(|| {
            Reject::malformed(crate::error::Path::root(), "a record without a value")
        })?;
        let sealed = self.codec.open(value)?;
        Ok(match sealed.head.merge {
            Merge::Replace => One::Sealed(sealed),
            Merge::Union | Merge::Removal => {
                let content = self.codec.decode_content(&sealed.content)?;
                One::Open(Box::new(sealed.head.with(content)))
            }
        })
    }
}

/// A batch as [`Decide::plan`] reads it.
#[derive(Default)]
pub struct Read(Vec<std::result::Result<One, Reject>>);

/// A record: a duplicate is recognised by the bytes of its content, which are then never read.
enum One {
    Sealed(Sealed),
    Open(Box<NormalisedRecord>),
}

impl One {
    fn source(&self) -> Source {
        match self {
            Self::Sealed(sealed) => sealed.head.source,
            Self::Open(record) => record.source,
        }
    }
}

/// One batch on its way: what is known by now, and what came out so far.
struct Thread<'a> {
    codec: &'a Codec,
    known: Known,
    outcome: Outcome,
}

impl Thread<'_> {
    fn record(&mut self, input: &Record, one: One) -> Result<Verdict> {
        match one {
            One::Sealed(sealed) => self.replace(input, sealed),
            One::Open(record) if record.merge == Merge::Removal => self.removal(input, &record),
            One::Open(record) => self.union(input, *record),
        }
    }

    fn reject(&mut self, input: &Record, bad: &Reject, retries: u32) -> Verdict {
        let record = reject::dead_letter(input, bad, Stage::Decide { retries }, &[]);
        let output = Output { cause: input.offset, record };
        self.outcome.outbox.entry(input.partition).or_default().push(output);
        Verdict::DeadLettered(bad.kind)
    }

    // ── replace ────────────────────────────────────────────────────────────────────────────────────────────

    fn replace(&mut self, input: &Record, sealed: Sealed) -> Result<Verdict> {
        let Sealed { head, content: bytes } = sealed;
        let (id, op) = (head.event_id, head.op);
        let at = revise::place_of(&head);
        let hash = content_hash(op, &bytes);
        let known = self.known.revisions.get(&id);
        match revise::revise(known, at, op, hash) {
            Revised::Superseded(revision) => Ok(Verdict::Superseded(id, revision)),
            Revised::Duplicate { revision, moves } => {
                if moves {
                    self.move_up(id, revision, at);
                }
                Ok(Verdict::Duplicate(id, revision))
            }
            Revised::Next(revision) => {
                let content = match self.codec.decode_content(&bytes) {
                    Ok(content) => content,
                    Err(bad) => return Ok(self.reject(input, &bad, 0)),
                };
                let current = Current { revision, place: at, op, hash };
                self.publish(input, head.with(content).revised(revision), &bytes, current)?;
                self.known.revisions.insert(id, current);
                Ok(Verdict::Published(id, revision))
            }
        }
    }

    /// Moves the place of the latest revision up, in the row that this batch adds or in the one that stands.
    fn move_up(&mut self, id: EventId, revision: i32, at: Place) {
        if let Some(current) = self.known.revisions.get_mut(&id) {
            current.place = at;
        }
        let added = self.outcome.revisions.iter_mut().rev();
        let mut added = added.filter(|row| row.event_id == id && row.revision == revision);
        match added.next() {
            Some(row) => row.place = at,
            None => {
                self.outcome.moved.insert((id, revision), at);
            }
        }
    }

    // ── union ──────────────────────────────────────────────────────────────────────────────────────────────

    fn union(&mut self, input: &Record, mut record: NormalisedRecord) -> Result<Verdict> {
        let id = record.event_id;
        let sample_type = plan::sample_type(&record);
        let mut bucket = self.known.buckets.remove(&id).unwrap_or_else(|| bucket_of(&record));
        let waiting = self.known.waiting.entry(sample_type.clone()).or_default();
        let (seen, waited) = (bucket.samples.len(), waiting.len());
        let readings = std::mem::take(&mut record.content.readings);
        let added = gather(&mut bucket, waiting, readings);
        if waiting.len() != waited {
            self.outcome.waiting.insert(sample_type, waiting.clone());
        }
        let verdict = if added.is_empty() {
            if bucket.samples.len() == seen {
                Verdict::Duplicate(id, bucket.revision)
            } else {
                Verdict::Ignored("removed before it came")
            }
        } else {
            bucket.revision += 1;
            date(&mut record.content, &added);
            record.content.readings = added;
            self.publish_bucket(input, record, bucket.revision)?;
            Verdict::Published(id, bucket.revision)
        };
        if bucket.samples.len() != seen {
            self.outcome.buckets.insert(id, bucket.clone());
        }
        self.known.buckets.insert(id, bucket);
        Ok(verdict)
    }

    /// Sample ids that are gone: marked where they are, waited for where they are not.
    fn removal(&mut self, input: &Record, record: &NormalisedRecord) -> Result<Verdict> {
        let sample_type = plan::sample_type(record);
        let mut marked: BTreeMap<EventId, Vec<Uuid>> = BTreeMap::new();
        let mut waits = false;
        for id in sample_ids(&record.content.removed) {
            let of_type =
                self.known.buckets.values().filter(|bucket| bucket.sample_type == sample_type);
            match holder(of_type, &id).map(|bucket| bucket.event_id) {
                Some(event_id) => {
                    let bucket = self.known.buckets.get_mut(&event_id);
                    let gone = bucket.and_then(|bucket| bucket.samples.insert(id, true));
                    if gone == Some(false) {
                        marked.entry(event_id).or_default().push(id);
                    }
                }
                None => {
                    let waiting = self.known.waiting.entry(sample_type.clone()).or_default();
                    waits |= waiting.insert(id);
                }
            }
        }
        if waits && let Some(waiting) = self.known.waiting.get(&sample_type) {
            self.outcome.waiting.insert(sample_type, waiting.clone());
        }
        let mut verdict = Verdict::Duplicate(record.event_id, 0);
        if waits {
            verdict = Verdict::Waiting;
        }
        for (event_id, ids) in marked {
            let Some(bucket) = self.known.buckets.get_mut(&event_id) else { continue };
            bucket.revision += 1;
            let bucket = bucket.clone();
            let removed = ids.iter().map(Uuid::to_string).collect();
            let changed = NormalisedRecord {
                event_id,
                device_type: bucket.device_type.clone(),
                record_id: bucket.record_id.clone(),
                merge: Merge::Union,
                // The bucket is still there; it is samples of it that are gone.
                op: Op::Upsert,
                content: Content {
                    offset_provenance: "unknown".to_owned(),
                    state: "final".to_owned(),
                    removed,
                    ..Content::default()
                },
                ..record.clone()
            };
            self.publish_bucket(input, changed, bucket.revision)?;
            verdict = Verdict::Published(event_id, bucket.revision);
            self.outcome.buckets.insert(event_id, bucket);
        }
        Ok(verdict)
    }

    // ── what is published ──────────────────────────────────────────────────────────────────────────────────

    /// A revision of a bucket, whose content is made here.
    fn publish_bucket(
        &mut self,
        input: &Record,
        record: NormalisedRecord,
        revision: i32,
    ) -> Result<()> {
        let content = self.codec.encode_content(&record.content)?;
        let hash = content_hash(record.op, &content);
        let current = Current { revision, place: place(&record), op: record.op, hash };
        self.publish(input, record.revised(revision), &content, current)
    }

    /// A revision: its row, its output, what the cache shows; `content` is the event's, as bytes.
    fn publish(
        &mut self,
        input: &Record,
        mut event: BiometricEvent,
        content: &[u8],
        current: Current,
    ) -> Result<()> {
        event.triggers = score(&event);
        let topic = emit::topic(&event);
        let bytes = Bytes::from(self.codec.seal_event(topic, &event, content)?);
        let traceparent = input.headers.get(header::TRACEPARENT);
        let record = emit::event(topic, &event, bytes.clone(), traceparent);
        self.outcome
            .outbox
            .entry(input.partition)
            .or_default()
            .push(Output { cause: input.offset, record });
        self.outcome.shown.extend(Shown::of(&event));
        if event.origin == Origin::Live {
            self.outcome.receipts.push((event.vendor.clone(), event.received_at));
        }
        self.outcome.revisions.push(Revision {
            event_id: event.event_id,
            revision: current.revision,
            place: current.place,
            op: current.op,
            hash: current.hash,
            user: event.user_id,
            device_type: event.device_type,
            measured_at: event.content.measured_at(),
            event: bytes,
        });
        Ok(())
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
    Bucket {
        event_id: record.event_id,
        user: record.user_id.clone(),
        sample_type: plan::sample_type(record),
        record_id: record.record_id.clone(),
        vendor: record.vendor.clone(),
        device_type: record.device_type.clone(),
        day: day_of(&record.record_id),
        revision: 0,
        samples: BTreeMap::new(),
    }
}

/// The UTC day with which a bucket's natural key begins.
fn day_of(record_id: &str) -> i32 {
    let day = record_id.split('|').next().and_then(crate::model::time::Day::parse);
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
