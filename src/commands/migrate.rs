//! `migrate up|down|status`: the schema of Postgres, step by step.

use std::io::Write;

use serde_json::json;

use crate::error::{Error, Result};
use crate::postgres::Settings;
use crate::postgres::migrate::{self, State, Step};

/// Applies every pending step and prints those.
///
/// # Errors
/// As [`migrate::up`]; [`crate::error::Kind::InternalError`] where the writer refuses.
pub async fn up(settings: &Settings, json: bool, out: &mut impl Write) -> Result<()> {
    let done = migrate::up(settings).await?;
    print(&done, "nothing to apply", json, out)
}

/// Takes the last steps back, the newest first, and prints those. Their rows are lost.
///
/// # Errors
/// As [`up`].
pub async fn down(
    settings: &Settings,
    steps: usize,
    json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let done = migrate::down(settings, steps).await?;
    print(&done, "nothing to take back", json, out)
}

/// Prints every step and where it stands; gives back whether all of them are applied and no other is.
///
/// # Errors
/// As [`up`].
pub async fn status(settings: &Settings, json: bool, out: &mut impl Write) -> Result<bool> {
    let steps = migrate::status(settings).await?;
    print(&steps, "no steps", json, out)?;
    Ok(steps.iter().all(|step| step.state == State::Applied))
}

fn print(steps: &[Step], none: &str, json: bool, out: &mut impl Write) -> Result<()> {
    out.write_all(text(steps, none, json).as_bytes())
        .map_err(|_closed| Error::internal("print steps"))
}

/// One line a step; as JSON, one object a line.
fn text(steps: &[Step], none: &str, json: bool) -> String {
    let line = |step: &Step| {
        let state = step.state.name();
        if json {
            let line = json!({"number": step.number, "name": step.name, "state": state});
            format!("{line}\n")
        } else {
            format!("{state:<8} {:04}_{}\n", step.number, step.name)
        }
    };
    if steps.is_empty() && !json { format!("{none}\n") } else { steps.iter().map(line).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line() {
        let steps = [
            Step { number: 1, name: "decide".into(), state: State::Applied },
            Step { number: 12, name: "later".into(), state: State::Unknown },
        ];
        assert_eq!(text(&steps, "", false), "applied  0001_decide\nunknown  0012_later\n");
        assert_eq!(
            text(&steps[..1], "", true),
            "{\"name\":\"decide\",\"number\":1,\"state\":\"applied\"}\n"
        );
        assert_eq!(text(&[], "nothing to apply", false), "nothing to apply\n");
        assert_eq!(text(&[], "nothing to apply", true), "");
    }
}
