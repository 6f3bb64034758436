//! The checks of one process: which is due, and what those that were made say together.

use std::time::Duration;

use bowline_proto::Time;

use super::view::{Awaited, Checked};
use crate::{
    limit,
    probe::{Finding, Seen},
    spec::{Check, Match, Phase, Probe, Probes},
};

/// All checks of one process.
#[derive(Debug)]
pub(super) struct Panel {
    checks: Vec<Tracked>,
    matches: [Match; 3],
    /// Whether the startup phase is over: it is only passed once.
    started: bool,
    /// Whether it has been ready: until then it is asked often.
    was_ready: bool,
    last: Option<Checked>,
    count: u64,
}

/// One check and what it has said.
#[derive(Debug)]
struct Tracked {
    phase: Phase,
    index: usize,
    probe: Probe,
    passing: bool,
    successes: u32,
    failures: u32,
    finding: Option<Finding>,
    asked: Asked,
}

/// Where a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Its phase has not come, or it is one that is only heard.
    Not,
    /// It is to be made then. Of one that is heard: it must have been heard by then.
    Due(Time),
    /// It is being made.
    Since(Time),
    /// It is being made for so long that it is worth saying.
    Silent(Time),
}

impl Panel {
    /// The checks of a process that starts now. `ready`: it is adopted, and was ready before.
    pub(super) fn new(now: Time, probes: &Probes, ready: bool) -> Self {
        let track = |phase: Phase| {
            let probes = &probes.of(phase).probes;
            probes.iter().enumerate().map(move |(index, probe)| {
                let passing = match phase {
                    Phase::Startup => ready,
                    Phase::Ready => ready && is_heard(&probe.check),
                    Phase::Live => true,
                };
                Tracked::new(phase, index, probe.clone(), passing)
            })
        };
        let mut panel = Self {
            checks: Phase::ALL.into_iter().flat_map(track).collect(),
            matches: Phase::ALL.map(|phase| probes.of(phase).match_),
            started: false,
            was_ready: false,
            last: None,
            count: 0,
        };
        panel.begin(now);
        panel
    }

    /// Takes other checks for the same process. What has been passed stays passed until they say otherwise.
    pub(super) fn replace(&mut self, now: Time, probes: &Probes) {
        let ready = self.passes(Phase::Ready);
        let mut next = Self::new(now, probes, self.started);
        for check in &mut next.checks {
            if check.phase == Phase::Ready {
                check.passing = ready;
            }
        }
        next.was_ready = self.was_ready;
        next.count = self.count;
        next.last = self.last.take();
        *self = next;
    }

    /// Whether there is nothing to go by.
    pub(super) fn is_empty(&self) -> bool {
        self.checks.iter().all(|check| check.phase == Phase::Live)
    }

    /// Whether it counts what the process says, and not only what it is asked.
    pub(super) fn hears(&self) -> bool {
        let heard = |check: &Tracked| check.phase != Phase::Live && is_heard(&check.probe.check);
        self.checks.iter().any(heard)
    }

    /// Whether the process can be used, as far as the checks say.
    pub(super) fn is_ready(&self) -> bool {
        self.started && self.passes(Phase::Ready)
    }

    /// Why the process must be started again.
    pub(super) fn not_live(&self) -> Option<String> {
        if self.passes(Phase::Live) {
            return None;
        }
        let check =
            self.checks.iter().find(|check| check.phase == Phase::Live && !check.passing)?;
        Some(format!("{} {} times in a row", check.words(), check.failures))
    }

    /// What it is waited for.
    pub(super) fn awaited(&self) -> Option<Awaited> {
        let phase = if self.started { Phase::Ready } else { Phase::Startup };
        let waits = |check: &&Tracked| check.phase == phase && !check.passing;
        let check = self.checks.iter().find(waits).filter(|_| !self.passes(phase))?;
        let progress = match &check.finding {
            Some(Finding::Starting { progress, .. }) => *progress,
            _ => None,
        };
        Some(Awaited { words: check.words(), progress })
    }

    /// The last check that was made.
    pub(super) fn last(&self) -> Option<&Checked> {
        self.last.as_ref()
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.checks.iter().filter_map(Tracked::deadline).min()
    }

    /// Returns the checks that are to be made now.
    pub(super) fn handle_timeout(&mut self, now: Time) -> Vec<(Phase, usize, Probe)> {
        let mut due = Vec::new();
        for check in &mut self.checks {
            match check.asked {
                Asked::Due(at) if at <= now && is_heard(&check.probe.check) => {
                    check.asked = Asked::Due(now + check.probe.every);
                    // Held for so long, this master would not have heard it either.
                    if now - at <= limit::CHECK_SLACK {
                        let words = format!("not heard for {:?}", check.probe.every);
                        check.count(Finding::Failed { words });
                    }
                }
                Asked::Due(at) if at <= now => {
                    check.asked = Asked::Since(now);
                    due.push((check.phase, check.index, check.probe.clone()));
                }
                Asked::Since(since) if since + limit::SILENT <= now => {
                    check.asked = Asked::Silent(since);
                }
                _ => {}
            }
            if let Asked::Silent(since) = check.asked
                && since + check.probe.timeout + limit::CHECK_SLACK <= now
            {
                check.asked = Asked::Due(now + check.probe.every);
                check.count(Finding::Failed { words: "the check did not end".to_owned() });
            }
        }
        self.advance(now);
        due
    }

    /// Takes what came of a check. What nobody asked for counts for nothing.
    pub(super) fn handle_probed(&mut self, now: Time, phase: Phase, index: usize, seen: Seen) {
        let often = !self.was_ready;
        let Some(check) = self.check(phase, index) else { return };
        if !matches!(check.asked, Asked::Since(_) | Asked::Silent(_)) {
            return;
        }
        let every = check.probe.every;
        let every = if often && phase != Phase::Live { every.min(limit::IMPATIENT) } else { every };
        check.asked = Asked::Due(now + every);
        check.count(seen.finding.clone());
        let words = check.probe.check.to_string();
        self.note(now, phase, words, seen);
        self.advance(now);
    }

    /// A line matched the pattern of a check.
    pub(super) fn handle_logged(&mut self, now: Time, phase: Phase, index: usize) {
        let Some(check) = self.check(phase, index) else { return };
        if matches!(check.probe.check, Check::Log(_)) && !check.passing {
            check.hear(true);
            let words = check.probe.check.to_string();
            self.note(now, phase, words, Seen { finding: Finding::Ready, took: Duration::ZERO });
            self.advance(now);
        }
    }

    /// The service says whether it is ready.
    pub(super) fn handle_word(&mut self, now: Time, ready: bool) {
        for check in &mut self.checks {
            if check.probe.check == Check::Notify && check.phase != Phase::Live {
                check.hear(ready);
            }
        }
        self.advance(now);
    }

    /// The service gives a sign of life.
    pub(super) fn handle_watchdog(&mut self, now: Time) {
        for check in &mut self.checks {
            if check.probe.check == Check::Notify && check.phase == Phase::Live {
                check.hear(true);
                check.failures = 0;
                if check.asked != Asked::Not {
                    check.asked = Asked::Due(now + check.probe.every);
                }
            }
        }
    }

    fn begin(&mut self, now: Time) {
        for check in &mut self.checks {
            if check.phase == Phase::Startup && !is_heard(&check.probe.check) {
                check.asked = Asked::Due(now);
            }
        }
        self.advance(now);
    }

    /// Goes from the startup phase to the others, once.
    fn advance(&mut self, now: Time) {
        if !self.started && self.passes(Phase::Startup) {
            self.started = true;
            for check in &mut self.checks {
                check.asked = match (check.phase, is_heard(&check.probe.check)) {
                    (Phase::Startup, _) | (Phase::Ready, true) => Asked::Not,
                    (Phase::Ready | Phase::Live, false) => Asked::Due(now),
                    (Phase::Live, true) => Asked::Due(now + check.probe.every),
                };
            }
        }
        self.was_ready |= self.is_ready();
    }

    fn passes(&self, phase: Phase) -> bool {
        let mut checks = self.checks.iter().filter(|check| check.phase == phase).peekable();
        match self.matches[phase as usize] {
            Match::All => checks.all(|check| check.passing),
            Match::Any => checks.peek().is_none() || checks.any(|check| check.passing),
        }
    }

    fn check(&mut self, phase: Phase, index: usize) -> Option<&mut Tracked> {
        self.checks.iter_mut().find(|check| check.phase == phase && check.index == index)
    }

    fn note(&mut self, now: Time, phase: Phase, check: String, seen: Seen) {
        self.count += 1;
        let Seen { finding, took } = seen;
        self.last = Some(Checked { phase, check, finding, took, at: now, count: self.count });
    }
}

impl Tracked {
    fn new(phase: Phase, index: usize, probe: Probe, passing: bool) -> Self {
        let (successes, failures) = (0, 0);
        let (finding, asked) = (None, Asked::Not);
        Self { phase, index, probe, passing, successes, failures, finding, asked }
    }

    fn deadline(&self) -> Option<Time> {
        match self.asked {
            Asked::Not => None,
            Asked::Due(at) => Some(at),
            Asked::Since(since) => Some(since + limit::SILENT),
            Asked::Silent(since) => Some(since + self.probe.timeout + limit::CHECK_SLACK),
        }
    }

    /// Counts a finding: so many in a row change what the check says.
    fn count(&mut self, finding: Finding) {
        // What is starting lives.
        let success = match finding {
            Finding::Ready => true,
            Finding::Starting { .. } => self.phase == Phase::Live,
            Finding::Refused | Finding::Deaf | Finding::Failed { .. } => false,
        };
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            self.passing |= self.successes >= self.probe.successes;
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            self.passing &= self.failures < self.probe.failures;
        }
        self.finding = Some(finding);
    }

    /// Takes what was heard: one word is enough.
    fn hear(&mut self, passing: bool) {
        self.passing = passing;
        self.finding = passing.then_some(Finding::Ready);
    }

    fn words(&self) -> String {
        let check = &self.probe.check;
        match (&self.finding, self.asked) {
            (Some(finding), _) => format!("{check}: {finding}"),
            (None, Asked::Silent(_)) => format!("{check}: no answer yet"),
            (None, Asked::Since(_)) => format!("{check}: asked"),
            (None, _) if is_heard(check) => format!("{check}: not heard yet"),
            (None, _) => format!("{check}: not asked yet"),
        }
    }
}

/// Whether a check is not made but waited for.
fn is_heard(check: &Check) -> bool {
    match check {
        Check::Log(_) | Check::Notify => true,
        Check::Tcp(_)
        | Check::Http { .. }
        | Check::WebSocket { .. }
        | Check::SocketIo { .. }
        | Check::Exec(_) => false,
    }
}
