//! Says in the log what clients were turned away for: one line for each reason, however many there
//! were. Single ones are in `bowline_net`'s lines at debug level.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bowline_names::{LimitKey, Metric, OnHit};
use bowline_net::{DisconnectReason, WebSocketEnd};
use bowline_proto::Time;
use tokio::time;

use crate::{
    clock::Clock,
    gateway::Gateway,
    metrics::{self, Sample, Value},
};

/// How often the figures are looked at: a line comes no later than that. As often as for alerts.
const EVERY: Duration = Duration::from_secs(5);

/// How long a reason that was told is only counted: whoever floods a server shall not flood its
/// log.
const PAUSE: Duration = Duration::from_secs(60);

/// Watches the figures of a gateway, as long as it is polled.
pub(crate) async fn run(gateway: Arc<Gateway>) {
    let clock = Clock::start();
    let mut teller = Teller::default();
    loop {
        time::sleep(EVERY).await;
        let mut samples = metrics::of_stats(&gateway.handle.stats().await);
        samples.extend(metrics::of_refusals(&gateway.handle.refusals()));
        for Told { kind, label, times } in teller.look(clock.now(), &samples) {
            match kind {
                Kind::Limit => {
                    tracing::warn!(limit = label, times, "clients went beyond a limit");
                }
                Kind::Refused => tracing::warn!(reason = label, times, "requests were refused"),
                Kind::Ended => tracing::warn!(
                    reason = label,
                    times,
                    "sessions ended by what their clients sent"
                ),
            }
        }
    }
}

/// What a figure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Limit,
    Refused,
    Ended,
}

/// A line.
#[derive(Debug, PartialEq)]
struct Told {
    kind: Kind,
    label: String,
    /// How often it came about since the last line about it.
    times: u64,
}

/// What was told of each figure.
#[derive(Debug, Default)]
struct Teller(BTreeMap<(Kind, String), Figure>);

#[derive(Debug, Default)]
struct Figure {
    told: u64,
    /// `None`: never.
    pause_until: Option<Time>,
}

impl Teller {
    /// What is to be told now. A figure that grows is told at once, and then no more often than
    /// once in a pause.
    fn look(&mut self, now: Time, samples: &[Sample]) -> Vec<Told> {
        let mut lines = Vec::new();
        for (kind, label, count) in samples.iter().filter_map(figure) {
            let figure = self.0.entry((kind, label.clone())).or_default();
            let paused = figure.pause_until.is_some_and(|until| now < until);
            if count > figure.told && !paused {
                lines.push(Told { kind, label, times: count - figure.told });
                *figure = Figure { told: count, pause_until: Some(now + PAUSE) };
            }
        }
        lines
    }
}

/// Whether a sample counts clients that were turned away, and what it says of it.
fn figure(sample: &Sample) -> Option<(Kind, String, u64)> {
    let Value::Number(count) = sample.value else { return None };
    let label = sample.labels.first()?;
    let parse_error = DisconnectReason::ParseError.name();
    let broken = WebSocketEnd::Broken.name();
    let (kind, label) = match sample.metric {
        Metric::LimitHits => (Kind::Limit, limit(label)?),
        Metric::RequestsRefused => (Kind::Refused, label.to_string()),
        Metric::Disconnects if *label == parse_error => (Kind::Ended, label.to_string()),
        Metric::WebSocketEnds if *label == broken => (Kind::Ended, "broken frames".to_owned()),
        _ => return None,
    };
    Some((kind, label, count as u64))
}

/// The path of a limit, unless those who hit it are refused at the door, where that is said at
/// once.
fn limit(name: &str) -> Option<String> {
    let key = LimitKey::ALL.iter().find(|key| key.name() == name)?;
    let told = matches!(key.on_hit(), OnHit::Unavailable | OnHit::TooMany);
    (!told).then(|| key.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(hits: u64, errors: u64) -> Vec<Sample> {
        let sample = |metric, label: &'static str, count: u64| Sample {
            metric,
            labels: vec![label.into()],
            value: Value::Number(count as f64),
        };
        vec![
            sample(Metric::LimitHits, "attachments", hits),
            sample(Metric::LimitHits, "connections", 99),
            sample(Metric::RequestsRefused, "origin", 0),
            sample(Metric::Disconnects, "ping timeout", 99),
            sample(Metric::Disconnects, "parse error", errors),
            sample(Metric::Events, "in", 99),
        ]
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn told(kind: Kind, label: &str, times: u64) -> Told {
        Told { kind, label: label.to_owned(), times }
    }

    #[test]
    fn what_grows_is_told_at_once_and_then_once_a_minute() {
        let mut teller = Teller::default();
        assert_eq!(teller.look(at(0), &samples(0, 0)), []);
        assert_eq!(
            teller.look(at(5), &samples(3, 0)),
            [told(Kind::Limit, "limits.attachments", 3)]
        );
        // Another reason has a minute of its own.
        assert_eq!(teller.look(at(10), &samples(1_000, 7)), [told(Kind::Ended, "parse error", 7)]);
        assert_eq!(teller.look(at(60), &samples(2_000, 7)), []);
        assert_eq!(
            teller.look(at(65), &samples(2_500, 7)),
            [told(Kind::Limit, "limits.attachments", 2_497)]
        );
        assert_eq!(teller.look(at(600), &samples(2_500, 7)), []);
        assert_eq!(
            teller.look(at(605), &samples(2_501, 7)),
            [told(Kind::Limit, "limits.attachments", 1)]
        );
    }

    #[test]
    fn how_the_world_is_is_no_misuse() {
        let mut teller = Teller::default();
        let lines = teller.look(at(0), &samples(1, 1));
        let labels: Vec<&str> = lines.iter().map(|told| &*told.label).collect();
        assert_eq!(labels, ["limits.attachments", "parse error"]);
    }
}
