//! The one place of this crate that reads a clock: to end a run in time, never to decide in it.

use std::time::{Duration, Instant};

/// A stopwatch.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts one.
    #[expect(clippy::disallowed_methods, reason = "this is the clock file")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it runs.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
