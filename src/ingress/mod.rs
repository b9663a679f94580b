//! The door for webhooks: a 2xx means that every in-sync replica has the bytes, and nothing else
//! does.
//!
//! A vendor sends again what was not answered 2xx, and forgets what was. So there is no queue
//! between the answer and the log, and everything that is not the sender's fault is a 503 with
//! `Retry-After`: never a 4xx, which some vendors do not repeat, and never a 410, which ends an
//! Oura subscription.
//!
//! A request goes through the files in this order; what a step refuses costs nothing of the next:
//!
//! | step | file | bound |
//! | --- | --- | --- |
//! | a connection | `admit.rs` | in all and per peer; who has been receiving longest makes room |
//! | TLS, where there is a certificate | `tls.rs` | a deadline; handshakes in all and per peer |
//! | method, path, form | `route.rs` | the head's bytes and deadline |
//! | a page of another origin | `cors.rs` | only origins that are listed |
//! | how often | `limit.rs` | a rate of the vendor's and of a peer's, where configured |
//! | the body | `accept.rs` | the vendor's cap, bytes in flight, a deadline |
//! | a permit | `admit.rs` | 1..=1000; as many wait as there are, at most 0.4 s, less while it lasts |
//! | whose it is | [`crate::vendors`] | over the raw bytes; the body is not parsed before |
//! | the log | `accept.rs` | acknowledged within 1.5 s, so that the answer is there within 2 s |
//! | the answer | `reply.rs` | constant bodies; `wire.rs` closes on who does not take it |
//!
//! A sender that is slow holds a connection and the bytes that it sent, never a permit.

mod accept;
mod admit;
mod certificate;
pub mod cors;
mod desk;
mod hatch;
mod keyset;
mod limit;
mod reply;
mod route;
mod server;
pub mod tls;
mod trace;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

pub use hatch::Hatch;
pub use keyset::Shelf;
pub use limit::Rate;
pub use server::{Drained, serve};

use crate::vendors::find;

/// The limits of the door. Defaults stand in `config.default.toml`, with their reasons.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The address that the door listens on.
    pub address: SocketAddr,
    /// How many requests are verified and written at once, 1..=1000; as many more may wait.
    pub permits: usize,
    /// The longest wait for a permit, ms. With `ack_ms_max` it must stay below 2000.
    pub permit_wait_ms_max: u64,
    /// How long the log may take to acknowledge, ms.
    pub ack_ms_max: u64,
    /// How long a request's head may take, ms; an idle connection is closed after the same time.
    pub head_ms_max: u64,
    /// The largest head of a request, bytes.
    pub head_bytes_max: usize,
    /// How long a body may take from the end of its head, ms.
    pub body_ms_max: u64,
    /// Bytes of bodies in flight, from their first byte to the answer.
    pub body_bytes_in_flight_max: usize,
    /// How long a sender may take none of our answer, ms.
    pub answer_ms_max: u64,
    /// Open connections in all.
    pub connections_max: usize,
    /// Open connections of one peer (an IPv4 address, an IPv6 /64). Behind a proxy: as many as in
    /// all.
    pub connections_per_peer_max: usize,
    /// How long a stop waits for what is in flight, ms.
    pub drain_ms_max: u64,
    /// What `Retry-After` says with a 503, s.
    pub retry_after_s: u32,
    /// Its certificate.
    pub tls: tls::Settings,
    /// Pages of other origins.
    pub cors: cors::Settings,
}

/// A request must be answered within this time of its complete body, ms: Withings gives no more.
const ANSWER_MS_MAX: u64 = 2_000;
/// Limits of a head: from the smallest that hyper takes to the size of the read buffer that bodies
/// come through.
const HEAD_BYTES: std::ops::RangeInclusive<usize> = 8 * 1024..=accept::BODY_STEP_BYTES;

impl Settings {
    /// What cannot work, each with its key and what is allowed; relations included.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut must = |holds: bool, problem: &str| {
            if !holds {
                found.push(problem.to_owned());
            }
        };
        must((1..=1_000).contains(&self.permits), "ingress.permits: 1 to 1000");
        must(
            self.permit_wait_ms_max.saturating_add(self.ack_ms_max) < ANSWER_MS_MAX,
            "ingress.permit_wait_ms_max + ingress.ack_ms_max: below 2000, the fastest vendor's limit",
        );
        must(self.ack_ms_max > 0, "ingress.ack_ms_max: above 0");
        must(self.head_ms_max > 0, "ingress.head_ms_max: above 0");
        must(self.body_ms_max > 0, "ingress.body_ms_max: above 0");
        must(self.answer_ms_max > 0, "ingress.answer_ms_max: above 0");
        must(HEAD_BYTES.contains(&self.head_bytes_max), "ingress.head_bytes_max: 8192 to 16384");
        let largest = crate::vendors::ALL.iter().map(|vendor| vendor.body_bytes_max()).max();
        must(
            self.body_bytes_in_flight_max >= largest.unwrap_or(0),
            "ingress.body_bytes_in_flight_max: at least the largest body of a vendor",
        );
        must(
            self.connections_max > self.permits.saturating_mul(2),
            "ingress.connections_max: more than twice ingress.permits",
        );
        must(
            (1..=self.connections_max).contains(&self.connections_per_peer_max),
            "ingress.connections_per_peer_max: 1 to ingress.connections_max",
        );
        found.extend(self.tls.problems());
        found.extend(self.cors.problems());
        found
    }
}

/// The secrets of the door. A vendor that is not here is not served.
#[derive(Clone, Debug)]
pub struct Keys {
    /// What pseudonyms of vendors' users are made with.
    pub pseudonym: SecretString,
    /// By the vendor's name.
    pub vendors: BTreeMap<String, VendorKeys>,
}

/// A vendor's live secrets, and how often it may come.
#[derive(Clone, Debug, Default)]
pub struct VendorKeys {
    /// The keys that verify requests: one, or two while one is being changed for the other.
    pub signing: Vec<SecretString>,
    /// The token of a handshake.
    pub handshake: Option<SecretString>,
    /// How many of its requests are taken in a time; absent: all.
    pub rate_max: Option<Rate>,
    /// How many of one peer's.
    pub rate_per_peer_max: Option<Rate>,
    /// The public keys of a vendor that signs with one of its own; while there are none its requests are answered 503.
    pub keyset: Shelf,
}

/// The fewest bytes of a secret, as Standard Webhooks asks for; a vendor that makes the secret may
/// make it shorter.
pub const PSEUDONYM_KEY_BYTES_MIN: usize = 16;

/// What a secret at the end of a path may be.
const SECRET_PATH: &str = "24 to 128 letters, digits, - and _: it stands at the end of a path";

fn is_path(secret: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (24..=128).contains(&secret.len()) && secret.bytes().all(plain)
}

impl Keys {
    /// What cannot work, each with its key; never a value.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.pseudonym.expose_secret().len() < PSEUDONYM_KEY_BYTES_MIN {
            found.push("secrets.pseudonym_key: at least 16 bytes".to_owned());
        }
        for (name, keys) in &self.vendors {
            if find(name).is_none() {
                found.push(format!("vendors.{name}: not a vendor that we know"));
            }
            let live = 1..=2;
            let set = keys.signing.iter().all(|secret| !secret.expose_secret().is_empty());
            if !live.contains(&keys.signing.len()) || !set {
                found.push(format!("vendors.{name}: one signing secret, or two in a change"));
            }
            let in_path = find(name).is_some_and(|vendor| vendor.secret_path());
            if in_path && !keys.signing.iter().all(|secret| is_path(secret.expose_secret())) {
                found.push(format!("vendors.{name}.signing_secret: {SECRET_PATH}"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn settings() -> Settings {
        Settings {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            permits: 100,
            permit_wait_ms_max: 400,
            ack_ms_max: 1_500,
            head_ms_max: 5_000,
            head_bytes_max: 16_384,
            body_ms_max: 10_000,
            body_bytes_in_flight_max: 256 * 1024 * 1024,
            answer_ms_max: 5_000,
            connections_max: 8_192,
            connections_per_peer_max: 2_048,
            drain_ms_max: 10_000,
            retry_after_s: 5,
            tls: tls::tests::settings(),
            cors: cors::tests::settings(),
        }
    }

    pub(super) fn keys() -> Keys {
        Keys { pseudonym: "not-a-secret-test-key".into(), vendors: BTreeMap::new() }
    }

    #[test]
    fn every_problem_is_named_at_once() {
        assert_eq!(settings().problems(), Vec::<String>::new());
        let bad = Settings {
            permits: 0,
            ack_ms_max: 1_600,
            head_bytes_max: 100,
            connections_per_peer_max: 0,
            ..settings()
        };
        assert_eq!(bad.problems().len(), 4, "{:?}", bad.problems());
        let crowded = Settings { permits: 1_000, connections_max: 2_000, ..settings() };
        assert_eq!(crowded.problems().len(), 2, "{:?}", crowded.problems());
    }

    #[test]
    fn a_missing_secret_is_a_problem_and_no_text_has_it() {
        let keys = Keys {
            pseudonym: "short".into(),
            vendors: BTreeMap::from([
                (
                    "nobody".to_owned(),
                    VendorKeys { signing: vec!["a-key".into()], ..VendorKeys::default() },
                ),
                (
                    "oura".to_owned(),
                    VendorKeys { signing: vec!["".into()], ..VendorKeys::default() },
                ),
                (
                    "garmin".to_owned(),
                    VendorKeys { signing: vec!["a-path/short".into()], ..VendorKeys::default() },
                ),
            ]),
        };
        assert_eq!(keys.problems().len(), 4, "{:?}", keys.problems());
        assert!(!format!("{keys:?}{:?}", keys.problems()).contains("short"));
    }
}
