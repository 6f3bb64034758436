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

/// Bytes of an answer over HTTP/1.1 that are read ahead of whoever reads it; a head must fit. Some providers send
/// headers of many KiB.
pub(crate) const HTTP1_BUFFER_BYTES: usize = 128 * 1024;

/// Requests that one HTTP/2 connection carries before another is opened. What servers commonly allow:
/// nginx 128, Go 250; RFC 9113 section 6.5.2 recommends no less than 100.
pub(crate) const HTTP2_STREAMS_MAX: usize = 100;

/// How often an HTTP/2 connection that carries something is asked whether its server is there. All its
/// streams depend on it, and a stream may be silent for a minute with good reason.
pub(crate) const HTTP2_PING_EVERY: Duration = Duration::from_secs(10);

/// How long that server may take to answer.
pub(crate) const HTTP2_PONG_MAX: Duration = Duration::from_secs(10);

/// Bytes that a server may send on one HTTP/2 stream before they are read. An answer's reader is held up
/// by its client, and this is what it may cost; a whole connection may have four times as much.
pub(crate) const HTTP2_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes of the head of a proxy's answer to CONNECT. Proxies add a header or two, and a page where they refuse.
pub(crate) const PROXY_HEAD_MAX_BYTES: usize = 16 * 1024;

/// How much of its body is read where a server refuses a WebSocket: enough for an error in JSON.
pub(crate) const REFUSAL_BODY_MAX_BYTES: usize = 4 * 1024;

/// How long that may take. It usually comes with the head.
pub(crate) const REFUSAL_READ_MAX: Duration = Duration::from_secs(1);

/// How often bytes are told of that make no message: levels of links count in seconds.
pub(crate) const HEARD_EVERY: Duration = Duration::from_secs(1);

/// Requests of one link at a time; the next one waits. A bot makes a few, a hundred bots behind one link still fit.
pub(crate) const LEG_CONNECTIONS_MAX: usize = 256;

/// How long a connection whose answer was read may take until it carries the next request: it has to be told only that.
/// One that takes longer is not used.
pub(crate) const LEG_READY_MAX: Duration = Duration::from_secs(1);

/// How long one address of a server may take before the next is tried beside it (RFC 8305 section 8).
pub(crate) const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// An event of so many bytes waits until all before it were taken. Those below are bounded by their number: 16 MiB in a
/// queue of 256.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;
