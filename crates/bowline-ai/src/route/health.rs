//! How every target has been lately, and whether it is to be asked.
//!
//! Two things are kept apart: whether a target is *well* (its breaker), and whether it will *have us* (parked, by a
//! 429 or a used-up allowance). Only faults of the provider and of the network say something of the first.

use std::{collections::BTreeMap, time::Duration};

use bowline_proto::Time;
use http::StatusCode;

use super::{BreakerPolicy, TargetId, window::Window};
use crate::wire::{Blame, Fault, FaultKind};

/// The share of its traffic that a target has back at once when a probe went well, in a thousand. Enough to be told
/// within a second at ten requests a second whether that was luck.
const RAMP_FIRST: u64 = 100;

/// A provider that says 403, or that it does not know something, may mean this one request, so it takes as many of them
/// in a row, with nothing answered between them, until its target is down. 401 and an empty account mean everybody.
const DOUBTFUL: u32 = 3;

/// GLM's code for "you may not use this API", whatever its status: it means what was asked for, and not the key.
const NOT_FOR_THIS: &str = "1220";

const OK: usize = 0;
const BAD: usize = 1;

/// The breakers of all targets. Bounded: it knows the configured targets and no others.
#[derive(Debug)]
pub struct Health {
    policy: BreakerPolicy,
    targets: BTreeMap<TargetId, Breaker>,
}

/// What a breaker does with the requests for its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreakerState {
    /// All is well, all may pass.
    Closed,
    /// A probe went well: a rising share passes.
    Ramp,
    /// It has rested: one request may pass and shows whether it is well again.
    HalfOpen,
    /// It has failed too often: nobody passes.
    Open,
    /// It has said until when it will answer nobody.
    Parked,
    /// Key refused, account in arrears, no such model: nobody passes but a rare probe, until somebody mends it.
    Down,
}

/// Whether a target is to be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be.
    Pass,
    /// It may be if nobody else can: it is on its way back.
    Rather,
    /// Not before this time.
    No(BreakerState, Time),
}

/// A target as metrics and the API show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetState {
    /// Which.
    pub target: TargetId,
    /// What its breaker does.
    pub state: BreakerState,
    /// For how long it has not been closed; zero if it is.
    pub age: Duration,
    /// When it is tried again; `None` where somebody may pass now.
    pub opens_in: Option<Duration>,
    /// Faults of the provider in a row.
    pub failures: u32,
    /// The last fault that was not a client's, and its words.
    pub last_fault: Option<(FaultKind, String)>,
}

#[derive(Debug)]
struct Breaker {
    state: State,
    /// When it opened or went down, or was reset: what began before says nothing any more.
    since: Time,
    parked: Option<Parked>,
    failures: u32,
    recent: Window,
    /// How often it has opened since it was last closed.
    rests: u32,
    /// 429 in a row that say nothing of when, each asked after the one before was heard: what a burst is told all at
    /// once is told once.
    limited: u32,
    limited_at: Time,
    /// Doubtful faults in a row.
    doubtful: u32,
    last_fault: Option<(FaultKind, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Nobody passes until then, and after that one probe at a time.
    Open {
        until: Time,
        probe: Option<Probe>,
        down: bool,
    },
    /// A probe went well at that time.
    Ramp {
        from: Time,
    },
}

/// A request that shows whether a target is well again. It is forgotten after a while, so that one that never ends
/// keeps nobody from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    started: Time,
    forgotten: Time,
}

#[derive(Debug, Clone, Copy)]
struct Parked {
    since: Time,
    until: Time,
}

impl BreakerState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Closed, Self::Ramp, Self::HalfOpen, Self::Open, Self::Parked, Self::Down];

    /// The name operators see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Ramp => "ramp",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
            Self::Parked => "parked",
            Self::Down => "down",
        }
    }

    /// The value of `bowline_ai_breaker_state`: 0 closed, 1 ramp, 2 half-open, 3 open, 4 parked, 5 down.
    pub fn number(self) -> u64 {
        self as u64
    }
}

impl Health {
    /// Breakers for these targets, all closed.
    pub fn new(policy: BreakerPolicy, targets: impl IntoIterator<Item = TargetId>) -> Self {
        let mut health = Self { policy: BreakerPolicy::default(), targets: BTreeMap::new() };
        health.reconfigure(Time::ZERO, policy, targets);
        health
    }

    /// A configuration was loaded: targets that are gone are forgotten, what was down or parked is trusted again,
    /// everything else stays as it is.
    pub fn reconfigure(
        &mut self,
        now: Time,
        policy: BreakerPolicy,
        targets: impl IntoIterator<Item = TargetId>,
    ) {
        let mut known = std::mem::take(&mut self.targets);
        let keep = |target: TargetId| {
            let mut breaker = known.remove(&target).unwrap_or_else(|| Breaker::new(&policy));
            breaker.parked = None;
            if policy.window != self.policy.window {
                breaker.recent = Window::new(policy.window);
            }
            if breaker.is_down() {
                breaker.reset(now);
            }
            (target, breaker)
        };
        self.targets = targets.into_iter().map(keep).collect();
        self.policy = policy;
    }

    /// Somebody says that this target is well again.
    pub fn reset(&mut self, now: Time, target: &TargetId) {
        if let Some(breaker) = self.targets.get_mut(target) {
            breaker.reset(now);
        }
    }

    /// All targets, in their order.
    pub fn states(&self, now: Time) -> Vec<TargetState> {
        let state = |(target, breaker): (&TargetId, &Breaker)| {
            let (state, since, until) = breaker.shown(now, &self.policy);
            TargetState {
                target: target.clone(),
                state,
                age: since.map_or(Duration::ZERO, |since| now.since(since)),
                opens_in: until.map(|until| until.since(now)),
                failures: breaker.failures,
                last_fault: breaker.last_fault.clone(),
            }
        };
        self.targets.iter().map(state).collect()
    }

    /// Whether it is to be asked. Nothing changes; a [`Chain`](super::Chain) that asks it says so. A target that is
    /// not configured any more may be asked by the requests that still know it.
    pub fn verdict(&self, now: Time, target: &TargetId, random: u64) -> Verdict {
        let Some(breaker) = self.targets.get(target) else { return Verdict::Pass };
        match breaker.shown(now, &self.policy) {
            (state, _, Some(until)) => Verdict::No(state, until),
            (BreakerState::Ramp, ..) if random % 1_000 >= breaker.share(now, &self.policy) => {
                Verdict::Rather
            }
            _ => Verdict::Pass,
        }
    }

    /// It is asked now. If it is half-open or down, this is the probe.
    pub(super) fn begin(&mut self, now: Time, target: &TargetId) {
        let forgotten = now + self.policy.probe;
        if let Some(State::Open { until, probe, .. }) = self.state(target)
            && now >= *until
        {
            *probe = Some(Probe { started: now, forgotten });
        }
    }

    /// The attempt that began at `started` was answered well.
    pub(super) fn on_ok(&mut self, now: Time, target: &TargetId, started: Time) {
        let Some(breaker) = self.targets.get_mut(target) else { return };
        if started < breaker.since {
            return;
        }
        breaker.recent.add(now, OK, 1);
        (breaker.failures, breaker.limited, breaker.doubtful) = (0, 0, 0);
        breaker.on_answer(now, &self.policy);
    }

    /// The stream that began at `started` has said something. It may still end badly, but a probe has shown what it
    /// was to show, and nobody has to wait for its end, which may be minutes away.
    pub(super) fn on_content(&mut self, now: Time, target: &TargetId, started: Time) {
        let Some(breaker) = self.targets.get_mut(target) else { return };
        if started >= breaker.since {
            breaker.on_answer(now, &self.policy);
        }
    }

    /// The attempt that began at `started` has failed.
    pub(super) fn on_fault(&mut self, now: Time, target: &TargetId, started: Time, fault: &Fault) {
        self.forget_probe(target, started);
        let policy = &self.policy;
        let Some(breaker) = self.targets.get_mut(target) else { return };
        if fault.blames == Blame::Client {
            return;
        }
        breaker.last_fault = Some((fault.kind, fault.words.clone()));
        breaker.park(now, started, fault, policy);
        if started < breaker.since {
            return;
        }
        match fault.blames {
            Blame::Client => {}
            Blame::Account => breaker.on_account_fault(now, fault, policy),
            Blame::Provider | Blame::Network => breaker.on_failure(now, policy),
        }
    }

    /// The attempt that began at `started` ended without saying anything about its target.
    pub(super) fn on_nothing(&mut self, target: &TargetId, started: Time) {
        self.forget_probe(target, started);
    }

    fn forget_probe(&mut self, target: &TargetId, ended: Time) {
        if let Some(State::Open { probe, .. }) = self.state(target)
            && probe.is_some_and(|probe| probe.started == ended)
        {
            *probe = None;
        }
    }

    fn state(&mut self, target: &TargetId) -> Option<&mut State> {
        self.targets.get_mut(target).map(|breaker| &mut breaker.state)
    }
}

impl Breaker {
    fn new(policy: &BreakerPolicy) -> Self {
        Self {
            state: State::Closed,
            since: Time::ZERO,
            parked: None,
            failures: 0,
            recent: Window::new(policy.window),
            rests: 0,
            limited: 0,
            limited_at: Time::ZERO,
            doubtful: 0,
            last_fault: None,
        }
    }

    /// The state as operators see it, since when it is not closed, and until when nobody passes.
    fn shown(
        &self,
        now: Time,
        policy: &BreakerPolicy,
    ) -> (BreakerState, Option<Time>, Option<Time>) {
        let parked = self.parked.filter(|parked| now < parked.until);
        match (self.state, parked) {
            (State::Open { until, probe, down: true }, parked) => {
                let until = blocked(now, until, probe).max(parked.map(|parked| parked.until));
                (BreakerState::Down, Some(self.since), until)
            }
            (_, Some(Parked { since, until })) => (BreakerState::Parked, Some(since), Some(until)),
            (State::Open { until, probe, .. }, None) => {
                let state = if now < until { BreakerState::Open } else { BreakerState::HalfOpen };
                (state, Some(self.since), blocked(now, until, probe))
            }
            (State::Ramp { from }, None) if now.since(from) < policy.ramp => {
                (BreakerState::Ramp, Some(self.since), None)
            }
            (State::Ramp { .. } | State::Closed, None) => (BreakerState::Closed, None, None),
        }
    }

    /// Which share of the traffic passes in the ramp, in a thousand.
    fn share(&self, now: Time, policy: &BreakerPolicy) -> u64 {
        let State::Ramp { from } = self.state else { return 1_000 };
        let ramp = policy.ramp.as_micros().max(1);
        let share = now.since(from).as_micros().saturating_mul(1_000) / ramp;
        u64::try_from(share).unwrap_or(1_000).max(RAMP_FIRST)
    }

    fn is_resting(&self, now: Time) -> bool {
        matches!(self.state, State::Open { until, .. } if now < until)
    }

    fn is_down(&self) -> bool {
        matches!(self.state, State::Open { down: true, .. })
    }

    /// It answers: if that was the probe, it is on its way back.
    fn on_answer(&mut self, now: Time, policy: &BreakerPolicy) {
        match self.state {
            // No probe, but one that was asked in the same moment as the one that opened it.
            State::Open { .. } if self.is_resting(now) => {}
            State::Open { down: true, .. } => self.reset(now),
            State::Open { down: false, .. } => {
                self.recent.clear();
                self.state = State::Ramp { from: now };
            }
            State::Ramp { from } if now.since(from) >= policy.ramp => self.close(),
            State::Ramp { .. } | State::Closed => {}
        }
    }

    /// It has said until when it will have nobody; or it says 429 again and again and does not say until when.
    fn park(&mut self, now: Time, started: Time, fault: &Fault, policy: &BreakerPolicy) {
        let for_how_long = match (fault.after.max(fault.park), fault.kind) {
            (Some(said), _) => said.min(policy.park_max),
            // Fewer at once is what helps, and is seen to where the permits are.
            (None, FaultKind::RateLimited) if !fault.crowded && started >= self.limited_at => {
                self.limited = self.limited.saturating_add(1);
                self.limited_at = now;
                let Some(doublings) = self.limited.checked_sub(policy.limited.max(1)) else {
                    return;
                };
                doubled(Duration::from_secs(1), doublings, policy.limited_max)
            }
            (None, _) => return,
        };
        let until = now + for_how_long;
        let earlier = self.parked.filter(|parked| now < parked.until);
        self.parked = Some(Parked {
            since: earlier.map_or(now, |parked| parked.since),
            until: earlier.map_or(until, |parked| parked.until.max(until)),
        });
    }

    /// Key, balance, allowance, configured model.
    fn on_account_fault(&mut self, now: Time, fault: &Fault, policy: &BreakerPolicy) {
        let hard = fault.kind.is_hard_down() || fault.kind == FaultKind::NotFound;
        if !hard {
            return;
        }
        let doubtful = fault.kind == FaultKind::NotFound
            || fault.kind == FaultKind::Auth
                && (fault.status == Some(StatusCode::FORBIDDEN)
                    || fault.code.as_deref() == Some(NOT_FOR_THIS));
        self.doubtful = self.doubtful.saturating_add(1);
        if self.is_down() && self.is_resting(now) {
            return;
        }
        if !doubtful || self.doubtful >= DOUBTFUL || self.is_down() {
            self.open(now, now + policy.down, true);
        }
    }

    /// The provider, or the way to it, is not well.
    fn on_failure(&mut self, now: Time, policy: &BreakerPolicy) {
        self.failures = self.failures.saturating_add(1);
        self.recent.add(now, BAD, 1);
        let rest = |rests| now + doubled(policy.rest, rests, policy.rest_max);
        match self.state {
            State::Open { .. } if self.is_resting(now) => {}
            // The probe.
            State::Open { down: true, .. } => self.open(now, now + policy.down, true),
            State::Open { .. } => self.open(now, rest(self.rests), false),
            State::Ramp { .. } if self.is_bad(now, 2, policy) => {
                self.open(now, rest(self.rests), false)
            }
            State::Closed if self.failures >= policy.failures.max(1) => {
                self.open(now, rest(0), false)
            }
            State::Closed if self.is_bad(now, policy.of_at_least, policy) => {
                self.open(now, rest(0), false)
            }
            State::Ramp { .. } | State::Closed => {}
        }
    }

    /// Whether so many of the last attempts have failed, of at least so many.
    fn is_bad(&self, now: Time, of_at_least: u32, policy: &BreakerPolicy) -> bool {
        let [ok, bad] = [self.recent.sum(now, OK), self.recent.sum(now, BAD)];
        let all = ok + bad;
        all >= u64::from(of_at_least.max(1)) && bad * 100 >= all * u64::from(policy.failed_percent)
    }

    fn open(&mut self, now: Time, until: Time, down: bool) {
        let was_well = matches!(self.state, State::Closed);
        self.rests = if was_well { 1 } else { self.rests.saturating_add(1) };
        self.state = State::Open { until, probe: None, down };
        self.since = now;
    }

    fn close(&mut self) {
        self.state = State::Closed;
        (self.rests, self.failures, self.doubtful) = (0, 0, 0);
    }

    fn reset(&mut self, now: Time) {
        self.close();
        (self.since, self.parked, self.limited) = (now, None, 0);
        self.recent.clear();
    }
}

/// Until when nobody passes: for now, or because somebody else probes.
fn blocked(now: Time, until: Time, probe: Option<Probe>) -> Option<Time> {
    if now < until {
        return Some(until);
    }
    probe.map(|probe| probe.forgotten).filter(|forgotten| now < *forgotten)
}

/// `first`, doubled so many times, but at most `max`.
pub(super) fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    first.checked_mul(factor).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests;
