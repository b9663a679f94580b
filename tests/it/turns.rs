//! What trouble with one partition, or with one record, does not take from the others.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use biometric_bridge::error::{Error, Kind, Result};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::event::{BiometricEvent, NormalisedRecord};
use biometric_bridge::model::record::Record;
use biometric_bridge::model::state::{Hole, Known, Outcome, Plan, Shown};
use biometric_bridge::sim::driver::{Dialect, Driver, Ports, Process, Setting, settings};
use biometric_bridge::sim::faults::{Call, Grant};
use biometric_bridge::sim::plain::Plain;
use biometric_bridge::sim::store::SimStore;
use biometric_bridge::stream::worker::Worker;
use biometric_bridge::stream::{Advance, Applied, Fenced, Processor, Progress, Store};
use biometric_bridge::telemetry::metrics::Metrics;
use bytes::Bytes;
use uuid::Uuid;

use crate::interleave::{at, clean, nights};

const INPUT: Topic = Topic::NormalisedRecords;

// ── a partition that cannot recover ────────────────────────────────────────────────────────────────────────────

/// The database, but the row of partition 0 cannot be had while it is locked.
struct Locked {
    inside: SimStore,
    locked: Rc<Cell<bool>>,
}

impl Store for Locked {
    async fn fence(&mut self, topic: Topic, partition: i32) -> Result<Fenced> {
        if partition == 0 && self.locked.get() {
            return Err(Error::new(Kind::DatabaseError, "take the fence", "55P03"));
        }
        self.inside.fence(topic, partition).await
    }

    async fn load(
        &mut self,
        topic: Topic,
        partitions: &[i32],
        plan: &Plan,
    ) -> Result<(Vec<Progress>, Known)> {
        self.inside.load(topic, partitions, plan).await
    }

    async fn apply(&mut self, topic: Topic, advances: &[Advance], outcome: &Outcome) -> Applied {
        self.inside.apply(topic, advances, outcome).await
    }

    async fn look(&mut self, topic: Topic, partitions: &[i32]) -> Result<Vec<Progress>> {
        self.inside.look(topic, partitions).await
    }

    async fn count_try(
        &mut self,
        topic: Topic,
        partition: i32,
        fence: Uuid,
        applied: i64,
    ) -> Result<Option<i32>> {
        self.inside.count_try(topic, partition, fence, applied).await
    }

    async fn release(&mut self, topic: Topic, partition: i32, fence: Uuid, applied: i64) {
        self.inside.release(topic, partition, fence, applied).await;
    }

    async fn latest(&mut self, holes: &[Hole]) -> Result<Vec<Shown>> {
        self.inside.latest(holes).await
    }

    fn reconnected(&mut self) -> bool {
        self.inside.reconnected()
    }
}

/// A worker over such a database.
fn locked_worker(driver: &mut Driver, locked: &Rc<Cell<bool>>, setting: Setting) {
    let locked = Rc::clone(locked);
    let body = move |ports: Ports| -> Process {
        let locked = Rc::clone(&locked);
        Box::pin(async move {
            let Ports { log, publisher, store, cache, clock, stop, .. } = ports;
            let store = Locked { inside: store, locked };
            let (settings, metrics) = (setting.worker, Metrics::new());
            let mut worker =
                Worker::new(log, publisher, store, cache, clock, Plain, settings, metrics);
            worker.run(&stop).await;
            true
        })
    };
    driver.add(INPUT, Rc::new(body));
}

/// Recovery goes in turn, and between its rounds the ready partitions work.
#[test]
fn a_partition_that_cannot_recover_holds_nobody_up() {
    let setting = Setting { partitions: 3, ..Setting::default() };
    let mut driver = Driver::new(setting);
    let locked = Rc::new(Cell::new(true));
    locked_worker(&mut driver, &locked, setting);
    let events = |driver: &Driver| {
        let mut offsets: Vec<i64> = (0..3)
            .map(|partition| {
                driver.offset(INPUT, partition).map_or(0, |committed| committed.offset)
            })
            .collect();
        offsets.push(i64::try_from(driver.committed(Topic::BiometricEvents).len()).expect("few"));
        offsets
    };
    for (at, record) in nights(9).iter().enumerate() {
        driver.record_to(&Plain, i32::try_from(at % 3).expect("a partition"), record);
        driver.step(40);
    }
    driver.advance(Duration::from_secs(1));
    driver.step(200);
    assert_eq!(events(&driver), [0, 3, 3, 6], "{}", driver.explain());
    locked.set(false);
    driver.run().expect("rest");
    assert_eq!(events(&driver), [3, 3, 3, 9], "{}", driver.explain());
    assert!(driver.report(&Plain).is_clean(), "{}", driver.explain());
}

// ── a record that kills (§1.7) ─────────────────────────────────────────────────────────────────────────────────

/// Plain, but a record in the state `deadly` kills the process that decides it, or already the one that reads it.
#[derive(Clone, Default)]
struct Deadly {
    died: Rc<Cell<bool>>,
    to_readers: bool,
}

impl Deadly {
    fn is_in(&self, batch: &[Record]) -> bool {
        let mut records = batch.iter().filter_map(|record| Plain.read(record.value.as_deref()?));
        records.any(|record| record.content.state == "deadly")
    }
}

impl Dialect for Deadly {
    type Decide = Self;

    fn processor(&self) -> Self {
        self.clone()
    }

    fn write(&self, record: &NormalisedRecord) -> Bytes {
        Plain.write(record)
    }

    fn read(&self, value: &[u8]) -> Option<NormalisedRecord> {
        Plain.read(value)
    }

    fn event(&self, value: &[u8]) -> Option<BiometricEvent> {
        Plain.event(value)
    }
}

impl Processor for Deadly {
    type Read = ();

    fn plan(&self, batch: &[Record]) -> (Plan, ()) {
        if self.to_readers && self.is_in(batch) {
            self.died.set(true);
        }
        Plain.plan(batch)
    }

    fn decide(&self, batch: &[Record], (): (), known: Known) -> Result<Outcome> {
        if !self.to_readers && self.is_in(batch) {
            self.died.set(true);
            return Err(Error::internal("decide a deadly record"));
        }
        Plain.decide(batch, (), known)
    }

    fn give_up(&self, record: &Record) -> Outcome {
        Plain.give_up(record)
    }
}

/// Three records of one partition of which the second is deadly; `dies`: the process does, else deciding only fails.
fn deadly(dies: bool, to_readers: bool) {
    let deadly = Deadly { to_readers, ..Deadly::default() };
    let setting = Setting { partitions: 1, ..Setting::default() };
    let mut driver = Driver::with_workers(setting, &deadly, 1);
    let mut records = nights(3);
    records[1].content.state = "deadly".to_owned();
    for record in &records {
        driver.record_to(&deadly, 0, record);
    }
    let mut deaths = 0;
    for _ in 0..600 {
        driver.round();
        if deadly.died.take() {
            deaths += 1;
            if dies {
                driver.crash(0);
                driver.start(0);
            }
        }
    }
    assert!((4..=6).contains(&deaths), "{deaths} deaths\n{}", driver.explain());
    let letters = driver.dead_letters();
    assert_eq!(letters.len(), 1, "one dead letter\n{}", driver.explain());
    assert_eq!(letters[0].headers.text(header::ORIGINAL_OFFSET), Some("1"), "the deadly one");
    assert_eq!(driver.committed(Topic::BiometricEvents).len(), 2, "the others live");
    let report = driver.report(&deadly);
    assert!(report.is_clean(), "{report}\n{}", driver.explain());
}

#[test]
fn a_record_that_kills_is_given_up_alone() {
    deadly(true, false);
}

#[test]
fn a_record_that_cannot_be_decided_is_given_up_alone() {
    deadly(false, false);
}

/// What is given up is not read either: else the fourth process would die of it as the three before.
#[test]
fn a_record_that_kills_its_reader_is_given_up_unread() {
    deadly(true, true);
}

#[test]
fn innocent_records_outlive_three_kills_and_an_outage() {
    for batching in [1, 500] {
        let setting = Setting { partitions: 1, worker: settings(batching), ..Setting::default() };
        let mut driver = Driver::with_workers(setting, &Plain, 1);
        for record in nights(3) {
            driver.record_to(&Plain, 0, &record);
        }
        for _ in 0..3 {
            at(&mut driver, 0, Call::Apply);
            driver.crash(0);
            driver.start(0);
        }
        at(&mut driver, 0, Call::Load);
        for _ in 0..40 {
            driver.go(0, Grant::Refused);
            driver.advance(Duration::from_millis(200));
        }
        driver.run().expect("rest");
        assert!(driver.dead_letters().is_empty(), "{}", driver.explain());
        clean(&mut driver);
    }
}
