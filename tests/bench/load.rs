//! The load: requests that were made before, over kept connections, from one thread, and what came back.
//!
//! *Closed* has as many requests under way as there are connections: for capacity, and for nothing about waiting. *Open*
//! gives every request its moment, and its latency counts from that moment, whether a connection was free then or not.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use biometric_bridge::sim::traffic::Sent;
use biometric_bridge::stream::clock::Stopwatch;
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest latency that is told apart, µs.
const LONGEST_US: u64 = 60_000_000;
/// How long an answer may take before its connection is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// An empty histogram of microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds that are in order")
}

/// The latency below which this share lies, ms.
pub(crate) fn ms(latencies: &Histogram<u64>, share: f64) -> f64 {
    latencies.value_at_quantile(share) as f64 / 1e3
}

/// What came of a load, within its measured window.
pub(crate) struct Outcome {
    /// Answered 2xx.
    pub(crate) accepted: u64,
    /// Answered 2xx before, in and after the window.
    pub(crate) ever: u64,
    /// Answered 503.
    pub(crate) refused: u64,
    /// Answered otherwise, or not at all.
    pub(crate) failed: u64,
    /// The window, s.
    pub(crate) seconds: f64,
    /// Of what was accepted, µs: from its moment (open) or from its writing (closed).
    pub(crate) latencies: Histogram<u64>,
    /// Of what was refused, µs, from its moment.
    pub(crate) refusals: Histogram<u64>,
    /// Of what was refused, µs, from its writing.
    pub(crate) refusals_served: Histogram<u64>,
}

/// When requests go out.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// The next when an answer is there.
    Closed,
    /// So many a second, each at its moment.
    Open(f64),
}

/// A load to be put on.
pub(crate) struct Load<'a> {
    /// `host:port`.
    pub(crate) address: &'a str,
    /// Kept connections.
    pub(crate) connections: usize,
    /// When requests go out.
    pub(crate) pace: Pace,
    /// What is sent, in turn and from the beginning again.
    pub(crate) requests: &'a [Bytes],
    /// Put on before anything counts.
    pub(crate) lead_in: Duration,
    /// The measured window.
    pub(crate) window: Duration,
    /// Each request once: the window ends with the last answer, or at its time.
    pub(crate) once: bool,
}

/// A request as it stands on the wire.
pub(crate) fn on_the_wire(sent: &Sent) -> Bytes {
    let mut text = format!("POST /webhooks/{} HTTP/1.1\r\nhost: bench\r\n", sent.vendor);
    for (name, value) in &sent.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", sent.body.len()));
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&sent.body);
    Bytes::from(bytes)
}

struct Shared {
    begun: Stopwatch,
    requests: Vec<Bytes>,
    next: Cell<u64>,
    outcome: RefCell<Outcome>,
}

impl Load<'_> {
    /// Puts the load on. `begin` is called when the window begins, `end` when it ends, the load still being on (not
    /// where each is sent once: it ends with the call).
    pub(crate) fn run(&self, begin: impl FnOnce(), end: impl FnOnce()) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let local = tokio::task::LocalSet::new();
        let shared = Rc::new(Shared {
            begun: Stopwatch::start(),
            requests: self.requests.to_vec(),
            next: Cell::new(0),
            outcome: RefCell::new(Outcome {
                accepted: 0,
                ever: 0,
                refused: 0,
                failed: 0,
                seconds: 0.0,
                latencies: histogram(),
                refusals: histogram(),
                refusals_served: histogram(),
            }),
        });
        let seconds = local.block_on(&runtime.expect("a runtime"), async {
            let mut workers = Vec::new();
            for _ in 0..self.connections {
                let worker = Worker {
                    address: self.address.to_owned(),
                    pace: self.pace,
                    most: self.once.then_some(self.requests.len()),
                    window: (self.lead_in, self.lead_in + self.window),
                    shared: Rc::clone(&shared),
                };
                workers.push(tokio::task::spawn_local(worker.run()));
            }
            tokio::time::sleep(self.lead_in.saturating_sub(shared.begun.elapsed())).await;
            begin();
            let window = Stopwatch::start();
            if !self.once {
                tokio::time::sleep(self.window).await;
                end();
            }
            let seconds = window.seconds();
            for worker in workers {
                worker.await.expect("a worker ends");
            }
            if self.once { window.seconds() } else { seconds }
        });
        let shared = Rc::into_inner(shared).expect("the workers have ended");
        Outcome { seconds, ..shared.outcome.into_inner() }
    }
}

struct Worker {
    address: String,
    pace: Pace,
    /// How many requests there are to be, where that is given.
    most: Option<usize>,
    /// Answers between these count, from the beginning.
    window: (Duration, Duration),
    shared: Rc<Shared>,
}

impl Worker {
    async fn run(self) {
        let mut stream = None;
        let mut answer = Vec::with_capacity(1024);
        loop {
            let number = self.shared.next.get();
            self.shared.next.set(number + 1);
            let number_at = usize::try_from(number).expect("few");
            if self.most.is_some_and(|most| number_at >= most) {
                return;
            }
            let due = match self.pace {
                Pace::Closed => self.shared.begun.elapsed(),
                Pace::Open(rate) => {
                    let due = Duration::from_secs_f64(number as f64 / rate);
                    if let Some(early) = due.checked_sub(self.shared.begun.elapsed()) {
                        tokio::time::sleep(early).await;
                    }
                    due
                }
            };
            if due.max(self.shared.begun.elapsed()) >= self.window.1 {
                return;
            }
            let requests = &self.shared.requests;
            let request = &requests[number_at % requests.len()];
            let written = self.shared.begun.elapsed();
            let exchanged = exchange(&self.address, &mut stream, request, &mut answer);
            let status = tokio::time::timeout(PATIENCE, exchanged).await.ok().flatten();
            if status.is_none() {
                stream = None;
            }
            self.count(due, written, status);
        }
    }

    fn count(&self, due: Duration, written: Duration, status: Option<u16>) {
        let now = self.shared.begun.elapsed();
        let mut outcome = self.shared.outcome.borrow_mut();
        outcome.ever += u64::from(status.is_some_and(|status| (200..=299).contains(&status)));
        // What was due in the window counts, and in a closed loop what was answered in it.
        let mark = if matches!(self.pace, Pace::Closed) { now } else { due };
        if !(self.window.0..self.window.1).contains(&mark) {
            return;
        }
        let us = |from: Duration| {
            u64::try_from(now.saturating_sub(from).as_micros()).unwrap_or(LONGEST_US)
        };
        match status {
            Some(200..=299) => {
                outcome.accepted += 1;
                outcome.latencies.saturating_record(us(due));
            }
            Some(503) => {
                outcome.refused += 1;
                outcome.refusals.saturating_record(us(due));
                outcome.refusals_served.saturating_record(us(written));
            }
            _ => outcome.failed += 1,
        }
    }
}

/// One request and its whole answer; its status, or nothing where there was none.
async fn exchange(
    address: &str,
    stream: &mut Option<TcpStream>,
    request: &[u8],
    answer: &mut Vec<u8>,
) -> Option<u16> {
    if stream.is_none() {
        let new = TcpStream::connect(address).await.ok()?;
        new.set_nodelay(true).ok()?;
        *stream = Some(new);
    }
    let open = stream.as_mut()?;
    open.write_all(request).await.ok()?;
    answer.clear();
    loop {
        if open.read_buf(answer).await.ok()? == 0 || answer.len() > ANSWER_BYTES_MAX {
            return None;
        }
        if let Some((status, whole, closes)) = parsed(answer)
            && answer.len() >= whole
        {
            if closes {
                *stream = None;
            }
            return Some(status);
        }
    }
}

/// An answer's status, its length, and whether its connection ends with it; nothing while its head is not all there.
fn parsed(answer: &[u8]) -> Option<(u16, usize, bool)> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(answer.get(..head)?).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let header = |name: &str| {
        text.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let length: usize = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Some((status, head + 4 + length, closes))
}
