//! What a client of the library says about itself: logged without its text, and watched for disturbances.
//!
//! # Why log lines are read
//! librdkafka repeats requests by itself when a connection is lost or a request times out, EndTxn among them, and
//! then reports success (H9 of the protocol). No error reaches the application: a timed-out request is one log line
//! of the facility `REQTMOUT`, and a connection that closes with a request in flight one of the facility `FAIL` at
//! level info. Those two, and the error events, are counted; a producer that has any is not used for another
//! transaction. Identical lines within 30 s are suppressed by the library, so a producer is judged by its whole
//! life and not by its last transaction only.

use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::error::{Error, Kind};

/// States of a connection in which no request of ours can be on it yet: failing there repeats nothing.
const NOT_YET_UP: [&str; 8] = [
    "in state INIT",
    "in state DOWN",
    "in state TRY_CONNECT",
    "in state CONNECT",
    "in state SSL_HANDSHAKE",
    "in state AUTH",
    "in state APIVERSION_QUERY",
    "in state RELOGIN",
];

/// What one client has gone through.
#[derive(Debug, Default)]
pub(super) struct Watch {
    disturbances: AtomicU64,
}

impl Watch {
    /// How many lost connections and timed-out requests there were.
    pub(super) fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::Acquire)
    }

    /// A log line of the library. Its text is about connections and never about records; it is shown at debug only.
    pub(super) fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "REQTMOUT" || (facility == "FAIL" && was_up(text)) {
            self.disturbances.fetch_add(1, Ordering::AcqRel);
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka client"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {}
        }
        tracing::debug!(facility, text, "kafka client");
    }

    /// An error event of the library.
    pub(super) fn error(&self, error: &KafkaError, text: &str) {
        let disturbing = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::RequestTimedOut
            )
        );
        if disturbing && was_up(text) {
            self.disturbances.fetch_add(1, Ordering::AcqRel);
        }
        tracing::warn!(code = %code(error), "kafka client");
    }
}

fn was_up(text: &str) -> bool {
    !NOT_YET_UP.iter().any(|state| text.contains(state))
}

/// The library's stable name of an error.
pub(super) fn code(error: &KafkaError) -> String {
    match error {
        // These carry the code's name as text, and nothing else.
        KafkaError::Subscription(_) | KafkaError::PauseResume(_) | KafkaError::Seek(_) => {
            "PartitionState".to_owned()
        }
        other => other
            .rdkafka_error_code()
            .map_or_else(|| "ClientConfiguration".to_owned(), |code| format!("{code:?}")),
    }
}

/// An error of the library as one of ours.
pub(super) fn broken(doing: &'static str, error: &KafkaError) -> Error {
    let kind = match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_) => {
            Kind::InternalError
        }
        _ => Kind::BrokerUnavailable,
    };
    Error::new(kind, doing, code(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_repeated_is_counted() {
        let watch = Watch::default();
        let lost = "127.0.0.1:9092/1: Disconnected (after 5000ms in state UP)";
        watch.log(RDKafkaLogLevel::Info, "FAIL", lost);
        watch.log(RDKafkaLogLevel::Warning, "REQTMOUT", "Timed out 1 in-flight");
        watch.error(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), lost);
        assert_eq!(watch.disturbances(), 3);
    }

    #[test]
    fn a_connection_that_never_was_disturbs_nothing() {
        let watch = Watch::default();
        let refused = "h:1/bootstrap: Connect to ipv6#[::1]:1 failed (after 0ms in state CONNECT)";
        watch.log(RDKafkaLogLevel::Error, "FAIL", refused);
        watch.log(RDKafkaLogLevel::Info, "PARTCNT", "partition count changed");
        watch.error(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), refused);
        watch.error(&KafkaError::Global(RDKafkaErrorCode::UnknownTopicOrPartition), "");
        assert_eq!(watch.disturbances(), 0);
    }

    #[test]
    fn no_text_of_the_library_becomes_an_error() {
        let error = KafkaError::ClientCreation("a value".to_owned());
        assert_eq!(broken("make a client", &error).code, "ClientConfiguration");
        let error = KafkaError::Seek("a value".to_owned());
        assert_eq!(code(&error), "PartitionState");
    }
}
