//! What the shell counts, and the whole picture for whoever asks.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bowline_names::LimitKey;
use bowline_proto::{Time, hub};

use crate::{limit, mailbox::ShardStats, process::Process};

/// Why `accept` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// The process has no descriptor left.
    Emfile,
    /// The system has no descriptor left.
    Enfile,
    /// The client was gone before it was accepted.
    Aborted,
    /// Anything else.
    Other,
}

impl AcceptError {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 4] = [Self::Emfile, Self::Enfile, Self::Aborted, Self::Other];

    /// The name operators see, in `bowline_accept_errors_total{kind}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emfile => "emfile",
            Self::Enfile => "enfile",
            Self::Aborted => "aborted",
            Self::Other => "other",
        }
    }

    pub(crate) fn of(error: &io::Error) -> Self {
        match rustix::io::Errno::from_io_error(error) {
            Some(rustix::io::Errno::MFILE) => Self::Emfile,
            Some(rustix::io::Errno::NFILE) => Self::Enfile,
            Some(rustix::io::Errno::CONNABORTED) => Self::Aborted,
            _ => Self::Other,
        }
    }
}

/// The counters of a process that its shards share. Rare things only: what happens for every
/// message is counted by the shard alone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    accept_errors: [AtomicU64; AcceptError::ALL.len()],
    limit_hits: [AtomicU64; LimitKey::ALL.len()],
    handler_panics: AtomicU64,
    broadcasts: AtomicU64,
    /// Times that accepting rested since the log last said so, and when it may say so again, in
    /// microseconds.
    rests: AtomicU64,
    rests_told_until: AtomicU64,
}

impl Counters {
    pub(crate) fn on_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(crate) fn on_accept_error(&self, kind: AcceptError) {
        self.accept_errors[kind as usize].fetch_add(1, Relaxed);
    }

    /// Counts a rest in accepting. How many there were since the last time if the log shall say so
    /// now: the first at once, those after it once a minute.
    pub(crate) fn rests_to_tell(&self, now: Time) -> Option<u64> {
        self.rests.fetch_add(1, Relaxed);
        let until = self.rests_told_until.load(Relaxed);
        let next = (now + limit::ACCEPT_LOG_PAUSE).as_micros();
        let told = now.as_micros() < until
            || self.rests_told_until.compare_exchange(until, next, Relaxed, Relaxed).is_err();
        if told { None } else { Some(self.rests.swap(0, Relaxed)) }
    }

    pub(crate) fn on_limit(&self, limit: LimitKey) {
        self.limit_hits[limit as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn on_handler_panic(&self) {
        self.handler_panics.fetch_add(1, Relaxed);
    }

    /// A broadcast that came from another thread: each hub was told its share alone.
    pub(crate) fn on_broadcast(&self) {
        self.broadcasts.fetch_add(1, Relaxed);
    }
}

/// What a server has counted since its start, and what it holds.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// The counters of the hubs, added up.
    pub hub: hub::Stats,
    /// Sessions that polling serves now.
    pub sessions_polling: usize,
    /// Sessions that a WebSocket serves now.
    pub sessions_websocket: usize,
    /// HTTP requests that wait for their session now: mostly polls.
    pub requests_waiting: usize,
    /// Connections open now, HTTP and WebSocket.
    pub connections: usize,
    /// Connections open now only to be refused.
    pub connections_refused: usize,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Failed `accept` calls, by [`AcceptError`].
    pub accept_errors: [u64; AcceptError::ALL.len()],
    /// Limits that were hit, by [`LimitKey`]: those of the process, and those of sessions, which
    /// `hub` has too.
    pub limit_hits: [u64; LimitKey::ALL.len()],
    /// Calls of a handler that panicked.
    pub handler_panics: u64,
    /// Bytes read from WebSockets.
    pub websocket_bytes_in: u64,
    /// Bytes written to WebSockets.
    pub websocket_bytes_out: u64,
}

impl Stats {
    pub(crate) fn gather(process: &Process, shards: &[ShardStats]) -> Self {
        let counters = &process.counters;
        let (connections, connections_refused) = process.admission.counts();
        let mut stats = Self {
            connections,
            connections_refused,
            accepted: counters.accepted.load(Relaxed),
            accept_errors: counters.accept_errors.each_ref().map(|count| count.load(Relaxed)),
            limit_hits: counters.limit_hits.each_ref().map(|count| count.load(Relaxed)),
            handler_panics: counters.handler_panics.load(Relaxed),
            ..Self::default()
        };
        for shard in shards {
            stats.sessions_polling += shard.polling;
            stats.sessions_websocket += shard.websocket;
            stats.requests_waiting += shard.requests_waiting;
            stats.websocket_bytes_in += shard.bytes_in;
            stats.websocket_bytes_out += shard.bytes_out;
            add(&mut stats.hub, &shard.hub);
        }
        each(&mut stats.limit_hits, &stats.hub.limit_hits);
        stats.hub.events_out += counters.broadcasts.load(Relaxed);
        stats
    }
}

fn add(sum: &mut hub::Stats, part: &hub::Stats) {
    // Taken apart by name, so that a counter that is added to the hub cannot be forgotten here.
    let hub::Stats {
        opened_polling,
        opened_websocket,
        upgraded,
        upgrade_failures,
        closed,
        connects_accepted,
        connects_refused,
        packets_in,
        packets_out,
        events_in,
        events_out,
        slow_receivers,
        limit_hits,
        wakeups,
    } = part;
    sum.opened_polling += opened_polling;
    sum.opened_websocket += opened_websocket;
    sum.upgraded += upgraded;
    each(&mut sum.upgrade_failures, upgrade_failures);
    each(&mut sum.closed, closed);
    sum.connects_accepted += connects_accepted;
    sum.connects_refused += connects_refused;
    sum.packets_in += packets_in;
    sum.packets_out += packets_out;
    sum.events_in += events_in;
    sum.events_out += events_out;
    sum.slow_receivers += slow_receivers;
    each(&mut sum.limit_hits, limit_hits);
    each(&mut sum.wakeups, wakeups);
}

fn each<const N: usize>(sum: &mut [u64; N], part: &[u64; N]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}
