//! Pieces of JSON that are read without being understood: text that is borrowed where it can be, objects as lists of
//! members, and the weight of a text.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Range};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::limit::FIELDS_MAX;

/// A string, borrowed from its source if it has no escapes. (`Option<Cow<str>>` would always be copied.)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Reader<'a> {
            type Value = Text<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader(PhantomData))
    }
}

/// The members of an object in their order.
#[derive(Debug, Default)]
pub(super) struct Members<'a>(pub(super) Vec<(Text<'a>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The value of a member. The last, if there are several.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(found, _)| &**found == key).map(|(_, value)| *value)
    }

    /// Whether a member stands there more than once.
    pub(super) fn is_ambiguous(&self, key: &str) -> bool {
        self.0.iter().filter(|(found, _)| &**found == key).nth(1).is_some()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Reader<'a> {
            type Value = Members<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some(member) = map.next_entry()? {
                    if members.len() == FIELDS_MAX {
                        return Err(A::Error::custom(format_args!(
                            "more than {FIELDS_MAX} fields"
                        )));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// A list of at most so many, so that a short text cannot become a long list of large things.
#[derive(Debug)]
pub(super) struct AtMost<T, const MAX: usize>(pub(super) Vec<T>);

impl<T, const MAX: usize> Default for AtMost<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Reader<T, MAX> {
            type Value = AtMost<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(AtMost::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(A::Error::custom(format_args!("a list of more than {MAX}")));
                    }
                    items.push(item);
                }
                Ok(AtMost(items))
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// For fields that are written as well as read: what is read is borrowed, which `Cow` by itself does not do.
pub(super) fn borrowed<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'a, RawValue>>, D::Error> {
    Ok(Option::<&'a RawValue>::deserialize(deserializer)?.map(Cow::Borrowed))
}

/// JSON of what cannot fail to serialise: own types with text as keys.
pub(super) fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value)
        .unwrap_or_else(|error| unreachable!("own types serialise: {error}"))
}

/// Appends the same.
pub(super) fn write<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value)
        .unwrap_or_else(|error| unreachable!("own types serialise: {error}"));
}

/// Where a value stands in the text that it was read from.
pub(super) fn span(source: &[u8], value: &RawValue) -> Range<usize> {
    let from = value.get().as_ptr() as usize - source.as_ptr() as usize;
    from..from + value.get().len()
}

/// How much text there is in a value: bytes of strings, and how many numbers. What is not read by a model (names of
/// fields, types, ids, addresses, images) does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Weight {
    pub(super) text: u64,
    pub(super) numbers: u64,
}

/// Members whose values no model reads as text, or whose length says nothing about tokens.
const WEIGHTLESS: [&str; 18] = [
    "type",
    "role",
    "id",
    "url",
    "image_url",
    "data",
    "file_data",
    "file_id",
    "file",
    "source",
    "detail",
    "format",
    "media_type",
    "tool_call_id",
    "tool_use_id",
    "signature",
    "encrypted_content",
    "cache_control",
];

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Weight;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Weight, E> {
                Ok(Weight { text: text.len() as u64, numbers: 0 })
            }
            fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
                Ok(Weight { text: 0, numbers: 1 })
            }
            fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
                Ok(Weight { text: 0, numbers: 1 })
            }
            fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
                Ok(Weight { text: 0, numbers: 1 })
            }
            fn visit_bool<E>(self, _: bool) -> Result<Weight, E> {
                Ok(Weight::default())
            }
            fn visit_unit<E>(self) -> Result<Weight, E> {
                Ok(Weight::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Weight, A::Error> {
                let mut sum = Weight::default();
                while let Some(item) = seq.next_element::<Weight>()? {
                    sum.add(item);
                }
                Ok(sum)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weight, A::Error> {
                let mut sum = Weight::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if WEIGHTLESS.contains(&&*key) {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        sum.add(map.next_value()?);
                    }
                }
                Ok(sum)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl Weight {
    fn add(&mut self, other: Self) {
        self.text += other.text;
        self.numbers += other.numbers;
    }
}

/// The text of a `content`: a string, or the `text` of its parts, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Words<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Words<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Reader<'a> {
            type Value = Words<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of parts")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Words(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Words(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Words::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut text = String::new();
                while let Some(part) = seq.next_element::<Words<'de>>()? {
                    text.push_str(&part.0);
                }
                Ok(Words(Cow::Owned(text)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut text = String::new();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if &*key == "text" {
                        text.push_str(&map.next_value::<Words<'de>>()?.0);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Words(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// A whole number that some write as text, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value.as_u64().or_else(|| value.as_str()?.parse().ok()).or_else(|| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count of tokens, not below 0"
            )]
            value.as_f64().filter(|count| *count >= 0.0).map(|count| count as u64)
        })))
    }
}

/// The first `max` bytes of a text, cut between characters, on one line.
pub(super) fn brief(text: &str, max: usize) -> String {
    let cut = text.floor_char_boundary(max);
    text[..cut]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}
