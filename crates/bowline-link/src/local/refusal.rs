//! What a bot is told when there is nothing for it from the service.

use std::fmt;

use bowline_names::ErrorCode;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::body::Body;

/// An answer of Bowline's own, in the form of its API.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: ErrorCode,
    words: String,
    header: Option<(HeaderName, HeaderValue)>,
    is_unsaid: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: ErrorCode, words: impl Into<String>) -> Self {
        Self { status, code, words: words.into(), header: None, is_unsaid: false }
    }

    /// Is not said: the connection ends without an answer, as the service's own would have. What a bot does when its
    /// service cannot be reached was written for that, and not for a 502: `webex_bot` waits for its network when it
    /// starts, and gives up at any status.
    pub(super) fn unsaid_if(mut self, unsaid: bool) -> Self {
        self.is_unsaid = unsaid;
        self
    }

    /// Whether it is not said.
    pub(super) fn is_unsaid(&self) -> bool {
        self.is_unsaid
    }

    /// What was asked for cannot be asked for here.
    pub(super) fn request(status: StatusCode, words: impl Into<String>) -> Self {
        Self::new(status, ErrorCode::LinkRequestRefused, words)
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    pub(super) fn answer(self) -> Result<Response<Body>, Unsaid> {
        let Self { status, code, words, header, is_unsaid } = self;
        tracing::debug!(status = status.as_u16(), code = code.name(), %words, "a bot was refused");
        if is_unsaid {
            return Err(Unsaid);
        }
        let text = json!({ "error": {
            "code": code.name(),
            "message": words,
            "blame": code.blame().name(),
            "retry": code.retry(),
            "remedy": code.remedy(),
        } });
        let mut answer = Response::new(Body::whole(Bytes::from(text.to_string())));
        *answer.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Some((name, value)) = header {
            answer.headers_mut().insert(name, value);
        }
        Ok(answer)
    }
}

/// The connection ends without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsaid;

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the service could not be reached")
    }
}

impl std::error::Error for Unsaid {}
