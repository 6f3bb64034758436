//! The process that speaks to clients: started by the master, told by its charter what to run.
//!
//! Its main thread runs a small runtime, the *office*: signals, the cord to the master, the API.
//! Clients are served on the threads of the shards, which the office never enters.

mod cord;
mod reload;
mod reports;

use std::{
    cell::Cell,
    fs,
    io::{self, IsTerminal as _, Write as _},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::PathBuf,
    pin::{Pin, pin},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use bowline_names::{ErrorCode, Exit};
use bowline_net::{BindError, Handle, RunError};
use tokio::{
    runtime,
    sync::{oneshot, watch},
    task::JoinSet,
    time,
};

use crate::{
    ai::Ai,
    alerts,
    api::AdminDoor,
    auth::Auth,
    backends::Backends,
    charter::{Charter, Door, Listener},
    clock,
    config::{self, Config},
    emit::Emitter,
    failure::Failure,
    handover::{self, Taken},
    instance,
    links::{self, Links},
    log,
    master::Report,
    metrics, misuse,
    services::board::Board,
    signals::{Order, Orders},
    wiring,
};

use self::{cord::Cord, reports::Reports};

pub(crate) use self::cord::{RELOAD, SERVICES};

/// How often the progress of a drain is shown.
const PROGRESS: Duration = Duration::from_secs(1);

/// Threads of the office: one may wait for a shard while the other answers.
const OFFICE_THREADS: usize = 2;

/// What the parts of a running gateway share: its server, its configuration, its orders.
pub(crate) struct Gateway {
    /// A way to every shard.
    pub(crate) handle: Handle,
    /// What runs; changes with each reload.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) charter: Arc<Charter>,
    /// What fires.
    pub(crate) alerts: Arc<alerts::Board>,
    /// Who gets in.
    pub(crate) auth: Arc<Auth>,
    /// Apps behind HTTP.
    pub(crate) backends: Arc<Backends>,
    /// Models of providers.
    pub(crate) ai: Ai,
    /// Processes that the master looks after.
    pub(crate) services: Board,
    /// Connections to services of bots.
    pub(crate) links: Links,
    /// The way in for events of other programs.
    pub(crate) emitter: Emitter,
}

/// Serves until told to stop by the master, or until that is gone.
///
/// # Errors
/// Whatever kept it from starting, or ended it.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    let taken = handover::take().map_err(|error| {
        let words = "`bowline gateway` is started by `bowline serve`, which says what to serve";
        Failure::new(ErrorCode::StartFailed, format!("{words}: {error}"))
    })?;
    // It was started as /proc/self/exe, and would be called by that in lists of processes.
    let _ = fs::write("/proc/self/comm", "bowline");
    let Taken { charter, listeners, cord, reports } = taken;
    let reports = Reports::new(reports);
    let ended = start(charter, listeners, cord, &reports);
    if let Err(failure) = &ended {
        reports.tell(&Report::Failed { text: first_line(&failure.message) });
    }
    ended.map(|exit| ExitCode::from(exit.code()))
}

fn start(
    charter: Charter,
    listeners: Vec<(Listener, TcpListener)>,
    cord: UnixStream,
    reports: &Reports,
) -> Result<Exit, Failure> {
    let file = charter.file.clone().map(|file| (file.path, file.text));
    let config = config::of_text(file, charter.overrides.clone())?;
    let bound = [Door::Public, Door::Admin, Door::Links].map(|door| charter.at(door));
    let config = config::bound(config, &bound[0], &bound[1], &bound[2])?;
    let first = charter.restarts.is_empty();
    if first {
        // Later they stay what they can be: clients come before alerts.
        alerts::load(&config.alerts)?;
    }
    let office = runtime::Builder::new_multi_thread()
        .worker_threads(OFFICE_THREADS)
        .thread_name("office")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorCode::StartFailed, error))?;
    log::start(&config.log.level, config.log.format);

    let auth = Arc::new(Auth::new(office.handle().clone(), first));
    let backends = Arc::new(Backends::new(office.handle().clone()));
    let ai = Ai::new(first);
    let (for_bots, listeners): (Vec<_>, Vec<_>) =
        listeners.into_iter().partition(|(listener, _)| listener.door == Door::Links);
    let for_bots = for_bots.into_iter().next().map(|(_, socket)| socket);
    let links = Links::new(office.handle().clone(), &charter, Arc::clone(&backends), for_bots);
    let mut builder = wiring::builder(&config, &auth, &backends, &ai, &links)?;
    backends.settle();
    ai.settle();
    if first {
        let (started, bound) = clock::start_of(charter.started_unix_ms, charter.bind_seconds);
        builder = builder.started(started).bound(bound);
    }
    for (listener, socket) in listeners {
        builder = match listener.door {
            Door::Public => builder.adopt(socket),
            Door::Admin => builder.adopt_admin(socket),
            Door::Links => builder,
        };
    }
    builder = builder.state_file(state_file(&charter));
    let (config, current) = watch::channel(Arc::new(config));
    let door = AdminDoor::new(office.handle(), current.clone(), first)?;
    let server = builder.admin_service(door.clone()).bind()?;
    let gateway = Arc::new(Gateway {
        handle: server.handle(),
        emitter: Emitter::new(server.handle()),
        config: current,
        alerts: Arc::new(alerts::Board::new(alerts::identity(&charter))),
        auth,
        backends,
        ai,
        services: Board::new(Vec::new()),
        links,
        charter: Arc::new(charter),
    });
    gateway.services.set(gateway.charter.services.clone(), &gateway.handle);
    door.open(Arc::clone(&gateway));
    gateway.auth.open(gateway.handle.clone());
    gateway.links.open(gateway.handle.clone());
    let result = office.block_on(async {
        let mut tasks = JoinSet::new();
        let cord = Cord { stream: cord, config };
        let result = serve(&gateway, server, cord, reports, &mut tasks).await;
        tasks.shutdown().await;
        result
    });
    // Whoever still works there works for nobody.
    office.shutdown_background();
    result
}

/// Where this gateway finds what the one before it has left, and leaves its own.
fn state_file(charter: &Charter) -> Option<PathBuf> {
    let path = charter.state_file.clone()?;
    let made = path.parent().map_or(Ok(()), instance::make_dir);
    if let Err(error) = made {
        let path = path.display();
        tracing::warn!(%error, %path, "clients that come back after a restart will be new");
        return None;
    }
    Some(path)
}

/// What may happen while it serves.
enum Event {
    /// The server ended.
    Ended(Result<(), RunError>),
    Order(Order),
    /// The cord is closed: the master died.
    Orphaned,
}

async fn serve(
    gateway: &Arc<Gateway>,
    server: bowline_net::Server,
    cord: Cord,
    reports: &Reports,
    tasks: &mut JoinSet<()>,
) -> Result<Exit, Failure> {
    let cannot_start = |error| Failure::new(ErrorCode::StartFailed, error);
    let mut orders = Orders::listen().map_err(cannot_start)?;
    let mut cord = pin!(cord.serve(gateway).map_err(cannot_start)?);
    let (drain, asked) = oneshot::channel();
    let mut running = pin!(server.run(async {
        // The sender is dropped only when this is not waited for any more.
        let _ = asked.await;
    }));
    tasks.spawn(reports.clone().live(Arc::clone(gateway)));
    tasks.spawn(alerts::run(Arc::clone(gateway)));
    tasks.spawn(misuse::run(Arc::clone(gateway)));
    tasks.spawn(links::run(Arc::clone(gateway)));
    let event = tokio::select! {
        ended = &mut running => Event::Ended(ended),
        order = orders.next() => Event::Order(order),
        () = &mut cord => Event::Orphaned,
    };
    let is_orphaned = matches!(event, Event::Orphaned);
    match event {
        Event::Ended(ended) => return Err(stopped_by_itself(ended)),
        Event::Order(Order::Drain) => tracing::info!("draining"),
        Event::Order(Order::Cut) => return Ok(Exit::Cut),
        Event::Orphaned => tracing::warn!("the master is gone, draining"),
    }
    reports.tell(&Report::Draining);
    tasks.abort_all();
    // If it is gone the server has ended, which is found out below.
    let _ = drain.send(());
    let exit = drained(running, &mut orders, &gateway.handle).await?;
    if exit == Exit::Ok {
        let is_last = is_orphaned || orders.say_it_is_the_last();
        let farewell = async {
            // Links offer nothing any more when apps are told the last.
            gateway.links.farewell(is_last).await;
            tokio::join!(gateway.backends.farewell(), gateway.ai.farewell())
        };
        tokio::select! {
            _ = farewell => {}
            Order::Cut = orders.next() => return Ok(Exit::Cut),
        }
        tracing::info!("stopped");
    }
    Ok(exit)
}

/// Waits for the end of a drain, or for the order that does not.
async fn drained(
    mut running: Pin<&mut impl Future<Output = Result<(), RunError>>>,
    orders: &mut Orders,
    handle: &Handle,
) -> Result<Exit, Failure> {
    let line = ProgressLine(Cell::new(false));
    let mut progress = pin!(report(handle, &line));
    loop {
        tokio::select! {
            ended = &mut running => {
                line.clear();
                ended.map_err(|error| Failure::new(ErrorCode::ServeFailed, error))?;
                return Ok(Exit::Ok);
            }
            order = orders.next() => if order == Order::Cut {
                line.clear();
                tracing::warn!("second signal, ending at once");
                return Ok(Exit::Cut);
            },
            () = &mut progress => {}
        }
    }
}

/// Says what was counted until the drain, then shows on a terminal how far the drain is. Never
/// ends.
async fn report(handle: &Handle, line: &ProgressLine) {
    metrics::log(&handle.stats().await);
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

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let code = match error {
            BindError::Adopt(_) | BindError::Listen { .. } => ErrorCode::ListenFailed,
            BindError::Tls(_) => ErrorCode::CertificateUnusable,
            BindError::Invalid(_) | BindError::Components(_) => ErrorCode::ConfigInvalid,
        };
        Self::new(code, error)
    }
}

fn stopped_by_itself(ended: Result<(), RunError>) -> Failure {
    match ended {
        Err(error @ RunError::Start(_)) => Failure::new(ErrorCode::StartFailed, error),
        Err(error) => Failure::new(ErrorCode::ServeFailed, error),
        Ok(()) => Failure::new(ErrorCode::ServeFailed, "all shards have ended"),
    }
}
