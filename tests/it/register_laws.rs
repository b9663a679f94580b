//! The laws of the register on the one in memory.

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::id::Source;
use biometric_bridge::model::state::HydrationKey;
use biometric_bridge::sim::driver::{Driver, Setting};
use biometric_bridge::sim::store::SimRegister;

#[macro_use]
#[path = "../laws/register.rs"]
mod laws;

struct World(Driver);

async fn world() -> World {
    World(Driver::new(Setting::default()))
}

impl laws::Registers for World {
    type Register = SimRegister;

    async fn open(&self) -> SimRegister {
        self.0.ports(Topic::RawWebhooks, 0).register
    }

    async fn waiting(&self) -> Vec<HydrationKey> {
        self.0.waiting().0.into_iter().map(|asked| asked.key).collect()
    }

    async fn verdicts(&self) -> Vec<(Source, String, String)> {
        let text = |one: biometric_bridge::model::state::RawVerdict| {
            (one.source, one.verdict.to_owned(), one.reason.to_owned())
        };
        self.0.verdicts().into_iter().map(text).collect()
    }
}

register_laws!(world);
