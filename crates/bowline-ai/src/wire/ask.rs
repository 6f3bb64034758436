//! A client's request, read as far as the gateway needs to.

use std::{fmt, ops::Range};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Dialect, Surface,
    json::{Members, Text, Weight, span, write},
    to_anthropic, to_openai, unsigned,
};
use crate::limit::MODEL_NAME_MAX_BYTES;

/// A client's request: its bytes, and what the gateway has to know of them.
#[derive(Debug, Clone)]
pub struct Ask {
    surface: Surface,
    body: Bytes,
    model: String,
    /// Where the value of `model` stands in the body.
    model_at: Range<usize>,
    stream: bool,
    wants_usage: bool,
    /// How many answers are asked for (`n`).
    choices: u32,
    /// What has to change in the body for a stream to tell its usage: this part, into that.
    options_at: Option<(Range<usize>, &'static str)>,
    prompt_tokens: u64,
    max_tokens: Option<u64>,
    conversation: Option<String>,
    user: Option<String>,
}

impl Ask {
    /// Reads a request. How long a body may be is the caller's business; it may be nested 128 deep.
    ///
    /// # Errors
    ///
    /// The body is not JSON, lacks a field, has one of the wrong type, or has one twice that the gateway goes by (it
    /// would depend on the reader which of the two counts). [`BadRequest`] says which.
    pub fn parse(surface: Surface, body: Bytes) -> Result<Self, BadRequest> {
        let members: Members<'_> = serde_json::from_slice(&body).map_err(|error| BadRequest {
            param: None,
            words: format!("the body is not a JSON object: {error}"),
        })?;
        let fields = Fields { members: &members };
        let model = fields.model()?;
        let stream =
            surface != Surface::Embeddings && fields.read("stream", "a boolean")?.unwrap_or(false);
        let max_tokens = fields.count("max_completion_tokens")?.or(fields.count("max_tokens")?);
        let weight = match surface {
            Surface::Embeddings => fields.weight_of("input", Required::Yes)?,
            Surface::ChatCompletions | Surface::Messages => fields.weight_of_chat()?,
        };
        let options = match surface {
            Surface::ChatCompletions => fields.stream_options(&body)?,
            // Anthropic's streams always tell, and there is nothing to ask for.
            Surface::Messages => StreamOptions { wanted: true, replace: None },
            Surface::Embeddings => StreamOptions { wanted: false, replace: None },
        };
        let metadata = members
            .get("metadata")
            .and_then(|raw| serde_json::from_str::<Metadata<'_>>(raw.get()).ok());
        let metadata = metadata.unwrap_or_default();
        let owned = |text: Text<'_>| text.0.into_owned();
        Ok(Self {
            surface,
            model: model.0.into_owned(),
            model_at: members.get("model").map_or(0..0, |raw| span(&body, raw)),
            stream,
            wants_usage: options.wanted,
            // Nonsense is the provider's to refuse.
            choices: members
                .get("n")
                .and_then(|raw| serde_json::from_str(raw.get()).ok())
                .unwrap_or(1),
            options_at: options.replace,
            prompt_tokens: weight,
            max_tokens,
            conversation: metadata.conversation.map(owned),
            user: fields.read::<Text<'_>>("user", "a string")?.or(metadata.user_id).map(owned),
            body,
        })
    }

    /// What the client asked.
    pub fn surface(&self) -> Surface {
        self.surface
    }

    /// The body as the client sent it.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The model as the client named it.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be streamed.
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// Whether the client of a stream wants to be told of the usage (`stream_options.include_usage`). Always so for
    /// `/v1/messages`, whose streams have no other form.
    pub fn wants_usage(&self) -> bool {
        self.wants_usage
    }

    /// How many answers the client asks for (`n`).
    pub fn choices(&self) -> u32 {
        self.choices
    }

    /// How long the prompt is, in tokens: an estimate, bytes of text divided by four. Images and files do not count.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    /// How long the answer may become, in tokens, if the client said.
    pub fn max_tokens(&self) -> Option<u64> {
        self.max_tokens
    }

    /// `metadata.conversation`, if there is one.
    pub fn conversation(&self) -> Option<&str> {
        self.conversation.as_deref()
    }

    /// `user`, or `metadata.user_id`, if there is one.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The body for a provider. In the client's own dialect it is the client's bytes, of which only `model` is
    /// another, and `stream_options.include_usage` if a stream is asked for, and without thinking that a provider of the
    /// other dialect did before; in the other it is a translation.
    ///
    /// # Errors
    ///
    /// Something in it cannot be said in that dialect.
    pub fn body_for(&self, dialect: Dialect, model: &str) -> Result<Bytes, Untranslatable> {
        match (self.surface, dialect) {
            (Surface::ChatCompletions, Dialect::Anthropic) => {
                to_anthropic::request(&self.body, model)
            }
            (Surface::Messages, Dialect::OpenAi) => to_openai::request(&self.body, model),
            (Surface::Embeddings, Dialect::Anthropic) => Err(Untranslatable {
                param: "input".into(),
                words: "Anthropic has no embeddings".into(),
            }),
            (Surface::ChatCompletions | Surface::Embeddings, Dialect::OpenAi) => {
                Ok(self.with_model(model, None))
            }
            (Surface::Messages, Dialect::Anthropic) => {
                let signed = unsigned::without(&self.body);
                Ok(self.with_model(model, signed.as_ref()))
            }
        }
    }

    /// The client's bytes, with another `model`, other `messages` if there are any and, for a stream, a request for usage.
    fn with_model(&self, model: &str, messages: Option<&(Range<usize>, String)>) -> Bytes {
        let mut edits: Vec<(Range<usize>, &[u8])> = Vec::with_capacity(2);
        edits.extend(messages.map(|(at, text)| (at.clone(), text.as_bytes())));
        let mut name = Vec::with_capacity(model.len() + 2);
        write(&mut name, &model);
        edits.push((self.model_at.clone(), &name));
        if let Some((at, text)) = self.options_at.as_ref().filter(|_| self.stream) {
            edits.push((at.clone(), text.as_bytes()));
        }
        edits.sort_unstable_by_key(|(at, _)| at.start);
        let longer: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(self.body.len() + longer);
        let mut from = 0;
        for (at, text) in edits {
            out.extend_from_slice(&self.body[from..at.start]);
            out.extend_from_slice(text);
            from = at.end;
        }
        out.extend_from_slice(&self.body[from..]);
        out.into()
    }

    /// Where the request goes, below the path of the provider's base URL. OpenAI's base URLs have the version in
    /// them (`https://api.openai.com/v1`), Anthropic's do not (`https://api.anthropic.com`); see
    /// [`path_below`](Self::path_below).
    pub fn path_for(&self, dialect: Dialect) -> &'static str {
        match (self.surface, dialect) {
            (Surface::Embeddings, _) => "/embeddings",
            (_, Dialect::OpenAi) => "/chat/completions",
            (_, Dialect::Anthropic) => "/v1/messages",
        }
    }

    /// The whole path at a provider whose base URL has the path `base`. `/v1` does not come twice.
    pub fn path_below(&self, dialect: Dialect, base: &str) -> String {
        let base = base.trim_end_matches('/');
        let path = self.path_for(dialect);
        match path.strip_prefix("/v1") {
            Some(rest) if base.ends_with("/v1") => format!("{base}{rest}"),
            _ => format!("{base}{path}"),
        }
    }
}

/// A request that is refused before any provider is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRequest {
    /// The field that is wrong, as OpenAI writes it: `messages.0.content`.
    pub param: Option<String>,
    /// What is wrong, a sentence without a full stop.
    pub words: String,
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for BadRequest {}

/// A request that cannot be said in the dialect of a provider. Another provider may understand it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untranslatable {
    /// The field, as OpenAI writes it: `messages.0.content`.
    pub param: String,
    /// Why not.
    pub words: String,
}

impl fmt::Display for Untranslatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.param, self.words)
    }
}

impl std::error::Error for Untranslatable {}

/// The members of a body, read one by one.
struct Fields<'m, 'a> {
    members: &'m Members<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Required {
    Yes,
    No,
}

/// What the body says of usage in streams.
struct StreamOptions {
    wanted: bool,
    replace: Option<(Range<usize>, &'static str)>,
}

#[derive(Default, Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    conversation: Option<Text<'a>>,
    #[serde(borrow, default)]
    user_id: Option<Text<'a>>,
}

impl<'a> Fields<'_, 'a> {
    /// A field as it stands there. `null` is no field.
    fn raw(&self, key: &'static str) -> Result<Option<&'a RawValue>, BadRequest> {
        if self.members.is_ambiguous(key) {
            return Err(wrong(key, format!("{key} is given twice")));
        }
        Ok(self.members.get(key).filter(|raw| raw.get() != "null"))
    }

    fn read<T: Deserialize<'a>>(
        &self,
        key: &'static str,
        form: &str,
    ) -> Result<Option<T>, BadRequest> {
        let read = |raw: &'a RawValue| {
            serde_json::from_str(raw.get()).map_err(|_| wrong(key, format!("{key} must be {form}")))
        };
        self.raw(key)?.map(read).transpose()
    }

    fn count(&self, key: &'static str) -> Result<Option<u64>, BadRequest> {
        self.read(key, "a whole number, not below 0")
    }

    fn model(&self) -> Result<Text<'a>, BadRequest> {
        let model: Option<Text<'_>> = self.read("model", "a string")?;
        let model = model.ok_or_else(|| wrong("model", "model is missing".into()))?;
        if model.is_empty() || model.len() > MODEL_NAME_MAX_BYTES {
            return Err(wrong(
                "model",
                format!("model must have 1 to {MODEL_NAME_MAX_BYTES} bytes"),
            ));
        }
        Ok(model)
    }

    fn weight_of_chat(&self) -> Result<u64, BadRequest> {
        let messages =
            self.raw("messages")?.ok_or_else(|| wrong("messages", "messages is missing".into()))?;
        let list = messages.get().strip_prefix('[').map(str::trim_start);
        if !list.is_some_and(|items| items.starts_with('{')) {
            return Err(wrong(
                "messages",
                "messages must be a list of at least one message".into(),
            ));
        }
        let mut sum = 0;
        for key in ["messages", "system", "tools"] {
            sum += self.weight_of(key, Required::No)?;
        }
        Ok(sum)
    }

    /// Tokens of a field, estimated.
    fn weight_of(&self, key: &'static str, required: Required) -> Result<u64, BadRequest> {
        let Some(raw) = self.raw(key)? else {
            return match required {
                Required::Yes => Err(wrong(key, format!("{key} is missing"))),
                Required::No => Ok(0),
            };
        };
        // Schemas of tools are read as they stand.
        if key == "tools" {
            return Ok(raw.get().len() as u64 / 4);
        }
        let weight: Weight = serde_json::from_str(raw.get())
            .map_err(|error| wrong(key, format!("{key}: {error}")))?;
        Ok(weight.text.div_ceil(4) + weight.numbers)
    }

    fn stream_options(&self, body: &[u8]) -> Result<StreamOptions, BadRequest> {
        // Behind the model, which is always there; so the list of members need not be known.
        let absent = || {
            let end = self.members.get("model").map_or(0, |raw| span(body, raw).end);
            (end..end, r#","stream_options":{"include_usage":true}"#)
        };
        if self.members.is_ambiguous("stream_options") {
            return Err(wrong("stream_options", "stream_options is given twice".into()));
        }
        let Some(raw) = self.members.get("stream_options") else {
            return Ok(StreamOptions { wanted: false, replace: Some(absent()) });
        };
        let at = span(body, raw);
        if raw.get() == "null" {
            return Ok(StreamOptions {
                wanted: false,
                replace: Some((at, r#"{"include_usage":true}"#)),
            });
        }
        let options: Members<'_> = serde_json::from_str(raw.get())
            .map_err(|_| wrong("stream_options", "stream_options must be an object".into()))?;
        if options.is_ambiguous("include_usage") {
            return Err(wrong(
                "stream_options.include_usage",
                "include_usage is given twice".into(),
            ));
        }
        Ok(match options.get("include_usage") {
            Some(value) if value.get() == "true" => StreamOptions { wanted: true, replace: None },
            Some(value) => {
                StreamOptions { wanted: false, replace: Some((span(body, value), "true")) }
            }
            None => {
                let open = at.start + 1;
                let text = if options.0.is_empty() {
                    r#""include_usage":true"#
                } else {
                    r#""include_usage":true,"#
                };
                StreamOptions { wanted: false, replace: Some((open..open, text)) }
            }
        })
    }
}

fn wrong(param: &str, words: String) -> BadRequest {
    BadRequest { param: Some(param.to_owned()), words }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Ask, BadRequest> {
        Ask::parse(Surface::ChatCompletions, Bytes::copy_from_slice(body.as_bytes()))
    }

    fn sent(body: &str) -> String {
        let body = chat(body).unwrap().body_for(Dialect::OpenAi, "kimi-k2").unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn only_the_model_is_another() {
        let body = r#" { "messages" : [ {"role":"user","content":"h\u00e9"} ] , "x":1e400, "model" : "chat" , "model2":"chat"} "#;
        assert_eq!(sent(body), body.replace(r#""chat" "#, r#""kimi-k2" "#));
    }

    #[test]
    fn thinking_that_nobody_signed_is_not_shown_to_anthropic() {
        let ours = format!(
            r#"{{"type":"thinking","thinking":"hm","signature":"{}"}}"#,
            unsigned::SIGNATURE
        );
        let body = |turns: &str| {
            let body = format!(r#"{{"x": 1,"messages":[{turns}],"model":"chat","max_tokens":9}}"#);
            Ask::parse(Surface::Messages, body.into()).unwrap()
        };
        let sent = |turns: &str| {
            let sent = body(turns).body_for(Dialect::Anthropic, "chat").unwrap();
            assert_eq!(sent.first(), Some(&b'{'));
            String::from_utf8(sent.to_vec()).unwrap()
        };
        let user = r#"{"role": "user","content":"hi"}"#;
        let with =
            |blocks: &str| format!(r#"{{"role":"assistant", "content": [{blocks}] ,"y":2}}"#);
        let text = r#"{ "type":"text", "text":"h\u00e9" }"#;
        let rows = [
            (
                format!("{user},{},{user}", with(&format!("{ours} , {text}"))),
                format!("{user},{},{user}", with(text)),
            ),
            // Nothing is left of it, and Anthropic wants no empty message.
            (format!("{user},{},{user}", with(&ours)), format!("{user},{user}")),
        ];
        for (turns, expected) in rows {
            assert_eq!(sent(&turns), String::from_utf8_lossy(body(&expected).body()), "{turns}");
        }
        // That of others stays, signed or not, and so does every byte around it.
        for signature in ["s", ""] {
            let other = ours.replace(unsigned::SIGNATURE, signature);
            let turns = format!("{user} , {}", with(&format!("{other} , {text}")));
            assert_eq!(sent(&turns), String::from_utf8_lossy(body(&turns).body()));
        }
        let back = body(&format!("{user},{}", with(&ours)));
        let back = back.body_for(Dialect::OpenAi, "kimi-k2").unwrap();
        assert!(String::from_utf8_lossy(&back).contains("hm"));
    }

    #[test]
    fn a_stream_is_asked_for_its_usage() {
        let rows = [
            (r#""stream":true"#, r#","stream_options":{"include_usage":true},"stream":true"#),
            (
                r#""stream":true,"stream_options":null"#,
                r#","stream":true,"stream_options":{"include_usage":true}"#,
            ),
            (
                r#""stream":true,"stream_options":{}"#,
                r#","stream":true,"stream_options":{"include_usage":true}"#,
            ),
            (
                r#""stream":true,"stream_options":{ "include_usage" : false }"#,
                r#","stream":true,"stream_options":{ "include_usage" : true }"#,
            ),
            (
                r#""stream":true,"stream_options":{ "x":1}"#,
                r#","stream":true,"stream_options":{"include_usage":true, "x":1}"#,
            ),
            (
                r#""stream":true,"stream_options":{"include_usage":true}"#,
                r#","stream":true,"stream_options":{"include_usage":true}"#,
            ),
            (r#""stream":false"#, r#","stream":false"#),
        ];
        for (asked, expected) in rows {
            let found = sent(&format!(r#"{{"messages":[{{}}],"model":"chat",{asked}}}"#));
            assert_eq!(
                found,
                format!(r#"{{"messages":[{{}}],"model":"kimi-k2"{expected}}}"#),
                "{asked}"
            );
        }
        let before = r#"{"stream_options":{},"stream":true,"messages":[{}],"model":"chat"}"#;
        assert_eq!(
            sent(before),
            r#"{"stream_options":{"include_usage":true},"stream":true,"messages":[{}],"model":"kimi-k2"}"#
        );
    }

    #[test]
    fn a_wrong_field_is_named() {
        let rows = [
            ("[]", None),
            ("{", None),
            (r#"{"messages":[{}]}"#, Some("model")),
            (r#"{"model":"","messages":[{}]}"#, Some("model")),
            (r#"{"model":1,"messages":[{}]}"#, Some("model")),
            (r#"{"model":"a","model":"b","messages":[{}]}"#, Some("model")),
            (r#"{"model":"a"}"#, Some("messages")),
            (r#"{"model":"a","messages":[]}"#, Some("messages")),
            (r#"{"model":"a","messages":"hi"}"#, Some("messages")),
            (r#"{"model":"a","messages":[{}],"stream":"yes"}"#, Some("stream")),
            (r#"{"model":"a","messages":[{}],"max_tokens":-1}"#, Some("max_tokens")),
            (r#"{"model":"a","messages":[{}],"stream_options":1}"#, Some("stream_options")),
        ];
        for (body, param) in rows {
            assert_eq!(chat(body).unwrap_err().param.as_deref(), param, "{body}");
        }
        let wide = format!(r#"{{"model":"a","messages":[{{}}]{}}}"#, r#","x":0"#.repeat(511));
        assert_eq!(chat(&wide).unwrap_err().param, None);
        let deep = format!(
            r#"{{"model":"a","messages":[{{"content":{}}}]}}"#,
            "[".repeat(500) + &"]".repeat(500)
        );
        assert_eq!(chat(&deep).unwrap_err().param.as_deref(), Some("messages"));
        assert!(Ask::parse(Surface::Embeddings, Bytes::from_static(br#"{"model":"a"}"#)).is_err());
    }

    #[test]
    fn a_prompt_is_weighed_by_its_text() {
        let image = "A".repeat(4000);
        let body = format!(
            r#"{{"model":"a","messages":[{{"role":"system","content":"12345678"}},{{"role":"user","content":[{{"type":"text","text":"1234"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}}]}}],"max_tokens":7,"user":"u"}}"#
        );
        let ask = chat(&body).unwrap();
        assert_eq!((ask.prompt_tokens(), ask.max_tokens(), ask.user()), (3, Some(7), Some("u")));
        let tokens = Bytes::from_static(br#"{"model":"e","input":[[1,2,3],[4]]}"#);
        assert_eq!(Ask::parse(Surface::Embeddings, tokens).unwrap().prompt_tokens(), 4);
    }

    #[test]
    fn a_path_has_its_version_once() {
        let ask = chat(r#"{"model":"a","messages":[{}]}"#).unwrap();
        assert_eq!(ask.path_below(Dialect::OpenAi, "/v1/"), "/v1/chat/completions");
        assert_eq!(
            ask.path_below(Dialect::OpenAi, "/api/paas/v4"),
            "/api/paas/v4/chat/completions"
        );
        assert_eq!(ask.path_below(Dialect::Anthropic, ""), "/v1/messages");
        assert_eq!(ask.path_below(Dialect::Anthropic, "/anthropic/v1"), "/anthropic/v1/messages");
    }
}
