//! What a server says about itself, and how people read it.

use std::{fmt::Write as _, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    link, service,
    words::{Paint, roughly},
};
use crate::{clock, links::status::LinkStatus, services::status::ServiceStatus};

/// The answer of `GET /api/v1/status`, as far as it is shown. What an older or newer server does
/// not say is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct View {
    pub(super) state: Option<String>,
    management: Option<String>,
    version: Option<String>,
    pid: Option<u32>,
    started: Option<String>,
    uptime_seconds: Option<f64>,
    state_dir: Option<String>,
    config_file: Option<String>,
    pub(super) gateway: Gateway,
    listeners: Vec<Listener>,
    pub(super) components: Vec<Component>,
    services: Value,
    links: Value,
    links_store: Value,
    links_gone: Value,
    alerts: Vec<Alert>,
    pub(super) sessions: Option<u64>,
    pub(super) connections: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Gateway {
    pub(super) state: Option<String>,
    pid: Option<u32>,
    pub(super) answered: bool,
    pub(super) restarts: Restarts,
    pub(super) last_end: Option<String>,
    next_attempt_seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Restarts {
    pub(super) total: u64,
    by_reason: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listener {
    door: String,
    address: String,
    tls: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Component {
    name: String,
    state: String,
    /// A share from 0 to 1, or an object that has one as `fraction`, and `text`.
    progress: Value,
    text: Option<String>,
    waiting_for: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alert {
    name: String,
    severity: String,
    since: Option<String>,
    summary: String,
    remedy: Option<String>,
}

impl View {
    /// Reads an answer.
    pub(super) fn of(answer: &Value) -> Self {
        Self::deserialize(answer).unwrap_or_default()
    }

    /// The table that `bowline status` shows. `log` is the daemon's log file.
    pub(super) fn text(&self, log: Option<&str>, colours: bool) -> String {
        let paint = Paint(colours);
        let version = self.version.as_deref().unwrap_or("?");
        let bold = |text: &str| paint.of("1", text);
        let headline = match self.state.as_deref() {
            Some("running") => paint.of("1;32", "is running"),
            Some("restarting") => paint.of("1;33", "is starting its gateway again"),
            Some("starting") => paint.of("1;33", "is starting"),
            Some("draining") => paint.of("1;33", "is draining: it sends its clients away and ends"),
            Some(other) => paint.of("1;33", &format!("is {other}")),
            None => paint.of("1;33", "runs"),
        };
        let mut but = Vec::new();
        if self.gateway.is_silent() {
            but.push("its gateway does not answer".to_owned());
        }
        if self.unready().is_some() {
            but.push("not all of it is ready".to_owned());
        }
        let unwell = self.services().into_iter().filter(|service| {
            matches!(&*service.state, "failed" | "crash-loop" | "not-ready" | "backing-off")
        });
        let links = link::read(&self.links).into_iter();
        let links = links.filter(LinkStatus::is_down);
        let unwell = unwell.map(|service| service.name).chain(links.map(|link| link.name));
        match unwell.collect::<Vec<_>>() {
            names if names.is_empty() => {}
            names => but.push(format!("without {}", names.join(", "))),
        }
        if !self.alerts.is_empty() {
            but.push(format!("with {}", count(self.alerts.len() as u64, "alert")));
        }
        let but: String = but.iter().map(|but| format!(", {}", paint.of("33", but))).collect();
        let mut text = format!("{} {version} {headline}{but}\n\n", bold("bowline"));
        let mut row = |label: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {} {value}", paint.of("2", &format!("{label:<12}")));
        };
        let pid = |pid: Option<u32>| pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        if let Some(management) = &self.management {
            row("management", &format!("{management}{}", pid(self.pid)));
        }
        row("gateway", &self.gateway.words(&paint));
        if let Some(restarts) = self.gateway.restarts.words() {
            row("restarts", &restarts);
        }
        if let Some(end) = &self.gateway.last_end {
            row("last end", end);
        }
        if let Some(seconds) = self.uptime_seconds {
            let since = self.started.as_ref().map(|at| format!(", since {}", to_the_second(at)));
            let since = since.unwrap_or_default();
            let up = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            let up = match up.as_secs() {
                seconds @ ..10 => format!("{seconds}s"),
                _ => roughly(up),
            };
            row("up", &format!("{up}{since}"));
        }
        row("config", self.config_file.as_deref().unwrap_or("no file, the defaults"));
        if let Some(dir) = &self.state_dir {
            row("directory", dir);
        }
        if let Some(log) = log {
            row("log", log);
        }
        let width = self.listeners.iter().map(|listener| listener.url().len()).max().unwrap_or(0);
        for (index, listener) in self.listeners.iter().enumerate() {
            let label = if index == 0 { "listening" } else { "" };
            row(label, &format!("{:width$}  {}", listener.url(), paint.of("2", &listener.door)));
        }
        if let (Some(connections), Some(sessions)) = (self.connections, self.sessions) {
            row(
                "clients",
                &format!("{}, {}", count(connections, "connection"), count(sessions, "session")),
            );
        } else if self.gateway.is_silent() {
            row("clients", "no answer");
        }
        if !self.components.is_empty() {
            let _ = writeln!(text, "\n  {}", paint.of("2", "components"));
            let width = self.components.iter().map(|part| part.name.len()).max().unwrap_or(0);
            for part in &self.components {
                let state = paint.state(&part.state);
                let _ = writeln!(text, "  {:width$}  {state}{}", part.name, part.words());
            }
        }
        let services = self.services();
        if !services.is_empty() {
            let _ = writeln!(text, "\n  {}", paint.of("2", "services"));
            text.push_str(&service::table(&services, "  ", &paint));
        }
        let links = link::read(&self.links);
        let now = clock::timestamp();
        let beside = link::beside(&self.links_store, &self.links_gone, "  ", now);
        if !links.is_empty() || !beside.is_empty() {
            let _ = writeln!(text, "\n  {}", paint.of("2", "links"));
            text.push_str(&link::table(&links, "  ", now, &paint));
            text.push_str(&beside);
        }
        if !self.alerts.is_empty() {
            let _ = writeln!(text, "\n  {}", paint.of("2", "alerts"));
            for alert in &self.alerts {
                let since = alert.since.as_ref().map(|at| format!(", since {}", to_the_second(at)));
                let (severity, name) = (paint.state(&alert.severity), bold(&alert.name));
                let _ = writeln!(text, "  {severity}  {name}{}", since.unwrap_or_default());
                for line in wrapped(&alert.summary) {
                    let _ = writeln!(text, "    {line}");
                }
                for line in alert.remedy.iter().flat_map(|remedy| wrapped(remedy)) {
                    let _ = writeln!(text, "    {}", paint.of("2", &line));
                }
            }
        }
        text
    }

    /// The processes that it looks after.
    pub(super) fn services(&self) -> Vec<ServiceStatus> {
        service::read(&self.services)
    }

    /// What a server still waits for that has no gateway any more: its services.
    pub(super) fn services_left(&self) -> Option<String> {
        if self.gateway.pid.is_some() {
            return None;
        }
        let services = self.services().into_iter().filter(|service| service.pid.is_some());
        let left: Vec<String> = services.map(|service| service.name).collect();
        (!left.is_empty()).then(|| format!("the services {} are stopping", left.join(", ")))
    }

    /// Where it listens: door and URL.
    pub(super) fn doors(&self) -> impl Iterator<Item = (&str, String)> {
        self.listeners.iter().map(|listener| (&*listener.door, listener.url()))
    }

    /// What a start still waits for, in one line.
    pub(super) fn waits_for(&self) -> String {
        let gateway = &self.gateway;
        let Some(part) = self.components.iter().find(|part| part.state != "ready") else {
            return gateway.words(&Paint(false));
        };
        let of = self.components.len();
        let ready = self.components.iter().filter(|part| part.state == "ready").count();
        format!("{ready} of {of} components ready; {} {}{}", part.name, part.state, part.words())
    }

    /// The components that are not ready yet, in words; nothing when all are.
    pub(super) fn unready(&self) -> Option<String> {
        let parts: Vec<String> = (self.components.iter())
            .filter(|part| part.state != "ready")
            .map(|part| format!("{} {}{}", part.name, part.state, part.words()))
            .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

impl Gateway {
    /// Whether it did not answer its master.
    fn is_silent(&self) -> bool {
        self.state.as_deref() == Some("silent")
    }

    fn words(&self, paint: &Paint) -> String {
        let state = self.state.as_deref().unwrap_or("unknown");
        let mut text = paint.state(state);
        if let Some(pid) = self.pid {
            let _ = write!(text, ", pid {pid}");
        }
        if let Some(seconds) = self.next_attempt_seconds {
            let _ = write!(text, ", next attempt in {seconds:.1}s");
        }
        text
    }
}

impl Restarts {
    /// `3 (2 killed, 1 exited)`; nothing when there were none.
    fn words(&self) -> Option<String> {
        if self.total == 0 {
            return None;
        }
        let reasons: Vec<String> = (self.by_reason.iter())
            .filter(|(_, times)| **times > 0)
            .map(|(reason, times)| format!("{times} {reason}"))
            .collect();
        Some(format!("{} ({})", self.total, reasons.join(", ")))
    }
}

impl Listener {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}/", self.address)
    }
}

impl Component {
    /// What there is to say beside the state.
    fn words(&self) -> String {
        let mut text = String::new();
        let fraction = (self.progress.as_f64()).or_else(|| self.progress.get("fraction")?.as_f64());
        if let Some(fraction) = fraction.filter(|_| self.state == "loading") {
            let _ = write!(text, " {:.0} %", fraction * 100.0);
        }
        let said = self.text.as_deref().or_else(|| self.progress.get("text")?.as_str());
        if let Some(said) = said.filter(|said| !said.is_empty() && self.state == "loading") {
            let _ = write!(text, ", {said}");
        }
        if !self.waiting_for.is_empty() && self.state == "waiting" {
            let _ = write!(text, " for {}", self.waiting_for.join(", "));
        }
        if let Some(error) = &self.error {
            let _ = write!(text, ": {error}");
        }
        text
    }
}

/// Breaks a text into lines that fit a terminal, between words.
fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 90;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Cuts the fraction of a second off a time.
fn to_the_second(time: &str) -> String {
    time.parse().map_or_else(|_| time.to_owned(), |time: Timestamp| format!("{time:.0}"))
}

fn count(number: u64, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({
            "state": "restarting", "management": "daemon", "version": "0.1.0", "pid": 10,
            "started": "2026-11-22T05:00:00.123Z", "uptime_seconds": 3723.4,
            "state_dir": "/run/bowline", "config_file": null,
            "gateway": {
                "state": "backing-off", "pid": null, "answered": false,
                "restarts": { "total": 3, "by_reason": { "killed": 2, "exited": 1, "unresponsive": 0 } },
                "last_end": "killed by signal 9", "next_attempt_seconds": 0.4,
            },
            "listeners": [
                { "door": "public", "address": "0.0.0.0:443", "tls": true },
                { "door": "admin", "address": "127.0.0.1:8001", "tls": false },
            ],
            "components": [
                { "name": "models", "state": "loading", "progress": 0.4 },
                { "name": "search", "state": "waiting", "progress": null, "waiting_for": ["models"] },
                { "name": "cache", "state": "failed", "error": "no such file" },
            ],
            "alerts": [{
                "name": "component-failed", "severity": "critical", "since": "2026-11-22T05:01:00Z",
                "summary": "cache has failed", "remedy": "Look at its error.",
            }],
            "sessions": 1, "connections": 2,
        })
    }

    #[test]
    fn the_table_says_everything_in_words() {
        let text = View::of(&answer()).text(Some("/var/log/bowline/bowline.log"), false);
        assert_eq!(
            text,
            "\
bowline 0.1.0 is starting its gateway again, not all of it is ready, with 1 alert

  management   daemon, pid 10
  gateway      backing-off, next attempt in 0.4s
  restarts     3 (1 exited, 2 killed)
  last end     killed by signal 9
  up           1h 2m, since 2026-11-22T05:00:00Z
  config       no file, the defaults
  directory    /run/bowline
  log          /var/log/bowline/bowline.log
  listening    https://0.0.0.0:443/    public
               http://127.0.0.1:8001/  admin
  clients      2 connections, 1 session

  components
  models  loading 40 %
  search  waiting for models
  cache   failed: no such file

  alerts
  critical  component-failed, since 2026-11-22T05:01:00Z
    cache has failed
    Look at its error.
"
        );
    }

    #[test]
    fn a_silent_gateway_has_no_figures() {
        let answer = json!({
            "state": "running", "gateway": { "state": "silent", "pid": 7 },
            "sessions": null, "connections": null,
        });
        let text = View::of(&answer).text(None, false);
        assert!(text.contains("is running, its gateway does not answer"), "{text}");
        assert!(text.contains("gateway      silent, pid 7\n"), "{text}");
        assert!(text.contains("clients      no answer\n"), "{text}");
    }

    #[test]
    fn a_store_in_memory_and_links_that_are_gone_are_shown_without_any_link() {
        let text = View::of(&json!({
            "links": [],
            "links_store": { "healthy": false, "text": "the disk is full", "since": "2026-11-22T05:00:00Z" },
            "links_gone": [{
                "name": "moe", "waiting": 5, "parked": 0,
                "since": "2026-11-22T05:00:00Z", "until": "2026-11-29T05:00:00Z",
            }],
        }))
        .text(None, false);
        let memory = "\n  links\n  messages are in memory and not on disk: the disk is full\n";
        assert!(text.contains(memory), "{text}");
        assert!(text.contains("\n  moe is not configured any more and has 5 messages"), "{text}");
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        let lines = wrapped(&"word ".repeat(40));
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= 90 && line.ends_with("word")));
    }

    #[test]
    fn what_a_start_waits_for_fits_a_line() {
        let mut view = View::of(&answer());
        assert_eq!(view.waits_for(), "0 of 3 components ready; models loading 40 %");
        view.components.clear();
        assert_eq!(view.waits_for(), "backing-off, next attempt in 0.4s");
    }

    #[test]
    fn an_answer_that_says_little_is_shown_all_the_same() {
        let text = View::of(&json!({})).text(None, false);
        assert!(text.starts_with("bowline ? runs\n"), "{text}");
    }
}
