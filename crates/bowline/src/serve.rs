//! `bowline serve`: from arguments to a server, and to its end.

use std::{
    cell::Cell,
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    pin::{Pin, pin},
    time::Duration,
};

use bowline_names::{ErrorCode, Exit};
use bowline_net::{
    BindError, Builder, Echo, Handle, Limits, Relay, RunError, Server, SessionLimits,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{runtime, sync::oneshot, time};

use crate::{
    banner,
    config::{self, Allowance, Config, Cookie, Handler, LogFormat, Overrides, Shards},
    counted,
    failure::Failure,
    holder, log, page,
    signals::Signals,
};

/// How often the progress of a drain is shown, and how long it is waited for the figures.
const PROGRESS: Duration = Duration::from_secs(1);

/// Serves until told to stop.
///
/// The order is the point: addresses are bound before anything else is made, so that clients who
/// come at once wait in the backlog instead of being refused.
///
/// # Errors
/// Whatever kept it from starting, or ended it.
pub(crate) fn run(overrides: Overrides) -> Result<Exit, Failure> {
    let config = config::load(overrides).map_err(|error| {
        let code = match error {
            config::Error::Unreadable { .. } => ErrorCode::ConfigUnreadable,
            config::Error::Invalid { .. } => ErrorCode::ConfigInvalid,
        };
        Failure::new(code, error)
    })?;
    raise_descriptor_limit();
    let server = builder(&config).bind().map_err(|error| cannot_bind(&config, &error))?;

    log::start(&config.log.level, config.log.format);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorCode::StartFailed, error))?;
    runtime.block_on(serve(&config, server))
}

/// Takes as many descriptors as the system allows without asking: the soft limit is often 1,024,
/// for the sake of programs that use `select`, and `limits.connections` follows from it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If it is refused, the limit stays what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

async fn serve(config: &Config, server: Server) -> Result<Exit, Failure> {
    let mut signals =
        Signals::listen().map_err(|error| Failure::new(ErrorCode::StartFailed, error))?;
    announce(config, &server);
    let handle = server.handle();
    let (drain, asked) = oneshot::channel();
    let mut running = pin!(server.run(async {
        // The sender is dropped only when this is not waited for any more.
        let _ = asked.await;
    }));

    let signal = tokio::select! {
        ended = &mut running => return Err(stopped_by_itself(ended)),
        signal = signals.next() => signal,
    };
    tracing::info!(signal, "draining");
    // If it is gone the server has ended, which the loop finds out.
    let _ = drain.send(());
    drained(running, &mut signals, &handle).await
}

/// Waits for the end of a drain, or for the signal that does not.
async fn drained(
    mut running: Pin<&mut impl Future<Output = Result<(), RunError>>>,
    signals: &mut Signals,
    handle: &Handle,
) -> Result<Exit, Failure> {
    let line = ProgressLine(Cell::new(false));
    let mut progress = pin!(report(handle, &line));
    loop {
        tokio::select! {
            ended = &mut running => {
                line.clear();
                ended.map_err(|error| Failure::new(ErrorCode::ServeFailed, error))?;
                tracing::info!("stopped");
                return Ok(Exit::Ok);
            }
            signal = signals.next() => {
                line.clear();
                tracing::warn!(signal, "second signal, ending at once");
                return Ok(Exit::Cut);
            }
            () = &mut progress => {}
        }
    }
}

/// Says what was counted until the drain, then shows on a terminal how far the drain is. Never
/// ends.
async fn report(handle: &Handle, line: &ProgressLine) {
    counted::log(&handle.stats().await);
    if !io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    loop {
        time::sleep(PROGRESS).await;
        let stats = handle.stats().await;
        let sessions = stats.sessions_polling + stats.sessions_websocket;
        let connections = stats.connections;
        line.show(&format!("draining: {sessions} sessions, {connections} connections left"));
    }
}

/// The last line of a terminal, written again and again. Whether it is in use.
struct ProgressLine(Cell<bool>);

impl ProgressLine {
    /// What cannot be shown is no reason to stop the drain.
    fn show(&self, words: &str) {
        self.0.set(true);
        let _ = write!(io::stderr(), "\r\x1b[K  {words}");
    }

    fn clear(&self) {
        if self.0.take() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn builder(config: &Config) -> Builder {
    let Config { server, admin, engine, limits, namespaces, health: _, alerts: _, log: _ } = config;
    let mut builder = Server::builder()
        .admin_listen(admin.listen)
        .drain(server.drain)
        .path(&engine.path)
        .polling(engine.transports.polling)
        .websocket(engine.transports.websocket)
        .allow_eio3(engine.allow_eio3)
        .ping_interval(engine.ping_interval)
        .ping_timeout(engine.ping_timeout)
        .upgrade_timeout(engine.upgrade_timeout)
        .connect_timeout(engine.connect_timeout)
        .compression(engine.compression)
        .cors_allowed_origins(engine.cors_allowed_origins.iter().map(String::as_str))
        .cookie(match &engine.cookie {
            Cookie::Off => None,
            Cookie::Named(name) => Some(name.clone()),
        })
        .limits(Limits {
            connections: number(limits.connections),
            connections_per_address: number(limits.connections_per_address),
            handshakes_per_second: limits.handshakes_per_second,
            request_head: limits.request_head,
        })
        .session_limits(SessionLimits {
            max_payload_bytes: engine.max_payload_bytes,
            packets_per_payload: limits.packets_per_payload,
            attachments: limits.attachments,
            namespaces_per_session: limits.namespaces_per_session,
            rooms_per_session: limits.rooms_per_session,
            pending_acks_per_session: limits.pending_acks_per_session,
            events_per_second: limits.events_per_second,
            queued_bytes_per_session: limits.queued_bytes_per_session,
        })
        .page(page::render(config));
    for address in &server.listen {
        builder = builder.listen(*address);
    }
    if let Shards::Of(shards) = server.shards {
        builder = builder.shards(shards.into());
    }
    for (pattern, handler) in &namespaces.0 {
        builder = match handler {
            Handler::Echo => builder.namespace(pattern, Echo),
            Handler::Relay => builder.namespace(pattern, Relay),
        };
    }
    builder
}

fn number(allowance: Allowance) -> Option<usize> {
    match allowance {
        Allowance::Auto => None,
        Allowance::Of(number) => Some(number),
    }
}

fn announce(config: &Config, server: &Server) {
    let (public, admin) = (server.local_addrs(), server.admin_addrs());
    match config.log.format {
        LogFormat::Text => {
            let text = banner::text(config, &public, &admin);
            // Nobody listens to stderr: then nobody misses it.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        LogFormat::Json => {
            tracing::info!(public = join(&public), admin = join(&admin), "listening");
        }
    }
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn cannot_bind(config: &Config, error: &BindError) -> Failure {
    let BindError::Listen { address, source } = error else {
        return Failure::new(ErrorCode::ConfigInvalid, error);
    };
    let code = match source.kind() {
        io::ErrorKind::AddrInUse => ErrorCode::AddressInUse,
        io::ErrorKind::AddrNotAvailable => ErrorCode::AddressUnavailable,
        io::ErrorKind::PermissionDenied => ErrorCode::AddressDenied,
        _ => ErrorCode::ListenFailed,
    };
    let what = listener_name(config, *address);
    let why = match holder::of(*address) {
        Some(holder) if code == ErrorCode::AddressInUse => format!("it is held by {holder}"),
        _ => source.to_string(),
    };
    Failure::new(code, format!("cannot listen on {address} ({what}): {why}"))
}

/// What the operator has to change to move a listener.
fn listener_name(config: &Config, address: SocketAddr) -> &'static str {
    if config.server.listen.contains(&address) { "--listen" } else { "--admin-listen" }
}

fn stopped_by_itself(ended: Result<(), RunError>) -> Failure {
    match ended {
        Err(error @ RunError::Start(_)) => Failure::new(ErrorCode::StartFailed, error),
        Err(error) => Failure::new(ErrorCode::ServeFailed, error),
        Ok(()) => Failure::new(ErrorCode::ServeFailed, "all shards have ended"),
    }
}
