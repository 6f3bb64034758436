//! Every bound of a connection, with its reason.

use std::time::Duration;

/// Commands that wait for the connection. Callers wait when it is full; a burst fits.
pub(crate) const COMMANDS_MAX: usize = 256;

/// Events that wait for the application. When they are not taken, nothing is read any more, and
/// the server feels it.
pub(crate) const EVENTS_MAX: usize = 256;

/// Bytes that wait to be sent before no command is taken any more. Below the queue at which the
/// client refuses events (4 MiB), so that callers wait instead of failing.
pub(crate) const UNSENT_MAX_BYTES: usize = 1024 * 1024;

/// Bytes read from a WebSocket at once.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// Capacity of a write buffer that is kept after a burst.
pub(crate) const KEPT_WRITE_BYTES: usize = 64 * 1024;

/// How long an HTTP connection may be idle and still be used again. Node closes one after 5 s; a
/// request that meets the close is lost, so this is well before.
pub(crate) const HTTP_IDLE_MAX: Duration = Duration::from_secs(3);

/// How long a WebSocket that is closed may take to send what is queued and to be closed by the
/// server too.
pub(crate) const WEBSOCKET_CLOSE_MAX: Duration = Duration::from_secs(2);
