//! The only file of this crate that reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bowline_proto::Time;
use tokio::time::Instant;

/// What [`Time`] counts from, the same for all links. It is tokio's, so that tests can pause it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { zero: instant() }
    }

    /// The time now.
    pub(crate) fn now(self) -> Time {
        Time::ZERO + instant().duration_since(self.zero)
    }

    /// A point in time as tokio's timers want it. Points beyond reach are a year away.
    pub(crate) fn instant(self, at: Time) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 86_400);
        self.zero + at.since(Time::ZERO).min(FAR)
    }

    /// A point in time as people and the store have it, in milliseconds since 1970; right even when the system's clock
    /// was set since then.
    pub(crate) fn unix_ms_of(self, at: Time) -> u64 {
        let now = self.now();
        let away = |by: Duration| u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        if at <= now {
            unix_ms().saturating_sub(away(now.since(at)))
        } else {
            unix_ms().saturating_add(away(at.since(now)))
        }
    }
}

/// The time now, of tokio's clock.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// The time now, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
