//! What must happen, computed in the plainest way: every set is walked in full, nothing is shared
//! or cached, and none of the hub's code is used.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bowline_proto::{
    Sid, SocketKey,
    engineio::{PacketKind, Version},
    socketio::{self, Args, Packet},
    wall::{AckError, Broadcast, DisconnectReason, Event},
};
use bytestring::ByteString;
use serde_json::json;

/// The namespaces of the world: a prefix, and whether CONNECTs to it are always refused.
pub(super) fn is_namespace(name: &str) -> bool {
    matches!(name, "/" | "/chat" | "/closed")
        || name.strip_prefix("/room-").is_some_and(|rest| !rest.contains('/'))
}

/// One thing a client must hear.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) packet: Packet,
    /// Volatile: it may be left out.
    pub(super) optional: bool,
}

#[derive(Debug)]
pub(super) struct Session {
    version: Version,
    /// Whether events of it may still be delivered.
    pub(super) alive: bool,
    /// What its client has not heard yet, in order.
    pub(super) due: VecDeque<Due>,
    /// Its sockets in order of their CONNECT.
    pub(super) sockets: Vec<SocketKey>,
    decoder: socketio::Decoder,
    /// Whether it ever joined a namespace.
    pub(super) joined: bool,
    /// Bytes it was due since a poll was answered last: for certain, and with what may be left out.
    queued: (usize, usize),
}

/// What the hub counts for a packet beside its text.
const PACKET_OVERHEAD_BYTES: usize = 64;

impl Session {
    /// At least this much waits for the next poll, if no poll is there.
    pub(super) fn queued_bytes_min(&self) -> usize {
        self.queued.0
    }

    /// At most this much waits, heartbeats included.
    pub(super) fn queued_bytes_max(&self) -> usize {
        self.queued.1 + 20 * PACKET_OVERHEAD_BYTES
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) session: Sid,
    pub(super) namespace: ByteString,
    pub(super) id: Option<Sid>,
    pub(super) rooms: BTreeSet<ByteString>,
    next_ack: u64,
    /// Acks the client owes: id, and the token of the handler.
    owed: BTreeMap<u64, u64>,
}

/// What something must make the hub tell its handlers.
pub(super) type Expected = Vec<Told>;

/// An event in a form that can be compared.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Connect { namespace: ByteString, auth: Option<ByteString> },
    Event { socket: SocketKey, args: Args, ack: Option<u64> },
    Ack { socket: SocketKey, token: u64, result: Result<Args, AckError> },
    Disconnect { socket: SocketKey, reason: DisconnectReason },
}

impl Told {
    pub(super) fn from_event(event: &Event) -> Self {
        match event.clone() {
            Event::Connect { namespace, auth, .. } => Self::Connect { namespace, auth },
            Event::Event { socket, args, ack, .. } => Self::Event { socket, args, ack },
            Event::Ack { socket, token, result, .. } => Self::Ack { socket, token, result },
            Event::Disconnect { socket, reason } => Self::Disconnect { socket, reason },
            Event::Return { .. } | Event::Away { .. } | Event::Back { .. } => {
                panic!("{event:?}, and nobody takes part")
            }
            Event::Open { .. } | Event::Message { .. } | Event::Close { .. } => {
                panic!("{event:?} is not of Socket.IO")
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) sessions: BTreeMap<Sid, Session>,
    pub(super) sockets: BTreeMap<SocketKey, Socket>,
}

impl Model {
    /// A session has opened. Socket.IO 4 joins the root namespace unasked.
    pub(super) fn open(&mut self, id: Sid, version: Version) -> Expected {
        let session = Session {
            version,
            alive: true,
            due: VecDeque::new(),
            sockets: Vec::new(),
            decoder: socketio::Decoder::new(),
            joined: false,
            queued: (0, 0),
        };
        assert!(self.sessions.insert(id, session).is_none());
        match version {
            Version::V3 => vec![Told::Connect { namespace: Packet::ROOT, auth: None }],
            Version::V4 => Vec::new(),
        }
    }

    pub(super) fn is_alive(&self, id: Sid) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.alive)
    }

    /// A client's packet has arrived on the transport that serves its session.
    pub(super) fn packet(&mut self, id: Sid, packet: &bowline_proto::engineio::Packet) -> Expected {
        use bowline_proto::websocket::Message;
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.alive) else {
            return Expected::default();
        };
        match (packet.kind, session.version) {
            (PacketKind::Message, _) => {}
            (PacketKind::Close, _) => return self.end(id, DisconnectReason::TransportClose),
            (PacketKind::Ping, Version::V4) | (PacketKind::Pong, Version::V3) => {
                return self.end(id, DisconnectReason::TransportError);
            }
            (_, _) => return Expected::default(),
        }
        let limits = bowline_proto::limit::Limits::default();
        let version = session.version;
        let decoded = match packet.data.clone() {
            Message::Text(text) => session.decoder.decode_text(version, &limits, text),
            Message::Binary(bytes) => session.decoder.decode_binary(bytes),
        };
        match decoded {
            Ok(Some(packet)) => self.socketio(id, packet),
            Ok(None) => Expected::default(),
            Err(error) if error.is_too_many_attachments() => {
                self.end(id, DisconnectReason::ForcedServerClose)
            }
            Err(_) => self.end(id, DisconnectReason::ParseError),
        }
    }

    fn socketio(&mut self, id: Sid, packet: Packet) -> Expected {
        let namespace = packet.namespace().clone();
        let found = self.sessions[&id]
            .sockets
            .iter()
            .copied()
            .find(|key| self.sockets[key].namespace == namespace);
        let inside = found.filter(|key| self.sockets[key].id.is_some());
        let told = match (packet, found, inside) {
            (Packet::Connect { auth, .. }, None, _) => {
                if !is_namespace(&namespace) {
                    let data = match self.sessions[&id].version {
                        Version::V4 => json!({ "message": "Invalid namespace" }).to_string(),
                        Version::V3 => "{\"message\":\"Invalid namespace\"}".to_owned(),
                    };
                    self.due(id, Packet::ConnectError { namespace, data: data.into() }, false);
                    return Expected::default();
                }
                Told::Connect { namespace, auth }
            }
            (Packet::Disconnect { .. }, Some(key), _) => {
                return self.remove(key, DisconnectReason::ClientNamespaceDisconnect);
            }
            (Packet::Event { ack, args, .. }, _, Some(socket)) => Told::Event { socket, args, ack },
            (Packet::Ack { id, args, .. }, _, Some(socket)) => {
                let owed = self.sockets.get_mut(&socket).and_then(|socket| socket.owed.remove(&id));
                match owed {
                    Some(token) => Told::Ack { socket, token, result: Ok(args) },
                    None => return Expected::default(),
                }
            }
            (_, _, _) => return self.end(id, DisconnectReason::ForcedServerClose),
        };
        vec![told]
    }

    /// A session ends: its sockets leave in order.
    pub(super) fn end(&mut self, id: Sid, reason: DisconnectReason) -> Expected {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.alive) else {
            return Expected::default();
        };
        session.alive = false;
        let sockets = session.sockets.clone();
        sockets.into_iter().flat_map(|key| self.remove(key, reason)).collect()
    }

    fn remove(&mut self, key: SocketKey, reason: DisconnectReason) -> Vec<Told> {
        let Some(socket) = self.sockets.remove(&key) else { return Vec::new() };
        if let Some(session) = self.sessions.get_mut(&socket.session) {
            session.sockets.retain(|other| *other != key);
        }
        let error = |token| Told::Ack { socket: key, token, result: Err(AckError::Disconnected) };
        let acks = socket.owed.into_values().map(error);
        acks.chain([Told::Disconnect { socket: key, reason }]).collect()
    }

    /// The hub has given a CONNECT its key.
    pub(super) fn connect(&mut self, key: SocketKey, session: Sid, namespace: ByteString) {
        let socket = Socket {
            session,
            namespace,
            id: None,
            rooms: BTreeSet::new(),
            next_ack: 0,
            owed: BTreeMap::new(),
        };
        assert!(self.sockets.insert(key, socket).is_none(), "a key was given twice");
        self.sessions.get_mut(&session).expect("a session").sockets.push(key);
    }

    pub(super) fn accept(&mut self, key: SocketKey, id: Sid) {
        let Some(socket) = self.sockets.get_mut(&key).filter(|socket| socket.id.is_none()) else {
            return;
        };
        socket.id = Some(id);
        let (session, namespace) = (socket.session, socket.namespace.clone());
        let found = self.sessions.get_mut(&session).expect("a session");
        found.joined = true;
        let auth = match found.version {
            Version::V4 => Some(format!("{{\"sid\":\"{id}\"}}").into()),
            Version::V3 => None,
        };
        self.due(session, Packet::Connect { namespace, auth }, false);
    }

    pub(super) fn refuse(&mut self, key: SocketKey, message: &str) {
        if self.sockets.get(&key).is_none_or(|socket| socket.id.is_some()) {
            return;
        }
        let Some(socket) = self.sockets.remove(&key) else { return };
        let session = self.sessions.get_mut(&socket.session).expect("a session");
        session.sockets.retain(|other| *other != key);
        let data = match session.version {
            Version::V4 => json!({ "message": message }).to_string(),
            Version::V3 => json!(message).to_string(),
        };
        let namespace = socket.namespace;
        self.due(socket.session, Packet::ConnectError { namespace, data: data.into() }, false);
    }

    /// Emits to one socket; says under which id an ack was asked for.
    pub(super) fn emit(&mut self, key: SocketKey, args: &Args, token: Option<u64>, volatile: bool) {
        let Some(socket) = self.sockets.get_mut(&key).filter(|socket| socket.id.is_some()) else {
            return;
        };
        let ack = token.map(|token| {
            let id = socket.next_ack;
            socket.next_ack += 1;
            socket.owed.insert(id, token);
            id
        });
        let (session, namespace) = (socket.session, socket.namespace.clone());
        self.due(session, Packet::Event { namespace, ack, args: args.clone() }, volatile);
    }

    pub(super) fn ack(&mut self, key: SocketKey, id: u64, args: &Args) {
        let Some(socket) = self.sockets.get(&key).filter(|socket| socket.id.is_some()) else {
            return;
        };
        let (session, namespace) = (socket.session, socket.namespace.clone());
        self.due(session, Packet::Ack { namespace, id, args: args.clone() }, false);
    }

    /// Says how many sockets it reaches.
    pub(super) fn broadcast(&mut self, broadcast: &Broadcast) -> usize {
        let mut reached = Vec::new();
        for (key, socket) in &self.sockets {
            let Some(id) = socket.id else { continue };
            let own = ByteString::from(id.to_string());
            let is_in = |room: &ByteString| socket.rooms.contains(room) || *room == own;
            if socket.namespace == broadcast.namespace
                && (broadcast.rooms.is_empty() || broadcast.rooms.iter().any(is_in))
                && !broadcast.except.iter().any(is_in)
            {
                reached.push(*key);
            }
        }
        for key in &reached {
            self.emit(*key, &broadcast.args, None, broadcast.volatile);
        }
        reached.len()
    }

    pub(super) fn join(&mut self, key: SocketKey, room: &ByteString) {
        if let Some(socket) = self.sockets.get_mut(&key) {
            socket.rooms.insert(room.clone());
        }
    }

    pub(super) fn leave(&mut self, key: SocketKey, room: &ByteString) {
        if let Some(socket) = self.sockets.get_mut(&key) {
            socket.rooms.remove(room);
        }
    }

    pub(super) fn disconnect(&mut self, key: SocketKey, close: bool) -> Expected {
        let reason = DisconnectReason::ServerNamespaceDisconnect;
        let Some(session) = self.sockets.get(&key).map(|socket| socket.session) else {
            return Expected::default();
        };
        let leaving = match close {
            true => self.sessions.get(&session).expect("a session").sockets.clone(),
            false => vec![key],
        };
        let mut told = Expected::new();
        for key in leaving {
            let socket = self.sockets.get(&key).expect("a socket");
            let packet = Packet::Disconnect { namespace: socket.namespace.clone() };
            let accepted = socket.id.is_some();
            told.extend(self.remove(key, reason));
            if accepted {
                self.due(session, packet, false);
            }
        }
        if close {
            told.extend(self.end(session, reason));
        }
        told
    }

    /// An ack has timed out, says the hub.
    pub(super) fn expire(&mut self, key: SocketKey, token: u64) {
        let owed = &mut self.sockets.get_mut(&key).expect("a socket").owed;
        let before = owed.len();
        owed.retain(|_, other| *other != token);
        assert_eq!(owed.len() + 1, before, "an ack that nobody owes timed out");
    }

    fn due(&mut self, session: Sid, packet: Packet, optional: bool) {
        let session = self.sessions.get_mut(&session).expect("a session");
        if session.alive {
            let encoded = socketio::encode(session.version, &packet);
            let text = encoded.text.len() + PACKET_OVERHEAD_BYTES;
            let rest = encoded.attachments.iter().map(|bytes| bytes.len() + PACKET_OVERHEAD_BYTES);
            let bytes = text + rest.sum::<usize>();
            session.queued.0 += if optional { 0 } else { bytes };
            session.queued.1 += bytes;
            session.due.push_back(Due { packet, optional });
        }
    }

    /// A poll has taken what was queued, or a part of it.
    pub(super) fn poll_answered(&mut self, session: Sid, in_part: bool) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.queued = (0, if in_part { session.queued.1 } else { 0 });
        }
    }

    /// A client has heard something: it must be what it was due next.
    pub(super) fn heard(&mut self, session: Sid, packet: &Packet) {
        let due = &mut self.sessions.get_mut(&session).expect("a session").due;
        loop {
            let Some(next) = due.pop_front() else { panic!("heard what was not said: {packet:?}") };
            if next.packet == *packet {
                return;
            }
            assert!(next.optional, "heard {packet:?}, but due was {:?}", next.packet);
        }
    }

    /// What a client must still hear.
    pub(super) fn missing(&self, session: Sid) -> Option<&Due> {
        self.sessions.get(&session)?.due.iter().find(|due| !due.optional)
    }
}
