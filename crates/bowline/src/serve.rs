//! `bowline serve`: from arguments to a master whose addresses are bound.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::{self, ExitCode},
    sync::mpsc,
    thread,
    time::Duration,
};

use bowline_names::ErrorCode;
use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};

use crate::{
    alerts, banner,
    charter::{ConfigFile, Door, Listener},
    cli::Typed,
    clock::{self, Clock},
    config::{self, Config, Overrides},
    failure::Failure,
    holder,
    instance::{Claim, ClaimError, Paths, Record, Standing, look, management},
    log, logfile,
    master::{Instance, Master},
};

/// What `bowline start` wants beside what `bowline serve` does.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// What it was started with, for `bowline restart`.
    pub(crate) typed: Typed,
}

/// How long the files that the configuration names are waited for.
const FILES_PATIENCE: Duration = Duration::from_millis(500);

/// Serves until told to stop.
///
/// The order is the point: what cannot be served is refused before anybody is told that it is, and
/// addresses are bound before anything is made, so that clients who come at once wait in the
/// backlog instead of being refused.
///
/// # Errors
/// Whatever kept it from starting, or ended it.
pub(crate) fn run(overrides: Overrides, daemon: Option<Daemon>) -> Result<ExitCode, Failure> {
    let clock = Clock::start();
    if daemon.is_some() {
        // Away from the terminal of whoever started it. Fails only where that is so already.
        let _ = setsid();
        // Nor is the directory that it was typed in kept busy: all paths are whole by now.
        let _ = std::env::set_current_dir("/");
    }
    let file = overrides.file.as_ref().map(|path| config::read_file(path)).transpose()?;
    let config = config::of_text(file.clone(), overrides.clone())?;
    look_at_files(&config, &overrides)?;
    raise_descriptor_limit();
    let listeners = bind(&config)?;
    let bound = clock.now();

    let started_unix_ms = clock::unix_ms();
    let management = management(daemon.is_some());
    let paths = Paths::of(config.server.state_dir.as_deref());
    let log_file = daemon.is_some().then(|| paths.log());
    let typed = daemon.map(|daemon| daemon.typed).unwrap_or_default();
    let record = Record {
        config_file: file.as_ref().map(|(path, _)| path.clone()),
        listeners: listeners.iter().map(|(listener, _)| *listener).collect(),
        control: paths.control(),
        log: log_file.clone(),
        arguments: typed.arguments,
        variables: typed.variables,
        ..Record::of_this_process(management, started_unix_ms)
    };
    let before = match look(&paths) {
        Standing::Stale(before) => Some(before),
        _ => None,
    };
    let instance = match settle(&paths, &record) {
        // Without a record of what runs the next server could not look after it.
        Err(error) if paths.explicit || log_file.is_some() || !config.services.0.is_empty() => {
            return Err(error.into());
        }
        settled => settled,
    };
    if let Some(path) = &log_file {
        logfile::capture(path)?;
    }
    log::start(&config.log.level, config.log.format);
    // People at a terminal see version and addresses, and gave the rest themselves.
    if log_file.is_some() || !io::stderr().is_terminal() {
        let config = record.config_file.as_ref().map(|path| path.display().to_string());
        let (version, config) = (env!("CARGO_PKG_VERSION"), config.as_deref());
        let (pid, management) = (process::id(), management.name());
        tracing::info!(version, pid, management, config, "bowline starts");
    }
    if let (Some(before), Ok(_)) = (before, &instance) {
        let started_ms = i64::try_from(before.started_ms).unwrap_or(i64::MAX);
        let started = Timestamp::from_millisecond(started_ms).unwrap_or(Timestamp::MAX);
        let words = "the server before this one ended without a word: killed, or the machine went \
                     down";
        tracing::warn!(pid = before.pid, %started, "{words}");
    }
    announce(&config, &listeners);
    if let Err(error) = &instance {
        let words = "serving without a control socket: `bowline status` will not find this server";
        tracing::info!(%error, "{words}");
    }
    let master = Master {
        clock,
        started_unix_ms,
        bind_seconds: bound.as_micros() as f64 / 1e6,
        overrides,
        file: file.map(|(path, text)| ConfigFile { path, text }),
        config,
        listeners,
        management,
        instance: instance.ok(),
    };
    master.run()
}

/// Refuses what no gateway could serve: a file that is named and cannot be read, or not used. One
/// that takes its time, as on a disk that is far away, is left to the gateway, which says what it
/// waits for.
fn look_at_files(config: &Config, overrides: &Overrides) -> Result<(), Failure> {
    let (tell, told) = mpsc::sync_channel(1);
    let (alerts, overrides) = (config.alerts.clone(), overrides.clone());
    let look = move || {
        let looked = alerts::load(&alerts)
            .and_then(|_| config::command::startable(overrides).map_err(Failure::from));
        // Nobody waits any more if it took too long.
        let _ = tell.send(looked);
    };
    let looking = thread::Builder::new().name("files".to_owned()).spawn(look);
    looking.map_err(|error| Failure::new(ErrorCode::StartFailed, error))?;
    told.recv_timeout(FILES_PATIENCE).unwrap_or(Ok(()))
}

/// Takes the instance directory and makes this process known there.
fn settle(paths: &Paths, record: &Record) -> Result<Instance, ClaimError> {
    let claim = Claim::take(paths)?;
    let control = claim.listen()?;
    claim.write(record)?;
    Ok(Instance { claim, control, record: record.clone() })
}

/// Takes as many descriptors as the system allows without asking: the soft limit is often 1,024,
/// for the sake of programs that use `select`, and `limits.connections` follows from it. The
/// gateway inherits it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If it is refused, the limit stays what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

fn bind(config: &Config) -> Result<Vec<(Listener, TcpListener)>, Failure> {
    doors(config).map(|(door, address)| listen(door, address)).collect()
}

/// Where a server with this configuration listens, and for whom.
pub(crate) fn doors(config: &Config) -> impl Iterator<Item = (Door, SocketAddr)> {
    let public = config.server.listen.iter().map(|address| (Door::Public, *address));
    let links = config.links.listens().then_some((Door::Links, config.links.listen));
    public.chain([(Door::Admin, config.admin.listen)]).chain(links)
}

/// Binds one address.
///
/// # Errors
/// Who has it, or what else the system says.
pub(crate) fn listen(door: Door, address: SocketAddr) -> Result<(Listener, TcpListener), Failure> {
    let bound = bowline_net::listen(address).and_then(|socket| {
        let address = socket.local_addr()?;
        Ok((Listener { door, address }, socket))
    });
    bound.map_err(|error| cannot_listen(door, address, &error))
}

fn cannot_listen(door: Door, address: SocketAddr, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::AddrInUse => ErrorCode::AddressInUse,
        io::ErrorKind::AddrNotAvailable => ErrorCode::AddressUnavailable,
        io::ErrorKind::PermissionDenied => ErrorCode::AddressDenied,
        _ => ErrorCode::ListenFailed,
    };
    // What the operator has to change to move the listener.
    let flag = match door {
        Door::Public => "--listen",
        Door::Admin => "--admin-listen",
        Door::Links => "links.listen",
    };
    let why = match holder::of(address) {
        Some(holder) if code == ErrorCode::AddressInUse => format!("it is held by {holder}"),
        _ => error.to_string(),
    };
    Failure::new(code, format!("cannot listen on {address} ({flag}): {why}"))
}

fn announce(config: &Config, listeners: &[(Listener, TcpListener)]) {
    let of = |door| {
        let matching = listeners.iter().filter(move |(listener, _)| listener.door == door);
        matching.map(|(listener, _)| listener.address).collect::<Vec<_>>()
    };
    let [public, admin, links] = [Door::Public, Door::Admin, Door::Links].map(of);
    if config.log.format.is_json() {
        let links = (!links.is_empty()).then(|| join(&links));
        tracing::info!(public = join(&public), admin = join(&admin), links, "listening");
    } else {
        let text = banner::text(config, &public, &admin, &links);
        // Nobody listens to stderr: then nobody misses it.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
