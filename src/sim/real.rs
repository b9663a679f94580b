//! The real pipeline in the world in memory: normalise in a relay, decide in a worker, Avro between them.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::driver::{Dialect, Driver, Ports};
use crate::error::Result;
use crate::model::avro::{Codec, SchemaIds};
use crate::model::contract::Topic;
use crate::model::event::{BiometricEvent, NormalisedRecord};
use crate::pipeline::decide::Decide;
use crate::pipeline::normalise::{Normalise, Unknown};
use crate::stream::relay::{Relay, Settings};

/// What a registry would call the schemas.
const IDS: SchemaIds = SchemaIds { normalised: 1, events: 2, terra_events: 3 };

/// The pipeline's own decide and its Avro.
#[derive(Clone)]
pub struct Real {
    codec: Arc<Codec>,
}

impl std::fmt::Debug for Real {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Real").finish_non_exhaustive()
    }
}

impl Real {
    /// With a codec of its own.
    ///
    /// # Errors
    /// Where the embedded schemas cannot be parsed, which a test keeps from happening.
    pub fn new() -> Result<Self> {
        Ok(Self { codec: Arc::new(Codec::new(IDS)?) })
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> Arc<Codec> {
        Arc::clone(&self.codec)
    }

    /// Adds a process that normalises `raw-webhooks`.
    pub fn add_relay(&self, driver: &mut Driver, unknown: Unknown, settings: Settings) -> usize {
        self.add_relay_of(driver, Topic::RawWebhooks, unknown, settings)
    }

    /// Adds a process that normalises this raw topic.
    pub fn add_relay_of(
        &self,
        driver: &mut Driver,
        topic: Topic,
        unknown: Unknown,
        settings: Settings,
    ) -> usize {
        let (codec, metrics) = (self.codec(), driver.metrics());
        let body = Rc::new(move |ports: Ports| -> super::driver::Process {
            let normalise = Normalise::new(Arc::clone(&codec), unknown);
            let metrics = metrics.clone();
            Box::pin(async move {
                let Ports { log, sender, register, reader, clock, stop, .. } = ports;
                let mut relay =
                    Relay::new(log, sender, register, reader, clock, normalise, settings, metrics);
                // A relay that must not go on ends: what it left shows in the log, and that is what is looked at.
                relay.run(&stop).await.is_ok()
            })
        });
        driver.add(topic, body)
    }
}

impl Dialect for Real {
    type Decide = Decide;

    #[cfg(not(feature = "planted"))]
    fn processor(&self) -> Decide {
        Decide::new(self.codec())
    }

    /// With the bug that this run is to catch, where it is one of decide's: pure code knows no switches.
    #[cfg(feature = "planted")]
    fn processor(&self) -> Decide {
        use crate::pipeline::flaw::{Flaw, Flaws};
        use crate::stream::planted::Bug;
        let alive = [
            (Bug::DerivedOrderIgnored, Flaw::OrderIgnored),
            (Bug::SessionStays, Flaw::SessionStays),
            (Bug::EarlyRemovalForgotten, Flaw::EarlyRemovalForgotten),
        ];
        let alive = alive.into_iter().find(|(bug, _)| bug.alive()).map(|(_, flaw)| flaw);
        Decide::flawed(self.codec(), Flaws::planted(alive))
    }

    fn write(&self, record: &NormalisedRecord) -> Bytes {
        Bytes::from(self.codec.encode_record(record).unwrap_or_default())
    }

    fn read(&self, value: &[u8]) -> Option<NormalisedRecord> {
        self.codec.decode_record(value).ok()
    }

    fn event(&self, value: &[u8]) -> Option<BiometricEvent> {
        self.codec.decode_event(value).ok()
    }
}
