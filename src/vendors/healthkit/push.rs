//! A push, sorted into buckets: what its samples are to those who count them.
//!
//! A bucket is one source's samples of one type on one UTC day of their start. Nothing that may change chooses
//! it (an offset, a name, the push that a sample came in), or one sample could count in two buckets. So a phone
//! that was set up anew and sends three years again, in other pushes and another order, fills the same buckets
//! with the same sample ids, and brings nothing new.
//!
//! A bucket has **no local date**: it is a UTC day, which for nobody but a Londoner in winter is a day of their
//! life, and what follows from its samples (a night, a day's steps) finds its own date by `domain.md` §2.3. For that
//! the samples of one record have one pair of offsets: a bucket whose samples have two comes as two records.
//!
//! # Decisions
//! - An id that stands twice in a push is one sample: with an id of its own the first (HealthKit's samples never
//!   change), with a derived one the last (it is what was said later).
//! - What is ignored is one item for each reason, at the first of its positions: a phone sends thousands of samples
//!   of types that we do not know.
//! - Each bad element is an item of its own, up to [`BAD_MAX`]; what is bad after them is told by the last one. So
//!   a body of nothing but commas and ones costs no more memory than one of samples.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::error::{Path, Reject};
use crate::model::event::{Content, Merge, Op, Reading, flag};
use crate::model::time::{Day, Micros};
use crate::vendors::healthkit::element::{Element, malformed};
use crate::vendors::healthkit::sample::{Circumstance, Found, Offsets, Recent, Sample, uuid};
use crate::vendors::healthkit::source::{Sources, Unread, Written};
use crate::vendors::healthkit::table::{self, Type};
use crate::vendors::healthkit::workout;
use crate::vendors::{Item, VendorRecord, What};

/// How many bad elements of a push are told one by one.
pub(super) const BAD_MAX: usize = 50_000;

const UNKNOWN_TYPE: &str = "unknown type";

/// The `record_id` of a removal, which has no record of its own.
const REMOVED: &str = "removed";

/// An element's position: its array's place in [`super::ARRAYS`], then its own in that array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) array: usize,
    pub(super) index: usize,
}

/// What has been read of a push.
#[derive(Debug)]
pub(super) struct Push<'a, 'de> {
    pub(super) circumstance: Circumstance<'a>,
    vendor_user: Option<&'a str>,
    pub(super) recent: Recent<'de>,
    pub(super) sources: Sources<'de>,
    /// Records that are no buckets.
    records: Vec<(Place, VendorRecord)>,
    buckets: Vec<Bucket>,
    /// Where the bucket of a metric, source and day stands.
    known: BTreeMap<Key, usize>,
    /// The bucket of the sample before.
    last: Option<(Key, usize)>,
    /// By metric.
    removals: BTreeMap<&'static str, Removal>,
    /// By reason.
    ignored: BTreeMap<&'static str, Place>,
    bad: Vec<(Place, Reject)>,
    /// Why none of it can be read.
    fatal: Option<Reject>,
}

/// A metric, a place in [`Sources`], a UTC day.
type Key = (&'static str, usize, Day);

#[derive(Debug)]
struct Bucket {
    kind: &'static Type,
    source: usize,
    day: Day,
    groups: Vec<Group>,
    samples: Vec<Kept>,
}

/// The samples of a bucket that have the same offsets: one record.
#[derive(Debug)]
struct Group {
    first: Place,
    offsets: Offsets,
    recording_method: Shared<&'static str>,
}

#[derive(Debug)]
struct Kept {
    id: Uuid,
    derived: bool,
    group: usize,
    reading: Reading,
}

#[derive(Debug)]
struct Removal {
    first: Place,
    seen: BTreeSet<Uuid>,
    removed: Vec<String>,
}

impl<'a, 'de> Push<'a, 'de> {
    /// Nothing read yet, of this vendor user's push.
    pub(super) fn new(vendor_user: Option<&'a str>, received_at: Micros) -> Self {
        Self {
            circumstance: Circumstance { connection: vendor_user.unwrap_or_default(), received_at },
            vendor_user,
            recent: Recent::default(),
            sources: Sources::default(),
            records: Vec::new(),
            buckets: Vec::new(),
            known: BTreeMap::new(),
            last: None,
            removals: BTreeMap::new(),
            ignored: BTreeMap::new(),
            bad: Vec::new(),
            fatal: None,
        }
    }

    /// Takes in an element of `data.<array>`. A bad one spoils no other.
    pub(super) fn element(&mut self, place: Place, is_object: bool, element: &Element<'de>) {
        let array = super::ARRAYS.get(place.array).copied().unwrap_or_default();
        let taken = if !is_object {
            Err(Reject::malformed(Path::root(), "not an object").into())
        } else {
            match array {
                "records" => self.record(element, place),
                "sleep" => self.sleep(element, place),
                "workouts" => self.workout(element, place),
                _ => self.deleted(element, place),
            }
        };
        let at = || Path::root().key("data").key(array).at(place.index);
        self.settle(place, at, taken);
    }

    /// Notes why an element is no sample, if it is none; `at` is its path.
    pub(super) fn settle(
        &mut self,
        place: Place,
        at: impl FnOnce() -> Path,
        taken: Result<Option<&'static str>, Unread>,
    ) {
        match taken {
            Ok(None) => {}
            Ok(Some(why)) => self.ignore(why, place),
            Err(Unread::Body(reject)) => self.fail(Reject { position: None, ..reject }),
            Err(Unread::Element(_)) if self.bad.len() > BAD_MAX => {}
            Err(Unread::Element(reject)) => {
                let mut reject = Reject { at: at().then(&reject.at), ..reject };
                if self.bad.len() == BAD_MAX {
                    reject.why = "the first of more bad elements than are told one by one";
                }
                self.bad.push((place, reject));
            }
        }
    }

    /// None of it can be read; the first reason stays.
    pub(super) fn fail(&mut self, reject: Reject) {
        self.fatal.get_or_insert(reject);
    }

    /// Ignored for this reason, here for the first time or again.
    pub(super) fn ignore(&mut self, why: &'static str, place: Place) {
        let first = self.ignored.entry(why).or_insert(place);
        *first = place.min(*first);
    }

    /// A record that is no bucket.
    pub(super) fn whole(&mut self, place: Place, record: VendorRecord) {
        self.records.push((place, record));
    }

    fn record(&mut self, element: &Element<'de>, place: Place) -> Taken {
        match self.recent.kind(element)? {
            None => Ok(Some(UNKNOWN_TYPE)),
            Some(found) => self.sample(element, found, "value", place),
        }
    }

    fn sleep(&mut self, element: &Element<'de>, place: Place) -> Taken {
        match table::find(table::SLEEP.identifier) {
            None => Ok(Some(UNKNOWN_TYPE)),
            Some(found) => self.sample(element, found, "stage", place),
        }
    }

    fn sample(
        &mut self,
        element: &Element<'de>,
        found: Found,
        value: &'static str,
        place: Place,
    ) -> Taken {
        let state = (&mut self.recent, &mut self.sources);
        let sample = Sample::read(element, found, value, state, self.circumstance)?;
        self.add(found.0, sample, place);
        Ok(None)
    }

    fn workout(&mut self, element: &Element<'de>, place: Place) -> Taken {
        let record = workout::read(element, self)?;
        self.whole(place, record);
        Ok(None)
    }

    /// A deletion has an id and a type, and no time: it cannot name its bucket, so decide looks for it.
    fn deleted(&mut self, element: &Element<'de>, place: Place) -> Taken {
        let found = self.recent.kind(element)?;
        let is_workout = element.kind.text() == Some(table::WORKOUT);
        if found.is_none() && !is_workout {
            return Ok(Some(UNKNOWN_TYPE));
        }
        let id = uuid(&element.id)?.ok_or_else(|| malformed("id", "a required field is absent"))?;
        let Some((kind, _)) = found else {
            self.whole(place, workout::gone(id));
            return Ok(None);
        };
        let removal = self.removals.entry(kind.metric).or_insert_with(|| Removal {
            first: place,
            seen: BTreeSet::new(),
            removed: Vec::new(),
        });
        removal.first = place.min(removal.first);
        if removal.seen.insert(id) {
            removal.removed.push(id.to_string());
        }
        Ok(None)
    }

    /// Puts a sample where it belongs.
    pub(super) fn add(&mut self, kind: &'static Type, sample: Sample, place: Place) {
        let key = (kind.metric, sample.source, Day::of_utc(sample.reading.start_at));
        let at = match self.last {
            Some((last, at)) if last == key => at,
            _ => *self.known.entry(key).or_insert(self.buckets.len()),
        };
        self.last = Some((key, at));
        if at == self.buckets.len() {
            let (source, day) = (key.1, key.2);
            let (groups, samples) = (Vec::new(), Vec::new());
            self.buckets.push(Bucket { kind, source, day, groups, samples });
        }
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        let group = bucket.group(sample.offsets, place);
        let Sample { id, derived, reading, recording_method, .. } = sample;
        bucket.samples.push(Kept { id, derived, group, reading });
        if let Some(group) = bucket.groups.get_mut(group) {
            group.recording_method.meet(recording_method);
        }
    }

    /// What the push says, in the order of the first element of each; `lengths` are those of the arrays.
    ///
    /// # Errors
    /// The reject of the whole body.
    pub(super) fn items(self, lengths: &[usize]) -> Result<Vec<Item>, Reject> {
        if let Some(fatal) = self.fatal {
            return Err(fatal);
        }
        let mut found: Vec<(Place, What)> = Vec::new();
        let record = |record| What::Record(Box::new(record));
        found.extend(self.records.into_iter().map(|(place, whole)| (place, record(whole))));
        for bucket in self.buckets {
            let written = self.sources.written(bucket.source).clone();
            let records = bucket.records(&written);
            found.extend(records.into_iter().map(|(place, made)| (place, record(made))));
        }
        let removals = self.removals.into_iter();
        found.extend(removals.map(|(metric, gone)| (gone.first, record(gone.record(metric)))));
        found.extend(self.ignored.into_iter().map(|(why, place)| (place, What::Ignored(why))));
        found.extend(self.bad.into_iter().map(|(place, reject)| (place, What::Bad(reject))));
        found.sort_by_key(|(place, _)| *place);
        let vendor_user = self.vendor_user;
        let item = |(place, what): (Place, What)| Item {
            index: position(place, lengths),
            vendor_user: vendor_user.map(str::to_owned),
            what,
        };
        Ok(found.into_iter().map(item).collect())
    }
}

/// What became of an element: nothing to say, ignored, or not read.
type Taken = Result<Option<&'static str>, Unread>;

/// A place as a number that runs through the arrays of a body, whatever order they stand in.
pub(super) fn position(place: Place, lengths: &[usize]) -> i32 {
    let before: usize = lengths.iter().take(place.array).sum();
    i32::try_from(before.saturating_add(place.index)).unwrap_or(i32::MAX)
}

impl Bucket {
    /// The place of the group of these offsets, which begins at `place` where there is none.
    fn group(&mut self, offsets: Offsets, place: Place) -> usize {
        for (at, group) in self.groups.iter_mut().enumerate() {
            if group.offsets == offsets {
                group.first = place.min(group.first);
                return at;
            }
        }
        self.groups.push(Group { first: place, offsets, recording_method: Shared::default() });
        self.groups.len() - 1
    }

    /// One record for each pair of offsets.
    fn records(mut self, written: &Written) -> Vec<(Place, VendorRecord)> {
        self.keep_one_of_each_id();
        let mut readings: Vec<Vec<Reading>> = self.groups.iter().map(|_| Vec::new()).collect();
        if let [only] = readings.as_mut_slice() {
            only.reserve_exact(self.samples.len());
        }
        for kept in self.samples {
            if let Some(readings) = readings.get_mut(kept.group) {
                let sample_id = Some(kept.id.to_string());
                readings.push(Reading { sample_id, ..kept.reading });
            }
        }
        let (kind, day) = (self.kind, self.day);
        let groups = self.groups.into_iter().zip(readings);
        // A group whose every sample stands in another one says nothing.
        let full = groups.filter(|(_, readings)| !readings.is_empty());
        full.map(|(group, readings)| (group.first, group.record(kind, day, written, readings)))
            .collect()
    }

    fn keep_one_of_each_id(&mut self) {
        let mut order: Vec<(Uuid, usize)> =
            self.samples.iter().zip(0..).map(|(kept, at)| (kept.id, at)).collect();
        order.sort_unstable();
        let mut doubled = BTreeSet::new();
        for (one, next) in order.iter().zip(order.iter().skip(1)) {
            if one.0 == next.0 {
                let derived = self.samples.get(next.1).is_some_and(|kept| kept.derived);
                doubled.insert(if derived { one.1 } else { next.1 });
            }
        }
        if !doubled.is_empty() {
            let mut at = 0..;
            self.samples.retain(|_| at.next().is_none_or(|at| !doubled.contains(&at)));
        }
    }
}

impl Group {
    fn record(
        self,
        kind: &Type,
        day: Day,
        written: &Written,
        readings: Vec<Reading>,
    ) -> VendorRecord {
        // A reading dated in the future is kept, but does not say when the bucket was: "latest" goes by its end.
        let skewed = readings.iter().all(is_skewed);
        let dated = || readings.iter().filter(|reading| skewed || !is_skewed(reading));
        let start_at = dated().map(|reading| reading.start_at).min();
        let end_at = dated().map(|reading| reading.end_at.unwrap_or(reading.start_at)).max();
        let site = kind.body_site.map(|site| ("body_site".to_owned(), site.to_owned()));
        VendorRecord {
            device_type: table::maker(written.app.as_deref()).to_owned(),
            via: "direct",
            record_type: record_type(kind.metric),
            record_id: format!("{day}|{}", written.key()),
            merge: Merge::Union,
            op: Op::Upsert,
            version: None,
            content: Content {
                start_at,
                end_at,
                start_offset_s: self.offsets.start_s,
                end_offset_s: self.offsets.end_s,
                offset_provenance: self.offsets.provenance().to_owned(),
                state: "final".to_owned(),
                attributes: site.into_iter().collect(),
                app: written.app.clone(),
                device_model: written.model.clone(),
                recording_method: Some(self.recording_method.value.unwrap_or("unknown").to_owned()),
                flags: skewed.then(|| flag::CLOCK_SKEW.to_owned()).into_iter().collect(),
                readings,
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
    fn meet(&mut self, value: T) {
        if !self.met {
            self.met = true;
            self.value = Some(value);
        } else if self.value.as_ref() != Some(&value) {
            self.value = None;
        }
    }
}
