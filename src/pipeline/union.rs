//! Samples that gather by their id, and samples that are gone: buckets, from a record to its revision.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::decide::Thread;
use super::plan;
use crate::error::Result;
use crate::model::event::{Content, Merge, NormalisedRecord, Op, Reading, flag};
use crate::model::id::EventId;
use crate::model::record::Record;
use crate::model::state::{Bucket, Verdict};

impl Thread<'_> {
    pub(super) fn union(
        &mut self,
        input: &Record,
        mut record: NormalisedRecord,
    ) -> Result<Verdict> {
        let id = record.event_id;
        let sample_type = plan::sample_type(&record);
        let mut bucket = self.known.buckets.remove(&id).unwrap_or_else(|| bucket_of(&record));
        let waiting = self.known.waiting.entry(sample_type.clone()).or_default();
        let (seen, waited) = (bucket.samples.len(), waiting.len());
        let readings = std::mem::take(&mut record.content.readings);
        let added = gather(&mut bucket, waiting, readings);
        if waiting.len() != waited {
            self.outcome.waiting.insert(sample_type, waiting.clone());
        }
        let verdict = if added.is_empty() {
            if bucket.samples.len() == seen {
                Verdict::Duplicate(id, bucket.revision)
            } else {
                Verdict::Ignored("removed before it came")
            }
        } else {
            bucket.revision += 1;
            date(&mut record.content, &added);
            record.content.readings = added;
            self.publish_bucket(input, record, bucket.revision)?;
            Verdict::Published(id, bucket.revision)
        };
        if bucket.samples.len() != seen {
            self.outcome.buckets.insert(id, bucket.clone());
        }
        self.known.buckets.insert(id, bucket);
        Ok(verdict)
    }

    /// Sample ids that are gone: marked where they are, waited for where they are not.
    pub(super) fn removal(&mut self, input: &Record, record: &NormalisedRecord) -> Result<Verdict> {
        let sample_type = plan::sample_type(record);
        let mut marked: BTreeMap<EventId, Vec<Uuid>> = BTreeMap::new();
        let mut waits = false;
        for id in sample_ids(&record.content.removed) {
            let of_type =
                self.known.buckets.values().filter(|bucket| bucket.sample_type == sample_type);
            match holder(of_type, &id).map(|bucket| bucket.event_id) {
                Some(event_id) => {
                    let bucket = self.known.buckets.get_mut(&event_id);
                    let gone = bucket.and_then(|bucket| bucket.samples.insert(id, true));
                    if gone == Some(false) {
                        marked.entry(event_id).or_default().push(id);
                    }
                }
                None => {
                    let waiting = self.known.waiting.entry(sample_type.clone()).or_default();
                    waits |= waiting.insert(id);
                }
            }
        }
        if waits && let Some(waiting) = self.known.waiting.get(&sample_type) {
            self.outcome.waiting.insert(sample_type, waiting.clone());
        }
        let mut verdict = Verdict::Duplicate(record.event_id, 0);
        if waits {
            verdict = Verdict::Waiting;
        }
        for (event_id, ids) in marked {
            let Some(bucket) = self.known.buckets.get_mut(&event_id) else { continue };
            bucket.revision += 1;
            let bucket = bucket.clone();
            let removed = ids.iter().map(Uuid::to_string).collect();
            let changed = NormalisedRecord {
                event_id,
                device_type: bucket.device_type.clone(),
                record_id: bucket.record_id.clone(),
                merge: Merge::Union,
                // The bucket is still there; it is samples of it that are gone.
                op: Op::Upsert,
                content: Content {
                    offset_provenance: "unknown".to_owned(),
                    state: "final".to_owned(),
                    removed,
                    ..Content::default()
                },
                ..record.clone()
            };
            self.publish_bucket(input, changed, bucket.revision)?;
            verdict = Verdict::Published(event_id, bucket.revision);
            self.outcome.buckets.insert(event_id, bucket);
        }
        Ok(verdict)
    }
}

/// Takes samples into a bucket: gives those that are new and there. A sample whose deletion came first is marked
/// at once and is no longer waited for.
pub fn gather(
    bucket: &mut Bucket,
    waiting: &mut BTreeSet<Uuid>,
    readings: Vec<Reading>,
) -> Vec<Reading> {
    let mut added = Vec::new();
    for reading in readings {
        let Some(id) = sample_id(&reading) else { continue };
        if bucket.samples.contains_key(&id) {
            continue;
        }
        let gone = waiting.remove(&id);
        bucket.samples.insert(id, gone);
        if !gone {
            added.push(reading);
        }
    }
    added
}

/// The bucket that holds a sample, the newest day first: in every batching the same one.
#[must_use]
pub fn holder<'a>(buckets: impl Iterator<Item = &'a Bucket>, id: &Uuid) -> Option<&'a Bucket> {
    buckets
        .filter(|bucket| bucket.samples.contains_key(id))
        .max_by_key(|bucket| (bucket.day, bucket.event_id))
}

/// Sample ids of text, in order; what is no id is left out, because normalise writes none.
#[must_use]
pub fn sample_ids(texts: &[String]) -> BTreeSet<Uuid> {
    texts.iter().filter_map(|text| Uuid::parse_str(text).ok()).collect()
}

/// A reading's sample id.
#[must_use]
pub fn sample_id(reading: &Reading) -> Option<Uuid> {
    reading.sample_id.as_deref().and_then(|text| Uuid::parse_str(text).ok())
}

/// Dates a content by these readings: a reading from the future dates it only where all are, or one wrong clock would
/// be the latest for ever.
fn date(content: &mut Content, readings: &[Reading]) {
    let is_skewed = |reading: &&Reading| reading.flags.iter().any(|name| name == flag::CLOCK_SKEW);
    let all = readings.iter().all(|reading| is_skewed(&reading));
    let dated = || readings.iter().filter(|reading| all || !is_skewed(reading));
    content.start_at = dated().map(|reading| reading.start_at).min();
    content.end_at = dated().map(|reading| reading.end_at.unwrap_or(reading.start_at)).max();
}

/// A bucket that has seen nothing.
fn bucket_of(record: &NormalisedRecord) -> Bucket {
    Bucket {
        event_id: record.event_id,
        user: record.user_id.clone(),
        sample_type: plan::sample_type(record),
        record_id: record.record_id.clone(),
        vendor: record.vendor.clone(),
        device_type: record.device_type.clone(),
        day: day_of(&record.record_id),
        revision: 0,
        samples: BTreeMap::new(),
    }
}

/// The UTC day with which a bucket's natural key begins.
fn day_of(record_id: &str) -> i32 {
    let day = record_id.split('|').next().and_then(crate::model::time::Day::parse);
    day.map_or(0, |day| day.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start_at: i64, skewed: bool) -> Reading {
        let metric = crate::model::metric::find("heart_rate").expect("a metric");
        let mut reading = metric.reading(60.0, start_at, None);
        reading.flags.extend(skewed.then(|| flag::CLOCK_SKEW.to_owned()));
        reading
    }

    #[test]
    fn a_reading_from_the_future_does_not_date_its_bucket() {
        let mut content = Content::default();
        date(&mut content, &[at(5, false), at(9, false), at(99, true)]);
        assert_eq!((content.start_at, content.end_at), (Some(5), Some(9)));
        date(&mut content, &[at(99, true)]);
        assert_eq!(content.end_at, Some(99), "it is all there is");
    }
}
