//! Limits of the leaf's part of the AI gateway, each with its reason.

use std::time::Duration;

/// Threads that speak to providers. A stream costs a few microseconds a piece, so that two carry thousands of them, and
/// shards keep their cores.
pub(super) const THREADS: usize = 2;

/// Requests that one of these threads has before the next is given any. Few enough that reading a prompt of some MiB,
/// which takes some ms, keeps few others waiting; enough that a gateway with little to do runs on one of them.
pub(super) const CROWD: usize = 32;

/// Pieces of a stream that wait for a client that reads slowly; then the provider is read no further. Each is what one
/// read brought, or a part of it.
pub(super) const PIECES_MAX: usize = 4;

/// Bytes of an answer that is read by several, and is too long to be kept, that wait for the slowest of them; then the
/// provider is read no further.
pub(super) const WAITING_BYTES_MAX: usize = 256 << 10;

/// Bytes of an `Idempotency-Key`: SDKs send some forty.
pub(super) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Bytes of the first piece of a stream that goes out together with its head: one that surely is a single piece, since
/// nobody reads yet.
pub(super) const FIRST_BYTES_MAX: usize = 32 * 1024;

/// Requests that are remembered, with all their attempts: some hundreds of bytes each.
pub(super) const RECORDS_MAX: usize = 2_000;

/// How often connections to providers are looked at that nobody uses.
pub(super) const SWEEP: Duration = Duration::from_secs(5);

/// Bytes of a file with the key of a provider that are read; more is a mistake.
pub(super) const KEY_FILE_BYTES_MAX: u64 = 4_096;

/// Bytes of a name that a client gives to its session, to a conversation or to a request.
pub(super) const NAME_BYTES_MAX: usize = 128;

/// Answers that one Socket.IO client has under way or waits for, for each that it may have under way.
pub(super) const CHATS_PER_PERMIT: usize = 4;

/// How long a delta waits for a shard that has too much to do before its answer is given up.
pub(super) const BUSY_SHARD: Duration = Duration::from_secs(5);

/// Text of an answer that goes into a conversation and into an ack; the client has the rest as deltas. No model writes
/// as much.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;

/// When a client that there was no memory for is asked to come back.
pub(super) const MEMORY_PAUSE: Duration = Duration::from_secs(1);
