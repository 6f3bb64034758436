//! The loopback side, for bots that do not know of Bowline: an HTTP proxy whose user is a link, `http://NAME:SECRET@`.
//!
//! ```text
//!  bot ─ CONNECT host ─▶ listener ─▶ connect ─┬─ a host of the rules: TLS ended here with a certificate of authority
//!                                             │    request ─▶ rules.answer │ dial::Leg ─▶ service, seen by rules.observe
//!                                             │    WebSocket of the link ─▶ socket ◀─ deliver ◀─ offers
//!                                             └─ any other: a tunnel, unseen
//!  bot ─ wss://localhost:PORT/links/NAME/SECRET/… ─▶ socket        for libraries that do not use proxies for WebSockets
//! ```
//!
//! Whoever cannot show the secret of a link gets nothing: neither other users of this machine nor web pages, which may
//! reach any address of it. Between a bot and this process nothing is closed because the far side is renewed.
//!
//! *Absent on purpose:* what a service means by its requests, which the [rules] of its profile know.

mod authority;
mod body;
mod connect;
mod deliver;
mod door;
mod environment;
mod files;
mod limit;
mod listener;
mod refusal;
pub mod rules;
mod secret;
mod socket;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bowline_dial::{Leg, Proxy, Trust};
use tokio::{
    sync::{Semaphore, watch},
    task::{self, JoinSet},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    bot::{Mouth, SharedDeliver},
    clock,
    settings::{self, Secret},
};
use authority::{Authority, LOCALHOST};
use deliver::Bots;
pub(crate) use door::Door;
pub use environment::environment;
use files::Directory;
pub use files::LocalError;
use rules::Rules;

/// The loopback proxy of all links. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Local {
    inside: Arc<Inside>,
}

#[derive(Debug)]
struct Inside {
    directory: std::path::PathBuf,
    authority: Authority,
    /// `None`: not any more.
    links: RwLock<BTreeMap<String, Option<Arc<Served>>>>,
    /// Changes with each link that is served anew.
    registered: watch::Sender<()>,
    /// Once nobody is let in any more: whether the listeners are closed for other processes too.
    closing: watch::Sender<Option<bool>>,
    /// Listeners that are open.
    open: watch::Sender<usize>,
    /// Connections whose bots wait for what they came for.
    unanswered: watch::Sender<usize>,
    /// Whether the process ends.
    ending: watch::Sender<bool>,
    /// Connections that are open.
    live: watch::Sender<usize>,
    /// Where it listens; 0 before.
    port: AtomicU16,
    /// Memory for bodies of requests, in KiB.
    bodies: Arc<Semaphore>,
}

/// How a link's requests get to its service.
#[derive(Debug, Clone)]
pub struct Far {
    /// The pool of HTTP connections, the same as the profile's own.
    pub leg: Leg,
    /// Which servers are believed where a WebSocket is passed on that is not the link's.
    pub trust: Trust,
    /// The proxy on the way.
    pub proxy: Option<Proxy>,
}

impl Local {
    /// Reads the certificate authority of this machine, or makes it, and the bundle of certificates. Works on files
    /// alone and may block for a moment; nothing listens yet.
    ///
    /// # Errors
    ///
    /// A file cannot be read or made.
    pub fn new(shared: &settings::Shared) -> Result<Self, LocalError> {
        let (authority, _) = Authority::open(&shared.directory)?;
        let inside = Inside {
            directory: shared.directory.clone(),
            authority,
            links: RwLock::default(),
            registered: watch::Sender::new(()),
            closing: watch::Sender::new(None),
            open: watch::Sender::new(0),
            unanswered: watch::Sender::new(0),
            ending: watch::Sender::new(false),
            live: watch::Sender::new(0),
            port: AtomicU16::new(shared.listen.port()),
            bodies: Arc::new(Semaphore::new(limit::BODIES_KIB_MAX)),
        };
        Ok(Self { inside: Arc::new(inside) })
    }

    /// Serves bots of a link from now on. Told again with the same name, bots that are connected stay so and are served
    /// with what is new; if they would have to come back for it, because the profile or the hosts are others now, their
    /// WebSockets are closed with 1012. Reads or makes a file.
    ///
    /// # Errors
    ///
    /// The secret of the link cannot be read or made.
    pub fn register(
        &self,
        link: &settings::Link,
        rules: Arc<dyn Rules>,
        far: Far,
        mouth: Mouth,
    ) -> Result<SharedDeliver, LocalError> {
        let secret = secret::of_link(&Directory::lock(&self.inside.directory)?, &link.name)?;
        let mut hosts = rules.hosts();
        if let settings::Deliver::Proxy { intercept } = &link.deliver {
            hosts.extend(intercept.iter().cloned());
        }
        for host in &mut hosts {
            host.make_ascii_lowercase();
        }
        let profile = link.profile.clone();
        let terms = Arc::new(Terms { profile, hosts, rules, far, mouth });

        let mut links = self.inside.links.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(served)) = links.get(&link.name) {
            let same = {
                let old = served.terms.borrow();
                old.profile == terms.profile && old.hosts == terms.hosts && served.secret == secret
            };
            if same {
                served.terms.send_replace(terms);
                return Ok(Arc::clone(&served.bots) as SharedDeliver);
            }
            served.forgotten.send_replace(true);
        }
        let served = Arc::new(Served {
            name: link.name.clone(),
            secret,
            secret_seen: Mutex::default(),
            terms: watch::Sender::new(terms),
            bots: Bots::new(),
            guests: AtomicUsize::new(0),
            forgotten: watch::Sender::new(false),
        });
        let deliver = Arc::clone(&served.bots) as SharedDeliver;
        links.insert(link.name.clone(), Some(served));
        drop(links);
        self.inside.registered.send_replace(());
        Ok(deliver)
    }

    /// Serves the link no longer: its WebSockets are closed with 1012, its other connections as soon as nothing is
    /// under way on them.
    pub fn forget(&self, name: &str) {
        let mut links = self.inside.links.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = links.get_mut(name).and_then(Option::take) {
            served.forgotten.send_replace(true);
        }
    }

    /// Takes connections from now on, until [`farewell`](Self::farewell) or until the task in `tasks` is ended, which
    /// ends every connection at once. To be called inside a runtime.
    ///
    /// # Errors
    ///
    /// The listener cannot be used, or others than this machine could reach it.
    pub fn serve(&self, listener: TcpListener, tasks: &mut JoinSet<()>) -> io::Result<task::Id> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            let words = "bots are only served on a loopback address";
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, words));
        }
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        self.inside.port.store(address.port(), Ordering::Relaxed);
        let open = Counted::new(self, |inside| &inside.open);
        Ok(tasks.spawn(listener::accept(self.clone(), listener, open)).id())
    }

    /// Lets go of the bots, because the process ends: nothing is accepted any more, whoever came before is answered, then
    /// their WebSockets are closed with 1001, other connections as soon as nothing is under way on them. Ends when that is
    /// so, or after `within`.
    ///
    /// With `closes`, who comes after that is refused by the system: the listener is closed wherever it is open. Clients
    /// try again after that. Not all do so when they were let in and not answered: `websockets` 17 ends.
    pub async fn farewell(&self, within: Duration, closes: bool) {
        self.inside.closing.send_replace(Some(closes));
        let (mut open, mut unanswered) =
            (self.inside.open.subscribe(), self.inside.unanswered.subscribe());
        let answered = async {
            // Both are there for as long as this is.
            let _ = open.wait_for(|open| *open == 0).await;
            let _ = unanswered.wait_for(|unanswered| *unanswered == 0).await;
        };
        let until = clock::instant() + within;
        let _ = timeout(limit::ANSWER_WITHIN.min(within), answered).await;
        self.inside.ending.send_replace(true);
        let mut live = self.inside.live.subscribe();
        let _ = timeout_at(until, live.wait_for(|live| *live == 0)).await;
    }

    /// Whether nobody is let in any more.
    fn is_closing(&self) -> bool {
        self.inside.closing.borrow().is_some()
    }

    /// The link that somebody shows the secret of. If that is wrong, the link may have another one since.
    fn identify(&self, name: &str, shown: &str) -> Identity {
        match self.find(name, shown) {
            Identity::Nobody if self.read_secret_again(name) => self.find(name, shown),
            found => found,
        }
    }

    /// Reads the file with the secret of a link that is served. Says whether it is another one now: then the connections
    /// that were made with the old one end.
    fn read_secret_again(&self, name: &str) -> bool {
        let mut links = self.inside.links.write().unwrap_or_else(PoisonError::into_inner);
        let Some(Some(served)) = links.get_mut(name) else { return false };
        let now = clock::instant();
        let mut seen = served.secret_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_some_and(|seen| now < seen + limit::SECRET_EVERY) {
            return false;
        }
        *seen = Some(now);
        drop(seen);
        let Some(secret) = secret::in_file(&self.inside.directory, name) else { return false };
        if secret == served.secret {
            return false;
        }
        let anew = Arc::new(Served {
            name: name.to_owned(),
            secret,
            secret_seen: Mutex::new(Some(now)),
            terms: watch::Sender::new(served.terms()),
            bots: Arc::clone(&served.bots),
            guests: AtomicUsize::new(0),
            forgotten: watch::Sender::new(false),
        });
        std::mem::replace(served, anew).forgotten.send_replace(true);
        tracing::info!(link = name, "the secret of a link is another one now");
        true
    }

    fn find(&self, name: &str, shown: &str) -> Identity {
        let links = self.inside.links.read().unwrap_or_else(PoisonError::into_inner);
        match links.get(name) {
            Some(Some(served)) if secret::is_shown(&served.secret, shown) => {
                Identity::Served(Arc::clone(served))
            }
            Some(Some(_)) => Identity::Nobody,
            Some(None) | None => {
                let is_gone = links.contains_key(name);
                drop(links);
                match secret::is_in_file(&self.inside.directory, name, shown) {
                    true if is_gone => Identity::Gone,
                    true => Identity::Early,
                    false => Identity::Nobody,
                }
            }
        }
    }

    /// Where this machine serves the WebSocket of a link.
    fn socket_url(&self, served: &Served) -> String {
        let port = self.inside.port.load(Ordering::Relaxed);
        format!("wss://{LOCALHOST}:{port}/links/{}/{}", served.name, served.secret.expose())
    }
}

/// Something that is counted until it is dropped.
struct Counted {
    local: Local,
    which: fn(&Inside) -> &watch::Sender<usize>,
}

impl Counted {
    fn new(local: &Local, which: fn(&Inside) -> &watch::Sender<usize>) -> Self {
        which(&local.inside).send_modify(|count| *count += 1);
        Self { local: local.clone(), which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.local.inside).send_modify(|count| *count -= 1);
    }
}

/// Who somebody is, by name and secret.
enum Identity {
    /// A bot of this link.
    Served(Arc<Served>),
    /// A bot of a link that is not served yet.
    Early,
    /// A bot of a link that is served no longer.
    Gone,
    Nobody,
}

/// One link, as its bots see it.
struct Served {
    name: String,
    secret: Secret,
    /// When the file with it was read last because somebody showed another.
    secret_seen: Mutex<Option<Instant>>,
    terms: watch::Sender<Arc<Terms>>,
    bots: Arc<Bots>,
    /// Connections of its bots.
    guests: AtomicUsize,
    forgotten: watch::Sender<bool>,
}

impl Served {
    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.borrow())
    }

    /// Takes in one more connection, unless there are too many.
    fn enter(self: &Arc<Self>) -> Option<Guest> {
        let before = self.guests.fetch_add(1, Ordering::Relaxed);
        // Counts itself out again if it was one too many.
        let guest = Guest { served: Arc::clone(self) };
        (before < limit::CONNECTIONS_OF_LINK_MAX).then_some(guest)
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a link is served with; replaced as a whole.
struct Terms {
    profile: settings::Profile,
    /// In lower case.
    hosts: Vec<String>,
    rules: Arc<dyn Rules>,
    far: Far,
    mouth: Mouth,
}

impl Terms {
    /// Whether the TLS of this host is ended here.
    fn ends_tls_of(&self, host: &str) -> bool {
        self.hosts.iter().any(|wanted| match wanted.strip_prefix('*') {
            Some(end) => end.starts_with('.') && host.len() > end.len() && host.ends_with(end),
            None => wanted == host,
        })
    }
}

/// A connection of a bot, counted while it is there.
#[derive(Debug)]
struct Guest {
    served: Arc<Served>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.served.guests.fetch_sub(1, Ordering::Relaxed);
    }
}
