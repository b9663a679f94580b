//! The figures as a person sees them: blocks side by side, as many as the terminal is wide, or one plain line.
//!
//! 80 columns are enough. Every row is cut to the width, and a text that came from elsewhere (a label, a
//! dependency's name) is shown with its plain characters only: a page must not be able to move a cursor.

use std::collections::BTreeMap;

use super::figures::{Count, Figures, Flow, LATENCIES, Latency, Process, Span};
use super::seen::State;

/// The narrowest picture.
pub const WIDTH_MIN: usize = 80;
/// From this width on the flow shows sums beside its rates.
const WIDTH_OF_SUMS: usize = 113;
/// The most rows of a list that may be long: vendors, errors, dependencies.
const ROWS_MAX: usize = 12;
/// Between two blocks, columns.
const GAP: usize = 2;
/// How wide the blocks on the left and on the right of a narrow picture are.
const LEFT: usize = 36;
const RIGHT: usize = WIDTH_MIN - GAP - LEFT;

/// How a row is to catch the eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Not at all.
    Plain,
    /// It says what stands below it.
    Title,
    /// Somebody should look.
    Alarm,
}

/// A row of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// How it is to catch the eye.
    pub tone: Tone,
    /// Its text, in plain characters.
    pub text: String,
}

impl Row {
    /// A row without more ado.
    #[must_use]
    pub fn plain(text: impl Into<String>) -> Self {
        Self { tone: Tone::Plain, text: text.into() }
    }

    /// A title.
    #[must_use]
    pub fn title(text: impl Into<String>) -> Self {
        Self { tone: Tone::Title, text: text.into() }
    }

    fn alarm_if(alarm: bool, text: impl Into<String>) -> Self {
        Self { tone: if alarm { Tone::Alarm } else { Tone::Plain }, text: text.into() }
    }

    /// The row at exactly this width, with colours where they are wanted.
    fn at(&self, width: usize, colours: bool) -> String {
        let text = fit(&self.text, width);
        match self.tone {
            Tone::Title if colours => format!("\x1b[1m{text}\x1b[0m"),
            Tone::Alarm if colours => format!("\x1b[31m{text}\x1b[0m"),
            Tone::Plain | Tone::Title | Tone::Alarm => text,
        }
    }
}

/// Rows that belong together, of one width.
#[derive(Clone, Debug)]
pub struct Block {
    /// How wide it is, columns.
    pub width: usize,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// Puts blocks side by side as far as the width goes, then below.
#[must_use]
pub fn arrange(blocks: &[Block], width: usize, colours: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = blocks;
    while !rest.is_empty() {
        let mut taken = 0;
        let side_by_side = rest.iter().take_while(|block| {
            taken += block.width + if taken == 0 { 0 } else { GAP };
            taken <= width
        });
        let (now, later) = rest.split_at(side_by_side.count().max(1));
        let rows = now.iter().map(|block| block.rows.len()).max().unwrap_or(0);
        for at in 0..rows {
            let part = |block: &Block| {
                let width = block.width.min(width);
                block.rows.get(at).map_or_else(|| " ".repeat(width), |row| row.at(width, colours))
            };
            let parts: Vec<String> = now.iter().map(part).collect();
            lines.push(parts.join(&" ".repeat(GAP)).trim_end().to_owned());
        }
        rest = later;
    }
    lines
}

/// The blocks of these figures, for a picture of this width.
#[must_use]
pub fn blocks(figures: &Figures, every_s: u64, width: usize) -> Vec<Block> {
    vec![
        head(figures, every_s, width),
        flow(figures, width),
        ends(figures),
        stands(figures),
        errors(figures),
        latencies(figures),
    ]
}

/// A text at exactly this width: what is no plain character is `?`, what is too long ends in `…`.
fn fit(text: &str, width: usize) -> String {
    let plain = |found: char| if is_plain(found) { found } else { '?' };
    let length = text.chars().count();
    if length > width {
        let cut = text.chars().take(width.saturating_sub(1)).map(plain);
        return cut.chain(['…']).take(width).collect();
    }
    text.chars().map(plain).chain(std::iter::repeat_n(' ', width - length)).collect()
}

/// Whether a character takes one column and does nothing else, as far as we need any.
pub(super) const fn is_plain(found: char) -> bool {
    matches!(found, ' '..='~' | '·' | '→' | '…' | '–')
}

/// A number in at most five characters.
fn short(value: f64) -> String {
    match value {
        _ if value < 100.0 => format!("{value:.1}"),
        _ if value < 10_000.0 => format!("{value:.0}"),
        _ if value < 100_000.0 => format!("{:.1}k", value / 1e3),
        _ if value < 1e6 => format!("{:.0}k", value / 1e3),
        _ if value < 1e8 => format!("{:.1}M", value / 1e6),
        _ if value < 1e9 => format!("{:.0}M", value / 1e6),
        _ => "many".to_owned(),
    }
}

fn rate(count: Count) -> String {
    count.per_s.map_or_else(|| "–".to_owned(), short)
}

fn sum(count: u64) -> String {
    if count < 1_000_000_000 { count.to_string() } else { "many".to_owned() }
}

/// The time of day of a moment of ours.
fn of_day(moment: &str) -> &str {
    moment.split_once('T').map_or(moment, |(_, time)| time)
}

fn head(figures: &Figures, every_s: u64, width: usize) -> Block {
    let (all, there) = (figures.processes.len(), |process: &&Process| process.state.is_there());
    let answer = figures.processes.iter().filter(there).count();
    let processes = if all == 1 { "process answers" } else { "processes answer" };
    let title = format!(
        "biometric-bridge · {} · every {every_s} s · {answer} of {all} {processes}",
        figures.at.replace('T', " ")
    );
    let mut rows = vec![Row::title(title)];
    rows.extend(figures.processes.iter().take(ROWS_MAX).map(process));
    if all > ROWS_MAX {
        rows.push(Row::plain(format!("and {} more", all - ROWS_MAX)));
    }
    Block { width, rows }
}

/// A process's address, which is what tells it from the others.
fn name(process: &Process) -> &str {
    process.url.strip_prefix("http://").unwrap_or(&process.url)
}

fn process(process: &Process) -> Row {
    let (state, since) = (process.state, of_day(&process.since));
    let mut text = format!("{} {} since {since}", name(process), state.text());
    if let Some(flaw) = &process.flaw {
        text.push_str(&format!(" · {flaw}"));
    }
    if process.restarts > 0 {
        text.push_str(&format!(" · restarts seen: {}", process.restarts));
    }
    let (up, down): (Vec<_>, Vec<_>) =
        process.dependencies.iter().partition(|(_, dependency)| dependency.up);
    for (name, dependency) in down.into_iter().take(ROWS_MAX) {
        text.push_str(&format!(" · {name} DOWN since {}", of_day(&dependency.since)));
    }
    if let Some((_, latest)) = up.iter().max_by_key(|(_, dependency)| &dependency.since) {
        let names: Vec<&str> = up.iter().take(ROWS_MAX).map(|(name, _)| name.as_str()).collect();
        text.push_str(&format!(" · {} up since {}", names.join(" "), of_day(&latest.since)));
    }
    Row::alarm_if(!matches!(state, State::Ready | State::Answers), text)
}

fn flow(figures: &Figures, width: usize) -> Block {
    let sums = width >= WIDTH_OF_SUMS;
    let row = |name: &str, cells: [String; 9]| {
        let mut text = fit(name, 14);
        for cell in cells.iter().take(if sums { 9 } else { 6 }) {
            text.push_str(&format!(" {cell:>10}"));
        }
        text
    };
    let cells = ["requests", "accepted", "refused", "503", "records", "events"];
    let in_all = ["accepted", "records", "events"];
    let titles = cells.into_iter().chain(in_all).map(str::to_owned).collect::<Vec<_>>();
    let mut rows = Vec::new();
    if let Ok(titles) = <[String; 9]>::try_from(titles) {
        rows.push(Row::title(row(if sums { "/s, then sums" } else { "per second" }, titles)));
    }
    let shown = |name: &str, flow: Flow| {
        let cells = [
            rate(flow.requests),
            rate(flow.accepted),
            rate(flow.refused),
            rate(flow.unavailable),
            rate(flow.records),
            rate(flow.events),
            sum(flow.accepted.in_all),
            sum(flow.records.in_all),
            sum(flow.events.in_all),
        ];
        Row::alarm_if(is_under_way(flow.unavailable), row(name, cells))
    };
    let moved = |flow: &Flow| {
        [flow.requests, flow.records, flow.events].iter().any(|count| count.in_all > 0)
    };
    let vendors = figures.flow.iter().filter(|(_, flow)| moved(flow)).take(ROWS_MAX);
    rows.extend(vendors.map(|(vendor, flow)| shown(vendor, *flow)));
    rows.push(shown("all", figures.whole_flow()));
    Block { width, rows }
}

/// Name, rate and sum, as wide as a block on the left.
fn counted(name: &str, per_s: &str, in_all: &str) -> String {
    format!("{} {per_s:>5} {in_all:>9}", fit(name, LEFT - 16))
}

/// The ends that are shown first, in this order.
const ENDS: [&str; 7] =
    ["published", "duplicate", "superseded", "ignored", "held", "dead_lettered", "normalised"];

fn ends(figures: &Figures) -> Block {
    let mut rows = vec![Row::title(counted("records ended", "/s", "in all"))];
    let ends = figures.ends().into_iter().filter(|(_, count)| count.in_all > 0);
    let mut ends: Vec<(&str, Count)> = ends.collect();
    ends.sort_by_key(|(end, _)| ENDS.iter().position(|first| first == end).unwrap_or(ENDS.len()));
    for (end, count) in ends.into_iter().take(ROWS_MAX) {
        let name = match end {
            "normalised" => "(normalised)".to_owned(),
            _ => end.replace('_', " "),
        };
        let alarm = end == "dead_lettered" && is_under_way(count);
        rows.push(Row::alarm_if(alarm, counted(&name, &rate(count), &sum(count.in_all))));
    }
    Block { width: LEFT, rows }
}

/// Whether it happened in the last interval.
fn is_under_way(count: Count) -> bool {
    count.per_s.is_some_and(|per_s| per_s > 0.0)
}

/// What stands at this moment: what is behind, where partitions stand, and what of the door is in use.
fn stands(figures: &Figures) -> Block {
    const NAME: usize = 18;
    let row = |name: &str, value: &str| {
        format!("{} {value:>width$}", fit(name, NAME), width = RIGHT - NAME - 1)
    };
    let mut rows = vec![Row::title(row("now", ""))];
    for (stage, lag) in figures.lag.iter().take(ROWS_MAX) {
        let lag = format!("{} records {:>5} s", sum(lag.records), short(lag.seconds));
        rows.push(Row::plain(row(&format!("{stage} behind"), &lag)));
    }
    for (stage, states) in figures.partitions.iter().take(ROWS_MAX) {
        let some = states.iter().rev().filter(|(_, count)| **count > 0).take(ROWS_MAX);
        let some: Vec<String> =
            some.map(|(state, count)| format!("{} {state}", sum(*count))).collect();
        let stopped = states.get("stopped").is_some_and(|count| *count > 0);
        let text = format!("{stage}: {}", some.join(", "));
        rows.extend((!some.is_empty()).then(|| Row::alarm_if(stopped, text)));
    }
    if let Some(permits) = figures.permits {
        let used = format!("{} of {}", sum(permits.used), sum(permits.all));
        rows.push(Row::plain(row("permits in use", &used)));
        let waiting = row("waiting for one", &sum(permits.waiting));
        rows.push(Row::alarm_if(permits.waiting > 0, waiting));
        let door = format!("{}, {}", sum(permits.connections), sum(permits.body_bytes));
        rows.push(Row::plain(row("connections, bytes", &door)));
    }
    Block { width: RIGHT, rows }
}

fn errors(figures: &Figures) -> Block {
    let row = |name: &str, count: Count| counted(name, &rate(count), &sum(count.in_all));
    let mut rows = vec![Row::title(counted("errors, recoveries", "/s", "in all"))];
    let mut put = |kind: &str, counts: &BTreeMap<String, Count>, alarms: bool| {
        for (name, count) in counts.iter().filter(|(_, count)| count.in_all > 0).take(ROWS_MAX) {
            let alarm = alarms && is_under_way(*count);
            rows.push(Row::alarm_if(alarm, row(&format!("{kind}{name}"), *count)));
        }
    };
    put("", &figures.errors, true);
    put("rebalance ", &figures.rebalances, false);
    put("recovery ", &figures.recoveries, false);
    put("breaker ", &figures.breaker_openings, true);
    if figures.producer_rebuilds.in_all > 0 {
        rows.push(Row::plain(row("producer rebuilt", figures.producer_rebuilds)));
    }
    Block { width: LEFT, rows }
}

fn latencies(figures: &Figures) -> Block {
    const NAME: usize = 14;
    let row = |name: &str, cells: [&str; 4]| {
        let [a, b, c, d] = cells;
        format!("{} {a:>6} {b:>6} {c:>6} {d:>6}", fit(name, NAME))
    };
    let mut rows = vec![Row::title(row("took, ms", ["p50", "p99", "all 50", "all 99"]))];
    let ms = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), short);
    let p99 =
        |span: &Span| format!("{}{}", if span.p99_is_above { ">" } else { "" }, ms(span.p99_ms));
    for name in LATENCIES {
        let took = figures.latencies.get(name).filter(|took| took.in_all.count > 0);
        let Some(Latency { last, in_all }) = took else { continue };
        let cells = [ms(last.p50_ms), p99(last), ms(in_all.p50_ms), p99(in_all)];
        let name = if name == "receipt_to_commit" { "receipt→commit" } else { name };
        rows.push(Row::plain(row(name, cells.each_ref().map(String::as_str))));
    }
    Block { width: RIGHT, rows }
}

/// The figures as one line of `name=value`, always the same names in the same order: for a log, `grep` and `awk`.
/// What is not known is `-`.
#[must_use]
pub fn line(figures: &Figures) -> String {
    let mut line = format!("time={}", figures.at);
    let mut put = |name: &str, value: String| line.push_str(&format!(" {name}={}", word(&value)));
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |is| format!("{is:.1}"));
    let (flow, ends) = (figures.whole_flow(), figures.ends());
    let away = figures.processes.iter().filter(|process| !process.state.is_there());
    put("away", listed(away.map(|process| name(process).to_owned())));
    put("down", listed(figures.processes.iter().flat_map(down)));
    put("requests_s", number(flow.requests.per_s));
    put("accepted_s", number(flow.accepted.per_s));
    put("refused_s", number(flow.refused.per_s));
    put("unavailable_s", number(flow.unavailable.per_s));
    put("records_s", number(flow.records.per_s));
    put("events_s", number(flow.events.per_s));
    // Of processes that were never there, nothing is known: 0 would be a figure.
    let known = figures.processes.iter().any(|process| process.was_there);
    let whole = |value: u64| if known { value.to_string() } else { "-".to_owned() };
    put("accepted", whole(flow.accepted.in_all));
    for end in ["published", "duplicate", "superseded", "ignored", "held", "dead_lettered"] {
        put(end, whole(ends.get(end).map_or(0, |count| count.in_all)));
    }
    for stage in ["normalise", "decide"] {
        let behind = figures.lag.get(stage).map(|lag| lag.records.to_string());
        put(&format!("lag_{stage}"), behind.unwrap_or_else(|| "-".to_owned()));
        put(&format!("lag_{stage}_s"), number(figures.lag.get(stage).map(|lag| lag.seconds)));
    }
    for (short, name) in [("request", "request"), ("commit", "receipt_to_commit")] {
        let last = figures.latencies.get(name).map(|took| took.last).unwrap_or_default();
        put(&format!("{short}_p50_ms"), number(last.p50_ms));
        put(&format!("{short}_p99_ms"), number(last.p99_ms));
    }
    let permits = figures.permits.map(|permits| (permits.used, permits.all, permits.waiting));
    let permits = permits.map(|(used, all, waiting)| format!("{used}/{all}/{waiting}"));
    put("permits", permits.unwrap_or_else(|| "-".to_owned()));
    let stopped = figures.partitions.values().filter_map(|states| states.get("stopped"));
    let stopped = stopped.fold(0_u64, |sum, count| sum.saturating_add(*count));
    put("stopped", whole(stopped));
    put("rebalances", whole(in_all(&figures.rebalances)));
    put("recoveries", whole(in_all(&figures.recoveries)));
    put("errors", whole(in_all(&figures.errors)));
    let kinds = figures.errors.iter().filter(|(_, count)| is_under_way(**count));
    put("errors_now", listed(kinds.map(|(kind, _)| kind.clone())));
    line
}

/// `url/dependency` of each dependency that is down.
fn down(process: &Process) -> impl Iterator<Item = String> {
    let down = process.dependencies.iter().filter(|(_, dependency)| !dependency.up);
    down.map(|(dependency, _)| format!("{}/{dependency}", name(process)))
}

fn listed(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.take(ROWS_MAX).collect();
    if values.is_empty() { "-".to_owned() } else { values.join(",") }
}

fn in_all(counts: &BTreeMap<String, Count>) -> u64 {
    counts.values().fold(0, |sum, count| sum.saturating_add(count.in_all))
}

/// A value without what would end it.
fn word(value: &str) -> String {
    value.chars().map(|found| if matches!(found, '!'..='~') { found } else { '?' }).collect()
}
