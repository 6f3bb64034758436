//! What operators did and what they were refused, in the log.

use std::net::SocketAddr;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use bowline_names::ErrorCode;
use http::{Method, StatusCode};

use crate::log::AUDIT;

/// What programs do all the time, and not operators once in a while: there may be thousands a second.
const TRAFFIC: [&str; 3] = ["/api/v1/emit", "/api/v1/join", "/api/v1/leave"];

/// Who asks. A request without one came over the control socket, whose file says who may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// Where the request came from: the admin listener.
    pub(crate) peer: SocketAddr,
}

/// What was done, in the answer of a request that changed something.
#[derive(Debug, Clone)]
pub(crate) struct Deed(pub(crate) String);

impl IntoResponseParts for Deed {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

/// Writes a line for every request that may have changed something.
pub(crate) async fn record(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    if matches!(method, Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let caller = request.extensions().get::<Caller>().copied();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await.into_response();
    let status = response.status().as_u16();
    let code = response.extensions().get::<ErrorCode>().map(|code| code.name());
    let deed = response.extensions().get::<Deed>().map(|deed| deed.0.as_str());
    let from = caller.map_or("control socket".to_owned(), |caller| caller.peer.to_string());
    if path.starts_with("/internal/") && response.status().is_success() {
        // The master alone speaks here, and says what it does itself.
        return response;
    }
    if !TRAFFIC.contains(&path.as_str()) {
        tracing::info!(target: AUDIT, from, %method, path, status, code, did = deed, "request");
    } else if response.status().is_success() {
        tracing::debug!(from, %method, path, status, "request");
    } else {
        // Without its port, so that lines that say the same are folded.
        let from =
            caller.map_or("control socket".to_owned(), |caller| caller.peer.ip().to_string());
        tracing::warn!(target: AUDIT, from, %method, path, status, code, "refused");
    }
    response
}

/// Writes a line for a request that did not get through the door. Lines that repeat themselves are
/// folded.
pub(crate) fn refused(
    peer: SocketAddr,
    method: &Method,
    path: &str,
    status: StatusCode,
    code: ErrorCode,
) {
    let (from, status, code) = (peer.ip(), status.as_u16(), code.name());
    tracing::warn!(target: AUDIT, %from, %method, path, status, code, "refused");
}
