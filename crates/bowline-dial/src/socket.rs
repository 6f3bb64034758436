//! A bare WebSocket: messages, pings, close codes, and an end that does not wait for ever.
//!
//! [`open`] shakes hands; the [`Socket`] it returns is one connection with one task. Pings of the server are answered,
//! messages are not compressed.

use std::{
    future, str,
    task::{Context, Waker},
    time::Duration,
};

use bowline_proto::{
    Time,
    websocket::{CloseFrame, Incoming, Message, OpCode, close_frame, encode},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::AsyncReadExt as _,
    sync::mpsc,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::{
    Gone, Options, Outbox, Proxy, Trust,
    clock::Clock,
    entropy::Entropy,
    limit::{
        COMMANDS_MAX, HEARD_EVERY, REFUSAL_BODY_MAX_BYTES, REFUSAL_READ_MAX, UNSENT_MAX_BYTES,
        WEBSOCKET_CLOSE_MAX,
    },
    stream::Stream,
    target::Target,
    websocket::{NotShaken, Open, shake},
};

/// How a WebSocket is opened.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// `ws://` or `wss://`, with path and query; without user and password.
    pub url: String,
    /// Headers of the handshake. Default none; a `user-agent` is added if there is none.
    pub headers: Vec<(String, String)>,
    /// Subprotocols that are offered, the dearest first. Default none.
    pub protocols: Vec<String>,
    /// The proxy on the way. Default none.
    pub proxy: Option<Proxy>,
    /// Which servers are believed. Default: those the operating system trusts.
    pub trust: Trust,
    /// How long it may take until it is open. Default 10 s.
    pub connect_timeout: Duration,
    /// The most bytes of a message that are read. Default 16 MiB.
    pub max_message_bytes: usize,
}

impl SocketOptions {
    /// The defaults, for a URL.
    pub fn new(url: impl Into<String>) -> Self {
        let Options { connect_timeout, max_message_bytes, trust, .. } = Options::default();
        Self {
            url: url.into(),
            headers: Vec::new(),
            protocols: Vec::new(),
            proxy: None,
            trust,
            connect_timeout,
            max_message_bytes,
        }
    }
}

/// Why there is no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketRefusal {
    /// The status of the answer; `None` if there was none.
    pub status: Option<u16>,
    /// Its headers.
    pub headers: HeaderMap,
    /// What came of its body within a second, at most 4 KiB.
    pub body: Bytes,
    /// What went wrong, for logs and people.
    pub words: String,
}

impl SocketRefusal {
    fn failed(words: String) -> Self {
        Self { status: None, headers: HeaderMap::new(), body: Bytes::new(), words }
    }
}

/// Opens a WebSocket. It is tried once.
///
/// # Errors
///
/// The URL cannot be dialled, the server was not reached in time, or refused.
pub async fn open(options: SocketOptions) -> Result<Socket, SocketRefusal> {
    let SocketOptions {
        url,
        mut headers,
        protocols,
        proxy,
        trust,
        connect_timeout,
        max_message_bytes,
    } = options;
    if !protocols.is_empty() {
        headers.push(("sec-websocket-protocol".to_owned(), protocols.join(", ")));
    }
    let options =
        Options { headers, proxy, trust, connect_timeout, max_message_bytes, ..Options::default() };
    let parsed = Target::parse(&url, &options);
    let (target, rest) = parsed.map_err(|error| SocketRefusal::failed(error.to_string()))?;
    let and = if rest.query.is_empty() { "" } else { "?" };
    let path = format!("{}{and}{}", rest.namespace, rest.query);

    let mut entropy = Entropy::new();
    let shaking = shake(&target, &path, entropy.bytes(), &target.headers);
    let (open, head) = match timeout(connect_timeout, shaking).await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(NotShaken::Failed(words))) => return Err(SocketRefusal::failed(words)),
        Ok(Err(NotShaken::Refused { status, received, stream })) => {
            return Err(refusal(status, received, stream).await);
        }
        Err(_) => {
            let words = format!("opening a WebSocket to {} took too long", target.authority);
            return Err(SocketRefusal::failed(words));
        }
    };
    let protocol = header(&headers_of(&head), "sec-websocket-protocol");
    if protocol.as_ref().is_some_and(|chosen| !protocols.contains(chosen)) {
        // RFC 6455 section 4.1.
        let words = "the server chose a subprotocol that was not offered".to_owned();
        return Err(SocketRefusal::failed(words));
    }
    Ok(Socket::start(open, protocol, entropy))
}

/// One WebSocket. Dropped, it ends at once and without a goodbye.
#[derive(Debug)]
pub struct Socket {
    /// What sends on it.
    pub sender: SocketSender,
    /// The subprotocol that the server has chosen.
    pub protocol: Option<String>,
    events: mpsc::Receiver<SocketEvent>,
    /// Its one task.
    _task: JoinSet<()>,
}

impl Socket {
    fn start(open: Open, protocol: Option<String>, entropy: Entropy) -> Self {
        let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
        let (close, close_receiver) = mpsc::channel(1);
        let (outbox, events) = Outbox::new(bytes_of);
        let driver = Driver {
            open: Box::new(open),
            entropy,
            clock: Clock::start(),
            commands: command_receiver,
            closes: close_receiver,
            events: outbox,
            heard: None,
            marks: Vec::new(),
            stage: Stage::Open,
        };
        let mut task = JoinSet::new();
        task.spawn(driver.run());
        Self { sender: SocketSender { commands, close }, protocol, events, _task: task }
    }

    /// The next thing that happened; `None` after [`SocketEvent::Closed`]. When events are not taken, nothing is read
    /// after some hundred. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<SocketEvent> {
        self.events.recv().await
    }
}

/// What happens on a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketEvent {
    /// A message.
    Message(Message),
    /// The answer to a ping, with its payload.
    Pong(Bytes),
    /// Bytes arrived that make none of the others: a ping, a part of a message. At most one a second.
    Heard,
    /// What was sent before [`SocketSender::mark`] with this word is with the system: it survives the end of this process.
    /// Whether the server has it only the server can say.
    Written(String),
    /// It is over. The last event.
    Closed {
        /// The code of the server's close frame (RFC 6455 section 7.4), if there was one.
        code: Option<u16>,
        /// The words of that frame, or what went wrong.
        reason: String,
        /// Whether both ends have said goodbye.
        clean: bool,
    },
}

/// Sends on a WebSocket; may be cloned and used from anywhere. When much is waiting to be sent, its methods wait, but
/// [`close`](Self::close) does not.
#[derive(Debug, Clone)]
pub struct SocketSender {
    commands: mpsc::Sender<Command>,
    close: mpsc::Sender<Close>,
}

impl SocketSender {
    /// Sends a message. It is queued when the future ends.
    ///
    /// # Errors
    ///
    /// The WebSocket is over, or is being closed.
    pub async fn send(&self, message: Message) -> Result<(), Gone> {
        self.commands.send(Command::Send(message)).await.map_err(|_| Gone)
    }

    /// Sends a ping; of its payload the first 125 bytes. [`SocketEvent::Pong`] answers.
    ///
    /// # Errors
    ///
    /// The WebSocket is over, or is being closed.
    pub async fn ping(&self, payload: impl Into<Bytes>) -> Result<(), Gone> {
        self.commands.send(Command::Ping(payload.into())).await.map_err(|_| Gone)
    }

    /// Has [`SocketEvent::Written`] said with this word, as soon as what was sent before is with the system.
    ///
    /// # Errors
    ///
    /// The WebSocket is over, or is being closed.
    pub async fn mark(&self, word: String) -> Result<(), Gone> {
        self.commands.send(Command::Mark(word)).await.map_err(|_| Gone)
    }

    /// Whether neither [`send`](Self::send) nor [`ping`](Self::ping) would wait; also when it is over.
    pub fn has_room(&self) -> bool {
        self.commands.is_closed() || self.commands.capacity() > 0
    }

    /// Waits until [`has_room`](Self::has_room). Nothing is lost if the future is dropped.
    pub async fn room(&self) {
        // When it is over, there is nothing to wait for.
        let _ = self.commands.reserve().await;
    }

    /// Sends what is queued and a close frame, and waits for the server's; [`SocketEvent::Closed`] tells when it is over.
    /// What takes longer than `within` ends hard: nothing is sent any more, and the connection is reset.
    ///
    /// # Errors
    ///
    /// The WebSocket is over. One that is being closed stays as it is.
    pub fn close(&self, code: u16, reason: &str, within: Duration) -> Result<(), Gone> {
        let close = Close { code, reason: reason.to_owned(), within };
        match self.close.try_send(close) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Gone),
        }
    }
}

#[derive(Debug)]
enum Command {
    Send(Message),
    Ping(Bytes),
    Mark(String),
}

#[derive(Debug)]
struct Close {
    code: u16,
    reason: String,
    within: Duration,
}

/// How far it has come.
enum Stage {
    Open,
    /// What was said before the goodbye is being sent.
    Leaving {
        close: Close,
        until: Time,
    },
    /// Our close frame is on its way; hard end at the time.
    Closing {
        until: Time,
    },
    /// [`SocketEvent::Closed`] was said. `linger`: the server is to close the connection, which is its part.
    Over {
        linger: bool,
    },
}

/// What the loop woke up for.
enum Turn {
    Command(Command),
    Close(Close),
    /// Nothing more is to be sent.
    Silent,
    Ready,
    /// Events were taken.
    Room,
    /// Nobody is there any more.
    Alone,
    TimeUp,
}

struct Driver {
    open: Box<Open>,
    entropy: Entropy,
    clock: Clock,
    commands: mpsc::Receiver<Command>,
    closes: mpsc::Receiver<Close>,
    events: Outbox<SocketEvent>,
    /// When [`SocketEvent::Heard`] was said last.
    heard: Option<Time>,
    /// Words of what is not with the system yet. Bounded as it is.
    marks: Vec<String>,
    stage: Stage,
}

impl Driver {
    async fn run(mut self) {
        let linger = loop {
            if let Stage::Over { linger } = self.stage {
                break linger;
            }
            let turn = self.choose().await;
            self.handle(turn);
        };
        self.commands.close();
        self.closes.close();
        let Self { open, events, .. } = self;
        let ending = async {
            if linger {
                // Whether the goodbye arrives or not, it is over after that time.
                let _ = timeout(WEBSOCKET_CLOSE_MAX, open.finish()).await;
            } else {
                open.stream.end_hard();
                drop(open);
            }
        };
        tokio::join!(events.finish(), ending);
    }

    /// Bounded both ways: events that are not taken stop the reading, bytes that are not sent stop the taking of
    /// commands. A close is always taken.
    async fn choose(&mut self) -> Turn {
        let may_read = !self.events.is_full();
        let may_take = self.open.unsent_bytes() < UNSENT_MAX_BYTES;
        let is_open = matches!(self.stage, Stage::Open);
        let speaks = matches!(self.stage, Stage::Open | Stage::Leaving { .. });
        let hard_end = match self.stage {
            Stage::Leaving { until, .. } | Stage::Closing { until } => {
                Some(self.clock.instant(until))
            }
            Stage::Open | Stage::Over { .. } => None,
        };
        let late = async {
            match hard_end {
                Some(at) => sleep_until(at).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            close = self.closes.recv(), if is_open => close.map_or(Turn::Alone, Turn::Close),
            command = self.commands.recv(), if speaks && may_take => {
                command.map_or(Turn::Silent, Turn::Command)
            }
            () = self.open.ready(may_read) => Turn::Ready,
            () = self.events.room() => Turn::Room,
            () = late => Turn::TimeUp,
        }
    }

    fn handle(&mut self, turn: Turn) {
        match turn {
            Turn::Command(command) => {
                self.queue(command);
                // The rest of a burst belongs to the same write.
                while self.open.unsent_bytes() < UNSENT_MAX_BYTES
                    && let Ok(command) = self.commands.try_recv()
                {
                    self.queue(command);
                }
            }
            Turn::Close(close) => {
                self.commands.close();
                let until = self.clock.now() + close.within;
                self.stage = Stage::Leaving { close, until };
            }
            Turn::Silent => {
                if let Stage::Leaving { close, until } = &self.stage {
                    let (code, reason, until) = (close.code, close.reason.clone(), *until);
                    self.goodbye(Some(code), &reason);
                    self.stage = Stage::Closing { until };
                }
            }
            Turn::Ready => self.read(),
            Turn::Room => {}
            Turn::Alone => self.stage = Stage::Over { linger: false },
            Turn::TimeUp => {
                self.end(None, "the server did not close in time".to_owned(), false, false);
            }
        }
        if let Err(error) = self.open.try_write() {
            self.end(None, format!("writing: {error}"), false, false);
        } else if !self.open.has_unsent() {
            for word in self.marks.drain(..) {
                self.events.push(SocketEvent::Written(word));
            }
        }
        self.events.deliver();
    }

    fn queue(&mut self, command: Command) {
        let mask = Some(self.entropy.bytes());
        match command {
            Command::Send(message) => {
                let (opcode, payload) = (message.opcode(), message.as_bytes());
                encode(&mut self.open.out, opcode, false, mask, &[payload]);
            }
            Command::Ping(payload) => {
                let payload = &payload[..payload.len().min(CONTROL_MAX_BYTES)];
                encode(&mut self.open.out, OpCode::Ping, false, mask, &[payload]);
            }
            Command::Mark(word) => self.marks.push(word),
        }
    }

    fn goodbye(&mut self, code: Option<u16>, reason: &str) {
        let reason = &reason[..reason.floor_char_boundary(CONTROL_MAX_BYTES - 2)];
        let frame = close_frame(code, reason, Some(self.entropy.bytes()));
        self.open.out.extend_from_slice(&frame);
    }

    /// Reads once and decodes all of it.
    fn read(&mut self) {
        if self.events.is_full() {
            return;
        }
        // Whether there is more is asked again before anything is waited for.
        let _ = self.open.poll_read(&mut Context::from_waker(Waker::noop()));
        if let Some((_, words)) = self.open.end.take() {
            self.end(None, words, false, false);
            return;
        }
        let mut input = std::mem::take(&mut self.open.input);
        let (is_something, mut told, mut unread) = (!input.is_empty(), false, &mut input[..]);
        loop {
            match self.open.decoder.decode(&self.open.config, &mut unread) {
                Ok(None) => break,
                Ok(Some(Incoming::Message(message))) => {
                    told = true;
                    self.events.push(SocketEvent::Message(message));
                }
                Ok(Some(Incoming::Pong(payload))) => {
                    told = true;
                    self.events.push(SocketEvent::Pong(payload));
                }
                Ok(Some(Incoming::Ping(payload))) => {
                    let mask = Some(self.entropy.bytes());
                    encode(&mut self.open.out, OpCode::Pong, false, mask, &[&payload]);
                }
                Ok(Some(Incoming::Close(close))) => {
                    self.on_close(close);
                    return;
                }
                Err(error) => {
                    self.goodbye(Some(error.close_code()), "");
                    self.end(None, error.to_string(), false, true);
                    return;
                }
            }
        }
        input.clear();
        self.open.input = input;
        let now = self.clock.now();
        if is_something && !told && self.heard.is_none_or(|last| now.since(last) >= HEARD_EVERY) {
            self.heard = Some(now);
            self.events.push(SocketEvent::Heard);
        }
    }

    fn on_close(&mut self, close: CloseFrame) {
        if matches!(self.stage, Stage::Open | Stage::Leaving { .. }) {
            self.goodbye(close.code, "");
        }
        self.end(close.code, close.reason.to_string(), true, true);
    }

    fn end(&mut self, code: Option<u16>, reason: String, clean: bool, linger: bool) {
        if !matches!(self.stage, Stage::Over { .. }) {
            self.events.push(SocketEvent::Closed { code, reason, clean });
            self.stage = Stage::Over { linger };
        }
    }
}

/// What an event holds.
fn bytes_of(event: &SocketEvent) -> usize {
    match event {
        SocketEvent::Message(message) => message.len(),
        SocketEvent::Written(word) => word.len(),
        SocketEvent::Pong(_) | SocketEvent::Heard | SocketEvent::Closed { .. } => 0,
    }
}

/// What a server says that refuses.
async fn refusal(status: u16, mut received: Vec<u8>, mut stream: Stream) -> SocketRefusal {
    let end = end_of_head(&received);
    let headers = headers_of(&received[..end]);
    let said = header(&headers, "content-length").and_then(|text| text.parse::<usize>().ok());
    let wanted = end + said.unwrap_or(REFUSAL_BODY_MAX_BYTES).min(REFUSAL_BODY_MAX_BYTES);
    let reading = async {
        while received.len() < wanted
            && stream.read_buf(&mut received).await.is_ok_and(|len| len > 0)
        {}
    };
    // What has not come by then is not worth waiting for.
    let _ = timeout(REFUSAL_READ_MAX, reading).await;
    received.truncate(wanted);
    SocketRefusal {
        status: Some(status),
        headers,
        body: Bytes::from(received.split_off(end)),
        words: format!("the server refused the WebSocket with status {status}"),
    }
}

fn end_of_head(received: &[u8]) -> usize {
    received.windows(4).position(|four| four == b"\r\n\r\n").map_or(received.len(), |at| at + 4)
}

/// The headers of an answer whose head was found to be one.
fn headers_of(head: &[u8]) -> HeaderMap {
    let lines = str::from_utf8(head).unwrap_or_default().split("\r\n").skip(1);
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.parse::<HeaderName>().ok()?;
        Some((name, value.trim().parse::<HeaderValue>().ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The payload of a control frame (RFC 6455 section 5.5).
const CONTROL_MAX_BYTES: usize = 125;
