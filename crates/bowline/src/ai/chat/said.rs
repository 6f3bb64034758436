//! What a client says in a `chat` event, and the request that it becomes.

use std::sync::Arc;

use bowline_net::socketio::Args;
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json, value::RawValue};

use super::{Problem, deltas::Written};
use crate::ai::{REQUEST, conversations::Message, limit, request_id};

/// The argument of a `chat` event.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    /// What the client calls the answer: see [`id`].
    #[serde(default, rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(default)]
    conversation: Option<Conversation>,
    /// Stands before everything else, and is not remembered.
    #[serde(default)]
    system: Option<Value>,
    #[serde(default)]
    message: Option<Value>,
    #[serde(default)]
    messages: Option<Vec<Value>>,
    /// What a model is asked for besides: tools, temperature and so on.
    #[serde(flatten)]
    options: Map<String, Value>,
}

/// Whether it is part of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Conversation {
    /// `true` begins one, whose name the client is told.
    Begin(bool),
    Named(String),
}

/// What names of conversations begin with that were made here.
const MADE: &str = "conv_";

/// What the client calls the answer, if it calls it something. Reads no more than that.
pub(super) fn id(args: &Args) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let (_, Named { id }) = args.parse::<(IgnoredAny, Named)>().ok()?;
    (1..=limit::NAME_BYTES_MAX).contains(&id.len()).then_some(id)
}

/// The key that a client shows when it connects: `auth: { key: "KEY" }`.
pub(super) fn key(auth: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Shown {
        key: String,
    }
    serde_json::from_str(auth).ok().map(|Shown { key }| key)
}

/// Which answers a `cancel` event means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant {
    One(String),
    All,
    /// It cannot be told.
    Nothing,
}

/// Reads a `cancel` event: `"ID"`, `{ "id": "ID" }`, or nothing for all.
pub(super) fn meant(args: &Args) -> Meant {
    let Ok(values) = args.parse::<Vec<Value>>() else { return Meant::Nothing };
    match values.get(1) {
        None | Some(Value::Null) => Meant::All,
        Some(Value::String(id)) => Meant::One(id.clone()),
        Some(value) => value["id"].as_str().map_or(Meant::Nothing, |id| Meant::One(id.to_owned())),
    }
}

impl Said {
    /// Reads the argument of an event: a text, or an object.
    pub(super) fn read(args: &Args) -> Result<Self, Problem> {
        let wrong = |words: String| Problem::new("invalid-request", words);
        let (_, value): (String, Value) = args.parse().map_err(|error| {
            wrong(format!("`chat` takes one argument, a text or an object: {error}"))
        })?;
        let said = match value {
            Value::String(_) => Self { message: Some(value), ..Self::default() },
            value => serde_json::from_value::<Self>(value)
                .map_err(|error| wrong(format!("the argument of `chat`: {error}")))?,
        };
        let long = |name: &str| name.is_empty() || name.len() > limit::NAME_BYTES_MAX;
        let named = match &said.conversation {
            Some(Conversation::Named(name)) => Some(name.as_str()),
            Some(Conversation::Begin(_)) | None => None,
        };
        if named.is_some_and(long) {
            let most = limit::NAME_BYTES_MAX;
            return Err(wrong(format!("`conversation` has 1 to {most} bytes")));
        }
        if said.message.is_some() == said.messages.is_some() {
            return Err(wrong("say `message` or `messages`".to_owned()));
        }
        Ok(said)
    }

    /// What its conversation is called here, if it is part of one. One that a client has named is its own; one that was
    /// named here is that of whoever knows the name, since nobody guesses it.
    pub(super) fn conversation_name(
        &self,
        sid: &str,
        is_known: impl Fn(&str) -> bool,
    ) -> Option<Arc<str>> {
        match self.conversation.as_ref()? {
            Conversation::Begin(false) => None,
            Conversation::Begin(true) => {
                let id = request_id();
                Some(format!("{MADE}{}", id.trim_start_matches(REQUEST)).into())
            }
            Conversation::Named(name) if name.starts_with(MADE) && is_known(name) => {
                Some(name.as_str().into())
            }
            Conversation::Named(name) => Some(format!("{sid}/{name}").into()),
        }
    }

    /// The request, in the dialect of OpenAI, behind what was said before.
    pub(super) fn body(&self, model: &str, earlier: &[Message]) -> Result<Bytes, Problem> {
        let system = self.system.as_ref().map(|text| json!({ "role": "system", "content": text }));
        let mut messages: Vec<Value> = system.into_iter().collect();
        for message in earlier {
            let message = serde_json::from_str(message.json.get());
            messages.extend(message.ok());
        }
        messages.extend(self.own());
        let mut body = self.options.clone();
        body.insert("model".to_owned(), json!(model));
        body.insert("messages".to_owned(), Value::Array(messages));
        body.insert("stream".to_owned(), json!(true));
        body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        serde_json::to_vec(&body)
            .map(Bytes::from)
            .map_err(|error| Problem::new("invalid-request", error.to_string()))
    }

    /// What is remembered of it and of the answer.
    pub(super) fn remembered(&self, written: &Written) -> Vec<Message> {
        if self.conversation.is_none() || !written.is_whole() {
            return Vec::new();
        }
        let all = self.own().into_iter().chain([written.message()]);
        let message = |value: Value| {
            let by_user = value["role"] == "user";
            let json = RawValue::from_string(value.to_string()).ok()?;
            Some(Message { by_user, json: json.into() })
        };
        all.filter_map(message).collect()
    }

    /// Its own messages.
    fn own(&self) -> Vec<Value> {
        match (&self.message, &self.messages) {
            (Some(message @ Value::Object(_)), _) => vec![message.clone()],
            (Some(content), _) => vec![json!({ "role": "user", "content": content })],
            (None, messages) => messages.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: Value) -> Result<Said, Problem> {
        Said::read(&Args::from_values(&[json!("chat"), value]))
    }

    fn body(said: &Said, earlier: &[Message]) -> Value {
        serde_json::from_slice(&said.body("m", earlier).unwrap()).unwrap()
    }

    #[test]
    fn a_text_is_a_message_of_the_user() {
        let body = body(&said(json!("hello")).unwrap(), &[]);
        assert_eq!(body["messages"], json!([{ "role": "user", "content": "hello" }]));
        assert_eq!((&body["model"], &body["stream"]), (&json!("m"), &json!(true)));
    }

    #[test]
    fn options_are_passed_on_and_what_was_said_before_stands_before() {
        let said = said(json!({
            "system": "be brief", "message": [{ "type": "text", "text": "and now?" }],
            "temperature": 0.1, "model": "another", "stream": false, "conversation": "c",
        }));
        let json = RawValue::from_string(r#"{"role":"user","content":"first"}"#.to_owned());
        let earlier = [Message { by_user: true, json: json.unwrap().into() }];
        let body = body(&said.unwrap(), &earlier);
        assert_eq!(
            body["messages"],
            json!([
                { "role": "system", "content": "be brief" },
                { "role": "user", "content": "first" },
                { "role": "user", "content": [{ "type": "text", "text": "and now?" }] },
            ])
        );
        assert_eq!((&body["temperature"], &body["model"]), (&json!(0.1), &json!("m")));
        assert_eq!(body["stream"], true);
        assert!(body.get("conversation").is_none() && body.get("system").is_none());
    }

    #[test]
    fn a_conversation_that_a_client_has_named_is_its_own() {
        let named = |name: Value| said(json!({ "message": "x", "conversation": name })).unwrap();
        let name = |said: &Said, sid, known| said.conversation_name(sid, |_| known);
        assert_eq!(name(&named(json!("c")), "SID", false).as_deref(), Some("SID/c"));
        assert_eq!(name(&named(json!(false)), "SID", false), None);
        let made = name(&named(json!(true)), "SID", false).unwrap();
        assert!(made.starts_with(MADE) && made.len() > 32 && !made.contains('/'), "{made}");
        // Whoever knows the name of one that is there may go on; to make one up does not help.
        assert_eq!(name(&named(json!(&*made)), "OTHER", true), Some(made));
        assert_eq!(name(&named(json!("conv_x")), "SID", false).as_deref(), Some("SID/conv_x"));
        assert_eq!(name(&named(json!("SID/c")), "OTHER", true).as_deref(), Some("OTHER/SID/c"));
    }

    #[test]
    fn an_answer_has_the_id_that_its_client_gives_it() {
        let of = |value| id(&Args::from_values(&[json!("chat"), value]));
        assert_eq!(of(json!({ "message": "x", "id": "a" })).as_deref(), Some("a"));
        for without in [json!("a"), json!({}), json!({ "id": 7 }), json!({ "id": "" })] {
            assert_eq!(of(without), None);
        }
        assert_eq!(of(json!({ "id": "x".repeat(129) })), None);
    }

    #[test]
    fn a_cancel_that_is_not_understood_cancels_nothing() {
        let of = |values: &[Value]| meant(&Args::from_values(values));
        assert_eq!(of(&[json!("cancel")]), Meant::All);
        assert_eq!(of(&[json!("cancel"), json!("a")]), Meant::One("a".to_owned()));
        assert_eq!(of(&[json!("cancel"), json!({ "id": "a" })]), Meant::One("a".to_owned()));
        assert_eq!(of(&[json!("cancel"), json!({ "idd": "a" })]), Meant::Nothing);
        assert_eq!(of(&[json!("cancel"), json!(7)]), Meant::Nothing);
    }

    #[test]
    fn what_is_no_chat_is_refused_with_words() {
        for wrong in [
            json!(null),
            json!(1),
            json!({}),
            json!({ "message": "x", "messages": [] }),
            json!({ "message": "x", "conversation": "x".repeat(129) }),
            json!({ "message": "x", "conversation": 1 }),
        ] {
            let problem = said(wrong.clone()).unwrap_err();
            assert_eq!(problem.code, "invalid-request", "{wrong}");
        }
        assert!(Said::read(&Args::from_values(&[json!("chat")])).is_err());
    }
}
