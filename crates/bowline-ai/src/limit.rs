//! Limits of the gateway, each with its reason.

use std::time::Duration;

/// Bytes of one event of a provider's stream. Deltas have a few hundred; whole images come as one event of some MiB.
pub const STREAM_EVENT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The head start in the queue for permits of each class of [`Priority`](crate::permits::Priority) over the one below it.
/// Long enough that a person does not wait behind a batch; after two of them the batch goes first all the same.
pub const AGEING: Duration = Duration::from_secs(10);

/// After how long a limit that was lowered because a provider asked for it rises again by one. Accounts are enlarged by
/// hand, or were crowded by somebody else for a minute; faster, and every second request would meet the limit again.
pub const RECOVERY: Duration = Duration::from_secs(10);

/// Bytes of a model's name as clients send it: it is looked up, recorded and told.
pub const MODEL_NAME_MAX_BYTES: usize = 256;

/// Bytes of a provider's message that are kept: enough to understand it, too few to fill the records.
pub const FAULT_WORDS_MAX_BYTES: usize = 500;

/// Bytes of a provider's `code`, `type` or `param` that are kept. Real ones have some twenty; fields deep in a request a
/// few more.
pub const FAULT_NAME_MAX_BYTES: usize = 128;

/// Bytes of a provider's error body that are looked at. Real ones have some hundred; some providers repeat the prompt.
pub const ERROR_BODY_MAX_BYTES: usize = 64 * 1024;

/// `max_tokens` for Anthropic, which asks for one, if the client named none. Every model that is served takes as much.
pub const MAX_TOKENS_DEFAULT: u64 = 8192;

/// How long a provider may ask to be left alone. Longer, and the clock of one of the two is wrong.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a target whose allowance is used up is left alone if the provider names no time: short enough to notice
/// that it is of use again, long enough not to annoy.
pub const PARK_UNTOLD: Duration = Duration::from_secs(5 * 60);

/// How long a target may be left alone: monthly allowances are the longest there are.
pub const PARK_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// Bytes of a plain answer. A thousand embeddings of 4,096 numbers each have some 50 MiB.
pub const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a stream before its first content, which are held back until it comes: roles, pings, comments. At one ping a
/// second a minute of them has 1 KiB.
pub const HELD_BACK_MAX_BYTES: usize = 256 * 1024;

/// Bytes of a copy or an answer that are not counted in the [budget](crate::memory::Budget): of 256 requests under way
/// that is 8 MiB at most, and most requests have less.
pub const UNCOUNTED_BYTES: usize = 16 * 1024;

/// How long the body of a refusal may take when its head is there. What it says is worth less than the time.
pub const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(2);

/// How long the end of a stream is waited for when all has been said, so that its connection can be used again.
pub const STREAM_END_PATIENCE: Duration = Duration::from_millis(250);

/// How often a client whose stream has begun without content is told that somebody is there. Proxies cut after 30 s and
/// more.
pub const WAITING_EVERY: Duration = Duration::from_secs(10);

/// How long a client is asked to wait where too many wait already, or providers have all that they may.
pub const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Tool calls in one answer. OpenAI allows 128 tools to be told of; nobody calls more.
pub const TOOL_CALLS_MAX: usize = 128;

/// Rows of usage that are kept apart by key, target by target. Keys and targets are configured, so this is for those
/// who reload often: a hundred keys with forty targets each.
pub const USAGE_ROWS_MAX: usize = 4_096;

/// Series of figures that are kept apart. Targets and models are configured, and most pairs of them never meet: what is
/// left is room for many reloads.
pub const SERIES_MAX: usize = 4_096;

/// Attempts that a record of a request has. A chain has few targets and asks each a few times; more than that is a
/// mistake, which must not eat the memory.
pub const ATTEMPTS_RECORDED_MAX: usize = 64;

/// Tokens from which on a request is a large one, which lets others go first where requests wait: a minute's work of most
/// models.
pub const LARGE_TOKENS: u64 = 32 * 1024;

/// Answers to one request (`n`). OpenAI allows 128.
pub const CHOICES_MAX: usize = 128;

/// Fields of a request's body. OpenAI has about forty; the rest are some provider's own.
pub const FIELDS_MAX: usize = 512;

/// Which part of the queue for permits one session or key may fill that has as many under way as it may: an eighth. Who
/// sends a thousand at once keeps nobody else from waiting for a moment.
pub const CLIENT_QUEUE_SHARE: usize = 8;

/// Bytes of a client's `tracestate` that are passed on: what W3C asks for at least.
pub const TRACE_STATE_MAX_BYTES: usize = 512;

/// Bytes of what a provider calls an answer or its model. Such names have some tens.
pub const IDENTITY_MAX_BYTES: usize = 256;
