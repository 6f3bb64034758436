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
        remedy: "Correct what is named above. `bowline config explain KEY` says what a key takes.",
    }
    ConfigKeyUnknown {
        help: "The configuration has no such key.",
        name: "config-key-unknown",
        blame: Blame::Operator,
        retry: false,
        remedy: "`bowline config show --defaults` prints every key.",
    }
    AlertRulesUnreadable {
        help: "A file of alert rules could not be read.",
        name: "alert-rules-unreadable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Check `alerts.rules-file`, and that this user may read what it names.",
    }
    AlertRulesInvalid {
        help: "A file of alert rules has mistakes.",
        name: "alert-rules-invalid",
        blame: Blame::Operator,
        retry: false,
        remedy: "Correct what is named above. `bowline alerts print` prints the built-in rules, docs/alerts.md explains every key.",
    }
    CertificateUnusable {
        help: "The certificate of the public listeners cannot be used.",
        name: "certificate-unusable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Check [server.tls]: cert-file holds the certificate and what leads to its root, in PEM and in this order; key-file its key, not encrypted; this user may read both.",
    }
    BackendUnusable {
        help: "An app behind HTTP cannot be asked in the way that is configured.",
        name: "backend-unusable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Check its table in [backends]: this user must be able to read what `secret-file` names, and an https `url` needs the root certificates of the system.",
    }
    BackendUnavailable {
        help: "The app behind the server is not available.",
        name: "backend-unavailable",
        blame: Blame::Operator,
        retry: true,
        remedy: "Look whether the app runs and listens where `url` of its table in [backends] says; the log tells what happened to the request.",
    }
    BackendTimeout {
        help: "The app behind the server did not answer in time.",
        name: "backend-timeout",
        blame: Blame::Operator,
        retry: true,
        remedy: "Find out what the app waits for, give it more workers, or raise `timeout` of its table in [backends].",
    }
    BackendBusy {
        help: "Too much waits for the app behind the server.",
        name: "backend-busy",
        blame: Blame::Operator,
        retry: true,
        remedy: "Give the app more workers and raise `max-concurrent` with them; `queue` bounds what may wait.",
    }
    BackendInvalid {
        help: "The app behind the server gave an answer that is none.",
        name: "backend-invalid",
        blame: Blame::Operator,
        retry: false,
        remedy: "The log says what is wrong with the answer; docs/backend.md says what is right.",
    }
    LinkUnusable {
        help: "A link cannot be kept in the way that is configured.",
        name: "link-unusable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Check its table in [links]: the variable of `token-env` must be set for the server, or this user able to read what `token-file` names; no two links have the same token.",
    }
    LinkUnknown {
        help: "There is no such link.",
        name: "link-unknown",
        blame: Blame::Operator,
        retry: false,
        remedy: "`bowline link ls` lists the links of the server.",
    }
    LinkNotSent {
        help: "What was to go to the service of a link did not.",
        name: "link-not-sent",
        blame: Blame::Operator,
        retry: true,
        remedy: "`bowline link show NAME` tells how the link is; what was said waits for a connection for a minute at most, so say it again when the link is live.",
    }
    LinkUnanswered {
        help: "What went to the service of a link was sent, and not answered in time.",
        name: "link-unanswered",
        blame: Blame::System,
        retry: false,
        remedy: "The service has it, most likely: said again it may be there twice. Find out there whether it counts.",
    }
    LinkUnprobed {
        help: "A link cannot make a routing round trip now.",
        name: "link-unprobed",
        blame: Blame::Operator,
        retry: false,
        remedy: "The message says why: one without a `probe` in its table of [links] never can, one that is off or has no connection can when it has one.",
    }
    LinkNotProved {
        help: "A link did not prove that messages reach it.",
        name: "link-not-proved",
        blame: Blame::Operator,
        retry: true,
        remedy: "`bowline link show NAME` tells which level failed; it is tried again by itself.",
    }
    LinkMessageUnknown {
        help: "Nothing is known of a message with this id.",
        name: "link-message-unknown",
        blame: Blame::Operator,
        retry: false,
        remedy: "Messages are remembered for 24 hours after they were confirmed, by the id that the service gives them.",
    }
    LinkKept {
        help: "Messages of a link that is configured are not dropped.",
        name: "link-kept",
        blame: Blame::Operator,
        retry: false,
        remedy: "They are its bot's. Take the link out of the configuration and reload; what waits is then kept for 7 days, and can be dropped before.",
    }
    LinkNoVariables {
        help: "A link has no variables for its bot.",
        name: "link-no-variables",
        blame: Blame::Operator,
        retry: false,
        remedy: "Only a link with deliver = \"proxy\" has them; check its table in [links], and that this user may write to the state directory of the server.",
    }
    TelemetryUnusable {
        help: "Spans cannot be exported in the way that is configured.",
        name: "telemetry-unusable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Check [telemetry]: the variable of `otlp-headers-env` must be set for the server, or this user able to read what `otlp-headers-file` names.",
    }
    ProviderUnusable {
        help: "A provider of AI models cannot be asked in the way that is configured.",
        name: "provider-unusable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Check its table in [ai.providers]: the variable of `api-key-env` must be set for the server, or this user able to read what `api-key-file` names.",
    }
    KeyUnusable {
        help: "What was given is no key for clients of the AI gateway.",
        name: "key-unusable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Give one line with a key that nobody guesses, such as `openssl rand -hex 24` makes.",
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
    InstanceHeld {
        help: "The instance directory is held by another process.",
        name: "instance-held",
        blame: Blame::Operator,
        retry: true,
        remedy: "`bowline status` tells which server that is; give another one its own --state-dir.",
    }
    InstanceDenied {
        help: "This user may not use the instance directory, or may not touch its server.",
        name: "instance-denied",
        blame: Blame::Operator,
        retry: false,
        remedy: "Run the command as the user that the server runs as or as root, or choose another --state-dir.",
    }
    DiskFull {
        help: "The disk has no room for the files of the server.",
        name: "disk-full",
        blame: Blame::System,
        retry: true,
        remedy: "Make room on that disk, or put the instance elsewhere with --state-dir.",
    }
    InstanceFailed {
        help: "The instance directory could not be used.",
        name: "instance-failed",
        blame: Blame::System,
        retry: true,
        remedy: "The words of the operating system stand above. --state-dir chooses another place.",
    }
    InstanceUnclear {
        help: "It cannot be told whether a server runs.",
        name: "instance-unclear",
        blame: Blame::Operator,
        retry: true,
        remedy: "Find out what stands above; when no server runs, remove the lock and the record and try again.",
    }
    NotRunning {
        help: "No server runs that could be asked.",
        name: "not-running",
        blame: Blame::Operator,
        retry: false,
        remedy: "Start one with `bowline start` or `bowline serve`, or name its place with --state-dir.",
    }
    ControlSilent {
        help: "The server does not answer on its control socket.",
        name: "control-silent",
        blame: Blame::Bowline,
        retry: true,
        remedy: "Try again in a moment; look at its log, and if it stays so, restart it.",
    }
    ControlRefused {
        help: "The server refused what it was asked, or gave an answer that this version does not know.",
        name: "control-refused",
        blame: Blame::Operator,
        retry: false,
        remedy: "The words of the server stand above. Use the bowline that is as old as the server.",
    }
    ServerUnreachable {
        help: "The server that was named by its URL does not answer.",
        name: "server-unreachable",
        blame: Blame::Operator,
        retry: true,
        remedy: "Check the URL: it is that of the admin listener or of what stands in front of it, and must be reachable from here.",
    }
    StartLate {
        help: "The server did not answer a client in time.",
        name: "start-late",
        blame: Blame::System,
        retry: true,
        remedy: "It goes on trying: look at `bowline status` and `bowline logs`, or end it with `bowline stop`.",
    }
    StopLate {
        help: "The server has not ended in time.",
        name: "stop-late",
        blame: Blame::System,
        retry: true,
        remedy: "It goes on sending its clients away. Wait longer with --wait, or cut them off with `bowline stop --now`.",
    }
    DiedStopping {
        help: "The server ended without clearing up while it was told to stop.",
        name: "died-stopping",
        blame: Blame::Bowline,
        retry: false,
        remedy: "Look at the end of its log with `bowline logs`.",
    }
    ManagedElsewhere {
        help: "The server was not started by `bowline start`, which is who could start it again.",
        name: "managed-elsewhere",
        blame: Blame::Operator,
        retry: false,
        remedy: "Restart it with what started it: that command stands above.",
    }
    LogMissing {
        help: "There is no log file.",
        name: "log-missing",
        blame: Blame::Operator,
        retry: false,
        remedy: "Only a server that `bowline start` started writes one; others say what they have to say on stderr.",
    }
    BenchInvalid {
        help: "What `bowline bench` was asked for has no meaning.",
        name: "bench-invalid",
        blame: Blame::Operator,
        retry: false,
        remedy: "Correct what is named above. `bowline bench --help` says what each workload takes.",
    }
    BenchFailed {
        help: "`bowline bench` could not measure.",
        name: "bench-failed",
        blame: Blame::Operator,
        retry: true,
        remedy: "See above. What a server must do for each workload stands in `bowline bench --help`.",
    }
    AdminTokenUnreadable {
        help: "The file with the token of the admin listener cannot be used.",
        name: "admin-token-unreadable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Write the token alone into the file of `admin.token-file`, and let only the user of the server read it.",
    }
    AdminTokenMissing {
        help: "The request to the admin listener carries no token.",
        name: "admin-token-missing",
        blame: Blame::Operator,
        retry: false,
        remedy: "Send `Authorization: Bearer TOKEN` with what stands in the file of `admin.token-file`.",
    }
    AdminTokenWrong {
        help: "The request to the admin listener carries another token.",
        name: "admin-token-wrong",
        blame: Blame::Operator,
        retry: false,
        remedy: "Send what stands in the file of `admin.token-file`; after it has changed, `bowline reload` reads it again.",
    }
    TooManyFailures {
        help: "The address has sent too many wrong tokens within a minute.",
        name: "too-many-failures",
        blame: Blame::Operator,
        retry: true,
        remedy: "Wait for a minute, and find out who guesses: the audit lines of the log name the address.",
    }
    HostRefused {
        help: "The request to the admin listener names a host that is not this one.",
        name: "host-refused",
        blame: Blame::Operator,
        retry: false,
        remedy: "Ask by address, by `localhost` or by the name of this machine; with `admin.token-file` any name is good.",
    }
    OriginRefused {
        help: "A page of another origin has sent the request to the admin listener.",
        name: "origin-refused",
        blame: Blame::Operator,
        retry: false,
        remedy: "Send it from a program, or from a page of the admin listener itself.",
    }
    NotJson {
        help: "A request that changes something did not come as JSON.",
        name: "not-json",
        blame: Blame::Operator,
        retry: false,
        remedy: "Send `Content-Type: application/json`, with an empty body too.",
    }
    RequestInvalid {
        help: "The request to the API is not what it expects.",
        name: "request-invalid",
        blame: Blame::Operator,
        retry: false,
        remedy: "Compare it with /api/v1/openapi.json or docs/api.md.",
    }
    NotFound {
        help: "There is nothing at this path.",
        name: "not-found",
        blame: Blame::Operator,
        retry: false,
        remedy: "All paths stand in /api/v1/openapi.json.",
    }
    EmitIdReused {
        help: "An emit has the id of another that was sent lately.",
        name: "emit-id-reused",
        blame: Blame::Operator,
        retry: false,
        remedy: "Give each event an id of its own; the id of an event that is tried again stays the same, and so does the event.",
    }
    MethodRefused {
        help: "The path does not take this method.",
        name: "method-refused",
        blame: Blame::Operator,
        retry: false,
        remedy: "The methods of each path stand in /api/v1/openapi.json.",
    }
    SocketUnknown {
        help: "No socket has this sid.",
        name: "socket-unknown",
        blame: Blame::Operator,
        retry: false,
        remedy: "Take a Socket.IO sid from /api/v1/sockets; a client that connects anew gets another.",
    }
    AiRequestUnknown {
        help: "No request to the AI gateway with this id is remembered.",
        name: "ai-request-unknown",
        blame: Blame::Operator,
        retry: false,
        remedy: "Take an id from /api/v1/ai/requests or from the `x-request-id` of an answer; a request is there once it is over, and the last 2,000 are.",
    }
    ControlSocketOnly {
        help: "Only the master does this, on its control socket.",
        name: "control-socket-only",
        blame: Blame::Operator,
        retry: false,
        remedy: "Use `bowline reload` or `bowline stop` on the machine itself.",
    }
    Busy {
        help: "A shard has too much to do to take another wish.",
        name: "busy",
        blame: Blame::System,
        retry: true,
        remedy: "Try again in a moment.",
    }
    TokenMissing {
        help: "The client shows no token.",
        name: "token-missing",
        blame: Blame::Operator,
        retry: false,
        remedy: "Send a JSON Web Token as `auth: { token }` of the client's options.",
    }
    TokenInvalid {
        help: "The token is not one that lets its client in.",
        name: "token-invalid",
        blame: Blame::Operator,
        retry: false,
        remedy: "The log says at level debug what is wrong with it. Compare it with `auth.jwt` of the namespace.",
    }
    TokenUnverifiable {
        help: "The keys that tokens are checked with cannot be had.",
        name: "token-unverifiable",
        blame: Blame::System,
        retry: true,
        remedy: "Look at the component `jwks:` of the namespace in /health/ready of the admin listener, and at what `jwks-url` answers.",
    }
    SubjectFull {
        help: "The subject of the token has as many connections as one may have.",
        name: "subject-full",
        blame: Blame::Operator,
        retry: true,
        remedy: "Close others of its connections, or raise `limits.connections-per-subject`.",
    }
    TokenKeysUnusable {
        help: "The keys that tokens shall be checked with cannot be used.",
        name: "token-keys-unusable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Check `auth.jwt` of the namespace: `secret-file` holds a secret a line, `public-key-file` public keys in PEM; this user may read them.",
    }
    TokenExpired {
        help: "The token has expired.",
        name: "token-expired",
        blame: Blame::Operator,
        retry: false,
        remedy: "Connect again with a fresh token.",
    }
    ServiceUnknown {
        help: "There is no service of that name.",
        name: "service-unknown",
        blame: Blame::Operator,
        retry: false,
        remedy: "`bowline service ls` lists the services; they stand in [services] of the configuration, and `bowline reload` takes in new ones.",
    }
    ServiceNotReady {
        help: "What was asked of a service has not come about: it is not ready, or has not ended.",
        name: "service-not-ready",
        blame: Blame::Operator,
        retry: false,
        remedy: "`bowline service ls` says in what state it is and why; `bowline service logs NAME` has what it wrote.",
    }
    ServiceLate {
        help: "What was asked of a service had not come about when the time for it was over; it may still.",
        name: "service-late",
        blame: Blame::Operator,
        retry: true,
        remedy: "`bowline service ls` says what is awaited. Wait longer with --wait.",
    }
    ServicesUnusable {
        help: "A service cannot be started as the configuration has it.",
        name: "services-unusable",
        blame: Blame::Operator,
        retry: false,
        remedy: "Correct what is named above in [services].",
    }
    LinkSecretWrong {
        help: "The loopback proxy of the links was asked without the name and the secret of a link.",
        name: "link-secret-wrong",
        blame: Blame::Operator,
        retry: false,
        remedy: "Start the bot with the variables that `bowline link env NAME` prints, or give its service `link = \"NAME\"`.",
    }
    LinkUnserved {
        help: "The loopback proxy does not serve the bots of this link any more.",
        name: "link-unserved",
        blame: Blame::Operator,
        retry: true,
        remedy: "`bowline link ls` lists the links; a link has bots at the proxy if it says `deliver = \"proxy\"`.",
    }
    LinkRequestRefused {
        help: "The loopback proxy of the links does not take a request of this kind.",
        name: "link-request-refused",
        blame: Blame::Operator,
        retry: false,
        remedy: "docs/links.md says what bots may ask of it; the limits of requests stand there too.",
    }
    LinkUnreachable {
        help: "The server that a bot asked for by way of its link could not be reached, or broke off.",
        name: "link-unreachable",
        blame: Blame::System,
        retry: true,
        remedy: "`bowline link show NAME` says how the link itself fares. Look at this machine's network, and at `proxy` of the link.",
    }
    LinkBusy {
        help: "The bots of a link have too many connections, or too much in them.",
        name: "link-busy",
        blame: Blame::Operator,
        retry: true,
        remedy: "See whether a bot opens connections and forgets them.",
    }
    GatewayRestarting {
        help: "There is no gateway at the moment: one is being started.",
        name: "gateway-restarting",
        blame: Blame::System,
        retry: true,
        remedy: "Ask again in a moment. `bowline status` says why it was restarted, and when the next attempt is due.",
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
