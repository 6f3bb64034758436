//! The last lines of a log, read from the end.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use super::file;

/// What is read at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// The most that is looked through for the lines that were asked for.
const BYTES_MAX: u64 = 64 << 20;

/// The last `lines` lines of the log at `path` that has up to `files` files. Bytes that are no UTF-8
/// are replaced.
///
/// # Errors
/// Those of the system. A log that there is not has no lines.
pub fn tail(path: &Path, files: usize, lines: usize) -> io::Result<Vec<String>> {
    of(file::readers(path, files), lines)
}

/// The last lines of these files, the newest first.
pub(super) fn of(files: Vec<(File, u64)>, lines: usize) -> io::Result<Vec<String>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut looked = 0;
    for (file, length) in files {
        let mut position = length;
        // What of the line at the beginning of the last block follows in it.
        let mut rest: Vec<u8> = Vec::new();
        let mut ended = false;
        while position > 0 && found.len() < lines && looked < BYTES_MAX {
            let size = usize::try_from(position).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            position -= size as u64;
            looked += size as u64;
            let mut block = vec![0; size];
            file.read_exact_at(&mut block, position)?;
            block.append(&mut rest);
            let mut end = block.len();
            if !ended {
                ended = true;
                end -= usize::from(block.ends_with(b"\n"));
            }
            while let Some(at) = memchr::memrchr(b'\n', &block[..end]) {
                if found.len() == lines {
                    break;
                }
                found.push(block[at + 1..end].to_vec());
                end = at;
            }
            block.truncate(end);
            rest = block;
        }
        if position == 0 && ended && found.len() < lines {
            found.push(rest);
        }
    }
    let text = |line: Vec<u8>| String::from_utf8_lossy(&line).into_owned();
    Ok(found.into_iter().rev().map(text).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_lines_are_found_across_blocks_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let line = |number: usize| format!("{number} {}", "x".repeat(number % 300));
        let text = |range: std::ops::Range<usize>| -> String {
            range.map(|number| line(number) + "\n").collect()
        };
        fs::write(file::aged(&path, 2), text(0..500)).unwrap();
        fs::write(file::aged(&path, 1), text(500..2000)).unwrap();
        fs::write(&path, text(2000..2001)).unwrap();
        for lines in [0, 1, 2, 3, 700, 1501, 1502, 1999, 2001, 3000] {
            let found = tail(&path, 3, lines).unwrap();
            let expected: Vec<String> = (2001 - lines.min(2001)..2001).map(line).collect();
            assert!(found == expected, "{lines}: {} found", found.len());
        }
        assert!(tail(&dir.path().join("none"), 3, 10).unwrap().is_empty());
    }

    #[test]
    fn empty_lines_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        fs::write(&path, "a\n\n\nb").unwrap();
        assert_eq!(tail(&path, 1, 9).unwrap(), ["a", "", "", "b"]);
        assert_eq!(tail(&path, 1, 2).unwrap(), ["", "b"]);
    }
}
