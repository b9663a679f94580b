//! Making the tables, forwards and back.
//!
//! Ordered files, each with its way back, each in a transaction of its own, under a lock of the database, so that
//! two that are started together do it once. A file that was applied is never edited: its SHA-256 stands beside
//! it in `schema_migrations`, and one that differs is refused. Changes are made to expand first and to contract
//! in a later release, so that the old and the new binary can run together.

use std::time::Duration;

use tokio_postgres::Client;

use super::pool::{Settings, Wire, connect, failed};
use crate::error::{Error, Kind, Result};
use crate::model::id::sha256_hex;

/// One step of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// 1, 2, …
    pub number: i32,
    /// What it makes.
    pub name: &'static str,
    up: &'static str,
    down: &'static str,
}

/// A file with its way back, embedded.
macro_rules! migration {
    ($number:literal, $name:literal, $file:literal) => {
        Migration {
            number: $number,
            name: $name,
            up: include_str!(concat!("migrations/", $file, ".up.sql")),
            down: include_str!(concat!("migrations/", $file, ".down.sql")),
        }
    };
}

/// Every step, in order. A new one is a new pair of files and a new line at the end.
pub const MIGRATIONS: &[Migration] = &[
    migration!(1, "decide", "0001_decide"),
    migration!(2, "normalise", "0002_normalise"),
    migration!(3, "samples", "0003_samples"),
    migration!(4, "outbox", "0004_outbox"),
    migration!(5, "hydrator", "0005_hydrator"),
    migration!(6, "connect", "0006_connect"),
    migration!(7, "history", "0007_history"),
    migration!(8, "people", "0008_people"),
];

impl Migration {
    /// SHA-256 of the way forward, hex.
    #[must_use]
    pub fn checksum(&self) -> String {
        sha256_hex(self.up.as_bytes())
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is in the database.
    Applied,
    /// It is not there yet.
    Pending,
    /// It is there, from another text than this binary's.
    Edited,
    /// It is there, and this binary does not know it.
    Unknown,
}

impl State {
    /// The name that is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Edited => "edited",
            Self::Unknown => "unknown",
        }
    }
}

/// A step and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub number: i32,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: State,
}

/// A row of `schema_migrations`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    number: i32,
    name: String,
    checksum: String,
}

// ── what is to be done (pure) ──────────────────────────────────────────────────────────────────────────────

/// Known and applied steps side by side, by number.
fn compare(known: &[Migration], applied: &[Row]) -> Vec<Step> {
    let mut steps: Vec<Step> = known
        .iter()
        .map(|migration| Step {
            number: migration.number,
            name: migration.name.to_owned(),
            state: match applied.iter().find(|row| row.number == migration.number) {
                None => State::Pending,
                Some(row) if row.checksum == migration.checksum() => State::Applied,
                Some(_) => State::Edited,
            },
        })
        .collect();
    for row in applied {
        if !known.iter().any(|migration| migration.number == row.number) {
            let name = row.name.clone();
            steps.push(Step { number: row.number, name, state: State::Unknown });
        }
    }
    steps.sort_by_key(|step| step.number);
    steps
}

fn refuse(doing: &'static str, step: &Step) -> Error {
    Error::new(Kind::SchemaError, doing, format!("{:04}_{}", step.number, step.name))
}

const EDITED: &str = "use the schema: a migration was edited after it was applied; restore its \
                      file, and put the change into a new one";
const AHEAD: &str = "use the schema: it is newer than this binary; run the binary that made it, or \
                     let that one run `biometric-bridge migrate down`";
const BEHIND: &str =
    "use the schema: it is older than this binary; run `biometric-bridge migrate up`";

/// Refuses what must not be built upon.
fn refuse_foreign(steps: &[Step]) -> Result<()> {
    for step in steps {
        match step.state {
            State::Edited => return Err(refuse(EDITED, step)),
            State::Unknown => return Err(refuse(AHEAD, step)),
            State::Applied | State::Pending => {}
        }
    }
    Ok(())
}

// ── doing it ───────────────────────────────────────────────────────────────────────────────────────────────

/// Applies what is pending, in order; gives it back.
///
/// # Errors
/// [`Kind::SchemaError`] where an applied file was edited or the database is newer, [`Kind::DatabaseError`].
/// What was applied before the error stays applied.
pub async fn up(settings: &Settings) -> Result<Vec<Step>> {
    let wire = open(settings).await?;
    let steps = compare(MIGRATIONS, &applied(wire.client()).await?);
    refuse_foreign(&steps)?;
    let mut done = Vec::new();
    for migration in MIGRATIONS {
        let pending = steps
            .iter()
            .any(|step| step.number == migration.number && step.state == State::Pending);
        if pending {
            run(wire.client(), migration, Way::Up).await?;
            let name = migration.name.to_owned();
            done.push(Step { number: migration.number, name, state: State::Applied });
        }
    }
    Ok(done)
}

/// Takes the last `count` applied steps back, the newest first; gives them back. Their rows are lost.
///
/// # Errors
/// As [`up`].
pub async fn down(settings: &Settings, count: usize) -> Result<Vec<Step>> {
    let wire = open(settings).await?;
    let steps = compare(MIGRATIONS, &applied(wire.client()).await?);
    refuse_foreign(&steps)?;
    let mut done = Vec::new();
    let last = steps.iter().rev().filter(|step| step.state == State::Applied).take(count);
    for step in last {
        let Some(migration) = MIGRATIONS.iter().find(|one| one.number == step.number) else {
            continue;
        };
        run(wire.client(), migration, Way::Down).await?;
        done.push(Step { state: State::Pending, ..step.clone() });
    }
    Ok(done)
}

/// Every step and where it stands. Writes nothing.
///
/// # Errors
/// [`Kind::DatabaseError`].
pub async fn status(settings: &Settings) -> Result<Vec<Step>> {
    let wire = connect(settings, NAME).await?;
    Ok(compare(MIGRATIONS, &applied(wire.client()).await?))
}

/// Refuses to start on a schema that is not this binary's.
///
/// # Errors
/// [`Kind::SchemaError`] with what to run; [`Kind::DatabaseError`].
pub async fn check(settings: &Settings) -> Result<()> {
    let steps = status(settings).await?;
    refuse_foreign(&steps)?;
    match steps.iter().find(|step| step.state == State::Pending) {
        Some(step) => Err(refuse(BEHIND, step)),
        None => Ok(()),
    }
}

const NAME: &str = "biometric-bridge migrate";

/// A statement that changes a table waits this long for those who use it; then it gives up, because everybody
/// else would wait behind it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

const LEDGER: &str = "
    CREATE TABLE IF NOT EXISTS schema_migrations (
        number     integer     NOT NULL PRIMARY KEY,
        name       text        NOT NULL,
        checksum   text        NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

/// A connection that has the lock; it goes with the connection.
async fn open(settings: &Settings) -> Result<Wire> {
    const DOING: &str = "take the lock of migrations";
    let wire = connect(settings, NAME).await?;
    let client = wire.client();
    // How long a migration takes depends on the tables; how long it waits does not.
    let set = format!(
        "SET lock_timeout = {}; SET statement_timeout = 0; SET client_min_messages = warning",
        LOCK_TIMEOUT.as_millis()
    );
    let lock =
        "SELECT pg_advisory_lock(hashtextextended(concat(current_schema(), '/migrations'), 0))";
    client.batch_execute(&set).await.map_err(|error| failed(DOING, &error))?;
    client.batch_execute(lock).await.map_err(|error| failed(DOING, &error))?;
    client.batch_execute(LEDGER).await.map_err(|error| failed(DOING, &error))?;
    Ok(wire)
}

/// What was applied; nothing where there is no ledger.
async fn applied(client: &Client) -> Result<Vec<Row>> {
    const DOING: &str = "read schema_migrations";
    let read = async {
        let there: bool = client
            .query_one("SELECT to_regclass('schema_migrations') IS NOT NULL", &[])
            .await?
            .try_get(0)?;
        if !there {
            return Ok(Vec::new());
        }
        let sql = "SELECT number, name, checksum FROM schema_migrations ORDER BY number";
        let mut rows = Vec::new();
        for row in client.query(sql, &[]).await? {
            rows.push(Row {
                number: row.try_get(0)?,
                name: row.try_get(1)?,
                checksum: row.try_get(2)?,
            });
        }
        Ok(rows)
    };
    read.await.map_err(|error| failed(DOING, &error))
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

/// One step in one transaction, its row in the ledger included.
async fn run(client: &Client, migration: &Migration, way: Way) -> Result<()> {
    let stepped = async {
        client.batch_execute("BEGIN").await?;
        match way {
            Way::Up => {
                client.batch_execute(migration.up).await?;
                let sql = "INSERT INTO schema_migrations (number, name, checksum) \
                           VALUES ($1, $2, $3)";
                let checksum = migration.checksum();
                client.execute(sql, &[&migration.number, &migration.name, &checksum]).await?;
            }
            Way::Down => {
                client.batch_execute(migration.down).await?;
                let sql = "DELETE FROM schema_migrations WHERE number = $1";
                client.execute(sql, &[&migration.number]).await?;
            }
        }
        client.batch_execute("COMMIT").await
    };
    // After an error the connection is dropped, and the server rolls back.
    stepped.await.map_err(|error| {
        let doing = match way {
            Way::Up => "apply a migration",
            Way::Down => "take a migration back",
        };
        let code = failed(doing, &error).code;
        Error::new(
            Kind::DatabaseError,
            doing,
            format!("{:04}_{}, {code}", migration.number, migration.name),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(migration: &Migration) -> Row {
        Row {
            number: migration.number,
            name: migration.name.to_owned(),
            checksum: migration.checksum(),
        }
    }

    #[test]
    fn numbers_count_up_without_a_gap_and_each_has_its_way_back() {
        for (index, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.number, index, "{}", migration.name);
            assert!(!migration.down.trim().is_empty(), "{}", migration.name);
        }
    }

    #[test]
    fn what_is_missing_is_pending() {
        let steps = compare(MIGRATIONS, &[row(&MIGRATIONS[0])]);
        assert_eq!(steps[0].state, State::Applied);
        assert_eq!(steps[1].state, State::Pending);
        assert_eq!(refuse_foreign(&steps), Ok(()));
    }

    #[test]
    fn an_edited_file_is_refused_and_the_error_says_what_to_do() {
        let mut edited = row(&MIGRATIONS[0]);
        edited.checksum.replace_range(0..1, "x");
        let error = refuse_foreign(&compare(MIGRATIONS, &[edited])).expect_err("refused");
        assert_eq!(error.code, "0001_decide");
        assert!(error.to_string().contains("new one"), "{error}");
    }

    #[test]
    fn a_newer_database_is_refused() {
        let newer = Row { number: 99, name: "later".into(), checksum: String::new() };
        let mut rows: Vec<Row> = MIGRATIONS.iter().map(row).collect();
        rows.push(newer);
        let error = refuse_foreign(&compare(MIGRATIONS, &rows)).expect_err("refused");
        assert!(error.to_string().contains("newer than this binary"), "{error}");
        assert_eq!(error.code, "0099_later");
    }
}
