//! No health data leaks: a canary that goes in by every door comes out of none but the log of
//! records.

use std::io::Write;
use std::sync::{Mutex, Once};

use biometric_bridge::telemetry::log::{Level, subscriber};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::door::{Mood, World, head, oura, settings, world};

const CANARY: &str = "canary-jane.doe";
const CANARY_NAME: &str = "x-canary-jane";

static PAGE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// What this whole binary logs, at the finest level.
struct Page;

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        PAGE.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Logs to the page from here on. Whoever opens a door calls it first: an event that is reached
/// while nobody listens may stay disabled for the rest of the process.
pub(crate) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing::subscriber::set_global_default(subscriber(Level::Trace, || Page))
            .expect("the only one in this binary");
    });
}

/// All that was logged so far, by whatever test.
pub(crate) fn logged() -> String {
    String::from_utf8(PAGE.lock().expect("not poisoned").clone()).expect("text")
}

/// What comes back, to the end of the connection.
async fn exchange(world: &World, request: &[u8]) -> String {
    let mut stream = world.connect().await;
    stream.write_all(request).await.expect("written");
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    tokio::time::timeout(std::time::Duration::from_secs(5), read).await.expect("ended").ok();
    String::from_utf8(all).expect("text")
}

#[tokio::test]
async fn a_canary_comes_out_of_no_log_no_metric_and_no_answer() {
    let world = world(settings()).await;
    let body = format!(r#"{{"user_id":"{CANARY}","data_type":"{CANARY}"}}"#);
    let broken = format!(r#"{{"user_id":"{CANARY}","user_id":"{CANARY}""#);
    let forged = oura(body.as_bytes()).iter().map(u8::to_ascii_lowercase).collect::<Vec<_>>();
    let forged = String::from_utf8(forged).expect("text").replacen("post", "POST", 1);
    let forged = forged.replacen("http/1.1", "HTTP/1.1", 1).replace(CANARY, &format!("{CANARY}x"));
    let headed = |line: &str| head(line, &[("authorization", CANARY), (CANARY_NAME, CANARY)]);
    let mut answers = String::new();
    let requests = [
        (Mood::Acks, oura(body.as_bytes())),
        (Mood::Acks, oura(broken.as_bytes())),
        (Mood::IsDown, oura(body.as_bytes())),
        (Mood::IsFull, oura(body.as_bytes())),
        (Mood::Withholds, oura(body.as_bytes())),
        (Mood::Acks, forged.into_bytes()),
        (Mood::Acks, headed("POST /webhooks/oura")),
        (Mood::Acks, headed(&format!("POST /webhooks/{CANARY}"))),
        (Mood::Acks, headed(&format!("POST /webhooks/oura?user={CANARY}"))),
        (
            Mood::Acks,
            headed(&format!("GET /webhooks/oura?verification_token=no&challenge={CANARY}")),
        ),
        (
            Mood::Acks,
            headed(&format!("GET /webhooks/oura?verification_token={CANARY}&challenge=c")),
        ),
        (Mood::Acks, headed("CANARY-METHOD /webhooks/oura")),
        (Mood::Acks, format!("POST /{CANARY} HTTP/1.1\r\n{CANARY}: a\r\n b\r\n\r\n").into_bytes()),
        (Mood::Acks, format!("{CANARY}\r\n\r\n").into_bytes()),
        (Mood::Acks, head("POST /webhooks/oura", &[("x-a", &CANARY.repeat(2_000))])),
        (Mood::Acks, head("POST /webhooks/oura", &[("content-encoding", CANARY)])),
        (Mood::Acks, head("POST /webhooks/oura", &[("content-length", "10"), ("x-a", CANARY)])),
    ];
    for (mood, request) in requests {
        world.log.is(mood);
        let answer = exchange(&world, &request).await;
        assert!(!answer.is_empty(), "an answer to all of them");
        answers.push_str(&answer);
    }
    assert_eq!(world.log.records().len(), 2, "the canary did go in");
    world.stop.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let logged = logged();
    assert!(logged.contains("refused") && logged.contains("does not acknowledge"), "{logged}");
    for (where_to, text) in
        [("the log", logged), ("the metrics", world.metrics.text()), ("an answer", answers)]
    {
        assert!(!text.to_lowercase().contains("canary"), "{where_to}: {text}");
    }
}
