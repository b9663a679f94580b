//! `topics plan|apply|describe`: the declared topics against the brokers'.
//!
//! The difference is worked out purely ([`diff`]); the shell asks, and carries out what may be carried out. A plan
//! with a refusal in it is not applied at all, so that nobody takes half of it for the whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use comfy_table::Table;

use crate::cli;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::kafka::admin::{Actual, Admin, Declared, declared};
use crate::kafka::settings::Settings;
use crate::model::contract::Topic;
use crate::stream::clock::Stopwatch;

/// One topic's part of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is as declared.
    Keep(Topic),
    /// It is not there: create it.
    Create(Topic),
    /// Settings differ: by name, what is and what is to be.
    Alter(Topic, BTreeMap<String, (String, String)>),
    /// It cannot be made as declared: why, and the two numbers (is, declared).
    Refuse(Topic, &'static str, (i32, i32)),
    /// It differs in what is not ours to change: what, and the two numbers (is, declared).
    Note(Topic, &'static str, (i32, i32)),
}

/// What differs, topic by topic.
#[must_use]
pub fn diff(
    declared: &[(Topic, Declared)],
    settings: &Settings,
    actual: &BTreeMap<Topic, Actual>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (topic, declared) in declared {
        let Some(actual) = actual.get(topic) else {
            steps.push(Step::Create(*topic));
            continue;
        };
        if actual.partitions != declared.partitions {
            let counts = (actual.partitions, declared.partitions);
            let why = "another number of partitions would re-key it";
            steps.push(Step::Refuse(*topic, why, counts));
            continue;
        }
        if actual.replication != settings.replication {
            let counts = (actual.replication, settings.replication);
            steps.push(Step::Note(
                *topic,
                "replicas differ; move them with the brokers' tools",
                counts,
            ));
        }
        let changes: BTreeMap<String, (String, String)> = declared
            .configs(settings)
            .into_iter()
            .filter_map(|(key, wanted)| {
                let is = actual.configs.get(&key).cloned().unwrap_or_default();
                (is != wanted).then_some((key, (is, wanted)))
            })
            .collect();
        steps.push(if changes.is_empty() {
            Step::Keep(*topic)
        } else {
            Step::Alter(*topic, changes)
        });
    }
    steps
}

/// Whether a plan holds what is never done.
#[must_use]
pub fn refuses(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Refuse(..)))
}

/// What would be done; changes nothing.
///
/// # Errors
/// Where the brokers do not answer.
pub async fn plan(settings: &Settings) -> Result<Vec<Step>> {
    Ok(diff(&declared()?, settings, &Admin::new(settings)?.actual().await?))
}

/// Carries the plan out and gives it back.
///
/// # Errors
/// Where it refuses something (nothing is done then; show [`plan`]), or the brokers do not answer or refuse.
pub async fn apply(settings: &Settings) -> Result<Vec<Step>> {
    let admin = Admin::new(settings)?;
    let declared = declared()?;
    let actual = admin.actual().await?;
    let steps = diff(&declared, settings, &actual);
    if refuses(&steps) {
        return Err(Error::new(
            Kind::InternalError,
            "apply topics; run `biometric-bridge topics plan`",
            "refused",
        ));
    }
    for step in &steps {
        match step {
            Step::Create(topic) => {
                for (_, declared) in declared.iter().filter(|(known, _)| known == topic) {
                    admin.create(declared).await?;
                }
            }
            Step::Alter(topic, changes) => {
                if let Some(actual) = actual.get(topic) {
                    let wanted = changes
                        .iter()
                        .map(|(key, (_, wanted))| (key.clone(), wanted.clone()))
                        .collect();
                    admin.alter(*topic, actual, &wanted).await?;
                }
            }
            Step::Keep(_) | Step::Refuse(..) | Step::Note(..) => {}
        }
    }
    settle(&admin, &steps).await?;
    Ok(steps)
}

/// How long a created topic may take until every broker knows it.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// Waits until what was created can be seen: a controller has a topic before its brokers do, and a process that
/// is started in between would find it missing.
async fn settle(admin: &Admin, steps: &[Step]) -> Result<()> {
    let begun = Stopwatch::start();
    loop {
        let actual = admin.actual().await?;
        let missing = |step: &&Step| match step {
            Step::Create(topic) => !actual.contains_key(topic),
            Step::Keep(_) | Step::Alter(..) | Step::Refuse(..) | Step::Note(..) => false,
        };
        if !steps.iter().any(|step| missing(&step)) {
            return Ok(());
        }
        if begun.elapsed() > SETTLES_WITHIN {
            return Err(Error::new(Kind::BrokerUnavailable, "see a topic that was created", ""));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A plan as text, one line a step and one more for each setting that changes.
#[must_use]
pub fn text(steps: &[Step]) -> String {
    let mut lines = Vec::new();
    for step in steps {
        match step {
            Step::Keep(topic) => lines.push(format!("  keep    {}", topic.name())),
            Step::Create(topic) => lines.push(format!("+ create  {}", topic.name())),
            Step::Alter(topic, changes) => {
                lines.push(format!("~ alter   {}", topic.name()));
                for (key, (is, wanted)) in changes {
                    lines.push(format!("            {key}: {is} -> {wanted}"));
                }
            }
            Step::Refuse(topic, why, (is, wanted)) => {
                lines.push(format!("! refuse  {}: {why} ({is} -> {wanted})", topic.name()));
            }
            Step::Note(topic, what, (is, wanted)) => {
                lines.push(format!("  note    {}: {what} ({is} -> {wanted})", topic.name()));
            }
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A plan for machines.
#[must_use]
pub fn json(steps: &[Step]) -> serde_json::Value {
    let one = |step: &Step| match step {
        Step::Keep(topic) => serde_json::json!({"step": "keep", "topic": topic}),
        Step::Create(topic) => serde_json::json!({"step": "create", "topic": topic}),
        Step::Alter(topic, changes) => {
            serde_json::json!({"step": "alter", "topic": topic, "changes": changes})
        }
        Step::Refuse(topic, why, (is, wanted)) => serde_json::json!(
            {"step": "refuse", "topic": topic, "why": why, "is": is, "wanted": wanted}),
        Step::Note(topic, why, (is, wanted)) => serde_json::json!(
            {"step": "note", "topic": topic, "why": why, "is": is, "wanted": wanted}),
    };
    steps.iter().map(one).collect()
}

/// The command; gives the exit code: 1 where the plan refuses something.
pub async fn run(what: &cli::Topics, config: &Config, out: &mut impl Write) -> u8 {
    let settings = &config.kafka;
    let (output, steps) = match what {
        cli::Topics::Plan(output) => (output, plan(settings).await),
        cli::Topics::Apply(output) => (output, apply(settings).await),
        cli::Topics::Describe(_) => {
            return super::done(match describe(settings).await {
                Ok(table) => super::say(out, &format!("{table}\n")),
                Err(error) => Err(error),
            });
        }
    };
    let told = steps.as_ref().map_err(Clone::clone).and_then(|steps| {
        let plain = || text(steps);
        let shown = if output.json { format!("{}\n", json(steps)) } else { plain() };
        super::say(out, &shown)
    });
    match (super::done(told), steps) {
        (0, Ok(steps)) if refuses(&steps) => super::FAILED,
        (code, _) => code,
    }
}

/// What there is beside what is declared, and what each topic is for, as a table.
///
/// # Errors
/// Where the brokers do not answer.
pub async fn describe(settings: &Settings) -> Result<String> {
    let actual = Admin::new(settings)?.actual().await?;
    Ok(table(&declared()?, settings, &actual))
}

fn table(
    declared: &[(Topic, Declared)],
    settings: &Settings,
    actual: &BTreeMap<Topic, Actual>,
) -> String {
    let mut table = Table::new();
    table.set_header([
        "topic",
        "there",
        "partitions",
        "retention",
        "key",
        "writers",
        "readers",
        "why",
    ]);
    for (topic, declared) in declared {
        let there = actual.get(topic).map_or("no".to_owned(), |actual| {
            format!("{} × {}", actual.partitions, actual.replication)
        });
        let retention =
            match declared.configs(settings).get("retention.ms").map(|ms| ms.parse::<i64>()) {
                Some(Ok(ms)) if ms >= 0 => format!("{} h", ms / 3_600_000),
                _ => "for ever".to_owned(),
            };
        table.add_row([
            settings.physical(topic.name()),
            there,
            declared.partitions.to_string(),
            retention,
            declared.key.clone(),
            declared.writers.join(", "),
            declared.readers.join(", "),
            declared.why.clone(),
        ]);
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let text = r#"
            brokers = "127.0.0.1:9092"
            group_protocol = "classic"
            replication = 1
            min_insync = 1
            send_timeout_ms = 5000
            send_queue_bytes_max = 67108864
            fetch_queue_bytes_max = 16777216
            partition_queue_bytes_max = 2097152
            security = { protocol = "plaintext" }
        "#;
        toml::from_str(text).unwrap()
    }

    fn as_declared(settings: &Settings) -> BTreeMap<Topic, Actual> {
        let actual = |declared: Declared| Actual {
            partitions: declared.partitions,
            replication: settings.replication,
            configs: declared.configs(settings),
            own: BTreeMap::new(),
        };
        declared().unwrap().into_iter().map(|(topic, file)| (topic, actual(file))).collect()
    }

    #[test]
    fn nothing_differs_from_itself() {
        let settings = settings();
        let steps = diff(&declared().unwrap(), &settings, &as_declared(&settings));
        assert_eq!(steps, Topic::ALL.map(Step::Keep));
        assert!(!refuses(&steps));
    }

    #[test]
    fn each_difference_has_its_step() {
        let settings = settings();
        let mut actual = as_declared(&settings);
        actual.remove(&Topic::RawTerra);
        actual.get_mut(&Topic::NormalisedRecords).unwrap().partitions = 23;
        actual.get_mut(&Topic::BiometricEvents).unwrap().replication = 3;
        let dead_letters = actual.get_mut(&Topic::DeadLetters).unwrap();
        dead_letters.configs.insert("retention.ms".to_owned(), "1".to_owned());
        let steps = diff(&declared().unwrap(), &settings, &actual);
        assert!(refuses(&steps));
        let text = text(&steps);
        for line in [
            "  keep    raw-webhooks",
            "+ create  raw-terra",
            "! refuse  normalised-records: another number of partitions would re-key it (23 -> 24)",
            "  note    biometric-events: replicas differ; move them with the brokers' tools (3 -> 1)",
            "~ alter   biometric-events.dlq",
            "            retention.ms: 1 -> 7776000000",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\nin\n{text}");
        }
    }

    #[test]
    fn the_table_says_what_is_missing() {
        let settings = settings();
        let mut actual = as_declared(&settings);
        actual.remove(&Topic::RawTerra);
        let table = table(&declared().unwrap(), &settings, &actual);
        assert!(table.contains("no") && table.contains("24 × 1") && table.contains("for ever"));
    }
}
