//! The command line.

use std::{env, net::SocketAddr, path::PathBuf};

use bowline_names::EnvVar;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, LogFormat, Overrides, Shards};

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
    /// The configuration file
    #[command(subcommand)]
    Config(Config),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every key with its default and what it means
    Show {
        /// The built-in defaults, as a file to start from
        #[arg(long, required = true)]
        defaults: bool,
    },
}

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

    /// Address for operators, on loopback [default: 127.0.0.1:8001]
    #[arg(long, hide_env_values = true, value_name = "ADDR", env = EnvVar::AdminListen.name(), value_parser = config::address)]
    admin_listen: Option<SocketAddr>,

    /// Threads that own sessions [default: auto, one for each core]
    #[arg(long, hide_env_values = true, value_name = "N|auto", env = EnvVar::Shards.name())]
    shards: Option<Shards>,

    /// error, warn, info, debug, trace or off [default: info]
    #[arg(long, hide_env_values = true, value_name = "LEVEL", env = EnvVar::LogLevel.name(), value_parser = log_level)]
    log_level: Option<String>,

    /// How log lines are written [default: text]
    #[arg(long, hide_env_values = true, value_name = "FORMAT", env = EnvVar::LogFormat.name(), value_enum, hide_possible_values = true)]
    log_format: Option<LogFormat>,
}

impl Serve {
    /// What was said here and in the environment.
    pub(crate) fn overrides(self) -> Overrides {
        Overrides {
            file: self.config,
            listen: self.listen,
            port: env::var(EnvVar::Port.name()).ok(),
            admin_listen: self.admin_listen,
            shards: self.shards,
            log_level: self.log_level,
            log_format: self.log_format,
        }
    }
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
            let Some(long) = arg.get_long().filter(|long| *long != "help") else { continue };
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
        assert_eq!(serve.listen.len(), 2);
    }
}
