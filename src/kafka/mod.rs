//! Kafka behind the ports of [`crate::stream`]: members of groups, producers, a reader, and what operators apply.
//!
//! | port | here | why it is not the library's own |
//! | --- | --- | --- |
//! | [`crate::stream::Log`] | [`consumer::Member`] | a revoke must wait for the worker; its stream consumer can miss its wake-up for ever |
//! | [`crate::stream::Publisher`] | [`transactional::Transactional`] | metadata of one moment, no 100 ms in a commit, an EndTxn that can be ruled out |
//! | [`crate::stream::Sender`] | [`producer::Sending`] | a full queue is refused at once instead of slept on |
//! | [`crate::stream::Reader`] | [`reader::Picker`] | one record by its coordinates |
//! | [`crate::stream::hydration::Room`] | [`lag::Gauge`] | what two groups have not committed, measured beside everything |
//!
//! Names of topics, groups and transactional ids get the deployment's prefix here and lose it here; nobody else
//! knows it. No text of the library leaves this module, only its codes.

pub mod admin;
pub mod consumer;
mod handover;
pub mod lag;
mod member;
pub mod producer;
pub mod reader;
pub mod registry;
pub mod scan;
pub mod settings;
pub mod transactional;
mod watch;
