//! Buckets out of their rows, and which of them a batch is told of.
//!
//! A removed sample can be in any bucket of its type, and a connection of three years has a thousand of them. Looking for
//! each id in SQL would cost ids × buckets, so every row of the type comes, one at a time, is searched here in
//! its sorted bytes, and is let go: what stays in memory are the buckets that hold one and the few around them.

use std::collections::VecDeque;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::rows::{get, told_of, unreadable, user_of};
use crate::error::Result;
use crate::model::id::{ConnectionId, EventId};
use crate::model::sample::{self, Samples, decode_stages, decode_versions};
use crate::model::state::{AROUND_DAYS, Bucket, Plan};

/// Buckets by id.
pub(super) const BUCKETS: &str = "
    SELECT event_id, connection, day, sample_type, user_id, record_id, vendor, device_type, revision,
           samples, versions, stages, told
    FROM buckets WHERE event_id = ANY ($1::uuid[])";

/// Every bucket of the types, each connection's newest first.
pub(super) const REMOVED: &str = "
    SELECT b.event_id, b.connection, b.day, b.sample_type, b.user_id, b.record_id, b.vendor,
           b.device_type, b.revision, b.samples, b.versions, b.stages, b.told
    FROM unnest($1::uuid[], $2::text[]) AS wanted (connection, sample_type)
    JOIN buckets AS b USING (connection, sample_type)
    ORDER BY b.connection, b.day DESC";

/// The bucket of a row of either.
pub(super) fn bucket_of(row: &Row) -> Result<Bucket> {
    let versions: Option<&[u8]> = get(row, 10)?;
    let stages: Option<&[u8]> = get(row, 11)?;
    let told: Option<&[u8]> = get(row, 12)?;
    let samples = Samples::of_bytes(get::<&[u8]>(row, 9)?.to_vec());
    let versions = versions.map_or_else(|| Some(sample::Versions::new()), decode_versions);
    let stages = stages.map_or_else(|| Some(sample::Stages::new()), decode_stages);
    Ok(Bucket {
        event_id: EventId(get(row, 0)?),
        sample_type: (ConnectionId(get(row, 1)?), get(row, 3)?),
        day: get(row, 2)?,
        user: user_of(get(row, 4)?)?,
        record_id: get(row, 5)?,
        vendor: get(row, 6)?,
        device_type: get(row, 7)?,
        revision: get(row, 8)?,
        samples: samples.ok_or_else(|| unreadable("samples"))?,
        versions: versions.ok_or_else(|| unreadable("versions"))?,
        stages: stages.ok_or_else(|| unreadable("stages"))?,
        told: told.map(told_of).transpose()?,
    })
}

/// The types whose buckets are gone through, as columns.
pub(super) fn types_of(plan: &Plan) -> (Vec<Uuid>, Vec<&str>) {
    if plan.removed.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let others = plan.around.iter().filter(|one| !plan.removed.contains_key(one));
    let types = plan.removed.keys().chain(others);
    types.map(|(connection, name)| (connection.0, name.as_str())).unzip()
}

/// The rows that hold a removed sample, and those around them that the plan wants.
pub(super) async fn removed(
    client: &Client,
    statement: &Statement,
    plan: &Plan,
    types: &(Vec<Uuid>, Vec<&str>),
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let mut window = Window::default();
    if types.0.is_empty() {
        return Ok(window.found);
    }
    let parameters: [&(dyn ToSql + Sync); 2] = [&types.0, &types.1];
    let mut rows = std::pin::pin!(client.query_raw(statement, parameters).await?);
    while let Some(row) = rows.try_next().await? {
        window.take(plan, row)?;
    }
    Ok(window.found)
}

/// What was found so far of rows that come each connection's newest first.
#[derive(Default)]
struct Window {
    found: Vec<Row>,
    /// Connection and day of the last row that holds a removed sample.
    holder: Option<(Uuid, i32)>,
    /// Rows of the last days that are wanted if a holder follows.
    before: VecDeque<(Uuid, i32, Row)>,
}

impl Window {
    fn take(&mut self, plan: &Plan, row: Row) -> Result<(), tokio_postgres::Error> {
        let (connection, day): (Uuid, i32) = (row.try_get(1)?, row.try_get(2)?);
        let sample_type = (ConnectionId(connection), row.try_get(3)?);
        let samples: &[u8] = row.try_get(9)?;
        let is_near = |(of, other): (Uuid, i32)| of == connection && other.abs_diff(day) <= DAYS;
        let far = self.before.iter().take_while(|(of, other, _)| !is_near((*of, *other))).count();
        self.before.drain(..far);
        let ids = plan.removed.get(&sample_type);
        if ids.is_some_and(|ids| sample::any_in(samples, ids)) {
            self.found.extend(self.before.drain(..).map(|(_, _, row)| row));
            self.found.push(row);
            self.holder = Some((connection, day));
        } else if plan.around.contains(&sample_type) {
            if self.holder.is_some_and(is_near) {
                self.found.push(row);
            } else {
                self.before.push_back((connection, day, row));
            }
        }
        Ok(())
    }
}

const DAYS: u32 = AROUND_DAYS.unsigned_abs();
