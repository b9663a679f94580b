//! Draws what `perf script` printed (standard input) as a flame graph (standard output): `make profile` pipes them.

use std::io::{self, BufReader, BufWriter, Write};

use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};

fn main() -> io::Result<()> {
    let mut folded = Vec::new();
    let input = BufReader::new(io::stdin().lock());
    Folder::from(Options::default()).collapse(input, &mut folded)?;
    let mut options = inferno::flamegraph::Options::default();
    options.title = std::env::args().nth(1).unwrap_or_else(|| "CPU".to_owned());
    options.count_name = "samples".to_owned();
    let mut out = BufWriter::new(io::stdout().lock());
    inferno::flamegraph::from_reader(&mut options, folded.as_slice(), &mut out)
        .map_err(io::Error::other)?;
    out.flush()
}
