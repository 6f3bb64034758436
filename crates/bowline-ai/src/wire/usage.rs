//! Tokens, and why an answer ended.

/// Tokens of one answer. Zero where the provider did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, those read from the provider's cache among them.
    pub input: u64,
    /// Tokens of the answer, those of the reasoning among them.
    pub output: u64,
    /// Of `input`: read from the provider's cache.
    pub cached: u64,
    /// Of `input`: written to the provider's cache, which costs more.
    pub written: u64,
    /// Of `output`: spent on reasoning.
    pub reasoning: u64,
    /// The provider said nothing (yet), so the figures are counted here: bytes of text divided by four.
    pub estimated: bool,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// It was done, or came to a stop sequence.
    Stop,
    /// It came to the limit of tokens, or of the context.
    Length,
    /// It wants tools to be called.
    ToolCalls,
    /// The provider's policy stopped it.
    ContentFilter,
    /// A word that is not known here; it is passed on as it is.
    Other,
}

impl FinishReason {
    /// Its name, which is OpenAI's (`other` apart).
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Other => "other",
        }
    }

    /// Anthropic's name.
    pub(super) fn anthropic(self) -> &'static str {
        match self {
            Self::Stop | Self::Other => "end_turn",
            Self::Length => "max_tokens",
            Self::ToolCalls => "tool_use",
            Self::ContentFilter => "refusal",
        }
    }

    /// OpenAI's name, for which there is no other.
    pub(super) fn openai(self) -> &'static str {
        match self {
            Self::Other => "stop",
            known => known.name(),
        }
    }
}
