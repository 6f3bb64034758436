//! What a keeper may do, told by somebody who only sees what crosses its wall, and who knows what really happens.

use std::{collections::BTreeMap, time::Duration};

use bowline_proto::{
    Time,
    keeper::{
        Config, ConnectionId, Input, Keeper, Level, Output, ProbeId, ProbeOutcome, Reason, Report,
        State, Verdict,
    },
};

/// What is added to every bound: timers that are late, and packets on their way.
const SLACK: Duration = Duration::from_secs(2);

/// How long the old connection may be there beside the new one.
const OVERLAP_MAX: Duration = Duration::from_secs(2);

/// For how long after a trouble a renewal may be laid to it: it may have been tried in vain, with pauses, since.
const EXCUSED: Duration = Duration::from_secs(60 * 60);

/// A connection that the keeper has.
#[derive(Debug, Clone, Copy)]
struct Known {
    asked: Time,
    opened: Option<Time>,
    /// When the last round trip was begun that came back on it.
    proved: Option<Time>,
    pinged: Option<Time>,
    /// When a round trip could last not be begun on it.
    not_probed: Option<Time>,
    heard: Option<Time>,
    /// Since when its path is not good, in truth.
    broken: Option<Time>,
    /// Since when no event finds it, in truth.
    unrouted: Option<Time>,
}

/// One link as it should be.
#[derive(Debug)]
pub(super) struct Model {
    config: Config,
    has_probe: bool,
    started: bool,
    state: State,
    /// Whether the budget was asked and no attempt was made since.
    reserved: bool,
    slot: Option<Time>,
    /// Whether the one that it was asked for may not be made any more.
    abandoned: bool,
    connections: BTreeMap<ConnectionId, Known>,
    used: Option<ConnectionId>,
    /// Since when; whether it was live since.
    used_since: Time,
    lived: bool,
    newest: ConnectionId,
    probes: BTreeMap<ProbeId, (ConnectionId, Time)>,
    /// Attempts that failed, since one was proved.
    failures: u32,
    /// Whether the last one said that another address is needed.
    elsewhere: bool,
    /// No attempt before.
    paused_until: Time,
    unhandled: u32,
    drained: Option<Time>,
    asked: Option<Time>,
    /// When something last was wrong with what carries bytes, or events; in truth.
    troubled: Option<Time>,
    pub(super) opens: Vec<Time>,
    pub(super) probed: u32,
    pub(super) renewed: BTreeMap<Reason, u32>,
    pub(super) restarts: u32,
    pub(super) proofs: u32,
}

impl Model {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            has_probe: config.probe_interval.is_some(),
            started: false,
            state: State::Off,
            reserved: false,
            slot: None,
            abandoned: false,
            connections: BTreeMap::new(),
            used: None,
            used_since: Time::ZERO,
            lived: false,
            newest: ConnectionId(0),
            probes: BTreeMap::new(),
            failures: 0,
            elsewhere: false,
            paused_until: Time::ZERO,
            unhandled: 0,
            drained: None,
            asked: None,
            troubled: None,
            opens: Vec::new(),
            probed: 0,
            renewed: BTreeMap::new(),
            restarts: 0,
            proofs: 0,
        }
    }

    /// Something is wrong, in truth, that it may act upon.
    pub(super) fn on_trouble(&mut self, now: Time) {
        self.troubled = Some(now);
    }

    /// The path of this connection is not good any more, in truth.
    pub(super) fn on_broken(&mut self, now: Time, connection: ConnectionId) {
        self.on_trouble(now);
        if let Some(known) = self.connections.get_mut(&connection) {
            known.broken.get_or_insert(now);
        }
    }

    /// Events do not find this connection any more, in truth.
    pub(super) fn on_unrouted(&mut self, now: Time, connection: ConnectionId) {
        self.on_trouble(now);
        if let Some(known) = self.connections.get_mut(&connection) {
            known.unrouted.get_or_insert(now);
        }
    }

    pub(super) fn on_input(&mut self, now: Time, input: &Input) {
        // With one that has lasted everything begins anew.
        let used = self.used.and_then(|used| self.connections.get(&used)).and_then(|it| it.opened);
        if used.is_some_and(|opened| now.since(opened) >= self.config.backoff_reset) {
            (self.failures, self.elsewhere) = (0, false);
        }
        match input {
            Input::Start => {
                self.started = true;
                (self.failures, self.elsewhere) = (0, false);
            }
            Input::Stop => {
                self.started = false;
                (self.reserved, self.slot) = (false, None);
                self.paused_until = now;
            }
            Input::Slot { at } => {
                assert!(self.slot.replace(*at).is_none(), "a second slot");
            }
            Input::Opened { connection } => {
                if let Some(known) = self.connections.get_mut(connection) {
                    known.opened = Some(now);
                }
            }
            Input::OpenFailed { connection, why } => {
                if self.connections.remove(connection).is_some() {
                    self.on_failure(now, why.verdict);
                    if let Some(after) = why.retry_after {
                        self.paused_until = self.paused_until.max(now + after);
                    }
                }
            }
            Input::Closed { connection, verdict, .. } => {
                let Some(known) = self.connections.remove(connection) else { return };
                if self.used == Some(*connection) {
                    self.used = None;
                }
                let lasted =
                    known.opened.is_some_and(|at| now.since(at) >= self.config.backoff_reset);
                let unproved = known.proved.is_none() && self.has_probe && !lasted;
                if unproved || *verdict != Verdict::Again {
                    self.on_failure(now, *verdict);
                }
            }
            Input::Probed { probe, connection } => {
                let begun = self.probes.get(probe).filter(|(meant, _)| meant == connection);
                let begun = begun.map(|(_, begun)| *begun);
                let known = self.connections.get_mut(connection);
                if let Some(known) = known
                    && let Some(begun) = begun
                {
                    // Whatever is heard stands for a pong.
                    known.heard = Some(now);
                    known.proved = known.proved.max(Some(begun));
                    (self.failures, self.elsewhere) = (0, false);
                    self.proofs += 1;
                }
            }
            Input::Draining { .. } => self.drained = Some(now),
            Input::Renew => {
                self.asked = Some(now);
                // Whoever asks for it need not wait.
                self.paused_until = now;
                (self.failures, self.elsewhere) = (0, false);
            }
            Input::Unhandled => self.unhandled += 1,
            Input::Handled => self.unhandled = 0,
            Input::NotProbed { probe, .. } => {
                let known = self.probes.get(probe).and_then(|it| self.connections.get_mut(&it.0));
                if let Some(known) = known {
                    known.not_probed = Some(now);
                }
            }
            Input::Heard { connection, .. } => {
                if let Some(known) = self.connections.get_mut(connection) {
                    known.heard = Some(now);
                }
            }
            Input::Arrived { .. }
            | Input::Missed
            | Input::HandedOver
            | Input::Sending
            | Input::Probe
            | Input::Timeout => {}
        }
    }

    fn on_failure(&mut self, now: Time, verdict: Verdict) {
        self.abandoned = !matches!(verdict, Verdict::Again | Verdict::Elsewhere);
        if self.state == State::Live {
            // Nobody is in need: what an operator wished for is not tried again.
            return;
        }
        match verdict {
            Verdict::Again => self.failures += 1,
            Verdict::Elsewhere => {
                self.failures += 1;
                self.elsewhere = true;
            }
            // Another address would not help.
            Verdict::Replaced | Verdict::Unauthorized | Verdict::Refused => {
                // What is being opened meanwhile may be who took its place.
                if self.connections.is_empty() {
                    self.paused_until = self.paused_until.max(now + self.config.refused_pause);
                }
            }
        }
    }

    pub(super) fn on_output(&mut self, now: Time, output: &Output) {
        match output {
            Output::Reserve => {
                assert!(self.started, "an attempt is wanted of a link that is not kept");
                let again = self.reserved && !std::mem::take(&mut self.abandoned);
                assert!(!again, "the budget is asked twice for one attempt");
                self.slot = None;
                assert!(now >= self.paused_until, "an attempt before {:?}", self.paused_until);
                self.reserved = true;
            }
            Output::Open { connection, fresh_address, fresh_pool, within } => {
                let slot = self.slot.take().expect("an attempt without a slot");
                assert!(slot <= now, "an attempt before its slot");
                self.reserved = false;
                assert!(*connection > self.newest, "connections are numbered in order");
                self.newest = *connection;
                assert!(self.connections.len() < 2, "a third connection");
                assert!(*within <= self.config.open_timeout);
                let needed = self.elsewhere || self.failures >= self.config.address_after;
                assert!(
                    *fresh_address || !needed,
                    "the old address after {} failures",
                    self.failures
                );
                let needed = self.failures >= self.config.pool_after;
                assert!(*fresh_pool || !needed, "the old pool after {} failures", self.failures);
                self.opens.push(now);
                let known = Known {
                    asked: now,
                    opened: None,
                    proved: None,
                    pinged: None,
                    not_probed: None,
                    heard: None,
                    broken: None,
                    unrouted: None,
                };
                self.connections.insert(*connection, known);
            }
            Output::Ping { connection } => {
                let known = self.connections.get_mut(connection).expect("a ping of nothing");
                assert!(known.opened.is_some(), "a ping before it is open");
                known.pinged = Some(now);
            }
            Output::Ack { connection } => {
                assert!(self.config.ack_interval.is_some());
                assert!(self.is_open(*connection), "an ack of what is not open");
            }
            Output::Probe { connection, probe, within } => {
                assert!(self.has_probe, "a link without a probe is probed");
                assert!(self.is_open(*connection), "a probe of what is not open");
                assert!(*within <= self.config.probe_timeout);
                self.probed += 1;
                let again = self.probes.insert(*probe, (*connection, now));
                assert!(again.is_none(), "a number of a probe twice");
            }
            Output::Use { connection } => {
                let known = self.connections.get(connection).expect("nothing is used");
                assert!(known.opened.is_some(), "it is used and not open");
                // The first one is used at once, and one that cannot be probed when the one before is worse.
                let excused = self.used.is_none() || known.not_probed.is_some() || !self.has_probe;
                assert!(known.proved.is_some() || excused, "it is used and not proved");
                self.used = Some(*connection);
                (self.used_since, self.lived) = (now, false);
            }
            Output::Close { connection, within, .. } => self.on_close(now, *connection, *within),
            Output::CatchUp { since } => {
                assert!(self.started, "a link that is not kept catches up");
                assert!(*since <= now, "it catches up from the future");
            }
            Output::Look { since } => {
                let used = self.used.and_then(|used| self.connections.get(&used));
                let proved = used.is_some_and(|known| known.proved.is_some() || !self.has_probe);
                assert!(
                    proved,
                    "it looks for what a connection has not brought that is not proved"
                );
                assert!(*since <= now, "it looks from the future");
                assert!(self.config.look_interval.is_some(), "it looks where it cannot");
            }
            Output::RestartService => {
                self.restarts += 1;
                let after = self.config.service_after.expect("it is not to be restarted");
                assert!(self.unhandled >= after, "restarted after {} messages", self.unhandled);
                self.unhandled = 0;
            }
            Output::Report(report) => self.on_report(now, report),
        }
    }

    fn on_close(&mut self, now: Time, connection: ConnectionId, within: Duration) {
        assert!(within <= self.config.close_timeout);
        assert!(connection <= self.newest, "what was never opened is closed");
        let Some(known) = self.connections.remove(&connection) else { return };
        if !self.started {
            self.used = self.used.filter(|used| *used != connection);
            return;
        }
        if self.used == Some(connection) {
            // Nothing took its place: a link is not without a connection as long as there is one that was proved once.
            let without = known.proved.is_some() || !self.has_probe && self.lived;
            assert!(!without, "{connection:?} is closed, and nothing takes its place");
            self.used = None;
        } else if known.proved.is_none() && self.has_probe {
            self.on_failure(now, Verdict::Again);
        }
    }

    fn on_report(&mut self, now: Time, report: &Report) {
        match report {
            Report::State { state, words } => {
                assert_ne!(*state, self.state, "a state that it has already: {words}");
                self.state = *state;
                if *state == State::Live {
                    self.lived = true;
                    // What was to replace it is not needed any more.
                    self.abandoned = true;
                    (self.failures, self.elsewhere) = (0, false);
                }
            }
            Report::Probe { outcome, .. } => {
                if matches!(outcome, ProbeOutcome::Impossible(_)) {
                    assert!(!self.has_probe || self.used.is_none() || !self.started);
                }
            }
            Report::Renewed { reason, .. } => {
                *self.renewed.entry(*reason).or_default() += 1;
                self.check_reason(now, *reason);
            }
            Report::NotRenewed { reason, .. } => self.check_reason(now, *reason),
            Report::Escalated { .. } => {}
        }
    }

    /// Nothing is replaced without a reason, and silence is none.
    fn check_reason(&self, now: Time, reason: Reason) {
        let recent = |at: Option<Time>| at.is_some_and(|at| now.since(at) <= EXCUSED);
        match reason {
            Reason::First => {}
            Reason::Lost | Reason::Silent | Reason::Unrouted => {
                assert!(self.is_excused(now), "renewed as {reason:?}, and all is well");
            }
            Reason::Age => {
                let spread = self.config.max_age * u32::from(self.config.max_age_spread) / 100;
                let least = self.config.max_age - spread;
                assert!(now.since(Time::ZERO) >= least, "renewed for its age, and young");
            }
            Reason::Drain => assert!(recent(self.drained), "renewed, and nobody drains"),
            Reason::Asked => assert!(recent(self.asked), "renewed, and nobody asked"),
        }
    }

    fn is_excused(&self, now: Time) -> bool {
        self.troubled.is_some_and(|at| now.since(at) <= EXCUSED)
    }

    fn is_open(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|known| known.opened.is_some())
    }

    /// After every input: the keeper says what is so, pings are sent, and what is broken is noticed in time.
    pub(super) fn check(&self, now: Time, keeper: &Keeper) {
        assert_eq!(keeper.state(), self.state, "it did not report its state");
        let live = matches!(self.state, State::Live);
        if live {
            let used = keeper.connection().map(|(connection, ..)| connection);
            assert_eq!(used, self.used, "it is live on another connection");
            assert!(self.used.is_some(), "it is live on nothing");
        }
        if !self.started {
            assert_eq!(self.state, State::Off);
            assert_eq!(keeper.deadline(), None, "it waits though it is not kept");
            assert!(self.connections.is_empty(), "{:?} are left", self.connections.keys());
            return;
        }
        for (connection, known) in &self.connections {
            let Some(opened) = known.opened else {
                let late = now.since(known.asked) > self.config.open_timeout + SLACK;
                assert!(!late, "{connection:?} is being opened for ever");
                continue;
            };
            if self.used.is_some_and(|used| *connection < used) {
                let late = now.since(self.used_since) > OVERLAP_MAX + SLACK;
                assert!(!late, "{connection:?} is there still");
            }
            let pinged = known.pinged.unwrap_or(opened);
            let late = now.since(pinged) > self.ping_interval() + SLACK;
            assert!(!late, "{connection:?} was last pinged at {pinged:?}");
            if !live || self.used != Some(*connection) {
                continue;
            }
            if let Some(since) = known.broken {
                let bound = self.pongs_missed() + SLACK;
                // What was on its way before may be heard after.
                let from = known.heard.map_or(since, |at| at.max(since));
                assert!(now.since(from) <= bound, "{connection:?} is broken since {since:?}");
            }
            if let Some(since) = known.unrouted
                && let Some(interval) = &self.config.probe_interval
            {
                let bound = *interval.end() + self.config.probe_timeout * 2 + SLACK;
                // It was not for want of trying.
                let from = known.not_probed.map_or(since, |at| at.max(since));
                let late = now.since(from) > bound && !self.is_excused_lately(now, since);
                assert!(!late, "{connection:?} is not routed to since {since:?}");
            }
        }
    }

    /// No level claims what is not so.
    pub(super) fn check_levels(&self, keeper: &Keeper) {
        let levels = keeper.levels();
        if let Some(known) = self.used.and_then(|used| self.connections.get(&used)) {
            let routing = levels.get(&Level::Routing).copied().flatten();
            if let (Some(said), Some(since)) = (routing, known.unrouted) {
                // What was on its way when it ended still counts.
                assert!(said <= since + SLACK, "events are routed, it says; not since {since:?}");
            }
        }
    }

    /// Every link of the simulator pings.
    fn ping_interval(&self) -> Duration {
        self.config.ping_interval.expect("a link that does not ping")
    }

    /// How long it may take until a connection that is broken is suspect.
    pub(super) fn pongs_missed(&self) -> Duration {
        self.ping_interval() * (self.config.pings_missed + 1) + self.config.ping_timeout
    }

    /// Whether there was trouble after that, which may have kept probes from being made.
    fn is_excused_lately(&self, now: Time, since: Time) -> bool {
        self.troubled.is_some_and(|at| at > since && now.since(at) <= EXCUSED)
    }

    /// At the end of everything, when all has been well for long.
    pub(super) fn check_well(&self) {
        assert_eq!(self.state, State::Live, "not live though all is well");
        let all = self.used.and_then(|used| self.connections.get(&used));
        let known = all.expect("it uses what is not there");
        assert!(known.broken.is_none(), "it is live on what is broken");
        assert!(known.unrouted.is_none() || !self.has_probe, "it is live and not routed to");
    }
}
