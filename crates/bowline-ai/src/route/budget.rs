//! How many retries there may be.

use std::time::Duration;

use bowline_proto::Time;

use super::window::Window;

/// Over which the share is taken. As tower and linkerd have it: long enough for a share of few requests, short
/// enough that an hour of good weather buys no storm.
const SPAN: Duration = Duration::from_secs(10);

const REQUESTS: usize = 0;
const RETRIES: usize = 1;

/// Keeps retries a share of the requests of the last ten seconds, plus a floor: a provider that is in trouble is
/// not buried under what it has failed already.
///
/// Only asking the *same* target again costs something. A fallback is bounded by the length of its chain.
#[derive(Debug, Clone)]
pub struct Budget {
    percent: u32,
    floor: u32,
    counted: Window,
}

impl Budget {
    /// So many retries for a hundred requests, and so many in ten seconds in any case.
    pub fn new(percent: u32, floor: u32) -> Self {
        Self { percent, floor, counted: Window::new(SPAN) }
    }

    /// The configuration has changed; what was counted stays.
    pub fn reconfigure(&mut self, percent: u32, floor: u32) {
        (self.percent, self.floor) = (percent, floor);
    }

    /// A request has begun. Its [`Chain`](super::Chain) says so with its first step.
    pub(super) fn on_request(&mut self, now: Time) {
        self.counted.add(now, REQUESTS, 1);
    }

    /// Takes one retry, if there is one left.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let left = self.left(now) > 0;
        if left {
            self.counted.add(now, RETRIES, 1);
        }
        left
    }

    /// How many are left.
    pub fn left(&self, now: Time) -> u64 {
        let requests = self.counted.sum(now, REQUESTS);
        let allowed = requests * u64::from(self.percent) / 100 + u64::from(self.floor);
        allowed.saturating_sub(self.counted.sum(now, RETRIES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn retries_are_a_share_of_the_requests_and_a_floor() {
        let mut budget = Budget::new(20, 2);
        (0..100).for_each(|_| budget.on_request(at(100)));
        let taken = (0..100).filter(|_| budget.take(at(101))).count();
        assert_eq!((taken, budget.left(at(101))), (22, 0));
    }

    #[test]
    fn a_quiet_gateway_has_the_floor_and_no_more() {
        let mut budget = Budget::new(20, 2);
        (0..1_000).for_each(|_| budget.on_request(at(100)));
        // The good hour is over.
        assert_eq!(budget.left(at(120)), 2);
        assert!(budget.take(at(120)) && budget.take(at(120)) && !budget.take(at(120)));
        assert!(!budget.take(at(125)));
        assert!(budget.take(at(131)));
    }

    #[test]
    fn none_are_allowed_if_none_are_configured() {
        let mut budget = Budget::new(0, 0);
        (0..1_000).for_each(|_| budget.on_request(at(1)));
        assert!(!budget.take(at(1)));
        budget.reconfigure(1, 0);
        assert_eq!(budget.left(at(1)), 10);
    }
}
