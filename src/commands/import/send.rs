//! Sending pieces to an ingress, one after the other, until it says that it has them.
//!
//! One at a time: the ingress acknowledges what its brokers have, so that what was accepted is known to the piece. It is
//! pressed no harder than it asks for: a 503 waits as long as its `Retry-After` says.

use std::time::Duration;

use super::piece::Piece;
use crate::commands::http::Client;
use crate::stream::clock::Stopwatch;

const PATH: &str = "/webhooks/healthkit";
/// How long one answer is waited for: a piece may go over a slow line.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// The first pause, where the ingress names none; doubled after each.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause, whoever names it.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a piece was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The ingress says no, and would again.
    Status(u16),
    /// It did not take the piece in all the time that it was given.
    GaveUp {
        /// The last status; absent where there was no answer.
        last: Option<u16>,
    },
}

/// An ingress and a person's token for it.
pub(super) struct Sender {
    client: Client,
    bearer: String,
    patience: Duration,
}

impl Sender {
    /// A sender to `http://host:port`, which tries one piece for as long as `patience`; absent for any other form.
    pub(super) fn new(url: &str, token: &str, patience: Duration) -> Option<Self> {
        let client = Client::new(url, ANSWER_WITHIN)?;
        Some(Self { client, bearer: format!("Bearer {token}"), patience })
    }

    /// Sends a piece until it is accepted; gives how often it had to be sent again.
    pub(super) async fn send(&mut self, piece: &Piece) -> Result<u64, Refused> {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("authorization", self.bearer.clone()),
        ];
        if piece.packed {
            headers.push(("content-encoding", "gzip".to_owned()));
        }
        let since = Stopwatch::start();
        let mut pause = PAUSE_MIN;
        let mut again = 0;
        loop {
            let answer = self.client.send("POST", PATH, &headers, piece.body.clone()).await;
            let asked = match &answer {
                Some(answer) if (200..300).contains(&answer.status) => return Ok(again),
                // 408: a slow line, or a door that was busy; 429 and 5xx say themselves that it is not the piece.
                Some(answer) if matches!(answer.status, 408 | 429 | 500..) => answer.retry_after,
                Some(answer) => return Err(Refused::Status(answer.status)),
                None => None,
            };
            let wait = asked.unwrap_or(pause).min(PAUSE_MAX);
            if since.elapsed().saturating_add(wait) > self.patience {
                return Err(Refused::GaveUp { last: answer.map(|answer| answer.status) });
            }
            tokio::time::sleep(wait).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
            again += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn piece() -> Piece {
        Piece { number: 1, samples: 1, body: b"{}".to_vec(), packed: false }
    }

    /// A door that gives these answers, one a connection, the last for ever; and how many it gave.
    async fn door(answers: &'static [&'static str]) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.expect("a request");
                assert!(request[..read].windows(6).any(|bytes| bytes == b"Bearer"));
                let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                let head = format!("HTTP/1.1 {}\r\nconnection: close\r\n\r\n", answers[at]);
                stream.write_all(head.as_bytes()).await.expect("an answer");
            }
        });
        (url, asked)
    }

    async fn sent(answers: &'static [&'static str]) -> (Result<u64, Refused>, usize, Duration) {
        let (url, asked) = door(answers).await;
        let mut sender = Sender::new(&url, "token", Duration::from_secs(2)).expect("a URL");
        let since = Stopwatch::start();
        let outcome = sender.send(&piece()).await;
        (outcome, asked.load(Ordering::SeqCst), since.elapsed())
    }

    #[tokio::test]
    async fn a_door_that_is_full_is_asked_again_when_it_says() {
        let full: &[&str] = &[
            "503 x\r\ncontent-length: 0\r\nretry-after: 1",
            "502 x\r\ncontent-length: 0",
            "200 x\r\ncontent-length: 0",
        ];
        let (outcome, asked, took) = sent(full).await;
        assert_eq!((outcome, asked), (Ok(2), 3));
        assert!(took >= Duration::from_secs(1), "as long as it says: {took:?}");
    }

    #[tokio::test]
    async fn what_is_refused_is_not_asked_again_and_patience_ends() {
        let (outcome, asked, _) = sent(&["401 x\r\ncontent-length: 0"]).await;
        assert_eq!((outcome, asked), (Err(Refused::Status(401)), 1));
        let full: &[&str] = &["503 x\r\ncontent-length: 0\r\nretry-after: 60"];
        let (outcome, asked, took) = sent(full).await;
        assert_eq!((outcome, asked), (Err(Refused::GaveUp { last: Some(503) }), 1));
        assert!(took < Duration::from_secs(2), "a pause past its patience is not begun");
    }

    #[test]
    fn a_url_is_of_this_form() {
        let sender = |url| Sender::new(url, "token", Duration::ZERO).is_some();
        assert!(sender("http://127.0.0.1:8080") && sender("http://bridge:80/"));
        for bad in ["https://bridge", "bridge:80", "http://", "http://bridge/x", ""] {
            assert!(!sender(bad), "{bad}");
        }
    }
}
