//! `audit`: an independent look at what came of it all. Lost, doubled, reordered, unexplained.
//!
//! It shares the language (`model`) with the pipeline and nothing that decides. Four witnesses are held against each
//! other: the ledger of what was sent, the raw topic, the topics of outputs as a reader of committed records sees
//! them, and Postgres. While a pipeline still works there is something unexplained, so it looks again until nothing
//! changes or its time is up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::simulate::Line;
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::kafka::scan;
use crate::model::avro::Codec;
use crate::model::contract::{PROBE_VENDOR, Topic, header};
use crate::model::event::{BiometricEvent, NormalisedRecord};
use crate::model::id::{ConnectionId, EventId, sha256_hex};
use crate::model::record::Record;
use crate::model::state::Coordinates;
use crate::postgres::lookup::Snapshot;
use crate::postgres::pool;
use crate::sim::oracle::Oracle;
use crate::sim::world::compare::compare;
use crate::sim::world::truth;
use crate::stream::clock::Stopwatch;

/// What an audit finds, by kind; a finding is coordinates and ids, never content.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// What was counted.
    pub counted: BTreeMap<&'static str, usize>,
    /// Accepted and not in the raw topic; decided and not in the topic; in the topic and not in Postgres.
    pub lost: Vec<String>,
    /// Twice in the topic.
    pub doubled: Vec<String>,
    /// A lower revision after a higher one.
    pub reordered: Vec<String>,
    /// Without an end that is stored, or with one that the rules do not give.
    pub unexplained: Vec<String>,
    /// True by the ledger of the truth, announced, and not published.
    pub missing: Vec<String>,
    /// Published, and not true by that ledger.
    pub wrong: Vec<String>,
    /// Not published for a reason that it gives: no finding.
    pub explained: Vec<String>,
}

impl Report {
    fn is_clean(&self) -> bool {
        self.findings().into_iter().all(|(_, found)| found.is_empty())
    }

    fn findings(&self) -> [(&'static str, &Vec<String>); 6] {
        [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("reordered", &self.reordered),
            ("unexplained", &self.unexplained),
            ("missing", &self.missing),
            ("wrong", &self.wrong),
        ]
    }

    fn count(&mut self, what: &'static str, count: usize) {
        *self.counted.entry(what).or_default() += count;
    }
}

/// How long to wait before looking again.
const AGAIN: Duration = Duration::from_secs(2);

/// The command; gives the exit code: 1 where there is a finding.
pub async fn run(what: &cli::Audit, config: &Config, out: &mut impl Write) -> u8 {
    let begun = Stopwatch::start();
    let report = loop {
        // A look takes long itself: what it finds is of when it began.
        let last = begun.elapsed().as_secs() >= what.wait;
        let report = match look(what, config).await {
            Ok(report) => report,
            Err(error) => return super::done(Err(error)),
        };
        if report.is_clean() || last {
            break report;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let shown = if what.output.json {
        format!("{}\n", serde_json::to_string(&report).unwrap_or_default())
    } else {
        text(&report, what.findings)
    };
    match super::done(super::say(out, &shown)) {
        0 if !report.is_clean() => super::FAILED,
        code => code,
    }
}

/// The report for a person: counts, then findings, at most so many of a kind.
fn text(report: &Report, findings: usize) -> String {
    let mut lines: Vec<String> =
        report.counted.iter().map(|(what, count)| format!("{count:>10}  {what}")).collect();
    let explained = [("explained", &report.explained)];
    for (kind, found) in report.findings().into_iter().chain(explained) {
        lines.push(format!("{:>10}  {kind}", found.len()));
        lines.extend(found.iter().take(findings).map(|finding| format!("            {finding}")));
        if found.len() > findings {
            lines.push(format!("            … and {} more", found.len() - findings));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// `digest`: the current content as one hash.
pub async fn digest(output: cli::Output, config: &Config, out: &mut impl Write) -> u8 {
    let digest = async {
        let snapshot = Snapshot::open(&pool::pool(&config.postgres)?).await?;
        snapshot.digest().await
    };
    super::done(match digest.await {
        Ok(digest) if output.json => {
            super::say(out, &format!("{}\n", serde_json::json!({ "digest": digest })))
        }
        Ok(digest) => super::say(out, &format!("{digest}\n")),
        Err(error) => Err(error),
    })
}

/// What the topics hold.
#[derive(Default)]
struct Topics {
    /// Raw records: the body's hash, and whether it is a probe of ours.
    raw: HashMap<Coordinates, (String, bool)>,
    /// Canonical records by their own coordinates; absent where the value cannot be read.
    normalised: Vec<(i32, i64, Option<NormalisedRecord>)>,
    /// Events as a reader gets them.
    events: Vec<(Coordinates, Option<BiometricEvent>, Bytes)>,
    /// Dead letters, as they are.
    letters: Vec<Record>,
    /// The same by the input's coordinates and the kind: normalise may have written one twice.
    dead: BTreeSet<(Coordinates, String)>,
    /// Values that no schema of ours reads.
    unreadable: Vec<String>,
}

fn at(record: &Record) -> Coordinates {
    Coordinates { topic: record.topic, partition: record.partition, offset: record.offset }
}

fn place(at: Coordinates) -> String {
    format!("{}/{}/{}", at.topic, at.partition, at.offset)
}

fn read_topics(config: &Config, codec: &Codec) -> Result<Topics> {
    let mut topics = Topics::default();
    // Outputs first: what is there by then has its cause in what is read after it.
    for topic in [Topic::BiometricEvents, Topic::TerraBiometricEvents] {
        scan::to_end(&config.kafka, topic, |record| {
            let value = record.value.clone().unwrap_or_default();
            topics.events.push((at(&record), codec.decode_event(&value).ok(), value));
        })?;
    }
    scan::to_end(&config.kafka, Topic::DeadLetters, |record| {
        let text = |name| record.headers.text(name).unwrap_or_default().to_owned();
        let original = Topic::parse(&text(header::ORIGINAL_TOPIC)).map(|topic| Coordinates {
            topic,
            partition: text(header::ORIGINAL_PARTITION).parse().unwrap_or(-1),
            offset: text(header::ORIGINAL_OFFSET).parse().unwrap_or(-1),
        });
        match original {
            Some(original) => drop(topics.dead.insert((original, text(header::ERROR_TYPE)))),
            None => topics.unreadable.push(place(at(&record))),
        }
        topics.letters.push(record);
    })?;
    scan::to_end(&config.kafka, Topic::NormalisedRecords, |record| {
        let read = codec.decode_record(record.value.as_deref().unwrap_or_default()).ok();
        topics.normalised.push((record.partition, record.offset, read));
    })?;
    // Fetched bodies after what asked for them.
    for topic in [Topic::RawWebhooks, Topic::RawTerra, Topic::RawDocuments] {
        scan::to_end(&config.kafka, topic, |record| {
            let hash = sha256_hex(record.value.as_deref().unwrap_or_default());
            let probe = record.headers.text(header::VENDOR) == Some(PROBE_VENDOR);
            topics.raw.insert(at(&record), (hash, probe));
        })?;
    }
    Ok(topics)
}

/// What Postgres holds.
#[derive(Default)]
struct Rows {
    revisions: HashMap<(EventId, i32), Bytes>,
    decisions: HashSet<(i32, i64)>,
    /// Raw records with a verdict, or an item that waits.
    ended: HashSet<Coordinates>,
    verdicts: BTreeMap<String, usize>,
}

async fn read_rows(config: &Config) -> Result<Rows> {
    let snapshot = Snapshot::open(&pool::pool(&config.postgres)?).await?;
    let mut rows = Rows::default();
    let mut after = None;
    while let Some(page) = Some(snapshot.revisions(after).await?).filter(|page| !page.is_empty()) {
        after = page.last().map(|row| (row.event_id, row.revision));
        let keyed = page.into_iter().map(|row| ((row.event_id, row.revision), row.event));
        rows.revisions.extend(keyed);
    }
    let mut after = None;
    while let Some(page) = Some(snapshot.decisions(after).await?).filter(|page| !page.is_empty()) {
        after = page.last().map(|row| (row.partition, row.offset));
        for row in page {
            rows.decisions.insert((row.partition, row.offset));
            *rows.verdicts.entry(row.verdict).or_default() += 1;
        }
    }
    let raw = |source: crate::model::id::Source| Coordinates {
        topic: source.topic,
        partition: source.partition,
        offset: source.offset,
    };
    let mut after = None;
    while let Some(page) = Some(snapshot.verdicts(after).await?).filter(|page| !page.is_empty()) {
        after = page.last().map(|row| row.source);
        for row in page {
            rows.ended.insert(raw(row.source));
            *rows.verdicts.entry(format!("{} in normalise", row.verdict)).or_default() += 1;
        }
    }
    let mut after = None;
    while let Some(page) = Some(snapshot.held(after).await?).filter(|page| !page.is_empty()) {
        after = page.last().map(|row| row.source);
        rows.ended.extend(page.iter().map(|row| raw(row.source)));
        *rows.verdicts.entry("held".to_owned()).or_default() += page.len();
    }
    Ok(rows)
}

fn read_ledger<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let failed = || Error::new(Kind::ValidationError, "read the ledger", "");
    let text = std::fs::read_to_string(path).map_err(|_| failed())?;
    // The last line may be half written where its writer was killed.
    let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
    whole.lines().map(|line| serde_json::from_str(line).map_err(|_| failed())).collect()
}

async fn look(what: &cli::Audit, config: &Config) -> Result<Report> {
    let codec = crate::roles::codec(config).await?;
    let reading = config.clone();
    let topics = tokio::task::spawn_blocking(move || read_topics(&reading, &codec));
    let mut topics = topics.await.map_err(|_| Error::internal("read the topics"))??;
    let rows = read_rows(config).await?;
    let mut report = Report::default();
    if let Some(path) = &what.ledger {
        hold_ledger(&read_ledger(path)?, &topics, &mut report);
    }
    if let Some(path) = &what.truth {
        hold_truth(&read_ledger(path)?, &topics, &mut report);
    }
    hold_raw(&topics, &rows, &mut report);
    hold_events(&mut topics, &rows, &mut report);
    let unreadable = topics.unreadable.into_iter();
    report.unexplained.extend(unreadable.map(|at| format!("no schema of ours reads {at}")));
    Ok(report)
}

/// Every accepted request is in the raw topic, byte for byte; no refused one is.
fn hold_ledger(ledger: &[Line], topics: &Topics, report: &mut Report) {
    let raw: HashSet<&str> = topics.raw.values().map(|(hash, _)| hash.as_str()).collect();
    let mut accepted = HashSet::new();
    let mut refused = HashSet::new();
    for line in ledger {
        match line.status {
            200..=299 => drop(accepted.insert(line.sha256.as_str())),
            401 => drop(refused.insert(line.sha256.as_str())),
            _ => {}
        }
    }
    report.count("attempts in the ledger", ledger.len());
    report.count("bodies accepted", accepted.len());
    for hash in accepted.iter().filter(|hash| !raw.contains(*hash)) {
        report.lost.push(format!("accepted and not in raw-webhooks: sha256 {hash}"));
    }
    for hash in refused.difference(&accepted).filter(|hash| raw.contains(*hash)) {
        report.unexplained.push(format!("refused and in raw-webhooks: sha256 {hash}"));
    }
}

/// Every true record is published as it is, value by value.
fn hold_truth(truth: &[truth::Line], topics: &Topics, report: &mut Report) {
    let events: Vec<&BiometricEvent> =
        topics.events.iter().filter_map(|(_, event, _)| event.as_ref()).collect();
    let found = compare(truth, &events, &without_token(&topics.letters));
    report.counted.extend(found.counted);
    report.missing = found.missing;
    report.wrong = found.wrong;
    report.doubled.extend(found.doubled);
    report.explained = found.explained;
}

/// The connections of which a fetch was given up because there is no token any more.
fn without_token(letters: &[Record]) -> HashSet<ConnectionId> {
    let hydrate = |letter: &&Record| {
        letter.headers.text(header::STAGE) == Some("hydrate")
            && letter.headers.text(header::ERROR_TYPE) == Some(Kind::AuthenticationError.name())
    };
    let connection = |letter: &Record| {
        let value = letter.value.as_deref().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(value).ok()?;
        ConnectionId::parse(value.get("connection")?.as_str()?)
    };
    letters.iter().filter(hydrate).filter_map(connection).collect()
}

/// Every raw record came to something.
fn hold_raw(topics: &Topics, rows: &Rows, report: &mut Report) {
    let relayed: HashSet<Coordinates> = topics
        .normalised
        .iter()
        .filter_map(|(_, _, record)| record.as_ref())
        .map(|record| Coordinates {
            topic: record.source.topic,
            partition: record.source.partition,
            offset: record.source.offset,
        })
        .collect();
    report.count("raw records", topics.raw.len());
    for (at, (_, probe)) in &topics.raw {
        if !probe && !relayed.contains(at) && !rows.ended.contains(at) {
            report.unexplained.push(format!("a raw record without an end: {}", place(*at)));
        }
    }
    for at in relayed.iter().filter(|at| !topics.raw.contains_key(at)) {
        report
            .unexplained
            .push(format!("a record of a raw record that is not there: {}", place(*at)));
    }
    report.count("dead letters", topics.dead.len());
}

/// The oracle's own fold over the canonical records against what was told and what is stored.
fn hold_events(topics: &mut Topics, rows: &Rows, report: &mut Report) {
    for (verdict, count) in &rows.verdicts {
        report.count(named(verdict), *count);
    }
    report.count("canonical records", topics.normalised.len());
    report.count("events", topics.events.len());
    report.count("revisions in Postgres", rows.revisions.len());
    let mut oracle = Oracle::new();
    for (partition, offset, record) in topics.normalised.drain(..) {
        oracle.input(partition, offset, record);
    }
    for (at, event, bytes) in topics.events.drain(..) {
        oracle.output(at.topic, at.partition, at.offset, event, &bytes);
    }
    for record in &topics.letters {
        oracle.dead_letter(record);
    }
    for ((id, revision), bytes) in &rows.revisions {
        oracle.row(*id, *revision, bytes);
    }
    for (partition, offset) in &rows.decisions {
        oracle.decision(*partition, *offset);
    }
    let found = oracle.verdict();
    report.lost.extend(found.lost);
    report.doubled.extend(found.doubled);
    report.reordered.extend(found.reordered);
    let others = [found.differing, found.phantom, found.apart, found.unexplained];
    report.unexplained.extend(others.into_iter().flatten());
}

/// A stored verdict's name as a count's.
fn named(verdict: &str) -> &'static str {
    match verdict {
        "duplicate" => "duplicates",
        "superseded" => "superseded",
        "ignored" => "ignored",
        "waiting" => "removals that wait for their sample",
        "held" => "held items",
        "ignored in normalise" => "ignored in normalise",
        "waiting in normalise" => "waiting for a fetch",
        "dead_lettered" | "dead_lettered in normalise" => "dead-lettered items",
        _ => "other verdicts",
    }
}
