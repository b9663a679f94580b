//! The loop over ports in memory, where any call can be made to fail.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::*;
use crate::model::connection::Connection;
use crate::model::record::Headers;
use crate::stream::{Committed, Metadata};

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    Connections,
    Note,
    Sent(i32, i64),
    Commit(Vec<(i32, i64)>),
    PutThrough(Vec<i32>),
    Released(i32, u64),
    Sought(i32, i64),
    Slept(Duration),
}

#[derive(Default)]
struct World {
    records: BTreeMap<i32, Vec<Record>>,
    first: i64,
    position: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    owned: Vec<Owned>,
    /// Partitions whose committed offset cannot be asked.
    unreachable: BTreeSet<i32>,
    held: Vec<Held>,
    connected: bool,
    did: Vec<Did>,
    now: Duration,
    /// Calls so far, and those that fail.
    calls: usize,
    fails: BTreeSet<usize>,
    /// Whether a send is never acknowledged.
    deaf: bool,
    in_flight: usize,
    in_flight_max: usize,
    /// Records in the order in which they were given to the producer.
    given: Vec<(i32, i64)>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("not poisoned")
    }

    /// Counts a call; an error where it is one that fails.
    fn call(&self, kind: Kind) -> Result<MutexGuard<'_, World>> {
        let mut world = self.lock();
        world.calls += 1;
        if world.fails.contains(&world.calls) {
            return Err(Error::new(kind, "a call", "TEST"));
        }
        Ok(world)
    }

    fn own(&self, partitions: &[i32]) {
        self.lock().owned = partitions
            .iter()
            .map(|partition| Owned { partition: *partition, term: 1, revoking: false })
            .collect();
    }

    fn did(&self) -> Vec<Did> {
        std::mem::take(&mut self.lock().did)
    }
}

impl Log for Shared {
    fn topic(&self) -> Topic {
        Topic::RawWebhooks
    }

    fn owned(&self) -> Vec<Owned> {
        self.lock().owned.clone()
    }

    fn metadata(&self) -> Metadata {
        Metadata { generation: 1, member: "m".into(), native: None }
    }

    async fn wait(&mut self, at_most: Duration) {
        self.lock().now += at_most;
    }

    async fn seek(&mut self, partition: i32, from: i64) -> Result<()> {
        let mut world = self.call(Kind::BrokerUnavailable)?;
        world.position.insert(partition, from);
        world.did.push(Did::Sought(partition, from));
        Ok(())
    }

    fn take(&mut self, partitions: &[i32], records_max: usize, _bytes_max: usize) -> Vec<Record> {
        let mut world = self.lock();
        let mut taken = Vec::new();
        for partition in partitions {
            let from = world.position[partition];
            let records: Vec<Record> = world.records[partition]
                .iter()
                .filter(|record| record.offset >= from)
                .take(records_max - taken.len())
                .cloned()
                .collect();
            if let Some(last) = records.last() {
                world.position.insert(*partition, last.offset + 1);
            }
            taken.extend(records);
        }
        taken
    }

    async fn committed(&mut self, partition: i32) -> Result<Option<Committed>> {
        let world = self.call(Kind::BrokerUnavailable)?;
        if world.unreachable.contains(&partition) {
            return Err(Error::new(Kind::BrokerUnavailable, "ask", "TEST"));
        }
        let offset = world.committed.get(&partition);
        Ok(offset.map(|offset| Committed { offset: *offset, mark: String::new() }))
    }

    async fn bounds(&mut self, partition: i32) -> Result<(i64, i64)> {
        let world = self.call(Kind::BrokerUnavailable)?;
        let end = world.records[&partition].last().map_or(world.first, |last| last.offset + 1);
        Ok((world.first, end))
    }

    fn end(&self, partition: i32) -> Option<i64> {
        self.lock().records[&partition].last().map(|last| last.offset + 1)
    }

    async fn commit(&mut self, offsets: &[(i32, i64)]) -> Result<()> {
        let mut world = self.call(Kind::BrokerUnavailable)?;
        world.did.push(Did::Commit(offsets.to_vec()));
        world.committed.extend(offsets.iter().copied());
        Ok(())
    }

    fn release(&mut self, partition: i32, term: u64) {
        let mut world = self.lock();
        world.owned.retain(|owned| owned.partition != partition);
        world.did.push(Did::Released(partition, term));
    }
}

impl Sender for Shared {
    async fn send(&self, record: OutRecord) -> Result<Coordinates> {
        let count = |by: isize| {
            let mut world = self.lock();
            world.in_flight = world.in_flight.checked_add_signed(by).expect("no less than none");
            world.in_flight_max = world.in_flight_max.max(world.in_flight);
        };
        let text = record.headers.text(header::SOURCE).expect("a source");
        let (partition, offset) = text.split_once('/').expect("two numbers");
        let (partition, offset) =
            (partition.parse().expect("a number"), offset.parse().expect("a number"));
        self.lock().given.push((partition, offset));
        count(1);
        tokio::task::yield_now().await;
        while self.lock().deaf {
            tokio::task::yield_now().await;
        }
        count(-1);
        let mut world = self.call(Kind::BrokerUnavailable)?;
        world.did.push(Did::Sent(partition, offset));
        Ok(Coordinates { topic: record.topic, partition, offset })
    }
}

impl Register for Shared {
    async fn connections(&mut self, _: &Whose) -> Result<Vec<Connection>> {
        self.call(Kind::DatabaseError)?.did.push(Did::Connections);
        Ok(Vec::new())
    }

    async fn note(&mut self, _: &Notes) -> Result<()> {
        self.call(Kind::DatabaseError)?.did.push(Did::Note);
        Ok(())
    }

    async fn connected(&mut self, at_most: usize) -> Result<Vec<Held>> {
        let world = self.call(Kind::DatabaseError)?;
        Ok(world.held.iter().take(at_most).cloned().collect())
    }

    async fn put_through(&mut self, held: &[Held]) -> Result<()> {
        let mut world = self.call(Kind::DatabaseError)?;
        let indexes = held.iter().map(|item| item.source.index).collect();
        world.held.retain(|item| !held.contains(item));
        world.did.push(Did::PutThrough(indexes));
        Ok(())
    }
}

impl Reader for Shared {
    async fn read(&mut self, at: Coordinates) -> Result<Option<Record>> {
        let world = self.call(Kind::BrokerUnavailable)?;
        let records = &world.records[&at.partition];
        Ok(records.iter().find(|record| record.offset == at.offset).cloned())
    }
}

impl Clock for Shared {
    fn elapsed(&self) -> Duration {
        self.lock().now
    }

    fn now_us(&self) -> i64 {
        0
    }

    async fn sleep(&self, time: Duration) {
        tokio::task::yield_now().await;
        let mut world = self.lock();
        world.now += time;
        world.did.push(Did::Slept(time));
    }
}

/// A record says `user`, `note`, `left` (something of a replay is left out) or nothing; each becomes one record of
/// the same coordinates.
impl Converter for Shared {
    type Read = ();

    fn vendor(&self, _: &Record) -> &'static str {
        "test"
    }

    fn read(&self, batch: &[Record]) -> (Whose, ()) {
        let named = batch.iter().any(|record| record.value.as_deref() == Some(b"user"));
        let vendor_users = named.then(|| ("test".into(), "u".into())).into_iter().collect();
        (Whose { vendor_users, ..Whose::default() }, ())
    }

    fn convert(&self, batch: &[Record], (): (), _: Vec<Connection>, _: i64) -> Relayed {
        let noted = batch.iter().filter(|record| record.value.as_deref() == Some(b"note"));
        let verdict = |record: &Record| RawVerdict {
            source: record.source(0),
            verdict: "ignored",
            reason: "test",
        };
        let verdicts = noted.map(verdict).collect();
        let left = batch.iter().filter(|record| record.value.as_deref() == Some(b"left"));
        let notes = Notes { verdicts, left_out: left.count(), ..Notes::default() };
        Relayed { notes, records: batch.iter().map(out).collect() }
    }

    fn again(&self, record: &Record, indexes: &[i32], _: Vec<Connection>, _: i64) -> Relayed {
        let held = if self.lock().connected { vec![] } else { vec![held(record.offset, 1)] };
        let notes = Notes { held, ..Notes::default() };
        assert!(indexes.contains(&0) || indexes.contains(&1));
        Relayed { notes, records: vec![out(record)] }
    }
}

fn out(record: &Record) -> OutRecord {
    let source = format!("{}/{}", record.partition, record.offset);
    let headers = Headers::new().with(header::SOURCE, source);
    OutRecord { topic: Topic::NormalisedRecords, key: None, headers, value: None }
}

fn held(offset: i64, index: i32) -> Held {
    Held {
        source: Source { topic: Topic::RawWebhooks, partition: 0, offset, index },
        vendor: "test".into(),
        vendor_user: "u".into(),
        received_at: 0,
    }
}

fn record(partition: i32, offset: i64, words: &'static str) -> Record {
    Record {
        topic: Topic::RawWebhooks,
        partition,
        offset,
        timestamp_ms: 0,
        key: None,
        headers: Headers::new(),
        value: Some(Bytes::from_static(words.as_bytes())),
    }
}

type TestRelay = Relay<Shared, Shared, Shared, Shared, Shared, Shared>;

/// A world with these records, owned by a relay that does not sweep.
fn world(records: &[Record]) -> (Shared, TestRelay) {
    let shared = Shared::default();
    for record in records {
        shared.lock().records.entry(record.partition).or_default().push(record.clone());
    }
    let partitions: Vec<i32> = shared.lock().records.keys().copied().collect();
    shared.own(&partitions);
    let commit_every = Duration::ZERO;
    let settings = Settings { sweep_every: None, commit_every, ..Settings::default() };
    (shared.clone(), relay(&shared, settings))
}

fn relay(shared: &Shared, settings: Settings) -> TestRelay {
    let all = || shared.clone();
    Relay::new(all(), all(), all(), all(), all(), all(), settings, Metrics::of(&["test"]))
}

fn sent(did: &[Did]) -> Vec<(i32, i64)> {
    let sent = did.iter().filter_map(|did| match did {
        Did::Sent(partition, offset) => Some((*partition, *offset)),
        _ => None,
    });
    let mut sent: Vec<(i32, i64)> = sent.collect();
    sent.sort_unstable(); // acknowledgements come in any order
    sent
}

#[tokio::test]
async fn notes_come_before_records_and_offsets_come_last() {
    let (shared, mut relay) =
        world(&[record(0, 0, "user"), record(0, 1, "note"), record(1, 0, "")]);
    relay.settings.sends_max = 1;
    relay.step().await.expect("a step");
    let expected = [
        Did::Sought(0, 0),
        Did::Sought(1, 0),
        Did::Connections,
        Did::Note,
        Did::Sent(0, 0),
        Did::Sent(0, 1),
        Did::Sent(1, 0),
        Did::Commit(vec![(0, 2), (1, 1)]),
    ];
    assert_eq!(shared.did(), expected);
    relay.step().await.expect("a step");
    assert_eq!(shared.did(), [], "nothing twice");
    let page = relay.metrics.text();
    assert!(page.contains("bridge_records_received_total{vendor=\"test\"} 3"));
    assert!(page.contains("{stage=\"normalise\",verdict=\"normalised\"} 3"));
    assert!(page.contains("{stage=\"normalise\",verdict=\"ignored\"} 1"));
}

#[tokio::test]
async fn what_a_replay_leaves_out_is_counted_and_not_written() {
    let (shared, mut relay) = world(&[record(0, 0, "left"), record(0, 1, "left")]);
    relay.step().await.expect("a step");
    assert!(!shared.did().contains(&Did::Note));
    let page = relay.metrics.text();
    assert!(page.contains("{stage=\"normalise\",verdict=\"left_out\"} 2"), "{page}");
}

#[tokio::test]
async fn where_nothing_is_to_be_known_or_noted_postgres_is_not_asked() {
    let (shared, mut relay) = world(&[record(0, 0, "")]);
    relay.step().await.expect("a step");
    let expected = [Did::Sought(0, 0), Did::Sent(0, 0), Did::Commit(vec![(0, 1)])];
    assert_eq!(shared.did(), expected);
}

#[tokio::test]
async fn whatever_fails_nothing_is_skipped() {
    let records = [record(0, 0, "user"), record(0, 1, "note"), record(1, 0, "")];
    for sends_max in [1, 256] {
        for (first, second) in (0..14).flat_map(|first| [(first, first + 1), (first, first + 4)]) {
            let (shared, mut relay) = world(&records);
            relay.settings.sends_max = sends_max;
            shared.lock().fails = BTreeSet::from([first, second]);
            for _ in 0..20 {
                relay.step().await.expect("a failure of the world is no end");
            }
            let did = shared.did();
            let of = |offset| move |did: &(i32, i64)| *did == offset;
            for offset in [(0, 0), (0, 1), (1, 0)] {
                assert!(sent(&did).into_iter().any(|did| of(offset)(&did)), "{first} {offset:?}");
            }
            // No offset is committed before what stands below it was sent.
            let mut acknowledged = BTreeSet::new();
            for step in &did {
                match step {
                    Did::Sent(partition, offset) => {
                        acknowledged.insert((*partition, *offset));
                    }
                    Did::Commit(offsets) => {
                        for (partition, next) in offsets {
                            let below = (0..*next).map(|offset| (*partition, offset));
                            assert!(below.into_iter().all(|at| acknowledged.contains(&at)));
                        }
                    }
                    _ => {}
                }
            }
            assert_eq!(shared.lock().committed, BTreeMap::from([(0, 2), (1, 1)]));
        }
    }
}

#[tokio::test]
async fn pauses_double_up_to_their_bound() {
    let (shared, mut relay) = world(&[record(0, 0, "user")]);
    shared.lock().fails = (4..12).collect();
    for _ in 0..8 {
        relay.step().await.expect("a step");
    }
    let slept: Vec<u128> = shared
        .did()
        .into_iter()
        .filter_map(|did| if let Did::Slept(time) = did { Some(time.as_millis()) } else { None })
        .collect();
    assert_eq!(slept, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    relay.step().await.expect("a step");
    assert_eq!(relay.failures, 0);
}

#[tokio::test]
async fn a_partition_is_read_on_where_the_group_left_it() {
    let records: Vec<Record> = (3..9).map(|offset| record(0, offset, "")).collect();
    let (shared, mut relay) = world(&records);
    shared.lock().first = 3;
    shared.lock().committed.insert(0, 7);
    relay.step().await.expect("a step");
    assert_eq!(sent(&shared.did()), [(0, 7), (0, 8)]);
    let (shared, mut relay) = world(&records);
    shared.lock().first = 3;
    relay.step().await.expect("a step");
    assert_eq!(sent(&shared.did()).first(), Some(&(0, 3)), "absent: from the log's start");
}

#[tokio::test]
async fn an_offset_that_the_log_does_not_reach_stops_and_names_itself() {
    for committed in [2, 10] {
        let records: Vec<Record> = (3..9).map(|offset| record(0, offset, "")).collect();
        let (shared, mut relay) = world(&records);
        shared.lock().first = 3;
        shared.lock().committed.insert(0, committed);
        let error = relay.run(&Stop::default()).await.expect_err("an end");
        assert_eq!(error.kind, Kind::InternalError);
        assert_eq!(error.code, format!("raw-webhooks/0: {committed} is not in 3..9"));
        assert_eq!(shared.did(), [Did::Released(0, 1)]);
    }
}

#[tokio::test]
async fn a_partition_that_cannot_be_begun_holds_no_other_up() {
    let (shared, mut relay) = world(&[record(0, 0, ""), record(1, 0, "")]);
    shared.lock().unreachable.insert(0);
    relay.step().await.expect("a step");
    assert_eq!(sent(&shared.did()), [(1, 0)]);
    shared.lock().unreachable.clear();
    for _ in 0..20 {
        relay.step().await.expect("a step");
    }
    assert_eq!(sent(&shared.did()), [(0, 0)]);
}

#[tokio::test]
async fn a_revoke_does_not_wait_for_brokers_that_are_away() {
    let (shared, mut relay) = world(&[record(0, 0, ""), record(1, 0, "")]);
    shared.lock().deaf = true;
    {
        let step = pin!(relay.step());
        assert!(futures_util::poll!(step).is_pending());
    }
    let mut step = Box::pin(relay.step());
    assert!(futures_util::poll!(step.as_mut()).is_pending());
    shared.lock().owned[0].revoking = true;
    for _ in 0..10 {
        assert!(futures_util::poll!(step.as_mut()).is_pending());
    }
    assert!(shared.did().contains(&Did::Released(0, 1)), "while the sends still wait");
    shared.lock().deaf = false;
    step.await.expect("a step");
    assert_eq!(shared.lock().committed, BTreeMap::from([(1, 1)]), "what is not ours is not ours");
}

/// Only the commits of what was done.
fn commits(did: Vec<Did>) -> Vec<Vec<(i32, i64)>> {
    did.into_iter()
        .filter_map(|did| if let Did::Commit(offsets) = did { Some(offsets) } else { None })
        .collect()
}

#[tokio::test]
async fn offsets_are_committed_a_few_times_a_second_and_before_any_wait() {
    let (shared, mut relay) = world(&[record(0, 0, ""), record(0, 1, ""), record(0, 2, "")]);
    relay.settings.commit_every = Duration::from_millis(100);
    relay.settings.batch_records_max = 1;
    relay.step().await.expect("a step");
    assert_eq!(commits(shared.did()), Vec::<Vec<(i32, i64)>>::new(), "more may come");
    shared.lock().now += Duration::from_millis(100);
    relay.step().await.expect("a step");
    assert_eq!(commits(shared.did()), [[(0, 2)]], "the time is up");
    relay.step().await.expect("a step");
    assert_eq!(commits(shared.did()), Vec::<Vec<(i32, i64)>>::new());
    relay.step().await.expect("a step that finds nothing");
    assert_eq!(commits(shared.did()), [[(0, 3)]], "before a wait");
}

#[tokio::test]
async fn what_is_done_is_committed_before_its_partition_is_given_back() {
    let (shared, mut relay) = world(&[record(0, 0, ""), record(1, 0, "")]);
    relay.settings.commit_every = Duration::from_secs(1);
    relay.step().await.expect("a step");
    shared.lock().owned[0].revoking = true;
    shared.did();
    relay.step().await.expect("a step");
    let did = shared.did();
    assert_eq!(did.first(), Some(&Did::Commit(vec![(0, 1), (1, 1)])));
    assert_eq!(did.get(1), Some(&Did::Released(0, 1)));
    // What is lost meanwhile is not ours to commit.
    let (shared, mut relay) = world(&[record(0, 0, ""), record(1, 0, "")]);
    relay.settings.commit_every = Duration::from_secs(1);
    relay.step().await.expect("a step");
    shared.lock().owned.remove(0);
    relay.step().await.expect("a step");
    assert_eq!(shared.lock().committed, BTreeMap::from([(1, 1)]));
}

#[tokio::test]
async fn a_partition_that_comes_back_is_another_task() {
    let (shared, mut relay) = world(&[record(0, 0, "user")]);
    shared.lock().fails = (4..6).collect();
    relay.step().await.expect("a step");
    assert_eq!(relay.pending.len(), 1);
    shared.lock().owned[0].term = 2;
    shared.did();
    shared.lock().fails.clear();
    relay.step().await.expect("a step");
    assert_eq!(shared.did().first(), Some(&Did::Sought(0, 0)), "from the committed offset again");
    assert_eq!(shared.lock().committed, BTreeMap::from([(0, 1)]));
}

#[tokio::test]
async fn held_items_are_put_through_once_they_are_sent() {
    let (shared, mut relay) = world(&[record(0, 0, ""), record(0, 1, "")]);
    relay.step().await.expect("a step");
    shared.did();
    shared.lock().connected = true;
    shared.lock().held = vec![held(0, 0), held(0, 1), held(1, 0), held(7, 1)];
    relay.settings.sweep_every = Some(Duration::from_secs(10));
    relay.step().await.expect("a step");
    assert_eq!(shared.did(), [], "not yet");
    shared.lock().now += Duration::from_secs(10);
    relay.step().await.expect("a step");
    let expected = [
        Did::Connections,
        Did::Sent(0, 0),
        Did::PutThrough(vec![0, 1]),
        Did::Sent(0, 1),
        Did::PutThrough(vec![0]),
        Did::Note,
        Did::PutThrough(vec![1]),
    ];
    assert_eq!(shared.did(), expected, "what retention took has a verdict");
    assert!(shared.lock().held.is_empty());
    assert_eq!(relay.metrics.swept.get(), 4);
    assert_eq!(gone(&[held(7, 1)]).notes.verdicts[0].reason, "no longer in the log");
}

#[tokio::test]
async fn what_is_held_once_more_is_not_taken_away() {
    let (shared, mut relay) = world(&[record(0, 0, "")]);
    shared.lock().held = vec![held(0, 0), held(0, 1)];
    relay.settings.sweep_every = Some(Duration::ZERO);
    relay.step().await.expect("a step");
    assert_eq!(shared.lock().held, [held(0, 1)]);
}

#[tokio::test]
async fn a_sweep_that_fails_is_done_again_and_loses_nothing() {
    for fails in 0..16 {
        let (shared, mut relay) = world(&[record(0, 0, ""), record(0, 1, "")]);
        shared.lock().connected = true;
        shared.lock().held = vec![held(0, 0), held(1, 1), held(9, 1)];
        shared.lock().fails = BTreeSet::from([fails]);
        relay.settings.sweep_every = Some(Duration::from_secs(1));
        let mut order = Vec::new();
        for _ in 0..40 {
            relay.step().await.expect("a step");
            order.extend(shared.did());
        }
        assert!(shared.lock().held.is_empty(), "call {fails}");
        let through = order.iter().position(|did| *did == Did::PutThrough(vec![0]));
        let sent = order.iter().position(|did| *did == Did::Sent(0, 0));
        assert!(sent.expect("sent") < through.expect("put through"));
    }
}

#[tokio::test]
async fn no_more_wait_for_an_acknowledgement_than_may() {
    let records: Vec<Record> = (0..40).map(|offset| record(0, offset, "")).collect();
    for (sends_max, seen) in [(1, 1), (8, 8), (256, 40)] {
        let (shared, mut relay) = world(&records);
        relay.settings.sends_max = sends_max;
        relay.step().await.expect("a step");
        assert_eq!(shared.lock().in_flight_max, seen);
        let all: Vec<(i32, i64)> = (0..40).map(|offset| (0, offset)).collect();
        assert_eq!(sent(&shared.did()), all);
        assert_eq!(shared.lock().given, all, "in order");
    }
}

#[tokio::test]
async fn the_lag_is_the_sum_of_every_relays() {
    let records: Vec<Record> = (0..40).map(|offset| record(0, offset, "")).collect();
    let (shared, mut relay) = world(&records);
    let gauge = relay.metrics.lag.at([STAGE]).clone();
    gauge.set(1000);
    relay.settings.batch_records_max = 10;
    relay.settings.lag_every = Duration::ZERO;
    relay.step().await.expect("a step");
    assert_eq!(gauge.get(), 1030);
    relay.step().await.expect("a step");
    assert_eq!(gauge.get(), 1020);
    let stop = Stop::default();
    stop.set();
    relay.run(&stop).await.expect("an end");
    assert_eq!(gauge.get(), 1000, "its own part and no other");
    assert_eq!(shared.did().last(), Some(&Did::Released(0, 1)));
}
