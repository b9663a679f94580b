//! What vendors' formats have in common: signature recipes, strict JSON, units, packed bodies.

pub mod gzip;
pub mod hmac;
pub mod json;
pub mod unit;
pub mod walk;
