//! Decides what the master does: one input, then the outputs it leads to. It knows no process, no
//! socket, no clock and no chance; all of them arrive as inputs.
//!
//! ```text
//!            begin          started            answering
//!   Idle ──────────▶ Launching ───────▶ Starting ────────▶ Answering
//!                        ▲  │ not started   │ ended           │ ended
//!                        │  ▼               ▼                 ▼
//!                        └─ BackingOff ◀────┴─────────────────┘
//!   Starting, Answering ── no sign of life ──▶ Condemned ── ended ──▶ BackingOff
//!   every state ── stop ──▶ Draining, or Over if no gateway lives ── ended ──▶ Over
//! ```

use std::{collections::BTreeMap, time::Duration};

use bowline_names::Exit;
use bowline_proto::Time;
use serde::{Deserialize, Serialize};

use super::limit;
use crate::charter::Reason;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// The addresses are bound.
    Begin,
    /// The gateway that was asked for is a process.
    Started { pid: u32 },
    /// It could not be made one.
    NotStarted { error: String, chance: Chance },
    /// The gateway's process is gone.
    Ended { end: End, chance: Chance },
    /// The gateway said something.
    Report(Report),
    /// Somebody wants the end: the name of a signal, or who asked.
    Stop(&'static str),
    /// Somebody wants the configuration to be read again.
    Reload,
    /// That was done, well or not. `drain` is what counts from now on.
    Reloaded { words: String, drain: Duration },
    /// The deadline that [`Plan::deadline`] names may have come.
    Timeout,
}

/// A random number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chance(pub(crate) f64);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited(u8),
    Killed(i32),
}

/// What a gateway says about itself: a line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub(crate) enum Report {
    /// Every shard has answered a question just now.
    Alive,
    /// A handshake through its own listener was answered.
    Answering,
    /// The components it cannot do without are ready.
    Ready,
    /// What it is waiting for.
    Status { text: String },
    /// It closes its sessions.
    Draining,
    /// How many requests it has passed to the app of a service since its own start.
    Requests { service: String, total: u64 },
    /// Why it is about to end.
    Failed { text: String },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Start a gateway; [`Input::Started`] or [`Input::NotStarted`] follows.
    Start,
    /// Send a signal.
    Signal { pid: u32, signal: Signal },
    /// Tell the service manager, in one message.
    Notify(Vec<Notice>),
    /// Read the configuration again; [`Input::Reloaded`] follows.
    Reload,
    /// Write a line to the log.
    Log(Line),
    /// End with this code.
    Exit(u8),
}

/// The signals the master sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To drain.
    Drain,
    /// To end without having drained.
    Cut,
    Kill,
}

/// What a service manager is told (`sd_notify`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    Ready,
    /// With the time, which systemd demands.
    Reloading,
    Watchdog,
    Stopping,
    Status(String),
    /// The step under way may take as long, from now.
    Extend(Duration),
}

/// What operators should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// Somebody asked for the end.
    Stopping { by: &'static str },
    /// A gateway is gone and another one comes.
    Restarting { reason: Reason, last_end: String, after: Duration },
    /// It is there.
    Recovered { restarts: u64 },
    /// It gives no sign of life.
    Unresponsive,
    /// It did not end in time.
    Overdue,
    /// It ended in an unexpected way when it was to drain.
    BadEnd { last_end: String },
}

/// What is so, for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) server: ServerState,
    pub(crate) gateway: GatewayState,
    pub(crate) pid: Option<u32>,
    /// When this gateway started.
    pub(crate) since: Option<Time>,
    pub(crate) restarts: BTreeMap<Reason, u64>,
    pub(crate) last_end: Option<String>,
    pub(crate) next_attempt: Option<Time>,
    /// What the gateway waits for, as it says.
    pub(crate) waiting_for: Option<String>,
}

/// What the server as a whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// No gateway has answered yet.
    Starting,
    Running,
    /// One has, and is gone.
    Restarting,
    Draining,
}

impl ServerState {
    /// The word of the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Draining => "draining",
        }
    }
}

/// What the gateway is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewayState {
    Starting,
    Answering,
    /// There is none, and the next one waits for its turn.
    BackingOff,
    Draining,
}

impl GatewayState {
    /// The word of the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Answering => "answering",
            Self::BackingOff => "backing-off",
            Self::Draining => "draining",
        }
    }

    /// Whether clients are answered by it.
    pub(crate) fn has_answered(self) -> bool {
        self == Self::Answering
    }
}

/// Where the gateway is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Launching,
    Starting {
        pid: u32,
        since: Time,
    },
    Answering {
        pid: u32,
        since: Time,
    },
    /// Killed by the master, which waits for its end.
    Condemned {
        pid: u32,
        since: Time,
    },
    BackingOff,
    Draining {
        pid: u32,
        since: Time,
        asked: u32,
    },
    Over,
}

/// What the service manager has been told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Ready,
    Reloading,
    Stopping,
}

/// Whether the configuration is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reloading {
    No,
    Yes,
    /// And somebody has asked again since.
    AndAgain,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// The next gateway's turn.
    Restart,
    /// The gateway must have given a sign of life.
    Life,
    /// A gateway that drains must have ended.
    Drain,
    /// The service manager wants to hear that the main loop turns.
    Watchdog,
}

impl Timer {
    const ALL: [Self; 4] = [Self::Restart, Self::Life, Self::Drain, Self::Watchdog];
}

/// The master's state.
#[derive(Debug)]
pub(crate) struct Plan {
    state: State,
    told: Told,
    reloading: Reloading,
    deadlines: [Option<Time>; Timer::ALL.len()],
    /// `server.drain`.
    drain: Duration,
    /// A third of what the service manager allows, if it watches: one may come late.
    watchdog: Option<Duration>,
    /// Gateways that ended in a row without having answered.
    failures: u32,
    /// Whether any gateway has ever answered.
    answered: bool,
    restarts: BTreeMap<Reason, u64>,
    last_end: Option<String>,
    /// Why the gateway says that it fails.
    last_words: Option<String>,
    waiting_for: Option<String>,
}

impl Plan {
    /// Plans for a server with this `server.drain`. `watchdog` is the service manager's patience.
    pub(crate) fn new(drain: Duration, watchdog: Option<Duration>) -> Self {
        Self {
            state: State::Idle,
            told: Told::Nothing,
            reloading: Reloading::No,
            deadlines: [None; Timer::ALL.len()],
            drain,
            watchdog: watchdog.map(|patience| patience / 3),
            failures: 0,
            answered: false,
            restarts: BTreeMap::new(),
            last_end: None,
            last_words: None,
            waiting_for: None,
        }
    }

    /// When [`Input::Timeout`] is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Takes one input and says what is to be done, in order.
    pub(crate) fn handle_input(&mut self, now: Time, input: Input) -> Vec<Output> {
        if self.state == State::Over {
            return Vec::new();
        }
        let mut out = Vec::new();
        match input {
            Input::Begin => self.on_begin(now, &mut out),
            Input::Started { pid } => self.on_started(now, pid),
            Input::NotStarted { error, chance } => {
                let what = format!("could not be started: {error}");
                self.restart(now, Reason::FailedToStart, what, Duration::ZERO, chance, &mut out);
            }
            Input::Ended { end, chance } => self.on_ended(now, end, chance, &mut out),
            Input::Report(report) => self.on_report(now, report, &mut out),
            Input::Stop(by) => self.on_stop(now, by, &mut out),
            Input::Reload => self.on_reload(&mut out),
            Input::Reloaded { words, drain } => self.on_reloaded(words, drain, &mut out),
            Input::Timeout => self.on_timeout(now, &mut out),
        }
        out
    }

    /// What is so.
    pub(crate) fn view(&self) -> View {
        let (gateway, pid, since) = match self.state {
            State::Idle | State::Launching | State::Over => (GatewayState::Starting, None, None),
            State::Starting { pid, since } => (GatewayState::Starting, Some(pid), Some(since)),
            State::Answering { pid, since } => (GatewayState::Answering, Some(pid), Some(since)),
            State::Condemned { pid, since } => (GatewayState::BackingOff, Some(pid), Some(since)),
            State::BackingOff => (GatewayState::BackingOff, None, None),
            State::Draining { pid, since, .. } => (GatewayState::Draining, Some(pid), Some(since)),
        };
        let server = match (self.state, self.answered) {
            (State::Draining { .. } | State::Over, _) => ServerState::Draining,
            (State::Answering { .. }, _) => ServerState::Running,
            (_, true) => ServerState::Restarting,
            (_, false) => ServerState::Starting,
        };
        View {
            server,
            gateway,
            pid,
            since,
            restarts: self.restarts.clone(),
            last_end: self.last_end.clone(),
            next_attempt: self.deadlines[Timer::Restart as usize],
            waiting_for: self.waiting_for.clone(),
        }
    }

    fn on_begin(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Some(every) = self.watchdog {
            self.set(Timer::Watchdog, now + every);
        }
        self.launch(out);
    }

    fn launch(&mut self, out: &mut Vec<Output>) {
        self.state = State::Launching;
        self.last_words = None;
        out.push(Output::Start);
    }

    fn on_started(&mut self, now: Time, pid: u32) {
        self.state = State::Starting { pid, since: now };
        self.set(Timer::Life, now + limit::LIFE);
    }

    fn on_ended(&mut self, now: Time, end: End, chance: Chance, out: &mut Vec<Output>) {
        self.clear(Timer::Life);
        let mut last_end = match end {
            End::Exited(code) => format!("exited with code {code}"),
            End::Killed(signal) => format!("killed by signal {signal}"),
        };
        if let Some(words) = self.last_words.take() {
            last_end = format!("{last_end}: {words}");
        }
        let (reason, lived) = match (self.state, end) {
            (State::Draining { .. }, _) => return self.on_drained(end, last_end, out),
            // Another start would read the same configuration and want the same addresses.
            (State::Starting { .. }, End::Exited(code)) if !self.answered && is_final(code) => {
                return self.exit(code, out);
            }
            (State::Condemned { .. }, _) => (Reason::Unresponsive, Duration::ZERO),
            (State::Answering { since, .. }, End::Exited(_)) => (Reason::Exited, now - since),
            (State::Answering { since, .. }, End::Killed(_)) => (Reason::Killed, now - since),
            (_, End::Killed(_)) => (Reason::Killed, Duration::ZERO),
            (_, End::Exited(_)) => (Reason::FailedToStart, Duration::ZERO),
        };
        if matches!(self.state, State::Answering { .. }) {
            self.failures = 0;
        }
        self.restart(now, reason, last_end, lived, chance, out);
    }

    /// Plans the next gateway: at once after one that had served for a while, else after a pause
    /// that grows and has chance in it.
    fn restart(
        &mut self,
        now: Time,
        reason: Reason,
        last_end: String,
        lived: Duration,
        chance: Chance,
        out: &mut Vec<Output>,
    ) {
        let after = if lived >= limit::SETTLED {
            Duration::ZERO
        } else {
            let most = limit::BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16));
            self.failures += 1;
            most.min(limit::BACKOFF_MAX).mul_f64(chance.0.clamp(0.0, 1.0))
        };
        *self.restarts.entry(reason).or_default() += 1;
        self.last_end = Some(last_end.clone());
        self.waiting_for = None;
        out.push(Output::Log(Line::Restarting { reason, last_end: last_end.clone(), after }));
        if self.told == Told::Ready {
            let words = format!("restarting the gateway: {last_end}");
            out.push(Output::Notify(vec![Notice::Status(words)]));
        }
        if after.is_zero() {
            self.launch(out);
        } else {
            self.state = State::BackingOff;
            self.set(Timer::Restart, now + after);
        }
    }

    fn on_report(&mut self, now: Time, report: Report, out: &mut Vec<Output>) {
        if matches!(self.state, State::Starting { .. } | State::Answering { .. }) {
            self.set(Timer::Life, now + limit::LIFE);
        }
        match report {
            Report::Alive => {}
            // Somebody else told it to. It says nothing more, and has the time of any drain.
            Report::Draining => {
                if matches!(self.state, State::Starting { .. } | State::Answering { .. }) {
                    self.set(Timer::Life, now + self.drain + limit::DRAIN_GRACE);
                }
            }
            Report::Answering => {
                let State::Starting { pid, since } = self.state else { return };
                self.state = State::Answering { pid, since };
                self.answered = true;
                let restarts = self.restarts.values().sum();
                if restarts > 0 {
                    out.push(Output::Log(Line::Recovered { restarts }));
                }
            }
            Report::Ready => {
                self.waiting_for = None;
                let ready = Notice::Status("serving".to_owned());
                match self.told {
                    Told::Nothing => {
                        self.told = Told::Ready;
                        out.push(Output::Notify(vec![Notice::Ready, ready]));
                    }
                    Told::Ready => out.push(Output::Notify(vec![ready])),
                    Told::Reloading | Told::Stopping => {}
                }
            }
            Report::Status { text } => {
                if self.told == Told::Nothing {
                    let words = Notice::Status(text.clone());
                    out.push(Output::Notify(vec![words, Notice::Extend(limit::EXTENSION)]));
                }
                self.waiting_for = Some(text);
            }
            Report::Failed { text } => self.last_words = Some(text),
            // The main loop passes it on.
            Report::Requests { .. } => {}
        }
    }

    fn on_stop(&mut self, now: Time, by: &'static str, out: &mut Vec<Output>) {
        if self.told != Told::Stopping {
            out.push(Output::Log(Line::Stopping { by }));
        }
        match self.state {
            State::Starting { pid, since }
            | State::Answering { pid, since }
            | State::Condemned { pid, since } => {
                self.state = State::Draining { pid, since, asked: 1 };
                self.clear(Timer::Life);
                let patience = self.drain + limit::DRAIN_GRACE;
                self.set(Timer::Drain, now + patience);
                self.told = Told::Stopping;
                out.push(Output::Notify(vec![
                    Notice::Stopping,
                    Notice::Status("closing sessions".to_owned()),
                    Notice::Extend(patience + limit::DRAIN_GRACE),
                ]));
                out.push(Output::Signal { pid, signal: Signal::Drain });
            }
            State::Draining { pid, since, asked } => {
                self.state = State::Draining { pid, since, asked: asked + 1 };
                // One that does not take the second has no ear left.
                let signal = if asked < 2 { Signal::Cut } else { Signal::Kill };
                let due = self.deadlines[Timer::Drain as usize];
                let soon = now + limit::CUT_GRACE;
                self.set(Timer::Drain, due.map_or(soon, |due| due.min(soon)));
                out.push(Output::Signal { pid, signal });
            }
            State::Idle | State::Launching | State::BackingOff | State::Over => {
                self.exit(Exit::Ok.code(), out);
            }
        }
    }

    fn on_drained(&mut self, end: End, last_end: String, out: &mut Vec<Output>) {
        let code = match end {
            End::Exited(code) => code,
            // It was told to end before it could listen to signals: by the master, or by the
            // terminal, which tells the whole process group.
            End::Killed(limit::SIGTERM | limit::SIGUSR1 | limit::SIGINT | limit::SIGHUP) => {
                Exit::Ok.code()
            }
            End::Killed(limit::SIGQUIT) => Exit::Cut.code(),
            // It was killed because somebody could not wait.
            End::Killed(_) if matches!(self.state, State::Draining { asked: 2.., .. }) => {
                Exit::Cut.code()
            }
            End::Killed(_) => {
                out.push(Output::Log(Line::BadEnd { last_end }));
                Exit::Failed.code()
            }
        };
        self.exit(code, out);
    }

    fn exit(&mut self, code: u8, out: &mut Vec<Output>) {
        self.state = State::Over;
        self.deadlines = [None; Timer::ALL.len()];
        self.told = Told::Stopping;
        out.push(Output::Notify(vec![Notice::Stopping]));
        out.push(Output::Exit(code));
    }

    fn on_reload(&mut self, out: &mut Vec<Output>) {
        if matches!(self.state, State::Draining { .. }) {
            return;
        }
        if self.reloading != Reloading::No {
            self.reloading = Reloading::AndAgain;
            return;
        }
        self.reloading = Reloading::Yes;
        // Before it was ready there is nothing to come back to.
        if self.told == Told::Ready {
            self.told = Told::Reloading;
            out.push(Output::Notify(vec![Notice::Reloading]));
        }
        out.push(Output::Reload);
    }

    fn on_reloaded(&mut self, words: String, drain: Duration, out: &mut Vec<Output>) {
        self.drain = drain;
        if self.told == Told::Reloading {
            self.told = Told::Ready;
            out.push(Output::Notify(vec![Notice::Ready, Notice::Status(words)]));
        }
        let again = self.reloading == Reloading::AndAgain;
        self.reloading = Reloading::No;
        if again {
            self.on_reload(out);
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        for timer in Timer::ALL {
            let Some(at) = self.deadlines[timer as usize].filter(|at| *at <= now) else { continue };
            self.clear(timer);
            match timer {
                Timer::Restart => self.launch(out),
                // The master slept as well: the machine did, or somebody held it.
                Timer::Life if now - at > limit::LATE => self.set(Timer::Life, now + limit::LIFE),
                Timer::Life => {
                    let (State::Starting { pid, since } | State::Answering { pid, since }) =
                        self.state
                    else {
                        continue;
                    };
                    self.state = State::Condemned { pid, since };
                    out.push(Output::Log(Line::Unresponsive));
                    out.push(Output::Signal { pid, signal: Signal::Kill });
                }
                Timer::Drain => {
                    let State::Draining { pid, .. } = self.state else { continue };
                    out.push(Output::Log(Line::Overdue));
                    out.push(Output::Signal { pid, signal: Signal::Kill });
                }
                Timer::Watchdog => {
                    out.push(Output::Notify(vec![Notice::Watchdog]));
                    if let Some(every) = self.watchdog {
                        self.set(Timer::Watchdog, now + every);
                    }
                }
            }
        }
    }

    fn set(&mut self, timer: Timer, at: Time) {
        self.deadlines[timer as usize] = Some(at);
    }

    fn clear(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }
}

/// Whether starting again cannot help.
fn is_final(code: u8) -> bool {
    code == Exit::Usage.code() || code == Exit::Unavailable.code()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(30);

    /// A plan, a fake clock, and what came out.
    struct Rig {
        plan: Plan,
        now: Time,
        pid: u32,
    }

    #[test]
    fn a_gateway_that_is_killed_is_followed_at_once_by_another() {
        let mut rig = Rig::answering();
        rig.pass(Duration::from_secs(60));
        let out = rig.end(End::Killed(9));
        assert!(out.contains(&Output::Start), "{out:?}");
        let view = rig.plan.view();
        assert_eq!(view.server, ServerState::Restarting);
        assert_eq!(view.restarts, BTreeMap::from([(Reason::Killed, 1)]));
        assert_eq!(view.last_end.as_deref(), Some("killed by signal 9"));
    }

    #[test]
    fn the_pause_grows_up_to_its_limit_while_nothing_answers() {
        let mut rig = Rig::begun();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            rig.start();
            rig.end(End::Exited(1));
            let at = rig.plan.view().next_attempt.unwrap();
            pauses.push((at - rig.now).as_millis());
            assert_eq!(rig.plan.view().gateway, GatewayState::BackingOff);
            rig.now = at;
            assert!(rig.input(Input::Timeout).contains(&Output::Start));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(rig.plan.view().restarts, BTreeMap::from([(Reason::FailedToStart, 9)]));
    }

    #[test]
    fn chance_shortens_the_pause_and_never_lengthens_it() {
        let mut rig = Rig::begun();
        rig.start();
        let end = Input::Ended { end: End::Exited(1), chance: Chance(0.25) };
        rig.input(end);
        assert_eq!(rig.plan.view().next_attempt.unwrap() - rig.now, Duration::from_millis(25));
    }

    #[test]
    fn an_answer_ends_the_growth_of_the_pause() {
        let mut rig = Rig::begun();
        for _ in 0..5 {
            rig.start();
            rig.end(End::Exited(1));
            rig.now = rig.plan.view().next_attempt.unwrap();
            rig.input(Input::Timeout);
        }
        rig.start();
        rig.report(Report::Answering);
        // It died within its first second: not at once, but as after the first failure.
        rig.end(End::Killed(11));
        assert_eq!(rig.plan.view().next_attempt.unwrap() - rig.now, Duration::from_millis(100));
    }

    #[test]
    fn a_process_that_cannot_be_made_is_tried_again() {
        let mut rig = Rig::begun();
        let error = "no memory".to_owned();
        rig.input(Input::NotStarted { error, chance: Chance(1.0) });
        let view = rig.plan.view();
        assert_eq!(view.last_end.as_deref(), Some("could not be started: no memory"));
        assert_eq!(view.restarts, BTreeMap::from([(Reason::FailedToStart, 1)]));
        assert!(view.next_attempt.is_some());
    }

    #[test]
    fn a_configuration_that_cannot_work_ends_the_first_start_and_no_later_one() {
        for code in [2, 69] {
            let mut rig = Rig::begun();
            rig.start();
            assert_eq!(rig.end(End::Exited(code)).last(), Some(&Output::Exit(code)));
            let mut rig = Rig::answering();
            rig.pass(Duration::from_secs(5));
            rig.end(End::Killed(9));
            rig.start();
            rig.end(End::Exited(code));
            assert_eq!(rig.plan.view().gateway, GatewayState::BackingOff);
        }
    }

    #[test]
    fn the_last_words_of_a_gateway_are_kept() {
        let mut rig = Rig::answering();
        rig.report(Report::Failed { text: "a shard panicked".to_owned() });
        rig.end(End::Exited(1));
        let view = rig.plan.view();
        assert_eq!(view.last_end.as_deref(), Some("exited with code 1: a shard panicked"));
        assert_eq!(view.restarts, BTreeMap::from([(Reason::Exited, 1)]));
    }

    #[test]
    fn a_silent_gateway_is_killed_and_replaced() {
        let mut rig = Rig::answering();
        for _ in 0..20 {
            rig.pass(limit::ALIVE);
            assert_eq!(rig.report(Report::Alive), []);
        }
        rig.now = rig.plan.deadline().unwrap();
        let out = rig.input(Input::Timeout);
        let kill = Output::Signal { pid: rig.pid, signal: Signal::Kill };
        assert_eq!(out, [Output::Log(Line::Unresponsive), kill]);
        rig.end(End::Killed(9));
        assert_eq!(rig.plan.view().restarts, BTreeMap::from([(Reason::Unresponsive, 1)]));
    }

    #[test]
    fn a_master_that_was_held_itself_gives_the_gateway_another_chance() {
        let mut rig = Rig::answering();
        rig.now = rig.plan.deadline().unwrap() + Duration::from_secs(3600);
        assert_eq!(rig.input(Input::Timeout), []);
        rig.now = rig.plan.deadline().unwrap();
        assert!(rig.input(Input::Timeout).contains(&Output::Log(Line::Unresponsive)));
    }

    #[test]
    fn stop_drains_and_the_gateways_code_is_the_masters() {
        for code in [0, 1, 130] {
            let mut rig = Rig::answering();
            let out = rig.input(Input::Stop("SIGTERM"));
            let drain = Output::Signal { pid: rig.pid, signal: Signal::Drain };
            assert_eq!(out.last(), Some(&drain));
            assert_eq!(rig.plan.view().server, ServerState::Draining);
            let out = rig.end(End::Exited(code));
            assert_eq!(out, [Output::Notify(vec![Notice::Stopping]), Output::Exit(code)]);
            assert_eq!(rig.plan.deadline(), None);
        }
    }

    #[test]
    fn a_second_stop_cuts_and_a_third_kills() {
        let mut rig = Rig::answering();
        rig.input(Input::Stop("SIGINT"));
        let pid = rig.pid;
        let second = rig.input(Input::Stop("SIGINT"));
        assert_eq!(second, [Output::Signal { pid, signal: Signal::Cut }]);
        let third = rig.input(Input::Stop("SIGINT"));
        assert_eq!(third, [Output::Signal { pid, signal: Signal::Kill }]);
        assert_eq!(rig.end(End::Killed(9)).last(), Some(&Output::Exit(130)));
    }

    #[test]
    fn a_gateway_that_does_not_take_the_cut_is_killed_soon() {
        let mut rig = Rig::answering();
        rig.input(Input::Stop("SIGINT"));
        rig.pass(Duration::from_secs(1));
        rig.input(Input::Stop("SIGINT"));
        assert_eq!(rig.plan.deadline(), Some(rig.now + limit::CUT_GRACE));
        rig.now = rig.plan.deadline().unwrap();
        let kill = Output::Signal { pid: rig.pid, signal: Signal::Kill };
        assert_eq!(rig.input(Input::Timeout), [Output::Log(Line::Overdue), kill]);
        assert_eq!(rig.end(End::Killed(9)).last(), Some(&Output::Exit(130)));
    }

    #[test]
    fn a_drain_that_takes_too_long_is_cut() {
        let mut rig = Rig::answering();
        rig.input(Input::Stop("SIGTERM"));
        assert_eq!(rig.plan.deadline(), Some(rig.now + DRAIN + limit::DRAIN_GRACE));
        rig.now = rig.plan.deadline().unwrap();
        let out = rig.input(Input::Timeout);
        assert!(out.contains(&Output::Signal { pid: rig.pid, signal: Signal::Kill }));
        assert_eq!(rig.end(End::Killed(9)).last(), Some(&Output::Exit(1)));
    }

    #[test]
    fn stop_without_a_gateway_ends_at_once() {
        let mut rig = Rig::begun();
        rig.start();
        rig.end(End::Exited(1));
        assert_eq!(rig.input(Input::Stop("SIGTERM")).last(), Some(&Output::Exit(0)));
        assert_eq!(rig.input(Input::Timeout), [], "nothing follows the end");
    }

    #[test]
    fn a_gateway_that_had_not_begun_to_listen_to_signals_ends_well() {
        let mut rig = Rig::begun();
        rig.start();
        rig.input(Input::Stop("SIGTERM"));
        assert_eq!(rig.end(End::Killed(15)).last(), Some(&Output::Exit(0)));
    }

    #[test]
    fn a_key_of_the_terminal_may_reach_the_gateway_before_it_listens() {
        for signal in [limit::SIGINT, limit::SIGHUP] {
            let mut rig = Rig::begun();
            rig.start();
            rig.input(Input::Stop("SIGINT"));
            let out = rig.end(End::Killed(signal));
            assert_eq!(out, [Output::Notify(vec![Notice::Stopping]), Output::Exit(0)]);
        }
    }

    #[test]
    fn a_gateway_that_drains_for_somebody_else_is_given_the_time() {
        let mut rig = Rig::answering();
        assert_eq!(rig.report(Report::Draining), []);
        let patience = DRAIN + limit::DRAIN_GRACE;
        assert!(patience > limit::LIFE);
        assert_eq!(rig.plan.deadline(), Some(rig.now + patience));
    }

    #[test]
    fn the_service_manager_hears_ready_once_and_stopping_last() {
        let mut rig = Rig::begun();
        let mut heard = rig.start();
        let text = "loading models 40 %".to_owned();
        heard.extend(rig.report(Report::Status { text: text.clone() }));
        heard.extend(rig.report(Report::Answering));
        heard.extend(rig.report(Report::Ready));
        rig.pass(Duration::from_secs(5));
        heard.extend(rig.end(End::Killed(9)));
        heard.extend(rig.start());
        heard.extend(rig.report(Report::Answering));
        heard.extend(rig.report(Report::Ready));
        heard.extend(rig.input(Input::Stop("SIGTERM")));
        heard.extend(rig.end(End::Exited(0)));
        let status = |words: &str| Notice::Status(words.to_owned());
        let patience = DRAIN + 2 * limit::DRAIN_GRACE;
        assert_eq!(
            notices(heard),
            [
                vec![status(&text), Notice::Extend(limit::EXTENSION)],
                vec![Notice::Ready, status("serving")],
                vec![status("restarting the gateway: killed by signal 9")],
                vec![status("serving")],
                vec![Notice::Stopping, status("closing sessions"), Notice::Extend(patience)],
                vec![Notice::Stopping],
            ]
        );
    }

    #[test]
    fn a_reload_is_announced_and_always_ended() {
        let mut rig = Rig::ready();
        let reloading = Output::Notify(vec![Notice::Reloading]);
        assert_eq!(rig.input(Input::Reload), [reloading.clone(), Output::Reload]);
        // One that is asked for meanwhile comes after it: the file may have changed since it was read.
        assert_eq!(rig.input(Input::Reload), []);
        assert_eq!(rig.input(Input::Reload), []);
        let out = rig.reloaded();
        let ready = Notice::Status("reloaded".to_owned());
        let ready = Output::Notify(vec![Notice::Ready, ready]);
        assert_eq!(out, [ready.clone(), reloading, Output::Reload]);
        assert_eq!(rig.reloaded(), [ready]);
    }

    #[test]
    fn a_reload_before_it_was_ready_does_not_say_ready() {
        let mut rig = Rig::answering();
        assert_eq!(rig.input(Input::Reload), [Output::Reload]);
        assert_eq!(rig.reloaded(), []);
    }

    #[test]
    fn a_gateway_that_dies_during_a_reload_does_not_leave_it_open() {
        let mut rig = Rig::ready();
        rig.input(Input::Reload);
        rig.pass(Duration::from_secs(2));
        rig.end(End::Killed(9));
        rig.start();
        rig.report(Report::Answering);
        assert_eq!(notices(rig.report(Report::Ready)), [] as [Vec<Notice>; 0]);
        assert_eq!(notices(rig.reloaded())[0][0], Notice::Ready);
    }

    #[test]
    fn the_watchdog_is_fed_at_least_each_half_of_its_patience_until_the_end() {
        let patience = Duration::from_secs(3);
        let mut rig = Rig { plan: Plan::new(DRAIN, Some(patience)), ..Rig::fresh() };
        rig.input(Input::Begin);
        rig.start();
        rig.report(Report::Answering);
        let mut last = rig.now;
        let feed = Output::Notify(vec![Notice::Watchdog]);
        for step in 0..20 {
            if step == 10 {
                rig.input(Input::Stop("SIGTERM"));
            }
            rig.now = rig.plan.deadline().unwrap();
            assert_eq!(rig.input(Input::Timeout), std::slice::from_ref(&feed));
            assert!(rig.now - last <= patience / 2);
            last = rig.now;
        }
    }

    impl Rig {
        fn fresh() -> Self {
            Self { plan: Plan::new(DRAIN, None), now: Time::ZERO, pid: 100 }
        }

        fn begun() -> Self {
            let mut rig = Self::fresh();
            assert_eq!(rig.input(Input::Begin), [Output::Start]);
            rig
        }

        fn answering() -> Self {
            let mut rig = Self::begun();
            rig.start();
            assert_eq!(rig.report(Report::Answering), []);
            rig
        }

        fn ready() -> Self {
            let mut rig = Self::answering();
            assert_eq!(notices(rig.report(Report::Ready)).len(), 1);
            rig
        }

        fn input(&mut self, input: Input) -> Vec<Output> {
            self.plan.handle_input(self.now, input)
        }

        fn start(&mut self) -> Vec<Output> {
            self.pid += 1;
            let pid = self.pid;
            self.input(Input::Started { pid })
        }

        fn end(&mut self, end: End) -> Vec<Output> {
            self.input(Input::Ended { end, chance: Chance(1.0) })
        }

        fn report(&mut self, report: Report) -> Vec<Output> {
            self.input(Input::Report(report))
        }

        fn reloaded(&mut self) -> Vec<Output> {
            self.input(Input::Reloaded { words: "reloaded".to_owned(), drain: DRAIN })
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }
    }

    fn notices(outputs: Vec<Output>) -> Vec<Vec<Notice>> {
        let notice = |output| match output {
            Output::Notify(notices) => Some(notices),
            _ => None,
        };
        outputs.into_iter().filter_map(notice).collect()
    }
}
