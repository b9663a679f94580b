//! The admin listener: is it alive, may it have traffic, what does it count.
//!
//! It has a port of its own, so that nobody who can reach the webhooks can reach it. `/health` says
//! that the process runs, and nothing about its dependencies: restarting it would not mend Kafka.
//! `/ready` asks them, by probes that do the real thing (an acknowledged produce, a query), each
//! within a deadline. `/metrics` is Prometheus' text.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;

/// How long a caller may take for its request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// How many callers are answered at once; the next waits in the listener's backlog.
const CALLERS_MAX: u32 = 64;
/// After an accept that failed, so that a process without file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the admin listener is, and how long a probe may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The address that the admin listener binds.
    pub address: SocketAddr,
    /// A probe that has not answered by then has failed, ms.
    pub probe_ms_max: u64,
}

/// What a probe returns: whether its dependency does its work.
pub type Probed = Pin<Box<dyn Future<Output = bool> + Send>>;
type Probe = Box<dyn Fn() -> Probed + Send + Sync>;

/// Whether this process may have traffic: it is not stopping, and each probe says yes in time.
pub struct Readiness {
    stop: CancellationToken,
    deadline: Duration,
    probes: Vec<(&'static str, Probe)>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.probes.iter().map(|(name, _)| name)).finish()
    }
}

impl Readiness {
    /// Ready until `stop`, with no probes yet.
    #[must_use]
    pub fn new(stop: CancellationToken, deadline: Duration) -> Self {
        Self { stop, deadline, probes: Vec::new() }
    }

    /// This, and a probe more. `name` stands in the answer and in `dependency_up`.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        probe: impl Fn() -> Probed + Send + Sync + 'static,
    ) -> Self {
        self.probes.push((name, Box::new(probe)));
        self
    }

    /// Asks all probes at once. While it stops, none is asked and none is ready.
    pub async fn ask(&self) -> Report {
        if self.stop.is_cancelled() {
            return Report { ready: false, stopping: true, parts: Vec::new() };
        }
        let parts = join_all(self.probes.iter().map(|(name, probe)| async move {
            (*name, tokio::time::timeout(self.deadline, probe()).await.unwrap_or(false))
        }))
        .await;
        Report { ready: parts.iter().all(|(_, up)| *up), stopping: false, parts }
    }
}

/// What the probes said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether traffic may come.
    pub ready: bool,
    /// Whether the process is stopping.
    pub stopping: bool,
    /// Each probe and whether it succeeded.
    pub parts: Vec<(&'static str, bool)>,
}

impl Report {
    /// `{"ready":…,"stopping":…,"parts":{…}}`; every name is a literal of ours.
    #[must_use]
    pub fn json(&self) -> String {
        let parts: Vec<String> =
            self.parts.iter().map(|(name, up)| format!("\"{name}\":{up}")).collect();
        format!(
            "{{\"ready\":{},\"stopping\":{},\"parts\":{{{}}}}}",
            self.ready,
            self.stopping,
            parts.join(",")
        )
    }
}

/// Answers on this listener until `stop`, which comes after the process has drained: until then it
/// is asked.
pub async fn serve(
    listener: TcpListener,
    readiness: Arc<Readiness>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let answering: Answering = Arc::new(move |head| {
        let (readiness, metrics) = (Arc::clone(&readiness), metrics.clone());
        Box::pin(async move { answer(&head, &readiness, &metrics).await })
    });
    pages(listener, answering, stop, Duration::ZERO).await;
}

/// What answers a request, of which nothing but its head is read.
pub type Answering = Arc<dyn Fn(Parts) -> Answered + Send + Sync>;
/// Its answer, to come.
pub type Answered = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Answers few callers, one request each, on this listener until `stop`; who is being answered then has so long.
pub async fn pages(
    listener: TcpListener,
    answering: Answering,
    stop: CancellationToken,
    drain: Duration,
) {
    let callers = Arc::new(Semaphore::new(usize::try_from(CALLERS_MAX).unwrap_or(1)));
    let ended = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next(&listener, &callers) => accepted,
        };
        let Some((stream, caller)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (answering, ended) = (Arc::clone(&answering), ended.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = answer_all(stream, answering) => {}
            }
            drop(caller);
        });
    }
    drop(listener);
    let all = tokio::time::timeout(drain, callers.acquire_many(CALLERS_MAX)).await;
    drop(all);
    ended.cancel();
}

/// The next caller, once there is room for one.
async fn next(
    listener: &TcpListener,
    callers: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let room = Arc::clone(callers).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, room))
}

async fn answer_all(stream: TcpStream, answering: Answering) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answering(request.into_parts().0);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if ended.is_err() {
        tracing::debug!("a caller went away or sent no request");
    }
}

async fn answer(
    request: &Parts,
    readiness: &Readiness,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    const JSON: &str = "application/json";
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    let known = matches!(request.uri.path(), "/health" | "/ready" | "/metrics");
    if known && request.method != Method::GET {
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new());
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    match request.uri.path() {
        "/health" => page(StatusCode::OK, JSON, "{\"live\":true}".to_owned()),
        "/ready" => {
            let report = readiness.ask().await;
            for (name, up) in &report.parts {
                metrics.up.set(name, i64::from(*up));
            }
            let status =
                if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            page(status, JSON, report.json())
        }
        "/metrics" => page(StatusCode::OK, TEXT, metrics.text()),
        _ => page(StatusCode::NOT_FOUND, TEXT, String::new()),
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn says(up: bool) -> impl Fn() -> Probed + Send + Sync + 'static {
        move || Box::pin(std::future::ready(up))
    }

    fn stuck() -> Probed {
        Box::pin(std::future::pending())
    }

    async fn call(at: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(at).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    async fn running(readiness: Readiness) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::new(readiness), Metrics::new(), stop.clone()));
        (at, stop)
    }

    #[tokio::test]
    async fn every_part_must_say_yes_in_time() {
        let stop = CancellationToken::new();
        let soon = Duration::from_millis(20);
        let fine = Readiness::new(stop.clone(), soon).with("kafka", says(true));
        assert!(fine.ask().await.ready);
        let late = Readiness::new(stop.clone(), soon).with("kafka", says(true)).with("pg", stuck);
        assert_eq!(late.ask().await.parts, [("kafka", true), ("pg", false)]);
        stop.cancel();
        assert_eq!(
            fine.ask().await.json(),
            r#"{"ready":false,"stopping":true,"parts":{}}"#,
            "who stops is not ready, whatever its dependencies say"
        );
    }

    #[tokio::test]
    async fn pages_are_where_they_are_expected() {
        let draining = CancellationToken::new();
        let readiness = Readiness::new(draining.clone(), Duration::from_secs(1))
            .with("kafka", says(true))
            .with("redis", says(false));
        let (at, stop) = running(readiness).await;
        let live = call(at, "GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(live.starts_with("HTTP/1.1 200") && live.ends_with("{\"live\":true}"), "{live}");
        let ready = call(at, "GET /ready HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(ready.ends_with(r#""parts":{"kafka":true,"redis":false}}"#), "{ready}");
        let page = call(at, "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(page.contains("bridge_dependency_up{dependency=\"redis\"} 0"), "{page}");
        let post = call(at, "POST /ready HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET"), "{post}");
        let other = call(at, "GET /webhooks/oura HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
        stop.cancel();
    }
}
