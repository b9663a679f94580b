//! Terra's page of facts, as events: what is said by webhook and what is said in its own topic. Its pointers are in
//! `pointers.rs`, what its bodies mean in its fixtures.

#![expect(clippy::expect_used, reason = "what a test cannot go on without ends it")]

use std::collections::BTreeSet;
use std::time::Duration;

use biometric_bridge::model::connection::{Connection, FOR_EVER};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::event::BiometricEvent;
use biometric_bridge::model::id::{ConnectionId, User};
use biometric_bridge::model::record::Headers;
use biometric_bridge::pipeline::normalise::Unknown;
use biometric_bridge::sim::driver::{Dialect, Driver, Setting, settings};
use biometric_bridge::sim::real::Real;
use biometric_bridge::stream::relay;
use bytes::Bytes;
use serde_json::json;

use crate::door::{KEY, post, world};

const USER: &str = "5a3d0e6b-7f0e-4d6d-9c51-2f5a7a1f0c44";
const ORDERING: &str = "http.x-terra-ordering-timestamp";

/// A world in which one person has Oura by way of Terra, connected or not.
struct Story {
    driver: Driver,
    real: Real,
}

impl Story {
    fn new(connected: bool) -> Self {
        let real = Real::new().expect("a codec");
        let setting = Setting { worker: settings(2), ..Setting::default() };
        let mut driver = Driver::new(setting);
        for topic in [Topic::RawWebhooks, Topic::RawTerra, Topic::RawDocuments] {
            let settings = relay::Settings {
                wait_max: Duration::from_secs(10),
                sweep_every: (topic == Topic::RawWebhooks).then(|| Duration::from_secs(10)),
                ..relay::Settings::default()
            };
            real.add_relay_of(&mut driver, topic, Unknown::Hold, settings);
        }
        driver.add_worker(&real, setting.worker);
        if connected {
            let user = User::parse("app-user-77").expect("a user");
            driver.connect(Connection {
                id: ConnectionId::derive("terra", USER, &user),
                vendor: "terra".to_owned(),
                vendor_user: USER.to_owned(),
                user,
                valid_from: FOR_EVER,
                valid_to: None,
                settled: true,
            });
        }
        Self { driver, real }
    }

    /// A night by webhook, with these headers.
    fn webhook(&mut self, body: Bytes, kept: &[(&str, &str)]) {
        self.driver.deliver("terra", body, kept);
        self.run();
    }

    /// What Terra writes itself: neither key nor headers.
    fn written(&mut self, body: Bytes) {
        self.driver.write(Topic::RawTerra, 0, None, Headers::new(), body);
        self.run();
    }

    fn run(&mut self) {
        let ran = self.driver.run();
        assert!(ran.is_ok(), "{ran:?}\n{}", self.driver.explain());
    }

    /// The events of one record type, in order.
    fn told(&self, record_type: &str) -> Vec<BiometricEvent> {
        let records = self.driver.committed(Topic::TerraBiometricEvents);
        let read = |value: &Bytes| self.real.event(value).expect("an event");
        let events = records.iter().map(|record| read(record.value.as_ref().expect("a value")));
        events.filter(|event| event.record_type == record_type).collect()
    }

    fn heart_rates(&self) -> Vec<f64> {
        let of = |event: BiometricEvent| event.content.readings.into_iter();
        let readings = self.told("sleep").into_iter().flat_map(of);
        let found = readings.filter(|reading| reading.metric == "heart_rate_sleep_avg");
        found.filter_map(|reading| reading.value).collect()
    }
}

/// A night with this heart rate, and Terra's score of it or none yet.
fn night(heart_rate: f64, score: Option<f64>) -> Bytes {
    let body = json!({
        "type": "sleep",
        "user": { "user_id": USER, "provider": "OURA" },
        "data": [{
            "metadata": {
                "summary_id": "night-1", "is_nap": false, "upload_type": 2,
                "start_time": "2026-03-01T23:00:00.000000+01:00",
                "end_time": "2026-03-02T07:00:00.000000+01:00",
            },
            "heart_rate_data": { "summary": { "avg_hr_bpm": heart_rate } },
            "data_enrichment": { "sleep_score": score },
        }],
    });
    Bytes::from(body.to_string())
}

#[test]
fn facts_the_ordering_time_decides_and_not_the_arrival() {
    let mut story = Story::new(true);
    story.webhook(night(52.0, None), &[(ORDERING, "1772434802000")]);
    story.webhook(night(61.0, None), &[(ORDERING, "1772434801000")]);
    assert_eq!(story.heart_rates(), [52.0], "a late retry is superseded");
    story.webhook(night(54.0, None), &[(ORDERING, "1772434803000")]);
    assert_eq!(story.heart_rates(), [52.0, 54.0]);
}

#[test]
fn facts_without_an_ordering_time_the_receipt_stands_in() {
    let mut story = Story::new(true);
    story.webhook(night(52.0, None), &[]);
    story.webhook(night(54.0, None), &[]);
    assert_eq!(story.heart_rates(), [52.0, 54.0]);
    // In Terra's own topic there never is one, and a header that says so means nothing.
    story.written(night(55.0, None));
    assert_eq!(story.heart_rates(), [52.0, 54.0, 55.0]);
    assert_eq!(story.told("sleep")[2].version, None);
}

#[test]
fn facts_an_enrichment_is_never_erased_by_a_null() {
    let mut story = Story::new(true);
    story.webhook(night(52.0, Some(81.0)), &[(ORDERING, "1772434801000")]);
    story.webhook(night(53.0, None), &[(ORDERING, "1772434802000")]);
    assert_eq!(story.heart_rates(), [52.0, 53.0], "the night goes on");
    let scores = story.told("terra.sleep_score");
    assert_eq!(scores.len(), 1, "its score stands as it was");
    assert_eq!(scores[0].content.readings[0].value, Some(81.0));
}

#[test]
fn facts_what_has_no_key_is_one_persons_all_the_same() {
    let mut story = Story::new(false);
    story.written(night(52.0, None));
    assert!(story.heart_rates().is_empty(), "held: nobody knows whose it is");
    let auth = json!({
        "type": "auth", "status": "success",
        "user": { "user_id": USER, "provider": "OURA", "reference_id": "app-user-77" },
    });
    story.written(Bytes::from(auth.to_string()));
    story.driver.heal();
    story.run();
    assert_eq!(story.heart_rates(), [52.0], "its auth came behind it, without a key either");
    story.webhook(night(52.0, None), &[]);
    assert_eq!(story.heart_rates(), [52.0], "the same by webhook is nothing new");
}

/// Somebody known under a new id is announced as if he were new, then as who he was. What comes between is his, as what
/// came before: a connection of its own would tell that night a second time.
#[test]
fn facts_what_comes_before_a_new_id_is_explained_is_told_once() {
    const NEW: &str = "e1a94b1c-55f0-4b93-b3c9-52b27ea9d700";
    let mut story = Story::new(true);
    let before = story.driver.now();
    story.webhook(night(52.0, None), &[]);
    let auth = json!({
        "type": "auth", "status": "success",
        "user": { "user_id": NEW, "provider": "OURA", "reference_id": "app-user-77" },
    });
    let renamed = json!({
        "type": "user_reauth", "status": "success",
        "old_user": { "user_id": USER, "provider": "OURA" },
        "new_user": { "user_id": NEW, "provider": "OURA", "reference_id": "app-user-77" },
    });
    let under = |body: Bytes| {
        Bytes::from(String::from_utf8(body.to_vec()).expect("UTF-8").replace(USER, NEW))
    };
    // One batch, and the next: the other connection is known of in the second only.
    story.driver.deliver("terra", Bytes::from(auth.to_string()), &[]);
    story.webhook(under(night(54.0, None)), &[]);
    story.webhook(under(night(55.0, None)), &[]);
    story.driver.heal();
    story.run();
    assert_eq!(story.heart_rates(), [52.0], "whose it is is not settled");
    story.webhook(Bytes::from(renamed.to_string()), &[]);
    story.driver.advance(Duration::from_secs(60));
    story.run();
    assert!(story.driver.now() - before < Duration::from_secs(600));
    // What was sent under the old id and not taken is sent again.
    story.webhook(night(56.0, None), &[]);
    assert_eq!(story.heart_rates(), [52.0, 54.0, 55.0, 56.0]);
    let nights: BTreeSet<_> = story.told("sleep").iter().map(|event| event.event_id).collect();
    assert_eq!(nights.len(), 1, "one night, of one connection");
}

/// Who has a second device by way of Terra is announced just so, and no new name ever comes.
#[test]
fn facts_what_comes_of_a_second_device_waits_no_longer_than_a_new_id_takes() {
    const SECOND: &str = "0f9b6c2e-3a51-4c1c-9a77-20b7f3d9ae05";
    let mut story = Story::new(true);
    let auth = json!({
        "type": "auth", "status": "success",
        "user": { "user_id": SECOND, "provider": "GARMIN", "reference_id": "app-user-77" },
    });
    story.webhook(Bytes::from(auth.to_string()), &[]);
    let body = String::from_utf8(night(54.0, None).to_vec()).expect("UTF-8");
    story.webhook(Bytes::from(body.replace(USER, SECOND)), &[]);
    story.driver.heal();
    story.run();
    assert!(story.heart_rates().is_empty());
    story.driver.advance(Duration::from_secs(601));
    story.run();
    assert_eq!(story.heart_rates(), [54.0]);
}

#[tokio::test]
async fn facts_the_trace_id_is_the_delivery_and_a_reference_is_not() {
    let world = world(crate::door::settings()).await;
    let body = br#"{"type":"daily","user":{"user_id":"5a3d0e6b"},"data":[]}"#;
    let mut ids = Vec::new();
    for trace in ["t-1:chunk:0", "t-1:chunk:1", "t-1:chunk:1"] {
        let seconds = (biometric_bridge::stream::clock::now_us() / 1_000_000).to_string();
        let parts: [&[u8]; 3] = [seconds.as_bytes(), b".", body];
        let digest = biometric_bridge::vendors::wire::hmac::sign_hex(&parts, KEY.as_bytes());
        let signature = format!("t={seconds},v1={digest}");
        let headers = [
            ("x-terra-signature", signature.as_str()),
            ("x-terra-trace-id", trace),
            ("terra-reference", "shared by all chunks"),
        ];
        assert_eq!(world.call(&post("/webhooks/terra", &headers, body)).await.status, 200);
        let record = world.log.records().pop().expect("stored, a second time too");
        ids.push(record.headers.text(header::DELIVERY_ID).expect("an id").to_owned());
    }
    assert_eq!(ids, ["t-1:chunk:0", "t-1:chunk:1", "t-1:chunk:1"]);
}
