//! The four types that cross walls: [`Input`], [`Output`], [`Event`], [`Command`].

use std::{net::IpAddr, sync::Arc};

pub use bowline_names::{DisconnectReason, ErrorCode, RecoveryOutcome};
use bytes::Bytes;
use bytestring::ByteString;

use crate::{
    ExchangeId, SessionKey, Sid, SocketKey, TransportId,
    engineio::{self, RequestError},
    hub::{Peer, Receivers, Snapshot},
    socketio::Args,
    websocket::Message,
};

/// What happened outside. The shell hands these to [`Hub::handle_input`](crate::Hub::handle_input).
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug)]
pub enum Input {
    /// A client opens a session: a polling GET without `sid`, or a WebSocket without one.
    Open {
        /// The id the session shall have, fresh from the shell's CSPRNG.
        id: Sid,
        /// How the client arrived.
        origin: Origin,
        /// What it said of itself.
        handshake: Arc<Handshake>,
    },
    /// A polling GET of a session. For `timestamp` see
    /// [`SessionRequest`](engineio::SessionRequest).
    Get { exchange: ExchangeId, session: Sid, timestamp: Option<u64> },
    /// A polling POST of a session. A shell that has the head of a request but must wait for its
    /// body says so first, with [`PostBody::Begun`].
    Post { exchange: ExchangeId, session: Sid, body: PostBody, timestamp: Option<u64> },
    /// A WebSocket that was opened with the `sid` of a session.
    Attach { transport: TransportId, session: Sid, deflate: bool },
    /// One WebSocket message.
    Message { transport: TransportId, message: Message },
    /// A WebSocket has gone, or broke its protocol (the shell has then sent the close frame).
    Lost { transport: TransportId, why: Lost },
    /// The client closed the connection of a request before it was answered, or before anybody took
    /// the answer.
    Aborted { exchange: ExchangeId },
    /// How many bytes a socket could not take yet. Said after a flush that left some.
    Backlog { transport: TransportId, bytes: usize },
    /// Something a handler, or another shard, wants done.
    Command(Command),
    /// What the hub of another shard wanted told.
    Heard(Box<Peer>),
    /// What an earlier process has saved of this shard; `None` if nothing of it is left. Only a hub
    /// that was made with [`Continuity::loading`](crate::hub::Continuity) waits for it.
    Restore(Option<Box<Snapshot>>),
    /// A deadline that [`Hub::poll_timeout`](crate::Hub::poll_timeout) named may have passed.
    Timeout,
    /// The shell has handed over all that was ready: polls that have something are answered now,
    /// so that a burst travels in one body.
    TurnEnd,
    /// The configuration has changed. Sessions keep what they were told when they opened.
    Configure(Box<crate::hub::Config>),
    /// The server stops, and this session is closed in a way that makes its client come back by
    /// itself.
    Drain { session: SessionKey },
}

/// How much of a POST is there.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostBody {
    /// The head is read, the body is still to come.
    Begun,
    /// The whole body.
    Whole {
        body: Bytes,
        /// Whether the content type is `application/octet-stream`.
        binary: bool,
    },
    /// The body is larger than `engine.max-payload`; the rest of it will not be read.
    TooBig,
}

/// How a client that opens a session arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By a polling GET that awaits the open packet.
    Polling(ExchangeId),
    /// By a WebSocket whose handshake is done.
    WebSocket {
        /// Its number.
        transport: TransportId,
        /// Whether permessage-deflate was negotiated.
        deflate: bool,
    },
}

/// Why a WebSocket has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The peer closed it, or the connection ended.
    Closed,
    /// Reading or writing failed.
    Failed,
    /// The peer broke RFC 6455.
    Protocol,
    /// A message was larger than `engine.max-payload`.
    TooBig,
}

/// What a client said of itself when it opened its session. Dropped after the first namespace
/// has answered its CONNECT, unless [`hub::Config::keep_headers`](crate::hub::Config) is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The protocol version of the `EIO` parameter.
    pub version: engineio::Version,
    /// How polling bodies are to be written for it.
    pub poll_style: engineio::PollStyle,
    /// The query string as received, without the question mark.
    pub query: String,
    /// Header names in lower case, and values, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// The address of the peer, or the one a trusted proxy gave.
    pub address: Option<IpAddr>,
    /// Whether the server opened the session itself, to see whether clients can. What is counted of
    /// sessions leaves it out.
    pub own: bool,
}

impl Handshake {
    /// Whether a browser opened the session, as far as its headers say: all of them send a
    /// `User-Agent` that begins with `Mozilla/`, or `Sec-Fetch-Mode`, which pages cannot set.
    pub fn is_browser(&self) -> bool {
        self.headers.iter().any(|(name, value)| match &**name {
            "user-agent" => value.starts_with("Mozilla/"),
            "sec-fetch-mode" => true,
            _ => false,
        })
    }

    /// The value of a cookie (RFC 6265 section 5.4); of several of one name the first, which is the
    /// most specific.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.headers.iter().filter(|(header, _)| header == "cookie");
        let mut pairs = cookies.flat_map(|(_, value)| value.split(';'));
        pairs.find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name && !value.is_empty()).then_some(value)
        })
    }
}

/// What is to be done outside.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug)]
pub enum Output {
    /// Append `frame` (a whole encoded WebSocket frame) to the buffer of each receiver.
    Send { receivers: Receivers, frame: Bytes },
    /// Answer an HTTP request.
    Respond { exchange: ExchangeId, response: Response },
    /// Send what is queued, then a close frame with this code (none: an empty one), and close.
    Close { transport: TransportId, code: Option<u16> },
    /// Hand an event to the handler with this index in
    /// [`hub::Config::namespaces`](crate::hub::Config).
    Deliver { handler: HandlerId, event: Event },
    /// Hand a copy to every other shard, as [`Command::Broadcast`] with `forwarded` set. Boxed, so that
    /// all the others are not larger for it.
    Forward(Box<Broadcast>),
    /// How many sockets of this shard a broadcast with a `report` reached.
    Reached { report: u64, receivers: usize },
    /// Hand this to the hub of another shard, in order, as [`Input::Heard`].
    Tell { shard: u8, message: Box<Peer> },
    /// The socket of this pid, which was on its way between shards, is on `shard` now: see
    /// [`Hub::whereabouts`](crate::Hub::whereabouts).
    Settled { pid: Sid, shard: u8 },
}

/// The index of a handler, as given in the hub's configuration.
pub type HandlerId = u16;

/// The answer to one HTTP request of the engine path.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// 200 with the open packet; the one response that may carry the cookie.
    Open { sid: Sid, body: PollBody },
    /// 200 with packets.
    Payload(PollBody),
    /// 200 `ok`, as text/html: a POST was taken.
    Taken,
    /// A refusal with a JSON body (see [`RequestError`]).
    Refused(RequestError),
    /// A bare status with an empty body: 400 for a request that broke the protocol of its
    /// session, 413 for a body over `engine.max-payload`, 500 for a method that is neither GET nor POST.
    Status(u16),
}

/// A polling body and how it is labelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollBody {
    /// `text/plain; charset=UTF-8`
    Text(Bytes),
    /// `application/octet-stream` (EIO 3 only)
    Binary(Bytes),
    /// `text/javascript; charset=UTF-8` (JSONP, EIO 3 only)
    Script(Bytes),
}

/// What a handler hears.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A client asks to join a namespace. Nothing else is said of `socket` until a
    /// [`Command::Accept`] or [`Command::Refuse`] has answered.
    Connect {
        socket: SocketKey,
        /// The name the client gave, which a pattern may have matched.
        namespace: ByteString,
        /// The payload of its CONNECT packet, a JSON object, if there was one.
        auth: Option<ByteString>,
        handshake: Arc<Handshake>,
    },
    /// An event from a client. `args[0]` is its name; `id` is what the client calls this one, where
    /// the namespace says that clients do.
    Event { socket: SocketKey, args: Args, ack: Option<u64>, id: Option<Box<str>> },
    /// A client acked an event that was emitted with this token, or will not any more. `id` is the
    /// Socket.IO sid of the socket, which may be gone by now.
    Ack { socket: SocketKey, id: Sid, token: u64, result: Result<Args, AckError> },
    /// The client of a kept socket is back and waits to be let in again. Answered like a
    /// [`Connect`](Self::Connect); a refusal leaves the socket away.
    Return {
        socket: SocketKey,
        /// Its Socket.IO sid, which does not change.
        id: Sid,
        namespace: ByteString,
        auth: Option<ByteString>,
        handshake: Arc<Handshake>,
    },
    /// A kept socket has lost its session. It stays in its rooms, and what is sent to it waits.
    Away { socket: SocketKey, reason: DisconnectReason },
    /// A socket that was away has a session again. What it has missed is on its way.
    Back { socket: SocketKey },
    /// A socket has left its namespace. The last event of a socket that was accepted or asked.
    Disconnect { socket: SocketKey, reason: DisconnectReason },
    /// Engine.IO alone ([`hub::Protocol::EngineIo`](crate::hub::Protocol)): a session has opened.
    Open { session: SessionKey, id: Sid, handshake: Arc<Handshake> },
    /// Engine.IO alone: a message.
    Message { session: SessionKey, message: Message },
    /// Engine.IO alone: a session has ended.
    Close { session: SessionKey, reason: DisconnectReason },
}

/// Why an ack did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckError {
    /// Its time was over.
    TimedOut,
    /// The socket went first.
    Disconnected,
    /// `limits.pending-acks-per-session` are awaited already; an event for this socket alone was not
    /// sent.
    TooMany,
}

/// What a handler wants done. Commands to sockets and sessions that have gone do nothing.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Debug, Clone)]
pub enum Command {
    /// Lets a socket into its namespace under the Socket.IO sid `id`; `pid` is the secret by which its
    /// client comes back, if it takes part in that. Both are fresh from the shell. In answer to
    /// [`Event::Return`] the socket keeps the ids it has.
    Accept { socket: SocketKey, id: Sid, pid: Sid },
    /// Names a socket that awaits the answer to its CONNECT by what its token says. Answered by
    /// another [`Event::Connect`], or by [`Event::Return`] if somebody of that name is kept.
    Claim { socket: SocketKey, name: ByteString },
    /// Answers a CONNECT with CONNECT_ERROR. `data` is JSON.
    Refuse { socket: SocketKey, message: String, data: Option<ByteString> },
    /// Sends an event to one socket.
    Emit { socket: SocketKey, args: Args, ack: Option<AckRequest>, volatile: bool },
    /// Answers an event that asked for an ack.
    Ack { socket: SocketKey, id: u64, args: Args },
    /// Sends an event to many sockets of a namespace.
    Broadcast(Broadcast),
    /// Puts a socket into a room.
    Join { socket: SocketKey, room: ByteString },
    /// Takes a socket out of a room.
    Leave { socket: SocketKey, room: ByteString },
    /// Removes a socket from its namespace (`DISCONNECT`), or closes its whole session.
    Disconnect { socket: SocketKey, close: bool },
    /// Keeps data with a socket, in place of what was kept before.
    SetData { socket: SocketKey, data: Option<SocketData> },
    /// Sends a socket away at a certain time: its client gets an event `error` with
    /// `{"code","message"}` of the code, then DISCONNECT; CONNECT_ERROR if its CONNECT is still to be
    /// answered. The latest such command counts; [`Duration::MAX`](std::time::Duration::MAX) lets it
    /// stay.
    Expire { socket: SocketKey, after: std::time::Duration, code: ErrorCode },
    /// Engine.IO alone: sends a message.
    Send { session: SessionKey, message: Message },
    /// Engine.IO alone: closes a session.
    Close { session: SessionKey },
}

/// What a handler keeps with a socket for as long as it lives: text that nobody else reads.
#[derive(Clone, PartialEq, Eq)]
pub struct SocketData(ByteString);

/// The text is longer than [`SocketData::BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuchData;

impl SocketData {
    /// The longest text that is kept with a socket: 16 KiB.
    pub const BYTES_MAX: usize = 16 * 1024;

    /// Takes a text.
    ///
    /// # Errors
    ///
    /// [`TooMuchData`].
    pub fn new(text: &str) -> Result<Self, TooMuchData> {
        // Copied: a shared text might be a small part of something large.
        if text.len() <= Self::BYTES_MAX { Ok(Self(text.into())) } else { Err(TooMuchData) }
    }

    /// The text.
    pub fn text(&self) -> &ByteString {
        &self.0
    }
}

impl std::fmt::Debug for SocketData {
    /// Leaves out the text: it may be personal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SocketData({} bytes)", self.0.len())
    }
}

impl std::fmt::Display for TooMuchData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at most {} bytes are kept with a socket", SocketData::BYTES_MAX)
    }
}

impl std::error::Error for TooMuchData {}

/// An ack that is asked of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckRequest {
    /// Comes back in [`Event::Ack`].
    pub token: u64,
    /// How long to wait for it.
    pub timeout: std::time::Duration,
}

/// An event for many sockets of one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Broadcast {
    /// Its name, `/` for the root.
    pub namespace: ByteString,
    /// The rooms whose members receive it, each member once; empty means the whole namespace. A
    /// Socket.IO sid is the name of its socket's own room.
    pub rooms: Vec<ByteString>,
    /// The rooms whose members do not.
    pub except: Vec<ByteString>,
    /// The name of the event and its arguments.
    pub args: Args,
    /// Whether it may be dropped for receivers that cannot take it at once.
    pub volatile: bool,
    /// Asks for [`Output::Reached`] with this token.
    pub report: Option<u64>,
    /// Asks every receiver for an ack: each gives one [`Event::Ack`] with the token. Boxed, so that
    /// the many broadcasts without one are not larger for it.
    pub ack: Option<Box<AckRequest>>,
    /// Set on the copies that other shards receive: they are not forwarded again.
    pub forwarded: bool,
    /// Where it began, which tells shards that pass a session on what it has seen. `None`: here.
    pub origin: Option<BroadcastOrigin>,
}

/// The place of a broadcast among those that began where it did. Every shard sees them in this
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BroadcastOrigin {
    /// The shard that sent it first; the number of shards for threads that are none.
    pub shard: u8,
    /// Counts up.
    pub number: u64,
}
