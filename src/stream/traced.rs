//! The spans of a batch: one for each of its records that is sampled, one for the batch with its parts, linked.
//!
//! A batch without a sampled record has none; where spans go nowhere it is not even looked at.

use std::time::Duration;

use super::Clock;
use crate::model::contract::{Topic, header};
use crate::model::outbox::Output;
use crate::model::record::Record;
use crate::model::state::Outcome;
use crate::model::time::Micros;
use crate::telemetry::trace::{
    Kind, Span, SpanId, TraceId, Traceparent, Tracer, Value, span_id, trace_id,
};

/// The most spans that a batch's span names.
const LINKS_MAX: usize = 128;

/// What a stage's spans are called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    record: &'static str,
    batch: &'static str,
}

/// The spans of normalise.
pub(super) const NORMALISE: Names = Names { record: "normalise", batch: "normalise batch" };
/// The spans of decide.
pub(super) const DECIDE: Names = Names { record: "decide", batch: "decide batch" };

/// The spans of one batch after the other.
#[derive(Debug)]
pub(super) struct Traced {
    tracer: Tracer,
    names: Names,
    open: Option<Open>,
}

/// A batch that is under way and has a sampled record.
#[derive(Debug)]
struct Open {
    sampled: Vec<Sampled>,
    size: usize,
    begun: Duration,
    parts: Vec<(&'static str, Duration, Duration)>,
    /// What is sent of each sampled record, by its place among them.
    sends: Vec<(usize, Topic)>,
}

/// A record that is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sampled {
    trace: TraceId,
    id: SpanId,
    parent: SpanId,
    topic: Topic,
    partition: i32,
    offset: i64,
}

impl Traced {
    pub(super) const fn new(tracer: Tracer, names: Names) -> Self {
        Self { tracer, names, open: None }
    }

    /// A batch begins, or is tried again: then its spans go on.
    pub(super) fn begin(&mut self, records: &[Record], clock: &impl Clock) {
        if !self.tracer.is_on() {
            return;
        }
        let sampled: Vec<Sampled> =
            records.iter().filter_map(|record| self.sampled(record)).collect();
        if let Some(open) = self.open.as_mut().filter(|open| open.sampled == sampled) {
            open.sends.clear();
            return;
        }
        if self.open.is_some() {
            self.finish(clock, None, true);
        }
        if !sampled.is_empty() {
            let (size, begun) = (records.len(), clock.elapsed());
            self.open = Some(Open { sampled, size, begun, parts: Vec::new(), sends: Vec::new() });
        }
    }

    fn sampled(&self, record: &Record) -> Option<Sampled> {
        let traceparent = record.headers.get(header::TRACEPARENT)?;
        let Traceparent { trace, span, .. } = self.tracer.sampled(Some(traceparent))?;
        let (topic, partition, offset) = (record.topic, record.partition, record.offset);
        let id = span_id(trace, self.names.record, &format!("{topic}/{partition}/{offset}"));
        // What normalise made names its raw record: its span is that record's.
        let source = record.headers.text(header::SOURCE).and_then(|text| text.rsplit_once('/'));
        let parent = source.map_or(span, |(raw, _index)| span_id(trace, NORMALISE.record, raw));
        Some(Sampled { trace, id, parent, topic, partition, offset })
    }

    /// A part of the batch has ended.
    pub(super) fn part(&mut self, name: &'static str, from: Duration, until: Duration) {
        if let Some(open) = &mut self.open {
            open.parts.push((name, from, until));
        }
    }

    /// What is to be sent of a partition of the batch.
    pub(super) fn sends(&mut self, partition: i32, outputs: &[Output]) {
        let Some(open) = &mut self.open else { return };
        let of = |one: &Sampled, output: &Output| {
            one.partition == partition && one.offset == output.cause
        };
        for output in outputs {
            if let Some(place) = open.sampled.iter().position(|one| of(one, output)) {
                open.sends.push((place, output.record.topic));
            }
        }
    }

    /// The batch stands, as this.
    pub(super) fn end(&mut self, clock: &impl Clock, became: Option<&Outcome>) {
        if self.open.is_some() {
            self.finish(clock, became, false);
        }
    }

    fn finish(&mut self, clock: &impl Clock, became: Option<&Outcome>, failed: bool) {
        let Some(open) = self.open.take() else { return };
        let (now_us, elapsed) = (clock.now_us(), clock.elapsed());
        let wall = |at: Duration| -> Micros {
            let ago = elapsed.saturating_sub(at).as_micros();
            now_us.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
        };
        let Some(first) = open.sampled.first() else { return };
        let (topic, begun) = (first.topic, wall(open.begun));
        let named = format!("{topic}/{}/{} {begun}", first.partition, first.offset);
        let trace = trace_id(&format!("{} {named}", self.names.batch));
        let batch = Span {
            trace,
            id: span_id(trace, self.names.batch, &named),
            parent: None,
            name: self.names.batch,
            kind: Kind::Internal,
            from: begun,
            until: now_us,
            attributes: vec![
                ("messaging.system", Value::Name("kafka")),
                ("messaging.destination.name", Value::Name(topic.name())),
                ("messaging.batch.message_count", Value::Number(number(open.size))),
            ],
            links: open.sampled.iter().take(LINKS_MAX).map(|one| (one.trace, one.id)).collect(),
            failed,
        };
        for (place, (name, from, until)) in open.parts.iter().enumerate() {
            self.tracer.send(Span {
                id: span_id(trace, name, &format!("{place}")),
                parent: Some(batch.id),
                name,
                from: wall(*from),
                until: wall(*until),
                attributes: Vec::new(),
                links: Vec::new(),
                failed: false,
                ..batch.clone()
            });
        }
        let kafka = open.parts.iter().rev().find(|(name, ..)| *name == "kafka");
        let sent = kafka.map_or((begun, now_us), |(_, from, until)| (wall(*from), wall(*until)));
        for one in &open.sampled {
            self.record(*one, &batch, became);
        }
        if !failed {
            for (number, (place, topic)) in open.sends.iter().enumerate() {
                if let Some(one) = open.sampled.get(*place) {
                    self.event(*one, number, *topic, sent);
                }
            }
        }
        self.tracer.send(batch);
    }

    fn record(&self, one: Sampled, batch: &Span, became: Option<&Outcome>) {
        let mut attributes = vec![
            ("messaging.system", Value::Name("kafka")),
            ("messaging.destination.name", Value::Name(one.topic.name())),
            ("messaging.destination.partition.id", Value::Number(i64::from(one.partition))),
            ("messaging.kafka.offset", Value::Number(one.offset)),
        ];
        let at = (one.partition, one.offset);
        let decisions = became.map(|outcome| outcome.decisions.as_slice()).unwrap_or_default();
        let ended = decisions.iter().find(|ended| (ended.partition, ended.offset) == at);
        if let Some(ended) = ended {
            attributes.push(("bridge.verdict", Value::Name(ended.verdict.name())));
        }
        self.tracer.send(Span {
            trace: one.trace,
            id: one.id,
            parent: Some(one.parent),
            name: self.names.record,
            kind: Kind::Consumer,
            from: batch.from,
            until: batch.until,
            attributes,
            links: vec![(batch.trace, batch.id)],
            failed: batch.failed,
        });
    }

    /// What a record became and was sent as.
    fn event(&self, one: Sampled, number: usize, topic: Topic, (from, until): (Micros, Micros)) {
        let named = format!("{}/{}/{} {number}", one.topic, one.partition, one.offset);
        self.tracer.send(Span {
            trace: one.trace,
            id: span_id(one.trace, "publish", &named),
            parent: Some(one.id),
            name: "publish",
            kind: Kind::Producer,
            from,
            until,
            attributes: vec![
                ("messaging.system", Value::Name("kafka")),
                ("messaging.destination.name", Value::Name(topic.name())),
            ],
            links: Vec::new(),
            failed: false,
        });
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
