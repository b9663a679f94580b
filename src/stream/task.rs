//! One partition's life in a worker: a state machine with a table of legal moves, and nothing else.
//!
//! # Why
//! Long-lived Kafka code rots where a partition's state is spread over callbacks. Here a partition is in one of
//! four states, every move is one arm of [`State::on`], and what is not in the table is a fault of ours that is
//! seen at once. `tests/it/task_table.rs` holds the table, move by move.

use uuid::Uuid;

/// Why a partition has to recover: the label `cause` of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It was assigned.
    Assigned,
    /// Its row in Postgres is not this task's any more.
    NotOurs,
    /// An answer of Postgres was lost.
    LostAnswer,
    /// A Kafka transaction was aborted.
    Aborted,
    /// A Kafka transaction ended, and we do not know how.
    Unknown,
    /// The connection to Postgres is a new one.
    Reconnected,
    /// Deciding failed: ours to mend, tried again one record at a time.
    Internal,
}

impl Cause {
    /// The name on metrics and log lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::NotOurs => "not_ours",
            Self::LostAnswer => "lost_answer",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
            Self::Reconnected => "reconnected",
            Self::Internal => "internal",
        }
    }
}

/// Why a partition stands still until a person looks: going on could lose or double.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// `applied` lies outside of the log: retention overtook us, or it is another topic.
    OutsideLog,
    /// The committed offset, the outbox and `applied` cannot come from this protocol.
    Impossible,
    /// A second writer made the same revision twice in a row.
    SecondWriter,
    /// Only in a planted bug: the earlier text's "stop".
    NotOurs,
}

impl Why {
    /// What happened, for the operator's log line.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OutsideLog => "the log no longer holds what Postgres has not applied",
            Self::Impossible => "committed offset, outbox and progress row contradict each other",
            Self::SecondWriter => "another writer makes the same revisions",
            Self::NotOurs => "the progress row belongs to another task",
        }
    }
}

/// Where a partition stands when nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// This task's fence.
    pub fence: Uuid,
    /// The first offset that Postgres does not have.
    pub applied: i64,
    /// The first offset whose outputs are not known to be in the topic; above `applied` after Postgres lost
    /// commits: what lies between is decided again, silently.
    pub out: i64,
}

/// A partition's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is known for certain; recover before anything else.
    Recovering(Cause),
    /// Nothing is open.
    Ready(Position),
    /// Postgres has a batch up to `next` that Kafka has not answered for.
    Applied(Position, i64),
    /// A person must look.
    Stopped(Why),
}

/// What happens to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Recover has found or made everything right.
    Recovered(Position),
    /// Postgres committed a batch that ends before this offset.
    Applied(i64),
    /// Kafka answered that the batch is in the topic, or nothing had to be sent.
    Sent,
    /// Something did not end well.
    Disturbed(Cause),
    /// Going on is not safe.
    Halted(Why),
}

/// A move that is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal;

impl State {
    /// The state after an event.
    ///
    /// # Errors
    /// [`Illegal`] where the move is not in the table: a fault of ours.
    pub fn on(self, event: Event) -> Result<Self, Illegal> {
        match (self, event) {
            (Self::Recovering(_), Event::Recovered(position)) => Ok(Self::Ready(position)),
            (Self::Ready(at), Event::Applied(next)) if next > at.applied => {
                Ok(Self::Applied(at, next))
            }
            (Self::Applied(at, next), Event::Sent) => {
                Ok(Self::Ready(Position { applied: next, out: at.out.max(next), ..at }))
            }
            (Self::Recovering(_) | Self::Ready(_) | Self::Applied(..), Event::Disturbed(cause)) => {
                Ok(Self::Recovering(cause))
            }
            (Self::Recovering(_) | Self::Ready(_) | Self::Applied(..), Event::Halted(why)) => {
                Ok(Self::Stopped(why))
            }
            (
                Self::Stopped(_) | Self::Recovering(_) | Self::Ready(_) | Self::Applied(..),
                Event::Recovered(_)
                | Event::Applied(_)
                | Event::Sent
                | Event::Disturbed(_)
                | Event::Halted(_),
            ) => Err(Illegal),
        }
    }
}

/// A partition that this worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which assignment of the partition; another term is another task.
    pub term: u64,
    /// Where it stands.
    pub state: State,
    /// Below this offset records go one at a time, each counted before it is tried: after two starts without
    /// progress, as far as the batch can have reached that was under way.
    pub careful_until: i64,
    /// The offset whose try was counted last, and the count: this process has survived it so far, so what the world
    /// does meanwhile is no further try.
    pub tried: Option<(i64, i32)>,
}

impl Task {
    /// A task of a new assignment.
    #[must_use]
    pub const fn new(term: u64) -> Self {
        let state = State::Recovering(Cause::Assigned);
        Self { term, state, careful_until: i64::MIN, tried: None }
    }

    /// Whether its next record goes alone.
    #[must_use]
    pub fn is_careful(&self) -> bool {
        self.ready().is_some_and(|at| at.applied < self.careful_until)
    }

    /// Where it stands, if nothing is open.
    #[must_use]
    pub const fn ready(&self) -> Option<Position> {
        match self.state {
            State::Ready(position) => Some(position),
            State::Recovering(_) | State::Applied(..) | State::Stopped(_) => None,
        }
    }
}
