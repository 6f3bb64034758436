//! The hub itself, driven by a shell without manners: any input in any order, as long as the few
//! things hold that a shell guarantees (numbers are used once, nothing comes from what has gone).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bowline_proto::{
    Command, ExchangeId, Hub, Input, Output, SessionKey, Sid, SocketKey, Time, TransportId,
    engineio::{PollStyle, Version},
    hub::{
        Config, Continuity, Keeping, NamespacePattern, NamespaceRule, OnDoubt, Protocol,
        SessionKeySource, Stamp,
    },
    limit::Limits,
    socketio::Args,
    wall::{
        AckRequest, Broadcast, ErrorCode, Event, Handshake, Lost, Origin, PostBody, SocketData,
    },
    websocket::Message,
};
use bytes::Bytes;
use bytestring::ByteString;

use crate::rng::Rng;

/// Byte 0: Socket.IO or bare, limits. Then steps: a byte that says what, and what it needs.
pub(super) fn hub(data: &[u8]) {
    let Some((settings, data)) = data.split_first() else { return };
    let mut shell = Shell::new(*settings);
    let mut rest = data;
    while let Some((step, tail)) = rest.split_first() {
        let mut bytes = Source { bytes: tail };
        shell.step(*step, &mut bytes);
        rest = bytes.bytes;
    }
    shell.end();
}

/// Reads what a step needs; zeros when there is nothing left.
struct Source<'a> {
    bytes: &'a [u8],
}

impl<'a> Source<'a> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *byte
    }

    /// One of `all`, counted from the newest.
    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let index = usize::from(self.byte());
        all.len().checked_sub(1)?;
        all.iter().rev().nth(index % all.len()).copied()
    }

    /// A byte with a length, and as many bytes.
    fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        piece
    }

    fn text(&mut self) -> ByteString {
        String::from_utf8_lossy(self.piece()).into_owned().into()
    }
}

struct Shell {
    settings: u8,
    hub: Hub,
    now: Time,
    numbers: u64,
    sids: Vec<Sid>,
    /// WebSockets that neither side has closed, in order of their number.
    transports: Vec<TransportId>,
    /// Requests that are neither answered nor gone, and which were begun with only their head.
    exchanges: Vec<ExchangeId>,
    begun: BTreeMap<ExchangeId, Sid>,
    /// Sockets that were told of, and not that they left.
    sockets: Vec<SocketKey>,
    accepted: BTreeSet<SocketKey>,
    tokens: BTreeSet<u64>,
    /// Broadcasts that asked for acks: how many receivers they had, and how many were told of.
    asked: BTreeMap<u64, (Option<usize>, usize)>,
    sessions: BTreeSet<SessionKey>,
    /// Those that sockets were given to come back with.
    pids: Vec<Sid>,
}

fn config(settings: u8) -> Config {
    let tight = settings & 2 != 0;
    let limits = Limits {
        packets_per_payload: if tight { 4 } else { 4_096 },
        namespaces_per_session: if tight { 2 } else { 64 },
        rooms_per_session: if tight { 2 } else { 10_000 },
        pending_acks_per_session: if tight { 2 } else { 1_024 },
        events_per_second: if tight { 5 } else { 10_000 },
        queued_bytes_per_session: if tight { 1_000 } else { 4_194_304 },
        ..Limits::default()
    };
    let rule = |pattern| NamespaceRule {
        pattern: NamespacePattern::new(pattern),
        handler: 0,
        keeping: Keeping {
            stamp: if settings & 32 == 0 { Stamp::Auto } else { Stamp::Always },
            on_doubt: if settings & 64 == 0 { OnDoubt::Repeat } else { OnDoubt::Skip },
            session_key: (settings & 16 != 0).then(|| SessionKeySource::Cookie("d".into())),
            event_id: None,
        },
    };
    let defaults = Config::default();
    Config {
        protocol: if settings & 1 == 0 { Protocol::SocketIo } else { Protocol::EngineIo(0) },
        shards: if settings & 4 == 0 { 1 } else { 2 },
        allow_eio3: settings & 8 == 0,
        keep_headers: settings & 16 != 0,
        ping_interval: if settings & 32 == 0 { defaults.ping_interval } else { SHORT },
        ping_timeout: if settings & 64 == 0 { defaults.ping_timeout } else { SHORT },
        limits,
        continuity: Continuity {
            log_bytes: if tight { 2_000 } else { 256_000_000 },
            away_max: if tight { 2 } else { 100_000 },
            ..Continuity::default()
        },
        namespaces: match settings & 128 {
            0 => vec![rule("/"), rule("/n*")],
            _ => vec![rule("/n*")],
        },
        ..defaults
    }
}

const SHORT: Duration = Duration::from_secs(1);

impl Shell {
    fn new(settings: u8) -> Self {
        Self {
            settings,
            hub: Hub::new(config(settings), [9; 16]),
            now: Time::ZERO,
            numbers: 0,
            sids: Vec::new(),
            transports: Vec::new(),
            exchanges: Vec::new(),
            begun: BTreeMap::new(),
            sockets: Vec::new(),
            accepted: BTreeSet::new(),
            tokens: BTreeSet::new(),
            asked: BTreeMap::new(),
            sessions: BTreeSet::new(),
            pids: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn exchange(&mut self) -> ExchangeId {
        let exchange = ExchangeId(self.number());
        self.exchanges.push(exchange);
        exchange
    }

    fn transport(&mut self) -> TransportId {
        let transport = TransportId(self.number());
        self.transports.push(transport);
        transport
    }

    fn sid(&mut self) -> Sid {
        let mut random = [0; 14];
        random[..8].copy_from_slice(&self.number().to_le_bytes());
        Sid::new(0, random)
    }

    fn step(&mut self, step: u8, source: &mut Source<'_>) {
        let input = match step % 16 {
            0 | 1 => self.open(source),
            2 => match source.pick(&self.sids) {
                Some(session) => Input::Get { exchange: self.exchange(), session, timestamp: None },
                None => return,
            },
            3 => match source.pick(&self.sids) {
                Some(session) => {
                    let exchange = self.exchange();
                    self.begun.insert(exchange, session);
                    Input::Post { exchange, session, body: PostBody::Begun, timestamp: None }
                }
                None => return,
            },
            4 => match self.post(source) {
                Some(input) => input,
                None => return,
            },
            5 => match source.pick(&self.sids) {
                Some(session) => {
                    let deflate = source.byte() & 1 != 0;
                    Input::Attach { transport: self.transport(), session, deflate }
                }
                None => return,
            },
            6..9 => match source.pick(&self.transports) {
                Some(transport) => {
                    let message = match step & 16 {
                        0 => Message::Text(source.text()),
                        _ => Message::Binary(Bytes::copy_from_slice(source.piece())),
                    };
                    Input::Message { transport, message }
                }
                None => return,
            },
            9 => match source.pick(&self.transports) {
                Some(transport) => {
                    self.transports.retain(|other| *other != transport);
                    let all = [Lost::Closed, Lost::Failed, Lost::Protocol, Lost::TooBig];
                    Input::Lost { transport, why: source.pick(&all).unwrap_or(Lost::Closed) }
                }
                None => return,
            },
            10 => match source.pick(&self.exchanges) {
                Some(exchange) => {
                    self.exchanges.retain(|other| *other != exchange);
                    self.begun.remove(&exchange);
                    Input::Aborted { exchange }
                }
                None => return,
            },
            11 => match source.pick(&self.transports) {
                Some(transport) => {
                    Input::Backlog { transport, bytes: usize::from(source.byte()) * 100 }
                }
                None => return,
            },
            12 if step & 32 != 0 => {
                // What runs on the sessions, and how many shards there are, stays as it was.
                let settings = self.settings & 5 | source.byte() & !5;
                Input::Configure(Box::new(config(settings)))
            }
            12 => Input::TurnEnd,
            13 => {
                self.now += Duration::from_millis(1 << (source.byte() % 18));
                Input::Timeout
            }
            14 if step & 32 != 0 => match self.come_back(source) {
                Some(input) => input,
                None => return,
            },
            _ => match self.command(source) {
                Some(input) => input,
                None => return,
            },
        };
        self.feed(input);
    }

    fn open(&mut self, source: &mut Source<'_>) -> Input {
        let settings = source.byte();
        let id = self.sid();
        self.sids.push(id);
        let version = if settings & 1 == 0 { Version::V4 } else { Version::V3 };
        let origin = match settings & 2 {
            0 => Origin::Polling(self.exchange()),
            _ => Origin::WebSocket { transport: self.transport(), deflate: settings & 4 != 0 },
        };
        let jsonp = (settings & 16 != 0).then(|| "0".into());
        let handshake = Handshake {
            version,
            poll_style: PollStyle { base64: settings & 8 != 0, jsonp },
            query: String::new(),
            headers: [(32, "user-agent", "Mozilla/5.0"), (64, "cookie", "d=1")]
                .into_iter()
                .filter(|(bit, ..)| settings & bit != 0)
                .map(|(_, name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            address: None,
            own: false,
        };
        Input::Open { id, origin, handshake: Arc::new(handshake) }
    }

    /// A client shows the pid of a socket.
    fn come_back(&self, source: &mut Source<'_>) -> Option<Input> {
        let (transport, pid) = (source.pick(&self.transports)?, source.pick(&self.pids)?);
        let offset = match source.byte() {
            0 => String::new(),
            number => format!(",\"offset\":\"0.0.{number}\""),
        };
        let namespace = if source.byte() & 1 == 0 { "" } else { "/n1," };
        let text = format!("40{namespace}{{\"pid\":\"{pid}\"{offset}}}");
        Some(Input::Message { transport, message: Message::Text(text.into()) })
    }

    fn post(&mut self, source: &mut Source<'_>) -> Option<Input> {
        let settings = source.byte();
        let begun: Vec<(ExchangeId, Sid)> = self.begun.iter().map(|(e, s)| (*e, *s)).collect();
        let (exchange, session) = match source.pick(&begun) {
            Some(begun) if settings & 1 == 0 => begun,
            _ => {
                let session = source.pick(&self.sids)?;
                (self.exchange(), session)
            }
        };
        self.begun.remove(&exchange);
        let body = match settings & 6 {
            6 => PostBody::TooBig,
            form => {
                let body = Bytes::copy_from_slice(source.piece());
                PostBody::Whole { body, binary: form == 4 }
            }
        };
        Some(Input::Post { exchange, session, body, timestamp: None })
    }

    fn command(&mut self, source: &mut Source<'_>) -> Option<Input> {
        let kind = source.byte() % 14;
        if let 9..12 = kind {
            let sessions: Vec<SessionKey> = self.hub.sessions().collect();
            let session = source.pick(&sessions)?;
            return Some(match kind {
                9 => Input::Drain { session },
                10 => Input::Command(Command::Close { session }),
                _ => {
                    let message = Message::Text(source.text());
                    Input::Command(Command::Send { session, message })
                }
            });
        }
        let socket = source.pick(&self.sockets)?;
        let args = |source: &mut Source<'_>| match source.byte() & 1 {
            0 => Args::new("[\"a\",1]"),
            _ => {
                let json = "[\"b\",{\"_placeholder\":true,\"num\":0}]";
                Args::with_attachments(json, vec![Bytes::copy_from_slice(source.piece())])
            }
        };
        let rooms = |source: &mut Source<'_>| -> Vec<ByteString> {
            let count = source.byte() % 3;
            (0..count)
                .map(|_| ByteString::from(["x", "y", "z"][usize::from(source.byte() % 3)]))
                .collect()
        };
        let room = |source: &mut Source<'_>| rooms(source).pop().unwrap_or_default();
        Some(Input::Command(match kind {
            0 => Command::Refuse { socket, message: "no".into(), data: None },
            1 => {
                let volatile = source.byte() & 1 != 0;
                let token = self.number();
                let timeout = Duration::from_millis(1 << (source.byte() % 16));
                let ack = source.byte() & 1 != 0;
                let ack = ack.then_some(AckRequest { token, timeout });
                if self.accepted.contains(&socket) && ack.is_some() && !volatile {
                    self.tokens.insert(token);
                }
                let ack = ack.filter(|_| !volatile);
                Command::Emit { socket, args: args(source).ok()?, ack, volatile }
            }
            2 => Command::Ack { socket, id: u64::from(source.byte()), args: args(source).ok()? },
            3 | 4 => {
                let namespace = if source.byte() & 1 == 0 { "/".into() } else { "/n1".into() };
                let (rooms, except, args) = (rooms(source), rooms(source), args(source).ok()?);
                let (how, whence) = (source.byte(), source.byte());
                let token = self.number();
                let ack = (how & 2 != 0).then(|| {
                    self.asked.insert(token, (None, 0));
                    Box::new(AckRequest { token, timeout: Duration::from_millis(1 << (how >> 4)) })
                });
                Command::Broadcast(Broadcast {
                    namespace,
                    rooms,
                    except,
                    args,
                    volatile: how & 1 != 0,
                    report: Some(token),
                    ack,
                    forwarded: whence & 1 != 0,
                    origin: None,
                })
            }
            5 | 6 => Command::Join { socket, room: room(source) },
            7 => Command::Leave { socket, room: room(source) },
            12 => {
                let text = ["", "a", "b"].get(usize::from(source.byte() % 4));
                let data = text.and_then(|text| SocketData::new(text).ok());
                Command::SetData { socket, data }
            }
            13 => {
                let after = match source.byte() % 17 {
                    16 => Duration::MAX,
                    power => Duration::from_millis(1 << power),
                };
                Command::Expire { socket, after, code: ErrorCode::TokenExpired }
            }
            _ => Command::Disconnect { socket, close: source.byte() & 1 != 0 },
        }))
    }

    /// Hands over one input and carries out what comes of it; connects are accepted at once but for
    /// those that the input refuses later.
    fn feed(&mut self, input: Input) {
        let members = self.accepted.len();
        self.hub.handle_input(self.now, input);
        let mut asked = Vec::new();
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Send { mut receivers, .. } => {
                    let mut once = BTreeSet::new();
                    while let Some(transport) = self.hub.next_receiver(&mut receivers) {
                        assert!(once.insert(transport), "twice to {transport:?}");
                        assert!(self.transports.contains(&transport), "to {transport:?}, gone");
                    }
                }
                Output::Close { transport, .. } => {
                    assert!(self.transports.contains(&transport), "{transport:?} closed twice");
                    self.transports.retain(|other| *other != transport);
                }
                Output::Respond { exchange, .. } => {
                    assert!(self.exchanges.contains(&exchange), "{exchange:?} answered twice");
                    self.exchanges.retain(|other| *other != exchange);
                    self.begun.remove(&exchange);
                }
                Output::Deliver { event, .. } => asked.extend(self.hear(event)),
                Output::Forward(broadcast) => assert!(broadcast.forwarded),
                Output::Tell { .. } | Output::Settled { .. } => {}
                Output::Reached { report, receivers } => {
                    assert!(receivers <= members);
                    if let Some((count, _)) = self.asked.get_mut(&report) {
                        assert_eq!(count.replace(receivers), None, "counted twice");
                    }
                }
            }
        }
        for (index, socket) in asked.into_iter().enumerate() {
            if !self.sockets.contains(&socket) || index % 4 == 3 {
                continue;
            }
            let (id, pid) = (self.sid(), self.sid());
            self.accepted.insert(socket);
            self.pids.push(pid);
            self.feed(Input::Command(Command::Accept { socket, id, pid }));
        }
    }

    /// Says which socket waits for an answer.
    fn hear(&mut self, event: Event) -> Option<SocketKey> {
        match event {
            Event::Connect { socket, .. } => {
                assert!(!self.sockets.contains(&socket), "a key was given twice");
                self.sockets.push(socket);
                return Some(socket);
            }
            Event::Event { socket, .. } => assert!(self.accepted.contains(&socket)),
            Event::Return { socket, .. } => {
                assert!(self.accepted.contains(&socket));
                return Some(socket);
            }
            Event::Away { socket, .. } | Event::Back { socket } => {
                assert!(self.accepted.contains(&socket));
            }
            Event::Ack { token, .. } => match self.asked.get_mut(&token) {
                Some((_, answered)) => *answered += 1,
                None => assert!(self.tokens.remove(&token), "an ack told twice"),
            },
            Event::Disconnect { socket, .. } => {
                assert!(self.sockets.contains(&socket), "{socket:?} left twice");
                self.sockets.retain(|other| *other != socket);
                self.accepted.remove(&socket);
            }
            Event::Open { session, .. } => assert!(self.sessions.insert(session)),
            Event::Message { session, .. } => assert!(self.sessions.contains(&session)),
            Event::Close { session, .. } => assert!(self.sessions.remove(&session)),
        }
        None
    }

    /// Time passes, and nobody says anything: everything ends.
    fn end(&mut self) {
        self.feed(Input::TurnEnd);
        let mut steps = 0;
        while let Some((at, _)) = self.hub.poll_timeout() {
            self.now = self.now.max(at);
            self.feed(Input::Timeout);
            steps += 1;
            assert!(steps < 100_000, "timers without end");
        }
        assert_eq!(self.hub.session_count(), 0, "sessions that never end");
        assert_eq!(self.hub.away_count(), 0, "sockets that are away for ever");
        assert_eq!(self.hub.sessions_by_transport(), (0, 0));
        assert_eq!(self.transports, [], "WebSockets that nobody closed");
        // A body that never came is the shell's to give up; the session that waited has answered.
        assert_eq!(self.exchanges, [], "requests that nobody answered");
        for (count, answered) in self.asked.values() {
            assert_eq!(*count, Some(*answered), "each receiver is told of once");
        }
        assert!(self.tokens.is_empty(), "acks that were never told of: {:?}", self.tokens);
        assert!(self.sessions.is_empty());
        // Those that were refused are not said to have left.
        assert!(self.sockets.iter().all(|socket| !self.accepted.contains(socket)));
    }
}

pub(super) fn valid_hub(rng: &mut Rng) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "40",
        "40/n1,",
        "41",
        "42[\"a\"]",
        "421[\"a\",{\"b\":1}]",
        "42/n1,[\"a\"]",
        "2probe",
        "5",
        "3",
        "2",
        "1",
        "430[]",
        "451-[\"a\",{\"_placeholder\":true,\"num\":0}]",
        "40/other,",
        "4rubbish",
        "",
    ];
    let mut out = vec![rng.byte() & 0x7f & if rng.one_in(4) { 0xff } else { 0xfe }];
    for _ in 0..2 + rng.below(60) {
        let step = if out.len() < 8 { 0 } else { rng.byte() % 64 };
        out.push(step);
        match step % 16 {
            4 => {
                out.extend([rng.byte() & 3, 0, 0]);
                let text = rng.pick(&WORDS);
                out.push(u8::try_from(text.len()).unwrap_or_default());
                out.extend_from_slice(text.as_bytes());
            }
            6..9 => {
                out.push(rng.byte() % 3);
                let text = rng.pick(&WORDS);
                out.push(u8::try_from(text.len()).unwrap_or_default());
                out.extend_from_slice(text.as_bytes());
            }
            _ => out.extend((0..rng.below(5)).map(|_| rng.byte())),
        }
    }
    out
}
