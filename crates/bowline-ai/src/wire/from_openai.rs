//! An OpenAI provider's answers for an Anthropic client.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    Answered, FinishReason, Identity, StreamFault, Usage,
    anthropic::{AnswerOut, Block, DeltaOut, EndOut, EventOut},
    json::{raw, write},
    openai::{self, Chunk, Delta},
    sse,
    tool_calls::ToolCalls,
    track::Track,
    unsigned,
};

/// Translates a plain answer.
pub(super) fn answer(found: Chunk<'_>, usage: Usage) -> Result<Answered, StreamFault> {
    let choice = found.choices.unwrap_or_default().0.into_iter().next();
    let choice = choice.ok_or_else(|| {
        StreamFault::Malformed("the provider sent an answer without choices".into())
    })?;
    let finish = openai::finish_reason(choice.finish_reason().unwrap_or("stop"))?;
    let delta = choice.into_delta().unwrap_or_default();
    let mut content = Vec::new();
    if !delta.reasoning().is_empty() {
        content.push(thinking(delta.reasoning().to_owned(), unsigned::SIGNATURE));
    }
    for text in [&*delta.content.0, delta.refusal.as_deref().unwrap_or_default()] {
        if !text.is_empty() {
            content.push(Block::text(text.to_owned()));
        }
    }
    for call in &delta.tool_calls.0 {
        content.push(Block {
            kind: "tool_use".into(),
            id: Some(call.id.clone().unwrap_or_default()),
            name: Some(call.name().to_owned().into()),
            input: Some(Cow::Owned(input(&call.arguments()))),
            ..Block::default()
        });
    }
    let answer = AnswerOut {
        id: found.id.as_deref().unwrap_or("msg_0"),
        kind: "message",
        role: "assistant",
        model: found.model.as_deref().unwrap_or_default(),
        content,
        stop_reason: Some(finish.anthropic()),
        stop_sequence: None,
        usage: usage.into(),
    };
    let mut body = Vec::with_capacity(512);
    write(&mut body, &answer);
    let identity = Identity::of(found.id.as_deref(), found.model.as_deref());
    Ok(Answered { body: body.into(), usage, finish: Some(finish), identity })
}

/// Translates a stream. Blocks of text and thinking are closed when another begins; those of tools stay open until
/// the end, since OpenAI may go on with any of them.
#[derive(Debug)]
pub(super) struct Stream {
    id: String,
    model: String,
    /// `message_start` has been told.
    started: bool,
    /// How many blocks have been begun.
    blocks: u64,
    /// The block of text or thinking that is open.
    open: Option<(Kind, u64)>,
    calls: ToolCalls,
    /// The block of each call.
    tools: Vec<u64>,
    finish: Option<FinishReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self {
            id: "msg_0".to_owned(),
            model: String::new(),
            started: false,
            blocks: 0,
            open: None,
            calls: ToolCalls::default(),
            tools: Vec::new(),
            finish: None,
        }
    }

    pub(super) fn on(
        &mut self,
        event: sse::Event<'_>,
        track: &mut Track,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamFault> {
        let Some(data) = event.data.filter(|data| !data.is_empty()) else { return Ok(()) };
        if data == b"[DONE]" {
            track.on_end_mark()?;
            self.end(track, out);
            return Ok(());
        }
        let chunk = Chunk::read(data)?;
        if let Some(usage) = chunk.usage() {
            track.on_usage(usage);
        }
        track.on_identity(chunk.id.as_deref(), chunk.model.as_deref());
        if !self.started {
            self.id = chunk.id.map_or_else(|| self.id.clone(), |id| id.0.into_owned());
            self.model = chunk.model.unwrap_or_default().0.into_owned();
            self.start(track.usage(), out);
        }
        // Anthropic's clients know of one answer only.
        for choice in
            chunk.choices.unwrap_or_default().0.into_iter().filter(|choice| choice.index() == 0)
        {
            let finish = choice.finish_reason().map(openai::finish_reason).transpose()?;
            if let Some(delta) = choice.into_delta() {
                track.on_content(delta.weight());
                self.on_delta(&delta, out)?;
            }
            if let Some(finish) = finish {
                self.finish = Some(finish);
                track.on_finish(finish);
                track.on_complete();
            }
        }
        Ok(())
    }

    /// The stream is complete.
    pub(super) fn end(&mut self, track: &Track, out: &mut Vec<u8>) {
        if !self.started {
            self.start(track.usage(), out);
        }
        self.close(out);
        for block in std::mem::take(&mut self.tools) {
            emit(&EventOut::ContentBlockStop { index: block }, out);
        }
        let finish = self.finish.unwrap_or(FinishReason::Stop);
        let delta = EndOut { stop_reason: finish.anthropic(), stop_sequence: None };
        emit(&EventOut::MessageDelta { delta, usage: track.usage().into() }, out);
        emit(&EventOut::MessageStop, out);
    }

    fn start(&mut self, usage: Usage, out: &mut Vec<u8>) {
        self.started = true;
        let message = AnswerOut {
            id: &self.id,
            kind: "message",
            role: "assistant",
            model: &self.model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            // The true figures come at the end.
            usage: usage.into(),
        };
        emit(&EventOut::MessageStart { message }, out);
    }

    fn on_delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        self.text(Kind::Thinking, delta.reasoning(), out);
        self.text(Kind::Text, &delta.content.0, out);
        self.text(Kind::Text, delta.refusal.as_deref().unwrap_or_default(), out);
        for call in &delta.tool_calls.0 {
            let number = usize::try_from(self.calls.number(call)?).unwrap_or(usize::MAX);
            let index = match self.tools.get(number) {
                Some(index) => *index,
                None => {
                    let content_block = Block {
                        kind: "tool_use".into(),
                        id: Some(call.id.clone().unwrap_or_default()),
                        name: Some(call.name().into()),
                        input: Some(Cow::Owned(input("{}"))),
                        ..Block::default()
                    };
                    let index = self.begin(content_block, out);
                    self.tools.push(index);
                    index
                }
            };
            let arguments = call.arguments();
            if !arguments.is_empty() {
                let delta = DeltaOut::InputJson { partial_json: &arguments };
                emit(&EventOut::ContentBlockDelta { index, delta }, out);
            }
        }
        Ok(())
    }

    fn text(&mut self, kind: Kind, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let index = match self.open {
            Some((open, index)) if open == kind => index,
            _ => {
                let content_block = match kind {
                    Kind::Text => Block::text(""),
                    Kind::Thinking => thinking(String::new(), ""),
                };
                let index = self.begin(content_block, out);
                self.open = Some((kind, index));
                index
            }
        };
        let delta = match kind {
            Kind::Text => DeltaOut::Text { text },
            Kind::Thinking => DeltaOut::Thinking { thinking: text },
        };
        emit(&EventOut::ContentBlockDelta { index, delta }, out);
    }

    fn begin(&mut self, content_block: Block<'_>, out: &mut Vec<u8>) -> u64 {
        self.close(out);
        let index = self.blocks;
        self.blocks += 1;
        emit(&EventOut::ContentBlockStart { index, content_block }, out);
        index
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some((kind, index)) = self.open.take() {
            if kind == Kind::Thinking {
                let delta = DeltaOut::Signature { signature: unsigned::SIGNATURE };
                emit(&EventOut::ContentBlockDelta { index, delta }, out);
            }
            emit(&EventOut::ContentBlockStop { index }, out);
        }
    }
}

fn emit(event: &EventOut<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.name().as_bytes());
    out.extend_from_slice(b"\ndata: ");
    write(out, event);
    out.extend_from_slice(b"\n\n");
}

/// Reasoning. Nobody but Anthropic signs it.
fn thinking<'a>(text: String, signature: &'a str) -> Block<'a> {
    Block {
        kind: "thinking".into(),
        thinking: Some(text.into()),
        signature: Some(signature.into()),
        ..Block::default()
    }
}

/// The arguments of a call. Anthropic's clients want an object; what is none is kept for them to see.
fn input(arguments: &str) -> Box<RawValue> {
    match RawValue::from_string(arguments.to_owned()) {
        Ok(json) if json.get().starts_with('{') => json,
        _ if arguments.trim().is_empty() => raw(&openai::Empty {}),
        _ => raw(&Unreadable { arguments }),
    }
}

#[derive(serde::Serialize)]
struct Unreadable<'a> {
    arguments: &'a str,
}
