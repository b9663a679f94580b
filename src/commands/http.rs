//! A small HTTP/1.1 client over one kept connection, for the commands that play a vendor or read our own pages.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The most of an answer that is read, bytes.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// A client of one address; it connects when it must.
pub struct Client {
    authority: String,
    deadline: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// An answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// After how long it wants to be asked again, where it says so in seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// A client of `http://host:port`; absent for any other form.
    #[must_use]
    pub fn new(url: &str, deadline: Duration) -> Option<Self> {
        let authority = url.strip_prefix("http://")?.trim_end_matches('/');
        let plain = !authority.is_empty() && !authority.contains('/');
        plain.then(|| Self { authority: authority.to_owned(), deadline, connection: None })
    }

    /// Sends one request; absent where there was no whole answer within the deadline.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Option<Answer> {
        let answer =
            tokio::time::timeout(self.deadline, self.exchange(method, path, headers, body));
        let answer = answer.await.ok().flatten();
        if answer.is_none() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Option<Answer> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.authority.as_str());
        for (name, value) in headers {
            request = request.header(*name, value.as_str());
        }
        let request = request.body(Full::new(Bytes::from(body))).ok()?;
        let connection = self.connected().await?;
        let answer = connection.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| value.parse().ok()).map(Duration::from_secs);
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.ok()?.to_bytes();
        Some(Answer { status, retry_after, body })
    }

    /// A connection that takes a request now: the kept one, or a new one.
    async fn connected(&mut self) -> Option<&mut SendRequest<Full<Bytes>>> {
        let kept = match self.connection.as_mut() {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !kept {
            let stream = TcpStream::connect(&self.authority).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (sender, driver) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(driver);
            self.connection = Some(sender);
        }
        self.connection.as_mut()
    }
}
