//! What has come of requests so far, in both planes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{attempts, plain};
use crate::{delays::Delays, limit};

/// Counts and delays.
#[derive(Default)]
pub(super) struct Tally {
    /// Requests that are over, in whatever way.
    pub(super) requests: u64,
    pub(super) ok: u64,
    /// Connections that the server had closed before it was asked on them: the request was sent on another one.
    pub(super) reconnects: u64,
    /// Requests that failed, by why.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) all: Delays,
    /// Answered by the first who was asked.
    pub(super) direct: Delays,
    /// Answered by another one.
    pub(super) fell_back: Delays,
    pub(super) failed: Delays,
    pub(super) first_content: Delays,
    /// As `all`, of those since this was last taken away.
    pub(super) lately: Delays,
    /// In the order in which they were first heard of.
    pub(super) providers: Vec<Provider>,
}

/// The attempts of one provider.
#[derive(Default)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) all: Delays,
    pub(super) outcomes: Vec<(String, Delays)>,
    pub(super) first_content: Delays,
}

/// A request that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    /// When it was due: when it was sent, unless there is a schedule.
    pub(super) due: Instant,
    pub(super) sent: Instant,
    /// When the head of the answer was there.
    pub(super) head: Option<Instant>,
    pub(super) first_content: Option<Instant>,
    pub(super) end: Instant,
    /// What the header says; empty if there is none.
    pub(super) attempts: &'a str,
    pub(super) failure: Option<&'a str>,
}

/// The provider of a server that tells of none.
const SERVER: &str = "server";

/// What stands for those that are too many to be told apart.
const OTHER: &str = "other";

impl Tally {
    /// Requests that failed.
    pub(super) fn failures(&self) -> u64 {
        self.requests - self.ok
    }

    pub(super) fn on_end(&mut self, ended: Ended<'_>) {
        let took = ended.end.saturating_duration_since(ended.due);
        self.requests += 1;
        self.all.add(took, 1);
        self.lately.add(took, 1);
        if let Some(first) = ended.first_content {
            self.first_content.add(first.saturating_duration_since(ended.due), 1);
        }
        match ended.failure {
            None => {
                self.ok += 1;
                let fell_back = fell_back(ended.attempts);
                let delays = if fell_back { &mut self.fell_back } else { &mut self.direct };
                delays.add(took, 1);
            }
            Some(failure) => {
                self.failed.add(took, 1);
                let known =
                    self.errors.len() < limit::NAMES_MAX || self.errors.contains_key(failure);
                let name = if known { failure } else { OTHER };
                *self.errors.entry(name.to_owned()).or_default() += 1;
            }
        }
        self.on_attempts(&ended);
    }

    fn on_attempts(&mut self, ended: &Ended<'_>) {
        // Of a stream the header has the last attempt as far as its first content; what came after that is its own too.
        let since = |at: Option<Instant>| match (at, ended.head) {
            (Some(at), Some(head)) => at.saturating_duration_since(head),
            _ => Duration::ZERO,
        };
        let streamed = ended.first_content.is_some();
        let mut attempts = attempts::parse(ended.attempts).peekable();
        if attempts.peek().is_none() {
            let provider = self.provider(SERVER);
            let outcome = ended.failure.unwrap_or("ok");
            provider.add(outcome, ended.end.saturating_duration_since(ended.sent));
            if let Some(first) = ended.first_content {
                provider.first_content.add(first.saturating_duration_since(ended.sent), 1);
            }
        }
        while let Some(attempt) = attempts.next() {
            let provider = self.provider(attempt.provider);
            if attempts.peek().is_none() && streamed {
                provider.first_content.add(attempt.took + since(ended.first_content), 1);
                let outcome = ended.failure.unwrap_or(attempt.outcome);
                provider.add(outcome, attempt.took + since(Some(ended.end)));
            } else {
                provider.add(attempt.outcome, attempt.took);
            }
        }
    }

    fn provider(&mut self, name: &str) -> &mut Provider {
        let known = self.providers.iter().position(|provider| provider.name == name);
        let index = known.unwrap_or_else(|| {
            let full = self.providers.len() >= limit::NAMES_MAX;
            let other = self.providers.iter().position(|provider| provider.name == OTHER);
            other.filter(|_| full).unwrap_or_else(|| {
                let name = if full { OTHER.to_owned() } else { plain(name) };
                self.providers.push(Provider { name, ..Provider::default() });
                self.providers.len() - 1
            })
        });
        &mut self.providers[index]
    }
}

impl Provider {
    fn add(&mut self, outcome: &str, took: Duration) {
        self.all.add(took, 1);
        let full = self.outcomes.len() >= limit::NAMES_MAX;
        let place = |name: &str| self.outcomes.iter().position(|(known, _)| known == name);
        let index = place(outcome).or_else(|| place(OTHER).filter(|_| full));
        let index = index.unwrap_or_else(|| {
            let name = if full { OTHER.to_owned() } else { plain(outcome) };
            self.outcomes.push((name, Delays::default()));
            self.outcomes.len() - 1
        });
        self.outcomes[index].1.add(took, 1);
    }
}

/// Whether another provider has answered than the one that was asked first.
fn fell_back(header: &str) -> bool {
    let mut attempts = attempts::parse(header);
    let first = attempts.next();
    first.zip(attempts.last()).is_some_and(|(first, last)| first.provider != last.provider)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    /// Milliseconds after the beginning: when the head was there, the first content, the end.
    fn end(tally: &mut Tally, attempts: &str, times: [Option<u32>; 3], failure: Option<&str>) {
        let sent = clock::now();
        let [head, first_content, end] = times.map(|ms| ms.map(|ms| sent + MS * ms));
        let end = end.unwrap();
        tally.on_end(Ended { due: sent, sent, head, first_content, end, attempts, failure });
    }

    fn mean(delays: &Delays) -> Option<(u64, f64)> {
        delays.spread().map(|spread| (spread.count, spread.mean))
    }

    #[test]
    fn each_provider_is_charged_with_its_own_time() {
        let mut tally = Tally::default();
        for _ in 0..10 {
            let times = [Some(1502), None, Some(1502)];
            end(&mut tally, "a;server-error;1500ms, b;ok;1ms", times, None);
        }
        end(&mut tally, "a;ok;2ms", [Some(3), None, Some(3)], None);
        end(&mut tally, "a;timeout;9ms", [Some(9), None, Some(9)], Some("504 upstream_timeout"));
        assert_eq!((tally.requests, tally.ok), (12, 11));
        assert_eq!(mean(&tally.fell_back), Some((10, 1_502_000.0)));
        assert_eq!(mean(&tally.direct), Some((1, 3000.0)));
        assert_eq!(mean(&tally.failed), Some((1, 9000.0)));
        assert_eq!(tally.errors["504 upstream_timeout"], 1);
        let [a, b] = &*tally.providers else { panic!("{} providers", tally.providers.len()) };
        assert_eq!((&*a.name, &*b.name), ("a", "b"));
        assert_eq!(mean(&b.all), Some((10, 1000.0)));
        let of_a: Vec<_> =
            a.outcomes.iter().map(|(name, all)| (&**name, mean(all).unwrap())).collect();
        let wanted =
            [("server-error", (10, 1_500_000.0)), ("ok", (1, 2000.0)), ("timeout", (1, 9000.0))];
        assert_eq!(of_a, wanted);
        assert_eq!(a.all.spread().unwrap().count, 12);
    }

    #[test]
    fn the_rest_of_a_stream_is_the_last_attempts_own() {
        let mut tally = Tally::default();
        let times = [Some(100), Some(101), Some(300)];
        end(&mut tally, "a;overloaded;50ms, b;ok;48ms", times, None);
        end(&mut tally, "b;ok;48ms", times, Some("frame upstream_truncated"));
        let b = &tally.providers[1];
        assert_eq!(mean(&b.first_content), Some((2, 49_000.0)));
        assert_eq!(mean(&b.all), Some((2, 248_000.0)));
        assert_eq!(b.outcomes[1].0, "frame upstream_truncated");
        assert_eq!(mean(&tally.providers[0].all), Some((1, 50_000.0)));
        assert_eq!(mean(&tally.first_content), Some((2, 101_000.0)));
    }

    #[test]
    fn a_server_that_tells_of_no_attempts_is_the_only_provider() {
        let mut tally = Tally::default();
        end(&mut tally, "", [Some(5), Some(6), Some(9)], None);
        end(&mut tally, "", [None, None, Some(3)], Some("broken"));
        let [server] = &*tally.providers else { panic!("{} providers", tally.providers.len()) };
        assert_eq!((&*server.name, mean(&server.all)), (SERVER, Some((2, 6000.0))));
        assert_eq!(mean(&server.first_content), Some((1, 6000.0)));
        assert_eq!(mean(&tally.direct), Some((1, 9000.0)));
    }

    #[test]
    fn names_without_end_are_counted_as_others() {
        let mut tally = Tally::default();
        for number in 0..limit::NAMES_MAX + 9 {
            let (attempts, why) = (format!("p{number};o{number};1ms"), format!("{number}"));
            end(&mut tally, &attempts, [Some(1), None, Some(1)], Some(&why));
        }
        assert_eq!((tally.errors.len(), tally.errors[OTHER]), (limit::NAMES_MAX + 1, 9));
        assert_eq!(tally.providers.len(), limit::NAMES_MAX + 1);
        assert_eq!(tally.providers.last().unwrap().all.spread().unwrap().count, 9);
    }
}
