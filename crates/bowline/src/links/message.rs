//! What an app or a socket of a namespace is told of a message, and what it says. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowline_link::{
    bot::{Offer, Outcome},
    far::Outgoing,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::config::Profile;

/// How many things one answer may say to the service: more are a loop.
const REPLIES_MAX: usize = 100;

/// A message as its bot reads it. For apps behind HTTP it begins with `"type":"message"`.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    link: &'a str,
    id: &'a str,
    room: &'a str,
    attempt: u32,
    data: &'a RawValue,
}

/// What its bot says to it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Answer<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    reply: Option<&'a RawValue>,
    #[serde(borrow, default)]
    replies: Vec<&'a RawValue>,
    refuse: Option<String>,
}

/// Also `null` is a value that is there.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Writes a message for an app behind HTTP.
///
/// # Errors
/// Its body is no JSON, in words for the log.
pub(super) fn for_app(offer: &Offer) -> Result<Bytes, String> {
    write(offer, Some("message")).map(Bytes::from)
}

/// Writes the same as what a socket of a namespace gets with the event `message`.
///
/// # Errors
/// As [`for_app`].
pub(super) fn for_socket(offer: &Offer) -> Result<String, String> {
    write(offer, None)
}

fn write(offer: &Offer, kind: Option<&'static str>) -> Result<String, String> {
    let message = &offer.message;
    let data: &RawValue = serde_json::from_slice(&message.body)
        .map_err(|error| format!("the message cannot be told as JSON: {error}"))?;
    let told = Told {
        kind,
        link: &offer.link,
        id: &message.id,
        room: &message.room,
        attempt: offer.attempt,
        data,
    };
    serde_json::to_string(&told).map_err(|error| error.to_string())
}

/// Whether this is JSON of an answer, and not of something else that a service may want to hear.
pub(super) fn is_answer(json: &str) -> bool {
    let answer: Result<Answer<'_>, _> = serde_json::from_str(json);
    json.starts_with('{')
        && answer.is_ok_and(|Answer { reply, replies, refuse }| {
            reply.is_some() || !replies.is_empty() || refuse.is_some()
        })
}

/// Understands an answer. `reply_to` is the message that it answers.
pub(super) fn outcome(profile: Profile, reply_to: &str, answer: &[u8]) -> Outcome {
    let said: Answer<'_> = if answer.iter().all(u8::is_ascii_whitespace) {
        Answer::default()
    } else {
        match serde_json::from_slice(answer) {
            Ok(said) => said,
            Err(error) => {
                // Where, but not what: an answer is for nobody's eyes.
                let (line, column) = (error.line(), error.column());
                let words = format!(
                    "answered something else than {{\"reply\":…}}, {{\"replies\":[…]}} or {{\"refuse\":\"…\"}} (line {line}, \
                     column {column})"
                );
                return Outcome::Unconfirmed(words);
            }
        }
    };
    if let Some(words) = said.refuse {
        return Outcome::Refused(words);
    }
    let replies = said.reply.into_iter().chain(said.replies);
    let replies: Result<Vec<_>, String> =
        replies.map(|reply| outgoing(profile, reply.get(), Some(reply_to))).collect();
    match replies {
        Ok(replies) if replies.len() > REPLIES_MAX => {
            let count = replies.len();
            Outcome::Unconfirmed(format!(
                "answered {count} replies, and {REPLIES_MAX} are the most"
            ))
        }
        Ok(replies) => Outcome::Confirmed { replies },
        Err(words) => Outcome::Unconfirmed(words),
    }
}

/// What goes to the service for a JSON value of a bot.
///
/// # Errors
/// It is not in the form that the profile asks for.
pub(super) fn outgoing(
    profile: Profile,
    json: &str,
    reply_to: Option<&str>,
) -> Result<Outgoing, String> {
    let made = |body: Bytes, text: bool| Outgoing {
        body,
        text,
        ask: None,
        reply_to: reply_to.map(str::to_owned),
    };
    let json = json.trim();
    if profile != Profile::WebSocket {
        return Ok(made(Bytes::copy_from_slice(json.as_bytes()), true));
    }
    // A text goes as it is, and binary as binary; anything else is the JSON that it is.
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => Ok(made(Bytes::from(text), true)),
        Ok(Value::Object(object)) if object.len() == 1 && object.contains_key("$binary") => {
            let base64 = object["$binary"].as_str();
            let bytes = base64.and_then(|text| STANDARD.decode(text).ok());
            let bytes = bytes.ok_or("said {\"$binary\":…} with something that is not base64")?;
            Ok(made(Bytes::from(bytes), false))
        }
        Ok(_) => Ok(made(Bytes::copy_from_slice(json.as_bytes()), true)),
        Err(error) => Err(format!("said something that is no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use bowline_link::far::Message;
    use serde_json::json;

    use super::*;

    fn offer(body: &'static str) -> Offer {
        let message = Message {
            id: "m\"1".to_owned(),
            own_id: true,
            room: "r".to_owned(),
            receipt: None,
            confirm: true,
            body: Bytes::from_static(body.as_bytes()),
        };
        Offer { link: "bot".to_owned(), message, attempt: 2 }
    }

    #[test]
    fn a_message_is_told_with_its_id_its_room_and_its_attempt() {
        let offer = offer(r#"["say", {"n":1.0}]"#);
        let told = for_app(&offer).unwrap();
        let expected = r#"{"type":"message","link":"bot","id":"m\"1","room":"r","attempt":2,"data":["say", {"n":1.0}]}"#;
        assert_eq!(told, expected);
        assert_eq!(for_socket(&offer).unwrap(), expected.replace(r#""type":"message","#, ""));
        assert!(for_app(&self::offer("no json")).is_err());
    }

    fn replies(profile: Profile, answer: &str) -> Vec<(String, bool)> {
        match outcome(profile, "m1", answer.as_bytes()) {
            Outcome::Confirmed { replies } => replies
                .into_iter()
                .inspect(|reply| assert_eq!(reply.reply_to.as_deref(), Some("m1")))
                .map(|reply| (String::from_utf8_lossy(&reply.body).into_owned(), reply.text))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_may_reply_once_often_or_not_at_all() {
        for answer in ["", " \n", "{}", r#"{"replies":[]}"#] {
            assert_eq!(replies(Profile::WebSocket, answer), [], "{answer}");
        }
        let answer = json!({ "reply": "hi", "replies": [{ "a": 1 }, { "$binary": "aGk=" }, null] });
        assert_eq!(
            replies(Profile::WebSocket, &answer.to_string()),
            [
                ("hi".into(), true),
                (r#"{"a":1}"#.into(), true),
                ("hi".into(), false),
                ("null".into(), true)
            ]
        );
        assert_eq!(
            replies(Profile::SocketIo, r#"{"reply":["a",1]}"#),
            [(r#"["a",1]"#.into(), true)]
        );
        assert_eq!(replies(Profile::Webex, r#"{"reply":"hi"}"#), [(r#""hi""#.into(), true)]);
        assert_eq!(replies(Profile::Webex, r#"{"reply":null}"#), [("null".into(), true)]);
    }

    #[test]
    fn what_is_no_answer_confirms_nothing_and_is_not_repeated() {
        for answer in ["hush", "[]", r#"{"replly":"hush"}"#, r#"{"replies":"hush"}"#] {
            let Outcome::Unconfirmed(words) = outcome(Profile::Webex, "m", answer.as_bytes())
            else {
                panic!("{answer}")
            };
            assert!(words.starts_with("answered ") && !words.contains("hush"), "{words}");
        }
        let many = json!({ "replies": vec![1; REPLIES_MAX + 1] }).to_string();
        assert!(matches!(outcome(Profile::Webex, "m", many.as_bytes()), Outcome::Unconfirmed(_)));
        let binary = br#"{"reply":{"$binary":"?"}}"#;
        assert!(matches!(outcome(Profile::WebSocket, "m", binary), Outcome::Unconfirmed(_)));
    }

    #[test]
    fn a_bot_may_refuse_a_message_for_good() {
        let refused = outcome(Profile::WebSocket, "m", br#"{"refuse":"not mine"}"#);
        assert_eq!(refused, Outcome::Refused("not mine".to_owned()));
    }
}
