//! Thinking that no provider has signed.
//!
//! Anthropic signs what its models think, and refuses a conversation with thinking that it has not signed itself. What
//! another provider's model thought is told to Anthropic's clients all the same, and they send it back with the next
//! turn, which may be served by Anthropic. So it is marked, and taken out where the mark would be looked at. Only what
//! is marked: providers that speak Anthropic's dialect and sign nothing may want theirs back.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Members, Text, span};

/// The signature of thinking that has none.
pub(super) const SIGNATURE: &str = "bowline-unsigned";

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    signature: Option<Text<'a>>,
}

/// Where the messages of a body stand, and what they are without thinking that is marked. `None` if none is, or it
/// cannot be read, which is for the provider to say.
pub(super) fn without(body: &[u8]) -> Option<(Range<usize>, String)> {
    let members: Members<'_> = serde_json::from_slice(body).ok()?;
    let raw = members.get("messages")?;
    // Few conversations have any.
    if !raw.get().contains(SIGNATURE) {
        return None;
    }
    let messages: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
    let kept: Vec<String> = messages.into_iter().filter_map(message_without).collect();
    Some((span(body, raw), format!("[{}]", kept.join(","))))
}

/// A message without such thinking. `None` if nothing is left of it: Anthropic wants no empty ones.
fn message_without(message: &RawValue) -> Option<String> {
    let text = message.get();
    let blocks = || {
        let members: Members<'_> = serde_json::from_str(text).ok()?;
        let content = members.get("content")?;
        let blocks: Vec<&RawValue> = serde_json::from_str(content.get()).ok()?;
        Some((span(text.as_bytes(), content), blocks))
    };
    let Some((at, blocks)) = blocks() else { return Some(text.to_owned()) };
    let kept: Vec<&str> =
        blocks.iter().filter(|block| !is_marked(block)).map(|block| block.get()).collect();
    if kept.len() == blocks.len() {
        return Some(text.to_owned());
    }
    if kept.is_empty() {
        return None;
    }
    Some(format!("{}[{}]{}", &text[..at.start], kept.join(","), &text[at.end..]))
}

fn is_marked(block: &RawValue) -> bool {
    serde_json::from_str(block.get()).is_ok_and(|block: Block<'_>| {
        &*block.kind == "thinking" && block.signature.as_deref() == Some(SIGNATURE)
    })
}
