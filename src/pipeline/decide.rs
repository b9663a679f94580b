//! Threads one batch through revise and score: what is known goes in, an [`Outcome`] comes out.
//!
//! Each record is decided on what is known after the one before it, so a record that comes twice in one batch behaves
//! as in two, and the size of a batch shows nowhere. No clock, batch or process may show in a row or a byte: after a
//! crash the same records are decided again, in other batches, and must come out the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::flaw::Flaws;
use super::reject::{self, Stage};
use super::revise::{self, Revised, place};
use super::score::score;
use super::{emit, plan};
use crate::error::{Reject, Result};
use crate::model::avro::Codec;
use crate::model::contract::header;
use crate::model::event::{BiometricEvent, Merge, NormalisedRecord, Origin};
use crate::model::id::{EventId, Place};
use crate::model::outbox::Output;
use crate::model::record::Record;
use crate::model::state::{
    Current, Decision, Known, Outcome, Plan, Revision, SampleType, Shown, Verdict,
};

/// How often a record was tried before it is given up (`stream::worker`).
const TRIES: u32 = 3;

/// Decide, pure.
pub struct Decide {
    codec: Arc<Codec>,
    flaws: Flaws,
}

impl Decide {
    /// Decide over this codec.
    #[must_use]
    pub fn new(codec: Arc<Codec>) -> Self {
        Self::flawed(codec, Flaws::default())
    }

    /// Decide over this codec, with what a test build has it do wrong.
    #[must_use]
    pub const fn flawed(codec: Arc<Codec>, flaws: Flaws) -> Self {
        Self { codec, flaws }
    }

    /// What this batch must know.
    #[must_use]
    pub fn plan(&self, batch: &[Record]) -> Plan {
        let records: Vec<NormalisedRecord> =
            batch.iter().filter_map(|record| self.read(record).ok()).collect();
        plan::plan(records.iter())
    }

    /// What becomes of this batch.
    ///
    /// # Errors
    /// `internal_error` or `schema_error` where an event cannot be written: ours to mend.
    pub fn decide(&self, batch: &[Record], known: Known) -> Result<Outcome> {
        let mut thread = self.thread(known);
        for input in batch {
            let read = self.read(input);
            let source = read.as_ref().ok().map(|record| record.source);
            let verdict = match read {
                Ok(record) => thread.record(input, record)?,
                Err(bad) => thread.reject(input, &bad, 0),
            };
            thread.outcome.decisions.push(Decision {
                partition: input.partition,
                offset: input.offset,
                source,
                verdict,
            });
        }
        thread.finish();
        Ok(thread.outcome)
    }

    fn thread(&self, known: Known) -> Thread<'_> {
        Thread {
            codec: &self.codec,
            flaws: self.flaws,
            known,
            outcome: Outcome::default(),
            touched: BTreeSet::new(),
            waited: BTreeSet::new(),
        }
    }

    /// A record that killed the process too often: its dead letter, untried.
    #[must_use]
    pub fn give_up(&self, record: &Record) -> Outcome {
        let mut thread = self.thread(Known::default());
        let bad = Reject {
            kind: crate::error::Kind::InternalError,
            ..Reject::invalid(crate::error::Path::root(), "given up: the process died of it")
        };
        let verdict = thread.reject(record, &bad, TRIES);
        let (partition, offset) = (record.partition, record.offset);
        thread.outcome.decisions.push(Decision { partition, offset, source: None, verdict });
        thread.outcome
    }

    fn read(&self, record: &Record) -> std::result::Result<NormalisedRecord, Reject> {
        let value = record.value.as_deref().ok_or_else(|| {
            Reject::malformed(crate::error::Path::root(), "a record without a value")
        })?;
        self.codec.decode_record(value)
    }
}

/// One batch on its way: what is known by now, and what came out so far.
pub(super) struct Thread<'a> {
    pub(super) codec: &'a Codec,
    pub(super) flaws: Flaws,
    pub(super) known: Known,
    pub(super) outcome: Outcome,
    /// Buckets that changed, and deletions that wait since or no more ([`Thread::finish`]).
    pub(super) touched: BTreeSet<EventId>,
    pub(super) waited: BTreeSet<SampleType>,
}

impl Thread<'_> {
    fn record(&mut self, input: &Record, record: NormalisedRecord) -> Result<Verdict> {
        match record.merge {
            Merge::Replace => self.replace(input, record),
            Merge::Union => self.union(input, record),
            Merge::Removal => self.removal(input, &record),
        }
    }

    fn reject(&mut self, input: &Record, bad: &Reject, retries: u32) -> Verdict {
        let record = reject::dead_letter(input, bad, Stage::Decide { retries }, &[]);
        let output = Output { cause: input.offset, record };
        self.outcome.outbox.entry(input.partition).or_default().push(output);
        Verdict::DeadLettered(bad.kind)
    }

    // ── replace ────────────────────────────────────────────────────────────────────────────────────────────

    fn replace(&mut self, input: &Record, record: NormalisedRecord) -> Result<Verdict> {
        let id = record.event_id;
        let at = place(&record);
        let hash = self.codec.content_hash(record.op, &record.content);
        let known = self.known.revisions.get(&id);
        match revise::revise(known, at, record.op, hash) {
            Revised::Superseded(revision) => Ok(Verdict::Superseded(id, revision)),
            Revised::Duplicate { revision, moves } => {
                if moves {
                    self.move_up(id, revision, at);
                }
                Ok(Verdict::Duplicate(id, revision))
            }
            Revised::Next(revision) => {
                let current = Current { revision, place: at, op: record.op, hash };
                self.publish(input, record.revised(revision), current)?;
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

    // ── what is published ──────────────────────────────────────────────────────────────────────────────────

    pub(super) fn standing(&self, record: &NormalisedRecord, revision: i32) -> Current {
        let hash = self.codec.content_hash(record.op, &record.content);
        Current { revision, place: place(record), op: record.op, hash }
    }

    /// A revision: its row, its output, what the cache shows.
    pub(super) fn publish(
        &mut self,
        input: &Record,
        event: BiometricEvent,
        current: Current,
    ) -> Result<()> {
        let mut event = event;
        event.triggers = score(&event);
        let topic = emit::topic(&event);
        let bytes = Bytes::from(self.codec.encode_event(topic, &event)?);
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
