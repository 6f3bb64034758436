//! Two peers, a clock and a seed: a [`Client`](crate::client::Client) and a [`Hub`](crate::Hub) joined by
//! a network whose requests overtake one another.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;

use crate::{
    Command, ExchangeId, Hub, Input, Output, Sid, SocketKey, Time, TransportId,
    client::{self, Client},
    engineio::{Query, Version, ws_frame},
    hub::{Config, NamespacePattern, NamespaceRule},
    socketio::Args,
    wall::{Event, Handshake, Lost, Origin, PollBody, PostBody, Response},
    websocket::{self, Message},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_reordered_by_an_upgrade(seed: u64, eio3: bool) {
        let version = if eio3 { Version::V3 } else { Version::V4 };
        let mut pair = Pair::new(seed, version, client::Transports::Upgrade);
        pair.exchange_numbers(300);
        prop_assert_eq!(pair.hub.stats().upgraded, 1);
        prop_assert_eq!(pair.client.phase(), client::Phase::WebSocket);
        pair.check_numbers(300)?;
    }

    #[test]
    fn nothing_is_lost_when_the_probe_is_cut(seed: u64) {
        let mut pair = Pair::new(seed, Version::V4, client::Transports::Upgrade);
        pair.cut_websocket = true;
        pair.exchange_numbers(300);
        prop_assert_eq!(pair.hub.stats().upgraded, 0);
        prop_assert_eq!(pair.closed, None);
        pair.check_numbers(300)?;
    }

    #[test]
    fn each_transport_alone_carries_everything(seed: u64, websocket: bool, eio3: bool) {
        let transports = match websocket {
            true => client::Transports::WebSocket,
            false => client::Transports::Polling,
        };
        let version = if eio3 { Version::V3 } else { Version::V4 };
        let mut pair = Pair::new(seed, version, transports);
        pair.exchange_numbers(100);
        pair.check_numbers(100)?;
    }

    #[test]
    fn an_idle_pair_stays_connected_for_eight_hours(seed: u64) {
        let mut pair = Pair::new(seed, Version::V4, client::Transports::Upgrade);
        pair.run_until(|pair| pair.socket.is_some());
        pair.run_for(Duration::from_secs(8 * 3600));
        prop_assert_eq!(pair.closed, None);
        pair.exchange_numbers(1);
        pair.check_numbers(1)?;
    }
}

/// What travels, by when it arrives.
#[derive(Debug)]
enum Parcel {
    Request(client::HttpRequest),
    Response(client::RequestId, client::Response),
    Upgrade(String),
    Opened,
    ToHub(Message),
    ToClient(Bytes),
    ClosedByHub,
    ClosedByClient,
}

struct Pair {
    now: Time,
    hub: Hub,
    client: Client,
    version: Version,
    random: u64,
    ids: u64,
    /// By arrival, then by order of sending.
    network: BTreeMap<(Time, u64), Parcel>,
    /// A WebSocket is a stream: what was sent later arrives later.
    last_up: Time,
    last_down: Time,
    requests: BTreeMap<ExchangeId, client::RequestId>,
    websocket: Option<TransportId>,
    cut_websocket: bool,
    /// Frames for the client that hold back a part of a message.
    decoder: websocket::Decoder,
    socket: Option<SocketKey>,
    heard_by_hub: Vec<u64>,
    heard_by_client: Vec<u64>,
    closed: Option<client::CloseReason>,
}

impl Pair {
    fn new(seed: u64, version: Version, transports: client::Transports) -> Self {
        let rule = NamespaceRule { pattern: NamespacePattern::new("/"), handler: 0 };
        let config = Config { namespaces: vec![rule], ..Config::default() };
        let client = client::Config { version, transports, ..client::Config::default() };
        let mut pair = Self {
            now: Time::ZERO,
            hub: Hub::new(config, [1; 16]),
            client: Client::new(Arc::new(client)),
            version,
            random: seed,
            ids: 0,
            network: BTreeMap::new(),
            last_up: Time::ZERO,
            last_down: Time::ZERO,
            requests: BTreeMap::new(),
            websocket: None,
            cut_websocket: false,
            decoder: websocket::Decoder::new(websocket::Role::Client),
            socket: None,
            heard_by_hub: Vec::new(),
            heard_by_client: Vec::new(),
            closed: None,
        };
        pair.client_input(client::Input::Open);
        pair.client_input(client::Input::Join { namespace: "/".into(), auth: None });
        pair
    }

    /// Both sides send `count` numbers at random moments, and all of it is given time to arrive.
    fn exchange_numbers(&mut self, count: u64) {
        self.run_until(|pair| pair.socket.is_some());
        let (mut up, mut down) = (0, 0);
        while up < count || down < count {
            for _ in 0..self.draw(4) {
                if up < count {
                    let args = number(up);
                    self.client_input(client::Input::Emit {
                        namespace: "/".into(),
                        args,
                        ack: None,
                    });
                    up += 1;
                }
            }
            for _ in 0..self.draw(4) {
                if let (true, Some(socket)) = (down < count, self.socket) {
                    let args = number(down);
                    let emit = Command::Emit { socket, args, ack: None, volatile: false };
                    self.hub_input(Input::Command(emit));
                    down += 1;
                }
            }
            self.hub_input(Input::TurnEnd);
            let pause = Duration::from_millis(self.draw(20));
            self.run_for(pause);
        }
        self.run_for(Duration::from_secs(20));
    }

    fn check_numbers(&self, count: u64) -> Result<(), TestCaseError> {
        let expected: Vec<_> = (0..count).collect();
        prop_assert_eq!(&self.heard_by_hub, &expected);
        prop_assert_eq!(&self.heard_by_client, &expected);
        Ok(())
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let horizon = self.now + Duration::from_secs(60);
        while !done(self) {
            assert!(self.now < horizon, "what was waited for did not come");
            self.step(horizon);
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// Goes to the next moment at which something happens, `end` at the latest.
    fn step(&mut self, end: Time) {
        let parcel = self.network.first_key_value().map(|((at, _), _)| *at);
        let hub = self.hub.poll_timeout().map(|(at, _)| at);
        let client = self.client.poll_timeout().map(|(at, _)| at);
        let next = [parcel, hub, client, Some(end)].into_iter().flatten().min();
        self.now = self.now.max(next.unwrap_or(end));
        while let Some(entry) = self.network.first_entry()
            && entry.key().0 <= self.now
        {
            let parcel = entry.remove();
            self.arrive(parcel);
        }
        if hub.is_some_and(|at| at <= self.now) {
            self.hub_input(Input::Timeout);
        }
        if client.is_some_and(|at| at <= self.now) {
            self.client_input(client::Input::Timeout);
        }
        self.hub_input(Input::TurnEnd);
    }

    fn arrive(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Request(request) => self.on_request(request),
            Parcel::Response(id, response) => {
                self.client_input(client::Input::Response { id, response });
            }
            Parcel::Upgrade(target) => self.on_upgrade(&target),
            Parcel::Opened => self.client_input(client::Input::WebSocketOpened),
            Parcel::ToHub(message) => {
                if let Some(transport) = self.websocket {
                    self.hub_input(Input::Message { transport, message });
                }
            }
            Parcel::ToClient(frame) => self.on_frame(&frame),
            Parcel::ClosedByHub => {
                let why = Lost::Closed;
                self.client_input(client::Input::WebSocketLost { why, detail: String::new() });
            }
            Parcel::ClosedByClient => {
                if let Some(transport) = self.websocket.take() {
                    self.hub_input(Input::Lost { transport, why: Lost::Closed });
                }
            }
        }
    }

    fn on_request(&mut self, request: client::HttpRequest) {
        let exchange = ExchangeId(self.next_id());
        self.requests.insert(exchange, request.id);
        let query = Query::parse(request.target.split_once('?').map_or("", |(_, query)| query));
        let input = match (query.sid, request.body) {
            (None, _) => Input::Open {
                id: self.sid(),
                origin: Origin::Polling(exchange),
                handshake: self.handshake(),
            },
            (Some(sid), None) => Input::Get { exchange, session: sid.parse().unwrap() },
            (Some(sid), Some(body)) => {
                let (body, binary) = match body {
                    PollBody::Text(body) | PollBody::Script(body) => (body, false),
                    PollBody::Binary(body) => (body, true),
                };
                let body = PostBody::Whole { body, binary };
                Input::Post { exchange, session: sid.parse().unwrap(), body }
            }
        };
        self.hub_input(input);
    }

    fn on_upgrade(&mut self, target: &str) {
        let transport = TransportId(self.next_id());
        self.websocket = Some(transport);
        let query = Query::parse(target.split_once('?').map_or("", |(_, query)| query));
        self.send_down(Parcel::Opened);
        let input = match query.sid {
            Some(sid) => Input::Attach { transport, session: sid.parse().unwrap(), deflate: false },
            None => Input::Open {
                id: self.sid(),
                origin: Origin::WebSocket { transport, deflate: false },
                handshake: self.handshake(),
            },
        };
        self.hub_input(input);
        if self.cut_websocket {
            self.websocket = None;
            self.hub_input(Input::Lost { transport, why: Lost::Failed });
            self.send_down(Parcel::ClosedByHub);
        }
    }

    fn on_frame(&mut self, frame: &[u8]) {
        let mut bytes = frame.to_vec();
        let mut rest = bytes.as_mut_slice();
        let config = websocket::DecodeConfig { max_message_bytes: 1 << 20, deflate: false };
        while let Some(incoming) = self.decoder.decode(&config, &mut rest).unwrap() {
            match incoming {
                websocket::Incoming::Message(message) => {
                    self.client_input(client::Input::Message(message));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn hub_input(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.hub.handle_input(self.now, input);
            while let Some(output) = self.hub.poll_output() {
                match output {
                    Output::Send { mut receivers, frame } => {
                        while let Some(transport) = self.hub.next_receiver(&mut receivers) {
                            assert_eq!(Some(transport), self.websocket);
                            self.send_down(Parcel::ToClient(frame.clone()));
                        }
                    }
                    Output::Respond { exchange, response } => self.respond(exchange, response),
                    Output::Close { .. } => self.send_down(Parcel::ClosedByHub),
                    Output::Deliver { event: Event::Connect { socket, .. }, .. } => {
                        self.socket = Some(socket);
                        let id = self.sid();
                        inputs.push_back(Input::Command(Command::Accept { socket, id }));
                    }
                    Output::Deliver { event: Event::Event { args, .. }, .. } => {
                        self.heard_by_hub.push(read_number(&args));
                    }
                    Output::Deliver { .. } | Output::Forward(_) | Output::Reached { .. } => {}
                }
            }
        }
    }

    fn respond(&mut self, exchange: ExchangeId, response: Response) {
        let (status, body, binary) = match response {
            Response::Open { body, .. } | Response::Payload(body) => match body {
                PollBody::Text(body) | PollBody::Script(body) => (200, body, false),
                PollBody::Binary(body) => (200, body, true),
            },
            Response::Taken => (200, Bytes::from_static(b"ok"), false),
            Response::Refused(error) => (error.status(), error.json().into(), false),
            Response::Status(status) => (status, Bytes::new(), false),
        };
        let id = self.requests.remove(&exchange).unwrap();
        let response = client::Response::Answered { status, body, binary };
        // Answers of different requests overtake one another.
        let at = self.now + self.latency();
        self.send(at, Parcel::Response(id, response));
    }

    fn client_input(&mut self, input: client::Input) {
        self.client.handle_input(self.now, input);
        while let Some(output) = self.client.poll_output() {
            match output {
                client::Output::Request(request) => {
                    let at = self.now + self.latency();
                    self.send(at, Parcel::Request(request));
                }
                client::Output::OpenWebSocket { target } => {
                    self.send_up(Parcel::Upgrade(target));
                }
                client::Output::Send(packet) => {
                    let mut frame = ws_frame(self.version, &packet).to_vec();
                    let mut decoder = websocket::Decoder::new(websocket::Role::Client);
                    let config =
                        websocket::DecodeConfig { max_message_bytes: 1 << 20, deflate: false };
                    let incoming = decoder.decode(&config, &mut frame.as_mut_slice()).unwrap();
                    match incoming {
                        Some(websocket::Incoming::Message(message)) => {
                            self.send_up(Parcel::ToHub(message));
                        }
                        other => panic!("unexpected {other:?}"),
                    }
                }
                client::Output::CloseWebSocket => self.send_up(Parcel::ClosedByClient),
                client::Output::Event(client::Event::Event { args, .. }) => {
                    self.heard_by_client.push(read_number(&args));
                }
                client::Output::Event(client::Event::Closed { reason, .. }) => {
                    self.closed = Some(reason);
                }
                client::Output::Event(_) => {}
            }
        }
    }

    fn send_up(&mut self, parcel: Parcel) {
        self.last_up = self.last_up.max(self.now + self.latency());
        self.send(self.last_up, parcel);
    }

    fn send_down(&mut self, parcel: Parcel) {
        self.last_down = self.last_down.max(self.now + self.latency());
        self.send(self.last_down, parcel);
    }

    fn send(&mut self, at: Time, parcel: Parcel) {
        let order = self.next_id();
        self.network.insert((at, order), parcel);
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(1 + self.draw(40))
    }

    fn handshake(&self) -> Arc<Handshake> {
        Arc::new(Handshake {
            version: self.version,
            poll_style: crate::engineio::PollStyle::default(),
            query: String::new(),
            headers: Vec::new(),
            address: None,
        })
    }

    fn sid(&mut self) -> Sid {
        let mut random = [0; 14];
        random[..8].copy_from_slice(&self.next_id().to_le_bytes());
        Sid::new(0, random)
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// A number below `bound`, by SplitMix64.
    fn draw(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn number(n: u64) -> Args {
    Args::event("n", &[n]).unwrap()
}

fn read_number(args: &Args) -> u64 {
    let (_, n): (String, u64) = args.parse().unwrap();
    n
}
