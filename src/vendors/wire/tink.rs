//! Signatures by a key of the sender's own: ECDSA on P-256 over SHA-256, as Tink writes keys and signatures.
//!
//! The sender signs with a key that nobody else has, and publishes what verifies it: a keyset, JSON, of which some keys
//! may be switched off. A signature begins with five bytes of Tink's, a mark and the key's id, and goes on as DER. The id
//! chooses the key; no other is tried. A key that is not ENABLED, not on this curve, or written otherwise verifies
//! nothing, and does not spoil the keys beside it: sets change by keys that come before they sign.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::Reject;
use crate::vendors::wire::json::{self, At};

/// What stands before a key's id in a signature of Tink's.
const MARK: u8 = 0x01;
/// The mark and the id.
const PREFIX_BYTES: usize = 5;
/// The longest signature that is looked at, as base64; a DER signature on this curve has 72 bytes at most.
const SIGNATURE_CHARACTERS_MAX: usize = 128;
/// The most keys of a set.
const KEYS_MAX: usize = 64;
/// The bytes of a coordinate of P-256, with room for a zero before it.
const COORDINATE_BYTES: usize = 32;
/// What kind of key it is, where it is one of ours.
const TYPE: &str = "type.googleapis.com/google.crypto.tink.EcdsaPublicKey";

/// A key that verifies: its id, and its point, not compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Public {
    id: u32,
    point: Vec<u8>,
}

/// The keys of a sender that are ENABLED.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyset(Vec<Public>);

impl Keyset {
    /// Reads a public keyset, JSON.
    ///
    /// # Errors
    /// Where it is none, or has no key that can verify anything.
    pub fn parse(body: &[u8]) -> Result<Self, Reject> {
        let json = json::parse(body)?;
        let root = json.root();
        let list = root.object()?.need("key")?;
        let keys: Vec<Public> = list.items()?.take(KEYS_MAX).filter_map(|at| public(&at)).collect();
        if keys.is_empty() { Err(list.invalid("no key that is enabled")) } else { Ok(Self(keys)) }
    }

    /// Whether this base64 text (standard alphabet, padded) is a signature of these bytes by a key of the set.
    #[must_use]
    pub fn verifies(&self, body: &[u8], signature_base64: &str) -> bool {
        if signature_base64.len() > SIGNATURE_CHARACTERS_MAX {
            return false;
        }
        let Ok(given) = STANDARD.decode(signature_base64) else { return false };
        let Some((prefix, der)) = given.split_at_checked(PREFIX_BYTES) else { return false };
        let [MARK, id @ ..] = prefix else { return false };
        let Ok(id) = <[u8; 4]>::try_from(id) else { return false };
        let mut named = self.0.iter().filter(|key| key.id == u32::from_be_bytes(id));
        // An id that two keys have is Tink's to allow; either may have signed.
        named.any(|key| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.point);
            key.verify(body, der).is_ok()
        })
    }
}

/// A key of a set; nothing of one that verifies nothing here.
fn public(at: &At<'_>) -> Option<Public> {
    let text = |at: &At<'_>, name| at.get(name).and_then(|it| it.text().ok().map(str::to_owned));
    let (status, prefix) = (text(at, "status")?, text(at, "outputPrefixType")?);
    let inner = at.get("keyData")?;
    if status != "ENABLED" || prefix != "TINK" || text(&inner, "typeUrl")? != TYPE {
        return None;
    }
    let id = u32::try_from(at.get("keyId")?.integer().ok()?).ok()?;
    let value = STANDARD.decode(text(&inner, "value")?).ok()?;
    Some(Public { id, point: point(&value)? })
}

/// The point of an `EcdsaPublicKey` (a protocol buffer): version 1, parameters 2, x 3, y 4. Parameters are hash 1, curve 2,
/// encoding 3; here SHA-256 is 3, P-256 is 2 and DER is 2.
fn point(message: &[u8]) -> Option<Vec<u8>> {
    let fields = fields(message)?;
    if of(&fields, 1).is_some_and(|(version, _)| version != 0) {
        return None;
    }
    let parameters = self::fields(of(&fields, 2)?.1)?;
    let chosen = [1, 2, 3].map(|number| of(&parameters, number).map(|(value, _)| value));
    if chosen != [Some(3), Some(2), Some(2)] {
        return None;
    }
    let mut point = vec![0x04];
    for number in [3, 4] {
        point.extend(coordinate(of(&fields, number)?.1)?);
    }
    Some(point)
}

/// A big-endian number in as many bytes as the curve has; Tink may write a zero before it, or leave zeros out.
fn coordinate(bytes: &[u8]) -> Option<[u8; COORDINATE_BYTES]> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let significant = bytes.get(first..)?;
    let mut out = [0; COORDINATE_BYTES];
    let from = COORDINATE_BYTES.checked_sub(significant.len())?;
    out.get_mut(from..)?.copy_from_slice(significant);
    Some(out)
}

/// A member of a message: its number, its value where that is a number, its bytes where it has such.
type Member<'a> = (u64, u64, &'a [u8]);

/// The value and the bytes of the last member of this number, which is the one that counts.
fn of<'a>(fields: &[Member<'a>], number: u64) -> Option<(u64, &'a [u8])> {
    let mut found = fields.iter().rev().filter(|(known, ..)| *known == number);
    found.next().map(|(_, value, bytes)| (*value, *bytes))
}

/// The members of a message that has numbers and bytes alone.
fn fields(mut rest: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => fields.push((tag >> 3, varint(&mut rest)?, &[][..])),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (bytes, after) = rest.split_at_checked(length)?;
                rest = after;
                fields.push((tag >> 3, 0, bytes));
            }
            _ => return None,
        }
    }
    Some(fields)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A keyset of one key, and what its holder signed; the key that signed is nowhere any more.
#[cfg(test)]
pub(crate) mod pinned {
    #[rustfmt::skip]
    pub(crate) const KEYSET: &str = r#"{"primaryKeyId":7,"key":[{"keyData":{
        "typeUrl":"type.googleapis.com/google.crypto.tink.EcdsaPublicKey",
        "value":"EgYIAxACGAIaIQBluaS/NQLUiN62RpjgNXFWrSFkecUOUIjKvF0VysqLsyIhACNAcclvtA90BmTwqMk6OYS1EF7TUsF09TwUU+dAaTOZ",
        "keyMaterialType":"ASYMMETRIC_PUBLIC"},
        "status":"ENABLED","keyId":7,"outputPrefixType":"TINK"}]}"#;
    pub(crate) const BODY: &str = r#"[{"data":{}}]"#;
    pub(crate) const SIGNATURE: &str = "AQAAAAcwRQIhAMJrUbNDaYYkXiEzYoMM3fgbr74QwFIMGN0pTciWypuVAiBET6MANolKJ3qn50YpvsRqXmXcs5tUlQthpddtPKe18g==";
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::pinned::{BODY, KEYSET, SIGNATURE};
    use super::*;

    fn set() -> Keyset {
        Keyset::parse(KEYSET.as_bytes()).expect("a keyset")
    }

    /// The keyset in which this member of its key is another.
    fn with(path: &str, value: Value) -> Result<Keyset, Reject> {
        let mut set: Value = serde_json::from_str(KEYSET).expect("JSON");
        *set.pointer_mut(&format!("/key/0/{path}")).expect("a member") = value;
        Keyset::parse(set.to_string().as_bytes())
    }

    #[test]
    fn what_was_signed_verifies_and_nothing_else() {
        let body = BODY.as_bytes();
        assert!(set().verifies(body, SIGNATURE));
        for at in 0..body.len() {
            let mut bent = body.to_vec();
            bent[at] ^= 1;
            assert!(!set().verifies(&bent, SIGNATURE), "{at}");
        }
        assert!(!set().verifies(&[body, b"\n"].concat(), SIGNATURE));
        let unknown = with("keyId", json!(8)).expect("a keyset");
        assert!(!unknown.verifies(body, SIGNATURE), "an unknown id");
    }

    #[test]
    fn every_byte_of_a_signature_counts() {
        let body = BODY.as_bytes();
        let given = STANDARD.decode(SIGNATURE).expect("base64");
        for at in 0..given.len() {
            let mut bent = given.clone();
            bent[at] ^= 1;
            assert!(!set().verifies(body, &STANDARD.encode(&bent)), "{at}");
            assert!(!set().verifies(body, &STANDARD.encode(&given[..at])), "cut at {at}");
        }
        assert!(!set().verifies(body, &STANDARD.encode(&given[PREFIX_BYTES..])), "no prefix");
        for text in ["", "AQ==", "not base64!", &"A".repeat(4_096), &format!(" {SIGNATURE}")] {
            assert!(!set().verifies(body, text), "{text}");
        }
    }

    #[test]
    fn only_an_enabled_key_of_this_kind_is_a_key() {
        for status in ["DISABLED", "DESTROYED", "UNKNOWN_STATUS", ""] {
            assert!(with("status", json!(status)).is_err(), "{status}");
        }
        for (path, value) in [
            ("outputPrefixType", "RAW"),
            ("keyId", "7"),
            ("keyData", "x"),
            ("keyData/typeUrl", "type.googleapis.com/google.crypto.tink.HmacKey"),
        ] {
            assert!(with(path, json!(value)).is_err(), "{path}");
        }
        for body in ["", "{}", "[]", r#"{"key":{}}"#, r#"{"key":[]}"#, r#"{"key":[7]}"#] {
            assert!(Keyset::parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn another_curve_hash_or_encoding_is_no_key() {
        let set: Value = serde_json::from_str(KEYSET).expect("JSON");
        let whole = set["key"][0]["keyData"]["value"].as_str().expect("a text");
        let whole = STANDARD.decode(whole).expect("base64");
        assert!(point(&whole).is_some());
        for at in [3, 5, 7] {
            let mut bent = whole.clone();
            bent[at] += 1;
            assert_eq!(point(&bent), None, "{at}");
        }
        for length in 0..whole.len() {
            assert_eq!(point(&whole[..length]), None, "cut at {length}");
        }
    }
}
