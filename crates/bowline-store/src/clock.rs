//! The only file of this crate that reads a clock, and how far the clock of the system is trusted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// For the timers of the writer's thread.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, as the system's clock has them.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How far the clock may run ahead of the time that has passed before it is not believed.
const AHEAD_MAX: Duration = Duration::from_secs(3600);

/// After how long it is believed nevertheless: nothing is kept for longer than this.
const BELIEVED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The time by which old things are deleted. A clock that jumps ahead by a year would make everything old at once: what
/// was confirmed a minute ago would be unknown when it comes again, and what was parked gone. So a jump ahead counts only
/// after a week. One backwards counts at once: then things are kept for longer.
#[derive(Debug)]
pub(crate) struct Steady {
    anchor: Instant,
    unix_ms: u64,
    ahead_since: Option<Instant>,
}

impl Steady {
    /// Begins with what the clock says.
    pub(crate) fn new(now: Instant, clock_unix_ms: u64) -> Self {
        Self { anchor: now, unix_ms: clock_unix_ms, ahead_since: None }
    }

    /// The time now, in milliseconds since 1970, if that is what the clock says.
    pub(crate) fn unix_ms(&mut self, now: Instant, clock_unix_ms: u64) -> u64 {
        let expected = self.unix_ms.saturating_add(millis(now - self.anchor));
        if clock_unix_ms > expected.saturating_add(millis(AHEAD_MAX)) {
            let since = *self.ahead_since.get_or_insert(now);
            if now - since < BELIEVED {
                return expected;
            }
        }
        *self = Self::new(now, clock_unix_ms);
        clock_unix_ms
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_clock_that_jumps_ahead_is_believed_after_a_week_and_one_that_goes_back_at_once() {
        let begin = now();
        let mut steady = Steady::new(begin, 0);
        let mut at = |hours, clock| steady.unix_ms(begin + hours * HOUR, clock) / millis(HOUR);
        assert_eq!(at(1, millis(HOUR)), 1);
        let year = millis(HOUR) * 24 * 365;
        assert_eq!(at(2, year), 2);
        assert_eq!(at(3, millis(3 * HOUR)), 3, "it is right again");
        assert_eq!(at(4, year), 4);
        assert_eq!(at(4 + 7 * 24, year), 24 * 365, "it goes on saying so");
        assert_eq!(at(4 + 7 * 24 + 1, millis(5 * HOUR)), 5);
    }
}
