//! The thread that looks after the services: it carries what happens to the [`plan`](crate::plan)
//! and does what that says. It decides nothing.
//!
//! Services outlive it on purpose. When the process dies they go on, and the crew of the next one
//! finds them by what stands in its state directory and adopts them.

mod begin;
mod held;
mod limit;
mod look;
mod start;
mod turn;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use bowline_proto::Time;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    logs::{Follow, Logs},
    plan::{Command, Outcome, View},
    spec::Service,
};

/// What a crew needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it writes down what runs: below `services/`. Of one crew at a time; the caller holds
    /// a lock.
    pub state_dir: PathBuf,
    /// Where logs go: `services/NAME.log` below it.
    pub log_dir: PathBuf,
    /// What services inherit, before what is Bowline's own is taken out. Usually
    /// [`std::env::vars_os`].
    pub environment: Vec<(OsString, OsString)>,
}

/// The way to a crew. All of them may be dropped: the crew goes on.
#[derive(Debug, Clone)]
pub struct Handle {
    wishes: mpsc::Sender<Wish>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    logs: Logs,
}

/// What somebody wants of the crew.
#[derive(Debug)]
enum Wish {
    Configure { services: Vec<Service>, done: oneshot::Sender<()> },
    Command { service: String, command: Command, done: oneshot::Sender<Outcome> },
    Requests { service: String, total: u64 },
    Stop { done: oneshot::Sender<Vec<String>> },
}

/// All services at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What is so of each, by name.
    pub services: BTreeMap<String, Arc<View>>,
    /// The memory of each that runs, with all that came of it, in bytes; pages that they share count
    /// for each. At most five seconds old, and nobody is woken for it.
    pub resident_bytes: BTreeMap<String, u64>,
    clock: Clock,
}

impl Snapshot {
    /// The time now, on the clock of the views.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// A time of a view as others have it, in milliseconds since 1970.
    pub fn unix_ms(&self, time: Time) -> u64 {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let wall = match now.since(time) {
            Duration::ZERO => wall.checked_add(time.since(now)),
            ago => wall.checked_sub(ago),
        };
        unix_ms(wall.unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

fn unix_ms(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Starts the crews.
#[derive(Debug)]
pub enum Crew {}

impl Crew {
    /// Starts a thread that looks after these services, which have passed
    /// [`spec::check`](crate::spec::check): it adopts or ends what a dead master left behind, then
    /// starts what is not there. This process becomes the subreaper of all that comes of them.
    ///
    /// Returns at once; at most one crew per process.
    ///
    /// # Errors
    /// Those of the system: no thread, no memory.
    pub fn start(options: Options, services: Vec<Service>) -> io::Result<Handle> {
        let clock = Clock::start();
        let (wish, wishes) = mpsc::channel(limit::WISHES);
        let snapshot =
            Snapshot { services: BTreeMap::new(), resident_bytes: BTreeMap::new(), clock };
        let (tell, snapshots) = watch::channel(Arc::new(snapshot));
        let (logs, matches, writer) = Logs::start(options.log_dir.clone())?;
        for service in &services {
            logs.open(&service.name, service.logs);
        }
        let handle = Handle { wishes: wish, snapshots, logs: logs.clone() };
        let given = turn::Given { options, clock, wishes, tell, logs, matches, writer };
        thread::Builder::new()
            .name("services".to_owned())
            .spawn(move || turn::run(given, services))?;
        Ok(handle)
    }
}

impl Handle {
    /// From now on these services are to run, and no others; they have passed
    /// [`spec::check`](crate::spec::check). What has not changed goes on. Returns when that is
    /// decided, not when it is done.
    pub async fn configure(&self, services: Vec<Service>) {
        let (done, decided) = oneshot::channel();
        if self.wishes.send(Wish::Configure { services, done }).await.is_ok() {
            // A crew that has ended has nothing to decide.
            let _ = decided.await;
        }
    }

    /// Starts, stops or restarts a service, and waits until that is done or has failed.
    pub async fn command(&self, service: &str, command: Command) -> Outcome {
        let (done, outcome) = oneshot::channel();
        let wish = Wish::Command { service: service.to_owned(), command, done };
        let over =
            || Outcome::Failed("the server is stopping, and its services with it".to_owned());
        if self.wishes.send(wish).await.is_err() {
            return over();
        }
        outcome.await.unwrap_or_else(|_| over())
    }

    /// Tells how many requests a service has been passed since the gateway began, for `recycle`.
    /// Lost if the crew has no time for it just now.
    pub fn requests(&self, service: &str, total: u64) {
        let _ = self.wishes.try_send(Wish::Requests { service: service.to_owned(), total });
    }

    /// Stops all services, those that need others first, and ends the crew. Returns the names of
    /// those of which something is left; at the latest after the graces of all and some seconds.
    pub async fn stop(&self) -> Vec<String> {
        let (done, left) = oneshot::channel();
        if self.wishes.send(Wish::Stop { done }).await.is_err() {
            return Vec::new();
        }
        left.await.unwrap_or_default()
    }

    /// Kills what [`Self::stop`] still waits for. Called before that, it stops all services without
    /// waiting for any.
    pub fn cut(&self) {
        for _ in 0..2 {
            // Who is told what is left is whoever called `stop`.
            let (done, _) = oneshot::channel();
            let _ = self.wishes.try_send(Wish::Stop { done });
        }
    }

    /// What is so, now and whenever it changes. It is closed if the crew has ended, which it does by
    /// itself only if something it cannot do without is not there; the log says what.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// What is so now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// The last `lines` lines of the log of a service and those that come from now on; `None` if
    /// there is no such service.
    pub async fn follow(&self, service: &str, lines: usize) -> Option<Follow> {
        self.logs.follow(service, lines).await
    }
}
