//! The log is enough: run again it says nothing new, run into an empty database it says the same.

use std::time::Duration;

use crate::pair::Pair;
use crate::process::{Deployment, free_port, page, text, until};

fn audit(deployment: &Deployment, wait: &str) -> serde_json::Value {
    let done = deployment.run(&["audit", "--wait", wait, "--json"]);
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", text(&done)))
}

/// What an audit that finds nothing counts of a kind.
fn counted(deployment: &Deployment, what: &str) -> u64 {
    let report = audit(deployment, "60");
    for kind in ["lost", "doubled", "reordered", "unexplained"] {
        assert_eq!(report[kind].as_array().map(Vec::len), Some(0), "{kind}: {report}");
    }
    report["counted"][what].as_u64().unwrap_or(0)
}

fn digest(deployment: &Deployment) -> String {
    let done = deployment.run(&["digest"]);
    assert!(done.status.success(), "{}", text(&done));
    String::from_utf8(done.stdout).expect("hex").trim().to_owned()
}

#[test]
fn the_log_run_again_is_silent_and_fills_an_empty_database() {
    let mut pair = Pair::new("again", "classic");
    let ingress = pair.start_ingress();
    let pipeline = pair.start_pipeline("a", pair.pipeline_admin);
    until("the ingress is ready", Duration::from_secs(60), || {
        page(pair.ingress_admin, "/ready").is_some()
    });
    let ledger = pair.ledger();
    let traffic = pair.start_traffic("100", &ledger);
    std::thread::sleep(Duration::from_secs(15));
    pair.settle_and_audit(traffic, &ledger);
    let (events, records) =
        (counted(&pair.deployment, "events"), counted(&pair.deployment, "canonical records"));
    assert!(events > 100, "there is something to run again: {events}");
    let before = digest(&pair.deployment);
    assert_eq!(pipeline.end("TERM", Duration::from_secs(20)), Some(0));
    drop(ingress);

    // The raw topic again, by another group: every record is known.
    pair.deployment.set("PIPELINE__NORMALISE_GROUP", "again");
    let pipeline = pair.start_pipeline("a", pair.pipeline_admin);
    until("the raw topic is run again", Duration::from_secs(90), || {
        counted(&pair.deployment, "canonical records") >= records * 2
    });
    assert_eq!(counted(&pair.deployment, "events"), events, "nothing new is told");
    assert_eq!(digest(&pair.deployment), before);
    assert_eq!(pipeline.end("TERM", Duration::from_secs(20)), Some(0));

    // The canonical records into an empty database: silently, the same content.
    pair.deployment.empty_database();
    let pipeline = pair.start_pipeline("b", free_port());
    until("the content is the same", Duration::from_secs(90), || {
        digest(&pair.deployment) == before
    });
    // What normalise decided is not in the canonical records, so only decide's side is whole.
    let report = audit(&pair.deployment, "0");
    assert_eq!(report["counted"]["events"], events, "nothing is told twice: {report}");
    assert_eq!(report["lost"].as_array().map(Vec::len), Some(0), "{report}");
    assert_eq!(pipeline.end("TERM", Duration::from_secs(20)), Some(0));
}

#[test]
fn a_reader_that_nobody_here_wrote_sees_each_event_once() {
    let pair = Pair::new("reader", "consumer");
    let _ingress = pair.start_ingress();
    let _pipeline = pair.start_pipeline("a", pair.pipeline_admin);
    until("the ingress is ready", Duration::from_secs(60), || {
        page(pair.ingress_admin, "/ready").is_some()
    });
    let ledger = pair.ledger();
    let traffic = pair.start_traffic("50", &ledger);
    std::thread::sleep(Duration::from_secs(10));
    pair.settle_and_audit(traffic, &ledger);
    let events = counted(&pair.deployment, "events");
    let seen = pair.deployment.neuros();
    let mut keys = std::collections::BTreeSet::new();
    let mut triggers = 0;
    for line in seen.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let id = event["value"]["event_id"].as_str().expect("an id").to_owned();
        let revision = event["value"]["revision"].as_i64().expect("a number");
        assert!(keys.insert((id.clone(), revision)), "{id} revision {revision} twice");
        let headers = &event["headers"];
        assert_eq!(headers["event_id"].as_str(), Some(id.as_str()));
        assert!(event["other_headers"].as_array().is_none_or(Vec::is_empty), "{event}");
        let told = headers["triggers"].as_str().unwrap_or_default();
        assert!(!told.contains("value"), "no measurement stands in a header");
        triggers += usize::from(headers["has_triggers"] == "true");
    }
    assert_eq!(u64::try_from(keys.len()).expect("a count"), events);
    assert!(triggers > 0, "triggers ride on events");
}
