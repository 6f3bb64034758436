//! How one connection takes the place of another, and what deadlines lead to.

use std::time::Duration;

use super::{
    ConnectionId, Keeper, Old, OpenFailure, Output, ProbeCause, ProbeId, ProbeOutcome, Reason,
    Report, Timer, Verdict,
    attempt::{Attempt, Stage, asked_pause, is_elective, is_refusal, long_pause},
    connection::{Connection, Due, Made, SHORTEST, Trip},
};
use crate::Time;

/// The longest overlap: then the old connection is closed, whatever the configuration says.
const OVERLAP_MAX: Duration = Duration::from_secs(2);

/// How long the budget may take to answer, at least.
const SLOT_PATIENCE: Duration = Duration::from_secs(1);

impl Keeper {
    /// Does all that is due by now.
    pub(super) fn on_deadlines(&mut self) {
        while let Some((_, timer)) = self.deadline().filter(|(at, _)| *at <= self.now) {
            match timer {
                Timer::Ping | Timer::Ack | Timer::Probe => self.on_connections_due(),
                Timer::Pause => self.reserve(),
                Timer::Slot => match self.attempt.as_ref().map(|attempt| &attempt.stage) {
                    Some(Stage::Slotted { .. }) => self.open(),
                    Some(_) | None => self.reserve(),
                },
                Timer::Open => self.on_open_overdue(),
                Timer::Prove => self.on_unproved(),
                Timer::Overlap => self.end_overlap(),
                Timer::Look => self.look(),
                Timer::Renew => self.begin(Reason::Age, self.now, Duration::ZERO),
                Timer::Settle => {
                    self.ladder.settle();
                    if let Some(current) = &mut self.current {
                        current.settled = true;
                    }
                }
            }
        }
    }

    /// Wishes for another connection. One that is on its way already is enough; one that waits is hastened where this
    /// wish is the more urgent one.
    pub(super) fn begin(&mut self, reason: Reason, wished: Time, pause: Duration) {
        let until = (self.now + pause).max(self.ladder.not_before);
        match &mut self.attempt {
            None => {
                let stage = Stage::Pausing { until, verdict: Verdict::Again };
                self.attempt = Some(Attempt::new(reason, wished, stage));
            }
            Some(attempt) if is_elective(reason) && reason != Reason::Asked => {
                debug_assert!(attempt.waits(), "age is not looked at while an attempt is made");
            }
            Some(attempt) => {
                if !is_elective(reason) {
                    attempt.reason = reason;
                }
                if let Stage::Pausing { until: paused, verdict } = &mut attempt.stage
                    && until < *paused
                {
                    (*paused, *verdict) = (until, Verdict::Again);
                }
            }
        }
    }

    /// The attempt came to nothing: there is another one after a pause, unless nobody needs it.
    pub(super) fn attempt_failed(&mut self, made: Made, why: OpenFailure) {
        let Made { reason, wished, .. } = made;
        let asked_pause = asked_pause(&why);
        let OpenFailure { verdict, words, .. } = why;
        let works = self.current.as_ref().is_some_and(|current| current.doubt.is_none());
        let elective = is_elective(reason) && works;
        self.words.clone_from(&words);
        self.outputs.push_back(Output::Report(Report::NotRenewed { reason, words }));
        self.ladder.not_before = self.ladder.not_before.max(self.now + asked_pause);
        let is_needless = match reason {
            // A person asks again, and what was in doubt has proved itself.
            Reason::Asked | Reason::Silent | Reason::Unrouted => works,
            Reason::First | Reason::Lost | Reason::Age | Reason::Drain => false,
        };
        if is_needless {
            return;
        }
        self.ladder.failed(verdict);
        let pause = if elective || is_refusal(verdict) {
            long_pause(&self.config, &mut self.chance)
        } else {
            self.ladder.pause(&self.config, &mut self.chance)
        };
        let until = (self.now + pause).max(self.ladder.not_before);
        self.attempt = Some(Attempt::new(reason, wished, Stage::Pausing { until, verdict }));
    }

    /// The connection in use has ended by itself.
    pub(super) fn on_lost(&mut self, verdict: Verdict, words: String) {
        let Some(mut lost) = self.current.take() else { return };
        self.forget_trip(&mut lost);
        self.ladder.settles = None;
        if !lost.settled {
            self.ladder.failed(verdict);
        } else if verdict == Verdict::Elsewhere {
            self.ladder.go_elsewhere();
        }
        if verdict == Verdict::Elsewhere {
            self.close(lost.id, true);
        }
        // What was not proved, or not for long enough to close the old one, has not been made.
        let unfinished = !lost.proved || self.old.is_some();
        let (reason, wished) =
            if unfinished { (lost.reason, lost.wished) } else { (Reason::Lost, self.now) };
        if unfinished {
            let words = words.clone();
            self.outputs.push_back(Output::Report(Report::NotRenewed { reason, words }));
        }
        self.words = words;
        if let Some(old) = self.old.take() {
            self.reinstate(old.connection);
        }
        // Nobody can do without it any more.
        let needed = self.current.is_none() && is_elective(reason);
        let reason = if needed { Reason::Lost } else { reason };
        if let Some(connection) = self.take_proving(None) {
            self.install(connection);
            return;
        }
        let by_us = self.attempt.as_ref().is_some_and(|attempt| !attempt.waits());
        if is_refusal(verdict) && !by_us {
            let pause = long_pause(&self.config, &mut self.chance);
            let until = (self.now + pause).max(self.ladder.not_before);
            self.attempt = Some(Attempt::new(reason, wished, Stage::Pausing { until, verdict }));
            return;
        }
        let pause = self.ladder.pause(&self.config, &mut self.chance);
        self.begin(reason, wished, pause);
    }

    /// Of two connections the newer one was lost: the older one goes on, if it works.
    fn reinstate(&mut self, old: Box<Connection>) {
        if old.doubt.is_some() {
            self.close(old.id, true);
        } else {
            self.outputs.push_back(Output::Use { connection: old.id });
            if !old.settled {
                self.ladder.settles = Some(self.now + self.config.backoff_reset);
            }
            self.current = Some(old);
        }
    }

    /// A connection is used from now on; the one before goes on beside it for a while.
    pub(super) fn install(&mut self, connection: Box<Connection>) {
        debug_assert!(self.old.is_none(), "there are two at most");
        self.outputs.push_back(Output::Use { connection: connection.id });
        let (proved, draining) = (connection.proved, connection.draining);
        self.ladder.settles = Some(self.now + self.config.backoff_reset);
        if let Some(mut old) = self.current.replace(connection) {
            self.forget_trip(&mut old);
            let until = self.now + self.config.overlap.min(OVERLAP_MAX);
            self.old = Some(Old { connection: old, until });
        } else if proved {
            self.tell_renewed();
        }
        if draining {
            self.begin(Reason::Drain, self.now, Duration::ZERO);
        }
    }

    /// The old connection is closed.
    pub(super) fn end_overlap(&mut self) {
        if let Some(Old { connection, .. }) = self.old.take() {
            self.close(connection.id, true);
            if self.current.as_ref().is_some_and(|current| current.proved) {
                self.tell_renewed();
            }
        }
    }

    /// Events are routed to a connection, as a round trip proved that was begun then.
    pub(super) fn on_proof(&mut self, id: ConnectionId, begun: Time) {
        if std::mem::take(&mut self.owes_catch_up) {
            self.catch_up();
        }
        self.routed = self.routed.max(Some(begun));
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            let has_probe = self.config.probe_interval.is_some();
            self.words = if has_probe { "proved" } else { "open; it has no probe" }.into();
            let is_first = !std::mem::replace(&mut current.proved, true);
            if current.doubt.is_some() {
                current.trust();
                if !current.settled {
                    self.ladder.settles = Some(self.now + self.config.backoff_reset);
                }
                self.attempt = self.attempt.take().filter(|attempt| match attempt.reason {
                    Reason::Silent | Reason::Unrouted => !attempt.waits(),
                    Reason::First | Reason::Lost | Reason::Age | Reason::Drain | Reason::Asked => {
                        true
                    }
                });
            }
            if is_first && self.old.is_none() {
                self.tell_renewed();
            }
        } else if let Some(mut connection) = self.take_proving(Some(id)) {
            connection.proved = true;
            self.words = "renewed".into();
            self.install(connection);
        }
    }

    /// A connection does not work, as far as one can see.
    fn doubt(&mut self, id: ConnectionId, reason: Reason, words: &str) {
        let now = self.now;
        let verdict = if reason == Reason::Unrouted { Verdict::Elsewhere } else { Verdict::Again };
        match self.current.as_mut().filter(|current| current.id == id) {
            Some(current) if !current.proved => {
                if verdict != Verdict::Elsewhere {
                    self.close(id, true);
                }
                self.on_lost(verdict, words.to_owned());
            }
            Some(current) if current.doubt.is_none() => {
                current.doubt = Some(reason);
                current.hasten_probe(now, ProbeCause::Doubt);
                words.clone_into(&mut self.words);
                self.owes_catch_up = true;
                self.ladder.settles = None;
                if !current.settled {
                    self.ladder.failed(Verdict::Again);
                }
                let pause = self.ladder.pause_in_trouble(&self.config, &mut self.chance);
                self.begin(reason, now, pause);
            }
            Some(_) => (),
            None => {
                if let Some(mut connection) = self.take_proving(Some(id)) {
                    self.discard(&mut connection);
                    self.attempt_failed(connection.made(), failure(verdict, words));
                }
            }
        }
    }

    fn on_connections_due(&mut self) {
        let Self { now, config, chance, .. } = self;
        let both =
            [self.current.as_deref_mut(), self.attempt.as_mut().and_then(Attempt::proving_mut)];
        let due = both.into_iter().flatten().find_map(|connection| {
            connection.due(*now, config).map(|due| {
                let id = connection.id;
                match due {
                    Due::Lost(_) => {
                        connection.probe_again(*now, connection.lost == 1, config, chance)
                    }
                    Due::Probe(cause) => {
                        self.probes += 1;
                        connection.probing(Trip { id: ProbeId(self.probes), cause, begun: *now });
                    }
                    Due::Ping | Due::Ack | Due::Overdue(_) => (),
                }
                (id, due, connection.lost)
            })
        });
        let Some((connection, due, lost)) = due else { return };
        match due {
            Due::Ping => self.outputs.push_back(Output::Ping { connection }),
            Due::Ack => self.outputs.push_back(Output::Ack { connection }),
            Due::Probe(_) => {
                let (probe, within) = (ProbeId(self.probes), self.config.probe_timeout);
                self.outputs.push_back(Output::Probe { connection, probe, within });
            }
            Due::Overdue(level) => {
                self.doubt(
                    connection,
                    Reason::Silent,
                    &format!("no {} for too long", level.name()),
                );
            }
            Due::Lost(trip) => {
                self.tell_probe(trip.cause, ProbeOutcome::Lost, trip.begun);
                let is_current =
                    self.current.as_ref().is_some_and(|current| current.id == connection);
                self.owes_catch_up |= is_current;
                if lost > 1 {
                    self.doubt(connection, Reason::Unrouted, "nothing is routed to the connection");
                }
            }
        }
    }

    fn reserve(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            let until = self.now + self.config.open_timeout.max(SLOT_PATIENCE);
            attempt.stage = Stage::Reserved { until };
            if self.words.is_empty() {
                self.words = "the next attempt waits for its turn".into();
            }
            self.outputs.push_back(Output::Reserve);
        }
    }

    fn open(&mut self) {
        let Some(attempt) = &mut self.attempt else { return };
        self.connections += 1;
        let (connection, within) = (ConnectionId(self.connections), self.config.open_timeout);
        let (address, fresh_pool, rung) = self.ladder.climb(&self.config);
        let fresh_address = address || attempt.reason == Reason::Unrouted;
        attempt.stage = Stage::Opening { connection, until: self.now + within };
        if self.words.is_empty() {
            self.words = attempt.reason.name().into();
        }
        if let Some(rung) = rung {
            self.outputs.push_back(Output::Report(Report::Escalated { rung }));
        }
        self.outputs.push_back(Output::Open { connection, fresh_address, fresh_pool, within });
    }

    fn on_open_overdue(&mut self) {
        let id = ConnectionId(self.connections);
        if let Some(made) = self.take_opening(id) {
            self.close(id, true);
            let words = format!("not open after {:?}", self.config.open_timeout);
            self.attempt_failed(made, failure(Verdict::Again, words));
        }
    }

    /// The new connection could not be probed for long. It takes its place if the old one is the worse choice.
    fn on_unproved(&mut self) {
        let Some(mut connection) = self.take_proving(None) else { return };
        let works = self.current.as_ref().is_some_and(|current| current.doubt.is_none());
        if let Some(trip) = connection.trip() {
            // It may come back yet, and its loss says more than that it could not be begun.
            let Made { reason, wished, .. } = connection.made();
            let until = trip.begun + self.config.probe_timeout + SHORTEST;
            self.attempt = Some(Attempt::new(reason, wished, Stage::Proving { connection, until }));
        } else if is_elective(connection.reason) && works {
            self.discard(&mut connection);
            self.attempt_failed(
                connection.made(),
                failure(Verdict::Again, "it could not be probed"),
            );
        } else {
            self.words = "it could not be probed, and the one before is worse".into();
            self.install(connection);
        }
    }

    /// Takes the connection that is being proved, if it is this one; its attempt is over.
    pub(super) fn take_proving(&mut self, id: Option<ConnectionId>) -> Option<Box<Connection>> {
        let is_it = |attempt: &mut Attempt| {
            attempt.proving_mut().is_some_and(|connection| id.is_none_or(|id| connection.id == id))
        };
        match self.attempt.take_if(is_it)?.stage {
            Stage::Proving { connection, .. } => Some(connection),
            Stage::Pausing { .. }
            | Stage::Reserved { .. }
            | Stage::Slotted { .. }
            | Stage::Opening { .. } => None,
        }
    }

    /// Ends the attempt that is opening this connection.
    pub(super) fn take_opening(&mut self, id: ConnectionId) -> Option<Made> {
        let is_it = |attempt: &mut Attempt| matches!(attempt.stage, Stage::Opening { connection, .. } if connection == id);
        let Attempt { reason, wished, .. } = self.attempt.take_if(is_it)?;
        Some(Made { id, reason, wished })
    }

    pub(super) fn close(&mut self, connection: ConnectionId, discard: bool) {
        let within = self.config.close_timeout;
        self.outputs.push_back(Output::Close { connection, within, discard });
    }

    /// Closes a connection that is not used again, nor what belongs to it.
    pub(super) fn discard(&mut self, connection: &mut Connection) {
        self.forget_trip(connection);
        self.close(connection.id, true);
    }

    /// The connection goes while a routing round trip is under way.
    pub(super) fn forget_trip(&mut self, connection: &mut Connection) {
        if let Some(trip) = connection.forget_trip(self.now) {
            let outcome =
                ProbeOutcome::NotMade("the connection was closed before it came back".into());
            self.tell_probe(trip.cause, outcome, trip.begun);
        }
    }

    pub(super) fn catch_up(&mut self) {
        let since = if cfg!(bowline_broken = "catch-up-from-now") { None } else { self.routed };
        let since = since.unwrap_or(self.now);
        self.outputs.push_back(Output::CatchUp { since });
    }

    /// Nothing came for a while: is there nothing?
    fn look(&mut self) {
        let Self { now, config, chance, .. } = self;
        if let Some(current) = &mut self.current {
            let since = current.look(*now, config, chance);
            self.outputs.push_back(Output::Look { since });
        }
    }

    pub(super) fn tell_probe(&mut self, cause: ProbeCause, outcome: ProbeOutcome, begun: Time) {
        let took = self.now.since(begun);
        self.outputs.push_back(Output::Report(Report::Probe { cause, outcome, took }));
    }

    fn tell_renewed(&mut self) {
        if let Some(current) = &self.current {
            let (reason, took) = (current.reason, self.now.since(current.wished));
            self.outputs.push_back(Output::Report(Report::Renewed { reason, took }));
        }
    }
}

fn failure(verdict: Verdict, words: impl Into<String>) -> OpenFailure {
    OpenFailure { verdict, words: words.into(), retry_after: None }
}

/// The connection with this number among those that are listened to.
pub(super) fn find<'a>(
    current: &'a mut Option<Box<Connection>>,
    attempt: &'a mut Option<Attempt>,
    id: ConnectionId,
) -> Option<&'a mut Connection> {
    let both = [current.as_deref_mut(), attempt.as_mut().and_then(Attempt::proving_mut)];
    both.into_iter().flatten().find(|connection| connection.id == id)
}
