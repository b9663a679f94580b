//! Signature recipes: HMAC-SHA256 over the exact bytes, compared in constant time.
//!
//! Every vendor signs with the same function and differs in what stands before the body (a
//! timestamp, a dot) and in the text that the digest is written as. So a recipe is a list of parts,
//! which are fed one after the other and never joined (a 10 MB body is not copied), and a form of
//! text. The given text is decoded strictly first; that takes a time that depends on the sender's
//! own text only. The digests are then compared as `aws_lc_rs::hmac::verify` compares them; it
//! takes one slice, so its two steps stand here one by one.
//!
//! A key is prepared once ([`Key`]) and used for every request: what HMAC does with the key alone is
//! a fifth of the work on a short body.
//!
//! `sign_…` is the other direction: for simulated traffic and for tests, where we are the vendor.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::Kind;
use crate::model::time::Micros;

/// A SHA-256 digest, bytes.
const DIGEST_BYTES: usize = 32;

/// A key, prepared. It never shows.
#[derive(Clone)]
pub struct Key {
    prepared: hmac::Key,
    /// Of the bytes, for senders that name them: two digests are compared, and no length shows.
    sha256: digest::Digest,
    /// An empty key verifies nothing: a secret that was never set must not let everybody in.
    empty: bool,
}

impl Key {
    /// The key of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            prepared: hmac::Key::new(hmac::HMAC_SHA256, bytes),
            sha256: digest::digest(&digest::SHA256, bytes),
            empty: bytes.is_empty(),
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.empty
    }

    /// Whether these are its very bytes: for a secret that is sent and not signed with. An empty key is nobody's.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        let given = digest::digest(&digest::SHA256, given);
        let equal = aws_lc_rs::constant_time::verify_slices_are_equal;
        !self.empty && equal(self.sha256.as_ref(), given.as_ref()).is_ok()
    }

    /// The HMAC-SHA256 of these parts, lower-case hex.
    #[must_use]
    pub fn hex(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.sign(parts))
    }

    fn sign(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.prepared);
        for part in parts {
            context.update(part);
        }
        context.sign()
    }

    /// Constant-time in the digest. No truncated digests: a length is not a secret, and is looked
    /// at first.
    fn verify(&self, parts: &[&[u8]], given: &[u8]) -> bool {
        if self.empty || given.len() != DIGEST_BYTES {
            return false;
        }
        let ours = self.sign(parts);
        aws_lc_rs::constant_time::verify_slices_are_equal(ours.as_ref(), given).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key(***)")
    }
}

/// Whether this hex text, in either case, is the HMAC-SHA256 of these parts under this key.
///
/// An empty key verifies nothing.
#[must_use]
pub fn hex_over(parts: &[&[u8]], key: &Key, given_hex: &str) -> bool {
    let mut given = [0; DIGEST_BYTES];
    hex::decode_to_slice(given_hex, &mut given).is_ok() && key.verify(parts, &given)
}

/// Whether this base64 text (standard alphabet, padded) is the HMAC-SHA256 of these parts under
/// this key.
///
/// An empty key verifies nothing, as in [`hex_over`].
#[must_use]
pub fn base64_over(parts: &[&[u8]], key: &Key, given_base64: &str) -> bool {
    STANDARD.decode(given_base64).is_ok_and(|given| key.verify(parts, &given))
}

/// When a request was signed, µs: of decimal digits and nothing else, in units of so many µs.
///
/// # Errors
/// [`Kind::SignatureInvalid`] where it is anything else, or so far away that its µs do not fit.
pub fn signed_at(text: &str, unit_us: Micros) -> Result<Micros, Kind> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let units = text.parse::<Micros>().ok().filter(|_| plain);
    units.and_then(|units| units.checked_mul(unit_us)).ok_or(Kind::SignatureInvalid)
}

/// That what was signed then is not too far from now, either way. To be asked when the signature has verified: only who
/// has the key learns that it was the time.
///
/// # Errors
/// [`Kind::SignatureExpired`] where it is.
pub fn fresh(now_us: Micros, signed_us: Micros, window_us: Micros) -> Result<(), Kind> {
    let apart = now_us.abs_diff(signed_us);
    if apart > window_us.unsigned_abs() { Err(Kind::SignatureExpired) } else { Ok(()) }
}

/// The HMAC-SHA256 of these parts under this key, lower-case hex.
#[must_use]
pub fn sign_hex(parts: &[&[u8]], key: &[u8]) -> String {
    Key::new(key).hex(parts)
}

/// The HMAC-SHA256 of these parts under this key, standard base64 with padding.
#[must_use]
pub fn sign_base64(parts: &[&[u8]], key: &[u8]) -> String {
    STANDARD.encode(Key::new(key).sign(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"not-a-secret-test-key";
    const OURA: &[u8] = concat!(
        r#"{"event_type":"update","data_type":"sleep","#,
        r#""object_id":"7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11","#,
        r#""event_time":"2026-03-29T06:41:12+00:00","user_id":"u-4f2c81"}"#,
    )
    .as_bytes();
    const WHOOP: &[u8] = concat!(
        r#"{"user_id":481516,"id":"0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77","#,
        r#""type":"recovery.updated","trace_id":"5f0c2a11-7d34-4d0a-9a53-0d8e6b1f9c20"}"#,
    )
    .as_bytes();
    const TERRA: &[u8] = br#"{"type":"daily","user":{"user_id":"5a3d0e6b"},"data":[]}"#;
    const POLAR: &[u8] = concat!(
        r#"{"event":"SLEEP","user_id":62713944,"date":"2026-03-29","#,
        r#""timestamp":"2026-03-29T06:12:41Z","#,
        r#""url":"https://www.polaraccesslink.com/v3/users/sleep/2026-03-29"}"#,
    )
    .as_bytes();

    const OURA_SAYS: &str = "8F7EEA16285F5EB13CF8F9DE3FB3333BB41AD7FD76EF3623EAFD05F5FE99BAE1";
    const WHOOP_SAYS: &str = "YkdPmvWsym13R6xgYvzba3OsC4tUUb5Z6FbNUI1zIvA=";
    const TERRA_SAYS: &str = "e32b8871786ce539958ed3ce23da4faf76a7fafd22e850d548027e41291d280a";
    const POLAR_SAYS: &str = "b680ddf10776ec2bba6340ed9f94e16fe7c5f732ec5e5cda135ff862d8409c2b";

    #[test]
    fn the_golden_vectors_hold() {
        assert_eq!([OURA.len(), WHOOP.len(), TERRA.len(), POLAR.len()], [156, 138, 56, 157]);
        let key = &Key::new(KEY);
        assert!(hex_over(&[b"1774766472", OURA], key, OURA_SAYS));
        assert!(hex_over(&[b"1774766472", OURA], key, &OURA_SAYS.to_lowercase()));
        assert!(base64_over(&[b"1774766691903", WHOOP], key, WHOOP_SAYS));
        assert!(hex_over(&[b"1774766800", b".", TERRA], key, TERRA_SAYS));
        assert!(hex_over(&[POLAR], key, POLAR_SAYS));
        // Withings signs our calls to it the same way.
        let call: &[u8] = b"getnonce,client-1,1774766800";
        let says = "cf81c07788898800d8868618ba292f0576cf01b365e42e88681e7bfda3898cf5";
        assert_eq!(sign_hex(&[call], KEY), says);
        // HealthKit is ours: the recipe is Terra's, the key is the connection's token.
        let healthkit = sign_hex(&[b"1774766800", b".", TERRA], KEY);
        assert_eq!(healthkit, TERRA_SAYS);
    }

    #[test]
    fn what_signs_is_what_verifies() {
        assert_eq!(sign_hex(&[b"1774766472", OURA], KEY).to_uppercase(), OURA_SAYS);
        assert_eq!(sign_base64(&[b"1774766691903", WHOOP], KEY), WHOOP_SAYS);
        assert_eq!(sign_hex(&[b"17747", b"66472", OURA], KEY).to_uppercase(), OURA_SAYS);
    }

    #[test]
    fn a_flipped_bit_a_newline_or_a_neighbours_scheme_fails() {
        let key = &Key::new(KEY);
        for at in [0, 17, TERRA.len() - 1] {
            let mut bent = TERRA.to_vec();
            bent[at] ^= 1;
            assert!(!hex_over(&[b"1774766800", b".", &bent], key, TERRA_SAYS));
        }
        let newline = [TERRA, b"\n"].concat();
        assert!(!hex_over(&[b"1774766800", b".", &newline], key, TERRA_SAYS));
        assert!(!hex_over(&[b"1774766800", TERRA], key, TERRA_SAYS), "Oura's scheme");
        assert!(!hex_over(&[b"1774766801", b".", TERRA], key, TERRA_SAYS));
        assert!(!hex_over(&[b"1774766800", b".", TERRA], &Key::new(b"another key"), TERRA_SAYS));
        assert!(!base64_over(&[b"1774766472", OURA], key, OURA_SAYS));
        assert!(!hex_over(&[b"1774766691903", WHOOP], key, WHOOP_SAYS));
    }

    #[test]
    fn a_text_that_is_no_digest_fails() {
        let key = &Key::new(KEY);
        for given in ["", "e3", TERRA_SAYS.trim_end_matches("0a"), &format!("{TERRA_SAYS}0a"), "zz"]
        {
            assert!(!hex_over(&[b"1774766800", b".", TERRA], key, given), "{given}");
        }
        for given in ["", "YkdP", WHOOP_SAYS.trim_end_matches('='), &format!(" {WHOOP_SAYS}")] {
            assert!(!base64_over(&[b"1774766691903", WHOOP], key, given), "{given}");
        }
    }

    #[test]
    fn the_time_of_a_signature_is_plain_digits() {
        let (second, millisecond) = (1_000_000, 1_000);
        assert_eq!(signed_at("1774766472", second), Ok(1_774_766_472_000_000));
        assert_eq!(signed_at("1774766691903", millisecond), Ok(1_774_766_691_903_000));
        for text in ["", "+1", "-1", " 1", "1.0", "99999999999999999999", "9223372036855"] {
            assert_eq!(signed_at(text, second), Err(Kind::SignatureInvalid), "{text}");
        }
    }

    #[test]
    fn a_signature_is_fresh_within_its_window_either_way() {
        for apart in [-8, -7, 0, 7, 8] {
            let fresh = fresh(1_000 + apart, 1_000, 7);
            assert_eq!(fresh.is_ok(), apart.abs() <= 7, "{apart}");
        }
        assert_eq!(fresh(0, Micros::MAX, 7), Err(Kind::SignatureExpired));
    }

    #[test]
    fn an_empty_key_verifies_nothing() {
        let key = Key::new(b"");
        assert!(key.is_empty() && !hex_over(&[TERRA], &key, &sign_hex(&[TERRA], b"")));
    }

    #[test]
    fn a_key_that_is_sent_is_its_bytes_and_no_others() {
        let key = Key::new(b"Bearer not-a-secret");
        assert!(key.is(b"Bearer not-a-secret"));
        let others: [&[u8]; 4] =
            [b"", b"bearer not-a-secret", b"Bearer not-a-secret ", b"Bearer not-a-secret\0"];
        for given in others {
            assert!(!key.is(given), "{given:?}");
        }
        assert!(!Key::new(b"").is(b""));
    }

    #[test]
    fn a_key_does_not_show() {
        assert_eq!(format!("{:?}", Key::new(KEY)), "Key(***)");
    }
}
