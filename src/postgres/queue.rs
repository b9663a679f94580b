//! The hydrator's queue: implements [`Queue`].
//!
//! Every call is one statement, so it stands or does not. Moments are this server's own: `clock_timestamp()` is read
//! where a row is held, so what is due and what a quota allows is the same for all replicas.
//!
//! # A claim
//! `FOR UPDATE SKIP LOCKED` gives no two workers one row, and `leased_until` keeps it theirs when the statement is over.
//! The lease's end is also the claim's name: who comes later than it changes nothing. A claim ends with the row as it is
//! *then*: the row names who asked last, and where that is another one by now, the row waits as it was asked, due at once.
//!
//! # A quota
//! The rows of a call's buckets are locked in one order, judged, and all counted or none. A statement that waited for a
//! lock is given the row as it is after the wait, so no two ever see the same last call.

use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::Pool;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::pool::{Settings, ask, client, on, pool};
use super::rows::{get, source_at, topic_code, unreadable};
use crate::error::Result;
use crate::model::event::Origin;
use crate::model::id::ConnectionId;
use crate::model::state::HydrationKey;
use crate::model::time::Micros;
use crate::stream::clock::Stopwatch;
use crate::stream::hydration::{Bucket, Claimed, Depth, Fate, HISTORY, Queue, Taken, Work};

/// The queue, over a pool of its own.
#[derive(Clone)]
pub struct PostgresQueue {
    pool: Pool,
    limit: Duration,
}

/// What a connection's records wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The connection.
    pub connection: ConnectionId,
    /// `live`, `limited` or `reauth_required`, with `, paused` where it is; absent where it has no tokens.
    pub tokens: Option<String>,
    /// Records that wait for their fetch.
    pub waiting: i64,
    /// Records that were given up.
    pub given_up: i64,
}

impl PostgresQueue {
    /// A queue that connects when it is first asked.
    ///
    /// # Errors
    /// [`crate::error::Kind::InternalError`] where the settings are wrong.
    pub fn new(settings: &Settings) -> Result<Self> {
        Ok(Self { pool: pool(settings)?, limit: settings.answer_timeout() })
    }

    /// How every connection stands that has tokens, or records to be fetched.
    ///
    /// # Errors
    /// As every call.
    pub async fn standings(&self) -> Result<Vec<Standing>> {
        let rows = self.ask("see what waits", STANDINGS, &[]).await?;
        let standing = |row: &Row| {
            Ok(Standing {
                connection: ConnectionId(get(row, 0)?),
                tokens: get(row, 1)?,
                waiting: get(row, 2)?,
                given_up: get(row, 3)?,
            })
        };
        rows.iter().map(standing).collect()
    }

    /// Has what was given up fetched again: a vendor's, or one connection's; where reasons are named, only what was
    /// given up for one of them. Gives how many records.
    ///
    /// # Errors
    /// As every call.
    pub async fn retry(
        &self,
        vendor: &str,
        connection: Option<ConnectionId>,
        reasons: &[&str],
    ) -> Result<u64> {
        let connection = connection.map(|connection| connection.0);
        let parameters: [&(dyn ToSql + Sync); 3] = [&vendor, &connection, &reasons];
        let rows = self.ask("fetch again", RETRY, &parameters).await?;
        Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
    }

    pub(super) async fn ask(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        ask(&self.pool, self.limit, doing, sql, parameters).await
    }
}

const CLAIM: &str = "
    WITH clock AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us
    ), due AS MATERIALIZED (
        SELECT h.vendor, h.connection, h.record_type, h.record_id
        FROM hydrations AS h, clock
        WHERE h.vendor = $1 AND h.state = 'waiting'
          AND h.priority BETWEEN $4 AND $5
          AND h.not_before <= clock.us AND h.leased_until <= clock.us
          AND NOT EXISTS (SELECT FROM paused AS p WHERE p.connection = h.connection)
        ORDER BY h.priority, h.not_before LIMIT $2
        FOR UPDATE OF h SKIP LOCKED
    ), claimed AS (
        UPDATE hydrations AS h SET leased_until = clock.us + $3::int8, updated_at = clock.us
        FROM due, clock
        WHERE (h.vendor, h.connection, h.record_type, h.record_id)
            = (due.vendor, due.connection, due.record_type, due.record_id)
        RETURNING h.*, clock.us
    )
    SELECT h.vendor, h.connection, h.record_type, h.record_id, h.source_topic, h.source_partition,
           h.source_offset, h.source_index, h.asked_at, h.origin, h.attempts, h.failures,
           h.leased_until,
           (SELECT c.vendor_user FROM connections AS c
            WHERE c.id = h.connection AND c.vendor = h.vendor
              AND (c.valid_to IS NULL OR c.valid_to > h.us)
            ORDER BY c.valid_from DESC LIMIT 1),
           h.reason
    FROM claimed AS h ORDER BY h.priority, h.not_before";

const END: &str = "
    WITH clock AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us
    ), claimed AS MATERIALIZED (
        SELECT h.state = 'waiting'
               AND (h.source_topic, h.source_partition, h.source_offset, h.source_index, h.asked_at)
                 = ($5, $6, $7, $8, $9) AS stands
        FROM hydrations AS h
        WHERE (h.vendor, h.connection, h.record_type, h.record_id) = ($1, $2, $3, $4)
          AND h.leased_until = $10
        FOR UPDATE
    )
    UPDATE hydrations AS h
    SET leased_until = 0, updated_at = clock.us,
        state = CASE WHEN claimed.stands THEN $11::text ELSE h.state END,
        not_before = CASE WHEN claimed.stands THEN coalesce(clock.us + $12::int8, h.not_before)
                          ELSE h.not_before END,
        attempts = CASE WHEN claimed.stands THEN coalesce($13::int4, h.attempts)
                        ELSE h.attempts END,
        failures = CASE WHEN claimed.stands THEN coalesce($14::int4, h.failures)
                        ELSE h.failures END,
        reason = CASE WHEN claimed.stands THEN $15::text ELSE h.reason END
    FROM claimed, clock
    WHERE (h.vendor, h.connection, h.record_type, h.record_id) = ($1, $2, $3, $4)
    RETURNING claimed.stands";

const DIVIDE: &str = "
    WITH divided AS (
        DELETE FROM hydrations
        WHERE (vendor, connection, record_type, record_id) = ($1, $2, $3, $4)
          AND leased_until = $5 AND state = 'waiting'
        RETURNING *
    )
    INSERT INTO hydrations (vendor, connection, record_type, record_id, source_topic,
                            source_partition, source_offset, source_index, asked_at, priority,
                            origin, state)
    SELECT d.vendor, d.connection, d.record_type, part, d.source_topic, d.source_partition,
           d.source_offset, d.source_index, d.asked_at, d.priority, d.origin, d.state
    FROM divided AS d, unnest($6::text[]) AS part
    ON CONFLICT DO NOTHING";

const BUCKETS: &str = "
    INSERT INTO quotas (vendor, subject, window_s)
    SELECT $1::text, * FROM unnest($2::uuid[], $3::int4[])
    ON CONFLICT DO NOTHING";

const TAKE: &str = "
    WITH wanted AS (
        SELECT * FROM unnest($2::uuid[], $3::int4[], $4::int4[], $5::int8[], $6::int8[])
            AS w (subject, window_s, calls, slot_us, counted)
    ), locked AS MATERIALIZED (
        SELECT q.subject, q.window_s, q.slots, q.counts, w.calls, w.slot_us, w.counted
        FROM quotas AS q JOIN wanted AS w ON (q.subject, q.window_s) = (w.subject, w.window_s)
        WHERE q.vendor = $1
        ORDER BY q.subject, q.window_s
        FOR UPDATE OF q
    ), seen AS MATERIALIZED (
        SELECT l.*, (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us FROM locked AS l
    ), judged AS MATERIALIZED (
        SELECT s.subject, s.window_s, s.us / s.slot_us AS slot, kept.slots, kept.counts,
               CASE WHEN kept.calls < s.calls THEN 0
                    ELSE (kept.first + s.counted) * s.slot_us - s.us END AS wait
        FROM seen AS s CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(u.slot ORDER BY u.slot), '{}') AS slots,
                   coalesce(array_agg(u.calls ORDER BY u.slot), '{}') AS counts,
                   coalesce(sum(u.calls), 0) AS calls, min(u.slot) AS first
            FROM unnest(s.slots, s.counts) AS u (slot, calls)
            WHERE u.slot > s.us / s.slot_us - s.counted
        ) AS kept
    ), held AS MATERIALIZED (
        SELECT q.subject,
               q.held_until - (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS wait
        FROM quotas AS q
        WHERE q.vendor = $1 AND q.subject IN ($7, $9) AND q.window_s = 0
    ), waits AS MATERIALIZED (
        SELECT subject, wait FROM judged UNION ALL SELECT subject, wait FROM held
    ), verdict AS MATERIALIZED (
        SELECT (SELECT count(*) FROM judged) AS found,
               greatest((SELECT max(wait) FROM waits WHERE subject = $7), 0) AS app,
               greatest((SELECT max(wait) FROM waits WHERE subject NOT IN ($7, $10)), 0) AS user_,
               greatest((SELECT max(wait) FROM waits WHERE subject = $10), 0) AS history
    ), counted AS (
        UPDATE quotas AS q
        SET slots = CASE WHEN j.slots[cardinality(j.slots)] >= j.slot THEN j.slots
                         ELSE j.slots || j.slot END,
            counts = CASE WHEN j.slots[cardinality(j.slots)] >= j.slot
                          THEN j.counts[:cardinality(j.counts) - 1]
                               || (j.counts[cardinality(j.counts)] + 1)
                          ELSE j.counts || 1 END
        FROM judged AS j, verdict AS v
        WHERE q.vendor = $1 AND (q.subject, q.window_s) = (j.subject, j.window_s)
          AND v.found = $8 AND v.app = 0 AND v.user_ = 0
          AND v.history = 0
    )
    SELECT found, app, user_, history,
           coalesce((SELECT min(us) FROM seen)
                    - (extract(epoch FROM statement_timestamp()) * 1000000)::int8, 0)
    FROM verdict";

// Window 0 has no calls: it keeps the vendor's own word.
const HOLD: &str = "
    INSERT INTO quotas AS q (vendor, subject, window_s, held_until)
    VALUES ($1::text, $2::uuid, 0, (extract(epoch FROM clock_timestamp()) * 1000000)::int8 + $3::int8)
    ON CONFLICT (vendor, subject, window_s) DO UPDATE
    SET held_until = greatest(q.held_until, excluded.held_until)";

const DEPTHS: &str = "
    SELECT vendor, count(*) FILTER (WHERE priority = 0 AND not_before <= clock.us),
           count(*) FILTER (WHERE priority = 0 AND not_before > clock.us),
           count(*) FILTER (WHERE priority > 0)
    FROM hydrations,
         (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us) AS clock
    WHERE state = 'waiting' GROUP BY vendor";

const TOLD: &str = "
    SELECT r.event FROM revisions AS r
    WHERE r.user_id IN (SELECT user_id FROM connections WHERE id = $1)
      AND r.measured_at BETWEEN $2 AND $3 AND r.op = 1
      AND NOT EXISTS (SELECT FROM revisions AS later
                      WHERE later.event_id = r.event_id AND later.revision > r.revision)
    ORDER BY r.measured_at DESC LIMIT $4";

const STANDINGS: &str = "
    SELECT coalesce(h.connection, t.connection),
           CASE WHEN EXISTS (SELECT FROM paused AS p WHERE p.connection = t.connection)
                THEN t.state || ', paused' ELSE t.state END,
           coalesce(h.waiting, 0), coalesce(h.given_up, 0)
    FROM (SELECT connection, count(*) FILTER (WHERE state = 'waiting') AS waiting,
                 count(*) FILTER (WHERE state = 'given_up') AS given_up
          FROM hydrations GROUP BY connection) AS h
    FULL JOIN tokens AS t ON t.connection = h.connection";

const RETRY: &str = "
    UPDATE hydrations SET state = 'waiting', attempts = 0, failures = 0, not_before = 0, reason = NULL
    WHERE vendor = $1 AND state = 'given_up' AND ($2::uuid IS NULL OR connection = $2)
      AND (cardinality($3::text[]) = 0 OR reason = ANY ($3::text[]))
    RETURNING 1";

/// What stands for the whole app among subjects.
const APP: Uuid = Uuid::nil();

impl Queue for PostgresQueue {
    async fn claim(
        &self,
        vendor: &str,
        work: Work,
        at_most: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>> {
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        let (first, last): (i16, i16) = match work {
            Work::News => (0, 0),
            Work::History => (1, i16::MAX),
        };
        let parameters: [&(dyn ToSql + Sync); 5] = [&vendor, &at_most, &us(lease), &first, &last];
        let rows = self.ask("claim records to fetch", CLAIM, &parameters).await?;
        rows.iter().map(claimed_of).collect()
    }

    async fn end(&self, claimed: &Claimed, fate: Fate) -> Result<bool> {
        let (key, at) = (&claimed.key, claimed.source);
        let counted = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let (state, after, attempts, failures, reason) = match fate {
            Fate::Done => ("done", None, None, None, None),
            Fate::Nothing => ("done", None, None, None, Some("the vendor has none")),
            Fate::Untried => ("waiting", None, None, None, None),
            Fate::Later { after, attempts, failures, reason } => (
                "waiting",
                Some(us(after)),
                Some(counted(attempts)),
                Some(counted(failures)),
                Some(reason),
            ),
            Fate::GivenUp { reason } => ("given_up", None, None, None, Some(reason)),
        };
        let parameters: [&(dyn ToSql + Sync); 15] = [
            &key.vendor,
            &key.connection.0,
            &key.record_type,
            &key.record_id,
            &topic_code(at.topic),
            &at.partition,
            &at.offset,
            &at.index,
            &claimed.asked_at,
            &claimed.lease,
            &state,
            &after,
            &attempts,
            &failures,
            &reason,
        ];
        let rows = self.ask("end a claim", END, &parameters).await?;
        rows.first().map_or(Ok(false), |row| get(row, 0))
    }

    async fn divide(&self, claimed: &Claimed, parts: &[String; 2]) -> Result<()> {
        let (key, parts) = (&claimed.key, parts.as_slice());
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &key.vendor,
            &key.connection.0,
            &key.record_type,
            &key.record_id,
            &claimed.lease,
            &parts,
        ];
        self.ask("divide a window", DIVIDE, &parameters).await.map(drop)
    }

    async fn take(
        &self,
        vendor: &str,
        connection: ConnectionId,
        buckets: &[Bucket],
    ) -> Result<Taken> {
        let columns = Columns::of(buckets);
        let wanted = i64::try_from(buckets.len()).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 10] = [
            &vendor,
            &columns.subjects,
            &columns.windows,
            &columns.calls,
            &columns.slots_us,
            &columns.counted,
            &APP,
            &wanted,
            &connection.0,
            &HISTORY.0,
        ];
        // The second time the rows are there.
        for _ in 0..2 {
            let doing = "take from a quota";
            let client = client(&self.pool, doing).await?;
            let sent = Stopwatch::start();
            let rows = on(client, self.limit, doing, TAKE, &parameters).await?;
            let row = rows.first().ok_or_else(|| unreadable("quotas"))?;
            if get::<i64>(row, 0)? == wanted {
                let (app, user) = (span(get(row, 1)?), span(get(row, 2)?));
                let history = span(get(row, 3)?);
                if [app, user, history].iter().any(|wait| !wait.is_zero()) {
                    return Ok(Taken::Wait { app, user, history });
                }
                // What the statement waited for others' locks was before it counted.
                let ago = sent.elapsed().saturating_sub(span(get(row, 4)?));
                return Ok(Taken::Granted { ago });
            }
            let parameters: [&(dyn ToSql + Sync); 3] =
                [&vendor, &columns.subjects, &columns.windows];
            self.ask("make a quota's rows", BUCKETS, &parameters).await?;
        }
        Err(unreadable("quotas"))
    }

    async fn hold(
        &self,
        vendor: &str,
        connection: Option<ConnectionId>,
        time: Duration,
    ) -> Result<()> {
        let subject = connection.map_or(APP, |connection| connection.0);
        let parameters: [&(dyn ToSql + Sync); 3] = [&vendor, &subject, &us(time)];
        self.ask("hold a vendor's calls", HOLD, &parameters).await.map(|_none| ())
    }

    async fn told(
        &self,
        connection: ConnectionId,
        (from, to): (Micros, Micros),
        at_most: usize,
    ) -> Result<Vec<Bytes>> {
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 4] = [&connection.0, &from, &to, &at_most];
        let rows = self.ask("see what was told", TOLD, &parameters).await?;
        rows.iter().map(|row| Ok(Bytes::from(get::<Vec<u8>>(row, 0)?))).collect()
    }

    async fn depths(&self) -> Result<Vec<Depth>> {
        let rows = self.ask("count records to fetch", DEPTHS, &[]).await?;
        rows.iter()
            .map(|row| {
                let (due, later, history) = (get(row, 1)?, get(row, 2)?, get(row, 3)?);
                Ok(Depth { vendor: get(row, 0)?, due, later, history })
            })
            .collect()
    }
}

/// Buckets as columns, for `UNNEST`.
#[derive(Default)]
struct Columns {
    subjects: Vec<Uuid>,
    windows: Vec<i32>,
    calls: Vec<i32>,
    slots_us: Vec<i64>,
    counted: Vec<i64>,
}

impl Columns {
    fn of(buckets: &[Bucket]) -> Self {
        let mut columns = Self::default();
        for bucket in buckets {
            columns.subjects.push(bucket.subject.map_or(APP, |connection| connection.0));
            columns.windows.push(bucket.window_s);
            columns.calls.push(bucket.calls);
            columns.slots_us.push(bucket.slot_us);
            columns.counted.push(bucket.slots);
        }
        columns
    }
}

/// A span in µs, as the columns have it.
pub(super) fn us(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 2)
}

/// The span of so many µs.
fn span(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// A claim of fifteen columns.
fn claimed_of(row: &Row) -> Result<Claimed> {
    let count = |at| get::<i32>(row, at).map(|count| u32::try_from(count).unwrap_or(0));
    Ok(Claimed {
        key: HydrationKey {
            vendor: get(row, 0)?,
            connection: ConnectionId(get(row, 1)?),
            record_type: get(row, 2)?,
            record_id: get(row, 3)?,
        },
        source: source_at(row, 4)?,
        asked_at: get(row, 8)?,
        origin: Origin::parse(get(row, 9)?).ok_or_else(|| unreadable("origin"))?,
        attempts: count(10)?,
        failures: count(11)?,
        lease: get(row, 12)?,
        vendor_user: get(row, 13)?,
        reason: get(row, 14)?,
    })
}
