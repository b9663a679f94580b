//! `describe`: the topology as text.

use std::io::Write;

use super::say;
use crate::error::Result;
use crate::pipeline::topology;

/// Prints the topology.
///
/// # Errors
/// Where the reader is gone.
pub fn run(out: &mut impl Write) -> Result<()> {
    say(out, &topology::describe())
}
