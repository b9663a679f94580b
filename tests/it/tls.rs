//! TLS at the door: a certificate that changes while it runs, and handshakes that lead to nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use biometric_bridge::ingress::{Settings, tls};
use biometric_bridge::stream::clock::Stopwatch;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::door::{OURA, World, answer, oura, settings, world};

const SEQUENCE: u8 = 0x30;
const ECDSA_WITH_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
const PRIME256V1: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
const SUBJECT_ALT_NAME: &[u8] = b"\x06\x03\x55\x1d\x11";

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    match content.len() {
        0..=0x7f => [&[tag, length[1]], &content[..]].concat(),
        0x80..=0xff => [&[tag, 0x81, length[1]], &content[..]].concat(),
        _ => [&[tag, 0x82, length[0], length[1]], &content[..]].concat(),
    }
}

/// A certificate for `localhost` that signs itself, and its key; both are gone with the test.
struct Made {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

fn made(ends: &[u8; 13]) -> Made {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    let pkcs8 = pkcs8.expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref());
    let pair = pair.expect("the key");
    let algorithm = der(SEQUENCE, &[ECDSA_WITH_SHA256]);
    let common = der(SEQUENCE, &[COMMON_NAME, &der(0x0c, &[b"localhost"])]);
    let name = der(SEQUENCE, &[&der(0x31, &[&common])]);
    let validity = der(SEQUENCE, &[&der(0x17, &[b"240101000000Z"]), &der(0x17, &[ends])]);
    let public = der(0x03, &[&[0], pair.public_key().as_ref()]);
    let public = der(SEQUENCE, &[&der(SEQUENCE, &[EC_PUBLIC_KEY, PRIME256V1]), &public]);
    let names = der(0x04, &[&der(SEQUENCE, &[&der(0x82, &[b"localhost"])])]);
    let names = der(SEQUENCE, &[SUBJECT_ALT_NAME, &names]);
    let body = der(
        SEQUENCE,
        &[
            &[0xa0, 3, 2, 1, 2, 2, 1, 7],
            &algorithm,
            &name,
            &validity,
            &name,
            &public,
            &der(0xa3, &[&der(SEQUENCE, &[&names])]),
        ],
    );
    let signature = pair.sign(&SystemRandom::new(), &body).expect("signed");
    let signature = der(0x03, &[&[0], signature.as_ref()]);
    let certificate = der(SEQUENCE, &[&body, &algorithm, &signature]);
    Made { certificate: certificate.into(), key: pkcs8.as_ref().to_vec() }
}

const LATE: &[u8; 13] = b"491231235959Z";

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

/// A directory of a test's own, gone with it.
struct Files(PathBuf);

impl Files {
    fn of(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bridge-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    fn put(&self, made: &Made) {
        self.write("certificate", &pem("CERTIFICATE", &made.certificate));
        self.write("key", &pem("PRIVATE KEY", &made.key));
    }

    fn write(&self, name: &str, text: &str) {
        let (new, place) = (self.0.join("new"), self.path(name));
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, place).expect("moved into place");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn settings(&self) -> Settings {
        let usual = settings();
        let tls = tls::Settings {
            certificate_file: Some(self.path("certificate")),
            key_file: Some(self.path("key")),
            ..usual.tls
        };
        Settings { tls, head_ms_max: 20_000, ..usual }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(Path::new(&self.0)).ok();
    }
}

/// A client that trusts this one alone, and speaks these protocols.
async fn connect(
    world: &World,
    trusted: &Made,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = world.connect().await;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn is_served(stream: &mut TlsStream<TcpStream>) -> bool {
    stream.write_all(&oura(OURA)).await.expect("written");
    answer(stream).await.expect("an answer").status == 200
}

fn certificate_is(world: &World) -> i64 {
    let line = "bridge_dependency_up{dependency=\"certificate\"} ";
    let page = world.metrics.text();
    let value = page.lines().find_map(|known| known.strip_prefix(line));
    value.expect("it shows").parse().expect("a number")
}

#[tokio::test]
async fn another_certificate_is_taken_up_and_a_bad_one_is_not() {
    let (first, second, files) = (made(LATE), made(b"480101000000Z"), Files::of("reload"));
    files.put(&first);
    let world = world(files.settings()).await;
    let mut old = connect(&world, &first, &[b"http/1.1"]).await.expect("the first is in force");
    assert!(is_served(&mut old).await);
    assert!(connect(&world, &second, &[]).await.is_err(), "it is not there yet");
    assert_eq!(world.metrics.certificate_ends_seconds.get(), 2_524_607_999);

    files.put(&second);
    let watch = Stopwatch::start();
    let mut new = loop {
        match connect(&world, &second, &[]).await {
            Ok(stream) => break stream,
            Err(_) => assert!(watch.seconds() < 10.0, "it is never taken up"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(is_served(&mut new).await && is_served(&mut old).await, "the old connection lives on");
    assert!(connect(&world, &first, &[]).await.is_err(), "the first is not shown any more");
    world.until(|metrics| metrics.certificate_ends_seconds.get() == 2_461_449_600).await;

    for (broken, key) in [
        ("-----BEGIN CERTIFICATE-----\n".to_owned(), &second),
        (pem("CERTIFICATE", &second.certificate), &first),
        (pem("CERTIFICATE", &made(b"250101000000Z").certificate), &second),
    ] {
        files.write("key", &pem("PRIVATE KEY", &key.key));
        files.write("certificate", &broken);
        let watch = Stopwatch::start();
        while certificate_is(&world) == 1 {
            assert!(watch.seconds() < 10.0, "nobody says that it is broken");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut good = connect(&world, &second, &[]).await.expect("the good one stays in force");
        assert!(is_served(&mut good).await);
        files.put(&second);
        let watch = Stopwatch::start();
        while certificate_is(&world) == 0 {
            assert!(watch.seconds() < 10.0, "nobody says that it is good again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let ended = made(b"250101000000Z");
    files.put(&ended);
    let watch = Stopwatch::start();
    while certificate_is(&world) == 1 {
        assert!(watch.seconds() < 10.0, "one that has ended is no better than what there is");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connect(&world, &second, &[]).await.is_ok());
    drop((old, new));
    world.stop.cancel();
    world.served.await.expect("no panic");
}

#[tokio::test]
async fn a_handshake_that_leads_to_nothing_ends() {
    let (good, files) = (made(LATE), Files::of("handshake"));
    files.put(&good);
    let world = world(files.settings()).await;
    assert!(connect(&world, &good, &[b"h2"]).await.is_err(), "HTTP/1.1 and nothing else");
    let mut plain = world.connect().await;
    plain.write_all(&oura(OURA)).await.expect("written");
    let mut rest = Vec::new();
    plain.read_to_end(&mut rest).await.ok();
    assert!(!rest.starts_with(b"HTTP"), "no answer without TLS");
    let watch = Stopwatch::start();
    let mut silent = world.connect().await;
    assert_eq!(silent.read(&mut [0; 1]).await.ok(), Some(0), "closed at the deadline");
    assert!((0.25..2.0).contains(&watch.seconds()), "{}", watch.seconds());
    world.until(|metrics| metrics.handshakes.get() == 0).await;
    assert_eq!(world.errors("request_refused"), 3);
    let mut stream = connect(&world, &good, &[]).await.expect("a good one");
    assert!(is_served(&mut stream).await);
    drop(stream);
    world.settle().await;
}

#[tokio::test]
async fn silent_handshakes_harm_nobody() {
    let (good, files) = (made(LATE), Files::of("silent"));
    files.put(&good);
    let mut few = files.settings();
    few.tls = tls::Settings {
        handshakes_max: 8,
        handshakes_per_peer_max: 8,
        handshake_ms_max: 60_000,
        ..few.tls
    };
    let world = world(few).await;
    let mut crowd = Vec::new();
    for at in 0..200 {
        crowd.push(world.connect().await);
        if at % 50 == 0 {
            let watch = Stopwatch::start();
            let mut stream = connect(&world, &good, &[]).await.expect("there is room");
            assert!(is_served(&mut stream).await);
            assert!(watch.seconds() < 2.0, "{}", watch.seconds());
        }
    }
    assert!(world.metrics.handshakes.get() <= 8);
    world.until(|metrics| metrics.connections.get() <= 9).await;
}
