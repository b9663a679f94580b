//! Topics as an outsider sees them: backlogs are laid down, events are read as NEUROS reads them, offsets are looked at.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use biometric_bridge::kafka::settings::Settings;
use biometric_bridge::model::avro::{Codec, SchemaIds};
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::BiometricEvent;
use biometric_bridge::model::record::Headers;
use biometric_bridge::stream::clock::now_us;
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// How long the brokers may take for anything that is asked of them here.
const ASK: Duration = Duration::from_secs(15);

/// Both topics that events come out of.
pub(crate) const OUTPUTS: [Topic; 2] = [Topic::BiometricEvents, Topic::TerraBiometricEvents];

fn client(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers);
    config
}

/// A record of a backlog: key, headers, value.
pub(crate) type Laid = (String, Headers, Bytes);

/// Writes records to `raw-webhooks` as the door does, all acknowledged when it returns.
pub(crate) fn lay(settings: &Settings, records: &[Laid]) {
    let producer: BaseProducer = client(settings)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .set("message.max.bytes", "16777216")
        .set("queue.buffering.max.kbytes", "262144")
        .create()
        .expect("a producer");
    let topic = settings.physical(Topic::RawWebhooks.name());
    for (key, headers, value) in records {
        let mut native = OwnedHeaders::new_with_capacity(16);
        for (key, value) in headers.iter() {
            native = native.insert(Header { key, value: Some(value.as_ref()) });
        }
        let mut record = BaseRecord::to(&topic).key(key).payload(value.as_ref()).headers(native);
        while let Err((error, back)) = producer.send(record) {
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            assert!(full, "a record of a backlog is taken");
            producer.poll(Duration::from_millis(5));
            record = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).expect("the brokers acknowledge a backlog");
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK).expect("a topic that is there");
    metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|one| one.id()).collect()
}

/// Where a group stands in a topic, and where the topic ends.
pub(crate) struct Progress {
    consumer: BaseConsumer,
    list: TopicPartitionList,
}

impl Progress {
    pub(crate) fn of(settings: &Settings, group: &str, topic: Topic) -> Self {
        let group = settings.physical(group);
        let consumer: BaseConsumer =
            client(settings).set("group.id", &group).create().expect("a consumer");
        let topic = settings.physical(topic.name());
        let mut list = TopicPartitionList::new();
        for partition in partitions(&consumer, &topic) {
            list.add_partition(&topic, partition);
        }
        Self { consumer, list }
    }

    /// Records that the group has committed, over all partitions.
    pub(crate) fn committed(&self) -> i64 {
        let found = self.consumer.committed_offsets(self.list.clone(), ASK);
        let Ok(found) = found else { return 0 };
        let offset = |offset| if let Offset::Offset(at) = offset { at } else { 0 };
        found.elements().iter().map(|one| offset(one.offset())).sum()
    }

    /// Records that the topic has, over all partitions.
    pub(crate) fn end(&self) -> i64 {
        let ends = self.list.elements().into_iter().map(|one| {
            let bounds = self.consumer.fetch_watermarks(one.topic(), one.partition(), ASK);
            bounds.map_or(0, |(_, high)| high)
        });
        ends.sum()
    }
}

/// What a reader has seen so far.
#[derive(Default)]
pub(crate) struct Seen {
    /// Events.
    pub(crate) events: AtomicU64,
    /// When the first became visible, µs since the epoch.
    pub(crate) first_us: AtomicI64,
    /// When the last did.
    pub(crate) last_us: AtomicI64,
}

impl Seen {
    /// Events so far.
    pub(crate) fn count(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// From the first to the last, s.
    pub(crate) fn seconds(&self) -> f64 {
        let (first, last) = (&self.first_us, &self.last_us);
        (last.load(Ordering::Acquire) - first.load(Ordering::Acquire)) as f64 / 1e6
    }
}

/// The value of an event, and when it became visible, µs since the epoch.
type Kept = (Vec<u8>, i64);

/// A reader of committed records of both output topics, from now on, on a thread of its own: independent of the
/// program, no group, nothing committed. It ends with its value.
pub(crate) struct Reader {
    pub(crate) seen: Arc<Seen>,
    kept: Arc<Mutex<Vec<Kept>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Reads, and where it is asked to, keeps what it reads: nothing is decoded while something is measured. Returns
    /// once the positions are taken.
    pub(crate) fn start(settings: &Settings, keep: bool) -> Self {
        let consumer = follower(settings);
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let kept: Arc<Mutex<Vec<Kept>>> = Arc::default();
        let (told, asked, keeps) = (Arc::clone(&seen), Arc::clone(&stop), Arc::clone(&kept));
        let read = move || {
            while !asked.load(Ordering::Acquire) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
                let now = now_us();
                if told.count() == 0 {
                    told.first_us.store(now, Ordering::Release);
                }
                told.last_us.store(now, Ordering::Release);
                if let Some(value) = message.payload().filter(|_| keep) {
                    keeps.lock().expect("no reader has panicked").push((value.to_vec(), now));
                }
                told.events.fetch_add(1, Ordering::AcqRel);
            }
        };
        let thread = std::thread::Builder::new().name("reader".to_owned()).spawn(read);
        Self { seen, kept, stop, thread: Some(thread.expect("a thread")) }
    }

    /// What was kept since this was last asked.
    pub(crate) fn take(&self) -> Vec<(BiometricEvent, i64)> {
        let kept = std::mem::take(&mut *self.kept.lock().expect("no reader has panicked"));
        let mut decoder = Decoder::default();
        kept.into_iter().map(|(value, at)| (decoder.event(&value), at)).collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the reader does not panic");
        }
    }
}

fn follower(settings: &Settings) -> BaseConsumer {
    let consumer: BaseConsumer = client(settings)
        .set("group.id", settings.physical("bench-reader"))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.max.bytes", "33554432")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for topic in OUTPUTS {
        let topic = settings.physical(topic.name());
        for partition in partitions(&consumer, &topic) {
            // Where the log ends now, and not where it ends when the first fetch gets there.
            let bounds = consumer.fetch_watermarks(&topic, partition, ASK).expect("bounds");
            list.add_partition_offset(&topic, partition, Offset::Offset(bounds.1))
                .expect("an offset");
        }
    }
    consumer.assign(&list).expect("partitions that are there");
    consumer
}

/// Reads events whatever the registry calls their schema: the id stands before the datum.
#[derive(Default)]
struct Decoder(Option<Codec>);

impl Decoder {
    fn event(&mut self, value: &[u8]) -> BiometricEvent {
        let codec = self.0.get_or_insert_with(|| {
            let id =
                value.get(1..5).and_then(|id| id.try_into().ok()).map_or(0, u32::from_be_bytes);
            let ids = SchemaIds { normalised: 0, events: id, terra_events: id };
            Codec::new(ids).expect("our schemas")
        });
        codec.decode_event(value).expect("an event of ours")
    }
}

/// Which partition of a topic each key went to, by the records that are there.
pub(crate) fn partitions_of_keys(
    settings: &Settings,
    topic: Topic,
) -> std::collections::HashMap<String, i32> {
    let consumer: BaseConsumer = client(settings)
        .set("group.id", settings.physical("bench-reader"))
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let name = settings.physical(topic.name());
    let mut list = TopicPartitionList::new();
    let mut open = partitions(&consumer, &name);
    for partition in &open {
        list.add_partition_offset(&name, *partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&list).expect("partitions that are there");
    let mut found = std::collections::HashMap::new();
    while !open.is_empty() {
        match consumer.poll(ASK).expect("records, or their end") {
            Ok(message) => {
                let key = message.key().map(String::from_utf8_lossy).unwrap_or_default();
                found.insert(key.into_owned(), message.partition());
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(partition)) => {
                open.retain(|one| *one != partition);
            }
            Err(_) => {}
        }
    }
    found
}

/// The members of a group and the partitions of each.
pub(crate) fn members(settings: &Settings, group: &str) -> Vec<(String, Vec<i32>)> {
    let consumer: BaseConsumer = client(settings).create().expect("a consumer");
    let group = settings.physical(group);
    let Ok(list) = consumer.fetch_group_list(Some(&group), ASK) else { return Vec::new() };
    let members = list.groups().iter().flat_map(|group| group.members()).map(|member| {
        (member.id().to_owned(), member.assignment().and_then(assigned).unwrap_or_default())
    });
    members.collect()
}

/// The partitions of a member's assignment as the classic protocol writes it: a version, then topics with partitions.
fn assigned(bytes: &[u8]) -> Option<Vec<i32>> {
    let mut rest = bytes.get(2..)?;
    let int = |rest: &mut &[u8]| -> Option<i32> {
        let (four, left) = rest.split_first_chunk::<4>()?;
        *rest = left;
        Some(i32::from_be_bytes(*four))
    };
    let mut found = Vec::new();
    for _ in 0..int(&mut rest)? {
        let (length, left) = rest.split_first_chunk::<2>()?;
        rest = left.get(usize::from(u16::from_be_bytes(*length))..)?;
        for _ in 0..int(&mut rest)? {
            found.push(int(&mut rest)?);
        }
    }
    Some(found)
}

/// Deletes every topic of which this holds.
pub(crate) fn delete(brokers: &str, goes: impl Fn(&str) -> bool) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
    let Ok(all) = admin.inner().fetch_metadata(None, ASK) else { return };
    let names = all.topics().iter().map(|topic| topic.name());
    let ours: Vec<&str> = names.filter(|name| goes(name)).collect();
    if ours.is_empty() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let options = AdminOptions::new().operation_timeout(Some(ASK));
    let deleted =
        runtime.expect("a runtime").block_on(async { admin.delete_topics(&ours, &options).await });
    if deleted.is_err() {
        eprintln!("topics are left behind: {ours:?}");
    }
}
