//! The configuration: declared once, checked before anything opens a socket, all problems at once.
//!
//! Defaults stand in `config.default.toml` and nowhere else; a file goes over them, then the environment
//! (`BRIDGE__SECTION__KEY`). Each component owns its settings; this file only puts them together, so nobody below
//! receives more than its own. Keys and types are held against the default file, which has every key: an unknown
//! key or another type is a problem with its name, what it is, and what it may be.
//!
//! Secrets come from the environment or from a file (`…_file`), never from a TOML file, which is shown, copied and
//! committed. With `profile = "production"` only files are taken: an environment can be read by too many.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::ingress::{Keys, VendorKeys};
use crate::vendors;

/// Every key with its default and its reason; also the reference that `config docs` prints.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// Names of v0 that are still read.
const ALIASES: [(&str, &str); 4] = [
    ("POSTGRES_URL", "postgres.url"),
    ("REDIS_URL", "redis.url"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka.brokers"),
    ("SCHEMA_REGISTRY_URL", "registry.url"),
];

/// What is wrong with a configuration: a key and our words. No value, because it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted.
    pub key: String,
    /// What it is and what it may be.
    pub what: String,
}

impl Problem {
    fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.key, self.what)
    }
}

/// Where it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A machine of one's own: one broker, no TLS asked for.
    #[default]
    Development,
    /// Where people's data is.
    Production,
}

/// What is done with a vendor's user for whom nobody made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownUsers {
    /// Its records wait until the connection exists.
    Hold,
    /// A connection is made, to a user derived from the vendor's.
    Derive,
}

/// `[pipeline]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Workers of decide, each a member of the group.
    pub decide_workers: usize,
    /// Workers of normalise.
    pub normalise_workers: usize,
    /// The consumer group of decide.
    pub decide_group: String,
    /// The consumer group of normalise.
    pub normalise_group: String,
    /// The name of this process among its group's; the host's name where absent.
    #[serde(default)]
    pub slot: Option<String>,
    /// What is done with unknown vendor users.
    pub unknown_users: UnknownUsers,
    /// How often held records are looked through, seconds.
    pub sweep_s: u64,
    /// The most records of a batch of decide.
    pub batch_records_max: usize,
}

/// `[secrets]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The key of pseudonyms.
    #[serde(default)]
    pub pseudonym_key: Option<SecretString>,
}

/// `[vendors.<name>]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// Whether its path is served.
    pub enabled: bool,
    /// What its requests are signed with.
    #[serde(default)]
    pub signing_secret: Option<SecretString>,
    /// The secret before, while both live.
    #[serde(default)]
    pub previous_signing_secret: Option<SecretString>,
    /// What its handshake must name.
    #[serde(default)]
    pub handshake_token: Option<SecretString>,
}

/// The whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it runs.
    pub profile: Profile,
    /// The door.
    pub ingress: crate::ingress::Settings,
    /// The brokers.
    pub kafka: crate::kafka::settings::Settings,
    /// The schema registry.
    pub registry: crate::kafka::registry::Settings,
    /// The truth.
    pub postgres: crate::postgres::Settings,
    /// The cache.
    pub redis: crate::redis::Settings,
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The admin listener.
    pub admin: crate::telemetry::health::Settings,
    /// What is logged.
    pub log: crate::telemetry::log::Settings,
    /// Keys of our own.
    pub secrets: Secrets,
    /// Vendors by name.
    pub vendors: BTreeMap<String, Vendor>,
    /// What stands where, secrets hidden, for `config show`.
    pub shown: String,
}

/// Reads the configuration: defaults, then the file, then the environment.
///
/// # Errors
/// Every problem at once.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let text = file.map(std::fs::read_to_string).transpose().unwrap_or_else(|_| {
        problems.push(Problem::new("--config", "the file cannot be read"));
        None
    });
    match from_parts(text.as_deref().unwrap_or_default(), environment) {
        Ok(config) if problems.is_empty() => Ok(config),
        Ok(_) => Err(problems),
        Err(more) => Err(problems.into_iter().chain(more).collect()),
    }
}

/// As [`load`], from the file's text.
///
/// # Errors
/// Every problem at once.
pub fn from_parts(
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut tree = defaults();
    match text.parse::<Table>() {
        Ok(over) => merge(&mut tree, over, "", &mut problems),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.get(..at).map_or(1, |before| before.lines().count().max(1));
            problems.push(Problem::new("--config", format!("not TOML, near line {line}")));
        }
    }
    let profile = match tree.get("profile").and_then(Value::as_str) {
        Some("production") => Profile::Production,
        _ => Profile::Development,
    };
    for (name, value) in environment {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, key)| *key);
        let own = name.strip_prefix("BRIDGE__").map(|rest| rest.to_lowercase().replace("__", "."));
        if let Some(key) = alias.map(str::to_owned).or(own) {
            set(&mut tree, &key, &value, profile, &mut problems);
        }
    }
    for section in ["secrets", "vendors"] {
        if let Some(Value::Table(inner)) = tree.get_mut(section) {
            read_secret_files(inner, section, &mut problems);
        }
    }
    let shown = shown(&tree);
    remove_unset(&mut tree);
    let config = typed(&tree, profile, shown, &mut problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

/// The default tree, with a section of its own for every vendor.
fn defaults() -> Table {
    let mut tree: Table = DEFAULTS.parse().unwrap_or_default();
    if let Some(Value::Table(sections)) = tree.get_mut("vendors")
        && let Some(any) = sections.remove("*")
    {
        for vendor in vendors::ALL {
            sections.insert(vendor.name().to_owned(), any.clone());
        }
    }
    tree
}

/// Whether a key holds a secret; its twin `…_file` names a file that holds it.
fn is_secret(key: &str) -> bool {
    ["_secret", "_token", "_key", "password"].iter().any(|end| key.ends_with(end))
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// What a value is, without the value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

/// Puts a file's table over the tree.
fn merge(tree: &mut Table, over: Table, prefix: &str, problems: &mut Vec<Problem>) {
    for (name, value) in over {
        let key = join(prefix, &name);
        match (tree.get_mut(&name), value) {
            (None, _) => {
                problems.push(Problem::new(key, "no such key; `config docs` has them all"))
            }
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over, &key, problems),
            (Some(_), _) if is_secret(&name) => problems.push(Problem::new(
                &key,
                format!(
                    "a secret does not belong in a file like this; name its file in {key}_file"
                ),
            )),
            (Some(here), value) if kind(here) == kind(&value) => *here = value,
            (Some(here), value) => problems
                .push(Problem::new(key, format!("is {}, must be {}", kind(&value), kind(here)))),
        }
    }
}

/// Puts a value of the environment into the tree, as the type that the key has.
fn set(tree: &mut Table, key: &str, text: &str, profile: Profile, problems: &mut Vec<Problem>) {
    let mut here = Some(&mut *tree);
    let (path, name) = key.rsplit_once('.').unwrap_or(("", key));
    for step in path.split('.').filter(|step| !step.is_empty()) {
        here = here.and_then(|table| table.get_mut(step)).and_then(Value::as_table_mut);
    }
    let Some(value) = here.and_then(|table| table.get_mut(name)) else {
        return problems.push(Problem::new(key, "no such key; `config docs` has them all"));
    };
    if is_secret(name) && profile == Profile::Production {
        let what = format!("in production a secret comes from a file: name it in {key}_file");
        return problems.push(Problem::new(key, what));
    }
    let read = match value {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    };
    match read {
        Some(read) => *value = read,
        None => problems.push(Problem::new(key, format!("must be {}", kind(value)))),
    }
}

/// Puts the content of `…_file` into its twin and takes the file's key out.
fn read_secret_files(tree: &mut Table, prefix: &str, problems: &mut Vec<Problem>) {
    let twins: Vec<String> = tree
        .keys()
        .filter_map(|key| key.strip_suffix("_file"))
        .filter(|key| is_secret(key))
        .map(str::to_owned)
        .collect();
    for name in twins {
        let file = tree.remove(&format!("{name}_file"));
        let path = file.as_ref().and_then(Value::as_str).unwrap_or_default();
        if path.is_empty() {
            continue;
        }
        match std::fs::read_to_string(path) {
            Ok(secret) => {
                tree.insert(name, Value::String(secret.trim_end().to_owned()));
            }
            Err(_) => {
                let key = join(prefix, &format!("{name}_file"));
                problems.push(Problem::new(key, "the file cannot be read"));
            }
        }
    }
    for (name, value) in tree.iter_mut() {
        if let Value::Table(inner) = value {
            read_secret_files(inner, &join(prefix, name), problems);
        }
    }
}

/// An empty text and a bound of 0 mean: not set.
fn remove_unset(tree: &mut Table) {
    tree.retain(|name, value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Integer(count) => *count != 0 || name != "retention_hours_max",
        _ => true,
    });
    for value in tree.iter_mut().filter_map(|(_, value)| value.as_table_mut()) {
        remove_unset(value);
    }
}

fn section<T: DeserializeOwned>(
    tree: &Table,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let value = tree.get(name).cloned().unwrap_or_else(|| Value::Table(Table::new()));
    match T::deserialize(value) {
        Ok(settings) => Some(settings),
        Err(error) => {
            // The library's text can quote a value; its message up to the first quote cannot.
            let text = error.message().split(['`', '"', ':']).next().unwrap_or_default().trim();
            problems.push(Problem::new(name, format!("{text}; `config docs` says what it may be")));
            None
        }
    }
}

fn typed(
    tree: &Table,
    profile: Profile,
    shown: String,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    match tree.get("profile").and_then(Value::as_str) {
        Some("development" | "production") => {}
        _ => problems.push(Problem::new("profile", "must be \"development\" or \"production\"")),
    }
    let (ingress, kafka) = (section(tree, "ingress", problems), section(tree, "kafka", problems));
    let (registry, postgres) =
        (section(tree, "registry", problems), section(tree, "postgres", problems));
    let (redis, pipeline) = (section(tree, "redis", problems), section(tree, "pipeline", problems));
    let (admin, log) = (section(tree, "admin", problems), section(tree, "log", problems));
    let (secrets, vendors) =
        (section(tree, "secrets", problems), section(tree, "vendors", problems));
    let config = Config {
        profile,
        ingress: ingress?,
        kafka: kafka?,
        registry: registry?,
        postgres: postgres?,
        redis: redis?,
        pipeline: pipeline?,
        admin: admin?,
        log: log?,
        secrets: secrets?,
        vendors: vendors?,
        shown,
    };
    relations(&config, problems);
    Some(config)
}

/// What must hold between keys, and the ranges of single ones.
fn relations(config: &Config, problems: &mut Vec<Problem>) {
    let production = config.profile == Profile::Production;
    for (key, what) in config.kafka.problems(production) {
        problems.push(Problem::new(format!("kafka.{key}"), format!("must be {what}")));
    }
    for (key, what) in config.registry.problems(production) {
        problems.push(Problem::new(format!("registry.{key}"), format!("must be {what}")));
    }
    for text in config.ingress.problems() {
        let (key, what) = text.split_once(": ").unwrap_or(("ingress", &text));
        problems.push(Problem::new(key, format!("must be {what}")));
    }
    let pipeline = &config.pipeline;
    let within = |count: usize, max: usize| (1..=max).contains(&count);
    let rules = [
        ("decide_workers", within(pipeline.decide_workers, 32), "must be 1 to 32"),
        ("normalise_workers", within(pipeline.normalise_workers, 32), "must be 1 to 32"),
        ("batch_records_max", within(pipeline.batch_records_max, 500), "must be 1 to 500"),
        ("sweep_s", (1..=3600).contains(&pipeline.sweep_s), "must be 1 to 3600"),
    ];
    for (key, _, what) in rules.into_iter().filter(|(_, holds, _)| !holds) {
        problems.push(Problem::new(format!("pipeline.{key}"), what));
    }
    if u64::from(config.kafka.send_timeout_ms) <= config.ingress.ack_ms_max {
        problems.push(Problem::new("kafka.send_timeout_ms", "must be above ingress.ack_ms_max"));
    }
}

impl Config {
    /// The keys of the door: what only a process that takes requests must have.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn keys(&self) -> Result<Keys, Vec<Problem>> {
        let vendors = self.vendors.iter().filter(|(_, vendor)| vendor.enabled);
        let vendors = vendors.filter_map(|(name, vendor)| {
            let signing: Vec<SecretString> =
                [&vendor.signing_secret, &vendor.previous_signing_secret]
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect();
            let keys = VendorKeys { signing, handshake: vendor.handshake_token.clone() };
            (!keys.signing.is_empty()).then(|| (name.clone(), keys))
        });
        let pseudonym = self.secrets.pseudonym_key.clone().unwrap_or_default();
        let keys = Keys { pseudonym, vendors: vendors.collect() };
        let mut problems = Vec::new();
        for text in keys.problems() {
            let (key, what) = text.split_once(": ").unwrap_or(("secrets", &text));
            problems.push(Problem::new(key, format!("must be {what}")));
        }
        if keys.vendors.is_empty() {
            let what = "no vendor has one: name a file in vendors.<name>.signing_secret_file";
            problems.push(Problem::new("vendors.*.signing_secret", what));
        }
        if problems.is_empty() { Ok(keys) } else { Err(problems) }
    }

    /// A vendor's newest signing secret, for commands that sign.
    #[must_use]
    pub fn signing_secret(&self, vendor: &str) -> Option<&SecretString> {
        self.vendors.get(vendor)?.signing_secret.as_ref()
    }

    /// This process' name among its group's.
    #[must_use]
    pub fn slot(&self) -> String {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let named = self.pipeline.slot.clone().or_else(host);
        named.map_or_else(|| "local".to_owned(), |name| name.trim().to_owned())
    }
}

/// The tree as TOML, every secret as `***`.
fn shown(tree: &Table) -> String {
    fn hide(table: &mut Table) {
        for (name, value) in table.iter_mut() {
            match value {
                Value::Table(inner) => hide(inner),
                Value::String(text) if is_secret(name) && !text.is_empty() => {
                    *text = "***".to_owned();
                }
                Value::String(text) if text.contains('@') => *text = hidden_url(text),
                _ => {}
            }
        }
    }
    let mut tree = tree.clone();
    hide(&mut tree);
    toml::to_string_pretty(&tree).unwrap_or_default()
}

/// An address without the password that may stand in it.
fn hidden_url(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let (before, after) = (url.get(..scheme + 3), url.get(at..));
            format!("{}***{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        _ => url.to_owned(),
    }
}
