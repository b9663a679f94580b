//! What of the library rust-rdkafka hides: the group metadata, taken once and handed on as the very same object, and
//! the ends of partitions that it knows without asking. The one place with `unsafe`.
//!
//! # Why
//! The broker accepts transactional offsets from metadata of no member unchecked (H6 of the protocol), and the
//! library makes such metadata by itself when it loses its membership. rust-rdkafka hides generation and member id,
//! and fetching the metadata a second time for the commit would be metadata of another moment. So the native
//! object is taken here, read here, kept in [`Metadata::native`], and goes into `send_offsets_to_transaction` here.
#![expect(unsafe_code, reason = "rust-rdkafka offers neither the fields nor the object")]

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as native;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode;

use crate::stream::Metadata;

/// The library's metadata object. It does not change after it was made.
pub(super) struct NativeMetadata(NonNull<native::rd_kafka_consumer_group_metadata_t>);

// SAFETY: the object is a plain allocation without thread affinity; its owner frees it once, in `drop`.
unsafe impl Send for NativeMetadata {}
// SAFETY: nothing writes to the object after `rd_kafka_consumer_group_metadata` returned it; all calls that get
// it here take a pointer to const.
unsafe impl Sync for NativeMetadata {}

impl Drop for NativeMetadata {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `rd_kafka_consumer_group_metadata`, is owned by this value alone, and is
        // not used after this.
        unsafe { native::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

/// The metadata of now. Where there is none, it is nobody's: generation −1, no member.
pub(super) fn take<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Metadata {
    // SAFETY: the client lives as long as `consumer`, which is borrowed for the whole call; the call returns an
    // object that the caller owns, or null.
    let pointer =
        unsafe { native::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) };
    let Some(object) = NonNull::new(pointer).map(NativeMetadata) else { return nobody() };
    // SAFETY: the object is alive and not null.
    let generation =
        unsafe { native::rd_kafka_consumer_group_metadata_generation_id(object.0.as_ptr()) };
    // SAFETY: the object is alive and not null; the string belongs to it.
    let id = unsafe { native::rd_kafka_consumer_group_metadata_member_id(object.0.as_ptr()) };
    let member = if id.is_null() {
        String::new()
    } else {
        // SAFETY: not null, NUL-terminated by the library, and alive as long as `object`; it is copied here.
        unsafe { CStr::from_ptr(id) }.to_string_lossy().into_owned()
    };
    Metadata { generation, member, native: Some(Arc::new(object)) }
}

/// The metadata of no member.
pub(super) fn nobody() -> Metadata {
    Metadata { generation: -1, member: String::new(), native: None }
}

/// The library's object in this metadata, if it came from [`take`].
pub(super) fn object(metadata: &Metadata) -> Option<Arc<NativeMetadata>> {
    metadata.native.clone()?.downcast().ok()
}

/// The end of a partition as the last fetch said it; absent before the first one.
pub(super) fn end<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client and the name live through the call, which reads what the library has cached and writes the
    // two numbers, whose addresses are ours.
    let code = unsafe {
        native::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (RDKafkaErrorCode::from(code) == RDKafkaErrorCode::NoError && high >= 0).then_some(high)
}

/// How a transactional call failed: the code and its three classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The library's code.
    pub(super) code: RDKafkaErrorCode,
    /// The producer is of no more use.
    pub(super) fatal: bool,
    /// The call may be repeated.
    pub(super) retriable: bool,
    /// The transaction must be aborted.
    pub(super) abort: bool,
}

/// Puts offsets into the producer's transaction under this metadata. Blocks, at most for the time in most cases
/// (the library has a path that never looks at its deadline, so a caller needs a watchdog).
pub(super) fn send_offsets<C: ProducerContext>(
    producer: &Client<C>,
    offsets: &TopicPartitionList,
    metadata: &NativeMetadata,
    time: Duration,
) -> Result<(), Failure> {
    let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: client, list and metadata are borrowed, so they live through the call, which copies the list and
    // the metadata; it returns null or an error that the caller owns.
    let error = unsafe {
        native::rd_kafka_send_offsets_to_transaction(
            producer.native_ptr(),
            offsets.ptr(),
            metadata.0.as_ptr(),
            millis,
        )
    };
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is not null and alive until it is destroyed in the last line; it is read only.
    let failure = unsafe {
        Failure {
            code: native::rd_kafka_error_code(error).into(),
            fatal: native::rd_kafka_error_is_fatal(error) != 0,
            retriable: native::rd_kafka_error_is_retriable(error) != 0,
            abort: native::rd_kafka_error_txn_requires_abort(error) != 0,
        }
    };
    // SAFETY: this function owns the error and does not use it after this.
    unsafe { native::rd_kafka_error_destroy(error) };
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::settings::tests::local;

    #[test]
    fn who_has_not_joined_is_nobody() {
        let config = local(|_| {}).member("g").unwrap();
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = take(&consumer);
        assert!(!metadata.is_member());
        assert!(object(&metadata).is_some());
        assert!(!nobody().is_member());
        assert!(object(&nobody()).is_none());
    }
}
