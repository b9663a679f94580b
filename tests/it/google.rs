//! Google at the door: its two verifications, keys that are changed while it is open, and no key at all. And Google as it
//! is played, told to the end: what its file makes of every list is what is true.

#![expect(clippy::panic, reason = "what a test cannot go on without ends it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use biometric_bridge::error::Result;
use biometric_bridge::ingress::{Hatch, Keys, Shelf, VendorKeys};
use biometric_bridge::model::contract::header;
use biometric_bridge::model::event::Op;
use biometric_bridge::model::record::Headers;
use biometric_bridge::model::record::OutRecord;
use biometric_bridge::model::state::Coordinates;
use biometric_bridge::model::time::{Day, Micros};
use biometric_bridge::sim::signer::Signer;
use biometric_bridge::sim::world::fault::Shares;
use biometric_bridge::sim::world::player::{Ask, Played};
use biometric_bridge::sim::world::stage::Stage;
use biometric_bridge::sim::world::story::{Plan, Story};
use biometric_bridge::sim::world::truth::Truth;
use biometric_bridge::stream::Sender;
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors::ask::{Held, Need};
use biometric_bridge::vendors::wire::tink::Keyset;
use biometric_bridge::vendors::{self, Raw, VendorRecord, What};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::door::{PSEUDONYM_KEY, settings};

const SECRET: &str = "Bearer not-a-secret-test-key";
const VERIFICATION: &str = r#"{"type":"verification"}"#;
const BODY: &str = r#"[{"data":{"healthUserId":"3f7a9c21"}}]"#;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<OutRecord>>>);

impl Sender for Kept {
    async fn send(&self, record: OutRecord) -> Result<Coordinates> {
        let at = Coordinates { topic: record.topic, partition: 0, offset: 0 };
        self.0.lock().expect("not poisoned").push(record);
        Ok(at)
    }
}

struct World {
    kept: Kept,
    shelf: Shelf,
    hatch: Hatch<Kept>,
}

impl World {
    fn new() -> Self {
        let (kept, shelf) = (Kept::default(), Shelf::default());
        let google = VendorKeys {
            signing: vec![SECRET.into()],
            keyset: shelf.clone(),
            ..VendorKeys::default()
        };
        let vendors = BTreeMap::from([("google".to_owned(), google)]);
        let keys = Keys { pseudonym: PSEUDONYM_KEY.into(), vendors };
        let hatch = Hatch::new(settings(), keys, kept.clone(), Metrics::new()).expect("let in");
        Self { kept, shelf, hatch }
    }

    /// The status of a request, and its `Retry-After`.
    async fn post(&self, body: &str, headers: &[(&str, &str)]) -> (u16, Option<String>) {
        let mut request = Request::post("/webhooks/google");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::from(Bytes::from(body.to_owned()));
        let request = request.body(body).expect("a request");
        let answer = self.hatch.answer(request, 1_774_766_472_000_000).await;
        let after = answer.headers().get("retry-after").and_then(|it| it.to_str().ok());
        (answer.status().as_u16(), after.map(str::to_owned))
    }

    fn records(&self) -> Vec<OutRecord> {
        self.kept.0.lock().expect("not poisoned").clone()
    }

    fn keys(&self, signer: &Signer) {
        self.shelf.put(Some(Keyset::parse(signer.keyset().as_bytes()).expect("a keyset")));
    }
}

fn signer(id: u32) -> Signer {
    Signer::new(id).expect("a key")
}

#[tokio::test]
async fn google_sees_that_its_secret_is_looked_at() {
    let world = World::new();
    let named = [("authorization", SECRET)];
    assert_eq!(world.post(VERIFICATION, &named).await.0, 201, "though there are no keys yet");
    assert_eq!(world.post(VERIFICATION, &[]).await.0, 401);
    assert_eq!(world.post(VERIFICATION, &[("authorization", "Bearer another")]).await.0, 401);
    assert!(world.records().is_empty(), "nothing of it is written");
}

#[tokio::test]
async fn a_request_that_cannot_be_verified_is_to_be_sent_again() {
    let (world, signer) = (World::new(), signer(7));
    let signature = signer.sign(BODY.as_bytes()).expect("a signature");
    let headers = [("authorization", SECRET), ("google-health-api-signature", &*signature)];
    let (status, after) = world.post(BODY, &headers).await;
    assert_eq!((status, after.as_deref()), (503, Some("7")));
    assert!(world.records().is_empty());
    world.keys(&signer);
    assert_eq!(world.post(BODY, &headers).await.0, 204);
    world.shelf.put(None);
    assert_eq!(world.post(BODY, &headers).await.0, 503);
    let records = world.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].value.as_deref(), Some(BODY.as_bytes()));
    let scheme = records[0].headers.text(header::SIGNATURE_SCHEME);
    assert_eq!(scheme, Some("google-tink-ecdsa-p256"));
    let kept = records[0].headers.iter().any(|(name, _)| name.contains("authorization"));
    assert!(!kept, "the secret is in no record");
}

#[tokio::test]
async fn keys_are_changed_while_the_door_is_open() {
    let (world, old, new) = (World::new(), signer(1), signer(2));
    for (now, other) in [(&old, &new), (&new, &old)] {
        world.keys(now);
        for (signer, status) in [(now, 204), (other, 401)] {
            let signature = signer.sign(BODY.as_bytes()).expect("a signature");
            let headers = [("authorization", SECRET), ("x-healthapi-signature", &*signature)];
            assert_eq!(world.post(BODY, &headers).await.0, status);
        }
    }
}

// ── as it is played ────────────────────────────────────────────────────────────────────────────────────────────

fn stage(faults: &str) -> Stage {
    let google = Played::parse("google").expect("it is played");
    let plan = Plan {
        seed: 11,
        people: 6,
        first: Day::parse("2026-10-20").expect("a day"),
        days: 14,
        history: 0,
        subscriptions: 0,
        vendors: vec![google],
        shares: Shares::parse(faults).expect("shares"),
    };
    // So fast that no token ends.
    Stage::new(Story::new(plan), 1_000_000, BTreeMap::new())
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

type Key = (String, String, String);

/// What we have of a person's records of this type that were measured within this time.
fn held(
    last: &BTreeMap<Key, VendorRecord>,
    vendor_user: &str,
    (record_type, from, to): (&str, Micros, Micros),
) -> Vec<Held> {
    let own = last.iter().filter(|((user, kind, _), record)| {
        let at = record.content.measured_at();
        let within = at.is_some_and(|at| (from..=to).contains(&at));
        user == vendor_user && kind == record_type && record.op == Op::Upsert && within
    });
    let held = |((_, _, record_id), record): (&Key, &VendorRecord)| Held {
        record_id: record_id.clone(),
        start_at: record.content.start_at,
        start_offset_s: record.content.start_offset_s,
        end_at: record.content.end_at,
    };
    own.map(held).collect()
}

/// Asks for all that the notifications of a story name, as the hydrator does; gives the last record of each.
fn told(stage: &mut Stage) -> BTreeMap<Key, VendorRecord> {
    let google = vendors::find("google").expect("a vendor");
    let api = google.api().expect("an API");
    let tokens = stage.first_tokens();
    let (mut last, none) = (BTreeMap::new(), Headers::new());
    for notice in stage.story().notices.clone() {
        let account = stage.story().accounts[notice.account].clone();
        let body = Bytes::from(notice.body.clone());
        let raw = Raw { headers: &none, body: &body, received_at: notice.at };
        for item in google.parse(&raw).expect("notifications") {
            let What::Fetch { record_type, record_id } = item.what else {
                panic!("{:?} of {}", item.what, notice.body);
            };
            assert_eq!(item.vendor_user.as_deref(), Some(&*account.vendor_user));
            let vendor_user = &*account.vendor_user;
            let need = Need { record_type, record_id: &record_id, vendor_user };
            let (mut answers, mut call) = (Vec::new(), api.ask(&need));
            while let Some(next) = call {
                let pairs: Vec<String> = next
                    .query
                    .iter()
                    .map(|(name, value)| format!("{name}={}", escaped(value)))
                    .collect();
                let ask = Ask {
                    method: "GET".to_owned(),
                    path: format!("/google/v4{}", next.path),
                    query: pairs.join("&"),
                    bearer: Some(tokens[notice.account].0.access.clone()),
                    ..Ask::default()
                };
                let reply = stage.answer(&ask, notice.at);
                assert_eq!(reply.status, 200, "{ask:?}: {}", reply.body);
                answers.push(Bytes::from(reply.body));
                call = api.then(&need, &answers);
            }
            let mut headers = Headers::new()
                .with(header::VENDOR_USER, account.vendor_user.clone())
                .with(header::RECORD_ID, record_id.clone());
            if let Some(what) = api.held(&need) {
                let held = held(&last, vendor_user, what);
                headers.push(header::HELD, serde_json::to_vec(&held).expect("JSON"));
            }
            let body = vendors::ask::joined(&answers);
            // A day is over by the time at which it is looked at.
            let received_at = notice.at + 10 * 86_400_000_000;
            let raw = Raw { headers: &headers, body: &body, received_at };
            for item in google.document(&raw, record_type).expect("a list") {
                let What::Record(record) = item.what else { panic!("{:?}", item.what) };
                let kind = record.record_type.clone();
                let key = (account.vendor_user.clone(), kind, record.record_id.clone());
                last.insert(key, *record);
            }
        }
    }
    last
}

fn assert_is(record: &VendorRecord, truth: &Truth) {
    let name = format!("{} {}", truth.record_type, truth.record_id);
    assert_eq!(record.op == Op::Delete, truth.gone, "{name}");
    if truth.gone {
        return;
    }
    let content = &record.content;
    assert_eq!(content.day().map(|day| day.to_string()), truth.day, "{name}: its day");
    assert_eq!((content.start_at, content.end_at), (truth.start, truth.end), "{name}: its times");
    let offsets = (content.start_offset_s, content.end_offset_s);
    assert_eq!(offsets, (truth.start_offset_s, truth.end_offset_s), "{name}: its offsets");
    if let Some(state) = &truth.state {
        assert_eq!(&content.state, state, "{name}");
    }
    let nap = content.attributes.get("is_nap").map(|nap| nap == "true");
    assert_eq!(nap, truth.nap, "{name}: a nap");
    let values = content.readings.iter().filter(|reading| reading.value.is_some());
    assert_eq!(values.count(), truth.values.len(), "{name}: {:?}", content.readings);
    for value in &truth.values {
        let same = content.readings.iter().any(|reading| {
            reading.metric == value.metric
                && reading.method == value.method
                && reading.unit == value.unit
                && reading.value.is_some_and(|found| (found - value.value).abs() < 1e-6)
        });
        assert!(same, "{name}: {value:?} in {:?}", content.readings);
    }
    let stages: Vec<_> = content
        .readings
        .iter()
        .filter_map(|it| Some((it.start_at, it.end_at?, it.symbol.clone()?)))
        .collect();
    let true_stages: Vec<_> =
        truth.intervals.iter().map(|it| (it.start, it.end, it.symbol.clone())).collect();
    assert_eq!(stages, true_stages, "{name}: its stages");
}

#[test]
fn what_is_made_of_every_list_is_what_is_true() {
    for faults in ["none", "delete=20,rescore=30,pending=30,duplicate=20,reorder=20"] {
        let mut stage = stage(faults);
        let told = told(&mut stage);
        let mut kinds = BTreeSet::new();
        for entry in &stage.story().entries {
            let truth = &entry.versions.last().expect("a version").truth;
            let (user, kind) = (truth.vendor_user.clone(), truth.record_type.clone());
            let record = told.get(&(user, kind.clone(), truth.record_id.clone()));
            let record = record.unwrap_or_else(|| panic!("no {kind} {}", truth.record_id));
            assert_is(record, truth);
            kinds.insert((kind, truth.gone));
        }
        assert!(told.len() == stage.story().entries.len(), "nothing that is not true");
        assert!(kinds.len() >= 7, "{kinds:?}");
        assert_eq!(kinds.iter().any(|(_, gone)| *gone), faults != "none");
    }
}
