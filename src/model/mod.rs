//! The language of the system: what stands in topics, rows and events. Pure, and it imports nothing of ours but
//! [`crate::error`].
//!
//! One type per station of the journey, each made in one place: a request becomes a [`record::Record`] at the
//! ingress, normalise makes [`event::NormalisedRecord`]s of it, decide makes an [`state::Outcome`] of a batch of
//! those, and emit makes records of that again. Past the edge nothing is "not yet checked".

pub mod avro;
pub mod connection;
pub mod contract;
pub mod event;
pub mod id;
pub mod metric;
pub mod outbox;
pub mod record;
pub mod state;
pub mod time;
pub mod trigger;
