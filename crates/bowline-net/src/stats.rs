//! What the shell counts, and the whole picture for whoever asks.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bowline_names::LimitKey;
use bowline_proto::{Time, hub};

use crate::{
    hold::HeldEnd, idle_cut::idle_cut, limit, mailbox::ShardStats, process::Process,
    tls::TlsOutcome,
};

/// Why `accept` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// The process has no descriptor left.
    Emfile,
    /// The system has no descriptor left.
    Enfile,
    /// The client was gone before it was accepted.
    Aborted,
    /// Anything else.
    Other,
}

impl AcceptError {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 4] = [Self::Emfile, Self::Enfile, Self::Aborted, Self::Other];

    /// The name operators see, in `bowline_accept_errors_total{kind}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emfile => "emfile",
            Self::Enfile => "enfile",
            Self::Aborted => "aborted",
            Self::Other => "other",
        }
    }

    pub(crate) fn of(error: &io::Error) -> Self {
        match rustix::io::Errno::from_io_error(error) {
            Some(rustix::io::Errno::MFILE) => Self::Emfile,
            Some(rustix::io::Errno::NFILE) => Self::Enfile,
            Some(rustix::io::Errno::CONNABORTED) => Self::Aborted,
            _ => Self::Other,
        }
    }
}

/// How a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebSocketEnd {
    /// Its client sent a close frame.
    Client,
    /// The server closed it.
    Server,
    /// Its connection ended without a word: the client is gone, or something on the way cut it.
    Cut,
    /// The server closed it because the client broke RFC 6455 or RFC 7692.
    Broken,
}

impl WebSocketEnd {
    /// Every way, in declaration order.
    pub const ALL: [Self; 4] = [Self::Client, Self::Server, Self::Cut, Self::Broken];

    /// The name operators see, in `bowline_websocket_ends_total{by}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Cut => "cut",
            Self::Broken => "broken",
        }
    }
}

/// The counters of a process that its shards share. Rare things only: what happens for every
/// message is counted by the shard alone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    accept_errors: [AtomicU64; AcceptError::ALL.len()],
    limit_hits: [AtomicU64; LimitKey::ALL.len()],
    tls_handshakes: [AtomicU64; TlsOutcome::ALL.len()],
    proxy_header_errors: AtomicU64,
    handler_panics: AtomicU64,
    broadcasts: AtomicU64,
    /// Times that accepting rested.
    rests: Told,
    /// Clients who were refused because of a limit of the process.
    refused: [Told; LimitKey::ALL.len()],
}

/// What the log says once a minute at most.
#[derive(Debug, Default)]
struct Told {
    /// How often it happened since it was last said.
    times: AtomicU64,
    /// When it may be said again, in microseconds.
    until: AtomicU64,
}

impl Told {
    /// Counts once more. How often it was since the last time if the log shall say so now: the
    /// first at once, those after it once a minute.
    fn to_tell(&self, now: Time) -> Option<u64> {
        self.times.fetch_add(1, Relaxed);
        let until = self.until.load(Relaxed);
        let next = (now + limit::LOG_PAUSE).as_micros();
        let told = now.as_micros() < until
            || self.until.compare_exchange(until, next, Relaxed, Relaxed).is_err();
        if told { None } else { Some(self.times.swap(0, Relaxed)) }
    }
}

impl Counters {
    pub(crate) fn on_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(crate) fn on_accept_error(&self, kind: AcceptError) {
        self.accept_errors[kind as usize].fetch_add(1, Relaxed);
    }

    /// Counts a rest in accepting. How many there were if the log shall say so now.
    pub(crate) fn rests_to_tell(&self, now: Time) -> Option<u64> {
        self.rests.to_tell(now)
    }

    /// Counts a client who was refused because of a limit, and tells the log now and then.
    pub(crate) fn on_refused(&self, key: LimitKey, now: Time) {
        self.on_limit(key);
        if let Some(times) = self.refused[key as usize].to_tell(now) {
            let limit = key.path();
            tracing::warn!(limit, times, "a limit is reached: clients are refused");
        }
    }

    pub(crate) fn on_limit(&self, limit: LimitKey) {
        self.limit_hits[limit as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn on_tls(&self, outcome: TlsOutcome) {
        self.tls_handshakes[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn on_proxy_header_error(&self) {
        self.proxy_header_errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn on_handler_panic(&self) {
        self.handler_panics.fetch_add(1, Relaxed);
    }

    /// A broadcast that came from another thread: each hub was told its share alone.
    pub(crate) fn on_broadcast(&self) {
        self.broadcasts.fetch_add(1, Relaxed);
    }
}

/// What a server has counted since its start, and what it holds.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// The counters of the hubs, added up.
    pub hub: hub::Stats,
    /// Sessions that polling serves now.
    pub sessions_polling: usize,
    /// Sessions that a WebSocket serves now.
    pub sessions_websocket: usize,
    /// Sockets whose clients have lost their transport and may come back.
    pub away: usize,
    /// What the logs hold from which they recover; `oldest` is of the oldest.
    pub log: hub::LogView,
    /// HTTP requests that wait for their session now: mostly polls.
    pub requests_waiting: usize,
    /// Connections open now, HTTP and WebSocket.
    pub connections: usize,
    /// Connections open now only to be refused.
    pub connections_refused: usize,
    /// `limits.connections`: how many may be open.
    pub connections_max: usize,
    /// WebSockets that ended, by [`WebSocketEnd`].
    pub websocket_ends: [u64; WebSocketEnd::ALL.len()],
    /// The time after which WebSockets that are idle seem to be cut by something on the way, below
    /// `engine.ping-interval`: at least five of the last ten minutes' ends without a close frame,
    /// and at least half of them, came after this time, give or take 10 %.
    pub idle_cut: Option<Duration>,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Failed `accept` calls, by [`AcceptError`].
    pub accept_errors: [u64; AcceptError::ALL.len()],
    /// Limits that were hit, by [`LimitKey`]: those of the process, and those of sessions, which
    /// `hub` has too.
    pub limit_hits: [u64; LimitKey::ALL.len()],
    /// TLS handshakes, by [`TlsOutcome`].
    pub tls_handshakes: [u64; TlsOutcome::ALL.len()],
    /// Connections that were closed because they did not begin with the PROXY protocol header that
    /// was expected of them.
    pub proxy_header_errors: u64,
    /// Certificates that were taken while the server ran.
    pub certificates_replaced: u64,
    /// Certificates that stood in the files and could not be used.
    pub certificates_refused: u64,
    /// Calls of a handler that panicked.
    pub handler_panics: u64,
    /// Broadcasts that wait for somebody to receive them now.
    pub held: usize,
    /// Broadcasts that do not wait any more, by [`HeldEnd`].
    pub held_ends: [u64; HeldEnd::ALL.len()],
    /// Bytes read from WebSockets.
    pub websocket_bytes_in: u64,
    /// Bytes written to WebSockets.
    pub websocket_bytes_out: u64,
}

impl Stats {
    pub(crate) fn gather(process: &Process, shards: &[ShardStats]) -> Self {
        let counters = &process.counters;
        let (connections, connections_refused) = process.admission.counts();
        let (certificates_replaced, certificates_refused) = process.certificates.replacements();
        let mut stats = Self {
            connections,
            connections_refused,
            connections_max: process.admission.connections_max(),
            accepted: counters.accepted.load(Relaxed),
            accept_errors: counters.accept_errors.each_ref().map(|count| count.load(Relaxed)),
            limit_hits: counters.limit_hits.each_ref().map(|count| count.load(Relaxed)),
            tls_handshakes: counters.tls_handshakes.each_ref().map(|count| count.load(Relaxed)),
            proxy_header_errors: counters.proxy_header_errors.load(Relaxed),
            certificates_replaced,
            certificates_refused,
            handler_panics: counters.handler_panics.load(Relaxed),
            held: process.holds.waiting(process.clock.now()),
            held_ends: process.holds.ends(),
            ..Self::default()
        };
        for shard in shards {
            stats.sessions_polling += shard.polling;
            stats.sessions_websocket += shard.websocket;
            stats.away += shard.away;
            stats.log.records += shard.log.records;
            stats.log.bytes += shard.log.bytes;
            stats.log.oldest = stats.log.oldest.max(shard.log.oldest);
            stats.requests_waiting += shard.requests_waiting;
            stats.websocket_bytes_in += shard.bytes_in;
            stats.websocket_bytes_out += shard.bytes_out;
            add(&mut stats.hub, &shard.hub);
            each(&mut stats.websocket_ends, &shard.websocket_ends);
        }
        let cut: Vec<_> = shards.iter().flat_map(|shard| shard.cut.iter().copied()).collect();
        let ping_interval = process.ping_interval();
        stats.idle_cut = idle_cut(&cut, process.clock.now(), ping_interval);
        each(&mut stats.limit_hits, &stats.hub.limit_hits);
        stats.hub.events_out += counters.broadcasts.load(Relaxed);
        stats
    }
}

fn add(sum: &mut hub::Stats, part: &hub::Stats) {
    // Taken apart by name, so that a counter that is added to the hub cannot be forgotten here.
    let hub::Stats {
        opened_polling,
        opened_websocket,
        upgraded,
        upgrade_failures,
        closed,
        connects_accepted,
        connects_refused,
        packets_in,
        packets_out,
        events_in,
        events_out,
        slow_receivers,
        limit_hits,
        wakeups,
        recoveries,
        events_replayed,
        events_repeated,
        moves,
        restored,
        not_restored,
        measured,
    } = part;
    sum.opened_polling += opened_polling;
    sum.opened_websocket += opened_websocket;
    sum.upgraded += upgraded;
    each(&mut sum.upgrade_failures, upgrade_failures);
    each(&mut sum.closed, closed);
    sum.connects_accepted += connects_accepted;
    sum.connects_refused += connects_refused;
    sum.packets_in += packets_in;
    sum.packets_out += packets_out;
    sum.events_in += events_in;
    sum.events_out += events_out;
    sum.slow_receivers += slow_receivers;
    each(&mut sum.limit_hits, limit_hits);
    each(&mut sum.wakeups, wakeups);
    each(&mut sum.recoveries, recoveries);
    sum.events_replayed += events_replayed;
    sum.events_repeated += events_repeated;
    sum.moves += moves;
    sum.restored += restored;
    sum.not_restored += not_restored;
    for (sum, part) in sum.measured.iter_mut().zip(measured) {
        sum.merge(part);
    }
}

fn each<const N: usize>(sum: &mut [u64; N], part: &[u64; N]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_told_at_once_and_then_once_a_minute_with_how_often_it_was() {
        let told = Told::default();
        let at = |seconds: u64| Time::from_micros(1_000_000 * (1 + seconds));
        let lines: Vec<(u64, u64)> = (0..180)
            .flat_map(|second| [second; 10])
            .filter_map(|second| Some((second, told.to_tell(at(second))?)))
            .collect();
        assert_eq!(lines, [(0, 1), (60, 600), (120, 600)]);
    }
}
