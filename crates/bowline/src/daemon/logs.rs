//! `bowline logs`: what a daemon has said, and says.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs::{self, File},
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bowline_names::{ErrorCode, Exit};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{paths, restart, status::settled, words::colours_on_stdout};
use crate::{
    charter::Management,
    clock,
    config::Overrides,
    failure::Failure,
    instance::{Paths, Standing},
    logfile::{FILES, aged},
};

/// How often a file that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Which lines, and how.
#[derive(Debug, Clone)]
pub(crate) struct LogQuery {
    /// How many of the last lines; `None` is all.
    pub(crate) lines: Option<usize>,
    /// Only those since then.
    pub(crate) since: Option<Since>,
    /// Whether to wait for more.
    pub(crate) follow: bool,
    /// Whether lines stay as they stand in the file.
    pub(crate) raw: bool,
}

/// A point in time, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    Ago(Duration),
    At(Timestamp),
}

/// Shows the log.
///
/// # Errors
/// When there is none, or when it cannot be read.
pub(crate) fn logs(overrides: &Overrides, query: &LogQuery) -> Result<Exit, Failure> {
    let paths = paths(overrides)?;
    let path = find(&paths)?;
    let since = query.since.map(|since| since.at(now()));
    let mut file = File::open(&path).map_err(|error| unreadable(&path, &error))?;

    let mut lines = VecDeque::new();
    let mut keep = Since::filter(since);
    for age in (1..FILES).rev() {
        let text = fs::read(aged(&path, age)).unwrap_or_default();
        take(&text, query.lines, &mut keep, &mut lines);
    }
    let mut newest = Vec::new();
    file.read_to_end(&mut newest).map_err(|error| unreadable(&path, &error))?;
    // A line that is being written is shown when it is whole.
    let end = newest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = newest.split_off(end);
    take(&newest, query.lines, &mut keep, &mut lines);

    let colours = colours_on_stdout();
    let raw = query.raw || !io::stdout().is_terminal();
    for line in lines {
        if show(&line, raw, colours).is_err() {
            return Ok(Exit::Ok);
        }
    }
    if query.follow { follow(&path, file, rest, raw, colours) } else { Ok(Exit::Ok) }
}

/// The file of the server that runs, or of the one that ran last.
fn find(paths: &Paths) -> Result<PathBuf, Failure> {
    let missing = |message: String| Err(Failure::new(ErrorCode::LogMissing, message));
    if let Standing::Running(record) = settled(paths) {
        return match (record.log, record.management) {
            (Some(log), _) => Ok(log),
            (None, Management::Systemd) => {
                let unit = restart::unit(record.pid).unwrap_or_else(|| "bowline".to_owned());
                missing(format!("the log is in the journal: use `journalctl -u {unit}`"))
            }
            (None, _) => missing(format!(
                "pid {} runs in the foreground and says on its stderr what it has to say",
                record.pid
            )),
        };
    }
    let path = paths.log();
    match path.try_exists() {
        Ok(true) => Ok(path),
        Ok(false) => missing(format!("there is no {}", path.display())),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorCode::InstanceDenied,
        _ => ErrorCode::LogMissing,
    };
    Failure::new(code, format!("cannot read {}: {error}", path.display()))
}

/// Appends the lines that are wanted and lets go of those that are too many.
fn take(
    text: &[u8],
    most: Option<usize>,
    keep: &mut impl FnMut(&str) -> bool,
    lines: &mut VecDeque<String>,
) {
    for line in String::from_utf8_lossy(text).lines() {
        if keep(line) {
            lines.push_back(line.to_owned());
            if most.is_some_and(|most| lines.len() > most) {
                lines.pop_front();
            }
        }
    }
}

/// Shows what is written from now on, in the file that has the name at the time.
fn follow(
    path: &Path,
    mut file: File,
    mut rest: Vec<u8>,
    raw: bool,
    colours: bool,
) -> Result<Exit, Failure> {
    loop {
        // Looked for before the old one is read for the last time: nothing is written to it after.
        let next = File::open(path).ok().filter(|next| !same(next, &file));
        file.read_to_end(&mut rest).map_err(|error| unreadable(path, &error))?;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if show(line.trim_end_matches('\n'), raw, colours).is_err() {
                // Nobody reads any more.
                return Ok(Exit::Ok);
            }
        }
        match next {
            Some(next) => file = next,
            None => thread::sleep(LOOK),
        }
    }
}

fn same(one: &File, other: &File) -> bool {
    let (Ok(one), Ok(other)) = (one.metadata(), other.metadata()) else { return false };
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn show(line: &str, raw: bool, colours: bool) -> io::Result<()> {
    let readable = if raw { None } else { readable(line, colours) };
    let text = readable.unwrap_or_else(|| format!("{line}\n"));
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a JSON line as people read it; `None` if it is no such line.
pub(super) fn readable(line: &str, colours: bool) -> Option<String> {
    let mut object: Map<String, Value> = serde_json::from_str(line).ok()?;
    let mut word = |name: &str| Some(object.remove(name)?.as_str()?.to_owned());
    let (time, level, message) = (word("timestamp")?, word("level")?, word("message")?);
    word("target");
    let (soft, paint, end) = match (colours, &*level) {
        (false, _) => ("", "", ""),
        (true, "ERROR") => ("\x1b[2m", "\x1b[1;31m", "\x1b[0m"),
        (true, "WARN") => ("\x1b[2m", "\x1b[33m", "\x1b[0m"),
        (true, "INFO") => ("\x1b[2m", "\x1b[32m", "\x1b[0m"),
        (true, _) => ("\x1b[2m", "\x1b[2m", "\x1b[0m"),
    };
    let time = time.parse().map_or(time, |time: Timestamp| format!("{time:.3}"));
    // What a client has said must not steer the terminal.
    let message: String = message.chars().flat_map(harmless).collect();
    let mut text = format!("{soft}{time}{end} {paint}{level:>5}{end} {message}");
    for (name, value) in &object {
        // Writing to a string cannot fail.
        let _ = match value {
            Value::String(value) if is_plain(value) => {
                write!(text, " {soft}{name}={end}{value}")
            }
            value => {
                // JSON lets the controls above 127 stand as they are.
                let value: String = value.to_string().chars().flat_map(harmless).collect();
                write!(text, " {soft}{name}={end}{value}")
            }
        };
    }
    text.push('\n');
    Some(text)
}

/// Whether a value can be read without quotes.
fn is_plain(value: &str) -> bool {
    let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=');
    !value.is_empty() && !value.contains(strange)
}

fn harmless(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_debug());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// Whether a line may say why a server ended: everything but what a log says of its usual course.
pub(super) fn is_bad_news(line: &str) -> bool {
    let level = |line: &str| {
        let object: Value = serde_json::from_str(line).ok()?;
        Some(object.get("level")?.as_str()?.to_owned())
    };
    !matches!(level(line).as_deref(), Some("INFO" | "DEBUG" | "TRACE"))
}

/// When a line was written, in either format.
fn time_of(line: &str) -> Option<Timestamp> {
    let text = match line.strip_prefix(r#"{"timestamp":""#) {
        Some(rest) => rest.split('"').next()?,
        None => line.split(' ').next()?,
    };
    text.parse().ok()
}

impl Since {
    /// Reads `90s`, `2h 30m` or a time such as `2026-11-22T04:00:00Z`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        // Without an offset it is a time on the clocks of this machine.
        let civil: Result<jiff::civil::DateTime, _> = text.parse();
        civil
            .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::system()))
            .map(|zoned| Self::At(zoned.timestamp()))
            .map_err(|_| {
                "write how long ago, as \"5m\" or \"2h\", or when, as \"2026-11-22 04:00\""
                    .to_owned()
            })
    }

    fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => SignedDuration::try_from(ago)
                .ok()
                .and_then(|ago| now.checked_sub(ago).ok())
                .unwrap_or(Timestamp::MIN),
        }
    }

    /// Passes lines from a time on. A line without a time belongs to the one before it.
    fn filter(since: Option<Timestamp>) -> impl FnMut(&str) -> bool {
        let mut passes = since.is_none();
        move |line| {
            if let (Some(since), Some(time)) = (since, time_of(line)) {
                passes = time >= since;
            }
            passes
        }
    }
}

fn now() -> Timestamp {
    let ms = i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"timestamp":"2026-11-22T04:00:01.123456Z","level":"WARN","message":"slow","sid":"a b","n":2,"target":"bowline"}"#;

    #[test]
    fn a_json_line_is_shown_to_people_as_text() {
        assert_eq!(
            readable(JSON, false).unwrap(),
            "2026-11-22T04:00:01.123Z  WARN slow n=2 sid=\"a b\"\n"
        );
        assert_eq!(readable("thread 'main' panicked", false), None);
        assert_eq!(readable("{}", false), None);
    }

    #[test]
    fn only_the_usual_course_is_no_bad_news() {
        assert!(is_bad_news(JSON));
        assert!(is_bad_news("error[start-failed]: no"));
        assert!(!is_bad_news(&JSON.replace("WARN", "INFO")));
    }

    #[test]
    fn lines_since_a_time_have_those_that_belong_to_them() {
        let text = "2026-11-22T03:59:59.000Z  INFO old\n  of it\n\
                    2026-11-22T04:00:00.500Z  INFO new\n  of it\n";
        let since = Since::parse("2026-11-22T04:00:00Z").unwrap().at(Timestamp::UNIX_EPOCH);
        let mut lines = VecDeque::new();
        let text = format!("{text}{JSON}\n");
        take(text.as_bytes(), None, &mut Since::filter(Some(since)), &mut lines);
        assert_eq!(lines, ["2026-11-22T04:00:00.500Z  INFO new", "  of it", JSON]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut lines = VecDeque::new();
        take(b"a\nb\nc\n", Some(2), &mut Since::filter(None), &mut lines);
        assert_eq!(lines, ["b", "c"]);
    }

    #[test]
    fn a_time_is_read_as_people_write_it() {
        let now: Timestamp = "2026-11-22T04:00:00Z".parse().unwrap();
        let at = |text| Since::parse(text).unwrap().at(now).to_string();
        assert_eq!(at("90m"), "2026-11-22T02:30:00Z");
        assert_eq!(at("2026-11-22T03:00:00+01:00"), "2026-11-22T02:00:00Z");
        assert!(Since::parse("2026-11-22 03:00").is_ok());
        assert!(Since::parse("yesterday").is_err());
    }

    #[test]
    fn what_a_client_said_steers_no_terminal() {
        let line = r#"{"timestamp":"2026-11-22T04:16:00Z","level":"INFO","message":"a\u001b[2Jb","packet":"42\u001b]0;x\u0007","n":"\u009b2J"}"#;
        let text = readable(line, false).unwrap();
        assert!(!text.trim_end_matches('\n').contains(char::is_control), "{text:?}");
        assert!(text.contains("a\\u{1b}[2Jb"), "{text}");
    }
}
