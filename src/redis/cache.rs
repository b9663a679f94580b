//! What is newest of each person: implements [`Cache`].
//!
//! | key | what |
//! | --- | --- |
//! | `biometrics:{user}:latest` | hash `event_id`, `revision`, `measured_at` (µs), `json`: of all makers |
//! | `biometrics:{user}:{device_type}:latest` | the same, of one maker |
//! | `biometrics:{user}:timeseries` | sorted set, score `measured_at`, member the JSON (with `event_id` and `revision`); one member an event |
//! | `biometrics:{user}:timeseries:known` | hash, event id → the revision that was shown and its time; of ours alone |
//!
//! Events are shown by a script (`show.lua`), so no reader sees half of one; a script shows a few of them, and a batch
//! is one pipeline of scripts. A script only moves forward: what comes late, or twice, changes nothing. Its keys are
//! of several people, so this is one server, not a cluster.
//!
//! # Why it never holds the pipeline up
//! Without a connection a call fails at once. A connection that does not answer costs `command_timeout_ms`, and
//! after five failures in a row nothing for 5 s. The library's own defaults would wait for ever and queue without
//! bound.

use std::path::PathBuf;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::config::{Config, ReconnectPolicy, TcpConfig};
use fred::types::{Builder, ClusterHash, ConnectHandle, CustomCommand};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::breaker::Breaker;
use crate::error::{Error, Kind, Result};
use crate::model::event::Op;
use crate::model::state::{Hole, Shown};
use crate::stream::{Cache, Clock};
use crate::telemetry::metrics::Metrics;

/// Where Redis is and what it keeps. Every default stands in `config.default.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `redis://user:password@host:port/database`, or `rediss://` for TLS; a secret as a whole.
    pub url: Option<SecretString>,
    /// A file that holds it.
    pub url_file: Option<PathBuf>,
    /// How long a connection may take to be made, ms.
    pub connect_timeout_ms: u64,
    /// How long a batch may wait for its answers, ms.
    pub command_timeout_ms: u64,
    /// How long a person's keys live after the last event, s.
    pub ttl_s: u32,
    /// The most members of a time series.
    pub timeseries_max: u32,
}

/// Commands that may wait in the library: a batch's events and some.
const BUFFER_MAX: usize = 10_000;
/// A connection that says nothing for so long while an answer is due is given up.
const UNRESPONSIVE: Duration = Duration::from_secs(5);
/// The most events of one script: so many hold the server up for less than a millisecond.
const SCRIPT_EVENTS: usize = 32;
const SHOWING: &str = "show in the cache";
const SCRIPT: &str = include_str!("show.lua");

/// The cache on a connection of its own.
pub struct RedisCache<C> {
    client: Client,
    driver: ConnectHandle,
    /// The script's hash, once the server has it.
    script: Option<String>,
    breaker: Breaker,
    clock: C,
    limit: Duration,
    ttl_s: u32,
    timeseries_max: u32,
    metrics: Metrics,
}

impl<C> Drop for RedisCache<C> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<C: Clock> RedisCache<C> {
    /// Begins to connect and waits for it a moment (`command_timeout_ms`). A Redis that is away is no error:
    /// connecting goes on behind.
    ///
    /// # Errors
    /// [`Kind::InternalError`] where the settings are wrong.
    pub async fn open(settings: &Settings, clock: C, metrics: Metrics) -> Result<Self> {
        let client = client(settings)?;
        let driver = client.connect();
        let limit = Duration::from_millis(settings.command_timeout_ms);
        if tokio::time::timeout(limit, client.wait_for_connect()).await.is_err() {
            tracing::warn!("redis does not answer yet; the pipeline goes on without it");
        }
        Ok(Self {
            client,
            driver,
            script: None,
            breaker: Breaker::default(),
            clock,
            limit,
            ttl_s: settings.ttl_s,
            timeseries_max: settings.timeseries_max,
            metrics,
        })
    }

    async fn run(&mut self, shown: &[Shown]) -> Result<Vec<Hole>> {
        if !self.client.is_connected() {
            return Err(Error::new(Kind::CacheError, SHOWING, "not connected"));
        }
        let answers = match self.pipeline(shown).await {
            // A restarted server has forgotten the script. It ran nothing, so all is asked again.
            Err(error) if error.code == "NOSCRIPT" => {
                self.script = None;
                self.pipeline(shown).await?
            }
            answers => answers?,
        };
        let mut holes = Vec::new();
        for (one, answer) in shown.iter().zip(answers) {
            if answer & 1 != 0 {
                holes.push(Hole { user: one.user.clone(), device_type: None });
            }
            if answer & 2 != 0 {
                let device_type = Some(one.device_type.clone());
                holes.push(Hole { user: one.user.clone(), device_type });
            }
        }
        Ok(holes)
    }

    /// Every script in one pipeline; the events' answers in order.
    async fn pipeline(&mut self, shown: &[Shown]) -> Result<Vec<i64>> {
        let script = match &self.script {
            Some(script) => script.clone(),
            None => {
                let loaded: String =
                    self.client.script_load(SCRIPT).await.map_err(|error| failed(&error))?;
                self.script.insert(loaded).clone()
            }
        };
        let pipeline = self.client.pipeline();
        for some in shown.chunks(SCRIPT_EVENTS) {
            // The library's pipelines have no `evalsha` of their own. The command is only put down here; its
            // answer comes with all the others.
            let command = CustomCommand::new_static("EVALSHA", ClusterHash::FirstKey, false);
            let put: Result<(), _> = pipeline.custom(command, self.command(&script, some)).await;
            put.map_err(|error| failed(&error))?;
        }
        let mut all = Vec::with_capacity(shown.len());
        for answers in pipeline.try_all::<Vec<i64>>().await {
            all.extend(answers.map_err(|error| failed(&error))?);
        }
        if all.len() < shown.len() {
            return Err(Error::new(Kind::CacheError, SHOWING, "incomplete"));
        }
        Ok(all)
    }

    /// `EVALSHA`'s arguments: the script, its keys, what it is told.
    fn command(&self, script: &str, shown: &[Shown]) -> Vec<String> {
        let mut command = Vec::with_capacity(4 + shown.len() * 9);
        command.extend([script.to_owned(), (shown.len() * 4).to_string()]);
        for Shown { user, device_type, .. } in shown {
            command.extend([
                format!("biometrics:{user}:latest"),
                format!("biometrics:{user}:{device_type}:latest"),
                format!("biometrics:{user}:timeseries"),
                format!("biometrics:{user}:timeseries:known"),
            ]);
        }
        command.extend([self.ttl_s.to_string(), self.timeseries_max.to_string()]);
        for one in shown {
            let op = match one.op {
                Op::Upsert => "1",
                Op::Delete => "2",
            };
            command.extend([
                one.event_id.to_string(),
                one.revision.to_string(),
                one.measured_at.to_string(),
                op.to_owned(),
                one.json.clone(),
            ]);
        }
        command
    }
}

impl<C: Clock> Cache for RedisCache<C> {
    async fn show(&mut self, shown: &[Shown]) -> Result<Vec<Hole>> {
        if shown.is_empty() {
            return Ok(Vec::new());
        }
        if !self.breaker.allows(self.clock.elapsed()) {
            return Err(Error::new(Kind::CacheError, SHOWING, "open"));
        }
        let answer = tokio::time::timeout(self.limit, self.run(shown))
            .await
            .unwrap_or_else(|_elapsed| Err(Error::new(Kind::CacheError, SHOWING, "timeout")));
        match &answer {
            Ok(_) => self.breaker.succeeded(),
            Err(_) => {
                if self.breaker.failed(self.clock.elapsed()) {
                    self.metrics.openings.at(["redis"]).inc();
                }
            }
        }
        answer
    }
}

fn client(settings: &Settings) -> Result<Client> {
    let wrong = |doing| Error::new(Kind::InternalError, doing, "redis");
    let url = match (&settings.url, &settings.url_file) {
        (_, Some(file)) => std::fs::read_to_string(file)
            .map(SecretString::from)
            .map_err(|_unread| wrong("read the file that redis.url_file names"))?,
        (Some(url), None) => url.clone(),
        (None, None) => return Err(wrong("find redis.url or redis.url_file: set one")),
    };
    let mut config = Config::from_url(url.expose_secret().trim())
        .map_err(|_quotes| wrong("read redis.url: it is not a Redis URL"))?;
    // Being away at the start is no reason to give up.
    config.fail_fast = false;
    let command = Duration::from_millis(settings.command_timeout_ms);
    let connect = Duration::from_millis(settings.connect_timeout_ms);
    Builder::from_config(config)
        .with_connection_config(|connection| {
            connection.connection_timeout = connect;
            connection.internal_command_timeout = connect;
            connection.max_command_buffer_len = BUFFER_MAX;
            // What was sent and not answered may have run; the next event puts it right.
            connection.max_command_attempts = 1;
            connection.unresponsive.max_timeout = Some(UNRESPONSIVE);
            connection.tcp = TcpConfig {
                nodelay: Some(true),
                user_timeout: Some(UNRESPONSIVE),
                ..TcpConfig::default()
            };
        })
        .with_performance_config(|performance| performance.default_command_timeout = command)
        // For ever, 100 ms to 10 s apart.
        .set_policy(ReconnectPolicy::new_exponential(0, 100, 10_000, 2))
        .build()
        .map_err(|_refused| wrong("set up the client"))
}

/// The library's error as ours: the code word of the server's answer (`OOM`, `READONLY`), else the kind.
fn failed(error: &fred::error::Error) -> Error {
    let word = error.details().split(' ').next().unwrap_or_default();
    let is_code =
        (3..=16).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let code = if is_code { word } else { error.kind().to_str() };
    Error::new(Kind::CacheError, SHOWING, code)
}

#[cfg(test)]
mod tests {
    use fred::error::ErrorKind;

    use super::*;

    #[test]
    fn an_error_keeps_its_code_and_nothing_else() {
        let server = "OOM command not allowed when used memory > 'maxmemory'. jane.doe";
        let error = failed(&fred::error::Error::new(ErrorKind::Unknown, server));
        assert_eq!(error.to_string(), "cache_error: show in the cache (OOM)");
        let error = failed(&fred::error::Error::new(ErrorKind::Timeout, "jane.doe"));
        assert!(!error.to_string().contains("jane"), "{error}");
    }

    #[test]
    fn a_wrong_url_is_not_quoted() {
        let settings = Settings {
            url: Some("not-a-secret-test-key".to_owned().into()),
            url_file: None,
            connect_timeout_ms: 1,
            command_timeout_ms: 1,
            ttl_s: 1,
            timeseries_max: 1,
        };
        let error = client(&settings).map(|_client| ()).expect_err("refused");
        assert!(!format!("{error:?} {settings:?}").contains("not-a-secret"));
    }
}
