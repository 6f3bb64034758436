//! `cargo xtask bench` and `cargo xtask bench ai`: install the peers, build what is measured and hand over to `bench/`.

use std::{
    fs,
    path::{Path, PathBuf},
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

/// The provider that AI gateways are measured before.
const MOCK_PROVIDER: [&str; 7] =
    ["build", "--release", "--locked", "--package", "bowline-ai", "--example", "mock_provider"];

/// AI gateways of others, from PyPI; each with all that it needs stands in `bench/ai/NAME.txt`.
const AI_GATEWAYS: [&str; 3] = ["litellm", "vllm-router", "rolter"];

pub(crate) fn run(args: &[&str]) -> ExitCode {
    let (script, args, preparations): (_, _, &[fn() -> Outcome]) = match args {
        ["ai", args @ ..] => ("ai/run.mjs", args, &[ai_gateways, bowline, mock_provider]),
        args => ("run.mjs", args, &[python, peers, bowline, rooms]),
    };
    // What was measured before is shown without what it was measured with.
    let preparations = if args.contains(&"--report") { &[] } else { preparations };
    for prepare in [packages as fn() -> Outcome].iter().chain(preparations) {
        let outcome = prepare();
        if outcome.failed > 0 {
            println!("{}", outcome.output);
            return ExitCode::FAILURE;
        }
    }
    let status = Command::new("node").arg(script).args(args).current_dir(bench()).status();
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
    venv(".venv".as_ref(), "requirements.txt")
}

/// All of them, each apart: what one needs, another refuses.
fn ai_gateways() -> Outcome {
    let outcomes = AI_GATEWAYS.map(ai_gateway);
    let failed = outcomes.into_iter().find(|outcome| outcome.failed > 0);
    failed.unwrap_or_else(|| step::call("AI gateways", || Ok("they are installed".to_owned())))
}

/// One of [`AI_GATEWAYS`], in `target/bench/ai/NAME`.
pub(crate) fn ai_gateway(name: &str) -> Outcome {
    venv(&target().join("bench/ai").join(name), &format!("ai/{name}.txt"))
}

/// Python packages in a folder of their own; both paths are from `bench/`.
fn venv(folder: &Path, wanted: &str) -> Outcome {
    let stamp = folder.join("installed");
    if is_newer(&stamp, wanted) {
        return step::call("bench python", || Ok("the venv is up to date".to_owned()));
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(folder).current_dir(bench());
    let made = plain("bench venv", make);
    if made.failed > 0 {
        return made;
    }
    let mut install = Command::new(bench().join(folder).join("bin/pip"));
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

fn mock_provider() -> Outcome {
    plain("mock provider", cargo(&MOCK_PROVIDER))
}

fn bench() -> PathBuf {
    root().join("bench")
}

/// Whether one file has been written after another; paths are from `bench/`.
fn is_newer(file: impl AsRef<Path>, than: &str) -> bool {
    let written = |path: &Path| -> Option<SystemTime> {
        fs::metadata(bench().join(path)).ok()?.modified().ok()
    };
    written(file.as_ref()).is_some_and(|time| written(than.as_ref()).is_some_and(|it| time >= it))
}
