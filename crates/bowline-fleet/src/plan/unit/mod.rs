//! One service: its processes, and what follows when something becomes of them.

mod told;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bowline_proto::Time;

use super::{
    Command, End, Instance, Level, Line, Orphan, Outcome, Output, Reached, Token, Variant, mixed,
    process::{Event, Process, Why},
    view::{Ended, NeedView, Reason, State, View},
    words::{Lasting, bounded},
};
use crate::{
    limit,
    spec::{OnOrphan, Restart, Service},
};

/// What every step of a unit needs.
pub(super) struct Turn<'a> {
    pub(super) now: Time,
    pub(super) chance: u64,
    pub(super) next: &'a mut u64,
    pub(super) out: &'a mut Vec<Output>,
    pub(super) halt: Halt,
}

/// Whether everything is to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Halt {
    #[default]
    No,
    /// Those that need others first.
    InOrder,
    /// At once.
    Now,
}

impl Turn<'_> {
    fn instance(&mut self) -> Instance {
        *self.next += 1;
        Instance(*self.next)
    }
}

/// A service.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) spec: Arc<Service>,
    /// Whether somebody stopped it.
    pub(super) stopped: bool,
    /// Whether it is no service any more.
    pub(super) removed: bool,
    stable: Option<Process>,
    candidate: Option<Process>,
    /// What is ending, while another one may run.
    strays: Vec<Process>,
    rest: Rest,
    /// Why it is to be started anew.
    pending: Option<Reason>,
    /// Its deaths within the time of [`CrashLoop`](crate::spec::CrashLoop).
    deaths: VecDeque<Time>,
    /// Its deaths in a row, for the pause that grows.
    failures: u32,
    /// It is in a crash loop.
    crashing: bool,
    /// Why it could not be started the last time, if that was to stay so.
    blocked: Option<String>,
    /// Why its candidate was given up.
    given_up: Option<String>,
    recycled: Option<Time>,
    attempts: u32,
    /// Whether the last start came to something.
    succeeded: bool,
    ready_after: Option<Duration>,
    ends: VecDeque<Ended>,
    restarts: BTreeMap<Reason, u64>,
    waiters: Vec<Waiter>,
    needs: Vec<NeedView>,
    /// What has to end before it.
    after: Option<String>,
    state: State,
    since: Time,
    told: Option<View>,
    /// What others have seen of it.
    pub(super) shown: Option<Reached>,
}

/// What a service without a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It starts if it may.
    Idle,
    BackingOff(Time),
    CrashLoop(Time),
    Failed(Option<Time>),
    Completed,
}

/// What a process is to its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    Stable,
    Candidate,
    /// It is ending, and its end has no consequences.
    Stray,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
struct Waiter {
    token: Token,
    command: Command,
    /// The first start that counts.
    from: Instance,
}

impl Unit {
    /// A service that is to run.
    pub(super) fn new(now: Time, spec: Service) -> Self {
        Self {
            spec: Arc::new(spec),
            stopped: false,
            removed: false,
            stable: None,
            candidate: None,
            strays: Vec::new(),
            rest: Rest::Idle,
            pending: None,
            deaths: VecDeque::new(),
            failures: 0,
            crashing: false,
            blocked: None,
            given_up: None,
            recycled: None,
            attempts: 0,
            succeeded: false,
            ready_after: None,
            ends: VecDeque::new(),
            restarts: BTreeMap::new(),
            waiters: Vec::new(),
            needs: Vec::new(),
            after: None,
            state: State::Stopped,
            since: now,
            told: None,
            shown: None,
        }
    }

    /// Whether one of its processes is this one.
    pub(super) fn has(&self, instance: Instance) -> bool {
        self.processes().any(|process| process.instance == instance)
    }

    /// Whether nothing of it is left.
    pub(super) fn is_gone(&self) -> bool {
        self.processes().next().is_none()
    }

    /// Whether nothing of it is left that could be ended.
    pub(super) fn is_spent(&self) -> bool {
        self.processes().all(Process::is_stuck)
    }

    /// How far it has come, for those that need it.
    pub(super) fn reached(&self) -> Reached {
        let stable = self.stable.as_ref();
        Reached {
            state: self.state,
            started: stable.is_some_and(|process| process.pid.is_some() && process.is_kept()),
            spent: self.is_spent(),
        }
    }

    /// Whether somebody waits for an answer.
    pub(super) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.stable.iter().chain(&self.candidate).chain(&self.strays)
    }

    fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.stable.iter_mut().chain(&mut self.candidate).chain(&mut self.strays)
    }

    fn process_mut(&mut self, instance: Instance) -> Option<&mut Process> {
        self.processes_mut().find(|process| process.instance == instance)
    }

    fn is_stable(&self, instance: Instance) -> bool {
        self.stable.as_ref().is_some_and(|process| process.instance == instance)
    }

    fn is_candidate(&self, instance: Instance) -> bool {
        self.candidate.as_ref().is_some_and(|process| process.instance == instance)
    }

    /// Whether it is to end and not to start.
    fn is_unwanted(&self, turn: &Turn<'_>) -> bool {
        self.stopped || self.removed || turn.halt != Halt::No
    }

    /// Takes what a dead master left behind.
    pub(super) fn on_orphan(&mut self, turn: &mut Turn<'_>, orphan: Orphan) {
        let (now, chance) = (turn.now, turn.chance);
        let instance = turn.instance();
        let spec = Arc::clone(&self.spec);
        let mut process = Process::adopt(now, chance, instance, Arc::clone(&spec), &orphan);
        let adopt = !self.removed
            && self.stable.is_none()
            && spec.on_orphan == OnOrphan::Adopt
            && turn.halt == Halt::No;
        // What it said while there was no master, nobody heard.
        let heard = orphan.ready || !process.panel.hears();
        let adopt = adopt && heard;
        let outdated = orphan.fingerprint != spec.fingerprint();
        let (candidate, pid) = (orphan.variant == Variant::Candidate, orphan.pid);
        turn.out.push(Output::Adopt { instance, service: spec, orphan, end: !adopt });
        if !adopt {
            self.log(turn, Level::Warn, format!("ends process {pid}, left by a dead master"));
            process.end(now, Why::Replaced, "left by a dead master".to_owned(), turn.out);
            self.strays.push(process);
            return;
        }
        self.log(turn, Level::Info, format!("adopts process {pid}, left by a dead master"));
        if candidate {
            process.variant = Variant::Stable;
            turn.out.push(Output::Promote { instance });
        }
        if outdated {
            self.pending = Some(Reason::Changed);
        }
        self.attempts = 1;
        self.stable = Some(process);
        self.refresh(turn);
    }

    /// Takes what it is from now on.
    pub(super) fn on_configured(&mut self, turn: &mut Turn<'_>, spec: Service) {
        self.removed = false;
        if *self.spec == spec {
            return;
        }
        let same = self.spec.same_process(&spec);
        self.spec = Arc::new(spec);
        let (now, chance, spec) = (turn.now, turn.chance, Arc::clone(&self.spec));
        for process in self.stable.iter_mut().chain(&mut self.candidate) {
            if process.spec.same_process(&spec) {
                process.adjust(now, chance, &spec);
                let (instance, service) = (process.instance, Arc::clone(&spec));
                turn.out.push(Output::Adjust { instance, service });
            }
        }
        if self.stable.as_ref().is_some_and(|process| !process.spec.same_process(&spec)) {
            self.pending = Some(Reason::Changed);
        } else if self.pending == Some(Reason::Changed) {
            self.pending = None;
        }
        let outdated = |process: &Process| !process.spec.same_process(&spec);
        if self.candidate.as_ref().is_some_and(outdated) {
            self.give_up(turn, "the configuration has changed again".to_owned());
        }
        if !(same && matches!(self.rest, Rest::Completed)) {
            self.forgive();
        }
        self.refresh(turn);
    }

    /// It is no service any more.
    pub(super) fn on_removed(&mut self, turn: &mut Turn<'_>) {
        self.removed = true;
        self.pending = None;
        self.fail(turn, Instance(u64::MAX), "it was removed from the configuration");
    }

    /// Everything is to end.
    pub(super) fn on_halted(&mut self, turn: &mut Turn<'_>) {
        self.pending = None;
        self.fail(turn, Instance(u64::MAX), "everything is being stopped");
    }

    /// Everything is over. Whoever still waits does so in vain.
    pub(super) fn on_over(&mut self, turn: &mut Turn<'_>) {
        for Waiter { token, .. } in self.waiters.drain(..) {
            let outcome = Outcome::Failed("something of it did not end".to_owned());
            turn.out.push(Output::Answer { token, outcome });
        }
    }

    /// Somebody wants something of it.
    pub(super) fn on_asked(&mut self, turn: &mut Turn<'_>, command: Command, token: Token) {
        let refusal = match command {
            Command::Stop => None,
            Command::Start | Command::Restart if self.removed => Some(Outcome::Unknown),
            Command::Start | Command::Restart if turn.halt != Halt::No => {
                Some(Outcome::Failed("everything is being stopped".to_owned()))
            }
            Command::Start | Command::Restart => None,
        };
        if let Some(outcome) = refusal {
            turn.out.push(Output::Answer { token, outcome });
            return;
        }
        let from = match command {
            Command::Stop => {
                self.stopped = true;
                self.pending = None;
                self.rest = Rest::Idle;
                self.fail(turn, Instance(u64::MAX), "it was stopped");
                Instance(0)
            }
            Command::Start => {
                self.start();
                Instance(0)
            }
            Command::Restart => self.restart(turn),
        };
        self.waiters.push(Waiter { token, command, from });
    }

    /// Wants it to run.
    pub(super) fn start(&mut self) {
        self.stopped = false;
        match &self.stable {
            None => self.forgive(),
            Some(stable) if stable.is_kept() => {}
            Some(_) => self.pending = Some(Reason::Asked),
        }
    }

    /// Wants it to run anew. Returns the first start that counts as that.
    fn restart(&mut self, turn: &Turn<'_>) -> Instance {
        let stopped = std::mem::take(&mut self.stopped);
        self.forgive();
        let kept = |process: &Process| process.is_kept() && process.spec.same_process(&self.spec);
        match &self.candidate {
            Some(candidate) if kept(candidate) => candidate.instance,
            _ => {
                // What is being stopped is followed by another one anyway.
                if !stopped {
                    self.pending = Some(Reason::Asked);
                }
                Instance(*turn.next + 1)
            }
        }
    }

    /// Forgets what went wrong: somebody has done something about it.
    fn forgive(&mut self) {
        self.rest = Rest::Idle;
        self.deaths.clear();
        self.failures = 0;
        self.crashing = false;
        self.blocked = None;
        self.given_up = None;
    }

    /// What was asked for is a process.
    pub(super) fn on_started(
        &mut self,
        turn: &mut Turn<'_>,
        instance: Instance,
        pid: u32,
        interpreter: Option<String>,
    ) {
        let (now, chance) = (turn.now, turn.chance);
        let Some(process) = self.process_mut(instance) else { return };
        process.on_started(now, chance, pid, interpreter, turn.out);
        if self.is_stable(instance) {
            self.blocked = None;
        }
        self.log(turn, Level::Info, format!("started, process {pid}"));
        self.refresh(turn);
    }

    /// It could not be made one.
    pub(super) fn on_not_started(
        &mut self,
        turn: &mut Turn<'_>,
        instance: Instance,
        words: String,
        lasting: bool,
    ) {
        if self.process_mut(instance).is_none_or(|process| process.pid.is_some()) {
            return;
        }
        let Some((seat, process)) = self.take(instance) else { return };
        let words = format!("could not be started: {}", bounded(words));
        self.note(turn, None, words.clone(), Vec::new());
        let why = process.ending.as_ref().map(|ending| ending.why);
        match (seat, why) {
            (Seat::Stray, _) => return,
            (Seat::Candidate, why) => return self.candidate_ended(turn, why, words),
            (Seat::Stable, None) => {}
            (Seat::Stable, Some(_)) => {
                self.rest = Rest::Idle;
                return;
            }
        }
        if lasting {
            let until = (self.spec.restart != Restart::Never)
                .then(|| turn.now + self.spec.crash_loop.retry);
            self.rest = Rest::Failed(until);
            if self.blocked.replace(words.clone()).as_ref() != Some(&words) {
                self.log(turn, Level::Error, words.clone());
            }
            self.fail(turn, instance, &words);
        } else {
            self.die(turn, instance, Reason::NotStarted, Duration::ZERO, words);
        }
    }

    /// The leader of one of its processes has ended.
    pub(super) fn on_exited(
        &mut self,
        turn: &mut Turn<'_>,
        instance: Instance,
        end: End,
        lines: Vec<String>,
    ) {
        let now = turn.now;
        let Some(process) = self.process_mut(instance) else { return };
        process.on_exited(now, end, lines);
        if self.is_stable(instance) && !self.is_unwanted(turn) {
            self.succeed(turn);
        }
    }

    /// Nothing of one of its processes is left.
    pub(super) fn on_gone(&mut self, turn: &mut Turn<'_>, instance: Instance) {
        if self.process_mut(instance).is_none_or(|process| process.pid.is_none()) {
            return;
        }
        let Some((seat, mut process)) = self.take(instance) else { return };
        process.on_exited(turn.now, End::Unknown, Vec::new());
        let Some((exited, ending)) = process.exited.take().zip(process.ending.take()) else {
            return;
        };
        let mut words = match ending.why {
            Why::LeftBehind => exited.end.to_string(),
            _ => format!("{}; {}", ending.words, exited.end),
        };
        if let Some(line) = exited.lines.last().filter(|_| !exited.end.is_success()) {
            words = format!("{words}: {line}");
        }
        let words = bounded(words);
        self.note(turn, Some(exited.end), words.clone(), exited.lines);
        if seat == Seat::Candidate {
            return self.candidate_ended(turn, Some(ending.why), words);
        }
        if seat == Seat::Stray || self.is_unwanted(turn) {
            self.log(turn, Level::Info, words);
            return;
        }
        match ending.why {
            Why::Stop | Why::Restart(_) | Why::Replaced => self.rest = Rest::Idle,
            Why::Failing(reason) => self.die(turn, instance, reason, process.ready_for, words),
            Why::LeftBehind => self.ended(turn, &process, exited.end, words),
        }
    }

    /// The stable process ended by itself.
    fn ended(&mut self, turn: &mut Turn<'_>, process: &Process, end: End, words: String) {
        let again = match self.spec.restart {
            Restart::Always => true,
            Restart::OnFailure => !end.is_success(),
            Restart::Never => false,
        };
        if again || self.pending.is_some() {
            self.die(turn, process.instance, reason(end), process.ready_for, words);
        } else if end.is_success() {
            self.rest = Rest::Completed;
            self.succeeded = true;
            self.log(turn, Level::Info, format!("completed: {words}"));
        } else {
            self.rest = Rest::Failed(None);
            let words = format!("{words}; it is not to be started again (restart = \"never\")");
            self.log(turn, Level::Error, words.clone());
            self.fail(turn, process.instance, &words);
            self.blocked = Some(words);
        }
    }

    /// A death of the stable process: it is started again after a pause.
    fn die(
        &mut self,
        turn: &mut Turn<'_>,
        instance: Instance,
        reason: Reason,
        ready_for: Duration,
        words: String,
    ) {
        let now = turn.now;
        if self.spec.restart == Restart::Never && self.pending.is_none() {
            self.rest = Rest::Failed(None);
            self.log(turn, Level::Error, words.clone());
            self.fail(turn, instance, &words);
            self.blocked = Some(words);
            return;
        }
        let (backoff, crash_loop) = (self.spec.backoff, self.spec.crash_loop);
        self.count_death(now, ready_for);
        *self.restarts.entry(reason).or_default() += 1;
        let many = self.deaths.len() >= crash_loop.deaths as usize;
        if self.crashing || many {
            let first = !std::mem::replace(&mut self.crashing, true);
            self.rest = Rest::CrashLoop(now + crash_loop.retry);
            let level = if first { Level::Error } else { Level::Warn };
            let retry = Lasting(crash_loop.retry);
            self.log(turn, level, format!("crash loop: {words}; tried again after {retry}"));
        } else {
            let exponent = self.failures.saturating_sub(1).min(16);
            let most = backoff.first.saturating_mul(1 << exponent).min(backoff.max);
            let pause = most.mul_f64(mixed(turn.chance, instance.0));
            self.rest = Rest::BackingOff(now + pause);
            let pause = Lasting(pause);
            self.log(turn, Level::Warn, format!("{words}; started again after {pause}"));
        }
        if self.pending.is_none() {
            self.fail(turn, instance, &words);
        }
    }

    fn count_death(&mut self, now: Time, ready_for: Duration) {
        if ready_for >= self.spec.backoff.reset {
            self.failures = 0;
            self.crashing = false;
        }
        self.failures = self.failures.saturating_add(1);
        self.deaths.push_back(now);
        let within = self.spec.crash_loop.within;
        self.deaths.retain(|death| *death + within > now);
        while self.deaths.len() > self.spec.crash_loop.deaths as usize {
            self.deaths.pop_front();
        }
    }

    /// The stable process is lost; if there is a candidate, it takes its place now.
    fn succeed(&mut self, turn: &mut Turn<'_>) {
        if !self.candidate.as_ref().is_some_and(Process::is_kept) {
            return;
        }
        let Some(stable) = self.stable.take() else { return };
        self.count_death(turn.now, stable.ready_for);
        let end = stable.exited.as_ref().map_or(End::Unknown, |exited| exited.end);
        let reason = match stable.ending.as_ref().map(|ending| ending.why) {
            Some(Why::Failing(reason)) => reason,
            _ => reason(end),
        };
        *self.restarts.entry(reason).or_default() += 1;
        self.strays.push(stable);
        self.log(turn, Level::Warn, "ended while its replacement was starting".to_owned());
        self.promote(turn);
    }

    /// The candidate is the stable one from now on.
    fn promote(&mut self, turn: &mut Turn<'_>) {
        let Some(mut candidate) = self.candidate.take() else { return };
        candidate.variant = Variant::Stable;
        turn.out.push(Output::Promote { instance: candidate.instance });
        if let Some(mut stable) = self.stable.replace(candidate) {
            stable.end(turn.now, Why::Replaced, "replaced".to_owned(), turn.out);
            self.strays.push(stable);
        }
    }

    /// Ends the candidate; the stable one goes on.
    fn give_up(&mut self, turn: &mut Turn<'_>, words: String) {
        let now = turn.now;
        if let Some(candidate) = &mut self.candidate {
            candidate.end(now, Why::Replaced, words, turn.out);
        }
    }

    fn candidate_ended(&mut self, turn: &mut Turn<'_>, why: Option<Why>, words: String) {
        if self.is_unwanted(turn) || why == Some(Why::Stop) {
            return;
        }
        let words = format!("the new one was not ready, the one before goes on: {words}");
        self.log(turn, Level::Error, words.clone());
        if self.pending.is_none() {
            self.fail(turn, Instance(u64::MAX), &words);
        }
        self.given_up = Some(words);
    }

    /// What a check found.
    pub(super) fn with(
        &mut self,
        turn: &mut Turn<'_>,
        instance: Instance,
        change: impl FnOnce(&mut Process),
    ) {
        let Some(process) = self.process_mut(instance) else { return };
        change(process);
        self.refresh(turn);
    }

    /// What it uses.
    pub(super) fn on_measured(
        &mut self,
        turn: &mut Turn<'_>,
        instance: Instance,
        memory: Option<u64>,
        requests: Option<u64>,
    ) {
        if !self.is_stable(instance) || !self.may_recycle(turn.now) {
            return;
        }
        let Some(process) = &self.stable else { return };
        if let Some(words) = process.uses_too_much(memory, requests) {
            self.recycle(turn, words);
        }
    }

    fn recycle(&mut self, turn: &mut Turn<'_>, words: String) {
        self.recycled = Some(turn.now);
        self.pending = Some(Reason::Recycled);
        self.log(turn, Level::Info, format!("recycled: {words}"));
    }

    fn may_recycle(&self, now: Time) -> bool {
        let rested = self.recycled.is_none_or(|at| at + limit::RECYCLE_AT_LEAST <= now);
        rested && self.can_recycle()
    }

    fn can_recycle(&self) -> bool {
        let ready = self.stable.as_ref().is_some_and(|process| process.ready_since.is_some());
        ready && self.candidate.is_none() && self.pending.is_none()
    }

    /// When it is to be recycled for its age.
    fn recycle_at(&self) -> Option<Time> {
        let old = self.stable.as_ref().and_then(Process::old_at).filter(|_| self.can_recycle())?;
        Some(self.recycled.map_or(old, |at| old.max(at + limit::RECYCLE_AT_LEAST)))
    }

    /// When something of it is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        let rest = match self.rest {
            Rest::BackingOff(at) | Rest::CrashLoop(at) => Some(at),
            Rest::Failed(at) => at,
            Rest::Idle | Rest::Completed => None,
        };
        let due = self.processes().filter_map(Process::deadline).min();
        let settled = self.crashing.then(|| self.settled_at()).flatten();
        [rest, due, settled, self.recycle_at()].into_iter().flatten().min()
    }

    /// When it will have been ready for so long that its crash loop is over.
    fn settled_at(&self) -> Option<Time> {
        let since = self.stable.as_ref()?.ready_since?;
        Some(since + self.spec.backoff.reset)
    }

    /// Time has passed.
    pub(super) fn on_timeout(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        if let Rest::BackingOff(at) | Rest::CrashLoop(at) | Rest::Failed(Some(at)) = self.rest
            && at <= now
        {
            self.rest = Rest::Idle;
        }
        let mut events = Vec::new();
        for process in self.processes_mut() {
            if let Some(event) = process.on_timeout(now, turn.out) {
                events.push((process.instance, event));
            }
        }
        for (instance, event) in events {
            self.on_event(turn, instance, event);
        }
        self.refresh(turn);
        if self.crashing && self.settled_at().is_some_and(|at| at <= now) {
            self.crashing = false;
            self.failures = 0;
            self.log(turn, Level::Info, "out of its crash loop".to_owned());
        }
        if self.recycle_at().is_some_and(|at| at <= now) {
            let age = self.stable.as_ref().map_or(Duration::ZERO, |process| process.age(now));
            self.recycle(turn, format!("it is {} old", Lasting(age)));
        }
    }

    fn on_event(&mut self, turn: &mut Turn<'_>, instance: Instance, event: Event) {
        match event {
            Event::Overdue => {
                let overdue = Lasting(self.spec.overdue);
                self.log(turn, Level::Error, format!("not ready: no progress for {overdue}"));
            }
            Event::TooLate(timeout) => {
                let words = format!("was not ready within {}", Lasting(timeout));
                if self.is_candidate(instance) {
                    self.give_up(turn, words);
                } else {
                    self.fault(turn, Reason::NotReady, words);
                }
            }
            Event::Killed => {
                let grace = Lasting(self.spec.stop.grace);
                self.log(turn, Level::Warn, format!("did not end within {grace}: killed"));
            }
            Event::Stuck => {
                let words = "was killed, and something of it does not end";
                self.log(turn, Level::Error, words.to_owned());
                for waiter in self.waiters.extract_if(.., |waiter| waiter.command == Command::Stop)
                {
                    let outcome = Outcome::Failed(words.to_owned());
                    turn.out.push(Output::Answer { token: waiter.token, outcome });
                }
            }
        }
    }

    /// The stable process does not do what it should, and is ended for it.
    fn fault(&mut self, turn: &mut Turn<'_>, reason: Reason, words: String) {
        let now = turn.now;
        let Some(stable) = &mut self.stable else { return };
        if !stable.is_kept() {
            return;
        }
        stable.end(now, Why::Failing(reason), words.clone(), turn.out);
        self.log(turn, Level::Warn, format!("{words}: ended"));
        self.succeed(turn);
    }

    /// Sees whether the checks of its processes have changed their mind.
    fn refresh(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        for process in self.stable.iter_mut().chain(&mut self.candidate) {
            let ready = process.is_ready(now);
            if ready == process.ready_since.is_some() {
                continue;
            }
            let again = process.was_ready;
            if ready {
                process.ready_since = Some(now);
                process.was_ready = true;
                process.overdue = false;
            } else {
                process.unready(now);
            }
            let stable = process.variant == Variant::Stable;
            let words = match (ready, stable, again) {
                (true, _, true) => "ready again".to_owned(),
                (true, false, false) => "the new one is ready".to_owned(),
                (true, true, false) => {
                    self.ready_after = process.took(now);
                    match self.ready_after {
                        Some(after) => format!("ready after {}", Lasting(after)),
                        None => "ready".to_owned(),
                    }
                }
                (false, ..) => {
                    let why = process.awaited().map(|awaited| awaited.words);
                    format!("not ready: {}", why.unwrap_or_default())
                }
            };
            let level = if ready { Level::Info } else { Level::Warn };
            let service = self.spec.name.clone();
            turn.out.push(Output::Log(Line { service, level, words }));
        }
        if self.stable.as_ref().is_some_and(|process| process.was_ready) {
            self.succeeded = true;
        }
        if self.candidate.as_ref().is_some_and(|process| process.ready_since.is_some()) {
            self.given_up = None;
            self.succeeded = true;
            self.ready_after = self.candidate.as_ref().and_then(|process| process.took(now));
            self.promote(turn);
        }
        let fault = self.stable.as_ref().filter(|process| process.is_kept());
        if let Some(words) = fault.and_then(|process| process.panel.not_live()) {
            self.fault(turn, Reason::NotLive, format!("not live: {words}"));
        }
    }

    /// Does what can be done now, given what others have come to.
    pub(super) fn advance(
        &mut self,
        turn: &mut Turn<'_>,
        needs: Vec<NeedView>,
        after: Option<String>,
    ) {
        self.needs = needs;
        self.after = after;
        if self.is_unwanted(turn) {
            self.stop(turn);
        } else {
            self.replace(turn);
            self.launch(turn);
        }
        let state = self.state(turn);
        if state != self.state {
            self.state = state;
            self.since = turn.now;
        }
        self.tell(turn);
    }

    fn stop(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        self.rest = Rest::Idle;
        self.pending = None;
        if let Some(candidate) = &mut self.candidate {
            candidate.end(now, Why::Stop, "stopped".to_owned(), turn.out);
        }
        // A stop that somebody asked for does not wait for others.
        if self.after.is_some() && !self.stopped && turn.halt != Halt::Now {
            return;
        }
        let now = turn.now;
        if let Some(stable) = &mut self.stable {
            stable.end(now, Why::Stop, "stopped".to_owned(), turn.out);
        }
        if turn.halt == Halt::Now {
            for process in self.processes_mut() {
                process.hasten(now, turn.out);
            }
        }
    }

    /// Begins what [`Unit::pending`] asks for.
    fn replace(&mut self, turn: &mut Turn<'_>) {
        let Some(reason) = self.pending else { return };
        let now = turn.now;
        let Some(stable) = &mut self.stable else {
            self.pending = None;
            self.rest = Rest::Idle;
            return;
        };
        if !stable.is_kept() {
            return;
        }
        if let Some(candidate) = &self.candidate {
            if candidate.is_kept() && candidate.spec.same_process(&self.spec) {
                self.pending = None;
            }
            return;
        }
        let overlap = self.spec.overlap && stable.spec.listen == self.spec.listen;
        if overlap && stable.was_ready {
            if !self.strays.is_empty() {
                return;
            }
            self.given_up = None;
            self.attempts = 0;
            self.candidate = Some(self.start_process(turn, Variant::Candidate));
        } else {
            let words = format!("restarted ({})", reason.name());
            stable.end(now, Why::Restart(reason), words, turn.out);
            self.succeeded = true;
        }
        self.pending = None;
        *self.restarts.entry(reason).or_default() += 1;
    }

    fn launch(&mut self, turn: &mut Turn<'_>) {
        let free = if cfg!(bowline_broken = "start-on-exit") {
            self.processes().all(|process| process.exited.is_some())
        } else {
            self.is_gone()
        };
        if free && self.rest == Rest::Idle && self.needs.iter().all(|need| need.met) {
            if std::mem::take(&mut self.succeeded) {
                self.attempts = 0;
            }
            self.stable = Some(self.start_process(turn, Variant::Stable));
        }
    }

    fn start_process(&mut self, turn: &mut Turn<'_>, variant: Variant) -> Process {
        let instance = turn.instance();
        self.attempts = self.attempts.saturating_add(1);
        turn.out.push(Output::Start {
            instance,
            service: Arc::clone(&self.spec),
            variant,
            attempt: self.attempts,
        });
        Process::launch(turn.now, instance, Arc::clone(&self.spec), variant)
    }

    fn state(&self, turn: &Turn<'_>) -> State {
        let Some(process) = &self.stable else {
            return match self.rest {
                _ if !self.is_gone() => State::Stopping,
                Rest::BackingOff(_) => State::BackingOff,
                Rest::CrashLoop(_) => State::CrashLoop,
                Rest::Failed(_) => State::Failed,
                Rest::Completed => State::Completed,
                Rest::Idle if self.is_unwanted(turn) => State::Stopped,
                Rest::Idle => State::Waiting,
            };
        };
        if !process.is_kept() || self.is_unwanted(turn) {
            State::Stopping
        } else if self.crashing && !process.was_ready {
            State::CrashLoop
        } else if process.pid.is_none() && self.blocked.is_some() {
            State::Failed
        } else if process.ready_since.is_some() {
            State::Ready
        } else if process.was_ready || process.overdue {
            State::NotReady
        } else {
            State::Starting
        }
    }

    /// Tells those who want it to run that it does not: those that wait for this start, or for one before it.
    fn fail(&mut self, turn: &mut Turn<'_>, instance: Instance, words: &str) {
        let lost = |waiter: &mut Waiter| waiter.command != Command::Stop && waiter.from <= instance;
        for waiter in self.waiters.extract_if(.., lost) {
            let outcome = Outcome::Failed(words.to_owned());
            turn.out.push(Output::Answer { token: waiter.token, outcome });
        }
    }

    fn log(&self, turn: &mut Turn<'_>, level: Level, words: String) {
        let service = self.spec.name.clone();
        turn.out.push(Output::Log(Line { service, level, words }));
    }

    fn note(&mut self, turn: &Turn<'_>, end: Option<End>, words: String, lines: Vec<String>) {
        if self.ends.len() == limit::ENDS_KEPT {
            self.ends.pop_front();
        }
        let mut lines: Vec<String> = lines.into_iter().map(bounded).collect();
        lines.drain(..lines.len().saturating_sub(limit::LAST_LINES));
        self.ends.push_back(Ended { at: turn.now, end, words, lines });
    }

    fn take(&mut self, instance: Instance) -> Option<(Seat, Process)> {
        if self.is_stable(instance) {
            return self.stable.take().map(|process| (Seat::Stable, process));
        }
        if self.is_candidate(instance) {
            return self.candidate.take().map(|process| (Seat::Candidate, process));
        }
        let index = self.strays.iter().position(|process| process.instance == instance)?;
        Some((Seat::Stray, self.strays.swap_remove(index)))
    }
}

/// Why something was started again that ended like this.
fn reason(end: End) -> Reason {
    match end {
        End::Code(_) => Reason::Exited,
        End::Signal(_) => Reason::Killed,
        End::Unknown => Reason::Unknown,
    }
}
