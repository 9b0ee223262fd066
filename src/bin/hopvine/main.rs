//! The program: Hopvine's systems, each as a subcommand.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;

mod arguments;
mod config;
mod files;
mod log;
mod registry;

use arguments::{Arguments, Command};

/// Why the program ends before it is told to.
enum Failure {
    /// It was told something wrong: exit code 2, as for flags nobody knows.
    Config(String),
    /// It cannot do what it was told: exit code 1.
    Run(String),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Registry(arguments) => registry::run(&arguments),
    };
    let (code, why) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Config(why)) => (2, why),
        Err(Failure::Run(why)) => (1, why),
    };
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "hopvine: {}", log::one_line(&why));
    ExitCode::from(code)
}
