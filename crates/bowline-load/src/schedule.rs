//! When messages are due that are sent whatever comes back. A message counts from when it was due:
//! if the server or this tool is late, that is part of the delay, not left out of it.

use std::time::{Duration, Instant};

/// Messages at even distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    begun: Instant,
    /// Nanoseconds from one to the next.
    distance: f64,
    total: u64,
    next: u64,
}

impl Schedule {
    /// So many a second, for so long.
    pub(crate) fn new(begun: Instant, rate: f64, duration: Duration) -> Self {
        // A rate that is out of all reason ends as a count that saturates.
        Self::of(begun, rate, ((duration.as_secs_f64() * rate) as u64).max(1))
    }

    /// So many a second, so many in all.
    pub(crate) fn of(begun: Instant, rate: f64, total: u64) -> Self {
        Self { begun, distance: 1e9 / rate, total, next: 0 }
    }

    /// How many there are.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// When a message is due.
    #[inline]
    pub(crate) fn due(&self, number: u64) -> Instant {
        self.begun + Duration::from_nanos((number as f64 * self.distance) as u64)
    }

    /// The next message that is due by now, as its number.
    #[inline]
    pub(crate) fn pop(&mut self, now: Instant) -> Option<u64> {
        let number = self.next;
        if number >= self.total || self.due(number) > now {
            return None;
        }
        self.next += 1;
        Some(number)
    }

    /// When there is something to do again; none when all has been sent.
    pub(crate) fn wake(&self) -> Option<Instant> {
        (self.next < self.total).then(|| self.due(self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn messages_are_due_at_even_distances_however_late_one_looks() {
        let begun = clock::now();
        let mut schedule = Schedule::new(begun, 1000.0, Duration::from_millis(10));
        assert_eq!((schedule.total(), schedule.wake()), (10, Some(begun)));
        assert_eq!((schedule.pop(begun), schedule.pop(begun)), (Some(0), None));
        assert_eq!(schedule.wake(), Some(begun + Duration::from_millis(1)));
        // Three are due, and each counts from when it was due.
        let late = begun + Duration::from_micros(3500);
        let sent: Vec<u64> = std::iter::from_fn(|| schedule.pop(late)).collect();
        assert_eq!(sent, [1, 2, 3]);
        assert_eq!(late - schedule.due(1), Duration::from_micros(2500));
        let end = begun + Duration::from_secs(1);
        assert_eq!(std::iter::from_fn(|| schedule.pop(end)).count(), 6);
        assert_eq!(schedule.wake(), None);
    }
}
