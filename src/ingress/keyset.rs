//! A vendor's public keys, as the door has them: put there by who reads or fetches them while the door is open.

use std::sync::{Arc, PoisonError, RwLock};

use crate::vendors::wire::tink::Keyset;

/// A place for a keyset; empty until somebody puts one there. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<RwLock<Option<Arc<Keyset>>>>);

impl Shelf {
    /// Puts this one there, or none: the next request is verified with it, or answered 503.
    pub fn put(&self, keyset: Option<Keyset>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keyset.map(Arc::new);
    }

    /// What is there.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Keyset>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
