//! What a hub counts.

use std::time::Duration;

use crate::{
    Time, Timer,
    limit::LimitKey,
    session::{NEVER, Session},
    wall::{DisconnectReason, RecoveryOutcome},
};

/// Counters of one hub since its start, and how much it holds. Plain numbers: the shell reads
/// them when somebody asks for metrics.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Sessions that were opened by polling.
    pub opened_polling: u64,
    /// Sessions that were opened by WebSocket.
    pub opened_websocket: u64,
    /// Sessions that moved from polling to WebSocket.
    pub upgraded: u64,
    /// Upgrades that were begun and not finished, by [`UpgradeFailure`].
    pub upgrade_failures: [u64; UpgradeFailure::ALL.len()],
    /// Sessions that ended, by [`DisconnectReason`].
    pub closed: [u64; DisconnectReason::ALL.len()],
    /// Sockets that joined a namespace.
    pub connects_accepted: u64,
    /// CONNECT packets that were answered with CONNECT_ERROR.
    pub connects_refused: u64,
    /// Engine.IO packets from clients.
    pub packets_in: u64,
    /// Engine.IO packets to clients, heartbeats included.
    pub packets_out: u64,
    /// Events and acks from clients.
    pub events_in: u64,
    /// Events that were not delivered, since the socket had sent one of the same id.
    pub events_repeated: u64,
    /// Events that handlers emitted; a broadcast counts once.
    pub events_out: u64,
    /// Receivers that were cut because they could not take what was sent.
    pub slow_receivers: u64,
    /// Limits that were crossed, by [`LimitKey`]; those of the process stay at zero.
    pub limit_hits: [u64; LimitKey::ALL.len()],
    /// Wake-ups that found something to do, by [`Timer`].
    pub wakeups: [u64; Timer::ALL.len()],
    /// Clients that came back, by [`RecoveryOutcome`].
    pub recoveries: [u64; RecoveryOutcome::ALL.len()],
    /// Events that were sent again, or late, to clients that came back.
    pub events_replayed: u64,
    /// Sockets that went to another shard, where their clients came back.
    pub moves: u64,
    /// Sockets that an earlier process had saved and that are kept here.
    pub restored: u64,
    /// Sockets that it had saved and that could not be: their namespace is not served any more, or the
    /// log is another.
    pub not_restored: u64,
    /// Times that were measured, by [`Measured`].
    pub measured: [Histogram; Measured::ALL.len()],
}

/// A span of time that is measured again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measured {
    /// From the opening of a session to its end. A session that polls and is closed ends when that
    /// is decided, not when its client has heard of it.
    Session,
    /// From the opening of a session to the answer that lets it into its first namespace.
    Handshake,
    /// From the time a ping was due to the time it was sent: how late the shard was.
    PingLateness,
    /// From a ping to its pong (EIO 4), the shard's own delay included.
    Pong,
}

/// How many bounds each histogram has.
const BOUNDS: usize = 14;

impl Measured {
    /// Every span, in declaration order.
    pub const ALL: [Self; 4] = [Self::Session, Self::Handshake, Self::PingLateness, Self::Pong];

    /// The upper bounds of the buckets, in milliseconds; one more bucket has none.
    fn bounds_ms(self) -> &'static [u64; BOUNDS] {
        const MINUTE: u64 = 60_000;
        const HOUR: u64 = 60 * MINUTE;
        match self {
            Self::Session => &[
                1_000,
                5_000,
                15_000,
                30_000,
                MINUTE,
                2 * MINUTE,
                5 * MINUTE,
                10 * MINUTE,
                30 * MINUTE,
                HOUR,
                3 * HOUR,
                6 * HOUR,
                12 * HOUR,
                24 * HOUR,
            ],
            Self::Handshake | Self::PingLateness | Self::Pong => {
                &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000]
            }
        }
    }
}

/// How often a span of time was how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS + 1],
    sum_micros: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, what: Measured, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = what.bounds_ms().iter().position(|bound| micros <= bound * 1_000);
        self.counts[bucket.unwrap_or(BOUNDS)] += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    /// Adds what another one of the same span has counted.
    pub fn merge(&mut self, other: &Self) {
        for (sum, part) in self.counts.iter_mut().zip(other.counts) {
            *sum += part;
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// How often it was measured.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All that was measured, added up.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// Upper bounds, and how often the span was no longer than that: as `_bucket` is exported,
    /// `le="+Inf"` aside, which is [`count`](Self::count).
    pub fn buckets(&self, what: Measured) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = what.bounds_ms().iter().map(|ms| Duration::from_millis(*ms));
        bounds.zip(self.counts).scan(0, |below, (bound, count)| {
            *below += count;
            Some((bound, *below))
        })
    }
}

/// Why an upgrade was begun and not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpgradeFailure {
    /// The WebSocket went before `5`: often a page that was closed just then.
    Lost,
    /// The WebSocket said something else than `2probe` and `5`.
    Protocol,
    /// `engine.upgrade-timeout` passed.
    TimedOut,
    /// The session ended first.
    SessionEnded,
    /// There was no such session, or it was upgrading or upgraded already.
    NotUpgradable,
}

impl UpgradeFailure {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 5] =
        [Self::Lost, Self::Protocol, Self::TimedOut, Self::SessionEnded, Self::NotUpgradable];

    /// The name operators see, in `bowline_upgrade_failures_total{reason}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Protocol => "protocol",
            Self::TimedOut => "timed-out",
            Self::SessionEnded => "session-ended",
            Self::NotUpgradable => "not-upgradable",
        }
    }
}

impl Stats {
    pub(crate) fn on_limit(&mut self, key: LimitKey) {
        self.limit_hits[key as usize] += 1;
    }

    /// A client of a session is let in somewhere.
    pub(super) fn on_connected(&mut self, session: &Session, now: Time) {
        if !session.own {
            self.connects_accepted += 1;
            if session.connect_by != NEVER {
                self.measure(Measured::Handshake, now - session.opened);
            }
        }
    }

    pub(crate) fn on_closed(&mut self, reason: DisconnectReason) {
        self.closed[reason as usize] += 1;
    }

    pub(crate) fn on_upgrade_failed(&mut self, why: UpgradeFailure) {
        self.upgrade_failures[why as usize] += 1;
    }

    pub(crate) fn measure(&mut self, what: Measured, took: Duration) {
        self.measured[what as usize].add(what, took);
    }

    pub(crate) fn on_wakeup(&mut self, timer: Timer) {
        self.wakeups[timer as usize] += 1;
    }
}
