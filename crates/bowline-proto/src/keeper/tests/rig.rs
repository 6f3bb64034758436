//! A keeper with a fake clock, and a service that exists only as a few switches.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::super::{
    Config, ConnectionId, Input, Keeper, Level, OpenFailure, Output, ProbeOutcome, Report, State,
    Verdict,
};
use crate::Time;

/// How long an answer takes.
pub(super) const AWAY: Duration = Duration::from_millis(20);

/// A keeper, a clock, a service, and what was said.
pub(super) struct Rig {
    pub(super) keeper: Keeper,
    pub(super) now: Time,
    pub(super) service: Service,
    /// Answers that are on their way, the next one first.
    coming: VecDeque<(Time, Input)>,
    pub(super) open: BTreeSet<u64>,
    lines: Vec<String>,
    pub(super) opens: Vec<Time>,
    pub(super) probes: u32,
}

/// What the service does.
pub(super) struct Service {
    pub(super) opens: Opens,
    /// Whether nothing is answered on any connection that is opened from now on.
    pub(super) deaf: bool,
    /// Connections on which nothing is answered any more.
    pub(super) dead: BTreeSet<u64>,
    /// Connections that events are not routed to.
    pub(super) unrouted: BTreeSet<u64>,
    /// Whether messages can be posted.
    pub(super) posts: bool,
    /// Whether it has something, when it is asked, that no connection has brought.
    pub(super) has_more: bool,
}

/// What becomes of an attempt.
#[derive(Clone)]
pub(super) enum Opens {
    Yes,
    No(Verdict, Option<Duration>),
    Never,
}

impl Rig {
    pub(super) fn new(config: Config) -> Self {
        Self {
            keeper: Keeper::new(config, 11),
            now: Time::ZERO,
            service: Service {
                opens: Opens::Yes,
                deaf: false,
                dead: BTreeSet::new(),
                unrouted: BTreeSet::new(),
                posts: true,
                has_more: false,
            },
            coming: VecDeque::new(),
            open: BTreeSet::new(),
            lines: Vec::new(),
            opens: Vec::new(),
            probes: 0,
        }
    }

    /// One that is live, and of which that is not told again.
    pub(super) fn live(config: Config) -> Self {
        let mut rig = Self::new(config);
        rig.give(Input::Start);
        rig.pass(Duration::from_secs(1));
        assert_eq!(rig.keeper.state(), State::Live);
        rig.said();
        rig
    }

    pub(super) fn give(&mut self, input: Input) {
        self.keeper.handle_input(self.now, input);
        while let Some(output) = self.keeper.poll_output() {
            self.carry_out(output);
        }
        if let Some((at, timer)) = self.keeper.deadline() {
            assert!(at > self.now, "{timer:?} is left over");
        }
    }

    /// Lets time pass, with all that is due in it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let coming = self.coming.front().map(|(at, _)| *at);
            let deadline = self.keeper.deadline().map(|(at, _)| at);
            let Some(next) = [coming, deadline].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                self.now = end;
                return;
            };
            self.now = next;
            match self.coming.pop_front_if(|(at, _)| *at == next) {
                Some((_, input)) => self.give(input),
                None => self.give(Input::Timeout),
            }
        }
    }

    /// Lets time pass until something like this was said, for an hour at most. Returns how long that took.
    pub(super) fn pass_until(&mut self, words: &str) -> Duration {
        let begin = self.now;
        while !self.lines.iter().any(|line| line.starts_with(words)) {
            assert!(
                self.now.since(begin) < Duration::from_secs(3600),
                "{words}: {:#?}",
                self.lines
            );
            self.pass(AWAY);
        }
        self.now.since(begin)
    }

    /// What was said since the last call, but for pings.
    pub(super) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// How often something like this was said.
    pub(super) fn count(&self, words: &str) -> usize {
        self.lines.iter().filter(|line| line.starts_with(words)).count()
    }

    /// A connection ends by itself.
    pub(super) fn closed(&mut self, connection: u64, verdict: Verdict) {
        self.open.remove(&connection);
        self.give(Input::Closed {
            connection: ConnectionId(connection),
            verdict,
            words: "it ended".into(),
        });
    }

    fn answer(&mut self, input: Input) {
        self.coming.push_back((self.now + AWAY, input));
    }

    fn carry_out(&mut self, output: Output) {
        let line = match output {
            Output::Reserve => {
                self.answer(Input::Slot { at: self.now + AWAY });
                return;
            }
            Output::Open { connection, fresh_address, fresh_pool, .. } => {
                self.opens.push(self.now);
                match self.service.opens.clone() {
                    Opens::Yes => {
                        self.open.insert(connection.0);
                        if self.service.deaf {
                            self.service.dead.insert(connection.0);
                        }
                        self.answer(Input::Opened { connection });
                    }
                    Opens::No(verdict, retry_after) => {
                        let why = OpenFailure { verdict, words: "no".into(), retry_after };
                        self.answer(Input::OpenFailed { connection, why });
                    }
                    Opens::Never => (),
                }
                let elsewhere = if fresh_address { " elsewhere" } else { "" };
                let pool = if fresh_pool { " fresh pool" } else { "" };
                format!("open {}{elsewhere}{pool}", connection.0)
            }
            Output::Ping { connection } => return self.heard(connection, Level::Pong),
            Output::Ack { connection } => return self.heard(connection, Level::Ack),
            Output::Probe { connection, probe, .. } => {
                self.probes += 1;
                let lost = self.service.unrouted.contains(&connection.0)
                    || self.service.dead.contains(&connection.0);
                if !self.service.posts {
                    self.answer(Input::NotProbed { probe, words: "503".into() });
                } else if !lost {
                    self.answer(Input::Probed { probe, connection });
                }
                return;
            }
            Output::Use { connection } => format!("use {}", connection.0),
            Output::Close { connection, discard, .. } => {
                self.open.remove(&connection.0);
                format!("close {}{}", connection.0, if discard { "" } else { " for now" })
            }
            Output::CatchUp { since } => format!("catch up since {since:?}"),
            Output::Look { since } => {
                if self.service.has_more {
                    self.answer(Input::Missed);
                }
                format!("look since {since:?}")
            }
            Output::RestartService => "restart service".into(),
            Output::Report(report) => match report {
                Report::State { state, words } => format!("{}: {words}", state.name()),
                Report::Probe { cause, outcome, .. } => {
                    format!("probe {} {}", cause.name(), name(&outcome))
                }
                Report::Renewed { reason, .. } => format!("renewed {}", reason.name()),
                Report::NotRenewed { reason, words } => {
                    format!("not renewed {}: {words}", reason.name())
                }
                Report::Escalated { rung } => format!("rung {}", rung.name()),
            },
        };
        self.lines.push(line);
    }

    fn heard(&mut self, connection: ConnectionId, level: Level) {
        if !self.service.dead.contains(&connection.0) {
            self.answer(Input::Heard { connection, level });
        }
    }
}

fn name(outcome: &ProbeOutcome) -> &str {
    match outcome {
        ProbeOutcome::Ok => "ok",
        ProbeOutcome::Lost => "lost",
        ProbeOutcome::NotMade(_) => "not made",
        ProbeOutcome::Impossible(words) => words,
    }
}
