//! The log: topics of append-only partitions whose records are pending, committed or aborted, and the ports on it.
//!
//! Readers are `read_committed`: nothing at or above the first pending record is given out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::faults::{Call, Grant};
use super::txn::Refusal;
use super::{Asked, EPOCH_US, Port, refused};
use crate::error::{Error, Kind, Result};
use crate::model::contract::Topic;
use crate::model::record::{OutRecord, Record};
use crate::model::state::Coordinates;
use crate::stream::planted::Bug;
use crate::stream::{Committed, Log, Metadata, Owned, Publisher, TxnError};

/// Where a record stands with the transaction that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Written outside of one, or in one that committed.
    Committed,
    /// Its transaction is open.
    Pending(u64),
    /// Its transaction aborted; or a gap, as markers leave.
    Aborted,
}

/// One partition.
#[derive(Clone, Debug, Default)]
struct Partition {
    /// What retention has left.
    start: i64,
    entries: Vec<(OutRecord, i64, Standing)>,
}

impl Partition {
    fn end(&self) -> i64 {
        i64::try_from(self.entries.len()).unwrap_or(i64::MAX)
    }

    /// The first offset that a `read_committed` reader does not get to.
    fn stable(&self) -> i64 {
        let pending = |(_, _, standing): &(OutRecord, i64, Standing)| {
            matches!(standing, Standing::Pending(_))
        };
        let first = self.entries.iter().position(pending);
        first.map_or_else(|| self.end(), |at| i64::try_from(at).unwrap_or(i64::MAX))
    }

    fn read(&self, topic: Topic, partition: i32, offset: i64) -> Option<Record> {
        let at = usize::try_from(offset).ok()?;
        let (record, timestamp_ms, standing) = self.entries.get(at)?;
        let visible = *standing == Standing::Committed && offset >= self.start;
        visible.then(|| Record {
            topic,
            partition,
            offset,
            timestamp_ms: *timestamp_ms,
            key: record.key.clone(),
            headers: record.headers.clone(),
            value: record.value.clone(),
        })
    }
}

/// The topics. One that nobody declared has one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Broker {
    topics: BTreeMap<Topic, Vec<Partition>>,
    counts: BTreeMap<Topic, i32>,
}

impl Broker {
    /// Declares a topic.
    pub(super) fn declare(&mut self, topic: Topic, partitions: i32) {
        self.counts.insert(topic, partitions);
    }

    pub(super) fn partitions(&self, topic: Topic) -> i32 {
        self.counts.get(&topic).copied().unwrap_or(1)
    }

    fn partition(&mut self, topic: Topic, partition: i32) -> Option<&mut Partition> {
        let count = usize::try_from(self.partitions(topic)).unwrap_or(1);
        let all = self.topics.entry(topic).or_default();
        all.resize(count.max(all.len()), Partition::default());
        all.get_mut(usize::try_from(partition).ok()?)
    }

    fn look(&self, topic: Topic, partition: i32) -> Option<&Partition> {
        self.topics.get(&topic)?.get(usize::try_from(partition).ok()?)
    }

    /// Appends where the key says; in a producer's transaction, if it is given.
    pub(super) fn append(
        &mut self,
        record: OutRecord,
        pid: Option<u64>,
        now: Duration,
    ) -> Coordinates {
        let partition = partition_of(record.key.as_deref(), self.partitions(record.topic));
        self.append_to(partition, record, pid, now)
    }

    /// Appends to this partition.
    pub(super) fn append_to(
        &mut self,
        partition: i32,
        record: OutRecord,
        pid: Option<u64>,
        now: Duration,
    ) -> Coordinates {
        let topic = record.topic;
        let standing = pid.map_or(Standing::Committed, Standing::Pending);
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let mut offset = -1;
        if let Some(log) = self.partition(topic, partition) {
            offset = log.end();
            log.entries.push((record, EPOCH_US / 1000 + now_ms, standing));
        }
        Coordinates { topic, partition, offset }
    }

    /// Leaves an offset without a record, as markers and aborted transactions do.
    pub(super) fn gap(&mut self, topic: Topic, partition: i32) {
        if let Some(log) = self.partition(topic, partition) {
            let nothing = OutRecord {
                topic,
                key: None,
                headers: crate::model::record::Headers::new(),
                value: None,
            };
            log.entries.push((nothing, EPOCH_US / 1000, Standing::Aborted));
        }
    }

    /// Retention: what is below is gone.
    pub(super) fn truncate(&mut self, topic: Topic, partition: i32, start: i64) {
        if let Some(log) = self.partition(topic, partition) {
            log.start = start;
        }
    }

    /// Ends a producer's transaction for readers.
    pub(super) fn mark(&mut self, pid: u64, commit: bool) {
        let to = if commit { Standing::Committed } else { Standing::Aborted };
        let all = self.topics.values_mut().flatten().flat_map(|log| log.entries.iter_mut());
        for (_, _, standing) in all {
            if *standing == Standing::Pending(pid) {
                *standing = to;
            }
        }
    }

    pub(super) fn read(&self, at: Coordinates) -> Option<Record> {
        self.look(at.topic, at.partition)?.read(at.topic, at.partition, at.offset)
    }

    pub(super) fn bounds(&self, topic: Topic, partition: i32) -> (i64, i64) {
        self.look(topic, partition).map_or((0, 0), |log| (log.start, log.end()))
    }

    /// What a `read_committed` reader of the whole topic gets, partition by partition.
    pub(super) fn committed(&self, topic: Topic) -> Vec<Record> {
        let mut records = Vec::new();
        for partition in 0..self.partitions(topic) {
            let Some(log) = self.look(topic, partition) else { continue };
            records
                .extend((log.start..log.stable()).filter_map(|at| log.read(topic, partition, at)));
        }
        records
    }

    /// Whether a transaction is open on any record.
    pub(super) fn pending(&self, topic: Topic) -> usize {
        let all = self.topics.get(&topic).into_iter().flatten().flat_map(|log| &log.entries);
        all.filter(|(_, _, standing)| matches!(standing, Standing::Pending(_))).count()
    }

    /// The next record from a position on, and its offset plus one.
    fn next(&self, topic: Topic, partition: i32, from: i64) -> Option<Record> {
        let log = self.look(topic, partition)?;
        (from.max(log.start)..log.stable()).find_map(|at| log.read(topic, partition, at))
    }
}

/// A stable choice by key (FNV-1a); without one, the first.
pub(super) fn partition_of(key: Option<&[u8]>, partitions: i32) -> i32 {
    let Some(key) = key else { return 0 };
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let count = u64::try_from(partitions.max(1)).unwrap_or(1);
    i32::try_from((hash >> 16) % count).unwrap_or(0)
}

/// A member of the group on a topic.
#[derive(Debug)]
pub struct SimLog {
    pub(super) port: Port,
    pub(super) topic: Topic,
}

impl Drop for SimLog {
    /// A driven client's end is the driver's business: it may be a crash.
    fn drop(&mut self) {
        let mut world = self.port.world.lock();
        if world.clients.get(&self.port.client).is_some_and(|client| client.free) {
            world.leave(self.port.client);
        }
    }
}

impl Log for SimLog {
    fn topic(&self) -> Topic {
        self.topic
    }

    fn owned(&self) -> Vec<Owned> {
        self.port.with(|_, client| client.seat.owned()).unwrap_or_default()
    }

    fn metadata(&self) -> Metadata {
        let nobody = Metadata { generation: -1, member: String::new(), native: None };
        self.port.with(|_, client| client.seat.metadata()).unwrap_or(nobody)
    }

    async fn wait(&mut self, at_most: Duration) {
        self.port.wait(Call::Wait, at_most).await;
    }

    async fn seek(&mut self, partition: i32, from: i64) -> Result<()> {
        if self.port.ask(Asked::of(Call::Seek)).await != Grant::Done {
            return Err(refused(Kind::BrokerUnavailable, "seek"));
        }
        self.port.with(|_, client| {
            if let Some(part) = client.seat.parts.get_mut(&partition) {
                part.position = Some(from);
            }
        });
        Ok(())
    }

    fn take(&mut self, partitions: &[i32], records_max: usize, bytes_max: usize) -> Vec<Record> {
        let topic = self.topic;
        let taken = self.port.with(|world, client| {
            let mut taken: Vec<Record> = Vec::new();
            let mut bytes = 0;
            let mut dry = 0;
            while dry < partitions.len() && taken.len() < records_max {
                let turn = client.seat.turn % partitions.len();
                client.seat.turn = turn + 1;
                let next = partitions.get(turn).and_then(|partition| {
                    let position = client.seat.parts.get(partition)?.position?;
                    world.broker.next(topic, *partition, position)
                });
                let Some(record) = next else {
                    dry += 1;
                    continue;
                };
                bytes += record.size();
                if !taken.is_empty() && bytes > bytes_max {
                    client.seat.turn = turn;
                    break;
                }
                dry = 0;
                if let Some(part) = client.seat.parts.get_mut(&record.partition) {
                    part.position = Some(record.offset + 1);
                }
                taken.push(record);
            }
            taken
        });
        taken.unwrap_or_default()
    }

    async fn committed(&mut self, partition: i32) -> Result<Option<Committed>> {
        let grant = self.port.ask(Asked::of(Call::Committed)).await;
        let unstable = || refused(Kind::BrokerUnavailable, "committed offset");
        if grant != Grant::Done {
            return Err(unstable());
        }
        let topic = self.topic;
        let stable = !Bug::UnstableRead.alive();
        let read = self.port.with(|world, _| {
            world.groups.get(&topic).map(|group| group.committed(partition, stable))
        });
        match read.flatten() {
            Some(Ok(committed)) => Ok(committed),
            Some(Err(())) | None => Err(unstable()),
        }
    }

    async fn bounds(&mut self, partition: i32) -> Result<(i64, i64)> {
        if self.port.ask(Asked::of(Call::Bounds)).await != Grant::Done {
            return Err(refused(Kind::BrokerUnavailable, "bounds"));
        }
        let topic = self.topic;
        let bounds = self.port.with(|world, _| world.broker.bounds(topic, partition));
        bounds.ok_or_else(|| refused(Kind::BrokerUnavailable, "bounds"))
    }

    fn end(&self, partition: i32) -> Option<i64> {
        let topic = self.topic;
        self.port.with(|world, _| world.broker.bounds(topic, partition)).map(|(_, end)| end)
    }

    async fn commit(&mut self, offsets: &[(i32, i64)]) -> Result<()> {
        let grant = self.port.ask(Asked::of(Call::CommitPlain)).await;
        let failed = || refused(Kind::BrokerUnavailable, "commit offsets");
        if grant == Grant::Refused {
            return Err(failed());
        }
        let topic = self.topic;
        let taken = self.port.with(|world, client| {
            let metadata = client.seat.metadata();
            let group = world.groups.get_mut(&topic)?;
            // Outside of a transaction a commit that names nobody is refused.
            (metadata.is_member() && group.admits(&metadata)).then(|| {
                for (partition, offset) in offsets {
                    let committed = Committed { offset: *offset, mark: String::new() };
                    group.offsets.insert(*partition, committed);
                }
            })
        });
        match (taken.flatten(), grant) {
            (Some(()), Grant::Done) => Ok(()),
            _ => Err(failed()),
        }
    }

    fn release(&mut self, partition: i32, term: u64) {
        self.port.with(|_, client| client.seat.release(partition, term));
    }
}

/// A transactional producer of a slot.
#[derive(Clone, Debug)]
pub struct SimPublisher {
    pub(super) port: Port,
}

impl SimPublisher {
    fn lost() -> TxnError {
        TxnError::Lost(refused(Kind::BrokerUnavailable, "producer"))
    }

    fn error() -> Error {
        refused(Kind::BrokerUnavailable, "transaction")
    }

    /// The slot is the transactional id.
    fn pid(slot: usize) -> u64 {
        u64::try_from(slot).unwrap_or(u64::MAX)
    }

    /// Asks, then runs a request under the producer of now; a producer that is gone loses it.
    async fn request(
        &mut self,
        call: Call,
        act: impl FnOnce(&mut super::World, &mut super::txn::Producer, Grant) -> Result<(), Refusal>,
    ) -> Result<Grant, TxnError> {
        let grant = self.port.ask(Asked::of(call)).await;
        let done = self.port.with(|world, client| {
            let producer = client.producer.as_mut().filter(|producer| !producer.condemned)?;
            if matches!(grant, Grant::AnswerLost | Grant::InDoubt | Grant::Repeated) {
                producer.disturbed = true;
            }
            Some(if grant == Grant::Refused { Ok(()) } else { act(world, producer, grant) })
        });
        match done.flatten() {
            None => Err(Self::lost()),
            Some(Ok(())) => Ok(grant),
            Some(Err(Refusal::Member)) => {
                Err(TxnError::Abortable { member: true, error: Self::error() })
            }
            Some(Err(Refusal::Fenced | Refusal::State)) => Err(Self::lost()),
        }
    }

    async fn send_part(&mut self, call: Call, records: &[OutRecord]) -> Result<(), TxnError> {
        let sent = self.request(call, |world, producer, _| {
            producer.used = true;
            world.produce(producer, records)
        });
        match sent.await? {
            Grant::Done => Ok(()),
            _ => Err(TxnError::Abortable { member: false, error: Self::error() }),
        }
    }
}

impl Publisher for SimPublisher {
    async fn open(&mut self) -> Result<()> {
        let open = self
            .port
            .with(|_, client| client.producer.as_ref().is_some_and(|producer| !producer.condemned));
        if open == Some(true) {
            return Ok(());
        }
        let grant = self.port.ask(Asked::of(Call::Open)).await;
        if grant == Grant::Refused {
            return Err(Self::error());
        }
        self.port.with(|world, client| {
            let producer = world.init_producer(Self::pid(client.slot));
            client.producer = (grant == Grant::Done).then_some(producer);
        });
        if grant == Grant::Done { Ok(()) } else { Err(Self::error()) }
    }

    async fn drop_producer(&mut self) {
        self.port.with(|_, client| client.producer = None);
    }

    async fn begin(&mut self) -> Result<(), TxnError> {
        let begun = self.port.with(|_, client| {
            let producer = client.producer.as_mut().filter(|producer| !producer.condemned)?;
            producer.disturbed = false;
            producer.used = false;
            Some(())
        });
        begun.flatten().ok_or_else(Self::lost)
    }

    async fn send(&mut self, records: &[OutRecord]) -> Result<(), TxnError> {
        if records.is_empty() {
            return Ok(());
        }
        let (first, rest) = records.split_at(records.len().div_ceil(2).min(records.len()));
        self.send_part(Call::Send, first).await?;
        self.send_part(Call::SendRest, rest).await
    }

    async fn send_offsets(
        &mut self,
        topic: Topic,
        offsets: &[(i32, i64, String)],
        metadata: &Metadata,
    ) -> Result<(), TxnError> {
        let committed = |(partition, offset, mark): &(i32, i64, String)| {
            (*partition, Committed { offset: *offset, mark: mark.clone() })
        };
        let offsets: Vec<(i32, Committed)> = offsets.iter().map(committed).collect();
        let sent = self.request(Call::SendOffsets, |world, producer, grant| {
            producer.used = true;
            let name = (producer.pid, producer.epoch);
            world.txn_offsets(name, topic, &offsets, metadata)?;
            if grant == Grant::Repeated {
                world.copy_offsets(producer, topic, &offsets, metadata);
            }
            Ok(())
        });
        match sent.await? {
            Grant::Done | Grant::Repeated | Grant::RepeatedUnseen => Ok(()),
            Grant::Refused | Grant::AnswerLost | Grant::InDoubt | Grant::Retriable => {
                Err(TxnError::Abortable { member: false, error: Self::error() })
            }
        }
    }

    async fn commit(&mut self) -> Result<(), TxnError> {
        let sent = self.request(Call::Commit, |world, producer, grant| {
            if !producer.used {
                return Ok(());
            }
            match grant {
                Grant::InDoubt => world.copy_end(producer, true),
                Grant::Done
                | Grant::AnswerLost
                | Grant::Retriable
                | Grant::Repeated
                | Grant::RepeatedUnseen
                | Grant::Refused => {
                    world.end_txn(producer.pid, producer.epoch, true)?;
                    if matches!(grant, Grant::Repeated | Grant::RepeatedUnseen) {
                        world.copy_end(producer, true);
                    }
                }
            }
            Ok(())
        });
        match sent.await? {
            Grant::Done | Grant::Repeated | Grant::RepeatedUnseen => Ok(()),
            Grant::Retriable | Grant::Refused => Err(TxnError::Retriable(Self::error())),
            Grant::AnswerLost | Grant::InDoubt => Err(Self::lost()),
        }
    }

    async fn abort(&mut self) {
        // Whatever it says, the producer is dropped after it.
        let ended = self
            .request(Call::Abort, |world, producer, grant| {
                if producer.used {
                    world.end_txn(producer.pid, producer.epoch, false)?;
                    if matches!(grant, Grant::Repeated | Grant::RepeatedUnseen) {
                        world.copy_end(producer, false);
                    }
                }
                Ok(())
            })
            .await;
        if ended.is_err() {
            self.port.with(|world, _| world.note("  the abort was refused".to_owned()));
        }
    }

    fn disturbed(&self) -> bool {
        let disturbed = self
            .port
            .with(|_, client| client.producer.as_ref().is_some_and(|producer| producer.disturbed));
        disturbed.unwrap_or(true)
    }
}
