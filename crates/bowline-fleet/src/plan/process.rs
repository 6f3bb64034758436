//! One process of a service, from the moment it is asked for until nothing of it is left.

use std::{sync::Arc, time::Duration};

use bowline_proto::Time;

use super::{
    End, Instance, Orphan, Output, Variant, Word,
    checks::Panel,
    mixed,
    view::{Awaited, ProcessView, Reason},
    words::{Lasting, bounded},
};
use crate::{
    limit,
    probe::{Finding, Progress, Seen},
    spec::{Phase, Service, Signal},
};

/// A process, or what is left of it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) instance: Instance,
    /// What it was started from.
    pub(super) spec: Arc<Service>,
    pub(super) variant: Variant,
    /// None until it is one.
    pub(super) pid: Option<u32>,
    since: Time,
    before: Duration,
    adopted: bool,
    interpreter: Option<String>,
    status: Option<String>,
    pub(super) panel: Panel,
    /// Since when its checks pass.
    pub(super) ready_since: Option<Time>,
    /// Whether they ever did.
    pub(super) was_ready: bool,
    /// For how long they last did.
    pub(super) ready_for: Duration,
    /// When it last came nearer to being ready.
    progress_at: Time,
    said: Option<(Option<Progress>, String)>,
    /// It has asked for time until then.
    extended: Time,
    pub(super) overdue: bool,
    pub(super) exited: Option<Exited>,
    pub(super) ending: Option<Ending>,
    recycle: Recycle,
}

/// The end of the leader.
#[derive(Debug, Clone)]
pub(super) struct Exited {
    pub(super) end: End,
    pub(super) lines: Vec<String>,
}

/// The way to the end.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) why: Why,
    /// Why, in words.
    pub(super) words: String,
    step: Step,
}

/// Why something is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It is not wanted.
    Stop,
    /// Another one follows.
    Restart(Reason),
    /// It does not do what it should: a death.
    Failing(Reason),
    /// The candidate took its place, or is given up.
    Replaced,
    /// Its leader ended by itself.
    LeftBehind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is no process yet, and is told as soon as it is.
    Unborn,
    /// What was left behind may end by itself until then.
    Settling(Time),
    /// It has until then.
    Told(Time),
    Killed {
        since: Time,
        again: Time,
        said: bool,
    },
}

/// What has come of time passing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It has been starting for long without progress.
    Overdue,
    /// It should have been ready by now.
    TooLate(Duration),
    /// It did not end within its grace, and is killed.
    Killed,
    /// It does not end.
    Stuck,
}

/// The limits of this process, moved by chance.
#[derive(Debug, Default)]
struct Recycle {
    at: Option<Time>,
    requests: Option<u64>,
    memory: Option<u64>,
}

impl Process {
    /// A process that is asked for now.
    pub(super) fn launch(
        now: Time,
        instance: Instance,
        spec: Arc<Service>,
        variant: Variant,
    ) -> Self {
        Self {
            instance,
            panel: Panel::new(now, &spec.probes, false),
            spec,
            variant,
            pid: None,
            since: now,
            before: Duration::ZERO,
            adopted: false,
            interpreter: None,
            status: None,
            ready_since: None,
            was_ready: false,
            ready_for: Duration::ZERO,
            progress_at: now,
            said: None,
            extended: now,
            overdue: false,
            exited: None,
            ending: None,
            recycle: Recycle::default(),
        }
    }

    /// A process that was found.
    pub(super) fn adopt(
        now: Time,
        chance: u64,
        instance: Instance,
        spec: Arc<Service>,
        orphan: &Orphan,
    ) -> Self {
        let mut process = Self::launch(now, instance, spec, orphan.variant);
        process.before = orphan.age;
        process.adopted = true;
        process.begin(now, chance, orphan.pid, orphan.ready);
        process
    }

    /// It is a process now. Says whether it is to be told to end at once.
    pub(super) fn on_started(
        &mut self,
        now: Time,
        chance: u64,
        pid: u32,
        interpreter: Option<String>,
        out: &mut Vec<Output>,
    ) {
        if self.pid.is_some() {
            return;
        }
        self.interpreter = interpreter;
        self.begin(now, chance, pid, false);
        if self.ending.is_some() && !cfg!(bowline_broken = "stop-before-start") {
            self.tell(now, out);
        }
    }

    fn begin(&mut self, now: Time, chance: u64, pid: u32, ready: bool) {
        self.pid = Some(pid);
        self.since = now;
        self.progress_at = now;
        self.panel = Panel::new(now, &self.spec.probes, ready);
        self.choose_limits(chance);
    }

    /// Goes on as a process of this service.
    pub(super) fn adjust(&mut self, now: Time, chance: u64, spec: &Arc<Service>) {
        if self.spec.probes != spec.probes {
            self.panel.replace(now, &spec.probes);
        }
        let recycle = self.spec.recycle != spec.recycle;
        self.spec = Arc::clone(spec);
        if recycle {
            self.choose_limits(chance);
        }
    }

    fn choose_limits(&mut self, chance: u64) {
        let moved = |value: f64, salt: u64| {
            let chance = mixed(chance, self.instance.0 ^ salt);
            value * (1.0 + limit::RECYCLE_JITTER * (2.0 * chance - 1.0))
        };
        let count = |value: Option<u64>, salt| value.map(|value| moved(value as f64, salt) as u64);
        let recycle = self.spec.recycle;
        self.recycle = Recycle {
            at: recycle.age.map(|age| {
                let age = Duration::from_secs_f64(moved(age.as_secs_f64(), 1).max(0.0));
                self.since + age.saturating_sub(self.before)
            }),
            requests: count(recycle.requests, 2),
            memory: count(recycle.memory, 3),
        };
    }

    /// Whether it runs and nobody wants its end.
    pub(super) fn is_kept(&self) -> bool {
        self.ending.is_none()
    }

    /// Whether it was killed long ago and something of it is still there.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(&self.ending, Some(Ending { step: Step::Killed { said: true, .. }, .. }))
    }

    /// Makes it end. It is told once; the rest is a matter of time.
    pub(super) fn end(&mut self, now: Time, why: Why, words: String, out: &mut Vec<Output>) {
        if self.ending.is_some() {
            return;
        }
        self.unready(now);
        self.ending = Some(Ending { why, words, step: Step::Unborn });
        if self.pid.is_some() {
            self.tell(now, out);
        }
    }

    /// Gives it no more time to end.
    pub(super) fn hasten(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(ending) = &self.ending else { return };
        if matches!(ending.step, Step::Settling(_) | Step::Told(_)) {
            self.kill(now, out);
        }
    }

    fn tell(&mut self, now: Time, out: &mut Vec<Output>) {
        let stop = self.spec.stop;
        if stop.grace.is_zero() || stop.signal == Signal::Kill {
            return self.kill(now, out);
        }
        if let Some(ending) = &mut self.ending {
            ending.step = Step::Told(now + stop.grace);
        }
        out.push(Output::Signal { instance: self.instance, signal: stop.signal });
    }

    fn kill(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Some(ending) = &mut self.ending {
            let again = now + limit::KILL_AGAIN;
            ending.step = Step::Killed { since: now, again, said: false };
        }
        out.push(Output::Kill { instance: self.instance });
    }

    /// Its leader has ended.
    pub(super) fn on_exited(&mut self, now: Time, end: End, lines: Vec<String>) {
        if self.exited.is_some() || self.pid.is_none() {
            return;
        }
        self.unready(now);
        if self.ending.is_none() {
            let step = Step::Settling(now + limit::LEFT_BEHIND);
            self.ending = Some(Ending { why: Why::LeftBehind, words: end.to_string(), step });
        }
        self.exited = Some(Exited { end, lines });
    }

    /// When something of it is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        if let Some(ending) = &self.ending {
            return match ending.step {
                Step::Unborn => None,
                Step::Settling(until) | Step::Told(until) => Some(until),
                Step::Killed { again, .. } => Some(again),
            };
        }
        self.pid?;
        let settles = self.settles_at().filter(|_| self.ready_since.is_none());
        let overdue = (!self.was_ready && !self.overdue).then(|| self.overdue_at());
        let too_late = if self.was_ready { None } else { self.too_late_at() };
        let due = [self.panel.deadline(), settles, overdue, too_late];
        due.into_iter().flatten().min()
    }

    /// When it is old enough to be replaced.
    pub(super) fn old_at(&self) -> Option<Time> {
        self.recycle.at
    }

    /// Time has passed. The outputs are its signals and the checks that are to be made.
    pub(super) fn on_timeout(&mut self, now: Time, out: &mut Vec<Output>) -> Option<Event> {
        if let Some(ending) = &mut self.ending {
            return match &mut ending.step {
                Step::Settling(until) if *until <= now => {
                    self.tell(now, out);
                    None
                }
                Step::Told(until) if *until <= now => {
                    self.kill(now, out);
                    Some(Event::Killed)
                }
                Step::Killed { since, again, said } if *again <= now => {
                    *again = now + limit::KILL_AGAIN;
                    let stuck = !*said && *since + limit::KILL_PATIENCE <= now;
                    *said |= stuck;
                    out.push(Output::Kill { instance: self.instance });
                    stuck.then_some(Event::Stuck)
                }
                Step::Unborn | Step::Settling(_) | Step::Told(_) | Step::Killed { .. } => None,
            };
        }
        self.pid?;
        for (phase, index, probe) in self.panel.handle_timeout(now) {
            out.push(Output::Probe { instance: self.instance, phase, index, probe });
        }
        if self.was_ready || self.is_ready(now) {
            return None;
        }
        // A master that was held itself has not seen what progress there was.
        let due = self.too_late_at().into_iter().chain([self.overdue_at()]).min();
        if due.is_some_and(|due| due + limit::CHECK_SLACK < now) && !self.overdue {
            self.progress_at = now;
            return None;
        }
        if let Some(timeout) = self.patience()
            && self.too_late_at().is_some_and(|at| at <= now)
        {
            return Some(Event::TooLate(timeout));
        }
        if !self.overdue && self.overdue_at() <= now {
            self.overdue = true;
            return Some(Event::Overdue);
        }
        None
    }

    /// How long it may be starting without progress. A candidate cannot do so for ever.
    fn patience(&self) -> Option<Duration> {
        let candidate = (self.variant == Variant::Candidate).then_some(self.spec.overdue);
        self.spec.startup_timeout.or(candidate)
    }

    fn too_late_at(&self) -> Option<Time> {
        self.patience().map(|patience| (self.progress_at + patience).max(self.extended))
    }

    fn overdue_at(&self) -> Time {
        (self.progress_at + self.spec.overdue).max(self.extended)
    }

    /// When it counts as ready, if no check says so.
    fn settles_at(&self) -> Option<Time> {
        let rest = limit::SETTLE.saturating_sub(self.before);
        self.panel.is_empty().then(|| self.since + rest)
    }

    /// Whether it can be used now.
    pub(super) fn is_ready(&self, now: Time) -> bool {
        let runs = self.pid.is_some() && self.ending.is_none();
        runs && self.settles_at().map_or_else(|| self.panel.is_ready(), |at| at <= now)
    }

    /// Its checks do not pass any more.
    pub(super) fn unready(&mut self, now: Time) {
        if let Some(since) = self.ready_since.take() {
            self.ready_for = now - since;
        }
    }

    /// What came of a check.
    pub(super) fn on_probed(&mut self, now: Time, phase: Phase, index: usize, seen: Seen) {
        if !self.is_kept() {
            return;
        }
        if let Finding::Starting { progress, words } = &seen.finding {
            self.progress(now, *progress, words.clone());
        }
        self.panel.handle_probed(now, phase, index, seen);
    }

    /// What it said.
    pub(super) fn on_word(&mut self, now: Time, word: Word) {
        if !self.is_kept() {
            return;
        }
        match word {
            Word::Ready => self.panel.handle_word(now, true),
            Word::Stopping => self.panel.handle_word(now, false),
            Word::Watchdog => self.panel.handle_watchdog(now),
            Word::Extend(time) => {
                self.extended = self.extended.max(now + time.min(limit::EXTEND_MAX));
            }
            Word::Status(status) => {
                let status = bounded(status);
                let progress = self.said.as_ref().and_then(|(progress, _)| *progress);
                self.progress(now, progress, status.clone());
                self.status = Some(status);
            }
            Word::Progress(progress) => {
                let words = self.status.clone().unwrap_or_default();
                self.progress(now, Some(progress), words);
            }
        }
    }

    /// Whatever differs from what was said before is progress.
    fn progress(&mut self, now: Time, progress: Option<Progress>, words: String) {
        let said = Some((progress, words));
        if self.said != said {
            self.said = said;
            self.progress_at = now;
        }
    }

    /// Why its `recycle` wants another one in its place.
    pub(super) fn uses_too_much(
        &self,
        memory: Option<u64>,
        requests: Option<u64>,
    ) -> Option<String> {
        let over = |value: Option<u64>, limit: Option<u64>| match (value, limit) {
            (Some(value), Some(limit)) if value > limit => Some((value, limit)),
            _ => None,
        };
        if let Some((value, limit)) = over(memory, self.recycle.memory) {
            return Some(format!("it uses {value} bytes of memory, more than {limit}"));
        }
        let (value, limit) = over(requests, self.recycle.requests)?;
        Some(format!("it has served {value} requests, more than {limit}"))
    }

    /// What it is waited for.
    pub(super) fn awaited(&self) -> Option<Awaited> {
        if self.pid.is_none() || self.ready_since.is_some() {
            return None;
        }
        let mut awaited = self.panel.awaited()?;
        if let Some((progress, words)) = &self.said
            && awaited.progress.is_none()
            && self.status.is_some()
        {
            awaited.progress = *progress;
            let progress = progress.map(|progress| format!(", {progress}")).unwrap_or_default();
            awaited.words = format!("{} (it says: {words}{progress})", awaited.words);
        }
        Some(awaited)
    }

    /// How far its end has come, in words.
    pub(super) fn ending_words(&self) -> Option<String> {
        let ending = self.ending.as_ref()?;
        let stop = self.spec.stop;
        let what = match (ending.step, &self.exited) {
            (Step::Unborn, _) => "it is told to end as soon as it has started".to_owned(),
            (Step::Settling(_), _) => "what it left behind may end".to_owned(),
            (Step::Told(_), None) => {
                format!("told with {}, killed after {}", stop.signal.name(), Lasting(stop.grace))
            }
            (Step::Told(_), Some(_)) => format!(
                "what it left behind is told with {}, killed after {}",
                stop.signal.name(),
                Lasting(stop.grace)
            ),
            (Step::Killed { said: false, .. }, _) => "killed".to_owned(),
            (Step::Killed { said: true, .. }, _) => {
                "killed, and something of it does not end: it hangs in the kernel".to_owned()
            }
        };
        Some(if ending.words.is_empty() { what } else { format!("{}; {what}", ending.words) })
    }

    /// How long it took to be ready, if it is so now for the first time. Nobody knows it of what was adopted.
    pub(super) fn took(&self, now: Time) -> Option<Duration> {
        (!self.adopted).then(|| now - self.since)
    }

    /// How long it has been there.
    pub(super) fn age(&self, now: Time) -> Duration {
        (now - self.since).saturating_add(self.before)
    }

    pub(super) fn view(&self) -> ProcessView {
        ProcessView {
            instance: self.instance,
            pid: self.pid,
            since: self.since,
            before: self.before,
            adopted: self.adopted,
            interpreter: self.interpreter.clone(),
            ready: self.ready_since.is_some(),
            status: self.status.clone(),
        }
    }
}
