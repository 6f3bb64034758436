//! The thread `links`: starts, stops and replaces the tasks of links as the configuration wants it.

use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    io,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bowline_proto::Time;
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    bot::{Mouth, Said},
    clock,
    local::Door,
    run::{self, Board, Boards, Common, Given, limit},
    settings,
};

/// What the program around wants. The latest wish counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) links: BTreeMap<String, Arc<settings::Link>>,
    /// Once it is set, everything ends.
    pub(crate) farewell: Option<Duration>,
    /// Whether nobody takes on the listener for bots afterwards.
    pub(crate) closes: bool,
}

/// What the thread is given.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) common: Arc<Common>,
    pub(crate) door: Arc<Door>,
    pub(crate) wishes: watch::Receiver<Wish>,
    /// Listeners for the loopback proxy that are not served yet.
    pub(crate) listeners: Arc<Mutex<Vec<TcpListener>>>,
    pub(crate) boards: Boards,
    /// Dropped at the end, for whoever waits for that.
    pub(crate) ended: watch::Sender<bool>,
}

/// Starts it.
pub(crate) fn start(start: Start) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("links".into()).spawn(move || {
        runtime.block_on(Box::pin(Thread::of(start).run()));
        // What is left, a look-up of a name say, is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(())
}

struct Thread {
    common: Arc<Common>,
    door: Arc<Door>,
    wishes: watch::Receiver<Wish>,
    listeners: Arc<Mutex<Vec<TcpListener>>>,
    boards: Boards,
    ended: watch::Sender<bool>,
    running: BTreeMap<String, Running>,
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
    serving: JoinSet<()>,
    /// What is served, by its task: a socket stays open when that fails.
    served: HashMap<Id, TcpListener>,
    /// What is to be served again then.
    unserved: Vec<TcpListener>,
    again: Option<Instant>,
}

/// A link that has a task.
struct Running {
    link: Arc<settings::Link>,
    changes: watch::Sender<Arc<settings::Link>>,
    board: Arc<Board>,
    stop: watch::Sender<Option<Duration>>,
    mouth: Mouth,
    said: Arc<tokio::sync::Mutex<mpsc::Receiver<Said>>>,
    /// How often the task has panicked in a row.
    panics: u32,
    started: Time,
}

enum Happened {
    Wish,
    Ended(Result<(Id, ()), JoinError>),
    Served(Result<(Id, ()), JoinError>),
    /// What could not be served is tried again.
    Again,
    /// Nobody can wish for anything any more.
    Orphaned,
}

impl Thread {
    fn of(start: Start) -> Self {
        let Start { common, door, wishes, listeners, boards, ended } = start;
        Self {
            common,
            door,
            wishes,
            listeners,
            boards,
            ended,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            serving: JoinSet::new(),
            served: HashMap::new(),
            unserved: Vec::new(),
            again: None,
        }
    }

    async fn run(mut self) {
        loop {
            self.serve();
            self.follow();
            if self.wishes.borrow().farewell.is_some() && self.running.is_empty() {
                break;
            }
            match self.choose().await {
                Happened::Wish => {}
                Happened::Ended(ended) => self.on_ended(ended),
                Happened::Served(Ok((id, ()))) => {
                    self.served.remove(&id);
                }
                Happened::Served(Err(error)) => {
                    let listener = self.served.remove(&error.id());
                    self.not_served(listener, &error.to_string());
                }
                Happened::Again => self.serve_again(),
                Happened::Orphaned => return,
            }
        }
        // Nobody may wait for what is not accepted any more.
        self.served.clear();
        let closes = self.wishes.borrow().closes;
        if let Some(local) = self.door.made() {
            local.farewell(limit::FAREWELL, closes).await;
        }
        self.common.store.close().await;
        self.ended.send_replace(true);
    }

    async fn choose(&mut self) -> Happened {
        tokio::select! {
            wish = self.wishes.changed() => match wish {
                Ok(()) => Happened::Wish,
                Err(_) => Happened::Orphaned,
            },
            Some(ended) = self.tasks.join_next_with_id() => Happened::Ended(ended),
            Some(served) = self.serving.join_next_with_id() => Happened::Served(served),
            () = until(self.again) => Happened::Again,
        }
    }

    /// Takes on listeners that are new.
    fn serve(&mut self) {
        let listeners =
            std::mem::take(&mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        for listener in listeners {
            self.serve_one(listener);
        }
    }

    fn serve_again(&mut self) {
        self.again = None;
        for listener in std::mem::take(&mut self.unserved) {
            self.serve_one(listener);
        }
    }

    fn serve_one(&mut self, listener: TcpListener) {
        let served = self.door.local().and_then(|local| {
            let served = listener.try_clone().and_then(|it| local.serve(it, &mut self.serving));
            served.map_err(|error| error.to_string())
        });
        match served {
            Ok(id) => {
                self.served.insert(id, listener);
                if self.unserved.is_empty() && self.door.set_trouble(None) {
                    tracing::info!("the loopback proxy for bots is served");
                }
            }
            Err(error) => self.not_served(Some(listener), &error),
        }
    }

    /// Said once in these words, and shown until it is served.
    fn not_served(&mut self, listener: Option<TcpListener>, error: &str) {
        if self.door.set_trouble(Some(format!("the loopback proxy is not served: {error}"))) {
            tracing::error!(error, "the loopback proxy for bots is not served; it is tried again");
        }
        self.unserved.extend(listener);
        self.again = Some(clock::instant() + self.common.look_every);
    }

    /// Starts what is wanted and not there; tells to stop what is there and not wanted, or wanted in another way at its
    /// service; tells others what has changed.
    fn follow(&mut self) {
        let wish = self.wishes.borrow_and_update().clone();
        for (name, running) in &mut self.running {
            let within = match (wish.farewell, wish.links.get(name)) {
                (Some(within), _) => within,
                (None, Some(link)) if *link == running.link => continue,
                (None, Some(link))
                    if running.stop.borrow().is_none()
                        && link.is_same_at_service(&running.link) =>
                {
                    running.link = Arc::clone(link);
                    running.changes.send_replace(Arc::clone(link));
                    continue;
                }
                (None, _) => limit::FAREWELL,
            };
            running.stop.send_if_modified(|stop| {
                let is_new = stop.is_none();
                stop.get_or_insert(within);
                is_new
            });
        }
        if wish.farewell.is_some() {
            return;
        }
        let gone =
            |name: &String| !wish.links.contains_key(name) && !self.running.contains_key(name);
        let gone: Vec<_> = self.boards().keys().filter(|name| gone(name)).cloned().collect();
        for name in gone {
            self.boards().remove(&name);
            self.common.maker.forget(&name);
        }
        for (name, link) in wish.links {
            if !self.running.contains_key(&name) {
                self.start(link);
            }
        }
    }

    fn start(&mut self, link: Arc<settings::Link>) {
        let board = Arc::clone(self.boards().entry(link.name.clone()).or_insert_with(|| {
            Arc::new(Board::new(self.common.clock, self.common.store.inbox(), &link))
        }));
        board.set_link(&link);
        if !matches!(link.deliver, settings::Deliver::Proxy { .. }) {
            self.common.maker.forget(&link.name);
        }
        let (stop, _) = watch::channel(None);
        let (mouth, said) = mpsc::channel(limit::SAID);
        let said = Arc::new(tokio::sync::Mutex::new(said));
        let name = link.name.clone();
        let started = self.common.clock.now();
        let changes = watch::Sender::new(Arc::clone(&link));
        let running = Running { link, changes, board, stop, mouth, said, panics: 0, started };
        self.running.insert(name.clone(), running);
        self.spawn(&name);
    }

    /// Starts the task of a link; a while later each time that it panicked before.
    fn spawn(&mut self, name: &str) {
        let Some(running) = self.running.get(name) else { return };
        let pause = match running.panics {
            0 => Duration::ZERO,
            panics => {
                let doubled = limit::RESTART_FIRST.saturating_mul(1 << (panics - 1).min(16));
                doubled.min(limit::RESTART_MAX)
            }
        };
        let (sender, orders) = mpsc::channel(limit::ORDERS);
        running.board.set_orders(sender);
        let (common, link) = (Arc::clone(&self.common), Arc::clone(&running.link));
        let (board, mouth) = (Arc::clone(&running.board), running.mouth.clone());
        let (said, mut stop) = (Arc::clone(&running.said), running.stop.subscribe());
        let changes = running.changes.subscribe();
        let task = self.tasks.spawn(async move {
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.wait_for(Option::is_some) => return,
            }
            let said = said.lock_owned().await;
            run::keep(Given { common, link, board, orders, mouth, said, changes, stop }).await;
        });
        self.names.insert(task.id(), name.to_owned());
    }

    fn on_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, error) = match ended {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let Some(name) = self.names.remove(&id) else { return };
        let Some(running) = self.running.get_mut(&name) else { return };
        let Some(error) = error else {
            running.board.set_off("stopped");
            self.running.remove(&name);
            return;
        };
        running.board.set_off("its task has failed, and is started again");
        if running.stop.borrow().is_some() {
            self.running.remove(&name);
            return;
        }
        let now = self.common.clock.now();
        if now.since(running.started) > limit::RESTART_RESET {
            running.panics = 0;
        }
        running.started = now;
        running.panics = running.panics.saturating_add(1);
        tracing::error!(link = name, %error, times = running.panics, "the task of a link has failed");
        self.spawn(&name);
    }

    fn boards(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Board>>> {
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
