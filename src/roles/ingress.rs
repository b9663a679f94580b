//! The ingress role: the door over a real log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{bind, keyset, patiently, probe_deadline, serve_admin, telemetry};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::ingress::{self, Keys};
use crate::kafka::admin;
use crate::kafka::producer::Sending;
use crate::model::contract::{PROBE_VENDOR, Topic, header};
use crate::model::record::{Headers, OutRecord};
use crate::stream::Sender as _;
use crate::stream::clock::Stopwatch;
use crate::telemetry::health::Readiness;
use crate::telemetry::metrics::Metrics;

/// What the door needs of Kafka.
pub const TOPICS: [Topic; 1] = [Topic::RawWebhooks];

/// Runs the door until `stop`.
///
/// # Errors
/// What is missing, with what to run; nothing after the door is open.
pub async fn run(config: &Config, stop: CancellationToken) -> Result<()> {
    let keys = keys(config)?;
    let (metrics, exporter) = telemetry(config, "ingress")?;
    let production = config.profile == crate::config::Profile::Production;
    let sender = Sending::start(&config.kafka, "ingress")?;
    let ended = CancellationToken::new();
    let readiness = probes(config, &sender, stop.clone());
    serve_admin(config, readiness, &metrics, ended.clone()).await?;
    let check = || admin::check(&config.kafka, &TOPICS, production);
    patiently(|| stop.is_cancelled(), check).await?;
    let opened = open(config, keys, &sender, &metrics, stop).await;
    exporter.stop().await;
    ended.cancel();
    opened
}

/// The keys of the door, or every problem with them.
///
/// # Errors
/// `validation_error`; the problems are on standard error by then.
pub fn keys(config: &Config) -> Result<Keys> {
    config.keys().map_err(|problems| {
        for problem in problems {
            tracing::error!(key = %problem.key, what = %problem.what, "configuration");
        }
        Error::new(Kind::ValidationError, "read the configuration's secrets", "")
    })
}

/// How long the answer of one probe stands: each asks for a record of its own in the log.
const PROBE_STANDS: Duration = Duration::from_secs(1);

/// Ready means: the brokers acknowledge a record within the probe's deadline.
#[must_use]
pub fn probes(config: &Config, sender: &Sending, stop: CancellationToken) -> Readiness {
    let sender = sender.clone();
    let last: Arc<Mutex<Option<(Stopwatch, bool)>>> = Arc::default();
    Readiness::new(stop, probe_deadline(config)).with("kafka", move || {
        let (sender, last) = (sender.clone(), Arc::clone(&last));
        Box::pin(async move {
            let mut last = last.lock().await;
            match *last {
                Some((asked, ready)) if asked.elapsed() < PROBE_STANDS => ready,
                _ => {
                    *last = Some((Stopwatch::start(), false));
                    let ready = sender.send(probe()).await.is_ok();
                    *last = Some((Stopwatch::start(), ready));
                    ready
                }
            }
        })
    })
}

/// A record that says nothing: normalise knows it and ignores it.
fn probe() -> OutRecord {
    let headers = Headers::new().with(header::VENDOR, PROBE_VENDOR);
    let value = Some(Bytes::from_static(b"{}"));
    OutRecord { topic: Topic::RawWebhooks, key: None, headers, value }
}

/// Opens the door and serves until `stop`.
///
/// # Errors
/// Where the address cannot be bound.
pub async fn open(
    config: &Config,
    keys: Keys,
    sender: &Sending,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<()> {
    let listener = bind("bind ingress.address", config.ingress.address).await?;
    let closed = stop.child_token();
    let keysets = keyset::keep(config, &keys, metrics, closed.clone());
    tracing::info!(address = %config.ingress.address, "the door is open");
    let (settings, sender) = (config.ingress.clone(), Arc::new(sender.clone()));
    let served = async {
        let served =
            ingress::serve(settings, keys.clone(), sender, metrics.clone(), listener, stop);
        let drained = served.await;
        closed.cancel();
        drained
    };
    let (drained, kept) = tokio::join!(served, keysets);
    tracing::info!(cut_off = drained?.cut_off, "the door is closed");
    kept
}
