//! What was measured: as JSON for programs, as a table for people.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{api::Api, plan::Wishes, tally::Tally};
use crate::{
    delays::{Spread, rounded},
    report::number,
};

/// The figures of one concurrency: one line of `--json`. Delays are in microseconds; what there was none of is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Always `ai`.
    pub workload: &'static str,
    /// The server.
    pub url: String,
    /// What was asked for.
    pub model: String,
    /// Whether answers were streamed.
    pub stream: bool,
    /// Clients, each of which has one request under way at most.
    pub concurrency: usize,
    /// Requests a second that were due; absent if each client sent the next one when it had been answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_rate: Option<f64>,
    /// Requests that ended, in whatever way.
    pub requests: u64,
    /// Those that were answered in full.
    pub ok: u64,
    /// Those of them that another provider answered than the one that was asked first.
    pub fell_back: u64,
    /// Those that failed, by why: a status with the code of the error (`503 queue_full`), `frame` with the code of an
    /// error that ended a stream, or what happened to the connection.
    pub errors: BTreeMap<String, u64>,
    /// From the first request until the last was over.
    pub seconds: f64,
    /// Requests that ended, for each of these seconds.
    pub per_second: f64,
    /// What clients waited for.
    pub request_us: RequestDelays,
    /// What each provider took, in the order in which they were first heard of.
    pub attempts: Vec<AttemptFigures>,
    /// The server's part; absent if no process of it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerFigures>,
    /// The part of the load tool.
    pub load: LoadFigures,
}

/// From when a request was sent, or with `--fixed-rate` was due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestDelays {
    /// Until the end of the answer, of all requests: one that failed shows as slow as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<Spread>,
    /// Of those that were answered by the provider that was asked first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<Spread>,
    /// Of those that were answered by another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fell_back: Option<Spread>,
    /// Of those that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Spread>,
    /// Until the first content of a stream, of all that had any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_content: Option<Spread>,
}

/// The attempts of one provider, from the header `bowline-attempts`, which has whole milliseconds, cut off. A server
/// that does not send it has one provider, `server`, with the time of the requests themselves.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AttemptFigures {
    /// Its name.
    pub provider: String,
    /// How long they took, however they ended. Of a stream until its end, as the client saw it.
    pub all: Spread,
    /// The same by outcome: `ok`, `timeout` and so on; of a stream that broke off, why.
    pub outcomes: BTreeMap<String, Spread>,
    /// Until the first content of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_content: Option<Spread>,
}

/// What the system says of the server's processes, all of them together.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerFigures {
    /// Their ids.
    pub pids: Vec<u32>,
    /// CPU time for each request that ended.
    pub cpu_us_per_request: f64,
    /// How often they were switched away from, for each request.
    pub context_switches_per_request: f64,
    /// Resident memory before the first connection.
    pub rss_before_bytes: u64,
    /// The most that was seen while requests ran; it is looked at ten times a second.
    pub rss_max_bytes: u64,
    /// At the end.
    pub rss_after_bytes: u64,
}

/// What measuring took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LoadFigures {
    /// CPU time for each request that ended. Where it is more than the server's, the server was waiting for the tool.
    pub cpu_us_per_request: f64,
    /// Requests that had to be sent again since the server had closed the connection that they were sent on.
    pub reconnects: u64,
}

impl Report {
    pub(super) fn new(
        api: &Api,
        wishes: &Wishes,
        concurrency: usize,
        tally: &Tally,
        time: Duration,
    ) -> Self {
        let attempts = tally.providers.iter().filter_map(|provider| {
            let outcomes = provider.outcomes.iter();
            Some(AttemptFigures {
                provider: provider.name.clone(),
                all: provider.all.spread()?,
                outcomes: outcomes
                    .filter_map(|(name, delays)| Some((name.clone(), delays.spread()?)))
                    .collect(),
                first_content: provider.first_content.spread(),
            })
        });
        let fell_back = tally.fell_back.spread();
        Self {
            workload: "ai",
            url: api.to_string(),
            model: wishes.model.clone(),
            stream: wishes.stream,
            concurrency,
            fixed_rate: wishes.rate,
            requests: tally.requests,
            ok: tally.ok,
            fell_back: fell_back.map_or(0, |spread| spread.count),
            errors: tally.errors.clone(),
            seconds: rounded(time.as_secs_f64()),
            per_second: rounded(tally.requests as f64 / time.as_secs_f64()),
            request_us: RequestDelays {
                all: tally.all.spread(),
                direct: tally.direct.spread(),
                fell_back,
                failed: tally.failed.spread(),
                first_content: tally.first_content.spread(),
            },
            attempts: attempts.collect(),
            server: None,
            load: LoadFigures { cpu_us_per_request: 0.0, reconnects: tally.reconnects },
        }
    }

    /// As one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let streamed = if self.stream { "streamed" } else { "plain" };
        let rate = self.fixed_rate.map(|rate| format!(" and {} a second", number(rate)));
        let mut text = format!(
            "{} at {}, {streamed}, {} at once{}\n",
            self.model,
            self.url,
            number(self.concurrency as f64),
            rate.unwrap_or_default()
        );
        let mut table = Table(&mut text);
        table.heads("requests");
        table.row("all", self.request_us.all);
        table.row("  answered by the first", self.request_us.direct);
        table.row("  fell back", self.request_us.fell_back);
        table.row("  failed", self.request_us.failed);
        table.row("first content", self.request_us.first_content);
        table.heads("attempts, by provider");
        for one in &self.attempts {
            table.row(&one.provider, Some(one.all));
            if one.outcomes.len() > 1 || !one.outcomes.contains_key("ok") {
                for (outcome, spread) in &one.outcomes {
                    table.row(&format!("  {outcome}"), Some(*spread));
                }
            }
            table.row("  first content", one.first_content);
        }
        for (error, count) in &self.errors {
            table.figure(&format!("failed: {error}"), *count as f64, "");
        }
        table.figure("requests a second", self.per_second, "");
        if let Some(server) = &self.server {
            table.figure("server: CPU for each request", server.cpu_us_per_request, "µs");
            let switches = server.context_switches_per_request;
            table.figure("server: context switches for each request", switches, "");
            let [before, most, after] =
                [server.rss_before_bytes, server.rss_max_bytes, server.rss_after_bytes]
                    .map(|bytes| bytes as f64 / 1e6);
            table.figure("server: memory before", before, "MB");
            table.figure("server: memory, most", most, "MB");
            table.figure("server: memory at the end", after, "MB");
        }
        table.figure("load tool: CPU for each request", self.load.cpu_us_per_request, "µs");
        if self.load.reconnects > 0 {
            let count = self.load.reconnects as f64;
            table.figure("load tool: requests on a connection that was closed", count, "");
        }
        text
    }
}

struct Table<'a>(&'a mut String);

impl Table<'_> {
    fn heads(&mut self, name: &str) {
        let mut line = format!("  {name:<28}{:>9}", "count");
        for head in ["mean", "p50", "p95", "p99", "max"] {
            // Writing to a string cannot fail.
            let _ = write!(line, "{head:>11}");
        }
        self.line(&line);
    }

    fn row(&mut self, name: &str, spread: Option<Spread>) {
        let Some(Spread { count, mean, p50, p95, p99, max }) = spread else { return };
        let mut line = format!("    {name:<26}{:>9}", number(count as f64));
        for micros in [mean, p50, p95, p99, max] {
            let _ = write!(line, "{:>11}", time(micros));
        }
        self.line(&line);
    }

    fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.line(&format!("  {name:<52}{:>12} {unit}", number(value)));
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

/// Microseconds in the unit that one reads.
pub(super) fn time(micros: f64) -> String {
    match micros {
        _ if micros < 1000.0 => format!("{micros:.0} µs"),
        _ if micros < 10_000.0 => format!("{:.2} ms", micros / 1e3),
        _ if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{} s", number(micros / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ai::tally::Ended, clock};

    fn report() -> Report {
        let mut tally = Tally::default();
        let sent = clock::now();
        for (ms, attempts, failure) in [
            (1502, "kimi;timeout;1500ms, glm;ok;1ms", None),
            (2, "kimi;ok;1ms", None),
            (9, "", Some("503 queue_full")),
        ] {
            let end = sent + Duration::from_millis(ms);
            let head = Some(end);
            let first_content = None;
            tally.on_end(Ended { due: sent, sent, head, first_content, end, attempts, failure });
        }
        let api = "http://127.0.0.1:8000/v1".parse().unwrap();
        Report::new(&api, &Wishes::little(), 5, &tally, Duration::from_secs(2))
    }

    #[test]
    fn both_planes_are_in_the_json_and_what_there_was_none_of_is_not() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(json["requests"], 3);
        assert_eq!(json["fell_back"], 1);
        assert_eq!(json["per_second"], 1.5);
        assert_eq!(json["errors"]["503 queue_full"], 1);
        assert_eq!(json["request_us"]["fell_back"]["mean"], 1_502_000.0);
        assert_eq!(json["attempts"][0]["provider"], "kimi");
        assert_eq!(json["attempts"][0]["outcomes"]["timeout"]["mean"], 1_500_000.0);
        assert_eq!(json["attempts"][1]["all"]["mean"], 1000.0);
        assert_eq!(json["attempts"][2]["provider"], "server");
        for absent in ["/server", "/fixed_rate", "/request_us/first_content"] {
            assert_eq!(json.pointer(absent), None, "{absent}");
        }
    }

    #[test]
    fn people_read_a_table() {
        let mut report = report();
        report.server = Some(ServerFigures {
            pids: vec![1],
            cpu_us_per_request: 98.25,
            context_switches_per_request: 4.0,
            rss_before_bytes: 14_000_000,
            rss_max_bytes: 15_500_000,
            rss_after_bytes: 15_000_000,
        });
        let table = report.table();
        assert!(table.starts_with("m at http://127.0.0.1:8000/v1, plain, 5 at once\n"), "{table}");
        for wanted in
            ["fell back", "1.50 s", "1.00 ms", "timeout", "failed: 503 queue_full", "15.50 MB"]
        {
            assert!(table.contains(wanted), "{wanted}:\n{table}");
        }
        assert!(!table.contains("first content"), "{table}");
    }

    #[test]
    fn times_have_the_unit_that_one_reads() {
        let times = [0.4, 812.0, 1210.0, 20_000.0, 1_502_000.0].map(time);
        assert_eq!(times, ["0 µs", "812 µs", "1.21 ms", "20.0 ms", "1.50 s"]);
    }
}
