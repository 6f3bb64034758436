//! The AI gateway: its last requests with all their attempts, and its providers.
#![expect(unused_qualifications, reason = "what utoipa makes of `params` has them")]

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use bowline_ai::record::RequestRecord;
use bowline_names::ErrorCode;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::{IntoParams, ToSchema};

use super::{
    error::{ApiError, ErrorBody},
    sockets::{InQuery, invalid},
};
use crate::{
    ai::{Overview, is_request_id},
    gateway::Gateway,
};

/// Requests of one answer.
const REQUESTS: usize = 100;

/// The same, at most: as many as are remembered.
const REQUESTS_MAX: usize = 2_000;

/// Which requests.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// How many; 100 if it is left out.
    #[param(minimum = 1, maximum = 2_000)]
    limit: Option<usize>,
}

/// The last requests.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Requests {
    /// The latest first.
    #[schema(value_type = Vec<Object>)]
    requests: Vec<Record>,
}

/// A request and its attempts, as `bowline-ai` writes them.
#[derive(Debug)]
pub(super) struct Record(Arc<RequestRecord>);

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The last requests for AI models, with every attempt at a provider.
///
/// A request stands here when it is over.
#[utoipa::path(get, path = "/api/v1/ai/requests", operation_id = "ai_requests", tag = "observe", params(Wanted), responses(
    (status = 200, description = "The latest first", body = Requests),
    (status = 400, description = "The request is wrong", body = ErrorBody),
))]
pub(super) async fn requests(
    State(gateway): State<Arc<Gateway>>,
    InQuery(wanted): InQuery<Wanted>,
) -> Result<Json<Requests>, ApiError> {
    let limit = wanted.limit.unwrap_or(REQUESTS);
    if !(1..=REQUESTS_MAX).contains(&limit) {
        return Err(invalid(format_args!("\"limit\" is from 1 to {REQUESTS_MAX}")));
    }
    let requests = gateway.ai.shared().recent(limit).into_iter().map(Record).collect();
    Ok(Json(Requests { requests }))
}

/// One request for an AI model, by what its client was told as `x-request-id`.
#[utoipa::path(get, path = "/api/v1/ai/requests/{id}", operation_id = "ai_request", tag = "observe", params(
    ("id" = String, Path, description = "The id of the request", example = "req_00000000000000000000000000000000"),
), responses(
    (status = 200, description = "The request and its attempts", body = Object),
    (status = 400, description = "That is no id", body = ErrorBody),
    (status = 404, description = "It is not remembered, or not over yet", body = ErrorBody),
))]
pub(super) async fn request(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Record>, ApiError> {
    let Path(id) = id?;
    if !is_request_id(&id) {
        return Err(invalid(
            "an id is what clients are told as `x-request-id`: req_ and 32 digits",
        ));
    }
    gateway.ai.shared().find(&id).map(Record).map(Json).ok_or_else(|| {
        let message = format!("no request with the id {id} is remembered");
        ApiError::new(ErrorCode::AiRequestUnknown, message)
    })
}

/// The providers of AI models: permits, connections, breakers; and what keys have used.
#[utoipa::path(get, path = "/api/v1/ai/providers", operation_id = "ai_providers", tag = "observe", responses(
    (status = 200, description = "As they are now; all empty without a model", body = Overview),
))]
pub(super) async fn providers(State(gateway): State<Arc<Gateway>>) -> Json<Overview> {
    Json(gateway.ai.shared().overview())
}
