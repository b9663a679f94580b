//! TLS at the door: 1.3 or 1.2, HTTP/1.1 only, and a certificate that can be changed while it runs.
//!
//! The two files are looked at every few seconds: their time, length and place say whether they are
//! other ones. That works for a file that is written anew, for one that is moved into place and for
//! the links of a mounted secret, where a watch of the kernel's would have to know which of these it
//! is. What was accepted before lives on; the next handshake has the new certificate.
//!
//! A pair that cannot be used (a key of another certificate, half a file, one that has ended) does
//! not touch the one in force: it is told once and shows as `dependency_up{dependency="certificate"}`
//! 0 until the files are a pair again. During a change the first file is new before the second is:
//! so what does not fit is only believed when it is the same at the next look.
//!
//! A handshake is what costs a stranger least and us most. So it has a deadline, and slots of its own
//! in all and per peer: where they are used up, whoever has been at it for longest makes room.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::IntGauge;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::ingress::admit::{Guest, Guests};
use crate::ingress::certificate::not_after_s;
use crate::stream::clock::now_us;
use crate::telemetry::family::Seldom;
use crate::telemetry::metrics::Metrics;

/// `[ingress.tls]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// PEM: the certificate, then those that lead to a root. Absent: the door speaks plain HTTP.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// PEM: its key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// How long a handshake may take, ms.
    pub handshake_ms_max: u64,
    /// Handshakes at once, in all.
    pub handshakes_max: usize,
    /// Handshakes at once of one peer. Behind a proxy: as many as in all.
    pub handshakes_per_peer_max: usize,
    /// How often the files are looked at, s.
    pub look_s: u64,
}

impl Settings {
    /// What cannot work, each with its key and what is allowed. Reads the files.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut must = |holds: bool, problem: &str| {
            if !holds {
                found.push(problem.to_owned());
            }
        };
        must(self.handshake_ms_max > 0, "ingress.tls.handshake_ms_max: above 0");
        must(self.handshakes_max > 0, "ingress.tls.handshakes_max: above 0");
        must(
            (1..=self.handshakes_max).contains(&self.handshakes_per_peer_max),
            "ingress.tls.handshakes_per_peer_max: 1 to ingress.tls.handshakes_max",
        );
        must((1..=3_600).contains(&self.look_s), "ingress.tls.look_s: 1 to 3600");
        match (&self.certificate_file, &self.key_file) {
            (None, None) => {}
            (Some(_), None) => must(false, "ingress.tls.key_file: set, with a certificate"),
            (None, Some(_)) => must(false, "ingress.tls.certificate_file: set, with a key"),
            (Some(certificate), Some(key)) => {
                // A file that cannot be read is a problem of its own by now.
                let readable = [certificate, key].into_iter().all(|file| file.is_file());
                if readable && let Err(what) = Pair::read(certificate, key) {
                    must(false, &format!("ingress.tls.certificate_file: {what}"));
                }
            }
        }
        found
    }
}

/// A certificate with its key, and when it ends.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    ends_s: i64,
}

impl Pair {
    /// The pair of these files, or why they are none: words of ours, nothing of the files.
    fn read(certificate: &Path, key: &Path) -> std::result::Result<Self, &'static str> {
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(|_| "a PEM file of certificates")?;
        let first = chain.first().ok_or("a PEM file of certificates")?;
        let ends_s = not_after_s(first).ok_or("a certificate that can be read")?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|_| "beside a PEM file of its key")?;
        let key = CertifiedKey::from_der(chain, key, &default_provider())
            .map_err(|_| "the certificate of the key in ingress.tls.key_file")?;
        Ok(Self { key: Arc::new(key), ends_s })
    }
}

/// The pair in force.
#[derive(Debug)]
struct Shelf(RwLock<Pair>);

impl ResolvesServerCert for Shelf {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// What tells a file from the one that stood there before: when it was written (s, ns), its length,
/// its place.
type Stamp = [Option<(i64, i64, u64, u64)>; 2];

/// The lock of the door.
pub(super) struct Lock {
    settings: Settings,
    acceptor: TlsAcceptor,
    shelf: Arc<Shelf>,
    shaking: Arc<Guests>,
    ends: IntGauge,
    up: Seldom,
}

impl Lock {
    /// The lock of these settings, which have no problems; absent where there is no certificate.
    pub(super) fn new(settings: &Settings, metrics: &Metrics) -> Result<Option<Self>> {
        let doing = "read ingress.tls.certificate_file";
        let (Some(certificate), Some(key)) = (&settings.certificate_file, &settings.key_file)
        else {
            return Ok(None);
        };
        let wrong = |what: &str| Error::new(Kind::ValidationError, doing, what);
        let shelf = Arc::new(Shelf(RwLock::new(Pair::read(certificate, key).map_err(wrong)?)));
        let resolver = Arc::clone(&shelf);
        let mut config = ServerConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|_| Error::internal("set up TLS"))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (all, per_peer) = (settings.handshakes_max, settings.handshakes_per_peer_max);
        let lock = Self {
            settings: settings.clone(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            shelf,
            shaking: Guests::new(all, per_peer, metrics.handshakes.clone()),
            ends: metrics.certificate_ends_seconds.clone(),
            up: metrics.up.clone(),
        };
        lock.show(true);
        Ok(Some(lock))
    }

    /// Shakes hands with who has just come in; absent where that came to nothing.
    pub(super) async fn shake(
        &self,
        stream: TcpStream,
        guest: &Guest,
    ) -> Option<io::Result<TlsStream<TcpStream>>> {
        let place = self.shaking.enter(guest.peer())?;
        let limit = Duration::from_millis(self.settings.handshake_ms_max);
        let shaken = tokio::select! {
            biased;
            shaken = tokio::time::timeout(limit, self.acceptor.accept(stream)) => shaken,
            () = place.sent_away() => return None,
            () = guest.sent_away() => return None,
        };
        Some(shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
    }

    /// Looks at the files until `stop`.
    pub(super) async fn watch(&self, stop: CancellationToken) {
        let pause = Duration::from_secs(self.settings.look_s);
        let (mut known, mut doubted) = (self.stamp().await, None);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let now = self.stamp().await;
            if now == known {
                continue;
            }
            match self.reread() {
                Ok(()) => {
                    (known, doubted) = (now, None);
                    tracing::info!("another certificate is in force");
                    self.show(true);
                }
                Err(what) if doubted == Some(now) => {
                    // Told once: what stands there now is known, and is no pair.
                    known = now;
                    tracing::error!(
                        what,
                        "the certificate's files are no pair; it stays as it was"
                    );
                    self.show(false);
                }
                Err(_) => doubted = Some(now),
            }
        }
    }

    /// Takes what the files say, if it is a pair that is better than what there is.
    fn reread(&self) -> std::result::Result<(), &'static str> {
        let (Some(certificate), Some(key)) =
            (&self.settings.certificate_file, &self.settings.key_file)
        else {
            return Ok(());
        };
        let new = Pair::read(certificate, key)?;
        let mut place = self.shelf.0.write().unwrap_or_else(PoisonError::into_inner);
        let now_s = now_us() / 1_000_000;
        if new.ends_s <= now_s && new.ends_s <= place.ends_s {
            return Err("a certificate that has not ended");
        }
        *place = new;
        Ok(())
    }

    fn show(&self, good: bool) {
        self.ends.set(self.shelf.0.read().unwrap_or_else(PoisonError::into_inner).ends_s);
        self.up.set("certificate", i64::from(good));
    }

    async fn stamp(&self) -> Stamp {
        let files = [&self.settings.certificate_file, &self.settings.key_file];
        let mut stamp = [None; 2];
        for (place, file) in stamp.iter_mut().zip(files.into_iter().flatten()) {
            *place = stamp_of(file).await;
        }
        stamp
    }
}

async fn stamp_of(file: &Path) -> Option<(i64, i64, u64, u64)> {
    let now = tokio::fs::metadata(file).await.ok()?;
    Some((now.mtime(), now.mtime_nsec(), now.len(), now.ino()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::ingress) fn settings() -> Settings {
        Settings {
            certificate_file: None,
            key_file: None,
            handshake_ms_max: 5_000,
            handshakes_max: 512,
            handshakes_per_peer_max: 512,
            look_s: 10,
        }
    }

    #[test]
    fn both_files_or_none() {
        assert_eq!(settings().problems(), Vec::<String>::new());
        let file = || Some(PathBuf::from("Cargo.toml"));
        for (certificate_file, key_file) in [(file(), None), (None, file()), (file(), file())] {
            let problems = Settings { certificate_file, key_file, ..settings() }.problems();
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
        let bad =
            Settings { handshake_ms_max: 0, handshakes_per_peer_max: 513, look_s: 0, ..settings() };
        assert_eq!(bad.problems().len(), 3, "{:?}", bad.problems());
    }
}
