//! What vendors' formats have in common: signature recipes, strict JSON, units.

pub mod hmac;
pub mod json;
pub mod unit;
