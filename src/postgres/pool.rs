//! Connections: made here and nowhere else, with every time-out set.
//!
//! A library's default is to wait for ever. Here a server that does not answer is noticed by the kernel
//! (`tcp_user_timeout`, keepalives), a statement that does not end by the server (`statement_timeout`), a
//! transaction that is forgotten by the server too, and a server that is alive and stands still by us.

use std::future::poll_fn;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Kind, Result};

/// Where Postgres is and how long it may take. Every default stands in `config.default.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `postgresql://user:password@host:port/database`; a secret as a whole.
    pub url: Option<SecretString>,
    /// A file that holds it.
    pub url_file: Option<PathBuf>,
    /// PEM certificates of who may have signed the server's; with it a connection is TLS or none.
    pub tls_ca_file: Option<PathBuf>,
    /// How long a connection may take to be made, ms.
    pub connect_timeout_ms: u64,
    /// How long a statement may take, its waiting for locks included, ms. Above `idle_in_transaction_ms`, so
    /// that a fence outlasts the forgotten transaction that it waits for.
    pub statement_timeout_ms: u64,
    /// How long a transaction may stand idle before the server ends it, ms.
    pub idle_in_transaction_ms: u64,
    /// How long sent bytes may stay unacknowledged, ms.
    pub tcp_user_timeout_ms: u64,
    /// When an idle connection is asked for a sign of life, s.
    pub keepalive_idle_s: u64,
    /// Connections of the pool (lookups and commands; workers have their own).
    pub pool_size_max: usize,
    /// How long one may wait for a connection of the pool, ms.
    pub pool_wait_ms: u64,
}

/// A server that has not answered this long after the statement's own time-out stands still.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

impl Settings {
    /// How long we wait for an answer before the connection is given up.
    #[must_use]
    pub fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms) + ANSWER_GRACE
    }

    /// The driver's configuration of a connection under this name.
    fn config(&self, name: &str) -> Result<Config> {
        let url = match (&self.url, &self.url_file) {
            (_, Some(file)) => std::fs::read_to_string(file)
                .map(SecretString::from)
                .map_err(|_unread| wrong("read the file that postgres.url_file names"))?,
            (Some(url), None) => url.clone(),
            (None, None) => return Err(wrong("find postgres.url or postgres.url_file: set one")),
        };
        let mut config = Config::from_str(url.expose_secret().trim())
            .map_err(|_quotes| wrong("read postgres.url: it is not a Postgres URL"))?;
        // What the URL sets for itself stands first, so that what we rely on has the last word.
        let options = format!(
            "{} -c statement_timeout={} -c idle_in_transaction_session_timeout={} \
             -c synchronous_commit=on -c jit=off",
            config.get_options().unwrap_or_default(),
            self.statement_timeout_ms,
            self.idle_in_transaction_ms,
        );
        config
            .options(options.trim())
            .application_name(name)
            .connect_timeout(Duration::from_millis(self.connect_timeout_ms))
            .tcp_user_timeout(Duration::from_millis(self.tcp_user_timeout_ms))
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(self.keepalive_idle_s))
            // After a failover the old primary may answer first, as a standby.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        if self.tls_ca_file.is_some() {
            config.ssl_mode(SslMode::Require);
        } else if config.get_ssl_mode() == SslMode::Require {
            return Err(wrong("use TLS: set postgres.tls_ca_file to the authority's certificates"));
        } else {
            config.ssl_mode(SslMode::Disable);
        }
        Ok(config)
    }

    /// TLS as it is configured, if it is.
    fn tls(&self) -> Result<Option<MakeRustlsConnect>> {
        let Some(file) = &self.tls_ca_file else { return Ok(None) };
        let unread = || wrong("read the certificates of postgres.tls_ca_file");
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|_unread| unread())? {
            let certificate = certificate.map_err(|_malformed| unread())?;
            roots.add(certificate).map_err(|_refused| unread())?;
        }
        if roots.is_empty() {
            return Err(unread());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_unsupported| wrong("set up TLS"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(MakeRustlsConnect::new(tls)))
    }
}

fn wrong(doing: &'static str) -> Error {
    Error::new(Kind::InternalError, doing, "postgres")
}

/// A connection that ends with its owner: dropped, its socket closes, and the server rolls back what was open.
#[derive(Debug)]
pub(super) struct Wire {
    client: Client,
    warned: Arc<AtomicBool>,
    driver: AbortHandle,
}

impl Wire {
    /// The driver's client.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server has warned since this was asked last. After a `COMMIT` it means that the wait for a
    /// synchronous standby was cut short: committed here, and perhaps nowhere else.
    pub(super) fn take_warned(&self) -> bool {
        self.warned.swap(false, Ordering::AcqRel)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Makes a connection under this name.
///
/// # Errors
/// [`Kind::DatabaseError`] where none can be made, [`Kind::InternalError`] where the settings are wrong.
pub(super) async fn connect(settings: &Settings, name: &str) -> Result<Wire> {
    const DOING: &str = "connect to Postgres";
    let config = settings.config(name)?;
    let tls = settings.tls()?;
    let warned = Arc::new(AtomicBool::new(false));
    // `connect_timeout` covers the socket alone; a server that accepts and says nothing is covered here.
    let limit = settings.answer_timeout();
    let made = tokio::time::timeout(limit, async {
        match tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls).await?;
                Ok((client, tokio::spawn(drive(connection, Arc::clone(&warned)))))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                Ok((client, tokio::spawn(drive(connection, Arc::clone(&warned)))))
            }
        }
    });
    let (client, driver) = made
        .await
        .map_err(|_elapsed| Error::new(Kind::DatabaseError, DOING, "timeout"))?
        .map_err(|error| failed(DOING, &error))?;
    Ok(Wire { client, warned, driver: driver.abort_handle() })
}

/// Moves bytes until the connection ends. Notices are not printed (their text may quote values), only seen.
async fn drive<S, T>(mut connection: Connection<S, T>, warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message
            && *notice.code() == SqlState::WARNING
        {
            warned.store(true, Ordering::Release);
        }
    }
}

/// The pool for lookups and commands. It connects when it is first asked.
///
/// A connection that comes back with a transaction open is rolled back before somebody else has it.
///
/// # Errors
/// [`Kind::InternalError`] where the settings are wrong.
pub fn pool(settings: &Settings) -> Result<Pool> {
    let config = settings.config("biometric-bridge lookup")?;
    let recycling_method = RecyclingMethod::Custom("ROLLBACK".to_owned());
    let manager = match settings.tls()? {
        Some(tls) => Manager::from_config(config, tls, ManagerConfig { recycling_method }),
        None => Manager::from_config(config, NoTls, ManagerConfig { recycling_method }),
    };
    Pool::builder(manager)
        .max_size(settings.pool_size_max)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_millis(settings.pool_wait_ms)))
        .create_timeout(Some(settings.answer_timeout()))
        .recycle_timeout(Some(Duration::from_millis(settings.connect_timeout_ms)))
        .build()
        .map_err(|_no_runtime| wrong("build the pool"))
}

/// One statement on a connection of the pool. What does not answer in time loses its connection: nobody else meets
/// its late answer.
pub(super) async fn ask(
    pool: &Pool,
    limit: Duration,
    doing: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>> {
    on(client(pool, doing).await?, limit, doing, sql, parameters).await
}

/// A connection of the pool, once one is free.
pub(super) async fn client(pool: &Pool, doing: &'static str) -> Result<Object> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => failed(doing, &error),
        PoolError::Timeout(_) => Error::new(Kind::DatabaseError, doing, "timeout"),
        _ => Error::new(Kind::DatabaseError, doing, "pool"),
    })
}

/// One statement on this connection, which is dropped where no answer comes in time.
pub(super) async fn on(
    client: Object,
    limit: Duration,
    doing: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>> {
    let asked = async {
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, parameters).await
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(answered) => answered.map_err(|error| failed(doing, &error)),
        Err(_elapsed) => {
            drop(Object::take(client));
            Err(Error::new(Kind::DatabaseError, doing, "timeout"))
        }
    }
}

/// A driver's error as ours: what we were doing and the SQLSTATE, never the text, which quotes keys and values.
pub(super) fn failed(doing: &'static str, error: &tokio_postgres::Error) -> Error {
    match error.code() {
        Some(state) => Error::new(kind_of(state), doing, state.code()),
        None => Error::new(Kind::DatabaseError, doing, "connection"),
    }
}

/// Wrong data (22), a broken constraint (23) and wrong SQL (42) are our fault and stay wrong when repeated;
/// a missing table (42P01) alone is the world's: a migration has not run yet.
fn kind_of(state: &SqlState) -> Kind {
    let ours = ["22", "23", "42"].iter().any(|class| state.code().starts_with(class));
    if ours && *state != SqlState::UNDEFINED_TABLE {
        Kind::InternalError
    } else {
        Kind::DatabaseError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings {
            url: Some(url.to_owned().into()),
            url_file: None,
            tls_ca_file: None,
            connect_timeout_ms: 2_000,
            statement_timeout_ms: 15_000,
            idle_in_transaction_ms: 10_000,
            tcp_user_timeout_ms: 5_000,
            keepalive_idle_s: 10,
            pool_size_max: 4,
            pool_wait_ms: 2_000,
        }
    }

    #[test]
    fn the_last_word_is_ours() {
        let url = "postgresql://bridge@127.0.0.1/bridge?options=-c%20synchronous_commit%3Doff";
        let config = settings(url).config("x").expect("a configuration");
        let options = config.get_options().expect("options");
        assert!(options.find("=off") < options.find("synchronous_commit=on"), "{options}");
        assert!(options.contains("statement_timeout=15000"));
    }

    #[test]
    fn a_wrong_url_is_not_quoted() {
        let error =
            settings("postgresql://jane.doe@h:not-a-port/d").config("x").expect_err("refused");
        assert!(!format!("{error}{error:?}").contains("jane"), "{error:?}");
        let shown = format!("{:?}", settings("postgresql://u:not-a-secret-test-key@h/d"));
        assert!(!shown.contains("not-a-secret"), "{shown}");
    }

    #[test]
    fn tls_is_never_dropped_silently() {
        let url = "postgresql://bridge@127.0.0.1/bridge?sslmode=require";
        assert!(settings(url).config("x").is_err(), "no authority is known");
        let mut with_file = settings(url);
        with_file.tls_ca_file = Some("/nonexistent/ca.pem".into());
        assert!(with_file.tls().is_err());
        assert_eq!(with_file.config("x").expect("ok").get_ssl_mode(), SslMode::Require);
    }

    #[test]
    fn what_is_our_fault_is_not_repeated_for_ever() {
        assert_eq!(kind_of(&SqlState::CHARACTER_NOT_IN_REPERTOIRE), Kind::InternalError);
        for world in [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::DISK_FULL,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::UNDEFINED_TABLE,
        ] {
            assert_eq!(kind_of(&world), Kind::DatabaseError, "{}", world.code());
        }
    }
}
