//! One log line, and how it is written: for people or as JSON.

use std::{error::Error, fmt, fmt::Write as _};

use jiff::Timestamp;
use serde_json::Value;
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

use super::mask;

/// An event that passed the filter.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) time: Timestamp,
    pub(super) level: Level,
    pub(super) target: &'static str,
    /// Where it stands in its file.
    pub(super) source_line: Option<u32>,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
    /// How many lines it stands for that were not written, if it was not written itself.
    pub(super) repeated: Option<u64>,
}

impl Line {
    /// Takes an event apart. Its secrets stay behind.
    pub(super) fn of(event: &Event<'_>, time: Timestamp) -> Self {
        let metadata = event.metadata();
        let mut line = Self {
            time,
            level: *metadata.level(),
            target: metadata.target(),
            source_line: metadata.line(),
            message: String::new(),
            fields: Vec::new(),
            repeated: None,
        };
        event.record(&mut line);
        line
    }

    /// For people: time, level, message, fields.
    pub(super) fn plain(&self, colours: bool) -> String {
        let (soft, level, end) = match (colours, self.level) {
            (false, _) => ("", "", ""),
            (true, Level::ERROR) => ("\x1b[2m", "\x1b[1;31m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[2m", "\x1b[33m", "\x1b[0m"),
            (true, Level::INFO) => ("\x1b[2m", "\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[2m", "\x1b[0m"),
        };
        let name = self.level.as_str();
        let mut text = format!("{soft}{:.3}{end} {level}{name:>5}{end} ", self.time);
        // Where in Bowline a line comes from helps nobody but its makers.
        if !self.target.starts_with("bowline") {
            text.push_str(&format!("{soft}{}:{end} ", self.target));
        }
        push_escaped(&mut text, &self.message);
        // Writing to a string cannot fail, here and below.
        if let Some(times) = self.repeated {
            let _ = write!(text, " … repeated {times} times");
        }
        for (name, value) in &self.fields {
            let _ = write!(text, " {soft}{name}={end}");
            match value {
                Value::String(value) if is_plain(value) => text.push_str(value),
                // JSON lets the controls above 127 stand as they are.
                value => push_escaped(&mut text, &value.to_string()),
            }
        }
        text.push('\n');
        text
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let mut text = format!("{{\"timestamp\":\"{:.6}\",\"level\":\"{}\"", self.time, self.level);
        let mut member = |name: &str, value: Value| {
            let _ = write!(text, ",{}:{value}", Value::from(name));
        };
        member("message", Value::from(self.message.as_str()));
        if let Some(times) = self.repeated {
            member("repeated", Value::from(times));
        }
        for (name, value) in &self.fields {
            if !["timestamp", "level", "message", "repeated", "target"].contains(name) {
                member(name, value.clone());
            }
        }
        member("target", Value::from(self.target));
        text.push_str("}\n");
        text
    }

    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => {
                self.message = match value {
                    Value::String(text) => text,
                    value => value.to_string(),
                }
            }
            name if mask::is_secret(name) => {
                self.fields.push((name, Value::from(mask::HIDDEN)));
            }
            name => self.fields.push((name, value)),
        }
    }

    fn put_text(&mut self, field: &Field, text: &str) {
        self.put(field, Value::from(mask::text(text)));
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            // Many errors say their cause themselves.
            let words = error.to_string();
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            cause = error.source();
        }
        self.put_text(field, &text);
    }
}

/// Whether a value can be read without quotes.
fn is_plain(text: &str) -> bool {
    let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=');
    !text.is_empty() && !text.contains(strange)
}

/// Writes a text so that it stays one line and cannot steer a terminal.
fn push_escaped(text: &mut String, words: &str) {
    for c in words.chars() {
        if c.is_control() { text.extend(c.escape_debug()) } else { text.push(c) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            time: "2026-11-22T04:16:00.123456Z".parse().unwrap(),
            level: Level::WARN,
            target: "bowline_net::accept",
            source_line: None,
            message: "cannot accept".to_owned(),
            fields: vec![
                ("error", "Too many open files".into()),
                ("times", 3.into()),
                ("kind", "emfile".into()),
            ],
            repeated: None,
        }
    }

    #[test]
    fn a_line_for_people_is_short() {
        assert_eq!(
            line().plain(false),
            "2026-11-22T04:16:00.123Z  WARN cannot accept error=\"Too many open files\" times=3 \
             kind=emfile\n"
        );
    }

    #[test]
    fn a_json_line_begins_with_its_time_and_keeps_numbers() {
        assert_eq!(
            line().json(),
            "{\"timestamp\":\"2026-11-22T04:16:00.123456Z\",\"level\":\"WARN\",\
             \"message\":\"cannot accept\",\"error\":\"Too many open files\",\"times\":3,\
             \"kind\":\"emfile\",\"target\":\"bowline_net::accept\"}\n"
        );
    }

    #[test]
    fn what_a_client_said_cannot_begin_a_line_or_steer_a_terminal() {
        let hostile = "a\n2026 INFO all is well\x1b[2J";
        let mut line = line();
        line.message = hostile.to_owned();
        line.fields = vec![("name", hostile.into())];
        for text in [line.plain(false), line.json()] {
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(!text.contains('\x1b'), "{text}");
        }
        line.fields = vec![("name", "\u{9b}2J".into())];
        assert!(!line.plain(false).contains('\u{9b}'), "{}", line.plain(false));
    }

    #[test]
    fn a_line_that_stands_for_others_says_so() {
        let line = Line { repeated: Some(12), ..line() };
        assert!(line.plain(false).contains(" cannot accept … repeated 12 times error="));
        assert!(line.json().contains("\"message\":\"cannot accept\",\"repeated\":12,"));
    }

    #[test]
    fn a_foreign_target_is_shown() {
        let line = Line { target: "audit", ..line() };
        assert!(line.plain(false).contains(" WARN audit: cannot accept"));
    }
}
