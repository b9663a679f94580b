//! The benchmark cannot rot: all of it runs, with loads of seconds, and gives a figure for every row. What the figures
//! are is not looked at here.

use std::process::Command;

use crate::process::text;

#[test]
fn every_scenario_of_the_benchmark_gives_figures() {
    let out = std::env::temp_dir().join(format!("bench-smoke-{}", std::process::id()));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    let done = bench.arg("--smoke").arg("--out").arg(&out).output().expect("it runs");
    assert!(done.status.success(), "{}", text(&done));
    let kept = std::fs::read_dir(&out).expect("a directory").flatten().next().expect("a file");
    let kept = std::fs::read_to_string(kept.path()).expect("a text");
    let kept: serde_json::Value = serde_json::from_str(&kept).expect("JSON");
    let rows = kept["rows"].as_array().expect("rows");
    let scenarios =
        ["ingress", "pipeline", "visible", "healthkit", "overload", "start", "takeover"];
    for scenario in scenarios {
        assert!(rows.iter().any(|row| row["scenario"] == scenario), "{scenario} has rows");
    }
    std::fs::remove_dir_all(&out).expect("removed");
}
