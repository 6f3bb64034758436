//! What others hear of a service: answers, and what is so.

use super::{Rest, Turn, Unit};
use crate::{
    limit,
    plan::{
        Command, Outcome, Output,
        process::Process,
        view::{NeedView, State, View},
        words::{Lasting, bounded},
    },
};

impl Unit {
    /// Answers those whose wish has come true, or cannot. Once all have done what they can.
    pub(in crate::plan) fn answer(&mut self, turn: &mut Turn<'_>) {
        let gone = self.is_gone();
        let ready = self.stable.as_ref().filter(|_| self.state == State::Ready);
        let ready = ready.map(|process| process.instance);
        let hopeless = self.hopeless();
        let attempts = self.attempts;
        let after = self.ready_after;
        for waiter in std::mem::take(&mut self.waiters) {
            let outcome = match waiter.command {
                Command::Stop if gone => Some(Outcome::Done("stopped".to_owned())),
                Command::Stop if !self.is_unwanted(turn) => {
                    Some(Outcome::Failed("it was started again meanwhile".to_owned()))
                }
                Command::Stop => None,
                Command::Start | Command::Restart => match (ready, &hopeless) {
                    (Some(instance), _) if instance >= waiter.from => {
                        let after = after.map(|after| format!(" after {}", Lasting(after)));
                        let after = after.unwrap_or_default();
                        let attempts = match attempts {
                            0 | 1 => String::new(),
                            attempts => format!(", attempt {attempts}"),
                        };
                        Some(Outcome::Done(format!("ready{after}{attempts}")))
                    }
                    _ if self.state == State::Completed => {
                        Some(Outcome::Done("completed".to_owned()))
                    }
                    (_, Some(words)) => Some(Outcome::Failed(words.clone())),
                    _ => None,
                },
            };
            match outcome {
                Some(outcome) => turn.out.push(Output::Answer { token: waiter.token, outcome }),
                None => self.waiters.push(waiter),
            }
        }
    }

    /// Why nothing will come of waiting for what it needs.
    fn hopeless(&self) -> Option<String> {
        if self.state != State::Waiting {
            return None;
        }
        let lost = |need: &&NeedView| {
            let state = need.state;
            let lost = matches!(state, State::Stopped | State::CrashLoop | State::Failed);
            !need.met && (lost || state == State::Completed)
        };
        let need = self.needs.iter().find(lost)?;
        Some(format!("it waits for {}, which is {}", need.service, need.state.name()))
    }

    /// Publishes what is so, if that is news.
    pub(super) fn tell(&mut self, turn: &mut Turn<'_>) {
        let view = self.view();
        let news = View { checked: None, ..view.clone() };
        let finding = |view: &View| view.checked.as_ref().map(|checked| checked.finding.clone());
        let told = self.told.as_ref();
        let known = told.is_some_and(|told| {
            let same = View { checked: None, ..told.clone() } == news;
            let fresh = told.checked.as_ref().is_none_or(|it| turn.now - it.at < limit::FRESH);
            same && finding(told) == finding(&view) && (fresh || told.checked == view.checked)
        });
        if !known {
            turn.out.push(Output::Changed(Box::new(view.clone())));
            self.told = Some(view);
        }
    }

    /// What is so.
    pub(in crate::plan) fn view(&self) -> View {
        let stable = self.stable.as_ref();
        let next_try = match self.rest {
            Rest::BackingOff(at) | Rest::CrashLoop(at) => Some(at),
            Rest::Failed(at) => at,
            Rest::Idle | Rest::Completed => None,
        };
        View {
            name: self.spec.name.clone(),
            state: self.state,
            since: self.since,
            words: self.words().map(bounded),
            stable: stable.map(Process::view),
            candidate: self.candidate.as_ref().map(Process::view),
            awaited: stable.and_then(Process::awaited),
            checked: stable.and_then(|process| process.panel.last()).cloned(),
            attempts: self.attempts,
            ready_after: self.ready_after,
            ends: self.ends.iter().cloned().collect(),
            restarts: self.restarts.clone(),
            next_try: next_try.filter(|_| stable.is_none()),
            needs: self.needs.clone(),
        }
    }

    /// More about the state.
    fn words(&self) -> Option<String> {
        let last = self.ends.back().map(|ended| ended.words.clone());
        match self.state {
            State::Waiting => {
                let waits = self.needs.iter().filter(|need| !need.met);
                let waits = waits.map(|need| format!("{} ({})", need.service, need.state.name()));
                Some(format!("for {}", waits.collect::<Vec<_>>().join(", ")))
            }
            State::Stopped => None,
            State::BackingOff | State::Completed => last,
            State::Failed => self.blocked.clone().or(last),
            State::CrashLoop => {
                let crash_loop = self.spec.crash_loop;
                let within = Lasting(crash_loop.within);
                let last = last.unwrap_or_default();
                let often = format!("died {} times within {within}", crash_loop.deaths);
                let tried = self.stable.as_ref().map(|_| "; being tried").unwrap_or_default();
                Some(format!("{often}, last: {last}{tried}"))
            }
            State::Stopping => {
                let after = self.after.as_ref().map(|after| format!("after {after}"));
                let kept = self.stable.as_ref().is_some_and(Process::is_kept);
                let ending = self.processes().find_map(Process::ending_words);
                if kept { after } else { ending }
            }
            State::Starting | State::Ready | State::NotReady => {
                if let Some(candidate) = &self.candidate {
                    let awaited = candidate.awaited().map(|awaited| format!(": {}", awaited.words));
                    let ends = candidate.ending_words().map(|words| format!(": {words}"));
                    let more = ends.or(awaited).unwrap_or_default();
                    return Some(format!("its replacement is starting{more}"));
                }
                let overdue = self.stable.as_ref().is_some_and(|process| process.overdue);
                if overdue {
                    let overdue = Lasting(self.spec.overdue);
                    return Some(format!("no progress for {overdue} or more"));
                }
                if let Some(words) = &self.given_up {
                    return Some(words.clone());
                }
                let unmet = self.needs.iter().filter(|need| !need.met);
                let unmet =
                    unmet.map(|need| format!("{}, which is {}", need.service, need.state.name()));
                let unmet = unmet.collect::<Vec<_>>();
                (!unmet.is_empty()).then(|| format!("needs {}", unmet.join(" and ")))
            }
        }
    }
}
