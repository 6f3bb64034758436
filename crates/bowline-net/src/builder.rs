//! How a server is described before it is bound.

use std::{
    fmt, io, mem,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_proto::{
    hub::{self, Keeping, NamespacePattern, NamespaceRule, Protocol},
    limit::Limits as SessionLimits,
};
use bytes::Bytes;
use ipnet::IpNet;

use crate::{
    admin::AdminService,
    admission::Door,
    clock::Clock,
    components::{ComponentError, Components, Progress, Spec},
    continuity::Continuity,
    forwarded::Proxies,
    handler::{EngineHandler, Handler},
    limit::{self, Limits},
    mount::HttpService,
    probe::{self, ProbeHandler},
    process::Process,
    server::{Bound, Server},
    settings::{Handlers, Settings},
    tls::{Certificates, Tls, TlsError},
};

/// Describes a server. Made by [`Server::builder`]; every setter has the default that `bowline
/// serve` has.
#[must_use = "a builder does nothing until it is bound"]
pub struct Builder {
    listen: Vec<SocketAddr>,
    admin_listen: Vec<SocketAddr>,
    adopted: Vec<(Door, TcpListener)>,
    admin_service: Option<Arc<dyn AdminService>>,
    http_service: Option<Arc<dyn HttpService>>,
    shards: Option<usize>,
    hub: hub::Config,
    engine: Engine,
    continuity: Continuity,
    state_file: Option<PathBuf>,
    limits: Limits,
    drain: Duration,
    page: Option<Bytes>,
    namespaces: Vec<Arc<dyn Handler>>,
    engine_handler: Option<Arc<dyn EngineHandler>>,
    components: Vec<Spec>,
    public_url: Option<String>,
    proxies: Proxies,
    tls: Option<Tls>,
    started: Option<Instant>,
    bound: Option<Instant>,
}

/// The part of `[engine]` that concerns HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// Begins and ends with a slash.
    pub(crate) path: String,
    /// Where the requests of sessions go that opened before it changed, the latest first.
    pub(crate) former_paths: Vec<String>,
    pub(crate) polling: bool,
    pub(crate) websocket: bool,
    pub(crate) allow_eio3: bool,
    pub(crate) compression: bool,
    /// What a body may have at most: `engine.max-payload`, or more while sessions may be open that
    /// were told more. The hub knows which may how much.
    pub(crate) max_body_bytes: usize,
    /// The transports that sessions may be on which opened before the last change.
    pub(crate) served_polling: bool,
    pub(crate) served_websocket: bool,
    pub(crate) cors_allowed_origins: Vec<String>,
    pub(crate) cookie: Option<String>,
}

impl Engine {
    /// Whether requests with this path are for the engine.
    pub(crate) fn is_below(&self, path: &str) -> bool {
        path.starts_with(&*self.path)
            || self.former_paths.iter().any(|former| path.starts_with(&**former))
    }

    /// Takes over what a change must not take from sessions that are open.
    pub(crate) fn follow(&mut self, before: &Self) {
        let former = std::iter::once(&before.path).chain(&before.former_paths);
        let former = former.filter(|path| **path != self.path).take(limit::FORMER_PATHS);
        self.former_paths = former.cloned().collect();
        self.max_body_bytes = self.max_body_bytes.max(before.max_body_bytes);
        self.served_polling |= before.served_polling;
        self.served_websocket |= before.served_websocket;
    }
}

/// What a builder says that may change while a server runs.
pub(crate) struct Described {
    pub(crate) settings: Settings,
    pub(crate) hub: hub::Config,
    pub(crate) continuity: Continuity,
    pub(crate) handlers: Handlers,
    pub(crate) tls: Option<Tls>,
}

/// What goes from a builder to the process for good.
pub(crate) struct Parts {
    pub(crate) admin_service: Option<Arc<dyn AdminService>>,
    pub(crate) http_service: Option<Arc<dyn HttpService>>,
    pub(crate) components: Arc<Components>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) started: Started,
    /// The first public address.
    pub(crate) public: SocketAddr,
    pub(crate) state_file: Option<PathBuf>,
}

/// When the program began, and when it had its addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    pub(crate) began: Instant,
    pub(crate) bound: Instant,
}

/// The builder cannot be bound.
#[derive(Debug)]
pub enum BindError {
    /// The operator's or the application's settings contradict one another. The text names them.
    Invalid(&'static str),
    /// The components contradict one another.
    Components(ComponentError),
    /// The certificate cannot be used.
    Tls(TlsError),
    /// An address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why: often that another process has it.
        source: io::Error,
    },
    /// A socket that was handed over does not listen.
    Adopt(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => f.write_str(why),
            Self::Components(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Adopt(source) => write!(f, "a socket that was handed over is unusable: {source}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Invalid(_) => None,
            Self::Components(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Listen { source, .. } | Self::Adopt(source) => Some(source),
        }
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            listen: Vec::new(),
            admin_listen: Vec::new(),
            adopted: Vec::new(),
            admin_service: None,
            http_service: None,
            shards: None,
            hub: hub::Config {
                // Before any other, so that no pattern takes it from the probe.
                namespaces: vec![NamespaceRule {
                    pattern: NamespacePattern::new(probe::NAMESPACE),
                    handler: 0,
                    keeping: Keeping { stamp: hub::Stamp::Never, ..Keeping::default() },
                }],
                ..hub::Config::default()
            },
            engine: Engine {
                path: String::new(),
                former_paths: Vec::new(),
                polling: true,
                websocket: true,
                allow_eio3: true,
                compression: false,
                max_body_bytes: 0,
                served_polling: true,
                served_websocket: true,
                cors_allowed_origins: Vec::new(),
                cookie: None,
            },
            continuity: Continuity::default(),
            state_file: None,
            limits: Limits::default(),
            drain: limit::DRAIN,
            page: None,
            namespaces: vec![Arc::new(ProbeHandler)],
            engine_handler: None,
            components: Vec::new(),
            public_url: None,
            proxies: Proxies::default(),
            tls: None,
            started: None,
            bound: None,
        }
    }

    /// Listens on an address for clients; may be called again for others. Port 0 is any free one,
    /// see [`Server::local_addrs`]. At least one is needed.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// Listens on an address for operators; it answers `/health/*`, and what an
    /// [`admin_service`](Self::admin_service) answers.
    pub fn admin_listen(mut self, address: SocketAddr) -> Self {
        self.admin_listen.push(address);
        self
    }

    /// Serves clients on a socket that listens already, such as one that was inherited from the
    /// process that started this one.
    pub fn adopt(mut self, listener: TcpListener) -> Self {
        self.adopted.push((Door::Public, listener));
        self
    }

    /// The same for operators.
    pub fn adopt_admin(mut self, listener: TcpListener) -> Self {
        self.adopted.push((Door::Admin, listener));
        self
    }

    /// What answers operators' requests beside `/health/*`. Default none: 404.
    pub fn admin_service(mut self, service: impl AdminService) -> Self {
        self.admin_service = Some(Arc::new(service));
        self
    }

    /// What answers clients' requests that are for neither `/health/*` nor the path of the engine.
    /// Default none: 404, but for the [`page`](Self::page).
    pub fn http_service(mut self, service: impl HttpService) -> Self {
        self.http_service = Some(Arc::new(service));
        self
    }

    /// `server.shards`: threads that serve, 1 to 255. Default: as many as the machine has cores
    /// for this process.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// `server.drain`: how long sessions may be closed over at a stop, at most. Default 30 s.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// `engine.path`: requests whose path begins with it are Engine.IO; a slash is added at either
    /// end where it lacks. Default `/socket.io/`, and `/engine.io/` with
    /// [`engine_io`](Self::engine_io).
    pub fn path(mut self, path: impl AsRef<str>) -> Self {
        self.engine.path = format!("/{}/", path.as_ref().trim_matches('/')).replace("//", "/");
        self
    }

    /// Whether `polling` is in `engine.transports`. Default true.
    pub fn polling(mut self, polling: bool) -> Self {
        self.engine.polling = polling;
        self
    }

    /// Whether `websocket` is in `engine.transports`. Default true.
    pub fn websocket(mut self, websocket: bool) -> Self {
        self.engine.websocket = websocket;
        self
    }

    /// `engine.allow-eio3`: whether clients of Socket.IO 2 are served. Default true.
    pub fn allow_eio3(mut self, allow: bool) -> Self {
        self.engine.allow_eio3 = allow;
        self
    }

    /// `engine.ping-interval`. Default 25 s.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.hub.ping_interval = interval;
        self
    }

    /// `engine.ping-timeout`. Default 20 s.
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.hub.ping_timeout = timeout;
        self
    }

    /// `engine.upgrade-timeout`: how long an upgrade to WebSocket may take. Default 10 s.
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Self {
        self.hub.upgrade_timeout = timeout;
        self
    }

    /// `engine.connect-timeout`: how long a session may go without a namespace. Default 45 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.hub.connect_timeout = timeout;
        self
    }

    /// `engine.max-payload`: bytes of one WebSocket message or polling body. Default 1,000,000.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.hub.limits.max_payload_bytes = bytes;
        self
    }

    /// `engine.compression`: whether WebSocket messages may be compressed (permessage-deflate
    /// without context takeover). Default false: it costs more time than it saves on small
    /// messages.
    pub fn compression(mut self, compression: bool) -> Self {
        self.engine.compression = compression;
        self
    }

    /// `engine.cors-allowed-origins`: if it names any, pages of other origins may not open
    /// sessions, and answers carry CORS headers; `*` allows all. Default none: no CORS headers,
    /// and no origin is refused.
    pub fn cors_allowed_origins<T: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Self {
        self.engine.cors_allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// `engine.cookie`: the name of a cookie that carries the Engine.IO sid, for proxies that
    /// route by it. Default none: Bowline needs no sticky sessions.
    pub fn cookie(mut self, name: impl Into<Option<String>>) -> Self {
        self.engine.cookie = name.into();
        self
    }

    /// Keeps what clients said when they opened their session for as long as it lives, for
    /// handlers that read headers in every namespace. Default false.
    pub fn keep_headers(mut self, keep: bool) -> Self {
        self.hub.keep_headers = keep;
        self
    }

    /// `[limits]`, what the process takes on. Default: see [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// `[limits]`, what one session may hold or do. Its `max_payload_bytes` is `engine.max-payload`.
    /// Default: see [`SessionLimits`].
    pub fn session_limits(mut self, limits: SessionLimits) -> Self {
        self.hub.limits = limits;
        self
    }

    /// A page at `/` of the public listeners. Default none.
    pub fn page(mut self, html: impl Into<Bytes>) -> Self {
        self.page = Some(html.into());
        self
    }

    /// Serves a namespace, or a family of them where the name has `*`, each of which stands for
    /// any run of characters but `/`. The first that matches counts.
    pub fn namespace(self, pattern: &str, handler: impl Handler) -> Self {
        self.namespace_shared(pattern, Arc::new(handler))
    }

    /// The same for a handler that is shared.
    pub fn namespace_shared(mut self, pattern: &str, handler: Arc<dyn Handler>) -> Self {
        // More than 65,536 are refused when binding.
        let index = self.namespaces.len() as u16;
        let rule = NamespaceRule {
            pattern: NamespacePattern::new(pattern),
            handler: index,
            keeping: Keeping::default(),
        };
        self.hub.namespaces.push(rule);
        self.namespaces.push(handler);
        self
    }

    /// How the namespace that was added last keeps its sockets over the end of their transports:
    /// `stamp`, `on-doubt`, `event-id` and `session-key`. Default: see [`Keeping`].
    pub fn keeping(mut self, keeping: Keeping) -> Self {
        // The first is the probe's.
        if let Some(rule) = self.hub.namespaces.iter_mut().skip(1).last() {
            rule.keeping = keeping;
        }
        self
    }

    /// `[continuity]`: how long clients may stay away, and what is kept for them meanwhile. Default:
    /// see [`Continuity`].
    pub fn continuity(mut self, continuity: Continuity) -> Self {
        self.continuity = continuity;
        self
    }

    /// The file in which a server that stops leaves what its clients have not seen, and a server that
    /// starts finds it, so that they can come back to it. Its directory must exist. Cannot be changed
    /// while the server runs. Default none: clients that come back after a restart are new.
    pub fn state_file(mut self, path: impl Into<Option<PathBuf>>) -> Self {
        self.state_file = path.into();
        self
    }

    /// Speaks Engine.IO alone, without namespaces.
    pub fn engine_io(mut self, handler: impl EngineHandler) -> Self {
        self.engine_handler = Some(Arc::new(handler));
        self.hub.protocol = Protocol::EngineIo(0);
        self
    }

    /// Adds a part of the application that takes its time: a model, a cache, a connection. `load`
    /// runs on a thread of its own once the server [runs](Server::run) and everything in `needs` is
    /// ready, beside all others of which that is true; clients are answered meanwhile. It is ready
    /// when `load` returns, and failed when that is an error, or a panic; what needs it is then
    /// skipped.
    ///
    /// `/health/ready` tells how far each component is, and is 503 until all `required` ones are
    /// ready. A name has 1 to 100 bytes and is a label of metrics. Default none: ready at once.
    pub fn component<E: fmt::Display>(
        mut self,
        name: impl Into<String>,
        needs: &[&str],
        required: bool,
        load: impl FnOnce(&Progress) -> Result<(), E> + Send + 'static,
    ) -> Self {
        self.components.push(Spec {
            name: name.into(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            required,
            load: Box::new(move |progress| load(progress).map_err(|error| error.to_string())),
        });
        self
    }

    /// `health.public-url`: the way clients come, `https://example.com`, often by way of a proxy;
    /// `/health/websocket` takes it. A path in it is put before the path of the engine. Default
    /// none: it goes straight to the first public listener.
    pub fn public_url(mut self, url: impl Into<Option<String>>) -> Self {
        self.public_url = url.into();
        self
    }

    /// `server.tls`: the public listeners speak TLS 1.2 and 1.3, with this certificate. Admin
    /// listeners do not. Default none: they speak plain HTTP.
    pub fn tls(mut self, tls: impl Into<Option<Tls>>) -> Self {
        self.tls = tls.into();
        self
    }

    /// `server.trusted-proxies`: what connections from there say of the client's address is
    /// believed: their `X-Forwarded-For`, and their PROXY protocol header. They do not count under
    /// `limits.connections-per-address`; the WebSockets they pass on count under the address of
    /// their client. Default none.
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        self.proxies.trusted = proxies.into_iter().collect();
        self
    }

    /// `server.proxy-protocol`: connections to the public listeners begin with a PROXY protocol
    /// header, version 1 or 2; without one they are closed. If
    /// [`trusted_proxies`](Self::trusted_proxies) are named, it is expected of those alone, and
    /// else of everybody. Default false.
    pub fn proxy_protocol(mut self, header: bool) -> Self {
        self.proxies.header = header;
        self
    }

    /// When the program began, which [`Handle::startup`](crate::Handle::startup) counts from.
    /// Default: when this process did, to 10 ms.
    pub fn started(mut self, at: Instant) -> Self {
        self.started = Some(at);
        self
    }

    /// When the addresses were bound, where that was done by whoever handed the sockets over.
    /// Default: at the end of [`bind`](Self::bind).
    pub fn bound(mut self, at: Instant) -> Self {
        self.bound = Some(at);
        self
    }

    /// Binds every address. From here on clients connect; they are answered when the server
    /// [runs](Server::run).
    ///
    /// # Errors
    ///
    /// [`BindError::Invalid`] if there is no address, no handler or no transport, or a number is
    /// out of range; [`BindError::Components`] if a component needs one that there is not, or itself
    /// by way of others; [`BindError::Tls`] if the certificate cannot be used;
    /// [`BindError::Listen`] if an address cannot be had.
    pub fn bind(mut self) -> Result<Server, BindError> {
        let shards = self.check_place()?;
        self.check()?;
        let clock = Clock::start();
        let components = Components::new(clock, mem::take(&mut self.components))
            .map_err(BindError::Components)?;
        let certificates = Arc::new(Certificates::new(Arc::clone(&components)));
        certificates.set(self.tls.clone()).map_err(BindError::Tls)?;
        let mut listeners = Vec::new();
        for (door, listener) in mem::take(&mut self.adopted) {
            let bound = listener
                .set_nonblocking(true)
                .and_then(|()| Ok(Bound { door, address: listener.local_addr()?, listener }));
            listeners.push(bound.map_err(BindError::Adopt)?);
        }
        let doors = self.listen.iter().map(|address| (Door::Public, *address));
        let doors = doors.chain(self.admin_listen.iter().map(|address| (Door::Admin, *address)));
        for (door, address) in doors {
            let listener = listen(address).and_then(|listener| {
                let address = listener.local_addr()?;
                Ok(Bound { door, address, listener })
            });
            listeners.push(listener.map_err(|source| BindError::Listen { address, source })?);
        }

        let first = listeners.iter().find(|it| it.door == Door::Public).map(|it| it.address);
        let parts = Parts {
            public: first.ok_or(BindError::Invalid(NO_ADDRESS))?,
            state_file: self.state_file.take(),
            admin_service: self.admin_service.take(),
            http_service: self.http_service.take(),
            components,
            certificates,
            started: Started {
                began: self.started.unwrap_or_else(Clock::start_of_process),
                bound: self.bound.unwrap_or_else(Clock::system_now),
            },
        };
        let process = Process::new(self.describe()?, parts, shards, clock);
        Ok(Server::new(Arc::new(process), listeners))
    }

    /// Takes out what may change while a server runs.
    ///
    /// # Errors
    ///
    /// [`BindError::Invalid`] as for [`bind`](Self::bind), addresses and shards aside.
    pub(crate) fn describe(self) -> Result<Described, BindError> {
        self.check()?;
        let mut engine = self.engine;
        if engine.path.is_empty() {
            let bare = self.engine_handler.is_some();
            engine.path = if bare { "/engine.io/" } else { "/socket.io/" }.to_owned();
        }
        engine.max_body_bytes = self.hub.limits.max_payload_bytes;
        engine.served_polling = engine.polling;
        engine.served_websocket = engine.websocket;
        let hub =
            hub::Config { upgrades: engine.websocket, allow_eio3: engine.allow_eio3, ..self.hub };
        let settings = Settings {
            engine,
            limits: self.limits,
            drain: self.drain,
            page: self.page,
            public_url: self.public_url,
            proxies: self.proxies,
        };
        let handlers = Handlers { namespaces: self.namespaces, engine: self.engine_handler };
        Ok(Described { settings, hub, continuity: self.continuity, handlers, tls: self.tls })
    }

    /// Checks where the server shall be, and says how many shards there will be.
    fn check_place(&self) -> Result<usize, BindError> {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let shards = self.shards.unwrap_or_else(|| cores().min(limit::SHARDS_MAX));
        let public = |(door, _): &(Door, TcpListener)| *door == Door::Public;
        if self.listen.is_empty() && !self.adopted.iter().any(public) {
            Err(BindError::Invalid(NO_ADDRESS))
        } else if !(1..=limit::SHARDS_MAX).contains(&shards) {
            Err(BindError::Invalid("server.shards must be 1 to 255"))
        } else {
            Ok(shards)
        }
    }

    /// Checks the settings against one another.
    fn check(&self) -> Result<(), BindError> {
        let engine = &self.engine;
        // The first is the probe's.
        let named = self.namespaces.len() > 1;
        let wrong = if !engine.polling && !engine.websocket {
            "engine.transports names no transport"
        } else if !named && self.engine_handler.is_none() {
            "there is no handler: add a namespace, or one for Engine.IO alone"
        } else if named && self.engine_handler.is_some() {
            "a server speaks Socket.IO or Engine.IO alone, not both"
        } else if self.namespaces.len() > usize::from(u16::MAX) {
            "there are more than 65,535 namespaces"
        } else if self.hub.limits.max_payload_bytes == 0 {
            "engine.max-payload must be at least one byte"
        } else if self.hub.ping_interval.is_zero() || self.hub.ping_timeout.is_zero() {
            "engine.ping-interval and engine.ping-timeout must be longer than nothing"
        } else if engine.cookie.as_deref().is_some_and(|name| !is_token(name)) {
            "engine.cookie must be a name of letters, digits and the like"
        } else if self.limits.connections == Some(0)
            || self.limits.connections_per_address == Some(0)
            || self.limits.handshakes_per_second == 0
            || self.limits.handshakes_per_second_per_address == Some(0)
            || self.limits.request_head.is_zero()
        {
            "a limit of zero would refuse everybody"
        } else {
            return Ok(());
        };
        Err(BindError::Invalid(wrong))
    }
}

const NO_ADDRESS: &str = "there is no address to listen on";

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("listen", &self.listen)
            .field("admin_listen", &self.admin_listen)
            .field("shards", &self.shards)
            .field("hub", &self.hub)
            .field("engine", &self.engine)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A name that may stand in `Set-Cookie` (RFC 6265 section 4.1.1).
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Listens as a server does that is [bound](Builder::bind), for a process that hands the socket to
/// another one, which [adopts](Builder::adopt) it. Port 0 is any free one.
///
/// # Errors
///
/// Those of the system: often that another process has the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // So that a server can start again while connections of the last one are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(limit::LISTEN_BACKLOG)?;
    Ok(socket.into())
}
