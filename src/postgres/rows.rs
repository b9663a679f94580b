//! How values stand in rows: codes, coordinates, sets of samples.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::contract::Topic;
use crate::model::event::Op;
use crate::model::id::{ContentHash, Place, Source, User};

/// A topic's code; [`Topic::code`] with the type of the column.
pub(super) fn topic_code(topic: Topic) -> i16 {
    i16::from(topic.code())
}

/// The topic of a column.
pub(super) fn topic_of(code: i16) -> Result<Topic> {
    u8::try_from(code).ok().and_then(Topic::of_code).ok_or_else(|| unreadable("topic"))
}

/// UPSERT is 1, DELETE is 2.
pub(super) const fn op_code(op: Op) -> i16 {
    match op {
        Op::Upsert => 1,
        Op::Delete => 2,
    }
}

/// The op of a column.
pub(super) fn op_of(code: i16) -> Result<Op> {
    match code {
        1 => Ok(Op::Upsert),
        2 => Ok(Op::Delete),
        _ => Err(unreadable("op")),
    }
}

/// The place of a column.
pub(super) fn place_of(bytes: &[u8]) -> Result<Place> {
    Place::decode(bytes).ok_or_else(|| unreadable("place"))
}

/// The hash of a column.
pub(super) fn hash_of(bytes: &[u8]) -> Result<ContentHash> {
    bytes.try_into().map(ContentHash).map_err(|_length| unreadable("content_hash"))
}

/// The user of a column.
pub(super) fn user_of(text: &str) -> Result<User> {
    User::parse(text).ok_or_else(|| unreadable("user_id"))
}

/// A row that this system cannot have written.
pub(super) fn unreadable(column: &'static str) -> Error {
    Error::new(crate::error::Kind::InternalError, "read a row: not written by this system", column)
}

/// A value of a row by its position.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(|_type| unreadable("column"))
}

/// Columns of sources, for `UNNEST`.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) topics: Vec<i16>,
    pub(super) partitions: Vec<i32>,
    pub(super) offsets: Vec<i64>,
    pub(super) indexes: Vec<i32>,
}

impl Sources {
    /// Adds one.
    pub(super) fn push(&mut self, source: Source) {
        self.topics.push(topic_code(source.topic));
        self.partitions.push(source.partition);
        self.offsets.push(source.offset);
        self.indexes.push(source.index);
    }
}

/// The source in four columns from this position on.
pub(super) fn source_at(row: &Row, at: usize) -> Result<Source> {
    Ok(Source {
        topic: topic_of(get(row, at)?)?,
        partition: get(row, at + 1)?,
        offset: get(row, at + 2)?,
        index: get(row, at + 3)?,
    })
}

/// What a session's row says was told last: the op's code, then the hash.
pub(super) fn encode_told((op, hash): (Op, ContentHash)) -> Vec<u8> {
    let mut bytes = op_code(op).to_be_bytes().to_vec();
    bytes.extend_from_slice(&hash.0);
    bytes
}

/// What those bytes say.
pub(super) fn told_of(bytes: &[u8]) -> Result<(Op, ContentHash)> {
    let (op, hash) = bytes.split_first_chunk::<2>().ok_or_else(|| unreadable("told"))?;
    Ok((op_of(i16::from_be_bytes(*op))?, hash_of(hash)?))
}

/// Sorted ids, 16 bytes each.
pub(super) fn encode_ids(ids: &BTreeSet<Uuid>) -> Vec<u8> {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

/// The ids of these bytes.
pub(super) fn decode_ids(bytes: &[u8]) -> Result<BTreeSet<Uuid>> {
    let chunks = bytes.chunks_exact(16);
    if !chunks.remainder().is_empty() {
        return Err(unreadable("samples"));
    }
    chunks.map(|id| Uuid::from_slice(id).map_err(|_length| unreadable("samples"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_bytes() {
        let ids: BTreeSet<Uuid> = (0..50).map(|n| Uuid::from_u128(n * 7_919)).collect();
        let bytes = encode_ids(&ids);
        assert_eq!(decode_ids(&bytes), Ok(ids));
        assert!(decode_ids(&bytes[..17]).is_err(), "a cut is not a set");
    }

    #[test]
    fn what_was_told_survives_its_bytes() {
        for op in [Op::Upsert, Op::Delete] {
            let told = (op, ContentHash::of(b"said"));
            let bytes = encode_told(told);
            assert_eq!(told_of(&bytes), Ok(told));
            assert!(told_of(&bytes[1..]).is_err());
            assert!(told_of(&[]).is_err());
        }
    }

    #[test]
    fn codes_are_their_own_inverse() {
        for topic in Topic::ALL {
            assert_eq!(topic_of(topic_code(topic)), Ok(topic));
        }
        for op in [Op::Upsert, Op::Delete] {
            assert_eq!(op_of(op_code(op)), Ok(op));
        }
        assert!(op_of(0).is_err());
        assert!(topic_of(-1).is_err());
    }
}
