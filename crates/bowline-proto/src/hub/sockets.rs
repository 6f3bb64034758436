//! In the namespaces: CONNECT, events, acks, broadcasts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use bytestring::ByteString;
use slotmap::SlotMap;

use super::{
    Happened, Hub, Receivers, SessionKeySource, Socket, Stamp,
    engine::PACKET_OVERHEAD_BYTES,
    extras::Asking,
    kept::{Kept, Missed},
    log::{Link, Record, RecordKind, StampText, Target},
    namespace::{Held, Kinds, NamespaceKey, Namespaces, PendingAck, Reach},
    peers::Credentials,
    replay::before_stamp,
};
use crate::{
    Output, SessionKey, Sid, SocketKey, Time, Timer, TransportId,
    engineio::{Packet, PacketKind, Version},
    limit::LimitKey,
    session::{NEVER, Session},
    socketio::{self, Args, Header},
    wall::{
        AckError, AckRequest, Broadcast, BroadcastOrigin, DisconnectReason, Event, HandlerId,
        RecoveryOutcome,
    },
    websocket::{self, Message, OpCode},
};

/// What a refused CONNECT takes of the second that `events-per-second` is counted in: looking at
/// credentials costs a hundred times what an event does, and whoever is refused may ask again.
const REFUSAL: Duration = Duration::from_millis(10);

impl Hub {
    /// One Engine.IO message of a session that speaks Socket.IO. If it is text, it begins at `from`.
    pub(super) fn on_socketio(
        &mut self,
        now: Time,
        key: SessionKey,
        message: Message,
        from: usize,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let decoded = match message {
            Message::Text(text) => {
                let limits = &self.config.limits;
                session.decoder.decode_text_at(session.version, limits, text, from)
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
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.takes_event(now, self.config.limits.events_per_second) {
            self.cut(key, LimitKey::EventsPerSecond);
            return;
        }
        let counts = u64::from(!session.own);
        let found = find_in(&session.sockets, &self.sockets, &self.namespaces, packet.namespace());
        match (packet, found) {
            (socketio::Packet::Connect { namespace, auth }, None) => {
                self.on_connect(key, namespace, auth);
            }
            (socketio::Packet::Disconnect { .. }, Some((socket, _))) => {
                let reason = DisconnectReason::ClientNamespaceDisconnect;
                self.remove_socket(socket, reason, RecoveryOutcome::Ended);
            }
            (socketio::Packet::Event { ack, args, .. }, Some((socket, Some(handler)))) => {
                self.stats.events_in += counts;
                self.on_event(socket, handler, args, ack);
            }
            (socketio::Packet::Ack { id, args, .. }, Some((socket, Some(_)))) => {
                self.stats.events_in += counts;
                self.on_ack(socket, id, args);
            }
            // A second CONNECT, a CONNECT_ERROR, or anything for a namespace it has not joined.
            (_, _) => self.close(now, key, DisconnectReason::ForcedServerClose),
        }
    }

    pub(super) fn on_connect(
        &mut self,
        key: SessionKey,
        name: ByteString,
        mut auth: Option<ByteString>,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.sockets.len() >= self.config.limits.namespaces_per_session {
            self.cut(key, LimitKey::NamespacesPerSession);
            return;
        }
        let Some(rule) = self.config.rule_for(&name) else {
            self.stats.connects_refused += 1;
            let data = ByteString::from_static("{\"message\":\"Invalid namespace\"}");
            self.transmit_packet(key, &socketio::Packet::ConnectError { namespace: name, data });
            return;
        };
        let handler = rule.handler;
        let credentials = Credentials::take(&mut auth);
        let stamped = session.version == Version::V4
            && match rule.keeping.stamp {
                Stamp::Always => !session.own,
                Stamp::Auto => session.browser || credentials.takes_part,
                Stamp::Never => false,
            };
        let source = rule.keeping.session_key.clone().filter(|_| !stamped && !session.own);
        let namespace = self.namespaces.find_or_make(&name, handler);
        if let Some(namespace) = self.namespaces.all.get_mut(namespace) {
            if namespace.members.is_empty() && namespace.pending == 0 {
                namespace.begins = self.log.head();
            }
            namespace.pending += 1;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let socket = self.sockets.insert(Socket { session: key, namespace, ..Socket::default() });
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
        if !stamped && source.is_none() {
            let event = Event::Connect { socket, namespace: name, auth, handshake };
            self.outputs.push_back(Output::Deliver { handler, event });
            return;
        }
        let named = match &source {
            Some(SessionKeySource::Cookie(cookie)) => {
                handshake.cookie(cookie).map(|value| self.pid_of_name(&name, value))
            }
            Some(SessionKeySource::Claim) | None => None,
        };
        let wants = if stamped { credentials.pid } else { named };
        let asking = Asking {
            stamped,
            name: named,
            offset: credentials.offset,
            auth,
            handshake,
            told: false,
            born: None,
        };
        if let Some(pending) = self.sockets.get_mut(socket) {
            pending.extras_mut().asking = Some(Box::new(asking));
        }
        match wants {
            Some(pid) => self.claim(socket, pid, named.is_some()),
            None if credentials.foreign => self.start_afresh(socket, RecoveryOutcome::Unknown),
            None => self.ask_handler(socket),
        }
    }

    /// Asks the handler whether a new client may join.
    fn ask_handler(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let namespace = socket.namespace;
        let Some(asking) = socket.extras.as_deref_mut().and_then(|it| it.asking.as_deref_mut())
        else {
            return;
        };
        asking.told = true;
        let (auth, handshake) = (asking.auth.clone(), Arc::clone(&asking.handshake));
        let Some(namespace) = self.namespaces.all.get(namespace).map(|it| it.name.clone()) else {
            return;
        };
        self.deliver(key, Event::Connect { socket: key, namespace, auth, handshake });
    }

    /// A handler has found the name of a client that it was asked about.
    pub(super) fn claim_name(&mut self, key: SocketKey, name: &ByteString) {
        let Some(socket) = self.sockets.get(key).filter(|socket| socket.id.is_none()) else {
            return;
        };
        let Some(namespace) = self.namespaces.all.get(socket.namespace) else { return };
        let pid = self.pid_of_name(&namespace.name, name);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let asking = socket.extras.as_deref_mut().and_then(|it| it.asking.as_deref_mut());
        match asking.filter(|asking| !asking.stamped) {
            Some(asking) => {
                asking.name = Some(pid);
                asking.told = false;
                self.claim(key, pid, true);
            }
            None => self.ask_handler(key),
        }
    }

    pub(super) fn accept(&mut self, key: SocketKey, id: Sid, pid: Sid) {
        let head = self.log.head();
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.id.is_some() {
            self.come_back(key);
            return;
        }
        let asking = socket.extras.as_deref_mut().and_then(|extras| extras.asking.take());
        socket.drop_empty_extras();
        let mut told = None;
        let mut reach = Reach::Plain;
        if let Some(asking) = asking
            && let Some(pid) = if asking.stamped { Some(pid) } else { asking.name }
        {
            let born = asking.born.unwrap_or((self.config.continuity.shard, key));
            socket.kept = Some(Box::new(Kept::new(pid, born, asking.stamped, head)));
            if asking.stamped {
                (told, reach) = (Some(pid), Reach::Stamped);
            }
            self.keeper.registering.remove(&pid);
            self.keeper.exhume(pid);
            if let Some(earlier) = self.keeper.by_pid.insert(pid, key) {
                // Two of the same name waited to be let in: this is the later one.
                self.lose_kept(earlier);
            }
        }
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.id = Some(id);
        self.namespaces.admit(key, socket);
        self.namespaces.set_reach(socket, reach, self.sessions.get(socket.session));
        self.by_socket_sid.insert(id, key);
        let (session_key, namespace_key) = (socket.session, socket.namespace);
        let Some(namespace) = self.namespaces.all.get_mut(namespace_key) else { return };
        namespace.pending -= 1;
        self.note_socket(key, Happened::Connected);
        self.greet_socket(session_key, namespace_key, id, told);
    }

    /// A socket is kept no more, since another has its name.
    fn lose_kept(&mut self, key: SocketKey) {
        let reason = DisconnectReason::ServerNamespaceDisconnect;
        if let Some(kept) = self.sockets.get_mut(key).and_then(|socket| socket.kept.as_deref_mut())
        {
            // The name is the other's now.
            kept.pid = Sid::new(kept.pid.shard(), [0; 14]);
        }
        self.dismiss(key, reason);
    }

    pub(super) fn refuse(&mut self, key: SocketKey, message: &str, data: Option<ByteString>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.id.is_some() {
            let claimant = socket.kept.as_deref_mut().and_then(|kept| kept.claimant.take());
            if let Some(claimant) = claimant {
                self.stats.recoveries[RecoveryOutcome::Refused as usize] += 1;
                self.note_socket(key, Happened::ReturnRefused);
                self.refuse(claimant, message, data);
            }
            return;
        }
        self.note_parting(key);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let session = socket.session;
        let asking = socket.extras.as_deref_mut().and_then(|extras| extras.asking.take());
        let Some(name) = self.namespaces.all.get(socket.namespace).map(|n| n.name.clone()) else {
            return;
        };
        if let Some(asking) = asking {
            self.forget_asking(key, &asking);
        }
        self.forget_socket(key);
        self.stats.connects_refused += 1;
        if let Some(session) = self.sessions.get_mut(session) {
            session.events_full_at = session.events_full_at.max(self.now) + REFUSAL;
        }
        self.connect_error(session, name, message, data);
    }

    /// Answers a CONNECT with CONNECT_ERROR before the handler does.
    pub(super) fn turn_away(&mut self, key: SocketKey, message: &str) {
        let Some(socket) = self.sockets.get(key).filter(|socket| socket.id.is_none()) else {
            return;
        };
        let session = socket.session;
        let name = self.namespaces.all.get(socket.namespace).map(|found| found.name.clone());
        let reason = DisconnectReason::ServerNamespaceDisconnect;
        self.remove_socket(key, reason, RecoveryOutcome::Superseded);
        self.stats.connects_refused += 1;
        if let Some(name) = name {
            self.connect_error(session, name, message, None);
        }
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
    pub(super) fn transmit_packet(&mut self, key: SessionKey, packet: &socketio::Packet) {
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
        let Some(PendingAck { token, held, .. }) = extras.pending_acks.remove(&id) else { return };
        extras.held_bytes -= held.map_or(0, |held| held.args.bytes());
        socket.drop_empty_extras();
        if let Some(session) = self.sessions.get_mut(socket.session) {
            session.pending_acks -= 1;
        }
        if let Some(token) = token {
            self.deliver(key, Event::Ack { socket: key, id: sid, token, result: Ok(args) });
        }
    }

    pub(super) fn expire_acks(&mut self, now: Time, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        let mut next = NEVER;
        for socket in session.sockets.clone() {
            next = next.min(self.expire_acks_of(now, socket).unwrap_or(NEVER));
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.set_ack_by(next);
        if next != NEVER {
            self.timers.push(next, Timer::Ack, key);
        }
    }

    /// Gives up the acks of a socket that are overdue. Returns when the next one will be.
    pub(super) fn expire_acks_of(&mut self, now: Time, key: SocketKey) -> Option<Time> {
        let socket = self.sockets.get_mut(key)?;
        let (session, id) = (socket.session, socket.id?);
        let extras = socket.extras.as_deref_mut()?;
        let mut expired = Vec::new();
        extras.pending_acks.retain(|_, ack| {
            let late = ack.deadline <= now;
            if late {
                expired.push(ack.token);
                extras.held_bytes -= ack.held.as_ref().map_or(0, |held| held.args.bytes());
            }
            !late
        });
        let next = extras.ack_by();
        socket.drop_empty_extras();
        if socket.is_away()
            && let Some(next) = next
        {
            self.keeper.await_ack(next, key);
        }
        if let Some(session) = self.sessions.get_mut(session) {
            session.pending_acks -= u32::try_from(expired.len()).unwrap_or(u32::MAX);
        }
        for token in expired.into_iter().flatten() {
            let result = Err(AckError::TimedOut);
            self.deliver(key, Event::Ack { socket: key, id, token, result });
        }
        next
    }

    /// Notes an ack that a client owes from now on. `event` is held for clients that may come back,
    /// unless it is volatile. Returns whether it may owe one more.
    pub(super) fn owe(
        &mut self,
        key: SocketKey,
        id: u64,
        AckRequest { token, timeout }: AckRequest,
        event: &Args,
        volatile: bool,
    ) -> bool {
        let deadline = self.now + timeout;
        let pending_max = self.config.limits.pending_acks_per_session;
        let held_max = self.config.limits.queued_bytes_per_session;
        let after = self.log.head();
        let Some(socket) = self.sockets.get_mut(key) else { return false };
        let (session_key, away) = (socket.session, socket.is_away());
        let holds = socket.kept.is_some() && !volatile;
        let owed = match self.sessions.get(session_key) {
            Some(session) => session.pending_acks as usize,
            None => socket.extras.as_deref().map_or(0, |extras| extras.pending_acks.len()),
        };
        let extras = socket.extras_mut();
        let bytes = if holds { event.bytes() } else { 0 };
        if owed >= pending_max || extras.held_bytes + bytes > held_max {
            socket.drop_empty_extras();
            self.stats.on_limit(LimitKey::PendingAcksPerSession);
            return false;
        }
        let held = holds.then(|| Held { args: event.clone(), after });
        extras.held_bytes += bytes;
        extras.pending_acks.insert(id, PendingAck { token: Some(token), deadline, held });
        if away {
            self.keeper.await_ack(deadline, key);
        }
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.pending_acks += 1;
            if deadline < session.ack_by() {
                session.set_ack_by(deadline);
                self.timers.push(deadline, Timer::Ack, session_key);
            }
        }
        if holds {
            self.ask_later(key, after, id);
        }
        true
    }

    pub(super) fn emit(
        &mut self,
        key: SocketKey,
        args: Args,
        ack: Option<AckRequest>,
        volatile: bool,
    ) {
        let queued_max = self.config.limits.queued_bytes_per_session;
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(sid) = socket.id else { return };
        let session_key = socket.session;
        let reach = self.namespaces.reach(socket);
        let dropped = volatile
            && (reach == Reach::Absent || {
                let namespace = self.namespaces.all.get(socket.namespace);
                let head_max = namespace.map_or(0, |it| it.name.len()) + HEAD_MAX_BYTES;
                let bytes = queued_bytes(head_max, &args);
                let session = self.sessions.get(session_key);
                session.is_none_or(|session| !session.takes_volatile(bytes, queued_max))
            });
        let mut id = None;
        if let Some(request) = ack {
            let number = socket.next_ack;
            if !self.owe(key, number, request, &args, volatile) {
                let result = Err(AckError::TooMany);
                let token = request.token;
                self.deliver(key, Event::Ack { socket: key, id: sid, token, result });
                return;
            }
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.next_ack += 1;
            }
            id = Some(number);
        }
        // The ack of what was dropped is awaited all the same: its time is over some day.
        if dropped {
            return;
        }
        let own = self.sessions.get(session_key).is_some_and(|session| session.own);
        self.stats.events_out += u64::from(!own);
        // What asks for an ack is held, and its last argument is the client's callback.
        let logged = id.is_none() && !volatile;
        let stamp = if reach == Reach::Stamped && id.is_none() {
            self.log.stamp(self.log.head() + u64::from(logged))
        } else {
            StampText::new()
        };
        let written = self.write(key, reach, Heading::Event(id), &args, &stamp);
        if logged {
            self.log_for(key, args, RecordKind::Event);
        }
        self.send(session_key, written);
    }

    /// Puts something into the log that is for one socket, if that is kept.
    fn log_for(&mut self, key: SocketKey, args: Args, kind: RecordKind) {
        let now = self.now;
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(kept) = socket.kept.as_deref_mut() else { return };
        let target = Target::Socket { previous: kept.newest };
        let origin = BroadcastOrigin { shard: 0, number: 0 };
        kept.newest = self.log.push(Record { at: now, target, args, kind, origin });
    }

    /// Leaves a number of the log to nobody. A socket has arrived with things of another log: whoever
    /// names an offset of this one from now on has seen them, even if it was that of something
    /// volatile, which stands in no log. The socket takes that along.
    pub(super) fn skip_number(&mut self) -> Missed {
        let number = self.log.push(Record {
            at: self.now,
            target: Target::Socket { previous: 0 },
            args: Args { json: ByteString::from_static("[]"), attachments: Vec::new() },
            kind: RecordKind::Event,
            origin: BroadcastOrigin { shard: 0, number: 0 },
        });
        Missed::marker(self.log.offset(number))
    }

    pub(super) fn send_ack(&mut self, key: SocketKey, id: u64, args: Args) {
        let Some(socket) = self.sockets.get(key).filter(|socket| socket.id.is_some()) else {
            return;
        };
        let session_key = socket.session;
        let reach = self.namespaces.reach(socket);
        let kept = socket.kept.as_deref();
        let Some(id) = kept.map_or(Some(id), |kept| kept.answer(id)) else { return };
        let stamped = kept.is_some_and(|kept| kept.stamped);
        let written = self.write(key, reach, Heading::Ack(id), &args, &StampText::new());
        // Its client waits for it, and may have lost what it is sent just now. Clients without offsets
        // number their events anew in each session, so what is said late would answer another one.
        if stamped {
            self.log_for(key, args, RecordKind::Answer(id));
        }
        self.send(session_key, written);
    }

    /// Writes an event or an ack in the form that the transport of a socket takes. Nothing for one
    /// that is away or has not caught up.
    fn write(
        &self,
        key: SocketKey,
        reach: Reach,
        heading: Heading,
        args: &Args,
        stamp: &StampText,
    ) -> Written {
        let socket = self.sockets.get(key).filter(|_| reach != Reach::Absent);
        socket.map_or(Written::Nothing, |socket| self.write_to(socket, heading, args, stamp))
    }

    fn write_to(
        &self,
        socket: &Socket,
        heading: Heading,
        args: &Args,
        stamp: &StampText,
    ) -> Written {
        let Some(namespace) = self.namespaces.all.get(socket.namespace) else {
            return Written::Nothing;
        };
        let Some(session) = self.sessions.get(socket.session) else { return Written::Nothing };
        let header = match heading {
            Heading::Event(ack) => Header::event(&namespace.name, ack, args),
            Heading::Ack(id) => Header::ack(&namespace.name, id, args),
        };
        match session.websocket {
            Some(transport) if !session.base64 => {
                let packets = 1 + args.attachments.len() as u64;
                Written::Frames {
                    transport,
                    frames: frames(&header, args, stamp, session.is_eio3(), session.deflate),
                    counts: if session.own { 0 } else { packets },
                }
            }
            Some(_) | None => Written::Packets(packets(&header, args, stamp)),
        }
    }

    fn send(&mut self, session: SessionKey, written: Written) {
        match written {
            Written::Nothing => {}
            Written::Frames { transport, frames, counts } => {
                self.stats.packets_out += counts;
                self.send_one(transport, frames);
            }
            Written::Packets(packets) => {
                for packet in packets {
                    self.transmit(session, packet);
                }
            }
        }
    }

    /// Sends an event or an ack to a socket that is catching up.
    pub(super) fn send_late(
        &mut self,
        key: SocketKey,
        heading: Heading,
        args: &Args,
        stamp: &StampText,
    ) {
        let Some(socket) = self.sockets.get(key) else { return };
        let written = self.write_to(socket, heading, args, stamp);
        self.send(socket.session, written);
    }

    pub(super) fn broadcast(&mut self, mut broadcast: Broadcast) {
        if !broadcast.forwarded {
            self.stats.events_out += 1;
        }
        let origin = self.note_origin(&mut broadcast);
        let mut reached = 0;
        if let Some(namespace) = self.namespace_of(&broadcast.namespace) {
            let mut id = None;
            if let Some(ask) = broadcast.ack.as_deref() {
                let (number, count) = self.ask_receivers(&broadcast, namespace, *ask);
                (id, reached) = (Some(number), count);
            } else if broadcast.report.is_some() {
                reached = self.count_receivers(&broadcast, namespace);
            }
            let number = self.log_broadcast(&broadcast, namespace, id, origin);
            self.fan_out(&broadcast, namespace, id, number);
        }
        if let Some(report) = broadcast.report {
            self.outputs.push_back(Output::Reached { report, receivers: reached });
        }
        if !broadcast.forwarded && self.config.shards > 1 {
            let forwarded = Box::new(Broadcast { forwarded: true, ..broadcast });
            self.outputs.push_back(Output::Forward(forwarded));
        }
        if !self.waiting_for_peers.is_empty() || !self.claims_waiting.is_empty() {
            self.resume_after_peers();
        }
    }

    /// The namespace of a broadcast, if anybody is in it or may be once what was saved is known.
    fn namespace_of(&mut self, name: &ByteString) -> Option<NamespaceKey> {
        let found = self.namespaces.find(name);
        if found.is_some() || !self.loading {
            return found;
        }
        let handler = self.config.rule_for(name)?.handler;
        Some(self.namespaces.find_or_make(name, handler))
    }

    /// Gives a broadcast that began here its number, and remembers how far each shard has come.
    fn note_origin(&mut self, broadcast: &mut Broadcast) -> BroadcastOrigin {
        let shard = self.config.continuity.shard;
        let next = u64::from(!broadcast.forwarded);
        let origin = broadcast.origin.unwrap_or_else(|| BroadcastOrigin {
            shard,
            number: self.seen.get(usize::from(shard)).map_or(0, |number| number + next),
        });
        broadcast.origin = Some(origin);
        if let Some(seen) = self.seen.get_mut(usize::from(origin.shard)) {
            *seen = (*seen).max(origin.number);
        }
        origin
    }

    /// Keeps a broadcast for those who may miss it. Returns where they stand once they have it.
    fn log_broadcast(
        &mut self,
        broadcast: &Broadcast,
        key: NamespaceKey,
        ack: Option<u64>,
        origin: BroadcastOrigin,
    ) -> u64 {
        let Some(namespace) = self.namespaces.all.get_mut(key) else { return 0 };
        let kind = match ack {
            Some(id) => RecordKind::Asking(id),
            None => RecordKind::Event,
        };
        // Those who were asked for an ack hold the event themselves.
        let needless = ack.is_some() && self.config.shards == 1;
        let alone = self.config.shards == 1 && !self.loading;
        if broadcast.volatile || namespace.kept == 0 && alone || needless {
            return self.log.head();
        }
        let number = self.log.head() + 1;
        let first = self.log.first();
        let except: Box<[ByteString]> = broadcast.except.as_slice().into();
        let target = if broadcast.rooms.is_empty() {
            let previous = std::mem::replace(&mut namespace.trail.everyone, number);
            Target::Everyone { previous, except }
        } else {
            let mut rooms: Vec<Link> = Vec::with_capacity(broadcast.rooms.len());
            for room in &broadcast.rooms {
                if rooms.iter().all(|link| link.room != *room) {
                    let previous = namespace.trail.follow(room, number, first);
                    rooms.push(Link { room: room.clone(), previous });
                }
            }
            Target::Rooms { rooms: rooms.into(), except }
        };
        let args = broadcast.args.clone();
        self.log.push(Record { at: self.now, target, args, kind, origin })
    }

    fn count_receivers(&mut self, broadcast: &Broadcast, namespace: NamespaceKey) -> usize {
        if broadcast.rooms.is_empty() && broadcast.except.is_empty() {
            return self.namespaces.all.get(namespace).map_or(0, |found| found.members.len());
        }
        let mut walk = self.walk(broadcast, namespace, Kinds::NONE);
        let mut count = 0;
        while self.next_member(&mut walk).is_some() {
            count += 1;
        }
        count
    }

    /// One pass for each encoding that somebody uses.
    fn fan_out(
        &mut self,
        broadcast: &Broadcast,
        namespace: NamespaceKey,
        id: Option<u64>,
        number: u64,
    ) {
        let args = &broadcast.args;
        let head = Header::event(&broadcast.namespace, id, args);
        let Some(found) = self.namespaces.all.get(namespace) else { return };
        let plain = found.members.len() > found.stamped + found.absent;
        let stamp = match id {
            _ if found.stamped == 0 => StampText::new(),
            // The last argument of such an event is the client's callback.
            Some(_) => StampText::new(),
            None => self.log.stamp(number),
        };
        let stamped = found.stamped > 0;
        if self.census.by_packet > 0 {
            let unstamped = packets(&head, args, &StampText::new());
            let with_stamp =
                if stamp.is_empty() { unstamped.clone() } else { packets(&head, args, &stamp) };
            let bytes = queued_bytes(head.len(), args);
            let queued_max = self.config.limits.queued_bytes_per_session;
            let mut walk = self.walk(broadcast, namespace, Kinds::NONE);
            let mut slow = Vec::new();
            while let Some(member) = self.next_member(&mut walk) {
                let packets = match member.reach {
                    _ if member.kind != Kinds::NONE => continue,
                    Reach::Plain => &unstamped,
                    Reach::Stamped => &with_stamp,
                    Reach::Pending | Reach::Absent => continue,
                };
                let Some(socket) = self.sockets.get(member.socket) else { continue };
                let key = socket.session;
                let Some(session) = self.sessions.get(key) else { continue };
                if broadcast.volatile && !session.takes_volatile(bytes, queued_max) {
                    continue;
                }
                for packet in packets {
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
        let classes = [(Reach::Plain, StampText::new(), plain), (Reach::Stamped, stamp, stamped)];
        for (reach, stamp, _) in classes.into_iter().filter(|(_, _, any)| *any) {
            self.fan_out_to(broadcast, namespace, &head, (reach, &stamp));
        }
    }

    /// The WebSockets of those who get offsets, or of those who get none.
    fn fan_out_to(
        &mut self,
        broadcast: &Broadcast,
        namespace: NamespaceKey,
        head: &Header<'_>,
        (reach, stamp): (Reach, &StampText),
    ) {
        let args = &broadcast.args;
        // A kind of leg is told apart only where the encoding depends on it.
        let kinds = |split: bool| if split { &[Some(false), Some(true)][..] } else { &[None] };
        let long = head.len() + args.json.len() >= DEFLATE_FROM_BYTES;
        for eio3 in kinds(!args.attachments.is_empty()).iter().copied() {
            for deflate in kinds(long).iter().copied() {
                if !self.census.has_websocket(eio3, deflate) {
                    continue;
                }
                let kinds = Kinds::of(reach, eio3, deflate);
                let receivers = Receivers::Many(self.walk(broadcast, namespace, kinds));
                let frame = frames(head, args, stamp, eio3 == Some(true), deflate == Some(true));
                self.outputs.push_back(Output::Send { receivers, frame });
            }
        }
    }

    pub(super) fn join(&mut self, key: SocketKey, room: &ByteString) {
        let Some(session_key) = self.sockets.get(key).map(|socket| socket.session) else { return };
        if !self.enter_room(key, room) {
            return;
        }
        let Some(session) = self.sessions.get_mut(session_key) else {
            // Nobody is there to be cut.
            let rooms = self.sockets.get(key).map_or(0, |socket| socket.rooms.len());
            if rooms > self.config.limits.rooms_per_session {
                self.exit_room(key, room);
                self.stats.on_limit(LimitKey::RoomsPerSession);
            }
            return;
        };
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
        if !close || !self.sessions.contains_key(session_key) {
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
        self.remove_socket(key, reason, RecoveryOutcome::Ended);
        if let Some(namespace) = name.filter(|_| accepted) {
            self.transmit_packet(session, &socketio::Packet::Disconnect { namespace });
        }
    }

    /// Takes a socket out of its namespace and tells its handler.
    pub(super) fn remove_socket(
        &mut self,
        key: SocketKey,
        reason: DisconnectReason,
        outcome: RecoveryOutcome,
    ) {
        self.note_parting(key);
        self.note_socket(key, Happened::Ended { reason, outcome });
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let id = socket.id;
        let catching_up = socket.is_catching_up();
        let asking = socket.extras.as_deref_mut().and_then(|extras| extras.asking.take());
        let told = asking.as_deref().is_none_or(|asking| asking.told);
        if let Some(session) = self.sessions.get_mut(socket.session) {
            session.catching_up -= u16::from(catching_up);
        }
        let claimant = self.forget_kept(key, outcome);
        if let Some(asking) = asking {
            self.forget_asking(key, &asking);
        }
        let Some(socket) = self.sockets.get_mut(key) else { return };
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
            let Some(token) = ack.token else { continue };
            let result = Err(AckError::Disconnected);
            let event = Event::Ack { socket: key, id, token, result };
            self.outputs.push_back(Output::Deliver { handler, event });
        }
        if told {
            let event = Event::Disconnect { socket: key, reason };
            self.outputs.push_back(Output::Deliver { handler, event });
        }
        if let Some(claimant) = claimant {
            self.start_over(claimant, outcome);
        }
    }

    /// Takes a socket out of everything, and says so to nobody.
    pub(super) fn forget_socket(&mut self, key: SocketKey) {
        while let Some(last) = self.sockets.get(key).and_then(|s| s.rooms.len().checked_sub(1)) {
            self.exit_room_at(key, last);
            if let Some(session) =
                self.sockets.get(key).and_then(|s| self.sessions.get_mut(s.session))
            {
                session.rooms -= 1;
            }
        }
        let Some(socket) = self.sockets.remove(key) else { return };
        let kept = socket.kept.is_some();
        match socket.id {
            Some(id) => {
                self.by_socket_sid.remove(&id);
                self.expel(socket.namespace, socket.place, kept);
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

/// The socket among these that is in a namespace, and the handler of that once it was accepted.
fn find_in(
    keys: &[SocketKey],
    sockets: &SlotMap<SocketKey, Socket>,
    namespaces: &Namespaces,
    name: &str,
) -> Option<(SocketKey, Option<HandlerId>)> {
    keys.iter().find_map(|key| {
        let socket = sockets.get(*key)?;
        let namespace = namespaces.all.get(socket.namespace)?;
        let found = namespace.name == *name;
        found.then(|| (*key, socket.id.map(|_| namespace.handler)))
    })
}

impl Session {
    /// Takes one packet off its allowance of events, if there is one left. CONNECT and DISCONNECT
    /// count too: they cost no less.
    fn takes_event(&mut self, now: Time, events_per_second: u32) -> bool {
        const SECOND: u64 = 1_000_000;
        let each = SECOND / u64::from(events_per_second.max(1));
        let full_at = self.events_full_at.max(now).as_micros().saturating_add(each);
        if full_at.saturating_sub(now.as_micros()) > SECOND {
            return false;
        }
        self.events_full_at = Time::from_micros(full_at);
        true
    }

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

/// What a packet with arguments is, and the ack it asks for or is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Heading {
    Event(Option<u64>),
    Ack(u64),
}

/// An event or an ack in the form in which it is sent.
enum Written {
    Nothing,
    Frames { transport: TransportId, frames: Bytes, counts: u64 },
    Packets(Vec<Packet>),
}

/// An event or an ack as the packets that a poll takes.
fn packets(head: &Header<'_>, args: &Args, stamp: &StampText) -> Vec<Packet> {
    let [kind, namespace, id] = head.of_packet();
    let text = [kind, namespace, id, before_stamp(args, stamp), stamp.as_str()].concat();
    std::iter::once(Message::Text(text.into()))
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
fn frames(head: &Header<'_>, args: &Args, stamp: &StampText, eio3: bool, deflate: bool) -> Bytes {
    let [kind, namespace, id] = head.of_frame();
    let text = [kind, namespace, id, before_stamp(args, stamp).as_bytes(), stamp.as_bytes()];
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
