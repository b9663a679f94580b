//! The laws of the log and the publisher on those in memory, for the two protocols that real members speak.

use std::cell::Cell;

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::record::{Headers, Record};
use biometric_bridge::sim::driver::{Driver, Setting};
use biometric_bridge::sim::group::Protocol;
use biometric_bridge::sim::log::{SimLog, SimPublisher};
use bytes::Bytes;

#[path = "../laws/log.rs"]
mod laws;

struct World {
    driver: std::cell::RefCell<Driver>,
    members: Cell<usize>,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let setting = Setting { protocol, partitions: laws::PARTITIONS, ..Setting::default() };
        Self { driver: Driver::new(setting).into(), members: Cell::default() }
    }
}

impl laws::Broker for World {
    type Log = SimLog;
    type Publisher = SimPublisher;

    fn member(&self) -> SimLog {
        self.members.set(self.members.get() + 1);
        self.driver.borrow().ports(Topic::NormalisedRecords, self.members.get()).log
    }

    fn publisher(&self, slot: &str) -> SimPublisher {
        self.driver.borrow().ports(Topic::RawTerra, slot.parse().unwrap()).publisher
    }

    async fn put(&self, partition: i32, values: &[&str]) {
        for value in values {
            let value = Bytes::copy_from_slice(value.as_bytes());
            let headers = Headers::new();
            let mut driver = self.driver.borrow_mut();
            driver.write(Topic::NormalisedRecords, partition, None, headers, value);
        }
    }

    async fn visible(&self) -> Vec<Record> {
        let mut driver = self.driver.borrow_mut();
        driver.mark();
        driver.committed(Topic::BiometricEvents)
    }
}

macro_rules! laws {
    ($($law:ident)*) => {
        mod cooperative {
            $(#[tokio::test]
            async fn $law() {
                super::laws::$law(&super::World::new(super::Protocol::Cooperative)).await;
            })*
        }
        mod consumer {
            $(#[tokio::test]
            async fn $law() {
                super::laws::$law(&super::World::new(super::Protocol::Consumer)).await;
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
