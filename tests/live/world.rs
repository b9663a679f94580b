//! Where the real parts are, and a corner of each that belongs to one test alone.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that panics fails, which is what it is for"
)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use biometric_bridge::kafka::settings::{GroupProtocol, Settings};
use biometric_bridge::model::contract::Topic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

/// An address from the environment that `helm/local/stack` reads too, or its default.
#[expect(clippy::disallowed_methods, reason = "tests have no config.rs")]
fn address(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// The brokers.
pub(crate) fn kafka() -> String {
    address("BRIDGE_KAFKA", "127.0.0.1:9092")
}

/// The registry's Confluent-compatible API.
pub(crate) fn registry() -> String {
    address("BRIDGE_REGISTRY", "http://127.0.0.1:8081/apis/ccompat/v7")
}

/// A prefix that no other test and no other run has.
pub(crate) fn prefix(test: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("live-{}-{count}-{test}-", std::process::id())
}

/// Settings for the local stack, under a prefix.
pub(crate) fn settings(prefix: &str, protocol: GroupProtocol) -> Settings {
    let protocol = match protocol {
        GroupProtocol::Classic => "classic",
        GroupProtocol::Consumer => "consumer",
    };
    let text = format!(
        r#"
        brokers = "{}"
        topic_prefix = "{prefix}"
        group_protocol = "{protocol}"
        replication = 1
        min_insync = 1
        retention_hours_max = 24
        send_timeout_ms = 5000
        send_queue_bytes_max = 67108864
        fetch_queue_bytes_max = 16777216
        partition_queue_bytes_max = 2097152
        security = {{ protocol = "plaintext" }}
        "#,
        kafka()
    );
    toml::from_str(&text).unwrap()
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka());
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    client().create().unwrap()
}

fn patience() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)))
}

/// Topics of one test, deleted with it.
pub(crate) struct Topics {
    prefix: String,
}

impl Topics {
    /// Whatever has this prefix at the end; nothing is created.
    pub(crate) fn under(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Creates topics with so many partitions each.
    pub(crate) async fn create(prefix: &str, topics: &[Topic], partitions: i32) -> Self {
        let this = Self::under(prefix);
        let names: Vec<String> =
            topics.iter().map(|topic| format!("{prefix}{}", topic.name())).collect();
        let new: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1)))
            .collect();
        for created in admin().create_topics(&new, &patience()).await.unwrap() {
            created.unwrap();
        }
        this
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let prefix = self.prefix.clone();
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let admin = admin();
                let all = admin.inner().fetch_metadata(None, Duration::from_secs(10)).unwrap();
                let names: Vec<&str> = all.topics().iter().map(|topic| topic.name()).collect();
                let ours: Vec<&str> =
                    names.into_iter().filter(|name| name.starts_with(&prefix)).collect();
                if !ours.is_empty() {
                    admin.delete_topics(&ours, &patience()).await.unwrap();
                }
            });
        });
        if cleaned.join().is_err() {
            eprintln!("topics under {} are left behind", self.prefix);
        }
    }
}
