//! WHOOP: thin notifications, one record each; what they name is fetched later.
//!
//! WHOOP signs timestamp (ms) and body with the client secret and writes the digest in base64. A
//! recovery has no id of its own: a notification of it names the sleep that it came from, and it
//! dies with that sleep. The model version of a webhook's URL decides what an id is; with the old
//! one it is an integer that names another thing, so it is refused with a reason rather than looked
//! up for ever. WHOOP's Partner product signs otherwise and is not accepted here.

use uuid::Uuid;

use crate::error::{Kind, Reject};
use crate::model::time::Micros;
use crate::vendors::wire::hmac::base64_over;
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::wire::thin;
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, Verified, What};

/// The vendor, as [`crate::vendors::ALL`] lists it.
pub(super) static VENDOR: Whoop = Whoop;

/// WHOOP's API v2.
#[derive(Debug)]
pub(super) struct Whoop;

/// WHOOP repeats a delivery five times in about an hour, and whether it signs anew is not
/// documented.
const WINDOW_US: Micros = 2 * 3_600 * 1_000_000;

impl Vendor for Whoop {
    fn name(&self) -> &'static str {
        "whoop"
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
        let signature = request.one("x-whoop-signature")?;
        let timestamp = request.one("x-whoop-signature-timestamp")?;
        let milliseconds = milliseconds(timestamp).ok_or(Kind::SignatureInvalid)?;
        let parts = [timestamp.as_bytes(), request.body];
        if !secrets.signing.iter().any(|key| base64_over(&parts, key, signature)) {
            return Err(Kind::SignatureInvalid);
        }
        let apart = now_us.saturating_sub(milliseconds.saturating_mul(1_000)).saturating_abs();
        if apart > self.window_us() {
            return Err(Kind::SignatureExpired);
        }
        Ok(Verified { scheme: "whoop-hmac-sha256", vendor_user: None })
    }

    fn key_user(&self, _verified: &Verified, body: &[u8]) -> KeyUser {
        let Ok(json) = json::parse(body) else { return KeyUser::None };
        user(&json.root()).map_or(KeyUser::None, KeyUser::One)
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let json = json::parse(raw.body)?;
        let root = json.root();
        let notification = root.object()?;
        let vendor_user = Some(user(notification)?);
        let what = what(notification).unwrap_or_else(What::Bad);
        Ok(vec![Item { index: 0, vendor_user, what }])
    }
}

/// Decimal milliseconds: digits and nothing else, few enough that their µs fit.
fn milliseconds(text: &str) -> Option<i64> {
    let fits = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// The user's number, beyond 32 bits too.
fn user(notification: &At<'_>) -> Result<String, Reject> {
    let user = notification.need("user_id")?;
    let number = user.integer()?;
    if number > 0 { Ok(number.to_string()) } else { Err(user.malformed("not an id")) }
}

fn what(notification: &At<'_>) -> Result<What, Reject> {
    let (record_type, gone) = match notification.need("type")?.text()? {
        "sleep.updated" => ("sleep", false),
        "sleep.deleted" => ("sleep", true),
        "recovery.updated" => ("recovery", false),
        "recovery.deleted" => ("recovery", true),
        "workout.updated" => ("workout", false),
        "workout.deleted" => ("workout", true),
        _ => return Ok(What::Ignored("unknown type")),
    };
    let id = notification.need("id")?;
    if matches!(id.json(), Json::Integer(_) | Json::Float(_)) {
        return Err(
            id.malformed("an integer id: the webhook's model version is v1, and must be v2")
        );
    }
    // Written in one way, so that one record has one id however it was spelt.
    let uuid: Uuid = id.text()?.parse().map_err(|_| id.malformed("not a UUID"))?;
    let record_id = match record_type {
        "recovery" => format!("recovery:{uuid}"),
        _ => uuid.to_string(),
    };
    Ok(thin::change(VENDOR.name(), record_type, record_id, gone))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::record::Headers;
    use crate::vendors::wire::hmac::Key;

    const KEY: &[u8] = b"not-a-secret-test-key";
    const BODY: &[u8] = b"{\"user_id\":481516,\"id\":\"0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77\",\
        \"type\":\"recovery.updated\",\
        \"trace_id\":\"5f0c2a11-7d34-4d0a-9a53-0d8e6b1f9c20\"}";
    const SIGNATURE: &str = "YkdPmvWsym13R6xgYvzba3OsC4tUUb5Z6FbNUI1zIvA=";
    const SIGNED_AT: Micros = 1_774_766_691_903_000;

    fn verify_at(now_us: Micros, headers: &[(&str, &str)]) -> Result<(), Kind> {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let keys = [b"the-next", KEY].map(Key::new);
        let secrets = Secrets { signing: &keys, handshake: None };
        let request = Request { headers: &headers, body: BODY };
        VENDOR.verify(&request, &secrets, now_us).map(|_| ())
    }

    fn verify(timestamp: &str, signature: &str) -> Result<(), Kind> {
        let headers =
            [("x-whoop-signature-timestamp", timestamp), ("x-whoop-signature", signature)];
        verify_at(SIGNED_AT, &headers)
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
    fn the_golden_vector_holds() {
        assert_eq!(verify("1774766691903", SIGNATURE), Ok(()));
        for (timestamp, signature) in [
            ("1774766691904", SIGNATURE),
            ("1774766691", SIGNATURE),
            ("-1774766691903", SIGNATURE),
            ("1774766691903", ""),
            ("1774766691903", SIGNATURE.trim_end_matches('=')),
            ("1774766691903", &SIGNATURE.to_lowercase()),
            ("1774766691903", "8F7EEA16285F5EB13CF8F9DE3FB3333BB41AD7FD76EF3623EAFD05F5FE99BAE1"),
        ] {
            assert_eq!(verify(timestamp, signature), Err(Kind::SignatureInvalid), "{timestamp}");
        }
        assert_eq!(verify_at(SIGNED_AT, &[]), Err(Kind::SignatureInvalid));
        let partner =
            [("x-whoop-signature-timestamp", "1774766691903"), ("whoop-signed", SIGNATURE)];
        assert_eq!(verify_at(SIGNED_AT, &partner), Err(Kind::SignatureInvalid));
    }

    #[test]
    fn the_window_is_two_hours_either_way() {
        let headers =
            [("x-whoop-signature-timestamp", "1774766691903"), ("x-whoop-signature", SIGNATURE)];
        for (off, answer) in [
            (WINDOW_US, Ok(())),
            (-WINDOW_US, Ok(())),
            (WINDOW_US + 1, Err(Kind::SignatureExpired)),
            (-WINDOW_US - 1, Err(Kind::SignatureExpired)),
        ] {
            assert_eq!(verify_at(SIGNED_AT + off, &headers), answer, "{off}");
        }
    }

    #[test]
    fn a_recovery_goes_by_its_sleep() {
        let body = std::str::from_utf8(BODY).expect("text");
        let update = item(body).expect("an item");
        assert_eq!(update.vendor_user.as_deref(), Some("481516"));
        let record_id = "recovery:0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77".to_owned();
        let what = What::Fetch { record_type: "recovery", record_id: record_id.clone() };
        assert_eq!(update.what, what);
        let gone = item(&notification("type", r#""recovery.deleted""#)).expect("an item");
        assert_eq!(gone.what, thin::change("whoop", "recovery", record_id, true));
        let sleep = item(&notification("type", r#""sleep.deleted""#)).expect("an item");
        let sleep_id = "0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77".to_owned();
        assert_eq!(sleep.what, thin::change("whoop", "sleep", sleep_id.clone(), true));
        let workout = item(&notification("type", r#""workout.updated""#)).expect("an item");
        let what = What::Fetch { record_type: "workout", record_id: sleep_id };
        assert_eq!(workout.what, what);
        let upper = item(&body.replace("0c7a4f62", "0C7A4F62")).expect("an item");
        assert_eq!(upper, update, "one record has one id");
    }

    #[test]
    fn an_integer_id_is_refused_with_its_reason() {
        for value in ["10129", "10129.0"] {
            let found = item(&notification("id", value)).expect("an item").what;
            let What::Bad(reject) = found else { panic!("{found:?}") };
            assert_eq!(reject.at.as_str(), "id");
            assert!(reject.why.contains("v1"), "{}", reject.why);
        }
        for value in ["null", "[]", r#""x""#] {
            let found = item(&notification("id", value)).expect("an item").what;
            assert!(matches!(found, What::Bad(_)), "{found:?}");
        }
        let unknown = item(&notification("type", r#""cycle.updated""#)).expect("an item");
        assert_eq!(unknown.what, What::Ignored("unknown type"));
    }

    #[test]
    fn a_user_is_a_number_of_64_bits() {
        let large = item(&notification("user_id", "9007199254740993")).expect("an item");
        assert_eq!(large.vendor_user.as_deref(), Some("9007199254740993"));
        for value in ["null", "-1", r#""481516""#, "18446744073709551615", "1.5"] {
            let reject = item(&notification("user_id", value)).expect_err("a reject");
            assert_eq!(reject.at.as_str(), "user_id", "{value}");
        }
        let verified = Verified::default();
        assert_eq!(VENDOR.key_user(&verified, BODY), KeyUser::One("481516".to_owned()));
        assert_eq!(VENDOR.key_user(&verified, b"[1]"), KeyUser::None);
    }
}
