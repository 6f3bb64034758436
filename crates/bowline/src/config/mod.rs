//! Configuration, in two stages: what was written, and what will run.
//!
//! A file is read into [`Written`], where every key is optional; command line and environment
//! fill [`Overrides`]; [`Config`] is what comes of them: flag > environment > file > default.
//! Reading never stops at the first mistake: all of them are reported at once, each with its
//! line.
//!
//! The reference that people read is [`DEFAULT_FILE`]; a test proves that it says what
//! [`Config::default`] says.

mod document;
mod effective;
mod later;
mod suggest;
mod value;
mod written;

use std::{fmt, fs, io, path::PathBuf};

pub(crate) use effective::{Allowance, Config, Cookie, Handler, LogFormat, Overrides, Shards};
pub(crate) use value::{address, duration_text, log_level};
pub(crate) use written::Written;

/// The commented default configuration.
pub(crate) const DEFAULT_FILE: &str = include_str!("default.toml");

/// One mistake, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A line of the configuration file, from 1.
    Line(usize),
    /// A flag or a variable.
    Outside(&'static str),
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum Error {
    Unreadable { path: PathBuf, error: io::Error },
    Invalid { file: Option<PathBuf>, mistakes: Vec<Mistake> },
}

/// Makes the configuration that will run.
///
/// # Errors
/// When the file cannot be read, or when there are mistakes in it or in what overrides it.
pub(crate) fn load(overrides: Overrides) -> Result<Config, Error> {
    let (written, mut mistakes) = match &overrides.file {
        None => (Written::default(), Vec::new()),
        Some(path) => match fs::read_to_string(path) {
            Ok(text) => written::read(&text),
            Err(error) => return Err(Error::Unreadable { path: path.clone(), error }),
        },
    };
    let file = overrides.file.clone();
    let config = Config::of(written, overrides, &mut mistakes);
    if mistakes.is_empty() {
        return Ok(config);
    }
    mistakes.sort_by(|a, b| a.place.cmp(&b.place));
    Err(Error::Invalid { file, mistakes })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "cannot read {}: {error}", path.display())
            }
            Self::Invalid { file, mistakes } => {
                let mistakes_word = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
                write!(f, "the configuration has {} {mistakes_word}", mistakes.len())?;
                let name = file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
                for Mistake { place, message } in mistakes {
                    match place {
                        Place::Line(line) => write!(f, "\n  {name}:{line}: {message}")?,
                        Place::Outside(what) => write!(f, "\n  {what}: {message}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The mistakes of a file, as `line: message`.
    fn mistakes(text: &str) -> Vec<String> {
        let (written, mut mistakes) = written::read(text);
        Config::of(written, Overrides::default(), &mut mistakes);
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        (mistakes.into_iter())
            .map(|Mistake { place, message }| match place {
                Place::Line(line) => format!("{line}: {message}"),
                Place::Outside(what) => format!("{what}: {message}"),
            })
            .collect()
    }

    fn config(text: &str, overrides: Overrides) -> Config {
        let (written, mut mistakes) = written::read(text);
        let config = Config::of(written, overrides, &mut mistakes);
        assert_eq!(mistakes, []);
        config
    }

    #[test]
    fn the_default_file_says_what_the_built_in_defaults_say() {
        assert_eq!(config(DEFAULT_FILE, Overrides::default()), Config::default());
    }

    #[test]
    fn the_default_file_names_every_key() {
        let (written, _) = written::read(DEFAULT_FILE);
        let printed = format!("{written:#?}");
        assert!(!printed.contains("None"), "{printed}");
    }

    #[test]
    fn an_empty_file_changes_nothing() {
        assert_eq!(config("", Overrides::default()), Config::default());
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_lines() {
        let text = r#"
[server]
lisen = "127.0.0.1:9000"
shards = 0

[engine]
ping-interval = "25 parsecs"
transports = ["polling", "telepathy"]
max-payload = 1.5

[services.api]
command = ["true"]

[namespaces."/chat"]
handler = { http = "app" }

[sever]
"#;
        assert_eq!(
            mistakes(text),
            [
                "3: unknown key `server.lisen`; did you mean `listen`?",
                "4: `server.shards` is 0; it must be \"auto\" or a number from 1 to 255",
                "7: `engine.ping-interval` is \"25 parsecs\"; write a duration such as \"500ms\", \"25s\" or \"2m\"",
                "8: `engine.transports` names \"telepathy\"; it may name \"polling\" and \"websocket\"",
                "9: `engine.max-payload` is 1.5; write a size such as \"64KiB\", \"1MB\" or a number of bytes",
                "11: `services` is not in this version",
                "15: `namespaces.\"/chat\".handler` with `http` is not in this version; \"echo\" and \"relay\" are",
                "17: unknown table `sever`; did you mean `server`?",
            ]
        );
    }

    #[test]
    fn a_mistake_in_the_notation_does_not_hide_the_others() {
        let found = mistakes("[server]\nlisten = \n[engine]\nping-intervall = \"1s\"\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("2: "), "{found:?}");
        assert_eq!(
            found[1],
            "4: unknown key `engine.ping-intervall`; did you mean `ping-interval`?"
        );
    }

    #[test]
    fn keys_of_later_versions_are_refused_as_such() {
        assert_eq!(
            mistakes(
                "[server]\nstate-dir = \"/tmp\"\n[server.tls]\n[continuity]\nwindow = \"2m\"\n"
            ),
            [
                "2: `server.state-dir` is not in this version",
                "3: `server.tls` is not in this version",
                "4: `continuity` is not in this version",
            ]
        );
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = "[server]\nlisten = \"127.0.0.1:1000\"\n";
        let listen = |overrides| config(file, overrides).server.listen;
        let port = || Some("3000".to_owned());

        assert_eq!(listen(Overrides::default()), [address("127.0.0.1:1000").unwrap()]);
        assert_eq!(
            listen(Overrides { port: port(), ..Overrides::default() }),
            [address("0.0.0.0:3000").unwrap()]
        );
        let flag = vec![address("127.0.0.1:2000").unwrap()];
        let overrides = Overrides { listen: flag.clone(), port: port(), ..Overrides::default() };
        assert_eq!(listen(overrides), flag);
    }

    #[test]
    fn a_port_variable_that_is_no_port_is_a_mistake_of_the_environment() {
        let mut mistakes = Vec::new();
        let overrides =
            Overrides { port: Some("tcp://10.0.0.1".to_owned()), ..Overrides::default() };
        Config::of(Written::default(), overrides, &mut mistakes);
        assert_eq!(mistakes.len(), 1);
        assert_eq!(mistakes[0].place, Place::Outside("PORT"));
    }

    #[test]
    fn the_admin_listener_stays_on_loopback() {
        assert_eq!(
            mistakes("[admin]\nlisten = \"0.0.0.0:8001\"\n"),
            ["2: `admin.listen` is 0.0.0.0:8001, which others can reach; off loopback it takes \
                 `admin.token-file`, which is not in this version"]
        );
    }

    #[test]
    fn namespaces_in_a_file_replace_the_default_ones() {
        let config =
            config("[namespaces.\"/room-*\"]\nhandler = \"relay\"\n", Overrides::default());
        assert_eq!(config.namespaces.0, [("/room-*".to_owned(), Handler::Relay)]);
    }

    #[test]
    fn a_namespace_needs_a_slash_and_a_handler() {
        assert_eq!(
            mistakes("[namespaces.chat]\n[namespaces.\"/x\"]\nhandler = \"eko\"\n"),
            [
                "1: `namespaces.\"chat\"` must begin with a slash; did you mean `/chat`?",
                "1: `namespaces.\"chat\".handler` is missing; it may be \"echo\" or \"relay\"",
                "3: `namespaces.\"/x\".handler` is \"eko\"; it may be \"echo\" or \"relay\"; did you mean \"echo\"?",
            ]
        );
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        let text = "[server]\ndrain = \"1m 30s\"\n[limits]\nqueued-bytes-per-session = \"1MiB\"\n\
                    [engine]\nmax-payload = \"2MB\"\n";
        let config = config(text, Overrides::default());
        assert_eq!(config.server.drain, Duration::from_secs(90));
        assert_eq!(config.limits.queued_bytes_per_session, 1 << 20);
        assert_eq!(config.engine.max_payload_bytes, 2_000_000);
    }
}
