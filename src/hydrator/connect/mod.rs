//! Connecting: a person consents at a vendor, and from then on the vendor's user is ours.
//!
//! # Why here
//! A consent ends in calls to a vendor, tokens for the vault and a row of Postgres. The ingress has none of these and
//! shall not: it is the part that strangers reach. So the hydrator has a door of its own, on an address of its own, for
//! `/connect/…` alone; what stands before it sends the rest to the ingress.
//!
//! # One consent
//! | step | where | what holds it |
//! | --- | --- | --- |
//! | a link | [`link`] | signed by an operator for one user and one vendor, and it ends |
//! | begun | `GET /connect/{vendor}` | `state`, what the browser keeps, and the PKCE verifier: drawn, kept as digests or sealed |
//! | consent | the vendor's page | – |
//! | back | `GET /connect/{vendor}/callback` | the state, once, in time, from the same browser; else nothing is done |
//! | tokens | the vendor | the code, our secret, the verifier; answers as hostile as any (`fetch.rs`) |
//! | whose | the vendor | its id of its user, by the vendor's own reader |
//! | stored | the vault | before the connection exists, so that no fetch finds a connection without tokens |
//! | connected | Postgres | the way of `connections add`: held records are put through, the gap is noted |
//!
//! Whoever has only the state, such as who was sent the vendor's page by somebody else, cannot answer with it: otherwise
//! a person could be made to give their records to another one's user.
//!
//! # What a person is told
//! One line of ours. Nothing that came from a vendor or in the request is in a page or a log: codes, states and tokens
//! are worth as much as a password.

pub mod door;
pub mod link;
pub mod subscription;
pub mod withdraw;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::hydrator::fetch::Base;
use crate::hydrator::quota;
use crate::hydrator::tokens::Client;
use crate::model::event::Origin;
use crate::model::id::ConnectionId;
use crate::stream::hydration::{Queue, Taken};
use crate::vendors::ask::Api;
use crate::vendors::consent::Consent;

/// Where people connect. Defaults stand in `config.default.toml`, with their reasons.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The address of the door; absent where nobody connects here.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// Under which address people and vendors reach us.
    #[serde(default)]
    pub public_url: Option<String>,
    /// How long a person may take at the vendor, s.
    pub consent_s: u64,
    /// How long a link holds that a command makes, s.
    pub link_s: u64,
    /// How often a vendor's subscriptions are looked at, s.
    pub subscriptions_s: u64,
}

/// The shortest secret that links are signed with, bytes.
pub const KEY_BYTES_MIN: usize = 32;

impl Settings {
    /// What cannot work: the key and what is allowed.
    #[must_use]
    pub fn problems(&self, production: bool) -> Vec<(&'static str, &'static str)> {
        let base = self.public_url.as_deref().map(Base::parse);
        let is_url = !matches!(base, Some(None));
        let is_safe = !matches!(&base, Some(Some(base)) if !base.is_https());
        let rules = [
            (
                "public_url",
                is_url,
                "https://host, no slash at the end; plain http only on this machine",
            ),
            ("public_url", !production || is_safe, "https with profile = production"),
            (
                "address",
                self.address.is_none() || base.is_some(),
                "unset where connect.public_url is",
            ),
            ("consent_s", (60..=3_600).contains(&self.consent_s), "60 to 3600"),
            ("link_s", (60..=2_592_000).contains(&self.link_s), "60 to 2592000"),
            ("subscriptions_s", (1..=86_400).contains(&self.subscriptions_s), "1 to 86400"),
        ];
        rules.into_iter().filter(|(_, holds, _)| !holds).map(|(key, _, what)| (key, what)).collect()
    }
}

/// A vendor that people can connect to.
#[derive(Clone)]
pub struct Desk {
    /// Its name.
    pub name: &'static str,
    /// Its API.
    pub api: &'static dyn Api,
    /// How consent is had.
    pub consent: &'static dyn Consent,
    /// Where its API is.
    pub base: Base,
    /// Where the person is asked.
    pub authorise: Base,
    /// What it knows us by, and where codes are exchanged.
    pub client: Client,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Desk({})", self.name)
    }
}

/// How long a call waits for a permit of the app's quota: somebody sits before a browser.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts one call in the app's quotas.
///
/// # Errors
/// [`Kind::RateLimitError`] where they are used up for longer than one waits; as the queue's calls.
async fn permit(queue: &impl Queue, desk: &Desk, speed: u32) -> Result<()> {
    let nobody = ConnectionId(uuid::Uuid::nil());
    let mut buckets = quota::buckets(desk.api.quotas(), nobody, Origin::Live, speed);
    buckets.retain(|bucket| bucket.subject.is_none());
    let mut patience = PATIENCE;
    loop {
        let Taken::Wait { app, .. } = queue.take(desk.name, nobody, &buckets).await? else {
            return Ok(());
        };
        let wait = app.max(Duration::from_millis(1));
        if wait > patience {
            return Err(Error::new(Kind::RateLimitError, "call a vendor", ""));
        }
        patience = patience.saturating_sub(wait);
        tokio::time::sleep(wait).await;
    }
}
