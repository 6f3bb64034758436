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
    StateDir {
        help: "The directory of the record, the control socket and the logs.",
        name: "BOWLINE_STATE_DIR",
        flag: Some("--state-dir"),
    }
    AdminListen {
        help: "The address of the admin listener.",
        name: "BOWLINE_ADMIN_LISTEN",
        flag: Some("--admin-listen"),
    }
    AdminTokenFile {
        help: "The file with the token that operators must show.",
        name: "BOWLINE_ADMIN_TOKEN_FILE",
        flag: Some("--admin-token-file"),
    }
    PublicUrl {
        help: "Where clients reach this server through what stands in front of it.",
        name: "BOWLINE_PUBLIC_URL",
        flag: Some("--public-url"),
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
    Wait {
        help: "How long `start`, `stop` and `restart` wait for what they are about.",
        name: "BOWLINE_WAIT",
        flag: Some("--wait"),
    }
    Port {
        help: "The public port on all addresses, as platforms set it; BOWLINE_LISTEN counts for more.",
        name: "PORT",
        flag: None,
    }
    OtlpEndpoint {
        help: "The collector of spans, if `telemetry.otlp-endpoint` says nothing.",
        name: "OTEL_EXPORTER_OTLP_ENDPOINT",
        flag: None,
    }
    OtlpHeaders {
        help: "What that collector is shown, as NAME=VALUE,NAME=VALUE.",
        name: "OTEL_EXPORTER_OTLP_HEADERS",
        flag: None,
    }
    OtelServiceName {
        help: "What collectors know this server by, if `telemetry.service-name` says nothing.",
        name: "OTEL_SERVICE_NAME",
        flag: None,
    }
    NoColor {
        help: "Any value but the empty one switches colours off.",
        name: "NO_COLOR",
        flag: None,
    }
    RuntimeDirectory {
        help: "Where systemd wants a service to keep its lock, its record and its control socket.",
        name: "RUNTIME_DIRECTORY",
        flag: None,
    }
    StateDirectory {
        help: "Where systemd wants a service to keep what outlives a restart.",
        name: "STATE_DIRECTORY",
        flag: None,
    }
    LogsDirectory {
        help: "Where systemd wants a service to keep its logs.",
        name: "LOGS_DIRECTORY",
        flag: None,
    }
    SystemdExecPid {
        help: "The process that systemd started: tells a service from a shell inside one.",
        name: "SYSTEMD_EXEC_PID",
        flag: None,
    }
    XdgRuntimeDir {
        help: "Where a user's lock, record and control socket are kept, in `bowline`.",
        name: "XDG_RUNTIME_DIR",
        flag: None,
    }
    XdgStateHome {
        help: "Where a user's state and logs are kept, in `bowline`.",
        name: "XDG_STATE_HOME",
        flag: None,
    }
    Home {
        help: "Where `.local/state/bowline` is, if XDG_STATE_HOME says nothing.",
        name: "HOME",
        flag: None,
    }
    NotifySocket {
        help: "Where systemd wants to hear that the server is ready, reloads and stops.",
        name: "NOTIFY_SOCKET",
        flag: None,
    }
    WatchdogUsec {
        help: "How long systemd may go without hearing from the server, in microseconds.",
        name: "WATCHDOG_USEC",
        flag: None,
    }
    WatchdogPid {
        help: "Which process that is meant for.",
        name: "WATCHDOG_PID",
        flag: None,
    }
    MallocMmapThreshold {
        help: "The bytes from which glibc gives a piece of memory pages of its own; 131072 for the gateway if it is not set.",
        name: "MALLOC_MMAP_THRESHOLD_",
        flag: None,
    }
}
