//! The engine: the loops that move records, knowing no vendor and no metric.
//!
//! [`worker::Worker`] runs decide exactly once, by the protocol of its module pages; [`relay::Relay`] runs
//! normalise at least once. Both see the world through the ports below, so the same code runs over Kafka and
//! Postgres and over the world in memory, where every crash can be tried at every place.
//!
//! A worker lives on a thread of its own with a current-thread runtime: its futures need not be `Send`.

pub mod batch;
pub mod clock;
pub mod commit;
pub mod connecting;
pub mod hydration;
pub mod planted;
pub mod recover;
pub mod relay;
pub mod stop;
mod tally;
pub mod task;
mod traced;
pub mod worker;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::connection::Connection;
use crate::model::contract::Topic;
use crate::model::outbox::Output;
use crate::model::record::{OutRecord, Record};
use crate::model::state::{Coordinates, Held, Hole, Known, Notes, Outcome, Plan, Shown, Whose};

/// What the group coordinator knows this member by ("M" of the protocol), taken once per attempt.
#[derive(Clone)]
pub struct Metadata {
    /// Generation (classic) or member epoch (KIP-848); a member's is above 0.
    pub generation: i32,
    /// The member's id; a member's is not empty.
    pub member: String,
    /// The client library's own object, which goes into `send_offsets` as it is.
    pub native: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}@{}", self.member, self.generation)
    }
}

impl Metadata {
    /// Whether it is a member's. The broker takes other metadata unchecked (H6), so we must not send it.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.generation > 0 && !self.member.is_empty()
    }

    /// Whether both were taken of one generation of one member.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.generation == other.generation && self.member == other.member
    }
}

/// A partition that this member owns. A partition that went and came back has another term: it is another task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The partition.
    pub partition: i32,
    /// Which assignment of it this is; never the same twice in a process.
    pub term: u64,
    /// Whether the group asks for it back: finish what is under way, then [`Log::release`] it.
    pub revoking: bool,
}

/// What the group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset.
    pub offset: i64,
    /// The metadata string beside it.
    pub mark: String,
}

/// A member of a consumer group, reading one topic.
///
/// Level-triggered: [`Log::owned`] is the truth of this instant, kept by whoever polls the broker, so a revoke is
/// seen in the middle of an attempt without waiting for it.
#[expect(async_fn_in_trait, reason = "a worker lives on one thread; Send is not asked for")]
pub trait Log {
    /// The topic.
    fn topic(&self) -> Topic;
    /// What this member owns now.
    fn owned(&self) -> Vec<Owned>;
    /// The group metadata of now, whatever it is; the caller checks it.
    fn metadata(&self) -> Metadata;
    /// Waits until records may be there, or what is owned changed, or a revoke is asked, or the time is up.
    async fn wait(&mut self, at_most: Duration);
    /// Reads the partition from this offset on; what was fetched before is dropped.
    async fn seek(&mut self, partition: i32, from: i64) -> Result<()>;
    /// The next records, from the partitions in turn, each from its own position; never more than the bounds,
    /// but always at least one where there is one. Does not wait.
    fn take(&mut self, partitions: &[i32], records_max: usize, bytes_max: usize) -> Vec<Record>;
    /// The group's committed offset, stable: an error of the partition (UNSTABLE_OFFSET_COMMIT, …) is an `Err`
    /// and means "ask again"; `None` means that there is none.
    async fn committed(&mut self, partition: i32) -> Result<Option<Committed>>;
    /// The first offset in the log and the one after the last.
    async fn bounds(&mut self, partition: i32) -> Result<(i64, i64)>;
    /// The end of the partition as the last fetch from it said, without asking anybody: for the lag, not for
    /// decisions.
    fn end(&self, partition: i32) -> Option<i64>;
    /// When the oldest record of the partition that was fetched and not taken was written, ms since the epoch: for
    /// the lag, not for decisions. Nothing where none waits, or where nothing is fetched ahead.
    fn oldest_ms(&self, _partition: i32) -> Option<i64> {
        None
    }
    /// Commits offsets outside of a transaction (normalise).
    async fn commit(&mut self, offsets: &[(i32, i64)]) -> Result<()>;
    /// Nothing with this term is under way any more: the revoke of it may return.
    fn release(&mut self, partition: i32, term: u64);
}

/// How a step of a Kafka transaction went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnError {
    /// The call may be repeated as it is.
    Retriable(Error),
    /// The transaction must be aborted; `member` where the generation, the epoch or the member was refused.
    Abortable {
        /// The group metadata was refused.
        member: bool,
        /// What the library's code was.
        error: Error,
    },
    /// Fenced, fatal, timed out, or not known: the producer is of no more use.
    Lost(Error),
}

/// One transactional producer with a stable id; it exists between [`Publisher::open`] and [`Publisher::drop_producer`].
#[expect(async_fn_in_trait, reason = "a worker lives on one thread; Send is not asked for")]
pub trait Publisher {
    /// A producer whose `init_transactions` has returned: what this id had open is then decided.
    async fn open(&mut self) -> Result<()>;
    /// Drops the producer, so that nothing of it can follow; without one, nothing.
    async fn drop_producer(&mut self);
    /// Begins a transaction.
    async fn begin(&mut self) -> Result<(), TxnError>;
    /// Sends records; returns when all are acknowledged and nothing is in flight.
    async fn send(&mut self, records: &[OutRecord]) -> Result<(), TxnError>;
    /// Puts offsets of the group, marked as ours, into the transaction, under this metadata.
    async fn send_offsets(
        &mut self,
        topic: Topic,
        offsets: &[(i32, i64, String)],
        metadata: &Metadata,
    ) -> Result<(), TxnError>;
    /// Commits. An error other than [`TxnError::Retriable`] says nothing about the outcome.
    async fn commit(&mut self) -> Result<(), TxnError>;
    /// Aborts; whatever it says, the producer is dropped after it.
    async fn abort(&mut self);
    /// Whether a connection was lost or a request timed out since `begin`: the library may have repeated it (H9).
    fn disturbed(&self) -> bool;
}

/// What the fence gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// The fence, new.
    pub fence: Uuid,
    /// The first offset that Postgres does not have.
    pub applied: i64,
    /// What the task that wrote it knew to be in the topic.
    pub published: i64,
    /// Starts without progress, this one included.
    pub starts: i32,
    /// The last batch as it was to be sent: from, to, records.
    pub outbox: Option<(i64, i64, Vec<Output>)>,
}

/// A partition's row as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The partition.
    pub partition: i32,
    /// Whose it is.
    pub fence: Uuid,
    /// The first offset that Postgres does not have.
    pub applied: i64,
}

/// One partition's part of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    /// The partition.
    pub partition: i32,
    /// The task's fence.
    pub fence: Uuid,
    /// What the task applied last, which the row must still say.
    pub applied: i64,
    /// The first offset after the batch.
    pub next: i64,
    /// What this task knows to be in the topic.
    pub published: i64,
}

/// How an apply ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It stands.
    Committed,
    /// A row was not this task's any more; rolled back.
    NotOurs,
    /// A second writer has made a revision of the same record; rolled back.
    Conflict,
    /// Rolled back for certain: serialisation, deadlock, refused, not connected before it began.
    Again(Error),
    /// The answer is lost: committed or not, only the fence will tell.
    Unknown(Error),
}

/// The truth, in Postgres, as decide needs it.
#[expect(async_fn_in_trait, reason = "a worker lives on one thread; Send is not asked for")]
pub trait Store {
    /// Takes the fence of a partition, inserting its row if absent; waits for a transaction in doubt that holds it.
    async fn fence(&mut self, topic: Topic, partition: i32) -> Result<Fenced>;
    /// What the plan asks for and the progress rows, in one snapshot.
    async fn load(
        &mut self,
        topic: Topic,
        partitions: &[i32],
        plan: &Plan,
    ) -> Result<(Vec<Progress>, Known)>;
    /// One transaction: the advances first and in partition order, then the outcome with its outbox.
    async fn apply(&mut self, topic: Topic, advances: &[Advance], outcome: &Outcome) -> Applied;
    /// The rows of idle partitions.
    async fn look(&mut self, topic: Topic, partitions: &[i32]) -> Result<Vec<Progress>>;
    /// Counts a try of the record at `applied`, if the row is still ours; gives the count.
    async fn count_try(
        &mut self,
        topic: Topic,
        partition: i32,
        fence: Uuid,
        applied: i64,
    ) -> Result<Option<i32>>;
    /// A clean end: no starts, all published, if the row is still ours.
    async fn release(&mut self, topic: Topic, partition: i32, fence: Uuid, applied: i64);
    /// The latest that is there of each hole.
    async fn latest(&mut self, holes: &[Hole]) -> Result<Vec<Shown>>;
    /// Whether the connection is another one than when this was asked last: all tasks must recover.
    fn reconnected(&mut self) -> bool;
}

/// The cache: rebuildable, best effort, never asked for a decision.
#[expect(async_fn_in_trait, reason = "a worker lives on one thread; Send is not asked for")]
pub trait Cache {
    /// Shows these, forward only; gives back what tombstones have left without a latest.
    async fn show(&mut self, shown: &[Shown]) -> Result<Vec<Hole>>;
}

/// A producer outside of transactions; acknowledged by every in-sync replica, or an error.
pub trait Sender: Send + Sync + 'static {
    /// Sends one record and waits for its acknowledgement, at most the producer's own deadline.
    fn send(&self, record: OutRecord) -> impl Future<Output = Result<Coordinates>> + Send;
}

/// What normalise needs of Postgres.
#[expect(async_fn_in_trait, reason = "a relay lives on one thread; Send is not asked for")]
pub trait Register {
    /// All rows of these.
    async fn connections(&mut self, named: &Whose) -> Result<Vec<Connection>>;
    /// Writes notes; twice is once.
    async fn note(&mut self, notes: &Notes) -> Result<()>;
    /// Held items whose vendor user has a connection by now, at most this many, oldest first.
    async fn connected(&mut self, at_most: usize) -> Result<Vec<Held>>;
    /// These held items were put through.
    async fn put_through(&mut self, held: &[Held]) -> Result<()>;
}

/// Reads single records by their coordinates.
#[expect(async_fn_in_trait, reason = "a relay lives on one thread; Send is not asked for")]
pub trait Reader {
    /// The record; absent where the log does not have it any more.
    async fn read(&mut self, at: Coordinates) -> Result<Option<Record>>;
}

/// Time as the engine sees it.
#[expect(async_fn_in_trait, reason = "a worker lives on one thread; Send is not asked for")]
pub trait Clock {
    /// Monotonic time since some start.
    fn elapsed(&self) -> Duration;
    /// The wall clock, µs since the epoch: for metrics and dead letters of normalise, never for a decision.
    fn now_us(&self) -> i64;
    /// Waits.
    async fn sleep(&self, time: Duration);
}

/// Decide, as the engine is given it: pure, and the engine knows nothing of what it decides.
pub trait Processor {
    /// A batch as far as it is read to be planned, so that nothing is read twice.
    type Read: Default;
    /// Batch → what must be known, and what was read.
    fn plan(&self, batch: &[Record]) -> (Plan, Self::Read);
    /// Batch, what was read of it, and what is known → what is to be stored, sent and shown.
    ///
    /// # Errors
    /// An `internal_error`: a state that must not be.
    fn decide(&self, batch: &[Record], read: Self::Read, known: Known) -> Result<Outcome>;
    /// A record that is given up untried.
    fn give_up(&self, record: &Record) -> Outcome;
}

/// What normalise made of a batch of raw records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relayed {
    /// What is written to Postgres before anything is sent.
    pub notes: Notes,
    /// What is sent: canonical records, dead letters.
    pub records: Vec<OutRecord>,
}

/// Normalise, as the engine is given it. Times of dead letters (`now_us`) come in from the caller's clock.
pub trait Converter {
    /// A batch as its vendors' files read it, so that nothing is read twice.
    type Read;
    /// Under which vendor's name a record is counted: a closed set.
    fn vendor(&self, record: &Record) -> &'static str;
    /// Batch → whose connections must be known, and what was read.
    fn read(&self, batch: &[Record]) -> (Whose, Self::Read);
    /// Batch, what was read of it, and connections → what is written and sent.
    fn convert(
        &self,
        batch: &[Record],
        read: Self::Read,
        connections: Vec<Connection>,
        now_us: i64,
    ) -> Relayed;
    /// One raw record again, only its items at these indexes, by the connections of now.
    fn again(
        &self,
        record: &Record,
        indexes: &[i32],
        connections: Vec<Connection>,
        now_us: i64,
    ) -> Relayed;
}

/// A value for a header or a key.
#[must_use]
pub fn text(value: impl Into<String>) -> Bytes {
    Bytes::from(value.into())
}
