//! The end of a server that leaves its state to the next one.
//!
//! What a shard saves must be all there is: a broadcast that still lay in its mailbox would be lost,
//! and so would a socket on its way to another shard. So when no shard has sessions any more, threads
//! are told that nothing is done any more; the shards go on until no message is left anywhere, and
//! what their hubs have then is saved.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
    },
};

use bowline_proto::hub::Snapshot;

use crate::process::Process;

/// How far the end is that all shards of a process come to together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Some shard has sessions.
    Serving,
    /// Nothing is taken from threads any more.
    Sealed,
    /// No message is left: shards save what they have. Or one has failed, and nothing will be saved.
    Quiet,
}

/// What shards must agree on to end with a whole state.
pub(crate) struct Ending {
    /// Where the state goes.
    file: Option<PathBuf>,
    phase: AtomicU8,
    /// How many messages each shard has handled, said since the server was sealed.
    handled: Vec<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    /// The shards that have no sessions any more.
    ready: Vec<bool>,
    snapshots: Vec<Option<Snapshot>>,
}

impl Ending {
    pub(crate) fn new(file: Option<PathBuf>, shards: usize) -> Self {
        let snapshots = (0..shards).map(|_| None).collect();
        Self {
            file,
            phase: AtomicU8::new(Phase::Serving as u8),
            handled: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            state: Mutex::new(State { ready: vec![false; shards], snapshots }),
        }
    }

    /// Where the state of the server goes, and where that of the last one was.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(SeqCst) {
            0 => Phase::Serving,
            1 => Phase::Sealed,
            _ => Phase::Quiet,
        }
    }

    /// A shard has no sessions any more. The last one seals the server.
    pub(crate) fn on_ready(&self, process: &Process, shard: u8) {
        let mut state = self.lock();
        state.ready[usize::from(shard)] = true;
        if state.ready.contains(&false) || self.phase() != Phase::Serving {
            return;
        }
        // A broadcast that has reached one shard reaches all, so none may be under way.
        let broadcasts = process.lock_broadcasts();
        for port in &process.shards {
            port.mailbox.seal();
        }
        drop(broadcasts);
        self.enter(process, Phase::Sealed);
    }

    /// A shard has handled so many messages of its mailbox, with all that followed from them, and
    /// knows of no other. Asked only when the server is sealed.
    pub(crate) fn on_handled(&self, process: &Process, shard: u8, count: u64) {
        self.handled[usize::from(shard)].store(count, SeqCst);
        // First what was handled, then what was taken: if the two are equal everywhere, there was a
        // moment in between in which no message was anywhere, and only messages make messages.
        let handled: Vec<u64> = self.handled.iter().map(|count| count.load(SeqCst)).collect();
        let taken = process.shards.iter().map(|port| port.mailbox.taken());
        if taken.eq(handled) {
            self.enter(process, Phase::Quiet);
        }
    }

    /// A shard could not wait any longer, or has failed.
    pub(crate) fn cut_short(&self, process: &Process) {
        self.enter(process, Phase::Quiet);
    }

    /// A shard has ended with this. Gives what all of them have saved to the last.
    pub(crate) fn on_saved(&self, shard: u8, snapshot: Snapshot) -> Option<Vec<Snapshot>> {
        let mut state = self.lock();
        state.snapshots[usize::from(shard)] = Some(snapshot);
        let whole = state.snapshots.iter().all(Option::is_some);
        whole.then(|| state.snapshots.iter_mut().filter_map(Option::take).collect())
    }

    fn enter(&self, process: &Process, phase: Phase) {
        if self.phase.fetch_max(phase as u8, SeqCst) < phase as u8 {
            for port in &process.shards {
                port.mailbox.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
