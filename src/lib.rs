//! The journey of a heartbeat, from a vendor to NEUROS, in the order of the modules.
//!
//! 1. A vendor posts a webhook. [`ingress`] asks [`vendors`] whether it is theirs and writes its exact bytes to
//!    `raw-webhooks`; it answers 200 when the brokers have them, and not before.
//! 2. [`stream::relay`] reads raw records in a consumer group and has [`pipeline::normalise`] turn them into
//!    canonical records: one language for time, units and metrics ([`model`]), whatever the vendor speaks.
//!    They go to `normalised-records`, keyed by our user.
//!    What a notification only names, [`hydrator`] fetches from the vendor's API into `raw-documents`.
//! 3. [`stream::worker`] owns partitions of that topic, one writer a user. For each batch it plans what must be
//!    known, loads it, and has [`pipeline::decide`] tell new from duplicate from revision, and ask the [`rules`].
//! 4. Postgres decides once, Kafka repeats what Postgres decided: one transaction in [`postgres`] with a fence and
//!    an outbox, one in [`kafka`] with the outputs and the offsets, then [`redis`], best effort.
//! 5. NEUROS reads `biometric-events` and `terra-biometric-events`, and each event is there once.
//!
//! | layer | modules | may do |
//! | --- | --- | --- |
//! | pure | [`error`] [`model`] [`vendors`] [`rules`] [`pipeline`] | compute; no I/O, no clock, no randomness |
//! | engine | [`stream`] | loops over ports; knows no vendor and no metric |
//! | doors | [`ingress`] [`hydrator`] | HTTP, in and out |
//! | adapters | [`kafka`] [`postgres`] [`redis`] [`telemetry`] | implement ports; never see each other |
//! | world in memory | [`sim`] | the same ports, for tests, `try` and the crash sweep |
//! | composition | [`config`] [`roles`] [`commands`] [`cli`] | see everything |
//!
//! `tests/it/tidy.rs` holds every file to the import table of that layering.

pub mod error;
pub mod model;
pub mod vendors;
pub mod rules;
pub mod pipeline;
pub mod stream;
pub mod ingress;
pub mod hydrator;
pub mod kafka;
pub mod postgres;
pub mod redis;
pub mod telemetry;
pub mod sim;
pub mod config;
pub mod roles;
pub mod commands;
pub mod cli;
