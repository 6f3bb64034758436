//! What the commands say while they work.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use bowline_names::EnvVar;

use crate::clock::Clock;

/// How long somebody may wait before something is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says a line on stderr. There is nobody left to tell if that is closed.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Whether stdout shows colours.
pub(super) fn colours_on_stdout() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os(EnvVar::NoColor.name()).is_none_or(|value| value.is_empty())
}

/// Colours, or none.
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) fn of(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A state: good, on its way, or bad.
    pub(super) fn state(&self, state: &str) -> String {
        let code = match state {
            "running" | "ready" | "answering" | "completed" | "live" => "32",
            "failed" | "backing-off" | "crash-loop" | "silent" | "dead" | "critical"
            | "refused" | "replaced" => "31",
            _ => "33",
        };
        self.of(code, state)
    }

    /// How far a message has come.
    pub(super) fn stage(&self, stage: &str) -> String {
        match stage {
            "confirmed" | "replied" => self.of("32", stage),
            "put aside" => self.of("31", stage),
            _ => stage.to_owned(),
        }
    }
}

/// The last line of a terminal while one waits: nothing for the first second, and nothing ever
/// where there is no terminal.
pub(super) struct Progress {
    clock: Clock,
    terminal: bool,
    shown: bool,
}

impl Progress {
    pub(super) fn begin() -> Self {
        Self { clock: Clock::start(), terminal: io::stderr().is_terminal(), shown: false }
    }

    /// How long it takes already.
    pub(super) fn waited(&self) -> Duration {
        Duration::from_micros(self.clock.now().as_micros())
    }

    /// Shows what is waited for.
    pub(super) fn show(&mut self, what: impl FnOnce() -> String) {
        let waited = self.waited();
        if self.terminal && waited >= PATIENCE {
            self.shown = true;
            let _ = write!(io::stderr(), "\r\x1b[K  {} ({} s)", what(), waited.as_secs());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Writes a duration in its two largest units, and a short one in milliseconds.
pub(crate) fn roughly(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    if duration < Duration::from_secs(10) {
        return format!("{:.1}s", duration.as_secs_f64());
    }
    let whole = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    let whole = whole.replace("days", "d").replace("day", "d");
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_their_two_largest_units() {
        let shown = |seconds| roughly(Duration::from_millis(seconds));
        assert_eq!(shown(120), "120ms");
        assert_eq!(shown(1_260), "1.3s");
        assert_eq!(shown(59_900), "59s");
        assert_eq!(shown(7_203_000), "2h 3s");
        assert_eq!(shown(90_061_000), "1d 1h");
    }
}
