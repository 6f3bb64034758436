//! `bowline reload`: the configuration again, nobody dropped.

use std::time::Duration;

use bowline_names::{ErrorCode, Exit};
use http::Method;
use serde::Deserialize as _;
use serde_json::json;

use super::{paths, print, status::settled, words::say};
use crate::{
    config::{Changes, Overrides},
    control,
    failure::Failure,
    instance::{Paths, Record, Standing},
};

/// How long the answer may take: the master waits for a gateway that starts, and for one that reads
/// certificates or asks a busy shard, and asks the next one if it ends meanwhile.
const PATIENCE: Duration = Duration::from_secs(100);

/// Has the server read its file again and says what came of it.
///
/// # Errors
/// When none runs, and when the file has mistakes: then the server goes on with what it had.
pub(crate) fn reload(overrides: &Overrides, json: bool) -> Result<Exit, Failure> {
    let paths = paths(overrides)?;
    let record = running(&paths)?;
    let target = "/api/v1/reload";
    let body = Some(&json!({}));
    let answer = control::ask_within(PATIENCE, &record.control, &Method::POST, target, body)?;
    if json {
        return Ok(print(&format!("{answer:#}\n")));
    }
    let changes = Changes::deserialize(&answer).map_err(|error| {
        let message = format!("the server's answer is not understood: {error}");
        Failure::new(ErrorCode::ControlSilent, message)
    })?;
    for line in words(&changes) {
        say(&line);
    }
    Ok(Exit::Ok)
}

/// What is said when all keys are as they were. The files may be others all the same.
const UNCHANGED: &str = "reloaded: no key has changed; the files that are named (certificate, tokens, …) were read again";

fn words(changes: &Changes) -> Vec<String> {
    let Changes { applied, restart, tables } = changes;
    if applied.is_empty() && restart.is_empty() {
        return vec![UNCHANGED.to_owned()];
    }
    let mut lines = vec![match changes.plain() {
        _ if applied.is_empty() => {
            "reloaded: nothing could be applied to the running server".to_owned()
        }
        plain if plain.is_empty() => "reloaded, in force now:".to_owned(),
        plain => format!("reloaded, in force now: {}", plain.join(", ")),
    }];
    lines.extend(tables.iter().map(|(kind, tables)| format!("  {kind}: {tables}")));
    if !restart.is_empty() {
        lines.push(format!("needs `bowline restart`: {}", restart.join(", ")));
    }
    lines
}

/// The server that runs, or the failure that none does.
pub(crate) fn running(paths: &Paths) -> Result<Record, Failure> {
    let place = paths.runtime.display();
    match settled(paths) {
        Standing::Running(record) => Ok(record),
        Standing::Unknown(doubt) => Err(doubt.into()),
        Standing::Absent => Err(Failure::new(
            ErrorCode::NotRunning,
            format!("bowline is not running (looked in {place})"),
        )),
        Standing::Stale(record) => Err(Failure::new(
            ErrorCode::NotRunning,
            format!("bowline is not running: its server, pid {}, died", record.pid),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_names_what_is_in_force_and_what_waits() {
        let of = |changes| words(&Changes::deserialize(changes).unwrap());
        assert_eq!(of(json!({"applied": [], "restart": []})), [UNCHANGED]);
        let applied = ["log.level", "engine.path"];
        assert_eq!(
            of(json!({"applied": applied, "restart": ["server.listen"]})),
            [
                "reloaded, in force now: log.level, engine.path",
                "needs `bowline restart`: server.listen"
            ]
        );
        let links = json!({"added": ["a"], "changed": {"b": ["url"]}, "removed": ["c"]});
        let applied = ["links.*.profile", "links.*.url"];
        assert_eq!(
            of(json!({"applied": applied, "restart": [], "tables": {"links": links}})),
            ["reloaded, in force now:", "  links: added a; changed b (url); removed c"]
        );
    }
}
