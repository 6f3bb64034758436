//! What is so, for status, API and metrics.

use std::{collections::BTreeMap, time::Duration};

use bowline_proto::Time;

use super::{End, Instance};
use crate::{
    probe::{Finding, Progress},
    spec::Phase,
};

/// What a service is doing. The words are a label of metrics: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing runs, and nothing will until somebody wants it to.
    Stopped,
    /// For services that it needs.
    Waiting,
    /// It died, and its next start waits for its turn.
    BackingOff,
    /// It runs, or is about to, and is not ready yet.
    Starting,
    /// It runs, and its checks pass.
    Ready,
    /// It was ready and is not, or it has been starting for [`overdue`](crate::spec::Service::overdue).
    NotReady,
    /// It has been told to end, or what it left behind has been.
    Stopping,
    /// It died too often to be tried often.
    CrashLoop,
    /// It cannot be started: a wrong interpreter, a missing file.
    Failed,
    /// It has run to its end, and is not to run again.
    Completed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Stopped,
        Self::Waiting,
        Self::BackingOff,
        Self::Starting,
        Self::Ready,
        Self::NotReady,
        Self::Stopping,
        Self::CrashLoop,
        Self::Failed,
        Self::Completed,
    ];

    /// The word of the API and of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::BackingOff => "backing-off",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::NotReady => "not-ready",
            Self::Stopping => "stopping",
            Self::CrashLoop => "crash-loop",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }
}

/// Why a service was started again. The words are a label of metrics: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It ended by itself.
    Exited,
    /// A signal ended it.
    Killed,
    /// It ended, and nobody saw how.
    Unknown,
    /// It could not be started.
    NotStarted,
    /// It was not ready in time.
    NotReady,
    /// Its live checks failed.
    NotLive,
    /// Its `recycle` said so.
    Recycled,
    /// Its configuration changed.
    Changed,
    /// Somebody asked.
    Asked,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Exited,
        Self::Killed,
        Self::Unknown,
        Self::NotStarted,
        Self::NotReady,
        Self::NotLive,
        Self::Recycled,
        Self::Changed,
        Self::Asked,
    ];

    /// The word of the API and of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Killed => "killed",
            Self::Unknown => "unknown",
            Self::NotStarted => "not-started",
            Self::NotReady => "not-ready",
            Self::NotLive => "not-live",
            Self::Recycled => "recycled",
            Self::Changed => "changed",
            Self::Asked => "asked",
        }
    }
}

/// What is so of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// More about the state in words: why it waits, died, is in a crash loop or does not end; what its candidate does.
    pub words: Option<String>,
    /// The process that counts.
    pub stable: Option<ProcessView>,
    /// The one that is to follow it.
    pub candidate: Option<ProcessView>,
    /// What it waits for, while it is starting or not ready.
    pub awaited: Option<Awaited>,
    /// The last check that was made.
    pub checked: Option<Checked>,
    /// How many starts it took, or has taken until now, to be ready.
    pub attempts: u32,
    /// How long the last start that succeeded took until it was ready.
    pub ready_after: Option<Duration>,
    /// Its last ends, oldest first. At most [`ENDS_KEPT`](crate::limit::ENDS_KEPT).
    pub ends: Vec<Ended>,
    /// How often it was started again, by reason, since the plan began.
    pub restarts: BTreeMap<Reason, u64>,
    /// When it is tried next.
    pub next_try: Option<Time>,
    /// The services it needs.
    pub needs: Vec<NeedView>,
}

/// A process of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessView {
    /// Which start.
    pub instance: Instance,
    /// Its process id, once it has one.
    pub pid: Option<u32>,
    /// When it was started, or adopted.
    pub since: Time,
    /// How old it was already when it was adopted.
    pub before: Duration,
    /// Whether a dead master had started it.
    pub adopted: bool,
    /// What was chosen to run it and why.
    pub interpreter: Option<String>,
    /// Whether its checks pass.
    pub ready: bool,
    /// What it says of itself (`STATUS=`).
    pub status: Option<String>,
}

/// What a service waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// In words: `http http://…/health: starting, 40 %`.
    pub words: String,
    /// How far it says that it is.
    pub progress: Option<Progress>,
}

/// A check that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// For what.
    pub phase: Phase,
    /// What was checked, in words.
    pub check: String,
    /// What came of it.
    pub finding: Finding,
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub at: Time,
    /// How many checks of this start that makes.
    pub count: u64,
}

/// An end of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Time,
    /// How; none if it could not be started.
    pub end: Option<End>,
    /// In words, with the reason that Bowline had if it ended the service.
    pub words: String,
    /// The last lines it printed, oldest first.
    pub lines: Vec<String>,
}

/// A service that another one needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedView {
    /// Its name.
    pub service: String,
    /// What it is doing.
    pub state: State,
    /// Whether it has come as far as it must.
    pub met: bool,
}
