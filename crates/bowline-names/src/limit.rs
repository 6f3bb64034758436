//! The keys of `[limits]`.

crate::table! {
    /// A limit that an operator can set. The numbers and their reasons stand with the code that
    /// keeps them (`limit.rs` of `bowline-proto` and of `bowline-net`).
    pub enum LimitKey;

    columns {
        /// Says what is limited.
        help: &'static str,
        /// The key as written in the table `[limits]`, and the label of
        /// [`Metric::LimitHits`](crate::Metric::LimitHits). `max-payload` is the one that stands
        /// in `[engine]`.
        name: &'static str,
        /// What happens to whoever hits it.
        on_hit: OnHit,
    }

    MaxPayload {
        help: "Bytes of one message.",
        name: "max-payload",
        on_hit: OnHit::TooLarge,
    }
    Connections {
        help: "Open connections of the process, and its sessions.",
        name: "connections",
        on_hit: OnHit::Unavailable,
    }
    ConnectionsPerAddress {
        help: "Open connections from one address.",
        name: "connections-per-address",
        on_hit: OnHit::TooMany,
    }
    HandshakesPerSecond {
        help: "Sessions opened in one second.",
        name: "handshakes-per-second",
        on_hit: OnHit::TooMany,
    }
    HandshakesPerSecondPerAddress {
        help: "Sessions opened in one second from one address.",
        name: "handshakes-per-second-per-address",
        on_hit: OnHit::TooMany,
    }
    ConnectionsPerSubject {
        help: "Sockets of one namespace whose tokens name the same subject.",
        name: "connections-per-subject",
        on_hit: OnHit::Refuse,
    }
    RequestHead {
        help: "Time in which a request must have said its headers.",
        name: "request-head",
        on_hit: OnHit::Cut,
    }
    PacketsPerPayload {
        help: "Packets in one polling body.",
        name: "packets-per-payload",
        on_hit: OnHit::Close,
    }
    Attachments {
        help: "Binary attachments of one event.",
        name: "attachments",
        on_hit: OnHit::Close,
    }
    NamespacesPerSession {
        help: "Namespaces that one session may be in.",
        name: "namespaces-per-session",
        on_hit: OnHit::Close,
    }
    RoomsPerSession {
        help: "Rooms that one session may be in.",
        name: "rooms-per-session",
        on_hit: OnHit::Close,
    }
    PendingAcksPerSession {
        help: "Acks that may be awaited from one session.",
        name: "pending-acks-per-session",
        on_hit: OnHit::Refuse,
    }
    EventsPerSecond {
        help: "Events that one session may send in one second.",
        name: "events-per-second",
        on_hit: OnHit::Close,
    }
    QueuedBytesPerSession {
        help: "Bytes that may wait to be sent to one session.",
        name: "queued-bytes-per-session",
        on_hit: OnHit::Close,
    }
}

impl LimitKey {
    /// The whole path of the key in the configuration, for messages.
    pub fn path(self) -> String {
        let table = match self {
            Self::MaxPayload => "engine",
            _ => "limits",
        };
        format!("{table}.{}", self.name())
    }
}

/// What happens to whoever hits a limit.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum OnHit {
    /// HTTP 503 with `Retry-After`.
    Unavailable,
    /// HTTP 429 with `Retry-After`.
    TooMany,
    /// The session ends: WebSocket close 1008, or HTTP 400.
    Close,
    /// The session ends: WebSocket close 1009, or HTTP 413.
    TooLarge,
    /// The connection is closed without a word.
    Cut,
    /// What was asked for is not done, and whoever asked is told.
    Refuse,
}

impl OnHit {
    /// What happens, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unavailable => "gets HTTP 503 with `Retry-After`",
            Self::TooMany => "gets HTTP 429 with `Retry-After`",
            Self::Close => "is closed: WebSocket 1008, or HTTP 400",
            Self::TooLarge => "is closed: WebSocket 1009, or HTTP 413",
            Self::Cut => "is cut off without a word",
            Self::Refuse => "is told, and what was asked for is not done",
        }
    }
}
