//! Ingress, pipeline and hydrator in one process, for one machine. The hydrator only where there is a key for tokens.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::{hydrator, ingress, patiently, pipeline, serve_admin, telemetry};
use crate::config::{Config, Profile};
use crate::error::Result;
use crate::kafka::admin;
use crate::kafka::producer::Sending;

/// Runs all until `stop`; the door closes first and fetches end, then the workers finish.
///
/// # Errors
/// What is missing, with what to run; or that a worker or a vendor's loop ended by itself.
pub async fn run(config: &Config, stop: CancellationToken) -> Result<()> {
    let keys = ingress::keys(config)?;
    let token_key = config.secrets.token_key.as_ref();
    let token_keys = token_key.map(|_key| hydrator::keys(config)).transpose()?;
    let (metrics, exporter) = telemetry(config, "all")?;
    let production = config.profile == Profile::Production;
    let sender = Sending::start(&config.kafka, "ingress")?;
    let (ended, started) = (CancellationToken::new(), Arc::default());
    let readiness = ingress::probes(config, &sender, stop.clone());
    let readiness = pipeline::probes(config, readiness, Arc::clone(&started));
    serve_admin(config, readiness, &metrics, ended.clone()).await?;
    let check = || admin::check(&config.kafka, &ingress::TOPICS, production);
    patiently(|| stop.is_cancelled(), check).await?;
    if token_keys.is_some() {
        hydrator::check(config, &stop).await?;
    } else {
        tracing::info!("no secrets.token_key: what notifications name is not fetched");
    }
    let workers = pipeline::start(config, &metrics, &stop).await?;
    started.store(true, Ordering::Release);
    let (closed, broken) = (CancellationToken::new(), stop.child_token());
    let door = async {
        let opened = ingress::open(config, keys, &sender, &metrics, broken.clone()).await;
        closed.cancel();
        opened
    };
    let fetches = async {
        let Some(keys) = token_keys else { return Ok(()) };
        let fetched = hydrator::open(config, keys, sender.clone(), &metrics, broken.clone()).await;
        broken.cancel();
        fetched
    };
    let work = async {
        let done = workers.until(closed.clone()).await;
        broken.cancel();
        done
    };
    let (opened, fetched, worked) = tokio::join!(door, fetches, work);
    exporter.stop().await;
    ended.cancel();
    opened.and(fetched).and(worked)
}
