//! A request of an OpenAI client, in Anthropic's dialect.
//!
//! What only tunes an answer and has no counterpart (`seed`, penalties, `logit_bias`, `store`…) is left out; what
//! would give the answer another form (`n`, `logprobs`, audio) is refused. `response_format: json_object` is left out
//! too: OpenAI itself wants the prompt to ask for JSON.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    Untranslatable,
    anthropic::{
        Block, MessageOut, Metadata, OutputConfig, OutputFormat, RequestOut, Source, Tool,
        ToolChoice,
    },
    json::{Members, Text, raw, write},
    openai::{self, Message, NamedFunction, Request, Thinking},
};
use crate::limit::MAX_TOKENS_DEFAULT;

/// Translates a body.
pub(super) fn request(body: &[u8], model: &str) -> Result<Bytes, Untranslatable> {
    let asked: Request<'_> = serde_json::from_slice(body).map_err(|error| no("body", error))?;
    refuse_other_forms(&asked)?;
    let tools = tools(&asked)?;
    let tool_choice = if tools.is_empty() { None } else { tool_choice(&asked)? };
    let (max_tokens, thinking) = thinking(&asked, tool_choice.as_ref());
    // With thinking, Anthropic takes none of these.
    let free = thinking.as_ref().is_none_or(|thinking| &*thinking.kind == "disabled");
    let output_config = output_config(&asked);
    let stop_sequences = stop(asked.stop)?;
    let mut turns = Turns::default();
    for (n, message) in asked.messages.into_iter().enumerate() {
        turns.push(message, &format!("messages.{n}"))?;
    }
    if turns.turns.is_empty() {
        return Err(no("messages", "nothing is said in them"));
    }
    let request = RequestOut {
        model,
        max_tokens,
        system: turns.system,
        messages: turns.turns,
        temperature: asked.temperature.filter(|_| free).map(|temperature| temperature.min(1.0)),
        top_p: asked.top_p.filter(|_| free),
        top_k: asked.top_k.filter(|_| free),
        stop_sequences,
        tools,
        tool_choice,
        thinking,
        output_config,
        metadata: asked.user.map(|user| Metadata { user_id: Some(user) }),
        stream: asked.stream,
    };
    let mut out = Vec::with_capacity(body.len() + 256);
    write(&mut out, &request);
    Ok(out.into())
}

/// Anthropic's turns. System messages are not among them, wherever they stood; tool results are the user's; turns of
/// the same side become one.
#[derive(Default)]
struct Turns<'a> {
    system: Vec<Block<'a>>,
    turns: Vec<MessageOut<'a>>,
}

impl<'a> Turns<'a> {
    fn push(&mut self, message: Message<'a>, param: &str) -> Result<(), Untranslatable> {
        let blocks = |content| blocks(content, &format!("{param}.content"));
        match &*message.role {
            "system" | "developer" => self.system.extend(blocks(message.content)?),
            "user" => self.add("user", blocks(message.content)?),
            "tool" => {
                let result =
                    Block {
                        kind: "tool_result".into(),
                        tool_use_id: Some(message.tool_call_id.ok_or_else(|| {
                            no(&format!("{param}.tool_call_id"), "it is missing")
                        })?),
                        content: Some(Cow::Owned(raw(&blocks(message.content)?))),
                        ..Block::default()
                    };
                self.add("user", vec![result]);
            }
            "assistant" => {
                if message.function_call.is_some() {
                    return Err(no(&format!("{param}.function_call"), "use tool_calls"));
                }
                let mut said = blocks(message.content)?;
                said.extend(message.refusal.filter(|text| !text.is_empty()).map(Block::text));
                for (n, call) in message.tool_calls.into_iter().flatten().enumerate() {
                    said.push(tool_use(call, &format!("{param}.tool_calls.{n}"))?);
                }
                self.add("assistant", said);
            }
            role => {
                return Err(no(&format!("{param}.role"), format!("Anthropic has no role {role}")));
            }
        }
        Ok(())
    }

    fn add(&mut self, role: &'static str, blocks: Vec<Block<'a>>) {
        if blocks.is_empty() {
            return;
        }
        match self.turns.last_mut().filter(|turn| turn.role == role) {
            Some(turn) => turn.content.extend(blocks),
            None => self.turns.push(MessageOut { role, content: blocks }),
        }
        // Results of tools come first in their turn.
        if let Some(turn) = self.turns.last_mut() {
            turn.content.sort_by_key(|block| &*block.kind != "tool_result");
        }
    }
}

/// What a message says. Anthropic takes no empty text.
fn blocks<'a>(
    content: Option<&'a RawValue>,
    param: &str,
) -> Result<Vec<Block<'a>>, Untranslatable> {
    let Some(content) = content else { return Ok(Vec::new()) };
    let parts = openai::parts(content).map_err(|error| no(param, error))?;
    let mut blocks = Vec::with_capacity(parts.len());
    for (n, part) in parts.into_iter().enumerate() {
        let param = || format!("{param}.{n}");
        let block = match &*part.kind {
            "text" => Block::text(part.text.unwrap_or_default()),
            "refusal" => Block::text(part.refusal.unwrap_or_default()),
            "image_url" => {
                let url = part.image_url.ok_or_else(|| no(&param(), "image_url is missing"))?.url;
                Block { kind: "image".into(), source: Some(source(url)), ..Block::default() }
            }
            "file" => {
                let file = part.file.ok_or_else(|| no(&param(), "file is missing"))?;
                let data = file
                    .file_data
                    .ok_or_else(|| no(&param(), "only files with file_data can be passed on"))?;
                Block {
                    kind: "document".into(),
                    source: Some(source(data)),
                    title: file.filename,
                    ..Block::default()
                }
            }
            kind => return Err(no(&param(), format!("Anthropic has nothing like {kind}"))),
        };
        if &*block.kind != "text"
            || block.text.as_deref().is_some_and(|text| !text.trim().is_empty())
        {
            blocks.push(block);
        }
    }
    Ok(blocks)
}

/// An address, or what a `data:` URL holds.
fn source(url: Text<'_>) -> Source<'_> {
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")).map(
        |(kind, data)| {
            let from = url.len() - data.len();
            (kind.split(';').next().unwrap_or_default().to_owned(), from)
        },
    );
    match inline {
        Some((media_type, from)) => Source {
            kind: "base64".into(),
            media_type: Some(media_type.into()),
            data: Some(Text(match url.0 {
                Cow::Borrowed(url) => Cow::Borrowed(&url[from..]),
                Cow::Owned(mut url) => Cow::Owned(url.split_off(from)),
            })),
            url: None,
        },
        None => Source { kind: "url".into(), media_type: None, data: None, url: Some(url) },
    }
}

fn tool_use<'a>(call: openai::ToolCall<'a>, param: &str) -> Result<Block<'a>, Untranslatable> {
    if &*call.kind != "function" {
        return Err(no(
            &format!("{param}.type"),
            format!("Anthropic has nothing like {}", &*call.kind),
        ));
    }
    let arguments =
        if call.function.arguments.trim().is_empty() { "{}" } else { &call.function.arguments };
    let input = RawValue::from_string(arguments.to_owned())
        .ok()
        .filter(|input| input.get().starts_with('{'));
    let input = input
        .ok_or_else(|| no(&format!("{param}.function.arguments"), "it is not a JSON object"))?;
    Ok(Block {
        kind: "tool_use".into(),
        id: Some(call.id.ok_or_else(|| no(&format!("{param}.id"), "it is missing"))?),
        name: Some(call.function.name),
        input: Some(Cow::Owned(input)),
        ..Block::default()
    })
}

fn tools<'a>(asked: &Request<'a>) -> Result<Vec<Tool<'a>>, Untranslatable> {
    let mut tools = Vec::new();
    let mut search = asked.web_search_options.is_some();
    for (n, tool) in asked.tools.iter().flatten().enumerate() {
        match (&*tool.kind, &tool.function) {
            ("function", Some(function)) => tools.push(Tool {
                kind: None,
                name: function.name.clone(),
                description: function.description.clone(),
                input_schema: Some(schema(function.parameters)),
                strict: function.strict.filter(|strict| *strict),
            }),
            // GLM's and Kimi's search.
            ("web_search", _) => search = true,
            ("builtin_function", Some(function)) if &*function.name == "$web_search" => {
                search = true
            }
            (kind, _) => {
                return Err(no(
                    &format!("tools.{n}.type"),
                    format!("Anthropic has nothing like {kind}"),
                ));
            }
        }
    }
    if search {
        tools.push(Tool {
            kind: Some("web_search_20250305".into()),
            name: "web_search".into(),
            description: None,
            input_schema: None,
            strict: None,
        });
    }
    Ok(tools)
}

/// The schema of what a function takes. Anthropic insists on `"type": "object"`.
fn schema(parameters: Option<&RawValue>) -> Cow<'_, RawValue> {
    const NOTHING: &str = r#"{"type":"object","properties":{}}"#;
    let owned = |text: String| RawValue::from_string(text).map(Cow::Owned);
    let members = parameters.and_then(|raw| serde_json::from_str::<Members<'_>>(raw.get()).ok());
    match (parameters, members) {
        (Some(raw), Some(members)) if members.get("type").is_some() => Cow::Borrowed(raw),
        (Some(raw), Some(members)) if !members.0.is_empty() => {
            owned(format!(r#"{{"type":"object",{}"#, &raw.get()[1..])).unwrap_or(Cow::Borrowed(raw))
        }
        _ => owned(NOTHING.to_owned()).unwrap_or_else(|error| unreachable!("it is JSON: {error}")),
    }
}

fn tool_choice<'a>(asked: &Request<'a>) -> Result<Option<ToolChoice<'a>>, Untranslatable> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        function: Option<NamedFunction<'a>>,
    }
    let single = asked.parallel_tool_calls == Some(false);
    let choice = |kind: &'static str, name| ToolChoice {
        kind: kind.into(),
        name,
        disable_parallel_tool_use: (single && kind != "none").then_some(true),
    };
    let Some(raw) = asked.tool_choice else { return Ok(single.then(|| choice("auto", None))) };
    Ok(Some(match raw.get() {
        r#""auto""# => choice("auto", None),
        r#""none""# => choice("none", None),
        r#""required""# => choice("any", None),
        other => {
            let named =
                serde_json::from_str::<Named<'_>>(other).ok().and_then(|named| named.function);
            let named = named.ok_or_else(|| no("tool_choice", "Anthropic has nothing like it"))?;
            choice("tool", Some(named.name))
        }
    }))
}

/// `max_tokens`, which Anthropic wants, and how much of it may be spent on thinking. As with OpenAI, thinking is part
/// of what the client's limit bounds.
fn thinking<'a>(
    asked: &Request<'a>,
    choice: Option<&ToolChoice<'_>>,
) -> (u64, Option<Thinking<'a>>) {
    /// Anthropic takes no less.
    const LEAST: u64 = 1024;
    const MEDIUM: u64 = 8192;
    let limit = asked.max_completion_tokens.or(asked.max_tokens);
    let word = asked.thinking.as_ref().map(|thinking| &*thinking.kind);
    let budget = match (word, asked.reasoning_effort.as_deref()) {
        (Some("disabled"), _) | (None, Some("none")) => {
            let disabled = Thinking { kind: "disabled".into(), budget_tokens: None };
            return (limit.unwrap_or(MAX_TOKENS_DEFAULT), Some(disabled));
        }
        (Some(_), _) => {
            asked.thinking.as_ref().and_then(|thinking| thinking.budget_tokens).unwrap_or(MEDIUM)
        }
        (None, Some("minimal")) => LEAST,
        (None, Some("low")) => 2048,
        (None, Some("medium")) => MEDIUM,
        (None, Some(_)) => 16_384,
        (None, None) => 0,
    };
    // After the call of a tool, Anthropic wants its thinking back with its signature, which OpenAI's clients have no
    // place for; and a tool that is prescribed leaves nothing to think about.
    let in_a_call = asked.messages.last().is_some_and(|message| &*message.role == "tool");
    let prescribed = choice.is_some_and(|choice| matches!(&*choice.kind, "any" | "tool"));
    let budget = limit.map_or(budget, |limit| budget.min(limit / 2));
    if budget < LEAST || in_a_call || prescribed {
        return (limit.unwrap_or(MAX_TOKENS_DEFAULT), None);
    }
    let max_tokens = limit.unwrap_or(MAX_TOKENS_DEFAULT.saturating_add(budget));
    (max_tokens, Some(Thinking { kind: "enabled".into(), budget_tokens: Some(budget) }))
}

fn output_config<'a>(asked: &Request<'a>) -> Option<OutputConfig<'a>> {
    let schema = asked.response_format.as_ref()?.json_schema.as_ref()?.schema?;
    let format = OutputFormat { kind: "json_schema".into(), schema: Some(schema) };
    Some(OutputConfig { format: Some(format), effort: None })
}

/// Where to stop: one text or several. Anthropic takes none of spaces only.
fn stop(raw: Option<&RawValue>) -> Result<Vec<Text<'_>>, Untranslatable> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let stops = if raw.get().starts_with('"') {
        serde_json::from_str(raw.get()).map(|stop| vec![stop])
    } else {
        serde_json::from_str::<Vec<Text<'_>>>(raw.get())
    };
    let mut stops = stops.map_err(|error| no("stop", error))?;
    stops.retain(|stop| !stop.trim().is_empty());
    Ok(stops)
}

fn refuse_other_forms(asked: &Request<'_>) -> Result<(), Untranslatable> {
    let rows = [
        ("n", asked.n.is_some_and(|n| n > 1)),
        ("logprobs", asked.logprobs == Some(true)),
        ("audio", asked.audio.is_some()),
        ("functions", asked.functions.is_some()),
    ];
    match rows.into_iter().find(|(_, given)| *given) {
        Some((param, _)) => Err(no(param, "Anthropic has nothing like it")),
        None => Ok(()),
    }
}

fn no(param: &str, words: impl ToString) -> Untranslatable {
    Untranslatable { param: param.to_owned(), words: words.to_string() }
}
