//! Below the namespaces: opening, polls, upgrade, heartbeat, closing.

use std::{hash::Hasher as _, sync::Arc};

use bytes::Bytes;
use bytestring::ByteString;
use siphasher::sip::SipHasher13;

use super::{GOING_AWAY, Happened, Hub, Measured, POLICY, Protocol, Receivers, UpgradeFailure};
use crate::{
    ExchangeId, Output, SessionKey, Sid, Time, Timer, TransportId,
    engineio::{
        self, DecodeError, Packet, PacketKind, RequestError, TransportName, Version, payload,
    },
    limit::{self, LimitKey},
    session::{Heartbeat, NEVER, Phase, Polling, Probe, Session, Step},
    socketio,
    wall::{DisconnectReason, Event, Handshake, Lost, Origin, Response},
    websocket::Message,
};

impl Hub {
    pub(super) fn on_open(
        &mut self,
        now: Time,
        id: Sid,
        origin: Origin,
        handshake: Arc<Handshake>,
    ) {
        let version = handshake.version;
        if version == Version::V3 && !self.config.allow_eio3 {
            match origin {
                Origin::Polling(exchange) => {
                    self.respond(exchange, Response::Refused(RequestError::UnsupportedVersion));
                }
                Origin::WebSocket { transport, .. } => self.close_websocket(transport, None),
            }
            return;
        }
        let (phase, websocket, polling, deflate) = match origin {
            Origin::Polling(_) => {
                let polling = Polling {
                    style: handshake.poll_style.clone(),
                    packets_max: limit::packets_per_body(&handshake),
                    last_poll: NEVER,
                    ..Polling::default()
                };
                (Phase::Polling, None, Some(Box::new(polling)), false)
            }
            Origin::WebSocket { transport, deflate } => {
                (Phase::WebSocket, Some(transport), None, deflate)
            }
        };
        let heartbeat = match version {
            Version::V3 => Heartbeat::AwaitingPing(self.terms.client_ping_by(now)),
            Version::V4 => Heartbeat::Resting(now + self.terms.ping_interval),
        };
        let transport = match origin {
            Origin::Polling(_) => TransportName::Polling,
            Origin::WebSocket { .. } => TransportName::WebSocket,
        };
        let (connect_by, kept) = match self.config.protocol {
            Protocol::SocketIo => (now + self.config.connect_timeout, Some(Arc::clone(&handshake))),
            // Its handler is told once, now.
            Protocol::EngineIo(_) => (NEVER, None),
        };
        let key = self.sessions.insert(Session {
            id,
            version,
            terms: Arc::clone(&self.terms),
            opened: now,
            own: handshake.own,
            browser: handshake.is_browser(),
            catching_up: 0,
            phase,
            base64: handshake.poll_style.base64,
            deflate,
            websocket,
            polling,
            backlog_bytes: 0,
            heartbeat,
            connect_by,
            rare: None,
            events_full_at: now,
            decoder: socketio::Decoder::default(),
            sockets: Vec::new(),
            rooms: 0,
            pending_acks: 0,
            address: handshake.address,
            handshake: kept,
        });
        self.by_sid.insert(id, key);
        self.count_leg(key, 1);
        self.note(key, Happened::Opened(transport));
        self.arm_heartbeat(key);
        if connect_by != NEVER {
            self.timers.push(connect_by, Timer::Connect, key);
        }
        self.greet(key, id, origin, &handshake);
        match self.config.protocol {
            // A probe is not the application's.
            Protocol::EngineIo(_) if handshake.own => {}
            Protocol::EngineIo(handler) => {
                let event = Event::Open { session: key, id, handshake };
                self.outputs.push_back(Output::Deliver { handler, event });
            }
            // Socket.IO 4 joins the root namespace without being asked.
            Protocol::SocketIo if version == Version::V3 => {
                self.on_connect(key, ByteString::from_static("/"), None);
            }
            Protocol::SocketIo => {}
        }
    }

    /// Sends the open packet.
    fn greet(&mut self, key: SessionKey, id: Sid, origin: Origin, handshake: &Handshake) {
        let upgrades: &[&str] = match origin {
            Origin::Polling(_) if self.config.upgrades => &["websocket"],
            Origin::Polling(_) | Origin::WebSocket { .. } => &[],
        };
        let open = engineio::open_packet(
            id,
            upgrades,
            self.terms.ping_interval,
            self.terms.ping_timeout,
            self.terms.max_payload_bytes,
        );
        match origin {
            Origin::Polling(exchange) => {
                self.stats.opened_polling += u64::from(!handshake.own);
                self.stats.packets_out += u64::from(!handshake.own);
                let body = payload::encode(
                    handshake.version,
                    &handshake.poll_style,
                    std::iter::once(&open),
                );
                self.respond(exchange, Response::Open { sid: id, body });
            }
            Origin::WebSocket { transport, .. } => {
                self.stats.opened_websocket += u64::from(!handshake.own);
                self.by_transport.insert(transport, key);
                self.transmit(key, open);
            }
        }
    }

    pub(super) fn on_get(&mut self, exchange: ExchangeId, id: Sid, timestamp: Option<u64>) {
        let Some(key) = self.find_polling(exchange, id) else { return };
        let kept = self.has_kept(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(polling) = session.polling.as_deref_mut() else { return };
        let before = std::mem::replace(&mut polling.get_timestamp, timestamp);
        // What POSTs have too tells nothing: it is a parameter of the app's own.
        let repeated = timestamp.is_some() && before == timestamp;
        let repeated = repeated && polling.post_timestamp != timestamp;
        if kept && repeated && polling.get.is_none() {
            // A proxy has lost the answer and asks again. What was in it is lost; the client comes
            // back and gets it from the log.
            self.respond(exchange, Response::Status(400));
            self.end(key, DisconnectReason::TransportError, Farewell::PLAIN);
            return;
        }
        if let Some(overlapped) = polling.get.take() {
            // The pending poll hears `1`, this one 400: the client has lost count of its polls.
            self.by_exchange.remove(&overlapped);
            let farewell = [Packet::bare(PacketKind::Close)];
            let body = payload::encode(session.version, &polling.style, farewell.iter());
            self.respond(overlapped, Response::Payload(body));
            self.respond(exchange, Response::Status(400));
            self.end(key, DisconnectReason::TransportError, Farewell::PLAIN);
            return;
        }
        polling.get = Some(exchange);
        let arrived = polling.answered.take();
        self.by_exchange.insert(exchange, key);
        if let Some(arrived) = arrived {
            self.by_exchange.remove(&arrived);
            self.confirm_poll(key);
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(polling) = session.polling.as_deref() else { return };
        if session.phase == Phase::Closing {
            self.say_last_words(key);
            return;
        }
        if !polling.queue.is_empty() || session.phase == Phase::Probed {
            self.list_poll(key);
        }
        self.resume_replays(key);
    }

    /// Whether this is a POST that a proxy has sent a second time. It is taken as the first was.
    pub(super) fn is_repeated_post(
        &mut self,
        exchange: ExchangeId,
        id: Sid,
        body: &[u8],
        timestamp: Option<u64>,
    ) -> bool {
        let Some(key) = self.by_sid.get(&id).copied() else { return false };
        let kept = self.has_kept(key);
        // Where it is a time, two requests may have the same.
        let mut hasher = SipHasher13::new_with_key(&self.config.continuity.key);
        hasher.write(body);
        let hash = hasher.finish();
        let Some(polling) = self.sessions.get_mut(key).and_then(|s| s.polling.as_deref_mut())
        else {
            return false;
        };
        let before = std::mem::replace(&mut polling.post_timestamp, timestamp);
        let same = std::mem::replace(&mut polling.post_hash, hash) == hash && before == timestamp;
        let repeated = kept && timestamp.is_some() && same && polling.get_timestamp != timestamp;
        if repeated {
            polling.post.take_if(|post| *post == exchange);
            self.by_exchange.remove(&exchange);
            self.respond(exchange, Response::Taken);
        }
        repeated
    }

    fn has_kept(&self, key: SessionKey) -> bool {
        let sockets = self.sessions.get(key).map_or(&[][..], |session| &session.sockets);
        sockets.iter().any(|key| self.sockets.get(*key).is_some_and(|it| it.kept.is_some()))
    }

    pub(super) fn on_post_begun(&mut self, exchange: ExchangeId, id: Sid) {
        let Some(key) = self.find_polling(exchange, id) else { return };
        let Some(polling) = self.sessions.get_mut(key).and_then(|s| s.polling.as_deref_mut())
        else {
            return;
        };
        if polling.post.is_some() {
            self.respond(exchange, Response::Status(400));
            self.end(key, DisconnectReason::TransportError, Farewell::PLAIN);
            return;
        }
        polling.post = Some(exchange);
        self.by_exchange.insert(exchange, key);
    }

    pub(super) fn on_post(
        &mut self,
        now: Time,
        exchange: ExchangeId,
        id: Sid,
        body: Bytes,
        binary: bool,
    ) {
        let Some(key) = self.find_polling(exchange, id) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(polling) = session.polling.as_deref_mut() else { return };
        if polling.post.is_some_and(|begun| begun != exchange) {
            self.respond(exchange, Response::Status(400));
            self.end(key, DisconnectReason::TransportError, Farewell::PLAIN);
            return;
        }
        polling.post = None;
        self.by_exchange.remove(&exchange);
        // The shell reads as much as any session may send.
        if body.len() > session.terms.max_payload_bytes {
            self.stats.on_limit(LimitKey::MaxPayload);
            self.respond(exchange, Response::Status(413));
            return;
        }
        let packets_max = self.config.limits.packets_per_payload;
        if binary && session.version == Version::V4 {
            self.respond(exchange, Response::Status(400));
            self.end(key, DisconnectReason::TransportError, Farewell::PLAIN);
            return;
        }
        let mut packets = Vec::new();
        let body_bytes = body.len();
        let body = match polling.style.jsonp {
            Some(_) => payload::decode_jsonp_body(&body),
            None => Ok(body),
        };
        let outcome = body.and_then(|body| {
            payload::decode_into(session.version, body, binary, packets_max, &mut packets)
        });
        // The reference takes the body before it looks inside, so only the session hears of rubbish.
        match outcome {
            Err(DecodeError::TooManyPackets) => {
                self.stats.on_limit(LimitKey::PacketsPerPayload);
                self.respond(exchange, Response::Status(400));
            }
            Ok(()) | Err(_) => self.respond(exchange, Response::Taken),
        }
        for packet in packets {
            self.on_packet(now, key, detach(packet, body_bytes));
        }
        if outcome.is_err() {
            self.end(key, DisconnectReason::ParseError, Farewell::PLAIN);
        }
    }

    pub(super) fn on_post_too_big(&mut self, exchange: ExchangeId, id: Sid) {
        let Some(key) = self.find_polling(exchange, id) else { return };
        self.by_exchange.remove(&exchange);
        if let Some(polling) = self.sessions.get_mut(key).and_then(|s| s.polling.as_deref_mut())
            && polling.post == Some(exchange)
        {
            polling.post = None;
        }
        self.stats.on_limit(LimitKey::MaxPayload);
        self.respond(exchange, Response::Status(413));
    }

    /// Finds the session a polling request is for, or refuses the request.
    fn find_polling(&mut self, exchange: ExchangeId, id: Sid) -> Option<SessionKey> {
        let found = self.by_sid.get(&id).and_then(|key| Some((*key, self.sessions.get(*key)?)));
        let refusal = match found {
            None => RequestError::UnknownSid,
            Some((_, session)) if session.phase == Phase::WebSocket => RequestError::BadRequest,
            Some((key, _)) => return Some(key),
        };
        self.respond(exchange, Response::Refused(refusal));
        None
    }

    pub(super) fn on_attach(&mut self, now: Time, transport: TransportId, id: Sid, deflate: bool) {
        let deadline = now + self.config.upgrade_timeout;
        let key = self.by_sid.get(&id).copied();
        let session = key.and_then(|key| self.sessions.get_mut(key));
        let session = session.and_then(|session| session.step(Step::Attach).then_some(session));
        let (Some(key), Some(session)) = (key, session) else {
            self.stats.on_upgrade_failed(UpgradeFailure::NotUpgradable);
            self.close_websocket(transport, None);
            return;
        };
        if let Some(polling) = session.polling.as_deref_mut() {
            polling.probe = Some(Probe { transport, deflate, deadline });
        }
        self.by_transport.insert(transport, key);
        self.timers.push(deadline, Timer::Upgrade, key);
    }

    pub(super) fn on_message(&mut self, now: Time, transport: TransportId, message: Message) {
        let Some(key) = self.by_transport.get(&transport).copied() else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let serves = session.websocket == Some(transport);
        if let Message::Text(text) = &message
            && serves
            && self.config.protocol == Protocol::SocketIo
            && text.as_bytes().first() == Some(&PacketKind::Message.digit())
        {
            // As below, without cutting the text twice.
            self.stats.packets_in += u64::from(!session.own);
            self.on_socketio(now, key, message, 1);
            return;
        }
        let packet = Packet::from_frame(session.version, message);
        if serves {
            match packet {
                Ok(packet) => self.on_packet(now, key, packet),
                Err(_) => self.end(key, DisconnectReason::ParseError, Farewell::PLAIN),
            }
            return;
        }
        match packet {
            Ok(packet) if is_probe(&packet) && session.step(Step::Probe) => {
                let pong = Packet::text(PacketKind::Pong, ByteString::from_static("probe"));
                let frame = engineio::ws_frame(session.version, &pong);
                self.stats.packets_in += u64::from(!session.own);
                self.stats.packets_out += u64::from(!session.own);
                self.send_one(transport, frame);
                self.note(key, Happened::Probed);
                self.list_poll(key);
            }
            Ok(packet) if packet.kind == PacketKind::Upgrade => {
                self.stats.packets_in += u64::from(!session.own);
                self.upgrade(now, key);
            }
            Ok(_) | Err(_) => self.fail_probe(now, key, UpgradeFailure::Protocol, true),
        }
    }

    /// The WebSocket takes over from polling, with all that no poll has taken.
    fn upgrade(&mut self, now: Time, key: SessionKey) {
        self.count_leg(key, -1);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.step(Step::Upgrade);
        let Some(polling) = session.polling.take() else { return };
        let Some(probe) = polling.probe else { return };
        session.websocket = Some(probe.transport);
        session.deflate = probe.deflate;
        let (version, base64) = (session.version, session.base64);
        if cfg!(bowline_broken = "pong-per-transport")
            && matches!(session.heartbeat, Heartbeat::AwaitingPong(_))
        {
            session.heartbeat = Heartbeat::AwaitingPing(NEVER);
        }
        let held = session.heartbeat == Heartbeat::Held;
        let own = session.own;
        self.count_leg(key, 1);
        self.renew_receivers(key);
        self.stats.upgraded += u64::from(!own);
        self.note(key, Happened::Upgraded);
        self.forget_exchanges(&polling);
        if let Some(exchange) = polling.get {
            let noop = [Packet::bare(PacketKind::Noop)];
            let body = payload::encode(version, &polling.style, noop.iter());
            self.respond(exchange, Response::Payload(body));
        }
        if let Some(exchange) = polling.post {
            self.respond(exchange, Response::Refused(RequestError::BadRequest));
        }
        for packet in &polling.queue {
            self.stats.packets_out += u64::from(!own);
            let frame = match base64 {
                true => engineio::ws_frame_base64(version, packet),
                false => engineio::ws_frame(version, packet),
            };
            self.send_one(probe.transport, frame);
        }
        // Of a replay that waited for the next poll.
        self.resume_replays(key);
        if held {
            self.send_ping(now, key);
        }
    }

    /// Gives a probe up. Polling goes on as if it had never been.
    fn fail_probe(&mut self, now: Time, key: SessionKey, why: UpgradeFailure, close: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.step(Step::ProbeFailed);
        session.backlog_bytes = 0;
        let held = session.heartbeat == Heartbeat::Held;
        let own = session.own;
        let probe = session.polling.as_deref_mut().and_then(|polling| polling.probe.take());
        if let Some(probe) = probe {
            self.by_transport.remove(&probe.transport);
            if !own {
                self.stats.on_upgrade_failed(why);
            }
            self.note(key, Happened::UpgradeFailed(why));
            if close {
                self.close_websocket(probe.transport, None);
            }
        }
        if held {
            self.send_ping(now, key);
        }
    }

    pub(super) fn on_lost(&mut self, now: Time, transport: TransportId, why: Lost) {
        let Some(key) = self.by_transport.remove(&transport) else { return };
        if why == Lost::TooBig {
            self.stats.on_limit(LimitKey::MaxPayload);
            self.note(key, Happened::LimitHit(LimitKey::MaxPayload));
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.websocket != Some(transport) {
            self.fail_probe(now, key, UpgradeFailure::Lost, false);
            return;
        }
        let reason = match why {
            Lost::Closed => DisconnectReason::TransportClose,
            Lost::Failed | Lost::Protocol | Lost::TooBig => DisconnectReason::TransportError,
        };
        self.end(key, reason, Farewell::Unheard);
    }

    pub(super) fn on_aborted(&mut self, exchange: ExchangeId) {
        if let Some(key) = self.by_exchange.remove(&exchange) {
            if let Some(polling) = self.sessions.get_mut(key).and_then(|s| s.polling.as_deref_mut())
            {
                polling.get.take_if(|get| *get == exchange);
                // Answered, but nobody took the answer: what was in it is lost.
                polling.answered.take_if(|answered| *answered == exchange);
                polling.post.take_if(|post| *post == exchange);
            }
            self.end(key, DisconnectReason::TransportError, Farewell::PLAIN);
        }
    }

    pub(super) fn on_backlog(&mut self, now: Time, transport: TransportId, bytes: usize) {
        let Some(key) = self.by_transport.get(&transport).copied() else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        // Noted for a probe too: if it takes over, it lags.
        session.backlog_bytes = bytes;
        if bytes == 0 {
            self.resume_replays(key);
            return;
        }
        let serves = session.websocket == Some(transport);
        if bytes <= self.config.limits.queued_bytes_per_session {
            return;
        }
        if serves {
            self.cut_slow(key);
        } else {
            self.stats.on_limit(LimitKey::QueuedBytesPerSession);
            self.fail_probe(now, key, UpgradeFailure::Protocol, true);
        }
    }

    /// Ends a session whose client does not take what is sent.
    pub(super) fn cut_slow(&mut self, key: SessionKey) {
        self.stats.slow_receivers += 1;
        self.cut(key, LimitKey::QueuedBytesPerSession);
    }

    /// Ends a session that crossed a limit.
    pub(super) fn cut(&mut self, key: SessionKey, limit: LimitKey) {
        self.stats.on_limit(limit);
        self.note(key, Happened::LimitHit(limit));
        self.end(key, DisconnectReason::ForcedServerClose, Farewell::Close(Some(POLICY)));
    }

    /// One packet on the transport that serves the session.
    fn on_packet(&mut self, now: Time, key: SessionKey, packet: Packet) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.phase == Phase::Closing {
            return;
        }
        self.stats.packets_in += u64::from(!session.own);
        match (packet.kind, session.version) {
            (PacketKind::Message, _) => match self.config.protocol {
                Protocol::SocketIo => self.on_socketio(now, key, packet.data, 0),
                Protocol::EngineIo(_) if session.own => {}
                Protocol::EngineIo(handler) => {
                    let event = Event::Message { session: key, message: packet.data };
                    self.outputs.push_back(Output::Deliver { handler, event });
                }
            },
            (PacketKind::Ping, Version::V3) => {
                let pong = Packet { kind: PacketKind::Pong, data: packet.data };
                // No timer is pushed: the one that waits is moved on when it comes up, so that a
                // client that pings without end fills no queue.
                session.heartbeat = Heartbeat::AwaitingPing(session.terms.client_ping_by(now));
                self.note_heartbeat(key, Happened::ClientPing);
                self.transmit(key, pong);
            }
            (PacketKind::Pong, Version::V4) => {
                if let Heartbeat::AwaitingPong(by) = session.heartbeat {
                    let terms = &session.terms;
                    session.heartbeat = Heartbeat::Resting(now + terms.ping_interval);
                    let took = terms.ping_timeout.saturating_sub(by - now);
                    self.stats.measure(Measured::Pong, took);
                    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                    self.note_heartbeat(key, Happened::Pong { micros });
                    self.arm_heartbeat(key);
                    self.confirm_ping(key);
                }
            }
            // The heartbeat goes the other way in this version.
            (PacketKind::Ping, Version::V4) | (PacketKind::Pong, Version::V3) => {
                self.end(key, DisconnectReason::TransportError, Farewell::PLAIN);
            }
            (PacketKind::Close, _) => {
                self.answer_poll(key);
                self.end(key, DisconnectReason::TransportClose, Farewell::PLAIN);
            }
            (PacketKind::Open | PacketKind::Upgrade | PacketKind::Noop, _) => {}
        }
    }

    /// Sends a packet on whatever serves the session, or queues it for the next poll.
    pub(super) fn transmit(&mut self, key: SessionKey, packet: Packet) {
        if !self.pass(key, packet) {
            self.cut_slow(key);
        }
    }

    /// The same, but leaves it to the caller to cut a session for which more waits now than may,
    /// which the return value false says.
    pub(super) fn pass(&mut self, key: SessionKey, packet: Packet) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return true };
        if let Some(transport) = session.websocket {
            self.stats.packets_out += u64::from(!session.own);
            let frame = session.frame(&packet);
            self.send_one(transport, frame);
            return true;
        }
        if session.phase == Phase::Closing {
            return true;
        }
        let Some(polling) = session.polling.as_deref_mut() else { return true };
        polling.queued_bytes += packet.data.len() + PACKET_OVERHEAD_BYTES;
        polling.queue.push_back(packet);
        if polling.queued_bytes > self.config.limits.queued_bytes_per_session {
            return false;
        }
        if polling.get.is_some() {
            self.list_poll(key);
        }
        true
    }

    pub(super) fn send_one(&mut self, transport: TransportId, frame: Bytes) {
        let receivers = Receivers::One(Some(transport));
        self.outputs.push_back(Output::Send { receivers, frame });
    }

    fn respond(&mut self, exchange: ExchangeId, response: Response) {
        self.outputs.push_back(Output::Respond { exchange, response });
    }

    fn close_websocket(&mut self, transport: TransportId, code: Option<u16>) {
        self.outputs.push_back(Output::Close { transport, code });
    }

    fn list_poll(&mut self, key: SessionKey) {
        if let Some(polling) = self.sessions.get_mut(key).and_then(|s| s.polling.as_deref_mut())
            && !polling.listed
        {
            polling.listed = true;
            self.polls_to_answer.push(key);
        }
    }

    pub(super) fn on_turn_end(&mut self) {
        let mut listed = std::mem::take(&mut self.polls_to_answer);
        for key in listed.drain(..) {
            if let Some(polling) = self.sessions.get_mut(key).and_then(|s| s.polling.as_deref_mut())
            {
                polling.listed = false;
                self.answer_poll(key);
            }
        }
        self.polls_to_answer = listed;
        self.trim_log();
    }

    /// Answers the pending poll with what is queued; with a noop if that is nothing.
    fn answer_poll(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(polling) = session.polling.as_deref_mut() else { return };
        let Some(exchange) = polling.get.take() else { return };
        let count = polling.queue.len().min(polling.packets_max);
        let body = if count == 0 {
            let noop = [Packet::bare(PacketKind::Noop)];
            payload::encode(session.version, &polling.style, noop.iter())
        } else {
            payload::encode(session.version, &polling.style, polling.queue.iter().take(count))
        };
        for packet in polling.queue.drain(..count) {
            polling.queued_bytes -= packet.data.len() + PACKET_OVERHEAD_BYTES;
        }
        if polling.queue.is_empty() {
            polling.queue.shrink_to_fit();
        }
        // Still known, so that an answer nobody took is noticed.
        polling.answered = Some(exchange);
        let took_all = polling.queue.is_empty();
        if !session.own {
            self.stats.packets_out += count.max(1) as u64;
        }
        if took_all {
            self.mark_poll(key);
            self.resume_replays(key);
        }
        self.respond(exchange, Response::Payload(body));
    }

    /// Closes a session from the server's side: its sockets leave, what is queued still goes out,
    /// and the client is told.
    pub(super) fn close(&mut self, now: Time, key: SessionKey, reason: DisconnectReason) {
        self.close_until(now + limit::LAST_POLL, key, reason);
    }

    /// Closes a session because the server stops. Between two polls it is given a moment to take
    /// what is queued for it.
    pub(super) fn on_drain(&mut self, now: Time, key: SessionKey) {
        let reason = DisconnectReason::ServerShuttingDown;
        let polling = self.sessions.get(key).and_then(|session| session.polling.as_deref());
        if polling.is_some_and(|polling| polling.get.is_none() && !polling.queue.is_empty()) {
            self.close_until(now + limit::LAST_POLL_DRAINING, key, reason);
        } else {
            self.end(key, reason, Farewell::Close(Some(GOING_AWAY)));
        }
    }

    fn close_until(&mut self, deadline: Time, key: SessionKey, reason: DisconnectReason) {
        self.part(key, reason);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let closing = session.phase == Phase::Closing;
        let Some(polling) = session.polling.as_deref_mut() else {
            self.end(key, reason, Farewell::PLAIN);
            return;
        };
        if deadline < polling.last_poll {
            polling.last_poll = deadline;
            self.timers.push(deadline, Timer::LastPoll, key);
        }
        if closing {
            return;
        }
        let probe = polling.probe.take();
        polling.say_end(reason);
        let own = session.own;
        session.step(Step::Close);
        self.report_closed(key, reason);
        self.abandon_probe(key, probe, own);
        self.say_last_words(key);
    }

    /// Answers the poll of a closing session, and forgets the session once it has heard all.
    fn say_last_words(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.polling.as_deref().is_none_or(|polling| polling.get.is_none()) {
            return;
        }
        self.answer_poll(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.polling.as_deref().is_none_or(|polling| polling.queue.is_empty()) {
            session.step(Step::Told);
            self.remove(key);
        }
    }

    fn abandon_probe(&mut self, key: SessionKey, probe: Option<Probe>, own: bool) {
        if let Some(probe) = probe {
            if !own {
                self.stats.on_upgrade_failed(UpgradeFailure::SessionEnded);
            }
            self.note(key, Happened::UpgradeFailed(UpgradeFailure::SessionEnded));
            self.by_transport.remove(&probe.transport);
            self.close_websocket(probe.transport, None);
        }
    }

    /// Ends a session at once. A pending poll is told what is queued, or `1`; a WebSocket gets a
    /// close frame.
    pub(super) fn end(&mut self, key: SessionKey, reason: DisconnectReason, farewell: Farewell) {
        self.part(key, reason);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let already_counted = session.phase == Phase::Closing;
        let own = session.own;
        session.step(Step::End);
        if let Some(polling) = session.polling.as_deref_mut() {
            let probe = polling.probe.take();
            polling.say_end(reason);
            self.answer_poll(key);
            self.abandon_probe(key, probe, own);
        }
        if !already_counted {
            self.report_closed(key, reason);
        }
        if let Farewell::Close(code) = farewell
            && let Some(transport) = self.sessions.get(key).and_then(|session| session.websocket)
        {
            self.close_websocket(transport, code);
        }
        self.remove(key);
    }

    /// Forgets a session.
    fn remove(&mut self, key: SessionKey) {
        self.count_leg(key, -1);
        let Some(session) = self.sessions.remove(key) else { return };
        self.by_sid.remove(&session.id);
        if let Some(transport) = session.websocket {
            self.by_transport.remove(&transport);
        }
        if let Some(polling) = session.polling {
            self.forget_exchanges(&polling);
            if let Some(exchange) = polling.post {
                self.respond(exchange, Response::Status(400));
            }
        }
    }

    fn forget_exchanges(&mut self, polling: &Polling) {
        for exchange in [polling.get, polling.answered, polling.post].into_iter().flatten() {
            self.by_exchange.remove(&exchange);
        }
    }

    /// Counts the end of a session and, where bare messages are served, says so.
    fn report_closed(&mut self, key: SessionKey, reason: DisconnectReason) {
        let Some(session) = self.sessions.get(key).filter(|session| !session.own) else { return };
        self.stats.on_closed(reason);
        self.stats.measure(Measured::Session, self.now - session.opened);
        self.note(key, Happened::Closed(reason));
        if let Protocol::EngineIo(handler) = self.config.protocol {
            let event = Event::Close { session: key, reason };
            self.outputs.push_back(Output::Deliver { handler, event });
        }
    }

    /// Counts a session in or out of the leg that serves it.
    fn count_leg(&mut self, key: SessionKey, by: isize) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.websocket.is_some() {
            let eio3 = usize::from(session.is_eio3());
            let count = &mut self.census.websocket[eio3][usize::from(session.deflate)];
            *count = count.saturating_add_signed(by);
        } else {
            self.census.polling = self.census.polling.saturating_add_signed(by);
        }
        if session.takes_packets() {
            self.census.by_packet = self.census.by_packet.saturating_add_signed(by);
        }
        if session.own {
            let count = &mut self.census.own[usize::from(session.websocket.is_some())];
            *count = count.saturating_add_signed(by);
        }
    }

    fn arm_heartbeat(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        match session.heartbeat {
            Heartbeat::Resting(at) => self.timers.push(at, Timer::Ping, key),
            Heartbeat::AwaitingPong(at) => self.timers.push(at, Timer::Pong, key),
            Heartbeat::AwaitingPing(at) => self.timers.push(at, Timer::ClientPing, key),
            Heartbeat::Held => {}
        }
    }

    fn send_ping(&mut self, now: Time, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.heartbeat = Heartbeat::AwaitingPong(now + session.terms.ping_timeout);
        self.arm_heartbeat(key);
        self.mark_ping(key);
        self.note_heartbeat(key, Happened::PingSent);
        self.transmit(key, Packet::bare(PacketKind::Ping));
    }

    pub(super) fn on_timeout(&mut self, now: Time) {
        while let Some((at, timer, key)) = self.timers.pop_due(now) {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            match session.deadline(timer) {
                Some(deadline) if deadline == at => {}
                Some(later) if timer == Timer::ClientPing => {
                    self.timers.push(later, timer, key);
                    continue;
                }
                Some(_) | None => continue,
            }
            self.stats.on_wakeup(timer);
            match timer {
                Timer::Ping => match session.phase {
                    // A ping on the leg that is about to go might never be answered.
                    Phase::Probing | Phase::Probed => session.heartbeat = Heartbeat::Held,
                    Phase::Polling | Phase::WebSocket | Phase::Closing | Phase::Closed => {
                        self.stats.measure(Measured::PingLateness, now - at);
                        self.send_ping(now, key);
                    }
                },
                Timer::Pong | Timer::ClientPing => {
                    self.end(key, DisconnectReason::PingTimeout, Farewell::PLAIN);
                }
                Timer::Upgrade => self.fail_probe(now, key, UpgradeFailure::TimedOut, true),
                Timer::Connect => self.close(now, key, DisconnectReason::ForcedServerClose),
                Timer::LastPoll => {
                    session.step(Step::Told);
                    self.remove(key);
                }
                Timer::Ack => self.expire_acks(now, key),
                Timer::Expiry => self.expire_sockets(now, key),
                Timer::Replay => self.on_replay_due(key),
                Timer::Away => {}
            }
        }
        if self.away_timeout().is_some_and(|at| at <= now) {
            self.stats.on_wakeup(Timer::Away);
            self.on_away_timeout(now);
        }
    }

    pub(super) fn send_bare(&mut self, key: SessionKey, message: Message) {
        self.stats.events_out += 1;
        self.transmit(key, Packet { kind: PacketKind::Message, data: message });
    }
}

/// Copies the data of a packet that is a small part of its body, which it would keep whole for as
/// long as it waits in a queue that counts its own bytes only.
fn detach(packet: Packet, body_bytes: usize) -> Packet {
    if packet.data.len() > body_bytes / 2 {
        return packet;
    }
    let data = match packet.data {
        Message::Text(text) => Message::Text(ByteString::from(&*text)),
        Message::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(&bytes)),
    };
    Packet { data, ..packet }
}

fn is_probe(packet: &Packet) -> bool {
    packet.kind == PacketKind::Ping && packet.data.as_bytes() == b"probe"
}

/// What a WebSocket hears when its session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// A close frame, with a code or without.
    Close(Option<u16>),
    /// Nothing: it has gone already.
    Unheard,
}

impl Farewell {
    /// An empty close frame, as the reference sends.
    pub(super) const PLAIN: Self = Self::Close(None);
}

impl Polling {
    /// Queues the `1` that ends the session, or leaves it away: the next poll then hears that the
    /// sid is not known, after which all clients come back.
    ///
    /// In a drain, since clients of python-engineio that were told `1` stay away for good. And
    /// behind events that will be replayed: the official client takes them in after the `1`, too late
    /// for the offset it comes back with, and would have them twice. Behind a `41` nothing is.
    fn say_end(&mut self, reason: DisconnectReason) {
        let dismissed = reason == DisconnectReason::ServerNamespaceDisconnect;
        let alone = self.queue.is_empty() && reason != DisconnectReason::ServerShuttingDown;
        if dismissed || alone {
            self.queue.push_back(Packet::bare(PacketKind::Close));
            self.queued_bytes += PACKET_OVERHEAD_BYTES;
        }
    }
}

/// What a queued packet costs beyond its text, as far as limits are concerned: without it, empty
/// packets would be free.
pub(super) const PACKET_OVERHEAD_BYTES: usize = 64;
