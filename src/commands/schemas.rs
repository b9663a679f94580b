//! `schemas check|apply`: our schemas against the registry's.
//!
//! A subject must have the level FULL_TRANSITIVE and exactly our schema. `apply` sets the level first, because the
//! registry judges a schema by the level that is in force when it comes, and many registries start with none.

use std::io::Write;

use crate::cli;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::kafka::registry::{LEVEL, Registry};
use crate::model::contract::Topic;
use crate::roles::schema_of;

/// The topics whose values have a schema.
pub const SUBJECTS: [Topic; 3] =
    [Topic::NormalisedRecords, Topic::BiometricEvents, Topic::TerraBiometricEvents];

/// A schema of ours: the subject, without a deployment's prefix, and the schema's text.
pub type Ours<'a> = (&'a str, &'a str);

/// What the registry has of one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The id of exactly our schema.
    pub id: Option<u32>,
    /// The subject's own compatibility level.
    pub level: Option<String>,
    /// Whether it has any schema.
    pub any: bool,
    /// Whether the level in force would let ours in.
    pub compatible: bool,
}

/// One subject's part of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has our schema under this id, and the level.
    Keep(String, u32),
    /// The level is another one (or the registry's default): set it.
    SetLevel(String, Option<String>),
    /// It does not have our schema: register it.
    Register(String),
    /// What it has does not let ours in.
    Refuse(String),
}

/// What is to be done about a subject, in this order.
#[must_use]
pub fn diff(subject: &str, found: &Found) -> Vec<Step> {
    let mut steps = Vec::new();
    if found.level.as_deref() != Some(LEVEL) {
        steps.push(Step::SetLevel(subject.to_owned(), found.level.clone()));
    }
    match found.id {
        Some(id) if steps.is_empty() => steps.push(Step::Keep(subject.to_owned(), id)),
        Some(_) => {}
        None if found.any && !found.compatible => steps.push(Step::Refuse(subject.to_owned())),
        None => steps.push(Step::Register(subject.to_owned())),
    }
    steps
}

/// Whether the registry is as it must be for a process to start.
#[must_use]
pub fn good(steps: &[Step]) -> bool {
    steps.iter().all(|step| matches!(step, Step::Keep(..)))
}

async fn ask(registry: &Registry, subject: &str, schema: &str) -> Result<Found> {
    let id = registry.find(subject, schema).await?;
    let level = registry.level(subject).await?;
    let any = registry.latest(subject).await?.is_some();
    let compatible = !any || registry.compatible(subject, schema).await?;
    Ok(Found { id, level, any, compatible })
}

/// What differs; changes nothing. `prefix` is the deployment's, which stands before every subject.
///
/// # Errors
/// Where the registry does not answer.
pub async fn check(registry: &Registry, prefix: &str, ours: &[Ours<'_>]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for (subject, schema) in ours {
        let subject = format!("{prefix}{subject}");
        steps.extend(diff(&subject, &ask(registry, &subject, schema).await?));
    }
    Ok(steps)
}

/// Makes the registry as it must be and gives back what was done. Each subject's level is set before its schema is
/// judged.
///
/// # Errors
/// `schema_error` where a schema is refused as incompatible; else where the registry does not answer.
pub async fn apply(registry: &Registry, prefix: &str, ours: &[Ours<'_>]) -> Result<Vec<Step>> {
    let mut done = Vec::new();
    for (subject, schema) in ours {
        let subject = format!("{prefix}{subject}");
        let level = registry.level(&subject).await?;
        if level.as_deref() != Some(LEVEL) {
            registry.set_level(&subject).await?;
            done.push(Step::SetLevel(subject.clone(), level));
        }
        for step in diff(&subject, &ask(registry, &subject, schema).await?) {
            match &step {
                Step::Register(_) => drop(registry.register(&subject, schema).await?),
                Step::Refuse(subject) => {
                    let doing = "register a schema that earlier ones do not go with";
                    return Err(Error::new(Kind::SchemaError, doing, subject.clone()));
                }
                Step::Keep(..) | Step::SetLevel(..) => {}
            }
            done.push(step);
        }
    }
    Ok(done)
}

/// A plan, or what was done, as text: one line a step.
#[must_use]
pub fn text(steps: &[Step]) -> String {
    let mut lines: Vec<String> = steps
        .iter()
        .map(|step| match step {
            Step::Keep(subject, id) => format!("  keep      {subject} (id {id})"),
            Step::SetLevel(subject, level) => {
                let is = level.as_deref().unwrap_or("the registry's default");
                format!("~ level     {subject}: {is} -> {LEVEL}")
            }
            Step::Register(subject) => format!("+ register  {subject}"),
            Step::Refuse(subject) => {
                format!("! refuse    {subject}: earlier schemas do not go with it")
            }
        })
        .collect();
    lines.push(String::new());
    lines.join("\n")
}

/// Steps for machines.
#[must_use]
pub fn json(steps: &[Step]) -> serde_json::Value {
    let one = |step: &Step| match step {
        Step::Keep(subject, id) => {
            serde_json::json!({"step": "keep", "subject": subject, "id": id})
        }
        Step::SetLevel(subject, is) => {
            serde_json::json!({"step": "level", "subject": subject, "is": is, "wanted": LEVEL})
        }
        Step::Register(subject) => serde_json::json!({"step": "register", "subject": subject}),
        Step::Refuse(subject) => serde_json::json!({"step": "refuse", "subject": subject}),
    };
    steps.iter().map(one).collect()
}

/// The command; gives the exit code: 1 where `check` finds a difference.
pub async fn run(what: &cli::Schemas, config: &Config, out: &mut impl Write) -> u8 {
    let subjects = SUBJECTS.map(|topic| (format!("{topic}-value"), schema_of(topic)));
    let ours: Vec<Ours<'_>> =
        subjects.iter().map(|(subject, schema)| (subject.as_str(), *schema)).collect();
    let prefix = &config.kafka.topic_prefix;
    let registry = match Registry::new(&config.registry) {
        Ok(registry) => registry,
        Err(error) => return super::done(Err(error)),
    };
    let (output, steps, checks) = match what {
        cli::Schemas::Check(output) => (output, check(&registry, prefix, &ours).await, true),
        cli::Schemas::Apply(output) => (output, apply(&registry, prefix, &ours).await, false),
    };
    let told = steps.as_ref().map_err(Clone::clone).and_then(|steps| {
        let plain = || text(steps);
        let shown = if output.json { format!("{}\n", json(steps)) } else { plain() };
        super::say(out, &shown)
    });
    match (super::done(told), steps) {
        (0, Ok(steps)) if checks && !good(&steps) => super::FAILED,
        (code, _) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_a_subject_has_its_steps() {
        let full = Some(LEVEL.to_owned());
        let good_one = Found { id: Some(7), level: full.clone(), any: true, compatible: true };
        assert_eq!(diff("s", &good_one), [Step::Keep("s".into(), 7)]);
        assert!(good(&diff("s", &good_one)));
        let empty = diff("s", &Found { compatible: true, ..Found::default() });
        assert_eq!(empty, [Step::SetLevel("s".into(), None), Step::Register("s".into())]);
        let lax = Found { level: Some("NONE".into()), ..good_one.clone() };
        assert_eq!(diff("s", &lax), [Step::SetLevel("s".into(), Some("NONE".into()))]);
        let newer = Found { id: None, ..good_one };
        assert_eq!(diff("s", &newer), [Step::Register("s".into())]);
        let broken = Found { compatible: false, ..newer };
        assert_eq!(diff("s", &broken), [Step::Refuse("s".into())]);
        assert!(!good(&diff("s", &broken)));
        assert!(text(&diff("s", &broken)).contains("! refuse    s"));
    }
}
