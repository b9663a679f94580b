//! What the steps ask for, are told, and decide: the types that pass between pure code and the stores.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::connection::{Connection, Gap};
use super::contract::Topic;
use super::event::{BiometricEvent, Merge, Op, Origin, Reading, flag};
use super::id::{ConnectionId, ContentHash, EventId, Place, Source, User};
use super::metric;
use super::outbox::Output;
use super::sample::{Samples, Stages, Versions};
use super::time::Micros;
use super::trigger::Trigger;
use crate::error::Kind;

// ── decide ─────────────────────────────────────────────────────────────────────────────────────────────────

/// The samples of one type of one connection: what deletions are looked up in.
pub type SampleType = (ConnectionId, String);

/// What a batch of decide must know before it can be decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Records whose latest revision is needed (a union's number stands in its bucket).
    pub events: BTreeSet<EventId>,
    /// Unions whose bucket is needed.
    pub buckets: BTreeSet<EventId>,
    /// Types whose deletions that wait for a sample are needed.
    pub waiting: BTreeSet<SampleType>,
    /// Sample ids whose buckets are needed, by type.
    pub removed: BTreeMap<SampleType, BTreeSet<Uuid>>,
    /// Types whose buckets are needed, too, where they are at most [`AROUND_DAYS`] from a bucket of the same
    /// connection that holds a removed sample: which that is, only the store can say.
    pub around: BTreeSet<SampleType>,
}

/// How far around a bucket that loses a sample others are needed, days ([`Plan::around`]).
pub const AROUND_DAYS: i32 = 2;

/// What is known of the records and samples of a [`Plan`], in one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// The latest revision of each record that has one.
    pub revisions: HashMap<EventId, Current>,
    /// The buckets that were asked for, and those that hold a removed sample.
    pub buckets: BTreeMap<EventId, Bucket>,
    /// Deletions whose sample has not come.
    pub waiting: BTreeMap<SampleType, BTreeSet<Uuid>>,
}

/// The latest revision of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its number.
    pub revision: i32,
    /// Where it stands in the total order.
    pub place: Place,
    /// There or gone.
    pub op: Op,
    /// What it says.
    pub hash: ContentHash,
}

/// A union's state: which samples it has seen, and which of them are gone. A sleep session, which is made of unions,
/// has the same: its number stands here, so that what is found around a removed sample is all there is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The record that it is.
    pub event_id: EventId,
    /// Whose.
    pub user: User,
    /// The connection and the type, under which deletions look.
    pub sample_type: SampleType,
    /// Its natural key.
    pub record_id: String,
    /// Who sent it.
    pub vendor: String,
    /// The maker.
    pub device_type: String,
    /// The UTC day, days since 1970-01-01: look-ups go from the newest.
    pub day: i32,
    /// The number of its latest revision; 0 while all it has seen was gone before it came.
    pub revision: i32,
    /// The samples that it has seen, and which of them are gone for good.
    pub samples: Samples,
    /// Those of derived ids that are there: what can be replaced, and by what.
    pub versions: Versions,
    /// Those of sleep that are there: what sessions are made of.
    pub stages: Stages,
    /// Of a sleep session, which is no bucket and has its state here: what its latest revision says.
    pub told: Option<(Op, ContentHash)>,
}

/// One revision, as it is stored: appended, never overwritten, but for its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// The record.
    pub event_id: EventId,
    /// 1, 2, …
    pub revision: i32,
    /// Its place in the total order of the record.
    pub place: Place,
    /// There or gone.
    pub op: Op,
    /// What it says.
    pub hash: ContentHash,
    /// Whose.
    pub user: User,
    /// The maker.
    pub device_type: String,
    /// When what it says was measured, µs; what "latest" goes by.
    pub measured_at: Option<Micros>,
    /// The value that was sent, framing included.
    pub event: Bytes,
}

/// How an input ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As this revision. It is its own row; no decision is stored for it.
    Published(EventId, i32),
    /// It says what this revision says.
    Duplicate(EventId, i32),
    /// This revision is later in the record's order.
    Superseded(EventId, i32),
    /// For this reason.
    Ignored(&'static str),
    /// A deletion whose samples have not come.
    Waiting,
    /// For this kind.
    DeadLettered(Kind),
}

impl Verdict {
    /// The name on rows and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Published(..) => "published",
            Self::Duplicate(..) => "duplicate",
            Self::Superseded(..) => "superseded",
            Self::Ignored(_) => "ignored",
            Self::Waiting => "waiting",
            Self::DeadLettered(_) => "dead_lettered",
        }
    }
}

/// The verdict on one record of `normalised-records`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its partition in `normalised-records`.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its raw record and position; absent where the value could not be read.
    pub source: Option<Source>,
    /// How it ended.
    pub verdict: Verdict,
}

/// What decide made of a batch: facts to be stored, then sent, then shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// New revisions, in the order of their decision.
    pub revisions: Vec<Revision>,
    /// Latest revisions whose place moves up, without another change.
    pub moved: BTreeMap<(EventId, i32), Place>,
    /// Buckets that changed, whole.
    pub buckets: BTreeMap<EventId, Bucket>,
    /// Waiting deletions that changed, whole; an empty set is removed.
    pub waiting: BTreeMap<SampleType, BTreeSet<Uuid>>,
    /// The verdict on each record of the batch; an input can have published several revisions.
    pub decisions: Vec<Decision>,
    /// What is sent, by input partition, in order of cause.
    pub outbox: BTreeMap<i32, Vec<Output>>,
    /// What the cache is to show, in order.
    pub shown: Vec<Shown>,
    /// What is only counted.
    pub facts: Facts,
}

/// What of a batch is counted and neither stored nor sent: only of live events, a replay's latency and values say
/// nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// One for each event.
    pub receipts: Vec<Receipt>,
    /// Type and severity of each trigger that somebody is to act on.
    pub triggers: Vec<(String, String)>,
    /// Metric and value of plausible readings of nights and days ([`metric::COUNTED`]).
    pub values: Vec<(&'static str, f64)>,
}

/// How an event came, for latencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Who sent it.
    pub vendor: String,
    /// When the door had it, µs.
    pub received_at: Micros,
    /// How old what it measures was by then, µs; absent where it has no time.
    pub late_us: Option<Micros>,
}

impl Facts {
    /// Takes in an event that is published.
    pub fn add(&mut self, event: &BiometricEvent) {
        if event.origin != Origin::Live {
            return;
        }
        self.receipts.push(Receipt {
            vendor: event.vendor.clone(),
            received_at: event.received_at,
            late_us: event.freshness_us,
        });
        let acting = event.triggers.iter().filter(|trigger| !trigger.muted);
        self.triggers.extend(acting.map(|one| (one.action.clone(), one.severity.clone())));
        // Samples come by the thousand; what is said of a night or a day is what v0 looked at.
        if event.merge == Merge::Replace {
            let counted = event.content.readings.iter().filter_map(|reading| {
                let name = metric::counted(&reading.metric)?;
                Some((name, reading.value.filter(|_| reading.is_plausible())?))
            });
            self.values.extend(counted);
        }
    }
}

/// What the cache shows of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whose.
    pub user: User,
    /// The maker.
    pub device_type: String,
    /// The record.
    pub event_id: EventId,
    /// Its revision.
    pub revision: i32,
    /// There or gone.
    pub op: Op,
    /// When it was measured, µs: later wins, then the higher revision.
    pub measured_at: Micros,
    /// The event for readers, JSON.
    pub json: String,
}

impl Shown {
    /// What is shown of an event; nothing where it has no time.
    #[must_use]
    pub fn of(event: &BiometricEvent) -> Option<Self> {
        // A union that only lost samples has nothing to show either: it acts as a tombstone of what is shown.
        let gone = event.content.readings.is_empty() && !event.content.removed.is_empty();
        let op = if gone { Op::Delete } else { event.op };
        let skewed = event.content.flags.iter().any(|name| name == flag::CLOCK_SKEW);
        let latest = if skewed { event.received_at } else { i64::MAX };
        let measured_at = match op {
            // What is dated in the future is no newer than its receipt, or it would be the latest for ever.
            Op::Upsert => event.content.measured_at()?.min(latest),
            // A tombstone has no time of its own: it acts on what is shown, by id.
            Op::Delete => event.content.measured_at().unwrap_or(i64::MIN),
        };
        let json = serde_json::to_string(&Document {
            device_type: &event.device_type,
            event_id: event.event_id,
            measured_at,
            readings: shown_readings(event).iter().map(ReadingShown::of).collect(),
            received_at: event.received_at,
            record_type: &event.record_type,
            revision: event.revision,
            triggers: &event.triggers,
        });
        Some(Self {
            user: event.user_id.clone(),
            device_type: event.device_type.clone(),
            event_id: event.event_id,
            revision: event.revision,
            op,
            measured_at,
            json: json.ok()?, // a number that JSON does not have cannot stand in an event
        })
    }
}

/// What readers of the cache find.
#[derive(Serialize)]
struct Document<'a> {
    device_type: &'a str,
    event_id: EventId,
    measured_at: Micros,
    readings: Vec<ReadingShown<'a>>,
    received_at: Micros,
    record_type: &'a str,
    revision: i32,
    triggers: &'a [Trigger],
}

/// A reading as readers of the cache find it: what it has not got is not there.
#[derive(Serialize)]
struct ReadingShown<'a> {
    metric: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    start_at: Micros,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_at: Option<Micros>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    flags: &'a [String],
}

impl<'a> ReadingShown<'a> {
    fn of(reading: &'a Reading) -> Self {
        Self {
            metric: &reading.metric,
            value: reading.value,
            symbol: reading.symbol.as_deref(),
            unit: reading.unit.as_deref(),
            start_at: reading.start_at,
            end_at: reading.end_at,
            method: reading.method.as_deref(),
            context: reading.context.as_deref(),
            flags: &reading.flags,
        }
    }
}

/// The most readings that the cache shows of an event: a series member is kept a thousand times over.
const READINGS_SHOWN_MAX: usize = 64;

/// The newest samples of a union; of any other record the first readings, where the summary stands.
fn shown_readings(event: &BiometricEvent) -> &[Reading] {
    let all = event.content.readings.as_slice();
    let from = match event.merge {
        Merge::Union | Merge::Removal => all.len().saturating_sub(READINGS_SHOWN_MAX),
        Merge::Replace => 0,
    };
    let until = all.len().min(from + READINGS_SHOWN_MAX);
    all.get(from..until).unwrap_or_default()
}

/// What a tombstone took from the cache: the one before must be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hole {
    /// Whose.
    pub user: User,
    /// The maker, or absent for the user's latest of all makers.
    pub device_type: Option<String>,
}

// ── normalise ──────────────────────────────────────────────────────────────────────────────────────────────

/// A vendor's user.
pub type VendorUser = (String, String);

/// Whose rows of `connections` are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Of these.
    pub vendor_users: BTreeSet<VendorUser>,
    /// Of these users of ours with a vendor.
    pub people: BTreeSet<(String, User)>,
}

impl<const N: usize> From<[VendorUser; N]> for Whose {
    fn from(users: [VendorUser; N]) -> Self {
        Self { vendor_users: users.into(), people: BTreeSet::new() }
    }
}

/// What normalise writes that is not a record: all of it keyed by source, so that twice is once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// Connections that began, or whose end was filled in.
    pub connections: Vec<Connection>,
    /// What is not known of those that began by a vendor's own word.
    pub gaps: Vec<Gap>,
    /// Records to be fetched.
    pub hydrations: Vec<Hydration>,
    /// Records whose fetch is over, because they were deleted.
    pub ended: Vec<HydrationEnd>,
    /// Items of vendor users that nobody knows yet.
    pub held: Vec<Held>,
    /// Items that ended here.
    pub verdicts: Vec<RawVerdict>,
    /// How many items of a replay give no record: counted, and not written.
    pub left_out: usize,
}

impl Notes {
    /// Whether there is nothing to write: what is only counted is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
            && self.gaps.is_empty()
            && self.hydrations.is_empty()
            && self.ended.is_empty()
            && self.held.is_empty()
            && self.verdicts.is_empty()
    }
}

/// What names a record at a vendor's API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HydrationKey {
    /// The vendor.
    pub vendor: String,
    /// The connection whose token is used.
    pub connection: ConnectionId,
    /// Our name of the record's type.
    pub record_type: String,
    /// The vendor's id.
    pub record_id: String,
}

/// A record to be fetched: ten notifications of one record are one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hydration {
    /// What to fetch.
    pub key: HydrationKey,
    /// Who asked last; one that is not newer changes nothing.
    pub source: Source,
    /// When the asking notification was received, µs.
    pub asked_at: Micros,
}

/// A deletion ends its record's fetch, unless somebody asked for it after the deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HydrationEnd {
    /// What was to be fetched.
    pub key: HydrationKey,
    /// The deletion.
    pub source: Source,
    /// When it was received, µs.
    pub asked_at: Micros,
}

/// An item that waits for its vendor user's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The item.
    pub source: Source,
    /// The vendor.
    pub vendor: String,
    /// The vendor's user.
    pub vendor_user: String,
    /// When it was received, µs: it is put through if the connection held then.
    pub received_at: Micros,
}

/// How an item of a raw record ended in normalise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawVerdict {
    /// The item.
    pub source: Source,
    /// `ignored` or `dead_lettered`.
    pub verdict: &'static str,
    /// Why: a literal of ours, or the kind's name.
    pub reason: &'static str,
}

/// Coordinates of a raw record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coordinates {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}
