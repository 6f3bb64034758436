//! The way to the next connection: pauses, the budget, opening, proof; and what many failures lead to.

use std::time::Duration;

use super::{
    Config, ConnectionId, OpenFailure, Reason, Rung, Verdict,
    chance::Chance,
    connection::{Connection, doubled},
};
use crate::Time;

/// The longest that a service may ask to be left alone. A mistake there would else silence a link for good.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A connection that is being made.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) reason: Reason,
    /// Since when it is wished for, over all attempts.
    pub(super) wished: Time,
    pub(super) stage: Stage,
}

/// How far it has come.
///
/// ```text
/// Pausing ── over ──▶ Reserved ── slot ──▶ Slotted ── its time ──▶ Opening ── open ──▶ Proving ── proved ──▶ in use
///    ▲                                                                │                   │
///    └──────────────────────────── failed ────────────────────────────┴───────────────────┘
/// ```
#[derive(Debug)]
pub(super) enum Stage {
    /// Until then nothing is done; why the last one failed.
    Pausing { until: Time, verdict: Verdict },
    /// The budget was asked, and is asked again if it says nothing until then.
    Reserved { until: Time },
    /// It said when.
    Slotted { at: Time },
    /// Given up then.
    Opening { connection: ConnectionId, until: Time },
    /// Open beside the one in use; decided then if it could not be probed.
    Proving { connection: Box<Connection>, until: Time },
}

impl Attempt {
    pub(super) fn new(reason: Reason, wished: Time, stage: Stage) -> Self {
        Self { reason, wished, stage }
    }

    /// The connection that is being proved.
    pub(super) fn proving_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.stage {
            Stage::Proving { connection, .. } => Some(connection),
            Stage::Pausing { .. }
            | Stage::Reserved { .. }
            | Stage::Slotted { .. }
            | Stage::Opening { .. } => None,
        }
    }

    /// Whether nothing was begun outside that would have to be ended.
    pub(super) fn waits(&self) -> bool {
        match self.stage {
            Stage::Pausing { .. } | Stage::Reserved { .. } | Stage::Slotted { .. } => true,
            Stage::Opening { .. } | Stage::Proving { .. } => false,
        }
    }
}

/// Whether the connection in use works, and one could do without a new one.
pub(super) fn is_elective(reason: Reason) -> bool {
    match reason {
        Reason::Age | Reason::Asked => true,
        Reason::First | Reason::Lost | Reason::Silent | Reason::Drain | Reason::Unrouted => false,
    }
}

/// Whether a verdict is one for a long pause.
pub(super) fn is_refusal(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Replaced | Verdict::Unauthorized | Verdict::Refused => true,
        Verdict::Again | Verdict::Elsewhere => false,
    }
}

/// What failures in a row lead to.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    /// Attempts that failed in a row. A connection that ended before it settled counts.
    failures: u32,
    /// Pauses in a row.
    pauses: u32,
    /// The last failure asks for another address.
    elsewhere: bool,
    /// The highest rung that was reached since.
    rung: Option<Rung>,
    /// When all this is forgotten: the connection in use has been live for long enough then.
    pub(super) settles: Option<Time>,
    /// What the service asked for when it refused an attempt; outlives what it was made for.
    pub(super) not_before: Time,
}

impl Ladder {
    /// An attempt failed, or what it led to did not last.
    pub(super) fn failed(&mut self, verdict: Verdict) {
        self.failures = self.failures.saturating_add(1);
        self.elsewhere |= verdict == Verdict::Elsewhere;
    }

    /// A person asks for an attempt: the pauses begin anew.
    pub(super) fn forgive(&mut self) {
        self.pauses = 0;
        // A person's wish counts for more than what the service asked for.
        self.not_before = Time::ZERO;
    }

    /// A connection has lasted: what came before it is forgotten, but for what the service asked for.
    pub(super) fn settle(&mut self) {
        *self = Self { not_before: self.not_before, ..Self::default() };
    }

    /// The next address is another one.
    pub(super) fn go_elsewhere(&mut self) {
        self.elsewhere = true;
    }

    /// The pause before the next attempt: full jitter, with longer and longer bounds.
    pub(super) fn pause(&mut self, config: &Config, chance: &mut Chance) -> Duration {
        let longest = doubled(config.backoff_first, self.pauses).min(config.backoff_max);
        self.pauses = self.pauses.saturating_add(1);
        chance.up_to(longest)
    }

    /// The pause before a connection is replaced that does not work: none, unless there was trouble just before.
    pub(super) fn pause_in_trouble(&mut self, config: &Config, chance: &mut Chance) -> Duration {
        if self.failures == 0 && self.pauses == 0 {
            Duration::ZERO
        } else {
            self.pause(config, chance)
        }
    }

    /// The next attempt is made on this rung: whether the address and the pool are fresh, and the rung if it is one
    /// that was not reached before.
    pub(super) fn climb(&mut self, config: &Config) -> (bool, bool, Option<Rung>) {
        let pool = self.failures >= config.pool_after.max(1);
        let address = pool || self.failures >= config.address_after.max(1);
        let rung = match (pool, address) {
            (true, _) => Some(Rung::Pool),
            (false, true) => Some(Rung::Address),
            (false, false) => (self.failures > 0).then_some(Rung::Retry),
        };
        let new = rung.filter(|_| rung > self.rung);
        self.rung = self.rung.max(rung);
        (address || std::mem::take(&mut self.elsewhere), pool, new)
    }
}

/// The long pause of those that were told to stay away.
pub(super) fn long_pause(config: &Config, chance: &mut Chance) -> Duration {
    config.refused_pause.saturating_add(chance.up_to(config.refused_pause))
}

/// How long the service wants to be left alone.
pub(super) fn asked_pause(why: &OpenFailure) -> Duration {
    why.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)
}
