//! What a client is told once, and how its requests are written.

use std::time::Duration;

use crate::{
    engineio::{PollStyle, Version},
    limit::Limits,
};

/// What runs on top of the Engine.IO session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Socket.IO: namespaces, events, acks.
    SocketIo,
    /// Nothing: bare messages.
    EngineIo,
}

/// Which transports a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transports {
    /// Polling for the whole session.
    Polling,
    /// A WebSocket from the start.
    WebSocket,
    /// Polling first, then a WebSocket if the server offers it and it works; if not, polling goes
    /// on.
    Upgrade,
}

/// The configuration of a client; may be shared by many.
#[derive(Debug, Clone)]
pub struct Config {
    /// Default Socket.IO.
    pub protocol: Protocol,
    /// Default 4.
    pub version: Version,
    /// Default [`Transports::Upgrade`], as the official clients.
    pub transports: Transports,
    /// The path of the server's engine, with its trailing slash. Default `/socket.io/`.
    pub path: String,
    /// Further parameters of every request, percent-encoded and joined by `&`. Default none.
    pub query: String,
    /// How polling bodies are written; with `base64` the server is asked for `b64=1`. JSONP is for
    /// browsers and is not spoken. Default none of both.
    pub style: PollStyle,
    /// From which number on events that ask for an ack are counted in each namespace. A server that
    /// recovers a session may send acks of the one before, so whoever goes on with a
    /// [`Recall`](super::Recall) must not use their numbers again. Default 0.
    pub acks_from: u64,
    /// From [`Input::Open`](super::Input::Open) to the open packet. Default 20 s, as the official
    /// clients.
    pub open_timeout: Duration,
    /// From the open packet to the end of an upgrade; polling goes on when it is over. Default
    /// 10 s, the time reference servers give it.
    pub upgrade_timeout: Duration,
    /// From the CONNECT packet of a namespace to its answer. Default 20 s.
    pub join_timeout: Duration,
    /// How long a POST may take, and how long closing may wait for its last one. Default 20 s: an
    /// upload of [`Limits::max_payload_bytes`] at 50 KB/s.
    pub post_timeout: Duration,
    /// What the session may hold. A client uses `max_payload_bytes` (a POST is no larger, nor than
    /// what the server allows), `packets_per_payload`, `attachments`, `namespaces_per_session`,
    /// `pending_acks_per_session` and `queued_bytes_per_session`.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            protocol: Protocol::SocketIo,
            version: Version::V4,
            transports: Transports::Upgrade,
            path: "/socket.io/".to_owned(),
            query: String::new(),
            style: PollStyle::default(),
            acks_from: 0,
            open_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            join_timeout: Duration::from_secs(20),
            post_timeout: Duration::from_secs(20),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// The target of a request: the path with its query.
    pub(super) fn target(&self, transport: &str, sid: Option<&str>) -> String {
        let version = match self.version {
            Version::V3 => '3',
            Version::V4 => '4',
        };
        let mut target = format!("{}?EIO={version}&transport={transport}", self.path);
        if let Some(sid) = sid {
            // A sid of a foreign server may hold anything; what would end the parameter early is
            // escaped.
            target.push_str("&sid=");
            for byte in sid.bytes() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                        target.push(byte.into());
                    }
                    other => target.push_str(&format!("%{other:02X}")),
                }
            }
        }
        if self.style.base64 {
            target.push_str("&b64=1");
        }
        if !self.query.is_empty() {
            target.push('&');
            target.push_str(&self.query);
        }
        target
    }
}
