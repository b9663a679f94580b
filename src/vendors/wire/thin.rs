//! Thin notifications: a vendor says that a record changed or is gone, and not how. What changed is fetched later;
//! what is gone is a tombstone by its id, which is all that is known of it.

use crate::model::event::{Content, Merge, Op};
use crate::vendors::{VendorRecord, What};

/// What a notification of this record asks for: a fetch, or where it is gone its tombstone.
#[must_use]
pub fn change(vendor: &str, record_type: &'static str, record_id: String, gone: bool) -> What {
    if !gone {
        return What::Fetch { record_type, record_id };
    }
    What::Gone(Box::new(VendorRecord {
        device_type: vendor.to_owned(),
        via: "direct",
        record_type: record_type.to_owned(),
        record_id,
        merge: Merge::Replace,
        op: Op::Delete,
        version: None,
        content: Content {
            state: "final".to_owned(),
            offset_provenance: "unknown".to_owned(),
            ..Content::default()
        },
    }))
}
