//! Oura: thin notifications, one record each; what they name is fetched later.
//!
//! Oura signs timestamp and body with the client secret of the OAuth application and writes the
//! digest in upper case. It names no version of a record and no id of a delivery. An update is a
//! fetch of the whole document; a delete is a tombstone by the document's id, which is all that is
//! known of it. A subscription begins with a GET that carries our own token and a challenge, and
//! ends for good with an answer of 410.
//!
//! What to ask its API stands in [`api`], what its answers mean in [`document`].

use crate::error::{Kind, Reject};
use crate::model::time::Micros;
use crate::vendors::ask::Api;
use crate::vendors::consent::Consent;
use crate::vendors::wire::hmac::{fresh, hex_over, signed_at};
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::thin;
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, Verified, What};

mod api;
mod consent;
mod day;
mod document;
mod session;
#[cfg(test)]
mod tests;

/// The vendor, as [`crate::vendors::ALL`] lists it.
pub(super) static VENDOR: Oura = Oura;

/// Oura's API v2.
#[derive(Debug)]
pub(super) struct Oura;

/// Oura repeats a delivery for about an hour, and whether it signs anew is not documented.
const WINDOW_US: Micros = 2 * 3_600 * SECOND_US;
/// What its timestamps count.
const SECOND_US: Micros = 1_000_000;

/// Every `data_type` that a subscription can have and whose documents can be fetched: no route has a `meal`.
const RECORD_TYPES: [&str; 16] = [
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
        let signed_us = signed_at(timestamp, SECOND_US)?;
        let parts = [timestamp.as_bytes(), request.body];
        secrets.signed(|key| hex_over(&parts, key, signature))?;
        fresh(now_us, signed_us, WINDOW_US)?;
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

    fn api(&self) -> Option<&'static dyn Api> {
        Some(&VENDOR)
    }

    fn consent(&self) -> Option<&'static dyn Consent> {
        Some(&VENDOR)
    }

    fn document(&self, raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
        document::read(raw, record_type)
    }
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

/// The document's id.
fn id<'a>(at: &At<'a>) -> Result<&'a str, Reject> {
    let text = at.text()?;
    if is_id(text) { Ok(text) } else { Err(at.malformed("not an id")) }
}

fn is_id(text: &str) -> bool {
    thin::is_id(text, ID_CHARACTERS_MAX)
}

fn what(notification: &At<'_>) -> Result<What, Reject> {
    let named = notification.need("data_type")?.text()?;
    let event = notification.need("event_type")?.text()?;
    if named == "meal" {
        return Ok(What::Ignored("a type that its API does not have"));
    }
    let known = RECORD_TYPES.into_iter().find(|name| *name == named);
    let (Some(record_type), "create" | "update" | "delete") = (known, event) else {
        return Ok(What::Ignored("unknown type"));
    };
    let record_id = id(&notification.need("object_id")?)?.to_owned();
    Ok(thin::change(VENDOR.name(), record_type, record_id, event == "delete"))
}
