//! The commands that look after a server that runs elsewhere: `start`, `stop`, `restart`,
//! `status`, `logs`, `reload`, and the text of a unit for whoever else shall look after it.
//!
//! They find the server by its instance directory and ask it over its control socket. Data goes to
//! stdout, words to stderr; every end has its exit code in `bowline-names`.

mod command;
mod link;
mod logs;
mod reload;
mod restart;
mod service;
mod start;
mod status;
mod stop;
mod unit;
mod view;
mod words;

use std::io::{self, Write as _};

use bowline_names::{ErrorCode, Exit};

pub(crate) use command::{Command, Place, run};
pub(crate) use reload::running;
use start::Launch;
pub(crate) use words::roughly;

use crate::{
    config::{self, Config, Overrides},
    failure::Failure,
    instance::{Doubt, Paths},
};

/// Finds the instance directory for a command that only asks. The file is read for the sake of
/// `server.state-dir` alone: a server that runs is not hidden by a mistake that somebody has
/// written into its file since.
pub(crate) fn paths(overrides: &Overrides) -> Result<Paths, Failure> {
    let state_dir = config::state_dir(overrides)?;
    Ok(Paths::of(state_dir.as_deref()))
}

/// Reads the configuration for a command that will start a server.
fn configuration(overrides: &Overrides) -> Result<(Config, Paths), Failure> {
    let config = config::load(overrides.clone())?;
    let paths = Paths::of(config.server.state_dir.as_deref());
    Ok((config, paths))
}

impl From<Doubt> for Failure {
    fn from(doubt: Doubt) -> Self {
        let code = match doubt {
            Doubt::Denied { .. } => ErrorCode::InstanceDenied,
            Doubt::Nameless { .. }
            | Doubt::Elsewhere { .. }
            | Doubt::Unlocked { .. }
            | Doubt::Unreadable { .. } => ErrorCode::InstanceUnclear,
        };
        Self::new(code, doubt)
    }
}

/// Writes data. A reader that has read enough, such as `head`, is no failure.
pub(crate) fn print(text: &str) -> Exit {
    let _ = io::stdout().write_all(text.as_bytes());
    Exit::Ok
}
