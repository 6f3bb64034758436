//! The master's crew: begun with the first service that a configuration has, told of each change of it, and
//! stopped last.

use std::{
    env, io,
    net::SocketAddr,
    path::{self, Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bowline_fleet::{
    crew::{Crew, Handle, Options, Snapshot},
    plan::State,
    spec,
};
use bowline_proto::Time;
use jiff::Timestamp;
use tokio::{sync::watch, task, time};

use super::{settings, status::ServiceStatus};
use crate::{config::Config, instance::Paths, links::environment};

/// How long what changed rests before it is told on: a start changes several things at once.
const REST: Duration = Duration::from_millis(50);

/// How far the system's clock may be set before points in time are reckoned anew.
const CLOCK_SET_MS: u64 = 1_000;

/// A configuration that counts.
#[derive(Clone)]
pub(crate) struct Runs {
    config: Arc<Config>,
    /// Its file: paths are meant from where that is.
    file: Option<PathBuf>,
}

impl Runs {
    pub(crate) fn of(config: &Arc<Config>, file: Option<&Path>) -> Self {
        let file = file.map(|file| path::absolute(file).unwrap_or_else(|_| file.to_owned()));
        Self { config: Arc::clone(config), file }
    }
}

/// What is told of all services.
pub(crate) type Statuses = Arc<Vec<ServiceStatus>>;

/// Where services are looked after, whether there are any or not.
#[derive(Clone)]
pub(crate) struct Post {
    crew: Arc<OnceLock<Handle>>,
    /// Where records and logs go; none if this server has no place of its own.
    places: Option<(PathBuf, PathBuf)>,
    /// Where bots of links are listened to, if they are.
    for_bots: Option<SocketAddr>,
    statuses: watch::Sender<Statuses>,
}

impl Post {
    /// One without a crew.
    pub(crate) fn new(
        paths: Option<&Paths>,
        for_bots: Option<SocketAddr>,
        unborn: Vec<ServiceStatus>,
    ) -> Self {
        Self {
            crew: Arc::default(),
            places: paths.map(|paths| (paths.state.clone(), paths.logs.clone())),
            for_bots,
            statuses: watch::Sender::new(Arc::new(unborn)),
        }
    }

    /// Has the services run that it is told of, for ever.
    pub(crate) async fn look_after(self, mut runs: watch::Receiver<Runs>) {
        let mut running = Vec::new();
        loop {
            let now = runs.borrow_and_update().clone();
            if self.crew_has(&mut running, &now).await {
                break;
            }
            if runs.changed().await.is_err() {
                return;
            }
        }
        let told = runs.clone();
        let follows = async {
            while runs.changed().await.is_ok() {
                let now = runs.borrow_and_update().clone();
                self.crew_has(&mut running, &now).await;
            }
        };
        tokio::join!(self.herald(told), follows);
    }

    /// Tells the crew what shall run, unless that is what runs. Whether there is a crew.
    async fn crew_has(&self, running: &mut Vec<spec::Service>, runs: &Runs) -> bool {
        let wanted = self.specs(runs).await;
        if *running != wanted {
            match self.configure(wanted.clone()).await {
                Ok(()) => *running = wanted,
                Err(error) => {
                    tracing::error!(%error, "services are configured and cannot be looked after");
                    self.statuses.send_modify(|statuses| {
                        let words = format!("cannot be looked after: {error}");
                        for status in Arc::make_mut(statuses) {
                            status.state = State::Failed.name().to_owned();
                            status.text = Some(words.clone());
                        }
                    });
                }
            }
        }
        self.crew.get().is_some()
    }

    /// The services of a configuration, with the variables of links whose bots they are.
    async fn specs(&self, runs: &Runs) -> Vec<spec::Service> {
        let mut specs = settings::specs(&runs.config, runs.file.as_deref());
        if runs.config.services.0.iter().all(|(_, service)| service.link.is_none()) {
            return specs;
        }
        let config = Arc::clone(&runs.config);
        let state = self.places.as_ref().map(|(state, _)| state.clone());
        let for_bots = self.for_bots;
        let without = specs.clone();
        // Certificates may have to be made and written first.
        let adding = task::spawn_blocking(move || {
            environment::add(&mut specs, &config, state.as_deref(), for_bots);
            specs
        });
        adding.await.unwrap_or(without)
    }

    async fn configure(&self, services: Vec<spec::Service>) -> io::Result<()> {
        if let Some(crew) = self.crew.get() {
            crew.configure(services).await;
            return Ok(());
        }
        if services.is_empty() {
            return Ok(());
        }
        let Some((state_dir, log_dir)) = self.places.clone() else {
            return Err(io::Error::other("this server has no state directory of its own"));
        };
        let environment = env::vars_os().collect();
        let crew = Crew::start(Options { state_dir, log_dir, environment }, services)?;
        // Nobody else starts one.
        let _ = self.crew.set(crew);
        Ok(())
    }

    /// The crew, once there is one.
    pub(crate) fn crew(&self) -> Option<&Handle> {
        self.crew.get()
    }

    /// What is so of all services, now and whenever it changes.
    pub(crate) fn statuses(&self) -> watch::Receiver<Statuses> {
        self.statuses.subscribe()
    }

    /// Follows what the crew says, for ever. `runs` says what else is told of services.
    async fn herald(&self, mut runs: watch::Receiver<Runs>) {
        let Some(crew) = self.crew.get() else { return };
        let mut snapshots = crew.snapshots();
        let mut wall = Wall::of(&snapshots.borrow());
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            wall.look(&snapshot);
            let statuses = statuses(&snapshot, &runs.borrow_and_update().config, &wall);
            self.statuses.send_if_modified(|now| {
                let changed = **now != statuses;
                if changed {
                    *now = Arc::new(statuses);
                }
                changed
            });
            time::sleep(REST).await;
            let changed = tokio::select! {
                changed = snapshots.changed() => changed,
                changed = runs.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

fn statuses(snapshot: &Snapshot, config: &Config, wall: &Wall) -> Vec<ServiceStatus> {
    let configured = &config.services.0;
    let place = |name: &str| configured.iter().position(|(known, _)| known == name);
    let at = |time: Time| wall.at(time);
    let mut statuses: Vec<_> = (snapshot.services.values())
        .map(|view| {
            let required = place(&view.name).is_some_and(|at| configured[at].1.required);
            ServiceStatus::of(view, required, &at)
        })
        .collect();
    // As they stand in the file; those that are about to go come last.
    statuses.sort_by_key(|status| place(&status.name).unwrap_or(usize::MAX));
    statuses
}

/// The clock of the crew by that of the system.
struct Wall {
    /// When the crew's clock was at zero, in milliseconds since 1970.
    zero_unix_ms: u64,
}

impl Wall {
    fn of(snapshot: &Snapshot) -> Self {
        Self { zero_unix_ms: snapshot.unix_ms(Time::from_micros(0)) }
    }

    /// Takes note of a clock that was set. What is so otherwise differs by the time it takes to ask, and would
    /// make every point in time another one.
    fn look(&mut self, snapshot: &Snapshot) {
        let now = Self::of(snapshot);
        if now.zero_unix_ms.abs_diff(self.zero_unix_ms) > CLOCK_SET_MS {
            *self = now;
        }
    }

    fn at(&self, time: Time) -> Timestamp {
        let ms = self.zero_unix_ms.saturating_add(time.as_micros() / 1_000);
        Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
    }
}
