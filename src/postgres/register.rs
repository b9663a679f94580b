//! Normalise's notebook: implements [`Register`].
//!
//! A batch's notes are one statement, so they stand or do not, and need no transaction around them. All of it can
//! be written twice, and by an old and a new owner of a partition at once: what was there stays, ends only move
//! towards the earlier, and of two who ask for one record the later is named.

use std::collections::BTreeMap;

use futures_util::try_join;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::link::{Link, Prepare};
use super::pool::Settings;
use super::rows::{Sources, get, source_at, user_of};
use crate::error::Result;
use crate::model::connection::{Connection, Gap, SETTLES_US};
use crate::model::id::{ConnectionId, Source};
use crate::model::state::{Held, HydrationKey, Notes, Whose};
use crate::stream::Register;

/// Normalise's register on a connection of its own.
pub struct PostgresRegister {
    link: Link<Statements>,
    renaming: Vec<&'static str>,
}

impl PostgresRegister {
    /// A register that connects when it is first asked. `name` is what the server's activity list shows.
    #[must_use]
    pub fn new(settings: Settings, name: &str) -> Self {
        Self { link: Link::new(settings, name), renaming: Vec::new() }
    }

    /// The same, which finds out what is not settled of these vendors' connections ([`Connection::settled`]).
    #[must_use]
    pub fn of_renaming(self, renaming: Vec<&'static str>) -> Self {
        Self { renaming, ..self }
    }

    /// Every connection there is, by vendor, vendor user and beginning; for people.
    ///
    /// # Errors
    /// [`crate::error::Kind::DatabaseError`].
    pub async fn all_connections(&mut self) -> Result<Vec<Connection>> {
        let rows = self
            .link
            .ask("read connections", async |session| {
                session.client().query(&session.prepared.all_connections, &[]).await
            })
            .await?;
        rows.iter().map(connection_of).collect()
    }
}

struct Statements {
    connections: Statement,
    all_connections: Statement,
    note: Statement,
    connected: Statement,
    put_through: Statement,
}

/// Whether a connection `c` of the vendors in `$1` began beside another one of its person, not longer than `$2` µs ago.
macro_rules! begins_beside {
    () => {
        "c.vendor = ANY ($1::text[]) AND c.valid_to IS NULL
         AND EXISTS (
             SELECT FROM gaps AS g WHERE g.connection = c.id
             AND g.to_at > (extract(epoch FROM clock_timestamp()) * 1000000)::int8 - $2::int8)
         AND EXISTS (
             SELECT FROM connections AS o WHERE o.vendor = c.vendor AND o.user_id = c.user_id
             AND o.id <> c.id AND o.valid_to IS NULL)"
    };
}

const CONNECTIONS: &str = concat!(
    "
    SELECT c.vendor, c.vendor_user, c.valid_from, c.valid_to, c.id, c.user_id, NOT (",
    begins_beside!(),
    ")
    FROM (
        SELECT c.* FROM unnest($3::text[], $4::text[]) AS wanted (vendor, vendor_user)
        JOIN connections AS c USING (vendor, vendor_user)
        UNION ALL
        SELECT c.* FROM unnest($5::text[], $6::text[]) AS wanted (vendor, user_id)
        JOIN connections AS c USING (vendor, user_id)
    ) AS c
    ORDER BY c.vendor, c.vendor_user, c.valid_from"
);

const ALL_CONNECTIONS: &str = "
    SELECT vendor, vendor_user, valid_from, valid_to, id, user_id, true FROM connections
    ORDER BY vendor, vendor_user, valid_from";

// What is asked for is due since then: due since ever, it would go before all that is tried again, as long as more comes.
// `least` passes over nulls: an end that is known is never forgotten, and the earlier of two ends counts.
const NOTE: &str = r#"
    WITH new_connections AS (
        INSERT INTO connections AS c (vendor, vendor_user, valid_from, valid_to, id, user_id)
        SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::uuid[], $6::text[])
        ON CONFLICT (vendor, vendor_user, valid_from) DO UPDATE
        SET valid_to = least(c.valid_to, excluded.valid_to)
        WHERE c.id = excluded.id
          AND c.valid_to IS DISTINCT FROM least(c.valid_to, excluded.valid_to)
    ), new_gaps AS (
        INSERT INTO gaps (vendor, connection, from_at, to_at)
        SELECT * FROM unnest($30::text[], $31::uuid[], $32::int8[], $33::int8[])
        ON CONFLICT DO NOTHING
    ), new_hydrations AS (
        INSERT INTO hydrations AS h (vendor, connection, record_type, record_id, source_topic,
                                     source_partition, source_offset, source_index, asked_at, state,
                                     not_before)
        SELECT asked.*, least(asked.at, (extract(epoch FROM clock_timestamp()) * 1000000)::int8)
        FROM unnest($7::text[], $8::uuid[], $9::text[], $10::text[], $11::int2[], $12::int4[],
                    $13::int8[], $14::int4[], $15::int8[], $16::text[])
             AS asked (vendor, connection, type, id, topic, partition, "offset", index, at, state)
        ON CONFLICT (vendor, connection, record_type, record_id) DO UPDATE
        SET source_topic = excluded.source_topic, source_partition = excluded.source_partition,
            source_offset = excluded.source_offset, source_index = excluded.source_index,
            asked_at = excluded.asked_at, state = excluded.state,
            not_before = excluded.not_before, attempts = 0, failures = 0, reason = NULL,
            priority = 0, origin = 'live'
        WHERE (excluded.asked_at, excluded.source_topic, excluded.source_partition,
               excluded.source_offset, excluded.source_index)
            > (h.asked_at, h.source_topic, h.source_partition, h.source_offset, h.source_index)
    ), new_held AS (
        INSERT INTO held (topic, partition, "offset", index, vendor, vendor_user, received_at)
        SELECT * FROM unnest($17::int2[], $18::int4[], $19::int8[], $20::int4[], $21::text[],
                             $22::text[], $23::int8[])
        ON CONFLICT DO NOTHING
    )
    INSERT INTO verdicts AS v (topic, partition, "offset", index, verdict, reason)
    SELECT * FROM unnest($24::int2[], $25::int4[], $26::int8[], $27::int4[], $28::text[],
                         $29::text[])
    ON CONFLICT (topic, partition, "offset", index) DO UPDATE
    SET verdict = excluded.verdict, reason = excluded.reason
    WHERE (v.verdict, v.reason) IS DISTINCT FROM (excluded.verdict, excluded.reason)"#;

// Any row will do: where none held when the item was received, normalise says that it is ignored, and why.
const CONNECTED: &str = concat!(
    r#"
    SELECT h.topic, h.partition, h."offset", h.index, h.vendor, h.vendor_user, h.received_at
    FROM held AS h
    WHERE EXISTS (SELECT FROM connections AS c
                  WHERE c.vendor = h.vendor AND c.vendor_user = h.vendor_user)
      AND NOT EXISTS (SELECT FROM connections AS c
                      WHERE c.vendor = h.vendor AND c.vendor_user = h.vendor_user AND "#,
    begins_beside!(),
    r#")
    ORDER BY h.received_at, h.topic, h.partition, h."offset", h.index LIMIT $3"#
);

const PUT_THROUGH: &str = r#"
    DELETE FROM held AS h
    USING unnest($1::int2[], $2::int4[], $3::int8[], $4::int4[])
        AS done (topic, partition, "offset", index)
    WHERE (h.topic, h.partition, h."offset", h.index)
        = (done.topic, done.partition, done."offset", done.index)"#;

impl Prepare for Statements {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let (connections, all_connections, note, connected, put_through) = try_join!(
            client.prepare(CONNECTIONS),
            client.prepare(ALL_CONNECTIONS),
            client.prepare(NOTE),
            client.prepare(CONNECTED),
            client.prepare(PUT_THROUGH),
        )?;
        Ok(Self { connections, all_connections, note, connected, put_through })
    }
}

impl Register for PostgresRegister {
    async fn connections(&mut self, named: &Whose) -> Result<Vec<Connection>> {
        let users = named.vendor_users.iter();
        let (vendors, names): (Vec<&str>, Vec<&str>) =
            users.map(|(vendor, name)| (vendor.as_str(), name.as_str())).unzip();
        let people = named.people.iter();
        let (of, people): (Vec<&str>, Vec<&str>) =
            people.map(|(vendor, user)| (vendor.as_str(), user.as_str())).unzip();
        let renaming = &self.renaming;
        let parameters: [&(dyn ToSql + Sync); 6] =
            [renaming, &SETTLES_US, &vendors, &names, &of, &people];
        let rows = self
            .link
            .ask("read connections", async |session| {
                session.client().query(&session.prepared.connections, &parameters).await
            })
            .await?;
        let rows: Result<Vec<Connection>> = rows.iter().map(connection_of).collect();
        let mut rows = rows?;
        // Who is named by both is there twice.
        rows.dedup();
        Ok(rows)
    }

    async fn note(&mut self, notes: &Notes) -> Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        let connections = Connections::of(notes);
        let hydrations = Hydrations::of(notes);
        let held = HeldItems::of(&notes.held);
        let verdicts = Verdicts::of(notes);
        let gaps = Gaps::of(&notes.gaps);
        let (c, h, w, v, g) = (&connections, &hydrations, &held, &verdicts, &gaps);
        let parameters: [&(dyn ToSql + Sync); 33] = [
            &c.vendors,
            &c.vendor_users,
            &c.valid_from,
            &c.valid_to,
            &c.ids,
            &c.users,
            &h.vendors,
            &h.connections,
            &h.record_types,
            &h.record_ids,
            &h.sources.topics,
            &h.sources.partitions,
            &h.sources.offsets,
            &h.sources.indexes,
            &h.asked_at,
            &h.states,
            &w.sources.topics,
            &w.sources.partitions,
            &w.sources.offsets,
            &w.sources.indexes,
            &w.vendors,
            &w.vendor_users,
            &w.received_at,
            &v.sources.topics,
            &v.sources.partitions,
            &v.sources.offsets,
            &v.sources.indexes,
            &v.verdicts,
            &v.reasons,
            &g.vendors,
            &g.connections,
            &g.from,
            &g.to,
        ];
        self.link
            .ask("write notes", async |session| {
                session.client().execute(&session.prepared.note, &parameters).await
            })
            .await
            .map(|_rows| ())
    }

    async fn connected(&mut self, at_most: usize) -> Result<Vec<Held>> {
        let limit = i64::try_from(at_most).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.renaming, &SETTLES_US, &limit];
        let rows = self
            .link
            .ask("find held items that are connected", async |session| {
                session.client().query(&session.prepared.connected, &parameters).await
            })
            .await?;
        rows.iter().map(held_of).collect()
    }

    async fn put_through(&mut self, held: &[Held]) -> Result<()> {
        let items = HeldItems::of(held);
        let at = &items.sources;
        self.link
            .ask("end held items", async |session| {
                let parameters: [&(dyn ToSql + Sync); 4] =
                    [&at.topics, &at.partitions, &at.offsets, &at.indexes];
                session.client().execute(&session.prepared.put_through, &parameters).await
            })
            .await
            .map(|_rows| ())
    }
}

/// A connection of seven columns.
fn connection_of(row: &Row) -> Result<Connection> {
    Ok(Connection {
        vendor: get(row, 0)?,
        vendor_user: get(row, 1)?,
        valid_from: get(row, 2)?,
        valid_to: get(row, 3)?,
        id: ConnectionId(get(row, 4)?),
        user: user_of(get(row, 5)?)?,
        settled: get(row, 6)?,
    })
}

/// A held item of seven columns.
pub(super) fn held_of(row: &Row) -> Result<Held> {
    Ok(Held {
        source: source_at(row, 0)?,
        vendor: get(row, 4)?,
        vendor_user: get(row, 5)?,
        received_at: get(row, 6)?,
    })
}

// ── columns: sorted by key, and each key once, as one statement must have them ─────────────────────────────

#[derive(Default)]
struct Connections<'a> {
    vendors: Vec<&'a str>,
    vendor_users: Vec<&'a str>,
    valid_from: Vec<i64>,
    valid_to: Vec<Option<i64>>,
    ids: Vec<Uuid>,
    users: Vec<&'a str>,
}

impl<'a> Connections<'a> {
    fn of(notes: &'a Notes) -> Self {
        let mut rows: BTreeMap<(&str, &str, i64), &Connection> = BTreeMap::new();
        for row in &notes.connections {
            let key = (row.vendor.as_str(), row.vendor_user.as_str(), row.valid_from);
            let kept = rows.entry(key).or_insert(row);
            // One that ended where it began never held; of two of one beginning the other one counts.
            if kept.valid_to == Some(kept.valid_from) {
                *kept = row;
            }
        }
        let mut columns = Self::default();
        for row in rows.into_values() {
            columns.vendors.push(&row.vendor);
            columns.vendor_users.push(&row.vendor_user);
            columns.valid_from.push(row.valid_from);
            columns.valid_to.push(row.valid_to);
            columns.ids.push(row.id.0);
            columns.users.push(row.user.as_str());
        }
        columns
    }
}

#[derive(Default)]
struct Gaps<'a> {
    vendors: Vec<&'a str>,
    connections: Vec<Uuid>,
    from: Vec<Option<i64>>,
    to: Vec<i64>,
}

impl<'a> Gaps<'a> {
    /// Their key is whose they are and their end, which is when what made them was received: twice is once.
    fn of(gaps: &'a [Gap]) -> Self {
        let rows: BTreeMap<_, &Gap> =
            gaps.iter().map(|gap| ((gap.connection.0, gap.to), gap)).collect();
        let mut columns = Self::default();
        for gap in rows.into_values() {
            columns.vendors.push(&gap.vendor);
            columns.connections.push(gap.connection.0);
            columns.from.push(gap.from);
            columns.to.push(gap.to);
        }
        columns
    }
}

/// Waits for its fetch.
const WAITING: &str = "waiting";
/// Its record was deleted: no fetch.
const ENDED: &str = "ended";

#[derive(Default)]
struct Hydrations<'a> {
    vendors: Vec<&'a str>,
    connections: Vec<Uuid>,
    record_types: Vec<&'a str>,
    record_ids: Vec<&'a str>,
    sources: Sources,
    asked_at: Vec<i64>,
    states: Vec<&'static str>,
}

impl<'a> Hydrations<'a> {
    /// Asking and ending are one kind of change, and the latest by receipt and source counts. An end without a
    /// row makes one, so that an older request that is read again later finds it.
    fn of(notes: &'a Notes) -> Self {
        let asked = notes.hydrations.iter();
        let asked = asked.map(|one| (&one.key, (one.asked_at, one.source), WAITING));
        let ended = notes.ended.iter();
        let ended = ended.map(|one| (&one.key, (one.asked_at, one.source), ENDED));
        let mut latest: BTreeMap<&HydrationKey, ((i64, Source), &str)> = BTreeMap::new();
        for (key, at, state) in asked.chain(ended) {
            let kept = latest.entry(key).or_insert((at, state));
            if at > kept.0 {
                *kept = (at, state);
            }
        }
        let mut columns = Self::default();
        for (key, ((asked_at, source), state)) in latest {
            columns.vendors.push(&key.vendor);
            columns.connections.push(key.connection.0);
            columns.record_types.push(&key.record_type);
            columns.record_ids.push(&key.record_id);
            columns.sources.push(source);
            columns.asked_at.push(asked_at);
            columns.states.push(state);
        }
        columns
    }
}

#[derive(Default)]
struct HeldItems<'a> {
    sources: Sources,
    vendors: Vec<&'a str>,
    vendor_users: Vec<&'a str>,
    received_at: Vec<i64>,
}

impl<'a> HeldItems<'a> {
    fn of(held: &'a [Held]) -> Self {
        let items: BTreeMap<Source, &Held> = held.iter().map(|one| (one.source, one)).collect();
        let mut columns = Self::default();
        for (source, item) in items {
            columns.sources.push(source);
            columns.vendors.push(&item.vendor);
            columns.vendor_users.push(&item.vendor_user);
            columns.received_at.push(item.received_at);
        }
        columns
    }
}

#[derive(Default)]
struct Verdicts {
    sources: Sources,
    verdicts: Vec<&'static str>,
    reasons: Vec<&'static str>,
}

impl Verdicts {
    fn of(notes: &Notes) -> Self {
        let latest: BTreeMap<Source, _> =
            notes.verdicts.iter().map(|one| (one.source, (one.verdict, one.reason))).collect();
        let mut columns = Self::default();
        for (source, (verdict, reason)) in latest {
            columns.sources.push(source);
            columns.verdicts.push(verdict);
            columns.reasons.push(reason);
        }
        columns
    }
}
