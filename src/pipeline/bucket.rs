//! A bucket and what a record does to it: the rules of *union* for one sample (`design.md` §5).
//!
//! - An id that was never seen is a new sample, unless its deletion came first: then it is gone as it comes, and the
//!   deletion is no longer waited for.
//! - An id that a device gave is one sample for ever: whatever comes under it again is a duplicate.
//! - An id that is derived from connection, metric, start and source ([`flag::DERIVED_ID`]) names a place in time, and
//!   a later receipt knows better what was measured there: a minute's steps grow while the minute is sent again and
//!   again. Receipts stand in the total order of places, so in which order they are read shows nowhere: what is
//!   above and says something else replaces, what says the same moves the place up, what is below is nothing.
//! - Gone is gone for good, whatever comes later.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::flaw::{Flaw, Flaws};
use super::revise::is_above;
use crate::model::event::{NormalisedRecord, Reading, flag};
use crate::model::id::{ContentHash, Place};
use crate::model::sample::{Doing, Stage, Version};
use crate::model::state::Bucket;

/// The record type of buckets of sleep.
pub const SLEEP_SAMPLES: &str = "samples.sleep_stage";

/// The UTC offsets of a record's samples at their start and at their end.
type Offsets = (Option<i32>, Option<i32>);

/// What a record's samples did to their bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The readings that are new or replace one, in the order of the payload.
    pub added: Vec<Reading>,
    /// The ids of those among `added` that replace one, in order.
    pub replaced: Vec<Uuid>,
    /// Whether ids are seen that were not.
    pub seen: bool,
    /// Whether a place moved up, without another change.
    pub moved: bool,
    /// Whether the bucket's sleep is another.
    pub slept: bool,
    /// Whether a deletion was waited for and is no more.
    pub waited: bool,
}

impl Change {
    /// Whether the bucket is another than before.
    #[must_use]
    pub const fn is_some(&self) -> bool {
        self.seen || self.moved || !self.added.is_empty()
    }
}

/// Takes a record's samples into their bucket; `record` keeps none. Of an id that it has twice the first counts.
pub fn gather(
    bucket: &mut Bucket,
    waiting: &mut BTreeSet<Uuid>,
    record: &mut NormalisedRecord,
    at: Place,
    flaws: Flaws,
) -> Change {
    let mut readings = std::mem::take(&mut record.content.readings);
    let is_sleep = bucket.sample_type.1 == SLEEP_SAMPLES;
    let offsets = is_sleep.then_some((record.content.start_offset_s, record.content.end_offset_s));
    let mut ids: Vec<(Uuid, usize)> = readings
        .iter()
        .enumerate()
        .filter_map(|(index, reading)| Some((sample_id(reading)?, index)))
        .collect();
    ids.sort_unstable();
    ids.dedup_by_key(|(id, _)| *id);
    let mut change = Change::default();
    let mut kept = vec![false; readings.len()];
    let mut new: Vec<(Uuid, bool)> = Vec::new();
    for (id, index) in ids {
        let (Some(reading), Some(keep)) = (readings.get(index), kept.get_mut(index)) else {
            continue;
        };
        let said = || Version { place: at, hash: said(reading, offsets) };
        let version = match bucket.samples.get(&id) {
            None => {
                let gone = !waiting.is_empty() && waiting.remove(&id);
                change.waited |= gone;
                new.push((id, gone));
                if gone {
                    continue;
                }
                is_derived(reading).then(said)
            }
            Some(false) if is_derived(reading) => {
                let version = replacing(bucket, &mut change, id, at, said, flaws);
                if version.is_none() {
                    continue;
                }
                version
            }
            Some(_) => continue,
        };
        *keep = true;
        bucket.versions.extend(version.map(|version| (id, version)));
        if let Some(offsets) = offsets {
            change.slept |= keep_stage(bucket, id, stage(reading, offsets));
        }
    }
    change.seen = !new.is_empty();
    if change.seen {
        bucket.samples.add(&new);
    }
    let mut kept = kept.into_iter();
    readings.retain(|_| kept.next().unwrap_or(false));
    change.added = readings;
    change
}

/// The version by which a sample of a derived id replaces the one that is there; none where it does not, and the place
/// moves up where it only confirms it.
fn replacing(
    bucket: &mut Bucket,
    change: &mut Change,
    id: Uuid,
    at: Place,
    said: impl FnOnce() -> Version,
    flaws: Flaws,
) -> Option<Version> {
    // Without a version it came under a device's own id, and that is one sample for ever.
    let known = bucket.versions.get_mut(&id)?;
    if !is_above(at, known.place) && !flaws.has(Flaw::OrderIgnored) {
        return None;
    }
    let version = said();
    if known.hash == version.hash {
        known.place = at;
        change.moved = true;
        return None;
    }
    change.replaced.push(id);
    Some(version)
}

/// Keeps what a sample of sleep says; gives whether that is something else than it said before.
fn keep_stage(bucket: &mut Bucket, id: Uuid, stage: Option<Stage>) -> bool {
    let before = match stage {
        Some(stage) => bucket.stages.insert(id, stage),
        None => bucket.stages.remove(&id),
    };
    before != stage
}

/// A sample that is gone: what was to say about it is forgotten, that it was there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whether it was there until now.
    pub was_there: bool,
    /// Whether the bucket's sleep is another.
    pub slept: bool,
}

/// Marks a sample as gone; nothing where the bucket never saw it.
pub fn lose(bucket: &mut Bucket, id: &Uuid) -> Option<Lost> {
    let was_gone = bucket.samples.mark_gone(id)?;
    bucket.versions.remove(id);
    let slept = bucket.stages.remove(id).is_some();
    Some(Lost { was_there: !was_gone, slept })
}

/// The bucket that holds a sample, of buckets that stand the newest day first: in every batching the same one.
#[must_use]
pub fn holder<'a>(newest_first: &[&'a Bucket], id: &Uuid) -> Option<&'a Bucket> {
    newest_first.iter().copied().find(|bucket| bucket.samples.get(id).is_some())
}

/// Sample ids of text, in order; what is no id is left out, because normalise writes none.
#[must_use]
pub fn sample_ids(texts: &[String]) -> BTreeSet<Uuid> {
    texts.iter().filter_map(|text| Uuid::try_parse(text).ok()).collect()
}

/// A reading's sample id.
#[must_use]
pub fn sample_id(reading: &Reading) -> Option<Uuid> {
    reading.sample_id.as_deref().and_then(|text| Uuid::try_parse(text).ok())
}

fn is_derived(reading: &Reading) -> bool {
    reading.flags.iter().any(|name| name == flag::DERIVED_ID)
}

/// A reading as a sample of sleep. One from the future is in no session: its clock is not believed.
fn stage(reading: &Reading, (start_offset_s, end_offset_s): Offsets) -> Option<Stage> {
    let end_at = reading.end_at.filter(|end| *end > reading.start_at)?;
    let doing = Doing::parse(reading.symbol.as_deref()?)?;
    let start_at = reading.start_at;
    let stage = Stage { start_at, end_at, doing, start_offset_s, end_offset_s };
    reading.is_plausible().then_some(stage)
}

/// What a sample of a derived id says, as a hash: all of its reading but the id, and of sleep the offsets, too.
fn said(reading: &Reading, offsets: Option<Offsets>) -> ContentHash {
    let mut bytes = Vec::with_capacity(96);
    let mut number = |value: Option<[u8; 8]>| match value {
        Some(value) => {
            bytes.push(1);
            bytes.extend_from_slice(&value);
        }
        None => bytes.push(0),
    };
    number(reading.value.map(f64::to_be_bytes));
    number(Some(reading.start_at.to_be_bytes()));
    number(reading.end_at.map(i64::to_be_bytes));
    number(reading.window_s.map(|window| i64::from(window).to_be_bytes()));
    let (start, end) = offsets.unwrap_or_default();
    [start, end].into_iter().for_each(|at| number(at.map(|at| i64::from(at).to_be_bytes())));
    let texts = [&reading.symbol, &reading.unit, &reading.method, &reading.context];
    let texts = texts.into_iter().map(|text| text.as_deref());
    let flags = reading.flags.iter().map(|flag| Some(flag.as_str()));
    for text in std::iter::once(Some(reading.metric.as_str())).chain(texts).chain(flags) {
        // No name of ours holds a zero byte, and an absent text is not an empty one.
        bytes.extend_from_slice(text.map_or(&[1], str::as_bytes));
        bytes.push(0);
    }
    ContentHash::of(&bytes)
}
