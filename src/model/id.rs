//! Identities: derived, never drawn, so that reading the same bytes twice finds the same thing.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::contract::Topic;

/// The namespace of every id that this system derives (itself a v5 of the URL namespace, fixed for ever).
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_2b0c_4c0e_5f6b_9a71_3d52_7e8c_40a1);

/// A v5 id over parts, each with its length before it, so that no two lists of parts are the same bytes.
fn derive(label: &str, parts: &[&[u8]]) -> Uuid {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(label.as_bytes());
    for part in parts {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &bytes)
}

/// One of our people: an opaque id of our own, in every key and header. Never a vendor's id, never an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct User(String);

impl User {
    /// An id of 1 to 64 letters, digits, `-` or `_`; anything else is refused, an address in particular.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        fits.then(|| Self(text.to_owned()))
    }

    /// The user of a vendor's user for whom nobody made a connection, where the configuration derives them.
    #[must_use]
    pub fn derived(vendor: &str, vendor_user: &str) -> Self {
        Self(derive("user", &[vendor.as_bytes(), vendor_user.as_bytes()]).to_string())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for User {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A person's link to a vendor; it survives a vendor's change of its user id, which is why event ids name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub Uuid);

impl ConnectionId {
    /// The id of this text: hyphenated hexadecimal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(Self)
    }

    /// The connection of a vendor's first user (or of a label, where we name it) and our user.
    #[must_use]
    pub fn derive(vendor: &str, first_vendor_user_or_label: &str, user: &User) -> Self {
        Self(derive(
            "connection",
            &[vendor.as_bytes(), first_vendor_user_or_label.as_bytes(), user.as_str().as_bytes()],
        ))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

as_text!(ConnectionId, "an id of hyphenated hexadecimal");

/// The identity of a vendor's record, whatever its content and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub Uuid);

impl EventId {
    /// The id of this text: hyphenated hexadecimal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(Self)
    }

    /// The id of a record: our connection, the record's type, and the vendor's id or its natural key.
    #[must_use]
    pub fn derive(connection: ConnectionId, record_type: &str, record_id: &str) -> Self {
        Self(derive(
            "event",
            &[connection.0.as_bytes(), record_type.as_bytes(), record_id.as_bytes()],
        ))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

as_text!(EventId, "an id of hyphenated hexadecimal");

/// The id of a trigger's change: a replay finds it again.
#[must_use]
pub fn trigger_id(user: &User, rule: &str, event: EventId, step: &str) -> Uuid {
    derive(
        "trigger",
        &[user.as_str().as_bytes(), rule.as_bytes(), event.0.as_bytes(), step.as_bytes()],
    )
}

/// The id of a sample whose client gave it none: connection, metric, start and source. Not its value: what is said of
/// the same moment later replaces it.
#[must_use]
pub fn sample_id(connection: &str, metric: &str, start_us: i64, source: &str) -> Uuid {
    let start = start_us.to_be_bytes();
    derive("sample", &[connection.as_bytes(), metric.as_bytes(), &start, source.as_bytes()])
}

/// What a record says, as a hash: SHA-256 of its canonical content, the first 128 bits.
///
/// 128 bits, because who chooses content chooses it for one connection: a collision costs 2⁶⁴ tries and
/// suppresses a revision of the forger's own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(pub [u8; 16]);

impl ContentHash {
    /// The hash of canonical bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_parts(&[bytes])
    }

    /// The same of bytes that stand in parts.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut full = digest::Context::new(&digest::SHA256);
        parts.iter().for_each(|part| full.update(part));
        let full = full.finish();
        let mut short = [0; 16];
        for (to, from) in short.iter_mut().zip(full.as_ref()) {
            *to = *from;
        }
        Self(short)
    }
}

/// SHA-256 of bytes, lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// SHA-256 of what comes piece by piece, for what is too large to be held at once.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Sha256 {
    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all of them, lower-case hex.
    #[must_use]
    pub fn hex(self) -> String {
        hex::encode(self.0.finish())
    }
}

/// The key under which ids of people are written where they must be told apart and cannot be read.
///
/// Keyed, because ids are few: a plain hash of every `WHOOP` user id is a matter of seconds. What
/// stands before an id keeps the places apart: the pseudonym in a raw topic's key is not the one in
/// a log.
pub struct PseudonymKey(hmac::Key);

impl PseudonymKey {
    /// The key of this secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A vendor's user in the keys of raw topics: 32 hex digits of HMAC-SHA256 over vendor, 0x00,
    /// user.
    #[must_use]
    pub fn vendor_user(&self, vendor: &str, vendor_user: &str) -> String {
        self.of(vendor, vendor_user)
    }

    /// Our user in a line of a log: of the same form, over `log`, 0x00, user.
    #[must_use]
    pub fn logged(&self, user: &User) -> String {
        self.of("log", user.as_str())
    }

    fn of(&self, place: &str, id: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(place.as_bytes());
        context.update(&[0]);
        context.update(id.as_bytes());
        hex::encode(context.sign().as_ref().first_chunk::<16>().unwrap_or(&[0; 16]))
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PseudonymKey(***)")
    }
}

/// Where a record came from: the coordinates of its raw record and the position of its (first) item in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// The raw topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The position of the record's first item in the body, not in what came out of it.
    pub index: i32,
}

/// A record's place in the one total order of its id: vendor's version or receipt (µs), source, normaliser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The vendor's version in µs, or the receipt time where it has none or lies in the future.
    pub at_us: i64,
    /// The source, which decides between two of one time.
    pub source: Source,
    /// The version of the normaliser that read it, last, so that an old binary cannot flip content back.
    pub normaliser: i32,
}

impl Place {
    /// Bytes of a fixed length; [`Place::decode`] reads them.
    #[must_use]
    pub fn encode(&self) -> [u8; 29] {
        let mut out = [0; 29];
        let parts: [&[u8]; 6] = [
            &self.at_us.to_be_bytes(),
            &[self.source.topic.code()],
            &self.source.partition.to_be_bytes(),
            &self.source.offset.to_be_bytes(),
            &self.source.index.to_be_bytes(),
            &self.normaliser.to_be_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    /// The place of these bytes, if they are one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 29] = bytes.try_into().ok()?;
        let (at, rest) = bytes.split_first_chunk::<8>()?;
        let (topic, rest) = rest.split_first()?;
        let (partition, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let normaliser: [u8; 4] = rest.try_into().ok()?;
        Some(Self {
            at_us: i64::from_be_bytes(*at),
            source: Source {
                topic: Topic::of_code(*topic)?,
                partition: i32::from_be_bytes(*partition),
                offset: i64::from_be_bytes(*offset),
                index: i32::from_be_bytes(*index),
            },
            normaliser: i32::from_be_bytes(normaliser),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_never_an_address() {
        assert!(User::parse("app-user_77").is_some());
        for bad in ["", "a@b.example", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(User::parse(bad), None);
        }
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        let mut pieces = Sha256::default();
        pieces.update(b"ab");
        pieces.update(b"");
        pieces.update(b"c");
        assert_eq!(pieces.hex(), sha256_hex(b"abc"));
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(derive("x", &[b"ab", b"c"]), derive("x", &[b"a", b"bc"]));
    }

    #[test]
    fn a_pseudonym_needs_its_key() {
        let key = PseudonymKey::new(b"not-a-secret-test-key");
        let one = key.vendor_user("whoop", "481516");
        // HMAC-SHA256 of `whoop`, 0x00, `481516`, as Python's hmac module has it.
        assert_eq!(one, "875b1a2745b5ee78988a342b13ae8861");
        assert_ne!(one, key.vendor_user("oura", "481516"), "vendors are kept apart");
        assert_ne!(one, PseudonymKey::new(b"another").vendor_user("whoop", "481516"));
        let user = User::parse("481516").expect("a user");
        assert_ne!(key.vendor_user("whoop", "481516"), key.logged(&user));
        assert_eq!(format!("{key:?}"), "PseudonymKey(***)");
    }

    #[test]
    fn a_place_survives_its_bytes() {
        let place = Place {
            at_us: -5,
            source: Source { topic: Topic::RawTerra, partition: 3, offset: 9, index: 2 },
            normaliser: 1,
        };
        assert_eq!(Place::decode(&place.encode()), Some(place));
        assert_eq!(Place::decode(&[0; 28]), None);
    }
}
