//! What a process keeps for clients that come back, the share of it that each shard has, and how it
//! goes from one process to the next.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bowline_proto::hub::{self, Snapshot};

use crate::{
    entropy::Entropy,
    mailbox::Message,
    process::Process,
    saved::{self, Head, Saved, SavedError},
};

/// `[continuity]`: how long clients may stay away, and what is kept for them meanwhile, by all shards
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuity {
    /// `continuity.window`: how long a client may stay away and find its socket as it was. Default
    /// 2 min.
    pub window: Duration,
    /// `continuity.max-bytes`: what the events may take that are kept for those who have not seen
    /// them; the oldest are dropped first. Default 256 MB.
    pub max_bytes: usize,
    /// `continuity.max-away`: how many sockets may be away. Default 100,000.
    pub max_away: usize,
}

/// What a process is to clients that come back: the same as the one before it, if that has left its
/// state.
pub(crate) struct Identity {
    epoch: u32,
    key: [u8; 16],
    /// The number of the last record of each shard's log.
    heads: Vec<u64>,
    /// Whether there is a state, which shards wait for.
    loading: bool,
}

impl Default for Continuity {
    fn default() -> Self {
        let hub::Continuity { window, log_bytes, away_max, .. } = hub::Continuity::default();
        Self { window, max_bytes: log_bytes, max_away: away_max }
    }
}

impl Continuity {
    /// What the hub of one of so many shards is told.
    pub(crate) fn of_shard(&self, shard: u8, shards: u8, identity: &Identity) -> hub::Continuity {
        let shares = usize::from(shards).max(1);
        hub::Continuity {
            shard,
            epoch: identity.epoch,
            key: identity.key,
            head: identity.heads.get(usize::from(shard)).copied().unwrap_or_default(),
            loading: identity.loading,
            window: self.window,
            log_bytes: self.max_bytes / shares,
            away_max: self.max_away.div_ceil(shares),
        }
    }
}

impl Identity {
    /// That of a process that goes on from nothing.
    pub(crate) fn draw() -> Self {
        let mut entropy = Entropy::new();
        Self {
            epoch: u32::from_be_bytes(entropy.bytes()),
            key: entropy.bytes(),
            heads: Vec::new(),
            loading: false,
        }
    }
}

/// Looks for what the process before this one has left, and goes on as that. The rest of it is still
/// to be [restored](restore).
pub(crate) fn find(process: &Process) -> Option<Saved> {
    let path = process.ending.file()?;
    match saved::take(path) {
        Ok(Some(saved)) => {
            let Head { epoch, key, heads, .. } = saved.head.clone();
            process.adopt(Identity { epoch, key, heads, loading: true });
            Some(saved)
        }
        Ok(None) => None,
        Err(error) => {
            let path = path.display();
            tracing::warn!(%error, %path, "the saved state is of no use: clients that come back are new");
            None
        }
    }
}

/// Reads what the process before this one has left, and gives each shard its part.
pub(crate) fn restore(process: &Process, saved: Saved) {
    let shards = process.shards.len();
    // Whatever comes of it: clients wait for the end of this.
    let read = catch_unwind(AssertUnwindSafe(|| read(saved, shards)));
    let parts = match read {
        Ok(Ok(parts)) => {
            let sockets: usize = parts.iter().map(Snapshot::sockets).sum();
            tracing::info!(sockets, "the saved state is read");
            parts
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the saved state is lost: clients that come back are new");
            Vec::new()
        }
        Err(_) => {
            tracing::error!("the saved state cannot be used: clients that come back are new");
            Vec::new()
        }
    };
    let mut parts = parts.into_iter().map(Box::new);
    for port in &process.shards {
        port.mailbox.push(Message::Restore(parts.next()));
    }
}

fn read(saved: Saved, shards: usize) -> Result<Vec<Snapshot>, SavedError> {
    Ok(Snapshot::redistribute(saved.parts()?, shards as u8))
}

/// A shard has come to its end. The last one writes what all have left.
pub(crate) fn save(process: &Process, shard: u8, snapshot: Snapshot) {
    let Some(snapshots) = process.ending.on_saved(shard, snapshot) else { return };
    let Some(path) = process.ending.file() else { return };
    let identity = process.identity();
    let mut heads: Vec<u64> = snapshots.iter().map(Snapshot::head).collect();
    // If there are more shards again some day, they go on where their logs ended.
    heads.extend(identity.heads.iter().skip(snapshots.len()));
    let parts = snapshots.len();
    let sockets: usize = snapshots.iter().map(Snapshot::sockets).sum();
    let head = Head { epoch: identity.epoch, key: identity.key, heads, parts };
    match saved::write(path, &head, snapshots) {
        Ok(bytes) => tracing::info!(sockets, bytes, "the state is saved"),
        Err(error) => {
            let path = path.display();
            tracing::error!(%error, %path, "the state could not be saved: clients that come back are new");
        }
    }
}
