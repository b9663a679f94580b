//! Subscriptions that webhooks need: made, renewed ahead of their end, and found where they died.
//!
//! What is there is asked of the vendor each time, and nothing is remembered: a subscription that was deleted on the
//! vendor's page, or ended while we were away, is seen like one that was never made. One process looks in a turn; two
//! that make one each would only give the next look one to end.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::{Desk, permit};
use crate::error::{Error, Kind, Result};
use crate::hydrator::fetch::{Credentials, Done, Fetcher};
use crate::stream::clock::now_us;
use crate::stream::connecting::Consents;
use crate::stream::hydration::Queue;
use crate::telemetry::metrics::Metrics;
use crate::vendors::consent::{Request, Step, Subject, Subscriptions, steps};

/// A vendor whose subscriptions are kept.
#[derive(Clone)]
pub struct Kept {
    /// The vendor.
    pub desk: Desk,
    /// Its subscriptions.
    pub subscriptions: &'static dyn Subscriptions,
    /// Where its webhooks go.
    pub callback: String,
    /// What its handshake must name.
    pub token: SecretString,
}

/// What a look has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Made: there was none.
    pub made: usize,
    /// Renewed.
    pub renewed: usize,
    /// Ended: one too many.
    pub ended: usize,
}

/// What keeps them.
pub struct Keeper<C, Q> {
    /// Whose turn it is.
    pub consents: C,
    /// The quotas.
    pub queue: Q,
    /// What calls vendors.
    pub fetcher: Fetcher,
    /// How often they are looked at.
    pub every: Duration,
    /// `hydrator.speed`.
    pub speed: u32,
    /// What is counted.
    pub metrics: Metrics,
}

/// After a look that failed: the ingress may not be there yet to answer the handshake.
const AGAIN: Duration = Duration::from_secs(30);

impl<C: Consents, Q: Queue> Keeper<C, Q> {
    /// Keeps a vendor's subscriptions until `stop`.
    pub async fn keep(&self, kept: &Kept, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.turn(kept) => looked,
            };
            let wait = match looked {
                Ok(()) => self.every,
                Err(error) => {
                    self.metrics.errors.at([error.kind.name()]).inc();
                    tracing::warn!(vendor = kept.desk.name, kind = error.kind.name(),
                        doing = error.doing, code = %error.code, "subscriptions are not kept");
                    AGAIN.min(self.every)
                }
            };
            let next = tokio::time::timeout(wait, stop.cancelled()).await;
            drop(next);
        }
    }

    async fn turn(&self, kept: &Kept) -> Result<()> {
        let name = format!("subscriptions/{}", kept.desk.name);
        // Shorter than the time between two looks of one process, or it would wait for itself.
        if !self.consents.turn(&name, self.every.mul_f64(0.9).min(AGAIN)).await? {
            return Ok(());
        }
        let looked = self.look(kept).await?;
        if looked != Looked::default() {
            let Looked { made, renewed, ended } = looked;
            tracing::info!(vendor = kept.desk.name, made, renewed, ended, "subscriptions");
        }
        Ok(())
    }

    /// Looks once.
    ///
    /// # Errors
    /// [`Kind::WearableApiError`] where the vendor does not answer, or refuses; what was done by then stays. As the
    /// queue's calls.
    pub async fn look(&self, kept: &Kept) -> Result<Looked> {
        let subscriptions = kept.subscriptions;
        let body = match self.send(kept, &subscriptions.list()).await? {
            Ok(body) => body,
            Err(status) => return Err(refused("list subscriptions", status)),
        };
        let there = subscriptions.read(&body);
        let there = there.ok_or_else(|| refused("read subscriptions", 200))?;
        let mut looked = Looked::default();
        for step in steps(subscriptions, &there, &kept.callback, now_us()) {
            match step {
                Step::Make(subject) => self.make(kept, subject, &mut looked).await?,
                Step::Renew(id, subject) => self.renew(kept, &id, subject, &mut looked).await?,
                Step::End(id) => {
                    let Some(asked) = subscriptions.end(&id) else { continue };
                    let sent = self.send(kept, &asked).await?;
                    sent.map_err(|status| refused("end a subscription", status))?;
                    looked.ended += 1;
                }
            }
        }
        Ok(looked)
    }

    async fn make(&self, kept: &Kept, subject: Subject, looked: &mut Looked) -> Result<()> {
        let token = kept.token.expose_secret();
        let asked = kept.subscriptions.make(subject, &kept.callback, token);
        let sent = self.send(kept, &asked).await?;
        sent.map_err(|status| refused("make a subscription", status))?;
        looked.made += 1;
        Ok(())
    }

    /// One that died before it could be renewed is made again.
    async fn renew(
        &self,
        kept: &Kept,
        id: &str,
        subject: Subject,
        looked: &mut Looked,
    ) -> Result<()> {
        let Some(asked) = kept.subscriptions.renew(id) else {
            return self.make(kept, subject, looked).await;
        };
        match self.send(kept, &asked).await? {
            Ok(_body) => looked.renewed += 1,
            Err(404 | 410) => return self.make(kept, subject, looked).await,
            Err(status) => return Err(refused("renew a subscription", status)),
        }
        Ok(())
    }

    /// The body, or the status of a refusal.
    async fn send(
        &self,
        kept: &Kept,
        asked: &Request,
    ) -> Result<std::result::Result<bytes::Bytes, u16>> {
        permit(&self.queue, &kept.desk, self.speed).await?;
        let client = &kept.desk.client;
        let app = Credentials::App(&client.id, &client.secret);
        match self.fetcher.send(&kept.desk.base, asked, app).await? {
            Done::Well(body) => Ok(Ok(body)),
            Done::Refused(status) => Ok(Err(status)),
            Done::Failed(outcome) => {
                Err(Error::new(Kind::WearableApiError, "keep subscriptions", outcome.name()))
            }
        }
    }
}

fn refused(doing: &'static str, status: u16) -> Error {
    Error::new(Kind::WearableApiError, doing, status.to_string())
}
