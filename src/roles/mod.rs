//! Roles run until they are told to stop: they build the adapters, hand them over, and own the drain.
//!
//! A role checks everything that it needs before it opens a door: topics, schemas, migrations. What is missing is
//! refused with what to run. A thread that ends before it was asked to ends the process: a process that limps would
//! hold partitions that nobody works on.

pub mod all;
pub mod connect;
pub mod hydrator;
pub mod ingress;
mod keyset;
pub mod pipeline;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{Disposition, Error, Kind, Result};
use crate::kafka::registry::Registry;
use crate::model::avro::{Codec, SchemaIds};
use crate::model::connection::Connection;
use crate::model::contract::Topic;
use crate::model::record::Record;
use crate::model::state::{Known, Outcome, Plan, Whose};
use crate::pipeline::decide::{self, Decide};
use crate::pipeline::normalise::{self, Normalise};
use crate::stream::clock::now_us;
use crate::stream::{Converter, Processor, Relayed};
use crate::telemetry::health::{self, Readiness};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::{self, Exporter, Source};
use crate::vendors;

impl Processor for Decide {
    type Read = decide::Read;

    fn plan(&self, batch: &[Record]) -> (Plan, decide::Read) {
        self.plan(batch)
    }

    fn decide(&self, batch: &[Record], read: decide::Read, known: Known) -> Result<Outcome> {
        self.decide(batch, read, known)
    }

    fn give_up(&self, record: &Record) -> Outcome {
        self.give_up(record)
    }
}

impl Converter for Normalise {
    type Read = normalise::Read;

    fn vendor(&self, record: &Record) -> &'static str {
        self.vendor(record)
    }

    fn read(&self, batch: &[Record]) -> (Whose, normalise::Read) {
        self.read(batch)
    }

    fn convert(
        &self,
        batch: &[Record],
        read: normalise::Read,
        connections: Vec<Connection>,
        now_us: i64,
    ) -> Relayed {
        let (notes, records) = self.convert(batch, read, connections, now_us);
        Relayed { notes, records }
    }

    fn again(
        &self,
        record: &Record,
        indexes: &[i32],
        connections: Vec<Connection>,
        now_us: i64,
    ) -> Relayed {
        let (notes, records) = self.again(record, indexes, connections, now_us);
        Relayed { notes, records }
    }
}

/// A token that SIGTERM and SIGINT cancel; the second signal ends the process at once.
///
/// # Errors
/// Where the process may not listen to signals.
pub fn stop_on_signals() -> Result<CancellationToken> {
    let failed = |_| Error::internal("listen to signals");
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
            if !first {
                tracing::warn!("asked to stop twice: ending at once");
                std::process::exit(1);
            }
            tracing::info!("asked to stop: finishing what is in flight");
            asked.cancel();
        }
    });
    Ok(stop)
}

/// The first pause before the world is asked again, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Asks the world until it answers: what is away for a while is waited for, what is wrong is not.
///
/// # Errors
/// What no waiting mends, with what to run; or the last failure, once this is asked to stop.
pub async fn patiently<T, F: Future<Output = Result<T>>>(
    stopped: impl Fn() -> bool,
    mut ask: impl FnMut() -> F,
) -> Result<T> {
    let mut pause = PAUSE_MIN;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error.kind.disposition() != Disposition::RetryHere || stopped() {
            return Err(error);
        }
        tracing::warn!(kind = error.kind.name(), doing = error.doing, code = %error.code,
            "waiting for what is needed to start");
        tokio::time::sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Binds an address.
///
/// # Errors
/// Where somebody else has it, or it is not ours.
pub async fn bind(doing: &'static str, address: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Error::new(Kind::InternalError, doing, format!("{:?}", error.kind())))
}

/// What this process counts, and what sends it to a collector where one is named: it is stopped last.
///
/// # Errors
/// Where no client for the collector can be made.
pub fn telemetry(config: &Config, role: &'static str) -> Result<(Metrics, Exporter)> {
    let metrics = Metrics::of(&vendors::names());
    if !config.telemetry.biometric_values {
        metrics.values.leave_empty();
    }
    let source = Source { role, instance: config.slot() };
    otlp::start(&config.telemetry, &source, metrics, now_us)
}

/// Serves the admin listener until the process ends.
///
/// # Errors
/// Where its address cannot be bound.
pub async fn serve_admin(
    config: &Config,
    readiness: Readiness,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<()> {
    let listener = bind("bind admin.address", config.admin.address).await?;
    tokio::spawn(health::serve(listener, Arc::new(readiness), metrics.clone(), stop));
    Ok(())
}

/// How long a probe of readiness may take.
#[must_use]
pub const fn probe_deadline(config: &Config) -> Duration {
    Duration::from_millis(config.admin.probe_ms_max)
}

/// The codec with the registry's ids of our schemas.
///
/// # Errors
/// `schema_error` where the registry has not exactly ours, with what to run.
pub async fn codec(config: &Config) -> Result<Codec> {
    let registry = Registry::new(&config.registry)?;
    let mut ids = Vec::new();
    for topic in [Topic::NormalisedRecords, Topic::BiometricEvents, Topic::TerraBiometricEvents] {
        let subject = config.kafka.physical(&format!("{topic}-value"));
        ids.push(registry.id(&subject, schema_of(topic)).await?);
    }
    let [normalised, events, terra_events] = ids.as_slice() else {
        return Err(Error::internal("look up schema ids"));
    };
    let ids = SchemaIds { normalised: *normalised, events: *events, terra_events: *terra_events };
    Codec::new(ids)
}

/// The newest schema of a topic's values.
#[must_use]
pub const fn schema_of(topic: Topic) -> &'static str {
    match topic {
        Topic::NormalisedRecords => crate::model::avro::NORMALISED_RECORD,
        Topic::TerraBiometricEvents => crate::model::avro::TERRA_BIOMETRIC_EVENT,
        _ => crate::model::avro::BIOMETRIC_EVENT,
    }
}
