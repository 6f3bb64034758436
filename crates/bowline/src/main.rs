//! `bowline`: arguments, configuration and wiring. What the server does is in `bowline-net`, what
//! it decides in `bowline-proto`.

mod ai;
mod alerts;
mod api;
mod auth;
mod backends;
mod banner;
mod bench;
mod charter;
mod cli;
mod clock;
mod config;
mod control;
mod daemon;
mod emit;
mod failure;
mod gateway;
mod handover;
mod holder;
mod instance;
mod links;
mod log;
mod logfile;
mod master;
mod metrics;
mod misuse;
mod page;
mod process_stats;
mod remote;
mod serve;
mod services;
mod signals;
mod telemetry;
mod trust;
mod wiring;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use bowline_names::{ErrorCode, Exit};
use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

fn main() -> ExitCode {
    let exit = run();
    log::flush();
    logfile::finish();
    exit
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell if it cannot be printed.
            let _ = error.print();
            if let Some(variable) = cli::blamed(&error) {
                let _ = writeln!(io::stderr(), "The value comes from the variable {variable}.");
            }
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return ExitCode::from(exit.code());
        }
    };
    let ended = match cli.command {
        Command::Serve(arguments) => {
            let daemon =
                arguments.daemon.then(|| serve::Daemon { typed: arguments.settings.1.clone() });
            serve::run(arguments.overrides(), daemon)
        }
        Command::Gateway => gateway::run(),
        Command::Config(command) => config(command).map(|exit| ExitCode::from(exit.code())),
        Command::Daemon(command) => daemon::run(command).map(|exit| ExitCode::from(exit.code())),
        Command::Emit(arguments) => {
            emit::command::run(arguments).map(|exit| ExitCode::from(exit.code()))
        }
        Command::Bench(arguments) => bench::run(&arguments).map(|exit| ExitCode::from(exit.code())),
        Command::Alerts(command) => alerts(command).map(|exit| ExitCode::from(exit.code())),
    };
    match ended {
        Ok(exit) => exit,
        Err(failure) => {
            // What led there comes first.
            log::flush();
            failure.report()
        }
    }
}

fn alerts(command: cli::Alerts) -> Result<Exit, Failure> {
    match command {
        cli::Alerts::Print { prometheus, rules } => {
            alerts::command::print(prometheus, rules.as_deref())
        }
        cli::Alerts::Check { file } => alerts::command::check(&file),
    }
}

fn config(command: cli::Config) -> Result<Exit, Failure> {
    match command {
        cli::Config::Check { file, settings, services, json } => {
            let mut overrides = settings.0;
            if file.is_some() && overrides.flags.iter().any(|flag| flag == "--config") {
                let message = "two configuration files are named: FILE and --config; name one";
                return Err(Failure::new(ErrorCode::ConfigInvalid, message));
            }
            overrides.file = file.map(cli::from_here).or(overrides.file);
            config::command::check(overrides, services, json)
        }
        cli::Config::Show { defaults: true, .. } => Ok(config::command::show_defaults()),
        cli::Config::Show { settings, json, .. } => config::command::show(settings.0, json),
        cli::Config::Explain { key, settings } => config::command::explain(&key, settings.0),
        cli::Config::Schema => Ok(config::command::schema()),
        cli::Config::HashKey => config::command::hash_key(io::stdin().lock()),
    }
}
