//! Stories over the whole pipeline in memory, at least one for each promise of `design.md` §2.
//!
//! [`journey!`] runs each for batches of 1, of 2, of 7 and of everything, in normalise and in decide, so that nobody
//! can write a story that holds at one batch size only. At its end each story's world must come to rest, and the
//! oracle must find nothing lost, doubled, reordered or unexplained.

#![expect(clippy::expect_used, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use biometric_bridge::ingress::{Keys, VendorKeys, serve};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::event::{BiometricEvent, NormalisedRecord, Op};
use biometric_bridge::model::id::Source;
use biometric_bridge::model::record::Headers;
use biometric_bridge::pipeline::normalise::Unknown;
use biometric_bridge::sim::driver::{Dialect, Driver, Setting, settings};
use biometric_bridge::sim::faults::{Call, Grant, Seam};
use biometric_bridge::sim::generate::{Generator, Mix};
use biometric_bridge::sim::real::Real;
use biometric_bridge::stream::relay;
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors::wire::hmac::sign_hex;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const BATCHINGS: [usize; 4] = [1, 2, 7, 500];
const HOUR: Duration = Duration::from_secs(3600);

/// A world with the whole pipeline: one relay (slot 0) and workers of decide.
struct Story {
    driver: Driver,
    real: Real,
    batching: usize,
}

/// Declares a story and runs it for every batching.
macro_rules! journey {
    ($(#[$about:meta])* fn $name:ident($story:ident: &mut Story) $body:block) => {
        $(#[$about])*
        #[test]
        fn $name() {
            for batching in BATCHINGS {
                let mut story = Story::new(batching);
                let $story = &mut story;
                $body
                story.end();
            }
        }
    };
}

impl Story {
    fn new(batching: usize) -> Self {
        let real = Real::new().expect("a codec");
        let setting = Setting { worker: settings(batching), ..Setting::default() };
        let mut driver = Driver::new(setting);
        let settings = relay::Settings {
            batch_records_max: batching,
            wait_max: Duration::from_secs(10),
            ..relay::Settings::default()
        };
        real.add_relay(&mut driver, Unknown::Hold, settings);
        driver.add_worker(&real, setting.worker);
        Self { driver, real, batching }
    }

    /// A fixture, as the door writes it.
    fn deliver(&mut self, vendor: &'static str, case: &str) {
        let at = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(vendor);
        let body = std::fs::read(at.join(format!("{case}.json"))).expect("a fixture");
        let lines = std::fs::read_to_string(at.join(format!("{case}.headers")));
        let lines = lines.unwrap_or_default();
        let kept: Vec<(String, &str)> = lines
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| *name != "received_at")
            .map(|(name, value)| {
                let own = [header::VENDOR_USER, header::CONTENT_ENCODING].contains(&name);
                let name =
                    if own { name.to_owned() } else { format!("{}{name}", header::REQUEST_PREFIX) };
                (name, value)
            })
            .collect();
        let kept: Vec<(&str, &str)> =
            kept.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.driver.deliver(vendor, Bytes::from(body), &kept);
    }

    fn run(&mut self) {
        let ran = self.driver.run();
        assert!(ran.is_ok(), "{ran:?}\n{}", self.driver.explain());
    }

    fn end(mut self) {
        self.driver.heal();
        self.run();
        let report = self.driver.report(&self.real);
        let batching = self.batching;
        assert!(report.is_clean(), "batches of {batching}:\n{report}\n{}", self.driver.explain());
        for topic in [Topic::RawWebhooks, Topic::NormalisedRecords] {
            assert!(self.driver.is_settled(topic), "{}\n{}", topic.name(), self.driver.explain());
        }
    }

    fn events(&self) -> Vec<BiometricEvent> {
        let topics = [Topic::BiometricEvents, Topic::TerraBiometricEvents];
        let records = topics.iter().flat_map(|topic| self.driver.committed(*topic));
        let read = |value: &Bytes| self.real.event(value).expect("an event");
        records.map(|record| read(record.value.as_ref().expect("a value"))).collect()
    }

    /// The events of one record type, in order.
    fn of_type(&self, record_type: &str) -> Vec<BiometricEvent> {
        let mut events = self.events();
        events.retain(|event| event.record_type == record_type);
        events
    }
}

/// The item of the raw record at this offset.
fn source(offset: i64) -> Source {
    Source { topic: Topic::RawWebhooks, partition: 0, offset, index: 0 }
}

/// What a reader needs to know of all events, whatever made the revisions come in another order of topics.
fn content(events: Vec<BiometricEvent>) -> BTreeMap<(String, i32), BiometricEvent> {
    let key = |event: &BiometricEvent| (event.event_id.to_string(), event.revision);
    events.into_iter().map(|event| (key(&event), event)).collect()
}

// ── 1. nothing accepted is lost ────────────────────────────────────────────────────────────────────────────────

/// One signed request over a socket; gives the status line.
async fn post(at: std::net::SocketAddr, key: &str, body: &str) -> String {
    let now = biometric_bridge::stream::clock::now_us() / 1_000_000;
    let signed = [now.to_string().as_bytes(), b".".as_slice(), body.as_bytes()].concat();
    let signature = sign_hex(&[&signed], key.as_bytes());
    let request = format!(
        "POST /webhooks/terra HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         terra-signature: t={now},v1={signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(at).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

/// From a request on a socket to the event: what is answered with 2xx is told, what is refused leaves nothing.
#[tokio::test]
async fn what_the_door_accepts_is_told() {
    const KEY: &str = "not-a-secret-test-key";
    let mut story = Story::new(7);
    let both = VendorKeys { signing: vec![KEY.into()], ..VendorKeys::default() };
    let vendors = BTreeMap::from([("terra".to_owned(), both)]);
    let keys = Keys { pseudonym: "not-a-secret-pseudonym-key".into(), vendors };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let at = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let sender = Arc::new(story.driver.sender());
    let settings = crate::door::settings();
    let door = serve(settings, keys, sender, Metrics::new(), listener, stop.clone());
    let door = tokio::spawn(door);

    let auth = include_str!("../fixtures/terra/auth.json");
    let sleep = include_str!("../fixtures/terra/sleep.json");
    assert!(post(at, KEY, auth).await.contains(" 200 "));
    assert!(post(at, KEY, sleep).await.contains(" 200 "));
    assert!(post(at, "another-key-that-signs", sleep).await.contains(" 401 "));
    stop.cancel();
    door.await.expect("it drained").expect("a door");

    story.run();
    assert_eq!(story.driver.committed(Topic::RawWebhooks).len(), 2);
    let nights = story.of_type("sleep");
    assert_eq!(nights.len(), 1, "{}", story.driver.explain());
    assert_eq!(nights[0].user_id.as_str(), "app-user-77");
    story.end();
}

/// Normalise dies, or is lied to, at each of its calls at each occurrence: at least once there, once in the end.
#[test]
fn whatever_kills_normalise_the_events_are_the_same() {
    let cases = ["auth", "sleep", "malformed_data", "activity", "sleep_correction", "unknown_type"];
    let tell = |batching: usize, trap: Option<(Seam, usize)>| -> (Story, bool) {
        let mut story = Story::new(batching);
        for case in cases {
            story.deliver("terra", case);
        }
        if let Some((seam, nth)) = trap {
            story.driver.crash_at(seam, nth);
        }
        story.run();
        let sprung = story.driver.sprung();
        (story, sprung)
    };
    let reference = content(tell(1, None).0.events());
    assert!(reference.len() >= 3, "{} events", reference.len());
    let mut runs = 0;
    for batching in BATCHINGS {
        for call in [Call::Connections, Call::Note, Call::Produce, Call::CommitPlain] {
            for (grant, dies) in [
                (None, true),
                (Some(Grant::Done), true),
                (Some(Grant::Refused), false),
                (Some(Grant::AnswerLost), false),
            ] {
                if grant == Some(Grant::AnswerLost) && !call.faults().contains(&Grant::AnswerLost) {
                    continue;
                }
                for nth in 0.. {
                    let seam = Seam { name: "normalise", call, grant, dies };
                    let (story, sprung) = tell(batching, Some((seam, nth)));
                    let what = format!("{seam:?} #{nth}, batches of {batching}");
                    assert!(
                        content(story.events()) == reference,
                        "{what}\n{}",
                        story.driver.explain()
                    );
                    story.end();
                    runs += 1;
                    if !sprung {
                        break;
                    }
                }
            }
        }
    }
    assert!(runs > 100, "{runs} runs");
}

// ── 2. nothing is counted twice ────────────────────────────────────────────────────────────────────────────────

journey! {
    /// A vendor sends the same night again and again, through a restart and a rebalance: one event; a correction is
    /// the second, and an old version after it is none.
    fn one_night_is_one_event(story: &mut Story) {
        story.deliver("terra", "auth");
        story.deliver("terra", "sleep");
        story.run();
        story.deliver("terra", "sleep_duplicate");
        story.driver.step(3);
        story.driver.crash(1);
        story.driver.start(1);
        story.deliver("terra", "sleep");
        let second = story.driver.add_worker(&story.real.clone(), settings(story.batching));
        story.driver.step(6);
        story.driver.rebalance(&[(0, second), (1, second)]);
        story.run();
        let nights = story.of_type("sleep");
        assert_eq!(nights.len(), 1, "{}", story.driver.explain());
        story.deliver("terra", "sleep_correction");
        story.run();
        story.deliver("terra", "sleep");
        story.run();
        let revisions: Vec<i32> = story.of_type("sleep").iter().map(|night| night.revision).collect();
        assert_eq!(revisions, [1, 2]);
    }
}

journey! {
    /// A phone sends its samples again after it was installed anew, and then deletes one: each sample counts once.
    fn a_sample_counts_once(story: &mut Story) {
        story.connect_healthkit();
        story.deliver("healthkit", "push");
        story.deliver("healthkit", "push");
        story.run();
        let pushed = story.of_type("samples.heart_rate");
        let samples: Vec<_> =
            pushed.iter().flat_map(|event| &event.content.readings).map(|r| &r.sample_id).collect();
        let distinct: std::collections::BTreeSet<_> = samples.iter().collect();
        assert!(!samples.is_empty());
        assert_eq!(samples.len(), distinct.len(), "each once");
        story.deliver("healthkit", "deleted");
        story.deliver("healthkit", "push");
        story.run();
        let gone = story.of_type("samples.heart_rate");
        let removed: Vec<_> = gone.iter().flat_map(|event| &event.content.removed).collect();
        assert_eq!(removed.iter().filter(|id| id.ends_with("101")).count(), 1);
    }
}

journey! {
    /// Samples of sleep become one record a source and date, however often and in how many pushes they come; with
    /// the last sample of a night the night goes.
    fn samples_of_sleep_become_nights(story: &mut Story) {
        story.connect_healthkit();
        for _ in 0..3 {
            story.deliver("healthkit", "night");
        }
        story.run();
        let nights = story.of_type("sleep");
        let there = |nights: &[BiometricEvent]| -> BTreeMap<String, BiometricEvent> {
            let latest = nights.iter().map(|night| (night.record_id.clone(), night.clone()));
            let mut there: BTreeMap<_, _> = latest.collect();
            there.retain(|_, night| night.op == Op::Upsert);
            there
        };
        let last = there(&nights);
        // The phone only lay in bed; the watch has the night, another app its own hour. The nap of the afternoon is
        // dated after its receipt in this world, and its clock is not believed.
        assert_eq!(last.len(), 2, "{:?}", last.keys());
        let watch = last.iter().find(|(key, _)| key.ends_with("Watch7,5")).expect("the watch's").1;
        assert_eq!(watch.merge, biometric_bridge::model::event::Merge::Replace);
        let of = |name: &str| -> Vec<f64> {
            let of = watch.content.readings.iter().filter(|reading| reading.metric == name);
            of.filter_map(|reading| reading.value).collect()
        };
        let minutes = 28.5 + 44.5 + 20.0 + 290.0;
        assert_eq!(of("sleep_total_duration"), [minutes * 60.0]);
        assert_eq!(of("sleep_awake_duration"), [120.0]);
        let deleted = nights.iter().filter(|night| night.op == Op::Delete).count();
        assert_eq!(deleted, 0);
        // Every sample of the night is deleted; each push of it comes again after that.
        let body = include_str!("../fixtures/healthkit/night.json");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let samples = body["data"]["sleep"].as_array().expect("samples");
        let gone: Vec<_> = samples
            .iter()
            .map(|sample| serde_json::json!({
                "id": sample["id"], "type": "HKCategoryTypeIdentifierSleepAnalysis"
            }))
            .collect();
        let body = serde_json::json!({"data": {"deleted": gone}}).to_string();
        let user = "3f1c2b7a-0d4e-5a6b-8c9d-112233445566";
        story.driver.deliver("healthkit", Bytes::from(body), &[(header::VENDOR_USER, user)]);
        story.run();
        story.deliver("healthkit", "night");
        story.run();
        assert!(there(&story.of_type("sleep")).is_empty(), "{}", story.driver.explain());
    }
}

journey! {
    /// A stream of everything that people and vendors do, samples included, against the oracle.
    fn a_stream_of_everything(story: &mut Story) {
        for seed in 1..=6 {
            let mut people = Generator::new(seed, Mix { users: 3, samples: true });
            for mut record in people.records(25) {
                record.source.partition = i32::try_from(seed).expect("small");
                story.driver.record(&story.real.clone(), &record);
            }
            story.driver.step(5);
        }
        story.run();
        assert!(story.events().len() > 40);
    }
}

// ── 3. the log is enough ───────────────────────────────────────────────────────────────────────────────────────

#[test]
fn every_batching_gives_the_same_state() {
    let states: Vec<_> = BATCHINGS
        .iter()
        .map(|batching| {
            let mut story = Story::new(*batching);
            for record in stream() {
                story.driver.record(&story.real.clone(), &record);
            }
            story.run();
            (content(story.events()), story.driver.rows())
        })
        .collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
}

fn stream() -> Vec<NormalisedRecord> {
    Generator::new(11, Mix { users: 3, samples: true }).records(40)
}

journey! {
    /// Postgres is emptied: decide reads its log again, silently, and the same rows stand there.
    fn a_rebuild_is_silent_and_the_same(story: &mut Story) {
        for record in stream() {
            story.driver.record(&story.real.clone(), &record);
        }
        story.run();
        let (rows, events) = (story.driver.rows(), story.events());
        story.driver.crash(1);
        story.driver.empty_database();
        story.driver.start(1);
        story.run();
        assert!(story.driver.rows() == rows, "{}", story.driver.explain());
        assert!(story.events() == events, "not one more");
    }
}

// ── 4. nothing is dropped silently ─────────────────────────────────────────────────────────────────────────────

journey! {
    /// Each input has its end, and it is written down where somebody can find it.
    fn every_input_has_an_end(story: &mut Story) {
        story.deliver("terra", "sleep");
        story.run();
        assert_eq!(story.driver.waiting().1.len(), 1, "held: nobody knows whose it is");
        assert!(story.events().is_empty());
        story.deliver("terra", "auth");
        story.run();
        assert_eq!(story.of_type("sleep").len(), 1, "put through\n{}", story.driver.explain());
        assert!(story.driver.waiting().1.is_empty());

        story.deliver("terra", "unknown_type");
        story.deliver("terra", "malformed_not_json");
        story.deliver("oura", "create");
        story.run();
        let ignored = story.driver.verdict(&source(2)).expect("a verdict");
        assert_eq!(ignored.verdict, "ignored");
        let letters = story.driver.dead_letters();
        let letter = letters.first().expect("a dead letter");
        assert_eq!(letter.headers.text(header::ERROR_TYPE), Some("payload_malformed"));
        assert_eq!(letter.headers.text(header::ORIGINAL_OFFSET), Some("3"));
        let raw = story.driver.committed(Topic::RawWebhooks);
        assert_eq!(letter.value, raw[3].value, "byte for byte");
        assert_eq!(letters.len(), 1);
    }
}

journey! {
    /// A value of `normalised-records` that nobody can read is a dead letter, once, and the next record lives.
    fn an_unreadable_record_is_a_dead_letter(story: &mut Story) {
        let bad = Bytes::from_static(&[0, 0, 0, 0, 1, 0xff]);
        story.driver.write(Topic::NormalisedRecords, 0, None, Headers::new(), bad);
        for record in stream().iter().take(5) {
            story.driver.record(&story.real.clone(), record);
        }
        story.driver.step(4);
        story.driver.crash(1);
        story.driver.start(1);
        story.run();
        assert_eq!(story.driver.dead_letters().len(), 1);
        assert!(!story.events().is_empty());
    }
}

// ── 5. no health data leaks ────────────────────────────────────────────────────────────────────────────────────

journey! {
    /// What a header says is who, what and how urgent: never how much, and never what a vendor wrote.
    fn headers_hold_no_measurement(story: &mut Story) {
        story.deliver("terra", "auth");
        story.deliver("terra", "sleep");
        story.deliver("terra", "activity");
        story.deliver("terra", "malformed_not_json");
        story.run();
        let topics = [Topic::TerraBiometricEvents, Topic::BiometricEvents, Topic::DeadLetters];
        let records: Vec<_> =
            topics.iter().flat_map(|topic| story.driver.committed(*topic)).collect();
        assert!(records.len() >= 3);
        for record in records {
            for (name, value) in record.headers.iter() {
                let value = String::from_utf8_lossy(value).to_lowercase();
                for canary in ["canary", "\"value\"", "5a3d0e6b-7f0e-4d6d-9c51-2f5a7a1f0c44"] {
                    assert!(!value.contains(canary), "{name}: {value}");
                }
            }
        }
    }
}

// ── 6. live data goes first ────────────────────────────────────────────────────────────────────────────────────

journey! {
    /// A long backlog of one partition does not hold up another: a batch takes from its partitions in turn.
    fn a_backlog_does_not_starve_the_others(story: &mut Story) {
        story.run();
        let real = story.real.clone();
        let records = stream();
        for (at, record) in records.iter().cycle().take(300).enumerate() {
            let mut record = record.clone();
            record.source.offset = i64::try_from(at).expect("small");
            story.driver.record_to(&real, 0, &record);
        }
        let mut live = records[0].clone();
        live.source.partition = 7;
        live.record_id = "live".to_owned();
        live.event_id = biometric_bridge::model::id::EventId::derive(
            live.connection_id,
            &live.record_type,
            &live.record_id,
        );
        story.driver.record_to(&real, 1, &live);
        for _ in 0..80 {
            if story.events().iter().any(|event| event.event_id == live.event_id) {
                break;
            }
            story.driver.round();
        }
        let told = story.events();
        assert!(told.iter().any(|event| event.event_id == live.event_id));
    }
}

// ── the cache ──────────────────────────────────────────────────────────────────────────────────────────────────

journey! {
    /// What is shown is the latest that is there: forward only, and a deletion shows the one before.
    fn the_cache_shows_the_latest(story: &mut Story) {
        let real = story.real.clone();
        let nights: Vec<NormalisedRecord> = Generator::new(5, Mix { users: 1, samples: false })
            .records(30)
            .into_iter()
            .filter(|record| record.op == Op::Upsert)
            .collect();
        let mut ids: Vec<_> = nights.iter().map(|night| night.event_id).collect();
        ids.dedup();
        let (first, last) = (nights[0].clone(), nights[nights.len() - 1].clone());
        assert!(first.content.measured_at() < last.content.measured_at());
        story.driver.record(&real, &last);
        story.run();
        story.driver.record(&real, &first);
        story.run();
        let user = first.user_id.as_str();
        let shown = story.driver.shown(user, None).expect("shown");
        assert_eq!(shown.measured_at, last.content.measured_at().expect("measured"));
        if first.event_id != last.event_id {
            let mut gone = last.clone();
            gone.op = Op::Delete;
            gone.version = None;
            gone.received_at += i64::try_from(HOUR.as_micros()).expect("small");
            gone.source.offset += 1000;
            gone.content = biometric_bridge::model::event::Content::default();
            story.driver.record(&real, &gone);
            story.run();
            let shown = story.driver.shown(user, None).expect("the one before");
            assert_eq!(shown.event_id, first.event_id);
        }
    }
}

impl Story {
    /// The connection of the fixtures' phone.
    fn connect_healthkit(&mut self) {
        use biometric_bridge::model::connection::{Connection, FOR_EVER};
        use biometric_bridge::model::id::{ConnectionId, User};
        let id = "3f1c2b7a-0d4e-5a6b-8c9d-112233445566";
        let uuid = id.parse().expect("an id");
        self.driver.connect(Connection {
            id: ConnectionId(uuid),
            vendor: "healthkit".to_owned(),
            vendor_user: id.to_owned(),
            user: User::parse("app-user-77").expect("a user"),
            valid_from: FOR_EVER,
            valid_to: None,
            settled: true,
        });
    }
}
