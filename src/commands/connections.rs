//! `connections add|list|token|import|retry|pause|resume|remove`: which of our users a vendor's user is.
//!
//! What an operator does here is what a vendor's own announcement does in normalise: it takes the same path
//! (`model::connection`), and doing it twice is doing it once.

use std::io::{Read as _, Write};
use std::path::Path;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::model::connection::{Change, Connection, Connections, FOR_EVER, Lookup};
use crate::model::id::{ConnectionId, User};
use crate::model::state::{Notes, Whose};
use crate::model::time::Micros;
use crate::postgres::queue::{PostgresQueue, Standing};
use crate::postgres::register::PostgresRegister;
use crate::stream::Register;
use crate::stream::hydration::{Pair, Vault};

/// What is to be connected.
#[derive(Clone, Debug)]
pub struct New {
    /// The vendor.
    pub vendor: String,
    /// Our user.
    pub user: User,
    /// The vendor's user.
    pub named: Named,
}

/// Who names the vendor's user.
#[derive(Clone, Debug)]
pub enum Named {
    /// The vendor, by this id.
    ByVendor(String),
    /// We do: the connection is made of this label, and its own id is the vendor's user (HealthKit, whose
    /// pushes name their connection).
    ByLabel(String),
}

/// Connects from this moment on (the vendor user's first row reaches back without bound) and prints the row,
/// with its token where `token` makes one.
///
/// # Errors
/// As [`PostgresRegister`]'s calls; [`Kind::InternalError`] where it does not hold after it was written,
/// because somebody else wrote at the same moment.
pub async fn add(
    register: &mut PostgresRegister,
    new: &New,
    at_us: Micros,
    token: impl Fn(ConnectionId) -> Option<String>,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let (vendor, user) = (new.vendor.as_str(), &new.user);
    let (id, vendor_user) = match &new.named {
        Named::ByVendor(name) => (ConnectionId::derive(vendor, name, user), name.clone()),
        Named::ByLabel(label) => {
            let id = ConnectionId::derive(vendor, label, user);
            (id, id.to_string())
        }
    };
    let key = Whose::from([(vendor.to_owned(), vendor_user.clone())]);
    let mut known = Connections::new(register.connections(&key).await?);
    known.begin(vendor, &vendor_user, user.clone(), id, at_us);
    write(register, &known).await?;
    let after = Connections::new(register.connections(&key).await?);
    match after.at(vendor, &vendor_user, at_us) {
        Lookup::Connected(row) if row.id == id && row.user == *user => {
            print(std::slice::from_ref(row), token(id), None, json, out)
        }
        _ => Err(Error::internal("add a connection: another was made meanwhile; run it again")),
    }
}

/// Prints connections, the latest first, each with how its tokens stand and what waits; all of them or one user's.
///
/// # Errors
/// As [`add`], and as the queue's calls.
pub async fn list(
    register: &mut PostgresRegister,
    queue: &PostgresQueue,
    user: Option<&User>,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let mut rows = register.all_connections().await?;
    rows.retain(|row| user.is_none_or(|user| row.user == *user));
    rows.sort_by_key(|row| std::cmp::Reverse(row.valid_from));
    let standings = queue.standings().await?;
    print(&rows, None, Some(&standings), json, out)
}

/// Ends the connection that holds at this moment and prints it; gives back whether there was one. Its records
/// stay.
///
/// # Errors
/// As [`add`].
pub async fn remove(
    register: &mut PostgresRegister,
    vendor: &str,
    vendor_user: &str,
    at_us: Micros,
    json: bool,
    out: &mut impl Write,
) -> Result<bool> {
    let key = Whose::from([(vendor.to_owned(), vendor_user.to_owned())]);
    let mut known = Connections::new(register.connections(&key).await?);
    known.apply(vendor, &Change::End { vendor_user: vendor_user.to_owned() }, at_us);
    let ended: Vec<Connection> = known.changes().cloned().collect();
    write(register, &known).await?;
    print(&ended, None, None, json, out)?;
    Ok(!ended.is_empty())
}

/// A pair of tokens and how long the first lives, as a vendor's token endpoint answers (RFC 6749, §5.1).
#[derive(Deserialize)]
pub struct TokenAnswer {
    access_token: SecretString,
    #[serde(default)]
    refresh_token: Option<SecretString>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Reads such an answer from a file, or from standard input where it is `-`.
///
/// # Errors
/// [`Kind::ValidationError`] where it cannot be read, or is not one; nothing of it is told.
pub fn read_tokens(file: &Path) -> Result<TokenAnswer> {
    serde_json::from_slice(&read(file)?).map_err(|_text| {
        let doing = "read tokens: a JSON object with access_token, as the vendor answered";
        Error::new(Kind::ValidationError, doing, "")
    })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut text).map(|_length| ())
    } else {
        std::fs::read(file).map(|bytes| text = bytes)
    };
    read.map_err(|_unread| Error::new(Kind::ValidationError, "read the file of tokens", ""))?;
    Ok(text)
}

/// A connection and its tokens, as a line of a file has them.
#[derive(Deserialize)]
pub struct ImportLine {
    vendor: String,
    vendor_user: String,
    user: User,
    /// Of a vendor that gives people's tokens out.
    #[serde(flatten)]
    tokens: Option<TokenAnswer>,
}

/// Reads such lines from a file, or from standard input where it is `-`.
///
/// # Errors
/// [`Kind::ValidationError`] with the number of the line that is not one, and nothing of it.
pub fn read_lines(file: &Path) -> Result<Vec<ImportLine>> {
    let text = read(file)?;
    let lines = text.split(|byte| *byte == b'\n').zip(1..).filter(|(line, _)| !line.is_empty());
    let read = |(line, number): (&[u8], i32)| {
        let wrong = |doing| Error::new(Kind::ValidationError, doing, format!("line {number}"));
        let found: ImportLine = serde_json::from_slice(line).map_err(|_text| {
            wrong("read a connection: a JSON object with vendor, vendor_user, user, access_token")
        })?;
        let vendor = crate::vendors::find(&found.vendor);
        let vendor = vendor.ok_or_else(|| wrong("read a connection: no vendor of this name"))?;
        if found.tokens.is_none() && vendor.consent().is_some() {
            return Err(wrong("read a connection: its vendor gives tokens, and it has none"));
        }
        Ok(found)
    };
    lines.map(read).collect()
}

/// Makes these connections from this moment on, and stores their tokens in place of what is there. What their vendors
/// say of the tokens' lives passes `speed` times as fast. Doing it twice is doing it once. Gives each that has tokens, with
/// its vendor.
///
/// # Errors
/// As [`token`].
pub async fn import(
    register: &mut PostgresRegister,
    vault: &impl Vault,
    lines: &[ImportLine],
    (at_us, speed): (Micros, u32),
) -> Result<Vec<(String, ConnectionId)>> {
    for some in lines.chunks(IMPORTED_AT_ONCE) {
        let key = |line: &ImportLine| (line.vendor.clone(), line.vendor_user.clone());
        let named = Whose { vendor_users: some.iter().map(key).collect(), ..Whose::default() };
        let mut known = Connections::new(register.connections(&named).await?);
        for line in some {
            let id = ConnectionId::derive(&line.vendor, &line.vendor_user, &line.user);
            known.begin(&line.vendor, &line.vendor_user, line.user.clone(), id, at_us);
        }
        write(register, &known).await?;
    }
    let mut stored = Vec::new();
    for (line, tokens) in lines.iter().filter_map(|line| Some((line, line.tokens.as_ref()?))) {
        let lives = tokens.expires_in.map(|lives| lives / u64::from(speed.max(1)));
        let access_token = tokens.access_token.clone();
        let refresh_token = tokens.refresh_token.clone();
        let tokens = TokenAnswer { access_token, refresh_token, expires_in: lives };
        let whose = (line.vendor.as_str(), line.vendor_user.as_str());
        let connection = token(register, vault, whose, &tokens, at_us).await?;
        stored.push((line.vendor.clone(), connection));
    }
    Ok(stored)
}

/// How many connections are written in one statement.
const IMPORTED_AT_ONCE: usize = 500;

/// Stores the tokens of the connection that holds now, in place of what is there, and gives it.
///
/// # Errors
/// [`Kind::UnknownUser`] where there is no such connection; as the vault's calls.
pub async fn token(
    register: &mut PostgresRegister,
    vault: &impl Vault,
    (vendor, vendor_user): (&str, &str),
    tokens: &TokenAnswer,
    at_us: Micros,
) -> Result<ConnectionId> {
    let connection = now(register, vendor, vendor_user, at_us).await?;
    let pair = Pair { access: tokens.access_token.clone(), refresh: tokens.refresh_token.clone() };
    let lives = tokens.expires_in.map(Duration::from_secs);
    vault.store(vendor, connection, 0, &pair, lives).await.map(|_stored| connection)
}

/// The connection that holds at this moment.
///
/// # Errors
/// [`Kind::UnknownUser`] where there is none; as [`add`].
pub async fn now(
    register: &mut PostgresRegister,
    vendor: &str,
    vendor_user: &str,
    at_us: Micros,
) -> Result<ConnectionId> {
    let key = Whose::from([(vendor.to_owned(), vendor_user.to_owned())]);
    let known = Connections::new(register.connections(&key).await?);
    match known.at(vendor, vendor_user, at_us) {
        Lookup::Connected(connection) => Ok(connection.id),
        Lookup::Disconnected | Lookup::Unknown => {
            let doing = "find a connection; `connections add` makes it";
            Err(Error::new(Kind::UnknownUser, doing, ""))
        }
    }
}

async fn write(register: &mut PostgresRegister, known: &Connections) -> Result<()> {
    let connections = known.changes().cloned().collect();
    register.note(&Notes { connections, ..Notes::default() }).await
}

fn print(
    rows: &[Connection],
    token: Option<String>,
    standings: Option<&[Standing]>,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let write = if json { lines } else { table };
    let text = write(rows, token.as_deref(), standings);
    out.write_all(text.as_bytes())
        .map_err(|_closed| Error::new(Kind::InternalError, "print connections", ""))
}

/// One JSON object a line; a beginning without bound and an end that has not come are null.
fn lines(rows: &[Connection], token: Option<&str>, standings: Option<&[Standing]>) -> String {
    let line = |row: &Connection| {
        let mut line = json!({
            "id": row.id,
            "vendor": row.vendor,
            "vendor_user": row.vendor_user,
            "user": row.user,
            "valid_from": (row.valid_from != FOR_EVER).then(|| time(row.valid_from)),
            "valid_to": row.valid_to.map(time),
        });
        if let (Some(token), Some(object)) = (token, line.as_object_mut()) {
            object.insert("token".to_owned(), Value::from(token));
        }
        if let (Some(standings), Some(object)) = (standings, line.as_object_mut()) {
            let (tokens, waiting, given_up) = standing(row, standings);
            object.insert("tokens".to_owned(), tokens.map_or(Value::Null, Value::from));
            object.insert("waiting".to_owned(), waiting.into());
            object.insert("given_up".to_owned(), given_up.into());
        }
        format!("{line}\n")
    };
    rows.iter().map(line).collect()
}

/// How a connection stands: its tokens' state, records that wait, records that were given up.
fn standing<'a>(row: &Connection, standings: &'a [Standing]) -> (Option<&'a str>, i64, i64) {
    let found = standings.iter().find(|standing| standing.connection == row.id);
    found.map_or((None, 0, 0), |one| (one.tokens.as_deref(), one.waiting, one.given_up))
}

fn table(rows: &[Connection], token: Option<&str>, standings: Option<&[Standing]>) -> String {
    if rows.is_empty() {
        return "no connections\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut titles = vec!["vendor", "vendor user", "user", "from", "to", "connection"];
    if standings.is_some() {
        titles.extend(["tokens", "waiting", "given up"]);
    }
    table.set_header(titles);
    for row in rows {
        let from = if row.valid_from == FOR_EVER { "ever".into() } else { time(row.valid_from) };
        let mut cells = vec![
            row.vendor.clone(),
            row.vendor_user.clone(),
            row.user.to_string(),
            from,
            row.valid_to.map_or_else(|| "now".to_owned(), time),
            row.id.to_string(),
        ];
        if let Some(standings) = standings {
            let (tokens, waiting, given_up) = standing(row, standings);
            let tokens = tokens.unwrap_or("none").to_owned();
            cells.extend([tokens, waiting.to_string(), given_up.to_string()]);
        }
        table.add_row(cells);
    }
    let token = token.map(|token| format!("token: {token}\n"));
    format!("{table}\n{}", token.unwrap_or_default())
}

fn time(at_us: Micros) -> String {
    Timestamp::from_microsecond(at_us).map_or_else(|_| at_us.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Connection {
        let user = User::parse("a").expect("a user");
        Connection {
            id: ConnectionId::derive("terra", "v", &user),
            vendor: "terra".into(),
            vendor_user: "v".into(),
            user,
            valid_from: FOR_EVER,
            valid_to: Some(1_000_000),
            settled: true,
        }
    }

    #[test]
    fn a_row_says_from_when_to_when() {
        let text = table(&[row()], None, None);
        assert!(text.contains("ever") && text.contains("1970-01-01T00:00:01Z"), "{text}");
        let line: Value = serde_json::from_str(&lines(&[row()], Some("t"), None)).expect("JSON");
        assert_eq!(line["valid_from"], Value::Null);
        assert_eq!(line["valid_to"], "1970-01-01T00:00:01Z");
        assert_eq!(line["token"], "t");
        assert_eq!(table(&[], None, None), "no connections\n");
        assert_eq!(lines(&[], None, None), "");
    }

    #[test]
    fn a_row_says_what_waits() {
        let standing = Standing {
            connection: row().id,
            tokens: Some("reauth_required".into()),
            waiting: 41,
            given_up: 7,
        };
        let text = table(&[row()], None, Some(std::slice::from_ref(&standing)));
        assert!(text.contains("reauth_required") && text.contains("41"), "{text}");
        let line = lines(&[row()], None, Some(&[standing]));
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&line["waiting"], &line["given_up"]), (&41.into(), &7.into()));
        assert!(table(&[row()], None, Some(&[])).contains("none"), "no tokens, nothing waits");
    }
}
