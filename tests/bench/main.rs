//! `make bench`: the program as it is shipped, as processes on the real stack, measured from outside.
//!
//! Every scenario is a row or more of the table in the README, with what it must be and what it should be. Rounds are
//! interleaved where two things are compared (A, B, A, B, …) and a figure is the median of its rounds, with the least and
//! the most beside it. Latencies count from each request's moment (open loop) where there is a rate; a closed loop is for
//! capacity. Beside every wall figure stands the processor time of every process: on a shared machine that is what can
//! be trusted.

#![expect(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a benchmark prints figures, and one that panics has failed"
)]

mod bodies;
mod deployment;
mod door;
mod flow;
mod life;
mod load;
mod meter;
mod profile;
mod report;
mod topics;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use biometric_bridge::stream::clock::Stopwatch;
use deployment::Stack;
use report::Report;

/// How much is done.
pub(crate) struct Scale {
    /// How often everything is measured.
    rounds: usize,
    /// How long a load is measured.
    window: Duration,
    /// How long it is on before that.
    lead_in: Duration,
    /// How long a scenario warms up: the brokers' virtual machine compiles while it runs.
    warm: Duration,
    /// How long a process is left alone before its memory is looked at.
    rest: Duration,
    /// Nights of a backlog.
    backlog: u64,
    /// Whose nights they are.
    people: u64,
    /// Requests a second where they come steadily.
    rate: f64,
    /// Pushes of phones.
    pushes: u64,
    /// Samples of a push.
    samples: u64,
}

impl Scale {
    fn full(rounds: usize) -> Self {
        Self {
            rounds,
            window: Duration::from_secs(6),
            lead_in: Duration::from_secs(1),
            warm: Duration::from_secs(15),
            rest: Duration::from_secs(3),
            backlog: 80_000,
            people: 2_000,
            rate: 1_000.0,
            pushes: 200,
            samples: 2_500,
        }
    }

    /// For a first look.
    fn quick(rounds: usize) -> Self {
        Self {
            window: Duration::from_secs(3),
            warm: Duration::from_secs(5),
            backlog: 30_000,
            pushes: 60,
            ..Self::full(rounds)
        }
    }

    /// Whether it works at all.
    fn smoke() -> Self {
        Self {
            rounds: 1,
            window: Duration::from_millis(700),
            lead_in: Duration::from_millis(300),
            warm: Duration::from_millis(300),
            rest: Duration::from_millis(500),
            backlog: 500,
            people: 100,
            rate: 100.0,
            pushes: 4,
            samples: 200,
        }
    }
}

/// Measures the program on the stack that answers, or that it starts.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Only these scenarios.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// How often everything is measured: 5, or 2 of a quick run.
    #[arg(long)]
    rounds: Option<usize>,
    /// Fewer and shorter rounds: for a first look, not for a figure to be quoted.
    #[arg(long)]
    quick: bool,
    /// Seconds and tiny loads, no bounds: every scenario must give figures.
    #[arg(long)]
    smoke: bool,
    /// Where the JSON is kept.
    #[arg(long, default_value = ".local/bench")]
    out: PathBuf,
    /// The JSON of an earlier run: each median is shown against it.
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// Samples a role under load with perf, and draws a flame graph, instead of measuring.
    #[arg(long, value_parser = ["pipeline", "ingress"])]
    profile: Option<String>,
    /// The program that draws it.
    #[arg(long, default_value = "flame")]
    flame: PathBuf,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A request against `bare`, requests a second, how long they take.
    Ingress,
    /// A backlog of new records, and the same again.
    Pipeline,
    /// From receipt to what a reader sees, at a steady rate.
    Visible,
    /// Samples of phones, end to end.
    Healthkit,
    /// Twice as many requests as it can take.
    Overload,
    /// Ready after exec, and memory at rest.
    Start,
    /// How soon another goes on with what a killed one had.
    Takeover,
}

impl Scenario {
    fn run(self, stack: &Stack, scale: &Scale, report: &mut Report) {
        match self {
            Self::Ingress => door::ingress(stack, scale, report),
            Self::Pipeline => flow::pipeline(stack, scale, report),
            Self::Visible => flow::visible(stack, scale, report),
            Self::Healthkit => flow::healthkit(stack, scale, report),
            Self::Overload => door::overload(stack, scale, report),
            Self::Start => life::start(stack, scale, report),
            Self::Takeover => life::takeover(stack, scale, report),
        }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let stack = Stack::up();
    let (kind, scale) = match (arguments.smoke, arguments.quick) {
        (true, _) => ("smoke", Scale::smoke()),
        (false, true) => ("quick", Scale::quick(arguments.rounds.unwrap_or(2))),
        (false, false) => ("full", Scale::full(arguments.rounds.unwrap_or(5))),
    };
    if let Some(what) = &arguments.profile {
        let out = profile::profile(&stack, &scale, what, &arguments.flame, &arguments.out);
        println!("{}", out.display());
        return;
    }
    let profile = stack.binaries.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> =
        arguments.only.iter().map(|one| format!("{one:?}").to_lowercase()).collect();
    let part = (!names.is_empty()).then(|| names.join("-"));
    let mut report = Report::new(kind, profile, part);
    if let Some(kept) = &arguments.before {
        report = report.beside(kept);
    }
    let begun = Stopwatch::start();
    let wanted =
        |scenario: &&Scenario| arguments.only.is_empty() || arguments.only.contains(scenario);
    for scenario in Scenario::value_variants().iter().filter(wanted) {
        eprintln!("[{:4.0} s] {scenario:?}, {} rounds", begun.seconds(), scale.rounds);
        scenario.run(&stack, &scale, &mut report);
        // One that panics later takes nothing with it.
        report.keep(&arguments.out, false);
    }
    eprintln!("[{:4.0} s] done", begun.seconds());
    let missing = report.empty();
    println!("{}", report.finish(&arguments.out));
    assert!(missing.is_empty(), "no figure for: {missing:?}");
}
