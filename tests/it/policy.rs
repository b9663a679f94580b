//! What is done about each kind of error, the names on metrics, and the topology, as goldens: a change of policy, of
//! a series that somebody's alert reads, or of an edge is a visible change.
//!
//! `UPDATE_GOLDEN=1 cargo test --test it policy` writes them.

use std::fmt::Write;
use std::path::Path;

use biometric_bridge::error::{Disposition, Kind};
use biometric_bridge::pipeline::topology;
use biometric_bridge::telemetry::metrics::TABLE;
use biometric_bridge::telemetry::table;
use biometric_bridge::vendors;

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

#[test]
fn the_table_of_metrics() {
    golden("metrics.txt", &table::text(TABLE, &vendors::names()));
    let json = table::json(TABLE, &vendors::names());
    assert_eq!(json.as_array().map(Vec::len), Some(TABLE.len()));
}

#[test]
fn the_topology() {
    golden("topology.txt", &topology::describe());
}
