//! Tokens at rest: implements [`Vault`]. Nothing in the table can be used without a key that no database has.
//!
//! A pair is sealed with AES-256-GCM under a key derived from a secret of the deployment, with a random nonce, and bound
//! to its connection: sealed bytes that are moved to another row do not open. Beside them stands the key's id, so that a
//! new secret can take over while what the one before sealed still opens; whatever is stored is sealed by the new one.
//!
//! A pair is stored in place of a version, in one statement: of two workers with a pair each, one stores, and the other
//! is told. Exchanging the refresh token is leased the same way, without a lock across the call to the vendor: a
//! transaction that waits for a vendor would be ended by the server just when the new pair must be stored.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use deadpool_postgres::Pool;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::pool::{Settings, ask, pool};
use super::rows::{get, unreadable};
use crate::error::{Error, Kind, Result};
use crate::model::id::ConnectionId;
use crate::stream::hydration::{Pair, Stored, Vault};

/// The shortest secret that keys are derived from, bytes.
pub const SECRET_BYTES_MIN: usize = 32;

/// A key and what it is told by.
struct Key {
    id: String,
    key: RandomizedNonceKey,
}

impl Key {
    fn of(secret: &SecretString) -> Result<Self> {
        const DOING: &str = "make the tokens' key; secrets.token_key: at least 32 bytes";
        let wrong = || Error::new(Kind::ValidationError, DOING, "");
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(wrong());
        }
        // Two names, two values: the id tells nothing of the key.
        let derive = |name: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), name);
        let id = derive(b"tokens: id");
        let id = hex::encode(id.as_ref().first_chunk::<8>().unwrap_or(&[0; 8]));
        let key = RandomizedNonceKey::new(&AES_256_GCM, derive(b"tokens: aes-256-gcm").as_ref());
        Ok(Self { id, key: key.map_err(|_unspecified| wrong())? })
    }
}

/// The key that seals, and the one before.
pub struct Keys {
    current: Key,
    previous: Option<Key>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Keys({})", self.current.id)
    }
}

impl Keys {
    /// The keys of these secrets.
    ///
    /// # Errors
    /// [`Kind::ValidationError`] where one is too short.
    pub fn new(current: &SecretString, previous: Option<&SecretString>) -> Result<Self> {
        let previous = previous.map(Key::of).transpose()?;
        Ok(Self { current: Key::of(current)?, previous })
    }

    /// Nonce, then what only this connection's row opens.
    fn seal(&self, connection: ConnectionId, pair: &Pair) -> Result<Vec<u8>> {
        self.seal_bound(connection.0.as_bytes(), pair)
    }

    /// The id of the key that seals.
    pub(super) fn id(&self) -> &str {
        &self.current.id
    }

    /// As a connection's pair is sealed, bound to these bytes: what opens there opens nowhere else.
    pub(super) fn seal_bound(&self, bound: &[u8], pair: &Pair) -> Result<Vec<u8>> {
        let failed = || Error::internal("seal tokens");
        let access = pair.access.expose_secret().as_bytes();
        let length = u32::try_from(access.len()).map_err(|_long| failed())?;
        let mut sealed = length.to_be_bytes().to_vec();
        sealed.extend_from_slice(access);
        if let Some(refresh) = &pair.refresh {
            sealed.push(1);
            sealed.extend_from_slice(refresh.expose_secret().as_bytes());
        }
        let bound = Aad::from(bound);
        let nonce = self.current.key.seal_in_place_append_tag(bound, &mut sealed);
        let nonce = nonce.map_err(|_unspecified| failed())?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn open(&self, connection: ConnectionId, key_id: &str, sealed: &[u8]) -> Result<Pair> {
        self.open_bound(connection.0.as_bytes(), key_id, sealed)
    }

    /// What [`Keys::seal_bound`] sealed.
    pub(super) fn open_bound(&self, bound: &[u8], key_id: &str, sealed: &[u8]) -> Result<Pair> {
        const DOING: &str = "open sealed tokens: set secrets.token_key to what sealed them";
        let wrong = |code: &str| Error::new(Kind::AuthenticationError, DOING, code);
        let keys = [Some(&self.current), self.previous.as_ref()];
        let key = keys.into_iter().flatten().find(|key| key.id == key_id);
        let key = key.ok_or_else(|| wrong("another key"))?;
        let (nonce, sealed) =
            sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(|| wrong("too short"))?;
        let mut bytes = sealed.to_vec();
        let bound = Aad::from(bound);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.key.open_in_place(nonce, bound, &mut bytes);
        let opened: &[u8] = opened.map_err(|_unspecified| wrong("not sealed for it"))?;
        pair_of(opened).ok_or_else(|| wrong("not a pair"))
    }
}

/// Thirty-two bytes that nobody can foretell.
pub(super) fn drawn() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_unspecified| Error::internal("draw chance"))?;
    Ok(bytes)
}

/// The pair of opened bytes.
fn pair_of(opened: &[u8]) -> Option<Pair> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(SecretString::from);
    let (length, rest) = opened.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (access, rest) = rest.split_at_checked(length)?;
    let refresh = match rest.split_first() {
        None => None,
        Some((1, refresh)) => Some(text(refresh)?),
        Some(_) => return None,
    };
    Some(Pair { access: text(access)?, refresh })
}

/// The vault, over a pool of its own, which its clones share.
#[derive(Clone)]
pub struct PostgresVault {
    pub(super) pool: Pool,
    pub(super) limit: Duration,
    pub(super) keys: Arc<Keys>,
}

impl PostgresVault {
    /// A vault that connects when it is first asked.
    ///
    /// # Errors
    /// [`Kind::InternalError`] where the settings are wrong.
    pub fn new(settings: &Settings, keys: Keys) -> Result<Self> {
        Ok(Self { pool: pool(settings)?, limit: settings.answer_timeout(), keys: Arc::new(keys) })
    }

    async fn ask(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        ask(&self.pool, self.limit, doing, sql, parameters).await
    }
}

/// What became of the rows that another key sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Sealed by the current key now.
    pub done: u64,
    /// No key that was given opens them.
    pub unreadable: u64,
}

impl PostgresVault {
    /// Seals by the current key whatever another one sealed. The hydrator may run meanwhile: a pair that is stored in
    /// between is sealed by whoever stores it, and is looked at again.
    ///
    /// # Errors
    /// As every call; what was done by then stays.
    pub async fn reseal(&self) -> Result<Resealed> {
        let mut done = 0;
        loop {
            let pass = self.reseal_all().await?;
            done += pass.done;
            if !pass.missed {
                return Ok(Resealed { done, unreadable: pass.unreadable });
            }
        }
    }

    async fn reseal_all(&self) -> Result<Pass> {
        let current = &self.keys.current.id;
        let (mut pass, mut after) = (Pass::default(), uuid::Uuid::nil());
        loop {
            let rows = self.ask("find what another key sealed", OTHERS, &[current, &after]).await?;
            let Some(last) = rows.last() else { return Ok(pass) };
            after = get(last, 0)?;
            for row in &rows {
                let connection = ConnectionId(get(row, 0)?);
                let Ok(pair) = self.keys.open(connection, get(row, 1)?, get(row, 2)?) else {
                    pass.unreadable += 1;
                    continue;
                };
                let (version, sealed): (i64, _) =
                    (get(row, 3)?, self.keys.seal(connection, &pair)?);
                let parameters: [&(dyn ToSql + Sync); 4] =
                    [&connection.0, &version, current, &sealed];
                // Not where it was stored anew meanwhile, perhaps by a process that has the old key alone.
                let stands = !self.ask("seal tokens anew", RESEAL, &parameters).await?.is_empty();
                pass.done += u64::from(stands);
                pass.missed |= !stands;
            }
        }
    }
}

/// One way through the table.
#[derive(Default)]
struct Pass {
    done: u64,
    unreadable: u64,
    missed: bool,
}

const OTHERS: &str = "
    SELECT connection, key_id, sealed, version FROM tokens
    WHERE key_id <> $1 AND connection > $2 ORDER BY connection LIMIT 500";

const RESEAL: &str = "
    UPDATE tokens SET key_id = $3, sealed = $4 WHERE connection = $1 AND version = $2
    RETURNING version";

const READ: &str = "
    SELECT key_id, sealed, version, state = 'reauth_required', clock.us - stored_at,
           expires_at - clock.us
    FROM tokens, (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us) AS clock
    WHERE connection = $1";

const STORE: &str = "
    INSERT INTO tokens AS t (connection, vendor, key_id, sealed, version, stored_at, expires_at, state)
    SELECT $1::uuid, $2::text, $3::text, $4::bytea, 1, clock.us, clock.us + $5::int8, 'live'
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us) AS clock
    WHERE $6 = 0::int8 OR EXISTS (SELECT FROM tokens WHERE connection = $1)
    ON CONFLICT (connection) DO UPDATE
    SET key_id = excluded.key_id, sealed = excluded.sealed, version = t.version + 1,
        stored_at = excluded.stored_at, expires_at = excluded.expires_at, state = excluded.state,
        renewing_until = 0
    WHERE $6 = 0::int8 OR t.version = $6
    RETURNING version";

const BEGIN: &str = "
    UPDATE tokens AS t SET renewing_until = clock.us + $3::int8
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS us) AS clock
    WHERE t.connection = $1 AND t.version = $2 AND t.state <> 'reauth_required' AND t.renewing_until <= clock.us
    RETURNING t.version";

const END: &str = "
    UPDATE tokens SET renewing_until = 0, state = CASE WHEN $3::bool THEN 'reauth_required' ELSE state END
    WHERE connection = $1 AND version = $2
    RETURNING version";

const LIMITED: &str = "
    UPDATE tokens SET state = 'limited' WHERE connection = $1 AND state = 'live'
    RETURNING version";

impl Vault for PostgresVault {
    async fn read(&self, connection: ConnectionId) -> Result<Option<Stored>> {
        let rows = self.ask("read tokens", READ, &[&connection.0]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let pair = self.keys.open(connection, get(row, 0)?, get(row, 1)?)?;
        let span = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
        let (old, left): (i64, Option<i64>) = (get(row, 4)?, get(row, 5)?);
        Ok(Some(Stored {
            pair,
            version: get(row, 2)?,
            reauth_required: get(row, 3)?,
            life: left.map(|left| (span(old), span(left))),
        }))
    }

    async fn store(
        &self,
        vendor: &str,
        connection: ConnectionId,
        instead_of: i64,
        pair: &Pair,
        lives: Option<Duration>,
    ) -> Result<bool> {
        let sealed = self.keys.seal(connection, pair)?;
        let key_id = &self.keys.current.id;
        let lives = lives.and_then(|lives| i64::try_from(lives.as_micros()).ok());
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&connection.0, &vendor, key_id, &sealed, &lives, &instead_of];
        let rows = self.ask("store tokens", STORE, &parameters).await?;
        Ok(!rows.is_empty())
    }

    async fn begin_renewal(
        &self,
        connection: ConnectionId,
        version: i64,
        at_most: Duration,
    ) -> Result<bool> {
        let at_most = i64::try_from(at_most.as_micros()).map_err(|_long| unreadable("span"))?;
        let parameters: [&(dyn ToSql + Sync); 3] = [&connection.0, &version, &at_most];
        let rows = self.ask("begin to renew tokens", BEGIN, &parameters).await?;
        Ok(!rows.is_empty())
    }

    async fn end_renewal(
        &self,
        connection: ConnectionId,
        version: i64,
        reauth_required: bool,
    ) -> Result<()> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&connection.0, &version, &reauth_required];
        self.ask("end to renew tokens", END, &parameters).await.map(|_rows| ())
    }

    async fn limited(&self, connection: ConnectionId) -> Result<()> {
        let rows = self.ask("note that consent is limited", LIMITED, &[&connection.0]).await?;
        drop(rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ONE: ConnectionId = ConnectionId(Uuid::from_u128(1));
    const TWO: ConnectionId = ConnectionId(Uuid::from_u128(2));

    fn keys(secret: &str, previous: Option<&str>) -> Keys {
        let previous = previous.map(SecretString::from);
        Keys::new(&secret.into(), previous.as_ref()).expect("long enough")
    }

    fn pair(access: &str, refresh: Option<&str>) -> Pair {
        Pair { access: access.into(), refresh: refresh.map(SecretString::from) }
    }

    fn texts(pair: &Pair) -> (&str, Option<&str>) {
        let refresh = pair.refresh.as_ref().map(|refresh| refresh.expose_secret());
        (pair.access.expose_secret(), refresh)
    }

    const SECRET: &str = "not-a-secret-test-key, thirty-two bytes";
    const OTHER: &str = "not-a-secret-test-key, another of them";

    #[test]
    fn what_is_sealed_opens_and_does_not_show() {
        let keys = keys(SECRET, None);
        for refresh in [None, Some(""), Some("refresh-canary")] {
            let pair = pair("access-canary", refresh);
            let sealed = keys.seal(ONE, &pair).expect("sealed");
            assert!(!String::from_utf8_lossy(&sealed).contains("canary"));
            let opened = keys.open(ONE, &keys.current.id, &sealed).expect("opened");
            assert_eq!(texts(&opened), ("access-canary", refresh));
            assert_ne!(keys.seal(ONE, &pair).expect("sealed"), sealed, "a nonce is used once");
            assert!(!format!("{pair:?}{keys:?}").contains("canary"));
        }
    }

    #[test]
    fn it_opens_nowhere_else() {
        let keys = keys(SECRET, None);
        let sealed = keys.seal(ONE, &pair("a", Some("r"))).expect("sealed");
        assert!(keys.open(TWO, &keys.current.id, &sealed).is_err(), "another connection's row");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.open(ONE, &keys.current.id, &changed).is_err(), "byte {at}");
            assert!(keys.open(ONE, &keys.current.id, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_key_before_opens_and_the_new_one_seals() {
        let old = keys(SECRET, None);
        let sealed = old.seal(ONE, &pair("a", None)).expect("sealed");
        let new = keys(OTHER, Some(SECRET));
        assert_ne!(new.current.id, old.current.id);
        assert!(new.open(ONE, &old.current.id, &sealed).is_ok());
        let sealed = new.seal(ONE, &pair("a", None)).expect("sealed");
        let error = old.open(ONE, &new.current.id, &sealed).expect_err("another key's");
        assert_eq!((error.kind, error.code.as_str()), (Kind::AuthenticationError, "another key"));
    }

    #[test]
    fn a_short_secret_is_refused() {
        let error = Keys::new(&"not-a-secret-test-key".into(), None).expect_err("short");
        assert_eq!(error.kind, Kind::ValidationError);
        assert!(error.to_string().contains("secrets.token_key"), "{error}");
    }
}
