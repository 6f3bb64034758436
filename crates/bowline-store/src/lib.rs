//! The embedded store: SQLite in WAL mode behind one writer thread.
//!
//! Whoever writes waits for the commit of its group, never for a lock: what has come while the last group was being
//! written is written together, with one sync of the disk. A disk that is full or cannot be written degrades the store
//! to memory: nothing fails, [`Store::health`] says so, and what was stored meanwhile is brought to the disk when that
//! takes it again.

#![warn(missing_docs)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

mod clock;
mod inbox;
mod rows;
mod schema;
mod writer;

pub use inbox::{Arrival, Counts, Entry, Gone, Inbox, Parked, Put, Stage, Step};

use writer::{Answer, Ask, Command, QUEUE, Shared};

/// The store of a process. Cheap to clone; its thread ends when the last clone is gone, or with [`Store::close`].
#[derive(Debug, Clone)]
pub struct Store {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    path: Arc<Path>,
}

/// What a store is told besides its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many bytes it may have in memory while the disk does not work; then arrivals are refused. Default 64 MiB.
    pub memory_max_bytes: u64,
    /// How often the disk is tried while it does not work. Default 30 s.
    pub retry: Duration,
    /// How often what is old is deleted. Default 10 min.
    pub sweep: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_max_bytes: 64 << 20,
            retry: Duration::from_secs(30),
            sweep: Duration::from_secs(600),
        }
    }
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On disk: messages are there after a kill, and after a loss of power.
    Disk,
    /// In memory: what waits is lost when the process is killed.
    Memory,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Where messages are kept.
    pub mode: Mode,
    /// Why not on disk, for people; empty when all is well.
    pub words: String,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// How often the mode has changed. When it has, places in the order of arrival may have changed as well.
    pub changes: u64,
}

/// What was counted since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Transactions that wrote.
    pub commits: u64,
    /// Messages that were new.
    pub puts: u64,
}

impl Store {
    /// Opens the database at `path`, which is made if it is not there, together with its directory. The work is done on
    /// a thread of its own: a database that cannot be used shows in [`Store::health`], and nothing else fails.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self::open_with(path, Options::default())
    }

    /// The same with other limits.
    pub fn open_with(path: impl Into<PathBuf>, options: Options) -> Self {
        let path = path.into();
        let shared = Arc::new(Shared::new(""));
        let (commands, receiver) = mpsc::channel(QUEUE);
        let store = Self { commands, shared: Arc::clone(&shared), path: path.as_path().into() };
        if let Err(error) = writer::start(path, options, Arc::clone(&shared), receiver) {
            tracing::error!(%error, "the store has no thread: nothing is stored");
            shared.set_health(Mode::Memory, format!("its thread cannot be started ({error})"));
        }
        store
    }

    /// The messages of links.
    pub fn inbox(&self) -> Inbox {
        Inbox::of(self.clone())
    }

    /// How it is. Costs nothing.
    pub fn health(&self) -> Health {
        let mut health = self.shared.health();
        if self.commands.is_closed() && health.words.is_empty() {
            "it is closed".clone_into(&mut health.words);
        }
        health
    }

    /// What was counted. Costs nothing.
    pub fn figures(&self) -> Figures {
        self.shared.figures()
    }

    /// Where the database is, or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finishes what was asked before, and ends the thread. What is asked afterwards is refused.
    pub async fn close(&self) {
        self.ask(Ask::Close).await;
        self.commands.closed().await;
    }

    /// `None` when the thread is gone.
    async fn ask(&self, ask: Ask) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command { ask, answer }).await.ok()?;
        answered.await.ok()
    }

    /// Says which links there are; who is gone is written down with the next group, or with the next sweep if too many
    /// wait for the thread.
    fn set_links(&self, links: BTreeSet<String>) {
        self.shared.set_links(links);
        let (answer, _) = oneshot::channel();
        let ask = Ask::MarkGone { now_unix_ms: clock::unix_ms() };
        if self.commands.try_send(Command { ask, answer }).is_err() {
            tracing::debug!("which links are gone is written down later");
        }
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }
}
