//! The laws of the store on the one in memory: a double that passes them is known to be faithful.

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::BiometricEvent;
use biometric_bridge::sim::driver::{Driver, Setting};
use biometric_bridge::sim::store::SimStore;
use bytes::Bytes;

#[macro_use]
#[path = "../laws/store.rs"]
mod laws;

struct World(Driver);

async fn world() -> World {
    World(Driver::new(Setting::default()))
}

impl laws::Stores for World {
    type Store = SimStore;

    async fn open(&self) -> SimStore {
        self.0.ports(Topic::NormalisedRecords, 0).store
    }

    fn bytes_of(&self, event: &BiometricEvent) -> Bytes {
        Bytes::from(serde_json::to_vec(event).unwrap())
    }
}

store_laws!(world);
