//! Every batching × every seam × every position: one history.
//!
//! A run without a fault gives the history: what a reader gets of each key, in order. Then the same inputs are run
//! again with one thing gone wrong, at every place where a worker can die or be told something else than the
//! truth, at every occurrence of that place, for every batching; and the history must be the same, to the byte.

use std::collections::BTreeMap;

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::NormalisedRecord;
use biometric_bridge::model::record::Headers;
use biometric_bridge::sim::driver::{Driver, Setting, settings};
use biometric_bridge::sim::faults::{SEAMS, Seam};
use biometric_bridge::sim::generate::{Generator, Mix};
use biometric_bridge::sim::group::Protocol;
use biometric_bridge::sim::plain::Plain;
use bytes::Bytes;

const BATCHINGS: [usize; 4] = [1, 2, 7, 500];

/// What a reader of each key gets, in order: headers and value.
type History = BTreeMap<(Topic, Vec<u8>), Vec<(Headers, Vec<u8>)>>;

fn history(driver: &Driver) -> History {
    let mut history = History::new();
    for topic in [Topic::BiometricEvents, Topic::TerraBiometricEvents, Topic::DeadLetters] {
        for record in driver.committed(topic) {
            let key = record.key.as_deref().unwrap_or_default().to_vec();
            let value = record.value.as_deref().unwrap_or_default().to_vec();
            history.entry((topic, key)).or_default().push((record.headers, value));
        }
    }
    history
}

fn world(batching: usize, protocol: Protocol, workers: usize) -> Driver {
    let setting = Setting { protocol, worker: settings(batching), ..Setting::default() };
    let mut driver = Driver::with_workers(setting, &Plain, workers);
    let mut people = Generator::new(7, Mix { users: 3, samples: false });
    let records: Vec<NormalisedRecord> = people.records(7);
    for (at, record) in records.iter().enumerate() {
        driver.record(&Plain, record);
        if at == 3 {
            driver.gap(Topic::NormalisedRecords, 0);
            let bad = Bytes::from_static(b"not a record");
            driver.deliver(Topic::NormalisedRecords, 0, None, Headers::new(), bad);
        }
    }
    driver
}

/// Runs to the end and asks the oracle.
fn finish(driver: &mut Driver, what: &dyn std::fmt::Display) {
    let first = driver.run();
    driver.heal();
    let second = first.and_then(|()| driver.run());
    let report = driver.report(&Plain);
    let good = second.is_ok() && report.is_clean() && driver.is_settled(Topic::NormalisedRecords);
    assert!(good, "{what}: {second:?}\n{report}\n{}", driver.explain());
}

struct What {
    seam: Option<Seam>,
    nth: usize,
    batching: usize,
    protocol: Protocol,
    workers: usize,
}

impl std::fmt::Display for What {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seam, nth, batching, protocol, workers } = self;
        let seam = seam.map_or("no fault", |seam| seam.name);
        write!(out, "{seam} #{nth}, batches of {batching}, {protocol:?}, {workers} worker(s)")
    }
}

/// Every seam at every occurrence; gives the number of runs.
fn sweep(batching: usize, protocol: Protocol, workers: usize) -> usize {
    let mut driver = world(1, protocol, 1);
    let calm = What { seam: None, nth: 0, batching: 1, protocol, workers: 1 };
    finish(&mut driver, &calm);
    let reference = history(&driver);
    assert!(reference.values().map(Vec::len).sum::<usize>() > 4, "a history worth the name");
    let mut runs = 0;
    for seam in SEAMS {
        let mut sprung = 0;
        for nth in 0.. {
            let what = What { seam: Some(seam), nth, batching, protocol, workers };
            let mut driver = world(batching, protocol, workers);
            if workers == 1 {
                driver.crash_at(seam, nth);
            } else {
                driver.die_at(seam, nth);
            }
            finish(&mut driver, &what);
            runs += 1;
            assert_eq!(history(&driver), reference, "{what}\n{}", driver.explain());
            if !driver.sprung() {
                break;
            }
            sprung += 1;
        }
        assert!(sprung > 0, "nobody ever came to {}", seam.name);
    }
    runs
}

#[test]
fn one_worker_that_starts_again() {
    let runs: usize =
        BATCHINGS.iter().map(|batching| sweep(*batching, Protocol::Cooperative, 1)).sum();
    println!("{runs} runs, one history");
    assert!(runs > 300, "{runs} runs");
}

#[test]
fn two_workers_of_which_one_takes_over() {
    let mut runs = 0;
    for protocol in Protocol::ALL {
        for batching in BATCHINGS {
            runs += sweep(batching, protocol, 2);
        }
    }
    println!("{runs} runs, one history");
    assert!(runs > 1000, "{runs} runs");
}
