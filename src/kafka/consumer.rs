//! A member of a consumer group: one OS thread polls one consumer and hands records over.
//!
//! # Why a thread of its own
//! The library runs the rebalance callback on the thread that polls, and a revoke must be able to wait there until
//! the worker has finished what it has under way. The worker's thread can therefore not be the one that polls; and
//! everything that moves a partition (seek, pause, resume) happens on the poll thread, between two polls, so that no
//! record of before a seek can come after it.
//!
//! # The life of a partition here
//! Assigned: a new term, paused, at no position. Sought by the worker: the poll thread seeks and resumes. Revoked:
//! marked, and the callback waits until the worker has released the term, at most 5 s; then the worker's producer is
//! condemned, so that no EndTxn of it can follow, and the partition is given up. Lost: it is gone at once, because
//! the broker has already removed the member and refuses its metadata.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::handover::{Bounds, Handover, Pushed};
use super::member;
use super::settings::{ASK, COMMITTED_CALL, OutOfRange, RELEASE, Settings};
use super::watch::{Watch, broken, code};
use crate::error::{Error, Kind, Result};
use crate::model::contract::Topic;
use crate::model::record::{Headers, Record};
use crate::stream::{Committed, Log, Metadata, Owned};

/// Makes sure that no EndTxn of the worker's producer can follow; called on the poll thread, may block for as long
/// as a commit that is already inside the library takes.
pub type Condemn = Arc<dyn Fn() + Send + Sync>;

/// How long one poll waits when there is nothing; a seek that the worker asked for is seen after it.
const POLL: Duration = Duration::from_millis(20);
/// The same while something waits for the poll thread.
const POLL_BUSY: Duration = Duration::from_millis(2);
/// The most records between two looks at what the worker asked for.
const AT_ONCE: usize = 64;
/// How long a full queue may stand before its partitions are paused: longer than a batch takes, and much shorter than
/// a rebalance may take, in which whoever does not poll takes no part.
const STANDS: Duration = Duration::from_millis(250);
/// How often a waiting revoke looks at its time.
const SLICE: Duration = Duration::from_millis(50);
/// One seek; the library answers it without the network.
const SEEK: Duration = Duration::from_millis(1000);
/// The log's bounds, asked for on the poll thread when a position may be outside of them.
const BOUNDS: Duration = Duration::from_millis(2000);
/// The pause before a consumer that failed for good is made anew.
const ANEW: Duration = Duration::from_millis(1000);
/// Terms of one member: members of a process must not share any.
const TERMS_OF_A_MEMBER: u64 = 1 << 32;

static MEMBERS: AtomicU64 = AtomicU64::new(0);

/// What the poll thread and the worker share.
struct Shared {
    topic: Topic,
    name: String,
    out_of_range: OutOfRange,
    handover: Mutex<Handover>,
    /// Told when something was released, or taken.
    released: Condvar,
    /// Told when there is news for the worker.
    news: Notify,
    /// The worker asked for something: a seek, or room in a queue.
    asked: AtomicBool,
    stop: AtomicBool,
    left: AtomicBool,
    gone: Notify,
    condemn: Option<Condemn>,
    consumer: Mutex<Option<Arc<Poller>>>,
}

type Poller = BaseConsumer<Group>;

impl Shared {
    fn handover(&self) -> MutexGuard<'_, Handover> {
        // A panic elsewhere is the end of the process in a release; in a test the state is still whole.
        self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn consumer(&self) -> Option<Arc<Poller>> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_consumer(&self, consumer: Option<Arc<Poller>>) {
        *self.consumer.lock().unwrap_or_else(PoisonError::into_inner) = consumer;
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.name, *partition);
        }
        list
    }

    /// Does what the worker asked for. Only on the poll thread, between polls.
    fn serve(&self, consumer: &Poller) {
        if !self.asked.swap(false, Ordering::AcqRel) {
            return;
        }
        let wanted = self.handover().wanted();
        for (partition, from) in wanted {
            let sought = consumer
                .seek(&self.name, partition, Offset::Offset(from), SEEK)
                .and_then(|()| consumer.resume(&self.list(&[partition])));
            match sought {
                Ok(()) => self.handover().placed(partition, from),
                // The fetcher of a partition that has just been assigned may not have started yet.
                Err(_) => self.asked.store(true, Ordering::Release),
            }
        }
        let resumable = self.handover().resumable();
        if !resumable.is_empty() && consumer.resume(&self.list(&resumable)).is_err() {
            let mut handover = self.handover();
            resumable.iter().for_each(|partition| handover.set_paused(*partition, true));
            self.asked.store(true, Ordering::Release);
        }
    }

    /// Hands a polled record over; the worker is told afterwards.
    fn push(&self, consumer: &Poller, record: Record) {
        let (partition, offset) = (record.partition, record.offset);
        let pushed = self.handover().push(record);
        match pushed {
            Pushed::Kept | Pushed::Dropped => {}
            Pushed::Full => self.pause(consumer, &[partition]),
            Pushed::Doubted => {
                tracing::info!(topic = self.topic.name(), partition, "a gap: read again");
                self.asked.store(true, Ordering::Release);
            }
            Pushed::Missing(record, due) => {
                match consumer.fetch_watermarks(&self.name, partition, BOUNDS) {
                    Ok((low, _)) if low > due && self.out_of_range == OutOfRange::Recover => {
                        self.restart();
                    }
                    Ok(_) => {
                        self.handover().allow(partition, due, offset);
                        self.push(consumer, record);
                    }
                    Err(_) => self.doubt_again(partition),
                }
            }
            Pushed::Behind(due) => match consumer.fetch_watermarks(&self.name, partition, BOUNDS) {
                // What is due lies beyond the end: this is another log than the one it was counted in.
                Ok((_, high)) if high < due => self.restart(),
                Ok(_) => {}
                Err(_) => self.doubt_again(partition),
            },
        }
    }

    fn pause(&self, consumer: &Poller, partitions: &[i32]) {
        if consumer.pause(&self.list(partitions)).is_err() {
            let mut handover = self.handover();
            partitions.iter().for_each(|partition| handover.set_paused(*partition, false));
        }
    }

    /// Waits a slice while the queues are full, and gives how long they have stood full by then; past [`STANDS`]
    /// everything is paused, and polled on.
    fn stand(&self, consumer: &Poller, stood: Duration) -> Option<Duration> {
        let mut handover = self.handover();
        if !handover.full() {
            return None;
        }
        if stood < STANDS {
            let waited = self.released.wait_timeout(handover, SLICE);
            let (guard, slice) = waited.unwrap_or_else(PoisonError::into_inner);
            drop(guard);
            return Some(if slice.timed_out() { stood + SLICE } else { stood });
        }
        let partitions = handover.pausable();
        drop(handover);
        self.pause(consumer, &partitions);
        None
    }

    /// All partitions become new tasks; the recovery of each sees the log's bounds.
    fn restart(&self) {
        tracing::warn!(topic = self.topic.name(), "a position is outside of the log");
        self.handover().restart();
        self.news.notify_one();
    }

    fn doubt_again(&self, partition: i32) {
        self.handover().doubt_again(partition);
        self.asked.store(true, Ordering::Release);
    }

    /// Waits until the worker has released these, at most [`RELEASE`]; not at all when the member is leaving,
    /// because then its worker is gone.
    fn wait_for_release(&self, consumer: &Poller, partitions: &[i32]) -> bool {
        let mut waited = Duration::ZERO;
        let mut handover = self.handover();
        while !handover.released(partitions) {
            if waited >= RELEASE || self.stop.load(Ordering::Acquire) {
                return false;
            }
            let (guard, slice) =
                self.released.wait_timeout(handover, SLICE).unwrap_or_else(PoisonError::into_inner);
            drop(guard);
            if slice.timed_out() {
                waited += SLICE;
            }
            // A recovery of another partition may be waiting for its seek, and the release for that recovery.
            self.serve(consumer);
            handover = self.handover();
        }
        true
    }
}

/// The library's callbacks, all of them on the poll thread.
struct Group {
    shared: Arc<Shared>,
    watch: Watch,
    /// The consumer is of no more use: it is made anew.
    broken: AtomicBool,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.watch.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, text: &str) {
        self.watch.error(&error, text);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &Poller, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|part| part.partition()).collect();
        let done = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assign(consumer, list, &partitions)
        } else {
            self.revoke(consumer, list, &partitions)
        };
        if let Err(error) = done {
            tracing::error!(code = %code(&error), "a rebalance could not be carried out");
            self.broken.store(true, Ordering::Release);
        }
    }
}

impl Group {
    fn assign(
        &self,
        consumer: &Poller,
        list: &mut TopicPartitionList,
        partitions: &[i32],
    ) -> KafkaResult<()> {
        tracing::info!(topic = self.shared.topic.name(), ?partitions, "assigned");
        // Paused before it begins, so that nothing is fetched until the worker seeks; and at a plain number, because
        // a logical offset is looked up, and an answer that comes after a seek takes the position away again: the
        // library then goes on at the end of the log and skips what was asked for.
        list.set_all_offsets(Offset::Offset(0))?;
        consumer.pause(list)?;
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list)?,
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(list)?,
        }
        consumer.pause(list)?; // for a partition that the library did not know before
        self.shared.handover().assign(partitions);
        self.shared.news.notify_one();
        Ok(())
    }

    fn revoke(
        &self,
        consumer: &Poller,
        list: &TopicPartitionList,
        partitions: &[i32],
    ) -> KafkaResult<()> {
        let lost = consumer.assignment_lost();
        tracing::info!(topic = self.shared.topic.name(), ?partitions, lost, "revoked");
        if !lost {
            self.shared.handover().revoke(partitions);
            self.shared.news.notify_one();
            if !self.shared.wait_for_release(consumer, partitions) {
                if !self.shared.stop.load(Ordering::Acquire) {
                    tracing::warn!(?partitions, "not released in time: the producer is condemned");
                }
                if let Some(condemn) = &self.shared.condemn {
                    condemn();
                }
            }
        }
        self.shared.handover().gone(partitions);
        self.shared.news.notify_one();
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
        }
    }
}

/// A member of a consumer group, as the engine reads it.
pub struct Member {
    shared: Arc<Shared>,
}

/// Tells when a member has left its group; taken before the member is given away.
pub struct Leaving(Arc<Shared>);

impl Leaving {
    /// Waits until the member has left, which it does when it is dropped; `false` when the time is up first.
    pub async fn left(self, at_most: Duration) -> bool {
        let gone = async {
            loop {
                let told = self.0.gone.notified();
                if self.0.left.load(Ordering::Acquire) {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(at_most, gone).await.is_ok()
    }
}

impl Member {
    /// Joins a group and reads one topic; `condemn` is the worker's publisher's, where it has one.
    ///
    /// # Errors
    /// Where the settings are not what the library takes, or a password file cannot be read. Brokers that are away
    /// are no error: they are asked until they answer.
    pub fn join(
        settings: &Settings,
        group: &str,
        topic: Topic,
        out_of_range: OutOfRange,
        condemn: Option<Condemn>,
    ) -> Result<Self> {
        let config = settings.member(&settings.physical(group))?;
        let bytes = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        let bounds = Bounds {
            partition_bytes_max: bytes(settings.partition_queue_bytes_max),
            bytes_max: bytes(settings.fetch_queue_bytes_max / 2),
        };
        let terms = MEMBERS.fetch_add(TERMS_OF_A_MEMBER, Ordering::Relaxed);
        let shared = Arc::new(Shared {
            topic,
            name: settings.physical(topic.name()),
            out_of_range,
            handover: Mutex::new(Handover::new(bounds, terms)),
            released: Condvar::new(),
            news: Notify::new(),
            asked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            left: AtomicBool::new(false),
            gone: Notify::new(),
            condemn,
            consumer: Mutex::new(None),
        });
        let first = subscribe(&shared, &config)?;
        let settings = settings.clone();
        let group = settings.physical(group);
        let on_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("poll-{}", topic.name()))
            .spawn(move || {
                live(&on_thread, first, || settings.member(&group));
                on_thread.left.store(true, Ordering::Release);
                on_thread.gone.notify_waiters();
            })
            .map_err(|_| Error::internal("start a poll thread"))?;
        Ok(Self { shared })
    }

    /// A handle by which to wait until this member has left its group.
    #[must_use]
    pub fn leaving(&self) -> Leaving {
        Leaving(Arc::clone(&self.shared))
    }

    /// Asks the consumer something that blocks, on a thread that may.
    async fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        at_most: Duration,
        question: impl FnOnce(&Poller) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T> {
        let Some(consumer) = self.shared.consumer() else {
            return Err(Error::new(Kind::BrokerUnavailable, doing, "NoConsumer"));
        };
        let asked = tokio::task::spawn_blocking(move || question(&consumer));
        match tokio::time::timeout(at_most, asked).await {
            Ok(Ok(answer)) => answer.map_err(|error| broken(doing, &error)),
            Ok(Err(_)) => Err(Error::internal(doing)),
            Err(_) => Err(Error::new(Kind::BrokerUnavailable, doing, "NoAnswer")),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.set_consumer(None);
        self.shared.released.notify_all();
    }
}

impl Log for Member {
    fn topic(&self) -> Topic {
        self.shared.topic
    }

    fn owned(&self) -> Vec<Owned> {
        self.shared.handover().owned()
    }

    /// Asks the library's main thread, which answers at once: it never waits for the network.
    fn metadata(&self) -> Metadata {
        self.shared.consumer().map_or_else(member::nobody, |consumer| member::take(&consumer))
    }

    async fn wait(&mut self, at_most: Duration) {
        // The end of the time is an answer like any other.
        if tokio::time::timeout(at_most, self.shared.news.notified()).await.is_err() {}
    }

    fn end(&self, partition: i32) -> Option<i64> {
        member::end(&*self.shared.consumer()?, &self.shared.name, partition)
    }

    fn oldest_ms(&self, partition: i32) -> Option<i64> {
        self.shared.handover().oldest_ms(partition)
    }

    async fn seek(&mut self, partition: i32, from: i64) -> Result<()> {
        if !self.shared.handover().seek(partition, from) {
            return Err(Error::new(Kind::BrokerUnavailable, "seek", "NotOwned"));
        }
        self.shared.asked.store(true, Ordering::Release);
        self.shared.released.notify_all(); // a revoke that waits serves seeks meanwhile
        Ok(())
    }

    fn take(&mut self, partitions: &[i32], records_max: usize, bytes_max: usize) -> Vec<Record> {
        let (records, more) = {
            let mut handover = self.shared.handover();
            let records = handover.take(partitions, records_max, bytes_max);
            (records, handover.waiting(partitions))
        };
        if more {
            self.shared.news.notify_one();
        }
        if !records.is_empty() {
            self.shared.asked.store(true, Ordering::Release);
            self.shared.released.notify_all();
        }
        records
    }

    async fn committed(&mut self, partition: i32) -> Result<Option<Committed>> {
        const DOING: &str = "read a committed offset";
        let list = self.shared.list(&[partition]);
        let at_most = COMMITTED_CALL * 2;
        let list = self
            .ask(DOING, at_most, move |consumer| consumer.committed_offsets(list, COMMITTED_CALL))
            .await?;
        let Some(found) = list.find_partition(&self.shared.name, partition) else {
            return Err(Error::internal(DOING));
        };
        // The call succeeds as a whole while the partition itself is unstable: only this tells.
        found.error().map_err(|error| broken(DOING, &error))?;
        match found.offset() {
            Offset::Offset(offset) => {
                Ok(Some(Committed { offset, mark: found.metadata().to_owned() }))
            }
            Offset::Invalid => Ok(None),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::OffsetTail(_) => {
                Err(Error::internal(DOING))
            }
        }
    }

    async fn bounds(&mut self, partition: i32) -> Result<(i64, i64)> {
        let name = self.shared.name.clone();
        self.ask("read a partition's bounds", ASK, move |consumer| {
            consumer.fetch_watermarks(&name, partition, ASK)
        })
        .await
    }

    async fn commit(&mut self, offsets: &[(i32, i64)]) -> Result<()> {
        const DOING: &str = "commit offsets";
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.shared.name, *partition, Offset::Offset(*offset))
                .map_err(|error| broken(DOING, &error))?;
        }
        self.ask(DOING, ASK, move |consumer| consumer.commit(&list, CommitMode::Sync)).await
    }

    fn release(&mut self, partition: i32, term: u64) {
        self.shared.handover().release(partition, term);
        self.shared.released.notify_all();
    }
}

fn subscribe(shared: &Arc<Shared>, config: &ClientConfig) -> Result<Arc<Poller>> {
    const DOING: &str = "join a group";
    let group = Group {
        shared: Arc::clone(shared),
        watch: Watch::default(),
        broken: AtomicBool::new(false),
    };
    let consumer: Poller =
        config.create_with_context(group).map_err(|error| broken(DOING, &error))?;
    consumer.subscribe(&[&shared.name]).map_err(|error| broken(DOING, &error))?;
    Ok(Arc::new(consumer))
}

/// The life of the poll thread: a consumer that fails for good is followed by another, until the member leaves.
fn live(shared: &Arc<Shared>, first: Arc<Poller>, again: impl Fn() -> Result<ClientConfig>) {
    let mut next = Some(first);
    loop {
        if let Some(consumer) = next.take() {
            shared.set_consumer(Some(Arc::clone(&consumer)));
            poll(shared, &consumer);
            shared.set_consumer(None);
            leave(consumer);
            let mut handover = shared.handover();
            let partitions = handover.partitions();
            handover.gone(&partitions);
            drop(handover);
            shared.news.notify_one();
        }
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        std::thread::sleep(ANEW);
        match again().and_then(|config| subscribe(shared, &config)) {
            Ok(consumer) => next = Some(consumer),
            Err(error) => tracing::error!(%error, "a consumer could not be made anew"),
        }
    }
}

fn poll(shared: &Shared, consumer: &Poller) {
    let mut stood = Duration::ZERO;
    while !shared.stop.load(Ordering::Acquire) && !consumer.context().broken.load(Ordering::Acquire)
    {
        shared.serve(consumer);
        if let Some(longer) = shared.stand(consumer, stood) {
            stood = longer;
            continue;
        }
        stood = Duration::ZERO;
        let busy = shared.asked.load(Ordering::Acquire);
        let mut wait = if busy { POLL_BUSY } else { POLL };
        // What the library has already comes at once, and wakes the worker once.
        for _ in 0..AT_ONCE {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => shared.push(consumer, record(shared.topic, &message)),
                Some(Err(error)) => {
                    tracing::warn!(topic = shared.topic.name(), code = %code(&error), "reading");
                    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
                        return;
                    }
                }
            }
            wait = Duration::ZERO;
            if shared.asked.load(Ordering::Acquire) || shared.handover().full() {
                break;
            }
        }
        if wait.is_zero() {
            shared.news.notify_one();
        }
    }
}

/// Leaves the group: the last owner of a consumer closes it, and that must be this thread, because the callbacks
/// run on it. Questions that are still under way end at their own deadlines.
fn leave(mut consumer: Arc<Poller>) {
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(last) => return drop(last),
            Err(shared) => consumer = shared,
        }
        std::thread::sleep(SLICE);
    }
}

/// A message as a record of ours.
///
/// Headers of `raw-terra` are Terra's own, so they mean nothing here; and they are not even looked at, because a name
/// that is not UTF-8 is a panic in the library.
pub(super) fn record(topic: Topic, message: &BorrowedMessage<'_>) -> Record {
    let (key, value) = (message.key(), message.payload());
    let found = if topic == Topic::RawTerra { None } else { message.headers() };
    let parts = || found.into_iter().flat_map(|found| found.iter());
    let size: usize = parts().filter_map(|header| Some(header.value?.len())).sum();
    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    // One piece of memory for all of it: a dozen small ones cost more than the copy.
    let mut whole = BytesMut::with_capacity(size + length(key) + length(value));
    let mut part = |bytes: &[u8]| {
        whole.extend_from_slice(bytes);
        whole.split().freeze()
    };
    let mut headers = Headers::new();
    for header in parts() {
        headers.push_read(header.key, part(header.value.unwrap_or_default()));
    }
    Record {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: key.map(&mut part),
        headers,
        value: value.map(&mut part),
    }
}
