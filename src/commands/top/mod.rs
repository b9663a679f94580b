//! `top`: what the processes do, second by second, from their admin listeners alone.
//!
//! It asks each process for `/metrics` and `/ready`, as a Prometheus and a Kubernetes would, and shows the difference
//! to the look before: a table that moves on a terminal, elsewhere one line an interval, with `--json` one object a
//! line. It needs no Kafka and no database, so it also works where those are what is broken. A process that is away
//! is shown as away: that is what somebody looks for. `/ready` waits for its probes, so it is asked beside
//! `/metrics` and never delays it.
//!
//! The table of `make run` is this one, with the traffic above it (`commands/watch.rs`).
//!
//! # Why the first look is not printed
//! A rate needs two looks. On a terminal the first picture comes at once, with `–` for rates; a line or an object
//! that is printed always has an interval behind it, so `--once` takes as long as one.

pub mod counts;
pub mod draw;
pub mod figures;
pub mod histogram;
pub mod names;
pub mod page;
pub mod seen;

use std::io::Write;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::figures::Figures;
use self::page::Page;
use self::seen::{Answer, At, Ready, Seen};
use super::http::Client;
use super::screen::{Onto, Screen};
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::roles;
use crate::stream::clock::{Stopwatch, now_us};

/// How long a page of metrics may take.
const PAGE_WITHIN: Duration = Duration::from_secs(2);
/// How long an answer of `/ready` may take: its probes have a deadline of their own, 2 s where nobody changed it.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// The command; gives the exit code: 0, or 1 where it looks once and nothing answers.
pub async fn run(what: &cli::Top, config: &Config, out: &mut impl Write) -> u8 {
    let every = Duration::from_secs(what.every);
    let own = vec![own_url(config)];
    let urls = if what.url.is_empty() { &own } else { &what.url };
    let looked = match roles::stop_on_signals() {
        Ok(stop) => look(what, Watch::new(urls, every), &stop, out).await,
        Err(error) => Err(error),
    };
    match looked {
        Ok(true) => 0,
        Ok(false) => {
            super::complain(&format!(
                "nothing answers at {}; start `biometric-bridge all`, or say with --url where the admin.address of a \
                 process is",
                urls.join(", ")
            ));
            super::FAILED
        }
        Err(error) => super::done(Err(error)),
    }
}

/// Where this machine's process is, by the configuration: an address that means every interface is asked on loopback.
#[must_use]
pub fn own_url(config: &Config) -> String {
    let mut address = config.admin.address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

/// Looks until it is stopped or has looked often enough; false where it looked once and nothing answered.
async fn look(
    what: &cli::Top,
    mut watch: Watch,
    stop: &CancellationToken,
    out: &mut impl Write,
) -> Result<bool> {
    let count = if what.once { Some(1) } else { what.count };
    let onto = Onto::Out;
    let moves = onto.is_terminal() && !what.output.json && !what.once;
    let resized = signal(SignalKind::window_change());
    let mut resized = resized.map_err(|_| Error::internal("listen to signals"))?;
    let mut ticks = tokio::time::interval(Duration::from_secs(what.every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut screen = Screen::new(&mut *out);
    let gone = |_| Error::internal("write to standard output");
    let (mut looks, mut last) = (0_u64, None);
    loop {
        let figures = tokio::select! {
            () = stop.cancelled() => break,
            _ = resized.recv(), if moves => last.take(),
            figures = async { ticks.tick().await; watch.look().await } => {
                looks += 1;
                Some(figures)
            }
        };
        let Some(figures) = figures else { continue };
        if moves {
            screen.draw(picture(&figures, what.every, onto)).map_err(gone)?;
        } else if looks > 1 {
            screen.print(&printed(what, &figures, onto)).map_err(gone)?;
        }
        if count.is_some_and(|count| looks > count) {
            return Ok(figures.any_is_there() || !what.once);
        }
        last = Some(figures);
    }
    Ok(true)
}

/// What is printed of a look where nothing moves.
fn printed(what: &cli::Top, figures: &Figures, onto: Onto) -> String {
    if what.output.json {
        serde_json::to_string(figures).unwrap_or_default()
    } else if onto.is_terminal() {
        picture(figures, what.every, onto).join("\n")
    } else {
        draw::line(figures)
    }
}

fn picture(figures: &Figures, every_s: u64, onto: Onto) -> Vec<String> {
    let width = onto.width().max(draw::WIDTH_MIN);
    draw::arrange(&draw::blocks(figures, every_s, width), width, onto.has_colours())
}

/// The processes that are looked at.
pub struct Watch {
    begun: Stopwatch,
    targets: Vec<Target>,
}

struct Target {
    seen: Seen,
    page: Option<Client>,
    /// What `/ready` said last: absent before it was asked, then its answer or that there was none.
    ready: watch::Receiver<Option<Option<Ready>>>,
    _asking: AbortOnDropHandle<()>,
}

impl Watch {
    /// A watch over the processes at these addresses, each `http://host:port`; they are asked whether they are
    /// ready from now on, this often.
    #[must_use]
    pub fn new(urls: &[String], every: Duration) -> Self {
        let begun = Stopwatch::start();
        let at = At { us: now_us(), elapsed: Duration::ZERO };
        let target = |url: &String| {
            let (tell, ready) = watch::channel(None);
            let asking = tokio::spawn(ask_ready(url.clone(), every, tell));
            Target {
                seen: Seen::new(url, at),
                page: Client::new(url, PAGE_WITHIN),
                ready,
                _asking: AbortOnDropHandle::new(asking),
            }
        };
        Self { begun, targets: urls.iter().map(target).collect() }
    }

    /// Asks all of them at once; the first look also waits for what `/ready` says.
    pub async fn look(&mut self) -> Figures {
        let begun = self.begun;
        join_all(self.targets.iter_mut().map(|target| target.look(begun))).await;
        let seen: Vec<&Seen> = self.targets.iter().map(|target| &target.seen).collect();
        Figures::of(&seen, at(begun))
    }
}

impl Target {
    async fn look(&mut self, begun: Stopwatch) {
        let answer = match self.page.as_mut() {
            Some(page) => page.send("GET", "/metrics", &[], Vec::new()).await,
            None => None,
        };
        // The interval ends where the page was read, not where the slowest neighbour's was.
        let at = at(begun);
        let answer = match answer {
            None => Answer::Nothing,
            Some(answer) if answer.status != 200 => Answer::Flawed(page::NOT_A_PAGE),
            Some(answer) => match Page::read(&answer.body) {
                Ok(page) => Answer::Page(page),
                Err(flaw) => Answer::Flawed(flaw),
            },
        };
        let ready = match answer {
            Answer::Page(_) => self.ready.wait_for(Option::is_some).await.ok(),
            Answer::Nothing | Answer::Flawed(_) => None,
        };
        let ready = ready.and_then(|ready| ready.clone().flatten());
        self.seen.take(at, answer, ready.as_ref());
    }
}

fn at(begun: Stopwatch) -> At {
    At { us: now_us(), elapsed: begun.elapsed() }
}

/// Asks one process whether it is ready, again and again, until nobody wants to know.
async fn ask_ready(url: String, every: Duration, tell: watch::Sender<Option<Option<Ready>>>) {
    let Some(mut client) = Client::new(&url, READY_WITHIN) else { return };
    while !tell.is_closed() {
        let answer = client.send("GET", "/ready", &[], Vec::new()).await;
        tell.send_replace(Some(answer.and_then(|answer| Ready::read(&answer.body))));
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests;
