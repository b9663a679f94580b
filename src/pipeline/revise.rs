//! New, revised, duplicate or superseded: where a record stands among the revisions of its id.
//!
//! Records of one id stand in one total order, by their place. By arrival alone a re-send would resurrect what was
//! deleted (`exactly_once.md` §2, i), and "compare versions where both have one" is not transitive.

use crate::model::event::{NormalisedRecord, Op, RecordHead};
use crate::model::id::{ContentHash, Place, Source};
use crate::model::state::Current;
use crate::model::time::Micros;

/// A vendor's version that lies further after the receipt than this is not believed (`design.md` §5).
pub const VERSION_AHEAD_MAX_US: Micros = 15 * 60 * 1_000_000;

/// Where a record stands in the order of its id.
#[must_use]
pub fn place(record: &NormalisedRecord) -> Place {
    placed(record.version, record.received_at, record.source, record.normaliser)
}

/// The same of a record of which only the head is read.
#[must_use]
pub fn place_of(head: &RecordHead) -> Place {
    placed(head.version, head.received_at, head.source, head.normaliser)
}

fn placed(version: Option<Micros>, received_at: Micros, source: Source, normaliser: i32) -> Place {
    let latest = received_at.saturating_add(VERSION_AHEAD_MAX_US);
    Place { at_us: version.filter(|at| *at <= latest).unwrap_or(received_at), source, normaliser }
}

/// What a record is to the revisions of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revised {
    /// The next revision: 1 where there was none.
    Next(i32),
    /// It says what this revision says; where `moves`, that revision's place moves up to it.
    Duplicate {
        /// The latest revision.
        revision: i32,
        /// Whether the record stands above it: or a late record from between would win.
        moves: bool,
    },
    /// This later revision stands above it.
    Superseded(i32),
}

/// Whether a place is above another, which two readings of one source by one normaliser never are: of one source only
/// the normaliser can differ, and it alone decides.
#[must_use]
pub fn is_above(place: Place, current: Place) -> bool {
    if place.source == current.source {
        place.normaliser > current.normaliser
    } else {
        place > current
    }
}

/// The rule of *replace* (`design.md` §5).
#[must_use]
pub fn revise(current: Option<&Current>, place: Place, op: Op, hash: ContentHash) -> Revised {
    let Some(current) = current else { return Revised::Next(1) };
    let revision = current.revision;
    let same = current.op == op && current.hash == hash;
    // Of one source only the normaliser can differ, and it alone decides: a repaired one may read an earlier time out
    // of the same bytes.
    let newer = place.normaliser > current.place.normaliser;
    let own = current.place.source == place.source;
    if same && own {
        return Revised::Duplicate { revision, moves: newer };
    }
    let below =
        if own { place.normaliser < current.place.normaliser } else { place < current.place };
    if below {
        return Revised::Superseded(revision);
    }
    if same {
        return Revised::Duplicate { revision, moves: true };
    }
    Revised::Next(revision + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contract::Topic;

    fn at(at_us: i64, offset: i64) -> Place {
        let source = Source { topic: Topic::RawWebhooks, partition: 0, offset, index: 0 };
        Place { at_us, source, normaliser: 1 }
    }

    fn hash(byte: u8) -> ContentHash {
        ContentHash([byte; 16])
    }

    fn current(place: Place, byte: u8) -> Current {
        Current { revision: 3, place, op: Op::Upsert, hash: hash(byte) }
    }

    #[test]
    fn the_table() {
        let now = current(at(10, 5), 1);
        let put = |place, byte| revise(Some(&now), place, Op::Upsert, hash(byte));
        assert_eq!(revise(None, at(1, 1), Op::Delete, hash(1)), Revised::Next(1));
        assert_eq!(put(at(9, 9), 2), Revised::Superseded(3));
        assert_eq!(put(at(9, 9), 1), Revised::Superseded(3));
        assert_eq!(put(at(11, 9), 1), Revised::Duplicate { revision: 3, moves: true });
        assert_eq!(put(at(10, 5), 1), Revised::Duplicate { revision: 3, moves: false });
        assert_eq!(put(at(11, 9), 2), Revised::Next(4));
        assert_eq!(put(at(10, 5), 2), Revised::Next(4), "a repaired normaliser");
        let gone = revise(Some(&now), at(11, 9), Op::Delete, hash(1));
        assert_eq!(gone, Revised::Next(4), "a tombstone is a change");
    }

    #[test]
    fn an_old_binary_does_not_flip_content_back_and_a_repaired_one_corrects() {
        for (old, repaired) in [(10, 10), (10, 5), (5, 10)] {
            let repaired = Place { normaliser: 2, ..at(repaired, 5) };
            let put = |now, place, byte| revise(Some(&now), place, Op::Upsert, hash(byte));
            assert_eq!(put(current(repaired, 2), at(old, 5), 1), Revised::Superseded(3));
            assert_eq!(put(current(at(old, 5), 1), repaired, 2), Revised::Next(4));
        }
    }
}
