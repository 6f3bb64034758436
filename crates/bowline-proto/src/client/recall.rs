//! What a client keeps of a namespace from one session to the next.

use bytestring::ByteString;
use serde_json::{Map, Value};

use crate::socketio::Args;

/// The pid and the offset with which a client asks a server for what it has missed: noted, and sent
/// again, as the official JavaScript client does it.
///
/// Give [`auth`](Self::auth) with [`Input::Join`](super::Input::Join), and show it what is heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recall {
    pid: Option<ByteString>,
    offset: Option<ByteString>,
}

impl Recall {
    /// One with a certain pid and offset, as if they had been heard.
    pub fn new(pid: Option<ByteString>, offset: Option<ByteString>) -> Self {
        Self { pid, offset }
    }

    /// The pid of the session that was joined last.
    pub fn pid(&self) -> Option<&ByteString> {
        self.pid.as_ref()
    }

    /// The last text that an event ended with.
    pub fn offset(&self) -> Option<&ByteString> {
        self.offset.as_ref()
    }

    /// The payload of a CONNECT: what the application says, with pid and offset where it does not say
    /// them itself.
    pub fn auth(&self, own: Option<&Map<String, Value>>) -> Option<ByteString> {
        let Some(pid) = &self.pid else {
            return own.map(|own| Value::Object(own.clone()).to_string().into());
        };
        let mut auth = Map::new();
        auth.insert("pid".to_owned(), Value::from(&**pid));
        if let Some(offset) = &self.offset {
            auth.insert("offset".to_owned(), Value::from(&**offset));
        }
        auth.extend(own.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        Some(Value::Object(auth).to_string().into())
    }

    /// The namespace was joined. Says whether the session before this one goes on.
    pub fn on_joined(&mut self, pid: Option<&ByteString>) -> bool {
        let recovered = pid.is_some() && self.pid.as_ref() == pid;
        self.pid = pid.cloned();
        recovered
    }

    /// An event was heard. Where an ack is asked for, the last argument is none of the server's. The
    /// offset is never taken back: it may stem from an earlier session.
    pub fn on_event(&mut self, args: &Args, asks_ack: bool) {
        if asks_ack || self.pid.is_none() {
            return;
        }
        if let Ok(values) = args.parse::<Vec<Value>>()
            && let [.., Value::String(last)] = values.as_slice()
        {
            self.offset = Some(last.as_str().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_text_of_an_event_is_the_offset_and_the_applications_own_words_win() {
        let mut recall = Recall::default();
        let own = Map::from_iter([("token".to_owned(), Value::from("x"))]);
        assert_eq!(recall.auth(None), None);
        assert_eq!(recall.auth(Some(&own)).unwrap(), r#"{"token":"x"}"#);

        let event = |json: &'static str| Args::new(json).unwrap();
        recall.on_event(&event(r#"["e","1.0.1"]"#), false);
        assert_eq!(recall.offset(), None, "without a pid nothing is noted");
        assert!(!recall.on_joined(Some(&"p".into())));
        recall.on_event(&event(r#"["e",1,"1.0.7"]"#), false);
        recall.on_event(&event(r#"["e",1,"not this"]"#), true);
        recall.on_event(&event(r#"["e",2]"#), false);
        assert_eq!(recall.auth(None).unwrap(), r#"{"offset":"1.0.7","pid":"p"}"#);

        let own = Map::from_iter([("pid".to_owned(), Value::from("mine"))]);
        assert_eq!(recall.auth(Some(&own)).unwrap(), r#"{"offset":"1.0.7","pid":"mine"}"#);
        assert!(recall.on_joined(Some(&"p".into())));
        assert!(!recall.on_joined(Some(&"q".into())));
        assert_eq!(recall.offset().unwrap(), "1.0.7", "it is never taken back");
        recall.on_event(&event(r#"["a name"]"#), false);
        assert_eq!(recall.offset().unwrap(), "a name", "the name counts as an argument");
    }
}
