//! The configuration: declared once, checked before anything opens a socket, all problems at once.
//!
//! Defaults stand in `config.default.toml` and nowhere else; a file goes over them, then the environment
//! (`BRIDGE__SECTION__KEY`). Each component owns its settings; this file only puts them together, so nobody below
//! receives more than its own. Keys and types are held against the default file, which has every key: an unknown
//! key or another type is a problem with its name, what it is, and what it may be.
//!
//! A key whose value does not fit is looked at alone, so that ten mistakes are ten problems; where one is found the
//! default stands in for it, and the relations between keys are still looked at.
//!
//! Secrets come from the environment or from a file (`…_file`), never from a TOML file, which is shown, copied and
//! committed. With `profile = "production"` only files are taken: an environment can be read by too many. A URL
//! with a password in it is a secret as a whole.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::hydrator::fetch::Base;
use crate::ingress::{Keys, Rate, Shelf, VendorKeys};
use crate::vendors;
use crate::vendors::ask::With;

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
    /// What seals vendors' tokens.
    #[serde(default)]
    pub token_key: Option<SecretString>,
    /// What sealed them before; it opens and does not seal.
    #[serde(default)]
    pub previous_token_key: Option<SecretString>,
    /// What the links are signed with by which people connect.
    #[serde(default)]
    pub connect_key: Option<SecretString>,
}

/// `[vendors.<name>]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// Whether its path is served, and its records are read.
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
    /// How many of its requests are taken in a time.
    #[serde(default)]
    pub rate_max: Option<Rate>,
    /// How many of one peer's.
    #[serde(default)]
    pub rate_per_peer_max: Option<Rate>,
    /// Where its API is, instead of where its file says.
    #[serde(default)]
    pub api_base: Option<String>,
    /// A bucket of ours that its pointers may lead to.
    #[serde(default)]
    pub bucket: Option<String>,
    /// Where its tokens are renewed, instead of where its file says.
    #[serde(default)]
    pub renewal_url: Option<String>,
    /// Where people consent, instead of where its file says.
    #[serde(default)]
    pub authorise_url: Option<String>,
    /// Where its public keys are, instead of where its file says: an address, or a file.
    #[serde(default)]
    pub keyset: Option<String>,
    /// What it knows us by.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Our secret with it.
    #[serde(default)]
    pub client_secret: Option<SecretString>,
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
    /// The hydrator.
    pub hydrator: crate::hydrator::Settings,
    /// Where people connect.
    pub connect: crate::hydrator::connect::Settings,
    /// The admin listener.
    pub admin: crate::telemetry::health::Settings,
    /// What is measured and where it is sent.
    pub telemetry: crate::telemetry::Settings,
    /// What is logged.
    pub log: crate::telemetry::log::Settings,
    /// Whether somebody asked for a level of the log, or it is the default's.
    pub log_level_is_set: bool,
    /// Keys of our own.
    pub secrets: Secrets,
    /// Vendors by name.
    pub vendors: BTreeMap<String, Vendor>,
    /// What stands where, secrets hidden, for `config show`.
    pub shown: String,
}

/// Reads the configuration: defaults, then the file, then the environment. With `door`, what only a process that
/// takes requests must have is looked at too.
///
/// # Errors
/// Every problem at once.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    door: bool,
) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let text = file.map(std::fs::read_to_string).transpose().unwrap_or_else(|_| {
        problems.push(Problem::new("--config", "the file cannot be read, or is not UTF-8"));
        None
    });
    let mut ours = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| key_of(name).is_some()) else { continue };
        match value.into_string() {
            Ok(value) => ours.push((name.to_owned(), value)),
            Err(_) => problems.push(Problem::new(name, "is not UTF-8")),
        }
    }
    let found = from_parts(text.as_deref().unwrap_or_default(), ours.into_iter(), door);
    match found {
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
    door: bool,
) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut tree = defaults();
    let over = text.parse::<Table>().unwrap_or_else(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).map_or(1, |before| before.lines().count().max(1));
        problems.push(Problem::new("--config", format!("not TOML, near line {line}")));
        Table::new()
    });
    let environment = in_order(environment);
    let profile = profile(&tree, &over, &environment);
    let log_level_is_set = is_set("log.level", &over, &environment);
    merge(&mut tree, over, "", &mut problems);
    for (key, value) in environment {
        set(&mut tree, &key, &value, profile, &mut problems);
    }
    find_unread_files(&tree, "", &mut problems);
    for section in ["secrets", "vendors"] {
        if let Some(Value::Table(inner)) = tree.get_mut(section) {
            read_secret_files(inner);
        }
    }
    let shown = shown(&tree);
    remove_unset(&mut tree);
    let config = typed(&tree, profile, shown, &mut problems)
        .map(|config| Config { log_level_is_set, ..config });
    if door && let Some(Err(more)) = config.as_ref().map(Config::keys) {
        problems.extend(more);
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

/// The key that a variable of the environment sets, if it is one of ours.
fn key_of(name: &str) -> Option<String> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, key)| (*key).to_owned());
    let vendor = || {
        let vendor = vendors::find(&name.strip_suffix("_ENABLED")?.to_lowercase())?;
        Some(format!("vendors.{}.enabled", vendor.name()))
    };
    alias.or_else(vendor).or_else(|| {
        name.strip_prefix("BRIDGE__").map(|rest| rest.to_lowercase().replace("__", "."))
    })
}

/// What of the environment is ours, v0's names first: where both are given ours counts, in whatever order they come.
fn in_order(environment: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut ours: Vec<(bool, String, String)> = environment
        .filter_map(|(name, value)| Some((name.starts_with("BRIDGE__"), key_of(&name)?, value)))
        .collect();
    ours.sort();
    ours.into_iter().map(|(_, key, value)| (key, value)).collect()
}

/// The profile, before anything else is read: it says where secrets may come from.
fn profile(tree: &Table, over: &Table, environment: &[(String, String)]) -> Profile {
    let set =
        environment.iter().rfind(|(key, _)| key == "profile").map(|(_, value)| value.as_str());
    let written = [over, tree].into_iter().find_map(|table| table.get("profile")?.as_str());
    if set.or(written) == Some("production") { Profile::Production } else { Profile::Development }
}

/// Whether a key of a section is set over the default.
fn is_set(key: &str, over: &Table, environment: &[(String, String)]) -> bool {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let written = over.get(section).and_then(|section| section.get(name)).is_some();
    written || environment.iter().any(|(set, _)| set == key)
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

/// Whether a value is a secret although its key's is not always one: a URL with a password in it, where a file may
/// hold it.
fn has_password(section: &Table, key: &str, text: &str) -> bool {
    if key != "url" || !section.contains_key("url_file") {
        return false;
    }
    let after_scheme = text.split_once("://").map(|(_, rest)| rest);
    let user = after_scheme.and_then(|rest| rest.rsplit_once('@')).map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || text.contains("password=")
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
        let text = value.as_str().unwrap_or_default();
        let secret = is_secret(&name) || has_password(tree, &name, text);
        match (tree.get_mut(&name), value) {
            (None, _) => {
                problems.push(Problem::new(key, "no such key; `config docs` has them all"))
            }
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over, &key, problems),
            (Some(_), _) if secret => {
                let file = format!("name its file in {key}_file");
                let what = format!("a secret does not belong in a file like this; {file}");
                problems.push(Problem::new(&key, what));
            }
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
    let secret =
        is_secret(name) || here.as_ref().is_some_and(|section| has_password(section, name, text));
    let Some(value) = here.and_then(|table| table.get_mut(name)) else {
        return problems.push(Problem::new(key, "no such key; `config docs` has them all"));
    };
    if secret && profile == Profile::Production {
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

/// Whether the file of a key is read as text, here or by who owns the key.
fn is_text(name: &str) -> bool {
    name.strip_suffix("_file").is_some_and(|key| key == "url" || is_secret(key))
}

/// Every file that a key names must be there before anything is opened, whoever reads it, and whenever.
fn find_unread_files(tree: &Table, prefix: &str, problems: &mut Vec<Problem>) {
    for (name, value) in tree {
        let key = join(prefix, name);
        match value {
            Value::Table(inner) => find_unread_files(inner, &key, problems),
            Value::String(path) if name.ends_with("_file") && !path.is_empty() => {
                let what = match std::fs::read(path) {
                    Ok(bytes) if bytes.trim_ascii().is_empty() => "the file is empty",
                    Ok(bytes) if is_text(name) && std::str::from_utf8(&bytes).is_err() => {
                        "the file is not UTF-8"
                    }
                    Ok(_) => continue,
                    Err(_) => "the file cannot be read",
                };
                problems.push(Problem::new(key, what));
            }
            _ => {}
        }
    }
}

/// Puts the content of `…_file` into its twin and takes the file's key out. A file that cannot be read is a problem
/// by then.
fn read_secret_files(tree: &mut Table) {
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
        if let Ok(secret) = std::fs::read_to_string(path) {
            tree.insert(name, Value::String(secret.trim_end().to_owned()));
        }
    }
    for inner in tree.iter_mut().filter_map(|(_, value)| value.as_table_mut()) {
        read_secret_files(inner);
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

/// Reads sections, each key of them by itself where the whole does not fit.
struct Sections<'a> {
    tree: &'a Table,
    defaults: Table,
    problems: &'a mut Vec<Problem>,
}

impl Sections<'_> {
    fn read<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let empty = Table::new();
        let given = self.tree.get(name).and_then(Value::as_table).unwrap_or(&empty);
        let fits = |table: &Table| T::deserialize(Value::Table(table.clone()));
        if let Ok(settings) = fits(given) {
            return Some(settings);
        }
        let mut good = self.defaults.get(name).and_then(Value::as_table).cloned()?;
        let mut paths = leaves(given);
        paths.extend(leaves(&good));
        paths.sort();
        paths.dedup();
        for path in paths {
            let mut one = good.clone();
            put(&mut one, &path, at(given, &path).cloned());
            match fits(&one) {
                Ok(_) => good = one,
                Err(error) => {
                    let key = join(name, &path.join("."));
                    self.problems.push(Problem::new(key, allowed(error.message())));
                }
            }
        }
        fits(&good).ok()
    }
}

/// The paths of a table's values.
fn leaves(table: &Table) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => paths.extend(leaves(inner).into_iter().map(|mut path| {
                path.insert(0, name.clone());
                path
            })),
            _ => paths.push(vec![name.clone()]),
        }
    }
    paths
}

fn at<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { at(value.as_table()?, rest) }
}

/// Puts a value at a path, or takes away what is there.
fn put(table: &mut Table, path: &[String], value: Option<Value>) {
    let Some((first, rest)) = path.split_first() else { return };
    match (rest.is_empty(), value) {
        (true, Some(value)) => drop(table.insert(first.clone(), value)),
        (true, None) => drop(table.remove(first)),
        (false, value) => {
            let inner = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// What a key may be, by the library's text: of that only what stands after the value, which is our own type's.
fn allowed(message: &str) -> String {
    if message.starts_with("missing field") {
        return "must be set".to_owned();
    }
    let ours = ["unknown variant", "invalid value"].iter().any(|kind| message.starts_with(kind));
    let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected);
    match expected.filter(|_| ours) {
        Some("usize" | "u64") => "must be a whole number, 0 or more".to_owned(),
        Some("u32") => format!("must be a whole number, 0 to {}", u32::MAX),
        Some("i32") => format!("must be a whole number, {} to {}", i32::MIN, i32::MAX),
        Some(names) => format!("must be {}", names.replace('`', "\"")),
        None => "cannot be read; `config docs` says what it may be".to_owned(),
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
    let mut defaults = defaults();
    remove_unset(&mut defaults);
    let mut sections = Sections { tree, defaults, problems };
    let (ingress, kafka) = (sections.read("ingress"), sections.read("kafka"));
    let (registry, postgres) = (sections.read("registry"), sections.read("postgres"));
    let (redis, pipeline) = (sections.read("redis"), sections.read("pipeline"));
    let hydrator: Option<crate::hydrator::Settings> = sections.read("hydrator");
    let connect: Option<crate::hydrator::connect::Settings> = sections.read("connect");
    let (admin, log) = (sections.read("admin"), sections.read("log"));
    let telemetry: Option<crate::telemetry::Settings> = sections.read("telemetry");
    let (secrets, vendors) = (sections.read("secrets"), sections.read("vendors"));
    let config = Config {
        profile,
        ingress: ingress?,
        kafka: kafka?,
        registry: registry?,
        postgres: postgres?,
        redis: redis?,
        pipeline: pipeline?,
        hydrator: hydrator?,
        connect: connect?,
        admin: admin?,
        telemetry: telemetry?,
        log: log?,
        log_level_is_set: false,
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
    for (key, what) in config.hydrator.problems(production) {
        problems.push(Problem::new(format!("hydrator.{key}"), format!("must be {what}")));
    }
    for (key, what) in config.connect.problems(production) {
        problems.push(Problem::new(format!("connect.{key}"), format!("must be {what}")));
    }
    for (name, vendor) in &config.vendors {
        let addresses = [
            ("api_base", &vendor.api_base),
            ("bucket", &vendor.bucket),
            ("renewal_url", &vendor.renewal_url),
            ("authorise_url", &vendor.authorise_url),
            ("keyset", &vendor.keyset.clone().filter(|keyset| is_address(keyset))),
        ];
        for (key, address) in addresses {
            if address.as_deref().is_some_and(|address| Base::parse(address).is_none()) {
                let key = format!("vendors.{name}.{key}");
                problems.push(Problem::new(key, format!("must be {ADDRESS}")));
            }
        }
        let secret = vendor.client_secret.as_ref().map(|secret| secret.expose_secret());
        let keys = [("client_id", vendor.client_id.as_deref()), ("client_secret", secret)];
        for (key, text) in keys.into_iter().filter(|_| is_asked_with_its_key(name)) {
            if text.is_some_and(|text| !text.bytes().all(|byte| byte.is_ascii_graphic())) {
                let key = format!("vendors.{name}.{key}");
                problems.push(Problem::new(key, "must be ASCII without spaces: it is a header"));
            }
        }
    }
    for (key, what) in config.telemetry.problems() {
        problems.push(Problem::new(format!("telemetry.{key}"), format!("must be {what}")));
    }
    for text in config.ingress.problems() {
        let (key, what) = text.split_once(": ").unwrap_or(("ingress", &text));
        problems.push(Problem::new(key, format!("must be {what}")));
    }
    for (key, _, what) in rules(config).into_iter().filter(|(_, holds, _)| !holds) {
        problems.push(Problem::new(key, format!("must be {what}")));
    }
}

/// Whether this vendor's API is asked with the app's own id and key.
fn is_asked_with_its_key(name: &str) -> bool {
    let api = vendors::find(name).and_then(|vendor| vendor.api());
    api.is_some_and(|api| matches!(api.with(), With::Key(_)))
}

/// What the address of a vendor's API may be: a token goes there.
const ADDRESS: &str = "https://host/path, no slash at the end; plain http only on this machine";

/// Whether a vendor's keyset is named by its address; else it is a file.
#[must_use]
pub fn is_address(keyset: &str) -> bool {
    keyset.starts_with("https://") || keyset.starts_with("http://")
}

/// Keys that this file answers for: whether they hold, and what they must be.
fn rules(config: &Config) -> [(&'static str, bool, &'static str); 21] {
    let (pipeline, postgres, redis) = (&config.pipeline, &config.postgres, &config.redis);
    let within = |count: usize, max: usize| (1..=max).contains(&count);
    let url = |url: &Option<SecretString>, schemes: [&str; 2]| {
        let url = url.as_ref().map(|url| url.expose_secret());
        url.is_none_or(|url| schemes.iter().any(|scheme| url.starts_with(scheme)))
    };
    [
        ("pipeline.decide_workers", within(pipeline.decide_workers, 32), "1 to 32"),
        ("pipeline.normalise_workers", within(pipeline.normalise_workers, 32), "1 to 32"),
        ("pipeline.batch_records_max", within(pipeline.batch_records_max, 500), "1 to 500"),
        ("pipeline.sweep_s", (1..=3600).contains(&pipeline.sweep_s), "1 to 3600"),
        (
            "pipeline.normalise_group",
            pipeline.normalise_group != pipeline.decide_group,
            "another than pipeline.decide_group",
        ),
        (
            "kafka.send_timeout_ms",
            u64::from(config.kafka.send_timeout_ms) > config.ingress.ack_ms_max,
            "above ingress.ack_ms_max",
        ),
        (
            "postgres.url",
            url(&postgres.url, ["postgresql://", "postgres://"]),
            "postgresql://user:password@host:port/database",
        ),
        ("postgres.connect_timeout_ms", postgres.connect_timeout_ms > 0, "above 0"),
        ("postgres.idle_in_transaction_ms", postgres.idle_in_transaction_ms > 0, "above 0"),
        (
            "postgres.statement_timeout_ms",
            postgres.statement_timeout_ms > postgres.idle_in_transaction_ms,
            "above postgres.idle_in_transaction_ms",
        ),
        ("postgres.tcp_user_timeout_ms", postgres.tcp_user_timeout_ms > 0, "above 0"),
        ("postgres.keepalive_idle_s", postgres.keepalive_idle_s > 0, "above 0"),
        ("postgres.pool_size_max", within(postgres.pool_size_max, 1000), "1 to 1000"),
        ("postgres.pool_wait_ms", postgres.pool_wait_ms > 0, "above 0"),
        (
            "redis.url",
            url(&redis.url, ["redis://", "rediss://"]),
            "redis://user:password@host:port/database, or rediss://",
        ),
        ("redis.connect_timeout_ms", redis.connect_timeout_ms > 0, "above 0"),
        ("redis.command_timeout_ms", redis.command_timeout_ms > 0, "above 0"),
        ("redis.ttl_s", redis.ttl_s > 0, "above 0"),
        ("redis.timeseries_max", redis.timeseries_max > 0, "above 0"),
        (
            "admin.address",
            config.admin.address != config.ingress.address,
            "another than ingress.address",
        ),
        ("admin.probe_ms_max", config.admin.probe_ms_max > 0, "above 0"),
    ]
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
            let keys = VendorKeys {
                signing,
                handshake: vendor.handshake_token.clone(),
                rate_max: vendor.rate_max,
                rate_per_peer_max: vendor.rate_per_peer_max,
                keyset: Shelf::default(),
            };
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

    /// The vendors that are switched off: their paths are none, and what comes of them otherwise is not read.
    #[must_use]
    pub fn switched_off(&self) -> Vec<String> {
        let off = self.vendors.iter().filter(|(_, vendor)| !vendor.enabled);
        off.map(|(name, _)| name.clone()).collect()
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
                Value::String(text) if name == "url" => *text = hidden_url(text),
                _ => {}
            }
        }
    }
    let mut tree = tree.clone();
    hide(&mut tree);
    toml::to_string_pretty(&tree).unwrap_or_default()
}

/// Of a URL what is no secret: scheme, host and path. What is no URL is not shown at all.
fn hidden_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.is_empty() { String::new() } else { "***".to_owned() };
    };
    let (user, place) = rest.rsplit_once('@').map_or(("", rest), |(_, place)| ("***@", place));
    match place.split_once('?') {
        Some((place, _)) => format!("{scheme}://{user}{place}?***"),
        None => format!("{scheme}://{user}{place}"),
    }
}
