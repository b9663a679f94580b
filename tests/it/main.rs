//! All tests that need no infrastructure, in one binary.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that panics fails, which is what it is for"
)]

mod cache_laws;
mod cli;
mod config;
mod contract;
mod crash_sweep;
mod door;
mod golden;
mod http;
mod import;
mod interleave;
mod journey;
mod leak;
mod log_laws;
mod memory;
mod policy;
mod register_laws;
mod schema;
mod store_laws;
mod task_table;
mod tidy;
mod vendor_laws;
