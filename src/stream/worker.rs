//! Decide's loop: one member of the group, its partitions, and the protocol that makes each record count once.
//!
//! # The protocol, in the order of this file
//! Postgres decides once, Kafka repeats what Postgres decided. An attempt takes the group metadata once, before it
//! reads anything, and checks after it that the partition is not revoked: metadata taken later belongs to a future
//! in which somebody else may own the partition. A batch is loaded together with the progress rows, decided purely,
//! and applied in one Postgres transaction that moves `applied` on under the task's fence and leaves the outputs in
//! the outbox; then one Kafka transaction sends the outbox and the offsets. The next batch of a partition begins
//! only when Kafka has answered for this one, so one outbox row is enough. What does not end well is recovered:
//! the fence is taken anew (which waits for, or disables, whatever was in doubt), the committed offset is read, and
//! [`super::recover`] says what is open (`worker/reclaim.rs`).
//!
//! Nothing runs beside the loop: while a step is under way no revoke returns, because [`Log::release`] is called
//! only between steps. That is what keeps a member of a KIP-848 group, whose epoch need not change when it loses
//! a partition, from committing under another's eyes.

mod reclaim;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use futures_util::future::join;

use super::batch::Batch;
use super::commit::{Ending, Transaction, transact};
use super::planted::Bug;
use super::recover::MARK;
use super::stop::Stop;
use super::tally::{self, Standing, Tally};
use super::task::{Cause, Event, Position, State, Task, Why};
use super::traced::{self, Traced};
use super::{Advance, Applied, Cache, Clock, Log, Metadata, Processor, Publisher, Store};
use crate::error::{Error, Result};
use crate::model::contract::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::model::outbox::Output;
use crate::model::record::OutRecord;
use crate::model::state::{Hole, Outcome, Shown};
use crate::telemetry::metrics::Metrics;

/// How a worker behaves in time. The bounds of a batch are the protocol's; smaller ones are for tests.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The most records of a batch.
    pub batch_records_max: usize,
    /// The most bytes of a batch.
    pub batch_bytes_max: usize,
    /// How long one wait for records lasts at most; a stop is seen after it.
    pub wait_max: Duration,
    /// How often the rows of partitions are looked at when nothing arrives (§1.6).
    pub look_every: Duration,
    /// How long a commit that may be repeated is repeated; below the transaction's time-out.
    pub commit_deadline: Duration,
    /// The pause after a failure of the world.
    pub pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_records_max: BATCH_RECORDS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            wait_max: Duration::from_millis(200),
            look_every: Duration::from_secs(30),
            commit_deadline: Duration::from_millis(4500),
            pause: Duration::from_millis(100),
        }
    }
}

/// Tries of one record before it is given up untried (§1.7).
const TRIES_MAX: i32 = 3;
/// Starts without progress from which on a task is careful (§1.7).
const STARTS_CAREFUL: i32 = 2;

/// How often the lag is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// One worker of decide. It owns its ports; nothing else may use them.
pub struct Worker<L, P, S, C, K, D> {
    log: L,
    publisher: P,
    store: S,
    cache: C,
    clock: K,
    processor: D,
    settings: Settings,
    metrics: Metrics,
    tasks: BTreeMap<i32, Task>,
    /// Taken and not applied: the same batch again.
    pending: Batch,
    /// Metadata that the broker refused.
    refused: Option<Metadata>,
    looked_at: Duration,
    measured_at: Duration,
    tally: Tally,
    traced: Traced,
    /// What was applied when it was measured last: the lag of a partition that stands still grows too.
    applied: BTreeMap<i32, i64>,
    /// From which partition on the next recovery is looked for.
    next_recovery: i32,
    /// Asked to end: whatever waits, ends.
    stop: Stop,
    /// Whose turn it is: a careful partition's, or the others'.
    careful_turn: bool,
    /// What is committed and the cache does not show yet.
    unshown: Vec<Shown>,
    /// Only in a planted bug: outputs of a batch that Kafka was not asked about yet.
    early: Vec<Output>,
}

impl<L: Log, P: Publisher, S: Store, C: Cache, K: Clock, D: Processor> Worker<L, P, S, C, K, D> {
    /// A worker that owns nothing yet.
    #[expect(clippy::too_many_arguments, reason = "one port each, named once, in one place")]
    pub fn new(
        log: L,
        publisher: P,
        store: S,
        cache: C,
        clock: K,
        processor: D,
        settings: Settings,
        metrics: Metrics,
    ) -> Self {
        let looked_at = clock.elapsed();
        let tally = Tally::new(&metrics, "decide");
        let traced = Traced::new(metrics.tracer.clone(), traced::DECIDE);
        Self {
            log,
            publisher,
            store,
            cache,
            clock,
            processor,
            settings,
            metrics,
            tasks: BTreeMap::new(),
            pending: Batch::default(),
            refused: None,
            looked_at,
            measured_at: looked_at,
            tally,
            traced,
            applied: BTreeMap::new(),
            next_recovery: i32::MIN,
            stop: Stop::default(),
            careful_turn: false,
            unshown: Vec::new(),
            early: Vec::new(),
        }
    }

    /// Runs until it is asked to stop, then gives everything back cleanly.
    pub async fn run(&mut self, stop: &Stop) {
        self.stop = stop.clone();
        while !stop.is_set() {
            self.step().await;
        }
        self.show().await;
        for owned in self.log.owned() {
            self.give_back(owned.partition, owned.term).await;
        }
        self.publisher.drop_producer().await;
    }

    /// One step: what is revoked is given back, then one recovery, or one batch, or one wait.
    pub async fn step(&mut self) {
        self.follow().await;
        if self.store.reconnected() {
            self.disturb_all(Cause::Reconnected);
        }
        // In turn, and a batch of the ready ones after each round: a partition that cannot recover holds nobody up.
        let recovering = self
            .tasks
            .range(self.next_recovery..)
            .find(|(_, task)| matches!(task.state, State::Recovering(_)))
            .map(|(partition, task)| (*partition, *task));
        if let Some((partition, task)) = recovering {
            self.next_recovery = partition.saturating_add(1);
            return self.recover(partition, task).await;
        }
        self.next_recovery = i32::MIN;
        self.look().await;
        self.measure();
        let batch = self.take();
        if !batch.is_empty() {
            return self.batch(batch).await;
        }
        let is_recovering = |task: &Task| matches!(task.state, State::Recovering(_));
        if !self.tasks.values().any(is_recovering) {
            self.show().await;
            self.log.wait(self.settings.wait_max).await;
        }
    }

    // ── what is owned ──────────────────────────────────────────────────────────────────────────────────────

    /// Makes the tasks what the group says: gone ones dropped, revoked ones given back, new ones to recover.
    async fn follow(&mut self) {
        let owned = self.log.owned();
        self.tally.owns(&owned);
        self.tasks.retain(|partition, task| {
            owned.iter().any(|now| now.partition == *partition && now.term == task.term)
        });
        for now in owned {
            if now.revoking {
                self.give_back(now.partition, now.term).await;
            } else if let Entry::Vacant(place) = self.tasks.entry(now.partition) {
                self.metrics.recoveries.at([Cause::Assigned.name()]).inc();
                place.insert(Task::new(now.term));
            }
        }
        let tasks = &self.tasks;
        self.pending.retain(|record| {
            tasks
                .get(&record.partition)
                .and_then(Task::ready)
                .is_some_and(|at| record.offset >= at.applied)
        });
    }

    /// A clean end of a partition: nothing of it is under way.
    async fn give_back(&mut self, partition: i32, term: u64) {
        if let Some(at) = self.tasks.remove(&partition).as_ref().and_then(Task::ready) {
            self.store.release(self.log.topic(), partition, at.fence, at.applied).await;
        }
        self.log.release(partition, term);
    }

    /// Whether every one of these is still this worker's, and nobody asks for it back.
    fn holds(&self, partitions: impl IntoIterator<Item = i32>) -> bool {
        let owned = self.log.owned();
        partitions.into_iter().all(|partition| {
            let term = self.tasks.get(&partition).map(|task| task.term);
            owned
                .iter()
                .any(|now| now.partition == partition && Some(now.term) == term && !now.revoking)
        })
    }

    fn on(&mut self, partition: i32, event: Event) {
        let Some(task) = self.tasks.get_mut(&partition) else { return };
        match task.state.on(event) {
            Ok(state) => {
                if let State::Recovering(cause) = state {
                    self.metrics.recoveries.at([cause.name()]).inc();
                }
                if let State::Stopped(why) = state {
                    self.metrics.errors.at(["internal_error"]).inc();
                    tracing::error!(partition, why = why.text(), "a partition is stopped");
                }
                task.state = state;
            }
            Err(illegal) => {
                debug_assert!(false, "{illegal:?}: {:?} on {event:?}", task.state);
                tracing::error!(partition, "a move that is not in the table");
            }
        }
    }

    fn disturb_all(&mut self, cause: Cause) {
        let partitions: Vec<i32> = self.tasks.keys().copied().collect();
        self.disturb(&partitions, cause);
    }

    fn disturb(&mut self, partitions: &[i32], cause: Cause) {
        for partition in partitions {
            let stopped = self
                .tasks
                .get(partition)
                .is_some_and(|task| matches!(task.state, State::Stopped(_)));
            if !stopped {
                self.on(*partition, Event::Disturbed(cause));
            }
        }
    }

    fn failed(&self, error: &Error) {
        self.metrics.errors.at([error.kind.name()]).inc();
        tracing::warn!(kind = error.kind.name(), doing = error.doing, code = %error.code, "pausing");
    }

    async fn pause(&self) {
        self.clock.sleep(self.settings.pause).await;
    }

    // ── capture (§1.1) ─────────────────────────────────────────────────────────────────────────────────────

    /// The group metadata of an attempt on these partitions: a member's, not refused, and taken before the
    /// check that nothing is revoked. Absent: wait for news, send nothing.
    fn capture(&self, partitions: impl IntoIterator<Item = i32>) -> Option<Metadata> {
        let metadata = self.log.metadata();
        let good = metadata.is_member() || Bug::MetadataOfNoMember.alive();
        let refused = self.refused.as_ref().is_some_and(|refused| refused.same(&metadata));
        (good && !refused && self.holds(partitions)).then_some(metadata)
    }

    /// Drops the producer at once: a request of it that is still on its way must not meet another transaction,
    /// and a revoke may return only when nothing can follow.
    async fn drop_producer(&mut self) {
        self.metrics.producers.inc();
        self.publisher.drop_producer().await;
    }

    // ── a batch (§1.3) ─────────────────────────────────────────────────────────────────────────────────────

    /// What is pending, else what has arrived: of one careful partition one record, or of all others a batch.
    fn take(&mut self) -> Batch {
        if !self.pending.is_empty() {
            return std::mem::take(&mut self.pending);
        }
        self.drop_stopped();
        let ready = |careful: bool| -> Vec<i32> {
            let of_kind =
                |(_, task): &(&i32, &Task)| task.ready().is_some() && task.is_careful() == careful;
            self.tasks.iter().filter(of_kind).map(|(partition, _)| *partition).collect()
        };
        let (careful, others) = (ready(true), ready(false));
        self.careful_turn = !self.careful_turn;
        let mut records = Vec::new();
        for one_by_one in [self.careful_turn, !self.careful_turn] {
            if !records.is_empty() {
                break;
            }
            let (records_max, bytes_max) = if one_by_one {
                (1, 1)
            } else {
                (self.settings.batch_records_max, self.settings.batch_bytes_max)
            };
            let from = if one_by_one { &careful } else { &others };
            if !from.is_empty() {
                records = self.log.take(from, records_max, bytes_max);
            }
        }
        let mut batch = Batch::new(records);
        if !Bug::SeenWithoutOwner.alive() {
            batch.retain(|record| {
                self.tasks
                    .get(&record.partition)
                    .and_then(Task::ready)
                    .is_some_and(|at| record.offset >= at.applied)
            });
        }
        batch
    }

    /// What waits of a partition that is stopped must not fill the queue of the others; its next task reads it again.
    fn drop_stopped(&mut self) {
        let is_stopped = |task: &Task| matches!(task.state, State::Stopped(_));
        let stopped: Vec<i32> = self
            .tasks
            .iter()
            .filter_map(|(partition, task)| is_stopped(task).then_some(*partition))
            .collect();
        if !stopped.is_empty() {
            let Settings { batch_records_max, batch_bytes_max, .. } = self.settings;
            drop(self.log.take(&stopped, batch_records_max, batch_bytes_max));
        }
    }

    async fn batch(&mut self, batch: Batch) {
        self.traced.begin(batch.records(), &self.clock);
        let partitions: Vec<i32> = batch.spans().into_keys().collect();
        if let Err(error) = self.publisher.open().await {
            self.failed(&error);
            self.pending = batch;
            return self.pause().await;
        }
        let Some(metadata) = self.capture(partitions.iter().copied()) else {
            self.pending = batch;
            return self.log.wait(self.settings.pause).await;
        };
        let mut again = false;
        loop {
            let outcome = match self.decide(&batch, &partitions).await {
                Decided::Outcome(outcome) => *outcome,
                Decided::Pause => {
                    self.pending = batch;
                    return self.pause().await;
                }
                Decided::Recover => return,
            };
            match self.apply(&batch, &outcome).await {
                Applied::Committed => return self.send(&batch, outcome, &metadata).await,
                Applied::NotOurs if Bug::StopInsteadOfRecover.alive() => {
                    for partition in partitions {
                        self.on(partition, Event::Halted(Why::NotOurs));
                    }
                    return;
                }
                Applied::NotOurs => return self.disturb(&partitions, Cause::NotOurs),
                Applied::Conflict if again => {
                    for partition in partitions {
                        self.on(partition, Event::Halted(Why::SecondWriter));
                    }
                    return;
                }
                Applied::Conflict => again = true,
                Applied::Again(error) => {
                    self.failed(&error);
                    self.pending = batch;
                    return self.pause().await;
                }
                Applied::Unknown(_) if Bug::LostAnswerIsCommit.alive() => {
                    return self.send(&batch, outcome, &metadata).await;
                }
                Applied::Unknown(error) => {
                    self.failed(&error);
                    return self.disturb(&partitions, Cause::LostAnswer);
                }
            }
        }
    }

    /// Load, check, decide.
    async fn decide(&mut self, batch: &Batch, partitions: &[i32]) -> Decided {
        let topic = self.log.topic();
        let started = self.clock.elapsed();
        let untried = match self.count_try(batch, partitions).await {
            Ok(is_given_up) => is_given_up
                .then(|| batch.records().first())
                .flatten()
                .map(|record| self.processor.give_up(record)),
            Err(decided) => return decided,
        };
        let (plan, read) = match untried {
            Some(_) => Default::default(), // what is given up is not looked at either
            None => self.processor.plan(batch.records()),
        };
        let unshown = std::mem::take(&mut self.unshown);
        let Self { store, cache, clock, .. } = self;
        let load = async { (store.load(topic, partitions, &plan).await, clock.elapsed()) };
        let ((load, loaded), shown) = join(load, cache.show(&unshown)).await;
        self.time("load", started, loaded);
        if !unshown.is_empty() {
            self.shown(started, shown).await;
        }
        let (progress, known) = match load {
            Ok(loaded) => loaded,
            Err(error) => {
                self.failed(&error);
                return Decided::Pause;
            }
        };
        let ours = partitions.iter().all(|partition| {
            let at = self.tasks.get(partition).and_then(Task::ready);
            progress.iter().any(|row| {
                row.partition == *partition
                    && at.is_some_and(|at| at.fence == row.fence && at.applied == row.applied)
            })
        });
        if !ours && !Bug::LoadNotChecked.alive() {
            self.disturb(partitions, Cause::NotOurs);
            return Decided::Recover;
        }
        let loaded = self.clock.elapsed();
        let decided = match untried {
            Some(outcome) => Ok(outcome),
            None => self.processor.decide(batch.records(), read, known),
        };
        self.time("decide", loaded, self.clock.elapsed());
        match decided {
            Ok(mut outcome) => {
                self.plant_clock(&mut outcome);
                Decided::Outcome(Box::new(outcome))
            }
            Err(error) => {
                self.failed(&error);
                for partition in partitions {
                    if let Some(task) = self.tasks.get_mut(partition) {
                        task.tried = None;
                    }
                }
                self.disturb(partitions, Cause::Internal);
                self.pause().await;
                Decided::Recover
            }
        }
    }

    /// Counts the try of a careful task's record, once an attempt to live through it; gives whether it is given up.
    async fn count_try(&mut self, batch: &Batch, partitions: &[i32]) -> Result<bool, Decided> {
        let (Some(record), [partition]) = (batch.records().first(), partitions) else {
            return Ok(false);
        };
        let careful = self.tasks.get(partition).copied().filter(Task::is_careful);
        let Some((task, at)) = careful.and_then(|task| Some((task, task.ready()?))) else {
            return Ok(false);
        };
        if let Some((_, tries)) = task.tried.filter(|(offset, _)| *offset == record.offset) {
            return Ok(tries > TRIES_MAX);
        }
        let topic = self.log.topic();
        match self.store.count_try(topic, *partition, at.fence, at.applied).await {
            Ok(Some(tries)) => {
                if let Some(task) = self.tasks.get_mut(partition) {
                    task.tried = Some((record.offset, tries));
                }
                Ok(tries > TRIES_MAX)
            }
            Ok(None) => {
                self.disturb(partitions, Cause::NotOurs);
                Err(Decided::Recover)
            }
            Err(error) => {
                self.failed(&error);
                Err(Decided::Pause)
            }
        }
    }

    fn plant_clock(&self, outcome: &mut Outcome) {
        if Bug::ClockInBytes.alive() {
            for output in outcome.outbox.values_mut().flatten() {
                let now = format!("{:?}", self.clock.elapsed());
                output.record.headers.push("published_at", now);
            }
        }
    }

    /// The Postgres transaction.
    async fn apply(&mut self, batch: &Batch, outcome: &Outcome) -> Applied {
        let started = self.clock.elapsed();
        let mut advances = Vec::new();
        for (partition, (first, last)) in batch.spans() {
            let Some(at) = self.tasks.get(&partition).and_then(Task::ready) else {
                return Applied::NotOurs;
            };
            let applied = if Bug::CompareFirstOffset.alive() { first } else { at.applied };
            let next = at.applied.max(last + 1);
            let (fence, published) = (at.fence, at.out);
            advances.push(Advance { partition, fence, applied, next, published });
        }
        let applied = self.store.apply(self.log.topic(), &advances, outcome).await;
        self.time("postgres", started, self.clock.elapsed());
        applied
    }

    /// Postgres has it: the Kafka transaction, then the cache.
    async fn send(&mut self, batch: &Batch, mut outcome: Outcome, metadata: &Metadata) {
        let spans = batch.spans();
        let mut outputs = Vec::new();
        let mut offsets = Vec::new();
        for (partition, (_, last)) in &spans {
            let Some(at) = self.tasks.get(partition).and_then(Task::ready) else { continue };
            let next = at.applied.max(last + 1);
            if next > at.applied {
                self.on(*partition, Event::Applied(next));
            }
            let mut of_partition = outcome.outbox.remove(partition).unwrap_or_default();
            of_partition.retain(|output| output.cause >= at.out);
            self.traced.sends(*partition, &of_partition);
            outputs.append(&mut of_partition);
            if next > at.out {
                offsets.push((*partition, next, format!("{MARK}{}", at.fence)));
            }
        }
        if Bug::NextBatchEarly.alive() && self.early.is_empty() && !outputs.is_empty() {
            self.early = outputs;
            return self.sent(&spans.into_keys().collect::<Vec<_>>());
        }
        self.early.append(&mut outputs);
        let records: Vec<OutRecord> = self.early.drain(..).map(|output| output.record).collect();
        let partitions: Vec<i32> = spans.into_keys().collect();
        let nothing_to_say = records.is_empty() && offsets.is_empty();
        if nothing_to_say || self.transact(&partitions, &records, &offsets, metadata).await {
            self.sent(&partitions);
            tally::batch(&self.metrics, batch, &outcome, &records, self.clock.now_us());
            self.unshown.append(&mut outcome.shown);
            self.traced.end(&self.clock, Some(&outcome));
        }
    }

    fn sent(&mut self, partitions: &[i32]) {
        for partition in partitions {
            let open = self.tasks.get(partition).map(|task| task.state);
            if matches!(open, Some(State::Applied(..))) {
                self.on(*partition, Event::Sent);
            }
        }
    }

    /// One Kafka transaction; `false` where the partitions now have to recover.
    async fn transact(
        &mut self,
        partitions: &[i32],
        records: &[OutRecord],
        offsets: &[(i32, i64, String)],
        metadata: &Metadata,
    ) -> bool {
        let started = self.clock.elapsed();
        let refreshed = Bug::MetadataRefreshed.alive().then(|| self.log.metadata());
        let metadata = refreshed.as_ref().unwrap_or(metadata);
        let transaction = Transaction { topic: self.log.topic(), records, offsets, metadata };
        let deadline = self.settings.commit_deadline;
        let ending = transact(&mut self.publisher, &self.clock, &transaction, deadline).await;
        self.time("kafka", started, self.clock.elapsed());
        match ending {
            Ending::Done { disturbed } => {
                if disturbed && !Bug::ProducerKeptAfterAbort.alive() {
                    self.drop_producer().await;
                }
                true
            }
            Ending::Aborted { refused, error } => {
                self.failed(&error);
                if !Bug::ProducerKeptAfterAbort.alive() {
                    self.drop_producer().await;
                }
                if refused {
                    self.refused = Some(metadata.clone());
                }
                self.disturb(partitions, Cause::Aborted);
                false
            }
            Ending::Unknown(_) if Bug::ProducerKeptAfterUnknown.alive() => true,
            Ending::Unknown(error) => {
                self.failed(&error);
                self.drop_producer().await;
                self.disturb(partitions, Cause::Unknown);
                false
            }
        }
    }

    /// The cache, best effort: what it cannot take is counted, and is right again with the next event. Beside the
    /// next load, or when there is none: what is committed is not held up by it, nor is what follows.
    async fn show(&mut self) {
        let unshown = std::mem::take(&mut self.unshown);
        if !unshown.is_empty() {
            let started = self.clock.elapsed();
            let shown = self.cache.show(&unshown).await;
            self.shown(started, shown).await;
        }
    }

    /// The end of a show: holes are filled with what stands before.
    async fn shown(&mut self, started: Duration, shown: Result<Vec<Hole>>) {
        let shown = match shown {
            Ok(holes) if holes.is_empty() => Ok(holes),
            Ok(holes) => match self.store.latest(&holes).await {
                Ok(before) => self.cache.show(&before).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        self.metrics.up.set("redis", i64::from(shown.is_ok()));
        if let Err(error) = shown {
            self.metrics.errors.at([error.kind.name()]).inc();
        }
        // No part of a batch's span: it runs beside the next one.
        let took = self.clock.elapsed().saturating_sub(started).as_secs_f64();
        self.metrics.batch_seconds.at(["redis"]).observe(took);
    }

    // ── when nothing arrives (§1.6) ────────────────────────────────────────────────────────────────────────

    async fn look(&mut self) {
        if self.clock.elapsed() < self.looked_at + self.settings.look_every
            || Bug::IdleNotLooked.alive()
        {
            return;
        }
        self.looked_at = self.clock.elapsed();
        let ready: Vec<(i32, Position)> = self
            .tasks
            .iter()
            .filter_map(|(partition, task)| Some((*partition, task.ready()?)))
            .collect();
        let partitions: Vec<i32> = ready.iter().map(|(partition, _)| *partition).collect();
        match self.store.look(self.log.topic(), &partitions).await {
            Ok(rows) => {
                for (partition, at) in ready {
                    let ours = rows.iter().any(|row| {
                        row.partition == partition
                            && row.fence == at.fence
                            && row.applied == at.applied
                    });
                    if !ours {
                        self.disturb(&[partition], Cause::NotOurs);
                    }
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    // ── what is counted ────────────────────────────────────────────────────────────────────────────────────

    fn measure(&mut self) {
        if self.clock.elapsed() < self.measured_at + MEASURE_EVERY {
            return;
        }
        self.measured_at = self.clock.elapsed();
        let ready = self.tasks.iter().filter_map(|(of, task)| Some((*of, task.ready()?.applied)));
        self.applied.extend(ready);
        self.applied.retain(|partition, _| self.tasks.contains_key(partition));
        let behind = |(partition, applied): (&i32, &i64)| {
            Some(self.log.end(*partition)?.saturating_sub(*applied).max(0))
        };
        let waiting = self.tasks.keys().filter_map(|partition| self.log.oldest_ms(*partition));
        let now = Standing {
            lag: self.applied.iter().filter_map(behind).sum(),
            oldest_ms: tally::oldest_ms(self.pending.records(), waiting),
            states: tally::states(self.tasks.values()),
        };
        self.tally.shows(now, self.clock.now_us() / 1_000);
    }

    fn time(&mut self, part: &'static str, from: Duration, to: Duration) {
        self.traced.part(part, from, to);
        let took = to.saturating_sub(from).as_secs_f64();
        self.metrics.batch_seconds.at([part]).observe(took);
    }
}

/// What came of load and decide.
enum Decided {
    Outcome(Box<Outcome>),
    /// The same batch again, after a pause.
    Pause,
    /// The partitions recover; the batch is taken again then.
    Recover,
}
