//! Apple HealthKit: pushes of samples from an app on the person's phone.
//!
//! Apple has no server, so the contract on the wire is ours (`vendors.md` §4.3, shape A). What shapes it:
//!
//! - A sample is immutable and has a uuid; a change is a deletion and a new sample. So a record is a *bucket* of
//!   samples that gather by their id (`push.rs`), and the same sample in two pushes counts once.
//! - The app moves its anchor on our 2xx and never sends that sample again. So one bad sample of 5 000 is rejected
//!   with its position and spoils no other.
//! - A value has the unit that the app chose. It must stand beside it and be known ([`crate::vendors::wire::unit`]).
//! - `%` is a fraction of one. SDNN is `hrv_sdnn` and never rMSSD.
//! - Names of devices and metadata are a person's own words: they stay in the raw topic.
//!
//! Positions of items run through the arrays of `data` in the order records, sleep, workouts, deleted. Sleep is kept
//! in its buckets, stage by stage; sessions are made of it later. A push of another shape (Health Auto Export)
//! is ignored whole, under that reason.

mod push;
mod sample;
mod table;
mod token;

use std::borrow::Cow;

use push::{ARRAYS, Push};
pub use token::token;

use crate::error::{Kind, Path, Reject};
use crate::model::contract::header;
use crate::model::time::Micros;
use crate::vendors::wire::{gzip, json};
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, Verified, What};

/// HealthKit.
pub static VENDOR: HealthKit = HealthKit;

/// HealthKit, as a [`Vendor`].
#[derive(Clone, Copy, Debug)]
pub struct HealthKit;

const ANOTHER_SHAPE: &str = "another shape";
const EMPTY: &str = "empty";

impl Vendor for HealthKit {
    fn name(&self) -> &'static str {
        "healthkit"
    }

    fn body_bytes_max(&self) -> usize {
        12 * 1024 * 1024
    }

    fn takes_gzip(&self) -> bool {
        true
    }

    /// The app is ours: it keeps its anchor until a 2xx, and knows this status.
    fn limited(&self) -> u16 {
        429
    }

    fn window_us(&self) -> Micros {
        token::WINDOW_US
    }

    /// The app's own id of a push, the same each time that iOS sends it again.
    fn delivery_header(&self) -> Option<&'static str> {
        Some("x-batch-id")
    }

    fn verify(
        &self,
        request: &Request<'_>,
        secrets: &Secrets<'_>,
        now_us: Micros,
    ) -> Result<Verified, Kind> {
        token::verify(request, secrets, now_us)
    }

    /// The connection that the token names; the body, which may be packed, is not looked at.
    fn key_user(&self, verified: &Verified, _body: &[u8]) -> KeyUser {
        verified.vendor_user.clone().map_or(KeyUser::None, KeyUser::One)
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        let body = unpacked(raw)?;
        let json = json::parse(&body)?;
        let root = json.root();
        let data = root.object()?.need("data")?;
        let vendor_user = raw.headers.text(header::VENDOR_USER);
        let whole = |why| {
            vec![Item {
                index: 0,
                vendor_user: vendor_user.map(str::to_owned),
                what: What::Ignored(why),
            }]
        };
        let ours = ARRAYS.into_iter().any(|name| data.member(name).is_some());
        let others = data.members()?.next().is_some();
        if data.member("metrics").is_some() || (others && !ours) {
            return Ok(whole(ANOTHER_SHAPE));
        }
        let mut push = Push::new(vendor_user, raw.received_at);
        let mut position: i32 = 0;
        for name in ARRAYS {
            let Some(array) = data.get(name) else { continue };
            for at in array.items()? {
                push.take(name, &at, position);
                position = position.saturating_add(1);
            }
        }
        Ok(if position == 0 { whole(EMPTY) } else { push.items() })
    }
}

/// The body as the app wrote it, unpacked where its request said that it is packed.
fn unpacked<'a>(raw: &Raw<'a>) -> Result<Cow<'a, [u8]>, Reject> {
    let Some(encoding) = raw.headers.get(header::CONTENT_ENCODING) else {
        return Ok(Cow::Borrowed(raw.body));
    };
    match encoding.to_ascii_lowercase().as_slice() {
        b"gzip" => gzip::inflate(raw.body).map(Cow::Owned),
        b"identity" => Ok(Cow::Borrowed(raw.body)),
        _ => Err(Reject::malformed(Path::root(), "an encoding that is not read")),
    }
}

#[cfg(test)]
mod tests;
