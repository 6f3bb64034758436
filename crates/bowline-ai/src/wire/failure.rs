//! What a client is told when there is no answer.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::{BadRequest, Dialect, Fault, FaultKind, Surface, json::write};

/// What a client is told when there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The status, as OpenAI has it. What goes to the client is [`status_for`](Self::status_for).
    pub status: StatusCode,
    /// OpenAI's `type`, as `invalid_request_error`. Anthropic's follows from the status.
    pub kind: &'static str,
    /// OpenAI's `code`, as `context_length_exceeded`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// The provider's own code where it differs.
    pub upstream_code: Option<String>,
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// `retry-after`, which the caller sets.
    pub retry_after: Option<Duration>,
    /// What was tried, first to last.
    pub attempts: Vec<Tried>,
}

/// One attempt, as a client is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The provider's model.
    pub model: String,
    /// How it ended: [`Outcome::name`](super::Outcome::name).
    pub outcome: &'static str,
    /// How long it took.
    pub took: Duration,
}

impl Failure {
    /// A failure. OpenAI's `type` follows from the status.
    pub fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        let kind = match status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            408 | 504 => "timeout_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        Self {
            status,
            kind,
            code: code.into(),
            message: message.into(),
            param: None,
            upstream_code: None,
            request_id: None,
            retry_after: None,
            attempts: Vec::new(),
        }
    }

    /// The status for clients of `surface`: Anthropic has 529 for an overload, which its SDKs know, and 503 for
    /// nothing.
    pub fn status_for(&self, surface: Surface) -> StatusCode {
        match surface.dialect() {
            Dialect::Anthropic if self.status == StatusCode::SERVICE_UNAVAILABLE => overloaded(),
            Dialect::OpenAi | Dialect::Anthropic => self.status,
        }
    }

    /// Anthropic's `type`.
    fn anthropic_kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            408 | 504 => "timeout_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        }
    }
}

/// What the last fault of a chain means for the client. The gateway's own troubles with a provider (key, balance) are
/// not the client's, so they are 502 and never 401 or 402.
impl From<&Fault> for Failure {
    fn from(fault: &Fault) -> Self {
        let (status, code) = match fault.kind {
            FaultKind::Timeout(_) => (504, "upstream_timeout"),
            FaultKind::Slow => (504, "upstream_slow"),
            FaultKind::RateLimited => (429, "rate_limit_exceeded"),
            FaultKind::Overloaded => (503, "upstream_overloaded"),
            FaultKind::ServerError => (502, "upstream_error"),
            FaultKind::Auth => (502, "upstream_auth"),
            FaultKind::Billing => (502, "upstream_billing"),
            FaultKind::Refused => (400, "content_filter"),
            FaultKind::TooLong => (400, "context_length_exceeded"),
            FaultKind::BadRequest => (client_status(fault.status), "invalid_request"),
            FaultKind::NotFound => (404, "model_not_found"),
            FaultKind::Malformed => (502, "upstream_malformed"),
            FaultKind::Truncated => (502, "upstream_truncated"),
            FaultKind::Broken => (502, "upstream_broken"),
            FaultKind::NoMemory => (503, "overloaded"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Self {
            param: fault.param.clone(),
            upstream_code: fault.code.clone().filter(|own| own != code),
            retry_after: fault.after,
            ..Self::new(status, code, fault.kind.words_for_clients().unwrap_or(&fault.words))
        }
    }
}

impl From<BadRequest> for Failure {
    fn from(wrong: BadRequest) -> Self {
        Self {
            param: wrong.param,
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", wrong.words)
        }
    }
}

/// The body of an answer that is a failure, as the SDKs of `surface` understand it. Send it with
/// [`Failure::status_for`] and `application/json`.
pub fn error_body(surface: Surface, failure: &Failure) -> Bytes {
    let mut out = Vec::with_capacity(256);
    write_error(surface, failure, &mut out);
    out.into()
}

/// An event that ends a stream, on which the SDKs of `surface` raise an error: `data: {"error":…}` for OpenAI's,
/// `event: error` for Anthropic's. Nothing may follow, not even `[DONE]`.
pub fn error_frame(surface: Surface, failure: &Failure) -> Bytes {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(match surface.dialect() {
        Dialect::OpenAi => b"data: ".as_slice(),
        Dialect::Anthropic => b"event: error\ndata: ",
    });
    write_error(surface, failure, &mut out);
    out.extend_from_slice(b"\n\n");
    out.into()
}

fn write_error(surface: Surface, failure: &Failure, out: &mut Vec<u8>) {
    let attempts = failure.attempts.iter().map(AttemptJson::from).collect();
    let request_id = failure.request_id.as_deref();
    let upstream_code = failure.upstream_code.as_deref();
    let message = failure.message.as_str();
    match surface.dialect() {
        Dialect::OpenAi => {
            let error = OpenAiError {
                message,
                kind: failure.kind,
                param: failure.param.as_deref(),
                code: &failure.code,
                upstream_code,
                request_id,
                attempts,
            };
            write(out, &OpenAiBody { error });
        }
        Dialect::Anthropic => {
            let error = AnthropicError {
                kind: failure.anthropic_kind(),
                message,
                code: &failure.code,
                upstream_code,
                attempts,
            };
            write(out, &AnthropicBody { kind: "error", error, request_id });
        }
    }
}

/// Anthropic's status for an overload, which `http` has no name for.
fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// Of the provider's statuses, those that mean the request itself are told as they are.
fn client_status(status: Option<StatusCode>) -> u16 {
    let own =
        status.map(|status| status.as_u16()).filter(|status| matches!(status, 413 | 415 | 422));
    own.unwrap_or(400)
}

#[derive(Serialize)]
struct OpenAiBody<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptJson<'a>>,
}

#[derive(Serialize)]
struct AnthropicBody<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    error: AnthropicError<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    message: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptJson<'a>>,
}

#[derive(Serialize)]
struct AttemptJson<'a> {
    provider: &'a str,
    model: &'a str,
    outcome: &'a str,
    ms: u128,
}

impl<'a> From<&'a Tried> for AttemptJson<'a> {
    fn from(tried: &'a Tried) -> Self {
        Self {
            provider: &tried.provider,
            model: &tried.model,
            outcome: tried.outcome,
            ms: tried.took.as_millis(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exhausted() -> Failure {
        let mut fault = Fault::new(FaultKind::Overloaded, "the engine is \"busy\"");
        fault.code = Some("1305".into());
        let tried = |provider: &str, outcome, ms| Tried {
            provider: provider.into(),
            model: "m".into(),
            outcome,
            took: Duration::from_millis(ms),
        };
        Failure {
            request_id: Some("r1".into()),
            attempts: vec![tried("kimi", "timeout", 1500), tried("glm", "overloaded", 12)],
            ..Failure::from(&fault)
        }
    }

    #[test]
    fn openai_clients_get_openais_error() {
        let expected = concat!(
            r#"{"error":{"message":"the engine is \"busy\"","type":"server_error","param":null,"#,
            r#""code":"upstream_overloaded","upstream_code":"1305","request_id":"r1","attempts":["#,
            r#"{"provider":"kimi","model":"m","outcome":"timeout","ms":1500},"#,
            r#"{"provider":"glm","model":"m","outcome":"overloaded","ms":12}]}}"#
        );
        assert_eq!(error_body(Surface::ChatCompletions, &exhausted()), expected);
        assert_eq!(
            error_frame(Surface::ChatCompletions, &exhausted()),
            format!("data: {expected}\n\n")
        );
        assert_eq!(exhausted().status_for(Surface::Embeddings), 503);
    }

    #[test]
    fn anthropic_clients_get_anthropics_error() {
        let failure = Failure { attempts: Vec::new(), ..exhausted() };
        let expected = concat!(
            r#"{"type":"error","error":{"type":"overloaded_error","message":"the engine is \"busy\"","#,
            r#""code":"upstream_overloaded","upstream_code":"1305"},"request_id":"r1"}"#
        );
        assert_eq!(error_body(Surface::Messages, &failure), expected);
        assert_eq!(
            error_frame(Surface::Messages, &failure),
            format!("event: error\ndata: {expected}\n\n")
        );
        assert_eq!(failure.status_for(Surface::Messages), 529);
    }

    #[test]
    fn what_the_gateway_owes_a_provider_is_not_the_clients_401() {
        for kind in [FaultKind::Auth, FaultKind::Billing] {
            assert_eq!(Failure::from(&Fault::new(kind, "no")).status, 502);
        }
    }

    #[test]
    fn what_a_provider_says_of_the_gateways_account_is_not_told() {
        let words = "Your account org-446a <ak-f817> is suspended";
        for kind in [FaultKind::Auth, FaultKind::Billing, FaultKind::RateLimited] {
            let told = Failure::from(&Fault::new(kind, words)).message;
            assert!(!told.is_empty() && !told.contains("446a"), "{told}");
        }
        assert_eq!(Failure::from(&Fault::new(FaultKind::BadRequest, words)).message, words);
    }

    #[test]
    fn a_wrong_field_is_named() {
        let wrong = BadRequest { param: Some("model".into()), words: "it is missing".into() };
        assert_eq!(
            error_body(Surface::ChatCompletions, &wrong.into()),
            r#"{"error":{"message":"it is missing","type":"invalid_request_error","param":"model","code":"invalid_request"}}"#
        );
    }
}
