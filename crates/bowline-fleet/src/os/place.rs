//! Where the instances of services are written down, so that the next server finds those of one
//! that died.
//!
//! ```text
//! STATE/services/NAME/IDENTITY/record.json   who it is
//!                              out, err      the pipes that it writes to
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, chownat, mknodat, open},
    pipe::fcntl_setpipe_size,
};
use serde::{Deserialize, Serialize};

use super::{
    process::{Key, boot_id},
    user::Account,
};
use crate::plan::Variant;

/// What the pipes hold: so much can a service write while there is no server. The most that a
/// process without privileges may ask for by default (`fs.pipe-max-size`).
const PIPE_BYTES: usize = 1 << 20;

/// Longer than any record.
const RECORD_BYTES_MAX: u64 = 1 << 16;

const RECORD: &str = "record.json";

/// The directory of one instance of a service.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
}

/// Who an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The service.
    pub service: String,
    /// What its processes carry in their environment.
    pub identity: String,
    /// Whether it is the candidate, not the stable one.
    pub candidate: bool,
    /// Its first process; none before there is one. Who carries the identity belongs nevertheless.
    pub leader: Option<Key>,
    /// Which boot that process is of.
    pub boot_id: String,
    /// When it started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// When it became ready, in milliseconds since 1970; none if it has not yet.
    pub ready_unix_ms: Option<u64>,
    /// The signal by which it is asked to end.
    pub stop_signal: i32,
    /// How long it has for that, in milliseconds.
    pub grace_ms: u64,
    /// [`Service::fingerprint`](crate::spec::Service::fingerprint) of what it was started from.
    pub fingerprint: u64,
}

impl Record {
    /// Whether it is of this boot: else every process in it is gone.
    pub fn of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }

    /// As what it was started, or promoted to.
    pub fn variant(&self) -> Variant {
        if self.candidate { Variant::Candidate } else { Variant::Stable }
    }

    /// How long it has to end when it is asked.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

impl Place {
    /// Makes the directory of a new instance.
    ///
    /// # Errors
    /// Those of the system.
    pub fn make(state_dir: &Path, service: &str, identity: &str) -> io::Result<Self> {
        let dir = state_dir.join("services").join(service).join(identity);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    /// All that there are, with their records. A directory without a record that can be read is of
    /// an instance that has not begun; it is removed.
    ///
    /// # Errors
    /// Those of the system.
    pub fn all(state_dir: &Path) -> io::Result<Vec<(Self, Record)>> {
        let mut found = Vec::new();
        for service in entries(&state_dir.join("services"))? {
            for dir in entries(&service)? {
                let place = Self { dir };
                match place.read() {
                    Ok(record) => found.push((place, record)),
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::NotFound
                                | io::ErrorKind::InvalidData
                                | io::ErrorKind::UnexpectedEof
                        ) =>
                    {
                        place.remove();
                    }
                    // It may run: too many files are open, or the disk does not answer.
                    Err(error) => return Err(error),
                }
            }
        }
        found.sort_by_key(|(_, record)| record.started_unix_ms);
        Ok(found)
    }

    /// Makes the two pipes, for a process of `account`, and gives the ends to write to. Opened for
    /// reading too, so that its writer never hears that nobody reads: without a server it waits as
    /// soon as the pipe is full.
    ///
    /// # Errors
    /// Those of the system.
    pub fn make_pipes(&self, account: Option<&Account>) -> io::Result<[OwnedFd; 2]> {
        let make = |name: &str| -> io::Result<OwnedFd> {
            let path = self.dir.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            if let Some(account) = account {
                // It may open its own stdout by name (`/dev/stdout`).
                chownat(
                    CWD,
                    &path,
                    Some(account.uid),
                    Some(account.gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            let pipe = open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            // A smaller one does as well.
            let _ = fcntl_setpipe_size(&pipe, PIPE_BYTES);
            Ok(pipe)
        };
        Ok([make("out")?, make("err")?])
    }

    /// Opens the two pipes to read from. They are open for writing too: there is no end of file
    /// when the last writer is gone, and what it wrote stays.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open_pipes(&self) -> io::Result<[OwnedFd; 2]> {
        let open = |name: &str| -> io::Result<OwnedFd> {
            let mut options = OpenOptions::new();
            let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
            let flags = i32::try_from(flags.bits()).unwrap_or_default();
            let file =
                options.read(true).write(true).custom_flags(flags).open(self.dir.join(name))?;
            if !file.metadata()?.file_type().is_fifo() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(file.into())
        };
        Ok([open("out")?, open("err")?])
    }

    fn read(&self) -> io::Result<Record> {
        let file = File::open(self.dir.join(RECORD))?;
        Ok(serde_json::from_reader(file.take(RECORD_BYTES_MAX))?)
    }

    /// Writes the record beside the old one and puts it in its place, so that no reader sees half of
    /// it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let fresh = self.dir.join("record.new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        fs::rename(&fresh, self.dir.join(RECORD))
    }

    /// Removes all of it: nobody of the instance is left.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.dir.display(), %error, "a directory could not be removed");
        }
        // The service's own, if it was the last.
        if let Some(service) = self.dir.parent() {
            let _ = fs::remove_dir(service);
        }
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .filter_map(|entry| match entry {
                Ok(entry) if entry.file_type().is_ok_and(|it| it.is_dir()) => {
                    Some(Ok(entry.path()))
                }
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(identity: &str) -> Record {
        Record {
            service: "web".to_owned(),
            identity: identity.to_owned(),
            candidate: false,
            leader: Some(Key { pid: 7, ticks: 9 }),
            boot_id: boot_id(),
            started_unix_ms: 1,
            ready_unix_ms: None,
            stop_signal: 15,
            grace_ms: 10_000,
            fingerprint: 5,
        }
    }

    #[test]
    fn what_was_written_is_found_and_what_had_not_begun_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::make(dir.path(), "web", "abc").unwrap();
        place.write(&record("abc")).unwrap();
        Place::make(dir.path(), "web", "half").unwrap();
        let found = Place::all(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, record("abc"));
        assert!(!dir.path().join("services/web/half").exists());
        found[0].0.remove();
        assert!(!dir.path().join("services/web").exists());
        assert!(Place::all(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn what_was_written_while_nobody_read_is_read_later() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::make(dir.path(), "web", "abc").unwrap();
        let [out, _err] = place.make_pipes(None).unwrap();
        rustix::io::write(&out, b"words").unwrap();
        let [read, _] = place.open_pipes().unwrap();
        let mut bytes = [0; 16];
        assert_eq!(rustix::io::read(&read, &mut bytes).unwrap(), 5);
        drop(out);
        assert_eq!(rustix::io::read(&read, &mut bytes), Err(rustix::io::Errno::AGAIN));
    }
}
