//! What reading a push costs in memory: a small multiple of the push, whatever is in it.
//!
//! Measured in a process of its own, which is this binary again with one test, because the peak of a process is one
//! number and other tests run beside this one.

#![cfg(target_os = "linux")]

use std::fmt::Write as _;
use std::process::Command;

use biometric_bridge::model::contract::header;
use biometric_bridge::model::record::Headers;
use biometric_bridge::vendors::{Raw, Vendor as _, healthkit};
use bytes::Bytes;

const WHAT: &str = "BRIDGE_TEST_PUSH";
const BODY_BYTES: usize = 12 * 1024 * 1024;

/// A peak or a size of this process, bytes.
fn of_this_process(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// A push of as many elements as there is room for.
fn push(what: &str) -> String {
    let mut body = String::from(r#"{"data":{"records":["#);
    let mut at = 0_u32;
    while body.len() < BODY_BYTES - 512 {
        if at > 0 {
            body.push(',');
        }
        let (day, hour, minute) = (1 + at / 1440 % 28, at / 60 % 24, at % 60);
        let time = format!("2026-03-{day:02}T{hour:02}:{minute:02}:00Z");
        let written = match what {
            // As our SDK writes them.
            "samples" => write!(
                body,
                r#"{{"id":"0F1D2C3B-1111-4A22-9B33-{at:012X}","type":"HKQuantityTypeIdentifierHeartRate","value":61,"unit":"count/min","startDate":"{time}","endDate":"{time}","zoneOffset":"+02:00","source":{{"productType":"Watch7,5"}}}}"#
            ),
            // As short as a sample can be.
            "short" => write!(
                body,
                r#"{{"type":"HKQuantityTypeIdentifierHeight","value":1,"unit":"m","startDate":"{time}","endDate":"{time}"}}"#
            ),
            // Each a bucket of its own.
            "sources" => write!(
                body,
                r#"{{"type":"HKQuantityTypeIdentifierHeight","value":1,"unit":"m","startDate":"{time}","endDate":"{time}","source":{{"productType":"A{at}"}}}}"#
            ),
            "unknown" => write!(body, r#"{{"type":"x{at}"}}"#),
            _ => write!(body, "1"),
        };
        written.expect("a string");
        at += 1;
    }
    body.push_str("]}}");
    body
}

/// Runs in the child alone.
#[test]
fn measured() {
    let Some(what) = std::env::var_os(WHAT) else { return };
    let body = Bytes::from(push(what.to_str().expect("a word")));
    let headers = Headers::new().with(header::VENDOR_USER, "3f1c2b7a-0d4e-5a6b-8c9d-112233445566");
    let before = of_this_process("VmRSS:");
    let raw = Raw { headers: &headers, body: &body, received_at: 1_774_767_600_000_000 };
    let items = healthkit::VENDOR.parse(&raw).expect("a push");
    assert!(!items.is_empty());
    let peak = of_this_process("VmHWM:");
    println!("percent={}", peak.saturating_sub(before) * 100 / body.len());
}

#[test]
fn a_push_costs_a_small_multiple_of_itself() {
    let this = std::env::current_exe().expect("this binary");
    // Of a body of its own: what its items hold, with what they were gathered in.
    for (what, at_most) in
        [("samples", 400), ("short", 600), ("sources", 2000), ("unknown", 100), ("ones", 400)]
    {
        let mut child = Command::new(&this);
        child.args(["memory::measured", "--exact", "--nocapture"]).env(WHAT, what);
        let output = child.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let percent = said.lines().find_map(|line| line.split("percent=").nth(1));
        let percent: u32 = percent.expect("a figure").parse().expect("a number");
        println!("{what}: {percent} % of the body");
        assert!(percent <= at_most, "{what}: {percent} % of the body");
    }
}
