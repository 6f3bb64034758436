//! How long things take.
#![expect(clippy::disallowed_methods, reason = "this is the clock of xtask")]

use std::time::{Duration, Instant};

/// A watch that runs from its making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch(Instant);

impl Watch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn read(self) -> Duration {
        self.0.elapsed()
    }
}

/// Writes a time as `1:23` or `4.5 s`.
pub(crate) fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        return format!("{}:{:02} min", seconds / 60, seconds % 60);
    }
    format!("{:.1} s", time.as_secs_f64())
}
