//! Outbound connections: drives [`bowline_proto::client`] over TCP and TLS.
//!
//! [`connect`] opens a session and joins the namespace of its URL; the [`Connection`] it returns is
//! one session and does not come back by itself when that is over. What is sent, and when, is
//! decided in `bowline-proto`; here bytes are moved: `http` and `websocket` carry them, `driver` is
//! the one loop. [`Wire`] is for checks: it makes single requests and says how each of them went. [`Pool`] makes
//! HTTP requests to one server on connections that are used again; [`Lanes`] makes them where answers are
//! streams.
//!
//! Everything has a deadline: connecting ([`Options::connect_timeout`]), opening, joining, an
//! upgrade, a POST (the timeouts of [`Config`]), an ack (its own), a silent server (the heartbeat it
//! announced), closing (those together).

mod clock;
mod driver;
mod entropy;
mod http;
mod lanes;
mod leg;
mod limit;
mod outbox;
mod pool;
mod proxy;
pub mod socket;
pub mod stream;
mod target;
mod tls;
mod websocket;
mod wire;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use bowline_proto::client::Input;
pub use bowline_proto::{
    client::{CloseReason, Config, Event, JoinError, Protocol, Transports},
    engineio::Version,
    socketio::Args,
    wall::AckError,
    websocket::Message,
};
use bytestring::ByteString;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use driver::{Command, Driver};
pub use lanes::{
    BodyFailure, Lane, LaneFigures, LaneOptions, Lanes, NoLane, SendFailure, StreamedAnswer,
    StreamedBody,
};
pub use leg::{
    Leg, LegAnswer, LegBody, LegFailure, LegFailureKind, LegFigures, LegOptions, LegRequest,
};
pub use outbox::Outbox;
pub use pool::{HttpAnswer, HttpFailure, Kept, Origin, Pool};
pub use proxy::{InvalidProxy, Proxy};
pub use rustls_pki_types::CertificateDer;
use target::Target;
pub use tls::Trust;
pub use wire::{Answer, Refusal, Wire, WireSocket};

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// The protocol and its timeouts. The query of the URL is appended to
    /// [`Config::query`].
    pub config: Config,
    /// What the CONNECT packet of the first namespace carries: see
    /// [`Input::Join`]. Default none.
    pub auth: Option<ByteString>,
    /// Headers of every request. Default none; a `user-agent` is added if there is none.
    pub headers: Vec<(String, String)>,
    /// How long a TCP connection, and the handshake of a WebSocket on it, may take. Default 10 s.
    pub connect_timeout: Duration,
    /// Bytes that every TCP connection begins with, before TLS: a header of the PROXY protocol for
    /// servers that expect one. Default none.
    pub preface: Vec<u8>,
    /// The proxy that every connection goes through. Default none; environment variables are not looked at.
    pub proxy: Option<Proxy>,
    /// Which servers are believed where the URL asks for TLS. Default: those the operating system
    /// trusts.
    pub trust: Trust,
    /// The most bytes of a message, or of a polling body, that are read. Default 16 MiB: all that a
    /// server may have queued for one session, in base64.
    pub max_message_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config::default(),
            auth: None,
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            preface: Vec::new(),
            proxy: None,
            trust: Trust::System,
            max_message_bytes: 16 * 1024 * 1024,
        }
    }
}

/// Opens a session at `url`, `https://host:port/namespace?query`, and joins the namespace, `/` if
/// the URL names none. With [`Protocol::EngineIo`] there are no namespaces and the path is ignored;
/// the path of the engine itself is [`Config::path`].
///
/// # Errors
///
/// The URL cannot be dialled, the session did not open, or the namespace was refused. It is tried
/// once.
pub async fn connect(url: &str, options: Options) -> Result<Connection, ConnectError> {
    let (target, rest) = Target::parse(url, &options)?;
    let Options { mut config, auth, .. } = options;
    if !rest.query.is_empty() {
        let and = if config.query.is_empty() { "" } else { "&" };
        config.query = format!("{}{and}{}", config.query, rest.query);
    }
    let protocol = config.protocol;

    let (commands, command_receiver) = mpsc::channel(limit::COMMANDS_MAX);
    let (outbox, events) = Outbox::new(bytes_of);
    let (sign_sender, signs) = watch::channel(Signs::default());
    let driver =
        Driver::new(Arc::new(config), Arc::new(target), command_receiver, outbox, sign_sender);
    let mut task = JoinSet::new();
    task.spawn(driver.run());
    let handle = Handle { commands, namespace: rest.namespace.into() };
    let mut connection = Connection {
        handle,
        events,
        early: VecDeque::new(),
        sid: ByteString::new(),
        pid: None,
        signs,
        task,
    };

    if protocol == Protocol::SocketIo {
        let namespace = connection.handle.namespace.clone();
        connection.handle.input(Input::Join { namespace, auth }).await;
    }
    connection.handle.input(Input::Open).await;
    connection.opened(protocol).await?;
    Ok(connection)
}

/// What an event holds.
fn bytes_of(event: &Event) -> usize {
    match event {
        Event::Event { args, .. } | Event::Unsent { args, .. } => args.bytes(),
        Event::Message(message) => message.len(),
        Event::Opened
        | Event::Upgraded
        | Event::UpgradeFailed { .. }
        | Event::Joined { .. }
        | Event::JoinFailed { .. }
        | Event::Left { .. }
        | Event::Ack { .. }
        | Event::Closed { .. } => 0,
    }
}

/// One session. Dropped, it ends at once and without a goodbye; see [`Connection::close`].
#[derive(Debug)]
pub struct Connection {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    /// What arrived before the namespace was joined.
    early: VecDeque<Event>,
    sid: ByteString,
    pid: Option<ByteString>,
    signs: watch::Receiver<Signs>,
    /// The one task of the connection.
    task: JoinSet<()>,
}

impl Connection {
    /// The Socket.IO sid in the first namespace; empty with [`Protocol::EngineIo`].
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// The private id by which a server that can recovers the session in the first namespace.
    pub fn pid(&self) -> Option<&ByteString> {
        self.pid.as_ref()
    }

    /// What was heard from the server that makes no event.
    pub fn signs(&self) -> watch::Receiver<Signs> {
        self.signs.clone()
    }

    /// The first namespace.
    pub fn namespace(&self) -> &ByteString {
        &self.handle.namespace
    }

    /// What sends on this connection; may be cloned and used from anywhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sends an event to the first namespace: [`Handle::emit`].
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn emit(&self, args: Args) -> Result<(), Gone> {
        self.handle.emit(args).await
    }

    /// Sends an event to the first namespace and waits for its ack: [`Handle::emit_with_ack`].
    ///
    /// # Errors
    ///
    /// There will be no ack.
    pub async fn emit_with_ack(&self, args: Args, timeout: Duration) -> Result<Args, AckError> {
        self.handle.emit_with_ack(args, timeout).await
    }

    /// Acks an event of the first namespace: [`Handle::ack`].
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn ack(&self, id: u64, args: Args) -> Result<(), Gone> {
        self.handle.ack(id, args).await
    }

    /// The next thing that happened; `None` after [`Event::Closed`]. When events are not taken, the
    /// connection stops reading after some hundred, and its heartbeat fails in the end. Nothing is
    /// lost if the future is dropped.
    pub async fn next_event(&mut self) -> Option<Event> {
        match self.early.pop_front() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// Sends what is queued, leaves every namespace, closes, and waits for that. Events that come
    /// meanwhile are dropped. Returns why the session ended, which may have been earlier and for
    /// another reason.
    pub async fn close(mut self) -> CloseReason {
        self.handle.input(Input::Close).await;
        let mut ended = CloseReason::Requested;
        while let Some(event) = self.next_event().await {
            if let Event::Closed { reason, .. } = event {
                ended = reason;
            }
        }
        while self.task.join_next().await.is_some() {}
        ended
    }

    /// Waits until the session is open and the first namespace joined.
    async fn opened(&mut self, protocol: Protocol) -> Result<(), ConnectError> {
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Opened if protocol == Protocol::EngineIo => return Ok(()),
                Event::Opened => {}
                Event::Joined { namespace, sid, pid } if namespace == self.handle.namespace => {
                    self.sid = sid;
                    self.pid = pid;
                    return Ok(());
                }
                Event::JoinFailed { namespace, error } if namespace == self.handle.namespace => {
                    return Err(ConnectError::NotJoined(error));
                }
                Event::Closed { reason, detail } => {
                    return Err(ConnectError::Closed { reason, detail });
                }
                other => self.early.push_back(other),
            }
        }
        Err(ConnectError::Closed { reason: CloseReason::TransportError, detail: String::new() })
    }
}

/// Sends on a connection. When much is waiting to be sent, its methods wait.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    namespace: ByteString,
}

impl Handle {
    /// The same connection with another namespace. [`Handle::join`] joins it.
    pub fn with_namespace(&self, namespace: impl Into<ByteString>) -> Self {
        Self { commands: self.commands.clone(), namespace: namespace.into() }
    }

    /// Joins the namespace. [`Event::Joined`] or [`Event::JoinFailed`] answers.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn join(&self, auth: Option<ByteString>) -> Result<(), Gone> {
        self.try_input(Input::Join { namespace: self.namespace.clone(), auth }).await
    }

    /// Leaves the namespace.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn leave(&self) -> Result<(), Gone> {
        self.try_input(Input::Leave { namespace: self.namespace.clone() }).await
    }

    /// Sends an event; `args` begins with its name. It is sent after those before it, or
    /// [`Event::Unsent`] says why not.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn emit(&self, args: Args) -> Result<(), Gone> {
        let namespace = self.namespace.clone();
        self.try_input(Input::Emit { namespace, args, ack: None }).await
    }

    /// Sends an event and waits for its ack. The time begins when the connection takes the event,
    /// which it does at once unless much is waiting to be sent; twice that time is never exceeded.
    ///
    /// # Errors
    ///
    /// The ack did not come in time, or cannot come any more, or too many are awaited.
    pub async fn emit_with_ack(&self, args: Args, timeout: Duration) -> Result<Args, AckError> {
        let namespace = self.namespace.clone();
        let (answer, answered) = oneshot::channel();
        let command = Command::EmitWithAck { namespace, args, timeout, answer };
        let taking = async {
            self.commands.send(command).await.map_err(|_| AckError::Disconnected)?;
            answered.await.map_err(|_| AckError::Disconnected)?
        };
        // A connection that cannot send takes no commands, and would not start the time.
        match tokio::time::timeout(timeout.saturating_mul(2), taking).await {
            Ok(result) => result,
            Err(_) => Err(AckError::TimedOut),
        }
    }

    /// Acks an event that asked for it. Only the first ack of an event counts at the server.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn ack(&self, id: u64, args: Args) -> Result<(), Gone> {
        self.try_input(Input::Ack { namespace: self.namespace.clone(), id, args }).await
    }

    /// Engine.IO alone: sends a message.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn send(&self, message: Message) -> Result<(), Gone> {
        self.try_input(Input::Send(message)).await
    }

    /// Sends a ping of the WebSocket, not of the engine; [`Signs::pongs`] counts the answers. Does nothing while the
    /// session polls.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn ping(&self) -> Result<(), Gone> {
        self.commands.send(Command::Ping).await.map_err(|_| Gone)
    }

    /// Waits until what was sent before has left: over a WebSocket it is with the system, and survives the end of this
    /// process; over polling its request was answered. Whether the server has it only an ack can say.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn written(&self) -> Result<(), Gone> {
        let (mark, written) = oneshot::channel();
        self.commands.send(Command::Mark(mark)).await.map_err(|_| Gone)?;
        written.await.map_err(|_| Gone)
    }

    async fn try_input(&self, input: Input) -> Result<(), Gone> {
        self.commands.send(Command::Input(input)).await.map_err(|_| Gone)
    }

    /// For what is moot when the session is over.
    async fn input(&self, input: Input) {
        let _ = self.try_input(input).await;
    }
}

/// Signs of life that a session has had from its server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signs {
    /// Heartbeats of the engine: its pings (EIO 4), its pongs (EIO 3), answers to requests.
    pub heartbeats: u64,
    /// Answers to [`Handle::ping`].
    pub pongs: u64,
}

/// The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is closed")
    }
}

impl std::error::Error for Gone {}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// The URL does not begin with `http`, `https`, `ws` or `wss`, or has a user and a password.
    InvalidUrl,
    /// The URL asks for TLS, and there is no root certificate to believe.
    NoRoots,
    /// The session did not open, or ended before the namespace was joined.
    Closed {
        /// Why.
        reason: CloseReason,
        /// More about it, for a log; may be empty.
        detail: String,
    },
    /// The namespace was not joined.
    NotJoined(JoinError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUrl => {
                f.write_str("the URL is not of the form http://host:port/namespace")
            }
            Self::NoRoots => f.write_str(
                "this machine has no root certificates; Debian has them in `ca-certificates`",
            ),
            Self::Closed { reason, detail } if detail.is_empty() => {
                write!(f, "the session did not open: {}", reason.name())
            }
            Self::Closed { reason, detail } => {
                write!(f, "the session did not open: {}: {detail}", reason.name())
            }
            Self::NotJoined(JoinError::Refused(data)) => {
                write!(f, "the server refused the namespace: {data}")
            }
            Self::NotJoined(JoinError::TimedOut) => {
                f.write_str("the server did not answer for the namespace in time")
            }
            Self::NotJoined(JoinError::TooMany) => f.write_str("too many namespaces are joined"),
        }
    }
}

impl std::error::Error for ConnectError {}
