//! The steps of one request.
//!
//! Every target is asked once, in its order, and nobody pays for that but the chain's length. To ask one *again* costs
//! a token of the [`Budget`], and happens before the next is asked if the wait is short, or when no other is left.

use std::{sync::Arc, time::Duration};

use bowline_proto::Time;

use super::{Budget, Health, Policy, TargetId, Timeouts, Verdict, health::doubled};
use crate::wire::{Fault, Retry};

/// One request on its way along its targets.
#[derive(Debug)]
pub struct Chain {
    policy: Arc<Policy>,
    targets: Vec<TargetId>,
    /// How each target stands, in the same order.
    tried: Vec<Tried>,
    started: Time,
    deadline: Time,
    phase: Phase,
    /// Attempts so far.
    number: u32,
    /// Whether a target was not asked because there was no permit for it.
    refused: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this target.
    Attempt {
        /// Whom.
        target: TargetId,
        /// Which attempt of the request this is, from 1.
        number: u32,
        /// When a plain answer must be whole, and a stream must have said something: the attempt's share of the
        /// deadline, so that those who come after it have time left. The last that can be asked has all of it.
        /// A stream that has said something is bound by [`Chain::deadline`] alone.
        until: Time,
        /// Until when its permit may be waited for: not for long where another target could be asked instead.
        /// Without one by then, it is [`Chain::on_refused`].
        permit_until: Time,
        /// Why this target.
        reason: Reason,
    },
    /// Ask again at this time; every target is to be left alone until then.
    Wait {
        /// When.
        until: Time,
    },
    /// There is nothing left to do.
    Exhausted(Exhausted),
}

/// Why a target was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is the first of its chain.
    First,
    /// Those before it have failed.
    Fallback,
    /// Those before it are left alone just now and were not asked.
    Skipped,
    /// It has failed, and is asked again.
    Retry,
}

impl Reason {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Fallback => "fallback",
            Self::Skipped => "skipped",
            Self::Retry => "retry",
        }
    }
}

/// A request that nobody is asked for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// Why.
    pub why: ExhaustedWhy,
    /// When a target that is left alone is to be asked again, if that is known: `retry-after`.
    pub retry_after: Option<Duration>,
}

/// Why nobody is asked any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExhaustedWhy {
    /// The last fault is the client's own: nobody else would answer better.
    Refused,
    /// Every target has failed, or is left alone.
    Failed,
    /// One could be asked again, but retries are used up.
    Budget,
    /// No target is to be asked just now, and none was: all are open, parked or down.
    Unavailable,
    /// None was asked, and of at least one because there was no permit for it.
    Busy,
    /// The deadline has passed, or would before a target may be asked again.
    Deadline,
}

impl ExhaustedWhy {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Budget => "budget",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Deadline => "deadline",
        }
    }
}

/// How a target stands in this request.
#[derive(Debug, Clone, Copy, Default)]
struct Tried {
    times: u32,
    /// It is not asked any more.
    out: bool,
    /// When it failed, and how long it wants to be left alone.
    failed: Option<(Time, Option<Duration>)>,
}

/// Where the request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody was asked yet.
    New,
    /// One was asked and has not answered.
    Asked { at: usize, since: Time },
    /// The last one asked has failed.
    Failed { at: usize },
    /// One is asked again at this time; it is paid for.
    Again { at: usize, ready: Time },
    /// Whoever can be asked.
    Idle,
    /// Nothing helps any more, or is needed.
    Over,
}

impl Chain {
    /// A request that arrived at `started` and may be tried at these targets, in this order. `client_deadline` is
    /// how long its client waits, if it has said so; it is answered a little before.
    pub fn new(
        targets: &[TargetId],
        policy: &Arc<Policy>,
        started: Time,
        client_deadline: Option<Duration>,
    ) -> Self {
        let client = client_deadline.map(|waits| waits - (waits / 20).min(CLIENT_MARGIN));
        let deadline =
            started + client.map_or(policy.deadline, |client| client.min(policy.deadline));
        Self {
            policy: Arc::clone(policy),
            targets: targets.to_vec(),
            tried: vec![Tried::default(); targets.len()],
            started,
            deadline,
            phase: Phase::New,
            number: 0,
            refused: false,
        }
    }

    /// What to do now. After an attempt, tell how it ended first: [`on_ok`](Self::on_ok),
    /// [`on_fault`](Self::on_fault), [`on_refused`](Self::on_refused) or [`on_cancelled`](Self::on_cancelled).
    ///
    /// `random` is any number, fresh each time.
    pub fn next(
        &mut self,
        now: Time,
        health: &mut Health,
        budget: &mut Budget,
        random: u64,
    ) -> Step {
        debug_assert!(!matches!(self.phase, Phase::Asked { .. }), "an attempt has not ended");
        if self.phase == Phase::New {
            budget.on_request(now);
            self.phase = Phase::Idle;
        }
        if self.phase == Phase::Over {
            return exhausted(ExhaustedWhy::Refused, None);
        }
        if now >= self.deadline {
            return exhausted(ExhaustedWhy::Deadline, None);
        }
        if let Phase::Again { at, ready } = self.phase {
            if now < ready {
                return Step::Wait { until: ready };
            }
            if may_pass(health.verdict(now, &self.targets[at], random)) {
                return self.attempt(now, at, health, random);
            }
            // It has been given up meanwhile, by others. What was paid is lost: that is what it cost them.
            self.phase = Phase::Idle;
        }
        let fresh = self.fresh(now, health, random);
        if let Phase::Failed { at } = self.phase {
            self.phase = Phase::Idle;
            let ready = self.ready_again(now, at, health, random);
            // Not so long that little is left for those who could be asked instead.
            let patience = self.policy.patience.min(self.deadline.since(now) / 4);
            let short = ready.is_some_and(|ready| ready.since(now) <= patience);
            if let Some(ready) = ready.filter(|_| short && fresh.is_some())
                && budget.take(now)
            {
                return self.again(now, at, ready, health, random);
            }
        }
        match fresh {
            Some(at) => self.attempt(now, at, health, random),
            None => self.without_fresh(now, health, budget, random),
        }
    }

    /// The stream of the attempt has said something: its target is there again, if it was not. The attempt goes on.
    pub fn on_content(&mut self, now: Time, health: &mut Health) {
        if let Phase::Asked { at, since } = self.phase {
            health.on_content(now, &self.targets[at], since);
        }
    }

    /// The attempt was answered well, to its end.
    pub fn on_ok(&mut self, now: Time, health: &mut Health) {
        if let Some((at, since)) = self.ended(Phase::Over) {
            health.on_ok(now, &self.targets[at], since);
        }
    }

    /// The attempt has failed. Also of a stream that failed after its first content, when no further step follows.
    pub fn on_fault(&mut self, now: Time, fault: &Fault, health: &mut Health) {
        let Some((at, since)) = self.ended(Phase::Idle) else { return };
        health.on_fault(now, &self.targets[at], since, fault);
        let tried = &mut self.tried[at];
        tried.failed = Some((now, fault.after.max(fault.park)));
        match fault.retry {
            Retry::Never => self.phase = Phase::Over,
            Retry::Next => tried.out = true,
            Retry::Same if tried.times > self.policy.retries => tried.out = true,
            Retry::Same => self.phase = Phase::Failed { at },
        }
    }

    /// There is a permit for the attempt, perhaps after a long wait: it begins now. `false` if its target has been
    /// given up meanwhile, by others: then it was never made, and [`next`](Self::next) says what to do instead.
    pub fn on_permit(&mut self, now: Time, health: &mut Health) -> bool {
        let Phase::Asked { at, since } = self.phase else { return true };
        let target = &self.targets[at];
        // If it is the probe, it has probed nothing while it waited.
        health.on_nothing(target, since);
        if may_pass(health.verdict(now, target, 0)) {
            health.begin(now, target);
            self.phase = Phase::Asked { at, since: now };
            return true;
        }
        self.phase = Phase::Idle;
        self.tried[at].times -= 1;
        self.number -= 1;
        false
    }

    /// The attempt was never made: there was no permit for it in time. Nobody is to blame; the target is not asked
    /// again for this request, and the attempt is not counted.
    pub fn on_refused(&mut self, health: &mut Health) {
        let Some((at, since)) = self.ended(Phase::Idle) else { return };
        health.on_nothing(&self.targets[at], since);
        self.tried[at].out = true;
        self.number -= 1;
        self.refused = true;
    }

    /// The client has left during the attempt. May be called from a `Drop`, also when no attempt is under way.
    pub fn on_cancelled(&mut self, health: &mut Health) {
        if let Some((at, since)) = self.ended(Phase::Over) {
            health.on_nothing(&self.targets[at], since);
        }
    }

    /// When the request must be over.
    pub fn deadline(&self) -> Time {
        self.deadline
    }

    /// Until when a streaming client's headers may be held back.
    pub fn hold_until(&self) -> Time {
        (self.started + self.policy.hold_headers).min(self.deadline)
    }

    /// The policy that the request began with.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// How long an attempt with these timers must have lasted until it says something of its target that it was not
    /// over in time: half of what it has if its client waits as long as the policy does, and nobody waits for
    /// permits. With less the target was not slow; there was no time.
    pub fn judged_after(&self, timeouts: &Timeouts) -> Duration {
        let targets = u32::try_from(self.targets.len()).unwrap_or(u32::MAX).max(1);
        timeouts.total.min(self.policy.deadline / targets) / 2
    }

    /// Whom it may be tried at.
    pub fn targets(&self) -> &[TargetId] {
        &self.targets
    }

    /// The attempt that is under way has ended: which target, and when it began.
    fn ended(&mut self, next: Phase) -> Option<(usize, Time)> {
        let Phase::Asked { at, since } = self.phase else { return None };
        self.phase = next;
        Some((at, since))
    }

    fn attempt(&mut self, now: Time, at: usize, health: &mut Health, random: u64) -> Step {
        let reason = match (self.tried[at].times, self.number, at) {
            (1.., ..) => Reason::Retry,
            (0, 1.., _) => Reason::Fallback,
            (0, 0, 0) => Reason::First,
            (0, 0, _) => Reason::Skipped,
        };
        let target = self.targets[at].clone();
        health.begin(now, &target);
        self.tried[at].times += 1;
        self.number += 1;
        self.phase = Phase::Asked { at, since: now };
        let others = self.fresh_ones(now, health, random).count();
        let share = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
        let until = now + self.deadline.since(now) / share;
        let permit_until = if others > 0 { until.min(now + self.policy.patience) } else { until };
        Step::Attempt { target, number: self.number, until, permit_until, reason }
    }

    fn again(
        &mut self,
        now: Time,
        at: usize,
        ready: Time,
        health: &mut Health,
        random: u64,
    ) -> Step {
        if ready <= now {
            return self.attempt(now, at, health, random);
        }
        self.phase = Phase::Again { at, ready };
        Step::Wait { until: ready }
    }

    /// Whom nobody has asked yet and who may be asked: the first who is well, else the first on its way back.
    fn fresh(&self, now: Time, health: &Health, random: u64) -> Option<usize> {
        let verdict = |at: &usize| health.verdict(now, &self.targets[*at], random);
        let well = self.fresh_ones(now, health, random).find(|at| verdict(at) == Verdict::Pass);
        well.or_else(|| self.fresh_ones(now, health, random).next())
    }

    fn fresh_ones(&self, now: Time, health: &Health, random: u64) -> impl Iterator<Item = usize> {
        self.untried().filter(move |at| may_pass(health.verdict(now, &self.targets[*at], random)))
    }

    fn untried(&self) -> impl Iterator<Item = usize> {
        let tried = self.tried.iter().enumerate();
        tried.filter(|(_, tried)| tried.times == 0 && !tried.out).map(|(at, _)| at)
    }

    /// Nobody is left who was not asked and could be: one that has failed is asked again, or one is waited for.
    fn without_fresh(
        &mut self,
        now: Time,
        health: &mut Health,
        budget: &mut Budget,
        random: u64,
    ) -> Step {
        let retries = (0..self.targets.len()).filter(|at| self.tried[*at].times > 0);
        let retries =
            retries.filter_map(|at| Some((self.ready_again(now, at, health, random)?, at)));
        let retry = retries.min();
        let parked =
            self.untried().filter_map(|at| match health.verdict(now, &self.targets[at], 0) {
                Verdict::No(_, until) => Some(until),
                Verdict::Pass | Verdict::Rather => None,
            });
        let parked = parked.min();
        let retry_after = || {
            let soonest = parked.into_iter().chain(retry.map(|(ready, _)| ready)).min();
            let said = self.tried.iter().filter_map(|tried| {
                let (failed, after) = tried.failed?;
                Some(failed + after?)
            });
            soonest.into_iter().chain(said).min().map(|until| until.since(now))
        };
        if let Some((ready, at)) = retry {
            let why = match ready.since(now) {
                _ if ready >= self.deadline => ExhaustedWhy::Deadline,
                wait if wait > self.policy.wait_max => ExhaustedWhy::Failed,
                _ if budget.take(now) => return self.again(now, at, ready, health, random),
                _ => ExhaustedWhy::Budget,
            };
            return exhausted(why, retry_after());
        }
        if let Some(until) = parked
            && until.since(now) <= self.policy.patience
            && until < self.deadline
            && self.number == 0
        {
            // All who wait for it would come in one moment.
            let until = until + jitter(self.policy.backoff, random);
            return Step::Wait { until: until.min(self.deadline) };
        }
        let why = match self.number {
            1.. => ExhaustedWhy::Failed,
            0 if self.refused => ExhaustedWhy::Busy,
            0 => ExhaustedWhy::Unavailable,
        };
        exhausted(why, retry_after())
    }

    /// When a target that has failed may be asked again; `None` if it is not to be.
    fn ready_again(&self, now: Time, at: usize, health: &Health, random: u64) -> Option<Time> {
        let Tried { times, out, failed } = self.tried[at];
        let (failed, after) = failed.filter(|_| !out)?;
        let backoff =
            doubled(self.policy.backoff, times.saturating_sub(1), self.policy.backoff_max);
        // A little beyond what was said too: others were told the same.
        let wait = after.unwrap_or_default()
            + jitter(if after.is_some() { self.policy.backoff } else { backoff }, random);
        let ready = (failed + wait).max(now);
        match health.verdict(now, &self.targets[at], random) {
            Verdict::Pass | Verdict::Rather => Some(ready),
            Verdict::No(super::BreakerState::Parked, until) => Some(ready.max(until)),
            Verdict::No(..) => None,
        }
    }
}

/// A client that says how long it waits hears of a failure a twentieth of that before, but at most so much: enough for
/// the answer to travel, too little to matter.
const CLIENT_MARGIN: Duration = Duration::from_secs(1);

fn may_pass(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Pass | Verdict::Rather)
}

/// Full jitter: anything up to `most`.
fn jitter(most: Duration, random: u64) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random % micros.saturating_add(1).max(1))
}

fn exhausted(why: ExhaustedWhy, retry_after: Option<Duration>) -> Step {
    Step::Exhausted(Exhausted { why, retry_after })
}

#[cfg(test)]
mod tests;
