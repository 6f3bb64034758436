//! `bowline status`: what is so.

use std::{thread, time::Duration};

use bowline_fleet::os::{
    place::{self, Place},
    process::Process,
};
use bowline_names::Exit;
use http::Method;
use serde_json::{Value, json};

use super::{
    paths, print,
    view::View,
    words::{colours_on_stdout, say},
};
use crate::{
    config::Overrides,
    control,
    failure::Failure,
    instance::{Paths, Record, Standing, look},
};

/// How long a server may be between two of the steps by which it starts or ends.
const SETTLING: Duration = Duration::from_millis(500);

/// Shows how the server stands.
///
/// # Errors
/// When the file that says where to look cannot be read.
pub(crate) fn status(overrides: &Overrides, json: bool) -> Result<Exit, Failure> {
    let paths = paths(overrides)?;
    let place = paths.runtime.display().to_string();
    let exit = match settled(&paths) {
        Standing::Running(record) => return Ok(running(&record, json)),
        Standing::Stale(record) => {
            let mut words = format!(
                "bowline is not running: its server, pid {}, died without clearing up\n",
                record.pid
            );
            let services = living_services(&paths);
            if !services.is_empty() {
                words.push_str(&format!(
                    "  its services still run: {}; `bowline start` takes them over, `bowline stop` ends them\n",
                    services.join(", ")
                ));
            }
            let mut object = object(&record);
            object["state"] = "dead".into();
            object["services"] = json!(services);
            tell(json, object, &words);
            Exit::Failed
        }
        Standing::Absent => {
            let object = json!({ "state": "stopped", "state_dir": place });
            tell(json, object, &format!("bowline is not running (looked in {place})\n"));
            if let Some(other) = paths.of_the_system() {
                say(&format!(
                    "  the system has a place for one too, {}: ask as root",
                    other.display()
                ));
            }
            Exit::NotRunning
        }
        Standing::Unknown(doubt) => {
            let reason = doubt.to_string();
            let object = json!({ "state": "unknown", "state_dir": place, "reason": reason });
            tell(json, object, &format!("cannot tell whether bowline is running: {reason}\n"));
            Exit::Unknown
        }
    };
    Ok(exit)
}

/// The services that a dead server has left and that still run.
fn living_services(paths: &Paths) -> Vec<String> {
    let places = Place::all(&paths.state).unwrap_or_default();
    let lives = |record: &place::Record| {
        record.of_this_boot()
            && record.leader.is_some_and(|leader| matches!(Process::find(leader), Ok(Some(_))))
    };
    let mut names: Vec<String> = (places.into_iter())
        .filter(|(_, record)| lives(record))
        .map(|(_, record)| record.service)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Looks, and waits a moment for a server that starts or ends just now.
pub(super) fn settled(paths: &Paths) -> Standing {
    const PAUSE: Duration = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match look(paths) {
            Standing::Unknown(doubt) if doubt.may_pass() && waited < SETTLING => {
                thread::sleep(PAUSE);
                waited += PAUSE;
            }
            standing => return standing,
        }
    }
}

fn running(record: &Record, json: bool) -> Exit {
    let log = record.log.as_ref().map(|path| path.display().to_string());
    match control::ask(&record.control, &Method::GET, "/api/v1/status", None) {
        Ok(mut answer) => {
            if json {
                answer["log"] = json!(log);
                print(&format!("{answer:#}\n"));
            } else {
                print(&View::of(&answer).text(log.as_deref(), colours_on_stdout()));
            }
            Exit::Ok
        }
        Err(error) => {
            let mut object = object(record);
            object["state"] = "unknown".into();
            object["reason"] = error.to_string().into();
            let words = format!(
                "bowline {} has a process, pid {}, but it does not say how it is\n",
                record.version, record.pid
            );
            tell(json, object, &words);
            if !json {
                say(&format!("  {error}"));
            }
            Exit::Unknown
        }
    }
}

fn tell(json: bool, object: Value, words: &str) {
    print(&if json { format!("{object:#}\n") } else { words.to_owned() });
}

/// What the record says, with the names of the API.
fn object(record: &Record) -> Value {
    json!({
        "pid": record.pid,
        "version": record.version,
        "management": record.management.name(),
        "config_file": record.config_file,
        "state_dir": record.control.parent(),
        "log": record.log,
    })
}
