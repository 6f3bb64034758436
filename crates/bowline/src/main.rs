//! `bowline`: arguments, configuration and wiring. What the server does is in `bowline-net`, what
//! it decides in `bowline-proto`.

mod banner;
mod cli;
mod config;
mod counted;
mod failure;
mod holder;
mod log;
mod page;
mod serve;
mod signals;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use bowline_names::Exit;
use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell if it cannot be printed.
            let _ = error.print();
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return ExitCode::from(exit.code());
        }
    };
    match cli.command {
        Command::Serve(arguments) => match serve::run(arguments.overrides()) {
            Ok(exit) => ExitCode::from(exit.code()),
            Err(failure) => failure.report(),
        },
        Command::Config(cli::Config::Show { defaults: _ }) => {
            // A reader that has read enough, such as `head`, is no failure.
            let _ = io::stdout().write_all(config::DEFAULT_FILE.as_bytes());
            ExitCode::from(Exit::Ok.code())
        }
    }
}
