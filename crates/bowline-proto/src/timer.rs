//! Every timer there is, and the queue they wait in.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{SessionKey, Time};

/// Why the hub wants to be woken. Timers belong to a session, never to a transport.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// EIO 4: when to send the next ping (`ping-interval` after the last pong).
    Ping,
    /// EIO 4: when the pong is overdue (`ping-timeout` after the ping). Survives a change of
    /// transport.
    Pong,
    /// EIO 3: when the client's ping is overdue (`ping-interval` + `ping-timeout` after the last).
    ClientPing,
    /// When a WebSocket that was opened to upgrade a session is given up (`upgrade-timeout`).
    Upgrade,
    /// When a session that has joined no namespace is closed (`connect-timeout`).
    Connect,
    /// When a closed polling session stops waiting for the request that would tell the client.
    LastPoll,
    /// When an ack asked of a client counts as missing.
    Ack,
    /// When a socket has to go, because its token ends.
    Expiry,
    /// When a client that is catching up gets the next portion.
    Replay,
    /// When a socket whose client is away ends (`continuity.window`), or an ack it owes is missing.
    Away,
}

impl Timer {
    /// Every timer, in declaration order.
    pub const ALL: [Self; 10] = [
        Self::Ping,
        Self::Pong,
        Self::ClientPing,
        Self::Upgrade,
        Self::Connect,
        Self::LastPoll,
        Self::Ack,
        Self::Expiry,
        Self::Replay,
        Self::Away,
    ];

    /// The name operators see, in `bowline_wakeups_total{timer}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::ClientPing => "client-ping",
            Self::Upgrade => "upgrade",
            Self::Connect => "connect",
            Self::LastPoll => "last-poll",
            Self::Ack => "ack",
            Self::Expiry => "expiry",
            Self::Replay => "replay",
            Self::Away => "away",
        }
    }
}

/// Deadlines in order. An entry may be stale: whoever takes it out asks the session whether it
/// still means it, so that moving a deadline to later costs nothing.
#[derive(Debug, Default)]
pub(crate) struct TimerQueue {
    heap: BinaryHeap<Reverse<(Time, Timer, SessionKey)>>,
    /// Twice the entries that were meant when the stale ones were dropped last.
    crowded_from: usize,
}

/// Entries from which on it is worth looking for stale ones.
const CROWDED_FROM: usize = 1_024;

impl TimerQueue {
    pub(crate) fn push(&mut self, at: Time, timer: Timer, session: SessionKey) {
        self.heap.push(Reverse((at, timer, session)));
    }

    /// Whether about half of the entries may be stale. They go by themselves when they come up, but
    /// a peer that opens and closes makes them faster than that.
    pub(crate) fn is_crowded(&self) -> bool {
        self.heap.len() > self.crowded_from.max(CROWDED_FROM)
    }

    /// Drops the entries that nobody means.
    pub(crate) fn retain(&mut self, is_meant: impl Fn(Time, Timer, SessionKey) -> bool) {
        self.heap.retain(|Reverse((at, timer, session))| is_meant(*at, *timer, *session));
        self.crowded_from = 2 * self.heap.len();
        self.heap.shrink_to(self.crowded_from);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The earliest entry, which may be stale.
    pub(crate) fn peek(&self) -> Option<(Time, Timer)> {
        self.heap.peek().map(|Reverse((at, timer, _))| (*at, *timer))
    }

    /// Takes the earliest entry out if it is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, Timer, SessionKey)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
