//! The hydrator's loop over ports in memory and a vendor that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use biometric_bridge::hydrator::fetch::Fetcher;
use biometric_bridge::hydrator::late::Late;
use biometric_bridge::hydrator::tokens::Keyring;
use biometric_bridge::hydrator::worker::{Desk, Hydrator};
use biometric_bridge::hydrator::{Settings, tokens};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::event::{BiometricEvent, Content};
use biometric_bridge::model::id::{ConnectionId, PseudonymKey, sha256_hex};
use biometric_bridge::model::record::OutRecord;
use biometric_bridge::stream::clock::{Stopwatch, now_us};
use biometric_bridge::stream::hydration::Fate;
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors;
use biometric_bridge::vendors::ask::{Manner, Per, Quota};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::played::{SECRET, Server};
use crate::ports::{Door, Log, ONE, Played, Rows, Safe};
use crate::schema::{self, codec};

type InMemory = Hydrator<Rows, Keyring<Safe>, Log>;

static PLAYED: Played = Played { quotas: &[Quota { per: Per::History, window_s: 60, calls: 5 }] };
const VENDORS: [&str; 2] = ["oura", "whoop"];

struct World {
    server: Server,
    rows: Rows,
    room: Door,
    log: Log,
    metrics: Metrics,
    stop: CancellationToken,
    loops: Vec<tokio::task::JoinHandle<()>>,
    hydrator: Arc<InMemory>,
}

impl World {
    /// Fetches these records of WHOOP's, and what is added later, of Oura's too.
    async fn start(rows: Rows, safe: Safe) -> Self {
        Self::at(1, rows, safe).await
    }

    /// The same in a world that runs so many times faster.
    async fn at(speed: u32, rows: Rows, safe: Safe) -> Self {
        let settings = Settings {
            fetches_per_vendor_max: 4,
            connect_ms_max: 300,
            first_byte_ms_max: 5_000,
            whole_ms_max: 6_000,
            body_bytes_max: 1 << 20,
            lease_s: 60,
            look_ms: 10,
            drain_ms_max: 2_000,
            history_days: 90,
            poll_s: 0,
            speed,
        };
        let room = Door::default();
        let (server, log, metrics) =
            (Server::start().await, Log::default(), Metrics::of(&["oura", "terra", "whoop"]));
        let fetcher = Fetcher::new(settings.limits()).expect("a client");
        let url = server.at("/token");
        let secret = SECRET.into();
        let (id, manner) = ("app".to_owned(), Manner::default());
        let client = tokens::Client { url, scope: None, id, secret, manner };
        let clients = VENDORS.map(|vendor| (vendor.to_owned(), client.clone()));
        let hydrator = Arc::new(InMemory {
            queue: rows.clone(),
            tokens: Keyring::new(safe, fetcher.clone(), clients.into(), metrics.clone(), speed),
            room: Arc::new(room.clone()),
            sender: log.clone(),
            fetcher,
            codec: Late::new(|| Box::pin(async { Ok(codec()) })),
            pseudonyms: PseudonymKey::new(b"not-a-secret-test-key"),
            settings,
            metrics: metrics.clone(),
        });
        let stop = CancellationToken::new();
        let loops = VENDORS.map(|name| {
            let (hydrator, stop) = (Arc::clone(&hydrator), stop.clone());
            let desk = Desk { name, api: &PLAYED, base: server.at(""), key: None };
            tokio::spawn(async move { hydrator.serve(&desk, &stop).await })
        });
        Self { server, rows, room, log, metrics, stop, loops: loops.into(), hydrator }
    }

    /// Fetches history of Terra's, too, which is below this path.
    fn serve_terra(&mut self, path: &str) {
        let api = vendors::find("terra").and_then(|terra| terra.api()).expect("an API");
        let key = Some(tokens::Key { id: "our-app".to_owned(), secret: SECRET.into() });
        let desk = Desk { name: "terra", api, base: self.server.at(path), key };
        let (hydrator, stop) = (Arc::clone(&self.hydrator), self.stop.clone());
        self.room.0.store(true, std::sync::atomic::Ordering::SeqCst);
        self.loops.push(tokio::spawn(async move { hydrator.serve(&desk, &stop).await }));
    }

    async fn end(self) {
        self.stop.cancel();
        for one in self.loops {
            let ended = tokio::time::timeout(Duration::from_secs(10), one).await;
            ended.expect("a loop that ends").expect("no panic");
        }
    }
}

fn live() -> Safe {
    Safe::with("canary-access-1", Some("canary-refresh-0"), None)
}

#[tokio::test]
async fn a_body_is_in_the_log_before_its_row_is_done() {
    let before = now_us();
    let world = World::start(Rows::with("whoop", &["record"]), live()).await;
    assert_eq!(world.rows.until("record").await, Fate::Done);
    let sent = world.log.of(Topic::RawDocuments);
    let [record] = sent.as_slice() else { panic!("{sent:?}") };
    let pseudonym = PseudonymKey::new(b"not-a-secret-test-key").vendor_user("whoop", "v-1");
    assert_eq!(record.key.as_deref(), Some(format!("whoop:{pseudonym}").as_bytes()));
    assert_eq!(record.value.as_deref(), Some(b"{\"a\":1}".as_slice()));
    let sha256 = sha256_hex(b"{\"a\":1}");
    for (name, value) in [
        (header::VENDOR, "whoop"),
        (header::RECORD_TYPE, "sleep"),
        (header::VENDOR_USER, "v-1"),
        (header::CONNECTION, "00000000-0000-0000-0000-000000000001"),
        (header::ORIGIN, "live"),
        (header::HTTP_STATUS, "200"),
        (header::CONTENT_TYPE, "application/json; charset=utf-8"),
        (header::SOURCE, "raw-webhooks/3/0/0"),
        (header::SHA256, &sha256),
        (header::DELIVERY_ID, &sha256[..32]),
    ] {
        assert_eq!(record.headers.text(name), Some(value), "{name}");
    }
    let received_at = record.headers.text(header::RECEIVED_AT).expect("a time");
    assert!((before..=now_us()).contains(&received_at.parse().expect("µs")));
    world.end().await;
}

#[tokio::test]
async fn what_the_log_does_not_take_is_not_done() {
    let rows = Rows::default();
    let world = World::start(rows.clone(), live()).await;
    *world.log.away.lock().unwrap() = true;
    rows.add("whoop", "record");
    let fate = rows.until("record").await;
    let waits = matches!(fate, Fate::Later { failures: 1, reason: "broker_unavailable", .. });
    assert!(waits, "{fate:?}");
    world.end().await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_and_used_at_once() {
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), None);
    let world = World::start(Rows::with("whoop", &["again"]), safe.clone()).await;
    assert_eq!(world.rows.until("again").await, Fate::Done);
    assert_eq!(safe.seen(), ("canary-access-1".to_owned(), false));
    assert_eq!((world.server.count("again"), world.server.count("token")), (2, 1));
    // One that is refused whatever token it is asked with is given up, and said; but not at once, for a token that was
    // just made may not be known everywhere yet.
    world.rows.add("whoop", "stale");
    let fate = world.rows.until("stale").await;
    assert!(matches!(fate, Fate::Later { reason: "unauthorised", failures: 1, .. }), "{fate:?}");
    world.rows.again("stale");
    assert!(matches!(world.rows.until("stale").await, Fate::GivenUp { .. }));
    assert_eq!(world.server.count("stale"), 4);
    let letters = world.log.of(Topic::DeadLetters);
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    for (name, value) in [
        (header::ERROR_TYPE, "authentication_error"),
        (header::STAGE, "hydrate"),
        (header::ORIGINAL_TOPIC, "raw-webhooks"),
        (header::ORIGINAL_PARTITION, "3"),
        (header::ORIGINAL_OFFSET, "1"),
    ] {
        assert_eq!(letter.headers.text(name), Some(value), "{name}");
    }
    world.end().await;
}

#[tokio::test]
async fn what_is_wrong_waits_or_ends_as_the_plan_says() {
    let records = ["missing", "limited", "elsewhere", "cut"];
    let world = World::start(Rows::with("whoop", &[]), live()).await;
    for record in records {
        // One by one: the limit would hold the others.
        world.rows.add("whoop", record);
        let fate = world.rows.until(record).await;
        let Fate::Later { after, attempts, failures, reason } = fate else { panic!("{fate:?}") };
        let (least, counts, name) = match record {
            "missing" => (30_000, (1, 0), "not_yet"),
            "limited" => (7_000, (0, 0), "limited"),
            "elsewhere" => (2_500, (0, 1), "redirected"),
            _ => (2_500, (0, 1), "broken_off"),
        };
        assert_eq!(((attempts, failures), reason), (counts, name), "{record}");
        assert!(after >= Duration::from_millis(least), "{record}: {after:?}");
        if record == "limited" {
            assert_eq!(
                *world.rows.held.lock().unwrap(),
                [(None, Duration::from_secs(7))],
                "all replicas"
            );
            break;
        }
    }
    world.end().await;
    let world = World::start(Rows::with("whoop", &["elsewhere", "cut"]), live()).await;
    assert!(matches!(
        world.rows.until("elsewhere").await,
        Fate::Later { reason: "redirected", .. }
    ));
    assert!(matches!(world.rows.until("cut").await, Fate::Later { reason: "broken_off", .. }));
    assert_eq!(world.metrics.fetches.at(["whoop", "broken_off"]).get(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_record_of_several_answers_is_one_body_and_each_call_is_counted() {
    let rows = Rows::default();
    *rows.permits.lock().unwrap() = Some(2);
    let world = World::start(rows.clone(), live()).await;
    rows.add("whoop", "chain");
    while world.server.asked.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.server.asked.lock().unwrap().len(), 2, "no third one without a permit");
    *rows.permits.lock().unwrap() = None;
    assert_eq!(rows.until("chain").await, Fate::Done);
    let asked: Vec<String> =
        world.server.asked.lock().unwrap().iter().map(|head| line(head)).collect();
    assert_eq!(asked, ["GET /chain HTTP/1.1", "GET /chain/2 HTTP/1.1", "GET /chain/3 HTTP/1.1"]);
    let sent = world.log.of(Topic::RawDocuments);
    let body = br#"[{"a":1},{"a":1},{"a":1}]"#;
    assert_eq!(sent[0].value.as_deref(), Some(&body[..]), "each as it came");
    assert_eq!(sent[0].headers.text(header::SHA256), Some(sha256_hex(body).as_str()));
    world.end().await;
}

/// A form is posted with the person's token, and a refusal that comes with 200 is one: the token is renewed, the vendor
/// left alone, and none of it is in the log.
#[tokio::test]
async fn a_form_is_posted_and_its_answer_s_body_is_judged() {
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), None);
    let rows = Rows::default();
    let world = World::start(rows.clone(), safe.clone()).await;
    let answers = |path: &str, body: &str| {
        world.server.documents.lock().unwrap().insert(path.to_owned(), body.to_owned());
    };
    answers("posted/stale", r#"{"status":401}"#);
    rows.add("whoop", "posted/stale");
    let fate = rows.until("posted/stale").await;
    assert!(matches!(fate, Fate::Later { reason: "unauthorised", .. }), "{fate:?}");
    assert_eq!(safe.seen().0, "canary-access-1", "renewed");
    assert_eq!((world.server.count("posted"), world.server.count("token")), (2, 1));
    let asked = world.server.asked.lock().unwrap()[2].to_lowercase();
    assert!(asked.starts_with("post /posted/stale http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: bearer canary-access-1\r\n"), "{asked}");
    assert!(asked.contains("content-type: application/x-www-form-urlencoded\r\n"), "{asked}");
    assert!(asked.ends_with("\r\n\r\naction=get+%26+go&what=posted%2fstale"), "{asked}");
    assert!(world.log.of(Topic::RawDocuments).is_empty(), "no refusal is a document");
    answers("posted/well", r#"{"status":0}"#);
    rows.add("whoop", "posted/well");
    assert_eq!(rows.until("posted/well").await, Fate::Done);
    let sent = world.log.of(Topic::RawDocuments);
    assert_eq!(sent[0].value.as_deref(), Some(&br#"{"status":0}"#[..]));
    answers("posted/busy", r#"{"status":601}"#);
    rows.add("whoop", "posted/busy");
    assert!(matches!(rows.until("posted/busy").await, Fate::Later { reason: "limited", .. }));
    assert_eq!(*rows.held.lock().unwrap(), [(None, Duration::from_secs(60))]);
    world.end().await;
}

/// What is there of a record is archived and does not wait for the rest, which is asked for.
#[tokio::test]
async fn a_part_is_archived_and_the_rest_is_asked_for() {
    let world = World::start(Rows::with("whoop", &[]), live()).await;
    let part = r#"{"status":"partly"}"#;
    world.server.documents.lock().unwrap().insert("posted/part".to_owned(), part.to_owned());
    world.rows.add("whoop", "posted/part");
    let fate = world.rows.until("posted/part").await;
    assert!(matches!(fate, Fate::Later { attempts: 1, reason: "partly", .. }), "{fate:?}");
    let sent = world.log.of(Topic::RawDocuments);
    assert_eq!(sent[0].value.as_deref(), Some(part.as_bytes()));
    world.end().await;
}

/// Where a vendor says that something is gone and not what, the body goes with what we had of this connection and type.
#[tokio::test]
async fn what_we_had_goes_with_a_body_that_says_what_is_left() {
    let rows = Rows::default();
    let event = |connection_id, record_type: &str, record_id: &str| {
        let event = BiometricEvent {
            connection_id,
            record_type: record_type.to_owned(),
            record_id: record_id.to_owned(),
            content: Content { end_at: Some(7), ..Content::default() },
            ..schema::record().revised(1)
        };
        Bytes::from(codec().encode_event(Topic::BiometricEvents, &event).expect("bytes"))
    };
    let another = ConnectionId(uuid::Uuid::max());
    *rows.told.lock().unwrap() = vec![
        event(ONE, "sleep", "night-1"),
        event(ONE, "workout", "run-1"),
        event(another, "sleep", "night-2"),
    ];
    let world = World::start(rows.clone(), live()).await;
    for path in ["gone/1", "record"] {
        world.server.documents.lock().unwrap().insert(path.to_owned(), "{}".to_owned());
        rows.add("whoop", path);
        assert_eq!(rows.until(path).await, Fate::Done);
    }
    let sent = world.log.of(Topic::RawDocuments);
    let held: Vec<Option<&str>> = sent.iter().map(|it| it.headers.text(header::HELD)).collect();
    let had = r#"[{"record_id":"night-1","start_at":null,"start_offset_s":null,"end_at":7}]"#;
    assert_eq!(held, [Some(had), None]);
    world.end().await;
}

/// That there is no such record is an answer: nothing is archived, and the row is done and says so. To who waits for a
/// record the same status is "not yet".
#[tokio::test]
async fn that_there_is_none_is_done_and_said() {
    let world = World::start(Rows::with("whoop", &["none/at-all", "none"]), live()).await;
    assert_eq!(world.rows.until("none/at-all").await, Fate::Nothing);
    assert!(matches!(world.rows.until("none").await, Fate::Later { reason: "not_yet", .. }));
    assert!(world.log.sent.lock().unwrap().is_empty());
    assert_eq!(world.metrics.fetches.at(["whoop", "nothing"]).get(), 1);
    world.end().await;
}

fn line(head: &str) -> String {
    head.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_consent_does_not_cover_is_given_up_and_noted_and_the_rest_is_fetched() {
    let safe = live();
    let world = World::start(Rows::with("whoop", &["forbidden"]), safe.clone()).await;
    let fate = world.rows.until("forbidden").await;
    assert_eq!(fate, Fate::GivenUp { reason: "the person's consent does not cover it" });
    assert!(safe.is_limited());
    let letters = world.log.of(Topic::DeadLetters);
    assert_eq!(letters[0].headers.text(header::ERROR_TYPE), Some("authentication_error"));
    world.rows.add("whoop", "record");
    assert_eq!(world.rows.until("record").await, Fate::Done);
    assert_eq!(world.server.count("token"), 0, "no token mends it");
    world.end().await;
}

#[tokio::test]
async fn who_is_asked_for_too_often_waits_alone() {
    let world = World::start(Rows::with("whoop", &["mine"]), live()).await;
    assert!(matches!(world.rows.until("mine").await, Fate::Later { reason: "limited", .. }));
    assert_eq!(*world.rows.held.lock().unwrap(), [(Some(ONE), Duration::from_secs(9))]);
    world.rows.add("whoop", "record");
    assert_eq!(world.rows.until("record").await, Fate::Done, "the vendor is not left alone");
    world.end().await;
}

#[tokio::test]
async fn in_a_faster_world_every_wait_is_shorter() {
    let rows = Rows::default();
    let world = World::at(100, rows.clone(), live()).await;
    for (record, least_ms, most_ms) in
        [("missing", 300, 330), ("cut", 25, 50), ("limited", 70, 121)]
    {
        rows.add("whoop", record);
        let fate = rows.until(record).await;
        let Fate::Later { after, .. } = fate else { panic!("{fate:?}") };
        let range = Duration::from_millis(least_ms)..=Duration::from_millis(most_ms);
        assert!(range.contains(&after), "{record}: {after:?}");
    }
    assert_eq!(*rows.held.lock().unwrap(), [(None, Duration::from_millis(70))]);
    world.end().await;
}

#[tokio::test]
async fn nobody_is_asked_for_who_is_not_connected() {
    let rows = Rows::with("whoop", &["record"]);
    rows.rows.lock().unwrap()[0].claimed.vendor_user = None;
    let world = World::start(rows, live()).await;
    assert_eq!(world.rows.until("record").await, Fate::GivenUp { reason: "disconnected" });
    assert!(world.log.sent.lock().unwrap().is_empty() && world.server.count("record") == 0);
    world.end().await;
}

/// Five in a row, and nobody asks any more; the rows wait where they are.
#[tokio::test]
async fn a_vendor_that_is_down_is_left_alone() {
    let rows = Rows::default();
    let world = World::start(rows.clone(), live()).await;
    for number in 0..40 {
        rows.add("whoop", &format!("down/{number}"));
    }
    for _ in 0..100 {
        if world.metrics.openings.at(["whoop"]).get() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.metrics.openings.at(["whoop"]).get(), 1);
    assert!(world.server.count("down") <= 5 + 3, "what was under way, and no more");
    world.end().await;
}

/// One vendor hangs with every fetch that it may have; the other does not notice.
#[tokio::test]
async fn a_vendor_that_hangs_slows_no_other() {
    let rows = Rows::default();
    let world = World::start(rows.clone(), live()).await;
    for number in 0..20 {
        rows.add("oura", &format!("hang/{number}"));
    }
    while world.server.count("hang") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let since = Stopwatch::start();
    for number in 0..20 {
        rows.add("whoop", &format!("record-{number}"));
    }
    for number in 0..20 {
        assert_eq!(rows.until(&format!("record-{number}")).await, Fate::Done);
    }
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    assert!(world.server.count("hang") <= 4, "no more at once than the settings say");
    world.end().await;
}

#[tokio::test]
async fn no_call_is_made_without_a_permit() {
    let rows = Rows::default();
    *rows.permits.lock().unwrap() = Some(3);
    let world = World::start(rows.clone(), live()).await;
    let records: Vec<String> = (0..10).map(|number| format!("record-{number}")).collect();
    records.iter().for_each(|record| rows.add("whoop", record));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.server.asked.lock().unwrap().len(), 3);
    *rows.permits.lock().unwrap() = None;
    for record in &records {
        assert_eq!(rows.until(record).await, Fate::Done, "and none was lost by it");
    }
    world.end().await;
}

#[tokio::test]
async fn a_stop_ends_what_is_under_way_and_begins_nothing() {
    let rows = Rows::with("whoop", &["later"]);
    let world = World::start(rows.clone(), live()).await;
    while world.server.count("later") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.stop.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    rows.add("whoop", "record");
    world.end().await;
    assert_eq!(rows.fate("later"), Some(Fate::Done));
    assert_eq!(rows.fate("record"), None);
}

/// Tokens and the app's secret are in no log, metric, dead letter, header or error, however a fetch ends.
#[tokio::test]
async fn no_token_comes_out_anywhere() {
    crate::leak::listen();
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((3_600, 0)));
    let rows = Rows::default();
    let world = World::start(rows.clone(), safe.clone()).await;
    for record in ["record", "stale", "forbidden", "missing", "html", "cut", "elsewhere", "again"] {
        rows.add("whoop", record);
        rows.until(record).await;
    }
    safe.expire();
    *world.server.refresh.0.lock().unwrap() = "another-one".to_owned();
    rows.add("whoop", "last");
    assert!(matches!(rows.until("last").await, Fate::GivenUp { .. }));
    assert!(safe.seen().1, "a refused refresh token");
    assert!(world.server.asked.lock().unwrap().iter().any(|head| head.contains("canary-refresh")));
    let sent = format!("{:?}", world.log.sent.lock().unwrap());
    assert!(sent.contains("authentication_error"), "{sent}");
    let logged = crate::leak::logged();
    assert!(logged.contains("a refresh token is refused"), "the log is listened to");
    let kept = format!("{:?} {:?}", rows.rows.lock().unwrap(), world.metrics.text());
    for (place, text) in
        [("the log of records", sent), ("the log", logged), ("rows, metrics", kept)]
    {
        assert!(!text.contains("canary"), "{place}: {text}");
    }
    world.end().await;
}

// ── history ────────────────────────────────────────────────────────────────────────────────────

const WINDOWS: [&str; 3] =
    ["2020-03-01/2020-03-31", "2020-01-31/2020-03-01", "2020-01-01/2020-01-31"];

/// Nothing of it is fetched without room, and what is new is fetched all the same; with room it is, as what it is.
#[tokio::test]
async fn history_waits_for_room_and_what_is_new_does_not() {
    let rows = Rows::default();
    let world = World::start(rows.clone(), live()).await;
    WINDOWS.iter().for_each(|window| rows.add_window("whoop", window));
    for number in 0..20 {
        let record = format!("record-{number}");
        rows.add("whoop", &record);
        assert_eq!(rows.until(&record).await, Fate::Done);
    }
    assert!(WINDOWS.iter().all(|window| rows.fate(window).is_none()), "there was no room");
    world.room.0.store(true, std::sync::atomic::Ordering::SeqCst);
    for window in WINDOWS {
        assert_eq!(rows.until(window).await, Fate::Done);
    }
    let sent = world.log.of(Topic::RawDocuments);
    let of = |origin: &str| {
        sent.iter().filter(|record| text_of(record, header::ORIGIN) == Some(origin)).count()
    };
    assert_eq!((of("live"), of("backfill")), (20, 3));
    assert_eq!(text_of(&sent[20], header::RECORD_TYPE), Some("window.sleep"));
    world.end().await;
}

fn text_of<'a>(record: &'a OutRecord, name: &str) -> Option<&'a str> {
    record.headers.text(name)
}

/// Windows that hang take no more than their places.
#[tokio::test]
async fn history_never_takes_every_place() {
    let rows = Rows::default();
    let world = World::start(rows.clone(), live()).await;
    world.room.0.store(true, std::sync::atomic::Ordering::SeqCst);
    for number in 0..10 {
        rows.add_window("whoop", &format!("hang/{number}"));
    }
    while world.server.count("hang") < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 0..10 {
        let record = format!("record-{number}");
        rows.add("whoop", &record);
        assert_eq!(rows.until(&record).await, Fate::Done);
    }
    assert_eq!(world.server.count("hang"), 2, "two places of four");
    world.end().await;
}

/// When its share of the quota is used up it waits where it is, and nobody else does.
#[tokio::test]
async fn history_beyond_its_share_holds_nobody() {
    let rows = Rows::default();
    *rows.share.lock().unwrap() = Some(1);
    let world = World::start(rows.clone(), live()).await;
    world.room.0.store(true, std::sync::atomic::Ordering::SeqCst);
    WINDOWS.iter().for_each(|window| rows.add_window("whoop", window));
    assert_eq!(rows.until(WINDOWS[0]).await, Fate::Done);
    for number in 0..10 {
        let record = format!("record-{number}");
        rows.add("whoop", &record);
        assert_eq!(rows.until(&record).await, Fate::Done);
    }
    assert!(WINDOWS[1..].iter().all(|window| rows.fate(window).is_none()), "as they were");
    assert_eq!(world.log.of(Topic::RawDocuments).len(), 11);
    world.end().await;
}

/// A window with too many pages, and one whose answer is above the cap, are fetched in parts; of a single day nothing is
/// smaller, so it is given up and said.
#[tokio::test]
async fn what_is_too_much_for_one_fetch_is_fetched_in_parts() {
    let rows = Rows::default();
    let world = World::start(rows.clone(), live()).await;
    world.room.0.store(true, std::sync::atomic::Ordering::SeqCst);
    rows.add_window("whoop", "2020-01-01/2021-01-01");
    assert_eq!(rows_until(&rows, 2).await, ["2020-01-01/2020-07-02", "2020-07-02/2021-01-01"]);
    for part in rows.ids() {
        assert_eq!(rows.until(&part).await, Fate::Done);
    }
    let large = "x".repeat(2 << 20);
    let of = |window: &str| (window.to_owned(), large.clone());
    let whole = "2019-01-01/2019-01-03";
    let day = "2019-01-01/2019-01-02";
    world.server.documents.lock().unwrap().extend([of(whole), of(day)]);
    rows.add_window("whoop", whole);
    rows_until(&rows, 4).await;
    assert_eq!(rows.until("2019-01-02/2019-01-03").await, Fate::Done);
    let fate = rows.until(day).await;
    assert!(matches!(fate, Fate::Later { reason: "too_large", .. }), "{fate:?}");
    assert!(!rows.ids().contains(&whole.to_owned()));
    world.end().await;
}

/// The path of a window of Terra's sleeps.
fn sleeps(base: &str, from: &str, to: &str) -> String {
    let days = format!("start_date={from}&end_date={to}&to_webhook=false&with_samples=true");
    format!("{base}/sleep?user_id=v-1&{days}")
}

/// The app's own id and key are all that is needed: the vault, which has nothing, is not asked.
#[tokio::test]
async fn an_app_s_key_stands_in_headers_of_its_own() {
    let mut world = World::start(Rows::default(), Safe::default()).await;
    world.serve_terra("/v2");
    world.rows.add_window("terra", "2026-03-23/2026-03-30");
    assert_eq!(world.rows.until("2026-03-23/2026-03-30").await, Fate::Done);
    let asked = world.server.asked.lock().unwrap().remove(0).to_lowercase();
    let path = sleeps("/v2", "2026-03-23", "2026-03-30");
    assert!(asked.starts_with(&format!("get {path} http/1.1\r\n")), "{asked}");
    assert!(asked.contains("\r\ndev-id: our-app\r\n"), "{asked}");
    assert!(asked.contains(&format!("\r\nx-api-key: {SECRET}\r\n")), "{asked}");
    assert!(!asked.contains("authorization"), "{asked}");
    let sent = world.log.of(Topic::RawDocuments);
    let of = |name| sent[0].headers.text(name);
    assert_eq!(
        [of(header::RECORD_TYPE), of(header::ORIGIN)],
        ["window.sleep", "backfill"].map(Some)
    );
    world.end().await;
}

/// Nobody's record is given up for a key that is wrong in our configuration; and nobody asks for a while.
#[tokio::test]
async fn a_key_that_is_not_taken_is_everybody_s() {
    let mut world = World::start(Rows::default(), Safe::default()).await;
    world.serve_terra("/stale");
    world.rows.add_window("terra", "2026-03-23/2026-03-30");
    let fate = world.rows.until("2026-03-23/2026-03-30").await;
    let Fate::Later { after, attempts: 0, failures: 0, reason } = fate else { panic!("{fate:?}") };
    let quarter = Duration::from_secs(900);
    assert!(after >= quarter && reason == "the app's key is not taken", "{after:?} {reason}");
    assert_eq!(*world.rows.held.lock().unwrap(), [(None, quarter)]);
    assert_eq!((world.server.count("token"), world.server.asked.lock().unwrap().len()), (0, 1));
    assert!(world.log.sent.lock().unwrap().is_empty(), "no dead letter");
    world.end().await;
}

/// What takes a vendor longer than it waits is asked for in halves; a day is the least, and waits for a better time.
#[tokio::test]
async fn a_window_that_is_cut_off_is_divided() {
    let mut world = World::start(Rows::default(), Safe::default()).await;
    let half = sleeps("cutoff", "2026-03-24", "2026-03-26");
    world.server.documents.lock().unwrap().insert(half, "{}".to_owned());
    world.serve_terra("/cutoff");
    world.rows.add_window("terra", "2026-03-23/2026-03-26");
    rows_until(&world.rows, 2).await;
    assert_eq!(world.rows.until("2026-03-24/2026-03-26").await, Fate::Done);
    let day = world.rows.until("2026-03-23/2026-03-24").await;
    assert!(matches!(day, Fate::Later { failures: 1, reason: "too_much", .. }), "{day:?}");
    world.end().await;
}

async fn rows_until(rows: &Rows, count: usize) -> Vec<String> {
    for _ in 0..1_000 {
        let ids = rows.ids();
        if ids.len() == count {
            return ids;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ids = rows.ids();
    assert_eq!(ids.len(), count, "{ids:?}");
    ids
}
