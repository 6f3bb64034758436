//! Links: how they are, what became of a message, and what can be asked of them.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use bowline_link::{RenewAnswer, SendFailure};
use bowline_names::ErrorCode;
use bowline_proto::keeper::ProbeOutcome;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use super::{
    error::{ApiError, ErrorBody},
    sockets::invalid,
};
use crate::{
    clock,
    gateway::Gateway,
    links::{
        message_to_service,
        status::{GoneStatus, LinkStatus, ParkedStatus, StoreStatus, TraceStep},
        unsaid_code,
        words::farewell,
    },
};

/// Where all of it is.
pub(crate) const LINKS: &str = "/api/v1/links";

/// How long an answer may take: a new connection is opened, proved, and the old one closed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(65);

/// The longest id of a message.
const ID_MAX: usize = 1_024;

/// The messages that were put aside that are listed at once.
const PARKED_MAX: usize = 1_000;

/// All links.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Links {
    links: Vec<LinkStatus>,
    /// Where messages are kept until bots have confirmed them; null without links.
    store: Option<StoreStatus>,
    /// Links that are not configured any more and have messages still.
    gone: Vec<GoneStatus>,
}

/// What became of one message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Trace {
    /// The service's id of the message.
    id: String,
    /// The oldest first.
    steps: Vec<TraceStep>,
}

/// How a routing round trip went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Probed {
    /// `ok`, `lost`, `not-made`, or `impossible` for a link that is off, or has no probe or no connection; `text` says
    /// which.
    #[schema(value_type = String, example = "ok")]
    outcome: &'static str,
    /// The same in words.
    text: String,
    /// How long it took.
    seconds: f64,
}

/// How a renewal went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Renewed {
    /// `renewed` or `not-renewed`.
    #[schema(value_type = String, example = "renewed")]
    outcome: &'static str,
    /// The same in words.
    text: String,
    /// Since it was asked for; null if it was not renewed.
    seconds: Option<f64>,
}

/// What was dropped.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Dropped {
    /// How many messages.
    dropped: u64,
}

/// The messages of a link that were put aside.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Parked {
    /// What has been so for longest first; at most 1,000.
    messages: Vec<ParkedStatus>,
}

/// What is offered again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    /// The service's id of the message; all that were put aside without it.
    id: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Retried {
    /// How many messages wait again.
    retried: u64,
}

/// What the service is told.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Saying {
    /// For `websocket` a text, JSON, or `{"$binary":"BASE64"}`; for `socketio` the event and its arguments in an array; for
    /// `webex` what is posted to /messages.
    #[schema(value_type = Value)]
    data: Box<RawValue>,
    /// The id of the message that this answers.
    reply_to: Option<String>,
    /// Whether the service's answer is waited for: the ack of a Socket.IO event, or what /messages answers.
    #[serde(default)]
    ask: bool,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Said {
    /// What the service has answered; null if it was not asked for.
    #[schema(value_type = Value)]
    answer: Value,
}

/// All links: state, how long ago each level was proved, connection, bot, messages.
#[utoipa::path(get, path = "/api/v1/links", operation_id = "links", tag = "observe", responses(
    (status = 200, description = "By name; none without [links]", body = Links),
    (status = 503, description = "The gateway has just begun, and does not know them yet", body = ErrorBody),
))]
pub(super) async fn links(State(gateway): State<Arc<Gateway>>) -> Result<Json<Links>, ApiError> {
    known(&gateway)?;
    let links = gateway.links.view().iter().map(LinkStatus::of).collect();
    let gone = gateway.links.gone().into_iter().map(GoneStatus::of).collect();
    Ok(Json(Links { links, store: gateway.links.store().map(StoreStatus::of), gone }))
}

/// One link.
#[utoipa::path(get, path = "/api/v1/links/{name}", operation_id = "link", tag = "observe", params(
    ("name" = String, Path, description = "Its name in [links]", example = "barnacles"),
), responses(
    (status = 200, description = "As it is now", body = LinkStatus),
    (status = 404, description = "There is no such link", body = ErrorBody),
    (status = 503, description = "The gateway has just begun, and does not know them yet", body = ErrorBody),
))]
pub(super) async fn link(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<LinkStatus>, ApiError> {
    let Path(name) = name?;
    known(&gateway)?;
    let views = gateway.links.view();
    let view = views.iter().find(|view| view.name == name);
    view.map(LinkStatus::of).map(Json).ok_or_else(|| unknown(&gateway, &name))
}

/// Refuses to say of a gateway that has just begun that it has no links.
fn known(gateway: &Gateway) -> Result<(), ApiError> {
    if gateway.links.are_known() {
        return Ok(());
    }
    let message = "the gateway has just begun and has not read its links yet";
    Err(ApiError::new(ErrorCode::GatewayRestarting, message.to_owned()))
}

/// What became of a message: its arrival, the hand-over to the bot, the confirmation, with times.
///
/// Messages are remembered for 24 hours after they were confirmed, and for 7 days when they were put aside.
#[utoipa::path(get, path = "/api/v1/links/trace/{id}", operation_id = "link_trace", tag = "observe", params(
    ("id" = String, Path, description = "The service's id of the message; of Webex the UUID, or the public id that has it inside", example = "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
), responses(
    (status = 200, description = "The oldest first", body = Trace),
    (status = 404, description = "Nothing is known of such a message", body = ErrorBody),
))]
pub(super) async fn trace(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Trace>, ApiError> {
    let Path(id) = id?;
    let steps = match gateway.links.running() {
        Some(links) if id.len() <= ID_MAX => links.trace(&id).await,
        _ => Vec::new(),
    };
    if steps.is_empty() {
        let shown: String = id.chars().take(100).collect();
        let message = format!("nothing is known of a message \"{}\"", shown.escape_debug());
        return Err(ApiError::new(ErrorCode::LinkMessageUnknown, message));
    }
    Ok(Json(Trace { id, steps: steps.into_iter().map(TraceStep::of).collect() }))
}

/// Makes a routing round trip now: something goes to the service that has to come back over the connection.
#[utoipa::path(post, path = "/api/v1/links/{name}/probe", operation_id = "probe_link", tag = "act", params(
    ("name" = String, Path, description = "Its name in [links]", example = "barnacles"),
), responses(
    (status = 200, description = "How it went; one that is lost leads to a renewal", body = Probed),
    (status = 404, description = "There is no such link", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
))]
pub(super) async fn probe(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Probed>, ApiError> {
    let Path(name) = name?;
    let links = gateway.links.running().ok_or_else(|| unknown(&gateway, &name))?;
    let answer = links.probe(&name).await.map_err(|_| unknown(&gateway, &name))?;
    let (outcome, text) = match answer.outcome {
        ProbeOutcome::Ok => ("ok", "it came back".to_owned()),
        ProbeOutcome::Lost => {
            ("lost", "it did not come back: messages may not reach this link".to_owned())
        }
        ProbeOutcome::NotMade(words) => ("not-made", words),
        ProbeOutcome::Impossible(words) => ("impossible", words),
    };
    Ok(Json(Probed { outcome, text, seconds: answer.took.as_secs_f64() }))
}

/// Opens a new connection, proves it, and closes the old one. No message is lost, and the bot does not notice.
#[utoipa::path(post, path = "/api/v1/links/{name}/renew", operation_id = "renew_link", tag = "act", params(
    ("name" = String, Path, description = "Its name in [links]", example = "barnacles"),
), responses(
    (status = 200, description = "How it went; the old connection stays if the new one is not proved", body = Renewed),
    (status = 404, description = "There is no such link", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
))]
pub(super) async fn renew(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Renewed>, ApiError> {
    let Path(name) = name?;
    let links = gateway.links.running().ok_or_else(|| unknown(&gateway, &name))?;
    let answer = links.renew(&name).await.map_err(|_| unknown(&gateway, &name))?;
    Ok(Json(match answer {
        RenewAnswer::Renewed { took, had_one } => Renewed {
            outcome: "renewed",
            text: match had_one {
                true => "the new connection is proved, and the old one is closed",
                false => "there is a connection again, and it is proved",
            }
            .to_owned(),
            seconds: Some(took.as_secs_f64()),
        },
        RenewAnswer::NotRenewed { words } => {
            Renewed { outcome: "not-renewed", text: words, seconds: None }
        }
    }))
}

/// Says something to the service, as the bot of the link would.
#[utoipa::path(post, path = "/api/v1/links/{name}/send", operation_id = "send_over_link", tag = "act", params(
    ("name" = String, Path, description = "Its name in [links]", example = "barnacles"),
), request_body = Saying, responses(
    (status = 200, description = "It went out; with `ask`, what the service has answered", body = Said),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "There is no such link", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
    (status = 503, description = "It did not go out, and is not kept", body = ErrorBody),
    (status = 504, description = "It was sent, and no answer came in time", body = ErrorBody),
))]
pub(super) async fn send(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Json<Said>, ApiError> {
    let Path(name) = name?;
    let saying: Saying = serde_json::from_slice(&body).map_err(invalid)?;
    let links = gateway.links.running().ok_or_else(|| unknown(&gateway, &name))?;
    let config = Arc::clone(&gateway.config.borrow());
    let link = config.links.all.0.iter().find(|(known, _)| *known == name);
    let (_, link) = link.ok_or_else(|| unknown(&gateway, &name))?;
    let outgoing =
        message_to_service(link.profile, saying.data.get(), saying.reply_to.as_deref(), saying.ask);
    let outgoing = outgoing.map_err(invalid)?;
    match links.send(&name, outgoing).await {
        Ok(answer) => {
            // What is no JSON is told as the text that it is.
            let text = || Value::String(String::from_utf8_lossy(&answer).into_owned());
            let value = serde_json::from_slice(&answer).unwrap_or_else(|_| text());
            Ok(Json(Said { answer: if answer.is_empty() { Value::Null } else { value } }))
        }
        Err(SendFailure::Unknown(_)) => Err(unknown(&gateway, &name)),
        Err(SendFailure::Failed(unsaid)) => {
            Err(ApiError::new(unsaid_code(&unsaid), unsaid.words()))
        }
    }
}

/// Lists the messages of a link that were put aside: offered as often as they may be, or refused by the bot.
#[utoipa::path(get, path = "/api/v1/links/{name}/parked", operation_id = "parked_messages", tag = "observe", params(
    ("name" = String, Path, description = "Its name in [links]", example = "barnacles"),
), responses(
    (status = 200, description = "They are kept for 7 days", body = Parked),
    (status = 404, description = "There is no such link", body = ErrorBody),
    (status = 503, description = "The gateway has just begun, and does not know its links yet", body = ErrorBody),
))]
pub(super) async fn parked(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Parked>, ApiError> {
    let Path(name) = name?;
    known(&gateway)?;
    let links = gateway.links.running().ok_or_else(|| unknown(&gateway, &name))?;
    let parked = links.parked(&name, PARKED_MAX).await;
    if parked.is_empty() && !gateway.links.view().iter().any(|view| view.name == name) {
        return Err(unknown(&gateway, &name));
    }
    Ok(Json(Parked { messages: parked.into_iter().map(ParkedStatus::of).collect() }))
}

/// Has messages that were put aside offered again, as if they never had been: all of a link, or one.
#[utoipa::path(post, path = "/api/v1/links/{name}/retry", operation_id = "retry_messages", tag = "act", params(
    ("name" = String, Path, description = "Its name in [links]", example = "barnacles"),
), request_body = Retry, responses(
    (status = 200, description = "They wait for the bot again", body = Retried),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "There is no such link, or no such message of it is put aside", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
    (status = 503, description = "The store does not do it now, or not for all of them", body = ErrorBody),
))]
pub(super) async fn retry(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Json<Retried>, ApiError> {
    let Path(name) = name?;
    let Retry { id } = if body.is_empty() {
        Retry::default()
    } else {
        serde_json::from_slice(&body).map_err(invalid)?
    };
    known(&gateway)?;
    let links = gateway.links.running().ok_or_else(|| unknown(&gateway, &name))?;
    let retried = links.offer_again(&name, id.as_deref()).await;
    match (retried.map_err(|_| unknown(&gateway, &name))?, id) {
        (None, _) => {
            let message = "the store does not write down just now that messages wait again";
            Err(ApiError::new(ErrorCode::Busy, message))
        }
        (Some(0), Some(id)) => {
            let shown: String = id.chars().take(100).collect();
            let message = format!("no message \"{}\" of {name} is put aside", shown.escape_debug());
            Err(ApiError::new(ErrorCode::LinkMessageUnknown, message))
        }
        (Some(retried), _) => Ok(Json(Retried { retried })),
    }
}

/// Drops the messages of a link that is not configured any more: those that wait, and those that were put aside.
///
/// They are known for 24 more hours, so that the service does not bring them again.
#[utoipa::path(post, path = "/api/v1/links/{name}/drop", operation_id = "drop_messages", tag = "act", params(
    ("name" = String, Path, description = "The name that it had in [links]", example = "larry"),
), responses(
    (status = 200, description = "They are dropped", body = Dropped),
    (status = 404, description = "There is nothing of such a link", body = ErrorBody),
    (status = 409, description = "The link is configured: its messages are its bot's", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
))]
pub(super) async fn drop_messages(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Dropped>, ApiError> {
    let Path(name) = name?;
    known(&gateway)?;
    if gateway.config.borrow().links.all.0.iter().any(|(known, _)| *known == name) {
        let message = format!("the link \"{name}\" is configured");
        return Err(ApiError::new(ErrorCode::LinkKept, message));
    }
    let links = gateway.links.running().ok_or_else(|| unknown(&gateway, &name))?;
    match links.let_go(&name).await {
        0 => Err(unknown(&gateway, &name)),
        dropped => {
            tracing::warn!(link = name, dropped, "messages of a link that is gone are dropped");
            Ok(Json(Dropped { dropped }))
        }
    }
}

/// That there is no such link: what is left of it, or which one was meant.
fn unknown(gateway: &Gateway, name: &str) -> ApiError {
    let mut message = format!("there is no link \"{}\"", name.escape_debug());
    let gone = gateway.links.gone().into_iter().find(|gone| gone.link == name);
    let config = gateway.config.borrow();
    if let Some(gone) = gone {
        message = farewell(&GoneStatus::of(gone), clock::timestamp());
    } else if let Some(nearest) = config.links.nearest(name) {
        message.push_str(&format!("; did you mean \"{nearest}\"?"));
    }
    ApiError::new(ErrorCode::LinkUnknown, message)
}
