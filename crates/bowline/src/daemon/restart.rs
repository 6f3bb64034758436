//! `bowline restart`: stop and start, if starting can be expected to work.

use std::{fs, net::SocketAddr};

use bowline_names::{ErrorCode, Exit};
use clap::Parser as _;

use super::{
    Launch, configuration, paths,
    start::{begin, start},
    status::settled,
    stop::{Ending, end},
    words::{roughly, say},
};
use crate::{
    charter::Management,
    cli::{Cli, Command, Typed},
    config::{Config, command::startable},
    failure::Failure,
    instance::{Record, Standing},
    serve,
};

/// Stops the daemon and starts it again with the flags and variables that it had, as far as none are
/// given now.
/// What would keep it from starting is looked for before it is stopped.
///
/// # Errors
/// Those of `stop` and of `start`, and when it is not a daemon that runs.
pub(crate) fn restart(launch: Launch, ending: Ending) -> Result<Exit, Failure> {
    let paths = paths(&launch.overrides)?;
    let record = match settled(&paths) {
        Standing::Running(record) => record,
        Standing::Unknown(doubt) => return Err(doubt.into()),
        // It died, and is started as it was.
        Standing::Stale(record) if record.management == Management::Daemon => {
            return start(&with_flags_of(launch, &record)?);
        }
        Standing::Absent | Standing::Stale(_) => return start(&launch),
    };
    if record.management != Management::Daemon {
        return Err(not_ours(&record));
    }
    let left_alone = |mut failure: Failure| {
        failure.message.push_str("\n  the server was left as it is");
        failure
    };
    let launch = with_flags_of(launch, &record).map_err(left_alone)?;
    let (config, next) = configuration(&launch.overrides).map_err(left_alone)?;
    startable(launch.overrides.clone()).map_err(|error| left_alone(error.into()))?;
    if next == paths {
        paths.try_writing().map_err(|error| left_alone(error.into()))?;
    }
    try_listening(&config, &record).map_err(left_alone)?;
    let took = end(&paths, &record, ending)?;
    say(&format!("bowline has stopped: pid {}, after {}", record.pid, roughly(took)));
    begin(&launch, &next)
}

/// Keeps the flags and variables that the server was started with, unless they are given anew.
fn with_flags_of(launch: Launch, record: &Record) -> Result<Launch, Failure> {
    let old = Typed { arguments: record.arguments.clone(), variables: record.variables.clone() };
    let typed = launch.typed.or(&old);
    let words = ["bowline".to_owned(), "serve".to_owned()].into_iter().chain(typed.flags());
    let parsed = Cli::try_parse_from(words).map_err(|error| {
        let message =
            format!("the server was started with flags that this version does not know: {error}");
        Failure::new(ErrorCode::ConfigInvalid, message)
    })?;
    let overrides = match parsed.command {
        Command::Serve(serve) => serve.overrides(),
        _ => launch.overrides,
    };
    Ok(Launch { overrides, typed, wait: launch.wait })
}

/// Listens where the server that runs does not, for a moment.
fn try_listening(config: &Config, record: &Record) -> Result<(), Failure> {
    let taken = |address: &SocketAddr| {
        // An address for all takes the port of every other.
        record.listeners.iter().any(|listener| listener.address.port() == address.port())
    };
    for (door, address) in serve::doors(config) {
        if !taken(&address) {
            serve::listen(door, address)?;
        }
    }
    Ok(())
}

/// A server that something else started.
fn not_ours(record: &Record) -> Failure {
    let pid = record.pid;
    let message = match (record.management, unit(pid)) {
        (Management::Systemd, Some(unit)) => {
            format!("pid {pid} is looked after by systemd: use `systemctl restart {unit}`")
        }
        (Management::Systemd, None) => format!("pid {pid} is looked after by systemd"),
        (Management::Foreground | Management::Daemon, _) => {
            format!("pid {pid} runs in the foreground: end it there, or with `bowline stop`")
        }
    };
    Failure::new(ErrorCode::ManagedElsewhere, message)
}

/// The unit that a process belongs to.
pub(super) fn unit(pid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let names = groups.lines().filter_map(|line| line.rsplit('/').next());
    names.filter(|name| name.ends_with(".service")).map(str::to_owned).next()
}
