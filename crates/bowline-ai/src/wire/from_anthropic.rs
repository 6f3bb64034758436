//! An Anthropic provider's answers for an OpenAI client.

use super::{
    Answered, FinishReason, Identity, StreamFault, Usage,
    anthropic::{self, Block, Citation, Event},
    json::write,
    openai::{
        Annotation, ChoiceOut, CompletionOut, DeltaOut, FunctionCall, FunctionDeltaOut, MessageOut,
        ToolCall, ToolDeltaOut, UrlCitation,
    },
    sse,
    track::Track,
};

/// Translates a plain answer.
pub(super) fn answer(found: anthropic::Answer<'_>, usage: Usage, created: u64) -> Answered {
    let finish = found.stop_reason.as_deref().map_or(FinishReason::Stop, anthropic::stop_reason);
    let blocks = found.content.unwrap_or_default();
    let (mut text, mut reasoning, mut tool_calls, mut cited) =
        (String::new(), String::new(), Vec::new(), Vec::new());
    for block in &blocks {
        let from = text.chars().count();
        match &*block.kind {
            "text" => text.push_str(block.text.as_deref().unwrap_or_default()),
            "thinking" => reasoning.push_str(block.thinking.as_deref().unwrap_or_default()),
            "tool_use" => tool_calls.push(ToolCall {
                id: block.id.clone(),
                kind: "function".into(),
                function: FunctionCall {
                    name: block.name.clone().unwrap_or_default(),
                    arguments: block.input.as_ref().map_or("{}", |input| input.get()).into(),
                },
            }),
            _ => {}
        }
        let citations = block
            .citations
            .and_then(|raw| serde_json::from_str::<Vec<Citation<'_>>>(raw.get()).ok());
        cited.extend(
            citations.into_iter().flatten().map(|citation| (citation, from, text.chars().count())),
        );
    }
    let message = MessageOut {
        role: "assistant",
        content: (!text.is_empty() || tool_calls.is_empty()).then_some(text.as_str()),
        refusal: None,
        reasoning_content: Some(reasoning.as_str()).filter(|text| !text.is_empty()),
        tool_calls,
        annotations: cited
            .iter()
            .filter_map(|(citation, from, to)| annotation(citation, *from, *to))
            .collect(),
    };
    let completion = CompletionOut {
        id: found.id.as_deref().unwrap_or("chatcmpl-0"),
        object: "chat.completion",
        created,
        model: found.model.as_deref().unwrap_or_default(),
        choices: vec![ChoiceOut {
            index: 0,
            delta: None,
            message: Some(message),
            logprobs: None,
            finish_reason: Some(finish.openai()),
        }],
        usage: Some(usage.into()),
    };
    let mut body = Vec::with_capacity(512);
    write(&mut body, &completion);
    let identity = Identity::of(found.id.as_deref(), found.model.as_deref());
    Answered { body: body.into(), usage, finish: Some(finish), identity }
}

/// Translates a stream.
#[derive(Debug)]
pub(super) struct Stream {
    id: String,
    model: String,
    created: u64,
    /// Whether the client is told the usage.
    wants_usage: bool,
    /// The role has been told.
    started: bool,
    /// How many tools have been called.
    tools: u64,
    /// The call that is being told.
    tool: Option<Tool>,
    /// Characters of text so far.
    chars: usize,
    /// Characters of text when the present block began.
    block_from: usize,
    finish: Option<FinishReason>,
}

#[derive(Debug)]
struct Tool {
    /// The index of its block.
    block: u64,
    /// The index of the call.
    number: u64,
    /// Arguments have been told.
    told: bool,
}

impl Stream {
    pub(super) fn new(wants_usage: bool, created: u64) -> Self {
        Self {
            id: "chatcmpl-0".to_owned(),
            model: String::new(),
            created,
            wants_usage,
            started: false,
            tools: 0,
            tool: None,
            chars: 0,
            block_from: 0,
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
        let event = Event::read(data)?;
        anthropic::note(&event, track);
        match &*event.kind {
            "message_start" => {
                if let Some(message) = event.message {
                    self.id = message.id.map_or_else(|| self.id.clone(), |id| id.0.into_owned());
                    self.model = message.model.unwrap_or_default().0.into_owned();
                }
                self.start(out);
            }
            "content_block_start" => {
                self.on_block(event.index, &event.content_block.unwrap_or_default(), out)
            }
            "content_block_delta" => {
                self.on_delta(event.index, &event.delta.unwrap_or_default(), out)
            }
            "content_block_stop" => self.on_block_end(event.index, out),
            "message_delta" => {
                let reason = event.delta.and_then(|delta| delta.stop_reason);
                if let Some(reason) = reason {
                    self.finish = Some(anthropic::stop_reason(&reason));
                }
            }
            "message_stop" => {
                track.on_end_mark()?;
                self.end(track, out);
            }
            // Keeps proxies from closing the connection; no SDK minds.
            "ping" => out.extend_from_slice(b": ping\n\n"),
            _ => {}
        }
        Ok(())
    }

    /// The stream is complete.
    pub(super) fn end(&mut self, track: &Track, out: &mut Vec<u8>) {
        self.start(out);
        let finish = self.finish.unwrap_or(FinishReason::Stop);
        self.chunk(DeltaOut::default(), Some(finish.openai()), out);
        if self.wants_usage {
            let usage = Some(track.usage().into());
            self.write(&CompletionOut { choices: Vec::new(), usage, ..self.frame() }, out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            self.chunk(
                DeltaOut { role: Some("assistant"), content: Some(""), ..DeltaOut::default() },
                None,
                out,
            );
        }
    }

    fn on_block(&mut self, index: u64, block: &Block<'_>, out: &mut Vec<u8>) {
        self.start(out);
        self.block_from = self.chars;
        match &*block.kind {
            // Some endpoints have the beginning of the text here.
            "text" => self.text(block.text.as_deref().unwrap_or_default(), out),
            "thinking" => self.reasoning(block.thinking.as_deref().unwrap_or_default(), out),
            "tool_use" => {
                let number = self.tools;
                self.tools += 1;
                let call = ToolDeltaOut {
                    index: number,
                    id: Some(block.id.as_deref().unwrap_or_default()),
                    kind: Some("function"),
                    function: FunctionDeltaOut {
                        name: Some(block.name.as_deref().unwrap_or_default()),
                        arguments: "",
                    },
                };
                self.chunk(DeltaOut { tool_calls: Some([call]), ..DeltaOut::default() }, None, out);
                self.tool = Some(Tool { block: index, number, told: false });
                // Some endpoints have all arguments here, and no deltas.
                let whole =
                    block.input.as_ref().map(|input| input.get()).filter(|input| *input != "{}");
                self.arguments(index, whole.unwrap_or_default(), out);
            }
            _ => {}
        }
    }

    fn on_delta(&mut self, index: u64, delta: &anthropic::Delta<'_>, out: &mut Vec<u8>) {
        self.start(out);
        self.text(delta.text.as_deref().unwrap_or_default(), out);
        self.reasoning(delta.thinking.as_deref().unwrap_or_default(), out);
        self.arguments(index, delta.partial_json.as_deref().unwrap_or_default(), out);
        let cited = delta
            .citation
            .as_ref()
            .and_then(|citation| annotation(citation, self.block_from, self.chars));
        if let Some(annotation) = cited {
            self.chunk(
                DeltaOut { annotations: Some([annotation]), ..DeltaOut::default() },
                None,
                out,
            );
        }
    }

    fn on_block_end(&mut self, index: u64, out: &mut Vec<u8>) {
        // A tool without arguments: OpenAI's clients want JSON all the same.
        if self.tool.as_ref().is_some_and(|tool| tool.block == index && !tool.told) {
            self.arguments(index, "{}", out);
        }
        self.tool = self.tool.take().filter(|tool| tool.block != index);
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.chars += text.chars().count();
            self.chunk(DeltaOut { content: Some(text), ..DeltaOut::default() }, None, out);
        }
    }

    fn reasoning(&self, text: &str, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.chunk(
                DeltaOut { reasoning_content: Some(text), ..DeltaOut::default() },
                None,
                out,
            );
        }
    }

    fn arguments(&mut self, block: u64, arguments: &str, out: &mut Vec<u8>) {
        let Some(tool) =
            self.tool.as_mut().filter(|tool| tool.block == block && !arguments.is_empty())
        else {
            return;
        };
        tool.told = true;
        let call = ToolDeltaOut {
            index: tool.number,
            id: None,
            kind: None,
            function: FunctionDeltaOut { name: None, arguments },
        };
        self.chunk(DeltaOut { tool_calls: Some([call]), ..DeltaOut::default() }, None, out);
    }

    fn chunk(&self, delta: DeltaOut<'_>, finish_reason: Option<&str>, out: &mut Vec<u8>) {
        let choice = ChoiceOut {
            index: 0,
            delta: Some(delta),
            message: None,
            logprobs: None,
            finish_reason,
        };
        self.write(&CompletionOut { choices: vec![choice], ..self.frame() }, out);
    }

    fn frame(&self) -> CompletionOut<'_> {
        CompletionOut {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices: Vec::new(),
            usage: None,
        }
    }

    fn write(&self, chunk: &CompletionOut<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        write(out, chunk);
        out.extend_from_slice(b"\n\n");
    }
}

/// What rests on a page of the web. Citations of the client's own documents have no counterpart.
fn annotation<'a>(citation: &'a Citation<'_>, from: usize, to: usize) -> Option<Annotation<'a>> {
    let url = citation.url.as_deref()?;
    let title = citation.title.as_deref().unwrap_or_default();
    let url_citation = UrlCitation { url, title, start_index: from, end_index: to };
    Some(Annotation { kind: "url_citation", url_citation })
}
