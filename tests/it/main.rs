//! All tests that need no infrastructure, in one binary.

mod cli;
mod config;
mod contract;
mod crash_sweep;
mod golden;
mod http;
mod interleave;
mod journey;
mod leak;
mod policy;
mod schema;
mod task_table;
mod tidy;
mod vendor_laws;
