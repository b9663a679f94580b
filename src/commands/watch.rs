//! `simulate traffic` as a person sees it: a table that moves, and at the end what came of it.
//!
//! With `--watch` the output topics are read meanwhile, as NEUROS reads them: a latency is from the receipt at the
//! door to the moment a reader of committed records has the event. What the pipeline did with the rest (duplicates,
//! dead letters, lag) stands on its own metrics page. Where the output is no terminal, a plain line every few seconds.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comfy_table::Table;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::http::Client;
use super::simulate::{self, Line, Tally, quantile};
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::kafka::scan::{self, Go};
use crate::model::contract::Topic;
use crate::model::event::Origin;
use crate::model::state::Notes;
use crate::postgres::register::PostgresRegister;
use crate::roles;
use crate::sim::traffic::{Keys, Person};
use crate::stream::Register as _;
use crate::stream::clock::{Stopwatch, now_us};

/// How often the table moves, and how often a plain line is printed.
const TICK: Duration = Duration::from_millis(500);
const PLAIN_EVERY: u32 = 10;
/// How long a process that starts may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Latencies of the last so many events are shown.
const REMEMBERED: usize = 4096;

/// What the traffic and its readers have seen so far.
#[derive(Default)]
struct Seen {
    tally: Tally,
    events: u64,
    triggers: u64,
    latencies: Vec<f32>,
    first: Option<String>,
}

type Shared = Arc<Mutex<Seen>>;

fn seen(shared: &Shared) -> std::sync::MutexGuard<'_, Seen> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command; gives the exit code: 1 where an answer was wrong.
pub async fn traffic(what: &cli::Traffic, config: &Config, out: &mut impl Write) -> u8 {
    match send(what, config).await {
        Ok(tally) => {
            let code = super::done(super::say(out, &summary(&tally, what.output.json)));
            if tally.wrong + tally.other > 0 { super::FAILED } else { code }
        }
        Err(error) => super::done(Err(error)),
    }
}

fn summary(tally: &Tally, json: bool) -> String {
    let (p50, p99) = (tally.quantile(0.5), tally.quantile(0.99));
    if json {
        let mut shown = serde_json::to_value(tally).unwrap_or_default();
        if let Some(object) = shown.as_object_mut() {
            object.insert("p50_ms".to_owned(), p50.into());
            object.insert("p99_ms".to_owned(), p99.into());
        }
        return format!("{shown}\n");
    }
    format!(
        "in {:.1} s sent {} · accepted {} · refused {} · unavailable {} · unanswered {} · other {} · wrong {}\n\
         answered within {p50:.1} ms (p50), {p99:.1} ms (p99), from each request's moment\n",
        tally.seconds,
        tally.sent,
        tally.accepted,
        tally.refused,
        tally.unavailable,
        tally.unanswered,
        tally.other,
        tally.wrong,
    )
}

async fn send(what: &cli::Traffic, config: &Config) -> Result<Tally> {
    let keys = keys(config)?;
    connect(what.users, config).await?;
    let stop = roles::stop_on_signals()?;
    if what.watch {
        ready(config, &stop).await?;
    }
    let shared = Shared::default();
    let readers = Arc::new(AtomicBool::new(what.watch));
    let ended = CancellationToken::new();
    let mut watching = Vec::new();
    if what.watch {
        let codec = Arc::new(roles::codec(config).await?);
        for topic in [Topic::BiometricEvents, Topic::TerraBiometricEvents] {
            let (config, codec) = (config.clone(), Arc::clone(&codec));
            let (shared, on) = (Arc::clone(&shared), Arc::clone(&readers));
            watching.push(tokio::task::spawn_blocking(move || {
                scan::follow(&config.kafka, topic, |record| {
                    if let Some(event) = record
                        .and_then(|record| record.value)
                        .and_then(|value| codec.decode_event(&value).ok())
                        .filter(|event| Person::is_invented(&event.user_id))
                    {
                        see(&mut seen(&shared), &event);
                    }
                    if on.load(Ordering::Acquire) { Go::On } else { Go::Enough }
                })
            }));
        }
        tokio::spawn(show(Arc::clone(&shared), config.admin.address.to_string(), ended.clone()));
    }
    let counted = Arc::clone(&shared);
    let on_line = move |line: &Line| seen(&counted).tally.add(line);
    let tally = simulate::traffic(what, keys, stop, on_line).await;
    if what.watch {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    readers.store(false, Ordering::Release);
    ended.cancel();
    for reader in watching {
        reader.await.map_err(|_| Error::internal("read the output topics"))??;
    }
    tally
}

/// Waits until ingress and pipeline say that they are ready.
async fn ready(config: &Config, stop: &CancellationToken) -> Result<()> {
    let url = format!("http://{}", config.admin.address);
    let begun = Stopwatch::start();
    while !stop.is_cancelled() && begun.elapsed() < READY_WITHIN {
        if let Some(mut page) = Client::new(&url, Duration::from_secs(3))
            && let Some(answer) = page.send("GET", "/ready", &[], Vec::new()).await
            && answer.status == 200
        {
            return Ok(());
        }
        tokio::time::sleep(TICK).await;
    }
    let doing = "wait for /ready of admin.address; is `biometric-bridge all` running?";
    Err(Error::new(Kind::Overloaded, doing, ""))
}

fn keys(config: &Config) -> Result<Keys> {
    let key = |vendor: &str| {
        let secret = config.signing_secret(vendor).ok_or_else(|| {
            let doing = "sign traffic; set vendors.terra and vendors.healthkit signing_secret";
            Error::new(Kind::ValidationError, doing, "")
        })?;
        Ok(secret.expose_secret().as_bytes().to_vec())
    };
    Ok(Keys { terra: key("terra")?, healthkit: key("healthkit")? })
}

/// Makes the HealthKit connections of the invented people, as `connections add` would; Terra's come by `auth`.
async fn connect(users: u64, config: &Config) -> Result<()> {
    let connections = (0..users).filter_map(Person::of).map(|person| person.healthkit());
    let notes = Notes { connections: connections.collect(), ..Notes::default() };
    PostgresRegister::new(config.postgres.clone(), "simulate").note(&notes).await
}

fn see(seen: &mut Seen, event: &crate::model::event::BiometricEvent) {
    seen.events += 1;
    seen.triggers += u64::try_from(event.triggers.len()).unwrap_or(0);
    if event.origin == Origin::Live {
        if seen.latencies.len() == REMEMBERED {
            seen.latencies.drain(..REMEMBERED / 2);
        }
        #[expect(
            clippy::as_conversions,
            clippy::cast_precision_loss,
            reason = "microseconds shown as milliseconds"
        )]
        seen.latencies.push((now_us() - event.received_at) as f32 / 1e3);
    }
    if seen.first.is_none() {
        seen.first = serde_json::to_string(event).ok();
    }
}

/// Moves the table until the end.
async fn show(shared: Shared, admin: String, ended: CancellationToken) {
    let terminal = std::io::stderr().is_terminal();
    let mut page = Client::new(&format!("http://{admin}"), Duration::from_secs(2));
    let (mut first, mut drawn, mut tick) = (false, 0, 0_u32);
    while tokio::time::timeout(TICK, ended.cancelled()).await.is_err() {
        let metrics = match page.as_mut() {
            Some(page) => page.send("GET", "/metrics", &[], Vec::new()).await,
            None => None,
        };
        let metrics = metrics.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
        let mut lines = Vec::new();
        {
            let mut seen = seen(&shared);
            if let Some(event) = seen.first.take().filter(|_| !first) {
                first = true;
                drawn = 0;
                super::complain(&format!("the first event:\n{event}\n"));
            }
            let figures = figures(&seen, metrics.as_deref().unwrap_or_default());
            if terminal {
                lines.extend(table(&figures).lines().map(str::to_owned));
            } else if tick.is_multiple_of(PLAIN_EVERY) {
                let plain = figures.iter().map(|(name, value)| format!("{name} {value}"));
                lines.push(plain.collect::<Vec<_>>().join(" · "));
            }
        }
        if terminal && drawn > 0 {
            super::complain(&format!("\x1b[{}A\x1b[J\x1b[1A", drawn + 1));
        }
        drawn = lines.len();
        if !lines.is_empty() {
            super::complain(&lines.join("\n"));
        }
        tick += 1;
    }
}

fn table(figures: &[(&'static str, String)]) -> String {
    let mut table = Table::new();
    table.set_header(figures.iter().map(|(name, _)| *name));
    table.add_row(figures.iter().map(|(_, value)| value));
    table.to_string()
}

/// What is shown, in this order.
fn figures(seen: &Seen, page: &str) -> Vec<(&'static str, String)> {
    let sum = |name: &str, label: &str| -> u64 {
        let of_name = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let (accepted, visible) = (&seen.tally.latencies, &seen.latencies);
    let recent = accepted.get(accepted.len().saturating_sub(REMEMBERED)..).unwrap_or_default();
    let ms = |values: &[f32]| format!("{:.1}/{:.1}", quantile(values, 0.5), quantile(values, 0.99));
    vec![
        ("received", seen.tally.accepted.to_string()),
        ("refused", seen.tally.refused.to_string()),
        ("503 or none", (seen.tally.unavailable + seen.tally.unanswered).to_string()),
        ("published", seen.events.to_string()),
        ("triggers", seen.triggers.to_string()),
        ("duplicates", sum("bridge_verdicts_total", "\"duplicate\"").to_string()),
        ("dead-lettered", sum("bridge_verdicts_total", "\"dead_lettered\"").to_string()),
        ("lag", sum("bridge_lag_records", "").to_string()),
        ("answer p50/p99 ms", ms(recent)),
        ("visible p50/p99 ms", ms(visible)),
    ]
}
