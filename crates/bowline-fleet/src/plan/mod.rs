//! Decides what is done with the services: one input, then the outputs it leads to. It knows no process, no socket,
//! no clock and no chance; all of them arrive as inputs.
//!
//! ```text
//!   Waiting ── what it needs has come far enough ──▶ Starting ── its checks pass ──▶ Ready
//!   Starting ── no progress for `overdue` ──▶ NotReady        Ready ◀── checks ──▶ NotReady
//!   Starting, Ready, NotReady ── its leader ends, or is made to ──▶ Stopping
//!   Stopping ── nothing is left ──▶ Stopped, Completed, BackingOff, CrashLoop, or Waiting for a restart
//!   Starting ── it cannot be made a process ──▶ Failed
//!   BackingOff, CrashLoop, Failed ── after a pause ──▶ Waiting
//! ```
//!
//! Each start of a process is an [`Instance`], and what is said of one that is gone changes nothing. A service has one
//! instance, or two of which one is the candidate that is to follow the other (`overlap`), and none is started while
//! anything of another one is left. What needs others starts after them; it goes on when they die, and says so.
//!
//! A stop wins over everything that is under way. It is a signal to the group, a grace, then a kill of the group and
//! of all descendants, again until none is left; after [`KILL_PATIENCE`](crate::limit::KILL_PATIENCE) it is said that
//! something does not end: whoever asked for the stop is told so, and the end of everything does not wait for it.
//!
//! `checks` counts what checks say, `process` is one instance from the wish to the last descendant, `unit` a service
//! with all that it remembers, `view` what others may know. The law of the crate: one input, all its outputs, then
//! [`Plan::deadline`] again.

mod checks;
mod process;
#[cfg(test)]
mod tests;
mod unit;
mod view;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use bowline_proto::Time;

use crate::{
    probe::{Progress, Seen},
    spec::{Need, Phase, Probe, Run, Service, Signal, Until},
};
use unit::{Halt, Turn, Unit};
pub use view::{Awaited, Checked, Ended, NeedView, ProcessView, Reason, State, View};

/// One start of a service: unique as long as the plan lives. A promotion does not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u64);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which of the two that one service may have side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// The one that counts.
    Stable,
    /// The one that is to follow it.
    Candidate,
}

impl Variant {
    /// The word of records, environments and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Candidate => "candidate",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The first of all inputs: these services are to run. They passed [`spec::check`](crate::spec::check).
    Begin {
        /// All of them.
        services: Vec<Service>,
        /// What a dead master left behind and still runs.
        orphans: Vec<Orphan>,
    },
    /// From now on these services are to run, and no others. They passed [`spec::check`](crate::spec::check).
    Configure {
        /// All of them.
        services: Vec<Service>,
    },
    /// What [`Output::Start`] asked for is a process.
    Started {
        /// Which start.
        instance: Instance,
        /// Its process id.
        pid: u32,
        /// What was chosen to run it and why, in words.
        interpreter: Option<String>,
    },
    /// It could not be made one, and nothing of it runs.
    NotStarted {
        /// Which start.
        instance: Instance,
        /// Why: as it follows "could not be started: ".
        words: String,
        /// Whether it will be the same the next time: a wrong interpreter, a missing file.
        lasting: bool,
    },
    /// The leader has ended. [`Input::Gone`] follows, at once if it left nothing behind.
    Exited {
        /// Which start.
        instance: Instance,
        /// How.
        end: End,
        /// The last lines it printed, oldest first. At most [`LAST_LINES`](crate::limit::LAST_LINES).
        lines: Vec<String>,
    },
    /// The leader has ended, and its process group and its descendants are gone.
    Gone {
        /// Which start.
        instance: Instance,
    },
    /// What [`Output::Probe`] asked for.
    Probed {
        /// Which start.
        instance: Instance,
        /// Which phase.
        phase: Phase,
        /// Which of its checks.
        index: usize,
        /// What came of it.
        seen: Seen,
    },
    /// A line that it printed matches the pattern of a `log` check.
    Logged {
        /// Which start.
        instance: Instance,
        /// Which phase.
        phase: Phase,
        /// Which of its checks.
        index: usize,
    },
    /// It said something on the notify socket.
    Notified {
        /// Which start.
        instance: Instance,
        /// What.
        word: Word,
    },
    /// Somebody wants something. One [`Output::Answer`] follows, now or later.
    Asked {
        /// The service.
        service: String,
        /// What is wanted.
        command: Command,
        /// What the answer will carry.
        token: Token,
    },
    /// What it uses. Only asked of services with [`Service::recycle`]; each value may be missing.
    Measured {
        /// Which start.
        instance: Instance,
        /// Bytes of memory of it and its descendants.
        memory: Option<u64>,
        /// Requests that it has been passed since its start.
        requests: Option<u64>,
    },
    /// Everything is to end, for good. [`Output::Over`] follows.
    StopAll,
    /// The deadline that [`Plan::deadline`] names may have come.
    Timeout,
}

/// Chance that comes with every input: 64 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance(pub u64);

/// What a dead master left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The service it was started for.
    pub service: String,
    /// As what.
    pub variant: Variant,
    /// Its process id.
    pub pid: u32,
    /// What it carries in `BOWLINE_SERVICE_ID`.
    pub identity: String,
    /// What [`Service::fingerprint`] was when it was started.
    pub fingerprint: u64,
    /// How long it has run.
    pub age: Duration,
    /// Whether it was ready when its master last wrote it down ([`ProcessView::ready`]): what it said once, it does
    /// not say again.
    pub ready: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody could see: it was not this master's child.
    Unknown,
}

impl End {
    /// Whether all was well.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("ended, nobody saw how"),
        }
    }
}

/// What a service says of itself (`sd_notify`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// `READY=1`.
    Ready,
    /// `STATUS=`.
    Status(String),
    /// `EXTEND_TIMEOUT_USEC=`: it needs so long from now.
    Extend(Duration),
    /// How far it is: `X_BOWLINE_PROGRESS=`, or a percentage in `STATUS=`.
    Progress(Progress),
    /// `STOPPING=1`.
    Stopping,
    /// `WATCHDOG=1`.
    Watchdog,
}

/// What somebody wants of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// That it runs, and what it needs too.
    Start,
    /// That it does not, until somebody wants it to.
    Stop,
    /// That it runs anew.
    Restart,
}

/// Names a question of the shell's, so that the answer finds its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done: the service is ready, completed, or stopped. In words, such as "ready after 3 attempts".
    Done(String),
    /// It is not, and why. What is planned goes on: a service that crashed is tried again.
    Failed(String),
    /// There is no such service.
    Unknown,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Start it; [`Input::Started`] or [`Input::NotStarted`] follows.
    Start {
        /// This start.
        instance: Instance,
        /// What to start.
        service: Arc<Service>,
        /// As what.
        variant: Variant,
        /// The how-manieth start in a row without success: 1, 2, …
        attempt: u32,
    },
    /// Watch what a dead master left behind as if it had been started here. If it is gone meanwhile,
    /// [`Input::Exited`] with [`End::Unknown`] follows.
    Adopt {
        /// What it is called from now on.
        instance: Instance,
        /// What it is.
        service: Arc<Service>,
        /// What was found.
        orphan: Orphan,
        /// Whether it is only adopted to be ended, with [`Output::Signal`].
        end: bool,
    },
    /// From now on this is what it was started from, though not all of it was so when it was: its logs and `log`
    /// checks may have changed.
    Adjust {
        /// Which start.
        instance: Instance,
        /// What it is now.
        service: Arc<Service>,
    },
    /// The candidate is the stable one from now on; no other start of the service is.
    Promote {
        /// Which start.
        instance: Instance,
    },
    /// Send a signal to its process group.
    Signal {
        /// Which start.
        instance: Instance,
        /// What.
        signal: Signal,
    },
    /// Kill its process group and all of its descendants, those that left the group too, until none is left or a
    /// second has passed. [`Input::Gone`] follows when none is left.
    Kill {
        /// Which start.
        instance: Instance,
    },
    /// Make this check once, now; [`Input::Probed`] follows.
    Probe {
        /// Which start.
        instance: Instance,
        /// Which phase.
        phase: Phase,
        /// Which of its checks.
        index: usize,
        /// The check. Never one that is heard, such as `log` and `notify`.
        probe: Probe,
    },
    /// The answer to a command.
    Answer {
        /// Whose.
        token: Token,
        /// What.
        outcome: Outcome,
    },
    /// Something that operators should read.
    Log(Line),
    /// Something about a service has changed that is worth telling.
    Changed(Box<View>),
    /// This service is not one any more.
    Removed {
        /// Its name.
        service: String,
    },
    /// All are stopped, and nothing follows.
    Over {
        /// The services of which something did not end.
        left: Vec<String>,
    },
}

/// What operators should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The service.
    pub service: String,
    /// How much it matters.
    pub level: Level,
    /// What happened, without the name of the service.
    pub words: String,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warn,
    /// Somebody must act.
    Error,
}

/// How far a service has come, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reached {
    state: State,
    /// Whether it is a process.
    started: bool,
    /// Whether there is nothing that could still end.
    spent: bool,
}

impl Reached {
    fn meets(self, until: Until) -> bool {
        match (self.state, until) {
            (State::Completed, _) | (State::Ready, Until::Started | Until::Ready) => true,
            (_, Until::Started) => self.started,
            (State::Starting, Until::Ready) if cfg!(bowline_broken = "need-not-ready") => true,
            (_, Until::Ready | Until::Completed) => false,
        }
    }
}

/// The state of all services.
#[derive(Debug, Default)]
pub struct Plan {
    units: BTreeMap<String, Unit>,
    /// The last start there was.
    next: u64,
    halt: Halt,
    over: bool,
}

impl Plan {
    /// A plan that waits for [`Input::Begin`].
    pub fn new() -> Self {
        Self::default()
    }

    /// When [`Input::Timeout`] is due.
    pub fn deadline(&self) -> Option<Time> {
        if self.over {
            return None;
        }
        self.units.values().filter_map(Unit::deadline).min()
    }

    /// Takes one input and says what is to be done, in order.
    pub fn handle_input(&mut self, now: Time, chance: Chance, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.over {
            if let Input::Asked { token, .. } = input {
                out.push(Output::Answer { token, outcome: Outcome::Unknown });
            }
            return out;
        }
        let Self { units, next, halt, .. } = self;
        let mut turn = Turn { now, chance: chance.0, next, out: &mut out, halt: *halt };
        let mut touched = Vec::new();
        match input {
            Input::Begin { services, orphans } => {
                begin(units, &mut turn, services, orphans);
                touched = units.keys().cloned().collect();
            }
            Input::Configure { services } => {
                configure(units, &mut turn, services);
                touched = units.keys().cloned().collect();
            }
            Input::StopAll => {
                *halt = if *halt == Halt::No { Halt::InOrder } else { Halt::Now };
                turn.halt = *halt;
                units.values_mut().for_each(|unit| unit.on_halted(&mut turn));
                touched = units.keys().cloned().collect();
            }
            Input::Timeout => {
                for (name, unit) in units {
                    if unit.deadline().is_some_and(|at| at <= now) {
                        unit.on_timeout(&mut turn);
                        touched.push(name.clone());
                    }
                }
            }
            Input::Asked { service, command, token } => {
                touched = ask(units, &mut turn, service, command, token);
            }
            Input::Started { instance, pid, interpreter } => {
                let words = interpreter.map(words::bounded);
                with(units, instance, &mut touched, |unit| {
                    unit.on_started(&mut turn, instance, pid, words);
                });
            }
            Input::NotStarted { instance, words, lasting } => {
                with(units, instance, &mut touched, |unit| {
                    unit.on_not_started(&mut turn, instance, words, lasting);
                });
            }
            Input::Exited { instance, end, lines } => {
                with(units, instance, &mut touched, |unit| {
                    unit.on_exited(&mut turn, instance, end, lines);
                });
            }
            Input::Gone { instance } => {
                with(units, instance, &mut touched, |unit| unit.on_gone(&mut turn, instance));
            }
            Input::Probed { instance, phase, index, seen } => {
                with(units, instance, &mut touched, |unit| {
                    unit.with(&mut turn, instance, |it| it.on_probed(now, phase, index, seen));
                });
            }
            Input::Logged { instance, phase, index } => {
                with(units, instance, &mut touched, |unit| {
                    unit.with(&mut turn, instance, |it| it.panel.handle_logged(now, phase, index));
                });
            }
            Input::Notified { instance, word } => {
                with(units, instance, &mut touched, |unit| {
                    unit.with(&mut turn, instance, |it| it.on_word(now, word));
                });
            }
            Input::Measured { instance, memory, requests } => {
                with(units, instance, &mut touched, |unit| {
                    unit.on_measured(&mut turn, instance, memory, requests);
                });
            }
        }
        self.settle(now, chance, touched, &mut out);
        out
    }

    /// What is so, of all services by name.
    pub fn views(&self) -> Vec<View> {
        self.units.values().map(Unit::view).collect()
    }

    /// What is so of one service.
    pub fn view(&self, service: &str) -> Option<View> {
        self.units.get(service).map(Unit::view)
    }

    /// Lets the services that were touched do what they can, and those that look at them, until nothing changes.
    fn settle(&mut self, now: Time, chance: Chance, touched: Vec<String>, out: &mut Vec<Output>) {
        let mut waited = BTreeSet::new();
        let mut queue = VecDeque::from(touched);
        while let Some(name) = queue.pop_front() {
            let needs = self.needs_of(&name);
            let after = self.held_by(&name);
            let Some(unit) = self.units.get_mut(&name) else { continue };
            let halt = self.halt;
            let mut turn = Turn { now, chance: chance.0, next: &mut self.next, out, halt };
            unit.advance(&mut turn, needs, after);
            if unit.has_waiters() {
                waited.insert(name.clone());
            }
            let reached = unit.reached();
            let shown = unit.shown.replace(reached);
            let gone = unit.removed && unit.is_gone();
            if gone {
                unit.answer(&mut turn);
            }
            if gone || shown != Some(reached) {
                queue.extend(self.neighbours(&name));
            }
            if gone {
                self.units.remove(&name);
                out.push(Output::Removed { service: name });
            }
        }
        let halt = self.halt;
        for name in waited {
            let mut turn = Turn { now, chance: chance.0, next: &mut self.next, out, halt };
            if let Some(unit) = self.units.get_mut(&name) {
                unit.answer(&mut turn);
            }
        }
        if self.halt != Halt::No && self.units.values().all(Unit::is_spent) {
            self.over = true;
            for unit in self.units.values_mut() {
                let mut turn = Turn { now, chance: chance.0, next: &mut self.next, out, halt };
                unit.on_over(&mut turn);
            }
            let left = self.units.iter().filter(|(_, unit)| !unit.is_gone());
            out.push(Output::Over { left: left.map(|(name, _)| name.clone()).collect() });
        }
    }

    fn needs_of(&self, name: &str) -> Vec<NeedView> {
        let needs = self.units.get(name).map(|unit| &*unit.spec.needs).unwrap_or_default();
        let view = |need: &Need| {
            let reached = self.units.get(&need.service).map(Unit::reached);
            let state = reached.map_or(State::Stopped, |reached| reached.state);
            let met = reached.is_some_and(|reached| reached.meets(need.until));
            NeedView { service: need.service.clone(), state, met }
        };
        needs.iter().map(view).collect()
    }

    /// What has to end before this service may: whatever needs it and is to end as well.
    fn held_by(&self, name: &str) -> Option<String> {
        let unit = self.units.get(name)?;
        let all = self.halt != Halt::No;
        if !all && !unit.removed {
            return None;
        }
        let holds = |(_, unit): &(&String, &Unit)| {
            (all || unit.removed) && needs(unit, name) && !unit.is_spent()
        };
        self.units.iter().find(holds).map(|(name, _)| name.clone())
    }

    /// Those that need this service, and those that it needs.
    fn neighbours(&self, name: &str) -> Vec<String> {
        let below = self.units.get(name).map(|unit| &*unit.spec.needs).unwrap_or_default();
        let below = below.iter().map(|need| need.service.clone());
        let above = self.units.iter().filter(|(_, unit)| needs(unit, name));
        below.chain(above.map(|(name, _)| name.clone())).collect()
    }
}

fn needs(unit: &Unit, name: &str) -> bool {
    unit.spec.needs.iter().any(|need| need.service == name)
}

fn begin(
    units: &mut BTreeMap<String, Unit>,
    turn: &mut Turn<'_>,
    services: Vec<Service>,
    mut orphans: Vec<Orphan>,
) {
    for service in services {
        units.insert(service.name.clone(), Unit::new(turn.now, service));
    }
    // The youngest of the stable ones is what its service was.
    orphans.sort_by_key(|orphan| (orphan.variant, orphan.age));
    for orphan in orphans {
        let unit = units.entry(orphan.service.clone()).or_insert_with(|| {
            let nothing = Service::new(orphan.service.clone(), Run::Command(Vec::new()));
            let mut unit = Unit::new(turn.now, nothing);
            unit.removed = true;
            unit
        });
        unit.on_orphan(turn, orphan);
    }
}

fn configure(units: &mut BTreeMap<String, Unit>, turn: &mut Turn<'_>, services: Vec<Service>) {
    let mut services: BTreeMap<String, Service> =
        services.into_iter().map(|service| (service.name.clone(), service)).collect();
    for (name, unit) in &mut *units {
        match services.remove(name) {
            Some(service) => unit.on_configured(turn, service),
            None if unit.removed => {}
            None => unit.on_removed(turn),
        }
    }
    for (name, service) in services {
        units.insert(name, Unit::new(turn.now, service));
    }
}

/// Asks one service, and for a start those that it needs too. Returns all of them.
fn ask(
    units: &mut BTreeMap<String, Unit>,
    turn: &mut Turn<'_>,
    service: String,
    command: Command,
    token: Token,
) -> Vec<String> {
    let Some(unit) = units.get_mut(&service) else {
        turn.out.push(Output::Answer { token, outcome: Outcome::Unknown });
        return Vec::new();
    };
    unit.on_asked(turn, command, token);
    let mut touched = vec![service];
    if command == Command::Stop || turn.halt != Halt::No {
        return touched;
    }
    let mut next = 0;
    while let Some(name) = touched.get(next) {
        next += 1;
        let Some(unit) = units.get(name) else { continue };
        let more: Vec<String> = unit.spec.needs.iter().map(|need| need.service.clone()).collect();
        for name in more {
            if touched.contains(&name) {
                continue;
            }
            if let Some(unit) = units.get_mut(&name).filter(|unit| unit.stopped) {
                unit.start();
            }
            touched.push(name);
        }
    }
    touched
}

/// Finds the service of a process.
fn with(
    units: &mut BTreeMap<String, Unit>,
    instance: Instance,
    touched: &mut Vec<String>,
    act: impl FnOnce(&mut Unit),
) {
    if let Some((name, unit)) = units.iter_mut().find(|(_, unit)| unit.has(instance)) {
        act(unit);
        touched.push(name.clone());
    }
}

/// A number from 0 to 1, from the bits that came with an input and something of one's own.
fn mixed(chance: u64, salt: u64) -> f64 {
    // The last step of splitmix64.
    let mut bits = chance ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
