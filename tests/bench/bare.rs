//! The physical reference of the ingress: hyper, one HMAC-SHA256 over the body, one acknowledged produce, nothing else.
//!
//! As short as it can be: no limits, no deadlines, no metrics, no headers on the record. The producer has the settings
//! of ours (`src/kafka/settings.rs`), and its records have a key, so that they spread over the partitions as ours do:
//! without one all of a moment go into one batch, and what is compared would be the batching.
//!
//! `bare ADDRESS BROKERS TOPIC`

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a reference, not a part of the program: it may end where it stands"
)]

use std::convert::Infallible;
use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tells who waits that the brokers have it.
struct Acknowledge;

impl ClientContext for Acknowledge {}

impl ProducerContext for Acknowledge {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        if waiting.send(result.is_ok()).is_err() {}
    }
}

struct Bare {
    key: hmac::Key,
    topic: String,
    producer: ThreadedProducer<Acknowledge>,
}

impl Bare {
    async fn answer(&self, request: Request<Incoming>) -> u16 {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return 400 };
        let body = body.to_bytes();
        let signature = head.headers.get("x-terra-signature").and_then(|value| value.to_str().ok());
        let parts = signature.and_then(|value| value.strip_prefix("t=")?.split_once(",v1="));
        let Some((at, given)) = parts else { return 401 };
        let mut context = hmac::Context::with_key(&self.key);
        context.update(at.as_bytes());
        context.update(b".");
        context.update(&body);
        let digest = hex::encode(context.sign());
        if !bool::from(subtle::ConstantTimeEq::ct_eq(digest.as_bytes(), given.as_bytes())) {
            return 401;
        }
        let (answer, answered) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(answer));
        let key = digest.get(..32).unwrap_or_default();
        if self.producer.send(record.key(key).payload(body.as_ref())).is_err() {
            return 503;
        }
        if answered.await == Ok(true) { 200 } else { 503 }
    }
}

fn producer(brokers: &str) -> ThreadedProducer<Acknowledge> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("socket.nagle.disable", "true")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1")
        .set("message.timeout.ms", "5000")
        .set("compression.type", "lz4")
        .create_with_context(Acknowledge)
        .expect("a producer")
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("bare ADDRESS BROKERS TOPIC");
    let (address, brokers, topic) = (next(), next(), next());
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"not-a-secret-test-key");
    let bare = Arc::new(Bare { key, topic, producer: producer(&brokers) });
    let listener = tokio::net::TcpListener::bind(&address).await.expect("the address is free");
    eprintln!("bare listens on {address}");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let bare = Arc::clone(&bare);
        tokio::spawn(async move {
            if stream.set_nodelay(true).is_err() {
                return;
            }
            let service = service_fn(|request| {
                let bare = Arc::clone(&bare);
                async move {
                    let status = bare.answer(request).await;
                    let body = Full::new(Bytes::from_static(b"{\"status\":\"accepted\"}"));
                    Ok::<_, Infallible>(
                        Response::builder().status(status).body(body).expect("a status of ours"),
                    )
                }
            });
            // A client that goes away is no news.
            if http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.is_err()
            {
            }
        });
    }
}
