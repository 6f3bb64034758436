//! One Engine.IO session: its phases, its heartbeat, and what it holds.
//!
//! A session outlives each of its transports. It knows them by id only; the
//! [hub](crate::hub) carries out what the tables here say.

use std::{any::Any, collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    ExchangeId, Sid, SocketKey, Time, Timer, TransportId,
    engineio::{self, Packet, PollStyle, TransportName, Version},
    socketio,
    wall::Handshake,
};

/// Where a session stands between its transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Served by polling requests.
    Polling,
    /// A WebSocket was opened for it and has not said `2probe` yet.
    Probing,
    /// The probe was answered; every poll gets something at once until `5` arrives.
    Probed,
    /// Served by a WebSocket.
    WebSocket,
    /// Closed by the server; waits for the polls that tell the client.
    Closing,
    /// Gone.
    Closed,
}

/// What moves a session from phase to phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A WebSocket arrived with its sid.
    Attach,
    /// The WebSocket said `2probe`.
    Probe,
    /// The WebSocket said `5`.
    Upgrade,
    /// The WebSocket went, said something else, or took too long.
    ProbeFailed,
    /// The server closes a session that polls.
    Close,
    /// A poll took the last of what was queued, or none came in time.
    Told,
    /// The server closed its WebSocket, the client closed it, its WebSocket went, its heartbeat
    /// stopped, or it broke the protocol.
    End,
}

impl Phase {
    /// Every phase, in declaration order.
    pub const ALL: [Self; 6] =
        [Self::Polling, Self::Probing, Self::Probed, Self::WebSocket, Self::Closing, Self::Closed];

    /// Returns the phase after `step`, or `None` if it cannot happen in this one.
    pub fn after(self, step: Step) -> Option<Self> {
        use Phase::{Closed, Closing, Polling, Probed, Probing, WebSocket};
        match (self, step) {
            (Polling, Step::Attach) => Some(Probing),
            (Probing | Probed, Step::Probe) => Some(Probed),
            // A client that skips the probe is taken at its word, as the reference does.
            (Probing | Probed, Step::Upgrade) => Some(WebSocket),
            (Probing | Probed, Step::ProbeFailed) => Some(Polling),
            (Polling | Probing | Probed, Step::Close) => Some(Closing),
            (Closing, Step::Told) => Some(Closed),
            (Polling | Probing | Probed | WebSocket | Closing, Step::End) => Some(Closed),
            (
                Polling | Probing | Probed | WebSocket | Closing | Closed,
                Step::Attach
                | Step::Probe
                | Step::Upgrade
                | Step::ProbeFailed
                | Step::Close
                | Step::Told
                | Step::End,
            ) => None,
        }
    }
}

impl Step {
    /// Every step, in declaration order.
    pub const ALL: [Self; 7] = [
        Self::Attach,
        Self::Probe,
        Self::Upgrade,
        Self::ProbeFailed,
        Self::Close,
        Self::Told,
        Self::End,
    ];
}

/// Who owes whom a sign of life, and until when. The deadline is the session's: a change of
/// transport does not touch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// EIO 4: the server sends a ping at this time.
    Resting(Time),
    /// EIO 4: a ping fell due while a probe was under way; it is sent when that has ended.
    Held,
    /// EIO 4: the client owes a pong until this time.
    AwaitingPong(Time),
    /// EIO 3: the client owes a ping until this time.
    AwaitingPing(Time),
}

/// What only a session that polls has. Dropped at the upgrade.
#[derive(Debug, Default)]
pub(crate) struct Polling {
    pub(crate) style: PollStyle,
    /// Packets that one body may hold.
    pub(crate) packets_max: usize,
    /// The GET that awaits packets.
    pub(crate) get: Option<ExchangeId>,
    /// The GET that was answered last. Its client may be gone without the answer, which only the
    /// next GET disproves.
    pub(crate) answered: Option<ExchangeId>,
    /// The POST whose body is still to come.
    pub(crate) post: Option<ExchangeId>,
    /// Packets that no poll has taken yet.
    pub(crate) queue: VecDeque<Packet>,
    pub(crate) queued_bytes: usize,
    /// The WebSocket that may replace polling.
    pub(crate) probe: Option<Probe>,
    /// What told the last requests from others, as far as they said.
    pub(crate) get_timestamp: Option<u64>,
    pub(crate) post_timestamp: Option<u64>,
    /// A hash of the body of the last POST.
    pub(crate) post_hash: u64,
    /// When a closing session stops waiting for a poll.
    pub(crate) last_poll: Time,
    /// Whether it already stands in the hub's list of polls to answer at the end of the turn.
    pub(crate) listed: bool,
}

/// A WebSocket that was opened to upgrade a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) transport: TransportId,
    pub(crate) deflate: bool,
    pub(crate) deadline: Time,
}

/// What a client is told when it opens a session. It counts on it for as long as that lives,
/// whatever the configuration says by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) max_payload_bytes: usize,
}

impl Terms {
    pub(crate) fn of(config: &crate::hub::Config) -> Self {
        Self {
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            max_payload_bytes: config.limits.max_payload_bytes,
        }
    }

    /// EIO 3: until when a client that was heard of now must be heard of again.
    pub(crate) fn client_ping_by(&self, now: Time) -> Time {
        now + self.ping_interval + self.ping_timeout
    }
}

/// One Engine.IO session with its places in the namespaces.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Sid,
    pub(crate) version: Version,
    pub(crate) terms: Arc<Terms>,
    pub(crate) opened: Time,
    /// Whether the server opened it itself, to see whether clients can: it is not counted.
    pub(crate) own: bool,
    pub(crate) phase: Phase,
    /// Whether its client is a browser, as far as its headers say.
    pub(crate) browser: bool,
    /// Sockets of it that are sent what they have missed.
    pub(crate) catching_up: u16,
    /// Whether its client asked for base64 instead of binary messages (`b64`).
    pub(crate) base64: bool,
    /// Whether its WebSocket negotiated permessage-deflate.
    pub(crate) deflate: bool,
    /// Its WebSocket, in [`Phase::WebSocket`].
    pub(crate) websocket: Option<TransportId>,
    /// Present in every other phase.
    pub(crate) polling: Option<Box<Polling>>,
    /// Bytes its WebSocket could not take yet.
    pub(crate) backlog_bytes: usize,
    pub(crate) heartbeat: Heartbeat,
    /// When it is closed if it has joined no namespace; [`NEVER`] once it has.
    pub(crate) connect_by: Time,
    /// What few sessions have.
    pub(crate) rare: Option<Box<Rare>>,
    /// When its event allowance is full again (a generic cell rate limiter).
    pub(crate) events_full_at: Time,
    pub(crate) decoder: socketio::Decoder,
    /// Its sockets, in order of their CONNECT.
    pub(crate) sockets: Vec<SocketKey>,
    /// Rooms its sockets are in, together.
    pub(crate) rooms: u32,
    /// Acks it owes, over all its sockets.
    pub(crate) pending_acks: u32,
    pub(crate) address: Option<IpAddr>,
    pub(crate) handshake: Option<Arc<Handshake>>,
}

/// Kept apart, so that a session that has none of it pays one pointer.
#[derive(Debug)]
pub(crate) struct Rare {
    /// What its sockets wait for, the earliest of each kind.
    ack: Time,
    expiry: Time,
    /// When its sockets that are catching up get the next portion.
    replay: Time,
    /// Something of the shell's that is dropped when the session is.
    lease: Option<Box<dyn Any + Send>>,
}

/// A deadline that is not set.
pub(crate) const NEVER: Time = Time::from_micros(u64::MAX);

impl Session {
    /// Takes `step` and says whether the phase allows it.
    pub(crate) fn step(&mut self, step: Step) -> bool {
        match self.phase.after(step) {
            Some(next) => {
                self.phase = next;
                true
            }
            None => false,
        }
    }

    /// The earliest deadline of an ack it owes, or [`NEVER`].
    pub(crate) fn ack_by(&self) -> Time {
        self.rare.as_deref().map_or(NEVER, |rare| rare.ack)
    }

    pub(crate) fn set_ack_by(&mut self, at: Time) {
        self.change_rare(|rare| rare.ack = at);
    }

    /// When the first of its sockets has to go, or [`NEVER`].
    pub(crate) fn expire_by(&self) -> Time {
        self.rare.as_deref().map_or(NEVER, |rare| rare.expiry)
    }

    pub(crate) fn set_expire_by(&mut self, at: Time) {
        self.change_rare(|rare| rare.expiry = at);
    }

    /// When the next portion of a replay is sent, or [`NEVER`].
    pub(crate) fn replay_at(&self) -> Time {
        self.rare.as_deref().map_or(NEVER, |rare| rare.replay)
    }

    pub(crate) fn set_replay_at(&mut self, at: Time) {
        self.change_rare(|rare| rare.replay = at);
    }

    /// Keeps something until the session ends.
    pub(crate) fn set_lease(&mut self, lease: Box<dyn Any + Send>) {
        self.change_rare(|rare| rare.lease = Some(lease));
    }

    fn change_rare(&mut self, change: impl FnOnce(&mut Rare)) {
        let none = || Box::new(Rare { ack: NEVER, expiry: NEVER, replay: NEVER, lease: None });
        let rare = self.rare.get_or_insert_with(none);
        change(rare);
        let waits = [rare.ack, rare.expiry, rare.replay].iter().any(|at| *at != NEVER);
        if !waits && rare.lease.is_none() {
            self.rare = None;
        }
    }

    pub(crate) fn is_eio3(&self) -> bool {
        self.version == Version::V3
    }

    /// Whether packets are written for it one by one, not as frames that many share.
    pub(crate) fn takes_packets(&self) -> bool {
        self.websocket.is_none() || self.base64
    }

    /// The WebSocket frame that carries `packet`.
    pub(crate) fn frame(&self, packet: &Packet) -> Bytes {
        match self.base64 {
            true => engineio::ws_frame_base64(self.version, packet),
            false => engineio::ws_frame(self.version, packet),
        }
    }

    /// What `timer` is set to, if it is.
    pub(crate) fn deadline(&self, timer: Timer) -> Option<Time> {
        let polling = self.polling.as_deref();
        let closing = self.phase == Phase::Closing;
        let at = match (timer, self.heartbeat) {
            (Timer::LastPoll, _) => polling?.last_poll,
            _ if closing => return None,
            (Timer::Ping, Heartbeat::Resting(at))
            | (Timer::Pong, Heartbeat::AwaitingPong(at))
            | (Timer::ClientPing, Heartbeat::AwaitingPing(at)) => at,
            (Timer::Ping | Timer::Pong | Timer::ClientPing, _) => return None,
            (Timer::Upgrade, _) => polling?.probe?.deadline,
            (Timer::Connect, _) => self.connect_by,
            (Timer::Ack, _) => self.ack_by(),
            (Timer::Expiry, _) => self.expire_by(),
            (Timer::Replay, _) => self.replay_at(),
            (Timer::Away, _) => return None,
        };
        (at != NEVER).then_some(at)
    }

    /// Whether an entry of the timer queue is still of use: an EIO 3 client moves its deadline
    /// without a new one.
    pub(crate) fn means(&self, timer: Timer, at: Time) -> bool {
        self.deadline(timer).is_some_and(|deadline| deadline == at || timer == Timer::ClientPing)
    }

    /// The name of the transport that serves it, as requests give it.
    pub(crate) fn transport_name(&self) -> TransportName {
        match self.phase {
            Phase::WebSocket => TransportName::WebSocket,
            Phase::Polling | Phase::Probing | Phase::Probed | Phase::Closing | Phase::Closed => {
                TransportName::Polling
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{Phase, Step};

    #[test]
    fn the_transition_table_is_the_reviewed_one() {
        let mut table = String::new();
        for phase in Phase::ALL {
            for step in Step::ALL {
                if let Some(next) = phase.after(step) {
                    writeln!(table, "{phase:?} --{step:?}--> {next:?}").unwrap();
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn closed_is_the_only_phase_without_a_way_out_and_all_reach_it() {
        for phase in Phase::ALL {
            let ends = Step::ALL.iter().any(|step| phase.after(*step) == Some(Phase::Closed));
            assert_eq!(ends, phase != Phase::Closed, "{phase:?}");
        }
    }
}
