//! The ingress: what a request costs against `bare`, how many it takes, how long they take, and what it does with twice
//! as many as it can.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use biometric_bridge::stream::clock::now_us;
use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::Scale;
use crate::bodies;
use crate::deployment::{Deployment, Process, Stack};
use crate::load::{Load, Outcome, Pace, ms, on_the_wire};
use crate::meter::{self, Cpu, Meter, spent};
use crate::report::{Bound, Report};

/// How many bodies there are: the door keeps nothing of them, so they can come again.
const BODIES: u64 = 4096;
/// How often memory is looked at.
const TICK: Duration = Duration::from_millis(200);
/// What the door has nothing to do with.
const NO_DATABASE: [&str; 3] = ["postgres", "postgres_rest", "redis"];
/// Connections in an overload: as many as may be inside (permits and as many again that wait), several times over.
const CROWD: usize = 1000;

/// Nights of so many people, as they go over the wire.
pub(crate) fn nights(people: u64, numbers: std::ops::Range<u64>) -> Vec<Bytes> {
    let now = now_us();
    let persons: Vec<_> = (0..people).map(bodies::person).collect();
    let night = |number: u64| {
        let person = &persons[usize::try_from(number % people).expect("few")];
        on_the_wire(&bodies::night(person, number, now))
    };
    numbers.map(night).collect()
}

/// Puts a load on and accounts for it.
pub(crate) fn measured(load: &Load<'_>, meter: &Meter) -> (Outcome, Cpu) {
    let (before, after) = (RefCell::default(), RefCell::default());
    let read = |into: &RefCell<Cpu>| *into.borrow_mut() = meter.read();
    let outcome = load.run(|| read(&before), || read(&after));
    if load.once {
        read(&after);
    }
    (outcome, spent(&before.into_inner(), &after.into_inner()))
}

fn closed<'a>(
    scale: &Scale,
    to: &'a Process,
    connections: usize,
    requests: &'a [Bytes],
) -> Load<'a> {
    Load {
        address: &to.door,
        connections,
        pace: Pace::Closed,
        requests,
        lead_in: scale.lead_in,
        window: scale.window,
        once: false,
    }
}

/// Ours and `bare`, in turn.
pub(crate) fn ingress(stack: &Stack, scale: &Scale, report: &mut Report) {
    const NAME: &str = "ingress";
    let deployment = Deployment::new(stack, NAME);
    let (ours, bare) = (deployment.start("ingress", "a"), deployment.start_bare());
    ours.ready();
    let requests = nights(scale.people, 0..BODIES);
    let meter = stack.meter().with(&[("ingress", ours.pid()), ("bare", bare.pid())]);
    for to in [&bare, &ours] {
        Load { lead_in: scale.warm, ..closed(scale, to, 50, &requests) }.run(|| {}, || {});
    }
    for _ in 0..scale.rounds {
        for connections in [50, 100] {
            let mut costs = [0.0; 2];
            for (at, name, to) in [(0, "ingress", &ours), (1, "bare", &bare)] {
                let (outcome, cpu) = measured(&closed(scale, to, connections, &requests), &meter);
                assert_eq!(outcome.failed, 0, "{name} answers what it is asked");
                let accepted = outcome.accepted as f64;
                costs[at] = cpu[name] * 1e6 / accepted;
                let of = format!("{name} at {connections}");
                report.add_cpu(
                    NAME,
                    &of,
                    &cpu,
                    accepted,
                    &[
                        "postgres",
                        "postgres_rest",
                        "redis",
                        if at == 0 { "bare" } else { "ingress" },
                    ],
                );
                let rate = accepted / outcome.seconds;
                let bound = if (at, connections) == (0, 100) {
                    Bound::AtLeast(12_000.0, 20_000.0)
                } else {
                    Bound::Beside
                };
                report.add(
                    NAME,
                    &format!("{of}: acknowledged requests a second"),
                    "/s",
                    bound,
                    rate,
                );
                latencies(report, at == 0, connections, &of, &outcome);
            }
            let measure = format!("CPU of a request against bare, {connections} connections");
            let bound = if connections == 50 { Bound::AtMost(1.5, 1.25) } else { Bound::Beside };
            report.add(NAME, &measure, "×", bound, costs[0] / costs[1]);
        }
    }
    report.add(
        NAME,
        "peak RSS of ingress",
        "MiB",
        Bound::AtMost(100.0, 60.0),
        meter::memory(ours.pid()).peak,
    );
    let rate = 0.7
        * report.median_of(NAME, "ingress at 50: acknowledged requests a second").unwrap_or(1.0);
    for _ in 0..scale.rounds {
        let open = Load { pace: Pace::Open(rate), ..closed(scale, &ours, 50, &requests) };
        let outcome = open.run(|| {}, || {});
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let measure = format!("open loop at 70 % of that, {name} from each request's moment");
            report.add(NAME, &measure, "ms", Bound::Beside, ms(&outcome.latencies, share));
        }
    }
}

fn latencies(report: &mut Report, ours: bool, connections: usize, of: &str, outcome: &Outcome) {
    for (name, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        let bound = match (ours, connections, name) {
            (true, 50, "p99") => Bound::AtMost(10.0, 5.0),
            (true, 100, "p95") => Bound::AtMost(20.0, 10.0),
            _ => Bound::Beside,
        };
        let measure = format!("{of}: {name} of an answer, closed loop");
        report.add("ingress", &measure, "ms", bound, ms(&outcome.latencies, share));
    }
}

/// Twice what it can.
pub(crate) fn overload(stack: &Stack, scale: &Scale, report: &mut Report) {
    const NAME: &str = "overload";
    let deployment = Deployment::new(stack, NAME);
    let ours = deployment.start("ingress", "a");
    ours.ready();
    let requests = nights(scale.people, 0..BODIES);
    let meter = stack.meter().with(&[("ingress", ours.pid())]);
    Load { lead_in: scale.warm, ..closed(scale, &ours, 100, &requests) }.run(|| {}, || {});
    for _ in 0..scale.rounds {
        let calm = closed(scale, &ours, 100, &requests).run(|| {}, || {});
        let capacity = calm.accepted as f64 / calm.seconds;
        let memory = Memory::of(ours.pid());
        let load = Load {
            pace: Pace::Open(2.0 * capacity),
            connections: CROWD,
            window: scale.window * 2,
            ..closed(scale, &ours, 100, &requests)
        };
        let (outcome, cpu) = measured(&load, &meter);
        let grown = memory.grown();
        let (accepted, refused) = (outcome.accepted as f64, outcome.refused as f64);
        let per_second = |count: f64| count / outcome.seconds / capacity;
        let out = per_second(accepted + refused) / 2.0;
        let at_most = |most: f64| Bound::AtMost(most, most);
        let slow = |latencies: &Histogram<u64>| ms(latencies, 0.99);
        let (served, waited) = (slow(&outcome.refusals_served), slow(&outcome.refusals));
        for (measure, unit, bound, value) in [
            ("goodput against capacity", "×", Bound::AtLeast(0.9, 0.9), per_second(accepted)),
            ("p99 of a 503, from its writing", "ms", at_most(50.0), served),
            ("memory at the end against the beginning", "×", at_most(1.1), grown),
            ("capacity, 100 connections", "/s", Bound::Beside, capacity),
            ("requests that went out, against twice the capacity", "×", Bound::Beside, out),
            ("p99 of a 503, from its moment", "ms", Bound::Beside, waited),
            ("p99 of a 2xx, from its moment", "ms", Bound::Beside, slow(&outcome.latencies)),
            ("neither 2xx nor 503", "", Bound::Beside, outcome.failed as f64),
        ] {
            report.add(NAME, measure, unit, bound, value);
        }
        report.add_cpu(NAME, "any request", &cpu, accepted + refused, &NO_DATABASE);
    }
    report.note(
        "overload: the generator has the same cores; where fewer requests went out than were due, latencies from \
         their moments are also its own",
    );
}

/// A process' memory while something goes on.
struct Memory {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<f64>>,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !asked.load(Ordering::Acquire) {
                seen.push(meter::memory(pid).now);
                std::thread::sleep(TICK);
            }
            seen
        });
        Self { stop, thread }
    }

    /// The last quarter against the second: the first is what a crowd of connections needs to come in.
    fn grown(self) -> f64 {
        self.stop.store(true, Ordering::Release);
        let seen = self.thread.join().expect("the look at memory does not panic");
        let quarter = seen.len() / 4;
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
        mean(&seen[seen.len() - quarter.max(1)..])
            / mean(&seen[quarter..(quarter * 2).max(quarter + 1)])
    }
}
