//! Who may ask and how often, and what a crowd is told: origins, rates, and twice the capacity.

use std::sync::Arc;
use std::time::Duration;

use biometric_bridge::ingress::{Settings, VendorKeys};
use biometric_bridge::stream::clock::Stopwatch;
use tokio::io::AsyncWriteExt;

use crate::door::{
    Mood, OURA, WHOOP, World, answer, head, oura, post, settings, whoop, world, world_of,
};

const APP: &str = "https://app.example.com";

async fn preflight(world: &World, path: &str, origin: &str) -> crate::door::Answer {
    let asks = [("origin", origin), ("access-control-request-method", "POST")];
    world.call(&head(&format!("OPTIONS {path}"), &asks)).await
}

#[tokio::test]
async fn without_a_list_a_preflight_is_a_method_like_any_other() {
    let world = world(settings()).await;
    let answered = preflight(&world, "/webhooks/healthkit", APP).await;
    assert_eq!(answered.status, 405);
    assert!(!answered.head.contains("access-control"), "{answered:?}");
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_ask_and_sees_its_answer() {
    let mut listed = settings();
    listed.cors.origins = Some(format!("https://other.example.com, {APP}"));
    let world = world(listed).await;
    let answered = preflight(&world, "/webhooks/healthkit", APP).await;
    assert_eq!(answered.status, 204, "{answered:?}");
    for line in [
        "access-control-allow-origin: https://app.example.com",
        "access-control-allow-methods: POST",
        "access-control-allow-headers: content-type, api-key",
        "access-control-max-age: 600",
        "vary: origin",
    ] {
        assert!(answered.has(line), "{line} in {answered:?}");
    }
    let answered = preflight(&world, "/webhooks/healthkit", "https://evil.example.com").await;
    assert_eq!(answered.status, 403);
    assert!(!answered.head.contains("access-control"), "{answered:?}");
    assert_eq!(preflight(&world, "/webhooks/nobody", APP).await.status, 404);
    let bare = world.call(&head("OPTIONS /webhooks/oura", &[])).await;
    assert_eq!(bare.status, 405, "no preflight");
    // A refusal is seen too, or the page could not tell one from a broken network.
    let refused = world.call(&post("/webhooks/healthkit", &[("origin", APP)], b"{}")).await;
    assert_eq!(refused.status, 401);
    assert!(refused.has("access-control-allow-origin: https://app.example.com"), "{refused:?}");
    let vendor = world.call(&oura(OURA)).await;
    assert_eq!(vendor.status, 200);
    assert!(vendor.has("vary: origin") && !vendor.head.contains("access-control"), "{vendor:?}");
}

#[tokio::test]
async fn too_often_is_answered_so_that_it_comes_again() {
    let rates =
        VendorKeys { rate_max: Some("2/hour".parse().expect("a rate")), ..VendorKeys::default() };
    let world = world_of(settings(), rates).await;
    let pushed = || post("/webhooks/healthkit", &[("api-key", "x")], b"{}");
    for _ in 0..2 {
        assert_eq!(world.call(&oura(OURA)).await.status, 200);
        assert_eq!(world.call(&pushed()).await.status, 401);
    }
    let vendor = world.call(&oura(OURA)).await;
    assert_eq!(vendor.status, 503, "a vendor repeats a 503 and may not repeat a 429");
    let told = vendor.head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    let seconds: u32 = told.expect("when").parse().expect("a number");
    assert!((1_700..=1_800).contains(&seconds), "{seconds}");
    let app = world.call(&pushed()).await;
    assert_eq!((app.status, app.body.as_str()), (429, r#"{"error":"too_many_requests"}"#));
    assert!(app.head.contains("retry-after: "), "{app:?}");
    assert_eq!(world.call(&whoop(WHOOP)).await.status, 200, "each vendor has its own");
    assert_eq!(world.errors("rate_limit_error"), 2);
    assert_eq!(world.log.records().len(), 3, "what was refused is not stored");
}

#[tokio::test]
async fn a_peer_has_a_rate_of_its_own() {
    let each = Some("3/hour".parse().expect("a rate"));
    let world =
        world_of(settings(), VendorKeys { rate_per_peer_max: each, ..VendorKeys::default() }).await;
    let mut stream = world.connect().await;
    for expected in [200, 200, 200, 503, 503] {
        stream.write_all(&oura(OURA)).await.expect("written");
        let Some(answered) = answer(&mut stream).await else {
            stream = world.connect().await;
            continue;
        };
        assert_eq!(answered.status, expected);
    }
}

/// Twice what the log can take, open loop: what it can take it gets, the rest hears at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twice_the_capacity_is_the_capacity_and_a_quick_503() {
    // Four at once, 50 ms each: 80 a second.
    let world = Arc::new(world(Settings { permits: 4, ..settings() }).await);
    world.log.is(Mood::AcksSoon);
    let begun = Stopwatch::start();
    let mut senders = Vec::new();
    for sender in 0..16_u32 {
        let world = Arc::clone(&world);
        senders.push(tokio::spawn(async move {
            let mut stream = world.connect().await;
            let (mut taken, mut refused) = (0_u32, Vec::new());
            for at in 0..30 {
                // 16 senders, each every 100 ms: 160 a second.
                let due = Duration::from_millis(100) * at + Duration::from_micros(6_250) * sender;
                tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
                let watch = Stopwatch::start();
                stream.write_all(&oura(OURA)).await.expect("written");
                match answer(&mut stream).await.expect("the connection lives on").status {
                    200 => taken += 1,
                    503 => refused.push(watch.seconds()),
                    other => panic!("{other}"),
                }
            }
            (taken, refused)
        }));
    }
    let (mut taken, mut refused) = (0, Vec::new());
    for sender in senders {
        let (some, others) = sender.await.expect("no panic");
        taken += some;
        refused.extend(others);
    }
    let seconds = begun.seconds();
    let capacity = 80.0 * seconds;
    assert!(f64::from(taken) > 0.7 * capacity, "{taken} in {seconds} s");
    refused.sort_by(f64::total_cmp);
    assert!(refused.len() > 50, "{}", refused.len());
    let p90 = refused[refused.len() * 9 / 10];
    assert!(p90 < 0.1, "{p90}");
    drop(refused);
    assert!(world.metrics.permits_in_use.get() <= 4);
}
