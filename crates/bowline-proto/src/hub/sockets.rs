//! In the namespaces: CONNECT, events, acks, broadcasts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use bytestring::ByteString;

use super::{
    Hub, Measured, Receivers, Socket,
    engine::PACKET_OVERHEAD_BYTES,
    namespace::{Leg, NamespaceKey, PendingAck},
};
use crate::{
    Output, SessionKey, Sid, SocketKey, Time, Timer,
    engineio::{Packet, PacketKind, Version},
    limit::LimitKey,
    session::{NEVER, Session},
    socketio::{self, Args},
    wall::{AckError, AckRequest, Broadcast, DisconnectReason, Event, HandlerId},
    websocket::{self, Message, OpCode},
};

/// What a refused CONNECT takes of the second that `events-per-second` is counted in: looking at
/// credentials costs a hundred times what an event does, and whoever is refused may ask again.
const REFUSAL: Duration = Duration::from_millis(10);

impl Hub {
    /// One Engine.IO message of a session that speaks Socket.IO.
    pub(super) fn on_socketio(&mut self, now: Time, key: SessionKey, message: Message) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let decoded = match message {
            Message::Text(text) => {
                session.decoder.decode_text(session.version, &self.config.limits, text)
            }
            Message::Binary(bytes) => session.decoder.decode_binary(bytes),
        };
        match decoded {
            Ok(Some(packet)) => self.on_socketio_packet(now, key, packet),
            Ok(None) => {}
            Err(error) if error.is_too_many_attachments() => {
                self.cut(key, LimitKey::Attachments);
            }
            Err(_) => self.close(now, key, DisconnectReason::ParseError),
        }
    }

    fn on_socketio_packet(&mut self, now: Time, key: SessionKey, packet: socketio::Packet) {
        if !self.takes_event(now, key) {
            return;
        }
        let found = self.find_in_session(key, packet.namespace());
        match (packet, found) {
            (socketio::Packet::Connect { namespace, auth }, None) => {
                self.on_connect(key, namespace, auth);
            }
            (socketio::Packet::Disconnect { .. }, Some(socket)) => {
                self.remove_socket(socket, DisconnectReason::ClientNamespaceDisconnect);
            }
            (socketio::Packet::Event { ack, args, .. }, Some(socket)) if self.is_in(socket) => {
                self.stats.events_in += self.counts(key);
                self.deliver(socket, Event::Event { socket, args, ack });
            }
            (socketio::Packet::Ack { id, args, .. }, Some(socket)) if self.is_in(socket) => {
                self.stats.events_in += self.counts(key);
                self.on_ack(socket, id, args);
            }
            // A second CONNECT, a CONNECT_ERROR, or anything for a namespace it has not joined.
            (_, _) => self.close(now, key, DisconnectReason::ForcedServerClose),
        }
    }

    /// How much something counts that a session does: nothing if it is the process's own.
    fn counts(&self, key: SessionKey) -> u64 {
        self.sessions.get(key).map_or(0, |session| u64::from(!session.own))
    }

    fn is_in(&self, key: SocketKey) -> bool {
        self.sockets.get(key).is_some_and(|socket| socket.id.is_some())
    }

    fn find_in_session(&self, key: SessionKey, namespace: &str) -> Option<SocketKey> {
        let session = self.sessions.get(key)?;
        session.sockets.iter().copied().find(|socket| {
            self.sockets
                .get(*socket)
                .and_then(|socket| self.namespaces.all.get(socket.namespace))
                .is_some_and(|found| found.name == *namespace)
        })
    }

    /// Takes one packet off the session's allowance of events, or cuts the session. CONNECT and
    /// DISCONNECT count too: they cost no less.
    fn takes_event(&mut self, now: Time, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let each = Duration::from_secs(1) / self.config.limits.events_per_second.max(1);
        let full_at = session.events_full_at.max(now) + each;
        if full_at.since(now) > Duration::from_secs(1) {
            self.cut(key, LimitKey::EventsPerSecond);
            return false;
        }
        session.events_full_at = full_at;
        true
    }

    pub(super) fn on_connect(
        &mut self,
        key: SessionKey,
        name: ByteString,
        auth: Option<ByteString>,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.sockets.len() >= self.config.limits.namespaces_per_session {
            self.cut(key, LimitKey::NamespacesPerSession);
            return;
        }
        let Some(handler) = self.config.rule_for(&name).map(|rule| rule.handler) else {
            self.stats.connects_refused += 1;
            let data = ByteString::from_static("{\"message\":\"Invalid namespace\"}");
            self.transmit_packet(key, &socketio::Packet::ConnectError { namespace: name, data });
            return;
        };
        let namespace = self.namespaces.find_or_make(&name, handler);
        if let Some(namespace) = self.namespaces.all.get_mut(namespace) {
            namespace.pending += 1;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let socket = self.sockets.insert(Socket {
            session: key,
            namespace,
            id: None,
            place: 0,
            mark: 0,
            rooms: Vec::new(),
            next_ack: 0,
            extras: None,
        });
        session.sockets.push(socket);
        let handshake = session.handshake.clone().unwrap_or_else(|| {
            Arc::new(crate::wall::Handshake {
                version: session.version,
                poll_style: crate::engineio::PollStyle::default(),
                query: String::new(),
                headers: Vec::new(),
                address: session.address,
                own: session.own,
            })
        });
        let event = Event::Connect { socket, namespace: name, auth, handshake };
        self.outputs.push_back(Output::Deliver { handler, event });
    }

    pub(super) fn accept(&mut self, key: SocketKey, id: Sid) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.id.is_some() {
            return;
        }
        socket.id = Some(id);
        self.namespaces.admit(key, socket);
        self.by_socket_sid.insert(id, key);
        let session_key = socket.session;
        let Some(namespace) = self.namespaces.all.get_mut(socket.namespace) else { return };
        namespace.pending -= 1;
        let name = namespace.name.clone();
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !session.own {
            self.stats.connects_accepted += 1;
            if session.connect_by != NEVER {
                let took = self.now - session.opened;
                self.stats.measure(Measured::Handshake, took);
            }
        }
        session.connect_by = NEVER;
        if !self.config.keep_headers {
            session.handshake = None;
        }
        let auth = match session.version {
            Version::V4 => Some(format!("{{\"sid\":\"{id}\"}}").into()),
            Version::V3 => None,
        };
        self.transmit_packet(session_key, &socketio::Packet::Connect { namespace: name, auth });
    }

    pub(super) fn refuse(&mut self, key: SocketKey, message: &str, data: Option<ByteString>) {
        let Some(socket) = self.sockets.get(key) else { return };
        if socket.id.is_some() {
            return;
        }
        let session = socket.session;
        let Some(name) = self.namespaces.all.get(socket.namespace).map(|n| n.name.clone()) else {
            return;
        };
        self.forget_socket(key);
        self.stats.connects_refused += 1;
        if let Some(session) = self.sessions.get_mut(session) {
            session.events_full_at = session.events_full_at.max(self.now) + REFUSAL;
        }
        self.connect_error(session, name, message, data);
    }

    fn connect_error(
        &mut self,
        key: SessionKey,
        namespace: ByteString,
        message: &str,
        data: Option<ByteString>,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        let message = serde_json::Value::from(message).to_string();
        let data = match (session.version, data) {
            (Version::V4, None) => format!("{{\"message\":{message}}}"),
            (Version::V4, Some(data)) => format!("{{\"message\":{message},\"data\":{data}}}"),
            (Version::V3, None) => message,
            (Version::V3, Some(data)) => data.into(),
        };
        let packet = socketio::Packet::ConnectError { namespace, data: data.into() };
        self.transmit_packet(key, &packet);
    }

    /// Sends a Socket.IO packet that has no arguments.
    fn transmit_packet(&mut self, key: SessionKey, packet: &socketio::Packet) {
        let Some(session) = self.sessions.get(key) else { return };
        let text = socketio::encode(session.version, packet).text;
        self.transmit(key, Packet { kind: PacketKind::Message, data: Message::Text(text) });
    }

    pub(super) fn deliver(&mut self, socket: SocketKey, event: Event) {
        let namespace = self.sockets.get(socket).map(|socket| socket.namespace);
        if let Some(handler) = self.handler_of(namespace) {
            self.outputs.push_back(Output::Deliver { handler, event });
        }
    }

    pub(super) fn handler_of(&self, namespace: Option<NamespaceKey>) -> Option<HandlerId> {
        self.namespaces.all.get(namespace?).map(|namespace| namespace.handler)
    }

    fn on_ack(&mut self, key: SocketKey, id: u64, args: Args) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(sid) = socket.id else { return };
        let Some(extras) = socket.extras.as_deref_mut() else { return };
        let Some(PendingAck { token, .. }) = extras.pending_acks.remove(&id) else { return };
        socket.drop_empty_extras();
        if let Some(session) = self.sessions.get_mut(socket.session) {
            session.pending_acks -= 1;
        }
        self.deliver(key, Event::Ack { socket: key, id: sid, token, result: Ok(args) });
    }

    pub(super) fn expire_acks(&mut self, now: Time, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut next = NEVER;
        let mut expired = Vec::new();
        for socket_key in &session.sockets {
            let Some(socket) = self.sockets.get_mut(*socket_key) else { continue };
            let (Some(id), Some(extras)) = (socket.id, socket.extras.as_deref_mut()) else {
                continue;
            };
            extras.pending_acks.retain(|_, ack| {
                if ack.deadline <= now {
                    expired.push((*socket_key, id, ack.token));
                    return false;
                }
                next = next.min(ack.deadline);
                true
            });
            socket.drop_empty_extras();
        }
        session.pending_acks -= u32::try_from(expired.len()).unwrap_or(u32::MAX);
        session.set_ack_by(next);
        if next != NEVER {
            self.timers.push(next, Timer::Ack, key);
        }
        for (socket, id, token) in expired {
            let result = Err(AckError::TimedOut);
            self.deliver(socket, Event::Ack { socket, id, token, result });
        }
    }

    pub(super) fn emit(
        &mut self,
        now: Time,
        key: SocketKey,
        args: &Args,
        ack: Option<AckRequest>,
        volatile: bool,
    ) {
        let pending_max = self.config.limits.pending_acks_per_session;
        let queued_max = self.config.limits.queued_bytes_per_session;
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(sid) = socket.id else { return };
        let session_key = socket.session;
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let dropped = volatile && {
            let namespace = self.namespaces.all.get(socket.namespace);
            let head_max = namespace.map_or(0, |it| it.name.len()) + HEAD_MAX_BYTES;
            !session.takes_volatile(queued_bytes(head_max, args), queued_max)
        };
        let mut id = None;
        if let Some(AckRequest { token, timeout }) = ack {
            if session.pending_acks as usize >= pending_max {
                self.stats.on_limit(LimitKey::PendingAcksPerSession);
                let result = Err(AckError::TooMany);
                self.deliver(key, Event::Ack { socket: key, id: sid, token, result });
                return;
            }
            let deadline = now + timeout;
            id = Some(socket.next_ack);
            let number = socket.next_ack;
            socket.extras_mut().pending_acks.insert(number, PendingAck { token, deadline });
            socket.next_ack += 1;
            session.pending_acks += 1;
            if deadline < session.ack_by() {
                session.set_ack_by(deadline);
                self.timers.push(deadline, Timer::Ack, session_key);
            }
        }
        // The ack of what was dropped is awaited all the same: its time is over some day.
        if dropped {
            return;
        }
        self.stats.events_out += self.counts(session_key);
        self.transmit_args(key, |name| socketio::event_header(name, id, args), args);
    }

    pub(super) fn ack(&mut self, key: SocketKey, id: u64, args: Args) {
        if self.is_in(key) {
            self.transmit_args(key, |name| socketio::ack_header(name, id, &args), &args);
        }
    }

    /// Sends an event or an ack to one socket.
    fn transmit_args(&mut self, key: SocketKey, head: impl FnOnce(&str) -> String, args: &Args) {
        let Some(socket) = self.sockets.get(key) else { return };
        let Some(namespace) = self.namespaces.all.get(socket.namespace) else { return };
        let Some(session) = self.sessions.get(socket.session) else { return };
        let head = head(&namespace.name);
        let session_key = socket.session;
        if let Some(transport) = session.websocket
            && !session.base64
        {
            if !session.own {
                self.stats.packets_out += 1 + args.attachments.len() as u64;
            }
            let frame = frames(&head, args, session.is_eio3(), session.deflate);
            self.send_one(transport, frame);
        } else {
            for packet in packets(&head, args) {
                self.transmit(session_key, packet);
            }
        }
    }

    pub(super) fn broadcast(&mut self, broadcast: Broadcast) {
        if !broadcast.forwarded {
            self.stats.events_out += 1;
        }
        let mut reached = 0;
        if let Some(namespace) = self.namespaces.find(&broadcast.namespace) {
            let mut id = None;
            if let Some(ask) = broadcast.ack.as_deref() {
                let (number, count) = self.ask_receivers(&broadcast, namespace, *ask);
                (id, reached) = (Some(number), count);
            } else if broadcast.report.is_some() {
                reached = self.count_receivers(&broadcast, namespace);
            }
            self.fan_out(&broadcast, namespace, id);
        }
        if let Some(report) = broadcast.report {
            self.outputs.push_back(Output::Reached { report, receivers: reached });
        }
        if !broadcast.forwarded && self.config.shards > 1 {
            self.outputs.push_back(Output::Forward(Broadcast { forwarded: true, ..broadcast }));
        }
    }

    fn count_receivers(&mut self, broadcast: &Broadcast, namespace: NamespaceKey) -> usize {
        if broadcast.rooms.is_empty() && broadcast.except.is_empty() {
            return self.namespaces.all.get(namespace).map_or(0, |found| found.members.len());
        }
        let mut walk = self.walk(broadcast, namespace, Leg::Any);
        let mut count = 0;
        while self.next_member(&mut walk).is_some() {
            count += 1;
        }
        count
    }

    /// One pass for each encoding that somebody uses.
    fn fan_out(&mut self, broadcast: &Broadcast, namespace: NamespaceKey, id: Option<u64>) {
        let args = &broadcast.args;
        let head = socketio::event_header(&broadcast.namespace, id, args);
        if self.census.by_packet > 0 {
            let packets = packets(&head, args);
            let bytes = queued_bytes(head.len(), args);
            let queued_max = self.config.limits.queued_bytes_per_session;
            let mut walk = self.walk(broadcast, namespace, Leg::Any);
            let mut slow = Vec::new();
            while let Some(member) = self.next_member(&mut walk) {
                let key = member.session;
                let Some(session) = self.sessions.get(key) else { continue };
                if !session.takes_packets()
                    || broadcast.volatile && !session.takes_volatile(bytes, queued_max)
                {
                    continue;
                }
                for packet in &packets {
                    if !self.pass(key, packet.clone()) {
                        slow.push(key);
                        break;
                    }
                }
            }
            // Not within the walk: who is cut leaves the lists that are being walked.
            for key in slow {
                self.cut_slow(key);
            }
        }
        // A kind of leg is told apart only where the encoding depends on it.
        let kinds = |split: bool| if split { &[Some(false), Some(true)][..] } else { &[None] };
        let long = head.len() + args.json.len() >= DEFLATE_FROM_BYTES;
        for eio3 in kinds(!args.attachments.is_empty()).iter().copied() {
            for deflate in kinds(long).iter().copied() {
                if !self.census.has_websocket(eio3, deflate) {
                    continue;
                }
                let leg = Leg::WebSocket { eio3, deflate };
                let receivers = Receivers::Many(self.walk(broadcast, namespace, leg));
                let frame = frames(&head, args, eio3 == Some(true), deflate == Some(true));
                self.outputs.push_back(Output::Send { receivers, frame });
            }
        }
    }

    pub(super) fn join(&mut self, key: SocketKey, room: &ByteString) {
        let Some(session_key) = self.sockets.get(key).map(|socket| socket.session) else { return };
        if !self.enter_room(key, room) {
            return;
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.rooms += 1;
        if session.rooms as usize > self.config.limits.rooms_per_session {
            self.cut(session_key, LimitKey::RoomsPerSession);
        }
    }

    pub(super) fn leave(&mut self, key: SocketKey, room: &str) {
        let session = self.sockets.get(key).map(|socket| socket.session);
        if self.exit_room(key, room)
            && let Some(session) = session.and_then(|key| self.sessions.get_mut(key))
        {
            session.rooms -= 1;
        }
    }

    /// Takes one socket out of its namespace, or all sockets of its session out of theirs and closes
    /// the session. Either way the client is told `41`, after which the official client does not
    /// come back by itself.
    pub(super) fn disconnect(&mut self, now: Time, key: SocketKey, close: bool) {
        let Some(session_key) = self.sockets.get(key).map(|socket| socket.session) else { return };
        let reason = DisconnectReason::ServerNamespaceDisconnect;
        if !close {
            self.dismiss(key, reason);
            return;
        }
        while let Some(first) = self.sessions.get(session_key).and_then(|s| s.sockets.first()) {
            self.dismiss(*first, reason);
        }
        self.close(now, session_key, reason);
    }

    /// Takes a socket out of its namespace and tells its client and its handler.
    fn dismiss(&mut self, key: SocketKey, reason: DisconnectReason) {
        let Some(socket) = self.sockets.get(key) else { return };
        let (session, accepted) = (socket.session, socket.id.is_some());
        let name = self.namespaces.all.get(socket.namespace).map(|found| found.name.clone());
        self.remove_socket(key, reason);
        if let Some(namespace) = name.filter(|_| accepted) {
            self.transmit_packet(session, &socketio::Packet::Disconnect { namespace });
        }
    }

    /// Takes all sockets of a session out of their namespaces.
    pub(super) fn leave_all(&mut self, key: SessionKey, reason: DisconnectReason) {
        while let Some(socket) =
            self.sessions.get(key).and_then(|session| session.sockets.first()).copied()
        {
            self.remove_socket(socket, reason);
        }
    }

    /// Takes a socket out of its namespace and tells its handler.
    fn remove_socket(&mut self, key: SocketKey, reason: DisconnectReason) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let id = socket.id;
        let extras = socket.extras.as_deref_mut();
        let pending = extras.map(|extras| std::mem::take(&mut extras.pending_acks));
        if let Some(pending) = &pending
            && let Some(session) = self.sessions.get_mut(socket.session)
        {
            session.pending_acks -= u32::try_from(pending.len()).unwrap_or(u32::MAX);
        }
        let handler = self.handler_of(self.sockets.get(key).map(|socket| socket.namespace));
        self.forget_socket(key);
        let Some(handler) = handler else { return };
        // Only who was in was asked for acks.
        let owed = id.into_iter().flat_map(|id| pending.iter().flatten().map(move |it| (id, it.1)));
        for (id, ack) in owed {
            let result = Err(AckError::Disconnected);
            let event = Event::Ack { socket: key, id, token: ack.token, result };
            self.outputs.push_back(Output::Deliver { handler, event });
        }
        let event = Event::Disconnect { socket: key, reason };
        self.outputs.push_back(Output::Deliver { handler, event });
    }

    fn forget_socket(&mut self, key: SocketKey) {
        while let Some(last) = self.sockets.get(key).and_then(|s| s.rooms.len().checked_sub(1)) {
            self.exit_room_at(key, last);
            if let Some(session) =
                self.sockets.get(key).and_then(|s| self.sessions.get_mut(s.session))
            {
                session.rooms -= 1;
            }
        }
        let Some(socket) = self.sockets.remove(key) else { return };
        match socket.id {
            Some(id) => {
                self.by_socket_sid.remove(&id);
                self.expel(socket.namespace, socket.place);
            }
            None => {
                if let Some(namespace) = self.namespaces.all.get_mut(socket.namespace) {
                    namespace.pending -= 1;
                }
            }
        }
        self.namespaces.drop_if_empty(socket.namespace);
        if let Some(session) = self.sessions.get_mut(socket.session) {
            session.sockets.retain(|other| *other != key);
        }
    }
}

impl Session {
    /// Whether something that may be dropped and takes so many bytes of a queue can be sent at once.
    fn takes_volatile(&self, bytes: usize, queued_bytes_max: usize) -> bool {
        match self.polling.as_deref() {
            Some(polling) => {
                polling.get.is_some() && polling.queued_bytes + bytes <= queued_bytes_max
            }
            None => self.backlog_bytes == 0,
        }
    }
}

/// An event or an ack as the packets that a poll takes.
fn packets(head: &str, args: &Args) -> Vec<Packet> {
    let text = ByteString::from([head, args.json.as_ref()].concat());
    std::iter::once(Message::Text(text))
        .chain(args.attachments.iter().cloned().map(Message::Binary))
        .map(|data| Packet { kind: PacketKind::Message, data })
        .collect()
}

/// What an event takes of a queue of packets.
fn queued_bytes(head_bytes: usize, args: &Args) -> usize {
    head_bytes + args.bytes() + (1 + args.attachments.len()) * PACKET_OVERHEAD_BYTES
}

/// What may stand before the arguments of an event, the name of the namespace aside: the type, two
/// numbers, a dash and a comma.
const HEAD_MAX_BYTES: usize = 48;

/// An event or an ack as WebSocket frames, one after the other.
fn frames(head: &str, args: &Args, eio3: bool, deflate: bool) -> Bytes {
    let text = [b"4".as_slice(), head.as_bytes(), args.json.as_bytes()];
    let compressed = (deflate && head.len() + args.json.len() >= DEFLATE_FROM_BYTES)
        .then(|| websocket::deflate::compress(&text.concat()));
    if let (None, []) = (&compressed, args.attachments.as_slice()) {
        return websocket::server_frame(OpCode::Text, &text);
    }
    let mut out = Vec::new();
    match compressed {
        Some(compressed) => {
            websocket::encode(&mut out, OpCode::Text, true, None, &[&compressed]);
        }
        None => websocket::encode(&mut out, OpCode::Text, false, None, &text),
    }
    for attachment in &args.attachments {
        // Engine.IO 3 writes the packet type before binary data too.
        let kind: &[u8] = if eio3 { &[4] } else { &[] };
        websocket::encode(&mut out, OpCode::Binary, false, None, &[kind, attachment]);
    }
    out.into()
}

/// The smallest text that is compressed for clients that negotiated it: below, the header of a
/// deflate block eats the gain. The reference compresses from the same size.
const DEFLATE_FROM_BYTES: usize = 1024;
