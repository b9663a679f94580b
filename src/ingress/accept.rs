//! One request: its body, whose it is, the record, the log, the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Request, Response, header as http_header};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use secrecy::ExposeSecret as _;

use crate::error::{Error, Kind};
use crate::ingress::admit::{Budget, Guest, Permits, Reserved};
use crate::ingress::reply::{self, Answer, Refusal};
use crate::ingress::route::{self, Asked, Served};
use crate::ingress::trace::{self, Knock};
use crate::ingress::{Keys, Settings};
use crate::model::contract::{Topic, header};
use crate::model::id::{PseudonymKey, sha256_hex};
use crate::model::record::{Headers, OutRecord};
use crate::model::time::Micros;
use crate::stream::clock::Stopwatch;
use crate::stream::planted::Bug;
use crate::stream::{Sender, text};
use crate::telemetry::metrics::Metrics;
use crate::vendors::{KeyUser, Request as Signed, Verified};

/// What is reserved ahead of what has come. A frame of hyper's is never larger than its read
/// buffer, which is set to the same, so a body never has more in memory than it has reserved.
pub(super) const BODY_STEP_BYTES: usize = 16 * 1024;
/// The longest value of a request header that goes onto the record.
const KEPT_BYTES_MAX: usize = 1_024;
/// The longest delivery id of a vendor; a longer one is not its, and the body's hash stands in.
const DELIVERY_ID_BYTES_MAX: usize = 128;
/// The label of requests to no vendor of ours.
const UNKNOWN: &str = "unknown";

/// The door, as all connections share it.
pub(super) struct Door<S> {
    pub(super) settings: Settings,
    keys: Keys,
    pseudonyms: PseudonymKey,
    sender: Arc<S>,
    pub(super) metrics: Metrics,
    permits: Permits,
    budget: Budget,
    /// Whether the last record was acknowledged: an outage is logged when it begins and when it
    /// ends.
    durable: AtomicBool,
}

impl<S: Sender> Door<S> {
    pub(super) fn new(settings: Settings, keys: Keys, sender: Arc<S>, metrics: Metrics) -> Self {
        let wait_max = Duration::from_millis(settings.permit_wait_ms_max);
        Self {
            pseudonyms: PseudonymKey::new(keys.pseudonym.expose_secret().as_bytes()),
            permits: Permits::new(settings.permits, wait_max, metrics.clone()),
            budget: Budget::new(settings.body_bytes_in_flight_max, &metrics),
            durable: AtomicBool::new(true),
            settings,
            keys,
            sender,
            metrics,
        }
    }

    /// Answers one request, whatever it is; `now` is asked when its body is complete.
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        guest: &Guest,
        now: impl FnOnce() -> Micros,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let watch = Stopwatch::start();
        let (head, body) = request.into_parts();
        let served = route::vendor(head.uri.path(), &self.keys);
        let name = served.as_ref().map_or(UNKNOWN, |served| served.vendor.name());
        let answer = match served {
            Ok(served) => self.serve(&head, body, served, guest, now).await,
            Err(refusal) => self.refused_unread(refusal, &body),
        };
        self.metrics.requests.at([name, answer.status().as_str()]).inc();
        self.metrics.request_seconds.at([name]).observe(watch.seconds());
        answer
    }

    async fn serve<B>(
        &self,
        head: &Parts,
        body: B,
        served: Served<'_>,
        guest: &Guest,
        now: impl FnOnce() -> Micros,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        match route::asked(head, served) {
            Err(refusal) => return self.refused_unread(refusal, &body),
            Ok(Asked::Handshake(text)) if body.is_end_stream() => return reply::handshake(text),
            Ok(Asked::Handshake(text)) => return reply::closing(reply::handshake(text)),
            Ok(Asked::Delivery) => {}
        }
        let mut reserved = self.budget.open();
        let (cap, limit) = (served.vendor.body_bytes_max(), self.settings.body_ms_max);
        let whole = receive(body, cap, &mut reserved);
        let body = match tokio::time::timeout(Duration::from_millis(limit), whole).await {
            Ok(Ok(body)) => body,
            Ok(Err(refusal)) => return reply::closing(self.refused(refusal)),
            Err(_) => return reply::closing(self.refused(Refusal::Slow)),
        };
        guest.served();
        let answer = match self.deliver(head, body, served, now()).await {
            Ok(answer) => answer,
            Err(refusal) => self.refused(refusal),
        };
        guest.receives();
        answer
    }

    /// A complete request: a permit, whose it is, the log.
    async fn deliver(
        &self,
        head: &Parts,
        body: Bytes,
        served: Served<'_>,
        received_at: Micros,
    ) -> Result<Answer, Refusal> {
        let watch = Stopwatch::start();
        let permit = self.permits.take().await?;
        let headers: Vec<(String, Vec<u8>)> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect();
        let verified = served
            .vendor
            .verify(&Signed { headers: &headers, body: &body }, &served.keys.lend(), received_at)
            .map_err(Refusal::Signature)?;
        let (record, delivery_id) = self.record(&head.headers, body, served, verified, received_at);
        let knock = self.knock(&head.headers, &record, served, received_at + watch.us());
        let logged = self.log(record).await;
        let answer = logged.map(|()| {
            permit.done();
            reply::accepted(served.vendor.accepted(), served.vendor.name(), &delivery_id)
        });
        if let Some(knock) = knock {
            let status = answer.as_ref().map_or_else(|no| no.status(), Response::status);
            knock.answered(&self.metrics.tracer, (received_at, received_at + watch.us()), status);
        }
        answer
    }

    /// What is traced of a request, if it is sampled.
    fn knock(
        &self,
        request: &HeaderMap,
        record: &OutRecord,
        served: Served<'_>,
        now: Micros,
    ) -> Option<Knock> {
        let traceparent = record.headers.get(header::TRACEPARENT).map(Bytes::as_ref);
        let context = self.metrics.tracer.sampled(traceparent)?;
        let given = trace::given(request) == Some(context);
        Some(Knock::new(served.vendor.name(), context, given, now))
    }

    /// The raw record of a verified request, and its delivery's id.
    fn record(
        &self,
        request: &HeaderMap,
        body: Bytes,
        served: Served<'_>,
        verified: Verified,
        received_at: Micros,
    ) -> (OutRecord, String) {
        let vendor = served.vendor.name();
        let sha256 = sha256_hex(&body);
        let short = sha256.get(..32).unwrap_or_default();
        let key = match served.vendor.key_user(&verified, &body) {
            KeyUser::One(user) => {
                format!("{vendor}:{}", self.pseudonyms.vendor_user(vendor, &user))
            }
            KeyUser::None => format!("{vendor}:{short}"),
        };
        let delivery_id = served
            .vendor
            .delivery_header()
            .and_then(|name| request.get(name))
            .and_then(|value| delivery_id(value.as_bytes()))
            .map_or_else(|| short.to_owned(), str::to_owned);
        let mut headers = Headers::new()
            .with(header::VENDOR, Bytes::from_static(vendor.as_bytes()))
            .with(header::DELIVERY_ID, text(delivery_id.as_str()))
            .with(header::RECEIVED_AT, text(received_at.to_string()))
            .with(header::SIGNATURE, Bytes::from_static(b"verified"))
            .with(header::SIGNATURE_SCHEME, Bytes::from_static(verified.scheme.as_bytes()))
            .with(header::TRACEPARENT, text(self.traceparent(request, &sha256, received_at)))
            .with(header::SHA256, text(sha256));
        let mut keep = |name: String, from: &str| {
            if let Some(value) = request.get(from).map(http::HeaderValue::as_bytes)
                && value.len() <= KEPT_BYTES_MAX
            {
                headers.push(name, Bytes::copy_from_slice(value));
            }
        };
        keep(header::CONTENT_TYPE.to_owned(), http_header::CONTENT_TYPE.as_str());
        keep(header::CONTENT_ENCODING.to_owned(), http_header::CONTENT_ENCODING.as_str());
        for from in served.vendor.kept_headers() {
            keep(format!("{}{from}", header::REQUEST_PREFIX), from);
        }
        if let Some(user) = verified.vendor_user {
            headers.push(header::VENDOR_USER, text(user));
        }
        let record = OutRecord {
            topic: Topic::RawWebhooks,
            key: Some(text(key)),
            headers,
            value: Some(body),
        };
        (record, delivery_id)
    }

    /// The request's W3C trace context, if it is one, else one of its own.
    fn traceparent(&self, request: &HeaderMap, sha256: &str, received_at: Micros) -> String {
        let tracer = &self.metrics.tracer;
        let context = trace::given(request);
        context.unwrap_or_else(|| trace::begun(tracer, sha256, received_at)).to_string()
    }

    /// Writes the record; returns when every in-sync replica has it.
    async fn log(&self, record: OutRecord) -> Result<(), Refusal> {
        if Bug::AnswerBeforeAck.alive() {
            let sender = Arc::clone(&self.sender);
            tokio::spawn(async move { sender.send(record).await.is_ok() });
            return Ok(());
        }
        let deadline = Duration::from_millis(self.settings.ack_ms_max);
        let error = match tokio::time::timeout(deadline, self.sender.send(record)).await {
            Ok(Ok(_)) => {
                if !self.durable.load(Ordering::Relaxed)
                    && !self.durable.swap(true, Ordering::Relaxed)
                {
                    tracing::info!("the log acknowledges again");
                }
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => Error::new(Kind::BrokerUnavailable, "await the acknowledgement", "deadline"),
        };
        if self.durable.swap(false, Ordering::Relaxed) {
            tracing::warn!(%error, "the log does not acknowledge; vendors are asked to send again");
        }
        Err(if error.kind == Kind::Overloaded { Refusal::Overloaded } else { Refusal::NotDurable })
    }

    fn refused(&self, refusal: Refusal) -> Answer {
        self.metrics.failures.at(["ingress", refusal.kind().name()]).inc();
        self.metrics.errors.at([refusal.kind().name()]).inc();
        tracing::debug!(kind = refusal.kind().name(), "refused");
        refusal.answer(self.settings.retry_after_s)
    }

    /// Refused with the body, if there is one, left unread: what follows on this connection is not
    /// a request.
    fn refused_unread(&self, refusal: Refusal, body: &impl Body) -> Answer {
        let answer = self.refused(refusal);
        if body.is_end_stream() { answer } else { reply::closing(answer) }
    }
}

/// The whole body, or as soon as that is known, why not.
async fn receive<B>(
    mut body: B,
    bytes_max: usize,
    reserved: &mut Reserved<'_>,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let told = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let most = told.map_or(bytes_max, |told| told.min(bytes_max));
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let received = first.len() + rest.len();
        reserved.reach(received.saturating_add(BODY_STEP_BYTES).min(most).max(reserved.bytes()))?;
        let Some(frame) = body.frame().await else { break };
        let Ok(part) = frame.map_err(|_| Refusal::Broken)?.into_data() else { continue };
        if received + part.len() > bytes_max {
            return Err(Refusal::TooLarge);
        }
        if received == 0 {
            // Most bodies come in one piece, which is then not copied.
            first = part;
        } else {
            if rest.is_empty() {
                rest.reserve(reserved.bytes());
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&part);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// A vendor's delivery id, where it is one: it stands in our answer and in a header.
fn delivery_id(value: &[u8]) -> Option<&str> {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    let fits = (1..=DELIVERY_ID_BYTES_MAX).contains(&value.len()) && value.iter().all(safe);
    fits.then(|| std::str::from_utf8(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[test]
    fn a_delivery_id_is_safe_to_repeat() {
        assert_eq!(delivery_id(b"a-B_9.:x"), Some("a-B_9.:x"));
        for bad in [b"".as_slice(), b"a\"b", b"a b", b"\xff", &[b'a'; 129]] {
            assert_eq!(delivery_id(bad), None);
        }
    }

    #[tokio::test]
    async fn a_body_is_reserved_as_it_comes() {
        let metrics = Metrics::new();
        let budget = Budget::new(100, &metrics);
        let mut reserved = budget.open();
        let body = Full::new(Bytes::from_static(b"0123456789"));
        assert_eq!(receive(body, 10, &mut reserved).await, Ok(Bytes::from_static(b"0123456789")));
        assert_eq!(reserved.bytes(), 10, "no more than is told");
        let body = Full::new(Bytes::from_static(b"0123456789"));
        assert_eq!(receive(body, 9, &mut budget.open()).await, Err(Refusal::TooLarge));
        let body = Full::new(Bytes::from(vec![0; 200]));
        assert_eq!(receive(body, 200, &mut budget.open()).await, Err(Refusal::Overloaded));
        drop(reserved);
        assert_eq!(metrics.body_bytes.get(), 0);
    }
}
