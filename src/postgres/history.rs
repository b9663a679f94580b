//! What is to be asked for that no notification named, and how far that has come: implements [`Histories`] for the
//! queue, whose rows all of it is.
//!
//! Each call is one statement, and each may be made twice, by two processes at once: a gap is opened by the update of its
//! row, which one of them makes, and a day that is polled is due or not by its own row.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::queue::{PostgresQueue, us};
use super::rows::{get, topic_code};
use crate::error::Result;
use crate::model::contract::Topic;
use crate::model::id::ConnectionId;
use crate::model::time::Micros;
use crate::stream::hydration::{Gap, Histories, Polled, Window};

/// How far the history of a collection has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The connection.
    pub connection: ConnectionId,
    /// The type of its windows.
    pub record_type: String,
    /// All windows.
    pub all: i64,
    /// Those whose records are in the log.
    pub done: i64,
    /// Those that were given up.
    pub given_up: i64,
    /// The first day of those that are done, as text.
    pub reached: Option<String>,
    /// The first day of all of them, as text.
    pub begins: String,
}

const GAPS: &str = "
    SELECT g.connection, g.from_at, g.to_at FROM gaps AS g
    WHERE g.vendor = $1 AND g.opened_at IS NULL AND EXISTS (
        SELECT FROM connections AS c WHERE c.id = g.connection AND c.valid_to IS NULL)
      AND (g.to_at <= (extract(epoch FROM clock_timestamp()) * 1000000)::int8 - $3::int8
           OR EXISTS (SELECT FROM tokens AS t WHERE t.connection = g.connection)
           OR NOT EXISTS (
               SELECT FROM connections AS c
               JOIN connections AS o ON o.vendor = c.vendor AND o.user_id = c.user_id
               WHERE c.id = g.connection AND c.valid_to IS NULL
                 AND o.id <> c.id AND o.valid_to IS NULL))
    ORDER BY g.to_at LIMIT $2";

// Nobody of the log asked for these: their coordinates are none.
const OPEN: &str = "
    WITH clock AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us
    ), opened AS (
        UPDATE gaps AS g SET opened_at = clock.us FROM clock
        WHERE g.connection = $2 AND g.to_at = $3 AND g.opened_at IS NULL
        RETURNING g.connection, clock.us
    )
    INSERT INTO hydrations AS h (vendor, connection, record_type, record_id, source_topic,
                                 source_partition, source_offset, source_index, asked_at, priority,
                                 origin, state)
    SELECT $1, o.connection, w.record_type, w.record_id, $7, -1, -1, -1, o.us, w.priority,
           'backfill', 'waiting'
    FROM opened AS o,
         unnest($4::text[], $5::text[], $6::int2[]) AS w (record_type, record_id, priority)
    ON CONFLICT (vendor, connection, record_type, record_id) DO UPDATE
    SET state = 'waiting', asked_at = excluded.asked_at, priority = excluded.priority,
        not_before = 0, attempts = 0, failures = 0, reason = NULL
    WHERE h.state <> 'waiting'";

const POLL: &str = "
    WITH clock AS MATERIALIZED (
        SELECT us, (to_timestamp(us / 1000000) AT TIME ZONE 'UTC')::date AS today
        FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us) AS now
    ), people AS (
        SELECT DISTINCT t.connection FROM tokens AS t JOIN connections AS c ON c.id = t.connection
        WHERE t.vendor = $1 AND c.vendor = $1 AND c.valid_to IS NULL
          AND t.state <> 'reauth_required'
          AND NOT EXISTS (SELECT FROM paused AS p WHERE p.connection = t.connection)
    ), days AS (
        SELECT p.connection, to_char(series.at, 'YYYY-MM-DD') AS day
        FROM people AS p CROSS JOIN clock LEFT JOIN LATERAL (
            SELECT h.record_id::date AS day, h.state FROM hydrations AS h
            WHERE h.vendor = $1 AND h.connection = p.connection AND h.record_type = $2
            ORDER BY h.record_id DESC LIMIT 1
        ) AS last ON true CROSS JOIN LATERAL generate_series(
            greatest(clock.today - $4::int4,
                     least(clock.today - $3::int4, coalesce(last.day, clock.today))),
            clock.today, interval '1 day') AS series (at)
        WHERE last.state IS DISTINCT FROM 'given_up'
    )
    INSERT INTO hydrations AS h (vendor, connection, record_type, record_id, source_topic,
                                 source_partition, source_offset, source_index, asked_at, state,
                                 not_before)
    SELECT $1, d.connection, $2, d.day, $6, -1, -1, -1, clock.us, 'waiting', clock.us
    FROM days AS d, clock
    ON CONFLICT (vendor, connection, record_type, record_id) DO UPDATE
    SET state = 'waiting', asked_at = excluded.asked_at, not_before = excluded.not_before,
        attempts = 0, failures = 0, reason = NULL
    WHERE h.state = 'done' AND h.asked_at <= excluded.asked_at - $5::int8
    RETURNING 1";

const NOTE: &str = "
    INSERT INTO gaps (connection, vendor, from_at, to_at)
    VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000000)::int8)
    ON CONFLICT DO NOTHING";

const PROGRESS: &str = "
    SELECT connection, record_type, count(*), count(*) FILTER (WHERE state = 'done'),
           count(*) FILTER (WHERE state = 'given_up'),
           split_part(min(record_id) FILTER (WHERE state = 'done'), '/', 1),
           split_part(min(record_id), '/', 1)
    FROM hydrations
    WHERE vendor = $1 AND connection = $2 AND priority > 0
    GROUP BY connection, record_type ORDER BY record_type";

impl PostgresQueue {
    /// Notes that a connection's history is to be asked for: since this moment, or from ever.
    ///
    /// # Errors
    /// As every call.
    pub async fn note_gap(
        &self,
        vendor: &str,
        connection: ConnectionId,
        from: Option<Micros>,
    ) -> Result<()> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&connection.0, &vendor, &from];
        self.ask("note a gap", NOTE, &parameters).await.map(drop)
    }

    /// How far a connection's history has come, by collection.
    ///
    /// # Errors
    /// As every call.
    pub async fn progress(&self, vendor: &str, connection: ConnectionId) -> Result<Vec<Progress>> {
        let parameters: [&(dyn ToSql + Sync); 2] = [&vendor, &connection.0];
        let rows = self.ask("see how far history has come", PROGRESS, &parameters).await?;
        let progress = |row: &tokio_postgres::Row| {
            Ok(Progress {
                connection: ConnectionId(get(row, 0)?),
                record_type: get(row, 1)?,
                all: get(row, 2)?,
                done: get(row, 3)?,
                given_up: get(row, 4)?,
                reached: get(row, 5)?,
                begins: get(row, 6)?,
            })
        };
        rows.iter().map(progress).collect()
    }
}

impl Histories for PostgresQueue {
    async fn gaps(&self, vendor: &str, at_most: usize, settles: Duration) -> Result<Vec<Gap>> {
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        let rows = self.ask("find gaps", GAPS, &[&vendor, &at_most, &us(settles)]).await?;
        let gap = |row: &tokio_postgres::Row| {
            let connection = ConnectionId(get(row, 0)?);
            Ok(Gap { connection, from: get(row, 1)?, to: get(row, 2)? })
        };
        rows.iter().map(gap).collect()
    }

    async fn open(&self, vendor: &str, gap: &Gap, windows: &[Window]) -> Result<()> {
        let types: Vec<&str> = windows.iter().map(|window| window.record_type).collect();
        let ids: Vec<&str> = windows.iter().map(|window| window.record_id.as_str()).collect();
        let priorities: Vec<i16> = windows.iter().map(|window| window.priority).collect();
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &vendor,
            &gap.connection.0,
            &gap.to,
            &types,
            &ids,
            &priorities,
            &topic_code(Topic::RawDocuments),
        ];
        self.ask("open a gap", OPEN, &parameters).await.map(drop)
    }

    async fn poll(&self, vendor: &str, polled: &Polled) -> Result<u64> {
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &vendor,
            &polled.record_type,
            &polled.late_days,
            &polled.back_days,
            &us(polled.every),
            &topic_code(Topic::RawDocuments),
        ];
        let rows = self.ask("poll", POLL, &parameters).await?;
        Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
    }
}
