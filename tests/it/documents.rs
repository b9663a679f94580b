//! From a thin notification to its event by way of a fetched body: two raw topics, one pipeline, in memory.
//!
//! The hydrator is played by the test: what it would have fetched is written to `raw-documents` as it writes it.

#![expect(clippy::expect_used, reason = "what a test cannot go on without ends it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use biometric_bridge::model::connection::{Connection, FOR_EVER};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::event::{BiometricEvent, Op};
use biometric_bridge::model::id::{ConnectionId, Source, User};
use biometric_bridge::model::record::Headers;
use biometric_bridge::model::state::{Hydration, RawVerdict, Verdict};
use biometric_bridge::model::time::{Day, Moment};
use biometric_bridge::pipeline::normalise::Unknown;
use biometric_bridge::sim::driver::{Dialect, Driver, Setting, settings};
use biometric_bridge::sim::faults::{Call, Grant, Seam};
use biometric_bridge::sim::real::Real;
use biometric_bridge::stream::relay;
use bytes::Bytes;

const BATCHINGS: [usize; 3] = [1, 2, 500];
const SLEEP: &str = "0c7a4f62-9b8e-4f0d-8a5f-6f3f1a0e2b77";
const WHOOPS: &str = "481516";
const OURAS: &str = "u-4f2c81";

/// A world in which one person has a connection to each vendor.
struct Story {
    driver: Driver,
    real: Real,
    fetched: i64,
}

fn of(vendor: &str, vendor_user: &str) -> Connection {
    let user = User::parse("app-user-77").expect("a user");
    Connection {
        id: ConnectionId::derive(vendor, vendor_user, &user),
        vendor: vendor.to_owned(),
        vendor_user: vendor_user.to_owned(),
        user,
        valid_from: FOR_EVER,
        valid_to: None,
        settled: true,
    }
}

fn fixture(vendor: &str, case: &str) -> Bytes {
    let at = format!("tests/fixtures/{vendor}/{case}.json");
    let body = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(at));
    Bytes::from(body.expect("a fixture"))
}

impl Story {
    fn new(batching: usize) -> Self {
        let real = Real::new().expect("a codec");
        let setting = Setting { worker: settings(batching), ..Setting::default() };
        let mut driver = Driver::new(setting);
        for topic in [Topic::RawWebhooks, Topic::RawDocuments] {
            let settings = relay::Settings {
                batch_records_max: batching,
                wait_max: Duration::from_secs(10),
                sweep_every: (topic == Topic::RawWebhooks).then(|| Duration::from_secs(10)),
                ..relay::Settings::default()
            };
            real.add_relay_of(&mut driver, topic, Unknown::Hold, settings);
        }
        driver.add_worker(&real, setting.worker);
        driver.connect(of("whoop", WHOOPS));
        driver.connect(of("oura", OURAS));
        Self { driver, real, fetched: 0 }
    }

    /// A notification, as the door writes it.
    fn notify(&mut self, vendor: &'static str, case: &str) {
        self.driver.deliver(vendor, fixture(vendor, case), &[]);
        self.run();
    }

    /// A fixture, as the hydrator writes it: fetched at this time for this connection; gives its item.
    fn fetch(&mut self, case: (&'static str, &str), kind: &'static str, at: &str) -> Source {
        let (vendor, case) = case;
        let user = if vendor == "whoop" { WHOOPS } else { OURAS };
        self.fetch_for(&of(vendor, user), fixture(vendor, case), kind, at)
    }

    fn fetch_for(
        &mut self,
        connection: &Connection,
        body: Bytes,
        kind: &'static str,
        at: &str,
    ) -> Source {
        let source = self.archive(connection, body, kind, at);
        self.run();
        source
    }

    /// As it stands in the topic, not read yet.
    fn archive(
        &mut self,
        connection: &Connection,
        body: Bytes,
        kind: &'static str,
        at: &str,
    ) -> Source {
        let at_us = Moment::parse(at).expect("a time").at_us;
        let headers = Headers::new()
            .with(header::VENDOR, connection.vendor.clone())
            .with(header::RECEIVED_AT, at_us.to_string())
            .with(header::RECORD_TYPE, kind)
            .with(header::CONNECTION, connection.id.to_string())
            .with(header::VENDOR_USER, connection.vendor_user.clone())
            .with(header::ORIGIN, "live")
            .with(header::HTTP_STATUS, "200");
        self.driver.write(Topic::RawDocuments, 0, None, headers, body);
        self.fetched += 1;
        let offset = self.fetched - 1;
        Source { topic: Topic::RawDocuments, partition: 0, offset, index: 0 }
    }

    fn run(&mut self) {
        let ran = self.driver.run();
        assert!(ran.is_ok(), "{ran:?}\n{}", self.driver.explain());
    }

    /// The events of one record type, in order.
    fn told(&self, record_type: &str) -> Vec<BiometricEvent> {
        let records = self.driver.committed(Topic::BiometricEvents);
        let read = |value: &Bytes| self.real.event(value).expect("an event");
        let events = records.iter().map(|record| read(record.value.as_ref().expect("a value")));
        events.filter(|event| event.record_type == record_type).collect()
    }

    fn end(mut self) {
        self.driver.heal();
        self.run();
        let report = self.driver.report(&self.real);
        assert!(report.is_clean(), "{report}\n{}", self.driver.explain());
        assert!(self.driver.is_settled(Topic::RawDocuments), "{}", self.driver.explain());
    }
}

fn each(tell: impl Fn(&mut Story)) {
    for batching in BATCHINGS {
        let mut story = Story::new(batching);
        tell(&mut story);
        story.end();
    }
}

fn reading(event: &BiometricEvent, metric: &str) -> Option<f64> {
    let found = event.content.readings.iter().find(|reading| reading.metric == metric);
    found.and_then(|reading| reading.value)
}

/// A night of WHOOP: notified, fetched before it is scored, scored, fetched twice more.
#[test]
fn a_pending_score_is_no_value_and_the_score_its_second_revision() {
    each(|story| {
        story.notify("whoop", "recovery_updated");
        let waiting: Vec<_> = story.driver.waiting().0.into_iter().map(|row| row.key).collect();
        assert_eq!(waiting.len(), 1, "ten notifications are one fetch");
        assert_eq!(waiting[0].record_id, format!("recovery:{SLEEP}"));
        story.fetch(("whoop", "document_recovery_pending"), "recovery", "2026-03-29T06:40:00Z");
        for minute in 50..53 {
            let at = format!("2026-03-29T06:{minute}:00Z");
            story.fetch(("whoop", "document_recovery"), "recovery", &at);
        }
        let told = story.told("recovery");
        assert_eq!(told.len(), 2, "{}", story.driver.explain());
        assert_eq!(told[0].event_id, told[1].event_id);
        assert!(told[0].content.readings.is_empty() && told[0].content.state == "tentative");
        assert_eq!((told[1].revision, told[1].content.state.as_str()), (2, "final"));
        assert_eq!(reading(&told[1], "hrv_rmssd_sleep_avg"), Some(47.318));
        assert_eq!(told[1].content.day(), Day::parse("2026-03-29"), "its sleep's night");
        assert_eq!(told[1].source.topic, Topic::RawDocuments);
        let strains = story.told("cycle");
        assert_eq!(strains.len(), 2, "the cycle comes along, and is never notified");
        assert_eq!(strains[1].content.day(), Day::parse("2026-03-29"));
    });
}

/// A cycle is never notified: the next recovery brings what became of it, as its second revision.
#[test]
fn the_next_recovery_closes_the_cycle() {
    let today = fixture("whoop", "document_recovery_with_its_cycles");
    let mut yesterday: serde_json::Value = serde_json::from_slice(&today).expect("JSON");
    let sleep = yesterday[3]["records"][2].clone();
    yesterday[1]["sleep_id"] = sleep["id"].clone();
    yesterday[1]["cycle_id"] = sleep["cycle_id"].clone();
    yesterday[1]["updated_at"] = sleep["updated_at"].clone();
    let mut cycle = yesterday[2]["records"][1].clone();
    cycle.as_object_mut().expect("an object").remove("end");
    cycle["score"]["strain"] = 0.4.into();
    cycle["updated_at"] = sleep["updated_at"].clone();
    yesterday[2]["records"] = serde_json::Value::Array(vec![cycle]);
    yesterday[0] = sleep;
    each(|story| {
        let (whoop, body) = (of("whoop", WHOOPS), Bytes::from(yesterday.to_string()));
        story.fetch_for(&whoop, body, "recovery", "2026-03-28T05:50:00Z");
        for minute in [50, 52] {
            let at = format!("2026-03-29T06:{minute}:00Z");
            story.fetch_for(&whoop, today.clone(), "recovery", &at);
        }
        let told: Vec<_> = story
            .told("cycle")
            .into_iter()
            .filter(|event| event.record_id == "93720011")
            .map(|event| {
                let day = event.content.day().map(|day| day.to_string());
                (event.revision, reading(&event, "whoop.strain"), event.content.state, day)
            })
            .collect();
        let day = Some("2026-03-28".to_owned());
        let expected = [
            (1, Some(0.4), "tentative".to_owned(), day.clone()),
            (2, Some(13.6), "final".to_owned(), day),
        ];
        assert_eq!(told, expected, "{}", story.driver.explain());
        assert_eq!(story.told("recovery").len(), 2, "one a night");
        assert!(story.driver.waiting().0.is_empty(), "what was fetched asks for nothing");
    });
}

/// A deletion ends the fetch, stands above what was fetched before it, and takes the recovery with its sleep.
#[test]
fn a_deletion_stands_above_what_was_asked_for_before_it() {
    each(|story| {
        story.fetch(("whoop", "document_sleep"), "sleep", "2026-03-29T06:50:00Z");
        story.notify("whoop", "sleep_updated");
        assert_eq!(story.driver.waiting().0.len(), 1);
        story.notify("whoop", "sleep_deleted");
        story.notify("whoop", "recovery_deleted");
        assert!(story.driver.waiting().0.is_empty(), "nothing is fetched any more");
        // On its way while the deletion came: it was asked for before.
        story.fetch(("whoop", "document_sleep_unscorable"), "sleep", "2026-03-29T07:59:59Z");
        let told = story.told("sleep");
        let ops: Vec<Op> = told.iter().map(|event| event.op).collect();
        assert_eq!(ops, [Op::Upsert, Op::Delete], "{}", story.driver.explain());
        assert_eq!(story.told("recovery").len(), 1);
    });
}

/// What happened by what is in the topics and in Postgres, but for how often normalise did it.
type Outcome = (
    BTreeMap<(String, i32), BiometricEvent>,
    BTreeSet<(String, String, Option<Bytes>)>,
    Vec<Hydration>,
    Vec<RawVerdict>,
);

fn outcome(story: &Story) -> Outcome {
    let events = story.driver.committed(Topic::BiometricEvents).into_iter().map(|record| {
        let event = story.real.event(record.value.as_ref().expect("a value")).expect("an event");
        ((event.event_id.to_string(), event.revision), event)
    });
    let letters = story.driver.dead_letters().into_iter().map(|letter| {
        let text = |name| letter.headers.text(name).unwrap_or_default().to_owned();
        (text(header::ORIGINAL_OFFSET), text(header::ERROR_MESSAGE), letter.value.clone())
    });
    let (events, letters) = (events.collect(), letters.collect());
    (events, letters, story.driver.waiting().0, story.driver.verdicts())
}

/// Whatever kills the worker of fetched bodies, or lies to it, at each of its calls at each occurrence: the events, the
/// dead letters and what is asked for are the same.
#[test]
fn whatever_kills_the_reader_of_documents_nothing_is_lost_or_counted_twice() {
    let told = [
        ("whoop", WHOOPS, "document_recovery_pending", "recovery"),
        ("whoop", WHOOPS, "document_malformed_html", "sleep"),
        ("oura", OURAS, "document_sleep_page", "sleep"),
        ("whoop", WHOOPS, "document_recovery_page", "recovery"),
        ("oura", OURAS, "document_heartrate", "heartrate"),
        ("whoop", WHOOPS, "document_recovery", "recovery"),
    ];
    let tell = |batching: usize, trap: Option<(Seam, usize)>| -> (Story, bool) {
        let mut story = Story::new(batching);
        for (minute, (vendor, user, case, kind)) in (10..).zip(told) {
            let at = format!("2026-03-29T07:{minute}:00Z");
            story.archive(&of(vendor, user), fixture(vendor, case), kind, &at);
        }
        if let Some((seam, nth)) = trap {
            story.driver.crash_at(seam, nth);
        }
        story.run();
        let sprung = story.driver.sprung();
        (story, sprung)
    };
    let (calm, _) = tell(1, None);
    let reference = outcome(&calm);
    let (events, letters, asked, verdicts) = &reference;
    assert!(events.len() >= 8 && letters.len() >= 3, "{}", calm.driver.explain());
    assert!(asked.len() == 1 && verdicts.len() >= 4, "{}", calm.driver.explain());
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
                    let seam = Seam { name: "documents", call, grant, dies };
                    let (story, sprung) = tell(batching, Some((seam, nth)));
                    let what = format!("{seam:?} #{nth}, batches of {batching}");
                    assert!(outcome(&story) == reference, "{what}\n{}", story.driver.explain());
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

/// A score that comes twice, and one that is older than what is known: one revision, and no step back.
#[test]
fn a_version_of_whoops_decides_and_not_when_it_came() {
    each(|story| {
        for (minute, case) in
            (10..).zip(["sleep_correction", "sleep_again", "sleep", "sleep_correction"])
        {
            let at = format!("2026-03-29T10:{minute}:00Z");
            story.fetch(("whoop", &format!("document_{case}")), "sleep", &at);
        }
        let told = story.told("sleep");
        assert_eq!(told.len(), 1, "{}", story.driver.explain());
        let ended: Vec<_> = story.driver.decisions().into_iter().map(|one| one.verdict).collect();
        let as_told = matches!(
            ended[..],
            [
                Verdict::Published(..),
                Verdict::Superseded(..),
                Verdict::Superseded(..),
                Verdict::Duplicate(..)
            ]
        );
        assert!(as_told, "{ended:?}");
    });
}

/// A create and an update of one document within seconds are one fetch, and two sleeps of one day are two records,
/// whichever comes first; which is the night their type says.
#[test]
fn two_notices_are_one_fetch_and_two_sleeps_of_a_day_are_two_records() {
    each(|story| {
        let notice = String::from_utf8_lossy(&fixture("oura", "update")).into_owned();
        story.driver.deliver("oura", Bytes::from(notice.replace("update", "create")), &[]);
        story.driver.deliver("oura", Bytes::from(notice), &[]);
        story.run();
        assert_eq!(story.driver.waiting().0.len(), 1, "{}", story.driver.explain());
    });
    for order in [["sleep_late_nap", "sleep"], ["sleep", "sleep_late_nap"]] {
        each(|story| {
            for case in order {
                let case = format!("document_{case}");
                story.fetch(("oura", &case), "sleep", "2026-03-29T07:10:00Z");
            }
            let told = story.told("sleep");
            let mut types: Vec<_> = told
                .iter()
                .map(|event| (event.content.day(), event.content.attributes["sleep_type"].as_str()))
                .collect();
            types.sort_unstable();
            let day = Day::parse("2026-03-29");
            assert_eq!(types, [(day, "late_nap"), (day, "long_sleep")]);
        });
    }
}

/// A sleep of Polar's asks for several records by one item: all wait for the connection, and are asked for with it.
#[test]
fn one_notice_that_asks_for_several_records_is_held_and_put_through_whole() {
    each(|story| {
        story.notify("polar", "sleep");
        let (asked, held) = story.driver.waiting();
        assert_eq!((asked.len(), held.len()), (0, 1), "{}", story.driver.explain());
        let polar = of("polar", "62713944");
        story.driver.connect(polar.clone());
        story.driver.advance(Duration::from_secs(11));
        story.run();
        let (asked, held) = story.driver.waiting();
        let types: BTreeSet<&str> = asked.iter().map(|row| row.key.record_type.as_str()).collect();
        let all = ["nightly_recharge", "skin_temperature", "sleep", "spo2"];
        assert_eq!(types, BTreeSet::from(all));
        assert!(held.is_empty(), "{}", story.driver.explain());
        for (case, kind) in [
            ("sleep", "sleep"),
            ("recharge", "nightly_recharge"),
            ("sleep_correction", "sleep"),
            ("recharge", "nightly_recharge"),
        ] {
            let body = fixture("polar", &format!("document_{case}"));
            story.fetch_for(&polar, body, kind, "2026-03-29T08:00:00Z");
        }
        let scores: Vec<_> =
            story.told("sleep").iter().map(|event| reading(event, "polar.sleep_score")).collect();
        assert_eq!(scores, [Some(78.0), Some(81.0)], "{}", story.driver.explain());
        assert_eq!(story.told("nightly_recharge").len(), 1, "the same once more is nothing new");
    });
}

/// Oura has no version: what was asked for later is the later one, and what says the same is nothing new.
#[test]
fn oura_is_revised_by_when_it_was_asked_for() {
    each(|story| {
        story.fetch(
            ("oura", "document_activity_correction"),
            "daily_activity",
            "2026-03-29T09:00:00Z",
        );
        story.fetch(("oura", "document_activity"), "daily_activity", "2026-03-29T08:00:00Z");
        story.fetch(
            ("oura", "document_activity_correction"),
            "daily_activity",
            "2026-03-29T09:30:00Z",
        );
        let told = story.told("daily_activity");
        assert_eq!(told.len(), 1, "{}", story.driver.explain());
        assert_eq!(reading(&told[0], "steps_daily"), Some(9_344.0));
        story.fetch(("oura", "document_sleep"), "sleep", "2026-03-29T07:00:00Z");
        story.fetch(("oura", "document_sleep_rest"), "sleep", "2026-03-29T07:30:00Z");
        let sleeps = story.told("sleep");
        assert_eq!(sleeps.len(), 2);
        assert_eq!((sleeps[1].op, sleeps[1].revision), (Op::Delete, 2), "rejected is gone");
        // The webhook of the same deletion says the same.
        let notice =
            String::from_utf8_lossy(&fixture("oura", "update")).replace("update", "delete");
        story.driver.deliver("oura", Bytes::from(notice), &[]);
        story.run();
        assert_eq!(story.told("sleep").len(), 2, "{}", story.driver.explain());
    });
}

/// A page with bad ones: they are one dead letter a kind, with path and bytes; the others live.
#[test]
fn the_others_of_a_page_live() {
    each(|story| {
        story.fetch(("oura", "document_sleep_page"), "sleep", "2026-03-29T12:00:00Z");
        assert_eq!(story.told("sleep").len(), 2, "{}", story.driver.explain());
        let letters = story.driver.dead_letters();
        assert_eq!(letters.len(), 1);
        let text = |name| letters[0].headers.text(name);
        assert_eq!(text(header::ERROR_TYPE), Some("payload_malformed"));
        assert_eq!(text(header::ERROR_MESSAGE), Some("not an id at data[1].id"));
        assert_eq!((text(header::INDEXES), text(header::COUNT)), (Some("1,2"), Some("2")));
        assert_eq!(text(header::ORIGINAL_TOPIC), Some("raw-documents"));
        assert_eq!(letters[0].value, Some(fixture("oura", "document_sleep_page")), "byte for byte");
        let html =
            story.fetch(("whoop", "document_malformed_html"), "sleep", "2026-03-29T12:00:00Z");
        let whole = Source { index: -1, ..html };
        let verdict = story.driver.verdict(&whole).expect("a verdict");
        assert_eq!((verdict.verdict, verdict.reason), ("dead_lettered", "payload_malformed"));
        assert_eq!(story.driver.dead_letters().len(), 2);
    });
}

/// A page of history: a recovery whose sleep is on no page is fetched by itself, and waits.
#[test]
fn what_a_page_does_not_say_is_asked_for() {
    each(|story| {
        story.fetch(("whoop", "document_recovery_page"), "recovery", "2026-03-29T07:00:00Z");
        let days: Vec<_> = story.told("recovery").iter().map(|event| event.content.day()).collect();
        assert_eq!(days, ["2026-03-29", "2026-03-28"].map(Day::parse));
        let (asked, _) = story.driver.waiting();
        assert_eq!(asked.len(), 1, "{}", story.driver.explain());
        assert_eq!(asked[0].key.record_id, "recovery:91c3f0de-7c3a-4b6e-8a51-0d4e2f7b6a33");
        assert_eq!(asked[0].source.topic, Topic::RawDocuments);
    });
}

/// A body belongs to the connection that it was fetched for, or to nobody.
#[test]
fn a_body_that_was_fetched_for_another_connection_is_nobodys() {
    each(|story| {
        let former = Connection { id: of("oura", "somebody-before").id, ..of("oura", OURAS) };
        let body = fixture("oura", "document_daily_sleep");
        let source = story.fetch_for(&former, body.clone(), "daily_sleep", "2026-03-29T07:00:00Z");
        assert!(story.told("daily_sleep").is_empty());
        let verdict = story.driver.verdict(&source).expect("a verdict");
        assert_eq!((verdict.verdict, verdict.reason), ("ignored", "disconnected"));
        story.fetch_for(&of("oura", OURAS), body, "daily_sleep", "2026-03-29T07:00:00Z");
        assert_eq!(story.told("daily_sleep").len(), 1);
        let tag = story.fetch(("oura", "document_tag"), "enhanced_tag", "2026-03-29T07:00:00Z");
        let verdict = story.driver.verdict(&tag).expect("a verdict");
        assert_eq!(verdict.reason, "a type that measures nothing");
    });
}

/// Heart rates are samples that gather by the day, whatever pages they come on and however often.
#[test]
fn heart_rates_gather() {
    each(|story| {
        for at in ["2026-03-29T07:00:00Z", "2026-03-29T07:05:00Z"] {
            story.fetch(("oura", "document_heartrate"), "heartrate", at);
        }
        let told = story.told("samples.heart_rate");
        let counts: Vec<usize> = told.iter().map(|event| event.content.readings.len()).collect();
        assert_eq!(counts, [1, 2], "two days, each once\n{}", story.driver.explain());
    });
}

// ── history ────────────────────────────────────────────────────────────────────────────────────

/// A page of a window: its documents as they are alone, and one that is bad in their midst.
fn paged(list: &str, documents: &[Bytes]) -> Bytes {
    let documents: Vec<&str> =
        documents.iter().map(|one| std::str::from_utf8(one).expect("text")).collect();
    let page = documents.join(r#",{"id":7},"#);
    Bytes::from(format!(
        r#"[{{"{list}":[],"next_token":"t"}},{{"{list}":[{page}],"next_token":null}}]"#
    ))
}

/// What one document says is the same event with the same content, whether it was announced and fetched alone or came in a
/// window: of the two, whichever comes later is a duplicate. A bad one of a page is dead-lettered alone.
#[test]
fn history_and_notifications_come_to_the_same_events() {
    for (case, kind, window, told_as) in [
        ("document_sleep", "sleep", "window.sleep", "sleep"),
        ("document_activity", "daily_activity", "window.daily_activity", "daily_activity"),
        ("document_readiness", "daily_readiness", "window.daily_readiness", "daily_readiness"),
        ("document_daily_sleep", "daily_sleep", "window.daily_sleep", "daily_sleep"),
        ("document_spo2", "daily_spo2", "window.daily_spo2", "daily_spo2"),
        ("document_stress", "daily_stress", "window.daily_stress", "daily_stress"),
        ("document_resilience", "daily_resilience", "window.daily_resilience", "daily_resilience"),
        ("document_vo2_max", "vo2_max", "window.vo2_max", "vo2_max"),
        ("document_workout", "workout", "window.workout", "workout"),
        ("document_session", "session", "window.session", "session"),
    ] {
        let one = fixture("oura", case);
        let page = paged("data", &[one.clone(), one.clone()]);
        let oura = of("oura", OURAS);
        let mut both = Vec::new();
        for bodies in [[(&one, kind), (&page, window)], [(&page, window), (&one, kind)]] {
            let mut story = Story::new(1);
            for (minute, (body, kind)) in (10..).zip(bodies) {
                let at = format!("2026-03-29T09:{minute}:00Z");
                story.fetch_for(&oura, body.clone(), kind, &at);
            }
            let told = story.told(told_as);
            let [event] = told.as_slice() else { panic!("{case}: {}", story.driver.explain()) };
            both.push((event.event_id, event.revision, event.content.clone()));
            let letters = story.driver.dead_letters();
            let [letter] = letters.as_slice() else { panic!("{case}: {letters:?}") };
            assert_eq!(letter.headers.text(header::INDEXES), Some("1"), "{case}");
            let why = letter.headers.text(header::ERROR_MESSAGE).expect("a reason");
            assert!(why.contains("[1].data[1]"), "{case}: {why}");
        }
        assert_eq!(both[0], both[1], "{case}");
    }
}

/// WHOOP's nights, whose three kinds of records need each other: what a window has of them is what a recovery's own fetch
/// has, and asks for nothing more.
#[test]
fn a_window_of_nights_says_what_each_of_them_said() {
    let single = fixture("whoop", "document_recovery_with_its_cycles");
    let parts: Vec<serde_json::Value> = serde_json::from_slice(&single).expect("JSON");
    let (sleep, recovery, cycles, sleeps) = (&parts[0], &parts[1], &parts[2], &parts[3]);
    let recoveries = serde_json::json!({"records": [recovery], "next_token": null});
    let window = Bytes::from(serde_json::json!([sleeps, cycles, recoveries]).to_string());
    let asleep = Bytes::from(sleep.to_string());
    let whoop = of("whoop", WHOOPS);
    let tell = |bodies: &[(&Bytes, &'static str)]| {
        let mut story = Story::new(1);
        for (minute, (body, kind)) in (10..).zip(bodies) {
            let at = format!("2026-03-29T09:{minute}:00Z");
            story.fetch_for(&whoop, (*body).clone(), kind, &at);
        }
        assert!(story.driver.waiting().0.is_empty(), "it asks for nothing: {:?}", bodies.len());
        assert!(story.driver.dead_letters().is_empty(), "{}", story.driver.explain());
        let told = ["sleep", "recovery", "cycle"].map(|kind| story.told(kind));
        let told = told.into_iter().flatten();
        told.map(|event| (event.event_id, (event.revision, event.content))).collect()
    };
    type Told = BTreeMap<
        biometric_bridge::model::id::EventId,
        (i32, biometric_bridge::model::event::Content),
    >;
    let alone: Told = tell(&[(&asleep, "sleep"), (&single, "recovery")]);
    let paged: Told = tell(&[(&window, "window.nights")]);
    let [first, then]: [Told; 2] = [
        tell(&[(&asleep, "sleep"), (&single, "recovery"), (&window, "window.nights")]),
        tell(&[(&window, "window.nights"), (&single, "recovery"), (&asleep, "sleep")]),
    ];
    assert_eq!(first, paged, "nothing is a revision, whichever came first");
    assert_eq!(then, paged);
    assert!(alone.iter().all(|(id, told)| paged.get(id) == Some(told)), "{alone:?}");
    assert!(alone.len() >= 3 && paged.len() > alone.len(), "and the nights before it");
}
