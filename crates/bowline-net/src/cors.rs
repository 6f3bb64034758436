//! Cross-origin headers, as the npm package `cors` writes them, which is what Engine.IO uses.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_LENGTH, ORIGIN, VARY,
    },
};

use crate::mount::{HttpBody, HttpResponse};

/// Answers a preflight, for whatever origin: one that is not listed gets no permission.
pub(crate) fn preflight(allowed: &[String], request: &HeaderMap) -> HttpResponse {
    let mut answer = Response::new(HttpBody::from(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    label(allowed, request.get(ORIGIN), headers);
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE"),
    );
    // The reference allows whatever headers are asked for.
    let names = HeaderValue::from_static("Access-Control-Request-Headers");
    let vary = match headers.get(VARY) {
        Some(_) => HeaderValue::from_static("Origin, Access-Control-Request-Headers"),
        None => names,
    };
    headers.insert(VARY, vary);
    if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    // Some browsers wait for a body without it.
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    answer
}

/// Says which origin may read an answer.
pub(crate) fn label(allowed: &[String], origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if allowed.iter().any(|one| one == "*") {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        return;
    }
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin
        && allowed.iter().any(|one| one.as_bytes() == origin.as_bytes())
    {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}
