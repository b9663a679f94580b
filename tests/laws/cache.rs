//! What every [`Cache`] promises: it only moves forward, and says where a tombstone has left nothing.
//!
//! A world implements [`Caches`] and says `cache_laws!(make)`, as for the store.

use biometric_bridge::model::event::Op;
use biometric_bridge::model::id::{EventId, User};
use biometric_bridge::model::state::{Hole, Shown};
use biometric_bridge::stream::Cache;
use uuid::Uuid;

/// A cache and what readers see of it.
pub(crate) trait Caches {
    /// The cache.
    type Cache: Cache;
    /// Another one over the same keys.
    async fn open(&self) -> Self::Cache;
    /// A user that no other test has; always the same one in a world.
    fn user(&self) -> User;
    /// The latest of the user (of this maker): event and revision, and its JSON.
    async fn latest(&self, maker: Option<&str>) -> Option<(EventId, i32, String)>;
    /// The user's time series in order of time: time and JSON; absent where this cache keeps none.
    async fn series(&self) -> Option<Vec<(i64, String)>>;
    /// The most members that this world's series may have.
    fn series_max(&self) -> usize;
}

/// A test for each law, over worlds that this makes.
macro_rules! cache_laws {
    ($make:path) => {
        cache_laws!($make,
            what_was_measured_later_is_shown,
            of_one_time_the_higher_revision_is_shown,
            a_correction_replaces_what_is_shown_even_if_it_is_earlier,
            twice_is_once,
            a_late_revision_changes_nothing,
            a_tombstone_of_what_is_shown_leaves_a_hole,
            a_tombstone_of_something_else_leaves_none,
            a_hole_is_filled_by_showing,
            a_late_revision_does_not_come_back_after_its_tombstone,
            a_series_has_one_member_an_event,
            a_series_is_capped_from_the_oldest,
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

fn event_id(n: u128) -> EventId {
    EventId(Uuid::from_u128(n << 96 | n))
}

fn shown(world: &impl Caches, n: u128, revision: i32, maker: &str, measured_at: i64) -> Shown {
    let event_id = event_id(n);
    Shown {
        user: world.user(),
        device_type: maker.into(),
        event_id,
        revision,
        op: Op::Upsert,
        measured_at,
        json: serde_json::json!({"event_id": event_id, "revision": revision, "at": measured_at})
            .to_string(),
    }
}

fn gone(shown: &Shown) -> Shown {
    let revision = shown.revision + 1;
    Shown { op: Op::Delete, revision, measured_at: i64::MIN, ..shown.clone() }
}

async fn show(world: &impl Caches, shown: &[Shown]) -> Vec<Hole> {
    world.open().await.show(shown).await.expect("shown")
}

async fn assert_latest(world: &impl Caches, maker: Option<&str>, expected: Option<&Shown>) {
    let expected = expected.map(|one| (one.event_id, one.revision, one.json.clone()));
    assert_eq!(world.latest(maker).await, expected, "{maker:?}");
}

async fn assert_series(world: &impl Caches, expected: &[&Shown]) {
    let expected: Vec<_> = expected.iter().map(|one| (one.measured_at, one.json.clone())).collect();
    if let Some(series) = world.series().await {
        assert_eq!(series, expected);
    }
}

/// Times as they are in life: µs since 1970 need 51 bits.
const T: i64 = 1_790_000_000_000_000;

pub(crate) async fn what_was_measured_later_is_shown(world: &impl Caches) {
    let early = shown(world, 1, 1, "oura", T);
    let late = shown(world, 2, 1, "whoop", T + 1);
    assert_eq!(show(world, &[late.clone(), early.clone()]).await, []);
    assert_latest(world, None, Some(&late)).await;
    assert_latest(world, Some("oura"), Some(&early)).await;
    assert_latest(world, Some("whoop"), Some(&late)).await;
    assert_latest(world, Some("apple"), None).await;
    assert_series(world, &[&early, &late]).await;
}

pub(crate) async fn of_one_time_the_higher_revision_is_shown(world: &impl Caches) {
    let (second, third) = (shown(world, 1, 2, "oura", T), shown(world, 2, 3, "oura", T));
    show(world, &[third.clone(), second]).await;
    assert_latest(world, None, Some(&third)).await;
}

pub(crate) async fn a_correction_replaces_what_is_shown_even_if_it_is_earlier(world: &impl Caches) {
    let first = shown(world, 1, 1, "oura", T);
    let corrected = shown(world, 1, 2, "oura", T - 500);
    show(world, &[first]).await;
    show(world, std::slice::from_ref(&corrected)).await;
    assert_latest(world, None, Some(&corrected)).await;
    assert_latest(world, Some("oura"), Some(&corrected)).await;
    assert_series(world, &[&corrected]).await;
}

pub(crate) async fn twice_is_once(world: &impl Caches) {
    let all = [shown(world, 1, 1, "oura", T), shown(world, 2, 1, "oura", T + 5)];
    show(world, &all).await;
    assert_eq!(show(world, &all).await, []);
    assert_latest(world, None, Some(&all[1])).await;
    assert_series(world, &[&all[0], &all[1]]).await;
    assert_eq!(show(world, &[]).await, []);
}

pub(crate) async fn a_late_revision_changes_nothing(world: &impl Caches) {
    let first = shown(world, 1, 1, "oura", T + 900);
    let second = shown(world, 1, 2, "oura", T);
    show(world, std::slice::from_ref(&second)).await;
    assert_eq!(show(world, &[first]).await, []);
    assert_latest(world, None, Some(&second)).await;
    assert_series(world, &[&second]).await;
}

pub(crate) async fn a_tombstone_of_what_is_shown_leaves_a_hole(world: &impl Caches) {
    let one = shown(world, 1, 1, "oura", T);
    show(world, std::slice::from_ref(&one)).await;
    let mut holes = show(world, &[gone(&one)]).await;
    holes.sort_by_key(|hole| hole.device_type.clone());
    let expected = [
        Hole { user: world.user(), device_type: None },
        Hole { user: world.user(), device_type: Some("oura".into()) },
    ];
    assert_eq!(holes, expected);
    assert_latest(world, None, None).await;
    assert_latest(world, Some("oura"), None).await;
    assert_series(world, &[]).await;
}

pub(crate) async fn a_tombstone_of_something_else_leaves_none(world: &impl Caches) {
    let early = shown(world, 1, 1, "oura", T);
    let late = shown(world, 2, 1, "oura", T + 1);
    show(world, &[early.clone(), late.clone()]).await;
    assert_eq!(show(world, &[gone(&early)]).await, []);
    assert_latest(world, None, Some(&late)).await;
    assert_series(world, &[&late]).await;
    // Shown of its maker, but not of the user.
    let other = shown(world, 3, 1, "whoop", T - 1);
    show(world, std::slice::from_ref(&other)).await;
    let hole = Hole { user: world.user(), device_type: Some("whoop".into()) };
    assert_eq!(show(world, &[gone(&other)]).await, [hole]);
    assert_latest(world, None, Some(&late)).await;
}

pub(crate) async fn a_hole_is_filled_by_showing(world: &impl Caches) {
    let before = shown(world, 1, 1, "oura", T);
    let newest = shown(world, 2, 1, "oura", T + 1);
    show(world, &[before.clone(), newest.clone(), gone(&newest)]).await;
    assert_latest(world, None, None).await;
    assert_eq!(show(world, std::slice::from_ref(&before)).await, []);
    assert_latest(world, None, Some(&before)).await;
    assert_latest(world, Some("oura"), Some(&before)).await;
    assert_series(world, &[&before]).await;
}

pub(crate) async fn a_late_revision_does_not_come_back_after_its_tombstone(world: &impl Caches) {
    let one = shown(world, 1, 1, "oura", T);
    show(world, &[one.clone(), gone(&one)]).await;
    assert_eq!(show(world, std::slice::from_ref(&one)).await, []);
    assert_latest(world, None, None).await;
    assert_series(world, &[]).await;
    let again = shown(world, 1, 3, "oura", T + 3);
    show(world, std::slice::from_ref(&again)).await;
    assert_latest(world, None, Some(&again)).await;
}

pub(crate) async fn a_series_has_one_member_an_event(world: &impl Caches) {
    let one = shown(world, 1, 1, "oura", T);
    // Another event of the same time stays.
    let other = shown(world, 2, 1, "whoop", T);
    let corrected = shown(world, 1, 2, "oura", T + 7);
    show(world, &[one, other.clone()]).await;
    show(world, std::slice::from_ref(&corrected)).await;
    assert_series(world, &[&other, &corrected]).await;
}

pub(crate) async fn a_series_is_capped_from_the_oldest(world: &impl Caches) {
    let all: Vec<Shown> = (1_i64..)
        .take(world.series_max() + 3)
        .map(|n| shown(world, n.unsigned_abs().into(), 1, "oura", T + n))
        .collect();
    show(world, &all).await;
    let kept: Vec<&Shown> = all.iter().skip(3).collect();
    assert_series(world, &kept).await;
    show(world, &[shown(world, 999, 1, "oura", T - 1)]).await;
    assert_series(world, &kept).await;
}
