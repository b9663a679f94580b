//! Random walks through everything at once, and the shortest traces of the hazards that were ever found.
//!
//! A walk is a number: it fails with its seed, and `SEED=… cargo test --test it interleave` replays it with its
//! trace. `SIM_ROUNDS=…` walks longer (the soak).

use std::time::Duration;

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::NormalisedRecord;
use biometric_bridge::model::record::Headers;
use biometric_bridge::sim::driver::{Driver, Setting, settings};
use biometric_bridge::sim::faults::{Call, Grant};
use biometric_bridge::sim::generate::{Dice, Generator, Mix};
use biometric_bridge::sim::group::Protocol;
use biometric_bridge::sim::plain::Plain;
use bytes::Bytes;

const INPUT: Topic = Topic::NormalisedRecords;

/// Rounds of each protocol; the soak asks for more.
fn rounds() -> u64 {
    number("SIM_ROUNDS").unwrap_or(250)
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What may go wrong in a walk.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// How many faults at most.
    faults: usize,
    /// Failovers of Postgres.
    failover: bool,
    /// Offsets that expire or are moved: then once becomes at least once.
    operators: bool,
}

/// One walk.
struct Walk {
    driver: Driver,
    dice: Dice,
    people: Generator,
    /// Records that are still to come.
    to_come: usize,
    made: Vec<NormalisedRecord>,
    weather: Weather,
    faults: usize,
    slots: usize,
    at_least_once: bool,
}

impl Walk {
    fn new(seed: u64, protocol: Protocol, weather: Weather) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let partitions = if dice.one_in(4) { 1 } else { 2 };
        let setting = Setting { protocol, partitions, seed, ..Setting::default() };
        let mut driver = Driver::new(setting);
        let slots = if dice.one_in(3) { 3 } else { 2 };
        for _ in 0..slots {
            let batching = [1, 2, 7][dice.below(3)];
            driver.add_worker(&Plain, settings(batching));
        }
        let people = Generator::new(seed, Mix { users: 3, samples: false });
        let to_come = 5 + dice.below(6);
        let made = Vec::new();
        let at_least_once = false;
        Self { driver, dice, people, to_come, made, weather, faults: 0, slots, at_least_once }
    }

    fn deliver(&mut self) {
        if self.to_come == 0 {
            return;
        }
        self.to_come -= 1;
        match self.dice.below(8) {
            0 => self.driver.gap(INPUT, 0),
            1 => {
                let bad = Bytes::from_static(b"not a record");
                self.driver.write(INPUT, 0, None, Headers::new(), bad);
            }
            2 if !self.made.is_empty() => {
                let again = self.made[self.dice.below(self.made.len())].clone();
                self.driver.record(&Plain, &again);
            }
            _ => {
                let record = self.people.record();
                self.driver.record(&Plain, &record);
                self.made.push(record);
            }
        }
    }

    fn slot(&mut self) -> usize {
        self.dice.below(self.slots)
    }

    /// Something ordinary.
    fn ordinary(&mut self) {
        let slot = self.slot();
        match self.dice.below(20) {
            0..=10 => {
                self.driver.go(slot, Grant::Done);
            }
            11..=14 => {
                self.driver.tick(slot);
            }
            15 => self.driver.mark(),
            16 => {
                let time = [50, 200, 1000, 2500][self.dice.below(4)];
                self.driver.advance(Duration::from_millis(time));
            }
            17 => self.deliver(),
            18 => {
                let commit = self.dice.one_in(2);
                let (doubts, copies) = (self.driver.doubts(), self.driver.copies());
                if doubts > 0 {
                    self.driver.settle(self.dice.below(doubts), commit);
                } else if copies > 0 {
                    self.driver.land(self.dice.below(copies));
                }
            }
            _ => {
                self.driver.wake(slot);
                self.driver.start(slot);
            }
        }
    }

    /// Something bad.
    fn fault(&mut self) {
        self.faults += 1;
        let slot = self.slot();
        match self.dice.below(15) {
            0..=3 => self.lie(slot),
            4 => {
                // Dies with its request under way, where there is one.
                self.driver.go(slot, Grant::InDoubt);
                self.driver.crash(slot);
            }
            5 => self.driver.crash(slot),
            6 => self.driver.pause(slot),
            7 => self.driver.pause_zombie(slot),
            8 => self.driver.expire(slot),
            9..=11 => {
                let partition = i32::try_from(self.dice.below(2)).expect("small");
                self.driver.rebalance(&[(partition, slot)]);
            }
            14 => self.driver.stop(slot),
            12 if self.weather.failover => self.driver.fail_over(1 + self.dice.below(3)),
            13 if self.weather.operators => {
                self.at_least_once = true;
                let partition = i32::try_from(self.dice.below(2)).expect("small");
                if self.dice.one_in(2) {
                    self.driver.expire_offsets(INPUT);
                } else {
                    let to = i64::try_from(self.dice.below(8)).expect("small");
                    self.driver.move_offset(INPUT, partition, to);
                }
            }
            _ => self.faults -= 1,
        }
    }

    /// A worker is told something else than the truth.
    fn lie(&mut self, slot: usize) {
        let faults = self.driver.pending(slot).map_or(&[][..], Call::faults);
        match self.dice.pick(faults) {
            Some(grant) => {
                self.driver.go(slot, *grant);
            }
            None => self.faults -= 1,
        }
    }

    fn walk(&mut self, seed: u64, protocol: Protocol) {
        let steps = 150 + self.dice.below(250);
        for _ in 0..steps {
            if self.faults < self.weather.faults && self.dice.one_in(12) {
                self.fault();
            } else {
                self.ordinary();
            }
        }
        while self.to_come > 0 {
            self.deliver();
        }
        self.driver.heal();
        let ran = self.driver.run();
        let report = self.driver.report(&Plain);
        let right = if self.at_least_once { report.is_at_least_once() } else { report.is_clean() };
        let settled = self.driver.is_settled(INPUT);
        let weather = self.weather;
        assert!(
            ran.is_ok() && right && settled,
            "SEED={seed} {protocol:?} {weather:?}: {ran:?}, settled: {settled}\n{report}\n{}",
            self.driver.explain()
        );
    }
}

fn walks(weather: Weather) {
    let only = number("SEED");
    for protocol in Protocol::ALL {
        let seeds = only.map_or(1..=rounds(), |seed| seed..=seed);
        for seed in seeds {
            Walk::new(seed, protocol, weather).walk(seed, protocol);
        }
    }
}

#[test]
fn walks_with_few_faults() {
    walks(Weather { faults: 3, failover: false, operators: false });
}

#[test]
fn walks_with_many_faults() {
    walks(Weather { faults: 12, failover: false, operators: false });
}

#[test]
fn walks_with_failovers() {
    walks(Weather { faults: 6, failover: true, operators: false });
}

#[test]
fn walks_with_operators() {
    walks(Weather { faults: 8, failover: true, operators: true });
}

// ── the hazards of exactly_once.md §2, each by its shortest trace ──────────────────────────────────────────────

/// Records of one person, one id each, in partition 0.
pub(crate) fn nights(count: usize) -> Vec<NormalisedRecord> {
    let mut people = Generator::new(3, Mix { users: 1, samples: false });
    let mut made: Vec<NormalisedRecord> = Vec::new();
    while made.len() < count {
        let record = people.record();
        if !made.iter().any(|known| known.event_id == record.event_id) {
            made.push(record);
        }
    }
    made
}

/// Two workers; worker 0 has every partition, worker 1 none; all is quiet.
fn pair(protocol: Protocol, partitions: i32, batchings: [usize; 2]) -> Driver {
    let mut driver = Driver::new(Setting { protocol, partitions, ..Setting::default() });
    let all: Vec<(i32, usize)> = (0..partitions).map(|partition| (partition, 0)).collect();
    driver.rebalance(&all);
    for batching in batchings {
        driver.add_worker(&Plain, settings(batching));
    }
    driver.run().expect("a quiet start");
    assert!(driver.is_settled(INPUT));
    driver
}

/// One worker goes on alone for a while; no time passes.
fn alone(driver: &mut Driver, slot: usize) {
    for _ in 0..80 {
        driver.tick(slot);
        driver.mark();
        driver.go(slot, Grant::Done);
    }
}

/// One worker goes on for a while and hears nothing of the group: its poll thread is late.
fn unheard(driver: &mut Driver, slot: usize) {
    for _ in 0..10 {
        driver.mark();
        driver.go(slot, Grant::Done);
    }
}

pub(crate) fn at(driver: &mut Driver, slot: usize, call: Call) {
    assert!(driver.until(slot, call), "{slot} never came to {call:?}\n{}", driver.explain());
}

fn end(driver: &mut Driver) -> biometric_bridge::sim::oracle::Report {
    driver.heal();
    let ran = driver.run();
    assert!(ran.is_ok(), "{ran:?}\n{}", driver.explain());
    driver.report(&Plain)
}

pub(crate) fn clean(driver: &mut Driver) {
    let report = end(driver);
    assert!(report.is_clean(), "{report}\n{}", driver.explain());
}

/// The mutation "no fence, no compare": a zombie's batch ends where the owner's ends otherwise, and a record that
/// only the zombie told is a duplicate for the owner.
#[test]
fn a_zombies_apply_finds_no_row() {
    let mut driver = pair(Protocol::Cooperative, 1, [500, 1]);
    let bad = Bytes::from_static(b"not a record");
    driver.write(INPUT, 0, None, Headers::new(), bad);
    driver.record_to(&Plain, 0, &nights(1)[0]);
    at(&mut driver, 0, Call::Apply);
    driver.pause_zombie(0);
    driver.rebalance(&[(0, 1)]);
    at(&mut driver, 1, Call::Apply);
    driver.wake(0);
    driver.go(0, Grant::Done);
    clean(&mut driver);
}

/// H2: the owner whose fence a late zombie took takes it back.
#[test]
fn an_owner_takes_its_fence_back() {
    for protocol in Protocol::ALL {
        let mut driver = Driver::new(Setting { protocol, partitions: 1, ..Setting::default() });
        driver.add_worker(&Plain, settings(500));
        driver.add_worker(&Plain, settings(500));
        driver.rebalance(&[(0, 0)]);
        for _ in 0..6 {
            driver.tick(0);
            driver.tick(1);
        }
        at(&mut driver, 0, Call::Fence);
        driver.pause_zombie(0);
        driver.rebalance(&[(0, 1)]);
        alone(&mut driver, 1);
        driver.record_to(&Plain, 0, &nights(1)[0]);
        at(&mut driver, 1, Call::Apply);
        driver.wake(0);
        driver.go(0, Grant::Done);
        clean(&mut driver);
    }
}

/// H3, and the question (a): metadata taken anew after the batch belongs to a member that lost the partition.
#[test]
fn metadata_is_of_before_the_batch() {
    for protocol in Protocol::ALL {
        let mut driver = pair(protocol, 1, [500, 500]);
        driver.record_to(&Plain, 0, &nights(1)[0]);
        at(&mut driver, 0, Call::Apply);
        driver.rebalance(&[(0, 1)]);
        driver.expire(0);
        for _ in 0..8 {
            driver.tick(0);
            driver.tick(1);
        }
        driver.go(0, Grant::Done);
        alone(&mut driver, 1);
        clean(&mut driver);
    }
}

/// H6: a worker whose library has forgotten its name sends nothing.
#[test]
fn nobody_sends_under_no_name() {
    for protocol in Protocol::ALL {
        let mut driver = pair(protocol, 1, [500, 500]);
        driver.expire(0);
        driver.rebalance(&[(0, 1)]);
        driver.tick(0);
        driver.record_to(&Plain, 0, &nights(1)[0]);
        for _ in 0..20 {
            // Without another tick: the loss is queued behind what the worker does.
            if driver.pending(0) == Some(Call::SendOffsets) {
                break;
            }
            driver.go(0, Grant::Done);
        }
        alone(&mut driver, 1);
        clean(&mut driver);
    }
}

/// H7: a recovery's metadata is of before it read the committed offset.
#[test]
fn a_recoverys_metadata_is_of_before_its_reads() {
    for protocol in Protocol::ALL {
        let mut driver = pair(protocol, 1, [500, 500]);
        driver.record_to(&Plain, 0, &nights(1)[0]);
        at(&mut driver, 0, Call::Send);
        driver.crash(0);
        driver.rebalance(&[(0, 1)]);
        at(&mut driver, 1, Call::Bounds);
        driver.expire(1);
        driver.tick(1);
        driver.rebalance(&[(0, 0)]);
        driver.start(0);
        alone(&mut driver, 0);
        unheard(&mut driver, 1);
        clean(&mut driver);
    }
}

/// §1.2, 4: an offset under an open transaction is not an old offset.
#[test]
fn a_committed_offset_is_read_stable() {
    for protocol in Protocol::ALL {
        let mut driver = pair(protocol, 1, [500, 500]);
        driver.record_to(&Plain, 0, &nights(1)[0]);
        at(&mut driver, 0, Call::Commit);
        driver.go(0, Grant::Done);
        driver.pause_zombie(0);
        driver.rebalance(&[(0, 1)]);
        // The commit is decided, its markers are not written.
        for _ in 0..80 {
            driver.tick(1);
            driver.go(1, Grant::Done);
        }
        clean(&mut driver);
    }
}

/// H5: under KIP-848 a partition leaves a live member whose epoch stays; so the revoke waits for what is under way.
#[test]
fn a_revoke_waits_for_the_transaction() {
    for protocol in Protocol::ALL {
        let mut driver = pair(protocol, 2, [500, 500]);
        driver.record_to(&Plain, 0, &nights(1)[0]);
        at(&mut driver, 0, Call::SendOffsets);
        driver.rebalance(&[(0, 1)]);
        driver.tick(0);
        driver.rebalance(&[(1, 1)]);
        driver.tick(0);
        alone(&mut driver, 1);
        unheard(&mut driver, 0);
        clean(&mut driver);
    }
}

/// §1.5: a batch that cannot end holds a revoke up for five seconds, and then its producer is gone.
#[test]
fn a_revoke_does_not_wait_for_ever() {
    for protocol in Protocol::ALL {
        let mut driver = pair(protocol, 2, [500, 500]);
        driver.record_to(&Plain, 0, &nights(1)[0]);
        at(&mut driver, 0, Call::SendOffsets);
        driver.rebalance(&[(0, 1)]);
        for _ in 0..3 {
            driver.tick(0);
            driver.tick(1);
        }
        driver.advance(Duration::from_secs(5));
        for _ in 0..6 {
            driver.tick(0);
            driver.tick(1);
        }
        alone(&mut driver, 1);
        let offset = driver.offset(INPUT, 0).map(|committed| committed.offset);
        assert_eq!(offset, Some(1), "the other has sent it\n{}", driver.explain());
        clean(&mut driver);
    }
}

/// H8: state loaded from a future that a failover takes away.
#[test]
fn a_load_is_of_the_tasks_own_time() {
    let mut driver = pair(Protocol::Cooperative, 1, [500, 500]);
    let records = nights(2);
    driver.replicate();
    for record in &records {
        driver.record_to(&Plain, 0, record);
    }
    at(&mut driver, 0, Call::Load);
    driver.pause_zombie(0);
    driver.rebalance(&[(0, 1)]);
    alone(&mut driver, 1);
    driver.pause(1);
    driver.wake(0);
    driver.go(0, Grant::Done);
    driver.fail_over(16);
    driver.go(0, Grant::Done);
    clean(&mut driver);
}

/// §1.6: a failover of Postgres shows nowhere but in the rows of idle partitions.
#[test]
fn an_idle_worker_looks_at_its_rows() {
    let mut driver = pair(Protocol::Cooperative, 1, [500, 500]);
    driver.record_to(&Plain, 0, &nights(1)[0]);
    driver.run().expect("rest");
    driver.fail_over(1);
    assert!(!driver.report(&Plain).is_clean(), "Postgres lacks the batch");
    clean(&mut driver);
}

/// H9, the stated limit: a repeat that nothing betrays, late by a whole transaction. Records first: it can double,
/// with the same bytes, and it cannot lose.
#[test]
fn an_unseen_repeat_can_double_and_not_lose() {
    let mut driver = pair(Protocol::Cooperative, 1, [1, 1]);
    let records = nights(2);
    driver.record_to(&Plain, 0, &records[0]);
    at(&mut driver, 0, Call::Commit);
    driver.go(0, Grant::RepeatedUnseen);
    driver.mark();
    driver.record_to(&Plain, 0, &records[1]);
    let first = |call| matches!(call, Some(Call::Send | Call::SendOffsets));
    for _ in 0..20 {
        if first(driver.pending(0)) {
            break;
        }
        driver.go(0, Grant::Done);
    }
    assert!(first(driver.pending(0)), "{}", driver.explain());
    // After the first request of the next transaction, whichever it is, the copy ends it.
    driver.go(0, Grant::Done);
    driver.land(0);
    driver.mark();
    driver.crash(0);
    let report = end(&mut driver);
    assert!(report.is_at_least_once(), "{report}\n{}", driver.explain());
}

/// H9: a producer that aborted is gone before the next begin, or a late copy of the abort ends what it begins.
#[test]
fn a_late_abort_finds_nobody() {
    let mut driver = pair(Protocol::Cooperative, 1, [1, 1]);
    let records = nights(2);
    driver.record_to(&Plain, 0, &records[0]);
    at(&mut driver, 0, Call::SendOffsets);
    driver.go(0, Grant::Refused);
    at(&mut driver, 0, Call::Abort);
    driver.go(0, Grant::Repeated);
    driver.mark();
    at(&mut driver, 0, Call::SendOffsets);
    driver.land(0);
    clean(&mut driver);
}

/// H11: one id in two partitions: the second writer's revision is another revision.
#[test]
fn two_writers_of_one_id_make_two_revisions() {
    let mut driver = pair(Protocol::Cooperative, 2, [500, 500]);
    driver.rebalance(&[(1, 1)]);
    driver.run().expect("rest");
    let one = nights(1).remove(0);
    let mut other = one.clone();
    other.source.offset += 1;
    other.received_at += 1;
    other.version = None;
    other.content.state = "tentative".to_owned();
    driver.record_to(&Plain, 0, &one);
    driver.record_to(&Plain, 1, &other);
    at(&mut driver, 0, Call::Apply);
    at(&mut driver, 1, Call::Apply);
    driver.go(0, Grant::Done);
    driver.go(1, Grant::Done);
    clean(&mut driver);
}

/// H12: an operator's offset is not evidence.
#[test]
fn an_operators_offset_is_not_believed() {
    let mut driver = pair(Protocol::Cooperative, 1, [1, 1]);
    for record in nights(3) {
        driver.record_to(&Plain, 0, &record);
    }
    at(&mut driver, 0, Call::Send);
    driver.crash(0);
    driver.move_offset(INPUT, 0, 3);
    let report = end(&mut driver);
    assert!(report.is_at_least_once(), "{report}\n{}", driver.explain());
}

/// §1.2, the last row: a log that no longer holds what Postgres has not applied stops the partition; nothing is
/// skipped silently, and the other partition goes on.
#[test]
fn retention_that_overtakes_stops_the_partition() {
    let mut driver = pair(Protocol::Cooperative, 2, [500, 500]);
    for record in nights(2) {
        driver.record_to(&Plain, 0, &record);
    }
    driver.pause_zombie(0);
    driver.truncate(INPUT, 0, 1);
    driver.rebalance(&[(0, 1)]);
    let mut other = nights(3).remove(2);
    other.source.offset += 10;
    driver.record_to(&Plain, 1, &other);
    driver.heal();
    driver.run().expect("rest");
    assert_eq!(driver.committed(Topic::BiometricEvents).len(), 1, "{}", driver.explain());
}
