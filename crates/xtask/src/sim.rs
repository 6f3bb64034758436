//! `cargo xtask sim`: seeded worlds of sessions that outlive their transports, of services, and of links, and the faults
//! that they must catch.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use crate::{root, target, test};

/// How many worlds a run has if nothing else is said.
const SEEDS: u64 = 1_000;

/// How many worlds a fault may take to be caught.
const SEEDS_TO_CATCH: u64 = 1_000;

/// Faults that the hub is built with on purpose: `cfg!(bowline_broken = "…")` in bowline-proto.
const FAULTS: [&str; 5] =
    ["cursor-on-pong", "ping-overtakes", "pid-not-moved", "pong-per-transport", "replay-except"];

/// The same for the plan of services in bowline-fleet.
const FLEET_FAULTS: [&str; 3] = ["need-not-ready", "start-on-exit", "stop-before-start"];

/// The same for the keeper of links in bowline-proto.
const LINK_FAULTS: [&str; 4] =
    ["catch-up-from-now", "old-end-forgets-new", "unsafe-on-pooled", "use-before-proof"];

const USAGE: &str = "\
usage: cargo xtask sim [--seeds COUNT] [--from SEED] [--seed SEED] [--trace] [--engine | --fleet | --links]
                       [--broken NAME|all]

  --broken  builds the hub with a fault and wants it caught: cursor-on-pong, ping-overtakes,
            pid-not-moved, pong-per-transport, replay-except
            with --fleet: need-not-ready, start-on-exit, stop-before-start
            with --links: catch-up-from-now, old-end-forgets-new, unsafe-on-pooled, use-before-proof
  --engine  the worlds of one hub and its transports instead
  --fleet   the worlds of services instead
  --links   the worlds of connections to services elsewhere: eight idle hours and a failure, a quiet
            day, and whatever else goes wrong";

pub(crate) fn run(args: &[&str]) -> ExitCode {
    let mut world = "continuity";
    let mut seeds = None;
    let mut broken = None;
    let mut passed_on = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match *word {
            "--engine" => world = "engine",
            "--fleet" => world = "fleet",
            "--links" => world = "links",
            "--trace" | "--no-shrink" => passed_on.push((*word).to_owned()),
            "--seeds" | "--from" | "--seed" | "--jobs" | "--broken" => {
                let Some(value) = words.next() else {
                    println!("{word} needs a value\n{USAGE}");
                    return ExitCode::from(2);
                };
                match *word {
                    "--broken" => broken = Some(*value),
                    "--seeds" => seeds = Some((*value).to_owned()),
                    _ => passed_on.extend([(*word).to_owned(), (*value).to_owned()]),
                }
            }
            _ => {
                println!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let Some(broken) = broken else {
        let seeds = seeds.unwrap_or_else(|| SEEDS.to_string());
        return match sim(None, world, &seeds, &passed_on) {
            Ok(_) => ExitCode::SUCCESS,
            Err(said) => fail(&said),
        };
    };
    let known: &[&str] = match world {
        "fleet" => &FLEET_FAULTS,
        "links" => &LINK_FAULTS,
        _ => &FAULTS,
    };
    let named = |fault: &&str| broken == "all" || broken == *fault;
    let faults: Vec<&str> = known.iter().copied().filter(named).collect();
    if faults.is_empty() {
        println!("no fault is called {broken}\n{USAGE}");
        return ExitCode::from(2);
    }
    let seeds = seeds.unwrap_or_else(|| SEEDS_TO_CATCH.to_string());
    passed_on.push("--no-shrink".to_owned());
    let mut missed = Vec::new();
    for fault in faults {
        match sim(Some(fault), world, &seeds, &passed_on) {
            Err(said) => match caught_by(&said) {
                Some(line) => println!("{fault}: caught by {line}"),
                None => return fail(&said),
            },
            Ok(_) => {
                println!("{fault}: not caught within {seeds} seeds");
                missed.push(fault);
            }
        }
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds the worlds, with a fault or without, and runs them. What a run with a fault says is given
/// back; otherwise it goes to the terminal.
fn sim(fault: Option<&str>, world: &str, seeds: &str, more: &[String]) -> Result<String, String> {
    let mut build = test::cargo(&[
        "build",
        "--profile",
        "sim",
        "--locked",
        "-p",
        "bowline-sim",
        "--bin",
        "world",
    ]);
    let mut folder = target();
    if let Some(fault) = fault {
        // In a folder of its own, so that nothing else is ever built with it. A wrapper instead of
        // RUSTFLAGS: what is not ours is built once for all faults.
        folder = folder.join("broken");
        let wrapper = wrapper(&folder, fault).map_err(|error| format!("no wrapper: {error}"))?;
        build.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
        build.env("CARGO_TARGET_DIR", &folder);
    }
    match build.status() {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("the build failed: {status}")),
        Err(error) => return Err(format!("cargo did not start: {error}")),
    }
    let mut command = Command::new(folder.join("sim").join("world"));
    command.args([world, "--seeds", seeds]).args(more).current_dir(root());
    if fault.is_some() {
        command.stdout(Stdio::piped());
    }
    let ended = command.spawn().and_then(std::process::Child::wait_with_output);
    let output = ended.map_err(|error| format!("the worlds did not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Writes a program that runs rustc with a fault switched on.
fn wrapper(folder: &Path, fault: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("rustc-{fault}"));
    let script = format!("#!/bin/sh\nexec \"$@\" --cfg 'bowline_broken=\"{fault}\"'\n");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The line that names the seed which fell.
fn caught_by(said: &str) -> Option<&str> {
    said.lines().rev().find(|line| line.starts_with("seed ") && line.contains("FAILED"))
}

fn fail(said: &str) -> ExitCode {
    if !said.is_empty() {
        println!("{said}");
    }
    ExitCode::FAILURE
}
