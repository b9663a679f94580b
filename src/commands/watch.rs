//! `simulate traffic` as a person sees it: a table that moves, and at the end what came of it.
//!
//! With `--watch` the output topics are read meanwhile, as NEUROS reads them: a latency is from the receipt at the
//! door to the moment a reader of committed records has the event. Below it stands what the process says of itself:
//! the table of `top`. Where the output is no terminal, a plain line every few seconds.

use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::http::Client;
use super::screen::{Onto, Screen};
use super::simulate::{self, Line, Tally, quantile};
use super::top::draw::{self, Block, Row};
use super::top::figures::Figures;
use super::top::{self, Watch};
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

/// How often the table moves, s, and after how many moves a plain line is printed.
const EVERY_S: u64 = 1;
const PLAIN_EVERY: u32 = 5;
/// Before a process that starts is asked again.
const READY_PAUSE: Duration = Duration::from_millis(500);
/// How long a process that starts may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Latencies of the last so many events are shown.
const REMEMBERED: usize = 4096;
/// How many rows of the first event stand in the picture; the whole of it stands above.
const EVENT_ROWS: usize = 5;

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
    let (mut watching, mut showing) = (Vec::new(), None);
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
        let watch = Watch::new(&[top::own_url(config)], Duration::from_secs(EVERY_S));
        showing = Some(tokio::spawn(show(Arc::clone(&shared), watch, ended.clone(), stop.clone())));
    }
    let counted = Arc::clone(&shared);
    let on_line = move |line: &Line| seen(&counted).tally.add(line);
    let tally = simulate::traffic(what, keys, stop, on_line).await;
    if what.watch {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    readers.store(false, Ordering::Release);
    ended.cancel();
    if let Some(showing) = showing {
        showing.await.map_err(|_| Error::internal("show what is going on"))?;
    }
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
        tokio::time::sleep(READY_PAUSE).await;
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

/// Moves the table until the end. Once it is asked to stop the terminal is given back at once: a second signal ends
/// the process where it stands.
async fn show(shared: Shared, mut watch: Watch, ended: CancellationToken, stop: CancellationToken) {
    let onto = Onto::Error;
    let (moves, colours) = (onto.is_terminal(), onto.has_colours());
    let mut screen = Screen::new(std::io::stderr());
    let mut ticks = tokio::time::interval(Duration::from_secs(EVERY_S));
    let (mut first, mut tick) = (None, 0_u32);
    loop {
        let figures = tokio::select! {
            () = ended.cancelled() => return,
            () = stop.cancelled() => return,
            figures = async { ticks.tick().await; watch.look().await } => figures,
        };
        let (lines, event) = {
            let mut seen = seen(&shared);
            let event = seen.first.take().filter(|_| first.is_none());
            first = first.or_else(|| event.clone());
            let lines = if moves {
                let width = onto.width().max(draw::WIDTH_MIN);
                let mut blocks = vec![traffic_block(&seen, width)];
                blocks.extend(draw::blocks(&figures, EVERY_S, width));
                blocks.extend(first.as_ref().map(|event| event_block(event, width)));
                draw::arrange(&blocks, width, colours)
            } else {
                vec![line(&seen, &figures)]
            };
            (lines, event)
        };
        // Where standard error is closed there is nobody to show it to.
        let mut shown = Ok(());
        if let Some(event) = event {
            shown = shown.and_then(|()| screen.above(&format!("the first event:\n{event}\n")));
        }
        if moves {
            shown = shown.and_then(|()| screen.draw(lines));
        } else if tick.is_multiple_of(PLAIN_EVERY) {
            shown = shown.and_then(|()| screen.print(&lines.concat()));
        }
        tick += 1;
        if shown.is_err() {
            return;
        }
    }
}

/// What the traffic and its readers have seen, by name, in this order.
fn seen_so_far(seen: &Seen) -> [(&'static str, String); 7] {
    let (accepted, visible) = (&seen.tally.latencies, &seen.latencies);
    let recent = accepted.get(accepted.len().saturating_sub(REMEMBERED)..).unwrap_or_default();
    let ms = |values: &[f32]| format!("{:.1}/{:.1}", quantile(values, 0.5), quantile(values, 0.99));
    [
        ("received", seen.tally.accepted.to_string()),
        ("refused", seen.tally.refused.to_string()),
        ("503_or_none", (seen.tally.unavailable + seen.tally.unanswered).to_string()),
        ("published", seen.events.to_string()),
        ("triggers", seen.triggers.to_string()),
        ("answer_p50/p99_ms", ms(recent)),
        ("visible_p50/p99_ms", ms(visible)),
    ]
}

fn traffic_block(seen: &Seen, width: usize) -> Block {
    const TITLES: [&str; 7] =
        ["received", "refused", "503, none", "published", "triggers", "answer, ms", "visible, ms"];
    let cells = |values: Vec<&str>| {
        let cells: Vec<String> = values.iter().map(|value| format!("{value:>10}")).collect();
        cells.join(" ")
    };
    let values = seen_so_far(seen);
    let values = cells(values.iter().map(|(_, value)| value.as_str()).collect());
    let rows = vec![Row::title(cells(TITLES.to_vec())), Row::plain(values)];
    Block { width, rows }
}

/// The first event, cut to what there is room for.
fn event_block(event: &str, width: usize) -> Block {
    let mut rows = vec![Row::title("the first event, of invented people")];
    let mut rest = event.chars();
    for row in 1..=EVENT_ROWS {
        // What does not end on the last row is longer than it: the row is cut, and says so.
        let room = if row == EVENT_ROWS { usize::MAX } else { width };
        let text: String = rest.by_ref().take(room).collect();
        rows.extend((!text.is_empty()).then(|| Row::plain(text)));
    }
    Block { width, rows }
}

fn line(seen: &Seen, figures: &Figures) -> String {
    let so_far = seen_so_far(seen).map(|(name, value)| format!("{name}={value}"));
    format!("{} {}", so_far.join(" "), draw::line(figures))
}
