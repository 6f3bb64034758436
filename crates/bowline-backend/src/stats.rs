//! What is counted of an app.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::verdict::Fault;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The app has answered as it should.
    Ok,
    /// It has not.
    Failed(Fault),
    /// Its socket left before it was sent.
    Gone,
}

impl Outcome {
    /// Every outcome, in the order in which [`Stats::requests`] has them.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::Failed(Fault::Unavailable),
        Self::Failed(Fault::Timeout),
        Self::Failed(Fault::Busy),
        Self::Failed(Fault::Invalid),
        Self::Gone,
    ];

    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(Fault::Unavailable) => "unavailable",
            Self::Failed(Fault::Timeout) => "timeout",
            Self::Failed(Fault::Busy) => "busy",
            Self::Failed(Fault::Invalid) => "invalid",
            Self::Gone => "gone",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|other| *other == self).unwrap_or_default()
    }
}

/// The upper bounds of the buckets of [`Stats::seconds`], in milliseconds; one more has none.
const BOUNDS_MS: [u64; 14] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// What was counted since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Requests that are over, in the order of [`Outcome::ALL`].
    pub requests: [u64; Outcome::ALL.len()],
    /// How long those took that were sent: upper bounds in seconds, and how many took no longer.
    pub buckets: Vec<(f64, u64)>,
    /// All that time, in seconds.
    pub seconds: f64,
    /// How often it was measured.
    pub count: u64,
    /// Requests that wait to be sent.
    pub waiting: usize,
    /// Requests under way.
    pub running: usize,
    /// Requests that found `max_concurrent` under way when their turn had come.
    pub pool_waits: u64,
    /// Events without an ack that failed: nobody was told.
    pub events_lost: u64,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [AtomicU64; Outcome::ALL.len()],
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    micros: AtomicU64,
    events_lost: AtomicU64,
}

impl Counters {
    pub(crate) fn on_outcome(&self, outcome: Outcome) {
        self.requests[outcome.index()].fetch_add(1, Relaxed);
    }

    pub(crate) fn on_event_lost(&self) {
        self.events_lost.fetch_add(1, Relaxed);
    }

    /// A request was sent and is over.
    pub(crate) fn on_took(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.iter().position(|bound| micros <= bound * 1_000);
        self.buckets[bucket.unwrap_or(BOUNDS_MS.len())].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// What was counted; the rest is the queue's.
    pub(crate) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let counts = self.buckets.each_ref().map(read);
        let mut below = 0;
        let buckets = BOUNDS_MS.iter().zip(counts).map(|(bound, count)| {
            below += count;
            (*bound as f64 / 1_000.0, below)
        });
        Stats {
            requests: self.requests.each_ref().map(read),
            buckets: buckets.collect(),
            seconds: read(&self.micros) as f64 / 1e6,
            count: counts.iter().sum(),
            events_lost: read(&self.events_lost),
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_in_the_bucket_they_fit_and_all_above() {
        let counters = Counters::default();
        for micros in [1_000, 1_001, 60_000_000] {
            counters.on_took(Duration::from_micros(micros));
        }
        let stats = counters.read();
        assert_eq!(stats.buckets[..3], [(0.001, 1), (0.002, 2), (0.005, 2)]);
        assert_eq!((stats.buckets[13], stats.count), ((30.0, 2), 3));
        assert!((stats.seconds - 60.002_001).abs() < 1e-9);
    }

    #[test]
    fn outcomes_have_names_and_places_of_their_own() {
        let counters = Counters::default();
        for outcome in Outcome::ALL {
            counters.on_outcome(outcome);
        }
        assert_eq!(counters.read().requests, [1; Outcome::ALL.len()]);
        let mut names = Outcome::ALL.map(Outcome::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::ALL.len());
    }
}
