//! What a batch must know before it can be decided.

use super::bucket::sample_ids;
use super::union;
use crate::model::event::{Merge, NormalisedRecord, RecordHead};
use crate::model::state::{Plan, SampleType};

/// What a record that replaces asks about: its id.
pub fn replace(plan: &mut Plan, head: &RecordHead) {
    plan.events.insert(head.event_id);
}

/// What a union or a removal asks about: buckets and samples.
pub fn gather(plan: &mut Plan, record: &NormalisedRecord) {
    plan.waiting.insert(sample_type(record));
    if record.merge == Merge::Removal {
        plan.around.extend(union::around(record));
        let removed = sample_ids(&record.content.removed);
        plan.removed.entry(sample_type(record)).or_default().extend(removed);
    } else {
        plan.buckets.insert(record.event_id);
        plan.buckets.extend(union::beside(record));
    }
}

/// Under what a record's samples are looked up.
#[must_use]
pub fn sample_type(record: &NormalisedRecord) -> SampleType {
    (record.connection_id, record.record_type.clone())
}
