//! The laws of the cache on the one in memory.

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::id::{EventId, User};
use biometric_bridge::sim::cache::{SERIES_MAX, SimCache};
use biometric_bridge::sim::driver::{Driver, Setting};

#[macro_use]
#[path = "../laws/cache.rs"]
mod laws;

struct World(Driver);

async fn world() -> World {
    World(Driver::new(Setting::default()))
}

impl laws::Caches for World {
    type Cache = SimCache;

    async fn open(&self) -> SimCache {
        self.0.ports(Topic::NormalisedRecords, 0).cache
    }

    fn user(&self) -> User {
        User::parse("user-1").unwrap()
    }

    async fn latest(&self, maker: Option<&str>) -> Option<(EventId, i32, String)> {
        let shown = self.0.shown(self.user().as_str(), maker)?;
        Some((shown.event_id, shown.revision, shown.json))
    }

    async fn series(&self) -> Option<Vec<(i64, String)>> {
        let series = self.0.series(self.user().as_str());
        Some(series.into_iter().map(|shown| (shown.measured_at, shown.json)).collect())
    }

    fn series_max(&self) -> usize {
        SERIES_MAX
    }
}

cache_laws!(world);
