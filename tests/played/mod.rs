//! A vendor's API that misbehaves on request, over a real socket. Tokens and the app's secret have `canary` in them.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that panics fails, which is what it is for"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use biometric_bridge::hydrator::fetch::Base;
use biometric_bridge::stream::clock::Stopwatch;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The app's secret.
pub(crate) const SECRET: &str = "not&a+canary-secret";

/// The body for a path with its query.
pub(crate) type Ranges = fn(&str) -> Option<String>;

/// The server: what was asked of it, and where it is.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// The heads of all requests, and the bodies of those that had one.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// When each of them had come, since the server's start.
    pub(crate) times: Arc<Mutex<Vec<Duration>>>,
    clock: Stopwatch,
    /// Bodies by path; what is not there is one of the misbehaviours below.
    pub(crate) documents: Arc<Mutex<BTreeMap<String, String>>>,
    /// What answers a path with its query, where it has an answer; a moment later than the rest.
    pub(crate) ranges: Arc<Mutex<Option<Ranges>>>,
    /// Whether every call but an exchange is answered by 401.
    pub(crate) refuses: Arc<AtomicBool>,
    /// Whether every call is answered by 503.
    pub(crate) down: Arc<AtomicBool>,
    /// The refresh token that is good now, and how many were exchanged.
    pub(crate) refresh: Arc<(Mutex<String>, AtomicUsize)>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let refresh = Arc::new((Mutex::new("canary-refresh-0".to_owned()), AtomicUsize::new(0)));
        let (asked, times, documents) = (Arc::default(), Arc::default(), Arc::default());
        let clock = Stopwatch::start();
        let (refuses, down, ranges) = (Arc::default(), Arc::default(), Arc::default());
        let server =
            Self { address, asked, times, clock, documents, ranges, refuses, down, refresh };
        let played = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let played = played.clone();
                tokio::spawn(async move { played.answer(stream).await });
            }
        });
        server
    }

    /// Its address with this path, which may be empty.
    pub(crate) fn at(&self, path: &str) -> Base {
        Base::parse(&format!("{}{path}", self.address)).expect("loopback")
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        let ways = [format!(" /{path} "), format!(" /{path}/")];
        asked.iter().filter(|head| ways.iter().any(|way| head.contains(way))).count()
    }

    /// One request a connection; a client that wants to ask again makes another.
    async fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut request = String::new();
        let mut bytes = [0; 4096];
        while !complete(&request) {
            let read = stream.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
            request.push_str(std::str::from_utf8(&bytes[..read]).ok()?);
        }
        self.times.lock().unwrap().push(self.clock.elapsed());
        self.asked.lock().unwrap().push(request.clone());
        let path = request.split(' ').nth(1)?.trim_start_matches('/').to_owned();
        let close = "connection: close\r\n";
        let json = "content-type: application/json; charset=utf-8\r\n";
        let plain = |status: &str, headers: &str, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status}\r\n{headers}{close}content-length: {length}\r\n\r\n{body}")
        };
        let chunked = format!("HTTP/1.1 200 OK\r\n{json}transfer-encoding: chunked\r\n\r\n");
        let small = plain("200 OK", json, "{\"a\":1}");
        if self.down.load(Ordering::SeqCst) {
            return stream.write_all(plain("503 No", "", "").as_bytes()).await.ok();
        }
        if self.refuses.load(Ordering::SeqCst) && !["token", "wrapped"].contains(&&*path) {
            return stream.write_all(plain("401 No", "", "").as_bytes()).await.ok();
        }
        let kept = self.documents.lock().unwrap().get(&path).cloned();
        if let Some(body) = kept {
            return stream.write_all(plain("200 OK", json, &body).as_bytes()).await.ok();
        }
        let ranges = *self.ranges.lock().unwrap();
        if let Some(body) = ranges.and_then(|ranges| ranges(&path)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return stream.write_all(plain("200 OK", json, &body).as_bytes()).await.ok();
        }
        if request.starts_with("DELETE ") && path.starts_with("developer/") {
            return stream.write_all(plain("204 No Content", "", "").as_bytes()).await.ok();
        }
        let whole = match path.split('/').next()? {
            "again" if !request.contains("Bearer canary-access-1") => plain("401 No", "", ""),
            "stale" => plain("401 No", "", ""),
            "none" => plain("204 No Content", "", ""),
            "missing" => plain("404 No", json, "{}"),
            "limited" => plain("429 No", "retry-after: 7\r\n", ""),
            "mine" => plain("429 No", "retry-after: 9\r\nx-whose: the person's\r\n", ""),
            "forbidden" => plain("403 No", "", ""),
            "cutoff" => plain("504 No", "", ""),
            "down" => plain("503 No", "content-type: text/html\r\n", "<html>"),
            "html" => plain("200 OK", "content-type: text/html\r\n", "<html>"),
            "packed" => plain("200 OK", &format!("{json}content-encoding: gzip\r\n"), "x"),
            "elsewhere" => plain("302 No", "location: http://127.0.0.1:1/x\r\n", ""),
            "cut" => format!("HTTP/1.1 200 OK\r\n{json}content-length: 100\r\n\r\n{{"),
            "huge" => format!("HTTP/1.1 200 OK\r\n{json}content-length: 1073741824\r\n\r\n{{"),
            "token" => self.exchange(&request, json, &plain),
            "wrapped" => plain("200 OK", json, &self.wrapped(&request)),
            "hang" => return hang(stream).await,
            "drip" => return drip(stream, &chunked, 1, Duration::from_millis(20)).await,
            "endless" => return drip(stream, &chunked, 1 << 16, Duration::ZERO).await,
            "later" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                small
            }
            _ => small,
        };
        stream.write_all(whole.as_bytes()).await.ok()
    }

    /// A rotating token endpoint: the old refresh token is dead at once.
    fn exchange(
        &self,
        request: &str,
        json: &str,
        plain: &dyn Fn(&str, &str, &str) -> String,
    ) -> String {
        let mut good = self.refresh.0.lock().unwrap();
        let denied = |error: &str| plain("400 No", json, &format!("{{\"error\":\"{error}\"}}"));
        let basic = request.to_lowercase().contains("authorization: basic ");
        if !basic && !request.contains("client_secret=not%26a%2Bcanary-secret") {
            return denied("invalid_client");
        }
        // A code of a consent is good once: the first exchange of all.
        let consent = request.contains("grant_type=authorization_code&code=canary-code-1&")
            && self.refresh.1.load(Ordering::SeqCst) == 0;
        if !consent && !request.contains(&format!("refresh_token={}&", *good)) {
            return denied("invalid_grant");
        }
        let number = self.refresh.1.fetch_add(1, Ordering::SeqCst) + 1;
        *good = format!("canary-refresh-{number}");
        let body = format!(
            r#"{{"access_token":"canary-access-{number}","refresh_token":"{good}","expires_in":3600,"x_user_id":62713944}}"#
        );
        plain("200 OK", json, &body)
    }
}

impl Server {
    /// A token endpoint that answers 200 whatever happened, and leaves the old refresh token good for a while.
    fn wrapped(&self, request: &str) -> String {
        let known = request.contains("client_secret=not%26a%2Bcanary-secret");
        let code = request.contains("&grant_type=authorization_code&code=canary-code-1&");
        let refresh = request.contains("&grant_type=refresh_token&refresh_token=canary-refresh-");
        let status = match request.contains("\r\n\r\naction=requesttoken&") {
            _ if self.refuses.load(Ordering::SeqCst) => 601,
            true if known && (code || refresh) => {
                let number = self.refresh.1.fetch_add(1, Ordering::SeqCst) + 1;
                return format!(
                    r#"{{"status":0,"body":{{"userid":"363","access_token":"canary-access-{number}",
                        "refresh_token":"canary-refresh-{number}","expires_in":10800}}}}"#
                );
            }
            true if known => 503,
            true => 401,
            false => 2555,
        };
        format!(r#"{{"status":{status},"body":{{}},"error":"canary of the vendor"}}"#)
    }
}

/// Whether a request is whole: its head, and the body that it announces.
fn complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.to_lowercase().split_once("content-length: ").map(|(_, rest)| {
        rest.split("\r\n").next().and_then(|text| text.parse::<usize>().ok()).expect("a length")
    });
    body.len() >= length.unwrap_or(0)
}

async fn hang(mut stream: TcpStream) -> Option<()> {
    let mut bytes = [0; 64];
    while stream.read(&mut bytes).await.ok()? > 0 {}
    None
}

async fn drip(mut stream: TcpStream, head: &str, size: usize, pause: Duration) -> Option<()> {
    stream.write_all(head.as_bytes()).await.ok()?;
    let chunk = format!("{size:x}\r\n{}\r\n", " ".repeat(size));
    loop {
        stream.write_all(chunk.as_bytes()).await.ok()?;
        tokio::time::sleep(pause).await;
    }
}
