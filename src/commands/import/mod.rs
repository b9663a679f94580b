//! `import`: a person's history, from a file, through the ingress.
//!
//! The file (Apple's `export.xml`, the zip that holds it, or a JSON of Health Auto Export) is read as a stream and sent as
//! pushes of at most 8 MiB, by the same door and with the same token as the phone's own. Memory does not grow with the
//! file: a piece is being made, two wait, one is on its way.
//!
//! # Again
//! Nothing in these files has an id. A sample's is derived from the connection, the metric, its moment and its source,
//! so the same file sent twice counts once, and so does a later export. An import that stopped says how many pieces were
//! accepted; `--skip` passes over so many, which saves time and changes nothing else.

mod export;
mod input;
mod json;
mod piece;
mod send;

use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;

use self::input::{Format, Progress};
use self::piece::{Piece, Pieces, Tally};
use self::send::{Refused, Sender};
use super::{FAILED, USAGE, complain, done, say};
use crate::cli;
use crate::error::Error;
use crate::model::id::ConnectionId;
use crate::stream::clock::Stopwatch;

/// How many pieces wait to be sent.
const WAITING: usize = 2;
/// The most of a token's file that is read, bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Why a file was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The file is wrong here.
    File { why: &'static str, line: u64, byte: u64 },
    /// The system refused.
    System { doing: &'static str, kind: std::io::ErrorKind },
    /// Nobody takes the pieces any more.
    Stopped,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { why, line, byte } => write!(out, "{why} (line {line}, byte {byte})"),
            Self::System { doing, kind } => write!(out, "{doing}: {kind}"),
            Self::Stopped => out.write_str("stopped"),
        }
    }
}

/// What became of an import.
#[derive(Debug, Default)]
struct Outcome {
    tally: Tally,
    accepted: Accepted,
    refused: Option<Refused>,
    failure: Option<Failure>,
}

/// What the ingress has.
#[derive(Clone, Copy, Debug, Default)]
struct Accepted {
    /// The last piece of an unbroken row from the first on, those that were skipped included.
    pieces: u64,
    samples: u64,
    /// Bytes as they were sent.
    bytes: u64,
    /// How often a piece had to be sent again.
    again: u64,
}

/// Imports a file; gives the exit code: 1 where not all of it was accepted.
pub fn run(arguments: &cli::Import, out: &mut impl Write) -> u8 {
    let sender = match sender(arguments) {
        Ok(sender) => sender,
        Err(why) => {
            complain(why);
            return USAGE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return done(Err(Error::internal("start a runtime"))) };
    let outcome = runtime.block_on(import(arguments, sender));
    report(arguments, &outcome, out)
}

/// Who sends; nobody for a dry run.
fn sender(arguments: &cli::Import) -> Result<Option<Sender>, &'static str> {
    if arguments.dry_run {
        return Ok(None);
    }
    let file = arguments.token_file.as_deref();
    let token = token(file.ok_or("--token-file: needed, unless with --dry-run")?)?;
    let patience = Duration::from_secs(arguments.wait);
    let sender = Sender::new(&arguments.url, &token, patience);
    sender.map(Some).ok_or("--url: http://HOST:PORT of an ingress")
}

/// The token of a file: a connection's id, a dot, 64 hex digits.
fn token(file: &Path) -> Result<String, &'static str> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
        .map_err(|_| "--token-file: it cannot be read")?;
    let token = text.trim();
    let is_token = token.split_once('.').is_some_and(|(connection, mac)| {
        ConnectionId::parse(connection).is_some()
            && mac.len() == 64
            && mac.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if is_token { Ok(token.to_owned()) } else { Err("--token-file: no token of `connections add`") }
}

async fn import(arguments: &cli::Import, sender: Option<Sender>) -> Outcome {
    let progress = Arc::new(Progress::default());
    let bar = bar(arguments);
    let (give, mut take) = mpsc::channel::<Piece>(WAITING);
    let (path, theirs) = (arguments.file.clone(), Arc::clone(&progress));
    let dry = sender.is_none();
    let reader = tokio::task::spawn_blocking(move || {
        read(&path, &theirs, !dry, &mut |piece| {
            if dry { Ok(()) } else { give.blocking_send(piece).map_err(|_| Failure::Stopped) }
        })
    });
    let mut outcome = Outcome::default();
    if let Some(mut sender) = sender {
        let since = Stopwatch::start();
        while let Some(piece) = take.recv().await {
            if piece.number > arguments.skip {
                match sender.send(&piece).await {
                    Ok(again) => outcome.accepted.again += again,
                    Err(refused) => {
                        outcome.refused = Some(refused);
                        break;
                    }
                }
                outcome.accepted.samples += piece.samples;
                outcome.accepted.bytes += u64::try_from(piece.body.len()).unwrap_or(0);
            }
            outcome.accepted.pieces = piece.number;
            show(&bar, &progress, outcome.accepted.samples, since);
        }
    }
    drop(take);
    match reader.await {
        Ok((tally, failure)) => {
            outcome.tally = tally;
            outcome.failure = failure.filter(|failure| *failure != Failure::Stopped);
        }
        Err(_) => {
            let kind = std::io::ErrorKind::Other;
            outcome.failure = Some(Failure::System { doing: "read the file", kind });
        }
    }
    bar.finish_and_clear();
    outcome
}

/// Reads a file into pieces; what was counted, and why it is not all.
fn read(
    path: &Path,
    progress: &Arc<Progress>,
    sent: bool,
    give: &mut dyn FnMut(Piece) -> Result<(), Failure>,
) -> (Tally, Option<Failure>) {
    let mut pieces = Pieces::new(sent, give);
    let read = input::open(path, progress, &mut |format, input| match format {
        Format::Xml => export::read(input, &mut pieces),
        Format::Json => json::read(input, &mut pieces),
    });
    // What was read before a fault is as good as if the file had ended there.
    let (tally, flushed) = pieces.end();
    (tally, read.and(flushed).err())
}

fn bar(arguments: &cli::Import) -> ProgressBar {
    if arguments.output.json || arguments.dry_run || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
    let template = "{bar:30} {bytes}/{total_bytes} {msg} {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: &Progress, samples: u64, since: Stopwatch) {
    bar.set_length(progress.total.load(Ordering::Relaxed));
    bar.set_position(progress.read.load(Ordering::Relaxed));
    #[expect(clippy::as_conversions, reason = "a rate that a person looks at")]
    let rate = samples as f64 / since.seconds().max(0.001);
    bar.set_message(format!("{samples} samples, {rate:.0}/s"));
}

/// Prints what became of it; gives the exit code.
fn report(arguments: &cli::Import, outcome: &Outcome, out: &mut impl Write) -> u8 {
    let text = if arguments.output.json {
        format!("{}\n", as_json(arguments, outcome))
    } else {
        as_text(arguments, outcome)
    };
    if let Err(error) = say(out, &text) {
        return done(Err(error));
    }
    let Outcome { tally, accepted, refused, failure } = outcome;
    let mut whole = true;
    let mut wrong = |what: &str| {
        complain(what);
        whole = false;
    };
    if let Some(failure) = failure {
        wrong(&format!("the file: {failure}"));
    }
    match refused {
        None => {}
        Some(Refused::Status(401)) => wrong("the ingress does not know this token (401)"),
        Some(Refused::Status(status)) => wrong(&format!("the ingress refuses it ({status})")),
        Some(Refused::GaveUp { last: Some(status) }) => {
            wrong(&format!("the ingress did not take it within --wait (last answer: {status})"));
        }
        Some(Refused::GaveUp { last: None }) => wrong("the ingress does not answer"),
    }
    if tally.too_large > 0 {
        wrong(&format!("{} elements of more than 8 MiB were left out", tally.too_large));
    }
    if whole {
        return 0;
    }
    if !arguments.dry_run {
        complain(&format!(
            "{} pieces were accepted. To go on behind them: --skip {}. To send all again is harmless: a sample's id \
             is its moment's, so what was accepted counts once.",
            accepted.pieces, accepted.pieces
        ));
    }
    FAILED
}

fn as_json(arguments: &cli::Import, outcome: &Outcome) -> serde_json::Value {
    let Outcome { tally, accepted, .. } = outcome;
    let (first, last) = tally.days.clone().unzip();
    json!({
        "dry_run": arguments.dry_run,
        "samples": tally.samples,
        "pieces": tally.pieces,
        "types": tally.types,
        "first_day": first,
        "last_day": last,
        "not_read": tally.not_read,
        "too_large": tally.too_large,
        "accepted": {
            "pieces": accepted.pieces,
            "samples": accepted.samples,
            "bytes": accepted.bytes,
            "sent_again": accepted.again,
            "skipped": arguments.skip.min(accepted.pieces),
        },
        "complete": outcome.failure.is_none() && outcome.refused.is_none() && tally.too_large == 0,
    })
}

fn as_text(arguments: &cli::Import, outcome: &Outcome) -> String {
    let Outcome { tally, accepted, .. } = outcome;
    let mut lines = Vec::new();
    let mut types: Vec<_> = tally.types.iter().collect();
    types.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    lines.extend(types.iter().map(|(name, count)| format!("{count:>12} {name}")));
    let days = tally.days.as_ref().map(|(first, last)| format!(", {first} to {last}"));
    let days = days.unwrap_or_default();
    lines.push(format!("{:>12} samples in {} pieces{days}", tally.samples, tally.pieces));
    for (name, count) in &tally.not_read {
        lines.push(format!("{count:>12} {name}, not imported"));
    }
    if arguments.dry_run {
        lines.push("nothing was sent".to_owned());
    } else {
        let (samples, bytes) = (accepted.samples, accepted.bytes);
        lines.push(format!("{samples:>12} samples accepted, {bytes} bytes"));
    }
    lines.push(String::new());
    lines.join("\n")
}
