//! What vendors' formats have in common: signature recipes, strict JSON, units, packed bodies, thin notifications.

pub mod glance;
pub mod gzip;
pub mod hmac;
pub mod json;
pub mod thin;
pub mod unit;
pub mod walk;
