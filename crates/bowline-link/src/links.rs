//! All links of a process, for the program around them.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::TcpListener,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bowline_proto::keeper::{Budget, ProbeOutcome};
use bowline_store::{Gone, Mode, Parked, Step, Store};
use bytes::Bytes;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{
    bot::{Mouth, SharedDeliver},
    clock::{self, Clock},
    far::{Outgoing, Unsaid},
    local::Door,
    make::Real,
    profile::webex::envelope::uuid_of,
    run::{Board, Boards, Common, Maker, Order},
    settings,
    thread::{self, Start, Wish},
    view::View,
};

/// What the program does for its links.
pub trait Host: Send + Sync + fmt::Debug {
    /// Makes the way to the bot of a link that delivers to an app behind HTTP or to a namespace.
    ///
    /// # Errors
    ///
    /// Why there is none, for people. It is asked for again every 5 s; until then messages wait.
    fn deliver(&self, link: &settings::Link, mouth: Mouth) -> Result<SharedDeliver, String>;

    /// Restarts this service of `[services]`: the last rung of the ladder. Returns at once.
    fn restart_service(&self, service: &str);
}

/// All links of a process. They run on one thread of their own; everything here may be asked from any other.
#[derive(Debug, Clone)]
pub struct Links {
    inside: Arc<Inside>,
}

#[derive(Debug)]
struct Inside {
    host: Arc<dyn Host>,
    shared: settings::Shared,
    wishes: watch::Sender<Wish>,
    listeners: Arc<Mutex<Vec<TcpListener>>>,
    door: Arc<Door>,
    boards: Boards,
    running: OnceLock<Running>,
}

/// What there is once the thread was started.
#[derive(Debug)]
struct Running {
    store: Store,
    ended: watch::Receiver<bool>,
}

impl Links {
    /// Links that do not run yet.
    pub fn new(shared: settings::Shared, host: Arc<dyn Host>) -> Self {
        Self {
            inside: Arc::new(Inside {
                host,
                door: Arc::new(Door::new(&shared)),
                shared,
                wishes: watch::Sender::new(Wish::default()),
                listeners: Arc::default(),
                boards: Boards::default(),
                running: OnceLock::new(),
            }),
        }
    }

    /// Opens the store and starts the thread `links`. Called once; later calls do nothing.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn start(&self) -> io::Result<()> {
        let inside = &self.inside;
        if inside.running.get().is_some() {
            return Ok(());
        }
        let store = Store::open(inside.shared.directory.join("links.db"));
        if let Err(error) = inside.door.local() {
            tracing::error!(error, "the loopback proxy for bots cannot be had yet");
        }
        let (host, door) = (Arc::clone(&inside.host), Arc::clone(&inside.door));
        let maker = Real { host, inbox: store.inbox(), door };
        self.start_with(store, Arc::new(maker))
    }

    fn start_with(&self, store: Store, maker: Arc<dyn Maker>) -> io::Result<()> {
        let inside = &self.inside;
        let shared = &inside.shared;
        let (ended, ending) = watch::channel(false);
        let running = Running { store: store.clone(), ended: ending };
        if inside.running.set(running).is_err() {
            return Ok(());
        }
        // Before somebody has said which links there are, none is gone.
        let links: BTreeSet<_> = inside.wishes.borrow().links.keys().cloned().collect();
        if !links.is_empty() {
            store.inbox().set_links(links);
        }
        let budget = Budget::new(shared.attempts_per_second, shared.attempts_burst);
        let common = Common {
            clock: Clock::start(),
            store,
            budget: Mutex::new(budget),
            host: Arc::clone(&inside.host),
            maker,
            leases: shared.leases.clone(),
            directory: shared.directory.clone(),
            waiting_max: shared.waiting_max,
            look_every: if cfg!(test) { LOOK / 20 } else { LOOK },
        };
        thread::start(Start {
            common: Arc::new(common),
            door: Arc::clone(&inside.door),
            wishes: inside.wishes.subscribe(),
            listeners: Arc::clone(&inside.listeners),
            boards: Arc::clone(&inside.boards),
            ended,
        })
    }

    /// Sets which links there are. One that is not changed goes on untouched; one of which only changed how its messages
    /// reach the bot keeps its connection; one that is gone, or otherwise changed, says goodbye.
    pub fn configure(&self, links: Vec<settings::Link>) {
        let links: BTreeMap<_, _> =
            links.into_iter().map(|link| (link.name.clone(), Arc::new(link))).collect();
        if let Some(running) = self.inside.running.get() {
            running.store.inbox().set_links(links.keys().cloned().collect());
        }
        self.inside.wishes.send_modify(|wish| wish.links = links);
    }

    /// Notes why bots cannot come in: the loopback proxy has no listener. [`serve_local`](Self::serve_local) mends that.
    pub fn lock_out(&self, why: String) {
        self.inside.door.set_trouble(Some(why));
    }

    /// Serves the loopback proxy on this listener; again after a pause, if that fails.
    pub fn serve_local(&self, listener: TcpListener) {
        self.inside.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        self.inside.wishes.send_modify(|_| {});
    }

    /// How all links are, by name.
    pub fn view(&self) -> Vec<View> {
        let trouble = self.inside.door.trouble();
        self.boards().iter().map(|board| board.view(trouble.as_deref())).collect()
    }

    /// How the store is.
    pub fn store(&self) -> StoreView {
        let Some(running) = self.inside.running.get() else { return StoreView::default() };
        let health = running.store.health();
        StoreView {
            healthy: health.mode == Mode::Disk && health.words.is_empty(),
            words: health.words,
            since_unix_ms: health.since_unix_ms,
        }
    }

    /// What is left of links that are not configured any more, by name.
    pub fn gone(&self) -> Vec<Gone> {
        self.inside.running.get().map(|running| running.store.inbox().gone()).unwrap_or_default()
    }

    /// Lets all messages go that are left of a link which is not configured any more, and tells how many those were: 0
    /// for a link that is configured, or has none.
    pub async fn let_go(&self, name: &str) -> u64 {
        match self.inside.running.get() {
            Some(running) => running.store.inbox().let_go(name, clock::unix_ms()).await,
            None => 0,
        }
    }

    /// The messages of a link that were put aside, what has been so for longest first; at most `limit`.
    pub async fn parked(&self, name: &str, limit: usize) -> Vec<Parked> {
        match self.inside.running.get() {
            Some(running) => running.store.inbox().parked(name, limit).await,
            None => Vec::new(),
        }
    }

    /// Has messages that were put aside offered again, as if they never had been: all of the link, or the one with this
    /// id, which may be a public one of Webex. Tells how many those are; `None`: the store does not do it now, or not for
    /// all.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub async fn offer_again(&self, name: &str, id: Option<&str>) -> Result<Option<u64>, Unknown> {
        let unknown = || Unknown { name: name.to_owned() };
        let inbox = self.inside.running.get().ok_or_else(unknown)?.store.inbox();
        if !self.inside.wishes.borrow().links.contains_key(name) {
            return Err(unknown());
        }
        let now = clock::unix_ms();
        let mut count = inbox.offer_again(name, id, now).await;
        if count == Some(0)
            && let Some(id) = id
        {
            count = inbox.offer_again(name, Some(&uuid_of(id)), now).await;
        }
        if count != Some(0) {
            // One that has no task just now reads it when it begins.
            let _ = self.order(name, Order::Reload).await;
        }
        Ok(count)
    }

    /// Makes a routing round trip now.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub async fn probe(&self, name: &str) -> Result<ProbeAnswer, Unknown> {
        let (answer, answered) = oneshot::channel();
        self.order(name, Order::Probe(answer)).await?;
        let nothing = || ProbeAnswer {
            outcome: ProbeOutcome::Impossible("the link did not answer in time".to_owned()),
            took: Duration::ZERO,
        };
        Ok(waited(answered).await.unwrap_or_else(nothing))
    }

    /// Opens a new connection now, proves it, and closes the old one.
    ///
    /// # Errors
    ///
    /// When there is no such link.
    pub async fn renew(&self, name: &str) -> Result<RenewAnswer, Unknown> {
        let (answer, answered) = oneshot::channel();
        self.order(name, Order::Renew(answer)).await?;
        let nothing = || RenewAnswer::NotRenewed { words: "it has taken too long".into() };
        Ok(waited(answered).await.unwrap_or_else(nothing))
    }

    /// What happened with the message of this id, on every link, oldest first. It may be a public id of Webex.
    pub async fn trace(&self, id: &str) -> Vec<Step> {
        let Some(running) = self.inside.running.get() else { return Vec::new() };
        let inbox = running.store.inbox();
        let steps = inbox.trace(id).await;
        if steps.is_empty() { inbox.trace(&uuid_of(id)).await } else { steps }
    }

    /// Sends something to the service of a link, as its bot would. Where nothing was asked for, the answer is empty, and
    /// says that it was handed to the connection.
    ///
    /// # Errors
    ///
    /// When there is no such link, or it cannot be sent.
    pub async fn send(&self, name: &str, outgoing: Outgoing) -> Result<Bytes, SendFailure> {
        let (answer, answered) = oneshot::channel();
        self.order(name, Order::Send(outgoing, answer)).await.map_err(SendFailure::Unknown)?;
        let nothing = || Err(Unsaid::Unanswered("the link did not answer in time".to_owned()));
        waited(answered).await.unwrap_or_else(nothing).map_err(SendFailure::Failed)
    }

    /// Says goodbye to all services and ends, at the latest a moment after `within`. What waits for bots stays in the
    /// store for the next process. With `closes` the listener for bots is closed for good, in every process that has it,
    /// before they are let go of; else whoever comes waits in it for the next process.
    pub async fn farewell(&self, within: Duration, closes: bool) {
        self.inside.wishes.send_modify(|wish| {
            wish.farewell.get_or_insert(within);
            wish.closes |= closes;
        });
        let Some(running) = self.inside.running.get() else { return };
        let mut ended = running.ended.clone();
        // Its sender is dropped at the very end; that is as good.
        let _ = timeout(within + END, ended.wait_for(|ended| *ended)).await;
    }

    /// Hands an order to the task of a link, or refuses it for a link that has none just now.
    async fn order(&self, name: &str, order: Order) -> Result<(), Unknown> {
        let board = self
            .inside
            .boards
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
            .ok_or_else(|| Unknown { name: name.to_owned() })?;
        match board.orders() {
            None => order.refuse("the link does not run"),
            Some(orders) => {
                if let Err(refused) = orders.send_timeout(order, BUSY).await {
                    refused.into_inner().refuse("the link is busy");
                }
            }
        }
        Ok(())
    }

    fn boards(&self) -> Vec<Arc<Board>> {
        let boards = self.inside.boards.lock().unwrap_or_else(PoisonError::into_inner);
        boards.values().cloned().collect()
    }
}

/// How often a link looks whether the store, or the way to its bot, is back.
const LOOK: Duration = Duration::from_secs(5);

/// How long somebody waits for an answer of a link: a renewal opens, proves and overlaps.
const ANSWER: Duration = Duration::from_secs(90);

/// How long an order waits for a place among others.
const BUSY: Duration = Duration::from_secs(1);

/// How long the store and the loopback proxy may take to end after the links.
const END: Duration = Duration::from_secs(6);

/// `None`: nobody will answer.
async fn waited<T>(answered: oneshot::Receiver<T>) -> Option<T> {
    timeout(ANSWER, answered).await.ok()?.ok()
}

/// How a routing round trip went that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// How it ended.
    pub outcome: ProbeOutcome,
    /// How long it took.
    pub took: Duration,
}

/// How a renewal went that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewAnswer {
    /// The new connection is in use.
    Renewed {
        /// Since it was asked for, until the old one was closed.
        took: Duration,
        /// Whether there was an old one.
        had_one: bool,
    },
    /// The link goes on as it was.
    NotRenewed {
        /// Why.
        words: String,
    },
}

/// There is no link of this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The name.
    pub name: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no link {:?}", self.name)
    }
}

impl std::error::Error for Unknown {}

/// Why something could not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendFailure {
    /// There is no such link.
    Unknown(Unknown),
    /// It was not sent, or not answered.
    Failed(Unsaid),
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(unknown) => unknown.fmt(f),
            Self::Failed(unsaid) => f.write_str(unsaid.words()),
        }
    }
}

impl std::error::Error for SendFailure {}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreView {
    /// Whether messages are on disk. If not, they are in memory, and lost with the process.
    pub healthy: bool,
    /// Why it is not, for people; else empty.
    pub words: String,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

impl Default for StoreView {
    fn default() -> Self {
        Self { healthy: true, words: String::new(), since_unix_ms: 0 }
    }
}
