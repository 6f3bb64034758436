//! Events and rooms, for programs: the way back of the HTTP backend protocol, for an app and for
//! everybody else who may ask.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use bowline_backend::wire_args;
use bowline_names::ErrorCode;
use bowline_net::Whom;
use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;
use utoipa::{
    ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type},
    },
};

use super::{
    error::{ApiError, ErrorBody},
    sockets::{Body, invalid, read_sid, root},
};
use crate::{
    config::duration_text,
    emit::{Emit, EmitError, Emitted, Source, To, limit},
    gateway::Gateway,
};

/// Where events are sent from.
pub(super) const EMIT: &str = "/api/v1/emit";

/// An event for sockets of one namespace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmitRequest {
    /// Where they are.
    #[serde(default = "root")]
    #[schema(example = "/", pattern = "^/", max_length = 1024)]
    namespace: String,
    /// Which of them: `"all"`, or members of any of these rooms. The sid of a socket is the name of a
    /// room with that socket alone.
    #[serde(default)]
    to: Receivers,
    /// Not members of these rooms.
    #[serde(default)]
    #[schema(max_items = 1000)]
    except: Vec<String>,
    /// The name of the event.
    #[schema(example = "news")]
    event: String,
    /// Its arguments. Binary is `{"$binary":"BASE64"}`; a key that is meant literally is `$$binary`.
    #[serde(default = "no_args")]
    #[schema(value_type = Vec<serde_json::Value>, example = json!([{"title": "hello"}]))]
    args: Box<RawValue>,
    /// Whether it may be dropped for receivers that cannot take it at once.
    #[serde(default)]
    volatile: bool,
    /// Chosen by who asks. The same event with the same id within ten minutes is not sent again, and
    /// is answered as the first time.
    #[schema(min_length = 1, max_length = 256, example = json!(null))]
    id: Option<String>,
    /// How long it is kept for whoever comes first if there is nobody yet, a day at most.
    #[schema(example = "30s")]
    hold: Option<String>,
    /// Whether acks are asked of all receivers, and awaited.
    #[serde(default)]
    ack: bool,
    /// How long acks are awaited, 50 seconds at most; five if it is not said.
    #[schema(example = "5s")]
    timeout: Option<String>,
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EmitAnswer {
    /// The id that was given, or one that was made for it.
    id: String,
    /// How many sockets it was sent to.
    receivers: usize,
    /// Who has acked, in order of arrival. The first 10,000 of them, and no more than 16 MiB.
    acks: Vec<EmitAck>,
    /// How many have not acked in time.
    missing: usize,
    /// How many acks came and are not in `acks`, which is full.
    #[serde(skip_serializing_if = "is_zero")]
    #[schema(required = false)]
    left_out: usize,
    /// True if there was nobody and it is kept for whoever comes first.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    held: bool,
}

/// The ack of one socket.
#[derive(Debug, Serialize, ToSchema)]
struct EmitAck {
    /// Its Socket.IO sid.
    sid: String,
    /// The arguments of the ack, binary as in the arguments of an event.
    #[schema(value_type = Vec<serde_json::Value>)]
    args: Box<RawValue>,
}

/// Which sockets go into rooms or out of them: one, those of a room, or all of the namespace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Move {
    /// Where they are.
    #[serde(default = "root")]
    #[schema(example = "/", pattern = "^/", max_length = 1024)]
    namespace: String,
    /// The Socket.IO sid of one.
    #[schema(pattern = "^[A-Za-z0-9_-]{20}$")]
    sid: Option<String>,
    /// Everybody in this room.
    room: Option<String>,
    /// Everybody in the namespace.
    #[serde(default)]
    all: bool,
    /// The rooms that they go into or out of.
    #[schema(min_items = 1, max_items = 1000, example = json!(["news"]))]
    rooms: Vec<String>,
}

/// How many there were.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Moved {
    sockets: usize,
}

/// Sends an event to clients.
///
/// Whatever has a handler or a backend may be sent to, by everybody who may ask here. What becomes of
/// it is told when it has been handed to its receivers, or with `ack` when their acks are there or
/// their time is over.
#[utoipa::path(post, path = "/api/v1/emit", tag = "act", request_body = EmitRequest, responses(
    (status = 200, description = "How many there were, also if there were none", body = EmitAnswer),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 409, description = "The id was used for another event", body = ErrorBody),
    (status = 413, description = "It has more than 1 MiB", content_type = "text/plain", body = String),
    (status = 415, description = "It is no JSON", body = ErrorBody),
    (status = 503, description = "Too much waits already; nothing was sent", body = ErrorBody),
))]
pub(super) async fn emit(
    State(gateway): State<Arc<Gateway>>,
    Body(request): Body<EmitRequest>,
) -> Result<Json<EmitAnswer>, ApiError> {
    let (id, emit) = request.read()?;
    let emitted = gateway.emitter.emit(Source::Api, id, emit).await?;
    Ok(Json(EmitAnswer::of(&emitted)))
}

/// Puts sockets into rooms.
#[utoipa::path(post, path = "/api/v1/join", tag = "act", request_body = Move, responses(
    (status = 200, description = "How many sockets are meant; a room without sockets has none", body = Moved),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "No socket in the namespace has this sid", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
))]
pub(super) async fn join(
    State(gateway): State<Arc<Gateway>>,
    Body(request): Body<Move>,
) -> Result<Json<Moved>, ApiError> {
    let (namespace, whom, rooms) = request.read()?;
    let sockets = gateway.handle.join_room(&namespace, whom.clone(), rooms).await;
    moved(&namespace, &whom, sockets)
}

/// Takes sockets out of rooms.
#[utoipa::path(post, path = "/api/v1/leave", tag = "act", request_body = Move, responses(
    (status = 200, description = "How many sockets are meant, also if they were in none of the rooms", body = Moved),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "No socket in the namespace has this sid", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
))]
pub(super) async fn leave(
    State(gateway): State<Arc<Gateway>>,
    Body(request): Body<Move>,
) -> Result<Json<Moved>, ApiError> {
    let (namespace, whom, rooms) = request.read()?;
    let sockets = gateway.handle.leave_room(&namespace, whom.clone(), rooms).await;
    moved(&namespace, &whom, sockets)
}

fn moved(namespace: &str, whom: &Whom, sockets: usize) -> Result<Json<Moved>, ApiError> {
    match whom {
        Whom::Sid(sid) if sockets == 0 => {
            let message = format!("there is no socket with sid {sid} in {namespace}");
            Err(ApiError::new(ErrorCode::SocketUnknown, message))
        }
        _ => Ok(Json(Moved { sockets })),
    }
}

impl EmitRequest {
    /// The id and what is to be sent.
    fn read(self) -> Result<(Option<String>, Emit), ApiError> {
        let Self { namespace, to, except, event, args, volatile, id, hold, ack, timeout } = self;
        if let Some(id) = &id
            && !(1..=limit::ID_BYTES_MAX).contains(&id.len())
        {
            return Err(invalid(format_args!("`id` has 1 to {} bytes", limit::ID_BYTES_MAX)));
        }
        let namespace = read_namespace(namespace)?;
        let to = match to {
            Receivers::All => To::All,
            Receivers::Rooms(rooms) => To::Rooms(read_rooms("to", rooms)?),
        };
        let except = read_rooms("except", except)?;
        let args = wire_args::event(&event, args.get()).map_err(invalid)?;
        let hold = hold.map(|text| read_duration("hold", &text, limit::HOLD_MAX)).transpose()?;
        let timeout =
            timeout.map(|text| read_duration("timeout", &text, limit::ACK_MAX)).transpose()?;
        let ack = ack.then_some(timeout.unwrap_or(limit::ACK));
        Ok((id, Emit { namespace, to, except, args, volatile, hold, ack }))
    }
}

impl EmitAnswer {
    fn of(emitted: &Emitted) -> Self {
        let acks = emitted.acks.iter().map(|(sid, args)| {
            // It was checked when it came; null stands for what serde does not take.
            let args =
                RawValue::from_string(wire_args::to_json(args).into_owned()).unwrap_or_default();
            EmitAck { sid: sid.to_string(), args }
        });
        Self {
            id: emitted.id.clone(),
            receivers: emitted.receivers,
            acks: acks.collect(),
            missing: emitted.missing,
            left_out: emitted.left_out,
            held: emitted.held,
        }
    }
}

impl Move {
    fn read(self) -> Result<(ByteString, Whom, Vec<ByteString>), ApiError> {
        let Self { namespace, sid, room, all, rooms } = self;
        let namespace = read_namespace(namespace)?;
        let whom = match (sid, room, all) {
            (Some(sid), None, false) => Whom::Sid(read_sid(&sid)?),
            (None, Some(room), false) => Whom::Room(room),
            (None, None, true) => Whom::All,
            _ => return Err(invalid("one of \"sid\", \"room\" and \"all\": true says whom")),
        };
        let rooms = read_rooms("rooms", rooms)?;
        if rooms.is_empty() {
            return Err(invalid("`rooms` is empty: it says which rooms"));
        }
        Ok((namespace, whom, rooms))
    }
}

impl From<EmitError> for ApiError {
    fn from(error: EmitError) -> Self {
        let code = match error {
            EmitError::Busy => ErrorCode::Busy,
            EmitError::IdReused => ErrorCode::EmitIdReused,
        };
        Self::new(code, error)
    }
}

/// For whom an event is, as it is written.
#[derive(Debug, Default, PartialEq, Eq)]
enum Receivers {
    #[default]
    All,
    Rooms(Vec<String>),
}

impl<'de> Deserialize<'de> for Receivers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Receivers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or a list of rooms such as [\"news\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Receivers, E> {
                match text {
                    "all" => Ok(Receivers::All),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Receivers, A::Error> {
                let rooms = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
                Ok(Receivers::Rooms(rooms))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl utoipa::PartialSchema for Receivers {
    fn schema() -> RefOr<Schema> {
        let all = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["all"]));
        let rooms = ArrayBuilder::new()
            .items(ObjectBuilder::new().schema_type(Type::String))
            .max_items(Some(limit::ROOMS_MAX));
        OneOfBuilder::new().item(all).item(rooms).default(Some("all".into())).into()
    }
}

impl ToSchema for Receivers {
    fn name() -> Cow<'static, str> {
        "Receivers".into()
    }
}

fn read_namespace(text: String) -> Result<ByteString, ApiError> {
    let good = text.starts_with('/') && text.len() <= limit::NAME_BYTES_MAX;
    let words =
        format_args!("`namespace` begins with / and has at most {} bytes", limit::NAME_BYTES_MAX);
    if good { Ok(text.into()) } else { Err(invalid(words)) }
}

fn read_rooms(key: &str, rooms: Vec<String>) -> Result<Vec<ByteString>, ApiError> {
    if rooms.len() > limit::ROOMS_MAX {
        let (many, most) = (rooms.len(), limit::ROOMS_MAX);
        return Err(invalid(format_args!("`{key}` names {many} rooms; {most} are the most")));
    }
    if rooms.iter().any(|room| room.len() > limit::NAME_BYTES_MAX) {
        let most = limit::NAME_BYTES_MAX;
        return Err(invalid(format_args!("`{key}`: the name of a room has at most {most} bytes")));
    }
    Ok(rooms.into_iter().map(ByteString::from).collect())
}

fn read_duration(key: &str, text: &str, most: Duration) -> Result<Duration, ApiError> {
    const LEAST: Duration = Duration::from_millis(1);
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| (LEAST..=most).contains(duration))
        .ok_or_else(|| {
            let most = duration_text(most);
            invalid(format_args!(
                "`{key}` is a duration from \"1ms\" to \"{most}\", such as \"5s\""
            ))
        })
}

fn no_args() -> Box<RawValue> {
    RawValue::from_string("[]".to_owned()).unwrap_or_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: Value) -> Result<(Option<String>, Emit), String> {
        let request: EmitRequest =
            serde_json::from_value(body).map_err(|error| error.to_string())?;
        request.read().map_err(|error| error.message)
    }

    #[test]
    fn an_event_alone_is_for_everybody_in_the_main_namespace() {
        let (id, emit) = read(json!({ "event": "a" })).unwrap();
        assert_eq!((id, &*emit.namespace, &emit.to), (None, "/", &To::All));
        assert_eq!(emit.args.json(), r#"["a"]"#);
        assert_eq!((emit.volatile, emit.hold, emit.ack), (false, None, None));
    }

    #[test]
    fn everything_that_can_be_said_is_understood() {
        // From a text, since a tree would lose digits.
        let body = r#"{"namespace":"/a","to":["r","s"],"except":["t"],"event":"e","id":"7",
            "args":[12345678901234567890.5, {"$binary":"aGkh"}],"volatile":true,"hold":"30s",
            "ack":true,"timeout":"200ms"}"#;
        let request: EmitRequest = serde_json::from_str(body).unwrap();
        let (id, emit) = request.read().unwrap();
        assert_eq!(id.as_deref(), Some("7"));
        assert_eq!(emit.to, To::Rooms(vec!["r".into(), "s".into()]));
        assert_eq!(emit.except, ["t"]);
        let json = r#"["e",12345678901234567890.5,{"_placeholder":true,"num":0}]"#;
        assert_eq!(emit.args.json().replace(' ', ""), json);
        assert_eq!(emit.hold, Some(Duration::from_secs(30)));
        assert_eq!(emit.ack, Some(Duration::from_millis(200)));
        let ack = read(json!({ "event": "a", "ack": true })).unwrap().1.ack;
        assert_eq!(ack, Some(Duration::from_secs(5)));
        assert_eq!(
            read(json!({ "event": "a", "to": [] })).unwrap().1.to,
            To::Rooms(Vec::new()),
            "a list that came out empty is not everybody"
        );
    }

    #[test]
    fn every_mistake_says_what_is_wrong() {
        let rooms: Vec<String> = (0..1_001).map(|number: u32| number.to_string()).collect();
        for (body, words) in [
            (json!({}), "missing field `event`"),
            (json!({ "event": 1 }), "invalid type: integer `1`"),
            (json!({ "event": "a", "exept": [] }), "unknown field `exept`"),
            (json!({ "event": "disconnect" }), "`event` is a name that clients keep"),
            (json!({ "event": "a", "args": {} }), "`args` must be an array"),
            (json!({ "event": "a", "args": [{ "$binary": 1 }] }), "`args` has a `$binary`"),
            (json!({ "event": "a", "to": "news" }), "\"all\" or a list of rooms"),
            (json!({ "event": "a", "to": 1 }), "\"all\" or a list of rooms"),
            (json!({ "event": "a", "to": [1] }), "invalid type: integer `1`"),
            (json!({ "event": "a", "to": rooms }), "`to` names 1001 rooms"),
            (json!({ "event": "a", "except": ["x".repeat(1_025)] }), "`except`: the name"),
            (json!({ "event": "a", "namespace": "chat" }), "`namespace` begins with /"),
            (json!({ "event": "a", "id": "" }), "`id` has 1 to 256 bytes"),
            (json!({ "event": "a", "hold": "soon" }), "`hold` is a duration from \"1ms\" to \"1d"),
            (json!({ "event": "a", "hold": "2d" }), "`hold` is a duration"),
            (json!({ "event": "a", "timeout": "1h" }), "`timeout` is a duration"),
        ] {
            let said = read(body.clone()).unwrap_err();
            assert!(said.contains(words), "{body:.80}: {said}");
        }
    }

    #[test]
    fn exactly_one_member_says_who_moves() {
        let read = |body: Value| {
            let request: Move = serde_json::from_value(body).map_err(|error| error.to_string())?;
            request.read().map_err(|error| error.message)
        };
        let (_, whom, rooms) = read(json!({ "all": true, "rooms": ["a"] })).unwrap();
        assert_eq!((whom, &*rooms[0]), (Whom::All, "a"));
        let (_, whom, _) = read(json!({ "room": "b", "rooms": ["a"] })).unwrap();
        assert_eq!(whom, Whom::Room("b".to_owned()));
        for (body, words) in [
            (json!({ "rooms": ["a"] }), "says whom"),
            (json!({ "all": true, "room": "b", "rooms": ["a"] }), "says whom"),
            (json!({ "all": true, "rooms": [] }), "`rooms` is empty"),
            (json!({ "all": true }), "missing field `rooms`"),
            (json!({ "sid": "x", "rooms": ["a"] }), "a sid has 20 characters"),
        ] {
            let said = read(body).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn an_answer_has_what_the_protocol_says() {
        let sid = "AMNLsXT6Qy1nC0nDDbWk".parse().unwrap();
        let ack = bowline_net::socketio::Args::new(r#"["ok","\ud800",1e400]"#).unwrap();
        let mut emitted = Emitted {
            id: "7".to_owned(),
            receivers: 3,
            acks: vec![(sid, ack)],
            missing: 2,
            left_out: 0,
            held: false,
        };
        let text = |emitted: &Emitted| serde_json::to_string(&EmitAnswer::of(emitted)).unwrap();
        assert_eq!(
            text(&emitted),
            concat!(
                r#"{"id":"7","receivers":3,"acks":[{"sid":"AMNLsXT6Qy1nC0nDDbWk","#,
                r#""args":["ok","\ud800",1e400]}],"missing":2}"#
            )
        );
        emitted = Emitted { receivers: 0, acks: vec![], missing: 0, held: true, ..emitted };
        assert_eq!(text(&emitted), r#"{"id":"7","receivers":0,"acks":[],"missing":0,"held":true}"#);
    }
}
