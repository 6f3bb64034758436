//! `cargo xtask bench`: installs the peers, builds what is measured and hands over to `bench/`.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::SystemTime,
};

use crate::{
    root,
    step::{self, Outcome},
    target,
    test::{cargo, plain},
};

/// What is measured, and the load tool, which is in it.
const BOWLINE: [&str; 5] = ["build", "--release", "--locked", "--package", "bowline"];

/// Bowline's server with rooms, which `bowline serve` has only with an app behind it.
const ROOMS: [&str; 7] =
    ["build", "--release", "--locked", "--package", "bowline-net", "--example", "rooms"];

pub(crate) fn run(args: &[&str]) -> ExitCode {
    // What was measured before is shown without what it was measured with.
    let preparations: &[fn() -> Outcome] = if args.contains(&"--report") {
        &[packages]
    } else {
        &[packages, python, peers, bowline, rooms]
    };
    for prepare in preparations {
        let outcome = prepare();
        if outcome.failed > 0 {
            println!("{}", outcome.output);
            return ExitCode::FAILURE;
        }
    }
    let status = Command::new("node").arg("run.mjs").args(args).current_dir(bench()).status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("node did not start in {}: {error}", bench().display());
            ExitCode::FAILURE
        }
    }
}

/// Socket.IO, and what draws the chart.
pub(crate) fn packages() -> Outcome {
    let (installed, wanted) = ("node_modules/.package-lock.json", "package-lock.json");
    if is_newer(installed, wanted) {
        return step::call("bench node", || Ok("node_modules is up to date".to_owned()));
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--no-audit", "--no-fund"]).current_dir(bench());
    plain("bench node", command)
}

/// python-socketio.
fn python() -> Outcome {
    let (stamp, wanted) = (".venv/installed", "requirements.txt");
    if is_newer(stamp, wanted) {
        return step::call("bench python", || Ok("the venv is up to date".to_owned()));
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", ".venv"]).current_dir(bench());
    let made = plain("bench venv", make);
    if made.failed > 0 {
        return made;
    }
    let mut install = Command::new(bench().join(".venv/bin/pip"));
    install.args(["install", "--disable-pip-version-check", "--quiet", "-r", wanted]);
    install.current_dir(bench());
    let installed = plain("bench python", install);
    if installed.failed == 0 {
        // Without the stamp the next run installs once more.
        let _ = fs::write(bench().join(stamp), "");
    }
    installed
}

/// The floor, socketioxide, and the app behind HTTP: a workspace of their own.
fn peers() -> Outcome {
    let mut command = cargo(&["build", "--release", "--locked", "--target-dir"]);
    command.arg(target().join("peers")).current_dir(bench().join("peers"));
    plain("bench peers", command)
}

fn bowline() -> Outcome {
    plain("bowline", cargo(&BOWLINE))
}

fn rooms() -> Outcome {
    plain("bowline rooms", cargo(&ROOMS))
}

fn bench() -> PathBuf {
    root().join("bench")
}

/// Whether one file in `bench/` has been written after another.
fn is_newer(file: &str, than: &str) -> bool {
    let written = |path: &str| -> Option<SystemTime> {
        fs::metadata(bench().join(path)).ok()?.modified().ok()
    };
    written(file).is_some_and(|time| written(than).is_some_and(|other| time >= other))
}
