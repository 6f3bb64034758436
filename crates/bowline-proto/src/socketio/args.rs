//! The arguments of an event or an ack.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::json::{self, Kind};

/// The arguments of an event (its name is the first) or of an ack: a JSON array as text.
///
/// Binary arguments are attachments; where one belongs, the text has
/// `{"_placeholder":true,"num":n}`. Clones share the text and the attachments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(ByteString, Vec<Bytes>)", into = "(ByteString, Vec<Bytes>)")]
pub struct Args {
    pub(crate) json: ByteString,
    pub(crate) attachments: Vec<Bytes>,
}

impl Args {
    /// Takes a JSON array.
    ///
    /// # Errors
    ///
    /// [`InvalidArgs`] if the text is not one.
    pub fn new(json: impl Into<ByteString>) -> Result<Self, InvalidArgs> {
        let json = json.into();
        json::check_array(&json, None).map_err(|_| InvalidArgs)?;
        Ok(Self { json, attachments: Vec::new() })
    }

    /// Takes a JSON array and what its placeholders stand for.
    ///
    /// # Errors
    ///
    /// [`InvalidArgs`] if the text is not an array or a placeholder has no attachment.
    pub fn with_attachments(
        json: impl Into<ByteString>,
        attachments: Vec<Bytes>,
    ) -> Result<Self, InvalidArgs> {
        let json = json.into();
        json::check_array(&json, Some(attachments.len())).map_err(|_| InvalidArgs)?;
        Ok(Self { json, attachments })
    }

    /// Takes values, the name of an event first.
    pub fn from_values(values: &[Value]) -> Self {
        let mut json = String::from("[");
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push_str(&value.to_string());
        }
        json.push(']');
        Self { json: json.into(), attachments: Vec::new() }
    }

    /// Takes the name of an event and anything that serde writes as a JSON array: a tuple, a slice, a `Vec`.
    ///
    /// # Errors
    ///
    /// [`InvalidArgs`] if it is written as something else, or cannot be.
    pub fn event(name: &str, values: &impl Serialize) -> Result<Self, InvalidArgs> {
        let values = serde_json::to_string(values).map_err(|_| InvalidArgs)?;
        let inner = values.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let inner = inner.ok_or(InvalidArgs)?;
        let comma = if inner.is_empty() { "" } else { "," };
        Ok(Self {
            json: format!("[{}{comma}{inner}]", Value::from(name)).into(),
            attachments: Vec::new(),
        })
    }

    /// What stands in the JSON for attachment `num`.
    pub fn placeholder(num: usize) -> Value {
        json!({ "_placeholder": true, "num": num })
    }

    /// For a decoder that has checked both already.
    pub(super) fn from_checked(json: ByteString, attachments: Vec<Bytes>) -> Self {
        Self { json, attachments }
    }

    /// The JSON array.
    pub fn json(&self) -> &ByteString {
        &self.json
    }

    /// What its placeholders stand for.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// What a value stands for that was read from the JSON, if it is a placeholder.
    pub fn attachment(&self, value: &Value) -> Option<&Bytes> {
        if value.get("_placeholder")? != true {
            return None;
        }
        let num = usize::try_from(value.get("num")?.as_u64()?).ok()?;
        self.attachments.get(num)
    }

    /// Bytes of the text and the attachments together.
    pub fn bytes(&self) -> usize {
        self.json.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// The name of the event: the first element, if it is a string. A number is one too, in its digits
    /// as they were written.
    pub fn name(&self) -> Option<Cow<'_, str>> {
        match json::split_first(&self.json)? {
            ((Kind::String, text), _) => Some(json::unescape(text)),
            ((Kind::Number, text), _) => Some(Cow::Borrowed(text)),
            ((Kind::Array | Kind::Object | Kind::Literal, _), _) => None,
        }
    }

    /// A string at a place in the arguments, or a number in its digits as they were written: in the
    /// element at `index`, and in that where `keys` lead to.
    pub(crate) fn scalar_at(&self, index: usize, keys: &[String]) -> Option<Cow<'_, str>> {
        match json::find(&self.json, index, keys)? {
            (Kind::String, text) => Some(json::unescape(text)),
            (Kind::Number, text) => Some(Cow::Borrowed(text)),
            (Kind::Array | Kind::Object | Kind::Literal, _) => None,
        }
    }

    /// The arguments without the first: those of an event without its name, as an ack carries
    /// them.
    pub fn rest(&self) -> Self {
        let json = match json::split_first(&self.json) {
            Some((_, tail)) if tail.starts_with(',') => {
                let mut json = String::with_capacity(tail.len());
                json.push('[');
                json.push_str(&tail[1..]);
                json.into()
            }
            Some(_) | None => ByteString::from_static("[]"),
        };
        Self { json, attachments: self.attachments.clone() }
    }

    /// Reads the array into a type, say a tuple.
    ///
    /// # Errors
    ///
    /// What serde has to say. Texts nested more than 128 levels deep are among what it refuses.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.json)
    }
}

impl From<Args> for (ByteString, Vec<Bytes>) {
    fn from(Args { json, attachments }: Args) -> Self {
        (json, attachments)
    }
}

impl TryFrom<(ByteString, Vec<Bytes>)> for Args {
    type Error = InvalidArgs;

    fn try_from((json, attachments): (ByteString, Vec<Bytes>)) -> Result<Self, InvalidArgs> {
        match attachments.is_empty() {
            true => Self::new(json),
            false => Self::with_attachments(json, attachments),
        }
    }
}

/// The text is not a JSON array, or one of its placeholders has no attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidArgs;

impl fmt::Display for InvalidArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("arguments must be a JSON array whose placeholders all have an attachment")
    }
}

impl std::error::Error for InvalidArgs {}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(json: &str) -> Args {
        Args::new(json).unwrap()
    }

    #[test]
    fn the_name_is_the_first_element_unescaped() {
        assert_eq!(args(r#"["msg",1]"#).name().as_deref(), Some("msg"));
        assert_eq!(args(r#" [ "a\u0062\n" ]"#).name().as_deref(), Some("ab\n"));
        assert_eq!(args("[17,1]").name().as_deref(), Some("17"));
        for json in ["[]", "[null]", "[[\"a\"]]", "[{}]", "[true]"] {
            assert_eq!(args(json).name(), None, "{json}");
        }
    }

    #[test]
    fn the_rest_is_what_an_ack_echoes() {
        for (json, rest) in [
            (r#"["msg",1,{"a":[2]}]"#, r#"[1,{"a":[2]}]"#),
            (r#"["a,]" , 2 ]"#, "[ 2 ]"),
            (r#"["msg"]"#, "[]"),
            (r#"["msg" ]"#, "[]"),
            ("[]", "[]"),
        ] {
            assert_eq!(args(json).rest(), args(rest), "{json}");
        }
        let attached = vec![Bytes::from_static(b"x")];
        let json = r#"["a",{"_placeholder":true,"num":0}]"#;
        let args = Args::with_attachments(json, attached.clone()).unwrap();
        assert_eq!(args.rest().attachments(), attached);
        assert_eq!(args.bytes(), json.len() + 1);
    }

    #[test]
    fn arguments_are_made_from_values() {
        assert_eq!(Args::from_values(&[json!("a"), json!({"b": 1})]), args(r#"["a",{"b":1}]"#));
        assert_eq!(Args::from_values(&[]), args("[]"));
        assert_eq!(Args::event("a\"", &(1, "b")), Ok(args(r#"["a\"",1,"b"]"#)));
        assert_eq!(Args::event("a", &[(); 0]), Ok(args(r#"["a"]"#)));
        assert_eq!(Args::event("a", &1), Err(InvalidArgs));
        assert_eq!(args("[1,\"b\"]").parse::<(u8, String)>().unwrap(), (1, "b".to_owned()));
        let blob = Args::with_attachments(
            json!(["a", Args::placeholder(0)]).to_string(),
            vec![Bytes::from_static(b"x")],
        );
        let blob = blob.unwrap();
        let (_, value) = blob.parse::<(String, Value)>().unwrap();
        assert_eq!(blob.attachment(&value), Some(&Bytes::from_static(b"x")));
        let other = [Args::placeholder(1), json!({ "_placeholder": 1, "num": 0 }), json!([0])];
        assert!(other.iter().all(|value| blob.attachment(value).is_none()));
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for json in ["", "{}", "\"a\"", "[", "[1]]", "[\"a\"] x"] {
            assert_eq!(Args::new(json), Err(InvalidArgs), "{json}");
        }
        let orphan = r#"["a",{"_placeholder":true,"num":0}]"#;
        assert_eq!(Args::with_attachments(orphan, vec![]), Err(InvalidArgs));
    }
}
