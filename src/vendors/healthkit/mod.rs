//! Apple HealthKit: pushes of samples from an app on the person's phone.
//!
//! Apple has no server, so the contract on the wire is ours (`vendors.md` §4). Two shapes of `data` are read: our own
//! (A: `records`, `sleep`, `workouts`, `deleted`), which the `import` command makes of an `export.xml` as well, and that
//! of Health Auto Export (B: `metrics`, `exported`). What shapes this file:
//!
//! - A sample is immutable and has a uuid; a change is a deletion and a new sample. So a record is a *bucket* of
//!   samples that gather by their id (`push.rs`), and the same sample in two pushes counts once.
//! - The app moves its anchor on our 2xx and never sends that sample again. So one bad sample of 5 000 is rejected
//!   with its position and spoils no other.
//! - A push can be three years. It is read element by element (`element.rs`), each borrowed from the body and made a
//!   reading at once; there is no tree of it.
//! - A value has the unit that the app chose. It must stand beside it and be known ([`crate::vendors::wire::unit`]).
//! - `%` is a fraction of one in shape A and a percentage in shape B. SDNN is `hrv_sdnn` and never rMSSD.
//! - Names of devices and metadata are a person's own words: they stay in the raw topic (`source.rs`).
//!
//! Positions of items run through the arrays of `data` in the order of `ARRAYS`, in whichever order the body has
//! them; in `metrics` they run through the elements of each metric's own `data`. Sleep is kept in its buckets, stage
//! by stage; sessions are made of it later.
//!
//! # What our own shape adds to Open Wearables'
//! `deleted`; `zoneOffset`, the UTC offset where the sample was taken; `inferredOffset`, the one of the phone when it
//! wrote, for who has no better (`export.xml`), used where neither `zoneOffset` nor the metadata's `HKTimeZone` is there.

mod date;
mod element;
mod exported;
mod push;
mod sample;
mod source;
mod table;
mod token;
mod workout;

use std::borrow::Cow;

pub use date::spelled;
use element::Each;
use exported::Series;
use push::{Place, Push};
use serde::de::{MapAccess, SeqAccess};
pub use source::{Named, is_product_type, named};
pub use token::token;

use crate::error::{Kind, Path, Reject};
use crate::model::contract::header;
use crate::model::time::Micros;
use crate::vendors::wire::walk::{Items, List, Members, Met, Object, Skip};
use crate::vendors::wire::{gzip, json};
use crate::vendors::{Item, KeyUser, Raw, Request, Secrets, Vendor, Verified, What};

/// HealthKit.
pub static VENDOR: HealthKit = HealthKit;

/// HealthKit, as a [`Vendor`].
#[derive(Clone, Copy, Debug)]
pub struct HealthKit;

/// The arrays of `data`, in the order in which positions run through them.
const ARRAYS: [&str; 11] = [
    "records",
    "sleep",
    "workouts",
    "deleted",
    "metrics",
    "stateOfMind",
    "medications",
    "symptoms",
    "cycleTracking",
    "ecg",
    "heartRateNotifications",
];
/// The place of `metrics` there; those before it are arrays of [`element::Element`]s.
const METRICS: usize = 4;

const ANOTHER_SHAPE: &str = "another shape";
const EMPTY: &str = "empty";
const NOT_READ: &str = "not read yet";

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
        let vendor_user = raw.headers.text(header::VENDOR_USER);
        let mut reader = Body {
            push: Push::new(vendor_user, raw.received_at),
            found: Met::Null,
            lengths: [0; ARRAYS.len()],
            ours: false,
            others: false,
        };
        let root = json::document(&body, Object(&mut reader, 0))?;
        let Body { push, found, lengths, ours, others } = reader;
        let data = || Path::root().key("data");
        match (root, found) {
            (Met::It, Met::It) => {}
            (Met::It, Met::Null) => {
                return Err(Reject::malformed(data(), "a required field is absent"));
            }
            (Met::It, Met::Other) => return Err(Reject::malformed(data(), "not an object")),
            _ => return Err(Reject::malformed(Path::root(), "not an object")),
        }
        let items = push.items(&lengths)?;
        if !items.is_empty() {
            return Ok(items);
        }
        let why = if others && !ours { ANOTHER_SHAPE } else { EMPTY };
        let vendor_user = vendor_user.map(str::to_owned);
        Ok(vec![Item { index: 0, vendor_user, what: What::Ignored(why) }])
    }
}

/// A body on its way through the reader.
struct Body<'a, 'de> {
    push: Push<'a, 'de>,
    /// What `data` is.
    found: Met,
    lengths: [usize; ARRAYS.len()],
    /// Whether `data` has arrays that we know.
    ours: bool,
    /// Whether `data` has members that we do not know.
    others: bool,
}

/// The members of `data`.
struct Arrays<'b, 'a, 'de>(&'b mut Body<'a, 'de>);

impl<'de> Members<'de> for Body<'_, 'de> {
    fn field(key: &str) -> Option<u8> {
        (key == "data").then_some(0)
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        _: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let found = map.next_value_seed(Object(&mut Arrays(self), level))?;
        self.found = found;
        Ok(())
    }
}

impl<'de> Members<'de> for Arrays<'_, '_, 'de> {
    fn field(key: &str) -> Option<u8> {
        ARRAYS.iter().zip(0..).find(|(name, _)| **name == key).map(|(_, at)| at)
    }

    fn member<A: MapAccess<'de>>(
        &mut self,
        field: u8,
        level: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let array = usize::from(field);
        let push = &mut self.0.push;
        let mut length = 0;
        let met = match array {
            ..METRICS => {
                let mut each = Each(|is_object, element: &_| {
                    push.element(Place { array, index: length }, is_object, element);
                    length += 1;
                });
                map.next_value_seed(List(&mut each, level))?
            }
            METRICS => {
                let mut metrics = Metrics { push, count: 0, length: 0 };
                let met = map.next_value_seed(List(&mut metrics, level))?;
                length = metrics.length;
                met
            }
            _ => {
                let mut count = Count(0);
                let met = map.next_value_seed(List(&mut count, level))?;
                length = count.0;
                if length > 0 {
                    push.ignore(NOT_READ, Place { array, index: 0 });
                }
                met
            }
        };
        if let (Met::Other, Some(name)) = (met, ARRAYS.get(array)) {
            push.fail(Reject::malformed(Path::root().key("data").key(name), "not an array"));
        }
        self.0.ours = true;
        if let Some(known) = self.0.lengths.get_mut(array) {
            *known = length;
        }
        Ok(())
    }

    fn unknown(&mut self) {
        self.0.others = true;
    }
}

/// The elements of `metrics`, each with elements of its own.
struct Metrics<'b, 'a, 'de> {
    push: &'b mut Push<'a, 'de>,
    count: usize,
    length: usize,
}

impl<'de> Items<'de> for Metrics<'_, '_, 'de> {
    fn item<A: SeqAccess<'de>>(&mut self, level: usize, list: &mut A) -> Result<bool, A::Error> {
        let mut series = Series { at: self.count, ..Series::default() };
        let Some(met) = list.next_element_seed(Object(&mut series, level))? else {
            return Ok(false);
        };
        let place = Place { array: METRICS, index: self.length };
        self.length += series.take(met == Met::It, self.push, place);
        self.count += 1;
        Ok(true)
    }
}

/// How many elements there are.
struct Count(usize);

impl<'de> Items<'de> for Count {
    fn item<A: SeqAccess<'de>>(&mut self, level: usize, list: &mut A) -> Result<bool, A::Error> {
        let there = list.next_element_seed(Skip(level))?.is_some();
        self.0 += usize::from(there);
        Ok(there)
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
