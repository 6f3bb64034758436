//! The only file of this crate that reads a clock.

use std::time::Instant;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the clock file")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
