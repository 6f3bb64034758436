//! Asks a service one question and says what came of it.

mod exec;
mod network;
mod starting;

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf, time::Duration};

use bowline_proto::Time;

use crate::{
    clock::Clock,
    limit::WORDS_BYTES,
    spec::{Check, Probe, User},
};

/// What a check says about a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Ready,
    /// Nobody listens there.
    Refused,
    /// It accepts the connection, or has a queue full of them, and does not answer within the timeout.
    Deaf,
    /// It says itself that it is still starting: a 503 with `Retry-After`, or a document of the shape of Bowline's
    /// own `/health/ready`.
    Starting {
        /// How far it says that it is.
        progress: Option<Progress>,
        /// Its words, or those of the check. At most [`WORDS_BYTES`](crate::limit::WORDS_BYTES).
        words: String,
    },
    /// Anything else that is not as it should be: what was seen, as it follows "the check failed: ".
    Failed {
        /// What was seen. At most [`WORDS_BYTES`](crate::limit::WORDS_BYTES).
        words: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Refused => f.write_str("refused"),
            Self::Deaf => f.write_str("deaf: accepts connections and says nothing"),
            Self::Starting { progress: Some(progress), words } if words.is_empty() => {
                write!(f, "starting, {progress}")
            }
            Self::Starting { progress: Some(progress), words } => {
                write!(f, "starting, {progress}: {words}")
            }
            Self::Starting { progress: None, words } if words.is_empty() => f.write_str("starting"),
            Self::Starting { progress: None, words } => write!(f, "starting: {words}"),
            Self::Failed { words } => write!(f, "failed: {words}"),
        }
    }
}

/// How far something says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Per cent, from 0 to 100.
    Percent(u8),
    /// Parts done, of all parts.
    Parts {
        /// Done.
        done: u32,
        /// In all.
        of: u32,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent} %"),
            Self::Parts { done, of } => write!(f, "{done} of {of}"),
        }
    }
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it says about the service.
    pub finding: Finding,
    /// How long it took.
    pub took: Duration,
}

/// What an `exec` check is run with: what the service itself was.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The whole environment of the service, without Bowline's own names.
    pub environment: BTreeMap<OsString, OsString>,
    /// Its working directory. Default Bowline's.
    pub directory: Option<PathBuf>,
    /// Who it runs as. Default who Bowline runs as.
    pub user: Option<User>,
}

/// Makes the check once, now. It ends within [`Probe::timeout`] and a moment, whatever the service does.
///
/// [`Check::Log`](crate::spec::Check::Log) and [`Check::Notify`](crate::spec::Check::Notify) are not asked but heard:
/// the crew turns what it hears into [`plan::Input::Logged`](crate::plan::Input::Logged) and
/// [`plan::Input::Notified`](crate::plan::Input::Notified). Asked nevertheless, they fail.
pub async fn run(probe: &Probe, surroundings: &Surroundings) -> Seen {
    let clock = Clock::start();
    let timeout = probe.timeout;
    let finding = match &probe.check {
        Check::Tcp(address) => in_time(timeout, network::accepts(address)).await,
        Check::Http { url, status, contains } => {
            let asked = network::answers(url, *status, contains.as_deref(), timeout);
            in_time(timeout, asked).await
        }
        Check::WebSocket { url } => in_time(timeout, network::upgrades(url, timeout)).await,
        Check::SocketIo { url, namespace, auth } => {
            in_time(timeout, network::joins(url, namespace, auth.as_deref(), timeout)).await
        }
        Check::Exec(command) => exec::succeeds(command, surroundings, timeout).await,
        Check::Log(_) | Check::Notify => failed(format!("{} is heard, not asked", probe.check)),
    };
    Seen { finding, took: clock.now().since(Time::ZERO) }
}

/// Whoever has not answered by then is deaf. A connection that is not accepted looks the same from here: the queue of
/// somebody who accepts none is full, or something on the way drops what is sent.
async fn in_time(timeout: Duration, asked: impl Future<Output = Finding>) -> Finding {
    tokio::time::timeout(timeout, asked).await.unwrap_or(Finding::Deaf)
}

fn failed(words: impl Into<String>) -> Finding {
    Finding::Failed { words: bounded(words.into()) }
}

/// Cuts what somebody else said.
fn bounded(words: String) -> String {
    let one_line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let printable = one_line.chars().filter(|c| !c.is_control());
    printable
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= WORDS_BYTES).then_some(c)
        })
        .collect()
}
