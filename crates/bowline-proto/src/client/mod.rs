//! The other end: an Engine.IO 3/4 and Socket.IO 4/5 client, without any IO.
//!
//! A [`Client`] is one session, from its first request to its close; whoever wants another makes
//! another. It is driven like the [hub](crate::hub), under the same law:
//!
//! ```text
//! client.handle_input(now, input);
//! while let Some(output) = client.poll_output() { … carry it out … }
//! sleep until client.poll_timeout(), then handle_input(now, Input::Timeout)
//! ```
//!
//! Below the namespaces, in `engine`, a [`Phase`] says which transport carries packets; an upgrade
//! probes a WebSocket while polling goes on, and cannot lose a packet: requests are over before the
//! switch is made, and what is sent meanwhile waits. Heartbeats belong to the session, not to a
//! transport. In `namespaces` are CONNECT, events and acks.
//!
//! There is at most one GET, one POST and one WebSocket at a time. After [`Event::Closed`], the
//! last output, the shell drops whatever is still under way.

mod config;
mod engine;
mod namespaces;
#[cfg(test)]
mod pair;
mod phase;
mod recall;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use bytestring::ByteString;

pub use config::{Config, Protocol, Transports};
pub use engine::Handshake;
pub use phase::{Phase, Step};
pub use recall::Recall;

use crate::{
    Time,
    engineio::{self, Packet, Version},
    socketio::Args,
    wall::{AckError, AckRequest, Lost, PollBody},
    websocket::{self, Message},
};
use engine::{Engine, Happened};
use namespaces::Namespaces;

/// One HTTP request of a client, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happened outside, or what somebody wants done.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug)]
pub enum Input {
    /// Begin. Everything below may be said before; it waits.
    Open,
    /// Join a namespace. Answered by [`Event::Joined`] or [`Event::JoinFailed`]; does nothing for
    /// one that was joined before.
    Join {
        /// Its name, `/` for the root.
        namespace: ByteString,
        /// A JSON object. To an EIO 3 server it travels as a query in the name of the namespace and
        /// is given in that form, `token=1`; the root namespace has none there.
        auth: Option<ByteString>,
    },
    /// Leave a namespace. Acks that are awaited in it fail; nothing else is heard of it.
    Leave { namespace: ByteString },
    /// Send an event to a namespace that was joined or is being joined. If it cannot be sent,
    /// [`Event::Unsent`] or, where an ack was asked for, its failure says so.
    Emit { namespace: ByteString, args: Args, ack: Option<AckRequest> },
    /// Answer an [`Event::Event`] that asked for an ack.
    Ack { namespace: ByteString, id: u64, args: Args },
    /// Engine.IO alone: send a message.
    Send(Message),
    /// Leave every namespace and close, after what was sent before.
    Close,
    /// An HTTP request is over.
    Response { id: RequestId, response: Response },
    /// The WebSocket's handshake is done.
    WebSocketOpened,
    /// One WebSocket message.
    Message(Message),
    /// The WebSocket could not be opened, or has gone.
    WebSocketLost { why: Lost, detail: String },
    /// A deadline that [`Client::poll_timeout`] named may have passed.
    Timeout,
}

/// How an HTTP request ended.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// With a response and its whole body. The shell bounds what it reads.
    Answered {
        status: u16,
        body: Bytes,
        /// Whether the content type is `application/octet-stream`.
        binary: bool,
    },
    /// Without one.
    Failed { detail: String },
}

/// What is to be done outside.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send an HTTP request.
    Request(HttpRequest),
    /// Open the WebSocket.
    OpenWebSocket { target: String },
    /// Send a packet on the WebSocket: [`write_frame`].
    Send(Packet),
    /// Send what is queued, then a close frame, and close the WebSocket. Nothing is heard of it
    /// any more.
    CloseWebSocket,
    /// Tell the application.
    Event(Event),
}

/// A request of the polling transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Comes back in [`Input::Response`].
    pub id: RequestId,
    /// Path and query.
    pub target: String,
    /// The body of a POST; without one it is a GET.
    pub body: Option<PollBody>,
}

impl HttpRequest {
    /// `GET` or `POST`.
    pub fn method(&self) -> &'static str {
        if self.body.is_some() { "POST" } else { "GET" }
    }

    /// The content type and the bytes of a POST.
    pub fn content(&self) -> Option<(&'static str, &Bytes)> {
        match self.body.as_ref()? {
            PollBody::Text(bytes) => Some(("text/plain;charset=UTF-8", bytes)),
            PollBody::Binary(bytes) => Some(("application/octet-stream", bytes)),
            PollBody::Script(bytes) => Some(("text/javascript; charset=UTF-8", bytes)),
        }
    }
}

/// What the application hears.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The session is open: [`Client::handshake`] and [`Client::phase`] tell more.
    Opened,
    /// The WebSocket carries the session now.
    Upgraded,
    /// The WebSocket could not be had, and polling goes on.
    UpgradeFailed {
        /// For a log.
        why: &'static str,
    },
    /// A namespace was joined. An EIO 3 server joins its clients to `/` unasked.
    Joined {
        namespace: ByteString,
        /// The Socket.IO sid.
        sid: ByteString,
        /// The private id by which a session is recovered, from a server that can.
        pid: Option<ByteString>,
    },
    /// A namespace was not joined.
    JoinFailed { namespace: ByteString, error: JoinError },
    /// The server took this client out of a namespace.
    Left { namespace: ByteString },
    /// An event. A server that recovers a session may send some before [`Event::Joined`].
    Event { namespace: ByteString, args: Args, ack: Option<u64> },
    /// An event was acked, or will not be any more.
    Ack { namespace: ByteString, token: u64, result: Result<Args, AckError> },
    /// An event that asked for no ack was not sent.
    Unsent { namespace: ByteString, args: Args, why: Unsent },
    /// Engine.IO alone: a message.
    Message(Message),
    /// The session is over, and with it every namespace. The last event.
    Closed {
        reason: CloseReason,
        /// For a log; may be empty.
        detail: String,
    },
}

/// Why a namespace was not joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinError {
    /// The server said no, with this JSON: from Socket.IO 5 an object with `message` and perhaps
    /// `data`, from older ones any value.
    Refused(ByteString),
    /// No answer within [`Config::join_timeout`].
    TimedOut,
    /// `namespaces_per_session` are joined already.
    TooMany,
}

/// Why an event was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// The namespace is not joined, nor being joined; or the session is over.
    NotJoined,
    /// `queued_bytes_per_session` are waiting already.
    QueueFull,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseReason {
    /// By [`Input::Close`].
    Requested,
    /// The server refused the handshake with this status.
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The session did not open within [`Config::open_timeout`].
    OpenTimeout,
    /// The server closed.
    TransportClose,
    /// A request or the WebSocket failed.
    TransportError,
    /// The server's ping (EIO 4) or pong (EIO 3) is overdue.
    PingTimeout,
    /// The server sent what cannot be read.
    ParseError,
}

impl CloseReason {
    /// The words of the official clients, where they have some.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "io client disconnect",
            Self::Refused { .. } => "refused",
            Self::OpenTimeout => "timeout",
            Self::TransportClose => "transport close",
            Self::TransportError => "transport error",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
        }
    }
}

/// Why a client wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When opening is given up.
    Open,
    /// When an upgrade is given up.
    Upgrade,
    /// When the last POST of a session that closes is given up.
    Close,
    /// When a POST is given up.
    Post,
    /// EIO 4: when the server's ping is overdue.
    ServerPing,
    /// EIO 3: when to send a ping.
    Ping,
    /// EIO 3: when the server's pong is overdue.
    Pong,
    /// When the answer to a CONNECT is overdue.
    Join,
    /// When an ack is overdue.
    Ack,
}

/// One session, from the client's end.
#[derive(Debug)]
pub struct Client {
    config: Arc<Config>,
    engine: Engine,
    namespaces: Namespaces,
    events: VecDeque<Event>,
}

impl Client {
    /// A client that waits for [`Input::Open`].
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            engine: Engine::new(Arc::clone(&config)),
            namespaces: Namespaces::default(),
            events: VecDeque::new(),
            config,
        }
    }

    /// Takes what happened. Every output must have been taken before.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        debug_assert!(
            self.events.is_empty() && !self.engine.has_output(),
            "drain `poll_output` before the next input"
        );
        match input {
            Input::Open => self.engine.open(now),
            Input::Join { namespace, auth } => self.join(now, namespace, auth),
            Input::Leave { namespace } => self.leave(&namespace),
            Input::Emit { namespace, args, ack } => self.emit(now, namespace, args, ack),
            Input::Ack { namespace, id, args } => self.ack(namespace, id, args),
            Input::Send(message) => self.engine.send(Packet::message(message)),
            Input::Close => {
                self.leave_all();
                self.engine.close(now);
            }
            Input::Response { id, response } => self.engine.handle_response(now, id, response),
            Input::WebSocketOpened => self.engine.handle_websocket_opened(),
            Input::Message(message) => self.engine.handle_message(now, message),
            Input::WebSocketLost { why, detail } => self.engine.handle_websocket_lost(why, detail),
            Input::Timeout => {
                self.engine.handle_timeout(now);
                self.expire(now);
            }
        }
        // What happened below makes the namespaces send; what they send may have to be posted.
        self.handle_happened(now);
        self.engine.pump(now);
        self.handle_happened(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.engine.poll_output().or_else(|| self.events.pop_front().map(Output::Event))
    }

    /// When [`Input::Timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Time, Timer)> {
        self.engine.deadlines().chain(self.namespaces.deadline()).min()
    }

    /// Where the session stands.
    pub fn phase(&self) -> Phase {
        self.engine.phase()
    }

    /// What the server said when it opened the session.
    pub fn handshake(&self) -> Option<&Handshake> {
        self.engine.handshake()
    }

    /// The revision it speaks.
    pub fn version(&self) -> Version {
        self.config.version
    }

    /// Bytes that wait for a POST, an upgrade, or a namespace. What was handed out as
    /// [`Output::Send`] is the shell's.
    pub fn queued_bytes(&self) -> usize {
        self.engine.queued_bytes() + self.namespaces.held_bytes()
    }

    fn handle_happened(&mut self, now: Time) {
        while let Some(happened) = self.engine.next_happened() {
            match happened {
                Happened::Opened => {
                    self.events.push_back(Event::Opened);
                    self.connect_all(now);
                }
                Happened::Upgraded => self.events.push_back(Event::Upgraded),
                Happened::UpgradeFailed(why) => self.events.push_back(Event::UpgradeFailed { why }),
                Happened::Message(message) => match self.config.protocol {
                    Protocol::EngineIo => self.events.push_back(Event::Message(message)),
                    Protocol::SocketIo => self.on_message(message),
                },
                Happened::Closed(reason, detail) => {
                    self.forget_all();
                    self.events.push_back(Event::Closed { reason, detail });
                }
            }
        }
    }
}

/// Appends the WebSocket frame that carries `packet` to `out`. `mask` is fresh and unpredictable
/// for each frame (RFC 6455 section 5.3).
pub fn write_frame(out: &mut Vec<u8>, version: Version, packet: &Packet, mask: [u8; 4]) {
    let payload = engineio::ws_payload(version, packet);
    websocket::encode(out, payload.opcode, false, Some(mask), &[payload.head, &payload.data]);
}
