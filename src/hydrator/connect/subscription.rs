//! Subscriptions that webhooks need: made, renewed ahead of their end, and found where they died.
//!
//! What is there is asked of the vendor each time, and nothing is remembered: a subscription that was deleted on the
//! vendor's page, or ended while we were away, is seen like one that was never made. One process looks in a turn; two
//! that make one each would only give the next look one to end.
//!
//! Where each person has their own, a look is one for each connection, with its token; one that fails leaves the others to
//! be looked at. A person who connects is looked at once at once.
//!
//! What happened while one was dead nobody told us of. So where one had to be made that was there before, a gap is noted,
//! since the look that saw it last.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::{Desk, permit};
use crate::error::{Error, Kind, Result};
use crate::hydrator::fetch::{Credentials, Done, Fetcher};
use crate::hydrator::tokens::{Grant, Tokens};
use crate::model::id::ConnectionId;
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
    /// Whether each person has their own.
    pub own: bool,
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

impl Looked {
    fn and(self, other: Self) -> Self {
        Self {
            made: self.made + other.made,
            renewed: self.renewed + other.renewed,
            ended: self.ended + other.ended,
        }
    }
}

/// What keeps them.
pub struct Keeper<C, Q, T> {
    /// Whose turn it is, and who is connected.
    pub consents: C,
    /// With whose token, where each person has their own.
    pub tokens: T,
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

impl<C: Consents, Q: Queue, T: Tokens> Keeper<C, Q, T> {
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
    /// [`Kind::WearableApiError`] where the vendor does not answer, or refuses; what was done by then stays. As the calls
    /// of the ports. Of several people the first one's error, when all were looked at.
    pub async fn look(&self, kept: &Kept) -> Result<Looked> {
        let (vendor, at) = (kept.desk.name, now_us());
        let (mut looked, mut failed, mut made) = (Looked::default(), None, Vec::new());
        if kept.own {
            for connection in self.consents.connected(vendor).await? {
                let (one, ended) = self.look_at(kept, connection).await;
                looked = looked.and(one);
                made.extend((one.made > 0).then_some(connection));
                failed = failed.or(ended.err());
            }
        } else {
            let client = &kept.desk.client;
            let app = Credentials::App(&client.id, &client.secret);
            let (all, ended) = self.looking(kept, app).look().await;
            (looked, failed) = (all, ended.err());
            if looked.made > 0 {
                made = self.consents.connected(vendor).await?;
            }
        }
        let all_at = failed.is_none().then_some(at);
        self.consents.subscribed(vendor, &made, all_at).await?;
        failed.map_or(Ok(looked), Err)
    }

    /// Looks at one person's, with another token where one is not taken. Who has none any more has nothing to look at.
    async fn look_at(&self, kept: &Kept, connection: ConnectionId) -> (Looked, Result<()>) {
        let (vendor, nothing) = (kept.desk.name, Looked::default());
        let token = match self.tokens.access(vendor, connection).await {
            Ok(Grant::Token(token)) => token,
            other => return (nothing, other.map(drop)),
        };
        let by = Credentials::Person(&token.access);
        let (looked, ended) = self.looking(kept, by).look().await;
        if !matches!(&ended, Err(error) if error.kind == Kind::AuthenticationError) {
            return (looked, ended);
        }
        match self.tokens.renew(vendor, connection, token.version).await {
            Ok(Grant::Token(token)) => {
                let by = Credentials::Person(&token.access);
                let (again, ended) = self.looking(kept, by).look().await;
                (looked.and(again), ended)
            }
            other => (looked, other.map(drop)),
        }
    }

    fn looking<'a>(&'a self, kept: &'a Kept, by: Credentials<'a>) -> Looking<'a, Q> {
        Looking { queue: &self.queue, fetcher: &self.fetcher, speed: self.speed, kept, by }
    }
}

/// One look, with what it is made with.
pub(super) struct Looking<'a, Q> {
    pub(super) queue: &'a Q,
    pub(super) fetcher: &'a Fetcher,
    pub(super) speed: u32,
    pub(super) kept: &'a Kept,
    pub(super) by: Credentials<'a>,
}

impl<Q: Queue> Looking<'_, Q> {
    /// Makes of what is there what is wanted. One that the vendor refuses does not keep the others from being made, and
    /// what was done stays done whatever came then.
    pub(super) async fn look(&self) -> (Looked, Result<()>) {
        let mut looked = Looked::default();
        let ended = self.steps(&mut looked).await;
        (looked, ended)
    }

    async fn steps(&self, looked: &mut Looked) -> Result<()> {
        let subscriptions = self.kept.subscriptions;
        let body = self.send(&subscriptions.list()).await?;
        let body = body.map_err(|status| refused("list subscriptions", status))?;
        let there = subscriptions.read(&body);
        let there = there.ok_or_else(|| refused("read subscriptions", 200))?;
        let mut failed = None;
        for step in steps(subscriptions, &there, &self.kept.callback, now_us()) {
            let (doing, sent) = match step {
                Step::Make(subject) => ("make a subscription", self.make(subject, looked).await?),
                Step::Renew(id, subject) => {
                    ("renew a subscription", self.renew(&id, subject, looked).await?)
                }
                Step::End(id) => ("end a subscription", self.end(&id, looked).await?),
            };
            failed = failed.or(sent.err().map(|status| refused(doing, status)));
        }
        failed.map_or(Ok(()), Err)
    }

    async fn make(&self, subject: Subject, looked: &mut Looked) -> Result<Sent> {
        let token = self.kept.token.expose_secret();
        let asked = self.kept.subscriptions.make(subject, &self.kept.callback, token);
        let sent = self.send(&asked).await?;
        Ok(sent.map(|_body| looked.made += 1))
    }

    /// One that died before it could be renewed is made again.
    async fn renew(&self, id: &str, subject: Subject, looked: &mut Looked) -> Result<Sent> {
        let Some(asked) = self.kept.subscriptions.renew(id) else {
            return self.make(subject, looked).await;
        };
        match self.send(&asked).await? {
            Err(404 | 410) => self.make(subject, looked).await,
            sent => Ok(sent.map(|_body| looked.renewed += 1)),
        }
    }

    async fn end(&self, id: &str, looked: &mut Looked) -> Result<Sent> {
        let Some(asked) = self.kept.subscriptions.end(id) else { return Ok(Ok(())) };
        let sent = self.send(&asked).await?;
        Ok(sent.map(|_body| looked.ended += 1))
    }

    /// The body, or the status of a refusal.
    async fn send(&self, asked: &Request) -> Result<std::result::Result<bytes::Bytes, u16>> {
        permit(self.queue, &self.kept.desk, self.speed).await?;
        match self.fetcher.send(&self.kept.desk.base, asked, self.by).await? {
            Done::Well(body) => Ok(Ok(body)),
            Done::Refused(status) => Ok(Err(status)),
            Done::Failed(outcome) => {
                Err(Error::new(Kind::WearableApiError, "keep subscriptions", outcome.name()))
            }
        }
    }
}

/// Whether the vendor did it; else the status of its refusal.
type Sent = std::result::Result<(), u16>;

fn refused(doing: &'static str, status: u16) -> Error {
    let kind = if status == 401 { Kind::AuthenticationError } else { Kind::WearableApiError };
    Error::new(kind, doing, status.to_string())
}
