//! What was counted in the last so many seconds.

use std::time::Duration;

use bowline_proto::Time;

/// How many slots a span has. One more is kept, so that what is summed is never less than the span: at most a
/// twelfth more.
const SLOTS: u64 = 12;

/// Two counts over a span of time that moves along.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    span: Duration,
    slots: [Slot; SLOTS as usize + 1],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Counted from the zero of the clock.
    number: u64,
    counts: [u64; 2],
}

impl Window {
    pub(crate) fn new(span: Duration) -> Self {
        Self { span: span.max(Duration::from_micros(SLOTS)), slots: Default::default() }
    }

    /// Counts `count` more of the first or the second.
    pub(crate) fn add(&mut self, now: Time, which: usize, count: u64) {
        let number = self.number(now);
        let slot = &mut self.slots[(number % (SLOTS + 1)) as usize];
        // One that somebody else has found the time for already is left alone.
        if slot.number < number {
            *slot = Slot { number, ..Slot::default() };
        }
        if slot.number == number {
            slot.counts[which] = slot.counts[which].saturating_add(count);
        }
    }

    /// Takes back what was counted at `then`, if it still counts.
    pub(crate) fn take_back(&mut self, then: Time, which: usize, count: u64) {
        let number = self.number(then);
        let slot = &mut self.slots[(number % (SLOTS + 1)) as usize];
        if slot.number == number {
            slot.counts[which] = slot.counts[which].saturating_sub(count);
        }
    }

    /// Nothing counts any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.span);
    }

    /// What counts now.
    pub(crate) fn sum(&self, now: Time, which: usize) -> u64 {
        self.live(now).map(|slot| slot.counts[which]).sum()
    }

    /// In how long at most `allowed` are left of what counts now, if nothing is added.
    pub(crate) fn falls_to(&self, now: Time, which: usize, allowed: u64) -> Duration {
        let mut live: Vec<&Slot> = self.live(now).collect();
        live.sort_by_key(|slot| slot.number);
        let mut sum = self.sum(now, which);
        let mut live = live.into_iter();
        let mut until = now;
        while sum > allowed {
            let Some(slot) = live.next() else { break };
            sum -= slot.counts[which];
            let width = self.width();
            until = Time::from_micros((slot.number + SLOTS + 1).saturating_mul(width));
        }
        until.since(now)
    }

    fn live(&self, now: Time) -> impl Iterator<Item = &Slot> {
        let newest = self.number(now);
        // Nothing is older than the zero of the clock, so an unused slot counts nothing.
        self.slots.iter().filter(move |slot| slot.number + SLOTS >= newest)
    }

    fn number(&self, at: Time) -> u64 {
        at.as_micros() / self.width()
    }

    fn width(&self) -> u64 {
        u64::try_from(self.span.as_micros()).unwrap_or(u64::MAX).div_ceil(SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn what_is_older_than_the_span_does_not_count() {
        let mut window = Window::new(MINUTE);
        window.add(at(0), 0, 3);
        window.add(at(30), 0, 4);
        window.add(at(30), 1, 9);
        assert_eq!([window.sum(at(30), 0), window.sum(at(30), 1)], [7, 9]);
        assert_eq!(window.sum(at(64), 0), 7);
        assert_eq!(window.sum(at(65), 0), 4);
        assert_eq!(window.sum(at(95), 0), 0);
    }

    #[test]
    fn it_tells_when_there_is_room() {
        let mut window = Window::new(MINUTE);
        window.add(at(0), 0, 3);
        window.add(at(30), 0, 4);
        let falls_to = |allowed| window.falls_to(at(32), 0, allowed).as_secs();
        assert_eq!([falls_to(7), falls_to(6), falls_to(4), falls_to(3)], [0, 33, 33, 63]);
    }

    #[test]
    fn what_is_taken_back_does_not_count_and_never_falls_below_zero() {
        let mut window = Window::new(MINUTE);
        window.add(at(1), 0, 3);
        window.take_back(at(1), 0, 2);
        assert_eq!(window.sum(at(2), 0), 1);
        window.take_back(at(1), 0, 2);
        assert_eq!(window.sum(at(2), 0), 0);
        window.add(at(200), 0, 1);
        window.take_back(at(1), 0, 1);
        assert_eq!(window.sum(at(200), 0), 1);
    }

    proptest! {
        /// It never counts less than the span, nor more than a twelfth beyond it; and there is room when it says so.
        #[test]
        fn it_counts_what_the_span_has(steps in prop::collection::vec((0_u64..20, 0_u64..5), 1..60)) {
            let mut window = Window::new(MINUTE);
            let (mut now, mut all) = (at(0), Vec::new());
            for (wait, count) in steps {
                now += Duration::from_secs(wait);
                window.add(now, 0, count);
                all.push((now, count));
                let since = |span| all.iter().filter(|(then, _)| now.since(*then) < span).map(|(_, n)| n).sum::<u64>();
                let sum = window.sum(now, 0);
                prop_assert!(since(MINUTE) <= sum && sum <= since(MINUTE + MINUTE / 12));
                for allowed in 0..sum {
                    let then = now + window.falls_to(now, 0, allowed);
                    prop_assert!(window.sum(then, 0) <= allowed);
                    prop_assert!(then > now);
                }
            }
        }
    }
}
