//! Parse, load the configuration, do what was asked, exit: 0 done, 1 failed, 64 wrong usage, 78 wrong configuration.

use std::process::ExitCode;

use biometric_bridge::cli::Cli;
use biometric_bridge::commands;
use clap::Parser as _;
use mimalloc::MiMalloc;

/// A batch is a hundred thousand small pieces of memory that live for milliseconds.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; where the terminal is gone there is nobody to tell.
            let shown = error.print();
            let usage = error.use_stderr() || shown.is_err();
            return ExitCode::from(if usage { commands::USAGE } else { 0 });
        }
    };
    ExitCode::from(commands::run(&cli))
}
