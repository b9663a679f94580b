//! Consents that people are asked for now, and the connections that come of them: implements [`Consents`].
//!
//! What a person's browser takes along is drawn here and stands in the table as its digest; the PKCE verifier stands there
//! sealed, as tokens do. A row is deleted by the statement that reads it, so of two that answer with one state, one does.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadpool_postgres::Pool;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::pool::{Settings, ask, pool};
use super::register::PostgresRegister;
use super::rows::{get, unreadable, user_of};
use super::vault::{PostgresVault, drawn};
use crate::error::{Error, Result};
use crate::model::connection::{Connection, Connections, Lookup};
use crate::model::id::{ConnectionId, User, sha256_hex};
use crate::model::state::{Notes, Whose};
use crate::model::time::Micros;
use crate::stream::Register as _;
use crate::stream::clock::now_us;
use crate::stream::connecting::{Begun, Consents, Found, Returned};
use crate::stream::hydration::Pair;

/// How many consents of one person with one vendor are open at once: a link that is followed over and over fills no
/// table.
const OPEN_MAX: i64 = 8;

/// Consents over the vault's pool, and connections over a register of its own.
pub struct PostgresConsents {
    vault: PostgresVault,
    /// What was given up for these reasons is fetched again with new tokens.
    mended: &'static [&'static str],
    register: Mutex<PostgresRegister>,
}

impl PostgresConsents {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(settings: &Settings, vault: PostgresVault, mended: &'static [&'static str]) -> Self {
        let register = Mutex::new(PostgresRegister::new(settings.clone(), "connect"));
        Self { vault, mended, register }
    }

    async fn ask(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        ask(&self.vault.pool, self.vault.limit, doing, sql, parameters).await
    }
}

// What has ended goes first, a few at a time, and then what is one too many.
const BEGIN: &str = "
    WITH clock AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us
    ), ended AS (
        DELETE FROM consents WHERE state IN (
            SELECT c.state FROM consents AS c, clock WHERE c.expires_at <= clock.us LIMIT 100)
    ), crowded AS (
        DELETE FROM consents WHERE state IN (
            SELECT c.state FROM consents AS c WHERE c.vendor = $3 AND c.user_id = $4
            ORDER BY c.expires_at DESC OFFSET $8)
    )
    INSERT INTO consents (state, browser, vendor, user_id, key_id, sealed, expires_at)
    SELECT $1, $2, $3, $4, $5, $6, clock.us + $7::int8 FROM clock
    RETURNING state";

const END: &str = "
    DELETE FROM consents
    WHERE state = $1 AND browser = $2 AND vendor = $3
      AND expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::int8
    RETURNING user_id, key_id, sealed";

const FIND: &str = "
    SELECT c.id, least(c.valid_to, t.stored_at)
    FROM connections AS c LEFT JOIN tokens AS t ON t.connection = c.id
    WHERE c.vendor = $1 AND c.vendor_user = $2 AND c.user_id = $3
    ORDER BY c.valid_from DESC LIMIT 1";

// Of a connection that goes on under another name of the vendor's the tokens stay.
const CONNECT: &str = "
    WITH clock AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us
    ), forgotten AS (
        DELETE FROM tokens AS t WHERE t.connection = ANY ($4::uuid[]) AND NOT EXISTS (
            SELECT FROM connections AS c WHERE c.id = t.connection AND c.valid_to IS NULL)
    ), again AS (
        UPDATE hydrations
        SET state = 'waiting', attempts = 0, failures = 0, not_before = 0, reason = NULL
        WHERE vendor = $2 AND connection = $1 AND state = 'given_up' AND reason = ANY ($5::text[])
    )
    INSERT INTO gaps (connection, vendor, from_at, to_at)
    SELECT $1, $2, $3::int8, clock.us FROM clock
    ON CONFLICT DO NOTHING
    RETURNING to_at";

const CONNECTED: &str = "
    SELECT DISTINCT id FROM connections WHERE vendor = $1 AND valid_to IS NULL ORDER BY id";

// When they were last there is what a look leaves to the next one, like whose turn it is.
const SUBSCRIBED: &str = "
    WITH missed AS (
        INSERT INTO gaps (connection, vendor, from_at, to_at)
        SELECT DISTINCT c.id, c.vendor, t.until,
               (extract(epoch FROM clock_timestamp()) * 1000000)::int8
        FROM turns AS t, connections AS c
        WHERE t.name = $1 AND c.vendor = $2 AND c.id = ANY ($3::uuid[]) AND c.valid_to IS NULL
        ON CONFLICT DO NOTHING
    )
    INSERT INTO turns AS t (name, until) SELECT $1, all_at
    FROM (SELECT $4::int8 AS all_at) AS look WHERE all_at IS NOT NULL
    ON CONFLICT (name) DO UPDATE SET until = greatest(t.until, excluded.until)";

const TURN: &str = "
    INSERT INTO turns AS t (name, until)
    SELECT $1, clock.us + $2::int8
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us) AS clock
    ON CONFLICT (name) DO UPDATE SET until = excluded.until
    WHERE t.until <= (extract(epoch FROM clock_timestamp()) * 1000000)::int8
    RETURNING until";

/// What an operator changes of a connection; needs no key.
pub struct Standing {
    pool: Pool,
    limit: Duration,
}

impl Standing {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// [`crate::error::Kind::InternalError`] where the settings are wrong.
    pub fn new(settings: &Settings) -> Result<Self> {
        Ok(Self { pool: pool(settings)?, limit: settings.answer_timeout() })
    }

    async fn change(&self, doing: &'static str, sql: &str, connection: ConnectionId) -> Result<()> {
        ask(&self.pool, self.limit, doing, sql, &[&connection.0]).await.map(drop)
    }

    /// Nothing is fetched for it from now on; twice is once.
    ///
    /// # Errors
    /// As every call.
    pub async fn pause(&self, connection: ConnectionId) -> Result<()> {
        self.change("pause a connection", PAUSE, connection).await
    }

    /// It is fetched for again; twice is once.
    ///
    /// # Errors
    /// As every call.
    pub async fn resume(&self, connection: ConnectionId) -> Result<()> {
        self.change("resume a connection", RESUME, connection).await
    }

    /// Its tokens are forgotten, and that it was paused, where it does not hold under any name.
    ///
    /// # Errors
    /// As every call.
    pub async fn forget(&self, connection: ConnectionId) -> Result<()> {
        self.change("forget tokens", FORGET, connection).await
    }
}

const PAUSE: &str = "
    INSERT INTO paused (connection, since)
    VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000000)::int8) ON CONFLICT DO NOTHING";

const RESUME: &str = "DELETE FROM paused WHERE connection = $1";

const FORGET: &str = "
    WITH resumed AS (
        DELETE FROM paused AS p WHERE p.connection = $1 AND NOT EXISTS (
            SELECT FROM connections AS c WHERE c.id = p.connection AND c.valid_to IS NULL)
    )
    DELETE FROM tokens AS t WHERE t.connection = $1 AND NOT EXISTS (
        SELECT FROM connections AS c WHERE c.id = t.connection AND c.valid_to IS NULL)";

impl Consents for PostgresConsents {
    async fn begin(&self, vendor: &str, user: &User, lives: Duration) -> Result<Begun> {
        let text = || drawn().map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let (state, browser, verifier) = (text()?, text()?, SecretString::from(text()?));
        let keys = &self.vault.keys;
        let pair = Pair { access: verifier.clone(), refresh: None };
        let sealed = keys.seal_bound(state.as_bytes(), &pair)?;
        let lives = i64::try_from(lives.as_micros()).map_err(|_long| unreadable("span"))?;
        let (hashed, held) = (sha256_hex(state.as_bytes()), sha256_hex(browser.as_bytes()));
        let (user, key_id, others) = (user.as_str(), keys.id(), OPEN_MAX - 1);
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&hashed, &held, &vendor, &user, &key_id, &sealed, &lives, &others];
        let rows = self.ask("begin a consent", BEGIN, &parameters).await?;
        drop(rows);
        Ok(Begun { state: state.into(), browser: browser.into(), verifier })
    }

    async fn end(&self, vendor: &str, state: &str, browser: &str) -> Result<Option<Returned>> {
        let (hashed, held) = (sha256_hex(state.as_bytes()), sha256_hex(browser.as_bytes()));
        let parameters: [&(dyn ToSql + Sync); 3] = [&hashed, &held, &vendor];
        let rows = self.ask("end a consent", END, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let pair = self.vault.keys.open_bound(state.as_bytes(), get(row, 1)?, get(row, 2)?)?;
        Ok(Some(Returned { user: user_of(get(row, 0)?)?, verifier: pair.access }))
    }

    async fn find(&self, vendor: &str, vendor_user: &str, user: &User) -> Result<Found> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&vendor, &vendor_user, &user.as_str()];
        let rows = self.ask("find a connection", FIND, &parameters).await?;
        let derived = ConnectionId::derive(vendor, vendor_user, user);
        let Some(row) = rows.first() else {
            return Ok(Found { connection: derived, fed_until: None });
        };
        let fed_until: Option<Micros> = get(row, 1)?;
        Ok(Found { connection: ConnectionId(get(row, 0)?), fed_until })
    }

    async fn connect(
        &self,
        vendor: &str,
        vendor_user: &str,
        user: &User,
        found: Found,
    ) -> Result<usize> {
        let key = Whose::from([(vendor.to_owned(), vendor_user.to_owned())]);
        let (id, at) = (found.connection, now_us());
        let mut register = self.register.lock().await;
        let mut known = Connections::new(register.connections(&key).await?);
        known.begin(vendor, vendor_user, user.clone(), id, at);
        let connections: Vec<Connection> = known.changes().cloned().collect();
        let others = |row: &&Connection| row.id != id;
        let ended: Vec<Uuid> = connections.iter().filter(others).map(|row| row.id.0).collect();
        register.note(&Notes { connections, ..Notes::default() }).await?;
        let after = Connections::new(register.connections(&key).await?);
        drop(register);
        match after.at(vendor, vendor_user, at) {
            Lookup::Connected(row) if row.id == id && row.user == *user => {}
            _ => return Err(Error::internal("connect: another connection was made meanwhile")),
        }
        let mended: Vec<&str> = self.mended.to_vec();
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&id.0, &vendor, &found.fed_until, &ended, &mended];
        let rows = self.ask("note a consent", CONNECT, &parameters).await?;
        drop(rows);
        Ok(ended.len())
    }

    async fn connected(&self, vendor: &str) -> Result<Vec<ConnectionId>> {
        let rows = self.ask("list connections of a vendor", CONNECTED, &[&vendor]).await?;
        rows.iter().map(|row| Ok(ConnectionId(get(row, 0)?))).collect()
    }

    async fn subscribed(
        &self,
        vendor: &str,
        made: &[ConnectionId],
        all_at: Option<Micros>,
    ) -> Result<()> {
        let name = format!("subscribed/{vendor}");
        let made: Vec<Uuid> = made.iter().map(|id| id.0).collect();
        let parameters: [&(dyn ToSql + Sync); 4] = [&name, &vendor, &made, &all_at];
        self.ask("note a look at subscriptions", SUBSCRIBED, &parameters).await.map(drop)
    }

    async fn turn(&self, name: &str, lives: Duration) -> Result<bool> {
        let lives = i64::try_from(lives.as_micros()).map_err(|_long| unreadable("span"))?;
        let rows = self.ask("take a turn", TURN, &[&name, &lives]).await?;
        Ok(!rows.is_empty())
    }
}
