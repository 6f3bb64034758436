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

/// The longest delay that a histogram tells apart from longer ones: answers of models take minutes.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(3600);

/// How long a server of its own may take to listen, and to end.
pub(crate) const OWN_SERVER: Duration = Duration::from_secs(20);

/// Requests to a model at once: each has a connection, and a histogram is read by people.
pub(crate) const CONCURRENCY_MAX: usize = 10_000;

/// Names of one sort that are told apart: providers, outcomes, errors. A server may make up as many as it likes, and
/// each has a histogram.
pub(crate) const NAMES_MAX: usize = 24;

/// Characters of such a name.
pub(crate) const NAME_CHARS_MAX: usize = 60;

/// Bytes of a line of a stream that are looked at: chunks with content are shorter by far.
pub(crate) const LINE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of an error's body that are looked at for its code.
pub(crate) const ERROR_BYTES_MAX: usize = 64 * 1024;

/// How long all connections may take to be there before anything is measured.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// How often is looked for requests that take too long, at the memory of the server and at the clock of a bar: often
/// enough to see a peak, too seldom to show in a measurement.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// How often samples of a soak may be taken: one reads `/proc` and a page of metrics.
pub(crate) const SAMPLE_EVERY_MIN: Duration = Duration::from_millis(100);

/// Samples of a soak, all of which are in memory: four months of one each ten seconds, 200 MB.
pub(crate) const SAMPLES_MAX: u32 = 1_000_000;

/// Samples that wait for a server that is slow to tell of itself; those beyond are missed.
pub(crate) const SAMPLES_WAITING_MAX: usize = 4;

/// How long the admin listener may take for each step of an answer.
pub(crate) const ADMIN: Duration = Duration::from_secs(5);

/// Bytes of a page of metrics.
pub(crate) const PAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long a server may take to tidy up behind the last request of a soak.
pub(crate) const SETTLE: Duration = Duration::from_secs(3);

/// How long a soak must be for its slopes to say anything: in less, what is set up late looks like growth.
pub(crate) const JUDGED_AFTER: Duration = Duration::from_secs(20 * 60);

/// What memory may grow by in a whole soak and be called flat: pages that an allocator keeps come and go.
pub(crate) const RSS_NOISE_BYTES: f64 = 2e6;

/// The same for sockets and descriptors.
pub(crate) const DESCRIPTOR_NOISE: f64 = 8.0;

/// Points of a line in a picture: more than it has pixels are not seen.
pub(crate) const POINTS_MAX: usize = 1200;
