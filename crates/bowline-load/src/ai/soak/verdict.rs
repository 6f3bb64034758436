//! What samples say, in figures and in words.

use serde::Serialize;

use super::sample::Sample;
use crate::{limit, report::number};

/// What all samples together say.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// How many there are.
    pub samples: usize,
    /// From the first to the last.
    pub hours: f64,
    /// Memory of the server; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<Growth>,
    /// Its sockets; absent if they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Growth>,
    /// Its descriptors; absent if they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<Growth>,
    /// Permits that are held or waited for after the last request was over; absent if they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permits_left: Option<u64>,
    /// The oldest permit that was seen, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_permit_s: Option<f64>,
    /// The same for people, a line each.
    pub words: Vec<String>,
    /// For a terminal.
    #[serde(skip)]
    pub(super) picture: String,
}

/// How something went over time. The first tenth, in which things are set up, is left out of `per_hour`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Growth {
    /// In the first sample.
    pub first: f64,
    /// In the last one.
    pub last: f64,
    /// The most of all.
    pub max: f64,
    /// The slope of the straight line that fits best; 0 if there are too few samples for one.
    pub per_hour: f64,
    /// What that line says at the first request.
    pub at_begin: f64,
    /// Whether it grows; absent if the run was too short to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grows: Option<bool>,
}

impl Verdict {
    pub(super) fn of(samples: &[Sample]) -> Self {
        let hours = match samples {
            [first, .., last] => (last.at_s - first.at_s) / 3600.0,
            _ => 0.0,
        };
        let rss = Growth::of(samples, limit::RSS_NOISE_BYTES, |one| one.rss_bytes);
        let descriptors = Growth::of(samples, limit::DESCRIPTOR_NOISE, |one| one.descriptors);
        let sockets = Growth::of(samples, limit::DESCRIPTOR_NOISE, |one| one.sockets);
        let last = samples.last().filter(|last| last.idle && last.requests > 0);
        let permits_left =
            last.and_then(|last| Some(last.permits_held? + last.permits_queued.unwrap_or(0)));
        let oldest_permit_s = samples.iter().filter_map(|one| one.oldest_permit_s).reduce(f64::max);
        let mut verdict = Self {
            samples: samples.len(),
            hours,
            rss,
            sockets,
            descriptors,
            permits_left,
            oldest_permit_s,
            ..Self::default()
        };
        verdict.words = verdict.say(samples);
        verdict
    }

    fn say(&self, samples: &[Sample]) -> Vec<String> {
        let asked = samples.last().map_or((0, 0), |last| (last.requests, last.failed));
        let mut words = vec![format!(
            "requests: {} in {}, {} failed",
            number(asked.0 as f64),
            span(self.hours),
            number(asked.1 as f64)
        )];
        words
            .push(self.rss.map_or("memory: not known".into(), |rss| rss.say("memory", 1e6, " MB")));
        for (name, growth) in [("sockets", self.sockets), ("descriptors", self.descriptors)] {
            words.extend(growth.map(|growth| growth.say(name, 1.0, "")));
        }
        words.push(match self.permits_left {
            None => "permits: not known (--admin names the admin listener, and the last sample must \
                     stand behind the last request)"
                .into(),
            Some(0) => "permits: none held and none waited for after the last request".into(),
            Some(left) => format!(
                "permits: {left} are still held or waited for after the last request: a leak, unless \
                 others ask this server too"
            ),
        });
        words.extend(self.oldest_permit_s.map(|seconds| {
            format!("permits: the oldest that was seen was {} s old", number(seconds))
        }));
        words
    }

    /// As one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The picture and the words.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.words.iter().map(|line| format!("  {line}\n"));
        format!("{}\n{}", self.picture, lines.collect::<String>())
    }
}

impl Growth {
    /// `noise` is what it may grow by and be called flat: that much, or a twentieth.
    fn of(samples: &[Sample], noise: f64, what: fn(&Sample) -> Option<u64>) -> Option<Self> {
        let known = |one: &Sample| Some((one.at_s / 3600.0, what(one)? as f64));
        let points: Vec<(f64, f64)> = samples.iter().filter_map(known).collect();
        let [(_, first), .., (end, last)] = *points else { return None };
        // Behind the last request things are given back: that is no part of the line.
        let loaded = samples.iter().filter(|one| !one.idle).filter_map(known);
        let line: Vec<(f64, f64)> = loaded.filter(|(at, _)| *at >= end / 10.0).collect();
        let (at_begin, per_hour) = fitted(&line).unwrap_or((first, 0.0));
        let hours = line.last().map_or(0.0, |last| last.0 - line[0].0);
        let grown = per_hour * hours;
        let long_enough = hours * 3600.0 >= limit::JUDGED_AFTER.as_secs_f64();
        let grows = long_enough.then(|| grown > noise.max(first / 20.0));
        let max = points.iter().map(|(_, value)| *value).fold(f64::MIN, f64::max);
        Some(Self { first, last, max, per_hour, at_begin, grows })
    }

    fn say(&self, name: &str, scale: f64, unit: &str) -> String {
        let Self { first, last, max, per_hour, grows, .. } = *self;
        let [first, last, max] = [first, last, max].map(|value| number(value / scale));
        let sign = if per_hour < 0.0 { "" } else { "+" };
        let slope = format!("{sign}{:.2}{unit} an hour", per_hour / scale);
        let grows = match grows {
            None => format!("too short a run to judge ({slope})"),
            Some(true) => format!("grows: {slope}"),
            Some(false) => format!("flat: {slope}"),
        };
        format!(
            "{name}: {first}{unit} at first, {max}{unit} at most, {last}{unit} at last; {grows}"
        )
    }
}

/// The line that fits best, as its value at 0 and its slope. None for fewer than three points.
fn fitted(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let slope = both / spread;
    (points.len() >= 3 && slope.is_finite()).then_some((y - slope * x, slope))
}

fn span(hours: f64) -> String {
    match hours {
        _ if hours >= 2.0 => format!("{} hours", number(hours)),
        _ if hours >= 1.0 / 30.0 => format!("{} minutes", number(hours * 60.0)),
        _ => format!("{} seconds", number(hours * 3600.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour, with so much memory at a time.
    fn hour(rss: fn(f64) -> f64, held: u64) -> Verdict {
        let mut samples: Vec<Sample> = (0..=360_u32)
            .map(|number| Sample {
                at_s: f64::from(number) * 10.0,
                idle: number == 0,
                requests: number.into(),
                rss_bytes: Some(rss(f64::from(number) / 360.0) as u64),
                sockets: Some(20),
                permits_held: Some(3),
                oldest_permit_s: Some(0.5),
                ..Sample::default()
            })
            .collect();
        let last = samples.last().unwrap().clone();
        samples.push(Sample { idle: true, permits_held: Some(held), ..last });
        Verdict::of(&samples)
    }

    fn says(verdict: &Verdict, words: &str) -> bool {
        verdict.words.iter().any(|line| line.contains(words))
    }

    #[test]
    fn memory_that_grows_is_told_from_memory_that_was_set_up() {
        let verdict = hour(|at| 20e6 + 30e6 * at, 0);
        let rss = verdict.rss.unwrap();
        assert_eq!(rss.grows, Some(true));
        assert!((rss.per_hour - 30e6).abs() < 1e5, "{rss:?}");
        assert!(says(&verdict, "grows: +30.00 MB an hour"), "{:?}", verdict.words);

        let verdict = hour(|at| if at < 0.05 { 10e6 } else { 40e6 }, 0);
        assert_eq!(verdict.rss.unwrap().grows, Some(false), "{verdict:?}");
        assert!(says(&verdict, "memory: 10 MB at first, 40 MB at most"), "{:?}", verdict.words);
        assert!(says(&verdict, "sockets: 20 at first"), "{:?}", verdict.words);
    }

    #[test]
    fn permits_that_are_left_are_a_leak() {
        let verdict = hour(|_| 20e6, 0);
        assert_eq!((verdict.permits_left, verdict.oldest_permit_s), (Some(0), Some(0.5)));
        assert!(says(&verdict, "none held"));
        let verdict = hour(|_| 20e6, 2);
        assert_eq!(verdict.permits_left, Some(2));
        assert!(says(&verdict, "2 are still held"), "{:?}", verdict.words);
    }

    #[test]
    fn a_run_that_was_short_or_cut_off_is_not_judged() {
        let sample = |at_s, idle| Sample {
            at_s,
            idle,
            requests: 1,
            rss_bytes: Some(7),
            ..Sample::default()
        };
        let samples: Vec<Sample> = (0..9_u32).map(|at| sample(f64::from(at), false)).collect();
        let verdict = Verdict::of(&samples);
        assert_eq!(verdict.rss.unwrap().grows, None);
        assert!(says(&verdict, "too short"), "{:?}", verdict.words);
        assert_eq!(verdict.permits_left, None);
        assert_eq!(Verdict::of(&samples[..2]).rss.unwrap().per_hour, 0.0);
        assert!(
            samples[..2].iter().all(|one| Verdict::of(std::slice::from_ref(one)).rss.is_none())
        );
    }
}
