//! A sender's own key, as [`crate::vendors::wire::tink`] verifies it: for simulated traffic and for tests, where we are the
//! vendor. The key is drawn when it is made and stands nowhere else; that is why it is here and not beside what verifies
//! it, which is pure.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Signs as a vendor does.
#[derive(Debug)]
pub struct Signer {
    id: u32,
    pair: EcdsaKeyPair,
}

impl Signer {
    /// A signer whose key has this id; nothing where the machine makes no keys.
    #[must_use]
    pub fn new(id: u32) -> Option<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).ok()?;
        Some(Self { id, pair })
    }

    /// What verifies it, as one key of a keyset of this status.
    #[must_use]
    pub fn key(&self, status: &str) -> Value {
        let point = self.pair.public_key().as_ref().get(1..).unwrap_or_default();
        // The parameters: SHA-256, P-256, DER.
        let mut message = vec![0x12, 6, 0x08, 3, 0x10, 2, 0x18, 2];
        for (tag, coordinate) in [0x1a, 0x22].into_iter().zip(point.chunks(32)) {
            // Tink writes a zero before each.
            message.extend([tag, 33, 0]);
            message.extend_from_slice(coordinate);
        }
        json!({
            "keyData": {
                "typeUrl": "type.googleapis.com/google.crypto.tink.EcdsaPublicKey",
                "value": STANDARD.encode(message),
                "keyMaterialType": "ASYMMETRIC_PUBLIC",
            },
            "status": status, "keyId": self.id, "outputPrefixType": "TINK",
        })
    }

    /// The keyset that has this key alone.
    #[must_use]
    pub fn keyset(&self) -> String {
        json!({ "primaryKeyId": self.id, "key": [self.key("ENABLED")] }).to_string()
    }

    /// The signature of these bytes, base64; nothing where the machine signs nothing.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> Option<String> {
        let der = self.pair.sign(&SystemRandom::new(), body).ok()?;
        let mut signature = vec![0x01];
        signature.extend(self.id.to_be_bytes());
        signature.extend_from_slice(der.as_ref());
        Some(STANDARD.encode(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reject;
    use crate::vendors::wire::tink::Keyset;

    const BODY: &[u8] = b"[{\"data\":{}}]";

    fn signer(id: u32) -> Signer {
        Signer::new(id).expect("a key")
    }

    fn keyset(keys: &[Value]) -> Result<Keyset, Reject> {
        Keyset::parse(json!({ "primaryKeyId": 7, "key": keys }).to_string().as_bytes())
    }

    #[test]
    fn what_signs_is_what_verifies_and_nothing_else() {
        let (ours, other, same_id) = (signer(0x8000_0007), signer(7), signer(0x8000_0007));
        let set = Keyset::parse(ours.keyset().as_bytes()).expect("a keyset");
        assert!(set.verifies(BODY, &ours.sign(BODY).expect("a signature")));
        for another in [&other, &same_id] {
            assert!(!set.verifies(BODY, &another.sign(BODY).expect("a signature")));
        }
        // An id that two keys have is Tink's to allow.
        let both = keyset(&[ours.key("ENABLED"), same_id.key("ENABLED")]).expect("a keyset");
        for one in [&ours, &same_id] {
            assert!(both.verifies(BODY, &one.sign(BODY).expect("a signature")));
        }
    }

    #[test]
    fn a_key_that_is_not_enabled_does_not_spoil_the_one_beside_it() {
        let (ours, other) = (signer(7), signer(8));
        let signature = ours.sign(BODY).expect("a signature");
        for status in ["DISABLED", "DESTROYED", "UNKNOWN_STATUS", ""] {
            let set = keyset(&[ours.key(status), other.key("ENABLED")]).expect("one is enabled");
            assert!(!set.verifies(BODY, &signature), "{status}");
            assert!(set.verifies(BODY, &other.sign(BODY).expect("a signature")), "beside it");
        }
    }
}
