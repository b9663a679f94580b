//! How much stands before decide: what its group and normalise's have not committed yet. Implements [`Room`].
//!
//! A thread measures, a few times a second and only while somebody asks; who asks is answered by what was measured last
//! and what was let through since. It joins no group and commits nothing: it reads what is committed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::settings::{READ, Settings};
use super::watch::broken;
use crate::error::{Error, Result};
use crate::model::contract::Topic;
use crate::stream::clock::Stopwatch;
use crate::stream::hydration::Room;

const DOING: &str = "measure what stands before decide";
/// The most records that may stand there: a batch of decide's.
const RECORDS_MAX: u64 = 500;
/// What a fetched body counts as: the largest windows have 300 KB, so that four of them are the 1 MiB of a batch.
const BODY: u64 = 125;
/// How long a measurement holds.
const HOLDS: Duration = Duration::from_millis(300);
/// How old one may be while the next one is under way.
const OLD: Duration = Duration::from_secs(2);
/// How often the thread looks whether somebody asks.
const LOOK: Duration = Duration::from_millis(50);

/// The groups whose offsets are read, by the topic that each reads.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Normalise's, of fetched bodies.
    pub normalise: String,
    /// Decide's, of normalised records.
    pub decide: String,
}

/// What was measured last.
#[derive(Debug, Default)]
pub struct Gauge {
    asked: AtomicBool,
    /// Since when so many records stand there, with what was let through.
    measured: Mutex<Option<(Stopwatch, u64)>>,
}

impl Gauge {
    fn measured(&self) -> MutexGuard<'_, Option<(Stopwatch, u64)>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, behind: Option<u64>) {
        *self.measured() = behind.map(|behind| (Stopwatch::start(), behind));
    }

    /// Whether somebody has asked for what nobody knows any more.
    fn is_wanted(&self) -> bool {
        let stale = self.measured().is_none_or(|(since, _)| since.elapsed() >= HOLDS);
        stale && self.asked.swap(false, Ordering::AcqRel)
    }
}

impl Room for Gauge {
    fn is_there(&self) -> bool {
        self.asked.store(true, Ordering::Release);
        let mut measured = self.measured();
        let Some((_, behind)) = measured.as_mut().filter(|(since, _)| since.elapsed() < OLD) else {
            return false;
        };
        let with = behind.saturating_add(BODY);
        if with <= RECORDS_MAX {
            *behind = with;
        }
        with <= RECORDS_MAX
    }
}

/// Measures for `gauge` until `stop` says so. Blocking: its caller gives it a thread.
///
/// # Errors
/// Where the settings are not what the library takes.
pub fn measure(
    settings: &Settings,
    groups: &Groups,
    gauge: &Arc<Gauge>,
    stop: impl Fn() -> bool,
) -> Result<()> {
    let of = |group: &str, topic: Topic| -> Result<(BaseConsumer, String)> {
        let consumer = settings.onlooker(group)?.create().map_err(|error| broken(DOING, &error))?;
        Ok((consumer, settings.physical(topic.name())))
    };
    let bodies = of(&groups.normalise, Topic::RawDocuments)?;
    let records = of(&groups.decide, Topic::NormalisedRecords)?;
    while !stop() {
        if gauge.is_wanted() {
            let measured = behind(&bodies).and_then(|bodies_behind| {
                Ok(bodies_behind.saturating_mul(BODY).saturating_add(behind(&records)?))
            });
            if let Err(Error { kind, code, .. }) = &measured {
                tracing::warn!(kind = kind.name(), %code, "history waits: {DOING}");
            }
            gauge.put(measured.ok());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// How many records of a topic a group has not committed.
fn behind((consumer, topic): &(BaseConsumer, String)) -> Result<u64> {
    let count = || -> KafkaResult<u64> {
        let metadata = consumer.fetch_metadata(Some(topic), READ)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(topic, partition.id());
        }
        let committed = consumer.committed_offsets(list, READ)?;
        let mut behind = 0;
        for one in committed.elements() {
            let (low, high) = consumer.fetch_watermarks(topic, one.partition(), READ)?;
            // What was never committed begins at the beginning.
            let at = match one.offset() {
                Offset::Offset(at) => at.max(low),
                _ => low,
            };
            behind += u64::try_from(high - at).unwrap_or(0);
        }
        Ok(behind)
    };
    count().map_err(|error| broken(DOING, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_only_where_it_is_known_and_it_is_measured_only_where_somebody_asks() {
        let gauge = Gauge::default();
        assert!(!gauge.is_wanted(), "nobody asks");
        assert!(!gauge.is_there(), "nobody knows");
        assert!(gauge.is_wanted() && !gauge.is_wanted(), "asked once, measured once");
        for (behind, bodies) in [(Some(0), 4), (Some(1), 3), (Some(RECORDS_MAX), 0), (None, 0)] {
            gauge.put(behind);
            let let_through = (0..10).filter(|_| gauge.is_there()).count();
            assert_eq!(let_through, bodies, "{behind:?}: four bodies are a batch");
        }
        gauge.put(Some(0));
        assert!(!gauge.is_wanted(), "what was measured holds for a while");
    }
}
