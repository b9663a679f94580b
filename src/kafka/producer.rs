//! The producer outside of transactions: the ingress and normalise send with it, one record, one acknowledgement.
//!
//! # Why it refuses instead of waiting
//! A full queue is the ingress' signal to answer 503: `send` says so at once and never sleeps. A fatal error of the
//! idempotent producer (the broker's log does not continue where ours did) ends all records in flight with an error
//! and the producer with them; another one takes its place within a second.
//!
//! # Why a thread that works in strokes
//! Keys spread records over all partitions, so at any moment most partitions have one record waiting, and each is a
//! request of its own to the broker. Left to itself every record then wakes the library's thread when it comes, once
//! more when its linger is over and again for its answer, and every answer wakes a thread here: on a busy machine
//! that is more work than HTTP, HMAC and copying together. So one thread hands records over and takes answers in,
//! and while anything is under way it does both once every `STROKE`: what came in between goes out together,
//! without a linger. A record that finds nothing under way does not wait at all.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tokio::sync::oneshot;

use super::settings::{Names, Settings};
use super::transactional::native_headers;
use super::watch::{Watch, broken};
use crate::error::{Error, Kind, Result};
use crate::model::record::OutRecord;
use crate::model::state::Coordinates;
use crate::stream::Sender;
use crate::stream::clock::Stopwatch;

const DOING: &str = "send a record";
/// How often records are handed over and answers taken in while any are under way.
const STROKE: Duration = Duration::from_micros(500);
/// Strokes in which nothing happened before they become rarer: the brokers are away, or slow.
const QUIET_MAX: u32 = 20;
/// How rare they become, and how long a thread that has nothing to do sleeps before it looks what the library says.
const LOOK: Duration = Duration::from_millis(100);
const QUIET_STROKE: Duration = Duration::from_millis(5);
/// The least time between two producers.
const ANEW: Duration = Duration::from_millis(1000);
/// What the library is given beyond its own deadline before it is not believed any more.
const GRACE: Duration = Duration::from_millis(2000);

type Answer = std::result::Result<(i32, i64), RDKafkaErrorCode>;

/// A record's place among those under way, given back with its answer, whoever drops it.
struct Place {
    open: Arc<Open>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.open.records.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is under way: from `send` to the answer.
#[derive(Default)]
struct Open {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

/// Who waits for a record's answer.
struct Waiting {
    answer: oneshot::Sender<Answer>,
    _place: Place,
}

impl Waiting {
    fn tell(self, answer: Answer) {
        // Who asked may have given up at its own, shorter deadline.
        if self.answer.send(answer).is_err() {}
    }
}

/// Gives each record's answer to who waits for it.
#[derive(Debug, Default)]
struct Acknowledge {
    watch: Watch,
    told: AtomicU64,
    failed: AtomicU64,
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
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        self.told.fetch_add(1, Ordering::Relaxed);
        waiting.tell(match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))
            }
        });
    }
}

/// What waits for the thread. Bounded by the bytes of all that is under way.
#[derive(Default)]
struct Queue {
    records: Vec<(OutRecord, Box<Waiting>)>,
    /// Whether the thread sleeps until it is woken.
    asleep: bool,
    closed: bool,
}

struct Shared {
    settings: Settings,
    id: String,
    names: Names,
    queue: Mutex<Queue>,
    woken: Condvar,
    open: Arc<Open>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the thread with the last of its clones.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.woken.notify_one();
    }
}

/// A producer whose records are acknowledged by every in-sync replica. Clones share it.
#[derive(Clone)]
pub struct Sending(Arc<Handle>);

impl Sending {
    /// A producer under this client id. Brokers that are away are no error here: sending is.
    ///
    /// # Errors
    /// Where the settings are not what the library takes, a password file cannot be read, or no thread can be had.
    pub fn start(settings: &Settings, id: &str) -> Result<Self> {
        let producer = create(settings, id)?;
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            id: id.to_owned(),
            names: settings.names(),
            queue: Mutex::default(),
            woken: Condvar::new(),
            open: Arc::default(),
        });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("{id} producer"))
            .spawn(move || work(&theirs, producer))
            .map_err(|_| Error::internal("start a producer's thread"))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Gives a record to the thread, if there is room for it.
    fn hand_over(&self, record: OutRecord) -> Result<oneshot::Receiver<Answer>> {
        let shared = &self.0.0;
        let bytes = record.size();
        let max = usize::try_from(shared.settings.send_queue_bytes_max).unwrap_or(usize::MAX);
        let open = Arc::clone(&shared.open);
        let room = open.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= max)
        });
        if room.is_err() {
            return Err(refused(RDKafkaErrorCode::QueueFull));
        }
        open.records.fetch_add(1, Ordering::AcqRel);
        let (answer, answered) = oneshot::channel();
        let waiting = Box::new(Waiting { answer, _place: Place { open, bytes } });
        let mut queue = shared.lock();
        queue.records.push((record, waiting));
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            shared.woken.notify_one();
        }
        Ok(answered)
    }

    /// Waits until nothing waits for an acknowledgement any more; `false` when the time is up first.
    pub async fn drained(&self, at_most: Duration) -> bool {
        let empty = async {
            while self.0.0.open.records.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(at_most, empty).await.is_ok()
    }
}

/// The thread: hands over, takes in, and sleeps, until the last handle is gone.
fn work(shared: &Shared, mut producer: BaseProducer<Acknowledge>) {
    let (mut quiet, mut last) = (0_u32, Stopwatch::start());
    loop {
        let mut queue = shared.lock();
        if queue.closed {
            return;
        }
        let records = std::mem::take(&mut queue.records);
        if records.is_empty() && shared.open.records.load(Ordering::Acquire) == 0 {
            queue.asleep = true;
            let slept = shared.woken.wait_timeout(queue, LOOK);
            let (mut queue, slept) = slept.unwrap_or_else(PoisonError::into_inner);
            if slept.timed_out() {
                queue.asleep = false;
                drop(queue);
                producer.poll(Duration::ZERO);
            }
            continue;
        }
        drop(queue);
        let handed = !records.is_empty();
        for (record, waiting) in records {
            produce(&producer, shared.names.of(record.topic), &record, waiting);
        }
        let (told, failed) = take_in(&producer);
        if failed && last.elapsed() >= ANEW && producer.client().fatal_error().is_some() {
            last = Stopwatch::start();
            anew(shared, &mut producer);
        }
        quiet = if handed || told { 0 } else { quiet.saturating_add(1) };
        std::thread::sleep(if quiet < QUIET_MAX { STROKE } else { QUIET_STROKE });
    }
}

/// All answers that are there: whether there were any, and whether any was, or may have been, a failure.
fn take_in(producer: &BaseProducer<Acknowledge>) -> (bool, bool) {
    let context = producer.context();
    let before = context.told.load(Ordering::Relaxed);
    let mut told = before;
    loop {
        producer.poll(Duration::ZERO);
        let now = context.told.load(Ordering::Relaxed);
        if now == told {
            return (told != before, context.failed.swap(0, Ordering::Relaxed) > 0);
        }
        told = now;
    }
}

fn produce(
    producer: &BaseProducer<Acknowledge>,
    name: &str,
    record: &OutRecord,
    waiting: Box<Waiting>,
) {
    let headers = native_headers(&record.headers);
    let mut message: BaseRecord<'_, [u8], [u8], _> =
        BaseRecord::with_opaque_to(name, waiting).headers(headers);
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    if let Err((error, message)) = producer.send(message) {
        producer.context().failed.fetch_add(1, Ordering::Relaxed);
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument);
        message.delivery_opaque.tell(Err(code));
    }
}

/// Puts another producer in the place of a dead one. The old one is ended elsewhere, because that blocks.
fn anew(shared: &Shared, producer: &mut BaseProducer<Acknowledge>) {
    match create(&shared.settings, &shared.id) {
        Ok(new) => {
            let old = std::mem::replace(producer, new);
            let ending = std::thread::Builder::new().spawn(move || drop(old));
            drop(ending); // where there is no thread for it, it was ended here
            tracing::warn!("a producer was dead and was made anew");
        }
        Err(error) => tracing::error!(%error, "a producer could not be made anew"),
    }
}

fn create(settings: &Settings, id: &str) -> Result<BaseProducer<Acknowledge>> {
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
        RDKafkaErrorCode::InvalidArgument => Kind::InternalError,
        _ => Kind::BrokerUnavailable,
    };
    Error::new(kind, DOING, format!("{code:?}"))
}

impl Sender for Sending {
    fn send(&self, record: OutRecord) -> impl Future<Output = Result<Coordinates>> + Send {
        let (topic, handed) = (record.topic, self.hand_over(record));
        let timeout = Duration::from_millis(self.0.0.settings.send_timeout_ms.into()) + GRACE;
        async move {
            match tokio::time::timeout(timeout, handed?).await {
                Ok(Ok(Ok((partition, offset)))) => Ok(Coordinates { topic, partition, offset }),
                Ok(Ok(Err(code))) => Err(refused(code)),
                Ok(Err(_)) | Err(_) => Err(Error::new(Kind::BrokerUnavailable, DOING, "NoAnswer")),
            }
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
