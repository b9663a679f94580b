//! The hydrator's queue, quotas and vault on real Postgres.

use std::collections::BTreeSet;
use std::time::Duration;

use biometric_bridge::error::Kind;
use biometric_bridge::hydrator::quota;
use biometric_bridge::model::connection::{Connection, FOR_EVER};
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::Origin;
use biometric_bridge::model::id::{ConnectionId, Source, User};
use biometric_bridge::model::state::{Hydration, HydrationEnd, HydrationKey, Notes};
use biometric_bridge::postgres::queue::PostgresQueue;
use biometric_bridge::postgres::vault::{Keys, PostgresVault};
use biometric_bridge::stream::Register as _;
use biometric_bridge::stream::hydration::{
    Claimed, Fate, Pair, Queue as _, Taken, Vault as _, Work,
};
use biometric_bridge::vendors::ask::{Per, Quota};
use secrecy::{ExposeSecret as _, SecretString};

use crate::database::Database;

const LEASE: Duration = Duration::from_secs(60);

fn user() -> User {
    User::parse("user-1").expect("a user")
}

fn connection() -> ConnectionId {
    ConnectionId::derive("whoop", "v-1", &user())
}

fn key(record: &str) -> HydrationKey {
    HydrationKey {
        vendor: "whoop".into(),
        connection: connection(),
        record_type: "sleep".into(),
        record_id: record.into(),
    }
}

fn source(offset: i64) -> Source {
    Source { topic: Topic::RawWebhooks, partition: 1, offset, index: 0 }
}

fn asked(record: &str, offset: i64) -> Notes {
    let hydration =
        Hydration { key: key(record), source: source(offset), asked_at: 1_000 + offset };
    Notes { hydrations: vec![hydration], ..Notes::default() }
}

fn gone(record: &str, offset: i64) -> Notes {
    let end = HydrationEnd { key: key(record), source: source(offset), asked_at: 1_000 + offset };
    Notes { ended: vec![end], ..Notes::default() }
}

async fn note(world: &Database, notes: Notes) {
    world.register().note(&notes).await.expect("noted");
}

/// A connection, and these records asked for.
async fn world(records: &[&str]) -> (Database, PostgresQueue) {
    let world = Database::migrated().await;
    let row = Connection {
        id: connection(),
        vendor: "whoop".into(),
        vendor_user: "v-1".into(),
        user: user(),
        valid_from: FOR_EVER,
        valid_to: None,
        settled: true,
    };
    note(&world, Notes { connections: vec![row], ..Notes::default() }).await;
    for (offset, record) in (0..).zip(records) {
        note(&world, asked(record, offset)).await;
    }
    let queue = PostgresQueue::new(&world.settings()).expect("a queue");
    (world, queue)
}

fn names(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|one| one.key.record_id.as_str()).collect()
}

async fn claim(queue: &PostgresQueue, at_most: usize, lease: Duration) -> Vec<Claimed> {
    queue.claim("whoop", Work::News, at_most, lease).await.expect("claimed")
}

async fn column(world: &Database, column: &str, record: &str) -> String {
    let sql = format!("SELECT ({column})::text FROM hydrations WHERE record_id = $1");
    let row = world.client().await.query_one(&sql, &[&record]).await.expect("a row");
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

#[tokio::test]
async fn no_two_have_one_record_and_live_goes_first() {
    let (world, queue) = world(&["a", "b", "c", "d"]).await;
    world
        .sql("UPDATE hydrations SET priority = 1, origin = 'backfill' WHERE record_id < 'c'")
        .await;
    let other = PostgresQueue::new(&world.settings()).expect("a queue");
    let first = claim(&queue, 2, LEASE).await;
    assert_eq!(names(&first).into_iter().collect::<BTreeSet<_>>(), ["c", "d"].into());
    assert!(claim(&queue, 3, LEASE).await.is_empty(), "history is no news");
    let depths = queue.depths().await.expect("depths");
    assert_eq!((depths[0].due, depths[0].history), (2, 2));
    let history = |queue: PostgresQueue| async move {
        queue.claim("whoop", Work::History, 3, LEASE).await.expect("claimed")
    };
    let (one, two) = tokio::join!(history(queue.clone()), history(other.clone()));
    assert_eq!(one.len() + two.len(), 2, "{one:?} {two:?}");
    assert!(history(other.clone()).await.is_empty());
    assert!(claim(&other, 3, LEASE).await.is_empty());
    assert!(queue.claim("oura", Work::News, 3, LEASE).await.expect("claimed").is_empty());
    let known = &first[0];
    assert_eq!(known.vendor_user.as_deref(), Some("v-1"));
    assert_eq!((known.attempts, known.failures, known.origin.name()), (0, 0, "live"));
    let depths = queue.depths().await.expect("depths");
    assert_eq!((depths[0].vendor.as_str(), depths[0].due, depths[0].later), ("whoop", 2, 0));
}

#[tokio::test]
async fn a_killed_worker_s_record_comes_back_and_the_worker_s_late_word_does_not_count() {
    let (_world, queue) = world(&["a"]).await;
    let killed = claim(&queue, 1, Duration::from_millis(200)).await;
    assert!(claim(&queue, 1, LEASE).await.is_empty());
    tokio::time::sleep(Duration::from_millis(250)).await;
    let next = claim(&queue, 1, LEASE).await;
    assert_eq!(names(&next), ["a"]);
    assert_eq!(queue.end(&killed[0], Fate::Done).await, Ok(false));
    assert_eq!(queue.end(&next[0], Fate::Done).await, Ok(true));
    assert!(claim(&queue, 1, LEASE).await.is_empty(), "done is done");
}

#[tokio::test]
async fn a_change_during_a_fetch_is_fetched_again_at_once() {
    let (world, queue) = world(&["a"]).await;
    for (fate, offset) in [
        (Fate::Done, 10),
        (Fate::GivenUp { reason: "x" }, 11),
        (Fate::Later { after: LEASE, attempts: 3, failures: 4, reason: "x" }, 12),
    ] {
        let claimed = claim(&queue, 1, LEASE).await;
        note(&world, asked("a", offset)).await;
        note(&world, asked("a", 2)).await;
        assert!(claim(&queue, 1, LEASE).await.is_empty(), "one at a time");
        assert_eq!(queue.end(&claimed[0], fate).await, Ok(false));
        let again = claim(&queue, 1, LEASE).await;
        assert_eq!(again[0].source, source(offset), "{fate:?}");
        assert_eq!((again[0].attempts, again[0].failures), (0, 0));
        assert_eq!(queue.end(&again[0], Fate::Untried).await, Ok(true));
    }
    let claimed = claim(&queue, 1, LEASE).await;
    note(&world, gone("a", 20)).await;
    assert_eq!(queue.end(&claimed[0], Fate::Untried).await, Ok(false));
    assert!(claim(&queue, 1, LEASE).await.is_empty(), "a deletion ends its record's fetch");
    assert_eq!(column(&world, "state", "a").await, "ended");
}

#[tokio::test]
async fn what_waits_is_not_claimed_before_its_time() {
    let (world, queue) = world(&["a"]).await;
    let claimed = claim(&queue, 1, LEASE).await;
    let after = Duration::from_millis(300);
    let fate = Fate::Later { after, attempts: 2, failures: 1, reason: "not_yet" };
    assert_eq!(queue.end(&claimed[0], fate).await, Ok(true));
    assert_eq!(column(&world, "reason", "a").await, "not_yet");
    assert!(claim(&queue, 1, LEASE).await.is_empty());
    assert_eq!(queue.depths().await.expect("depths")[0].later, 1);
    tokio::time::sleep(Duration::from_millis(350)).await;
    let again = claim(&queue, 1, LEASE).await;
    assert_eq!((again[0].attempts, again[0].failures), (2, 1));
    let fate = Fate::GivenUp { reason: "never became available" };
    assert_eq!(queue.end(&again[0], fate).await, Ok(true));
    assert_eq!(column(&world, "state", "a").await, "given_up");
    // Who asks anew has it fetched anew.
    note(&world, asked("a", 9)).await;
    assert_eq!(claim(&queue, 1, LEASE).await[0].attempts, 0);
    assert_eq!(column(&world, "reason", "a").await, "");
}

/// What is tried again has waited longer than what is asked for meanwhile, however much that is.
#[tokio::test]
async fn what_is_tried_again_is_not_passed_over() {
    let (world, queue) = world(&["old"]).await;
    let [claimed] = claim(&queue, 1, LEASE).await.try_into().expect("one");
    let fate = Fate::Later { after: Duration::ZERO, attempts: 1, failures: 0, reason: "not_yet" };
    assert!(queue.end(&claimed, fate).await.expect("ended"));
    for (record, offset) in [("new", 7), ("newer", 8)] {
        let now = Hydration { key: key(record), source: source(offset), asked_at: i64::MAX };
        note(&world, Notes { hydrations: vec![now], ..Notes::default() }).await;
    }
    let all = claim(&queue, 3, LEASE).await;
    assert_eq!(names(&all), ["old", "new", "newer"], "what is asked for is due at once");
}

#[tokio::test]
async fn who_is_not_connected_any_more_has_no_vendor_user() {
    let (world, queue) = world(&["a"]).await;
    world.sql("UPDATE connections SET valid_to = 5").await;
    assert_eq!(claim(&queue, 1, LEASE).await[0].vendor_user, None);
}

/// Three replicas with eight workers each, as fast as they can: together exactly what the window allows.
/// What was taken back, or is measured at another time by now, is not what stands.
#[tokio::test]
async fn what_was_told_and_stands_is_found_by_its_time() {
    let (world, queue) = world(&["a"]).await;
    for (event, revision, measured_at, op, whose) in [
        (1, 1, Some(10), 1, "user-1"),
        (1, 2, Some(50), 1, "user-1"),
        (2, 1, Some(10), 1, "user-1"),
        (2, 2, None, 2, "user-1"),
        (3, 1, Some(20), 1, "user-1"),
        (4, 1, Some(15), 1, "user-2"),
        (5, 1, Some(9), 1, "user-1"),
        (6, 1, Some(21), 1, "user-1"),
    ] {
        let measured_at = measured_at.map_or("NULL".to_owned(), |at: i64| at.to_string());
        let row = format!(
            "INSERT INTO revisions VALUES ('00000000-0000-0000-0000-00000000000{event}',
             {measured_at}, {revision}, {op}, '', '', '{whose}', 'whoop', '{event}')"
        );
        world.sql(&row).await;
    }
    let told = |from, to, most| queue.told(connection(), (from, to), most);
    assert_eq!(told(10, 20, 9).await.expect("told"), [&b"3"[..]]);
    assert_eq!(told(9, 50, 2).await.expect("told"), [&b"1"[..], b"6"], "the latest");
}

#[tokio::test]
async fn all_replicas_together_never_exceed_a_quota() {
    let (world, _queue) = world(&[]).await;
    let quotas = [
        Quota { per: Per::App, window_s: 3_600, calls: 40 },
        Quota { per: Per::App, window_s: 86_400, calls: 1_000 },
    ];
    let buckets = quota::buckets(&quotas, connection(), Origin::Live, 1);
    let mut workers = Vec::new();
    for _ in 0..3 {
        let queue = PostgresQueue::new(&world.settings()).expect("a queue");
        for _ in 0..8 {
            let (queue, buckets) = (queue.clone(), buckets.clone());
            workers.push(tokio::spawn(async move {
                let mut granted = 0;
                for _ in 0..10 {
                    match queue.take("whoop", connection(), &buckets).await.expect("an answer") {
                        Taken::Granted { .. } => granted += 1,
                        Taken::Wait { app, user, .. } => {
                            assert!(user.is_zero() && !app.is_zero(), "{app:?} {user:?}");
                            assert!(app <= Duration::from_secs(3_730), "{app:?}");
                        }
                    }
                }
                granted
            }));
        }
    }
    let mut granted = 0;
    for worker in workers {
        granted += worker.await.expect("no panic");
    }
    assert_eq!(granted, 40);
    let sql = "SELECT window_s, (SELECT sum(c) FROM unnest(counts) AS c) FROM quotas ORDER BY 1";
    let rows = world.client().await.query(sql, &[]).await.expect("rows");
    let counted: Vec<(i32, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(counted, [(3_600, 40), (86_400, 40)], "all buckets, or none");
}

#[tokio::test]
async fn a_window_opens_again_and_the_vendor_s_word_stands_above_it() {
    let (_world, queue) = world(&[]).await;
    let person = [Quota { per: Per::User, window_s: 1, calls: 2 }];
    let buckets = quota::buckets(&person, connection(), Origin::Live, 1);
    let take = async || queue.take("whoop", connection(), &buckets).await.expect("an answer");
    assert!(is_granted(take().await) && is_granted(take().await));
    let Taken::Wait { app, user, .. } = take().await else { panic!("a third") };
    assert!(app.is_zero() && user <= Duration::from_millis(1_040), "{app:?} {user:?}");
    let other = ConnectionId::derive("whoop", "v-2", &user_2());
    let theirs = quota::buckets(&person, other, Origin::Live, 1);
    let granted = async |vendor, connection, buckets: &[_]| {
        is_granted(queue.take(vendor, connection, buckets).await.expect("an answer"))
    };
    assert!(granted("whoop", other, &theirs).await, "a limit of one's own");
    tokio::time::sleep(user).await;
    assert!(is_granted(take().await));
    queue.hold("whoop", None, Duration::from_millis(300)).await.expect("held");
    queue.hold("whoop", None, Duration::from_millis(10)).await.expect("held");
    let Taken::Wait { app, .. } = queue.take("whoop", connection(), &[]).await.expect("an answer")
    else {
        panic!("held")
    };
    assert!(app > Duration::from_millis(100) && app <= Duration::from_millis(300), "{app:?}");
    assert!(granted("oura", connection(), &[]).await, "another vendor");
    tokio::time::sleep(app).await;
    assert!(granted("whoop", connection(), &[]).await);
}

fn is_granted(taken: Taken) -> bool {
    matches!(taken, Taken::Granted { .. })
}

fn user_2() -> User {
    User::parse("user-2").expect("a user")
}

// ── the vault ──────────────────────────────────────────────────────────────────────────────────────────────────────

fn vault(world: &Database, secret: &str, previous: Option<&str>) -> PostgresVault {
    let previous = previous.map(SecretString::from);
    let keys = Keys::new(&secret.into(), previous.as_ref()).expect("keys");
    PostgresVault::new(&world.settings(), keys).expect("a vault")
}

fn pair(number: u32) -> Pair {
    let refresh = Some(format!("refresh-canary-{number}").into());
    Pair { access: format!("access-canary-{number}").into(), refresh }
}

const SECRET: &str = "not-a-secret-test-key, thirty-two bytes";
const NEXT: &str = "not-a-secret-test-key, the one after it";

#[tokio::test]
async fn tokens_are_sealed_and_stored_in_place_of_what_was_known() {
    let (world, _queue) = world(&[]).await;
    let vault = vault(&world, SECRET, None);
    let lives = Some(Duration::from_secs(3_600));
    assert!(vault.read(connection()).await.expect("read").is_none());
    assert_eq!(vault.store("whoop", connection(), 7, &pair(0), lives).await, Ok(false));
    assert_eq!(vault.store("whoop", connection(), 0, &pair(1), lives).await, Ok(true));
    let stored = vault.read(connection()).await.expect("read").expect("a pair");
    assert_eq!(stored.pair.access.expose_secret(), "access-canary-1");
    let (old, left) = stored.life.expect("a life");
    assert!(old < Duration::from_secs(10) && left > Duration::from_secs(3_590), "{old:?} {left:?}");
    // Of two who have a pair each, one stores.
    let (two, three) = (pair(2), pair(3));
    let (one, other) = tokio::join!(
        vault.store("whoop", connection(), stored.version, &two, None),
        vault.store("whoop", connection(), stored.version, &three, None),
    );
    assert!(one.expect("an answer") ^ other.expect("an answer"));
    let client = world.client().await;
    let sql = "SELECT string_agg(tokens::text, '') || string_agg(encode(sealed, 'escape'), '') FROM tokens";
    let all: String = client.query_one(sql, &[]).await.expect("a row").get(0);
    assert!(!all.contains("canary"), "{all}");
    // Sealed bytes that are moved to another row do not open.
    let sql = "INSERT INTO tokens SELECT gen_random_uuid(), vendor, key_id, sealed, version, stored_at, \
               expires_at, state, 0 FROM tokens RETURNING connection";
    let moved = ConnectionId(client.query_one(sql, &[]).await.expect("a row").get(0));
    assert_eq!(vault.read(moved).await.expect_err("bound").kind, Kind::AuthenticationError);
}

#[tokio::test]
async fn one_renews_at_a_time_and_a_lost_one_can_be_tried_again() {
    let (world, _queue) = world(&[]).await;
    let vault = vault(&world, SECRET, None);
    vault.store("whoop", connection(), 0, &pair(1), None).await.expect("stored");
    let short = Duration::from_millis(200);
    let begin = async |version, time| {
        vault.begin_renewal(connection(), version, time).await.expect("an answer")
    };
    let (one, two) = tokio::join!(begin(1, short), begin(1, short));
    assert!(one ^ two);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(begin(1, LEASE).await, "who died holds it no longer");
    assert!(!begin(2, LEASE).await, "another version");
    vault.end_renewal(connection(), 1, false).await.expect("ended");
    assert!(begin(1, LEASE).await);
    assert_eq!(vault.store("whoop", connection(), 1, &pair(2), None).await, Ok(true));
    assert!(begin(2, LEASE).await, "a pair that is stored ends its renewal");
    vault.end_renewal(connection(), 2, true).await.expect("ended");
    assert!(!begin(2, LEASE).await);
    assert!(vault.read(connection()).await.expect("read").expect("a pair").reauth_required);
    vault.store("whoop", connection(), 0, &pair(3), None).await.expect("stored");
    assert!(!vault.read(connection()).await.expect("read").expect("a pair").reauth_required);
}

#[tokio::test]
async fn a_key_follows_another() {
    let (world, _queue) = world(&[]).await;
    vault(&world, SECRET, None)
        .store("whoop", connection(), 0, &pair(1), None)
        .await
        .expect("stored");
    let error = vault(&world, NEXT, None).read(connection()).await.expect_err("another key's");
    assert_eq!((error.kind, error.code.as_str()), (Kind::AuthenticationError, "another key"));
    let both = vault(&world, NEXT, Some(SECRET));
    assert!(both.read(connection()).await.expect("read").is_some());
    both.store("whoop", connection(), 1, &pair(2), None).await.expect("stored");
    assert!(vault(&world, NEXT, None).read(connection()).await.expect("read").is_some());
}
