//! Every command and flag, in one enum. The help texts are golden files (`tests/golden/cli/`).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;

/// Wearable data in, one trustworthy stream of biometric events out.
#[derive(Debug, Parser)]
#[command(
    name = "biometric-bridge",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done · 1 failed, or an audit found something · 64 wrong usage · 78 wrong \
                  configuration.\nConfiguration: defaults < --config FILE < BRIDGE__SECTION__KEY; `config docs` prints \
                  every key."
)]
pub struct Cli {
    /// A TOML file over the defaults.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Verify vendors' webhooks and write their bytes to `raw-webhooks`, until told to stop.
    Ingress,
    /// Normalise raw records and decide what counts, until told to stop.
    Pipeline,
    /// Fetch from vendors' APIs what their notifications only name, until told to stop.
    Hydrator,
    /// Ingress, pipeline and hydrator in one process, for one machine.
    All,
    /// The topics of the system: what should be, what is, and the difference.
    #[command(subcommand)]
    Topics(Topics),
    /// The Avro schemas of the system and the registry's.
    #[command(subcommand)]
    Schemas(Schemas),
    /// The database's schema: ordered, checksummed, under a lock, each step with its way back.
    #[command(subcommand)]
    Migrate(Migrate),
    /// Which of our users a vendor's user is.
    #[command(subcommand)]
    Connections(Connections),
    /// The tokens of vendors, as they are sealed in the database.
    #[command(subcommand)]
    Vault(Vault),
    /// The configuration: check it, show it, explain it.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the topology: sub-topologies, their inputs, steps, stores and outputs.
    Describe,
    /// Print every metric: name, type, unit, labels with their values, and what it says. Needs no infrastructure.
    Metrics(Output),
    /// Turn one payload into canonical records, as JSON lines, or into its reject. Needs no infrastructure.
    Normalise(Normalise),
    /// Send a person's history from a file: Apple's export.xml or its zip, or a JSON of Health Auto Export.
    Import(Import),
    /// Run ingress and pipeline over a world in memory: a first look, nothing installed, nothing kept.
    Try(Try),
    /// Invented traffic.
    #[command(subcommand)]
    Simulate(Simulate),
    /// Check a ledger of requests against the topics and Postgres: lost, doubled, reordered, unexplained.
    Audit(Audit),
    /// Print a digest of the current content, to compare two databases.
    Digest(Output),
    /// Show what running processes do: flow, verdicts, lag, latencies, permits, dependencies, errors.
    Top(Top),
}

/// How a command prints.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Output {
    /// Print JSON, for machines.
    #[arg(long)]
    pub json: bool,
}

/// `topics …`
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Print what `apply` would do; exit 1 where it would refuse.
    Plan(Output),
    /// Create what is missing and alter what differs. Never deletes, never re-keys.
    Apply(Output),
    /// Print the topics as they should be.
    Describe(Output),
}

/// `schemas …`
#[derive(Debug, Subcommand)]
pub enum Schemas {
    /// Compare the registry with this binary's schemas; exit 1 where they differ.
    Check(Output),
    /// Register what is missing and set FULL_TRANSITIVE.
    Apply(Output),
}

/// `migrate …`
#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Apply every step that is not applied.
    Up(Output),
    /// Take back the last steps.
    Down {
        /// How many.
        #[arg(long, default_value_t = 1)]
        steps: usize,
        /// How it prints.
        #[command(flatten)]
        output: Output,
    },
    /// Print every step and whether it is applied; exit 1 where one is missing.
    Status(Output),
}

/// `connections …`
#[derive(Debug, Subcommand)]
pub enum Connections {
    /// Connect a vendor's user to one of ours; for HealthKit, print the app's token.
    Add {
        /// The vendor.
        #[arg(long)]
        vendor: String,
        /// Our user.
        #[arg(long)]
        user: String,
        /// The vendor's id of its user; for HealthKit a label of yours, such as `phone`.
        #[arg(long, value_name = "ID")]
        vendor_user: String,
        /// How it prints.
        #[command(flatten)]
        output: Output,
    },
    /// Print connections, the latest first: how their tokens stand, and how many records wait or were given up.
    List {
        /// Only this user's.
        #[arg(long)]
        user: Option<String>,
        /// How it prints.
        #[command(flatten)]
        output: Output,
    },
    /// Print connections that hold, each with how far every collection of its history has come.
    Show {
        /// The vendor; all of them where absent.
        #[arg(long)]
        vendor: Option<String>,
        /// The vendor's id of its user.
        #[arg(long, value_name = "ID")]
        vendor_user: Option<String>,
        /// Our user.
        #[arg(long)]
        user: Option<String>,
        /// How it prints.
        #[command(flatten)]
        output: Output,
    },
    /// Ask for a connection's history, as its consent did: after an outage that was longer than the vendor repeats.
    History {
        /// The vendor.
        #[arg(long)]
        vendor: String,
        /// The vendor's id of its user.
        #[arg(long, value_name = "ID")]
        vendor_user: String,
        /// From this day on; from hydrator.history_days ago where absent, and never from before that.
        #[arg(long, value_name = "DAY")]
        since: Option<String>,
    },
    /// Store a connection's tokens, sealed; the hydrator fetches with them and renews them.
    Token {
        /// The vendor.
        #[arg(long)]
        vendor: String,
        /// The vendor's id of its user.
        #[arg(long, value_name = "ID")]
        vendor_user: String,
        /// The vendor's answer as JSON (access_token, refresh_token, expires_in), or `-` for standard input.
        file: PathBuf,
    },
    /// Make connections and store their tokens, from a file with one of them a line.
    Import {
        /// JSON objects: vendor, vendor_user, user, and the tokens as the vendor answered, where it gives any; or `-` for
        /// standard input.
        file: PathBuf,
        /// Ask for the history of each, as its consent would.
        #[arg(long)]
        history: bool,
    },
    /// Fetch again what was given up.
    Retry {
        /// The vendor.
        #[arg(long)]
        vendor: String,
        /// The vendor's id of its user; all of them where absent.
        #[arg(long, value_name = "ID")]
        vendor_user: Option<String>,
    },
    /// Print a link by which a person connects, to be given to nobody else; it ends after connect.link_s.
    Link {
        /// The vendor.
        #[arg(long)]
        vendor: String,
        /// Our user that the person is.
        #[arg(long)]
        user: String,
    },
    /// Fetch nothing for a connection until it is resumed; what is pushed to us is still taken in.
    Pause {
        /// The vendor.
        #[arg(long)]
        vendor: String,
        /// The vendor's id of its user.
        #[arg(long, value_name = "ID")]
        vendor_user: String,
    },
    /// Fetch for a paused connection again, what was announced meanwhile too.
    Resume {
        /// The vendor.
        #[arg(long)]
        vendor: String,
        /// The vendor's id of its user.
        #[arg(long, value_name = "ID")]
        vendor_user: String,
    },
    /// End a connection now: consent and webhooks at the vendor, and its tokens here; its records stay.
    Remove {
        /// The vendor.
        #[arg(long)]
        vendor: String,
        /// The vendor's id of its user; for HealthKit the connection's id.
        #[arg(long, value_name = "ID")]
        vendor_user: String,
        /// End it here alone, and say nothing to the vendor.
        #[arg(long)]
        here_only: bool,
        /// How it prints.
        #[command(flatten)]
        output: Output,
    },
}

/// `vault …`
#[derive(Debug, Subcommand)]
pub enum Vault {
    /// Seal by `secrets.token_key` what `secrets.previous_token_key` sealed; exit 1 where neither opens something.
    Rotate(Output),
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every problem at once; exit 78 where there is one.
    Check,
    /// Print the effective configuration; secrets are `***`.
    Show,
    /// Print every key with its default and its reason.
    Docs,
}

/// `normalise`
#[derive(Args, Debug)]
pub struct Normalise {
    /// The vendor whose payload it is.
    #[arg(long)]
    pub vendor: String,
    /// Of a body that was fetched, the type of record that was asked for; absent for a webhook's.
    #[arg(long, value_name = "TYPE")]
    pub kind: Option<String>,
    /// A header of the request, `name: value`; may be given more than once.
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// When it was received, RFC 3339; now where absent.
    #[arg(long, value_name = "TIME")]
    pub received_at: Option<String>,
    /// The payload, or `-` for standard input.
    pub file: PathBuf,
}

/// `import`
#[derive(Args, Debug)]
pub struct Import {
    /// Where the ingress listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// A file with the connection's token, as `connections add` prints it.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Count by type and day what would be sent, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Pass over so many pieces, which an import that stopped says were accepted.
    #[arg(long, value_name = "PIECES", default_value_t = 0)]
    pub skip: u64,
    /// How long one piece is sent again where the ingress is full or away, seconds.
    #[arg(long, default_value_t = 300)]
    pub wait: u64,
    /// How it prints.
    #[command(flatten)]
    pub output: Output,
    /// export.xml, the zip that holds it, or a JSON of Health Auto Export.
    pub file: PathBuf,
}

/// `try`
#[derive(Args, Debug)]
pub struct Try {
    /// How many requests, at most 1000: it is a look, `simulate traffic` is for more.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub requests: u64,
    /// How many invented people.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub users: u64,
    /// The same number gives the same output.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How it prints.
    #[command(flatten)]
    pub output: Output,
}

/// `simulate …`
#[derive(Debug, Subcommand)]
pub enum Simulate {
    /// Send signed requests of Terra and HealthKit at a steady rate, and keep a ledger of every answer.
    Traffic(Traffic),
    /// Play vendors for invented people: APIs, OAuth servers and webhooks, and a ledger of the truth.
    Vendors(Vendors),
}

/// `simulate vendors`
#[derive(Args, Debug)]
#[command(
    after_help = "The API of a vendor is at http://ADDRESS/VENDOR/… with the vendor's own paths below, its token server \
                  too: set vendors.VENDOR.api_base and renewal_url to them (--settings prints them). Requests are signed \
                  with vendors.VENDOR.signing_secret, which is also what must be named to renew tokens; Terra's Kafka \
                  destination is written, too. \
                  People need connections and first tokens: --connections writes them, `connections import` reads them. \
                  Ends when all that was announced has been fetched; 1 where something was not.",
    after_long_help = crate::commands::play::faults()
)]
pub struct Vendors {
    /// How many invented people.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub people: u32,
    /// How many days of their lives.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub days: i32,
    /// How many of these days lie before anybody connects: what came about in them is there to be asked for, and is not
    /// announced.
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    pub history: i32,
    /// How many of these days a subscription to webhooks lives that the program makes over the API (Oura's): the days begin
    /// when there is one for everything, and what none is for is told to nobody. 0: they are there, and stay.
    #[arg(long, default_value_t = 0, value_name = "DAYS", value_parser = clap::value_parser!(i32).range(0..=1_000))]
    pub subscriptions: i32,
    /// The last of these days; yesterday where absent, so that they end today.
    #[arg(long, value_name = "DATE")]
    pub last_day: Option<String>,
    /// The same number gives the same people, records and announcements.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many times as fast as real time their world runs, its quotas and delays too.
    #[arg(long, default_value_t = 1_440, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub speed: u32,
    /// Which vendors they use, by comma, or `all`.
    #[arg(long, default_value = "oura,whoop", value_name = "NAMES")]
    pub vendors: String,
    /// What goes wrong: name=percent by comma, `all` for a bit of everything, or `none`.
    #[arg(long, default_value = "none", value_name = "FAULTS")]
    pub faults: String,
    /// Where the ingress listens.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub target: String,
    /// Where the vendors listen.
    #[arg(long, default_value = "127.0.0.1:9700", value_name = "ADDRESS")]
    pub listen: std::net::SocketAddr,
    /// Write the truth to this file, for `audit --truth`.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Write the people's connections and first tokens to this file, readable by its owner alone.
    #[arg(long, value_name = "FILE")]
    pub connections: Option<PathBuf>,
    /// Print the settings with which the program asks these vendors, as lines of an environment file, and end.
    #[arg(long)]
    pub settings: bool,
    /// Write the files and end: nothing is played.
    #[arg(long)]
    pub prepare: bool,
    /// How long to wait at the end for somebody to fetch what is left, seconds without a call.
    #[arg(long, default_value_t = 60)]
    pub patience: u64,
    /// How it prints.
    #[command(flatten)]
    pub output: Output,
}

/// `simulate traffic`
#[derive(Args, Debug)]
pub struct Traffic {
    /// Where the ingress listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// How many invented people.
    #[arg(long, default_value_t = 100)]
    pub users: u64,
    /// Requests a second, each at its moment; 0 for as many as the connections carry.
    #[arg(long, default_value_t = 100)]
    pub rate: u64,
    /// Connections that requests go out on.
    #[arg(long, default_value_t = 128)]
    pub connections: usize,
    /// How long, seconds; 0 until interrupted.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// The same number gives the same traffic, but for its times.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Percent of requests that are sent again, byte for byte.
    #[arg(long, default_value_t = 20)]
    pub duplicates: u64,
    /// Percent that correct an earlier record.
    #[arg(long, default_value_t = 4)]
    pub corrections: u64,
    /// Percent of corrections that overtake what they correct.
    #[arg(long, default_value_t = 2)]
    pub reordered: u64,
    /// Percent that delete an earlier record.
    #[arg(long, default_value_t = 1)]
    pub deletions: u64,
    /// Percent whose signed body does not hold to the contract.
    #[arg(long, default_value_t = 5)]
    pub malformed: u64,
    /// Percent whose signature is wrong.
    #[arg(long, default_value_t = 1)]
    pub bad_signatures: u64,
    /// Append a line for every request and its answer to this file, for `audit`.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Send what gets a 503 or no answer again, as a vendor would.
    #[arg(long)]
    pub resend: bool,
    /// Read the output topics meanwhile and show what becomes of it, a table that moves.
    #[arg(long)]
    pub watch: bool,
    /// How it prints at the end.
    #[command(flatten)]
    pub output: Output,
}

/// `audit`
#[derive(Args, Debug)]
pub struct Audit {
    /// The ledger of `simulate traffic`; without one only topics and Postgres are compared.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// The ledger of `simulate vendors`: every true record must be published, value by value.
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// How long to wait for the pipeline to be done, seconds.
    #[arg(long, default_value_t = 60)]
    pub wait: u64,
    /// Print at most so many findings of a kind.
    #[arg(long, default_value_t = 20)]
    pub findings: usize,
    /// How it prints.
    #[command(flatten)]
    pub output: Output,
}

/// `top`
#[derive(Args, Debug)]
#[command(
    after_help = "On a terminal a table that moves, until Ctrl-C; elsewhere one line of name=value an interval. A \
                  process that does not answer is shown as away; only with --once, and where none answers, it is a \
                  failure (1). NO_COLOR is respected."
)]
pub struct Top {
    /// A process's admin listener; may be given more than once. The configuration's `admin.address` where absent.
    #[arg(long, value_name = "URL", value_parser = admin_url)]
    pub url: Vec<String>,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,
    /// Look for one interval, print, and end.
    #[arg(long, conflicts_with = "count")]
    pub once: bool,
    /// Print so many intervals and end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How it prints: one object a line, for every interval.
    #[command(flatten)]
    pub output: Output,
}

fn admin_url(text: &str) -> Result<String, &'static str> {
    let is_one = commands::http::Client::new(text, std::time::Duration::ZERO).is_some();
    if is_one { Ok(text.to_owned()) } else { Err("it has the form http://host:port") }
}
