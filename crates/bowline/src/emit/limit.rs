//! The numbers of emits from outside, each with its reason.

use std::time::Duration;

/// How long the answer to an emit with an id is remembered: longer than the retries of any queue
/// that delivers webhooks or jobs within minutes.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// How many such answers are remembered; beyond them the oldest are forgotten.
pub(crate) const REMEMBERED_MAX: usize = 10_000;

/// The bytes of all of them. Most have a hundred; those with acks can be large.
pub(crate) const REMEMBERED_BYTES: usize = 16 << 20;

/// The longest id: any UUID, hash or key of a row fits.
pub(crate) const ID_BYTES_MAX: usize = 256;

/// Rooms that one request may name in one place: each is looked up on each shard.
pub(crate) const ROOMS_MAX: usize = 1_000;

/// The longest name of a room, as a client's packets may hold it too.
pub(crate) const NAME_BYTES_MAX: usize = 1_024;

/// How long an event that nobody receives may be held: it is kept in memory only.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long acks are awaited if nothing else is said.
pub(crate) const ACK: Duration = Duration::from_secs(5);

/// How long acks may be awaited: who asked has a connection open meanwhile, and many proxies and
/// libraries cut those after a minute.
pub(crate) const ACK_MAX: Duration = Duration::from_secs(50);

/// How many acks are gathered. Those beyond count as missing.
pub(crate) const ACKS_MAX: usize = 10_000;

/// How long an emit may take in all: until its acks are due, and a shard that is slow meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
