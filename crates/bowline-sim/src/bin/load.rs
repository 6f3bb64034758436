//! The load tool of the benchmarks: one thread, one epoll, frames encoded beforehand, so that it
//! costs less than the servers it measures. It also contains the floor that they are measured
//! against: a server that is nothing but epoll and write(2). `bench/README.md` says how it is used.
//!
//! To be replaced by `crates/bowline-load`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    process::ExitCode,
    str::FromStr,
    time::{Duration, Instant},
};

use bowline_sim::clock::now;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

const USAGE: &str = "\
load floor     --listen ADDR [--fanout true]
load idle      --target ADDR --pid PID[,PID] [--sessions 10000] [--settle 2]
load echo      --target ADDR --pid PID[,PID] [--sessions 100] [--messages 100000] [--window 1]
load broadcast --target ADDR --pid PID[,PID] [--sessions 1000] [--rounds 200] [--burst 1]

idle       opens sessions that then do nothing: memory of the server for each, CPU time for each join
echo       each session sends an event and awaits it `window` times over: CPU time for each event
broadcast  one session emits `burst` events at once to all in /relay: CPU time for each delivery

Further: --wire socketio|raw (raw: no protocol, for the floor), --bytes 64 (length of the text that
an event carries), --parallel 64 (sessions that join at once). One line of JSON comes out.
";

/// Bytes read at once. A burst of broadcasts to one receiver fits many times over.
const READ_BYTES: usize = 64 * 1024;
/// Events taken from epoll at once.
const EVENTS_MAX: usize = 1024;
/// How long nothing may arrive before a measurement has failed.
const STALL: Duration = Duration::from_secs(30);
/// What the floor says when it has accepted: without a protocol nothing else tells.
const HELLO: &[u8] = b"0";
/// Frames of a client must be masked; with this key a server has the whole work of unmasking.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The bytes of the auth object of each session.
const AUTH_BYTES: usize = 100;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let mut options = Options::parse(args)?;
    let result = match command.as_str() {
        "floor" => {
            let floor =
                Floor { listen: options.required("listen")?, fanout: options.or("fanout", false)? };
            options.finish()?;
            return floor.serve();
        }
        "idle" => idle(&mut options)?,
        "echo" => echo(&mut options)?,
        "broadcast" => broadcast(&mut options)?,
        _ => return Err(io::Error::other(format!("usage:\n{USAGE}"))),
    };
    println!("{result}");
    Ok(())
}

/// Opens sessions that then do nothing.
fn idle(options: &mut Options) -> io::Result<String> {
    let server = Server::from_options(options)?;
    let setup = Setup::from_options(options, "/", 10_000)?;
    let settle = Duration::from_secs_f64(options.or("settle", 2.0)?);
    options.finish()?;

    let before = server.rss_bytes()?;
    let cpu_before = server.cpu()?;
    let mut fleet = Fleet::new(&setup)?;
    fleet.open(setup.sessions / 2)?;
    fleet.rest(settle)?;
    let half = server.rss_bytes()?;
    fleet.open(setup.sessions)?;
    let cpu = server.cpu()? - cpu_before;
    fleet.rest(settle)?;
    let after = server.rss_bytes()?;
    let sessions = fleet.connections.len();
    drop(fleet);
    std::thread::sleep(settle);

    let mut line = Line::new("idle", sessions);
    line.number("rss_before_bytes", before as f64);
    line.number("rss_after_bytes", after as f64);
    line.number("rss_closed_bytes", server.rss_bytes()? as f64);
    line.number("session_bytes", (after as f64 - before as f64) / sessions as f64);
    // The second half alone leaves out what the server sets up once.
    let second_half = sessions - setup.sessions / 2;
    line.number("further_session_bytes", (after as f64 - half as f64) / second_half as f64);
    line.number("join_us", micros(cpu) / sessions as f64);
    Ok(line.end())
}

/// Sends events that come back.
fn echo(options: &mut Options) -> io::Result<String> {
    let server = Server::from_options(options)?;
    let setup = Setup::from_options(options, "/", 100)?;
    let messages: usize = options.or("messages", 100_000)?;
    let window: usize = options.or("window", 1)?;
    options.finish()?;

    let mut fleet = Fleet::new(&setup)?;
    fleet.open(setup.sessions)?;
    let frame = setup.event_frame();
    let mut measured = None;
    // A tenth more goes ahead, to warm up.
    for count in [messages / 10, messages] {
        let begun = (server.cpu()?, own_cpu()?, now());
        let mut sent = 0;
        for _ in 0..window {
            for index in 0..fleet.connections.len() {
                fleet.send(index, &frame)?;
                sent += 1;
            }
        }
        let mut received = 0;
        while received < sent {
            for (index, count_here) in fleet.turn(STALL)? {
                received += count_here;
                let again = count_here.min(count.saturating_sub(sent));
                for _ in 0..again {
                    fleet.send(index, &frame)?;
                }
                sent += again;
            }
        }
        measured = Some((begun, received));
    }
    let Some(((cpu, own, begun), count)) = measured else { return Err(stalled()) };
    Line::measured("echo", &fleet, &server, (cpu, own, begun), count)
}

/// Emits events that everybody receives.
fn broadcast(options: &mut Options) -> io::Result<String> {
    let server = Server::from_options(options)?;
    let setup = Setup::from_options(options, "/relay", 1000)?;
    let rounds: usize = options.or("rounds", 200)?;
    let burst: usize = options.or("burst", 1)?;
    options.finish()?;

    let mut fleet = Fleet::new(&setup)?;
    fleet.open(setup.sessions)?;
    // A burst arrives at once, in one write: the server may then send it on in one.
    let frames = setup.event_frame().repeat(burst);
    let mut measured = None;
    for rounds in [rounds / 10, rounds] {
        let begun = (server.cpu()?, own_cpu()?, now());
        let mut received = 0;
        for round in 0..rounds {
            fleet.send(round % setup.sessions, &frames)?;
            while received < (round + 1) * burst * setup.sessions {
                received += fleet.turn(STALL)?.iter().map(|(_, count)| count).sum::<usize>();
            }
        }
        measured = Some((begun, received));
    }
    let Some(((cpu, own, begun), count)) = measured else { return Err(stalled()) };
    Line::measured("broadcast", &fleet, &server, (cpu, own, begun), count)
}

/// What the sessions of a measurement have in common.
struct Setup {
    target: SocketAddr,
    wire: Wire,
    namespace: &'static str,
    sessions: usize,
    text_bytes: usize,
    parallel: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Socket.IO 5 over Engine.IO 4, WebSocket only.
    SocketIo,
    /// The same bytes, but no protocol: all that arrives is counted by its length.
    Raw,
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "socketio" => Ok(Self::SocketIo),
            "raw" => Ok(Self::Raw),
            _ => Err("socketio or raw".into()),
        }
    }
}

impl Setup {
    fn from_options(
        options: &mut Options,
        namespace: &'static str,
        sessions: usize,
    ) -> io::Result<Self> {
        let setup = Self {
            target: options.required("target")?,
            wire: options.or("wire", Wire::SocketIo)?,
            namespace,
            sessions: options.or("sessions", sessions)?,
            text_bytes: options.or("bytes", 64)?,
            parallel: options.or("parallel", 64)?,
        };
        if setup.sessions == 0 {
            Err(io::Error::other("--sessions must be at least 1"))
        } else {
            Ok(setup)
        }
    }

    fn namespace_prefix(&self) -> String {
        if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) }
    }

    /// One event, as a client sends it.
    fn event_frame(&self) -> Vec<u8> {
        masked_frame(&format!(
            "42{}[\"message\",\"{}\"]",
            self.namespace_prefix(),
            "x".repeat(self.text_bytes)
        ))
    }

    /// The CONNECT packet, with an auth object of 100 bytes.
    fn connect_frame(&self) -> Vec<u8> {
        let token = "t".repeat(AUTH_BYTES - r#"{"token":""}"#.len());
        masked_frame(&format!("40{}{{\"token\":\"{token}\"}}", self.namespace_prefix()))
    }

    /// The upgrade request of a session, with the headers of a browser, but no offer to compress:
    /// aiohttp would take it.
    fn upgrade_request(&self, number: usize) -> String {
        format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n\
             Host: {target}\r\n\
             Connection: Upgrade\r\n\
             Pragma: no-cache\r\n\
             Cache-Control: no-cache\r\n\
             User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
             Upgrade: websocket\r\n\
             Origin: http://{target}\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Accept-Encoding: gzip, deflate, br, zstd\r\n\
             Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
             Cookie: session=1f0c9a55-5e2e-4c63-9d5c-{number:012}; theme=dark; consent=all\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             DNT: 1\r\n\r\n",
            target = self.target,
        )
    }
}

/// One text frame of a client with this payload.
fn masked_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | length as u8),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((text.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// All sessions of a measurement.
struct Fleet<'a> {
    setup: &'a Setup,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    joined: usize,
    buffer: Vec<u8>,
    connect: Vec<u8>,
    pong: Vec<u8>,
    raw_bytes: usize,
}

struct Connection {
    stream: TcpStream,
    state: State,
    /// The beginning of something that has not arrived whole.
    partial: Vec<u8>,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Awaits the TCP connection.
    Connecting,
    /// Awaits `101 Switching Protocols`.
    Upgrading,
    /// Awaits the open packet.
    Opening,
    /// Awaits the answer to CONNECT.
    Joining,
    Joined,
}

impl<'a> Fleet<'a> {
    fn new(setup: &'a Setup) -> io::Result<Self> {
        Ok(Self {
            setup,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            connections: Vec::with_capacity(setup.sessions),
            joined: 0,
            buffer: vec![0; READ_BYTES],
            connect: setup.connect_frame(),
            pong: masked_frame("3"),
            raw_bytes: setup.event_frame().len(),
        })
    }

    /// Opens sessions until there are so many, and waits until all have joined.
    fn open(&mut self, sessions: usize) -> io::Result<()> {
        while self.joined < sessions {
            while self.connections.len() < sessions
                && self.connections.len() - self.joined < self.setup.parallel
            {
                let mut stream = TcpStream::connect(self.setup.target)?;
                stream.set_nodelay(true)?;
                let token = Token(self.connections.len());
                self.poll.registry().register(
                    &mut stream,
                    token,
                    Interest::READABLE | Interest::WRITABLE,
                )?;
                self.connections.push(Connection {
                    stream,
                    state: State::Connecting,
                    partial: Vec::new(),
                    unsent: Vec::new(),
                });
            }
            self.turn(STALL)?;
        }
        Ok(())
    }

    /// Does no more than answer pings for a while.
    fn rest(&mut self, duration: Duration) -> io::Result<()> {
        let end = now() + duration;
        while let Some(left) = end.checked_duration_since(now()) {
            self.poll.poll(&mut self.events, Some(left))?;
            self.take_events()?;
        }
        Ok(())
    }

    /// Waits for something to happen. Returns the events that sessions received, as (session, how many).
    fn turn(&mut self, timeout: Duration) -> io::Result<Vec<(usize, usize)>> {
        self.poll.poll(&mut self.events, Some(timeout))?;
        if self.events.is_empty() { Err(stalled()) } else { self.take_events() }
    }

    fn take_events(&mut self) -> io::Result<Vec<(usize, usize)>> {
        let mut deliveries = Vec::new();
        let ready: Vec<(usize, bool, bool)> = self
            .events
            .iter()
            .map(|event| (event.token().0, event.is_writable(), event.is_readable()))
            .collect();
        for (index, writable, readable) in ready {
            if writable {
                self.handle_writable(index)?;
            }
            if readable {
                let count = self.handle_readable(index)?;
                if count > 0 {
                    deliveries.push((index, count));
                }
            }
        }
        Ok(deliveries)
    }

    fn handle_writable(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if connection.state == State::Connecting {
            if let Some(error) = connection.stream.take_error()? {
                return Err(error);
            }
            match self.setup.wire {
                Wire::SocketIo => {
                    connection.state = State::Upgrading;
                    let request = self.setup.upgrade_request(index);
                    self.send(index, request.as_bytes())?;
                }
                Wire::Raw => connection.state = State::Joining,
            }
        } else if !connection.unsent.is_empty() {
            let unsent = std::mem::take(&mut connection.unsent);
            self.send(index, &unsent)?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if !connection.unsent.is_empty() {
            connection.unsent.extend(bytes);
            return Ok(());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match connection.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.unsent = rest.to_vec();
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads all there is. Returns how many events it held.
    fn handle_readable(&mut self, index: usize) -> io::Result<usize> {
        let mut events = 0;
        loop {
            let connection = &mut self.connections[index];
            let read = match connection.stream.read(&mut self.buffer) {
                Ok(0) => {
                    return Err(io::Error::other(format!("the server closed session {index}")));
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            events += self.take_bytes(index, read)?;
            // A short read has emptied the socket: what comes later wakes us again.
            if read < READ_BYTES {
                return Ok(events);
            }
        }
    }

    fn take_bytes(&mut self, index: usize, read: usize) -> io::Result<usize> {
        let connection = &mut self.connections[index];
        if self.setup.wire == Wire::Raw {
            let mut bytes = connection.partial.len() + read;
            if connection.state == State::Joining {
                connection.state = State::Joined;
                self.joined += 1;
                bytes -= HELLO.len();
            }
            connection.partial.resize(bytes % self.raw_bytes, 0);
            return Ok(bytes / self.raw_bytes);
        }

        let mut joined;
        let mut input = &self.buffer[..read];
        if !connection.partial.is_empty() {
            joined = std::mem::take(&mut connection.partial);
            joined.extend(input);
            input = &joined;
        }
        if connection.state == State::Upgrading {
            let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
                connection.partial = input.to_vec();
                return Ok(0);
            };
            if !input.starts_with(b"HTTP/1.1 101") {
                return Err(io::Error::other(format!(
                    "no upgrade: {}",
                    String::from_utf8_lossy(&input[..end])
                )));
            }
            connection.state = State::Opening;
            input = &input[end + 4..];
        }

        let mut replies = Replies { events: 0, connects: 0, pongs: 0, joined: 0 };
        while let Some((payload, rest)) = split_frame(input) {
            replies.take(connection, payload)?;
            input = rest;
        }
        if !input.is_empty() {
            connection.partial = input.to_vec();
        }
        self.joined += replies.joined;
        for _ in 0..replies.connects {
            let frame = self.connect.clone();
            self.send(index, &frame)?;
        }
        for _ in 0..replies.pongs {
            let frame = self.pong.clone();
            self.send(index, &frame)?;
        }
        Ok(replies.events)
    }
}

/// What the packets of one read ask for.
struct Replies {
    events: usize,
    connects: usize,
    pongs: usize,
    joined: usize,
}

impl Replies {
    fn take(&mut self, connection: &mut Connection, payload: &[u8]) -> io::Result<()> {
        match (payload, connection.state) {
            ([b'4', b'2', ..], State::Joined) => self.events += 1,
            ([b'2'], _) => self.pongs += 1,
            ([b'0', ..], State::Opening) => {
                connection.state = State::Joining;
                self.connects += 1;
            }
            ([b'4', b'0', ..], State::Joining) => {
                connection.state = State::Joined;
                self.joined += 1;
            }
            _ => {
                return Err(io::Error::other(format!(
                    "packet {}",
                    String::from_utf8_lossy(payload)
                )));
            }
        }
        Ok(())
    }
}

/// The payload of the first frame of a server, and what follows; none while it is incomplete.
fn split_frame(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let length_byte = *input.get(1)?;
    let (header, length) = match length_byte {
        126 => (4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    let rest = &input[header..];
    (rest.len() >= length).then(|| rest.split_at(length))
}

/// The processes of the server that is measured.
struct Server {
    pids: Vec<u32>,
}

impl Server {
    fn from_options(options: &mut Options) -> io::Result<Self> {
        let list: String = options.required("pid")?;
        let pids =
            list.split(',').map(str::parse).collect::<Result<_, _>>().map_err(io::Error::other)?;
        Ok(Self { pids })
    }

    fn cpu(&self) -> io::Result<Duration> {
        self.pids.iter().map(|pid| cpu(&pid.to_string())).sum()
    }

    /// Resident bytes, shared pages included.
    fn rss_bytes(&self) -> io::Result<u64> {
        self.pids
            .iter()
            .map(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
                let kib = line
                    .and_then(|line| line.trim().strip_suffix(" kB"))
                    .and_then(|kib| kib.parse::<u64>().ok());
                kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
            })
            .sum()
    }
}

fn own_cpu() -> io::Result<Duration> {
    cpu("self")
}

/// The time that the threads of a process have run, by the scheduler's own count: `/proc/PID/stat`
/// counts in hundredths of a second, which is coarse for a short measurement.
fn cpu(pid: &str) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two reads.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let ran = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        nanoseconds += ran.ok_or_else(|| io::Error::other("unreadable schedstat"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn stalled() -> io::Error {
    io::Error::other(format!("nothing arrived in {} s", STALL.as_secs()))
}

/// One line of JSON.
struct Line(String);

impl Line {
    fn new(what: &str, sessions: usize) -> Self {
        Self(format!("{{\"what\":\"{what}\",\"sessions\":{sessions}"))
    }

    /// The figures of a measurement that began at `begun` and counted so many events.
    fn measured(
        what: &str,
        fleet: &Fleet<'_>,
        server: &Server,
        (cpu, own, begun): (Duration, Duration, Instant),
        count: usize,
    ) -> io::Result<String> {
        let wall = now() - begun;
        let mut line = Self::new(what, fleet.connections.len());
        line.number("messages", count as f64);
        line.number("server_us", micros(server.cpu()? - cpu) / count as f64);
        line.number("load_us", micros(own_cpu()? - own) / count as f64);
        line.number("per_second", count as f64 / wall.as_secs_f64());
        Ok(line.end())
    }

    fn number(&mut self, name: &str, value: f64) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, ",\"{name}\":{}", (value * 1000.0).round() / 1000.0);
    }

    fn end(self) -> String {
        self.0 + "}"
    }
}

/// The least that a server can do: epoll and write(2), no protocol, no sessions.
struct Floor {
    listen: SocketAddr,
    /// Whether what one connection sends goes to all, or back to it.
    fanout: bool,
}

impl Floor {
    fn serve(&self) -> io::Result<()> {
        const LISTENER: Token = Token(usize::MAX);
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut listener = TcpListener::bind(self.listen)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut connections: Vec<Option<TcpStream>> = Vec::new();
        let mut free = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            poll.poll(&mut events, None)?;
            for event in &events {
                if event.token() == LISTENER {
                    while let Ok((mut stream, _)) = listener.accept() {
                        stream.set_nodelay(true)?;
                        // A client that has gone already is noticed when it is read from.
                        let _ = stream.write(HELLO);
                        let index = free.pop().unwrap_or(connections.len());
                        poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
                        if index == connections.len() {
                            connections.push(Some(stream));
                        } else {
                            connections[index] = Some(stream);
                        }
                    }
                } else if let Some(read) = read_from(&mut connections[event.token().0], &mut buffer)
                {
                    self.pass_on(&mut connections, event.token().0, &buffer[..read]);
                } else {
                    connections[event.token().0] = None;
                    free.push(event.token().0);
                }
            }
        }
    }

    /// The messages are small and answered at once, so the socket always has room.
    fn pass_on(&self, connections: &mut [Option<TcpStream>], from: usize, bytes: &[u8]) {
        let receivers =
            if self.fanout { &mut connections[..] } else { &mut connections[from..=from] };
        for stream in receivers.iter_mut().flatten() {
            // A receiver that has gone is noticed when it is read from.
            let _ = stream.write(bytes);
        }
    }
}

/// How much was read; none when the peer has gone.
fn read_from(stream: &mut Option<TcpStream>, buffer: &mut [u8]) -> Option<usize> {
    match stream.as_mut()?.read(buffer) {
        Ok(0) => None,
        Ok(read) => Some(read),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

/// `--name value` pairs.
struct Options(BTreeMap<String, String>);

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut pairs = BTreeMap::new();
        while let Some(arg) = args.next() {
            match (arg.strip_prefix("--"), args.next()) {
                (Some(name), Some(value)) => pairs.insert(name.to_owned(), value),
                _ => return Err(io::Error::other(format!("{arg}: usage:\n{USAGE}"))),
            };
        }
        Ok(Self(pairs))
    }

    fn required<T: FromStr>(&mut self, name: &str) -> io::Result<T> {
        match self.0.remove(name) {
            Some(value) => {
                value.parse().map_err(|_| io::Error::other(format!("--{name} cannot be {value}")))
            }
            None => Err(io::Error::other(format!("--{name} is missing; usage:\n{USAGE}"))),
        }
    }

    fn or<T: FromStr>(&mut self, name: &str, default: T) -> io::Result<T> {
        if self.0.contains_key(name) { self.required(name) } else { Ok(default) }
    }

    /// Refuses what nobody asked for.
    fn finish(&self) -> io::Result<()> {
        match self.0.keys().next() {
            Some(name) => {
                Err(io::Error::other(format!("--{name} is not an option here; usage:\n{USAGE}")))
            }
            None => Ok(()),
        }
    }
}
