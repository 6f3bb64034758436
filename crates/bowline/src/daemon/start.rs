//! `bowline start`: a server that goes on when this command has ended.

use std::{
    env,
    io::{self, Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use bowline_names::{ErrorCode, Exit};
use http::Method;

use super::{
    configuration,
    logs::{is_bad_news, readable},
    status::settled,
    view::View,
    words::{Progress, roughly, say},
};
use crate::{
    charter::Management,
    cli::Typed,
    config::Overrides,
    control,
    failure::Failure,
    instance::{Paths, Record, Standing, look},
};

/// How often is looked how far it is.
const LOOK: Duration = Duration::from_millis(20);

/// How long the last words of a server that ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How much of what a server says before it ends is repeated.
const WORDS_BYTES_MAX: u64 = 64 * 1024;

/// The flag of `serve` that makes it a daemon's server.
pub(crate) const DAEMON_FLAG: &str = "--daemon";

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) overrides: Overrides,
    /// What the server is told.
    pub(crate) typed: Typed,
    /// How long the first answer is waited for.
    pub(crate) wait: Duration,
}

/// Starts a server and waits until it has answered a client; one that runs has been started.
///
/// # Errors
/// What kept the server from starting, in its own words and with its own code, or that it takes
/// too long.
pub(crate) fn start(launch: &Launch) -> Result<Exit, Failure> {
    let (_, paths) = configuration(&launch.overrides)?;
    match settled(&paths) {
        Standing::Running(record) => Ok(running_already(&record, launch)),
        Standing::Unknown(doubt) => Err(doubt.into()),
        Standing::Stale(record) => {
            say(&format!(
                "the server before this one, pid {}, died without clearing up",
                record.pid
            ));
            begin(launch, &paths)
        }
        Standing::Absent => begin(launch, &paths),
    }
}

/// Starts a server where none runs.
pub(super) fn begin(launch: &Launch, paths: &Paths) -> Result<Exit, Failure> {
    let failed = |error: io::Error| {
        Failure::new(ErrorCode::StartFailed, format!("cannot run the server: {error}"))
    };
    let mut progress = Progress::begin();
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    command.arg("serve").arg(DAEMON_FLAG).args(&launch.typed.arguments);
    command.envs(&launch.typed.variables);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let words = listen(&mut child);
    let mut waits_for = "the server to take its directory".to_owned();
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            drop(progress);
            // Somebody else may have been faster.
            if let Standing::Running(record) = settled(paths) {
                return Ok(running_already(&record, launch));
            }
            return ended(status, &words);
        }
        if let Standing::Running(record) = look(paths)
            && record.pid == child.id()
            && let Ok(answer) = control::ask(&record.control, &Method::GET, "/api/v1/status", None)
        {
            let view = View::of(&answer);
            if view.gateway.answered {
                let took = progress.waited();
                drop(progress);
                started(&record, &view, took);
                return Ok(Exit::Ok);
            }
            waits_for = view.waits_for();
            if let Some(end) = view.gateway.last_end {
                let times = view.gateway.restarts.total;
                waits_for = format!("{waits_for}; started again {times} times, {end}");
            }
        }
        let waited = progress.waited();
        if waited >= launch.wait {
            drop(progress);
            let message = format!(
                "the server, pid {}, has not answered a client within {}: {waits_for}",
                child.id(),
                roughly(waited)
            );
            return Err(Failure::new(ErrorCode::StartLate, message));
        }
        progress.show(|| format!("starting: {waits_for}"));
        thread::sleep(LOOK);
    }
}

fn running_already(record: &Record, launch: &Launch) -> Exit {
    let (pid, management) = (record.pid, record.management.name());
    say(&format!("bowline is running already: pid {pid}, {management}"));
    let unused = unused(record, &launch.typed);
    if !unused.is_empty() {
        let remedy = match record.management {
            Management::Daemon => "; `bowline restart` with them uses them",
            Management::Foreground | Management::Systemd => "",
        };
        say(&format!("  not used  {}{remedy}", unused.join(" ")));
    }
    Exit::Ok
}

/// What the server that runs was not told. Where it is, is how it was found.
fn unused(record: &Record, typed: &Typed) -> Vec<String> {
    let config = record.config_file.as_ref().map(|path| format!("--config={}", path.display()));
    let has = Typed { arguments: record.arguments.clone(), variables: record.variables.clone() };
    let has = has.flags();
    let is_news = |flag: &String| {
        !has.contains(flag) && config.as_ref() != Some(flag) && !flag.starts_with("--state-dir=")
    };
    typed.flags().into_iter().filter(is_news).collect()
}

/// Says what runs now, and where.
fn started(record: &Record, view: &View, took: Duration) {
    say(&format!(
        "bowline has started: pid {}, answered a client after {}",
        record.pid,
        roughly(took)
    ));
    for (door, url) in view.doors() {
        say(&format!("  {door:<9} {url}"));
    }
    if let Some(log) = &record.log {
        say(&format!("  log       {}", log.display()));
    }
    if let Some(parts) = view.unready() {
        say(&format!("  not ready {parts}"));
    }
}

/// Listens to what the server says before it has its log file, and after, until somebody stops
/// listening.
fn listen(child: &mut Child) -> mpsc::Receiver<Vec<u8>> {
    let (said, words) = mpsc::sync_channel(1);
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What cannot be read has not been said.
            let _ = Read::take(stderr, WORDS_BYTES_MAX).read_to_end(&mut bytes);
            let _ = said.send(bytes);
        });
    }
    words
}

/// The server ended before it had answered: its words and its exit code become ours.
fn ended(status: ExitStatus, words: &mpsc::Receiver<Vec<u8>>) -> Result<Exit, Failure> {
    let bytes = words.recv_timeout(LAST_WORDS).unwrap_or_default();
    let said: String = String::from_utf8_lossy(&bytes)
        .lines()
        .filter(|line| is_bad_news(line))
        .map(|line| readable(line, false).unwrap_or_else(|| format!("{line}\n")))
        .collect();
    // There is nobody left to tell if stderr is closed.
    let _ = io::stderr().write_all(said.as_bytes());
    let code = match (status.code(), status.signal()) {
        (Some(0), _) => {
            let message = "the server was told to stop before it had answered a client";
            return Err(Failure::new(ErrorCode::StartFailed, message));
        }
        (Some(code), _) => code,
        (None, signal) => {
            let message = format!(
                "the server was killed by signal {} while it started",
                signal.unwrap_or_default()
            );
            return Err(Failure::new(ErrorCode::StartFailed, message));
        }
    };
    let known = Exit::ALL.into_iter().find(|exit| i32::from(exit.code()) == code);
    Ok(known.unwrap_or(Exit::Failed))
}
