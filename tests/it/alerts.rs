//! Dashboards and alerts ask for what there is: every metric is in the table, every label is that metric's, every
//! value is one that the label can have; every alert names a heading of the runbook and has a unit test that sees it
//! fire. Whether the expressions can be evaluated is for `tests/telemetry`, which has a Prometheus.

use std::collections::BTreeSet;

use biometric_bridge::telemetry::metrics::TABLE;
use biometric_bridge::telemetry::table::{Row, Shape};
use biometric_bridge::vendors;

use crate::promql::{Expression, alerts, dashboards, panels};

/// Words of the language that are neither metrics nor functions.
const WORDS: &[&str] = &["and", "or", "unless", "offset", "bool"];
/// Words before a list of labels.
const LISTS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Labels that the scraping server puts beside ours.
const OF_THE_SERVER: &[&str] = &["instance", "job"];

/// Label, operator, value.
type Matcher = (String, String, String);

/// What of an expression has to be ours.
#[derive(Debug, Default)]
struct Asked {
    /// Each metric with its matchers.
    metrics: Vec<(String, Vec<Matcher>)>,
    /// Labels in lists.
    labels: BTreeSet<String>,
}

/// Reads an expression as far as it has to be ours.
fn asked(text: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| is_word(c) || c == '.');
        } else if is_word(first) {
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            let next = after.trim_start();
            if LISTS.contains(&word) {
                let list = next.strip_prefix('(').and_then(|inside| inside.split_once(')'));
                let (list, after) = list.expect("a list of labels");
                let labels = list.split(',').map(|label| label.trim().to_owned());
                asked.labels.extend(labels.filter(|label| !label.is_empty()));
                rest = after;
            } else if !WORDS.contains(&word)
                && !["(", "by (", "without ("].iter().any(|call| next.starts_with(call))
            {
                asked.metrics.push((word.to_owned(), Vec::new()));
            }
        } else if first == '{' {
            let (inside, after) = rest[1..].split_once('}').expect("a closing brace");
            let (_, matchers) = asked.metrics.last_mut().expect("a metric before its matchers");
            matchers.extend(inside.split(',').map(matcher));
            rest = after;
        } else if first == '[' {
            rest = rest.split_once(']').expect("a closing bracket").1;
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    asked
}

/// `label=~"value"` in its parts.
fn matcher(text: &str) -> (String, String, String) {
    let (label, value) = text.trim().split_once(['=', '!']).expect("a matcher");
    let value = value.trim_start_matches(['=', '~']);
    let operator = text.trim()[label.len()..].trim_end_matches(value);
    (label.to_owned(), operator.to_owned(), value.trim_matches('"').to_owned())
}

/// The row of a metric as it is asked for, and whether it is asked for by bound.
fn row(name: &str) -> Option<(&'static Row, bool)> {
    if let Some(row) = TABLE.iter().find(|row| row.name == name) {
        return (row.shape != Shape::Histogram).then_some((row, false));
    }
    let (base, part) = name.rsplit_once('_')?;
    let row = TABLE.iter().find(|row| row.name == base && row.shape == Shape::Histogram)?;
    matches!(part, "bucket" | "sum" | "count").then_some((row, part == "bucket"))
}

/// What is wrong with an expression.
fn wrong(expression: &Expression) -> Vec<String> {
    let vendors = vendors::names();
    let mut found = Vec::new();
    let mut known: BTreeSet<&str> = OF_THE_SERVER.iter().copied().collect();
    let asked = asked(&expression.text);
    for (name, matchers) in &asked.metrics {
        if name == "up" {
            continue;
        }
        let Some((row, by_bound)) = row(name) else {
            found
                .push(format!("{name} is no metric of the table, or a histogram without its part"));
            continue;
        };
        known.extend(row.labels.iter().map(|label| label.name));
        known.extend(by_bound.then_some("le"));
        for (label, operator, value) in matchers {
            if OF_THE_SERVER.contains(&label.as_str()) {
                continue;
            }
            let Some(of_ours) = row.labels.iter().find(|known| known.name == label) else {
                found.push(format!("{name} has no label {label}"));
                continue;
            };
            let values = of_ours.values(&vendors);
            let several = operator.ends_with('~');
            let named = value.split(|c| several && c == '|');
            found.extend(
                named
                    .filter(|value| !values.contains(value))
                    .map(|value| format!("{label} of {name} is never {value}")),
            );
        }
    }
    if asked.metrics.is_empty() {
        found.push("it asks for nothing".to_owned());
    }
    let lost = asked.labels.iter().filter(|label| !known.contains(label.as_str()));
    found.extend(lost.map(|label| format!("nothing that is asked for has a label {label}")));
    found.iter().map(|what| format!("{}: {what}", expression.place)).collect()
}

fn of_alerts() -> Vec<Expression> {
    let of = |alert: crate::promql::Alert| Expression { place: alert.name, text: alert.expression };
    alerts().into_iter().map(of).collect()
}

#[test]
fn expressions_ask_for_what_there_is() {
    let found: Vec<String> = of_alerts().iter().chain(&panels()).flat_map(wrong).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_is_not_there_is_found() {
    let says =
        |text: &str| wrong(&Expression { place: "x".to_owned(), text: text.to_owned() }).join("; ");
    assert_eq!(says("sum by (vendor) (rate(webhook_events_total{status=\"503\"}[5m])) > 0.01"), "");
    assert_eq!(says("histogram_quantile(0.99, sum by (le) (semaphore_wait_seconds_bucket))"), "");
    for (bad, says_of_it) in [
        ("rate(bridge_requests_total[5m])", "no metric"),
        ("semaphore_wait_seconds > 1", "without its part"),
        ("webhook_events_total{state=\"503\"}", "no label state"),
        ("webhook_events_total{status=\"502\"}", "never 502"),
        ("webhook_events_total{status=~\"503|502\"}", "never 502"),
        ("sum by (vender) (webhook_events_total)", "a label vender"),
        ("sum by (le) (webhook_events_total)", "a label le"),
        ("1 > 0", "nothing"),
    ] {
        assert!(says(bad).contains(says_of_it), "{bad}: {}", says(bad));
    }
}

/// The anchors of the runbook's headings, as they are linked to.
fn anchors() -> BTreeSet<String> {
    include_str!("../../helm/README.md")
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|title| title.trim_start_matches('#').trim().to_lowercase())
        .map(|title| title.chars().filter(|c| c.is_alphanumeric() || " -".contains(*c)).collect())
        .map(|title: String| title.replace(' ', "-"))
        .collect()
}

#[test]
fn every_alert_names_a_heading_and_was_seen_to_fire() {
    let anchors = anchors();
    let tests = include_str!("../../helm/alerts/tests/bridge.yaml");
    let fires: BTreeSet<&str> = tests
        .split("alertname: ")
        .skip(1)
        .filter(|said| {
            said.split("eval_time").next().is_some_and(|part| part.contains("exp_labels"))
        })
        .filter_map(|said| said.split([',', '\n']).next())
        .collect();
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let anchor = alert.runbook.strip_prefix("helm/README.md#");
        assert!(
            anchor.is_some_and(|one| anchors.contains(one)),
            "{}: {}",
            alert.name,
            alert.runbook
        );
        assert!(fires.contains(alert.name.as_str()), "no test sees {} fire", alert.name);
        assert!(names.insert(alert.name.clone()), "{} stands twice", alert.name);
    }
}

#[test]
fn dashboards_have_what_grafana_asks_for() {
    let mut known = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(known.insert(dashboard["uid"].clone().to_string()), "{file}: an id twice");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().expect("panels") {
            assert!(ids.insert(panel["id"].as_i64().expect("an id")), "{file}: {panel}");
            assert!(panel["gridPos"]["w"].as_i64().is_some_and(|w| w <= 24), "{file}: {panel}");
            if panel["type"] != "row" {
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {panel}");
                assert!(!panel["targets"].as_array().expect("targets").is_empty(), "{file}");
            }
        }
    }
    let on_them: String = panels().into_iter().map(|panel| panel.text).collect();
    let unseen: Vec<&str> =
        TABLE.iter().map(|row| row.name).filter(|name| !on_them.contains(name)).collect();
    assert_eq!(unseen, Vec::<&str>::new(), "what nobody looks at need not be counted");
}
