//! A message that no client has sent: posted to an app as every request is, and answered with JSON or nothing.

use std::fmt;

use bowline_dial::{HttpAnswer, HttpFailure};
use bytes::Bytes;
use http::{StatusCode, Uri};
use tokio::{net::TcpStream, time::timeout};

use crate::{Backend, app::Site, driver, limit, message_id, verdict::is_json};

/// Why an app did not take a message. The words go on after "the app".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostFailure {
    /// It has not got it: nobody listens there, or a proxy says that nobody does.
    Absent(String),
    /// It may have got it, and did not say that it did well.
    Failed(String),
}

impl fmt::Display for PostFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(words) | Self::Failed(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for PostFailure {}

impl Backend {
    /// Posts `body` to the app, signed as its other requests are, outside of its queue: whoever calls this bounds how
    /// much is under way and how long it may take, by dropping the future. `source` and `id` make the `webhook-id`,
    /// which is the same however often the same message is posted.
    ///
    /// # Errors
    ///
    /// Anything but a status of 200 to 299 with a body that is JSON or empty.
    pub async fn post(&self, source: &str, id: &str, body: Bytes) -> Result<Bytes, PostFailure> {
        let app = &*self.shared.app;
        let Site { options, pool } = app.site();
        let now = app.clock.now();
        let id = message_id::of_message(source, id);
        let request = driver::request(&options, &id, app.clock.unix_seconds(), body)
            .map_err(|error| PostFailure::Failed(format!("cannot be asked: {error}")))?;
        let (answer, kept) = pool.send(now, request).await.map_err(PostFailure::of)?;
        pool.keep(app.clock.now(), kept);
        judged(answer)
    }

    /// Whether somebody accepts connections where the app is, within its [`timeout`](crate::Options::timeout). Says
    /// nothing about what is accepted there.
    pub async fn is_reachable(&self) -> bool {
        let uri: Option<Uri> = self.shared.app.options().url.as_str().parse().ok();
        let place = uri.as_ref().and_then(|uri| {
            let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
            Some((uri.host()?.trim_matches(['[', ']']), uri.port_u16().unwrap_or(usual)))
        });
        let Some(place) = place else { return false };
        let connected = timeout(self.shared.app.options().timeout, TcpStream::connect(place)).await;
        matches!(connected, Ok(Ok(_)))
    }
}

fn judged(answer: HttpAnswer) -> Result<Bytes, PostFailure> {
    let status = answer.status;
    if status.is_success() {
        if !answer.body.is_empty() && !is_json(&answer.headers) {
            let words = "answered something else than application/json";
            return Err(PostFailure::Failed(words.to_owned()));
        }
        return Ok(answer.body);
    }
    let words = format!("answered with status {}", status.as_u16());
    // These three are what a proxy says when there is no app behind it.
    Err(match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            PostFailure::Absent(words)
        }
        _ => PostFailure::Failed(words),
    })
}

impl PostFailure {
    fn of(failure: HttpFailure) -> Self {
        match failure {
            HttpFailure::NotSent(words) => Self::Absent(words),
            HttpFailure::Broken(words) => Self::Failed(words),
            HttpFailure::TooBig => {
                Self::Failed(format!("answered more than {} bytes", limit::ANSWER_BYTES))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::*;

    fn answered(
        status: StatusCode,
        kind: &'static str,
        body: &'static str,
    ) -> Result<Bytes, PostFailure> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        judged(HttpAnswer { status, headers, body: Bytes::from_static(body.as_bytes()) })
    }

    #[test]
    fn a_message_is_taken_by_an_answer_that_is_json_or_nothing() {
        assert_eq!(answered(StatusCode::NO_CONTENT, "", ""), Ok(Bytes::new()));
        assert_eq!(
            answered(StatusCode::OK, "application/json", "{}"),
            Ok(Bytes::from_static(b"{}"))
        );
        let html = answered(StatusCode::OK, "text/html", "<p>hello").unwrap_err();
        assert!(matches!(html, PostFailure::Failed(_)), "{html}");
    }

    #[test]
    fn a_proxy_without_its_app_is_nobody_and_an_error_is_an_error() {
        let absent = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            matches!(answered(status, "", ""), Err(PostFailure::Absent(_)))
        };
        assert_eq!(
            [502, 503, 504, 500, 404, 302].map(absent),
            [true, true, true, false, false, false]
        );
        assert!(matches!(
            PostFailure::of(HttpFailure::NotSent("x".into())),
            PostFailure::Absent(_)
        ));
        assert!(matches!(PostFailure::of(HttpFailure::TooBig), PostFailure::Failed(_)));
    }
}
