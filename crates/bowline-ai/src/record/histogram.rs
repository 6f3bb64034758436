//! How often a span of time was how long.

use std::time::Duration;

/// Upper bounds of the buckets, in milliseconds; one more has none. From an answer out of a cache to the ten minutes
/// after which the official SDKs give up.
const BOUNDS_MS: [u64; 18] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000,
    300_000, 600_000,
];

/// How often a span of time was how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS_MS.len() + 1],
    sum_micros: u64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.iter().position(|bound| micros <= bound * 1_000);
        self.counts[bucket.unwrap_or(BOUNDS_MS.len())] += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (sum, part) in self.counts.iter_mut().zip(other.counts) {
            *sum += part;
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// How often it was measured.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All that was measured, added up.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// Upper bounds, and how often the span was no longer than that: as `_bucket` is exported, `le="+Inf"` aside,
    /// which is [`count`](Self::count).
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = BOUNDS_MS.iter().map(|ms| Duration::from_millis(*ms));
        bounds.zip(self.counts).scan(0, |below, (bound, count)| {
            *below += count;
            Some((bound, *below))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_counts_in_every_bucket_that_is_no_shorter() {
        let mut histogram = Histogram::default();
        for micros in [1_000, 1_001, 812_000, 75_000_000, 700_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        let below = |ms| {
            let mut buckets = histogram.buckets();
            buckets.find(|(bound, _)| *bound == Duration::from_millis(ms)).unwrap().1
        };
        assert_eq!([1, 2, 500, 1_000, 60_000, 120_000, 600_000].map(below), [1, 2, 2, 3, 3, 4, 4]);
        assert_eq!((histogram.count(), histogram.sum()), (5, Duration::from_micros(775_814_001)));
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!((twice.count(), twice.sum()), (10, 2 * histogram.sum()));
    }
}
