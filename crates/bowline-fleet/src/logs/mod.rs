//! What services print: captured, cut into lines, folded, written to files that are rotated, and
//! told to whoever follows.
//!
//! A thread of its own does it for all services: nobody who serves or decides waits for a disk. It
//! reads as fast as it can write, and a service that prints faster waits in its own write; nothing is
//! kept in memory but the lines under way. A full disk costs the lines, not the service.
//!
//! ```text
//! 2026-11-22T14:06:32.123Z out Listening on 8080
//! 2026-11-22T14:06:33.001Z err a line that is longer than 16 KiB …
//! 2026-11-22T14:06:33.001Z err+ … goes on like this
//! 2026-11-22T14:06:43.500Z --- last line repeated 214 times
//! ```

mod file;
mod fold;
mod keeper;
mod pieces;
mod tail;

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use regex::Regex;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{broadcast, oneshot};

use self::keeper::{Job, Keeper};
use crate::{
    plan::Instance,
    spec::{self, Phase},
};

pub use self::tail::tail;

/// How many lines a follower may be behind before it misses some.
const FOLLOW_LINES: usize = 512;

/// How many jobs wait for the thread. It takes them between two reads; only a disk that hangs keeps
/// it from that.
const JOBS: usize = 1024;

/// How many matches wait for the crew. Each check tells of one.
const MATCHES: usize = 1024;

/// Which of its two a service wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// A pattern that is looked for in what an instance prints, until it is found.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) phase: Phase,
    pub(crate) index: usize,
    pub(crate) regex: Regex,
}

/// It was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matched {
    pub(crate) instance: Instance,
    pub(crate) phase: Phase,
    pub(crate) index: usize,
}

/// The file of the log of a service.
pub fn path(log_dir: &Path, service: &str) -> PathBuf {
    log_dir.join("services").join(format!("{service}.log"))
}

/// The way to the thread that keeps the logs.
#[derive(Debug, Clone)]
pub struct Logs {
    jobs: mpsc::SyncSender<Job>,
    wake: Arc<OwnedFd>,
}

/// The lines of a service, as they come.
#[derive(Debug)]
pub struct Follow {
    /// The last lines until now, oldest first.
    pub before: Before,
    /// Those that come from now on, with their stamps, without their ends. Who is more than 512
    /// lines behind is told how many it has missed.
    pub lines: broadcast::Receiver<Arc<str>>,
}

/// The last lines until a moment. They are read when they are asked for, from the disk.
#[derive(Debug)]
pub struct Before {
    files: Vec<(File, u64)>,
    lines: usize,
}

impl Before {
    /// Reads them. Not for a thread that others wait for.
    ///
    /// # Errors
    /// Those of the system.
    pub fn read(self) -> io::Result<Vec<String>> {
        tail::of(self.files, self.lines)
    }
}

impl Logs {
    /// Starts the thread. It ends when it is told to.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn start(
        log_dir: PathBuf,
    ) -> io::Result<(Self, tokio::sync::mpsc::Receiver<Matched>, thread::JoinHandle<()>)> {
        let (jobs, take) = mpsc::sync_channel(JOBS);
        let (matched, matches) = tokio::sync::mpsc::channel(MATCHES);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let keeper = Keeper::new(log_dir, take, Arc::clone(&wake), matched);
        let thread =
            thread::Builder::new().name("service-logs".to_owned()).spawn(|| keeper.run())?;
        Ok((Self { jobs, wake }, matches, thread))
    }

    /// Reads the log from its last `lines` lines on and goes on with it; `None` if the service has
    /// no log, or the logs are not kept any more.
    pub async fn follow(&self, service: &str, lines: usize) -> Option<Follow> {
        let (reply, follow) = oneshot::channel();
        self.send(Job::Follow { service: service.to_owned(), lines, reply });
        follow.await.ok().flatten()
    }

    /// The service has a log of this shape from now on.
    pub(crate) fn open(&self, service: &str, shape: spec::Logs) {
        self.send(Job::Open { service: service.to_owned(), shape });
    }

    /// Reads what an instance writes to these two pipes, which are set not to block.
    pub(crate) fn attach(
        &self,
        instance: Instance,
        service: &str,
        pipes: [OwnedFd; 2],
        patterns: Vec<Pattern>,
    ) {
        let service = service.to_owned();
        self.send(Job::Attach { instance, service, pipes, patterns });
    }

    /// Looks for these patterns from now on instead.
    pub(crate) fn look_for(&self, instance: Instance, patterns: Vec<Pattern>) {
        self.send(Job::LookFor { instance, patterns });
    }

    /// Reads what an instance has written until now, and gives its last lines.
    pub(crate) fn last_lines(&self, instance: Instance) -> oneshot::Receiver<Vec<String>> {
        let (reply, lines) = oneshot::channel();
        self.send(Job::Last { instance, reply });
        lines
    }

    /// Reads what an instance has written until now and nothing after it: all of it are gone.
    pub(crate) fn detach(&self, instance: Instance) {
        self.send(Job::Detach { instance });
    }

    /// Writes a line of Bowline's own into the log of a service.
    pub(crate) fn say(&self, service: &str, words: &str) {
        self.send(Job::Say { service: service.to_owned(), words: words.to_owned() });
    }

    /// The service is none any more: its log ends, and its file stays.
    pub(crate) fn close(&self, service: &str) {
        self.send(Job::Close { service: service.to_owned() });
    }

    /// Ends the thread as soon as all that was printed until now is written.
    pub(crate) fn end(&self) {
        self.send(Job::End);
    }

    fn send(&self, job: Job) {
        if self.jobs.try_send(job).is_err() {
            tracing::error!("the logs of services are not kept: the disk does not answer");
        }
        // A full counter has woken it already.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}
