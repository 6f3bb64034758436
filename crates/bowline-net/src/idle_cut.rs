//! Whether something on the way cuts WebSockets that are idle, and after how long.
//!
//! A proxy with an idle timeout below the ping interval ends every connection that has nothing to
//! say, always after the same time and without a close frame: to clients it looks like a server that
//! drops them. Clients that leave without a word do so after any time.

use std::{collections::VecDeque, time::Duration};

use bowline_proto::Time;

use crate::limit;

/// A WebSocket that ended without a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) at: Time,
    /// How long nothing had gone either way.
    pub(crate) idle: Duration,
}

/// The newest of them, of one shard.
#[derive(Debug, Default)]
pub(crate) struct Ends(VecDeque<End>);

impl Ends {
    pub(crate) fn note(&mut self, end: End) {
        if self.0.len() == limit::IDLE_ENDS {
            self.0.pop_front();
        }
        self.0.push_back(end);
    }

    pub(crate) fn to_vec(&self) -> Vec<End> {
        self.0.iter().copied().collect()
    }
}

/// The time after which idle connections are cut, if there seems to be one: at least five of the
/// last ten minutes' ends that a ping had not come before, and at least half of them, lie within
/// 10 % of it.
pub(crate) fn idle_cut(ends: &[End], now: Time, ping_interval: Duration) -> Option<Duration> {
    let counts = |end: &&End| now - end.at <= limit::IDLE_ENDS_FOR && end.idle < ping_interval;
    let mut idle: Vec<Duration> = ends.iter().filter(counts).map(|end| end.idle).collect();
    idle.sort_unstable();
    let enough = limit::IDLE_ENDS_ALIKE.max(idle.len().div_ceil(2));
    // The longest run of which the last is no more than 110 / 90 of the first.
    let mut best = 0..0;
    let mut first = 0;
    for (last, longest) in idle.iter().enumerate() {
        while idle[first] * 11 < *longest * 9 {
            first += 1;
        }
        if idle[first] >= limit::IDLE_CUT_MIN && last + 1 - first > best.len() {
            best = first..last + 1;
        }
    }
    let alike = &idle[best];
    (alike.len() >= enough).then(|| alike[alike.len() / 2])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bowline_proto::Time;

    use super::{End, Ends, idle_cut};
    use crate::limit;

    const PING: Duration = Duration::from_secs(25);

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn ends(idle_ms: &[u64]) -> Vec<End> {
        let ends = idle_ms.iter().enumerate();
        ends.map(|(index, ms)| End { at: at(index as u64), idle: Duration::from_millis(*ms) })
            .collect()
    }

    fn check(idle_ms: &[u64]) -> Option<u64> {
        idle_cut(&ends(idle_ms), at(60), PING).map(|cut| cut.as_millis() as u64)
    }

    #[test]
    fn five_ends_after_the_same_time_are_an_idle_timeout_and_four_are_not() {
        assert_eq!(check(&[4_001, 4_003, 4_002, 4_010, 4_000]), Some(4_002));
        assert_eq!(check(&[4_001, 4_003, 4_002, 4_010]), None);
        assert_eq!(check(&[]), None);
    }

    #[test]
    fn alike_is_within_ten_percent_of_the_middle() {
        assert_eq!(check(&[9_000, 9_500, 10_000, 10_500, 11_000]), Some(10_000));
        assert_eq!(check(&[8_990, 9_500, 10_000, 10_500, 11_000]), None);
    }

    #[test]
    fn clients_that_leave_after_any_time_are_no_idle_timeout() {
        let any: Vec<u64> = (0..64).map(|n| 300 + n * 7_919 % 24_000).collect();
        assert_eq!(check(&any), None);
        // Neither are those among which a few happen to agree.
        let mut some = any.clone();
        some.extend([4_000; 20]);
        assert_eq!(check(&some), None);
        some.extend([4_000; 60]);
        assert_eq!(check(&some), Some(4_000));
    }

    #[test]
    fn ends_in_the_middle_of_a_conversation_and_ends_after_a_ping_say_nothing() {
        assert_eq!(check(&[0, 1, 1, 2, 1, 0, 1, 1]), None);
        assert_eq!(check(&[500; 8]), None);
        assert_eq!(check(&[25_000; 8]), None);
        assert_eq!(check(&[24_900; 8]), Some(24_900));
    }

    #[test]
    fn what_happened_more_than_ten_minutes_ago_is_over() {
        let ends = ends(&[4_000; 8]);
        assert_eq!(idle_cut(&ends, at(600), PING), Some(Duration::from_secs(4)));
        assert_eq!(idle_cut(&ends, at(603), PING), Some(Duration::from_secs(4)));
        assert_eq!(idle_cut(&ends, at(604), PING), None);
    }

    #[test]
    fn only_the_newest_ends_are_kept() {
        let mut kept = Ends::default();
        for end in ends(&vec![1_000; 3 * limit::IDLE_ENDS]) {
            kept.note(end);
        }
        let kept = kept.to_vec();
        assert_eq!(kept.len(), limit::IDLE_ENDS);
        assert_eq!(kept.last().unwrap().at, at(3 * limit::IDLE_ENDS as u64 - 1));
    }
}
