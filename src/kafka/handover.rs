//! What a member owns and what waits to be taken: the state that the poll thread and the worker share.
//!
//! Pure: no library, no lock, no time. The poll thread assigns, revokes and pushes; the worker seeks, takes and
//! releases. A partition hands out nothing before it was sought, and everything that belongs to an earlier
//! position or an earlier term is dropped on the way in.

use std::collections::{BTreeMap, VecDeque};

use crate::model::record::Record;
use crate::stream::Owned;

/// What the poll thread does about a record that it pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Nothing.
    Kept,
    /// Nothing: it belongs to another position or nobody's partition.
    Dropped,
    /// Pause it: its queue is full.
    Full,
    /// Go back: offsets are missing before it, and they must be missing twice.
    Doubted,
    /// They are: the record, and the offset that was due. Ask for the log's bounds, then [`Handover::allow`] the
    /// gap and push again, or restart.
    Missing(Record, i64),
    /// It lies before what is due, which the library was told to begin with: ask whether that is in the log.
    Behind(i64),
}

/// A partition that this member owns.
#[derive(Debug)]
struct Slot {
    term: u64,
    revoking: bool,
    released: bool,
    /// Where the worker wants to read; the poll thread has not gone there yet.
    wanted: Option<i64>,
    /// The offset from which records count; absent until the worker sought.
    position: Option<i64>,
    /// The last gap that was met: the offset that was due, and the one that came.
    doubted: Option<(i64, i64)>,
    /// The last gap that was found to be one.
    allowed: Option<(i64, i64)>,
    /// What was due when a record came that lies before it.
    behind: Option<i64>,
    queue: VecDeque<Record>,
    bytes: usize,
    paused: bool,
}

impl Slot {
    fn new(term: u64) -> Self {
        Self {
            term,
            revoking: false,
            released: false,
            wanted: None,
            position: None,
            doubted: None,
            allowed: None,
            behind: None,
            queue: VecDeque::new(),
            bytes: 0,
            paused: true,
        }
    }

    fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
        self.position = None;
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(record.size());
        Some(record)
    }
}

/// How much may wait to be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of one partition's queue at which it is paused; at half of it it goes on.
    pub(super) partition_bytes_max: usize,
    /// Bytes of all queues at which nothing more is polled until some were taken. A pause throws away what the
    /// library has fetched already, so it is not for what passes within a batch's time.
    pub(super) bytes_max: usize,
}

/// Everything that a member owns.
#[derive(Debug)]
pub(super) struct Handover {
    slots: BTreeMap<i32, Slot>,
    bounds: Bounds,
    /// The next term: never the same twice in a process, so members count in steps of their number.
    next_term: u64,
    /// Whose turn it is first.
    turn: usize,
}

impl Handover {
    /// Owns nothing. `terms` gives the first term and must not be shared with another member.
    pub(super) fn new(bounds: Bounds, terms: u64) -> Self {
        Self { slots: BTreeMap::new(), bounds, next_term: terms, turn: 0 }
    }

    fn term(&mut self) -> u64 {
        self.next_term += 1;
        self.next_term
    }

    // ── the poll thread ────────────────────────────────────────────────────────────────────────────────────

    /// These partitions came; each is a new task, paused and at no position.
    pub(super) fn assign(&mut self, partitions: &[i32]) {
        for partition in partitions {
            let term = self.term();
            self.slots.insert(*partition, Slot::new(term));
        }
    }

    /// The group asks for these back.
    pub(super) fn revoke(&mut self, partitions: &[i32]) {
        for partition in partitions {
            if let Some(slot) = self.slots.get_mut(partition) {
                slot.revoking = true;
            }
        }
    }

    /// Whether nothing of these is under way any more.
    pub(super) fn released(&self, partitions: &[i32]) -> bool {
        partitions
            .iter()
            .filter_map(|partition| self.slots.get(partition))
            .all(|slot| slot.released)
    }

    /// These are not owned any more.
    pub(super) fn gone(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.slots.remove(partition);
        }
    }

    /// All partitions.
    pub(super) fn partitions(&self) -> Vec<i32> {
        self.slots.keys().copied().collect()
    }

    /// All of them become new tasks that have to find their position again.
    pub(super) fn restart(&mut self) {
        for partition in self.partitions() {
            let term = self.term();
            if let Some(slot) = self.slots.get_mut(&partition) {
                let revoking = slot.revoking;
                *slot = Slot { revoking, paused: slot.paused, ..Slot::new(term) };
            }
        }
    }

    /// Where the worker wants to read and the poll thread has to go.
    pub(super) fn wanted(&self) -> Vec<(i32, i64)> {
        self.slots.iter().filter_map(|(partition, slot)| Some((*partition, slot.wanted?))).collect()
    }

    /// The poll thread is there: records from this offset on count.
    pub(super) fn placed(&mut self, partition: i32, from: i64) {
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        if slot.wanted == Some(from) {
            slot.wanted = None;
            slot.position = Some(from);
            slot.paused = false;
        }
    }

    /// A record that was polled. Where offsets are missing before it, the partition is read again from the first
    /// missing one: what is missing twice is not in the log (retention, a transaction's marker). The library has
    /// lost its position before now, and a record that is skipped would never be missed by anybody.
    pub(super) fn push(&mut self, record: Record) -> Pushed {
        let bytes_max = self.bounds.partition_bytes_max;
        let Some(slot) = self.slots.get_mut(&record.partition) else { return Pushed::Dropped };
        let Some(due) = slot.position.filter(|_| slot.wanted.is_none()) else {
            return Pushed::Dropped;
        };
        let gap = Some((due, record.offset));
        if record.offset < due {
            let known = slot.behind.replace(due) == Some(due);
            return if known { Pushed::Dropped } else { Pushed::Behind(due) };
        }
        if record.offset > due && slot.allowed != gap {
            if slot.doubted == gap {
                return Pushed::Missing(record, due);
            }
            slot.doubted = gap;
            slot.wanted = Some(due);
            return Pushed::Doubted;
        }
        slot.position = Some(record.offset + 1);
        slot.bytes += record.size();
        slot.queue.push_back(record);
        if slot.bytes >= bytes_max && !slot.paused {
            slot.paused = true;
            return Pushed::Full;
        }
        Pushed::Kept
    }

    /// What is missing before this offset is not in the log.
    pub(super) fn allow(&mut self, partition: i32, due: i64, offset: i64) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.allowed = Some((due, offset));
        }
    }

    /// Nobody could say: what was doubted is doubted again.
    pub(super) fn doubt_again(&mut self, partition: i32) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.behind = None;
            slot.doubted = None;
            slot.wanted = slot.wanted.or(slot.position);
        }
    }

    /// Partitions that were paused for their queue and have room again; from now on they count as going on.
    pub(super) fn resumable(&mut self) -> Vec<i32> {
        let low = self.bounds.partition_bytes_max / 2;
        let mut partitions = Vec::new();
        if self.bytes() > self.bounds.bytes_max / 2 {
            return partitions;
        }
        for (partition, slot) in &mut self.slots {
            if slot.paused && slot.position.is_some() && slot.wanted.is_none() && slot.bytes <= low
            {
                slot.paused = false;
                partitions.push(*partition);
            }
        }
        partitions
    }

    fn bytes(&self) -> usize {
        self.slots.values().map(|slot| slot.bytes).sum()
    }

    /// Whether so much waits to be taken that nothing more is polled. What is paused altogether is polled on: nothing
    /// comes but news of the group.
    pub(super) fn full(&self) -> bool {
        self.bytes() >= self.bounds.bytes_max && self.slots.values().any(|slot| !slot.paused)
    }

    /// Partitions to be paused because nobody takes what waits; from now on they count as paused.
    pub(super) fn pausable(&mut self) -> Vec<i32> {
        let mut partitions = Vec::new();
        for (partition, slot) in &mut self.slots {
            if !slot.paused && slot.position.is_some() {
                slot.paused = true;
                partitions.push(*partition);
            }
        }
        partitions
    }

    /// The library could not pause or resume it: what was assumed is taken back.
    pub(super) fn set_paused(&mut self, partition: i32, paused: bool) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.paused = paused;
        }
    }

    // ── the worker ─────────────────────────────────────────────────────────────────────────────────────────

    /// What is owned now.
    pub(super) fn owned(&self) -> Vec<Owned> {
        self.slots
            .iter()
            .map(|(partition, slot)| Owned {
                partition: *partition,
                term: slot.term,
                revoking: slot.revoking,
            })
            .collect()
    }

    /// Reads from this offset on; `false` where the partition is not owned.
    pub(super) fn seek(&mut self, partition: i32, from: i64) -> bool {
        let Some(slot) = self.slots.get_mut(&partition) else { return false };
        slot.clear();
        slot.wanted = Some(from);
        true
    }

    /// Nothing with this term is under way any more.
    pub(super) fn release(&mut self, partition: i32, term: u64) {
        if let Some(slot) = self.slots.get_mut(&partition).filter(|slot| slot.term == term) {
            slot.released = true;
        }
    }

    /// The next records, one of each partition in turn. A record that does not fit waits for a batch of its own.
    pub(super) fn take(
        &mut self,
        partitions: &[i32],
        records_max: usize,
        bytes_max: usize,
    ) -> Vec<Record> {
        let mut open: VecDeque<i32> = partitions.iter().copied().collect();
        if !open.is_empty() {
            open.rotate_left(self.turn % partitions.len());
        }
        self.turn = self.turn.wrapping_add(1);
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < records_max
            && let Some(partition) = open.pop_front()
        {
            let Some(slot) = self.slots.get_mut(&partition) else { continue };
            let Some(size) = slot.queue.front().map(Record::size) else { continue };
            if !records.is_empty() && bytes + size > bytes_max {
                continue;
            }
            bytes += size;
            records.extend(slot.pop());
            open.push_back(partition);
        }
        records
    }

    /// When the first record that waits to be taken was written, ms since the epoch.
    pub(super) fn oldest_ms(&self, partition: i32) -> Option<i64> {
        self.slots.get(&partition)?.queue.front().map(|record| record.timestamp_ms)
    }

    /// Whether there is more to take of these.
    pub(super) fn waiting(&self, partitions: &[i32]) -> bool {
        partitions
            .iter()
            .filter_map(|partition| self.slots.get(partition))
            .any(|slot| !slot.queue.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::model::contract::Topic;
    use crate::model::record::Headers;

    fn record(partition: i32, offset: i64, size: usize) -> Record {
        Record {
            topic: Topic::NormalisedRecords,
            partition,
            offset,
            timestamp_ms: 0,
            key: None,
            headers: Headers::new(),
            value: Some(Bytes::from(vec![0; size])),
        }
    }

    fn bounds(partition_bytes_max: usize) -> Bounds {
        Bounds { partition_bytes_max, bytes_max: 2 * partition_bytes_max }
    }

    fn reading(partitions: &[i32], partition_bytes_max: usize) -> Handover {
        let mut handover = Handover::new(bounds(partition_bytes_max), 0);
        handover.assign(partitions);
        for partition in partitions {
            assert!(handover.seek(*partition, 0));
            handover.placed(*partition, 0);
        }
        handover
    }

    fn places(records: &[Record]) -> Vec<(i32, i64)> {
        records.iter().map(|record| (record.partition, record.offset)).collect()
    }

    #[test]
    fn nothing_counts_before_a_seek_is_done() {
        let mut handover = Handover::new(bounds(100), 0);
        handover.assign(&[3]);
        assert_eq!(handover.push(record(3, 0, 1)), Pushed::Dropped);
        assert!(handover.seek(3, 5));
        assert_eq!(handover.push(record(3, 5, 1)), Pushed::Dropped, "of before the seek");
        assert_eq!(handover.wanted(), [(3, 5)]);
        handover.placed(3, 5);
        assert_eq!(handover.wanted(), []);
        assert_eq!(handover.push(record(3, 4, 1)), Pushed::Behind(5), "below the position");
        assert_eq!(handover.push(record(3, 4, 1)), Pushed::Dropped, "asked once");
        assert_eq!(handover.push(record(3, 5, 1)), Pushed::Kept);
        assert_eq!(handover.push(record(3, 5, 1)), Pushed::Behind(6), "a second time");
        assert_eq!(places(&handover.take(&[3], 9, 9)), [(3, 5)]);
        assert!(!handover.seek(4, 0), "not owned");
    }

    #[test]
    fn what_is_missing_must_be_missing_twice() {
        let mut handover = reading(&[0], 100);
        assert_eq!(handover.push(record(0, 0, 1)), Pushed::Kept);
        assert_eq!(handover.push(record(0, 7, 1)), Pushed::Doubted);
        assert_eq!(handover.push(record(0, 8, 1)), Pushed::Dropped, "until it went back");
        assert_eq!(handover.wanted(), [(0, 1)]);
        handover.placed(0, 1);
        assert_eq!(handover.push(record(0, 5, 1)), Pushed::Doubted, "another gap than before");
        handover.placed(0, 1);
        assert_eq!(handover.push(record(0, 5, 1)), Pushed::Missing(record(0, 5, 1), 1));
        handover.doubt_again(0);
        assert_eq!(handover.wanted(), [(0, 1)], "nobody could say");
        handover.placed(0, 1);
        assert_eq!(handover.push(record(0, 5, 1)), Pushed::Doubted);
        handover.placed(0, 1);
        assert_eq!(handover.push(record(0, 5, 1)), Pushed::Missing(record(0, 5, 1), 1));
        handover.allow(0, 1, 5);
        assert_eq!(handover.push(record(0, 5, 1)), Pushed::Kept);
        assert_eq!(handover.push(record(0, 6, 1)), Pushed::Kept);
        assert_eq!(places(&handover.take(&[0], 9, 9)), [(0, 0), (0, 5), (0, 6)]);
    }

    #[test]
    fn a_seek_that_was_overtaken_by_another_does_not_count() {
        let mut handover = reading(&[0], 100);
        handover.seek(0, 7);
        handover.seek(0, 2);
        handover.placed(0, 7);
        assert_eq!(handover.push(record(0, 7, 1)), Pushed::Dropped);
        handover.placed(0, 2);
        assert_eq!(handover.push(record(0, 2, 1)), Pushed::Kept);
    }

    #[test]
    fn a_partition_that_comes_back_is_another_task() {
        let mut handover = reading(&[0], 100);
        let before = handover.owned()[0].term;
        handover.push(record(0, 0, 1));
        handover.revoke(&[0]);
        assert!(handover.owned()[0].revoking);
        handover.gone(&[0]);
        assert_eq!(handover.owned(), []);
        handover.assign(&[0]);
        assert_ne!(handover.owned()[0].term, before);
        assert!(!handover.owned()[0].revoking);
        assert_eq!(handover.take(&[0], 9, 9), []);
        handover.release(0, before);
        assert!(!handover.released(&[0]), "the old task's end does not touch the new one");
    }

    #[test]
    fn a_revoke_waits_for_all_of_its_terms() {
        let mut handover = reading(&[0, 1, 2], 100);
        handover.revoke(&[0, 1]);
        let owned = handover.owned();
        handover.release(0, owned[0].term);
        assert!(!handover.released(&[0, 1]));
        handover.release(1, owned[1].term);
        assert!(handover.released(&[0, 1]));
        assert!(!owned[2].revoking);
    }

    #[test]
    fn a_full_queue_pauses_and_half_of_it_resumes() {
        let mut handover = reading(&[0], 10);
        assert_eq!(handover.push(record(0, 0, 6)), Pushed::Kept);
        assert_eq!(handover.push(record(0, 1, 6)), Pushed::Full);
        assert_eq!(handover.push(record(0, 2, 6)), Pushed::Kept, "it is paused already");
        assert_eq!(handover.resumable(), Vec::<i32>::new());
        handover.take(&[0], 2, 100);
        assert_eq!(handover.resumable(), Vec::<i32>::new(), "six of ten wait");
        handover.take(&[0], 1, 100);
        assert_eq!(handover.resumable(), [0]);
        assert_eq!(handover.resumable(), Vec::<i32>::new(), "once");
    }

    #[test]
    fn all_queues_together_hold_the_poll_back() {
        let mut handover = reading(&[0, 1, 2], 10);
        for partition in 0..2 {
            assert_eq!(handover.push(record(partition, 0, 9)), Pushed::Kept);
        }
        assert!(!handover.full());
        assert_eq!(handover.push(record(2, 0, 9)), Pushed::Kept);
        assert!(handover.full(), "27 of 20");
        assert_eq!(handover.pausable(), [0, 1, 2]);
        assert!(!handover.full(), "nothing comes now, but for news of the group");
        assert_eq!(handover.resumable(), Vec::<i32>::new());
        handover.take(&[0], 1, 100);
        assert_eq!(handover.resumable(), Vec::<i32>::new(), "18 of 20 wait");
        handover.take(&[1], 1, 100);
        assert_eq!(handover.resumable(), [0, 1], "the third has no room yet");
        handover.take(&[2], 1, 100);
        assert_eq!(handover.resumable(), [2]);
    }

    #[test]
    fn partitions_take_turns() {
        let mut handover = reading(&[0, 1], 1000);
        for offset in 0..10 {
            handover.push(record(0, offset, 1));
        }
        handover.push(record(1, 0, 1));
        assert_eq!(places(&handover.take(&[0, 1], 4, 100)), [(0, 0), (1, 0), (0, 1), (0, 2)]);
        assert!(handover.waiting(&[0]) && !handover.waiting(&[1]));
        handover.push(record(1, 1, 1));
        assert_eq!(places(&handover.take(&[0, 1], 1, 100)), [(1, 1)], "the other one is first now");
    }

    #[test]
    fn a_record_beyond_the_bound_is_a_batch_of_its_own() {
        let mut handover = reading(&[0], 1000);
        handover.push(record(0, 0, 5));
        handover.push(record(0, 1, 50));
        handover.push(record(0, 2, 5));
        assert_eq!(places(&handover.take(&[0], 9, 10)), [(0, 0)]);
        assert_eq!(places(&handover.take(&[0], 9, 10)), [(0, 1)]);
        assert_eq!(places(&handover.take(&[0], 9, 10)), [(0, 2)]);
    }

    #[test]
    fn a_restart_makes_new_tasks_of_all() {
        let mut handover = reading(&[0, 1], 100);
        handover.revoke(&[1]);
        let before = handover.owned();
        handover.push(record(0, 0, 1));
        handover.restart();
        let after = handover.owned();
        assert!(before.iter().zip(&after).all(|(before, after)| before.term < after.term));
        assert!(after[1].revoking, "what is asked for stays asked for");
        assert_eq!(handover.push(record(0, 1, 1)), Pushed::Dropped);
    }

    proptest! {
        /// Whatever the bounds: each partition's records come once, whole and in order, within the bounds.
        #[test]
        fn taking_is_complete_and_in_order(
            sizes in prop::collection::vec((0_i32..3, 1_usize..40), 0..80),
            records_max in 1_usize..9,
            bytes_max in 1_usize..60,
        ) {
            let mut handover = reading(&[0, 1, 2], 1_000_000);
            let mut next = [0_i64; 3];
            for (partition, size) in &sizes {
                let at = usize::try_from(*partition).unwrap();
                handover.push(record(*partition, next[at], *size));
                next[at] += 1;
            }
            let mut seen = [0_i64; 3];
            let mut taken = 0;
            loop {
                let batch = handover.take(&[0, 1, 2], records_max, bytes_max);
                prop_assert!(batch.len() <= records_max);
                let bytes: usize = batch.iter().map(Record::size).sum();
                prop_assert!(batch.len() <= 1 || bytes <= bytes_max);
                if batch.is_empty() {
                    break;
                }
                for record in batch {
                    let at = usize::try_from(record.partition).unwrap();
                    prop_assert_eq!(record.offset, seen[at]);
                    seen[at] += 1;
                    taken += 1;
                }
            }
            prop_assert_eq!(taken, sizes.len());
            prop_assert!(!handover.waiting(&[0, 1, 2]));
        }
    }
}
