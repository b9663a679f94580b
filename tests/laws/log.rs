//! What every log and every transactional publisher keeps to, in memory and on real brokers.
//!
//! A law is written against the ports alone. A double that passes all of them is known to be faithful where the
//! exactly-once protocol leans on it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, which is what it is for"
)]

use std::time::Duration;

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::record::{Headers, OutRecord, Record};
use biometric_bridge::stream::{Log, Metadata, Owned, Publisher, TxnError};
use bytes::Bytes;

/// The partitions of the topic that members read.
pub(crate) const PARTITIONS: i32 = 4;
/// How long a law waits for what must come.
const PATIENCE: u32 = 600;
const TICK: Duration = Duration::from_millis(50);

/// One group on one topic (`normalised-records`, [`PARTITIONS`] partitions, empty), and an output topic.
pub(crate) trait Broker {
    /// A member.
    type Log: Log;
    /// A publisher.
    type Publisher: Publisher;
    /// Another member of the group.
    fn member(&self) -> Self::Log;
    /// The publisher of a slot.
    fn publisher(&self, slot: &str) -> Self::Publisher;
    /// Appends records to a partition of the topic that members read.
    async fn put(&self, partition: i32, values: &[&str]);
    /// What a reader of committed records sees in `biometric-events`.
    async fn visible(&self) -> Vec<Record>;
}

/// An output.
pub(crate) fn output(value: &str) -> OutRecord {
    OutRecord {
        topic: Topic::BiometricEvents,
        key: Some(Bytes::from_static(b"user:oura")),
        headers: Headers::new().with("event_type", "sleep").with("severity", ""),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    }
}

pub(crate) fn values(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| {
        String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap()
    };
    records.iter().map(text).collect()
}

/// Waits until the member owns what is asked for; gives what it owns.
pub(crate) async fn until(log: &mut impl Log, what: impl Fn(&[Owned]) -> bool) -> Vec<Owned> {
    for _ in 0..PATIENCE {
        let owned = log.owned();
        if what(&owned) {
            return owned;
        }
        log.wait(TICK).await;
    }
    panic!("what the member owns never became what it must: {:?}", log.owned());
}

/// Waits until the member owns so many and none of them is asked for.
pub(crate) async fn until_owns(log: &mut impl Log, count: usize) -> Vec<Owned> {
    until(log, |owned| owned.len() == count && owned.iter().all(|part| !part.revoking)).await
}

/// Takes until there are so many records.
pub(crate) async fn read(log: &mut impl Log, partitions: &[i32], count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    for _ in 0..PATIENCE {
        records.extend(log.take(partitions, count - records.len(), 1 << 20));
        if records.len() >= count {
            return records;
        }
        log.wait(TICK).await;
    }
    panic!("{} of {count} records came", records.len());
}

async fn committed(log: &mut impl Log, partition: i32) -> Option<(i64, String)> {
    for _ in 0..PATIENCE {
        match log.committed(partition).await {
            Ok(found) => return found.map(|found| (found.offset, found.mark)),
            Err(_) => log.wait(TICK).await,
        }
    }
    panic!("the committed offset never became stable");
}

/// One transaction up to its commit.
pub(crate) async fn fill(
    publisher: &mut impl Publisher,
    value: &str,
    offsets: &[(i32, i64, String)],
    metadata: &Metadata,
) -> Result<(), TxnError> {
    publisher.begin().await?;
    publisher.send(&[output(value)]).await?;
    publisher.send_offsets(Topic::NormalisedRecords, offsets, metadata).await
}

/// Nothing is handed out before a seek; a seek decides what is handed out next, forwards and back.
pub(crate) async fn a_member_reads_from_where_it_seeks(broker: &impl Broker) {
    broker.put(0, &["a", "b", "c", "d"]).await;
    broker.put(1, &["x"]).await;
    let mut log = broker.member();
    let owned = until_owns(&mut log, 4).await;
    assert_eq!(owned.iter().map(|part| part.partition).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for _ in 0..5 {
        log.wait(TICK).await;
        assert_eq!(log.take(&[0, 1, 2, 3], 9, 1 << 20), []);
    }
    log.seek(0, 1).await.unwrap();
    assert_eq!(values(&read(&mut log, &[0, 1], 3).await), ["b", "c", "d"]);
    log.seek(0, 0).await.unwrap();
    assert_eq!(values(&read(&mut log, &[0], 2).await), ["a", "b"]);
    log.seek(0, 3).await.unwrap();
    log.seek(1, 0).await.unwrap();
    assert_eq!(values(&read(&mut log, &[0], 1).await), ["d"]);
    assert_eq!(values(&read(&mut log, &[1], 1).await), ["x"]);
    broker.put(0, &["e"]).await;
    let last = read(&mut log, &[0, 1], 1).await;
    assert_eq!((values(&last), last[0].offset), (vec!["e".to_owned()], 4));
    assert_eq!(log.bounds(0).await.unwrap(), (0, 5));
    assert_eq!(log.bounds(3).await.unwrap(), (0, 0));
}

/// A seek in the very moment of the assignment counts: nothing before it and nothing after it is skipped.
pub(crate) async fn a_seek_at_once_skips_nothing(broker: &impl Broker) {
    for partition in 0..PARTITIONS {
        broker.put(partition, &["a", "b", "c", "d", "e"]).await;
    }
    for _ in 0..5 {
        let mut log = broker.member();
        for part in until_owns(&mut log, 4).await {
            log.seek(part.partition, 2).await.unwrap();
        }
        for partition in 0..PARTITIONS {
            let records = read(&mut log, &[partition], 3).await;
            assert_eq!(values(&records), ["c", "d", "e"], "partition {partition}");
        }
        for part in log.owned() {
            log.release(part.partition, part.term);
        }
    }
}

/// A partition passes from one member to another only when the first has released it.
pub(crate) async fn a_revoke_waits_for_its_release(broker: &impl Broker) {
    let mut first = broker.member();
    until_owns(&mut first, 4).await;
    let mut second = broker.member();
    let asked = until(&mut first, |owned| owned.iter().any(|part| part.revoking)).await;
    let asked: Vec<Owned> = asked.into_iter().filter(|part| part.revoking).collect();
    for _ in 0..20 {
        first.wait(TICK).await;
        assert_eq!(second.owned(), [], "given before it was released");
        assert_eq!(first.owned().iter().filter(|part| part.revoking).count(), asked.len());
    }
    let (last, others) = asked.split_last().unwrap();
    others.iter().for_each(|part| first.release(part.partition, part.term));
    first.release(last.partition, last.term + 1_000_000);
    first.wait(TICK).await;
    assert_eq!(second.owned(), [], "another term's release counts for nothing");
    first.release(last.partition, last.term);
    let given = until_owns(&mut second, asked.len()).await;
    let mut kept = until_owns(&mut first, 4 - asked.len()).await;
    kept.extend(given);
    kept.sort_by_key(|part| part.partition);
    assert_eq!(kept.iter().map(|part| part.partition).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

/// A partition that went and came back is at no position and has another term; what it had fetched is gone.
pub(crate) async fn a_partition_that_comes_back_is_another_task(broker: &impl Broker) {
    for partition in 0..PARTITIONS {
        broker.put(partition, &["a", "b"]).await;
    }
    let mut first = broker.member();
    let before = until_owns(&mut first, 4).await;
    for part in &before {
        first.seek(part.partition, 0).await.unwrap();
    }
    assert_eq!(read(&mut first, &[0, 1, 2, 3], 4).await.len(), 4);
    let second = broker.member();
    let asked = until(&mut first, |owned| owned.iter().any(|part| part.revoking)).await;
    for part in asked.iter().filter(|part| part.revoking) {
        first.release(part.partition, part.term);
    }
    until(&mut first, |owned| owned.len() < 4).await;
    drop(second);
    let after = until_owns(&mut first, 4).await;
    let back: Vec<&Owned> = after.iter().filter(|part| !before.contains(part)).collect();
    assert!(!back.is_empty(), "the same term twice");
    for part in back {
        first.wait(TICK).await;
        assert_eq!(first.take(&[part.partition], 9, 1 << 20), []);
        first.seek(part.partition, 1).await.unwrap();
        assert_eq!(values(&read(&mut first, &[part.partition], 1).await), ["b"]);
    }
}

/// A committed offset comes back with the mark that went with it; where none was committed there is none.
pub(crate) async fn an_offset_comes_back_with_its_mark(broker: &impl Broker) {
    broker.put(2, &["a", "b"]).await;
    let mut log = broker.member();
    until_owns(&mut log, 4).await;
    assert_eq!(committed(&mut log, 2).await, None);
    let mut publisher = broker.publisher("0");
    publisher.open().await.unwrap();
    publisher.open().await.unwrap(); // once is enough, twice is no harm
    let metadata = log.metadata();
    assert!(metadata.is_member());
    fill(&mut publisher, "one", &[(2, 1, "v1:mark".into())], &metadata).await.unwrap();
    publisher.commit().await.unwrap();
    assert!(!publisher.disturbed());
    assert_eq!(committed(&mut log, 2).await, Some((1, "v1:mark".to_owned())));
    assert_eq!(committed(&mut log, 3).await, None);
    assert_eq!(values(&broker.visible().await), ["one"]);
    let visible = broker.visible().await;
    assert_eq!(visible[0].headers, output("one").headers);
    assert_eq!(visible[0].key, output("one").key);
    publisher.drop_producer().await;
}

/// Offsets outside of a transaction, as normalise commits them.
pub(crate) async fn a_plain_commit_has_no_mark(broker: &impl Broker) {
    let mut log = broker.member();
    until_owns(&mut log, 4).await;
    log.commit(&[(0, 7), (1, 8)]).await.unwrap();
    assert_eq!(committed(&mut log, 0).await, Some((7, String::new())));
    assert_eq!(committed(&mut log, 1).await, Some((8, String::new())));
}

/// While a transaction with offsets is open its partition's committed offset is an error, and then what it became.
pub(crate) async fn an_open_transactions_offset_is_unstable(broker: &impl Broker) {
    let mut log = broker.member();
    until_owns(&mut log, 4).await;
    let mut publisher = broker.publisher("0");
    publisher.open().await.unwrap();
    let offsets = [(0, 1, "v1:a".to_owned())];
    let metadata = log.metadata();
    fill(&mut publisher, "one", &offsets, &metadata).await.unwrap();
    let unstable = log.committed(0).await;
    assert!(unstable.is_err(), "{unstable:?}");
    publisher.abort().await;
    publisher.drop_producer().await;
    assert_eq!(committed(&mut log, 0).await, None);
    publisher.open().await.unwrap();
    fill(&mut publisher, "two", &offsets, &log.metadata()).await.unwrap();
    assert!(log.committed(0).await.is_err());
    publisher.commit().await.unwrap();
    assert_eq!(committed(&mut log, 0).await, Some((1, "v1:a".to_owned())));
    publisher.drop_producer().await;
}

/// What was aborted, and what was open when its producer died, no reader of committed records ever sees.
pub(crate) async fn an_aborted_transaction_left_nothing(broker: &impl Broker) {
    let mut log = broker.member();
    until_owns(&mut log, 4).await;
    let mut publisher = broker.publisher("0");
    publisher.open().await.unwrap();
    fill(&mut publisher, "aborted", &[(0, 1, "v1:a".into())], &log.metadata()).await.unwrap();
    publisher.abort().await;
    publisher.drop_producer().await;
    publisher.open().await.unwrap();
    fill(&mut publisher, "left open", &[(0, 1, "v1:b".into())], &log.metadata()).await.unwrap();
    publisher.drop_producer().await;
    publisher.open().await.unwrap(); // decides what the slot had open
    assert_eq!(committed(&mut log, 0).await, None);
    fill(&mut publisher, "committed", &[(0, 1, "v1:c".into())], &log.metadata()).await.unwrap();
    publisher.commit().await.unwrap();
    assert_eq!(values(&broker.visible().await), ["committed"]);
    assert_eq!(committed(&mut log, 0).await, Some((1, "v1:c".to_owned())));
    publisher.drop_producer().await;
}

/// Metadata taken before the group moved on is refused, and told from other refusals; new metadata is taken.
pub(crate) async fn metadata_of_an_earlier_generation_is_refused(broker: &impl Broker) {
    let mut first = broker.member();
    until_owns(&mut first, 4).await;
    let stale = first.metadata();
    let mut second = broker.member();
    let asked = until(&mut first, |owned| owned.iter().any(|part| part.revoking)).await;
    for part in asked.iter().filter(|part| part.revoking) {
        first.release(part.partition, part.term);
    }
    until(&mut second, |owned| !owned.is_empty()).await;
    let kept = until(&mut first, |owned| !owned.is_empty() && owned.len() < 4).await[0].partition;
    let mut publisher = broker.publisher("0");
    publisher.open().await.unwrap();
    assert!(!first.metadata().same(&stale), "the group moved on");
    let refused = fill(&mut publisher, "zombie", &[(kept, 1, "v1:z".into())], &stale).await;
    assert!(matches!(refused, Err(TxnError::Abortable { member: true, .. })), "{refused:?}");
    publisher.abort().await;
    publisher.drop_producer().await;
    publisher.open().await.unwrap();
    fill(&mut publisher, "member", &[(kept, 1, "v1:m".into())], &first.metadata()).await.unwrap();
    publisher.commit().await.unwrap();
    assert_eq!(values(&broker.visible().await), ["member"]);
    assert_eq!(committed(&mut first, kept).await, Some((1, "v1:m".to_owned())));
    publisher.drop_producer().await;
}

/// Metadata of a member that has left is refused, although its producer is well.
pub(crate) async fn metadata_of_who_left_is_refused(broker: &impl Broker) {
    let mut first = broker.member();
    until_owns(&mut first, 4).await;
    let stale = first.metadata();
    drop(first);
    let mut second = broker.member();
    until_owns(&mut second, 4).await;
    let mut publisher = broker.publisher("0");
    publisher.open().await.unwrap();
    let refused = fill(&mut publisher, "zombie", &[(0, 1, "v1:z".into())], &stale).await;
    assert!(matches!(refused, Err(TxnError::Abortable { member: true, .. })), "{refused:?}");
    publisher.abort().await;
    publisher.drop_producer().await;
    assert_eq!(committed(&mut second, 0).await, None);
    assert_eq!(broker.visible().await, []);
}

/// A second producer of one slot ends the first one's transaction and the first one itself.
pub(crate) async fn a_slot_has_one_producer(broker: &impl Broker) {
    let mut log = broker.member();
    until_owns(&mut log, 4).await;
    let mut first = broker.publisher("0");
    first.open().await.unwrap();
    fill(&mut first, "first", &[(0, 1, "v1:1".into())], &log.metadata()).await.unwrap();
    let mut second = broker.publisher("0");
    second.open().await.unwrap();
    let lost = first.commit().await;
    assert!(matches!(lost, Err(TxnError::Lost(_))), "{lost:?}");
    first.drop_producer().await;
    assert_eq!(committed(&mut log, 0).await, None);
    fill(&mut second, "second", &[(0, 1, "v1:2".into())], &log.metadata()).await.unwrap();
    second.commit().await.unwrap();
    assert_eq!(values(&broker.visible().await), ["second"]);
    second.drop_producer().await;
}

/// A publisher without a producer says so, and does nothing.
pub(crate) async fn no_producer_no_transaction(broker: &impl Broker) {
    let mut publisher = broker.publisher("0");
    publisher.drop_producer().await;
    assert!(matches!(publisher.begin().await, Err(TxnError::Lost(_))));
    assert!(matches!(publisher.commit().await, Err(TxnError::Lost(_))));
    publisher.abort().await;
    publisher.open().await.unwrap();
    publisher.begin().await.unwrap();
    publisher.send(&[]).await.unwrap();
    publisher.drop_producer().await;
    assert!(matches!(publisher.send(&[output("x")]).await, Err(TxnError::Lost(_))));
}
