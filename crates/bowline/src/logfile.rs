//! The log file of a daemon: everything that the server and its gateway write to stderr.
//!
//! stderr becomes a pipe, which the gateway inherits; a thread reads it and is the only one who
//! writes the file. So nothing that is said gets lost, not the words of a panic either, and no two
//! processes write to one file. Files are rotated by size, by renaming: what has been written is
//! never cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, PipeReader, Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    stdio::dup2_stderr,
};

use crate::{
    instance::{ClaimError, make_dir},
    log,
};

/// How large a file gets before the next is begun.
const FILE_BYTES_MAX: u64 = 10_000_000;

/// How many files there are, with the one that is being written: 50 MB in all.
pub(crate) const FILES: usize = 5;

/// What is read at once, and what a write is cut into.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long the end waits for the last words; a gateway that would not end may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Tells when the thread has written everything.
static WRITTEN: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);

/// Sends all that is written to stderr from now on into the file; what stood there before is kept.
/// Until its reader is gone, the old stderr gets it too: `bowline start` repeats it if the start
/// fails. Called once.
///
/// # Errors
/// Those of the system.
pub(crate) fn capture(path: &Path) -> Result<(), ClaimError> {
    divert(path).map_err(|error| ClaimError::of(path.to_owned(), error))
}

fn divert(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let log = Log::open(path.to_owned(), FILE_BYTES_MAX, FILES)?;
    let early = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    // Nobody may hold up the server by not reading.
    fcntl_setfl(&early, fcntl_getfl(&early)? | OFlags::NONBLOCK)?;
    let (reader, writer) = io::pipe()?;
    let (written, done) = mpsc::sync_channel(1);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        keep(reader, log, early);
        // Nobody waits any more if it took too long.
        let _ = written.send(());
    })?;
    dup2_stderr(&writer)?;
    *WRITTEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    Ok(())
}

/// Waits until the last words are in the file. Does nothing if nothing is captured.
pub(crate) fn finish() {
    let Some(done) = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") else { return };
    if dup2_stderr(&nowhere).is_ok() {
        let _ = done.recv_timeout(LAST_WORDS);
    }
}

/// Writes what is said until nobody can say anything any more.
fn keep(mut reader: PipeReader, mut log: Log, early: File) {
    let mut early = Some(early);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let said = match reader.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => &chunk[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        log.write(said);
        if let Some(Err(error)) = early.as_mut().map(|early| early.write_all(said))
            && error.kind() != io::ErrorKind::WouldBlock
        {
            early = None;
        }
    }
}

/// A file that is followed by another when it is large enough.
struct Log {
    path: PathBuf,
    bytes_max: u64,
    files: usize,
    file: File,
    bytes: u64,
    /// Whether the last line is whole: a file ends with a line.
    whole: bool,
    /// What could not be written since the last time that it could.
    lost: u64,
    /// Whether the rest of a line follows whose beginning is lost.
    within: bool,
}

impl Log {
    fn open(path: PathBuf, bytes_max: u64, files: usize) -> io::Result<Self> {
        let file = open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, bytes_max, files, file, bytes, whole: true, lost: 0, within: false })
    }

    /// Writes it, or counts it: a full disk is no reason to stop serving.
    fn write(&mut self, said: &[u8]) {
        if (self.whole || self.lost > 0) && (self.bytes >= self.bytes_max || self.moved()) {
            self.next();
        }
        let said = if self.lost > 0 { self.resume(said) } else { said };
        let written = self.put(said);
        self.lose(&said[written..]);
    }

    /// Writes down what is missing here, on a line of its own, and gives what is to follow: nothing
    /// if there is no room yet, and else what is said from the next beginning of a line.
    fn resume<'a>(&mut self, said: &'a [u8]) -> &'a [u8] {
        let mut rest = said;
        if self.within {
            let end = said.iter().position(|byte| *byte == b'\n').map_or(said.len(), |at| at + 1);
            self.lose(&said[..end]);
            rest = &said[end..];
            if self.within {
                return rest;
            }
        }
        let words = "log lines were lost: they could not be written to this file";
        let words = log::words(words, vec![("bytes", self.lost.into())]);
        let words = if self.whole { words } else { format!("\n{words}") };
        if self.put(words.as_bytes()) < words.len() {
            self.lose(rest);
            return &[];
        }
        self.lost = 0;
        rest
    }

    /// Writes as much as can be written and says how much that was.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Some(last) = bytes[..written].last() {
            self.bytes += written as u64;
            self.whole = *last == b'\n';
        }
        written
    }

    /// Counts what could not be written.
    fn lose(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.lost += bytes.len() as u64;
            self.within = *last != b'\n';
        }
    }

    /// Whether somebody has moved or removed the file.
    fn moved(&self) -> bool {
        let (Ok(ours), Ok(there)) = (self.file.metadata(), fs::metadata(&self.path)) else {
            return true;
        };
        (ours.dev(), ours.ino()) != (there.dev(), there.ino())
    }

    /// Begins the next file. If that cannot be made, the old one goes on.
    fn next(&mut self) {
        if !self.moved() {
            for age in (1..self.files).rev() {
                // There need not be that many yet.
                let _ = fs::rename(aged(&self.path, age - 1), aged(&self.path, age));
            }
        }
        if let Ok(file) = open(&self.path) {
            self.bytes = file.metadata().map(|found| found.len()).unwrap_or_default();
            self.file = file;
            self.whole = true;
        }
    }
}

/// The file that is `age` rotations old.
pub(crate) fn aged(path: &Path, age: usize) -> PathBuf {
    if age == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_full_file_is_followed_by_the_next_at_the_end_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = Log::open(path.clone(), 4, 3).unwrap();
        for said in ["one ", "one\n", "two two\n", "three\n", "four\n"] {
            log.write(said.as_bytes());
        }
        assert_eq!(read(&path), "four\n");
        assert_eq!(read(&aged(&path, 1)), "three\n");
        assert_eq!(read(&aged(&path, 2)), "two two\n");
        assert!(!aged(&path, 3).exists());
    }

    #[test]
    fn what_stood_in_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        fs::write(&path, "before\n").unwrap();
        Log::open(path.clone(), 100, 3).unwrap().write(b"after\n");
        assert_eq!(read(&path), "before\nafter\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = Log::open(path.clone(), 100, 3).unwrap();
        log.write(b"one\n");
        let moved = dir.path().join("elsewhere");
        fs::rename(&path, &moved).unwrap();
        log.write(b"two\n");
        assert_eq!((read(&moved), read(&path)), ("one\n".to_owned(), "two\n".to_owned()));
    }

    #[test]
    fn what_could_not_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = Log::open(path.clone(), 100, 3).unwrap();
        let good = log.file.try_clone().unwrap();
        log.file = File::open(&path).unwrap();
        log.write(b"lost\nlo");
        log.file = good;
        // The rest of what began when nothing could be written.
        log.write(b"st\nkept\n");
        let text = read(&path);
        let (note, kept) = text.split_once('\n').unwrap();
        assert!(note.contains("log lines were lost") && note.ends_with(" bytes=10"), "{note}");
        assert_eq!(kept, "kept\n");
    }

    #[test]
    fn what_was_lost_is_said_on_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = Log::open(path.clone(), 100, 3).unwrap();
        // The disk was full in the middle of a line.
        log.write(b"cu");
        log.lose(b"t\n");
        log.write(b"kept\n");
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (3, "cu", "kept"), "{text}");
        assert!(lines[1].ends_with(" bytes=2"), "{text}");
    }
}
