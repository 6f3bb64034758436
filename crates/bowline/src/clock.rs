//! The only file of this crate that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bowline_proto::Time;

/// The clock of a process: what [`Time`] counts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    /// Starts the clock at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn start() -> Self {
        Self { zero: Instant::now() }
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

/// Milliseconds since 1970, as the system's clock has them.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time of day, for log lines.
pub(crate) fn timestamp() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The points in time at which the master started, in milliseconds since 1970, and had bound its
/// addresses, so many seconds later.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub(crate) fn start_of(started_unix_ms: u64, bind_seconds: f64) -> (Instant, Instant) {
    let now = Instant::now();
    // The system's clock may have been set back meanwhile.
    let ago = Duration::from_millis(unix_ms().saturating_sub(started_unix_ms));
    let started = now.checked_sub(ago).unwrap_or(now);
    let bound = Duration::try_from_secs_f64(bind_seconds).unwrap_or_default();
    (started, (started + bound).min(now))
}
