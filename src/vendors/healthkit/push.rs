//! A push, sorted into buckets: what its samples are to those who count them.
//!
//! A bucket is one source's samples of one type on one UTC day of their start. Nothing that may change chooses
//! it (an offset, a name, the push that a sample came in), or one sample could count in two buckets. So a phone
//! that was set up anew and sends three years again, in other pushes and another order, fills the same buckets
//! with the same sample ids, and brings nothing new.
//!
//! A bucket has **no local date**: it is a UTC day, which for nobody but a Londoner in winter is a day of their
//! life, and what follows from its samples (a night, a day's steps) finds its own date by `domain.md` §2.3.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::error::Reject;
use crate::model::event::{Content, Merge, Op, Reading, flag};
use crate::model::time::{Day, Micros};
use crate::vendors::healthkit::sample::{Circumstance, Sample, Written, sample_id};
use crate::vendors::healthkit::table::{self, Type};
use crate::vendors::wire::json::At;
use crate::vendors::{Item, VendorRecord, What};

const UNKNOWN_TYPE: &str = "unknown type";
const WORKOUTS: &str = "workouts come with sessions";

/// The `record_id` of a removal, which has no record of its own.
const REMOVED: &str = "removed";

/// The arrays of `data`, in the order in which positions run through them.
pub(super) const ARRAYS: [&str; 4] = ["records", "sleep", "workouts", "deleted"];

/// What has been read of a push.
#[derive(Debug)]
pub(super) struct Push<'a> {
    circumstance: Circumstance<'a>,
    vendor_user: Option<&'a str>,
    /// What is no sample: ignored, or bad.
    others: Vec<Item>,
    buckets: Vec<Bucket>,
    /// Where the bucket of a metric, source and day stands.
    known: BTreeMap<(&'static str, Written, Day), usize>,
    /// By metric.
    removals: BTreeMap<&'static str, Removal>,
}

#[derive(Debug)]
struct Bucket {
    index: i32,
    kind: &'static Type,
    written: Written,
    day: Day,
    seen: BTreeSet<Uuid>,
    readings: Vec<Reading>,
    offset_s: Shared<i32>,
    recording_method: Shared<&'static str>,
}

#[derive(Debug)]
struct Removal {
    index: i32,
    seen: BTreeSet<Uuid>,
    removed: Vec<String>,
}

impl<'a> Push<'a> {
    /// Nothing read yet, of this vendor user's push.
    pub(super) fn new(vendor_user: Option<&'a str>, received_at: Micros) -> Self {
        Self {
            circumstance: Circumstance { connection: vendor_user.unwrap_or_default(), received_at },
            vendor_user,
            others: Vec::new(),
            buckets: Vec::new(),
            known: BTreeMap::new(),
            removals: BTreeMap::new(),
        }
    }

    /// Takes in the element at this position, of this array of `data`. A bad one spoils no other.
    pub(super) fn take<'j>(&mut self, array: &'static str, at: &'j At<'j>, index: i32) {
        let taken = match array {
            "records" => self.record(at, index),
            "sleep" => {
                at.object().and_then(|at| self.sample(at, table::SLEEP.identifier, "stage", index))
            }
            "deleted" => self.deleted(at, index),
            _ => Ok(Some(WORKOUTS)),
        };
        match taken {
            Ok(None) => {}
            Ok(Some(why)) => self.other(index, What::Ignored(why)),
            Err(reject) => self.other(index, What::Bad(reject)),
        }
    }

    fn other(&mut self, index: i32, what: What) {
        let vendor_user = self.vendor_user.map(str::to_owned);
        self.others.push(Item { index, vendor_user, what });
    }

    fn record<'j>(&mut self, at: &'j At<'j>, index: i32) -> Result<Option<&'static str>, Reject> {
        let identifier = at.object()?.need("type")?;
        self.sample(at, identifier.text()?, "value", index)
    }

    fn sample<'j>(
        &mut self,
        at: &'j At<'j>,
        identifier: &str,
        value: &'static str,
        index: i32,
    ) -> Result<Option<&'static str>, Reject> {
        let Some(found) = table::find(identifier) else { return Ok(Some(UNKNOWN_TYPE)) };
        let sample = Sample::read(at, found, value, self.circumstance)?;
        self.add(found.0, sample, index);
        Ok(None)
    }

    /// A deletion has an id and a type, and no time: it cannot name its bucket, so decide looks for it.
    fn deleted<'j>(&mut self, at: &'j At<'j>, index: i32) -> Result<Option<&'static str>, Reject> {
        let identifier = at.object()?.need("type")?;
        let identifier = identifier.text()?;
        if identifier == table::WORKOUT {
            return Ok(Some(WORKOUTS));
        }
        let Some((kind, _)) = table::find(identifier) else { return Ok(Some(UNKNOWN_TYPE)) };
        let id = sample_id(at)?
            .ok_or_else(|| Reject::malformed(at.path().key("id"), "a required field is absent"))?;
        let removal = self.removals.entry(kind.metric).or_insert_with(|| Removal {
            index,
            seen: BTreeSet::new(),
            removed: Vec::new(),
        });
        if removal.seen.insert(id) {
            removal.removed.push(id.to_string());
        }
        Ok(None)
    }

    /// Puts a sample where it belongs; one whose id is there already is that sample.
    fn add(&mut self, kind: &'static Type, sample: Sample, index: i32) {
        let day = Day::of_utc(sample.reading.start_at);
        let at = *self
            .known
            .entry((kind.metric, sample.written.clone(), day))
            .or_insert(self.buckets.len());
        if at == self.buckets.len() {
            self.buckets.push(Bucket {
                index,
                kind,
                written: sample.written,
                day,
                seen: BTreeSet::new(),
                readings: Vec::new(),
                offset_s: Shared::default(),
                recording_method: Shared::default(),
            });
        }
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        if bucket.seen.insert(sample.id) {
            bucket.readings.push(sample.reading);
            bucket.offset_s.meet(sample.offset_s);
            bucket.recording_method.meet(Some(sample.recording_method));
        }
    }

    /// What the push says, in the order of the first element of each.
    pub(super) fn items(self) -> Vec<Item> {
        let buckets = self.buckets.into_iter().map(|bucket| (bucket.index, bucket.record()));
        let removals = self
            .removals
            .into_iter()
            .map(|(metric, removal)| (removal.index, removal.record(metric)));
        let vendor_user = self.vendor_user;
        let records = buckets.chain(removals).map(|(index, record)| Item {
            index,
            vendor_user: vendor_user.map(str::to_owned),
            what: What::Record(Box::new(record)),
        });
        let mut items: Vec<_> = self.others.into_iter().chain(records).collect();
        items.sort_by_key(|item| item.index);
        items
    }
}

impl Bucket {
    fn record(self) -> VendorRecord {
        // A reading dated in the future is kept, but does not say when the bucket was: "latest" goes by its end.
        let skewed = self.readings.iter().all(is_skewed);
        let dated = || self.readings.iter().filter(|reading| skewed || !is_skewed(reading));
        let start_at = dated().map(|reading| reading.start_at).min();
        let end_at = dated().map(|reading| reading.end_at.unwrap_or(reading.start_at)).max();
        let offset_s = self.offset_s.value;
        let site = self.kind.body_site.map(|site| ("body_site".to_owned(), site.to_owned()));
        VendorRecord {
            device_type: table::maker(self.written.app.as_deref()).to_owned(),
            via: "direct",
            record_type: record_type(self.kind.metric),
            record_id: format!("{}|{}", self.day, self.written.key()),
            merge: Merge::Union,
            op: Op::Upsert,
            version: None,
            content: Content {
                start_at,
                end_at,
                start_offset_s: offset_s,
                end_offset_s: offset_s,
                offset_provenance: if offset_s.is_some() { "device" } else { "unknown" }.to_owned(),
                state: "final".to_owned(),
                attributes: site.into_iter().collect(),
                app: self.written.app,
                device_model: self.written.model,
                recording_method: Some(self.recording_method.value.unwrap_or("unknown").to_owned()),
                flags: skewed.then(|| flag::CLOCK_SKEW.to_owned()).into_iter().collect(),
                readings: self.readings,
                ..Content::default()
            },
        }
    }
}

impl Removal {
    fn record(self, metric: &str) -> VendorRecord {
        VendorRecord {
            device_type: "apple".to_owned(),
            via: "direct",
            record_type: record_type(metric),
            record_id: REMOVED.to_owned(),
            merge: Merge::Removal,
            op: Op::Delete,
            version: None,
            content: Content {
                offset_provenance: "unknown".to_owned(),
                state: "final".to_owned(),
                removed: self.removed,
                ..Content::default()
            },
        }
    }
}

fn is_skewed(reading: &Reading) -> bool {
    reading.flags.iter().any(|name| name == flag::CLOCK_SKEW)
}

fn record_type(metric: &str) -> String {
    format!("samples.{metric}")
}

/// What all that were met have in common; nothing where two differ.
#[derive(Debug)]
struct Shared<T> {
    met: bool,
    value: Option<T>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { met: false, value: None }
    }
}

impl<T: PartialEq> Shared<T> {
    fn meet(&mut self, value: Option<T>) {
        if !self.met {
            self.met = true;
            self.value = value;
        } else if self.value != value {
            self.value = None;
        }
    }
}
