//! A plain answer of a provider, on its way to the client.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Ask, Dialect, FinishReason, Identity, ProviderError, StreamFault, Surface, Usage, anthropic,
    from_anthropic, from_openai,
    json::{AtMost, Text},
    openai::{self, Chunk, malformed},
};

/// A plain answer as the client gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The body for the client: the provider's own bytes if both speak the same dialect.
    pub body: Bytes,
    /// Tokens.
    pub usage: Usage,
    /// Why the model stopped. `None` for embeddings.
    pub finish: Option<FinishReason>,
    /// What the provider calls it.
    pub identity: Identity,
}

/// Reads, and translates if needed, the body that a provider sent with status 200. `created` is the time of the
/// answer in seconds since 1970, for clients that are told one where the provider tells none.
///
/// # Errors
///
/// [`StreamFault::Malformed`] if it is not an answer, [`StreamFault::Provider`] if it is an error in spite of its
/// status.
pub fn answer(
    ask: &Ask,
    dialect: Dialect,
    body: &Bytes,
    created: u64,
) -> Result<Answered, StreamFault> {
    match (ask.surface(), dialect) {
        (Surface::Embeddings, _) => embeddings(ask, body),
        (surface, Dialect::OpenAi) => {
            let found = Chunk::read(body)?;
            // SDKs' users look at the first one without asking whether there is one.
            let choices = found.choices.as_ref().filter(|AtMost(choices)| !choices.is_empty());
            let Some(AtMost(choices)) = choices else { return Err(lacks("choices")) };
            let weight = choices
                .iter()
                .filter_map(|choice| choice.message.as_ref())
                .map(openai::Delta::weight)
                .sum();
            let usage = found.usage().unwrap_or_else(|| estimate(ask, weight));
            if surface == Surface::Messages {
                return from_openai::answer(found, usage);
            }
            let word = choices.first().and_then(openai::Choice::finish_reason);
            let finish = word.map(openai::finish_reason).transpose()?;
            let identity = Identity::of(found.id.as_deref(), found.model.as_deref());
            Ok(Answered { body: body.clone(), usage, finish, identity })
        }
        (surface, Dialect::Anthropic) => {
            let found = read_anthropic(body)?;
            let Some(content) = &found.content else { return Err(lacks("content")) };
            let weight = content.iter().map(anthropic::Block::answer_weight).sum();
            let mut usage = estimate(ask, weight);
            if let Some(told) = &found.usage {
                usage = Usage::default();
                told.add_to(&mut usage);
            }
            if surface == Surface::ChatCompletions {
                return Ok(from_anthropic::answer(found, usage, created));
            }
            let finish = found.stop_reason.as_deref().map(anthropic::stop_reason);
            let identity = Identity::of(found.id.as_deref(), found.model.as_deref());
            Ok(Answered { body: body.clone(), usage, finish, identity })
        }
    }
}

fn embeddings(ask: &Ask, body: &Bytes) -> Result<Answered, StreamFault> {
    #[derive(Deserialize)]
    struct Embeddings<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        usage: Option<openai::UsageIn>,
        #[serde(borrow, default)]
        model: Option<Text<'a>>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let found: Embeddings<'_> =
        serde_json::from_slice(body).map_err(|error| malformed(&error, body))?;
    if found.error.is_some() {
        return Err(StreamFault::Provider(ProviderError::of_body(body).unwrap_or_default()));
    }
    if found.data.is_none() {
        return Err(lacks("data"));
    }
    let usage =
        found.usage.as_ref().and_then(openai::UsageIn::usage).unwrap_or_else(|| estimate(ask, 0));
    let identity = Identity::of(None, found.model.as_deref());
    Ok(Answered { body: body.clone(), usage, finish: None, identity })
}

fn read_anthropic(body: &[u8]) -> Result<anthropic::Answer<'_>, StreamFault> {
    if anthropic::is_error(body) {
        return Err(StreamFault::Provider(ProviderError::of_body(body).unwrap_or_default()));
    }
    serde_json::from_slice(body).map_err(|error| malformed(&error, body))
}

fn estimate(ask: &Ask, bytes: u64) -> Usage {
    Usage {
        input: ask.prompt_tokens(),
        output: bytes.div_ceil(4),
        estimated: true,
        ..Usage::default()
    }
}

fn lacks(field: &str) -> StreamFault {
    StreamFault::Malformed(format!("the provider sent an answer without {field}"))
}
