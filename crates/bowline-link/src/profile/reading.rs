//! What is read from a message whose form is the service's own: its id, its room, the word of a routing probe.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// What the word of a routing probe begins with. 32 hexadecimal digits follow.
const NONCE: &str = "bowline-probe-";

/// An id or a room that is longer is kept by its hash: it is a key of the store, stands in logs, and is in memory for
/// each message that waits.
const ID_MAX_BYTES: usize = 200;

/// Where id and room of a message are: JSON pointers (RFC 6901).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pointers {
    pub(super) id: Option<String>,
    pub(super) room: Option<String>,
}

impl Pointers {
    /// Whether there is nothing to look for.
    pub(super) fn are_none(&self) -> bool {
        self.id.is_none() && self.room.is_none()
    }

    /// The service's id of a message, as it is written there, if it has one.
    pub(super) fn id(&self, message: &Value) -> Option<String> {
        scalar(message, self.id.as_deref()?).filter(|id| !id.is_empty())
    }

    /// Its room, as it is kept; empty if it has none.
    pub(super) fn room(&self, message: &Value) -> String {
        let pointer = self.room.as_deref();
        let room = pointer.and_then(|pointer| scalar(message, pointer));
        room.map(|room| kept_id(&room)).unwrap_or_default()
    }
}

/// An id as it is kept: one that is very long by its hash.
pub(super) fn kept_id(id: &str) -> String {
    if id.len() > ID_MAX_BYTES { format!("long-{}", hash(id.as_bytes())) } else { id.to_owned() }
}

/// An id for a message that has none: messages of the same content get the same one. It has 40 bytes.
pub(super) fn content_id(content: &[u8]) -> String {
    format!("content-{}", hash(content))
}

/// The word of a routing probe that is somewhere in a message.
pub(super) fn nonce_in(message: &[u8]) -> Option<String> {
    const DIGITS: usize = 32;
    memchr::memmem::find_iter(message, NONCE).find_map(|at| {
        let digits = at + NONCE.len();
        let word = message.get(at..digits + DIGITS)?;
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let ends = message.get(digits + DIGITS).is_none_or(|byte| !is_hex(byte));
        let word = std::str::from_utf8(word).ok()?;
        (ends && word.as_bytes()[NONCE.len()..].iter().all(is_hex)).then(|| word.to_owned())
    })
}

/// How binary stands in JSON, as apps behind HTTP have it too.
pub(super) fn binary(bytes: &[u8]) -> Value {
    json!({ "$binary": STANDARD.encode(bytes) })
}

/// The bytes that [`binary`] was made of.
pub(super) fn from_binary(value: &Value) -> Option<Bytes> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    let text = object.get("$binary")?.as_str()?;
    STANDARD.decode(text).ok().map(Bytes::from)
}

/// A string as it is, a number in its digits.
fn scalar(message: &Value, pointer: &str) -> Option<String> {
    match message.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn hash(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_rooms_are_strings_or_numbers() {
        let pointers =
            Pointers { id: Some("/event/id".to_owned()), room: Some("/room".to_owned()) };
        let message = json!({ "event": { "id": 17 }, "room": "a" });
        assert_eq!(pointers.id(&message).as_deref(), Some("17"));
        assert_eq!(pointers.room(&message), "a");
        let none = json!({ "event": { "id": { "x": 1 } } });
        assert_eq!((pointers.id(&none), pointers.room(&none)), (None, String::new()));
        assert_eq!(pointers.id(&json!({ "event": { "id": "" } })), None);
        assert_eq!(pointers.room(&json!({ "room": "r".repeat(201) })).len(), 37);
        assert_eq!(kept_id(&"x".repeat(200)), "x".repeat(200));
        assert_eq!(kept_id(&"x".repeat(201)).len(), 37);
        assert!(Pointers::default().are_none());
    }

    #[test]
    fn the_same_content_has_the_same_id() {
        assert_eq!(content_id(b"a"), content_id(b"a"));
        assert_ne!(content_id(b"a"), content_id(b"b"));
        assert_eq!(content_id(b"a").len(), 40);
    }

    #[test]
    fn the_word_of_a_probe_is_found_where_it_is_whole() {
        let word = format!("{NONCE}0123456789abcdef0123456789abcdef");
        let found = |text: String| nonce_in(text.as_bytes());
        assert_eq!(found(format!("{{\"echo\":\"{word}\"}}")).as_ref(), Some(&word));
        assert_eq!(found(format!("{NONCE}x {word}")).as_ref(), Some(&word));
        assert_eq!(found(word.clone()).as_ref(), Some(&word));
        assert_eq!(found(format!("{word}0")), None, "longer");
        assert_eq!(found(word[..word.len() - 1].to_owned()), None, "shorter");
        assert_eq!(found(word.to_uppercase()), None);
    }

    #[test]
    fn binary_comes_back_from_json() {
        assert_eq!(from_binary(&binary(b"\xff\x00")).unwrap(), &b"\xff\x00"[..]);
        assert_eq!(from_binary(&json!({ "$binary": "AA==", "x": 1 })), None);
        assert_eq!(from_binary(&json!({ "$binary": "?" })), None);
    }
}
