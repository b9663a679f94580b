//! Postgres: where decide's decisions are made once, and where normalise notes what is not a record.
//!
//! - [`store`] is the truth of decide: the fence, one snapshot, one transaction with its outbox.
//! - [`register`] is normalise's notebook: connections, fetches that are wanted, held items, verdicts.
//! - [`queue`] is the hydrator's: which records are to be fetched, and how many calls vendors allow.
//! - [`history`] notes in it what no notification named, and says how far that has come.
//! - [`vault`] holds tokens, sealed.
//! - [`consent`] keeps the consents that people are asked for now, and makes their connections.
//! - [`lookup`] reads for people: every row for `audit`, and a digest of the current content.
//! - [`migrate`] makes the tables, forwards and back.
//! - [`pool`] makes connections, and nobody else does: time-outs, TLS and what an error may say are set there.
//!
//! # Why a connection of its own for each worker
//! A batch that waits for a pool is a hidden stall, and two rules of the protocol are about *the* connection: a
//! new one after a broken one makes every task recover, and the slot's name is held by a lock of its session. So
//! a worker owns one and prepares its statements on it. The pool is for lookups and commands, and for the hydrator, each of
//! whose statements stands for itself.
//!
//! # Cancellation
//! Every call takes the connection out of its place and puts it back when the server has answered the last
//! statement. A call that is dropped half-way drops the connection with it, and the server rolls back: no
//! transaction stays open, and no later call can meet the answers of an earlier one.

mod apply;
pub mod consent;
pub mod history;
mod link;
pub mod lookup;
pub mod migrate;
pub mod pool;
pub mod queue;
pub mod register;
mod rows;
mod samples;
pub mod store;
pub mod vault;

pub use pool::Settings;
