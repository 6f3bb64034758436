//! Every key of the file: how it is written, which field it sets, and when a change takes effect.
//!
//! The reader, `config show`, `config explain`, the JSON Schema and what a reload applies all come
//! from this one table. What a key means is said in `default.toml`.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use bowline_fleet::spec::{Check, Listen, Match, OnOrphan, Phase, Restart, Signal, Which};
use bowline_names::EnvVar;
use bowline_net::{OnDoubt, Stamp};
use serde_json::Value;
use toml::de::DeValue;

use super::{
    ai::{Named, Priority, ProviderKind},
    effective::{Config, LogFormat},
    kind::{
        Address, Addresses, BaseUrl, Chain, ClientKeyName, CommandLine, CookieName, Count,
        CountOrAuto, DeliverTo, DurabilityName, ENVIRONMENT, Endpoint, EventIdPlace, FarUrl, File,
        Files, HEADERS, HandlerName, HostPatterns, InterpreterPlace, KeyHash, Kind, Level, Listens,
        LoopbackAddress, ModelNames, ModuleName, Needs, Networks, OneOf, Origins, Percent, Pointer,
        Probes, ProxyUrl, SecretTable, SecretText, SessionKeyPlace, ShortText, Size, Text, Texts,
        Threads, Time, TransportNames, Truth, UrlPath, UserName, VariableName, WebOrigin, Words,
    },
    links::{Link, Links, Profile},
};

/// A key.
pub(crate) struct Key {
    /// The whole path, as in `server.tls.cert-file`. `*` stands for any name.
    pub(crate) path: &'static str,
    pub(crate) change: Change,
    /// The variable and the flag that say the same.
    pub(crate) variable: Option<EnvVar>,
    /// Whether it must be there if its table is.
    pub(crate) required: bool,
    field: &'static dyn Field,
}

/// When a changed value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// With `bowline reload`.
    Reload,
    /// When the server is started again.
    Restart,
}

/// The time somebody waits: not nothing, and not so long that it must be a slip.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// A drain may be switched off, and ends before a supervisor of any patience gives up.
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// How long a client waits for an app: longer than that it has gone.
const ANSWER: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);

/// How far clocks may differ. More is no difference of clocks.
const LEEWAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

/// A count of things. Above it a number is a slip, and would not fit in memory anyway.
const COUNT: RangeInclusive<u64> = 1..=100_000_000;

/// A size in memory, for one session: up to 1 GiB.
const BYTES: RangeInclusive<u64> = 1..=(1 << 30);

/// A log in memory: enough for every shard to have a share of it, up to 1 TiB.
const LOG_BYTES: RangeInclusive<u64> = (64 << 10)..=(1 << 40);

const STAMPS: OneOf<Stamp> =
    OneOf(&[("auto", Stamp::Auto), ("always", Stamp::Always), ("never", Stamp::Never)]);

const DOUBTS: OneOf<OnDoubt> = OneOf(&[("repeat", OnDoubt::Repeat), ("skip", OnDoubt::Skip)]);

/// How long an attempt at a provider may take, or a part of it.
const ATTEMPT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 3600);

/// Keys of requests that may come again; none switches it off.
const KNOWN: RangeInclusive<u64> = 0..=1_000_000;

/// How long an answer is kept for whoever asks again: not for ever, or a key means yesterday's question.
const KEEP: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// How long a request goes on for a client that may come back. It costs what the model costs.
const LINGER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

/// Requests to providers that are under way together: each has a connection.
const PERMITS: RangeInclusive<u64> = 1..=100_000;

const PROVIDER_KINDS: OneOf<ProviderKind> =
    OneOf(&[("openai", ProviderKind::OpenAi), ("anthropic", ProviderKind::Anthropic)]);

const PRIORITIES: OneOf<Priority> =
    OneOf(&[("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)]);

const FORMATS: OneOf<LogFormat> =
    OneOf(&[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]);

const MATCHES: OneOf<Match> = OneOf(&[("all", Match::All), ("any", Match::Any)]);

const RESTARTS: OneOf<Restart> = OneOf(&[
    ("always", Restart::Always),
    ("on-failure", Restart::OnFailure),
    ("never", Restart::Never),
]);

const ORPHANS: OneOf<OnOrphan> = OneOf(&[("adopt", OnOrphan::Adopt), ("end", OnOrphan::End)]);

const SIGNALS: OneOf<Signal> = OneOf(&[
    ("TERM", Signal::Term),
    ("INT", Signal::Int),
    ("QUIT", Signal::Quit),
    ("HUP", Signal::Hup),
    ("USR1", Signal::Usr1),
    ("USR2", Signal::Usr2),
    ("KILL", Signal::Kill),
]);

/// What a service may take to end. None is killed at once.
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// How old a service may get. Younger ones would do nothing but start.
const AGE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(366 * 86_400);

/// What a crash may leave, up to 1 TiB; nothing is usual.
const CORE: RangeInclusive<u64> = 0..=(1 << 40);

/// A file of a log: not so small that rotating is all that is done, up to 1 TiB.
const LOG_FILE: RangeInclusive<u64> = (64 << 10)..=(1 << 40);

const CLAIM: Text = Text("the name of a claim, as in \"rooms\"");

const SERVICE: Text = Text("the name of a table in [services]");

const LINK: Text = Text("the name of a table in [links]");

const TEXT: Text = Text("a text");

const PROFILES: OneOf<Profile> = OneOf(&[
    ("websocket", Profile::WebSocket),
    ("socketio", Profile::SocketIo),
    ("webex", Profile::Webex),
]);

/// How often a link proves itself, and how long that may take. Services count what is too often as abuse.
const PROBE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

/// How often a service is asked something that it may have no answer to: it can be switched off.
const ASK: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

/// How old a connection of a link may get.
const MAX_AGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);

/// How long two connections of a link are beside each other: the contract with services is that the old one is gone
/// within 2 s.
const OVERLAP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(2);

/// A field that always has a value.
macro_rules! field {
    ($kind:expr, $($at:ident).+) => {
        Typed {
            kind: $kind,
            get: |config| Some(&config.$($at).+),
            set: |config, value| config.$($at).+ = value,
        }
    };
}

/// A field that may have none.
macro_rules! optional {
    ($kind:expr, $($at:ident).+) => {
        Typed {
            kind: $kind,
            get: |config| config.$($at).+.as_ref(),
            set: |config, value| config.$($at).+ = Some(value),
        }
    };
}

/// One of the two files of `[server.tls]`. The other one is empty until it has been read.
macro_rules! tls {
    ($at:ident) => {
        Typed {
            kind: File,
            get: |config| config.server.tls.as_ref().map(|tls| &tls.$at),
            set: |config, value| config.server.tls.get_or_insert_default().$at = value,
        }
    };
}

/// A field of a table that has a name: `optional` if it may have none. `at` is where it stands in
/// what `entry` makes.
macro_rules! named {
    ($kind:expr, $($tables:ident).+, optional $($at:ident).+) => {
        InNamed {
            kind: $kind,
            tables: |config| &config.$($tables).+.0,
            entry: |config, name| config.$($tables).+.entry(name),
            get: |table| table.$($at).+.as_ref(),
            set: |table, value| table.$($at).+ = Some(value),
        }
    };
    ($kind:expr, $($tables:ident).+, $($at:ident).+) => {
        InNamed {
            kind: $kind,
            tables: |config| &config.$($tables).+.0,
            entry: |config, name| config.$($tables).+.entry(name),
            get: |table| Some(&table.$($at).+),
            set: |table, value| table.$($at).+ = value,
        }
    };
}

/// A field of a namespace.
macro_rules! namespace {
    ($kind:expr, $($at:tt)+) => { named!($kind, namespaces, $($at)+) };
}

/// A field of a namespace's `auth.jwt`.
macro_rules! jwt {
    ($kind:expr, optional $at:ident) => {
        InNamed {
            kind: $kind,
            tables: |config| &config.namespaces.0,
            entry: |config, name| config.namespaces.entry(name),
            get: |namespace| namespace.jwt.as_ref()?.$at.as_ref(),
            set: |namespace, value| namespace.jwt.get_or_insert_default().$at = Some(value),
        }
    };
    ($kind:expr, $at:ident) => {
        InNamed {
            kind: $kind,
            tables: |config| &config.namespaces.0,
            entry: |config, name| config.namespaces.entry(name),
            get: |namespace| Some(&namespace.jwt.as_ref()?.$at),
            set: |namespace, value| namespace.jwt.get_or_insert_default().$at = value,
        }
    };
}

/// A field of an app in `[backends]`.
macro_rules! backend {
    ($kind:expr, $($at:tt)+) => { named!($kind, backends, $($at)+) };
}

/// A field of a provider in `[ai.providers]`.
macro_rules! provider {
    ($kind:expr, $($at:tt)+) => { named!($kind, ai.providers, $($at)+) };
}

/// A field of a model in `[ai.models]`.
macro_rules! model {
    ($kind:expr, $($at:tt)+) => { named!($kind, ai.models, $($at)+) };
}

/// A field of a client's key in `[ai.keys]`.
macro_rules! client_key {
    ($kind:expr, $($at:tt)+) => { named!($kind, ai.keys, $($at)+) };
}

/// A field of a process in `[services]`.
macro_rules! service {
    ($kind:expr, $($at:tt)+) => { named!($kind, services, $($at)+) };
}

/// A field of a link in `[links]`.
macro_rules! link {
    ($kind:expr, $($at:tt)+) => { named!($kind, links.all, $($at)+) };
}

/// Every key, in the order of the file.
pub(crate) static KEYS: &[Key] = &[
    key("server.listen", Change::Restart, &field!(Addresses, server.listen)).or(EnvVar::Listen),
    key("server.shards", Change::Restart, &field!(Threads, server.shards)).or(EnvVar::Shards),
    key("server.state-dir", Change::Restart, &optional!(File, server.state_dir))
        .or(EnvVar::StateDir),
    key("server.trusted-proxies", Change::Reload, &field!(Networks, server.trusted_proxies)),
    key("server.proxy-protocol", Change::Reload, &field!(Truth, server.proxy_protocol)),
    key("server.drain", Change::Reload, &field!(Time(DRAIN), server.drain)),
    key("server.tls.cert-file", Change::Reload, &tls!(cert_file)).required(),
    key("server.tls.key-file", Change::Reload, &tls!(key_file)).required(),
    key("admin.listen", Change::Restart, &field!(Address, admin.listen)).or(EnvVar::AdminListen),
    key("admin.token-file", Change::Reload, &optional!(File, admin.token_file))
        .or(EnvVar::AdminTokenFile),
    key("health.public-url", Change::Reload, &optional!(WebOrigin, health.public_url))
        .or(EnvVar::PublicUrl),
    key("engine.path", Change::Reload, &field!(UrlPath, engine.path)),
    key("engine.transports", Change::Reload, &field!(TransportNames, engine.transports)),
    key("engine.allow-eio3", Change::Reload, &field!(Truth, engine.allow_eio3)),
    key("engine.ping-interval", Change::Reload, &field!(Time(WAIT), engine.ping_interval)),
    key("engine.ping-timeout", Change::Reload, &field!(Time(WAIT), engine.ping_timeout)),
    key("engine.upgrade-timeout", Change::Reload, &field!(Time(WAIT), engine.upgrade_timeout)),
    key("engine.connect-timeout", Change::Reload, &field!(Time(WAIT), engine.connect_timeout)),
    key("engine.max-payload", Change::Reload, &field!(Size(BYTES), engine.max_payload_bytes)),
    key("engine.compression", Change::Reload, &field!(Truth, engine.compression)),
    key(
        "engine.cors-allowed-origins",
        Change::Reload,
        &field!(Origins, engine.cors_allowed_origins),
    ),
    key("engine.cookie", Change::Reload, &field!(CookieName, engine.cookie)),
    key("limits.connections", Change::Reload, &field!(CountOrAuto(COUNT), limits.connections)),
    key(
        "limits.connections-per-address",
        Change::Reload,
        &field!(CountOrAuto(COUNT), limits.connections_per_address),
    ),
    key(
        "limits.handshakes-per-second",
        Change::Reload,
        &field!(Count(COUNT), limits.handshakes_per_second),
    ),
    key(
        "limits.handshakes-per-second-per-address",
        Change::Reload,
        &field!(CountOrAuto(COUNT), limits.handshakes_per_second_per_address),
    ),
    key(
        "limits.connections-per-subject",
        Change::Reload,
        &field!(CountOrAuto(COUNT), limits.connections_per_subject),
    ),
    key("limits.request-head", Change::Reload, &field!(Time(WAIT), limits.request_head)),
    key(
        "limits.packets-per-payload",
        Change::Reload,
        &field!(Count(COUNT), limits.packets_per_payload),
    ),
    // None is a sensible number of attachments.
    key("limits.attachments", Change::Reload, &field!(Count(0..=10_000), limits.attachments)),
    key(
        "limits.namespaces-per-session",
        Change::Reload,
        &field!(Count(COUNT), limits.namespaces_per_session),
    ),
    key(
        "limits.rooms-per-session",
        Change::Reload,
        &field!(Count(COUNT), limits.rooms_per_session),
    ),
    key(
        "limits.pending-acks-per-session",
        Change::Reload,
        &field!(Count(COUNT), limits.pending_acks_per_session),
    ),
    key(
        "limits.events-per-second",
        Change::Reload,
        &field!(Count(1..=500_000), limits.events_per_second),
    ),
    key(
        "limits.queued-bytes-per-session",
        Change::Reload,
        &field!(Size(BYTES), limits.queued_bytes_per_session),
    ),
    key("continuity.window", Change::Reload, &field!(Time(WAIT), continuity.window)),
    key("continuity.durability", Change::Reload, &field!(DurabilityName, continuity.durability)),
    key("continuity.max-bytes", Change::Reload, &field!(Size(LOG_BYTES), continuity.max_bytes)),
    key("continuity.max-away", Change::Reload, &field!(Count(COUNT), continuity.max_away)),
    key("alerts.rules-file", Change::Reload, &optional!(File, alerts.rules_file)),
    key("alerts.alertmanager-url", Change::Reload, &optional!(Endpoint, alerts.alertmanager_url)),
    key("alerts.webhook-url", Change::Reload, &optional!(Endpoint, alerts.webhook_url)),
    key("telemetry.otlp-endpoint", Change::Reload, &optional!(BaseUrl, telemetry.otlp_endpoint)),
    key(
        "telemetry.otlp-headers-file",
        Change::Reload,
        &optional!(File, telemetry.otlp_headers_file),
    ),
    key(
        "telemetry.otlp-headers-env",
        Change::Reload,
        &optional!(VariableName, telemetry.otlp_headers_env),
    ),
    key("telemetry.service-name", Change::Reload, &optional!(ShortText, telemetry.service_name)),
    key("telemetry.sample", Change::Reload, &field!(Percent, telemetry.sample_percent)),
    key("telemetry.propagate", Change::Reload, &field!(Truth, telemetry.propagate)),
    key("log.level", Change::Reload, &field!(Level, log.level)).or(EnvVar::LogLevel),
    key("log.format", Change::Reload, &field!(FORMATS, log.format)).or(EnvVar::LogFormat),
    key("namespaces.*.handler", Change::Reload, &namespace!(HandlerName, handler)).required(),
    key("namespaces.*.stamp", Change::Reload, &namespace!(STAMPS, stamp)),
    key("namespaces.*.on-doubt", Change::Reload, &namespace!(DOUBTS, on_doubt)),
    key("namespaces.*.event-id", Change::Reload, &namespace!(EventIdPlace, optional event_id)),
    key(
        "namespaces.*.session-key",
        Change::Reload,
        &namespace!(SessionKeyPlace, optional session_key),
    ),
    key("namespaces.*.ai-key", Change::Reload, &namespace!(ClientKeyName, optional ai_key)),
    key("namespaces.*.auth.jwt.secret-file", Change::Reload, &jwt!(File, optional secret_file)),
    key(
        "namespaces.*.auth.jwt.public-key-file",
        Change::Reload,
        &jwt!(File, optional public_key_file),
    ),
    key("namespaces.*.auth.jwt.jwks-url", Change::Reload, &jwt!(Endpoint, optional jwks_url)),
    key("namespaces.*.auth.jwt.issuer", Change::Reload, &jwt!(Words("issuers"), issuer)),
    key("namespaces.*.auth.jwt.audience", Change::Reload, &jwt!(Words("audiences"), audience)),
    key("namespaces.*.auth.jwt.rooms-claim", Change::Reload, &jwt!(CLAIM, optional rooms_claim)),
    key("namespaces.*.auth.jwt.data-claim", Change::Reload, &jwt!(CLAIM, optional data_claim)),
    key("namespaces.*.auth.jwt.leeway", Change::Reload, &jwt!(Time(LEEWAY), leeway)),
    key("backends.*.url", Change::Reload, &backend!(Endpoint, url)).required(),
    key("backends.*.secret-file", Change::Reload, &backend!(File, optional secret_file)),
    key("backends.*.timeout", Change::Reload, &backend!(Time(ANSWER), timeout)),
    key("backends.*.max-concurrent", Change::Reload, &backend!(Count(1..=100_000), max_concurrent)),
    key("backends.*.queue", Change::Reload, &backend!(Count(1..=10_000_000), queue)),
    key("backends.*.recheck", Change::Reload, &backend!(Truth, recheck)),
    key("backends.*.service", Change::Reload, &backend!(SERVICE, optional service)),
    key("ai.max-concurrent", Change::Reload, &field!(Count(PERMITS), ai.max_concurrent)),
    key(
        "ai.max-concurrent-per-session",
        Change::Reload,
        &field!(Count(PERMITS), ai.max_concurrent_per_session),
    ),
    key("ai.queue", Change::Reload, &field!(Count(0..=100_000), ai.queue)),
    key("ai.deadline", Change::Reload, &field!(Time(ATTEMPT), ai.deadline)),
    key("ai.client-stall", Change::Reload, &field!(Time(ATTEMPT), ai.client_stall)),
    key("ai.retry-budget", Change::Reload, &field!(Percent, ai.retry_percent)),
    key("ai.max-request", Change::Reload, &field!(Size(BYTES), ai.request_bytes)),
    key("ai.max-bytes", Change::Reload, &field!(Size(LOG_BYTES), ai.body_bytes)),
    key("ai.slow-stream.window", Change::Reload, &field!(Time(ATTEMPT), ai.slow_stream.window)),
    key(
        "ai.slow-stream.min-tokens",
        Change::Reload,
        &field!(Count(0..=1_000_000), ai.slow_stream.min_tokens),
    ),
    key("ai.conversations.max", Change::Reload, &field!(Count(COUNT), ai.conversations.max)),
    key("ai.conversations.turns", Change::Reload, &field!(Count(COUNT), ai.conversations.turns)),
    key(
        "ai.conversations.max-bytes",
        Change::Reload,
        &field!(Size(LOG_BYTES), ai.conversations.max_bytes),
    ),
    key("ai.idempotency.max", Change::Reload, &field!(Count(KNOWN), ai.idempotency.max)),
    key(
        "ai.idempotency.max-bytes",
        Change::Reload,
        &field!(Size(LOG_BYTES), ai.idempotency.max_bytes),
    ),
    key(
        "ai.idempotency.max-answer",
        Change::Reload,
        &field!(Size(BYTES), ai.idempotency.max_answer),
    ),
    key("ai.idempotency.keep", Change::Reload, &field!(Time(KEEP), ai.idempotency.keep)),
    key("ai.idempotency.linger", Change::Reload, &field!(Time(LINGER), ai.idempotency.linger)),
    key("ai.providers.*.kind", Change::Reload, &provider!(PROVIDER_KINDS, kind)).required(),
    key("ai.providers.*.base-url", Change::Reload, &provider!(BaseUrl, base_url)).required(),
    key(
        "ai.providers.*.api-key-env",
        Change::Reload,
        &provider!(VariableName, optional api_key_env),
    ),
    key("ai.providers.*.api-key-file", Change::Reload, &provider!(File, optional api_key_file)),
    key(
        "ai.providers.*.max-concurrent",
        Change::Reload,
        &provider!(Count(PERMITS), max_concurrent),
    ),
    key(
        "ai.providers.*.timeout.connect",
        Change::Reload,
        &provider!(Time(ATTEMPT), timeout.connect),
    ),
    key(
        "ai.providers.*.timeout.first-content",
        Change::Reload,
        &provider!(Time(ATTEMPT), timeout.first_content),
    ),
    key("ai.providers.*.timeout.idle", Change::Reload, &provider!(Time(ATTEMPT), timeout.idle)),
    key("ai.providers.*.timeout.total", Change::Reload, &provider!(Time(ATTEMPT), timeout.total)),
    key(
        "ai.providers.*.pool.connections",
        Change::Reload,
        &provider!(Count(PERMITS), pool.connections),
    ),
    key("ai.providers.*.pool.idle", Change::Reload, &provider!(Time(ATTEMPT), pool.idle)),
    key("ai.models.*.try", Change::Reload, &model!(Chain, chain)).required(),
    key(
        "ai.models.*.max-concurrent",
        Change::Reload,
        &model!(Count(PERMITS), optional max_concurrent),
    ),
    key("ai.keys.*.sha256", Change::Reload, &client_key!(KeyHash, sha256)).required(),
    key("ai.keys.*.priority", Change::Reload, &client_key!(PRIORITIES, priority)),
    key(
        "ai.keys.*.limits.requests-per-minute",
        Change::Reload,
        &client_key!(Count(COUNT), optional limits.requests_per_minute),
    ),
    key(
        "ai.keys.*.limits.tokens-per-minute",
        Change::Reload,
        &client_key!(Count(1..=1_000_000_000_000), optional limits.tokens_per_minute),
    ),
    key(
        "ai.keys.*.limits.max-concurrent",
        Change::Reload,
        &client_key!(Count(PERMITS), optional limits.max_concurrent),
    ),
    key(
        "ai.keys.*.limits.models",
        Change::Reload,
        &client_key!(ModelNames, optional limits.models),
    ),
    key("services.*.command", Change::Reload, &service!(CommandLine, optional command)),
    key("services.*.script", Change::Reload, &service!(File, optional script)),
    key("services.*.module", Change::Reload, &service!(ModuleName, optional module)),
    key("services.*.args", Change::Reload, &service!(Texts, args)),
    key("services.*.python", Change::Reload, &service!(InterpreterPlace, optional python)),
    key("services.*.node", Change::Reload, &service!(InterpreterPlace, optional node)),
    key("services.*.directory", Change::Reload, &service!(File, optional directory)),
    key("services.*.environment", Change::Reload, &service!(ENVIRONMENT, environment)),
    key("services.*.environment-files", Change::Reload, &service!(Files, environment_files)),
    key("services.*.user", Change::Reload, &service!(UserName, optional user)),
    key("services.*.needs", Change::Reload, &service!(Needs, needs)),
    key("services.*.listen", Change::Reload, &service!(Listens, listen)),
    key("services.*.startup", Change::Reload, &service!(Probes(Phase::Startup), startup)),
    key("services.*.ready", Change::Reload, &service!(Probes(Phase::Ready), ready)),
    key("services.*.live", Change::Reload, &service!(Probes(Phase::Live), live)),
    key("services.*.match", Change::Reload, &service!(MATCHES, matching)),
    key("services.*.required", Change::Reload, &service!(Truth, required)),
    key("services.*.link", Change::Reload, &service!(LINK, optional link)),
    key("services.*.start-deadline", Change::Reload, &service!(Time(WAIT), start_deadline)),
    key(
        "services.*.startup-timeout",
        Change::Reload,
        &service!(Time(WAIT), optional startup_timeout),
    ),
    key("services.*.restart", Change::Reload, &service!(RESTARTS, restart)),
    key("services.*.overlap", Change::Reload, &service!(Truth, overlap)),
    key("services.*.on-orphan", Change::Reload, &service!(ORPHANS, on_orphan)),
    key("services.*.backoff.first", Change::Reload, &service!(Time(WAIT), backoff.first)),
    key("services.*.backoff.max", Change::Reload, &service!(Time(WAIT), backoff.max)),
    key("services.*.backoff.reset", Change::Reload, &service!(Time(WAIT), backoff.reset)),
    key(
        "services.*.crash-loop.deaths",
        Change::Reload,
        &service!(Count(2..=1_000), crash_loop.deaths),
    ),
    key("services.*.crash-loop.within", Change::Reload, &service!(Time(WAIT), crash_loop.within)),
    key("services.*.crash-loop.retry", Change::Reload, &service!(Time(WAIT), crash_loop.retry)),
    key("services.*.stop.signal", Change::Reload, &service!(SIGNALS, stop.signal)),
    key("services.*.stop.grace", Change::Reload, &service!(Time(GRACE), stop.grace)),
    key(
        "services.*.limits.open-files",
        Change::Reload,
        &service!(Count(COUNT), optional limits.open_files),
    ),
    key(
        "services.*.limits.memory",
        Change::Reload,
        &service!(Size(LOG_BYTES), optional limits.memory),
    ),
    key(
        "services.*.limits.processes",
        Change::Reload,
        &service!(Count(COUNT), optional limits.processes),
    ),
    key("services.*.limits.core", Change::Reload, &service!(Size(CORE), optional limits.core)),
    key(
        "services.*.recycle.requests",
        Change::Reload,
        &service!(Count(1..=1_000_000_000_000), optional recycle.requests),
    ),
    key("services.*.recycle.age", Change::Reload, &service!(Time(AGE), optional recycle.age)),
    key(
        "services.*.recycle.memory",
        Change::Reload,
        &service!(Size(LOG_BYTES), optional recycle.memory),
    ),
    key("services.*.logs.max-size", Change::Reload, &service!(Size(LOG_FILE), logs.max_bytes)),
    key("services.*.logs.files", Change::Reload, &service!(Count(1..=1_000), logs.files)),
    key("services.*.logs.timestamps", Change::Reload, &service!(Truth, logs.timestamps)),
    key("links.listen", Change::Restart, &field!(LoopbackAddress, links.listen)),
    key(
        "links.attempts-per-second",
        Change::Restart,
        &field!(Count(1..=10_000), links.attempts_per_second),
    ),
    key("links.attempts-burst", Change::Restart, &field!(Count(1..=10_000), links.attempts_burst)),
    key("links.waiting-max", Change::Restart, &field!(Count(COUNT), links.waiting_max)),
    key("links.*.profile", Change::Reload, &link!(PROFILES, profile)).required(),
    key("links.*.token-file", Change::Reload, &link!(File, optional token_file)),
    key("links.*.token-env", Change::Reload, &link!(VariableName, optional token_env)),
    key("links.*.url", Change::Reload, &link!(FarUrl, optional url)),
    key("links.*.headers", Change::Reload, &link!(HEADERS, headers)),
    key("links.*.protocols", Change::Reload, &link!(Texts, protocols)),
    key("links.*.hello", Change::Reload, &link!(SecretText, optional hello)),
    key("links.*.message-id", Change::Reload, &link!(Pointer, optional message_id)),
    key("links.*.room", Change::Reload, &link!(Pointer, optional room)),
    key("links.*.probe", Change::Reload, &link!(TEXT, optional probe)),
    key("links.*.ack", Change::Reload, &link!(TEXT, optional ack)),
    key("links.*.eio", Change::Reload, &link!(Count(3..=4), eio)),
    key("links.*.path", Change::Reload, &link!(UrlPath, path)),
    key("links.*.auth", Change::Reload, &link!(SecretTable, optional auth)),
    key("links.*.recovery", Change::Reload, &link!(Truth, recovery)),
    key("links.*.catalog-url", Change::Reload, &link!(BaseUrl, catalog_url)),
    key("links.*.api-url", Change::Reload, &link!(BaseUrl, api_url)),
    key("links.*.probe-room", Change::Reload, &link!(TEXT, optional probe_room)),
    key("links.*.deliver", Change::Reload, &link!(DeliverTo, deliver)),
    key("links.*.intercept", Change::Reload, &link!(HostPatterns, intercept)),
    key("links.*.required", Change::Reload, &link!(Truth, required)),
    key("links.*.service", Change::Reload, &link!(SERVICE, optional service)),
    key("links.*.restart-after", Change::Reload, &link!(Count(1..=10_000), optional restart_after)),
    key("links.*.confirm-timeout", Change::Reload, &link!(Time(WAIT), confirm_timeout)),
    key("links.*.offers-max", Change::Reload, &link!(Count(1..=1_000_000), offers_max)),
    key("links.*.probe-interval", Change::Reload, &link!(Time(PROBE), probe_interval)),
    key("links.*.probe-timeout", Change::Reload, &link!(Time(WAIT), keeper.probe_timeout)),
    key("links.*.look-interval", Change::Reload, &link!(Time(ASK), look_interval)),
    key("links.*.idle-after", Change::Reload, &link!(Time(WAIT), keeper.idle_after)),
    key("links.*.ping-interval", Change::Reload, &link!(Time(ASK), ping_interval)),
    key("links.*.ping-timeout", Change::Reload, &link!(Time(WAIT), keeper.ping_timeout)),
    key("links.*.max-age", Change::Reload, &link!(Time(MAX_AGE), keeper.max_age)),
    key("links.*.overlap", Change::Reload, &link!(Time(OVERLAP), keeper.overlap)),
    key("links.*.open-timeout", Change::Reload, &link!(Time(WAIT), keeper.open_timeout)),
    key("links.*.refused-pause", Change::Reload, &link!(Time(WAIT), keeper.refused_pause)),
    key("links.*.proxy", Change::Reload, &link!(ProxyUrl, optional proxy)),
    key("links.*.ca-file", Change::Reload, &link!(File, optional ca_file)),
    key("links.*.backoff.first", Change::Reload, &link!(Time(WAIT), keeper.backoff_first)),
    key("links.*.backoff.max", Change::Reload, &link!(Time(WAIT), keeper.backoff_max)),
    key("links.*.backoff.reset", Change::Reload, &link!(Time(WAIT), keeper.backoff_reset)),
    key("links.*.http.idle-max", Change::Reload, &link!(Time(WAIT), http.idle_max)),
    key("links.*.http.connect-timeout", Change::Reload, &link!(Time(WAIT), http.connect_timeout)),
    key("links.*.http.head-timeout", Change::Reload, &link!(Time(WAIT), http.head_timeout)),
    key(
        "links.*.http.reused-head-timeout",
        Change::Reload,
        &link!(Time(WAIT), http.reused_head_timeout),
    ),
];

impl Key {
    /// Sets the field. `name` is what stands in the place of the `*` of the path.
    ///
    /// # Errors
    /// What goes on after the name of the key, when the value is not of its kind.
    pub(crate) fn set(
        &self,
        config: &mut Config,
        name: &str,
        value: &DeValue<'_>,
    ) -> Result<(), String> {
        self.field.set(config, name, value)
    }

    /// Returns the value as the file would have it: null where nothing is set, and for a path with
    /// `*` an object from names to values. It may hold a secret.
    pub(crate) fn get(&self, config: &Config) -> Value {
        self.field.get(config)
    }

    /// Returns the same without what is secret in it.
    pub(crate) fn show(&self, config: &Config) -> Value {
        self.field.show(config)
    }

    /// What one writes, as in "write …".
    pub(crate) fn words(&self) -> String {
        self.field.words()
    }

    /// The JSON Schema of the value.
    pub(crate) fn schema(&self) -> Value {
        self.field.schema()
    }

    const fn or(mut self, variable: EnvVar) -> Self {
        self.variable = Some(variable);
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// Returns the whole path of a key that has this name and stands in another table. Those that
/// stand in several are none, but for one that stands in a table without a name of its own.
pub(crate) fn path_of(name: &str) -> Option<&'static str> {
    let name = name.replace('_', "-");
    let only = |named: bool| {
        let paths = KEYS.iter().map(|key| key.path).filter(|path| last(path) == name);
        let mut paths = paths.filter(|path| named || !path.contains('*'));
        paths.next().filter(|_| paths.next().is_none())
    };
    only(false).or_else(|| only(true))
}

/// Whether two links have different values at a key of `[links.NAME]`.
pub(crate) fn differ(name: &str, one: &Link, other: &Link) -> bool {
    let of = |link: &Link| {
        let all = Named(vec![(String::new(), link.clone())]);
        Config { links: Links { all, ..Links::default() }, ..Config::default() }
    };
    let key = KEYS.iter().find(|key| key.path.strip_prefix("links.*.") == Some(name));
    key.is_some_and(|key| key.get(&of(one)) != key.get(&of(other)))
}

/// The name of a key, without its tables.
pub(crate) fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or_default()
}

/// Returns the files that are named, whose paths may be relative.
pub(crate) fn files(config: &mut Config) -> impl Iterator<Item = &mut PathBuf> {
    let Config {
        server, admin, alerts, namespaces, backends, ai, services, links, telemetry, ..
    } = config;
    let of_services = services.0.iter_mut().flat_map(|(_, service)| {
        // As `python main.py` means it, run there.
        if let (Some(script), Some(directory)) = (&mut service.script, &service.directory) {
            *script = directory.join(&*script);
        }
        let interpreters = [&mut service.python, &mut service.node].into_iter().flatten();
        let interpreters = interpreters.filter_map(|interpreter| match interpreter {
            Which::Auto => None,
            Which::Path(path) => Some(path),
        });
        let probes = service.startup.iter_mut().chain(&mut service.ready).chain(&mut service.live);
        let asked = probes.filter_map(|probe| match &mut probe.check {
            Check::Tcp(listen) => Some(listen),
            _ => None,
        });
        let sockets = service.listen.iter_mut().chain(asked).filter_map(|listen| match listen {
            Listen::Tcp(_) => None,
            Listen::Unix(path) => Some(path),
        });
        let rest = [&mut service.script, &mut service.directory].into_iter().flatten();
        rest.chain(interpreters).chain(sockets).chain(&mut service.environment_files)
    });
    let api_keys = ai.providers.0.iter_mut().map(|(_, provider)| &mut provider.api_key_file);
    let secrets = backends.0.iter_mut().map(|(_, backend)| &mut backend.secret_file);
    let jwts = namespaces.0.iter_mut().filter_map(|(_, namespace)| namespace.jwt.as_mut());
    let keys = jwts.flat_map(|jwt| [&mut jwt.secret_file, &mut jwt.public_key_file]);
    let tls = server.tls.iter_mut().flat_map(|tls| [&mut tls.cert_file, &mut tls.key_file]);
    let of_links = links.all.0.iter_mut();
    let of_links = of_links.flat_map(|(_, link)| [&mut link.token_file, &mut link.ca_file]);
    let headers = &mut telemetry.otlp_headers_file;
    let rest = [&mut server.state_dir, &mut admin.token_file, &mut alerts.rules_file, headers];
    tls.chain(rest.into_iter().chain(keys).chain(secrets).chain(api_keys).chain(of_links).flatten())
        .chain(of_services)
}

const fn key(path: &'static str, change: Change, field: &'static dyn Field) -> Key {
    Key { path, change, variable: None, required: false, field }
}

/// The part of [`Config`] that belongs to a key, and the kind of its value.
trait Field: Sync {
    fn set(&self, config: &mut Config, name: &str, value: &DeValue<'_>) -> Result<(), String>;
    fn get(&self, config: &Config) -> Value;
    fn show(&self, config: &Config) -> Value;
    fn words(&self) -> String;
    fn schema(&self) -> Value;
}

/// A field of its own.
struct Typed<K, T: 'static> {
    kind: K,
    get: fn(&Config) -> Option<&T>,
    set: fn(&mut Config, T),
}

impl<T, K: Kind<T>> Field for Typed<K, T> {
    fn set(&self, config: &mut Config, _: &str, value: &DeValue<'_>) -> Result<(), String> {
        (self.set)(config, self.kind.read(value)?);
        Ok(())
    }

    fn get(&self, config: &Config) -> Value {
        (self.get)(config).map_or(Value::Null, |value| self.kind.write(value))
    }

    fn show(&self, config: &Config) -> Value {
        (self.get)(config).map_or(Value::Null, |value| self.kind.show(value))
    }

    fn words(&self) -> String {
        self.kind.words()
    }

    fn schema(&self) -> Value {
        self.kind.schema()
    }
}

/// A field of a table that has a name, in all of those that have it.
struct InNamed<K, T: 'static, E: 'static> {
    kind: K,
    tables: fn(&Config) -> &[(String, E)],
    entry: for<'a> fn(&'a mut Config, &str) -> &'a mut E,
    get: fn(&E) -> Option<&T>,
    set: fn(&mut E, T),
}

impl<T, E, K: Kind<T>> InNamed<K, T, E> {
    fn each(&self, config: &Config, write: impl Fn(&T) -> Value) -> Value {
        let all = (self.tables)(config).iter();
        all.filter_map(|(name, one)| Some((name.clone(), write((self.get)(one)?)))).collect()
    }
}

impl<T, E, K: Kind<T>> Field for InNamed<K, T, E> {
    fn set(&self, config: &mut Config, name: &str, value: &DeValue<'_>) -> Result<(), String> {
        let value = self.kind.read(value)?;
        (self.set)((self.entry)(config, name), value);
        Ok(())
    }

    fn get(&self, config: &Config) -> Value {
        self.each(config, |value| self.kind.write(value))
    }

    fn show(&self, config: &Config) -> Value {
        self.each(config, |value| self.kind.show(value))
    }

    fn words(&self) -> String {
        self.kind.words()
    }

    fn schema(&self) -> Value {
        self.kind.schema()
    }
}
