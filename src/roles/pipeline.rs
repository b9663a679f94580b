//! The pipeline role: workers of normalise and of decide, each a thread with a runtime of its own.
//!
//! A worker's futures are not `Send`, and nothing that it waits for may run beside it: so a thread each, and the
//! adapters are made on it.
//!
//! Normalise reads three raw topics, and a member of a group reads one: so fetched bodies, and what Terra writes,
//! have a worker and a group of their own each. In one group, members that read different topics would be in each
//! other's assignments, and each worker that comes or goes would stop the other topic's, too. What a vendor's quota
//! lets through is little, so one worker a process is enough of it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{patiently, probe_deadline, serve_admin, telemetry};
use crate::config::{Config, Profile, UnknownUsers};
use crate::error::{Error, Kind, Result};
use crate::kafka::admin;
use crate::kafka::consumer::Member;
use crate::kafka::producer::Sending;
use crate::kafka::reader::Picker;
use crate::kafka::settings::OutOfRange;
use crate::kafka::transactional::Transactional;
use crate::model::avro::Codec;
use crate::model::contract::Topic;
use crate::pipeline::decide::Decide;
use crate::pipeline::normalise::{Normalise, Unknown};
use crate::postgres::migrate;
use crate::postgres::register::PostgresRegister;
use crate::postgres::store::PostgresStore;
use crate::redis::cache::RedisCache;
use crate::stream::clock::RealClock;
use crate::stream::relay::{self, Relay};
use crate::stream::stop::Stop;
use crate::stream::worker::{self, Worker};
use crate::telemetry::health::Readiness;
use crate::telemetry::metrics::Metrics;
use crate::vendors;

/// What the pipeline needs of Kafka.
pub const TOPICS: [Topic; 7] = [
    Topic::RawWebhooks,
    Topic::RawTerra,
    Topic::RawDocuments,
    Topic::NormalisedRecords,
    Topic::BiometricEvents,
    Topic::TerraBiometricEvents,
    Topic::DeadLetters,
];

/// The pause before a slot's lock is asked for again while Postgres is away.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// What stands behind the name of normalise's group in the one that reads fetched bodies.
const DOCUMENTS: &str = "-documents";
/// The same of the group that reads what Terra writes itself.
const TERRA: &str = "-terra";

/// How long a member may take to leave its group once its worker is done.
pub(super) const LEAVE: Duration = Duration::from_secs(8);

/// Runs the pipeline until `stop`.
///
/// # Errors
/// What is missing, with what to run; or that a worker ended by itself.
pub async fn run(config: &Config, stop: CancellationToken) -> Result<()> {
    let (metrics, exporter) = telemetry(config, "pipeline")?;
    let (ended, started) = (CancellationToken::new(), Arc::default());
    let readiness = Readiness::new(stop.clone(), probe_deadline(config));
    let readiness = probes(config, readiness, Arc::clone(&started));
    serve_admin(config, readiness, &metrics, ended.clone()).await?;
    let workers = start(config, &metrics, &stop).await?;
    started.store(true, Ordering::Release);
    let done = workers.until(stop).await;
    exporter.stop().await;
    ended.cancel();
    done
}

/// This, and what a pipeline needs to be ready: its workers, and the database.
#[must_use]
pub fn probes(config: &Config, readiness: Readiness, started: Arc<AtomicBool>) -> Readiness {
    let settings = config.postgres.clone();
    let workers = move || -> crate::telemetry::health::Probed {
        let started = started.load(Ordering::Acquire);
        Box::pin(async move { started })
    };
    readiness.with("workers", workers).with("postgres", move || {
        let settings = settings.clone();
        Box::pin(async move { migrate::check(&settings).await.is_ok() })
    })
}

/// The workers of a pipeline.
pub struct Workers {
    stop: Stop,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// Checks what is needed and starts the workers.
///
/// # Errors
/// What is missing and no waiting mends, with what to run.
pub async fn start(
    config: &Config,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Workers> {
    let production = config.profile == Profile::Production;
    let stopped = || stop.is_cancelled();
    patiently(stopped, || migrate::check(&config.postgres)).await?;
    patiently(stopped, || admin::check(&config.kafka, &TOPICS, production)).await?;
    let codec = Arc::new(patiently(stopped, || super::codec(config)).await?);
    let stop = Stop::default();
    let mut threads = Vec::new();
    for number in 0..config.pipeline.decide_workers {
        let slot = format!("{}-{number}", config.slot());
        let (config, codec) = (config.clone(), Arc::clone(&codec));
        let (metrics, stop) = (metrics.clone(), stop.clone());
        threads.push(thread(&format!("decide-{number}"), move || {
            decide(config, codec, slot, metrics, stop)
        })?);
    }
    for number in 0..config.pipeline.normalise_workers {
        let (config, codec) = (config.clone(), Arc::clone(&codec));
        let (metrics, stop) = (metrics.clone(), stop.clone());
        let sweeps = number == 0;
        threads.push(thread(&format!("normalise-{number}"), move || {
            normalise(config, codec, Topic::RawWebhooks, sweeps, metrics, stop)
        })?);
    }
    for (name, topic) in [("documents", Topic::RawDocuments), ("terra", Topic::RawTerra)] {
        let (config, codec) = (config.clone(), Arc::clone(&codec));
        let (metrics, stop) = (metrics.clone(), stop.clone());
        threads.push(thread(name, move || normalise(config, codec, topic, false, metrics, stop))?);
    }
    Ok(Workers { stop, threads })
}

impl Workers {
    /// Waits for `stop`, has the workers finish, and waits for them.
    ///
    /// # Errors
    /// Where a worker ended by itself: the process must not go on without it.
    pub async fn until(mut self, stop: CancellationToken) -> Result<()> {
        loop {
            let early = self.threads.iter().any(JoinHandle::is_finished);
            let asked = tokio::time::timeout(Duration::from_millis(200), stop.cancelled()).await;
            if early || asked.is_ok() {
                break;
            }
        }
        self.stop.set();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            let mut ends = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::internal("run a worker")))
            });
            ends.by_ref().fold(Ok(()), Result::and)
        });
        joined.await.unwrap_or_else(|_| Err(Error::internal("wait for the workers")))
    }
}

/// A thread with a current-thread runtime that runs one future to its end.
pub(super) fn thread<F: Future<Output = Result<()>>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|_| Error::internal("start a runtime"))?;
        runtime.block_on(work())
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|_| Error::internal("start a worker's thread"))
}

async fn decide(
    config: Config,
    codec: Arc<Codec>,
    slot: String,
    metrics: Metrics,
    stop: Stop,
) -> Result<()> {
    let reader = Arc::clone(&codec);
    let read_event = Box::new(move |bytes: &bytes::Bytes| reader.decode_event(bytes).ok());
    let mut store = PostgresStore::new(config.postgres.clone(), &slot, read_event);
    loop {
        match store.lock_slot(&slot).await {
            Ok(()) => break,
            Err(error) if error.kind == Kind::DatabaseError && !stop.is_set() => {
                tracing::warn!(doing = error.doing, code = %error.code, "waiting for the slot");
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
    let group = &config.pipeline.decide_group;
    let publisher = Transactional::new(&config.kafka, group, &slot);
    let topic = Topic::NormalisedRecords;
    let condemn = Some(publisher.condemn());
    let log = Member::join(&config.kafka, group, topic, OutOfRange::Recover, condemn)?;
    let leaving = log.leaving();
    let settings = worker::Settings {
        batch_records_max: config.pipeline.batch_records_max,
        ..worker::Settings::default()
    };
    let cache = RedisCache::open(&config.redis, RealClock::new(), metrics.clone()).await?;
    let (clock, decide) = (RealClock::new(), Decide::new(codec));
    let mut worker = Worker::new(log, publisher, store, cache, clock, decide, settings, metrics);
    worker.run(&stop).await;
    drop(worker);
    if !leaving.left(LEAVE).await {
        tracing::warn!("a member did not leave its group in time");
    }
    Ok(())
}

/// The group that normalises a raw topic.
pub(super) fn normalise_group(config: &Config, topic: Topic) -> String {
    let group = &config.pipeline.normalise_group;
    match topic {
        Topic::RawDocuments => format!("{group}{DOCUMENTS}"),
        Topic::RawTerra => format!("{group}{TERRA}"),
        _ => group.clone(),
    }
}

/// Normalises a raw topic; `sweeps` where this worker also looks for held items, of whichever topic they are.
async fn normalise(
    config: Config,
    codec: Arc<Codec>,
    topic: Topic,
    sweeps: bool,
    metrics: Metrics,
    stop: Stop,
) -> Result<()> {
    let group = normalise_group(&config, topic);
    let log = Member::join(&config.kafka, &group, topic, OutOfRange::Recover, None)?;
    let leaving = log.leaving();
    let unknown = match config.pipeline.unknown_users {
        UnknownUsers::Hold => Unknown::Hold,
        UnknownUsers::Derive => Unknown::Derive,
    };
    let settings = relay::Settings {
        sweep_every: sweeps.then(|| Duration::from_secs(config.pipeline.sweep_s)),
        ..relay::Settings::default()
    };
    let mut relay = Relay::new(
        log,
        Sending::start(&config.kafka, "normalise")?,
        PostgresRegister::new(config.postgres.clone(), "normalise")
            .of_renaming(vendors::renaming().collect()),
        Picker::new(&config.kafka)?,
        RealClock::new(),
        Normalise::new(codec, unknown).without(config.switched_off()),
        settings,
        metrics,
    );
    let done = relay.run(&stop).await;
    drop(relay);
    if !leaving.left(LEAVE).await {
        tracing::warn!("a member did not leave its group in time");
    }
    done
}
