//! The numbers of authentication, each with its reason.

use std::time::Duration;

/// Bytes of a token: one with as much data as may be fits, whose base64 is a third longer. Checking
/// one costs time for each byte.
pub(super) const TOKEN_BYTES: usize = 32 * 1024;

/// Bytes of JSON that a token may give a client as its data.
pub(super) const DATA_BYTES: usize = 16 * 1024;

/// Bytes of a file with secrets or keys that are read; more is a mistake.
pub(super) const FILE_BYTES: u64 = 64 * 1024;

/// Bytes that a secret should have at least: as many as the hash (RFC 7518 section 3.2), since
/// whoever has one token can guess at leisure.
pub(super) const SECRET_BYTES: usize = 32;

/// Bytes of a key set: a hundred keys with their certificates.
pub(super) const SET_BYTES: usize = 1024 * 1024;

/// Keys of a set that are kept: a token that names none is tried with all of them.
pub(super) const SET_KEYS: usize = 100;

/// How often a key set is fetched: what was taken out of it counts no longer than this.
pub(super) const FRESH: Duration = Duration::from_secs(600);

/// How long a key set is used that cannot be fetched again: those who have a good token get in
/// while the one who issued it has a bad day.
pub(super) const STALE: Duration = Duration::from_secs(24 * 3600);

/// How often a token with an unknown key can have the set fetched: whoever likes can make one up.
pub(super) const UNKNOWN_PAUSE: Duration = Duration::from_secs(30);

/// The pause after a fetch that failed; each further one is twice as long.
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);

/// No pause is longer.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long a fetch may take. Clients may be waiting for it.
pub(super) const FETCH: Duration = Duration::from_secs(5);

/// Clients that may wait for a key set at a time, over all namespaces.
pub(super) const WAITING: usize = 1_024;
