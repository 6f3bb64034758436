//! What is said to an app, and what it answers: the JSON of `docs/backend.md`. Pure.

mod answer;
mod binary;

use std::{borrow::Cow, fmt, net::IpAddr};

use bowline_net::SocketData;
use bowline_proto::socketio::Args;
use bytestring::ByteString;
use serde_json::value::RawValue;

pub(crate) use answer::{ConnectAnswer, Emit, EventAnswer, To};

/// What is wrong with an answer, to be read after "the answer". Never holds what an app wrote but
/// the names of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake(String);

impl Mistake {
    fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// The same, said of one key.
    fn of(key: &str, words: impl fmt::Display) -> Self {
        Self(format!("`{key}` {words}"))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

/// Makes an event of its name and of its arguments as an app writes them: a JSON array, binary as
/// `{"$binary":"BASE64"}`.
///
/// # Errors
///
/// The arguments are no JSON array or have a mistake in what is binary, or the name is one that
/// clients keep for themselves.
pub fn event(name: &str, args: &str) -> Result<Args, Mistake> {
    if answer::is_reserved(name) {
        return Err(Mistake::of("event", "is a name that clients keep for themselves"));
    }
    let args: &RawValue = serde_json::from_str(args)
        .map_err(|error| Mistake::of("args", format!("must be a JSON array: {error}")))?;
    let args = binary::from_app(args.get()).map_err(|mistake| Mistake::of("args", mistake))?;
    answer::named(name, &args)
}

/// Writes arguments as apps read them: a JSON array, binary as `{"$binary":"BASE64"}`.
pub fn to_json(args: &Args) -> Cow<'_, str> {
    binary::to_app(args)
}

/// What an app hears of a socket with each of its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Without the socket's own room.
    pub(crate) rooms: Vec<ByteString>,
    /// JSON. None is `{}`.
    pub(crate) data: Option<SocketData>,
}

impl View {
    /// What it is after an answer has taken effect.
    pub(crate) fn apply(&mut self, answer: &EventAnswer) {
        if let Some(data) = &answer.data {
            self.data = Some(data.clone());
        }
        for room in &answer.join {
            if !self.rooms.contains(room) {
                self.rooms.push(room.clone());
            }
        }
        self.rooms.retain(|room| !answer.leave.contains(room));
    }

    fn data(&self) -> &str {
        self.data.as_ref().map_or("{}", |data| &**data.text())
    }

    /// Writes it into an object that has begun.
    fn push(&self, out: &mut String) {
        out.push_str(",\"rooms\":[");
        for (index, room) in self.rooms.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_text(out, room);
        }
        out.push_str("],\"data\":");
        out.push_str(self.data());
    }
}

/// A client asks to join, or comes back and is asked who it is once more.
pub(crate) struct Connect<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) sid: &'a str,
    /// A JSON object, if the client sent one.
    pub(crate) auth: Option<&'a str>,
    /// Names in lower case, in order of arrival.
    pub(crate) headers: &'a [(String, String)],
    /// Without the question mark.
    pub(crate) query: &'a str,
    pub(crate) address: Option<IpAddr>,
    /// What the app knows of it, if it is a client that comes back.
    pub(crate) recovered: Option<&'a View>,
}

impl Connect<'_> {
    /// The body of the request.
    pub(crate) fn body(&self) -> String {
        let mut out = String::with_capacity(512);
        begin(&mut out, "connect", self.namespace, self.sid);
        out.push_str(",\"auth\":");
        out.push_str(self.auth.unwrap_or("null"));
        out.push_str(",\"headers\":");
        let headers = self.headers.iter();
        push_lists(&mut out, headers.map(|(name, value)| (name.into(), value.into())));
        out.push_str(",\"query\":");
        push_lists(&mut out, form_urlencoded::parse(self.query.as_bytes()));
        out.push_str(",\"address\":");
        match self.address {
            Some(address) => push_text(&mut out, &address.to_string()),
            None => out.push_str("null"),
        }
        if let Some(view) = self.recovered {
            view.push(&mut out);
        }
        out.push_str(",\"recovered\":");
        out.push_str(if self.recovered.is_some() { "true}" } else { "false}" });
        out
    }
}

/// A client sent an event.
pub(crate) struct Event<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) sid: &'a str,
    pub(crate) view: &'a View,
    pub(crate) args: &'a Args,
    pub(crate) ack: bool,
}

impl Event<'_> {
    /// The body of the request.
    pub(crate) fn body(&self) -> String {
        let rest = self.args.rest();
        let args = binary::to_app(&rest);
        let mut out = String::with_capacity(192 + args.len() + self.view.data().len());
        begin(&mut out, "event", self.namespace, self.sid);
        self.view.push(&mut out);
        out.push_str(",\"event\":");
        push_text(&mut out, &self.args.name().unwrap_or_default());
        out.push_str(",\"args\":");
        out.push_str(&args);
        out.push_str(",\"ack\":");
        out.push_str(if self.ack { "true}" } else { "false}" });
        out
    }
}

/// What is told of a socket, whatever the answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News<'a> {
    /// It has lost its client, who may come back.
    Away(&'a str),
    /// Its client is there again.
    Back,
    /// It has left.
    Disconnect(&'a str),
}

impl News<'_> {
    /// The body of the request.
    pub(crate) fn body(self, namespace: &str, sid: &str) -> String {
        let (kind, reason) = match self {
            Self::Away(reason) => ("away", Some(reason)),
            Self::Back => ("back", None),
            Self::Disconnect(reason) => ("disconnect", Some(reason)),
        };
        let mut out = String::with_capacity(128);
        begin(&mut out, kind, namespace, sid);
        out.push_str(",\"reason\":");
        match reason {
            Some(reason) => push_text(&mut out, reason),
            None => out.push_str("null"),
        }
        out.push('}');
        out
    }
}

/// What every request begins with.
fn begin(out: &mut String, kind: &str, namespace: &str, sid: &str) {
    out.push_str("{\"type\":");
    push_text(out, kind);
    out.push_str(",\"namespace\":");
    push_text(out, namespace);
    out.push_str(",\"sid\":");
    push_text(out, sid);
}

/// An object of lists: every value of a name, the names in the order in which they first came.
fn push_lists<'a>(out: &mut String, pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) {
    let mut lists: Vec<(Cow<'a, str>, Vec<Cow<'a, str>>)> = Vec::new();
    for (name, value) in pairs {
        match lists.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => lists.push((name, vec![value])),
        }
    }
    for (index, (name, values)) in lists.iter().enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        push_text(out, name);
        out.push(':');
        for (index, value) in values.iter().enumerate() {
            out.push(if index == 0 { '[' } else { ',' });
            push_text(out, value);
        }
        out.push(']');
    }
    out.push_str(if lists.is_empty() { "{}" } else { "}" });
}

/// Writes a JSON string.
fn push_text(out: &mut String, text: &str) {
    let plain = !text.bytes().any(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'));
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_connect_says_who_asks() {
        let headers = [("cookie", "a=1"), ("x-a", "1\"é"), ("cookie", "b=2")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let connect = Connect {
            namespace: "/chat",
            sid: "abc",
            auth: Some(r#"{"token":"t"}"#),
            headers: &headers,
            query: "EIO=4&room=a+b&room=%C3%A9&empty",
            address: Some(IpAddr::from([127, 0, 0, 1])),
            recovered: None,
        };
        let wanted = concat!(
            r#"{"type":"connect","namespace":"/chat","sid":"abc","auth":{"token":"t"},"#,
            r#""headers":{"cookie":["a=1","b=2"],"x-a":["1\"é"]},"#,
            r#""query":{"EIO":["4"],"room":["a b","é"],"empty":[""]},"#,
            r#""address":"127.0.0.1","recovered":false}"#,
        );
        assert_eq!(connect.body(), wanted);
        let view = View { rooms: vec!["a".into()], data: SocketData::new(r#"{"user":7}"#).ok() };
        let bare = Connect {
            namespace: "/",
            sid: "",
            auth: None,
            headers: &[],
            query: "",
            address: None,
            recovered: Some(&view),
        };
        let body: Value = serde_json::from_str(&bare.body()).unwrap();
        assert_eq!((&body["auth"], &body["headers"]), (&json!(null), &json!({})));
        assert_eq!((&body["query"], &body["address"]), (&json!({}), &json!(null)));
        // Who comes back is somebody whom the app knows.
        assert_eq!(body["recovered"], true);
        assert_eq!((&body["rooms"], &body["data"]), (&json!(["a"]), &json!({"user": 7})));
    }

    #[test]
    fn an_event_has_its_arguments_without_its_name() {
        let args = Args::new(r#"["say \"hi\"",{"a":1},[2]]"#).unwrap();
        let view = View {
            rooms: vec!["a".into(), "b\"".into()],
            data: SocketData::new(r#"{"user":7}"#).ok(),
        };
        let event = Event { namespace: "/", sid: "s", view: &view, args: &args, ack: true };
        let wanted = concat!(
            r#"{"type":"event","namespace":"/","sid":"s","rooms":["a","b\""],"#,
            r#""data":{"user":7},"event":"say \"hi\"","args":[{"a":1},[2]],"ack":true}"#,
        );
        assert_eq!(event.body(), wanted);
        let args = Args::new("[7]").unwrap();
        let view = View::default();
        let event = Event { namespace: "/", sid: "s", view: &view, args: &args, ack: false };
        let wanted = concat!(
            r#"{"type":"event","namespace":"/","sid":"s","rooms":[],"#,
            r#""data":{},"event":"7","args":[],"ack":false}"#,
        );
        assert_eq!(event.body(), wanted);
    }

    #[test]
    fn others_make_and_read_events_in_the_same_way() {
        let args = event("a", r#" [ {"$binary":"aGkh"} , 1 ] "#).unwrap();
        assert_eq!(args.json().replace(' ', ""), r#"["a",{"_placeholder":true,"num":0},1]"#);
        assert_eq!(to_json(&args).replace(' ', ""), r#"["a",{"$binary":"aGkh"},1]"#);
        for (name, args, words) in [
            ("connect", "[]", "`event` is a name"),
            ("a", "", "`args` must be a JSON array: EOF"),
            ("a", "[", "`args` must be a JSON array: EOF"),
            ("a", "{}", "`args` must be an array"),
            ("a", r#"[{"$binary":{}}]"#, "no text"),
        ] {
            let mistake = event(name, args).unwrap_err().to_string();
            assert!(mistake.contains(words), "{args}: {mistake}");
        }
    }

    #[test]
    fn who_goes_away_or_leaves_has_a_reason_and_who_is_back_has_none() {
        let body = |news: News<'_>| news.body("/a", "s");
        for (news, kind, reason) in [
            (News::Away("ping timeout"), "away", r#""ping timeout""#),
            (News::Back, "back", "null"),
            (News::Disconnect("transport close"), "disconnect", r#""transport close""#),
        ] {
            let wanted =
                format!(r#"{{"type":"{kind}","namespace":"/a","sid":"s","reason":{reason}}}"#);
            assert_eq!(body(news), wanted);
        }
    }

    #[test]
    fn names_that_javascript_treats_specially_are_names() {
        let headers = [("__proto__".to_owned(), "1".to_owned())];
        let connect = Connect {
            namespace: "/",
            sid: "",
            auth: None,
            headers: &headers,
            query: "__proto__=1&constructor=2",
            address: None,
            recovered: None,
        };
        let body: Value = serde_json::from_str(&connect.body()).unwrap();
        assert_eq!(body["headers"]["__proto__"], json!(["1"]));
        assert_eq!(body["query"]["constructor"], json!(["2"]));
    }

    #[test]
    fn an_answer_changes_what_the_next_event_is_told() {
        let text = r#"{"join":["b","c"],"leave":["a","c"],"data":{"n":1}}"#;
        let answer = EventAnswer::parse(text.as_bytes(), "/").unwrap();
        let mut view = View { rooms: vec!["a".into(), "b".into()], data: None };
        view.apply(&answer);
        let data = SocketData::new(r#"{"n":1}"#).ok();
        // Leaving comes after joining.
        assert_eq!(view, View { rooms: vec!["b".into()], data: data.clone() });
        view.apply(&EventAnswer::default());
        assert_eq!(view.data, data);
    }
}
