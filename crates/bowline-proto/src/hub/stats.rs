//! What a hub counts.

use crate::{Timer, limit::LimitKey, wall::DisconnectReason};

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
    /// Events that handlers emitted; a broadcast counts once.
    pub events_out: u64,
    /// Receivers that were cut because they could not take what was sent.
    pub slow_receivers: u64,
    /// Limits that were crossed, by [`LimitKey`]; those of the process stay at zero.
    pub limit_hits: [u64; LimitKey::ALL.len()],
    /// Wake-ups that found something to do, by [`Timer`].
    pub wakeups: [u64; Timer::ALL.len()],
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

    pub(crate) fn on_closed(&mut self, reason: DisconnectReason) {
        self.closed[reason as usize] += 1;
    }

    pub(crate) fn on_upgrade_failed(&mut self, why: UpgradeFailure) {
        self.upgrade_failures[why as usize] += 1;
    }

    pub(crate) fn on_wakeup(&mut self, timer: Timer) {
        self.wakeups[timer as usize] += 1;
    }
}
