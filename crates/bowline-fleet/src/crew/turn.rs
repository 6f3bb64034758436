//! The main loop: what happens becomes an input of the plan, and its outputs are carried out.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::Arc,
    thread,
    time::Duration,
};

use bowline_proto::Time;
use tokio::{
    runtime,
    signal::unix::{Signal as Heard, SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time,
};

use super::{
    Options, Snapshot, Wish,
    held::{Held, Instances, Leads, Made, patterns},
    limit::{EVENTS, KILL_FOR, LAST_WRITTEN, LOOK_BUSY, LOOK_IDLE, ORPHAN_LOOKS, ORPHAN_PAUSE},
    start::Prepared,
    unix_ms,
};
use crate::{
    clock::Clock,
    logs::{Logs, Matched},
    os::{
        environment::{self, Environment},
        listen::Bound,
        members::Carriers,
        notify::Message,
        place::{Place, Record},
        process::{Key, Process},
        spawn::NotSpawned,
        sweep,
    },
    plan::{
        Chance, End, Input, Instance, Level, Line, Orphan, Outcome, Output, Plan, Token, Variant,
        View,
    },
    probe::{self, Seen, Surroundings},
    spec::{Phase, Probe, Service},
};

/// What the loop is given.
pub(super) struct Given {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) wishes: mpsc::Receiver<Wish>,
    pub(super) tell: watch::Sender<Arc<Snapshot>>,
    pub(super) logs: Logs,
    pub(super) matches: mpsc::Receiver<Matched>,
    pub(super) writer: thread::JoinHandle<()>,
}

/// Runs on the crew's thread until all services have ended for good.
pub(super) fn run(given: Given, services: Vec<Service>) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no services: there is no runtime for them");
            return;
        }
    };
    runtime.block_on(async {
        match Running::new(given) {
            Ok(running) => running.turn(services).await,
            Err(error) => tracing::error!(%error, "no services: what they need is not there"),
        }
    });
    // A user database or an interpreter that does not answer is not waited for.
    runtime.shutdown_background();
}

/// What may happen.
pub(super) enum Event {
    /// What a start needs is ready, or cannot be.
    Prepared(Instance, String, Box<Result<Prepared, NotSpawned>>),
    /// A leader has ended.
    Ended(Instance),
    /// Its last lines have been read.
    LastLines(Instance, End, Vec<String>),
    /// An instance has said something.
    Said(Instance, Message),
    /// A check was made.
    Probed(Instance, Phase, usize, Seen),
}

/// What wakes the loop.
enum Woken {
    Event(Event),
    Wish(Wish),
    Matched(Matched),
    /// A child of this process has ended, or it is time to look.
    Look,
    /// It is time for the plan.
    Timeout,
    /// A task has ended.
    Task,
}

pub(super) struct Running {
    pub(super) given: Given,
    pub(super) inherited: Arc<Environment>,
    pub(super) plan: Plan,
    pub(super) instances: Instances,
    /// Sockets that are bound for services.
    pub(super) bound: BTreeMap<String, Vec<Bound>>,
    /// Records of what a dead master has left, until the plan says what is done with it.
    pub(super) orphans: HashMap<String, (Place, Record)>,
    /// Who waits for an answer.
    pub(super) waiting: BTreeMap<Token, oneshot::Sender<Outcome>>,
    pub(super) next_token: u64,
    pub(super) stopping: Vec<oneshot::Sender<Vec<String>>>,
    /// Requests that each service has been passed, and the gateway's last count of them.
    pub(super) requests: BTreeMap<String, Requests>,
    pub(super) carriers: Carriers,
    /// Children that have ended and are not the services', with the time when they were first seen.
    pub(super) foreign: BTreeMap<Key, Time>,
    pub(super) children: Heard,
    pub(super) next_look: Time,
    pub(super) look_every: Duration,
    pub(super) tasks: JoinSet<()>,
    pub(super) tell: mpsc::Sender<Event>,
    pub(super) events: mpsc::Receiver<Event>,
    /// Nothing follows; of these something is left.
    pub(super) over: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Requests {
    pub(super) sum: u64,
    pub(super) last: u64,
}

impl Running {
    fn new(given: Given) -> io::Result<Self> {
        sweep::become_subreaper()?;
        let children = signal(SignalKind::child())?;
        let (tell, events) = mpsc::channel(EVENTS);
        let inherited = environment::inherited(given.options.environment.iter().cloned());
        Ok(Self {
            next_look: given.clock.now() + LOOK_IDLE,
            given,
            inherited: Arc::new(inherited),
            plan: Plan::new(),
            instances: Instances::new(),
            bound: BTreeMap::new(),
            orphans: HashMap::new(),
            waiting: BTreeMap::new(),
            next_token: 0,
            stopping: Vec::new(),
            requests: BTreeMap::new(),
            carriers: Carriers::default(),
            foreign: BTreeMap::new(),
            children,
            look_every: LOOK_IDLE,
            tasks: JoinSet::new(),
            tell,
            events,
            over: None,
        })
    }

    async fn turn(mut self, services: Vec<Service>) {
        if let Some((services, orphans)) = self.looked(services).await {
            self.input(Input::Begin { services, orphans });
        }
        while self.over.is_none() {
            let woken = self.next().await;
            self.handle(woken);
        }
        self.end().await;
    }

    /// What is to run, and what an earlier server has left; `None` if all is to stop before that is known. Whoever
    /// starts without having looked may start a second one of what still runs.
    async fn looked(&mut self, mut services: Vec<Service>) -> Option<(Vec<Service>, Vec<Orphan>)> {
        let mut looks = 0_u32;
        loop {
            let error = match self.find_orphans() {
                Ok(orphans) => return Some((services, orphans)),
                Err(error) => error,
            };
            looks = looks.saturating_add(1);
            if looks == ORPHAN_LOOKS {
                tracing::error!(
                    %error,
                    "no service is started until what an earlier server has left can be looked for"
                );
            }
            tokio::select! {
                () = time::sleep(ORPHAN_PAUSE) => {}
                Some(wish) = self.given.wishes.recv() => match wish {
                    Wish::Configure { services: others, done } => {
                        for service in &others {
                            self.given.logs.open(&service.name, service.logs);
                        }
                        services = others;
                        let _ = done.send(());
                    }
                    Wish::Command { done, .. } => {
                        let words = "what an earlier server has left cannot be looked for";
                        let _ = done.send(Outcome::Failed(format!("{words}: {error}")));
                    }
                    Wish::Requests { .. } => {}
                    Wish::Stop { done } => {
                        self.stopping.push(done);
                        self.over = Some(Vec::new());
                        return None;
                    }
                },
            }
        }
    }

    /// Waits for what happens next.
    async fn next(&mut self) -> Woken {
        let clock = self.given.clock;
        let deadline = self.plan.deadline();
        let plan_first = deadline.is_some_and(|at| at <= self.next_look);
        let wake = clock.instant(deadline.map_or(self.next_look, |at| at.min(self.next_look)));
        let clock_now = clock.now();
        // A child that ends is looked at soon, and many of them once.
        let may_look = self.next_look > clock_now + LOOK_BUSY;
        // Each in its turn: one service that says a lot must not keep the others waiting.
        tokio::select! {
            Some(event) = self.events.recv() => Woken::Event(event),
            Some(matched) = self.given.matches.recv() => Woken::Matched(matched),
            () = time::sleep_until(wake) => if plan_first { Woken::Timeout } else { Woken::Look },
            Some(()) = self.children.recv(), if may_look => {
                self.next_look = clock_now + LOOK_BUSY;
                Woken::Task
            }
            Some(wish) = self.given.wishes.recv() => Woken::Wish(wish),
            Some(ended) = self.tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a task of the services has failed");
                }
                Woken::Task
            }
        }
    }

    fn handle(&mut self, woken: Woken) {
        match woken {
            Woken::Event(Event::Prepared(instance, identity, prepared)) => {
                self.prepared(instance, identity, *prepared);
            }
            Woken::Event(Event::Ended(instance)) => self.ended(instance),
            Woken::Event(Event::LastLines(instance, end, lines)) => {
                if let Some(made) = self.instances.get_mut(&instance).and_then(Held::made) {
                    made.leads = Leads::Told;
                }
                self.input(Input::Exited { instance, end, lines });
                self.look();
            }
            Woken::Event(Event::Said(instance, message)) => self.said(instance, message),
            Woken::Event(Event::Probed(instance, phase, index, seen)) => {
                self.input(Input::Probed { instance, phase, index, seen });
            }
            Woken::Matched(Matched { instance, phase, index }) => {
                self.input(Input::Logged { instance, phase, index });
            }
            Woken::Wish(wish) => self.wish(wish),
            Woken::Look => self.look(),
            Woken::Timeout => self.input(Input::Timeout),
            Woken::Task => {}
        }
    }

    fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Configure { services, done } => {
                for service in &services {
                    self.given.logs.open(&service.name, service.logs);
                }
                self.input(Input::Configure { services });
                // Who does not wait any more does not need to know.
                let _ = done.send(());
            }
            Wish::Command { service, command, done } => {
                let token = Token(self.next_token);
                self.next_token += 1;
                self.waiting.insert(token, done);
                self.input(Input::Asked { service, command, token });
            }
            Wish::Requests { service, total } => {
                let requests = self.requests.entry(service).or_default();
                // A new gateway counts from zero.
                let more = total.checked_sub(requests.last).unwrap_or(total);
                *requests = Requests { sum: requests.sum + more, last: total };
            }
            Wish::Stop { done } => {
                self.stopping.push(done);
                self.input(Input::StopAll);
            }
        }
    }

    /// Takes the plan one step on and does what it says, and what follows of that.
    pub(super) fn input(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.given.clock.now();
            for output in self.plan.handle_input(now, chance(), input) {
                inputs.extend(self.output(output));
            }
        }
    }

    /// Does one thing. What came of it at once is the next input.
    fn output(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Start { instance, service, variant, attempt: _ } => {
                self.prepare(instance, service, variant);
            }
            Output::Adopt { instance, service, orphan, end: _ } => {
                return self.adopt(instance, service, orphan);
            }
            Output::Adjust { instance, service } => self.adjust(instance, service),
            Output::Promote { instance } => self.promote(instance),
            Output::Signal { instance, signal } => {
                let signal = sweep::signal(signal);
                self.end_of(instance, |made, _| made.signal(signal));
            }
            Output::Kill { instance } => {
                self.end_of(instance, |made, now| {
                    made.kill_until = Some(now + KILL_FOR);
                    made.kill()
                });
            }
            Output::Probe { instance, phase, index, probe } => {
                self.probe(instance, phase, index, probe);
            }
            Output::Answer { token, outcome } => {
                if let Some(waiting) = self.waiting.remove(&token) {
                    // Who has gone away does not miss it.
                    let _ = waiting.send(outcome);
                }
            }
            Output::Log(line) => self.say(&line),
            Output::Changed(view) => self.changed(*view),
            Output::Removed { service } => self.removed(&service),
            Output::Over { left } => self.over = Some(left),
        }
        None
    }

    fn adjust(&mut self, instance: Instance, service: Arc<Service>) {
        if let Some(held) = self.instances.get_mut(&instance) {
            self.given.logs.look_for(instance, patterns(&service));
            held.service = service;
        }
    }

    fn promote(&mut self, instance: Instance) {
        if let Some(held) = self.instances.get_mut(&instance) {
            held.variant = Variant::Stable;
            if let Some(made) = held.made() {
                made.record.candidate = false;
                made.write();
            }
        }
    }

    /// Does something for the end of an instance.
    fn end_of(&mut self, instance: Instance, end: impl FnOnce(&mut Made, Time) -> io::Result<()>) {
        let now = self.given.clock.now();
        let Some(held) = self.instances.get_mut(&instance) else { return };
        let service = Arc::clone(&held.service);
        let Some(made) = held.made() else { return };
        if let Err(error) = end(made, now) {
            let service = &*service.name;
            tracing::error!(service, %error, "a process could not be sent a signal");
        }
        self.look_soon();
    }

    fn probe(&mut self, instance: Instance, phase: Phase, index: usize, probe: Probe) {
        let Some(held) = self.instances.get(&instance) else { return };
        let surroundings: Arc<Surroundings> = Arc::clone(&held.surroundings);
        let tell = self.tell.clone();
        self.tasks.spawn(async move {
            let seen = probe::run(&probe, &surroundings).await;
            let _ = tell.send(Event::Probed(instance, phase, index, seen)).await;
        });
    }

    fn said(&mut self, instance: Instance, message: Message) {
        let Some(held) = self.instances.get_mut(&instance) else { return };
        let service = Arc::clone(&held.service);
        let Some(made) = held.made() else { return };
        if let Some(sender) = Process::number_key(message.pid)
            && !made.members.contains(sender)
        {
            // It may have been made since the last look.
            self.look_at_all();
            let made = self.instances.get_mut(&instance).and_then(Held::made);
            if made.is_some_and(|made| !made.members.contains(sender)) {
                let (service, pid) = (&*service.name, message.pid);
                tracing::warn!(service, pid, "a process that is not of the service speaks for it");
                return;
            }
        }
        if let Some(main_pid) = message.main_pid {
            tracing::warn!(
                service = service.name,
                main_pid,
                "the service names another process as its main one, which is not followed: it is \
                 to stay in the foreground"
            );
        }
        for word in message.words {
            self.input(Input::Notified { instance, word });
        }
    }

    fn say(&self, line: &Line) {
        let Line { service, level, words } = line;
        match level {
            Level::Info => tracing::info!(service, "{words}"),
            Level::Warn => tracing::warn!(service, "{words}"),
            Level::Error => tracing::error!(service, "{words}"),
        }
        self.given.logs.say(service, words);
    }

    fn changed(&mut self, view: View) {
        let ready = view.stable.as_ref().filter(|it| it.ready).map(|it| it.instance);
        let wall = unix_ms(self.given.clock.wall());
        if let Some(made) = ready.and_then(|it| self.instances.get_mut(&it)).and_then(Held::made)
            && made.record.ready_unix_ms.is_none()
        {
            made.record.ready_unix_ms = Some(wall);
            made.write();
        }
        self.given.tell.send_modify(|snapshot| {
            Arc::make_mut(snapshot).services.insert(view.name.clone(), Arc::new(view));
        });
    }

    fn removed(&mut self, service: &str) {
        self.bound.remove(service).unwrap_or_default().into_iter().for_each(Bound::remove);
        self.requests.remove(service);
        self.given.logs.close(service);
        self.given.tell.send_modify(|snapshot| {
            Arc::make_mut(snapshot).services.remove(service);
        });
    }

    /// All services have ended.
    async fn end(mut self) {
        let left = self.over.take().unwrap_or_default();
        for bound in std::mem::take(&mut self.bound).into_values().flatten() {
            bound.remove();
        }
        self.given.logs.end();
        let writer = self.given.writer;
        let written = async {
            while !writer.is_finished() {
                time::sleep(LAST_WRITTEN / 100).await;
            }
        };
        if time::timeout(LAST_WRITTEN, written).await.is_err() {
            tracing::error!("the last lines of services are lost: the disk does not answer");
        }
        for stopping in self.stopping {
            let _ = stopping.send(left.clone());
        }
    }
}

fn chance() -> Chance {
    // A system without chance gets the longest pauses.
    Chance(getrandom::u64().unwrap_or(u64::MAX))
}
