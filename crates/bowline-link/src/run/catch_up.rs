//! Asking the service for what was missed, or whether anything was: from when, and when again. Pure.
//!
//! What arrives while the service is asked waits for a while, since what it says is older.

use std::{collections::VecDeque, time::Duration};

use bowline_proto::Time;

use super::limit;

/// Taken off the time from which on the service is asked: its clock may go otherwise. What comes twice is known by its
/// id.
const MARGIN: Duration = Duration::from_secs(60);

/// Before it is asked again when it did not answer: doubled each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct CatchUp<T> {
    /// From when on, in milliseconds since 1970, if something is to be asked.
    since_unix_ms: Option<u64>,
    /// Whether something is known to be missing; else it is only looked.
    is_missing: bool,
    stand: Stand,
    failures: u32,
    hold_until: Option<Time>,
    held: VecDeque<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Idle,
    Due(Time),
    /// Asked, and what.
    Asked(Question),
}

/// What the service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// From when on, in milliseconds since 1970.
    pub(super) since_unix_ms: u64,
    /// Whether something is known to be missing; else it is only looked.
    pub(super) is_missing: bool,
}

impl<T> Default for CatchUp<T> {
    fn default() -> Self {
        let held = VecDeque::new();
        Self {
            since_unix_ms: None,
            is_missing: false,
            stand: Stand::Idle,
            failures: 0,
            hold_until: None,
            held,
        }
    }
}

impl<T> CatchUp<T> {
    /// Asks for everything since then: something is missing.
    pub(super) fn want(&mut self, now: Time, now_unix_ms: u64, since_unix_ms: u64) {
        let is_asked = matches!(self.stand, Stand::Asked(Question { is_missing: true, .. }));
        if !self.is_missing && !is_asked {
            // That nothing was known to be missing is over.
            self.hold_until = None;
        }
        self.is_missing = true;
        self.ask_for(now, now_unix_ms, since_unix_ms, limit::CATCH_UP_HOLD);
    }

    /// Asks whether there is anything since then.
    pub(super) fn look(&mut self, now: Time, now_unix_ms: u64, since_unix_ms: u64) {
        self.ask_for(now, now_unix_ms, since_unix_ms, limit::LOOK_HOLD);
    }

    fn ask_for(&mut self, now: Time, now_unix_ms: u64, since_unix_ms: u64, hold: Duration) {
        let oldest = now_unix_ms.saturating_sub(millis(limit::CATCH_UP_MAX));
        // A time that is yet to come was written down before the clock was set back: nobody knows what it stands for.
        let is_past = since_unix_ms <= now_unix_ms.saturating_add(millis(MARGIN));
        let since = if is_past { since_unix_ms.saturating_sub(millis(MARGIN)) } else { 0 };
        let since = since.max(oldest);
        self.since_unix_ms = Some(self.since_unix_ms.map_or(since, |known| known.min(since)));
        if self.stand == Stand::Idle {
            self.stand = Stand::Due(now);
        }
        if self.hold_until.is_none() {
            self.hold_until = Some(now + hold);
        }
    }

    /// What the service is to be asked now.
    pub(super) fn ask(&mut self, now: Time) -> Option<Question> {
        let Stand::Due(at) = self.stand else { return None };
        if at > now {
            return None;
        }
        let since_unix_ms = self.since_unix_ms.take()?;
        let is_missing = std::mem::take(&mut self.is_missing);
        let question = Question { since_unix_ms, is_missing };
        self.stand = Stand::Asked(question);
        Some(question)
    }

    /// It has answered.
    pub(super) fn done(&mut self, now: Time) {
        self.failures = 0;
        self.stand = match self.since_unix_ms {
            // Asked for once more meanwhile.
            Some(_) => Stand::Due(now),
            None => Stand::Idle,
        };
    }

    /// It has not: it is asked again, from the same time on, and no sooner than it wants. Nothing is held up any longer.
    pub(super) fn failed(&mut self, now: Time, retry_after: Option<Duration>) {
        if let Stand::Asked(Question { since_unix_ms: since, is_missing }) = self.stand {
            self.since_unix_ms = Some(self.since_unix_ms.map_or(since, |known| known.min(since)));
            self.is_missing |= is_missing;
        }
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.stand = Stand::Due(now + pause.max(retry_after.unwrap_or_default()));
        self.hold_until = Some(now);
    }

    /// Whether nothing is to be asked any more.
    pub(super) fn is_idle(&self) -> bool {
        self.stand == Stand::Idle
    }

    /// Passes something on that has arrived, or keeps it back.
    pub(super) fn pass(&mut self, now: Time, arrived: T) -> Option<T> {
        // Nothing overtakes what is still to be released.
        if self.is_holding(now) || !self.held.is_empty() {
            self.held.push_back(arrived);
            return None;
        }
        Some(arrived)
    }

    /// What was kept back and need not be any longer.
    pub(super) fn release(&mut self, now: Time) -> VecDeque<T> {
        if self.is_holding(now) && self.stand != Stand::Idle {
            return VecDeque::new();
        }
        if self.stand == Stand::Idle {
            self.hold_until = None;
        }
        std::mem::take(&mut self.held)
    }

    /// When something is to be done.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let due = match self.stand {
            Stand::Due(at) => Some(at),
            Stand::Idle | Stand::Asked(_) => None,
        };
        let hold = self.hold_until.filter(|until| *until > now || !self.held.is_empty());
        due.into_iter().chain(hold).min()
    }

    fn is_holding(&self, now: Time) -> bool {
        self.held.len() < limit::ARRIVALS
            && self.hold_until.is_some_and(|until| now < until)
            && self.stand != Stand::Idle
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::ZERO;
    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn what_arrives_meanwhile_waits_for_the_answer() {
        let mut catch_up = CatchUp::default();
        assert_eq!(catch_up.pass(START, 1), Some(1));
        catch_up.want(START, NOW, NOW - 5_000);
        assert_eq!(since(&mut catch_up, START), Some(NOW - 65_000));
        assert_eq!(catch_up.ask(START), None);
        assert_eq!(catch_up.pass(START, 2), None);
        assert!(catch_up.release(START).is_empty());
        catch_up.done(START);
        assert_eq!(catch_up.release(START), [2]);
        assert_eq!(catch_up.pass(START, 3), Some(3));
        assert_eq!(catch_up.deadline(START), None);
    }

    #[test]
    fn it_does_not_wait_for_long() {
        let mut catch_up = CatchUp::default();
        catch_up.want(START, NOW, NOW);
        catch_up.ask(START);
        assert_eq!(catch_up.pass(START, 1), None);
        let later = catch_up.deadline(START).unwrap();
        assert_eq!(later, START + limit::CATCH_UP_HOLD);
        assert_eq!(catch_up.release(later), [1]);
        assert_eq!(catch_up.pass(later, 2), Some(2));
        assert_eq!(catch_up.deadline(later), None);
    }

    #[test]
    fn nothing_overtakes_what_was_kept_back() {
        let mut catch_up = CatchUp::default();
        catch_up.want(START, NOW, NOW);
        catch_up.ask(START);
        let all = 0..=limit::ARRIVALS;
        assert!(all.clone().all(|number| catch_up.pass(START, number).is_none()));
        assert!(catch_up.release(START).into_iter().eq(all));

        assert_eq!(catch_up.pass(START, 1), None);
        let later = START + limit::CATCH_UP_HOLD;
        assert_eq!(catch_up.pass(later, 2), None, "the first one is not released yet");
        assert_eq!(catch_up.release(later), [1, 2]);
        assert_eq!(catch_up.pass(later, 3), Some(3));
    }

    #[test]
    fn it_is_asked_again_until_it_answers_from_the_oldest_time_on() {
        let mut catch_up = CatchUp::<u8>::default();
        catch_up.want(START, NOW, NOW - 1_000);
        let asked = catch_up.ask(START);
        catch_up.want(START, NOW, NOW);
        catch_up.failed(START, None);
        assert_eq!(catch_up.ask(START), None);
        let again = catch_up.deadline(START + Duration::from_millis(1)).unwrap();
        assert_eq!((again, catch_up.ask(again)), (START + PAUSE_FIRST, asked));
        catch_up.failed(again, None);
        assert_eq!(catch_up.failures, 2);
        let again = catch_up.deadline(again + Duration::from_millis(1)).unwrap();
        assert_eq!(catch_up.ask(again), asked);
        catch_up.done(again);
        assert!(catch_up.is_idle());
        assert_eq!((catch_up.failures, catch_up.deadline(again)), (0, None));
    }

    #[test]
    fn it_never_goes_back_further_than_ids_are_remembered() {
        let mut catch_up = CatchUp::<u8>::default();
        catch_up.want(START, NOW, 0);
        assert_eq!(since(&mut catch_up, START), Some(NOW - millis(limit::CATCH_UP_MAX)));
    }

    #[test]
    fn after_the_clock_was_set_back_it_asks_for_all_that_it_may() {
        let mut catch_up = CatchUp::<u32>::default();
        catch_up.want(START, NOW, NOW + 30_000);
        assert_eq!(since(&mut catch_up, START), Some(NOW - 30_000), "clocks are set by a little");
        catch_up.done(START);
        catch_up.want(START, NOW, NOW + 3 * 3_600_000);
        assert_eq!(since(&mut catch_up, START), Some(NOW - millis(limit::CATCH_UP_MAX)));
    }

    #[test]
    fn a_look_becomes_a_catch_up_when_something_is_missing_meanwhile() {
        let mut catch_up = CatchUp::<u8>::default();
        let is_missing = |asked: Option<Question>| asked.map(|question| question.is_missing);
        catch_up.look(START, NOW, NOW);
        assert_eq!(is_missing(catch_up.ask(START)), Some(false));
        catch_up.want(START, NOW, NOW - 5_000);
        catch_up.done(START);
        assert_eq!(is_missing(catch_up.ask(START)), Some(true));
        catch_up.look(START, NOW, NOW);
        catch_up.failed(START, None);
        let again = catch_up.deadline(START + Duration::from_millis(1)).unwrap();
        assert_eq!(is_missing(catch_up.ask(again)), Some(true), "it is still missing");
        catch_up.done(again);
        assert!(catch_up.is_idle());
    }

    #[test]
    fn what_is_missing_holds_up_arrivals_although_a_look_does_not_any_more() {
        let mut catch_up = CatchUp::default();
        catch_up.look(START, NOW, NOW);
        catch_up.ask(START);
        catch_up.failed(START, None);
        assert_eq!(catch_up.pass(START, 1), Some(1));
        catch_up.want(START, NOW, NOW);
        assert_eq!(catch_up.pass(START, 2), None);
        catch_up.want(START + limit::CATCH_UP_HOLD, NOW, NOW);
        assert_eq!(catch_up.release(START + limit::CATCH_UP_HOLD), [2], "once is enough");
    }

    #[test]
    fn it_is_not_asked_again_sooner_than_the_service_wants() {
        let mut catch_up = CatchUp::<u8>::default();
        catch_up.want(START, NOW, NOW);
        let asked = catch_up.ask(START);
        catch_up.failed(START, Some(Duration::from_secs(90)));
        assert_eq!(catch_up.ask(START + Duration::from_secs(89)), None);
        assert_eq!(catch_up.ask(START + Duration::from_secs(90)), asked);
    }

    fn since<T>(catch_up: &mut CatchUp<T>, now: Time) -> Option<u64> {
        catch_up.ask(now).map(|question| question.since_unix_ms)
    }
}
