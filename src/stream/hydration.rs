//! The hydrator's ports: the queue of records to be fetched, and the vault of tokens.
//!
//! Times go in and come out as spans, never as moments: what is due is decided by the one clock of whoever implements
//! a port, and so it is the same for all replicas.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;

use uuid::Uuid;

use crate::error::Result;
use crate::model::event::Origin;
use crate::model::id::{ConnectionId, Source};
use crate::model::state::HydrationKey;
use crate::model::time::Micros;

/// A record that this worker is to fetch, until its lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The record.
    pub key: HydrationKey,
    /// Who asked for it last when it was claimed.
    pub source: Source,
    /// When that was received, µs.
    pub asked_at: i64,
    /// Whether it is news or history.
    pub origin: Origin,
    /// "Not there yet" in a row.
    pub attempts: u32,
    /// Tries in a row that the vendor, or the way to it, spoiled.
    pub failures: u32,
    /// Why it waited, as [`Fate::Later`] said.
    pub reason: Option<String>,
    /// The vendor's user; absent where the connection does not hold any more.
    pub vendor_user: Option<String>,
    /// What this claim is told by: another one of the same row has another.
    pub lease: i64,
}

/// How a claimed record goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its body is in the log.
    Done,
    /// The vendor says that there is no such record, and nothing of it is in the log: the row says so.
    Nothing,
    /// It was not tried: as it was, at once.
    Untried,
    /// Again, after so long.
    Later {
        /// How long.
        after: Duration,
        /// What [`Claimed::attempts`] is then.
        attempts: u32,
        /// What [`Claimed::failures`] is then.
        failures: u32,
        /// Why: a literal of ours.
        reason: &'static str,
    },
    /// Never again, unless somebody asks anew.
    GivenUp {
        /// Why: a literal of ours.
        reason: &'static str,
    },
}

/// Which records are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// What somebody waits for.
    News,
    /// What was before.
    History,
}

/// What stands for history's share of a vendor's limits among the subjects of buckets.
pub const HISTORY: ConnectionId = ConnectionId(Uuid::max());

/// One limit of a vendor, as a bucket needs it (`hydrator::quota`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Whose calls it counts; absent for those of the whole app, [`HISTORY`] for history's share of them.
    pub subject: Option<ConnectionId>,
    /// Which of the limits it is: its window, s.
    pub window_s: i32,
    /// The most calls in the slots that count.
    pub calls: i32,
    /// How long a slot is, µs.
    pub slot_us: i64,
    /// How many slots count, the one of now included.
    pub slots: i64,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It may, and it is counted, in all buckets.
    Granted {
        /// How long ago it was counted, at most.
        ago: Duration,
    },
    /// Not before so long, in the app's buckets, in the connection's and in history's share; nothing is counted.
    Wait {
        /// The app's.
        app: Duration,
        /// The connection's.
        user: Duration,
        /// History's.
        history: Duration,
    },
}

/// How many records of a vendor wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The vendor.
    pub vendor: String,
    /// Of those that wait: whose time has come.
    pub due: i64,
    /// Those whose time has not.
    pub later: i64,
    /// Windows of history; they are in neither of the others.
    pub history: i64,
}

/// The records to be fetched, and the limits of who is asked for them. Shared by all replicas.
pub trait Queue: Send + Sync + 'static {
    /// Claims at most so many records of a vendor that are due: of those that are news the longest due first, of
    /// history the latest days. A claim ends with its lease, whatever became of the worker.
    fn claim(
        &self,
        vendor: &str,
        work: Work,
        at_most: usize,
        lease: Duration,
    ) -> impl Future<Output = Result<Vec<Claimed>>> + Send;

    /// Ends a claim. A record that somebody asked for anew meanwhile is to be fetched again, at once, whatever this
    /// says; a lease that has ended changes nothing. Gives whether the fate stands.
    fn end(&self, claimed: &Claimed, fate: Fate) -> impl Future<Output = Result<bool>> + Send;

    /// Ends a claim of a record that is too large to be fetched at once: these stand in its place, all or none of it.
    fn divide(
        &self,
        claimed: &Claimed,
        parts: &[String; 2],
    ) -> impl Future<Output = Result<()>> + Send;

    /// Counts one call for a connection in all of these buckets of a vendor, or in none.
    fn take(
        &self,
        vendor: &str,
        connection: ConnectionId,
        buckets: &[Bucket],
    ) -> impl Future<Output = Result<Taken>> + Send;

    /// No call of this vendor for so long, whoever makes it: its own word, above what the buckets say. Where it is of
    /// one connection, no call for that one.
    fn hold(
        &self,
        vendor: &str,
        connection: Option<ConnectionId>,
        time: Duration,
    ) -> impl Future<Output = Result<()>> + Send;

    /// What was told last of a connection's person and stands, as it was sent: events that were measured from then to then,
    /// both included; at most so many.
    fn told(
        &self,
        connection: ConnectionId,
        measured: (Micros, Micros),
        at_most: usize,
    ) -> impl Future<Output = Result<Vec<Bytes>>> + Send;

    /// How many records wait, by vendor.
    fn depths(&self) -> impl Future<Output = Result<Vec<Depth>>> + Send;
}

/// Whether history may be fetched now: only while little of anything stands before decide, so that what is new never
/// waits behind more than a batch of what was before. Asked before each fetch of history; it answers at once, by what
/// was measured last, and no where that is not known.
pub trait Room: Send + Sync + 'static {
    /// Whether there is room.
    fn is_there(&self) -> bool;
}

/// A time of which a connection's records are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose.
    pub connection: ConnectionId,
    /// Since when; from ever where absent.
    pub from: Option<Micros>,
    /// Until when: its name, beside the connection.
    pub to: Micros,
}

/// A window that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The type of its record.
    pub record_type: &'static str,
    /// Its id.
    pub record_id: String,
    /// What is claimed first: 1 before all others of history.
    pub priority: i16,
}

/// A vendor's day that is asked for over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    /// The type of its record; its id is the day.
    pub record_type: &'static str,
    /// How many days before today are asked for, too.
    pub late_days: i32,
    /// How many at most, where nobody asked for a while.
    pub back_days: i32,
    /// How long one is left alone after it was asked for.
    pub every: Duration,
}

/// What is to be asked for that no notification named. Shared by all replicas: whoever comes first writes it.
pub trait Histories: Send + Sync + 'static {
    /// Gaps of a vendor's connections that hold, of which nothing was asked for yet; at most so many. One that began by the
    /// vendor's word waits this long where the person has another connection with it: that may be the same one, whose
    /// other name is told a moment later.
    fn gaps(
        &self,
        vendor: &str,
        at_most: usize,
        settles: Duration,
    ) -> impl Future<Output = Result<Vec<Gap>>> + Send;

    /// These windows of a gap are to be fetched, once, whoever says so and how often.
    fn open(
        &self,
        vendor: &str,
        gap: &Gap,
        windows: &[Window],
    ) -> impl Future<Output = Result<()>> + Send;

    /// The days of this kind that are due, of all of the vendor's connections that can be asked for, are to be fetched,
    /// from the last one on that was asked for. One that was given up is not asked for again, nor a later one, before
    /// somebody asks anew.
    fn poll(&self, vendor: &str, polled: &Polled) -> impl Future<Output = Result<u64>> + Send;
}

/// A pair of tokens.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What a call is made with.
    pub access: SecretString,
    /// What another pair is had for; absent where the vendor gives none.
    pub refresh: Option<SecretString>,
}

/// What stands in the vault for a connection.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The tokens.
    pub pair: Pair,
    /// Counts the pairs of this connection.
    pub version: i64,
    /// How long the access token is there already, and how long it still lives (less than nothing: 0); absent where
    /// the vendor did not say.
    pub life: Option<(Duration, Duration)>,
    /// Whether only the person's consent can mend it.
    pub reauth_required: bool,
}

/// Tokens at rest, sealed. Shared by all replicas.
pub trait Vault: Send + Sync + 'static {
    /// The tokens of a connection.
    fn read(&self, connection: ConnectionId)
    -> impl Future<Output = Result<Option<Stored>>> + Send;

    /// Stores a pair in place of the one of this version (0: of none, or of any), living so long.
    /// Gives whether it was stored: not where there is another version by now.
    fn store(
        &self,
        vendor: &str,
        connection: ConnectionId,
        instead_of: i64,
        pair: &Pair,
        lives: Option<Duration>,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Whether this worker, and nobody else for so long, may exchange the refresh token of this version.
    fn begin_renewal(
        &self,
        connection: ConnectionId,
        version: i64,
        at_most: Duration,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// The exchange of this version ended without another pair: it may be tried again, or where `reauth_required`
    /// only the person's consent can mend it.
    fn end_renewal(
        &self,
        connection: ConnectionId,
        version: i64,
        reauth_required: bool,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Consent does not cover all that is asked for: noted, until another pair is stored.
    fn limited(&self, connection: ConnectionId) -> impl Future<Output = Result<()>> + Send;
}
