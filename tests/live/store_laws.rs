//! The laws of the store and the register on real Postgres, and what only a real one can do: break.

use std::time::Duration;

use biometric_bridge::error::Kind;
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::BiometricEvent;
use biometric_bridge::model::id::EventId;
use biometric_bridge::model::state::{Outcome, Plan};
use biometric_bridge::postgres::lookup::Snapshot;
use biometric_bridge::postgres::pool::pool;
use biometric_bridge::postgres::store::PostgresStore;
use biometric_bridge::stream::{Applied, Store};
use bytes::Bytes;
use tokio_postgres::Client;

use crate::database::{Database, Wire, bytes_of, store};

#[macro_use]
#[path = "../laws/store.rs"]
mod laws;

use laws::{TOPIC, advance, bucket, buckets, event_id, output, revised, revision};

impl laws::Stores for Database {
    type Store = PostgresStore;

    async fn open(&self) -> PostgresStore {
        self.store("test store")
    }

    fn bytes_of(&self, event: &BiometricEvent) -> Bytes {
        bytes_of(event)
    }
}

store_laws!(Database::migrated);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn one_event() -> Outcome {
    let mut outcome = revised([revision(event_id(1), 1)]);
    outcome.outbox.insert(0, vec![output(0)]);
    outcome
}

/// Connections of this name that have a transaction open and are doing nothing in it.
async fn forgotten(client: &Client, name: &str) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity \
               WHERE application_name = $1 AND state LIKE 'idle in transaction%'";
    client.query_one(sql, &[&name]).await.expect("activity").get(0)
}

#[tokio::test]
async fn a_new_connection_is_told_once_and_works() {
    let world = Database::migrated().await;
    let name = world.schema.clone();
    let mut store = world.store(&name);
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    world.end(&name).await;
    tokio::time::sleep(ms(50)).await;
    assert!(store.reconnected(), "seen without asking for anything");
    assert!(!store.reconnected(), "once");
    let again = store.fence(TOPIC, 0).await.expect("a fence on a new connection");
    assert_ne!(again.fence, fenced.fence);
    assert!(!store.reconnected(), "this fence was already taken on the new one");
    // Lost while it is in use.
    world.end(&name).await;
    let mut failures = 0;
    while store.look(TOPIC, &[0]).await.is_err() {
        failures += 1;
        assert!(failures < 5, "it does not come back");
    }
    assert!(store.reconnected());
    assert!(!store.reconnected());
}

#[tokio::test]
async fn a_fence_waits_for_a_transaction_in_doubt() {
    let world = Database::migrated().await;
    let mut store = world.store("test store");
    store.fence(TOPIC, 0).await.expect("a fence");
    let doubt = world.client().await;
    doubt.batch_execute("BEGIN; UPDATE stream_progress SET applied = 7").await.expect("in doubt");
    doubt
        .batch_execute(r"INSERT INTO outbox VALUES (4, 0, 0, 7, '\x01')")
        .await
        .expect("its outbox");
    let (fenced, ()) = tokio::join!(store.fence(TOPIC, 0), async {
        tokio::time::sleep(ms(300)).await;
        doubt.batch_execute("COMMIT").await.expect("decided");
    });
    let fenced = fenced.expect("a fence");
    assert_eq!(fenced.applied, 7, "what it did is seen");
    assert_eq!(fenced.outbox, Some((0, 7, Vec::new())), "and its outbox, not an older one");
}

#[tokio::test]
async fn a_load_is_one_moment() {
    let world = Database::migrated().await;
    let mut store = world.store("test store");
    let mut other = world.store("test store");
    let plan = Plan { events: (1..=40).map(event_id).collect(), ..Plan::default() };
    let fenced = other.fence(TOPIC, 0).await.expect("a fence");
    let writes = async {
        let mut applied = 0;
        for n in 1..=40 {
            let mut advance = advance(0, &fenced, n);
            advance.applied = applied;
            applied = n;
            let id = u128::try_from(n).expect("small");
            let outcome = revised([revision(event_id(id), 1)]);
            assert_eq!(other.apply(TOPIC, &[advance], &outcome).await, Applied::Committed);
        }
    };
    let reads = async {
        for _ in 0..60 {
            let (progress, known) = store.load(TOPIC, &[0], &plan).await.expect("loads");
            let count = i64::try_from(known.revisions.len()).expect("small");
            assert_eq!(progress[0].applied, count, "rows and progress of one moment");
        }
    };
    tokio::join!(writes, reads);
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_fence_tells() {
    let world = Database::migrated().await;
    let wire = Wire::new().await;
    let mut far = store(world.settings_by(&wire.address), "test store");
    let fenced = far.fence(TOPIC, 0).await.expect("a fence");
    wire.swallow_commits();
    let applied = far.apply(TOPIC, &[advance(0, &fenced, 5)], &one_event()).await;
    assert!(matches!(applied, Applied::Unknown(_)), "{applied:?}");
    assert!(far.reconnected());
    wire.mend();
    let again = far.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!(again.applied, 5, "it had happened");
    assert_eq!(again.outbox, Some((0, 5, vec![output(0)])));
}

/// What a server says when the wait for its standby was cut short: a warning, then "committed".
#[tokio::test]
async fn a_commit_with_a_warning_is_unknown() {
    let world = Database::migrated().await;
    world
        .sql(
            "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE WARNING 'committed locally'; RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER warn AFTER INSERT ON revisions
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn()",
        )
        .await;
    let mut store = world.store("test store");
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    let applied = store.apply(TOPIC, &[advance(0, &fenced, 5)], &one_event()).await;
    assert!(matches!(&applied, Applied::Unknown(error) if error.code == "01000"), "{applied:?}");
    assert_eq!(store.fence(TOPIC, 0).await.expect("a fence").applied, 5);
}

#[tokio::test]
async fn a_connection_that_ends_in_a_batch_is_unknown_and_nothing_stands() {
    let world = Database::migrated().await;
    let name = world.schema.clone();
    let mut store = world.store(&name);
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    let lock = world.client().await;
    lock.batch_execute("BEGIN; LOCK TABLE revisions IN EXCLUSIVE MODE").await.expect("locked");
    let advances = [advance(0, &fenced, 5)];
    let outcome = one_event();
    let (applied, ()) = tokio::join!(store.apply(TOPIC, &advances, &outcome), async {
        tokio::time::sleep(ms(200)).await;
        world.end(&name).await;
        lock.batch_execute("ROLLBACK").await.expect("unlocked");
    });
    assert!(matches!(applied, Applied::Unknown(_)), "{applied:?}");
    let again = store.fence(TOPIC, 0).await.expect("a fence");
    assert_eq!((again.applied, again.outbox), (0, None));
}

#[tokio::test]
async fn what_is_rolled_back_for_certain_is_again() {
    let world = Database::migrated().await;
    // Nobody there.
    let mut nowhere = store(world.settings_by("127.0.0.1:9"), "test store");
    let mut store = world.store("test store");
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    let advances = [advance(0, &fenced, 5)];
    let applied = nowhere.apply(TOPIC, &advances, &Outcome::default()).await;
    assert!(matches!(applied, Applied::Again(_)), "{applied:?}");
    // A lock that is not given in time: the statement is cancelled, the connection lives.
    let lock = world.client().await;
    lock.batch_execute("BEGIN; LOCK TABLE revisions IN EXCLUSIVE MODE").await.expect("locked");
    let mut settings = world.settings();
    settings.statement_timeout_ms = 300;
    let mut hasty = crate::database::store(settings, "test store");
    let applied = hasty.apply(TOPIC, &advances, &one_event()).await;
    assert!(matches!(&applied, Applied::Again(error) if error.code == "57014"), "{applied:?}");
    assert!(!hasty.reconnected());
    lock.batch_execute("ROLLBACK").await.expect("unlocked");
    assert_eq!(hasty.apply(TOPIC, &advances, &one_event()).await, Applied::Committed);
}

#[tokio::test]
async fn a_deadlock_is_again() {
    let world = Database::migrated().await;
    let mut store = world.store("test store");
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    let other = world.client().await;
    other
        .batch_execute(
            "BEGIN; SET deadlock_timeout = '10s'; LOCK TABLE revisions IN EXCLUSIVE MODE",
        )
        .await
        .expect("locked");
    let advances = [advance(0, &fenced, 5)];
    let outcome = one_event();
    let (applied, ended) = tokio::join!(store.apply(TOPIC, &advances, &outcome), async {
        tokio::time::sleep(ms(200)).await;
        // It holds the progress row and waits for the table; now each waits for the other.
        other.batch_execute("UPDATE stream_progress SET tries = tries; ROLLBACK").await
    });
    assert!(matches!(&applied, Applied::Again(error) if error.code == "40P01"), "{applied:?}");
    ended.expect("the other one goes on");
    assert_eq!(store.apply(TOPIC, &advances, &outcome).await, Applied::Committed);
}

#[tokio::test]
async fn a_server_that_stands_still_is_given_up() {
    let world = Database::migrated().await;
    let wire = Wire::new().await;
    let mut settings = world.settings_by(&wire.address);
    settings.statement_timeout_ms = 100;
    settings.idle_in_transaction_ms = 60_000;
    let mut far = store(settings, "test store");
    let fenced = far.fence(TOPIC, 0).await.expect("a fence");
    wire.swallow_all();
    let applied = far.apply(TOPIC, &[advance(0, &fenced, 5)], &one_event()).await;
    assert!(matches!(&applied, Applied::Unknown(error) if error.code == "timeout"), "{applied:?}");
    wire.mend();
    assert!(far.reconnected());
    assert_eq!(far.fence(TOPIC, 0).await.expect("a fence").applied, 0);
}

/// Every call dropped after every number of polls: no transaction stays open, and the next call gets its own answer.
#[tokio::test]
async fn a_dropped_call_leaves_nothing_open() {
    let world = Database::migrated().await;
    let name = world.schema.clone();
    let watch = world.client().await;
    let mut store = world.store(&name);
    let mut owner = world.store("test store");
    for polls in 0..40 {
        let fenced = owner.fence(TOPIC, 0).await.expect("a fence");
        let advances = [advance(0, &fenced, fenced.applied + 1)];
        let id = EventId(uuid::Uuid::from_u128(1 << 100 | polls));
        let outcome = revised([revision(id, 1)]);
        let plan = Plan { events: [id].into(), ..Plan::default() };
        drop_after(polls, store.apply(TOPIC, &advances, &outcome)).await;
        drop_after(polls, store.load(TOPIC, &[0], &plan)).await;
        drop_after(polls, store.fence(TOPIC, 9)).await;
        assert_eq!(store.count_try(TOPIC, 5, fenced.fence, 0).await, Ok(None));
        let (progress, known) = owner.load(TOPIC, &[0], &plan).await.expect("loads");
        let stands = i64::from(known.revisions.contains_key(&id));
        // The dropped one may still be at its COMMIT; it is all or nothing at any moment.
        assert_eq!(progress[0].applied, fenced.applied + stands);
    }
    tokio::time::sleep(ms(300)).await;
    assert_eq!(forgotten(&watch, &name).await, 0);
    let locks = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                 WHERE application_name = $1 AND locktype IN ('relation', 'transactionid')";
    let held: i64 = watch.query_one(locks, &[&name]).await.expect("locks").get(0);
    assert_eq!(held, 0);
}

async fn drop_after<T>(polls: u128, call: impl Future<Output = T>) {
    let mut call = std::pin::pin!(call);
    for _ in 0..=polls {
        if futures_util::poll!(call.as_mut()).is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
}

#[tokio::test]
async fn a_slot_has_one_holder() {
    let world = Database::migrated().await;
    let name = world.schema.clone();
    let mut holder = world.store(&name);
    holder.lock_slot("pipeline-0").await.expect("free");
    let mut second = world.store("test store");
    let error = second.lock_slot("pipeline-0").await.expect_err("held");
    assert_eq!((error.kind, error.code.as_str()), (Kind::InternalError, "pipeline-0"));
    assert!(error.to_string().contains("give this one its own"), "{error}");
    let mut other = world.store("test store");
    other.lock_slot("pipeline-1").await.expect("another name is free");
    // It holds it again on a new connection.
    world.end(&name).await;
    while holder.look(TOPIC, &[0]).await.is_err() {}
    let held = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                WHERE locktype = 'advisory' AND application_name = $1";
    let held: i64 = world.client().await.query_one(held, &[&name]).await.expect("locks").get(0);
    assert_eq!(held, 1);
    drop(holder);
    second.lock_slot("pipeline-0").await.expect("free again");
}

#[tokio::test]
async fn two_writers_with_the_same_keys_do_not_wait_in_a_ring() {
    let world = Database::migrated().await;
    let (mut one, mut two) = (world.store("test store"), world.store("test store"));
    let ids: Vec<u128> = (1..=200).collect();
    for round in 1..=10 {
        let (a, b) = (
            one.fence(TOPIC, 0).await.expect("a fence"),
            two.fence(TOPIC, 1).await.expect("a fence"),
        );
        let up = revised(ids.iter().map(|n| revision(event_id(*n), round)));
        let down = revised(ids.iter().rev().map(|n| revision(event_id(*n), round)));
        let (a, b) = ([advance(0, &a, a.applied + 1)], [advance(1, &b, b.applied + 1)]);
        let ends = tokio::join!(one.apply(TOPIC, &a, &up), two.apply(TOPIC, &b, &down));
        assert!(
            matches!(
                ends,
                (Applied::Committed, Applied::Conflict) | (Applied::Conflict, Applied::Committed)
            ),
            "{ends:?}"
        );
    }
}

#[tokio::test]
async fn every_row_can_be_read_and_the_digest_is_of_what_is_there() {
    let (one, other) = (Database::migrated().await, Database::migrated().await);
    // The same content by another way: a revision more, another order, a bucket that was emptied.
    let first = Outcome {
        buckets: buckets([bucket(7, 1, &[2, 4, 5])]).buckets,
        ..revised([revision(event_id(1), 1), revision(event_id(2), 1)])
    };
    let mut late = revision(event_id(1), 2);
    late.hash = revision(event_id(1), 1).hash;
    let second = Outcome {
        buckets: buckets([bucket(7, 1, &[2, 4, 9]), bucket(8, 1, &[1, 3])]).buckets,
        ..revised([revision(event_id(2), 1), revision(event_id(1), 1), late])
    };
    let mut digests = Vec::new();
    for (world, outcome) in [(&one, first), (&other, second)] {
        let mut store = world.store("test store");
        let fenced = store.fence(TOPIC, 0).await.expect("a fence");
        let applied = store.apply(TOPIC, &[advance(0, &fenced, 5)], &outcome).await;
        assert_eq!(applied, Applied::Committed);
        let pool = pool(&world.settings()).expect("a pool");
        let snapshot = Snapshot::open(&pool).await.expect("a snapshot");
        digests.push(snapshot.digest().await.expect("a digest"));
        let rows = snapshot.revisions(None).await.expect("rows");
        assert_eq!(rows.len(), outcome.revisions.len());
        for row in &rows {
            assert!(outcome.revisions.contains(row), "{row:?}");
        }
        let last = rows.last().map(|row| (row.event_id, row.revision));
        assert_eq!(snapshot.revisions(last).await, Ok(Vec::new()), "the page after the last");
        let progress = snapshot.progress().await.expect("rows");
        assert_eq!((progress.len(), progress[0].applied), (1, 5));
        assert_eq!(progress[0].topic, Topic::NormalisedRecords);
        // Dropped in the middle: the next one of the pool is not in that transaction.
        drop(snapshot);
        let mut more = world.store("test store");
        let fenced = more.fence(TOPIC, 0).await.expect("a fence");
        let outcome = revised([revision(event_id(3), 1)]);
        let applied = more.apply(TOPIC, &[advance(0, &fenced, 6)], &outcome).await;
        assert_eq!(applied, Applied::Committed);
        let snapshot = Snapshot::open(&pool).await.expect("a snapshot");
        assert_ne!(Some(&snapshot.digest().await.expect("a digest")), digests.last());
        let pages = snapshot.revisions(Some((event_id(2), 1))).await.expect("rows");
        assert_eq!(pages.len(), 1);
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn decisions_are_read_back() {
    use biometric_bridge::model::state::{Decision, Verdict};
    let world = Database::migrated().await;
    let mut store = world.store("test store");
    let fenced = store.fence(TOPIC, 0).await.expect("a fence");
    let source = laws::place(5).source;
    let decision = |offset, source, verdict| Decision { partition: 0, offset, source, verdict };
    let decisions = vec![
        decision(2, None, Verdict::DeadLettered(Kind::PayloadMalformed)),
        decision(1, Some(source), Verdict::Duplicate(event_id(1), 4)),
        decision(0, Some(source), Verdict::Published(event_id(1), 4)),
        decision(3, Some(source), Verdict::Ignored("empty")),
    ];
    let outcome = Outcome { decisions, ..Outcome::default() };
    let advances = [advance(0, &fenced, 4)];
    assert_eq!(store.apply(TOPIC, &advances, &outcome).await, Applied::Committed);
    let pool = pool(&world.settings()).expect("a pool");
    let snapshot = Snapshot::open(&pool).await.expect("a snapshot");
    let rows = snapshot.decisions(None).await.expect("rows");
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.offset, row.source, row.verdict.as_str(), row.event, row.reason.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            (1, Some(source), "duplicate", Some((event_id(1), 4)), None),
            (2, None, "dead_lettered", None, Some("payload_malformed")),
            (3, Some(source), "ignored", None, Some("empty")),
        ],
        "what was published is its own row"
    );
    let rest = snapshot.decisions(Some((0, 2))).await.expect("rows");
    assert_eq!(rest.len(), 1);
}
