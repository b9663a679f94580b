//! What can go wrong, as a closed set, and what is then done about it.
//!
//! Three shapes, no more. A [`Reject`] says that a *record* is bad; pure code makes it, and there is no field
//! that a payload would fit into. An [`Error`] says that the *world* is bad; it carries literals and a library's
//! stable code, never a library's text, because texts quote values (`serde_json` prints the offending string,
//! Postgres prints keys in `DETAIL`) and values are people's health data. A panic says that *we* are bad.

use std::fmt;

/// The closed set of error kinds: the metric label `error_type` and the dead letter's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The signature is missing, malformed, or not this vendor's over these bytes.
    SignatureInvalid,
    /// The signature is right, but its time lies outside the vendor's window.
    SignatureExpired,
    /// The body is larger than the vendor's cap.
    PayloadTooLarge,
    /// The body is not what the vendor's contract says: not JSON, wrong types, duplicate keys.
    PayloadMalformed,
    /// A path or a header names a vendor that we do not know.
    UnknownVendor,
    /// No connection exists for the vendor's user.
    UnknownUser,
    /// A field is well-formed and cannot be right: an unknown unit, an end before its start.
    ValidationError,
    /// A vendor's quota is used up.
    RateLimitError,
    /// A vendor refuses our credentials for a person.
    AuthenticationError,
    /// A vendor's API does not answer, or not as it should.
    WearableApiError,
    /// A request that is refused for its form: method, encoding, headers, deadline.
    RequestRefused,
    /// More is waiting than we take.
    Overloaded,
    /// Kafka does not take or give records.
    BrokerUnavailable,
    /// Postgres does not answer, or refuses.
    DatabaseError,
    /// Redis does not answer, or refuses.
    CacheError,
    /// The registry or a schema is not as it must be.
    SchemaError,
    /// A state that must not be: our own fault.
    InternalError,
}

impl Kind {
    /// Every kind, in the order of the table of `design.md` §9.
    pub const ALL: [Self; 17] = [
        Self::SignatureInvalid,
        Self::SignatureExpired,
        Self::PayloadTooLarge,
        Self::PayloadMalformed,
        Self::UnknownVendor,
        Self::UnknownUser,
        Self::ValidationError,
        Self::RateLimitError,
        Self::AuthenticationError,
        Self::WearableApiError,
        Self::RequestRefused,
        Self::Overloaded,
        Self::BrokerUnavailable,
        Self::DatabaseError,
        Self::CacheError,
        Self::SchemaError,
        Self::InternalError,
    ];

    /// The name on metrics, dead letters and rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SignatureInvalid => "signature_invalid",
            Self::SignatureExpired => "signature_expired",
            Self::PayloadTooLarge => "payload_too_large",
            Self::PayloadMalformed => "payload_malformed",
            Self::UnknownVendor => "unknown_vendor",
            Self::UnknownUser => "unknown_user",
            Self::ValidationError => "validation_error",
            Self::RateLimitError => "rate_limit_error",
            Self::AuthenticationError => "authentication_error",
            Self::WearableApiError => "wearable_api_error",
            Self::RequestRefused => "request_refused",
            Self::Overloaded => "overloaded",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::DatabaseError => "database_error",
            Self::CacheError => "cache_error",
            Self::SchemaError => "schema_error",
            Self::InternalError => "internal_error",
        }
    }

    /// The kind of this name, as a dead letter's header gives it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What is done about it inside the process; a change here is a change of policy.
    #[must_use]
    pub const fn disposition(self) -> Disposition {
        match self {
            Self::SignatureInvalid | Self::SignatureExpired => Disposition::Refuse(401),
            Self::PayloadTooLarge => Disposition::Refuse(413),
            Self::RequestRefused => Disposition::Refuse(400),
            Self::Overloaded => Disposition::Refuse(503),
            Self::PayloadMalformed | Self::UnknownVendor | Self::ValidationError => {
                Disposition::DeadLetter
            }
            Self::UnknownUser
            | Self::RateLimitError
            | Self::AuthenticationError
            | Self::WearableApiError => Disposition::RetryLater,
            Self::BrokerUnavailable | Self::DatabaseError => Disposition::RetryHere,
            Self::CacheError => Disposition::Degrade,
            Self::SchemaError | Self::InternalError => Disposition::Stop,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What is done about an error of a kind. Six ways, closed (`design.md` §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Pause and try the same thing again; nothing is skipped.
    RetryHere,
    /// Put it where it waits for its time: `hydrations`, held records.
    RetryLater,
    /// Give the record up, with its bytes and the reason.
    DeadLetter,
    /// Answer the sender with this status.
    Refuse(u16),
    /// Go on without it, and count.
    Degrade,
    /// Stop the task: going on could make it worse.
    Stop,
}

/// A place inside a payload: names from the vendor's contract and positions, never a value.
///
/// Keys of a payload that are not in our vocabulary are written as `*`, so that a path cannot carry what a
/// sender chose to put there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(String);

impl Path {
    /// The payload itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// This place's member `name`; `name` is a literal, so it is ours.
    #[must_use]
    pub fn key(&self, name: &'static str) -> Self {
        Self(if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) })
    }

    /// This place's element at `index`.
    #[must_use]
    pub fn at(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// A member that is not in our vocabulary.
    #[must_use]
    pub fn unnamed(&self) -> Self {
        self.key("*")
    }

    /// A place inside this one, by its path from here.
    #[must_use]
    pub fn then(&self, inner: &Self) -> Self {
        let dot = if self.0.is_empty() || inner.0.is_empty() || inner.0.starts_with('[') {
            ""
        } else {
            "."
        };
        Self(format!("{}{dot}{}", self.0, inner.0))
    }

    /// The path as text, `$` for the payload itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "$" } else { &self.0 }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A record, or one item of it, that cannot be processed: kind, place and our own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// What is wrong with it.
    pub kind: Kind,
    /// Where in the payload.
    pub at: Path,
    /// Why, in our own words: a literal, so that nothing of the payload can be in it.
    pub why: &'static str,
    /// Byte position in the body, where the reader knows it.
    pub position: Option<usize>,
}

impl Reject {
    /// A record whose body is not what the vendor's contract says.
    #[must_use]
    pub fn malformed(at: Path, why: &'static str) -> Self {
        Self { kind: Kind::PayloadMalformed, at, why, position: None }
    }

    /// A record with a field that cannot be right.
    #[must_use]
    pub fn invalid(at: Path, why: &'static str) -> Self {
        Self { kind: Kind::ValidationError, at, why, position: None }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at {}", self.why, self.at)?;
        match self.position {
            Some(position) => write!(out, ", byte {position}"),
            None => Ok(()),
        }
    }
}

/// The world is bad: what we were doing, and a library's stable code (SQLSTATE, librdkafka's code, an HTTP status).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Which of the closed set.
    pub kind: Kind,
    /// What we were doing: a literal, such as `load known events`.
    pub doing: &'static str,
    /// The library's stable code; never its text.
    pub code: String,
}

impl Error {
    /// An error of this kind while doing this, with a stable code.
    #[must_use]
    pub fn new(kind: Kind, doing: &'static str, code: impl Into<String>) -> Self {
        Self { kind, doing, code: code.into() }
    }

    /// A state that must not be.
    #[must_use]
    pub fn internal(doing: &'static str) -> Self {
        Self::new(Kind::InternalError, doing, "")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind, self.doing)?;
        if self.code.is_empty() { Ok(()) } else { write!(out, " ({})", self.code) }
    }
}

impl std::error::Error for Error {}

/// What our functions return where the world can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_own_inverse() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        assert_eq!(Kind::parse("duplicate_event"), None, "a verdict is not an error");
    }

    #[test]
    fn a_path_reads_as_the_payload_does() {
        let path = Path::root().key("data").at(3).key("metadata");
        assert_eq!(path.as_str(), "data[3].metadata");
        assert_eq!(Path::root().as_str(), "$");
        assert_eq!(Path::root().at(0).unnamed().as_str(), "[0].*");
        let inner = Path::root().key("source");
        assert_eq!(path.then(&inner).as_str(), "data[3].metadata.source");
        assert_eq!(path.then(&Path::root().at(1)).as_str(), "data[3].metadata[1]");
        assert_eq!((path.then(&Path::root()), Path::root().then(&inner)), (path, inner));
    }
}
