//! The numbers, and why they are what they are.

use std::time::Duration;

/// The most bytes of an answer that are read: four events of the largest default size.
pub(crate) const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// How long a connection to an app may be idle and still be used again: less than what common
/// servers allow (gunicorn 2 s, Node and uvicorn 5 s), since a request that meets the goodbye of its
/// app is lost. A new one costs less than most requests.
pub(crate) const IDLE: Duration = Duration::from_millis(1_500);

/// How often connections are looked at that nobody uses.
pub(crate) const SWEEP: Duration = Duration::from_secs(10);

/// The first wait before an app is tried again that did not take a request.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest: short enough to notice within a second that an app is back.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(1);

/// The default of [`Options::timeout`](crate::Options::timeout).
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// The default of [`Options::max_concurrent`](crate::Options::max_concurrent): more than the
/// workers that apps usually have.
pub(crate) const CONCURRENT: usize = 64;

/// The default of [`Options::queue`](crate::Options::queue): with the default timeout, what an app
/// gets done that handles 2,000 requests in a second.
pub(crate) const QUEUE: usize = 10_000;

/// The most bytes of events that wait.
pub(crate) const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// The most requests of one session that wait, so that one client cannot take all places.
pub(crate) const SESSION_QUEUE: usize = 1_000;
