//! Reads a topic as a reader of committed records sees it: from its beginning to its end, or on and on.
//!
//! For `audit`, for the table of `simulate traffic --watch`, and for nothing that decides: no group is joined and no
//! offset is committed. Blocking: its caller gives it a thread.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::record;
use super::settings::{ASK, Settings};
use super::watch::code;
use crate::error::{Error, Kind, Result};
use crate::model::contract::Topic;
use crate::model::record::Record;

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// What a scan does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// On.
    On,
    /// Enough.
    Enough,
}

/// Hands every committed record of the topic to `each`, partition by partition in order, up to the end that each
/// partition has when it is reached.
///
/// # Errors
/// `broker_unavailable` where the brokers do not answer.
pub fn to_end(settings: &Settings, topic: Topic, mut each: impl FnMut(Record)) -> Result<()> {
    let (consumer, mut open) = assigned(settings, topic, Offset::Beginning)?;
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => each(record(topic, &message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => return Err(failed("read a topic to its end", &error)),
            None => {}
        }
    }
    Ok(())
}

/// Hands every committed record that is written from now on to `each`, and asks it whether to go on; also asks,
/// with nothing, whenever nothing came for a while.
///
/// # Errors
/// `broker_unavailable` where the brokers do not know the topic.
pub fn follow(
    settings: &Settings,
    topic: Topic,
    mut each: impl FnMut(Option<Record>) -> Go,
) -> Result<()> {
    let (consumer, _) = assigned(settings, topic, Offset::End)?;
    loop {
        let next = match consumer.poll(POLL) {
            Some(Ok(message)) => Some(record(topic, &message)),
            // The end of a partition, or a broker that is away for a while: the library goes on by itself.
            Some(Err(_)) | None => None,
        };
        if each(next) == Go::Enough {
            return Ok(());
        }
    }
}

fn assigned(
    settings: &Settings,
    topic: Topic,
    from: Offset,
) -> Result<(BaseConsumer, BTreeSet<i32>)> {
    const DOING: &str = "open a topic for reading";
    let consumer: BaseConsumer =
        settings.reader()?.create().map_err(|error| failed(DOING, &error))?;
    let name = settings.physical(topic.name());
    let metadata =
        consumer.fetch_metadata(Some(&name), ASK).map_err(|error| failed(DOING, &error))?;
    let known = metadata.topics().iter().find(|known| known.name() == name);
    let partitions: BTreeSet<i32> = known
        .map(|topic| topic.partitions().iter().map(|partition| partition.id()).collect())
        .unwrap_or_default();
    if partitions.is_empty() {
        return Err(Error::new(
            Kind::BrokerUnavailable,
            DOING,
            "no such topic: run `topics apply`",
        ));
    }
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(&name, *partition, from)
            .map_err(|error| failed(DOING, &error))?;
    }
    consumer.assign(&list).map_err(|error| failed(DOING, &error))?;
    Ok((consumer, partitions))
}

fn failed(doing: &'static str, error: &KafkaError) -> Error {
    Error::new(Kind::BrokerUnavailable, doing, code(error))
}
