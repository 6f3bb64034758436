//! The limits of the loopback side, each with its reason. What is behind a secret is a bot of this machine; what is
//! before it may be anybody.

use std::time::Duration;

/// A file of the directory: a bundle of all roots of a system has 250 KiB.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;

/// Connections in all: 200 links whose bots have twenty each.
pub(super) const CONNECTIONS_MAX: usize = 4096;

/// Connections that have shown no secret yet. One more, and the oldest of them is closed: whoever holds many open keeps
/// nobody out, since a bot shows its secret within a moment.
pub(super) const UNPROVED_MAX: usize = 256;

/// How long a connection may take to show a secret: heads, and a handshake of TLS, among it.
pub(super) const PROVE_WITHIN: Duration = Duration::from_secs(10);

/// How often the secret of a link is read at most, when bots show others.
pub(super) const SECRET_EVERY: Duration = Duration::from_secs(1);

/// How long a bot waits for its link to be served: after a restart it is often there before, and the lease may still be
/// another process's. Clients give up opening a WebSocket after 10 s and try again, which some do not after any answer of
/// a proxy, nor after none.
pub(super) const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// Connections of the bots of one link. A bot has a pool or two of ten.
pub(super) const CONNECTIONS_OF_LINK_MAX: usize = 256;

/// WebSockets of one link; with one more the oldest is closed. A bot has one; while it is restarted, two.
pub(super) const SOCKETS_OF_LINK_MAX: usize = 16;

/// The head of a request: tokens are long, cookies longer.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Lines of a head.
pub(super) const HEADERS_MAX: usize = 128;

/// The body of a request: the files that bots send.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;

/// Bodies of requests in memory, over all links, in KiB.
pub(super) const BODIES_KIB_MAX: usize = 256 * 1024;

/// Between two pieces of a body of a request.
pub(super) const BODY_PIECE_WITHIN: Duration = Duration::from_secs(30);

/// How long a connection of a bot may carry nothing. Between a bot and this process nothing forgets connections, so
/// they are only closed to get rid of what a bot has forgotten itself; whoever closes first may close in the face of
/// a request.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(6 * 3600);

/// After a CONNECT: the first byte, then the handshake of TLS.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(30);

/// Connecting to where a tunnel goes, a proxy in between among it.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What rules get to see of an answer.
pub(super) const OBSERVED_BYTES_MAX: usize = 64 * 1024;

/// Hosts whose certificates are remembered; then they are forgotten, and made again.
pub(super) const CERTIFICATES_MAX: usize = 256;

/// A message on a bot's WebSocket: what Bowline reads of a service.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What waits to be written to a bot's WebSocket before nothing more is taken for it.
pub(super) const UNWRITTEN_BYTES_MAX: usize = 1 << 20;

/// Offers and other things that wait to be taken by a WebSocket's task.
pub(super) const TELL_MAX: usize = 256;

/// What a bot has said and the link has not taken yet. Beyond it nothing is read from the bot.
pub(super) const UNSAID_MAX: usize = 256;

/// The same in bytes.
pub(super) const UNSAID_BYTES_MAX: usize = 16 << 20;

/// Between two pings to a bot. What they find is told, and not acted upon for long: a bot that thinks does not answer.
pub(super) const PING_EVERY: Duration = Duration::from_secs(20);

/// A bot that is silent for so long has its connection closed.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(600);

/// How long a bot may take to authorise itself on its WebSocket; Webex gives it as long.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(30);

/// At the end, how long those who were just let in may take until they are answered.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long a bot may take to answer a close frame.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Confirmations that came too late and are remembered, for each link.
pub(super) const LATE_MAX: usize = 1024;

/// Rooms whose last message is remembered, for each link.
pub(super) const ROOMS_MAX: usize = 1024;

/// Before the next attempt when the system gives no socket for a connection that waits.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
