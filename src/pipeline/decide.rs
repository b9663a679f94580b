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
use crate::model::avro::{Codec, Sealed, content_hash};
use crate::model::contract::header;
use crate::model::event::{BiometricEvent, Merge, NormalisedRecord};
use crate::model::id::{EventId, Place, Source};
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
        let mut thread = self.thread(known);
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

    fn read(&self, record: &Record) -> std::result::Result<One, Reject> {
        let value = record.value.as_ref().ok_or_else(|| {
            Reject::malformed(crate::error::Path::root(), "a record without a value")
        })?;
        let sealed = self.codec.open(value)?;
        Ok(match sealed.head.merge {
            Merge::Replace => One::Sealed(Box::new(sealed)),
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
    Sealed(Box<Sealed>),
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
    fn record(&mut self, input: &Record, one: One) -> Result<Verdict> {
        match one {
            One::Sealed(sealed) => self.replace(input, *sealed),
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

    // ── what is published ──────────────────────────────────────────────────────────────────────────────────

    /// What stands after this record, and its content as bytes: of one whose content is made here.
    pub(super) fn standing(
        &self,
        record: &NormalisedRecord,
        revision: i32,
    ) -> Result<(Current, Bytes)> {
        let content = self.codec.encode_content(&record.content)?;
        let hash = content_hash(record.op, &content);
        Ok((Current { revision, place: place(record), op: record.op, hash }, content))
    }

    /// A revision: its row, its output, what the cache shows; `content` is the event's, as bytes.
    pub(super) fn publish(
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
        self.outcome.facts.add(&event);
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
