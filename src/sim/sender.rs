//! Producers outside of transactions and readers of single records: what the ingress, normalise and the sweep use.

use super::faults::{Call, Grant};
use super::{Asked, Port, Shared, refused};
use crate::error::{Kind, Result};
use crate::model::record::{OutRecord, Record};
use crate::model::state::Coordinates;
use crate::stream::{Reader, Sender};

/// A producer. The ingress' acknowledges at once; a relay's waits for the driver, as its other calls do.
#[derive(Clone, Debug)]
pub struct SimSender {
    pub(super) world: Shared,
    pub(super) port: Option<Port>,
}

impl Sender for SimSender {
    async fn send(&self, record: OutRecord) -> Result<Coordinates> {
        let lost = || refused(Kind::BrokerUnavailable, "send");
        let grant = match &self.port {
            Some(port) => port.ask(Asked::of(Call::Produce)).await,
            None => Grant::Done,
        };
        if grant == Grant::Refused {
            return Err(lost());
        }
        let mut world = self.world.lock();
        let now = world.now;
        let at = world.broker.append(record, None, now);
        world.news();
        if grant == Grant::Done { Ok(at) } else { Err(lost()) }
    }
}

/// Reads single records.
#[derive(Clone, Debug)]
pub struct SimReader {
    pub(super) port: Port,
}

impl Reader for SimReader {
    async fn read(&mut self, at: Coordinates) -> Result<Option<Record>> {
        if self.port.ask(Asked::of(Call::Read)).await != Grant::Done {
            return Err(refused(Kind::BrokerUnavailable, "read a record"));
        }
        Ok(self.port.with(|world, _| world.broker.read(at)).flatten())
    }
}
