//! Every timer there is, and the queue they wait in.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

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
    /// Those that come in order by themselves, as nearly all do: a line for each timer in
    /// [`IN_LINE`].
    lines: [VecDeque<(Time, SessionKey)>; IN_LINE.len()],
    heap: BinaryHeap<Reverse<(Time, Timer, SessionKey)>>,
    /// Twice the entries that were meant when the stale ones were dropped last.
    crowded_from: usize,
}

/// Timers that every session has, each time as far ahead as the time before. Only when the
/// configuration has made one shorter do entries of it go into the heap for a while.
const IN_LINE: [Timer; 3] = [Timer::Ping, Timer::Pong, Timer::Connect];

/// Entries from which on it is worth looking for stale ones.
const CROWDED_FROM: usize = 1_024;

impl TimerQueue {
    pub(crate) fn push(&mut self, at: Time, timer: Timer, session: SessionKey) {
        let line = IN_LINE.iter().position(|it| *it == timer).map(|line| &mut self.lines[line]);
        match line {
            Some(line) if line.back().is_none_or(|(last, _)| *last <= at) => {
                line.push_back((at, session));
            }
            Some(_) | None => self.heap.push(Reverse((at, timer, session))),
        }
    }

    /// Whether about half of the entries may be stale. They go by themselves when they come up, but
    /// a peer that opens and closes makes them faster than that.
    pub(crate) fn is_crowded(&self) -> bool {
        self.len() > self.crowded_from.max(CROWDED_FROM)
    }

    /// Drops the entries that nobody means.
    pub(crate) fn retain(&mut self, is_meant: impl Fn(Time, Timer, SessionKey) -> bool) {
        self.heap.retain(|Reverse((at, timer, session))| is_meant(*at, *timer, *session));
        self.heap.shrink_to(2 * self.heap.len());
        for (line, timer) in self.lines.iter_mut().zip(IN_LINE) {
            line.retain(|(at, session)| is_meant(*at, timer, *session));
            line.shrink_to(2 * line.len());
        }
        self.crowded_from = 2 * self.len();
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len() + self.lines.iter().map(VecDeque::len).sum::<usize>()
    }

    /// The earliest entry, which may be stale.
    pub(crate) fn peek(&self) -> Option<(Time, Timer)> {
        let mut first = self.heap.peek().map(|Reverse((at, timer, _))| (*at, *timer));
        for (line, timer) in self.lines.iter().zip(IN_LINE) {
            if let Some((at, _)) = line.front()
                && first.is_none_or(|first| (*at, timer) < first)
            {
                first = Some((*at, timer));
            }
        }
        first
    }

    /// Takes the earliest entry out if it is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, Timer, SessionKey)> {
        let (at, timer) = self.peek().filter(|(at, _)| *at <= now)?;
        for (line, in_line) in self.lines.iter_mut().zip(IN_LINE) {
            if in_line == timer
                && let Some((at, session)) = line.pop_front_if(|(front, _)| *front == at)
            {
                return Some((at, timer, session));
            }
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slotmap::SlotMap;

    use super::*;

    proptest! {
        #[test]
        fn entries_come_in_order_whatever_was_pushed(
            pushed in proptest::collection::vec((0..50_u64, 0..Timer::ALL.len()), 0..200),
            until in 0..60_u64,
        ) {
            let mut keys = SlotMap::<SessionKey, ()>::with_key();
            let key = keys.insert(());
            let mut queue = TimerQueue::default();
            let mut expected = Vec::new();
            for (at, timer) in pushed {
                let (at, timer) = (Time::from_micros(at), Timer::ALL[timer]);
                queue.push(at, timer, key);
                expected.push((at, timer, key));
            }
            expected.sort_unstable();
            prop_assert_eq!(queue.len(), expected.len());
            queue.retain(|_, timer, _| timer != Timer::Ack);
            expected.retain(|(_, timer, _)| *timer != Timer::Ack);
            prop_assert_eq!(queue.peek(), expected.first().map(|(at, timer, _)| (*at, *timer)));
            let until = Time::from_micros(until);
            let due = expected.partition_point(|(at, ..)| *at <= until);
            let taken: Vec<_> = std::iter::from_fn(|| queue.pop_due(until)).collect();
            prop_assert_eq!(taken, &expected[..due]);
            prop_assert_eq!(queue.len(), expected.len() - due);
        }
    }
}
