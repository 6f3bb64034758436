//! Log lines: to stderr, for people or as JSON.
//!
//! Whoever logs hands a line over and goes on: a thread folds the lines, writes them, and is the
//! only one who waits when stderr is slow. A line is free of secrets before it is handed over.

mod fold;
mod line;
mod mask;

use std::{
    io::{self, IsTerminal as _, Write as _},
    panic,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt as _},
    registry, reload,
};

use crate::{
    clock,
    config::{LogFormat, log_level},
    failure::colours,
};

use self::{
    fold::{Folded, Folder},
    line::Line,
};

/// The target of lines that say what an operator did, or was refused. They are written at every
/// level but `off`.
pub(crate) const AUDIT: &str = "audit";

/// The target of packet logs, which are switched on for one socket at a time.
pub(crate) const PACKETS: &str = "packets";

/// The libraries below: each frame that master and gateway exchange is a DEBUG line of theirs, in
/// which those of Bowline would drown. They speak at DEBUG if `log.level` names them.
const MACHINERY: [&str; 5] = ["h2", "hyper", "hyper_util", "rustls", "tokio_util"];

/// Lines that wait to be written; beyond them a line is lost, which is counted and said.
const QUEUE: usize = 8_192;

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

/// What can change while it runs, and the way to the thread.
struct Log {
    filter: reload::Handle<Targets, Registry>,
    json: AtomicBool,
    lost: AtomicU64,
    queue: SyncSender<Message>,
}

enum Message {
    Line(Line),
    /// Answered when all that was said before is written.
    Flush(SyncSender<()>),
}

/// Starts logging. Called once.
pub(crate) fn start(level: &str, format: LogFormat) {
    let (filter, handle) = reload::Layer::new(targets(level));
    let (queue, waiting) = mpsc::sync_channel(QUEUE);
    let json = AtomicBool::new(is_json(format));
    let log = Log { filter: handle, json, lost: AtomicU64::new(0), queue };
    if LOG.set(log).is_err() {
        return;
    }
    // Without the thread whoever logs writes by himself, see `Log::say`.
    let _ = thread::Builder::new().name("log".to_owned()).spawn(move || write(&waiting));
    // Fails only if somebody has started it before, and then it runs.
    let _ = tracing::subscriber::set_global_default(registry().with(Lines.with_filter(filter)));
    log_panics();
}

/// Makes one line of each panic, that no reader of JSON stumbles over. What RUST_BACKTRACE asks
/// for comes besides.
fn log_panics() {
    let before = panic::take_hook();
    let wordy = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        let words = panic.payload_as_str().unwrap_or("no words");
        let place = panic.location().map(ToString::to_string);
        tracing::error!(thread = name, place, error = words, "a thread panicked");
        if wordy {
            before(panic);
        }
        if name == "main" {
            // Nobody comes by who would wait for the line.
            flush();
        }
    }));
}

/// Takes another level and format from here on. Does nothing before [`start`].
pub(crate) fn apply(level: &str, format: LogFormat) {
    let Some(log) = LOG.get() else { return };
    log.json.store(is_json(format), Relaxed);
    // Fails only if the subscriber is gone, which lives as long as the process.
    let _ = log.filter.reload(targets(level));
}

/// Waits until what was logged is written, one second at most. For the end of the process.
pub(crate) fn flush() {
    let Some(log) = LOG.get() else { return };
    let (done, written) = mpsc::sync_channel(1);
    if log.queue.try_send(Message::Flush(done)).is_ok() {
        // Whoever reads stderr may have stopped reading.
        let _ = written.recv_timeout(LAST_LINES);
    }
}

/// A line of Bowline's as it would be written now, for who cannot log because it is the log.
pub(crate) fn words(message: &str, fields: Vec<(&'static str, Value)>) -> String {
    let line = Line {
        time: clock::timestamp(),
        level: Level::WARN,
        target: module_path!(),
        source_line: None,
        message: message.to_owned(),
        fields,
        repeated: None,
    };
    let json = LOG.get().is_some_and(|log| log.json.load(Relaxed));
    if json { line.json() } else { line.plain(false) }
}

/// What passes. The level was checked when the configuration was read.
fn targets(level: &str) -> Targets {
    let mut targets = log_level(level).unwrap_or_default();
    let named: Vec<String> = targets.iter().map(|(target, _)| target.to_owned()).collect();
    let off = targets.default_level().is_none_or(|level| level == LevelFilter::OFF);
    for (target, level) in [(AUDIT, Level::INFO), (PACKETS, Level::INFO)] {
        if !off && !named.iter().any(|name| name == target) {
            targets = targets.with_target(target, level);
        }
    }
    for target in MACHINERY {
        let named = named.iter().any(|name| name == target);
        if targets.default_level() > Some(LevelFilter::INFO) && !named {
            targets = targets.with_target(target, Level::INFO);
        }
    }
    targets
}

fn is_json(format: LogFormat) -> bool {
    match format {
        LogFormat::Text => false,
        LogFormat::Json => true,
        LogFormat::Auto => !io::stderr().is_terminal(),
    }
}

/// Sends events to the thread.
struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some(log) = LOG.get() {
            log.say(Line::of(event, clock::timestamp()));
        }
    }
}

impl Log {
    fn say(&self, line: Line) {
        match self.queue.try_send(Message::Line(line)) {
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Relaxed);
            }
            Err(TrySendError::Disconnected(Message::Line(line))) => self.print(&line),
            Ok(()) | Err(TrySendError::Disconnected(Message::Flush(_))) => {}
        }
    }

    fn print(&self, line: &Line) {
        let text = if self.json.load(Relaxed) { line.json() } else { line.plain(colours()) };
        // There is nobody left to tell if stderr is closed. One call, so that the lines of several
        // processes do not mix.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// The thread's loop: waits for a line or for the end of a window.
fn write(waiting: &Receiver<Message>) {
    let mut folder = Folder::default();
    loop {
        let message = match folder.next() {
            None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => waiting.recv_timeout(until(at)),
        };
        // It is set before the thread is started.
        let Some(log) = LOG.get() else { return };
        match message {
            Ok(Message::Line(line)) => {
                if let Some(line) = folder.take(line) {
                    log.print(&line);
                }
            }
            Ok(Message::Flush(done)) => {
                print_folded(log, folder.finish(clock::timestamp()));
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        print_folded(log, folder.due(clock::timestamp()));
        let lost = log.lost.swap(0, Relaxed);
        if lost > 0 {
            log.print(&lost_line(lost));
        }
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(clock::timestamp())).unwrap_or_default()
}

fn print_folded(log: &Log, folded: Vec<Folded>) {
    for Folded { line, times } in folded {
        // Told now: lines stand in the order of their times.
        log.print(&Line { time: clock::timestamp(), repeated: Some(times), ..line });
    }
}

fn lost_line(lost: u64) -> Line {
    Line {
        time: clock::timestamp(),
        level: Level::WARN,
        target: module_path!(),
        source_line: None,
        message: "log lines were lost: whoever reads stderr is too slow".to_owned(),
        fields: vec![("lines", lost.into())],
        repeated: None,
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, sync::Mutex};

    use super::*;

    #[test]
    fn what_operators_did_and_packet_logs_pass_unless_all_is_off() {
        for (level, audit, packets, debug) in [
            ("error", true, true, false),
            ("info,bowline_net=debug", true, true, true),
            ("warn,packets=off", true, false, false),
            ("off", false, false, false),
        ] {
            let targets = targets(level);
            assert_eq!(targets.would_enable(AUDIT, &Level::INFO), audit, "{level}");
            assert_eq!(targets.would_enable(PACKETS, &Level::INFO), packets, "{level}");
            assert_eq!(targets.would_enable("bowline_net::shard", &Level::DEBUG), debug, "{level}");
        }
    }

    #[test]
    fn the_libraries_below_whisper_unless_they_are_named() {
        for (level, h2, rustls) in [
            ("debug", false, false),
            ("debug,h2=debug", true, false),
            ("trace,h2::codec=trace,rustls=debug", false, true),
        ] {
            let targets = targets(level);
            assert_eq!(targets.would_enable("h2::proto", &Level::DEBUG), h2, "{level}");
            assert_eq!(targets.would_enable("rustls::server", &Level::DEBUG), rustls, "{level}");
            assert!(targets.would_enable("h2::proto", &Level::INFO), "{level}");
            assert!(targets.would_enable("bowline_net", &Level::DEBUG), "{level}");
        }
        assert!(!targets("error").would_enable("h2::proto", &Level::INFO));
    }

    #[test]
    fn a_process_writes_one_object_a_line_folds_and_survives_panics() {
        const CHILD: &str = "BOWLINE_TEST_LOG_CHILD";
        if std::env::var_os(CHILD).is_some() {
            return speak();
        }
        let name = thread::current().name().unwrap().to_owned();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(CHILD, "1")
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<(&str, &Value)> = (lines.iter())
            .map(|line| (line["message"].as_str().unwrap(), &line["repeated"]))
            .collect();
        let (once, fourfold) = (Value::Null, Value::from(4));
        assert_eq!(
            told,
            [
                ("again", &once),
                ("a thread panicked", &once),
                ("louder", &once),
                ("again", &fourfold)
            ],
            "{said}"
        );
        assert_eq!(lines[1]["thread"], "worker");
        assert_eq!(lines[1]["error"], "two\nlines");
        assert!(lines[1]["place"].as_str().unwrap().contains("log.rs"), "{said}");
    }

    /// What the child of the test above says.
    fn speak() {
        start("info", LogFormat::Json);
        for _ in 0..5 {
            tracing::warn!("again");
        }
        let worker =
            thread::Builder::new().name("worker".to_owned()).spawn(|| panic!("two\nlines"));
        assert!(worker.unwrap().join().is_err());
        tracing::debug!("louder");
        apply("debug", LogFormat::Json);
        tracing::debug!("louder");
        flush();
    }

    #[test]
    fn secrets_do_not_reach_a_line_by_field_message_or_error() {
        struct Keep(Mutex<Vec<Line>>);
        impl<S: Subscriber> Layer<S> for &'static Keep {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                self.0.lock().unwrap().push(Line::of(event, Timestamp::UNIX_EPOCH));
            }
        }
        let keep: &'static Keep = Box::leak(Box::new(Keep(Mutex::default())));
        let error = io::Error::other("GET /?token=hunter2 failed");
        tracing::subscriber::with_default(registry().with(keep), || {
            tracing::warn!(token = "hunter2", path = "/?token=hunter2", n = 1, "a");
            tracing::warn!(authorization = ?Some("hunter2"), %error, "password=hunter2");
            tracing::warn!(error = &error as &dyn std::error::Error, "b");
        });
        let lines = keep.0.lock().unwrap();
        assert_eq!(lines.len(), 3);
        for line in &*lines {
            let text = line.plain(false) + &line.json();
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains(mask::HIDDEN), "{text}");
        }
        assert!(lines[0].plain(false).contains(" n=1"));
    }
}
