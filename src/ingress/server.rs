//! The listener: takes connections in, has hyper speak HTTP on them, and drains when it must stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Kind, Result};
use crate::ingress::accept::{BODY_STEP_BYTES, Door};
use crate::ingress::admit::{Guest, Guests};
use crate::ingress::tls::Lock;
use crate::ingress::wire::{Ear, Wire};
use crate::ingress::{Keys, Settings};
use crate::stream::Sender;
use crate::stream::clock::now_us;
use crate::telemetry::metrics::Metrics;

/// The first pause after an accept that failed, and the longest: no file descriptors is no reason
/// to spin.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open at the end of the drain's time, and were cut off.
    pub cut_off: usize,
}

/// Where connections come from: a listener, or in a test one that fails.
trait Entry: Send + Sync {
    fn next(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Entry for TcpListener {
    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }
}

/// Serves webhooks on this listener until `stop`, then no longer accepts, finishes what is in
/// flight, and returns.
///
/// Settings and keys must have no [`Settings::problems`]; the caller has looked. Readiness is the
/// caller's: it looks at the same `stop`.
///
/// # Errors
/// Where the certificate's files are no pair any more.
pub async fn serve<S: Sender>(
    settings: Settings,
    keys: Keys,
    sender: Arc<S>,
    metrics: Metrics,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<Drained> {
    let lock = Lock::new(&settings.tls, &metrics)?.map(Arc::new);
    let door = Arc::new(Door::new(settings, keys, sender, metrics));
    let watched = stop.child_token();
    let watching = lock.clone().map(|lock| {
        let stop = watched.clone();
        tokio::spawn(async move { lock.watch(stop).await })
    });
    let drained = run(door, lock, listener, stop).await;
    watched.cancel();
    if let Some(watching) = watching
        && watching.await.is_err()
    {
        tracing::error!("nobody looked at the certificate's files");
    }
    Ok(drained)
}

async fn run<S: Sender>(
    door: Arc<Door<S>>,
    lock: Option<Arc<Lock>>,
    entry: impl Entry,
    stop: CancellationToken,
) -> Drained {
    let settings = &door.settings;
    let (all, per_peer) = (settings.connections_max, settings.connections_per_peer_max);
    let guests = Guests::new(all, per_peer, door.metrics.connections.clone());
    let mut tasks = JoinSet::new();
    let mut pause = PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = entry.next() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE_MIN;
                // Nobody may be sent away: the new one is closed at once, its sender comes again.
                if let Some(guest) = guests.enter(peer.ip()) {
                    let (door, lock, stop) = (Arc::clone(&door), lock.clone(), stop.clone());
                    tasks.spawn(connection(stream, guest, door, lock, stop));
                }
            }
            Err(error) if was_the_peers(&error) => {}
            Err(error) => {
                tracing::warn!(code = error.raw_os_error(), "no connection could be accepted");
                guests.make_room();
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
    drop(entry);
    drain(&mut tasks, Duration::from_millis(settings.drain_ms_max)).await
}

/// Waits for the connections to end; those that do not are cut off.
async fn drain(tasks: &mut JoinSet<()>, time: Duration) -> Drained {
    let in_time = async { while tasks.join_next().await.is_some() {} };
    let cut_off = match tokio::time::timeout(time, in_time).await {
        Ok(()) => 0,
        Err(_) => tasks.len(),
    };
    tasks.shutdown().await;
    tracing::info!(cut_off, "the door is closed");
    Drained { cut_off }
}

/// Whether accepting failed because the one who called had gone: nothing is wrong with us.
fn was_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// One connection to its end: the peer's, ours, or a deadline.
async fn connection<S: Sender>(
    stream: TcpStream,
    guest: Guest,
    door: Arc<Door<S>>,
    lock: Option<Arc<Lock>>,
    stop: CancellationToken,
) {
    // An answer is one small packet; it must not wait for the acknowledgement of the one before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(lock) = lock else { return talk(stream, guest, door, stop).await };
    let shaken = tokio::select! {
        biased;
        shaken = lock.shake(stream, &guest) => shaken,
        () = stop.cancelled() => return,
    };
    match shaken {
        Some(Ok(stream)) => talk(stream, guest, door, stop).await,
        Some(Err(_)) => no_request("closed", &door.metrics),
        None => {}
    }
}

/// HTTP on a connection, to its end.
async fn talk<S: Sender>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    guest: Guest,
    door: Arc<Door<S>>,
    stop: CancellationToken,
) {
    let settings = &door.settings;
    let ear = Arc::new(Ear::default());
    let wire = Wire::new(stream, Duration::from_millis(settings.answer_ms_max), Arc::clone(&ear));
    let service = service_fn(|request: Request<Incoming>| {
        let (door, guest, ear) = (&door, &guest, &ear);
        let heard = ear.request();
        async move {
            let answer = door.answer(request, guest, heard, now_us).await;
            ear.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(settings.head_ms_max))
        .max_header_size(settings.head_bytes_max)
        .max_buf_size(BODY_STEP_BYTES)
        .serve_connection(TokioIo::new(wire), service);
    let mut connection = pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    count(&error, &door.metrics);
                }
                return;
            }
            () = guest.sent_away() => return,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Counts what hyper has refused before it was a request. Its texts are not logged: they may quote
/// a head.
fn count(error: &hyper::Error, metrics: &Metrics) {
    let status = if error.is_parse_too_large() {
        "431"
    } else if error.is_parse() {
        "400"
    } else if error.is_timeout() {
        "closed"
    } else {
        return;
    };
    no_request(status, metrics);
}

/// Counts a connection that came to nothing under this status.
fn no_request(status: &str, metrics: &Metrics) {
    metrics.requests.at(["unknown", status]).inc();
    metrics.failures.at(["ingress", Kind::RequestRefused.name()]).inc();
    metrics.errors.at([Kind::RequestRefused.name()]).inc();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::{Error, Result};
    use crate::ingress::tests::{keys, settings};
    use crate::model::record::OutRecord;
    use crate::model::state::Coordinates;

    struct Never;

    impl Sender for Never {
        async fn send(&self, _record: OutRecord) -> Result<Coordinates> {
            Err(Error::internal("send"))
        }
    }

    /// A listener of a process without file descriptors.
    struct Exhausted(Arc<AtomicUsize>);

    impl Entry for Exhausted {
        async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(io::Error::from_raw_os_error(24))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_file_descriptors_is_no_reason_to_spin() {
        let tried = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let door = Arc::new(Door::new(settings(), keys(), Arc::new(Never), Metrics::new()));
        let running = tokio::spawn(run(door, None, Exhausted(Arc::clone(&tried)), stop.clone()));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let tries = tried.load(Ordering::Relaxed);
        assert!((60..80).contains(&tries), "{tries}");
        stop.cancel();
        assert_eq!(running.await.expect("no panic"), Drained { cut_off: 0 });
    }
}
