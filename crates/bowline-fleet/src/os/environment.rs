//! The environment of a service: that of the server without what is the server's own, then the
//! files, then what the configuration says.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

/// Variables by name.
pub type Environment = BTreeMap<OsString, OsString>;

/// What service managers tell the server about itself. A service that read it would take it for
/// itself: it would write to the server's directories or tell the service manager that the server
/// is ready.
const OWN: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
];

/// What all names begin with that are the server's (settings, tokens) or of the sockets that it was
/// handed.
const OWN_PREFIXES: &[&str] = &["BOWLINE_", "LISTEN_"];

/// As much as a file of variables may hold.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Takes out what is the server's own.
pub fn inherited(all: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
    all.into_iter().filter(|(name, _)| !own(name)).collect()
}

fn own(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    OWN.iter().any(|own| own.as_bytes() == bytes)
        || OWN_PREFIXES.iter().any(|prefix| bytes.starts_with(prefix.as_bytes()))
}

/// Reads a file of `NAME=value` lines as systemd and docker have them: empty lines and those that
/// begin with `#` or `;` say nothing, `export` before a name is passed over, a value in single or
/// double quotes may hold anything (in double quotes `\"`, `\\`, `\$` and `` \` `` stand for the second
/// character). Nothing is expanded.
///
/// # Errors
/// In words, with file and line.
pub fn read(path: &Path) -> Result<Environment, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| cannot(path, &error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| cannot(path, &error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{} is longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    let mut found = Environment::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        match variable(line) {
            Ok(None) => {}
            Ok(Some((name, value))) => {
                found.insert(name, value);
            }
            Err(words) => return Err(format!("{}:{}: {words}", path.display(), number + 1)),
        }
    }
    Ok(found)
}

fn cannot(path: &Path, error: &io::Error) -> String {
    format!("the file of variables {} cannot be read: {error}", path.display())
}

fn variable(line: &[u8]) -> Result<Option<(OsString, OsString)>, &'static str> {
    let line = line.trim_ascii();
    let line = line.strip_prefix(b"export ").unwrap_or(line).trim_ascii_start();
    if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
        return Ok(None);
    }
    let at = memchr::memchr(b'=', line).ok_or("there is no = in this line")?;
    let name = line[..at].trim_ascii_end();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if name.is_empty() || !name.iter().all(plain) || name[0].is_ascii_digit() {
        return Err("this is no name of a variable: letters, digits and _ make one");
    }
    let value = unquoted(line[at + 1..].trim_ascii_start())?;
    if value.contains(&0) {
        return Err("a value cannot hold a zero byte");
    }
    Ok(Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value))))
}

fn unquoted(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (quote, rest) = match value.split_first() {
        Some((quote @ (b'"' | b'\''), rest)) => (*quote, rest),
        _ => return Ok(value.to_vec()),
    };
    let mut plain = Vec::new();
    let mut bytes = rest.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            byte if byte == quote => {
                let next = bytes.find(|byte| !byte.is_ascii_whitespace());
                return match next {
                    None | Some(b'#') => Ok(plain),
                    Some(_) => Err("something follows the closing quote"),
                };
            }
            b'\\' if quote == b'"' => match bytes.next() {
                Some(escaped @ (b'"' | b'\\' | b'$' | b'`')) => plain.push(escaped),
                Some(other) => plain.extend([b'\\', other]),
                None => break,
            },
            byte => plain.push(byte),
        }
    }
    Err("the quote is not closed in this line")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn quotes_comments_and_exports_are_understood() {
        let text =
            "# a\n; b\n\nA=1\nexport B = two words \nC=\"a \\\"b\\\" $x\\n\" # c\nD='\\'\nE=\n";
        let found = read(file(text).path()).unwrap();
        let found: Vec<_> =
            found.iter().map(|(n, v)| (n.to_str().unwrap(), v.to_str().unwrap())).collect();
        let expected =
            [("A", "1"), ("B", "two words"), ("C", "a \"b\" $x\\n"), ("D", "\\"), ("E", "")];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, line, words) in [
            ("A=1\nnonsense\n", ":2:", "no ="),
            ("1A=2\n", ":1:", "no name"),
            ("A=\"x\n", ":1:", "not closed"),
            ("A='x' y\n", ":1:", "follows"),
        ] {
            let error = read(file(text).path()).unwrap_err();
            assert!(error.contains(line) && error.contains(words), "{error}");
        }
        assert!(read(Path::new("/no/such/file")).unwrap_err().contains("/no/such/file"));
    }

    #[test]
    fn what_is_the_servers_own_is_not_handed_on() {
        let all = ["PATH", "NOTIFY_SOCKET", "LISTEN_FDS", "BOWLINE_TOKEN", "STATE_DIRECTORY"];
        let kept = inherited(all.map(|name| (name.into(), "x".into())));
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["PATH"]);
    }
}
