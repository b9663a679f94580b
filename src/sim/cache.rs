//! The cache: the latest of each user, and of each user's maker, written only forward.

use std::collections::BTreeMap;

use super::faults::{Call, Grant};
use super::{Asked, Port, refused};
use crate::error::{Kind, Result};
use crate::model::event::Op;
use crate::model::state::{Hole, Shown};
use crate::stream::Cache;

/// What is shown, by user and maker; without a maker, the user's latest of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    pub(super) latest: BTreeMap<(String, Option<String>), Shown>,
}

impl Shelf {
    fn show(&mut self, shown: &Shown) -> Vec<Hole> {
        let user = shown.user.as_str().to_owned();
        let mut holes = Vec::new();
        for device_type in [Some(shown.device_type.clone()), None] {
            let key = (user.clone(), device_type.clone());
            let known = self.latest.get(&key);
            let same = known.is_some_and(|known| known.event_id == shown.event_id);
            let older = known.is_none_or(|known| {
                let (then, now) = (known.measured_at, shown.measured_at);
                then < now || (then == now && known.revision < shown.revision)
            });
            let newer = known.is_none_or(|known| known.revision < shown.revision);
            match shown.op {
                Op::Delete if same && newer => {
                    self.latest.remove(&key);
                    holes.push(Hole { user: shown.user.clone(), device_type });
                }
                Op::Upsert if (same && newer) || (!same && older) => {
                    self.latest.insert(key, shown.clone());
                }
                Op::Delete | Op::Upsert => {}
            }
        }
        holes
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
