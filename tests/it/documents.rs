//! From a thin notification to its event by way of a fetched body: two raw topics, one pipeline, in memory.
//!
//! The hydrator is played by the test: what it would have fetched is written to `raw-documents` as it writes it.

#![expect(clippy::expect_used, reason = "what a test cannot go on without ends it")]

use std::path::Path;
use std::time::Duration;

use biometric_bridge::model::connection::{Connection, FOR_EVER};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::event::{BiometricEvent, Op};
use biometric_bridge::model::id::{ConnectionId, Source, User};
use biometric_bridge::model::record::Headers;
use biometric_bridge::model::time::{Day, Moment};
use biometric_bridge::pipeline::normalise::Unknown;
use biometric_bridge::sim::driver::{Dialect, Driver, Setting, settings};
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
        self.run();
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
