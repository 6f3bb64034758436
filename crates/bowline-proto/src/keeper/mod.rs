//! Keeps a link: an outbound connection that proves itself. It decides, without any IO.
//!
//! A [`Keeper`] is one link. It is driven like the [hub](crate::hub), under the same law:
//!
//! ```text
//! keeper.handle_input(now, input);
//! while let Some(output) = keeper.poll_output() { … carry it out … }
//! sleep until keeper.deadline(), then handle_input(now, Input::Timeout)
//! ```
//!
//! ```text
//!   Off ── start ──▶ Connecting ── open ──▶ Proving ── routing round trip ──▶ Live ◀── proved again ── Suspect
//!                      ▲     │ failed          │ lost, twice                   │ pongs or acks missing,   ▲
//!                      │     ▼                 ▼                               │ round trips lost twice ──┘
//!                   Waiting, Replaced, Refused ◀── the connection ended ───────┘
//! ```
//!
//! Silence never replaces a connection: it only begins a routing round trip, and before that a *look*, where the service
//! can be asked beside the connection whether it is silent indeed. A connection that is replaced is closed
//! after the new one was proved and both were open for a while; what arrives on both is made one stream by [`Merge`].
//! [`Budget`] is shared by all links to one host, [`Leg`] is the HTTP that a link needs beside its connection.
//!
//! `connection` is what is known of one that is open, `attempt` the way to the next one, `keep` what inputs lead to,
//! `renew` what deadlines lead to, and how one connection takes the place of another.

mod attempt;
mod budget;
mod chance;
mod config;
mod connection;
mod keep;
mod leg;
mod merge;
mod renew;
#[cfg(test)]
mod tests;
mod timer;
mod wall;

use std::collections::{BTreeMap, VecDeque};

use attempt::{Attempt, Ladder, Stage};
pub use budget::Budget;
use chance::Chance;
pub use config::Config;
use connection::Connection;
pub use leg::{Answered, Leg, LegConfig, LegId, Retry, Safety, Take};
pub use merge::{Merge, Merged};
pub use timer::Timer;
pub use wall::{
    ConnectionId, Input, Level, OpenFailure, Output, ProbeCause, ProbeId, ProbeOutcome, Reason,
    Report, Rung, State, Verdict,
};

use crate::Time;

/// One link, kept.
#[derive(Debug)]
pub struct Keeper {
    config: Config,
    chance: Chance,
    now: Time,
    kept: bool,
    /// The connection to send on.
    current: Option<Box<Connection>>,
    /// The one that it took the place of, for a while.
    old: Option<Old>,
    /// The one that will take its place.
    attempt: Option<Attempt>,
    ladder: Ladder,
    bot: Bot,
    /// When the last routing round trip that came back was begun.
    routed: Option<Time>,
    /// Whether something may have arrived at the service since then that no connection brought.
    owes_catch_up: bool,
    connections: u64,
    probes: u64,
    /// What was reported last.
    state: State,
    /// Why it may be otherwise after this input.
    words: String,
    outputs: VecDeque<Output>,
}

/// A connection whose place was taken.
#[derive(Debug)]
struct Old {
    connection: Box<Connection>,
    /// When it is closed.
    until: Time,
}

/// What is known of the bot.
#[derive(Debug, Default)]
struct Bot {
    handled: Option<Time>,
    /// Messages in a row that it did not handle.
    unhandled: u32,
    /// When its service was restarted last.
    restarted: Option<Time>,
}

impl Keeper {
    /// One that keeps nothing until [`Input::Start`]. All chance it needs comes from `seed`; two links of one process
    /// get different ones.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            chance: Chance::new(seed),
            now: Time::ZERO,
            kept: false,
            current: None,
            old: None,
            attempt: None,
            ladder: Ladder::default(),
            bot: Bot::default(),
            routed: None,
            owes_catch_up: false,
            connections: 0,
            probes: 0,
            state: State::Off,
            words: String::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Changes [`Config::service_after`], which has nothing to do with connections.
    pub fn set_service_after(&mut self, after: Option<u32>) {
        self.config.service_after = after;
    }

    /// Takes in what happened. Take all outputs before the next one.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        debug_assert!(self.outputs.is_empty(), "outputs are drained before the next input");
        self.now = self.now.max(now);
        self.on_input(input);
        self.tell_state();
    }

    /// What is to be done next, in this order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due, and what for. `None`: nothing is awaited, the link is off.
    pub fn deadline(&self) -> Option<(Time, Timer)> {
        let current = self.current.as_ref().and_then(|connection| {
            let beat = connection.deadline(&self.config);
            // While the next one is on its way nothing is to be done about age.
            let renew = self.attempt.is_none().then_some((connection.renew_at, Timer::Renew));
            let look = connection.next_look().map(|at| (at, Timer::Look));
            [beat, renew, look].into_iter().flatten().min()
        });
        let attempt = self.attempt.as_ref().and_then(|attempt| match &attempt.stage {
            Stage::Pausing { until, .. } => Some((*until, Timer::Pause)),
            Stage::Reserved { until } => Some((*until, Timer::Slot)),
            // Never three at a time: it waits for the old one's end.
            Stage::Slotted { at } => self.old.is_none().then_some((*at, Timer::Slot)),
            Stage::Opening { until, .. } => Some((*until, Timer::Open)),
            Stage::Proving { connection, until } => {
                let beat = connection.deadline(&self.config);
                beat.into_iter().chain([(*until, Timer::Prove)]).min()
            }
        });
        let old = self.old.as_ref().map(|old| (old.until, Timer::Overlap));
        let settle = self.ladder.settles.map(|at| (at, Timer::Settle));
        [current, attempt, old, settle].into_iter().flatten().min()
    }

    /// The state, as [`Report::State`] told it last.
    pub fn state(&self) -> State {
        self.state
    }

    /// When each level was last proved on the connection in use; `None`: never. Levels that the link does not have are
    /// absent. A routing round trip proves what was so when it was begun. [`Level::Handled`] is the bot's, and outlives
    /// connections.
    pub fn levels(&self) -> BTreeMap<Level, Option<Time>> {
        let has = |level: &Level| match level {
            Level::Tcp | Level::Handled => true,
            Level::Pong => self.config.ping_interval.is_some(),
            Level::Ack => self.config.ack_interval.is_some(),
            Level::Routing => self.config.probe_interval.is_some(),
        };
        let proof = |level: Level| match level {
            Level::Handled => self.bot.handled,
            Level::Tcp | Level::Pong | Level::Ack | Level::Routing => {
                self.current.as_ref().and_then(|connection| connection.proof(level))
            }
        };
        Level::ALL.into_iter().filter(has).map(|level| (level, proof(level))).collect()
    }

    /// When the next attempt to open a connection is made, if one waits for its time.
    pub fn next_attempt(&self) -> Option<Time> {
        self.attempt.as_ref().and_then(|attempt| match attempt.stage {
            Stage::Pausing { until, .. } => Some(until),
            Stage::Slotted { at } => Some(at),
            Stage::Reserved { .. } => Some(self.now),
            Stage::Opening { .. } | Stage::Proving { .. } => None,
        })
    }

    /// When the next routing round trip on the connection in use is due, if the link has any.
    pub fn next_probe(&self) -> Option<Time> {
        self.current.as_ref().and_then(|connection| connection.next_probe())
    }

    /// When the service is asked next, beside the connection, whether anything is missing, if it is asked at all and
    /// nothing arrives before.
    pub fn next_look(&self) -> Option<Time> {
        self.current.as_ref().and_then(|connection| connection.next_look())
    }

    /// When the connection in use is renewed at the latest.
    pub fn renew_at(&self) -> Option<Time> {
        self.current.as_ref().map(|connection| connection.renew_at)
    }

    /// The connection in use, when it was opened, and whether another one is open beside it.
    pub fn connection(&self) -> Option<(ConnectionId, Time, bool)> {
        let beside = match &self.attempt {
            Some(Attempt { stage: Stage::Proving { .. }, .. }) => true,
            Some(_) | None => self.old.is_some(),
        };
        self.current.as_ref().map(|connection| (connection.id, connection.opened, beside))
    }

    /// The state as it is now.
    fn state_now(&self) -> State {
        match (&self.current, &self.attempt) {
            _ if !self.kept => State::Off,
            (Some(current), _) if current.doubt.is_some() => State::Suspect,
            (Some(current), _) if current.proved => State::Live,
            (Some(_), _) => State::Proving,
            (None, Some(Attempt { stage: Stage::Opening { .. }, .. })) => State::Connecting,
            (None, Some(Attempt { stage: Stage::Pausing { verdict, .. }, .. })) => match verdict {
                Verdict::Replaced => State::Replaced,
                Verdict::Unauthorized | Verdict::Refused => State::Refused,
                Verdict::Again | Verdict::Elsewhere => State::Waiting,
            },
            (None, _) => State::Waiting,
        }
    }

    /// Reports the state if it is another one than before.
    fn tell_state(&mut self) {
        let (state, words) = (self.state_now(), std::mem::take(&mut self.words));
        if state != self.state {
            self.state = state;
            self.outputs.push_back(Output::Report(Report::State { state, words }));
        }
    }
}
