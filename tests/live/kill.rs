//! Kill whatever you like: nothing lost, nothing doubled, nothing unexplained.
//!
//! `KILLS` (default 20) is how often ingress and pipeline each die by SIGKILL under traffic; with `KILLS_ONLY` the stack,
//! which others may be using, is left alone.

use std::time::Duration;

use biometric_bridge::stream::clock::Stopwatch;

use crate::pair::Pair;
use crate::process::{free_port, metric, page, set_or, stack, text, until};

/// A seeded sequence of pauses: random enough to hit every seam, the same when it is run again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn published(admin: u16) -> f64 {
    page(admin, "/metrics").map_or(0.0, |page| metric(&page, "kafka_events_sent"))
}

/// How often something is killed.
pub(crate) fn kills() -> u64 {
    set_or("KILLS", "20").parse().expect("KILLS is a number")
}

#[test]
fn kill_nine_twenty_times_and_stop_every_part() {
    let pair = Pair::new("kill", "classic");
    let ledger = pair.ledger();
    let mut dice = Dice(7);
    let mut ingress = pair.start_ingress();
    let mut pipeline = pair.start_pipeline("a", pair.pipeline_admin);
    until("the ingress is ready", Duration::from_secs(30), || {
        page(pair.ingress_admin, "/ready").is_some()
    });
    let begun = Stopwatch::start();
    let traffic = pair.start_traffic("500", &ledger);
    let kills = kills();
    for kill in 0..kills {
        until("events are published again", Duration::from_secs(90), || {
            published(pair.pipeline_admin) > 0.0
        });
        std::thread::sleep(Duration::from_millis(dice.below(1500)));
        pipeline.kill();
        pipeline = pair.start_pipeline("a", pair.pipeline_admin);
        std::thread::sleep(Duration::from_millis(dice.below(700)));
        ingress.kill();
        ingress = pair.start_ingress();
        if !set_or("KILLS_ONLY", "").is_empty() {
            continue;
        }
        if kill == kills / 4 || kill == kills / 2 {
            stack("restart", "postgres");
        }
        if kill == kills / 3 {
            stack("stop", "kafka");
            std::thread::sleep(Duration::from_secs(20));
            stack("start", "kafka");
        }
        if kill == kills * 2 / 3 {
            stack("stop", "redis");
            std::thread::sleep(Duration::from_secs(2));
            stack("start", "redis");
        }
    }
    while begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(200));
    }
    pair.settle_and_audit(traffic, &ledger);
    assert!(pipeline.is_running() && ingress.is_running());
    assert_eq!(pipeline.end("TERM", Duration::from_secs(15)), Some(0));
    assert_eq!(ingress.end("TERM", Duration::from_secs(15)), Some(0));
}

#[test]
fn a_second_process_joins_and_leaves_and_a_frozen_owner_changes_nothing() {
    for protocol in ["classic", "consumer"] {
        let pair = Pair::new(if protocol == "classic" { "joinc" } else { "joinq" }, protocol);
        let ledger = pair.ledger();
        let _ingress = pair.start_ingress();
        let first = pair.start_pipeline("a", pair.pipeline_admin);
        until("the ingress is ready", Duration::from_secs(30), || {
            page(pair.ingress_admin, "/ready").is_some()
        });
        let traffic = pair.start_traffic("200", &ledger);
        let second_admin = free_port();
        let second = pair.start_pipeline("b", second_admin);
        until("the second publishes", Duration::from_secs(60), || published(second_admin) > 0.0);
        first.signal("STOP");
        std::thread::sleep(Duration::from_secs(14));
        first.signal("CONT");
        std::thread::sleep(Duration::from_secs(8));
        assert_eq!(second.end("TERM", Duration::from_secs(20)), Some(0), "it leaves cleanly");
        std::thread::sleep(Duration::from_secs(3));
        pair.settle_and_audit(traffic, &ledger);
    }
}

#[test]
fn while_kafka_is_away_every_answer_is_a_503_within_two_seconds() {
    let pair = Pair::new("away", "classic");
    let ingress = pair.start_ingress();
    until("the ingress is ready", Duration::from_secs(30), || {
        page(pair.ingress_admin, "/ready").is_some()
    });
    stack("stop", "kafka");
    let resident = |pid: u32| -> u64 {
        let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("a process");
        pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number")
    };
    let url = format!("http://127.0.0.1:{}", pair.ingress);
    let ledger = pair.deployment.dir.join("away.jsonl").display().to_string();
    let run = |seconds: &str| {
        let done = pair.deployment.run(&[
            "simulate",
            "traffic",
            "--url",
            &url,
            "--rate",
            "50",
            "--seconds",
            seconds,
            "--bad-signatures",
            "0",
            "--users",
            "2",
            "--json",
            "--ledger",
            &ledger,
        ]);
        assert!(done.status.success(), "{}", text(&done));
    };
    run("5");
    let before = resident(ingress.pid());
    run("10");
    let after = resident(ingress.pid());
    stack("start", "kafka");
    let lines = std::fs::read_to_string(&ledger).expect("a ledger");
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["status"], 503, "{line}");
        assert!(line["ms"].as_f64().expect("a number") < 2000.0, "{line}");
    }
    assert!(after < before + 4096, "memory stays flat: {before} then {after} pages");
    until("it recovers without a restart", Duration::from_secs(20), || {
        page(pair.ingress_admin, "/ready").is_some()
    });
}
