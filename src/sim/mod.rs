//! The world in memory: a log, a group, a Postgres and a cache as the ports of [`crate::stream`] see them.
//!
//! # Why
//! Exactly-once is a claim about every interleaving of a worker with its peers, the broker and the database. Here
//! the *production* worker runs in a world where each of its calls waits until the driver lets it happen, so a test
//! can stop it, kill it, pause it or lie to it at any place, and a seed replays what was seen. One thread, no
//! clock, no randomness that is not seeded.
//!
//! The world imitates our ports, not the client libraries: what librdkafka and tokio-postgres do is what the live
//! tests are for. What it says of the broker follows the broker's sources: [`group`] has the three group protocols
//! with their checks of a transactional offset commit, [`txn`] the transaction coordinator with late copies of
//! requests, [`store`] row locks, transactions in doubt and failovers.

pub mod cache;
pub mod driver;
pub mod faults;
pub mod generate;
pub mod group;
pub mod log;
pub mod oracle;
pub mod plain;
pub mod real;
pub mod sender;
pub mod signer;
pub mod store;
pub mod traffic;
pub mod txn;
pub mod view;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::model::contract::Topic;
use crate::model::id::EventId;
use crate::stream::planted::Bug;
use crate::stream::{Clock, Owned};
use faults::{Call, Grant};
use group::Ticked;

/// How long the broker waits for a sign of a member, and for the end of a transaction (`design.md` §3.1).
pub const SESSION: Duration = Duration::from_secs(6);
/// How long a revoke waits for what is under way (`exactly_once.md` §1.5).
pub const REVOKE: Duration = Duration::from_secs(5);
/// The wall clock at the start of every world, µs: 2026-03-29T08:00:00Z.
pub const EPOCH_US: i64 = 1_774_771_200_000_000;

/// Everything that outlives a process.
#[derive(Debug, Default)]
pub struct World {
    now: Duration,
    broker: log::Broker,
    groups: BTreeMap<Topic, group::Group>,
    coordinator: txn::Coordinator,
    database: store::Database,
    shelf: cache::Shelf,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    trace: Vec<String>,
}

impl World {
    /// Writes a line of the trace.
    fn note(&mut self, line: String) {
        self.trace.push(line);
    }

    /// A free client's call: all that is under way arrives first, and while it waits the world goes on.
    fn happen(&mut self, asked: &Asked) {
        for pid in self.coordinator.prepared() {
            self.mark(pid);
        }
        if matches!(asked.call, Call::Wait | Call::Sleep) {
            let free = |(id, client): (&u64, &Client)| client.free.then_some(*id);
            let everyone: Vec<u64> = self.clients.iter().filter_map(free).collect();
            self.advance(asked.until.saturating_sub(self.now), &everyone);
            for client in everyone {
                self.tick(client);
            }
        }
    }

    /// Lets time pass: these give a sign of life, the others lose their sessions and transactions in time.
    fn advance(&mut self, time: Duration, living: &[u64]) {
        self.now += time;
        for group in self.groups.values_mut() {
            for client in living.iter().filter_map(|id| self.clients.get(id)) {
                group.seen(&client.seat, self.now);
            }
            group.expire(self.now);
        }
        self.time_out_transactions();
    }

    /// One step of a client's poll thread; gives whether it sees a change.
    fn tick(&mut self, id: u64) -> bool {
        let Some(mut client) = self.clients.remove(&id) else { return false };
        let changed = self.tick_one(&mut client);
        self.clients.insert(id, client);
        changed
    }

    fn tick_one(&mut self, client: &mut Client) -> bool {
        let group = self.groups.get_mut(&client.topic).filter(|_| !client.left);
        let Some(group) = group else { return false };
        let slot = client.slot;
        let before = client.seat.metadata();
        let early = Bug::RevokeDoesNotWait.alive();
        let ticked = group.tick(&mut client.seat, slot, self.now, early);
        let after = client.seat.metadata();
        if ticked == Ticked::Condemned
            && let Some(producer) = &mut client.producer
        {
            producer.condemned = true;
        }
        client.news |= ticked != Ticked::Quiet;
        if ticked != Ticked::Quiet || !before.same(&after) {
            let part = |owned: &Owned| {
                format!("{}{}", owned.partition, if owned.revoking { "!" } else { "" })
            };
            let owned: Vec<String> = client.seat.owned().iter().map(part).collect();
            let name = (after.generation, after.member);
            self.note(format!("{slot} tick {ticked:?} {name:?} owns {owned:?}"));
        }
        ticked != Ticked::Quiet
    }

    /// A client leaves its group.
    fn leave(&mut self, id: u64) {
        if let Some(client) = self.clients.get_mut(&id)
            && let Some(group) = self.groups.get_mut(&client.topic)
        {
            group.remove(&client.seat.member);
            client.seat = group::Seat::default();
            client.left = true;
        }
    }

    /// Wakes those who wait for records or for news of the group.
    fn news(&mut self) {
        for client in self.clients.values_mut() {
            client.news = true;
        }
    }
}

/// The world, shared by its ports.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    /// The world, for as long as the guard lives; no guard is held over an await.
    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One incarnation of a process' worker, as the world sees it.
#[derive(Debug)]
struct Client {
    slot: usize,
    topic: Topic,
    /// Nobody drives it: its calls happen at once ([`driver::Driver::ports`]).
    free: bool,
    /// It is no member any more.
    left: bool,
    asked: Option<Asked>,
    granted: Option<Grant>,
    /// Whoever waits in a call.
    wakers: Vec<Waker>,
    news: bool,
    seat: group::Seat,
    producer: Option<txn::Producer>,
    /// Which primary its connection goes to.
    primary: u64,
    reconnected: bool,
}

impl Client {
    fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

/// A call that waits for the driver.
#[derive(Clone, Debug)]
struct Asked {
    call: Call,
    /// Not before; for waits the time-out.
    until: Duration,
    /// Rows that it must lock.
    rows: BTreeSet<(Topic, i32)>,
    /// Revisions that it inserts.
    keys: BTreeSet<(EventId, i32)>,
}

impl Asked {
    fn of(call: Call) -> Self {
        Self { call, until: Duration::ZERO, rows: BTreeSet::new(), keys: BTreeSet::new() }
    }

    fn row(call: Call, topic: Topic, partition: i32) -> Self {
        Self { rows: BTreeSet::from([(topic, partition)]), ..Self::of(call) }
    }
}

/// A client's way to the world: every port has one.
#[derive(Clone, Debug)]
struct Port {
    world: Shared,
    client: u64,
}

impl Port {
    /// Waits until the driver says what becomes of this call. A client makes one call at a time: what asks beside
    /// another waits for its turn.
    async fn ask(&self, asked: Asked) -> Grant {
        let mut asked = Some(asked);
        poll_fn(|context| {
            let mut world = self.world.lock();
            // A dead client's future is never polled again; without its entry there is nobody to ask.
            let Some(client) = world.clients.get_mut(&self.client) else { return Poll::Pending };
            if let Some(call) = asked.take_if(|_| client.free) {
                world.happen(&call);
                return Poll::Ready(Grant::Done);
            }
            if asked.is_none()
                && let Some(granted) = client.granted.take()
            {
                client.asked = None;
                client.wake();
                return Poll::Ready(granted);
            }
            if client.asked.is_none() {
                client.asked = asked.take();
            }
            client.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits for this long, or for news.
    async fn wait(&self, call: Call, time: Duration) {
        let until = self.world.lock().now + time;
        self.ask(Asked { until, ..Asked::of(call) }).await;
        if call == Call::Wait
            && let Some(client) = self.world.lock().clients.get_mut(&self.client)
        {
            client.news = false;
        }
    }

    /// Does something to the world on this client's behalf; nothing, where the client is dead.
    fn with<T>(&self, act: impl FnOnce(&mut World, &mut Client) -> T) -> Option<T> {
        let mut world = self.world.lock();
        let mut client = world.clients.remove(&self.client)?;
        let done = act(&mut world, &mut client);
        world.clients.insert(self.client, client);
        Some(done)
    }
}

/// The error of a call that the driver made fail.
fn refused(kind: Kind, doing: &'static str) -> Error {
    Error::new(kind, doing, "SIM")
}

/// The world's clock: it stands still unless the driver moves it.
#[derive(Clone, Debug)]
pub struct SimClock(Port);

impl Clock for SimClock {
    fn elapsed(&self) -> Duration {
        self.0.world.lock().now
    }

    fn now_us(&self) -> i64 {
        let elapsed = i64::try_from(self.elapsed().as_micros()).unwrap_or(i64::MAX);
        EPOCH_US.saturating_add(elapsed)
    }

    async fn sleep(&self, time: Duration) {
        self.0.wait(Call::Sleep, time).await;
    }
}
