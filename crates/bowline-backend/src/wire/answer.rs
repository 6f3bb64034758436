//! What an app answers.

use bowline_net::SocketData;
use bowline_proto::socketio::Args;
use bytestring::ByteString;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{Mistake, binary};

/// Event names that clients keep for themselves.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Whether clients keep this name for themselves.
pub(super) fn is_reserved(event: &str) -> bool {
    RESERVED.contains(&event)
}

/// Whether a client may join.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConnectAnswer {
    Allow {
        rooms: Vec<ByteString>,
        data: Option<SocketData>,
    },
    /// `data` is JSON.
    Refuse {
        message: String,
        data: Option<ByteString>,
    },
}

/// What is to be done about an event, in the order of the fields, the ack last.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct EventAnswer {
    /// Replaces what is kept of the socket. JSON.
    pub(crate) data: Option<SocketData>,
    pub(crate) join: Vec<ByteString>,
    pub(crate) leave: Vec<ByteString>,
    pub(crate) emits: Vec<Emit>,
    pub(crate) ack: Option<Args>,
}

/// An event for somebody.
#[derive(Debug, PartialEq)]
pub(crate) struct Emit {
    pub(crate) to: To,
    pub(crate) except: Vec<ByteString>,
    /// None is that of the event that is answered.
    pub(crate) namespace: Option<ByteString>,
    /// With its name.
    pub(crate) args: Args,
}

/// For whom an event is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum To {
    Sender,
    All,
    /// May be none at all, which reaches nobody.
    Rooms(Vec<ByteString>),
}

#[derive(Deserialize)]
struct RawConnect<'a> {
    #[serde(borrow)]
    allow: Option<&'a RawValue>,
    #[serde(borrow)]
    rooms: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
    #[serde(borrow)]
    emit: Option<&'a RawValue>,
    #[serde(borrow)]
    join: Option<&'a RawValue>,
    #[serde(borrow)]
    leave: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawEmit<'a> {
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    except: Option<&'a RawValue>,
    #[serde(borrow)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
}

impl ConnectAnswer {
    /// # Errors
    ///
    /// It is not what `docs/backend.md` asks for.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Mistake> {
        let raw: RawConnect<'_> = object(body)?;
        let allow = raw.allow.ok_or_else(|| Mistake::of("allow", "is missing"))?;
        let data = data(raw.data)?;
        if read::<bool>("allow", "must be true or false", allow)? {
            Ok(Self::Allow { rooms: texts("rooms", raw.rooms)?, data })
        } else {
            let data = data.map(|data| data.text().clone());
            let message = raw.message.map(|raw| read("message", "must be text", raw));
            let message = message.transpose()?.unwrap_or_else(|| "Refused".to_owned());
            Ok(Self::Refuse { message, data })
        }
    }
}

impl EventAnswer {
    /// An empty body is an answer: there is nothing to do.
    ///
    /// # Errors
    ///
    /// It is not what `docs/backend.md` asks for; then nothing of it is done.
    pub(crate) fn parse(body: &[u8], namespace: &str) -> Result<Self, Mistake> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let raw: RawEvent<'_> = object(body)?;
        let ack = raw.ack.map(|raw| args("ack", raw)).transpose()?;
        let emits = match raw.emit {
            None => Vec::new(),
            Some(raw) => {
                let list: Vec<&RawValue> = list("emit", raw)?;
                let emits = list.iter().enumerate();
                emits
                    .map(|(index, raw)| Emit::parse(index, raw, namespace))
                    .collect::<Result<_, _>>()?
            }
        };
        Ok(Self {
            data: data(raw.data)?,
            join: texts("join", raw.join)?,
            leave: texts("leave", raw.leave)?,
            emits,
            ack,
        })
    }
}

impl Emit {
    fn parse(index: usize, raw: &RawValue, own: &str) -> Result<Self, Mistake> {
        let key = |name: &str| format!("emit[{index}].{name}");
        let raw: RawEmit<'_> = serde_json::from_str(raw.get())
            .map_err(|_| Mistake::of(&format!("emit[{index}]"), "must be an object"))?;
        let to = raw.to.map(|raw| To::parse(&key("to"), raw)).transpose()?.unwrap_or(To::Sender);
        let except = texts(&key("except"), raw.except)?;
        if to == To::Sender && !except.is_empty() {
            return Err(Mistake::of(&key("except"), "has no meaning for an emit to the sender"));
        }
        let namespace = raw.namespace.map(|raw| {
            let words = "must be text that begins with /";
            let name: String = read(&key("namespace"), words, raw)?;
            if !name.starts_with('/') {
                return Err(Mistake::of(&key("namespace"), words));
            }
            if to == To::Sender && name != own {
                let words = "must be all or rooms: the sender is in another namespace";
                return Err(Mistake::of(&key("to"), words));
            }
            Ok(ByteString::from(name))
        });
        let event = raw.event.ok_or_else(|| Mistake::of(&key("event"), "is missing"))?;
        let event: String = read(&key("event"), "must be text", event)?;
        if is_reserved(&event) {
            return Err(Mistake::of(&key("event"), "is a name that clients keep for themselves"));
        }
        let rest = match raw.args {
            Some(raw) => args(&key("args"), raw)?,
            None => Args::from_values(&[]),
        };
        Ok(Self { to, except, namespace: namespace.transpose()?, args: named(&event, &rest)? })
    }
}

impl To {
    fn parse(key: &str, raw: &RawValue) -> Result<Self, Mistake> {
        let words = "must be \"sender\", \"all\" or a list of rooms";
        match raw.get() {
            "\"sender\"" => Ok(Self::Sender),
            "\"all\"" => Ok(Self::All),
            rooms if rooms.starts_with('[') => Ok(Self::Rooms(texts(key, Some(raw))?)),
            _ => Err(Mistake::of(key, words)),
        }
    }
}

/// The top of an answer.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Mistake> {
    // serde would take an array of the right length for a struct.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Mistake::new("is not a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        // Its words tell of syntax and places, and of keys that come twice.
        Mistake::new(format!("is not a JSON object: {error}"))
    })
}

fn read<T: DeserializeOwned>(key: &str, words: &str, raw: &RawValue) -> Result<T, Mistake> {
    serde_json::from_str(raw.get()).map_err(|_| Mistake::of(key, words))
}

fn list<'a, T: Deserialize<'a>>(key: &str, raw: &'a RawValue) -> Result<Vec<T>, Mistake> {
    serde_json::from_str(raw.get()).map_err(|_| Mistake::of(key, "must be a list"))
}

fn texts(key: &str, raw: Option<&RawValue>) -> Result<Vec<ByteString>, Mistake> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let texts: Vec<String> = read(key, "must be a list of texts", raw)?;
    Ok(texts.into_iter().map(ByteString::from).collect())
}

fn args(key: &str, raw: &RawValue) -> Result<Args, Mistake> {
    binary::from_app(raw.get()).map_err(|mistake| Mistake::of(key, mistake))
}

fn data(raw: Option<&RawValue>) -> Result<Option<SocketData>, Mistake> {
    let Some(raw) = raw.map(RawValue::get) else { return Ok(None) };
    if !raw.starts_with('{') {
        return Err(Mistake::of("data", "must be an object"));
    }
    match SocketData::new(raw) {
        Ok(data) => Ok(Some(data)),
        Err(error) => Err(Mistake::of("data", format!("has {} bytes; {error}", raw.len()))),
    }
}

/// Puts the name of an event before its arguments.
pub(super) fn named(event: &str, rest: &Args) -> Result<Args, Mistake> {
    let inner = rest.json().trim();
    let inner = inner.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or("");
    let inner = inner.trim();
    let comma = if inner.is_empty() { "" } else { "," };
    let json = format!("[{}{comma}{inner}]", serde_json::Value::from(event));
    let attachments = rest.attachments();
    let made = if attachments.is_empty() {
        Args::new(json)
    } else {
        Args::with_attachments(json, attachments.to_vec())
    };
    made.map_err(|_| Mistake::new("has arguments that are no array"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn event(text: &str) -> EventAnswer {
        EventAnswer::parse(text.as_bytes(), "/")
            .unwrap_or_else(|mistake| panic!("{text}: {mistake}"))
    }

    #[test]
    fn a_connect_is_allowed_or_refused() {
        let parse = |text: &str| ConnectAnswer::parse(text.as_bytes()).unwrap();
        assert_eq!(
            parse(r#"{"allow":true,"rooms":["a"],"data":{"b": 1},"later":[1]}"#),
            ConnectAnswer::Allow {
                rooms: vec!["a".into()],
                data: SocketData::new(r#"{"b": 1}"#).ok()
            }
        );
        let bare = ConnectAnswer::Allow { rooms: vec![], data: None };
        assert_eq!(parse(" {\"allow\": true} \n"), bare);
        assert_eq!(parse(r#"{"allow":true,"rooms":null,"data":null,"message":null}"#), bare);
        assert_eq!(
            parse(r#"{"allow":false,"message":"no","data":{"code":"x"}}"#),
            ConnectAnswer::Refuse {
                message: "no".to_owned(),
                data: Some(r#"{"code":"x"}"#.into())
            }
        );
        let bare = ConnectAnswer::Refuse { message: "Refused".to_owned(), data: None };
        assert_eq!(parse(r#"{"allow":false}"#), bare);
    }

    #[test]
    fn an_event_may_have_anything_done_or_nothing() {
        for text in ["", " \r\n", "{}", r#"{"ack":null,"emit":null,"join":null,"unknown":1}"#] {
            assert_eq!(event(text), EventAnswer::default(), "{text}");
        }
        let answer = event(
            r#"{"ack":["ok",{"$binary":"aGkh"}],"join":["a"],"leave":["b","c"],"data":{},
                "emit":[{"event":"x"},
                        {"to":"sender","event":"x","args":[1, 2]},
                        {"to":"all","except":["q"],"namespace":"/n","event":"y","args":[{"$binary":""}]},
                        {"to":["r","s"],"event":"z","args":[]},
                        {"to":[],"event":"nobody"}]}"#,
        );
        let ack = answer.ack.unwrap();
        assert_eq!(ack.json(), r#"["ok",{"_placeholder":true,"num":0}]"#);
        assert_eq!(ack.attachments(), [Bytes::from_static(b"hi!")]);
        assert_eq!(answer.join, ["a"]);
        assert_eq!(answer.leave, ["b", "c"]);
        assert_eq!(answer.data, SocketData::new("{}").ok());
        let texts = answer.emits.iter().map(|emit| emit.args.json().replace(' ', ""));
        assert_eq!(
            texts.collect::<Vec<_>>(),
            [
                r#"["x"]"#,
                r#"["x",1,2]"#,
                r#"["y",{"_placeholder":true,"num":0}]"#,
                r#"["z"]"#,
                r#"["nobody"]"#
            ]
        );
        assert_eq!(answer.emits[0].to, To::Sender);
        assert_eq!(answer.emits[2].to, To::All);
        assert_eq!(answer.emits[2].namespace.as_deref(), Some("/n"));
        assert_eq!(answer.emits[2].except, ["q"]);
        assert_eq!(answer.emits[3].to, To::Rooms(vec!["r".into(), "s".into()]));
        assert_eq!(answer.emits[4].to, To::Rooms(vec![]));
    }

    #[test]
    fn every_mistake_says_what_is_wrong() {
        let big = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(SocketData::BYTES_MAX));
        for (text, words) in [
            ("<html>", "is not a JSON object"),
            ("[]", "is not a JSON object"),
            ("null", "is not a JSON object"),
            ("{\"ack\":[}", "line 1 column 9"),
            ("{} {}", "is not a JSON object"),
            ("{\"ack\":[\"\u{0}\"]}", "is not a JSON object"),
            (r#"{"ack":[],"ack":[]}"#, "duplicate field `ack`"),
            (r#"{"ack":1}"#, "`ack` must be an array"),
            (r#"{"ack":{"a":1}}"#, "`ack` must be an array"),
            (r#"{"ack":[{"$binary":1}]}"#, "`ack` has a `$binary` that is no text"),
            (r#"{"join":"a"}"#, "`join` must be a list of texts"),
            (r#"{"leave":[1]}"#, "`leave` must be a list of texts"),
            (r#"{"data":[1]}"#, "`data` must be an object"),
            (&big, "at most 16384 bytes are kept"),
            (r#"{"emit":{"event":"a"}}"#, "`emit` must be a list"),
            (r#"{"emit":["a"]}"#, "`emit[0]` must be an object"),
            (r#"{"emit":[{"event":"a"},{}]}"#, "`emit[1].event` is missing"),
            (r#"{"emit":[{"event":7}]}"#, "`emit[0].event` must be text"),
            (r#"{"emit":[{"event":"connect"}]}"#, "`emit[0].event` is a name"),
            (r#"{"emit":[{"event":"a","args":{}}]}"#, "`emit[0].args` must be an array"),
            (r#"{"emit":[{"event":"a","args":"b"}]}"#, "`emit[0].args` must be an array"),
            (r#"{"emit":[{"event":"a","to":"room"}]}"#, "`emit[0].to` must be \"sender\""),
            (r#"{"emit":[{"event":"a","to":[1]}]}"#, "`emit[0].to` must be a list of texts"),
            (r#"{"emit":[{"event":"a","except":["b"]}]}"#, "`emit[0].except` has no meaning"),
            (r#"{"emit":[{"event":"a","namespace":"b"}]}"#, "`emit[0].namespace` must be text"),
            (r#"{"emit":[{"event":"a","namespace":"/b"}]}"#, "`emit[0].to` must be all or rooms"),
        ] {
            let mistake = EventAnswer::parse(text.as_bytes(), "/").unwrap_err().to_string();
            assert!(mistake.contains(words), "{text:.60}: {mistake}");
        }
        for (text, words) in [
            ("", "is not a JSON object"),
            ("{}", "`allow` is missing"),
            (r#"{"allow":"yes"}"#, "`allow` must be true or false"),
            (r#"{"allow":1}"#, "`allow` must be true or false"),
            (r#"{"allow":true,"rooms":"a"}"#, "`rooms` must be a list of texts"),
            (r#"{"allow":false,"message":{}}"#, "`message` must be text"),
        ] {
            let mistake = ConnectAnswer::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(mistake.contains(words), "{text}: {mistake}");
        }
        assert!(EventAnswer::parse(b"{\"ack\":[\"\xff\"]}", "/").is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (EventAnswer::parse(&body, "/"), ConnectAnswer::parse(&body));
        }

        #[test]
        fn no_text_of_json_pieces_makes_it_panic(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "{", "}", "[", "]", ",", ":", "\"ack\"", "\"emit\"", "\"event\"", "\"$binary\"",
                    "\"args\"", "\"a\"", "1", "null", "true", "\\u0024",
                ]),
                0..24,
            ),
        ) {
            let _ = EventAnswer::parse(pieces.concat().as_bytes(), "/");
        }
    }
}
