//! Numbers that bound a measurement, each with its reason.

use std::time::Duration;

/// Bytes read at once: a burst of broadcasts to one receiver fits many times over.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Events taken from epoll at once: a broadcast to a thousand is one turn.
pub(crate) const EVENTS_MAX: usize = 1024;

/// How long nothing may arrive before a measurement has failed.
pub(crate) const STALL: Duration = Duration::from_secs(30);

/// Bytes of an HTTP response's head. Servers that send more have gone astray.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers of an HTTP response.
pub(crate) const HEADERS_MAX: usize = 64;

/// Descriptors beside those of sessions: the standard three, epoll, a timer, `/proc`.
pub(crate) const SPARE_DESCRIPTORS: u64 = 32;

/// Events of one session that one write carries.
pub(crate) const EVENTS_PER_WRITE: usize = 64;

/// The longest delay that a histogram tells apart from longer ones.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(120);

/// How long a server of its own may take to listen, and to end.
pub(crate) const OWN_SERVER: Duration = Duration::from_secs(20);
