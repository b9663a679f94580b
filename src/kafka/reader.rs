//! Reads single records by their coordinates, for what is put through again.
//!
//! A consumer without a group of its own: it assigns itself one partition at one offset, takes one record and lets
//! go. It never commits, and the group it names is never joined.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::consumer::record;
use super::settings::{READ, Settings};
use super::watch::{Watch, broken};
use crate::error::{Error, Kind, Result};
use crate::model::record::Record;
use crate::model::state::Coordinates;
use crate::stream::Reader;

const DOING: &str = "read a record by its coordinates";
/// One poll; a read is over after [`READ`].
const POLL: Duration = Duration::from_millis(50);

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

impl ConsumerContext for Quiet {}

/// A reader of single records.
pub struct Picker {
    settings: Settings,
    /// Reads are one at a time; the lock says so to the compiler.
    consumer: Arc<Mutex<BaseConsumer<Quiet>>>,
}

impl Picker {
    /// A reader; nothing is read yet.
    ///
    /// # Errors
    /// Where the settings are not what the library takes, or a password file cannot be read.
    pub fn new(settings: &Settings) -> Result<Self> {
        let consumer = settings
            .reader()?
            .create_with_context(Quiet::default())
            .map_err(|error| broken(DOING, &error))?;
        Ok(Self { settings: settings.clone(), consumer: Arc::new(Mutex::new(consumer)) })
    }
}

impl Reader for Picker {
    async fn read(&mut self, at: Coordinates) -> Result<Option<Record>> {
        let name = self.settings.physical(at.topic.name());
        let consumer = Arc::clone(&self.consumer);
        let read = tokio::task::spawn_blocking(move || {
            let consumer = consumer.lock().unwrap_or_else(PoisonError::into_inner);
            let found = read(&consumer, &name, at);
            let left = consumer.unassign();
            found.and_then(|found| left.map(|()| found))
        });
        match tokio::time::timeout(READ * 3, read).await {
            Ok(Ok(read)) => read.map_err(|error| broken(DOING, &error)),
            Ok(Err(_)) => Err(Error::internal(DOING)),
            Err(_) => Err(Error::new(Kind::BrokerUnavailable, DOING, "NoAnswer")),
        }
    }
}

/// The record at these coordinates: absent where the log begins later, ends earlier, or holds no record there.
fn read(
    consumer: &BaseConsumer<Quiet>,
    name: &str,
    at: Coordinates,
) -> KafkaResult<Option<Record>> {
    let (low, high) = consumer.fetch_watermarks(name, at.partition, READ)?;
    if at.offset < low || at.offset >= high {
        return Ok(None);
    }
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(name, at.partition, Offset::Offset(at.offset))?;
    consumer.assign(&list)?;
    let mut waited = Duration::ZERO;
    while waited < READ {
        match consumer.poll(POLL) {
            // A transaction's marker and an aborted record leave a hole: what comes next is another record.
            Some(Ok(message)) if message.offset() >= at.offset => {
                let found = message.offset() == at.offset && message.partition() == at.partition;
                return Ok(found.then(|| record(at.topic, &message)));
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                return Ok(None);
            }
            Some(Err(error)) => return Err(error),
            None => waited += POLL,
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}
