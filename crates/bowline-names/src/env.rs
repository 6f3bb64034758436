//! The environment variables that the binary reads.

crate::table! {
    /// An environment variable. It counts for more than the configuration file and for less than
    /// the flag that says the same.
    pub enum EnvVar;

    columns {
        /// Says what it sets.
        help: &'static str,
        /// The name of the variable.
        name: &'static str,
        /// The flag that says the same, if there is one.
        flag: Option<&'static str>,
    }

    Config {
        help: "The configuration file.",
        name: "BOWLINE_CONFIG",
        flag: Some("--config"),
    }
    Listen {
        help: "The addresses of the public listener, separated by commas.",
        name: "BOWLINE_LISTEN",
        flag: Some("--listen"),
    }
    AdminListen {
        help: "The address of the admin listener.",
        name: "BOWLINE_ADMIN_LISTEN",
        flag: Some("--admin-listen"),
    }
    Shards {
        help: "How many threads own sessions.",
        name: "BOWLINE_SHARDS",
        flag: Some("--shards"),
    }
    LogLevel {
        help: "Which log lines are written.",
        name: "BOWLINE_LOG_LEVEL",
        flag: Some("--log-level"),
    }
    LogFormat {
        help: "How log lines are written.",
        name: "BOWLINE_LOG_FORMAT",
        flag: Some("--log-format"),
    }
    Port {
        help: "The public port on all addresses, as platforms set it; BOWLINE_LISTEN counts for more.",
        name: "PORT",
        flag: None,
    }
    NoColor {
        help: "Any value but the empty one switches colours off.",
        name: "NO_COLOR",
        flag: None,
    }
}
