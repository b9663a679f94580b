//! The layers, the sizes and the bans of the repository, held to every file.
//!
//! Arrows point inwards: pure modules know no shell, doors and adapters know no other of their kind, nobody knows the
//! composition. A change of the table below is a change of the architecture, so think before you make one.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use source::Source;

/// What each module may import, besides itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("model", &["error"]),
    ("vendors", &["model", "error"]),
    ("rules", &["model"]),
    ("pipeline", &["model", "error", "vendors", "rules"]),
    ("stream", &["model", "error", "telemetry"]),
    ("ingress", &["model", "error", "vendors", "stream", "telemetry"]),
    ("hydrator", &["model", "error", "vendors", "stream", "telemetry"]),
    ("kafka", &["model", "error", "stream", "telemetry"]),
    ("postgres", &["model", "error", "stream", "telemetry"]),
    ("redis", &["model", "error", "stream", "telemetry"]),
    ("telemetry", &["model", "error"]),
    // The engine takes the metrics that it counts in.
    ("sim", &["model", "error", "vendors", "rules", "pipeline", "stream", "telemetry"]),
    // Only their Settings, and the names of vendors.
    (
        "config",
        &["error", "ingress", "hydrator", "kafka", "postgres", "redis", "telemetry", "vendors"],
    ),
    ("roles", EVERYTHING),
    ("commands", EVERYTHING),
    ("cli", &["config", "roles", "commands"]),
    ("main", &[]),
    ("lib", &[]),
];

const EVERYTHING: &[&str] = &[
    "error",
    "model",
    "vendors",
    "rules",
    "pipeline",
    "stream",
    "ingress",
    "hydrator",
    "kafka",
    "postgres",
    "redis",
    "telemetry",
    "sim",
    "config",
    "roles",
    "commands",
    "cli",
];

/// The modules that compute and nothing else.
const PURE: &[&str] = &["model", "vendors", "rules", "pipeline", "error"];

/// `simulate vendors` is the vendors' server: nobody but a test or a demonstration runs it.
const PLAYED: &str = "src/commands/play/serve.rs";

/// Where a library may be named: a file, or a directory with its slash.
const CONFINED: &[(&str, &[&str])] = &[
    ("apache_avro", &["src/model/avro.rs"]),
    (
        "aws_lc_rs",
        &[
            "src/model/id.rs",
            "src/vendors/wire/hmac.rs",
            "src/vendors/wire/tink.rs",
            "src/postgres/vault.rs",
            "src/sim/signer.rs",
        ],
    ),
    // As a server in the first two; as a client and a server for the commands that play vendors.
    ("hyper", &["src/ingress/", "src/telemetry/health.rs", "src/commands/http.rs", PLAYED]),
    ("hyper_util", &["src/ingress/", "src/telemetry/health.rs", "src/commands/http.rs", PLAYED]),
    ("reqwest", &["src/hydrator/fetch.rs", "src/kafka/registry.rs", "src/telemetry/otlp/"]),
    ("rdkafka", &["src/kafka/"]),
    ("schema_registry_converter", &["src/kafka/registry.rs"]),
    ("tokio_postgres", &["src/postgres/"]),
    ("deadpool_postgres", &["src/postgres/"]),
    ("tokio_postgres_rustls", &["src/postgres/"]),
    ("fred", &["src/redis/"]),
    ("rustls", &["src/ingress/tls.rs", "src/postgres/", "src/commands/"]),
    ("tokio_rustls", &["src/ingress/tls.rs"]),
    ("governor", &["src/ingress/limit.rs"]),
    ("prometheus", &["src/telemetry/", "src/ingress/"]),
    ("tracing_subscriber", &["src/telemetry/"]),
    ("opentelemetry_proto", &["src/telemetry/otlp/"]),
    ("prost", &["src/telemetry/otlp/"]),
    ("figment", &["src/config.rs"]),
    ("clap", &["src/cli.rs", "src/main.rs"]),
    ("comfy_table", &["src/commands/"]),
    ("indicatif", &["src/commands/"]),
    // Time and the environment have one door each; the switch of planted bugs is no part of a release.
    ("std::time::SystemTime", &["src/stream/clock.rs"]),
    ("std::time::Instant", &["src/stream/clock.rs"]),
    ("tokio::time::Instant", &["src/stream/clock.rs"]),
    ("std::env", &["src/config.rs", "src/commands/", "src/stream/planted.rs"]),
];

/// Banned in the code of every file but these, and what is to be used instead.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("SystemTime::now", &["src/stream/clock.rs"], "stream/clock.rs owns time"),
    ("Instant::now", &["src/stream/clock.rs"], "stream/clock.rs owns time"),
    ("Timestamp::now", &["src/stream/clock.rs"], "stream/clock.rs owns time"),
    ("Zoned::now", &["src/stream/clock.rs"], "stream/clock.rs owns time"),
    ("now_v7", &[], "ids are derived, never drawn"),
    ("new_v4", &[], "ids are derived, never drawn"),
    ("unbounded", &[], "every queue has a bound"),
    ("split_partition_queue", &[], "a dropped queue silences its successor: take from the member"),
    ("StreamConsumer", &[], "one thread, one BaseConsumer"),
    ("println!", &["src/commands/"], "commands print, the rest logs"),
    ("print!", &["src/commands/"], "commands print, the rest logs"),
    ("eprintln!", &["src/commands/"], "commands print, the rest logs"),
    ("eprint!", &["src/commands/"], "commands print, the rest logs"),
    ("extern crate", &[], "it would hide a crate from this test"),
    ("[allow(", &[], "expect it, with its reason"),
    ("unsafe_code", &["src/kafka/member.rs"], "one module is lifted, and no other"),
    ("biometric_bridge::", &["src/main.rs"], "crate:: inside the crate"),
];

/// What a pure module may not even name.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures_util",
    "tracing",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::time::SystemTime",
    "std::time::Instant",
    "rand",
    "getrandom",
    "aws_lc_rs::rand",
    "prometheus",
];

/// Names that say nothing about what is inside.
const NAMELESS: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "service", "handler",
    "process", "data", "info",
];

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 700;
/// Of a comment's line, its rows of tables apart; rustfmt has its own word on code.
const COLUMNS_MAX: usize = 130;

/// Files that are longer, and why for now. This list only shrinks: one that got short must leave it.
const LONG_FILES: &[(&str, &str)] = &[];

/// A finding: `path:line: what`.
fn finding(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", source.path)
}

fn allowed(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

/// The table, for one file of `src`.
fn layers(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some((_, may)) = MAY_IMPORT.iter().find(|(known, _)| *known == module) else {
        return vec![finding(source, 1, "a module without a row in the table: place it")];
    };
    let mut found = Vec::new();
    for (line, name) in source.root_names() {
        let what = match name.as_str() {
            "{" | "*" => "groups and globs of the crate's root hide what is imported",
            "as" => "the crate's root keeps its name",
            name if name == module || may.contains(&name) => continue,
            name if MAY_IMPORT.iter().any(|(known, _)| *known == name) => "a forbidden import",
            _ => "a name at the crate's root that is no module: nothing is re-exported there",
        };
        found.push(finding(source, line, &format!("{what}: crate::{name}")));
    }
    for line in source.escapes() {
        found.push(finding(source, line, "super leaves the module: crate:: says where to"));
    }
    found
}

/// Libraries, clocks, prints and the rest, for one file of `src`.
fn bans(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (library, places) in CONFINED {
        if !allowed(&source.path, places) {
            for line in source.uses(library) {
                found.push(finding(source, line, &format!("{library} is confined to {places:?}")));
            }
        }
    }
    for (text, places, instead) in BANNED {
        if !allowed(&source.path, places) {
            for line in source.holds(text) {
                found.push(finding(source, line, &format!("{text}: {instead}")));
            }
        }
    }
    if PURE.contains(&source.module()) {
        for name in IMPURE {
            for line in source.uses(name) {
                found.push(finding(source, line, &format!("{name} in a pure module")));
            }
        }
        for text in ["async ", ".await"] {
            for line in source.holds(text) {
                found.push(finding(source, line, "a pure module waits for nothing"));
            }
        }
    }
    found
}

/// Sizes, titles and names, for any Rust file.
fn shape(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.lines_of_code();
    let waived = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if lines > FILE_LINES_MAX && !waived {
        found.push(finding(source, 1, &format!("{lines} lines of code")));
    }
    for (name, line, lines) in source.functions() {
        if lines > FUNCTION_LINES_MAX {
            found.push(finding(source, line, &format!("{name} has {lines} lines of code")));
        }
    }
    if !source.raw.starts_with("//!") {
        found.push(finding(source, 1, "no word about what this is"));
    }
    let ours = source.path.starts_with("src/");
    if ours && source.raw.starts_with(concat!("//! To be ", "written")) {
        found.push(finding(source, 1, "a stub"));
    }
    for (at, line) in source.raw.lines().enumerate() {
        let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
        if marks.iter().any(|mark| line.contains(mark)) {
            found.push(finding(source, at + 1, "do it, or open an issue"));
        }
        let comment = line.trim_start().starts_with("//") && !line.starts_with("//! |");
        if comment && line.chars().count() > COLUMNS_MAX {
            found.push(finding(source, at + 1, "too long a line"));
        }
    }
    for part in source.path.trim_end_matches(".rs").split('/') {
        if ours && NAMELESS.contains(&part) {
            found.push(finding(source, 1, &format!("`{part}` says nothing")));
        }
    }
    found
}

// ── the repository ───────────────────────────────────────────────────────────────────────────────────────────

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a directory.
fn files(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(directory)];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                let inside = path.strip_prefix(root()).expect("a path of ours");
                found.push(Source::new(&inside.to_string_lossy(), &text));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn none(found: Vec<String>) {
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

/// Modules of a directory: `name.rs` and `name/mod.rs`.
fn modules(directory: &str) -> BTreeSet<String> {
    fs::read_dir(root().join(directory))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .filter(|name| !matches!(name.as_str(), "mod" | "main" | "lib"))
        .collect()
}

#[test]
fn every_import_is_one_that_the_table_allows() {
    let files = files("src");
    assert!(files.len() > 60, "the scan sees the sources");
    none(files.iter().flat_map(layers).collect());
}

#[test]
fn libraries_clocks_and_prints_are_where_they_belong() {
    none(files("src").iter().flat_map(bans).collect());
}

#[test]
fn sizes_titles_and_names() {
    let mut all = files("src");
    all.extend(files("tests"));
    none(all.iter().flat_map(shape).collect());
}

#[test]
fn a_waiver_goes_when_it_is_not_needed() {
    for (path, _) in LONG_FILES {
        let text = fs::read_to_string(root().join(path)).expect("a file that is there");
        let lines = Source::new(path, &text).lines_of_code();
        assert!(lines > FILE_LINES_MAX, "{path} has {lines} lines: take it from LONG_FILES");
    }
}

#[test]
fn the_root_declares_modules_and_nothing_else() {
    let lib = Source::new("src/lib.rs", &fs::read_to_string(root().join("src/lib.rs")).unwrap());
    for line in lib.code.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(line.starts_with("pub mod ") || line.starts_with("#!["), "{line}");
    }
    for module in modules("src") {
        assert!(lib.code.contains(&format!("pub mod {module};")), "{module} is not declared");
    }
}

#[test]
fn every_vendor_and_every_rule_is_registered() {
    for (directory, name, others) in [
        ("src/vendors", "VENDOR", &["ask", "consent", "history", "wire"][..]),
        ("src/rules", "RULE", &[]),
    ] {
        let text = fs::read_to_string(root().join(directory).join("mod.rs")).unwrap();
        let registry = Source::new("x.rs", &text);
        for module in modules(directory).iter().filter(|module| !others.contains(&module.as_str()))
        {
            let entry = format!("&{module}::{name}");
            assert!(registry.code.contains(&entry), "{directory}: {entry} is not in ALL");
        }
    }
}

#[test]
fn every_test_file_is_listed() {
    for directory in ["tests/it", "tests/live"] {
        let main = fs::read_to_string(root().join(directory).join("main.rs")).expect("a list");
        for module in modules(directory) {
            // A directory of a file's own parts stands beside the file.
            let listed = format!("mod {module};");
            assert!(main.contains(&listed), "{directory}: {module} is never compiled");
        }
    }
}

#[test]
fn no_file_names_a_machine() {
    let endings = ["rs", "toml", "md", "sql", "avsc", "py", "yaml", "env", "properties"];
    let homes = ["/ro", "/ho", "/wo"].map(|start| match start {
        "/ro" => concat!("/ro", "ot/"),
        "/ho" => concat!("/ho", "me/"),
        _ => concat!("/wo", "rk/"),
    });
    let mut waiting: Vec<_> = ["src", "tests", "topics", "schemas", "helm"]
        .map(|directory| root().join(directory))
        .to_vec();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                let entries = fs::read_dir(&path).expect("a directory");
                waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
            }
            continue;
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if endings.contains(&ending.as_str()) {
            let text = fs::read_to_string(&path).expect("a text");
            for home in homes {
                assert!(!text.contains(home), "{} names {home}", path.display());
            }
        }
    }
}

// ── planted violations ───────────────────────────────────────────────────────────────────────────────────────

/// Whether the checks find something in this text, were it this file.
fn caught(path: &str, text: &str) -> bool {
    let source = Source::new(path, &format!("//! What.\n{text}\n"));
    [layers(&source), bans(&source), shape(&source)].iter().any(|found| !found.is_empty())
}

#[test]
fn planted_imports_are_caught() {
    let planted = [
        ("src/model/x.rs", "use crate::vendors::Vendor;"),
        ("src/model/x.rs", "fn a() { crate::telemetry::log::install(); }"),
        ("src/model/x.rs", "use crate::{error::Kind, vendors};"),
        ("src/model/x.rs", "use crate::*;"),
        ("src/model/x.rs", "use crate as ours;"),
        ("src/model/x.rs", "use crate::\n    vendors::Vendor;"),
        ("src/model/x.rs", "use super::super::vendors::Vendor;"),
        ("src/model/x.rs", "use super :: super :: vendors::Vendor;"),
        ("src/model/mod.rs", "use super::vendors::Vendor;"),
        ("src/error.rs", "use super::model::id::User;"),
        ("src/model/x.rs", "mod inner { use super::super::super::vendors::Vendor; }"),
        ("src/stream/x.rs", "use crate::pipeline::decide::Decide;"),
        ("src/kafka/x.rs", "use crate::postgres::pool;"),
        ("src/ingress/x.rs", "use crate::hydrator::plan;"),
        ("src/ingress/x.rs", "use crate::config::Config;"),
        ("src/pipeline/x.rs", "use crate::sim::World;"),
        ("src/pipeline/x.rs", "use crate::stream::Store;"),
        ("src/rules/x.rs", "use crate::error::Error;"),
        ("src/telemetry/x.rs", "use crate::stream::Clock;"),
        ("src/newcomer/x.rs", "fn a() {}"),
        ("src/model/x.rs", "use crate::Prelude;"),
        ("src/model/x.rs", "macro_rules! a { () => { $crate::vendors::find }; }"),
        ("src/model/x.rs", "extern crate self as ours;"),
        ("src/kafka/x.rs", "use biometric_bridge::postgres;"),
    ];
    for (path, text) in planted {
        assert!(caught(path, text), "{path}: {text}");
    }
}

#[test]
fn planted_libraries_and_calls_are_caught() {
    let planted = [
        ("src/postgres/x.rs", "use rdkafka::Message;"),
        ("src/postgres/x.rs", "fn a(b: &::rdkafka::Message) {}"),
        ("src/ingress/x.rs", "use {bytes::Bytes, fred::prelude};"),
        ("src/stream/x.rs", "use tokio_postgres;"),
        ("src/pipeline/x.rs", "use tokio::time::sleep;"),
        ("src/vendors/x.rs", "use std::fs;"),
        ("src/vendors/x.rs", "use std::fs::File;"),
        ("src/vendors/wire/hmac.rs", "use aws_lc_rs::rand::SystemRandom;"),
        ("src/rules/x.rs", "pub async fn a() {}"),
        ("src/rules/x.rs", "fn a() { b().await; }"),
        ("src/model/x.rs", "fn a() { tracing::info!(\"b\"); }"),
        ("src/kafka/x.rs", "fn a() { std::time::SystemTime::now(); }"),
        ("src/kafka/x.rs", "use std::time::Instant;"),
        ("src/kafka/x.rs", "fn a() { tokio::sync::mpsc::unbounded_channel::<u8>(); }"),
        ("src/kafka/x.rs", "fn a() { std::env::var(\"B\"); }"),
        ("src/kafka/x.rs", "use rdkafka::consumer::StreamConsumer;"),
        ("src/stream/x.rs", "fn a() { println!(); }"),
        ("src/stream/x.rs", "#[allow(dead_code)]\nfn a() {}"),
        ("src/redis/x.rs", "#[expect(unsafe_code, reason = \"b\")]\nmod c;"),
    ];
    for (path, text) in planted {
        assert!(caught(path, text), "{path}: {text}");
    }
}

#[test]
fn planted_shapes_are_caught() {
    let long = format!("fn a() {{\n{}}}", "b();\n".repeat(FUNCTION_LINES_MAX));
    let deep = "const A: u8 = 1;\n".repeat(FILE_LINES_MAX + 1);
    let mark = format!("// {}: later", concat!("TO", "DO"));
    for text in [long.as_str(), deep.as_str(), mark.as_str()] {
        assert!(caught("src/model/x.rs", text));
    }
    assert!(caught("src/model/util.rs", ""));
    assert!(caught("src/ingress/helpers/mod.rs", ""));
    assert!(!shape(&Source::new("src/model/x.rs", "use std::fmt;")).is_empty(), "no title");
}

#[test]
fn what_is_allowed_is_not_caught() {
    let fine = [
        ("src/model/x.rs", "use super::id::User;\nmod tests { use super::*; }"),
        ("src/model/x.rs", "use crate::error::Kind;\npub(crate) fn a() {}"),
        ("src/model/x.rs", "// crate::vendors and tokio::time\nconst A: &str = \"crate::roles\";"),
        ("src/model/x.rs", "#[cfg(test)]\nmod tests { fn a() { std::fs::read(\"b\"); } }"),
        ("src/kafka/x.rs", "use rdkafka::Message;\nuse crate::stream::Log;"),
        ("src/commands/x.rs", "use rustls::crypto::aws_lc_rs::default_provider;"),
        ("src/roles/x.rs", "use crate::sim::World;"),
        ("src/pipeline/x/tests.rs", "use std::fs;"),
    ];
    for (path, text) in fine {
        assert!(!caught(path, text), "{path}: {text}");
    }
}
