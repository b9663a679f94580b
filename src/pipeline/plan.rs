//! What a batch must know before it can be decided.

use super::bucket::sample_ids;
use super::union;
use crate::model::event::{Merge, NormalisedRecord};
use crate::model::state::{Plan, SampleType};

/// The ids, buckets and samples that these records ask about.
#[must_use]
pub fn plan<'a>(records: impl Iterator<Item = &'a NormalisedRecord>) -> Plan {
    let mut plan = Plan::default();
    for record in records {
        match record.merge {
            Merge::Replace => {
                plan.events.insert(record.event_id);
            }
            Merge::Union => {
                plan.buckets.insert(record.event_id);
                plan.buckets.extend(union::beside(record));
                plan.waiting.insert(sample_type(record));
            }
            Merge::Removal => {
                plan.waiting.insert(sample_type(record));
                plan.around.extend(union::around(record));
                let removed = sample_ids(&record.content.removed);
                plan.removed.entry(sample_type(record)).or_default().extend(removed);
            }
        }
    }
    plan
}

/// Under what a record's samples are looked up.
#[must_use]
pub fn sample_type(record: &NormalisedRecord) -> SampleType {
    (record.connection_id, record.record_type.clone())
}
