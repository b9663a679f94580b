//! Every batching × every seam × every position: one history.
//!
//! A run without a fault gives the history: what a reader gets of each key, in order. Then the same inputs are run
//! again with one thing gone wrong, at every place where a worker can die or be told something else than the
//! truth, at every occurrence of that place, for every batching; and the history must be the same, to the byte.

use std::collections::BTreeMap;

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::{BiometricEvent, NormalisedRecord, Op};
use biometric_bridge::model::record::Headers;
use biometric_bridge::model::state::Verdict;
use biometric_bridge::sim::driver::{Dialect, Driver, Setting, settings};
use biometric_bridge::sim::faults::{SEAMS, Seam};
use biometric_bridge::sim::generate::{Generator, Mix, samples_of_all_kinds};
use biometric_bridge::sim::group::Protocol;
use biometric_bridge::sim::plain::Plain;
use biometric_bridge::sim::real::Real;
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

fn world<D: Dialect>(dialect: &D, what: &What) -> Driver {
    let What { batching, protocol, workers, samples, .. } = *what;
    let setting = Setting { protocol, worker: settings(batching), ..Setting::default() };
    let mut driver = Driver::with_workers(setting, dialect, workers);
    let records: Vec<NormalisedRecord> = if samples {
        samples_of_all_kinds()
    } else {
        Generator::new(7, Mix { users: 3, samples }).records(7)
    };
    for (at, record) in records.iter().enumerate() {
        driver.record(dialect, record);
        if at == 3 {
            driver.gap(Topic::NormalisedRecords, 0);
            let bad = Bytes::from_static(b"not a record");
            driver.write(Topic::NormalisedRecords, 0, None, Headers::new(), bad);
        }
    }
    driver
}

/// Runs to the end and asks the oracle.
fn finish<D: Dialect>(dialect: &D, driver: &mut Driver, what: &What) {
    let first = driver.run();
    driver.heal();
    let second = first.and_then(|()| driver.run());
    let report = driver.report(dialect);
    let good = second.is_ok() && report.is_clean() && driver.is_settled(Topic::NormalisedRecords);
    assert!(good, "{what}: {second:?}\n{report}\n{}", driver.explain());
}

#[derive(Clone, Copy)]
struct What {
    seam: Option<Seam>,
    nth: usize,
    batching: usize,
    protocol: Protocol,
    workers: usize,
    /// Whether there are unions and removals.
    samples: bool,
}

impl std::fmt::Display for What {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seam, nth, batching, protocol, workers, .. } = self;
        let seam = seam.map_or("no fault", |seam| seam.name);
        write!(out, "{seam} #{nth}, batches of {batching}, {protocol:?}, {workers} worker(s)")
    }
}

/// Every seam at every occurrence; gives the number of runs.
fn sweep<D: Dialect>(dialect: &D, like: What) -> usize {
    let calm = What { batching: 1, workers: 1, ..like };
    let mut driver = world(dialect, &calm);
    finish(dialect, &mut driver, &calm);
    let reference = history(&driver);
    assert!(reference.values().map(Vec::len).sum::<usize>() > 4, "a history worth the name");
    let mut runs = 0;
    for seam in SEAMS {
        let mut sprung = 0;
        for nth in 0.. {
            let what = What { seam: Some(seam), nth, ..like };
            let mut driver = world(dialect, &what);
            if what.workers == 1 {
                driver.crash_at(seam, nth);
            } else {
                driver.die_at(seam, nth);
            }
            finish(dialect, &mut driver, &what);
            runs += 1;
            assert!(history(&driver) == reference, "{what}: another history\n{}", driver.explain());
            if !driver.sprung() {
                break;
            }
            sprung += 1;
        }
        assert!(sprung > 0, "nobody ever came to {}", seam.name);
    }
    runs
}

fn like(batching: usize, protocol: Protocol, workers: usize, samples: bool) -> What {
    What { seam: None, nth: 0, batching, protocol, workers, samples }
}

/// What happens of all that can happen to samples.
fn happens(driver: &Driver, real: &Real) -> [bool; 6] {
    let events: Vec<_> = driver
        .committed(Topic::BiometricEvents)
        .iter()
        .filter_map(|record| real.event(record.value.as_deref()?))
        .collect();
    let any = |is: &dyn Fn(&BiometricEvent) -> bool| events.iter().any(is);
    let of = |event: &BiometricEvent, name: &str| event.record_type == name;
    let waits = driver.decisions().iter().any(|one| one.verdict == Verdict::Waiting);
    [
        any(&|event| of(event, "samples.heart_rate") && event.revision > 1),
        any(&|event| of(event, "samples.steps") && !event.content.removed.is_empty()),
        any(&|event| of(event, "samples.sleep_stage") && !event.content.removed.is_empty()),
        any(&|event| of(event, "sleep") && event.vendor == "healthkit" && event.revision > 1),
        any(&|event| of(event, "sleep") && event.vendor == "healthkit" && event.op == Op::Delete),
        waits,
    ]
}

#[test]
fn one_worker_that_starts_again() {
    let real = Real::new().expect("a codec");
    let calm = like(1, Protocol::Cooperative, 1, true);
    let mut driver = world(&real, &calm);
    finish(&real, &mut driver, &calm);
    assert_eq!(happens(&driver, &real), [true; 6], "{}", driver.explain());
    let one = |batching| sweep(&real, like(batching, Protocol::Cooperative, 1, true));
    let runs: usize = BATCHINGS.into_iter().map(one).sum();
    println!("{runs} runs of the real pipeline, one history");
    assert!(runs > 300, "{runs} runs");
}

#[test]
fn two_workers_of_which_one_takes_over() {
    let mut runs = 0;
    for protocol in Protocol::ALL {
        for batching in BATCHINGS {
            runs += sweep(&Plain, like(batching, protocol, 2, false));
        }
    }
    println!("{runs} runs, one history");
    assert!(runs > 1000, "{runs} runs");
}
