//! Which changes of a link are worth a line in the log. Pure.
//!
//! A link that fails all night says each way of failing once, then how often: at the tenth, the hundredth, the thousandth
//! time, and when it is live again.

use std::collections::BTreeMap;

use bowline_proto::keeper::State;

/// Ways of failing that are told apart; the rest counts as one more.
const WAYS_MAX: usize = 16;

/// What was said since the link was live last.
#[derive(Debug, Default)]
pub(super) struct Told {
    said: BTreeMap<String, u64>,
    others: u64,
    unsaid: u64,
    /// Whether the link has been kept since it was off.
    is_kept: bool,
}

/// A line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// Whether somebody should look.
    pub(super) warn: bool,
    /// How often the same was to be said since the link was live last.
    pub(super) times: u64,
    /// Lines that were left out since then.
    pub(super) left_out: u64,
}

impl Told {
    /// The line about a change, if it is worth one.
    pub(super) fn state(&mut self, state: State, words: &str) -> Option<Line> {
        let was_kept = std::mem::replace(&mut self.is_kept, state != State::Off);
        match state {
            State::Live => {
                let left_out = self.unsaid;
                *self = Self { is_kept: true, ..Self::default() };
                Some(Line { warn: false, times: 1, left_out })
            }
            State::Off => Some(Line { warn: false, times: 1, left_out: self.unsaid }),
            // It begins: nothing has gone wrong.
            State::Waiting if !was_kept => None,
            State::Connecting | State::Proving => None,
            State::Waiting | State::Suspect | State::Replaced | State::Refused => {
                self.trouble(format!("{}: {words}", state.name()))
            }
        }
    }

    /// The line about something else that goes wrong, told apart by its words.
    pub(super) fn trouble(&mut self, words: String) -> Option<Line> {
        let times = if self.said.len() < WAYS_MAX || self.said.contains_key(&words) {
            self.said.entry(words).or_insert(0)
        } else {
            &mut self.others
        };
        *times += 1;
        let times = *times;
        if times.checked_ilog10().is_some_and(|power| times == 10_u64.pow(power)) {
            Some(Line { warn: true, times, left_out: self.unsaid })
        } else {
            self.unsaid += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_of_the_same_failure_is_a_handful_of_lines() {
        let mut told = Told::default();
        assert_eq!(told.state(State::Waiting, "started"), None);
        let lines = (0..2_000).filter_map(|_| {
            assert_eq!(told.state(State::Connecting, ""), None);
            told.state(State::Waiting, "connection refused")
        });
        let times: Vec<u64> = lines.map(|line| line.times).collect();
        assert_eq!(times, [1, 10, 100, 1_000]);
        let live = told.state(State::Live, "").unwrap();
        assert_eq!((live.warn, live.left_out), (false, 1_996));
        assert_eq!(told.state(State::Waiting, "connection refused").unwrap().times, 1);
    }

    #[test]
    fn each_way_of_failing_is_said_and_their_number_is_bounded() {
        let mut told = Told::default();
        told.state(State::Connecting, "");
        assert!(told.state(State::Waiting, "refused").is_some());
        assert!(told.state(State::Waiting, "timed out").is_some());
        assert!(told.state(State::Waiting, "refused").is_none());
        let lines = (0..1_000).filter_map(|n| told.state(State::Waiting, &n.to_string())).count();
        assert!(lines < 30, "{lines}");
        assert!(told.said.len() <= WAYS_MAX);
    }
}
