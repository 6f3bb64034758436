//! What can go wrong.

crate::table! {
    /// What can go wrong, as a word that scripts and alerts can match.
    pub enum ErrorCode;

    columns {
        /// Says what happened.
        help: &'static str,
        /// The code as it is printed.
        name: &'static str,
        /// Who can mend it.
        blame: Blame,
        /// Whether the same attempt may succeed later without anybody changing anything.
        retry: bool,
        /// What to do.
        remedy: &'static str,
    }

    ConfigUnreadable {
        help: "The configuration file could not be read.",
        name: "config-unreadable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Check the path given by --config or BOWLINE_CONFIG, and that this user may read it.",
    }
    ConfigInvalid {
        help: "The configuration has mistakes.",
        name: "config-invalid",
        blame: Blame::Operator,
        retry: false,
        remedy: "Correct what is named above. `bowline config show --defaults` prints every key.",
    }
    AddressInUse {
        help: "The address is held by another process.",
        name: "address-in-use",
        blame: Blame::Operator,
        retry: true,
        remedy: "Stop that process or listen elsewhere. Port 0 takes any free port.",
    }
    AddressUnavailable {
        help: "This machine does not have the address.",
        name: "address-unavailable",
        blame: Blame::Operator,
        retry: true,
        remedy: "Listen on an address that `ip address` shows, or on 0.0.0.0 for all of them.",
    }
    AddressDenied {
        help: "The operating system does not allow this user to listen there.",
        name: "address-denied",
        blame: Blame::Operator,
        retry: false,
        remedy: "Use a port above 1023, or give the process CAP_NET_BIND_SERVICE.",
    }
    ListenFailed {
        help: "The address could not be listened on.",
        name: "listen-failed",
        blame: Blame::System,
        retry: true,
        remedy: "The words of the operating system stand above.",
    }
    StartFailed {
        help: "The server could not start its threads.",
        name: "start-failed",
        blame: Blame::System,
        retry: true,
        remedy: "Raise the limits on processes and open files (`ulimit -u`, `ulimit -n`).",
    }
    ServeFailed {
        help: "The server stopped although nobody asked it to.",
        name: "serve-failed",
        blame: Blame::Bowline,
        retry: true,
        remedy: "Start it again, and report what the log said before this.",
    }
}

/// Who can mend an error.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Blame {
    /// Whoever configured or started the server.
    Operator,
    /// The machine it runs on.
    System,
    /// Bowline itself: a bug.
    Bowline,
}

impl Blame {
    /// The word that stands in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::System => "system",
            Self::Bowline => "bowline",
        }
    }
}
