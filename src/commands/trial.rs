//! `try`: ingress and pipeline over the world in memory. Nothing is installed, nothing is kept.
//!
//! What runs is the program itself: the door's own steps but for the socket, normalise in its relay, decide in its
//! worker, with Avro between them. Only what they stand on is `sim`'s: the log, the database, the cache, and a clock
//! that begins at the same moment every time, so that the same seed prints the same. At the end the checker that
//! shares nothing with the pipeline says whether everything is there once.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde::Serialize;

use crate::cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ingress::{self, Hatch, VendorKeys};
use crate::model::contract::{Topic, header};
use crate::model::event::BiometricEvent;
use crate::model::time::Micros;
use crate::pipeline::normalise::Unknown;
use crate::sim::EPOCH_US;
use crate::sim::driver::{Dialect, Driver, Setting};
use crate::sim::oracle::Report;
use crate::sim::real::Real;
use crate::sim::sender::SimSender;
use crate::sim::traffic::{Keys, Sent, Shares, Traffic};
use crate::stream::relay;
use crate::telemetry::metrics::Metrics;

/// What signs the invented requests, and the key of pseudonyms: of a world that ends with the command.
const KEY: &str = "not-a-secret-key-of-try";
/// Between two requests, by the world's clock.
const PAUSE: Duration = Duration::from_millis(100);
/// Rounds of the world between two requests: so few that batches of several records form.
const ROUNDS: usize = 3;

/// The command; gives the exit code: 1 where an answer or an end was not what it must be.
pub async fn run(what: &cli::Try, config: &Config, out: &mut impl Write) -> u8 {
    let result = match trial(what, config).await {
        Ok(result) => result,
        Err(error) => return super::done(Err(error)),
    };
    let shown = if what.output.json {
        format!("{}\n", serde_json::to_string(&result).unwrap_or_default())
    } else {
        result.text()
    };
    match super::done(super::say(out, &shown)) {
        0 if !result.is_right() => super::FAILED,
        code => code,
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Tried {
    seed: u64,
    /// Requests by what they were made to be.
    requests: BTreeMap<&'static str, u64>,
    /// Answers by status.
    answers: BTreeMap<u16, u64>,
    /// Answers that are not what the request asked for: a fault.
    wrong: u64,
    /// Ends of records, by stage and verdict.
    verdicts: BTreeMap<String, u64>,
    /// Dead letters by kind.
    dead_letters: BTreeMap<String, u64>,
    /// Changes by rule, severity and action.
    triggers: BTreeMap<String, u64>,
    /// The event that was received first.
    first_event: Option<BiometricEvent>,
    /// What the checker found; nothing, where all is right.
    findings: Vec<String>,
}

impl Tried {
    fn is_right(&self) -> bool {
        self.wrong == 0 && self.findings.is_empty()
    }

    fn text(&self) -> String {
        let sent: u64 = self.requests.values().sum();
        let mut text = format!("{sent} requests, seed {}, in a world in memory\n", self.seed);
        let mut table = |title: &str, rows: Vec<(String, u64)>| {
            if rows.is_empty() {
                return;
            }
            text.push_str(&format!("\n{title}\n"));
            for (name, count) in rows {
                text.push_str(&format!("{count:>8}  {name}\n"));
            }
        };
        let named = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(name, count)| (name.clone(), *count)).collect::<Vec<_>>()
        };
        let sorts = self.requests.iter().map(|(name, count)| ((*name).to_owned(), *count));
        table("requests by what they are", sorts.collect());
        let answers = self.answers.iter().map(|(status, count)| (status.to_string(), *count));
        table("answers", answers.collect());
        table("verdicts", named(&self.verdicts));
        table("dead letters", named(&self.dead_letters));
        table("triggers", named(&self.triggers));
        if let Some(event) = &self.first_event {
            let event = serde_json::to_string_pretty(event).unwrap_or_default();
            text.push_str(&format!("\nthe first event\n{event}\n"));
        }
        text.push('\n');
        if self.wrong > 0 {
            text.push_str(&format!("{} answers are not what they must be\n", self.wrong));
        }
        for finding in &self.findings {
            text.push_str(&format!("{finding}\n"));
        }
        if self.findings.is_empty() {
            text.push_str(&format!("{}\n", Report::default()));
        }
        text
    }
}

async fn trial(what: &cli::Try, config: &Config) -> Result<Tried> {
    let mut world = World::new(what, config)?;
    for auth in world.traffic.auths(world.now_us()) {
        world.knock(auth).await?;
    }
    for _ in 0..what.requests {
        let sent = world.traffic.next(world.now_us());
        world.knock(sent).await?;
    }
    world.rest()?;
    Ok(world.result(what.seed))
}

/// The world in memory with a door, a normalise and two workers of decide.
struct World {
    driver: Driver,
    door: Hatch<SimSender>,
    real: Real,
    traffic: Traffic,
    requests: BTreeMap<&'static str, u64>,
    answers: BTreeMap<u16, u64>,
    wrong: u64,
}

impl World {
    fn new(what: &cli::Try, config: &Config) -> Result<Self> {
        let real = Real::new()?;
        let setting = Setting { seed: what.seed, ..Setting::default() };
        let mut driver = Driver::with_workers(setting, &real, 2);
        let wait_max = setting.worker.wait_max;
        let settings = relay::Settings { wait_max, ..relay::Settings::default() };
        real.add_relay(&mut driver, Unknown::Hold, settings);
        let keys = Keys { terra: KEY.into(), healthkit: KEY.into() };
        let traffic = Traffic::new(what.seed, what.users, Shares::default(), keys);
        for person in traffic.people() {
            driver.connect(person.healthkit());
        }
        let signs = VendorKeys { signing: vec![KEY.into()], ..VendorKeys::default() };
        let vendors = ["terra", "healthkit"].map(|name| (name.to_owned(), signs.clone()));
        let keys = ingress::Keys { pseudonym: KEY.into(), vendors: vendors.into() };
        let door = Hatch::new(config.ingress.clone(), keys, driver.sender(), Metrics::new());
        let door = door.ok_or_else(|| Error::internal("open the door of try"))?;
        let mut world = Self {
            driver,
            door,
            real,
            traffic,
            requests: BTreeMap::new(),
            answers: BTreeMap::new(),
            wrong: 0,
        };
        world.rest()?;
        Ok(world)
    }

    fn now_us(&self) -> Micros {
        let elapsed = i64::try_from(self.driver.now().as_micros()).unwrap_or(i64::MAX);
        EPOCH_US.saturating_add(elapsed)
    }

    /// One request and its answer; meanwhile the pipeline takes a few steps.
    async fn knock(&mut self, sent: Sent) -> Result<()> {
        let Sent { vendor, headers, body, sort } = sent;
        let mut request = http::Request::post(format!("/webhooks/{vendor}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Error::internal("make a request"))?;
        let status = self.door.answer(request, self.now_us()).await.status().as_u16();
        *self.requests.entry(sort.name()).or_default() += 1;
        *self.answers.entry(status).or_default() += 1;
        self.wrong += u64::from(status != if sort.is_refused() { 401 } else { 200 });
        self.driver.advance(PAUSE);
        self.driver.step(ROUNDS);
        Ok(())
    }

    /// Lets the world come to rest.
    fn rest(&mut self) -> Result<()> {
        let stuck = |_| Error::internal("let the world come to rest");
        self.driver.run().map_err(stuck)
    }

    fn result(self, seed: u64) -> Tried {
        let events = self.events();
        let mut triggers = BTreeMap::new();
        for trigger in events.iter().flat_map(|event| &event.triggers) {
            let muted = if trigger.muted { ", muted" } else { "" };
            let name = format!("{} {} {}{muted}", trigger.rule, trigger.severity, trigger.action);
            *triggers.entry(name).or_default() += 1;
        }
        let mut dead_letters = BTreeMap::new();
        for letter in self.driver.dead_letters() {
            let kind = letter.headers.text(header::ERROR_TYPE).unwrap_or("without a kind");
            *dead_letters.entry(kind.to_owned()).or_default() += 1;
        }
        let verdicts = self.verdicts(events.len());
        let findings = self.findings();
        let first_event = events.into_iter().min_by_key(|event| (event.received_at, event.source));
        Tried {
            seed,
            requests: self.requests,
            answers: self.answers,
            wrong: self.wrong,
            verdicts,
            dead_letters,
            triggers,
            first_event,
            findings,
        }
    }

    /// What a reader of committed records gets.
    fn events(&self) -> Vec<BiometricEvent> {
        let topics = [Topic::BiometricEvents, Topic::TerraBiometricEvents];
        let records = topics.into_iter().flat_map(|topic| self.driver.committed(topic));
        records.filter_map(|record| self.real.event(record.value.as_deref()?)).collect()
    }

    fn verdicts(&self, published: usize) -> BTreeMap<String, u64> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let mut verdicts = BTreeMap::from([("decide: published".to_owned(), count(published))]);
        for decision in self.driver.decisions() {
            let name = format!("decide: {}", decision.verdict.name());
            *verdicts.entry(name).or_default() += 1;
        }
        let (_, held) = self.driver.waiting();
        let ended = self.driver.verdicts().into_iter().map(|ended| ended.verdict);
        for verdict in ended.chain(held.iter().map(|_| "held")) {
            *verdicts.entry(format!("normalise: {verdict}")).or_default() += 1;
        }
        verdicts
    }

    /// What the checker finds, and whether the door kept what it accepted and nothing else.
    fn findings(&self) -> Vec<String> {
        let report = self.driver.report(&self.real);
        let mut findings: Vec<String> =
            report.lines().map(|(kind, line)| format!("{kind}: {line}")).collect();
        let accepted = self.answers.get(&200).copied().unwrap_or(0);
        let kept = u64::try_from(self.driver.committed(Topic::RawWebhooks).len()).unwrap_or(0);
        if accepted != kept {
            findings.push(format!("accepted {accepted}, in the raw topic {kept}"));
        }
        findings
    }
}
