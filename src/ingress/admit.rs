//! Limits: permits for what is being written, bytes and connections for what is still being
//! received.
//!
//! They are apart on purpose. A permit is taken when the body is complete, so a slow sender never
//! holds one. What it does hold, a connection and the bytes that it has sent, has limits of its
//! own; and where connections are used up, the one that has been receiving for longest makes room
//! for the new one. An honest sender is done within milliseconds and so is never the longest,
//! however many others sit and wait.
//!
//! Waiting for a permit smooths a burst, and only a burst: where somebody has been waiting all the
//! time for a while, more comes in than goes out, and who waits longer only hears later that he has
//! to come again. So from then on the wait is short (the idea is CoDel's), and a refusal quick.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::ingress::reply::Refusal;
use crate::stream::clock::Stopwatch;
use crate::telemetry::metrics::Metrics;

/// Who waits all the time for this long stands in a queue that does not go away by waiting.
const STANDING: Duration = Duration::from_millis(100);
/// The longest wait in such a queue.
const STANDING_WAIT_MAX: Duration = Duration::from_millis(20);

/// The permits: a semaphore that can be seen, and at which only so many may wait.
pub(super) struct Permits {
    free: Semaphore,
    all: usize,
    waiting: AtomicUsize,
    wait_max: Duration,
    standing: Standing,
    metrics: Metrics,
}

/// Since when there has always been somebody waiting.
#[derive(Default)]
struct Standing {
    /// Whether there is a `since`: what a request that need not wait looks at.
    is: AtomicBool,
    since: Mutex<Option<Stopwatch>>,
}

impl Standing {
    /// There was a permit for who came: nobody waits.
    fn ends(&self) {
        if self.is.load(Ordering::Relaxed) {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.is.store(false, Ordering::Relaxed);
        }
    }

    /// There was none. Whether that has been so for too long.
    fn goes_on(&self) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.is.store(true, Ordering::Relaxed);
        since.get_or_insert_with(Stopwatch::start).elapsed() >= STANDING
    }
}

/// One permit, given back when it goes out of scope: also when the client is gone and the request
/// is dropped.
pub(super) struct Permit<'a> {
    in_use: Counted<'a>,
    free: SemaphorePermit<'a>,
}

/// One more in a gauge, for as long as it lives.
struct Counted<'a>(&'a IntGauge);

impl<'a> Counted<'a> {
    fn one(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A place among those that wait.
struct Waiting<'a> {
    waiting: &'a AtomicUsize,
    _shown: Counted<'a>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Permits {
    pub(super) fn new(all: usize, wait_max: Duration, metrics: Metrics) -> Self {
        metrics.permits.set(i64::try_from(all).unwrap_or(i64::MAX));
        let free = Semaphore::new(all);
        let (waiting, standing) = (AtomicUsize::new(0), Standing::default());
        Self { free, all, waiting, wait_max, standing, metrics }
    }

    /// Whether who comes now would be refused at once. A body need not be read for that.
    pub(super) fn are_gone(&self) -> bool {
        self.waiting.load(Ordering::Acquire) >= self.all
    }

    /// A permit: at once, or after a wait that is short and that only as many share as there are
    /// permits.
    pub(super) async fn take(&self) -> Result<Permit<'_>, Refusal> {
        let free = match self.free.try_acquire() {
            Ok(free) => {
                self.standing.ends();
                self.metrics.permit_wait_seconds.observe(0.0);
                free
            }
            Err(_) => self.wait().await?,
        };
        Ok(Permit { in_use: Counted::one(&self.metrics.permits_in_use), free })
    }

    async fn wait(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let place = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            (waiting < self.all).then_some(waiting + 1)
        });
        if place.is_err() {
            return Err(Refusal::Overloaded);
        }
        let waiting = &self.waiting;
        let place = Waiting { waiting, _shown: Counted::one(&self.metrics.permits_waiting) };
        let watch = Stopwatch::start();
        let limit = if self.standing.goes_on() { STANDING_WAIT_MAX } else { self.wait_max };
        let waited = tokio::time::timeout(limit.min(self.wait_max), self.free.acquire()).await;
        self.metrics.permit_wait_seconds.observe(watch.seconds());
        drop(place);
        match waited {
            Ok(Ok(free)) => Ok(free),
            Ok(Err(_)) | Err(_) => Err(Refusal::Overloaded),
        }
    }
}

impl Permit<'_> {
    /// Gives it back.
    pub(super) fn done(self) {
        drop(self.in_use);
        drop(self.free);
    }
}

/// Bytes of bodies in flight. They are reserved before they are read, in steps that follow what has
/// come: who announces much and sends little holds little.
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
    shown: IntGauge,
}

/// A body's part of the budget, given back when it goes out of scope.
pub(super) struct Reserved<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(max: usize, metrics: &Metrics) -> Self {
        Self { used: AtomicUsize::new(0), max, shown: metrics.body_bytes.clone() }
    }

    /// Nothing yet.
    pub(super) fn open(&self) -> Reserved<'_> {
        Reserved { budget: self, bytes: 0 }
    }
}

impl Reserved<'_> {
    /// Has at least `bytes` reserved from here on.
    pub(super) fn reach(&mut self, bytes: usize) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.budget
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(more).filter(|sum| *sum <= self.budget.max)
            })
            .map_err(|_| Refusal::Overloaded)?;
        self.budget.shown.add(i64::try_from(more).unwrap_or(i64::MAX));
        self.bytes = bytes;
        Ok(())
    }

    /// How much it has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.shown.sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

/// The open connections.
pub(super) struct Guests {
    inside: Mutex<Inside>,
    max: usize,
    per_peer_max: usize,
    shown: IntGauge,
}

#[derive(Default)]
struct Inside {
    open: usize,
    peers: HashMap<IpAddr, Peer>,
    /// Who is receiving, in the order in which they began to.
    receiving: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    next: u64,
}

#[derive(Default)]
struct Peer {
    open: usize,
    receiving: BTreeSet<u64>,
}

/// An open connection; it leaves when this goes out of scope.
pub(super) struct Guest {
    guests: Arc<Guests>,
    peer: IpAddr,
    leave: Arc<Notify>,
    /// Its place among those who are receiving; absent while a request of it is worked on.
    place: Mutex<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Receiving(u64),
    Served,
}

impl Inside {
    fn receive(&mut self, peer: IpAddr, leave: &Arc<Notify>) -> u64 {
        let place = self.next;
        self.next += 1;
        self.receiving.insert(place, (peer, Arc::clone(leave)));
        self.peers.entry(peer).or_default().receiving.insert(place);
        place
    }

    /// Takes one out of those who are receiving; false where it is not there any more, because it
    /// had to go.
    fn serve(&mut self, place: u64) -> bool {
        let Some((peer, _)) = self.receiving.remove(&place) else { return false };
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.receiving.remove(&place);
        }
        true
    }

    /// Has this one go, and counts it as gone.
    fn send_away(&mut self, place: u64) {
        if let Some((peer, leave)) = self.receiving.get(&place).cloned() {
            self.serve(place);
            self.close(peer);
            leave.notify_one();
        }
    }

    fn close(&mut self, address: IpAddr) {
        self.open = self.open.saturating_sub(1);
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.open = peer.open.saturating_sub(1);
            if peer.open == 0 {
                self.peers.remove(&address);
            }
        }
    }

    /// Makes room for one more; false where nobody who is here may be sent away.
    fn room(&mut self, peer: IpAddr, max: usize, per_peer_max: usize) -> bool {
        let of_peer = self.peers.get(&peer);
        let oldest = if of_peer.is_some_and(|peer| peer.open >= per_peer_max) {
            of_peer.and_then(|peer| peer.receiving.first()).copied()
        } else if self.open >= max {
            self.receiving.keys().next().copied()
        } else {
            return true;
        };
        oldest.map(|place| self.send_away(place)).is_some()
    }
}

impl Guests {
    /// Places in all and per peer; `shown` is how many are taken.
    pub(super) fn new(max: usize, per_peer_max: usize, shown: IntGauge) -> Arc<Self> {
        Arc::new(Self { inside: Mutex::default(), max, per_peer_max, shown })
    }

    /// Takes a connection in. `None` where everybody here is being served: then the new one is
    /// closed.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let (peer, leave) = (peer_of(address), Arc::new(Notify::new()));
        let mut inside = self.lock();
        if !inside.room(peer, self.max, self.per_peer_max) {
            return None;
        }
        inside.open += 1;
        inside.peers.entry(peer).or_default().open += 1;
        let place = Mutex::new(Place::Receiving(inside.receive(peer, &leave)));
        self.show(&inside);
        Some(Guest { guests: Arc::clone(self), peer, leave, place })
    }

    /// Sends the one away that has been receiving longest, because the process is out of file
    /// descriptors.
    pub(super) fn make_room(&self) {
        let mut inside = self.lock();
        if let Some(place) = inside.receiving.keys().next().copied() {
            inside.send_away(place);
        }
        self.show(&inside);
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, inside: &Inside) {
        self.shown.set(i64::try_from(inside.open).unwrap_or(i64::MAX));
    }
}

impl Guest {
    /// Whom it is counted to.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Returns when this connection has to make room for another.
    pub(super) async fn sent_away(&self) {
        self.leave.notified().await;
    }

    /// A request of it is complete: from here on it is not sent away.
    pub(super) fn served(&self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Place::Receiving(at) = *place
            && self.guests.lock().serve(at)
        {
            *place = Place::Served;
        }
    }

    /// It is answered: whatever comes now is a request from its beginning.
    pub(super) fn receives(&self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if *place == Place::Served {
            *place = Place::Receiving(self.guests.lock().receive(self.peer, &self.leave));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let place = *self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inside = self.guests.lock();
        let here = match place {
            Place::Receiving(at) => inside.serve(at),
            Place::Served => true,
        };
        if here {
            inside.close(self.peer);
        }
        self.guests.show(&inside);
    }
}

/// Whom a connection is counted to: one customer of a network has a whole /64 of IPv6.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    async fn is_sent_away(guest: &Guest) -> bool {
        tokio::time::timeout(Duration::from_millis(5), guest.sent_away()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_wait_as_there_are_permits_and_not_for_long() {
        let metrics = Metrics::new();
        let permits = Permits::new(1, Duration::from_millis(400), metrics.clone());
        let held = permits.take().await.expect("free");
        assert_eq!(metrics.permits_in_use.get(), 1);
        let (waited, refused) = tokio::join!(biased; permits.take(), async {
            assert_eq!(metrics.permits_waiting.get(), 1);
            tokio::time::timeout(Duration::from_millis(1), permits.take()).await
        });
        assert_eq!(refused.expect("at once").err(), Some(Refusal::Overloaded));
        assert_eq!(waited.err(), Some(Refusal::Overloaded), "after 400 ms");
        held.done();
        assert!(permits.take().await.is_ok());
        assert_eq!(metrics.permits_in_use.get(), 0);
        assert_eq!(metrics.permits_waiting.get(), 0);
        assert_eq!(metrics.permits.get(), 1);
    }

    #[tokio::test]
    async fn in_a_queue_that_stands_nobody_waits_for_long() {
        let permits = Permits::new(1, Duration::from_millis(400), Metrics::new());
        let held = permits.take().await.expect("free");
        assert!(!permits.are_gone());
        let (burst, ()) = tokio::join!(permits.take(), async {
            assert!(permits.are_gone(), "as many wait as there are permits");
            tokio::time::sleep(STANDING + Duration::from_millis(20)).await;
            held.done();
        });
        let held = burst.expect("a burst is waited for");
        let watch = Stopwatch::start();
        assert_eq!(permits.take().await.err(), Some(Refusal::Overloaded));
        assert!(watch.elapsed() < Duration::from_millis(50), "{:?}", watch.elapsed());
        held.done();
        permits.take().await.expect("free").done();
        let held = permits.take().await.expect("free");
        let (burst, ()) = tokio::join!(permits.take(), async {
            tokio::time::sleep(STANDING_WAIT_MAX * 2).await;
            held.done();
        });
        assert!(burst.is_ok(), "the queue was empty meanwhile: a burst again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_it_and_who_gives_up_leaves_nothing() {
        let permits = Permits::new(1, Duration::from_millis(400), Metrics::new());
        let held = permits.take().await.expect("free");
        let given_up = tokio::time::timeout(Duration::from_millis(10), permits.take()).await;
        assert!(given_up.is_err(), "the client is gone, its future dropped");
        assert_eq!(permits.waiting.load(Ordering::Acquire), 0);
        let (waited, ()) = tokio::join!(permits.take(), async { held.done() });
        assert!(waited.is_ok());
    }

    #[test]
    fn bytes_are_reserved_before_and_given_back() {
        let metrics = Metrics::new();
        let budget = Budget::new(100, &metrics);
        let mut one = budget.open();
        let mut two = budget.open();
        assert_eq!(one.reach(60), Ok(()));
        assert_eq!(two.reach(60), Err(Refusal::Overloaded));
        assert_eq!(two.reach(40), Ok(()));
        assert_eq!(one.reach(60), Ok(()), "it has them already");
        assert_eq!(metrics.body_bytes.get(), 100);
        drop(one);
        assert_eq!(two.reach(100), Ok(()));
        assert_eq!(two.reach(usize::MAX), Err(Refusal::Overloaded));
        drop(two);
        assert_eq!(metrics.body_bytes.get(), 0);
    }

    #[tokio::test]
    async fn the_longest_receiver_makes_room() {
        let metrics = Metrics::new();
        let guests = Guests::new(2, 2, metrics.connections.clone());
        let silent = guests.enter(HOME).expect("room");
        let busy = guests.enter(HOME).expect("room");
        busy.served();
        let fresh = guests.enter(AWAY).expect("the silent one makes room");
        assert!(is_sent_away(&silent).await);
        assert!(!is_sent_away(&busy).await);
        assert_eq!(metrics.connections.get(), 2);
        drop(silent);
        assert_eq!(metrics.connections.get(), 2, "it was counted as gone already");
        fresh.served();
        assert!(guests.enter(HOME).is_none(), "all are being served");
        busy.receives();
        assert!(guests.enter(AWAY).is_some());
        assert!(is_sent_away(&busy).await);
        drop((busy, fresh));
        assert_eq!(metrics.connections.get(), 0);
        assert!(guests.lock().peers.is_empty(), "no trace of a peer that is gone");
        assert!(guests.lock().receiving.is_empty());
    }

    #[tokio::test]
    async fn a_peer_crowds_out_only_itself() {
        let guests = Guests::new(10, 1, Metrics::new().connections);
        let other = guests.enter(AWAY).expect("room");
        let first = guests.enter(HOME).expect("room");
        let second = guests.enter(HOME).expect("the first makes room");
        assert!(is_sent_away(&first).await);
        assert!(!is_sent_away(&other).await);
        first.served();
        first.receives();
        drop(first);
        guests.make_room();
        assert!(is_sent_away(&other).await, "the oldest that is left");
        drop((other, second));
        assert_eq!(guests.lock().open, 0);
    }

    #[test]
    fn a_network_is_one_peer() {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(peer_of(parse("2001:db8::1")), peer_of(parse("2001:db8::ffff:2")));
        assert_ne!(peer_of(parse("2001:db8::1")), peer_of(parse("2001:db8:0:1::1")));
        assert_eq!(peer_of(parse("::ffff:192.0.2.7")), AWAY);
    }
}
