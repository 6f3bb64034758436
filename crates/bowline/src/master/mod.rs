//! The process that people start. It holds the listening sockets, looks after one gateway, and
//! answers the other commands on the control socket. It never speaks to clients and never waits
//! for anybody in its main loop: what it does is decided in [`plan`], one event at a time.

mod control;
mod cord;
mod limit;
mod notify;
mod place;
mod plan;
mod reload;
mod services;
mod spawn;

use std::{
    collections::BTreeMap, io, mem, net::TcpListener, os::unix::net::UnixListener, path::PathBuf,
    process::ExitCode, sync::Arc,
};

use bowline_names::{ErrorCode, Exit};
use rustix::process::{Pid, Signal as Number, kill_process};
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time,
};

use crate::{
    charter::{Charter, ConfigFile, Door, Listener, Management},
    clock::Clock,
    config::{Changes, Config, Overrides},
    failure::Failure,
    instance::{Claim, Paths, Record},
    log,
    services::{
        post::{Post, Runs, Statuses},
        status::ServiceStatus,
    },
    signals::{Asked, Signals},
};

use self::{
    cord::Cord,
    place::Place,
    plan::{Chance, End, Input, Line, Notice, Output, Plan, ServerState, Signal},
    reload::Reload,
    spawn::{Child, Reports, Started},
};

pub(crate) use self::{limit::ALIVE, plan::Report};

/// What is about to be the master.
pub(crate) struct Master {
    /// Started when the process was.
    pub(crate) clock: Clock,
    /// When that was by the system's clock.
    pub(crate) started_unix_ms: u64,
    pub(crate) bind_seconds: f64,
    pub(crate) overrides: Overrides,
    /// The file that `config` was made of.
    pub(crate) file: Option<ConfigFile>,
    pub(crate) config: Config,
    pub(crate) listeners: Vec<(Listener, TcpListener)>,
    pub(crate) management: Management,
    /// Where other commands find this process, if they can.
    pub(crate) instance: Option<Instance>,
}

/// An instance directory that this process has.
pub(crate) struct Instance {
    pub(crate) claim: Claim,
    pub(crate) control: UnixListener,
    pub(crate) record: Record,
}

impl Master {
    /// Looks after a gateway until told to stop.
    ///
    /// # Errors
    /// When there is no gateway to be had.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        // One thread: it is also the one whose children the gateways are.
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(cannot_start)?;
        let result = runtime.block_on(async {
            let mut running = Running::new(self)?;
            let code = running.turn().await;
            running.tasks.shutdown().await;
            Ok(ExitCode::from(code))
        });
        log::flush();
        result
    }
}

/// What is shared with the tasks that answer the control socket.
#[derive(Clone)]
struct Shared {
    clock: Clock,
    started_unix_ms: u64,
    management: Management,
    state_dir: Option<PathBuf>,
    config_file: Option<PathBuf>,
    listeners: Vec<Listener>,
    post: Post,
}

/// What changes, for them.
#[derive(Clone)]
struct Now {
    view: plan::View,
    /// Whether the public listeners speak TLS.
    tls: bool,
    /// The way to the gateway, once it listens.
    cord: Option<Cord>,
}

/// What somebody on the control socket wants.
enum Wish {
    Stop,
    Reload(oneshot::Sender<Result<Changes, Failure>>),
}

/// A master at work.
struct Running {
    plan: Plan,
    clock: Clock,
    signals: Signals,
    overrides: Overrides,
    /// The last good file, and what it says.
    file: Option<ConfigFile>,
    config: Arc<Config>,
    /// The one before it, while no gateway has shown that it can serve the new one.
    fallback: Option<reload::Read>,
    /// All that a charter says that never changes.
    charter: Charter,
    listeners: Vec<(Listener, TcpListener)>,
    child: Option<Child>,
    reports: Reports,
    now: watch::Sender<Now>,
    wishes: mpsc::Receiver<Wish>,
    /// A reload that is under way, and who waits for it.
    reload: Option<oneshot::Receiver<reload::Outcome>>,
    reload_waiters: Waiters,
    tasks: JoinSet<()>,
    /// The instance directory, held for life.
    place: Option<Place>,
    /// Where services are looked after.
    post: Post,
    /// What it shall look after.
    runs: watch::Sender<Runs>,
    /// How they are.
    services: watch::Receiver<Statuses>,
    /// What the plan has told the service manager last.
    words: Option<String>,
}

/// Who waits for the end of a reload.
#[derive(Default)]
struct Waiters {
    /// For the one under way.
    now: Vec<oneshot::Sender<Result<Changes, Failure>>>,
    /// For the one after it: the file may have changed since it was read.
    next: Vec<oneshot::Sender<Result<Changes, Failure>>>,
}

/// What may happen.
enum Event {
    Asked(Asked),
    Report(Report),
    /// The gateway's process is gone.
    Ended(io::Result<std::process::ExitStatus>),
    Wish(Wish),
    Reloaded(reload::Outcome),
    /// A service is another way than it was.
    Services,
    Timeout,
}

impl Running {
    fn new(master: Master) -> Result<Self, Failure> {
        let Master {
            clock,
            started_unix_ms,
            bind_seconds,
            overrides,
            file,
            config,
            listeners,
            management,
            instance,
        } = master;
        let plan = Plan::new(config.server.drain, sd_notify::watchdog_enabled());
        let now = Now { view: plan.view(), tls: config.server.tls.is_some(), cord: None };
        let (now, watching) = watch::channel(now);
        let (wish, wishes) = mpsc::channel(limit::WISHES);
        let bound: Vec<Listener> = listeners.iter().map(|(listener, _)| *listener).collect();
        let paths = instance.as_ref().map(|it| it.claim.paths());
        let state_dir = paths.map(|paths| paths.runtime.clone());
        let state_file = paths.map(Paths::continuity);
        let started = timestamp_of(started_unix_ms);
        let for_bots = bound.iter().find(|listener| listener.door == Door::Links);
        let for_bots = for_bots.map(|listener| listener.address);
        let post = Post::new(paths, for_bots, ServiceStatus::all_unborn(&config, started));
        let config = Arc::new(config);
        let runs = Runs::of(&config, file.as_ref().map(|file| file.path.as_path()));
        let (runs, running) = watch::channel(runs);
        let shared = Shared {
            post: post.clone(),
            clock,
            started_unix_ms,
            management,
            state_dir: state_dir.clone(),
            config_file: file.as_ref().map(|file| file.path.clone()),
            listeners: bound.clone(),
        };
        let watching_services = watching.clone();
        let mut tasks = JoinSet::new();
        let place = instance
            .map(|instance| Place::open(instance, shared, watching, wish, &mut tasks))
            .transpose()
            .map_err(cannot_start)?;
        if place.is_some() || !config.services.0.is_empty() {
            tasks.spawn(post.clone().look_after(running));
            tasks.spawn(services::tell(watching_services, post.statuses()));
        }
        let charter = Charter {
            services: Vec::new(),
            file: None,
            overrides: overrides.clone(),
            listeners: bound,
            restarts: BTreeMap::new(),
            last_end: None,
            master_pid: std::process::id(),
            management,
            state_dir,
            state_file,
            started_unix_ms,
            bind_seconds,
        };
        Ok(Self {
            plan,
            clock,
            signals: Signals::listen().map_err(cannot_start)?,
            overrides,
            file,
            config,
            fallback: None,
            charter,
            listeners,
            child: None,
            reports: Reports::none(),
            now,
            wishes,
            reload: None,
            reload_waiters: Waiters::default(),
            tasks,
            place,
            services: post.statuses(),
            post,
            runs,
            words: None,
        })
    }

    /// The main loop, up to the code of the process.
    async fn turn(&mut self) -> u8 {
        let mut exit = self.input(Input::Begin);
        loop {
            if let Some(code) = exit {
                self.leave().await;
                return code;
            }
            let event = self.next().await;
            exit = self.handle(event).await;
        }
    }

    /// Waits for what happens next.
    async fn next(&mut self) -> Event {
        let deadline = self.plan.deadline().map(|at| self.clock.instant(at));
        tokio::select! {
            // What ends comes first; what a gateway said before it ended is read then.
            biased;
            ended = ended(&mut self.child) => Event::Ended(ended),
            asked = self.signals.next() => Event::Asked(asked),
            () = sleep_until(deadline) => Event::Timeout,
            report = self.reports.next() => Event::Report(report),
            outcome = outcome(&mut self.reload) => Event::Reloaded(outcome),
            Ok(()) = self.services.changed() => Event::Services,
            Some(wish) = self.wishes.recv() => Event::Wish(wish),
            Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => Event::Timeout,
        }
    }

    async fn handle(&mut self, event: Event) -> Option<u8> {
        match event {
            Event::Asked(Asked::Stop(signal)) => self.input(Input::Stop(signal)),
            Event::Asked(Asked::Reload) => self.input(Input::Reload),
            Event::Report(Report::Requests { service, total }) => {
                if let Some(crew) = self.post.crew() {
                    crew.requests(&service, total);
                }
                None
            }
            Event::Report(report) => {
                if report == Report::Answering {
                    self.fallback = None;
                }
                if report == Report::Alive
                    && let Some(place) = &mut self.place
                {
                    // It comes often enough, and the master wakes up for it anyhow.
                    place.look(&mut self.tasks);
                }
                self.input(Input::Report(report))
            }
            Event::Ended(status) => {
                self.child = None;
                let end = end(status);
                if end == End::Exited(Exit::Usage.code())
                    && let Some((file, config)) = self.fallback.take()
                {
                    tracing::error!("the new configuration cannot be served, back to the old one");
                    (self.file, self.config) = (file, config);
                    self.tell_config();
                }
                self.now.send_modify(|now| now.cord = None);
                for report in self.reports.rest().await {
                    self.input(Input::Report(report));
                }
                self.input(Input::Ended { end, chance: chance() })
            }
            Event::Wish(Wish::Stop) => self.input(Input::Stop("the control socket")),
            // Who waits for a reload that there will not be is told so at once.
            Event::Wish(Wish::Reload(_)) if self.plan.view().server == ServerState::Draining => {
                None
            }
            Event::Wish(Wish::Reload(waiter)) => {
                let Waiters { now, next } = &mut self.reload_waiters;
                if self.reload.is_some() { next } else { now }.push(waiter);
                self.input(Input::Reload)
            }
            Event::Reloaded(outcome) => self.reloaded(outcome),
            Event::Services => {
                self.services.mark_unchanged();
                if let Some(words) = self.words.clone() {
                    notify::tell(&[self.status(&words)]);
                }
                None
            }
            Event::Timeout => self.input(Input::Timeout),
        }
    }

    /// Takes the plan one step on and does what it says. The code, if that is the end.
    fn input(&mut self, input: Input) -> Option<u8> {
        let mut exit = None;
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.plan.handle_input(self.clock.now(), input) {
                match output {
                    Output::Start => inputs.push(self.start()),
                    Output::Signal { pid, signal } => self.signal(pid, signal),
                    Output::Notify(notices) => self.notify(notices),
                    Output::Reload => self.start_reload(),
                    Output::Log(line) => say(line),
                    Output::Exit(code) => exit = Some(code),
                }
            }
        }
        let view = self.plan.view();
        self.now.send_if_modified(|now| {
            let changed = now.view != view;
            now.view = view;
            changed
        });
        exit
    }

    /// Starts a gateway. What came of it is the next input.
    fn start(&mut self) -> Input {
        let view = self.plan.view();
        let charter = Charter {
            file: self.file.clone(),
            restarts: view.restarts,
            last_end: view.last_end,
            services: self.services.borrow().to_vec(),
            ..self.charter.clone()
        };
        match spawn::gateway(&charter, &self.listeners) {
            Ok(Started { child, reports, cord, charter }) => {
                let pid = child.pid();
                self.child = Some(child);
                self.reports = reports;
                let now = self.now.clone();
                let connect = cord::connect(cord, charter);
                self.tasks.spawn(async move {
                    let (cord, connection) = match connect.await {
                        Ok(connected) => connected,
                        Err(error) => {
                            // It died, which is found out elsewhere.
                            tracing::debug!(%error, "no cord to the gateway");
                            return;
                        }
                    };
                    now.send_if_modified(|now| {
                        let current = now.view.pid == Some(pid);
                        if current {
                            now.cord = Some(cord);
                        }
                        current
                    });
                    // Its end is found out by whoever uses it.
                    let _ = connection.await;
                });
                Input::Started { pid }
            }
            Err(error) => Input::NotStarted { error: error.to_string(), chance: chance() },
        }
    }

    fn signal(&self, pid: u32, signal: Signal) {
        let number = match signal {
            // SIGTERM is anybody's: after that another gateway follows, with the same listeners.
            Signal::Drain => Number::USR1,
            Signal::Cut => Number::QUIT,
            Signal::Kill => Number::KILL,
        };
        // It has not been waited for, so the number is still its own.
        let ours = self.child.as_ref().is_some_and(|child| child.pid() == pid);
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (ours, pid)
            && let Err(error) = kill_process(pid, number)
        {
            tracing::warn!(%error, "the gateway could not be sent a signal");
        }
    }

    fn start_reload(&mut self) {
        let reload = Reload {
            overrides: self.overrides.clone(),
            path: self.overrides.file.clone(),
            current: Arc::clone(&self.config),
            now: self.now.subscribe(),
        };
        let (tell, outcome) = oneshot::channel();
        self.reload = Some(outcome);
        self.tasks.spawn(async move {
            // The receiver lives as long as the main loop.
            let _ = tell.send(reload.run().await);
        });
    }

    /// Lets everybody know of another configuration.
    fn tell_config(&self) {
        let tls = self.config.server.tls.is_some();
        self.now.send_modify(|now| now.tls = tls);
        let file = self.file.as_ref().map(|file| file.path.as_path());
        self.runs.send_replace(Runs::of(&self.config, file));
    }

    /// Tells the service manager, and adds to its words which services are awaited.
    fn notify(&mut self, notices: Vec<Notice>) {
        let add = |notice| match notice {
            Notice::Status(words) => {
                let whole = self.status(&words);
                self.words = Some(words);
                whole
            }
            other => other,
        };
        let notices: Vec<Notice> = notices.into_iter().map(add).collect();
        notify::tell(&notices);
    }

    fn status(&self, words: &str) -> Notice {
        Notice::Status(services::manager_words(words, &self.services.borrow()))
    }

    /// Stops the services, those that need others first. The gateway is gone by now, so that nobody was
    /// served without them. Whoever asks for the end again has them killed.
    async fn leave(&mut self) {
        let Some(crew) = self.post.crew().cloned() else { return };
        let mut stopped = Box::pin(crew.stop());
        let mut ticks = time::interval(services::LEAVING);
        loop {
            let again = tokio::select! {
                left = &mut stopped => {
                    if !left.is_empty() {
                        let services = left.join(", ");
                        tracing::error!(services, "something is left of these services");
                    }
                    return;
                }
                _ = ticks.tick() => {
                    notify::tell(&services::leaving(&self.services.borrow()));
                    false
                }
                asked = self.signals.next() => matches!(asked, Asked::Stop(_)),
                // A reload that is dropped is told so.
                Some(wish) = self.wishes.recv() => matches!(wish, Wish::Stop),
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => false,
            };
            if again {
                tracing::warn!("asked again to stop, killing the services");
                // Said twice, it is that.
                stopped = Box::pin(crew.stop());
            }
        }
    }

    fn reloaded(&mut self, outcome: reload::Outcome) -> Option<u8> {
        self.reload = None;
        let waiters = mem::take(&mut self.reload_waiters.now);
        self.reload_waiters.now = mem::take(&mut self.reload_waiters.next);
        if let Some((file, config)) = outcome.good {
            let before =
                (mem::replace(&mut self.file, file), mem::replace(&mut self.config, config));
            if outcome.tried {
                self.fallback = None;
            } else {
                self.fallback.get_or_insert(before);
            }
            log::apply(&self.config.log.level, self.config.log.format);
            self.tell_config();
        }
        let words = match &outcome.result {
            Ok(done) => {
                let tables = done.tables.iter().map(|(kind, tables)| format!("{kind}: {tables}"));
                let tables = tables.collect::<Vec<_>>().join("; ");
                let applied = done.plain().join(", ");
                tracing::info!(applied, tables, "configuration read again");
                if !done.restart.is_empty() {
                    tracing::warn!(keys = done.restart.join(", "), "these wait for a restart");
                }
                "serving".to_owned()
            }
            Err(failure) => {
                let (code, error) = (failure.code.name(), &failure.message);
                tracing::error!(code, error, "the new configuration is refused, the old one stays");
                format!("serving the old configuration: {}", failure.message)
            }
        };
        for waiter in waiters {
            // Who has gone away does not miss it.
            let _ = waiter.send(outcome.result.clone());
        }
        self.input(Input::Reloaded { words, drain: self.config.server.drain })
    }
}

/// The end of the gateway's process.
async fn ended(child: &mut Option<Child>) -> io::Result<std::process::ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn outcome(reload: &mut Option<oneshot::Receiver<reload::Outcome>>) -> reload::Outcome {
    if let Some(outcome) = reload
        && let Ok(outcome) = outcome.await
    {
        return outcome;
    }
    std::future::pending().await
}

async fn sleep_until(deadline: Option<time::Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn end(status: io::Result<std::process::ExitStatus>) -> End {
    use std::os::unix::process::ExitStatusExt as _;
    let Ok(status) = status else { return End::Exited(Exit::Failed.code()) };
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => End::Killed(signal.unwrap_or_default()),
    }
}

fn chance() -> Chance {
    // A system without chance gets the longest pause.
    let number = getrandom::u32().unwrap_or(u32::MAX);
    Chance(f64::from(number) / f64::from(u32::MAX))
}

fn say(line: Line) {
    match line {
        Line::Stopping { by } => tracing::info!(by, "stopping"),
        Line::Restarting { reason, last_end, after } => {
            let after_ms = after.as_millis() as u64;
            let reason = reason.name();
            tracing::error!(reason, last_end, after_ms, "the gateway is gone, starting another");
        }
        Line::Recovered { restarts } => tracing::info!(restarts, "the new gateway answers"),
        Line::Unresponsive => {
            let seconds = limit::LIFE.as_secs();
            tracing::error!(seconds, "the gateway gives no sign of life, killing it");
        }
        Line::Overdue => tracing::error!("the gateway takes too long to end, killing it"),
        Line::BadEnd { last_end } => tracing::error!(last_end, "the gateway did not drain"),
    }
}

fn timestamp_of(unix_ms: u64) -> jiff::Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

fn cannot_start(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::StartFailed, error)
}
