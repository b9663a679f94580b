//! What stands in a driver's world, seen from outside; and what must hold there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::driver::{Dialect, Driver};
use super::faults::Call;
use super::group::Seat;
use super::oracle::{Oracle, Report};
use crate::model::contract::{Topic, header};
use crate::model::id::{EventId, Source};
use crate::model::record::Record;
use crate::model::state::{Decision, Held, Hydration, RawVerdict, Revision, Shown};
use crate::stream::Committed;

impl Driver {
    /// What a `read_committed` reader gets of a topic.
    #[must_use]
    pub fn committed(&self, topic: Topic) -> Vec<Record> {
        self.world.lock().broker.committed(topic)
    }

    /// How many records of a topic are in open transactions.
    #[must_use]
    pub fn uncommitted(&self, topic: Topic) -> usize {
        self.world.lock().broker.pending(topic)
    }

    /// The dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<Record> {
        self.committed(Topic::DeadLetters)
    }

    /// The revisions in Postgres, in order of id and number.
    #[must_use]
    pub fn rows(&self) -> Vec<Revision> {
        self.world.lock().database.tables.revisions.values().cloned().collect()
    }

    /// The decisions in Postgres, in order of input.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.world.lock().database.tables.decisions.values().cloned().collect()
    }

    /// What normalise wrote: fetches that wait, held items.
    #[must_use]
    pub fn waiting(&self) -> (Vec<Hydration>, Vec<Held>) {
        let world = self.world.lock();
        let tables = &world.database.tables;
        (tables.hydrations().cloned().collect(), tables.held().cloned().collect())
    }

    /// Normalise's verdict on an item of a raw record, if it ended there.
    #[must_use]
    pub fn verdict(&self, source: &Source) -> Option<RawVerdict> {
        self.world.lock().database.tables.verdict(source).cloned()
    }

    /// Every verdict of normalise, in order of source.
    #[must_use]
    pub fn verdicts(&self) -> Vec<RawVerdict> {
        self.world.lock().database.tables.verdicts().cloned().collect()
    }

    /// The cache: what is shown of a user, of one maker or of all.
    #[must_use]
    pub fn shown(&self, user: &str, device_type: Option<&str>) -> Option<Shown> {
        let key = (user.to_owned(), device_type.map(str::to_owned));
        self.world.lock().shelf.latest.get(&key).cloned()
    }

    /// The cache: a user's series, in order of time.
    #[must_use]
    pub fn series(&self, user: &str) -> Vec<Shown> {
        let mut series: Vec<Shown> = {
            let world = self.world.lock();
            world.shelf.series.get(user).into_iter().flat_map(BTreeMap::values).cloned().collect()
        };
        series.sort_by_key(|shown| (shown.measured_at, shown.event_id));
        series
    }

    /// The group's committed offset.
    #[must_use]
    pub fn offset(&self, topic: Topic, partition: i32) -> Option<Committed> {
        let world = self.world.lock();
        world.groups.get(&topic).and_then(|group| group.offsets.get(&partition).cloned())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.world.lock().now
    }

    /// What happened, line by line.
    #[must_use]
    pub fn explain(&self) -> String {
        self.world.lock().trace.join("\n")
    }

    /// How often each call was made.
    #[must_use]
    pub const fn calls(&self) -> &BTreeMap<Call, usize> {
        &self.calls
    }

    // ── what must hold ─────────────────────────────────────────────────────────────────────────────────────

    /// Whether the group has come to rest: everyone has what it is to have.
    #[must_use]
    pub fn is_settled(&self, topic: Topic) -> bool {
        let world = self.world.lock();
        let seats: Vec<(usize, &Seat)> = self
            .slots
            .iter()
            .filter(|place| place.topic == topic)
            .filter_map(|place| world.clients.get(&place.running.as_ref()?.client))
            .map(|client| (client.slot, &client.seat))
            .collect();
        let quiet = world.coordinator.is_quiet();
        quiet && world.groups.get(&topic).is_some_and(|group| group.is_settled(&seats))
    }

    /// At every moment at which Postgres has not lost anything, what a reader sees is in Postgres.
    pub(super) fn watch(&mut self) {
        if self.failed_over {
            return;
        }
        let world = self.world.lock();
        for topic in [Topic::BiometricEvents, Topic::TerraBiometricEvents] {
            for record in world.broker.committed(topic) {
                let id = record.headers.text(header::EVENT_ID).and_then(|id| id.parse().ok());
                let revision = record.headers.text(header::REVISION).and_then(|r| r.parse().ok());
                let (Some(id), Some(revision)) = (id, revision) else { continue };
                let key = (EventId(id), revision);
                if !world.database.tables.revisions.contains_key(&key) {
                    let line = format!("{id} revision {revision} is told and not known");
                    if !self.phantoms.contains(&line) {
                        self.phantoms.push(line);
                    }
                }
            }
        }
    }

    /// What the oracle says of the world.
    #[must_use]
    pub fn report<D: Dialect>(&self, dialect: &D) -> Report {
        let mut oracle = Oracle::new();
        for record in self.committed(Topic::NormalisedRecords) {
            let read = record.value.as_deref().and_then(|value| dialect.read(value));
            oracle.input(record.partition, record.offset, read);
        }
        for topic in [Topic::BiometricEvents, Topic::TerraBiometricEvents] {
            for record in self.committed(topic) {
                let value = record.value.unwrap_or_default();
                let event = dialect.event(&value);
                oracle.output(topic, record.partition, record.offset, event, &value);
            }
        }
        for record in self.dead_letters() {
            oracle.dead_letter(&record);
        }
        for row in self.rows() {
            oracle.row(row.event_id, row.revision, &row.event);
        }
        for decision in self.decisions() {
            oracle.decision(decision.partition, decision.offset);
        }
        let mut report = oracle.verdict();
        report.phantom.extend(self.phantoms.iter().cloned());
        report
    }
}
