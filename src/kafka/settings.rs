//! Every librdkafka property we rely on, pinned, with its reason; nothing by default.
//!
//! # Why so little is configurable
//! The session, the transaction and the retry times are parts of the exactly-once protocol: they stand here as
//! constants, because a deployment that changes one of them breaks a promise rather than tuning it. What differs
//! from one deployment to the next (addresses, credentials, replicas, memory) is a key. There is no pass-through of
//! other librdkafka properties.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::model::contract::Topic;

/// The largest record anywhere: raw topics, canonical records and both outputs (`design.md` §4).
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a member may be silent before its partitions go to others: a takeover is a matter of seconds.
pub(super) const SESSION: Duration = Duration::from_millis(6000);
/// How long a transaction may stay open: readers of committed records wait for it no longer than this.
pub(super) const TRANSACTION: Duration = Duration::from_millis(6000);
/// One call of `commit_transaction`. It may be repeated until the worker's deadline, below [`TRANSACTION`].
pub(super) const COMMIT_CALL: Duration = Duration::from_millis(1000);
/// One call of `send_offsets_to_transaction` or `abort_transaction`.
pub(super) const TXN_CALL: Duration = Duration::from_millis(4000);
/// `init_transactions`: it waits for what the id had open, at most [`TRANSACTION`].
pub(super) const INIT_CALL: Duration = Duration::from_millis(10_000);
/// How long a revoke waits for the worker to release what it has under way (`exactly_once.md` §1.5).
pub(super) const RELEASE: Duration = Duration::from_millis(5000);
/// One look-up of a committed offset: short, because who waits for it must see a revoke.
pub(super) const COMMITTED_CALL: Duration = Duration::from_millis(1000);
/// Any other question to a broker: bounds, metadata, a commit outside of a transaction, topic administration.
pub(super) const ASK: Duration = Duration::from_millis(10_000);
/// How long the reader waits for one record.
pub(super) const READ: Duration = Duration::from_millis(5000);
/// How long a record of a transaction may wait for its acknowledgement; below [`TRANSACTION`].
const TXN_MESSAGE: Duration = Duration::from_millis(5000);

/// Where Kafka is and how this process speaks to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `host:port`, comma separated: the brokers that are asked first.
    pub brokers: String,
    /// Stands before every topic name, group and transactional id; empty in production. Tests use it to have
    /// topics of their own.
    #[serde(default)]
    pub topic_prefix: String,
    /// How members share partitions.
    pub group_protocol: GroupProtocol,
    /// How many brokers hold each record; 3 or more in production.
    pub replication: i32,
    /// How many of them must have it before it is acknowledged; 2 or more in production.
    pub min_insync: i32,
    /// A bound on every topic's retention, in hours, where a machine cannot keep what `topics/` declares.
    #[serde(default)]
    pub retention_hours_max: Option<u32>,
    /// How long a record sent outside of a transaction may wait for its acknowledgement, ms.
    pub send_timeout_ms: u32,
    /// Bytes that may wait in one producer; more is refused at once.
    pub send_queue_bytes_max: u32,
    /// Bytes that one consumer fetches ahead.
    pub fetch_queue_bytes_max: u32,
    /// Bytes of one partition that wait for the worker; at this the partition is paused.
    pub partition_queue_bytes_max: u32,
    /// Encryption and identity.
    pub security: Security,
}

/// How members of a group share partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// The client-side protocol, cooperative-sticky: works with every broker from 2.4 on.
    Classic,
    /// KIP-848: the broker assigns. Brokers from 4.0 on; its times are the broker's settings.
    Consumer,
}

/// Encryption and identity towards the brokers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// What is spoken on the wire.
    pub protocol: Protocol,
    /// Certificates that the brokers' are checked against; the system's where absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// This client's certificate, where the brokers ask for one.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// How the password is proven.
    #[serde(default)]
    pub mechanism: Option<Mechanism>,
    /// The user.
    #[serde(default)]
    pub username: Option<String>,
    /// The password; in production only as a file.
    #[serde(default)]
    pub password: Option<SecretString>,
    /// A file that holds the password; read whenever a client is made, so a rotated one is taken up.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// What is spoken on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Neither encrypted nor authenticated: loopback only.
    Plaintext,
    /// Encrypted.
    Ssl,
    /// Authenticated, not encrypted.
    SaslPlaintext,
    /// Both: what production uses.
    SaslSsl,
}

/// How the password is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// The password itself; only inside TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Challenge and response over SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Challenge and response over SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// What a member does when its position lies below the log's first record. One beyond its end always makes new tasks
/// of all partitions: it was counted in another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// Goes on with the first record there is (normalise: the raw bytes are gone, whoever looks).
    Earliest,
    /// All partitions become new tasks, and the recovery of the one that is outside sees the log's bounds and stops
    /// it (decide: never jump silently).
    Recover,
}

/// The names in Kafka of all topics, made once.
pub(super) struct Names([String; Topic::ALL.len()]);

impl Names {
    /// That of this one.
    pub(super) fn of(&self, topic: Topic) -> &str {
        let at = Topic::ALL.iter().position(|known| *known == topic);
        at.and_then(|at| self.0.get(at)).map_or("", String::as_str)
    }
}

impl Settings {
    /// The names in Kafka of all topics.
    pub(super) fn names(&self) -> Names {
        Names(Topic::ALL.map(|topic| self.physical(topic.name())))
    }

    /// The name in Kafka of a topic, and of anything else that is named after one.
    #[must_use]
    pub fn physical(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    /// The topic of a name in Kafka.
    #[must_use]
    pub fn logical(&self, physical: &str) -> Option<Topic> {
        physical.strip_prefix(&self.topic_prefix).and_then(Topic::parse)
    }

    /// What is wrong with these settings: the key and what is allowed. Nothing is opened for it.
    #[must_use]
    pub fn problems(&self, production: bool) -> Vec<(&'static str, &'static str)> {
        let security = &self.security;
        let sasl = matches!(security.protocol, Protocol::SaslPlaintext | Protocol::SaslSsl);
        let password = security.password.is_some() || security.password_file.is_some();
        let bytes = u32::try_from(RECORD_BYTES_MAX).unwrap_or(u32::MAX);
        let rules: [(&'static str, bool, &'static str); 14] = [
            ("brokers", self.brokers.trim().is_empty(), "host:port, comma separated"),
            ("topic_prefix", !plain(&self.topic_prefix), "letters, digits, '.', '_' and '-'"),
            ("replication", self.replication < 1, "1 or more"),
            ("min_insync", self.min_insync < 1, "1 or more"),
            ("min_insync", self.min_insync > self.replication, "at most replication"),
            ("replication", production && self.replication < 3, "3 or more in production"),
            ("min_insync", production && self.min_insync < 2, "2 or more in production"),
            ("send_timeout_ms", self.send_timeout_ms < 1000, "1000 or more"),
            ("send_queue_bytes_max", self.send_queue_bytes_max < bytes, "one record, 16777216"),
            ("fetch_queue_bytes_max", self.fetch_queue_bytes_max < 1024, "1024 or more"),
            ("partition_queue_bytes_max", self.partition_queue_bytes_max < 2, "2 or more"),
            (
                "security.mechanism",
                sasl && (security.mechanism.is_none() || security.username.is_none() || !password),
                "with sasl: mechanism, username and password or password_file",
            ),
            (
                "security.password",
                production && security.password.is_some(),
                "in production only password_file",
            ),
            (
                "security.protocol",
                security.mechanism == Some(Mechanism::Plain)
                    && security.protocol == Protocol::SaslPlaintext
                    && production,
                "PLAIN only inside TLS",
            ),
        ];
        rules
            .into_iter()
            .filter(|(_, broken, _)| *broken)
            .map(|(key, _, allowed)| (key, allowed))
            .collect()
    }

    /// What every client has.
    pub(super) fn client(&self, id: &str) -> Result<ClientConfig> {
        let mut config = ClientConfig::new();
        // The lines by which a lost connection and a timed-out request show are of levels 6 and 4 (H9 needs them).
        config.set_log_level(RDKafkaLogLevel::Info);
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", id)
            .set("log.connection.close", "true") // or a lost connection leaves no trace at all
            .set("socket.keepalive.enable", "true") // a peer that vanished without a FIN
            .set("socket.nagle.disable", "true") // small requests, each of them waited for
            .set("socket.connection.setup.timeout.ms", "5000") // of 30 s: an address that is gone
            .set("reconnect.backoff.max.ms", "1000"); // of 10 s: back within seconds of an outage
        self.identity(&mut config)?;
        Ok(config)
    }

    fn identity(&self, config: &mut ClientConfig) -> Result<()> {
        let security = &self.security;
        config.set(
            "security.protocol",
            match security.protocol {
                Protocol::Plaintext => "plaintext",
                Protocol::Ssl => "ssl",
                Protocol::SaslPlaintext => "sasl_plaintext",
                Protocol::SaslSsl => "sasl_ssl",
            },
        );
        let files = [
            ("ssl.ca.location", &security.ca_file),
            ("ssl.certificate.location", &security.certificate_file),
            ("ssl.key.location", &security.key_file),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                config.set(key, file.to_string_lossy());
            }
        }
        if matches!(security.protocol, Protocol::SaslPlaintext | Protocol::SaslSsl) {
            config.set(
                "sasl.mechanism",
                match security.mechanism.unwrap_or(Mechanism::ScramSha512) {
                    Mechanism::Plain => "PLAIN",
                    Mechanism::ScramSha256 => "SCRAM-SHA-256",
                    Mechanism::ScramSha512 => "SCRAM-SHA-512",
                },
            );
            config.set("sasl.username", security.username.as_deref().unwrap_or_default());
            config.set("sasl.password", security.secret()?.expose_secret());
        }
        Ok(())
    }

    fn consumer(&self, group: &str) -> Result<ClientConfig> {
        let mut config = self.client(group)?;
        config
            .set("group.id", group)
            .set("isolation.level", "read_committed") // also what makes offset look-ups stable
            .set("enable.auto.commit", "false") // offsets are committed by us, in the transaction
            .set("enable.auto.offset.store", "false")
            .set("check.crcs", "true") // bit rot is an error, not a record
            .set("allow.auto.create.topics", "false") // a misspelt name must not make a topic
            .set("fetch.min.bytes", "1") // a record is handed out as soon as it is there
            .set("fetch.wait.max.ms", "100") // what a long poll costs a partition that was just sought
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.queue.backoff.ms", "20") // of 1000: a full queue must not stall a second
            .set("fetch.max.bytes", (2 * RECORD_BYTES_MAX).to_string())
            // Of one partition in one answer (a larger record comes alone): 24 of them are what an answer can weigh,
            // and it stays in memory, unpacked, until the last of its records is taken.
            .set("fetch.message.max.bytes", "16384")
            .set("queued.min.messages", "2000")
            // The other half waits in the hand-over.
            .set("queued.max.messages.kbytes", kilobytes(self.fetch_queue_bytes_max / 2));
        Ok(config)
    }

    /// A member of a group.
    pub(super) fn member(&self, group: &str) -> Result<ClientConfig> {
        let mut config = self.consumer(group)?;
        config
            .set("max.poll.interval.ms", "300000") // the poll thread never works, it only hands over
            // Every position is sought, so this is about positions outside of the log only. Not `error`: after it
            // the library takes no seek of that partition any more. `earliest` can skip nothing that is there, and
            // where it went is seen by the offsets of what comes (`handover.rs`).
            .set("auto.offset.reset", "earliest");
        match self.group_protocol {
            GroupProtocol::Classic => config
                .set("group.protocol", "classic")
                .set("partition.assignment.strategy", "cooperative-sticky") // only moved partitions stop
                .set("session.timeout.ms", SESSION.as_millis().to_string())
                .set("heartbeat.interval.ms", (SESSION / 4).as_millis().to_string()),
            // Session, heartbeat and strategy are the broker's there; the library refuses them.
            GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
        };
        Ok(config)
    }

    /// A consumer that reads single records by coordinates; its group is never joined and never committed to.
    pub(super) fn reader(&self) -> Result<ClientConfig> {
        let mut config = self.consumer(&self.physical("reader"))?;
        config
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true") // the record asked for may be the log's last, aborted one
            .set("queued.min.messages", "1"); // it wants one record, not what follows
        Ok(config)
    }

    /// A consumer that sees how far a group is; it never joins it and never commits.
    pub(super) fn onlooker(&self, group: &str) -> Result<ClientConfig> {
        self.consumer(&self.physical(group))
    }

    fn producer(&self, id: &str) -> Result<ClientConfig> {
        let mut config = self.client(id)?;
        config
            .set("acks", "all") // with min.insync.replicas: acknowledged is durable
            .set("enable.idempotence", "true") // a repeated request is one record, in order
            .set("partitioner", "murmur2_random") // the Java clients' hash; the default is CRC32
            .set("linger.ms", "1") // 0 costs three times the CPU for the same median
            .set("retry.backoff.ms", "5") // of 100: CONCURRENT_TRANSACTIONS is waited for on this
            .set("retry.backoff.max.ms", "100")
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", kilobytes(self.send_queue_bytes_max));
        Ok(config)
    }

    /// The transactional producer of one slot.
    pub(super) fn transactional(&self, id: &str) -> Result<ClientConfig> {
        let mut config = self.producer(id)?;
        config
            .set("transactional.id", id) // stable: a restart of the slot ends its own transaction at once
            .set("transaction.timeout.ms", TRANSACTION.as_millis().to_string())
            // Not below the worker's deadline: before it the library must not repeat an EndTxn by itself.
            .set("socket.timeout.ms", TRANSACTION.as_millis().to_string())
            .set("message.timeout.ms", TXN_MESSAGE.as_millis().to_string())
            .set("compression.type", "snappy"); // what readers of the outputs all know
        Ok(config)
    }

    /// The producer outside of transactions.
    pub(super) fn sender(&self, id: &str) -> Result<ClientConfig> {
        let mut config = self.producer(id)?;
        config
            .set("message.timeout.ms", self.send_timeout_ms.to_string())
            // Records come in strokes (`producer.rs`), which is what a linger is for.
            .set("linger.ms", "0")
            .set("compression.type", "lz4");
        Ok(config)
    }
}

impl Security {
    fn secret(&self) -> Result<SecretString> {
        match (&self.password_file, &self.password) {
            (Some(file), _) => match std::fs::read_to_string(file) {
                Ok(text) => Ok(SecretString::from(text.trim_end_matches(['\n', '\r']).to_owned())),
                Err(_) => Err(Error::new(
                    Kind::AuthenticationError,
                    "read kafka.security.password_file",
                    "unreadable",
                )),
            },
            (None, Some(password)) => Ok(password.clone()),
            (None, None) => {
                Err(Error::new(Kind::AuthenticationError, "find kafka.security.password", "absent"))
            }
        }
    }
}

fn plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn kilobytes(bytes: u32) -> String {
    (bytes / 1024).max(1).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::kafka) const LOCAL: &str = r#"
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

    pub(in crate::kafka) fn local(change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = toml::from_str(LOCAL).unwrap();
        change(&mut settings);
        settings
    }

    #[test]
    fn the_local_settings_are_sound_and_not_fit_for_production() {
        let settings = local(|_| {});
        assert_eq!(settings.problems(false), []);
        let keys: Vec<&str> = settings.problems(true).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["replication", "min_insync"]);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = format!("{LOCAL}\nlinger_ms = 0\n");
        assert!(toml::from_str::<Settings>(&text).is_err());
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let settings = local(|settings| {
            settings.brokers = " ".into();
            settings.topic_prefix = "a b".into();
            settings.min_insync = 2;
            settings.security.protocol = Protocol::SaslSsl;
        });
        let keys: Vec<&str> = settings.problems(false).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["brokers", "topic_prefix", "min_insync", "security.mechanism"]);
    }

    #[test]
    fn a_prefix_goes_on_and_comes_off() {
        let settings = local(|settings| settings.topic_prefix = "t1-".into());
        assert_eq!(settings.physical(Topic::DeadLetters.name()), "t1-biometric-events.dlq");
        assert_eq!(settings.logical("t1-biometric-events.dlq"), Some(Topic::DeadLetters));
        assert_eq!(settings.logical("biometric-events.dlq"), None);
    }

    #[test]
    fn the_library_takes_every_property_of_every_client() {
        for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
            let settings = local(|settings| settings.group_protocol = protocol);
            let consumers = [settings.member("g").unwrap(), settings.reader().unwrap()];
            for config in consumers {
                config.create::<rdkafka::consumer::BaseConsumer>().unwrap();
            }
            for config in [settings.transactional("t").unwrap(), settings.sender("s").unwrap()] {
                config.create::<rdkafka::producer::BaseProducer>().unwrap();
            }
        }
    }

    #[test]
    fn the_consumer_protocol_leaves_its_times_to_the_broker() {
        let classic = local(|_| {}).member("g").unwrap();
        assert_eq!(classic.get("session.timeout.ms"), Some("6000"));
        assert_eq!(classic.get("heartbeat.interval.ms"), Some("1500"));
        let settings = local(|settings| settings.group_protocol = GroupProtocol::Consumer);
        let consumer = settings.member("g").unwrap();
        for key in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"]
        {
            assert_eq!(consumer.get(key), None, "{key}");
        }
    }

    #[test]
    fn a_password_comes_from_its_file_and_shows_in_no_debug_text() {
        let file = std::env::temp_dir().join(format!("kafka-password-{}", std::process::id()));
        std::fs::write(&file, "not-a-secret-test-key\n").unwrap();
        let settings = local(|settings| {
            settings.security.protocol = Protocol::SaslSsl;
            settings.security.mechanism = Some(Mechanism::ScramSha512);
            settings.security.username = Some("bridge".into());
            settings.security.password = Some("not-a-secret-test-key".to_owned().into());
            settings.security.password_file = Some(file.clone());
        });
        let config = settings.sender("s").unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(config.get("sasl.password"), Some("not-a-secret-test-key"));
        assert!(!format!("{settings:?}{config:?}").contains("not-a-secret"));
        let error = settings.sender("s").unwrap_err();
        assert_eq!(error.kind, Kind::AuthenticationError);
    }
}
