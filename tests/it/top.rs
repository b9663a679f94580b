//! `top` as it is run, against admin listeners in this process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use biometric_bridge::telemetry::health::{self, Probed, Readiness};
use biometric_bridge::telemetry::metrics::Metrics;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::{code, complaints, out, program};

/// A process that can be looked at, until it is dropped.
struct Process {
    at: SocketAddr,
    metrics: Metrics,
    kafka: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Process {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("an address");
        let (metrics, stop) = (Metrics::of(&["terra"]), CancellationToken::new());
        let kafka = Arc::new(AtomicBool::new(true));
        let up = Arc::clone(&kafka);
        let probe = move || -> Probed { Box::pin(std::future::ready(up.load(Ordering::Acquire))) };
        let readiness = Readiness::new(stop.clone(), Duration::from_secs(1)).with("kafka", probe);
        tokio::spawn(health::serve(listener, Arc::new(readiness), metrics.clone(), stop.clone()));
        Self { at, metrics, kafka, stop }
    }

    fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Answers requests from now on, one every 5 ms.
    fn work(&self) {
        let (metrics, stop) = (self.metrics.clone(), self.stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                metrics.requests.at(["terra", "200"]).inc();
                metrics.request_seconds.at(["terra"]).observe(0.003);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    format!("http://{}", listener.local_addr().expect("an address"))
}

async fn top(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = ["top"].iter().chain(arguments).map(ToString::to_string).collect();
    let ended = tokio::task::spawn_blocking(move || program(&arguments).output());
    ended.await.expect("it ends").expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn once_says_what_a_process_does() {
    let process = Process::start().await;
    process.metrics.requests.at(["terra", "200"]).inc_by(1_000);
    process.metrics.permits.set(64);
    process.work();
    let output = top(&["--once", "--json", "--url", &process.url()]).await;
    assert_eq!((code(&output), complaints(&output)), (0, ""));
    assert_eq!(out(&output).lines().count(), 1, "{}", out(&output));
    let said: Value = serde_json::from_str(out(&output)).expect("JSON");
    assert_eq!(said["processes"][0]["state"], "ready", "{said}");
    assert_eq!(said["processes"][0]["dependencies"]["kafka"]["up"], true);
    let accepted = &said["flow"]["terra"]["accepted"];
    let per_s = accepted["per_s"].as_f64().expect("a rate");
    assert!((1.0..=250.0).contains(&per_s), "of what came since, not of all: {said}");
    assert!(accepted["in_all"].as_u64().expect("a sum") > 1_000);
    let took = &said["latencies"]["request"]["last"];
    let p99 = took["p99_ms"].as_f64().expect("a latency");
    assert!((2.0..=4.0).contains(&p99), "within the bucket of 3 ms: {said}");
    assert_eq!(said["permits"]["all"], 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_away_is_no_error_beside_one_who_answers() {
    let process = Process::start().await;
    process.kafka.store(false, Ordering::Release);
    let away = nobody();
    let urls = ["--url", &process.url(), "--url", &away];
    for how in [&["--once"][..], &["--count", "2"]] {
        let output = top(&[how, &urls].concat()).await;
        assert_eq!((code(&output), complaints(&output)), (0, ""), "{how:?}");
        let lines: Vec<&str> = out(&output).lines().collect();
        assert_eq!(lines.len(), how.len(), "{lines:?}");
        let (gone, down) = (away.replace("http://", "away="), format!("down={}/kafka", process.at));
        for line in lines {
            assert!(line.contains(&gone) && line.contains(&down), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn once_where_nobody_answers_is_1_and_says_what_to_do() {
    let away = nobody();
    let output = top(&["--once", "--url", &away]).await;
    assert_eq!(code(&output), 1);
    assert!(out(&output).contains("away="), "{}", out(&output));
    let told = complaints(&output);
    assert!(told.contains(&away) && told.contains("start") && told.contains("--url"), "{told}");
    let output = top(&["--count", "1", "--json", "--url", &away]).await;
    assert_eq!((code(&output), complaints(&output)), (0, ""), "it goes on looking");
}

/// Something else listens there: its answer is no page, and it says so.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_page_is_unreadable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let page = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n<html>\n";
            let mut head = [0; 512];
            let asked = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await;
            let told = tokio::io::AsyncWriteExt::write_all(&mut stream, page.as_bytes()).await;
            drop((asked, told));
        }
    });
    let output = top(&["--once", "--json", "--url", &url]).await;
    assert_eq!(code(&output), 1);
    let said: Value = serde_json::from_str(out(&output)).expect("JSON");
    assert_eq!(said["processes"][0]["state"], "unreadable", "{said}");
    assert_eq!(said["processes"][0]["flaw"], "line 1: a name is missing");
}

/// A signal to a running `top`, once it has printed its first line; its lines and its exit code.
async fn signalled(signal: &'static str, arguments: &[&str]) -> (Vec<String>, Option<i32>) {
    let arguments: Vec<&str> = ["top"].iter().chain(arguments).copied().collect();
    let mut child = program(&arguments).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let ended = tokio::task::spawn_blocking(move || {
        let mut seen = vec![lines.next().expect("a line").expect("text")];
        let asked = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(asked.expect("kill runs").success());
        seen.extend(lines.map(|line| line.expect("text")));
        (seen, child.wait().expect("it ends").code())
    });
    ended.await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_with_0() {
    let process = Process::start().await;
    let (lines, code) = signalled("-INT", &["--url", &process.url()]).await;
    assert!(lines.iter().all(|line| line.starts_with("time=")), "{lines:?}");
    assert_eq!(code, Some(0));
}

/// Of a terminal that somebody resizes while the lines go elsewhere nothing is seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_resize_prints_nothing() {
    let process = Process::start().await;
    let (lines, code) = signalled("-WINCH", &["--count", "2", "--url", &process.url()]).await;
    assert_eq!((lines.len(), code), (2, Some(0)), "{lines:?}");
}
