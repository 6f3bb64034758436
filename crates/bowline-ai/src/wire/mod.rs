//! What clients and providers say: requests, answers, streams, faults. No I/O, no clock, no chance.
//!
//! [`Ask`] is a client's request; it makes the body for whichever provider is tried. A plain answer goes through
//! [`answer`], a streamed one through a [`Relay`]. Where both sides speak the same dialect, bytes pass unchanged and
//! are only looked at; where they do not, they are translated. What went wrong is a [`Fault`] ([`judge`] makes one
//! of a provider's refusal), and what the client is told of it a [`Failure`].

mod answer;
mod anthropic;
mod ask;
mod failure;
mod fault;
mod from_anthropic;
mod from_openai;
mod identity;
mod json;
mod judge;
mod openai;
mod relay;
mod sse;
mod to_anthropic;
mod to_openai;
mod tool_calls;
mod track;
mod unsigned;
mod usage;

#[cfg(test)]
mod tests_relay;
#[cfg(test)]
mod tests_translation;

pub use self::{
    answer::{Answered, answer},
    ask::{Ask, BadRequest, Untranslatable},
    failure::{Failure, Tried, error_body, error_frame},
    fault::{Blame, Fault, FaultKind, Outcome, ProviderError, Retry, StreamFault, Timer, judge},
    identity::Identity,
    relay::{Relay, Seen},
    usage::{FinishReason, Usage},
};

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's chat completions and embeddings: OpenAI, Kimi, GLM, DeepSeek, vLLM, Ollama and most others.
    OpenAi,
    /// Anthropic's messages; Kimi, GLM and DeepSeek have an endpoint for it too.
    Anthropic,
}

impl Dialect {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }
}

/// What a client asked: an endpoint of the gateway, and with it the dialect that the client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Surface {
    /// `POST /v1/chat/completions`.
    ChatCompletions,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /v1/messages`.
    Messages,
}

impl Surface {
    /// What the client speaks.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::ChatCompletions | Self::Embeddings => Dialect::OpenAi,
            Self::Messages => Dialect::Anthropic,
        }
    }

    /// The `gen_ai.operation.name` of OpenTelemetry.
    pub fn operation(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::Messages => "chat",
            Self::Embeddings => "embeddings",
        }
    }
}
