//! One request: its body, whose it is, the record, the log, the answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, header as http_header};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use secrecy::ExposeSecret as _;

use crate::error::{Error, Kind};
use crate::ingress::admit::{Budget, Guest, Permits, Reserved};
use crate::ingress::cors::Origins;
use crate::ingress::desk::{Desk, Desks};
use crate::ingress::reply::{self, Answer, Refusal};
use crate::ingress::route::{self, Asked};
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
use crate::vendors::{KeyUser, Named, Request as Signed, Vendor, Verified};

/// What is reserved ahead of what has come. A frame of hyper's is never larger than its read
/// buffer, which is set to the same, so a body never has more in memory than it has reserved.
pub(super) const BODY_STEP_BYTES: usize = 16 * 1024;
/// The longest value of a request header that goes onto the record.
const KEPT_BYTES_MAX: usize = 1_024;
/// The longest delivery id of a vendor; a longer one is not its, and the body's hash stands in.
const DELIVERY_ID_BYTES_MAX: usize = 128;
/// The label of requests to no vendor of ours.
const UNKNOWN: &str = "unknown";
/// Headers of a raw record that are always there; the rest is a few that were kept.
const HEADERS: usize = 12;

impl Named for HeaderMap {
    fn first_two(&self, name: &str) -> [Option<&[u8]>; 2] {
        let mut found = self.get_all(name).iter().map(HeaderValue::as_bytes);
        [(); 2].map(|()| found.next())
    }
}

/// The door, as all connections share it.
pub(super) struct Door<S> {
    pub(super) settings: Settings,
    desks: Desks,
    origins: Option<Origins>,
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
            desks: Desks::new(&keys, &metrics),
            origins: Origins::new(&settings.cors),
            settings,
            sender,
            metrics,
        }
    }

    /// Answers one request, whatever it is. `heard` runs since its first byte; `now` is asked when
    /// its body is complete.
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        guest: &Guest,
        heard: Stopwatch,
        now: impl FnOnce() -> Micros,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        let mut answer = match route::desk(head.uri.path(), &self.desks) {
            Ok(desk) => {
                let answer = self.serve(&head, body, desk, guest, now).await;
                desk.count(answer.status(), heard.elapsed(), &self.metrics);
                answer
            }
            Err(refusal) => {
                let answer = self.refused_unread(refusal, &body);
                let (requests, seconds) = (&self.metrics.requests, &self.metrics.request_seconds);
                requests.at([UNKNOWN, answer.status().as_str()]).inc();
                seconds.at([UNKNOWN]).observe(heard.seconds());
                answer
            }
        };
        if let Some(origins) = &self.origins {
            origins.mark(&head.headers, &mut answer);
        }
        answer
    }

    async fn serve<B>(
        &self,
        head: &Parts,
        body: B,
        desk: &Desk,
        guest: &Guest,
        now: impl FnOnce() -> Micros,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        match route::asked(head, desk, self.origins.as_ref()) {
            Err(refusal) => return self.refused_unread(refusal, &body),
            Ok(Asked::Handshake(text)) => return unread(reply::handshake(text), &body),
            Ok(Asked::Preflight(answer)) => return unread(answer, &body),
            Ok(Asked::Delivery) => {}
        }
        if let Err(after_s) = desk.gate.pass(guest.peer()) {
            return self.refused_unread(Refusal::Limited(desk.vendor.limited(), after_s), &body);
        }
        if self.permits.are_gone() {
            return self.overloaded(&body);
        }
        let mut reserved = self.budget.open();
        let (cap, limit) = (desk.vendor.body_bytes_max(), self.settings.body_ms_max);
        let whole = receive(body, cap, &mut reserved);
        let body = match tokio::time::timeout(Duration::from_millis(limit), whole).await {
            Ok(Ok(body)) => body,
            Ok(Err(refusal)) => return reply::closing(self.refused(refusal)),
            Err(_) => return reply::closing(self.refused(Refusal::Slow)),
        };
        guest.served();
        let answer = match self.deliver(head, body, desk, now()).await {
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
        desk: &Desk,
        received_at: Micros,
    ) -> Result<Answer, Refusal> {
        let watch = Stopwatch::start();
        let permit = self.permits.take().await?;
        let signed = Signed { headers: &head.headers, body: &body };
        let (vendor, keyset) = (desk.vendor, desk.keyset.get());
        let secrets = desk.secrets(keyset.as_deref());
        if let Some(status) = vendor.greets(&signed, &secrets) {
            permit.done();
            return Ok(reply::greeted(status));
        }
        let verified =
            vendor.verify(&signed, &secrets, received_at).map_err(Refusal::unverified)?;
        let (record, delivery_id) = self.record(&head.headers, body, vendor, verified, received_at);
        let knock = self.knock(&head.headers, &record, vendor.name(), received_at + watch.us());
        let logged = self.log(record).await;
        let answer = logged.map(|()| {
            permit.done();
            reply::accepted(vendor.accepted(), vendor.name(), &delivery_id)
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
        vendor: &'static str,
        now: Micros,
    ) -> Option<Knock> {
        let traceparent = record.headers.get(header::TRACEPARENT).map(Bytes::as_ref);
        let context = self.metrics.tracer.sampled(traceparent)?;
        let given = trace::given(request) == Some(context);
        Some(Knock::new(vendor, context, given, now))
    }

    /// The raw record of a verified request, and its delivery's id.
    fn record(
        &self,
        request: &HeaderMap,
        body: Bytes,
        vendor: &'static dyn Vendor,
        verified: Verified,
        received_at: Micros,
    ) -> (OutRecord, String) {
        let name = vendor.name();
        let sha256 = sha256_hex(&body);
        let short = sha256.get(..32).unwrap_or_default();
        let key = match vendor.key_user(&verified, &body) {
            KeyUser::One(user) => {
                format!("{name}:{}", self.pseudonyms.vendor_user(name, &user))
            }
            KeyUser::None => format!("{name}:{short}"),
        };
        let delivery_id = vendor
            .delivery_header()
            .and_then(|name| request.get(name))
            .and_then(|value| delivery_id(value.as_bytes()))
            .map_or_else(|| short.to_owned(), str::to_owned);
        let mut headers = Headers::with_capacity(HEADERS)
            .with(header::VENDOR, Bytes::from_static(name.as_bytes()))
            .with(header::DELIVERY_ID, text(delivery_id.as_str()))
            .with(header::RECEIVED_AT, text(received_at.to_string()))
            .with(header::SIGNATURE, Bytes::from_static(b"verified"))
            .with(header::SIGNATURE_SCHEME, Bytes::from_static(verified.scheme.as_bytes()))
            .with(header::TRACEPARENT, text(self.traceparent(request, &sha256, received_at)))
            .with(header::SHA256, text(sha256));
        let mut keep = |name: Cow<'static, str>, from: &str| {
            if let Some(value) = request.get(from).map(http::HeaderValue::as_bytes)
                && value.len() <= KEPT_BYTES_MAX
            {
                headers.push(name, Bytes::copy_from_slice(value));
            }
        };
        keep(header::CONTENT_TYPE.into(), http_header::CONTENT_TYPE.as_str());
        keep(header::CONTENT_ENCODING.into(), http_header::CONTENT_ENCODING.as_str());
        for from in vendor.kept_headers() {
            keep(format!("{}{from}", header::REQUEST_PREFIX).into(), from);
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

    /// Refused with the body, if there is one, left unread.
    fn refused_unread(&self, refusal: Refusal, body: &impl Body) -> Answer {
        unread(self.refused(refusal), body)
    }

    /// Refused because permits are gone, as cheaply as can be: hyper throws away a small body that
    /// has come with its head, and the connection lives on. A new one would cost more than this
    /// request.
    fn overloaded(&self, body: &impl Body) -> Answer {
        let answer = self.refused(Refusal::Overloaded);
        let told = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let small = told.is_some_and(|bytes| bytes <= BODY_STEP_BYTES);
        if small { answer } else { unread(answer, body) }
    }
}

/// An answer before the body, if there is one, was read: what follows on this connection is not a
/// request.
fn unread(answer: Answer, body: &impl Body) -> Answer {
    if body.is_end_stream() { answer } else { reply::closing(answer) }
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
