//! Every timer of a keeper.

/// Why a keeper wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When the next WebSocket ping is sent, or its pong is overdue.
    Ping,
    /// The same for the ping of the service's own protocol.
    Ack,
    /// When the next routing round trip is begun, or the one under way is lost.
    Probe,
    /// When the service is asked whether anything is missing.
    Look,
    /// When the pause before an attempt is over.
    Pause,
    /// When the attempt may be made that the budget was asked for.
    Slot,
    /// When opening has taken too long.
    Open,
    /// When a connection that could not be probed is decided upon nevertheless.
    Prove,
    /// When the old connection is closed.
    Overlap,
    /// When the connection is as old as it may become.
    Renew,
    /// When the connection has been live for so long that the backoff begins anew.
    Settle,
}

impl Timer {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Ping,
        Self::Ack,
        Self::Probe,
        Self::Look,
        Self::Pause,
        Self::Slot,
        Self::Open,
        Self::Prove,
        Self::Overlap,
        Self::Renew,
        Self::Settle,
    ];

    /// The word of logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Ack => "ack",
            Self::Probe => "probe",
            Self::Look => "look",
            Self::Pause => "pause",
            Self::Slot => "slot",
            Self::Open => "open",
            Self::Prove => "prove",
            Self::Overlap => "overlap",
            Self::Renew => "renew",
            Self::Settle => "settle",
        }
    }
}
