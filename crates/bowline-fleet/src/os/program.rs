//! Finds the file to be executed and says why one cannot be: the system has one word for six
//! different mistakes.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use super::user::Account;

/// Where programs are looked for if the environment names no place, as execvp(3) does.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// As much of a file as the kernel looks at for `#!`.
const FIRST_LINE_BYTES: usize = 256;

/// Finds the file that `program` means: as it is written if there is a slash in it, from
/// `directory` on, else the first of that name in `path` that can be executed.
///
/// # Errors
/// In words: it is nowhere.
pub fn find(program: &OsStr, directory: &Path, path: Option<&OsStr>) -> Result<PathBuf, String> {
    if program.is_empty() {
        return Err("the command is empty".to_owned());
    }
    if program.as_bytes().contains(&b'/') {
        let file = directory.join(program);
        return match fs::metadata(&file) {
            Ok(found) if found.is_dir() => Err(format!("{} is a directory", file.display())),
            Ok(_) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(&file)),
            // The user of the service may be allowed to.
            Err(_) => Ok(file),
        };
    }
    let path = path.map_or_else(|| OsString::from(DEFAULT_PATH), OsStr::to_owned);
    let mut not_executable = None;
    for place in std::env::split_paths(&path) {
        let file = directory.join(place).join(program);
        let Ok(found) = fs::metadata(&file) else { continue };
        if !found.is_file() {
            continue;
        }
        if found.permissions().mode() & 0o111 != 0 {
            return Ok(file);
        }
        not_executable.get_or_insert(file);
    }
    match not_executable {
        Some(file) => Err(format!("{} is not executable (chmod +x)", file.display())),
        None => Err(format!(
            "there is no program called {:?} in PATH ({})",
            program,
            path.to_string_lossy()
        )),
    }
}

fn missing(file: &Path) -> String {
    match fs::symlink_metadata(file) {
        Ok(link) if link.is_symlink() => {
            let target = fs::read_link(file).unwrap_or_default();
            format!(
                "{} is a symbolic link to {}, which does not exist",
                file.display(),
                target.display()
            )
        }
        _ => format!("{} does not exist", file.display()),
    }
}

/// Why the system would not execute `file`.
pub(super) fn refused(file: &Path, account: Option<&Account>, errno: i32) -> String {
    let shown = file.display();
    let error = io::Error::from_raw_os_error(errno);
    match errno {
        libc::ENOENT => match interpreter(file) {
            Some(interpreter) if !Path::new(&interpreter).exists() => format!(
                "{shown} begins with `#!{}`, and there is no such program{}",
                interpreter.to_string_lossy(),
                // A file that was written on Windows.
                if interpreter.as_bytes().ends_with(b"\r") {
                    ": the line ends as lines do on Windows (dos2unix)"
                } else {
                    ""
                }
            ),
            _ if file.exists() => format!(
                "{shown} is there, but the loader that it names is not: it was built for another \
                 system or C library"
            ),
            _ => missing(file),
        },
        libc::EACCES => match fs::metadata(file) {
            Ok(found) if found.is_dir() => format!("{shown} is a directory"),
            Ok(found) if found.mode() & 0o111 == 0 => {
                format!("{shown} is not executable (chmod +x)")
            }
            _ => {
                let who = account.map_or_else(
                    || "this user".to_owned(),
                    |account| format!("the user {}", account.name.to_string_lossy()),
                );
                format!(
                    "{who} may not execute {shown}, or its file system is mounted noexec: {error}"
                )
            }
        },
        libc::ENOEXEC => format!(
            "{shown} is neither a program for this machine nor a script: a script's first line \
             names its interpreter, as in `#!/bin/sh`"
        ),
        libc::E2BIG => format!("arguments and environment together are too long: {error}"),
        libc::ETXTBSY => format!("{shown} is being written just now: {error}"),
        _ => format!("{shown} cannot be executed: {error}"),
    }
}

/// What the first line of a script names.
fn interpreter(file: &Path) -> Option<OsString> {
    let mut first = [0; FIRST_LINE_BYTES];
    let length = File::open(file).ok()?.read(&mut first).ok()?;
    let line = first[..length].strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
    let name = line.split(|byte| *byte == b' ' || *byte == b'\t').next()?;
    (!name.is_empty()).then(|| OsStr::from_bytes(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_name_is_looked_for_in_the_path_and_a_path_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        file(&here, "tool", "", 0o644);
        let tool = file(&there, "tool", "", 0o755);
        let path = std::env::join_paths([&here, &there]).unwrap();
        let root = Path::new("/");
        assert_eq!(find("tool".as_ref(), root, Some(&path)).unwrap(), tool);
        let words = find("tool".as_ref(), root, Some(here.as_os_str())).unwrap_err();
        assert!(words.contains("not executable"), "{words}");
        assert_eq!(
            find("./there/tool".as_ref(), dir.path(), None).unwrap().canonicalize().unwrap(),
            tool.canonicalize().unwrap()
        );
        let words = find("none".as_ref(), root, Some(&path)).unwrap_err();
        assert!(words.contains("no program called \"none\""), "{words}");
    }

    #[test]
    fn each_mistake_has_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let wrong = file(dir, "wrong", "#!/no/such/python -u\n", 0o755);
        let dos = file(dir, "dos", "#!/bin/sh\r\n", 0o755);
        let plain = file(dir, "plain", "", 0o644);
        for (path, errno, words) in [
            (&wrong, libc::ENOENT, "`#!/no/such/python`"),
            (&dos, libc::ENOENT, "Windows"),
            (&dir.join("gone"), libc::ENOENT, "does not exist"),
            (&plain, libc::ENOENT, "loader"),
            (&plain, libc::EACCES, "chmod +x"),
            (&dos, libc::EACCES, "noexec"),
            (&plain, libc::ENOEXEC, "first line"),
            (&plain, libc::E2BIG, "too long"),
        ] {
            let said = refused(path, None, errno);
            assert!(said.contains(words), "{said}");
        }
        std::os::unix::fs::symlink("/no/such", dir.join("link")).unwrap();
        let words = find("./link".as_ref(), dir, None).unwrap_err();
        assert!(words.contains("symbolic link to /no/such"), "{words}");
    }
}
