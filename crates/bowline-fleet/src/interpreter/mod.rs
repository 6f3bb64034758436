//! The Python or the Node that can run a service: which, and the proof that it can.
//!
//! A daemon that starts with the interpreter of another project fails on its first import, minutes later
//! and far from the cause. So the interpreter is chosen by what surrounds the service, and runs once
//! before the service does: it says its version, reads the entry's syntax tree and looks for what the
//! entry imports. Nothing of the user's is executed by that.

mod node;
mod pins;
mod python;
mod tree;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    limit::PROOF,
    os::{
        ask::{Question, Said, ask},
        user::Account,
    },
    probe::Surroundings,
    spec::{Interpreter, Run, Service},
};

/// An interpreter that can run a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The program: for a virtual environment its own, which is what makes it one.
    pub program: PathBuf,
    /// What it is, with its version: `Python 3.11.7`.
    pub version: String,
    /// Why it is this one: `.venv of /srv/bot`.
    pub why: String,
    /// What works, but may not for long; a sentence each.
    pub warnings: Vec<String>,
    /// Goes over the environment of the service.
    pub environment: BTreeMap<OsString, OsString>,
    /// What is executed: the program and its arguments.
    pub command: Vec<OsString>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; {})", self.program.display(), self.version, self.why)
    }
}

/// Why a service cannot be run by any interpreter, or not by the one that speaks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong, with the interpreter and why it was chosen.
    pub words: String,
    /// The modules or packages that it cannot find.
    pub missing: Vec<String>,
    /// What to do.
    pub remedy: String,
}

impl Wrong {
    fn new(words: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { words: words.into(), missing: Vec::new(), remedy: remedy.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.words, self.remedy)
    }
}

impl std::error::Error for Wrong {}

/// Chooses the interpreter of a service and proves it; `None` for a service that needs none. The
/// environment in `surroundings` is that of the service.
///
/// Blocks for as long as the interpreter runs: usually 50 ms, at most
/// [`PROOF`](crate::limit::PROOF) for each program that is asked.
///
/// # Errors
/// When there is no interpreter, when it is broken, when its version is not the one that the service
/// asks for, when the entry is not there or no program in its language, when what it imports cannot be
/// found.
pub fn resolve(service: &Service, surroundings: &Surroundings) -> Result<Option<Choice>, Wrong> {
    match &service.interpreter {
        Interpreter::None => Ok(None),
        Interpreter::Python(which) => python::resolve(service, which, surroundings).map(Some),
        Interpreter::Node(which) => node::resolve(service, which, surroundings).map(Some),
    }
}

/// Runs a program as the service would be run.
fn run(
    program: &Path,
    arguments: &[OsString],
    surroundings: &Surroundings,
) -> Result<Said, String> {
    let account = surroundings.user.as_ref().map(Account::of).transpose()?;
    ask(&Question {
        program,
        arguments,
        directory: &directory(surroundings),
        environment: &surroundings.environment,
        account: account.as_ref(),
        timeout: PROOF,
    })
}

/// Where the service begins: its directory, or Bowline's.
fn directory(surroundings: &Surroundings) -> PathBuf {
    let here = || std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    match &surroundings.directory {
        Some(directory) if directory.is_absolute() => directory.clone(),
        Some(directory) => here().join(directory),
        None => here(),
    }
}

/// The arguments behind what runs.
fn arguments(run: &Run) -> &[OsString] {
    match run {
        Run::Command(command) => command.get(1..).unwrap_or_default(),
        Run::Script { args, .. } | Run::Module { args, .. } => args,
    }
}

/// `PATH` with a directory before all others.
fn path_with(first: &Path, environment: &BTreeMap<OsString, OsString>) -> OsString {
    let mut path = OsString::from(first);
    if let Some(rest) = environment.get(OsStr::new("PATH")).filter(|it| !it.is_empty()) {
        path.push(":");
        path.push(rest);
    }
    path
}
