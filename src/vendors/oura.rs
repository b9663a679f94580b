//! Oura: thin notifications, one record each; what they name is fetched later.
//!
//! Oura signs timestamp and body with the client secret of the OAuth application and writes the
//! digest in upper case. It names no version of a record and no id of a delivery. An update is a
//! fetch of the whole document; a delete is a tombstone by the document's id, which is all that is
//! known of it. A subscription begins with a GET that carries our own token and a challenge, and
//! ends for good with an answer of 410.

use crate::error::{Kind, Reject};
use crate::model::time::Micros;
use crate::vendors::wire::hmac::hex_over;
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::thin;
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, Verified, What};

/// The vendor, as [`crate::vendors::ALL`] lists it.
pub(super) static VENDOR: Oura = Oura;

/// Oura's API v2.
#[derive(Debug)]
pub(super) struct Oura;

/// Oura repeats a delivery for about an hour, and whether it signs anew is not documented.
const WINDOW_US: Micros = 2 * 3_600 * 1_000_000;

/// Every `data_type` that a subscription can have.
const RECORD_TYPES: [&str; 17] = [
    "tag",
    "enhanced_tag",
    "workout",
    "session",
    "sleep",
    "daily_sleep",
    "daily_readiness",
    "daily_activity",
    "daily_spo2",
    "sleep_time",
    "rest_mode_period",
    "ring_configuration",
    "daily_stress",
    "daily_cardiovascular_age",
    "daily_resilience",
    "vo2_max",
    "meal",
];

/// Bounds of what a body names: ids are 36 characters today.
const ID_CHARACTERS_MAX: usize = 128;
/// The longest challenge that is echoed.
const CHALLENGE_CHARACTERS_MAX: usize = 256;

impl Vendor for Oura {
    fn name(&self) -> &'static str {
        "oura"
    }

    fn window_us(&self) -> Micros {
        WINDOW_US
    }

    fn verify(
        &self,
        request: &Request<'_>,
        secrets: &Secrets<'_>,
        now_us: Micros,
    ) -> Result<Verified, Kind> {
        let signature = request.one("x-oura-signature")?;
        let timestamp = request.one("x-oura-timestamp")?;
        let seconds = seconds(timestamp).ok_or(Kind::SignatureInvalid)?;
        let parts = [timestamp.as_bytes(), request.body];
        if !secrets.signing.iter().any(|key| hex_over(&parts, key, signature)) {
            return Err(Kind::SignatureInvalid);
        }
        let apart = now_us.saturating_sub(seconds.saturating_mul(1_000_000)).saturating_abs();
        if apart > self.window_us() {
            return Err(Kind::SignatureExpired);
        }
        Ok(Verified { scheme: "oura-hmac-sha256", vendor_user: None })
    }

    fn handshake(
        &self,
        query: &[(String, String)],
        secrets: &Secrets<'_>,
    ) -> Option<Result<String, Kind>> {
        Some(challenge(query, secrets).ok_or(Kind::SignatureInvalid))
    }

    fn key_user(&self, _verified: &Verified, body: &[u8]) -> KeyUser {
        let Ok(json) = json::parse(body) else { return KeyUser::None };
        user(&json.root()).map_or(KeyUser::None, |user| KeyUser::One(user.to_owned()))
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let json = json::parse(raw.body)?;
        let root = json.root();
        let notification = root.object()?;
        let vendor_user = Some(user(notification)?.to_owned());
        let what = what(notification).unwrap_or_else(What::Bad);
        Ok(vec![Item { index: 0, vendor_user, what }])
    }
}

/// Decimal seconds: digits and nothing else, few enough that their µs fit.
fn seconds(text: &str) -> Option<i64> {
    let fits = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// The echo of a challenge, for who knows our token. What is echoed is short and harmless in any
/// document.
fn challenge(query: &[(String, String)], secrets: &Secrets<'_>) -> Option<String> {
    let one = |name: &str| {
        let mut found = query.iter().filter(|(known, _)| known == name);
        found.next().filter(|_| found.next().is_none()).map(|(_, value)| value.as_str())
    };
    let token = secrets.handshake.filter(|token| !token.is_empty())?;
    let given = one("verification_token")?;
    if !bool::from(subtle::ConstantTimeEq::ct_eq(token, given.as_bytes())) {
        return None;
    }
    let challenge = one("challenge")?;
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:+/=".contains(&byte);
    let fits = (1..=CHALLENGE_CHARACTERS_MAX).contains(&challenge.len());
    (fits && challenge.bytes().all(safe)).then(|| format!(r#"{{"challenge":"{challenge}"}}"#))
}

fn user<'a>(notification: &'a At<'a>) -> Result<&'a str, Reject> {
    let user = notification.need("user_id")?;
    let text = user.text()?;
    if (1..=ID_CHARACTERS_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(user.malformed("not an id"))
    }
}

/// The document's id. It becomes part of a path when it is fetched, so nothing else may be in it.
fn document<'a>(notification: &'a At<'a>) -> Result<&'a str, Reject> {
    let id = notification.need("object_id")?;
    let text = id.text()?;
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=ID_CHARACTERS_MAX).contains(&text.len()) && text.bytes().all(safe) {
        Ok(text)
    } else {
        Err(id.malformed("not an id"))
    }
}

fn what(notification: &At<'_>) -> Result<What, Reject> {
    let named = notification.need("data_type")?.text()?;
    let event = notification.need("event_type")?.text()?;
    let known = RECORD_TYPES.into_iter().find(|name| *name == named);
    let (Some(record_type), "create" | "update" | "delete") = (known, event) else {
        return Ok(What::Ignored("unknown type"));
    };
    let record_id = document(notification)?.to_owned();
    Ok(thin::change(VENDOR.name(), record_type, record_id, event == "delete"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::record::Headers;
    use crate::vendors::wire::hmac::Key;

    const KEY: &[u8] = b"not-a-secret-test-key";
    const BODY: &[u8] = b"{\"event_type\":\"update\",\"data_type\":\"sleep\",\
        \"object_id\":\"7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11\",\
        \"event_time\":\"2026-03-29T06:41:12+00:00\",\"user_id\":\"u-4f2c81\"}";
    const SIGNATURE: &str = "8F7EEA16285F5EB13CF8F9DE3FB3333BB41AD7FD76EF3623EAFD05F5FE99BAE1";
    const SIGNED_AT: Micros = 1_774_766_472_000_000;

    fn verify_at(now_us: Micros, keys: &[&[u8]], headers: &[(&str, &str)]) -> Result<(), Kind> {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let keys: Vec<Key> = keys.iter().copied().map(Key::new).collect();
        let secrets = Secrets { signing: &keys, handshake: None };
        let request = Request { headers: &headers, body: BODY };
        VENDOR.verify(&request, &secrets, now_us).map(|_| ())
    }

    fn verify(timestamp: &str, signature: &str) -> Result<(), Kind> {
        let headers = [("x-oura-timestamp", timestamp), ("x-oura-signature", signature)];
        verify_at(SIGNED_AT, &[KEY], &headers)
    }

    fn item(body: &str) -> Result<Item, Reject> {
        let (headers, body) = (Headers::new(), Bytes::copy_from_slice(body.as_bytes()));
        let raw = Raw { headers: &headers, body: &body, received_at: SIGNED_AT };
        VENDOR.parse(&raw).map(|items| items.into_iter().next().expect("one item"))
    }

    fn notification(field: &str, value: &str) -> String {
        let mut json: serde_json::Value = serde_json::from_slice(BODY).expect("JSON");
        json[field] = serde_json::from_str(value).expect("a value");
        json.to_string()
    }

    #[test]
    fn the_golden_vector_holds_in_either_case() {
        assert_eq!(verify("1774766472", SIGNATURE), Ok(()));
        assert_eq!(verify("1774766472", &SIGNATURE.to_lowercase()), Ok(()));
        for (timestamp, signature) in [
            ("1774766473", SIGNATURE),
            ("+1774766472", SIGNATURE),
            ("1774766472.0", SIGNATURE),
            ("", SIGNATURE),
            ("99999999999999999999", SIGNATURE),
            ("1774766472", ""),
            ("1774766472", SIGNATURE.trim_end_matches("E1")),
            ("1774766472", "YkdPmvWsym13R6xgYvzba3OsC4tUUb5Z6FbNUI1zIvA="),
        ] {
            assert_eq!(verify(timestamp, signature), Err(Kind::SignatureInvalid), "{timestamp}");
        }
    }

    #[test]
    fn two_secrets_live_and_a_header_stands_once() {
        let headers = [("x-oura-timestamp", "1774766472"), ("x-oura-signature", SIGNATURE)];
        assert_eq!(verify_at(SIGNED_AT, &[b"the-next", KEY], &headers), Ok(()));
        assert_eq!(verify_at(SIGNED_AT, &[b"the-next"], &headers), Err(Kind::SignatureInvalid));
        assert_eq!(verify_at(SIGNED_AT, &[], &headers), Err(Kind::SignatureInvalid));
        let twice = [headers[0], headers[1], headers[1]];
        assert_eq!(verify_at(SIGNED_AT, &[KEY], &twice), Err(Kind::SignatureInvalid));
        assert_eq!(verify_at(SIGNED_AT, &[KEY], &headers[..1]), Err(Kind::SignatureInvalid));
    }

    #[test]
    fn the_window_is_two_hours_either_way_and_is_asked_last() {
        let headers = [("x-oura-timestamp", "1774766472"), ("x-oura-signature", SIGNATURE)];
        for (off, answer) in [
            (WINDOW_US, Ok(())),
            (-WINDOW_US, Ok(())),
            (WINDOW_US + 1, Err(Kind::SignatureExpired)),
            (-WINDOW_US - 1, Err(Kind::SignatureExpired)),
        ] {
            assert_eq!(verify_at(SIGNED_AT + off, &[KEY], &headers), answer, "{off}");
        }
        let late = verify_at(SIGNED_AT + WINDOW_US + 1, &[b"other"], &headers);
        assert_eq!(late, Err(Kind::SignatureInvalid), "who has no key does not learn about time");
    }

    #[test]
    fn a_challenge_is_echoed_to_who_knows_the_token() {
        let secrets = Secrets { signing: &[Key::new(KEY)], handshake: Some(b"not-a-secret-token") };
        let ask = |query: &[(&str, &str)], secrets: &Secrets<'_>| {
            let query: Vec<_> =
                query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            VENDOR.handshake(&query, secrets).expect("Oura has one")
        };
        let token = ("verification_token", "not-a-secret-token");
        let long = "a".repeat(257);
        assert_eq!(
            ask(&[token, ("challenge", "c-1")], &secrets),
            Ok(r#"{"challenge":"c-1"}"#.to_owned())
        );
        for query in [
            &[token][..],
            &[("challenge", "c-1")],
            &[token, ("challenge", "")],
            &[token, ("challenge", "\"}<script>")],
            &[token, ("challenge", &long)],
            &[token, ("challenge", "c-1"), ("challenge", "c-2")],
            &[token, token, ("challenge", "c-1")],
            &[("verification_token", "not-a-secret-toke"), ("challenge", "c-1")],
            &[("verification_token", ""), ("challenge", "c-1")],
        ] {
            assert_eq!(ask(query, &secrets), Err(Kind::SignatureInvalid), "{query:?}");
        }
        let unset = Secrets { handshake: Some(b""), ..secrets };
        let empty = [("verification_token", ""), ("challenge", "c-1")];
        assert_eq!(ask(&empty, &unset), Err(Kind::SignatureInvalid), "no token lets nobody in");
    }

    #[test]
    fn an_update_is_a_fetch_and_a_delete_a_tombstone() {
        let body = std::str::from_utf8(BODY).expect("text");
        let update = item(body).expect("an item");
        assert_eq!(update.vendor_user.as_deref(), Some("u-4f2c81"));
        let record_id = "7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11".to_owned();
        assert_eq!(update.what, What::Fetch { record_type: "sleep", record_id: record_id.clone() });
        let gone = item(&notification("event_type", r#""delete""#)).expect("an item");
        assert_eq!(gone.what, thin::change("oura", "sleep", record_id, true));
        for (field, value) in [("data_type", r#""heartrate""#), ("event_type", r#""expired""#)] {
            let item = item(&notification(field, value)).expect("an item");
            assert_eq!(item.what, What::Ignored("unknown type"), "{field}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_bad_and_what_is_nobodys_is_no_item() {
        for value in ["null", "7", r#""""#, r#""../../users""#, r#""a b""#] {
            let found = item(&notification("object_id", value)).expect("an item").what;
            let What::Bad(reject) = found else { panic!("{found:?}") };
            assert_eq!(reject.at.as_str(), "object_id");
        }
        for value in ["null", "7", r#""""#] {
            let reject = item(&notification("user_id", value)).expect_err("a reject");
            assert_eq!(reject.at.as_str(), "user_id", "{value}");
        }
        assert!(item("[]").is_err());
    }

    #[test]
    fn the_key_is_the_user_that_parse_sees() {
        let verified = Verified::default();
        assert_eq!(VENDOR.key_user(&verified, BODY), KeyUser::One("u-4f2c81".to_owned()));
        let twice = br#"{"user_id":"a","user_id":"b"}"#;
        for body in [b"not json".as_slice(), b"{}", b"[]", twice] {
            assert_eq!(VENDOR.key_user(&verified, body), KeyUser::None);
        }
    }
}
