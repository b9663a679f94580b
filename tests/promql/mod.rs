//! The expressions of dashboards and alerts, read out of their files: for the test that holds their names to the
//! table, and for the one that has a real Prometheus evaluate them.

use std::path::{Path, PathBuf};

/// An expression and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    /// The file, and the alert's or the panel's title.
    pub(crate) place: String,
    /// The text, as it stands there.
    pub(crate) text: String,
}

/// An alert of a rule file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alert {
    /// The name.
    pub(crate) name: String,
    /// What it asks.
    pub(crate) expression: String,
    /// The heading of the runbook that it names.
    pub(crate) runbook: String,
}

fn helm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("helm")
}

fn files(directory: &str, end: &str) -> Vec<(String, String)> {
    let files = std::fs::read_dir(helm().join(directory)).expect("a directory").flatten();
    let mut files: Vec<(String, String)> = files
        .map(|file| file.path())
        .filter(|path| path.is_file() && path.to_string_lossy().ends_with(end))
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("a text"))
        })
        .collect();
    files.sort();
    files
}

/// The alerts of `helm/alerts/*.yaml`, in the form in which they are written there: an `expr` on one line, or folded
/// (`>-`) over deeper ones.
pub(crate) fn alerts() -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    for (_, text) in files("alerts", ".yaml") {
        let mut folded: Option<usize> = None;
        for line in text.lines() {
            let indent = line.len() - line.trim_start().len();
            let said = line.trim();
            if folded.is_some_and(|depth| indent > depth && !said.is_empty()) {
                let alert = alerts.last_mut().expect("an alert");
                alert.expression.push_str(said);
                alert.expression.push(' ');
                continue;
            }
            folded = None;
            if let Some(name) = said.strip_prefix("- alert: ") {
                alerts.push(Alert { name: name.to_owned(), ..Alert::default() });
            } else if said == "expr: >-" {
                folded = Some(indent);
            } else if let Some(expression) = said.strip_prefix("expr: ") {
                alerts.last_mut().expect("an alert").expression = expression.to_owned();
            } else if let Some(runbook) = said.strip_prefix("runbook: ") {
                alerts.last_mut().expect("an alert").runbook = runbook.to_owned();
            }
        }
    }
    assert!(alerts.len() > 15, "{alerts:?}");
    assert!(alerts.iter().all(|alert| !alert.expression.is_empty()), "{alerts:?}");
    alerts
}

/// The dashboards, by file.
pub(crate) fn dashboards() -> Vec<(String, serde_json::Value)> {
    let read = |(name, text): (String, String)| {
        (name, serde_json::from_str(&text).expect("a dashboard is JSON"))
    };
    files("dashboards", ".json").into_iter().map(read).collect()
}

/// Every expression of every panel.
pub(crate) fn panels() -> Vec<Expression> {
    let mut found = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().expect("panels") {
            let title = panel["title"].as_str().expect("a title");
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"].as_str().expect("an expression").to_owned();
                found.push(Expression { place: format!("{file}: {title}"), text });
            }
        }
    }
    assert!(found.len() > 30, "{found:?}");
    found
}
