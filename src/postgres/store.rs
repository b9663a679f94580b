//! The truth of decide: implements [`Store`] by the protocol's rules 1.2 to 1.4, 1.6 and 1.7.
//!
//! | call | what it is to Postgres |
//! | --- | --- |
//! | `fence` | one transaction, one round trip; its row lock waits for a transaction in doubt, at most `statement_timeout` |
//! | `load` | one REPEATABLE READ transaction, all statements sent at once: one snapshot, one round trip |
//! | `apply` | one transaction, two round trips: the progress rows, whose count must be right, then all else with its COMMIT |
//!
//! A partition that was never seen starts with `applied = published = 0`: the first position of a log.
//! Inserts are plain: a revision that is there already has a second writer, and that must be heard (H11).
//! Rows of one statement are sorted by key, so that two writers cannot wait for each other in a ring.

use bytes::Bytes;
use futures_util::{join, try_join};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::apply::{APPLYING, Batch, Standing, apply};
use super::link::{Link, Prepare};
use super::pool::Settings;
use super::rows::{decode_ids, get, hash_of, op_of, place_of, topic_code, unreadable};
use super::samples::{self, BUCKETS, REMOVED};
use crate::error::{Error, Kind, Result};
use crate::model::contract::Topic;
use crate::model::event::{BiometricEvent, Op};
use crate::model::id::{ConnectionId, EventId};
use crate::model::outbox;
use crate::model::state::{Current, Hole, Known, Outcome, Plan, Shown};
use crate::stream::planted::Bug;
use crate::stream::{Advance, Applied, Fenced, Progress, Store};

/// Reads the bytes of a stored event, as the composition knows them (schemas are not this module's business).
pub type ReadEvent = Box<dyn Fn(&Bytes) -> Option<BiometricEvent> + Send>;

/// Decide's store on a connection of its own.
pub struct PostgresStore {
    link: Link<Statements>,
    read_event: ReadEvent,
}

impl PostgresStore {
    /// A store that connects when it is first asked. `name` is what the server's activity list shows.
    #[must_use]
    pub fn new(settings: Settings, name: &str, read_event: ReadEvent) -> Self {
        Self { link: Link::new(settings, name), read_event }
    }

    /// Connects and holds this slot's name for as long as this store lives, so that no second process runs
    /// under it: the two would fence each other for ever. A predecessor's lock is waited for, at most 10 s.
    ///
    /// # Errors
    /// [`Kind::InternalError`] where another process holds it, with the name; [`Kind::DatabaseError`].
    pub async fn lock_slot(&mut self, slot: &str) -> Result<()> {
        self.link.hold_slot(slot).await
    }
}

// ── statements ─────────────────────────────────────────────────────────────────────────────────────────────

/// What is prepared on each connection of a store.
pub(super) struct Statements {
    fence: Statement,
    outbox: Statement,
    progress: Statement,
    revisions: Statement,
    buckets: Statement,
    removed: Statement,
    waiting: Statement,
    pub(super) advance: Statement,
    pub(super) insert_revisions: Statement,
    pub(super) move_places: Statement,
    pub(super) put_buckets: Statement,
    pub(super) put_waiting: Statement,
    pub(super) end_waiting: Statement,
    pub(super) insert_decisions: Statement,
    pub(super) put_outbox: Statement,
    count_try: Statement,
    release: Statement,
    latest: Statement,
}

const FENCE: &str = "
    INSERT INTO stream_progress AS p (topic, partition, fence, applied, published, starts, tries)
    VALUES ($1, $2, gen_random_uuid(), 0, 0, 1, 0)
    ON CONFLICT (topic, partition)
    DO UPDATE SET fence = gen_random_uuid(), starts = p.starts + 1
    RETURNING fence, applied, published, starts";

const OUTBOX: &str =
    "SELECT from_offset, to_offset, records FROM outbox WHERE topic = $1 AND partition = $2";

const PROGRESS: &str = "
    SELECT partition, fence, applied FROM stream_progress
    WHERE topic = $1 AND partition = ANY ($2::int4[])";

const REVISIONS: &str = "
    SELECT r.event_id, r.revision, r.place, r.op, r.content_hash
    FROM unnest($1::uuid[]) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT * FROM revisions WHERE event_id = wanted.id ORDER BY revision DESC LIMIT 1
    ) AS r";

const WAITING: &str = "
    SELECT w.connection, w.sample_type, w.samples
    FROM unnest($1::uuid[], $2::text[]) AS wanted (connection, sample_type)
    JOIN waiting_removals AS w USING (connection, sample_type)";

const ADVANCE: &str = "
    UPDATE stream_progress SET applied = $5, published = $6, starts = 0, tries = 0
    WHERE topic = $1 AND partition = $2";
const ADVANCE_IF_MINE: &str = " AND fence = $3 AND applied = $4";
// The parameters stay, so that the planted bug is this line and no other.
const ADVANCE_ANYHOW: &str = " AND $3::uuid IS NOT NULL AND $4::int8 IS NOT NULL";

const INSERT_REVISIONS: &str = "
    INSERT INTO revisions (event_id, measured_at, revision, op, place, content_hash, user_id,
                           device_type, event)
    SELECT * FROM unnest($1::uuid[], $2::int8[], $3::int4[], $4::int2[], $5::bytea[], $6::bytea[],
                         $7::text[], $8::text[], $9::bytea[])";
const OVERLOOK: &str = " ON CONFLICT DO NOTHING";

const MOVE_PLACES: &str = "
    UPDATE revisions AS r SET place = moved.place
    FROM unnest($1::uuid[], $2::int4[], $3::bytea[]) AS moved (event_id, revision, place)
    WHERE r.event_id = moved.event_id AND r.revision = moved.revision";

const PUT_BUCKETS: &str = "
    INSERT INTO buckets (event_id, connection, day, sample_type, user_id, record_id, vendor,
                         device_type, revision, samples, versions, stages, told)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int4[], $4::text[], $5::text[], $6::text[],
                         $7::text[], $8::text[], $9::int4[], $10::bytea[], $11::bytea[],
                         $12::bytea[], $13::bytea[])
    ON CONFLICT (event_id) DO UPDATE
    SET revision = excluded.revision, samples = excluded.samples, versions = excluded.versions,
        stages = excluded.stages, told = excluded.told";

const PUT_WAITING: &str = "
    INSERT INTO waiting_removals (connection, sample_type, samples)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[])
    ON CONFLICT (connection, sample_type) DO UPDATE SET samples = excluded.samples";

const END_WAITING: &str = "
    DELETE FROM waiting_removals AS w
    USING unnest($1::uuid[], $2::text[]) AS ended (connection, sample_type)
    WHERE w.connection = ended.connection AND w.sample_type = ended.sample_type";

const INSERT_DECISIONS: &str = r#"
    INSERT INTO decisions (partition, "offset", source_topic, source_partition, source_offset,
                           source_index, verdict, event_id, revision, reason)
    SELECT * FROM unnest($1::int4[], $2::int8[], $3::int2[], $4::int4[], $5::int8[], $6::int4[],
                         $7::text[], $8::uuid[], $9::int4[], $10::text[])"#;

const PUT_OUTBOX: &str = "
    INSERT INTO outbox (topic, partition, from_offset, to_offset, records)
    SELECT $1, * FROM unnest($2::int4[], $3::int8[], $4::int8[], $5::bytea[])
    ON CONFLICT (topic, partition) DO UPDATE
    SET from_offset = excluded.from_offset, to_offset = excluded.to_offset,
        records = excluded.records";

const COUNT_TRY: &str = "
    UPDATE stream_progress SET tries = tries + 1
    WHERE topic = $1 AND partition = $2 AND fence = $3 AND applied = $4
    RETURNING tries";

const RELEASE: &str = "
    UPDATE stream_progress SET starts = 0, published = applied
    WHERE topic = $1 AND partition = $2 AND fence = $3 AND applied = $4";

// The latest that is there: of a user's events the one measured last whose last revision is not a tombstone.
const LATEST: &str = "
    SELECT r.event
    FROM unnest($1::text[], $2::text[]) AS hole (user_id, device_type)
    CROSS JOIN LATERAL (
        SELECT event FROM revisions AS r
        WHERE r.user_id = hole.user_id AND r.measured_at IS NOT NULL AND r.op = 1
          AND (hole.device_type IS NULL OR r.device_type = hole.device_type)
          AND NOT EXISTS (SELECT FROM revisions AS later
                          WHERE later.event_id = r.event_id AND later.revision > r.revision)
        ORDER BY r.measured_at DESC, r.revision DESC LIMIT 1
    ) AS r";

impl Prepare for Statements {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let compare = if Bug::NoFenceNoCompare.alive() { ADVANCE_ANYHOW } else { ADVANCE_IF_MINE };
        let advance = format!("{ADVANCE}{compare}");
        let overlook = if Bug::ConflictIgnored.alive() { OVERLOOK } else { "" };
        let insert_revisions = format!("{INSERT_REVISIONS}{overlook}");
        let prepare = |sql| client.prepare_typed(sql, &[]);
        // The shapes of these never change, so planning them anew could only cost; and no statement here is
        // ever better served by reading a whole table.
        client
            .batch_execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
            .await?;
        let (fence, outbox, progress, revisions, buckets, removed) = try_join!(
            prepare(FENCE),
            prepare(OUTBOX),
            prepare(PROGRESS),
            prepare(REVISIONS),
            prepare(BUCKETS),
            prepare(REMOVED),
        )?;
        let (waiting, advance, insert_revisions, move_places, put_buckets, put_waiting) = try_join!(
            prepare(WAITING),
            prepare(&advance),
            prepare(&insert_revisions),
            prepare(MOVE_PLACES),
            prepare(PUT_BUCKETS),
            prepare(PUT_WAITING),
        )?;
        let (end_waiting, insert_decisions, put_outbox, count_try, release, latest) = try_join!(
            prepare(END_WAITING),
            prepare(INSERT_DECISIONS),
            client.prepare_typed(PUT_OUTBOX, &[Type::INT2]),
            prepare(COUNT_TRY),
            prepare(RELEASE),
            prepare(LATEST),
        )?;
        Ok(Self {
            fence,
            outbox,
            progress,
            revisions,
            buckets,
            removed,
            waiting,
            advance,
            insert_revisions,
            move_places,
            put_buckets,
            put_waiting,
            end_waiting,
            insert_decisions,
            put_outbox,
            count_try,
            release,
            latest,
        })
    }
}

// ── the port ───────────────────────────────────────────────────────────────────────────────────────────────

impl Store for PostgresStore {
    async fn fence(&mut self, topic: Topic, partition: i32) -> Result<Fenced> {
        let code = topic_code(topic);
        let (fence, outbox) = self
            .link
            .ask("take the fence", async |session| {
                let (client, prepared) = (session.client(), &session.prepared);
                let key: [&(dyn ToSql + Sync); 2] = [&code, &partition];
                // Joined, not tried: COMMIT is sent in any case, and an error before it makes it a rollback.
                // The outbox is read by a statement of its own, after the lock was had: not an older one.
                let (begun, fence, outbox, ended) = join!(
                    client.batch_execute("BEGIN"),
                    client.query_one(&prepared.fence, &key),
                    client.query_opt(&prepared.outbox, &key),
                    client.batch_execute("COMMIT"),
                );
                begun?;
                let answer = (fence?, outbox?);
                ended?;
                Ok(answer)
            })
            .await?;
        let outbox = match outbox {
            None => None,
            Some(row) => {
                let records = Bytes::copy_from_slice(get(&row, 2)?);
                let outputs = outbox::decode(&records).ok_or_else(|| unreadable("records"))?;
                Some((get(&row, 0)?, get(&row, 1)?, outputs))
            }
        };
        Ok(Fenced {
            fence: get(&fence, 0)?,
            applied: get(&fence, 1)?,
            published: get(&fence, 2)?,
            starts: get(&fence, 3)?,
            outbox,
        })
    }

    async fn load(
        &mut self,
        topic: Topic,
        partitions: &[i32],
        plan: &Plan,
    ) -> Result<(Vec<Progress>, Known)> {
        let wanted = Wanted::of(plan);
        let code = topic_code(topic);
        let loaded = self
            .link
            .ask("load what is known", async |session| {
                let (client, prepared) = (session.client(), &session.prepared);
                let keys: [&(dyn ToSql + Sync); 2] = [&code, &partitions];
                let (events, buckets) = (&wanted.events, &wanted.buckets);
                let waiting: [&(dyn ToSql + Sync); 2] = [&wanted.waiting.0, &wanted.waiting.1];
                let (begun, progress, revisions, buckets, removed, waiting, ended) = join!(
                    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
                    client.query(&prepared.progress, &keys),
                    some(client, &prepared.revisions, events.len(), [events]),
                    some(client, &prepared.buckets, buckets.len(), [buckets]),
                    samples::removed(client, &prepared.removed, plan, &wanted.removed),
                    some(client, &prepared.waiting, wanted.waiting.0.len(), waiting),
                    client.batch_execute("COMMIT"),
                );
                begun?;
                let loaded = (progress?, revisions?, buckets?, removed?, waiting?);
                ended?;
                Ok(loaded)
            })
            .await?;
        let (progress, revisions, buckets, removed, waiting) = loaded;
        let progress = progress.iter().map(progress_of).collect::<Result<_>>()?;
        Ok((progress, known_of(&revisions, &buckets, &removed, &waiting)?))
    }

    async fn apply(&mut self, topic: Topic, advances: &[Advance], outcome: &Outcome) -> Applied {
        // Built before a transaction is open: nothing of ours may keep a row locked.
        let batch = Batch::of(advances, outcome);
        let session = match self.link.take().await {
            Ok(session) => session,
            Err(error) => return Applied::Again(error),
        };
        let limit = self.link.answer_timeout();
        let code = topic_code(topic);
        match tokio::time::timeout(limit, apply(&session, code, advances, &batch)).await {
            Ok((applied, Standing::Sound)) => {
                self.link.put(session);
                applied
            }
            // Not put back: its socket closes, and what it had open is rolled back.
            Ok((applied, Standing::Broken)) => applied,
            Err(_elapsed) => Applied::Unknown(Error::new(Kind::DatabaseError, APPLYING, "timeout")),
        }
    }

    async fn look(&mut self, topic: Topic, partitions: &[i32]) -> Result<Vec<Progress>> {
        let code = topic_code(topic);
        let rows = self
            .link
            .ask("look at progress", async |session| {
                session.client().query(&session.prepared.progress, &[&code, &partitions]).await
            })
            .await?;
        rows.iter().map(progress_of).collect()
    }

    async fn count_try(
        &mut self,
        topic: Topic,
        partition: i32,
        fence: Uuid,
        applied: i64,
    ) -> Result<Option<i32>> {
        let code = topic_code(topic);
        let row = self
            .link
            .ask("count a try", async |session| {
                let parameters: [&(dyn ToSql + Sync); 4] = [&code, &partition, &fence, &applied];
                session.client().query_opt(&session.prepared.count_try, &parameters).await
            })
            .await?;
        row.map(|row| get(&row, 0)).transpose()
    }

    async fn release(&mut self, topic: Topic, partition: i32, fence: Uuid, applied: i64) {
        // A courtesy to the next owner. Without a connection it is left out: the revoke must not wait for one.
        if !self.link.is_up() {
            return;
        }
        let code = topic_code(topic);
        let released = self
            .link
            .ask("release a partition", async |session| {
                let parameters: [&(dyn ToSql + Sync); 4] = [&code, &partition, &fence, &applied];
                session.client().execute(&session.prepared.release, &parameters).await
            })
            .await;
        if let Err(error) = released {
            tracing::warn!(partition, %error, "not released cleanly; the next owner finds out");
        }
    }

    async fn latest(&mut self, holes: &[Hole]) -> Result<Vec<Shown>> {
        let users: Vec<&str> = holes.iter().map(|hole| hole.user.as_str()).collect();
        let makers: Vec<Option<&str>> =
            holes.iter().map(|hole| hole.device_type.as_deref()).collect();
        let rows = self
            .link
            .ask("find the latest", async |session| {
                session.client().query(&session.prepared.latest, &[&users, &makers]).await
            })
            .await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in &rows {
            let bytes = Bytes::copy_from_slice(get(row, 0)?);
            let event = (self.read_event)(&bytes).ok_or_else(|| unreadable("event"))?;
            shown.extend(Shown::of(&event).filter(|shown| shown.op == Op::Upsert));
        }
        Ok(shown)
    }

    fn reconnected(&mut self) -> bool {
        self.link.lost()
    }
}

// ── load ───────────────────────────────────────────────────────────────────────────────────────────────────

/// A plan as columns.
struct Wanted<'a> {
    events: Vec<Uuid>,
    buckets: Vec<Uuid>,
    removed: (Vec<Uuid>, Vec<&'a str>),
    waiting: (Vec<Uuid>, Vec<&'a str>),
}

impl<'a> Wanted<'a> {
    fn of(plan: &'a Plan) -> Self {
        let types = plan.waiting.iter();
        Self {
            events: plan.events.iter().map(|id| id.0).collect(),
            buckets: plan.buckets.iter().map(|id| id.0).collect(),
            removed: samples::types_of(plan),
            waiting: types.map(|(connection, name)| (connection.0, name.as_str())).unzip(),
        }
    }
}

/// The rows of a statement; nothing is asked where nothing is wanted.
async fn some<const N: usize>(
    client: &Client,
    statement: &Statement,
    wanted: usize,
    parameters: [&(dyn ToSql + Sync); N],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    if wanted == 0 {
        return Ok(Vec::new());
    }
    client.query(statement, &parameters).await
}

fn progress_of(row: &Row) -> Result<Progress> {
    Ok(Progress { partition: get(row, 0)?, fence: get(row, 1)?, applied: get(row, 2)? })
}

fn known_of(revisions: &[Row], buckets: &[Row], removed: &[Row], waiting: &[Row]) -> Result<Known> {
    let mut known = Known::default();
    for row in revisions {
        let current = Current {
            revision: get(row, 1)?,
            place: place_of(get(row, 2)?)?,
            op: op_of(get(row, 3)?)?,
            hash: hash_of(get(row, 4)?)?,
        };
        known.revisions.insert(EventId(get(row, 0)?), current);
    }
    for row in buckets.iter().chain(removed) {
        let bucket = samples::bucket_of(row)?;
        known.buckets.insert(bucket.event_id, bucket);
    }
    for row in waiting {
        let sample_type = (ConnectionId(get(row, 0)?), get(row, 1)?);
        known.waiting.insert(sample_type, decode_ids(get(row, 2)?)?);
    }
    Ok(known)
}
