//! Where a client's session stands between its transports: a table that can be printed.

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nothing was done yet.
    New,
    /// The first GET awaits the open packet.
    OpeningPolling,
    /// The WebSocket, or the open packet on it, is awaited.
    OpeningWebSocket,
    /// Served by polling requests.
    Polling,
    /// Served by polling; a WebSocket was asked for and has not said `3probe` yet.
    Probing,
    /// The probe was answered: no request is begun any more, and the pending ones are waited for.
    Pausing,
    /// Served by a WebSocket.
    WebSocket,
    /// Closed by this end; the last POST is under way.
    Closing,
    /// Gone.
    Closed,
}

/// What moves a session from phase to phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The first GET was sent.
    Poll,
    /// The WebSocket was asked for without a session.
    Dial,
    /// The open packet arrived.
    Open,
    /// A WebSocket was asked for, to replace polling.
    Probe,
    /// The server said `3probe`.
    Pause,
    /// The pending requests are over, and `5` was sent.
    Upgrade,
    /// The WebSocket of an upgrade failed, said something else, or took too long.
    ProbeFailed,
    /// This end closes.
    Close,
    /// The goodbye was posted, the server closed, or something failed for good.
    End,
}

impl Phase {
    /// Every phase, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::New,
        Self::OpeningPolling,
        Self::OpeningWebSocket,
        Self::Polling,
        Self::Probing,
        Self::Pausing,
        Self::WebSocket,
        Self::Closing,
        Self::Closed,
    ];

    /// Returns the phase after `step`, or `None` if it cannot happen in this one.
    pub fn after(self, step: Step) -> Option<Self> {
        use Phase::{
            Closed, Closing, New, OpeningPolling, OpeningWebSocket, Pausing, Polling, Probing,
            WebSocket,
        };
        match (self, step) {
            (New, Step::Poll) => Some(OpeningPolling),
            (New, Step::Dial) => Some(OpeningWebSocket),
            (OpeningPolling, Step::Open) => Some(Polling),
            (OpeningWebSocket, Step::Open) => Some(WebSocket),
            (Polling, Step::Probe) => Some(Probing),
            (Probing, Step::Pause) => Some(Pausing),
            (Pausing, Step::Upgrade) => Some(WebSocket),
            (Probing | Pausing, Step::ProbeFailed) => Some(Polling),
            (Polling | Probing | Pausing, Step::Close) => Some(Closing),
            (New | OpeningPolling | OpeningWebSocket | WebSocket, Step::Close) => Some(Closed),
            (
                OpeningPolling | OpeningWebSocket | Polling | Probing | Pausing | WebSocket
                | Closing,
                Step::End,
            ) => Some(Closed),
            (
                New | OpeningPolling | OpeningWebSocket | Polling | Probing | Pausing | WebSocket
                | Closing | Closed,
                Step::Poll
                | Step::Dial
                | Step::Open
                | Step::Probe
                | Step::Pause
                | Step::Upgrade
                | Step::ProbeFailed
                | Step::Close
                | Step::End,
            ) => None,
        }
    }

    /// The name of the transport that carries packets now, as requests give it.
    pub fn transport(self) -> Option<&'static str> {
        match self {
            Self::Polling | Self::Probing | Self::Pausing | Self::Closing => Some("polling"),
            Self::WebSocket => Some("websocket"),
            Self::New | Self::OpeningPolling | Self::OpeningWebSocket | Self::Closed => None,
        }
    }
}

impl Step {
    /// Every step, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::Poll,
        Self::Dial,
        Self::Open,
        Self::Probe,
        Self::Pause,
        Self::Upgrade,
        Self::ProbeFailed,
        Self::Close,
        Self::End,
    ];
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_table_of_transitions() {
        let mut table = String::new();
        for phase in Phase::ALL {
            write!(table, "{phase:?}:").unwrap();
            for step in Step::ALL {
                if let Some(next) = phase.after(step) {
                    write!(table, " {step:?}→{next:?}").unwrap();
                }
            }
            table.push('\n');
        }
        assert_eq!(
            table,
            "\
New: Poll→OpeningPolling Dial→OpeningWebSocket Close→Closed
OpeningPolling: Open→Polling Close→Closed End→Closed
OpeningWebSocket: Open→WebSocket Close→Closed End→Closed
Polling: Probe→Probing Close→Closing End→Closed
Probing: Pause→Pausing ProbeFailed→Polling Close→Closing End→Closed
Pausing: Upgrade→WebSocket ProbeFailed→Polling Close→Closing End→Closed
WebSocket: Close→Closed End→Closed
Closing: End→Closed
Closed:
"
        );
    }
}
