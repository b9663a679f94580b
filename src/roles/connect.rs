//! The part of the hydrator role by which people connect: its door, and the subscriptions that webhooks need.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bind;
use super::hydrator::{apis, clients};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::hydrator::connect::door::Door;
use crate::hydrator::connect::subscription::{Keeper, Kept};
use crate::hydrator::connect::{Desk, KEY_BYTES_MIN};
use crate::hydrator::fetch::{Base, Fetcher};
use crate::hydrator::tokens::{Client, Keyring, MENDED};
use crate::postgres::consent::PostgresConsents;
use crate::postgres::queue::PostgresQueue;
use crate::postgres::vault::PostgresVault;
use crate::telemetry::health;
use crate::telemetry::metrics::Metrics;
use crate::vendors::wire::hmac::Key;

/// The vendors that people can connect to: those whose app is ours, by id and secret.
#[must_use]
pub fn desks(config: &Config) -> Vec<Desk> {
    apis(config)
        .filter_map(|(name, api, section)| {
            let consent = crate::vendors::find(name)?.consent()?;
            let at = |configured: &Option<String>, own: &'static str| {
                Base::parse(configured.as_deref().unwrap_or(own))
            };
            let base = at(&section.api_base, api.base())?;
            let authorise = at(&section.authorise_url, consent.authorise())?;
            let url = at(&section.renewal_url, consent.token())?;
            let (id, secret) = (section.client_id.clone()?, section.client_secret.clone()?);
            let client = Client { url, scope: None, id, secret, manner: api.manner() };
            Some(Desk { name, api, consent, base, authorise, client })
        })
        .collect()
}

/// The key of links.
///
/// # Errors
/// [`Kind::ValidationError`] where there is none, or it is too short.
pub fn key(config: &Config) -> Result<&secrecy::SecretString> {
    let key = config.secrets.connect_key.as_ref();
    key.filter(|key| key.expose_secret().len() >= KEY_BYTES_MIN).ok_or_else(|| {
        let doing =
            "find the key of links: name its file in secrets.connect_key_file, 32 bytes or more";
        Error::new(Kind::ValidationError, doing, "")
    })
}

/// Opens the door and keeps subscriptions until `stop`, where the configuration wants them.
///
/// # Errors
/// Where the door's address or key is missing, or a part cannot be made.
pub async fn open(
    config: &Config,
    fetcher: &Fetcher,
    vault: &PostgresVault,
    metrics: &Metrics,
    stop: &CancellationToken,
    loops: &mut JoinSet<()>,
) -> Result<()> {
    let settings = &config.connect;
    let Some(public) = settings.public_url.as_deref() else { return Ok(()) };
    let public = Base::parse(public).ok_or_else(|| Error::internal("read connect.public_url"))?;
    let consents = || PostgresConsents::new(&config.postgres, vault.clone(), &MENDED);
    let keyring = || {
        let (vault, fetcher, speed) = (vault.clone(), fetcher.clone(), config.hydrator.speed);
        Keyring::new(vault, fetcher, clients(config), metrics.clone(), speed)
    };
    let queue = PostgresQueue::new(&config.postgres)?;
    for kept in kept(config) {
        let keeper = Keeper {
            consents: consents(),
            tokens: keyring(),
            queue: queue.clone(),
            fetcher: fetcher.clone(),
            every: Duration::from_secs(settings.subscriptions_s),
            speed: config.hydrator.speed,
            metrics: metrics.clone(),
        };
        let stop = stop.clone();
        loops.spawn(async move { keeper.keep(&kept, &stop).await });
    }
    let Some(address) = settings.address else { return Ok(()) };
    let door = Door {
        consents: consents(),
        vault: vault.clone(),
        queue,
        fetcher: fetcher.clone(),
        desks: desks(config),
        kept: kept(config).into_iter().filter(|kept| kept.own).collect(),
        key: Key::new(key(config)?.expose_secret().as_bytes()),
        public,
        settings: settings.clone(),
        speed: config.hydrator.speed,
        metrics: metrics.clone(),
    };
    let listener = bind("bind connect.address", address).await?;
    let drain = Duration::from_millis(config.hydrator.drain_ms_max);
    let stop = stop.clone();
    loops.spawn(async move { health::pages(listener, door.answering(), stop, drain).await });
    tracing::info!("people can connect");
    Ok(())
}

/// The vendors whose webhooks need subscriptions, and whose handshake we can answer.
fn kept(config: &Config) -> Vec<Kept> {
    let public = config.connect.public_url.as_deref().unwrap_or_default();
    let one = |desk: Desk| {
        let vendor = crate::vendors::find(desk.name)?;
        let section = config.vendors.get(desk.name)?;
        let mut callback = format!("{public}/webhooks/{}", desk.name);
        if vendor.secret_path() {
            callback = format!("{callback}/{}", section.signing_secret.as_ref()?.expose_secret());
        }
        if let Some(subscriptions) = desk.consent.own_subscriptions() {
            let token = SecretString::default();
            return Some(Kept { desk, subscriptions, callback, token, own: true });
        }
        let subscriptions = desk.consent.subscriptions()?;
        let token = section.handshake_token.clone()?;
        Some(Kept { desk, subscriptions, callback, token, own: false })
    };
    desks(config).into_iter().filter_map(one).collect()
}
