//! One answer as it comes in: its head is read, of its body what is needed.

use std::time::Instant;

use httparse::Status;

use super::{
    attempts,
    events::{Events, error_code},
};
use crate::limit;

/// An answer, as far as it has come. It is used for one request after the other.
#[derive(Debug, Default)]
pub(super) struct Answer {
    state: State,
    pub(super) status: u16,
    /// Whether the connection ends with it.
    pub(super) closes: bool,
    /// What the header of that name says; empty if there is none.
    pub(super) attempts: String,
    /// When its head was whole.
    pub(super) head: Option<Instant>,
    body: Body,
    /// The body of an error, as far as it is looked at.
    kept: Vec<u8>,
    pub(super) events: Events,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// So many bytes of the body are still to come.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// What is done with the body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Body {
    #[default]
    Ignored,
    Kept,
    Events,
}

/// The server does not speak HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Answer {
    /// Gets ready for the next one.
    pub(super) fn clear(&mut self) {
        self.state = State::Head;
        self.closes = false;
        self.attempts.clear();
        self.head = None;
        self.kept.clear();
        self.events.clear();
    }

    /// Whether it is whole.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The server has closed the connection. Returns whether that is how the answer ends.
    pub(super) fn on_close(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// Takes what came at this time; returns how much of it. The rest is to be shown again, with more behind it.
    pub(super) fn take(&mut self, input: &[u8], at: Instant) -> Result<usize, Malformed> {
        let mut rest = input;
        loop {
            let used = match self.state {
                State::Head => self.on_head(rest, at)?,
                State::Length(left) => {
                    let length = self.on_body(rest, left, at);
                    self.state = match left - length as u64 {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                    (length > 0 || left == 0).then_some(length)
                }
                State::ChunkSize => match httparse::parse_chunk_size(rest) {
                    Ok(Status::Complete((head, size))) => {
                        self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                        Some(head)
                    }
                    Ok(Status::Partial) => None,
                    Err(_) => return Err(Malformed),
                },
                State::Chunk(left) => {
                    let length = self.on_body(rest, left, at);
                    self.state = match left - length as u64 {
                        0 => State::ChunkEnd,
                        left => State::Chunk(left),
                    };
                    (length > 0).then_some(length)
                }
                State::ChunkEnd => (rest.len() >= 2).then(|| {
                    self.state = State::ChunkSize;
                    2
                }),
                State::Trailers => match rest.iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        if rest[..end].trim_ascii().is_empty() {
                            self.state = State::Done;
                        }
                        Some(end + 1)
                    }
                    None if rest.len() > limit::HEAD_BYTES_MAX => return Err(Malformed),
                    None => None,
                },
                State::UntilClose => {
                    let length = self.on_body(rest, u64::MAX, at);
                    (length > 0).then_some(length)
                }
                State::Done => None,
            };
            match used {
                Some(used) => rest = &rest[used..],
                None => return Ok(input.len() - rest.len()),
            }
        }
    }

    /// Why it is none, now that it is done: the status with the code of the error, or how a stream ended.
    pub(super) fn failure(&self) -> Option<String> {
        match (self.status, self.body) {
            (200, Body::Events) => self.events.failure(),
            (200..=299, _) => None,
            (status, _) => {
                Some(format!("{status} {}", error_code(&self.kept)).trim_end().to_owned())
            }
        }
    }

    /// How long the head is, if it is whole.
    fn on_head(&mut self, input: &[u8], at: Instant) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; limit::HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let Status::Complete(length) = head.parse(input).map_err(|_| Malformed)? else {
            let endless = input.len() > limit::HEAD_BYTES_MAX;
            return if endless { Err(Malformed) } else { Ok(None) };
        };
        self.status = head.code.unwrap_or_default();
        if (100..200).contains(&self.status) {
            // The answer itself comes behind it.
            return Ok(Some(length));
        }
        self.head = Some(at);
        let (mut body_length, mut chunked, mut events) = (None, false, false);
        for header in head.headers.iter() {
            let name = header.name;
            let Ok(value) = str::from_utf8(header.value) else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                body_length = Some(value.trim().parse().map_err(|_| Malformed)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.to_ascii_lowercase().contains("chunked");
            } else if name.eq_ignore_ascii_case("content-type") {
                events = value.trim_start().starts_with("text/event-stream");
            } else if name.eq_ignore_ascii_case("connection") {
                self.closes = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case(attempts::HEADER) {
                self.attempts.push_str(value);
            }
        }
        self.body = match self.status {
            200 if events => Body::Events,
            200..=299 => Body::Ignored,
            _ => Body::Kept,
        };
        self.state = match (self.status, chunked, body_length) {
            (204 | 304, ..) => State::Done,
            (_, true, _) => State::ChunkSize,
            (_, false, Some(0)) => State::Done,
            (_, false, Some(length)) => State::Length(length),
            (_, false, None) => State::UntilClose,
        };
        self.closes |= self.state == State::UntilClose;
        Ok(Some(length))
    }

    /// Takes as much of the body as there is, up to so much.
    fn on_body(&mut self, input: &[u8], most: u64, at: Instant) -> usize {
        let length = input.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let bytes = &input[..length];
        match self.body {
            Body::Ignored => {}
            Body::Kept => {
                let room = limit::ERROR_BYTES_MAX.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(&bytes[..length.min(room)]);
            }
            Body::Events => self.events.take(bytes, at),
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Gives it piece by piece, and what was not taken again.
    fn read(text: &str, piece: usize) -> Result<Answer, Malformed> {
        let mut answer = Answer::default();
        let mut kept = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            kept.extend_from_slice(bytes);
            let used = answer.take(&kept, clock::now())?;
            kept.drain(..used);
        }
        assert!(kept.is_empty(), "{}", String::from_utf8_lossy(&kept));
        Ok(answer)
    }

    fn chunked(parts: &[&str]) -> String {
        let chunk = |part: &&str| format!("{:x}\r\n{part}\r\n", part.len());
        parts.iter().map(chunk).collect::<String>() + "0\r\nx: y\r\n\r\n"
    }

    const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
        bowline-attempts: a;ok;1ms\r\ntransfer-encoding: chunked\r\n\r\n";

    #[test]
    fn answers_are_whole_wherever_reads_end() {
        let word = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
        let events = format!("{EVENTS}{}", chunked(&[word, "data: ", "[DONE]\n\n"]));
        let error = chunked(&["{\"error\":", "{\"code\":\"no\"}}"]);
        let error = format!("HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n{error}");
        for (text, failure) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", None),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None),
            (&*error, Some("503 no")),
            ("HTTP/1.1 502 X\r\ncontent-length: 4\r\n\r\ngone", Some("502")),
            (&events, None),
        ] {
            for piece in 1..=text.len() {
                let answer = read(text, piece).unwrap();
                assert!(answer.is_done() && !answer.closes, "{text}: {answer:?}");
                assert_eq!(answer.failure().as_deref(), failure, "{text}");
                let streamed = text.starts_with(EVENTS);
                assert_eq!(answer.events.first_content.is_some(), streamed);
                assert_eq!(answer.attempts, if streamed { "a;ok;1ms" } else { "" });
            }
        }
    }

    #[test]
    fn an_answer_may_end_with_its_connection() {
        let mut answer = read("HTTP/1.0 200 OK\r\n\r\n{}", 3).unwrap();
        assert!(!answer.is_done() && answer.closes);
        assert!(answer.on_close());
        let mut answer = read("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", 3).unwrap();
        assert!(!answer.on_close(), "it was cut");
        let answer = read("HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 2\r\n\r\n{}", 3);
        assert!(answer.unwrap().closes);
    }

    #[test]
    fn what_is_no_http_is_malformed() {
        for text in [
            "220 mail.example.com ESMTP\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert_eq!(read(text, 1).err(), Some(Malformed), "{text}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(limit::HEAD_BYTES_MAX));
        assert_eq!(Answer::default().take(endless.as_bytes(), clock::now()), Err(Malformed));
    }
}
