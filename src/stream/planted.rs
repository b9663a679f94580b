//! Bugs that break one promise each, for the tests to catch (`make planted`).
//!
//! They exist only in a build with the feature `planted`, which no release has, and one at most is alive: the one
//! that the environment variable `PLANTED` names. Without the feature [`Bug::alive`] is a constant `false` and the
//! compiler drops the branch.

/// A bug, named by the rule that it breaks; most are rows of the protocol's mutation table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The ingress answers 200 before the brokers have the bytes.
    AnswerBeforeAck,
    /// A record that was seen is a duplicate, whoever saw it: no outbox is sent again.
    SeenWithoutOwner,
    /// Neither the fence nor `applied` is compared.
    NoFenceNoCompare,
    /// The group metadata of a recovery is taken after the committed offset was read.
    MetadataLate,
    /// The group metadata is taken anew at `send_offsets`.
    MetadataRefreshed,
    /// Metadata of no member is sent.
    MetadataOfNoMember,
    /// The committed offset is read without waiting for pending transactions.
    UnstableRead,
    /// Recover never sends the outbox.
    OutboxNeverSent,
    /// Recover sends the outbox whatever is committed.
    OutboxAlwaysSent,
    /// The producer lives on after an abort.
    ProducerKeptAfterAbort,
    /// The producer lives on after a commit whose outcome is unknown, which is taken for a success.
    ProducerKeptAfterUnknown,
    /// The next batch goes to Postgres before Kafka has answered.
    NextBatchEarly,
    /// Offsets enter the transaction before the records.
    OffsetsFirst,
    /// The compare is with the batch's first offset.
    CompareFirstOffset,
    /// A row that is not ours stops the task.
    StopInsteadOfRecover,
    /// The revoke returns while a batch runs.
    RevokeDoesNotWait,
    /// The load is not checked against the progress rows.
    LoadNotChecked,
    /// A clock is in the bytes.
    ClockInBytes,
    /// With no committed offset a recovery starts at `applied`.
    FirstBatchLost,
    /// A lost answer of Postgres is taken for a commit.
    LostAnswerIsCommit,
    /// `committed > applied` is sent again instead of silently decided.
    FailoverSendsAgain,
    /// Nobody looks at an idle partition's row.
    IdleNotLooked,
    /// An offset that is not marked as ours is believed.
    ForeignOffsetBelieved,
    /// A second writer's revision is overlooked (`ON CONFLICT DO NOTHING`).
    ConflictIgnored,
    /// A sample of a derived id is replaced by whatever is read last, in order or not.
    DerivedOrderIgnored,
    /// A sleep session of which nothing is left is not deleted.
    SessionStays,
    /// A deletion that comes before its sample is forgotten.
    EarlyRemovalForgotten,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 27] = [
        Self::AnswerBeforeAck,
        Self::SeenWithoutOwner,
        Self::NoFenceNoCompare,
        Self::MetadataLate,
        Self::MetadataRefreshed,
        Self::MetadataOfNoMember,
        Self::UnstableRead,
        Self::OutboxNeverSent,
        Self::OutboxAlwaysSent,
        Self::ProducerKeptAfterAbort,
        Self::ProducerKeptAfterUnknown,
        Self::NextBatchEarly,
        Self::OffsetsFirst,
        Self::CompareFirstOffset,
        Self::StopInsteadOfRecover,
        Self::RevokeDoesNotWait,
        Self::LoadNotChecked,
        Self::ClockInBytes,
        Self::FirstBatchLost,
        Self::LostAnswerIsCommit,
        Self::FailoverSendsAgain,
        Self::IdleNotLooked,
        Self::ForeignOffsetBelieved,
        Self::ConflictIgnored,
        Self::DerivedOrderIgnored,
        Self::SessionStays,
        Self::EarlyRemovalForgotten,
    ];

    /// Whether this bug is planted in this run.
    #[cfg(not(feature = "planted"))]
    #[must_use]
    #[inline]
    pub const fn alive(self) -> bool {
        false
    }

    /// Whether this bug is planted in this run.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn alive(self) -> bool {
        use std::sync::OnceLock;
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "a test build's switch, not configuration")]
        let chosen = CHOSEN.get_or_init(|| std::env::var("PLANTED").ok());
        chosen.as_deref() == Some(format!("{self:?}").as_str())
    }
}
