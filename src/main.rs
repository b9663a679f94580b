//! Parse, load the configuration, run, exit.

fn main() {}
