//! What has become of one client.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use bowline_names::ErrorCode;
use bowline_net::{Happened, StoryLine};
use bowline_proto::engineio::TransportName;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, ErrorBody},
    sockets::{ago, read_sid},
};
use crate::gateway::Gateway;

/// How many entries are told at most: those of a day, as one reads them.
const ENTRIES_MAX: usize = 1_000;

/// What has become of one client, as far as it is remembered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Story {
    /// The Socket.IO sid.
    #[schema(example = "AAo5Uf1vYOuVhBz9C3EV")]
    sid: String,
    /// In order of time; the last 1,000 of them.
    entries: Vec<Entry>,
    /// Whether earlier ones were left out.
    more: bool,
}

/// Something that happened to it. What is not said of it is not there.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
struct Entry {
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The shard where it happened.
    shard: u8,
    /// What happened.
    #[schema(example = "away")]
    event: &'static str,
    /// What a session was opened by: `polling` or `websocket`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    transport: Option<&'static str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "ping timeout")]
    reason: Option<&'static str>,
    /// The limit that was crossed.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    /// How long a pong took to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// What a client is told that comes back, or was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "window")]
    outcome: Option<&'static str>,
    /// How many events it was sent that it had missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<u32>,
    /// The shard that it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_shard: Option<u8>,
}

/// What has become of one client: its transports, upgrades, pings, drops and returns.
///
/// Shards remember a few thousand such things of all their clients together, so that those of long ago
/// are missing. A client that has left is told of for as long.
#[utoipa::path(get, path = "/api/v1/sockets/{sid}/story", tag = "observe", params(
    ("sid" = String, Path, description = "The Socket.IO sid", example = "AAo5Uf1vYOuVhBz9C3EV"),
), responses(
    (status = 200, description = "What is remembered, in order of time", body = Story),
    (status = 400, description = "That is no sid", body = ErrorBody),
    (status = 404, description = "Nothing is remembered of such a socket", body = ErrorBody),
))]
pub(super) async fn story(
    State(gateway): State<Arc<Gateway>>,
    sid: Result<Path<String>, PathRejection>,
) -> Result<Json<Story>, ApiError> {
    let Path(sid) = sid?;
    let mut lines = gateway.handle.story(read_sid(&sid)?).await;
    if lines.is_empty() {
        let message = format!("nothing is remembered of a socket with sid {sid}");
        return Err(ApiError::new(ErrorCode::SocketUnknown, message));
    }
    let left_out = lines.len().saturating_sub(ENTRIES_MAX);
    lines.drain(..left_out);
    let entries = lines.into_iter().map(Entry::of).collect();
    Ok(Json(Story { sid, entries, more: left_out > 0 }))
}

impl Entry {
    fn of(line: StoryLine) -> Self {
        let entry = Self { at: ago(line.ago), shard: line.shard, ..Self::default() };
        match line.happened {
            Happened::Opened(transport) => {
                let transport = match transport {
                    TransportName::Polling => "polling",
                    TransportName::WebSocket => "websocket",
                };
                Self { event: "opened", transport: Some(transport), ..entry }
            }
            Happened::Probed => Self { event: "probed", ..entry },
            Happened::Upgraded => Self { event: "upgraded", ..entry },
            Happened::UpgradeFailed(why) => {
                Self { event: "upgrade-failed", reason: Some(why.name()), ..entry }
            }
            Happened::LimitHit(limit) => {
                Self { event: "limit-hit", limit: Some(limit.path().to_owned()), ..entry }
            }
            Happened::Closed(reason) => {
                Self { event: "closed", reason: Some(reason.name()), ..entry }
            }
            Happened::PingSent => Self { event: "ping", ..entry },
            Happened::Pong { micros } => {
                let took = Duration::from_micros(micros.into()).as_secs_f64();
                Self { event: "pong", seconds: Some(took), ..entry }
            }
            Happened::ClientPing => Self { event: "client-ping", ..entry },
            Happened::RecoveryFailed(outcome) => {
                Self { event: "recovery-failed", outcome: Some(outcome.name()), ..entry }
            }
            Happened::Connected => Self { event: "connected", ..entry },
            Happened::Away(reason) => Self { event: "away", reason: Some(reason.name()), ..entry },
            Happened::ReturnRefused => Self { event: "return-refused", ..entry },
            Happened::Back => Self { event: "back", ..entry },
            Happened::CaughtUp { replayed } => {
                Self { event: "caught-up", replayed: Some(replayed), ..entry }
            }
            Happened::MovedAway => Self { event: "moved-away", ..entry },
            Happened::MovedIn { from } => {
                Self { event: "moved-in", from_shard: Some(from), ..entry }
            }
            Happened::Restored => Self { event: "restored", ..entry },
            Happened::Ended { reason, outcome } => {
                let (reason, outcome) = (Some(reason.name()), Some(outcome.name()));
                Self { event: "ended", reason, outcome, ..entry }
            }
        }
    }
}
