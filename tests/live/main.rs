//! Tests against the real stack (`make up`); a feature, so that they are never skipped silently.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that panics fails, which is what it is for"
)]

mod announced;
mod bench;
mod cache_laws;
mod connected;
mod database;
mod fetched;
mod history;
mod kafka;
mod kill;
mod log_laws;
mod migrations;
mod pair;
mod principal;
mod process;
mod queue;
mod rebuild;
mod register_laws;
mod store_laws;
mod storm;
mod telemetry;
mod truth;
mod world;

#[path = "../laws/log.rs"]
mod laws;

#[path = "../played/mod.rs"]
mod played;

#[path = "../promql/mod.rs"]
mod promql;
