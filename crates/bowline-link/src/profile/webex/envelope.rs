//! What is said over Mercury, Webex's WebSocket, in both directions. Pure.
//!
//! The service sends *envelopes*, JSON in text or binary frames. Each has an id, and a number that counts the frames of
//! its socket. Those that matter hold an *activity*: somebody posted, shared a file, pressed a button. What was written
//! is encrypted in there; bots ask two services for it.

use std::collections::BTreeMap;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

/// The longest id that is one. Those of the service have 36 characters, public ids about 80.
pub const ID_MAX: usize = 256;

/// Base64 that does not care for padding: the service sends none, and some clients do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An envelope, as far as Bowline looks into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its id: what is acknowledged.
    pub id: Option<String>,
    /// Its number among the frames of its socket.
    pub number: Option<u64>,
    /// What it is.
    pub kind: Kind,
}

/// What an envelope is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The answer to [`ping`], with the same id as the envelope.
    Pong,
    /// The socket will end soon.
    Shutdown,
    /// The answer to [`authorization`]: `mercury.buffer_state` or `mercury.registration_status`.
    Admitted,
    /// Somebody did something.
    Activity(Activity),
    /// Anything else: typing, presence, what is not known yet.
    Other,
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// Its id, a UUID. The public id of the message has it inside.
    pub id: String,
    /// What.
    pub verb: Verb,
    /// Who: a UUID; empty if that is not said.
    pub actor: String,
    /// Who: an address; empty if that is not said.
    pub email: String,
    /// Where: the UUID of the conversation; empty if that is not said.
    pub conversation: String,
    /// The conversation's URL, at the service that knows its messages; empty if that is not said.
    pub url: String,
    /// The activity that began the thread, if it is in one.
    pub parent: Option<String>,
    /// When, in milliseconds since 1970 by the service's clock, if that is said.
    pub published: Option<u64>,
}

/// What was done, as far as bots care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A message.
    Post,
    /// A file: it becomes a message with the [`Filed`](Self::Filed) that follows.
    Share,
    /// The files of a share are there, and safe.
    Filed,
    /// A button of a card.
    CardAction,
    /// Anything else.
    Other,
}

/// It is no envelope: no JSON, or no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads an envelope. What is missing or of another type is as good as not there.
///
/// # Errors
///
/// [`Malformed`].
pub fn decode(frame: &[u8]) -> Result<Envelope, Malformed> {
    let value: Value = serde_json::from_slice(frame).map_err(|_| Malformed)?;
    if !value.is_object() {
        return Err(Malformed);
    }
    let event = text(&value, "/data/eventType");
    let kind = match (text(&value, "/type"), event) {
        ("pong", _) => Kind::Pong,
        ("shutdown", _) | (_, "mercury.shutdown") => Kind::Shutdown,
        (_, "mercury.buffer_state" | "mercury.registration_status") => Kind::Admitted,
        (_, "conversation.activity") => activity(&value).map_or(Kind::Other, Kind::Activity),
        _ => Kind::Other,
    };
    let number = value.get("sequenceNumber").and_then(Value::as_u64);
    Ok(Envelope { id: id(text(&value, "/id")), number, kind })
}

fn activity(envelope: &Value) -> Option<Activity> {
    let activity = envelope.pointer("/data/activity")?;
    let verb = match text(activity, "/verb") {
        "post" => Verb::Post,
        "share" => Verb::Share,
        "update" if is_filed(activity) => Verb::Filed,
        "cardAction" => Verb::CardAction,
        _ => Verb::Other,
    };
    let short = |pointer| id(text(activity, pointer)).unwrap_or_default();
    Some(Activity {
        id: id(text(activity, "/id"))?,
        verb,
        actor: short("/actor/id"),
        email: short("/actor/emailAddress"),
        conversation: short("/target/id"),
        url: text(activity, "/target/url").to_owned(),
        parent: id(text(activity, "/parent/id")),
        published: super::time::unix_ms(text(activity, "/published")),
    })
}

/// As `webex_bot` sees it: documents, all of which were found safe.
fn is_filed(activity: &Value) -> bool {
    let files = activity.pointer("/object/files/items").and_then(Value::as_array);
    text(activity, "/object/objectType") == "content"
        && text(activity, "/object/contentCategory") == "documents"
        && files.is_some_and(|files| {
            files.iter().all(|file| text(file, "/malwareQuarantineState") == "safe")
        })
}

/// The envelope of a file as one of a message: what was shared has the id that bots must ask for, and a bot that did
/// not see the share could not know it. Returns the frame as it was if it is none.
pub fn as_post(frame: &Bytes, share: &str) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(frame) else { return frame.clone() };
    if let Some(Value::Object(activity)) = value.pointer_mut("/data/activity") {
        activity.insert("verb".to_owned(), "post".into());
        activity.insert("id".to_owned(), share.into());
    }
    value.to_string().into()
}

/// A message that was found by asking the public API, as the envelope that would have told of it. `None` if it is no
/// message, or has no id.
///
/// `conversations` is the base of the service that knows messages by their UUID.
pub fn of_message(message: &Value, conversations: &str) -> Option<(Activity, Bytes)> {
    let uuid = id(&uuid_of(text(message, "/id")))?;
    let conversation = id(&uuid_of(text(message, "/roomId")))?;
    let actor = uuid_of(text(message, "/personId"));
    let email = text(message, "/personEmail");
    let url = format!("{conversations}/conversations/{conversation}");
    let is_direct = text(message, "/roomType") == "direct";
    let kind = if email.ends_with("@webex.bot") { "BOT" } else { "PERSON" };
    let mut activity = json!({
        "id": uuid,
        "objectType": "activity",
        "verb": "post",
        "published": text(message, "/created"),
        "actor": { "id": actor, "objectType": "person", "type": kind, "emailAddress": email },
        "object": { "objectType": "comment" },
        "target": {
            "id": conversation,
            "objectType": "conversation",
            "url": url,
            "tags": if is_direct { json!(["ONE_ON_ONE"]) } else { json!([]) },
        },
    });
    let parent = id(&uuid_of(text(message, "/parentId")));
    if let Some(parent) = &parent {
        activity["parent"] = json!({ "id": parent, "type": "reply" });
    }
    let data = json!({ "eventType": "conversation.activity", "activity": activity });
    let frame: Bytes = json!({ "id": format!("found-{uuid}"), "data": data }).to_string().into();
    match decode(&frame).ok()?.kind {
        Kind::Activity(activity) => Some((activity, frame)),
        _ => None,
    }
}

/// The envelope with this number, and not a byte of its parts changed otherwise. The frame as it was if it is none.
pub fn numbered(frame: &Bytes, number: u64) -> Bytes {
    let Ok(mut parts) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(frame) else {
        return frame.clone();
    };
    let number = number.to_string();
    let Ok(number) = serde_json::from_str(&number) else { return frame.clone() };
    parts.insert("sequenceNumber".to_owned(), number);
    serde_json::to_vec(&parts).map_or_else(|_| frame.clone(), Bytes::from)
}

/// What answers [`authorization`].
pub fn buffer_state(id: &str, number: u64, now_unix_ms: u64) -> Bytes {
    let data = json!({ "eventType": "mercury.buffer_state", "bufferState": {} });
    let envelope =
        json!({ "id": id, "data": data, "timestamp": now_unix_ms, "sequenceNumber": number });
    envelope.to_string().into()
}

/// What answers [`ping`].
pub fn pong(id: &str, number: u64, now_unix_ms: u64) -> Bytes {
    let data = json!({ "eventType": "pong", "wsWriteTimestamp": now_unix_ms });
    let envelope = json!({ "id": id, "type": "pong", "data": data, "sequenceNumber": number });
    envelope.to_string().into()
}

/// The first frame of a client.
pub fn authorization(id: &str, token: &str) -> String {
    let data = json!({ "token": format!("Bearer {token}") });
    json!({ "id": id, "type": "authorization", "data": data }).to_string()
}

/// A ping of the protocol.
pub fn ping(id: &str) -> String {
    json!({ "id": id, "type": "ping" }).to_string()
}

/// Acknowledges an envelope.
pub fn ack(id: &str) -> String {
    json!({ "type": "ack", "messageId": id }).to_string()
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// [`authorization`].
    Authorization,
    /// [`ping`].
    Ping {
        /// What the pong must have.
        id: String,
    },
    /// [`ack`], of an envelope, of an activity, or of a message by its public id.
    Ack {
        /// The id as it was said.
        id: String,
    },
    /// Anything else.
    Other,
}

/// Reads what a client says. What cannot be read is [`Said::Other`].
pub fn said(frame: &[u8]) -> Said {
    let Ok(value) = serde_json::from_slice::<Value>(frame) else { return Said::Other };
    match text(&value, "/type") {
        "authorization" => Said::Authorization,
        "ping" => id(text(&value, "/id")).map_or(Said::Other, |id| Said::Ping { id }),
        "ack" => id(text(&value, "/messageId")).map_or(Said::Other, |id| Said::Ack { id }),
        _ => Said::Other,
    }
}

/// The public id of something with this UUID: `MESSAGE`, `ROOM`, `ATTACHMENT_ACTION`.
pub fn public_id(kind: &str, uuid: &str) -> String {
    BASE64.encode(format!("ciscospark://us/{kind}/{uuid}"))
}

/// The UUID in a public id, with or without padding. What is none is returned as it is: a UUID.
pub fn uuid_of(id: &str) -> String {
    let url = BASE64
        .decode(id.trim_end_matches('='))
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match url.as_deref().and_then(|url| url.strip_prefix("ciscospark://")) {
        Some(path) => path.rsplit('/').next().unwrap_or_default().to_owned(),
        None => id.to_owned(),
    }
}

/// A text in a value; empty if it is not there.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn id(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= ID_MAX).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "7f0e2ef0-9d4a-11ee-8c90-0242ac120002";

    #[test]
    fn envelopes_are_what_they_say_and_frames_may_lack_anything() {
        let kind = |text: &str| decode(text.as_bytes()).map(|envelope| envelope.kind);
        assert_eq!(kind(r#"{"id":"a","type":"pong"}"#), Ok(Kind::Pong));
        assert_eq!(kind(r#"{"type":"shutdown"}"#), Ok(Kind::Shutdown));
        assert_eq!(kind(r#"{"data":{"eventType":"mercury.buffer_state"}}"#), Ok(Kind::Admitted));
        assert_eq!(
            kind(r#"{"data":{"eventType":"mercury.registration_status"}}"#),
            Ok(Kind::Admitted)
        );
        for other in [
            "{}",
            r#"{"id":7,"data":[],"type":{}}"#,
            r#"{"data":{"eventType":"conversation.activity"}}"#,
            r#"{"data":{"eventType":"conversation.activity","activity":{"verb":"post"}}}"#,
            r#"{"data":{"eventType":"status.start_typing"}}"#,
        ] {
            assert_eq!(kind(other), Ok(Kind::Other), "{other}");
        }
        for malformed in ["", "x", "[]", "7", "{"] {
            assert_eq!(kind(malformed), Err(Malformed), "{malformed}");
        }
        assert_eq!(decode(&[0xff, 0x00]), Err(Malformed));
    }

    #[test]
    fn an_activity_says_who_did_what_where() {
        let envelope = decode(&post("post", "{}")).unwrap();
        assert_eq!((envelope.id.as_deref(), envelope.number), (Some("e1"), Some(4)));
        let Kind::Activity(activity) = envelope.kind else { panic!("{:?}", envelope.kind) };
        assert_eq!(activity.id, UUID);
        assert_eq!(activity.verb, Verb::Post);
        assert_eq!((&*activity.actor, &*activity.email), ("p1", "paula@example.com"));
        assert_eq!((&*activity.conversation, &*activity.url), ("c1", "https://c/conversations/c1"));
        assert_eq!(activity.published, Some(1_795_341_845_678));
    }

    #[test]
    fn an_update_is_a_file_only_when_every_document_is_safe() {
        let verb = |object: &str| match decode(&post("update", object)).unwrap().kind {
            Kind::Activity(activity) => activity.verb,
            other => panic!("{other:?}"),
        };
        let files = |states: &[&str]| {
            let items: Vec<_> =
                states.iter().map(|state| json!({ "malwareQuarantineState": state })).collect();
            json!({ "objectType": "content", "contentCategory": "documents",
                "files": { "items": items } })
            .to_string()
        };
        assert_eq!(verb(&files(&["safe", "safe"])), Verb::Filed);
        assert_eq!(verb(&files(&["safe", "pending"])), Verb::Other);
        assert_eq!(verb(r#"{"objectType":"content","contentCategory":"documents"}"#), Verb::Other);
        assert_eq!(verb(r#"{"objectType":"conversation"}"#), Verb::Other);
    }

    #[test]
    fn a_file_becomes_a_message_with_the_id_of_what_was_shared() {
        let frame = Bytes::from(post("update", "{}"));
        let Kind::Activity(activity) = decode(&as_post(&frame, "shared")).unwrap().kind else {
            panic!("it was one")
        };
        assert_eq!((&*activity.id, activity.verb), ("shared", Verb::Post));
        assert_eq!(as_post(&Bytes::from("x"), "shared"), "x");
    }

    #[test]
    fn what_was_found_by_asking_is_an_envelope_with_the_same_ids() {
        let message = json!({
            "id": public_id("MESSAGE", UUID), "roomId": public_id("ROOM", "c1"),
            "roomType": "direct", "personId": public_id("PEOPLE", "p1"),
            "personEmail": "paula@example.com", "created": "2026-11-22T10:00:00.000Z",
            "parentId": "parent",
        });
        let (activity, frame) = of_message(&message, "https://c").unwrap();
        let envelope = decode(&frame).unwrap();
        assert_eq!(envelope.kind, Kind::Activity(activity.clone()));
        assert_eq!((&*activity.id, &*activity.conversation), (UUID, "c1"));
        let value: Value = serde_json::from_slice(&frame).unwrap();
        assert_eq!(value.pointer("/data/activity/target/tags/0"), Some(&json!("ONE_ON_ONE")));
        assert_eq!(text(&value, "/data/activity/parent/id"), "parent");
        assert_eq!(text(&value, "/data/activity/actor/type"), "PERSON");
        assert_eq!(of_message(&json!({ "text": "no id" }), "https://c"), None);
    }

    #[test]
    fn a_number_changes_nothing_else() {
        let frame = Bytes::from(r#"{"a":1.50e1,"id":"e1","sequenceNumber":7,"z":{"b":1,"a":2}}"#);
        let renumbered = r#"{"a":1.50e1,"id":"e1","sequenceNumber":12,"z":{"b":1,"a":2}}"#;
        assert_eq!(numbered(&frame, 12), renumbered);
        assert_eq!(numbered(&Bytes::from("[]"), 12), "[]");
    }

    #[test]
    fn public_ids_are_read_with_and_without_padding() {
        for uuid in [UUID, "a", "ab", "abc"] {
            let id = public_id("MESSAGE", uuid);
            assert!(!id.ends_with('='));
            assert_eq!(uuid_of(&id), uuid);
            let padded = format!("{id}{}", "=".repeat((4 - id.len() % 4) % 4));
            assert_eq!(uuid_of(&padded), uuid);
        }
        assert_eq!(uuid_of(UUID), UUID, "a UUID is one already");
        assert_eq!(uuid_of("bm90IGEgdXJs"), "bm90IGEgdXJs");
    }

    #[test]
    fn what_a_client_says_is_read_back() {
        assert_eq!(said(authorization("a", "t").as_bytes()), Said::Authorization);
        assert_eq!(said(ping("p").as_bytes()), Said::Ping { id: "p".to_owned() });
        assert_eq!(said(ack("e").as_bytes()), Said::Ack { id: "e".to_owned() });
        for other in ["", "{}", "[]", r#"{"type":"ack"}"#, r#"{"type":"ping","id":7}"#] {
            assert_eq!(said(other.as_bytes()), Said::Other, "{other}");
        }
        assert_eq!(decode(&pong("p", 3, 7)).unwrap().kind, Kind::Pong);
        assert_eq!(decode(&buffer_state("b", 1, 7)).unwrap().kind, Kind::Admitted);
    }

    fn post(verb: &str, object: &str) -> Vec<u8> {
        let object: Value = serde_json::from_str(object).unwrap();
        let actor = json!({ "id": "p1", "emailAddress": "paula@example.com" });
        let target = json!({ "id": "c1", "url": "https://c/conversations/c1" });
        let activity = json!({ "id": UUID, "verb": verb, "actor": actor, "object": object,
            "target": target, "published": "2026-11-22T10:04:05.678Z" });
        let data = json!({ "eventType": "conversation.activity", "activity": activity });
        json!({ "id": "e1", "data": data, "sequenceNumber": 4 }).to_string().into_bytes()
    }
}
