//! `bowline reload`: the configuration again, nobody dropped.

use std::time::Duration;

use bowline_names::{ErrorCode, Exit};
use http::Method;
use serde_json::{Value, json};

use super::{paths, print, status::settled, words::say};
use crate::{
    config::Overrides,
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
    let keys = |name: &str| -> Vec<String> {
        let listed = answer.get(name).and_then(Value::as_array);
        let keys = listed.into_iter().flatten();
        keys.filter_map(|key| key.as_str().map(str::to_owned)).collect()
    };
    for line in words(&keys("applied"), &keys("restart")) {
        say(&line);
    }
    Ok(Exit::Ok)
}

/// What is said when all keys are as they were. The files may be others all the same.
const UNCHANGED: &str = "reloaded: no key has changed; the files that are named (certificate, tokens, …) were read again";

fn words(applied: &[String], restart: &[String]) -> Vec<String> {
    if applied.is_empty() && restart.is_empty() {
        return vec![UNCHANGED.to_owned()];
    }
    let mut lines = vec![if applied.is_empty() {
        "reloaded: nothing could be applied to the running server".to_owned()
    } else {
        format!("reloaded, in force now: {}", applied.join(", "))
    }];
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
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        assert_eq!(words(&[], &[]), [UNCHANGED]);
        assert_eq!(
            words(&keys(&["log.level", "engine.path"]), &keys(&["server.listen"])),
            [
                "reloaded, in force now: log.level, engine.path",
                "needs `bowline restart`: server.listen"
            ]
        );
    }
}
