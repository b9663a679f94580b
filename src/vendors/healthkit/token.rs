//! Whose push it is: a token that verifies without a look-up.
//!
//! A connection's token is `<connection id>.<hex HMAC-SHA256(app secret, connection id)>`, both parts in lower case.
//! It comes in exactly one of three ways; a request that shows two is refused, because two readers could take
//! a different one for the person:
//!
//! | way | headers | who |
//! | --- | --- | --- |
//! | bearer | `authorization: Bearer <token>` | our SDK |
//! | api key | `api-key: <token>` | apps that can set static headers only (Health Auto Export) |
//! | HMAC | `x-connection-id`, `x-signature-timestamp` (unix seconds), `x-signature` | our SDK, signed |
//!
//! In the third `x-signature` is the hex HMAC-SHA256 of `timestamp "." body` under the device key, and **the device
//! key is the token's second part as it is written**: its 64 ASCII characters in lower-case hex, not the 32
//! bytes that they stand for. So a device needs one string from us, whichever way it sends.
//!
//! A connection id may come in upper case, as Swift prints one; it is brought to lower case before anything is
//! computed over it.

use uuid::Uuid;

use crate::error::Kind;
use crate::model::time::Micros;
use crate::vendors::wire::hmac::{self, Key};
use crate::vendors::{Request, Secrets, Verified};

/// How far the time of a signed request may lie from now: longer than an app goes on sending after an outage. A
/// static token has no time, so it has no window; what is sent twice is recognised by its sample ids.
pub(super) const WINDOW_US: Micros = 25 * 3600 * 1_000_000;

const AUTHORIZATION: &str = "authorization";
const API_KEY: &str = "api-key";
const CONNECTION: &str = "x-connection-id";
const TIMESTAMP: &str = "x-signature-timestamp";
const SIGNATURE: &str = "x-signature";

/// The token of a connection under an app secret: what a device is given, and what the simulator sends.
///
/// `connection` is the connection's id as text; it is taken in lower case.
#[must_use]
pub fn token(secret: &[u8], connection: &str) -> String {
    let connection = connection.to_ascii_lowercase();
    let mac = device_key(&Key::new(secret), &connection);
    format!("{connection}.{mac}")
}

/// The token's second part, which is the device key of a signed request.
fn device_key(secret: &Key, connection: &str) -> String {
    secret.hex(&[connection.as_bytes()])
}

/// Whether one of the live secrets stands behind the request, and whose push it then is.
///
/// # Errors
/// [`Kind::SignatureInvalid`] where no way or more than one is there, or it does not verify;
/// [`Kind::SignatureExpired`] where a signed request verifies and its time lies outside the window.
pub(super) fn verify(
    request: &Request<'_>,
    secrets: &Secrets<'_>,
    now_us: Micros,
) -> Result<Verified, Kind> {
    let bearer = request.has(AUTHORIZATION);
    let api_key = request.has(API_KEY);
    let signed = [CONNECTION, TIMESTAMP, SIGNATURE].iter().any(|name| request.has(name));
    match (bearer, api_key, signed) {
        (true, false, false) => {
            let value = request.one(AUTHORIZATION)?;
            let (scheme, token) = value.split_once(' ').ok_or(Kind::SignatureInvalid)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(Kind::SignatureInvalid);
            }
            verify_token("healthkit-bearer", token, secrets)
        }
        (false, true, false) => verify_token("healthkit-api-key", request.one(API_KEY)?, secrets),
        (false, false, true) => verify_signed(request, secrets, now_us),
        _ => Err(Kind::SignatureInvalid),
    }
}

fn verify_token(
    scheme: &'static str,
    token: &str,
    secrets: &Secrets<'_>,
) -> Result<Verified, Kind> {
    let (connection, mac) = token.split_once('.').ok_or(Kind::SignatureInvalid)?;
    let connection = canonical(connection)?;
    let ours = live(secrets).any(|key| hmac::hex_over(&[connection.as_bytes()], key, mac));
    verified(ours, scheme, connection)
}

fn verify_signed(
    request: &Request<'_>,
    secrets: &Secrets<'_>,
    now_us: Micros,
) -> Result<Verified, Kind> {
    let connection = canonical(request.one(CONNECTION)?)?;
    let timestamp = request.one(TIMESTAMP)?;
    let signature = request.one(SIGNATURE)?;
    let signed_us = hmac::signed_at(timestamp, 1_000_000)?;
    let parts = [timestamp.as_bytes(), b".", request.body];
    let ours = live(secrets).any(|secret| {
        let key = Key::new(device_key(secret, &connection).as_bytes());
        hmac::hex_over(&parts, &key, signature)
    });
    let verified = verified(ours, "healthkit-hmac", connection)?;
    hmac::fresh(now_us, signed_us, WINDOW_US)?;
    Ok(verified)
}

fn verified(ours: bool, scheme: &'static str, connection: String) -> Result<Verified, Kind> {
    if ours {
        Ok(Verified { scheme, vendor_user: Some(connection) })
    } else {
        Err(Kind::SignatureInvalid)
    }
}

/// The secrets that were set. An empty one would give a device key that everybody can compute.
fn live<'a>(secrets: &Secrets<'a>) -> impl Iterator<Item = &'a Key> {
    secrets.signing.iter().filter(|secret| !secret.is_empty())
}

/// A connection id in its one form: hyphenated, lower case.
fn canonical(text: &str) -> Result<String, Kind> {
    let hyphenated = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    hyphenated.map(|id| id.to_string()).ok_or(Kind::SignatureInvalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"not-a-secret-test-key";
    const OTHER: &[u8] = b"another-test-key";
    const CONNECTION_ID: &str = "3f1c2b7a-0d4e-5a6b-8c9d-112233445566";
    const BODY: &[u8] = br#"{"data":{"records":[]}}"#;
    const AT_S: i64 = 1_774_766_800;

    /// Computed by another implementation (Python's `hmac`), so that ours is not its own witness.
    const MAC: &str = "87655f603e4679cf9a2f285b3b979be094373fd8d40388e7418e9995e1fdd6a7";
    const SIGNED: &str = "437ad6e0cfa779e0a805f991effae3b980044a3cc111e0aa56761a88ae763eca";

    fn ask(headers: &[(&str, &str)], secrets: &[&[u8]], now_s: i64) -> Result<Verified, Kind> {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let keys: Vec<Key> = secrets.iter().copied().map(Key::new).collect();
        let secrets = Secrets { signing: &keys, ..Secrets::default() };
        verify(&Request { headers: &headers, body: BODY }, &secrets, now_s * 1_000_000)
    }

    fn signed<'a>(connection: &'a str, at: &'a str, mac: &'a str) -> [(&'a str, &'a str); 3] {
        [(CONNECTION, connection), (TIMESTAMP, at), (SIGNATURE, mac)]
    }

    fn whose(scheme: &'static str) -> Result<Verified, Kind> {
        Ok(Verified { scheme, vendor_user: Some(CONNECTION_ID.to_owned()) })
    }

    #[test]
    fn the_golden_vectors_hold() {
        let golden = format!("{CONNECTION_ID}.{MAC}");
        assert_eq!(token(SECRET, CONNECTION_ID), golden);
        assert_eq!(token(SECRET, &CONNECTION_ID.to_uppercase()), golden);
        let bearer = format!("Bearer {golden}");
        assert_eq!(ask(&[(AUTHORIZATION, &bearer)], &[SECRET], 0), whose("healthkit-bearer"));
        assert_eq!(ask(&[(API_KEY, &golden)], &[SECRET], 0), whose("healthkit-api-key"));
        let by_key = signed(CONNECTION_ID, "1774766800", SIGNED);
        assert_eq!(ask(&by_key, &[SECRET], AT_S), whose("healthkit-hmac"));
    }

    #[test]
    fn a_connection_may_come_in_upper_case() {
        let swift = CONNECTION_ID.to_uppercase();
        let key = format!("{swift}.{MAC}");
        assert_eq!(ask(&[(API_KEY, &key)], &[SECRET], 0), whose("healthkit-api-key"));
        assert_eq!(
            ask(&signed(&swift, "1774766800", SIGNED), &[SECRET], AT_S),
            whose("healthkit-hmac")
        );
    }

    #[test]
    fn two_secrets_are_live_and_an_empty_one_is_none() {
        let old = token(OTHER, CONNECTION_ID);
        let new = token(SECRET, CONNECTION_ID);
        for key in [&old, &new] {
            assert!(ask(&[(API_KEY, key)], &[SECRET, OTHER], 0).is_ok());
        }
        assert_eq!(ask(&[(API_KEY, &old)], &[SECRET], 0), Err(Kind::SignatureInvalid));
        assert_eq!(ask(&[(API_KEY, &new)], &[], 0), Err(Kind::SignatureInvalid));

        let forged = token(b"", CONNECTION_ID);
        assert_eq!(ask(&[(API_KEY, &forged)], &[b""], 0), Err(Kind::SignatureInvalid));
        let key = device_key(&Key::new(b""), CONNECTION_ID);
        let mac = hmac::sign_hex(&[b"1774766800", b".", BODY], key.as_bytes());
        let by_key = signed(CONNECTION_ID, "1774766800", &mac);
        assert_eq!(ask(&by_key, &[b""], AT_S), Err(Kind::SignatureInvalid));
    }

    #[test]
    fn a_token_is_one_persons() {
        let mallory = CONNECTION_ID.replace("3f1c", "3f1d");
        for bad in [
            format!("{mallory}.{MAC}"),
            format!("{CONNECTION_ID}.{}", MAC.replace('a', "b")),
            format!("{CONNECTION_ID}.{}", MAC.strip_suffix("a7").expect("its end")),
            format!("{CONNECTION_ID}{MAC}"),
            format!("{}.{MAC}", CONNECTION_ID.replace('-', "")),
            format!(" {CONNECTION_ID}.{MAC}"),
            format!("{CONNECTION_ID}.{MAC} "),
            CONNECTION_ID.to_owned(),
            String::new(),
        ] {
            assert_eq!(ask(&[(API_KEY, &bad)], &[SECRET], 0), Err(Kind::SignatureInvalid), "{bad}");
        }
    }

    #[test]
    fn exactly_one_way() {
        let key = token(SECRET, CONNECTION_ID);
        let bearer = format!("Bearer {key}");
        let [id, at, mac] = signed(CONNECTION_ID, "1774766800", SIGNED);
        let cases: [&[(&str, &str)]; 10] = [
            &[],
            &[(AUTHORIZATION, &bearer), (API_KEY, &key)],
            &[(AUTHORIZATION, &bearer), id],
            &[(API_KEY, &key), id, at, mac],
            &[(API_KEY, &key), (API_KEY, &key)],
            &[(AUTHORIZATION, &key)],
            &[(AUTHORIZATION, "Basic bm90OmE=")],
            &[id, at],
            &[id, mac],
            &[id, at, mac, mac],
        ];
        for headers in cases {
            let answer = ask(headers, &[SECRET], AT_S);
            assert_eq!(answer, Err(Kind::SignatureInvalid), "{headers:?}");
        }
    }

    #[test]
    fn a_signature_is_over_time_body_and_person() {
        for (connection, at, mac) in [
            (CONNECTION_ID.replace("3f1c", "3f1d"), "1774766800", SIGNED.to_owned()),
            (CONNECTION_ID.to_owned(), "1774766801", SIGNED.to_owned()),
            (CONNECTION_ID.to_owned(), "+1774766800", SIGNED.to_owned()),
            (CONNECTION_ID.to_owned(), "1774766800.0", SIGNED.to_owned()),
            // The key is the hex text, not the bytes that it stands for.
            (CONNECTION_ID.to_owned(), "1774766800", {
                let raw = hex::decode(MAC).expect("hex");
                hmac::sign_hex(&[b"1774766800", b".", BODY], &raw)
            }),
        ] {
            let answer = ask(&signed(&connection, at, &mac), &[SECRET], AT_S);
            assert_eq!(answer, Err(Kind::SignatureInvalid));
        }
    }

    #[test]
    fn the_window_is_25_hours_either_way_and_is_told_only_to_the_key() {
        let good = signed(CONNECTION_ID, "1774766800", SIGNED);
        let edge = 25 * 3600;
        for now in [AT_S - edge, AT_S + edge] {
            assert!(ask(&good, &[SECRET], now).is_ok());
        }
        for now in [AT_S - edge - 1, AT_S + edge + 1] {
            assert_eq!(ask(&good, &[SECRET], now), Err(Kind::SignatureExpired));
            assert_eq!(ask(&good, &[OTHER], now), Err(Kind::SignatureInvalid));
        }
    }
}
