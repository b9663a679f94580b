//! What cannot be processed, as a dead letter: the input's exact bytes, and why in our own words.
//!
//! The message is a [`Reject`]'s: a literal, a path of names that are ours, a position. A dead letter's headers are
//! read by people and by dashboards, so nothing of the payload may stand in them; the payload itself is the value.

use bytes::Bytes;

use crate::error::Reject;
use crate::model::contract::{Topic, header};
use crate::model::record::{Headers, OutRecord, Record};
use crate::model::time::Micros;

/// The most item positions that a dead letter lists; `count` says how many there are.
pub const INDEXES_MAX: usize = 100;

/// The stages that give something up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bytes of a vendor that are no canonical record.
    Normalise {
        /// When, µs since the epoch.
        failed_at: Micros,
    },
    /// A canonical record that cannot be decided. It has no time of its own: no clock may show in what decide
    /// sends, and the record's timestamp says it.
    Decide {
        /// How often it was tried before.
        retries: u32,
    },
}

/// The dead letter of an input, or of its items at these positions.
#[must_use]
pub fn dead_letter(input: &Record, bad: &Reject, stage: Stage, indexes: &[i32]) -> OutRecord {
    let listed: Vec<String> = indexes.iter().take(INDEXES_MAX).map(i32::to_string).collect();
    let (name, retries) = match stage {
        Stage::Normalise { .. } => ("normalise", 0),
        Stage::Decide { retries } => ("decide", retries),
    };
    let mut headers = Headers::new()
        .with(header::ORIGINAL_TOPIC, input.topic.name())
        .with(header::ORIGINAL_PARTITION, input.partition.to_string())
        .with(header::ORIGINAL_OFFSET, input.offset.to_string())
        .with(header::ERROR_TYPE, bad.kind.name())
        .with(header::ERROR_MESSAGE, bad.to_string())
        .with(header::RETRY_COUNT, retries.to_string())
        .with(header::STAGE, name)
        .with(header::INDEXES, listed.join(","))
        .with(header::COUNT, indexes.len().max(1).to_string());
    if let Stage::Normalise { failed_at } = stage {
        headers.push(header::FAILED_AT, failed_at.to_string());
    }
    if let Some(traceparent) = input.headers.get(header::TRACEPARENT) {
        headers.push(header::TRACEPARENT, Bytes::clone(traceparent));
    }
    OutRecord {
        topic: Topic::DeadLetters,
        key: input.key.clone(),
        headers,
        value: input.value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, Path};

    fn input() -> Record {
        Record {
            topic: Topic::RawTerra,
            partition: 4,
            offset: 9,
            timestamp_ms: 0,
            key: None,
            headers: Headers::new().with(header::TRACEPARENT, "00-t"),
            value: Some(Bytes::from_static(b"\0not json")),
        }
    }

    #[test]
    fn the_input_stays_as_it_was() {
        let bad = Reject {
            position: Some(17),
            ..Reject::invalid(Path::root().key("data").at(3), "an end before its start")
        };
        let stage = Stage::Normalise { failed_at: 77 };
        let letter = dead_letter(&input(), &bad, stage, &[3, 5]);
        assert_eq!((letter.key, letter.value), (input().key, input().value));
        assert_eq!(letter.topic, Topic::DeadLetters);
        let expected = [
            (header::ORIGINAL_TOPIC, "raw-terra"),
            (header::ORIGINAL_PARTITION, "4"),
            (header::ORIGINAL_OFFSET, "9"),
            (header::ERROR_TYPE, Kind::ValidationError.name()),
            (header::ERROR_MESSAGE, "an end before its start at data[3], byte 17"),
            (header::RETRY_COUNT, "0"),
            (header::STAGE, "normalise"),
            (header::INDEXES, "3,5"),
            (header::COUNT, "2"),
            (header::FAILED_AT, "77"),
            (header::TRACEPARENT, "00-t"),
        ];
        for (name, value) in expected {
            assert_eq!(letter.headers.text(name), Some(value), "{name}");
        }
    }

    #[test]
    fn positions_are_bounded_and_their_count_is_not() {
        let many: Vec<i32> = (0..5000).collect();
        let bad = Reject::malformed(Path::root(), "not a sample");
        let letter = dead_letter(&input(), &bad, Stage::Normalise { failed_at: 0 }, &many);
        let listed = letter.headers.text(header::INDEXES).expect("indexes");
        assert_eq!(listed.split(',').count(), INDEXES_MAX);
        assert_eq!(letter.headers.text(header::COUNT), Some("5000"));
    }

    #[test]
    fn decide_has_no_clock() {
        let bad = Reject::malformed(Path::root(), "not a datum of the schema");
        let letter = dead_letter(&input(), &bad, Stage::Decide { retries: 3 }, &[]);
        assert_eq!(letter.headers.get(header::FAILED_AT), None);
        assert_eq!(letter.headers.text(header::RETRY_COUNT), Some("3"));
        assert_eq!(letter.headers.text(header::STAGE), Some("decide"));
        assert_eq!(letter.headers.text(header::COUNT), Some("1"));
    }
}
