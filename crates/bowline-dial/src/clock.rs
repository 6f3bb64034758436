//! The only file of this crate that reads a clock.

use std::time::Duration;

use bowline_proto::Time;
use tokio::time::Instant;

/// The clock of one connection: what [`Time`] counts from. It is tokio's, so that tests can pause
/// it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn start() -> Self {
        Self { zero: Instant::now() }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn now(self) -> Time {
        Time::ZERO + Instant::now().duration_since(self.zero)
    }

    /// A point in time as tokio's timers want it. Points beyond reach are a year away.
    pub(crate) fn instant(self, at: Time) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 86_400);
        self.zero + at.since(Time::ZERO).min(FAR)
    }
}
