//! The hot paths of the core, for `cargo xtask guard`: `hot PATH` goes one of them [`TIMES`] times, and
//! callgrind counts what happens within [`counted`] and nowhere else.
//!
//! Everything is the same in each run: time, ids and keys come from counters. Continuity is on, so
//! sessions of browsers get offsets and what is emitted goes into the log. Printed is what to divide
//! by, and how often memory was asked for.
#![expect(clippy::print_stdout, reason = "what it says is its output")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env,
    hint::black_box,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_proto::{
    Command, Event, Hub, Input, Output, Sid, SocketKey, Time, TransportId,
    engineio::{self, PollStyle, RequestConfig, RequestHead, Version},
    hub::{Config, Keeping, NamespacePattern, NamespaceRule},
    socketio::Args,
    wall::{Broadcast, Handshake, Origin},
    websocket::{self, DecodeConfig, Decoder, Incoming, OpCode, Role, handshake::check_request},
};
use bytes::Bytes;
use bytestring::ByteString;

/// How often a path is gone before its figures count: until then buffers grow.
const WARM_UP: usize = 200;

/// How often a path is gone that counts. `cargo xtask guard` divides by it.
const TIMES: usize = 1_000;

/// Receivers of the broadcasts that are walked.
const RECEIVERS: usize = 1_000;

/// Sessions whose heartbeats wait in the same queue.
const SESSIONS: usize = 4_000;

/// What an event carries: 64 bytes of text.
const ARGS: &str =
    r#"["message","0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]"#;

/// How often memory was asked for in what counts.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Whether something that counts is being done.
static COUNTS: AtomicBool = AtomicBool::new(false);

/// The system's allocator, counted: a few instructions each time, which are among those that
/// callgrind sees.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator can be written in no other way")]
// SAFETY: every call goes to the system allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(u64::from(COUNTS.load(Relaxed)), Relaxed);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(u64::from(COUNTS.load(Relaxed)), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn main() -> ExitCode {
    let path = env::args().nth(1).unwrap_or_default();
    let times = match path.as_str() {
        "decode" => decode(),
        "emit" => emit(),
        "ack" => ack(),
        "encode" => encode(),
        "encode-room" => encode_room(),
        "fan-out" => fan_out(false, None),
        "fan-out-stamped" => fan_out(true, None),
        "fan-out-room" => fan_out(true, Some(ByteString::from_static("room"))),
        "ping" => heartbeat(true),
        "pong" => heartbeat(false),
        "handshake" => handshake(),
        "turn-end" => turn_end(),
        _ => return ExitCode::from(2),
    };
    println!("times {times} allocations {}", ALLOCATIONS.load(Relaxed));
    ExitCode::SUCCESS
}

/// What callgrind counts.
#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    COUNTS.store(true, Relaxed);
    let done = black_box(work());
    COUNTS.store(false, Relaxed);
    done
}

/// Does something that counts once the warm-up is over.
fn measured<T>(counts: bool, work: impl FnOnce() -> T) -> T {
    if counts { counted(work) } else { work() }
}

/// A frame of an event as it stands in the read buffer, to the event as its handler gets it.
fn decode() -> usize {
    let mut world = World::new();
    let socket = world.join(true, &ByteString::from_static("/"));
    let transport = world.transport_of(socket);
    let mut decoder = Decoder::new(Role::Server);
    for round in 0..WARM_UP + TIMES {
        world.pass(Duration::from_micros(100));
        let mut frame = client_frame(&format!("42{ARGS}"));
        let (hub, now) = (&mut world.hub, world.now);
        let work = || {
            let message = decode_one(&mut decoder, &mut frame);
            hub.handle_input(now, Input::Message { transport, message });
            while let Some(output) = hub.poll_output() {
                black_box(output);
            }
        };
        measured(round >= WARM_UP, work);
    }
    TIMES
}

/// An event for one socket, which goes into the log.
fn emit() -> usize {
    let mut world = World::new();
    let socket = world.join(true, &ByteString::from_static("/"));
    for round in 0..WARM_UP + TIMES {
        let args = world.receive(socket, None);
        world.go(round, Command::Emit { socket, args, ack: None, volatile: false });
    }
    TIMES
}

/// The answer to an event, which goes into the log.
fn ack() -> usize {
    let mut world = World::new();
    let socket = world.join(true, &ByteString::from_static("/"));
    for round in 0..WARM_UP + TIMES {
        let args = world.receive(socket, Some(round as u64)).rest();
        world.go(round, Command::Ack { socket, id: round as u64, args });
    }
    TIMES
}

/// A broadcast to everybody, to the frames of those who get offsets and of those who get none.
fn encode() -> usize {
    let mut world = World::new();
    let namespace = ByteString::from_static("/relay");
    let socket = world.join(true, &namespace);
    world.join(false, &namespace);
    for round in 0..WARM_UP + TIMES {
        let args = world.receive(socket, None);
        world.go(round, Command::Broadcast(broadcast(&namespace, None, args)));
    }
    TIMES
}

/// A broadcast to a room, all of whose members get offsets.
fn encode_room() -> usize {
    let mut world = World::new();
    let namespace = ByteString::from_static("/rooms");
    let socket = world.join(true, &namespace);
    let room = ByteString::from("room".to_owned());
    world.command(Command::Join { socket, room: room.clone() });
    for round in 0..WARM_UP + TIMES {
        let args = world.receive(socket, None);
        world.go(round, Command::Broadcast(broadcast(&namespace, Some(room.clone()), args)));
    }
    TIMES
}

/// The way from one receiver of a broadcast to the next.
fn fan_out(stamped: bool, room: Option<ByteString>) -> usize {
    let mut world = World::new();
    let namespace = ByteString::from_static("/relay");
    for _ in 0..RECEIVERS {
        let socket = world.join(stamped, &namespace);
        if let Some(room) = room.clone() {
            world.command(Command::Join { socket, room });
        }
    }
    let args = args();
    let mut found = 0;
    for _ in 0..TIMES / RECEIVERS * 10 {
        world.pass(Duration::from_micros(100));
        let command = Command::Broadcast(broadcast(&namespace, room.clone(), args.clone()));
        world.hub.handle_input(world.now, Input::Command(command));
        while let Some(output) = world.hub.poll_output() {
            let Output::Send { mut receivers, .. } = output else { continue };
            let hub = &mut world.hub;
            found += counted(|| {
                let mut found = 0;
                while let Some(transport) = hub.next_receiver(&mut receivers) {
                    black_box(transport);
                    found += 1;
                }
                found
            });
        }
    }
    found
}

/// The heartbeats of many sessions, a ping interval long: the pings, or the pongs.
fn heartbeat(ping: bool) -> usize {
    let mut world = World::new();
    let namespace = ByteString::from_static("/");
    let sockets: Vec<SocketKey> = (0..SESSIONS).map(|_| world.join(true, &namespace)).collect();
    let transports: Vec<TransportId> =
        sockets.iter().map(|socket| world.transport_of(*socket)).collect();
    let mut decoder = Decoder::new(Role::Server);
    let mut times = 0;
    for _ in 0..2 * SESSIONS {
        let Some((at, _)) = world.hub.poll_timeout() else { break };
        world.now = at;
        let (hub, now) = (&mut world.hub, world.now);
        let mut pinged = None;
        let work = || {
            hub.handle_input(now, Input::Timeout);
            while let Some(output) = hub.poll_output() {
                let Output::Send { mut receivers, .. } = output else { continue };
                pinged = hub.next_receiver(&mut receivers);
            }
            hub.poll_timeout()
        };
        // Those of the first interval grow the queue.
        let counts = times >= SESSIONS / 2;
        measured(ping && counts, work);
        let Some(transport) = pinged else { continue };
        times += 1;
        world.pass(Duration::from_micros(100));
        let mut frame = client_frame("3");
        let (hub, now) = (&mut world.hub, world.now);
        let work = || {
            let message = decode_one(&mut decoder, &mut frame);
            hub.handle_input(now, Input::Message { transport, message });
            hub.poll_output()
        };
        measured(!ping && counts, work);
        assert!(transports.contains(&transport), "the pings are for these sessions");
    }
    times - SESSIONS / 2
}

/// A browser's request, its session, its CONNECT with 100 bytes of auth, and the answer.
fn handshake() -> usize {
    let mut world = World::new();
    let namespace = ByteString::from_static("/");
    for _ in 0..WARM_UP {
        world.join(true, &namespace);
    }
    for _ in 0..TIMES {
        world.join_counted(true, &namespace);
    }
    TIMES
}

/// The end of a turn after which one record has left the log.
fn turn_end() -> usize {
    let mut world = World::new();
    let namespace = ByteString::from_static("/relay");
    let socket = world.join(true, &namespace);
    for round in 0..WARM_UP + TIMES {
        let args = world.receive(socket, None);
        world.command(Command::Broadcast(broadcast(&namespace, None, args)));
        let (hub, now) = (&mut world.hub, world.now);
        let work = || hub.handle_input(now, Input::TurnEnd);
        measured(round >= WARM_UP, work);
    }
    TIMES
}

fn args() -> Args {
    Args::new(ARGS).unwrap_or_else(|_| unreachable!("the arguments are an array"))
}

fn broadcast(namespace: &ByteString, room: Option<ByteString>, args: Args) -> Broadcast {
    Broadcast {
        namespace: namespace.clone(),
        rooms: room.into_iter().collect(),
        except: Vec::new(),
        args,
        volatile: false,
        report: None,
        ack: None,
        forwarded: false,
        origin: None,
    }
}

/// A text message as a client sends it.
fn client_frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    websocket::encode(&mut frame, OpCode::Text, false, Some([1, 2, 3, 4]), &[text.as_bytes()]);
    frame
}

/// The message of a frame that is all there.
#[inline]
fn decode_one(decoder: &mut Decoder, frame: &mut [u8]) -> websocket::Message {
    let config = DecodeConfig { max_message_bytes: 1_000_000, deflate: false };
    match decoder.decode(&config, &mut &mut *frame) {
        Ok(Some(Incoming::Message(message))) => message,
        other => unreachable!("not a message: {other:?}"),
    }
}

/// A hub, its clients and its handler.
struct World {
    hub: Hub,
    now: Time,
    ids: u64,
    transports: u64,
    /// By the index of a socket in order of joining.
    joined: Vec<(SocketKey, TransportId)>,
    query: String,
    headers: Vec<(String, String)>,
}

impl World {
    fn new() -> Self {
        let rule = |name| NamespaceRule {
            pattern: NamespacePattern::new(name),
            handler: 0,
            keeping: Keeping::default(),
        };
        let namespaces = ["/", "/relay", "/rooms"].into_iter().map(rule).collect();
        let mut config = Config { namespaces, ..Config::default() };
        config.limits.events_per_second = 500_000;
        // Full from the warm-up on, so that each record that comes drives one out.
        config.continuity.log_bytes = 32 * 1024;
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            hub: Hub::new(config, *b"a key of sixteen"),
            now: Time::from_micros(1_000_000),
            ids: 0,
            transports: 0,
            joined: Vec::new(),
            query: "EIO=4&transport=websocket".to_owned(),
            headers: HEADERS.iter().map(header).collect(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// An id that is as random as it needs to be.
    fn id(&mut self) -> Sid {
        let mut random = [0; 14];
        for half in random.chunks_mut(7) {
            self.ids += 1;
            let mut mixed = self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            half.copy_from_slice(&mixed.to_le_bytes()[..7]);
        }
        Sid::new(0, random)
    }

    fn transport_of(&self, socket: SocketKey) -> TransportId {
        let found = self.joined.iter().find(|(joined, _)| *joined == socket);
        found.map_or_else(|| unreachable!("it has joined"), |(_, transport)| *transport)
    }

    /// What is emitted comes from a client most often, and shares its frame.
    fn receive(&mut self, socket: SocketKey, ack: Option<u64>) -> Args {
        self.pass(Duration::from_micros(100));
        self.hub.handle_input(self.now, Input::TurnEnd);
        let transport = self.transport_of(socket);
        let name = self.hub.socket(socket).map(|socket| socket.namespace.clone());
        let name = name.filter(|name| name != "/").map(|name| format!("{name},"));
        let id = ack.map(|id| id.to_string()).unwrap_or_default();
        let mut frame = client_frame(&format!("42{}{id}{ARGS}", name.unwrap_or_default()));
        let message = decode_one(&mut Decoder::new(Role::Server), &mut frame);
        self.hub.handle_input(self.now, Input::Message { transport, message });
        match self.hub.poll_output() {
            Some(Output::Deliver { event: Event::Event { args, .. }, .. }) => args,
            other => unreachable!("not an event: {other:?}"),
        }
    }

    /// A command of the round, which counts once the warm-up is over.
    fn go(&mut self, round: usize, command: Command) {
        let (hub, now) = (&mut self.hub, self.now);
        let work = || {
            hub.handle_input(now, Input::Command(command));
            while let Some(output) = hub.poll_output() {
                black_box(output);
            }
        };
        measured(round >= WARM_UP, work);
    }

    fn command(&mut self, command: Command) {
        self.hub.handle_input(self.now, Input::Command(command));
        while self.hub.poll_output().is_some() {}
    }

    fn join(&mut self, browser: bool, namespace: &ByteString) -> SocketKey {
        let arrival = self.arrive(browser, namespace);
        let socket = let_in(&mut self.hub, self.now, arrival);
        self.joined.push((socket, TransportId(self.transports)));
        socket
    }

    fn join_counted(&mut self, browser: bool, namespace: &ByteString) {
        let arrival = self.arrive(browser, namespace);
        let (hub, now) = (&mut self.hub, self.now);
        let socket = counted(|| let_in(hub, now, arrival));
        self.joined.push((socket, TransportId(self.transports)));
    }

    /// A client at the door.
    fn arrive(&mut self, browser: bool, namespace: &ByteString) -> Arrival {
        self.pass(Duration::from_micros(100));
        self.transports += 1;
        let headers = self.headers.iter().filter(|(name, _)| browser || name != "user-agent");
        let handshake = Handshake {
            version: Version::V4,
            poll_style: PollStyle::default(),
            query: self.query.clone(),
            headers: headers.cloned().collect(),
            address: None,
            own: false,
        };
        let comma = if namespace == "/" { "" } else { "," };
        let name = if namespace == "/" { "" } else { namespace };
        let auth = format!("{{\"token\":\"{}\"}}", "t".repeat(88));
        Arrival {
            transport: TransportId(self.transports),
            ids: [self.id(), self.id(), self.id()],
            handshake: Arc::new(handshake),
            connect: client_frame(&format!("40{name}{comma}{auth}")),
        }
    }
}

/// A client that opens a session and joins a namespace.
struct Arrival {
    transport: TransportId,
    ids: [Sid; 3],
    handshake: Arc<Handshake>,
    connect: Vec<u8>,
}

/// The headers of a browser behind a proxy.
const HEADERS: [(&str, &str); 11] = [
    ("host", "chat.example.com"),
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("origin", "https://example.com"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("cache-control", "no-cache"),
    ("pragma", "no-cache"),
];

#[inline]
fn let_in(hub: &mut Hub, now: Time, arrival: Arrival) -> SocketKey {
    let Arrival { transport, ids: [id, sid, pid], handshake, mut connect } = arrival;
    let head = RequestHead {
        method: "GET",
        query: &handshake.query,
        origin: Some(b"https://example.com"),
        upgrade: true,
    };
    let route = engineio::verify(&head, &RequestConfig::default());
    assert!(route.is_ok(), "the request is a good one");
    let header = |name: &str| {
        let found = handshake.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str().into())
    };
    let upgrade = check_request("GET", header, false);
    assert!(upgrade.is_ok(), "the request is a good one");
    let origin = Origin::WebSocket { transport, deflate: false };
    hub.handle_input(now, Input::Open { id, origin, handshake });
    drain(hub);
    let message = decode_one(&mut Decoder::new(Role::Server), &mut connect);
    hub.handle_input(now, Input::Message { transport, message });
    let socket = match hub.poll_output() {
        Some(Output::Deliver { event: Event::Connect { socket, .. }, .. }) => socket,
        other => unreachable!("nobody asks to be let in: {other:?}"),
    };
    hub.handle_input(now, Input::Command(Command::Accept { socket, id: sid, pid }));
    drain(hub);
    socket
}

fn drain(hub: &mut Hub) {
    while let Some(output) = hub.poll_output() {
        if let Output::Send { mut receivers, frame } = output {
            black_box::<(Option<TransportId>, Bytes)>((hub.next_receiver(&mut receivers), frame));
        }
    }
}
