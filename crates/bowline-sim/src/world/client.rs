//! One client: a small Engine.IO and Socket.IO client of its own, polite or not.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bowline_proto::{
    ExchangeId, Sid, TransportId,
    engineio::{Packet, PacketKind, PollStyle, Version, payload, ws_payload, ws_payload_base64},
    socketio::{self, Args},
    wall::{PollBody, Response},
    websocket::{DecodeConfig, Decoder, Incoming, Message, OpCode, Role},
};
use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Value, json};

use crate::rng::Rng;

/// What a client wants its network to do.
#[derive(Debug)]
pub(super) enum Wish {
    Get,
    Post {
        body: Bytes,
        binary: bool,
        packets: Vec<Packet>,
    },
    PostTooBig,
    Attach,
    Send(Message),
    /// A probe goes, or says what it should not, and its client forgets it.
    FailProbe,
    /// The WebSocket goes without a word.
    Drop(TransportId),
    /// The connection of a request goes before its answer.
    Abort(ExchangeId),
}

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leg {
    Opening,
    Polling,
    WebSocket,
    /// It has closed, was closed, or does nothing any more.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Idle,
    /// The WebSocket is being opened; `2probe` was said.
    Asked,
    /// `3probe` was heard: no new polls, `5` once the old ones are over.
    Pausing,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) sid: Sid,
    pub(super) version: Version,
    pub(super) style: PollStyle,
    pub(super) deflate: bool,
    /// It takes 16 packets in a body at most.
    pub(super) python: bool,
    pub(super) leg: Leg,
    /// As it was told when it opened its session.
    pub(super) ping_interval: Duration,
    probe: Probe,
    pub(super) get: Option<ExchangeId>,
    pub(super) post: Option<ExchangeId>,
    pub(super) websocket: Option<TransportId>,
    /// It hears, but says nothing any more, not even pongs.
    pub(super) mute: bool,
    /// It has two polls under way: what it hears is in no order.
    deaf: bool,
    /// It has broken the protocol or gone without a word: what it was due may be lost.
    pub(super) excused: bool,
    /// The server has said goodbye, after everything else.
    pub(super) told: bool,
    outbox: VecDeque<Packet>,
    frames: Decoder,
    packets: socketio::Decoder,
    /// Whether the server has let it in.
    namespaces: BTreeMap<ByteString, bool>,
    /// Acks it owes.
    owed: Vec<(ByteString, u64)>,
    next_ack: u64,
    pub(super) emitted: u64,
}

impl Client {
    pub(super) fn new(
        sid: Sid,
        version: Version,
        style: PollStyle,
        deflate: bool,
        python: bool,
    ) -> Self {
        let mut namespaces = BTreeMap::new();
        if version == Version::V3 {
            namespaces.insert(socketio::Packet::ROOT, false);
        }
        Self {
            sid,
            version,
            style,
            deflate,
            python,
            leg: Leg::Opening,
            ping_interval: Duration::MAX,
            probe: Probe::Idle,
            get: None,
            post: None,
            websocket: None,
            mute: false,
            excused: false,
            deaf: false,
            told: false,
            outbox: VecDeque::new(),
            frames: Decoder::new(Role::Client),
            packets: socketio::Decoder::new(),
            namespaces,
            owed: Vec::new(),
            next_ack: 0,
            emitted: 0,
        }
    }

    /// What the protocol makes it do now.
    pub(super) fn pump(&mut self) -> Vec<Wish> {
        let mut wishes = Vec::new();
        if self.mute {
            return wishes;
        }
        if self.leg == Leg::Polling && self.probe == Probe::Pausing {
            if self.get.is_none() && self.post.is_none() {
                wishes.push(Wish::Send(Message::Text("5".into())));
                self.leg = Leg::WebSocket;
                self.probe = Probe::Idle;
            } else {
                return wishes;
            }
        }
        match self.leg {
            Leg::Polling => {
                if self.get.is_none() {
                    wishes.push(Wish::Get);
                }
                if self.post.is_none() && !self.outbox.is_empty() && self.probe == Probe::Idle {
                    let packets: Vec<Packet> = self.outbox.drain(..).collect();
                    wishes.push(self.post_of(packets));
                }
            }
            Leg::WebSocket => {
                let outbox = std::mem::take(&mut self.outbox);
                wishes.extend(outbox.iter().map(|packet| Wish::Send(self.frame_of(packet))));
            }
            Leg::Opening | Leg::Gone => {}
        }
        wishes
    }

    fn post_of(&self, packets: Vec<Packet>) -> Wish {
        let style =
            PollStyle { base64: self.style.base64 || self.style.jsonp.is_some(), jsonp: None };
        let (body, binary) = match payload::encode(self.version, &style, packets.iter()) {
            PollBody::Text(body) => (body, false),
            PollBody::Binary(body) => (body, true),
            PollBody::Script(_) => panic!("a script to a server"),
        };
        if self.style.jsonp.is_none() {
            return Wish::Post { body, binary, packets };
        }
        // Clients escape newlines, and what looks like an escaped one.
        let text = String::from_utf8_lossy(&body).replace("\\n", "\\\\n").replace('\n', "\\n");
        let mut form = String::from("d=");
        for byte in text.bytes() {
            form += &format!("%{byte:02x}");
        }
        Wish::Post { body: form.into(), binary: false, packets }
    }

    fn frame_of(&self, packet: &Packet) -> Message {
        let payload = match self.style.base64 {
            true => ws_payload_base64(self.version, packet),
            false => ws_payload(self.version, packet),
        };
        let bytes = [payload.head, &payload.data].concat();
        match payload.opcode {
            OpCode::Binary => Message::Binary(bytes.into()),
            _ => Message::Text(bytes.try_into().expect("UTF-8")),
        }
    }

    /// Takes the answer to a request. Says what it heard.
    pub(super) fn on_response(
        &mut self,
        exchange: ExchangeId,
        response: Response,
    ) -> Vec<socketio::Packet> {
        if self.get == Some(exchange) {
            self.get = None;
        }
        if self.post == Some(exchange) {
            self.post = None;
        }
        if self.deaf {
            return Vec::new();
        }
        let body = match response {
            Response::Open { body, .. } => {
                assert_eq!(self.leg, Leg::Opening);
                self.leg = Leg::Polling;
                body
            }
            Response::Payload(body) => body,
            // Too much in one body: the client goes on with less.
            Response::Taken | Response::Status(413) => return Vec::new(),
            Response::Refused(_) | Response::Status(_) => {
                if self.leg != Leg::WebSocket {
                    self.leg = Leg::Gone;
                }
                return Vec::new();
            }
        };
        let (body, binary) = match body {
            PollBody::Text(body) => (body, false),
            PollBody::Binary(body) => (body, true),
            PollBody::Script(script) => {
                let digits = self.style.jsonp.as_deref().expect("it did not ask for a script");
                let head = format!("___eio[{digits}](");
                let literal = script.strip_prefix(head.as_bytes()).expect("its callback");
                let literal = literal.strip_suffix(b");").expect("a call");
                let text: String = serde_json::from_slice(literal).expect("one string");
                (text.into(), false)
            }
        };
        let packets =
            payload::decode(self.version, body, binary, if self.python { 16 } else { usize::MAX })
                .expect("a body");
        packets.into_iter().filter_map(|packet| self.on_packet(packet)).collect()
    }

    /// Takes bytes from its WebSocket. Says what it heard.
    pub(super) fn on_bytes(&mut self, bytes: &[u8]) -> Vec<socketio::Packet> {
        let config = DecodeConfig { max_message_bytes: usize::MAX, deflate: self.deflate };
        let mut bytes = bytes.to_vec();
        let mut input = bytes.as_mut_slice();
        let mut heard = Vec::new();
        while let Some(incoming) = self.frames.decode(&config, &mut input).expect("frames") {
            let Incoming::Message(message) = incoming else { panic!("{incoming:?}") };
            let packet = Packet::from_frame(self.version, message).expect("a packet");
            if self.leg == Leg::Gone && self.told {
                // An answer to its probe that was overtaken by the goodbye.
                assert_eq!(packet, Packet::text(PacketKind::Pong, "probe"));
                continue;
            }
            if self.leg == Leg::Polling {
                assert_eq!(packet, Packet::text(PacketKind::Pong, "probe"), "while probing");
                assert_eq!(self.probe, Probe::Asked);
                self.probe = Probe::Pausing;
                continue;
            }
            heard.extend(self.on_packet(packet));
        }
        heard
    }

    /// Its WebSocket was closed by the server. `serving` says whether the server had moved to it: if not,
    /// it closed the session while `5` was on its way, and nobody polls for what is queued.
    pub(super) fn on_closed(&mut self, transport: TransportId, serving: bool) {
        if self.websocket != Some(transport) {
            return;
        }
        self.websocket = None;
        match self.leg {
            // A failed probe: polling goes on.
            Leg::Polling => {
                self.forget_probe();
            }
            Leg::Opening | Leg::WebSocket => {
                self.leg = Leg::Gone;
                self.told = serving;
            }
            Leg::Gone => {}
        }
    }

    /// Gives up its probe, and says which WebSocket it was.
    pub(super) fn forget_probe(&mut self) -> Option<TransportId> {
        self.probe = Probe::Idle;
        self.frames = Decoder::new(Role::Client);
        self.websocket.take()
    }

    fn on_packet(&mut self, packet: Packet) -> Option<socketio::Packet> {
        assert!(!self.told, "{packet:?} after the goodbye");
        match packet.kind {
            PacketKind::Open => {
                if self.leg == Leg::Opening {
                    self.leg = Leg::WebSocket;
                }
                None
            }
            PacketKind::Ping => {
                assert_eq!(self.version, Version::V4);
                self.outbox.push_back(Packet { kind: PacketKind::Pong, data: packet.data });
                None
            }
            PacketKind::Close => {
                self.leg = Leg::Gone;
                self.told = true;
                None
            }
            PacketKind::Pong | PacketKind::Noop | PacketKind::Upgrade => None,
            PacketKind::Message => {
                let limits = bowline_proto::limit::Limits::default();
                let decoded = match packet.data {
                    Message::Text(text) => self.packets.decode_text(self.version, &limits, text),
                    Message::Binary(bytes) => self.packets.decode_binary(bytes),
                };
                let packet = decoded.expect("a Socket.IO packet")?;
                self.on_socketio(&packet);
                Some(packet)
            }
        }
    }

    fn on_socketio(&mut self, packet: &socketio::Packet) {
        let namespace = packet.namespace().clone();
        match packet {
            socketio::Packet::Connect { .. } => {
                self.namespaces.insert(namespace, true);
            }
            socketio::Packet::Disconnect { .. } | socketio::Packet::ConnectError { .. } => {
                self.namespaces.remove(&namespace);
            }
            socketio::Packet::Event { ack: Some(id), .. } => self.owed.push((namespace, *id)),
            socketio::Packet::Event { ack: None, .. } | socketio::Packet::Ack { .. } => {}
        }
    }

    fn say(&mut self, packet: &socketio::Packet) {
        let encoded = socketio::encode(Version::V4, packet);
        let text = Packet::message(Message::Text(encoded.text));
        let rest = encoded.attachments.into_iter();
        let rest = rest.map(|bytes| Packet::message(Message::Binary(bytes)));
        self.outbox.extend(std::iter::once(text).chain(rest));
    }

    /// A ping of revision 3, where clients send them.
    pub(super) fn heartbeat(&mut self) {
        if self.version == Version::V3 && self.leg != Leg::Opening {
            self.outbox.push_back(Packet::bare(PacketKind::Ping));
        }
    }

    /// Something a polite client may do at any time.
    pub(super) fn act(&mut self, rng: &mut Rng, upgrades: bool) -> Vec<Wish> {
        if self.leg == Leg::Gone || self.leg == Leg::Opening || self.mute {
            return Vec::new();
        }
        let joined: Vec<ByteString> = self
            .namespaces
            .iter()
            .filter(|(_, inside)| **inside)
            .map(|(name, _)| name.clone())
            .collect();
        match rng.below(10) {
            0 | 1 => {
                let name = *rng.pick(&["/", "/chat", "/room-1", "/room-2", "/closed", "/nowhere"]);
                let namespace = ByteString::from_static(name);
                // Of Socket.IO 4 nobody asks for the root: it has joined by itself.
                let root = self.version == Version::V3 && name == "/";
                if !root && !self.namespaces.contains_key(&namespace) {
                    self.namespaces.insert(namespace.clone(), false);
                    let auth = rng.one_in(2).then(|| ByteString::from_static("{\"token\":\"x\"}"));
                    self.say(&socketio::Packet::Connect { namespace, auth });
                }
            }
            2 if !joined.is_empty() && rng.one_in(4) => {
                let namespace = rng.pick(&joined).clone();
                self.namespaces.remove(&namespace);
                self.owed.retain(|(name, _)| *name != namespace);
                self.say(&socketio::Packet::Disconnect { namespace });
            }
            3 if !self.owed.is_empty() => {
                let at = rng.below(self.owed.len());
                let (namespace, id) = self.owed.swap_remove(at);
                if joined.contains(&namespace) {
                    let args = random_args(rng, json!(id));
                    self.say(&socketio::Packet::Ack { namespace, id, args });
                }
            }
            4 if upgrades && self.leg == Leg::Polling && self.websocket.is_none() => {
                self.probe = Probe::Asked;
                let mut wishes = vec![Wish::Attach, Wish::Send(Message::Text("2probe".into()))];
                if rng.one_in(6) {
                    wishes.push(Wish::FailProbe);
                }
                return wishes;
            }
            _ if !joined.is_empty() => {
                for _ in 0..=rng.below(3) {
                    let namespace = rng.pick(&joined).clone();
                    self.emitted += 1;
                    let args = random_args(rng, json!(self.emitted));
                    let ack = rng.one_in(2).then_some(self.next_ack);
                    self.next_ack += 1;
                    self.say(&socketio::Packet::Event { namespace, ack, args });
                }
            }
            _ => {}
        }
        Vec::new()
    }

    /// Something that ends a session, or should not harm it.
    pub(super) fn misbehave(&mut self, rng: &mut Rng) -> Vec<Wish> {
        if self.leg == Leg::Gone || self.leg == Leg::Opening {
            return Vec::new();
        }
        let raw = |text: &'static str| Packet::message(Message::Text(text.into()));
        match rng.below(14) {
            0 => {
                self.outbox.push_back(Packet::bare(PacketKind::Close));
                self.excused = true;
            }
            1 => {
                self.excused = true;
                self.mute = true;
            }
            2 => {
                self.excused = true;
                self.leg = Leg::Gone;
                let ends = self.get.take().into_iter().chain(self.post.take()).map(Wish::Abort);
                return ends.chain(self.websocket.take().map(Wish::Drop)).collect();
            }
            // A probe that goes, or says what it should not. Polling must not notice.
            3 if self.leg == Leg::Polling && self.probe == Probe::Asked => {
                return vec![Wish::FailProbe];
            }
            4 if self.leg == Leg::Polling && self.get.is_some() => {
                self.excused = true;
                self.mute = true;
                self.deaf = true;
                return vec![Wish::Get];
            }
            5 if self.leg == Leg::Polling && self.post.is_none() => return vec![Wish::PostTooBig],
            6 if self.leg == Leg::Polling && self.post.is_none() => {
                self.excused = true;
                let body = *rng.pick(&["", "abc", "9", "b!"]);
                return vec![Wish::Post { body: body.into(), binary: false, packets: Vec::new() }];
            }
            7 => {
                let packet =
                    *rng.pick(&["", "2{}", "9", "2[\"connect\"]", "511-[\"a\"]", "2abc[\"x\"]"]);
                self.outbox.push_back(raw(packet));
                self.excused = true;
            }
            8 => {
                self.outbox.push_back(raw("2/not-joined,[\"a\"]"));
                self.excused = true;
            }
            9 if self.namespaces.values().any(|inside| *inside) => {
                let name = self.namespaces.iter().find(|(_, inside)| **inside);
                let namespace = name.map(|(name, _)| name.clone()).expect("one");
                self.say(&socketio::Packet::Connect { namespace, auth: None });
                self.excused = true;
            }
            10 => {
                let kind = match self.version {
                    Version::V4 => PacketKind::Ping,
                    Version::V3 => PacketKind::Pong,
                };
                self.outbox.push_back(Packet::bare(kind));
                self.excused = true;
            }
            11 => {
                self.outbox
                    .push_back(Packet::message(Message::Binary(Bytes::from_static(b"stray"))));
                self.excused = true;
            }
            12 => {
                // Acks that nobody asked for are ignored.
                if let Some((name, true)) = self.namespaces.iter().next() {
                    let namespace = name.clone();
                    let args = random_args(rng, Value::Null);
                    self.say(&socketio::Packet::Ack { namespace, id: 1 << 40, args });
                }
            }
            _ => {}
        }
        Vec::new()
    }
}

/// Arguments that begin with a name and a mark, sometimes with attachments, sometimes large.
pub(super) fn random_args(rng: &mut Rng, mark: Value) -> Args {
    let mut values = vec![json!(*rng.pick(&["msg", "é😀", "m\nx"])), mark];
    if rng.one_in(8) {
        values.push(json!("x".repeat(rng.below(3_000))));
    }
    let count = if rng.one_in(4) { 1 + rng.below(3) } else { 0 };
    let attachments: Vec<Bytes> = (0..count).map(|_| rng.bytes(40).into()).collect();
    values.extend((0..count).map(Args::placeholder));
    let json = Args::from_values(&values).json().clone();
    Args::with_attachments(json, attachments).expect("arguments")
}
