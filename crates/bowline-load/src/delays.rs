//! Many delays, and what to say of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::limit;

/// How long things took.
pub(crate) struct Delays(Histogram<u64>);

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

impl Default for Delays {
    fn default() -> Self {
        // In nanoseconds, to three digits.
        let most = u64::try_from(limit::DELAY_MAX.as_nanos()).unwrap_or(u64::MAX);
        let made = Histogram::new_with_bounds(1, most, 3);
        Self(made.expect("the bounds are in order"))
    }
}

impl Delays {
    /// So many things took so long.
    #[inline]
    pub(crate) fn add(&mut self, delay: Duration, count: usize) {
        let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(nanoseconds, count as u64);
    }

    /// None if nothing was added.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let micros = |nanoseconds: u64| rounded(nanoseconds as f64 / 1000.0);
        let at = |quantile| micros(self.0.value_at_quantile(quantile).min(self.0.max()));
        (!self.0.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.0.max()),
        })
    }
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
}
