//! The only file of this crate that reads a clock.

use std::time::{Duration, Instant};

use bowline_proto::Time;

/// The clock of a process: what [`Time`] counts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    /// Starts the clock. It counts from one second, so that "before the start" can be said.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { zero: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn now(self) -> Time {
        let micros = Instant::now().duration_since(self.zero).as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// A point in time as tokio's timers want it. Points beyond reach are a year away.
    pub(crate) fn instant(self, at: Time) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(365 * 86_400);
        let after = Duration::from_micros(at.as_micros());
        let instant = self.zero.checked_add(after).unwrap_or(self.zero + FAR);
        tokio::time::Instant::from_std(instant)
    }
}
