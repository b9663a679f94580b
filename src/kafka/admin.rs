//! The topics as they are declared and as they are: what `topics plan|apply|describe` and the check at start ask.
//!
//! The files of `topics/` are compiled in, so that the binary needs none. What differs is worked out elsewhere and
//! purely (`commands/topics.rs`); here is what is declared, what there is, and the two things that may be done.

use std::collections::BTreeMap;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use serde::Deserialize;

use super::settings::{ASK, Settings};
use super::watch::{Watch, broken};
use crate::error::{Error, Kind, Result};
use crate::model::contract::Topic;

const DEFAULTS: &str = include_str!("../../topics/_defaults.toml");

/// The file of a topic.
const fn file(topic: Topic) -> &'static str {
    match topic {
        Topic::RawWebhooks => include_str!("../../topics/raw-webhooks.toml"),
        Topic::RawTerra => include_str!("../../topics/raw-terra.toml"),
        Topic::RawDocuments => include_str!("../../topics/raw-documents.toml"),
        Topic::NormalisedRecords => include_str!("../../topics/normalised-records.toml"),
        Topic::BiometricEvents => include_str!("../../topics/biometric-events.toml"),
        Topic::TerraBiometricEvents => include_str!("../../topics/terra-biometric-events.toml"),
        Topic::DeadLetters => include_str!("../../topics/biometric-events.dlq.toml"),
    }
}

/// A topic as its file declares it, the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Its name, without a deployment's prefix.
    pub name: String,
    /// What it is for.
    pub why: String,
    /// What the key of a record is.
    pub key: String,
    /// `bytes`, or `avro:` and the subject.
    pub value: String,
    /// How many partitions; never changed afterwards.
    pub partitions: i32,
    /// How long a record is kept, hours; −1 for ever.
    pub retention_hours: i64,
    /// Kafka's `cleanup.policy`.
    pub cleanup: String,
    /// The largest record, bytes.
    pub max_message_bytes: u32,
    /// Who writes it.
    pub writers: Vec<String>,
    /// Who reads it.
    pub readers: Vec<String>,
}

impl Declared {
    /// The topic's settings in Kafka, in this deployment.
    #[must_use]
    pub fn configs(&self, settings: &Settings) -> BTreeMap<String, String> {
        let declared = u64::try_from(self.retention_hours).ok();
        let bound = settings.retention_hours_max.map(u64::from);
        let hours = match (declared, bound) {
            (Some(declared), Some(bound)) => Some(declared.min(bound)),
            (declared, bound) => declared.or(bound),
        };
        let retention = hours.map_or("-1".to_owned(), |hours| (hours * 3_600_000).to_string());
        BTreeMap::from([
            ("cleanup.policy".to_owned(), self.cleanup.clone()),
            ("max.message.bytes".to_owned(), self.max_message_bytes.to_string()),
            ("min.insync.replicas".to_owned(), settings.min_insync.to_string()),
            ("retention.bytes".to_owned(), "-1".to_owned()), // by time alone, whatever the brokers' default
            ("retention.ms".to_owned(), retention),
            // Rather away than wrong: a replica that lacks acknowledged records must not become the leader.
            ("unclean.leader.election.enable".to_owned(), "false".to_owned()),
        ])
    }
}

/// All topics as declared, in the order of [`Topic::ALL`].
///
/// # Errors
/// Where a file is not what this version reads: a fault of ours, which a test finds.
pub fn declared() -> Result<Vec<(Topic, Declared)>> {
    const DOING: &str = "read the declared topics";
    let parse = |text: &str| text.parse::<toml::Table>().map_err(|_| Error::internal(DOING));
    let defaults = parse(DEFAULTS)?;
    Topic::ALL
        .into_iter()
        .map(|topic| {
            let mut table = defaults.clone();
            table.extend(parse(file(topic))?);
            let declared: Declared = table
                .try_into()
                .map_err(|_| Error::new(Kind::InternalError, DOING, topic.name()))?;
            Ok((topic, declared))
        })
        .collect()
}

/// A topic as the brokers have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas the partition with the fewest has.
    pub replication: i32,
    /// Every setting in force, by name.
    pub configs: BTreeMap<String, String>,
    /// Those that were set for this topic; the others are the brokers' defaults.
    pub own: BTreeMap<String, String>,
}

#[derive(Default)]
struct Quiet(Watch);

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, text: &str) {
        self.0.error(&error, text);
    }
}

/// Asks the brokers about topics, and changes them.
pub struct Admin {
    settings: Settings,
    client: std::sync::Arc<AdminClient<Quiet>>,
}

impl Admin {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// Where the settings are not what the library takes, or a password file cannot be read.
    pub fn new(settings: &Settings) -> Result<Self> {
        let client = settings
            .client("admin")?
            .create_with_context(Quiet::default())
            .map_err(|error| broken("make an admin client", &error))?;
        Ok(Self { settings: settings.clone(), client: std::sync::Arc::new(client) })
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK))
    }

    /// Those of our topics that there are.
    ///
    /// # Errors
    /// Where the brokers do not answer, or not this client.
    pub async fn actual(&self) -> Result<BTreeMap<Topic, Actual>> {
        let mut found = self.layout().await?;
        const DOING: &str = "read the settings of topics";
        let names: BTreeMap<String, Topic> =
            found.keys().map(|topic| (self.settings.physical(topic.name()), *topic)).collect();
        let asked: Vec<ResourceSpecifier<'_>> =
            names.keys().map(|name| ResourceSpecifier::Topic(name)).collect();
        if asked.is_empty() {
            return Ok(found);
        }
        let described = self
            .client
            .describe_configs(&asked, &Self::options())
            .await
            .map_err(|error| broken(DOING, &error))?;
        for resource in described {
            let resource = resource
                .map_err(|code| Error::new(Kind::BrokerUnavailable, DOING, format!("{code:?}")))?;
            let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = &resource.specifier else {
                continue;
            };
            let Some(actual) = names.get(name).and_then(|topic| found.get_mut(topic)) else {
                continue;
            };
            for entry in resource.entries {
                let value = entry.value.unwrap_or_default();
                if entry.source == ConfigSource::DynamicTopic {
                    actual.own.insert(entry.name.clone(), value.clone());
                }
                actual.configs.insert(entry.name, value);
            }
        }
        Ok(found)
    }

    /// Partitions and replicas. All topics are asked for: asking for one by name can create it.
    async fn layout(&self) -> Result<BTreeMap<Topic, Actual>> {
        const DOING: &str = "list topics";
        let client = std::sync::Arc::clone(&self.client);
        let settings = self.settings.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let metadata = client.inner().fetch_metadata(None, ASK)?;
            let ours = metadata.topics().iter().filter_map(|topic| {
                let name = settings.logical(topic.name())?;
                let fewest = topic.partitions().iter().map(|part| part.replicas().len()).min();
                let actual = Actual {
                    partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
                    replication: i32::try_from(fewest.unwrap_or(0)).unwrap_or(i32::MAX),
                    ..Actual::default()
                };
                Some((name, actual))
            });
            Ok::<_, KafkaError>(ours.collect())
        });
        listed.await.map_err(|_| Error::internal(DOING))?.map_err(|error| broken(DOING, &error))
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// Where the brokers refuse: too few of them, no right to, or it is there already.
    pub async fn create(&self, declared: &Declared) -> Result<()> {
        const DOING: &str = "create a topic";
        let name = self.settings.physical(&declared.name);
        let configs = declared.configs(&self.settings);
        let replication = TopicReplication::Fixed(self.settings.replication);
        let topic = configs
            .iter()
            .fold(NewTopic::new(&name, declared.partitions, replication), |topic, (key, value)| {
                topic.set(key, value)
            });
        let created = self
            .client
            .create_topics([&topic], &Self::options())
            .await
            .map_err(|error| broken(DOING, &error))?;
        done(DOING, created.into_iter().map(|result| result.map(drop).map_err(|(_, code)| code)))
    }

    /// Sets these settings of a topic; its other own settings stay as `actual` says.
    ///
    /// # Errors
    /// Where the brokers refuse a value, or this client.
    pub async fn alter(
        &self,
        topic: Topic,
        actual: &Actual,
        changes: &BTreeMap<String, String>,
    ) -> Result<()> {
        const DOING: &str = "change the settings of a topic";
        let name = self.settings.physical(topic.name());
        // The request replaces all settings of the topic, so those that stay are said again.
        let mut all = actual.own.clone();
        all.extend(changes.clone());
        let alter = all
            .iter()
            .fold(AlterConfig::new(ResourceSpecifier::Topic(&name)), |alter, (key, value)| {
                alter.set(key, value)
            });
        let altered = self
            .client
            .alter_configs([&alter], &Self::options())
            .await
            .map_err(|error| broken(DOING, &error))?;
        done(DOING, altered.into_iter().map(|result| result.map(drop).map_err(|(_, code)| code)))
    }
}

fn done(
    doing: &'static str,
    results: impl Iterator<Item = Result<(), RDKafkaErrorCode>>,
) -> Result<()> {
    for result in results {
        result.map_err(|code| Error::new(Kind::BrokerUnavailable, doing, format!("{code:?}")))?;
    }
    Ok(())
}

/// Whether these topics are there as they must be: what a role asks before it opens its doors.
///
/// # Errors
/// Names the first that is missing, or has another number of partitions or, in production, too few replicas; with
/// what to run.
pub async fn check(settings: &Settings, topics: &[Topic], production: bool) -> Result<()> {
    let actual = Admin::new(settings)?.actual().await?;
    judge(&declared()?, &actual, topics, production)
}

fn judge(
    declared: &[(Topic, Declared)],
    actual: &BTreeMap<Topic, Actual>,
    topics: &[Topic],
    production: bool,
) -> Result<()> {
    let wrong = |doing, topic: Topic| Err(Error::new(Kind::InternalError, doing, topic.name()));
    for (topic, declared) in declared.iter().filter(|(topic, _)| topics.contains(topic)) {
        let Some(actual) = actual.get(topic) else {
            return wrong("find a topic; run `biometric-bridge topics apply`", *topic);
        };
        if actual.partitions != declared.partitions {
            return wrong("count a topic's partitions; run `biometric-bridge topics plan`", *topic);
        }
        let min_insync = actual.configs.get("min.insync.replicas");
        let min_insync: i32 = min_insync.and_then(|text| text.parse().ok()).unwrap_or(1);
        if production && (actual.replication < 3 || min_insync < 2) {
            return wrong(
                "count a topic's replicas; production needs 3, 2 of them in sync",
                *topic,
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::settings::tests::local;

    #[test]
    fn every_file_is_read_and_names_its_topic() {
        for (topic, declared) in declared().unwrap() {
            assert_eq!(declared.name, topic.name());
            assert!(declared.partitions > 0);
        }
    }

    #[test]
    fn retention_is_the_declared_one_within_the_bound() {
        let settings = local(|_| {});
        let bounded = local(|settings| settings.retention_hours_max = Some(24));
        let retention = |topic: Topic, settings: &Settings| {
            let all = declared().unwrap();
            let (_, declared) = all.iter().find(|(known, _)| *known == topic).unwrap();
            declared.configs(settings)["retention.ms"].clone()
        };
        assert_eq!(retention(Topic::RawWebhooks, &settings), "-1");
        assert_eq!(retention(Topic::RawWebhooks, &bounded), "86400000");
        assert_eq!(retention(Topic::TerraBiometricEvents, &settings), "604800000");
        assert_eq!(retention(Topic::TerraBiometricEvents, &bounded), "86400000");
    }

    #[test]
    fn a_start_is_refused_for_what_it_needs_and_for_nothing_else() {
        let declared = declared().unwrap();
        let topics = [Topic::RawWebhooks, Topic::DeadLetters];
        let good = |partitions| Actual {
            partitions,
            replication: 3,
            configs: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
            own: BTreeMap::new(),
        };
        let mut actual =
            BTreeMap::from([(Topic::RawWebhooks, good(24)), (Topic::DeadLetters, good(6))]);
        assert_eq!(judge(&declared, &actual, &topics, true), Ok(()));
        actual.insert(Topic::DeadLetters, Actual { replication: 1, ..good(6) });
        assert_eq!(judge(&declared, &actual, &topics, false), Ok(()));
        assert!(judge(&declared, &actual, &topics, true).is_err());
        actual.insert(Topic::DeadLetters, good(7));
        let error = judge(&declared, &actual, &topics, false).unwrap_err();
        assert!(error.doing.contains("topics plan") && error.code == "biometric-events.dlq");
        actual.remove(&Topic::DeadLetters);
        let error = judge(&declared, &actual, &topics, false).unwrap_err();
        assert!(error.doing.contains("topics apply"));
        assert_eq!(judge(&declared, &actual, &topics[..1], false), Ok(()));
    }
}
