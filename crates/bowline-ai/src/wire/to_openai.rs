//! A request of an Anthropic client, in OpenAI's dialect.
//!
//! `top_k` and `cache_control` are left out, and so is `thinking: disabled`, which OpenAI has no word for. Tools that
//! Anthropic runs by itself are refused, but for the search of the web.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    Untranslatable,
    anthropic::{Block, Request, Source, Tool, ToolChoice},
    json::{Text, raw, write},
    openai::{
        self, Empty, File, FunctionCall, FunctionTool, ImageUrl, JsonSchema, MessageTo,
        NamedFunction, Part, RequestOut, ResponseFormat, StreamOptions, ToolCall, ToolChoiceOut,
    },
};

/// Translates a body.
pub(super) fn request(body: &[u8], model: &str) -> Result<Bytes, Untranslatable> {
    let asked: Request<'_> = serde_json::from_slice(body).map_err(|error| no("body", error))?;
    let messages = messages(&asked)?;
    if messages.is_empty() {
        return Err(no("messages", "nothing is said in them"));
    }
    let reasoning_effort = effort(&asked);
    let (tools, search) = tools(asked.tools.unwrap_or_default())?;
    let single = asked
        .tool_choice
        .as_ref()
        .is_some_and(|choice| choice.disable_parallel_tool_use == Some(true));
    let tool_choice =
        asked.tool_choice.filter(|_| !tools.is_empty()).map(tool_choice).transpose()?;
    let format = asked.output_config.and_then(|config| config.format);
    let renamed = wants_max_completion_tokens(model);
    let stream = asked.stream == Some(true);
    let request = RequestOut {
        model,
        messages,
        max_tokens: asked.max_tokens.filter(|_| !renamed),
        max_completion_tokens: asked.max_tokens.filter(|_| renamed),
        temperature: asked.temperature,
        top_p: asked.top_p,
        stop: asked.stop_sequences.filter(|stops| !stops.is_empty()),
        parallel_tool_calls: (single && !tools.is_empty()).then_some(false),
        tools,
        tool_choice,
        response_format: format.map(|format| ResponseFormat {
            kind: "json_schema".into(),
            json_schema: Some(JsonSchema {
                name: "answer".into(),
                schema: format.schema,
                strict: Some(true),
            }),
        }),
        reasoning_effort,
        web_search_options: search.then_some(Empty {}),
        user: asked.metadata.and_then(|metadata| metadata.user_id),
        stream: asked.stream,
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
    };
    let mut out = Vec::with_capacity(body.len() + 256);
    write(&mut out, &request);
    Ok(out.into())
}

fn messages<'a>(asked: &Request<'a>) -> Result<Vec<MessageTo<'a>>, Untranslatable> {
    let mut messages = Vec::with_capacity(asked.messages.len() + 1);
    if let Some(content) = asked.system {
        messages.extend(system(content, "system")?);
    }
    for (n, message) in asked.messages.iter().enumerate() {
        let param = format!("messages.{n}");
        match &*message.role {
            "user" => user(message.content, &param, &mut messages)?,
            "assistant" => messages.push(assistant(message.content, &param)?),
            "system" => messages.extend(system(message.content, &param)?),
            role => return Err(no(&format!("{param}.role"), format!("OpenAI has no role {role}"))),
        }
    }
    Ok(messages)
}

/// What the system says, if it says anything.
fn system<'a>(content: &'a RawValue, param: &str) -> Result<Option<MessageTo<'a>>, Untranslatable> {
    let blocks = blocks(content, param)?;
    let text = joined(blocks.iter().filter_map(|block| block.text.as_deref()), "\n\n");
    let message =
        MessageTo { role: "system", content: Some(text_of(&text)), ..MessageTo::default() };
    Ok(Some(message).filter(|_| !text.is_empty()))
}

fn tool_choice(choice: ToolChoice<'_>) -> Result<ToolChoiceOut<'_>, Untranslatable> {
    Ok(match (&*choice.kind, choice.name) {
        ("auto", _) => ToolChoiceOut::Word("auto"),
        ("none", _) => ToolChoiceOut::Word("none"),
        ("any", _) => ToolChoiceOut::Word("required"),
        (_, Some(name)) => {
            ToolChoiceOut::Function { kind: "function", function: NamedFunction { name } }
        }
        _ => return Err(no("tool_choice", "OpenAI has nothing like it")),
    })
}

/// OpenAI's newer models want `max_completion_tokens`; everybody else knows `max_tokens` only.
fn wants_max_completion_tokens(model: &str) -> bool {
    let model = model.rsplit('/').next().unwrap_or(model);
    ["o1", "o3", "o4", "gpt-5", "gpt-6"].iter().any(|prefix| model.starts_with(prefix))
}

/// A turn of the user. Results of tools are messages of their own, which come first; images in them go with the
/// user's.
fn user<'a>(
    content: &'a RawValue,
    param: &str,
    messages: &mut Vec<MessageTo<'a>>,
) -> Result<(), Untranslatable> {
    let mut parts = Vec::new();
    for (n, block) in blocks(content, param)?.into_iter().enumerate() {
        let param = format!("{param}.content.{n}");
        if &*block.kind != "tool_result" {
            parts.push(part(block, &param)?);
            continue;
        }
        let mut texts = Vec::new();
        if let Some(inner) = block.read_content() {
            for inner in blocks(inner, &param)? {
                let part = part(inner, &format!("{param}.content"))?;
                if &*part.kind == "text" { texts.push(part) } else { parts.push(part) }
            }
        }
        let text = joined(texts.iter().filter_map(|part| part.text.as_deref()), "\n");
        messages.push(MessageTo {
            role: "tool",
            content: Some(text_of(&text)),
            tool_call_id: Some(
                block
                    .tool_use_id
                    .ok_or_else(|| no(&format!("{param}.tool_use_id"), "it is missing"))?,
            ),
            ..MessageTo::default()
        });
    }
    if parts.is_empty() {
        return Ok(());
    }
    // Many models take lists of parts only where there is more than text.
    let content = if parts.iter().all(|part| &*part.kind == "text") {
        text_of(&joined(parts.iter().filter_map(|part| part.text.as_deref()), "\n"))
    } else {
        Cow::Owned(raw(&parts))
    };
    messages.push(MessageTo { role: "user", content: Some(content), ..MessageTo::default() });
    Ok(())
}

/// What OpenAI calls a part.
fn part<'a>(block: Block<'a>, param: &str) -> Result<Part<'a>, Untranslatable> {
    let nothing =
        || no(&format!("{param}.type"), format!("OpenAI has nothing like {}", &*block.kind));
    let source = block.source;
    match (&*block.kind, source) {
        ("text", _) => Ok(Part { kind: "text".into(), text: block.text, ..Part::default() }),
        ("image", Some(source)) => {
            let url = url(source)
                .ok_or_else(|| no(&format!("{param}.source"), "OpenAI has nothing like it"))?;
            Ok(Part {
                kind: "image_url".into(),
                image_url: Some(ImageUrl { url }),
                ..Part::default()
            })
        }
        ("document", Some(source)) if &*source.kind == "text" => {
            Ok(Part { kind: "text".into(), text: source.data, ..Part::default() })
        }
        ("document", Some(source)) if &*source.kind == "base64" => {
            let filename = block.title.or_else(|| Some("document.pdf".into()));
            let file = File { filename, file_data: url(source) };
            Ok(Part { kind: "file".into(), file: Some(file), ..Part::default() })
        }
        _ => Err(nothing()),
    }
}

/// An address, or a `data:` URL.
fn url(source: Source<'_>) -> Option<Text<'_>> {
    match (&*source.kind, source.media_type, source.data) {
        ("base64", Some(media_type), Some(data)) => {
            Some(format!("data:{};base64,{}", &*media_type, &*data).into())
        }
        ("url", ..) => source.url,
        _ => None,
    }
}

fn assistant<'a>(content: &'a RawValue, param: &str) -> Result<MessageTo<'a>, Untranslatable> {
    let (mut text, mut reasoning, mut tool_calls) = (String::new(), String::new(), Vec::new());
    for (n, block) in blocks(content, param)?.into_iter().enumerate() {
        match &*block.kind {
            "text" => text.push_str(block.text.as_deref().unwrap_or_default()),
            // Kimi, GLM and DeepSeek want it back while tools are called.
            "thinking" => reasoning.push_str(block.thinking.as_deref().unwrap_or_default()),
            "tool_use" => {
                let missing = |field| no(&format!("{param}.content.{n}.{field}"), "it is missing");
                let arguments = block.input.as_ref().map_or("{}", |input| input.get()).to_owned();
                let name = block.name.ok_or_else(|| missing("name"))?;
                tool_calls.push(ToolCall {
                    id: Some(block.id.ok_or_else(|| missing("id"))?),
                    kind: "function".into(),
                    function: FunctionCall { name, arguments: arguments.into() },
                });
            }
            // What Anthropic did by itself, and what nobody else can read.
            "redacted_thinking" | "server_tool_use" | "web_search_tool_result" => {}
            kind => {
                return Err(no(
                    &format!("{param}.content.{n}.type"),
                    format!("OpenAI has nothing like {kind}"),
                ));
            }
        }
    }
    Ok(MessageTo {
        role: "assistant",
        content: (!text.is_empty() || tool_calls.is_empty()).then(|| text_of(&text)),
        reasoning_content: Some(reasoning).filter(|text| !text.is_empty()),
        tool_calls,
        tool_call_id: None,
    })
}

/// The tools that the client runs, and whether the provider is to search the web.
fn tools(tools: Vec<Tool<'_>>) -> Result<(Vec<openai::Tool<'_>>, bool), Untranslatable> {
    let (mut out, mut search) = (Vec::with_capacity(tools.len()), false);
    for (n, tool) in tools.into_iter().enumerate() {
        match tool.kind.as_deref() {
            None | Some("custom") => out.push(openai::Tool {
                kind: "function".into(),
                function: Some(FunctionTool {
                    name: tool.name,
                    description: tool.description,
                    parameters: match tool.input_schema {
                        Some(Cow::Borrowed(schema)) => Some(schema),
                        _ => None,
                    },
                    strict: tool.strict,
                }),
            }),
            Some(kind) if kind.starts_with("web_search_") => search = true,
            Some(kind) => {
                return Err(no(
                    &format!("tools.{n}.type"),
                    format!("OpenAI has nothing like {kind}"),
                ));
            }
        }
    }
    Ok((out, search))
}

/// How hard to think, if the client wants any thinking.
fn effort(asked: &Request<'_>) -> Option<&'static str> {
    let thinking = asked.thinking.as_ref().filter(|thinking| &*thinking.kind != "disabled")?;
    let named = asked.output_config.as_ref().and_then(|config| config.effort.as_deref());
    Some(match (named, thinking.budget_tokens) {
        (Some("low"), _) => "low",
        (Some("medium"), _) => "medium",
        (Some(_), _) => "high",
        (None, Some(..4096)) => "low",
        (None, Some(4096..16_384)) => "medium",
        (None, Some(_)) => "high",
        (None, None) => return None,
    })
}

/// The blocks of a content; a mere text is one block.
fn blocks<'a>(content: &'a RawValue, param: &str) -> Result<Vec<Block<'a>>, Untranslatable> {
    if content.get().starts_with('"') {
        let text: Text<'_> =
            serde_json::from_str(content.get()).map_err(|error| no(param, error))?;
        return Ok(vec![Block::text(text)]);
    }
    serde_json::from_str(content.get()).map_err(|error| no(&format!("{param}.content"), error))
}

fn joined<'t>(texts: impl Iterator<Item = &'t str>, with: &str) -> String {
    texts.collect::<Vec<_>>().join(with)
}

fn text_of<'a>(text: &str) -> Cow<'a, RawValue> {
    Cow::Owned(raw(text))
}

fn no(param: &str, words: impl ToString) -> Untranslatable {
    Untranslatable { param: param.to_owned(), words: words.to_string() }
}
