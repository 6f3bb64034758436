//! Stage two: what will run.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bowline_names::EnvVar;
use bowline_net::SessionLimits;
use ipnet::IpNet;

use super::{Mistake, Place, Written};

/// Everything the server needs to know. [`Default`] is what runs when nobody says anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) admin: Admin,
    pub(crate) health: Health,
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    pub(crate) namespaces: Namespaces,
    pub(crate) alerts: Alerts,
    pub(crate) log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) shards: Shards,
    /// Where the server keeps its record, its control socket and its logs; `None` is where the
    /// system keeps such things for this user.
    pub(crate) state_dir: Option<PathBuf>,
    /// Proxies whose word on a client's address is taken.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Whether public connections begin with a PROXY protocol header.
    pub(crate) proxy_protocol: bool,
    pub(crate) drain: Duration,
    pub(crate) tls: Option<Tls>,
}

/// `[server.tls]`: PEM files, watched while the server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admin {
    pub(crate) listen: SocketAddr,
    /// A file with the token that the admin listener asks for; needed off loopback.
    pub(crate) token_file: Option<PathBuf>,
}

/// `[health]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Health {
    /// Where clients reach this server through whatever stands in front of it, as an origin.
    pub(crate) public_url: Option<String>,
}

/// `[alerts]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Alerts {
    /// Rules that change or add to the built-in ones.
    pub(crate) rules_file: Option<PathBuf>,
    /// An Alertmanager (API v2), as an origin with an optional path prefix.
    pub(crate) alertmanager_url: Option<String>,
    /// A URL that is sent each change as JSON.
    pub(crate) webhook_url: Option<String>,
}

/// `[engine]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    pub(crate) path: String,
    pub(crate) transports: Transports,
    pub(crate) allow_eio3: bool,
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) upgrade_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_payload_bytes: usize,
    pub(crate) compression: bool,
    pub(crate) cors_allowed_origins: Vec<String>,
    pub(crate) cookie: Cookie,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connections: Allowance,
    pub(crate) connections_per_address: Allowance,
    pub(crate) handshakes_per_second: u32,
    pub(crate) request_head: Duration,
    pub(crate) packets_per_payload: usize,
    pub(crate) attachments: usize,
    pub(crate) namespaces_per_session: usize,
    pub(crate) rooms_per_session: usize,
    pub(crate) pending_acks_per_session: usize,
    pub(crate) events_per_second: u32,
    pub(crate) queued_bytes_per_session: usize,
}

/// `[namespaces]`: patterns and who handles what they match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespaces(pub(crate) Vec<(String, Handler)>);

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// How many threads own sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shards {
    /// One for each core this process may use.
    Auto,
    /// As many, from 1 to 255: the first byte of a session id names its shard.
    Of(u16),
}

/// Which transports clients may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transports {
    pub(crate) polling: bool,
    pub(crate) websocket: bool,
}

/// A number of connections that may be left to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    Auto,
    Of(usize),
}

/// The cookie of the first polling response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cookie {
    Off,
    Named(String),
}

/// What answers the events of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handler {
    Echo,
    Relay,
}

impl Handler {
    /// The word in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Relay => "relay",
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the command line and the environment say. Empty and `None` mean: nothing.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) file: Option<PathBuf>,
    pub(crate) listen: Vec<SocketAddr>,
    /// The text of the variable `PORT`.
    pub(crate) port: Option<String>,
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) shards: Option<Shards>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![loopback(8000)],
            shards: Shards::Auto,
            state_dir: None,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            drain: Duration::from_secs(30),
            tls: None,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: loopback(8001), token_file: None }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            path: "/socket.io/".to_owned(),
            transports: Transports { polling: true, websocket: true },
            allow_eio3: true,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            max_payload_bytes: 1_000_000,
            compression: false,
            cors_allowed_origins: Vec::new(),
            cookie: Cookie::Off,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let (process, session) = (bowline_net::Limits::default(), SessionLimits::default());
        Self {
            connections: Allowance::Auto,
            connections_per_address: Allowance::Auto,
            handshakes_per_second: process.handshakes_per_second,
            request_head: process.request_head,
            packets_per_payload: session.packets_per_payload,
            attachments: session.attachments,
            namespaces_per_session: session.namespaces_per_session,
            rooms_per_session: session.rooms_per_session,
            pending_acks_per_session: session.pending_acks_per_session,
            events_per_second: session.events_per_second,
            queued_bytes_per_session: session.queued_bytes_per_session,
        }
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self(vec![("/".to_owned(), Handler::Echo), ("/relay".to_owned(), Handler::Relay)])
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Config {
    /// Puts the three sources together. What is wrong joins `mistakes`.
    pub(crate) fn of(written: Written, over: Overrides, mistakes: &mut Vec<Mistake>) -> Self {
        let default = Self::default();
        let (engine, limits) = (written.engine, written.limits);
        let config = Self {
            server: Server {
                listen: listen(over.listen, over.port, mistakes)
                    .or(written.listen)
                    .unwrap_or(default.server.listen),
                shards: over.shards.or(written.shards).unwrap_or(default.server.shards),
                drain: written.drain.unwrap_or(default.server.drain),
                ..default.server
            },
            health: default.health,
            alerts: default.alerts,
            admin: Admin {
                token_file: default.admin.token_file,
                listen: (over.admin_listen)
                    .or(written.admin_listen.as_ref().map(|at| at.value))
                    .unwrap_or(default.admin.listen),
            },
            engine: default.engine.with(engine),
            limits: default.limits.with(limits),
            namespaces: written.namespaces.map_or(default.namespaces, Namespaces),
            log: Log {
                level: over.log_level.or(written.log_level).unwrap_or(default.log.level),
                format: over.log_format.or(written.log_format).unwrap_or(default.log.format),
            },
        };
        let admin = config.admin.listen;
        if !admin.ip().is_loopback() {
            let (place, what) = match (over.admin_listen, written.admin_listen) {
                (None, Some(at)) => (Place::Line(at.line), "`admin.listen`"),
                _ => (Place::Outside("--admin-listen"), "the address"),
            };
            let message = format!(
                "{what} is {admin}, which others can reach; off loopback it takes \
                 `admin.token-file`, which is not in this version"
            );
            mistakes.push(Mistake { place, message });
        }
        config
    }
}

impl Engine {
    fn with(self, written: super::written::Engine) -> Self {
        Self {
            path: written.path.unwrap_or(self.path),
            transports: written.transports.unwrap_or(self.transports),
            allow_eio3: written.allow_eio3.unwrap_or(self.allow_eio3),
            ping_interval: written.ping_interval.unwrap_or(self.ping_interval),
            ping_timeout: written.ping_timeout.unwrap_or(self.ping_timeout),
            upgrade_timeout: written.upgrade_timeout.unwrap_or(self.upgrade_timeout),
            connect_timeout: written.connect_timeout.unwrap_or(self.connect_timeout),
            max_payload_bytes: written.max_payload_bytes.unwrap_or(self.max_payload_bytes),
            compression: written.compression.unwrap_or(self.compression),
            cors_allowed_origins: written.cors_allowed_origins.unwrap_or(self.cors_allowed_origins),
            cookie: written.cookie.unwrap_or(self.cookie),
        }
    }
}

impl Limits {
    fn with(self, written: super::written::Limits) -> Self {
        Self {
            connections: written.connections.unwrap_or(self.connections),
            connections_per_address: written
                .connections_per_address
                .unwrap_or(self.connections_per_address),
            handshakes_per_second: written
                .handshakes_per_second
                .unwrap_or(self.handshakes_per_second),
            request_head: written.request_head.unwrap_or(self.request_head),
            packets_per_payload: written.packets_per_payload.unwrap_or(self.packets_per_payload),
            attachments: written.attachments.unwrap_or(self.attachments),
            namespaces_per_session: written
                .namespaces_per_session
                .unwrap_or(self.namespaces_per_session),
            rooms_per_session: written.rooms_per_session.unwrap_or(self.rooms_per_session),
            pending_acks_per_session: written
                .pending_acks_per_session
                .unwrap_or(self.pending_acks_per_session),
            events_per_second: written.events_per_second.unwrap_or(self.events_per_second),
            queued_bytes_per_session: written
                .queued_bytes_per_session
                .unwrap_or(self.queued_bytes_per_session),
        }
    }
}

impl FromStr for Shards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(number @ 1..=255) => Ok(Self::Of(number)),
            _ => Err("it must be \"auto\" or a number from 1 to 255".to_owned()),
        }
    }
}

/// The public addresses of the command line, or those that `PORT` stands for.
fn listen(
    addresses: Vec<SocketAddr>,
    port: Option<String>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<SocketAddr>> {
    if !addresses.is_empty() {
        return Some(addresses);
    }
    let port = port.filter(|port| !port.is_empty())?;
    let Ok(port) = port.parse() else {
        let message = format!("\"{}\" is not a port", port.escape_debug());
        mistakes.push(Mistake { place: Place::Outside(EnvVar::Port.name()), message });
        return None;
    };
    Some(vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))])
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
