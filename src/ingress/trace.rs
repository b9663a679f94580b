//! A request's trace: the one that it brings, or one that begins with it.

use http::{HeaderMap, StatusCode};

use crate::model::contract::{Topic, header};
use crate::model::id::sha256_hex;
use crate::model::time::Micros;
use crate::telemetry::trace::{Kind, Span, SpanId, Traceparent, Tracer, Value, span_id};

/// The trace context that a request brings. Two are none.
pub(super) fn given(request: &HeaderMap) -> Option<Traceparent> {
    let mut given = request.get_all(header::TRACEPARENT).iter();
    match (given.next(), given.next()) {
        (Some(one), None) => Traceparent::parse(one.to_str().ok()?),
        _ => None,
    }
}

/// A trace that begins with this delivery: derived, so that there is no randomness, and the same bytes received at
/// another time are another trace. Whether it is sampled is decided here and travels with it.
pub(super) fn begun(tracer: &Tracer, sha256: &str, received_at: Micros) -> Traceparent {
    let derived = sha256_hex(format!("{sha256}{received_at}").as_bytes());
    let trace = derived.get(..32).and_then(|hex| u128::from_str_radix(hex, 16).ok());
    let span = derived.get(32..48).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let (trace, span) = (trace.unwrap_or(1).max(1), span.unwrap_or(1).max(1));
    Traceparent::new(trace, span, tracer.samples(trace))
}

/// A sampled request on its way.
pub(super) struct Knock {
    vendor: &'static str,
    context: Traceparent,
    id: SpanId,
    parent: Option<SpanId>,
    /// When its record was handed to the log.
    logging: Micros,
}

impl Knock {
    /// Of a trace that it brought, its span comes after the bringer's; of one that begins with it, it is the first.
    pub(super) fn new(
        vendor: &'static str,
        context: Traceparent,
        given: bool,
        logging: Micros,
    ) -> Self {
        let Traceparent { trace, span, .. } = context;
        let (id, parent) = if given {
            (span_id(trace, "request", &format!("{span:016x} {logging}")), Some(span))
        } else {
            (span, None)
        };
        Self { vendor, context, id, parent, logging }
    }

    /// The request is answered: its span, from its complete body to the answer, and that of its record.
    pub(super) fn answered(
        self,
        tracer: &Tracer,
        (from, until): (Micros, Micros),
        status: StatusCode,
    ) {
        let failed = status.is_server_error();
        let request = Span {
            trace: self.context.trace,
            id: self.id,
            parent: self.parent,
            name: "POST /webhooks/{vendor}",
            kind: Kind::Server,
            from,
            until,
            attributes: vec![
                ("http.request.method", Value::Name("POST")),
                ("http.route", Value::Name("/webhooks/{vendor}")),
                ("http.response.status_code", Value::Number(i64::from(status.as_u16()))),
                ("bridge.vendor", Value::Name(self.vendor)),
            ],
            links: Vec::new(),
            failed,
        };
        tracer.send(Span {
            id: span_id(request.trace, "send", &format!("{:016x}", request.id)),
            parent: Some(request.id),
            name: "send raw-webhooks",
            kind: Kind::Producer,
            from: self.logging,
            attributes: vec![
                ("messaging.system", Value::Name("kafka")),
                ("messaging.destination.name", Value::Name(Topic::RawWebhooks.name())),
            ],
            ..request.clone()
        });
        tracer.send(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_or_begins() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut request = HeaderMap::new();
        assert_eq!(given(&request), None);
        let off = Tracer::default();
        let own = begun(&off, "abc", 1);
        assert_eq!(own, begun(&off, "abc", 1));
        assert_ne!(own, begun(&off, "abc", 2));
        assert!(!own.is_sampled(), "nobody would take its spans");
        request.append("traceparent", good.parse().expect("a value"));
        assert_eq!(given(&request).map(|context| context.to_string()).as_deref(), Some(good));
        request.append("traceparent", good.parse().expect("a value"));
        assert_eq!(given(&request), None, "two are none");
    }
}
