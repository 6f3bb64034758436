//! Limits of telemetry, each with its reason.

use std::time::Duration;

/// Requests that wait to be made spans of: some seconds of a busy gateway, and a few MiB. Beyond it the spans of new ones are
/// dropped and counted.
pub(super) const QUEUE_MAX: usize = 4_096;

/// Requests whose spans go together: well below the 4 MiB that collectors take at most.
pub(super) const BATCH_MAX: usize = 512;

/// How long a span waits for others to go with it (OpenTelemetry's own default).
pub(super) const BATCH_EVERY: Duration = Duration::from_secs(5);

/// How long one export may take, from the connection to the answer (OTLP's own default).
pub(super) const EXPORT: Duration = Duration::from_secs(10);

/// How often one batch is tried. With the pauses between them that is half a minute; whatever comes meanwhile waits.
pub(super) const TRIES: u32 = 5;

/// The pause after the first failure. It doubles.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause that a collector is granted that asks for one.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a connection to the collector is kept that nobody uses: more than `BATCH_EVERY`, and less than collectors do.
pub(super) const IDLE: Duration = Duration::from_secs(20);

/// What is read of a collector's answer.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long a server that stops waits until the last spans are gone.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

/// Bytes of a file, or of a variable, with headers for the collector.
pub(super) const HEADERS_BYTES_MAX: u64 = 16 * 1024;

/// Headers for the collector.
pub(super) const HEADERS_MAX: usize = 32;
