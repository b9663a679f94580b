//! A person connects: what was before comes, behind what is new, once, whatever dies meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use biometric_bridge::hydrator::keeper::{self, Reach, Shelf};
use biometric_bridge::hydrator::quota;
use biometric_bridge::model::connection::{self, Connection, FOR_EVER};
use biometric_bridge::model::event::Origin;
use biometric_bridge::model::id::{ConnectionId, User};
use biometric_bridge::model::state::Notes;
use biometric_bridge::model::time::Day;
use biometric_bridge::postgres::queue::PostgresQueue;
use biometric_bridge::postgres::vault::{Keys, PostgresVault};
use biometric_bridge::stream::Register as _;
use biometric_bridge::stream::clock::{Stopwatch, now_us};
use biometric_bridge::stream::hydration::{
    Claimed, Fate, Histories as _, Pair as Tokens, Queue as _, Taken, Vault as _, Work,
};
use biometric_bridge::vendors;
use biometric_bridge::vendors::ask::{Per, Quota};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::database::Database;
use crate::fetched::{hydrator, sql};
use crate::pair::Pair;
use crate::played::{SECRET, Server};
use crate::process::{Deployment, free_port, metric, page, text, until};

const TOKEN_KEY: &str = "not-a-secret-test-key, thirty-two bytes";
const LEASE: Duration = Duration::from_secs(60);
const REACH: Reach = Reach {
    history_days: 90,
    poll: Some(Duration::from_secs(3_600)),
    fast: false,
    settles: Duration::from_secs(600),
};

// ── what stands in Postgres ────────────────────────────────────────────────────────────────────

fn shelf(name: &'static str) -> Shelf {
    let api = vendors::find(name).and_then(|vendor| vendor.api()).expect("an API");
    Shelf { name, api }
}

fn connection() -> ConnectionId {
    ConnectionId::derive("oura", "v-1", &User::parse("user-1").expect("a user"))
}

/// A connection to Oura with tokens.
async fn connected() -> (Database, PostgresQueue) {
    let world = Database::migrated().await;
    let row = Connection {
        id: connection(),
        vendor: "oura".into(),
        vendor_user: "v-1".into(),
        user: User::parse("user-1").expect("a user"),
        valid_from: FOR_EVER,
        valid_to: None,
        settled: true,
    };
    let notes = Notes { connections: vec![row], ..Notes::default() };
    world.register().note(&notes).await.expect("noted");
    let keys = Keys::new(&SecretString::from(TOKEN_KEY), None).expect("keys");
    let vault = PostgresVault::new(&world.settings(), keys).expect("a vault");
    let pair = Tokens { access: "canary-access-0".into(), refresh: None };
    vault.store("oura", connection(), 0, &pair, None).await.expect("stored");
    let queue = PostgresQueue::new(&world.settings()).expect("a queue");
    (world, queue)
}

async fn count(world: &Database, sql: &str) -> i64 {
    world.client().await.query_one(sql, &[]).await.expect("a row").get(0)
}

async fn history(queue: &PostgresQueue, at_most: usize) -> Vec<Claimed> {
    queue.claim("oura", Work::History, at_most, LEASE).await.expect("claimed")
}

/// Twelve collections, each of 92 days in windows of 30.
const WINDOWS: i64 = 12 * 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_opened_once_and_the_latest_days_come_first() {
    let (world, queue) = connected().await;
    queue.note_gap("oura", connection(), None).await.expect("noted");
    let keepers = (0..6).map(|_| {
        let queue = PostgresQueue::new(&world.settings()).expect("a queue");
        tokio::spawn(async move { keeper::open(&queue, &shelf("oura"), REACH).await })
    });
    for keeper in keepers.collect::<Vec<_>>() {
        keeper.await.expect("no panic").expect("opened");
    }
    let all = "SELECT count(*) FROM hydrations WHERE origin = 'backfill' AND state = 'waiting'";
    assert_eq!(count(&world, all).await, WINDOWS);
    assert!(queue.claim("oura", Work::News, 9, LEASE).await.expect("claimed").is_empty());
    let first = history(&queue, 12).await;
    let today = Day::of_utc(now_us());
    let latest = format!("{}/{}", Day(today.0 - 28), Day(today.0 + 2));
    assert!(first.iter().all(|one| one.key.record_id == latest), "{first:?}");
    assert!(first.iter().all(|one| one.origin == Origin::Backfill));
    for (nth, one) in first.iter().enumerate() {
        let fate = if nth == 0 { Fate::GivenUp { reason: "x" } } else { Fate::Done };
        assert_eq!(queue.end(one, fate).await, Ok(true));
    }
    keeper::open(&queue, &shelf("oura"), REACH).await.expect("nothing to open");
    assert_eq!(count(&world, all).await, WINDOWS - 12, "what is done is done");
    let progress = queue.progress("oura", connection()).await.expect("progress");
    assert_eq!(progress.len(), 12);
    for one in &progress {
        let given_up = one.record_type == first[0].key.record_type;
        let (done, lost) = if given_up { (0, 1) } else { (1, 0) };
        assert_eq!((one.all, one.done, one.given_up), (4, done, lost), "{one:?}");
        assert_eq!(one.begins, Day(today.0 - 90).to_string());
        let reached = (!given_up).then(|| Day(today.0 - 28).to_string());
        assert_eq!(one.reached, reached);
    }
    // Who connects again the same day: only what is missing, and that anew.
    queue.note_gap("oura", connection(), Some(now_us())).await.expect("noted");
    keeper::open(&queue, &shelf("oura"), REACH).await.expect("opened");
    let again = "SELECT count(*) FROM hydrations WHERE state = 'waiting' AND priority = 1";
    assert_eq!(count(&world, again).await, 12, "the last days, of each");
    // Nothing of who is not connected any more.
    queue.note_gap("oura", ConnectionId(uuid::Uuid::from_u128(9)), None).await.expect("noted");
    keeper::open(&queue, &shelf("oura"), REACH).await.expect("opened");
    assert_eq!(count(&world, "SELECT count(*) FROM gaps WHERE opened_at IS NULL").await, 1);
}

/// What normalise notes of one that began stands once, however often it is noted; and where the person has another
/// connection it waits, because it may be that one under another name.
#[tokio::test]
async fn a_gap_by_a_vendor_s_word_is_one_and_may_wait() {
    let world = Database::migrated().await;
    let queue = PostgresQueue::new(&world.settings()).expect("a queue");
    let user = User::parse("user-1").expect("a user");
    let id = |name: &str| ConnectionId::derive("terra", name, &user);
    let note = async |name: &str| {
        let (vendor, vendor_user) = ("terra".to_owned(), name.to_owned());
        let gap = connection::Gap {
            vendor: vendor.clone(),
            connection: id(name),
            from: None,
            to: now_us(),
        };
        let (id, user) = (id(name), user.clone());
        let row = Connection {
            id,
            vendor,
            vendor_user,
            user,
            valid_from: FOR_EVER,
            valid_to: None,
            settled: true,
        };
        let notes = Notes { connections: vec![row], gaps: vec![gap], ..Notes::default() };
        for _ in 0..2 {
            world.register().note(&notes).await.expect("noted");
        }
    };
    let settles = Duration::from_secs(600);
    let gaps = async |settles| {
        let found = queue.gaps("terra", 9, settles).await.expect("gaps");
        found.into_iter().map(|gap| gap.connection).collect::<Vec<_>>()
    };
    note("v-1").await;
    assert_eq!(gaps(settles).await, [id("v-1")], "nothing to wait for");
    note("v-2").await;
    assert!(gaps(settles).await.is_empty(), "either may be the other");
    assert_eq!(gaps(Duration::ZERO).await, ["v-1", "v-2"].map(id));
    let keys = Keys::new(&SecretString::from(TOKEN_KEY), None).expect("keys");
    let vault = PostgresVault::new(&world.settings(), keys).expect("a vault");
    let pair = Tokens { access: "canary-access-0".into(), refresh: None };
    vault.store("terra", id("v-2"), 0, &pair, None).await.expect("stored");
    assert_eq!(gaps(settles).await, [id("v-2")], "who consents is who they are");
    world.sql("UPDATE connections SET valid_to = 5 WHERE vendor_user = 'v-2'").await;
    assert_eq!(gaps(settles).await, [id("v-1")]);
}

#[tokio::test]
async fn a_window_comes_apart_whole_or_not_at_all() {
    let (world, queue) = connected().await;
    queue.note_gap("oura", connection(), None).await.expect("noted");
    keeper::open(&queue, &shelf("oura"), REACH).await.expect("opened");
    let short = Duration::from_millis(100);
    let late = queue.claim("oura", Work::History, 1, short).await.expect("claimed");
    tokio::time::sleep(short * 2).await;
    let claimed = history(&queue, 48).await;
    let claimed: Vec<_> = claimed.into_iter().filter(|one| one.key == late[0].key).collect();
    let parts = ["2026-01-01/2026-01-15".to_owned(), "2026-01-15/2026-01-31".to_owned()];
    let halves = "SELECT count(*) FROM hydrations WHERE record_id LIKE '2026-01-%' AND priority = 1
                  AND origin = 'backfill'";
    queue.divide(&late[0], &parts).await.expect("a late word");
    assert_eq!(count(&world, halves).await, 0, "it is another's by now");
    for _ in 0..2 {
        queue.divide(&claimed[0], &parts).await.expect("divided");
        assert_eq!(count(&world, halves).await, 2);
    }
    let all = "SELECT count(*) FROM hydrations WHERE state = 'waiting' AND priority > 0";
    assert_eq!(count(&world, all).await, WINDOWS + 1);
}

#[tokio::test]
async fn history_s_share_holds_history_alone() {
    let (_world, queue) = connected().await;
    let quotas = [
        Quota { per: Per::App, window_s: 60, calls: 10 },
        Quota { per: Per::History, window_s: 60, calls: 2 },
    ];
    let take = async |origin| {
        let buckets = quota::buckets(&quotas, connection(), origin, 1);
        queue.take("oura", connection(), &buckets).await.expect("an answer")
    };
    let granted = async |origin| matches!(take(origin).await, Taken::Granted { .. });
    for _ in 0..2 {
        assert!(granted(Origin::Backfill).await);
    }
    let Taken::Wait { app, user, history } = take(Origin::Backfill).await else {
        panic!("a third")
    };
    assert!(app.is_zero() && user.is_zero() && !history.is_zero(), "{app:?} {user:?}");
    for _ in 0..8 {
        assert!(granted(Origin::Live).await, "what is new has the rest");
    }
    assert!(!granted(Origin::Live).await, "and no more than that");
}

#[tokio::test]
async fn what_is_not_announced_is_asked_for_over_and_over() {
    let (world, queue) = connected().await;
    let poll = async || keeper::poll(&queue, &shelf("oura"), REACH).await.expect("polled");
    let due =
        "SELECT count(*) FROM hydrations WHERE state = 'waiting' AND record_type = 'heartrate'";
    let done = async |sql: &str| {
        let set = "UPDATE hydrations SET state = 'done'";
        world.sql(&format!("{set} WHERE state = 'waiting'; {sql}")).await;
    };
    for _ in 0..3 {
        poll().await;
        assert_eq!(count(&world, due).await, 2, "today and yesterday, which may be late");
    }
    let news = queue.claim("oura", Work::News, 9, LEASE).await.expect("claimed");
    assert!(news.len() == 2 && news.iter().all(|one| one.origin == Origin::Live));
    done("").await;
    poll().await;
    assert_eq!(count(&world, due).await, 0, "not before its time");
    done("UPDATE hydrations SET asked_at = asked_at - 3600000001").await;
    poll().await;
    assert_eq!(count(&world, due).await, 2);
    // Nobody asked for five days.
    done("UPDATE hydrations SET asked_at = 1, record_id = to_char(record_id::date - 5, 'YYYY-MM-DD')")
        .await;
    poll().await;
    assert_eq!(count(&world, due).await, 6, "from the last one on");
    for (wrong, right) in [
        ("UPDATE tokens SET state = 'reauth_required'", "UPDATE tokens SET state = 'live'"),
        ("INSERT INTO paused SELECT connection, 1 FROM tokens", "DELETE FROM paused"),
        ("UPDATE connections SET valid_to = 5", "UPDATE connections SET valid_to = NULL"),
        (
            "UPDATE hydrations SET state = 'given_up' WHERE record_id = (SELECT max(record_id) FROM hydrations)",
            "UPDATE hydrations SET state = 'done', asked_at = 1",
        ),
    ] {
        done("UPDATE hydrations SET asked_at = 1").await;
        world.sql(wrong).await;
        poll().await;
        assert_eq!(count(&world, due).await, 0, "{wrong}");
        world.sql(right).await;
        poll().await;
        assert_eq!(count(&world, due).await, 2, "{right}");
    }
}

// ── the whole program ──────────────────────────────────────────────────────────────────────────

const NIGHT: &str = include_str!("../fixtures/whoop/document_sleep.json");
const NIGHT_ID: &str = "0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77";
const SLEEP: &str = include_str!("../fixtures/oura/document_sleep.json");
const SLEEP_ID: &str = "7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11";
/// The day of both fixtures, and the one on whose evening they began.
const DAY: &str = "2026-03-29";
const EVE: &str = "2026-03-28";
/// How far back history goes.
const DAYS: i32 = 60;

/// A fixture on another day.
fn on(fixture: &str, day: Day) -> String {
    let eve = Day(day.0 - 1).to_string();
    fixture.replace(DAY, "today").replace(EVE, &eve).replace("today", &day.to_string())
}

fn night_id(day: Day) -> String {
    format!("0c7a4f62-9b8e-4f0d-8a5f-{:012x}", day.0)
}

fn sleep_id(day: Day) -> String {
    format!("s-{}", day.0)
}

fn cycle_id(day: Day) -> i64 {
    93_000_000 + i64::from(day.0)
}

/// WHOOP's night of a day: its sleep, its cycle, its recovery.
fn whoops(day: Day) -> [String; 3] {
    let mut sleep: Value =
        serde_json::from_str(&on(NIGHT, day).replace(NIGHT_ID, &night_id(day))).expect("JSON");
    sleep["cycle_id"] = cycle_id(day).into();
    let (start, end) = (sleep["start"].clone(), sleep["end"].clone());
    let cycle = json!({
        "id": cycle_id(day), "user_id": 481_516, "updated_at": end, "start": start,
        "end": on(r#"2026-03-29T22:14:30.000Z"#, day), "timezone_offset": "+02:00",
        "score_state": "SCORED",
        "score": {"strain": 7.5, "kilojoule": 8000.0, "average_heart_rate": 60, "max_heart_rate": 150},
    });
    let recovery = json!({
        "cycle_id": cycle_id(day), "sleep_id": night_id(day), "user_id": 481_516,
        "updated_at": end, "score_state": "SCORED",
        "score": {"user_calibrating": false, "recovery_score": 61.0, "resting_heart_rate": 51.0,
                  "hrv_rmssd_milli": 40.0 + f64::from(day.0 % 17)},
    });
    [sleep.to_string(), cycle.to_string(), recovery.to_string()]
}

/// Both vendors' collections as far as a person has something in them, in pages.
fn ranges(path: &str) -> Option<String> {
    let (path, query) = path.split_once('?')?;
    let of = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.replace("%3A", ":"))
    };
    let today = Day::of_utc(now_us());
    let days = (today.0 - DAYS - 5..=today.0).rev().map(Day);
    let day = |name: &str| Day::parse(of(name)?.get(..10)?);
    let (list, size, records): (_, usize, Vec<String>) =
        if let Some(kind) = path.strip_prefix("v2/usercollection/") {
            if kind.contains('/') {
                return None;
            }
            let (from, to) = match kind {
                "heartrate" => (day("start_datetime")?, day("end_datetime")?),
                _ => (day("start_date")?, day("end_date")?),
            };
            let records = days.filter(|day| kind == "sleep" && (from..=to).contains(day));
            let record = |day| on(SLEEP, day).replace(SLEEP_ID, &sleep_id(day));
            ("data", 7, records.map(record).collect())
        } else {
            let at = match path.strip_prefix("developer/v2/")? {
                "activity/sleep" => 0,
                "cycle" => 1,
                "recovery" => 2,
                "activity/workout" => 3,
                _ => return None,
            };
            let (from, to) = (day("start")?, day("end")?);
            // By the evening on which they began.
            let within = |day: &Day| at < 3 && (from..to).contains(&Day(day.0 - 1));
            ("records", 25, days.filter(within).map(|day| whoops(day)[at].clone()).collect())
        };
    let token = of("next_token").or(of("nextToken"));
    let skipped: usize = token.map_or(0, |token| token.parse().expect("ours"));
    let next = skipped + size;
    let next = if next < records.len() { format!("\"{next}\"") } else { "null".to_owned() };
    let some: Vec<String> = records.into_iter().skip(skipped).take(size).collect();
    Some(format!(r#"{{"{list}":[{}],"next_token":{next}}}"#, some.join(",")))
}

/// Two people, each with one of the vendors, and their tokens.
fn deployment(server: &Server) -> Pair {
    let mut pair = Pair::new("history", "classic");
    let deployment = &mut pair.deployment;
    for (key, value) in [
        ("VENDORS__OURA__API_BASE", server.address.clone()),
        ("VENDORS__WHOOP__API_BASE", format!("{}/developer", server.address)),
        ("VENDORS__WHOOP__CLIENT_ID", "app".to_owned()),
        ("VENDORS__WHOOP__CLIENT_SECRET", SECRET.to_owned()),
        ("SECRETS__TOKEN_KEY", TOKEN_KEY.to_owned()),
        ("HYDRATOR__WHOLE_MS_MAX", "2000".to_owned()),
        ("HYDRATOR__FIRST_BYTE_MS_MAX", "2000".to_owned()),
        ("HYDRATOR__CONNECT_MS_MAX", "1000".to_owned()),
        ("HYDRATOR__LEASE_S", "34".to_owned()),
        ("HYDRATOR__LOOK_MS", "50".to_owned()),
        ("HYDRATOR__HISTORY_DAYS", DAYS.to_string()),
        ("HYDRATOR__POLL_S", "0".to_owned()),
    ] {
        deployment.set(key, value);
    }
    let line = |vendor: &str, vendor_user: &str, user: &str| {
        let pair = r#""access_token":"canary-access-1","refresh_token":"canary-refresh-0""#;
        format!(r#"{{"vendor":"{vendor}","vendor_user":"{vendor_user}","user":"{user}",{pair}}}"#)
    };
    let lines = [line("oura", "u-4f2c81", "u-1"), line("whoop", "481516", "u-2")].join("\n");
    let file = deployment.dir.join("connections.jsonl");
    std::fs::write(&file, lines).expect("written");
    let file = file.to_str().expect("UTF-8");
    let imported = deployment.run(&["connections", "import", "--history", file]);
    assert!(imported.status.success(), "{}", text(&imported));
    pair
}

fn shown(deployment: &Deployment) -> Vec<Value> {
    let done = deployment.run(&["connections", "show", "--json"]);
    assert!(done.status.success(), "{}", text(&done));
    let lines = String::from_utf8(done.stdout).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Windows done, and all of them.
fn windows(deployment: &Deployment) -> (i64, i64) {
    let all = shown(deployment);
    let all = all.iter().flat_map(|one| one["history"].as_array().expect("a list"));
    all.fold((0, 0), |(done, windows), one| {
        let of = |name: &str| one[name].as_i64().expect("a number");
        (done + of("done"), windows + of("windows"))
    })
}

/// Announces a night that is not in the history, and gives how long its fetch took.
fn announce(deployment: &Deployment, server: &Server, nth: i32) -> Duration {
    let day = Day(nth);
    let path = format!("developer/v2/activity/sleep/{}", night_id(day));
    server.documents.lock().expect("not poisoned").insert(path, whoops(day)[0].clone());
    let id = night_id(day);
    sql(
        deployment,
        &format!(
            "INSERT INTO hydrations (vendor, connection, record_type, record_id, source_topic,
             source_partition, source_offset, source_index, asked_at, state)
             SELECT 'whoop', id, 'sleep', '{id}', 1, 0, {nth}, 0, 1774766800000000, 'waiting'
             FROM connections WHERE vendor = 'whoop'"
        ),
    );
    let asked = Stopwatch::start();
    let state = format!("SELECT state FROM hydrations WHERE record_id = '{id}'");
    until("it is fetched", Duration::from_secs(30), || sql(deployment, &state) == "done");
    asked.elapsed()
}

/// What was published, by type and vendor's id: how often, and the last revision.
fn published(deployment: &Deployment) -> BTreeMap<(String, String), (usize, i64)> {
    let mut all = BTreeMap::new();
    for line in deployment.neuros().lines().filter(|line| line.contains("event_id")) {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let event = event.get("value").cloned().unwrap_or(event);
        let text = |name: &str| event[name].as_str().expect("a text").to_owned();
        let told = all.entry((text("record_type"), text("record_id"))).or_insert((0, 0));
        *told = (told.0 + 1, event["revision"].as_i64().expect("a number"));
    }
    all
}

fn expected() -> Vec<(String, String)> {
    let today = Day::of_utc(now_us());
    let days = |back: i32| (today.0 - back..=today.0).map(Day);
    let of = |kind: &str, id: String| (kind.to_owned(), id);
    let mut all: Vec<_> = days(DAYS).map(|day| of("sleep", sleep_id(day))).collect();
    // A night is of the evening on which it began; sleeps are asked for from two days before.
    all.extend(days(DAYS + 1).map(|day| of("sleep", night_id(day))));
    for day in days(DAYS - 1) {
        all.push(of("recovery", format!("recovery:{}", night_id(day))));
        all.push(of("cycle", cycle_id(day).to_string()));
    }
    all
}

/// Sixty days of two people: not begun while nobody reads what it brings, behind what is new, through a kill -9 in its
/// midst; in the end it is all there, and once.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_s_past_comes_once_behind_what_is_new_whatever_dies() {
    let server = Server::start().await;
    *server.ranges.lock().expect("not poisoned") = Some(ranges);
    let pair = deployment(&server);
    tokio::task::spawn_blocking(move || {
        let world = &pair.deployment;
        let first = hydrator(&pair, "h1", free_port());
        until("history is asked for", Duration::from_secs(60), || windows(world).1 > 0);
        // Nobody reads: of history there comes as much as a batch, and what is new comes at once.
        for nth in 0..5 {
            let took = announce(world, &server, nth);
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
        std::thread::sleep(Duration::from_secs(4));
        let (done, all) = windows(world);
        // A body counts as a fourth of a batch; what was under way when that was reached is there, too.
        assert!(all >= 40 && done <= 8, "{done} of {all} while nobody reads");
        let _pipeline = pair.start_pipeline("a", pair.pipeline_admin);
        until("it goes on", Duration::from_secs(90), || windows(world).0 >= 12);
        first.kill();
        let (done, _) = windows(world);
        assert!(done < all, "in its midst: {done} of {all}");
        let admin = free_port();
        let second = hydrator(&pair, "h2", admin);
        let mut slowest = Duration::ZERO;
        for nth in 5..15 {
            slowest = slowest.max(announce(world, &server, nth));
        }
        println!("{done} of {all} before the kill; what is new took {slowest:?} at most");
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
        until("all of it is fetched", Duration::from_secs(240), || {
            let (done, all) = windows(world);
            done == all
        });
        let expected = expected();
        until("all of it is published", Duration::from_secs(90), || {
            published(world).len() >= expected.len() + 15
        });
        std::thread::sleep(Duration::from_secs(3));
        let events = published(world);
        for one in &expected {
            assert_eq!(events.get(one), Some(&(1, 1)), "{one:?}: once");
        }
        assert_eq!(events.len(), expected.len() + 15, "and nothing else");
        let origins = sql(world, "SELECT count(*) FROM hydrations WHERE state <> 'done'");
        assert_eq!(origins, "0");
        let metrics = page(admin, "/metrics").expect("a page");
        let left = r#"bridge_hydrations{due="history",vendor="oura"}"#;
        until("it is counted", Duration::from_secs(20), || {
            metric(&page(admin, "/metrics").expect("a page"), left) < 0.5
        });
        assert!(metrics.contains(left), "{metrics}");
        let table = text(&world.run(&["connections", "show", "--user", "u-1"]));
        println!("{table}");
        assert!(table.contains("sleep") && table.contains("████████████████████"), "{table}");
        assert_eq!(second.end("TERM", Duration::from_secs(15)), Some(0));
    })
    .await
    .expect("no panic");
}
