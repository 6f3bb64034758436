//! The chores of the project: `cargo xtask test`, `tidy`, `sim`, `bench`, `guard`.
//!
//! Depends on the tables of names alone, so that it builds in a second on a bare machine.
#![expect(clippy::print_stdout, reason = "a command line tool: what it says is its output")]

mod bench;
mod clock;
mod guard;
mod names;
mod sim;
mod step;
mod test;
mod tidy;
mod tools;

use std::{env, path::PathBuf, process::ExitCode};

const HELP: &str = "\
cargo xtask COMMAND

  test [--long] [STEP…]   everything CI runs, or only the steps named; starts what it needs
                          --long adds the runs that take their time
  test --list             the steps
  tidy                    the rules that no compiler checks
  names                   writes docs/names.md from the tables in bowline-names
  sim [ARGS…]             seeded worlds of sessions that outlive their transports;
                          --broken all: whether they catch faults that are built in
  bench [ai] [ARGS…]      Bowline and its peers, measured in one run; `ai`: as a gateway to models
  guard                   instructions of the hot paths (callgrind), beside the last figures";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test", rest @ ..] => test::run(rest),
        ["tidy"] => tidy::run(),
        ["names"] => names::run(),
        ["sim", rest @ ..] => sim::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["guard", rest @ ..] => guard::run(rest),
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            println!("{HELP}");
            ExitCode::from(2)
        }
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(PathBuf::from).unwrap_or(here)
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
