//! The exporter against collectors of every mood.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::telemetry::trace::{Kind, Value};

/// A collector: it keeps what it is sent and answers with this status; without one it never answers.
struct Fake {
    at: String,
    taken: mpsc::Receiver<(String, Vec<u8>)>,
}

async fn fake(status: Option<u16>) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = format!("http://{}/", listener.local_addr().expect("an address"));
    let (keep, taken) = mpsc::channel(1_000);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, status, keep.clone()));
        }
    });
    Fake { at, taken }
}

async fn answer(mut stream: TcpStream, status: Option<u16>, keep: mpsc::Sender<(String, Vec<u8>)>) {
    let mut seen = Vec::new();
    while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
        let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.expect("a length").parse().expect("a number");
        if seen.len() < end + 4 + length {
            continue;
        }
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        let body = seen[end + 4..end + 4 + length].to_vec();
        seen.drain(..end + 4 + length);
        keep.send((path, body)).await.expect("kept");
        let Some(status) = status else { continue };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("answered");
    }
}

fn settings(endpoint: &str) -> Settings {
    Settings {
        biometric_values: true,
        otlp_endpoint: Some(endpoint.to_owned()),
        otlp_timeout_ms: 5_000,
        otlp_metrics_interval_s: 1,
        sample_ratio: 1.0,
        spans_queue_max: 100,
    }
}

fn begin(settings: &Settings) -> (Metrics, Exporter) {
    let source = Source { role: "ingress", instance: "here".to_owned() };
    start(settings, &source, Metrics::of(&["oura"]), || 5_000_000).expect("started")
}

fn span(id: u64) -> Span {
    Span {
        trace: 7,
        id,
        parent: Some(3),
        name: "POST /webhooks",
        kind: Kind::Server,
        from: 1_000,
        until: 2_500,
        attributes: vec![("vendor", Value::Name("oura")), ("offset", Value::Number(4))],
        links: vec![(8, 9)],
        failed: true,
    }
}

fn exported(metrics: &Metrics, signal: &str, fate: &str) -> u64 {
    metrics.exports.at([signal, fate]).get()
}

#[tokio::test]
async fn a_span_arrives_as_it_ended() {
    let mut fake = fake(Some(200)).await;
    let (metrics, exporter) = begin(&settings(&fake.at));
    metrics.tracer.send(span(5));
    exporter.stop().await;
    let (path, body) = loop {
        let (path, body) = fake.taken.recv().await.expect("a call");
        if path == "/v1/traces" {
            break (path, body);
        }
    };
    assert_eq!(path, "/v1/traces");
    let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP");
    let of = &request.resource_spans[0];
    let resource = format!("{:?}", of.resource.as_ref().expect("a resource"));
    for said in ["service.name", "biometric-bridge", "service.instance.id", "here", "ingress"] {
        assert!(resource.contains(said), "{said} in {resource}");
    }
    let span = &of.scope_spans[0].spans[0];
    assert_eq!((span.trace_id.len(), span.trace_id[15], span.span_id[7]), (16, 7, 5));
    assert_eq!((span.parent_span_id[7], span.name.as_str(), span.kind), (3, "POST /webhooks", 2));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_000_000, 2_500_000));
    assert_eq!((span.links[0].trace_id[15], span.links[0].span_id[7]), (8, 9));
    assert_eq!(span.status.as_ref().map(|status| status.code), Some(2));
    assert_eq!(span.attributes.len(), 2);
    assert_eq!(exported(&metrics, "spans", "sent"), 1);
}

/// All names of the registry, each with its kind; histograms with what lies between their bounds.
#[tokio::test]
async fn metrics_arrive_as_the_registry_has_them() {
    let mut fake = fake(Some(200)).await;
    let (metrics, exporter) = begin(&settings(&fake.at));
    metrics.requests.at(["oura", "200"]).inc_by(3);
    metrics.connections.set(2);
    for seconds in [0.0004, 0.003, 0.0031, 100.0] {
        metrics.permit_wait_seconds.observe(seconds);
    }
    exporter.stop().await;
    let (path, body) = fake.taken.recv().await.expect("a call");
    assert_eq!(path, "/v1/metrics");
    let request = ExportMetricsServiceRequest::decode(body.as_slice()).expect("OTLP");
    let sent: &[Metric] = &request.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!(sent.len(), metrics.gather().len());
    let of = |name: &str| sent.iter().find(|one| one.name == name).expect("a metric");
    let requests = of("webhook_events_total");
    assert_eq!(requests.unit, "{requests}");
    let Some(metric::Data::Sum(sum)) = &requests.data else { panic!("{requests:?}") };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    let of_oura = sum.data_points.iter().find(|point| {
        let labels = format!("{:?}", point.attributes);
        labels.contains("\"oura\"") && labels.contains("\"200\"")
    });
    let value = of_oura.and_then(|point| point.value);
    assert_eq!(value, Some(number_data_point::Value::AsDouble(3.0)));
    let Some(metric::Data::Gauge(gauge)) = &of("bridge_connections").data else {
        panic!("a gauge")
    };
    assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(2.0)));
    let waits = of("semaphore_wait_seconds");
    assert_eq!(waits.unit, "s");
    let Some(metric::Data::Histogram(seen)) = &waits.data else { panic!("a histogram") };
    let point = &seen.data_points[0];
    assert_eq!((point.count, point.sum), (4, Some(100.0065)));
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.bucket_counts[..5], [1, 0, 0, 2, 0]);
    assert_eq!(point.bucket_counts.last(), Some(&1), "above all bounds");
}

/// Refusing, hanging, gone: nobody waits, what is lost is counted, a stop ends in time.
#[tokio::test]
async fn a_failing_collector_costs_nothing() {
    let refusing = fake(Some(503)).await;
    let hanging = fake(None).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr();
    let gone = format!("http://{}", gone.expect("an address"));
    for (endpoint, hangs) in [(&refusing.at, false), (&hanging.at, true), (&gone, false)] {
        let (metrics, exporter) = begin(&settings(endpoint));
        for id in 1..=1_000 {
            metrics.tracer.send(span(id)); // it is no future: nobody can wait for it
        }
        tokio::time::sleep(GATHER * 2).await;
        let stopped = tokio::time::timeout(STOP + GATHER, exporter.stop()).await;
        assert!(stopped.is_ok(), "a stop waits for {endpoint}");
        let dropped = exported(&metrics, "spans", "dropped");
        assert!(dropped >= 900, "a hundred may wait, {dropped} were dropped");
        assert_eq!(exported(&metrics, "spans", "sent"), 0);
        assert_eq!(exported(&metrics, "spans", "failed") > 0, !hangs, "{endpoint}");
    }
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_sent_and_nothing_runs() {
    let (metrics, exporter) = begin(&Settings { otlp_endpoint: None, ..settings("") });
    assert!(!metrics.tracer.is_on() && exporter.tasks.is_empty());
    exporter.stop().await;
}
