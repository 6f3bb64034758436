//! What went wrong at a provider, who is to blame, and what may be done about it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode};

use super::{Untranslatable, json::brief, judge::Judge};
use crate::limit::FAULT_WORDS_MAX_BYTES;

/// What went wrong in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it was.
    pub kind: FaultKind,
    /// What may be done.
    pub retry: Retry,
    /// Who is to blame.
    pub blames: Blame,
    /// How long the provider asked to be left alone (`retry-after-ms`, `retry-after`), from now.
    pub after: Option<Duration>,
    /// How long the target is of no use: its allowance is used up until then. From now, at most 31 days.
    pub park: Option<Duration>,
    /// The account runs more at once than it may (GLM 1302, Kimi's concurrency): fewer permits would help.
    pub crowded: bool,
    /// The status of the provider's answer, if there was one.
    pub status: Option<StatusCode>,
    /// The provider's own code, if it gave one.
    pub code: Option<String>,
    /// The field that the provider complains of, if it said.
    pub param: Option<String>,
    /// What the provider said, or what happened; at most 500 bytes, on one line.
    pub words: String,
}

/// What went wrong, as it is counted. Closed: it is a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// Something took too long; which timer it was is told in records, and not by the label.
    Timeout(Timer),
    /// Too many requests or tokens for this account.
    RateLimited,
    /// The provider has more to do than it can, whoever asks.
    Overloaded,
    /// Another fault of the provider: 5xx, or an error in a stream.
    ServerError,
    /// The provider does not accept the gateway's key, or locked the account.
    Auth,
    /// The account has no balance.
    Billing,
    /// The provider's content policy.
    Refused,
    /// The prompt is longer than the model's context.
    TooLong,
    /// The request is wrong.
    BadRequest,
    /// The provider has no such model or endpoint.
    NotFound,
    /// What the provider sent is not what its dialect has.
    Malformed,
    /// The answer broke off, though the connection was closed in order.
    Truncated,
    /// No connection, or it was reset.
    Broken,
    /// Content came, but too slowly to be of use.
    Slow,
    /// The gateway had no memory for the answer; nothing is said of the provider.
    NoMemory,
}

/// The timers of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// Until there is a connection.
    Connect,
    /// From the request until the first content of a stream.
    FirstContent,
    /// Between content and content.
    Idle,
    /// The whole attempt, its share of the request's deadline included.
    Total,
}

impl Timer {
    /// Its name, as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::FirstContent => "first-content",
            Self::Idle => "idle",
            Self::Total => "total",
        }
    }
}

impl FaultKind {
    /// Its value of the metrics label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::RateLimited => "rate-limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server-error",
            Self::Auth => "auth",
            Self::Billing => "billing",
            Self::Refused => "refused",
            Self::TooLong => "too-long",
            Self::BadRequest => "bad-request",
            Self::NotFound => "not-found",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::Broken => "broken",
            Self::Slow => "slow",
            Self::NoMemory => "no-memory",
        }
    }

    /// Whether nothing but an operator's hand helps: the target is down until a reload or a probe says otherwise.
    pub fn is_hard_down(self) -> bool {
        matches!(self, Self::Auth | Self::Billing)
    }

    /// What clients are told instead of the provider's words, where those speak of the gateway's own account: its name,
    /// its key, its balance, its limits. Records and logs have them.
    pub fn words_for_clients(self) -> Option<&'static str> {
        match self {
            Self::Auth => Some("the provider does not accept the gateway's account"),
            Self::Billing => Some("the gateway's account at the provider has no balance"),
            Self::RateLimited => Some("the gateway's account at the provider is at its limit"),
            _ => None,
        }
    }

    /// What may be done, and who is to blame, if nothing more is known than the kind.
    fn usual(self) -> (Retry, Blame) {
        match self {
            // A provider that was slow once will be slow again, and the time is gone.
            Self::Timeout(Timer::Connect) => (Retry::Same, Blame::Network),
            Self::Timeout(_) | Self::Slow => (Retry::Next, Blame::Provider),
            Self::RateLimited => (Retry::Same, Blame::Account),
            Self::Overloaded | Self::ServerError | Self::Malformed | Self::Truncated => {
                (Retry::Same, Blame::Provider)
            }
            Self::Broken => (Retry::Same, Blame::Network),
            Self::Auth | Self::Billing | Self::NotFound => (Retry::Next, Blame::Account),
            // The model of another target may have a longer context.
            Self::TooLong => (Retry::Next, Blame::Client),
            Self::Refused | Self::BadRequest | Self::NoMemory => (Retry::Never, Blame::Client),
        }
    }
}

/// How an attempt or a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// With a whole answer.
    Ok,
    /// With a fault.
    Fault(FaultKind),
    /// The client left.
    Cancelled,
}

impl Outcome {
    /// Every value of the metrics label `outcome`.
    pub const NAMES: [&'static str; 17] = [
        "ok",
        "timeout",
        "rate-limited",
        "overloaded",
        "server-error",
        "auth",
        "billing",
        "refused",
        "too-long",
        "bad-request",
        "not-found",
        "malformed",
        "truncated",
        "broken",
        "slow",
        "no-memory",
        "cancelled",
    ];

    /// Its value of the metrics label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fault(kind) => kind.name(),
            Self::Cancelled => "cancelled",
        }
    }
}

/// What may be done after a fault, by its nature alone: whether there is time and budget is decided elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Nothing: any provider would say the same, or must not be asked.
    Never,
    /// The same target may be asked again, after a while; or the next.
    Same,
    /// The same target would say the same again; the next may not.
    Next,
}

/// Who is to blame. Only [`Blame::Provider`] and [`Blame::Network`] say something of a target's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client's request.
    Client,
    /// The gateway's account at the provider: its limits, its key, its balance, its configured model.
    Account,
    /// The provider.
    Provider,
    /// What lies between.
    Network,
}

/// An error as a provider words it, in a body or in a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProviderError {
    /// `type`, at most 128 bytes of it, as of `code` and `param`.
    pub kind: Option<String>,
    /// `code`; numbers as text.
    pub code: Option<String>,
    /// `message`, at most 500 bytes of it.
    pub message: String,
    /// `param`.
    pub param: Option<String>,
}

/// How an answer that had status 200 went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamFault {
    /// Not what the dialect has; what and where.
    Malformed(String),
    /// The provider sent an error instead.
    Provider(ProviderError),
    /// It ended before the model had said why it stopped.
    Truncated,
    /// One event is longer than [`STREAM_EVENT_MAX_BYTES`](crate::limit::STREAM_EVENT_MAX_BYTES).
    TooLarge,
}

impl fmt::Display for StreamFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(words) => f.write_str(words),
            Self::Provider(error) => f.write_str(&error.message),
            Self::Truncated => f.write_str("the provider's answer broke off"),
            Self::TooLarge => f.write_str("the provider sent an event that is too large"),
        }
    }
}

impl std::error::Error for StreamFault {}

impl From<StreamFault> for Fault {
    fn from(fault: StreamFault) -> Self {
        match fault {
            StreamFault::Malformed(words) => Self::new(FaultKind::Malformed, words),
            StreamFault::TooLarge => Self::new(FaultKind::Malformed, fault.to_string()),
            StreamFault::Truncated => Self::new(FaultKind::Truncated, fault.to_string()),
            StreamFault::Provider(error) => Judge::of_error(error).fault(),
        }
    }
}

/// A target that cannot be told what the client wants: another may.
impl From<Untranslatable> for Fault {
    fn from(no: Untranslatable) -> Self {
        Self {
            retry: Retry::Next,
            param: Some(no.param.clone()),
            ..Self::new(FaultKind::BadRequest, no.to_string())
        }
    }
}

impl Fault {
    /// A fault that no provider worded: a timer, a connection, a stream. Who is to blame and what may be done follows
    /// from its kind.
    pub fn new(kind: FaultKind, words: impl AsRef<str>) -> Self {
        let (retry, blames) = kind.usual();
        Self {
            kind,
            retry,
            blames,
            after: None,
            park: None,
            crowded: false,
            status: None,
            code: None,
            param: None,
            words: brief(words.as_ref(), FAULT_WORDS_MAX_BYTES),
        }
    }

    /// A timer that ran out after `waited`.
    pub fn timeout(timer: Timer, waited: Duration) -> Self {
        Self::new(
            FaultKind::Timeout(timer),
            format!("{} timeout after {} ms", timer.name(), waited.as_millis()),
        )
    }
}

/// Judges a provider's answer that has another status than 200: by its body's code where there is one that is known
/// (GLM's numbers, OpenAI's, Anthropic's and Kimi's words), else by its status. `now` is the wall clock, for times of
/// day in headers and messages.
pub fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Fault {
    Judge::of_answer(status, headers, body, now).fault()
}
