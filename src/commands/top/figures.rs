//! The figures of a moment: what all processes that are looked at do together. Also the shape of `--json`.
//!
//! A rate is what came in the last interval, by the interval of the process that it came from; a sum is what the
//! processes have counted since each of them started, as far back as they say. What is not known is absent, and
//! never 0.

use std::collections::BTreeMap;

use jiff::{Timestamp, Unit};
use serde::Serialize;

use super::counts::Counts;
use super::histogram::{Histogram, Quantile};
use super::names;
use super::page::Labels;
use super::seen::{At, Seen, State};
use crate::model::contract::Topic;
use crate::model::time::Micros;

/// The figures of a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// When, RFC 3339 in UTC, whole seconds.
    pub at: String,
    /// The processes in the order in which they were named.
    pub processes: Vec<Process>,
    /// What flows, by vendor.
    pub flow: BTreeMap<String, Flow>,
    /// Events that are committed, by topic; dead letters are none.
    pub published: BTreeMap<String, Count>,
    /// Ends of records that are no event, by stage and verdict; what normalise passes on is `normalised`.
    pub verdicts: BTreeMap<String, BTreeMap<String, Count>>,
    /// What is not committed yet, by stage.
    pub lag: BTreeMap<String, Lag>,
    /// How long things take, by name: see [`LATENCIES`].
    pub latencies: BTreeMap<&'static str, Latency>,
    /// The door's permits; absent where no process has a door.
    pub permits: Option<Permits>,
    /// Partitions by stage and where they stand; a stopped one waits for a person.
    pub partitions: BTreeMap<String, BTreeMap<String, u64>>,
    /// Changes of what workers own, by stage.
    pub rebalances: BTreeMap<String, Count>,
    /// Partitions that recovered, by cause.
    pub recoveries: BTreeMap<String, Count>,
    /// Producers that were dropped for a new one.
    pub producer_rebuilds: Count,
    /// Circuit breakers that opened, by what is behind them.
    pub breaker_openings: BTreeMap<String, Count>,
    /// Errors by kind.
    pub errors: BTreeMap<String, Count>,
}

/// The latencies in the order in which they are shown: the request, from its receipt to the commit of its event,
/// and the parts of a batch, first decide's, then normalise's.
pub const LATENCIES: [&str; 12] = [
    "request",
    "receipt_to_commit",
    "load",
    "decide",
    "postgres",
    "kafka",
    "redis",
    "connections",
    "convert",
    "note",
    "send",
    "commit",
];

/// A process.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Where it was asked.
    pub url: String,
    /// How it is.
    pub state: State,
    /// When it was first seen so.
    pub since: String,
    /// What is wrong with its page, where it is unreadable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flaw: Option<String>,
    /// Whether any page of it was ever read: else its sums are not known.
    pub was_there: bool,
    /// How often it was seen to start again.
    pub restarts: u32,
    /// What it depends on, by name.
    pub dependencies: BTreeMap<String, Dependency>,
}

/// A dependency of a process.
#[derive(Clone, Debug, Serialize)]
pub struct Dependency {
    /// Whether it answers.
    pub up: bool,
    /// When it was first seen so.
    pub since: String,
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Count {
    /// How many a second in the last interval; absent before there was one.
    pub per_s: Option<f64>,
    /// How many in all.
    pub in_all: u64,
}

/// What flows of one vendor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Flow {
    /// Requests answered.
    pub requests: Count,
    /// Answered 2xx: their bytes are in the log.
    pub accepted: Count,
    /// Answered 503: to be sent again.
    pub unavailable: Count,
    /// Answered anything else.
    pub refused: Count,
    /// Raw records read.
    pub records: Count,
    /// Events committed.
    pub events: Count,
}

/// What a stage has not committed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Lag {
    /// In records, of all processes.
    pub records: u64,
    /// How long the oldest record waits, s: the longest of all processes.
    pub seconds: f64,
}

/// How long something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// In the last interval.
    pub last: Span,
    /// Since the processes started.
    pub in_all: Span,
}

/// How long something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Span {
    /// How often it was done.
    pub count: u64,
    /// The median, ms; absent where it was not done.
    pub p50_ms: Option<f64>,
    /// The 99th percentile, ms.
    pub p99_ms: Option<f64>,
    /// Whether the 99th percentile lies above the histogram's last bound, which then stands in its place.
    pub p99_is_above: bool,
}

/// The door's permits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Permits {
    /// In use.
    pub used: u64,
    /// All of them.
    pub all: u64,
    /// Requests that wait for one.
    pub waiting: u64,
    /// Open connections.
    pub connections: u64,
    /// Bytes of bodies in flight.
    pub body_bytes: u64,
}

impl Figures {
    /// The figures of these processes at this moment.
    #[must_use]
    pub fn of(seen: &[&Seen], at: At) -> Self {
        let by = |name: &'static str, label: &'static str| {
            counted(seen, |counts| {
                let named = counts.counters(name);
                named.map(|(labels, count)| (of(labels, label), count)).collect()
            })
        };
        let rebuilds = by(names::PRODUCER_REBUILDS, "");
        let mut published = by(names::PUBLISHED, "topic");
        published.remove(Topic::DeadLetters.name());
        Self {
            at: time(at.us),
            processes: seen.iter().copied().map(process).collect(),
            flow: flow(seen),
            published,
            verdicts: verdicts(seen),
            lag: lag(seen),
            latencies: latencies(seen),
            permits: permits(seen),
            partitions: partitions(seen),
            rebalances: by(names::REBALANCES, "stage"),
            recoveries: by(names::RECOVERIES, "cause"),
            producer_rebuilds: total(rebuilds.into_values()),
            breaker_openings: by(names::OPENINGS, "dependency"),
            errors: by(names::ERRORS, "error_type"),
        }
    }

    /// Whether any process answers.
    #[must_use]
    pub fn any_is_there(&self) -> bool {
        self.processes.iter().any(|process| process.state.is_there())
    }

    /// The sum of all vendors' flow.
    #[must_use]
    pub fn whole_flow(&self) -> Flow {
        let sum = |count: fn(&Flow) -> Count| total(self.flow.values().map(count));
        Flow {
            requests: sum(|flow| flow.requests),
            accepted: sum(|flow| flow.accepted),
            unavailable: sum(|flow| flow.unavailable),
            refused: sum(|flow| flow.refused),
            records: sum(|flow| flow.records),
            events: total(self.published.values().copied()),
        }
    }

    /// Each verdict over all stages: no record ends in two. `published` is what is committed.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<&str, Count> {
        let mut ends: BTreeMap<&str, Vec<Count>> = BTreeMap::new();
        for (verdict, count) in self.verdicts.values().flatten() {
            ends.entry(verdict).or_default().push(*count);
        }
        ends.insert("published", self.published.values().copied().collect());
        ends.into_iter().map(|(verdict, counts)| (verdict, total(counts.into_iter()))).collect()
    }
}

/// The sum of counts.
fn total(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count::default(), |sum, count| Count {
        per_s: match (sum.per_s, count.per_s) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0.0) + other.unwrap_or(0.0)),
        },
        in_all: sum.in_all.saturating_add(count.in_all),
    })
}

/// A moment for people and machines: RFC 3339 in UTC, whole seconds.
fn time(at_us: Micros) -> String {
    let at = Timestamp::from_microsecond(at_us).ok();
    let at = at.and_then(|at| at.round(Unit::Second).ok());
    at.map_or_else(String::new, |at| at.to_string())
}

fn of(labels: &Labels, label: &str) -> String {
    labels.get(label).cloned().unwrap_or_default()
}

/// A count that came as a float, as a whole number; 0 for what is none.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and takes what is not a number for 0"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// To three decimals: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Whether anything is known of the last interval.
fn is_known(seen: &[&Seen]) -> bool {
    seen.iter().any(|seen| seen.account.step.is_some())
}

/// What is counted under each key, over all processes.
fn counted<K: Ord>(seen: &[&Seen], each: impl Fn(&Counts) -> Vec<(K, f64)>) -> BTreeMap<K, Count> {
    let mut sums: BTreeMap<K, (f64, f64)> = BTreeMap::new();
    for account in seen.iter().map(|seen| &seen.account) {
        for (key, count) in each(&account.total) {
            sums.entry(key).or_default().0 += count;
        }
        let Some((step, took)) = &account.step else { continue };
        for (key, count) in each(step) {
            sums.entry(key).or_default().1 += count / took.as_secs_f64();
        }
    }
    let known = is_known(seen);
    let count = |(in_all, per_s): (f64, f64)| Count {
        per_s: known.then(|| rounded(per_s)),
        in_all: whole(in_all),
    };
    sums.into_iter().map(|(key, sum)| (key, count(sum))).collect()
}

/// What stands on the pages of the processes that are there.
fn gauges<'a>(seen: &[&'a Seen], name: &str) -> impl Iterator<Item = (&'a Labels, f64)> {
    let pages = seen.iter().filter_map(|seen| seen.page.as_ref());
    pages.flat_map(move |page| page.samples(name))
}

fn lag(seen: &[&Seen]) -> BTreeMap<String, Lag> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (labels, records) in gauges(seen, names::LAG_RECORDS) {
        sums.entry(of(labels, "stage")).or_default().0 += records;
    }
    for (labels, seconds) in gauges(seen, names::LAG_SECONDS) {
        let longest = &mut sums.entry(of(labels, "stage")).or_default().1;
        *longest = longest.max(seconds);
    }
    let lag = |(records, seconds)| Lag { records: whole(records), seconds: rounded(seconds) };
    sums.into_iter().map(|(stage, sum)| (stage, lag(sum))).collect()
}

fn partitions(seen: &[&Seen]) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut partitions: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (labels, count) in gauges(seen, names::PARTITIONS) {
        let of_stage = partitions.entry(of(labels, "stage")).or_default();
        let here = of_stage.entry(of(labels, "state")).or_default();
        *here = here.saturating_add(whole(count));
    }
    partitions
}

fn process(seen: &Seen) -> Process {
    let dependency = |(name, (up, since)): (&String, &(bool, Micros))| {
        (name.clone(), Dependency { up: *up, since: time(*since) })
    };
    Process {
        url: seen.url.clone(),
        state: seen.state,
        since: time(seen.since),
        flaw: seen.flaw.map(|flaw| match flaw.line {
            0 => flaw.what.to_owned(),
            line => format!("line {line}: {}", flaw.what),
        }),
        was_there: seen.account.was_read(),
        restarts: seen.account.restarts,
        dependencies: seen.parts.iter().map(dependency).collect(),
    }
}

fn flow(seen: &[&Seen]) -> BTreeMap<String, Flow> {
    type Pick = fn(&mut Flow) -> &mut Count;
    let mut flow: BTreeMap<String, Flow> = BTreeMap::new();
    let none = Count { per_s: is_known(seen).then_some(0.0), in_all: 0 };
    let nothing = Flow {
        requests: none,
        accepted: none,
        unavailable: none,
        refused: none,
        records: none,
        events: none,
    };
    let requests = counted(seen, |counts| {
        let requests = counts.counters(names::REQUESTS);
        requests
            .map(|(labels, count)| ((of(labels, "vendor"), of(labels, "status")), count))
            .collect()
    });
    for ((vendor, status), count) in requests {
        let of_vendor = flow.entry(vendor).or_insert(nothing);
        of_vendor.requests = total([of_vendor.requests, count].into_iter());
        let kind = match status.as_bytes() {
            [b'2', _, _] => &mut of_vendor.accepted,
            b"503" => &mut of_vendor.unavailable,
            _ => &mut of_vendor.refused,
        };
        *kind = total([*kind, count].into_iter());
    }
    let records = counted(seen, |counts| {
        let read = counts.counters(names::RECEIVED);
        read.map(|(labels, count)| (of(labels, "vendor"), count)).collect()
    });
    let events = counted(seen, |counts| {
        let committed = counts.histograms(names::RECEIPT_TO_COMMIT);
        committed.map(|(labels, found)| (of(labels, "vendor"), found.count())).collect()
    });
    let (to_records, to_events): (Pick, Pick) = (|flow| &mut flow.records, |flow| &mut flow.events);
    for (counts, pick) in [(records, to_records), (events, to_events)] {
        for (vendor, count) in counts {
            *pick(flow.entry(vendor).or_insert(nothing)) = count;
        }
    }
    flow
}

fn verdicts(seen: &[&Seen]) -> BTreeMap<String, BTreeMap<String, Count>> {
    let ended = counted(seen, |counts| {
        let ended = counts.counters(names::VERDICTS);
        ended.map(|(labels, count)| ((of(labels, "stage"), of(labels, "verdict")), count)).collect()
    });
    let mut verdicts: BTreeMap<String, BTreeMap<String, Count>> = BTreeMap::new();
    for ((stage, verdict), count) in ended {
        verdicts.entry(stage).or_default().insert(verdict, count);
    }
    verdicts
}

fn latencies(seen: &[&Seen]) -> BTreeMap<&'static str, Latency> {
    let in_all = spans(seen.iter().map(|seen| &seen.account.total));
    let steps = seen.iter().filter_map(|seen| seen.account.step.as_ref());
    let last = spans(steps.map(|(step, _)| step));
    let shown = |name: &'static str| {
        let of = |spans: &BTreeMap<_, Histogram>| spans.get(name).map(span).unwrap_or_default();
        (name, Latency { last: of(&last), in_all: of(&in_all) })
    };
    LATENCIES.into_iter().map(shown).collect()
}

/// The histograms of all processes together, by latency.
fn spans<'a>(counts: impl Iterator<Item = &'a Counts>) -> BTreeMap<&'static str, Histogram> {
    let mut sums: BTreeMap<&'static str, Histogram> = BTreeMap::new();
    for counts in counts {
        for name in names::HISTOGRAMS {
            for (labels, histogram) in counts.histograms(name) {
                if let Some(name) = latency(name, labels) {
                    sums.entry(name).or_default().add(histogram);
                }
            }
        }
    }
    sums
}

/// Which of [`LATENCIES`] a histogram belongs to.
fn latency(name: &str, labels: &Labels) -> Option<&'static str> {
    let [request, to_commit, parts @ ..] = LATENCIES;
    match name {
        names::REQUEST_SECONDS => Some(request),
        names::RECEIPT_TO_COMMIT => Some(to_commit),
        _ => parts.into_iter().find(|part| labels.get("part").is_some_and(|is| is == part)),
    }
}

fn span(seconds: &Histogram) -> Span {
    let quantile = |share| match seconds.quantile(share) {
        None => (None, false),
        Some(Quantile::About(value)) => (Some(rounded(value * 1e3)), false),
        Some(Quantile::Above(value)) => (Some(rounded(value * 1e3)), true),
    };
    let ((p50_ms, _), (p99_ms, p99_is_above)) = (quantile(0.5), quantile(0.99));
    Span { count: whole(seconds.count()), p50_ms, p99_ms, p99_is_above }
}

fn permits(seen: &[&Seen]) -> Option<Permits> {
    let sum = |name| gauges(seen, name).map(|(_, value)| value).sum::<f64>();
    let all = whole(sum(names::PERMITS));
    (all > 0).then(|| Permits {
        used: whole(sum(names::PERMITS_IN_USE)),
        all,
        waiting: whole(sum(names::PERMITS_WAITING)),
        connections: whole(sum(names::CONNECTIONS)),
        body_bytes: whole(sum(names::BODY_BYTES)),
    })
}
