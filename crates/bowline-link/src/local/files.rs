//! Files of the local side: there as a whole or not at all, for nobody but their owner, and made once although a master
//! and its gateways may want them at the same moment. What root makes in a directory of somebody else is that user's, so
//! that their server can read it.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags, flock, openat, renameat, unlinkat},
    io::Errno,
};

use super::limit;

/// Something that the loopback side needs cannot be had.
#[derive(Debug)]
pub struct LocalError {
    /// What was wanted, to be read after "cannot".
    wanted: String,
    /// Why not.
    why: String,
    kind: io::ErrorKind,
}

impl LocalError {
    pub(super) fn new(wanted: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { wanted: wanted.into(), why: why.to_string(), kind: io::ErrorKind::Other }
    }

    /// The same, when the system says why not.
    fn of(wanted: impl Into<String>, error: &io::Error) -> Self {
        Self { kind: error.kind(), ..Self::new(wanted, error) }
    }

    /// What the system has said: that a disk is full, or a user may not do this. Else `Other`.
    pub fn kind(&self) -> io::ErrorKind {
        self.kind
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.wanted, self.why)
    }
}

impl std::error::Error for LocalError {}

/// The directory, while no other process changes it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Names are looked up in what was opened: where the path leads may be changed by whoever owns what is around it.
    inside: File,
    owner: Owner,
    /// Its lock is let go of when it is closed.
    _lock: File,
}

impl Directory {
    /// Makes the directory if there is none, and waits for its lock. Whoever holds that writes a few small files.
    pub(super) fn lock(path: &Path) -> Result<Self, LocalError> {
        let failed = |error: io::Error| LocalError::of(format!("use {}", path.display()), &error);
        make(path).map_err(failed)?;
        let inside = directory(path).map_err(failed)?;
        let found = inside.metadata().map_err(failed)?;
        let owner = Owner::of(&found);
        if found.permissions().mode() & 0o077 != 0 {
            inside.set_permissions(Permissions::from_mode(0o700)).map_err(failed)?;
        }

        let name = path.join("local.lock");
        let lock = owner
            .create(&inside, "local.lock")
            .or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => open(&inside, "local.lock", OFlags::WRONLY),
                _ => Err(error),
            })
            .map_err(|error| LocalError::of(format!("open {}", name.display()), &error))?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(|error| LocalError::of(format!("lock {}", name.display()), &error.into()))?;
        Ok(Self { path: path.to_owned(), inside, owner, _lock: lock })
    }

    /// Where a file of it is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What is in a file; none if there is no such file. Others may not read it afterwards, whatever was before.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, LocalError> {
        let path = self.file(name);
        let failed = |error: io::Error| LocalError::of(format!("read {}", path.display()), &error);
        let file = match open(&self.inside, name, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        }
        let mut text = String::new();
        file.take(limit::FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        Ok(Some(text))
    }

    /// Writes a file, and is done when it is on the disk. A reader sees the old one or the new one.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), LocalError> {
        let path = self.file(name);
        let fresh = format!(".{name}.new");
        let written = (|| {
            // A crash may have left one; nobody else writes while the lock is held.
            match unlinkat(&self.inside, &fresh, AtFlags::empty()) {
                Err(Errno::NOENT) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
            let mut file = self.owner.create(&self.inside, &fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            renameat(&self.inside, &fresh, &self.inside, name)?;
            self.inside.sync_all()
        })();
        written.map_err(|error| LocalError::of(format!("write {}", path.display()), &error))
    }

    /// The same, unless that is what is there.
    pub(super) fn keep(&self, name: &str, text: &str) -> Result<(), LocalError> {
        match self.read(name) {
            Ok(Some(found)) if found == text => Ok(()),
            Ok(_) | Err(_) => self.write(name, text),
        }
    }
}

/// Makes a directory, and those around it that are not there, for whoever the first of them that is there belongs to.
fn make(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(_) => return Ok(()),
        Err(error) => return Err(error),
    }
    let around = path.parent().filter(|around| !around.as_os_str().is_empty());
    if let Some(around) = around {
        make(around)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    let owner = Owner::of(&fs::metadata(around.unwrap_or(Path::new(".")))?);
    owner.give(&directory(path)?)
}

/// Opens a directory, and not what a link in a directory of somebody else leads to.
fn directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    opened.map_err(|error| match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => io::Error::other("it is a symbolic link"),
        Ok(_) | Err(_) => error,
    })
}

/// The same of a file that is there; nothing is waited for if it is none.
fn open(directory: &File, name: &str, how: OFlags) -> io::Result<File> {
    let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::empty())?))
}

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn of(found: &fs::Metadata) -> Self {
        Self { user: found.uid(), group: found.gid() }
    }

    /// Makes a file that is not there for this user alone.
    fn create(self, directory: &File, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?);
        self.give(&file)?;
        Ok(file)
    }

    /// Gives away what this process has made just now, if it is root's to give: its own user alone counts.
    fn give(self, made: &File) -> io::Result<()> {
        if Self::of(&made.metadata()?) == self {
            return Ok(());
        }
        match fchown(made, Some(self.user), Some(self.group)) {
            // It can be used by this user, as ever.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            given => given,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_for_this_user_alone_and_replaced_as_a_whole() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("state/links");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

        let directory = Directory::lock(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(directory.read("a").unwrap(), None);
        // What a crash left behind is in nobody's way.
        fs::write(directory.file(".a.new"), "half").unwrap();
        directory.write("a", "one").unwrap();
        directory.keep("a", "two").unwrap();
        assert_eq!(directory.read("a").unwrap().as_deref(), Some("two"));
        assert_eq!(mode(&directory.file("a")), 0o600);

        fs::set_permissions(directory.file("a"), Permissions::from_mode(0o644)).unwrap();
        directory.read("a").unwrap();
        assert_eq!(mode(&directory.file("a")), 0o600);
        drop(directory);

        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        drop(Directory::lock(&path).unwrap());
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn what_is_made_belongs_to_whoever_the_directory_around_it_belongs_to() {
        let owner = |path: &Path| Owner::of(&fs::metadata(path).unwrap());
        for user in [None, Some(4711)] {
            let temporary = tempfile::tempdir().unwrap();
            // Only root can give it away; for others it is their own, and stays so.
            let _ = std::os::unix::fs::chown(temporary.path(), user, Some(4712));
            let wanted = owner(temporary.path());

            let state = temporary.path().join("state");
            let directory = Directory::lock(&state.join("links")).unwrap();
            directory.write("a", "one").unwrap();
            let made = [directory.file("a"), directory.file("local.lock")];
            for path in [&state, &directory.path, &made[0], &made[1]] {
                assert_eq!(owner(path), wanted, "{}", path.display());
            }
            assert_eq!(fs::metadata(&made[0]).unwrap().mode() & 0o777, 0o600);
            assert_eq!(directory.read("a").unwrap().as_deref(), Some("one"));
        }
    }

    #[test]
    fn a_link_to_somebody_elses_file_is_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let other = temporary.path().join("other");
        fs::write(&other, "secret").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o644)).unwrap();
        let directory = Directory::lock(&temporary.path().join("links")).unwrap();
        std::os::unix::fs::symlink(&other, directory.file("a")).unwrap();
        assert!(directory.read("a").is_err());
        directory.keep("a", "own").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "secret");
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_directory_that_leads_elsewhere_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let other = temporary.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o755)).unwrap();
        let links = temporary.path().join("links");
        std::os::unix::fs::symlink(&other, &links).unwrap();
        let error = Directory::lock(&links).unwrap_err().to_string();
        assert!(error.ends_with("links: it is a symbolic link"), "{error}");
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_replaced_by_another_is_not_written_to() {
        let temporary = tempfile::tempdir().unwrap();
        let (links, moved) = (temporary.path().join("links"), temporary.path().join("moved"));
        let other = temporary.path().join("other");
        fs::create_dir(&other).unwrap();
        let directory = Directory::lock(&links).unwrap();
        fs::rename(&links, &moved).unwrap();
        std::os::unix::fs::symlink(&other, &links).unwrap();
        directory.write("a", "one").unwrap();
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(moved.join("a")).unwrap(), "one");
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error_with_its_name() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Directory::lock(&file.join("links")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert!(error.to_string().contains("file/links"), "{error}");
    }
}
