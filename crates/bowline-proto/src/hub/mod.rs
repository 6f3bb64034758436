//! The sessions of one shard, their namespaces and rooms: everything that is decided.
//!
//! [`Hub`] is one thread's state and knows no locks. `engine` holds what happens below the
//! namespaces (opening, polls, upgrade, heartbeat, closing), `sockets` what happens in them
//! (CONNECT, events, acks, broadcasts), `namespace` the rooms and the walk over receivers.

mod asking;
mod config;
mod engine;
mod event_id;
mod expiry;
mod extras;
mod inspect;
mod kept;
mod log;
mod matching;
mod namespace;
mod peers;
mod replay;
mod snapshot;
mod sockets;
mod stats;
mod story;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_abilities;
#[cfg(test)]
mod tests_continuity;
#[cfg(test)]
mod tests_edges;
#[cfg(test)]
mod tests_event_id;
#[cfg(test)]
mod tests_operate;
#[cfg(test)]
mod tests_returns;
#[cfg(test)]
mod tests_review;
#[cfg(test)]
mod tests_snapshot;
#[cfg(test)]
mod tests_story;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicUsize},
};

use bytestring::ByteString;
use slotmap::SlotMap;

pub use config::{
    Config, Continuity, Keeping, NamespacePattern, NamespaceRule, OnDoubt, Protocol,
    SessionKeySource, Stamp,
};
pub use event_id::{EventIdPath, InvalidEventIdPath};
pub use inspect::{OWN_NAMESPACES, RoomView, SessionView};
pub use kept::LogView;
pub use log::{InvalidOffset, Offset};
pub use namespace::{Receivers, Walk};
pub use peers::{Peer, Whereabouts};
pub use snapshot::Snapshot;
pub use stats::{Histogram, Measured, Stats, UpgradeFailure};
pub use story::{Happened, StoryEntry};

use crate::{
    Command, ExchangeId, Input, Output, SessionKey, Sid, SocketKey, Time, Timer, TransportId,
    engineio::{TransportName, Version},
    id::{NumberHash, SidHash},
    session::{Session, Terms},
    timer::TimerQueue,
    wall::{DisconnectReason, PostBody, SocketData},
};
use extras::Extras;
use kept::{Keeper, Kept};
use log::Log;
use namespace::{KeyedHash, Membership, NamespaceKey, Namespaces};
use story::Stories;

/// The sessions, sockets, namespaces and rooms of one shard.
///
/// Driven by [`handle_input`](Self::handle_input) and drained by
/// [`poll_output`](Self::poll_output); see the [front page](crate) for the one law.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    /// What clients that open a session now are told.
    terms: Arc<Terms>,
    /// Whether some namespace has an `event-id`.
    named_events: bool,
    /// The time of the input that is being handled.
    now: Time,
    outputs: VecDeque<Output>,
    sessions: SlotMap<SessionKey, Session>,
    sockets: SlotMap<SocketKey, Socket>,
    namespaces: Namespaces,
    by_sid: HashMap<Sid, SessionKey, SidHash>,
    by_socket_sid: HashMap<Sid, SocketKey, SidHash>,
    by_transport: HashMap<TransportId, SessionKey, NumberHash>,
    by_exchange: HashMap<ExchangeId, SessionKey, NumberHash>,
    timers: TimerQueue,
    /// Polls that get an answer at the end of the turn.
    polls_to_answer: Vec<SessionKey>,
    /// The mark of the walk that was started last.
    mark: u32,
    /// The ack that was asked of many last.
    shared_acks: u32,
    /// How many sessions each kind of leg serves, so that a broadcast makes no pass in vain.
    census: Census,
    stats: Stats,
    stories: Stories,
    log: Log,
    keeper: Keeper,
    /// The number of the last broadcast that came of each shard, and of threads that are none.
    seen: Box<[u64]>,
    /// Sockets that are to be sent what other shards have not passed on yet.
    waiting_for_peers: Vec<SocketKey>,
    /// Claims of shards that have seen broadcasts which are still on their way here.
    claims_waiting: Vec<Peer>,
    /// How many things of other logs sockets may still have to be sent.
    older: Arc<AtomicUsize>,
    /// Whether what an earlier process has saved is still to come, and what has to wait for it.
    loading: bool,
    heard_early: Vec<Peer>,
}

/// One session's place in one namespace.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    session: SessionKey,
    namespace: NamespaceKey,
    /// Its Socket.IO sid, once it was accepted.
    id: Option<Sid>,
    /// Where it stands among the members of its namespace.
    place: u32,
    /// The last walk that came by.
    mark: u32,
    rooms: Vec<Membership>,
    next_ack: u64,
    extras: Option<Box<Extras>>,
    /// Present if it is kept when its session ends.
    kept: Option<Box<Kept>>,
}

/// What a handler may know of a socket.
#[derive(Debug, Clone, Copy)]
pub struct SocketView<'a> {
    /// Its Socket.IO sid.
    pub id: Sid,
    /// The name of its namespace.
    pub namespace: &'a ByteString,
    /// The session it belongs to. That of nobody while it is away.
    pub session: SessionKey,
    /// Whether its client has lost its transport and may come back.
    pub away: bool,
    data: Option<&'a SocketData>,
}

impl<'a> SocketView<'a> {
    /// What its handler keeps with it.
    pub fn data(&self) -> Option<&'a SocketData> {
        self.data
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Census {
    polling: usize,
    /// Sessions that take their packets one by one: those that poll, and WebSockets that want
    /// base64.
    by_packet: usize,
    /// By EIO 3 and by deflate.
    websocket: [[usize; 2]; 2],
    /// Those of them that are the server's own, which nobody else shall count: that poll, and that
    /// have a WebSocket.
    own: [usize; 2],
}

impl Census {
    /// Whether a WebSocket of this kind serves a session; `None` is either kind.
    fn has_websocket(&self, eio3: Option<bool>, deflate: Option<bool>) -> bool {
        let fits =
            |wanted: Option<bool>, index: usize| wanted.is_none_or(|w| usize::from(w) == index);
        self.websocket.iter().enumerate().filter(|(e, _)| fits(eio3, *e)).any(|(_, counts)| {
            counts.iter().enumerate().any(|(d, count)| fits(deflate, d) && *count > 0)
        })
    }
}

impl Hub {
    /// Makes the hub of one shard. `hash_key` comes from the shell's CSPRNG: names that clients
    /// choose are hashed with it.
    pub fn new(config: Config, hash_key: [u8; 16]) -> Self {
        let hash = KeyedHash(hash_key);
        let own = &config.continuity;
        let keep_empty = own.loading;
        Self {
            log: Log::new(own.epoch, own.shard, own.head),
            keeper: Keeper::new(&hash),
            seen: vec![0; usize::from(config.shards) + 1].into(),
            waiting_for_peers: Vec::new(),
            claims_waiting: Vec::new(),
            older: Arc::default(),
            loading: own.loading,
            heard_early: Vec::new(),
            terms: Arc::new(Terms::of(&config)),
            named_events: config.names_events(),
            config,
            now: Time::ZERO,
            outputs: VecDeque::new(),
            sessions: SlotMap::default(),
            sockets: SlotMap::default(),
            namespaces: Namespaces::new(hash, keep_empty),
            by_sid: HashMap::default(),
            by_socket_sid: HashMap::default(),
            by_transport: HashMap::default(),
            by_exchange: HashMap::default(),
            timers: TimerQueue::default(),
            polls_to_answer: Vec::new(),
            mark: 0,
            shared_acks: 0,
            census: Census::default(),
            stats: Stats::default(),
            stories: Stories::default(),
        }
    }

    /// Takes in one thing that happened. Drain [`poll_output`](Self::poll_output) before the next.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        debug_assert!(self.outputs.is_empty(), "outputs must be drained before the next input");
        self.now = now;
        if !self.keeper.parted.is_empty() {
            self.keeper.parted.clear();
        }
        if self.timers.is_crowded() {
            let sessions = &self.sessions;
            self.timers.retain(|at, timer, key| {
                sessions.get(key).is_some_and(|session| session.means(timer, at))
            });
        }
        match input {
            Input::Open { id, origin, handshake } => self.on_open(now, id, origin, handshake),
            Input::Get { exchange, session, timestamp } => {
                self.on_get(exchange, session, timestamp)
            }
            Input::Post { exchange, session, body, timestamp } => match body {
                PostBody::Whole { ref body, .. }
                    if self.is_repeated_post(exchange, session, body, timestamp) => {}
                PostBody::Begun => self.on_post_begun(exchange, session),
                PostBody::Whole { body, binary } => {
                    self.on_post(now, exchange, session, body, binary);
                }
                PostBody::TooBig => self.on_post_too_big(exchange, session),
            },
            Input::Attach { transport, session, deflate } => {
                self.on_attach(now, transport, session, deflate);
            }
            Input::Message { transport, message } => self.on_message(now, transport, message),
            Input::Lost { transport, why } => self.on_lost(now, transport, why),
            Input::Aborted { exchange } => self.on_aborted(exchange),
            Input::Backlog { transport, bytes } => self.on_backlog(now, transport, bytes),
            Input::Command(command) => self.on_command(now, command),
            Input::Heard(message) => self.on_heard(*message),
            Input::Restore(snapshot) => self.restore(snapshot),
            Input::Timeout => self.on_timeout(now),
            Input::TurnEnd => self.on_turn_end(),
            Input::Configure(config) => self.on_configure(*config),
            Input::Drain { session } => self.on_drain(now, session),
        }
    }

    /// The next thing to do outside, in order, or `None` when all was said.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand over [`Input::Timeout`] at the latest, and for which timer. It may turn out
    /// that nothing is due.
    pub fn poll_timeout(&self) -> Option<(Time, Timer)> {
        let away = self.away_timeout().map(|at| (at, Timer::Away));
        [self.timers.peek(), away].into_iter().flatten().min()
    }

    /// What serves a session and which revision it speaks, or `None` if there is none of this id:
    /// what [`SessionRequest::verify`](crate::engineio::SessionRequest::verify) wants to know.
    pub fn session_transport(&self, id: Sid) -> Option<(TransportName, Version)> {
        let key = self.by_sid.get(&id)?;
        self.sessions.get(*key).map(|session| (session.transport_name(), session.version))
    }

    /// What is known of a socket that was accepted and has not gone.
    pub fn socket(&self, key: SocketKey) -> Option<SocketView<'_>> {
        let socket = self.sockets.get(key)?;
        let namespace = self.namespaces.all.get(socket.namespace)?;
        Some(SocketView {
            id: socket.id?,
            namespace: &namespace.name,
            session: socket.session,
            away: socket.is_away(),
            data: socket.extras.as_deref().and_then(|extras| extras.data.as_ref()),
        })
    }

    /// The session of a socket, which may still await the answer to its CONNECT; of one that is away,
    /// that of the client that wants to take over.
    pub fn session_of(&self, key: SocketKey) -> Option<SessionKey> {
        let socket = self.sockets.get(key)?;
        let claimant = socket.kept.as_deref().and_then(|kept| kept.claimant);
        let claimant = claimant.and_then(|key| self.sockets.get(key));
        Some(claimant.unwrap_or(socket).session)
    }

    /// The socket with this Socket.IO sid.
    pub fn find_socket(&self, id: Sid) -> Option<SocketKey> {
        self.by_socket_sid.get(&id).copied()
    }

    /// The keys of all sessions.
    pub fn sessions(&self) -> impl Iterator<Item = SessionKey> {
        self.sessions.keys()
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many sessions of clients polling serves, and how many WebSockets serve.
    pub fn sessions_by_transport(&self) -> (usize, usize) {
        let [own_polling, own_websocket] = self.census.own;
        let websocket: usize = self.census.websocket.iter().flatten().sum();
        (self.census.polling - own_polling, websocket - own_websocket)
    }

    /// What was counted since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Sessions keep their terms; a namespace that a rule names is its handler's from now on, and
    /// one that none names any more keeps the handler it has.
    fn on_configure(&mut self, mut config: Config) {
        // Whose log it is does not change while there is one.
        let Continuity { window, log_bytes, away_max, .. } = config.continuity;
        config.continuity =
            Continuity { window, log_bytes, away_max, ..self.config.continuity.clone() };
        for namespace in self.namespaces.all.values_mut() {
            if let Some(rule) = config.rule_for(&namespace.name) {
                namespace.handler = rule.handler;
            }
        }
        self.terms = Arc::new(Terms::of(&config));
        self.named_events = config.names_events();
        self.config = config;
    }

    fn on_command(&mut self, now: Time, command: Command) {
        match command {
            Command::Accept { socket, id, pid } => self.accept(socket, id, pid),
            Command::Claim { socket, name } => self.claim_name(socket, &name),
            Command::Refuse { socket, message, data } => self.refuse(socket, &message, data),
            Command::Emit { socket, args, ack, volatile } => {
                self.emit(socket, args, ack, volatile);
            }
            Command::Ack { socket, id, args } => self.ack(socket, id, args),
            Command::Broadcast(broadcast) => self.broadcast(broadcast),
            Command::Join { socket, room } => self.join(socket, &room),
            Command::Leave { socket, room } => self.leave(socket, &room),
            Command::Disconnect { socket, close } => self.disconnect(now, socket, close),
            Command::SetData { socket, data } => self.set_data(socket, data),
            Command::Expire { socket, after, code } => self.expire(now, socket, after, code),
            Command::Send { session, message } => self.send_bare(session, message),
            Command::Close { session } => self.close(now, session, DisconnectReason::ForcedClose),
        }
    }
}

/// Where the numbers of acks begin that are asked of many at once. Those of one socket count up from
/// zero and never come here; some clients read numbers of 31 bits only.
const SHARED_ACKS_FROM: u32 = 1 << 30;
/// The close code that says a server is going down (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;
/// The close code for a peer that broke a rule of ours (RFC 6455 section 7.4.1).
const POLICY: u16 = 1008;
