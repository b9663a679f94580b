//! Whose token a call is made with, and how another one is had: once, whoever wants it, and never lost silently.
//!
//! # One renewal
//! Most vendors' refresh tokens are good for one exchange: the old one is dead at once, and of two who exchange it the
//! loser sees a refusal that looks like consent withdrawn. So a renewal is leased in the vault: one worker of all
//! replicas exchanges, the others wait and read again what it stored. Within a process they do not even ask: they wait
//! in a room together. A refusal counts only after the vault was read once more and still holds what was refused.
//!
//! # Stored before it is used
//! The new pair is stored before anybody is given it. If we die between the vendor's answer and the store, the pair is
//! lost; the next one exchanges the old refresh token after the lease, is refused, and the connection ends as
//! `reauth_required`: said, not silent. Only a vendor's grace for old tokens could make that zero.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::error::{Error, Kind, Result};
use crate::hydrator::fetch::{Base, Exchanged, Fetcher};
use crate::model::id::ConnectionId;
use crate::stream::hydration::{Pair, Stored, Vault};
use crate::telemetry::metrics::Metrics;
use crate::vendors::ask::Manner;

/// What a call is made with.
#[derive(Clone, Debug)]
pub struct Token {
    /// The access token.
    pub access: SecretString,
    /// Which of the connection's it is: what [`Tokens::renew`] is told was refused.
    pub version: i64,
}

/// What a connection has.
#[derive(Clone, Debug)]
pub enum Grant {
    /// A token.
    Token(Token),
    /// None, for this reason; only the person's consent gives one.
    None(&'static str),
}

/// The tokens of connections.
pub trait Tokens: Send + Sync + 'static {
    /// A token that is not known to be dead.
    fn access(
        &self,
        vendor: &str,
        connection: ConnectionId,
    ) -> impl Future<Output = Result<Grant>> + Send;

    /// Another one than the one of this version, which the vendor did not take.
    fn renew(
        &self,
        vendor: &str,
        connection: ConnectionId,
        refused: i64,
    ) -> impl Future<Output = Result<Grant>> + Send;

    /// The vendor refused a record although it took the token: consent does not cover all. It is noted, and what it
    /// does cover is fetched on.
    fn limited(&self, connection: ConnectionId) -> impl Future<Output = Result<()>> + Send;
}

/// What a vendor knows us by that is asked with the app's own key ([`crate::vendors::ask::With::Key`]).
#[derive(Clone, Debug)]
pub struct Key {
    /// Our id.
    pub id: String,
    /// Our secret.
    pub secret: SecretString,
}

/// What a vendor knows us by, where tokens are renewed.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where.
    pub url: Base,
    /// The scope that is asked for again.
    pub scope: Option<&'static str>,
    /// Our id.
    pub id: String,
    /// Our secret.
    pub secret: SecretString,
    /// How it is asked there, and answers.
    pub manner: Manner,
}

/// The tokens of a vault, renewed where a vendor has that.
#[derive(Debug)]
pub struct Keyring<V> {
    vault: V,
    fetcher: Fetcher,
    clients: BTreeMap<String, Client>,
    metrics: Metrics,
    speed: u32,
    rooms: [Mutex<()>; ROOMS],
}

/// Rooms to wait in; two connections may share one.
const ROOMS: usize = 64;
/// How long a renewal may take before another worker may try: longer than any exchange and its store.
const LEASE: Duration = Duration::from_secs(60);
/// How often a worker that waits for another one's renewal looks.
const LOOK: Duration = Duration::from_millis(250);
/// How often it looks before the record is tried later.
const LOOKS: u32 = 40;
/// How often a pair that is had is tried to be stored, and how far apart: it exists nowhere else.
const STORES: u32 = 8;
const STORE_PAUSE: Duration = Duration::from_secs(1);

const NO_TOKEN: &str = "no token: the connection has to be made anew";
const REAUTH: &str = "reauth_required: the person has to consent anew";

/// What a record was given up for that another pair of tokens mends.
pub const MENDED: [&str; 3] = [NO_TOKEN, REAUTH, super::plan::NOT_TAKEN];

impl<V: Vault> Keyring<V> {
    /// The tokens of this vault. A vendor that has no client here has tokens that are used as long as they live. What a
    /// vendor says of a token's life passes `speed` times as fast (`hydrator.speed`).
    pub fn new(
        vault: V,
        fetcher: Fetcher,
        clients: BTreeMap<String, Client>,
        metrics: Metrics,
        speed: u32,
    ) -> Self {
        let rooms = std::array::from_fn(|_| Mutex::new(()));
        Self { vault, fetcher, clients, metrics, speed: speed.max(1), rooms }
    }

    fn count(&self, vendor: &str, outcome: &str) {
        self.metrics.renewals.at([vendor, outcome]).inc();
    }

    fn room(&self, connection: ConnectionId) -> &Mutex<()> {
        let place = usize::from(connection.0.as_bytes().last().copied().unwrap_or(0)) % ROOMS;
        let [first, ..] = &self.rooms;
        self.rooms.get(place).unwrap_or(first)
    }

    /// Exchanges the refresh token of what is stored, whose renewal this worker has leased.
    async fn exchange(
        &self,
        vendor: &str,
        client: &Client,
        connection: ConnectionId,
        stored: &Stored,
    ) -> Result<Grant> {
        let Some(refresh) = &stored.pair.refresh else {
            self.vault.end_renewal(connection, stored.version, true).await?;
            return Ok(Grant::None(REAUTH));
        };
        match self.fetcher.exchange(client, refresh).await {
            Exchanged::Pair { pair, lives } => {
                // A vendor that does not rotate gives no refresh token back: the old one stays.
                let refresh = pair.refresh.or_else(|| Some(refresh.clone()));
                let pair = Pair { refresh, ..pair };
                let lives = lives.map(|lives| lives / self.speed);
                self.keep(vendor, connection, stored.version, pair, lives).await
            }
            Exchanged::Refused => match self.vault.read(connection).await? {
                Some(now) if now.version != stored.version => Ok(granted(now)),
                _ => {
                    self.vault.end_renewal(connection, stored.version, true).await?;
                    self.count(vendor, "refused");
                    tracing::warn!(vendor, %connection, "a refresh token is refused");
                    Ok(Grant::None(REAUTH))
                }
            },
            Exchanged::Failed(outcome) => {
                self.vault.end_renewal(connection, stored.version, false).await?;
                self.count(vendor, "failed");
                Err(Error::new(Kind::WearableApiError, "renew a token", outcome.name()))
            }
        }
    }

    /// Stores a pair, before anybody is given it.
    async fn keep(
        &self,
        vendor: &str,
        connection: ConnectionId,
        instead_of: i64,
        pair: Pair,
        lives: Option<Duration>,
    ) -> Result<Grant> {
        let mut last = Error::internal("store tokens");
        for _ in 0..STORES {
            match self.vault.store(vendor, connection, instead_of, &pair, lives).await {
                // Where another pair stands there by now, that one counts.
                Ok(_stored) => {
                    self.count(vendor, "renewed");
                    let now = self.vault.read(connection).await?;
                    return Ok(now.map_or(Grant::None(NO_TOKEN), granted));
                }
                Err(error) => last = error,
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
        tracing::error!(vendor, %connection, code = %last.code, "a new pair of tokens is lost");
        Err(last)
    }
}

impl<V: Vault> Tokens for Keyring<V> {
    async fn access(&self, vendor: &str, connection: ConnectionId) -> Result<Grant> {
        let Some(stored) = self.vault.read(connection).await? else {
            return Ok(Grant::None(NO_TOKEN));
        };
        if stored.reauth_required
            || !self.clients.contains_key(vendor)
            || !is_due(&stored, connection)
        {
            return Ok(granted(stored));
        }
        let (version, alive) = (stored.version, left(&stored).is_none_or(|left| !left.is_zero()));
        match self.renew(vendor, connection, version).await {
            // What still lives is used; the next call tries to renew it again.
            Err(_error) if alive => Ok(granted(stored)),
            renewed => renewed,
        }
    }

    async fn renew(&self, vendor: &str, connection: ConnectionId, refused: i64) -> Result<Grant> {
        let _alone = self.room(connection).lock().await;
        for _ in 0..LOOKS {
            let Some(stored) = self.vault.read(connection).await? else {
                return Ok(Grant::None(NO_TOKEN));
            };
            if stored.version != refused || stored.reauth_required {
                return Ok(granted(stored));
            }
            let Some(client) = self.clients.get(vendor) else {
                self.vault.end_renewal(connection, refused, true).await?;
                return Ok(Grant::None(REAUTH));
            };
            if self.vault.begin_renewal(connection, refused, LEASE).await? {
                return self.exchange(vendor, client, connection, &stored).await;
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::new(Kind::AuthenticationError, "wait for another worker's renewal", ""))
    }

    async fn limited(&self, connection: ConnectionId) -> Result<()> {
        self.vault.limited(connection).await
    }
}

/// What a stored pair grants.
fn granted(stored: Stored) -> Grant {
    if stored.reauth_required {
        return Grant::None(REAUTH);
    }
    Grant::Token(Token { access: stored.pair.access, version: stored.version })
}

/// How long the access token lives on, where that is known.
fn left(stored: &Stored) -> Option<Duration> {
    stored.life.map(|(_, left)| left)
}

/// Whether it is time to renew: between half and four fifths of its life, each connection at a share of its own, so
/// that those which were made together are not renewed together, and none is used up to its end.
fn is_due(stored: &Stored, connection: ConnectionId) -> bool {
    let Some((old, left)) = stored.life else { return false };
    let [first, ..] = *connection.0.as_bytes();
    let percent = 50 + u32::from(first) % 31;
    old.saturating_mul(100) >= old.saturating_add(left).saturating_mul(percent)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn stored(old_s: u64, left_s: u64) -> Stored {
        let life = Some((Duration::from_secs(old_s), Duration::from_secs(left_s)));
        let pair = Pair { access: "not-a-secret".into(), refresh: None };
        Stored { pair, version: 1, life, reauth_required: false }
    }

    #[test]
    fn it_is_renewed_between_half_and_four_fifths_of_its_life() {
        let mut shares = std::collections::BTreeSet::new();
        for number in 0..=255_u128 {
            let connection = ConnectionId(Uuid::from_u128(number << 120));
            let due = (0..=100).find(|old| is_due(&stored(*old, 100 - old), connection));
            shares.insert(due.expect("before its end"));
        }
        assert_eq!((shares.first(), shares.last()), (Some(&50), Some(&80)));
        assert_eq!(shares.len(), 31, "spread");
        assert!(is_due(&stored(1, 0), ConnectionId(Uuid::nil())), "an expired one is due");
        let unknown = Stored { life: None, ..stored(1, 0) };
        assert!(!is_due(&unknown, ConnectionId(Uuid::nil())), "as long as the vendor takes it");
    }
}
