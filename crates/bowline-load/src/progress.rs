//! A bar for people who wait.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock;

/// How often the bar moves: often enough for eyes, too seldom to show in a measurement.
const INTERVAL: Duration = Duration::from_millis(200);

/// How many turns of the loop pass between two looks at the clock.
const TURNS: u32 = 64;

/// A bar on stderr, if that is a terminal.
pub(crate) struct Progress {
    shown: bool,
    bar: ProgressBar,
    due: Instant,
    turns: u32,
}

impl Progress {
    /// Nothing is shown unless people watch.
    pub(crate) fn new(shown: bool) -> Self {
        let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        // The words are right, or there is no bar.
        if let Ok(style) = ProgressStyle::with_template("{msg:>24} {wide_bar} {percent:>3} %") {
            bar.set_style(style);
        }
        Self { shown, bar, due: clock::now(), turns: 0 }
    }

    /// Something begins that comes to so much.
    pub(crate) fn begin(&self, what: &str, total: u64) {
        self.bar.set_position(0);
        self.bar.set_length(total);
        self.bar.set_message(what.to_owned());
    }

    /// What is said beside the bar from now on.
    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// So much of it is done.
    #[inline]
    pub(crate) fn at(&mut self, done: u64) {
        if self.shown {
            self.turns += 1;
            if self.turns >= TURNS {
                self.show(done);
            }
        }
    }

    #[cold]
    fn show(&mut self, done: u64) {
        self.turns = 0;
        let now = clock::now();
        if now >= self.due {
            self.due = now + INTERVAL;
            self.bar.set_position(done);
        }
    }

    /// How long one may wait between two calls.
    pub(crate) fn interval(&mut self) -> Duration {
        self.turns = TURNS;
        INTERVAL
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
