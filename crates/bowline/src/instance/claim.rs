//! Taking an instance directory, for as long as a server lives.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::{
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use bowline_names::ErrorCode;

use super::{Paths, Record, Standing, look};
use crate::failure::Failure;

/// How often the lock is tried before it counts as held: somebody who only looks has it for a
/// moment.
const ATTEMPTS: u32 = 10;

/// How long is waited between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// What is written to see whether there is room: more than a record needs.
const TRIAL_BYTES: usize = 16 * 1024;

/// The instance directory, taken. Dropping it removes record and socket and lets go of the lock.
#[derive(Debug)]
pub(crate) struct Claim {
    paths: Paths,
    /// Held for life; the system lets go of it however the process ends.
    lock: File,
}

/// Why an instance directory could not be taken.
#[derive(Debug)]
pub(crate) enum ClaimError {
    /// A server has it: this one, if it can be told.
    Held { by: Option<Box<Record>>, path: PathBuf },
    /// This user may not write there.
    Denied { path: PathBuf },
    /// There is no room left on the disk.
    NoSpace { path: PathBuf },
    /// Anything else.
    Io { path: PathBuf, error: io::Error },
}

impl Claim {
    /// Makes the directory if need be and takes its lock. What a server left that died stays until
    /// [`Self::write`] replaces it.
    ///
    /// # Errors
    /// When a server has it, or when the system says no.
    pub(crate) fn take(paths: &Paths) -> Result<Self, ClaimError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| ClaimError::of(path, error)
        };
        paths.make().map_err(at(&paths.runtime))?;
        paths.try_writing()?;
        let path = paths.lock();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&path).map_err(at(&path))?;
        for attempt in 1..=ATTEMPTS {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { paths: paths.clone(), lock }),
                Err(TryLockError::Error(error)) => return Err(ClaimError::of(path, error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if let Standing::Running(record) = look(paths) {
                return Err(ClaimError::Held { by: Some(Box::new(record)), path });
            }
            // Not any more, or somebody who does not say who.
            if attempt < ATTEMPTS {
                thread::sleep(PAUSE);
            }
        }
        Err(ClaimError::Held { by: None, path })
    }

    /// Listens on the control socket, which only this user (and root) may reach. The socket gets
    /// its mode before it gets its name.
    ///
    /// # Errors
    /// When the system says no.
    pub(crate) fn listen(&self) -> Result<UnixListener, ClaimError> {
        // No longer than the name it gets: both must fit into an address.
        let fresh = self.paths.runtime.join("control.new");
        let path = self.paths.control();
        let listen = || {
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&fresh)?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
            fs::rename(&fresh, &path)?;
            Ok(listener)
        };
        listen().map_err(|error| ClaimError::of(path.clone(), error))
    }

    /// Writes down who the server is.
    ///
    /// # Errors
    /// When the system says no.
    pub(crate) fn write(&self, record: &Record) -> Result<(), ClaimError> {
        let path = self.paths.record();
        record.write(&path).map_err(|error| ClaimError::of(path, error))
    }

    /// Whether the lock in the directory is still this one: somebody may have swept it away, and
    /// another server may have made its own.
    fn holds(&self) -> bool {
        let (Ok(ours), Ok(there)) = (self.lock.metadata(), fs::metadata(self.paths.lock())) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (there.dev(), there.ino())
    }

    /// Whether others still find the server here.
    pub(crate) fn stands(&self) -> bool {
        self.holds() && self.paths.record().exists() && self.paths.control().exists()
    }

    /// Takes the directory anew after somebody has swept it away.
    ///
    /// # Errors
    /// When another server has it by now, or when the system says no.
    pub(crate) fn renew(&mut self) -> Result<(), ClaimError> {
        if !self.holds() {
            *self = Self::take(&self.paths)?;
        }
        Ok(())
    }

    /// The directories that were taken.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }
}

impl Paths {
    /// Finds out whether there is room for what a server writes, before it matters.
    ///
    /// # Errors
    /// When there is none, or when this user may not write there.
    pub(crate) fn try_writing(&self) -> Result<(), ClaimError> {
        // One's own: two may try at once.
        let path = self.runtime.join(format!("trial-{}", process::id()));
        let tried = fs::write(&path, vec![b' '; TRIAL_BYTES]);
        // Where it could not be made there is none.
        let _ = fs::remove_file(&path);
        tried.map_err(|error| ClaimError::of(self.record(), error))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.holds() {
            // What stands there is another's.
            return;
        }
        // In this order, while the lock is held: whoever looks sees a server or none. What cannot
        // be removed is found to be stale.
        let _ = fs::remove_file(self.paths.record());
        let _ = fs::remove_file(self.paths.control());
    }
}

impl ClaimError {
    /// Sorts an error of the system.
    pub(crate) fn of(path: PathBuf, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { path }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            _ => Self::Io { path, error },
        }
    }
}

impl From<ClaimError> for Failure {
    fn from(error: ClaimError) -> Self {
        let code = match error {
            ClaimError::Held { .. } => ErrorCode::InstanceHeld,
            ClaimError::Denied { .. } => ErrorCode::InstanceDenied,
            ClaimError::NoSpace { .. } => ErrorCode::DiskFull,
            ClaimError::Io { .. } => ErrorCode::InstanceFailed,
        };
        Self::new(code, error)
    }
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { by: Some(record), path } => write!(
                f,
                "{} is held by a server that runs: pid {}, {}",
                path.display(),
                record.pid,
                record.management.name()
            ),
            Self::Held { by: None, path } => {
                write!(f, "{} is held by another process", path.display())
            }
            Self::Denied { path } => write!(f, "this user may not write {}", path.display()),
            Self::NoSpace { path } => {
                write!(f, "cannot write {}: no space is left on the disk", path.display())
            }
            Self::Io { path, error } => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{charter::Management, instance::Doubt};

    fn instance() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::of(Some(&dir.path().join("instance")));
        (dir, paths)
    }

    fn record() -> Record {
        Record::of_this_process(Management::Foreground, 0)
    }

    #[test]
    fn a_server_is_found_while_it_lives_and_leaves_nothing() {
        let (_dir, paths) = instance();
        assert!(matches!(look(&paths), Standing::Absent));

        let claim = Claim::take(&paths).unwrap();
        assert!(matches!(look(&paths), Standing::Unknown(Doubt::Nameless { .. })));
        claim.write(&record()).unwrap();
        let listener = claim.listen().unwrap();
        assert!(matches!(look(&paths), Standing::Running(found) if found == record()));
        UnixStream::connect(paths.control()).unwrap();
        for path in [paths.record(), paths.control()] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{path:?}");
        }
        assert_eq!(fs::metadata(&paths.runtime).unwrap().mode() & 0o777, 0o700);

        drop((listener, claim));
        assert!(matches!(look(&paths), Standing::Absent));
        assert!(!paths.control().exists());
    }

    #[test]
    fn a_second_server_is_told_who_has_the_directory() {
        let (_dir, paths) = instance();
        let claim = Claim::take(&paths).unwrap();
        let error = Claim::take(&paths).unwrap_err();
        assert!(matches!(error, ClaimError::Held { by: None, .. }), "{error}");
        claim.write(&record()).unwrap();
        let error = Claim::take(&paths).unwrap_err();
        assert!(matches!(error, ClaimError::Held { by: Some(by), .. } if *by == record()));
    }

    #[test]
    fn a_record_without_its_process_is_stale_and_can_be_taken_over() {
        let (_dir, paths) = instance();
        for left in [
            // The number belongs to another process now: this one.
            Record { start_ticks: 1, ..record() },
            // The machine has been started since.
            Record { boot_id: "another".to_owned(), ..record() },
            // There is no such process.
            Record { pid: u32::MAX / 2, ..record() },
        ] {
            let claim = Claim::take(&paths).unwrap();
            claim.write(&left).unwrap();
            // As if the process had ended at once, without a destructor.
            let Claim { paths: _, ref lock } = claim;
            lock.unlock().unwrap();
            assert!(matches!(look(&paths), Standing::Stale(found) if found == left));
            drop(Claim::take(&paths).unwrap());
            claim.write(&left).unwrap();
            assert!(!left.alive());
            assert_eq!(
                left.signal(rustix::process::Signal::KILL).unwrap_err().kind(),
                io::ErrorKind::NotFound
            );
        }
    }

    #[test]
    fn a_lock_that_was_removed_under_a_server_is_a_doubt() {
        let (_dir, paths) = instance();
        let claim = Claim::take(&paths).unwrap();
        claim.write(&record()).unwrap();
        fs::remove_file(paths.lock()).unwrap();
        assert!(matches!(look(&paths), Standing::Unknown(Doubt::Unlocked { .. })));
    }

    #[test]
    fn a_directory_that_was_swept_is_taken_anew_unless_another_has_it() {
        let (_dir, paths) = instance();
        let mut claim = Claim::take(&paths).unwrap();
        claim.write(&record()).unwrap();
        drop(claim.listen().unwrap());
        assert!(claim.stands());
        for swept in [paths.record(), paths.control(), paths.lock()] {
            fs::remove_file(swept).unwrap();
            assert!(!claim.stands());
            claim.renew().unwrap();
            claim.write(&record()).unwrap();
            drop(claim.listen().unwrap());
            assert!(claim.stands());
        }
        assert!(matches!(look(&paths), Standing::Running(_)));

        fs::remove_file(paths.lock()).unwrap();
        let other = Claim::take(&paths).unwrap();
        assert!(matches!(claim.renew(), Err(ClaimError::Held { .. })));
        drop(claim);
        assert!(paths.record().exists(), "it is the other one's");
        drop(other);
    }

    #[test]
    fn a_lock_held_by_somebody_out_of_sight_is_a_doubt() {
        let (_dir, paths) = instance();
        let claim = Claim::take(&paths).unwrap();
        claim.write(&Record { pid: u32::MAX / 2, ..record() }).unwrap();
        let standing = look(&paths);
        assert!(matches!(standing, Standing::Unknown(Doubt::Elsewhere { .. })), "{standing:?}");
    }

    #[test]
    fn a_record_that_is_none_is_a_doubt() {
        let (_dir, paths) = instance();
        drop(Claim::take(&paths).unwrap());
        fs::write(paths.record(), "{").unwrap();
        assert!(matches!(look(&paths), Standing::Unknown(Doubt::Unreadable { .. })));
    }
}
