//! The driver: it decides what happens next, to whom, and what goes wrong with it.
//!
//! It polls the workers' futures by hand. Every call that a worker makes on the world waits here until a verb lets
//! it happen; [`Driver::run`] lets all of them happen, fairly, until the world has been quiet for longer than an
//! idle worker waits before it looks at its rows. What cannot be quiet is [`Stuck`]: a protocol can also fail by
//! going round in a circle.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::cache::SimCache;
use super::faults::{Call, Grant, Seam};
use super::generate::Dice;
use super::group::{Group, Protocol, Seat};
use super::log::{SimLog, SimPublisher, partition_of};
use super::sender::{SimReader, SimSender};
use super::store::{SimRegister, SimStore};
use super::{Client, EPOCH_US, Port, Shared, SimClock};
use crate::model::connection::Connection;
use crate::model::contract::{Topic, header};
use crate::model::event::{BiometricEvent, NormalisedRecord};
use crate::model::record::{Headers, OutRecord};
use crate::stream::stop::Stop;
use crate::stream::worker::{Settings, Worker};
use crate::stream::{Committed, Processor, text};
use crate::telemetry::metrics::Metrics;

/// Decide, and the bytes that it reads and writes.
pub trait Dialect: Clone + 'static {
    /// Decide itself.
    type Decide: Processor + 'static;
    /// One more of it: each incarnation of a worker has its own.
    fn processor(&self) -> Self::Decide;
    /// A value of `normalised-records`.
    fn write(&self, record: &NormalisedRecord) -> Bytes;
    /// Reads one.
    fn read(&self, value: &[u8]) -> Option<NormalisedRecord>;
    /// Reads a value of an output topic.
    fn event(&self, value: &[u8]) -> Option<BiometricEvent>;
}

/// All that a process is given: one client's ports.
#[derive(Debug)]
pub struct Ports {
    /// The member of the group.
    pub log: SimLog,
    /// The transactional producer of the slot.
    pub publisher: SimPublisher,
    /// The database.
    pub store: SimStore,
    /// The cache.
    pub cache: SimCache,
    /// The clock.
    pub clock: SimClock,
    /// A producer outside of transactions.
    pub sender: SimSender,
    /// Normalise's side of the database.
    pub register: SimRegister,
    /// Reads single records.
    pub reader: SimReader,
    /// Asks it to end.
    pub stop: Stop,
}

/// A process of a slot; it gives whether it ended well.
pub type Process = Pin<Box<dyn Future<Output = bool>>>;
/// What a slot runs; called anew for each incarnation.
pub type Body = Rc<dyn Fn(Ports) -> Process>;

/// A slot: a stable name under which one process at a time runs.
pub(super) struct Slot {
    pub(super) topic: Topic,
    body: Body,
    pub(super) running: Option<Running>,
    paused: bool,
}

pub(super) struct Running {
    pub(super) client: u64,
    future: Process,
    stop: Stop,
}

/// How a world begins.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The group protocol.
    pub protocol: Protocol,
    /// Partitions of every topic.
    pub partitions: i32,
    /// How the workers behave.
    pub worker: Settings,
    /// What is random comes of this.
    pub seed: u64,
}

impl Default for Setting {
    fn default() -> Self {
        Self { protocol: Protocol::default(), partitions: 2, worker: settings(500), seed: 1 }
    }
}

/// The settings of a worker in the world: batches of at most this many records, and long waits, so that a quiet
/// world takes few steps.
#[must_use]
pub fn settings(batch_records_max: usize) -> Settings {
    Settings { batch_records_max, wait_max: Duration::from_secs(10), ..Settings::default() }
}

/// A seam at its n-th occurrence.
struct Trap {
    seam: Seam,
    left: usize,
    sprung: bool,
    /// Whether another process takes the dead one's place at once.
    restarts: bool,
}

/// The world does not come to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// After this many steps.
    pub steps: usize,
}

impl fmt::Display for Stuck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "not at rest after {} steps", self.steps)
    }
}

/// More steps than any run takes that is not a circle.
const STEPS_MAX: usize = 20_000;

/// The driver of a world.
pub struct Driver {
    pub(super) world: Shared,
    pub(super) slots: Vec<Slot>,
    setting: Setting,
    dice: Dice,
    trap: Option<Trap>,
    /// Postgres has lost commits: for a while the topic knows more than it.
    pub(super) failed_over: bool,
    pub(super) phantoms: Vec<String>,
    pub(super) calls: BTreeMap<Call, usize>,
    steps: usize,
    metrics: Metrics,
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// One set for all worlds that nobody reads: a registry is dear.
fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::new).clone()
}

/// Lets a client into the world, and gives it its ports.
fn admit(world: &Shared, slot: usize, topic: Topic, free: bool) -> Ports {
    let client = {
        let mut inside = world.lock();
        let client = inside.next_client;
        inside.next_client += 1;
        let new = Client {
            slot,
            topic,
            free,
            left: false,
            asked: None,
            granted: None,
            wakers: Vec::new(),
            news: true,
            seat: Seat::default(),
            producer: None,
            primary: inside.database.primary,
            reconnected: false,
        };
        inside.clients.insert(client, new);
        client
    };
    let port = Port { world: world.clone(), client };
    Ports {
        log: SimLog { port: port.clone(), topic },
        publisher: SimPublisher { port: port.clone() },
        store: SimStore { port: port.clone() },
        cache: SimCache { port: port.clone() },
        clock: SimClock(port.clone()),
        sender: SimSender { world: world.clone(), port: Some(port.clone()) },
        register: SimRegister { port: port.clone() },
        reader: SimReader { port },
        stop: Stop::default(),
    }
}

impl Driver {
    /// A world with its topics, and nobody in it.
    #[must_use]
    pub fn new(setting: Setting) -> Self {
        let world = Shared::default();
        {
            let mut inside = world.lock();
            for topic in Topic::ALL {
                inside.broker.declare(topic, setting.partitions);
                let group = Group::new(setting.protocol, setting.partitions);
                inside.groups.insert(topic, group);
            }
        }
        Self {
            world,
            slots: Vec::new(),
            setting,
            dice: Dice::new(setting.seed),
            trap: None,
            failed_over: false,
            phantoms: Vec::new(),
            calls: BTreeMap::new(),
            steps: 0,
            metrics: metrics(),
        }
    }

    /// A world with this many workers of decide.
    #[must_use]
    pub fn with_workers<D: Dialect>(setting: Setting, dialect: &D, workers: usize) -> Self {
        let mut driver = Self::new(setting);
        for _ in 0..workers {
            driver.add_worker(dialect, setting.worker);
        }
        driver
    }

    /// What is added from here on counts in these metrics, and its spans go where they say.
    pub fn seen_by(&mut self, metrics: Metrics) {
        self.metrics = metrics;
    }

    /// What workers count in.
    pub(super) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// A further worker of decide, with settings of its own.
    pub fn add_worker<D: Dialect>(&mut self, dialect: &D, settings: Settings) -> usize {
        let (dialect, metrics) = (dialect.clone(), self.metrics());
        let body: Body = Rc::new(move |ports: Ports| -> Process {
            let (processor, metrics) = (dialect.processor(), metrics.clone());
            Box::pin(async move {
                let Ports { log, publisher, store, cache, clock, stop, .. } = ports;
                let mut worker =
                    Worker::new(log, publisher, store, cache, clock, processor, settings, metrics);
                worker.run(&stop).await;
                true
            })
        });
        self.add(Topic::NormalisedRecords, body)
    }

    /// A further process that reads this topic in its group.
    pub fn add(&mut self, topic: Topic, body: Body) -> usize {
        self.slots.push(Slot { topic, body, running: None, paused: false });
        let slot = self.slots.len() - 1;
        self.start(slot);
        slot
    }

    // ── what stands in the world ───────────────────────────────────────────────────────────────────────────

    /// A canonical record, where its user's key says.
    pub fn record<D: Dialect>(&mut self, dialect: &D, record: &NormalisedRecord) {
        let key = record.user_id.as_str().as_bytes();
        let partition = partition_of(Some(key), self.setting.partitions);
        self.record_to(dialect, partition, record);
    }

    /// A canonical record in this partition.
    pub fn record_to<D: Dialect>(
        &mut self,
        dialect: &D,
        partition: i32,
        record: &NormalisedRecord,
    ) {
        let key = Bytes::from(record.user_id.as_str().to_owned());
        let value = dialect.write(record);
        self.write(Topic::NormalisedRecords, partition, Some(key), Headers::new(), value);
    }

    /// A body as the door writes it to `raw-webhooks`, received now; a vendor's further headers as the door keeps
    /// them.
    pub fn deliver(&mut self, vendor: &'static str, body: Bytes, kept: &[(&str, &str)]) {
        let received_at = EPOCH_US.saturating_add(micros(self.now()));
        let mut headers = Headers::new()
            .with(header::VENDOR, text(vendor))
            .with(header::RECEIVED_AT, text(received_at.to_string()))
            .with(header::SIGNATURE, text("verified"));
        for (name, value) in kept {
            headers.push((*name).to_owned(), text(*value));
        }
        self.write(Topic::RawWebhooks, 0, Some(text(vendor)), headers, body);
    }

    /// A record of any topic, in this partition.
    pub fn write(
        &mut self,
        topic: Topic,
        partition: i32,
        key: Option<Bytes>,
        headers: Headers,
        value: Bytes,
    ) {
        let mut world = self.world.lock();
        let now = world.now;
        let record = OutRecord { topic, key, headers, value: Some(value) };
        let at = world.broker.append_to(partition, record, None, now);
        world.note(format!("deliver {} {} {}", topic.name(), at.partition, at.offset));
        world.news();
    }

    /// An offset without a record, as a marker leaves.
    pub fn gap(&mut self, topic: Topic, partition: i32) {
        self.world.lock().broker.gap(topic, partition);
    }

    /// Retention: what is below is gone.
    pub fn truncate(&mut self, topic: Topic, partition: i32, start: i64) {
        self.world.lock().broker.truncate(topic, partition, start);
    }

    /// Empties what decide has written: a rebuild begins.
    pub fn empty_database(&mut self) {
        self.failed_over = true;
        self.world.lock().database.empty();
    }

    /// A row of `connections`.
    pub fn connect(&mut self, row: Connection) {
        self.world.lock().database.tables.connect(row);
    }

    /// A producer that acknowledges at once: the ingress' way in. It may be used from any thread.
    #[must_use]
    pub fn sender(&self) -> SimSender {
        SimSender { world: self.world.clone(), port: None }
    }

    /// The ports of a client that nobody drives: its calls happen at once, and while it waits the world goes on. It
    /// is a member of its group for as long as its log is there.
    #[must_use]
    pub fn ports(&self, topic: Topic, slot: usize) -> Ports {
        admit(&self.world, slot, topic, true)
    }

    // ── processes ──────────────────────────────────────────────────────────────────────────────────────────

    /// Starts a slot's process; nothing, where it runs.
    pub fn start(&mut self, slot: usize) {
        let world = self.world.clone();
        let Some(place) = self.slots.get_mut(slot).filter(|place| place.running.is_none()) else {
            return;
        };
        let ports = admit(&world, slot, place.topic, false);
        world.lock().note(format!("start {slot}"));
        let (client, stop) = (ports.log.port.client, ports.stop.clone());
        let future = (place.body)(ports);
        place.running = Some(Running { client, future, stop });
        place.paused = false;
        self.poll(slot);
    }

    /// kill -9: the process and all that its clients knew is gone; the broker finds out by time.
    pub fn crash(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot)
            && let Some(running) = place.running.take()
        {
            let mut world = self.world.lock();
            world.clients.remove(&running.client);
            world.note(format!("crash {slot}"));
        }
    }

    /// Asks a process to end; it ends as it is let go on.
    pub fn stop(&mut self, slot: usize) {
        if let Some(running) = self.slots.get(slot).and_then(|place| place.running.as_ref()) {
            running.stop.set();
            self.world.lock().news();
        }
    }

    /// SIGSTOP: not polled, no sign of life, whatever time passes.
    pub fn pause(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot) {
            place.paused = true;
            self.world.lock().note(format!("pause {slot}"));
        }
    }

    /// A zombie: paused, and its session is over.
    pub fn pause_zombie(&mut self, slot: usize) {
        self.pause(slot);
        self.expire(slot);
    }

    /// SIGCONT.
    pub fn wake(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot).filter(|place| place.paused) {
            place.paused = false;
            self.world.lock().note(format!("wake {slot}"));
        }
    }

    /// Whether a process runs in this slot, paused or not.
    #[must_use]
    pub fn is_running(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|place| place.running.is_some())
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|place| place.paused)
    }

    fn client(&self, slot: usize) -> Option<u64> {
        self.slots.get(slot)?.running.as_ref().map(|running| running.client)
    }

    fn poll(&mut self, slot: usize) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        let Some(running) = place.running.as_mut() else { return };
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(well) = running.future.as_mut().poll(&mut context) {
            let client = running.client;
            place.running = None;
            let mut world = self.world.lock();
            world.leave(client);
            world.clients.remove(&client);
            world.note(format!("end {slot}, {}", if well { "well" } else { "stopped" }));
        }
    }

    // ── one thing at a time ────────────────────────────────────────────────────────────────────────────────

    /// The call that a process waits in.
    #[must_use]
    pub fn pending(&self, slot: usize) -> Option<Call> {
        let client = self.client(slot)?;
        self.world.lock().clients.get(&client)?.asked.as_ref().map(|asked| asked.call)
    }

    /// Whether its call can happen now: no lock, no marker and no time stands before it.
    #[must_use]
    pub fn can_go(&self, slot: usize) -> bool {
        let place = self.slots.get(slot).filter(|place| !place.paused);
        let Some(client) = place.and_then(|place| place.running.as_ref()).map(|run| run.client)
        else {
            return false;
        };
        let world = self.world.lock();
        let Some(client) = world.clients.get(&client) else { return false };
        let Some(asked) = &client.asked else { return false };
        let pid = u64::try_from(client.slot).unwrap_or(u64::MAX);
        match asked.call {
            Call::Wait => client.news || world.now >= asked.until,
            Call::Sleep => world.now >= asked.until,
            Call::Open | Call::Send | Call::SendRest | Call::SendOffsets => {
                !world.coordinator.busy(pid)
            }
            Call::Fence | Call::Apply | Call::CountTry | Call::Release => {
                !world.database.blocks(asked)
            }
            _ => true,
        }
    }

    /// Lets a process' call happen so, and the process go on to its next call.
    pub fn go(&mut self, slot: usize, grant: Grant) -> Option<Call> {
        if !self.can_go(slot) {
            return None;
        }
        let client = self.client(slot)?;
        let call = {
            let mut world = self.world.lock();
            let place = world.clients.get_mut(&client)?;
            let call = place.asked.as_ref()?.call;
            place.granted = Some(grant);
            place.wake();
            if !call.is_idle() {
                world.note(format!("{slot} {call:?} {grant:?}"));
            }
            call
        };
        *self.calls.entry(call).or_default() += 1;
        self.steps += 1;
        self.poll(slot);
        Some(call)
    }

    /// As [`Driver::go`], through the trap, if one is set.
    fn go_on(&mut self, slot: usize) -> Option<Call> {
        let call = self.pending(slot)?;
        if !self.can_go(slot) {
            return None;
        }
        let due = self.trap.as_mut().is_some_and(|trap| {
            let here = !trap.sprung && trap.seam.call == call;
            trap.sprung = here && trap.left == 0 || trap.sprung;
            if here {
                trap.left = trap.left.saturating_sub(1);
            }
            here && trap.sprung
        });
        let Some(seam) = self.trap.as_ref().map(|trap| trap.seam).filter(|_| due) else {
            return self.go(slot, Grant::Done);
        };
        self.world.lock().note(format!("seam: {}", seam.name));
        if let Some(grant) = seam.grant {
            self.go(slot, grant);
        }
        if seam.dies {
            self.crash(slot);
            if self.trap.as_ref().is_some_and(|trap| trap.restarts) {
                self.start(slot);
            }
        }
        Some(call)
    }

    /// Sets a trap: the n-th time (from 0) that a process comes to this seam. It starts again at once.
    pub fn crash_at(&mut self, seam: Seam, nth: usize) {
        self.trap = Some(Trap { seam, left: nth, sprung: false, restarts: true });
    }

    /// As [`Driver::crash_at`], but the process stays dead: others must take over.
    pub fn die_at(&mut self, seam: Seam, nth: usize) {
        self.trap = Some(Trap { seam, left: nth, sprung: false, restarts: false });
    }

    /// Whether the trap was come to.
    #[must_use]
    pub fn sprung(&self) -> bool {
        self.trap.as_ref().is_some_and(|trap| trap.sprung)
    }

    /// One step of a process' poll thread: what the group wants of it.
    pub fn tick(&mut self, slot: usize) -> bool {
        let Some(place) = self.slots.get(slot).filter(|place| !place.paused) else { return false };
        let Some(client) = place.running.as_ref().map(|running| running.client) else {
            return false;
        };
        self.world.lock().tick(client)
    }

    /// Writes the markers of decided transactions.
    pub fn mark(&mut self) {
        {
            let mut world = self.world.lock();
            for pid in world.coordinator.prepared() {
                world.note(format!("  markers of {pid}"));
                world.mark(pid);
            }
        }
        self.watch();
    }

    /// How many transactions are decided and not marked.
    #[must_use]
    pub fn unmarked(&self) -> usize {
        self.world.lock().coordinator.prepared().len()
    }

    /// How many Postgres transactions are in doubt.
    #[must_use]
    pub fn doubts(&self) -> usize {
        self.world.lock().database.doubts()
    }

    /// What was in doubt is decided.
    pub fn settle(&mut self, which: usize, commit: bool) {
        let mut world = self.world.lock();
        world.note(format!("  in doubt: {}", if commit { "committed" } else { "rolled back" }));
        world.database.settle(which, commit);
    }

    /// How many copies of requests are under way.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.world.lock().coordinator.copies.len()
    }

    /// A copy arrives.
    pub fn land(&mut self, which: usize) {
        self.world.lock().land(which);
    }

    /// A process' session is over, by the broker's books.
    pub fn expire(&mut self, slot: usize) {
        let Some(client) = self.client(slot) else { return };
        let mut world = self.world.lock();
        let Some(member) = world.clients.get(&client).map(|at| at.seat.member.clone()) else {
            return;
        };
        world.note(format!("session of {slot} is over"));
        for group in world.groups.values_mut() {
            group.remove(&member);
        }
    }

    /// Sends partitions of decide's group to slots, by a rebalance.
    pub fn rebalance(&mut self, wish: &[(i32, usize)]) {
        let mut world = self.world.lock();
        world.note(format!("rebalance {wish:?}"));
        if let Some(group) = world.groups.get_mut(&Topic::NormalisedRecords) {
            group.rebalance(wish.iter().copied());
        }
    }

    /// Postgres fails over and loses its last commits.
    pub fn fail_over(&mut self, commits: usize) {
        self.failed_over = true;
        let mut world = self.world.lock();
        world.note(format!("failover loses {commits} commits"));
        world.database.fail_over(commits);
    }

    /// From here on no failover goes further back.
    pub fn replicate(&mut self) {
        self.world.lock().database.forget_history();
    }

    /// The group's offsets expire.
    pub fn expire_offsets(&mut self, topic: Topic) {
        let mut world = self.world.lock();
        world.note("offsets expire".to_owned());
        if let Some(group) = world.groups.get_mut(&topic) {
            group.offsets.clear();
        }
    }

    /// An operator moves the group's offset.
    pub fn move_offset(&mut self, topic: Topic, partition: i32, offset: i64) {
        let mut world = self.world.lock();
        world.note(format!("an operator moves the offset of {partition} to {offset}"));
        if let Some(group) = world.groups.get_mut(&topic) {
            group.offsets.insert(partition, Committed { offset, mark: String::new() });
        }
    }

    /// Lets time pass: who lives gives a sign of life, who does not loses its session and its transaction.
    pub fn advance(&mut self, time: Duration) {
        let living: Vec<u64> = self
            .slots
            .iter()
            .filter(|place| !place.paused)
            .filter_map(|place| Some(place.running.as_ref()?.client))
            .collect();
        self.world.lock().advance(time, &living);
    }

    // ── many things ────────────────────────────────────────────────────────────────────────────────────────

    /// Lets one process go on, and its poll thread, until it waits in this call; `false` where it does not come.
    pub fn until(&mut self, slot: usize, call: Call) -> bool {
        for _ in 0..1000 {
            self.tick(slot);
            if self.pending(slot) == Some(call) && self.can_go(slot) {
                return true;
            }
            self.mark();
            if self.go(slot, Grant::Done).is_none() {
                self.tick(slot);
                if !self.can_go(slot) {
                    self.advance(Duration::from_millis(100));
                }
            }
        }
        false
    }

    /// Wakes who is paused and starts who is dead.
    pub fn heal(&mut self) {
        for slot in 0..self.slots.len() {
            self.wake(slot);
            self.start(slot);
        }
    }

    /// One fair round: whatever is under way arrives, each poll thread and each process takes a step. Gives
    /// whether anything but waiting happened.
    pub fn round(&mut self) -> bool {
        let mut busy = self.unmarked() > 0;
        self.mark();
        while self.doubts() > 0 {
            let commit = self.dice.one_in(2);
            self.settle(0, commit);
            busy = true;
        }
        while self.copies() > 0 {
            self.land(0);
            busy = true;
        }
        let mut went = false;
        for slot in 0..self.slots.len() {
            busy |= self.tick(slot);
            if let Some(call) = self.go_on(slot) {
                went = true;
                busy |= !call.is_idle();
            }
        }
        if !went && !busy {
            self.advance(self.next_moment());
        }
        busy
    }

    /// How long until somebody who waits goes on.
    fn next_moment(&self) -> Duration {
        let world = self.world.lock();
        let waits = world.clients.values().filter_map(|client| client.asked.as_ref());
        let until = waits.map(|asked| asked.until).filter(|until| *until > world.now).min();
        let time = until.map_or(Duration::from_secs(1), |until| until - world.now);
        time.min(Duration::from_secs(10))
    }

    /// Some fair rounds.
    pub fn step(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.round();
        }
    }

    /// Fair rounds until the world has been quiet for so long that idle workers have looked at their rows.
    ///
    /// # Errors
    /// [`Stuck`] where it does not come to rest.
    pub fn run(&mut self) -> Result<(), Stuck> {
        let look = self.setting.worker.look_every + self.setting.worker.wait_max;
        let quiet = look + Duration::from_secs(1);
        let began = self.steps;
        let mut busy_at = self.now();
        let mut rounds: usize = 0;
        while self.now() <= busy_at + quiet {
            if self.round() {
                busy_at = self.now();
            }
            rounds += 1;
            let steps = self.steps - began + rounds;
            if steps > STEPS_MAX {
                return Err(Stuck { steps });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Driver").field("steps", &self.steps).finish_non_exhaustive()
    }
}
