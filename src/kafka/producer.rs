//! The producer outside of transactions: the ingress and normalise send with it, one record, one acknowledgement.
//!
//! # Why it refuses instead of waiting
//! A full queue is the ingress' signal to answer 503: `send` says so at once and never sleeps. A fatal error of the
//! idempotent producer (the broker's log does not continue where ours did) ends all records in flight with an error
//! and the producer with them; another one takes its place within a second.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::settings::{Names, Settings};
use super::transactional::native_headers;
use super::watch::{Watch, broken, code};
use crate::error::{Error, Kind, Result};
use crate::model::record::OutRecord;
use crate::model::state::Coordinates;
use crate::stream::Sender;

const DOING: &str = "send a record";
/// The least time between two producers.
const ANEW: Duration = Duration::from_millis(1000);
/// What the library is given beyond its own deadline before it is not believed any more.
const GRACE: Duration = Duration::from_millis(2000);

type Answer = std::result::Result<(i32, i64), RDKafkaErrorCode>;

/// Gives each record's answer to who waits for it.
#[derive(Debug, Default)]
struct Acknowledge {
    watch: Watch,
}

impl ClientContext for Acknowledge {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.watch.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, text: &str) {
        self.watch.error(&error, text);
    }
}

impl ProducerContext for Acknowledge {
    type DeliveryOpaque = Box<oneshot::Sender<Answer>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        // Who asked may have given up at its own, shorter deadline.
        if waiting.send(answer).is_err() {}
    }
}

struct Inner {
    settings: Settings,
    names: Names,
    id: String,
    producer: RwLock<Arc<ThreadedProducer<Acknowledge>>>,
    renewing: AtomicBool,
}

/// A producer whose records are acknowledged by every in-sync replica. Clones share it.
#[derive(Clone)]
pub struct Sending(Arc<Inner>);

impl Sending {
    /// A producer under this client id. Brokers that are away are no error here: sending is.
    ///
    /// # Errors
    /// Where the settings are not what the library takes, or a password file cannot be read.
    pub fn start(settings: &Settings, id: &str) -> Result<Self> {
        let producer = RwLock::new(Arc::new(create(settings, id)?));
        let (settings, names, id) = (settings.clone(), settings.names(), id.to_owned());
        let renewing = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner { settings, names, id, producer, renewing })))
    }

    fn producer(&self) -> Arc<ThreadedProducer<Acknowledge>> {
        Arc::clone(&self.0.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another producer in the place of a dead one, at most one a second.
    fn renew_if_dead(&self) {
        if self.producer().client().fatal_error().is_none()
            || self.0.renewing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let from = Arc::clone(&inner);
            let renewed = tokio::task::spawn_blocking(move || -> Result<()> {
                let new = Arc::new(create(&from.settings, &from.id)?);
                let mut place = from.producer.write().unwrap_or_else(PoisonError::into_inner);
                let old = std::mem::replace(&mut *place, new);
                drop(place);
                drop(old); // it ends here, or with the last record that waits for its answer
                Ok(())
            });
            match renewed.await {
                Ok(Ok(())) => tracing::warn!("a producer was dead and was made anew"),
                Ok(Err(error)) => tracing::error!(%error, "a producer could not be made anew"),
                Err(_) => tracing::error!("a producer could not be made anew"),
            }
            tokio::time::sleep(ANEW).await;
            inner.renewing.store(false, Ordering::Release);
        });
    }

    /// Waits until nothing waits for an acknowledgement any more; `false` when the time is up first.
    pub async fn drained(&self, at_most: Duration) -> bool {
        let producer = self.producer();
        let empty = async {
            while producer.in_flight_count() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(at_most, empty).await.is_ok()
    }
}

fn create(settings: &Settings, id: &str) -> Result<ThreadedProducer<Acknowledge>> {
    settings
        .sender(id)?
        .create_with_context(Acknowledge::default())
        .map_err(|error| broken("make a producer", &error))
}

/// What the ingress and normalise do about a record that was not taken.
fn refused(code: RDKafkaErrorCode) -> Error {
    let kind = match code {
        RDKafkaErrorCode::QueueFull => Kind::Overloaded,
        RDKafkaErrorCode::MessageSizeTooLarge => Kind::PayloadTooLarge,
        _ => Kind::BrokerUnavailable,
    };
    Error::new(kind, DOING, format!("{code:?}"))
}

impl Sender for Sending {
    fn send(&self, record: OutRecord) -> impl Future<Output = Result<Coordinates>> + Send {
        let this = self.clone();
        async move {
            let producer = this.producer();
            let (answer, answered) = oneshot::channel();
            {
                let headers = native_headers(&record.headers);
                let mut message: BaseRecord<'_, [u8], [u8], _> =
                    BaseRecord::with_opaque_to(this.0.names.of(record.topic), Box::new(answer))
                        .headers(headers);
                message.key = record.key.as_deref();
                message.payload = record.value.as_deref();
                if let Err((error, _)) = producer.send(message) {
                    this.renew_if_dead();
                    return Err(match error.rdkafka_error_code() {
                        Some(code) => refused(code),
                        None => Error::new(Kind::InternalError, DOING, code(&error)),
                    });
                }
            }
            // Not kept while waiting: the last owner of a producer ends it, and that blocks.
            drop(producer);
            let timeout = Duration::from_millis(this.0.settings.send_timeout_ms.into()) + GRACE;
            let (partition, offset) = match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(Ok(at))) => at,
                Ok(Ok(Err(code))) => {
                    this.renew_if_dead();
                    return Err(refused(code));
                }
                Ok(Err(_)) | Err(_) => {
                    return Err(Error::new(Kind::BrokerUnavailable, DOING, "NoAnswer"));
                }
            };
            Ok(Coordinates { topic: record.topic, partition, offset })
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::kafka::settings::tests::local;
    use crate::model::contract::Topic;
    use crate::model::record::Headers;

    fn record(size: usize) -> OutRecord {
        OutRecord {
            topic: Topic::RawWebhooks,
            key: None,
            headers: Headers::new(),
            value: Some(vec![0; size].into()),
        }
    }

    #[tokio::test]
    async fn an_acknowledgement_names_the_place() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(Topic::RawWebhooks.name(), 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let sending = Sending::start(&local(|to| to.brokers = brokers), "test").unwrap();
        for offset in 0..3 {
            let at = sending.send(record(10)).await.unwrap();
            assert_eq!((at.topic, at.partition, at.offset), (Topic::RawWebhooks, 0, offset));
        }
    }

    /// Nobody listens: what fits waits until its deadline, what does not fit is refused at once.
    #[tokio::test]
    async fn a_full_queue_is_refused_at_once() {
        let settings = local(|settings| {
            settings.brokers = "127.0.0.1:9".into();
            settings.send_timeout_ms = 1500;
            settings.send_queue_bytes_max = 1 << 20;
        });
        let sending = Sending::start(&settings, "test").unwrap();
        let send = || {
            let sending = sending.clone();
            tokio::spawn(async move { sending.send(record(100_000)).await })
        };
        let waiting: Vec<_> = (0..10).map(|_| send()).collect();
        tokio::task::yield_now().await;
        let refused =
            tokio::time::timeout(Duration::from_millis(200), sending.send(record(900_000)));
        assert_eq!(refused.await.expect("at once").unwrap_err().kind, Kind::Overloaded);
        assert!(!sending.drained(Duration::from_millis(50)).await);
        for sent in waiting {
            assert_eq!(sent.await.unwrap().unwrap_err().kind, Kind::BrokerUnavailable);
        }
        assert!(sending.drained(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn a_dead_producer_is_followed_by_another() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(Topic::RawWebhooks.name(), 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let sending = Sending::start(&local(|to| to.brokers = brokers), "test").unwrap();
        sending.send(record(1)).await.unwrap();
        let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
        let mut failed = 0;
        while sending.send(record(1)).await.is_err() {
            failed += 1;
            assert!(failed < 100, "it never came back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(failed > 0, "a fatal error was not seen as one");
    }
}
