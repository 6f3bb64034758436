//! The only file of this crate that reads a clock.

use std::time::{Duration, Instant, SystemTime};

use bowline_proto::Time;

/// What [`Time`] counts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn start() -> Self {
        Self { zero: Instant::now() }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn now(self) -> Time {
        let micros = Instant::now().duration_since(self.zero).as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Seconds since 1970.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn unix_seconds(self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }

    /// A point in time as tokio's timers want it. Points beyond reach are a year away.
    pub(crate) fn instant(self, at: Time) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(365 * 86_400);
        let after = Duration::from_micros(at.as_micros());
        let instant = self.zero.checked_add(after).unwrap_or(self.zero + FAR);
        tokio::time::Instant::from_std(instant)
    }
}
