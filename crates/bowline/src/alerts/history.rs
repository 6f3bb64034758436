//! What the counters that rules look at were, for as long as a rule looks back.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bowline_names::Metric;

use super::rule::{LOOK_BACK, Selection};
use crate::metrics::{Sample, Value};

/// One series: its metric and the values of its labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) metric: Metric,
    pub(super) labels: Vec<Cow<'static, str>>,
}

/// Series that are remembered. Labels come from closed sets and the configuration, so this is out
/// of reach, unless a rule is written about something of which there are very many.
const SERIES_MAX: usize = 1_000;

/// Remembers counters. Time is that of a clock which never goes back.
#[derive(Debug, Default)]
pub(super) struct History {
    series: BTreeMap<Series, VecDeque<Point>>,
    wanted: Vec<Selection>,
    /// When samples were taken the last time.
    last: Option<Duration>,
    /// Series that turn up for the first time may have grown for long: others are asked for than
    /// before.
    unknown_past: bool,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at: Duration,
    value: f64,
}

impl History {
    /// Says which counters are remembered from now on.
    pub(super) fn want(&mut self, wanted: Vec<Selection>) {
        self.series.retain(|series, _| picked(&wanted, series.metric, &series.labels));
        self.unknown_past = self.last.is_some();
        self.wanted = wanted;
    }

    /// Takes what the counters are now.
    pub(super) fn take(&mut self, now: Duration, samples: &[Sample]) {
        for sample in samples {
            let Value::Number(value) = sample.value else { continue };
            if !picked(&self.wanted, sample.metric, &sample.labels) {
                continue;
            }
            let series = Series { metric: sample.metric, labels: sample.labels.clone() };
            if self.series.len() >= SERIES_MAX && !self.series.contains_key(&series) {
                continue;
            }
            let points = self.series.entry(series).or_insert_with(|| {
                // A counter begins at zero with its process, so what it has at first is growth.
                let before = self.last.unwrap_or(now);
                let begin = if self.unknown_past { value } else { 0.0 };
                VecDeque::from([Point { at: before, value: begin }])
            });
            points.push_back(Point { at: now, value });
            // The newest point that is old enough stays: growth is counted from it.
            while points.get(1).is_some_and(|next| next.at + LOOK_BACK <= now) {
                points.pop_front();
            }
        }
        self.last = Some(now);
        self.unknown_past = false;
    }

    /// How much each selected series grew between two times, of which the second is the later.
    pub(super) fn growth(
        &self,
        selection: &Selection,
        from: Duration,
        to: Duration,
    ) -> Vec<(&Series, f64)> {
        (self.series.iter())
            .filter(|(series, _)| selection.picks(series.metric, &series.labels))
            .map(|(series, points)| (series, growth(points, from, to)))
            .collect()
    }

    /// When the oldest point of a series was taken.
    pub(super) fn begin(&self, series: &Series) -> Option<Duration> {
        self.series.get(series)?.front().map(|point| point.at)
    }
}

fn picked(wanted: &[Selection], metric: Metric, labels: &[Cow<'static, str>]) -> bool {
    wanted.iter().any(|selection| selection.picks(metric, labels))
}

/// A value that is smaller than the one before began again at zero.
fn growth(points: &VecDeque<Point>, from: Duration, to: Duration) -> f64 {
    let first = points.iter().rposition(|point| point.at <= from).unwrap_or(0);
    let end = points.iter().rposition(|point| point.at <= to).map_or(0, |last| last + 1);
    let within: Vec<f64> = points.range(first.min(end)..end).map(|point| point.value).collect();
    (within.windows(2))
        .map(|pair| if pair[1] >= pair[0] { pair[1] - pair[0] } else { pair[1] })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: u64) -> Duration {
        Duration::from_secs(at)
    }

    fn wakeups() -> Selection {
        Selection { metric: Metric::Wakeups, matchers: Vec::new() }
    }

    fn sample(value: f64) -> [Sample; 1] {
        let labels = vec![Cow::Borrowed("a")];
        [Sample { metric: Metric::Wakeups, labels, value: Value::Number(value) }]
    }

    fn grown(history: &History, from: u64, to: u64) -> f64 {
        history.growth(&wakeups(), second(from), second(to)).iter().map(|(_, growth)| growth).sum()
    }

    #[test]
    fn growth_is_counted_from_the_last_point_before_the_window() {
        let mut history = History::default();
        history.want(vec![wakeups()]);
        for (at, value) in [(0, 0.0), (5, 10.0), (10, 15.0), (15, 15.0), (20, 40.0)] {
            history.take(second(at), &sample(value));
        }
        assert_eq!(grown(&history, 10, 20), 25.0);
        assert_eq!(grown(&history, 7, 20), 30.0);
        assert_eq!(grown(&history, 0, 10), 15.0);
        assert_eq!(grown(&history, 20, 20), 0.0);
    }

    #[test]
    fn what_a_counter_has_when_the_process_begins_is_growth() {
        let mut history = History::default();
        history.want(vec![wakeups()]);
        history.take(second(5), &sample(3.0));
        assert_eq!(grown(&history, 0, 5), 3.0);
    }

    #[test]
    fn a_counter_that_a_new_rule_asks_for_has_an_unknown_past() {
        let mut history = History::default();
        history.take(second(0), &sample(0.0));
        history.want(vec![wakeups()]);
        history.take(second(5), &sample(1_000.0));
        history.take(second(10), &sample(1_001.0));
        assert_eq!(grown(&history, 0, 10), 1.0);
    }

    #[test]
    fn a_counter_that_began_again_grew_by_what_it_has() {
        let mut history = History::default();
        history.want(vec![wakeups()]);
        for (at, value) in [(0, 100.0), (5, 110.0), (10, 4.0)] {
            history.take(second(at), &sample(value));
        }
        assert_eq!(grown(&history, 0, 10), 114.0 - 100.0);
    }

    #[test]
    fn no_more_is_remembered_than_rules_look_back() {
        let mut history = History::default();
        history.want(vec![wakeups()]);
        for at in (0..10_000).step_by(5) {
            history.take(second(at), &sample(at as f64));
        }
        let points = history.series.values().next().unwrap();
        assert_eq!(points.len() as u64, LOOK_BACK.as_secs() / 5 + 1);
    }
}
