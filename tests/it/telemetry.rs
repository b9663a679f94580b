//! What is seen from outside: one trace over the whole way in a collector that keeps what it gets, nothing of a
//! person in it, and no series that a sender made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use biometric_bridge::ingress::{self, Hatch, VendorKeys};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::record::{Headers, OutRecord};
use biometric_bridge::pipeline::normalise::Unknown;
use biometric_bridge::sim::driver::{Driver, Setting};
use biometric_bridge::sim::real::Real;
use biometric_bridge::sim::traffic::{Keys, Sent, Shares, Sort, Traffic};
use biometric_bridge::sim::{EPOCH_US, sender::SimSender};
use biometric_bridge::stream::relay;
use biometric_bridge::telemetry::Settings;
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::telemetry::otlp::{self, Exporter, Source};
use biometric_bridge::telemetry::trace::Traceparent;
use biometric_bridge::vendors;
use bytes::Bytes;
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::door::{self, KEY, Mood, head, oura, world};

/// Keeps every call: its path and its body.
async fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = format!("http://{}", listener.local_addr().expect("an address"));
    let (keep, kept) = mpsc::channel(1_000);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take(stream, keep.clone()));
        }
    });
    (at, kept)
}

async fn take(mut stream: TcpStream, keep: mpsc::Sender<(String, Vec<u8>)>) {
    let mut seen = Vec::new();
    while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
        let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.expect("a length").parse().expect("a number");
        if seen.len() < end + 4 + length {
            continue;
        }
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        let body = seen[end + 4..end + 4 + length].to_vec();
        seen.drain(..end + 4 + length);
        keep.send((path, body)).await.expect("kept");
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("answered");
    }
}

/// The door and the pipeline over a world in memory, with a collector.
struct Way {
    driver: Driver,
    door: Hatch<SimSender>,
    traffic: Traffic,
    exporter: Exporter,
    kept: mpsc::Receiver<(String, Vec<u8>)>,
}

async fn way(sample_ratio: f64) -> Way {
    let (endpoint, kept) = collector().await;
    let settings = Settings {
        biometric_values: true,
        otlp_endpoint: Some(endpoint),
        otlp_timeout_ms: 5_000,
        otlp_metrics_interval_s: 60,
        sample_ratio,
        spans_queue_max: 10_000,
    };
    let source = Source { role: "all", instance: "here".to_owned() };
    let metrics = Metrics::of(&vendors::names());
    let (metrics, exporter) =
        otlp::start(&settings, &source, metrics, || EPOCH_US).expect("started");
    let real = Real::new().expect("schemas");
    let mut driver = Driver::new(Setting::default());
    driver.seen_by(metrics.clone());
    let worker = Setting::default().worker;
    driver.add_worker(&real, worker);
    let wait_max = worker.wait_max;
    let relay = relay::Settings { wait_max, ..relay::Settings::default() };
    real.add_relay(&mut driver, Unknown::Hold, relay);
    let keys = Keys { terra: KEY.into(), healthkit: KEY.into() };
    let traffic = Traffic::new(1, 3, Shares::default(), keys);
    for person in traffic.people() {
        driver.connect(person.healthkit());
    }
    let signs = VendorKeys { signing: vec![KEY.into()], ..VendorKeys::default() };
    let served = ["terra", "healthkit"].map(|name| (name.to_owned(), signs.clone()));
    let keys = ingress::Keys { pseudonym: KEY.into(), vendors: served.into() };
    let door = Hatch::new(door::settings(), keys, driver.sender(), metrics).expect("let in");
    driver.run().expect("at rest");
    Way { driver, door, traffic, exporter, kept }
}

impl Way {
    fn now_us(&self) -> i64 {
        EPOCH_US + i64::try_from(self.driver.now().as_micros()).expect("a time")
    }

    /// Sends this and lets the pipeline come to rest.
    async fn send(&mut self, sent: Sent, traceparent: Option<&str>) -> u16 {
        let mut request = http::Request::post(format!("/webhooks/{}", sent.vendor));
        for (name, value) in sent.headers {
            request = request.header(name, value);
        }
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let request = request.body(Full::new(Bytes::from(sent.body))).expect("a request");
        let status = self.door.answer(request, self.now_us()).await.status().as_u16();
        self.driver.advance(Duration::from_millis(100));
        self.driver.run().expect("at rest");
        status
    }

    async fn connect_all(&mut self) {
        for auth in self.traffic.auths(self.now_us()) {
            assert_eq!(self.send(auth, None).await, 200);
        }
    }

    /// The next that becomes one event: a push of samples becomes several.
    fn good(&mut self) -> Sent {
        loop {
            let sent = self.traffic.next(self.now_us());
            if sent.sort == Sort::New && sent.vendor == "terra" {
                return sent;
            }
        }
    }

    /// Every span that the collector has by the end, and all bytes.
    async fn end(mut self) -> (Vec<Span>, Vec<u8>) {
        self.exporter.stop().await;
        let (mut spans, mut bytes) = (Vec::new(), Vec::new());
        while let Ok((path, body)) = self.kept.try_recv() {
            if path == "/v1/traces" {
                let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP");
                let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
                spans.extend(scopes.flat_map(|scope| scope.spans));
                bytes.extend(body);
            }
        }
        (spans, bytes)
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a reader of the event has as its trace.
fn of_event(driver: &Driver) -> Traceparent {
    let topics = [Topic::BiometricEvents, Topic::TerraBiometricEvents];
    let mut events = topics.into_iter().flat_map(|topic| driver.committed(topic));
    let event = events.next_back().expect("an event");
    Traceparent::parse(event.headers.text(header::TRACEPARENT).expect("there")).expect("one")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_from_the_request_to_the_event() {
    let mut way = way(1.0).await;
    way.connect_all().await;
    let sent = way.good();
    assert_eq!(way.send(sent, None).await, 200);
    let context = of_event(&way.driver);
    let (spans, _) = way.end().await;
    let trace = format!("{:032x}", context.trace);
    let of: BTreeMap<&str, &Span> = spans
        .iter()
        .filter(|span| hex(&span.trace_id) == trace)
        .map(|span| (span.name.as_str(), span))
        .collect();
    let names: Vec<&str> = of.keys().copied().collect();
    let all = ["POST /webhooks/{vendor}", "decide", "normalise", "publish", "send raw-webhooks"];
    assert_eq!(names, all, "{spans:#?}");
    let parent = |name: &str| hex(&of[name].parent_span_id);
    let id = |name: &str| hex(&of[name].span_id);
    let request = id("POST /webhooks/{vendor}");
    assert_eq!(request, format!("{:016x}", context.span), "who reads the event goes on from it");
    assert_eq!(parent("POST /webhooks/{vendor}"), "");
    assert_eq!(parent("send raw-webhooks"), request);
    assert_eq!(parent("normalise"), request);
    assert_eq!(parent("decide"), id("normalise"), "though no header carries it");
    assert_eq!(parent("publish"), id("decide"));
    let starts = ["POST /webhooks/{vendor}", "normalise", "decide", "publish"]
        .map(|name| of[name].start_time_unix_nano);
    assert!(starts.is_sorted(), "{starts:?}");
    for name in ["normalise", "decide"] {
        let span = of[name];
        let batch = spans.iter().find(|one| one.span_id == span.links[0].span_id).expect("linked");
        assert_eq!(batch.name, format!("{name} batch"));
        assert!(batch.links.iter().any(|link| link.span_id == span.span_id), "both ways");
        let parts: BTreeSet<&str> = spans
            .iter()
            .filter(|one| one.parent_span_id == batch.span_id)
            .map(|one| one.name.as_str())
            .collect();
        let expected: &[&str] = match name {
            "decide" => &["decide", "kafka", "load", "postgres"],
            _ => &["connections", "convert", "send"],
        };
        assert_eq!(parts, expected.iter().copied().collect(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_comes_along_goes_on_and_what_is_not_sampled_has_no_span() {
    let mut way = way(0.0).await;
    way.connect_all().await;
    let (sent, traced) = (way.good(), way.good());
    assert_eq!(way.send(sent, None).await, 200);
    assert!(!of_event(&way.driver).is_sampled());
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(way.send(traced, Some(given)).await, 200);
    let (spans, _) = way.end().await;
    let of_given: Vec<&Span> =
        spans.iter().filter(|span| given.contains(&hex(&span.trace_id))).collect();
    assert_eq!(of_given.len(), 5, "{spans:#?}");
    let request = of_given.iter().find(|span| span.kind == 2).expect("the request's");
    assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
    let others = spans.iter().filter(|span| !given.contains(&hex(&span.trace_id)));
    assert!(others.clone().all(|span| !span.name.starts_with("POST")), "no other request");
    assert_eq!(others.filter(|span| !span.links.is_empty()).count(), 2, "its two batches");
}

/// A span has no field that a payload would fit into: whatever is sent, all its text is ours.
#[tokio::test(flavor = "multi_thread")]
async fn no_span_says_anything_of_a_person() {
    let mut way = way(1.0).await;
    way.connect_all().await;
    for _ in 0..60 {
        let sent = way.traffic.next(way.now_us());
        way.send(sent, None).await;
    }
    let people: Vec<String> =
        way.traffic.people().iter().map(|person| person.user.as_str().to_owned()).collect();
    let (spans, bytes) = way.end().await;
    assert!(spans.len() > 300, "{}", spans.len());
    let mut said = BTreeSet::new();
    for span in &spans {
        said.insert(span.name.clone());
        assert!(span.events.is_empty() && span.trace_state.is_empty());
        assert_eq!(span.status.as_ref().map(|status| status.message.as_str()), Some(""));
        for pair in &span.attributes {
            said.insert(pair.key.clone());
            if let Some(Value::StringValue(text)) = pair.value.clone().and_then(|any| any.value) {
                said.insert(text);
            }
        }
    }
    let verdicts = ["published", "duplicate", "superseded", "ignored", "waiting", "dead_lettered"];
    let ours: BTreeSet<&str> = ["terra", "healthkit", "POST", "kafka"]
        .into_iter()
        .chain(Topic::ALL.iter().map(|topic| topic.name()))
        .chain(verdicts)
        .chain(["POST /webhooks/{vendor}", "/webhooks/{vendor}", "send raw-webhooks", "normalise"])
        .chain(["normalise batch", "decide", "decide batch", "publish", "connections", "convert"])
        .chain(["note", "send", "commit", "load", "postgres", "redis", "http.request.method"])
        .chain(["http.route", "http.response.status_code", "bridge.vendor", "bridge.verdict"])
        .chain(["messaging.system", "messaging.destination.name", "messaging.kafka.offset"])
        .chain(["messaging.destination.partition.id", "messaging.batch.message_count"])
        .collect();
    let theirs: Vec<&String> = said.iter().filter(|text| !ours.contains(text.as_str())).collect();
    assert_eq!(theirs, Vec::<&String>::new());
    let bytes = String::from_utf8_lossy(&bytes);
    for person in people {
        assert!(!bytes.contains(&person), "{person}");
    }
}

// ── series ───────────────────────────────────────────────────────────────────────────────────────────────────────

fn series(metrics: &Metrics) -> usize {
    metrics.text().lines().filter(|line| !line.starts_with('#')).count()
}

/// What a sender invents: other every time, of every form.
fn hostile(number: u64) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let length = 1 + next() % 40;
    (0..length)
        .map(|_| char::from(b"abcXYZ019-_.~%2f"[usize::try_from(next() % 16).expect("few")]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sender_makes_a_series() {
    let world = world(door::settings()).await;
    world.log.is(Mood::Changes);
    let before = series(&world.metrics);
    for number in 0..400 {
        let made = hostile(number);
        let body = format!(r#"{{"user_id":"{made}","data_type":"{made}","event_type":"{made}"}}"#);
        let request = match number % 8 {
            0 => head(&format!("POST /webhooks/{made}"), &[]),
            1 => head(&format!("POST /{made}/{made}"), &[]),
            2 => head("POST /webhooks/oura", &[(&format!("x-{number}"), &made)]),
            3 => head(&format!("{} /webhooks/oura", made.replace('%', "")), &[]),
            4 => {
                head(&format!("GET /webhooks/oura?verification_token={made}&challenge={made}"), &[])
            }
            5 => head("POST /webhooks/oura", &[("content-encoding", &made)]),
            6 => format!("{made}\r\n\r\n").into_bytes(),
            _ => oura(body.as_bytes()),
        };
        let mut stream = world.connect().await;
        stream.write_all(&request).await.expect("written");
        let mut answer = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_millis(20), stream.read_to_end(&mut answer));
        drop(ended.await);
    }
    assert_eq!(series(&world.metrics), before, "{}", world.metrics.text());
    assert!(world.metrics.failures.at(["ingress", "unknown_vendor"]).get() > 30);
    // What got in, and what a writer of the raw topic could put there.
    let real = Real::new().expect("schemas");
    let mut driver = Driver::new(Setting::default());
    driver.seen_by(world.metrics.clone());
    driver.add_worker(&real, Setting::default().worker);
    let wait_max = Setting::default().worker.wait_max;
    let relay = relay::Settings { wait_max, ..relay::Settings::default() };
    real.add_relay(&mut driver, Unknown::Derive, relay);
    let put = |driver: &mut Driver, record: OutRecord| {
        let value = record.value.unwrap_or_default();
        driver.write(Topic::RawWebhooks, 0, record.key, record.headers, value);
    };
    for record in world.log.records() {
        put(&mut driver, record);
    }
    for number in 0..400 {
        let made = hostile(number);
        let headers = [header::VENDOR, header::ORIGIN, header::RECEIVED_AT, header::TRACEPARENT]
            .iter()
            .fold(Headers::new(), |headers, name| headers.with(*name, made.clone()));
        let value = Some(Bytes::from(made));
        put(&mut driver, OutRecord { topic: Topic::RawWebhooks, key: None, headers, value });
    }
    driver.run().expect("at rest");
    world.metrics.up.set(&hostile(1), 1);
    for dependency in ["kafka", "postgres", "redis", "workers"] {
        world.metrics.up.set(dependency, 1);
    }
    assert_eq!(world.metrics.received.at(["unknown"]).get(), 400);
    let after = series(&world.metrics);
    assert_eq!(after, before + 4, "only the dependencies came");
    assert!(after <= 2_000, "{after}");
}
