//! What a metric is called, counts and is labelled with: the words of the table in [`super::metrics`], and how it is
//! printed.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::error::Kind;
use crate::model::contract::{PROBE_VENDOR, Topic};
use crate::model::metric;

/// What Prometheus calls a metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It only grows, from 0 at the start of the process.
    Counter,
    /// It is what it is now.
    Gauge,
    /// Counts by upper bound, with their number and sum.
    Histogram,
}

impl Shape {
    /// The name in Prometheus' text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label and the closed set of its values.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The name.
    pub name: &'static str,
    values: Closed,
}

/// Where a label's values come from.
#[derive(Clone, Copy, Debug)]
enum Closed {
    /// These.
    Are(&'static [&'static str]),
    /// The vendors of the process, then who is none.
    Vendors,
    /// The vendors of the process, and `unknown`.
    Asked,
    /// The cache, then the vendors of the process.
    Broken,
    /// Every kind of error.
    Kinds,
    /// The metrics of the vocabulary whose values are counted.
    Counted,
}

impl Label {
    /// The values, never empty. What is none of them counts as the last, where that is `unknown` or `other`; elsewhere
    /// all values are ours.
    #[must_use]
    pub fn values(&self, vendors: &[&'static str]) -> Vec<&'static str> {
        match self.values {
            Closed::Are(values) => values.to_vec(),
            Closed::Vendors => [vendors, &[PROBE_VENDOR, "unknown"]].concat(),
            Closed::Asked => [vendors, &["unknown"]].concat(),
            Closed::Broken => [&["redis"], vendors].concat(),
            Closed::Kinds => Kind::ALL.iter().map(|kind| kind.name()).collect(),
            Closed::Counted => metric::COUNTED.to_vec(),
        }
    }
}

const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Closed::Are(values) }
}

/// Our vendors' names, `probe` (the ingress' own records) and `unknown`.
pub const VENDOR: Label = Label { name: "vendor", values: Closed::Vendors };
/// Our vendors' names: the ones whose APIs are asked.
pub const ASKED: Label = Label { name: "vendor", values: Closed::Asked };
/// A kind of error.
pub const ERROR_TYPE: Label = Label { name: "error_type", values: Closed::Kinds };
/// A metric of the vocabulary.
pub const METRIC: Label = Label { name: "metric", values: Closed::Counted };
/// The status of an answer; `closed` where a sender was too slow to be answered.
pub const STATUS: Label = label(
    "status",
    &[
        "200", "204", "400", "401", "403", "404", "405", "408", "413", "415", "429", "431", "503",
        "closed", "other",
    ],
);
/// A step of the way.
pub const STAGE: Label = label("stage", &["ingress", "normalise", "decide", "hydrate"]);
/// A step of the pipeline.
pub const STEP: Label = label("stage", &["normalise", "decide"]);
/// How a record ended.
pub const VERDICT: Label = label(
    "verdict",
    &[
        "normalised",
        "held",
        "to_fetch",
        "published",
        "duplicate",
        "superseded",
        "waiting",
        "dead_lettered",
        "ignored",
        "left_out",
    ],
);
/// An output topic of decide.
pub const TOPIC: Label = label(
    "topic",
    &[Topic::BiometricEvents.name(), Topic::TerraBiometricEvents.name(), Topic::DeadLetters.name()],
);
/// A part of a batch: of normalise the first five, of decide the others.
pub const PART: Label = label(
    "part",
    &[
        "connections",
        "convert",
        "note",
        "send",
        "commit",
        "load",
        "decide",
        "postgres",
        "kafka",
        "redis",
    ],
);
/// Where a partition stands.
pub const STATE: Label = label("state", &["ready", "recovering", "stopped"]);
/// Why a partition recovers.
pub const CAUSE: Label = label(
    "cause",
    &["assigned", "not_ours", "lost_answer", "aborted", "unknown", "reconnected", "internal"],
);
/// What a trigger asks for, by v0's name.
pub const TYPE: Label = label(
    "type",
    &["URGENT_INTERVENTION", "STRESS_INTERVENTION", "RECOVERY_INTERVENTION", "other"],
);
/// How much a trigger asks for.
pub const SEVERITY: Label = label("severity", &["CRITICAL", "HIGH", "MEDIUM", "LOW"]);
/// What this process needs.
pub const DEPENDENCY: Label =
    label("dependency", &["kafka", "postgres", "redis", "workers", "certificate", "keyset"]);
/// What is behind a circuit breaker: the cache, and each vendor's API.
pub const BROKEN: Label = Label { name: "dependency", values: Closed::Broken };
/// How a call of a vendor's API ended.
pub const OUTCOME: Label = label(
    "outcome",
    &[
        "document",
        "nothing",
        "partly",
        "not_yet",
        "unauthorised",
        "forbidden",
        "limited",
        "unavailable",
        "refused",
        "too_much",
        "redirected",
        "not_json",
        "too_large",
        "unreachable",
        "silent",
        "too_slow",
        "broken_off",
    ],
);
/// How the exchange of a refresh token ended.
pub const RENEWED: Label = label("outcome", &["renewed", "refused", "failed"]);
/// Whether the time of a record that waits for its fetch has come.
pub const DUE: Label = label("due", &["now", "later", "history"]);
/// What goes to a collector.
pub const SIGNAL: Label = label("signal", &["spans", "metrics"]);
/// What became of it: taken, refused or not answered, or dropped because too much waited.
pub const FATE: Label = label("fate", &["sent", "failed", "dropped"]);

/// A metric.
#[derive(Debug)]
pub struct Row {
    /// The name, as it stands on the page.
    pub name: &'static str,
    /// What it is.
    pub shape: Shape,
    /// What is counted or measured, in the plural.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [Label],
    /// Upper bounds, of a histogram; where they differ by series, none stand here.
    pub buckets: &'static [f64],
    /// Whether v0 had it, by this name and with this meaning.
    pub v0: bool,
    /// What it says.
    pub help: &'static str,
}

/// The table as text: name, type, unit, labels, `v0` where v0 had it, what it says; sets of values below.
#[must_use]
pub fn text(rows: &[Row], vendors: &[&'static str]) -> String {
    let mut page = String::new();
    let mut sets: Vec<(String, String)> = Vec::new();
    for row in rows {
        let labels: Vec<&str> = row.labels.iter().map(|label| label.name).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let name = format!("{}{labels}", row.name);
        let from = if row.v0 { "v0" } else { "" };
        let (shape, unit, help) = (row.shape.name(), row.unit, row.help);
        let written = writeln!(page, "{name:54} {shape:9} {unit:11} {from:2} {help}");
        debug_assert!(written.is_ok(), "memory takes text");
        for label in row.labels {
            let set = (label.name.to_owned(), label.values(vendors).join(" "));
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
    }
    page.push('\n');
    for (name, values) in sets {
        let written = writeln!(page, "{name:10} {values}");
        debug_assert!(written.is_ok(), "memory takes text");
    }
    page
}

/// The table for machines.
#[must_use]
pub fn json(rows: &[Row], vendors: &[&'static str]) -> Value {
    let labels = |row: &Row| -> Value {
        let set = |label: &Label| (label.name.to_owned(), json!(label.values(vendors)));
        Value::Object(row.labels.iter().map(set).collect())
    };
    let row = |row: &Row| {
        json!({
            "name": row.name,
            "type": row.shape.name(),
            "unit": row.unit,
            "labels": labels(row),
            "v0": row.v0,
            "help": row.help,
        })
    };
    Value::Array(rows.iter().map(row).collect())
}
