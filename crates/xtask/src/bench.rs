//! `cargo xtask bench`: builds what is measured and hands over to `bench/`.

use std::process::{Command, ExitCode};

use crate::{
    root,
    test::{self, RELEASE_BUILD, Run},
};

pub(crate) fn run(args: &[&str]) -> ExitCode {
    let run = Run::default();
    let mut prepared = test::node(&run);
    prepared.extend(test::python(&run));
    prepared.push(test::plain("release build", test::cargo(&RELEASE_BUILD)));
    if let Some(failed) = prepared.iter().find(|outcome| outcome.failed > 0) {
        println!("{}", failed.output);
        return ExitCode::FAILURE;
    }
    let bench = root().join("bench");
    let status = Command::new("node").arg("run.mjs").args(args).current_dir(&bench).status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("node did not start in {}: {error}", bench.display());
            ExitCode::FAILURE
        }
    }
}
