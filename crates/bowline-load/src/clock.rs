//! The only file of this crate that reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the clock file")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, for those who compare with other records.
#[expect(clippy::disallowed_methods, reason = "this is the clock file")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
