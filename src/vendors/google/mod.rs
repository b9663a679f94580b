//! Google Health API v4: thin notifications that name a type and a stretch of time, and lists that are asked for by both.
//!
//! A body is `[{"data": {…}}, …]`, or one of these alone, of several people at once. It says that something of a type
//! changed or is gone between two times, and never what: points of most types have no id. So what is fetched is the list
//! of a type over whole days ([`window`]), and what a list says of a day it says of all of it.
//!
//! # Decisions
//! - A request must name our secret in `Authorization`, byte for byte, and be signed by an enabled key of Google's own
//!   set. Neither has a time, so an old request can be sent again: it makes us ask once more, and says nothing.
//! - The verification is answered with 201 to who names the secret; anybody else is refused, as Google wants to see.
//! - Notifications of one type and day are one fetch, whatever intervals they name: a row is a type over days.
//! - A sleep and an exercise have names, and are records by them, at their `updateTime`. What is sampled, and what is
//!   counted over a while, has none: all of a type on a UTC day is one record, which the next list of that day replaces.
//!   What a day says in one value is a record by its date. So of these a deletion is what the next list does not have.
//! - A deletion of a sleep or an exercise names neither: what we had in those days and the next list of them does not
//!   name is gone. What is on its way meanwhile is not known to be had, so the list is asked for again, and again.
//! - What has no end yet has no values; so has a sleep that is not processed. A day whose heart rate may still change is
//!   tentative with its value, because nobody says when it does not.
//! - Days have no zone: their dates are the person's, their instants are not known.
//! - Lists are of raw points: two devices that counted the same steps are both in a day's record, and `sources` says how
//!   many there were. What is summed up is to be summed by source.
//! - Not taken: names of devices and apps, and what the vocabulary has no metric for (zones, levels, altitude, food,
//!   drink, the lower bound of an oxygen saturation but as an attribute, the 30-day deviation of a temperature, which is
//!   no night's).

use crate::error::{Kind, Reject};
use crate::model::time::Micros;
use crate::vendors::ask::Api;
use crate::vendors::consent::{Consent, is_id};
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, Verified, What};

mod api;
mod consent;
mod day;
mod document;
mod point;
mod session;
#[cfg(test)]
mod tests;
mod types;
mod window;

/// The vendor, as [`crate::vendors::ALL`] lists it.
pub(super) static VENDOR: Google = Google;

/// See the module.
#[derive(Debug)]
pub(super) struct Google;

/// The names that the signature's header has had.
const SIGNATURES: [&str; 2] = ["google-health-api-signature", "x-healthapi-signature"];
/// The longest verification that is looked at, bytes.
const VERIFICATION_BYTES_MAX: usize = 512;
/// Why nothing is made of what no metric is for.
const UNTAKEN: &str = "a type that is not taken";

impl Vendor for Google {
    fn name(&self) -> &'static str {
        "google"
    }

    fn accepted(&self) -> u16 {
        204
    }

    /// A signature has no time, so none is asked for.
    fn window_us(&self) -> Micros {
        Micros::MAX
    }

    fn keyset(&self) -> Option<&'static str> {
        Some("https://www.gstatic.com/googlehealthapi/webhooks/webhooks_public_keyset.json")
    }

    fn verify(
        &self,
        request: &Request<'_>,
        secrets: &Secrets<'_>,
        _now_us: Micros,
    ) -> Result<Verified, Kind> {
        if !names_us(request, secrets) {
            return Err(Kind::SignatureInvalid);
        }
        let given = SIGNATURES.map(|name| request.has(name).then(|| request.one(name)));
        let signature = match given {
            [Some(one), None] | [None, Some(one)] => one?,
            // Two are one too many: which of them counts is never guessed.
            _ => return Err(Kind::SignatureInvalid),
        };
        let keyset = secrets.keyset.ok_or(Kind::WearableApiError)?;
        if !keyset.verifies(request.body, signature) {
            return Err(Kind::SignatureInvalid);
        }
        Ok(Verified { scheme: "google-tink-ecdsa-p256", vendor_user: None })
    }

    /// Google's verification of who names our secret. Who does not is not greeted, and then not verified either: 401,
    /// which is what Google asks for the second time.
    fn greets(&self, request: &Request<'_>, secrets: &Secrets<'_>) -> Option<u16> {
        let small = request.body.len() <= VERIFICATION_BYTES_MAX;
        let json = small.then(|| json::parse(request.body).ok()).flatten()?;
        let root = json.root();
        let is = root.get("type").is_some_and(|at| at.text() == Ok("verification"));
        (is && root.member("data").is_none() && names_us(request, secrets)).then_some(201)
    }

    fn key_user(&self, _verified: &Verified, body: &[u8]) -> KeyUser {
        let Ok(json) = json::parse(body) else { return KeyUser::None };
        let root = json.root();
        let mut found = KeyUser::None;
        let all = each(&root, &mut |_, element| match (user(element), &found) {
            (None, _) => true,
            (Some(user), KeyUser::One(known)) => user == known,
            (Some(user), KeyUser::None) => {
                found = KeyUser::One(user.to_owned());
                true
            }
        });
        if all { found } else { KeyUser::None }
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let json = json::parse(raw.body)?;
        let root = json.root();
        if !matches!(root.json(), Json::List(_) | Json::Object(_)) {
            return Err(root.malformed("neither a list of notifications nor one"));
        }
        let mut items = Vec::new();
        each(&root, &mut |index, element| {
            let vendor_user = user(element).map(str::to_owned);
            let whats = changes(element).unwrap_or_else(|bad| vec![What::Bad(bad)]);
            let item = |what| Item { index, vendor_user: vendor_user.clone(), what };
            items.extend(whats.into_iter().map(item));
            true
        });
        Ok(items)
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

/// Whether a request names our secret: all of it, and nothing before or after it.
fn names_us(request: &Request<'_>, secrets: &Secrets<'_>) -> bool {
    let given = request.one("authorization").map(str::as_bytes);
    given.is_ok_and(|given| secrets.signing.iter().any(|key| key.is(given)))
}

/// Calls `found` with each element of a body and its position, as long as it says so; whether it always did.
fn each(root: &At<'_>, found: &mut dyn FnMut(i32, &At<'_>) -> bool) -> bool {
    match root.items() {
        Ok(mut list) => {
            let mut index = 0;
            list.all(|element| {
                let goes_on = found(index, &element);
                index = index.saturating_add(1);
                goes_on
            })
        }
        Err(_none) => found(0, root),
    }
}

/// Whose an element is, where that can be read.
fn user<'a>(element: &At<'a>) -> Option<&'a str> {
    let Json::Object(members) = element.json() else { return None };
    let (_, Json::Object(members)) = members.iter().find(|(name, _)| name == "data")? else {
        return None;
    };
    let (_, Json::Text(user)) = members.iter().find(|(name, _)| name == "healthUserId")? else {
        return None;
    };
    is_id(user).then_some(user.as_ref())
}

/// What an element asks for.
fn changes(element: &At<'_>) -> Result<Vec<What>, Reject> {
    let at = element.object()?.need("data")?;
    let data = at.object()?;
    let user = data.need("healthUserId")?;
    if !is_id(user.text()?) {
        return Err(user.malformed("not an id"));
    }
    let operation = data.need("operation")?;
    let gone = match operation.text()? {
        "UPSERT" => false,
        "DELETE" => true,
        _ => return Ok(vec![What::Ignored("unknown operation")]),
    };
    let named = data.need("dataType")?;
    let found = types::of_name(named.text()?);
    let kind = match found {
        Some(kind) => kind,
        None if types::is_untaken(named.text()?) => return Ok(vec![What::Ignored(UNTAKEN)]),
        None => return Ok(vec![What::Ignored("unknown type")]),
    };
    let windows = window::of_notification(data, kind, gone)?;
    let fetch = |window: window::Window| What::Fetch {
        record_type: kind.windows,
        record_id: window.to_string(),
    };
    Ok(windows.into_iter().map(fetch).collect())
}
