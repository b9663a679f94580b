//! Where the doors and the pipeline meet: topic names, header names, key formats.
//!
//! `topics/*.toml` holds the same topics with their settings; a test keeps the two equal. A deployment may put a
//! prefix before every name (the tests do, to have topics of their own): the prefix is the adapter's business,
//! a [`Topic`] never carries it.

use std::fmt;

use super::id::User;

/// A topic of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Webhook bodies, byte for byte, as the ingress verified them.
    RawWebhooks,
    /// What Terra itself writes.
    RawTerra,
    /// Bodies that the hydrator fetched.
    RawDocuments,
    /// Canonical records, keyed by our user: between normalise and decide.
    NormalisedRecords,
    /// The stream: what came from vendors directly.
    BiometricEvents,
    /// The stream: what came by way of Terra.
    TerraBiometricEvents,
    /// What could not be processed, with its reason.
    DeadLetters,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 7] = [
        Self::RawWebhooks,
        Self::RawTerra,
        Self::RawDocuments,
        Self::NormalisedRecords,
        Self::BiometricEvents,
        Self::TerraBiometricEvents,
        Self::DeadLetters,
    ];

    /// The name, without a deployment's prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawWebhooks => "raw-webhooks",
            Self::RawTerra => "raw-terra",
            Self::RawDocuments => "raw-documents",
            Self::NormalisedRecords => "normalised-records",
            Self::BiometricEvents => "biometric-events",
            Self::TerraBiometricEvents => "terra-biometric-events",
            Self::DeadLetters => "biometric-events.dlq",
        }
    }

    /// The topic of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    /// A byte for rows: written once, never renumbered.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::RawWebhooks => 1,
            Self::RawTerra => 2,
            Self::RawDocuments => 3,
            Self::NormalisedRecords => 4,
            Self::BiometricEvents => 5,
            Self::TerraBiometricEvents => 6,
            Self::DeadLetters => 7,
        }
    }

    /// The topic of this byte.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.code() == code)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

as_text!(Topic, "a topic of ours");

/// What stands for a vendor on the records by which the ingress proves that it can write: ignored, always.
pub const PROBE_VENDOR: &str = "probe";

/// Header names, as they stand on records. Values are ASCII text unless a line says otherwise.
pub mod header {
    /// The vendor's name (raw topics).
    pub const VENDOR: &str = "vendor";
    /// The delivery's id: the vendor's header, else the first 32 hex digits of the body's SHA-256.
    pub const DELIVERY_ID: &str = "delivery_id";
    /// When the body was complete at the door, µs since the epoch, decimal; of a fetched body, when it was asked for.
    pub const RECEIVED_AT: &str = "received_at";
    /// `verified`, or why it was accepted without.
    pub const SIGNATURE: &str = "signature";
    /// The recipe that verified it.
    pub const SIGNATURE_SCHEME: &str = "signature_scheme";
    /// The request's content type.
    pub const CONTENT_TYPE: &str = "content_type";
    /// The request's content encoding, where it is not identity.
    pub const CONTENT_ENCODING: &str = "content_encoding";
    /// SHA-256 of the body, lower-case hex.
    pub const SHA256: &str = "sha256";
    /// W3C trace context, as it came or as the door made it.
    pub const TRACEPARENT: &str = "traceparent";
    /// Before the name of a request header that a vendor's file asks to keep, lower case.
    pub const REQUEST_PREFIX: &str = "http.";
    /// The vendor's user of a request whose headers, not its body, name it.
    ///
    /// On a fetched body: the user whose connection it was fetched by.
    pub const VENDOR_USER: &str = "vendor_user";

    /// Our name of the type of the record that was asked for (`raw-documents`).
    pub const RECORD_TYPE: &str = "record_type";
    /// The id of the record that was asked for (`raw-documents`): what an answer that is a list was asked for by.
    pub const RECORD_ID: &str = "record_id";
    /// What we had before it was asked for, where what the body does not name is gone (`raw-documents`): JSON, the array of
    /// [`crate::vendors::ask::Held`].
    pub const HELD: &str = "held";
    /// The connection whose consent it was fetched under, hyphenated hexadecimal (`raw-documents`).
    pub const CONNECTION: &str = "connection";
    /// The status of the answer, decimal (`raw-documents`).
    pub const HTTP_STATUS: &str = "http_status";

    /// `live`, `backfill` or `replay`.
    pub const ORIGIN: &str = "origin";
    /// `topic/partition/offset/index` of the raw record.
    pub const SOURCE: &str = "source";

    /// The record type of an event.
    pub const EVENT_TYPE: &str = "event_type";
    /// Our user.
    pub const USER_ID: &str = "user_id";
    /// The maker in lower case.
    pub const DEVICE_TYPE: &str = "device_type";
    /// `HIGH`, `MEDIUM` or `NORMAL`.
    pub const PRIORITY: &str = "priority";
    /// `true` or `false`.
    pub const HAS_TRIGGERS: &str = "has_triggers";
    /// JSON: `{"triggers":[{type, severity, metric, recommendation}]}`; no value of a measurement.
    pub const TRIGGERS: &str = "triggers";
    /// The highest severity, or empty.
    pub const SEVERITY: &str = "severity";
    /// The event's id.
    pub const EVENT_ID: &str = "event_id";
    /// The event's revision, decimal.
    pub const REVISION: &str = "revision";

    /// Dead letters: the topic of the input.
    pub const ORIGINAL_TOPIC: &str = "original_topic";
    /// Dead letters: its partition.
    pub const ORIGINAL_PARTITION: &str = "original_partition";
    /// Dead letters: its offset.
    pub const ORIGINAL_OFFSET: &str = "original_offset";
    /// Dead letters: the kind.
    pub const ERROR_TYPE: &str = "error_type";
    /// Dead letters: our words, a JSON path, a position.
    pub const ERROR_MESSAGE: &str = "error_message";
    /// Dead letters of normalise and of the hydrator: when, µs since the epoch.
    pub const FAILED_AT: &str = "failed_at";
    /// Dead letters: how often it was tried.
    pub const RETRY_COUNT: &str = "retry_count";
    /// Dead letters: `normalise`, `decide` or `hydrate`.
    pub const STAGE: &str = "stage";
    /// Dead letters: the first 100 indexes of bad items, comma separated.
    pub const INDEXES: &str = "indexes";
    /// Dead letters: how many items are bad.
    pub const COUNT: &str = "count";

    /// Every whole name above.
    pub const ALL: [&str; 36] = [
        VENDOR,
        DELIVERY_ID,
        RECEIVED_AT,
        SIGNATURE,
        SIGNATURE_SCHEME,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        SHA256,
        TRACEPARENT,
        VENDOR_USER,
        RECORD_TYPE,
        RECORD_ID,
        HELD,
        CONNECTION,
        HTTP_STATUS,
        ORIGIN,
        SOURCE,
        EVENT_TYPE,
        USER_ID,
        DEVICE_TYPE,
        PRIORITY,
        HAS_TRIGGERS,
        TRIGGERS,
        SEVERITY,
        EVENT_ID,
        REVISION,
        ORIGINAL_TOPIC,
        ORIGINAL_PARTITION,
        ORIGINAL_OFFSET,
        ERROR_TYPE,
        ERROR_MESSAGE,
        FAILED_AT,
        RETRY_COUNT,
        STAGE,
        INDEXES,
        COUNT,
    ];
}

/// The most records of one batch of decide (`design.md` §3.1).
pub const BATCH_RECORDS_MAX: usize = 500;
/// The most bytes of one batch of decide; a larger record is a batch of its own.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Where a union is split in normalise (`design.md` §4).
pub const UNION_BYTES_MAX: usize = 900 * 1024;

/// The key of an event: order is promised per user and maker.
#[must_use]
pub fn event_key(user: &User, device_type: &str) -> String {
    format!("{user}:{device_type}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_their_own_inverse() {
        for topic in Topic::ALL {
            assert_eq!(Topic::parse(topic.name()), Some(topic));
            assert_eq!(Topic::of_code(topic.code()), Some(topic));
        }
    }
}
