//! The one transaction of decide, and how it ended.
//!
//! First the progress rows, in partition order: nothing is written for a partition that is somebody else's. Then
//! everything else and the COMMIT in one go. What is said about the end is what is certain: after COMMIT was
//! sent, only the server's answer to it is.

use std::task::Poll;

use futures_util::future::join_all;
use futures_util::{join, poll, try_join};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::link::Session;
use super::pool::failed;
use super::rows::{Sources, encode_ids, encode_told, op_code};
use super::store::Statements;
use crate::error::{Error, Kind, Result};
use crate::model::outbox;
use crate::model::sample::{encode_stages, encode_versions};
use crate::model::state::{Decision, Outcome, Verdict};
use crate::stream::{Advance, Applied};

/// What an error of this module was doing.
pub(super) const APPLYING: &str = "apply a batch";

/// Whether the connection may be used again: no transaction is open on it and it is not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Sound,
    Broken,
}

/// Runs the transaction.
pub(super) async fn apply(
    session: &Session<Statements>,
    topic: i16,
    advances: &[Advance],
    batch: &Batch<'_>,
) -> (Applied, Standing) {
    let client = session.client();
    match advance(session, topic, advances).await {
        Ok(true) => {}
        Ok(false) => {
            // Certain either way: what was not committed is rolled back with its connection.
            return match client.batch_execute("ROLLBACK").await {
                Ok(()) => (Applied::NotOurs, Standing::Sound),
                Err(_lost) => (Applied::NotOurs, Standing::Broken),
            };
        }
        Err(error) => return roll_back(session, &error).await,
    }
    session.take_warned();
    let mut writes = std::pin::pin!(batch.write(session, topic));
    // Sent without waiting. What the driver itself refuses shows at once, and then there must be no COMMIT
    // behind it: the server would not know that a statement is missing.
    let (written, committed) = match poll!(writes.as_mut()) {
        Poll::Ready(Err(error)) => return roll_back(session, &error).await,
        Poll::Ready(Ok(())) => (Ok(()), client.batch_execute("COMMIT").await),
        Poll::Pending => join!(writes, client.batch_execute("COMMIT")),
    };
    ended(session, written, committed)
}

/// The progress rows, all in one go; whether each was still this task's.
async fn advance(
    session: &Session<Statements>,
    topic: i16,
    advances: &[Advance],
) -> Result<bool, tokio_postgres::Error> {
    let client = session.client();
    let mut sorted: Vec<&Advance> = advances.iter().collect();
    sorted.sort_by_key(|advance| advance.partition);
    let updates = join_all(sorted.iter().map(|advance| async {
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &topic,
            &advance.partition,
            &advance.fence,
            &advance.applied,
            &advance.next,
            &advance.published,
        ];
        client.execute(&session.prepared.advance, &parameters).await
    }));
    let (begun, updated) = join!(client.batch_execute("BEGIN"), updates);
    begun?;
    let mut ours = 0;
    for count in updated {
        ours += usize::from(count? == 1);
    }
    Ok(ours == advances.len())
}

/// After an error before COMMIT was sent.
async fn roll_back(
    session: &Session<Statements>,
    error: &tokio_postgres::Error,
) -> (Applied, Standing) {
    let ours = failed(APPLYING, error);
    let lost = error.code().is_some() && !session.survives(error) || session.client().is_closed();
    if lost || session.client().batch_execute("ROLLBACK").await.is_err() {
        return (Applied::Unknown(ours), Standing::Broken);
    }
    if is_second_writer(error) {
        return (Applied::Conflict, Standing::Sound);
    }
    (Applied::Again(ours), Standing::Sound)
}

/// After COMMIT was sent.
fn ended(
    session: &Session<Statements>,
    written: Result<(), tokio_postgres::Error>,
    committed: Result<(), tokio_postgres::Error>,
) -> (Applied, Standing) {
    let warned = session.take_warned();
    match (written, committed) {
        (Ok(()), Ok(())) if warned => {
            // The wait for a synchronous standby was cut short: it stands here and perhaps nowhere else.
            let error = Error::new(Kind::DatabaseError, APPLYING, SqlState::WARNING.code());
            (Applied::Unknown(error), Standing::Broken)
        }
        (Ok(()), Ok(())) => (Applied::Committed, Standing::Sound),
        // A statement failed, so this COMMIT was a rollback, and the server has answered it.
        (Err(error), Ok(())) if error.code().is_some() => {
            if is_second_writer(&error) {
                (Applied::Conflict, Standing::Sound)
            } else {
                (Applied::Again(failed(APPLYING, &error)), Standing::Sound)
            }
        }
        (Ok(()), Err(error)) if is_rolled_back(&error) && session.survives(&error) => {
            (Applied::Again(failed(APPLYING, &error)), Standing::Sound)
        }
        (_, Err(error)) | (Err(error), _) => {
            (Applied::Unknown(failed(APPLYING, &error)), Standing::Broken)
        }
    }
}

/// A revision or a decision is there already.
fn is_second_writer(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::UNIQUE_VIOLATION
            && matches!(error.table(), Some("revisions" | "decisions"))
    })
}

/// Codes that say of a COMMIT itself that it did not happen.
fn is_rolled_back(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| {
        [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(state)
    })
}

// ── the columns ────────────────────────────────────────────────────────────────────────────────────────────

/// An outcome as columns, sorted by key.
pub(super) struct Batch<'a> {
    revisions: Revisions<'a>,
    moved: (Vec<Uuid>, Vec<i32>, Vec<Vec<u8>>),
    buckets: Buckets<'a>,
    waiting: (Vec<Uuid>, Vec<&'a str>, Vec<Vec<u8>>),
    waited: (Vec<Uuid>, Vec<&'a str>),
    decisions: Decisions,
    outbox: Outbox,
}

#[derive(Default)]
struct Revisions<'a> {
    event_ids: Vec<Uuid>,
    measured_at: Vec<Option<i64>>,
    revisions: Vec<i32>,
    ops: Vec<i16>,
    places: Vec<Vec<u8>>,
    hashes: Vec<&'a [u8]>,
    users: Vec<&'a str>,
    device_types: Vec<&'a str>,
    events: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Buckets<'a> {
    event_ids: Vec<Uuid>,
    connections: Vec<Uuid>,
    days: Vec<i32>,
    sample_types: Vec<&'a str>,
    users: Vec<&'a str>,
    record_ids: Vec<&'a str>,
    vendors: Vec<&'a str>,
    device_types: Vec<&'a str>,
    revisions: Vec<i32>,
    samples: Vec<&'a [u8]>,
    versions: Vec<Option<Vec<u8>>>,
    stages: Vec<Option<Vec<u8>>>,
    told: Vec<Option<Vec<u8>>>,
}

#[derive(Default)]
struct Decisions {
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    source_topics: Vec<Option<i16>>,
    source_partitions: Vec<Option<i32>>,
    source_offsets: Vec<Option<i64>>,
    source_indexes: Vec<Option<i32>>,
    verdicts: Vec<&'static str>,
    event_ids: Vec<Option<Uuid>>,
    revisions: Vec<Option<i32>>,
    reasons: Vec<Option<&'static str>>,
}

#[derive(Default)]
struct Outbox {
    partitions: Vec<i32>,
    from: Vec<i64>,
    to: Vec<i64>,
    records: Vec<Vec<u8>>,
}

impl<'a> Batch<'a> {
    /// The columns of this outcome.
    pub(super) fn of(advances: &[Advance], outcome: &'a Outcome) -> Self {
        let mut moved = (Vec::new(), Vec::new(), Vec::new());
        for ((event, revision), place) in &outcome.moved {
            moved.0.push(event.0);
            moved.1.push(*revision);
            moved.2.push(place.encode().to_vec());
        }
        let mut waiting = (Vec::new(), Vec::new(), Vec::new());
        let mut waited = (Vec::new(), Vec::new());
        for ((connection, sample_type), ids) in &outcome.waiting {
            if ids.is_empty() {
                waited.0.push(connection.0);
                waited.1.push(sample_type.as_str());
            } else {
                waiting.0.push(connection.0);
                waiting.1.push(sample_type.as_str());
                waiting.2.push(encode_ids(ids));
            }
        }
        Self {
            revisions: Revisions::of(outcome),
            moved,
            buckets: Buckets::of(outcome),
            waiting,
            waited,
            decisions: Decisions::of(outcome),
            outbox: Outbox::of(advances, outcome),
        }
    }

    /// Every statement that has rows, sent in one go.
    async fn write(
        &self,
        session: &Session<Statements>,
        topic: i16,
    ) -> Result<(), tokio_postgres::Error> {
        let (client, prepared) = (session.client(), &session.prepared);
        let (r, b, d, o) = (&self.revisions, &self.buckets, &self.decisions, &self.outbox);
        let revisions: [&(dyn ToSql + Sync); 9] = [
            &r.event_ids,
            &r.measured_at,
            &r.revisions,
            &r.ops,
            &r.places,
            &r.hashes,
            &r.users,
            &r.device_types,
            &r.events,
        ];
        let moved: [&(dyn ToSql + Sync); 3] = [&self.moved.0, &self.moved.1, &self.moved.2];
        let buckets: [&(dyn ToSql + Sync); 13] = [
            &b.event_ids,
            &b.connections,
            &b.days,
            &b.sample_types,
            &b.users,
            &b.record_ids,
            &b.vendors,
            &b.device_types,
            &b.revisions,
            &b.samples,
            &b.versions,
            &b.stages,
            &b.told,
        ];
        let waiting: [&(dyn ToSql + Sync); 3] = [&self.waiting.0, &self.waiting.1, &self.waiting.2];
        let waited: [&(dyn ToSql + Sync); 2] = [&self.waited.0, &self.waited.1];
        let decisions: [&(dyn ToSql + Sync); 10] = [
            &d.partitions,
            &d.offsets,
            &d.source_topics,
            &d.source_partitions,
            &d.source_offsets,
            &d.source_indexes,
            &d.verdicts,
            &d.event_ids,
            &d.revisions,
            &d.reasons,
        ];
        let outbox: [&(dyn ToSql + Sync); 5] = [&topic, &o.partitions, &o.from, &o.to, &o.records];
        try_join!(
            put(client, &prepared.insert_revisions, r.event_ids.len(), &revisions),
            put(client, &prepared.move_places, self.moved.0.len(), &moved),
            put(client, &prepared.put_buckets, b.event_ids.len(), &buckets),
            put(client, &prepared.put_waiting, self.waiting.0.len(), &waiting),
            put(client, &prepared.end_waiting, self.waited.0.len(), &waited),
            put(client, &prepared.insert_decisions, d.partitions.len(), &decisions),
            put(client, &prepared.put_outbox, o.partitions.len(), &outbox),
        )?;
        Ok(())
    }
}

/// One statement, unless it has no rows.
async fn put(
    client: &Client,
    statement: &Statement,
    rows: usize,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<(), tokio_postgres::Error> {
    if rows > 0 {
        client.execute(statement, parameters).await?;
    }
    Ok(())
}

impl<'a> Revisions<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let mut sorted: Vec<_> = outcome.revisions.iter().collect();
        sorted.sort_by_key(|revision| (revision.event_id, revision.revision));
        let mut columns = Self::default();
        for revision in sorted {
            columns.event_ids.push(revision.event_id.0);
            columns.measured_at.push(revision.measured_at);
            columns.revisions.push(revision.revision);
            columns.ops.push(op_code(revision.op));
            columns.places.push(revision.place.encode().to_vec());
            columns.hashes.push(&revision.hash.0);
            columns.users.push(revision.user.as_str());
            columns.device_types.push(&revision.device_type);
            columns.events.push(&revision.event);
        }
        columns
    }
}

impl<'a> Buckets<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let mut columns = Self::default();
        for bucket in outcome.buckets.values() {
            columns.event_ids.push(bucket.event_id.0);
            columns.connections.push(bucket.sample_type.0.0);
            columns.days.push(bucket.day);
            columns.sample_types.push(&bucket.sample_type.1);
            columns.users.push(bucket.user.as_str());
            columns.record_ids.push(&bucket.record_id);
            columns.vendors.push(&bucket.vendor);
            columns.device_types.push(&bucket.device_type);
            columns.revisions.push(bucket.revision);
            columns.samples.push(bucket.samples.bytes());
            let (versions, stages) = (&bucket.versions, &bucket.stages);
            columns.versions.push((!versions.is_empty()).then(|| encode_versions(versions)));
            columns.stages.push((!stages.is_empty()).then(|| encode_stages(stages)));
            columns.told.push(bucket.told.map(encode_told));
        }
        columns
    }
}

impl Decisions {
    fn of(outcome: &Outcome) -> Self {
        let published = |one: &&Decision| matches!(one.verdict, Verdict::Published(..));
        let mut sorted: Vec<_> = outcome.decisions.iter().filter(|one| !published(one)).collect();
        sorted.sort_by_key(|decision| (decision.partition, decision.offset));
        let mut columns = Self::default();
        for decision in sorted {
            columns.push(decision);
        }
        columns
    }

    fn push(&mut self, decision: &Decision) {
        let (event, reason) = match &decision.verdict {
            Verdict::Published(event, revision)
            | Verdict::Duplicate(event, revision)
            | Verdict::Superseded(event, revision) => (Some((event.0, *revision)), None),
            Verdict::Ignored(reason) => (None, Some(*reason)),
            Verdict::Waiting => (None, None),
            Verdict::DeadLettered(kind) => (None, Some(kind.name())),
        };
        self.partitions.push(decision.partition);
        self.offsets.push(decision.offset);
        let mut source = Sources::default();
        decision.source.into_iter().for_each(|one| source.push(one));
        self.source_topics.push(source.topics.pop());
        self.source_partitions.push(source.partitions.pop());
        self.source_offsets.push(source.offsets.pop());
        self.source_indexes.push(source.indexes.pop());
        self.verdicts.push(decision.verdict.name());
        self.event_ids.push(event.map(|(id, _)| id));
        self.revisions.push(event.map(|(_, revision)| revision));
        self.reasons.push(reason);
    }
}

impl Outbox {
    /// One row a partition, also where nothing is to be sent: the batch before must not be taken for this one.
    fn of(advances: &[Advance], outcome: &Outcome) -> Self {
        let mut sorted: Vec<&Advance> = advances.iter().collect();
        sorted.sort_by_key(|advance| advance.partition);
        let mut columns = Self::default();
        for advance in sorted {
            let outputs = outcome.outbox.get(&advance.partition).into_iter().flatten();
            columns.partitions.push(advance.partition);
            columns.from.push(advance.applied);
            columns.to.push(advance.next);
            columns.records.push(outbox::encode(outputs));
        }
        columns
    }
}
