//! The limits of a process, and the numbers nobody configures, each with its reason.

use std::time::Duration;

/// What a process takes on at once. The limits of one session are in [`bowline_proto::limit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `limits.connections`: open connections, HTTP and WebSocket together. Beyond it requests are
    /// answered 503. Default: RLIMIT_NOFILE − 64. So many sessions may be open, too: beyond it
    /// polling opens no more, which is answered 503.
    pub connections: Option<usize>,
    /// `limits.connections-per-address`: the share of one peer address. Beyond it requests are
    /// answered 429. Default: `connections`.
    pub connections_per_address: Option<usize>,
    /// `limits.handshakes-per-second`: sessions that may be opened in a second, with a burst of
    /// the same size; beyond it handshakes are answered 429. Default 10,000: what one core opens
    /// while it still serves those it has.
    pub handshakes_per_second: u32,
    /// `limits.handshakes-per-second-per-address`: the same for sessions of one address, an IPv6
    /// network of 64 bits counting as one; behind trusted proxies the one they name. Default:
    /// `handshakes_per_second`.
    pub handshakes_per_second_per_address: Option<u32>,
    /// `limits.request-head`: how long a client may take to send the head of a request. Default
    /// 5 s.
    pub request_head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_address: None,
            handshakes_per_second: 10_000,
            handshakes_per_second_per_address: None,
            request_head: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// How many connections may be open, whether it was said or follows from the descriptors.
    pub(crate) fn connections_max(&self) -> usize {
        self.connections.unwrap_or_else(|| {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            let descriptors =
                limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1)
        })
    }
}

/// Descriptors kept back from `limits.connections` for listeners, the admin side, health and
/// whatever the process has open besides.
pub(crate) const RESERVED_DESCRIPTORS: usize = 64;

/// Connections over the limit that are accepted at a time, only to say 503: a client that is told
/// waits, one that hangs tries again.
pub(crate) const OVERFLOW_MAX: usize = 16;

/// How long such a connection has for the head of its request, if `limits.request-head` is not
/// shorter: while it says nothing it keeps others from being told.
pub(crate) const OVERFLOW_HEAD: Duration = Duration::from_secs(1);

/// Addresses whose handshakes are counted apart at a time, for a second each; strangers beyond
/// them share one count.
pub(crate) const HANDSHAKE_ADDRESSES: usize = 16 * 1024;

/// Connections of the admin listeners at a time; they are not counted among the others.
pub(crate) const ADMIN_MAX: usize = 24;

/// Bytes of the body of an admin request.
pub(crate) const ADMIN_BODY_BYTES: usize = 1024 * 1024;

/// How long accepting rests when the process or the system has no descriptor left. Trying at once
/// again would spin: the connection stays in the queue and keeps the listener readable.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the log says at most that accepting rests, or that clients are refused.
pub(crate) const LOG_PAUSE: Duration = Duration::from_secs(60);

/// How often the files of the certificate are looked at. A new one is read within this time, and
/// twice it is what a second file may be written later than the first.
pub(crate) const CERTIFICATE_PAUSE: Duration = Duration::from_secs(2);

/// Bytes of a PEM file that are read. A long chain with its comments is a tenth of it.
pub(crate) const PEM_BYTES: u64 = 1024 * 1024;

/// Bytes of a PROXY protocol header: version 1 has 107 at most, version 2 as many as a proxy adds
/// fields, certificates of clients among them.
pub(crate) const PROXY_HEADER_BYTES: usize = 4096;

/// Connections that may wait for `accept`. The kernel cuts it to `net.core.somaxconn`.
pub(crate) const LISTEN_BACKLOG: i32 = 4096;

/// Bytes of a request head. Node's is 16 KiB; proxies that add tokens and cookies need more.
pub(crate) const REQUEST_HEAD_BYTES: usize = 32 * 1024;

/// How long an idle HTTP connection is kept for the next request: longer than the 60 s after
/// which common proxies let their idle connections go, so that the proxy closes first and no
/// request crosses a close.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Bytes of one piece of a body that is made while it is sent: some of them wait for each client that reads slowly. As
/// much as a socket takes at once.
pub(crate) const PIECE_BYTES_MAX: usize = 64 * 1024;

/// How long a request body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a response may wait for a client that reads nothing.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection that was closed from this side is kept for the rest of what its client
/// sends: closing at once would reset it, and the last words would be lost with it.
pub(crate) const LINGER: Duration = Duration::from_secs(3);

/// Bytes read and thrown away on an HTTP connection that lingers.
pub(crate) const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// The buffer that all WebSockets of a shard are read into, and with it the bytes one of them may
/// send before the others have their turn.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// Bytes gathered for all sockets of a shard before they are written in the middle of a turn: a
/// thousand clients that all say something to a thousand would else fill the memory in one turn.
pub(crate) const TURN_BYTES: usize = 8 * 1024 * 1024;

/// Readiness events taken from the kernel at once.
pub(crate) const EVENTS_PER_TURN: usize = 1024;

/// Messages from other tasks and shards that are taken in one turn.
pub(crate) const MESSAGES_PER_TURN: usize = 1024;

/// Commands from outside the shards that may wait at one shard; beyond it the caller is told.
pub(crate) const MAILBOX_MAX: usize = 16 * 1024;

/// Messages waiting at another shard beyond which this one reads nothing more from its sockets:
/// what it would read could be broadcasts for that shard.
pub(crate) const PEER_HIGH: usize = 4096;

/// How late a shard may notice a deadline and still think that it noticed in time. Beyond it the
/// process was stopped, or its thread was busy, and what clients sent meanwhile lies unread.
pub(crate) const LATE: Duration = Duration::from_millis(100);

/// How long clients are heard before deadlines count that were noticed late: at most this long, and
/// no longer than the delay was. Requests that came meanwhile have to be accepted, read and passed
/// between shards first.
pub(crate) const LATE_GRACE: Duration = Duration::from_millis(500);

/// How long deadlines are put off at most because there is something left to read: clients that
/// send without end must not keep others alive that have gone.
pub(crate) const PUT_OFF_MAX: Duration = Duration::from_secs(2);

/// Frames up to this size are copied behind one another so that one write takes them; larger ones
/// are shared and gathered.
pub(crate) const COALESCE_BYTES: usize = 4096;

/// Slices given to one gathering write; the kernel takes 1,024 at most.
pub(crate) const SLICES_MAX: usize = 64;

/// `server.drain`: how long sessions may be closed over at most. Default 30 s.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// Sessions that are closed in one second of a drain: their clients come back elsewhere at once,
/// and a server takes on some thousands a second.
pub(crate) const DRAINED_PER_SECOND: u64 = 1_000;

/// How long connections may take, after the last session of a drain is closed, to hear of it.
pub(crate) const DRAIN_TAIL: Duration = Duration::from_secs(3);

/// How long the shards of a server that saves its state may take to come to rest after all sessions are
/// closed. They have nothing to do but what is in their mailboxes.
pub(crate) const SEALED: Duration = Duration::from_secs(3);

/// Bytes of the name of a component: it is a label of metrics.
pub(crate) const COMPONENT_NAME_BYTES: usize = 100;

/// Bytes of what a component says of its progress or its failure: enough for a message, and a
/// health check that is asked every second stays small.
pub(crate) const COMPONENT_TEXT_BYTES: usize = 1_000;

/// How long a step of a probe may take: what takes longer is broken for people too.
pub(crate) const PROBE_STEP: Duration = Duration::from_secs(5);

/// How long a whole probe may take: those who ask wait themselves, often 10 s.
pub(crate) const PROBE_ALL: Duration = Duration::from_secs(10);

/// How long a probe's goodbye may take.
pub(crate) const PROBE_GOODBYE: Duration = Duration::from_millis(500);

/// How long the result of a probe is kept: whoever asks more often gets it again.
pub(crate) const PROBE_KEPT: Duration = Duration::from_secs(5);

/// Bytes of an answer to a probe: the error page of a proxy fits.
pub(crate) const PROBE_BYTES: usize = 256 * 1024;

/// WebSockets that ended without a close frame which each shard remembers, to tell a proxy's idle
/// timeout by: enough for many clients of one that cuts, little to look through.
pub(crate) const IDLE_ENDS: usize = 64;

/// How long such an end tells of the present.
pub(crate) const IDLE_ENDS_FOR: Duration = Duration::from_secs(600);

/// How many of them must be alike: fewer may be chance.
pub(crate) const IDLE_ENDS_ALIKE: usize = 5;

/// The shortest idle timeout that is believed: scripts that do one thing and end are alike too.
pub(crate) const IDLE_CUT_MIN: Duration = Duration::from_secs(1);

/// Sockets, or rooms, that are listed at a time: describing them takes a shard's time.
pub(crate) const LISTED: usize = 1_000;

/// Sockets that are disconnected in one turn of a shard when an operator wants a room emptied.
pub(crate) const DISMISSED_PER_TURN: usize = 100;

/// Rooms that sockets are put into or taken out of in one turn of a shard when somebody outside
/// wants many to be.
pub(crate) const MOVES_PER_TURN: usize = 1_000;

/// Bytes of the acks that are gathered from the receivers of one broadcast.
pub(crate) const GATHERED_BYTES: usize = 16 * 1024 * 1024;

/// Commands for sockets that are on their way from one shard to another, which wait at a shard until
/// they have arrived: that takes less than a turn of each.
pub(crate) const PARKED: usize = MAILBOX_MAX;

/// Sockets of a shard whose names are being looked up before those among them are forgotten that have
/// gone.
pub(crate) const CLAIMED: usize = 1024;

/// Broadcasts that wait for somebody to receive them.
pub(crate) const HELD: usize = 1_000;

/// Bytes of such broadcasts.
pub(crate) const HELD_BYTES: usize = 16 * 1024 * 1024;

/// Rooms that are listed of one socket.
pub(crate) const LISTED_ROOMS: usize = 100;

/// Sessions of one shard whose packets may be logged: each packet is compared with all of them.
pub(crate) const PACKET_LOGS: usize = 64;

/// How long a socket whose packets are logged is waited for when it is not on its shard any more: if it
/// is on another one, that says so at once.
pub(crate) const PACKET_LOG_MISSING: Duration = Duration::from_secs(1);

/// How long packets are logged at most: a log that was forgotten ends by itself.
pub(crate) const PACKET_LOG_MAX: Duration = Duration::from_secs(24 * 3600);

/// Characters of a packet that are logged: its event, and what it is about.
pub(crate) const PACKET_LOG_CHARS: usize = 200;

/// Paths of the engine at which sessions are still found that opened there before it changed.
pub(crate) const FORMER_PATHS: usize = 16;

/// Shards at most: a [`Sid`](bowline_proto::Sid) names its shard in one byte.
pub(crate) const SHARDS_MAX: usize = 255;
