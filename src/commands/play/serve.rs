//! The vendors' server: it listens, hands requests to the stage, and gives the answers as the stage wants them given.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Theatre;
use crate::commands::http::Client;
use crate::sim::world::player::{Ask, Manner, Reply};
use crate::sim::world::subscription::Handshake;

/// How many callers are served at once.
const CALLERS_MAX: usize = 1_024;
/// The largest form that is read, bytes.
const FORM_BYTES_MAX: usize = 64 * 1024;
/// How long an app's address may take to answer its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a slow answer takes.
const SLOW: Duration = Duration::from_secs(3);
/// How long a call that is never answered is kept; longer than any caller waits.
const NEVER: Duration = Duration::from_secs(600);

/// Serves until it is over.
pub(super) async fn serve(listener: TcpListener, theatre: Arc<Theatre>, over: CancellationToken) {
    let room = Arc::new(Semaphore::new(CALLERS_MAX));
    loop {
        let Ok(seat) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = over.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (theatre, over) = (Arc::clone(&theatre), over.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = caller(stream, theatre) => {}
            }
            drop(seat);
        });
    }
}

async fn caller(stream: TcpStream, theatre: Arc<Theatre>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let theatre = Arc::clone(&theatre);
        async move { answer(request, &theatre).await }
    });
    let ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    if ended.is_err() {
        tracing::debug!("a caller of a played vendor went away, or was hung up on");
    }
}

async fn answer(
    request: Request<Incoming>,
    theatre: &Theatre,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let form = Limited::new(body, FORM_BYTES_MAX).collect().await;
    let form = form.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?.to_bytes();
    let ask = Ask {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        bearer: bearer(&head.headers),
        client: client(&head.headers),
        form: String::from_utf8_lossy(&form).into_owned(),
    };
    let now = theatre.now();
    theatre.calls.fetch_add(1, Ordering::Relaxed);
    let reply = theatre.stage().answer(&ask, now);
    let reply = match &reply.handshake {
        Some(handshake) => {
            let answered = shakes(handshake).await;
            theatre.stage().shaken(handshake, answered)
        }
        None => reply,
    };
    match reply.manner {
        Manner::AtOnce => {}
        Manner::Slowly => {
            let _waits = UnderWay::of(theatre);
            tokio::time::sleep(SLOW).await;
        }
        // Whoever gives up asks again: the world must not end before.
        Manner::Never => {
            let _waits = UnderWay::of(theatre);
            tokio::time::sleep(NEVER).await;
        }
        Manner::HangUp => return Err(io::ErrorKind::ConnectionAborted.into()),
    }
    Ok(response(reply))
}

/// A call that has no answer yet; it ends with it, or when the caller goes away.
struct UnderWay<'a>(&'a Theatre);

impl<'a> UnderWay<'a> {
    fn of(theatre: &'a Theatre) -> Self {
        theatre.under_way.fetch_add(1, Ordering::Relaxed);
        Self(theatre)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

fn client(headers: &HeaderMap) -> Option<(String, String)> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    Some((text("x-client-id")?, text("x-client-secret")?))
}

/// Whether an app's address answers as it must: with the challenge, where it is named the app's own token.
async fn shakes(handshake: &Handshake) -> bool {
    let Some(rest) = handshake.callback.strip_prefix("http://") else { return false };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(mut client) = Client::new(&format!("http://{host}"), HANDSHAKE) else { return false };
    let token: String = handshake.token.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/{path}?verification_token={token}&challenge={}", handshake.challenge);
    let Some(answer) = client.send("GET", &path, &[], Vec::new()).await else { return false };
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said = said.get("challenge").and_then(serde_json::Value::as_str);
    answer.status == 200 && said == Some(&*handshake.challenge)
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = status;
    for (name, value) in reply.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
