//! What a bucket keeps of its samples: which it has seen, and no more of each than decisions need.
//!
//! | kept | of | bytes a sample |
//! | --- | --- | --- |
//! | [`Samples`]: its id, and whether it is gone | every sample | 17 |
//! | [`Version`]: where it stands and what it says | one whose id is derived, while it is there | 36, and 29 a receipt |
//! | [`Stage`]: the stage, from when to when, at which offsets | one of sleep, while it is there | 41 |
//!
//! Years of samples pass through here, so what all of them have is one sorted run of bytes, which is searched and merged
//! as it is and goes to the database and back without being read. The other two are of few samples.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::id::{ContentHash, Place};
use super::time::Micros;

// ── what was seen ──────────────────────────────────────────────────────────────────────────────────────────

/// Bytes of a sample: its id, and 1 where it is gone for good.
const SAMPLE_BYTES: usize = 17;

/// The samples that a bucket has seen, and which of them are gone: a sorted map of ids, as its bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Samples {
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_map().entries(self.iter()).finish()
    }
}

impl Samples {
    /// The samples of these bytes; nothing where [`Samples::bytes`] never wrote them.
    #[must_use]
    pub fn of_bytes(bytes: Vec<u8>) -> Option<Self> {
        let samples = Self { bytes };
        let (entries, rest) = samples.bytes.as_chunks::<SAMPLE_BYTES>();
        let sorted = entries.is_sorted_by(|one, next| id_of(one) < id_of(next));
        (rest.is_empty() && sorted).then_some(samples)
    }

    /// The bytes: sorted by id, 17 a sample, its id and then 0, or 1 where it is gone.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether this sample is gone; nothing where it was never seen.
    #[must_use]
    pub fn get(&self, id: &Uuid) -> Option<bool> {
        let at = self.find(id).ok()?;
        self.entries().get(at).map(is_gone)
    }

    /// Marks a sample as gone; gives whether it was already, and nothing where it was never seen.
    pub fn mark_gone(&mut self, id: &Uuid) -> Option<bool> {
        let at = self.find(id).ok()?;
        let (entries, _) = self.bytes.as_chunks_mut::<SAMPLE_BYTES>();
        let mark = entries.get_mut(at)?.last_mut()?;
        Some(std::mem::replace(mark, 1) != 0)
    }

    /// Adds samples that were never seen, in one pass; `new` is sorted by id, and none is there twice.
    ///
    /// # Panics
    /// In a test build, where one was seen.
    pub fn add(&mut self, new: &[(Uuid, bool)]) {
        let mut merged = Vec::with_capacity(self.bytes.len() + new.len() * SAMPLE_BYTES);
        let mut rest = self.entries();
        for (id, gone) in new {
            let at = rest.partition_point(|entry| id_of(entry) < id.as_bytes().as_slice());
            let (before, after) = rest.split_at_checked(at).unwrap_or_default();
            debug_assert!(after.first().is_none_or(|next| id_of(next) != id.as_bytes()));
            merged.extend_from_slice(before.as_flattened());
            merged.extend_from_slice(id.as_bytes());
            merged.push(u8::from(*gone));
            rest = after;
        }
        merged.extend_from_slice(rest.as_flattened());
        self.bytes = merged;
    }

    /// Every sample by its id, and whether it is gone.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, bool)> {
        let id = |entry| Uuid::from_slice(id_of(entry)).unwrap_or_default();
        self.entries().iter().map(move |entry| (id(entry), is_gone(entry)))
    }

    fn entries(&self) -> &[[u8; SAMPLE_BYTES]] {
        self.bytes.as_chunks().0
    }

    fn find(&self, id: &Uuid) -> Result<usize, usize> {
        self.entries().binary_search_by(|entry| id_of(entry).cmp(id.as_bytes().as_slice()))
    }
}

/// Whether one of these ids is among samples as their bytes, which are not copied for it.
#[must_use]
pub fn any_in(bytes: &[u8], ids: &BTreeSet<Uuid>) -> bool {
    let (entries, _) = bytes.as_chunks::<SAMPLE_BYTES>();
    // Few against many are searched for, whichever are the few; many against many are walked along.
    if ids.len() < entries.len() / 8 {
        return ids.iter().any(|id| {
            entries.binary_search_by(|entry| id_of(entry).cmp(id.as_bytes().as_slice())).is_ok()
        });
    }
    if entries.len() < ids.len() / 8 {
        let id = |entry| Uuid::from_slice(id_of(entry)).unwrap_or_default();
        return entries.iter().any(|entry| ids.contains(&id(entry)));
    }
    let mut wanted = ids.iter().peekable();
    for entry in entries {
        while wanted.next_if(|id| id.as_bytes().as_slice() < id_of(entry)).is_some() {}
        match wanted.peek() {
            Some(id) if id.as_bytes() == id_of(entry) => return true,
            Some(_) => {}
            None => return false,
        }
    }
    false
}

fn id_of(entry: &[u8; SAMPLE_BYTES]) -> &[u8] {
    entry.split_last().map_or(&[], |(_, id)| id)
}

fn is_gone(entry: &[u8; SAMPLE_BYTES]) -> bool {
    entry.last().is_some_and(|mark| *mark != 0)
}

impl FromIterator<(Uuid, bool)> for Samples {
    /// Of an id that is there twice the last counts.
    fn from_iter<T: IntoIterator<Item = (Uuid, bool)>>(samples: T) -> Self {
        let sorted: BTreeMap<Uuid, bool> = samples.into_iter().collect();
        let sorted: Vec<(Uuid, bool)> = sorted.into_iter().collect();
        let mut all = Self::default();
        all.add(&sorted);
        all
    }
}

// ── versions of derived ids ────────────────────────────────────────────────────────────────────────────────

/// Of a sample whose id is derived, the receipt that it is of: a later one with another content replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Where that receipt stands in the total order.
    pub place: Place,
    /// What the sample says.
    pub hash: ContentHash,
}

/// Versions by sample.
pub type Versions = BTreeMap<Uuid, Version>;

const PLACE_BYTES: usize = 29;
const VERSION_BYTES: usize = 36;

/// Versions as bytes: how many receipts (u32), each one's place once, then per sample its id, its receipt's number
/// (u32) and its hash. Whole pushes stand at one place, so a place is not written a thousand times.
#[must_use]
pub fn encode_versions(versions: &Versions) -> Vec<u8> {
    let places: BTreeSet<Place> = versions.values().map(|version| version.place).collect();
    let number: BTreeMap<&Place, u32> = places.iter().zip(0..).collect();
    let size = 4 + places.len() * PLACE_BYTES + versions.len() * VERSION_BYTES;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&u32::try_from(places.len()).unwrap_or(u32::MAX).to_be_bytes());
    places.iter().for_each(|place| bytes.extend_from_slice(&place.encode()));
    for (id, version) in versions {
        bytes.extend_from_slice(id.as_bytes());
        let number = number.get(&version.place).copied().unwrap_or(u32::MAX);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&version.hash.0);
    }
    bytes
}

/// The versions of these bytes; nothing where [`encode_versions`] never wrote them.
#[must_use]
pub fn decode_versions(bytes: &[u8]) -> Option<Versions> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    let (places, rest) = rest.split_at_checked(count.checked_mul(PLACE_BYTES)?)?;
    let places: Vec<Place> = places
        .as_chunks::<PLACE_BYTES>()
        .0
        .iter()
        .map(|place| Place::decode(place))
        .collect::<Option<_>>()?;
    let (entries, []) = rest.as_chunks::<VERSION_BYTES>() else { return None };
    let version = |entry: &[u8; VERSION_BYTES]| {
        let (id, rest) = entry.split_first_chunk::<16>()?;
        let (number, hash) = rest.split_first_chunk::<4>()?;
        let place = *places.get(usize::try_from(u32::from_be_bytes(*number)).ok()?)?;
        let hash = ContentHash(hash.try_into().ok()?);
        Some((Uuid::from_bytes(*id), Version { place, hash }))
    };
    entries.iter().map(version).collect()
}

// ── sleep ──────────────────────────────────────────────────────────────────────────────────────────────────

/// What a person did over the time of a sample of sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doing {
    /// Lay in bed, as far as somebody says so: no sleep, and no word against it.
    InBed,
    /// Something that nobody can name.
    Unknown,
    /// Slept; how, is not said.
    Asleep,
    /// Slept lightly (N1, N2; Apple's core).
    Light,
    /// Dreamt.
    Rem,
    /// Slept deeply (N3).
    Deep,
    /// Was awake.
    Awake,
}

impl Doing {
    /// All, the weakest first: where samples of one source overlap, the strongest is what was done. What names a stage
    /// is stronger than what only says asleep, and being awake is stronger than any sleep, so that a doubt never makes
    /// a night longer.
    pub const ALL: [Self; 7] =
        [Self::InBed, Self::Unknown, Self::Asleep, Self::Light, Self::Rem, Self::Deep, Self::Awake];

    /// The symbol of `sleep_stage`.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::InBed => "in_bed",
            Self::Unknown => "unknown",
            Self::Asleep => "asleep_unspecified",
            Self::Light => "light",
            Self::Rem => "rem",
            Self::Deep => "deep",
            Self::Awake => "awake",
        }
    }

    /// What this symbol says.
    #[must_use]
    pub fn parse(symbol: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|doing| doing.symbol() == symbol)
    }

    /// Whether it is sleep.
    #[must_use]
    pub const fn is_asleep(self) -> bool {
        matches!(self, Self::Asleep | Self::Light | Self::Rem | Self::Deep)
    }

    /// Whether it is sleep of a named stage.
    #[must_use]
    pub const fn is_stage(self) -> bool {
        matches!(self, Self::Light | Self::Rem | Self::Deep)
    }

    /// The number on rows, for ever.
    const fn code(self) -> u8 {
        match self {
            Self::InBed => 0,
            Self::Asleep => 1,
            Self::Awake => 2,
            Self::Light => 3,
            Self::Deep => 4,
            Self::Rem => 5,
            Self::Unknown => 6,
        }
    }
}

/// A sample of sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stage {
    /// From when, µs.
    pub start_at: Micros,
    /// Until when, µs; after the start.
    pub end_at: Micros,
    /// What was done.
    pub doing: Doing,
    /// The UTC offset where the person was at the start, seconds, if it is known.
    pub start_offset_s: Option<i32>,
    /// The same at the end.
    pub end_offset_s: Option<i32>,
}

/// Samples of sleep by id.
pub type Stages = BTreeMap<Uuid, Stage>;

const STAGE_BYTES: usize = 41;

/// Samples of sleep as bytes, 41 each: id, code, start, end, both offsets (the least `i32` where one is not known).
#[must_use]
pub fn encode_stages(stages: &Stages) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(stages.len() * STAGE_BYTES);
    for (id, stage) in stages {
        bytes.extend_from_slice(id.as_bytes());
        bytes.push(stage.doing.code());
        bytes.extend_from_slice(&stage.start_at.to_be_bytes());
        bytes.extend_from_slice(&stage.end_at.to_be_bytes());
        for offset in [stage.start_offset_s, stage.end_offset_s] {
            bytes.extend_from_slice(&offset.unwrap_or(i32::MIN).to_be_bytes());
        }
    }
    bytes
}

/// The samples of these bytes; nothing where [`encode_stages`] never wrote them.
#[must_use]
pub fn decode_stages(bytes: &[u8]) -> Option<Stages> {
    let (entries, []) = bytes.as_chunks::<STAGE_BYTES>() else { return None };
    let stage = |entry: &[u8; STAGE_BYTES]| {
        let (id, rest) = entry.split_first_chunk::<16>()?;
        let (code, rest) = rest.split_first()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (end, rest) = rest.split_first_chunk::<8>()?;
        let (start_offset, end_offset) = rest.split_first_chunk::<4>()?;
        let offset = |bytes| Some(i32::from_be_bytes(bytes)).filter(|offset| *offset != i32::MIN);
        let stage = Stage {
            start_at: i64::from_be_bytes(*start),
            end_at: i64::from_be_bytes(*end),
            doing: Doing::ALL.into_iter().find(|doing| doing.code() == *code)?,
            start_offset_s: offset(*start_offset),
            end_offset_s: offset(end_offset.try_into().ok()?),
        };
        Some((Uuid::from_bytes(*id), stage))
    };
    entries.iter().map(stage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contract::Topic;
    use crate::model::id::Source;
    use proptest::prelude::*;

    fn id(n: u128) -> Uuid {
        // Spread, and some alike but for their last byte.
        Uuid::from_u128((n / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ (n % 3))
    }

    proptest! {
        #[test]
        fn a_set_is_a_map_of_ids(pushes in prop::collection::vec(
            (prop::collection::btree_map(0..60_u128, any::<bool>(), 0..20), 0..60_u128), 0..8)
        ) {
            let mut map: BTreeMap<Uuid, bool> = BTreeMap::new();
            let mut set = Samples::default();
            for (push, gone) in pushes {
                let mut new: Vec<(Uuid, bool)> = push
                    .into_iter()
                    .map(|(n, gone)| (id(n), gone))
                    .filter(|(id, _)| !map.contains_key(id))
                    .collect();
                new.sort_unstable();
                map.extend(new.iter().copied());
                set.add(&new);
                prop_assert_eq!(set.mark_gone(&id(gone)), map.get(&id(gone)).copied());
                map.entry(id(gone)).and_modify(|gone| *gone = true);
                for n in 0..60 {
                    prop_assert_eq!(set.get(&id(n)), map.get(&id(n)).copied());
                }
                prop_assert!(set.iter().eq(map.iter().map(|(id, gone)| (*id, *gone))));
                prop_assert_eq!(set.len(), map.len());
                let read = Samples::of_bytes(set.bytes().to_vec());
                prop_assert_eq!(read.as_ref(), Some(&set));
                prop_assert_eq!(set.clone(), map.iter().map(|(id, gone)| (*id, *gone)).collect());
            }
        }

        #[test]
        fn one_of_many_is_found_either_way(
            seen in prop::collection::btree_set(0..400_u128, 0..120),
            wanted in prop::collection::btree_set(0..400_u128, 0..120),
        ) {
            let set: Samples = seen.iter().map(|n| (id(*n), false)).collect();
            let ids: BTreeSet<Uuid> = wanted.iter().map(|n| id(*n)).collect();
            prop_assert_eq!(any_in(set.bytes(), &ids), !seen.is_disjoint(&wanted));
        }
    }

    #[test]
    fn bytes_that_are_no_set_are_refused() {
        let set: Samples = (0..50).map(|n| (id(n), n % 3 == 0)).collect();
        let bytes = set.bytes().to_vec();
        assert_eq!(bytes.len(), 50 * SAMPLE_BYTES);
        assert_eq!(Samples::of_bytes(bytes[1..].to_vec()), None, "a cut is not a set");
        let swapped = [&bytes[17..34], &bytes[..17], &bytes[34..]].concat();
        assert_eq!(Samples::of_bytes(swapped), None, "nor is what is not sorted");
        let twice = [&bytes[..17], &bytes[..17]].concat();
        assert_eq!(Samples::of_bytes(twice), None, "nor one sample twice");
        assert_eq!(Samples::of_bytes(Vec::new()), Some(Samples::default()));
    }

    #[test]
    fn versions_survive_their_bytes_and_a_place_stands_once() {
        let place = |at_us| Place {
            at_us,
            source: Source { topic: Topic::RawWebhooks, partition: 1, offset: at_us, index: 0 },
            normaliser: 1,
        };
        let version = |n: u128| Version {
            place: place(if n.is_multiple_of(2) { 7 } else { -7 }),
            hash: ContentHash::of(&n.to_be_bytes()),
        };
        let versions: Versions = (0..40).map(|n| (id(n), version(n))).collect();
        let bytes = encode_versions(&versions);
        assert_eq!(bytes.len(), 4 + 2 * PLACE_BYTES + 40 * VERSION_BYTES);
        assert_eq!(decode_versions(&bytes), Some(versions));
        for cut in [0, 3, 20, bytes.len() - 1] {
            assert_eq!(decode_versions(&bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode_versions(&encode_versions(&Versions::new())), Some(Versions::new()));
        assert_eq!(decode_versions(&[0xff; 40]), None, "a count is not believed");
    }

    #[test]
    fn stages_survive_their_bytes() {
        let stage = |n: u128, doing| {
            let start_at = i64::try_from(n).expect("small") * 1_000_000 - 3;
            let start_offset_s = n.is_multiple_of(2).then_some(-7200);
            let end_offset_s = n.is_multiple_of(3).then_some(3600);
            Stage { start_at, end_at: start_at + 5, doing, start_offset_s, end_offset_s }
        };
        let all = (0..).zip(Doing::ALL);
        let stages: Stages = all.map(|(n, doing)| (id(n), stage(n, doing))).collect();
        let bytes = encode_stages(&stages);
        assert_eq!(bytes.len(), 7 * STAGE_BYTES);
        assert_eq!(decode_stages(&bytes), Some(stages));
        assert_eq!(decode_stages(&bytes[1..]), None);
        let mut bad = bytes;
        bad[16] = 7;
        assert_eq!(decode_stages(&bad), None, "a code that is none");
    }

    #[test]
    fn what_is_done_has_the_symbol_of_its_stage() {
        let metric = crate::model::metric::find("sleep_stage").expect("a metric");
        for doing in Doing::ALL {
            assert!(metric.symbol(doing.symbol(), 0, None).is_some());
            assert_eq!(Doing::parse(doing.symbol()), Some(doing));
        }
        assert!(Doing::ALL.is_sorted(), "the order of the type is the order of strength");
        assert_eq!(Doing::parse("dreaming"), None);
    }
}
