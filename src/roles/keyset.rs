//! The public keys of vendors that sign with keys of their own: read from a file or asked for, and put where the door
//! verifies with them.
//!
//! # Why here
//! Whether a request is a vendor's is decided at the door, which has no client; what has a client is the hydrator, which
//! strangers do not reach. So neither knows the other: this hands what the one can fetch to the other.
//!
//! A vendor changes its keys by publishing the next one before it signs with it, so a set is asked for once an hour. One
//! that cannot be had leaves the last one in force for a week; then, and before there was any, nothing can be verified,
//! and the door answers 503: the vendor sends again.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, is_address};
use crate::error::Result;
use crate::hydrator::fetch::Fetcher;
use crate::ingress::{Keys, Shelf};
use crate::stream::clock::Stopwatch;
use crate::telemetry::metrics::Metrics;
use crate::vendors::ask::Api;
use crate::vendors::wire::tink::Keyset;

/// How often a file is read.
const LOOK: Duration = Duration::from_secs(10);
/// How often an address is asked; Google's answer may be kept for a day.
const ASK: Duration = Duration::from_secs(3_600);
/// How soon after a failure.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a set is used that cannot be had anew.
const STALE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The largest file that is taken for a keyset, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Keeps the keysets of all vendors that the door serves and that have one, until `stop`.
///
/// # Errors
/// Where the client for vendors' addresses cannot be made.
pub(super) async fn keep(
    config: &Config,
    keys: &Keys,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<()> {
    let fetcher = Fetcher::new(config.hydrator.limits())?;
    let mut keepers = JoinSet::new();
    for (name, keys) in &keys.vendors {
        let Some(vendor) = crate::vendors::find(name) else { continue };
        let (Some(own), Some(api)) = (vendor.keyset(), vendor.api()) else { continue };
        let configured = config.vendors.get(name).and_then(|section| section.keyset.clone());
        let named = configured.unwrap_or_else(|| own.to_owned());
        let place = if is_address(&named) {
            Place::Address(named, api, fetcher.clone())
        } else {
            Place::File(named.into())
        };
        let (shelf, metrics, stop) = (keys.keyset.clone(), metrics.clone(), stop.clone());
        keepers.spawn(async move {
            let mut keeper = Keeper { vendor: vendor.name(), place, shelf, good: None, told: None };
            while !stop.is_cancelled() {
                let pause = keeper.round(&metrics).await;
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }
    keepers.join_all().await;
    Ok(())
}

/// Where a keyset is.
enum Place {
    File(PathBuf),
    Address(String, &'static dyn Api, Fetcher),
}

impl Place {
    async fn read(&self) -> std::result::Result<Bytes, &'static str> {
        match self {
            Self::File(path) => {
                let unread = |_text| "its file cannot be read";
                let known = tokio::fs::metadata(path).await.map_err(unread)?;
                if known.len() > FILE_BYTES_MAX {
                    return Err("its file is larger than 1 MiB");
                }
                tokio::fs::read(path).await.map(Bytes::from).map_err(unread)
            }
            Self::Address(address, api, fetcher) => {
                let fetched = fetcher.open_link(*api, address).await;
                fetched.document.map(|(_type, body)| body).ok_or(fetched.outcome.name())
            }
        }
    }

    const fn pause(&self) -> Duration {
        match self {
            Self::File(_) => LOOK,
            Self::Address(..) => ASK,
        }
    }
}

/// One vendor's keyset.
struct Keeper {
    vendor: &'static str,
    place: Place,
    shelf: Shelf,
    /// Since when the set that is in force is known to be the vendor's.
    good: Option<Stopwatch>,
    /// What was said of it last: a state is told when it begins.
    told: Option<&'static str>,
}

impl Keeper {
    /// Reads it once; gives how long to wait.
    async fn round(&mut self, metrics: &Metrics) -> Duration {
        let read = self.place.read().await;
        let read = read.and_then(|body| Keyset::parse(&body).map_err(|reject| reject.why));
        metrics.up.set("keyset", i64::from(read.is_ok()));
        let (pause, tell) = match read {
            Ok(keyset) => {
                if self.shelf.get().as_deref() != Some(&keyset) {
                    self.shelf.put(Some(keyset));
                    tracing::info!(vendor = self.vendor, "a vendor's public keys are in force");
                }
                self.good = Some(Stopwatch::start());
                (self.place.pause(), None)
            }
            Err(what) => {
                if self.good.as_ref().is_none_or(|good| good.elapsed() > STALE_MAX) {
                    self.shelf.put(None);
                }
                (self.place.pause().min(AGAIN), Some(what))
            }
        };
        if let Some(what) = tell.filter(|_| tell != self.told) {
            let verified = self.shelf.get().is_some();
            tracing::error!(vendor = self.vendor, what, verified, "a vendor's public keys");
        }
        self.told = tell;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::signer::Signer;

    #[tokio::test]
    async fn a_file_is_read_again_and_what_is_no_keyset_leaves_the_last_in_force() {
        let path = std::env::temp_dir().join(format!("keyset-{}.json", std::process::id()));
        let (shelf, metrics) = (Shelf::default(), Metrics::new());
        let mut keeper = Keeper {
            vendor: "google",
            place: Place::File(path.clone()),
            shelf: shelf.clone(),
            good: None,
            told: None,
        };
        let (first, second) = (Signer::new(1).expect("a key"), Signer::new(2).expect("a key"));
        let verifies = |signer: &Signer| {
            let signature = signer.sign(b"{}").expect("a signature");
            shelf.get().is_some_and(|keyset| keyset.verifies(b"{}", &signature))
        };
        assert_eq!(keeper.round(&metrics).await, LOOK);
        assert!(shelf.get().is_none(), "no file, no keys");
        for (text, now) in [(first.keyset(), [true, false]), (second.keyset(), [false, true])] {
            std::fs::write(&path, text).expect("a file");
            assert_eq!(keeper.round(&metrics).await, LOOK);
            assert_eq!([verifies(&first), verifies(&second)], now);
        }
        for text in ["", "{}", r#"{"key":[]}"#] {
            std::fs::write(&path, text).expect("a file");
            keeper.round(&metrics).await;
            assert!(verifies(&second), "{text}: the last one stays");
        }
        std::fs::remove_file(&path).expect("a file");
        keeper.round(&metrics).await;
        assert!(verifies(&second));
    }
}
