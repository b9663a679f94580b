//! A vendor's desk: what the door needs for each of its requests, made once.
//!
//! A request of 2 KB costs some 15 µs, so what is the same for all of a vendor's requests is not
//! made again for each: keys are prepared, counters are looked up, limits are set up here.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};
use secrecy::{ExposeSecret as _, SecretString};

use crate::ingress::limit::Gate;
use crate::ingress::{Keys, Shelf};
use crate::telemetry::metrics::Metrics;
use crate::vendors::wire::hmac::Key;
use crate::vendors::wire::tink::Keyset;
use crate::vendors::{Secrets, Vendor, find};

/// A vendor that is served here.
pub(super) struct Desk {
    pub(super) vendor: &'static dyn Vendor,
    signing: Vec<Key>,
    handshake: Option<SecretString>,
    /// What may stand behind its name in a path, where it signs nothing.
    secret_paths: Vec<SecretString>,
    /// Its public keys, where it signs with one of its own.
    pub(super) keyset: Shelf,
    /// How many of its requests are taken in a time.
    pub(super) gate: Gate,
    accepted: IntCounter,
    seconds: Histogram,
}

impl Desk {
    /// As the vendor's file is given them, with these public keys.
    pub(super) fn secrets<'a>(&'a self, keyset: Option<&'a Keyset>) -> Secrets<'a> {
        Secrets {
            signing: &self.signing,
            handshake: self.handshake.as_ref().map(|token| token.expose_secret().as_bytes()),
            keyset,
        }
    }

    /// Whether its path may end like this; compared in constant time, because the end of a path can
    /// be all that its sender knows.
    pub(super) fn takes(&self, secret: Option<&str>) -> bool {
        match secret {
            None => !self.vendor.secret_path(),
            Some(given) => self.secret_paths.iter().any(|live| {
                let live = live.expose_secret().as_bytes();
                bool::from(subtle::ConstantTimeEq::ct_eq(live, given.as_bytes()))
            }),
        }
    }

    /// Counts an answer by its status and how long it took.
    pub(super) fn count(&self, status: http::StatusCode, took: Duration, metrics: &Metrics) {
        if status.as_u16() == self.vendor.accepted() {
            self.accepted.inc();
        } else {
            metrics.requests.at([self.vendor.name(), status.as_str()]).inc();
        }
        self.seconds.observe(took.as_secs_f64());
    }
}

/// All of them. There are few, so they are looked through.
pub(super) struct Desks(Vec<Desk>);

impl Desks {
    /// The desks of the vendors that have keys.
    pub(super) fn new(keys: &Keys, metrics: &Metrics) -> Self {
        let desk = |(name, keys): (&String, &crate::ingress::VendorKeys)| {
            let vendor = find(name)?;
            let accepted = vendor.accepted().to_string();
            Some(Desk {
                vendor,
                signing: keys
                    .signing
                    .iter()
                    .map(|key| Key::new(key.expose_secret().as_bytes()))
                    .collect(),
                handshake: keys.handshake.clone(),
                secret_paths: if vendor.secret_path() { keys.signing.clone() } else { Vec::new() },
                keyset: keys.keyset.clone(),
                gate: Gate::new(keys.rate_max, keys.rate_per_peer_max),
                accepted: metrics.requests.at([vendor.name(), &accepted]).clone(),
                seconds: metrics.request_seconds.at([vendor.name()]).clone(),
            })
        };
        Self(keys.vendors.iter().filter_map(desk).collect())
    }

    /// The desk of this vendor.
    pub(super) fn find(&self, name: &str) -> Option<&Desk> {
        self.0.iter().find(|desk| desk.vendor.name() == name)
    }
}
