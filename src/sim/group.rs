//! The group coordinator, in the three protocols, and a member's view of it.
//!
//! What is modelled is what the exactly-once protocol can be hurt by: who owns a partition by the broker's books
//! and who still thinks so; what a member calls itself; and which name a *transactional* offset commit is accepted
//! under. Three facts of the broker's sources are here on purpose. A commit that names no member is not checked at
//! all (`validateOffsetCommit`, H6). A member of a KIP-848 group can lose a partition and keep its epoch
//! (`CurrentAssignmentBuilder`, H5). And a client empties its metadata before the application sees the loss.
//!
//! A member moves by `Group::tick`, one protocol step of its poll thread at a time, whenever the driver likes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{REVOKE, SESSION};
use crate::stream::{Committed, Metadata, Owned};

/// How a group shares its partitions out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Everything is revoked, then shared out anew.
    Eager,
    /// Only what moves is revoked; what was revoked is given out by the next generation.
    #[default]
    Cooperative,
    /// KIP-848: the coordinator reconciles each member by heartbeats; epochs, no barrier.
    Consumer,
}

impl Protocol {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Eager, Self::Cooperative, Self::Consumer];
}

/// A client's view: what it calls itself and what it thinks it owns.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    pub(super) member: String,
    pub(super) generation: i32,
    pub(super) parts: BTreeMap<i32, Part>,
    /// A cooperative member that gave something back joins again.
    rejoin: bool,
    /// Whose turn it is in a take.
    pub(super) turn: usize,
}

/// A partition in a client's hands.
#[derive(Clone, Debug)]
pub(super) struct Part {
    term: u64,
    /// When it was asked back.
    revoking: Option<Duration>,
    pub(super) released: bool,
    /// The next offset that a take gives; absent before the first seek.
    pub(super) position: Option<i64>,
}

impl Seat {
    pub(super) fn metadata(&self) -> Metadata {
        let generation = if self.member.is_empty() { -1 } else { self.generation };
        Metadata { generation, member: self.member.clone(), native: None }
    }

    pub(super) fn owned(&self) -> Vec<Owned> {
        let owned = |(partition, part): (&i32, &Part)| Owned {
            partition: *partition,
            term: part.term,
            revoking: part.revoking.is_some(),
        };
        self.parts.iter().map(owned).collect()
    }

    pub(super) fn release(&mut self, partition: i32, term: u64) {
        if let Some(part) = self.parts.get_mut(&partition).filter(|part| part.term == term) {
            part.released = true;
        }
    }

    fn revoke(&mut self, partitions: &BTreeSet<i32>, now: Duration) {
        for partition in partitions {
            if let Some(part) = self.parts.get_mut(partition) {
                part.revoking.get_or_insert(now);
            }
        }
    }

    fn holds(&self) -> BTreeSet<i32> {
        self.parts.keys().copied().collect()
    }

    /// Lets go of what is asked back, once it is released or its time is up; `None` while it must wait.
    fn let_go(&mut self, now: Duration, early: bool) -> Option<Ticked> {
        let open = self.parts.values().filter(|part| part.revoking.is_some() && !part.released);
        let due = |part: &Part| part.revoking.is_some_and(|asked| now >= asked + REVOKE);
        let mut condemned = false;
        for part in open {
            if due(part) {
                condemned = true;
            } else if !early {
                return None;
            }
        }
        self.parts.retain(|_, part| part.revoking.is_none());
        Some(if condemned { Ticked::Condemned } else { Ticked::Changed })
    }
}

/// What a tick did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticked {
    /// Nothing that the application sees.
    Quiet,
    /// What is owned, asked back or known of the group has changed.
    Changed,
    /// A revoke's time is up: the producer is dropped, and then the revoke returned.
    Condemned,
}

/// A member in the broker's books.
#[derive(Clone, Debug)]
struct Member {
    slot: usize,
    epoch: i32,
    assigned: BTreeSet<i32>,
    /// KIP-848: told to give back, not acknowledged.
    revoking: BTreeSet<i32>,
    /// Classic: what it had when it joined.
    had: BTreeSet<i32>,
    seen: Duration,
}

/// A consumer group on one topic, with its offsets.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) protocol: Protocol,
    pub(super) partitions: i32,
    members: BTreeMap<String, Member>,
    /// Generation (classic) or group epoch.
    generation: i32,
    /// Classic: who has joined the rebalance that is under way.
    joined: Option<BTreeSet<String>>,
    /// Which slot a partition is to go to; others are shared out in turn.
    wish: BTreeMap<i32, usize>,
    joins: u64,
    terms: u64,
    pub(super) offsets: BTreeMap<i32, Committed>,
    /// Offsets of open transactions, by producer.
    pub(super) pending: BTreeMap<u64, BTreeMap<i32, Committed>>,
}

impl Group {
    pub(super) fn new(protocol: Protocol, partitions: i32) -> Self {
        Self { protocol, partitions, ..Self::default() }
    }

    /// Whether a commit of offsets in a transaction is taken under this name.
    pub(super) fn admits(&self, metadata: &Metadata) -> bool {
        let member = self.members.get(&metadata.member);
        let nobody = metadata.generation < 0 && metadata.member.is_empty();
        match self.protocol {
            _ if nobody => true,
            _ if metadata.generation < 0 && self.members.is_empty() => true,
            Protocol::Eager | Protocol::Cooperative => {
                member.is_some() && metadata.generation == self.generation
            }
            Protocol::Consumer => member.is_some_and(|known| known.epoch == metadata.generation),
        }
    }

    /// The stable committed offset; `Err` while a transaction has one open on it.
    pub(super) fn committed(&self, partition: i32, stable: bool) -> Result<Option<Committed>, ()> {
        let open = self.pending.values().any(|offsets| offsets.contains_key(&partition));
        if open && stable { Err(()) } else { Ok(self.offsets.get(&partition).cloned()) }
    }

    /// Sends a partition to a slot, at the next rebalance, which this begins.
    pub(super) fn rebalance(&mut self, wish: impl IntoIterator<Item = (i32, usize)>) {
        self.wish.extend(wish);
        self.disturb();
    }

    /// Begins a rebalance.
    pub(super) fn disturb(&mut self) {
        match self.protocol {
            Protocol::Eager | Protocol::Cooperative => {
                self.joined.get_or_insert_default();
            }
            Protocol::Consumer => self.generation += 1,
        }
    }

    /// Takes a member out: it left, or its session is over.
    pub(super) fn remove(&mut self, member: &str) {
        if self.members.remove(member).is_some() {
            self.disturb();
            if let Some(joined) = &mut self.joined {
                joined.remove(member);
            }
            self.complete();
        }
    }

    /// Takes out whoever was not seen for a session.
    pub(super) fn expire(&mut self, now: Duration) {
        let over =
            |(id, member): (&String, &Member)| (member.seen + SESSION <= now).then(|| id.clone());
        for member in self.members.iter().filter_map(over).collect::<Vec<_>>() {
            self.remove(&member);
        }
    }

    /// A sign of life.
    pub(super) fn seen(&mut self, seat: &Seat, now: Duration) {
        if let Some(member) = self.members.get_mut(&seat.member) {
            member.seen = now;
        }
    }

    /// Whether every member has what it is to have, and knows it.
    pub(super) fn is_settled(&self, seats: &[(usize, &Seat)]) -> bool {
        let target = self.target();
        let everyone = seats.len() == self.members.len();
        self.joined.is_none()
            && everyone
            && seats.iter().all(|(_, seat)| {
                let Some(member) = self.members.get(&seat.member) else { return false };
                let wanted = target.get(&seat.member).cloned().unwrap_or_default();
                let calm = seat.parts.values().all(|part| part.revoking.is_none());
                let epoch = match self.protocol {
                    Protocol::Eager | Protocol::Cooperative => self.generation,
                    Protocol::Consumer => member.epoch,
                };
                let here = seat.generation == epoch && epoch == self.generation;
                calm && here && !seat.rejoin && seat.holds() == wanted
            })
    }

    /// Who is to have what: wishes first, the others in turn.
    fn target(&self) -> BTreeMap<String, BTreeSet<i32>> {
        let mut members: Vec<(usize, &String)> =
            self.members.iter().map(|(id, member)| (member.slot, id)).collect();
        members.sort_unstable();
        let mut target: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for partition in 0..self.partitions {
            let wished = self.wish.get(&partition);
            let wished = members.iter().rev().find(|(slot, _)| Some(slot) == wished);
            let turn = usize::try_from(partition).unwrap_or(0) % members.len().max(1);
            if let Some((_, id)) = wished.or_else(|| members.get(turn)) {
                target.entry((*id).clone()).or_default().insert(partition);
            }
        }
        target
    }

    // ── a member's steps ───────────────────────────────────────────────────────────────────────────────────

    /// One step of a member's poll thread. `early`: a planted bug that returns a revoke at once.
    pub(super) fn tick(
        &mut self,
        seat: &mut Seat,
        slot: usize,
        now: Duration,
        early: bool,
    ) -> Ticked {
        if seat.member.is_empty() {
            if !seat.parts.is_empty() {
                seat.parts.clear();
                return Ticked::Changed;
            }
            self.join(seat, slot, now);
            return Ticked::Quiet;
        }
        if !self.members.contains_key(&seat.member) {
            // The library forgets its name first; the application sees the loss with a later callback (H6).
            seat.member.clear();
            seat.rejoin = false;
            return Ticked::Quiet;
        }
        self.seen(seat, now);
        match self.protocol {
            Protocol::Eager | Protocol::Cooperative => self.tick_classic(seat, now, early),
            Protocol::Consumer => self.tick_consumer(seat, now, early),
        }
    }

    fn join(&mut self, seat: &mut Seat, slot: usize, now: Duration) {
        self.joins += 1;
        seat.member = format!("member-{slot}-{}", self.joins);
        seat.generation = 0;
        let member = Member {
            slot,
            epoch: 0,
            assigned: BTreeSet::new(),
            revoking: BTreeSet::new(),
            had: BTreeSet::new(),
            seen: now,
        };
        self.members.insert(seat.member.clone(), member);
        self.disturb();
        if let Some(joined) = &mut self.joined {
            joined.insert(seat.member.clone());
        }
        self.complete();
    }

    fn tick_classic(&mut self, seat: &mut Seat, now: Duration, early: bool) -> Ticked {
        if seat.parts.values().any(|part| part.revoking.is_some()) {
            let Some(ticked) = seat.let_go(now, early) else { return Ticked::Quiet };
            seat.rejoin = true;
            return ticked;
        }
        let waiting = self.joined.as_ref().map(|joined| joined.contains(&seat.member));
        if self.protocol == Protocol::Eager && waiting == Some(false) && !seat.parts.is_empty() {
            let all = seat.holds();
            seat.revoke(&all, now);
            return Ticked::Changed;
        }
        if seat.rejoin || waiting == Some(false) {
            seat.rejoin = false;
            self.joined.get_or_insert_default().insert(seat.member.clone());
            if let Some(member) = self.members.get_mut(&seat.member) {
                member.had = seat.holds();
            }
            self.complete();
            return Ticked::Quiet;
        }
        if waiting.is_some() || seat.generation == self.generation {
            return Ticked::Quiet;
        }
        seat.generation = self.generation;
        self.take_assignment(seat, now);
        Ticked::Changed
    }

    /// Ends a classic rebalance when everyone has joined.
    fn complete(&mut self) {
        let Some(joined) = &self.joined else { return };
        if !self.members.keys().all(|id| joined.contains(id)) {
            return;
        }
        self.joined = None;
        self.generation += 1;
        let mut target = self.target();
        if self.protocol == Protocol::Cooperative {
            let owners: BTreeMap<i32, String> = self
                .members
                .iter()
                .flat_map(|(id, member)| member.had.iter().map(move |p| (*p, id.clone())))
                .collect();
            for (id, partitions) in &mut target {
                partitions.retain(|p| owners.get(p).is_none_or(|owner| owner == id));
            }
        }
        for (id, member) in &mut self.members {
            member.assigned = target.remove(id).unwrap_or_default();
        }
    }

    fn tick_consumer(&mut self, seat: &mut Seat, now: Duration, early: bool) -> Ticked {
        let mut ticked = Ticked::Quiet;
        let mut calm = true;
        if seat.parts.values().any(|part| part.revoking.is_some()) {
            match seat.let_go(now, early) {
                Some(done) => ticked = done,
                None => calm = false,
            }
        }
        self.reconcile(&seat.member, &seat.holds());
        let epoch = self.members.get(&seat.member).map_or(0, |member| member.epoch);
        if seat.generation != epoch {
            seat.generation = epoch;
            ticked = if ticked == Ticked::Condemned { ticked } else { Ticked::Changed };
        }
        if calm && self.take_assignment(seat, now) && ticked == Ticked::Quiet {
            ticked = Ticked::Changed;
        }
        ticked
    }

    /// The client follows its assignment: asks back what is not in it, adds what is new.
    fn take_assignment(&mut self, seat: &mut Seat, now: Duration) -> bool {
        let Some(member) = self.members.get(&seat.member) else { return false };
        let holds = seat.holds();
        let lost: BTreeSet<i32> = holds.difference(&member.assigned).copied().collect();
        let new: Vec<i32> = member.assigned.difference(&holds).copied().collect();
        seat.revoke(&lost, now);
        for partition in &new {
            self.terms += 1;
            let part = Part { term: self.terms, revoking: None, released: false, position: None };
            seat.parts.insert(*partition, part);
        }
        !lost.is_empty() || !new.is_empty()
    }

    /// KIP-848's reconciliation of one member, as `CurrentAssignmentBuilder` does it.
    fn reconcile(&mut self, id: &str, owned: &BTreeSet<i32>) {
        let target = self.target().remove(id).unwrap_or_default();
        let elsewhere: BTreeSet<i32> = self
            .members
            .iter()
            .filter(|(other, _)| other.as_str() != id)
            .flat_map(|(_, member)| member.assigned.union(&member.revoking).copied())
            .collect();
        let group_epoch = self.generation;
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.revoking.is_disjoint(owned) {
            return;
        }
        member.revoking.clear();
        let kept: BTreeSet<i32> = member.assigned.intersection(&target).copied().collect();
        let back: BTreeSet<i32> = member.assigned.difference(&target).copied().collect();
        member.assigned = kept;
        if !back.is_disjoint(owned) {
            // The epoch stays: this is how a partition leaves a member whose name does not change (H5).
            member.revoking = back;
            return;
        }
        member.assigned.extend(target.difference(&elsewhere).copied());
        member.epoch = group_epoch;
    }
}
