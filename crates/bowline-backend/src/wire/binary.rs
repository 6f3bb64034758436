//! Binary in JSON: `{"$binary":"BASE64"}` towards the app, placeholders and attachments towards
//! clients.
//!
//! Numbers, strings and the order of keys pass through as they were written: the text is rewritten
//! in one pass and never becomes a tree, so that neither precision nor depth is lost. A key that is
//! `$binary` by itself gets one more `$` on the way out and loses it on the way in; so does every key
//! of dollars and `binary`, or the way back would not be sure.

use std::borrow::Cow;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bowline_proto::socketio::Args;
use bytes::Bytes;

use super::Mistake;

/// Written with padding, read with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The arguments as the app reads them.
pub(super) fn to_app(args: &Args) -> Cow<'_, str> {
    let text: &str = args.json();
    if args.attachments().is_empty() && !may_hold(text, "$binary") {
        return Cow::Borrowed(text);
    }
    let blobs = args.attachments().iter().map(|blob| blob.len() / 3 * 4 + 16).sum::<usize>();
    let mut out = String::with_capacity(text.len() + blobs);
    let mut open: Vec<Level> = Vec::new();
    for token in (Tokens { text, at: 0 }) {
        let from = out.len();
        match token {
            Token::Key(raw) => {
                let name = unquoted(raw);
                if let Some(top) = open.last_mut() {
                    top.key = Key::of(&name);
                }
                if is_marker(&name) {
                    out.push_str("\"$");
                    out.push_str(&name);
                    out.push('"');
                } else {
                    out.push_str(raw);
                }
                continue;
            }
            Token::Comma | Token::Colon => {
                out.push(if token == Token::Comma { ',' } else { ':' });
                continue;
            }
            Token::Open(bracket) => {
                note(&mut open, "");
                open.push(Level::new(from));
                out.push(bracket);
            }
            Token::Close(bracket) => {
                out.push(bracket);
                let closed = open.pop();
                let blob = closed.as_ref().and_then(|level| level.blob(args.attachments()));
                if let (Some(level), Some(blob)) = (closed, blob) {
                    out.truncate(level.start);
                    out.push_str("{\"$binary\":\"");
                    BASE64.encode_string(blob, &mut out);
                    out.push_str("\"}");
                }
            }
            Token::Scalar(scalar) => {
                note(&mut open, scalar);
                out.push_str(scalar);
            }
        }
    }
    Cow::Owned(out)
}

/// Arguments as an app wrote them: a JSON array, which `text` is known to be JSON.
///
/// # Errors
///
/// It is no array, or what it calls binary is none.
pub(super) fn from_app(text: &str) -> Result<Args, Mistake> {
    if !may_hold(text, "$binary") {
        return Args::new(text).map_err(|_| Mistake::new("must be an array"));
    }
    let mut out = String::with_capacity(text.len());
    let mut attachments: Vec<Bytes> = Vec::new();
    let mut literal_placeholder = false;
    let mut open: Vec<Level> = Vec::new();
    for token in (Tokens { text, at: 0 }) {
        let from = out.len();
        match token {
            Token::Key(raw) => {
                let name = unquoted(raw);
                if let Some(top) = open.last_mut() {
                    top.key = Key::of(&name);
                    top.keys += 1;
                    if name == "$binary" {
                        top.key = Key::Binary;
                        top.is_binary = true;
                    }
                }
                match name.strip_prefix('$') {
                    Some(rest) if is_marker(rest) => {
                        out.push('"');
                        out.push_str(rest);
                        out.push('"');
                    }
                    _ => out.push_str(raw),
                }
                continue;
            }
            Token::Comma | Token::Colon => {
                out.push(if token == Token::Comma { ',' } else { ':' });
                continue;
            }
            Token::Open(bracket) => {
                if open.last().is_some_and(|top| top.key == Key::Binary) {
                    return Err(Mistake::new("has a `$binary` that is no text"));
                }
                note(&mut open, "");
                open.push(Level::new(from));
                out.push(bracket);
            }
            Token::Close(bracket) => {
                out.push(bracket);
                let Some(level) = open.pop() else { continue };
                if level.is_binary {
                    if level.keys != 1 {
                        return Err(Mistake::new(
                            "has an object with `$binary` and another key beside it; write a key \
                             that is meant literally as `$$binary`",
                        ));
                    }
                    let index = attachments.len() - 1;
                    out.truncate(level.start);
                    out.push_str("{\"_placeholder\":true,\"num\":");
                    out.push_str(&index.to_string());
                    out.push('}');
                } else {
                    literal_placeholder |= level.is_placeholder;
                }
            }
            Token::Scalar(scalar) => {
                if open.last().is_some_and(|top| top.key == Key::Binary) {
                    if !scalar.starts_with('"') {
                        return Err(Mistake::new("has a `$binary` that is no text"));
                    }
                    let blob = BASE64.decode(unquoted(scalar).as_bytes()).map_err(|error| {
                        Mistake::new(format!("has a `$binary` that is not base64: {error}"))
                    })?;
                    attachments.push(blob.into());
                }
                note(&mut open, scalar);
                out.push_str(scalar);
            }
        }
    }
    if literal_placeholder && !attachments.is_empty() {
        // A client could not tell it from one of ours.
        return Err(Mistake::new("has an object with `_placeholder` beside binary"));
    }
    let made = if attachments.is_empty() {
        Args::new(out)
    } else {
        Args::with_attachments(out, attachments)
    };
    made.map_err(|_| Mistake::new("must be an array"))
}

/// Whether a key or text of this JSON may read `needle`, perhaps by escapes.
fn may_hold(text: &str, needle: &str) -> bool {
    text.contains(needle) || text.contains("\\u")
}

/// Whether it is one dollar or more and then `binary`.
fn is_marker(name: &str) -> bool {
    let rest = name.trim_start_matches('$');
    rest == "binary" && rest.len() < name.len()
}

/// What a JSON string says. One with half a surrogate pair stays as it is: it is no name of ours.
fn unquoted(raw: &str) -> Cow<'_, str> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str::<String>(raw).map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// Notes a value at the key it belongs to; anything but a scalar is "".
fn note(open: &mut [Level], scalar: &str) {
    if let Some(top) = open.last_mut() {
        match top.key {
            Key::Placeholder => top.is_placeholder = scalar == "true",
            Key::Num => top.num = scalar.parse::<f64>().ok(),
            Key::Binary | Key::Other => {}
        }
    }
}

/// An array or object that is open.
struct Level {
    /// Where it begins in what was written.
    start: usize,
    /// The key whose value is next.
    key: Key,
    keys: usize,
    is_placeholder: bool,
    num: Option<f64>,
    is_binary: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Placeholder,
    Num,
    Binary,
    Other,
}

impl Key {
    fn of(name: &str) -> Self {
        match name {
            "_placeholder" => Self::Placeholder,
            "num" => Self::Num,
            _ => Self::Other,
        }
    }
}

impl Level {
    fn new(start: usize) -> Self {
        let key = Key::Other;
        Self { start, key, keys: 0, is_placeholder: false, num: None, is_binary: false }
    }

    /// What this stands for, if it is a placeholder.
    fn blob<'a>(&self, attachments: &'a [Bytes]) -> Option<&'a Bytes> {
        let num = self.num.filter(|_| self.is_placeholder)?;
        // Compared as the decoder of packets does, which has let it through.
        let index = attachments.iter().enumerate().find(|(index, _)| *index as f64 == num)?;
        Some(index.1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Open(char),
    Close(char),
    Comma,
    Colon,
    /// With its quotes.
    Key(&'a str),
    /// A string with its quotes, a number, `true`, `false` or `null`.
    Scalar(&'a str),
}

/// Cuts a text that is known to be JSON into pieces.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        self.skip_space();
        let from = self.at;
        let first = *bytes.get(from)?;
        self.at += 1;
        Some(match first {
            b'[' | b'{' => Token::Open(char::from(first)),
            b']' | b'}' => Token::Close(char::from(first)),
            b',' => Token::Comma,
            b':' => Token::Colon,
            b'"' => {
                while let Some(byte) = bytes.get(self.at) {
                    self.at += if *byte == b'\\' { 2 } else { 1 };
                    if *byte == b'"' {
                        break;
                    }
                }
                self.at = self.at.min(bytes.len());
                let string = &self.text[from..self.at];
                self.skip_space();
                // In JSON a string before a colon is a key, and nothing else is.
                if bytes.get(self.at) == Some(&b':') {
                    Token::Key(string)
                } else {
                    Token::Scalar(string)
                }
            }
            _ => {
                let ends =
                    |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                let len = bytes[from..].iter().position(ends).unwrap_or(bytes.len() - from);
                self.at = from + len;
                Token::Scalar(&self.text[from..self.at])
            }
        })
    }
}

impl Tokens<'_> {
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn attached(json: &str, blobs: &[&'static [u8]]) -> Args {
        let blobs = blobs.iter().map(|blob| Bytes::from_static(blob)).collect();
        Args::with_attachments(json, blobs).unwrap()
    }

    #[test]
    fn attachments_become_base64_where_they_belong() {
        for (json, blobs, wanted) in [
            (r#"[{"_placeholder":true,"num":0}]"#, &[&b"hi!"[..]][..], r#"[{"$binary":"aGkh"}]"#),
            (
                r#"[{"a":[{"num":1, "_placeholder" : true}],"b":{"_placeholder":true,"num":0}},2]"#,
                &[b"", b"\xff"],
                r#"[{"a":[{"$binary":"/w=="}],"b":{"$binary":""}},2]"#,
            ),
            // What only looks like one.
            (
                r#"[{"_placeholder":"true","num":0},{"num":0},{"_placeholder":false,"num":0}]"#,
                &[b"x"],
                r#"[{"_placeholder":"true","num":0},{"num":0},{"_placeholder":false,"num":0}]"#,
            ),
            (r#"[{"\u005fplaceholder":true,"num":0.0}]"#, &[b"x"], r#"[{"$binary":"eA=="}]"#),
        ] {
            assert_eq!(to_app(&attached(json, blobs)), wanted, "{json}");
        }
    }

    #[test]
    fn without_binary_the_text_passes_as_it_was_written() {
        for json in [
            r#"[123456789012345678901234567890, 1e400 ,"\ud800",{"b":1,"a":2,"b":3}]"#,
            r#"[{"_placeholder":true,"num":0}]"#,
            "[]",
        ] {
            let args = Args::new(json).unwrap();
            let text = to_app(&args);
            assert_eq!(text.replace(' ', ""), json.replace(' ', ""));
            assert_eq!(from_app(&text).unwrap().json().replace(' ', ""), json.replace(' ', ""));
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(to_app(&Args::new(deep.clone()).unwrap()), deep);
        let deep = format!("[\"$binary\",{deep}]");
        assert_eq!(to_app(&Args::new(deep.clone()).unwrap()), deep);
    }

    #[test]
    fn a_key_that_is_meant_literally_is_escaped_and_comes_back() {
        for (ours, theirs) in [
            (r#"[{"$binary":1}]"#, r#"[{"$$binary":1}]"#),
            (r#"[{"$$binary":1,"x":2}]"#, r#"[{"$$$binary":1,"x":2}]"#),
            (r#"["$binary",{"x$binary":1,"$binary2":2,"binary":3}]"#, ""),
        ] {
            let theirs = if theirs.is_empty() { ours } else { theirs };
            assert_eq!(to_app(&Args::new(ours).unwrap()), theirs);
            assert_eq!(from_app(theirs).unwrap(), Args::new(ours).unwrap());
        }
        assert_eq!(to_app(&Args::new(r#"[{"\u0024binary":1}]"#).unwrap()), r#"[{"$$binary":1}]"#);
    }

    #[test]
    fn base64_becomes_attachments() {
        for text in [r#"[{"$binary":"aGkh"}]"#, r#"[ { "\u0024binary" : "aG\u006bh" } ]"#] {
            let wanted = attached(r#"[{"_placeholder":true,"num":0}]"#, &[b"hi!"]);
            assert_eq!(from_app(text).unwrap(), wanted);
        }
        let args = from_app(r#"[{"a":{"$binary":""},"b":[{"$binary":"/w"}]}]"#).unwrap();
        assert_eq!(args.attachments(), [&b""[..], &b"\xff"[..]]);
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        for (text, words) in [
            (r#"{"a":1}"#, "must be an array"),
            ("1", "must be an array"),
            (r#"[{"$binary":1}]"#, "no text"),
            (r#"[{"$binary":["aGkh"]}]"#, "no text"),
            (r#"[{"$binary":"a b"}]"#, "not base64"),
            (r#"[{"$binary":"aGkh","x":1}]"#, "another key"),
            (r#"[{"$binary":"aGkh","$binary":"aGkh"}]"#, "another key"),
            (r#"[{"$binary":"aGkh"},{"_placeholder":true,"num":0}]"#, "_placeholder"),
            (r#"{"$binary":"aGkh"}"#, "must be an array"),
        ] {
            let mistake = from_app(text).unwrap_err().to_string();
            assert!(mistake.contains(words), "{text}: {mistake}");
        }
    }

    /// Values of which some are binary.
    #[derive(Debug, Clone)]
    enum Tree {
        Plain(Value),
        Blob(Vec<u8>),
        List(Vec<Tree>),
        Map(Vec<(String, Tree)>),
    }

    impl Tree {
        fn write(&self, blobs: &mut Vec<Bytes>) -> Value {
            match self {
                Self::Plain(value) => value.clone(),
                Self::Blob(blob) => {
                    blobs.push(blob.clone().into());
                    Args::placeholder(blobs.len() - 1)
                }
                Self::List(list) => list.iter().map(|one| one.write(blobs)).collect(),
                Self::Map(map) => {
                    let pairs = map.iter().map(|(key, one)| (key.clone(), one.write(blobs)));
                    Value::Object(pairs.collect())
                }
            }
        }

        /// Placeholders replaced by what they stand for, for comparison.
        fn resolve(value: &Value, blobs: &[Bytes]) -> Value {
            match value {
                Value::Array(list) => list.iter().map(|one| Self::resolve(one, blobs)).collect(),
                Value::Object(map) if map.get("_placeholder") == Some(&json!(true)) => {
                    let num = map["num"].as_u64().unwrap();
                    json!({ "blob": blobs[num as usize].to_vec() })
                }
                Value::Object(map) => {
                    let pairs =
                        map.iter().map(|(key, one)| (key.clone(), Self::resolve(one, blobs)));
                    Value::Object(pairs.collect())
                }
                other => other.clone(),
            }
        }
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let plain = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            prop_oneof![Just("$binary".to_owned()), "[\\PC\"\\\\]{0,6}"].prop_map(Value::from),
        ];
        let leaf = prop_oneof![
            3 => plain.prop_map(Tree::Plain),
            1 => proptest::collection::vec(any::<u8>(), 0..5).prop_map(Tree::Blob),
        ];
        let key = prop_oneof![Just("num".to_owned()), "\\${0,3}binary", "[a-z$\"\\\\]{0,3}",];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
                proptest::collection::vec((key.clone(), inner), 0..4).prop_map(Tree::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_goes_to_an_app_comes_back_the_same(list in proptest::collection::vec(tree(), 0..4)) {
            let mut blobs = Vec::new();
            let value = Tree::List(list).write(&mut blobs);
            // A map whose key came twice has lost the earlier value, and perhaps a blob with it: the
            // text is what counts.
            let args = Args::with_attachments(value.to_string(), blobs).unwrap();
            let text = to_app(&args);
            let back = from_app(&text).unwrap();
            let read = |args: &Args| {
                Tree::resolve(&serde_json::from_str(args.json()).unwrap(), args.attachments())
            };
            prop_assert_eq!(read(&back), read(&args));
        }

        #[test]
        fn no_json_makes_it_panic(value in "[\\[\\]{}\"$binary:,0-9 =]{0,40}") {
            if serde_json::from_str::<&serde_json::value::RawValue>(&value).is_ok() {
                let _ = from_app(&value);
            }
        }
    }
}
