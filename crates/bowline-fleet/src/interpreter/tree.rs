//! The directories around a service, from it up to the root of its repository.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// What the root of a repository has.
const ROOT_MARKS: &[&str] = &[".git", ".hg", ".jj", ".svn"];

/// What a project has whose repository is not there, in a container for example.
const PROJECT_MARKS: &[&str] = &[
    "pyproject.toml",
    "uv.lock",
    "poetry.lock",
    "requirements.txt",
    "setup.py",
    "environment.yml",
    "package.json",
];

/// As much as is read of a file that says which version or environment is wanted.
const FILE_BYTES: u64 = 1 << 20;

/// The directories of a service, the nearest first, without doubles: each of `starts` and those above it
/// up to the root of the repository. Where there is no repository, up to the highest directory that
/// has the marks of a project without a gap; where there are none, only `starts` themselves.
pub(super) fn upwards(starts: &[&Path]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for start in starts {
        for directory in start.ancestors().take(height(start)) {
            if !found.iter().any(|known| known == directory) {
                found.push(directory.to_owned());
            }
        }
    }
    found
}

/// How many directories, the first one among them, belong to the repository.
fn height(start: &Path) -> usize {
    let has = |directory: &Path, marks: &[&str]| {
        marks.iter().any(|mark| directory.join(mark).symlink_metadata().is_ok())
    };
    if let Some(root) = start.ancestors().position(|directory| has(directory, ROOT_MARKS)) {
        return root + 1;
    }
    let marked = |directory: &&Path| has(directory, PROJECT_MARKS);
    match start.ancestors().position(|directory| marked(&directory)) {
        Some(first) => first + start.ancestors().skip(first).take_while(marked).count(),
        None => 1,
    }
}

/// The first of the directories that has a file of this name, with what is in it.
pub(super) fn nearest(directories: &[PathBuf], name: &str) -> Option<(PathBuf, String)> {
    directories.iter().find_map(|directory| {
        let path = directory.join(name);
        read(&path).ok().map(|text| (path, text))
    })
}

/// Reads a file that people write; never a device, nor more than [`FILE_BYTES`].
pub(super) fn read(path: &Path) -> io::Result<String> {
    use io::Read as _;

    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// The first program of one of these names in `path`.
pub(super) fn program(names: &[&str], directory: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    names.iter().find_map(|name| crate::os::program::find(OsStr::new(name), directory, path).ok())
}
