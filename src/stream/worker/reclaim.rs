//! Recover (§1.2): a worker makes a partition its own again.
//!
//! The order of the reads is the point: producer, metadata, fence, committed offset. What was in doubt is decided by the
//! fence; what the committed offset says after it stays true.

use super::{STARTS_CAREFUL, Worker};
use crate::model::record::OutRecord;
use crate::stream::planted::Bug;
use crate::stream::recover::{self, MARK, Recovery};
use crate::stream::task::{Event, Position, Task};
use crate::stream::{Cache, Clock, Fenced, Log, Metadata, Processor, Publisher, Store};

impl<L: Log, P: Publisher, S: Store, C: Cache, K: Clock, D: Processor> Worker<L, P, S, C, K, D> {
    /// Takes a partition in hand, and brings to its end what its last owner left open.
    pub(super) async fn recover(&mut self, partition: i32, task: Task) {
        if let Err(error) = self.publisher.open().await {
            self.failed(&error);
            return self.pause().await;
        }
        let Some(mut metadata) = self.capture([partition]) else {
            return self.log.wait(self.settings.pause).await;
        };
        let topic = self.log.topic();
        let fenced = match self.store.fence(topic, partition).await {
            Ok(fenced) => fenced,
            Err(error) => {
                self.failed(&error);
                return self.pause().await;
            }
        };
        let Some((committed, bounds)) = self.committed(partition, task.term).await else { return };
        if Bug::MetadataLate.alive() {
            metadata = self.log.metadata();
        }
        if !self.holds([partition]) {
            return;
        }
        let recovery = recover::decide(&fenced, committed, bounds);
        tracing::info!(partition, applied = fenced.applied, ?recovery, "recovered");
        let out = match recovery {
            Recovery::Ready { out } => out,
            Recovery::Stop(why) => return self.on(partition, Event::Halted(why)),
            Recovery::Send { .. } if Bug::SeenWithoutOwner.alive() => {
                let start = committed.unwrap_or(fenced.applied);
                return self.ready(partition, &fenced, fenced.applied, start).await;
            }
            Recovery::Send { from } => {
                if !self.send_outbox(partition, &fenced, from, &metadata).await {
                    return;
                }
                fenced.applied
            }
            Recovery::SendAll => {
                tracing::warn!(partition, "no committed offset of ours: the outbox is sent again");
                if !self.send_outbox(partition, &fenced, i64::MIN, &metadata).await {
                    return;
                }
                fenced.applied
            }
        };
        self.ready(partition, &fenced, out, fenced.applied).await;
    }

    /// The committed offset of ours and the log's bounds, asked for until they are known; absent when the
    /// partition goes meanwhile.
    async fn committed(&mut self, partition: i32, term: u64) -> Option<(Option<i64>, (i64, i64))> {
        loop {
            let asked = match self.log.committed(partition).await {
                Ok(committed) => match self.log.bounds(partition).await {
                    Ok(bounds) => Ok((recover::ours(committed), bounds)),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            match asked {
                Ok(known) => return Some(known),
                Err(error) => self.failed(&error),
            }
            let held = self.tasks.get(&partition).is_some_and(|task| task.term == term);
            let asked = self.stop.is_set() || self.log.owned().iter().any(|now| now.revoking);
            if asked || !held || !self.holds([partition]) {
                return None;
            }
            self.log.wait(self.settings.pause).await;
        }
    }

    async fn send_outbox(
        &mut self,
        partition: i32,
        fenced: &Fenced,
        from: i64,
        metadata: &Metadata,
    ) -> bool {
        let outputs = fenced.outbox.iter().flat_map(|(_, _, outputs)| outputs);
        let records: Vec<OutRecord> =
            outputs.filter(|output| output.cause >= from).map(|out| out.record.clone()).collect();
        let offsets = [(partition, fenced.applied, format!("{MARK}{}", fenced.fence))];
        self.transact(&[partition], &records, &offsets, metadata).await
    }

    async fn ready(&mut self, partition: i32, fenced: &Fenced, out: i64, start: i64) {
        if let Err(error) = self.log.seek(partition, start).await {
            self.failed(&error);
            return self.pause().await;
        }
        self.pending.retain(|record| record.partition != partition);
        let position = Position { fence: fenced.fence, applied: fenced.applied, out };
        self.on(partition, Event::Recovered(position));
        let reach = i64::try_from(self.settings.batch_records_max).unwrap_or(i64::MAX);
        if let Some(task) = self.tasks.get_mut(&partition)
            && fenced.starts >= STARTS_CAREFUL
        {
            task.careful_until = fenced.applied.saturating_add(reach);
        }
    }
}
