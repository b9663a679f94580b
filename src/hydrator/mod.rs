//! The hydrator: a thin notification names a record, and this fetches it.
//!
//! # Why a role of its own
//! Oura and WHOOP say that a record changed and not how. What they know must be asked for, with a person's token, within
//! a quota that all of our processes share, at a service that is slow, away, or not yet ready. Nothing of that may make
//! a webhook or a partition wait: so normalise notes in Postgres what is to be fetched, and the pipeline goes on; the
//! body comes back through the log, as any input does.
//!
//! # One fetch
//! | step | file | promise |
//! | --- | --- | --- |
//! | claim a row | the port [`crate::stream::hydration::Queue`] | live before backfill; a killed worker's row comes back |
//! | whether to ask at all | `breaker.rs` | a vendor that is away is asked by one call a minute |
//! | a token | `tokens.rs` | renewed once, whoever wants it; stored before it is used. Terra wants the app's key instead |
//! | a permit | `quota.rs` | never more than the vendor allows, all replicas together |
//! | the call | `fetch.rs` | deadlines, a cap, one host; every way to end is a value |
//! | what follows | `plan.rs` | done, later, another token, given up |
//! | the body | `worker.rs` | acknowledged in `raw-documents` before the row is done |
//!
//! Whose tokens those are, and how they come to be ours, is [`connect`]: it calls vendors, too, and it needs what this has.
//!
//! A vendor has a loop and a bound of its own, so one that hangs slows no other.
//!
//! What nobody notifies, history among it, is written into the queue by `keeper.rs`, and is then fetched like the rest; but
//! behind it, within a share of the quota, and only while there is room between us and decide.
//!
//! Terra's pointers are no rows: their links die within minutes, and `pointer.rs` follows them as they come.

pub mod breaker;
pub mod connect;
pub mod fetch;
pub mod keeper;
pub mod late;
pub mod plan;
pub mod pointer;
pub mod quota;
pub mod tokens;
pub mod worker;

use std::time::Duration;

use serde::Deserialize;

use crate::model::connection::SETTLES_US;

/// The limits of the hydrator. Defaults stand in `config.default.toml`, with their reasons.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Fetches of one vendor that are under way at once in this process.
    pub fetches_per_vendor_max: usize,
    /// How long a vendor may take to be connected to, ms.
    pub connect_ms_max: u64,
    /// How long it may take to begin its answer, ms.
    pub first_byte_ms_max: u64,
    /// How long its whole answer may take, ms.
    pub whole_ms_max: u64,
    /// The largest body, bytes.
    pub body_bytes_max: usize,
    /// How long a record is a worker's, s: after a crash it is fetched again then.
    pub lease_s: u64,
    /// How often the queue is looked at where nothing waits, ms.
    pub look_ms: u64,
    /// How long a stop waits for what is under way, ms.
    pub drain_ms_max: u64,
    /// How many days of history are asked for when a person connects; 0 for none.
    pub history_days: i32,
    /// How often what no vendor announces is asked for, s; 0 for never.
    pub poll_s: u64,
    /// How many times faster than the clock the vendors' world runs: 1, but for vendors that are played.
    pub speed: u32,
}

/// What a fetched record may have in the log, with room for its headers.
const BODY_BYTES_MAX: usize = 15 * 1024 * 1024;
/// What a renewal of a token may add to a fetch, s (`tokens.rs`), the sending of the body included.
const BESIDES_S: u64 = 30;
/// Ten years; what a vendor has is less.
const HISTORY_DAYS_MAX: i32 = 3_650;
/// How far apart what a vendor tells of one change of a connection may come, and in however fast a world.
const SETTLES: Duration = Duration::from_micros(SETTLES_US.unsigned_abs());
const SETTLES_MIN: Duration = Duration::from_secs(10);
/// Faster than this no window has a microsecond for each of its slots.
const SPEED_MAX: u32 = 10_000;

impl Settings {
    /// What cannot work: the key and what is allowed.
    #[must_use]
    pub fn problems(&self, production: bool) -> Vec<(&'static str, &'static str)> {
        let fetches = (1..=256).contains(&self.fetches_per_vendor_max);
        let body = (1..=BODY_BYTES_MAX).contains(&self.body_bytes_max);
        let whole_s = self.whole_ms_max.div_ceil(1_000);
        let rules = [
            ("fetches_per_vendor_max", fetches, "1 to 256"),
            ("connect_ms_max", self.connect_ms_max > 0, "above 0"),
            (
                "first_byte_ms_max",
                self.first_byte_ms_max >= self.connect_ms_max,
                "hydrator.connect_ms_max or more",
            ),
            (
                "whole_ms_max",
                (self.first_byte_ms_max..=30_000).contains(&self.whole_ms_max),
                "hydrator.first_byte_ms_max to 30000",
            ),
            ("body_bytes_max", body, "1 to 15728640"),
            (
                "lease_s",
                (whole_s.saturating_mul(2).saturating_add(BESIDES_S)..=3_600)
                    .contains(&self.lease_s),
                "twice hydrator.whole_ms_max and 30 s or more, at most 3600",
            ),
            ("look_ms", (10..=60_000).contains(&self.look_ms), "10 to 60000"),
            ("drain_ms_max", self.drain_ms_max > 0, "above 0"),
            ("history_days", (0..=HISTORY_DAYS_MAX).contains(&self.history_days), "0 to 3650"),
            ("poll_s", self.poll_s == 0 || self.poll_s >= 60, "0, or 60 and more"),
            ("speed", (1..=SPEED_MAX).contains(&self.speed), "1 to 10000"),
            ("speed", !production || self.speed == 1, "1 with profile = production"),
        ];
        rules.into_iter().filter(|(_, holds, _)| !holds).map(|(key, _, what)| (key, what)).collect()
    }

    /// A span of the vendors' world by our clock.
    #[must_use]
    pub fn paced(&self, span: Duration) -> Duration {
        span / self.speed.max(1)
    }

    /// How far back is asked for, and how often what is not announced.
    #[must_use]
    pub fn reach(&self) -> keeper::Reach {
        let poll = Some(self.poll_s).filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let settles = self.paced(SETTLES).max(SETTLES_MIN);
        keeper::Reach { history_days: self.history_days, poll, fast: self.speed > 1, settles }
    }

    /// What a call may take.
    #[must_use]
    pub const fn limits(&self) -> fetch::Limits {
        fetch::Limits {
            connect: Duration::from_millis(self.connect_ms_max),
            first_byte: Duration::from_millis(self.first_byte_ms_max),
            whole: Duration::from_millis(self.whole_ms_max),
            body_bytes: self.body_bytes_max,
        }
    }
}
