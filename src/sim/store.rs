//! Postgres, as far as the protocol can see it: rows, row locks, a transaction in doubt, a failover.
//!
//! A transaction whose COMMIT nobody answered holds its row locks until the driver settles it, and whoever wants
//! such a row waits (`Database::blocks`). A failover goes back to an earlier commit and takes with it what was
//! in doubt; clients come to the new primary with their next call and learn of it only then.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use super::faults::{Call, Grant};
use super::{Asked, Client, Port, SimClock, World, refused};
use crate::error::{Kind, Result};
use crate::model::connection::{Connection, Gap, SETTLES_US};
use crate::model::contract::Topic;
use crate::model::event::Op;
use crate::model::id::{EventId, Source};
use crate::model::outbox;
use crate::model::state::{
    AROUND_DAYS, Bucket, Current, Decision, Held, Hole, Hydration, HydrationKey, Known, Notes,
    Outcome, Plan, RawVerdict, Revision, SampleType, Shown, Whose,
};
use crate::model::time::Micros;
use crate::stream::planted::Bug;
use crate::stream::{Advance, Applied, Clock as _, Fenced, Progress, Register, Store};

/// How many commits a failover can take back at most.
const HISTORY: usize = 16;

/// A row of `stream_progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) fence: Uuid,
    pub(super) applied: i64,
    pub(super) published: i64,
    pub(super) starts: i32,
    pub(super) tries: i32,
}

/// What is committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) progress: BTreeMap<(Topic, i32), Row>,
    outbox: BTreeMap<(Topic, i32), (i64, i64, Bytes)>,
    pub(super) revisions: BTreeMap<(EventId, i32), Revision>,
    shown: BTreeMap<(EventId, i32), Shown>,
    buckets: BTreeMap<EventId, Bucket>,
    waiting: BTreeMap<SampleType, BTreeSet<Uuid>>,
    pub(super) decisions: BTreeMap<(i32, i64), Decision>,
    connections: Vec<Connection>,
    gaps: Vec<Gap>,
    hydrations: BTreeMap<HydrationKey, Hydration>,
    /// Deletions: what was asked before one waits no more, whichever was read first.
    ended: BTreeMap<HydrationKey, (Micros, Source)>,
    held: BTreeMap<Source, Held>,
    verdicts: BTreeMap<Source, RawVerdict>,
}

/// A transaction whose COMMIT nobody answered.
#[derive(Clone, Debug)]
struct Doubt {
    rows: BTreeSet<(Topic, i32)>,
    keys: BTreeSet<(EventId, i32)>,
    after: Box<Change>,
}

/// An apply, to be done or not.
#[derive(Clone, Debug)]
struct Change {
    topic: Topic,
    advances: Vec<Advance>,
    outcome: Outcome,
}

/// The database.
#[derive(Clone, Debug, Default)]
pub(super) struct Database {
    pub(super) tables: Tables,
    history: VecDeque<Tables>,
    doubts: Vec<Doubt>,
    fences: u128,
    pub(super) primary: u64,
}

impl Database {
    /// Whether a transaction in doubt holds what this call needs.
    pub(super) fn blocks(&self, asked: &Asked) -> bool {
        self.doubts.iter().any(|doubt| {
            !doubt.rows.is_disjoint(&asked.rows) || !doubt.keys.is_disjoint(&asked.keys)
        })
    }

    pub(super) fn doubts(&self) -> usize {
        self.doubts.len()
    }

    /// What was in doubt is decided.
    pub(super) fn settle(&mut self, which: usize, commit: bool) {
        if which < self.doubts.len() {
            let Doubt { after, .. } = self.doubts.remove(which);
            if commit {
                self.commit(|tables| after.write(tables));
            }
        }
    }

    /// Goes back by this many commits at most; what was in doubt is gone.
    pub(super) fn fail_over(&mut self, commits: usize) {
        self.doubts.clear();
        self.primary += 1;
        for _ in 0..commits {
            if let Some(before) = self.history.pop_back() {
                self.tables = before;
            }
        }
    }

    /// Decide's tables are emptied, `applied = 0`: a rebuild begins.
    pub(super) fn empty(&mut self) {
        self.history.clear();
        let before = std::mem::take(&mut self.tables);
        self.tables.connections = before.connections;
        self.tables.hydrations = before.hydrations;
        self.tables.ended = before.ended;
        self.tables.held = before.held;
        self.tables.verdicts = before.verdicts;
    }

    /// No way back from here.
    pub(super) fn forget_history(&mut self) {
        self.history.clear();
    }

    fn commit<T>(&mut self, write: impl FnOnce(&mut Tables) -> T) -> T {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(self.tables.clone());
        write(&mut self.tables)
    }

    /// Ids are drawn here as `gen_random_uuid()` draws them: never the same again, failover or not.
    fn draw(&mut self) -> Uuid {
        self.fences += 1;
        Uuid::from_u128(self.fences.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn apply(&mut self, change: Change, grant: Grant) -> Applied {
        let error = || refused(Kind::DatabaseError, "apply");
        if grant == Grant::Refused {
            return Applied::Again(error());
        }
        if !change.is_ours(&self.tables) {
            return Applied::NotOurs;
        }
        if change.conflicts(&self.tables) {
            return Applied::Conflict;
        }
        if grant == Grant::InDoubt {
            let (rows, keys) = (change.rows(), change.keys());
            self.doubts.push(Doubt { rows, keys, after: Box::new(change) });
            return Applied::Unknown(error());
        }
        self.commit(|tables| change.write(tables));
        if grant == Grant::Done { Applied::Committed } else { Applied::Unknown(error()) }
    }
}

impl Change {
    fn rows(&self) -> BTreeSet<(Topic, i32)> {
        self.advances.iter().map(|advance| (self.topic, advance.partition)).collect()
    }

    fn keys(&self) -> BTreeSet<(EventId, i32)> {
        self.outcome.revisions.iter().map(|row| (row.event_id, row.revision)).collect()
    }

    /// Every `UPDATE … WHERE fence = mine AND applied = <what I applied last>` finds its row.
    fn is_ours(&self, tables: &Tables) -> bool {
        Bug::NoFenceNoCompare.alive()
            || self.advances.iter().all(|advance| {
                let row = tables.progress.get(&(self.topic, advance.partition));
                row.is_some_and(|row| row.fence == advance.fence && row.applied == advance.applied)
            })
    }

    /// A plain INSERT meets a revision that stands.
    fn conflicts(&self, tables: &Tables) -> bool {
        !Bug::ConflictIgnored.alive()
            && self.keys().iter().any(|key| tables.revisions.contains_key(key))
    }

    fn write(&self, tables: &mut Tables) {
        for advance in &self.advances {
            let key = (self.topic, advance.partition);
            let fence = tables.progress.get(&key).map_or(advance.fence, |row| row.fence);
            let row = Row {
                fence,
                applied: advance.next,
                published: advance.published,
                starts: 0,
                tries: 0,
            };
            tables.progress.insert(key, row);
            let outputs = self.outcome.outbox.get(&advance.partition);
            let bytes = Bytes::from(outbox::encode(outputs.into_iter().flatten()));
            tables.outbox.insert(key, (advance.applied, advance.next, bytes));
        }
        for row in &self.outcome.revisions {
            tables.revisions.entry((row.event_id, row.revision)).or_insert_with(|| row.clone());
        }
        for (key, place) in &self.outcome.moved {
            if let Some(row) = tables.revisions.get_mut(key) {
                row.place = *place;
            }
        }
        for shown in &self.outcome.shown {
            tables.shown.insert((shown.event_id, shown.revision), shown.clone());
        }
        tables.buckets.extend(self.outcome.buckets.clone());
        for (sample_type, ids) in &self.outcome.waiting {
            if ids.is_empty() {
                tables.waiting.remove(sample_type);
            } else {
                tables.waiting.insert(sample_type.clone(), ids.clone());
            }
        }
        for decision in &self.outcome.decisions {
            let key = (decision.partition, decision.offset);
            tables.decisions.insert(key, decision.clone());
        }
    }
}

impl Tables {
    /// The latest revision of a record.
    fn latest(&self, event_id: EventId) -> Option<&Revision> {
        self.revisions.range((event_id, i32::MIN)..=(event_id, i32::MAX)).next_back().map(|at| at.1)
    }

    fn known(&self, plan: &Plan) -> Known {
        let current = |row: &Revision| Current {
            revision: row.revision,
            place: row.place,
            op: row.op,
            hash: row.hash,
        };
        let revisions: HashMap<EventId, Current> =
            plan.events.iter().filter_map(|id| Some((*id, current(self.latest(*id)?)))).collect();
        let holds = |bucket: &Bucket| {
            let removed = plan.removed.get(&bucket.sample_type);
            removed.is_some_and(|ids| ids.iter().any(|id| bucket.samples.get(id).is_some()))
        };
        let holders: Vec<&Bucket> = self.buckets.values().filter(|one| holds(one)).collect();
        let near = |bucket: &Bucket, holder: &Bucket| {
            holder.sample_type.0 == bucket.sample_type.0
                && holder.day.abs_diff(bucket.day) <= AROUND_DAYS.unsigned_abs()
        };
        let asked = |bucket: &&Bucket| {
            plan.buckets.contains(&bucket.event_id)
                || holds(bucket)
                || plan.around.contains(&bucket.sample_type)
                    && holders.iter().any(|holder| near(bucket, holder))
        };
        let buckets = self.buckets.values().filter(asked);
        let waiting = plan.waiting.iter().filter_map(|sample_type| {
            Some((sample_type.clone(), self.waiting.get(sample_type)?.clone()))
        });
        Known {
            revisions,
            buckets: buckets.map(|bucket| (bucket.event_id, bucket.clone())).collect(),
            waiting: waiting.collect(),
        }
    }

    fn rows(&self, topic: Topic, partitions: &[i32]) -> Vec<Progress> {
        let row = |partition: &i32| {
            let row = self.progress.get(&(topic, *partition))?;
            Some(Progress { partition: *partition, fence: row.fence, applied: row.applied })
        };
        partitions.iter().filter_map(row).collect()
    }

    fn before(&self, hole: &Hole) -> Option<Shown> {
        let there = |id: &EventId| self.latest(*id).filter(|row| row.op == Op::Upsert);
        let fits = |shown: &&Shown| {
            shown.user == hole.user
                && hole.device_type.as_ref().is_none_or(|device| *device == shown.device_type)
                && there(&shown.event_id).is_some_and(|row| row.revision == shown.revision)
        };
        self.shown
            .values()
            .filter(fits)
            .max_by_key(|shown| (shown.measured_at, shown.revision))
            .cloned()
    }
}

/// A worker's connection to the database.
#[derive(Clone, Debug)]
pub struct SimStore {
    pub(super) port: Port,
}

impl SimStore {
    /// Runs a call on the connection of now; a call after a failover makes a new one.
    fn on<T>(&self, act: impl FnOnce(&mut Database) -> T) -> Option<T> {
        self.port.with(|world: &mut World, client: &mut Client| {
            if client.primary != world.database.primary {
                client.primary = world.database.primary;
                client.reconnected = true;
            }
            act(&mut world.database)
        })
    }

    /// A lost answer means a lost connection.
    fn broken(&self, grant: Grant) {
        if matches!(grant, Grant::AnswerLost | Grant::InDoubt) {
            self.port.with(|_, client| client.reconnected = true);
        }
    }
}

fn unavailable(doing: &'static str) -> crate::error::Error {
    refused(Kind::DatabaseError, doing)
}

impl Store for SimStore {
    async fn fence(&mut self, topic: Topic, partition: i32) -> Result<Fenced> {
        let grant = self.port.ask(Asked::row(Call::Fence, topic, partition)).await;
        if grant == Grant::Refused {
            return Err(unavailable("fence"));
        }
        let fenced = self.on(|database| {
            let fence = database.draw();
            database.commit(|tables| {
                let row = tables.progress.entry((topic, partition)).or_default();
                row.fence = fence;
                row.starts += 1;
                let row = *row;
                let outbox = tables.outbox.get(&(topic, partition)).map(|(from, to, bytes)| {
                    (*from, *to, outbox::decode(bytes).unwrap_or_default())
                });
                let Row { applied, published, starts, .. } = row;
                Fenced { fence, applied, published, starts, outbox }
            })
        });
        self.broken(grant);
        fenced.filter(|_| grant == Grant::Done).ok_or_else(|| unavailable("fence"))
    }

    async fn load(
        &mut self,
        topic: Topic,
        partitions: &[i32],
        plan: &Plan,
    ) -> Result<(Vec<Progress>, Known)> {
        if self.port.ask(Asked::of(Call::Load)).await != Grant::Done {
            return Err(unavailable("load"));
        }
        let loaded = self
            .on(|database| (database.tables.rows(topic, partitions), database.tables.known(plan)));
        loaded.ok_or_else(|| unavailable("load"))
    }

    async fn apply(&mut self, topic: Topic, advances: &[Advance], outcome: &Outcome) -> Applied {
        let change = Change { topic, advances: advances.to_vec(), outcome: outcome.clone() };
        let (rows, keys) = (change.rows(), change.keys());
        let grant = self.port.ask(Asked { rows, keys, ..Asked::of(Call::Apply) }).await;
        let applied = self.on(|database| database.apply(change, grant));
        self.broken(grant);
        applied.unwrap_or_else(|| Applied::Unknown(unavailable("apply")))
    }

    async fn look(&mut self, topic: Topic, partitions: &[i32]) -> Result<Vec<Progress>> {
        if self.port.ask(Asked::of(Call::Look)).await != Grant::Done {
            return Err(unavailable("look"));
        }
        let rows = self.on(|database| database.tables.rows(topic, partitions));
        rows.ok_or_else(|| unavailable("look"))
    }

    async fn count_try(
        &mut self,
        topic: Topic,
        partition: i32,
        fence: Uuid,
        applied: i64,
    ) -> Result<Option<i32>> {
        let grant = self.port.ask(Asked::row(Call::CountTry, topic, partition)).await;
        if grant == Grant::Refused {
            return Err(unavailable("count a try"));
        }
        let counted = self.on(|database| {
            database.commit(|tables| {
                let row = tables.progress.get_mut(&(topic, partition))?;
                (row.fence == fence && row.applied == applied).then(|| {
                    row.tries += 1;
                    row.tries
                })
            })
        });
        self.broken(grant);
        counted.filter(|_| grant == Grant::Done).ok_or_else(|| unavailable("count a try"))
    }

    async fn release(&mut self, topic: Topic, partition: i32, fence: Uuid, applied: i64) {
        let asked = Asked::row(Call::Release, topic, partition);
        if self.port.ask(asked).await == Grant::Done {
            self.on(|database| {
                database.commit(|tables| {
                    let row = tables.progress.get_mut(&(topic, partition));
                    let ours = |row: &&mut Row| row.fence == fence && row.applied == applied;
                    if let Some(row) = row.filter(ours) {
                        row.starts = 0;
                        row.published = applied;
                    }
                });
            });
        }
    }

    async fn latest(&mut self, holes: &[Hole]) -> Result<Vec<Shown>> {
        if self.port.ask(Asked::of(Call::Latest)).await != Grant::Done {
            return Err(unavailable("latest"));
        }
        let shown = self.on(|database| {
            holes.iter().filter_map(|hole| database.tables.before(hole)).collect::<Vec<_>>()
        });
        shown.ok_or_else(|| unavailable("latest"))
    }

    fn reconnected(&mut self) -> bool {
        let asked = self.port.with(|_, client| std::mem::take(&mut client.reconnected));
        asked.unwrap_or(false)
    }
}

/// Normalise's side of the database.
#[derive(Clone, Debug)]
pub struct SimRegister {
    pub(super) port: Port,
}

impl SimRegister {
    async fn ask<T>(
        &self,
        call: Call,
        doing: &'static str,
        act: impl FnOnce(&mut Database) -> T,
    ) -> Result<T> {
        let grant = self.port.ask(Asked::of(call)).await;
        if grant == Grant::Refused {
            return Err(unavailable(doing));
        }
        let done = self.port.with(|world, _| act(&mut world.database));
        done.filter(|_| grant == Grant::Done).ok_or_else(|| unavailable(doing))
    }
}

impl Register for SimRegister {
    async fn connections(&mut self, named: &Whose) -> Result<Vec<Connection>> {
        let now_us = SimClock(self.port.clone()).now_us();
        self.ask(Call::Connections, "connections", |database| {
            let tables = &database.tables;
            let asked = |row: &&Connection| {
                named.vendor_users.contains(&(row.vendor.clone(), row.vendor_user.clone()))
                    || named.people.contains(&(row.vendor.clone(), row.user.clone()))
            };
            let read = |row: &Connection| Connection {
                settled: !tables.begins_beside(row, now_us),
                ..row.clone()
            };
            tables.connections.iter().filter(asked).map(read).collect()
        })
        .await
    }

    async fn note(&mut self, notes: &Notes) -> Result<()> {
        self.ask(Call::Note, "note", |database| {
            database.commit(|tables| tables.write_notes(notes));
        })
        .await
    }

    async fn connected(&mut self, at_most: usize) -> Result<Vec<Held>> {
        let now_us = SimClock(self.port.clone()).now_us();
        self.ask(Call::Connected, "held items", |database| {
            let tables = &database.tables;
            let known = |held: &&Held| {
                let mut rows = tables
                    .connections
                    .iter()
                    .filter(|row| row.vendor == held.vendor && row.vendor_user == held.vendor_user);
                let mut known = false;
                let waits = rows.any(|row| {
                    known = true;
                    tables.begins_beside(row, now_us)
                });
                known && !waits
            };
            let mut held: Vec<&Held> = database.tables.held.values().filter(known).collect();
            held.sort_by_key(|held| (held.received_at, held.source));
            held.into_iter().take(at_most).cloned().collect()
        })
        .await
    }

    async fn put_through(&mut self, held: &[Held]) -> Result<()> {
        self.ask(Call::PutThrough, "put through", |database| {
            database.commit(|tables| {
                for item in held {
                    tables.held.remove(&item.source);
                }
            });
        })
        .await
    }
}

impl Tables {
    /// All keyed by source: twice is once.
    fn write_notes(&mut self, notes: &Notes) {
        for row in &notes.connections {
            self.connect(row.clone());
        }
        self.gaps.extend(notes.gaps.iter().cloned());
        for asked in &notes.hydrations {
            let at = |asked: &Hydration| (asked.asked_at, asked.source);
            let known = self.hydrations.get(&asked.key);
            if known.is_none_or(|known| at(known) < at(asked)) {
                self.hydrations.insert(asked.key.clone(), asked.clone());
            }
        }
        for ended in &notes.ended {
            let at = (ended.asked_at, ended.source);
            let known = self.ended.entry(ended.key.clone()).or_insert(at);
            *known = at.max(*known);
        }
        for held in &notes.held {
            self.held.entry(held.source).or_insert_with(|| held.clone());
        }
        for verdict in &notes.verdicts {
            self.verdicts.insert(verdict.source, verdict.clone());
        }
    }

    /// Whether a connection began a short while ago beside another one of its person.
    fn begins_beside(&self, row: &Connection, now_us: Micros) -> bool {
        let began =
            |gap: &Gap| gap.connection == row.id && gap.to > now_us.saturating_sub(SETTLES_US);
        let other = |other: &Connection| {
            (&other.vendor, &other.user) == (&row.vendor, &row.user)
                && other.id != row.id
                && other.valid_to.is_none()
        };
        row.valid_to.is_none() && self.gaps.iter().any(began) && self.connections.iter().any(other)
    }

    /// A row is the vendor user's with this beginning; of two ends the earlier counts.
    pub(super) fn connect(&mut self, row: Connection) {
        let same = |known: &&mut Connection| {
            known.vendor == row.vendor
                && known.vendor_user == row.vendor_user
                && known.valid_from == row.valid_from
        };
        match self.connections.iter_mut().find(same) {
            Some(known) => {
                known.valid_to = known.valid_to.into_iter().chain(row.valid_to).min();
            }
            None => self.connections.push(row),
        }
    }

    pub(super) fn verdict(&self, source: &Source) -> Option<&RawVerdict> {
        self.verdicts.get(source)
    }

    pub(super) fn verdicts(&self) -> impl Iterator<Item = &RawVerdict> {
        self.verdicts.values()
    }

    pub(super) fn hydrations(&self) -> impl Iterator<Item = &Hydration> {
        self.hydrations.values().filter(|asked| {
            let ended = self.ended.get(&asked.key);
            ended.is_none_or(|ended| (asked.asked_at, asked.source) > *ended)
        })
    }

    pub(super) fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }
}
