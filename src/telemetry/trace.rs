//! Spans: one trace from a request over its raw record and what normalise made of it to the event.
//!
//! The `traceparent` header travels with a record, unchanged. Who works on a record whose traceparent says *sampled*
//! makes a span of it; of all others nobody makes anything, so they cost a look at two bytes. The ids of spans are
//! derived from the trace and from the record's coordinates: so decide can name normalise's span as its parent
//! although no header carries it, and a record that is done twice is the same span twice.
//!
//! # No health data
//! A span has no field that a payload would fit into: names and texts are literals of ours ([`Value`]), everything
//! else is a number.
//!
//! # A collector costs nothing
//! A finished span is put into a bounded queue ([`super::otlp`] empties it); where that is full it is dropped and
//! counted. Nobody waits.

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::model::id::sha256_hex;
use crate::model::time::Micros;

/// W3C trace context, version 00: whose trace it is, after which span, and whether it is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace.
    pub trace: TraceId,
    /// The span that comes before.
    pub span: SpanId,
    flags: u8,
}

/// The id of a trace; not 0.
pub type TraceId = u128;
/// The id of a span; not 0.
pub type SpanId = u64;

/// The flag of a sampled trace.
const SAMPLED: u8 = 1;

impl Traceparent {
    /// A context of ours.
    #[must_use]
    pub const fn new(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        Self { trace, span, flags: if sampled { SAMPLED } else { 0 } }
    }

    /// Reads one: 16, 8 and 1 bytes of lower-case hex, ids not 0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (span, flags) = (parts.next()?, parts.next()?);
        let hex = |part: &str, digits: usize| {
            let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            part.len() == digits && part.bytes().all(lower)
        };
        let good = hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        if version != "00" || !good || parts.next().is_some() {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace, span, flags: u8::from_str_radix(flags, 16).ok()? })
    }

    /// Whether it is sampled.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl std::fmt::Display for Traceparent {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// The id of the span that does this with that in a trace: the same wherever it is asked for.
#[must_use]
pub fn span_id(trace: TraceId, doing: &str, with: &str) -> SpanId {
    derived(&format!("{trace:032x} {doing} {with}")).max(1)
}

/// The id of a trace that nothing brought: of what it is about.
#[must_use]
pub fn trace_id(of: &str) -> TraceId {
    let (high, low) = (derived(of), derived(&format!("{of} low")));
    (u128::from(high) << 64 | u128::from(low)).max(1)
}

fn derived(of: &str) -> u64 {
    let hash = sha256_hex(of.as_bytes());
    hash.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(1)
}

/// What stands beside a name on a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A literal of ours.
    Name(&'static str),
    /// A count, a partition, an offset, a status.
    Number(i64),
}

/// What a span is to the process that sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work of our own.
    Internal,
    /// A request that was answered.
    Server,
    /// A record that was written.
    Producer,
    /// A record that was read.
    Consumer,
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The span that it is a part of, or comes after.
    pub parent: Option<SpanId>,
    /// What was done.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// When it began, µs since the epoch.
    pub from: Micros,
    /// When it ended.
    pub until: Micros,
    /// What is known about it, by OpenTelemetry's names where there are any.
    pub attributes: Vec<(&'static str, Value)>,
    /// Spans of other traces that belong to it.
    pub links: Vec<(TraceId, SpanId)>,
    /// Whether it failed.
    pub failed: bool,
}

/// Where spans go. Nowhere, until it was made with a queue.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<Span>,
    /// A trace is sampled whose lower half is below this.
    below: u64,
    dropped: IntCounter,
}

impl Tracer {
    /// One that samples this part (0 to 1) of the traces that begin here.
    #[must_use]
    pub(super) fn new(spans: mpsc::Sender<Span>, ratio: f64, dropped: IntCounter) -> Self {
        Self(Some(Arc::new(Queue { spans, below: threshold(ratio), dropped })))
    }

    /// Whether spans go anywhere.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a trace that begins here is sampled; by its id, so that all who begin it agree.
    #[must_use]
    pub fn samples(&self, trace: TraceId) -> bool {
        let low = u64::try_from(trace & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        self.0.as_ref().is_some_and(|queue| low < queue.below)
    }

    /// The context of a record that is sampled; nothing for all others, and where spans go nowhere.
    #[must_use]
    pub fn sampled(&self, traceparent: Option<&[u8]>) -> Option<Traceparent> {
        self.0.as_ref()?;
        let traceparent = traceparent?;
        // The last digit is odd where it is sampled: most are not, and cost no more than this.
        traceparent.last().filter(|digit| b"13579bdf".contains(digit))?;
        let text = std::str::from_utf8(traceparent).ok()?;
        Traceparent::parse(text).filter(|context| context.is_sampled())
    }

    /// Hands a span over; it is dropped and counted where too many wait.
    pub fn send(&self, span: Span) {
        if let Some(queue) = &self.0
            && queue.spans.try_send(span).is_err()
        {
            queue.dropped.inc();
        }
    }
}

/// Of 2^64 ids the part that is sampled.
fn threshold(ratio: f64) -> u64 {
    let millionths = (ratio.clamp(0.0, 1.0) * 1e6).round();
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 0 and a million"
    )]
    let millionths = millionths as u64;
    if millionths >= 1_000_000 { u64::MAX } else { u64::MAX / 1_000_000 * millionths }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_and_written() {
        let context = Traceparent::parse(GOOD).expect("a context");
        assert_eq!(context.to_string(), GOOD);
        assert!(context.is_sampled());
        let flags = GOOD.replace("-01", "-02");
        assert!(!Traceparent::parse(&flags).expect("a context").is_sampled());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(Traceparent::parse(bad), None, "{bad}");
        }
    }

    fn tracer(ratio: f64, room: usize) -> (Tracer, mpsc::Receiver<Span>, IntCounter) {
        let (spans, waiting) = mpsc::channel(room);
        let dropped = IntCounter::new("dropped", "dropped").expect("a counter");
        (Tracer::new(spans, ratio, dropped.clone()), waiting, dropped)
    }

    #[test]
    fn what_is_sampled_is_the_share_that_was_asked_for() {
        let share = |ratio: f64| {
            let (tracer, ..) = tracer(ratio, 1);
            (0..10_000).filter(|n| tracer.samples(trace_id(&format!("{n}")))).count()
        };
        assert_eq!((share(0.0), share(1.0)), (0, 10_000));
        assert!((900..1_100).contains(&share(0.1)), "{}", share(0.1));
        assert!(!Tracer::default().samples(1));
    }

    #[test]
    fn only_what_says_so_is_traced_and_only_where_it_goes_somewhere() {
        let (on, ..) = tracer(1.0, 1);
        assert!(on.sampled(Some(GOOD.as_bytes())).is_some());
        assert!(on.sampled(Some(GOOD.replace("-01", "-00").as_bytes())).is_none());
        assert!(on.sampled(None).is_none() && on.sampled(Some(b"\xff")).is_none());
        assert!(Tracer::default().sampled(Some(GOOD.as_bytes())).is_none());
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (tracer, mut waiting, dropped) = tracer(1.0, 2);
        let span = span();
        for _ in 0..5 {
            tracer.send(span.clone());
        }
        assert_eq!(dropped.get(), 3);
        assert_eq!(waiting.try_recv(), Ok(span.clone()));
        // Where nobody is to get it, nobody misses it.
        Tracer::default().send(span);
    }

    fn span() -> Span {
        Span {
            trace: 1,
            id: 1,
            parent: None,
            name: "a",
            kind: Kind::Internal,
            from: 0,
            until: 1,
            attributes: Vec::new(),
            links: Vec::new(),
            failed: false,
        }
    }

    #[test]
    fn ids_are_the_same_for_all_who_ask() {
        let id = span_id(7, "normalise", "raw-webhooks/1/2");
        assert_eq!(id, span_id(7, "normalise", "raw-webhooks/1/2"));
        assert_ne!(id, span_id(7, "decide", "raw-webhooks/1/2"));
        assert_ne!(id, span_id(8, "normalise", "raw-webhooks/1/2"));
        assert_ne!(trace_id("a"), trace_id("b"));
    }
}
