//! Anthropic's dialect: the fields that are read or written here, and no others.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    FinishReason, ProviderError, StreamFault, Usage,
    json::{Count, Text, borrowed},
    openai::{Thinking, malformed},
    track::Track,
};

/// An event of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default)]
    pub(super) index: u64,
    #[serde(borrow, default)]
    pub(super) message: Option<Answer<'a>>,
    #[serde(borrow, default)]
    pub(super) content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(default)]
    pub(super) usage: Option<UsageIn>,
}

impl<'a> Event<'a> {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// It is not JSON of that form, or it is an error.
    pub(super) fn read(data: &'a [u8]) -> Result<Self, StreamFault> {
        let event: Result<Self, _> = serde_json::from_slice(data);
        match event {
            Ok(event) if &*event.kind != "error" => Ok(event),
            Err(error) if !is_error(data) => Err(malformed(&error, data)),
            Ok(_) | Err(_) => {
                Err(StreamFault::Provider(ProviderError::of_body(data).unwrap_or_default()))
            }
        }
    }
}

/// Whether it has an `error` and no `type` of its own, as endpoints have that only resemble Anthropic's.
pub(super) fn is_error(data: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Error<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Error<'_>>(data).is_ok_and(|found| found.error.is_some())
}

/// What a block grows by, or how the message ends.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow, default)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) partial_json: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) citation: Option<Citation<'a>>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Option<Text<'a>>,
}

impl Delta<'_> {
    /// How many bytes of content there are; zero is no content.
    pub(super) fn weight(&self) -> u64 {
        [&self.text, &self.thinking, &self.partial_json]
            .into_iter()
            .flatten()
            .map(|text| text.len() as u64)
            .sum()
    }
}

/// A plain answer, or the beginning of a streamed one.
#[derive(Debug, Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) content: Option<Vec<Block<'a>>>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Option<Text<'a>>,
    #[serde(default)]
    pub(super) usage: Option<UsageIn>,
}

/// A block of a message, whichever it is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) thinking: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Text<'a>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "borrowed",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) input: Option<Cow<'a, RawValue>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) tool_use_id: Option<Text<'a>>,
    /// Of a tool's result: text, or a list of blocks.
    #[serde(
        borrow,
        default,
        deserialize_with = "borrowed",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) content: Option<Cow<'a, RawValue>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<Text<'a>>,
    /// Of a text: a list of [`Citation`]s.
    #[serde(borrow, default, skip_serializing)]
    pub(super) citations: Option<&'a RawValue>,
}

impl<'a> Block<'a> {
    pub(super) fn text(text: impl Into<Text<'a>>) -> Self {
        Self { kind: "text".into(), text: Some(text.into()), ..Self::default() }
    }

    /// How many bytes of content there are in the beginning of a block. A tool call is content by itself, an empty text
    /// is not.
    fn weight(&self) -> u64 {
        match &*self.kind {
            "text" | "thinking" => [&self.text, &self.thinking]
                .into_iter()
                .flatten()
                .map(|text| text.len() as u64)
                .sum(),
            "tool_use" => self.name.as_ref().map_or(1, |name| name.len() as u64).max(1),
            // Searches and their results, thinking that is redacted: the model is at work.
            _ => 1,
        }
    }

    /// How many bytes a model has said in a whole block.
    pub(super) fn answer_weight(&self) -> u64 {
        let texts = [&self.text, &self.thinking]
            .into_iter()
            .flatten()
            .map(|text| text.len())
            .sum::<usize>();
        (texts + self.input.as_ref().map_or(0, |input| input.get().len())) as u64
    }

    /// `content` of a block that was read; one that was made here has its own.
    pub(super) fn read_content(&self) -> Option<&'a RawValue> {
        match self.content {
            Some(Cow::Borrowed(content)) => Some(content),
            Some(Cow::Owned(_)) | None => None,
        }
    }
}

/// An image or document.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Source<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<Text<'a>>,
}

/// A source that a text cites. Those on the web have an address.
#[derive(Debug, Deserialize)]
pub(super) struct Citation<'a> {
    #[serde(borrow, default)]
    pub(super) url: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) title: Option<Text<'a>>,
}

/// Usage as it comes.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct UsageIn {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
}

impl UsageIn {
    /// Takes over what is told here; what is not stays as it was. Anthropic's `input_tokens` are without those that
    /// the cache has to do with.
    pub(super) fn add_to(&self, usage: &mut Usage) {
        let fresh = usage.input.saturating_sub(usage.cached).saturating_sub(usage.written);
        // Some endpoints begin with zeros and tell the truth at the end; others tell it at the beginning only.
        let newer = |count: Count, old: u64| count.0.filter(|new| *new > 0).unwrap_or(old);
        let fresh = newer(self.input_tokens, fresh);
        usage.cached = newer(self.cache_read_input_tokens, usage.cached);
        usage.written = newer(self.cache_creation_input_tokens, usage.written);
        usage.input = fresh.saturating_add(usage.cached).saturating_add(usage.written);
        usage.output = newer(self.output_tokens, usage.output);
    }
}

/// Usage as it goes to a client.
#[derive(Debug, Serialize)]
pub(super) struct UsageOut {
    input_tokens: u64,
    output_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input.saturating_sub(usage.cached).saturating_sub(usage.written),
            output_tokens: usage.output,
            cache_creation_input_tokens: usage.written,
            cache_read_input_tokens: usage.cached,
        }
    }
}

/// Why a model stopped, in Anthropic's words.
pub(super) fn stop_reason(word: &str) -> FinishReason {
    match word {
        "end_turn" | "stop_sequence" | "pause_turn" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// A client's request, as far as a translation needs it.
#[derive(Debug, Deserialize)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub(super) messages: Vec<MessageIn<'a>>,
    /// Text, or a list of blocks.
    #[serde(borrow)]
    pub(super) system: Option<&'a RawValue>,
    pub(super) max_tokens: Option<u64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    #[serde(borrow)]
    pub(super) stop_sequences: Option<Vec<Text<'a>>>,
    pub(super) stream: Option<bool>,
    #[serde(borrow)]
    pub(super) tools: Option<Vec<Tool<'a>>>,
    #[serde(borrow)]
    pub(super) tool_choice: Option<ToolChoice<'a>>,
    #[serde(borrow)]
    pub(super) thinking: Option<Thinking<'a>>,
    #[serde(borrow)]
    pub(super) output_config: Option<OutputConfig<'a>>,
    #[serde(borrow)]
    pub(super) metadata: Option<Metadata<'a>>,
}

/// A turn of a conversation.
#[derive(Debug, Deserialize)]
pub(super) struct MessageIn<'a> {
    #[serde(borrow)]
    pub(super) role: Text<'a>,
    /// Text, or a list of blocks.
    #[serde(borrow)]
    pub(super) content: &'a RawValue,
}

/// A request for a provider, translated.
#[derive(Debug, Serialize)]
pub(super) struct RequestOut<'a> {
    pub(super) model: &'a str,
    pub(super) max_tokens: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) system: Vec<Block<'a>>,
    pub(super) messages: Vec<MessageOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_k: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stop_sequences: Vec<Text<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thinking: Option<Thinking<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream: Option<bool>,
}

/// A turn of a conversation, translated.
#[derive(Debug, Serialize)]
pub(super) struct MessageOut<'a> {
    pub(super) role: &'static str,
    pub(super) content: Vec<Block<'a>>,
}

/// A tool that the model may call, or that the provider runs by itself (`web_search_20250305`).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tool<'a> {
    #[serde(borrow, rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<Text<'a>>,
    /// A JSON schema.
    #[serde(
        borrow,
        default,
        deserialize_with = "borrowed",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) input_schema: Option<Cow<'a, RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) strict: Option<bool>,
}

/// Which tool the model is to call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ToolChoice<'a> {
    /// `auto`, `any`, `tool`, `none`.
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) disable_parallel_tool_use: Option<bool>,
}

/// What form the answer is to have.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OutputConfig<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<OutputFormat<'a>>,
    /// How hard to think: `low`, `medium`, `high`, `max`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) effort: Option<Text<'a>>,
}

/// A schema.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OutputFormat<'a> {
    /// `json_schema`.
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) schema: Option<&'a RawValue>,
}

/// Who asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<Text<'a>>,
}

/// An answer for a client, translated; or the beginning of one.
#[derive(Debug, Serialize)]
pub(super) struct AnswerOut<'a> {
    pub(super) id: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: Vec<Block<'a>>,
    pub(super) stop_reason: Option<&'a str>,
    pub(super) stop_sequence: Option<()>,
    pub(super) usage: UsageOut,
}

/// An event of a stream for a client.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time lives, on the stack, until it is written"
)]
pub(super) enum EventOut<'a> {
    MessageStart { message: AnswerOut<'a> },
    ContentBlockStart { index: u64, content_block: Block<'a> },
    ContentBlockDelta { index: u64, delta: DeltaOut<'a> },
    ContentBlockStop { index: u64 },
    MessageDelta { delta: EndOut<'a>, usage: UsageOut },
    MessageStop,
}

impl EventOut<'_> {
    /// The `event` field, which says the same as `type`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
        }
    }
}

/// What a block grows by.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(super) enum DeltaOut<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

/// How the message ends.
#[derive(Debug, Serialize)]
pub(super) struct EndOut<'a> {
    pub(super) stop_reason: &'a str,
    pub(super) stop_sequence: Option<()>,
}

/// Takes down what an event tells: content, usage, the end.
pub(super) fn note(event: &Event<'_>, track: &mut Track) {
    let usage = event.usage.as_ref().or_else(|| event.message.as_ref()?.usage.as_ref());
    if let Some(usage) = usage {
        usage.add_to(&mut track.told);
        // `message_start` has the prompt's figures; those of the answer come with its end.
        track.told_all |= &*event.kind == "message_delta";
    }
    if let Some(message) = &event.message {
        track.on_identity(message.id.as_deref(), message.model.as_deref());
    }
    if let Some(block) = &event.content_block {
        track.on_content(block.weight());
    }
    let Some(delta) = &event.delta else { return };
    track.on_content(delta.weight());
    if let Some(reason) = delta.stop_reason.as_deref() {
        track.on_finish(stop_reason(reason));
        track.on_complete();
    }
}
