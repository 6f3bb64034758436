//! Who a server is, as it wrote it down.

use std::{
    collections::BTreeMap,
    env, fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process,
};

use bowline_names::EnvVar;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::process::{boot_id, signal, start_ticks};
use crate::charter::{Listener, Management};

/// Longer than any record that a server writes.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// Finds out who looks after this process. systemd names the pid of the process that it started; a
/// shell inside a service has inherited the variable, but not the pid.
pub(crate) fn management(daemon: bool) -> Management {
    let named = env::var(EnvVar::SystemdExecPid.name()).ok();
    if daemon {
        Management::Daemon
    } else if named.and_then(|pid| pid.parse().ok()) == Some(process::id()) {
        Management::Systemd
    } else {
        Management::Foreground
    }
}

/// Who a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) pid: u32,
    /// When that process began, in ticks since the boot.
    pub(crate) start_ticks: u64,
    /// Which boot.
    pub(crate) boot_id: String,
    pub(crate) version: String,
    pub(crate) management: Management,
    /// When it began, in milliseconds since 1970.
    pub(crate) started_ms: u64,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) control: PathBuf,
    /// The log file of a daemon.
    pub(crate) log: Option<PathBuf>,
    /// The flags that a daemon was started with, for `bowline restart`.
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
    /// The variables that counted then, by name, for the same.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
}

impl Record {
    /// The record of this process, to be filled with what else is known.
    pub(crate) fn of_this_process(management: Management, started_ms: u64) -> Self {
        let pid = process::id();
        Self {
            pid,
            start_ticks: start_ticks(pid).unwrap_or_default(),
            boot_id: boot_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            management,
            started_ms,
            config_file: None,
            listeners: Vec::new(),
            control: PathBuf::new(),
            log: None,
            arguments: Vec::new(),
            variables: BTreeMap::new(),
        }
    }

    /// Whether the very process that wrote this still runs.
    pub(crate) fn alive(&self) -> bool {
        self.boot_id == boot_id() && start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Sends a signal to the process that wrote this, and never to another that has its pid now.
    ///
    /// # Errors
    /// `NotFound` when it is gone, and those of the system.
    pub(crate) fn signal(&self, number: Signal) -> io::Result<()> {
        if self.boot_id != boot_id() {
            return Err(io::ErrorKind::NotFound.into());
        }
        signal(self.pid, self.start_ticks, number)
    }

    /// Reads a record; `None` when there is no file.
    ///
    /// # Errors
    /// Those of the system, and `InvalidData` when it is no record.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let record = serde_json::from_reader(io::Read::take(file, RECORD_BYTES_MAX))?;
        Ok(Some(record))
    }

    /// Writes it beside the old one and puts it in its place, so that no reader sees half of it.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let written = (|| {
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.write_all(b"\n")?;
            fs::rename(&fresh, path)
        })();
        if written.is_err() {
            // What could not be written whole is of no use.
            let _ = fs::remove_file(&fresh);
        }
        written
    }
}
