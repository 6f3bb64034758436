//! What may come of what the plan is told. It shares no code with the plan, and knows no timers of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bowline_fleet::{
    plan::{Command, End, Input, Instance, Orphan, Outcome, Plan, State, Token, Variant, Word},
    probe::Finding,
    spec::{Check, Match, Phase, Probe, Restart, Service, Until},
};
use bowline_proto::Time;

use super::{is_done, truth::Process};

/// How long after a stop something of a service may be left: a start under way, the longest grace, and what hangs in
/// the kernel.
const STOPPED: Duration = Duration::from_secs(45);

/// How long a service may not run though it could, over its own pauses: timers are late, and what was heard is not
/// what is.
const LATE: Duration = Duration::from_millis(100);

/// How long a service without checks must live.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Model {
    services: BTreeMap<String, Known>,
    processes: BTreeMap<Instance, Watched>,
    questions: BTreeMap<Token, Question>,
    halt: u32,
    halted: Vec<Instance>,
}

/// What is known of a service.
#[derive(Debug)]
struct Known {
    spec: Service,
    wanted: bool,
    removed: bool,
    completed: bool,
    /// It is not to be started again, whatever it was.
    dead: bool,
    /// Its starts since somebody last did something about it.
    starts: VecDeque<Time>,
    /// Since when it could run and does not.
    idle: Option<Time>,
    stopped: Option<Time>,
}

/// What is known of a process.
#[derive(Debug)]
pub(super) struct Watched {
    service: String,
    spec: Arc<Service>,
    pub(super) variant: Variant,
    started: Option<Time>,
    before: Duration,
    exited: bool,
    told: bool,
    killed: Option<Time>,
    /// Another one is to follow it, whatever its end is.
    renewed: bool,
    up: bool,
    startup: Vec<Counted>,
    ready: Vec<Counted>,
}

#[derive(Debug)]
struct Counted {
    probe: Probe,
    passing: bool,
    successes: u32,
    failures: u32,
}

#[derive(Debug)]
struct Question {
    service: String,
    command: Command,
    /// What was there when it was asked.
    before: Vec<Instance>,
    candidate: Option<Instance>,
}

impl Watched {
    fn new(service: &Arc<Service>, variant: Variant) -> Self {
        let counted = |probes: &[Probe]| {
            let probes = probes.iter().cloned();
            let new = |probe| Counted { probe, passing: false, successes: 0, failures: 0 };
            probes.map(new).collect::<Vec<_>>()
        };
        Self {
            service: service.name.clone(),
            spec: Arc::clone(service),
            variant,
            started: None,
            before: Duration::ZERO,
            exited: false,
            told: false,
            killed: None,
            renewed: false,
            up: service.probes.startup.probes.is_empty(),
            startup: counted(&service.probes.startup.probes),
            ready: counted(&service.probes.ready.probes),
        }
    }

    /// Whether its checks pass.
    pub(super) fn ready(&self, now: Time) -> bool {
        let Some(started) = self.started.filter(|_| !self.exited && !self.told) else {
            return false;
        };
        if self.startup.is_empty() && self.ready.is_empty() {
            return started + SETTLE.saturating_sub(self.before) <= now;
        }
        self.up && passes(self.spec.probes.ready.match_, &self.ready)
    }

    fn on_probed(&mut self, phase: Phase, index: usize, finding: &Finding) {
        if phase == Phase::Ready && !self.up || phase == Phase::Startup && self.up {
            return;
        }
        let checks = match phase {
            Phase::Startup => &mut self.startup,
            Phase::Ready => &mut self.ready,
            Phase::Live => return,
        };
        let Some(check) = checks.get_mut(index) else { return };
        if *finding == Finding::Ready {
            check.failures = 0;
            check.successes += 1;
            check.passing |= check.successes >= check.probe.successes;
        } else {
            check.successes = 0;
            check.failures += 1;
            check.passing &= check.failures < check.probe.failures;
        }
        self.up |= passes(self.spec.probes.startup.match_, &self.startup);
    }
}

fn passes(match_: Match, checks: &[Counted]) -> bool {
    match match_ {
        Match::All => checks.iter().all(|check| check.passing),
        Match::Any => checks.is_empty() || checks.iter().any(|check| check.passing),
    }
}

impl Known {
    fn new(spec: &Service) -> Self {
        Self {
            spec: spec.clone(),
            wanted: true,
            removed: false,
            completed: false,
            dead: false,
            starts: VecDeque::new(),
            idle: None,
            stopped: None,
        }
    }

    /// Somebody has done something about it.
    fn forgive(&mut self) {
        self.starts.clear();
        self.completed = false;
        self.dead = false;
    }
}

impl Model {
    /// Another master begins.
    pub(super) fn begin(&mut self, services: &[Service]) {
        *self = Self::default();
        self.services = services.iter().map(|spec| (spec.name.clone(), Known::new(spec))).collect();
    }

    pub(super) fn known(&self, instance: Instance) -> Option<&Watched> {
        self.processes.get(&instance)
    }

    pub(super) fn is_wanted(&self, service: &str) -> bool {
        self.services.get(service).is_some_and(|known| known.wanted && !known.removed)
    }

    /// The plan is told something.
    pub(super) fn on_input(&mut self, now: Time, input: &Input) {
        match input {
            Input::Begin { .. } | Input::Measured { .. } | Input::Timeout => {}
            Input::Configure { services } => self.on_configured(services),
            Input::Started { instance, .. } => {
                if let Some(process) = self.processes.get_mut(instance) {
                    process.started = Some(now);
                }
            }
            Input::NotStarted { instance, .. } => self.on_not_started(*instance),
            Input::Exited { instance, end, .. } => {
                let Some(process) = self.processes.get_mut(instance) else { return };
                process.exited = true;
                if !process.told && !process.renewed && process.variant == Variant::Stable {
                    self.note_end(*instance, *end);
                }
            }
            Input::Gone { instance } => {
                self.processes.remove(instance);
            }
            Input::Probed { instance, phase, index, seen } => {
                if let Some(process) = self.processes.get_mut(instance) {
                    process.on_probed(*phase, *index, &seen.finding);
                }
            }
            Input::Logged { .. } => {}
            Input::Notified { instance, word } => {
                let Some(process) = self.processes.get_mut(instance) else { return };
                for check in &mut process.ready {
                    if check.probe.check == Check::Notify {
                        check.passing = *word == Word::Ready;
                    }
                }
            }
            Input::Asked { service, command, token } => {
                self.on_asked(now, service, *command, *token)
            }
            Input::StopAll => {
                self.halt += 1;
                self.halted = self.processes.keys().copied().collect();
            }
        }
    }

    fn on_configured(&mut self, services: &[Service]) {
        for (name, known) in &mut self.services {
            let next = services.iter().find(|service| service.name == *name);
            let Some(next) = next else {
                known.removed = true;
                known.wanted = true;
                continue;
            };
            if known.spec != *next {
                // What is done need not be done again for a longer grace.
                let completed = known.completed && known.spec.same_process(next);
                known.forgive();
                known.completed = completed;
            }
            known.removed = false;
            known.spec = next.clone();
            known.idle = None;
        }
        for process in self.processes.values_mut() {
            let next = services.iter().find(|service| service.name == process.service);
            process.renewed |= next.is_some_and(|next| !next.same_process(&process.spec));
        }
        for service in services {
            self.services.entry(service.name.clone()).or_insert_with(|| Known::new(service));
        }
    }

    /// The stable process of a service ended by itself.
    fn note_end(&mut self, instance: Instance, end: End) {
        let Some(name) = self.processes.get(&instance).map(|process| process.service.clone())
        else {
            return;
        };
        let Some(known) = self.services.get_mut(&name) else { return };
        let success = end == End::Code(0);
        match known.spec.restart {
            Restart::Always => {}
            Restart::OnFailure => known.completed = success,
            Restart::Never => (known.completed, known.dead) = (success, !success),
        }
    }

    fn on_not_started(&mut self, instance: Instance) {
        let Some(process) = self.processes.remove(&instance) else { return };
        let Some(known) = self.services.get_mut(&process.service) else { return };
        if known.spec.restart == Restart::Never && !process.renewed {
            known.dead = true;
        }
    }

    fn on_asked(&mut self, now: Time, service: &str, command: Command, token: Token) {
        let of = |process: &&Instance| self.processes[*process].service == service;
        let before = self.processes.keys().filter(of).copied().collect();
        let candidate = self.processes.iter().find(|(_, process)| {
            process.service == service && process.variant == Variant::Candidate
        });
        let candidate = candidate.map(|(instance, _)| *instance);
        let renew = command == Command::Restart;
        for process in self.processes.values_mut().filter(|process| process.service == service) {
            process.renewed |= renew || command == Command::Start && process.exited;
        }
        let service = service.to_owned();
        let question = Question { service: service.clone(), command, before, candidate };
        let asked = self.questions.insert(token, question);
        assert!(asked.is_none());
        let mut all = vec![service];
        if command == Command::Stop {
            if let Some(known) = self.services.get_mut(&all[0]) {
                known.wanted = false;
                known.stopped = Some(now);
                known.completed = false;
            }
            return;
        }
        if self.halt > 0 {
            return;
        }
        let mut next = 0;
        while let Some(known) = all.get(next).and_then(|name| self.services.get_mut(name)) {
            if next == 0 || !known.wanted {
                known.wanted = true;
                known.stopped = None;
                known.idle = None;
                known.forgive();
            }
            next += 1;
            for need in &known.spec.needs {
                if !all.contains(&need.service) {
                    all.push(need.service.clone());
                }
            }
        }
    }

    fn meets(&self, now: Time, need: &str, until: Until) -> bool {
        let completed = self.services.get(need).is_some_and(|known| known.completed);
        let stable = self.processes.values().find(|process| {
            process.service == need && process.variant == Variant::Stable && !process.told
        });
        let gone = !self.processes.values().any(|process| process.service == need);
        match (until, stable) {
            (Until::Started, Some(process)) => process.started.is_some() && !process.exited,
            (Until::Ready, Some(process)) => process.ready(now),
            _ => completed && gone,
        }
    }

    fn needs_are_met(&self, now: Time, spec: &Service) -> bool {
        spec.needs.iter().all(|need| self.meets(now, &need.service, need.until))
    }

    /// The plan starts something.
    pub(super) fn on_start(
        &mut self,
        now: Time,
        instance: Instance,
        service: &Arc<Service>,
        variant: Variant,
        truth: &BTreeMap<Instance, Process>,
    ) {
        let name = &service.name;
        let others: Vec<_> = truth.values().filter(|other| other.service.name == *name).collect();
        match variant {
            Variant::Stable => assert!(others.is_empty(), "{name} starts beside {others:?}"),
            Variant::Candidate => {
                assert!(service.overlap && others.len() == 1, "{name} starts beside {others:?}");
            }
        }
        assert!(self.halt == 0, "{name} starts though everything is being stopped");
        let known = self.services.get(name).unwrap_or_else(|| panic!("{name} is no service"));
        assert!(known.wanted && !known.removed, "{name} starts though it was stopped");
        assert!(!known.dead, "{name} starts though it is not to be started again");
        assert_eq!(known.spec, **service, "{name} starts from an old configuration");
        if variant == Variant::Stable {
            let met = self.needs_are_met(now, service);
            assert!(met, "{name} starts before what it needs: {:?}", service.needs);
        }
        self.processes.insert(instance, Watched::new(service, variant));
        self.count_start(now, name);
    }

    /// A service is not started more often than its crash loop allows.
    fn count_start(&mut self, now: Time, name: &str) {
        let Some(known) = self.services.get_mut(name) else { return };
        known.completed = false;
        known.starts.push_back(now);
        let within = known.spec.crash_loop.within;
        known.starts.retain(|start| *start + within > now);
        let slow = within.as_secs() / known.spec.crash_loop.retry.as_secs().max(1);
        let recycled = u64::from(known.spec.recycle.memory.is_some());
        let most = u64::from(known.spec.crash_loop.deaths) + slow + 2 * recycled + 2;
        let starts = known.starts.len() as u64;
        assert!(starts <= most, "{name} was started {starts} times within a minute");
    }

    pub(super) fn on_adopt(
        &mut self,
        now: Time,
        instance: Instance,
        service: &Arc<Service>,
        orphan: &Orphan,
        end: bool,
    ) {
        let mut process = Watched::new(service, Variant::Stable);
        process.started = Some(now);
        process.before = orphan.age;
        process.up |= orphan.ready;
        for check in &mut process.ready {
            check.passing = orphan.ready && check.probe.check == Check::Notify;
        }
        if end {
            process.variant = orphan.variant;
        }
        self.processes.insert(instance, process);
    }

    pub(super) fn on_adjust(&mut self, instance: Instance, service: &Arc<Service>) {
        if let Some(process) = self.processes.get_mut(&instance) {
            process.spec = Arc::clone(service);
        }
    }

    pub(super) fn on_promote(&mut self, now: Time, instance: Instance) {
        let name = self.processes[&instance].service.clone();
        let ready = self.processes[&instance].ready(now);
        for (other, process) in &mut self.processes {
            if *other == instance {
                process.variant = Variant::Stable;
            } else if process.service == name && process.variant == Variant::Stable {
                let lost = process.exited || process.told;
                assert!(ready || lost, "{name}: a candidate takes over that is not ready");
                process.variant = Variant::Candidate;
            }
        }
    }

    /// Only what is there is asked.
    pub(super) fn on_probe(&self, instance: Instance) {
        let process = &self.processes[&instance];
        assert!(process.started.is_some() && !process.exited && !process.told);
    }

    pub(super) fn on_signal(&mut self, instance: Instance, truth: &BTreeMap<Instance, Process>) {
        self.check_order(instance, truth);
        let process = self.processes.get_mut(&instance).expect("only what is there is signalled");
        assert!(process.started.is_some(), "{instance:?} is signalled before it is there");
        assert!(!process.told, "{instance:?} is told twice");
        process.told = true;
    }

    pub(super) fn on_kill(
        &mut self,
        now: Time,
        instance: Instance,
        truth: &BTreeMap<Instance, Process>,
    ) {
        self.check_order(instance, truth);
        let process = self.processes.get_mut(&instance).expect("only what is there is killed");
        assert!(process.started.is_some(), "{instance:?} is killed before it is there");
        process.told = true;
        process.killed.get_or_insert(now);
    }

    /// When everything is stopped, those that need others go first.
    fn check_order(&self, instance: Instance, truth: &BTreeMap<Instance, Process>) {
        let Some(process) = self.processes.get(&instance) else { return };
        let own = process.told || process.exited || process.variant == Variant::Candidate;
        let known = self.services.get(&process.service);
        let asked = known.is_none_or(|known| !known.wanted || known.removed);
        // What was about to start may have been about to end as well.
        let late = !self.halted.contains(&instance) || process.started.is_none();
        if self.halt != 1 || own || asked || late {
            return;
        }
        for other in truth.values() {
            let needs = self.services.get(&other.service.name).is_some_and(|known| {
                known.spec.needs.iter().any(|need| need.service == process.service)
            });
            let stuck = other.nature.stuck;
            assert!(!needs || stuck, "{} ends before {other:?}", process.service);
        }
    }

    pub(super) fn on_answer(
        &mut self,
        now: Time,
        token: Token,
        outcome: &Outcome,
        truth: &BTreeMap<Instance, Process>,
    ) {
        let Some(question) = self.questions.remove(&token) else {
            panic!("{token:?} is answered twice, or was never asked")
        };
        if !is_done(outcome) {
            return;
        }
        let Question { service, command, before, candidate } = question;
        let stable = self.processes.iter().find(|(_, process)| {
            process.service == service && process.variant == Variant::Stable && !process.told
        });
        let ready = stable.filter(|(_, process)| process.ready(now)).map(|(it, _)| *it);
        let completed = self.services.get(&service).is_some_and(|known| known.completed);
        match command {
            Command::Stop => {
                let left: Vec<_> = truth.values().filter(|it| it.service.name == service).collect();
                assert!(left.is_empty(), "{service} is said to be stopped: {left:?}");
            }
            Command::Start => assert!(ready.is_some() || completed, "{service} is not ready"),
            Command::Restart => {
                let new = ready.is_some_and(|it| !before.contains(&it) || candidate == Some(it));
                assert!(new || completed, "{service} is not ready anew");
            }
        }
    }

    /// What could run does so before long, and what was stopped ends.
    pub(super) fn check_idle(&mut self, now: Time, truth: &BTreeMap<Instance, Process>) {
        if self.halt > 0 {
            return;
        }
        let free = |(name, known): (&String, &Known)| {
            if truth.values().any(|process| process.service.name == *name) {
                let stopped = known.stopped.filter(|_| !known.wanted);
                let late = stopped.is_some_and(|at| at + STOPPED < now);
                assert!(!late, "something of {name} is left long after it was stopped");
                return false;
            }
            // What is never started again may have been ended for its checks.
            let may = known.wanted && !known.removed && known.spec.restart != Restart::Never;
            may && !known.completed && !known.dead && self.needs_are_met(now, &known.spec)
        };
        let free: Vec<bool> = self.services.iter().map(free).collect();
        for ((name, known), free) in self.services.iter_mut().zip(free) {
            if !free {
                known.idle = None;
                continue;
            }
            let pause = known.spec.backoff.max.max(known.spec.crash_loop.retry);
            let since = *known.idle.get_or_insert(now);
            assert!(since + pause + LATE >= now, "{name} could run since {since:?} and does not");
        }
    }

    /// Who still waits does so for something that may come.
    pub(super) fn check_answers(&self, plan: &Plan) {
        for question in self.questions.values() {
            let state = plan.view(&question.service).map(|view| view.state);
            let waits = matches!(state, Some(State::Waiting));
            assert!(waits, "{question:?} is not answered: {state:?}");
        }
    }

    pub(super) fn check_all_answered(&self) {
        assert!(self.questions.is_empty(), "{:?} are not answered", self.questions);
    }
}
