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
        help: "Sessions that live, by state: `connected`, or `away`, whose clients have lost their connection and may come back (one for each namespace a client was in).",
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
    EventsHeld {
        help: "Broadcasts that wait for somebody to receive them.",
        name: "bowline_events_held",
        kind: Kind::Gauge,
        labels: &[],
    }
    HeldEvents {
        help: "Broadcasts that waited for somebody to receive them, by what became of them: sent, expired, or refused because too much was waiting.",
        name: "bowline_held_events_total",
        kind: Kind::Counter,
        labels: &["outcome"],
    }
    Recoveries {
        help: "Clients that came back to a session, by whether they got it and else why not.",
        name: "bowline_recoveries_total",
        kind: Kind::Counter,
        labels: &["outcome"],
    }
    EventsReplayed {
        help: "Events that were sent to clients that came back, because they had missed them or might have.",
        name: "bowline_events_replayed_total",
        kind: Kind::Counter,
        labels: &[],
    }
    EventsRepeated {
        help: "Events of clients that were not handled, since one of the same socket with the same id (`event-id`) had been.",
        name: "bowline_events_repeated_total",
        kind: Kind::Counter,
        labels: &[],
    }
    SessionMoves {
        help: "Sessions that went to another shard, where their clients came back.",
        name: "bowline_session_moves_total",
        kind: Kind::Counter,
        labels: &[],
    }
    SessionsRestored {
        help: "Sessions that the server before this one had saved when it stopped, by whether they are kept here.",
        name: "bowline_sessions_restored_total",
        kind: Kind::Counter,
        labels: &["outcome"],
    }
    LogBytes {
        help: "Memory of the log of sent events, from which sessions recover.",
        name: "bowline_log_bytes",
        kind: Kind::Gauge,
        labels: &[],
    }
    LogRecords {
        help: "Events in that log; a broadcast counts once on each shard that keeps it.",
        name: "bowline_log_records",
        kind: Kind::Gauge,
        labels: &[],
    }
    LogAge {
        help: "Age of the oldest event in that log; 0 if there is none.",
        name: "bowline_log_age_seconds",
        kind: Kind::Gauge,
        labels: &[],
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
    RequestsRefused {
        help: "Requests of clients that were refused, by reason; what a limit refuses is counted there.",
        name: "bowline_requests_refused_total",
        kind: Kind::Counter,
        labels: &["reason"],
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
    OpenFds {
        help: "Descriptors that the process holds open.",
        name: "bowline_open_fds",
        kind: Kind::Gauge,
        labels: &[],
    }
    MaxFds {
        help: "Descriptors that the process may hold open.",
        name: "bowline_max_fds",
        kind: Kind::Gauge,
        labels: &[],
    }
    MaxConnections {
        help: "How many connections may be open: `limits.connections`.",
        name: "bowline_max_connections",
        kind: Kind::Gauge,
        labels: &[],
    }
    IdleCut {
        help: "The one age at which idle WebSockets end without a close frame, most probably at the idle timeout of a proxy; 0 if there is none.",
        name: "bowline_idle_cut_seconds",
        kind: Kind::Gauge,
        labels: &[],
    }
    ComponentState {
        help: "States of components: 0 waiting, 1 loading, 2 ready, 3 failed, 4 skipped.",
        name: "bowline_component_state",
        kind: Kind::Gauge,
        labels: &["component"],
    }
    ServiceState {
        help: "Whether a service is in a state: 1 for the one it is in, 0 for the others. docs/services.md has the states.",
        name: "bowline_service_state",
        kind: Kind::Gauge,
        labels: &["service", "state"],
    }
    ServiceRestarts {
        help: "How often services were started again since the server started, by reason.",
        name: "bowline_service_restarts_total",
        kind: Kind::Counter,
        labels: &["service", "reason"],
    }
    ServiceReadySeconds {
        help: "How long the last start of a service took until it was ready; absent until it was.",
        name: "bowline_service_ready_seconds",
        kind: Kind::Gauge,
        labels: &["service"],
    }
    LinkState {
        help: "Whether a link is in a state: 1 for the one it is in, 0 for the others. docs/links.md has the states.",
        name: "bowline_link_state",
        kind: Kind::Gauge,
        labels: &["link", "state"],
    }
    LinkLevelAge {
        help: "Time since the last proof of a level on the connection in use; absent for what a link does not have and for what was never proved.",
        name: "bowline_link_level_age_seconds",
        kind: Kind::Gauge,
        labels: &["link", "level"],
    }
    LinkLive {
        help: "Whether a link has a connection that was proved: 1 or 0; absent for one that is not kept here.",
        name: "bowline_link_live",
        kind: Kind::Gauge,
        labels: &["link"],
    }
    LinkRoutingStaleness {
        help: "Time since the last routing round trip of a link, in units of the longest time that there should be between two.",
        name: "bowline_link_routing_staleness",
        kind: Kind::Gauge,
        labels: &["link"],
    }
    LinkWaiting {
        help: "Messages of a link that its bot has not confirmed.",
        name: "bowline_link_waiting_messages",
        kind: Kind::Gauge,
        labels: &["link"],
    }
    LinkOldestWaiting {
        help: "Time since the oldest of them arrived; 0 if there is none.",
        name: "bowline_link_oldest_waiting_seconds",
        kind: Kind::Gauge,
        labels: &["link"],
    }
    LinkParked {
        help: "Messages of a link that were put aside: offered as often as they may be, or refused by the bot.",
        name: "bowline_link_parked_messages",
        kind: Kind::Gauge,
        labels: &["link"],
    }
    LinkRenewals {
        help: "Connections that a link has made and proved, by reason.",
        name: "bowline_link_renewals_total",
        kind: Kind::Counter,
        labels: &["link", "reason"],
    }
    LinkRenewalFailures {
        help: "Connections that were to take the place of another and did not, by reason.",
        name: "bowline_link_renewal_failures_total",
        kind: Kind::Counter,
        labels: &["link", "reason"],
    }
    LinkProbes {
        help: "Routing round trips, by why they were made and how they ended: `ok`, `lost`, or `not-made`, which says nothing of the routing.",
        name: "bowline_link_probes_total",
        kind: Kind::Counter,
        labels: &["link", "cause", "outcome"],
    }
    LinkMessages {
        help: "Messages of a link: `new` ones, `repeated` ones that were not offered, those that were `caught-up` by asking the service; offers that were made again, messages that the bot has `confirmed`, that were `parked`, or that were `refused` since no more may wait.",
        name: "bowline_link_messages_total",
        kind: Kind::Counter,
        labels: &["link", "outcome"],
    }
    LinkAttempts {
        help: "Attempts to connect to the service, by how they ended: `ok`, or what the end means for the next.",
        name: "bowline_link_attempts_total",
        kind: Kind::Counter,
        labels: &["link", "outcome"],
    }
    LinkHttpRequests {
        help: "HTTP requests of a link and of its bot: `ok`, `retried` on a new connection, or `failed`.",
        name: "bowline_link_http_requests_total",
        kind: Kind::Counter,
        labels: &["link", "outcome"],
    }
    LinkEscalations {
        help: "How often a rung of the escalation ladder was reached.",
        name: "bowline_link_escalations_total",
        kind: Kind::Counter,
        labels: &["link", "rung"],
    }
    StoreHealthy {
        help: "Whether messages of links are on disk (1) or in memory, since the disk is full or cannot be written (0); absent without links.",
        name: "bowline_store_healthy",
        kind: Kind::Gauge,
        labels: &[],
    }
    CertificateExpiry {
        help: "When the certificate of the public listener ends, in seconds since 1970; absent without TLS.",
        name: "bowline_certificate_expiry_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
    }
    BackendRequests {
        help: "Requests to an app behind HTTP that are over, by outcome; `gone` is one that was not sent because its socket had left.",
        name: "bowline_backend_requests_total",
        kind: Kind::Counter,
        labels: &["backend", "outcome"],
    }
    BackendSeconds {
        help: "Time from the sending of a request to its answer.",
        name: "bowline_backend_seconds",
        kind: Kind::Histogram,
        labels: &["backend"],
    }
    BackendQueue {
        help: "Requests that wait to be sent to an app.",
        name: "bowline_backend_queue",
        kind: Kind::Gauge,
        labels: &["backend"],
    }
    BackendPoolWaits {
        help: "Requests that found `max-concurrent` under way when their turn had come.",
        name: "bowline_backend_pool_waits_total",
        kind: Kind::Counter,
        labels: &["backend"],
    }
    BackendEventsLost {
        help: "Events that an app failed and that asked for no ack, so that nobody was told.",
        name: "bowline_backend_events_lost_total",
        kind: Kind::Counter,
        labels: &["backend"],
    }
    AiAttempts {
        help: "Attempts at a provider of AI models that are over, by how they ended; `model` is the provider's. What a provider is charged with is counted here, and of its own attempts alone.",
        name: "bowline_ai_attempts_total",
        kind: Kind::Counter,
        labels: &["provider", "model", "outcome"],
    }
    AiAttemptSeconds {
        help: "Time from the beginning of an attempt to its end, those that failed or ran out of time among them.",
        name: "bowline_ai_attempt_seconds",
        kind: Kind::Histogram,
        labels: &["provider", "model", "outcome"],
    }
    AiFirstContentSeconds {
        help: "Time from the beginning of an attempt to the first content of its stream.",
        name: "bowline_ai_first_content_seconds",
        kind: Kind::Histogram,
        labels: &["provider", "model"],
    }
    AiTokens {
        help: "Tokens of attempts, by kind: `input` (of which `cached` and, into the cache, `written`) and `output` (of which `reasoning`).",
        name: "bowline_ai_tokens_total",
        kind: Kind::Counter,
        labels: &["provider", "model", "kind"],
    }
    AiRequests {
        help: "Requests for AI models that are over, by the model that was asked for (`other` if there is none of that name), by who served it, as PROVIDER/MODEL (empty: nobody), and by how they ended.",
        name: "bowline_ai_requests_total",
        kind: Kind::Counter,
        labels: &["requested", "served", "outcome"],
    }
    AiRequestSeconds {
        help: "Time from the arrival of a request to the end of its answer, all its attempts included.",
        name: "bowline_ai_request_seconds",
        kind: Kind::Histogram,
        labels: &["requested", "served"],
    }
    AiRefused {
        help: "Requests for AI models that were refused before anybody was asked, by reason.",
        name: "bowline_ai_refused_total",
        kind: Kind::Counter,
        labels: &["reason"],
    }
    AiReplays {
        help: "Requests for AI models that were answered by another with the same `Idempotency-Key`, by how: `joined` while that was under way, or `replayed` from what was kept.",
        name: "bowline_ai_replays_total",
        kind: Kind::Counter,
        labels: &["how"],
    }
    AiIdempotencyBytes {
        help: "Memory taken by answers that are kept for requests with the same `Idempotency-Key`: `ai.idempotency.max-bytes` bounds it.",
        name: "bowline_ai_idempotency_bytes",
        kind: Kind::Gauge,
        labels: &[],
    }
    AiPermits {
        help: "Permits for requests to AI models, of each provider and of the gateway as a whole (`*`), by state: `held`, or `queued` for.",
        name: "bowline_ai_permits",
        kind: Kind::Gauge,
        labels: &["provider", "state"],
    }
    AiOldestPermitSeconds {
        help: "Age of the oldest permit that is held; 0 if none is.",
        name: "bowline_ai_oldest_permit_seconds",
        kind: Kind::Gauge,
        labels: &["provider"],
    }
    AiBreakerState {
        help: "Whether a model of a provider is asked: 0 closed (it is), 1 ramp, 2 half-open, 3 open, 4 parked, 5 down until somebody mends it.",
        name: "bowline_ai_breaker_state",
        kind: Kind::Gauge,
        labels: &["provider", "model"],
    }
    AiConnections {
        help: "Connections to a provider of AI models, by state: `open`, of which `idle`.",
        name: "bowline_ai_connections",
        kind: Kind::Gauge,
        labels: &["provider", "state"],
    }
    AiPoolWaits {
        help: "Attempts that found as many connections open as `pool.connections` allows.",
        name: "bowline_ai_pool_waits_total",
        kind: Kind::Counter,
        labels: &["provider"],
    }
    AiKeyTokens {
        help: "Tokens of attempts, by the key of the client; empty where none is asked for.",
        name: "bowline_ai_key_tokens_total",
        kind: Kind::Counter,
        labels: &["key", "provider", "model", "kind"],
    }
    AiBodyBytes {
        help: "Memory set aside for requests to AI models that are being read or answered: `ai.max-bytes` bounds it.",
        name: "bowline_ai_body_bytes",
        kind: Kind::Gauge,
        labels: &[],
    }
    AiConversations {
        help: "Conversations of Socket.IO clients with AI models that are kept.",
        name: "bowline_ai_conversations",
        kind: Kind::Gauge,
        labels: &[],
    }
    TelemetrySpans {
        help: "Spans, by what became of them: `exported`, `rejected` by the collector, or `dropped`, since too many waited or the collector could not be reached.",
        name: "bowline_telemetry_spans_total",
        kind: Kind::Counter,
        labels: &["outcome"],
    }
    TelemetryExports {
        help: "Attempts to send a batch of spans to the collector, by outcome: `ok` or `failed`.",
        name: "bowline_telemetry_exports_total",
        kind: Kind::Counter,
        labels: &["outcome"],
    }
    AlertsFiring {
        help: "Alerts that fire, by rule.",
        name: "bowline_alerts_firing",
        kind: Kind::Gauge,
        labels: &["alert"],
    }
    AlertDeliveries {
        help: "Attempts to tell a receiver about alerts, by outcome.",
        name: "bowline_alert_deliveries_total",
        kind: Kind::Counter,
        labels: &["receiver", "outcome"],
    }
    Accepted {
        help: "Connections that were accepted.",
        name: "bowline_connections_accepted_total",
        kind: Kind::Counter,
        labels: &[],
    }
    HandlerPanics {
        help: "Calls of a handler that panicked.",
        name: "bowline_handler_panics_total",
        kind: Kind::Counter,
        labels: &[],
    }
    WebSocketEnds {
        help: "WebSockets that ended, by who ended them; `cut` is an end without a close frame, `broken` one for a client that broke the protocol.",
        name: "bowline_websocket_ends_total",
        kind: Kind::Counter,
        labels: &["by"],
    }
    TlsHandshakes {
        help: "TLS handshakes, by outcome.",
        name: "bowline_tls_handshakes_total",
        kind: Kind::Counter,
        labels: &["outcome"],
    }
    ProxyHeaderErrors {
        help: "Connections that were closed because they did not begin with the PROXY protocol header that was expected.",
        name: "bowline_proxy_header_errors_total",
        kind: Kind::Counter,
        labels: &[],
    }
    CertificateChanges {
        help: "Certificate files that had changed while the server ran, by whether what stood in them was good.",
        name: "bowline_certificate_changes_total",
        kind: Kind::Counter,
        labels: &["outcome"],
    }
    SessionDuration {
        help: "How long sessions lived that have ended.",
        name: "bowline_session_duration_seconds",
        kind: Kind::Histogram,
        labels: &[],
    }
    HandshakeSeconds {
        help: "Time from the opening of a session to the answer that let it into its first namespace.",
        name: "bowline_handshake_seconds",
        kind: Kind::Histogram,
        labels: &[],
    }
    PingLateness {
        help: "How late pings were sent: the measure of a shard that cannot keep up.",
        name: "bowline_ping_lateness_seconds",
        kind: Kind::Histogram,
        labels: &[],
    }
    PongSeconds {
        help: "Time from a ping to its pong, the delay of the shard included; Engine.IO 4 only.",
        name: "bowline_pong_seconds",
        kind: Kind::Histogram,
        labels: &[],
    }
    ComponentSeconds {
        help: "How long components took to load; absent until they have.",
        name: "bowline_component_seconds",
        kind: Kind::Gauge,
        labels: &["component"],
    }
    BindSeconds {
        help: "Time from the start of the process to listening.",
        name: "bowline_bind_seconds",
        kind: Kind::Gauge,
        labels: &[],
    }
    ReadySeconds {
        help: "Time from the start of the process to the readiness of all required components; absent until then.",
        name: "bowline_ready_seconds",
        kind: Kind::Gauge,
        labels: &[],
    }
    GatewayRestarts {
        help: "Times that the gateway was started anew because it had ended by itself, by reason.",
        name: "bowline_gateway_restarts_total",
        kind: Kind::Counter,
        labels: &["reason"],
    }
    Emits {
        help: "Events that programs asked to be sent, by what they asked through and what came of it.",
        name: "bowline_emits_total",
        kind: Kind::Counter,
        labels: &["source", "outcome"],
    }
    ProcessResidentBytes {
        help: "Memory of the gateway that is resident.",
        name: "bowline_process_resident_bytes",
        kind: Kind::Gauge,
        labels: &[],
    }
    ProcessCpuSeconds {
        help: "Processor time that the gateway has used, user and system.",
        name: "bowline_process_cpu_seconds_total",
        kind: Kind::Counter,
        labels: &[],
    }
    ProcessStartTimeSeconds {
        help: "When the gateway was started, in seconds since 1970.",
        name: "bowline_process_start_time_seconds",
        kind: Kind::Gauge,
        labels: &[],
    }
    AuthChecks {
        help: "Clients of a namespace that asks for tokens, by what came of them.",
        name: "bowline_auth_checks_total",
        kind: Kind::Counter,
        labels: &["namespace", "outcome"],
    }
    KeySetFetches {
        help: "Fetches of key sets (JWKS), by outcome.",
        name: "bowline_key_set_fetches_total",
        kind: Kind::Counter,
        labels: &["namespace", "outcome"],
    }
    BuildInfo {
        help: "Always 1; the version of Bowline is a label.",
        name: "bowline_build_info",
        kind: Kind::Gauge,
        labels: &["version"],
    }
}

/// How the value of a metric moves.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Up only, from zero at the start of the process.
    Counter,
    /// Up and down.
    Gauge,
    /// How many observations fell under each of several bounds; all of it goes up only.
    Histogram,
}
