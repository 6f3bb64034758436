//! How a client's return ended.

crate::table! {
    /// What became of a client that came back with a `pid`, or under a name that `session-key` gave it.
    pub enum RecoveryOutcome;

    columns {
        /// Says when this is the outcome.
        help: &'static str,
        /// The value of the label `outcome`.
        name: &'static str,
    }

    Recovered {
        help: "The session went on, with all that was emitted meanwhile.",
        name: "recovered",
    }
    Unknown {
        help: "The server knows no session of this pid: it never did, or has forgotten it long ago.",
        name: "unknown",
    }
    Window {
        help: "The client stayed away for longer than continuity.window.",
        name: "window",
    }
    Ended {
        help: "The session had ended: the client left, or the server sent it away.",
        name: "ended",
    }
    Restarted {
        help: "The session is of a server whose log was not kept.",
        name: "restarted",
    }
    LogFull {
        help: "The log had to give up what this session still needed: raise continuity.max-bytes.",
        name: "log-full",
    }
    Crowded {
        help: "More than continuity.max-away sessions were away, and this one had been so for longest.",
        name: "crowded",
    }
    Superseded {
        help: "Another client came with the same pid at the same time, and later.",
        name: "superseded",
    }
    Refused {
        help: "The token or the app did not let it in again; it may still come back.",
        name: "refused",
    }
}
