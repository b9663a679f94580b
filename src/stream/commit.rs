//! One Kafka transaction, and how it ends (§1.4 of the protocol), one arm a row.
//!
//! Records before offsets, always: a late copy of an EndTxn of the library's own (H9) can then at worst double the
//! same bytes. A transaction is aborted only where the commit was not called: after it nothing is inferred.

use std::time::Duration;

use super::planted::Bug;
use super::{Clock, Metadata, Publisher, TxnError};
use crate::error::Error;
use crate::model::contract::Topic;
use crate::model::record::OutRecord;

/// How a Kafka transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It stands. `disturbed`: the producer may have repeated a request, so it is dropped before the next begin.
    Done {
        /// Whether the producer is dropped.
        disturbed: bool,
    },
    /// It was aborted; `refused` where the metadata was not good any more. The producer is dropped.
    Aborted {
        /// The group metadata was refused.
        refused: bool,
        /// What the library's code was.
        error: Error,
    },
    /// Not known. The producer is dropped, nothing is inferred.
    Unknown(Error),
}

/// What a transaction carries.
pub struct Transaction<'a> {
    /// The input topic, whose offsets are committed.
    pub topic: Topic,
    /// What is sent, in order.
    pub records: &'a [OutRecord],
    /// Partition, offset and mark.
    pub offsets: &'a [(i32, i64, String)],
    /// The attempt's group metadata.
    pub metadata: &'a Metadata,
}

/// Runs a transaction on an open producer. A commit that may be repeated is, until the deadline.
pub async fn transact(
    publisher: &mut impl Publisher,
    clock: &impl Clock,
    transaction: &Transaction<'_>,
    deadline: Duration,
) -> Ending {
    if let Err(error) = publisher.begin().await {
        return match error {
            TxnError::Retriable(error) | TxnError::Lost(error) => Ending::Unknown(error),
            TxnError::Abortable { error, .. } => abort(publisher, false, error).await,
        };
    }
    if let Err(error) = fill(publisher, transaction).await {
        return match error {
            TxnError::Retriable(error) => abort(publisher, false, error).await,
            TxnError::Abortable { member, error } => abort(publisher, member, error).await,
            TxnError::Lost(error) => Ending::Unknown(error),
        };
    }
    let give_up = clock.elapsed() + deadline;
    loop {
        match publisher.commit().await {
            Ok(()) => return Ending::Done { disturbed: publisher.disturbed() },
            Err(TxnError::Retriable(_)) if clock.elapsed() < give_up => {
                clock.sleep(Duration::from_millis(10)).await;
            }
            Err(
                TxnError::Retriable(error)
                | TxnError::Lost(error)
                | TxnError::Abortable { error, .. },
            ) => return Ending::Unknown(error),
        }
    }
}

async fn fill(
    publisher: &mut impl Publisher,
    transaction: &Transaction<'_>,
) -> Result<(), TxnError> {
    let Transaction { topic, records, offsets, metadata } = transaction;
    if Bug::OffsetsFirst.alive() {
        publisher.send_offsets(*topic, offsets, metadata).await?;
        return publisher.send(records).await;
    }
    publisher.send(records).await?;
    if offsets.is_empty() {
        return Ok(());
    }
    publisher.send_offsets(*topic, offsets, metadata).await
}

async fn abort(publisher: &mut impl Publisher, refused: bool, error: Error) -> Ending {
    publisher.abort().await;
    Ending::Aborted { refused, error }
}
