//! Many delays, and what to say of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::limit;

/// How long things took. The memory for them is taken with the first.
#[derive(Default)]
pub(crate) struct Delays {
    histogram: Option<Histogram<u64>>,
    /// Exact, where the histogram rounds.
    sum: Duration,
}

/// What part of all was faster than that, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of all.
    pub p50: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// 999 of a thousand.
    pub p999: f64,
    /// All.
    pub max: f64,
}

/// What is said of many delays, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How many there were.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half of all took no longer.
    pub p50: f64,
    /// 95 of a hundred.
    pub p95: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// All.
    pub max: f64,
}

impl Delays {
    /// So many things took so long.
    #[inline]
    pub(crate) fn add(&mut self, delay: Duration, count: usize) {
        let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        let histogram = self.histogram.get_or_insert_with(empty);
        histogram.saturating_record_n(nanoseconds, count as u64);
        self.sum += delay.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// None if nothing was added.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.micros_at(quantile);
        let max = self.micros_at(1.0)?;
        Some(Percentiles { p50: at(0.5)?, p99: at(0.99)?, p999: at(0.999)?, max })
    }

    /// None if nothing was added.
    pub(crate) fn spread(&self) -> Option<Spread> {
        let count = self.histogram.as_ref()?.len();
        let at = |quantile| self.micros_at(quantile);
        let mean = rounded(self.sum.as_secs_f64() * 1e6 / count as f64);
        let max = self.micros_at(1.0)?;
        Some(Spread { count, mean, p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, max })
    }

    fn micros_at(&self, quantile: f64) -> Option<f64> {
        let histogram = self.histogram.as_ref()?;
        let nanoseconds = histogram.value_at_quantile(quantile).min(histogram.max());
        Some(rounded(nanoseconds as f64 / 1000.0))
    }
}

/// In nanoseconds, to three digits.
fn empty() -> Histogram<u64> {
    let most = u64::try_from(limit::DELAY_MAX.as_nanos()).unwrap_or(u64::MAX);
    let made = Histogram::new_with_bounds(1, most, 3);
    made.expect("the bounds are in order")
}

/// A figure to three digits behind the point: more of them mean nothing.
pub(crate) fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut delays = Delays::default();
        assert_eq!(delays.percentiles(), None);
        delays.add(Duration::from_micros(5), 990);
        delays.add(Duration::from_millis(2), 9);
        delays.add(Duration::from_secs(1), 1);
        let Percentiles { p50, p99, p999, max } = delays.percentiles().unwrap();
        for (found, wanted) in [(p50, 5.0), (p99, 5.0), (p999, 2000.0), (max, 1e6)] {
            assert!((found - wanted).abs() <= wanted / 500.0, "{found} is not {wanted}");
        }
    }

    #[test]
    fn the_mean_is_exact() {
        let mut delays = Delays::default();
        assert_eq!(delays.spread(), None);
        delays.add(Duration::from_nanos(1_500_001_000), 2);
        delays.add(Duration::from_micros(4), 2);
        let Spread { count, mean, p50, .. } = delays.spread().unwrap();
        assert_eq!((count, mean), (4, 750_002.5));
        assert!((p50 - 4.0).abs() < 0.01, "{p50}");
    }
}
