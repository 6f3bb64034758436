//! What has become of one client: its transports, its heartbeat, its returns.

use std::collections::BTreeSet;

use slotmap::Key as _;

use super::{Hub, UpgradeFailure};
use crate::{
    SessionKey, Sid, SocketKey, Time,
    engineio::TransportName,
    limit::LimitKey,
    wall::{DisconnectReason, RecoveryOutcome},
};

/// Something that happened to a socket, or to a session that carried it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoryEntry {
    /// When.
    pub at: Time,
    /// What.
    pub happened: Happened,
}

/// What can happen to a socket, and to the Engine.IO sessions that carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// A session was opened, by this transport.
    Opened(TransportName),
    /// A WebSocket said `2probe`, to take over from polling.
    Probed,
    /// The WebSocket took over.
    Upgraded,
    /// It did not, for this reason.
    UpgradeFailed(UpgradeFailure),
    /// The session crossed this limit, and was cut if that is what the limit does.
    LimitHit(LimitKey),
    /// The session ended.
    Closed(DisconnectReason),
    /// The server sent a ping.
    PingSent,
    /// The client answered it, after so many microseconds.
    Pong {
        /// At most some 71 minutes are told apart.
        micros: u32,
    },
    /// The client sent a ping, as those of EIO 3 do.
    ClientPing,
    /// The client of the session wanted to go on with a socket that it had, and got a new one.
    RecoveryFailed(RecoveryOutcome),
    /// The socket was let into its namespace.
    Connected,
    /// It lost its session, and is kept.
    Away(DisconnectReason),
    /// Its client was back, and was not let in again. It is still away.
    ReturnRefused,
    /// It has a session again.
    Back,
    /// It was sent so many events that it had missed, all there were.
    CaughtUp {
        /// Acks of its own events count too.
        replayed: u32,
    },
    /// It went from this shard to that of its client.
    MovedAway,
    /// It came from this shard.
    MovedIn {
        /// The index.
        from: u8,
    },
    /// An earlier process had kept it.
    Restored,
    /// It left its namespace, for this reason.
    Ended {
        /// What its handler was told.
        reason: DisconnectReason,
        /// What its client is told that wants it back.
        outcome: RecoveryOutcome,
    },
}

/// What happened of late to all sessions and sockets of a hub. Heartbeats are kept apart: there are
/// many, and the rest tells more.
#[derive(Debug, Default)]
pub(super) struct Stories {
    life: Ring,
    heartbeats: Ring,
    /// How many lines there were.
    count: u64,
}

/// The last so many lines. It grows to its size as it fills.
#[derive(Debug, Default)]
struct Ring {
    lines: Vec<Line>,
    /// The oldest, once it is full.
    oldest: usize,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    /// Its place among all lines: many have the same time.
    number: u64,
    at: Time,
    /// The session, or what the socket had as one. Null if it had none.
    session: SessionKey,
    /// The Socket.IO sid, if it is about a socket.
    socket: Option<Sid>,
    happened: Happened,
}

/// How many lines a ring holds.
const LINES_MAX: usize = 16_384;

impl Stories {
    fn line(
        &mut self,
        at: Time,
        session: SessionKey,
        socket: Option<Sid>,
        happened: Happened,
    ) -> Line {
        self.count += 1;
        Line { number: self.count, at, session, socket, happened }
    }
}

impl Ring {
    fn push(&mut self, line: Line) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        } else {
            self.lines[self.oldest] = line;
            self.oldest = (self.oldest + 1) % LINES_MAX;
        }
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        let (later, earlier) = self.lines.split_at(self.oldest);
        earlier.iter().chain(later)
    }
}

impl Hub {
    /// What has happened to the socket with this Socket.IO sid on this shard, and to the sessions
    /// that carried it, as far as it is remembered, in order of time. Also of a socket that has gone.
    pub fn story(&self, id: Sid) -> Vec<StoryEntry> {
        let Stories { life, heartbeats, .. } = &self.stories;
        let now = self.find_socket(id).and_then(|key| self.sockets.get(key));
        let own = life.lines().filter(|line| line.socket == Some(id)).map(|line| line.session);
        let mut sessions: BTreeSet<SessionKey> = own.collect();
        sessions.extend(now.map(|socket| socket.session));
        sessions.remove(&SessionKey::null());
        let told = life.lines().chain(heartbeats.lines()).filter(|line| match line.socket {
            Some(socket) => socket == id,
            None => sessions.contains(&line.session),
        });
        let mut told: Vec<&Line> = told.collect();
        told.sort_unstable_by_key(|line| line.number);
        told.iter().map(|line| StoryEntry { at: line.at, happened: line.happened }).collect()
    }

    /// Notes what happens to a session. The server's own have no story.
    pub(super) fn note(&mut self, key: SessionKey, happened: Happened) {
        if self.sessions.get(key).is_some_and(|session| !session.own) {
            let line = self.stories.line(self.now, key, None, happened);
            self.stories.life.push(line);
        }
    }

    /// Notes a sign of life.
    pub(super) fn note_heartbeat(&mut self, key: SessionKey, happened: Happened) {
        if self.sessions.get(key).is_some_and(|session| !session.own) {
            let line = self.stories.line(self.now, key, None, happened);
            self.stories.heartbeats.push(line);
        }
    }

    /// Notes what happens to a socket that was accepted.
    pub(super) fn note_socket(&mut self, key: SocketKey, happened: Happened) {
        let Some(socket) = self.sockets.get(key).filter(|socket| socket.id.is_some()) else {
            return;
        };
        if self.sessions.get(socket.session).is_none_or(|session| !session.own) {
            let line = self.stories.line(self.now, socket.session, socket.id, happened);
            self.stories.life.push(line);
        }
    }
}
