//! What every [`Store`] promises, the one in memory and the one in Postgres: one page, run against both.
//!
//! A world implements [`Stores`] and says `store_laws!(make)`, where `make` is an async function that makes a fresh
//! one. Each law has a world of its own.

use std::collections::{BTreeMap, BTreeSet};

use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::{BiometricEvent, Content, Merge, Op, Origin};
use biometric_bridge::model::id::{ConnectionId, ContentHash, EventId, Place, Source, User};
use biometric_bridge::model::outbox::Output;
use biometric_bridge::model::record::{Headers, OutRecord};
use biometric_bridge::model::sample::{Doing, Stage, Stages, Version, Versions};
use biometric_bridge::model::state::{
    Bucket, Current, Decision, Hole, Known, Outcome, Plan, Revision, SampleType, Shown, Verdict,
};
use biometric_bridge::stream::{Advance, Applied, Fenced, Store};
use bytes::Bytes;
use uuid::Uuid;

/// A truth that many can be connected to.
pub(crate) trait Stores {
    /// What they are connected by.
    type Store: Store;
    /// Another one, as another process would have it.
    async fn open(&self) -> Self::Store;
    /// The bytes by which this world's stores know an event.
    fn bytes_of(&self, event: &BiometricEvent) -> Bytes;
}

/// A test for each law, over worlds that this makes.
macro_rules! store_laws {
    ($make:path) => {
        store_laws!($make,
            a_partition_starts_at_the_first_offset,
            every_fence_is_another_one,
            a_batch_stands_and_is_seen,
            a_stale_owner_changes_nothing,
            the_compare_is_with_what_was_applied_last,
            the_same_batch_again_is_refused,
            partitions_stand_or_fall_together,
            topics_are_apart,
            the_latest_revision_is_known,
            a_place_moves_and_nothing_else,
            a_second_writer_is_heard,
            the_outbox_is_the_last_batch_as_it_was_to_be_sent,
            a_batch_without_outputs_has_an_outbox_too,
            starts_count_until_there_is_progress,
            a_release_is_for_the_owner_alone,
            a_try_is_counted_for_the_owner_alone,
            buckets_and_deletions_come_back_whole,
            a_bucket_keeps_all_that_it_has,
            every_bucket_that_holds_a_removed_sample_is_known,
            what_lies_around_a_removed_sample_is_known,
            an_id_across_two_samples_is_not_found,
            what_is_not_known_is_absent,
            the_latest_of_a_hole_is_one_that_is_there,
            a_new_store_has_lost_nothing,
        );
    };
    ($make:path, $($law:ident,)*) => {
        $(
            #[tokio::test]
            async fn $law() {
                let world = $make().await;
                laws::$law(&world).await;
            }
        )*
    };
}

// ── making ─────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) const TOPIC: Topic = Topic::NormalisedRecords;

pub(crate) fn user(name: &str) -> User {
    User::parse(name).expect("a user")
}

pub(crate) fn event_id(n: u128) -> EventId {
    EventId(Uuid::from_u128(n << 64 | n))
}

pub(crate) fn place(at_us: i64) -> Place {
    let source = Source { topic: Topic::RawWebhooks, partition: 3, offset: at_us, index: 0 };
    Place { at_us, source, normaliser: 1 }
}

pub(crate) fn revision(event: EventId, revision: i32) -> Revision {
    Revision {
        event_id: event,
        revision,
        place: place(i64::from(revision) * 100),
        op: Op::Upsert,
        hash: ContentHash::of(&revision.to_be_bytes()),
        user: user("user-1"),
        device_type: "oura".into(),
        measured_at: Some(1_000),
        event: Bytes::from(vec![0, 1, 2, 255]),
    }
}

pub(crate) fn revised(revisions: impl IntoIterator<Item = Revision>) -> Outcome {
    Outcome { revisions: revisions.into_iter().collect(), ..Outcome::default() }
}

pub(crate) fn advance(partition: i32, fenced: &Fenced, next: i64) -> Advance {
    Advance {
        partition,
        fence: fenced.fence,
        applied: fenced.applied,
        next,
        published: fenced.applied,
    }
}

pub(crate) fn output(cause: i64) -> Output {
    let record = OutRecord {
        topic: Topic::BiometricEvents,
        key: Some(Bytes::from_static(b"user-1:oura")),
        headers: Headers::new().with("event_type", "sleep").with("event_type", ""),
        value: Some(Bytes::from(vec![0; 300])),
    };
    Output { cause, record }
}

pub(crate) fn bucket(n: u128, day: i32, samples: &[u128]) -> Bucket {
    Bucket {
        event_id: event_id(n),
        user: user("user-1"),
        sample_type: heart_rate(),
        record_id: format!("bucket-{n}"),
        vendor: "healthkit".into(),
        device_type: "apple".into(),
        day,
        revision: 2,
        samples: samples.iter().map(|id| (Uuid::from_u128(*id), id % 2 == 1)).collect(),
        versions: Versions::new(),
        stages: Stages::new(),
        told: None,
    }
}

/// A bucket with all that a bucket can have.
pub(crate) fn full_bucket(n: u128, day: i32) -> Bucket {
    let id = |n: u128| Uuid::from_u128(n * 2);
    let version =
        |n: i64| Version { place: place(n % 3 - 1), hash: ContentHash::of(&n.to_be_bytes()) };
    let stage = |n: i64| Stage {
        start_at: n * 1_000 - 5_000,
        end_at: n * 2_000,
        doing: Doing::ALL[usize::try_from(n).expect("small") % 7],
        offset_s: (n % 2 == 0).then_some(-3_600),
    };
    Bucket {
        versions: (0..9).map(|n| (id(n), version(n.try_into().expect("small")))).collect(),
        stages: (0..14).map(|n| (id(n), stage(n.try_into().expect("small")))).collect(),
        told: Some((Op::Delete, ContentHash::of(b"told"))),
        ..bucket(n, day, &[0, 2, 4, 6, 99])
    }
}

pub(crate) fn heart_rate() -> SampleType {
    (ConnectionId(Uuid::from_u128(77)), "heart_rate".to_owned())
}

pub(crate) fn buckets(all: impl IntoIterator<Item = Bucket>) -> Outcome {
    let buckets = all.into_iter().map(|bucket| (bucket.event_id, bucket)).collect();
    Outcome { buckets, ..Outcome::default() }
}

fn plan_of(events: &[EventId]) -> Plan {
    Plan { events: events.iter().copied().collect(), ..Plan::default() }
}

async fn known(store: &mut impl Store, plan: &Plan) -> Known {
    store.load(TOPIC, &[], plan).await.expect("loads").1
}

async fn current(store: &mut impl Store, event: EventId) -> Option<Current> {
    known(store, &plan_of(&[event])).await.revisions.get(&event).copied()
}

/// Applies on a partition that nobody else has.
async fn applied(store: &mut impl Store, partition: i32, outcome: &Outcome) -> Applied {
    let fenced = store.fence(TOPIC, partition).await.expect("a fence");
    let advances = [advance(partition, &fenced, fenced.applied + 1)];
    store.apply(TOPIC, &advances, outcome).await
}

// ── the fence ──────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) async fn a_partition_starts_at_the_first_offset(world: &impl Stores) {
    let fenced = world.open().await.fence(TOPIC, 4).await.expect("a fence");
    assert_eq!((fenced.applied, fenced.published, fenced.starts), (0, 0, 1));
    assert_eq!(fenced.outbox, None);
}

pub(crate) async fn every_fence_is_another_one(world: &impl Stores) {
    let (mut one, mut other) = (world.open().await, world.open().await);
    let first = one.fence(TOPIC, 4).await.expect("a fence");
    let second = other.fence(TOPIC, 4).await.expect("a fence");
    let third = one.fence(TOPIC, 4).await.expect("a fence");
    assert_ne!(first.fence, second.fence);
    assert_ne!(first.fence, third.fence);
    assert_ne!(second.fence, third.fence);
    let rows = other.look(TOPIC, &[4, 5]).await.expect("rows");
    assert_eq!(rows.len(), 1, "a partition that nobody had has no row");
    assert_eq!((rows[0].partition, rows[0].fence, rows[0].applied), (4, third.fence, 0));
}

// ── apply ──────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) async fn a_batch_stands_and_is_seen(world: &impl Stores) {
    let (mut store, mut other) = (world.open().await, world.open().await);
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    let outcome = Outcome {
        decisions: vec![
            decided(7, Verdict::Published(event_id(1), 1)),
            decided(6, Verdict::Duplicate(event_id(1), 1)),
            decided(5, Verdict::Superseded(event_id(1), 1)),
            decided(4, Verdict::Ignored("empty")),
            decided(3, Verdict::Waiting),
            Decision {
                source: None,
                ..decided(2, Verdict::DeadLettered(biometric_bridge::error::Kind::PayloadMalformed))
            },
        ],
        ..revised([revision(event_id(1), 1)])
    };
    assert_eq!(store.apply(TOPIC, &[advance(0, &fenced, 8)], &outcome).await, Applied::Committed);
    let (progress, known) =
        other.load(TOPIC, &[0, 1], &plan_of(&[event_id(1)])).await.expect("loads");
    assert_eq!(progress.len(), 1);
    assert_eq!((progress[0].fence, progress[0].applied), (fenced.fence, 8));
    assert_eq!(known.revisions[&event_id(1)].revision, 1);
    let again = other.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!((again.applied, again.published), (8, 0));
}

fn decided(offset: i64, verdict: Verdict) -> Decision {
    let source = Some(place(offset).source);
    Decision { partition: 0, offset, source, verdict }
}

pub(crate) async fn a_stale_owner_changes_nothing(world: &impl Stores) {
    let (mut stale, mut owner) = (world.open().await, world.open().await);
    let was = stale.fence(TOPIC, 0).await.expect("a fence");
    let is = owner.fence(TOPIC, 0).await.expect("a fence");
    let mut outcome = revised([revision(event_id(1), 1)]);
    outcome.outbox.insert(0, vec![output(0)]);
    assert_eq!(stale.apply(TOPIC, &[advance(0, &was, 5)], &outcome).await, Applied::NotOurs);
    assert_eq!(current(&mut owner, event_id(1)).await, None, "nothing of it stands");
    let rows = owner.look(TOPIC, &[0]).await.expect("rows");
    assert_eq!((rows[0].fence, rows[0].applied), (is.fence, 0));
    assert_eq!(owner.apply(TOPIC, &[advance(0, &is, 5)], &outcome).await, Applied::Committed);
}

pub(crate) async fn the_compare_is_with_what_was_applied_last(world: &impl Stores) {
    let mut store = world.open().await;
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    let wrong = Advance { applied: 3, ..advance(0, &fenced, 5) };
    assert_eq!(store.apply(TOPIC, &[wrong], &Outcome::default()).await, Applied::NotOurs);
    let right = advance(0, &fenced, 5);
    assert_eq!(store.apply(TOPIC, &[right], &Outcome::default()).await, Applied::Committed);
}

pub(crate) async fn the_same_batch_again_is_refused(world: &impl Stores) {
    let mut store = world.open().await;
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    let (advances, outcome) = ([advance(0, &fenced, 5)], revised([revision(event_id(1), 1)]));
    assert_eq!(store.apply(TOPIC, &advances, &outcome).await, Applied::Committed);
    assert_eq!(store.apply(TOPIC, &advances, &outcome).await, Applied::NotOurs);
    assert_eq!(current(&mut store, event_id(1)).await.map(|known| known.revision), Some(1));
}

pub(crate) async fn partitions_stand_or_fall_together(world: &impl Stores) {
    let (mut store, mut other) = (world.open().await, world.open().await);
    let kept = store.fence(TOPIC, 2).await.expect("a fence");
    let lost = store.fence(TOPIC, 1).await.expect("a fence");
    let taken = other.fence(TOPIC, 1).await.expect("a fence");
    let advances = [advance(2, &kept, 5), advance(1, &lost, 5)];
    let outcome = revised([revision(event_id(1), 1)]);
    assert_eq!(store.apply(TOPIC, &advances, &outcome).await, Applied::NotOurs);
    let rows = store.look(TOPIC, &[1, 2]).await.expect("rows");
    assert!(rows.iter().all(|row| row.applied == 0), "{rows:?}");
    assert_eq!(current(&mut store, event_id(1)).await, None);
    let advances = [advance(2, &kept, 5), advance(1, &taken, 6)];
    assert_eq!(store.apply(TOPIC, &advances, &outcome).await, Applied::Committed);
    let rows = store.look(TOPIC, &[1, 2]).await.expect("rows");
    let mut applied: Vec<(i32, i64)> = rows.iter().map(|r| (r.partition, r.applied)).collect();
    applied.sort_unstable();
    assert_eq!(applied, [(1, 6), (2, 5)]);
}

pub(crate) async fn topics_are_apart(world: &impl Stores) {
    let mut store = world.open().await;
    let here = store.fence(TOPIC, 0).await.expect("a fence");
    let there = store.fence(Topic::RawWebhooks, 0).await.expect("a fence");
    assert_eq!(there.starts, 1);
    let advances = [advance(0, &here, 5)];
    assert_eq!(
        store.apply(Topic::RawWebhooks, &advances, &Outcome::default()).await,
        Applied::NotOurs
    );
    assert_eq!(store.apply(TOPIC, &advances, &Outcome::default()).await, Applied::Committed);
    assert_eq!(store.look(Topic::RawWebhooks, &[0]).await.expect("rows")[0].applied, 0);
}

pub(crate) async fn the_latest_revision_is_known(world: &impl Stores) {
    let mut store = world.open().await;
    let gone = Revision { op: Op::Delete, measured_at: None, ..revision(event_id(1), 3) };
    let outcome = revised([
        revision(event_id(1), 1),
        revision(event_id(2), 1),
        gone.clone(),
        revision(event_id(1), 2),
    ]);
    assert_eq!(applied(&mut store, 0, &outcome).await, Applied::Committed);
    let expected = Current { revision: 3, place: gone.place, op: Op::Delete, hash: gone.hash };
    assert_eq!(current(&mut store, event_id(1)).await, Some(expected));
    assert_eq!(current(&mut store, event_id(2)).await.map(|known| known.op), Some(Op::Upsert));
}

pub(crate) async fn a_place_moves_and_nothing_else(world: &impl Stores) {
    let mut store = world.open().await;
    let first = revision(event_id(1), 1);
    assert_eq!(applied(&mut store, 0, &revised([first.clone()])).await, Applied::Committed);
    // The one that was there and one of the same batch.
    let mut outcome = revised([revision(event_id(2), 1)]);
    outcome.moved =
        BTreeMap::from([((event_id(1), 1), place(900)), ((event_id(2), 1), place(800))]);
    assert_eq!(applied(&mut store, 0, &outcome).await, Applied::Committed);
    let expected = Current { revision: 1, place: place(900), op: Op::Upsert, hash: first.hash };
    assert_eq!(current(&mut store, event_id(1)).await, Some(expected));
    assert_eq!(current(&mut store, event_id(2)).await.map(|one| one.place), Some(place(800)));
}

pub(crate) async fn a_second_writer_is_heard(world: &impl Stores) {
    let (mut one, mut other) = (world.open().await, world.open().await);
    let first = revised([revision(event_id(1), 1)]);
    assert_eq!(applied(&mut one, 0, &first).await, Applied::Committed);
    let fenced = other.fence(TOPIC, 1).await.expect("a fence");
    let second = Revision {
        hash: ContentHash::of(b"other"),
        event: Bytes::from_static(b"other"),
        ..revision(event_id(1), 1)
    };
    let outcome = revised([revision(event_id(9), 1), second]);
    let advances = [advance(1, &fenced, 5)];
    assert_eq!(other.apply(TOPIC, &advances, &outcome).await, Applied::Conflict);
    assert_eq!(current(&mut one, event_id(9)).await, None, "rolled back, all of it");
    let known = current(&mut one, event_id(1)).await.expect("the first one's");
    assert_eq!(known.hash, revision(event_id(1), 1).hash);
    // Rolled back: the same task decides again, and goes on from where it stood.
    let outcome = revised([revision(event_id(1), 2)]);
    assert_eq!(other.apply(TOPIC, &advances, &outcome).await, Applied::Committed);
}

// ── the outbox ─────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) async fn the_outbox_is_the_last_batch_as_it_was_to_be_sent(world: &impl Stores) {
    let mut store = world.open().await;
    let (zero, one) = (
        store.fence(TOPIC, 0).await.expect("a fence"),
        store.fence(TOPIC, 1).await.expect("a fence"),
    );
    let sent = vec![output(2), output(2), output(4)];
    let mut outcome = Outcome::default();
    outcome.outbox.insert(0, sent.clone());
    outcome.outbox.insert(1, vec![output(11)]);
    let advances = [advance(0, &zero, 5), advance(1, &one, 12)];
    assert_eq!(store.apply(TOPIC, &advances, &outcome).await, Applied::Committed);
    let mut other = world.open().await;
    let fenced = other.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!((fenced.applied, &fenced.outbox), (5, &Some((0, 5, sent))));
    // The next one takes its place.
    let next = vec![output(6)];
    let outcome = Outcome { outbox: BTreeMap::from([(0, next.clone())]), ..Outcome::default() };
    assert_eq!(other.apply(TOPIC, &[advance(0, &fenced, 7)], &outcome).await, Applied::Committed);
    assert_eq!(store.fence(TOPIC, 0).await.expect("a fence").outbox, Some((5, 7, next)));
    let other_partition = store.fence(TOPIC, 1).await.expect("a fence");
    assert_eq!(other_partition.outbox, Some((0, 12, vec![output(11)])));
}

pub(crate) async fn a_batch_without_outputs_has_an_outbox_too(world: &impl Stores) {
    let mut store = world.open().await;
    let first = Outcome { outbox: BTreeMap::from([(0, vec![output(0)])]), ..Outcome::default() };
    assert_eq!(applied(&mut store, 0, &first).await, Applied::Committed);
    assert_eq!(applied(&mut store, 0, &Outcome::default()).await, Applied::Committed);
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!(fenced.outbox, Some((1, 2, Vec::new())), "not the batch before");
}

// ── starts, tries, releases ────────────────────────────────────────────────────────────────────────────────

pub(crate) async fn starts_count_until_there_is_progress(world: &impl Stores) {
    let mut store = world.open().await;
    for expected in 1..=3 {
        assert_eq!(store.fence(TOPIC, 0).await.expect("a fence").starts, expected);
    }
    assert_eq!(applied(&mut store, 0, &Outcome::default()).await, Applied::Committed);
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!(fenced.starts, 1, "counted anew");
    let failed = Advance { applied: 99, ..advance(0, &fenced, 100) };
    assert_eq!(store.apply(TOPIC, &[failed], &Outcome::default()).await, Applied::NotOurs);
    assert_eq!(store.fence(TOPIC, 0).await.expect("a fence").starts, 2, "that was no progress");
}

pub(crate) async fn a_release_is_for_the_owner_alone(world: &impl Stores) {
    let mut store = world.open().await;
    assert_eq!(applied(&mut store, 0, &Outcome::default()).await, Applied::Committed);
    let was = store.fence(TOPIC, 0).await.expect("a fence");
    let is = store.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!((is.applied, is.published, is.starts), (1, 0, 2));
    store.release(TOPIC, 0, was.fence, 1).await;
    store.release(TOPIC, 0, is.fence, 0).await;
    let unchanged = store.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!((unchanged.published, unchanged.starts), (0, 3));
    store.release(TOPIC, 0, unchanged.fence, 1).await;
    let released = store.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!((released.applied, released.published, released.starts), (1, 1, 1));
}

pub(crate) async fn a_try_is_counted_for_the_owner_alone(world: &impl Stores) {
    let mut store = world.open().await;
    let was = store.fence(TOPIC, 0).await.expect("a fence");
    let is = store.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!(store.count_try(TOPIC, 0, was.fence, 0).await, Ok(None), "a zombie's");
    assert_eq!(store.count_try(TOPIC, 0, is.fence, 7).await, Ok(None), "of another record");
    assert_eq!(store.count_try(TOPIC, 0, is.fence, 0).await, Ok(Some(1)));
    assert_eq!(store.count_try(TOPIC, 0, is.fence, 0).await, Ok(Some(2)));
    let again = store.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!(store.count_try(TOPIC, 0, again.fence, 0).await, Ok(Some(3)), "a restart keeps it");
    let advances = [advance(0, &again, 1)];
    assert_eq!(store.apply(TOPIC, &advances, &Outcome::default()).await, Applied::Committed);
    assert_eq!(store.count_try(TOPIC, 0, again.fence, 1).await, Ok(Some(1)), "progress ends it");
}

// ── samples ────────────────────────────────────────────────────────────────────────────────────────────────

pub(crate) async fn buckets_and_deletions_come_back_whole(world: &impl Stores) {
    let mut store = world.open().await;
    let many: Vec<u128> = (0..2_000).map(|n| n * 0x1_0000_0001).collect();
    let (large, small) = (bucket(1, 10, &many), bucket(2, 10, &[]));
    let steps = (heart_rate().0, "steps".to_owned());
    let ids: BTreeSet<Uuid> = (1..=3).map(Uuid::from_u128).collect();
    let mut outcome = buckets([large.clone(), small.clone()]);
    outcome.waiting = BTreeMap::from([(heart_rate(), ids.clone()), (steps.clone(), ids.clone())]);
    assert_eq!(applied(&mut store, 0, &outcome).await, Applied::Committed);
    let plan = Plan {
        buckets: BTreeSet::from([large.event_id, small.event_id, event_id(3)]),
        waiting: BTreeSet::from([heart_rate(), steps.clone()]),
        ..Plan::default()
    };
    let seen = known(&mut store, &plan).await;
    assert_eq!(
        seen.buckets,
        BTreeMap::from([(large.event_id, large.clone()), (small.event_id, small)])
    );
    assert_eq!(seen.waiting, outcome.waiting);
    // Changed, whole; an empty set is gone.
    let changed = Bucket { revision: 3, ..bucket(1, 10, &many[..100]) };
    let mut outcome = buckets([changed.clone()]);
    outcome.waiting = BTreeMap::from([(heart_rate(), BTreeSet::new())]);
    assert_eq!(applied(&mut store, 0, &outcome).await, Applied::Committed);
    let seen = known(&mut store, &plan).await;
    assert_eq!(seen.buckets[&changed.event_id], changed);
    assert_eq!(seen.waiting, BTreeMap::from([(steps, ids)]));
}

pub(crate) async fn a_bucket_keeps_all_that_it_has(world: &impl Stores) {
    let mut store = world.open().await;
    let full = full_bucket(1, 10);
    let told = Bucket { told: Some((Op::Upsert, ContentHash::of(b""))), ..bucket(2, 10, &[]) };
    for all in [
        [full.clone(), told],
        // And loses again what it loses.
        [bucket(1, 10, &[0, 2]), Bucket { told: None, ..bucket(2, 10, &[7]) }],
        [full, bucket(2, 10, &[])],
    ] {
        assert_eq!(applied(&mut store, 0, &buckets(all.clone())).await, Applied::Committed);
        let ids = all.iter().map(|bucket| bucket.event_id).collect();
        let seen = known(&mut store, &Plan { buckets: ids, ..Plan::default() }).await.buckets;
        let expected: BTreeMap<EventId, Bucket> =
            all.into_iter().map(|bucket| (bucket.event_id, bucket)).collect();
        assert_eq!(seen, expected);
    }
}

/// All of them, whatever their day: which one loses the sample is for decide to say.
pub(crate) async fn every_bucket_that_holds_a_removed_sample_is_known(world: &impl Stores) {
    let mut store = world.open().await;
    let mut elsewhere = bucket(4, 30, &[500]);
    elsewhere.sample_type.1 = "steps".into();
    let all = [bucket(1, 10, &[100, 500]), bucket(2, 20, &[200, 500]), bucket(3, 30, &[300])];
    let outcome = buckets(all.iter().cloned().chain([elsewhere]));
    assert_eq!(applied(&mut store, 0, &outcome).await, Applied::Committed);
    for (ids, days) in [
        (vec![100], vec![10]),
        (vec![500], vec![10, 20]),
        (vec![999], vec![]),
        (vec![300, 500, 999], vec![10, 20, 30]),
    ] {
        let ids: BTreeSet<Uuid> = ids.into_iter().map(Uuid::from_u128).collect();
        let plan = Plan { removed: BTreeMap::from([(heart_rate(), ids)]), ..Plan::default() };
        let seen = known(&mut store, &plan).await.buckets;
        let expected: BTreeMap<EventId, Bucket> = all
            .iter()
            .filter(|bucket| days.contains(&bucket.day))
            .map(|bucket| (bucket.event_id, bucket.clone()))
            .collect();
        assert_eq!(seen, expected);
    }
}

/// Of the types that are asked for, and of no other connection; where nothing is found, nothing lies around it.
pub(crate) async fn what_lies_around_a_removed_sample_is_known(world: &impl Stores) {
    let mut store = world.open().await;
    let of = |mut bucket: Bucket, name: &str| {
        bucket.sample_type.1 = name.into();
        bucket
    };
    let mut stranger = of(bucket(90, 20, &[800]), "session");
    stranger.sample_type.0 = ConnectionId(Uuid::from_u128(78));
    let all = [
        of(full_bucket(1, 20), "stages"),
        of(bucket(2, 20, &[900]), "stages"),
        of(bucket(3, 18, &[302]), "stages"),
        of(bucket(4, 22, &[402]), "session"),
        of(bucket(5, 19, &[]), "session"),
        of(bucket(6, 17, &[]), "stages"),
        of(bucket(7, 23, &[]), "session"),
        of(bucket(8, 20, &[]), "another"),
        of(bucket(10, 40, &[600]), "stages"),
        of(bucket(11, 41, &[]), "session"),
        of(bucket(12, 43, &[]), "stages"),
        stranger,
    ];
    let outcome = buckets(all.iter().cloned());
    assert_eq!(applied(&mut store, 0, &outcome).await, Applied::Committed);
    let (stages, session) =
        ((heart_rate().0, "stages".to_owned()), (heart_rate().0, "session".to_owned()));
    for (ids, expected) in [
        (vec![900], vec![1, 2, 3, 4, 5]),
        (vec![900, 600], vec![1, 2, 3, 4, 5, 10, 11]),
        (vec![302], vec![1, 2, 3, 5, 6]),
        (vec![302, 900], vec![1, 2, 3, 4, 5, 6]),
        (vec![999], vec![]),
        // What only lies around loses nothing.
        (vec![402], vec![]),
    ] {
        let ids: BTreeSet<Uuid> = ids.into_iter().map(Uuid::from_u128).collect();
        let plan = Plan {
            removed: BTreeMap::from([(stages.clone(), ids)]),
            around: BTreeSet::from([stages.clone(), session.clone()]),
            ..Plan::default()
        };
        let seen = known(&mut store, &plan).await.buckets;
        let expected: BTreeSet<EventId> = expected.into_iter().map(event_id).collect();
        let expected: BTreeMap<EventId, Bucket> = all
            .iter()
            .filter(|bucket| expected.contains(&bucket.event_id))
            .map(|bucket| (bucket.event_id, bucket.clone()))
            .collect();
        assert_eq!(seen, expected);
    }
}

pub(crate) async fn an_id_across_two_samples_is_not_found(world: &impl Stores) {
    let mut store = world.open().await;
    // In the newer bucket's bytes the id stands across a sample and its flag; in the older one it is a sample.
    let (low, high) = (0x0011_2233_4455_6677_8899_aabb_ccdd_ee00_u128, 0xff << 120);
    let across = low << 8;
    let further = low << 16 | 0xff;
    let newer = bucket(1, 20, &[low, high]);
    let older = bucket(2, 10, &[across]);
    let outcome = buckets([newer, older.clone()]);
    assert_eq!(applied(&mut store, 0, &outcome).await, Applied::Committed);
    for id in [across, further] {
        let plan = Plan {
            removed: BTreeMap::from([(heart_rate(), BTreeSet::from([Uuid::from_u128(id)]))]),
            ..Plan::default()
        };
        let seen = known(&mut store, &plan).await.buckets;
        let expected = (id == across).then(|| (older.event_id, older.clone()));
        assert_eq!(seen, expected.into_iter().collect());
    }
}

pub(crate) async fn what_is_not_known_is_absent(world: &impl Stores) {
    let mut store = world.open().await;
    let plan = Plan {
        events: BTreeSet::from([event_id(1)]),
        buckets: BTreeSet::from([event_id(2)]),
        waiting: BTreeSet::from([heart_rate()]),
        removed: BTreeMap::from([(heart_rate(), BTreeSet::from([Uuid::from_u128(1)]))]),
        around: BTreeSet::from([heart_rate()]),
    };
    let (progress, known) = store.load(TOPIC, &[0, 1], &plan).await.expect("loads");
    assert_eq!(progress, []);
    assert_eq!(known, Known::default());
    assert_eq!(store.look(TOPIC, &[]).await, Ok(Vec::new()));
}

// ── what the cache asks for ────────────────────────────────────────────────────────────────────────────────

fn event(n: u128, number: i32, maker: &str, measured_at: i64) -> BiometricEvent {
    BiometricEvent {
        event_id: event_id(n),
        revision: number,
        op: Op::Upsert,
        user_id: user("user-1"),
        connection_id: heart_rate().0,
        vendor: maker.into(),
        device_type: maker.into(),
        via: "direct".into(),
        record_type: "sleep".into(),
        record_id: n.to_string(),
        merge: Merge::Replace,
        version: None,
        received_at: measured_at + 5,
        freshness_us: Some(5),
        source: place(measured_at).source,
        origin: Origin::Live,
        normaliser: 1,
        content: Content {
            start_at: Some(measured_at - 10),
            end_at: Some(measured_at),
            offset_provenance: "unknown".into(),
            state: "final".into(),
            ..Content::default()
        },
        triggers: Vec::new(),
    }
}

fn stored(world: &impl Stores, event: &BiometricEvent) -> Revision {
    Revision {
        op: event.op,
        user: event.user_id.clone(),
        device_type: event.device_type.clone(),
        measured_at: event.content.measured_at(),
        event: world.bytes_of(event),
        ..revision(event.event_id, event.revision)
    }
}

pub(crate) async fn the_latest_of_a_hole_is_one_that_is_there(world: &impl Stores) {
    let mut store = world.open().await;
    let gone =
        BiometricEvent { op: Op::Delete, content: Content::default(), ..event(3, 2, "oura", 0) };
    let mut stranger = event(9, 1, "oura", 9_000);
    stranger.user_id = user("user-2");
    let events = [
        event(1, 1, "oura", 1_000),
        event(2, 1, "whoop", 500),
        event(3, 1, "oura", 3_000),
        gone,
        // Corrected to an earlier time: what it said before is not there any more.
        event(4, 1, "whoop", 4_000),
        event(4, 2, "whoop", 700),
        stranger,
    ];
    let mut outcome = revised(events.iter().map(|event| stored(world, event)));
    outcome.shown = events.iter().filter_map(Shown::of).collect();
    assert_eq!(applied(&mut store, 0, &outcome).await, Applied::Committed);
    let hole = |name: &str, maker: Option<&str>| Hole {
        user: user(name),
        device_type: maker.map(str::to_owned),
    };
    for (hole, expected) in [
        (hole("user-1", None), Some((1, 1, 1_000))),
        (hole("user-1", Some("oura")), Some((1, 1, 1_000))),
        (hole("user-1", Some("whoop")), Some((4, 2, 700))),
        (hole("user-2", None), Some((9, 1, 9_000))),
        (hole("user-1", Some("apple")), None),
        (hole("nobody", None), None),
    ] {
        let found = store.latest(std::slice::from_ref(&hole)).await.expect("the latest");
        let found: Vec<_> =
            found.iter().map(|one| (one.event_id, one.revision, one.measured_at)).collect();
        let expected: Vec<_> =
            expected.map(|(n, r, at)| (event_id(n), r, at)).into_iter().collect();
        assert_eq!(found, expected, "{hole:?}");
    }
    let two = [hole("user-1", None), hole("user-2", None)];
    assert_eq!(store.latest(&two).await.expect("the latest").len(), 2);
}

pub(crate) async fn a_new_store_has_lost_nothing(world: &impl Stores) {
    let mut store = world.open().await;
    assert!(!store.reconnected());
    store.fence(TOPIC, 0).await.expect("a fence");
    assert!(!store.reconnected(), "the first connection is not another one");
}
