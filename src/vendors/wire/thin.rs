//! Thin notifications: a vendor says that a record changed or is gone, and not how. What changed is fetched later;
//! what is gone is a tombstone by its id, which is all that is known of it.

use crate::model::event::{Content, Merge, Op};
use crate::vendors::{VendorRecord, What};

/// What a notification of this record asks for: a fetch, or where it is gone its tombstone.
#[must_use]
pub fn change(vendor: &str, record_type: &'static str, record_id: String, gone: bool) -> What {
    if gone {
        What::Gone(Box::new(tombstone(vendor, record_type, record_id)))
    } else {
        What::Fetch { record_type, record_id }
    }
}

/// What is left of a record of a maker's own API that is gone: the same, however that is told.
#[must_use]
pub fn tombstone(vendor: &str, record_type: &str, record_id: String) -> VendorRecord {
    VendorRecord {
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
    }
}
