//! Redis: a cache of what is newest of each person, for readers that cannot wait for a stream.
//!
//! It can be emptied at any time and is right again with the next event. Nothing is ever decided by it, and nobody
//! waits for it: while it is away, showing costs nothing.

mod breaker;
pub mod cache;

pub use cache::Settings;
