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
        help: "It ran, and failed.",
        code: 1,
    }
    Usage {
        help: "The command line or the configuration is wrong: starting again will not help.",
        code: 2,
    }
    Unavailable {
        help: "It could not listen: an address is taken, missing or forbidden.",
        code: 69,
    }
    Cut {
        help: "A second signal ended the drain before all clients had been sent away.",
        code: 130,
    }
}
