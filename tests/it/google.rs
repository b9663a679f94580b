//! Google at the door: its two verifications, keys that are changed while it is open, and no key at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use biometric_bridge::error::Result;
use biometric_bridge::ingress::{Hatch, Keys, Shelf, VendorKeys};
use biometric_bridge::model::contract::header;
use biometric_bridge::model::record::OutRecord;
use biometric_bridge::model::state::Coordinates;
use biometric_bridge::stream::Sender;
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors::wire::tink::{Keyset, Signer};
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
