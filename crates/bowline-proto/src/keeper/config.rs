//! What a keeper is told once.

use std::{ops::RangeInclusive, time::Duration};

/// How one link is kept. Durations are the defaults of `[links.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How often a WebSocket ping is sent; `None` where the service answers none. Default 10 s.
    pub ping_interval: Option<Duration>,
    /// How long its pong may take. Default 5 s.
    pub ping_timeout: Duration,
    /// How many in a row may be missed; one more makes the connection suspect. Default 2.
    pub pings_missed: u32,
    /// How often the service's own ping is sent; `None` where its protocol has none. Default `None`.
    pub ack_interval: Option<Duration>,
    /// How long its answer may take. Default 14 s.
    pub ack_timeout: Duration,
    /// Between two routing round trips, at random; `None` where the link has none. Default 10 to 15 min.
    pub probe_interval: Option<RangeInclusive<Duration>>,
    /// How long one may take. Default 5 s.
    pub probe_timeout: Duration,
    /// After so long without an event or a routing round trip the service is asked, beside the connection, whether there
    /// is anything that the connection should have brought, up to a quarter earlier at random; `None` where it cannot be
    /// asked. Default `None`.
    pub look_interval: Option<Duration>,
    /// After so long without an event or a routing round trip the next one is made at once when something arrives or is
    /// about to be sent, and no later than the interval says. Default 30 min.
    pub idle_after: Duration,
    /// The age at which a connection is replaced. Default 12 h.
    pub max_age: Duration,
    /// The share of `max_age`, in per cent, that is taken off at random. Default 25.
    pub max_age_spread: u8,
    /// How long opening may take, all of it. Default 30 s.
    pub open_timeout: Duration,
    /// How long the old connection goes on beside the new one, after that was proved. Default 1 s, at most 2 s.
    pub overlap: Duration,
    /// How long a close may take before it is a hard end. Default 2 s.
    pub close_timeout: Duration,
    /// The first pause before an attempt is between nothing and this; each further one up to twice as long. Default 1 s.
    pub backoff_first: Duration,
    /// The longest such pause. Default 60 s.
    pub backoff_max: Duration,
    /// How long a connection must have been live for the backoff to begin anew. Default 60 s.
    pub backoff_reset: Duration,
    /// The pause after [`Verdict::Replaced`](super::Verdict), [`Unauthorized`](super::Verdict) and
    /// [`Refused`](super::Verdict). Default 5 min, with full jitter on top.
    pub refused_pause: Duration,
    /// From which failed attempt in a row on the address is fresh. Default 2.
    pub address_after: u32,
    /// From which on the HTTP pool is fresh. Default 4.
    pub pool_after: u32,
    /// After how many messages in a row that the bot did not handle its service is restarted; `None`: never.
    /// Default `None`.
    pub service_after: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ping_interval: Some(Duration::from_secs(10)),
            ping_timeout: Duration::from_secs(5),
            pings_missed: 2,
            ack_interval: None,
            ack_timeout: Duration::from_secs(14),
            probe_interval: Some(Duration::from_secs(600)..=Duration::from_secs(900)),
            probe_timeout: Duration::from_secs(5),
            look_interval: None,
            idle_after: Duration::from_secs(1800),
            max_age: Duration::from_secs(12 * 3600),
            max_age_spread: 25,
            open_timeout: Duration::from_secs(30),
            overlap: Duration::from_secs(1),
            close_timeout: Duration::from_secs(2),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            backoff_reset: Duration::from_secs(60),
            refused_pause: Duration::from_secs(300),
            address_after: 2,
            pool_after: 4,
            service_after: None,
        }
    }
}
