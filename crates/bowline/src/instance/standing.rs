//! What can be said about the server of an instance directory, from outside.

use std::{
    fmt,
    fs::{File, TryLockError},
    io,
    path::PathBuf,
};

use super::{Paths, Record};

/// Whether a server runs.
#[derive(Debug)]
pub(crate) enum Standing {
    /// This one: pid, start time and boot agree, and it holds the lock.
    Running(Record),
    /// This one did, and ended without clearing up.
    Stale(Record),
    /// None, and none left anything.
    Absent,
    /// It cannot be told.
    Unknown(Doubt),
}

/// Why it cannot be told whether a server runs.
#[derive(Debug)]
pub(crate) enum Doubt {
    /// This user may not look.
    Denied { path: PathBuf },
    /// Somebody holds the lock and has not written who it is: a server that starts just now, or
    /// one whose record was removed.
    Nameless { path: PathBuf },
    /// The lock is held, but not by anybody whom this process can see.
    Elsewhere { path: PathBuf, pid: u32 },
    /// The process lives, and its lock does not.
    Unlocked { path: PathBuf, pid: u32 },
    /// The record cannot be understood.
    Unreadable { path: PathBuf, error: io::Error },
}

/// Looks without touching anything.
pub(crate) fn look(paths: &Paths) -> Standing {
    loop {
        let record = match read(paths) {
            Ok(record) => record,
            Err(doubt) => return Standing::Unknown(doubt),
        };
        let standing = judge(paths, record.clone());
        // A server that ends removes its record, then lets go of its lock: whoever looks in between
        // must not take one for the other.
        match read(paths) {
            Ok(still) if still == record => return standing,
            Ok(_) => {}
            Err(doubt) => return Standing::Unknown(doubt),
        }
    }
}

fn read(paths: &Paths) -> Result<Option<Record>, Doubt> {
    let path = paths.record();
    Record::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Doubt::Denied { path },
        _ => Doubt::Unreadable { path, error },
    })
}

/// Compares a record with its process and the lock.
fn judge(paths: &Paths, record: Option<Record>) -> Standing {
    let path = paths.lock();
    let held = match held(paths) {
        Ok(held) => held,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Standing::Unknown(Doubt::Denied { path });
        }
        Err(error) => return Standing::Unknown(Doubt::Unreadable { path, error }),
    };
    match (record, held) {
        (None, false) => Standing::Absent,
        (None, true) => Standing::Unknown(Doubt::Nameless { path }),
        (Some(record), held) => match (record.alive(), held) {
            (true, true) => Standing::Running(record),
            (false, false) => Standing::Stale(record),
            (true, false) => Standing::Unknown(Doubt::Unlocked { path, pid: record.pid }),
            (false, true) => Standing::Unknown(Doubt::Elsewhere { path, pid: record.pid }),
        },
    }
}

/// Whether somebody holds the lock. It is taken for a moment, shared, if nobody does: whoever
/// claims it therefore tries more than once.
fn held(paths: &Paths) -> io::Result<bool> {
    let file = match File::open(paths.lock()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Doubt {
    /// Whether it may be gone in a moment: a server that starts or ends takes one step after the
    /// other.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Nameless { .. } | Self::Elsewhere { .. } | Self::Unlocked { .. } => true,
            Self::Denied { .. } | Self::Unreadable { .. } => false,
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { path } => write!(f, "this user may not read {}", path.display()),
            Self::Nameless { path } => {
                write!(f, "{} is held by a process that has not said who it is", path.display())
            }
            Self::Elsewhere { path, pid } => write!(
                f,
                "{} is held, but the process {pid} of the record is not here: the server may run \
                 in another container or on another machine",
                path.display()
            ),
            Self::Unlocked { path, pid } => write!(
                f,
                "process {pid} of the record runs, but does not hold {}: somebody has removed or \
                 replaced the file",
                path.display()
            ),
            Self::Unreadable { path, error } => {
                write!(f, "cannot make sense of {}: {error}", path.display())
            }
        }
    }
}
