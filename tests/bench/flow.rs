//! The pipeline: through a backlog of what is new, through the same again as what was sent twice, from receipt to what a
//! reader sees, and a phone's years of samples.

use std::sync::atomic::Ordering;
use std::time::Duration;

use biometric_bridge::config::Config;
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::record::Headers;
use biometric_bridge::stream::clock::{Stopwatch, now_us};
use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::Scale;
use crate::bodies;
use crate::deployment::{Deployment, Stack};
use crate::door::{measured, nights};
use crate::load::{Load, Pace, histogram, ms, on_the_wire};
use crate::meter::{self, spent};
use crate::report::{Bound, Report};
use crate::topics::{Laid, Progress, Reader, lay};

/// How long a backlog may take.
const BACKLOG: Duration = Duration::from_secs(240);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// What every role's memory must be, and should be, MiB.
pub(crate) const RSS: Bound = Bound::AtMost(100.0, 60.0);

/// Waits until this holds.
pub(crate) fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Stopwatch::start();
    while !holds() {
        assert!(begun.elapsed() < BACKLOG, "not within {BACKLOG:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// So many nights, as the door writes them, received at this moment.
pub(crate) fn backlog(scale: &Scale) -> Vec<Laid> {
    let now = now_us();
    let persons: Vec<_> = (0..scale.people).map(bodies::person).collect();
    let laid = |number: u64| {
        let person = &persons[usize::try_from(number % scale.people).expect("few")];
        let sent = bodies::night(person, number, now);
        bodies::raw(&sent, &person.terra_user, now)
    };
    (0..scale.backlog).map(laid).collect()
}

/// The same bodies as their vendor sends them a minute later.
fn sent_again(records: &[Laid]) -> Vec<Laid> {
    let later = (now_us() + 60_000_000).to_string();
    let again = |(key, headers, value): &Laid| {
        let mut fresh = Headers::new();
        for (name, value) in headers.iter() {
            match name {
                header::RECEIVED_AT => fresh.push(header::RECEIVED_AT, later.clone()),
                _ => fresh.push(name.to_owned(), value.clone()),
            }
        }
        (key.clone(), fresh, value.clone())
    };
    records.iter().map(again).collect()
}

/// New and again, in turn: each round with topics, groups and a database of its own.
pub(crate) fn pipeline(stack: &Stack, scale: &Scale, report: &mut Report) {
    const NAME: &str = "pipeline";
    let records = backlog(scale);
    let again = sent_again(&records);
    let count = scale.backlog as f64;
    let size = records.iter().map(|(_, _, value)| value.len()).sum::<usize>() as f64 / count;
    report.note(format!("pipeline: {count} signed nights by way of Terra, {size:.0} bytes each, of {} people; CPU from exec to the last event", scale.people));
    for round in 0..scale.rounds {
        let deployment = Deployment::new(stack, &format!("{NAME}{round}"));
        deployment.connect(scale.people);
        let config = &deployment.config;
        let decided =
            Progress::of(&config.kafka, &config.pipeline.decide_group, Topic::NormalisedRecords);
        let mut costs = [0.0; 2];
        for (at, of, laid) in [(0_u8, "new", &records), (1, "again", &again)] {
            lay(&config.kafka, laid);
            let (base, all) = (i64::from(at) * count as i64, (i64::from(at) + 1) * count as i64);
            let reader = Reader::start(&config.kafka, false);
            let pipeline = deployment.start("pipeline", "a");
            let meter = stack.meter().with(&[(NAME, pipeline.pid())]);
            let before = meter.read();
            if at == 0 {
                wait("every new record is an event", || reader.seen.count() >= scale.backlog);
            } else {
                wait("the first is decided", || decided.committed() > base);
            }
            let (from, begun) = (decided.committed(), Stopwatch::start());
            wait("every record is decided", || decided.committed() >= all);
            let rate = if at == 0 {
                (count - 1.0) / reader.seen.seconds()
            } else {
                (all - from) as f64 / begun.seconds()
            };
            let cpu = spent(&before, &meter.read());
            let memory = meter::memory(pipeline.pid());
            pipeline.end();
            let visible = reader.seen.count();
            assert_eq!(visible, if at == 0 { scale.backlog } else { 0 }, "{of}: each event once");
            costs[usize::from(at)] = cpu[NAME] * 1e6 / count;
            figures(report, at == 0, of, rate, &cpu, count);
            report.add(
                NAME,
                &format!("{of}: peak RSS of pipeline"),
                "MiB",
                if at == 0 { RSS } else { Bound::Beside },
                memory.peak,
            );
        }
        report.add(
            NAME,
            "CPU of what comes again against what is new",
            "×",
            Bound::AtMost(0.6, 0.4),
            costs[1] / costs[0],
        );
    }
}

fn figures(report: &mut Report, new: bool, of: &str, rate: f64, cpu: &meter::Cpu, count: f64) {
    const NAME: &str = "pipeline";
    let (own, postgres, speed) = if new {
        (Bound::AtMost(45.0, 30.0), Bound::AtMost(40.0, 25.0), Bound::AtLeast(8_000.0, 15_000.0))
    } else {
        (Bound::Beside, Bound::Beside, Bound::Beside)
    };
    report.add(
        NAME,
        &format!("{of}: normalise + decide, own CPU of one"),
        "µs",
        own,
        cpu[NAME] * 1e6 / count,
    );
    if let Some(backends) = cpu.get("postgres") {
        report.add(
            NAME,
            &format!("{of}: Postgres backends, CPU of one"),
            "µs",
            postgres,
            backends * 1e6 / count,
        );
    }
    report.add(NAME, &format!("{of}: catch-up"), "/s", speed, rate);
    report.add_cpu(NAME, of, cpu, count, &[NAME, "postgres"]);
}

/// From receipt to what a reader of committed records sees, at a steady rate.
pub(crate) fn visible(stack: &Stack, scale: &Scale, report: &mut Report) {
    const NAME: &str = "visible";
    let deployment = Deployment::new(stack, NAME);
    deployment.connect(scale.people);
    let config = &deployment.config;
    let (ingress, pipeline) = (deployment.start("ingress", "a"), deployment.start("pipeline", "a"));
    ingress.ready();
    pipeline.ready();
    let reader = Reader::start(&config.kafka, true);
    let meter = stack.meter().with(&[("ingress", ingress.pid()), ("pipeline", pipeline.pid())]);
    let window = scale.window * 2;
    let mut first = 0;
    for round in 0..=scale.rounds {
        // The round before the first warms up.
        let lead_in = if round == 0 { scale.warm } else { scale.lead_in };
        let most = (scale.rate * (lead_in + window).as_secs_f64()) as u64 + 1;
        let requests = nights(scale.people, first..first + most);
        let load = Load {
            address: &ingress.door,
            connections: 64,
            pace: Pace::Open(scale.rate),
            requests: &requests,
            lead_in,
            window,
            once: false,
        };
        let (seen, began) = (reader.seen.count(), now_us());
        let (outcome, cpu) = measured(&load, &meter);
        assert_eq!(outcome.failed, 0, "each is answered 2xx or 503");
        wait("what was accepted is visible", || reader.seen.count() >= seen + outcome.ever);
        let (receipts, moments) = since(&reader, &|number| {
            let due = (number - first) as f64 / scale.rate;
            (due >= lead_in.as_secs_f64()).then_some(began + (due * 1e6) as i64)
        });
        first += most;
        if round == 0 {
            continue;
        }
        let (p50, p99) = (Bound::AtMost(15.0, 10.0), Bound::AtMost(60.0, 40.0));
        for (name, share, bound) in
            [("p50", 0.5, p50), ("p95", 0.95, Bound::Beside), ("p99", 0.99, p99)]
        {
            for (what, bound, latencies) in [
                ("receipt → visible", bound, &receipts),
                ("the request's moment → visible", Bound::Beside, &moments),
                ("the request's moment → its answer", Bound::Beside, &outcome.latencies),
            ] {
                report.add(NAME, &format!("{what}, {name}"), "ms", bound, ms(latencies, share));
            }
        }
        report.add(NAME, "answered 503", "", Bound::Beside, outcome.refused as f64);
        report.add_cpu(NAME, "one event", &cpu, outcome.accepted as f64, &[]);
    }
    report.note(format!(
        "visible: {} requests a second, open loop, {} s a round",
        scale.rate,
        window.as_secs_f64()
    ));
    report.add_peaks(NAME, RSS, &[("ingress", &ingress), ("pipeline", &pipeline)]);
}

/// How long the events that a reader has kept took, from their receipt and from the moments of their requests, µs; of
/// those whose night's number has a moment.
fn since(reader: &Reader, moment: &dyn Fn(u64) -> Option<i64>) -> (Histogram<u64>, Histogram<u64>) {
    let (mut receipts, mut moments) = (histogram(), histogram());
    for (event, at) in reader.take() {
        let number = event.record_id.rsplit('-').next().and_then(|number| number.parse().ok());
        if let Some(moment) = moment(number.expect("a night of ours")) {
            receipts.saturating_record(u64::try_from(at - event.received_at).unwrap_or(0));
            moments.saturating_record(u64::try_from(at - moment).unwrap_or(0));
        }
    }
    (receipts, moments)
}

/// Waits until all that was accepted is normalised, and all of that decided.
pub(crate) fn drained(config: &Config) {
    let (kafka, pipeline) = (&config.kafka, &config.pipeline);
    for (group, topic) in [
        (&pipeline.normalise_group, Topic::RawWebhooks),
        (&pipeline.decide_group, Topic::NormalisedRecords),
    ] {
        let progress = Progress::of(kafka, group, topic);
        let end = progress.end();
        wait("all that was accepted is decided", || progress.committed() >= end);
    }
}

/// Pushes of one phone, each of the time before the last.
const PUSHES_EACH: u64 = 10;

/// What so many phones have kept, as it goes over the wire.
fn pushes(scale: &Scale, phones: u64) -> Vec<Bytes> {
    let now = now_us();
    let push = |number: u64| {
        let back = i64::try_from(number / phones * scale.samples * 30_000_000).expect("some days");
        let person = bodies::person(number % phones);
        on_the_wire(&bodies::push(&person, number, scale.samples, now - back))
    };
    (0..scale.pushes).map(push).collect()
}

/// Phones send what they have kept: through the door, to the last event that a reader sees.
pub(crate) fn healthkit(stack: &Stack, scale: &Scale, report: &mut Report) {
    const NAME: &str = "healthkit";
    let phones = scale.pushes.div_ceil(PUSHES_EACH);
    let requests = pushes(scale, phones);
    let samples = (scale.pushes * scale.samples) as f64;
    let bytes = requests.iter().map(Bytes::len).sum::<usize>() as f64 / samples;
    report.note(format!(
        "healthkit: {} pushes of {} samples ({bytes:.0} bytes each) by {phones} phones over 8 connections, through the \
         door; from the first request to the last event",
        scale.pushes, scale.samples
    ));
    for round in 0..scale.rounds {
        let deployment = Deployment::new(stack, &format!("{NAME}{round}"));
        deployment.connect(phones);
        let config = &deployment.config;
        let (ingress, pipeline) =
            (deployment.start("ingress", "a"), deployment.start("pipeline", "a"));
        ingress.ready();
        pipeline.ready();
        let reader = Reader::start(&config.kafka, true);
        let meter = stack.meter().with(&[("ingress", ingress.pid()), ("pipeline", pipeline.pid())]);
        let load = Load {
            address: &ingress.door,
            connections: 8,
            pace: Pace::Closed,
            requests: &requests,
            lead_in: Duration::ZERO,
            window: BACKLOG,
            once: true,
        };
        let (before, began) = (meter.read(), now_us());
        let outcome = load.run(|| {}, || {});
        assert_eq!(outcome.accepted, scale.pushes, "each push is accepted");
        drained(config);
        let cpu = spent(&before, &meter.read());
        std::thread::sleep(LOOK * 4);
        let last = reader.seen.last_us.load(Ordering::Acquire);
        let told: usize = reader.take().iter().map(|(event, _)| event.content.readings.len()).sum();
        assert_eq!(told as f64, samples, "each sample is told once");
        let rate = samples * 1e6 / (last - began) as f64;
        let bound = Bound::AtLeast(50_000.0, 200_000.0);
        report.add(NAME, "samples, end to end", "/s", bound, rate);
        let rate = samples / outcome.seconds;
        report.add(NAME, "samples, to the door's acknowledgement", "/s", Bound::Beside, rate);
        report.add_cpu(NAME, "one sample", &cpu, samples, &[]);
        report.add_peaks(NAME, Bound::Beside, &[("ingress", &ingress), ("pipeline", &pipeline)]);
    }
}
