//! The loop of one vendor: claim, fetch, send, end; bounded, and the vendor's own.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::breaker::{self, Breaker, OPEN_FOR, Pass, Said};
use super::fetch::{Base, Credentials, Fetched, Fetcher};
use super::late::Late;
use super::plan::{self, Next, Outcome, Tried};
use super::quota;
use super::tokens::{Grant, Key, Token, Tokens};
use crate::error::{Error, Kind, Result};
use crate::model::avro::Codec;
use crate::model::contract::{Topic, header};
use crate::model::event::Origin;
use crate::model::id::{ConnectionId, PseudonymKey, sha256_hex};
use crate::model::record::{Headers, OutRecord};
use crate::model::time::Micros;
use crate::stream::clock::{Stopwatch, now_us};
use crate::stream::hydration::{Claimed, Fate, Queue, Room, Taken, Work};
use crate::stream::{Sender, text};
use crate::telemetry::metrics::Metrics;
use crate::vendors::ask::{Answer, Api, Call, Held, Need, Per, joined};
use crate::vendors::history::{self, Window};

/// A vendor whose records are fetched.
#[derive(Clone)]
pub struct Desk {
    /// Its name.
    pub name: &'static str,
    /// What its file says of its API.
    pub api: &'static dyn Api,
    /// Where that is.
    pub base: Base,
    /// The app's own id and key, of a vendor that is asked with them.
    pub key: Option<Key>,
}

/// What fetches: the ports and their limits. All vendors share one.
pub struct Hydrator<Q, T, S> {
    /// What is to be fetched.
    pub queue: Q,
    /// With whose token.
    pub tokens: T,
    /// Whether history may be fetched now.
    pub room: Arc<dyn Room>,
    /// Where bodies go.
    pub sender: S,
    /// The client.
    pub fetcher: Fetcher,
    /// What reads the events that were told.
    pub codec: Late<Codec>,
    /// The key of the keys in raw topics.
    pub pseudonyms: PseudonymKey,
    /// The limits.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Metrics,
}

/// How one claimed row went.
struct Ended {
    pass: Pass,
    said: Said,
    /// How long the whole vendor is to be left alone.
    wait: Option<Duration>,
    /// Whether it was history, and how long no more of it is to be begun.
    history: Option<Duration>,
}

/// What became of a row before its claim is ended.
enum Course {
    /// Nothing was asked: the row waits or ends without a letter, and the vendor is left alone so long.
    Unasked(Fate, Option<Duration>),
    /// Nothing was asked: it is history, for which there is no room for so long.
    Held(Duration),
    /// Too much for one fetch: these are to be fetched instead.
    Divided(Said, [String; 2]),
    /// The vendor was asked.
    Asked(Said, Next, Option<OutRecord>),
}

/// How fast a vendor is asked: at first one call at a time, and twice as many with each that ended. A refusal of the quota
/// takes nothing of that: what it lets through when it opens is to be used at once.
struct Pace {
    at_once: usize,
    quiet_until: Duration,
    /// How many of what is under way are history, and until when no more of it is begun.
    history: usize,
    history_quiet_until: Duration,
}

impl Pace {
    /// How many windows of history may be begun, where so much is left of what may be begun at all. One place of the
    /// vendor's is never theirs.
    fn history(&self, left: usize, most: usize, now: Duration) -> usize {
        if now < self.history_quiet_until {
            return 0;
        }
        let own = HISTORY_AT_ONCE.min(most.saturating_sub(1)).max(1);
        own.saturating_sub(self.history).min(left)
    }
}

/// The pause after the queue did not answer.
const AWAY: Duration = Duration::from_secs(1);
/// The most calls of one record; a vendor's file says less.
const CALLS_MAX: usize = 64;
/// The most events of a person that are looked through for what we have of a few days.
const HELD_MAX: usize = 2_000;
/// The most windows of history that a vendor is asked for at once: what they bring is not seen yet by who looks whether there
/// is room.
const HISTORY_AT_ONCE: usize = 2;
/// How long nothing more of history is begun where there was no room.
const NO_ROOM: Duration = Duration::from_secs(1);
/// How long a record that was begun waits for the permits of its next calls.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one that was not waits for its first: until the next slots of a window of a minute.
const BRIEFLY: Duration = Duration::from_secs(2);
/// A permit that was had this fast is used, however short a window is: in a faster world nothing else would be.
const FRESH_MIN: Duration = Duration::from_millis(50);
/// The most that a vendor's word on its own quota holds it for.
const HOLD_MAX: u32 = 86_400;

impl<Q: Queue, T: Tokens, S: Sender> Hydrator<Q, T, S> {
    /// Fetches a vendor's records until `stop`; then ends what is under way, as long as the settings allow.
    pub async fn serve(&self, desk: &Desk, stop: &CancellationToken) {
        let clock = Stopwatch::start();
        let mut breaker = Breaker::new(self.settings.paced(OPEN_FOR));
        let mut pace = Pace {
            at_once: 1,
            quiet_until: Duration::ZERO,
            history: 0,
            history_quiet_until: Duration::ZERO,
        };
        let mut under_way = FuturesUnordered::new();
        while !stop.is_cancelled() {
            let now = clock.elapsed();
            let (wanted, pause) = self.wanted(&breaker, &pace, under_way.len(), now);
            let most = self.settings.fetches_per_vendor_max;
            let claim = self.claim(desk, wanted, |left| pace.history(left, most, now));
            let (answered, ended) = beside(claim, &mut under_way).await;
            let (claimed, pause) = match answered {
                // As many as were wanted: there may be more, and room for them.
                Ok(claimed) if wanted > 0 && claimed.len() == wanted => (claimed, Duration::ZERO),
                Ok(claimed) => (claimed, pause),
                Err(_counted) => (Vec::new(), AWAY),
            };
            for row in claimed {
                pace.history += usize::from(row.origin == Origin::Backfill);
                under_way.push(self.fetch(desk, row, breaker.begin()));
            }
            // Only now: what was claimed was claimed for the breaker as it was.
            for ended in ended {
                self.take_in(desk, &ended, &mut breaker, &mut pace, clock.elapsed());
            }
            tokio::select! {
                Some(ended) = under_way.next(), if !under_way.is_empty() => {
                    self.take_in(desk, &ended, &mut breaker, &mut pace, clock.elapsed());
                }
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        let rest = async { while under_way.next().await.is_some() {} };
        let drain = Duration::from_millis(self.settings.drain_ms_max);
        if tokio::time::timeout(drain, rest).await.is_err() {
            tracing::warn!(
                vendor = desk.name,
                "fetches were cut off; they come back with their leases"
            );
        }
    }

    /// How many rows to claim now, and how long to wait before the next look.
    fn wanted(
        &self,
        breaker: &Breaker,
        pace: &Pace,
        under_way: usize,
        now: Duration,
    ) -> (usize, Duration) {
        let look = Duration::from_millis(self.settings.look_ms);
        if now < pace.quiet_until {
            return (0, pace.quiet_until.saturating_sub(now));
        }
        let free = self.settings.fetches_per_vendor_max.saturating_sub(under_way);
        match breaker.room(now) {
            breaker::Room::All => (free.min(pace.at_once), look),
            breaker::Room::One => (free.min(1), look),
            breaker::Room::None(until) => (0, until),
        }
    }

    /// So many records at most, and history only where there is nothing else: as much of it as `history` says of what
    /// is left.
    async fn claim(
        &self,
        desk: &Desk,
        wanted: usize,
        history: impl FnOnce(usize) -> usize,
    ) -> Result<Vec<Claimed>> {
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let lease = Duration::from_secs(self.settings.lease_s);
        let claim = async {
            let mut claimed = self.queue.claim(desk.name, Work::News, wanted, lease).await?;
            let more = history(wanted.saturating_sub(claimed.len()));
            if more > 0 && !desk.api.history().is_empty() {
                claimed.extend(self.queue.claim(desk.name, Work::History, more, lease).await?);
            }
            Ok(claimed)
        };
        claim.await.inspect_err(|error| self.failed(desk, error))
    }

    fn take_in(
        &self,
        desk: &Desk,
        ended: &Ended,
        breaker: &mut Breaker,
        pace: &mut Pace,
        now: Duration,
    ) {
        if breaker.end(ended.pass, ended.said, now) {
            self.metrics.openings.at([desk.name]).inc();
            tracing::warn!(vendor = desk.name, "a vendor's API is left alone for a while");
        }
        if let Some(held) = ended.history {
            pace.history = pace.history.saturating_sub(1);
            pace.history_quiet_until = pace.history_quiet_until.max(now.saturating_add(held));
        }
        match ended.wait {
            Some(wait) => pace.quiet_until = pace.quiet_until.max(now.saturating_add(wait)),
            None => {
                let most = self.settings.fetches_per_vendor_max;
                pace.at_once = pace.at_once.saturating_mul(2).min(most);
            }
        }
    }

    fn failed(&self, desk: &Desk, error: &Error) {
        self.metrics.errors.at([error.kind.name()]).inc();
        tracing::warn!(vendor = desk.name, kind = error.kind.name(), doing = error.doing,
            code = %error.code, "a fetch did not go on");
    }

    /// One claimed row, to the end of its claim.
    async fn fetch(&self, desk: &Desk, row: Claimed, pass: Pass) -> Ended {
        let tried = Tried {
            attempts: row.attempts,
            failures: row.failures,
            outage: row.reason.as_deref().is_some_and(plan::is_outage),
            renewed: false,
        };
        let history = row.origin == Origin::Backfill;
        let asked = async {
            if history && !self.room.is_there() {
                return Ok(Course::Held(NO_ROOM));
            }
            self.ask(desk, &row, tried).await
        };
        let course = asked.await.unwrap_or_else(|error| {
            self.failed(desk, &error);
            let next = match error.kind {
                // A call or a token that cannot be sent at all is the same tomorrow.
                Kind::ValidationError => Next::GiveUp { kind: error.kind, reason: error.doing },
                kind => plan::spoiled(tried, kind.name(), chance()),
            };
            Course::Asked(Said::Nothing, next, None)
        });
        let mut held = history.then_some(Duration::ZERO);
        let (said, fate, wait) = match course {
            Course::Unasked(fate, wait) => (Said::Nothing, fate, wait),
            Course::Held(time) => {
                held = Some(time);
                (Said::Nothing, Fate::Untried, None)
            }
            Course::Divided(said, parts) => {
                if let Err(error) = self.queue.divide(&row, &parts).await {
                    self.failed(desk, &error);
                }
                return Ended { pass, said, wait: None, history: held };
            }
            Course::Asked(said, next, document) => {
                let (fate, hold) = self.settle(desk, &row, tried, next, document).await;
                (said, self.paced(fate), hold)
            }
        };
        // Where this fails the row comes back when its lease ends, and what was sent is sent again: a duplicate.
        if let Err(error) = self.queue.end(&row, fate).await {
            self.failed(desk, &error);
        }
        Ended { pass, said, wait, history: held }
    }

    /// Asks the vendor for all that a record takes, with another token where one is not taken.
    async fn ask(&self, desk: &Desk, row: &Claimed, mut tried: Tried) -> Result<Course> {
        let Some(vendor_user) = row.vendor_user.as_deref() else {
            return Ok(Course::Unasked(Fate::GivenUp { reason: "disconnected" }, None));
        };
        let (record_type, record_id) = (row.key.record_type.as_str(), row.key.record_id.as_str());
        let connection = row.key.connection;
        let unasked =
            |kind, reason| Ok(Course::Asked(Said::Nothing, Next::GiveUp { kind, reason }, None));
        let need = Need { record_type, record_id, vendor_user };
        let Some(mut call) = desk.api.ask(&need) else {
            return unasked(Kind::ValidationError, "the vendor's API has no such record");
        };
        let mut grant = self.grant(desk, connection).await?;
        let mut body = Body { held: self.held(desk, connection, &need).await?, ..Body::default() };
        loop {
            let token = match grant {
                None => None,
                Some(Grant::Token(token)) => Some(token),
                Some(Grant::None(reason)) => return unasked(Kind::AuthenticationError, reason),
            };
            if let Some(refused) = self.permit(desk, row, tried, body.is_begun()).await? {
                return Ok(refused);
            }
            // Before the first call goes out: a deletion that comes meanwhile stands above it.
            body.asked_at.get_or_insert_with(now_us);
            let fetched = self.call(desk, (&need, &call), token.as_ref()).await?;
            let whose = fetched.whose;
            let outcome = body.take(fetched, self.settings.body_bytes_max);
            if outcome.is_too_much(desk.api.cuts_off())
                && let Some(course) = divided(row, outcome.said())
            {
                return Ok(course);
            }
            match plan::next(outcome, tried, |n| desk.api.again_s(n), chance()) {
                Next::Renew => {
                    let Some(token) = token else {
                        return Ok(Course::Asked(outcome.said(), key_refused(desk, tried), None));
                    };
                    tried.renewed = true;
                    grant = Some(self.tokens.renew(desk.name, connection, token.version).await?);
                }
                Next::Keep(_) => match desk.api.then(&need, &body.answers) {
                    Some(_) if body.answers.len() >= CALLS_MAX => {
                        return Ok(divided(row, Said::Well).unwrap_or_else(|| {
                            let reason = "the record takes too many calls";
                            let next = Next::GiveUp { kind: Kind::WearableApiError, reason };
                            Course::Asked(Said::Nothing, next, None)
                        }));
                    }
                    Some(next) => {
                        (call, grant) = (next, token.map(Grant::Token));
                        tried.renewed = false;
                    }
                    None => return Ok(self.whole(desk, (row, &need), (outcome, tried), &body)),
                },
                // What came before says something of the record, or it would not have been asked for.
                Next::Nothing if body.is_begun() => {
                    let document = self.document(desk, row, vendor_user, &body);
                    return Ok(Course::Asked(
                        outcome.said(),
                        Next::Keep(Fate::Done),
                        Some(document),
                    ));
                }
                next => {
                    let next = self.told_off(desk, connection, outcome, whose, next).await?;
                    return Ok(Course::Asked(outcome.said(), next, None));
                }
            }
        }
    }

    /// What the first call is made with; nothing where the app's own key is all that is needed: no vault is asked then.
    async fn grant(&self, desk: &Desk, connection: ConnectionId) -> Result<Option<Grant>> {
        match &desk.key {
            Some(_) => Ok(None),
            None => self.tokens.access(desk.name, connection).await.map(Some),
        }
    }

    /// What follows where every call was answered, the last one so.
    fn whole(
        &self,
        desk: &Desk,
        (row, need): (&Claimed, &Need<'_>),
        (outcome, tried): (Outcome, Tried),
        body: &Body,
    ) -> Course {
        let together = Outcome::Answered(desk.api.together(need, &body.answers));
        let next = plan::next(together, tried, |n| desk.api.again_s(n), chance());
        let whole =
            matches!(next, Next::Keep(_)).then(|| self.document(desk, row, need.vendor_user, body));
        Course::Asked(outcome.said(), next, whole)
    }

    /// What we had before the vendor is asked, where it must be said.
    async fn held(
        &self,
        desk: &Desk,
        connection: ConnectionId,
        need: &Need<'_>,
    ) -> Result<Option<Bytes>> {
        let Some((record_type, from, to)) = desk.api.held(need) else { return Ok(None) };
        let told = self.queue.told(connection, (from, to), HELD_MAX).await?;
        let (codec, mut held) = (self.codec.get().await?, Vec::new());
        for event in &told {
            let Ok(event) = codec.decode_event(event) else {
                return Err(Error::internal("read an event that was told"));
            };
            if event.connection_id == connection && event.record_type == record_type {
                held.push(Held {
                    record_id: event.record_id,
                    start_at: event.content.start_at,
                    start_offset_s: event.content.start_offset_s,
                    end_at: event.content.end_at,
                });
            }
        }
        let held = serde_json::to_vec(&held).map_err(|_| Error::internal("name what we have"))?;
        Ok(Some(Bytes::from(held)))
    }

    /// Nothing where a call may be made, and it is counted. Until then a record waits where it is, as long as that is
    /// short; one that was begun waits longer, because begun anew it would cost its first calls again.
    async fn permit(
        &self,
        desk: &Desk,
        row: &Claimed,
        tried: Tried,
        begun: bool,
    ) -> Result<Option<Course>> {
        let connection = row.key.connection;
        let (origin, speed) = (row.origin, self.settings.speed);
        let buckets = quota::buckets(desk.api.quotas(), connection, origin, speed);
        // The window leaves a slot for the way to the vendor. A permit that was long under way has used it up, and is lost.
        let slot = buckets.iter().map(|bucket| bucket.slot_us).min().unwrap_or(i64::MAX);
        let fresh = Duration::from_micros(slot.unsigned_abs() / 2).max(FRESH_MIN);
        let mut patience = match (begun, origin) {
            (false, _) => BRIEFLY,
            // Of a share as small as history's the next permit may be most of a minute away.
            (true, Origin::Backfill) => Duration::from_secs(self.settings.lease_s / 2),
            (true, _) => PATIENCE,
        };
        loop {
            let taken = self.queue.take(desk.name, connection, &buckets).await?;
            let (app, user, history) = match taken {
                Taken::Granted { ago } if ago <= fresh => return Ok(None),
                Taken::Granted { .. } => continue,
                Taken::Wait { app, user, history } => (app, user, history),
            };
            let wait = app.max(user).max(history).max(Duration::from_millis(1));
            if wait <= patience {
                patience = patience.saturating_sub(wait);
                tokio::time::sleep(wait).await;
                continue;
            }
            // History's share: what is new goes on.
            if history >= app.max(user) {
                return Ok(Some(Course::Held(history)));
            }
            // The app's quota: everybody waits, this row as it was.
            if app >= user {
                return Ok(Some(Course::Unasked(Fate::Untried, Some(app))));
            }
            let fate = plan::waits(user, tried, "the person's quota");
            return Ok(Some(Course::Unasked(fate, None)));
        }
    }

    /// What an answer says of more than its record: that the person's consent does not cover it, which is noted, or
    /// that this person, and nobody else, is asked for too often.
    async fn told_off(
        &self,
        desk: &Desk,
        connection: ConnectionId,
        outcome: Outcome,
        whose: Per,
        next: Next,
    ) -> Result<Next> {
        if outcome == Outcome::Answered(Answer::Forbidden) && desk.key.is_none() {
            self.tokens.limited(connection).await?;
        }
        let Next::Later { fate, hold: Some(time) } = next else { return Ok(next) };
        if whose == Per::App {
            return Ok(next);
        }
        self.queue.hold(desk.name, Some(connection), self.settings.paced(time)).await?;
        Ok(Next::Later { fate, hold: None })
    }

    /// One call, counted; what the vendor tells of its quota is kept.
    async fn call(
        &self,
        desk: &Desk,
        asked: (&Need<'_>, &Call),
        token: Option<&Token>,
    ) -> Result<Fetched> {
        let credentials = match (token, &desk.key) {
            (Some(token), _) => Credentials::Person(&token.access),
            (None, Some(key)) => Credentials::App(&key.id, &key.secret),
            (None, None) => return Err(Error::internal("call a vendor without credentials")),
        };
        let watch = Stopwatch::start();
        let fetched = self.fetcher.call(desk.api, &desk.base, asked, credentials).await?;
        self.metrics.fetches.at([desk.name, fetched.outcome.name()]).inc();
        self.metrics.fetch_seconds.at([desk.name]).observe(watch.seconds());
        let used_up = fetched.told.filter(|told| told.left == 0);
        if let Some(told) = used_up.filter(|_| fetched.outcome.said() == Said::Well) {
            let time = Duration::from_secs(told.reset_s.min(HOLD_MAX).into());
            self.queue.hold(desk.name, None, self.settings.paced(time)).await?;
        }
        Ok(fetched)
    }

    /// What a document is in the log.
    fn document(&self, desk: &Desk, row: &Claimed, vendor_user: &str, body: &Body) -> OutRecord {
        let value = joined(&body.answers);
        let sha256 = sha256_hex(&value);
        let mut headers = Headers::with_capacity(13)
            .with(header::VENDOR, text(desk.name))
            .with(header::DELIVERY_ID, text(sha256.get(..32).unwrap_or(&sha256)))
            .with(header::RECEIVED_AT, text(body.asked_at.unwrap_or_default().to_string()))
            .with(header::CONTENT_TYPE, text(body.content_type.as_str()))
            .with(header::RECORD_TYPE, text(row.key.record_type.as_str()))
            .with(header::RECORD_ID, text(row.key.record_id.as_str()))
            .with(header::VENDOR_USER, text(vendor_user))
            .with(header::CONNECTION, text(row.key.connection.to_string()))
            .with(header::ORIGIN, text(row.origin.name()))
            .with(header::HTTP_STATUS, text(body.status.to_string()))
            .with(header::SOURCE, text(asked_by(row)))
            .with(header::SHA256, text(sha256));
        if let Some(held) = &body.held {
            headers.push(header::HELD, held.clone());
        }
        let key = Some(self.key(desk, vendor_user));
        OutRecord { topic: Topic::RawDocuments, key, headers, value: Some(value) }
    }

    fn key(&self, desk: &Desk, vendor_user: &str) -> Bytes {
        text(format!("{}:{}", desk.name, self.pseudonyms.vendor_user(desk.name, vendor_user)))
    }

    /// Does what follows, up to the row's fate: what goes into the log is acknowledged by then.
    async fn settle(
        &self,
        desk: &Desk,
        row: &Claimed,
        tried: Tried,
        next: Next,
        document: Option<OutRecord>,
    ) -> (Fate, Option<Duration>) {
        let done = match (next, document) {
            (Next::Later { fate, hold }, _) => return self.hold(desk, fate, hold).await,
            (Next::Keep(fate), Some(document)) => match self.sender.send(document).await {
                Ok(_place) => Ok((fate, None)),
                Err(error) if error.kind == Kind::PayloadTooLarge => {
                    let reason = "the body is above what the log takes";
                    self.give_up(desk, row, error.kind, reason).await
                }
                Err(error) => Err(error),
            },
            (Next::Nothing, _) => Ok((Fate::Nothing, None)),
            (Next::GiveUp { kind, reason }, _) => self.give_up(desk, row, kind, reason).await,
            // A document without its body, or a renewal that was not made: neither can be.
            (Next::Keep(_) | Next::Renew, _) => Err(Error::internal("keep a document")),
        };
        done.unwrap_or_else(|error| {
            self.failed(desk, &error);
            match plan::spoiled(tried, error.kind.name(), chance()) {
                Next::Later { fate, hold } => (fate, hold),
                Next::Keep(_) | Next::Nothing | Next::Renew | Next::GiveUp { .. } => {
                    (Fate::Untried, None)
                }
            }
        })
    }

    /// The whole vendor is left alone for as long as it said, by all replicas.
    async fn hold(
        &self,
        desk: &Desk,
        fate: Fate,
        hold: Option<Duration>,
    ) -> (Fate, Option<Duration>) {
        let hold = hold.map(|time| self.settings.paced(time));
        if let Some(time) = hold
            && let Err(error) = self.queue.hold(desk.name, None, time).await
        {
            self.failed(desk, &error);
        }
        (fate, hold)
    }

    /// A fate whose wait is the plan's, at the pace of the settings.
    fn paced(&self, fate: Fate) -> Fate {
        match fate {
            Fate::Later { after, attempts, failures, reason } => {
                Fate::Later { after: self.settings.paced(after), attempts, failures, reason }
            }
            Fate::Done | Fate::Nothing | Fate::Untried | Fate::GivenUp { .. } => fate,
        }
    }

    /// Gives a record up: into the log first, so that it is never given up silently.
    async fn give_up(
        &self,
        desk: &Desk,
        row: &Claimed,
        kind: Kind,
        reason: &'static str,
    ) -> Result<(Fate, Option<Duration>)> {
        let at = row.source;
        let tries = row.attempts.saturating_add(row.failures).saturating_add(1);
        let headers = Headers::with_capacity(10)
            .with(header::VENDOR, text(desk.name))
            .with(header::ORIGINAL_TOPIC, text(at.topic.name()))
            .with(header::ORIGINAL_PARTITION, text(at.partition.to_string()))
            .with(header::ORIGINAL_OFFSET, text(at.offset.to_string()))
            .with(header::ERROR_TYPE, text(kind.name()))
            .with(header::ERROR_MESSAGE, text(reason))
            .with(header::RETRY_COUNT, text(tries.to_string()))
            .with(header::STAGE, text("hydrate"))
            .with(header::INDEXES, text(at.index.to_string()))
            .with(header::COUNT, text("1"))
            .with(header::FAILED_AT, text(now_us().to_string()));
        // What was to be fetched; the notification itself stands where the headers say.
        let value = serde_json::json!({
            "vendor": row.key.vendor,
            "connection": row.key.connection.to_string(),
            "record_type": row.key.record_type,
            "record_id": row.key.record_id,
        });
        let key = row.vendor_user.as_deref().map(|user| self.key(desk, user));
        let value = Some(text(value.to_string()));
        let letter = OutRecord { topic: Topic::DeadLetters, key, headers, value };
        self.sender.send(letter).await?;
        self.metrics.failures.at(["hydrate", kind.name()]).inc();
        self.metrics.errors.at([kind.name()]).inc();
        Ok((Fate::GivenUp { reason }, None))
    }
}

/// What is fetched in place of a window that is too much for one fetch; nothing where it is none, or a single day.
fn divided(row: &Claimed, said: Said) -> Option<Course> {
    history::of(&row.key.record_type)?;
    let halves = Window::parse(&row.key.record_id)?.halves()?;
    Some(Course::Divided(said, halves.map(|half| half.to_string())))
}

/// What follows where the vendor does not take the app's own key: only whoever runs this can mend it.
fn key_refused(desk: &Desk, tried: Tried) -> Next {
    let keys = format!("vendors.{0}.client_id, vendors.{0}.client_secret", desk.name);
    tracing::warn!(vendor = desk.name, keys, "a vendor does not take the app's own key");
    plan::key_not_taken(tried, chance())
}

/// Waits for this, and has what is under way go on meanwhile: one of those may hold the very connection to Postgres that
/// this waits for. Gives what ended.
async fn beside<T, F: Future<Output = Ended>>(
    one: impl Future<Output = T>,
    under_way: &mut FuturesUnordered<F>,
) -> (T, Vec<Ended>) {
    tokio::pin!(one);
    let mut ended = Vec::new();
    loop {
        tokio::select! {
            done = &mut one => return (done, ended),
            Some(other) = under_way.next(), if !under_way.is_empty() => ended.push(other),
        }
    }
}

/// What a record's calls have given so far.
#[derive(Default)]
struct Body {
    /// The bodies, in the order in which they were asked for.
    answers: Vec<Bytes>,
    /// Of the last answer.
    content_type: String,
    status: u16,
    /// When the first call went out, µs.
    asked_at: Option<Micros>,
    /// What we had before, where it must be said.
    held: Option<Bytes>,
}

impl Body {
    const fn is_begun(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Takes what a call has given; all of them together have the cap of one. Gives how it ended.
    fn take(&mut self, fetched: Fetched, bytes_max: usize) -> Outcome {
        let Some((content_type, body)) = fetched.document else { return fetched.outcome };
        let before: usize = self.answers.iter().map(Bytes::len).sum();
        if before.saturating_add(body.len()) > bytes_max {
            return Outcome::TooLarge;
        }
        (self.content_type, self.status) = (content_type, fetched.status.unwrap_or_default());
        self.answers.push(body);
        fetched.outcome
    }
}

/// `topic/partition/offset/index` of who asked.
fn asked_by(row: &Claimed) -> String {
    let at = row.source;
    format!("{}/{}/{}/{}", at.topic, at.partition, at.offset, at.index)
}

/// Chance, for spreading what failed together: of no consequence, so the hasher's seed is enough.
fn chance() -> u64 {
    RandomState::new().hash_one(0_u8)
}
