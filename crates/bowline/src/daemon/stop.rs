//! `bowline stop`: a drain, waited for.

use std::{io, thread, time::Duration};

use bowline_fleet::os::sweep::{Swept, sweep};
use bowline_names::{ErrorCode, Exit};
use http::Method;
use rustix::process::Signal;

use super::{
    paths,
    status::settled,
    view::View,
    words::{Progress, roughly, say},
};
use crate::{
    config::Overrides,
    control,
    failure::Failure,
    instance::{Claim, Paths, Record, Standing, look},
};

/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(25);

/// How often is asked how many clients are left.
const ASK: Duration = Duration::from_secs(1);

/// How long a server has to hear the first signal before the second cuts the drain: two at once
/// would count as one.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(300);

/// How to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    /// How long is waited for the end.
    pub(crate) wait: Duration,
    /// Whether clients are cut off instead of sent away.
    pub(crate) now: bool,
}

/// Stops the server; one that does not run is stopped.
///
/// # Errors
/// When this user may not, when it takes too long, or when it cannot be told whether one runs.
pub(crate) fn stop(overrides: &Overrides, ending: Ending) -> Result<Exit, Failure> {
    let paths = paths(overrides)?;
    match settled(&paths) {
        // Its record may have been swept away, and what it left behind not.
        Standing::Absent if paths.state.join("services").exists() => {
            let swept = clear(&paths)?;
            say(&nothing(&paths));
            tell_swept(&swept)?;
        }
        Standing::Absent => say(&nothing(&paths)),
        Standing::Stale(record) => {
            let swept = clear(&paths)?;
            say(&format!(
                "bowline is not running: its server, pid {}, had died without clearing up, which \
                 is done now",
                record.pid
            ));
            tell_swept(&swept)?;
        }
        Standing::Unknown(doubt) => return Err(doubt.into()),
        Standing::Running(record) => {
            let took = end(&paths, &record, ending)?;
            say(&format!("bowline has stopped: pid {}, after {}", record.pid, roughly(took)));
        }
    }
    Ok(Exit::Ok)
}

fn nothing(paths: &Paths) -> String {
    format!("bowline is not running: nothing to stop (looked in {})", paths.runtime.display())
}

/// Removes what a server left that died, and ends its services.
fn clear(paths: &Paths) -> Result<Swept, Failure> {
    // Dropping a claim clears up. Meanwhile no other server takes the services over.
    let claim = Claim::take(paths)?;
    let swept = sweep(&paths.state).map_err(|error| {
        let words = format!("cannot see what the server has left: {error}");
        Failure::new(ErrorCode::InstanceFailed, words)
    });
    drop(claim);
    swept
}

/// Says which services were ended.
fn tell_swept(swept: &Swept) -> Result<(), Failure> {
    for (service, processes) in &swept.ended {
        let processes =
            if *processes == 1 { "1 process".to_owned() } else { format!("{processes} processes") };
        say(&format!("its service {service} still ran and was ended: {processes}"));
    }
    if swept.left.is_empty() {
        return Ok(());
    }
    let message = format!("these do not end: {}", swept.left.join("; "));
    Err(Failure::new(ErrorCode::StopLate, message))
}

/// Tells a server to end and waits until it has; says how long it took.
pub(super) fn end(paths: &Paths, record: &Record, ending: Ending) -> Result<Duration, Failure> {
    let mut progress = Progress::begin();
    signal(record)?;
    let mut signals = 1;
    let mut asked = Duration::ZERO;
    let mut left = String::new();
    loop {
        match look(paths) {
            Standing::Absent => return Ok(progress.waited()),
            // Another one has taken the place.
            Standing::Running(other) if other.pid != record.pid => return Ok(progress.waited()),
            Standing::Stale(_) => {
                let message = format!("the server, pid {}, died while it was stopping", record.pid);
                return Err(Failure::new(ErrorCode::DiedStopping, message));
            }
            Standing::Running(_) | Standing::Unknown(_) => {}
        }
        let waited = progress.waited();
        if waited >= ending.wait {
            let pid = record.pid;
            let mut message =
                format!("the server, pid {pid}, still runs after {}", roughly(waited));
            if !left.is_empty() {
                message.push_str(&format!(": {left}"));
            }
            if ending.now {
                message
                    .push_str(&format!("; it does not react, and `kill -9 {pid}` is what is left"));
            }
            return Err(Failure::new(ErrorCode::StopLate, message));
        }
        if ending.now && signals < 2 && waited >= BETWEEN_SIGNALS {
            signal(record)?;
            signals += 1;
        }
        if waited >= asked + ASK {
            asked = waited;
            left = clients_left(record);
        }
        progress.show(|| match left.as_str() {
            "" => "draining".to_owned(),
            left => format!("draining: {left}"),
        });
        thread::sleep(LOOK);
    }
}

/// Sends the signal that drains, or says why that is not possible. One that has just ended needs
/// none.
fn signal(record: &Record) -> Result<(), Failure> {
    match record.signal(Signal::TERM) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            let code = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorCode::InstanceDenied,
                _ => ErrorCode::InstanceFailed,
            };
            Err(Failure::new(code, format!("cannot stop pid {}: {error}", record.pid)))
        }
    }
}

fn clients_left(record: &Record) -> String {
    let Ok(answer) = control::ask(&record.control, &Method::GET, "/api/v1/status", None) else {
        return String::new();
    };
    let view = View::of(&answer);
    if let Some(services) = view.services_left() {
        return services;
    }
    match (view.sessions, view.connections) {
        (Some(sessions), Some(connections)) => {
            format!("{sessions} sessions, {connections} connections left")
        }
        _ => String::new(),
    }
}
