//! All tests that need no infrastructure, in one binary.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that panics fails, which is what it is for"
)]

mod alerts;
mod cache_laws;
mod cli;
mod config;
mod connect;
mod contract;
mod crash_sweep;
mod dexcom;
mod documents;
mod door;
mod fetch;
mod golden;
mod google;
mod http;
mod hydrator;
mod import;
mod interleave;
mod journey;
mod leak;
mod limits;
mod log_laws;
mod memory;
mod pointers;
mod policy;
mod ports;
mod register_laws;
mod schema;
mod store_laws;
mod task_table;
mod telemetry;
mod terra;
mod tidy;
mod tls;
mod top;
mod turns;
mod vendor_laws;
mod withings;

#[path = "../played/mod.rs"]
mod played;

#[path = "../promql/mod.rs"]
mod promql;
