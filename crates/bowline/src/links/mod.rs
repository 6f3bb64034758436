//! Links as this program has them: what the configuration says of them ([`settings`]), the ways to their bots that are
//! not the loopback proxy's ([`app`], [`namespace`], both with [`message`]), and what is told of them ([`status`], for
//! people in [`words`]). What keeps them is in `bowline-link`.
//!
//! ```text
//! config ─ settings ─▶ bowline_link::Links ─ views ─▶ status ─▶ API, metrics, alerts, /health/ready
//!                        │ Host: deliver, restart_service
//!                        ▼
//!            app (backends) · namespace (shards) · services::relay
//! ```

mod app;
pub(crate) mod environment;
mod message;
mod namespace;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod words;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bowline_link::{
    Host, StoreView,
    bot::{Mouth, SharedDeliver},
    far::{Outgoing, Unsaid},
    settings as link,
    view::View,
};
use bowline_names::ErrorCode;
use bowline_net::Handle;
use bowline_store::Gone;
use tokio::{runtime, sync::Notify, task, time};

use self::{
    app::App,
    namespace::{Door, Doors},
};
use crate::{
    backends::Backends,
    charter::Charter,
    config::{Config, Profile},
    failure::Failure,
    gateway::Gateway,
    services::relay,
};

/// How long a server that stops says goodbye to services: their close frames, and devices that are deleted.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often `/health/ready` hears of links.
const LOOK: Duration = Duration::from_secs(1);

/// All links of a gateway. Without one in the configuration there is no thread and no file.
pub(crate) struct Links {
    shared: Arc<Shared>,
    /// Where this server keeps what outlives it, if it has such a place.
    state: Option<PathBuf>,
    /// Whether a link whose token cannot be had is left out: only the first gateway of a master refuses to start.
    lenient: bool,
    /// Where bots come in, once: bound by the master, or here.
    listener: Mutex<Option<TcpListener>>,
    listening: OnceLock<SocketAddr>,
    /// What could not be bound, and why.
    unbound: Mutex<Option<(SocketAddr, String)>>,
    /// What the configuration that is being put in place says.
    next: Mutex<Option<Next>>,
    running: OnceLock<bowline_link::Links>,
    /// Told once when that is there.
    begun: Notify,
    /// Whether the first configuration has been put in force, as far as it could be.
    settled: AtomicBool,
}

/// What links need of this process.
struct Shared {
    office: runtime::Handle,
    /// Where the control socket is.
    control: Option<PathBuf>,
    backends: Arc<Backends>,
    handle: Arc<OnceLock<Handle>>,
    doors: Doors,
}

struct Next {
    shared: Option<link::Shared>,
    links: Vec<link::Link>,
    /// Where bots shall be listened to.
    listen: Option<SocketAddr>,
}

impl Links {
    /// Links of which nothing is known yet.
    pub(crate) fn new(
        office: runtime::Handle,
        charter: &Charter,
        backends: Arc<Backends>,
        listener: Option<TcpListener>,
    ) -> Self {
        let shared = Shared {
            office,
            control: charter.state_dir.clone(),
            backends,
            handle: Arc::default(),
            doors: Doors::default(),
        };
        Self {
            shared: Arc::new(shared),
            state: charter.state_file.as_deref().and_then(Path::parent).map(Path::to_owned),
            lenient: !charter.restarts.is_empty(),
            listener: Mutex::new(listener),
            listening: OnceLock::new(),
            unbound: Mutex::default(),
            next: Mutex::default(),
            running: OnceLock::new(),
            begun: Notify::new(),
            settled: AtomicBool::new(false),
        }
    }

    /// Reads what a configuration says. It counts from [`settle`](Self::settle) on.
    ///
    /// # Errors
    /// A token cannot be had; then nothing has changed.
    pub(crate) fn prepare(&self, config: &Config) -> Result<(), Failure> {
        let links = match settings::links(config, settings::of_environment) {
            Ok(links) => links,
            Err((name, why)) if self.lenient => {
                tracing::error!(link = name, error = why, "links are not kept: a token is missing");
                Vec::new()
            }
            Err((name, why)) => {
                let words = format!("`links.{name}`: {why}");
                return Err(Failure::new(ErrorCode::LinkUnusable, words));
            }
        };
        let shared = self.state.as_deref().map(|state| settings::shared(config, state));
        let listen = config.links.listens().then_some(config.links.listen);
        *lock(&self.next) = Some(Next { shared, links, listen });
        Ok(())
    }

    /// What answers the events of a namespace that a link delivers to.
    pub(crate) fn namespace(&self, pattern: &str) -> Arc<dyn bowline_net::Handler> {
        let Shared { office, handle, doors, .. } = &*self.shared;
        doors.open(pattern, || Door::new(pattern, office.clone(), Arc::clone(handle)))
    }

    /// Lets links reach the shards.
    pub(crate) fn open(&self, handle: Handle) {
        // A second gateway in one process there is not.
        let _ = self.shared.handle.set(handle);
    }

    /// Puts what was prepared in force: links that are not changed go on untouched. With the first of all, a thread and
    /// a store begin. May wait for a disk, so not on a thread that has to answer.
    pub(crate) fn settle(&self) {
        self.put_in_force();
        self.settled.store(true, Relaxed);
    }

    /// Whether the links of this process are known: before that nobody can say that there is none.
    pub(crate) fn are_known(&self) -> bool {
        self.settled.load(Relaxed)
    }

    fn put_in_force(&self) {
        let Some(Next { shared, links, listen }) = lock(&self.next).take() else { return };
        *lock(&self.unbound) = None;
        if self.running.get().is_none() {
            if links.is_empty() {
                return;
            }
            let Some(mut shared) = shared else {
                tracing::error!(
                    "links are configured, and this server has no state directory of its own to keep them with"
                );
                return;
            };
            match (self.address(), listen) {
                (Some(address), _) => shared.listen = address,
                (None, Some(listen)) => {
                    self.listen(listen);
                    shared.listen = self.address().unwrap_or(listen);
                }
                (None, None) => {}
            }
            let host: Arc<dyn Host> = Arc::clone(&self.shared) as _;
            let running = bowline_link::Links::new(shared, host);
            if let Err(error) = running.start() {
                tracing::error!(%error, "links are configured and cannot be kept");
                return;
            }
            // Nobody else starts them: a reload waits for the one before it.
            let _ = self.running.set(running);
            self.begun.notify_one();
        } else if let (Some(listen), None) = (listen, self.address()) {
            self.listen(listen);
        }
        let Some(running) = self.running.get() else { return };
        self.serve(running);
        running.configure(links);
    }

    /// Serves bots on what is bound, or has it told why nothing is.
    fn serve(&self, running: &bowline_link::Links) {
        if let Some(listener) = lock(&self.listener).take() {
            if let Ok(address) = listener.local_addr() {
                let _ = self.listening.set(address);
            }
            running.serve_local(listener);
        } else if let Some((address, error)) = &*lock(&self.unbound) {
            running.lock_out(format!("{address} cannot be bound: {error}"));
        }
    }

    /// Binds what could not be bound, as soon as that can be done.
    fn look(&self) {
        let Some(running) = self.running.get() else { return };
        {
            // Held meanwhile, since a reload may want to bind it too.
            let mut unbound = lock(&self.unbound);
            let Some((address, error)) = &mut *unbound else { return };
            match self.bind(*address) {
                Ok(()) => *unbound = None,
                Err(still) => *error = still.to_string(),
            }
        }
        self.serve(running);
    }

    /// Whether there is no link, and was none.
    fn have_nothing_to_do(&self) -> bool {
        let none = lock(&self.next).as_ref().is_none_or(|next| next.links.is_empty());
        none && self.running.get().is_none()
    }

    /// Where bots come in, if they do.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let here = || lock(&self.listener).as_ref().and_then(|it| it.local_addr().ok());
        self.listening.get().copied().or_else(here)
    }

    /// Binds what the master has not: it did not know that it would be needed. What is in the way now may go.
    fn listen(&self, address: SocketAddr) {
        if let Err(error) = self.bind(address) {
            let words = "bots do not find their links: `links.listen` cannot be bound yet";
            tracing::error!(%address, %error, "{words}");
            *lock(&self.unbound) = Some((address, error.to_string()));
        }
    }

    fn bind(&self, address: SocketAddr) -> io::Result<()> {
        *lock(&self.listener) = Some(bowline_net::listen(address)?);
        Ok(())
    }

    /// The links themselves, once there is one.
    pub(crate) fn running(&self) -> Option<&bowline_link::Links> {
        self.running.get()
    }

    /// How all of them are.
    pub(crate) fn view(&self) -> Vec<View> {
        self.running.get().map(bowline_link::Links::view).unwrap_or_default()
    }

    /// What is left of links that are not configured any more, as far as there is one that is.
    pub(crate) fn gone(&self) -> Vec<Gone> {
        self.running.get().map(bowline_link::Links::gone).unwrap_or_default()
    }

    /// How the store of messages is; none without links.
    pub(crate) fn store(&self) -> Option<StoreView> {
        self.running.get().map(bowline_link::Links::store)
    }

    /// Says goodbye to all services, and to bots. If no gateway follows this one, nobody is let in any more before.
    pub(crate) async fn farewell(&self, is_last: bool) {
        if let Some(running) = self.running.get() {
            running.farewell(FAREWELL, is_last).await;
        }
    }
}

impl Host for Shared {
    fn deliver(&self, of: &link::Link, mouth: Mouth) -> Result<SharedDeliver, String> {
        let profile = match of.profile {
            link::Profile::WebSocket { .. } => Profile::WebSocket,
            link::Profile::SocketIo { .. } => Profile::SocketIo,
            link::Profile::Webex { .. } => Profile::Webex,
        };
        match &of.deliver {
            link::Deliver::Http(app) => {
                // What the app says it says in its answers.
                drop(mouth);
                Ok(Arc::new(App::new(app, profile, Arc::clone(&self.backends))))
            }
            link::Deliver::Namespace(namespace) => {
                let door = self.doors.get(namespace);
                let door = door.ok_or_else(|| format!("there is no namespace {namespace}"))?;
                Ok(Arc::new(door.deliver(mouth, profile, of.confirm_timeout)))
            }
            link::Deliver::Proxy { .. } => Err("bots come over the proxy".to_owned()),
        }
    }

    fn restart_service(&self, service: &str) {
        let Some(place) = self.control.clone() else {
            tracing::error!(
                service,
                "a link wants its service restarted, and there is no control socket"
            );
            return;
        };
        let service = service.to_owned();
        // It ends when the master has answered, which it does at once.
        drop(self.office.spawn(async move {
            match relay::restart_of(&place, &service).await {
                Ok(()) => tracing::warn!(
                    service,
                    "the service of a link is restarted, since its bot handles nothing"
                ),
                Err(error) => {
                    tracing::error!(service, %error, "the service of a link cannot be restarted");
                }
            }
        }));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Starts them once clients are answered, and tells `/health/ready` how they are, for ever.
pub(crate) async fn run(gateway: Arc<Gateway>) {
    settle(Arc::clone(&gateway)).await;
    let mut told = Vec::new();
    loop {
        let config = Arc::clone(&gateway.config.borrow());
        let required = |name: &str| {
            config.links.all.0.iter().any(|(known, link)| known == name && link.required)
        };
        let views = gateway.links.view();
        let now = views.iter().map(|view| status::component(view, required(&view.name)));
        let now: Vec<_> = now.collect();
        if now != told {
            gateway.handle.set_links(now.clone());
            told = now;
        }
        if gateway.links.running().is_some() {
            time::sleep(LOOK).await;
            gateway.links.look();
        } else {
            gateway.links.begun.notified().await;
        }
    }
}

/// Settles off the threads that have to answer.
pub(crate) async fn settle(gateway: Arc<Gateway>) {
    if gateway.links.have_nothing_to_do() {
        gateway.links.settled.store(true, Relaxed);
        return;
    }
    // Whatever panics there has said so, and links are as they were.
    let _ = task::spawn_blocking(move || gateway.links.settle()).await;
}

/// What goes to the service for a JSON value that is to be said to it, and whether an answer is wanted.
///
/// # Errors
/// It is not in the form that the profile asks for.
pub(crate) fn message_to_service(
    profile: Profile,
    json: &str,
    reply_to: Option<&str>,
    ask: bool,
) -> Result<Outgoing, String> {
    let outgoing = message::outgoing(profile, json, reply_to)?;
    // Who asks is told apart by whom it waits for, not by this number.
    Ok(Outgoing { ask: ask.then_some(0), ..outgoing })
}

/// What it is called that something was not said, or not answered.
pub(crate) fn unsaid_code(unsaid: &Unsaid) -> ErrorCode {
    match unsaid {
        Unsaid::NotSent(_) => ErrorCode::LinkNotSent,
        Unsaid::Unanswered(_) => ErrorCode::LinkUnanswered,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
