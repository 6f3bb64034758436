//! A seeded world around one hub: clients polite and rude, a network that delays, handlers that do as
//! they please, and a clock that is only a number.
//!
//! Every input is also shown to a model, which says what the handlers must be told at
//! once and what each client must hear in the end. Checked throughout:
//!
//! - handlers are told exactly what the model says, in its order; no session ends for any other reason;
//! - a client hears what it is due, each thing once, in order; nothing is missing when it is told goodbye,
//!   nor when the world comes to rest;
//! - every request is answered once; nothing is sent to a WebSocket that has gone;
//! - at the end, when all clients have gone silent, every session and every timer goes away.

mod client;
mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use bowline_proto::{
    Command, ExchangeId, Hub, Input, Output, Sid, SocketKey, Time, TransportId,
    engineio::{Packet, PollStyle, Version},
    hub::{Config, Keeping, NamespacePattern, NamespaceRule, Stamp},
    limit::{LimitKey, Limits},
    wall::{
        AckError, AckRequest, Broadcast, DisconnectReason, Event, Handshake, Lost, Origin,
        PollBody, PostBody, Response,
    },
    websocket::Message,
};
use bytes::Bytes;
use bytestring::ByteString;
use serde_json::json;

use crate::rng::Rng;
use client::{Client, Leg, Wish, random_args};
use model::{Expected, Model, Told};

/// What happened in a world, or in many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inputs the hub was given.
    pub inputs: u64,
    /// Sessions that opened.
    pub sessions: u64,
    /// Upgrades that were finished.
    pub upgrades: u64,
    /// Packets that clients heard.
    pub heard: u64,
    /// Events that handlers were told.
    pub told: u64,
    /// Broadcasts, and the sockets they reached.
    pub broadcasts: u64,
    /// Sockets that broadcasts reached.
    pub reached: u64,
    /// Acks that handlers were told of, in time or not.
    pub acks: u64,
    /// Sessions that were cut because they took too little.
    pub cuts: u64,
    /// Sessions that were still alive at rest.
    pub survivors: u64,
}

impl Counts {
    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.sessions += other.sessions;
        self.upgrades += other.upgrades;
        self.heard += other.heard;
        self.told += other.told;
        self.broadcasts += other.broadcasts;
        self.reached += other.reached;
        self.acks += other.acks;
        self.cuts += other.cuts;
        self.survivors += other.survivors;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} inputs, {} sessions ({} upgraded, {} alive at rest), {} packets heard, {} events told, \
             {} broadcasts to {} sockets, {} acks, {} cut",
            self.inputs,
            self.sessions,
            self.upgrades,
            self.survivors,
            self.heard,
            self.told,
            self.broadcasts,
            self.reached,
            self.acks,
            self.cuts,
        )
    }
}

/// Runs the world of `seed` to its end. With `trace` every step is handed to it as a line.
///
/// # Panics
///
/// If the hub does anything else than it must.
pub fn run(seed: u64, trace: Option<&mut dyn FnMut(String)>) -> Counts {
    let mut world = World::new(seed, trace);
    world.play();
    world.rest();
    world.fall_silent();
    world.counts.upgrades = world.hub.stats().upgraded;
    world.counts.cuts = world.cuts;
    world.counts
}

/// What arrives, when its time has come.
#[derive(Debug)]
enum Parcel {
    /// A client comes.
    Arrival,
    /// A client does something.
    Act(usize),
    /// A client of revision 3 pings.
    Heartbeat(usize),
    /// A handler does something.
    Whim,
    /// The configuration changes.
    Configure,
    /// A handler has made up its mind.
    Later(Command),
    TurnEnd,
    Open(usize),
    Get(usize, ExchangeId),
    Post(usize, ExchangeId, PostBody, Vec<Packet>),
    PostBegun(usize, ExchangeId),
    Attach(usize, TransportId),
    Message(usize, TransportId, Message),
    Lost(usize, TransportId),
    Aborted(usize, ExchangeId),
    Response(usize, ExchangeId, Response),
    Bytes(usize, TransportId, Bytes),
    Closed(usize, TransportId, bool),
}

/// How a WebSocket stands, as the shell knows it.
#[derive(Debug)]
struct Socket {
    client: usize,
    /// Whether the hub may send to it: it is known there, and was neither closed nor lost.
    open: bool,
    /// Whether the session has moved to it; before that it is a probe.
    serving: bool,
    /// When the last thing on its way to the hub, and to the client, arrives: order is kept.
    up: Time,
    down: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Post,
}

struct World<'a> {
    rng: Rng,
    /// Who changes the configuration, if anybody does.
    operator: Option<Rng>,
    now: Time,
    hub: Hub,
    config: Config,
    model: Model,
    clients: Vec<Client>,
    parcels: BTreeMap<(Time, u64), Parcel>,
    numbers: u64,
    sockets: BTreeMap<TransportId, Socket>,
    /// Requests the hub knows of and has not answered.
    unanswered: BTreeMap<ExchangeId, (usize, Method)>,
    /// Requests whose body the hub was told to expect.
    begun: BTreeSet<ExchangeId>,
    /// Requests whose client has gone: they must not be answered.
    aborted: BTreeSet<ExchangeId>,
    /// The poll of each client that was answered last, until the next one.
    last_answered: BTreeMap<usize, ExchangeId>,
    /// Polls that were answered with packets.
    polls_answered: BTreeSet<ExchangeId>,
    rooms: Vec<ByteString>,
    turn_end_due: bool,
    /// One act in so many breaks a rule.
    rudeness: usize,
    /// Clients whose polls were answered since the queues were looked at.
    answered: Vec<usize>,
    /// Receivers that were too slow.
    cuts: u64,
    /// Sessions without sockets that ended by a timer, for whatever reason.
    silent_deaths: u64,
    quiet: bool,
    trace: Option<&'a mut dyn FnMut(String)>,
    counts: Counts,
}

impl<'a> World<'a> {
    fn new(seed: u64, trace: Option<&'a mut dyn FnMut(String)>) -> Self {
        let mut rng = Rng::new(seed);
        let rule = |pattern: &str, handler| NamespaceRule {
            pattern: NamespacePattern::new(pattern),
            handler,
            // Who comes back is played by the world of continuity.
            keeping: Keeping { stamp: Stamp::Never, ..Keeping::default() },
        };
        let config = Config {
            ping_interval: Duration::from_millis(500 + rng.word() % 25_000),
            ping_timeout: LONGEST_PING_TIMEOUT,
            upgrades: !rng.one_in(4),
            limits: Limits {
                queued_bytes_per_session: *rng.pick(&[4_194_304, 4_194_304, 4_000]),
                ..Limits::default()
            },
            namespaces: vec![
                rule("/", 0),
                rule("/chat", 1),
                rule("/closed", 2),
                rule("/room-*", 3),
            ],
            ..Config::default()
        };
        let hub = Hub::new(config.clone(), [3; 16]);
        let mut world = Self {
            rng,
            operator: None,
            now: Time::ZERO,
            hub,
            config,
            model: Model::default(),
            clients: Vec::new(),
            parcels: BTreeMap::new(),
            numbers: 0,
            sockets: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            begun: BTreeSet::new(),
            aborted: BTreeSet::new(),
            last_answered: BTreeMap::new(),
            polls_answered: BTreeSet::new(),
            rooms: ["a", "b", "c", "é"].map(ByteString::from_static).to_vec(),
            turn_end_due: false,
            rudeness: 30,
            answered: Vec::new(),
            cuts: 0,
            silent_deaths: 0,
            quiet: false,
            trace,
            counts: Counts::default(),
        };
        world.rudeness = *world.rng.pick(&[20, 100, 1_000_000]);
        for _ in 0..2 + world.rng.below(20) {
            let delay = Duration::from_millis(world.rng.word() % 3_000);
            world.post(delay, Parcel::Arrival);
        }
        world.post(Duration::ZERO, Parcel::Whim);
        // Not in all, so that those that once failed happen as they did.
        if seed % 4 == 1 {
            world.operator = Some(Rng::new(!seed));
            world.post(Duration::from_secs(1), Parcel::Configure);
        }
        world
    }

    /// The configuration changes. Clients keep the heartbeat they were told: one that is held to
    /// another is dropped though it keeps the protocol.
    fn configure(&mut self) {
        let Some(operator) = &mut self.operator else { return };
        if self.quiet {
            return;
        }
        let seconds = |seconds| Duration::from_secs(seconds);
        self.config.ping_interval = *operator.pick(&[seconds(1), seconds(25)]);
        self.config.ping_timeout = *operator.pick(&[seconds(8), LONGEST_PING_TIMEOUT]);
        let delay = Duration::from_millis(operator.word() % 20_000);
        self.feed(Input::Configure(Box::new(self.config.clone())), Expected::default());
        self.post(delay, Parcel::Configure);
    }

    /// The restless part.
    fn play(&mut self) {
        let steps = 300 + self.rng.below(4_000);
        for _ in 0..steps {
            if !self.step() {
                break;
            }
        }
    }

    /// Everybody keeps the protocol, and nobody says anything new.
    fn rest(&mut self) {
        self.quiet = true;
        let until = self.now + Duration::from_secs(15);
        while self.parcels.keys().next().is_some_and(|(at, _)| *at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
        self.feed(Input::TurnEnd, Expected::default());
        while self
            .parcels
            .keys()
            .next()
            .is_some_and(|(at, _)| *at <= until + Duration::from_secs(3))
        {
            self.step();
        }
        for client in &self.clients {
            if client.excused || !self.model.is_alive(client.sid) {
                continue;
            }
            self.counts.survivors += 1;
            let missing = self.model.missing(client.sid);
            assert!(missing.is_none(), "{:?} never heard {missing:?}", client.sid);
        }
        let hits = self.hub.stats().limit_hits;
        let slow = self.slow_receivers();
        let known = self.cuts..=self.cuts + self.silent_deaths;
        assert!(known.contains(&slow), "{slow} slow receivers, but {known:?} are known");
        for key in LimitKey::ALL {
            let near = matches!(
                key,
                LimitKey::MaxPayload | LimitKey::Attachments | LimitKey::QueuedBytesPerSession
            );
            assert!(near || hits[key as usize] == 0, "{key:?}, which nobody came near");
        }
    }

    /// Every client is gone without a word: all must be forgotten in time.
    fn fall_silent(&mut self) {
        for client in &mut self.clients {
            client.mute = true;
            client.excused = true;
        }
        let longest = LONGEST_PING_INTERVAL + LONGEST_PING_TIMEOUT + Duration::from_secs(60);
        let until = self.now + longest;
        while self.now < until {
            let next = self.hub.poll_timeout().map_or(until, |(at, _)| at);
            let parcel = self.parcels.keys().next().map_or(until, |(at, _)| *at);
            if parcel < next && parcel < until {
                self.step();
            } else if next < until {
                self.now = self.now.max(next);
                self.time_out();
            } else {
                self.now = until;
            }
        }
        assert_eq!(self.hub.session_count(), 0, "sessions that never end");
        assert_eq!(self.hub.sessions_by_transport(), (0, 0));
        assert!(self.model.sockets.is_empty(), "sockets that were never said to be gone");
        assert!(self.unanswered.is_empty(), "requests without an answer: {:?}", self.unanswered);
        for (transport, socket) in &self.sockets {
            assert!(!socket.open, "{transport:?} was never closed");
        }
        // Deadlines that nobody means any more are allowed to wait their time, not for ever.
        let mut left = 10_000;
        while let Some((at, _)) = self.hub.poll_timeout() {
            self.now = self.now.max(at);
            self.time_out();
            left -= 1;
            assert!(left > 0, "timers without end");
        }
    }

    fn post(&mut self, delay: Duration, parcel: Parcel) {
        self.numbers += 1;
        self.parcels.insert((self.now + delay, self.numbers), parcel);
    }

    /// How long something takes over the network.
    fn delay(&mut self) -> Duration {
        let most = if self.rng.one_in(20) { 2_000_000 } else { 40_000 };
        Duration::from_micros(100 + self.rng.word() % most)
    }

    /// Lets the next thing happen. Says whether there was one.
    fn step(&mut self) -> bool {
        let Some((&(at, number), _)) = self.parcels.first_key_value() else { return false };
        if let Some((deadline, _)) = self.hub.poll_timeout()
            && deadline < at
        {
            self.now = self.now.max(deadline);
            self.time_out();
            return true;
        }
        let Some(parcel) = self.parcels.remove(&(at, number)) else { return false };
        self.now = self.now.max(at);
        if self.trace.is_some() {
            let line = format!("{:?} {parcel:?}", self.now);
            self.say(line);
        }
        self.arrive(parcel);
        true
    }

    fn say(&mut self, line: String) {
        if let Some(trace) = &mut self.trace {
            trace(line);
        }
    }

    fn arrive(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Arrival => self.arrival(),
            Parcel::Act(index) => {
                if !self.quiet {
                    self.act(index);
                    let delay = Duration::from_millis(10 + self.rng.word() % 1_500);
                    self.post(delay, Parcel::Act(index));
                }
            }
            Parcel::Heartbeat(index) => {
                if self.clients[index].leg != Leg::Gone {
                    self.clients[index].heartbeat();
                    self.pump(index);
                    let interval = self.clients[index].ping_interval;
                    self.post(interval, Parcel::Heartbeat(index));
                }
            }
            Parcel::Configure => self.configure(),
            Parcel::Whim => {
                if !self.quiet {
                    let burst = if self.rng.one_in(40) { 60 } else { 1 };
                    for _ in 0..burst {
                        self.whim();
                    }
                    let delay = Duration::from_millis(self.rng.word() % 200);
                    self.post(delay, Parcel::Whim);
                }
            }
            Parcel::Later(command) => self.command(command),
            Parcel::TurnEnd => {
                self.turn_end_due = false;
                self.feed(Input::TurnEnd, Expected::default());
            }
            Parcel::Open(index) => self.open(index),
            Parcel::Get(_, exchange)
            | Parcel::PostBegun(_, exchange)
            | Parcel::Post(_, exchange, ..)
                if self.aborted.contains(&exchange) => {}
            // Of somebody who fell silent the body never comes.
            Parcel::Post(index, ..) if self.clients[index].mute => {}
            Parcel::Get(index, exchange) => {
                let expected = self.overlap(index, exchange, Method::Get);
                let session = self.clients[index].sid;
                self.feed(Input::Get { exchange, session, timestamp: None }, expected);
            }
            Parcel::PostBegun(index, exchange) => {
                let expected = self.overlap(index, exchange, Method::Post);
                self.begun.insert(exchange);
                let session = self.clients[index].sid;
                let body = PostBody::Begun;
                self.feed(Input::Post { exchange, session, body, timestamp: None }, expected);
            }
            Parcel::Post(index, exchange, body, packets) => {
                self.arrive_post(index, exchange, body, &packets);
            }
            Parcel::Attach(index, transport) => {
                let client = &self.clients[index];
                let input =
                    Input::Attach { transport, session: client.sid, deflate: client.deflate };
                let socket = Socket {
                    client: index,
                    open: true,
                    serving: false,
                    up: self.now,
                    down: self.now,
                };
                self.sockets.entry(transport).or_insert(socket).open = true;
                self.feed(input, Expected::default());
            }
            Parcel::Message(index, transport, message) => {
                self.arrive_message(index, transport, message);
            }
            Parcel::Lost(index, transport) => {
                let session = self.clients[index].sid;
                let socket = self.sockets.get_mut(&transport).expect("a WebSocket");
                let serves = socket.open && self.serves(transport);
                self.sockets.get_mut(&transport).expect("a WebSocket").open = false;
                let expected = match serves {
                    true => self.model.end(session, DisconnectReason::TransportClose),
                    false => Expected::default(),
                };
                self.feed(Input::Lost { transport, why: Lost::Closed }, expected);
            }
            Parcel::Aborted(index, exchange) => {
                let session = self.clients[index].sid;
                // A poll that was answered, but its client went before it took the answer.
                let untaken = self.last_answered.get(&index) == Some(&exchange);
                let pending = self.unanswered.remove(&exchange).is_some();
                self.aborted.insert(exchange);
                let expected = match pending || untaken && self.polls(session) {
                    true => self.model.end(session, DisconnectReason::TransportError),
                    false => Expected::default(),
                };
                self.feed(Input::Aborted { exchange }, expected);
            }
            Parcel::Response(index, exchange, response) => {
                let heard = self.clients[index].on_response(exchange, response);
                self.heard(index, &heard);
            }
            Parcel::Bytes(index, transport, bytes) => {
                if self.clients[index].websocket == Some(transport) {
                    let heard = self.clients[index].on_bytes(&bytes);
                    self.heard(index, &heard);
                }
            }
            Parcel::Closed(index, transport, serving) => {
                self.clients[index].on_closed(transport, serving);
                self.heard(index, &[]);
            }
        }
    }

    fn arrival(&mut self) {
        let mut random = [0; 14];
        random.fill_with(|| self.rng.byte());
        let version = if self.rng.one_in(3) { Version::V3 } else { Version::V4 };
        let style =
            PollStyle { base64: self.rng.one_in(4), jsonp: self.rng.one_in(8).then(|| "5".into()) };
        let deflate = self.rng.one_in(3);
        let python = self.rng.one_in(6);
        let index = self.clients.len();
        self.clients.push(Client::new(Sid::new(0, random), version, style, deflate, python));
        let delay = self.delay();
        self.post(delay, Parcel::Open(index));
    }

    fn open(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.ping_interval = self.config.ping_interval;
        let (id, version) = (client.sid, client.version);
        let agent = if client.python { "python-engineio" } else { "Mozilla/5.0" };
        let headers = vec![("user-agent".to_owned(), agent.to_owned())];
        let handshake = Arc::new(Handshake {
            version,
            poll_style: client.style.clone(),
            query: String::new(),
            headers,
            address: None,
            own: false,
        });
        self.numbers += 1;
        let origin = if self.rng.one_in(3) {
            let transport = TransportId(self.numbers);
            client.websocket = Some(transport);
            let socket =
                Socket { client: index, open: true, serving: true, up: self.now, down: self.now };
            self.sockets.insert(transport, socket);
            Origin::WebSocket { transport, deflate: client.deflate }
        } else {
            let exchange = ExchangeId(self.numbers);
            client.get = Some(exchange);
            self.unanswered.insert(exchange, (index, Method::Get));
            Origin::Polling(exchange)
        };
        self.counts.sessions += 1;
        let expected = self.model.open(id, version);
        let told = self.drain(Input::Open { id, origin, handshake }).0;
        self.compare(&mut told.iter(), expected, id);
        self.react(told);
        self.post(Duration::from_millis(500), Parcel::Act(index));
        if version == Version::V3 {
            self.post(self.config.ping_interval, Parcel::Heartbeat(index));
        }
    }

    /// Notes a request. A second one while the first of its kind waits ends the session.
    fn overlap(&mut self, index: usize, exchange: ExchangeId, method: Method) -> Expected {
        let session = self.clients[index].sid;
        let twice = self.polls(session)
            && self
                .unanswered
                .iter()
                .any(|(other, owner)| *other != exchange && *owner == (index, method));
        if method == Method::Get {
            self.last_answered.remove(&index);
        }
        self.unanswered.insert(exchange, (index, method));
        match twice {
            true => self.model.end(session, DisconnectReason::TransportError),
            false => Expected::default(),
        }
    }

    /// Whether a session is there, and served by polling.
    fn polls(&self, session: Sid) -> bool {
        let name = self.hub.session_transport(session).map(|(transport, _)| transport.name());
        name == Some("polling")
    }

    fn arrive_post(
        &mut self,
        index: usize,
        exchange: ExchangeId,
        body: PostBody,
        packets: &[Packet],
    ) {
        let session = self.clients[index].sid;
        if self.begun.contains(&exchange) && !self.unanswered.contains_key(&exchange) {
            // It was answered before its body was there.
            return;
        }
        let polls = self.polls(session);
        let mut expected = Expected::default();
        if polls && !self.begun.contains(&exchange) && body != PostBody::TooBig {
            expected = self.overlap(index, exchange, Method::Post);
        }
        self.unanswered.insert(exchange, (index, Method::Post));
        let input = Input::Post { exchange, session, body: body.clone(), timestamp: None };
        if !polls || body == PostBody::TooBig || !expected.is_empty() {
            self.feed(input, expected);
        } else if packets.is_empty() {
            let expected = self.model.end(session, DisconnectReason::ParseError);
            self.feed(input, expected);
        } else {
            self.feed_packets(input, session, packets);
        }
    }

    fn arrive_message(&mut self, index: usize, transport: TransportId, message: Message) {
        let client = &self.clients[index];
        let (session, version) = (client.sid, client.version);
        if !self.sockets.get(&transport).is_some_and(|socket| socket.open) {
            // A shell may have read on before it carried out the close.
            if self.rng.one_in(2) {
                self.feed(Input::Message { transport, message }, Expected::default());
            }
            return;
        }
        let input = Input::Message { transport, message: message.clone() };
        if !self.serves(transport) {
            self.feed(input, Expected::default());
            if let Some(socket) = self.sockets.get_mut(&transport) {
                let found = self.hub.session_transport(session).map(|(name, _)| name.name());
                socket.serving = socket.open && found == Some("websocket");
            }
            return;
        }
        match Packet::from_frame(version, message) {
            Ok(packet) => self.feed_packets(input, session, &[packet]),
            Err(_) => {
                let expected = self.model.end(session, DisconnectReason::ParseError);
                self.feed(input, expected);
            }
        }
    }

    /// Whether this WebSocket serves its session, rather than probing for it.
    fn serves(&self, transport: TransportId) -> bool {
        self.sockets.get(&transport).is_some_and(|socket| socket.serving)
    }

    fn act(&mut self, index: usize) {
        let rude = self.rng.one_in(self.rudeness);
        let client = &mut self.clients[index];
        let wishes = match rude {
            true => client.misbehave(&mut self.rng),
            false => client.act(&mut self.rng, self.config.upgrades),
        };
        self.grant(index, wishes);
        self.pump(index);
    }

    fn pump(&mut self, index: usize) {
        let wishes = self.clients[index].pump();
        self.grant(index, wishes);
    }

    fn grant(&mut self, index: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            let delay = self.delay();
            self.numbers += 1;
            let number = self.numbers;
            match wish {
                Wish::Get => {
                    let exchange = ExchangeId(number);
                    self.clients[index].get = Some(exchange);
                    self.post(delay, Parcel::Get(index, exchange));
                }
                Wish::Post { body, binary, packets } => {
                    let exchange = ExchangeId(number);
                    self.clients[index].post = Some(exchange);
                    let mut later = Duration::ZERO;
                    if self.rng.one_in(2) {
                        self.post(delay, Parcel::PostBegun(index, exchange));
                        later = self.delay();
                    }
                    let body = PostBody::Whole { body, binary };
                    self.post(delay + later, Parcel::Post(index, exchange, body, packets));
                }
                Wish::PostTooBig => {
                    let exchange = ExchangeId(number);
                    self.clients[index].post = Some(exchange);
                    self.post(delay, Parcel::Post(index, exchange, PostBody::TooBig, Vec::new()));
                }
                Wish::Attach => {
                    let transport = TransportId(number);
                    self.clients[index].websocket = Some(transport);
                    let at = self.now + delay;
                    let socket =
                        Socket { client: index, open: false, serving: false, up: at, down: at };
                    self.sockets.insert(transport, socket);
                    self.post(delay, Parcel::Attach(index, transport));
                }
                Wish::Send(message) => {
                    if let Some(transport) = self.clients[index].websocket {
                        let parcel = Parcel::Message(index, transport, message);
                        self.post_up(transport, delay, parcel);
                    }
                }
                Wish::FailProbe => {
                    let Some(transport) = self.clients[index].forget_probe() else { continue };
                    if self.rng.one_in(2) {
                        self.post_up(transport, delay, Parcel::Lost(index, transport));
                        continue;
                    }
                    for text in ["4rubbish", "5"] {
                        let message = Message::Text(text.into());
                        self.post_up(transport, delay, Parcel::Message(index, transport, message));
                    }
                }
                Wish::Drop(transport) => {
                    self.post_up(transport, delay, Parcel::Lost(index, transport));
                }
                Wish::Abort(exchange) => self.post(delay, Parcel::Aborted(index, exchange)),
            }
        }
    }

    /// Sends something towards the hub, behind what is on its way.
    fn post_up(&mut self, transport: TransportId, delay: Duration, parcel: Parcel) {
        let Some(socket) = self.sockets.get_mut(&transport) else { return };
        socket.up = socket.up.max(self.now + delay);
        let delay = socket.up.since(self.now);
        self.post(delay, parcel);
    }

    /// Sends something towards the client, behind what is on its way.
    fn post_down(&mut self, transport: TransportId, parcel: impl FnOnce(usize) -> Parcel) {
        let delay = self.delay();
        let now = self.now;
        let socket = self.sockets.get_mut(&transport).expect("a WebSocket");
        socket.down = socket.down.max(now + delay);
        let (client, delay) = (socket.client, socket.down.since(now));
        self.post(delay, parcel(client));
    }

    fn heard(&mut self, index: usize, packets: &[bowline_proto::socketio::Packet]) {
        let client = &self.clients[index];
        for packet in packets {
            self.counts.heard += 1;
            self.model.heard(client.sid, packet);
        }
        if client.told && !client.excused {
            let missing = self.model.missing(client.sid);
            assert!(missing.is_none(), "told goodbye without {missing:?}");
        }
        self.pump(index);
    }

    /// A handler, or the application behind it, does something to anybody.
    fn whim(&mut self) {
        let keys: Vec<SocketKey> = self.model.sockets.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let socket = *self.rng.pick(&keys);
        let room = self.rng.pick(&self.rooms).clone();
        let mark = json!({ "n": self.numbers });
        self.numbers += 1;
        let command = match self.rng.below(26) {
            24 => return self.lag(socket),
            25 => return self.drain_one(socket),
            0..8 => {
                let volatile = self.rng.one_in(5);
                let args = random_args(&mut self.rng, mark);
                let namespace = self.model.sockets[&socket].namespace.clone();
                let mut names = self.rooms.clone();
                names.extend(keys.iter().take(3).filter_map(|key| {
                    self.model.sockets[key].id.map(|id| ByteString::from(id.to_string()))
                }));
                let rng = &mut self.rng;
                let mut some = |most: usize| -> Vec<ByteString> {
                    (0..rng.below(most + 1)).map(|_| rng.pick(&names).clone()).collect()
                };
                let (rooms, except) = (some(3), some(2));
                let report = Some(self.numbers);
                let forwarded = false;
                Command::Broadcast(Broadcast {
                    namespace,
                    rooms,
                    except,
                    args,
                    volatile,
                    report,
                    ack: None,
                    forwarded,
                    origin: None,
                })
            }
            8..14 => {
                let volatile = self.rng.one_in(5);
                let timeout = Duration::from_millis(1 + self.rng.word() % 10_000);
                let ack = self.rng.one_in(3).then_some(AckRequest { token: self.numbers, timeout });
                // What may be dropped cannot be acked: nobody could tell.
                let volatile = volatile && ack.is_none();
                Command::Emit { socket, args: random_args(&mut self.rng, mark), ack, volatile }
            }
            14..20 => Command::Join { socket, room },
            20 | 21 => Command::Leave { socket, room },
            _ => Command::Disconnect { socket, close: self.rng.one_in(4) },
        };
        if matches!(command, Command::Disconnect { .. }) {
            // With a full queue the goodbye itself would be one packet too many.
            let session = &self.model.sessions[&self.model.sockets[&socket].session];
            let room = session.queued_bytes_max() + 1_000;
            if room > self.config.limits.queued_bytes_per_session || !self.rng.one_in(4) {
                return;
            }
        }
        self.command(command);
    }

    /// A WebSocket takes less than it is sent: a little less, or far too little.
    fn lag(&mut self, socket: SocketKey) {
        let session = self.model.sockets[&socket].session;
        let found = self.sockets.iter().find(|(_, socket)| {
            socket.open && socket.serving && self.clients[socket.client].sid == session
        });
        let Some((&transport, _)) = found else { return };
        let most = self.config.limits.queued_bytes_per_session;
        let (bytes, expected) = match self.rng.below(20) {
            0 => (most + 1, self.model.end(session, DisconnectReason::ForcedServerClose)),
            1..10 => (most, Expected::default()),
            _ => (0, Expected::default()),
        };
        self.cuts += u64::from(bytes > most);
        self.feed(Input::Backlog { transport, bytes }, expected);
    }

    /// The server stops, as far as one session is concerned.
    fn drain_one(&mut self, socket: SocketKey) {
        if !self.rng.one_in(10) {
            return;
        }
        let Some(view) = self.hub.socket(socket) else { return };
        let session = self.model.sockets[&socket].session;
        for client in &mut self.clients {
            // A poll that is not there hears nothing; the client finds its session gone.
            client.excused |= client.sid == session;
        }
        let expected = self.model.end(session, DisconnectReason::ServerShuttingDown);
        self.feed(Input::Drain { session: view.session }, expected);
    }

    /// Gives a command to the hub and to the model.
    fn command(&mut self, command: Command) {
        if self.trace.is_some() {
            let line = format!("{:?} {command:?}", self.now);
            self.say(line);
        }
        let mut expected = Expected::default();
        let mut reached = None;
        match &command {
            Command::Claim { .. } => panic!("nobody has a name"),
            Command::Accept { socket, id, .. } => self.model.accept(*socket, *id),
            Command::Refuse { socket, message, .. } => self.model.refuse(*socket, message),
            Command::Emit { socket, args, ack, volatile } => {
                self.model.emit(*socket, args, ack.map(|ack| ack.token), *volatile);
            }
            Command::Ack { socket, id, args } => self.model.ack(*socket, *id, args),
            Command::Broadcast(broadcast) => reached = Some(self.model.broadcast(broadcast)),
            Command::Join { socket, room } => self.model.join(*socket, room),
            Command::Leave { socket, room } => self.model.leave(*socket, room),
            Command::Disconnect { socket, close } => {
                expected = self.model.disconnect(*socket, *close);
            }
            Command::SetData { .. }
            | Command::Expire { .. }
            | Command::Send { .. }
            | Command::Close { .. } => {}
        }
        if let Some(reached) = reached {
            self.counts.broadcasts += 1;
            self.counts.reached += reached as u64;
        }
        let said = self.feed(Input::Command(command), expected);
        assert_eq!(said, reached, "how many a broadcast reached");
    }

    /// Hands an input to the hub, drains it, and checks what the handlers are told. Returns how many
    /// sockets a broadcast reached.
    fn feed(&mut self, input: Input, expected: Expected) -> Option<usize> {
        let turn_end = matches!(input, Input::TurnEnd);
        let (told, reached) = self.drain(input);
        let mut said = told.iter().peekable();
        for expected in expected {
            let event = said.next().unwrap_or_else(|| panic!("never told: {expected:?}"));
            assert_eq!(Told::from_event(event), expected, "what handlers are told");
        }
        while let Some(event) = said.peek() {
            let first = (*event).clone();
            self.cut(&first, &mut said);
        }
        self.forget_the_slow();
        self.check_alive();
        if turn_end {
            return reached;
        }
        self.react(told);
        reached
    }

    /// A session goes because its queue is full: it must be.
    fn cut<'e>(&mut self, first: &Event, said: &mut impl Iterator<Item = &'e Event>) {
        let (Event::Ack { socket, .. } | Event::Disconnect { socket, .. }) = first else {
            panic!("told to handlers, and nobody said it: {first:?}")
        };
        let session = self.model.sockets[socket].session;
        self.excuse_slow(session);
        let expected = self.model.end(session, DisconnectReason::ForcedServerClose);
        self.compare(said, expected, session);
    }

    fn slow_receivers(&self) -> u64 {
        self.hub.stats().limit_hits[LimitKey::QueuedBytesPerSession as usize]
    }

    fn excuse_slow(&mut self, session: Sid) {
        let queued = self.model.sessions[&session].queued_bytes_max();
        let most = self.config.limits.queued_bytes_per_session;
        assert!(queued > most, "cut with {queued} bytes in its queue");
        self.say(format!("{session:?} is cut with {queued} bytes in its queue"));
        self.cuts += 1;
        for client in &mut self.clients {
            client.excused |= client.sid == session;
        }
    }

    /// Sessions without sockets are cut without a word to handlers. Nobody's queue is too long.
    fn forget_the_slow(&mut self) {
        let most = self.config.limits.queued_bytes_per_session;
        for session in self.clients.iter().map(|client| client.sid).collect::<Vec<_>>() {
            if self.model.is_alive(session) && self.hub.session_transport(session).is_none() {
                assert!(self.model.sessions[&session].sockets.is_empty());
                self.excuse_slow(session);
                self.model.end(session, DisconnectReason::ForcedServerClose);
            }
        }
        for index in std::mem::take(&mut self.answered) {
            let client = &self.clients[index];
            self.model.poll_answered(client.sid, client.python);
        }
        for client in &self.clients {
            if self.model.is_alive(client.sid) && self.polls(client.sid) {
                let queued = self.model.sessions[&client.sid].queued_bytes_min();
                assert!(queued <= most, "{queued} bytes wait for a poll");
            }
        }
    }

    /// The same for what a client says, packet by packet: a CONNECT gets its key on the way.
    fn feed_packets(&mut self, input: Input, session: Sid, packets: &[Packet]) {
        let before = self.slow_receivers();
        let (told, _) = self.drain(input);
        // An answer, say to a ping, may be one packet too many for the queue.
        let cut = self.slow_receivers() > before;
        let mut said = told.iter().peekable();
        for packet in packets {
            let expected = self.model.packet(session, packet);
            self.compare(&mut said, expected, session);
            let cut = cut && self.model.is_alive(session);
            match said.peek() {
                Some(Event::Ack { result: Err(_), .. } | Event::Disconnect { .. }) if cut => {
                    let first = said.peek().map(|event| (*event).clone());
                    self.cut(&first.expect("it was there"), &mut said);
                }
                None if cut && self.hub.session_transport(session).is_none() => {
                    self.excuse_slow(session);
                    self.model.end(session, DisconnectReason::ForcedServerClose);
                }
                Some(_) | None => {}
            }
        }
        assert_eq!(said.next(), None, "told to handlers, and nobody said it");
        self.forget_the_slow();
        self.check_alive();
        self.react(told);
    }

    fn compare<'e>(
        &mut self,
        said: &mut impl Iterator<Item = &'e Event>,
        expected: Expected,
        session: Sid,
    ) {
        for expected in expected {
            let event = said.next().unwrap_or_else(|| panic!("never told: {expected:?}"));
            assert_eq!(Told::from_event(event), expected, "what handlers are told");
            if let Event::Connect { socket, namespace, .. } = event {
                self.model.connect(*socket, session, namespace.clone());
            }
        }
    }

    /// Lets handlers answer what they were told.
    fn react(&mut self, told: Vec<Event>) {
        self.end_turn();
        for event in told {
            self.on_event(event);
        }
    }

    /// No session ends but for a reason.
    fn check_alive(&self) {
        for client in &self.clients {
            if self.model.is_alive(client.sid) {
                let found = self.hub.session_transport(client.sid);
                assert!(found.is_some(), "{:?} has gone without a reason", client.sid);
            }
        }
    }

    /// Hands over a timeout, which ends what is overdue and nothing else.
    fn time_out(&mut self) {
        let line = format!("{:?} timeout {:?}", self.now, self.hub.poll_timeout());
        self.say(line);
        let (told, _) = self.drain(Input::Timeout);
        let mut said = told.iter().peekable();
        while let Some(event) = said.peek() {
            let socket = match event {
                Event::Ack { socket, token, result: Err(AckError::TimedOut), .. } => {
                    self.model.expire(*socket, *token);
                    said.next();
                    continue;
                }
                Event::Ack { socket, .. } | Event::Disconnect { socket, .. } => *socket,
                other => panic!("{other:?} by a timer"),
            };
            let session = self.model.sockets[&socket].session;
            let reason = self.overdue(session, &told);
            let expected = self.model.end(session, reason);
            self.compare(&mut said, expected, session);
        }
        self.forget_the_dead();
        self.react(told);
    }

    /// For which reason a timer may end this session, given what was said of its first socket.
    fn overdue(&mut self, session: Sid, told: &[Event]) -> DisconnectReason {
        let sockets = &self.model.sessions[&session].sockets;
        let said = told.iter().find_map(|event| match event {
            Event::Disconnect { socket, reason } if sockets.contains(socket) => Some(*reason),
            _ => None,
        });
        let excused = self.clients.iter().any(|client| client.sid == session && client.excused);
        match said.expect("a session ends with its sockets") {
            reason @ DisconnectReason::PingTimeout => {
                assert!(excused, "a client that answers has timed out");
                reason
            }
            reason @ DisconnectReason::ForcedServerClose => {
                if self.model.sessions[&session].joined {
                    // A ping was one packet too many for its queue.
                    self.excuse_slow(session);
                }
                reason
            }
            other => panic!("{other:?} by a timer"),
        }
    }

    /// Sessions without sockets end without a word to handlers.
    fn forget_the_dead(&mut self) {
        for session in self.clients.iter().map(|client| client.sid).collect::<Vec<_>>() {
            if !self.model.is_alive(session) || self.hub.session_transport(session).is_some() {
                continue;
            }
            assert!(self.model.sessions[&session].sockets.is_empty());
            let excused = self.clients.iter().any(|client| client.sid == session && client.excused);
            if !excused && self.model.sessions[&session].joined {
                self.excuse_slow(session);
            }
            self.silent_deaths += 1;
            self.model.end(session, DisconnectReason::PingTimeout);
        }
    }

    fn end_turn(&mut self) {
        if !self.turn_end_due {
            self.turn_end_due = true;
            let delay = Duration::from_micros(self.rng.word() % 3_000);
            self.post(delay, Parcel::TurnEnd);
        }
    }

    /// The shell: carries out what the hub says. Returns the events, and what a broadcast reached.
    fn drain(&mut self, input: Input) -> (Vec<Event>, Option<usize>) {
        self.counts.inputs += 1;
        self.hub.handle_input(self.now, input);
        let mut told = Vec::new();
        let mut reached = None;
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Tell { .. } | Output::Settled { .. } => panic!("one shard talks to nobody"),
                Output::Send { mut receivers, frame } => {
                    let mut once = BTreeSet::new();
                    while let Some(transport) = self.hub.next_receiver(&mut receivers) {
                        assert!(once.insert(transport), "{transport:?} twice in one walk");
                        let socket = self.sockets.get(&transport).expect("a WebSocket");
                        assert!(socket.open, "sent to {transport:?}, which has gone");
                        let frame = frame.clone();
                        self.post_down(transport, |client| Parcel::Bytes(client, transport, frame));
                    }
                }
                Output::Close { transport, .. } => {
                    let socket = self.sockets.get_mut(&transport).expect("a WebSocket");
                    assert!(socket.open, "{transport:?} closed twice");
                    socket.open = false;
                    let serving = socket.serving;
                    self.post_down(transport, |client| Parcel::Closed(client, transport, serving));
                }
                Output::Respond { exchange, response } => {
                    assert!(!self.aborted.contains(&exchange), "an answer to nobody");
                    let (index, _) = self.unanswered.remove(&exchange).expect("answered twice");
                    if let Response::Payload(PollBody::Text(body) | PollBody::Binary(body)) =
                        &response
                    {
                        let most = 2 * self.config.limits.queued_bytes_per_session;
                        assert!(body.len() <= most, "a body of {} bytes", body.len());
                    }
                    if matches!(response, Response::Payload(_)) {
                        self.polls_answered.insert(exchange);
                        self.answered.push(index);
                        self.last_answered.insert(index, exchange);
                    }
                    let delay = self.delay();
                    self.post(delay, Parcel::Response(index, exchange, response));
                }
                Output::Deliver { handler, event } => {
                    assert!(handler < 4);
                    told.push(event);
                }
                Output::Forward(_) => panic!("there is one shard only"),
                Output::Reached { receivers, .. } => {
                    assert!(reached.replace(receivers).is_none());
                }
            }
        }
        self.counts.told += told.len() as u64;
        if self.trace.is_some() {
            let line = format!("{} slow receivers so far", self.slow_receivers());
            self.say(line);
        }
        (told, reached)
    }

    /// What the handlers do about an event.
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connect { socket, namespace, .. } => {
                let mut random = [0; 14];
                random.fill_with(|| self.rng.byte());
                let command = match self.rng.below(20) {
                    _ if namespace == "/closed" => {
                        Command::Refuse { socket, message: "no \"entry\"".into(), data: None }
                    }
                    0 => return,
                    1 => Command::Refuse { socket, message: "full".into(), data: None },
                    _ => {
                        let id = Sid::new(0, random);
                        Command::Accept { socket, id, pid: id }
                    }
                };
                if self.rng.one_in(3) {
                    let delay = self.delay();
                    self.post(delay, Parcel::Later(command));
                } else {
                    self.command(command);
                }
            }
            Event::Event { socket, args, ack: Some(id), .. } => {
                let command = Command::Ack { socket, id, args: args.rest() };
                match self.rng.below(4) {
                    0 => {}
                    1 => {
                        let delay = self.delay();
                        self.post(delay, Parcel::Later(command));
                    }
                    _ => self.command(command),
                }
            }
            Event::Ack { .. } => self.counts.acks += 1,
            Event::Event { ack: None, .. }
            | Event::Disconnect { .. }
            | Event::Return { .. }
            | Event::Away { .. }
            | Event::Back { .. } => {}
            Event::Open { .. } | Event::Message { .. } | Event::Close { .. } => {}
        }
    }
}

const LONGEST_PING_INTERVAL: Duration = Duration::from_millis(25_500);
const LONGEST_PING_TIMEOUT: Duration = Duration::from_secs(20);
