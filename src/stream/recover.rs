//! What recover finds, and what it then does: the table of the protocol (§1.2), one arm a row.
//!
//! Pure. The order of the reads before it (producer, metadata, fence, committed offset) is the worker's, and that
//! order is the point of the protocol: see [`super::worker`].

use super::planted::Bug;
use super::task::Why;
use super::{Committed, Fenced};

/// The mark on an offset that this system committed: the version of the protocol, then the fence.
pub const MARK: &str = "v1:";

/// What recover does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing is open: go on at `applied`; what is below `out` is in the topic.
    Ready {
        /// The first offset whose outputs are not in the topic.
        out: i64,
    },
    /// Send the outbox's records whose cause is not below `from`, with the offset `applied`.
    Send {
        /// The first cause.
        from: i64,
    },
    /// As [`Recovery::Send`] with all of it, at least once: nobody knows what of it is in the topic.
    SendAll,
    /// Stop this partition.
    Stop(Why),
}

/// The committed offset, if it is one of ours: an operator's is not believed (H12).
#[must_use]
pub fn ours(committed: Option<Committed>) -> Option<i64> {
    let committed = committed?;
    let believed = committed.mark.starts_with(MARK) || Bug::ForeignOffsetBelieved.alive();
    believed.then_some(committed.offset)
}

/// The table: `fenced` is what Postgres said, `committed` what the group has of ours, `(low, high)` the log's bounds.
#[must_use]
pub fn decide(fenced: &Fenced, committed: Option<i64>, (low, high): (i64, i64)) -> Recovery {
    let applied = fenced.applied;
    let from = fenced.outbox.as_ref().map(|(from, _, _)| *from);
    if applied < low || applied > high {
        return Recovery::Stop(Why::OutsideLog);
    }
    match committed {
        Some(committed) if committed == applied => {
            if Bug::OutboxAlwaysSent.alive() && from.is_some() {
                return Recovery::SendAll;
            }
            Recovery::Ready { out: applied }
        }
        Some(committed) if committed > applied => Recovery::Ready {
            out: if Bug::FailoverSendsAgain.alive() { applied } else { committed },
        },
        Some(committed) => match from {
            _ if Bug::OutboxNeverSent.alive() => Recovery::Ready { out: applied },
            Some(_) if Bug::OutboxAlwaysSent.alive() => Recovery::SendAll,
            Some(from) if from <= committed => Recovery::Send { from: committed },
            Some(_) | None => Recovery::Stop(Why::Impossible),
        },
        None if fenced.published >= applied || Bug::FirstBatchLost.alive() => {
            Recovery::Ready { out: applied }
        }
        None if from.is_some() => Recovery::SendAll,
        None => Recovery::Stop(Why::Impossible),
    }
}

#[cfg(all(test, not(feature = "planted")))]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn fenced(applied: i64, published: i64, outbox: Option<(i64, i64)>) -> Fenced {
        Fenced {
            fence: Uuid::nil(),
            applied,
            published,
            starts: 1,
            outbox: outbox.map(|(from, to)| (from, to, Vec::new())),
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let log = (0, 100);
        let open = fenced(9, 5, Some((5, 9)));
        assert_eq!(decide(&open, Some(9), log), Recovery::Ready { out: 9 });
        assert_eq!(decide(&open, Some(5), log), Recovery::Send { from: 5 });
        assert_eq!(decide(&open, Some(7), log), Recovery::Send { from: 7 });
        assert_eq!(decide(&open, Some(4), log), Recovery::Stop(Why::Impossible));
        assert_eq!(decide(&open, Some(20), log), Recovery::Ready { out: 20 });
        assert_eq!(decide(&fenced(9, 9, Some((5, 9))), None, log), Recovery::Ready { out: 9 });
        assert_eq!(decide(&open, None, log), Recovery::SendAll);
        assert_eq!(decide(&fenced(0, 0, None), None, log), Recovery::Ready { out: 0 });
        assert_eq!(decide(&open, Some(9), (10, 100)), Recovery::Stop(Why::OutsideLog));
        assert_eq!(decide(&open, Some(9), (0, 8)), Recovery::Stop(Why::OutsideLog));
    }

    #[test]
    fn an_operators_offset_is_not_believed() {
        let at = |mark: &str| ours(Some(Committed { offset: 7, mark: mark.into() }));
        assert_eq!(at(""), None);
        assert_eq!(at("v1:00"), Some(7));
        assert_eq!(ours(None), None);
    }
}
