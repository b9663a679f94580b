//! Spans and metrics as OTLP has them. Pure.
//!
//! The registry of Prometheus is the truth: every round sends what stands in it, cumulative since the process began,
//! histograms with their bounds, under the same names.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as Wired, Status, span, status,
};
use prometheus::proto::{self, MetricFamily, MetricType};

use crate::model::time::Micros;
use crate::telemetry::metrics::TABLE;
use crate::telemetry::trace::{Kind, Span, Value};

/// Who sends.
#[derive(Clone, Debug)]
pub struct Source {
    /// The role: `ingress`, `pipeline` or `all`.
    pub role: &'static str,
    /// The name of this process among its like.
    pub instance: String,
}

impl Source {
    fn resource(&self) -> Resource {
        let attributes = vec![
            text("service.name", env!("CARGO_PKG_NAME").to_owned()),
            text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            text("service.instance.id", self.instance.clone()),
            text("bridge.role", self.role.to_owned()),
        ];
        Resource { attributes, ..Resource::default() }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value))
}

fn nanos(at: Micros) -> u64 {
    u64::try_from(at).unwrap_or(0).saturating_mul(1_000)
}

// ── spans ────────────────────────────────────────────────────────────────────────────────────────────────────

/// A request that carries these spans.
#[must_use]
pub(super) fn spans(source: &Source, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let spans = spans.into_iter().map(wired).collect();
    let scope_spans = ScopeSpans { scope: Some(scope()), spans, schema_url: String::new() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(source.resource()),
            scope_spans: vec![scope_spans],
            schema_url: String::new(),
        }],
    }
}

fn wired(ended: Span) -> Wired {
    let kind = match ended.kind {
        Kind::Internal => span::SpanKind::Internal,
        Kind::Server => span::SpanKind::Server,
        Kind::Producer => span::SpanKind::Producer,
        Kind::Consumer => span::SpanKind::Consumer,
    };
    let code = if ended.failed { status::StatusCode::Error } else { status::StatusCode::Unset };
    let attributes = ended.attributes.into_iter().map(|(key, value)| match value {
        Value::Name(name) => text(key, name.to_owned()),
        Value::Number(number) => attribute(key, any_value::Value::IntValue(number)),
    });
    let links = ended.links.into_iter().map(|(trace, span)| span::Link {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: span.to_be_bytes().to_vec(),
        ..span::Link::default()
    });
    Wired {
        trace_id: ended.trace.to_be_bytes().to_vec(),
        span_id: ended.id.to_be_bytes().to_vec(),
        parent_span_id: ended.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: 1,
        name: ended.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanos(ended.from),
        end_time_unix_nano: nanos(ended.until.max(ended.from)),
        attributes: attributes.collect(),
        links: links.collect(),
        status: Some(Status { code: code.into(), message: String::new() }),
        ..Wired::default()
    }
}

// ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────

/// A request that carries what the registry holds now; `since` is when the process began.
#[must_use]
pub(super) fn metrics(
    source: &Source,
    families: &[MetricFamily],
    since: Micros,
    now: Micros,
) -> ExportMetricsServiceRequest {
    let times = Times { since: nanos(since), now: nanos(now) };
    let metrics = families.iter().map(|family| times.metric(family)).collect();
    let scope_metrics = ScopeMetrics { scope: Some(scope()), metrics, schema_url: String::new() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(source.resource()),
            scope_metrics: vec![scope_metrics],
            schema_url: String::new(),
        }],
    }
}

/// The unit of a metric in UCUM; what is counted stands in braces.
fn unit(name: &str) -> String {
    match TABLE.iter().find(|row| row.name == name).map(|row| row.unit) {
        Some("seconds") => "s".to_owned(),
        Some("bytes") => "By".to_owned(),
        Some("1 or 0") | None => "1".to_owned(),
        Some(counted) => format!("{{{counted}}}"),
    }
}

struct Times {
    since: u64,
    now: u64,
}

impl Times {
    fn metric(&self, family: &MetricFamily) -> Metric {
        let cumulative = AggregationTemporality::Cumulative.into();
        let series = family.get_metric();
        let numbers = |value: fn(&proto::Metric) -> f64| {
            series.iter().map(|one| self.number(one, value(one))).collect()
        };
        let data = match family.get_field_type() {
            MetricType::COUNTER => metric::Data::Sum(Sum {
                data_points: numbers(|one| one.get_counter().get_value()),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
                data_points: series.iter().map(|one| self.histogram(one)).collect(),
                aggregation_temporality: cumulative,
            }),
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                metric::Data::Gauge(Gauge {
                    data_points: numbers(|one| one.get_gauge().get_value()),
                })
            }
        };
        Metric {
            name: family.name().to_owned(),
            description: family.help().to_owned(),
            unit: unit(family.name()),
            metadata: Vec::new(),
            data: Some(data),
        }
    }

    fn number(&self, one: &proto::Metric, value: f64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: labels(one),
            start_time_unix_nano: self.since,
            time_unix_nano: self.now,
            value: Some(number_data_point::Value::AsDouble(value)),
            ..NumberDataPoint::default()
        }
    }

    fn histogram(&self, one: &proto::Metric) -> HistogramDataPoint {
        let seen = one.get_histogram();
        let mut below = 0;
        let mut bounds = Vec::new();
        let mut counts = Vec::new();
        for bucket in seen.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
            bounds.push(bucket.upper_bound());
            counts.push(bucket.cumulative_count().saturating_sub(below));
            below = bucket.cumulative_count();
        }
        // Prometheus counts up to each bound, OTLP between two: the last stands for what lies above all.
        counts.push(seen.get_sample_count().saturating_sub(below));
        HistogramDataPoint {
            attributes: labels(one),
            start_time_unix_nano: self.since,
            time_unix_nano: self.now,
            count: seen.get_sample_count(),
            sum: Some(seen.get_sample_sum()),
            bucket_counts: counts,
            explicit_bounds: bounds,
            ..HistogramDataPoint::default()
        }
    }
}

fn labels(one: &proto::Metric) -> Vec<KeyValue> {
    one.get_label().iter().map(|pair| text(pair.name(), pair.value().to_owned())).collect()
}
