//! What a link is told: `[links]` and `[links.NAME]` as the leaf has read and checked them.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use bowline_proto::keeper;

/// `[links]`: what all links of a process share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Where the loopback proxy listens for bots. Default 127.0.0.1:8002; bound by the master only if a link delivers to
    /// it.
    pub listen: SocketAddr,
    /// Attempts per second to one host, over all links. Default 5.
    pub attempts_per_second: u32,
    /// Attempts that may be made at once before that counts. Default 5.
    pub attempts_burst: u32,
    /// The store, the local certificate authority and the bundle are in here: `STATE/links`.
    pub directory: PathBuf,
    /// Where leases are, the same for every process of this user on this machine.
    pub leases: PathBuf,
    /// Messages without a confirmation, over all links, beyond which arrivals are not acknowledged any more. Half of it is
    /// cut into equal parts, one for each link. Default 100,000.
    pub waiting_max: u64,
}

/// One link.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name, from the configuration.
    pub name: String,
    /// What it speaks, and where.
    pub profile: Profile,
    /// The secret it authorises itself with; never shown.
    pub token: Option<Secret>,
    /// An HTTP proxy that everything of this link goes through, `http://[user:password@]host:port`.
    pub proxy: Option<Secret>,
    /// Certificates in PEM that are believed besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How it is kept.
    pub keeper: keeper::Config,
    /// The HTTP leg.
    pub http: Http,
    /// How its messages reach the bot.
    pub deliver: Deliver,
    /// The service of `[services]` that the bot is, for the last rung of the ladder.
    pub service: Option<String>,
    /// How long the bot may take to confirm a message. Default 60 s.
    pub confirm_timeout: Duration,
    /// How often a message is offered before it is parked. Default 10; absence does not count.
    pub offers_max: u32,
}

impl Link {
    /// Whether the other one is kept in the same way at its service, so that its connection can go on: only how its
    /// messages reach the bot may be otherwise. Between the proxy and the other ways the profile does different things.
    pub(crate) fn is_same_at_service(&self, other: &Self) -> bool {
        let is_proxy = |link: &Self| matches!(link.deliver, Deliver::Proxy { .. });
        let mut as_this = Self {
            deliver: self.deliver.clone(),
            service: self.service.clone(),
            confirm_timeout: self.confirm_timeout,
            offers_max: self.offers_max,
            ..other.clone()
        };
        as_this.keeper.service_after = self.keeper.service_after;
        *self == as_this && is_proxy(self) == is_proxy(other)
    }
}

/// What a link speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// A WebSocket whose messages are JSON or bytes.
    WebSocket {
        /// `ws://` or `wss://`.
        url: String,
        /// Headers of the handshake; `{token}` in a value is replaced by the token.
        headers: BTreeMap<String, Secret>,
        /// What is sent first, before it counts as open; `{token}` is replaced.
        hello: Option<Secret>,
        /// JSON pointer to the id of a message.
        message_id: Option<String>,
        /// JSON pointer to its room.
        room: Option<String>,
        /// The routing probe: what is sent, with `{nonce}` in it. Any message that has the nonce in it answers.
        probe: Option<String>,
        /// What acknowledges a message that has an id, once it is stored: a text with `{id}` in it, which is replaced as
        /// it stands inside of a JSON string.
        ack: Option<String>,
        /// Subprotocols offered.
        protocols: Vec<String>,
    },
    /// A Socket.IO client.
    SocketIo {
        /// `http(s)://host:port/namespace`.
        url: String,
        /// Engine.IO 4 or 3.
        eio: u8,
        /// The path of the engine. Default `/socket.io/`.
        path: String,
        /// The auth payload, a JSON object; `{token}` in a string is replaced.
        auth: Option<Secret>,
        /// JSON pointer into `[event, …args]` to the id of an event.
        message_id: Option<String>,
        /// JSON pointer into `[event, …args]` to its room.
        room: Option<String>,
        /// The routing probe: an event that the service echoes or acks. The nonce is its one argument.
        probe: Option<String>,
        /// Whether the service's recovery (`pid`, offsets) is used.
        recovery: bool,
    },
    /// Webex, as `webex_bot` uses it.
    Webex {
        /// Where its catalog is. Default `https://u2c.wbx2.com/u2c/api/v1`.
        catalog_url: String,
        /// Its public API. Default `https://webexapis.com/v1`.
        api_url: String,
        /// The space for routing probes. Default: one is made, and remembered.
        probe_room: Option<String>,
    },
}

/// The HTTP leg of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// A pooled connection that was idle for longer is not used again, and closed. Default 60 s.
    pub idle_max: Duration,
    /// From nothing to a connection, TLS included. Default 10 s.
    pub connect_timeout: Duration,
    /// From the request to the head of the answer on a connection that is new. Default 60 s.
    pub head_timeout: Duration,
    /// The same for safe requests on a pooled connection: when it is over, they are sent again on a new one. Default 5 s.
    pub reused_head_timeout: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            idle_max: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(60),
            reused_head_timeout: Duration::from_secs(5),
        }
    }
}

/// How messages reach the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deliver {
    /// To an app of `[backends]`.
    Http(String),
    /// To whoever is in this namespace.
    Namespace(String),
    /// To an unmodified bot that goes through the loopback proxy.
    Proxy {
        /// Further hosts whose TLS is ended here; those of the profile always are. A leading `*.` stands for any name
        /// below.
        intercept: Vec<String>,
    },
}

/// Something that is never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Keeps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: for the service, and nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("name", &self.name).finish_non_exhaustive()
    }
}
