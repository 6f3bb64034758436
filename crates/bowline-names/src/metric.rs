//! What is counted.

crate::table! {
    /// What is counted. Labels come from closed sets or from the configuration, never from
    /// clients.
    pub enum Metric;

    columns {
        /// Says what is counted, as `# HELP` does.
        help: &'static str,
        /// The name of the series.
        name: &'static str,
        /// How the value moves.
        kind: Kind,
        /// The names of its labels.
        labels: &'static [&'static str],
    }

    Connections {
        help: "Open connections, by what they carry.",
        name: "bowline_connections",
        kind: Kind::Gauge,
        labels: &["transport"],
    }
    Sessions {
        help: "Sessions that live, by state.",
        name: "bowline_sessions",
        kind: Kind::Gauge,
        labels: &["state"],
    }
    Connects {
        help: "Requests to join a namespace, by outcome.",
        name: "bowline_connects_total",
        kind: Kind::Counter,
        labels: &["result"],
    }
    Disconnects {
        help: "Sessions that ended, by reason.",
        name: "bowline_disconnects_total",
        kind: Kind::Counter,
        labels: &["reason"],
    }
    Upgrades {
        help: "Upgrades from polling to WebSocket that were tried, by outcome.",
        name: "bowline_upgrades_total",
        kind: Kind::Counter,
        labels: &["result"],
    }
    UpgradeFailures {
        help: "Upgrades that were begun and not finished, by reason.",
        name: "bowline_upgrade_failures_total",
        kind: Kind::Counter,
        labels: &["reason"],
    }
    Packets {
        help: "Engine.IO packets.",
        name: "bowline_packets_total",
        kind: Kind::Counter,
        labels: &["direction"],
    }
    Bytes {
        help: "Bytes of WebSocket connections.",
        name: "bowline_bytes_total",
        kind: Kind::Counter,
        labels: &["direction"],
    }
    Events {
        help: "Socket.IO events; a broadcast counts once.",
        name: "bowline_events_total",
        kind: Kind::Counter,
        labels: &["direction"],
    }
    SlowReceivers {
        help: "Sessions that were cut because they could not take what was sent to them.",
        name: "bowline_slow_receivers_total",
        kind: Kind::Counter,
        labels: &[],
    }
    LimitHits {
        help: "How often a limit was hit, by its key in the configuration.",
        name: "bowline_limit_hits_total",
        kind: Kind::Counter,
        labels: &["limit"],
    }
    AcceptErrors {
        help: "Connections that the operating system did not hand over, by kind of error.",
        name: "bowline_accept_errors_total",
        kind: Kind::Counter,
        labels: &["kind"],
    }
    Wakeups {
        help: "Deadlines that a shard woke for, by timer.",
        name: "bowline_wakeups_total",
        kind: Kind::Counter,
        labels: &["timer"],
    }
}

/// How the value of a metric moves.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Up only, from zero at the start of the process.
    Counter,
    /// Up and down.
    Gauge,
}
