//! Spans and metrics to a collector: OTLP over HTTP, protobuf, by configuration. Off where no endpoint is named.
//!
//! # What a collector can cost us
//! Nothing but its bytes. Spans wait in a queue with a bound and are dropped and counted beyond it
//! (`bridge_otlp_total`); a call has a deadline; what a call does not bring is counted and not tried again, because a
//! queue of retries is the memory that a failing collector costs; a stop waits two seconds for the last of them.
//! Whoever does the work never waits for any of this.
//!
//! # Why not the SDK
//! It hides how many spans it has dropped, its processors are threads of their own that a stop can hang on, and
//! nobody outside of it may make the metrics that its exporter takes, so Prometheus' histograms could not be sent as
//! they are. The messages are OpenTelemetry's own (`opentelemetry-proto`); what is left is a queue and a POST.

mod wire;

use std::time::Duration;

use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use wire::Source;

use crate::error::{Error, Result};
use crate::model::time::Micros;
use crate::telemetry::Settings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{Span, Tracer};

/// The most spans of one call.
const CALL_SPANS_MAX: usize = 512;
/// How long a call waits for more spans once there is one.
const GATHER: Duration = Duration::from_millis(500);
/// How long a stop waits for what is queued.
const STOP: Duration = Duration::from_secs(2);
/// What protobuf is called.
const PROTOBUF: &str = "application/x-protobuf";

/// What sends to the collector, until it is stopped.
#[derive(Debug, Default)]
pub struct Exporter {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts to send what these metrics hold, and spans; gives the metrics with where spans go. Without an endpoint
/// they go nowhere. `now` is the wall clock.
///
/// # Errors
/// Where no client for the endpoint can be made.
pub fn start(
    settings: &Settings,
    source: &Source,
    mut metrics: Metrics,
    now: fn() -> Micros,
) -> Result<(Metrics, Exporter)> {
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok((metrics, Exporter::default()));
    };
    let client = reqwest::Client::builder()
        .timeout(Duration::from_millis(settings.otlp_timeout_ms))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|_| Error::internal("make a client for telemetry.otlp_endpoint"))?;
    let (spans, waiting) = mpsc::channel(settings.spans_queue_max);
    let dropped = metrics.exports.at(["spans", "dropped"]).clone();
    metrics.tracer = Tracer::new(spans, settings.sample_ratio, dropped);
    let collector = |signal, path: &str| Collector {
        client: client.clone(),
        url: format!("{}{path}", endpoint.trim_end_matches('/')),
        source: source.clone(),
        signal,
        metrics: metrics.clone(),
        answers: true,
    };
    let stop = CancellationToken::new();
    let mut tasks =
        vec![tokio::spawn(collector("spans", "/v1/traces").spans(waiting, stop.clone()))];
    if settings.otlp_metrics_interval_s > 0 {
        let every = Duration::from_secs(settings.otlp_metrics_interval_s);
        let rounds = collector("metrics", "/v1/metrics").rounds(every, now, stop.clone());
        tasks.push(tokio::spawn(rounds));
    }
    Ok((metrics, Exporter { stop, tasks }))
}

impl Exporter {
    /// Sends what is queued and ends, within two seconds whatever the collector does.
    pub async fn stop(self) {
        self.stop.cancel();
        let aborts: Vec<_> = self.tasks.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(STOP, futures_util::future::join_all(self.tasks)).await.is_err() {
            tracing::warn!("the collector did not take the last spans and metrics in time");
            for task in aborts {
                task.abort();
            }
        }
    }
}

/// One of the collector's doors.
struct Collector {
    client: reqwest::Client,
    url: String,
    source: Source,
    signal: &'static str,
    metrics: Metrics,
    /// Whether it took the last call: an outage is logged when it begins and when it ends.
    answers: bool,
}

impl Collector {
    /// Sends spans as they come, then, asked to stop, those that wait.
    async fn spans(mut self, mut waiting: mpsc::Receiver<Span>, stop: CancellationToken) {
        let mut gathered = Vec::new();
        loop {
            let more = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                more = gather(&mut waiting, &mut gathered) => more,
            };
            self.send_spans(&mut gathered).await;
            if !more {
                return;
            }
        }
        waiting.close();
        while !gathered.is_empty() || waiting.recv_many(&mut gathered, CALL_SPANS_MAX).await > 0 {
            self.send_spans(&mut gathered).await;
        }
    }

    async fn send_spans(&mut self, gathered: &mut Vec<Span>) {
        let spans = std::mem::take(gathered);
        if spans.is_empty() {
            return;
        }
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let body = wire::spans(&self.source, spans).encode_to_vec();
        self.call(body, count).await;
    }

    /// Sends what the registry holds, again and again, and a last time when it is asked to stop.
    async fn rounds(mut self, every: Duration, now: fn() -> Micros, stop: CancellationToken) {
        let since = now();
        let mut stopping = false;
        while !stopping {
            stopping = tokio::time::timeout(every, stop.cancelled()).await.is_ok();
            let families = self.metrics.gather();
            let body = wire::metrics(&self.source, &families, since, now()).encode_to_vec();
            self.call(body, 1).await;
        }
    }

    /// One call; what it does not bring is counted and forgotten.
    async fn call(&mut self, body: Vec<u8>, items: u64) {
        let call = self.client.post(&self.url).header("content-type", PROTOBUF).body(body).send();
        let taken = call.await.is_ok_and(|answer| answer.status().is_success());
        let fate = if taken { "sent" } else { "failed" };
        self.metrics.exports.at([self.signal, fate]).inc_by(items);
        if self.answers && !taken {
            tracing::warn!(signal = self.signal, "the collector does not take what it is sent");
        } else if taken && !self.answers {
            tracing::info!(signal = self.signal, "the collector takes what it is sent again");
        }
        self.answers = taken;
    }
}

/// Takes what waits, at most a call's worth, a moment after the first of it came; gives whether more can come. What
/// it has taken stays taken where it is dropped half-way.
async fn gather(waiting: &mut mpsc::Receiver<Span>, gathered: &mut Vec<Span>) -> bool {
    if gathered.is_empty() && waiting.recv_many(gathered, CALL_SPANS_MAX).await == 0 {
        return false;
    }
    if gathered.len() < CALL_SPANS_MAX {
        tokio::time::sleep(GATHER).await;
    }
    while gathered.len() < CALL_SPANS_MAX
        && let Ok(span) = waiting.try_recv()
    {
        gathered.push(span);
    }
    true
}

#[cfg(test)]
mod tests;
