//! Terra's way into Kafka: a listener of its own, encrypted, and a principal that may write one topic and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::fetched::published;
use crate::pair::Pair;
use crate::process::{text, until};

const SLEEP: &str = include_str!("../fixtures/terra/sleep.json");
const PATIENCE: Duration = Duration::from_secs(20);

/// What `stack terra TOPIC` prints.
fn allowed(topic: &str) -> BTreeMap<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/local/stack");
    let done = Command::new(script).args(["terra", topic]).output().expect("the script runs");
    assert!(done.status.success(), "{}", text(&done));
    let said = String::from_utf8(done.stdout).expect("text");
    let word = |line: &str| {
        let (name, value) = line.split_once(' ').expect("a name and a value");
        (name.to_owned(), value.trim().trim_start_matches("in ").to_owned())
    };
    said.lines().map(word).collect()
}

/// A client as Terra configures one.
fn terra(said: &BTreeMap<String, String>, password: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &said["brokers"])
        .set("security.protocol", "SASL_SSL")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", &said["username"])
        .set("sasl.password", password)
        .set("ssl.ca.location", &said["ca"])
        .set("message.timeout.ms", "8000")
        .set("log_level", "0");
    config
}

/// What became of the one record.
#[derive(Default)]
struct Fate(Mutex<Option<Result<(), RDKafkaErrorCode>>>);

impl ClientContext for Fate {}

impl ProducerContext for Fate {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let fate = result.as_ref().map(|_record| ()).map_err(|(error, _record)| code(error));
        *self.0.lock().expect("not poisoned") = Some(fate);
    }
}

fn send(client: &ClientConfig, topic: &str, body: &str) -> Result<(), RDKafkaErrorCode> {
    let producer: BaseProducer<Fate> =
        client.create_with_context(Fate::default()).expect("a producer");
    producer
        .send(BaseRecord::<(), str>::to(topic).payload(body))
        .map_err(|(error, _)| code(&error))?;
    producer.flush(PATIENCE).expect("an answer");
    producer.context().0.lock().expect("not poisoned").expect("a fate")
}

fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)
}

#[test]
fn terra_writes_its_topic_and_can_do_nothing_else() {
    let pair = Pair::new("principal", "classic");
    let name = pair.deployment.name.clone();
    let [own, webhooks] = ["raw-terra", "raw-webhooks"].map(|topic| format!("{name}.{topic}"));
    let said = allowed(&own);
    let password = std::fs::read_to_string(&said["password"]).expect("a password");
    let client = terra(&said, password.trim());

    // What it may.
    assert_eq!(send(&client, &own, SLEEP), Ok(()));
    let mut idempotent = client.clone();
    idempotent.set("enable.idempotence", "true");
    assert_eq!(send(&idempotent, &own, SLEEP), Ok(()));

    // What it may not.
    let topic_denied = RDKafkaErrorCode::TopicAuthorizationFailed;
    assert_eq!(send(&client, &webhooks, SLEEP), Err(topic_denied), "another topic");
    let mut large = client.clone();
    large.set("message.max.bytes", "40000000");
    let body = "x".repeat(17 * 1024 * 1024);
    let too_large = RDKafkaErrorCode::MessageSizeTooLarge;
    assert_eq!(send(&large, &own, &body), Err(too_large), "above the topic's cap");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let admin: AdminClient<DefaultClientContext> = client.create().expect("an admin");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let topic = NewTopic::new("principal-made", 1, TopicReplication::Fixed(1));
    let made = runtime.block_on(admin.create_topics([&topic], &options)).expect("an answer");
    assert_eq!(made[0].as_ref().map_err(|(_, code)| *code), Err(topic_denied), "a topic made");
    let gone = runtime.block_on(admin.delete_topics(&[&own], &options)).expect("an answer");
    assert_eq!(gone[0].as_ref().map_err(|(_, code)| *code), Err(topic_denied), "its own deleted");

    let mut client = client;
    let reader: BaseConsumer =
        client.clone().set("group.id", format!("{name}.stolen")).create().expect("a reader");
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(&own, 0, Offset::Beginning).expect("an offset");
    reader.assign(&all).expect("assigned");
    let mut denied = BTreeSet::new();
    until("reading is denied, and being a member", PATIENCE, || {
        let read = reader.poll(Duration::from_secs(1)).map(|read| read.map(|_record| ()));
        match read {
            Some(Err(error)) => denied.insert(format!("{:?}", code(&error))),
            Some(Ok(())) => panic!("a record was read"),
            None => false,
        };
        ["TopicAuthorizationFailed", "GroupAuthorizationFailed"]
            .iter()
            .all(|all| denied.contains(*all))
    });
    let writer: BaseProducer =
        client.set("transactional.id", format!("{name}.a-0")).create().expect("a writer");
    let begun = writer.init_transactions(PATIENCE).map_err(|error| code(&error));
    let id_denied = RDKafkaErrorCode::TransactionalIdAuthorizationFailed;
    assert_eq!(begun, Err(id_denied), "our producer's name, which would fence it");

    // Nobody comes in without the password.
    let stranger: BaseConsumer = terra(&said, "not-it").create().expect("a client");
    assert!(stranger.fetch_metadata(Some(&own), Duration::from_secs(5)).is_err());

    // And what it wrote is on its way.
    let user = serde_json::from_str::<serde_json::Value>(SLEEP).expect("JSON");
    let user = user["user"]["user_id"].as_str().expect("a user").to_owned();
    let whose = ["--vendor", "terra", "--vendor-user", &user];
    let added =
        pair.deployment.run(&[&["connections", "add", "--user", "u-1"], &whose[..]].concat());
    assert!(added.status.success(), "{}", text(&added));
    let _pipeline = pair.start_pipeline("a", pair.pipeline_admin);
    until("the night is told", Duration::from_secs(60), || !published(&pair.deployment).is_empty());
    std::thread::sleep(Duration::from_secs(2));
    let told = published(&pair.deployment);
    let different: BTreeSet<&String> = told.iter().collect();
    assert_eq!(told.len(), different.len(), "written twice, told once");
}
