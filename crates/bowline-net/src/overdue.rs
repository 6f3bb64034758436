//! When a deadline that has passed counts: not before what had arrived by then was read.

use std::time::Duration;

use bowline_proto::Time;

use crate::limit;

/// Puts the deadlines of sessions off while there may be signs of life that nobody has read yet.
#[derive(Debug, Default)]
pub(crate) struct Overdue(Option<Wait>);

/// A deadline has passed and was not acted on.
#[derive(Debug, Clone, Copy)]
struct Wait {
    /// From when on it counts if all was read.
    from: Time,
    /// From when on it counts whatever there is left.
    until: Time,
}

impl Overdue {
    /// Whether to act on deadlines now, of which `due` is the earliest. `all_read` says that
    /// nothing is known to wait.
    pub(crate) fn is_over(&mut self, now: Time, due: Option<Time>, all_read: bool) -> bool {
        let Some(due) = due.filter(|due| *due <= now) else {
            self.0 = None;
            return false;
        };
        let wait = *self.0.get_or_insert_with(|| {
            let late = now - due;
            let grace = match late < limit::LATE {
                true => Duration::ZERO,
                false => late.min(limit::LATE_GRACE),
            };
            Wait { from: now + grace, until: now + limit::PUT_OFF_MAX }
        });
        let over = wait.until <= now || (all_read && wait.from <= now);
        if over {
            self.0 = None;
        }
        over
    }

    /// When to ask again, if `due` is the earliest deadline and nothing happens before.
    pub(crate) fn next(&self, now: Time, due: Time) -> Time {
        match self.0 {
            None => due,
            Some(wait) if now < wait.from => wait.from,
            Some(wait) => wait.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bowline_proto::Time;

    use super::Overdue;
    use crate::limit;

    const DUE: Time = Time::from_micros(60_000_000);

    #[test]
    fn a_deadline_noticed_in_time_counts_once_all_was_read() {
        let mut overdue = Overdue::default();
        let now = DUE + Duration::from_millis(1);
        assert!(!overdue.is_over(DUE, None, true));
        assert!(!overdue.is_over(Time::from_micros(59_000_000), Some(DUE), true));
        assert!(!overdue.is_over(now, Some(DUE), false));
        assert_eq!(overdue.next(now, DUE), now + limit::PUT_OFF_MAX);
        assert!(overdue.is_over(now, Some(DUE), true));
        assert_eq!(overdue.next(now, DUE), DUE);
    }

    #[test]
    fn a_deadline_noticed_late_leaves_time_to_be_heard() {
        let mut overdue = Overdue::default();
        let now = DUE + Duration::from_secs(30);
        assert!(!overdue.is_over(now, Some(DUE), true));
        assert_eq!(overdue.next(now, DUE), now + limit::LATE_GRACE);
        assert!(overdue.is_over(now + limit::LATE_GRACE, Some(DUE), true));

        // Not much longer than it was late.
        let now = DUE + limit::LATE;
        assert!(!overdue.is_over(now, Some(DUE), true));
        assert_eq!(overdue.next(now, DUE), now + limit::LATE);
    }

    #[test]
    fn senders_without_end_put_a_deadline_off_for_a_bounded_time() {
        let mut overdue = Overdue::default();
        let end = DUE + limit::PUT_OFF_MAX;
        let mut now = DUE;
        while now < end {
            assert!(!overdue.is_over(now, Some(DUE), false));
            assert_eq!(overdue.next(now, DUE), end);
            now += Duration::from_millis(50);
        }
        assert!(overdue.is_over(end, Some(DUE), false));
    }
}
