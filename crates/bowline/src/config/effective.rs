//! Stage two: what will run.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bowline_net::{EventIdPath, OnDoubt, SessionLimits, Stamp};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    ai::{Ai, Named},
    links::Links,
    services::Service,
    telemetry::Telemetry,
    value,
};

/// Everything the server needs to know. [`Default`] is what runs when nobody says anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) admin: Admin,
    pub(crate) health: Health,
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    pub(crate) continuity: Continuity,
    pub(crate) namespaces: Namespaces,
    pub(crate) backends: Backends,
    pub(crate) ai: Ai,
    pub(crate) services: Named<Service>,
    pub(crate) links: Links,
    pub(crate) alerts: Alerts,
    pub(crate) telemetry: Telemetry,
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    pub(crate) alertmanager_url: Option<Url>,
    /// A URL that is sent each change as JSON.
    pub(crate) webhook_url: Option<Url>,
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
    pub(crate) connections_per_subject: Allowance,
    pub(crate) handshakes_per_second: u32,
    pub(crate) handshakes_per_second_per_address: Allowance,
    pub(crate) request_head: Duration,
    pub(crate) packets_per_payload: usize,
    pub(crate) attachments: usize,
    pub(crate) namespaces_per_session: usize,
    pub(crate) rooms_per_session: usize,
    pub(crate) pending_acks_per_session: usize,
    pub(crate) events_per_second: u32,
    pub(crate) queued_bytes_per_session: usize,
}

/// `[continuity]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Continuity {
    /// How long a client may stay away.
    pub(crate) window: Duration,
    pub(crate) durability: Durability,
    /// What the logs of all shards may take.
    pub(crate) max_bytes: usize,
    /// How many sockets of all shards may be away.
    pub(crate) max_away: usize,
}

/// What sessions survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The end of a connection, and a clean restart.
    Memory,
}

/// `[namespaces]`: patterns and what is done with what they match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespaces(pub(crate) Vec<(String, Namespace)>);

/// One table of `[namespaces]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub(crate) handler: Handler,
    /// Who gets offsets and a pid.
    pub(crate) stamp: Stamp,
    /// What becomes of events that a client without offsets may have.
    pub(crate) on_doubt: OnDoubt,
    /// Where clients put an id into their events.
    pub(crate) event_id: Option<EventIdPath>,
    /// What names the clients that get no pid.
    pub(crate) session_key: Option<SessionKey>,
    /// Which key in `[ai.keys]` the clients of a model use together.
    pub(crate) ai_key: Option<String>,
    /// What a token must be for its client to get in; `None` lets everybody in.
    pub(crate) jwt: Option<Jwt>,
}

/// `session-key`: where the name of a client stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionKey {
    /// In the cookie of this name.
    Cookie(String),
    /// In this claim of its token.
    Claim(String),
}

/// `[backends]`: apps behind HTTP, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Backends(pub(crate) Vec<(String, Backend)>);

/// One table of `[backends]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    /// Where requests are posted to.
    pub(crate) url: Url,
    /// What they are signed with.
    pub(crate) secret_file: Option<PathBuf>,
    /// From the arrival of a request to its answer.
    pub(crate) timeout: Duration,
    /// Requests under way.
    pub(crate) max_concurrent: usize,
    /// Requests that wait.
    pub(crate) queue: usize,
    /// Whether it is asked again when a client returns.
    pub(crate) recheck: bool,
    /// The service that answers there.
    pub(crate) service: Option<String>,
}

/// `auth.jwt` of a namespace. One of the three keys it has is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Jwt {
    /// A secret a line, for HS256, HS384 and HS512.
    pub(crate) secret_file: Option<PathBuf>,
    /// Public keys in PEM, one behind the other.
    pub(crate) public_key_file: Option<PathBuf>,
    /// Where a JSON Web Key Set is.
    pub(crate) jwks_url: Option<Url>,
    /// Who may have issued a token; nobody: whoever has the key.
    pub(crate) issuer: Vec<String>,
    /// Whom a token may be for; nobody: whomever.
    pub(crate) audience: Vec<String>,
    pub(crate) rooms_claim: Option<String>,
    pub(crate) data_claim: Option<String>,
    pub(crate) leeway: Duration,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// A URL whose path may be a secret, as those of hooks are: its [`Debug`](fmt::Debug) shows the
/// host alone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url(String);

/// How many threads own sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handler {
    Echo,
    Relay,
    /// The link that delivers to it.
    Link,
    /// The app of this name in `[backends]`.
    Http(String),
    /// The model of this name in `[ai.models]`.
    Ai(String),
}

impl Handler {
    /// What it is called for people.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Echo => "echo",
            Self::Relay => "relay",
            Self::Link => "link",
            Self::Http(name) | Self::Ai(name) => name,
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub(crate) enum LogFormat {
    /// For people on a terminal, as JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the command line and the environment say. Empty and `None` mean: nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Overrides {
    pub(crate) file: Option<PathBuf>,
    pub(crate) listen: Vec<SocketAddr>,
    /// The text of the variable `PORT`.
    pub(crate) port: Option<String>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) shards: Option<Shards>,
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) admin_token_file: Option<PathBuf>,
    pub(crate) public_url: Option<String>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
    /// Which of them stood on the command line, as `--listen`; the others are from variables.
    pub(crate) flags: Vec<String>,
}

impl Url {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The scheme and the host, and whether there is more.
    pub(crate) fn shown(&self) -> String {
        let host = self.0.find("://").map_or(0, |at| at + 3);
        let end = self.0[host..].find(['/', '?']).map_or(self.0.len(), |at| host + at);
        let rest = if self.0[end..].len() > 1 { "/…" } else { "" };
        format!("{}{rest}", &self.0[..end])
    }
}

impl Deref for Url {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl LogFormat {
    /// Whether lines are JSON, for a process with this stderr.
    pub(crate) fn is_json(self) -> bool {
        match self {
            Self::Auto => !io::stderr().is_terminal(),
            Self::Text => false,
            Self::Json => true,
        }
    }
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
            connections_per_subject: Allowance::Auto,
            handshakes_per_second: process.handshakes_per_second,
            handshakes_per_second_per_address: Allowance::Auto,
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

impl Default for Continuity {
    fn default() -> Self {
        let bowline_net::Continuity { window, max_bytes, max_away } = Default::default();
        Self { window, durability: Durability::Memory, max_bytes, max_away }
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self(vec![
            ("/".to_owned(), Namespace::new(Handler::Echo)),
            ("/relay".to_owned(), Namespace::new(Handler::Relay)),
        ])
    }
}

impl Namespace {
    /// One that says no more than this.
    pub(crate) fn new(handler: Handler) -> Self {
        Self {
            handler,
            stamp: Stamp::default(),
            on_doubt: OnDoubt::default(),
            event_id: None,
            ai_key: None,
            session_key: None,
            jwt: None,
        }
    }
}

impl Namespaces {
    /// The table of a pattern, made when it is first asked for.
    pub(crate) fn entry(&mut self, pattern: &str) -> &mut Namespace {
        let found = self.0.iter().position(|(name, _)| name == pattern);
        let at = found.unwrap_or_else(|| {
            // The handler is demanded, so that this one never runs.
            self.0.push((pattern.to_owned(), Namespace::new(Handler::Echo)));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

impl Backends {
    /// The table of an app, made when it is first asked for.
    pub(crate) fn entry(&mut self, name: &str) -> &mut Backend {
        let found = self.0.iter().position(|(known, _)| known == name);
        let at = found.unwrap_or_else(|| {
            self.0.push((name.to_owned(), Backend::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

impl Default for Backend {
    /// The URL is demanded, so that nothing is ever asked of this one.
    fn default() -> Self {
        Self {
            url: Url(String::new()),
            secret_file: None,
            timeout: bowline_backend::Options::TIMEOUT,
            max_concurrent: bowline_backend::Options::MAX_CONCURRENT,
            queue: bowline_backend::Options::QUEUE,
            recheck: false,
            service: None,
        }
    }
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret_file: None,
            public_key_file: None,
            jwks_url: None,
            issuer: Vec::new(),
            audience: Vec::new(),
            rooms_claim: None,
            data_claim: None,
            leeway: Duration::from_secs(30),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl FromStr for Shards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(number @ 1..=255) => Ok(Self::Of(number)),
            _ => Err(format!("write {}", value::SHARDS)),
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
