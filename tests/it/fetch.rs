//! Calls of a vendor's API that misbehaves: each way to end has its name, in bounded time and memory; and tokens are
//! renewed once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use biometric_bridge::hydrator::fetch::{Base, Credentials, Fetched, Fetcher, Limits};
use biometric_bridge::hydrator::plan::Outcome;
use biometric_bridge::hydrator::tokens::{Client, Grant, Keyring, Tokens};
use biometric_bridge::stream::clock::Stopwatch;
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors::ask::{Answer, Call, Manner, Need, Wrapped};
use secrecy::ExposeSecret as _;

use crate::played::{SECRET, Server};
use crate::ports::{ONE, Played, Safe};

fn fetcher() -> Fetcher {
    let limits = Limits {
        connect: Duration::from_millis(300),
        first_byte: Duration::from_millis(400),
        whole: Duration::from_millis(800),
        body_bytes: 1 << 20,
    };
    Fetcher::new(limits).expect("a client")
}

async fn get(base: &Base, path: &str) -> Fetched {
    let call = Call::get(format!("/{path}"));
    let token = "canary-access-1".into();
    let asked = (&Need::NO_RECORD, &call);
    fetcher()
        .call(&Played { quotas: &[] }, base, asked, Credentials::Person(&token))
        .await
        .expect("a call")
}

#[tokio::test]
async fn every_way_to_end_has_its_name() {
    let server = Server::start().await;
    for (path, outcome) in [
        ("record", Outcome::Answered(Answer::Document)),
        ("missing", Outcome::Answered(Answer::NotYet)),
        ("stale", Outcome::Answered(Answer::Unauthorised)),
        ("limited", Outcome::Answered(Answer::Limited(Some(7)))),
        ("down", Outcome::Answered(Answer::Unavailable)),
        ("html", Outcome::NotJson),
        ("packed", Outcome::NotJson),
        ("elsewhere", Outcome::Redirected),
        ("cut", Outcome::BrokenOff),
        ("huge", Outcome::TooLarge),
        ("endless", Outcome::TooLarge),
        ("hang", Outcome::Silent),
        ("drip", Outcome::TooSlow),
    ] {
        let since = Stopwatch::start();
        let fetched = get(&server.at(""), path).await;
        assert_eq!(fetched.outcome, outcome, "{path}");
        assert_eq!(fetched.document.is_some(), path == "record", "{path}");
        assert!(since.elapsed() < Duration::from_secs(3), "{path} took {:?}", since.elapsed());
    }
    let nobody = Base::parse("http://127.0.0.1:1").expect("loopback");
    assert_eq!(get(&nobody, "record").await.outcome, Outcome::Unreachable);
}

#[tokio::test]
async fn a_document_is_its_exact_bytes() {
    let server = Server::start().await;
    let fetched = get(&server.at(""), "record").await;
    let (content_type, body) = fetched.document.expect("a document");
    assert_eq!(content_type, "application/json; charset=utf-8");
    assert_eq!(&body[..], b"{\"a\":1}");
    let asked = server.asked.lock().unwrap()[0].to_lowercase();
    assert!(asked.starts_with("get /record http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: bearer canary-access-1\r\n"), "{asked}");
    assert!(asked.contains("accept: application/json\r\n"), "{asked}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, other) = (Server::start().await, Server::start().await);
    get(&server.at(""), "elsewhere").await;
    assert_eq!(server.count("elsewhere"), 1);
    assert!(other.asked.lock().unwrap().is_empty());
}

#[test]
fn a_base_is_https_or_this_machine() {
    for good in [
        "https://api.example.com",
        "https://api.example.com/developer",
        "http://127.0.0.1:8080/v2",
        "http://localhost:1",
        "http://[::1]:8080",
    ] {
        assert!(Base::parse(good).is_some(), "{good}");
    }
    for bad in [
        "http://api.example.com",
        "http://10.0.0.1",
        "http://169.254.169.254",
        "https://user:pass@api.example.com",
        "https://api.example.com/",
        "https://api.example.com?a=b",
        "https://api.example.com#a",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "api.example.com",
        "",
    ] {
        assert!(Base::parse(bad).is_none(), "{bad}");
    }
}

#[tokio::test]
async fn no_call_leaves_the_base() {
    let server = Server::start().await;
    let base = server.at("/developer");
    let token = "canary-access-1".into();
    for path in ["record", "@example.com", "/../record", "/a/../../b", "/a b", "/a?b=c", "/a#b"] {
        let call = Call::get(path);
        let asked = (&Need::NO_RECORD, &call);
        let called = fetcher()
            .call(&Played { quotas: &[] }, &base, asked, Credentials::Person(&token))
            .await;
        assert!(called.is_err(), "{path}");
    }
    assert!(server.asked.lock().unwrap().is_empty());
    let query = vec![("start", "2026-03-29T00:00:00+01:00".to_owned()), ("limit", "25".to_owned())];
    let call = Call::get_with("/v2/sleep/a%2Fb", query);
    let asked = (&Need::NO_RECORD, &call);
    fetcher()
        .call(&Played { quotas: &[] }, &base, asked, Credentials::Person(&token))
        .await
        .expect("a call");
    let asked = server.asked.lock().unwrap()[0].clone();
    let wanted = "GET /developer/v2/sleep/a%2Fb?start=2026-03-29T00%3A00%3A00%2B01%3A00&limit=25 ";
    assert!(asked.starts_with(wanted), "{asked}");
}

// ── tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────────

fn keyring(safe: &Safe, server: &Server, secret: &str) -> Keyring<Safe> {
    keyring_at(safe, server, "/token", secret, Manner::default())
}

fn keyring_at(
    safe: &Safe,
    server: &Server,
    path: &str,
    secret: &str,
    manner: Manner,
) -> Keyring<Safe> {
    let url = server.at(path);
    let (id, secret) = ("app".to_owned(), secret.into());
    let client = Client { url, scope: Some("offline"), id, secret, manner };
    let clients = BTreeMap::from([("played".to_owned(), client)]);
    Keyring::new(safe.clone(), fetcher(), clients, Metrics::of(&["played"]), 1)
}

async fn access(keyring: &Keyring<Safe>) -> Option<String> {
    match keyring.access("played", ONE).await.expect("an answer") {
        Grant::Token(token) => Some(token.access.expose_secret().to_owned()),
        Grant::None(_) => None,
    }
}

/// Twenty-five workers of three processes want the same expired token.
#[tokio::test]
async fn whoever_wants_it_a_token_is_renewed_once() {
    let server = Server::start().await;
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((3_600, 0)));
    let replicas: Vec<_> = (0..3).map(|_| Arc::new(keyring(&safe, &server, SECRET))).collect();
    let workers = (0..25_usize).map(|number| {
        let keyring = Arc::clone(&replicas[number % replicas.len()]);
        tokio::spawn(async move { access(&keyring).await })
    });
    for worker in workers.collect::<Vec<_>>() {
        assert_eq!(worker.await.expect("no panic").as_deref(), Some("canary-access-1"));
    }
    assert_eq!(server.refresh.1.load(Ordering::SeqCst), 1);
    assert_eq!(server.count("token"), 1, "not even asked twice");
    let asked = server.asked.lock().unwrap()[0].clone();
    assert!(asked.contains("grant_type=refresh_token&"), "{asked}");
    assert!(asked.contains("&scope=offline"), "{asked}");
}

#[tokio::test]
async fn a_token_in_the_first_half_of_its_life_is_used_as_it_is() {
    let server = Server::start().await;
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((1_700, 1_900)));
    assert_eq!(access(&keyring(&safe, &server, SECRET)).await.as_deref(), Some("canary-access-0"));
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), None);
    assert_eq!(access(&keyring(&safe, &server, SECRET)).await.as_deref(), Some("canary-access-0"));
    assert_eq!(server.count("token"), 0);
}

/// We die between the vendor's answer and the store: the old refresh token is dead, and the connection says so.
#[tokio::test]
async fn a_pair_that_is_lost_ends_as_reauth_required() {
    let server = Server::start().await;
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((3_600, 0)));
    *safe.stores_nothing.lock().unwrap() = true;
    let keyring = keyring(&safe, &server, SECRET);
    let killed = tokio::time::timeout(Duration::from_secs(1), access(&keyring)).await;
    assert!(killed.is_err(), "nobody is given what is not stored");
    assert_eq!(server.refresh.1.load(Ordering::SeqCst), 1, "the vendor has rotated");
    assert_eq!(safe.seen(), ("canary-access-0".to_owned(), false));
    *safe.stores_nothing.lock().unwrap() = false;
    safe.end_leases();
    assert_eq!(access(&keyring).await, None);
    assert!(safe.seen().1, "said, not silent");
    let asked = server.count("token");
    assert_eq!(access(&keyring).await, None);
    assert_eq!(server.count("token"), asked, "and nobody asks again");
}

#[tokio::test]
async fn our_own_misconfiguration_is_nobody_s_consent() {
    let server = Server::start().await;
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((3_600, 0)));
    let wrong = keyring(&safe, &server, "another-secret");
    assert!(wrong.access("played", ONE).await.is_err());
    assert!(!safe.seen().1);
    assert_eq!(access(&keyring(&safe, &server, SECRET)).await.as_deref(), Some("canary-access-1"));
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_what_still_lives() {
    let server = Server::start().await;
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((3_000, 600)));
    let wrong = keyring(&safe, &server, "another-secret");
    assert_eq!(access(&wrong).await.as_deref(), Some("canary-access-0"));
}

// ── token endpoints of their own manner ────────────────────────────────────────────────────────────────────────────

const WRAPPED: Manner = Manner {
    also: &[("action", "requesttoken")],
    wrapped: Some(Wrapped {
        status: "status",
        good: 0,
        body: "body",
        refused: &[503],
        limited: &[601],
    }),
};

#[tokio::test]
async fn an_answer_that_has_its_status_inside_is_unwrapped() {
    let server = Server::start().await;
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((3_600, 0)));
    let ours = keyring_at(&safe, &server, "/wrapped", SECRET, WRAPPED);
    assert_eq!(access(&ours).await.as_deref(), Some("canary-access-1"));
    let asked = server.asked.lock().unwrap()[0].clone();
    let form = "action=requesttoken&grant_type=refresh_token&refresh_token=canary-refresh-0&";
    assert!(asked.contains(form), "{asked}");
    // Neither too many calls nor our own misconfiguration is the person's refusal.
    server.refuses.store(true, Ordering::SeqCst);
    safe.expire();
    assert!(ours.access("played", ONE).await.is_err());
    server.refuses.store(false, Ordering::SeqCst);
    let wrong = keyring_at(&safe, &server, "/wrapped", "another-secret", WRAPPED);
    assert!(wrong.access("played", ONE).await.is_err());
    let standard = keyring_at(&safe, &server, "/wrapped", SECRET, Manner::default());
    assert!(standard.access("played", ONE).await.is_err(), "200 is no pair");
    assert!(!safe.seen().1);
    assert_eq!(access(&ours).await.as_deref(), Some("canary-access-2"));
    let dead = Safe::with("canary-access-0", Some("dead"), Some((3_600, 0)));
    assert_eq!(access(&keyring_at(&dead, &server, "/wrapped", SECRET, WRAPPED)).await, None);
    assert!(dead.seen().1, "only consent mends it");
}

/// We die between the vendor's answer and the store, and the vendor still takes the old refresh token: nothing is lost.
#[tokio::test]
async fn a_pair_that_is_lost_is_had_again_where_the_old_one_lives_on() {
    let server = Server::start().await;
    let safe = Safe::with("canary-access-0", Some("canary-refresh-0"), Some((3_600, 0)));
    *safe.stores_nothing.lock().unwrap() = true;
    let ours = keyring_at(&safe, &server, "/wrapped", SECRET, WRAPPED);
    let killed = tokio::time::timeout(Duration::from_secs(1), access(&ours)).await;
    assert!(killed.is_err(), "nobody is given what is not stored");
    *safe.stores_nothing.lock().unwrap() = false;
    safe.end_leases();
    assert_eq!(access(&ours).await.as_deref(), Some("canary-access-2"));
    assert!(!safe.seen().1);
}
