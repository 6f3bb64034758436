//! The network between clients and shards: what is on its way, and what becomes of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bowline_proto::{
    ExchangeId, Sid, Time, TransportId,
    client::{self, Client, HttpRequest, RequestId},
    engineio::{Packet, PollStyle, Version, ws_payload},
    wall::{Handshake, Input, Lost, Origin, PollBody, PostBody, Response},
    websocket::{DecodeConfig, Decoder, Incoming, Message, OpCode, Role},
};
use bytes::Bytes;

use super::{
    device::Device,
    handlers::Answers,
    model::LifeId,
    script::{Kind, Latency},
    world::{Parcel, World},
};
use crate::rng::Rng;

/// One connection of a client to the server: a session, from the first request on.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) device: usize,
    /// The process and the shard where it arrived.
    pub(super) process: u64,
    pub(super) shard: u8,
    /// Its Engine.IO sid.
    pub(super) sid: Sid,
    /// Its client, until that has given it up.
    pub(super) client: Option<Client>,
    pub(super) version: Version,
    pub(super) rng: Rng,
    /// Whether anything passes.
    up: bool,
    down: bool,
    /// When the last thing on the WebSocket arrives: it keeps the order.
    up_until: Time,
    down_until: Time,
    /// Nothing arrives before this time.
    stalled_until: Time,
    backlog: usize,
    /// The WebSocket that was opened last.
    websocket: Option<TransportId>,
    /// How many more packets reach the client before it is cut.
    packets_left: Option<usize>,
    deafen: Option<Duration>,
    repeat: Option<bool>,
    /// Whether its handshake has been taken, and when.
    pub(super) opened: bool,
    pub(super) opened_at: u64,
    /// Whether the network has lost anything, or kept anything back for long.
    pub(super) harmed: bool,
    pub(super) delayed: bool,
    /// What was sent and is not known to have arrived.
    flight: Vec<(LifeId, u64)>,
    /// How much of it stands before the last ping.
    pinged: Option<usize>,
    /// Acks that its client owes, by namespace and id: the number of the event.
    pub(super) owed: BTreeMap<(usize, u64), u64>,
    /// What handlers' answers to its requests need.
    pub(super) answers: Answers,
}

/// What a shell knows of a WebSocket.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) line: u64,
    /// Whether the hub may send to it.
    pub(super) open: bool,
    /// Whether it serves the session; before that it is a probe.
    pub(super) serves: bool,
    frames: Decoder,
}

/// One request, as the shell numbers it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) line: u64,
    /// Whose answer the client waits for; none if a proxy lost interest.
    request: Option<RequestId>,
    is_get: bool,
    arrived: bool,
    answered: bool,
}

/// Whether the server takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    Draining,
}

/// What arrives at a shard.
#[derive(Debug, Clone)]
pub(super) enum Upward {
    Open(ExchangeId),
    Get(ExchangeId, Stamp),
    Post(ExchangeId, Bytes, bool, Stamp),
    OpenWebSocket(TransportId),
    Attach(TransportId),
    Message(TransportId, Message),
    Closed(TransportId),
    /// A proxy gives up a request.
    Aborted(ExchangeId),
}

/// What a client puts into a request so that it is like no other, and whether a proxy has repeated it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    timestamp: Option<u64>,
    again: bool,
}

/// What arrives at a client.
#[derive(Debug, Clone)]
pub(super) enum Downward {
    Response(RequestId, client::Response),
    Opened,
    Message(Message),
    Closed,
}

impl Line {
    pub(super) fn new(
        device: usize,
        (process, shard): (u64, u8),
        sid: Sid,
        client: Client,
        version: Version,
        rng: Rng,
    ) -> Self {
        Self {
            device,
            process,
            shard,
            sid,
            client: Some(client),
            version,
            rng,
            up: true,
            down: true,
            up_until: Time::ZERO,
            down_until: Time::ZERO,
            stalled_until: Time::ZERO,
            backlog: 0,
            websocket: None,
            packets_left: None,
            deafen: None,
            repeat: None,
            opened: false,
            opened_at: 0,
            harmed: false,
            delayed: false,
            flight: Vec::new(),
            pinged: None,
            owed: BTreeMap::new(),
            answers: Answers::default(),
        }
    }

    fn delay(&mut self, latency: Latency) -> Duration {
        let micros = match latency {
            Latency::Near => 100 + self.rng.word() % 5_000,
            Latency::Far => 30_000 + self.rng.word() % 200_000,
            Latency::Jumpy if self.rng.one_in(20) => self.rng.word() % 2_000_000,
            Latency::Jumpy => 100 + self.rng.word() % 40_000,
        };
        Duration::from_micros(micros)
    }
}

/// What a client says of itself when it opens a session.
pub(super) fn handshake(device: &Device, index: usize, line: u64) -> Arc<Handshake> {
    let profile = &device.profile;
    let mut headers = vec![("host".to_owned(), "example.com".to_owned())];
    let mut header = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    match profile.kind {
        Kind::Browser => header("user-agent", "Mozilla/5.0 (X11)"),
        Kind::Fetches => header("sec-fetch-mode", "cors"),
        Kind::Asks | Kind::Cookie | Kind::Plain => header("user-agent", "NotMozilla/5.0 Mozilla/"),
    }
    match profile.kind {
        Kind::Plain => {}
        // Tabs of one browser share their cookies.
        Kind::Browser | Kind::Fetches if profile.version == Version::V4 => {
            header("cookie", "device=tabs");
        }
        Kind::Browser | Kind::Fetches | Kind::Asks | Kind::Cookie => {
            header("cookie", &format!("a=b; device={}; c=d", device.name));
        }
    }
    Arc::new(Handshake {
        version: profile.version,
        poll_style: PollStyle::default(),
        query: format!("device={index}&line={line}"),
        headers,
        address: None,
        own: false,
    })
}

impl World<'_> {
    /// Carries out what a client wants of its network.
    pub(super) fn send_request(&mut self, number: u64, request: HttpRequest) {
        let latency = self.latency();
        let Some(line) = self.lines.get_mut(&number) else { return };
        let repeat = if line.opened { line.repeat.take() } else { None };
        let delay = line.delay(latency);
        // Without a timestamp nobody can tell a repeated request from another.
        let timestamp = match repeat {
            Some(true) if line.rng.one_in(2) => None,
            Some(_) | None => Some(request.id.0),
        };
        let make = |exchange, again| {
            let stamp = Stamp { timestamp, again };
            match request.content() {
                Some((kind, bytes)) => {
                    let binary = kind == "application/octet-stream";
                    Upward::Post(exchange, bytes.clone(), binary, stamp)
                }
                None if request.target.contains("&sid=") => Upward::Get(exchange, stamp),
                None => Upward::Open(exchange),
            }
        };
        let is_get = request.body.is_none();
        let Some(told) = repeat else {
            let exchange = self.new_exchange(number, Some(request.id), is_get);
            self.post(delay, Parcel::Up(number, make(exchange, false)));
            return;
        };
        line.harmed = true;
        let later = delay + Duration::from_millis(line.rng.word() % 300);
        let lost = self.new_exchange(number, None, is_get);
        let again = self.new_exchange(number, Some(request.id), is_get);
        self.post(delay, Parcel::Up(number, make(lost, false)));
        if told {
            self.post(later, Parcel::Up(number, Upward::Aborted(lost)));
        }
        self.post(later, Parcel::Up(number, make(again, true)));
    }

    fn new_exchange(&mut self, line: u64, request: Option<RequestId>, is_get: bool) -> ExchangeId {
        self.ids += 1;
        let id = ExchangeId(self.ids);
        self.exchanges
            .insert(id, Exchange { line, request, is_get, arrived: false, answered: false });
        id
    }

    pub(super) fn open_websocket(&mut self, number: u64, target: &str) {
        let latency = self.latency();
        self.ids += 1;
        let transport = TransportId(self.ids);
        let serves = !target.contains("&sid=");
        let interval = self.script.setup.ping_interval.min(Duration::from_secs(3));
        let Some(line) = self.lines.get_mut(&number) else { return };
        line.websocket = Some(transport);
        let mut delay = line.delay(latency);
        if !serves && line.rng.one_in(3) {
            // Long enough for a ping to come first.
            let most = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            delay += Duration::from_millis(line.rng.word() % (2 * most));
        }
        line.up_until = self.now + delay;
        line.down_until = Time::ZERO;
        let upward = match serves {
            true => Upward::OpenWebSocket(transport),
            false => Upward::Attach(transport),
        };
        let frames = Decoder::new(Role::Client);
        self.transports.insert(transport, Transport { line: number, open: false, serves, frames });
        self.post(delay, Parcel::Up(number, upward));
    }

    pub(super) fn send_packet(&mut self, number: u64, packet: &Packet) {
        let Some(line) = self.lines.get(&number) else { return };
        let Some(transport) = line.websocket else { return };
        let payload = ws_payload(line.version, packet);
        let bytes = [payload.head, &payload.data].concat();
        let message = match payload.opcode {
            OpCode::Binary => Message::Binary(bytes.into()),
            _ => Message::Text(bytes.try_into().expect("UTF-8")),
        };
        self.send_up(number, Upward::Message(transport, message));
    }

    pub(super) fn close_websocket(&mut self, number: u64) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        if let Some(transport) = line.websocket.take() {
            self.send_up(number, Upward::Closed(transport));
        }
    }

    /// Something on the WebSocket, which keeps its order.
    fn send_up(&mut self, number: u64, upward: Upward) {
        let latency = self.latency();
        let now = self.now;
        let Some(line) = self.lines.get_mut(&number) else { return };
        let at = (now + line.delay(latency)).max(line.up_until);
        line.up_until = at;
        self.post(at - now, Parcel::Up(number, upward));
    }

    fn send_down(&mut self, number: u64, downward: Downward) {
        let latency = self.latency();
        let now = self.now;
        let Some(line) = self.lines.get_mut(&number) else { return };
        let at = (now + line.delay(latency)).max(line.down_until).max(line.stalled_until);
        line.down_until = at;
        self.post(at - now, Parcel::Down(number, downward));
    }

    /// Something arrives at a shard.
    pub(super) fn arrive_up(&mut self, number: u64, upward: Upward) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        if !line.up {
            return;
        }
        let opens = matches!(upward, Upward::Open(_) | Upward::OpenWebSocket(_));
        let refuses = self.stage == Stage::Draining && opens;
        if refuses || line.process != self.process {
            self.refuse(number, upward);
            return;
        }
        if !line.opened {
            line.opened_at = self.model.tick;
        }
        let (shard, session, index) = (line.shard, line.sid, line.device);
        let device = &self.devices[index];
        let input = match upward {
            Upward::Open(exchange) => {
                if std::mem::replace(&mut line.opened, true) {
                    // Repeated by a proxy: a session more, which nobody uses.
                    return;
                }
                let handshake = handshake(device, index, number);
                self.has_arrived(exchange);
                Input::Open { id: session, origin: Origin::Polling(exchange), handshake }
            }
            Upward::OpenWebSocket(transport) => {
                line.opened = true;
                if let Some(it) = self.transports.get_mut(&transport) {
                    it.open = true;
                }
                let origin = Origin::WebSocket { transport, deflate: false };
                let handshake = handshake(device, index, number);
                self.send_down(number, Downward::Opened);
                Input::Open { id: session, origin, handshake }
            }
            Upward::Attach(transport) => {
                if let Some(it) = self.transports.get_mut(&transport) {
                    it.open = true;
                }
                self.send_down(number, Downward::Opened);
                Input::Attach { transport, session, deflate: false }
            }
            Upward::Get(exchange, Stamp { timestamp, again }) => {
                self.on_get(number, exchange, again);
                Input::Get { exchange, session, timestamp }
            }
            Upward::Post(exchange, body, binary, Stamp { timestamp, .. }) => {
                self.has_arrived(exchange);
                let body = PostBody::Whole { body, binary };
                Input::Post { exchange, session, body, timestamp }
            }
            Upward::Message(transport, message) => {
                if !self.is_open(transport) {
                    return;
                }
                self.on_message(number, transport, &message);
                Input::Message { transport, message }
            }
            Upward::Closed(transport) => {
                if !self.close_transport(transport) {
                    return;
                }
                Input::Lost { transport, why: Lost::Closed }
            }
            Upward::Aborted(exchange) => {
                self.exchanges.remove(&exchange);
                Input::Aborted { exchange }
            }
        };
        self.feed(shard, input);
    }

    fn has_arrived(&mut self, exchange: ExchangeId) {
        if let Some(it) = self.exchanges.get_mut(&exchange) {
            it.arrived = true;
        }
    }

    /// Nobody listens.
    fn refuse(&mut self, number: u64, upward: Upward) {
        match upward {
            Upward::Open(exchange) | Upward::Get(exchange, _) | Upward::Post(exchange, ..) => {
                if let Some(request) = self.exchanges.remove(&exchange).and_then(|it| it.request) {
                    let failed = client::Response::Failed { detail: "refused".to_owned() };
                    self.send_down(number, Downward::Response(request, failed));
                }
            }
            Upward::OpenWebSocket(_) | Upward::Attach(_) => {
                self.send_down(number, Downward::Closed);
            }
            Upward::Message(..) | Upward::Closed(_) | Upward::Aborted(_) => {}
        }
    }

    /// A poll proves that the one before it has arrived.
    fn on_get(&mut self, number: u64, exchange: ExchangeId, again: bool) {
        let pending = self.exchanges.values().any(|it| it.line == number && it.is_waiting_get());
        self.has_arrived(exchange);
        let Some(line) = self.lines.get_mut(&number) else { return };
        let hub = &self.shards[usize::from(line.shard)].hub;
        let proves = line.version == Version::V4 && !pending && !again;
        if proves && hub.session_transport(line.sid).is_some() {
            for (life, event) in line.flight.drain(..) {
                self.model.on_confirmed(life, event);
            }
        }
        self.exchanges.retain(|_, it| !(it.line == number && it.is_get && it.answered));
    }

    /// A pong proves that what stands before its ping has arrived; the switch to a WebSocket proves
    /// nothing.
    fn on_message(&mut self, number: u64, transport: TransportId, message: &Message) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        let Some(it) = self.transports.get_mut(&transport) else { return };
        let Message::Text(text) = message else { return };
        if !it.serves {
            if *text == "5" {
                it.serves = true;
                line.flight.clear();
                line.pinged = None;
            }
        } else if *text == "3"
            && line.version == Version::V4
            && let Some(count) = line.pinged.take()
        {
            for (life, event) in line.flight.drain(..count) {
                self.model.on_confirmed(life, event);
            }
        }
    }

    pub(super) fn is_open(&self, transport: TransportId) -> bool {
        self.transports.get(&transport).is_some_and(|it| it.open)
    }

    fn close_transport(&mut self, transport: TransportId) -> bool {
        self.transports.get_mut(&transport).is_some_and(|it| std::mem::replace(&mut it.open, false))
    }

    /// The hub has answered a request.
    pub(super) fn respond(&mut self, exchange: ExchangeId, response: Response) {
        let latency = self.latency();
        let Some(it) = self.exchanges.get_mut(&exchange) else {
            panic!("an answer to a request that nobody made, or twice: {exchange:?}")
        };
        assert!(!it.answered, "{exchange:?} is answered twice");
        it.answered = true;
        let (number, request) = (it.line, it.request);
        let (status, body) = match response {
            Response::Open { body, .. } | Response::Payload(body) => (200, body),
            Response::Taken => (200, PollBody::Text(Bytes::from_static(b"ok"))),
            Response::Refused(error) => {
                (error.status(), PollBody::Text(error.json().into_bytes().into()))
            }
            Response::Status(status) => (status, PollBody::Text(Bytes::new())),
        };
        let (body, binary) = match body {
            PollBody::Text(body) | PollBody::Script(body) => (body, false),
            PollBody::Binary(body) => (body, true),
        };
        if !it.is_get {
            self.exchanges.remove(&exchange);
        } else if status == 200 {
            self.on_body(number, &body);
        }
        let Some(request) = request else { return };
        let Some(line) = self.lines.get_mut(&number) else { return };
        let mut at = (self.now + line.delay(latency)).max(line.stalled_until);
        if line.websocket.is_some() && line.rng.one_in(3) {
            // An answer that is overtaken by its successor on the WebSocket.
            at += Duration::from_millis(line.rng.word() % 1_000);
        }
        let response = client::Response::Answered { status, body, binary };
        let downward = Downward::Response(request, response);
        self.post(at - self.now, Parcel::Down(number, downward));
    }

    /// What stands in a polling body is sent.
    fn on_body(&mut self, number: u64, body: &[u8]) {
        let version = self.lines.get(&number).map(|line| line.version);
        if version == Some(Version::V4) {
            for packet in body.split(|byte| *byte == 0x1e) {
                self.on_packet_sent(number, packet);
            }
        } else {
            self.on_packet_sent(number, body);
        }
        // A pong says nothing of polling bodies that the next poll does not say too.
        if let Some(line) = self.lines.get_mut(&number) {
            line.pinged = None;
        }
    }

    /// The hub sends a frame, which may be several.
    pub(super) fn send_frame(&mut self, transport: TransportId, frame: &Bytes) {
        let Some(it) = self.transports.get_mut(&transport) else {
            panic!("sent to {transport:?}, which there never was")
        };
        assert!(it.open, "sent to {transport:?}, which has gone");
        let (number, serves) = (it.line, it.serves);
        let mut bytes = frame.to_vec();
        let mut input = bytes.as_mut_slice();
        let mut messages = Vec::new();
        while let Some(incoming) = it.frames.decode(&WEBSOCKET, &mut input).expect("frames") {
            let Incoming::Message(message) = incoming else { panic!("{incoming:?}") };
            messages.push(message);
        }
        for message in messages {
            // An attachment is no packet: one that reads `2` is not a ping.
            if serves && let Message::Text(text) = &message {
                self.on_packet_sent(number, text.as_bytes());
                self.check_holder(number, text.as_bytes());
            }
            self.send_down(number, Downward::Message(message));
        }
        let now = self.now;
        let Some(line) = self.lines.get_mut(&number) else { return };
        if line.stalled_until > now {
            line.backlog += frame.len();
            self.backlogs.insert(transport);
        }
    }

    /// Only who holds a socket is sent its events. What a poll takes may be from before.
    fn check_holder(&self, number: u64, packet: &[u8]) {
        let text = String::from_utf8_lossy(packet);
        for (namespace, event) in events_in(&text) {
            let life = self.life_on(number, namespace).map(|life| self.model.life(life));
            let held = life.is_some_and(|life| life.line == number);
            assert!(held, "{event} is sent on {number}, which does not hold its socket any more");
        }
    }

    /// Tells the hub how far sockets lag.
    pub(super) fn say_backlogs(&mut self, shard: u8) {
        let mut due = std::mem::take(&mut self.backlogs);
        while let Some(transport) = due.pop_first() {
            let Some(it) = self.transports.get(&transport) else { continue };
            let Some(line) = self.lines.get(&it.line) else { continue };
            if line.shard != shard {
                self.backlogs.insert(transport);
            } else if it.open {
                let bytes = line.backlog;
                self.feed(shard, Input::Backlog { transport, bytes });
            }
        }
    }

    /// Notes what was sent: events of lives, pings.
    fn on_packet_sent(&mut self, number: u64, packet: &[u8]) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        if packet == b"2" {
            line.pinged = Some(line.flight.len());
            return;
        }
        let text = String::from_utf8_lossy(packet).into_owned();
        if let Some((namespace, sid)) = connect_in(&text) {
            self.on_connect_sent(number, namespace, sid);
        }
        for (namespace, event) in events_in(&text) {
            let Some(life) = self.life_on(number, namespace) else {
                panic!("{event} is sent on {number} before it was let in")
            };
            self.model.on_sent(life, event);
            if let Some(line) = self.lines.get_mut(&number) {
                line.flight.push((life, event));
            }
        }
    }

    /// Something arrives at a client.
    pub(super) fn arrive_down(&mut self, number: u64, downward: Downward) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        if !line.down {
            return;
        }
        let packets = match &downward {
            Downward::Message(_) | Downward::Response(..) => 1,
            Downward::Opened | Downward::Closed => 0,
        };
        if let Some(left) = &mut line.packets_left {
            if *left < packets {
                line.packets_left = None;
                self.cut(number);
                return;
            }
            *left -= packets;
        }
        let pinged = match &downward {
            Downward::Message(Message::Text(text)) => *text == "2",
            Downward::Response(_, client::Response::Answered { body, .. }) => {
                body.split(|byte| *byte == 0x1e).any(|packet| packet == b"2")
            }
            Downward::Message(_) | Downward::Response(..) | Downward::Opened | Downward::Closed => {
                false
            }
        };
        if pinged && let Some(cut_after) = line.deafen.take() {
            line.down = false;
            line.harmed = true;
            self.post(cut_after, Parcel::CutLine(number));
        }
        let input = match downward {
            Downward::Response(id, response) => client::Input::Response { id, response },
            Downward::Opened => client::Input::WebSocketOpened,
            Downward::Message(message) => client::Input::Message(message),
            Downward::Closed => {
                client::Input::WebSocketLost { why: Lost::Closed, detail: String::new() }
            }
        };
        self.tell_client(number, input);
    }

    /// The hub closes a WebSocket.
    pub(super) fn on_close(&mut self, transport: TransportId) {
        let Some(it) = self.transports.get_mut(&transport) else { return };
        assert!(it.open, "{transport:?} is closed twice");
        it.open = false;
        let number = it.line;
        if self.lines.get(&number).is_some_and(|line| line.websocket == Some(transport)) {
            self.send_down(number, Downward::Closed);
        }
    }

    /// The connection breaks: nothing passes any more, and both ends will be told.
    pub(super) fn cut(&mut self, number: u64) {
        self.silence(number);
        let Some(line) = self.lines.get_mut(&number) else { return };
        let (here, there) = (line.rng.word() % 200, line.rng.word() % 200);
        self.post(Duration::from_millis(here), Parcel::ClientNotices(number));
        self.post(Duration::from_millis(there), Parcel::ShardNotices(number));
    }

    /// Nothing passes any more, and nobody is told.
    pub(super) fn silence(&mut self, number: u64) {
        if let Some(line) = self.lines.get_mut(&number) {
            (line.up, line.down) = (false, false);
            line.harmed = true;
        }
    }

    pub(super) fn client_notices(&mut self, number: u64) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        let detail = "the connection was cut".to_owned();
        let requests = self.exchanges.values().filter(|it| it.line == number);
        let requests = requests.filter_map(|it| it.request).collect::<Vec<_>>();
        if line.websocket.is_some() {
            let input = client::Input::WebSocketLost { why: Lost::Failed, detail: detail.clone() };
            self.tell_client(number, input);
        }
        for id in requests {
            let response = client::Response::Failed { detail: detail.clone() };
            self.tell_client(number, client::Input::Response { id, response });
        }
    }

    pub(super) fn shard_notices(&mut self, number: u64) {
        let Some(line) = self.lines.get(&number).filter(|it| it.process == self.process) else {
            return;
        };
        let shard = line.shard;
        let transports = self.transports.iter().filter(|(_, it)| it.line == number && it.open);
        for transport in transports.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.close_transport(transport) {
                self.feed(shard, Input::Lost { transport, why: Lost::Failed });
            }
        }
        let exchanges = self.exchanges.iter().filter(|(_, it)| it.line == number && it.arrived);
        for exchange in exchanges.map(|(id, _)| *id).collect::<Vec<_>>() {
            // The answer may have been taken by a proxy, which says nothing.
            let heard = self.exchanges.get(&exchange).is_some_and(|it| !it.answered);
            if heard || self.lines.get_mut(&number).is_some_and(|line| line.rng.one_in(2)) {
                self.exchanges.remove(&exchange);
                self.feed(shard, Input::Aborted { exchange });
            }
        }
    }

    pub(super) fn cut_after(&mut self, number: u64, packets: usize) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.packets_left = Some(packets);
        }
    }

    pub(super) fn deafen_after_ping(&mut self, number: u64, cut_after: Duration) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.deafen = Some(cut_after);
        }
    }

    pub(super) fn stall(&mut self, number: u64, for_: Duration) {
        let until = self.now + for_;
        if let Some(line) = self.lines.get_mut(&number) {
            line.stalled_until = line.stalled_until.max(until);
            line.delayed = true;
            self.post(for_, Parcel::Unstalled(number));
        }
    }

    pub(super) fn unstalled(&mut self, number: u64) {
        let now = self.now;
        let Some(line) = self.lines.get_mut(&number) else { return };
        if line.stalled_until > now || line.backlog == 0 {
            return;
        }
        line.backlog = 0;
        let (shard, websocket) = (line.shard, line.websocket);
        if let Some(transport) = websocket.filter(|it| self.is_open(*it)) {
            self.feed(shard, Input::Backlog { transport, bytes: 0 });
        }
    }

    pub(super) fn repeat_next(&mut self, number: u64, told: bool) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.repeat = Some(told);
        }
    }

    /// No faults from now on, on what still works.
    pub(super) fn calm(&mut self) {
        for line in self.lines.values_mut() {
            (line.packets_left, line.deafen, line.repeat) = (None, None, None);
        }
    }

    fn latency(&self) -> Latency {
        if self.quiet { Latency::Near } else { self.script.setup.latency }
    }

    /// The last words of a client whose poll failed: an engine close for its old session.
    pub(super) fn say_goodbye(&mut self, number: u64) {
        let latency = self.latency();
        let exchange = self.new_exchange(number, None, false);
        let Some(line) = self.lines.get_mut(&number) else { return };
        // By a connection of its own.
        line.up = true;
        let delay = line.delay(latency);
        let body = Bytes::from_static(b"1");
        let stamp = Stamp { timestamp: None, again: false };
        self.post(delay, Parcel::Up(number, Upward::Post(exchange, body, false, stamp)));
    }

    /// The server stops: what it still holds of connections goes.
    pub(super) fn drop_connections(&mut self) {
        for transport in self.transports.values_mut() {
            transport.open = false;
        }
        self.backlogs.clear();
        // Those that are on their way are refused by the next process.
        self.exchanges.retain(|_, it| !it.arrived);
        let left: Vec<u64> = self.lines.keys().copied().collect();
        for number in left {
            self.silence(number);
            if self.lines.get(&number).is_some_and(|line| line.client.is_some()) {
                self.post(Duration::from_millis(50), Parcel::ClientNotices(number));
            }
        }
    }
}

impl Exchange {
    fn is_waiting_get(&self) -> bool {
        self.is_get && self.arrived && !self.answered
    }
}

const WEBSOCKET: DecodeConfig = DecodeConfig { max_message_bytes: usize::MAX, deflate: false };

/// The namespace and the sid of a CONNECT packet in an Engine.IO packet.
fn connect_in(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("40")?;
    let at = rest.find('{')?;
    let namespace = rest[..at].strip_suffix(',').unwrap_or("/");
    let sid = rest[at..].split_once("\"sid\":\"")?.1;
    Some((namespace, sid.split_once('"')?.0))
}

/// The namespaces and the numbers of the events in some text. All events of a world look like
/// `["e",17,…]`, and nothing else does.
pub(super) fn events_in(text: &str) -> Vec<(&str, u64)> {
    let mut found = Vec::new();
    for (at, mark) in text.match_indices("[\"e\",") {
        let digits = text[at + mark.len()..].split(|c: char| !c.is_ascii_digit()).next();
        let Some(number) = digits.and_then(|digits| digits.parse().ok()) else { continue };
        let head = &text[..at];
        let start = head.rfind(|c: char| !(c.is_ascii_alphanumeric() || "/,-".contains(c)));
        let head =
            &head[start.map_or(0, |it| it + head[it..].chars().next().map_or(1, char::len_utf8))..];
        let namespace = match (head.find('/'), head.rfind(',')) {
            (Some(slash), Some(comma)) if slash < comma => &head[slash..comma],
            _ => "/",
        };
        found.push((namespace, number));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_in_what_is_sent() {
        let text = "42[\"e\",3]\u{1e}451-/never,[\"e\",12,{}]\u{1e}42/a,7[\"e\",4]";
        assert_eq!(events_in(text), [("/", 3), ("/never", 12), ("/a", 4)]);
        assert_eq!(connect_in("40/a,{\"sid\":\"x\",\"pid\":\"y\"}"), Some(("/a", "x")));
        assert_eq!(connect_in("40{\"sid\":\"x\"}"), Some(("/", "x")));
        assert_eq!(connect_in("40/a"), None);
    }
}
