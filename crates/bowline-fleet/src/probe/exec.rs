//! Checks that are commands.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    time::Duration,
};

use super::{Finding, Surroundings, bounded, failed};
use crate::os::{
    ask::{Question, ask},
    program,
    user::Account,
};

/// Whether a command ends with code 0, with the words of its last line if not.
pub(super) async fn succeeds(
    command: &[OsString],
    surroundings: &Surroundings,
    timeout: Duration,
) -> Finding {
    let (command, surroundings) = (command.to_vec(), surroundings.clone());
    let asked = tokio::task::spawn_blocking(move || run(&command, &surroundings, timeout));
    match asked.await {
        Ok(Ok(())) => Finding::Ready,
        Ok(Err(words)) => failed(words),
        Err(error) => failed(format!("it could not be run: {error}")),
    }
}

fn run(command: &[OsString], surroundings: &Surroundings, timeout: Duration) -> Result<(), String> {
    let Some((name, arguments)) = command.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let account = surroundings.user.as_ref().map(Account::of).transpose()?;
    let here = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let directory = surroundings.directory.clone().unwrap_or_else(here);
    let environment = &surroundings.environment;
    let path = environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
    let program = program::find(name, &directory, path)?;
    let said = ask(&Question {
        program: &program,
        arguments,
        directory: &directory,
        environment,
        account: account.as_ref(),
        timeout,
    })?;
    let words = bounded(said.last_words());
    match said.status {
        None => Err(format!("it was not done within {} ms: {words}", timeout.as_millis())),
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with code {code}: {words}"),
            (None, signal) => format!("signal {} ended it: {words}", signal.unwrap_or_default()),
        }),
    }
}
