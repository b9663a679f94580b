//! The hydrator role: a loop for each vendor that has an API, over the queue, the vault and the log; and a thread that
//! follows Terra's pointers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{connect, patiently, pipeline, probe_deadline, serve_admin, telemetry};
use crate::config::{Config, Profile, Vendor};
use crate::error::{Error, Kind, Result};
use crate::hydrator::fetch::{Base, Fetcher};
use crate::hydrator::keeper::{self, Shelf};
use crate::hydrator::late::Late;
use crate::hydrator::pointer::Pointers;
use crate::hydrator::tokens::{Client, Key, Keyring};
use crate::hydrator::worker::{Desk, Hydrator};
use crate::ingress::PSEUDONYM_KEY_BYTES_MIN;
use crate::kafka::admin;
use crate::kafka::consumer::Member;
use crate::kafka::lag::{self, Gauge, Groups};
use crate::kafka::producer::Sending;
use crate::kafka::settings::OutOfRange;
use crate::model::contract::Topic;
use crate::model::id::PseudonymKey;
use crate::postgres::migrate;
use crate::postgres::queue::PostgresQueue;
use crate::postgres::vault::{Keys, PostgresVault};
use crate::stream::clock::RealClock;
use crate::stream::hydration::{Depth, Queue as _};
use crate::stream::stop::Stop;
use crate::telemetry::health::Readiness;
use crate::telemetry::metrics::Metrics;
use crate::vendors;
use crate::vendors::ask::{Api, With};
use crate::vendors::terra::kafka;

/// What the hydrator needs of Kafka.
pub const TOPICS: [Topic; 3] = [Topic::RawTerra, Topic::RawDocuments, Topic::DeadLetters];

/// How often what waits is counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);

type Real = Hydrator<PostgresQueue, Keyring<PostgresVault>, Sending>;

/// Runs the hydrator until `stop`.
///
/// # Errors
/// What is missing, with what to run; or that a vendor's loop ended by itself.
pub async fn run(config: &Config, stop: CancellationToken) -> Result<()> {
    let keys = keys(config)?;
    let (metrics, exporter) = telemetry(config, "hydrator")?;
    let sender = Sending::start(&config.kafka, "hydrator")?;
    let (ended, started) = (CancellationToken::new(), Arc::default());
    let readiness = Readiness::new(stop.clone(), probe_deadline(config));
    let readiness = pipeline::probes(config, readiness, Arc::clone(&started));
    serve_admin(config, readiness, &metrics, ended.clone()).await?;
    let checked = check(config, &stop).await;
    let done = match checked {
        Ok(()) => {
            started.store(true, std::sync::atomic::Ordering::Release);
            open(config, keys, sender, &metrics, stop).await
        }
        Err(error) => Err(error),
    };
    exporter.stop().await;
    ended.cancel();
    done
}

/// The keys that open tokens.
///
/// # Errors
/// `validation_error` where a key that is needed is not there, or too short, with its name in the configuration.
pub fn keys(config: &Config) -> Result<Keys> {
    let secrets = &config.secrets;
    // The keys of raw topics are made with it: order per person holds only if everybody has the same.
    let pseudonym = secrets.pseudonym_key.as_ref().map_or(0, |key| key.expose_secret().len());
    if pseudonym < PSEUDONYM_KEY_BYTES_MIN {
        let doing = "find the pseudonyms' key; secrets.pseudonym_key: at least 16 bytes";
        return Err(Error::new(Kind::ValidationError, doing, ""));
    }
    let current = secrets.token_key.as_ref().ok_or_else(|| {
        let doing = "find the tokens' key: name its file in secrets.token_key_file";
        Error::new(Kind::ValidationError, doing, "")
    })?;
    Keys::new(current, secrets.previous_token_key.as_ref())
}

/// Waits for what is needed.
///
/// # Errors
/// What is missing and no waiting mends, with what to run.
pub async fn check(config: &Config, stop: &CancellationToken) -> Result<()> {
    let production = config.profile == Profile::Production;
    let stopped = || stop.is_cancelled();
    patiently(stopped, || migrate::check(&config.postgres)).await?;
    patiently(stopped, || admin::check(&config.kafka, &TOPICS, production)).await
}

/// Fetches until `stop`, then ends what is under way.
///
/// # Errors
/// Where a part cannot be made, or a vendor's loop ended by itself.
pub async fn open(
    config: &Config,
    keys: Keys,
    sender: Sending,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<()> {
    let fetcher = Fetcher::new(config.hydrator.limits())?;
    let vault = PostgresVault::new(&config.postgres, keys)?;
    let followed = pointers(config, &fetcher, metrics, &stop)?;
    let (room, measured) = room(config, &stop)?;
    let known = config.clone();
    let codec = Late::new(move || {
        let config = known.clone();
        Box::pin(async move { super::codec(&config).await })
    });
    let hydrator = Arc::new(Hydrator {
        queue: PostgresQueue::new(&config.postgres)?,
        tokens: Keyring::new(
            vault.clone(),
            fetcher.clone(),
            clients(config),
            metrics.clone(),
            config.hydrator.speed,
        ),
        room,
        sender,
        fetcher,
        codec,
        pseudonyms: pseudonyms(config),
        settings: config.hydrator.clone(),
        metrics: metrics.clone(),
    });
    let mut loops = JoinSet::new();
    connect::open(config, &hydrator.fetcher, &vault, metrics, &stop, &mut loops).await?;
    for desk in desks(config) {
        let (hydrator, stop) = (Arc::clone(&hydrator), stop.clone());
        loops.spawn(async move { hydrator.serve(&desk, &stop).await });
    }
    let (counted, counting) = (Arc::clone(&hydrator), stop.clone());
    loops.spawn(async move { count(&counted, &counting).await });
    let (kept, keeping, shelves) = (Arc::clone(&hydrator), stop.clone(), shelves(config));
    let reach = config.hydrator.reach();
    loops.spawn(async move {
        keeper::keep(&kept.queue, &shelves, reach, &kept.metrics, &keeping).await;
    });
    tracing::info!("the hydrator fetches");
    let mut done = Ok(());
    while let Some(ended) = loops.join_next().await {
        if ended.is_err() || !stop.is_cancelled() {
            stop.cancel();
            done = Err(Error::internal("run a vendor's loop"));
        }
    }
    if let Some((halt, thread)) = followed {
        halt.set();
        done = done.and(joined(thread, FOLLOW).await);
    }
    done = done.and(joined(measured, MEASURE).await);
    tracing::info!("the hydrator is closed");
    done
}

/// How a thread ended.
async fn joined(thread: JoinHandle<Result<()>>, doing: &'static str) -> Result<()> {
    let ended = tokio::task::spawn_blocking(move || thread.join()).await;
    ended.map_or(Err(Error::internal(doing)), |ended| {
        ended.unwrap_or_else(|_panic| Err(Error::internal(doing)))
    })
}

/// Begins to measure whether there is room for history, on a thread of its own. One that ends by itself ends the role.
fn room(config: &Config, stop: &CancellationToken) -> Result<(Arc<Gauge>, JoinHandle<Result<()>>)> {
    let gauge = Arc::new(Gauge::default());
    let groups = Groups {
        normalise: pipeline::normalise_group(config, Topic::RawDocuments),
        decide: config.pipeline.decide_group.clone(),
    };
    let (settings, measured, stop) = (config.kafka.clone(), Arc::clone(&gauge), stop.clone());
    let thread = std::thread::Builder::new().name("room".to_owned()).spawn(move || {
        let ends = stop.clone().drop_guard();
        let done = lag::measure(&settings, &groups, &measured, || stop.is_cancelled());
        drop(ends);
        done
    });
    let thread = thread.map_err(|_unmade| Error::internal(MEASURE))?;
    Ok((gauge, thread))
}

const MEASURE: &str = "measure whether there is room for history";
const FOLLOW: &str = "follow Terra's pointers";
/// What stands behind the name of normalise's group in the one that follows Terra's pointers.
const POINTERS: &str = "-pointers";

/// Begins to follow Terra's pointers, on a thread of its own, where Terra is not switched off. One that ends by itself
/// ends the role.
fn pointers(
    config: &Config,
    fetcher: &Fetcher,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Option<(Stop, JoinHandle<Result<()>>)>> {
    let Some(terra) = config.vendors.get(kafka::WRITER).filter(|terra| terra.enabled) else {
        return Ok(None);
    };
    let (config, own) = (config.clone(), terra.bucket.clone());
    let (fetcher, metrics, stop) = (fetcher.clone(), metrics.clone(), stop.clone());
    let halt = Stop::default();
    let asked = halt.clone();
    let thread = pipeline::thread("pointers", move || async move {
        let _ends = stop.drop_guard();
        let group = format!("{}{POINTERS}", config.pipeline.normalise_group);
        let (topic, lost) = (Topic::RawTerra, OutOfRange::Recover);
        let log = Member::join(&config.kafka, &group, topic, lost, None)?;
        let leaving = log.leaving();
        let sender = Sending::start(&config.kafka, "pointers")?;
        let pseudonyms = pseudonyms(&config);
        let clock = RealClock::new();
        let mut pointers = Pointers::new(log, own, sender, clock, fetcher, pseudonyms, metrics);
        let done = pointers.run(&asked).await;
        drop(pointers);
        if !leaving.left(pipeline::LEAVE).await {
            tracing::warn!("a member did not leave its group in time");
        }
        done
    })?;
    Ok(Some((halt, thread)))
}

/// What makes the keys of raw topics.
fn pseudonyms(config: &Config) -> PseudonymKey {
    let key = config.secrets.pseudonym_key.clone().unwrap_or_default();
    PseudonymKey::new(key.expose_secret().as_bytes())
}

/// What this vendor's section says, with what its file says of its API.
pub(super) fn apis(
    config: &Config,
) -> impl Iterator<Item = (&'static str, &'static dyn Api, &Vendor)> {
    vendors::ALL.iter().filter_map(|vendor| {
        let section = config.vendors.get(vendor.name()).filter(|section| section.enabled)?;
        Some((vendor.name(), vendor.api()?, section))
    })
}

/// The app's own id and key, where the vendor is asked with them; none where they are not configured, and nothing can be
/// asked then.
fn key(api: &dyn Api, section: &Vendor) -> Option<Option<Key>> {
    match api.with() {
        With::Token => Some(None),
        With::Key(_) => {
            let (id, secret) = (section.client_id.clone()?, section.client_secret.clone()?);
            Some(Some(Key { id, secret }))
        }
    }
}

/// Every vendor that has an API, can be asked and is not switched off.
#[must_use]
pub fn desks(config: &Config) -> Vec<Desk> {
    let desk = |(name, api, section): (&'static str, &'static dyn Api, &Vendor)| {
        let base = Base::parse(section.api_base.as_deref().unwrap_or(api.base()))?;
        Some(Desk { name, api, base, key: key(api, section)? })
    };
    apis(config).filter_map(desk).collect()
}

/// Every vendor whose history is asked for, or that is polled: of one that cannot be asked gaps stay as they are until it
/// can.
fn shelves(config: &Config) -> Vec<Shelf> {
    desks(config).into_iter().map(|Desk { name, api, .. }| Shelf { name, api }).collect()
}

/// What the vendors know us by, where their tokens are renewed.
#[must_use]
pub fn clients(config: &Config) -> BTreeMap<String, Client> {
    let client = |(name, api, section): (&'static str, &'static dyn Api, &Vendor)| {
        let renewal = api.renewal()?;
        let url = Base::parse(section.renewal_url.as_deref().unwrap_or(renewal.url))?;
        let (id, secret) = (section.client_id.clone()?, section.client_secret.clone()?);
        let (scope, manner) = (renewal.scope, api.manner());
        Some((name.to_owned(), Client { url, scope, id, secret, manner }))
    };
    apis(config).filter_map(client).collect()
}

/// Counts what waits, until `stop`.
async fn count(hydrator: &Real, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        // What does not answer here does not answer the loops either, and they say so.
        if let Ok(depths) = hydrator.queue.depths().await {
            for vendor in vendors::names() {
                let depth = depths.iter().find(|depth| depth.vendor == vendor);
                let of = |count: fn(&Depth) -> i64| depth.map_or(0, count);
                for (due, count) in [
                    ("now", of(|depth| depth.due)),
                    ("later", of(|depth| depth.later)),
                    ("history", of(|depth| depth.history)),
                ] {
                    hydrator.metrics.hydrations.at([vendor, due]).set(count);
                }
            }
        }
        let next = tokio::time::timeout(COUNT_EVERY, stop.cancelled()).await;
        drop(next);
    }
}
