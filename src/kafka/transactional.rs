//! The transactional producer of one slot: what decide sends, and the offsets with it.
//!
//! # Why it is not simply rust-rdkafka's
//! `commit_transaction` there costs a quantum of 100 ms whenever anything is still in flight, so `send` returns only
//! when every acknowledgement is in *and* the library's queues are empty. Calls block, so each runs on a blocking
//! thread under a watchdog of ours: `send_offsets_to_transaction` has a path on which the library never looks at its
//! deadline. And a revoke that waited in vain must be sure that no EndTxn can follow: every EndTxn passes a
//! gate that can be shut from the poll thread.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::consumer::Condemn;
use super::member::{self, Failure};
use super::settings::{COMMIT_CALL, INIT_CALL, Names, Settings, TRANSACTION, TXN_CALL};
use super::watch::{Watch, broken, code};
use crate::error::{Error, Kind, Result};
use crate::model::contract::Topic;
use crate::model::record::{Headers, OutRecord};
use crate::stream::{Metadata, Publisher, TxnError};

/// What the watchdog gives a call beyond the call's own deadline.
const GRACE: Duration = Duration::from_millis(2000);
/// How often a condemned producer is looked at until nobody uses it.
const SLICE: Duration = Duration::from_millis(10);
/// No error.
const NONE: i32 = 0;

/// Deliveries of the transaction that is open. One transaction is open at a time, so counting is enough.
#[derive(Debug, Default)]
struct Deliveries {
    watch: Watch,
    waiting: AtomicUsize,
    /// The code of the first record that was not delivered.
    failed: AtomicI32,
    done: Notify,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.watch.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, text: &str) {
        self.watch.error(&error, text);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let first = self.failed.compare_exchange(
                NONE,
                number(code),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if first.is_ok() {
                tracing::debug!(?code, "not delivered");
            }
        }
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

/// The number of a code, for an atomic.
fn number(code: RDKafkaErrorCode) -> i32 {
    #[expect(clippy::as_conversions, reason = "the only way from a fieldless enum to its number")]
    let number = code as i32;
    number
}

/// What every EndTxn passes. Once shut it stays shut.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    shut: bool,
    inside: bool,
}

impl Gate {
    /// Runs a call that may send an EndTxn, unless the gate is shut.
    fn pass<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.shut {
                return None;
            }
            state.inside = true;
        }
        let result = call();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).inside = false;
        self.changed.notify_all();
        Some(result)
    }

    /// Shuts it, and waits for a call that is inside, at most this long.
    fn shut(&self, at_most: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.shut = true;
        let waited = self.changed.wait_timeout_while(state, at_most, |state| state.inside);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// One producer, from its `init_transactions` to its end.
struct Handle {
    producer: ThreadedProducer<Deliveries>,
    gate: Gate,
    /// Disturbances of the time before it was open, which can repeat nothing of a transaction.
    before: u64,
}

impl Handle {
    fn deliveries(&self) -> &Arc<Deliveries> {
        self.producer.client().context()
    }

    fn disturbed(&self) -> bool {
        self.deliveries().watch.disturbances() > self.before
    }

    /// Waits until nothing is in flight and no event is unread. It takes microseconds: the last acknowledgement is
    /// counted just before its event is freed.
    fn drain(&self) {
        while self.producer.in_flight_count() > 0 {
            std::thread::yield_now();
        }
    }
}

/// The one producer that a slot has, or none; shared with whoever may have to condemn it.
#[derive(Default)]
struct Cell(Mutex<Option<Arc<Handle>>>);

impl Cell {
    fn get(&self) -> Option<Arc<Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self) -> Option<Arc<Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, handle: Handle) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(handle));
    }

    /// No EndTxn of the producer that is there can follow when this returns: a call that is inside the library is
    /// waited for, and a repeat that the library makes by itself ends with the producer.
    fn condemn(&self) {
        let Some(handle) = self.take() else { return };
        handle.gate.shut(COMMIT_CALL + GRACE);
        end(handle);
    }
}

/// Ends a producer: what waits is thrown away, what is in flight not awaited. Another thread that is still inside a
/// call keeps it alive beyond the time, but the gate is shut to it.
fn end(mut handle: Arc<Handle>) {
    handle.producer.purge(PurgeConfig::default().queue().inflight());
    let mut waited = Duration::ZERO;
    while waited < TXN_CALL + GRACE {
        match Arc::try_unwrap(handle) {
            Ok(last) => return drop(last),
            Err(shared) => handle = shared,
        }
        std::thread::sleep(SLICE);
        waited += SLICE;
    }
    tracing::error!("a transactional call does not return: its producer is left to it");
}

/// The transactional producer of one slot; see the module.
pub struct Transactional {
    settings: Settings,
    names: Names,
    id: String,
    cell: Arc<Cell>,
}

impl Transactional {
    /// The producer of this slot; its transactional id is `<group>-<slot>` behind the prefix. Nothing is opened yet.
    #[must_use]
    pub fn new(settings: &Settings, group: &str, slot: &str) -> Self {
        Self {
            settings: settings.clone(),
            names: settings.names(),
            id: settings.physical(&format!("{group}-{slot}")),
            cell: Arc::new(Cell::default()),
        }
    }

    /// What the member of the same worker calls when a revoke has waited in vain.
    #[must_use]
    pub fn condemn(&self) -> Condemn {
        let cell = Arc::clone(&self.cell);
        Arc::new(move || cell.condemn())
    }

    fn handle(&self, doing: &'static str) -> Result<Arc<Handle>, TxnError> {
        self.cell
            .get()
            .ok_or_else(|| TxnError::Lost(Error::new(Kind::BrokerUnavailable, doing, "NoProducer")))
    }

    /// Runs a blocking call on the producer. One that never returns costs its thread and the producer.
    async fn call(
        &self,
        doing: &'static str,
        at_most: Duration,
        call: impl FnOnce(&Handle) -> Result<(), TxnError> + Send + 'static,
    ) -> Result<(), TxnError> {
        let handle = self.handle(doing)?;
        let called = tokio::task::spawn_blocking(move || call(&handle));
        match tokio::time::timeout(at_most + GRACE, called).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TxnError::Lost(Error::internal(doing))),
            Err(_) => {
                if let Some(stuck) = self.cell.take() {
                    stuck.gate.shut(Duration::ZERO);
                }
                tracing::error!(doing, "the library does not come back from a call");
                Err(TxnError::Lost(Error::new(Kind::BrokerUnavailable, doing, "NoReturn")))
            }
        }
    }

    /// Puts one record into the library's queue, waiting for room where there is none.
    async fn produce(&self, handle: &Handle, record: &OutRecord) -> Result<(), TxnError> {
        const DOING: &str = "send to a transaction";
        let name = self.names.of(record.topic);
        let deliveries = handle.deliveries();
        let headers = native_headers(&record.headers);
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(name).headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        deliveries.waiting.fetch_add(1, Ordering::AcqRel);
        let mut waited = Duration::ZERO;
        loop {
            let Err((error, back)) = handle.producer.send(message) else { return Ok(()) };
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !full || waited >= TRANSACTION {
                deliveries.waiting.fetch_sub(1, Ordering::AcqRel);
                return Err(refused(handle, Error::new(kind(&error), DOING, code(&error))));
            }
            message = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
            waited += Duration::from_millis(1);
        }
    }
}

/// A record that cannot be sent, or was not: the transaction has to go, or the producer too.
fn refused(handle: &Handle, error: Error) -> TxnError {
    if handle.producer.client().fatal_error().is_some() {
        TxnError::Lost(error)
    } else {
        TxnError::Abortable { member: false, error }
    }
}

/// A record that is too large will be too large again; all else is the world's.
fn kind(error: &KafkaError) -> Kind {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => Kind::InternalError,
        _ => Kind::BrokerUnavailable,
    }
}

/// Headers as the library wants them.
pub(super) fn native_headers(headers: &Headers) -> OwnedHeaders {
    let native = OwnedHeaders::new_with_capacity(headers.iter().count());
    headers.iter().fold(native, |native, (key, value)| {
        native.insert(Header { key, value: Some(value.as_ref()) })
    })
}

/// Whether the broker refused the group metadata: then an attempt needs other metadata, not another try.
fn of_member(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::FencedMemberEpoch
            | RDKafkaErrorCode::StaleMemberEpoch
            | RDKafkaErrorCode::RebalanceInProgress
    )
}

/// The three classes of the library, in the order in which they count.
fn classify(doing: &'static str, failure: Failure) -> TxnError {
    let error = Error::new(Kind::BrokerUnavailable, doing, format!("{:?}", failure.code));
    if failure.fatal {
        TxnError::Lost(error)
    } else if failure.abort {
        TxnError::Abortable { member: of_member(failure.code), error }
    } else if failure.retriable {
        TxnError::Retriable(error)
    } else {
        TxnError::Lost(error)
    }
}

fn txn_error(doing: &'static str, error: &KafkaError) -> TxnError {
    match error {
        KafkaError::Transaction(error) => classify(
            doing,
            Failure {
                code: error.code(),
                fatal: error.is_fatal(),
                retriable: error.is_retriable(),
                abort: error.txn_requires_abort(),
            },
        ),
        other => TxnError::Lost(broken(doing, other)),
    }
}

impl Publisher for Transactional {
    async fn open(&mut self) -> Result<()> {
        const DOING: &str = "open a transactional producer";
        if let Some(handle) = self.cell.get() {
            if handle.producer.client().fatal_error().is_none() {
                return Ok(());
            }
            drop(handle);
            self.drop_producer().await;
        }
        let config = self.settings.transactional(&self.id)?;
        let opened = tokio::task::spawn_blocking(move || {
            let producer: ThreadedProducer<Deliveries> =
                config.create_with_context(Deliveries::default())?;
            producer.init_transactions(INIT_CALL)?;
            let before = producer.client().context().watch.disturbances();
            Ok::<_, KafkaError>(Handle { producer, gate: Gate::default(), before })
        });
        match tokio::time::timeout(INIT_CALL + GRACE, opened).await {
            Ok(Ok(Ok(handle))) => {
                self.cell.put(handle);
                Ok(())
            }
            Ok(Ok(Err(error))) => Err(broken(DOING, &error)),
            Ok(Err(_)) => Err(Error::internal(DOING)),
            Err(_) => Err(Error::new(Kind::BrokerUnavailable, DOING, "NoReturn")),
        }
    }

    async fn drop_producer(&mut self) {
        let Some(handle) = self.cell.take() else { return };
        handle.gate.shut(Duration::ZERO);
        if tokio::task::spawn_blocking(move || end(handle)).await.is_err() {
            tracing::error!("a producer did not end as it should");
        }
    }

    async fn begin(&mut self) -> Result<(), TxnError> {
        const DOING: &str = "begin a transaction";
        self.call(DOING, TXN_CALL, |handle| {
            if handle.disturbed() {
                // What it may have repeated would end the transaction that begins here (H9).
                return Err(TxnError::Lost(Error::new(
                    Kind::BrokerUnavailable,
                    DOING,
                    "Disturbed",
                )));
            }
            handle.deliveries().failed.store(NONE, Ordering::Release);
            handle.producer.begin_transaction().map_err(|error| txn_error(DOING, &error))
        })
        .await
    }

    async fn send(&mut self, records: &[OutRecord]) -> Result<(), TxnError> {
        const DOING: &str = "send to a transaction";
        let handle = self.handle(DOING)?;
        for record in records {
            self.produce(&handle, record).await?;
        }
        let deliveries = Arc::clone(handle.deliveries());
        let all = async {
            while deliveries.waiting.load(Ordering::Acquire) > 0 {
                deliveries.done.notified().await;
            }
        };
        // The library ends each record at its own deadline, which is shorter.
        if tokio::time::timeout(TRANSACTION + GRACE, all).await.is_err() {
            return Err(TxnError::Lost(Error::new(Kind::BrokerUnavailable, DOING, "NoReturn")));
        }
        let failed = deliveries.failed.load(Ordering::Acquire);
        if failed != NONE {
            let error = Error::new(Kind::BrokerUnavailable, DOING, format!("code {failed}"));
            return Err(refused(&handle, error));
        }
        handle.drain();
        Ok(())
    }

    async fn send_offsets(
        &mut self,
        topic: Topic,
        offsets: &[(i32, i64, String)],
        metadata: &Metadata,
    ) -> Result<(), TxnError> {
        const DOING: &str = "put offsets into a transaction";
        let Some(object) = member::object(metadata) else {
            return Err(TxnError::Abortable { member: true, error: Error::internal(DOING) });
        };
        let name = self.names.of(topic);
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset, mark) in offsets {
            let mut element = list.add_partition(name, *partition);
            element
                .set_offset(Offset::Offset(*offset))
                .map_err(|error| TxnError::Lost(broken(DOING, &error)))?;
            element.set_metadata(mark);
        }
        self.call(DOING, TXN_CALL, move |handle| {
            member::send_offsets(handle.producer.client(), &list, &object, TXN_CALL)
                .map_err(|failure| classify(DOING, failure))
        })
        .await
    }

    async fn commit(&mut self) -> Result<(), TxnError> {
        const DOING: &str = "commit a transaction";
        self.call(DOING, COMMIT_CALL, |handle| {
            let committed = handle.gate.pass(|| handle.producer.commit_transaction(COMMIT_CALL));
            let shut = || TxnError::Lost(Error::new(Kind::BrokerUnavailable, DOING, "Condemned"));
            committed.ok_or_else(shut)?.map_err(|error| txn_error(DOING, &error))?;
            handle.drain(); // so that what it may have repeated is counted before `disturbed` is asked
            Ok(())
        })
        .await
    }

    async fn abort(&mut self) {
        const DOING: &str = "abort a transaction";
        let aborted = self
            .call(DOING, TXN_CALL, |handle| {
                let abort = || handle.producer.abort_transaction(TXN_CALL);
                match handle.gate.pass(abort) {
                    Some(result) => result.map_err(|error| txn_error(DOING, &error)),
                    None => Ok(()),
                }
            })
            .await;
        if let Err(
            TxnError::Retriable(error) | TxnError::Abortable { error, .. } | TxnError::Lost(error),
        ) = aborted
        {
            tracing::info!(%error, "an abort did not go well; the producer is dropped either way");
        }
    }

    /// Judged by the producer's whole life: see `watch.rs`.
    fn disturbed(&self) -> bool {
        self.cell.get().is_none_or(|handle| handle.disturbed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use rdkafka::mocking::{MockCluster, MockCoordinator};
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::kafka::settings::tests::local;

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(Topic::BiometricEvents.name(), 4, 1).unwrap();
        cluster
    }

    fn publisher(cluster: &MockCluster<'static, DefaultProducerContext>) -> Transactional {
        let brokers = cluster.bootstrap_servers();
        Transactional::new(&local(|settings| settings.brokers = brokers), "decide", "0")
    }

    fn outputs(count: usize) -> Vec<OutRecord> {
        let output = |at: usize| OutRecord {
            topic: Topic::BiometricEvents,
            key: Some(format!("u{at}").into()),
            headers: Headers::new().with("event_type", "sleep"),
            value: Some("value".into()),
        };
        (0..count).map(output).collect()
    }

    /// `kafka.md` §0 finding 1: in flight means a quantum of 100 ms in the commit.
    #[tokio::test]
    async fn nothing_is_in_flight_when_send_returns() {
        let cluster = cluster();
        let mut publisher = publisher(&cluster);
        publisher.open().await.unwrap();
        for _ in 0..50 {
            publisher.begin().await.unwrap();
            publisher.send(&outputs(20)).await.unwrap();
            let handle = publisher.cell.get().unwrap();
            assert_eq!(handle.producer.in_flight_count(), 0);
            drop(handle);
            tokio::time::timeout(Duration::from_millis(90), publisher.commit())
                .await
                .expect("a commit without the quantum")
                .unwrap();
        }
        assert!(!publisher.disturbed());
        publisher.drop_producer().await;
    }

    /// H9: a lost connection between begin and commit; the commit succeeds, and nothing may follow it.
    #[tokio::test]
    async fn a_lost_connection_disturbs_and_no_other_transaction_begins() {
        let cluster = cluster();
        let mut publisher = publisher(&cluster);
        publisher.open().await.unwrap();
        publisher.begin().await.unwrap();
        publisher.send(&outputs(1)).await.unwrap();
        assert!(!publisher.disturbed());
        cluster.broker_down(1).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.broker_up(1).unwrap();
        let mut committed = publisher.commit().await;
        while let Err(TxnError::Retriable(_)) = committed {
            committed = publisher.commit().await;
        }
        committed.unwrap();
        assert!(publisher.disturbed());
        assert!(
            matches!(publisher.begin().await, Err(TxnError::Lost(error)) if error.code == "Disturbed")
        );
        publisher.drop_producer().await;
        publisher.open().await.unwrap();
        assert!(!publisher.disturbed(), "what was before it opened is not its own");
        publisher.begin().await.unwrap();
        publisher.drop_producer().await;
    }

    /// The same, seen by nothing but a log line of level info: one of three brokers, with the EndTxn on its way.
    #[tokio::test]
    async fn an_end_that_the_library_repeats_by_itself_is_seen() {
        let cluster = MockCluster::new(3).unwrap();
        cluster.create_topic(Topic::BiometricEvents.name(), 4, 1).unwrap();
        let mut publisher = publisher(&cluster);
        cluster.coordinator(MockCoordinator::Transaction("decide-0".into()), 2).unwrap();
        publisher.open().await.unwrap();
        publisher.begin().await.unwrap();
        publisher.send(&outputs(4)).await.unwrap();
        assert!(!publisher.disturbed());
        cluster.broker_round_trip_time(2, Duration::from_millis(600)).unwrap();
        let cut = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cluster.broker_down(2).unwrap();
            cluster.broker_round_trip_time(2, Duration::ZERO).unwrap();
            cluster.broker_up(2).unwrap();
        };
        let (mut committed, ()) = tokio::join!(publisher.commit(), cut);
        while let Err(TxnError::Retriable(_)) = committed {
            committed = publisher.commit().await;
        }
        committed.unwrap();
        assert!(publisher.disturbed());
        publisher.drop_producer().await;
    }

    #[tokio::test]
    async fn who_is_condemned_commits_nothing_and_opens_again() {
        let cluster = cluster();
        let mut publisher = publisher(&cluster);
        let condemn = publisher.condemn();
        condemn();
        publisher.open().await.unwrap();
        publisher.begin().await.unwrap();
        publisher.send(&outputs(3)).await.unwrap();
        tokio::task::spawn_blocking(move || condemn()).await.unwrap();
        assert!(matches!(publisher.commit().await, Err(TxnError::Lost(_))));
        publisher.open().await.unwrap();
        publisher.begin().await.unwrap();
        publisher.commit().await.unwrap();
        publisher.drop_producer().await;
    }

    #[test]
    fn a_shut_gate_lets_nobody_in_and_waits_for_who_is_inside() {
        let gate = Arc::new(Gate::default());
        let ended = Arc::new(AtomicBool::new(false));
        let (enter, entered) = std::sync::mpsc::sync_channel(1);
        let inside = {
            let (gate, ended) = (Arc::clone(&gate), Arc::clone(&ended));
            std::thread::spawn(move || {
                gate.pass(|| {
                    enter.send(()).unwrap();
                    std::thread::sleep(Duration::from_millis(100));
                    ended.store(true, Ordering::Release);
                })
            })
        };
        entered.recv().unwrap();
        gate.shut(Duration::from_secs(10));
        assert!(ended.load(Ordering::Acquire), "it waited");
        assert_eq!(inside.join().unwrap(), Some(()));
        assert_eq!(gate.pass(|| ()), None);
    }

    #[test]
    fn each_class_of_the_library_has_its_own_ending() {
        let failure = |code, fatal, retriable, abort| Failure { code, fatal, retriable, abort };
        let of = |failure| classify("x", failure);
        let generation = RDKafkaErrorCode::IllegalGeneration;
        assert!(matches!(
            of(failure(generation, false, false, true)),
            TxnError::Abortable { member: true, .. }
        ));
        let timed_out = RDKafkaErrorCode::OperationTimedOut;
        assert!(matches!(
            of(failure(timed_out, false, false, true)),
            TxnError::Abortable { member: false, .. }
        ));
        assert!(matches!(of(failure(timed_out, false, true, false)), TxnError::Retriable(_)));
        assert!(matches!(of(failure(timed_out, true, true, true)), TxnError::Lost(_)));
        assert!(matches!(of(failure(timed_out, false, false, false)), TxnError::Lost(_)));
    }
}
