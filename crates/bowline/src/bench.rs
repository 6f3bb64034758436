//! `bowline bench`: the command line of the load tool, `bowline-load`.

mod ai;

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use bowline_load::{Error, OwnServer, Target, Wire, Wishes, Workload};
use bowline_names::{ErrorCode, Exit};
use clap::{Args, Subcommand, ValueEnum};

use crate::{daemon::print, failure::Failure};

pub(crate) const HELP: &str = "\
Workloads:
  echo       each session sends `message` and awaits its return, or its ack
  broadcast  one session sends what all in the namespace receive, then the next
  rooms      the same in each room; session i asks for room r<i % rooms> in its auth object
  idle       sessions join, half of them first, and then do nothing
  join       sessions join
  ai         requests to models behind /v1; see bowline bench ai --help
Without one: echo, broadcast and idle, for a first look.

What a server must do: echo sends `message` back (--ack: answers the ack), broadcast sends it to all
in the namespace, the sender too, rooms to the room. `bowline serve` does the first two. A tenth
more messages go ahead to warm up. Messages are counted as they arrive. With --rate the delay counts
from when a message was due, not from when it could be sent.

CPU time is the scheduler's, of the processes that --pid names, else of those that listen at the
target. Where the load tool's own is higher than the server's, the server was waiting for it.

Examples:
  bowline bench
  bowline bench echo --target http://127.0.0.1:8000 --sessions 1000 --window 10
  bowline bench echo --rate 5000 --seconds 10 --sessions 1000
  bowline bench broadcast --burst 10 --json
  bowline bench idle --sessions 10000 --seconds 30 --wire polling

Exit codes: 0 measured, 2 wrong usage, 1 anything else";

/// What to measure, and of whom.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    models: Option<Models>,

    /// What sessions do
    #[arg(value_enum, hide_possible_values = true)]
    workload: Option<Work>,

    /// The server, such as http://127.0.0.1:8000 [default: a server of its own, on loopback]
    #[arg(long, value_name = "URL")]
    target: Option<Target>,

    /// Processes of the server [default: those that listen at the target, if it is on this machine]
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "target")]
    pid: Vec<u32>,

    /// websocket, polling, upgrade (polling, then WebSocket) or raw (no protocol) [default: websocket]
    #[arg(long, value_enum, hide_possible_values = true)]
    wire: Option<Carrier>,

    /// How many clients [default: echo 100, broadcast 1000, rooms 10000, idle 10000, join 5000]
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,

    /// The namespace that they join [default: /, broadcast /relay, rooms /rooms]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// echo: how many events are sent [default: 100000]
    #[arg(long, value_name = "N")]
    messages: Option<usize>,

    /// broadcast, rooms: how many times one sends [default: 200]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// broadcast, rooms: events that are sent at once [default: 1]
    #[arg(long, value_name = "N")]
    burst: Option<usize>,

    /// rooms: how many there are [default: 100]
    #[arg(long, value_name = "N")]
    rooms: Option<usize>,

    /// echo: events of a session that may be on their way [default: 1]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// Length of the text that an event carries [default: 64]
    #[arg(long, value_name = "N")]
    bytes: Option<usize>,

    /// An attachment of that length instead of a text
    #[arg(long)]
    binary: bool,

    /// echo: await an ack instead of an event
    #[arg(long)]
    ack: bool,

    /// Clients that join at once [default: 64]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,

    /// Events a second over all sessions, whatever comes back [default: as fast as they come back]
    #[arg(long, value_name = "N")]
    rate: Option<f64>,

    /// How long: with --rate [default: 5], and for idle [default: 2]
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,

    /// As JSON, one line for each workload
    #[arg(long)]
    json: bool,
}

/// What is no workload of sessions.
#[derive(Debug, Subcommand)]
enum Models {
    /// Measure models behind /v1, and each provider that is asked for them
    #[command(after_help = ai::HELP)]
    Ai(Box<ai::Arguments>),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Work {
    Echo,
    Broadcast,
    Rooms,
    Idle,
    Join,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Carrier {
    Websocket,
    Polling,
    Upgrade,
    Raw,
}

const UNKNOWN: &str = "\
No process of the server was found on this machine, so there are no figures of its CPU time and memory.
If it runs here, --pid names it.
";

/// Measures and prints.
///
/// # Errors
/// When something cannot be measured. It is said why.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if let Some(Models::Ai(arguments)) = &arguments.models {
        return ai::run(arguments);
    }
    let watched = io::stderr().is_terminal();
    let workloads = match arguments.workload {
        Some(work) => vec![work.workload()],
        None => vec![Workload::Echo, Workload::Broadcast, Workload::Idle],
    };
    let wishes = arguments.wishes();
    for workload in &workloads {
        bowline_load::check(*workload, &wishes).map_err(failure)?;
    }
    for workload in workloads {
        // Each has a fresh one, so that none inherits the memory of the last.
        let own = match &arguments.target {
            Some(_) => None,
            None => Some(own(workload)?),
        };
        let target = arguments.target.as_ref().or_else(|| own.as_ref().map(OwnServer::target));
        let Some(target) = target else { continue };
        let report = bowline_load::measure(workload, &wishes, target, watched).map_err(failure)?;
        if report.server.is_none() {
            // Nobody reads it if stderr is closed.
            let _ = io::stderr().write_all(UNKNOWN.as_bytes());
        }
        print(&if arguments.json { report.json() + "\n" } else { report.table() + "\n" });
    }
    Ok(Exit::Ok)
}

/// A server of its own.
fn own(workload: Workload) -> Result<OwnServer, Failure> {
    if workload == Workload::Rooms {
        let words = "`bowline serve` puts nobody into rooms by itself: --target names a server that \
                     does, such as `cargo run --release -p bowline-net --example rooms`";
        return Err(failure(Error::Usage(words.into())));
    }
    let program = env::current_exe()
        .map_err(|error| failure(Error::Failed(format!("finding this program: {error}"))))?;
    OwnServer::start(&program).map_err(failure)
}

fn failure(error: Error) -> Failure {
    let code = match error {
        Error::Usage(_) => ErrorCode::BenchInvalid,
        Error::Failed(_) => ErrorCode::BenchFailed,
    };
    Failure::new(code, error)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "more than 0".to_owned())
}

impl Arguments {
    fn wishes(&self) -> Wishes {
        Wishes {
            pids: self.pid.clone(),
            wire: self.wire.map(Carrier::wire),
            sessions: self.sessions,
            namespace: self.namespace.clone(),
            messages: self.messages,
            rounds: self.rounds,
            burst: self.burst,
            rooms: self.rooms,
            window: self.window,
            bytes: self.bytes,
            binary: self.binary,
            ack: self.ack,
            parallel: self.parallel,
            rate: self.rate,
            duration: self.seconds,
        }
    }
}

impl Work {
    fn workload(self) -> Workload {
        match self {
            Self::Echo => Workload::Echo,
            Self::Broadcast => Workload::Broadcast,
            Self::Rooms => Workload::Rooms,
            Self::Idle => Workload::Idle,
            Self::Join => Workload::Join,
        }
    }
}

impl Carrier {
    fn wire(self) -> Wire {
        match self {
            Self::Websocket => Wire::WebSocket,
            Self::Polling => Wire::Polling,
            Self::Upgrade => Wire::Upgrade,
            Self::Raw => Wire::Raw,
        }
    }
}
