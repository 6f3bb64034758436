//! The arguments of the commands that look after a server.

use std::{path::PathBuf, time::Duration};

use bowline_names::{EnvVar, Exit};
use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::Shell;

use super::{
    Launch,
    link::{self, Form},
    logs::{LogQuery, Since, logs},
    print,
    reload::reload,
    restart::restart,
    service::{self, Act},
    start::start,
    status::status,
    stop::{Ending, stop},
    unit::{Supervisor, unit},
};
use crate::{
    cli::{Cli, Settings, from_here},
    config::Overrides,
    failure::Failure,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve in the background; ends when a client has been answered
    #[command(after_help = START_HELP)]
    Start {
        #[command(flatten)]
        settings: Settings,
        /// How long the first answer is waited for
        #[arg(long, hide_env_values = true, value_name = "TIME", env = EnvVar::Wait.name(), default_value = "30s", value_parser = humantime::parse_duration)]
        wait: Duration,
    },
    /// Send the clients away and end the server
    #[command(after_help = STOP_HELP)]
    Stop {
        #[command(flatten)]
        place: Place,
        /// How long the end is waited for
        #[arg(long, hide_env_values = true, value_name = "TIME", env = EnvVar::Wait.name(), default_value = "60s", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// Cut the clients off instead of sending them away
        #[arg(long)]
        now: bool,
    },
    /// Stop and start what `bowline start` started, with the flags and variables it had
    #[command(after_help = RESTART_HELP)]
    Restart {
        #[command(flatten)]
        settings: Settings,
        /// How long the end is waited for, and then the first answer
        #[arg(long, hide_env_values = true, value_name = "TIME", env = EnvVar::Wait.name(), default_value = "60s", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// Cut the clients off instead of sending them away
        #[arg(long)]
        now: bool,
    },
    /// Say whether a server runs, and how it is
    #[command(after_help = STATUS_HELP)]
    Status {
        #[command(flatten)]
        place: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a server in the background has said
    #[command(after_help = LOGS_HELP)]
    Logs {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        query: Query,
    },
    /// Have the server read its configuration again; nobody is dropped
    #[command(after_help = RELOAD_HELP)]
    Reload {
        #[command(flatten)]
        place: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// The processes that a server looks after; and what looks after a server
    #[command(subcommand)]
    Service(Service),
    /// The connections to chat services that a server keeps for bots
    #[command(subcommand)]
    Link(Link),
    /// Print what a shell needs to complete commands and flags
    #[command(after_help = COMPLETIONS_HELP)]
    Completions { shell: Shell },
}

/// Does what was asked for.
///
/// # Errors
/// What kept it from being done.
pub(crate) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Start { settings: Settings(overrides, typed), wait } => {
            start(&Launch { overrides, typed, wait })
        }
        Command::Stop { place, wait, now } => stop(&place.overrides(), Ending { wait, now }),
        Command::Restart { settings: Settings(overrides, typed), wait, now } => {
            restart(Launch { overrides, typed, wait }, Ending { wait, now })
        }
        Command::Status { place, json } => status(&place.overrides(), json),
        Command::Logs { place, query } => logs(&place.overrides(), &query.into()),
        Command::Reload { place, json } => reload(&place.overrides(), json),
        Command::Service(Service::Start(asked)) => asked.carry_out(Act::Start),
        Command::Service(Service::Stop(asked)) => asked.carry_out(Act::Stop),
        Command::Service(Service::Restart(asked)) => asked.carry_out(Act::Restart),
        Command::Service(Service::Ls { place, json }) => service::ls(&place.overrides(), json),
        Command::Service(Service::Logs { name, place, lines, follow }) => {
            service::logs(&place.overrides(), &name, lines, follow)
        }
        Command::Service(Service::Unit { systemd, launchd: _, settings }) => {
            let Settings(overrides, typed) = settings;
            let supervisor = if systemd { Supervisor::Systemd } else { Supervisor::Launchd };
            unit(supervisor, &overrides, &typed.flags())
        }
        Command::Link(link) => link.carry_out(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut visible(&Cli::command()), "bowline", &mut script);
            Ok(print(&String::from_utf8_lossy(&script)))
        }
    }
}

/// The command line without what is hidden from its help: the generator would complete that too.
fn visible(command: &clap::Command) -> clap::Command {
    // The process ends when it has printed them.
    let name: &'static str = Box::leak(command.get_name().to_owned().into_boxed_str());
    let mut shown = clap::Command::new(name)
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(visible))
        .disable_help_subcommand(true);
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        let version: &'static str = Box::leak(version.to_owned().into_boxed_str());
        shown = shown.version(version);
    }
    shown
}

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Start a service and what it needs; ends when it is ready
    #[command(after_help = ACT_HELP)]
    Start(Asked),
    /// Stop a service until somebody starts it; ends when nothing of it is left
    #[command(after_help = ACT_HELP)]
    Stop(Asked),
    /// Start a service anew; with `overlap` the old one serves until the new one is ready
    #[command(after_help = ACT_HELP)]
    Restart(Asked),
    /// List the services: state, process, what is awaited
    #[command(after_help = LS_HELP)]
    Ls {
        #[command(flatten)]
        place: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a service has written
    #[command(after_help = SERVICE_LOGS_HELP)]
    Logs {
        /// Its name in [services]
        name: String,
        #[command(flatten)]
        place: Place,
        /// How many of the last lines
        #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
        lines: usize,
        /// Wait for more
        #[arg(long, short)]
        follow: bool,
    },
    /// Print a unit that runs `bowline serve` with these flags
    #[command(after_help = UNIT_HELP)]
    Unit {
        /// For systemd, as the one of this machine understands it
        #[arg(long, required_unless_present = "launchd")]
        systemd: bool,
        /// For launchd, of macOS
        #[arg(long, conflicts_with = "systemd")]
        launchd: bool,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Link {
    /// List the links: state, connection, who is there, what waits
    #[command(after_help = LS_HELP)]
    Ls {
        #[command(flatten)]
        place: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one link: how long ago each level was proved, and what was counted
    #[command(after_help = LINK_HELP)]
    Show(OfLink),
    /// Have a link prove that messages reach it; ends when that is known
    #[command(after_help = PROVE_HELP)]
    Probe(OfLink),
    /// Have a link make a new connection, prove it, and close the old one
    #[command(after_help = PROVE_HELP)]
    Renew(OfLink),
    /// Say what became of a message: arrival, hand-over, confirmation, with times
    #[command(after_help = TRACE_HELP)]
    Trace {
        /// The service's id of the message; of Webex also the public one that bots see
        id: String,
        #[command(flatten)]
        place: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Offer messages that were put aside to the bot again
    #[command(after_help = RETRY_HELP)]
    Retry {
        /// The link's name in [links]
        name: String,
        /// The service's id of one message; all of the link without it
        id: Option<String>,
        #[command(flatten)]
        place: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop the messages of a link that is not in [links] any more
    #[command(after_help = DROP_HELP)]
    Drop {
        /// The name that it had
        name: String,
        #[command(flatten)]
        place: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the variables by which a bot finds its link
    #[command(after_help = ENV_HELP)]
    Env {
        /// Its name in [links]
        name: String,
        #[command(flatten)]
        place: Place,
        /// As NAME=value lines, for a file of variables
        #[arg(long, conflicts_with = "json")]
        plain: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which link.
#[derive(Debug, Args)]
pub(crate) struct OfLink {
    /// Its name in [links]
    name: String,
    #[command(flatten)]
    place: Place,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Link {
    fn carry_out(self) -> Result<Exit, Failure> {
        match self {
            Self::Ls { place, json } => link::ls(&place.overrides(), json),
            Self::Show(OfLink { name, place, json }) => link::show(&place.overrides(), &name, json),
            Self::Probe(OfLink { name, place, json }) => {
                link::act(&place.overrides(), link::Act::Probe, &name, json)
            }
            Self::Renew(OfLink { name, place, json }) => {
                link::act(&place.overrides(), link::Act::Renew, &name, json)
            }
            Self::Trace { id, place, json } => link::trace(&place.overrides(), &id, json),
            Self::Retry { name, id, place, json } => {
                link::retry(&place.overrides(), &name, id.as_deref(), json)
            }
            Self::Drop { name, place, json } => link::drop(&place.overrides(), &name, json),
            Self::Env { name, place, plain, json } => {
                let form = match (plain, json) {
                    (_, true) => Form::Json,
                    (true, false) => Form::Plain,
                    (false, false) => Form::Shell,
                };
                link::env(&place.overrides(), &name, form)
            }
        }
    }
}

/// What is asked of a service.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// Its name in [services]
    name: String,
    #[command(flatten)]
    place: Place,
    /// How long is waited for it; 0s asks and goes
    #[arg(long, hide_env_values = true, value_name = "TIME", env = EnvVar::Wait.name(), default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Asked {
    fn carry_out(self, act: Act) -> Result<Exit, Failure> {
        let Self { name, place, wait, json } = self;
        service::act(&place.overrides(), act, &name, wait, json)
    }
}

const ACT_HELP: &str = "\
On a terminal it shows what is awaited.

Exit codes: 0 done, 3 no server runs, 75 not in time (it goes on), 1 it failed or there is no such
service";

const LS_HELP: &str = "\
Exit codes: 0 listed, 3 no server runs";

const LINK_HELP: &str = "\
Exit codes: 0 shown, 3 no server runs, 1 there is no such link";

const PROVE_HELP: &str = "\
Exit codes: 0 proved, 3 no server runs, 1 it was not, or there is no such link";

const TRACE_HELP: &str = "\
Exit codes: 0 shown, 3 no server runs, 1 nothing is known of such a message";

const RETRY_HELP: &str = "\
They wait again as if they had never been offered, before what is newer of their rooms. `bowline link show`
names them.

Exit codes: 0 they wait again, or there are none, 3 no server runs, 1 there is no such link, or no such
message of it is put aside";

const DROP_HELP: &str = "\
What waits of a link that is gone is kept for 7 days, and offered when the link is back; `bowline link ls`
says of which there is something.

Exit codes: 0 dropped, 3 no server runs, 1 nothing is left of such a link, or it is configured";

const ENV_HELP: &str = "\
The bot then trusts the certificate authority that Bowline has made for this machine, and reaches
the service through Bowline. One of them holds a secret.

Examples:
  eval \"$(bowline link env barnacles)\" && python bot.py
  bowline link env barnacles --plain > barnacles.env

Exit codes: 0 printed, 1 there is no such link, 2 it has no variables";

const SERVICE_LOGS_HELP: &str = "\
Each line begins with the time and the stream: out, err, or --- for what the server adds. Without a
server that runs, what it wrote is shown all the same.

Examples:
  bowline service logs api --follow
  bowline service logs api -n 1000 | grep ' err '";

const START_HELP: &str = "\
Says that it has started when a client has been answered, through the real listener. If that does
not come about it says why, or what is waited for. Where a server runs already it says so.

Examples:
  bowline start --listen 0.0.0.0:8000
  bowline start --config bowline.toml --wait 2m

Exit codes: 0 started or running already, 2 wrong usage or configuration, 69 cannot listen,
74 disk full, 75 not in time (it goes on trying), 77 not permitted, 1 anything else";

const STOP_HELP: &str = "\
Clients are sent away so that they come back by themselves, for as long as server.drain allows.

Exit codes: 0 stopped or not running, 75 still draining, 77 not permitted, 1 anything else";

const RESTART_HELP: &str = "\
Flags and variables that are given replace those that the server was started with and that say the
same. The server is left alone when the configuration has mistakes or the disk is full. Where none runs, one is started.

Exit codes: those of `bowline start` and `bowline stop`";

const STATUS_HELP: &str = "\
Exit codes: 0 running, 1 died and left its record, 3 not running, 4 cannot be told";

const LOGS_HELP: &str = "\
On a terminal JSON lines are shown as text. There are at most 5 files of 10 MB.

Examples:
  bowline logs --follow
  bowline logs --since 10m";

const RELOAD_HELP: &str = "\
Names what is in force from now on and what waits for a restart. When there are mistakes the server
goes on with the configuration that it has.

Exit codes: 0 reloaded, 2 mistakes in the configuration, 3 not running, 1 anything else";

const UNIT_HELP: &str = "\
Examples:
  bowline service unit --systemd --config /etc/bowline/bowline.toml \\
    | sudo tee /etc/systemd/system/bowline.service
  bowline service unit --launchd > ~/Library/LaunchAgents/bowline.plist";

const COMPLETIONS_HELP: &str = "\
Examples:
  bowline completions bash > ~/.local/share/bash-completion/completions/bowline
  bowline completions zsh > ~/.zfunc/_bowline
  bowline completions fish > ~/.config/fish/completions/bowline.fish";

/// Which server is meant.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Configuration file, for its server.state-dir
    #[arg(long, hide_env_values = true, value_name = "FILE", env = EnvVar::Config.name())]
    config: Option<PathBuf>,

    /// Where its record, control socket and logs are kept
    #[arg(long, hide_env_values = true, value_name = "DIR", env = EnvVar::StateDir.name())]
    state_dir: Option<PathBuf>,
}

impl Place {
    /// What was said, as far as it says where to look.
    pub(crate) fn overrides(self) -> Overrides {
        Overrides {
            file: self.config.map(from_here),
            state_dir: self.state_dir.map(from_here),
            ..Overrides::default()
        }
    }
}

/// Which lines of a log, and how.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Query {
    /// Wait for more
    #[arg(long, short)]
    follow: bool,

    /// How many of the last lines [default: 50, or all with --since]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,

    /// Only since then: how long ago, as 5m, or when, as "2026-11-22 04:00"
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,

    /// As they stand in the file, on a terminal too
    #[arg(long)]
    raw: bool,
}

impl From<Query> for LogQuery {
    fn from(Query { follow, lines, since, raw }: Query) -> Self {
        const USUAL: usize = 50;
        let lines = lines.or(if since.is_none() { Some(USUAL) } else { None });
        Self { lines, since, follow, raw }
    }
}
