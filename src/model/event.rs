//! Records and events: what a vendor said, in one language, and what decide made of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{ConnectionId, EventId, Source, User};
use super::time::{Day, Micros};
use super::trigger::Trigger;

/// The version of normalise. A change of what any vendor file makes of the same bytes must bump it: a golden
/// test holds the two together, because an old binary of a rolling upgrade is recognised by it.
pub const NORMALISER: i32 = 4;

/// Whether a record is there or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// It is there, with this content.
    Upsert,
    /// It is gone.
    Delete,
}

impl Op {
    /// The name in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upsert => "UPSERT",
            Self::Delete => "DELETE",
        }
    }

    /// The op of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Upsert, Self::Delete].into_iter().find(|op| op.name() == name)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

as_text!(Op, "an op");

/// How revisions of one id come together (`design.md` §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Merge {
    /// The later content replaces the earlier.
    Replace,
    /// Samples gather by their id; the record is a bucket of one source's samples of one type on one UTC day.
    ///
    /// All samples of one record have the content's offsets (a bucket whose samples have two comes as two
    /// records), so that who keeps a sample knows where its person was.
    Union,
    /// Sample ids that are gone: no bucket of its own, decide looks them up in the buckets of the type.
    Removal,
}

impl Merge {
    /// The name in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Union => "union",
            Self::Removal => "removal",
        }
    }

    /// The merge class of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Replace, Self::Union, Self::Removal].into_iter().find(|merge| merge.name() == name)
    }
}

impl fmt::Display for Merge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

as_text!(Merge, "a merge class");

/// Why a record comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A vendor sent it now.
    Live,
    /// It was asked for, from the time before.
    Backfill,
    /// An operator put the raw record through again.
    Replay,
}

impl Origin {
    /// The name in headers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backfill => "backfill",
            Self::Replay => "replay",
        }
    }

    /// The origin of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Live, Self::Backfill, Self::Replay].into_iter().find(|origin| origin.name() == name)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

as_text!(Origin, "an origin");

/// Flags on readings and contents: a closed set of names.
pub mod flag {
    /// Outside the metric's hard range: quarantined, in no baseline, no rule.
    pub const IMPLAUSIBLE_VALUE: &str = "implausible_value";
    /// Outside the metric's soft range: kept, in no baseline.
    pub const SOFT_RANGE: &str = "soft_range";
    /// Dated more than 15 minutes after its receipt: kept, in no baseline, no trigger.
    pub const CLOCK_SKEW: &str = "clock_skew";
    /// Start and end have different offsets (travel, or a change to or from summer time).
    pub const OFFSET_CHANGE: &str = "offset_change";
    /// Local times without an offset: days are right, instants are not known. The content has no
    /// start and no end; readings stand at the local time as if it were UTC, up to 14 h off, so
    /// that their order and lengths live.
    pub const FLOATING_TIME: &str = "floating_time";
    /// Samples are left out whose times are the clock's, in a night in which the clocks changed.
    pub const DST_GAP: &str = "dst_gap";
    /// Measured by a device that several people use, and the maker does not know whether by this one: kept, in no
    /// baseline.
    pub const AMBIGUOUS_USER: &str = "ambiguous_user";
    /// Its sample id is derived, because the source gives none (UUIDv5 of connection, metric, start and source): a
    /// later receipt of the same id replaces it in its bucket, where a sample with an id of its own never changes.
    pub const DERIVED_ID: &str = "derived_id";
}

/// One measured (or reported) value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Reading {
    /// A name of `metrics.json`.
    pub metric: String,
    /// The value in the metric's canonical unit; absent where the metric has symbols.
    pub value: Option<f64>,
    /// The symbol, where the metric has symbols (`sleep_stage`: `deep`).
    pub symbol: Option<String>,
    /// The canonical unit (UCUM); absent for symbols.
    pub unit: Option<String>,
    /// When, or the start of the interval.
    pub start_at: Micros,
    /// The end of the interval (half-open); absent for an instant.
    pub end_at: Option<Micros>,
    /// The sample's id, in unions.
    pub sample_id: Option<String>,
    /// How it was made, where that changes what it means (`mean_5min`, `provider_unspecified`, …).
    pub method: Option<String>,
    /// The window of a statistic, seconds.
    pub window_s: Option<i32>,
    /// `sleep`, `day`, `workout`, `rest`, `active`, …
    pub context: Option<String>,
    /// Names of [`flag`].
    pub flags: Vec<String>,
}

by_position!(Reading {
    metric: String,
    value: Option<f64>,
    symbol: Option<String>,
    unit: Option<String>,
    start_at: Micros,
    end_at: Option<Micros>,
    sample_id: Option<String>,
    method: Option<String>,
    window_s: Option<i32>,
    context: Option<String>,
    flags: Vec<String>,
});

impl Reading {
    /// Whether rules may look at it.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        !self.flags.iter().any(|name| name == flag::IMPLAUSIBLE_VALUE || name == flag::CLOCK_SKEW)
    }
}

/// What a record says: all that its hash covers, and nothing about how it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Content {
    /// Start of what was measured, µs UTC.
    pub start_at: Option<Micros>,
    /// Its end.
    pub end_at: Option<Micros>,
    /// The offset from UTC at the start, seconds; absent means not known.
    pub start_offset_s: Option<i32>,
    /// The offset at the end.
    pub end_offset_s: Option<i32>,
    /// `vendor`, `device`, `user_fallback`, `inferred` or `unknown`.
    pub offset_provenance: String,
    /// The day or night it belongs to, days since 1970-01-01.
    pub local_date: Option<i32>,
    /// By which rule: `vendor_day`, `sleep_end`, `civil_midnight`, …
    pub day_rule: Option<String>,
    /// `tentative` or `final`.
    pub state: String,
    /// Attributes in the vendor's closed vocabulary (`is_nap`, `sport`, `sleep_type`, …), ordered by name.
    pub attributes: BTreeMap<String, String>,
    /// The app that wrote it, by bundle id.
    pub app: Option<String>,
    /// The device's model as the vendor names it.
    pub device_model: Option<String>,
    /// `automatic`, `manual`, `active` or `unknown`.
    pub recording_method: Option<String>,
    /// Names of [`flag`].
    pub flags: Vec<String>,
    /// The readings, in the order of the payload.
    pub readings: Vec<Reading>,
    /// Ids of samples that are gone (unions only). In an event they go first, before `readings` come: one that is in
    /// both is replaced.
    pub removed: Vec<String>,
}

by_position!(Content {
    start_at: Option<Micros>,
    end_at: Option<Micros>,
    start_offset_s: Option<i32>,
    end_offset_s: Option<i32>,
    offset_provenance: String,
    local_date: Option<i32>,
    day_rule: Option<String>,
    state: String,
    attributes: BTreeMap<String, String>,
    app: Option<String>,
    device_model: Option<String>,
    recording_method: Option<String>,
    flags: Vec<String>,
    readings: Vec<Reading>,
    removed: Vec<String>,
});

impl Content {
    /// The local date as a [`Day`].
    #[must_use]
    pub fn day(&self) -> Option<Day> {
        self.local_date.map(Day)
    }

    /// The end of the measurement, or its start where it has no end: what freshness and "latest" go by.
    #[must_use]
    pub fn measured_at(&self) -> Option<Micros> {
        self.end_at.or(self.start_at)
    }
}

/// One vendor record in one version, in our language: the value of `normalised-records`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct NormalisedRecord {
    /// Over connection, type and the record's id or natural key; not over content.
    pub event_id: EventId,
    /// Our user.
    pub user_id: User,
    /// The connection that it came by.
    pub connection_id: ConnectionId,
    /// Who sent it: `terra`, `healthkit`, …
    pub vendor: String,
    /// The maker in lower case.
    pub device_type: String,
    /// The way it came: `direct` or the aggregator's name.
    pub via: String,
    /// `sleep`, `daily`, `samples.heart_rate`, …
    pub record_type: String,
    /// The vendor's id of the record, or its natural key.
    pub record_id: String,
    /// How revisions come together.
    pub merge: Merge,
    /// There or gone.
    pub op: Op,
    /// The vendor's version (`updated_at`, an ordering time), µs, where it has one.
    pub version: Option<Micros>,
    /// When the door had the body complete, µs.
    pub received_at: Micros,
    /// Where it came from.
    pub source: Source,
    /// Why it comes.
    pub origin: Origin,
    /// Which normalise made it.
    pub normaliser: i32,
    /// What it says.
    pub content: Content,
}

by_position!(NormalisedRecord {
    event_id: EventId,
    user_id: User,
    connection_id: ConnectionId,
    vendor: String,
    device_type: String,
    via: String,
    record_type: String,
    record_id: String,
    merge: Merge,
    op: Op,
    version: Option<Micros>,
    received_at: Micros,
    source: Source,
    origin: Origin,
    normaliser: i32,
    content: Content,
});

/// A [`NormalisedRecord`] but for its content: what stands before it in the value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[expect(missing_docs, reason = "the fields of NormalisedRecord")]
pub struct RecordHead {
    pub event_id: EventId,
    pub user_id: User,
    pub connection_id: ConnectionId,
    pub vendor: String,
    pub device_type: String,
    pub via: String,
    pub record_type: String,
    pub record_id: String,
    pub merge: Merge,
    pub op: Op,
    pub version: Option<Micros>,
    pub received_at: Micros,
    pub source: Source,
    pub origin: Origin,
    pub normaliser: i32,
}

// Its schema is the record's, cut.
by_position!(RecordHead as "NormalisedRecord" {
    event_id: EventId,
    user_id: User,
    connection_id: ConnectionId,
    vendor: String,
    device_type: String,
    via: String,
    record_type: String,
    record_id: String,
    merge: Merge,
    op: Op,
    version: Option<Micros>,
    received_at: Micros,
    source: Source,
    origin: Origin,
    normaliser: i32,
});

/// What decide made of a record: the value of the output topics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct BiometricEvent {
    /// The record's id; with `revision` the identity of this event.
    pub event_id: EventId,
    /// 1 for the first content, then counted.
    pub revision: i32,
    /// There or gone.
    pub op: Op,
    /// Our user.
    pub user_id: User,
    /// The connection that it came by.
    pub connection_id: ConnectionId,
    /// Who sent it.
    pub vendor: String,
    /// The maker in lower case.
    pub device_type: String,
    /// The way it came.
    pub via: String,
    /// The record's type.
    pub record_type: String,
    /// The vendor's id of the record, or its natural key.
    pub record_id: String,
    /// How revisions come together; for a union `content` holds what this revision adds and removes: whoever keeps
    /// the samples first takes away what `removed` names, then adds `readings`. A sample that is replaced stands in
    /// both, with its old id and its new reading.
    pub merge: Merge,
    /// The vendor's version, µs.
    pub version: Option<Micros>,
    /// When the door had the body complete, µs.
    pub received_at: Micros,
    /// Received at − end of the measurement, µs; never "now".
    pub freshness_us: Option<Micros>,
    /// Where it came from.
    pub source: Source,
    /// Why it came.
    pub origin: Origin,
    /// Which normalise made it.
    pub normaliser: i32,
    /// What it says.
    pub content: Content,
    /// What the rules made of it.
    pub triggers: Vec<Trigger>,
}

by_position!(BiometricEvent {
    event_id: EventId,
    revision: i32,
    op: Op,
    user_id: User,
    connection_id: ConnectionId,
    vendor: String,
    device_type: String,
    via: String,
    record_type: String,
    record_id: String,
    merge: Merge,
    version: Option<Micros>,
    received_at: Micros,
    freshness_us: Option<Micros>,
    source: Source,
    origin: Origin,
    normaliser: i32,
    content: Content,
    triggers: Vec<Trigger>,
});

impl RecordHead {
    /// The record of this head and this content.
    #[must_use]
    pub fn with(self, content: Content) -> NormalisedRecord {
        NormalisedRecord {
            event_id: self.event_id,
            user_id: self.user_id,
            connection_id: self.connection_id,
            vendor: self.vendor,
            device_type: self.device_type,
            via: self.via,
            record_type: self.record_type,
            record_id: self.record_id,
            merge: self.merge,
            op: self.op,
            version: self.version,
            received_at: self.received_at,
            source: self.source,
            origin: self.origin,
            normaliser: self.normaliser,
            content,
        }
    }
}

impl NormalisedRecord {
    /// This record as the event of a revision: its age at receipt, no triggers yet.
    #[must_use]
    pub fn revised(self, revision: i32) -> BiometricEvent {
        let measured_at = self.content.measured_at();
        BiometricEvent {
            event_id: self.event_id,
            revision,
            op: self.op,
            user_id: self.user_id,
            connection_id: self.connection_id,
            vendor: self.vendor,
            device_type: self.device_type,
            via: self.via,
            record_type: self.record_type,
            record_id: self.record_id,
            merge: self.merge,
            version: self.version,
            received_at: self.received_at,
            freshness_us: measured_at.map(|at| self.received_at.saturating_sub(at)),
            source: self.source,
            origin: self.origin,
            normaliser: self.normaliser,
            content: self.content,
            triggers: Vec::new(),
        }
    }
}
