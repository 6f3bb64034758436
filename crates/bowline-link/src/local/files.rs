//! Files of the local side: there as a whole or not at all, for nobody but this user, and made once although a master
//! and its gateways may want them at the same moment.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::limit;

/// Something that the loopback side needs cannot be had.
#[derive(Debug)]
pub struct LocalError {
    /// What was wanted, to be read after "cannot".
    wanted: String,
    /// Why not.
    why: String,
}

impl LocalError {
    pub(super) fn new(wanted: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { wanted: wanted.into(), why: why.to_string() }
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
    /// Its lock is let go of when it is closed.
    _lock: File,
}

impl Directory {
    /// Makes the directory if there is none, and waits for its lock. Whoever holds that writes a few small files.
    pub(super) fn lock(path: &Path) -> Result<Self, LocalError> {
        let failed = |error: io::Error| LocalError::new(format!("use {}", path.display()), error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let found = fs::metadata(path).map_err(failed)?;
        if found.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
        }

        let name = path.join("local.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&name)
            .map_err(|error| LocalError::new(format!("open {}", name.display()), error))?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(|error| LocalError::new(format!("lock {}", name.display()), error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where a file of it is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What is in a file; none if there is no such file. Others may not read it afterwards, whatever was before.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, LocalError> {
        let path = self.file(name);
        let failed = |error: io::Error| LocalError::new(format!("read {}", path.display()), error);
        let file = match File::open(&path) {
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
        let fresh = self.file(&format!(".{name}.new"));
        let written = (|| {
            // A crash may have left one; nobody else writes while the lock is held.
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(|error| LocalError::new(format!("write {}", path.display()), error))
    }

    /// The same, unless that is what is there.
    pub(super) fn keep(&self, name: &str, text: &str) -> Result<(), LocalError> {
        match self.read(name) {
            Ok(Some(found)) if found == text => Ok(()),
            Ok(_) | Err(_) => self.write(name, text),
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
    fn a_directory_that_cannot_be_is_an_error_with_its_name() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Directory::lock(&file.join("links")).unwrap_err().to_string();
        assert!(error.contains("file/links"), "{error}");
    }
}
