//! The laws of the log and the publisher on real brokers, for both group protocols.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that panics fails, which is what it is for"
)]

use std::time::Duration;

use biometric_bridge::kafka::consumer::Member;
use biometric_bridge::kafka::settings::{GroupProtocol, OutOfRange, Settings};
use biometric_bridge::kafka::transactional::Transactional;
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::record::{Headers, Record};
use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::laws::{Broker, PARTITIONS};
use crate::world::{Topics, prefix, settings};

pub(crate) const GROUP: &str = "decide";

/// A group of its own on real brokers.
pub(crate) struct Live {
    pub(crate) settings: Settings,
    _topics: Topics,
}

impl Live {
    pub(crate) async fn new(test: &str, protocol: GroupProtocol) -> Self {
        let prefix = prefix(test);
        let topics = [Topic::NormalisedRecords, Topic::BiometricEvents];
        let topics = Topics::create(&prefix, &topics, PARTITIONS).await;
        Self { settings: settings(&prefix, protocol), _topics: topics }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers);
        config
    }

    pub(crate) fn put_bytes(&self, partition: i32, values: &[Vec<u8>]) {
        let producer: BaseProducer =
            self.config().set("message.max.bytes", "16777216").create().unwrap();
        let name = self.settings.physical(Topic::NormalisedRecords.name());
        for value in values {
            let record: BaseRecord<'_, (), Vec<u8>> =
                BaseRecord::to(&name).partition(partition).payload(value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    }
}

impl Broker for Live {
    type Log = Member;
    type Publisher = Transactional;

    fn member(&self) -> Member {
        let topic = Topic::NormalisedRecords;
        Member::join(&self.settings, GROUP, topic, OutOfRange::Recover, None).unwrap()
    }

    fn publisher(&self, slot: &str) -> Transactional {
        Transactional::new(&self.settings, GROUP, slot)
    }

    async fn put(&self, partition: i32, values: &[&str]) {
        let bytes: Vec<Vec<u8>> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        self.put_bytes(partition, &bytes);
    }

    async fn visible(&self) -> Vec<Record> {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", "nobody")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let name = self.settings.physical(Topic::BiometricEvents.name());
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&name, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut ends = 0;
        let mut records = Vec::new();
        while ends < PARTITIONS {
            match consumer.poll(Duration::from_secs(10)).expect("the end of every partition") {
                Ok(message) => {
                    let mut headers = Headers::new();
                    for header in message.headers().unwrap().iter() {
                        let value = header.value.unwrap_or_default();
                        headers.push(header.key.to_owned(), Bytes::copy_from_slice(value));
                    }
                    records.push(Record {
                        topic: Topic::BiometricEvents,
                        partition: message.partition(),
                        offset: message.offset(),
                        timestamp_ms: 0,
                        key: message.key().map(Bytes::copy_from_slice),
                        headers,
                        value: message.payload().map(Bytes::copy_from_slice),
                    });
                }
                Err(KafkaError::PartitionEOF(_)) => ends += 1,
                Err(error) => panic!("{error}"),
            }
        }
        records
    }
}

macro_rules! laws {
    ($($law:ident)*) => {
        mod classic {
            $(#[tokio::test]
            async fn $law() {
                let live = super::Live::new("classic", super::GroupProtocol::Classic).await;
                crate::laws::$law(&live).await;
            })*
        }
        mod consumer {
            $(#[tokio::test]
            async fn $law() {
                let live = super::Live::new("consumer", super::GroupProtocol::Consumer).await;
                crate::laws::$law(&live).await;
            })*
        }
    };
}

laws! {
    a_member_reads_from_where_it_seeks
    a_seek_at_once_skips_nothing
    a_revoke_waits_for_its_release
    a_partition_that_comes_back_is_another_task
    an_offset_comes_back_with_its_mark
    a_plain_commit_has_no_mark
    an_open_transactions_offset_is_unstable
    an_aborted_transaction_left_nothing
    metadata_of_an_earlier_generation_is_refused
    metadata_of_who_left_is_refused
    a_slot_has_one_producer
    no_producer_no_transaction
}
