//! What a profile has to say about its bots that come through the loopback proxy. Pure: nothing here waits.

use std::fmt;

use bowline_dial::Message as Frame;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use crate::far::{Message, Outgoing};

/// How unmodified bots of a profile are served.
pub trait Rules: Send + Sync + fmt::Debug {
    /// Hosts whose TLS is ended here. A leading `*.` stands for any name below. Everything else is passed through
    /// unseen.
    fn hosts(&self) -> Vec<String>;

    /// Whether a WebSocket handshake to this host and path is for the link itself. Others are passed on.
    fn is_socket(&self, host: &str, target: &str) -> bool;

    /// Answers a request in place of the service. `socket_url` is where this machine serves the link's WebSocket; it
    /// begins with `wss://localhost:`.
    fn answer(&self, request: &Asked<'_>, socket_url: &str) -> Option<Answer>;

    /// Looks at a request that was passed on, and at its answer: for the trace of messages and the level `handled`.
    /// `body` is what arrived of the answer, at most 64 KiB.
    fn observe(&self, request: &Asked<'_>, status: StatusCode, body: &Bytes) -> Vec<Noted>;

    /// The end of one WebSocket of a bot.
    fn socket(&self) -> Box<dyn Socket>;
}

/// A request of a bot.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The host it is for, without a port.
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: &'a Bytes,
}

/// An answer in place of the service's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body: JSON.
    pub body: Bytes,
}

/// What was seen to happen with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noted {
    /// The bot has got its text.
    Fetched {
        /// The message.
        id: String,
    },
    /// The bot has sent something into this room, in answer to a message if it says to which.
    Replied {
        /// The message.
        id: Option<String>,
        /// The room, as [`Message::room`] has it, if it can be told.
        room: Option<String>,
    },
}

/// One WebSocket of a bot, as the service would speak on it.
pub trait Socket: Send + fmt::Debug {
    /// What is sent at once.
    fn opened(&mut self) -> Vec<Frame>;

    /// The bot has sent this.
    fn heard(&mut self, frame: &Frame) -> Vec<Did>;

    /// How a message is offered; none if it cannot be said on this socket.
    fn offer(&mut self, message: &Message, attempt: u32) -> Option<Frame>;

    /// How something is passed on that is not a message ([`far::Event::Passing`](crate::far::Event)).
    fn pass(&mut self, body: &Bytes) -> Option<Frame>;

    /// What confirms a message.
    fn confirmed_by(&self) -> ConfirmedBy;

    /// Whether messages may be offered: the bot has authorised itself.
    fn is_ready(&self) -> bool;
}

/// What confirms a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfirmedBy {
    /// A frame of the bot: [`Did::Confirmed`].
    Frame,
    /// The pong to a ping that was sent after it: the bot's library has read it.
    Pong,
}

/// What follows from a frame of the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// Answer with this.
    Reply(Frame),
    /// It has this message.
    Confirmed {
        /// Its id.
        id: String,
    },
    /// It says something to the service.
    Say(Outgoing),
    /// Close its socket.
    Close {
        /// The code (RFC 6455 section 7.4).
        code: u16,
        /// For people.
        words: &'static str,
    },
}
