//! A batch: what has arrived, of one or more partitions, within the bounds that [`super::Log::take`] kept.

use std::collections::BTreeMap;

use crate::model::record::Record;

/// Records of one attempt, in the order they were taken; those of one partition are in order of offset.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    records: Vec<Record>,
}

impl Batch {
    /// A batch of these.
    #[must_use]
    pub const fn new(records: Vec<Record>) -> Self {
        Self { records }
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Keeps the records for which this holds.
    pub fn retain(&mut self, keep: impl FnMut(&Record) -> bool) {
        self.records.retain(keep);
    }

    /// The first and the last offset of each partition, in order of partition.
    #[must_use]
    pub fn spans(&self) -> BTreeMap<i32, (i64, i64)> {
        let mut spans = BTreeMap::new();
        for record in &self.records {
            spans
                .entry(record.partition)
                .and_modify(|(_, last)| *last = record.offset)
                .or_insert((record.offset, record.offset));
        }
        spans
    }
}
