//! `metrics`: the table of metrics, for who builds a dashboard or an alert.

use std::io::Write;

use super::say;
use crate::error::Result;
use crate::telemetry::metrics::TABLE;
use crate::telemetry::table;
use crate::vendors;

/// Prints every metric with its labels and their values.
///
/// # Errors
/// Where the reader is gone.
pub fn run(json: bool, out: &mut impl Write) -> Result<()> {
    let vendors = vendors::names();
    if json {
        return say(out, &format!("{:#}\n", table::json(TABLE, &vendors)));
    }
    say(out, &table::text(TABLE, &vendors))
}
