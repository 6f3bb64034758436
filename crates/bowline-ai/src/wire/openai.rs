//! OpenAI's dialect: the fields that are read or written here, and no others.
//!
//! What providers send is read leniently, since many of them are compatible in their own way; what a client of theirs
//! would trip over is put right by whoever reads it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    FinishReason, ProviderError, StreamFault, Usage,
    json::{AtMost, Count, Text, Weight, Words},
};
use crate::limit::{CHOICES_MAX, TOOL_CALLS_MAX};

/// A chunk of a stream, or a plain answer.
#[derive(Debug, Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    object: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) choices: Option<AtMost<Choice<'a>, CHOICES_MAX>>,
    #[serde(default)]
    pub(super) usage: Option<UsageIn>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl<'a> Chunk<'a> {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// It is not JSON of that form, or it is an error.
    pub(super) fn read(data: &'a [u8]) -> Result<Self, StreamFault> {
        let chunk: Self = serde_json::from_slice(data).map_err(|error| malformed(&error, data))?;
        let error = chunk.error.filter(|error| !matches!(error.get(), "{}" | "\"\"" | "false"));
        if error.is_some() || chunk.object.as_deref() == Some("error") {
            return Err(StreamFault::Provider(ProviderError::of_body(data).unwrap_or_default()));
        }
        Ok(chunk)
    }

    /// The usage, wherever the provider put it: Kimi has it in the last choice.
    pub(super) fn usage(&self) -> Option<Usage> {
        let inner = || {
            self.choices
                .iter()
                .flat_map(|choices| &choices.0)
                .find_map(|choice| choice.usage.as_ref())
        };
        self.usage.as_ref().or_else(inner).and_then(UsageIn::usage)
    }
}

/// One of the answers that were asked for, or a piece of one.
#[derive(Debug, Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    pub(super) message: Option<Delta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
    #[serde(default)]
    usage: Option<UsageIn>,
}

impl<'a> Choice<'a> {
    /// Which of the answers.
    pub(super) fn index(&self) -> u64 {
        self.index.0.unwrap_or_default()
    }

    /// Why this one ended, in the provider's word. Some send an empty word in every chunk.
    pub(super) fn finish_reason(&self) -> Option<&str> {
        self.finish_reason.as_deref().filter(|word| !word.is_empty())
    }

    /// What there is of the message.
    pub(super) fn into_delta(self) -> Option<Delta<'a>> {
        self.delta.or(self.message)
    }
}

/// What a message grows by, or a whole one.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow, default)]
    pub(super) content: Words<'a>,
    /// Kimi, GLM, DeepSeek, vLLM.
    #[serde(borrow, default)]
    reasoning_content: Words<'a>,
    /// OpenRouter, newer vLLM.
    #[serde(borrow, default)]
    reasoning: Words<'a>,
    #[serde(borrow, default)]
    pub(super) refusal: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_calls: AtMost<ToolDelta<'a>, TOOL_CALLS_MAX>,
    #[serde(default)]
    function_call: Weight,
    #[serde(default)]
    audio: Weight,
    #[serde(default)]
    images: Weight,
}

impl Delta<'_> {
    /// Reasoning, under either of its names.
    pub(super) fn reasoning(&self) -> &str {
        if self.reasoning_content.0.is_empty() {
            &self.reasoning.0
        } else {
            &self.reasoning_content.0
        }
    }

    /// How many bytes of content there are; zero is no content.
    pub(super) fn weight(&self) -> u64 {
        let tools = self.tool_calls.0.iter().map(ToolDelta::weight).sum::<u64>();
        let others = [self.function_call, self.audio, self.images]
            .iter()
            .map(|weight| weight.text)
            .sum::<u64>();
        let texts = self.content.0.len()
            + self.reasoning().len()
            + self.refusal.as_ref().map_or(0, |text| text.len());
        texts as u64 + tools + others
    }
}

/// A tool call, or a piece of one.
#[derive(Debug, Deserialize)]
pub(super) struct ToolDelta<'a> {
    #[serde(default)]
    pub(super) index: Count,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) function: Option<FunctionDelta<'a>>,
}

impl ToolDelta<'_> {
    pub(super) fn name(&self) -> &str {
        self.function.as_ref().and_then(|function| function.name.as_deref()).unwrap_or_default()
    }

    /// The arguments. Some servers send them as an object instead of as text.
    pub(super) fn arguments(&self) -> Cow<'_, str> {
        let Some(raw) = self.function.as_ref().and_then(|function| function.arguments) else {
            return "".into();
        };
        match serde_json::from_str::<Text<'_>>(raw.get()) {
            Ok(text) => text.0,
            Err(_) => raw.get().into(),
        }
    }

    fn weight(&self) -> u64 {
        let arguments = self.function.as_ref().and_then(|function| function.arguments);
        let arguments = arguments.map_or(0, |raw| raw.get().trim_matches('"').len());
        (self.name().len() + arguments) as u64
    }
}

/// What is called.
#[derive(Debug, Deserialize)]
pub(super) struct FunctionDelta<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

/// Usage as it comes.
#[derive(Debug, Deserialize)]
pub(super) struct UsageIn {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
    /// Kimi.
    #[serde(default)]
    cached_tokens: Count,
    /// DeepSeek.
    #[serde(default)]
    prompt_cache_hit_tokens: Count,
}

#[derive(Debug, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

#[derive(Debug, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl UsageIn {
    /// `None` if it says nothing (`{}`).
    pub(super) fn usage(&self) -> Option<Usage> {
        if self.prompt_tokens.0.is_none() && self.completion_tokens.0.is_none() {
            return None;
        }
        let details = self.prompt_tokens_details.as_ref();
        let cached = details.and_then(|details| details.cached_tokens.0);
        let cached = cached.or(self.cached_tokens.0).or(self.prompt_cache_hit_tokens.0);
        let written = details.and_then(|details| details.cache_write_tokens.0);
        let reasoning =
            self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens.0);
        Some(Usage {
            input: self.prompt_tokens.0.unwrap_or_default(),
            output: self.completion_tokens.0.unwrap_or_default(),
            cached: cached.unwrap_or_default(),
            written: written.unwrap_or_default(),
            reasoning: reasoning.unwrap_or_default(),
            estimated: false,
        })
    }
}

/// Usage as it goes to a client.
#[derive(Debug, Serialize)]
pub(super) struct UsageOut {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetailsOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionDetailsOut>,
}

#[derive(Debug, Serialize)]
struct PromptDetailsOut {
    cached_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_write_tokens: Option<u64>,
}

#[derive(Debug, Serialize)]
struct CompletionDetailsOut {
    reasoning_tokens: u64,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.input,
            completion_tokens: usage.output,
            total_tokens: usage.input.saturating_add(usage.output),
            prompt_tokens_details: PromptDetailsOut {
                cached_tokens: usage.cached,
                cache_write_tokens: Some(usage.written).filter(|written| *written > 0),
            },
            completion_tokens_details: (usage.reasoning > 0)
                .then_some(CompletionDetailsOut { reasoning_tokens: usage.reasoning }),
        }
    }
}

/// Why a model stopped, in OpenAI's words and those of providers that have more of them.
///
/// # Errors
///
/// GLM ends an answer with `network_error` when its model failed: that is no end.
pub(super) fn finish_reason(word: &str) -> Result<FinishReason, StreamFault> {
    Ok(match word {
        "stop" | "eos" | "end_turn" => FinishReason::Stop,
        "length" | "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "content_filter" | "sensitive" => FinishReason::ContentFilter,
        "network_error" | "error" => {
            return Err(StreamFault::Provider(ProviderError {
                kind: Some("server_error".into()),
                code: Some(word.into()),
                message: format!("the model stopped with finish_reason {word}"),
                param: None,
            }));
        }
        _ => FinishReason::Other,
    })
}

/// Says where an event is not what it should be. The text itself is the client's business and stays out of records.
pub(super) fn malformed(error: &serde_json::Error, data: &[u8]) -> StreamFault {
    StreamFault::Malformed(format!(
        "the provider sent {} bytes that are not its dialect: {error}",
        data.len()
    ))
}

/// A client's request, as far as a translation needs it.
#[derive(Debug, Deserialize)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub(super) messages: Vec<Message<'a>>,
    pub(super) max_tokens: Option<u64>,
    pub(super) max_completion_tokens: Option<u64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<u64>,
    pub(super) n: Option<u64>,
    pub(super) stream: Option<bool>,
    #[serde(borrow)]
    pub(super) stop: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) tools: Option<Vec<Tool<'a>>>,
    #[serde(borrow)]
    pub(super) tool_choice: Option<&'a RawValue>,
    pub(super) parallel_tool_calls: Option<bool>,
    #[serde(borrow)]
    pub(super) functions: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) response_format: Option<ResponseFormat<'a>>,
    #[serde(borrow)]
    pub(super) reasoning_effort: Option<Text<'a>>,
    /// Kimi's and GLM's `{"type": "enabled"}`.
    #[serde(borrow)]
    pub(super) thinking: Option<Thinking<'a>>,
    #[serde(borrow)]
    pub(super) web_search_options: Option<&'a RawValue>,
    pub(super) logprobs: Option<bool>,
    #[serde(borrow)]
    pub(super) audio: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) user: Option<Text<'a>>,
}

/// A turn of the conversation.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) role: Text<'a>,
    /// Text, or a list of [`Part`]s.
    #[serde(borrow, default)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) refusal: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow, default)]
    pub(super) tool_call_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) function_call: Option<&'a RawValue>,
}

/// The parts of a `content`; a mere text is one part.
///
/// # Errors
///
/// It is neither text nor a list of parts.
pub(super) fn parts(content: &RawValue) -> Result<Vec<Part<'_>>, serde_json::Error> {
    if content.get().starts_with('"') {
        let text = Some(serde_json::from_str(content.get())?);
        return Ok(vec![Part { kind: "text".into(), text, ..Part::default() }]);
    }
    serde_json::from_str(content.get())
}

/// A turn of the conversation, translated.
#[derive(Debug, Default, Serialize)]
pub(super) struct MessageTo<'a> {
    pub(super) role: &'static str,
    /// Text, or a list of [`Part`]s.
    pub(super) content: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_call_id: Option<Text<'a>>,
}

/// A part of a message.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Part<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing)]
    pub(super) refusal: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) image_url: Option<ImageUrl<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<File<'a>>,
}

/// An image: an address, or a `data:` URL.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ImageUrl<'a> {
    #[serde(borrow)]
    pub(super) url: Text<'a>,
}

/// A file in a message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct File<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) filename: Option<Text<'a>>,
    /// A `data:` URL.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) file_data: Option<Text<'a>>,
}

/// A call that the model made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ToolCall<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, rename = "type", default = "function_type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) function: FunctionCall<'a>,
}

/// What is called, and with what.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FunctionCall<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    /// JSON as text.
    #[serde(borrow, default)]
    pub(super) arguments: Text<'a>,
}

fn function_type() -> Text<'static> {
    "function".into()
}

/// A tool that the model may call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tool<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) function: Option<FunctionTool<'a>>,
}

/// What it is called and takes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FunctionTool<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<Text<'a>>,
    /// A JSON schema.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) parameters: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) strict: Option<bool>,
}

/// What form the answer is to have.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ResponseFormat<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) json_schema: Option<JsonSchema<'a>>,
}

/// A schema with a name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JsonSchema<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) schema: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) strict: Option<bool>,
}

/// Whether to think. Anthropic's has a budget too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Thinking<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) budget_tokens: Option<u64>,
}

/// A request for a provider, translated.
#[derive(Debug, Serialize)]
pub(super) struct RequestOut<'a> {
    pub(super) model: &'a str,
    pub(super) messages: Vec<MessageTo<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop: Option<Vec<Text<'a>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_choice: Option<ToolChoiceOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) web_search_options: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream_options: Option<StreamOptions>,
}

/// `{}`.
#[derive(Debug, Serialize)]
pub(super) struct Empty {}

/// Asks for usage in a stream.
#[derive(Debug, Serialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
}

/// Which tool the model is to call.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ToolChoiceOut<'a> {
    /// `auto`, `none`, `required`.
    Word(&'static str),
    /// This one.
    Function {
        #[serde(rename = "type")]
        kind: &'static str,
        function: NamedFunction<'a>,
    },
}

/// A function by name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NamedFunction<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
}

/// An answer for a client, or a chunk of one, translated.
#[derive(Debug, Serialize)]
pub(super) struct CompletionOut<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) choices: Vec<ChoiceOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<UsageOut>,
}

/// The one answer in it.
#[derive(Debug, Serialize)]
pub(super) struct ChoiceOut<'a> {
    pub(super) index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<DeltaOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<MessageOut<'a>>,
    pub(super) logprobs: Option<()>,
    pub(super) finish_reason: Option<&'a str>,
}

/// What the message grows by.
#[derive(Debug, Default, Serialize)]
pub(super) struct DeltaOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<[ToolDeltaOut<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<[Annotation<'a>; 1]>,
}

/// What a tool call grows by.
#[derive(Debug, Serialize)]
pub(super) struct ToolDeltaOut<'a> {
    pub(super) index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    pub(super) function: FunctionDeltaOut<'a>,
}

/// What is called.
#[derive(Debug, Serialize)]
pub(super) struct FunctionDeltaOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    pub(super) arguments: &'a str,
}

/// The message.
#[derive(Debug, Serialize)]
pub(super) struct MessageOut<'a> {
    pub(super) role: &'static str,
    pub(super) content: Option<&'a str>,
    pub(super) refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCall<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) annotations: Vec<Annotation<'a>>,
}

/// A source on the web that the answer cites.
#[derive(Debug, Serialize)]
pub(super) struct Annotation<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) url_citation: UrlCitation<'a>,
}

/// Where it is, and which characters of the answer rest on it.
#[derive(Debug, Serialize)]
pub(super) struct UrlCitation<'a> {
    pub(super) url: &'a str,
    pub(super) title: &'a str,
    pub(super) start_index: usize,
    pub(super) end_index: usize,
}
