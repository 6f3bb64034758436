//! What a service is.

mod check;

use std::{
    collections::BTreeMap, ffi::OsString, fmt, hash::Hasher as _, net::SocketAddr, path::PathBuf,
    time::Duration,
};

pub use check::{Mistake, check};
use siphasher::sip::SipHasher13;

/// A service: what runs, how it is asked whether it is well, and what is done when it is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The name, unique among the services: letters, digits, `-`, `_` and `.`, at most 64, the first a letter or digit.
    pub name: String,
    /// What runs.
    pub run: Run,
    /// What runs it. Default [`Interpreter::None`]; the configuration chooses for scripts and modules.
    pub interpreter: Interpreter,
    /// The working directory. Default Bowline's.
    pub directory: Option<PathBuf>,
    /// Added to the environment, over what the files say. Default nothing.
    pub environment: BTreeMap<OsString, OsString>,
    /// Files of `NAME=value` lines, read at every start, later ones win. Default none.
    pub environment_files: Vec<PathBuf>,
    /// Who it runs as. Default who Bowline runs as; anybody else needs root.
    pub user: Option<User>,
    /// The services it needs. Default none.
    pub needs: Vec<Need>,
    /// Addresses that Bowline binds and the service inherits (`LISTEN_FDS`), in this order. Default none.
    pub listen: Vec<Listen>,
    /// How it is asked whether it is well. Default not at all: see [`SETTLE`](crate::limit::SETTLE).
    pub probes: Probes,
    /// When it is started again. Default always.
    pub restart: Restart,
    /// How long is waited before that.
    pub backoff: Backoff,
    /// When it is not worth trying often.
    pub crash_loop: CrashLoop,
    /// How long it may be starting without any progress until that is said. It is not ended for it. Default 5 min.
    pub overdue: Duration,
    /// How long it may be starting without any progress until it is ended and started again. Default for ever.
    pub startup_timeout: Option<Duration>,
    /// How it is stopped.
    pub stop: Stop,
    /// What it may use. Default what Bowline may.
    pub limits: Limits,
    /// When it is replaced though nothing is wrong. Default never.
    pub recycle: Recycle,
    /// Whether a restart starts the new one first and stops the old one when that is ready. Needs [`Self::listen`].
    /// Default false.
    pub overlap: bool,
    /// What is done with what it prints.
    pub logs: Logs,
    /// What becomes of it if Bowline's master died and comes back. Default it is adopted.
    pub on_orphan: OnOrphan,
}

impl Service {
    /// A service of this name that runs this, everything else by default.
    pub fn new(name: impl Into<String>, run: Run) -> Self {
        Self {
            name: name.into(),
            run,
            interpreter: Interpreter::None,
            directory: None,
            environment: BTreeMap::new(),
            environment_files: Vec::new(),
            user: None,
            needs: Vec::new(),
            listen: Vec::new(),
            probes: Probes::default(),
            restart: Restart::Always,
            backoff: Backoff::default(),
            crash_loop: CrashLoop::default(),
            overdue: Duration::from_secs(300),
            startup_timeout: None,
            stop: Stop::default(),
            limits: Limits::default(),
            recycle: Recycle::default(),
            overlap: false,
            logs: Logs::default(),
            on_orphan: OnOrphan::Adopt,
        }
    }

    /// What identifies the process this describes, across masters and their versions: if it differs, what runs was
    /// started from something else. Of no use against forgery.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write(format!("{:?}", self.making()).as_bytes());
        hasher.finish()
    }

    /// What a process cannot be given while it runs.
    fn making(&self) -> impl PartialEq + fmt::Debug + '_ {
        (
            (&self.run, &self.interpreter, &self.directory, &self.environment),
            (&self.environment_files, &self.user, &self.listen, &self.limits),
        )
    }

    /// Whether a process of this service can go on as one of `other`.
    pub fn same_process(&self, other: &Self) -> bool {
        self.making() == other.making()
    }
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// A program and its arguments; not empty. The program is looked for in `PATH` unless it has a slash.
    Command(Vec<OsString>),
    /// A file that an interpreter runs.
    Script {
        /// The file, from [`Service::directory`].
        path: PathBuf,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// A module that an interpreter runs (`python -m`).
    Module {
        /// Its dotted name.
        name: String,
        /// Its arguments.
        args: Vec<OsString>,
    },
}

/// What runs a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Interpreter {
    /// The command itself.
    #[default]
    None,
    /// A Python. With a [`Run::Command`] it is proved, its directory comes first in `PATH`, and a bare program name
    /// is looked for there.
    Python(Which),
    /// A Node, in the same way.
    Node(Which),
}

/// Which of the interpreters there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Which {
    /// The one that the surroundings of the service speak for.
    #[default]
    Auto,
    /// This one.
    Path(PathBuf),
}

/// Who a service runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// A name or a number.
    pub user: String,
    /// A name or a number. Default the group of the user.
    pub group: Option<String>,
}

/// A service that another one needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its name.
    pub service: String,
    /// How far it must have come. Default [`Until::Ready`].
    pub until: Until,
}

/// How far a service must have come before those that need it start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Until {
    /// It is a process.
    Started,
    /// It is ready, or has completed.
    #[default]
    Ready,
    /// It has run to its end and succeeded: a migration, for example.
    Completed,
}

/// An address that is bound for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The checks of a service, by phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    /// Until these pass, none of the others is made. For what takes long once.
    pub startup: Checks,
    /// Whether it can be used now. Made for as long as it runs.
    pub ready: Checks,
    /// Whether it must be started again. Made for as long as it runs.
    pub live: Checks,
}

impl Probes {
    /// The checks of a phase.
    pub fn of(&self, phase: Phase) -> &Checks {
        match phase {
            Phase::Startup => &self.startup,
            Phase::Ready => &self.ready,
            Phase::Live => &self.live,
        }
    }
}

/// The checks of one phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// How many of them must pass. Default all.
    pub match_: Match,
    /// The checks. Default none, and the phase is passed.
    pub probes: Vec<Probe>,
}

/// How many checks must pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Match {
    /// Every one.
    #[default]
    All,
    /// One of them.
    Any,
}

/// What checks are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Whether it has come up.
    Startup,
    /// Whether it can be used.
    Ready,
    /// Whether it must be started again.
    Live,
}

impl Phase {
    /// All of them, in the order of a service's life.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Ready, Self::Live];

    /// The word of the configuration and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Ready => "ready",
            Self::Live => "live",
        }
    }
}

/// A check, made again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is checked.
    pub check: Check,
    /// The time from the end of one check to the next. Default 2 s; 500 ms in the startup phase.
    pub every: Duration,
    /// How long one check may take. Default 5 s; 2 s in the startup phase.
    pub timeout: Duration,
    /// How many failures in a row it takes to fail, after it has passed. Default 3.
    pub failures: u32,
    /// How many successes in a row it takes to pass. Default 1.
    pub successes: u32,
}

impl Probe {
    /// This check with the defaults of this phase.
    pub fn new(phase: Phase, check: Check) -> Self {
        let (every, timeout) = match phase {
            Phase::Startup => (Duration::from_millis(500), Duration::from_secs(2)),
            Phase::Ready | Phase::Live => (Duration::from_secs(2), Duration::from_secs(5)),
        };
        Self { check, every, timeout, failures: 3, successes: 1 }
    }
}

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The address accepts a connection.
    Tcp(Listen),
    /// A GET is answered as it should be. `http` or `https`.
    Http {
        /// Where.
        url: String,
        /// The status that is expected. Default any from 200 to 299.
        status: Option<u16>,
        /// What the body must contain. Default anything.
        contains: Option<String>,
    },
    /// A WebSocket can be opened. `ws` or `wss`.
    WebSocket {
        /// Where.
        url: String,
    },
    /// A Socket.IO session can be opened and its namespace joined. `http` or `https`.
    SocketIo {
        /// Where the server is; `/socket.io/` if it has no path.
        url: String,
        /// The namespace. Default `/`.
        namespace: String,
        /// What is sent with CONNECT: JSON. Default nothing.
        auth: Option<String>,
    },
    /// A line that the service prints matches this regular expression. Passes once and for all; not in
    /// [`Phase::Live`].
    Log(String),
    /// A command, run as the service is, ends with code 0.
    Exec(Vec<OsString>),
    /// The service says so itself (`sd_notify`): `READY=1`, or in [`Phase::Live`] `WATCHDOG=1` at least each
    /// [`Probe::every`].
    Notify,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Http { url, .. } => write!(f, "http {url}"),
            Self::WebSocket { url } => write!(f, "websocket {url}"),
            Self::SocketIo { url, namespace, .. } => write!(f, "socketio {url} {namespace}"),
            Self::Log(pattern) => write!(f, "log /{pattern}/"),
            Self::Exec(command) => {
                f.write_str("exec")?;
                command.iter().try_for_each(|word| write!(f, " {}", word.display()))
            }
            Self::Notify => f.write_str("notify"),
        }
    }
}

/// When a service is started again after its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// Whatever its end was.
    #[default]
    Always,
    /// Unless it ended with code 0. An end that nobody saw counts as a failure.
    OnFailure,
    /// Not at all.
    Never,
}

/// How long is waited before a service is started again: a random time from zero to a limit that doubles from
/// `first` to `max` with every death, and is `first` again after `reset` of being ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The most that is waited after the first death. Default 1 s.
    pub first: Duration,
    /// The most that is ever waited. Default 30 s.
    pub max: Duration,
    /// How long it must have been ready for all to be forgotten. Default 60 s.
    pub reset: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(30),
            reset: Duration::from_secs(60),
        }
    }
}

/// When a service is in a crash loop, and how often it is tried then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashLoop {
    /// So many deaths within [`Self::within`]. Default 5.
    pub deaths: u32,
    /// Default 60 s.
    pub within: Duration,
    /// How long is waited between the attempts in a crash loop. Default 60 s.
    pub retry: Duration,
}

impl Default for CrashLoop {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { deaths: 5, within: minute, retry: minute }
    }
}

/// How a service is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// What it is told with. Default TERM.
    pub signal: Signal,
    /// How long it, and all that it started, may take until it is killed. Default 10 s.
    pub grace: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: Signal::Term, grace: Duration::from_secs(10) }
    }
}

/// A signal that services are told to end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hup,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGTERM.
    Term,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGKILL.
    Kill,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Hup, Self::Int, Self::Quit, Self::Term, Self::Usr1, Self::Usr2, Self::Kill];

    /// The word of the configuration: without `SIG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Term => "TERM",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Kill => "KILL",
        }
    }
}

/// What a service may use (`setrlimit`). Default each what Bowline may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open files.
    pub open_files: Option<u64>,
    /// Bytes of address space.
    pub memory: Option<u64>,
    /// Processes of its user.
    pub processes: Option<u64>,
    /// Bytes of a core file.
    pub core: Option<u64>,
}

/// When a service is replaced though nothing is wrong. Each limit is moved by chance by up to 10 % at every start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recycle {
    /// Requests that the gateway has passed to it.
    pub requests: Option<u64>,
    /// Time since its start. At least 1 min.
    pub age: Option<Duration>,
    /// Bytes of memory of it and all that it started.
    pub memory: Option<u64>,
}

/// What is done with what a service prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logs {
    /// A file of more bytes is rotated. Default 10 MB.
    pub max_bytes: u64,
    /// How many files there are, the one that is written to among them. Default 5.
    pub files: u32,
    /// Whether each line begins with the time and the stream. Default true.
    pub timestamps: bool,
}

impl Default for Logs {
    fn default() -> Self {
        Self { max_bytes: 10_000_000, files: 5, timestamps: true }
    }
}

/// What becomes of a service whose master died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnOrphan {
    /// The next master goes on with it.
    #[default]
    Adopt,
    /// The next master ends it and starts it anew.
    End,
}
