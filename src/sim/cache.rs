//! The cache: the latest of each user, and of each user's maker, and a series; written only forward.

use std::collections::BTreeMap;

use super::faults::{Call, Grant};
use super::{Asked, Port, refused};
use crate::error::{Kind, Result};
use crate::model::event::Op;
use crate::model::id::EventId;
use crate::model::state::{Hole, Shown};
use crate::stream::Cache;

/// The most members of a user's series.
pub const SERIES_MAX: usize = 100;

/// What is shown, by user and maker; without a maker, the user's latest of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    pub(super) latest: BTreeMap<(String, Option<String>), Shown>,
    pub(super) series: BTreeMap<String, BTreeMap<EventId, Shown>>,
    /// The highest revision of each event that ever came: an earlier one is late.
    seen: BTreeMap<EventId, i32>,
}

impl Shelf {
    fn show(&mut self, shown: &Shown) -> Vec<Hole> {
        let seen = self.seen.entry(shown.event_id).or_insert(shown.revision);
        if shown.revision < *seen {
            return Vec::new();
        }
        *seen = shown.revision;
        let user = shown.user.as_str().to_owned();
        self.show_in_series(&user, shown);
        let mut holes = Vec::new();
        for device_type in [Some(shown.device_type.clone()), None] {
            let key = (user.clone(), device_type.clone());
            let known = self.latest.get(&key);
            let same = known.is_some_and(|known| known.event_id == shown.event_id);
            let at = |shown: &Shown| (shown.measured_at, shown.revision);
            let later = known.is_none_or(|known| at(known) < at(shown));
            match shown.op {
                Op::Delete if same => {
                    self.latest.remove(&key);
                    holes.push(Hole { user: shown.user.clone(), device_type });
                }
                Op::Upsert if same || later => {
                    self.latest.insert(key, shown.clone());
                }
                Op::Delete | Op::Upsert => {}
            }
        }
        holes
    }

    fn show_in_series(&mut self, user: &str, shown: &Shown) {
        let series = self.series.entry(user.to_owned()).or_default();
        match shown.op {
            Op::Delete => {
                series.remove(&shown.event_id);
            }
            Op::Upsert => {
                series.insert(shown.event_id, shown.clone());
            }
        }
        while series.len() > SERIES_MAX {
            let oldest = series.values().min_by_key(|one| (one.measured_at, one.event_id));
            let Some(oldest) = oldest.map(|one| one.event_id) else { break };
            series.remove(&oldest);
        }
    }
}

/// A worker's connection to the cache.
#[derive(Clone, Debug)]
pub struct SimCache {
    pub(super) port: Port,
}

impl Cache for SimCache {
    async fn show(&mut self, shown: &[Shown]) -> Result<Vec<Hole>> {
        if self.port.ask(Asked::of(Call::Show)).await != Grant::Done {
            return Err(refused(Kind::CacheError, "show"));
        }
        let holes = self.port.with(|world, _| {
            shown.iter().flat_map(|one| world.shelf.show(one)).collect::<Vec<_>>()
        });
        holes.ok_or_else(|| refused(Kind::CacheError, "show"))
    }
}
