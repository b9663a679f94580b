//! `simulate traffic`: vendors' requests at a steady rate, and a ledger of every answer.
//!
//! Open loop: a request has its moment, and its latency counts from that moment, so a stall is seen by all that it
//! delayed. The ledger is the outside witness that `audit` goes by: one JSON line an attempt, written before the
//! next attempt of the same request, with the answer or its absence.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::http::Client;
use crate::cli;
use crate::error::{Error, Kind, Result};
use crate::sim::traffic::{Keys, Sent, Shares, Traffic};
use crate::stream::clock::{Stopwatch, now_us};

/// One line of the ledger: one attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The vendor.
    pub vendor: String,
    /// What the request was made to be ([`crate::sim::traffic::Sort`]).
    pub sort: String,
    /// SHA-256 of its body.
    pub sha256: String,
    /// The answer's status; 0 where there was none, which says nothing about what became of it.
    pub status: u16,
    /// From its moment to its answer, ms.
    pub ms: f64,
    /// When it was sent, µs since the epoch.
    pub at: i64,
    /// Which attempt it was.
    pub attempt: u32,
}

/// What came of it all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Attempts.
    pub sent: u64,
    /// Answered 2xx.
    pub accepted: u64,
    /// Answered 401, as the share of bad signatures must be.
    pub refused: u64,
    /// Answered 503: not durable, to be sent again.
    pub unavailable: u64,
    /// Not answered.
    pub unanswered: u64,
    /// Answered anything else: a fault.
    pub other: u64,
    /// A bad signature that was taken, or a good one that was refused: a fault.
    pub wrong: u64,
    /// How long it took, s.
    pub seconds: f64,
    /// Latencies of what was accepted, ms, as they came.
    #[serde(skip)]
    pub latencies: Vec<f32>,
}

impl Tally {
    /// Counts an attempt.
    pub fn add(&mut self, line: &Line) {
        self.sent += 1;
        let is_refusal = line.sort == "bad_signature";
        match line.status {
            200..=299 => {
                self.accepted += 1;
                self.wrong += u64::from(is_refusal);
                #[expect(
                    clippy::as_conversions,
                    clippy::cast_possible_truncation,
                    reason = "milliseconds need no 64 bits"
                )]
                self.latencies.push(line.ms as f32);
            }
            401 => {
                self.refused += 1;
                self.wrong += u64::from(!is_refusal);
            }
            503 => self.unavailable += 1,
            0 => self.unanswered += 1,
            _ => self.other += 1,
        }
    }

    /// The latency below which this share of accepted requests lies, ms.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(&self.latencies, share)
    }
}

/// The value below which this share lies; 0 of nothing.
#[must_use]
pub fn quantile(values: &[f32], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into what is in memory"
    )]
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().map_or(0.0, f64::from)
}

/// How often a request is sent again before its sender gives up, with a pause between.
const ATTEMPTS_MAX: u32 = 240;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// A vendor's patience.
const DEADLINE: Duration = Duration::from_secs(8);

struct Job {
    sent: Sent,
    moment: Stopwatch,
}

/// Sends traffic until its time is up or it is stopped, and gives the tally; `on_line` sees every attempt.
///
/// # Errors
/// Where the URL or the ledger's file is of no use.
pub async fn traffic(
    arguments: &cli::Traffic,
    keys: Keys,
    stop: CancellationToken,
    on_line: impl Fn(&Line) + Send + Sync + 'static,
) -> Result<Tally> {
    let shares = Shares {
        duplicates: arguments.duplicates,
        corrections: arguments.corrections,
        reordered: arguments.reordered,
        deletions: arguments.deletions,
        malformed: arguments.malformed,
        bad_signatures: arguments.bad_signatures,
    };
    let mut traffic = Traffic::new(arguments.seed, arguments.users, shares, keys);
    let (jobs, queue) = mpsc::channel::<Job>(1024);
    let (lines, written) = mpsc::channel::<Line>(1024);
    let ledger = tokio::spawn(write_ledger(open(arguments.ledger.as_deref())?, written, on_line));
    let queue = Arc::new(Mutex::new(queue));
    let mut clients = Vec::new();
    for _ in 0..arguments.connections.max(1) {
        let client = Client::new(&arguments.url, DEADLINE).ok_or_else(|| {
            Error::new(Kind::RequestRefused, "read --url as http://host:port", "")
        })?;
        let how = How { resend: arguments.resend, closed: arguments.rate == 0 };
        let work = work(client, Arc::clone(&queue), lines.clone(), how);
        clients.push(tokio::spawn(work));
    }
    drop(lines);
    for sent in traffic.auths(now_us()) {
        offer(&jobs, sent).await;
    }
    let begun = Stopwatch::start();
    let interval = match u32::try_from(arguments.rate) {
        Ok(0) | Err(_) => Duration::ZERO,
        Ok(rate) => Duration::from_secs(1) / rate,
    };
    let mut due = Duration::ZERO;
    while !stop.is_cancelled()
        && (arguments.seconds == 0 || begun.elapsed().as_secs() < arguments.seconds)
    {
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            tokio::time::sleep(early).await;
        }
        offer(&jobs, traffic.next(now_us())).await;
        due += interval;
    }
    drop(jobs);
    for client in clients {
        let ended = client.await;
        debug_assert!(ended.is_ok(), "a client does not panic");
    }
    let mut tally = ledger.await.map_err(|_| Error::internal("write the ledger"))?;
    tally.seconds = begun.elapsed().as_secs_f64();
    Ok(tally)
}

/// How a client works.
#[derive(Clone, Copy)]
struct How {
    /// Whether it sends again what a vendor would.
    resend: bool,
    /// Whether requests have no moment of their own: the next goes out when an answer is there.
    closed: bool,
}

async fn offer(jobs: &mpsc::Sender<Job>, sent: Sent) {
    let queued = jobs.send(Job { sent, moment: Stopwatch::start() }).await;
    debug_assert!(queued.is_ok(), "the clients outlive the traffic");
}

fn open(path: Option<&Path>) -> Result<Option<std::fs::File>> {
    let open = |path| std::fs::OpenOptions::new().create(true).append(true).open(path);
    path.map(open).transpose().map_err(|error| {
        Error::new(Kind::InternalError, "open the ledger's file", format!("{:?}", error.kind()))
    })
}

/// One client: a request at a time, again where a vendor would send it again.
async fn work(
    mut client: Client,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    lines: mpsc::Sender<Line>,
    how: How,
) {
    loop {
        let job = queue.lock().await.recv().await;
        let Some(Job { sent, moment }) = job else { return };
        let moment = if how.closed { Stopwatch::start() } else { moment };
        let path = format!("/webhooks/{}", sent.vendor);
        let mut attempt = 1;
        loop {
            let at = now_us();
            let answer = client.send("POST", &path, &sent.headers, sent.body.clone()).await;
            let status = answer.map_or(0, |answer| answer.status);
            let line = Line {
                vendor: sent.vendor.to_owned(),
                sort: sent.sort.name().to_owned(),
                sha256: sent.sha256(),
                status,
                ms: moment.elapsed().as_secs_f64() * 1e3,
                at,
                attempt,
            };
            if lines.send(line).await.is_err() {
                return;
            }
            let again = how.resend && matches!(status, 0 | 503) && attempt < ATTEMPTS_MAX;
            if !again {
                break;
            }
            attempt += 1;
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }
}

async fn write_ledger(
    mut file: Option<std::fs::File>,
    mut lines: mpsc::Receiver<Line>,
    on_line: impl Fn(&Line),
) -> Tally {
    let mut tally = Tally::default();
    while let Some(line) = lines.recv().await {
        tally.add(&line);
        on_line(&line);
        if let (Some(file), Ok(mut text)) = (file.as_mut(), serde_json::to_string(&line)) {
            text.push('\n');
            if file.write_all(text.as_bytes()).is_err() {
                tracing::error!("the ledger cannot be written: its audit will not be complete");
            }
        }
    }
    tally
}
