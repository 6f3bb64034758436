//! The command line.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::{self, PathBuf},
};

use bowline_names::EnvVar;
use clap::{
    ArgMatches, Args, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use crate::{
    bench,
    config::{self, LogFormat, Overrides, Shards},
    daemon, emit,
};

/// A realtime gateway: serves unmodified Socket.IO clients from one binary.
#[derive(Debug, Parser)]
#[command(
    name = "bowline",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Start with: bowline serve"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve clients until told to stop
    #[command(after_help = SERVE_HELP)]
    Serve(Serve),
    #[command(flatten)]
    Daemon(daemon::Command),
    /// Started by `serve` to speak to clients
    #[command(hide = true)]
    Gateway,
    /// Send an event to clients
    #[command(after_help = emit::command::HELP)]
    Emit(emit::command::Arguments),
    /// Measure a server, with clients that cost less than it does
    #[command(after_help = bench::HELP)]
    Bench(bench::Arguments),
    /// The configuration file
    #[command(subcommand)]
    Config(Config),
    /// The rules by which a server raises alerts
    #[command(subcommand)]
    Alerts(Alerts),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Alerts {
    /// Print the built-in rules, as a file to copy from
    Print {
        /// As alerting rules for Prometheus
        #[arg(long)]
        prometheus: bool,
        /// Rules file whose changes count too
        #[arg(long, value_name = "FILE", requires = "prometheus")]
        rules: Option<PathBuf>,
    },
    /// Say all that is wrong with a rules file, with lines; exit code 2 if anything is
    Check {
        /// Rules file, as in `alerts.rules-file`
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say all that is wrong with a configuration, with lines; exit code 2 if anything is
    Check {
        /// Configuration file, instead of --config
        file: Option<PathBuf>,
        #[command(flatten)]
        settings: Settings,
        /// Find the interpreters of services too, and run them to see whether they can run these
        #[arg(long)]
        services: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what will run and where each value comes from
    Show {
        /// The built-in defaults instead, commented, as a file to start from
        #[arg(long, conflicts_with = "json")]
        defaults: bool,
        #[command(flatten)]
        settings: Settings,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a key means, what it takes, what it is, and when a change counts
    Explain {
        /// Such as engine.ping-interval, ping-interval, or engine for the whole table
        key: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Read a key of AI clients on stdin and print what `[ai.keys]` has of it
    #[command(after_help = HASH_KEY_HELP)]
    HashKey,
}

const HASH_KEY_HELP: &str = "\
The server keeps the SHA-256 of a key and never the key, so a key must be one that nobody guesses.

Example:
  openssl rand -hex 24 | tee key | bowline config hash-key";

const SERVE_HELP: &str = "\
Works with no configuration: `/` is an echo, `/relay` sends to everybody, and the page at
http://127.0.0.1:8000/ tries a connection. SIGTERM or Ctrl-C drains; a second one ends at once.

A flag counts for more than its variable, that for more than the file, that for more than the
default. PORT in the environment listens on 0.0.0.0:$PORT.

Examples:
  bowline serve
  bowline serve --listen 0.0.0.0:80 --listen '[::]:80'
  bowline serve --config bowline.toml --shards 4 --log-level debug

Every key of the file, with its default: bowline config show --defaults
Exit codes: 0 drained, 1 failed, 2 wrong usage or configuration, 69 cannot listen, 130 cut short";

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) settings: Settings,

    /// Given by `bowline start`
    #[arg(long, hide = true)]
    pub(crate) daemon: bool,
}

/// What flags and variables say about the configuration: the same for every command that needs
/// one.
#[derive(Debug)]
pub(crate) struct Settings(
    pub(crate) Overrides,
    /// What was said, for another process.
    pub(crate) Typed,
);

/// What a server was told beside its configuration file, in words for another process that may be
/// elsewhere: paths are whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Typed {
    /// The flags, as `--name=value`.
    pub(crate) arguments: Vec<String>,
    /// The variables that took part, by name. They are paths, addresses and the like.
    pub(crate) variables: BTreeMap<String, String>,
}

impl Typed {
    /// All of it as flags. What a flag says, its variable does not.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = self.arguments.clone();
        for (name, value) in &self.variables {
            let (flag, value) = match EnvVar::ALL.iter().find(|row| row.name() == name) {
                Some(EnvVar::Port) => (says(name), format!("0.0.0.0:{value}")),
                _ => (says(name), value.clone()),
            };
            let said = flags.iter().any(|said| name_of(said) == flag);
            if !said {
                flags.push(format!("{flag}={value}"));
            }
        }
        flags
    }

    /// This and, where it says nothing, what was said before. A flag is replaced by a flag; a
    /// variable by a flag or a variable.
    pub(crate) fn or(self, old: &Self) -> Self {
        let given: Vec<String> = self.arguments.iter().map(|flag| name_of(flag)).collect();
        let kept = old.arguments.iter().filter(|flag| !given.contains(&name_of(flag)));
        let arguments = kept.chain(&self.arguments).cloned().collect();
        let set: Vec<String> = self.variables.keys().map(|name| says(name)).collect();
        let mut variables = self.variables;
        for (name, value) in &old.variables {
            let flag = says(name);
            if !given.contains(&flag) && !set.contains(&flag) {
                variables.insert(name.clone(), value.clone());
            }
        }
        Self { arguments, variables }
    }
}

/// The flag that says the same as a variable.
fn says(variable: &str) -> String {
    let row = EnvVar::ALL.iter().find(|row| row.name() == variable);
    let row = row.map(|row| if *row == EnvVar::Port { EnvVar::Listen } else { *row });
    row.and_then(|row| row.flag()).unwrap_or_default().to_owned()
}

/// The name of a flag that is written as `--name=value`.
fn name_of(flag: &str) -> String {
    flag.split('=').next().unwrap_or_default().to_owned()
}

#[derive(Debug, Args)]
struct Flags {
    /// Configuration file
    #[arg(long, hide_env_values = true, value_name = "FILE", env = EnvVar::Config.name())]
    config: Option<PathBuf>,

    /// Public address; may be repeated [default: 127.0.0.1:8000]
    #[arg(
        long,
        hide_env_values = true,
        value_name = "ADDR",
        env = EnvVar::Listen.name(),
        value_delimiter = ',',
        value_parser = config::address,
    )]
    listen: Vec<SocketAddr>,

    /// Where the record, the control socket and the logs are kept
    #[arg(long, hide_env_values = true, value_name = "DIR", env = EnvVar::StateDir.name())]
    state_dir: Option<PathBuf>,

    /// Threads that own sessions [default: auto, one for each core]
    #[arg(long, hide_env_values = true, value_name = "N|auto", env = EnvVar::Shards.name())]
    shards: Option<Shards>,

    /// Address for operators [default: 127.0.0.1:8001]
    #[arg(long, hide_env_values = true, value_name = "ADDR", env = EnvVar::AdminListen.name(), value_parser = config::address)]
    admin_listen: Option<SocketAddr>,

    /// File with the token that operators must show; needed off loopback
    #[arg(long, hide_env_values = true, value_name = "FILE", env = EnvVar::AdminTokenFile.name())]
    admin_token_file: Option<PathBuf>,

    /// Where clients reach this server through what stands in front of it
    #[arg(long, hide_env_values = true, value_name = "URL", env = EnvVar::PublicUrl.name(), value_parser = config::origin)]
    public_url: Option<String>,

    /// error, warn, info, debug, trace or off [default: info]
    #[arg(long, hide_env_values = true, value_name = "LEVEL", env = EnvVar::LogLevel.name(), value_parser = log_level)]
    log_level: Option<String>,

    /// How log lines are written: text, json or auto [default: auto, text on a terminal]
    #[arg(long, hide_env_values = true, value_name = "FORMAT", env = EnvVar::LogFormat.name(), value_enum, hide_possible_values = true)]
    log_format: Option<LogFormat>,
}

impl Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Flags::augment_args_for_update(command)
    }
}

impl FromArgMatches for Settings {
    /// Keeps what derived code forgets: whether a value stood on the command line.
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let said = Flags::from_arg_matches(matches)?;
        let from = |wanted: ValueSource| {
            let rows = EnvVar::ALL.iter().filter(|row| **row != EnvVar::Wait);
            rows.filter(move |row| {
                let id = row.flag().map(id_of).unwrap_or_default();
                // Some tables of variables belong to other commands.
                let source = matches.try_contains_id(&id).ok().and(matches.value_source(&id));
                source == Some(wanted)
            })
        };
        let written: Vec<EnvVar> = from(ValueSource::CommandLine).copied().collect();
        let mut variables: BTreeMap<String, String> = from(ValueSource::EnvVariable)
            .map(|row| (row.name().to_owned(), values(matches, *row).join(",")))
            .collect();
        let port = env::var(EnvVar::Port.name()).ok().filter(|port| !port.is_empty());
        if let Some(port) = port.as_ref().filter(|_| said.listen.is_empty()) {
            variables.insert(EnvVar::Port.name().to_owned(), port.clone());
        }
        let arguments = written.iter().flat_map(|row| {
            let flag = row.flag().unwrap_or_default();
            values(matches, *row).into_iter().map(move |value| format!("{flag}={value}"))
        });
        let typed = Typed { arguments: arguments.collect(), variables };
        let flags = written.iter().filter_map(|row| row.flag()).map(str::to_owned).collect();
        let overrides = Overrides {
            file: said.config.map(from_here),
            listen: said.listen,
            port,
            state_dir: said.state_dir.map(from_here),
            shards: said.shards,
            admin_listen: said.admin_listen,
            admin_token_file: said.admin_token_file.map(from_here),
            public_url: said.public_url,
            log_level: said.log_level,
            log_format: said.log_format,
            flags,
        };
        Ok(Self(overrides, typed))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Serve {
    /// What was said here and in the environment.
    pub(crate) fn overrides(self) -> Overrides {
        self.settings.0
    }
}

/// The values of a flag as they were written there or in its variable.
fn values(matches: &ArgMatches, row: EnvVar) -> Vec<String> {
    const PATHS: [EnvVar; 3] = [EnvVar::Config, EnvVar::StateDir, EnvVar::AdminTokenFile];
    let raw = matches.get_raw(&id_of(row.flag().unwrap_or_default())).into_iter().flatten();
    raw.map(|value| {
        let whole = PATHS.contains(&row).then(|| from_here(value.into()));
        whole.map_or_else(|| value.to_owned(), Into::into).to_string_lossy().into_owned()
    })
    .collect()
}

/// What the library calls a flag.
fn id_of(flag: &str) -> String {
    flag.trim_start_matches('-').replace('-', "_")
}

/// A path as typed here, for a process that may be elsewhere when it uses it.
pub(crate) fn from_here(path: PathBuf) -> PathBuf {
    path::absolute(&path).unwrap_or(path)
}

/// The variable that a value comes from which could not be read, if it is from none of the flags.
pub(crate) fn blamed(error: &clap::Error) -> Option<&'static str> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let flag = text(ContextKind::InvalidArg)?.split(' ').next()?;
    let row = EnvVar::ALL.into_iter().find(|row| row.flag() == Some(flag))?;
    let said = env::args().any(|word| name_of(&word) == flag);
    let value = env::var(row.name()).ok()?;
    let bad = text(ContextKind::InvalidValue)?;
    (!said && value.contains(bad)).then(|| row.name())
}

fn log_level(text: &str) -> Result<String, String> {
    config::log_level(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_flag_has_the_variable_that_the_table_says() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for arg in serve.get_arguments() {
            let Some(long) = arg.get_long().filter(|long| !["help", "daemon"].contains(long))
            else {
                continue;
            };
            let flag = format!("--{long}");
            let row = EnvVar::ALL.iter().find(|row| row.flag() == Some(&flag));
            let name = row.unwrap_or_else(|| panic!("{flag} has no variable")).name();
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(name));
        }
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn listen_may_be_repeated() {
        let words = ["bowline", "serve", "--listen", "127.0.0.1:1", "--listen", "[::1]:2"];
        let Command::Serve(serve) = Cli::try_parse_from(words).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(serve.overrides().listen.len(), 2);
    }

    #[test]
    fn flags_can_be_written_down_for_another_command_line() {
        let words = ["bowline", "serve", "--listen", "127.0.0.1:1,[::1]:2", "--shards=2"];
        let words = words.into_iter().chain(["--config", "/etc/x y.toml"]);
        let Command::Serve(serve) = Cli::try_parse_from(words).unwrap().command else {
            panic!("another command");
        };
        let again = ["bowline".to_owned(), "serve".to_owned()]
            .into_iter()
            .chain(serve.settings.1.arguments);
        let Command::Serve(again) = Cli::try_parse_from(again).unwrap().command else {
            panic!("another command");
        };
        let (one, other) = (serve.settings.0, again.settings.0);
        assert_eq!((one.listen, one.file), (other.listen, other.file));
        assert_eq!(other.flags, ["--config", "--listen", "--shards"]);
    }

    fn typed(arguments: &[&str], variables: &[(&str, &str)]) -> Typed {
        Typed {
            arguments: arguments.iter().map(|flag| (*flag).to_owned()).collect(),
            variables: (variables.iter())
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn flags_are_kept_unless_they_are_given_anew() {
        let old = ["--config=a.toml", "--listen=[::1]:1", "--listen=[::1]:2", "--shards=2"];
        let both = typed(&["--listen=127.0.0.1:3"], &[]).or(&typed(&old, &[]));
        assert_eq!(both.arguments, ["--config=a.toml", "--shards=2", "--listen=127.0.0.1:3"]);
    }

    #[test]
    fn variables_are_kept_unless_a_flag_or_a_variable_says_the_same_anew() {
        let old = [("BOWLINE_CONFIG", "/a.toml"), ("BOWLINE_SHARDS", "2"), ("PORT", "80")];
        let new = typed(&["--shards=3"], &[("BOWLINE_LISTEN", "[::1]:1")]);
        let both = new.or(&typed(&[], &old));
        assert_eq!(both.flags(), ["--shards=3", "--config=/a.toml", "--listen=[::1]:1"]);
        let port = typed(&[], &[("PORT", "81")]).or(&typed(&[], &old));
        assert_eq!(port.flags(), ["--config=/a.toml", "--shards=2", "--listen=0.0.0.0:81"]);
        // A flag still counts for more than a variable.
        let kept = typed(&[], &[("BOWLINE_SHARDS", "4")]).or(&typed(&["--shards=2"], &[]));
        assert_eq!(kept.flags(), ["--shards=2"]);
    }
}
