//! What only the master does: on its control socket it answers these itself.

use bowline_names::ErrorCode;

use super::error::{ApiError, ErrorBody};

/// Reads the configuration file again and applies what can change without dropping anyone.
///
/// Only on the control socket: it is the master that reads the file.
#[utoipa::path(post, path = "/api/v1/reload", tag = "act", responses(
    (status = 405, description = "Everywhere but on the control socket", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
))]
pub(super) async fn reload() -> ApiError {
    ApiError::new(ErrorCode::ControlSocketOnly, "the master reads the configuration")
}

/// Stops the server as SIGTERM does: sessions are drained.
///
/// Only on the control socket.
#[utoipa::path(post, path = "/api/v1/stop", tag = "act", responses(
    (status = 405, description = "Everywhere but on the control socket", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
))]
pub(super) async fn stop() -> ApiError {
    ApiError::new(ErrorCode::ControlSocketOnly, "the master stops the server")
}
