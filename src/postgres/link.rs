//! One owner's connection: made when it is needed, made again when it broke, never shared.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::pool::{Settings, Wire, connect, failed};
use crate::error::{Error, Kind, Result};

/// The statements of an owner, prepared on each new connection.
pub(super) trait Prepare: Sized {
    /// Prepares them, all in one round trip.
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error>;
}

/// A connection with its prepared statements.
#[derive(Debug)]
pub(super) struct Session<P> {
    wire: Wire,
    /// The statements.
    pub(super) prepared: P,
}

impl<P> Session<P> {
    /// The driver's client.
    pub(super) fn client(&self) -> &Client {
        self.wire.client()
    }

    /// See [`Wire::take_warned`].
    pub(super) fn take_warned(&self) -> bool {
        self.wire.take_warned()
    }

    /// Whether the connection can still be used after this error.
    pub(super) fn survives(&self, error: &tokio_postgres::Error) -> bool {
        error.code().is_some_and(|state| {
            let ended = state.code().starts_with("08")
                || state.code().starts_with("57P")
                || *state == SqlState::READ_ONLY_SQL_TRANSACTION;
            !ended && !self.client().is_closed()
        })
    }
}

/// The wait before the n-th attempt after a failure: doubled from 100 ms, at most 5 s.
fn backoff(failures: u32) -> Duration {
    let doubled = 100_u64.saturating_mul(2_u64.saturating_pow(failures.saturating_sub(1)));
    Duration::from_millis(doubled.min(5_000))
}

/// How often the slot's lock is tried when it is asked for first, and how far apart: a killed predecessor's
/// connection may take a moment to end.
const SLOT_TRIES: u32 = 40;
const SLOT_PAUSE: Duration = Duration::from_millis(250);
const SLOT: &str = "hold the slot's name: another process runs under it, give this one its own";

/// The connection of one owner.
#[derive(Debug)]
pub(super) struct Link<P> {
    settings: Settings,
    name: String,
    slot: Option<String>,
    session: Option<Session<P>>,
    /// Taken and not put back; seen while nobody has it, the call that took it was dropped.
    taken: bool,
    /// A connection was lost and [`Link::lost`] has not said so yet.
    lost: bool,
    failures: u32,
}

impl<P: Prepare> Link<P> {
    /// Without a connection yet.
    pub(super) fn new(settings: Settings, name: &str) -> Self {
        Self {
            settings,
            name: name.to_owned(),
            slot: None,
            session: None,
            taken: false,
            lost: false,
            failures: 0,
        }
    }

    /// How long an answer may take.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.settings.answer_timeout()
    }

    /// Holds this name for as long as the connection lives, and again on each new one.
    ///
    /// # Errors
    /// [`Kind::InternalError`] where another process holds it; [`Kind::DatabaseError`].
    pub(super) async fn hold_slot(&mut self, slot: &str) -> Result<()> {
        self.slot = Some(slot.to_owned());
        self.session = None;
        self.taken = false;
        for _ in 1..SLOT_TRIES {
            match self.make().await {
                Err(error) if error.doing == SLOT => tokio::time::sleep(SLOT_PAUSE).await,
                made => return made.map(|session| self.session = Some(session)),
            }
        }
        let made = self.make().await;
        // At the start there is nothing to wait for: a person must give one of the two another name.
        let session = made.map_err(|error| match error.doing {
            SLOT => Error { kind: Kind::InternalError, ..error },
            _ => error,
        })?;
        self.session = Some(session);
        Ok(())
    }

    /// Whether there is a connection that seems to live.
    pub(super) fn is_up(&mut self) -> bool {
        self.settle();
        self.session.is_some()
    }

    /// Whether a connection was lost since this was asked last.
    pub(super) fn lost(&mut self) -> bool {
        self.settle();
        std::mem::take(&mut self.lost)
    }

    /// Notices a connection that was dropped with a call, or that has ended.
    fn settle(&mut self) {
        let ended = self.session.as_ref().is_some_and(|session| session.client().is_closed());
        if self.taken || ended {
            self.session = None;
            self.lost = true;
            self.taken = false;
        }
    }

    /// Takes the connection, making one if there is none. It must be [`Link::put`] back if it is sound.
    pub(super) async fn take(&mut self) -> Result<Session<P>> {
        self.settle();
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                if self.failures > 0 {
                    tokio::time::sleep(backoff(self.failures)).await;
                }
                // Counted before it is tried: a call that is dropped while it connects has failed, too.
                self.failures = self.failures.saturating_add(1);
                let session = self.make().await?;
                self.failures = 0;
                session
            }
        };
        self.taken = true;
        Ok(session)
    }

    /// Gives a sound connection back.
    pub(super) fn put(&mut self, session: Session<P>) {
        self.session = Some(session);
        self.taken = false;
    }

    /// One call: takes the connection, asks, and puts it back if it is sound.
    pub(super) async fn ask<T>(
        &mut self,
        doing: &'static str,
        question: impl AsyncFnOnce(&Session<P>) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        let session = self.take().await?;
        match tokio::time::timeout(self.answer_timeout(), question(&session)).await {
            Ok(Ok(answer)) => {
                self.put(session);
                Ok(answer)
            }
            Ok(Err(error)) => {
                if session.survives(&error) {
                    self.put(session);
                }
                Err(failed(doing, &error))
            }
            Err(_elapsed) => Err(Error::new(Kind::DatabaseError, doing, "timeout")),
        }
    }

    async fn make(&self) -> Result<Session<P>> {
        let wire = connect(&self.settings, &self.name).await?;
        let set_up = async {
            let prepared = P::prepare(wire.client()).await?;
            let held = match &self.slot {
                None => true,
                Some(slot) => {
                    let row = wire.client().query_one(HOLD_SLOT, &[slot]).await?;
                    row.try_get(0)?
                }
            };
            Ok((prepared, held))
        };
        let (prepared, held) = tokio::time::timeout(self.answer_timeout(), set_up)
            .await
            .map_err(|_elapsed| Error::new(Kind::DatabaseError, "prepare statements", "timeout"))?
            .map_err(|error| failed("prepare statements", &error))?;
        if !held {
            // On a new connection it is most likely the lock of the old one, which ends soon.
            let slot = self.slot.clone().unwrap_or_default();
            return Err(Error::new(Kind::DatabaseError, SLOT, slot));
        }
        Ok(Session { wire, prepared })
    }
}

/// A lock of the session; the schema is part of the name, for two installations in one database.
const HOLD_SLOT: &str = "SELECT pg_try_advisory_lock(hashtextextended(concat(current_schema(), '/slot/', $1::text), 0))";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_bounded() {
        let waits: Vec<u128> = (1..=10).map(|failures| backoff(failures).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000, 5_000]);
        assert_eq!(backoff(u32::MAX), Duration::from_secs(5));
    }
}
