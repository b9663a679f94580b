//! Tests against the real stack (`make up`); a feature, so that they are never skipped silently.

mod kafka;
mod kill;
mod log_laws;
mod pair;
mod process;
mod rebuild;
mod world;

#[path = "../laws/log.rs"]
mod laws;
