//! `bowline service …`: the processes that a server looks after.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use bowline_names::{ErrorCode, Exit};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::{net::UnixStream, runtime};

use super::{
    paths, print, running,
    status::settled,
    words::{Paint, Progress, colours_on_stdout, roughly, say},
};
use crate::{
    config::Overrides,
    control::{self, ControlError, understand},
    failure::Failure,
    instance::{Paths, Record, Standing},
    services::{desk::SERVICES, status::ServiceStatus},
};

/// How often is asked how far it is.
const ASK: Duration = Duration::from_millis(500);

/// How much longer than what is waited for the answer may take.
const BEYOND: Duration = Duration::from_secs(5);

/// Files of a log that are looked for where nobody says how many there are.
const LOG_FILES: usize = 100;

/// What is wanted of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Start,
    Stop,
    Restart,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// Has it done, and waits for it.
///
/// # Errors
/// When no server runs, when there is no such service, when it fails, or takes longer than `wait`.
pub(super) fn act(
    overrides: &Overrides,
    act: Act,
    name: &str,
    wait: Duration,
    json: bool,
) -> Result<Exit, Failure> {
    let record = running(&paths(overrides)?)?;
    check_name(name)?;
    let target = format!("{SERVICES}/{name}/{}", act.name());
    let body = json!({ "wait": format!("{}ms", wait.as_millis()) });
    let (tell, told) = mpsc::sync_channel(1);
    let control = record.control.clone();
    let asking = move || {
        let patience = wait + BEYOND;
        let answer = control::ask_within(patience, &control, &Method::POST, &target, Some(&body));
        // Whoever waits for it does so to the end.
        let _ = tell.send(answer);
    };
    thread::Builder::new()
        .name("asking".to_owned())
        .spawn(asking)
        .map_err(|error| Failure::new(ErrorCode::ControlSilent, error))?;
    let mut progress = Progress::begin();
    let answer = loop {
        match told.recv_timeout(ASK) {
            Ok(answer) => break answer,
            Err(mpsc::RecvTimeoutError::Timeout) => progress.show(|| match of(&record, name) {
                Some(service) => line(&service),
                None => name.to_owned(),
            }),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(ErrorCode::ControlSilent, "nobody asked"));
            }
        }
    };
    let waited = progress.waited();
    drop(progress);
    let answer = answer.map_err(|error| with_last_lines(error.into(), &record, name))?;
    let pending = answer["outcome"] == "pending";
    if pending && !wait.is_zero() {
        let state = of(&record, name).map(|service| line(&service)).unwrap_or_default();
        let message = format!("not over after {}: {state}", roughly(waited));
        return Err(Failure::new(ErrorCode::ServiceLate, message));
    }
    if json {
        return Ok(print(&format!("{answer:#}\n")));
    }
    let words = answer["text"].as_str().unwrap_or("done");
    say(&format!("{name}: {words}"));
    Ok(Exit::Ok)
}

/// Lists the services.
///
/// # Errors
/// When no server runs.
pub(super) fn ls(overrides: &Overrides, json: bool) -> Result<Exit, Failure> {
    let record = running(&paths(overrides)?)?;
    let answer = control::ask(&record.control, &Method::GET, SERVICES, None)?;
    if json {
        return Ok(print(&format!("{answer:#}\n")));
    }
    let services = read(&answer["services"]);
    if services.is_empty() {
        say("there are no services: [services] of the configuration names none");
    }
    Ok(print(&table(&services, "", &Paint(colours_on_stdout()))))
}

/// Shows the log of a service.
///
/// # Errors
/// When there is none.
pub(super) fn logs(
    overrides: &Overrides,
    name: &str,
    lines: usize,
    follow: bool,
) -> Result<Exit, Failure> {
    let paths = paths(overrides)?;
    check_name(name)?;
    let record = match settled(&paths) {
        Standing::Running(record) => record,
        Standing::Unknown(doubt) => return Err(doubt.into()),
        // What it wrote is there all the same.
        Standing::Absent | Standing::Stale(_) if !follow => return old_log(&paths, name, lines),
        Standing::Absent | Standing::Stale(_) => return running(&paths).map(|_| Exit::Ok),
    };
    let follow = if follow { "&follow" } else { "" };
    let target = format!("{SERVICES}/{name}/logs?lines={lines}{follow}");
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorCode::ControlSilent, error))?;
    runtime.block_on(stream(&record.control, &target))?;
    Ok(Exit::Ok)
}

/// The log of a service of a server that does not run.
fn old_log(paths: &Paths, name: &str, lines: usize) -> Result<Exit, Failure> {
    let path = bowline_fleet::logs::path(&paths.logs, name);
    if !path.exists() {
        let message = format!("bowline is not running, and there is no {}", path.display());
        return Err(Failure::new(ErrorCode::LogMissing, message));
    }
    let read = bowline_fleet::logs::tail(&path, LOG_FILES, lines);
    let lines = read.map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        Failure::new(ErrorCode::LogMissing, message)
    })?;
    let text = lines.into_iter().fold(String::new(), |text, line| text + &line + "\n");
    Ok(print(&text))
}

/// Prints an answer as it comes: text as it is, events as the lines that they are.
async fn stream(control: &Path, target: &str) -> Result<(), Failure> {
    let silent = |error: &dyn std::fmt::Display| {
        let (path, error) = (control.to_owned(), error.to_string());
        Failure::from(ControlError::Silent { path, error })
    };
    let stream = UnixStream::connect(control).await.map_err(|error| silent(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| silent(&error))?;
    let request = Request::get(target)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| silent(&error))?;
    let printing = async {
        let answer = sender.send_request(request).await.map_err(|error| silent(&error))?;
        let status = answer.status();
        let kind = answer.headers().get(header::CONTENT_TYPE);
        let events = kind.is_some_and(|kind| kind == "text/event-stream");
        let mut body = answer.into_body();
        if !status.is_success() {
            let body = body.collect().await.map_err(|error| silent(&error))?;
            return Err(understand(status, &body.to_bytes())
                .err()
                .map_or_else(|| Failure::new(ErrorCode::ControlRefused, status), Failure::from));
        }
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| silent(&error))?;
            let data = frame.into_data().unwrap_or_default();
            let written = if events {
                rest.extend_from_slice(&data);
                write_lines(&mut rest)
            } else {
                write(&data)
            };
            if written.is_err() {
                // Nobody reads any more.
                return Ok(());
            }
        }
        Ok(())
    };
    tokio::pin!(printing);
    tokio::select! {
        printed = &mut printing => printed,
        _ = connection => printing.await,
    }
}

/// Writes the lines of whole events, and leaves what is not whole.
fn write_lines(rest: &mut Vec<u8>) -> io::Result<()> {
    let mut text = Vec::new();
    let mut missed = false;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        if let Some(data) = line.strip_prefix(b"data: ") {
            if missed {
                let count = String::from_utf8_lossy(data);
                say(&format!("… {} lines were too fast to be shown …", count.trim_end()));
            } else {
                text.extend_from_slice(data);
            }
        }
        missed = line.starts_with(b"event: missed");
    }
    write(&text)
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// A name that no service can have is said to be unknown without asking.
fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.chars().all(fits) {
        return Ok(());
    }
    let message = format!("there is no service \"{}\"", name.escape_debug());
    Err(Failure::new(ErrorCode::ServiceUnknown, message))
}

/// One service as it is now.
fn of(record: &Record, name: &str) -> Option<ServiceStatus> {
    let target = format!("{SERVICES}/{name}");
    let answer = control::ask(&record.control, &Method::GET, &target, None).ok()?;
    ServiceStatus::deserialize(&answer).ok()
}

/// Adds what a service wrote last to why it failed.
fn with_last_lines(mut failure: Failure, record: &Record, name: &str) -> Failure {
    if failure.code == ErrorCode::ServiceNotReady
        && let Some(end) = of(record, name).and_then(|service| service.ends.last().cloned())
    {
        for line in end.lines {
            let clean: String = line.chars().filter(|c| !c.is_control()).collect();
            failure.message.push_str(&format!("\n  | {clean}"));
        }
    }
    failure
}

/// Reads a list of services; what another version says in another way is left out.
pub(super) fn read(list: &Value) -> Vec<ServiceStatus> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|service| ServiceStatus::deserialize(service).ok()).collect()
}

/// A service in one line: what waits for it.
fn line(service: &ServiceStatus) -> String {
    match service.words() {
        words if words.is_empty() => format!("{} {}", service.name, service.state),
        words => format!("{} {}: {words}", service.name, service.state),
    }
}

/// Services as people read them: a line each, and under it what runs it and what is amiss.
pub(super) fn table(services: &[ServiceStatus], indent: &str, paint: &Paint) -> String {
    let width = services.iter().map(|service| service.name.len()).max().unwrap_or(0);
    let states = services.iter().map(|service| service.state.len()).max().unwrap_or(0);
    let mut text = String::new();
    for service in services {
        let ServiceStatus { name, state, since, .. } = service;
        let mut facts = vec![format!("since {}", second(*since))];
        facts.extend(service.pid.map(|pid| format!("pid {pid}")));
        if service.adopted {
            facts.push("adopted".to_owned());
        }
        if service.attempts > 1 && state == "ready" {
            facts.push(format!("after {} attempts", service.attempts));
        }
        if service.restarts.total > 0 {
            let reasons = service.restarts.by_reason.iter().filter(|(_, times)| **times > 0);
            let reasons: Vec<String> =
                reasons.map(|(reason, times)| format!("{times} {reason}")).collect();
            let total = service.restarts.total;
            let word = if total == 1 { "restart" } else { "restarts" };
            facts.push(format!("{total} {word} ({})", reasons.join(", ")));
        }
        let gap = " ".repeat(states - state.len());
        let state = paint.state(state);
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "{indent}{name:width$}  {state}{gap}  {}", facts.join(", "));
        let mut more = Vec::new();
        more.extend(service.interpreter.clone());
        let words = service.words();
        if !words.is_empty() {
            more.push(words);
        }
        if let Some(candidate) = &service.candidate {
            let pid = candidate.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
            let ready = if candidate.ready { "is ready" } else { "is starting" };
            more.push(format!("the one that follows it {ready}{pid}"));
        }
        if let Some(end) = service.last_end.as_ref().filter(|_| service.restarts.total > 0) {
            more.push(format!("last end: {end}"));
        }
        if let Some(at) = service.next_attempt {
            more.push(format!("next attempt at {}", second(at)));
        }
        for line in more {
            let line: String = line.chars().filter(|c| !c.is_control()).collect();
            let _ = writeln!(text, "{indent}{:width$}  {}", "", paint.of("2", &line));
        }
    }
    text
}

fn second(at: Timestamp) -> String {
    format!("{at:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Service;

    #[test]
    fn a_table_says_of_each_service_what_is_to_be_known() {
        let mut api = ServiceStatus::unborn("api", &Service::default(), Timestamp::UNIX_EPOCH);
        api.state = "ready".to_owned();
        (api.pid, api.attempts, api.text) = (Some(7), 2, None);
        api.interpreter = Some("/srv/.venv/bin/python (VIRTUAL_ENV)".to_owned());
        api.restarts.total = 1;
        api.restarts.by_reason.insert("killed".to_owned(), 1);
        api.last_end = Some("killed by signal 9".to_owned());
        let mut engines = ServiceStatus::unborn("engines", &Service::default(), api.since);
        engines.state = "starting".to_owned();
        engines.text = None;
        engines.awaited = Some("http http://127.0.0.1:1/health: starting, 40 %".to_owned());
        assert_eq!(
            table(&[api, engines], "  ", &Paint(false)),
            "\
\x20 api      ready     since 1970-01-01T00:00:00Z, pid 7, after 2 attempts, 1 restart (1 killed)
\x20          /srv/.venv/bin/python (VIRTUAL_ENV)
\x20          last end: killed by signal 9
\x20 engines  starting  since 1970-01-01T00:00:00Z
\x20          http http://127.0.0.1:1/health: starting, 40 %
"
        );
    }

    #[test]
    fn a_name_that_no_service_can_have_is_unknown() {
        assert!(check_name("api-2_x.y").is_ok());
        for name in ["", "a b", "../x", "a/b", "é"] {
            assert_eq!(check_name(name).unwrap_err().code, ErrorCode::ServiceUnknown, "{name}");
        }
    }

    #[test]
    fn lines_of_events_are_written_when_they_are_whole() {
        let mut rest = b"data: a\n\n:\n\ndata: b".to_vec();
        assert!(write_lines(&mut rest).is_ok());
        assert_eq!(rest, b"data: b");
    }
}
