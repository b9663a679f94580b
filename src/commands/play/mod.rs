//! `simulate vendors`: vendors' APIs, OAuth servers and webhooks for invented people, in one process.
//!
//! What is true is made from a seed before anything is played, and stands in the ledger from the beginning. Then
//! simulated time begins to run, so many times as fast as the real one: announcements go out at their moments, the
//! vendors answer whoever asks. When all is announced it waits until all has been fetched, or until nobody asks any
//! more; what faults made impossible is appended to the ledger with its reason.

mod send;
mod serve;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{FAILED, USAGE, complain, done, say};
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::kafka::producer::Sending;
use crate::model::time::{Day, Micros};
use crate::roles;
use crate::sim::world::fault::{self, Shares};
use crate::sim::world::player::Played;
use crate::sim::world::stage::Stage;
use crate::sim::world::story::{Plan, Story, Way};
use crate::sim::world::truth::Line;
use crate::stream::clock::{Stopwatch, now_us};

/// How often it looks whether all has been fetched.
const LOOK: Duration = Duration::from_millis(250);
/// For how many looks in a row nothing is left and nobody waits for an answer, before it ends.
const STILL: u32 = 4;
/// After how many looks a line is printed where no bar moves.
const LINE_EVERY: u32 = 20;

/// The vendors, and the time in which they live.
#[derive(Debug)]
pub struct Theatre {
    stage: Mutex<Stage>,
    begins: Micros,
    speed: i64,
    /// Since when time runs; until then it stands at its beginning.
    since: OnceLock<Stopwatch>,
    /// Calls that were answered, for who waits until nobody calls any more.
    calls: AtomicU64,
    /// Calls whose answers are not given yet: some are given slowly.
    under_way: AtomicU64,
}

impl Theatre {
    fn new(stage: Stage, speed: u32) -> Self {
        let begins = stage.story().plan.connected();
        let (calls, under_way) = (AtomicU64::new(0), AtomicU64::new(0));
        let since = OnceLock::new();
        Self { stage: Mutex::new(stage), begins, speed: i64::from(speed), since, calls, under_way }
    }

    /// Simulated time now, µs.
    fn now(&self) -> Micros {
        let us = self.since.get().map_or(0, Stopwatch::us);
        self.begins.saturating_add(us.saturating_mul(self.speed))
    }

    /// How long until this simulated time, in real time; none where it is past.
    fn until(&self, at: Micros) -> Option<Duration> {
        let left = at.saturating_sub(self.now()) / self.speed;
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_micros)
    }

    /// The vendors; no guard is held over an await.
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command; gives the exit code: 1 where something that was announced was not fetched.
pub async fn run(what: &cli::Vendors, config: &Config, out: &mut impl Write) -> u8 {
    if what.settings {
        return done(say(out, &settings(what.listen)));
    }
    let plan = match plan(what, now_us()) {
        Ok(plan) => plan,
        Err(wrong) => {
            complain(&wrong);
            return USAGE;
        }
    };
    match perform(what, plan, config, out).await {
        Ok(true) => 0,
        Ok(false) => FAILED,
        Err(error) => done(Err(error)),
    }
}

fn names() -> Vec<&'static str> {
    Played::ALL.iter().map(|vendor| vendor.name()).collect()
}

fn plan(what: &cli::Vendors, now_us: Micros) -> std::result::Result<Plan, String> {
    let yesterday = Day(Day::of_utc(now_us).0 - 1);
    let last = match what.last_day.as_deref() {
        None => yesterday,
        Some(text) => Day::parse(text).ok_or("--last-day: a date as 2026-03-29")?,
    };
    if last > yesterday {
        return Err("--last-day: a day that is over in UTC".to_owned());
    }
    let named = if what.vendors == "all" { names().join(",") } else { what.vendors.clone() };
    let asked = named.split(',').map(str::trim).filter(|name| !name.is_empty());
    let known = || names().join(", ");
    let vendors = asked
        .map(|name| {
            Played::parse(name).ok_or_else(|| format!("--vendors: `{name}`: one of {}", known()))
        })
        .collect::<std::result::Result<Vec<Played>, String>>()?;
    if vendors.is_empty() {
        return Err(format!("--vendors: some of {}", known()));
    }
    if !(0..what.days).contains(&what.history) {
        return Err("--history: fewer days than --days".to_owned());
    }
    Ok(Plan {
        seed: what.seed,
        people: what.people,
        first: Day(last.0.saturating_sub(what.days - 1)),
        days: what.days,
        history: what.history,
        subscriptions: what.subscriptions,
        vendors,
        shares: Shares::parse(&what.faults).map_err(|wrong| format!("--faults: {wrong}"))?,
    })
}

/// What each fault is, for `--help`.
#[must_use]
pub fn faults() -> String {
    format!("Faults, by their share in `all`:\n{}", fault::described())
}

/// Where the program has to ask these vendors, as lines of an environment file.
fn settings(listen: std::net::SocketAddr) -> String {
    let mut lines = Vec::new();
    for vendor in Played::ALL {
        let (name, house) = (vendor.name(), vendor.house());
        let key = format!("BRIDGE__VENDORS__{}", name.to_uppercase());
        lines.push(format!("{key}__API_BASE=http://{listen}/{name}{}", house.api));
        if vendor.has_bucket() {
            lines.push(format!("{key}__BUCKET=http://{listen}/{name}"));
        }
        if !house.token.is_empty() {
            lines.push(format!("{key}__RENEWAL_URL=http://{listen}/{name}{}", house.token));
        }
        if vendor.keyset().is_some() {
            lines.push(format!("{key}__KEYSET=http://{listen}/{name}/keyset"));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Plays; gives whether all was fetched.
async fn perform(
    what: &cli::Vendors,
    plan: Plan,
    config: &Config,
    out: &mut impl Write,
) -> Result<bool> {
    let mut secrets = BTreeMap::new();
    for vendor in &plan.vendors {
        let secret = config.signing_secret(vendor.name()).ok_or_else(|| {
            let doing = "sign as a vendor; set signing_secret of each in vendors.*";
            Error::new(Kind::ValidationError, doing, vendor.name())
        })?;
        secrets.insert(*vendor, secret.expose_secret().to_owned());
    }
    let stage = Stage::new(Story::new(plan), what.speed, secrets.clone());
    let mut ledger = what.ledger.as_deref().map(create).transpose()?;
    if let Some(ledger) = &mut ledger {
        write_lines(ledger, stage.story().lines())?;
    }
    if let Some(path) = &what.connections {
        write_connections(path, &stage)?;
    }
    if what.prepare {
        say(out, &prepared(&stage, what.output.json))?;
        return Ok(true);
    }
    let listener = TcpListener::bind(what.listen).await.map_err(|error| {
        Error::new(Kind::InternalError, "listen on --listen", format!("{:?}", error.kind()))
    })?;
    let theatre = Arc::new(Theatre::new(stage, what.speed));
    let (stop, over) = (roles::stop_on_signals()?, CancellationToken::new());
    let served = tokio::spawn(serve::serve(listener, Arc::clone(&theatre), over.clone()));
    begin(&theatre, Duration::from_secs(what.patience), &stop).await;
    let log = theatre.stage().story().notices.iter().any(|notice| notice.way != Way::Door);
    let log = log.then(|| Sending::start(&config.kafka, "simulate")).transpose()?.map(Arc::new);
    let address = format!("http://{}", what.listen);
    let to = (what.target.as_str(), address.as_str());
    let sent = send::all(Arc::clone(&theatre), to, secrets, log, stop.clone());
    let progress = tokio::spawn(show(what.output.json, Arc::clone(&theatre), over.clone()));
    sent.await?;
    wait(&theatre, Duration::from_secs(what.patience), &stop).await;
    over.cancel();
    for task in [served, progress] {
        task.await.map_err(|_| Error::internal("play vendors"))?;
    }
    let now = theatre.now();
    let stage = theatre.stage();
    let excuses = stage.excuses(now);
    if let Some(ledger) = &mut ledger {
        write_lines(ledger, excuses.iter().cloned().map(Line::Excuse))?;
        write_lines(ledger, stage.ends(now).into_iter().map(Line::End))?;
    }
    let waiting = stage.waiting(now);
    say(out, &summary(&stage, excuses.len(), waiting, what.output.json))?;
    Ok(waiting == 0)
}

/// Lets time begin: where subscriptions are played, when there is one for all that will be announced, or nobody makes any.
async fn begin(theatre: &Theatre, patience: Duration, stop: &CancellationToken) {
    let waiting = Stopwatch::start();
    while !theatre.stage().is_subscribed() && !stop.is_cancelled() && waiting.elapsed() < patience {
        tokio::time::sleep(LOOK).await;
    }
    theatre.since.get_or_init(Stopwatch::start);
}

/// Waits until all has been fetched and the last answers have been given, or until nobody asks any more.
async fn wait(theatre: &Theatre, patience: Duration, stop: &CancellationToken) {
    let (mut calls, mut quiet, mut done) = (0, Stopwatch::start(), 0_u32);
    while !stop.is_cancelled() && quiet.elapsed() < patience {
        let now = theatre.now();
        let all = theatre.stage().waiting(now) == 0;
        done = if all && theatre.under_way.load(Ordering::Relaxed) == 0 { done + 1 } else { 0 };
        if done >= STILL {
            return;
        }
        let so_far = theatre.calls.load(Ordering::Relaxed);
        if so_far != calls {
            (calls, quiet) = (so_far, Stopwatch::start());
        }
        tokio::time::sleep(LOOK).await;
    }
}

// ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────

fn failed(doing: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::new(Kind::InternalError, doing, format!("{:?}", error.kind()))
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    File::create(path).map(BufWriter::new).map_err(failed("open the ledger's file"))
}

fn write_lines(ledger: &mut impl Write, lines: impl Iterator<Item = Line>) -> Result<()> {
    for line in lines {
        let text = serde_json::to_string(&line).map_err(|_| Error::internal("write the ledger"))?;
        writeln!(ledger, "{text}").map_err(failed("write the ledger"))?;
    }
    ledger.flush().map_err(failed("write the ledger"))
}

/// Connections and first tokens, one JSON object a line, for `connections import`. For its owner alone: the tokens open
/// nothing but this world, and a file that looks like secrets is treated as one.
fn write_connections(path: &Path, stage: &Stage) -> Result<()> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("open the file of connections"))?;
    // A file that was there before keeps its mode when it is opened.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    file.set_permissions(mode).map_err(failed("close the file of connections to others"))?;
    let mut file = BufWriter::new(file);
    for (account, (tokens, lives_s)) in stage.story().accounts.iter().zip(stage.first_tokens()) {
        if !account.vendor.is_consented() {
            continue;
        }
        let mut line = json!({
            "vendor": account.vendor.name(), "vendor_user": account.vendor_user,
            "user": account.user,
        });
        if account.vendor.gives_tokens() {
            let members = line.as_object_mut();
            let members = members.ok_or_else(|| Error::internal("write a connection"))?;
            members.insert("access_token".to_owned(), tokens.access.into());
            members.insert("refresh_token".to_owned(), tokens.refresh.into());
            members.insert("expires_in".to_owned(), lives_s.into());
        }
        writeln!(file, "{line}").map_err(failed("write the file of connections"))?;
    }
    file.flush().map_err(failed("write the file of connections"))
}

// ── what a person sees ─────────────────────────────────────────────────────────────────────────────────────────

fn prepared(stage: &Stage, json: bool) -> String {
    let story = stage.story();
    let (accounts, records) = (story.accounts.len(), story.entries.len());
    let announcements = story.notices.len();
    if json {
        let shown = json!({
            "accounts": accounts, "records": records, "announcements": announcements,
        });
        return format!("{shown}\n");
    }
    format!("{accounts} accounts · {records} records · {announcements} announcements\n")
}

fn summary(stage: &Stage, excused: usize, waiting: usize, json: bool) -> String {
    let counts = stage.counts().iter();
    let quotas = stage.quotas().iter().map(|(vendor, quotas)| {
        let peaks = quotas.peaks().into_iter().map(
            |(limit, peak)| json!({"window_s": limit.window_s, "calls": limit.calls, "peak": peak}),
        );
        let peaks: Vec<_> = peaks.collect();
        json!({
            "vendor": vendor.name(), "taken": quotas.taken, "exceeded": quotas.exceeded,
            "windows": peaks,
        })
    });
    if json {
        let mut by_vendor: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for ((vendor, what), count) in counts {
            by_vendor.entry(vendor.name()).or_default().insert(what, *count);
        }
        let quotas: Vec<_> = quotas.collect();
        let shown = json!({
            "counts": by_vendor, "quotas": quotas, "excused": excused, "waiting": waiting,
        });
        return format!("{shown}\n");
    }
    let mut lines: Vec<String> = counts
        .map(|((vendor, what), count)| format!("{count:>10}  {} {what}", vendor.name()))
        .collect();
    for (vendor, quotas) in stage.quotas() {
        for (limit, peak) in quotas.peaks() {
            let (of, window) = (limit.calls, limit.window_s);
            lines.push(format!(
                "{peak:>10}  {} calls of {of} in {window} s, at most",
                vendor.name()
            ));
        }
    }
    lines.push(format!("{excused:>10}  impossible, with a reason in the ledger"));
    lines.push(format!("{waiting:>10}  announced and never fetched"));
    lines.push(String::new());
    lines.join("\n")
}

/// Shows how it goes on, on standard error: a bar of simulated time, or a line now and then.
async fn show(json: bool, theatre: Arc<Theatre>, over: CancellationToken) {
    if json {
        return;
    }
    let plan = theatre.stage().story().plan.clone();
    let bar = bar(u64::try_from(plan.days).unwrap_or(0));
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = over.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        looks += 1;
        let now = theatre.now().min(plan.ends() - 1);
        let (day, calls) = (Day::of_utc(now), theatre.calls.load(Ordering::Relaxed));
        let waiting =
            if looks % LINE_EVERY == 1 { Some(theatre.stage().waiting(now)) } else { None };
        bar.set_position(u64::try_from(day.0 - plan.first.0).unwrap_or(0));
        if let Some(waiting) = waiting {
            bar.set_message(format!("{day} · {calls} calls · {waiting} records to come"));
            if !std::io::stderr().is_terminal() {
                complain(&format!("day={day} calls={calls} to_come={waiting}"));
            }
        }
    }
    bar.finish_and_clear();
}

fn bar(days: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(days), ProgressDrawTarget::stderr_with_hz(4));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} days {msg}") {
        bar.set_style(style);
    }
    bar
}
