//! The file in which a server that stops leaves its state to the next.
//!
//! A magic number and a version, then blocks, each with its length and a checksum: the head, which is
//! read before anything is served, and one part for each shard that there was. It is written under
//! another name first, so that there is either a whole file or none; and it is removed as soon as its
//! head was read, so that nothing is ever sent again from a state that was used already.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"bowline\n";
/// Counts up with every change of what the parts are like.
const VERSION: u32 = 1;
/// Bytes of the head at most: an epoch, a key, and a number for each of 255 shards.
const HEAD_BYTES: u64 = 16 * 1024;

/// What a server must know of the one before it at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// What the offsets of its logs began with.
    pub(crate) epoch: u32,
    /// With which it made names into pids.
    pub(crate) key: [u8; 16],
    /// The number of the last record of each log, also of shards that there are no more.
    pub(crate) heads: Vec<u64>,
    /// How many parts follow.
    pub(crate) parts: usize,
}

/// A file whose head was read. It has no name any more.
pub(crate) struct Saved {
    pub(crate) head: Head,
    rest: BufReader<File>,
    /// Bytes of the file that were not read yet.
    left: u64,
}

/// Why a file is of no use.
#[derive(Debug)]
pub(crate) enum SavedError {
    Io(io::Error),
    /// It is not a file of Bowline's.
    Foreign,
    /// It was written by a version that does this in another way.
    Version(u32),
    /// It was cut, or changed, since it was written.
    Corrupt,
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Foreign => f.write_str("it is not a file of this program"),
            Self::Version(version) => {
                write!(f, "it has format {version}, and this version of the program {VERSION}")
            }
            Self::Corrupt => f.write_str("it is damaged"),
        }
    }
}

impl From<io::Error> for SavedError {
    fn from(error: io::Error) -> Self {
        // The length was looked at before: a file that ends early was cut meanwhile.
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Corrupt,
            _ => Self::Io(error),
        }
    }
}

/// Reads the head of a file, if there is one, and removes it: also one that is of no use, since what it
/// tells of will not have been true for long.
pub(crate) fn take(path: &Path) -> Result<Option<Saved>, SavedError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SavedError::Io(error)),
    };
    let saved = read_head(file);
    // One that stays might be used twice.
    fs::remove_file(path)?;
    saved.map(Some)
}

fn read_head(file: File) -> Result<Saved, SavedError> {
    let mut left = file.metadata()?.len();
    let mut rest = BufReader::new(file);
    let (mut magic, mut version) = ([0; MAGIC.len()], [0; 4]);
    let fixed = (magic.len() + version.len()) as u64;
    left = left.checked_sub(fixed).ok_or(SavedError::Foreign)?;
    rest.read_exact(&mut magic)?;
    rest.read_exact(&mut version)?;
    match (magic, u32::from_le_bytes(version)) {
        (MAGIC, VERSION) => {}
        (MAGIC, version) => return Err(SavedError::Version(version)),
        _ => return Err(SavedError::Foreign),
    }
    let head = read_block(&mut rest, &mut left, HEAD_BYTES)?;
    let head = postcard::from_bytes(&head).map_err(|_| SavedError::Corrupt)?;
    Ok(Saved { head, rest, left })
}

impl Saved {
    /// The parts, one for each shard there was.
    pub(crate) fn parts<T: for<'a> Deserialize<'a>>(mut self) -> Result<Vec<T>, SavedError> {
        let mut parts = Vec::new();
        for _ in 0..self.head.parts {
            let part = read_block(&mut self.rest, &mut self.left, u64::MAX)?;
            parts.push(postcard::from_bytes(&part).map_err(|_| SavedError::Corrupt)?);
        }
        if self.left == 0 { Ok(parts) } else { Err(SavedError::Corrupt) }
    }
}

/// Writes a file in place of the one that may be there, for nobody else to read, and says how many
/// bytes it has.
pub(crate) fn write<T: Serialize>(path: &Path, head: &Head, parts: Vec<T>) -> io::Result<u64> {
    let mut unfinished = path.to_owned().into_os_string();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let written = write_to(&unfinished, head, parts).and_then(|bytes| {
        fs::rename(&unfinished, path)?;
        // So that the name is there after a power loss, too.
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(bytes)
    });
    if written.is_err() {
        // Most likely the disk is full.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_to<T: Serialize>(path: &Path, head: &Head, parts: Vec<T>) -> io::Result<u64> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::new(file);
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    let mut bytes = (MAGIC.len() + size_of_val(&VERSION)) as u64;
    bytes += write_block(&mut out, head)?;
    for part in parts {
        bytes += write_block(&mut out, &part)?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(bytes)
}

fn write_block(out: &mut impl Write, block: &impl Serialize) -> io::Result<u64> {
    let block = postcard::to_stdvec(block).map_err(io::Error::other)?;
    let length = (block.len() as u64).to_le_bytes();
    let checksum = crc32fast::hash(&block).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&checksum)?;
    out.write_all(&block)?;
    Ok((length.len() + checksum.len() + block.len()) as u64)
}

fn read_block(from: &mut impl Read, left: &mut u64, max: u64) -> Result<Vec<u8>, SavedError> {
    let (mut length, mut checksum) = ([0; 8], [0; 4]);
    from.read_exact(&mut length)?;
    from.read_exact(&mut checksum)?;
    *left = left.checked_sub((length.len() + checksum.len()) as u64).ok_or(SavedError::Corrupt)?;
    let length = u64::from_le_bytes(length);
    // A length that was changed must not make this take more memory than the file has.
    if length > max {
        return Err(SavedError::Corrupt);
    }
    *left = left.checked_sub(length).ok_or(SavedError::Corrupt)?;
    let mut block = vec![0; usize::try_from(length).map_err(|_| SavedError::Corrupt)?];
    from.read_exact(&mut block)?;
    match crc32fast::hash(&block) == u32::from_le_bytes(checksum) {
        true => Ok(block),
        false => Err(SavedError::Corrupt),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn head() -> Head {
        Head { epoch: 7, key: [9; 16], heads: vec![1, 1 << 40, 0], parts: 2 }
    }

    fn parts() -> Vec<String> {
        vec!["a".repeat(100_000), String::new()]
    }

    #[test]
    fn what_was_written_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let bytes = write(&path, &head(), parts()).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (bytes, 0o600));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let saved = take(&path).unwrap().unwrap();
        assert_eq!(saved.head, head());
        assert!(take(&path).unwrap().is_none());
        assert_eq!(saved.parts::<String>().unwrap(), parts());
    }

    #[test]
    fn a_file_that_is_there_is_replaced_whatever_an_earlier_attempt_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "something else").unwrap();
        fs::write(dir.path().join("state.new"), "half of it").unwrap();
        write(&path, &head(), parts()).unwrap();
        assert_eq!(take(&path).unwrap().unwrap().parts::<String>().unwrap(), parts());
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write(&path, &head(), vec!["abc", "def"]).unwrap();
        let whole = fs::read(&path).unwrap();
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            take(&path)?.unwrap().parts::<String>()
        };
        assert!(read(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut after {end} bytes");
        }
        assert!(read(&[&*whole, b"x"].concat()).is_err());
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert!(read(&changed).is_err(), "byte {at} changed");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_and_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let told = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = take(&path).err().unwrap().to_string();
            assert!(!path.exists());
            error
        };
        assert_eq!(told(b"#!/bin/sh\necho hello\n"), "it is not a file of this program");
        let later = [&MAGIC[..], &2u32.to_le_bytes()].concat();
        assert_eq!(told(&later), "it has format 2, and this version of the program 1");
        let cut = [&MAGIC[..], &VERSION.to_le_bytes(), &[1; 20]].concat();
        assert_eq!(told(&cut), "it is damaged");
    }
}
