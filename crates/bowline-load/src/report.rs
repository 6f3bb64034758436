//! What was measured: as JSON for programs, as a table for people.

use std::fmt::Write as _;

use serde::Serialize;

use crate::delays::Percentiles;

/// The figures of one workload. Those that were not measured are absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What the sessions did.
    pub workload: &'static str,
    /// What carried it.
    pub wire: &'static str,
    /// How many there were.
    pub sessions: usize,
    /// Messages that arrived; sessions that joined, where nothing is sent.
    pub messages: u64,
    /// How many of them a second.
    pub per_second: f64,
    /// The server's part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerFigures>,
    /// The part of the load tool.
    pub load: LoadFigures,
    /// A message and its return, or its receipt; for `idle` and `join` from the first SYN until a
    /// session had joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Percentiles>,
    /// From sending until the last receiver had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fanout_us: Option<Percentiles>,
}

/// What the system says of the server.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerFigures {
    /// Its processes.
    pub pids: Vec<u32>,
    /// CPU time for each message that arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_message: Option<f64>,
    /// Resident memory before the first session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_before_bytes: Option<u64>,
    /// Resident memory when all sessions were there, and at the end of the measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_after_bytes: Option<u64>,
    /// What it grew by, for each session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_session: Option<f64>,
    /// The same for the second half of the sessions, which leaves out what is set up once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub further_bytes_per_session: Option<f64>,
    /// CPU time for each session that joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_us: Option<f64>,
    /// CPU time for each second of each session that does nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_session_second: Option<f64>,
    /// How often it was switched away from, for each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_switches_per_message: Option<f64>,
}

/// What measuring took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LoadFigures {
    /// CPU time for each message that arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_message: Option<f64>,
    /// CPU time for each session that joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_us: Option<f64>,
}

impl Report {
    /// As one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} over {}, {} sessions\n",
            self.workload,
            self.wire,
            number(self.sessions as f64)
        );
        let mut row = |name: &str, value: Option<f64>, unit: &str| {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let line = format!("  {name:<42}{:>14} {unit}", number(value));
                let _ = writeln!(text, "{}", line.trim_end());
            }
        };
        let joins = matches!(self.workload, "idle" | "join");
        row(if joins { "sessions joined" } else { "messages" }, Some(self.messages as f64), "");
        row("  a second", Some(self.per_second), "");
        if let Some(server) = &self.server {
            row("server: CPU for each message", server.cpu_us_per_message, "µs");
            row("server: CPU for each join", server.join_us, "µs");
            row("server: CPU for each session and second", server.cpu_us_per_session_second, "µs");
            row(
                "server: context switches for each message",
                server.context_switches_per_message,
                "",
            );
            row("server: memory for each session", server.bytes_per_session, "bytes");
            row("server:   for each of the second half", server.further_bytes_per_session, "bytes");
            row(
                "server: memory at the end",
                server.rss_after_bytes.map(|bytes| bytes as f64 / 1e6),
                "MB",
            );
        }
        row("load tool: CPU for each message", self.load.cpu_us_per_message, "µs");
        row("load tool: CPU for each join", self.load.join_us, "µs");
        let latency = if joins { "time to join" } else { "latency" };
        for (name, delays) in
            [(latency, self.latency_us), ("until the last receiver has it", self.fanout_us)]
        {
            let Some(Percentiles { p50, p99, p999, max }) = delays else { continue };
            for (part, value) in [("p50", p50), ("p99", p99), ("p99.9", p999), ("max", max)] {
                row(&format!("{name}, {part}"), Some(value), "µs");
            }
        }
        text
    }
}

/// A number with as many digits as one reads, and commas between thousands.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size.fract() == 0.0 || size >= 1000.0 => 0,
        _ if size >= 100.0 => 1,
        _ => 2,
    };
    let plain = format!("{size:.digits$}");
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let percentiles = Percentiles { p50: 812.5, p99: 1200.0, p999: 1300.0, max: 2001.0 };
        Report {
            workload: "echo",
            wire: "websocket",
            sessions: 100,
            messages: 200_000,
            per_second: 91_234.5,
            server: Some(ServerFigures {
                pids: vec![1],
                cpu_us_per_message: Some(9.3),
                ..ServerFigures::default()
            }),
            load: LoadFigures { cpu_us_per_message: Some(4.125), join_us: None },
            latency_us: Some(percentiles),
            fanout_us: None,
        }
    }

    #[test]
    fn what_was_not_measured_is_absent() {
        assert_eq!(
            report().json(),
            r#"{"workload":"echo","wire":"websocket","sessions":100,"messages":200000,"per_second":91234.5,"server":{"pids":[1],"cpu_us_per_message":9.3},"load":{"cpu_us_per_message":4.125},"latency_us":{"p50":812.5,"p99":1200.0,"p999":1300.0,"max":2001.0}}"#
        );
    }

    #[test]
    fn people_read_a_table() {
        let table = report().table();
        assert!(table.starts_with("echo over websocket, 100 sessions\n"), "{table}");
        for wanted in ["200,000", "91,234", "9.30 µs", "latency, p99 ", "1,200 µs", "812.5 µs"] {
            assert!(table.contains(wanted), "{wanted}:\n{table}");
        }
        assert!(!table.contains("memory"), "{table}");
    }

    #[test]
    fn thousands_are_set_apart() {
        let numbers = [0.0, 5.125, 512.34, 1000.4, 1_234_567.0, -1234.0, -123.0].map(number);
        assert_eq!(numbers, ["0", "5.12", "512.3", "1,000", "1,234,567", "-1,234", "-123"]);
    }
}
