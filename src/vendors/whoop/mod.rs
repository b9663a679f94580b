//! WHOOP: thin notifications, one record each; what they name is fetched later.
//!
//! WHOOP signs timestamp (ms) and body with the client secret and writes the digest in base64. A
//! recovery has no id of its own: a notification of it names the sleep that it came from, and it
//! dies with that sleep. The model version of a webhook's URL decides what an id is; with the old
//! one it is an integer that names another thing, so it is refused with a reason rather than looked
//! up for ever. WHOOP's Partner product signs otherwise and is not accepted here.
//!
//! What to ask its API stands in [`api`], what its answers mean in [`document`].

use uuid::Uuid;

use crate::error::{Kind, Reject};
use crate::model::time::Micros;
use crate::vendors::ask::Api;
use crate::vendors::consent::Consent;
use crate::vendors::wire::hmac::{base64_over, fresh, signed_at};
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::wire::thin;
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, Verified, What};

mod api;
mod consent;
mod document;
mod sport;
#[cfg(test)]
mod tests;

/// The vendor, as [`crate::vendors::ALL`] lists it.
pub(super) static VENDOR: Whoop = Whoop;

/// WHOOP's API v2.
#[derive(Debug)]
pub(super) struct Whoop;

/// WHOOP repeats a delivery five times in about an hour, and whether it signs anew is not
/// documented.
const WINDOW_US: Micros = 2 * 3_600 * 1_000 * MILLISECOND_US;
/// What its timestamps count.
const MILLISECOND_US: Micros = 1_000;

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
        let signed_us = signed_at(timestamp, MILLISECOND_US)?;
        let parts = [timestamp.as_bytes(), request.body];
        secrets.signed(|key| base64_over(&parts, key, signature))?;
        fresh(now_us, signed_us, WINDOW_US)?;
        Ok(Verified { scheme: "whoop-hmac-sha256", vendor_user: None })
    }

    fn key_user(&self, _verified: &Verified, body: &[u8]) -> KeyUser {
        let Ok(json) = json::parse(body) else { return KeyUser::None };
        thin::numbered(&json.root()).map_or(KeyUser::None, KeyUser::One)
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let json = json::parse(raw.body)?;
        let root = json.root();
        let notification = root.object()?;
        let vendor_user = Some(thin::numbered(notification)?);
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
