//! What the keeper reports becomes lines, figures and answers.

use std::{sync::Arc, time::Duration};

use bowline_proto::keeper::{ProbeCause, ProbeOutcome, Reason, Report, Rung, State, Verdict};
use tokio::{sync::oneshot, time::Instant};

use super::{Board, told::Told};
use crate::{
    clock,
    links::{ProbeAnswer, RenewAnswer},
};

/// Who tells the world about one link.
#[derive(Debug)]
pub(super) struct Reporter {
    link: Arc<str>,
    board: Arc<Board>,
    told: Told,
    /// Who waits for a routing round trip.
    probes: Vec<oneshot::Sender<ProbeAnswer>>,
    /// Who waits for a renewal.
    renewals: Vec<Renewal>,
}

/// Somebody who waits for a renewal.
#[derive(Debug)]
struct Renewal {
    asked: Instant,
    /// Whether there was a connection then.
    had_one: bool,
    answer: oneshot::Sender<RenewAnswer>,
}

/// Operators that wait at once; more are told to ask again.
const WAITING_MAX: usize = 16;

impl Reporter {
    pub(super) fn new(link: Arc<str>, board: Arc<Board>) -> Self {
        let (told, probes, renewals) = (Told::default(), Vec::new(), Vec::new());
        Self { link, board, told, probes, renewals }
    }

    /// Somebody wants to know how the next routing round trip goes.
    pub(super) fn await_probe(&mut self, answer: oneshot::Sender<ProbeAnswer>) {
        self.probes.truncate(WAITING_MAX - 1);
        self.probes.push(answer);
    }

    /// Somebody wants to know how the next renewal goes.
    pub(super) fn await_renewal(&mut self, had_one: bool, answer: oneshot::Sender<RenewAnswer>) {
        self.renewals.truncate(WAITING_MAX - 1);
        self.renewals.push(Renewal { asked: clock::instant(), had_one, answer });
    }

    pub(super) fn report(&mut self, report: Report) {
        match report {
            Report::State { state, words } => self.state(state, &words),
            Report::Probe { cause, outcome, took } => self.probe(cause, outcome, took),
            Report::Renewed { reason, took } => self.renewed(reason, took),
            Report::NotRenewed { reason, words } => self.not_renewed(reason, words),
            Report::Escalated { rung } => self.escalated(rung),
        }
    }

    /// An attempt to open a connection has ended.
    pub(super) fn attempt(&self, verdict: Option<Verdict>) {
        let outcome = match verdict {
            None => "ok",
            Some(Verdict::Again) => "again",
            Some(Verdict::Elsewhere) => "elsewhere",
            Some(Verdict::Replaced) => "replaced",
            Some(Verdict::Unauthorized) => "unauthorized",
            Some(Verdict::Refused) => "refused",
        };
        self.board.count(|figures| *figures.attempts.entry(outcome).or_default() += 1);
    }

    /// Something else goes wrong. Said once in these words, then how often.
    pub(super) fn trouble(&mut self, words: String) {
        if let Some(line) = self.told.trouble(words.clone()) {
            tracing::warn!(link = &*self.link, times = line.times, "{words}");
        }
    }

    fn state(&mut self, state: State, words: &str) {
        self.board.set_state(state, words);
        let link = &*self.link;
        let because = if words.is_empty() { "" } else { ": " };
        match self.told.state(state, words) {
            Some(line) if line.warn => tracing::warn!(
                link,
                times = line.times,
                left_out = line.left_out,
                "the link is {}{because}{words}",
                state.name()
            ),
            Some(line) => tracing::info!(
                link,
                left_out = line.left_out,
                "the link is {}{because}{words}",
                state.name()
            ),
            None => tracing::debug!(link, "the link is {}{because}{words}", state.name()),
        }
    }

    fn probe(&mut self, cause: ProbeCause, outcome: ProbeOutcome, took: Duration) {
        match &outcome {
            ProbeOutcome::Ok => {
                self.board.set_probed(cause, "ok", "");
                tracing::debug!(link = &*self.link, cause = cause.name(), ?took, "probed");
            }
            ProbeOutcome::Lost => {
                self.board.set_probed(cause, "lost", "");
                let mut words = "a routing round trip was lost".to_owned();
                if self.board.doubts_probe() {
                    words.push_str("; none has ever come back: is `probe` right?");
                }
                self.trouble(words);
            }
            ProbeOutcome::NotMade(words) => {
                self.board.set_probed(cause, "not-made", words);
                self.trouble(format!("a routing round trip could not be made: {words}"));
            }
            ProbeOutcome::Impossible(_) => {}
        }
        for answer in self.probes.drain(..) {
            // Whoever asked may have gone.
            let _ = answer.send(ProbeAnswer { outcome: outcome.clone(), took });
        }
    }

    fn renewed(&mut self, reason: Reason, took: Duration) {
        self.board.count(|figures| *figures.renewals.entry(reason).or_default() += 1);
        match reason {
            Reason::First | Reason::Lost => {
                tracing::debug!(link = &*self.link, reason = reason.name(), ?took, "connected");
            }
            Reason::Silent | Reason::Age | Reason::Drain | Reason::Unrouted | Reason::Asked => {
                tracing::info!(link = &*self.link, reason = reason.name(), ?took, "renewed");
            }
        }
        for Renewal { asked, had_one, answer } in self.renewals.drain(..) {
            // Whoever asked may have gone.
            let took = clock::instant().duration_since(asked);
            let _ = answer.send(RenewAnswer::Renewed { took, had_one });
        }
    }

    fn not_renewed(&mut self, reason: Reason, words: String) {
        self.board.count(|figures| *figures.renewals_failed.entry(reason).or_default() += 1);
        match reason {
            // The state says so already.
            Reason::First | Reason::Lost => {
                tracing::debug!(
                    link = &*self.link,
                    reason = reason.name(),
                    "not connected: {words}"
                );
            }
            Reason::Silent | Reason::Age | Reason::Drain | Reason::Unrouted | Reason::Asked => {
                self.trouble(format!("the connection could not be renewed: {words}"));
            }
        }
        for Renewal { answer, .. } in self.renewals.drain(..) {
            // Whoever asked may have gone.
            let _ = answer.send(RenewAnswer::NotRenewed { words: words.clone() });
        }
    }

    fn escalated(&mut self, rung: Rung) {
        self.board.count(|figures| *figures.rungs.entry(rung).or_default() += 1);
        match rung {
            Rung::Retry => {}
            Rung::Address => self.escalates("the next address is looked up anew"),
            Rung::Pool => self.escalates("all pooled HTTP connections are closed"),
            Rung::Service => {
                tracing::warn!(link = &*self.link, "the bot's service is restarted");
            }
        }
    }

    /// What follows from trouble that was told already.
    fn escalates(&mut self, words: &str) {
        if let Some(line) = self.told.trouble(words.to_owned()) {
            tracing::info!(link = &*self.link, times = line.times, "{words}");
        }
    }
}
