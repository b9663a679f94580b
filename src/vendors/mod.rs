//! What vendors send and what it means: one file a vendor, all of it pure.
//!
//! # How to add a vendor
//! 1. Write `src/vendors/<name>.rs` with a `pub static VENDOR` that implements [`Vendor`]: `verify` (is it theirs),
//!    `user` (whose is it), `parse` (what does it say); where its records are fetched also `api` (what to ask for) and
//!    `document` (what came); where people connect by consent, `consent`. No I/O, no clock, no tokio; a time comes as an
//!    argument.
//! 2. Put at least six requests into `tests/fixtures/<name>/` (good, thin, signature off by a byte, malformed,
//!    duplicate, correction), and six fetched bodies where there are any, each with its `record_type` in a `.headers`
//!    file beside it; let `UPDATE_GOLDEN=1 make test` write what your file makes of them; read it.
//! 3. Add two lines here: `mod <name>;` and `&<name>::VENDOR,`.
//!
//! The laws in `tests/it/vendor_laws.rs` then hold your vendor to what every vendor must keep.

use std::fmt;

use bytes::Bytes;
use wire::hmac::Key;
use wire::tink::Keyset;

use crate::error::{Kind, Path, Reject};
use crate::model::connection::Change;
use crate::model::event::{Content, Merge, Op};
use crate::model::record::Headers;
use crate::model::time::Micros;

pub mod ask;
pub mod consent;
pub mod history;
pub mod wire;

mod dexcom;
mod garmin;
mod google;
pub mod healthkit;
mod oura;
mod polar;
pub mod terra;
mod whoop;
mod withings;

/// Every vendor. The order is the order of `--help`.
#[rustfmt::skip]
pub static ALL: &[&dyn Vendor] = &[
    &dexcom::VENDOR,
    &garmin::VENDOR,
    &google::VENDOR,
    &healthkit::VENDOR,
    &oura::VENDOR,
    &polar::VENDOR,
    &terra::VENDOR,
    &whoop::VENDOR,
    &withings::VENDOR,
];

/// The vendor of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Vendor> {
    ALL.iter().copied().find(|vendor| vendor.name() == name)
}

/// The vendors that give their users new ids.
pub fn renaming() -> impl Iterator<Item = &'static str> {
    ALL.iter().filter(|vendor| vendor.renames()).map(|vendor| vendor.name())
}

/// The headers of a request, whoever holds them: the door's are not copied to be looked at.
pub trait Named: fmt::Debug + Sync {
    /// The first two values under this name, which is in lower case.
    fn first_two(&self, name: &str) -> [Option<&[u8]>; 2];
}

/// Names in lower case, values as they came; what fixtures and tests have.
impl Named for Vec<(String, Vec<u8>)> {
    fn first_two(&self, name: &str) -> [Option<&[u8]>; 2] {
        let mut found = self.iter().filter(|(known, _)| known == name);
        [(); 2].map(|()| found.next().map(|(_, value)| value.as_slice()))
    }
}

/// The names of all of them, in their order.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|vendor| vendor.name()).collect()
}

/// A request as it stands at the door: its headers, and the body's exact bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Headers by name; a name may come twice.
    pub headers: &'a dyn Named,
    /// The body, as it was received.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The value of a header that must stand there exactly once, as ASCII text.
    ///
    /// # Errors
    /// [`Kind::SignatureInvalid`] where it is missing, twice, or not text: a signature's headers are never guessed.
    pub fn one(&self, name: &str) -> Result<&'a str, Kind> {
        match self.headers.first_two(name) {
            [Some(value), None] => std::str::from_utf8(value)
                .ok()
                .filter(|text| text.is_ascii())
                .ok_or(Kind::SignatureInvalid),
            _ => Err(Kind::SignatureInvalid),
        }
    }

    /// Whether a header of this name is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.headers.first_two(name).first().is_some_and(Option::is_some)
    }
}

/// A vendor's live secrets: one, or two while one is being changed for the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Secrets<'a> {
    /// The keys that verify requests, prepared.
    pub signing: &'a [Key],
    /// The token of a handshake (Oura's `verification_token`).
    pub handshake: Option<&'a [u8]>,
    /// The public keys of a vendor that signs with one of its own ([`Vendor::keyset`]), where they are at hand.
    pub keyset: Option<&'a Keyset>,
}

impl Secrets<'_> {
    /// That a request verifies under one of the keys.
    ///
    /// # Errors
    /// [`Kind::SignatureInvalid`] where it does under none.
    pub fn signed(&self, verifies: impl Fn(&Key) -> bool) -> Result<(), Kind> {
        if self.signing.iter().any(verifies) { Ok(()) } else { Err(Kind::SignatureInvalid) }
    }
}

/// What a verified request tells the door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The recipe, for the record's header.
    pub scheme: &'static str,
    /// The vendor's user, where the headers, not the body, name it (HealthKit's token).
    pub vendor_user: Option<String>,
}

/// A raw record of a vendor, as normalise reads it.
#[derive(Clone, Debug)]
pub struct Raw<'a> {
    /// The record's headers ([`crate::model::contract::header`]).
    pub headers: &'a Headers,
    /// The body.
    pub body: &'a Bytes,
    /// When the door had it, µs.
    pub received_at: Micros,
}

/// One item of a body and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The position of the (first) item in the body.
    pub index: i32,
    /// The vendor's user whose it is; absent where the item names none.
    pub vendor_user: Option<String>,
    /// What it is.
    pub what: What,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A record, or a record's deletion, in our language.
    Record(Box<VendorRecord>),
    /// A notification: the record must be fetched.
    Fetch {
        /// Our name of its type.
        record_type: &'static str,
        /// The vendor's id.
        record_id: String,
    },
    /// A deletion of what is only notified: a tombstone, and the end of a waiting fetch.
    Gone(Box<VendorRecord>),
    /// A connection begins, ends, or has another name.
    Connection(Change),
    /// Nothing of ours, for this reason; a literal of the vendor's file.
    Ignored(&'static str),
    /// Bad, for this reason, at this place.
    Bad(Reject),
}

/// A record as the vendor's file makes it: in our language, before it is known whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct VendorRecord {
    /// The maker in lower case.
    pub device_type: String,
    /// The way it came: `direct` or the aggregator's name.
    pub via: &'static str,
    /// `sleep`, `daily`, `samples.heart_rate`, …
    pub record_type: String,
    /// The vendor's id, or the natural key.
    pub record_id: String,
    /// How revisions come together.
    pub merge: Merge,
    /// There or gone.
    pub op: Op,
    /// The vendor's version, µs.
    pub version: Option<Micros>,
    /// What it says.
    pub content: Content,
}

/// What a vendor's user is at the door: the key of the raw record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyUser {
    /// Exactly one.
    One(String),
    /// None, or several, or not readable: the body's hash is the key.
    None,
}

/// A vendor: three faces, all pure.
pub trait Vendor: Sync {
    /// The name in paths, topics and rows: lower case.
    fn name(&self) -> &'static str;

    /// The largest body that the door takes, bytes.
    fn body_bytes_max(&self) -> usize {
        1024 * 1024
    }

    /// Whether the door takes `Content-Encoding: gzip`; it is stored as sent and unpacked in normalise.
    fn takes_gzip(&self) -> bool {
        false
    }

    /// Whether its path has a secret at its end, because it signs nothing: `/webhooks/garmin/<secret>`. The secrets
    /// are the ones that would sign; the door compares them before it reads a body, and any other path is none.
    fn secret_path(&self) -> bool {
        false
    }

    /// The status of success, as the vendor wants it.
    fn accepted(&self) -> u16 {
        200
    }

    /// The status of a request that comes too often, where a rate is configured: one after which it is sent again.
    /// Vendors differ in what they do upon a 4xx (some drop the delivery, some count it against the subscription),
    /// and all of them repeat a 503.
    fn limited(&self) -> u16 {
        503
    }

    /// How far a signature's time may lie from now, µs, either way; longer than the vendor's retry horizon.
    fn window_us(&self) -> Micros;

    /// Request headers (lower case) that stand on the raw record under `http.<name>`, because `parse` needs them.
    fn kept_headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// The header that names a delivery, stable across its retries.
    fn delivery_header(&self) -> Option<&'static str> {
        None
    }

    /// Whether it is theirs: over the raw bytes, in constant time, within the window.
    ///
    /// # Errors
    /// [`Kind::SignatureInvalid`] or [`Kind::SignatureExpired`], and the body is not parsed; or
    /// [`Kind::WearableApiError`] where that cannot be told, because the vendor's public keys are not at hand: our fault,
    /// and it is to send again.
    fn verify(
        &self,
        request: &Request<'_>,
        secrets: &Secrets<'_>,
        now_us: Micros,
    ) -> Result<Verified, Kind>;

    /// The answer to a GET handshake with these query parameters: the body to send, or a refusal.
    fn handshake(
        &self,
        _query: &[(String, String)],
        _secrets: &Secrets<'_>,
    ) -> Option<Result<String, Kind>> {
        None
    }

    /// Where the vendor publishes the keys that verify its signatures, where it signs with a key of its own: https, and
    /// a keyset of Tink's. Configuration may name another.
    fn keyset(&self) -> Option<&'static str> {
        None
    }

    /// The status that a greeting is answered with, if this POST is one: not signed, because the vendor has not told us
    /// the secret to verify it with (Polar's `PING`) or wants to see whether we look at it (Google's verification).
    /// Nothing is written.
    fn greets(&self, _request: &Request<'_>, _secrets: &Secrets<'_>) -> Option<u16> {
        None
    }

    /// Whether it gives its users new ids, and announces somebody under a new one as if he were new. What comes of who
    /// begins beside another connection of his waits then, until nothing more can be said of it.
    fn renames(&self) -> bool {
        false
    }

    /// The vendor's user for the record's key, read by the same bounded reader that `parse` uses.
    fn key_user(&self, verified: &Verified, body: &[u8]) -> KeyUser;

    /// What the body says, item by item. A body that cannot be read at all is one [`Reject`] of the whole record.
    ///
    /// # Errors
    /// The reject of the whole body.
    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject>;

    /// Its API, where records are fetched from it.
    fn api(&self) -> Option<&'static dyn ask::Api> {
        None
    }

    /// How a person's consent is had, where people connect by it.
    fn consent(&self) -> Option<&'static dyn consent::Consent> {
        None
    }

    /// What a fetched body says, as [`Vendor::parse`]: the record type is the one that was asked for.
    ///
    /// # Errors
    /// The reject of the whole body.
    fn document(&self, _raw: &Raw<'_>, _record_type: &str) -> Result<Vec<Item>, Reject> {
        Err(Reject::invalid(Path::root(), "this vendor has no documents"))
    }
}
