//! Ingress and pipeline in one process, for one machine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::{ingress, patiently, pipeline, serve_admin, telemetry};
use crate::config::{Config, Profile};
use crate::error::Result;
use crate::kafka::admin;
use crate::kafka::producer::Sending;

/// Runs both until `stop`; the door closes first, then the workers finish.
///
/// # Errors
/// What is missing, with what to run; or that a worker ended by itself.
pub async fn run(config: &Config, stop: CancellationToken) -> Result<()> {
    let keys = ingress::keys(config)?;
    let (metrics, exporter) = telemetry(config, "all")?;
    let production = config.profile == Profile::Production;
    let sender = Sending::start(&config.kafka, "ingress")?;
    let (ended, started) = (CancellationToken::new(), Arc::default());
    let readiness = ingress::probes(config, &sender, stop.clone());
    let readiness = pipeline::probes(config, readiness, Arc::clone(&started));
    serve_admin(config, readiness, &metrics, ended.clone()).await?;
    let check = || admin::check(&config.kafka, &ingress::TOPICS, production);
    patiently(|| stop.is_cancelled(), check).await?;
    let workers = pipeline::start(config, &metrics, &stop).await?;
    started.store(true, Ordering::Release);
    let (closed, broken) = (CancellationToken::new(), stop.child_token());
    let door = async {
        let opened = ingress::open(config, keys, &sender, &metrics, broken.clone()).await;
        closed.cancel();
        opened
    };
    let work = async {
        let done = workers.until(closed.clone()).await;
        broken.cancel();
        done
    };
    let (opened, worked) = tokio::join!(door, work);
    exporter.stop().await;
    ended.cancel();
    opened.and(worked)
}
