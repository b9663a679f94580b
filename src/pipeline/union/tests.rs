//! Decide over pushes of samples, with a store that is a few maps: what stands at the end must not depend on the
//! order, the batching or the pushes in which it came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::avro::{Codec, SchemaIds};
use crate::model::contract::Topic;
use crate::model::event::{BiometricEvent, NORMALISER, Origin};
use crate::model::id::{Source, User};
use crate::model::metric;
use crate::model::record::Headers;
use crate::model::sample::Doing;
use crate::model::state::{Known, Outcome, Plan};
use crate::model::time::Micros;
use crate::pipeline::decide::Decide;

const MINUTE: Micros = 60_000_000;
const DAY: Day = Day(20_541);

// ── a small world ──────────────────────────────────────────────────────────────────────────────────────────

static CODEC: LazyLock<Arc<Codec>> = LazyLock::new(|| {
    let ids = SchemaIds { normalised: 1, events: 2, terra_events: 3 };
    Arc::new(Codec::new(ids).expect("a codec"))
});

struct World {
    decide: Decide,
    buckets: BTreeMap<EventId, Bucket>,
    waiting: BTreeMap<SampleType, BTreeSet<Uuid>>,
    told: Vec<BiometricEvent>,
    verdicts: Vec<Verdict>,
    offset: i64,
}

impl World {
    fn new() -> Self {
        Self {
            decide: Decide::new(Arc::clone(&CODEC)),
            buckets: BTreeMap::new(),
            waiting: BTreeMap::new(),
            told: Vec::new(),
            verdicts: Vec::new(),
            offset: 0,
        }
    }

    fn batch(&mut self, records: &[NormalisedRecord]) {
        let inputs: Vec<Record> = records.iter().map(|record| self.input(record)).collect();
        let (plan, read) = self.decide.plan(&inputs);
        let known = self.load(&plan);
        let outcome = self.decide.decide(&inputs, read, known).expect("decided");
        self.apply(outcome);
    }

    fn input(&mut self, record: &NormalisedRecord) -> Record {
        self.offset += 1;
        Record {
            topic: Topic::NormalisedRecords,
            partition: 0,
            offset: self.offset,
            key: None,
            headers: Headers::new(),
            value: Some(Bytes::from(CODEC.encode_record(record).expect("bytes"))),
            timestamp_ms: 0,
        }
    }

    fn load(&self, plan: &Plan) -> Known {
        let holds = |bucket: &Bucket| {
            let ids = plan.removed.get(&bucket.sample_type).into_iter().flatten();
            ids.into_iter().any(|id| bucket.samples.get(id).is_some())
        };
        let days: Vec<i32> =
            self.buckets.values().filter(|one| holds(one)).map(|one| one.day).collect();
        let near = |bucket: &Bucket| {
            plan.around.contains(&bucket.sample_type)
                && days.iter().any(|day| (day - bucket.day).abs() <= AROUND_DAYS)
        };
        let wanted = |id: &EventId, bucket: &Bucket| {
            plan.buckets.contains(id) || holds(bucket) || near(bucket)
        };
        let buckets = self.buckets.iter().filter(|(id, bucket)| wanted(id, bucket));
        let waiting = self.waiting.iter().filter(|(name, _)| plan.waiting.contains(name));
        Known {
            buckets: buckets.map(|(id, bucket)| (*id, bucket.clone())).collect(),
            waiting: waiting.map(|(name, ids)| (name.clone(), ids.clone())).collect(),
            ..Known::default()
        }
    }

    fn apply(&mut self, outcome: Outcome) {
        self.buckets.extend(outcome.buckets);
        self.waiting.extend(outcome.waiting);
        self.waiting.retain(|_, ids| !ids.is_empty());
        self.verdicts.extend(outcome.decisions.into_iter().map(|one| one.verdict));
        for row in outcome.revisions {
            let event = CODEC.decode_event(&row.event).expect("an event");
            assert_eq!((event.event_id, event.revision), (row.event_id, row.revision));
            self.told.push(event);
        }
    }

    /// The sessions that are there, by their natural keys.
    fn sessions(&self) -> BTreeMap<String, Content> {
        let mut sessions = BTreeMap::new();
        for event in self.told.iter().filter(|event| event.record_type == SESSION) {
            match event.op {
                Op::Upsert => sessions.insert(event.record_id.clone(), event.content.clone()),
                Op::Delete => sessions.remove(&event.record_id),
            };
        }
        sessions
    }

    /// What a reader has who takes away what a revision removes and adds what it brings, revision by revision.
    fn read(&self) -> BTreeMap<String, BTreeMap<String, Reading>> {
        let mut read: BTreeMap<String, BTreeMap<String, Reading>> = BTreeMap::new();
        for event in self.told.iter().filter(|event| event.merge == Merge::Union) {
            let bucket = read.entry(event.record_id.clone()).or_default();
            for id in &event.content.removed {
                assert!(bucket.remove(id).is_some(), "what is removed was there");
            }
            for reading in &event.content.readings {
                let id = reading.sample_id.clone().expect("an id");
                assert_eq!(bucket.insert(id, reading.clone()), None, "what is added was not");
            }
        }
        // A bucket of which nothing is left says the same as none at all.
        read.retain(|_, samples| !samples.is_empty());
        read
    }

    /// Everything that may not depend on how it came.
    fn end(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let kept = self.buckets.values().filter(|bucket| bucket.sample_type.1 != SESSION);
        let kept: Vec<_> = kept
            .map(|one| {
                let versions: Vec<_> = one.versions.iter().map(|(id, at)| (*id, *at)).collect();
                (one.record_id.clone(), one.samples.clone(), versions, one.stages.clone())
            })
            .collect();
        (kept, self.waiting.clone(), self.sessions(), self.read())
    }
}

// ── records ────────────────────────────────────────────────────────────────────────────────────────────────

fn record(record_type: &str, record_id: &str, merge: Merge, at: i64) -> NormalisedRecord {
    let user_id = User::parse("user-1").expect("a user");
    let connection_id = ConnectionId::derive("healthkit", "phone", &user_id);
    NormalisedRecord {
        event_id: EventId::derive(connection_id, record_type, record_id),
        user_id,
        connection_id,
        vendor: "healthkit".to_owned(),
        device_type: "apple".to_owned(),
        via: "direct".to_owned(),
        record_type: record_type.to_owned(),
        record_id: record_id.to_owned(),
        merge,
        op: if merge == Merge::Removal { Op::Delete } else { Op::Upsert },
        version: None,
        received_at: DAY.start_utc_us() + at * MINUTE,
        source: Source { topic: Topic::RawWebhooks, partition: 0, offset: at, index: 0 },
        origin: Origin::Live,
        normaliser: NORMALISER,
        content: nothing(),
    }
}

fn id(n: usize) -> Uuid {
    Uuid::from_u128(u128::try_from(n).expect("small") + (7 << 90))
}

/// A push of these samples of sleep: one record a bucket and offset, as normalise writes them.
fn push(samples: &[(usize, Stage)], at: i64) -> Vec<NormalisedRecord> {
    let metric = metric::find("sleep_stage").expect("a metric");
    let mut records: BTreeMap<_, NormalisedRecord> = BTreeMap::new();
    for (n, stage) in samples {
        let day = Day::of_utc(stage.start_at);
        let key = format!("{day}|com.example.sleep|Watch7,5");
        let offsets = (stage.start_offset_s, stage.end_offset_s);
        let entry = records.entry((day, offsets)).or_insert_with(|| {
            let mut record = record(SLEEP_SAMPLES, &key, Merge::Union, at);
            (record.content.start_offset_s, record.content.end_offset_s) = offsets;
            record
        });
        let symbol = metric.symbol(stage.doing.symbol(), stage.start_at, Some(stage.end_at));
        let mut reading = symbol.expect("a stage");
        reading.sample_id = Some(id(*n).to_string());
        entry.content.readings.push(reading);
    }
    records.into_values().collect()
}

fn removal(record_type: &str, ids: &[usize], at: i64) -> NormalisedRecord {
    let mut record = record(record_type, "removed", Merge::Removal, at);
    record.content.removed = ids.iter().map(|n| id(*n).to_string()).collect();
    record
}

/// A minute's steps as a source without ids sends them.
fn counted(minute: usize, count: u32, at: i64) -> NormalisedRecord {
    let mut record = record("samples.steps", "2026-03-29|app|", Merge::Union, at);
    let start = DAY.start_utc_us() + i64::try_from(minute).expect("small") * MINUTE;
    let metric = metric::find("steps").expect("a metric");
    let mut reading = metric.reading(f64::from(count), start, Some(start + MINUTE));
    reading.sample_id = Some(id(minute).to_string());
    reading.flags.push(flag::DERIVED_ID.to_owned());
    record.content.readings.push(reading);
    record
}

// ── what must not show ─────────────────────────────────────────────────────────────────────────────────────

fn stage() -> impl Strategy<Value = Stage> {
    let offset = prop_oneof![3 => Just(Some(3600)), 1 => Just(None), 1 => Just(Some(-9 * 3600))];
    let offsets = (offset.clone(), offset);
    (-900..2340_i64, 1..150_i64, 0..7_usize, offsets).prop_map(|(from, length, doing, offsets)| {
        let start_at = DAY.start_utc_us() + from * MINUTE;
        let end_at = start_at + length * MINUTE;
        let (start_offset_s, end_offset_s) = offsets;
        Stage { start_at, end_at, doing: Doing::ALL[doing], start_offset_s, end_offset_s }
    })
}

/// Samples, those that are removed, and a way in which both come.
#[derive(Clone, Debug)]
struct Way {
    /// Which push each sample is in; more than one: it is sent again.
    pushes: Vec<Vec<usize>>,
    /// Of pushes and, after them, removals.
    order: Vec<usize>,
    batching: usize,
}

fn way(samples: usize, removals: usize) -> impl Strategy<Value = Way> {
    let parts = prop::collection::vec((0..6_usize, 0..12_usize), samples);
    let order: Vec<usize> = (0..6 + removals).collect();
    (parts, Just(order).prop_shuffle(), 1..9_usize).prop_map(|(parts, order, batching)| {
        let mut pushes = vec![Vec::new(); 6];
        for (sample, (push, again)) in parts.into_iter().enumerate() {
            pushes[push].push(sample);
            if again < 6 && again != push {
                pushes[again].push(sample);
            }
        }
        Way { pushes, order, batching }
    })
}

fn tell(samples: &[Stage], removed: &[Vec<usize>], way: &Way) -> World {
    let mut records = Vec::new();
    for (at, step) in (1_i64..).zip(&way.order) {
        match way.pushes.get(*step) {
            Some(push_of) => {
                let samples: Vec<_> = push_of.iter().map(|n| (*n, samples[*n])).collect();
                records.extend(push(&samples, at));
            }
            None => records.push(removal(SLEEP_SAMPLES, &removed[*step - 6], at)),
        }
    }
    let mut world = World::new();
    for batch in records.chunks(way.batching) {
        world.batch(batch);
    }
    world
}

type Case = (Vec<Stage>, Vec<Vec<usize>>, Way, Way);

fn two_ways() -> impl Strategy<Value = Case> {
    let samples = prop::collection::vec(stage(), 1..14);
    let removed = prop::collection::vec(prop::collection::vec(0..16_usize, 1..4), 0..4);
    (samples, removed).prop_flat_map(|(samples, removed)| {
        let (count, removals) = (samples.len(), removed.len());
        (Just(samples), Just(removed), way(count, removals), way(count, removals))
    })
}

/// The date with which a session's key begins.
fn date_of(record_id: &str) -> String {
    record_id.chars().take(10).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any order, any batching, any split of the samples into pushes, deletions before and after: one end.
    #[test]
    fn how_sleep_comes_shows_nowhere((samples, removed, one, other) in two_ways()) {
        let one = tell(&samples, &removed, &one);
        let other = tell(&samples, &removed, &other);
        prop_assert_eq!(one.sessions(), other.sessions());
        prop_assert_eq!(format!("{:?}", one.end()), format!("{:?}", other.end()));
        // And it is what the samples that are left say.
        let gone: BTreeSet<usize> = removed.into_iter().flatten().collect();
        let left: Vec<Stage> = (0..).zip(&samples).filter(|(n, _)| !gone.contains(n)).map(|(_, s)| *s).collect();
        for date in DAY.0 - 3..=DAY.0 + 4 {
            let near = |stage: &&Stage| (Day::of_utc(stage.start_at).0 - date).abs() <= 1;
            let expected = session(Day(date), left.iter().filter(near)).map(|content| Content {
                app: Some("com.example.sleep".to_owned()),
                device_model: Some("Watch7,5".to_owned()),
                ..content
            });
            let key = format!("{}|com.example.sleep|Watch7,5", Day(date));
            let sessions = one.sessions();
            prop_assert_eq!(sessions.get(&key), expected.as_ref());
        }
    }

    /// The size of a batch shows nowhere at all, in no revision and in no byte.
    #[test]
    fn batches_show_nowhere((samples, removed, way, _) in two_ways(), batching in 1..9_usize) {
        let one = tell(&samples, &removed, &way);
        let other = tell(&samples, &removed, &Way { batching, ..way });
        prop_assert_eq!(&one.told, &other.told);
        prop_assert_eq!(&one.buckets, &other.buckets);
        prop_assert_eq!(&one.verdicts, &other.verdicts);
    }

    /// Of a derived id the latest receipt counts, in whatever order the receipts are read, and gone is gone.
    #[test]
    fn the_latest_receipt_counts(
        (receipts, order) in prop::collection::vec((0..3_usize, 0..3_u32), 1..12).prop_flat_map(|all| {
            let order: Vec<usize> = (0..all.len()).collect();
            (Just(all), Just(order).prop_shuffle())
        }),
        gone in prop::option::of((0..3_usize, 0..12_usize)),
        batching in 1..5_usize,
    ) {
        let at = |n: usize| i64::try_from(n).expect("small") + 1;
        let mut records: Vec<_> =
            order.iter().map(|n| counted(receipts[*n].0, receipts[*n].1, at(*n))).collect();
        if let Some((minute, place)) = gone {
            let removal = removal("samples.steps", &[minute], 99);
            records.insert(place.min(records.len()), removal);
        }
        let mut world = World::new();
        records.chunks(batching).for_each(|batch| world.batch(batch));
        let read = world.read();
        for minute in 0..3 {
            let latest = receipts.iter().rev().find(|receipt| receipt.0 == minute);
            let latest = latest.filter(|_| gone.is_none_or(|gone| gone.0 != minute));
            let expected = latest.map(|receipt| f64::from(receipt.1));
            let bucket = read.get("2026-03-29|app|");
            let found = bucket.and_then(|bucket| bucket.get(&id(minute).to_string()));
            prop_assert_eq!(found.and_then(|reading| reading.value), expected);
        }
        // The same again is nothing new, whatever it replaced.
        let told = world.told.len();
        records.chunks(3).for_each(|batch| world.batch(batch));
        prop_assert_eq!(world.told.len(), told);
    }
}

// ── stories ────────────────────────────────────────────────────────────────────────────────────────────────

fn slept(from: i64, to: i64, doing: Doing) -> Stage {
    let at = |minute| DAY.start_utc_us() + minute * MINUTE;
    let (start_offset_s, end_offset_s) = (Some(3600), Some(3600));
    Stage { start_at: at(from), end_at: at(to), doing, start_offset_s, end_offset_s }
}

#[test]
fn a_night_grows_is_told_once_and_goes() {
    let mut world = World::new();
    let evening = (1, slept(-120, 0, Doing::Light));
    let morning = (2, slept(0, 400, Doing::Deep));
    world.batch(&push(&[evening], 1));
    let ops = |world: &World| -> Vec<(String, i32, Op)> {
        let sessions = world.told.iter().filter(|event| event.record_type == SESSION);
        sessions.map(|event| (date_of(&event.record_id), event.revision, event.op)).collect()
    };
    let date = |day: &str, revision, op| (day.to_owned(), revision, op);
    // It ends at midnight UTC, an hour past it where the person is.
    let mut expected = vec![date("2026-03-29", 1, Op::Upsert)];
    assert_eq!(ops(&world), expected);
    world.batch(&push(&[morning], 2));
    expected.push(date("2026-03-29", 2, Op::Upsert));
    assert_eq!(ops(&world), expected);
    let content = world.sessions().into_values().next().expect("a night");
    assert_eq!(content.start_at, Some(evening.1.start_at));
    assert_eq!(content.end_at, Some(morning.1.end_at));
    // The same push three times, in one batch and in three.
    let again: Vec<_> = (3..6).flat_map(|at| push(&[evening, morning], at)).collect();
    world.batch(&again);
    again.chunks(1).for_each(|one| world.batch(one));
    assert_eq!(ops(&world), expected, "nothing is told again");
    assert_eq!(world.read().values().map(BTreeMap::len).sum::<usize>(), 2, "one set of samples");
    world.batch(&[removal(SLEEP_SAMPLES, &[2], 10)]);
    expected.push(date("2026-03-29", 3, Op::Upsert));
    assert_eq!(ops(&world), expected, "the evening alone");
    world.batch(&[removal(SLEEP_SAMPLES, &[1], 11)]);
    expected.push(date("2026-03-29", 4, Op::Delete));
    assert_eq!(ops(&world), expected);
    assert!(world.sessions().is_empty());
    world.batch(&push(&[evening, morning], 12));
    assert_eq!(ops(&world), expected, "gone for good");
    assert!(world.told.iter().all(|event| event.triggers.is_empty()));
}

#[test]
fn a_sample_that_changes_its_night_leaves_the_old_one() {
    let mut world = World::new();
    let night = (1, slept(0, 60, Doing::Asleep));
    world.batch(&push(&[night], 1));
    // A later sample joins it and ends on the next date.
    let more: Vec<_> = (0..25)
        .map(|n| {
            (
                usize::try_from(n).expect("small") + 2,
                slept(60 + n * 60, 120 + n * 60, Doing::Asleep),
            )
        })
        .collect();
    world.batch(&push(&more, 2));
    let keys: Vec<_> = world.sessions().into_keys().map(|key| date_of(&key)).collect();
    assert_eq!(keys, ["2026-03-30"]);
    let deleted = world.told.iter().filter(|event| event.op == Op::Delete);
    let deleted: Vec<_> = deleted.map(|event| date_of(&event.record_id)).collect();
    assert_eq!(deleted, ["2026-03-29"]);
}

#[test]
fn a_revision_says_how_it_is_applied() {
    let mut world = World::new();
    let steps = |count, at| counted(5, count, at);
    world.batch(&[steps(10, 1), steps(12, 3), steps(11, 2)]);
    let told: Vec<_> = world
        .told
        .iter()
        .map(|event| (event.revision, event.content.readings[0].value, event.content.removed.len()))
        .collect();
    assert_eq!(told, [(1, Some(10.0), 0), (2, Some(12.0), 1)]);
    assert_eq!(world.told[1].content.removed, [id(5).to_string()]);
    assert!(matches!(world.verdicts[2], Verdict::Duplicate(_, 2)), "below: {:?}", world.verdicts);
    // A, C = A, then B from between: A stays, because its place moved up.
    world.batch(&[steps(12, 9), steps(13, 6)]);
    assert_eq!(world.told.len(), 2);
    world.batch(&[steps(13, 10)]);
    assert_eq!(world.told.last().map(|event| event.revision), Some(3));
    // The same receipt again, of the same normaliser, is itself; of a repaired one, with another content, it is new.
    let mut repaired = steps(14, 10);
    world.batch(&[repaired.clone()]);
    assert_eq!(world.told.len(), 3, "two readings of one receipt: the first counts");
    repaired.normaliser += 1;
    world.batch(&[repaired]);
    assert_eq!(world.told.last().and_then(|event| event.content.readings[0].value), Some(14.0));
}

#[test]
fn an_id_of_a_devices_own_is_never_replaced() {
    let mut world = World::new();
    let mut first = counted(5, 10, 1);
    first.content.readings[0].flags.clear();
    let mut second = first.clone();
    second.content.readings[0].value = Some(11.0);
    second.received_at += MINUTE;
    world.batch(&[first, second, counted(5, 12, 3)]);
    assert_eq!(world.told.len(), 1);
    assert_eq!(world.told[0].content.readings[0].value, Some(10.0));
}

#[test]
fn a_deletion_before_its_sample_is_remembered_once() {
    let mut world = World::new();
    world.batch(&[removal("samples.steps", &[5, 6], 1)]);
    assert_eq!(world.verdicts, [Verdict::Waiting]);
    world.batch(&[removal("samples.steps", &[5], 2)]);
    assert!(matches!(world.verdicts[1], Verdict::Duplicate(_, 0)));
    world.batch(&[counted(5, 10, 3)]);
    assert_eq!(world.verdicts[2], Verdict::Ignored("removed before it came"));
    world.batch(&[counted(5, 11, 4)]);
    assert!(matches!(world.verdicts[3], Verdict::Duplicate(_, 0)), "gone for good");
    assert!(world.told.is_empty());
    assert_eq!(world.waiting.values().map(BTreeSet::len).sum::<usize>(), 1, "the other waits");
}

#[test]
fn a_reading_from_the_future_does_not_date_its_bucket() {
    let at = |start_at: i64, skewed: bool| {
        let metric = metric::find("heart_rate").expect("a metric");
        let mut reading = metric.reading(60.0, start_at, None);
        reading.flags.extend(skewed.then(|| flag::CLOCK_SKEW.to_owned()));
        reading
    };
    let mut content = Content::default();
    date(&mut content, &[at(5, false), at(9, false), at(99, true)]);
    assert_eq!((content.start_at, content.end_at), (Some(5), Some(9)));
    date(&mut content, &[at(99, true)]);
    assert_eq!(content.end_at, Some(99), "it is all there is");
}

#[test]
fn a_sample_from_the_future_is_in_no_session() {
    let mut world = World::new();
    let mut records = push(&[(1, slept(0, 400, Doing::Deep))], 1);
    records[0].content.readings[0].flags.push(flag::CLOCK_SKEW.to_owned());
    world.batch(&records);
    assert_eq!(world.told.len(), 1, "the sample, and no session");
}
