//! The smallest decide there is: JSON instead of Avro, *replace* only, no rules.
//!
//! It lets the engine be tested alone, and much faster: the protocol does not know what a record says. The journey
//! tests and `try` run the real one.

use bytes::Bytes;

use super::driver::Dialect;
use crate::error::{Kind, Result};
use crate::model::contract::{Topic, event_key, header};
use crate::model::event::{BiometricEvent, NormalisedRecord};
use crate::model::id::{ContentHash, Place};
use crate::model::outbox::Output;
use crate::model::record::{Headers, OutRecord, Record};
use crate::model::state::{Current, Decision, Known, Outcome, Plan, Revision, Shown, Verdict};
use crate::stream::{Processor, text};

/// JSON records, *replace* only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Dialect for Plain {
    type Decide = Self;

    fn processor(&self) -> Self {
        Self
    }

    fn write(&self, record: &NormalisedRecord) -> Bytes {
        Bytes::from(serde_json::to_vec(record).unwrap_or_default())
    }

    fn read(&self, value: &[u8]) -> Option<NormalisedRecord> {
        serde_json::from_slice(value).ok()
    }

    fn event(&self, value: &[u8]) -> Option<BiometricEvent> {
        serde_json::from_slice(value).ok()
    }
}

fn read(record: &Record) -> Option<NormalisedRecord> {
    Plain.read(record.value.as_deref()?)
}

fn dead_letter(record: &Record) -> Outcome {
    let kind = Kind::PayloadMalformed;
    let headers = Headers::new()
        .with(header::ORIGINAL_TOPIC, text(record.topic.name()))
        .with(header::ORIGINAL_PARTITION, text(record.partition.to_string()))
        .with(header::ORIGINAL_OFFSET, text(record.offset.to_string()))
        .with(header::ERROR_TYPE, text(kind.name()));
    let (key, value) = (record.key.clone(), record.value.clone());
    let letter = OutRecord { topic: Topic::DeadLetters, key, headers, value };
    let mut outcome = Outcome::default();
    let output = Output { cause: record.offset, record: letter };
    outcome.outbox.insert(record.partition, vec![output]);
    outcome.decisions.push(decision(record, None, Verdict::DeadLettered(kind)));
    outcome
}

fn decision(input: &Record, record: Option<&NormalisedRecord>, verdict: Verdict) -> Decision {
    Decision {
        partition: input.partition,
        offset: input.offset,
        source: record.map(|record| record.source),
        verdict,
    }
}

impl Processor for Plain {
    type Read = ();

    fn plan(&self, batch: &[Record]) -> (Plan, ()) {
        let events = batch.iter().filter_map(read).map(|record| record.event_id).collect();
        (Plan { events, ..Plan::default() }, ())
    }

    fn decide(&self, batch: &[Record], (): (), known: Known) -> Result<Outcome> {
        let mut known = known.revisions;
        let mut outcome = Outcome::default();
        for input in batch {
            let Some(record) = read(input) else {
                let letter = dead_letter(input);
                outcome.decisions.extend(letter.decisions);
                for (partition, outputs) in letter.outbox {
                    outcome.outbox.entry(partition).or_default().extend(outputs);
                }
                continue;
            };
            let id = record.event_id;
            let at_us = record.version.unwrap_or(record.received_at);
            let place = Place { at_us, source: record.source, normaliser: record.normaliser };
            let said = serde_json::to_vec(&(record.op, &record.content)).unwrap_or_default();
            let hash = ContentHash::of(&said);
            let verdict = match known.get(&id).copied() {
                Some(now) if now.hash == hash => {
                    if place > now.place {
                        known.insert(id, Current { place, ..now });
                        let mut rows = outcome.revisions.iter_mut().rev();
                        match rows.find(|row| row.event_id == id) {
                            Some(row) => row.place = place,
                            None => {
                                outcome.moved.insert((id, now.revision), place);
                            }
                        }
                    }
                    Verdict::Duplicate(id, now.revision)
                }
                Some(now) if place < now.place => Verdict::Superseded(id, now.revision),
                now => {
                    let revision = now.map_or(1, |now| now.revision + 1);
                    let current = Current { revision, place, op: record.op, hash };
                    known.insert(id, current);
                    publish(&mut outcome, input, &record, current);
                    Verdict::Published(id, revision)
                }
            };
            outcome.decisions.push(decision(input, Some(&record), verdict));
        }
        Ok(outcome)
    }

    fn give_up(&self, record: &Record) -> Outcome {
        dead_letter(record)
    }
}

fn publish(outcome: &mut Outcome, input: &Record, record: &NormalisedRecord, current: Current) {
    let event = record.clone().revised(current.revision);
    let bytes = Bytes::from(serde_json::to_vec(&event).unwrap_or_default());
    let headers = Headers::new()
        .with(header::EVENT_ID, text(event.event_id.to_string()))
        .with(header::REVISION, text(event.revision.to_string()));
    let key = text(event_key(&event.user_id, &event.device_type));
    let topic = Topic::BiometricEvents;
    let out = OutRecord { topic, key: Some(key), headers, value: Some(bytes.clone()) };
    let output = Output { cause: input.offset, record: out };
    outcome.outbox.entry(input.partition).or_default().push(output);
    outcome.shown.extend(Shown::of(&event));
    outcome.revisions.push(Revision {
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
}
