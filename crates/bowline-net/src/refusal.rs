//! Requests of clients that are refused: why, and how often.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bowline_proto::engineio::RequestError;

use crate::handler::Handle;

/// Why a request to the engine path was refused. Limits that were hit are counted apart, by
/// [`LimitKey`](crate::LimitKey).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It asks for a transport that is not offered, or for none.
    UnknownTransport,
    /// It names a session that there is not: after a restart those of before, later most often
    /// somebody who guesses, or a proxy that leads the clients of several servers back and forth.
    UnknownSession,
    /// It opens a session by another method than GET.
    Method,
    /// It contradicts itself or the session it names.
    BadRequest,
    /// Its origin may not open sessions here (`engine.cors-allowed-origins`).
    Origin,
    /// It speaks a revision that is switched off (`engine.allow-eio3`).
    Revision,
    /// It asks for a WebSocket and has lost the headers for it: something in front of the server
    /// strips `Upgrade`.
    UpgradeStripped,
    /// Its WebSocket handshake is not one.
    Handshake,
    /// Its body did not arrive in time.
    SlowBody,
    /// It ended its session, most often because another poll or post was under way, or its session
    /// ended while it waited.
    SessionEnded,
}

impl Refusal {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 10] = [
        Self::UnknownTransport,
        Self::UnknownSession,
        Self::Method,
        Self::BadRequest,
        Self::Origin,
        Self::Revision,
        Self::UpgradeStripped,
        Self::Handshake,
        Self::SlowBody,
        Self::SessionEnded,
    ];

    /// The name operators see, in `bowline_requests_refused_total{reason}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownTransport => "unknown-transport",
            Self::UnknownSession => "unknown-session",
            Self::Method => "method",
            Self::BadRequest => "bad-request",
            Self::Origin => "origin",
            Self::Revision => "revision",
            Self::UpgradeStripped => "upgrade-stripped",
            Self::Handshake => "handshake",
            Self::SlowBody => "slow-body",
            Self::SessionEnded => "session-ended",
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::UnknownTransport => Self::UnknownTransport,
            RequestError::UnknownSid => Self::UnknownSession,
            RequestError::BadHandshakeMethod => Self::Method,
            RequestError::BadRequest => Self::BadRequest,
            RequestError::Forbidden => Self::Origin,
            RequestError::UnsupportedVersion => Self::Revision,
        }
    }
}

/// How often what was refused.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    pub(crate) fn on(&self, why: Refusal) {
        self.0[why as usize].fetch_add(1, Relaxed);
    }
}

impl Handle {
    /// Requests that were refused since the start, by [`Refusal`].
    pub fn refusals(&self) -> [u64; Refusal::ALL.len()] {
        self.process.refusals.0.each_ref().map(|count| count.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_reason_is_counted_at_its_own_place_and_under_its_own_name() {
        let refusals = Refusals::default();
        for (place, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
            refusals.on(why);
        }
        assert!(refusals.0.iter().all(|count| count.load(Relaxed) == 1));
        let names: BTreeSet<_> = Refusal::ALL.iter().map(|why| why.name()).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
    }

    #[test]
    fn what_the_engine_refuses_has_a_reason_each() {
        let reasons: BTreeSet<_> = RequestError::ALL.map(Refusal::from).into();
        assert_eq!(reasons.len(), RequestError::ALL.len());
    }
}
