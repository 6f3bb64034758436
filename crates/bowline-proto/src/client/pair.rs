//! A client and a hub, a network that reorders what it may, a fake clock and a seed: whatever the
//! order, nothing is lost, nothing comes twice, and order is kept.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Client, CloseReason, Config, Event, HttpRequest, Input, Output, Phase, Response, Transports,
    write_frame,
};
use crate::{
    Command, ExchangeId, Hub, Sid, SocketKey, Time, TransportId,
    engineio::{PollStyle, Version},
    hub::{self, NamespacePattern, NamespaceRule},
    socketio::Args,
    wall::{self, AckRequest, Handshake, Lost, Origin, PollBody, PostBody},
    websocket::{DecodeConfig, Decoder, Incoming, Role},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_network_reorders_each_event_comes_once_and_in_order(
        version in prop_oneof![Just(Version::V3), Just(Version::V4)],
        transports in prop_oneof![
            1 => Just(Transports::Polling),
            1 => Just(Transports::WebSocket),
            4 => Just(Transports::Upgrade),
        ],
        choices in proptest::collection::vec(any::<u16>(), 0..400),
    ) {
        let mut world = World::new(version, transports);
        for choice in choices {
            world.step(choice);
        }
        world.settle();
        world.check();
        world.close();
    }
}

#[test]
fn an_idle_pair_stays_connected_for_eight_hours_and_hears_the_first_event() {
    for (version, transports) in [
        (Version::V4, Transports::Upgrade),
        (Version::V4, Transports::Polling),
        (Version::V3, Transports::WebSocket),
    ] {
        let slow = hub::Config::default();
        let mut world =
            World::with_intervals(version, transports, slow.ping_interval, slow.ping_timeout);
        world.settle();
        let end = world.now + Duration::from_secs(8 * 3600);
        while world.now < end {
            world.wait(Duration::from_secs(3600));
            world.settle();
        }
        world.server_emits();
        world.client_emits(true);
        world.settle();
        world.check();
        world.close();
    }
}

/// The one WebSocket; bytes that are on their way.
const TRANSPORT: TransportId = TransportId(1);
const WEBSOCKET: DecodeConfig = DecodeConfig { max_message_bytes: 1_000_000, deflate: false };

#[derive(Debug, PartialEq)]
enum Wire {
    None,
    Dialled { sid: Option<Sid> },
    Open,
    Closed,
}

struct World {
    client: Client,
    hub: Hub,
    version: Version,
    now: Time,
    ids: u8,
    sid: Sid,
    socket: Option<SocketKey>,
    /// Requests that the hub has not seen, those it has, and answers that the client has not seen:
    /// GET and POST.
    asked: [Option<HttpRequest>; 2],
    pending: [Option<HttpRequest>; 2],
    answered: [Option<(HttpRequest, wall::Response)>; 2],
    wire: Wire,
    up: Vec<u8>,
    down: Vec<u8>,
    up_decoder: Decoder,
    down_decoder: Decoder,
    /// Commands of the handler that are to be given.
    commands: VecDeque<Command>,
    sent_by_client: u64,
    sent_by_server: u64,
    acks_asked: u64,
    acks: Vec<u64>,
    heard_by_server: Vec<u64>,
    heard_by_client: Vec<u64>,
    echoed: Vec<u64>,
    closed: Option<CloseReason>,
    log: Vec<String>,
}

impl World {
    fn new(version: Version, transports: Transports) -> Self {
        let (interval, timeout) = (Duration::from_millis(300), Duration::from_millis(200));
        Self::with_intervals(version, transports, interval, timeout)
    }

    fn with_intervals(
        version: Version,
        transports: Transports,
        ping_interval: Duration,
        ping_timeout: Duration,
    ) -> Self {
        let rule = NamespaceRule {
            pattern: NamespacePattern::new("/"),
            handler: 0,
            keeping: hub::Keeping::default(),
        };
        let config = hub::Config {
            ping_interval,
            ping_timeout,
            namespaces: vec![rule],
            ..hub::Config::default()
        };
        let mut world = Self {
            client: Client::new(Arc::new(Config { version, transports, ..Config::default() })),
            hub: Hub::new(config, [7; 16]),
            version,
            now: Time::ZERO + Duration::from_secs(1),
            ids: 0,
            sid: Sid::new(0, [1; 14]),
            socket: None,
            asked: [None, None],
            pending: [None, None],
            answered: [None, None],
            wire: Wire::None,
            up: Vec::new(),
            down: Vec::new(),
            up_decoder: Decoder::new(Role::Server),
            down_decoder: Decoder::new(Role::Client),
            commands: VecDeque::new(),
            sent_by_client: 0,
            sent_by_server: 0,
            acks_asked: 0,
            acks: Vec::new(),
            heard_by_server: Vec::new(),
            heard_by_client: Vec::new(),
            echoed: Vec::new(),
            closed: None,
            log: Vec::new(),
        };
        world.tell_client(Input::Join { namespace: "/".into(), auth: None });
        world.tell_client(Input::Open);
        world
    }

    /// Does one of the things that may happen next.
    fn step(&mut self, choice: u16) {
        let amount = usize::from(choice >> 8);
        match choice % 16 {
            lane @ 0..=3 => self.deliver_request(usize::from(lane % 2)),
            lane @ 4..=5 => self.deliver_answer(usize::from(lane % 2)),
            6 => self.finish_dialling(),
            7 | 8 => self.deliver_up(1 + amount),
            9 | 10 => self.deliver_down(1 + amount),
            11 => self.client_emits(amount.is_multiple_of(2)),
            12 => self.server_emits(),
            13 => self.tell_hub(wall::Input::TurnEnd),
            14 if amount < 32 => self.cut_probe(),
            // The network is faster than the clock, so heartbeats are kept. Rare, since afterwards
            // nothing is on its way.
            15 if amount < 48 => {
                self.settle();
                self.wait(Duration::from_millis(8 * amount as u64));
            }
            _ => {}
        }
    }

    /// Lets time pass until somebody wants to be woken, or for `at_most`.
    fn wait(&mut self, at_most: Duration) {
        let wakes = [
            self.client.poll_timeout().map(|(at, _)| at),
            self.hub.poll_timeout().map(|(at, _)| at),
            Some(self.now + at_most),
        ];
        self.now = wakes.into_iter().flatten().min().map_or(self.now, |at| at.max(self.now));
        self.tell_client(Input::Timeout);
        self.tell_hub(wall::Input::Timeout);
    }

    /// Delivers all that is on its way.
    fn settle(&mut self) {
        let mut before = usize::MAX;
        while before != self.log.len() {
            before = self.log.len() + 1;
            for lane in [0, 1] {
                self.deliver_request(lane);
                self.deliver_answer(lane);
            }
            self.finish_dialling();
            self.deliver_up(usize::MAX);
            self.deliver_down(usize::MAX);
            self.tell_hub(wall::Input::TurnEnd);
        }
    }

    fn check(&self) {
        let log = || self.log.join("\n");
        assert_eq!(self.closed, None, "{}", log());
        assert!(self.client.is_joined("/"), "{}", log());
        let all = |count: u64| (0..count).collect::<Vec<_>>();
        assert_eq!(self.heard_by_server, all(self.sent_by_client), "{}", log());
        assert_eq!(self.heard_by_client, all(self.sent_by_server), "{}", log());
        assert_eq!(self.acks, all(self.acks_asked), "{}", log());
        assert_eq!(self.echoed.len() as u64 + self.acks_asked, self.sent_by_client, "{}", log());
        assert!(self.echoed.is_sorted(), "{}", log());
        assert_eq!(self.client.queued_bytes(), 0);
        assert_ne!(self.client.phase(), Phase::Pausing);
    }

    fn close(&mut self) {
        self.tell_client(Input::Close);
        self.settle();
        assert_eq!(self.closed, Some(CloseReason::Requested), "{}", self.log.join("\n"));
        assert_eq!(self.hub.session_count(), 0, "{}", self.log.join("\n"));
    }

    fn client_emits(&mut self, ack: bool) {
        let number = self.sent_by_client;
        self.sent_by_client += 1;
        let ack = ack.then(|| {
            self.acks_asked += 1;
            AckRequest { token: self.acks_asked - 1, timeout: Duration::from_secs(86_400) }
        });
        self.tell_client(Input::Emit { namespace: "/".into(), args: event("client", number), ack });
    }

    fn server_emits(&mut self) {
        let Some(socket) = self.socket else { return };
        let args = event("server", self.sent_by_server);
        self.sent_by_server += 1;
        self.tell_hub(wall::Input::Command(Command::Emit {
            socket,
            args,
            ack: None,
            volatile: false,
        }));
    }

    fn deliver_request(&mut self, lane: usize) {
        let Some(request) = self.asked[lane].take() else { return };
        let exchange = ExchangeId(request.id.0);
        self.pending[lane] = Some(request.clone());
        let session = self.sid;
        let input = match request.content() {
            Some((content_type, bytes)) => {
                let binary = content_type == "application/octet-stream";
                let body = PostBody::Whole { body: bytes.clone(), binary };
                wall::Input::Post { exchange, session, body, timestamp: None }
            }
            None if request.target.contains("&sid=") => {
                wall::Input::Get { exchange, session, timestamp: None }
            }
            None => {
                let (origin, handshake) = (Origin::Polling(exchange), self.handshake());
                wall::Input::Open { id: session, origin, handshake }
            }
        };
        self.tell_hub(input);
    }

    fn deliver_answer(&mut self, lane: usize) {
        let Some((request, response)) = self.answered[lane].take() else { return };
        let (status, body) = match response {
            wall::Response::Open { body, .. } | wall::Response::Payload(body) => (200, body),
            wall::Response::Taken => (200, PollBody::Text(Bytes::from_static(b"ok"))),
            wall::Response::Refused(error) => {
                (error.status(), PollBody::Text(error.json().into_bytes().into()))
            }
            wall::Response::Status(status) => (status, PollBody::Text(Bytes::new())),
        };
        let (body, binary) = match body {
            PollBody::Text(body) | PollBody::Script(body) => (body, false),
            PollBody::Binary(body) => (body, true),
        };
        let response = Response::Answered { status, body, binary };
        self.tell_client(Input::Response { id: request.id, response });
    }

    fn finish_dialling(&mut self) {
        let Wire::Dialled { sid } = self.wire else { return };
        self.wire = Wire::Open;
        self.tell_hub(match sid {
            Some(session) => wall::Input::Attach { transport: TRANSPORT, session, deflate: false },
            None => {
                let origin = Origin::WebSocket { transport: TRANSPORT, deflate: false };
                wall::Input::Open { id: self.sid, origin, handshake: self.handshake() }
            }
        });
        self.tell_client(Input::WebSocketOpened);
    }

    fn deliver_up(&mut self, amount: usize) {
        let mut bytes = self.up.drain(..amount.min(self.up.len())).collect::<Vec<_>>();
        let mut input = &mut bytes[..];
        while let Some(incoming) = self.up_decoder.decode(&WEBSOCKET, &mut input).unwrap() {
            let Incoming::Message(message) = incoming else { panic!("{incoming:?}") };
            self.tell_hub(wall::Input::Message { transport: TRANSPORT, message });
        }
        if self.up.is_empty() && self.wire == Wire::Closed {
            self.wire = Wire::None;
            self.tell_hub(wall::Input::Lost { transport: TRANSPORT, why: Lost::Closed });
        }
    }

    fn deliver_down(&mut self, amount: usize) {
        let mut bytes = self.down.drain(..amount.min(self.down.len())).collect::<Vec<_>>();
        let mut input = &mut bytes[..];
        while let Some(incoming) = self.down_decoder.decode(&WEBSOCKET, &mut input).unwrap() {
            let Incoming::Message(message) = incoming else { panic!("{incoming:?}") };
            self.tell_client(Input::Message(message));
        }
    }

    /// Cuts the WebSocket while losing it must not matter.
    fn cut_probe(&mut self) {
        if !matches!(self.client.phase(), Phase::Probing | Phase::Pausing) {
            return;
        }
        let was_open = self.wire == Wire::Open;
        self.wire = Wire::None;
        self.up.clear();
        self.down.clear();
        self.tell_client(Input::WebSocketLost { why: Lost::Failed, detail: String::new() });
        if was_open {
            self.tell_hub(wall::Input::Lost { transport: TRANSPORT, why: Lost::Failed });
        }
    }

    fn handshake(&self) -> Arc<Handshake> {
        Arc::new(Handshake {
            version: self.version,
            poll_style: PollStyle::default(),
            query: String::new(),
            headers: Vec::new(),
            address: None,
            own: false,
        })
    }

    fn tell_client(&mut self, input: Input) {
        self.log.push(format!("client <- {input:?}"));
        self.client.handle_input(self.now, input);
        while let Some(output) = self.client.poll_output() {
            self.log.push(format!("client -> {output:?}"));
            match output {
                Output::Request(request) => {
                    let lane = usize::from(request.body.is_some());
                    assert!(self.pending[lane].is_none(), "one of a kind at a time");
                    assert_eq!(self.asked[lane].replace(request), None, "one of a kind at a time");
                }
                Output::OpenWebSocket { target } => {
                    assert_eq!(self.wire, Wire::None);
                    let sid = target.contains("&sid=").then_some(self.sid);
                    self.wire = Wire::Dialled { sid };
                }
                Output::Send(packet) => {
                    write_frame(&mut self.up, self.version, &packet, [1, 2, 3, 4])
                }
                Output::CloseWebSocket => {
                    if self.wire == Wire::Open {
                        self.wire = Wire::Closed;
                    }
                }
                Output::Event(event) => self.client_hears(event),
            }
        }
    }

    fn client_hears(&mut self, event: Event) {
        assert_eq!(self.closed, None, "nothing comes after the close");
        match event {
            Event::Event { args, ack: None, .. } => match &*args.name().unwrap() {
                "server" => self.heard_by_client.push(number(&args)),
                "client" => self.echoed.push(number(&args)),
                other => panic!("{other}"),
            },
            Event::Ack { token, result, .. } => {
                assert!(result.is_ok(), "{result:?}");
                self.acks.push(token);
            }
            Event::Closed { reason, .. } => self.closed = Some(reason),
            Event::Opened
            | Event::Upgraded
            | Event::UpgradeFailed { .. }
            | Event::Joined { .. } => {}
            Event::Event { .. }
            | Event::JoinFailed { .. }
            | Event::Left { .. }
            | Event::Unsent { .. }
            | Event::Message(_) => panic!("{event:?}"),
        }
    }

    fn tell_hub(&mut self, input: wall::Input) {
        self.log.push(format!("   hub <- {input:?}"));
        let mut next = Some(input);
        while let Some(input) =
            next.take().or_else(|| self.commands.pop_front().map(wall::Input::Command))
        {
            self.hub.handle_input(self.now, input);
            while let Some(output) = self.hub.poll_output() {
                self.log.push(format!("   hub -> {output:?}"));
                match output {
                    wall::Output::Send { mut receivers, frame } => {
                        while self.hub.next_receiver(&mut receivers).is_some() {
                            if self.wire == Wire::Open {
                                self.down.extend_from_slice(&frame);
                            }
                        }
                    }
                    wall::Output::Respond { exchange, response } => {
                        for lane in [0, 1] {
                            if self.pending[lane].as_ref().is_some_and(|it| it.id.0 == exchange.0) {
                                let request = mem::take(&mut self.pending[lane]).unwrap();
                                self.answered[lane] = Some((request, response.clone()));
                            }
                        }
                    }
                    wall::Output::Deliver { event, .. } => self.server_hears(event),
                    wall::Output::Close { .. } => self.wire = Wire::None,
                    wall::Output::Forward(_)
                    | wall::Output::Reached { .. }
                    | wall::Output::Tell { .. }
                    | wall::Output::Settled { .. } => {}
                }
            }
        }
    }

    fn server_hears(&mut self, event: wall::Event) {
        match event {
            wall::Event::Connect { socket, .. } => {
                self.ids += 1;
                let id = Sid::new(0, [self.ids; 14]);
                self.commands.push_back(Command::Accept { socket, id, pid: id });
                self.socket = Some(socket);
            }
            wall::Event::Event { socket, args, ack, .. } => {
                self.heard_by_server.push(number(&args));
                self.commands.push_back(match ack {
                    Some(id) => Command::Ack { socket, id, args: args.rest() },
                    None => Command::Emit { socket, args, ack: None, volatile: false },
                });
            }
            wall::Event::Disconnect { .. } => self.socket = None,
            other => panic!("{other:?}"),
        }
    }
}

/// An event with a number, and in every fifth an attachment.
fn event(name: &str, number: u64) -> Args {
    if number.is_multiple_of(5) {
        let json = format!(r#"["{name}",{number},{{"_placeholder":true,"num":0}}]"#);
        return Args::with_attachments(json, vec![number.to_be_bytes().to_vec().into()]).unwrap();
    }
    Args::new(format!(r#"["{name}",{number}]"#)).unwrap()
}

fn number(args: &Args) -> u64 {
    let values = args.parse::<Vec<serde_json::Value>>().unwrap();
    let number = values[1].as_u64().unwrap();
    if number.is_multiple_of(5) {
        assert_eq!(args.attachments(), [number.to_be_bytes().to_vec()]);
    }
    number
}
