//! The file of a log: bounded in size, followed by the next by renaming. What has been written is
//! never cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// What is gathered before it is written.
const GATHERED_BYTES: usize = 256 * 1024;

/// A file that is followed by another when it is large enough.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    bytes_max: u64,
    files: usize,
    /// None while it cannot be opened.
    file: Option<File>,
    bytes: u64,
    gathered: Vec<u8>,
    /// What could not be written since the last time that something could.
    lost: Lost,
}

/// What could not be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// What is new about writing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing can be written from now on.
    Begins(io::Error),
    /// It can again.
    Over(Lost),
}

impl LogFile {
    /// A file at `path` of at most about `bytes_max`, and so many with those before it.
    pub(super) fn new(path: PathBuf, bytes_max: u64, files: usize) -> Self {
        let (file, bytes, gathered) = (None, 0, Vec::new());
        Self { path, bytes_max, files, file, bytes, gathered, lost: Lost::default() }
    }

    /// Changes the bounds.
    pub(super) fn bound(&mut self, bytes_max: u64, files: usize) {
        (self.bytes_max, self.files) = (bytes_max, files);
    }

    /// Takes a line, with its end.
    pub(super) fn line(&mut self, parts: [&[u8]; 3]) -> Option<Trouble> {
        for part in parts {
            self.gathered.extend_from_slice(part);
        }
        self.gathered.push(b'\n');
        let full = self.bytes + self.gathered.len() as u64 >= self.bytes_max;
        if full || self.gathered.len() >= GATHERED_BYTES { self.flush() } else { None }
    }

    /// Writes what is gathered, or counts it: a full disk is no reason to hold a service up.
    pub(super) fn flush(&mut self) -> Option<Trouble> {
        if self.gathered.is_empty() {
            return None;
        }
        let had_lost = self.lost;
        let result = self.put();
        let lines = memchr::memchr_iter(b'\n', &self.gathered).count() as u64;
        let bytes = self.gathered.len() as u64;
        self.gathered.clear();
        match result {
            Ok(()) => {
                self.lost = Lost::default();
                (had_lost != Lost::default()).then_some(Trouble::Over(had_lost))
            }
            Err(error) => {
                self.lost.lines += lines;
                self.lost.bytes += bytes;
                (had_lost == Lost::default()).then_some(Trouble::Begins(error))
            }
        }
    }

    fn put(&mut self) -> io::Result<()> {
        if self.file.is_none() || self.bytes >= self.bytes_max || self.moved() {
            self.next()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if self.lost != Lost::default() {
            // The rest of a line may have been the first that there was no room for.
            file.write_all(b"\n")?;
        }
        let before = self.bytes;
        let result = file.write_all(&self.gathered);
        self.bytes = match result {
            Ok(()) => before + self.gathered.len() as u64,
            Err(_) => file.metadata().map_or(before, |found| found.len()),
        };
        result
    }

    /// Whether somebody has moved or removed the file.
    fn moved(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let (Ok(ours), Ok(there)) = (file.metadata(), fs::metadata(&self.path)) else {
            return true;
        };
        (ours.dev(), ours.ino()) != (there.dev(), there.ino())
    }

    /// Opens the file, or begins the next one if this is large enough. If that cannot be made, the
    /// old one goes on.
    fn next(&mut self) -> io::Result<()> {
        if self.file.is_some() && !self.moved() {
            for age in (1..self.files.max(1)).rev() {
                // There need not be that many yet.
                let _ = fs::rename(aged(&self.path, age - 1), aged(&self.path, age));
            }
            if self.files <= 1 {
                // None is kept.
                let _ = fs::remove_file(&self.path);
            }
        }
        if let Some(dir) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        }
        match OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path) {
            Ok(file) => {
                self.bytes = file.metadata()?.len();
                self.file = Some(file);
                Ok(())
            }
            Err(_) if self.file.is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Opens what there is to be read, the newest first, each with its length just now. What is
    /// gathered is to be written before.
    pub(super) fn readers(&self) -> Vec<(File, u64)> {
        readers(&self.path, self.files)
    }
}

/// See [`LogFile::readers`].
pub(super) fn readers(path: &Path, files: usize) -> Vec<(File, u64)> {
    (0..files.max(1))
        .filter_map(|age| {
            let file = File::open(aged(path, age)).ok()?;
            let length = file.metadata().ok()?.len();
            Some((file, length))
        })
        .collect()
}

/// The file that is `age` rotations old.
pub(super) fn aged(path: &Path, age: usize) -> PathBuf {
    if age == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(log: &mut LogFile, line: &str) -> Option<Trouble> {
        let first = log.line([line.as_bytes(), b"", b""]);
        first.or(log.flush())
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_full_file_is_followed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/x.log");
        let mut log = LogFile::new(path.clone(), 8, 3);
        for line in ["one", "two two", "three", "four four", "five"] {
            assert!(put(&mut log, line).is_none());
        }
        assert_eq!(read(&path), "five\n");
        assert_eq!(read(&aged(&path, 1)), "three\nfour four\n");
        assert_eq!(read(&aged(&path, 2)), "one\ntwo two\n");
        assert!(!aged(&path, 3).exists());
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        fs::write(&path, "before\n").unwrap();
        let mut log = LogFile::new(path.clone(), 1000, 3);
        put(&mut log, "one");
        let moved = dir.path().join("elsewhere");
        fs::rename(&path, &moved).unwrap();
        put(&mut log, "two");
        assert_eq!((read(&moved), read(&path)), ("before\none\n".into(), "two\n".into()));
    }

    #[test]
    fn what_cannot_be_written_is_said_once_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = LogFile::new(path.clone(), 1000, 3);
        put(&mut log, "kept");
        // Every write to it says that there is no room.
        log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        assert!(matches!(put(&mut log, "lost"), Some(Trouble::Begins(_))));
        assert!(put(&mut log, "lost too").is_none());
        fs::remove_file(&path).unwrap();
        let Some(Trouble::Over(lost)) = put(&mut log, "again") else { panic!() };
        assert_eq!(lost, Lost { lines: 2, bytes: 14 });
        assert_eq!(read(&path), "\nagain\n");
    }
}
