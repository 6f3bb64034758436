//! A seeded world around the plan of services: processes good and bad, an operator who changes their mind, and a
//! master that dies.
//!
//! [`truth`] knows what the processes really do. [`model`] is told what the plan is told and says what may come of
//! it; it shares no code with the plan. Checked throughout:
//!
//! - no process of a service is started while another one of it is there, except one candidate where `overlap` allows
//!   it; no signal goes to a process that is gone or not there yet;
//! - a service starts only when what it needs has come as far as it must, and is stopped with everything only after
//!   those that need it;
//! - after a stop nothing starts, and nothing is left in the end; every question is answered once, and truly;
//! - a service is not started more often than its crash loop allows, and it is started when it can be;
//! - what the plan says of a service is so; it never asks to be woken in the past;
//! - at the end, when all processes behave, all services that are wanted are ready.

mod model;
mod truth;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use bowline_fleet::{
    plan::{
        Chance, Command, End, Input, Instance, Orphan, Outcome, Output, Plan, State, Token,
        Variant, View, Word,
    },
    probe::{Finding, Progress, Seen},
    spec::{
        Check, Checks, Listen, Match, Need, OnOrphan, Phase, Probe, Restart, Run, Service, Signal,
        Until, check,
    },
};
use bowline_proto::Time;

use crate::rng::Rng;
use model::Model;
use truth::{Nature, Process};

/// How long the processes and the operator do as they please.
const CHAOS: Duration = Duration::from_secs(15 * 60);

/// How long everything may take to be well again after that: the longest pause, twice, and the longest start.
const CALM: Duration = Duration::from_secs(5 * 60);

/// How long the end of everything may take: every grace in a row, and what hangs in the kernel.
const END: Duration = Duration::from_secs(3 * 60);

/// What happened in a world, or in many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inputs the plan was given.
    pub inputs: u64,
    /// Starts.
    pub starts: u64,
    /// Starts of candidates.
    pub candidates: u64,
    /// Candidates that took over.
    pub promotions: u64,
    /// Processes that ended by themselves.
    pub crashes: u64,
    /// Signals.
    pub signals: u64,
    /// Kills.
    pub kills: u64,
    /// Commands that were answered.
    pub answers: u64,
    /// Crash loops, as the plan told of them.
    pub crash_loops: u64,
    /// Deaths of the master.
    pub masters: u64,
    /// Processes that outlived their master and were adopted.
    pub adopted: u64,
    /// Services that were ready at the end.
    pub ready: u64,
}

impl Counts {
    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.starts += other.starts;
        self.candidates += other.candidates;
        self.promotions += other.promotions;
        self.crashes += other.crashes;
        self.signals += other.signals;
        self.kills += other.kills;
        self.answers += other.answers;
        self.crash_loops += other.crash_loops;
        self.masters += other.masters;
        self.adopted += other.adopted;
        self.ready += other.ready;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} inputs, {} starts ({} of candidates, {} took over), {} crashes, {} signals, {} kills, {} answers, \
             {} crash loops, {} deaths of the master, {} adopted, {} ready",
            self.inputs,
            self.starts,
            self.candidates,
            self.promotions,
            self.crashes,
            self.signals,
            self.kills,
            self.answers,
            self.crash_loops,
            self.masters,
            self.adopted,
            self.ready,
        )
    }
}

/// Runs the world of this seed and panics where a promise is broken.
pub fn run(seed: u64, trace: Option<&mut dyn FnMut(String)>) -> Counts {
    let mut world = World::new(seed, trace);
    world.begin(Vec::new());
    world.run_until(Time::ZERO + CHAOS, true);
    world.calm();
    world.run_until(world.now + CALM, false);
    world.check_well();
    world.end();
    world.counts
}

/// What is to happen.
#[derive(Debug)]
enum Event {
    /// A start succeeds or fails.
    Launch(Instance),
    /// The leader ends.
    Exit(Instance, End),
    /// What it left behind ends.
    Vanish(Instance),
    /// A check ends.
    Probe(Instance, Phase, usize),
    /// It says that it is ready.
    Say(Instance),
    /// The plan hears of something.
    Hear(Input),
}

struct World<'a> {
    rng: Rng,
    now: Time,
    plan: Plan,
    model: Model,
    processes: BTreeMap<Instance, Process>,
    events: BTreeMap<(Time, u64), Event>,
    order: u64,
    services: Vec<Service>,
    calm: bool,
    token: u64,
    last_pid: u32,
    next_whim: Time,
    over: bool,
    counts: Counts,
    trace: Option<&'a mut dyn FnMut(String)>,
}

impl<'a> World<'a> {
    fn new(seed: u64, trace: Option<&'a mut dyn FnMut(String)>) -> Self {
        let mut rng = Rng::new(seed);
        let services = services(&mut rng);
        assert_eq!(check(&services), [], "the world is configured wrongly");
        Self {
            rng,
            now: Time::ZERO,
            plan: Plan::new(),
            model: Model::default(),
            processes: BTreeMap::new(),
            events: BTreeMap::new(),
            order: 0,
            services,
            calm: false,
            token: 0,
            last_pid: 1000,
            next_whim: Time::ZERO,
            over: false,
            counts: Counts::default(),
            trace,
        }
    }

    fn begin(&mut self, orphans: Vec<Orphan>) {
        let services = self.services.clone();
        self.model.begin(&services);
        self.input(Input::Begin { services, orphans });
    }

    /// Lets things happen until then.
    fn run_until(&mut self, end: Time, whims: bool) {
        while !self.over {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.plan.deadline();
            let whim = whims.then_some(self.next_whim);
            let next = [event, deadline, whim].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if event.is_some_and(|at| at <= self.now) {
                if let Some((_, event)) = self.events.pop_first() {
                    self.on_event(event);
                }
            } else if deadline.is_some_and(|at| at <= self.now) {
                // Timers are a little late now and then.
                self.now += Duration::from_micros(self.rng.below(3000) as u64);
                self.input(Input::Timeout);
                let next = self.plan.deadline();
                assert!(next.is_none_or(|at| at > self.now), "it asks to be woken in the past");
            } else {
                self.on_whim();
                self.next_whim = self.now + self.up_to(Duration::from_secs(40));
            }
            self.model.check_idle(self.now, &self.processes);
        }
        if !self.over {
            self.now = self.now.max(end);
        }
    }

    fn on_event(&mut self, event: Event) {
        self.say(|| format!("{event:?}"));
        match event {
            Event::Launch(instance) => self.launch(instance),
            Event::Exit(instance, end) => self.exit(instance, end),
            Event::Vanish(instance) => self.vanish(instance),
            Event::Probe(instance, phase, index) => {
                let Some(process) = self.processes.get(&instance) else { return };
                let finding = process.finding(self.now, &mut self.rng);
                let seen = Seen { finding, took: Duration::from_millis(3) };
                self.input(Input::Probed { instance, phase, index, seen });
            }
            Event::Say(instance) => {
                let process = self.processes.get_mut(&instance);
                if let Some(process) = process.filter(|process| process.runs()) {
                    process.said = true;
                    self.input(Input::Notified { instance, word: Word::Ready });
                }
            }
            Event::Hear(input) => self.input(input),
        }
    }

    /// A start succeeds or fails.
    fn launch(&mut self, instance: Instance) {
        let Some(process) = self.processes.get_mut(&instance) else { return };
        if !self.calm && self.rng.one_in(20) {
            self.processes.remove(&instance);
            let lasting = self.rng.one_in(2);
            self.input(Input::NotStarted { instance, words: "not today".to_owned(), lasting });
            return;
        }
        self.last_pid += 1;
        let pid = self.last_pid;
        process.born(self.now, pid);
        let (boots, crash) = (process.boots, process.crash);
        let notifies = process.notifies();
        self.input(Input::Started { instance, pid, interpreter: None });
        if notifies && let Some(boots) = boots {
            self.at(boots, Event::Say(instance));
        }
        if let Some((at, end)) = crash {
            self.at(at, Event::Exit(instance, end));
        }
    }

    /// The leader ends, for whatever reason.
    fn exit(&mut self, instance: Instance, end: End) {
        let Some(process) = self.processes.get_mut(&instance).filter(|it| it.runs()) else {
            return;
        };
        process.leader = false;
        self.counts.crashes += u64::from(!process.told);
        let end = if process.adopted { End::Unknown } else { end };
        let behind = process.behind;
        let soon = self.soon();
        let lines = vec!["the last line".to_owned()];
        self.at(self.now + soon, Event::Hear(Input::Exited { instance, end, lines }));
        match behind {
            None => self.at(self.now + soon, Event::Vanish(instance)),
            Some(Some(time)) => self.at(self.now + soon + time, Event::Vanish(instance)),
            Some(None) => {}
        }
    }

    /// Nothing of it is left.
    fn vanish(&mut self, instance: Instance) {
        if self.processes.get(&instance).is_some_and(|process| !process.leader) {
            self.processes.remove(&instance);
            self.input(Input::Gone { instance });
        }
    }

    /// Gives the plan an input, and does what it says.
    fn input(&mut self, input: Input) {
        self.say(|| format!("  ← {input:?}"));
        self.counts.inputs += 1;
        self.model.on_input(self.now, &input);
        let chance = Chance(self.rng.word());
        let outputs = self.plan.handle_input(self.now, chance, input);
        let mut changed = BTreeSet::new();
        for output in outputs {
            match &output {
                Output::Changed(view) => drop(changed.insert(view.name.clone())),
                _ => self.say(|| format!("  → {output:?}")),
            }
            self.output(output);
        }
        let views = if self.counts.inputs.is_multiple_of(64) {
            self.plan.views()
        } else {
            changed.iter().filter_map(|name| self.plan.view(name)).collect()
        };
        views.iter().for_each(|view| self.check_view(view));
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Start { instance, service, variant, .. } => {
                self.model.on_start(self.now, instance, &service, variant, &self.processes);
                self.counts.starts += 1;
                self.counts.candidates += u64::from(variant == Variant::Candidate);
                let nature = Nature::random(&mut self.rng, self.calm);
                self.processes.insert(instance, Process::new(instance, service, nature));
                let delay = self.up_to(Duration::from_millis(1500));
                self.at(self.now + delay, Event::Launch(instance));
            }
            Output::Adopt { instance, service, orphan, end } => {
                // It was given the number of its process for the time between two masters.
                let found = self.processes.remove(&Instance(between(orphan.pid)));
                let mut process = found.expect("only what is there can be adopted");
                process.adopt(instance, Arc::clone(&service));
                self.counts.adopted += u64::from(!end);
                self.model.on_adopt(self.now, instance, &service, &orphan, end);
                let (crash, notifies, said) = (process.crash, process.notifies(), process.said);
                let boots = process.boots;
                if let Some((at, end)) = crash {
                    self.at(at.max(self.now), Event::Exit(instance, end));
                }
                if notifies
                    && !said
                    && let Some(boots) = boots
                {
                    self.at(boots.max(self.now), Event::Say(instance));
                }
                self.processes.insert(instance, process);
            }
            Output::Adjust { instance, service } => {
                if let Some(process) = self.processes.get_mut(&instance) {
                    process.service = Arc::clone(&service);
                }
                self.model.on_adjust(instance, &service);
            }
            Output::Promote { instance } => {
                self.counts.promotions += 1;
                self.model.on_promote(self.now, instance);
            }
            Output::Signal { instance, signal } => self.signal(instance, signal),
            Output::Kill { instance } => self.kill(instance),
            Output::Probe { instance, phase, index, probe } => {
                self.model.on_probe(instance);
                let delay = self.up_to(probe.timeout);
                self.at(self.now + delay, Event::Probe(instance, phase, index));
            }
            Output::Answer { token, outcome } => {
                self.counts.answers += 1;
                self.model.on_answer(self.now, token, &outcome, &self.processes);
            }
            Output::Over { left } => {
                self.over = true;
                for process in self.processes.values() {
                    assert!(process.nature.stuck, "{process:?} is left at the end");
                    assert!(left.contains(&process.service.name), "it is not said what is left");
                }
            }
            Output::Changed(view) => {
                self.counts.crash_loops += u64::from(view.state == State::CrashLoop);
            }
            Output::Log(_) | Output::Removed { .. } => {}
        }
    }

    fn signal(&mut self, instance: Instance, signal: Signal) {
        self.counts.signals += 1;
        self.model.on_signal(instance, &self.processes);
        let process = self.processes.get_mut(&instance).expect("nobody else is signalled");
        assert_eq!(signal, process.service.stop.signal);
        process.told = true;
        if process.nature.stuck || process.nature.stubborn {
            return;
        }
        let (leader, delay) = (process.leader, process.nature.takes_to_end);
        if leader {
            self.at(self.now + delay, Event::Exit(instance, End::Signal(15)));
        } else if process.behind.is_some() {
            self.at(self.now + delay, Event::Vanish(instance));
        }
    }

    fn kill(&mut self, instance: Instance) {
        self.counts.kills += 1;
        self.model.on_kill(self.now, instance, &self.processes);
        let process = self.processes.get_mut(&instance).expect("nobody else is killed");
        process.told = true;
        process.behind = process.behind.map(|_| Some(Duration::from_millis(2)));
        let hang = if process.nature.stuck { Duration::from_secs(25) } else { Duration::ZERO };
        if process.leader {
            let delay = self.soon() + hang;
            self.at(self.now + delay, Event::Exit(instance, End::Signal(9)));
        } else {
            let delay = self.soon();
            self.at(self.now + delay, Event::Vanish(instance));
        }
    }

    /// Somebody, or something, does as they please.
    fn on_whim(&mut self) {
        let service = self.services[self.rng.below(self.services.len())].name.clone();
        match self.rng.below(14) {
            0..3 => self.ask(service, Command::Restart),
            3..5 => self.ask(service, Command::Stop),
            5..8 => self.ask(service, Command::Start),
            8..10 => self.configure(),
            10 => self.kill_master(),
            11 => {
                let instances: Vec<_> = self.processes.keys().copied().collect();
                if let Some(instance) = instances.get(self.rng.below(instances.len())) {
                    let (memory, requests) = (Some(self.rng.below(2000) as u64), None);
                    self.input(Input::Measured { instance: *instance, memory, requests });
                }
            }
            _ => {
                // Somebody else kills one of them.
                let instances: Vec<_> = self.processes.keys().copied().collect();
                if let Some(instance) = instances.get(self.rng.below(instances.len())) {
                    self.at(self.now, Event::Exit(*instance, End::Signal(9)));
                }
            }
        }
    }

    fn ask(&mut self, service: String, command: Command) {
        self.token += 1;
        let token = Token(self.token);
        self.input(Input::Asked { service, command, token });
    }

    fn configure(&mut self) {
        let index = self.rng.below(self.services.len());
        match self.rng.below(6) {
            0 if self.services.len() > 1 => {
                let name = self.services.remove(index).name;
                for service in &mut self.services {
                    service.needs.retain(|need| need.service != name);
                }
            }
            1 if self.services.len() < NAMES.len() => {
                let taken: BTreeSet<_> = self.services.iter().map(|it| it.name.clone()).collect();
                let free = NAMES.iter().find(|name| !taken.contains(**name));
                if let Some(name) = free {
                    let service = service(&mut self.rng, name, &[]);
                    self.services.insert(0, service);
                }
            }
            2 => self.services[index].stop.grace = Duration::from_secs(self.rng.below(5) as u64),
            3 => self.services[index].needs.clear(),
            _ => {
                let value = self.rng.word().to_string().into();
                self.services[index].environment.insert("VALUE".into(), value);
            }
        }
        assert_eq!(check(&self.services), []);
        let services = self.services.clone();
        self.input(Input::Configure { services });
    }

    /// The master dies, and another one begins a moment later.
    fn kill_master(&mut self) {
        self.counts.masters += 1;
        self.say(|| "the master dies".to_owned());
        let mut orphans = Vec::new();
        let mut kept = BTreeMap::new();
        for (instance, mut process) in std::mem::take(&mut self.processes) {
            // What has no leader any more is swept away before the new master begins, as what was never born.
            let Some(pid) = process.pid.filter(|_| process.leader) else { continue };
            let Some(known) = self.model.known(instance) else { continue };
            orphans.push(Orphan {
                service: process.service.name.clone(),
                variant: known.variant,
                pid,
                identity: pid.to_string(),
                fingerprint: process.made_from,
                age: self.now - process.born,
                ready: known.ready(self.now),
            });
            process.told = false;
            process.instance = Instance(between(pid));
            kept.insert(process.instance, process);
        }
        self.processes = kept;
        self.events.clear();
        self.plan = Plan::new();
        let pause = self.up_to(Duration::from_secs(5));
        self.now += pause;
        // Some of them do not live to see the next master.
        let late: Vec<_> = self.processes.keys().copied().collect();
        for instance in late {
            if self.rng.one_in(10) {
                self.processes.remove(&instance);
                orphans.retain(|orphan| Instance(between(orphan.pid)) != instance);
            }
        }
        self.begin(orphans);
    }

    /// From now on everything that is left of the processes behaves.
    fn calm(&mut self) {
        self.say(|| "from now on all is well".to_owned());
        self.calm = true;
        for process in self.processes.values_mut() {
            process.behave(self.now);
        }
        self.events
            .retain(|_, event| !matches!(event, Event::Exit(_, End::Code(_) | End::Signal(11))));
        let silent: Vec<_> =
            self.processes.values().filter(|it| it.notifies() && it.runs() && !it.said).collect();
        let silent: Vec<_> = silent.into_iter().map(|process| process.instance).collect();
        for instance in silent {
            self.at(self.now + Duration::from_secs(1), Event::Say(instance));
        }
        let names: Vec<_> = self.services.iter().map(|service| service.name.clone()).collect();
        // Whatever does not heal by itself is looked after by somebody.
        for name in names {
            if self.plan.view(&name).is_some_and(|view| view.state == State::Failed) {
                self.ask(name, Command::Start);
            }
        }
    }

    fn check_well(&mut self) {
        for view in self.plan.views() {
            let wanted = self.model.is_wanted(&view.name);
            // A job that behaves well may run for ever.
            let jobs = self.services.iter().filter(|service| service.name == view.name);
            let job = jobs.flat_map(|service| &service.needs);
            let job = job.filter(|need| need.until == Until::Completed);
            let jobs: BTreeSet<_> = job.map(|need| &need.service).collect();
            let stopped = view.needs.iter().filter(|need| !need.met).any(|need| {
                let wanted = self.model.is_wanted(&need.service);
                !wanted || need.state != State::Ready || jobs.contains(&need.service)
            });
            match view.state {
                State::Ready => self.counts.ready += 1,
                State::Completed => {}
                State::Stopped => assert!(!wanted, "{view:?}"),
                State::Waiting => assert!(stopped, "{view:?}"),
                State::Failed if self.is_once(&view.name) => {}
                state => panic!("{state:?} though all is well: {view:?}"),
            }
        }
        self.model.check_answers(&self.plan);
    }

    /// Whether nothing becomes of it after its first end.
    fn is_once(&self, name: &str) -> bool {
        let service = self.services.iter().find(|service| service.name == name);
        service.is_some_and(|service| service.restart == Restart::Never)
    }

    /// Stops everything.
    fn end(&mut self) {
        self.input(Input::StopAll);
        let end = self.now + END;
        if self.rng.one_in(4) {
            self.run_until(self.now + Duration::from_secs(1), false);
            if !self.over {
                self.input(Input::StopAll);
            }
        }
        self.run_until(end, false);
        assert!(self.over, "it does not end: {:?}", self.plan.views());
        assert_eq!(self.plan.deadline(), None);
        self.model.check_all_answered();
    }

    fn check_view(&self, view: &View) {
        for process in view.stable.iter().chain(&view.candidate) {
            let truth = self.processes.get(&process.instance);
            let truth = truth.unwrap_or_else(|| panic!("{view:?} is not there"));
            assert_eq!(process.pid, truth.pid, "{view:?}");
        }
        if view.state == State::Ready {
            let stable = view.stable.as_ref().expect("it is ready");
            let known = self.model.known(stable.instance).expect("it was started");
            assert!(known.ready(self.now), "{view:?} is not: {known:?}");
        }
    }

    fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    fn soon(&mut self) -> Duration {
        self.up_to(Duration::from_millis(5))
    }

    fn up_to(&mut self, time: Duration) -> Duration {
        let micros = usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
        Duration::from_micros(self.rng.below(micros.max(1)) as u64)
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace(format!("{:?} {}", self.now, line()));
        }
    }
}

/// What a process is called between two masters.
fn between(pid: u32) -> u64 {
    u64::MAX - u64::from(pid)
}

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

fn services(rng: &mut Rng) -> Vec<Service> {
    let count = 1 + rng.below(5);
    let mut services: Vec<Service> = Vec::new();
    for name in &NAMES[..count] {
        let next = service(rng, name, &services);
        services.push(next);
    }
    services
}

/// A service that may need some of those before it.
fn service(rng: &mut Rng, name: &str, before: &[Service]) -> Service {
    let mut service = Service::new(name, Run::Command(vec![name.into()]));
    let seconds = |rng: &mut Rng, from: u64, to: usize| {
        Duration::from_millis(from * 1000 + rng.below(to * 1000) as u64)
    };
    service.restart = match rng.below(6) {
        0 => Restart::OnFailure,
        1 => Restart::Never,
        _ => Restart::Always,
    };
    service.stop.grace = seconds(rng, 0, 5);
    service.backoff.first = seconds(rng, 1, 3);
    service.backoff.max = seconds(rng, 5, 25);
    service.crash_loop.retry = seconds(rng, 10, 60);
    service.overdue = seconds(rng, 20, 60);
    if rng.one_in(3) {
        service.startup_timeout = Some(seconds(rng, 15, 30));
    }
    if rng.one_in(4) {
        service.on_orphan = OnOrphan::End;
    }
    if rng.one_in(3) && service.restart == Restart::Always {
        service.overlap = true;
        service.listen = vec![Listen::Unix(format!("/run/{name}").into())];
        service.recycle.memory = rng.one_in(2).then_some(1000);
    }
    let address = Listen::Unix(format!("/run/{name}").into());
    let probe = |rng: &mut Rng, phase| {
        let mut probe = Probe::new(phase, Check::Tcp(address.clone()));
        probe.failures = 1 + u32::try_from(rng.below(3)).unwrap_or_default();
        probe.successes = 1 + u32::try_from(rng.below(2)).unwrap_or_default();
        probe
    };
    if rng.one_in(4) {
        service.probes.startup.probes = vec![probe(rng, Phase::Startup)];
    }
    let ready = match rng.below(4) {
        0 => Vec::new(),
        1 => vec![Probe::new(Phase::Ready, Check::Notify)],
        2 => vec![probe(rng, Phase::Ready)],
        _ => vec![probe(rng, Phase::Ready), probe(rng, Phase::Ready)],
    };
    let match_ = *rng.pick(&[Match::All, Match::Any]);
    service.probes.ready = Checks { match_, probes: ready };
    if rng.one_in(3) {
        service.probes.live.probes = vec![probe(rng, Phase::Live)];
    }
    for other in before {
        if rng.one_in(3) {
            let until = match (other.restart, rng.below(3)) {
                (Restart::Always, 0) | (_, 1) => Until::Started,
                (Restart::Always, _) | (_, 2) => Until::Ready,
                _ => Until::Completed,
            };
            service.needs.push(Need { service: other.name.clone(), until });
        }
    }
    service
}

/// A finding of a service that is not ready.
fn not_ready(rng: &mut Rng) -> Finding {
    match rng.below(4) {
        0 => Finding::Refused,
        1 => Finding::Deaf,
        2 => Finding::Failed { words: "500".to_owned() },
        _ => {
            let progress = Some(Progress::Percent(u8::try_from(rng.below(101)).unwrap_or(100)));
            Finding::Starting { progress, words: String::new() }
        }
    }
}

/// The answer that a command got.
fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(_))
}
