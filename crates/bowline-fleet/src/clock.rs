//! The clock, and the only place that reads one.

use std::time::{Duration, SystemTime};

use bowline_proto::Time;
use tokio::time::Instant;

/// What [`Time`] counts from, in one crew. It is tokio's clock, so that tests can pause it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    /// A clock that begins now.
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

    /// The time of day, for records and for the lines of logs.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn wall(self) -> SystemTime {
        SystemTime::now()
    }
}
