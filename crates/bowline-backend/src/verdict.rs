//! What an app's answer means. Pure.

use std::{fmt, time::Duration};

use bowline_dial::{HttpAnswer as Answer, HttpFailure as Failure};
use bowline_names::ErrorCode;
use http::{HeaderMap, StatusCode, header};

use crate::{app::Asked, limit, wire::Mistake};

/// What went wrong with a request, as clients, logs and metrics call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Nobody took the request, or the answer broke off, or a proxy before the app said so.
    Unavailable,
    /// There was no answer within `timeout`, the time in the queue included.
    Timeout,
    /// The queue is full.
    Busy,
    /// The answer is not what the protocol asks for.
    Invalid,
}

impl Fault {
    /// Every fault, in declaration order.
    pub const ALL: [Self; 4] = [Self::Unavailable, Self::Timeout, Self::Busy, Self::Invalid];

    /// The row of the table of errors.
    fn row(self) -> ErrorCode {
        match self {
            Self::Unavailable => ErrorCode::BackendUnavailable,
            Self::Timeout => ErrorCode::BackendTimeout,
            Self::Busy => ErrorCode::BackendBusy,
            Self::Invalid => ErrorCode::BackendInvalid,
        }
    }

    /// The code that clients are told.
    pub fn code(self) -> &'static str {
        self.row().name()
    }

    /// What a client is told besides. Nothing of the app's inside.
    pub(crate) fn message(self) -> &'static str {
        self.row().help()
    }

    /// Whether the same may succeed later.
    pub(crate) fn retry(self) -> bool {
        self.row().retry()
    }

    /// What a client is told, as JSON: in a list it is what acks an event, by itself the data of a
    /// refusal.
    pub(crate) fn json(self) -> String {
        let (code, message, retry) = (self.code(), self.message(), self.retry());
        format!(r#"{{"code":"{code}","message":"{message}","retry":{retry}}}"#)
    }
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// The app has answered as it should.
    Good(T),
    /// It was not taken, and may be sent again.
    NotSent { why: String, retry_after: Option<Duration> },
    /// That was it. `why` is for the log, to be read after "the app". With `doubt` the app may have
    /// done what it was asked.
    Failed { fault: Fault, why: String, doubt: bool },
}

impl<T> Verdict<T> {
    /// Judges an answer, or what came instead of one.
    pub(crate) fn of(
        answered: Result<Answer, Failure>,
        asked: Asked,
        parse: impl FnOnce(&[u8]) -> Result<T, Mistake>,
    ) -> Self {
        let answer = match answered {
            Ok(answer) => answer,
            Err(Failure::NotSent(why)) => return Self::NotSent { why, retry_after: None },
            Err(Failure::Broken(why)) => return Self::failed(Fault::Unavailable, why),
            Err(Failure::TooBig) => {
                let why = format!("answered more than {} bytes", limit::ANSWER_BYTES);
                return Self::failed(Fault::Invalid, why);
            }
        };
        let status = answer.status;
        if status == StatusCode::SERVICE_UNAVAILABLE
            && let Some(retry_after) = retry_after(&answer.headers)
        {
            let why = "answered 503 with Retry-After".to_owned();
            return Self::NotSent { why, retry_after: Some(retry_after) };
        }
        if status.is_redirection() {
            return Self::failed(
                Fault::Invalid,
                format!("answered with a redirect ({}); none is followed", status.as_u16()),
            );
        }
        if !status.is_success() {
            // These three are what a proxy says when there is no app behind it.
            let absent = [
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ];
            let fault = if absent.contains(&status) { Fault::Unavailable } else { Fault::Invalid };
            let why = format!("answered with status {}", status.as_u16());
            // It has said no, or nobody has asked it.
            let doubt = fault == Fault::Unavailable;
            return Self::Failed { fault, why, doubt };
        }
        // Of news nothing more than that they have arrived is asked.
        if asked != Asked::Nothing && !answer.body.is_empty() && !is_json(&answer.headers) {
            return Self::failed(
                Fault::Invalid,
                "answered something else than application/json".to_owned(),
            );
        }
        match parse(&answer.body) {
            Ok(good) => Self::Good(good),
            Err(mistake) => {
                Self::failed(Fault::Invalid, format!("gave a wrong answer: it {}", It(mistake)))
            }
        }
    }

    fn failed(fault: Fault, why: String) -> Self {
        Self::Failed { fault, why, doubt: true }
    }
}

/// A mistake after "it": "it is not a JSON object", "its `ack` must be an array" would be two
/// grammars, so keys are introduced by a colon.
struct It(Mistake);

impl fmt::Display for It {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.to_string();
        if words.starts_with('`') {
            write!(f, "has a mistake: {words}")
        } else {
            f.write_str(&words)
        }
    }
}

/// Whole seconds; the form with a date is as good as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether the content type is `application/json`, or one that is written as JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap())
        });
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn judge(answered: Result<Answer, Failure>) -> String {
        match Verdict::of(answered, Asked::Event, |body| Ok(body.len())) {
            Verdict::Good(len) => format!("good {len}"),
            Verdict::NotSent { retry_after, .. } => format!("again {retry_after:?}"),
            Verdict::Failed { fault, why, .. } => format!("{}: {why}", fault.code()),
        }
    }

    #[test]
    fn answers_are_told_apart() {
        const JSON: (&str, &str) = ("content-type", "application/json");
        for (status, headers, body, wanted) in [
            (200, &[JSON][..], "{}", "good 2"),
            (201, &[("content-type", "Application/JSON; charset=utf-8")], "{}", "good 2"),
            (200, &[("content-type", "application/problem+json")], "{}", "good 2"),
            (204, &[], "", "good 0"),
            (200, &[("content-type", "text/html")], "", "good 0"),
            (200, &[("content-type", "text/html")], "ok", "backend-invalid: answered something"),
            (200, &[], "{}", "backend-invalid: answered something else"),
            (200, &[("content-type", "application/jsonp")], "{}", "backend-invalid: answered some"),
            (302, &[("location", "/")], "", "backend-invalid: answered with a redirect (302)"),
            (304, &[JSON], "", "backend-invalid: answered with a redirect (304)"),
            (404, &[JSON], "{}", "backend-invalid: answered with status 404"),
            (500, &[JSON], "{}", "backend-invalid: answered with status 500"),
            (502, &[], "", "backend-unavailable: answered with status 502"),
            (503, &[], "", "backend-unavailable: answered with status 503"),
            (503, &[("retry-after", "2")], "", "again Some(2s)"),
            (
                503,
                &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")],
                "",
                "backend-unavailable: answered with status 503",
            ),
            (429, &[("retry-after", "2")], "", "backend-invalid: answered with status 429"),
        ] {
            let judged = judge(Ok(answer(status, headers, body)));
            assert!(judged.starts_with(wanted), "{status} {headers:?}: {judged}");
        }
    }

    #[test]
    fn what_came_instead_of_an_answer_is_told_apart() {
        assert_eq!(judge(Err(Failure::NotSent(String::new()))), "again None");
        let broken = judge(Err(Failure::Broken("broke".to_owned())));
        assert_eq!(broken, "backend-unavailable: broke");
        assert!(judge(Err(Failure::TooBig)).starts_with("backend-invalid: answered more than"));
    }

    #[test]
    fn what_a_client_is_told_is_json() {
        for fault in Fault::ALL {
            let value: serde_json::Value = serde_json::from_str(&fault.json()).unwrap();
            assert_eq!(value["code"], fault.code());
            assert_eq!(value["retry"], fault != Fault::Invalid);
            assert!(value["message"].as_str().unwrap().ends_with('.'));
        }
    }
}
