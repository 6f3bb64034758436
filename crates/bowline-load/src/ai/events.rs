//! A stream of server-sent events, as far as it is looked at: where the first content stands, and how it ends.

use std::time::Instant;

use memchr::memchr;
use serde_json::Value;

use super::plain;
use crate::limit;

/// A stream, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// When the first content came. A role and a keep-alive are none, reasoning is.
    pub(super) first_content: Option<Instant>,
    end: End,
}

#[derive(Debug, Default)]
enum End {
    /// Nothing says that it is complete.
    #[default]
    Open,
    /// `[DONE]`.
    Done,
    /// An error, by its code.
    Failed(String),
}

impl Events {
    /// Forgets all but its memory.
    pub(super) fn clear(&mut self) {
        self.line.clear();
        self.first_content = None;
        self.end = End::Open;
    }

    /// Takes what came at this time.
    pub(super) fn take(&mut self, mut bytes: &[u8], at: Instant) {
        while let Some(length) = memchr(b'\n', bytes) {
            if self.line.is_empty() {
                self.on_line(&bytes[..length], at);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..length]);
                self.on_line(&line, at);
                line.clear();
                self.line = line;
            }
            bytes = &bytes[length + 1..];
        }
        // Of a line that is longer than any that is looked at, the end is not needed.
        let room = limit::LINE_BYTES_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Why the answer is none, now that the stream is over.
    pub(super) fn failure(&self) -> Option<String> {
        match &self.end {
            End::Done => None,
            End::Open => Some("stream without [DONE]".to_owned()),
            End::Failed(code) => Some(format!("frame {code}")),
        }
    }

    fn on_line(&mut self, line: &[u8], at: Instant) {
        let Some(data) = line.strip_prefix(b"data:") else { return };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            if matches!(self.end, End::Open) {
                self.end = End::Done;
            }
        } else if data.starts_with(b"{\"error\"") {
            self.end = End::Failed(error_code(data));
        } else if self.first_content.is_none() && has_content(data) {
            self.first_content = Some(at);
        }
    }
}

/// Whether a chunk has something that a reader sees.
fn has_content(data: &[u8]) -> bool {
    let Ok(chunk) = serde_json::from_slice::<Value>(data) else { return false };
    let says = |value: &Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    let choices = chunk["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
    choices.iter().any(|choice| {
        let names = ["content", "reasoning_content", "reasoning", "refusal", "tool_calls"];
        names.iter().any(|name| says(&choice["delta"][name])) || says(&choice["text"])
    })
}

/// The code in an error of whatever server, or its type.
pub(super) fn error_code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &body["error"];
    let said = [&error["code"], &error["type"], error].into_iter().find_map(|value| match value {
        Value::String(text) if !text.is_empty() => Some(plain(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    said.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const ROLE: &str =
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
    const WORD: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    const THOUGHT: &str = r#"data: {"choices":[{"index":0,"delta":{"reasoning_content":"a"}}]}"#;

    /// What came with which piece of so many bytes, and how it ended.
    fn read(lines: &[&str], piece: usize) -> (Option<usize>, Option<String>) {
        let text = lines.iter().map(|line| format!("{line}\n\n")).collect::<String>();
        let mut events = Events::default();
        let now = clock::now();
        let mut first = None;
        for (index, bytes) in text.as_bytes().chunks(piece).enumerate() {
            events.take(bytes, now);
            first = first.or(events.first_content.map(|_| index * piece));
        }
        (first, events.failure())
    }

    #[test]
    fn the_first_content_is_seen_wherever_pieces_end() {
        for first in [WORD, THOUGHT] {
            let lines = [": ping", ROLE, first, WORD, "data: [DONE]"];
            let at = lines[..3].iter().map(|line| line.len() + 2).sum::<usize>() - 2;
            for piece in 1..100 {
                let (found, failure) = read(&lines, piece);
                assert_eq!(failure, None);
                let found = found.unwrap();
                assert!(found <= at && at < found + piece, "{found} of {at}, {piece} at once");
            }
        }
    }

    #[test]
    fn a_stream_that_fails_says_why() {
        let error = r#"data: {"error":{"message":"gone","code":"upstream_truncated"}}"#;
        let code = |lines: &[&str]| read(lines, 7).1.unwrap_or_default();
        assert_eq!(code(&[ROLE, WORD, error]), "frame upstream_truncated");
        assert_eq!(code(&[ROLE, WORD, error, "data: [DONE]"]), "frame upstream_truncated");
        assert_eq!(code(&[ROLE, WORD]), "stream without [DONE]");
        assert_eq!(code(&[]), "stream without [DONE]");
        assert_eq!(read(&[ROLE, "data: [DONE]"], 7), (None, None));
    }

    #[test]
    fn codes_are_found_in_errors_of_many_kinds() {
        for (body, code) in [
            (r#"{"error":{"code":"queue_full","type":"x"}}"#, "queue_full"),
            (r#"{"error":{"code":null,"type":"server_error"}}"#, "server_error"),
            (r#"{"error":{"code":1302}}"#, "1302"),
            (r#"{"error":"model not found"}"#, "model not found"),
            (r#"{"error":{"code":"a\u001b[31m\nb"}}"#, "a[31mb"),
            (r#"{"detail":"x"}"#, ""),
            ("<html>", ""),
        ] {
            assert_eq!(error_code(body.as_bytes()), code, "{body}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut events = Events::default();
        for _ in 0..40 {
            events.take(&[b'x'; 64 * 1024], clock::now());
        }
        assert_eq!(events.line.len(), limit::LINE_BYTES_MAX);
    }
}
