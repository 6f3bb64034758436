//! Runs a program for its answer: proofs of interpreters, `exec` checks.
//!
//! These are children of the thread that asks and stay in this process's session, by which
//! [`reap_left`](super::sweep::reap_left) knows that they are not its own to wait for.

use std::{
    ffi::OsString,
    os::{fd::BorrowedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use bowline_proto::Time;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::{environment::Environment, program, user::Account};
use crate::{clock::Clock, limit::ANSWER_BYTES};

/// What is run.
#[derive(Debug)]
pub struct Question<'a> {
    /// The file to be executed.
    pub program: &'a Path,
    /// Its arguments, without its name.
    pub arguments: &'a [OsString],
    /// Where it runs.
    pub directory: &'a Path,
    /// All of its environment.
    pub environment: &'a Environment,
    /// Who it runs as. Default who this process does.
    pub account: Option<&'a Account>,
    /// When it is ended, with all of its group.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Said {
    /// What it printed, up to [`ANSWER_BYTES`].
    pub stdout: Vec<u8>,
    /// What it printed as errors, up to the same.
    pub stderr: Vec<u8>,
    /// How it ended; `None` if it was not done in time.
    pub status: Option<ExitStatus>,
}

impl Said {
    /// The last line that says anything, of its errors if there is one: programs put the error itself
    /// there.
    pub fn last_words(&self) -> String {
        let last = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let line = text.lines().rev().find(|line| !line.trim().is_empty());
            line.map(|line| line.trim().to_owned())
        };
        last(&self.stderr).or_else(|| last(&self.stdout)).unwrap_or("it said nothing".to_owned())
    }
}

/// Runs it and waits for its end. Blocks for at most its timeout.
///
/// # Errors
/// In words: it cannot be executed.
pub fn ask(question: &Question<'_>) -> Result<Said, String> {
    let mut command = Command::new(question.program);
    command
        .args(question.arguments)
        .current_dir(question.directory)
        .env_clear()
        .envs(question.environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it starts can be ended with it.
        .process_group(0);
    if let Some(account) = question.account {
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    let mut child = command.spawn().map_err(|error| match error.raw_os_error() {
        Some(errno) => program::refused(question.program, question.account, errno),
        None => format!("{} cannot be executed: {error}", question.program.display()),
    })?;
    let (stdout, stderr, ended) = read(&mut child, question.timeout);
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It has not been waited for, so that the number is its own still.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait().ok().filter(|_| ended);
    Ok(Said { stdout, stderr, status })
}

/// Reads until the process has ended, whoever else may hold its pipes.
fn read(child: &mut Child, timeout: Duration) -> (Vec<u8>, Vec<u8>, bool) {
    use std::os::fd::AsFd as _;

    let clock = Clock::start();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return (out, err, false);
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(end) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return (out, err, false);
    };
    let mut open = [true, true];
    loop {
        let left = timeout.checked_sub(clock.now().since(Time::ZERO));
        let Some(left) = left.and_then(|left| Timespec::try_from(left).ok()) else {
            return (out, err, false);
        };
        // A pipe that is at its end would wake every poll, whatever it is asked for.
        let first = if open[0] { stdout.as_fd() } else { end.as_fd() };
        let second = if open[1] { stderr.as_fd() } else { end.as_fd() };
        let mut fds =
            [first, second, end.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return (out, err, false),
        }
        let [in_out, in_err, ended] = fds.map(|fd| !fd.revents().is_empty());
        if open[0] && in_out {
            open[0] = take(stdout.as_fd(), &mut out);
        } else if open[1] && in_err {
            open[1] = take(stderr.as_fd(), &mut err);
        } else if ended {
            return (out, err, true);
        }
    }
}

/// Reads once and says whether there may be more. What is above the bound is let go, so that nobody
/// waits for room.
fn take(pipe: BorrowedFd<'_>, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match rustix::io::read(pipe, &mut buffer) {
        Ok(0) => false,
        Ok(read) => {
            let room = ANSWER_BYTES.saturating_sub(into.len());
            into.extend_from_slice(&buffer[..read.min(room)]);
            true
        }
        Err(error) => error == Errno::INTR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Said {
        let question = Question {
            program: Path::new("/bin/sh"),
            arguments: &["-c".into(), script.into()],
            directory: Path::new("/"),
            environment: &Environment::new(),
            account: None,
            timeout,
        };
        ask(&question).unwrap()
    }

    #[test]
    fn an_answer_has_what_was_printed_and_how_it_ended() {
        let said = sh("echo yes; echo no >&2; exit 3", Duration::from_secs(30));
        assert_eq!((&*said.stdout, &*said.stderr), (&b"yes\n"[..], &b"no\n"[..]));
        assert_eq!(said.status.unwrap().code(), Some(3));
        assert_eq!(said.last_words(), "no");
    }

    #[test]
    fn nobody_waits_for_what_it_left_behind() {
        let said = sh("sleep 1000 & echo done", Duration::from_secs(30));
        assert!(said.status.unwrap().success());
        assert_eq!(said.stdout, b"done\n");
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        assert_eq!(sh("sleep 1000", Duration::from_millis(50)).status, None);
    }

    #[test]
    fn a_flood_is_read_up_to_the_bound() {
        let said = sh("head -c 1000000 /dev/zero", Duration::from_secs(30));
        assert_eq!(said.stdout.len(), ANSWER_BYTES);
        assert!(said.status.unwrap().success());
    }
}
