//! `connections show` and `connections history`: how far the past of a connection has come, and that it be asked for.

use std::io::Write;

use serde_json::{Value, json};

use crate::commands::say;
use crate::error::{Error, Kind, Result};
use crate::model::connection::Connection;
use crate::model::id::ConnectionId;
use crate::model::time::Day;
use crate::postgres::history::Progress;
use crate::postgres::queue::{PostgresQueue, Standing};
use crate::postgres::register::PostgresRegister;
use crate::vendors::history;

/// Whose connections are shown: all that are named by what is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Only<'a> {
    /// The vendor.
    pub vendor: Option<&'a str>,
    /// The vendor's user.
    pub vendor_user: Option<&'a str>,
    /// Our user.
    pub user: Option<&'a str>,
}

impl Only<'_> {
    fn names(&self, row: &Connection) -> bool {
        self.vendor.is_none_or(|vendor| row.vendor == vendor)
            && self.vendor_user.is_none_or(|user| row.vendor_user == user)
            && self.user.is_none_or(|user| row.user.as_str() == user)
    }
}

/// Prints the connections that hold, each with how its tokens stand, what waits, and how far each collection of its
/// history has come.
///
/// # Errors
/// [`Kind::UnknownUser`] where none is named; as every call of Postgres.
pub async fn show(
    register: &mut PostgresRegister,
    queue: &PostgresQueue,
    only: Only<'_>,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let mut rows = register.all_connections().await?;
    rows.retain(|row| row.valid_to.is_none() && only.names(row));
    rows.sort_by(|a, b| (&a.vendor, &a.vendor_user).cmp(&(&b.vendor, &b.vendor_user)));
    if rows.is_empty() {
        return Err(Error::new(Kind::UnknownUser, "find a connection that holds", ""));
    }
    let standings = queue.standings().await?;
    for row in &rows {
        let progress = queue.progress(&row.vendor, row.id).await?;
        let standing = standings.iter().find(|standing| standing.connection == row.id);
        let text =
            if json { line(row, standing, &progress) } else { lines(row, standing, &progress) };
        say(out, &text)?;
    }
    Ok(())
}

/// Has the history of a connection asked for: since this day, or as far back as the configuration has it. Gives the
/// words for it.
///
/// # Errors
/// [`Kind::ValidationError`] where the vendor gives none; as every call of Postgres.
pub async fn ask(
    queue: &PostgresQueue,
    vendor: &str,
    connection: ConnectionId,
    since: Option<Day>,
) -> Result<&'static str> {
    let api = crate::vendors::find(vendor).and_then(|vendor| vendor.api());
    if api.is_none_or(|api| api.history().is_empty()) {
        let doing = "read --vendor: one that gives a history";
        return Err(Error::new(Kind::ValidationError, doing, ""));
    }
    queue.note_gap(vendor, connection, since.map(Day::start_utc_us)).await?;
    Ok("its history is asked for; `connections show` says how far it has come\n")
}

/// A day as it is written on the command line.
///
/// # Errors
/// [`Kind::ValidationError`] where it is none.
pub fn day(text: &str) -> Result<Day> {
    let wrong = || Error::new(Kind::ValidationError, "read --since: a date as 2026-03-29", "");
    Day::parse(text).ok_or_else(wrong)
}

/// Cells of a bar.
const BAR: i64 = 20;

/// So much of it as a bar.
fn bar(done: i64, all: i64) -> String {
    let full = if all > 0 { done.clamp(0, all) * BAR / all } else { 0 };
    (0..BAR).map(|at| if at < full { '█' } else { '░' }).collect()
}

fn lines(row: &Connection, standing: Option<&Standing>, progress: &[Progress]) -> String {
    let tokens = standing.and_then(|one| one.tokens.as_deref()).unwrap_or("none");
    let (waiting, given_up) = standing.map_or((0, 0), |one| (one.waiting, one.given_up));
    let mut text = format!(
        "{} {} · user {} · tokens {tokens} · {waiting} waiting · {given_up} given up\n",
        row.vendor, row.vendor_user, row.user
    );
    for one in progress {
        let name = history::of(&one.record_type).unwrap_or(&one.record_type);
        let reached = one.reached.as_deref().unwrap_or("nothing yet");
        let lost =
            if one.given_up > 0 { format!(", {} given up", one.given_up) } else { String::new() };
        text += &format!(
            "  {name:<26} {} {:>4}/{} windows, back to {reached} of {}{lost}\n",
            bar(one.done, one.all),
            one.done,
            one.all,
            one.begins
        );
    }
    if progress.is_empty() {
        text += "  no history was asked for\n";
    }
    text
}

/// One JSON object.
fn line(row: &Connection, standing: Option<&Standing>, progress: &[Progress]) -> String {
    let history: Vec<Value> = progress
        .iter()
        .map(|one| {
            json!({
                "collection": history::of(&one.record_type).unwrap_or(&one.record_type),
                "windows": one.all, "done": one.done, "given_up": one.given_up,
                "reached": one.reached, "begins": one.begins,
            })
        })
        .collect();
    let shown = json!({
        "id": row.id, "vendor": row.vendor, "vendor_user": row.vendor_user, "user": row.user,
        "tokens": standing.and_then(|one| one.tokens.as_deref()),
        "waiting": standing.map_or(0, |one| one.waiting),
        "given_up": standing.map_or(0, |one| one.given_up),
        "history": history,
    });
    format!("{shown}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::connection::FOR_EVER;
    use crate::model::id::User;

    fn row() -> Connection {
        let user = User::parse("u-1").expect("a user");
        Connection {
            id: ConnectionId::derive("oura", "v", &user),
            vendor: "oura".into(),
            vendor_user: "v".into(),
            user,
            valid_from: FOR_EVER,
            valid_to: None,
            settled: true,
        }
    }

    #[test]
    fn a_bar_is_full_when_all_is_done() {
        for (done, all, full) in [(0, 3, 0), (1, 3, 6), (2, 3, 13), (3, 3, 20), (0, 0, 0)] {
            let bar = bar(done, all);
            assert_eq!(bar.chars().filter(|cell| *cell == '█').count(), full, "{done}/{all}");
            assert_eq!(bar.chars().count(), 20);
        }
    }

    #[test]
    fn each_collection_says_how_far_it_is() {
        let progress = Progress {
            connection: row().id,
            record_type: "window.sleep".into(),
            all: 4,
            done: 2,
            given_up: 1,
            reached: Some("2026-09-22".into()),
            begins: "2026-08-23".into(),
        };
        let text = lines(&row(), None, std::slice::from_ref(&progress));
        let said =
            "██████████░░░░░░░░░░    2/4 windows, back to 2026-09-22 of 2026-08-23, 1 given up";
        assert!(text.contains(said) && text.contains("  sleep "), "{text}");
        let line: Value = serde_json::from_str(&line(&row(), None, &[progress])).expect("JSON");
        assert_eq!(line["history"][0]["collection"], "sleep");
        assert_eq!(line["history"][0]["done"], 2);
        assert!(lines(&row(), None, &[]).contains("no history"));
    }

    #[test]
    fn who_is_named_is_shown() {
        let of = |vendor, vendor_user, user| Only { vendor, vendor_user, user }.names(&row());
        assert!(of(None, None, None) && of(Some("oura"), Some("v"), Some("u-1")));
        assert!(!of(Some("whoop"), None, None) && !of(None, Some("w"), None));
        assert!(!of(None, None, Some("u-2")));
    }
}
