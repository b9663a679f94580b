//! Terra: an aggregator that sends whole records by webhook, from hundreds of makers, in one model.
//!
//! A body is `{type, user, data: [...]}`: one user, up to 10 items. What its types mean stands in
//! the files of this directory; the envelope, the signature and the identity of things stand here.
//!
//! # Decisions
//! - An item with a wrong type somewhere is bad alone: its neighbours live. A bad envelope is one
//!   reject.
//! - `X-Terra-Ordering-Timestamp` (ms, the same on retries) is the version; absent, the receipt
//!   time stands in.
//! - Enrichment scores are records of their own, made where they are not null: Terra sends a null
//!   for "not yet".
//! - A unit stands in the field's name (`…_g`, `…_celsius`); nothing is converted but what such a
//!   name says.
//! - A maker's score becomes a reading only where the vocabulary names it (`oura.sleep_score`);
//!   others are not invented and stay in the raw topic.
//! - A window of history is answered by the body of a webhook, and is read as one, but only where it is of the type and the
//!   user that were asked for.
//! - Names, notes, tags and lab texts never leave the raw topic.

use crate::error::{Kind, Path, Reject};
use crate::model::contract::header;
use crate::model::time::Micros;
use crate::vendors::ask::Api;
use crate::vendors::terra::record::{Head, id, text};
use crate::vendors::wire::json::{self, At};
use crate::vendors::wire::{glance, hmac};
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, VendorRecord, Verified, What};

mod activity;
mod api;
mod connection;
mod day;
pub mod kafka;
mod record;
mod reported;
mod sleep;
mod sport;
#[cfg(test)]
mod tests;
mod vitals;

/// Terra.
pub(super) static VENDOR: Terra = Terra;

/// See the module.
#[derive(Debug)]
pub(super) struct Terra;

/// Terra's chunks have up to 10 MB.
const BODY_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Terra retries for a little over 24 h, and that a retry is signed anew is not proven
/// (`vendors.md` §3.1).
const WINDOW_US: Micros = 25 * 3600 * 1_000_000;
/// The wire's name, and the older one of the same value.
const SIGNATURES: [&str; 2] = ["x-terra-signature", "terra-signature"];
const ORDERING: &str = "x-terra-ordering-timestamp";

impl Vendor for Terra {
    fn name(&self) -> &'static str {
        "terra"
    }

    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn window_us(&self) -> Micros {
        WINDOW_US
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        &[ORDERING, "terra-reference"]
    }

    fn renames(&self) -> bool {
        true
    }

    fn delivery_header(&self) -> Option<&'static str> {
        Some("x-terra-trace-id")
    }

    fn verify(
        &self,
        request: &Request<'_>,
        secrets: &Secrets<'_>,
        now_us: Micros,
    ) -> Result<Verified, Kind> {
        let mut given = SIGNATURES.into_iter().filter(|name| request.has(name));
        let signature = request.one(given.next().ok_or(Kind::SignatureInvalid)?)?;
        if let Some(second) = given.next()
            && request.one(second)? != signature
        {
            return Err(Kind::SignatureInvalid);
        }
        let (time, digest) = split(signature).ok_or(Kind::SignatureInvalid)?;
        let signed_us = hmac::signed_at(time, 1_000_000)?;
        let parts: [&[u8]; 3] = [time.as_bytes(), b".", request.body];
        secrets.signed(|key| hmac::hex_over(&parts, key, digest))?;
        hmac::fresh(now_us, signed_us, WINDOW_US)?;
        Ok(Verified { scheme: "terra-v1", vendor_user: None })
    }

    fn key_user(&self, _verified: &Verified, body: &[u8]) -> KeyUser {
        let json = glance::members(body, &["user", "user_id"]);
        let user = json.and_then(|json| user_of(&json.root()).ok().flatten());
        user.map_or(KeyUser::None, KeyUser::One)
    }

    fn api(&self) -> Option<&'static dyn Api> {
        Some(&VENDOR)
    }

    /// What stood behind a pointer, or a window of history: the body of a webhook.
    fn document(&self, raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
        if record_type == kafka::PAYLOAD {
            return self.parse(raw);
        }
        match api::kind(record_type) {
            Some(kind) => window(raw, kind),
            None => Err(Reject::invalid(Path::root(), "no type of record of this vendor")),
        }
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let json = json::parse(raw.body)?;
        let root = json.root();
        let kind = root.object()?.need("type")?;
        read(raw, &root, kind.text()?)
    }
}

/// A window's answer: of this type and of whom it was asked for, or nothing of it is taken. What Terra still gathers is
/// sent to the webhook.
fn window(raw: &Raw<'_>, kind: &str) -> Result<Vec<Item>, Reject> {
    let json = json::parse(raw.body)?;
    let root = json.root();
    let said = root.object()?.need("type")?;
    let user = user_of(&root)?;
    match said.text()? {
        said if said == kind => {}
        "large_request_processing" | "large_request_sending" => {
            return Ok(vec![ignored(user.as_deref(), "a large request: it comes by webhook")]);
        }
        _ => return Err(said.invalid("another type than was asked for")),
    }
    if user.is_none() || user.as_deref() != raw.headers.text(header::VENDOR_USER) {
        return Err(root.invalid("somebody else than was asked for"));
    }
    read(raw, &root, kind)
}

/// What a body of this type says.
fn read(raw: &Raw<'_>, root: &At<'_>, kind: &str) -> Result<Vec<Item>, Reject> {
    let user = user_of(root)?;
    let head = head(raw, root)?;
    let Some(shape) = shape(kind) else {
        let what = connection::read(kind, root, user.as_deref());
        return Ok(vec![Item { index: 0, vendor_user: user, what }]);
    };
    if user.is_none() {
        return Ok(vec![ignored(None, "no user")]);
    }
    match shape {
        Shape::List(read) => list(root, &head, user.as_deref(), read),
        Shape::One(key, read) => {
            let mut items = Vec::new();
            take(&mut items, 0, user.as_deref(), read(&head, &root.need(key)?));
            Ok(items)
        }
    }
}

/// The two parts of `t=<unix seconds>,v1=<hex digits>`, and nothing else around them; that the
/// first are a time and the others a digest, [`hmac`] sees to.
fn split(signature: &str) -> Option<(&str, &str)> {
    let (time, digest) = signature.split_once(',')?;
    Some((time.strip_prefix("t=")?, digest.strip_prefix("v1=")?))
}

type Read = fn(&Head, &At<'_>) -> Result<Vec<VendorRecord>, Reject>;

/// Where a type keeps what it carries.
enum Shape {
    /// A list under `data`.
    List(Read),
    /// One object under this key.
    One(&'static str, Read),
}

/// The shape of a type that carries records.
fn shape(kind: &str) -> Option<Shape> {
    Some(match kind {
        "activity" => Shape::List(activity::read),
        "sleep" => Shape::List(sleep::read),
        "daily" => Shape::List(day::daily),
        "body" => Shape::List(day::body),
        "nutrition" => Shape::List(day::nutrition),
        "menstruation" => Shape::List(day::menstruation),
        "hormone" => Shape::List(reported::hormone),
        "health_observation" => Shape::List(reported::observation),
        "planned_workout" => Shape::List(reported::plan),
        "route" => Shape::List(reported::route),
        "athlete" => Shape::One("athlete", reported::athlete),
        "lab_report.completed" => Shape::One("data", reported::lab_report),
        _ => return None,
    })
}

/// The vendor's user of a body: `user.user_id`; a pointer of the newer form has it at the top.
fn user_of(root: &At<'_>) -> Result<Option<String>, Reject> {
    if let Some(user) = root.object()?.get("user") {
        return id(&user.object()?.need("user_id")?).map(Some);
    }
    root.get("user_id").map(|at| id(&at)).transpose()
}

fn head(raw: &Raw<'_>, root: &At<'_>) -> Result<Head, Reject> {
    let ordering = raw.headers.text(&format!("{}{ORDERING}", header::REQUEST_PREFIX));
    let provider = text(root, &["user", "provider"])?.unwrap_or_default();
    Ok(Head {
        device_type: device_type(&provider),
        via: "terra",
        version: ordering.and_then(version),
        received_at: raw.received_at,
    })
}

/// The ordering time's ms as µs; what is no plain number is no version, and the receipt time stands
/// in.
fn version(text: &str) -> Option<Micros> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<Micros>().ok().filter(|_| plain)?.checked_mul(1_000)
}

/// The maker in lower case; `unknown` where it is not a plain word, because it stands in keys and
/// headers.
fn device_type(provider: &str) -> String {
    let plain = (1..=32).contains(&provider.len())
        && provider.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain { provider.to_ascii_lowercase() } else { "unknown".to_owned() }
}

fn ignored(vendor_user: Option<&str>, why: &'static str) -> Item {
    Item { index: 0, vendor_user: vendor_user.map(str::to_owned), what: What::Ignored(why) }
}

fn list(root: &At<'_>, head: &Head, user: Option<&str>, read: Read) -> Result<Vec<Item>, Reject> {
    let data = root.need("data")?;
    let mut items = Vec::new();
    for (index, item) in data.items()?.enumerate() {
        take(&mut items, index, user, read(head, &item));
    }
    if items.is_empty() {
        items.push(ignored(user, "empty"));
    }
    Ok(items)
}

/// Takes what became of one item: its records, or why it is bad.
fn take(
    items: &mut Vec<Item>,
    index: usize,
    user: Option<&str>,
    read: Result<Vec<VendorRecord>, Reject>,
) {
    let whats = match read {
        Ok(records) => records.into_iter().map(|record| What::Record(Box::new(record))).collect(),
        Err(reject) => vec![What::Bad(reject)],
    };
    let index = i32::try_from(index).unwrap_or(i32::MAX);
    let vendor_user = user.map(str::to_owned);
    items.extend(whats.into_iter().map(|what| Item {
        index,
        vendor_user: vendor_user.clone(),
        what,
    }));
}
