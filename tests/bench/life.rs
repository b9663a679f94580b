//! A process' life: how soon it is ready and how large, and how soon another takes over what a killed one had.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use biometric_bridge::config::Config;
use biometric_bridge::model::contract::Topic;
use biometric_bridge::stream::clock::now_us;

use crate::Scale;
use crate::deployment::{Deployment, Process, Stack};
use crate::door::nights;
use crate::flow::{RSS, drained, wait};
use crate::load::{Load, Pace};
use crate::meter;
use crate::report::{Bound, Report};
use crate::topics::{Reader, members, partitions_of_keys};

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
        let ingress = deployment.start("ingress", "a");
        let (first, second, ids) = two(&deployment);
        ingress.ready();
        let config = &deployment.config;
        let reader = Reader::start(&config.kafka, true);
        let (killed, owned) = kill_under_load(config, scale, &ingress, first, &ids);
        drained(config);
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
        let inhabited: BTreeSet<i32> = partitions.into_values().collect();
        let expected = owned.intersection(&inhabited).count();
        assert_eq!(resumed.len(), expected, "every partition of the dead one goes on");
        let since = |at: Option<&i64>| (at.copied().unwrap_or(i64::MAX) - killed) as f64 / 1e6;
        let bound = Bound::AtMost(10.0, 8.0);
        for (what, at) in [
            ("first event of a partition of the dead one", resumed.values().min()),
            ("every partition of the dead one goes on", resumed.values().max()),
        ] {
            report.add(NAME, &format!("kill -9 → {what}"), "s", bound, since(at));
        }
        second.end();
    }
    report
        .note(format!("takeover: {} requests a second; 6 s are the session's", SHARE * scale.rate));
}

/// How many partitions these members have.
fn count(members: &[(String, Vec<i32>)]) -> usize {
    members.iter().map(|(_, owned)| owned.len()).sum()
}

/// Two pipelines that share all partitions, and the names of the first one's members.
fn two(deployment: &Deployment) -> (Process, Process, BTreeSet<String>) {
    let config = &deployment.config;
    let now = || members(&config.kafka, &config.pipeline.decide_group);
    let first = deployment.start("pipeline", "a");
    first.ready();
    let workers = config.pipeline.decide_workers;
    // One worker has them all for a moment, before the next one joins.
    wait("the first has all partitions", || {
        let members = now();
        members.len() == workers && count(&members) == PARTITIONS
    });
    let ids: BTreeSet<String> = now().into_iter().map(|(id, _)| id).collect();
    let second = deployment.start("pipeline", "b");
    second.ready();
    wait("both have partitions", || {
        let (old, new): (Vec<_>, Vec<_>) = now().into_iter().partition(|(id, _)| ids.contains(id));
        let all = new.len() == workers && new.iter().all(|(_, owned)| !owned.is_empty());
        all && count(&old) + count(&new) == PARTITIONS
    });
    (first, second, ids)
}

/// Kills a process at the beginning of a load's window: when that was, and what it had.
fn kill_under_load(
    config: &Config,
    scale: &Scale,
    ingress: &Process,
    process: Process,
    ids: &BTreeSet<String>,
) -> (i64, BTreeSet<i32>) {
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
    let (mut killed, mut owned) = (0, BTreeSet::new());
    load.run(
        || {
            let now = members(&config.kafka, &config.pipeline.decide_group);
            let had = now.into_iter().filter(|(id, _)| ids.contains(id));
            owned = had.flat_map(|(_, partitions)| partitions).collect();
            process.kill();
            killed = now_us();
        },
        || {},
    );
    (killed, owned)
}
