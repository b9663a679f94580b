//! Tests against the real stack (`make up`); a feature, so that they are never skipped silently.

mod kafka;
mod log_laws;
mod world;

#[path = "../laws/log.rs"]
mod laws;
