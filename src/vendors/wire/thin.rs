//! Thin notifications: a vendor says that a record changed or is gone, and not how. What changed is fetched later;
//! what is gone is a tombstone by its id, which is all that is known of it.

use crate::error::Reject;
use crate::model::event::{Content, Merge, Op};
use crate::vendors::wire::json::At;
use crate::vendors::{VendorRecord, What};

/// Whose a notification is, or a record: the number under `user_id`, beyond 32 bits too.
///
/// # Errors
/// Where it is absent, or no number above zero.
pub fn numbered(at: &At<'_>) -> Result<String, Reject> {
    let user = at.need("user_id")?;
    let number = user.integer()?;
    if number > 0 { Ok(number.to_string()) } else { Err(user.malformed("not an id")) }
}

/// Whether a text is an id of at most so many characters. It becomes part of a path when it is fetched, so nothing else
/// may be in it.
#[must_use]
pub fn is_id(text: &str, characters_max: usize) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=characters_max).contains(&text.len()) && text.bytes().all(safe)
}

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
