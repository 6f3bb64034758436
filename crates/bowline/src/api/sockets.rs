//! Who is connected, and what can be done about it.
#![expect(unused_qualifications, reason = "what utoipa makes of `params` has them")]

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Query, Request, State},
};
use bowline_names::ErrorCode;
use bowline_net::{PacketLogError, RoomInfo, Sid, SocketFilter, SocketInfo, Whom};
use http::request::Parts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    audit::Deed,
    error::{ApiError, ErrorBody},
};
use crate::{clock, config::duration_text, gateway::Gateway};

/// How long packets are logged if nothing else is said.
const PACKET_LOG: Duration = Duration::from_secs(5 * 60);

/// How long packets may be logged.
const PACKET_LOG_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Which sockets.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SocketQuery {
    /// Only those in this namespace.
    #[param(example = "/")]
    namespace: Option<String>,
    /// Only those in this room.
    room: Option<String>,
    /// How many to describe at most; 1,000 if it is not said, which is the most.
    limit: Option<usize>,
}

/// Which rooms.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RoomQuery {
    /// Only those of this namespace.
    namespace: Option<String>,
}

/// Sockets of all namespaces, or of one.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sockets {
    /// How many there are, described or not.
    total: usize,
    sockets: Vec<Socket>,
}

/// One session's place in one namespace.
#[derive(Debug, Serialize, ToSchema)]
struct Socket {
    /// The Socket.IO sid.
    #[schema(example = "AAo5Uf1vYOuVhBz9C3EV")]
    sid: String,
    #[schema(example = "/")]
    namespace: String,
    /// The rooms it has joined; the first 100 of them.
    rooms: Vec<String>,
    /// How many rooms it has joined.
    rooms_total: usize,
    /// Whether its client has lost its connection and may come back.
    away: bool,
    /// Since when; null if it is not away.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// `polling` or `websocket`; null while it is away.
    #[schema(example = "websocket")]
    transport: Option<&'static str>,
    /// The revision of Engine.IO: 3 or 4; null while it is away.
    protocol: Option<u8>,
    /// Where its client is, as far as trusted proxies tell; null while it is away.
    #[schema(value_type = Option<String>, example = "192.0.2.7")]
    address: Option<IpAddr>,
    /// How long ago its connection was opened; null while it is away.
    age_seconds: Option<f64>,
    /// Whether its packets are logged.
    packet_log: bool,
}

/// Rooms of all namespaces, or of one.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rooms {
    rooms: Vec<Room>,
    /// Whether there are more than the 1,000 that are listed at most.
    more: bool,
}

/// A room.
#[derive(Debug, Serialize, ToSchema)]
struct Room {
    #[schema(example = "/")]
    namespace: String,
    name: String,
    /// How many sockets are in it.
    sockets: usize,
}

/// Whom to disconnect: either a sid or a room.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Disconnect {
    /// Where they are.
    #[serde(default = "root")]
    #[schema(example = "/")]
    namespace: String,
    /// The Socket.IO sid of one.
    sid: Option<String>,
    /// Everybody in this room.
    room: Option<String>,
    /// Whether to close the whole session, and not only to take it out of the namespace.
    #[serde(default)]
    close: bool,
}

/// How many were disconnected.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Disconnected {
    disconnected: usize,
}

/// Whose packets to log.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PacketLogs {
    /// The Socket.IO sid. The packets of its whole session are logged.
    sid: String,
    /// Whether to log them.
    on: bool,
    /// For how long, a day at most; five minutes if it is not said.
    #[serde(rename = "for")]
    #[schema(example = "5m")]
    duration: Option<String>,
}

/// What is logged now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PacketLogged {
    sid: String,
    on: bool,
    /// For how long from now.
    for_seconds: u64,
}

/// The sockets, by namespace and room.
#[utoipa::path(get, path = "/api/v1/sockets", tag = "observe", params(SocketQuery), responses(
    (status = 200, description = "How many there are, and up to 1,000 of them", body = Sockets),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
pub(super) async fn sockets(
    State(gateway): State<Arc<Gateway>>,
    InQuery(query): InQuery<SocketQuery>,
) -> Json<Sockets> {
    let SocketQuery { namespace, room, limit } = query;
    let list = gateway.handle.sockets(SocketFilter { namespace, room, limit }).await;
    let sockets = list.sockets.into_iter().map(Socket::of).collect();
    Json(Sockets { total: list.total, sockets })
}

/// The rooms and how many sockets are in each.
#[utoipa::path(get, path = "/api/v1/rooms", tag = "observe", params(RoomQuery), responses(
    (status = 200, description = "Up to 1,000 rooms, by namespace and name", body = Rooms),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
))]
pub(super) async fn rooms(
    State(gateway): State<Arc<Gateway>>,
    InQuery(query): InQuery<RoomQuery>,
) -> Json<Rooms> {
    let list = gateway.handle.rooms(query.namespace).await;
    let rooms = list.rooms.into_iter().map(|RoomInfo { namespace, name, sockets }| Room {
        namespace: namespace.to_string(),
        name: name.to_string(),
        sockets,
    });
    Json(Rooms { rooms: rooms.collect(), more: list.more })
}

/// Takes sockets out of a namespace, or closes their sessions.
///
/// Their clients are told so by a Socket.IO DISCONNECT, after which the official ones do not come
/// back by themselves.
#[utoipa::path(post, path = "/api/v1/disconnect", tag = "act", request_body = Disconnect, responses(
    (status = 200, description = "How many there were; a room without sockets has none", body = Disconnected),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "No socket in the namespace has this sid", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
))]
pub(super) async fn disconnect(
    State(gateway): State<Arc<Gateway>>,
    Body(request): Body<Disconnect>,
) -> Result<(Deed, Json<Disconnected>), ApiError> {
    let Disconnect { namespace, sid, room, close } = request;
    let (whom, words) = match (sid, room) {
        (Some(text), None) => {
            let words = format!("sid {text}");
            (Whom::Sid(read_sid(&text)?), words)
        }
        (None, Some(room)) => {
            let words = format!("room {room}");
            (Whom::Room(room), words)
        }
        _ => return Err(invalid("either \"sid\" or \"room\" says whom")),
    };
    let one = matches!(whom, Whom::Sid(_));
    let disconnected = gateway.handle.disconnect_from(&namespace, whom, close).await;
    if one && disconnected == 0 {
        let message = format!("there is no socket with {words} in {namespace}");
        return Err(ApiError::new(ErrorCode::SocketUnknown, message));
    }
    let how = if close { "closed the sessions of" } else { "disconnected" };
    let deed = Deed(format!("{how} {disconnected} sockets: {words} in {namespace}"));
    Ok((deed, Json(Disconnected { disconnected })))
}

/// Switches the log of one client's packets on or off.
///
/// They are lines with the target `packets`, whatever `log.level` is unless it is `off`. What a
/// client says in CONNECT is left out, and values with names such as `token` are hidden; everything
/// else that clients say is in them.
#[utoipa::path(put, path = "/api/v1/packet-logs", tag = "act", request_body = PacketLogs, responses(
    (status = 200, description = "What is logged now", body = PacketLogged),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "No socket has this sid", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
    (status = 503, description = "The packets of too many clients are logged", body = ErrorBody),
))]
pub(super) async fn packet_logs(
    State(gateway): State<Arc<Gateway>>,
    Body(request): Body<PacketLogs>,
) -> Result<(Deed, Json<PacketLogged>), ApiError> {
    let PacketLogs { sid, on, duration } = request;
    let duration = match duration {
        Some(text) => read_duration(&text)?,
        None => PACKET_LOG,
    };
    let on_for = on.then_some(duration);
    let answer = gateway.handle.packet_logs(read_sid(&sid)?, on_for).await;
    answer.map_err(|error| {
        let code = match error {
            PacketLogError::UnknownSocket => ErrorCode::SocketUnknown,
            PacketLogError::TooMany => ErrorCode::Busy,
        };
        ApiError::new(code, error)
    })?;
    let deed = match on_for {
        Some(time) => format!("logs the packets of sid {sid} for {}", duration_text(time)),
        None => format!("logs the packets of sid {sid} no longer"),
    };
    let for_seconds = on_for.unwrap_or_default().as_secs();
    Ok((Deed(deed), Json(PacketLogged { sid, on, for_seconds })))
}

/// What stands in the query, whose mistakes are told as everything else.
pub(super) struct InQuery<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(query) = Query::from_request_parts(head, state).await?;
        Ok(Self(query))
    }
}

/// A body of JSON, likewise.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Json(text) = Json::<Box<RawValue>>::from_request(request, state).await?;
        // serde would take the members of a struct from a list too, in their order.
        if !text.get().starts_with('{') {
            return Err(invalid("the body is no JSON object"));
        }
        let Json(body) = Json::from_bytes(text.get().as_bytes())?;
        Ok(Self(body))
    }
}

impl Socket {
    fn of(info: SocketInfo) -> Self {
        Self {
            sid: info.sid.to_string(),
            namespace: info.namespace.to_string(),
            rooms: info.rooms,
            rooms_total: info.rooms_total,
            away: info.away.is_some(),
            since: info.away.map(ago),
            transport: info.transport,
            protocol: info.protocol,
            address: info.address,
            age_seconds: info.age.map(|age| age.as_secs_f64()),
            packet_log: info.packet_log,
        }
    }
}

/// The point in time that is so long ago.
pub(super) fn ago(time: Duration) -> Timestamp {
    clock::timestamp().checked_sub(time).unwrap_or(Timestamp::MIN)
}

pub(super) fn root() -> String {
    "/".to_owned()
}

pub(super) fn read_sid(text: &str) -> Result<Sid, ApiError> {
    text.parse().map_err(|_| invalid("a sid has 20 characters, as /api/v1/sockets shows them"))
}

fn read_duration(text: &str) -> Result<Duration, ApiError> {
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| (Duration::from_secs(1)..=PACKET_LOG_MAX).contains(duration))
        .ok_or_else(|| invalid("\"for\" is a duration from \"1s\" to \"1d\", such as \"5m\""))
}

pub(super) fn invalid(message: impl fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::RequestInvalid, message)
}
