//! How the API says no: always the same JSON, with a code from the table.

use std::{fmt, time::Duration};

use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    response::{IntoResponse, Response},
};
use bowline_names::ErrorCode;
use http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use utoipa::ToSchema;

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    /// What happened, in this case.
    pub(crate) message: String,
    /// When it is worth another try.
    pub(crate) retry_after: Option<Duration>,
}

/// The body of every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorWords,
}

/// What went wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorWords {
    /// A word that scripts can match; all of them stand in docs/names.md.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), retry_after: None }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::RequestInvalid => StatusCode::BAD_REQUEST,
            ErrorCode::AdminTokenMissing | ErrorCode::AdminTokenWrong => StatusCode::UNAUTHORIZED,
            ErrorCode::HostRefused | ErrorCode::OriginRefused => StatusCode::FORBIDDEN,
            ErrorCode::NotFound
            | ErrorCode::SocketUnknown
            | ErrorCode::AiRequestUnknown
            | ErrorCode::ServiceUnknown
            | ErrorCode::LinkUnknown
            | ErrorCode::LinkMessageUnknown => StatusCode::NOT_FOUND,
            ErrorCode::MethodRefused | ErrorCode::ControlSocketOnly => {
                StatusCode::METHOD_NOT_ALLOWED
            }
            ErrorCode::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorCode::EmitIdReused | ErrorCode::ServiceNotReady | ErrorCode::LinkKept => {
                StatusCode::CONFLICT
            }
            ErrorCode::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::LinkUnanswered => StatusCode::GATEWAY_TIMEOUT,
            code if code.retry() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorWords {
                code: self.code.name().to_owned(),
                message: self.message.clone(),
                remedy: self.code.remedy().to_owned(),
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        if response_asks_for_token(self.code) {
            // Basic too, so that a browser asks for it and shows the page.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"bowline\""));
        }
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, after.as_secs().max(1).into());
        }
        response.extensions_mut().insert(self.code);
        response
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection {
            JsonRejection::MissingJsonContentType(_) => ErrorCode::NotJson,
            _ => ErrorCode::RequestInvalid,
        };
        Self::new(code, plain(&rejection.body_text()))
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorCode::RequestInvalid, plain(&rejection.body_text()))
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ErrorCode::RequestInvalid, plain(&rejection.body_text()))
    }
}

/// Leaves out what axum says in front of every mistake of a caller.
fn plain(text: &str) -> &str {
    match text.split_once(": ") {
        Some((before, words)) if before.starts_with("Failed to") => words,
        _ => text,
    }
}

fn response_asks_for_token(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::AdminTokenMissing | ErrorCode::AdminTokenWrong)
}
