//! What inputs lead to.

use std::time::Duration;

use super::{
    ConnectionId, Input, Keeper, Level, OpenFailure, Output, ProbeCause, ProbeId, ProbeOutcome,
    Reason, Report, Rung, Verdict,
    attempt::{Attempt, Ladder, Stage},
    connection::Connection,
    renew::find,
};

/// The shortest time between two restarts of a bot's service: it has to come up, and to handle something.
const RESTART_PAUSE: Duration = Duration::from_secs(300);

impl Keeper {
    pub(super) fn on_input(&mut self, input: Input) {
        match input {
            Input::Start => self.on_start(),
            Input::Stop => self.on_stop(),
            Input::Slot { at } => {
                if let Some(Attempt { stage: stage @ Stage::Reserved { .. }, .. }) =
                    &mut self.attempt
                {
                    *stage = Stage::Slotted { at };
                }
            }
            Input::Opened { connection } => self.on_opened(connection),
            Input::OpenFailed { connection, why } => {
                if let Some(made) = self.take_opening(connection) {
                    self.attempt_failed(made, why);
                }
            }
            Input::Closed { connection, verdict, words } => {
                self.on_closed(connection, verdict, words)
            }
            Input::Heard { connection, level } => self.on_heard(connection, level.min(Level::Ack)),
            Input::Arrived { connection } => self.on_arrived(connection),
            Input::Missed => self.on_missed(),
            Input::Probed { probe, connection } => self.on_probed(probe, connection),
            Input::NotProbed { probe, words } => self.on_not_probed(probe, words),
            Input::Draining { connection } => self.on_draining(connection),
            Input::HandedOver | Input::Sending => self.on_activity(),
            Input::Handled => {
                self.bot.handled = Some(self.now);
                self.bot.unhandled = 0;
            }
            Input::Unhandled => self.on_unhandled(),
            Input::Probe => self.on_probe(),
            Input::Renew => self.on_renew(),
            Input::Timeout => (),
        }
        self.on_deadlines();
    }

    fn on_start(&mut self) {
        if !self.kept {
            self.kept = true;
            self.words = "started".into();
            self.ladder = Ladder::default();
            self.begin(Reason::First, self.now, Duration::ZERO);
        }
    }

    fn on_stop(&mut self) {
        if !self.kept {
            return;
        }
        self.words = "stopped".into();
        self.end_overlap();
        match self.attempt.take().map(|attempt| attempt.stage) {
            Some(Stage::Opening { connection, .. }) => self.close(connection, true),
            Some(Stage::Proving { mut connection, .. }) => self.discard(&mut connection),
            Some(Stage::Pausing { .. } | Stage::Reserved { .. } | Stage::Slotted { .. }) | None => {
            }
        }
        if let Some(mut connection) = self.current.take() {
            self.forget_trip(&mut connection);
            // Whoever keeps the link next may use what belongs to it at the service.
            self.close(connection.id, false);
        }
        self.kept = false;
        self.ladder.settles = None;
    }

    fn on_opened(&mut self, id: ConnectionId) {
        let Some(made) = self.take_opening(id) else { return };
        let connection = Box::new(Connection::new(self.now, made, &self.config, &mut self.chance));
        // Until when the one before was routed to, nobody knows for certain, even if it seemed to work to its end.
        self.owes_catch_up |= self.routed.is_some();
        self.routed.get_or_insert(self.now);
        if self.current.is_none() || cfg!(bowline_broken = "use-before-proof") {
            self.words = "open".into();
            self.install(connection);
        } else {
            let until = self.now + self.config.open_timeout;
            let stage = Stage::Proving { connection, until };
            self.attempt = Some(Attempt::new(made.reason, made.wished, stage));
        }
    }

    fn on_closed(&mut self, id: ConnectionId, verdict: Verdict, words: String) {
        let failure = |words| OpenFailure { verdict, words, retry_after: None };
        if self.current.as_ref().is_some_and(|current| current.id == id) {
            self.on_lost(verdict, words);
        } else if self.old.as_ref().is_some_and(|old| old.connection.id == id) {
            self.end_overlap();
        } else if let Some(mut connection) = self.take_proving(Some(id)) {
            self.discard(&mut connection);
            self.attempt_failed(connection.made(), failure(words));
        } else if let Some(made) = self.take_opening(id) {
            self.attempt_failed(made, failure(words));
        } else if cfg!(bowline_broken = "old-end-forgets-new") {
            self.current = None;
        }
    }

    fn on_heard(&mut self, id: ConnectionId, level: Level) {
        let now = self.now;
        let connection = find(&mut self.current, &mut self.attempt, id);
        if connection.is_some_and(|connection| connection.prove(now, level)) {
            self.on_proof(id, now);
        }
    }

    fn on_arrived(&mut self, id: ConnectionId) {
        let (now, idle_after) = (self.now, self.config.idle_after);
        if let Some(connection) = find(&mut self.current, &mut self.attempt, id) {
            connection.prove(now, Level::Tcp);
            let was_idle = now.since(connection.last_event) >= idle_after;
            connection.last_event = now;
            if was_idle {
                connection.hasten_probe(now, ProbeCause::Idle);
            }
        }
    }

    /// The service has what the connection did not bring. It may be on its way still: only a round trip tells.
    fn on_missed(&mut self) {
        let now = self.now;
        if let Some(current) = self.current.as_mut().filter(|current| current.has_looked()) {
            current.hasten_probe(now, ProbeCause::Missed);
        }
    }

    /// Something is about to be sent.
    fn on_activity(&mut self) {
        if let Some(current) = &mut self.current
            && self.now.since(current.last_event) >= self.config.idle_after
        {
            current.hasten_probe(self.now, ProbeCause::Idle);
        }
    }

    fn on_probed(&mut self, probe: ProbeId, id: ConnectionId) {
        let Self { now, config, chance, .. } = self;
        let Some(connection) = find(&mut self.current, &mut self.attempt, id) else { return };
        let Some(begun) = connection.begun(probe) else { return };
        let trip = connection.trip().filter(|trip| trip.id == probe);
        connection.routed(*now, (probe, begun), config, chance);
        // One that comes late was told to be lost already. It proves what it proves.
        if let Some(trip) = trip {
            self.tell_probe(trip.cause, ProbeOutcome::Ok, begun);
        }
        self.on_proof(id, begun);
    }

    fn on_not_probed(&mut self, probe: ProbeId, words: String) {
        let Self { now, config, chance, .. } = self;
        let both =
            [self.current.as_deref_mut(), self.attempt.as_mut().and_then(Attempt::proving_mut)];
        let made =
            |connection: &&mut Connection| connection.trip().is_some_and(|trip| trip.id == probe);
        let Some(connection) = both.into_iter().flatten().find(made) else { return };
        let Some(trip) = connection.trip() else { return };
        let is_first = connection.tries == 0;
        let (id, proved) = (connection.id, connection.proved);
        connection.probe_again(*now, false, config, chance);
        self.tell_probe(trip.cause, ProbeOutcome::NotMade(words), trip.begun);
        let is_current = self.current.as_ref().is_some_and(|current| current.id == id);
        // It may never be possible to prove this connection. What was missed before it is asked for at least once.
        if is_first && is_current && !proved && self.owes_catch_up {
            self.catch_up();
        }
    }

    fn on_draining(&mut self, id: ConnectionId) {
        let Some(connection) = find(&mut self.current, &mut self.attempt, id) else { return };
        connection.draining = true;
        if self.current.as_ref().is_some_and(|current| current.id == id) {
            self.begin(Reason::Drain, self.now, Duration::ZERO);
        }
    }

    fn on_unhandled(&mut self) {
        self.bot.unhandled = self.bot.unhandled.saturating_add(1);
        let too_soon = self.bot.restarted.is_some_and(|at| self.now.since(at) < RESTART_PAUSE);
        if self.config.service_after.is_some_and(|after| self.bot.unhandled >= after.max(1))
            && !too_soon
        {
            self.bot.unhandled = 0;
            self.bot.restarted = Some(self.now);
            self.outputs.push_back(Output::Report(Report::Escalated { rung: Rung::Service }));
            self.outputs.push_back(Output::RestartService);
        }
    }

    fn on_probe(&mut self) {
        let now = self.now;
        let words = match self.current.as_mut() {
            _ if !self.kept => "the link is off",
            _ if self.config.probe_interval.is_none() => {
                "the link has no probe: `probe` in its table of [links] says what comes back"
            }
            None => "there is no connection just now; the next one is proved when it is open",
            Some(current) => {
                current.hasten_probe(now, ProbeCause::Asked);
                return;
            }
        };
        self.tell_probe(ProbeCause::Asked, ProbeOutcome::Impossible(words.to_owned()), now);
    }

    fn on_renew(&mut self) {
        if self.kept {
            self.ladder.forgive();
            self.begin(Reason::Asked, self.now, Duration::ZERO);
        } else {
            let words = "the link is off".into();
            self.outputs
                .push_back(Output::Report(Report::NotRenewed { reason: Reason::Asked, words }));
        }
    }
}
