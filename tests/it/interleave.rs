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
                self.driver.deliver(INPUT, 0, None, Headers::new(), bad);
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
        match self.dice.below(14) {
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
