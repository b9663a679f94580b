//! The wish that a loop ends, shared by all who may have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks loops to end; clones ask together.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
