//! `[ai]`: what will run of the AI gateway.

use std::{fmt, path::PathBuf, time::Duration};

use super::effective::Url;

/// `[ai]`. Without a model in it there is no AI gateway, and `/v1` is nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ai {
    /// Requests under way, over all providers.
    pub(crate) max_concurrent: usize,
    /// The same of one session: one Socket.IO client, or one `bowline-session` of a key.
    pub(crate) max_concurrent_per_session: usize,
    /// Requests that wait for a place.
    pub(crate) queue: usize,
    /// From the arrival of a request to the end of its answer, all attempts included.
    pub(crate) deadline: Duration,
    /// How long a client may read nothing of a stream that has something for it.
    pub(crate) client_stall: Duration,
    /// How many of a hundred requests may be asked again.
    pub(crate) retry_percent: u32,
    /// When a stream is too slow to be of use.
    pub(crate) slow_stream: SlowStream,
    /// The largest request.
    pub(crate) request_bytes: usize,
    /// What the bodies of all requests that are being read or answered may take.
    pub(crate) body_bytes: usize,
    /// Conversations that are kept for Socket.IO clients, all of them together.
    pub(crate) conversations: Conversations,
    /// Answers that are kept for clients that ask for them again with the same `Idempotency-Key`.
    pub(crate) idempotency: Idempotency,
    pub(crate) providers: Named<Provider>,
    pub(crate) models: Named<Model>,
    pub(crate) keys: Named<ClientKey>,
}

/// `[ai.slow-stream]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlowStream {
    /// What tokens are counted over.
    pub(crate) window: Duration,
    /// Fewer are too slow; 0 switches it off.
    pub(crate) min_tokens: u64,
}

/// `[ai.conversations]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversations {
    /// How many are kept at a time.
    pub(crate) max: usize,
    /// Messages of one.
    pub(crate) turns: usize,
    /// What the text of all of them may take.
    pub(crate) max_bytes: usize,
}

/// `[ai.idempotency]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idempotency {
    /// How many keys are known at a time; 0 switches it off.
    pub(crate) max: usize,
    /// What the answers of all of them may take.
    pub(crate) max_bytes: usize,
    /// What one of them may.
    pub(crate) max_answer: usize,
    /// For how long an answer is kept.
    pub(crate) keep: Duration,
    /// How long a request goes on whose client has left.
    pub(crate) linger: Duration,
}

/// Tables with names, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named<E>(pub(crate) Vec<(String, E)>);

/// One table of `[ai.providers]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provider {
    /// What it speaks.
    pub(crate) kind: ProviderKind,
    /// What stands before `/chat/completions` or `/messages`.
    pub(crate) base_url: Url,
    /// The variable that holds what is shown to it.
    pub(crate) api_key_env: Option<String>,
    /// The file that holds it.
    pub(crate) api_key_file: Option<PathBuf>,
    /// Requests under way there.
    pub(crate) max_concurrent: usize,
    pub(crate) timeout: Timeouts,
    pub(crate) pool: Pool,
}

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProviderKind {
    /// The API of OpenAI, as nearly everybody does.
    OpenAi,
    /// Anthropic's messages.
    Anthropic,
}

/// `timeout` of a provider: how long one attempt may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Until there is a connection.
    pub(crate) connect: Duration,
    /// Until a stream says something.
    pub(crate) first_content: Duration,
    /// From one piece of a stream to the next.
    pub(crate) idle: Duration,
    /// All of it.
    pub(crate) total: Duration,
}

/// `pool` of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Connections to it.
    pub(crate) connections: usize,
    /// How long one is kept that nobody uses.
    pub(crate) idle: Duration,
}

/// One table of `[ai.models]`: a name that clients ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    /// Who is asked, one after the other.
    pub(crate) chain: Vec<Target>,
    /// Requests for it under way.
    pub(crate) max_concurrent: Option<usize>,
}

/// A model of a provider, written `PROVIDER/MODEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The name of its table.
    pub(crate) provider: String,
    /// What the provider calls the model; may have slashes.
    pub(crate) model: String,
}

/// One table of `[ai.keys]`: a key that clients show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClientKey {
    pub(crate) sha256: Digest,
    pub(crate) priority: Priority,
    pub(crate) limits: KeyLimits,
}

/// The SHA-256 of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

/// Who goes first where requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// `limits` of a key; what is not set does not limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeyLimits {
    pub(crate) requests_per_minute: Option<u32>,
    /// Of prompts and answers.
    pub(crate) tokens_per_minute: Option<u64>,
    pub(crate) max_concurrent: Option<usize>,
    /// The only models it may ask for.
    pub(crate) models: Option<Vec<String>>,
}

impl Ai {
    /// Whether there is anything to ask.
    pub(crate) fn is_on(&self) -> bool {
        !self.models.0.is_empty()
    }
}

impl<E: Default> Named<E> {
    /// The table of this name, made when it is first asked for.
    pub(crate) fn entry(&mut self, name: &str) -> &mut E {
        let found = self.0.iter().position(|(known, _)| known == name);
        let at = found.unwrap_or_else(|| {
            self.0.push((name.to_owned(), E::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

impl<E> Default for Named<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Target {
    /// Reads `PROVIDER/MODEL`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (provider, model) = text.split_once('/')?;
        let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
        (plain(provider) && plain(model))
            .then(|| Self { provider: provider.to_owned(), model: model.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Default for Ai {
    fn default() -> Self {
        Self {
            max_concurrent: 256,
            max_concurrent_per_session: 16,
            queue: 1_000,
            deadline: Duration::from_secs(600),
            client_stall: Duration::from_secs(60),
            retry_percent: 20,
            slow_stream: SlowStream { window: Duration::from_secs(30), min_tokens: 15 },
            request_bytes: 16 << 20,
            body_bytes: 256 << 20,
            conversations: Conversations::default(),
            idempotency: Idempotency::default(),
            providers: Named::default(),
            models: Named::default(),
            keys: Named::default(),
        }
    }
}

impl Default for Conversations {
    fn default() -> Self {
        Self { max: 10_000, turns: 200, max_bytes: 64 << 20 }
    }
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            max: 10_000,
            max_bytes: 64 << 20,
            max_answer: 1 << 20,
            keep: Duration::from_secs(300),
            linger: Duration::from_secs(5),
        }
    }
}

impl Default for Provider {
    /// The URL is demanded, so that nothing is ever asked of this one.
    fn default() -> Self {
        Self {
            kind: ProviderKind::OpenAi,
            base_url: Url::new(String::new()),
            api_key_env: None,
            api_key_file: None,
            max_concurrent: 64,
            timeout: Timeouts::default(),
            pool: Pool::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_content: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(600),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self { connections: 128, idle: Duration::from_secs(60) }
    }
}
