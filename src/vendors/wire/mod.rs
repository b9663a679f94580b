//! What vendors' formats have in common: signature recipes, strict JSON, units, packed bodies, thin notifications,
//! records in the making.

pub(crate) mod answer;
pub mod form;
pub mod glance;
pub mod gzip;
pub mod hmac;
pub mod json;
pub(crate) mod sheet;
pub mod thin;
pub mod tink;
pub mod unit;
pub mod walk;
pub mod zone;
