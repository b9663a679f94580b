//! The door over a real socket: what a sender can see, and what is then stored.

use std::sync::Arc;
use std::time::Duration;

use biometric_bridge::ingress::{Drained, Settings};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::id::{PseudonymKey, sha256_hex};
use biometric_bridge::stream::clock::{Stopwatch, now_us};
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors;
use biometric_bridge::vendors::wire::hmac::{sign_base64, sign_hex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::door::{
    GARMIN, KEY, MIB, Mood, OURA, PATH, PSEUDONYM_KEY, TOKEN, WHOOP, answer, answer_of, head, oura,
    oura_signature, post, settings, whoop, whoop_signed_at, world,
};

#[tokio::test]
async fn what_is_accepted_is_in_the_log_as_it_was_sent() {
    let world = world(settings()).await;
    let before = now_us();
    let answered = world.call(&oura(OURA)).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    let sha256 = sha256_hex(OURA);
    let says =
        format!(r#"{{"status":"accepted","device":"oura","delivery_id":"{}"}}"#, &sha256[..32]);
    assert_eq!(answered.body, says);
    let records = world.log.records();
    let [record] = records.as_slice() else { panic!("one record") };
    assert_eq!(record.topic, Topic::RawWebhooks);
    assert_eq!(record.value.as_deref(), Some(OURA));
    let pseudonym = PseudonymKey::new(PSEUDONYM_KEY.as_bytes()).vendor_user("oura", "u-4f2c81");
    assert_eq!(record.key.as_deref(), Some(format!("oura:{pseudonym}").as_bytes()));
    let told = |name| record.headers.text(name).expect("there");
    assert_eq!(told(header::VENDOR), "oura");
    assert_eq!(told(header::DELIVERY_ID), &sha256[..32]);
    assert_eq!(told(header::SHA256), sha256);
    assert_eq!(told(header::SIGNATURE), "verified");
    assert_eq!(told(header::SIGNATURE_SCHEME), "oura-hmac-sha256");
    assert_eq!(told(header::CONTENT_TYPE), "application/json");
    assert_eq!(record.headers.text(header::CONTENT_ENCODING), None);
    let received_at: i64 = told(header::RECEIVED_AT).parse().expect("a number");
    assert!((before..=now_us()).contains(&received_at));
    assert_eq!(told(header::TRACEPARENT).len(), 55);
    let aliased = String::from_utf8(whoop(WHOOP)).expect("text").replace("/webhooks/", "/webhook/");
    assert_eq!(world.call(aliased.as_bytes()).await.status, 200, "as v0 had it");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = aliased.replace("host: bridge", &format!("traceparent: {trace}"));
    assert_eq!(world.call(traced.as_bytes()).await.status, 200);
    let records = world.log.records();
    assert_eq!(records[2].headers.text(header::TRACEPARENT), Some(trace));
    assert_ne!(records[1].headers.text(header::TRACEPARENT), Some(trace));
}

#[tokio::test]
async fn a_signed_body_is_stored_whatever_it_says() {
    let world = world(settings()).await;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let corpus: [&[u8]; 13] = [
        b"",
        b"not json",
        b"{",
        b"\xef\xbb\xbf{\"user_id\":1}",
        b"{\"user_id\":\"\xff\xfe\"}",
        b"{\"user_id\":\"a\",\"user_id\":\"b\"}",
        b"{\"user_id\":\"a\\u0000b\"}",
        b"{\"user_id\":NaN}",
        b"{\"user_id\":1e999}",
        b"\0\0\0\r\n\r\nPOST /webhooks/oura HTTP/1.1\r\n\r\n",
        b"{\"user_id\":\"u\"}\n",
        b"[[1],[2]]",
        deep.as_bytes(),
    ];
    for body in corpus {
        assert_eq!(world.call(&oura(body)).await.status, 200, "{}", body.escape_ascii());
        let record = world.log.records().pop().expect("stored");
        assert_eq!(record.value.as_deref(), Some(body), "byte for byte");
    }
    let keyless = world.log.records()[5].clone();
    let hash = sha256_hex(corpus[5]);
    assert_eq!(keyless.key.as_deref(), Some(format!("oura:{}", &hash[..32]).as_bytes()));
}

/// A vendor that greets before it has told its secret gets its 200, as does anybody; nothing else comes of it.
#[tokio::test]
async fn a_greeting_is_answered_and_does_nothing() {
    let world = world(settings()).await;
    let ping = br#"{"timestamp":"2026-03-29T06:12:41Z","event":"PING"}"#;
    assert_eq!(world.call(&post("/webhooks/polar", &[], ping)).await.status, 200);
    assert_eq!(world.call(&post("/webhooks/oura", &[], ping)).await.status, 401, "Oura has none");
    let sleep = br#"{"event":"SLEEP","user_id":62713944,"date":"2026-03-29"}"#;
    assert_eq!(world.call(&post("/webhooks/polar", &[], sleep)).await.status, 401);
    assert!(world.log.records().is_empty(), "nothing is written");
    let signature = sign_hex(&[sleep], KEY.as_bytes());
    let signed = post("/webhooks/polar", &[("polar-webhook-signature", &signature)], sleep);
    assert_eq!(world.call(&signed).await.status, 200);
    assert_eq!(world.log.records().len(), 1);
}

#[tokio::test]
async fn a_vendor_that_signs_nothing_is_known_by_its_path() {
    let world = world(settings()).await;
    let push = |path: &str, client: &str| {
        post(&format!("/webhooks/garmin{path}"), &[("garmin-client-id", client)], GARMIN)
    };
    let path = format!("/{PATH}");
    for (path, client, status) in [
        (path.as_str(), TOKEN, 200),
        (&path, "another-client", 401),
        ("", TOKEN, 404),
        ("/not-a-secret-end-of-another", TOKEN, 404),
    ] {
        assert_eq!(world.call(&push(path, client)).await.status, status, "{path} {client}");
    }
    let records = world.log.records();
    let [record] = records.as_slice() else { panic!("{} records", records.len()) };
    assert_eq!(record.value.as_deref(), Some(GARMIN), "byte for byte");
    assert_eq!(record.headers.text(header::SIGNATURE_SCHEME), Some("garmin-path"));
    let user = PseudonymKey::new(PSEUDONYM_KEY.as_bytes()).vendor_user("garmin", "user-a");
    assert_eq!(record.key.as_deref(), Some(format!("garmin:{user}").as_bytes()));
    let told = format!("{:?} {:?}", record.headers, record.key);
    assert!(!told.contains(PATH), "the end of the path goes no further");
    assert_eq!(world.errors("signature_invalid"), 3);
}

#[tokio::test]
async fn what_is_not_theirs_is_401_in_the_same_bytes() {
    let world = world(settings()).await;
    let (timestamp, good) = oura_signature(OURA);
    let send = |headers: Vec<(&'static str, String)>, body: &'static [u8]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        post("/webhooks/oura", &headers, body)
    };
    let (at, by) = ("x-oura-timestamp", "x-oura-signature");
    let base64 = sign_base64(&[timestamp.as_bytes(), OURA], KEY.as_bytes());
    let next = sign_hex(&[timestamp.as_bytes(), OURA], b"another-key");
    let off = if good.starts_with('0') { "1" } else { "0" };
    let newline: &'static [u8] = [OURA, b"\n"].concat().leak();
    let spaced: &'static [u8] = [b"{ ", &OURA[1..]].concat().leak();
    let refused = [
        ("nothing", send(vec![], OURA)),
        ("no signature", send(vec![(at, timestamp.clone())], OURA)),
        ("no timestamp", send(vec![(by, good.clone())], OURA)),
        ("empty", send(vec![(at, timestamp.clone()), (by, String::new())], OURA)),
        ("truncated", send(vec![(at, timestamp.clone()), (by, good[..62].to_owned())], OURA)),
        ("longer", send(vec![(at, timestamp.clone()), (by, format!("{good}00"))], OURA)),
        ("off", send(vec![(at, timestamp.clone()), (by, format!("{off}{}", &good[1..]))], OURA)),
        ("another key", send(vec![(at, timestamp.clone()), (by, next)], OURA)),
        ("another text", send(vec![(at, timestamp.clone()), (by, base64)], OURA)),
        ("a scheme", send(vec![(at, timestamp.clone()), (by, format!("v0={good}"))], OURA)),
        (
            "repeated",
            send(vec![(at, timestamp.clone()), (by, good.clone()), (by, good.clone())], OURA),
        ),
        ("another time", send(vec![(at, "1774766472".to_owned()), (by, good.clone())], OURA)),
        ("a newline", send(vec![(at, timestamp.clone()), (by, good.clone())], newline)),
        ("a space", send(vec![(at, timestamp.clone()), (by, good.clone())], spaced)),
        ("the neighbour's", {
            let theirs = String::from_utf8(whoop(WHOOP)).expect("text");
            theirs.replace("/webhooks/whoop", "/webhooks/oura").into_bytes()
        }),
    ];
    let mut bodies = Vec::new();
    for (what, request) in refused {
        let answered = world.call(&request).await;
        assert_eq!(answered.status, 401, "{what}");
        bodies.push(answered.body);
    }
    assert_eq!(world.errors("signature_invalid"), 15);
    let hours = 3 * 3_600 * 1_000_000;
    for stale in [now_us() - hours, now_us() + hours] {
        let answered = world.call(&whoop_signed_at(stale, WHOOP)).await;
        assert_eq!(answered.status, 401);
        bodies.push(answered.body);
    }
    assert_eq!(world.errors("signature_expired"), 2, "counted apart");
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(world.log.records().is_empty(), "nothing is stored");
    let lower = [("x-oura-timestamp", &*timestamp), ("x-oura-signature", &*good.to_lowercase())];
    assert_eq!(world.call(&post("/webhooks/oura", &lower, OURA)).await.status, 200);
}

#[tokio::test]
async fn a_request_of_another_form_has_its_status() {
    let world = world(settings()).await;
    let long = "a".repeat(20_000);
    let many: Vec<_> = (0..150).map(|_| ("x-a", "b")).collect();
    let to_oura = |headers| head("POST /webhooks/oura", headers);
    let form = "request_refused";
    let table: [(&str, Vec<u8>, Option<u16>, &str); 14] = [
        ("unknown vendor", post("/webhooks/nobody", &[], b"{}"), Some(404), "unknown_vendor"),
        ("another path", post("/", &[], b"{}"), Some(404), form),
        ("traversal", post("/webhooks/../webhooks/oura", &[], b"{}"), Some(404), form),
        ("a query", post("/webhooks/oura?user=1", &[], b"{}"), Some(404), form),
        ("PUT", head("PUT /webhooks/oura", &[("content-length", "0")]), Some(405), form),
        ("GET", head("GET /webhooks/whoop", &[]), Some(405), form),
        ("HEAD", head("HEAD /webhooks/whoop", &[]), Some(405), form),
        ("br", to_oura(&[("content-encoding", "br")]), Some(415), form),
        ("a large head", to_oura(&[("x-a", &long)]), Some(431), form),
        ("many headers", to_oura(&many), Some(431), form),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Some(400), form),
        ("folded", b"POST /x HTTP/1.1\r\na: b\r\n c\r\n\r\n".to_vec(), Some(400), form),
        ("no number", to_oura(&[("content-length", "1e3")]), Some(400), form),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), None, form),
    ];
    for (what, request, status, kind) in table {
        let before = world.errors(kind);
        let mut stream = world.connect().await;
        stream.write_all(&request).await.expect("written");
        assert_eq!(answer_of(what, &mut stream).await, status, "{what}");
        drop(stream);
        world.settle().await;
        assert_eq!(world.errors(kind), before + 1, "{what}");
    }
    let put = world.call(&head("PUT /webhooks/oura", &[])).await;
    assert!(put.has("allow: GET, HEAD, POST"), "{put:?}");
    let get = world.call(&head("GET /webhooks/whoop", &[])).await;
    assert!(get.has("allow: POST"), "{get:?}");
    for vendor in vendors::ALL {
        let secret = if vendor.secret_path() { format!("/{PATH}") } else { String::new() };
        let path = format!("/webhooks/{}{secret}", vendor.name());
        let gzip = world.call(&post(&path, &[("content-encoding", "gzip")], b"{}")).await;
        assert_eq!(gzip.status, if vendor.takes_gzip() { 401 } else { 415 }, "{path}");
    }
    assert!(world.log.records().is_empty());
}

#[tokio::test]
async fn oura_gets_its_challenge_back_and_nobody_else_does() {
    let world = world(settings()).await;
    let ask = |query: &str| head(&format!("GET /webhooks/oura{query}"), &[]);
    let good = format!("?verification_token={TOKEN}&challenge=c-42");
    let answered = world.call(&ask(&good)).await;
    assert_eq!((answered.status, answered.body.as_str()), (200, r#"{"challenge":"c-42"}"#));
    assert!(answered.has("x-content-type-options: nosniff"), "{answered:?}");
    assert!(answered.has("content-type: application/json"), "{answered:?}");
    let long = "c".repeat(257);
    for query in [
        String::new(),
        "?verification_token=wrong&challenge=c-42".to_owned(),
        format!("?verification_token={TOKEN}&challenge="),
        format!("?verification_token={TOKEN}&challenge={long}"),
        format!("?verification_token={TOKEN}&challenge=%3Cscript%3E"),
    ] {
        let answered = world.call(&ask(&query)).await;
        assert_eq!(answered.status, 401, "{query}");
        assert!(!answered.body.contains("c-42") && !answered.body.contains("script"));
    }
    assert!(world.log.records().is_empty());
}

#[tokio::test]
async fn a_body_is_as_large_as_the_vendors_cap() {
    let world = world(Settings { body_ms_max: 5_000, ..settings() }).await;
    for (bytes, status) in [(MIB - 1, 200), (MIB, 200), (MIB + 1, 413)] {
        let answered = world.call(&oura(&vec![b' '; bytes])).await;
        assert_eq!(answered.status, status, "{bytes}: the answer is read though the body was not");
    }
    assert_eq!(world.log.records().len(), 2);
    let answered = world.call(&oura(&vec![b' '; 8 * MIB])).await;
    assert_eq!(answered.status, 413, "heard by a sender that is still sending, not reset");
    let told = head(
        "POST /webhooks/oura",
        &[("content-length", "10000000000"), ("expect", "100-continue")],
    );
    let answered = world.call(&told).await;
    assert_eq!(answered.status, 413, "before a byte of it is asked for");
    assert!(answered.has("connection: close"), "{answered:?}");
    let (mut reader, mut writer) = world.connect().await.into_split();
    let endless = async {
        let head = head("POST /webhooks/oura", &[("transfer-encoding", "chunked")]);
        writer.write_all(&head).await.expect("written");
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        while writer.write_all(&chunk).await.is_ok() {}
    };
    let mut first = [0; 12];
    let (read, ()) = tokio::join!(reader.read_exact(&mut first), endless);
    assert!(read.is_ok());
    assert_eq!(&first, b"HTTP/1.1 413", "at the cap, however much would follow");
    assert_eq!(world.errors("payload_too_large"), 4);
    assert_eq!(world.log.records().len(), 2);
    world.settle().await;
}

#[tokio::test]
async fn a_body_without_a_length_is_taken_and_one_that_lies_is_not() {
    let world = world(settings()).await;
    let (timestamp, signature) = oura_signature(OURA);
    let signed = [("x-oura-timestamp", &*timestamp), ("x-oura-signature", &*signature)];
    let chunked = [signed[0], signed[1], ("transfer-encoding", "chunked")];
    let mut request = head("POST /webhooks/oura", &chunked);
    for part in OURA.chunks(7) {
        request.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        request.extend_from_slice(part);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(world.call(&request).await.status, 200);
    assert_eq!(world.log.records()[0].value.as_deref(), Some(OURA));

    let short = (OURA.len() - 1).to_string();
    let told = [signed[0], signed[1], ("content-length", &*short)];
    let request = [&head("POST /webhooks/oura", &told)[..], OURA].concat();
    assert_eq!(world.call(&request).await.status, 401, "what is told is what is signed");

    let more = (OURA.len() + 1).to_string();
    let told = [signed[0], signed[1], ("content-length", &*more)];
    let request = [&head("POST /webhooks/oura", &told)[..], OURA].concat();
    assert_eq!(world.call(&request).await.status, 408, "what is told is waited for");

    let both = [signed[0], signed[1], ("content-length", "5"), ("transfer-encoding", "chunked")];
    let request =
        [&head("POST /webhooks/oura", &both)[..], b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"].concat();
    let mut stream = world.connect().await;
    stream.write_all(&request).await.expect("written");
    assert_eq!(answer(&mut stream).await.expect("an answer").status, 401);
    assert!(answer(&mut stream).await.is_none(), "nothing is smuggled in behind it");
    assert_eq!(world.log.records().len(), 1);
}

#[tokio::test]
async fn a_connection_lives_on_after_what_was_read_and_ends_after_what_was_not() {
    let world = world(settings()).await;
    let mut stream = world.connect().await;
    let wrong = String::from_utf8(oura(OURA)).expect("text").replace("u-4f2c81\"}", "u-4f2c82\"}");
    for (request, status) in [(oura(OURA), 200), (wrong.into_bytes(), 401), (whoop(WHOOP), 200)] {
        stream.write_all(&request).await.expect("written");
        assert_eq!(answer(&mut stream).await.expect("an answer").status, status);
    }
    stream.write_all(&[oura(OURA), whoop(WHOOP)].concat()).await.expect("written");
    for _ in 0..2 {
        assert_eq!(answer(&mut stream).await.expect("an answer").status, 200, "in one packet");
    }
    stream.write_all(&post("/webhooks/nobody", &[], b"{}")).await.expect("written");
    let last = answer(&mut stream).await.expect("an answer");
    assert!(last.status == 404 && last.has("connection: close"), "{last:?}");
    assert!(answer(&mut stream).await.is_none());
}

#[tokio::test]
async fn who_is_slow_is_closed_at_the_deadline() {
    let world = world(settings()).await;
    let request = oura(OURA);
    let body_at = request.len() - OURA.len();
    for (what, sent, status) in [
        ("silent", 0, None),
        ("half a head", body_at / 2, None),
        ("half a body", body_at + 10, Some(408)),
    ] {
        let watch = Stopwatch::start();
        let mut stream = world.connect().await;
        stream.write_all(&request[..sent]).await.expect("written");
        assert_eq!(answer_of(what, &mut stream).await, status, "{what}");
        assert!((0.25..1.0).contains(&watch.seconds()), "{what}: {}", watch.seconds());
    }
    let mut drip = world.connect().await;
    let watch = Stopwatch::start();
    for byte in &request {
        if drip.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(watch.seconds() < 2.0, "a byte at a time does not move the deadline");
    let mut idle = world.connect().await;
    idle.write_all(&request).await.expect("written");
    assert_eq!(answer(&mut idle).await.expect("an answer").status, 200);
    assert!(answer(&mut idle).await.is_none(), "closed when nothing follows");
    assert_eq!(world.metrics.permit_wait_seconds.get_sample_count(), 1, "the slow took no permit");
    world.settle().await;
}

#[tokio::test]
async fn crowds_of_the_silent_and_the_slow_harm_nobody() {
    let crowded = Settings {
        permits: 4,
        connections_max: 64,
        connections_per_peer_max: 64,
        head_ms_max: 1_500,
        body_ms_max: 1_500,
        ..settings()
    };
    let world = world(crowded).await;
    let slow = post("/webhooks/oura", &[("x-a", "b")], &[b' '; 4_000]);
    let mut crowd = Vec::new();
    for at in 0..400 {
        let mut stream = world.connect().await;
        if at % 2 == 0 {
            stream.write_all(&slow[..1_000]).await.expect("written");
        }
        crowd.push(stream);
        if at % 40 == 0 {
            let watch = Stopwatch::start();
            assert_eq!(world.call(&oura(OURA)).await.status, 200);
            assert!(watch.seconds() < 0.5, "served at once, whoever else is there");
        }
    }
    assert_eq!(world.metrics.permits_in_use.get(), 0, "a slow sender has no permit");
    let mut rest = Vec::new();
    for stream in &mut crowd[..300] {
        let ended = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut rest));
        assert!(ended.await.is_ok(), "whoever made room is closed, deadline or not");
    }
    world.log.is(Mood::AcksLate);
    let mut in_flight = world.connect().await;
    in_flight.write_all(&oura(OURA)).await.expect("written");
    world.until(|metrics| metrics.permits_in_use.get() == 1).await;
    for _ in 0..100 {
        crowd.push(world.connect().await);
    }
    let answered = answer(&mut in_flight).await.expect("who is being served makes no room");
    assert_eq!(answered.status, 200);
    drop(in_flight);
    for mut stream in crowd {
        let ended = async {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.ok();
        };
        tokio::time::timeout(Duration::from_secs(4), ended).await.expect("closed at its deadline");
    }
    world.settle().await;
}

#[tokio::test]
async fn who_goes_away_leaves_nothing_behind() {
    let world = world(settings()).await;
    let request = oura(OURA);
    for at in (0..=request.len()).step_by(9) {
        for abrupt in [true, false] {
            let mut stream = world.connect().await;
            stream.write_all(&request[..at]).await.expect("written");
            if abrupt {
                stream.set_zero_linger().expect("set");
            }
        }
    }
    world.settle().await;
    world.log.is(Mood::Withholds);
    let mut gone = Vec::new();
    for _ in 0..20 {
        let mut stream = world.connect().await;
        stream.write_all(&request).await.expect("written");
        gone.push(stream);
    }
    world.until(|metrics| metrics.permits_in_use.get() == 20).await;
    let watch = Stopwatch::start();
    drop(gone);
    world.settle().await;
    assert!(watch.seconds() < 0.4, "before the acknowledgement's deadline");
}

#[tokio::test]
async fn without_an_acknowledgement_there_is_no_2xx() {
    let world = world(Settings { ack_ms_max: 1_500, ..settings() }).await;
    world.log.is(Mood::Withholds);
    let watch = Stopwatch::start();
    let answered = world.call(&oura(OURA)).await;
    assert_eq!(answered.status, 503);
    assert!(watch.seconds() < 2.0, "{}", watch.seconds());
    assert!(answered.has("retry-after: 7"), "{answered:?}");
    for (mood, kind) in [(Mood::IsDown, "broker_unavailable"), (Mood::IsFull, "overloaded")] {
        world.log.is(mood);
        let before = world.errors(kind);
        let watch = Stopwatch::start();
        let answered = world.call(&oura(OURA)).await;
        assert!(answered.status == 503 && answered.has("retry-after: 7"), "{answered:?}");
        assert!(watch.seconds() < 0.5, "at once");
        assert_eq!(world.errors(kind), before + 1);
    }
    assert!(world.log.records().is_empty());
    world.log.is(Mood::Acks);
    assert_eq!(world.call(&oura(OURA)).await.status, 200, "recovered without a restart");
}

#[tokio::test]
async fn beyond_the_permits_and_as_many_waiting_it_is_503_at_once() {
    let two = Settings { permits: 2, ack_ms_max: 1_000, ..settings() };
    let world = Arc::new(world(two).await);
    world.log.is(Mood::Withholds);
    let mut others = Vec::new();
    for expected in 1..=4 {
        let one = Arc::clone(&world);
        others.push(tokio::spawn(async move {
            let watch = Stopwatch::start();
            (one.call(&oura(OURA)).await.status, watch.seconds())
        }));
        let taken =
            |metrics: &Metrics| metrics.permits_in_use.get() + metrics.permits_waiting.get();
        world.until(|metrics| taken(metrics) == expected).await;
    }
    assert_eq!(world.metrics.permits_waiting.get(), 2);
    let watch = Stopwatch::start();
    let answered = world.call(&oura(OURA)).await;
    assert!(answered.status == 503 && answered.has("retry-after: 7"), "{answered:?}");
    assert!(watch.seconds() < 0.2, "at once: {}", watch.seconds());
    for other in others {
        let (status, seconds) = other.await.expect("no panic");
        assert!(status == 503 && seconds < 2.0, "{status} after {seconds}");
    }
    world.log.is(Mood::Acks);
    assert_eq!(world.call(&oura(OURA)).await.status, 200);
    world.settle().await;
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight() {
    let world = world(settings()).await;
    world.log.is(Mood::AcksLate);
    let mut in_flight = world.connect().await;
    in_flight.write_all(&oura(OURA)).await.expect("written");
    let mut half = world.connect().await;
    let request = whoop(WHOOP);
    half.write_all(&request[..request.len() - 5]).await.expect("written");
    let both = |metrics: &Metrics| {
        metrics.permits_in_use.get() == 1
            && metrics.body_bytes.get() > i64::try_from(OURA.len()).expect("few")
    };
    world.until(both).await;
    world.stop.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(TcpStream::connect(world.at).await.is_err(), "no longer accepts");
    half.write_all(&request[request.len() - 5..]).await.expect("written");
    for stream in [&mut in_flight, &mut half] {
        let answered = answer(stream).await.expect("an answer");
        assert!(answered.status == 200 && answered.has("connection: close"), "{answered:?}");
    }
    drop((in_flight, half));
    assert_eq!(world.served.await.expect("no panic"), Drained { cut_off: 0 });
    assert_eq!(world.log.records().len(), 2);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let hurried = Settings { drain_ms_max: 100, body_ms_max: 60_000, ..settings() };
    let world = world(hurried).await;
    let mut slow = world.connect().await;
    let request = oura(OURA);
    slow.write_all(&request[..request.len() - 5]).await.expect("written");
    world.until(|metrics| metrics.body_bytes.get() > 0).await;
    world.stop.cancel();
    assert_eq!(world.served.await.expect("no panic"), Drained { cut_off: 1 });
    assert!(answer(&mut slow).await.is_none());
    assert_eq!(world.metrics.body_bytes.get(), 0);
}

#[tokio::test]
async fn the_ledger_and_the_log_agree() {
    let few = Settings { permits: 8, ack_ms_max: 300, ..settings() };
    let world = Arc::new(world(few).await);
    world.log.is(Mood::Changes);
    let mut senders = Vec::new();
    for sender in 0..16 {
        let world = Arc::clone(&world);
        senders.push(tokio::spawn(async move {
            let mut ledger = Vec::new();
            for at in 0..10 {
                let body = format!(r#"{{"user_id":"u-{sender}","n":{at}}}"#);
                let answered = world.call(&oura(body.as_bytes())).await;
                ledger.push((sha256_hex(body.as_bytes()), answered.status));
            }
            ledger
        }));
    }
    let mut ledger = Vec::new();
    for sender in senders {
        ledger.extend(sender.await.expect("no panic"));
    }
    let stored: Vec<_> = world
        .log
        .records()
        .iter()
        .map(|record| sha256_hex(record.value.as_deref().expect("a body")))
        .collect();
    let mut accepted = 0;
    for (sha256, status) in &ledger {
        let copies = stored.iter().filter(|known| *known == sha256).count();
        match status {
            200 => assert_eq!(copies, 1, "accepted and not there once"),
            503 => assert_eq!(copies, 0, "there and not accepted"),
            other => panic!("{other} to a good request"),
        }
        accepted += usize::from(*status == 200);
    }
    assert!(accepted > 0 && accepted < ledger.len(), "{accepted} of {}", ledger.len());
    assert_eq!(accepted, stored.len());
}
