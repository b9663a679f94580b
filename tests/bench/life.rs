//! A process' life: how soon it is ready and how large, and how soon another takes over what a killed one had.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use biometric_bridge::model::contract::Topic;
use biometric_bridge::stream::clock::now_us;

use crate::Scale;
use crate::deployment::{Deployment, Stack};
use crate::door::nights;
use crate::flow::{RSS, wait};
use crate::load::{Load, Pace};
use crate::meter;
use crate::report::{Bound, Report};
use crate::topics::{Progress, Reader, members, partitions_of_keys};

/// Requests a second while one is killed, as a share of the steady rate.
const SHARE: f64 = 0.3;
/// The partitions of `normalised-records`.
const PARTITIONS: usize = 24;

/// From exec to the first `/ready`, and memory at rest.
pub(crate) fn start(stack: &Stack, scale: &Scale, report: &mut Report) {
    const NAME: &str = "start";
    let deployment = Deployment::new(stack, NAME);
    for _ in 0..scale.rounds {
        for role in ["ingress", "pipeline", "all"] {
            let process = deployment.start(role, "a");
            let meter = stack.meter().with(&[(role, process.pid())]);
            let ready = process.ready();
            let cpu = meter.read()[role];
            std::thread::sleep(scale.rest);
            let memory = meter::memory(process.pid());
            process.end();
            report.add(
                NAME,
                &format!("{role}: ready after exec"),
                "s",
                Bound::AtMost(2.0, 1.0),
                ready,
            );
            report.add(NAME, &format!("{role}: RSS at rest"), "MiB", RSS, memory.now);
            report.add(NAME, &format!("{role}: CPU until ready"), "ms", Bound::Beside, cpu * 1e3);
        }
    }
}

/// Two processes share the partitions; one is killed.
pub(crate) fn takeover(stack: &Stack, scale: &Scale, report: &mut Report) {
    const NAME: &str = "takeover";
    for round in 0..scale.rounds {
        let deployment = Deployment::new(stack, &format!("{NAME}{round}"));
        deployment.connect(scale.people);
        let config = &deployment.config;
        let group = &config.pipeline.decide_group;
        let (ingress, first) =
            (deployment.start("ingress", "a"), deployment.start("pipeline", "a"));
        ingress.ready();
        first.ready();
        let of = |members: &[(String, Vec<i32>)]| -> usize {
            members.iter().map(|(_, owned)| owned.len()).sum()
        };
        wait("the first has all partitions", || of(&members(&config.kafka, group)) == PARTITIONS);
        let ids: BTreeSet<String> =
            members(&config.kafka, group).into_iter().map(|(id, _)| id).collect();
        let second = deployment.start("pipeline", "b");
        second.ready();
        let mut owned = BTreeSet::new();
        wait("both have partitions", || {
            let now = members(&config.kafka, group);
            let (mut old, new): (Vec<_>, Vec<_>) =
                now.into_iter().partition(|(id, _)| ids.contains(id));
            let shared = of(&old) > 0 && of(&new) > 0 && of(&old) + of(&new) == PARTITIONS;
            if shared {
                owned = old.iter_mut().flat_map(|(_, partitions)| partitions.drain(..)).collect();
            }
            shared
        });
        let reader = Reader::start(&config.kafka, true);
        let rate = SHARE * scale.rate;
        let (before, after) = (scale.rest, Duration::from_secs(10));
        let most = (rate * (before + after).as_secs_f64()) as u64 + 1;
        let requests = nights(scale.people, 0..most);
        let load = Load {
            address: &ingress.door,
            connections: 32,
            pace: Pace::Open(rate),
            requests: &requests,
            lead_in: before,
            window: after,
            once: false,
        };
        let mut killed = 0;
        let mut first = Some(first);
        load.run(
            || {
                first.take().expect("it runs").kill();
                killed = now_us();
            },
            || {},
        );
        let decided = Progress::of(&config.kafka, group, Topic::NormalisedRecords);
        let read =
            Progress::of(&config.kafka, &config.pipeline.normalise_group, Topic::RawWebhooks);
        let raw = read.end();
        wait("everything is normalised", || read.committed() >= raw);
        let all = decided.end();
        wait("everything is decided", || decided.committed() >= all);
        std::thread::sleep(Duration::from_millis(200));
        let partitions = partitions_of_keys(&config.kafka, Topic::NormalisedRecords);
        let mut resumed: BTreeMap<i32, i64> = BTreeMap::new();
        for (event, at) in reader.take() {
            let partition = partitions[event.user_id.as_str()];
            if event.received_at > killed && owned.contains(&partition) {
                let known = resumed.entry(partition).or_insert(at);
                *known = at.min(*known);
            }
        }
        assert_eq!(resumed.len(), owned.len(), "every partition of the dead one goes on");
        let since = |at: Option<&i64>| (at.copied().unwrap_or(i64::MAX) - killed) as f64 / 1e6;
        report.add(
            NAME,
            "kill -9 → first event of a partition of the dead one",
            "s",
            Bound::AtMost(10.0, 8.0),
            since(resumed.values().min()),
        );
        report.add(
            NAME,
            "kill -9 → every partition of the dead one goes on",
            "s",
            Bound::AtMost(10.0, 8.0),
            since(resumed.values().max()),
        );
        second.end();
    }
    report
        .note(format!("takeover: {} requests a second; 6 s are the session's", SHARE * scale.rate));
}
