//! The limits of one session, each with its reason.

use std::time::Duration;

pub use bowline_names::LimitKey;

use crate::wall::Handshake;

/// How long a session that the server closed waits for the poll that tells its client. As long as
/// the reference server waits.
pub(crate) const LAST_POLL: Duration = Duration::from_secs(30);

/// The same in a drain: a client that is alive polls again within a round trip or two, and the
/// server stops no later for those that are not.
pub(crate) const LAST_POLL_DRAINING: Duration = Duration::from_secs(3);

/// How long the name of a namespace may be. Where a pattern lets clients choose it, it is kept for
/// as long as anybody is in there.
pub(crate) const NAMESPACE_NAME_BYTES: usize = 1_024;

/// How many packets one polling body to this client may hold.
///
/// python-engineio refuses bodies of more than 16 packets, in its client too; nobody else counts.
pub(crate) fn packets_per_body(handshake: &Handshake) -> usize {
    let python = handshake
        .headers
        .iter()
        .any(|(name, value)| name == "user-agent" && value.to_ascii_lowercase().contains("python"));
    if python { 16 } else { usize::MAX }
}

/// What one session may hold or do. Crossing a limit closes the transport (WebSocket 1008, sizes
/// 1009; polling 400, sizes 413) and counts under the limit's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `engine.max-payload`: bytes of one WebSocket message or one polling body. Default
    /// 1,000,000, the reference server's `maxHttpBufferSize`.
    pub max_payload_bytes: usize,
    /// Packets in one polling body. Default 16,384: the official client puts all that was emitted in
    /// one tick into one body, so it stands above `events_per_second`, which is what a client that
    /// sends too much should hit.
    pub packets_per_payload: usize,
    /// Binary attachments of one Socket.IO packet. Default 10, as the reference parser since 4.2.6.
    /// A session may hold so many times `max_payload_bytes` of a packet that is not whole yet.
    pub attachments: usize,
    /// Namespaces one session may be connected to at once. Default 64.
    pub namespaces_per_session: usize,
    /// Rooms one session may be in, over all its namespaces. Default 10,000.
    pub rooms_per_session: usize,
    /// Acks the server may await from one session. Default 1,024.
    pub pending_acks_per_session: usize,
    /// Events one session may send in a second, with a burst of the same size. Default 10,000; at
    /// most 500,000, since an event's share of the second is counted in whole microseconds.
    pub events_per_second: u32,
    /// Bytes that may wait to be sent to one session. Default 4,194,304: a few of the largest
    /// messages; beyond it the receiver is slow and is cut.
    pub queued_bytes_per_session: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_payload_bytes: 1_000_000,
            packets_per_payload: 16_384,
            attachments: 10,
            namespaces_per_session: 64,
            rooms_per_session: 10_000,
            pending_acks_per_session: 1_024,
            events_per_second: 10_000,
            queued_bytes_per_session: 4 * 1024 * 1024,
        }
    }
}
