//! What is done about each kind of error, the names on metrics, and the topology, as goldens: a change of policy, of
//! a series that somebody's alert reads, or of an edge is a visible change.
//!
//! `UPDATE_GOLDEN=1 cargo test --test it policy` writes them.

use std::fmt::Write;
use std::path::Path;

use biometric_bridge::error::{Disposition, Kind};
use biometric_bridge::pipeline::topology;
use biometric_bridge::telemetry::metrics::Metrics;
use prometheus::core::Collector;

fn golden(name: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    #[expect(clippy::disallowed_methods, reason = "a switch of the tests")]
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        std::fs::write(&path, now).expect("a golden is written");
    }
    let then = std::fs::read_to_string(&path).expect("a golden");
    assert!(then == now, "tests/golden/{name} says otherwise; now:\n{now}");
}

#[test]
fn what_is_done_about_each_kind() {
    let mut table = String::new();
    for kind in Kind::ALL {
        let done = match kind.disposition() {
            Disposition::RetryHere => "retry here".to_owned(),
            Disposition::RetryLater => "retry later".to_owned(),
            Disposition::DeadLetter => "dead letter".to_owned(),
            Disposition::Refuse(status) => format!("refuse {status}"),
            Disposition::Degrade => "degrade".to_owned(),
            Disposition::Stop => "stop".to_owned(),
        };
        writeln!(table, "{:22} {done}", kind.name()).expect("memory takes it");
    }
    golden("policy.txt", &table);
}

/// Name, kind, labels and help of every metric. A metric with labels shows only once one of its series is there.
fn metrics() -> String {
    let metrics = Metrics::new();
    for counters in [
        &metrics.received,
        &metrics.verdicts,
        &metrics.errors,
        &metrics.published,
        &metrics.recoveries,
        &metrics.requests,
    ] {
        let labels = counters.desc()[0].variable_labels.len();
        counters.with_label_values(&vec!["x"; labels]).inc();
    }
    for times in
        [&metrics.request_seconds, &metrics.receipt_to_commit_seconds, &metrics.batch_seconds]
    {
        let labels = times.desc()[0].variable_labels.len();
        times.with_label_values(&vec!["x"; labels]).observe(1.0);
    }
    for gauges in [&metrics.lag, &metrics.up] {
        gauges.with_label_values(&["x"]).set(1);
    }
    let page = metrics.text();
    let mut table = String::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a name and its help");
            let kind = page.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
            let labels: Vec<&str> = page
                .lines()
                .find(|line| line.starts_with(name) && line.contains('{'))
                .map(|line| line.split(['{', '}']).nth(1).unwrap_or_default())
                .unwrap_or_default()
                .split(',')
                .filter_map(|label| label.split_once('=').map(|(label, _)| label))
                .filter(|label| *label != "le")
                .collect();
            let labels = labels.join(",");
            let kind = kind.expect("a kind");
            writeln!(table, "{name} {kind} [{labels}] {help}").expect("memory takes it");
        }
    }
    table
}

#[test]
fn the_names_on_metrics() {
    let table = metrics();
    let source = include_str!("../../src/telemetry/metrics.rs");
    let entered = source.matches(": table.").count();
    assert_eq!(table.lines().count(), entered, "a metric that this test does not touch");
    golden("metrics.txt", &table);
}

#[test]
fn the_topology() {
    golden("topology.txt", &topology::describe());
}
