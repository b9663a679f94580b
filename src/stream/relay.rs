//! Normalise's loop: at least once, which is enough, because decide recognises what it has seen.
//!
//! Per batch: one read of connections, the pure conversion, one idempotent write of notes where there are any, the
//! records sent and acknowledged, the offsets committed; in this order, so that whatever dies in between is done
//! again and nothing is skipped. What fails for the world's fault is tried again, the same batch, after a pause.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::worker::Stop;
use super::{Clock, Converter, Log, Reader, Register, Relayed, Sender};
use crate::error::{Error, Kind, Result};
use crate::model::contract::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::model::record::Record;
use crate::model::state::{Coordinates, Held, Notes, RawVerdict};
use crate::telemetry::metrics::Metrics;

/// How a relay behaves in time.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The most records of a batch.
    pub batch_records_max: usize,
    /// How long one wait for records lasts at most.
    pub wait_max: Duration,
    /// The pause after a failure of the world.
    pub pause: Duration,
    /// How often held items are looked through; absent where another relay of the process does it.
    pub sweep_every: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_records_max: BATCH_RECORDS_MAX,
            wait_max: Duration::from_millis(200),
            pause: Duration::from_millis(200),
            sweep_every: Some(Duration::from_secs(10)),
        }
    }
}

/// Held items of one sweep.
const SWEPT_MAX: usize = 500;

/// One worker of normalise. It owns its ports.
pub struct Relay<L, S, R, Rd, K, V> {
    log: L,
    sender: S,
    register: R,
    reader: Rd,
    clock: K,
    converter: V,
    settings: Settings,
    metrics: Metrics,
    /// The partitions that were placed, by term.
    placed: BTreeMap<i32, u64>,
    /// Taken and not committed.
    pending: Vec<Record>,
    swept_at: Duration,
}

impl<L: Log, S: Sender, R: Register, Rd: Reader, K: Clock, V: Converter> Relay<L, S, R, Rd, K, V> {
    /// A relay that owns nothing yet.
    #[expect(clippy::too_many_arguments, reason = "one port each, named once, in one place")]
    pub fn new(
        log: L,
        sender: S,
        register: R,
        reader: Rd,
        clock: K,
        converter: V,
        settings: Settings,
        metrics: Metrics,
    ) -> Self {
        let swept_at = clock.elapsed();
        let (placed, pending) = (BTreeMap::new(), Vec::new());
        Self {
            log,
            sender,
            register,
            reader,
            clock,
            converter,
            settings,
            metrics,
            placed,
            pending,
            swept_at,
        }
    }

    /// Runs until it is asked to stop.
    ///
    /// # Errors
    /// `internal_error` where the log no longer holds what is not committed: a person must look.
    pub async fn run(&mut self, stop: &Stop) -> Result<()> {
        while !stop.is_set() {
            match self.step().await {
                Ok(()) => {}
                Err(error) if error.kind == Kind::InternalError => return Err(error),
                Err(error) => {
                    self.metrics.errors.with_label_values(&[error.kind.name()]).inc();
                    tracing::warn!(kind = error.kind.name(), doing = error.doing,
                        code = %error.code, "pausing");
                    self.clock.sleep(self.settings.pause).await;
                }
            }
        }
        for owned in self.log.owned() {
            self.log.release(owned.partition, owned.term);
        }
        Ok(())
    }

    /// One step: what is owned is followed, then a batch, a sweep, or a wait.
    ///
    /// # Errors
    /// What failed; the same batch is tried again by the next step.
    pub async fn step(&mut self) -> Result<()> {
        self.follow().await?;
        if self.pending.is_empty() {
            let placed: Vec<i32> = self.placed.keys().copied().collect();
            self.pending = self.log.take(&placed, self.settings.batch_records_max, BATCH_BYTES_MAX);
        }
        if self.pending.is_empty() {
            self.sweep().await?;
            self.log.wait(self.settings.wait_max).await;
            return Ok(());
        }
        self.relay().await
    }

    /// Gives back what is revoked and places what is new at what the group has committed.
    async fn follow(&mut self) -> Result<()> {
        let owned = self.log.owned();
        self.placed.retain(|partition, term| {
            owned.iter().any(|now| now.partition == *partition && now.term == *term)
        });
        for now in owned {
            if now.revoking {
                self.placed.remove(&now.partition);
                self.log.release(now.partition, now.term);
            } else if !self.placed.contains_key(&now.partition) {
                let (low, _) = self.log.bounds(now.partition).await?;
                let committed = self.log.committed(now.partition).await?;
                let from = committed.map_or(low, |committed| committed.offset);
                if from < low {
                    let doing = "find raw records that are not normalised: the log begins later";
                    return Err(Error::internal(doing));
                }
                self.log.seek(now.partition, from).await?;
                self.placed.insert(now.partition, now.term);
            }
        }
        let placed = &self.placed;
        self.pending.retain(|record| placed.contains_key(&record.partition));
        Ok(())
    }

    async fn relay(&mut self) -> Result<()> {
        let users = self.converter.users(&self.pending);
        let connections =
            if users.is_empty() { Vec::new() } else { self.register.connections(&users).await? };
        let relayed = self.converter.convert(&self.pending, connections, self.clock.now_us());
        self.deliver(&relayed).await?;
        let mut offsets = BTreeMap::new();
        for record in &self.pending {
            offsets.insert(record.partition, record.offset + 1);
            let vendor = self.converter.vendor(record);
            self.metrics.received.with_label_values(&[vendor]).inc();
        }
        let offsets: Vec<(i32, i64)> = offsets.into_iter().collect();
        self.log.commit(&offsets).await?;
        self.pending.clear();
        Ok(())
    }

    /// Notes first, then the records: what is sent has its connection in Postgres.
    async fn deliver(&mut self, relayed: &Relayed) -> Result<()> {
        if !relayed.notes.is_empty() {
            self.register.note(&relayed.notes).await?;
        }
        let sends = relayed.records.iter().map(|record| self.sender.send(record.clone()));
        try_join_all(sends).await?;
        for verdict in &relayed.notes.verdicts {
            self.metrics.verdicts.with_label_values(&["normalise", verdict.verdict]).inc();
        }
        let held = u64::try_from(relayed.notes.held.len()).unwrap_or(0);
        self.metrics.verdicts.with_label_values(&["normalise", "held"]).inc_by(held);
        Ok(())
    }

    /// Held items whose vendor user has a connection by now are put through again.
    async fn sweep(&mut self) -> Result<()> {
        let Some(every) = self.settings.sweep_every else { return Ok(()) };
        if self.clock.elapsed() < self.swept_at + every {
            return Ok(());
        }
        self.swept_at = self.clock.elapsed();
        let held = self.register.connected(SWEPT_MAX).await?;
        let mut by_record: BTreeMap<Coordinates, Vec<Held>> = BTreeMap::new();
        for item in held {
            let at = Coordinates {
                topic: item.source.topic,
                partition: item.source.partition,
                offset: item.source.offset,
            };
            by_record.entry(at).or_default().push(item);
        }
        for (at, items) in by_record {
            let relayed = match self.reader.read(at).await? {
                Some(record) => {
                    let indexes: Vec<i32> = items.iter().map(|item| item.source.index).collect();
                    let users: Vec<_> = items
                        .iter()
                        .map(|item| (item.vendor.clone(), item.vendor_user.clone()))
                        .collect();
                    let connections = self.register.connections(&users).await?;
                    let now = self.clock.now_us();
                    self.converter.again(&record, &indexes, connections, now)
                }
                None => gone(&items),
            };
            self.deliver(&relayed).await?;
            self.register.put_through(&items).await?;
            self.metrics.swept.inc_by(u64::try_from(items.len()).unwrap_or(0));
        }
        Ok(())
    }
}

/// The raw record is not in the log any more: its items end here, and say so.
fn gone(items: &[Held]) -> Relayed {
    let verdicts = items.iter().map(|item| RawVerdict {
        source: item.source,
        verdict: "ignored",
        reason: "no longer in the log",
    });
    let notes = Notes { verdicts: verdicts.collect(), ..Notes::default() };
    Relayed { notes, records: Vec::new() }
}
