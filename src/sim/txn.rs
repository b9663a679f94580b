//! The transaction coordinator, and the client library's end of it: protocol version 1, which librdkafka speaks.
//!
//! Producers are fenced by epoch and by nothing else. An EndTxn is *decided* when it is answered; its markers, and
//! with them the outcome for readers, follow (`Coordinator::prepared`). A request that the library sent twice
//! has a copy under way (`Copy`): it ends, or adds an offset to, whatever the same producer epoch has open when
//! it arrives (H9).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{SESSION, World};
use crate::model::contract::Topic;
use crate::model::record::OutRecord;
use crate::stream::{Committed, Metadata};

/// The producer of a client, as its library has it.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) pid: u64,
    pub(super) epoch: i32,
    pub(super) disturbed: bool,
    /// The poll thread dropped it when a revoke's time was up.
    pub(super) condemned: bool,
    /// The library sends an EndTxn only where it has sent something.
    pub(super) used: bool,
}

/// What a transactional id has.
#[derive(Clone, Debug, Default)]
struct Id {
    epoch: i32,
    state: State,
    /// How the last transaction of this epoch ended.
    last: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    /// Since then.
    Ongoing(Duration),
    /// Decided, the markers follow.
    Prepared(bool),
}

/// A request that was sent twice, and the second is still under way.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pid: u64,
    epoch: i32,
    what: Late,
}

#[derive(Clone, Debug)]
enum Late {
    End(bool),
    /// Topic, offsets, and the group metadata's generation and member.
    Offsets(Topic, Vec<(i32, Committed)>, (i32, String)),
}

/// Why the broker refuses a request of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another incarnation has its name, or its transaction timed out.
    Fenced,
    /// The group metadata is not good any more.
    Member,
    /// Not in this state.
    State,
}

/// All transactional ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Coordinator {
    ids: BTreeMap<u64, Id>,
    pub(super) copies: Vec<Copy>,
}

impl Coordinator {
    /// Transactions that are decided and whose markers are not written.
    pub(super) fn prepared(&self) -> Vec<u64> {
        let prepared =
            |(pid, id): (&u64, &Id)| matches!(id.state, State::Prepared(_)).then_some(*pid);
        self.ids.iter().filter_map(prepared).collect()
    }

    /// Whether requests of this producer must wait for markers.
    pub(super) fn busy(&self, pid: u64) -> bool {
        self.ids.get(&pid).is_some_and(|id| matches!(id.state, State::Prepared(_)))
    }

    /// Whether a transaction is open or not yet marked.
    pub(super) fn is_quiet(&self) -> bool {
        self.ids.values().all(|id| id.state == State::Empty)
    }

    fn current(&mut self, pid: u64, epoch: i32) -> Result<&mut Id, Refusal> {
        self.ids.get_mut(&pid).filter(|id| id.epoch == epoch).ok_or(Refusal::Fenced)
    }

    fn begun(&mut self, pid: u64, epoch: i32, now: Duration) -> Result<(), Refusal> {
        let id = self.current(pid, epoch)?;
        if id.state == State::Empty {
            id.state = State::Ongoing(now);
        }
        Ok(())
    }
}

impl World {
    /// InitProducerId: what this id had open is aborted, and nobody of an earlier epoch is heard any more.
    pub(super) fn init_producer(&mut self, pid: u64) -> Producer {
        self.end_open(pid, false);
        let id = self.coordinator.ids.entry(pid).or_default();
        id.epoch += 1;
        id.last = None;
        Producer { pid, epoch: id.epoch, disturbed: false, condemned: false, used: false }
    }

    /// Records of a transaction.
    pub(super) fn produce(
        &mut self,
        producer: &Producer,
        records: &[OutRecord],
    ) -> Result<(), Refusal> {
        self.coordinator.begun(producer.pid, producer.epoch, self.now)?;
        let now = self.now;
        for record in records {
            self.broker.append(record.clone(), Some(producer.pid), now);
        }
        Ok(())
    }

    /// Offsets of a transaction.
    pub(super) fn txn_offsets(
        &mut self,
        (pid, epoch): (u64, i32),
        topic: Topic,
        offsets: &[(i32, Committed)],
        metadata: &Metadata,
    ) -> Result<(), Refusal> {
        self.coordinator.begun(pid, epoch, self.now)?;
        let group = self.groups.get_mut(&topic).ok_or(Refusal::State)?;
        if !group.admits(metadata) {
            return Err(Refusal::Member);
        }
        group.pending.entry(pid).or_default().extend(offsets.iter().cloned());
        Ok(())
    }

    /// EndTxn: decided here; the markers are [`World::mark`].
    pub(super) fn end_txn(&mut self, pid: u64, epoch: i32, commit: bool) -> Result<(), Refusal> {
        let id = self.coordinator.current(pid, epoch)?;
        match id.state {
            State::Ongoing(_) => {
                id.state = State::Prepared(commit);
                Ok(())
            }
            State::Prepared(decided) if decided == commit => Ok(()),
            State::Empty if id.last == Some(commit) => Ok(()),
            State::Prepared(_) | State::Empty => Err(Refusal::State),
        }
    }

    /// Writes the markers of a decided transaction.
    pub(super) fn mark(&mut self, pid: u64) {
        let Some(id) = self.coordinator.ids.get_mut(&pid) else { return };
        let State::Prepared(commit) = id.state else { return };
        id.state = State::Empty;
        id.last = Some(commit);
        self.broker.mark(pid, commit);
        for group in self.groups.values_mut() {
            let offsets = group.pending.remove(&pid).unwrap_or_default();
            if commit {
                group.offsets.extend(offsets);
            }
        }
        self.news();
    }

    fn end_open(&mut self, pid: u64, commit: bool) {
        if let Some(id) = self.coordinator.ids.get_mut(&pid)
            && matches!(id.state, State::Ongoing(_))
        {
            id.state = State::Prepared(commit);
        }
        self.mark(pid);
    }

    /// Aborts what is open for longer than a transaction may be, and fences its producer.
    pub(super) fn time_out_transactions(&mut self) {
        let now = self.now;
        let over: BTreeSet<u64> = self
            .coordinator
            .ids
            .iter()
            .filter(|(_, id)| matches!(id.state, State::Ongoing(since) if since + SESSION <= now))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in over {
            self.end_open(pid, false);
            if let Some(id) = self.coordinator.ids.get_mut(&pid) {
                id.epoch += 1;
                id.last = None;
            }
        }
    }

    /// A second EndTxn is under way.
    pub(super) fn copy_end(&mut self, producer: &Producer, commit: bool) {
        let (pid, epoch) = (producer.pid, producer.epoch);
        self.coordinator.copies.push(Copy { pid, epoch, what: Late::End(commit) });
    }

    /// A second TxnOffsetCommit is under way.
    pub(super) fn copy_offsets(
        &mut self,
        producer: &Producer,
        topic: Topic,
        offsets: &[(i32, Committed)],
        metadata: &Metadata,
    ) {
        let name = (metadata.generation, metadata.member.clone());
        let what = Late::Offsets(topic, offsets.to_vec(), name);
        let (pid, epoch) = (producer.pid, producer.epoch);
        self.coordinator.copies.push(Copy { pid, epoch, what });
    }

    /// A copy arrives: it acts on what the same epoch has open, if anything.
    pub(super) fn land(&mut self, which: usize) {
        if which >= self.coordinator.copies.len() {
            return;
        }
        let Copy { pid, epoch, what } = self.coordinator.copies.remove(which);
        let open = self
            .coordinator
            .ids
            .get(&pid)
            .is_some_and(|id| id.epoch == epoch && matches!(id.state, State::Ongoing(_)));
        if !open {
            return;
        }
        // Whether it is taken does not matter to anyone: nobody waits for the answer of a copy.
        let taken = match what {
            Late::End(commit) => self.end_txn(pid, epoch, commit),
            Late::Offsets(topic, offsets, (generation, member)) => {
                let metadata = Metadata { generation, member, native: None };
                self.txn_offsets((pid, epoch), topic, &offsets, &metadata)
            }
        };
        self.note(format!("  a copy landed on producer {pid}: {taken:?}"));
    }
}
