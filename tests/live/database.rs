//! A schema of its own in the stack's Postgres, for one test, and a wire to it that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use biometric_bridge::model::event::BiometricEvent;
use biometric_bridge::postgres::register::PostgresRegister;
use biometric_bridge::postgres::store::PostgresStore;
use biometric_bridge::postgres::{Settings, migrate};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The stack's address, as `helm/local/stack` has it.
fn address() -> String {
    #[expect(clippy::disallowed_methods, reason = "the stack's own setting, not ours")]
    std::env::var("BRIDGE_POSTGRES").unwrap_or_else(|_| "127.0.0.1:5432".to_owned())
}

fn url(address: &str, schema: &str) -> String {
    let options = format!("-c%20search_path%3D{schema}");
    format!("postgresql://bridge@{address}/bridge?options={options}")
}

/// Settings with short time-outs.
pub(crate) fn settings(url: String) -> Settings {
    Settings {
        url: Some(url.into()),
        url_file: None,
        tls_ca_file: None,
        connect_timeout_ms: 2_000,
        statement_timeout_ms: 8_000,
        idle_in_transaction_ms: 5_000,
        tcp_user_timeout_ms: 2_000,
        keepalive_idle_s: 5,
        pool_size_max: 2,
        pool_wait_ms: 2_000,
    }
}

/// A schema that ends with the test.
pub(crate) struct Database {
    pub(crate) schema: String,
}

impl Database {
    /// An empty one.
    pub(crate) async fn empty() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a name that no other test has")]
        let schema = format!("test_{}", Uuid::new_v4().simple());
        let made = Self { schema };
        made.sql(&format!("CREATE SCHEMA {}", made.schema)).await;
        made
    }

    /// One with every migration.
    pub(crate) async fn migrated() -> Self {
        let made = Self::empty().await;
        migrate::up(&made.settings()).await.expect("migrated");
        made
    }

    pub(crate) fn settings(&self) -> Settings {
        settings(url(&address(), &self.schema))
    }

    /// Settings that go to this address instead.
    pub(crate) fn settings_by(&self, address: &str) -> Settings {
        settings(url(address, &self.schema))
    }

    pub(crate) fn store(&self, name: &str) -> PostgresStore {
        store(self.settings(), name)
    }

    pub(crate) fn register(&self) -> PostgresRegister {
        PostgresRegister::new(self.settings(), "test register").of_renaming(vec!["terra"])
    }

    /// A plain client, for looking behind.
    pub(crate) async fn client(&self) -> Client {
        let config: tokio_postgres::Config =
            url(&address(), &self.schema).parse().expect("a configuration");
        let (client, connection) = config.connect(NoTls).await.expect("Postgres (make up)");
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.expect("SQL");
    }

    /// Ends every connection of this name, as a restart of the server would.
    pub(crate) async fn end(&self, name: &str) {
        let sql = "SELECT count(pg_terminate_backend(pid, 2000)) FROM pg_stat_activity \
                   WHERE application_name = $1";
        self.client().await.query_one(sql, &[&name]).await.expect("ended");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let config: tokio_postgres::Config = url(&address(), &self.schema).parse().expect("a URL");
        // A failed test, or one that ends with its connections, may have left some with locks.
        let sql = format!(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_locks JOIN pg_class AS c ON c.oid = relation
             WHERE relnamespace = '{0}'::regnamespace AND pid <> pg_backend_pid();
             DROP SCHEMA {0} CASCADE",
            self.schema
        );
        // A runtime of its own: this one may be unwinding.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (client, connection) = config.connect(NoTls).await.expect("connects");
                tokio::spawn(connection);
                client.batch_execute(&sql).await
            })
        });
        let dropped = dropped.join();
        assert!(std::thread::panicking() || matches!(dropped, Ok(Ok(()))), "{dropped:?}");
    }
}

/// Events stand in these tests as JSON: their schema is another test's.
pub(crate) fn bytes_of(event: &BiometricEvent) -> Bytes {
    serde_json::to_vec(event).expect("JSON").into()
}

pub(crate) fn store(settings: Settings, name: &str) -> PostgresStore {
    PostgresStore::new(settings, name, Box::new(|bytes| serde_json::from_slice(bytes).ok()))
}

/// A wire to the server that can be told to swallow answers.
pub(crate) struct Wire {
    pub(crate) address: String,
    swallow_commits: Arc<AtomicBool>,
    swallow_all: Arc<AtomicBool>,
}

impl Wire {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let swallow_commits = Arc::new(AtomicBool::new(false));
        let swallow_all = Arc::new(AtomicBool::new(false));
        let (commits, all) = (Arc::clone(&swallow_commits), Arc::clone(&swallow_all));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&commits), Arc::clone(&all)));
            }
        });
        Self { address: format!("127.0.0.1:{port}"), swallow_commits, swallow_all }
    }

    /// From the next COMMIT on the server hears everything, and nobody hears the server; then the wire is cut.
    pub(crate) fn swallow_commits(&self) {
        self.swallow_commits.store(true, Ordering::SeqCst);
    }

    /// The server's answers are held back, and nothing is cut.
    pub(crate) fn swallow_all(&self) {
        self.swallow_all.store(true, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.swallow_commits.store(false, Ordering::SeqCst);
        self.swallow_all.store(false, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, commits: Arc<AtomicBool>, all: Arc<AtomicBool>) {
    let server = TcpStream::connect(address()).await.expect("Postgres (make up)");
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let committed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&committed);
    let up = tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
            let commit = bytes[..length].windows(6).any(|word| word == b"COMMIT");
            if commit && commits.load(Ordering::SeqCst) {
                seen.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&bytes[..length]).await.is_err() {
                break;
            }
        }
    });
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
        if committed.load(Ordering::SeqCst) {
            // Whether it did it or not: nobody hears it.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            break;
        }
        if all.load(Ordering::SeqCst) {
            continue;
        }
        if to_client.write_all(&bytes[..length]).await.is_err() {
            break;
        }
    }
    up.abort();
}
