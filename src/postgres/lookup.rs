//! The read side: every row, for `audit` and for people, and a digest of the current content.
//!
//! A [`Snapshot`] is one moment of the database (REPEATABLE READ, read only) on a connection of the pool. It reads
//! in pages by key, each page after the last key of the one before, so that a table of any size passes through
//! a bounded amount of memory, and vacuum is held back only while somebody looks.

use deadpool_postgres::{Object, Pool};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::pool::failed;
use super::register::held_of;
use super::rows::{
    get, hash_of, op_of, place_of, source_at, told_of, topic_code, topic_of, unreadable, user_of,
};
use crate::error::{Error, Kind, Result};
use crate::model::contract::Topic;
use crate::model::event::Op;
use crate::model::id::{ConnectionId, EventId, Sha256, Source};
use crate::model::sample::{Samples, Versions, decode_versions};
use crate::model::state::{Held, HydrationKey, Revision};

/// A verdict of decide that was not "published", as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDecision {
    /// Partition of `normalised-records`.
    pub partition: i32,
    /// Offset there.
    pub offset: i64,
    /// The raw record's item; absent where the value could not be read.
    pub source: Option<Source>,
    /// A name of [`crate::model::state::Verdict`].
    pub verdict: String,
    /// Of which it is a duplicate, or by which it is superseded.
    pub event: Option<(EventId, i32)>,
    /// Why it was ignored, or the kind of its dead letter.
    pub reason: Option<String>,
}

/// A verdict of normalise, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVerdict {
    /// The item.
    pub source: Source,
    /// `ignored` or `dead_lettered`.
    pub verdict: String,
    /// Why.
    pub reason: String,
}

/// A fetch that is wanted or over, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHydration {
    /// The record.
    pub key: HydrationKey,
    /// Who asked last.
    pub source: Source,
    /// When that was received, µs.
    pub asked_at: i64,
    /// `waiting` or `ended`.
    pub state: String,
}

/// A partition's progress, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredProgress {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: i32,
    /// The first offset that Postgres does not have.
    pub applied: i64,
    /// What was known to be in the output topics when that was written.
    pub published: i64,
}

/// One moment of the database.
pub struct Snapshot {
    client: Object,
}

/// The most rows of a page.
const PAGE_ROWS: i64 = 1_000;
/// The same where a row has a value of up to megabytes.
const LARGE_PAGE_ROWS: i64 = 100;
/// Somebody who reads a page may take this long over it, ms.
const PAGE_IDLE_MS: u64 = 120_000;

impl Snapshot {
    /// The database as it is now. Dropped, it is over; the pool rolls it back.
    ///
    /// # Errors
    /// [`Kind::DatabaseError`].
    pub async fn open(pool: &Pool) -> Result<Self> {
        const DOING: &str = "open a snapshot";
        // The pool's own error is a place, a time-out or the driver's error; the last alone has a code.
        let client = pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => failed(DOING, &error),
            deadpool_postgres::PoolError::Timeout(_) => {
                Error::new(Kind::DatabaseError, DOING, "timeout")
            }
            _ => Error::new(Kind::DatabaseError, DOING, "pool"),
        })?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
             SET LOCAL idle_in_transaction_session_timeout = {PAGE_IDLE_MS}"
        );
        client.batch_execute(&begin).await.map_err(|error| failed(DOING, &error))?;
        Ok(Self { client })
    }

    async fn page(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        const DOING: &str = "read rows";
        let statement =
            self.client.prepare_cached(sql).await.map_err(|error| failed(DOING, &error))?;
        self.client.query(&statement, parameters).await.map_err(|error| failed(DOING, &error))
    }

    /// Where every partition stands.
    ///
    /// # Errors
    /// [`Kind::DatabaseError`].
    pub async fn progress(&self) -> Result<Vec<StoredProgress>> {
        let sql = "SELECT topic, partition, applied, published FROM stream_progress \
                   ORDER BY topic, partition";
        let rows = self.page(sql, &[]).await?;
        let read = |row: &Row| {
            Ok(StoredProgress {
                topic: topic_of(get(row, 0)?)?,
                partition: get(row, 1)?,
                applied: get(row, 2)?,
                published: get(row, 3)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The next revisions after this one, by event and number, with the bytes that were sent.
    ///
    /// # Errors
    /// [`Kind::DatabaseError`].
    pub async fn revisions(&self, after: Option<(EventId, i32)>) -> Result<Vec<Revision>> {
        let (event, number) = after.map_or((Uuid::nil(), -1), |(id, number)| (id.0, number));
        let sql = "SELECT event_id, revision, place, op, content_hash, user_id, device_type, \
                          measured_at, event
                   FROM revisions WHERE (event_id, revision) > ($1, $2)
                   ORDER BY event_id, revision LIMIT $3";
        let rows = self.page(sql, &[&event, &number, &LARGE_PAGE_ROWS]).await?;
        rows.iter().map(revision_of).collect()
    }

    /// The next decisions after these coordinates, by partition and offset.
    ///
    /// # Errors
    /// [`Kind::DatabaseError`].
    pub async fn decisions(&self, after: Option<(i32, i64)>) -> Result<Vec<StoredDecision>> {
        let (partition, offset) = after.unwrap_or((-1, -1));
        let sql = r#"SELECT partition, "offset", source_topic, source_partition, source_offset,
                            source_index, verdict, event_id, revision, reason
                     FROM decisions WHERE (partition, "offset") > ($1, $2)
                     ORDER BY partition, "offset" LIMIT $3"#;
        let rows = self.page(sql, &[&partition, &offset, &PAGE_ROWS]).await?;
        rows.iter().map(decision_of).collect()
    }

    /// The next verdicts of normalise after this source.
    ///
    /// # Errors
    /// [`Kind::DatabaseError`].
    pub async fn verdicts(&self, after: Option<Source>) -> Result<Vec<StoredVerdict>> {
        let sql = r#"SELECT topic, partition, "offset", index, verdict, reason
                     FROM verdicts WHERE (topic, partition, "offset", index) > ($1, $2, $3, $4)
                     ORDER BY topic, partition, "offset", index LIMIT $5"#;
        let rows = self.page_after(sql, after).await?;
        let read = |row: &Row| {
            Ok(StoredVerdict {
                source: source_at(row, 0)?,
                verdict: get(row, 4)?,
                reason: get(row, 5)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The next held items after this source.
    ///
    /// # Errors
    /// [`Kind::DatabaseError`].
    pub async fn held(&self, after: Option<Source>) -> Result<Vec<Held>> {
        let sql = r#"SELECT topic, partition, "offset", index, vendor, vendor_user, received_at
                     FROM held WHERE (topic, partition, "offset", index) > ($1, $2, $3, $4)
                     ORDER BY topic, partition, "offset", index LIMIT $5"#;
        let rows = self.page_after(sql, after).await?;
        rows.iter().map(held_of).collect()
    }

    async fn page_after(&self, sql: &str, after: Option<Source>) -> Result<Vec<Row>> {
        let (topic, partition, offset, index) = after.map_or((-1, -1, -1, -1), |at| {
            (topic_code(at.topic), at.partition, at.offset, at.index)
        });
        self.page(sql, &[&topic, &partition, &offset, &index, &PAGE_ROWS]).await
    }

    /// The next fetches after this record.
    ///
    /// # Errors
    /// [`Kind::DatabaseError`].
    pub async fn hydrations(&self, after: Option<&HydrationKey>) -> Result<Vec<StoredHydration>> {
        let (vendor, connection, kind, id) = after.map_or(("", Uuid::nil(), "", ""), |key| {
            (&key.vendor, key.connection.0, &key.record_type, &key.record_id)
        });
        let sql = "SELECT vendor, connection, record_type, record_id, source_topic, \
                          source_partition, source_offset, source_index, asked_at, state
                   FROM hydrations
                   WHERE (vendor, connection, record_type, record_id) > ($1, $2, $3, $4)
                   ORDER BY vendor, connection, record_type, record_id LIMIT $5";
        let rows = self.page(sql, &[&vendor, &connection, &kind, &id, &PAGE_ROWS]).await?;
        rows.iter().map(hydration_of).collect()
    }

    /// SHA-256 over the current content: what two databases have in common that were made of the same input in
    /// another order. That is, per record that is there, its id and what its latest revision says; per record
    /// that is gone, that it is; per bucket, the samples that are there (a union's revisions say only what each
    /// added); per session of sleep that is there, what it says, and nothing of one that is not: whether there ever
    /// was one depends on arrival. So do revision numbers, which are no part of it.
    ///
    /// # Errors
    /// [`Kind::DatabaseError`].
    pub async fn digest(&self) -> Result<String> {
        let mut digest = Sha256::default();
        self.digest_records(&mut digest).await?;
        self.digest_buckets(&mut digest).await?;
        Ok(digest.hex())
    }

    async fn digest_records(&self, digest: &mut Sha256) -> Result<()> {
        let sql = "SELECT DISTINCT ON (event_id) event_id, op, content_hash
                   FROM revisions AS r
                   WHERE event_id > $1
                     AND NOT EXISTS (SELECT FROM buckets AS b WHERE b.event_id = r.event_id)
                   ORDER BY event_id, revision DESC LIMIT $2";
        let mut last = Uuid::nil();
        loop {
            let rows = self.page(sql, &[&last, &PAGE_ROWS]).await?;
            for row in &rows {
                last = get(row, 0)?;
                digest.update(last.as_bytes());
                match op_of(get(row, 1)?)? {
                    Op::Upsert => {
                        digest.update(b"+");
                        digest.update(&hash_of(get(row, 2)?)?.0);
                    }
                    Op::Delete => digest.update(b"-"),
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }

    async fn digest_buckets(&self, digest: &mut Sha256) -> Result<()> {
        let sql = "SELECT event_id, samples, versions, told FROM buckets WHERE event_id > $1 \
                   ORDER BY event_id LIMIT $2";
        let mut last = Uuid::nil();
        loop {
            let rows = self.page(sql, &[&last, &LARGE_PAGE_ROWS]).await?;
            for row in &rows {
                last = get(row, 0)?;
                digest_bucket(row, digest)?;
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }
}

/// A bucket of which nothing is left says the same as none at all, and so does a session.
fn digest_bucket(row: &Row, digest: &mut Sha256) -> Result<()> {
    let id: Uuid = get(row, 0)?;
    let samples = Samples::of_bytes(get::<&[u8]>(row, 1)?.to_vec());
    let samples = samples.ok_or_else(|| unreadable("samples"))?;
    let versions: Option<&[u8]> = get(row, 2)?;
    let versions = versions.map_or_else(|| Some(Versions::new()), decode_versions);
    let versions = versions.ok_or_else(|| unreadable("versions"))?;
    let told: Option<&[u8]> = get(row, 3)?;
    if let Some((Op::Upsert, hash)) = told.map(told_of).transpose()? {
        digest.update(id.as_bytes());
        digest.update(b"+");
        digest.update(&hash.0);
    }
    let mut live = samples.iter().filter(|(_, gone)| !gone).peekable();
    if live.peek().is_none() {
        return Ok(());
    }
    digest.update(id.as_bytes());
    digest.update(b"=");
    for (sample, _) in live {
        digest.update(sample.as_bytes());
        // What an id of a device's own says never changes; what a derived one says is what was received last.
        if let Some(version) = versions.get(&sample) {
            digest.update(&version.hash.0);
        }
    }
    digest.update(b".");
    Ok(())
}

fn revision_of(row: &Row) -> Result<Revision> {
    Ok(Revision {
        event_id: EventId(get(row, 0)?),
        revision: get(row, 1)?,
        place: place_of(get(row, 2)?)?,
        op: op_of(get(row, 3)?)?,
        hash: hash_of(get(row, 4)?)?,
        user: user_of(get(row, 5)?)?,
        device_type: get(row, 6)?,
        measured_at: get(row, 7)?,
        event: get::<Vec<u8>>(row, 8)?.into(),
    })
}

fn decision_of(row: &Row) -> Result<StoredDecision> {
    let sourced: Option<i16> = get(row, 2)?;
    let event: Option<Uuid> = get(row, 7)?;
    let revision: Option<i32> = get(row, 8)?;
    Ok(StoredDecision {
        partition: get(row, 0)?,
        offset: get(row, 1)?,
        source: sourced.map(|_topic| source_at(row, 2)).transpose()?,
        verdict: get(row, 6)?,
        event: event.map(EventId).zip(revision),
        reason: get(row, 9)?,
    })
}

fn hydration_of(row: &Row) -> Result<StoredHydration> {
    Ok(StoredHydration {
        key: HydrationKey {
            vendor: get(row, 0)?,
            connection: ConnectionId(get(row, 1)?),
            record_type: get(row, 2)?,
            record_id: get(row, 3)?,
        },
        source: source_at(row, 4)?,
        asked_at: get(row, 8)?,
        state: get(row, 9)?,
    })
}
