//! What a user runs: roles are started here, and the commands that end live here.
//!
//! The only place that prints. Standard output is a command's result; problems and progress go to standard error.

pub mod audit;
pub mod connections;
pub mod consent;
pub mod describe;
pub mod history;
pub mod http;
pub mod import;
pub mod metrics;
pub mod migrate;
pub mod normalise;
pub mod play;
pub mod schemas;
pub mod screen;
pub mod simulate;
pub mod top;
pub mod topics;
pub mod trial;
pub mod watch;

use std::future::Future;
use std::io::Write;
use std::path::Path;

use connections::{Named, New};
use secrecy::ExposeSecret as _;

use crate::cli::{self, Cli, Command};
use crate::config::{self, Config, Problem};
use crate::error::{Error, Kind, Result};
use crate::hydrator::tokens;
use crate::model::id::{ConnectionId, User};
use crate::postgres::queue::PostgresQueue;
use crate::postgres::register::PostgresRegister;
use crate::postgres::vault::PostgresVault;
use crate::roles;
use crate::stream::clock::now_us;
use crate::telemetry::log;
use crate::vendors::healthkit;

/// The exit code of wrong usage (`sysexits.h`).
pub const USAGE: u8 = 64;
/// The exit code of a wrong configuration (`sysexits.h`).
pub const CONFIG: u8 = 78;
/// The exit code of what failed.
pub const FAILED: u8 = 1;

/// Does what was asked; gives the exit code.
#[must_use]
pub fn run(cli: &Cli) -> u8 {
    // Two TLS clients share one process: without a default the library refuses to choose.
    let chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
    debug_assert!(chosen.is_ok(), "the provider is chosen once");
    match &cli.command {
        Command::Describe => done(describe::run(&mut std::io::stdout())),
        Command::Metrics(output) => done(metrics::run(output.json, &mut std::io::stdout())),
        Command::Normalise(arguments) => normalise::run(arguments, &mut std::io::stdout()),
        Command::Import(arguments) => import::run(arguments, &mut std::io::stdout()),
        Command::Config(cli::ConfigCommand::Docs) => print(config::DEFAULTS),
        _ => match load(cli) {
            Ok(config) => with_config(cli, config),
            Err(problems) => refuse(&problems),
        },
    }
}

fn load(cli: &Cli) -> std::result::Result<Config, Vec<Problem>> {
    config::load(cli.config.as_deref(), std::env::vars_os(), needs_keys(&cli.command))
}

/// Whether a command takes requests, or asks on behalf of one that does.
const fn needs_keys(command: &Command) -> bool {
    matches!(command, Command::Ingress | Command::All | Command::Config(cli::ConfigCommand::Check))
}

fn refuse(problems: &[Problem]) -> u8 {
    for problem in problems {
        complain(&format!("{problem}"));
    }
    CONFIG
}

fn with_config(cli: &Cli, config: Config) -> u8 {
    if let Command::Config(what) = &cli.command {
        return match what {
            cli::ConfigCommand::Show | cli::ConfigCommand::Docs => print(&config.shown),
            cli::ConfigCommand::Check => print("the configuration is good\n"),
        };
    }
    if let Err(error) = log::install(&logged(&cli.command, &config)) {
        return done(Err(error));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(perform(&cli.command, &config)),
        Err(_) => done(Err(Error::internal("start a runtime"))),
    }
}

/// What is logged: of a command that ends nothing below a warning, unless somebody asked for a level. Its result is
/// for a person, and the progress of the engine in it is not.
fn logged(command: &Command, config: &Config) -> log::Settings {
    let is_role =
        matches!(command, Command::Ingress | Command::Pipeline | Command::Hydrator | Command::All);
    if is_role || config.log_level_is_set {
        return config.log.clone();
    }
    log::Settings { level: log::Level::Warn }
}

async fn perform(command: &Command, config: &Config) -> u8 {
    let out = &mut std::io::stdout();
    match command {
        Command::Ingress => role(|stop| roles::ingress::run(config, stop)).await,
        Command::Pipeline => role(|stop| roles::pipeline::run(config, stop)).await,
        Command::Hydrator => role(|stop| roles::hydrator::run(config, stop)).await,
        Command::All => role(|stop| roles::all::run(config, stop)).await,
        Command::Topics(what) => topics::run(what, config, out).await,
        Command::Schemas(what) => schemas::run(what, config, out).await,
        Command::Migrate(what) => migrate(what, config, out).await,
        Command::Connections(what) => done(connections(what, config, out).await),
        Command::Vault(cli::Vault::Rotate(output)) => done(rotate(*output, config, out).await),
        Command::Simulate(cli::Simulate::Traffic(what)) => watch::traffic(what, config, out).await,
        Command::Simulate(cli::Simulate::Vendors(what)) => play::run(what, config, out).await,
        Command::Audit(what) => audit::run(what, config, out).await,
        Command::Digest(output) => audit::digest(*output, config, out).await,
        Command::Try(what) => trial::run(what, config, out).await,
        Command::Top(what) => top::run(what, config, out).await,
        Command::Describe
        | Command::Import(_)
        | Command::Metrics(_)
        | Command::Normalise(_)
        | Command::Config(_) => FAILED,
    }
}

async fn migrate(what: &cli::Migrate, config: &Config, out: &mut impl Write) -> u8 {
    let settings = &config.postgres;
    match what {
        cli::Migrate::Up(output) => done(migrate::up(settings, output.json, out).await),
        cli::Migrate::Down { steps, output } => {
            done(migrate::down(settings, *steps, output.json, out).await)
        }
        cli::Migrate::Status(output) => match migrate::status(settings, output.json, out).await {
            Ok(true) => 0,
            Ok(false) => FAILED,
            Err(error) => done(Err(error)),
        },
    }
}

async fn connections(what: &cli::Connections, config: &Config, out: &mut impl Write) -> Result<()> {
    let register = &mut PostgresRegister::new(config.postgres.clone(), "connections");
    let user = |text: &str| {
        User::parse(text).ok_or_else(|| {
            let doing = "read --user: 1 to 64 letters, digits, - or _";
            Error::new(Kind::ValidationError, doing, "")
        })
    };
    match what {
        cli::Connections::Add { vendor, user: name, vendor_user, output } => {
            add(config, register, (vendor, user(name)?, vendor_user), output.json, out).await
        }
        cli::Connections::List { user: name, output } => {
            let only = name.as_deref().map(user).transpose()?;
            let queue = PostgresQueue::new(&config.postgres)?;
            connections::list(register, &queue, only.as_ref(), output.json, out).await
        }
        cli::Connections::Token { vendor, vendor_user, file } => {
            let vault = PostgresVault::new(&config.postgres, roles::hydrator::keys(config)?)?;
            let pair = connections::read_tokens(file)?;
            let connection =
                connections::token(register, &vault, (vendor, vendor_user), &pair, now_us())
                    .await?;
            let queue = PostgresQueue::new(&config.postgres)?;
            let again = queue.retry(vendor, Some(connection), &tokens::MENDED).await?;
            say(out, &format!("the tokens are stored; {again} records are fetched again\n"))
        }
        cli::Connections::Show { vendor, vendor_user, user, output } => {
            let (vendor, vendor_user) = (vendor.as_deref(), vendor_user.as_deref());
            let only = history::Only { vendor, vendor_user, user: user.as_deref() };
            let queue = PostgresQueue::new(&config.postgres)?;
            history::show(register, &queue, only, output.json, out).await
        }
        cli::Connections::History { vendor, vendor_user, since } => {
            let connection = connections::now(register, vendor, vendor_user, now_us()).await?;
            let since = since.as_deref().map(history::day).transpose()?;
            let queue = PostgresQueue::new(&config.postgres)?;
            say(out, history::ask(&queue, vendor, connection, since).await?)
        }
        cli::Connections::Import { file, history } => {
            import_connections(config, register, file, *history, out).await
        }
        cli::Connections::Retry { vendor, vendor_user } => {
            let name = vendor_user.as_deref();
            say(out, &again(config, register, vendor, name).await?)
        }
        cli::Connections::Link { vendor, user: name } => {
            let link = consent::link(config, vendor, &user(name)?, now_us())?;
            say(out, &format!("{link}\n"))
        }
        cli::Connections::Pause { vendor, vendor_user } => {
            consent::pause(config, register, (vendor, vendor_user), true, out).await
        }
        cli::Connections::Resume { vendor, vendor_user } => {
            consent::pause(config, register, (vendor, vendor_user), false, out).await
        }
        cli::Connections::Remove { vendor, vendor_user, here_only, output } => {
            let whose = (vendor.as_str(), vendor_user.as_str());
            consent::remove(config, register, whose, *here_only, output.json, out).await
        }
    }
}

/// Makes the connections of a file and stores their tokens; where it is wanted, has their history asked for.
async fn import_connections(
    config: &Config,
    register: &mut PostgresRegister,
    file: &Path,
    with_history: bool,
    out: &mut impl Write,
) -> Result<()> {
    let vault = PostgresVault::new(&config.postgres, roles::hydrator::keys(config)?)?;
    let lines = connections::read_lines(file)?;
    let speed = config.hydrator.speed;
    let stored = connections::import(register, &vault, &lines, (now_us(), speed)).await?;
    let tokens = stored.len();
    if with_history {
        let queue = PostgresQueue::new(&config.postgres)?;
        for (vendor, connection) in stored {
            queue.note_gap(&vendor, connection, None).await?;
        }
    }
    say(out, &format!("{} connections are stored, {} with tokens\n", lines.len(), tokens))
}

/// Adds a connection; of HealthKit with its token.
async fn add(
    config: &Config,
    register: &mut PostgresRegister,
    (vendor, user, vendor_user): (&str, User, &str),
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    if crate::vendors::find(vendor).is_none() {
        return Err(Error::new(Kind::UnknownVendor, "read --vendor", ""));
    }
    let by_label = vendor == "healthkit";
    let secret = config.signing_secret("healthkit").filter(|_| by_label);
    if by_label && secret.is_none() {
        let doing = "make a token; set vendors.healthkit.signing_secret_file";
        return Err(Error::new(Kind::ValidationError, doing, ""));
    }
    let token = |id: ConnectionId| {
        let key = secret?.expose_secret().as_bytes();
        Some(healthkit::token(key, &id.to_string()))
    };
    let named = if by_label { Named::ByLabel } else { Named::ByVendor };
    let named = named(vendor_user.to_owned());
    let new = New { vendor: vendor.to_owned(), user, named };
    connections::add(register, &new, now_us(), token, json, out).await
}

/// Has what was given up fetched again, and says how much that is.
async fn again(
    config: &Config,
    register: &mut PostgresRegister,
    vendor: &str,
    vendor_user: Option<&str>,
) -> Result<String> {
    let whose = match vendor_user {
        Some(name) => Some(connections::now(register, vendor, name, now_us()).await?),
        None => None,
    };
    let again = PostgresQueue::new(&config.postgres)?.retry(vendor, whose, &[]).await?;
    Ok(format!("{again} records are fetched again\n"))
}

/// Seals by the current key what the one before sealed.
async fn rotate(output: cli::Output, config: &Config, out: &mut impl Write) -> Result<()> {
    let vault = PostgresVault::new(&config.postgres, roles::hydrator::keys(config)?)?;
    let resealed = vault.reseal().await?;
    let (sealed, unreadable) = (resealed.done, resealed.unreadable);
    let line = if output.json {
        format!("{}\n", serde_json::json!({"sealed": sealed, "unreadable": unreadable}))
    } else {
        format!("{sealed} pairs of tokens are sealed anew, {unreadable} cannot be opened\n")
    };
    say(out, &line)?;
    if unreadable == 0 {
        return Ok(());
    }
    let doing = "open all tokens: set secrets.previous_token_key to what sealed them";
    Err(Error::new(Kind::AuthenticationError, doing, ""))
}

async fn role<F: Future<Output = Result<()>>>(
    run: impl FnOnce(tokio_util::sync::CancellationToken) -> F,
) -> u8 {
    match roles::stop_on_signals() {
        Ok(stop) => done(run(stop).await),
        Err(error) => done(Err(error)),
    }
}

/// The exit code of a result; an error is told on standard error.
pub fn done(result: Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            complain(&error.to_string());
            FAILED
        }
    }
}

/// Tells a person what is wrong.
pub fn complain(what: &str) {
    // Where standard error is closed there is nobody to tell.
    let told = writeln!(std::io::stderr(), "{what}");
    drop(told);
}

/// Prints a result.
fn print(text: &str) -> u8 {
    done(say(&mut std::io::stdout(), text))
}

/// Writes a command's result.
///
/// # Errors
/// Where the reader is gone.
pub fn say(out: &mut impl Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes()).map_err(|error| {
        Error::new(
            crate::error::Kind::InternalError,
            "write to standard output",
            format!("{:?}", error.kind()),
        )
    })
}
