//! Normalise's loop: one member of the group, at least once.
//!
//! A batch is taken from all partitions that are owned; the connections that it names are read once; what it becomes
//! is worked out purely; notes are written, then records sent and acknowledged, then offsets committed. No step is
//! left out and none is taken back: whatever fails, the same batch is tried again after a pause, and what was done
//! twice is recognised by those who read it. So it needs no transaction and no fence, and a late zombie is harmless.
//! For the same reason not every small batch pays for a commit: offsets are committed a few times a second, before
//! any wait, and before a partition is given back.
//!
//! # The sweep
//! An item whose vendor user nobody knew is held. Whoever makes the connection cannot look for held items: one may be
//! held between that look and the commit. So every few seconds the loop looks for held items that have a connection
//! by now, reads their raw records by coordinates, and puts those items through again.
//!
//! # What is never done
//! An offset that the log does not reach any more is not passed over: the relay stops and says so, because somebody
//! must know that raw records are gone before normalise saw them.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{self, Either};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::stop::Stop;
use super::tally::{self, Standing, Tally};
use super::traced::{self, Traced};
use super::{Clock, Converter, Log, Owned, Reader, Register, Relayed, Sender};
use crate::error::{Disposition, Error, Kind, Result};
use crate::model::contract::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Topic, header};
use crate::model::id::Source;
use crate::model::record::{OutRecord, Record};
use crate::model::state::{Coordinates, Held, Notes, RawVerdict, Whose};
use crate::telemetry::metrics::Metrics;

/// The stage's name on metrics.
const STAGE: &str = "normalise";

/// How a relay behaves in time, and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The most records of a batch.
    pub batch_records_max: usize,
    /// The most bytes of a batch; a larger record is a batch of its own.
    pub batch_bytes_max: usize,
    /// How long offsets of what is acknowledged may wait for their commit while more arrives.
    pub commit_every: Duration,
    /// The most records that wait for their acknowledgement at once; with 1 they go one after another.
    pub sends_max: usize,
    /// How long one wait for records lasts at most; a stop is seen after it.
    pub wait_max: Duration,
    /// The first pause after a failure; it doubles up to [`Settings::pause_max`].
    pub pause: Duration,
    /// The longest pause after a failure; below the 5 s that a revoke waits.
    pub pause_max: Duration,
    /// How often held items are looked for; absent where another worker does it.
    pub sweep_every: Option<Duration>,
    /// The most held items of one sweep.
    pub sweep_items_max: usize,
    /// How often the lag is measured.
    pub lag_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_records_max: BATCH_RECORDS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            commit_every: Duration::from_millis(100),
            sends_max: 256,
            wait_max: Duration::from_millis(200),
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(2),
            sweep_every: Some(Duration::from_secs(10)),
            sweep_items_max: 500,
            lag_every: Duration::from_secs(1),
        }
    }
}

/// A partition that is read.
#[derive(Clone, Copy, Debug)]
struct Task {
    term: u64,
    /// The first offset that is not done.
    next: i64,
}

/// One worker of normalise. It owns its ports; nothing else may use them.
pub struct Relay<L, S, R, Rd, K, V> {
    log: L,
    sender: S,
    register: R,
    reader: Rd,
    clock: K,
    converter: V,
    settings: Settings,
    metrics: Metrics,
    tasks: BTreeMap<i32, Task>,
    /// Taken and not done: the same batch again.
    pending: Vec<Record>,
    /// Done and not committed: the next offset of each partition.
    uncommitted: BTreeMap<i32, i64>,
    committed_at: Duration,
    /// Failures in a row.
    failures: u32,
    swept_at: Duration,
    measured_at: Duration,
    /// Not before then a partition that could not be begun is tried again.
    begin_at: Duration,
    tally: Tally,
    traced: Traced,
}

impl<L: Log, S: Sender, R: Register, Rd: Reader, K: Clock, V: Converter> Relay<L, S, R, Rd, K, V> {
    /// A relay that reads nothing yet.
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
        let now = clock.elapsed();
        let tally = Tally::new(&metrics, STAGE);
        let traced = Traced::new(metrics.tracer.clone(), traced::NORMALISE);
        Self {
            log,
            sender,
            register,
            reader,
            clock,
            converter,
            settings,
            metrics,
            tasks: BTreeMap::new(),
            pending: Vec::new(),
            uncommitted: BTreeMap::new(),
            committed_at: now,
            failures: 0,
            swept_at: now,
            measured_at: now,
            begin_at: now,
            tally,
            traced,
        }
    }

    /// Runs until it is asked to stop, then gives everything back.
    ///
    /// # Errors
    /// What no repetition mends: an offset that the log does not reach, a schema that is not ours.
    pub async fn run(&mut self, stop: &Stop) -> Result<()> {
        let mut done = Ok(());
        while done.is_ok() && !stop.is_set() {
            done = self.step().await;
        }
        if let Err(error) = self.commit().await {
            self.failed(&error); // what is not committed comes again, and is recognised
        }
        for owned in self.log.owned() {
            self.log.release(owned.partition, owned.term);
        }
        self.tasks.clear();
        self.uncommitted.clear();
        self.pending.clear();
        self.tally.shows(Standing::default(), 0);
        done
    }

    /// One step: what is revoked is given back, what is new begun, then one batch, or one wait; and the sweep where it
    /// is due. A failure of the world is a pause and leaves everything as it was.
    ///
    /// # Errors
    /// As [`Relay::run`].
    pub async fn step(&mut self) -> Result<()> {
        if self.log.owned().iter().any(|owned| owned.revoking)
            && let Err(error) = self.commit().await
        {
            self.failed(&error); // nobody waits for it: what is not committed comes again
        }
        self.follow();
        self.begin_all().await?;
        let done = self.work().await;
        match done {
            Ok(()) => {
                self.failures = 0;
                Ok(())
            }
            Err(error) if error.kind.disposition() == Disposition::Stop => {
                self.failed(&error);
                Err(error)
            }
            Err(error) => {
                self.failed(&error);
                self.pause().await;
                Ok(())
            }
        }
    }

    async fn work(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            self.take();
        }
        let idle = self.pending.is_empty();
        if !idle {
            self.batch().await?;
        }
        let now = self.clock.elapsed();
        if idle || now.saturating_sub(self.committed_at) >= self.settings.commit_every {
            self.commit().await?;
        }
        if let Some(every) = self.settings.sweep_every
            && now.saturating_sub(self.swept_at) >= every
        {
            // Before the sweep: one that fails waits for its next turn and holds no batch up.
            self.swept_at = now;
            self.sweep().await?;
        }
        if now.saturating_sub(self.measured_at) >= self.settings.lag_every {
            self.measured_at = now;
            self.measure();
        }
        if idle {
            self.log.wait(self.settings.wait_max).await;
        }
        Ok(())
    }

    fn failed(&self, error: &Error) {
        self.metrics.errors.at([error.kind.name()]).inc();
        tracing::warn!(kind = error.kind.name(), doing = error.doing, code = %error.code, "pausing");
    }

    async fn pause(&mut self) {
        let doubled = self.settings.pause.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.clock.sleep(doubled.min(self.settings.pause_max)).await;
    }

    // ── what is owned ──────────────────────────────────────────────────────────────────────────────────────

    /// Lets go of what is gone or asked back. Nothing has to be waited for: what is still on its way may arrive
    /// twice, and offsets of a partition that is not ours any more are not committed.
    fn follow(&mut self) {
        let owned = give_back(&mut self.log);
        self.tally.owns(&owned);
        self.tasks.retain(|partition, task| {
            owned.iter().any(|now| now.partition == *partition && now.term == task.term)
        });
        let tasks = &self.tasks;
        self.pending.retain(|record| tasks.contains_key(&record.partition));
        self.uncommitted.retain(|partition, _| tasks.contains_key(partition));
    }

    /// Begins to read what is owned and not read yet. A partition that cannot be begun now is tried again after a
    /// pause and holds no other up.
    async fn begin_all(&mut self) -> Result<()> {
        let now = self.clock.elapsed();
        if now < self.begin_at {
            return Ok(());
        }
        for owned in self.log.owned() {
            if owned.revoking || self.tasks.contains_key(&owned.partition) {
                continue;
            }
            match self.begin(owned).await {
                Ok(()) => {}
                Err(error) => {
                    self.failed(&error);
                    if error.kind.disposition() == Disposition::Stop {
                        return Err(error);
                    }
                    self.begin_at = now.saturating_add(self.settings.pause_max);
                }
            }
        }
        Ok(())
    }

    /// Begins to read a partition where the group left it.
    async fn begin(&mut self, owned: Owned) -> Result<()> {
        let partition = owned.partition;
        let committed = self.log.committed(partition).await?;
        let (first, end) = self.log.bounds(partition).await?;
        let next = committed.map_or(first, |committed| committed.offset);
        if !(first..=end).contains(&next) {
            let code = format!("{}/{partition}: {next} is not in {first}..{end}", self.log.topic());
            let doing = "read on where the group left a raw topic";
            return Err(Error::new(Kind::InternalError, doing, code));
        }
        self.log.seek(partition, next).await?;
        self.tasks.insert(partition, Task { term: owned.term, next });
        Ok(())
    }

    // ── a batch ────────────────────────────────────────────────────────────────────────────────────────────

    fn take(&mut self) {
        let partitions: Vec<i32> = self.tasks.keys().copied().collect();
        if partitions.is_empty() {
            return;
        }
        let (records_max, bytes_max) =
            (self.settings.batch_records_max, self.settings.batch_bytes_max);
        let records = self.log.take(&partitions, records_max, bytes_max);
        let mut received: BTreeMap<&'static str, u64> = BTreeMap::new();
        for record in &records {
            *received.entry(self.converter.vendor(record)).or_default() += 1;
        }
        for (vendor, records) in received {
            self.metrics.received.at([vendor]).inc_by(records);
        }
        self.pending = records;
    }

    /// Does the pending batch.
    async fn batch(&mut self) -> Result<()> {
        self.traced.begin(&self.pending, &self.clock);
        let begun = self.clock.elapsed();
        let (named, read) = self.converter.read(&self.pending);
        let read_at = self.clock.elapsed();
        let connections = if named == Whose::default() {
            Vec::new()
        } else {
            self.register.connections(&named).await?
        };
        let looked_up = self.time("connections", read_at);
        let now_us = self.clock.now_us();
        let made = self.converter.convert(&self.pending, read, connections, now_us);
        // To read what the records say is a part of it.
        self.time("convert", looked_up.saturating_sub(read_at.saturating_sub(begun)));
        self.put(made).await?;
        self.metrics.batch_records.at([STAGE]).observe(tally::size(self.pending.len()));
        self.follow();
        for record in std::mem::take(&mut self.pending) {
            let next = record.offset.saturating_add(1);
            self.uncommitted.insert(record.partition, next);
            if let Some(task) = self.tasks.get_mut(&record.partition) {
                task.next = next;
            }
        }
        self.traced.end(&self.clock, None);
        Ok(())
    }

    /// Commits the offsets of what is done and still ours; what cannot be committed now is with the next.
    async fn commit(&mut self) -> Result<()> {
        self.committed_at = self.clock.elapsed();
        let owned = self.log.owned();
        let tasks = &self.tasks;
        self.uncommitted.retain(|partition, _| {
            let term = tasks.get(partition).map(|task| task.term);
            owned.iter().any(|now| now.partition == *partition && Some(now.term) == term)
        });
        if self.uncommitted.is_empty() {
            return Ok(());
        }
        let offsets: Vec<(i32, i64)> = self.uncommitted.clone().into_iter().collect();
        self.log.commit(&offsets).await?;
        let took = self.clock.elapsed().saturating_sub(self.committed_at);
        self.metrics.batch_seconds.at(["commit"]).observe(took.as_secs_f64());
        self.uncommitted.clear();
        Ok(())
    }

    /// Counts how long a part of a batch took that began then; gives when it ended.
    fn time(&mut self, part: &'static str, begun: Duration) -> Duration {
        let ended = self.clock.elapsed();
        self.traced.part(part, begun, ended);
        self.metrics.batch_seconds.at([part]).observe(ended.saturating_sub(begun).as_secs_f64());
        ended
    }

    /// Writes the notes, then sends the records and waits until all are acknowledged.
    async fn put(&mut self, made: Relayed) -> Result<()> {
        if !made.notes.is_empty() {
            let begun = self.clock.elapsed();
            self.register.note(&made.notes).await?;
            self.time("note", begun);
        }
        let counted = Counts::of(&made);
        let begun = self.clock.elapsed();
        self.send(made.records).await?;
        self.time("send", begun);
        counted.show(&self.metrics);
        Ok(())
    }

    async fn send(&mut self, records: Vec<OutRecord>) -> Result<()> {
        let Self { log, sender, clock, settings, .. } = self;
        if settings.sends_max <= 1 {
            for record in records {
                sender.send(record).await?;
            }
            return Ok(());
        }
        let sends = stream::iter(records.into_iter().map(|record| sender.send(record)))
            .buffered(settings.sends_max)
            .try_for_each(|_| future::ok(()));
        let mut sends = pin!(sends);
        loop {
            // Brokers that are away must not keep a partition from one who may reach them.
            match future::select(&mut sends, pin!(clock.sleep(settings.wait_max))).await {
                Either::Left((done, _)) => return done,
                Either::Right(_) => {
                    give_back(log);
                }
            }
        }
    }

    // ── held items ─────────────────────────────────────────────────────────────────────────────────────────

    /// Puts held items through whose vendor user has a connection by now.
    async fn sweep(&mut self) -> Result<()> {
        let held = self.register.connected(self.settings.sweep_items_max).await?;
        if held.is_empty() {
            return Ok(());
        }
        let vendor_users =
            held.iter().map(|item| (item.vendor.clone(), item.vendor_user.clone())).collect();
        let named = Whose { vendor_users, ..Whose::default() };
        let connections = self.register.connections(&named).await?;
        let mut by_record: BTreeMap<Coordinates, Vec<Held>> = BTreeMap::new();
        for item in held {
            let Source { topic, partition, offset, .. } = item.source;
            by_record.entry(Coordinates { topic, partition, offset }).or_default().push(item);
        }
        for (at, items) in by_record {
            let made = match self.reader.read(at).await? {
                Some(record) => {
                    let indexes: Vec<i32> = items.iter().map(|item| item.source.index).collect();
                    let now_us = self.clock.now_us();
                    self.converter.again(&record, &indexes, connections.clone(), now_us)
                }
                None => gone(&items),
            };
            // What is held once more stays where it is: taking it away would lose it.
            let again: BTreeSet<Source> = made.notes.held.iter().map(|item| item.source).collect();
            let through: Vec<Held> =
                items.into_iter().filter(|item| !again.contains(&item.source)).collect();
            self.put(made).await?;
            if !through.is_empty() {
                self.register.put_through(&through).await?;
                self.metrics.swept.inc_by(u64::try_from(through.len()).unwrap_or(u64::MAX));
            }
            self.follow();
        }
        Ok(())
    }

    // ── lag ────────────────────────────────────────────────────────────────────────────────────────────────

    fn measure(&mut self) {
        let behind = |(partition, task): (&i32, &Task)| {
            let end = self.log.end(*partition)?;
            Some(end.saturating_sub(task.next).max(0))
        };
        let waiting = self.tasks.keys().filter_map(|partition| self.log.oldest_ms(*partition));
        let now = Standing {
            lag: self.tasks.iter().filter_map(behind).sum(),
            oldest_ms: tally::oldest_ms(&self.pending, waiting),
            states: [i64::try_from(self.tasks.len()).unwrap_or(i64::MAX), 0, 0],
        };
        self.tally.shows(now, self.clock.now_us() / 1_000);
    }
}

/// Gives back what is asked for; what stays is given.
fn give_back(log: &mut impl Log) -> Vec<Owned> {
    let (revoking, owned): (Vec<Owned>, Vec<Owned>) =
        log.owned().into_iter().partition(|now| now.revoking);
    for now in revoking {
        log.release(now.partition, now.term);
    }
    owned
}

/// Held items whose raw record retention has taken.
fn gone(items: &[Held]) -> Relayed {
    let verdict = |item: &Held| RawVerdict {
        source: item.source,
        verdict: "ignored",
        reason: "no longer in the log",
    };
    let notes = Notes { verdicts: items.iter().map(verdict).collect(), ..Notes::default() };
    Relayed { notes, records: Vec::new() }
}

/// What a batch became, for metrics; counted once it stands.
struct Counts {
    verdicts: BTreeMap<&'static str, u64>,
    errors: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn of(made: &Relayed) -> Self {
        let mut counts = Self { verdicts: BTreeMap::new(), errors: BTreeMap::new() };
        let mut count = |name, by: usize| {
            *counts.verdicts.entry(name).or_default() += u64::try_from(by).unwrap_or(u64::MAX);
        };
        for record in &made.records {
            if record.topic == Topic::NormalisedRecords {
                count("normalised", 1);
            }
        }
        count("held", made.notes.held.len());
        count("to_fetch", made.notes.hydrations.len());
        count("left_out", made.notes.left_out);
        for row in &made.notes.verdicts {
            count(row.verdict, 1);
        }
        for record in made.records.iter().filter(|record| record.topic == Topic::DeadLetters) {
            let kind = record.headers.text(header::ERROR_TYPE).and_then(Kind::parse);
            *counts.errors.entry(kind.unwrap_or(Kind::InternalError).name()).or_default() += 1;
        }
        counts
    }

    fn show(self, metrics: &Metrics) {
        for (name, by) in self.verdicts.into_iter().filter(|(_, by)| *by > 0) {
            metrics.verdicts.at([STAGE, name]).inc_by(by);
        }
        for (kind, by) in self.errors {
            metrics.failures.at([STAGE, kind]).inc_by(by);
            metrics.errors.at([kind]).inc_by(by);
        }
    }
}

#[cfg(test)]
mod tests;
