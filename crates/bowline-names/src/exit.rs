//! The exit codes of the binary.

crate::table! {
    /// How the process ended.
    pub enum Exit;

    columns {
        /// Says when this is the code.
        help: &'static str,
        /// The number the parent process sees.
        code: u8,
    }

    Ok {
        help: "Everything that was asked for has been done; a server has drained.",
        code: 0,
    }
    Failed {
        help: "It ran, and failed; for `status`, a server died and left its record.",
        code: 1,
    }
    Usage {
        help: "The command line or the configuration is wrong: starting again will not help.",
        code: 2,
    }
    NotRunning {
        help: "No server runs; only `status`, `reload` and commands that ask a server say so.",
        code: 3,
    }
    Unknown {
        help: "It cannot be told whether a server runs; only `status` says so.",
        code: 4,
    }
    Unavailable {
        help: "It could not listen: an address is taken, missing or forbidden.",
        code: 69,
    }
    DiskFull {
        help: "The disk is full, or could not be written for another reason that is not a permission.",
        code: 74,
    }
    Late {
        help: "What was asked for had not come about when the time for it was over; it may still.",
        code: 75,
    }
    Denied {
        help: "This user may not do that.",
        code: 77,
    }
    Cut {
        help: "A second signal ended the drain before all clients had been sent away.",
        code: 130,
    }
}
