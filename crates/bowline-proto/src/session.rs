//! One Engine.IO session: its phases, its heartbeat, and what it holds.
//!
//! A session outlives each of its transports. It knows them by id only; the
//! [hub](crate::hub) carries out what the tables here say.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

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

/// One Engine.IO session with its places in the namespaces.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Sid,
    pub(crate) version: Version,
    pub(crate) phase: Phase,
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
    /// The earliest deadline of an ack it owes, or [`NEVER`].
    pub(crate) ack_by: Time,
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
            (Timer::Ack, _) => self.ack_by,
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
