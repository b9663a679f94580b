//! Pointers of `raw-terra`: what stands behind a link is archived at once, because the link dies within minutes.
//!
//! A member of a group of its own reads the topic beside normalise, which reads what stands inline. What it finds is
//! asked for without a token, and the body goes to `raw-documents` as it came; then it is a raw record as any other.
//! The log is the queue: an offset is committed when everything below it is archived or given up, so whoever takes a
//! partition over begins with what is not, and what is archived twice is recognised by those who read it.
//!
//! # Decisions
//! - Nothing waits in a row of Postgres: a link is a secret as long as it lives, and dead soon after.
//! - The body is received when its pointer was written, not when it was fetched: so two bodies stand in the order in
//!   which Terra wrote them, whichever was fetched first.
//! - While the store is away a pointer is tried again, further and further apart, until it dies. A store that answers
//!   with a refusal is believed: a signed link is not repaired.
//! - A dead pointer is a dead letter, which says how to ask for the data again. Nothing else can be done here: the
//!   link is all that we were given.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::error::{Disposition, Error, Kind, Result};
use crate::hydrator::fetch::{Fetched, Fetcher};
use crate::hydrator::plan::Outcome;
use crate::model::contract::{BATCH_BYTES_MAX, Topic, header};
use crate::model::id::{PseudonymKey, sha256_hex};
use crate::model::record::{Headers, OutRecord, Record};
use crate::stream::stop::Stop;
use crate::stream::{Clock, Log, Owned, Sender, text};
use crate::telemetry::metrics::Metrics;
use crate::vendors::ask::{Answer, Api, Call, Need, Quota};
use crate::vendors::terra::kafka::{self, Link, Pointer, Said};
use crate::vendors::{KeyUser, Verified, find};

/// Pointers that are followed at once by one process.
const UNDER_WAY_MAX: usize = 32;
/// One wait for what is new; a stop is seen after it.
const WAIT: Duration = Duration::from_millis(200);
/// The first pause after a failure, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Tries of a pointer that says no end of its life.
const TRIES_MAX: u32 = 10;
/// What a dead letter says.
const DEAD: &str = "the link is dead: ask Terra for this user's days anew, \
    GET /v2/<type>?user_id&start_date&end_date&to_webhook=true";

/// Who follows a link.
pub trait Follow {
    /// Asks it, once, without a token.
    fn follow(&self, link: &Link) -> impl Future<Output = Fetched>;
}

impl Follow for Fetcher {
    async fn follow(&self, link: &Link) -> Fetched {
        self.open_link(&Store, link.address()).await
    }
}

/// An object store, as far as its answers mean something: it has no records, and no quota of ours.
struct Store;

impl Api for Store {
    fn base(&self) -> &'static str {
        ""
    }

    fn ask(&self, _need: &Need<'_>) -> Option<Call> {
        None
    }

    fn again_s(&self, _attempt: u32) -> Option<u32> {
        None
    }

    fn quotas(&self) -> &'static [Quota] {
        &[]
    }
}

/// A partition that is read.
struct Task {
    term: u64,
    /// The first offset that was not taken.
    next: i64,
    /// Taken and not done.
    under_way: BTreeSet<i64>,
    /// The offset that was committed last.
    committed: i64,
}

impl Task {
    /// The first offset that is not done.
    fn done(&self) -> i64 {
        self.under_way.first().copied().unwrap_or(self.next)
    }
}

/// What every pointer is followed with.
struct Means<S, K, F> {
    sender: S,
    clock: K,
    follow: F,
    pseudonyms: PseudonymKey,
    metrics: Metrics,
}

/// Follows the pointers of one member's partitions. It owns its ports; nothing else may use them.
pub struct Pointers<L, S, K, F> {
    log: L,
    /// Where links may lead beside the object stores.
    own: Option<String>,
    means: Rc<Means<S, K, F>>,
    tasks: BTreeMap<i32, Task>,
}

/// What is under way gives its partition, term and offset when it is done.
type UnderWay = FuturesUnordered<LocalBoxFuture<'static, (i32, u64, i64)>>;

impl<L, S, K, F> Pointers<L, S, K, F>
where
    L: Log,
    S: Sender,
    K: Clock + 'static,
    F: Follow + 'static,
{
    /// A reader of `raw-terra` that reads nothing yet. Links may lead to the object stores, and to `own`, where it is
    /// given: scheme, host and port of a bucket of ours.
    pub fn new(
        log: L,
        own: Option<String>,
        sender: S,
        clock: K,
        follow: F,
        pseudonyms: PseudonymKey,
        metrics: Metrics,
    ) -> Self {
        let means = Rc::new(Means { sender, clock, follow, pseudonyms, metrics });
        Self { log, own, means, tasks: BTreeMap::new() }
    }

    /// Runs until it is asked to stop. What is under way then is left: whoever reads on begins with it.
    ///
    /// # Errors
    /// What no repetition mends: an offset that the log does not reach.
    pub async fn run(&mut self, stop: &Stop) -> Result<()> {
        let mut under_way = UnderWay::new();
        let mut done = Ok(());
        while done.is_ok() && !stop.is_set() {
            done = self.step(&mut under_way).await;
            if let Err(error) = &done
                && error.kind.disposition() != Disposition::Stop
            {
                self.means.failed(error);
                self.means.clock.sleep(PAUSE.0).await;
                done = Ok(());
            }
        }
        drop(under_way);
        if let Err(error) = self.commit().await {
            self.means.failed(&error); // what is not committed is archived again, and recognised
        }
        for owned in self.log.owned() {
            self.log.release(owned.partition, owned.term);
        }
        self.tasks.clear();
        done
    }

    async fn step(&mut self, under_way: &mut UnderWay) -> Result<()> {
        self.commit().await?;
        self.keep_owned();
        for owned in self.log.owned() {
            if !owned.revoking && !self.tasks.contains_key(&owned.partition) {
                self.begin(owned).await?;
            }
        }
        self.take(under_way);
        let next = match future::select(under_way.next(), pin!(self.log.wait(WAIT))).await {
            Either::Left((Some(done), _)) => Some(done),
            Either::Left((None, waiting)) => {
                waiting.await;
                None
            }
            Either::Right(_) => None,
        };
        if let Some((partition, term, offset)) = next
            && let Some(task) = self.tasks.get_mut(&partition).filter(|task| task.term == term)
        {
            task.under_way.remove(&offset);
        }
        Ok(())
    }

    /// Lets go of what is asked back, and forgets what is gone.
    fn keep_owned(&mut self) {
        for owned in self.log.owned() {
            if owned.revoking {
                self.log.release(owned.partition, owned.term);
            }
        }
        let owned = self.log.owned();
        self.tasks.retain(|partition, task| {
            let same = |now: &Owned| now.partition == *partition && now.term == task.term;
            owned.iter().any(|now| same(now) && !now.revoking)
        });
    }

    /// Begins to read a partition where the group left it.
    async fn begin(&mut self, owned: Owned) -> Result<()> {
        let partition = owned.partition;
        let committed = self.log.committed(partition).await?;
        let (first, end) = self.log.bounds(partition).await?;
        let next = committed.map_or(first, |committed| committed.offset);
        if !(first..=end).contains(&next) {
            let code = format!("{}/{partition}: {next} is not in {first}..{end}", self.log.topic());
            let doing = "read on where the group left raw-terra";
            return Err(Error::new(Kind::InternalError, doing, code));
        }
        self.log.seek(partition, next).await?;
        let (term, under_way) = (owned.term, BTreeSet::new());
        self.tasks.insert(partition, Task { term, next, under_way, committed: next });
        Ok(())
    }

    fn take(&mut self, under_way: &mut UnderWay) {
        let room = UNDER_WAY_MAX.saturating_sub(under_way.len());
        let partitions: Vec<i32> = self.tasks.keys().copied().collect();
        if room == 0 || partitions.is_empty() {
            return;
        }
        for record in self.log.take(&partitions, room, BATCH_BYTES_MAX) {
            let Some(task) = self.tasks.get_mut(&record.partition) else { continue };
            task.next = record.offset.saturating_add(1);
            let written_at = record.timestamp_ms.saturating_mul(1_000);
            let value = record.value.as_deref().unwrap_or_default();
            let said = kafka::read(value, written_at, self.own.as_deref());
            if said == Ok(Said::Inline) {
                continue;
            }
            task.under_way.insert(record.offset);
            let (means, term) = (Rc::clone(&self.means), task.term);
            under_way.push(Box::pin(async move {
                let made = match said {
                    Ok(Said::Inline) => return (record.partition, term, record.offset),
                    Ok(Said::Pointer(pointer)) => {
                        means.archived(&record, &pointer, written_at).await
                    }
                    Err(bad) => means.letter(&record, bad.kind, bad.to_string(), 0),
                };
                means.sent(made).await;
                (record.partition, term, record.offset)
            }));
        }
    }

    /// Commits how far everything is done, where that is farther than it was.
    async fn commit(&mut self) -> Result<()> {
        let owned = self.log.owned();
        let ours = |partition: i32, term: u64| {
            owned.iter().any(|now| now.partition == partition && now.term == term)
        };
        let ahead = self.tasks.iter().filter(|(partition, task)| {
            task.done() > task.committed && ours(**partition, task.term)
        });
        let offsets: Vec<(i32, i64)> = ahead.map(|(at, task)| (*at, task.done())).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        self.log.commit(&offsets).await?;
        for (partition, offset) in offsets {
            if let Some(task) = self.tasks.get_mut(&partition) {
                task.committed = offset;
            }
        }
        Ok(())
    }
}

impl<S: Sender, K: Clock, F: Follow> Means<S, K, F> {
    fn failed(&self, error: &Error) {
        self.metrics.errors.at([error.kind.name()]).inc();
        tracing::warn!(kind = error.kind.name(), doing = error.doing, code = %error.code, "pausing");
    }

    /// What stands behind a pointer, as a raw document; or its dead letter.
    async fn archived(&self, record: &Record, pointer: &Pointer, written_at: i64) -> OutRecord {
        let mut pause = PAUSE.0;
        for tries in 0_u32.. {
            let endless = pointer.dies_at.is_none() && tries >= TRIES_MAX;
            if pointer.is_dead(self.clock.now_us()) || endless {
                return self.letter(record, Kind::WearableApiError, DEAD.to_owned(), tries);
            }
            let fetched = self.follow.follow(&pointer.link).await;
            self.metrics.fetches.at([kafka::WRITER, fetched.outcome.name()]).inc();
            if let Some((content_type, body)) = fetched.document {
                let status = fetched.status.unwrap_or_default();
                return self.document(record, written_at, &content_type, status, body);
            }
            let why = match fetched.outcome {
                Outcome::Answered(Answer::Limited(_) | Answer::Unavailable)
                | Outcome::Unreachable
                | Outcome::Silent
                | Outcome::TooSlow
                | Outcome::BrokenOff => None,
                Outcome::Answered(_) => Some((Kind::WearableApiError, DEAD)),
                Outcome::Redirected => {
                    Some((Kind::WearableApiError, "a link that leads elsewhere"))
                }
                Outcome::NotJson => {
                    Some((Kind::WearableApiError, "what the link gives is no JSON"))
                }
                Outcome::TooLarge => {
                    Some((Kind::PayloadTooLarge, "the body is above what the log takes"))
                }
            };
            if let Some((kind, why)) = why {
                return self.letter(record, kind, why.to_owned(), tries.saturating_add(1));
            }
            self.clock.sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE.1);
        }
        self.letter(record, Kind::WearableApiError, DEAD.to_owned(), u32::MAX)
    }

    /// A body as the log has it: keyed as a webhook's, and received when its pointer was written.
    fn document(
        &self,
        pointer: &Record,
        written_at: i64,
        content_type: &str,
        status: u16,
        body: Bytes,
    ) -> OutRecord {
        let sha256 = sha256_hex(&body);
        let short = sha256.get(..32).unwrap_or(&sha256);
        let user = find(kafka::WRITER).map(|terra| terra.key_user(&Verified::default(), &body));
        let whose = match user {
            Some(KeyUser::One(user)) => self.pseudonyms.vendor_user(kafka::WRITER, &user),
            _ => short.to_owned(),
        };
        let headers = Headers::with_capacity(9)
            .with(header::VENDOR, text(kafka::WRITER))
            .with(header::DELIVERY_ID, text(short))
            .with(header::RECEIVED_AT, text(written_at.to_string()))
            .with(header::CONTENT_TYPE, text(content_type))
            .with(header::RECORD_TYPE, text(kafka::PAYLOAD))
            .with(header::ORIGIN, text("live"))
            .with(header::HTTP_STATUS, text(status.to_string()))
            .with(header::SOURCE, text(place(pointer)))
            .with(header::SHA256, text(sha256.as_str()));
        let key = Some(text(format!("{}:{whose}", kafka::WRITER)));
        OutRecord { topic: Topic::RawDocuments, key, headers, value: Some(body) }
    }

    /// A pointer that leads to nothing, with its exact bytes.
    fn letter(&self, pointer: &Record, kind: Kind, why: String, tries: u32) -> OutRecord {
        self.metrics.failures.at(["hydrate", kind.name()]).inc();
        self.metrics.errors.at([kind.name()]).inc();
        let headers = Headers::with_capacity(10)
            .with(header::VENDOR, text(kafka::WRITER))
            .with(header::ORIGINAL_TOPIC, text(pointer.topic.name()))
            .with(header::ORIGINAL_PARTITION, text(pointer.partition.to_string()))
            .with(header::ORIGINAL_OFFSET, text(pointer.offset.to_string()))
            .with(header::ERROR_TYPE, text(kind.name()))
            .with(header::ERROR_MESSAGE, text(why))
            .with(header::RETRY_COUNT, text(tries.to_string()))
            .with(header::STAGE, text("hydrate"))
            .with(header::INDEXES, text("0"))
            .with(header::COUNT, text("1"))
            .with(header::FAILED_AT, text(self.clock.now_us().to_string()));
        let value = pointer.value.clone();
        OutRecord { topic: Topic::DeadLetters, key: None, headers, value }
    }

    /// Sends until it is acknowledged: a record is never skipped for the world's fault.
    async fn sent(&self, made: OutRecord) {
        let mut pause = PAUSE.0;
        loop {
            match self.sender.send(made.clone()).await {
                Ok(_place) => return,
                Err(error) => self.failed(&error),
            }
            self.clock.sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE.1);
        }
    }
}

/// Where a record stands, as headers write it.
fn place(record: &Record) -> String {
    format!("{}/{}/{}/0", record.topic.name(), record.partition, record.offset)
}
