//! A door for tests: a listener on a socket, a log in memory with moods, and the requests of
//! vendors.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use biometric_bridge::error::{Error, Kind, Result};
use biometric_bridge::ingress::{Drained, Keys, Settings, VendorKeys, cors, serve, tls};
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::record::OutRecord;
use biometric_bridge::model::state::Coordinates;
use biometric_bridge::stream::Sender;
use biometric_bridge::stream::clock::{Stopwatch, now_us};
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors::wire::hmac::{sign_base64, sign_hex};
use biometric_bridge::vendors::{self, Vendor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::leak::listen;

pub(crate) const KEY: &str = "not-a-secret-test-key";
/// The secret end of the paths of vendors that sign nothing.
pub(crate) const PATH: &str = "not-a-secret-end-of-a-path";
pub(crate) const TOKEN: &str = "not-a-secret-token";
pub(crate) const PSEUDONYM_KEY: &str = "not-a-secret-pseudonym-key";
pub(crate) const GARMIN: &[u8] =
    br#"{"epochs":[{"userId":"user-a","startTimeInSeconds":1774738800,"steps":9}]}"#;
pub(crate) const OURA: &[u8] =
    br#"{"event_type":"update","data_type":"sleep","object_id":"7d1c0a52","user_id":"u-4f2c81"}"#;
pub(crate) const WHOOP: &[u8] =
    br#"{"user_id":481516,"id":"0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77","type":"sleep.updated"}"#;
pub(crate) const MIB: usize = 1024 * 1024;

/// How the log behaves, until it is told otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    Acks,
    AcksLate,
    AcksSoon,
    Withholds,
    IsDown,
    IsFull,
    /// Another one with each record.
    Changes,
}

/// A log in memory: it has what it has acknowledged.
pub(crate) struct Log {
    mood: AtomicU8,
    asked: AtomicUsize,
    records: Mutex<Vec<OutRecord>>,
}

impl Log {
    pub(crate) fn is(&self, mood: Mood) {
        #[expect(clippy::as_conversions, reason = "the number of a case of a closed set")]
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    pub(crate) fn records(&self) -> Vec<OutRecord> {
        self.records.lock().expect("not poisoned").clone()
    }

    fn mood(&self) -> Mood {
        let all = [
            Mood::Acks,
            Mood::AcksLate,
            Mood::AcksSoon,
            Mood::Withholds,
            Mood::IsDown,
            Mood::IsFull,
        ];
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let mood = usize::from(self.mood.load(Ordering::SeqCst));
        all.get(mood).copied().unwrap_or(all[asked % all.len()])
    }
}

impl Sender for Log {
    async fn send(&self, record: OutRecord) -> Result<Coordinates> {
        match self.mood() {
            Mood::Acks | Mood::Changes => {}
            Mood::AcksLate => tokio::time::sleep(Duration::from_millis(200)).await,
            Mood::AcksSoon => tokio::time::sleep(Duration::from_millis(50)).await,
            Mood::Withholds => pending().await,
            Mood::IsDown => return Err(Error::new(Kind::BrokerUnavailable, "produce", "-195")),
            Mood::IsFull => return Err(Error::new(Kind::Overloaded, "produce", "-184")),
        }
        let mut records = self.records.lock().expect("not poisoned");
        records.push(record);
        let offset = i64::try_from(records.len()).expect("few") - 1;
        Ok(Coordinates { topic: Topic::RawWebhooks, partition: 0, offset })
    }
}

/// Deadlines that a test can wait for.
pub(crate) fn settings() -> Settings {
    Settings {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        permits: 100,
        permit_wait_ms_max: 400,
        ack_ms_max: 500,
        head_ms_max: 300,
        head_bytes_max: 16_384,
        body_ms_max: 400,
        body_bytes_in_flight_max: 32 * MIB,
        answer_ms_max: 1_000,
        connections_max: 1_000,
        connections_per_peer_max: 1_000,
        drain_ms_max: 2_000,
        retry_after_s: 7,
        tls: tls::Settings {
            certificate_file: None,
            key_file: None,
            handshake_ms_max: 300,
            handshakes_max: 100,
            handshakes_per_peer_max: 100,
            look_s: 1,
        },
        cors: cors::Settings {
            origins: None,
            methods: "POST".to_owned(),
            headers: "content-type, api-key".to_owned(),
            credentials: false,
            max_age_s: 600,
        },
    }
}

pub(crate) struct World {
    pub(crate) at: SocketAddr,
    pub(crate) log: Arc<Log>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<Drained>,
}

pub(crate) async fn world(settings: Settings) -> World {
    world_of(settings, VendorKeys::default()).await
}

/// A world in which every vendor has these rates; its keys are the usual ones.
pub(crate) async fn world_of(settings: Settings, rates: VendorKeys) -> World {
    listen();
    let both = VendorKeys {
        signing: vec!["the-next".into(), KEY.into()],
        handshake: Some(TOKEN.into()),
        ..rates
    };
    let keys = |vendor: &&'static dyn Vendor| {
        let signing = if vendor.secret_path() { vec![PATH.into()] } else { both.signing.clone() };
        VendorKeys { signing, ..both.clone() }
    };
    let vendors: BTreeMap<_, _> =
        vendors::ALL.iter().map(|vendor| (vendor.name().to_owned(), keys(vendor))).collect();
    let keys = Keys { pseudonym: PSEUDONYM_KEY.into(), vendors };
    assert_eq!((settings.problems(), keys.problems()), (vec![], vec![]));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = listener.local_addr().expect("an address");
    let log = Arc::new(Log {
        mood: AtomicU8::new(0),
        asked: AtomicUsize::new(0),
        records: Mutex::default(),
    });
    let (metrics, stop) = (Metrics::of(&vendors::names()), CancellationToken::new());
    let served = serve(settings, keys, Arc::clone(&log), metrics.clone(), listener, stop.clone());
    let served = tokio::spawn(async { served.await.expect("a door") });
    World { at, log, metrics, stop, served }
}

impl World {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.expect("connected")
    }

    /// One request on a connection of its own, and its answer.
    pub(crate) async fn call(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("written");
        answer(&mut stream).await.expect("an answer")
    }

    pub(crate) fn errors(&self, kind: &str) -> u64 {
        self.metrics.errors.at([kind]).get()
    }

    /// Waits until nothing is in flight any more.
    pub(crate) async fn settle(&self) {
        self.until(|metrics| {
            let requests = metrics.permits_in_use.get() + metrics.permits_waiting.get();
            requests + metrics.body_bytes.get() + metrics.connections.get() == 0
        })
        .await;
    }

    /// Waits until the metrics say so.
    pub(crate) async fn until(&self, so: impl Fn(&Metrics) -> bool) {
        let watch = Stopwatch::start();
        while !so(&self.metrics) {
            assert!(watch.seconds() < 3.0, "it does not come to this: {}", self.metrics.text());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|known| known == line)
    }
}

/// Reads one answer; absent where the connection ends without one.
pub(crate) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    let mut read = Vec::new();
    let head_end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        read.push(byte[0]);
    };
    let head = String::from_utf8(read[..head_end].to_vec()).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).await.ok()?;
    let status = head[9..12].parse().expect("a status");
    Some(Answer { status, head, body: String::from_utf8(body).expect("text") })
}

pub(crate) fn head(line: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("{line} HTTP/1.1\r\nhost: bridge\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let mut all = vec![("content-length", length.as_str()), ("content-type", "application/json")];
    all.extend_from_slice(headers);
    let mut request = head(&format!("POST {path}"), &all);
    request.extend_from_slice(body);
    request
}

pub(crate) fn oura_signature(body: &[u8]) -> (String, String) {
    let timestamp = (now_us() / 1_000_000).to_string();
    let signature = sign_hex(&[timestamp.as_bytes(), body], KEY.as_bytes()).to_uppercase();
    (timestamp, signature)
}

pub(crate) fn oura(body: &[u8]) -> Vec<u8> {
    let (timestamp, signature) = oura_signature(body);
    let headers = [("x-oura-timestamp", &*timestamp), ("x-oura-signature", &*signature)];
    post("/webhooks/oura", &headers, body)
}

pub(crate) fn whoop_signed_at(now_us: i64, body: &[u8]) -> Vec<u8> {
    let timestamp = (now_us / 1_000).to_string();
    let signature = sign_base64(&[timestamp.as_bytes(), body], KEY.as_bytes());
    let headers =
        [("x-whoop-signature-timestamp", &*timestamp), ("x-whoop-signature", &*signature)];
    post("/webhooks/whoop", &headers, body)
}

pub(crate) fn whoop(body: &[u8]) -> Vec<u8> {
    whoop_signed_at(now_us(), body)
}

/// The status alone: hyper's own refusals have no length, a HEAD's has no body.
pub(crate) async fn answer_of(what: &str, stream: &mut TcpStream) -> Option<u16> {
    let mut first = [0; 12];
    let read = stream.read_exact(&mut first);
    tokio::time::timeout(Duration::from_secs(2), read).await.expect(what).ok()?;
    std::str::from_utf8(&first[9..]).ok()?.parse().ok()
}
