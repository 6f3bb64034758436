//! The API for operators and programs: `/api/v1`, `/metrics`, and the page at `/`.
//!
//! One router for three doors: the admin listener (where [`AdminDoor`] checks who asks), the
//! master's control socket (where the file says who may ask), and the cord between master and
//! gateway. docs/api.md shows it with curl, `/api/v1/openapi.json` describes it to programs.

mod ai;
mod audit;
mod door;
mod emit;
mod error;
mod figures;
mod guard;
pub(crate) mod links;
mod master;
mod page;
mod sockets;
mod status;
mod story;
mod token;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use bowline_names::ErrorCode;
use bytes::Bytes;
use http::{Method, Uri};
use http_body_util::Full;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::{
    audit::record as audited,
    door::AdminDoor,
    error::{ApiError, ErrorBody},
    status::{GatewayStatus, ListenerStatus, Restarts, Status},
    token::Tokens,
};
use crate::{gateway::Gateway, services::relay};

/// What the description begins with.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bowline",
        description = "The API for operators. On the admin listener it takes the token of \
                       `admin.token-file`, if there is one; on the control socket it takes none. \
                       Whatever changes something is sent as `application/json`.",
        license(name = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "observe", description = "What is so"),
        (name = "act", description = "What can be changed"),
    ),
    components(schemas(ErrorBody)),
    modifiers(&Token),
)]
struct Description;

/// Where the token goes, which is asked for only where there is one.
struct Token;

impl Modify for Token {
    fn modify(&self, description: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let bearer = bearer.description(Some("What stands in the file of `admin.token-file`."));
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
        let asked = SecurityRequirement::new::<_, [&str; 0], &str>("token", []);
        description.security = Some(vec![SecurityRequirement::default(), asked]);
    }
}

/// Makes the router. It asks nobody who he is: that is for the doors.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .route("/health/{check}", get(health))
        .fallback(not_found)
        .method_not_allowed_fallback(method_refused)
        .layer(middleware::from_fn(audit::record))
        .with_state(gateway)
}

/// Every path that is described.
fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(page::page))
        .routes(routes!(figures::text))
        .routes(routes!(status::status))
        .routes(routes!(status::components))
        .routes(routes!(figures::json))
        .routes(routes!(sockets::sockets))
        .routes(routes!(story::story))
        .routes(routes!(sockets::rooms))
        .routes(routes!(sockets::disconnect))
        .routes(routes!(emit::emit))
        .routes(routes!(emit::join))
        .routes(routes!(emit::leave))
        .routes(routes!(sockets::packet_logs))
        .routes(routes!(ai::requests))
        .routes(routes!(ai::request))
        .routes(routes!(ai::providers))
        .routes(routes!(relay::services))
        .routes(routes!(relay::service))
        .routes(routes!(relay::logs))
        .routes(routes!(relay::start))
        .routes(routes!(relay::stop))
        .routes(routes!(relay::restart))
        .routes(routes!(links::links))
        .routes(routes!(links::trace))
        .routes(routes!(links::link))
        .routes(routes!(links::probe))
        .routes(routes!(links::renew))
        .routes(routes!(links::send))
        .routes(routes!(links::drop_messages))
        .routes(routes!(links::parked))
        .routes(routes!(links::retry))
        .routes(routes!(master::reload))
        .routes(routes!(master::stop))
        .routes(routes!(openapi))
}

fn description() -> openapi::OpenApi {
    routes().into_openapi()
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "observe", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object),
))]
async fn openapi() -> Json<openapi::OpenApi> {
    Json(description())
}

/// `/health/*` as on the listeners, for the master and the control socket; with error texts.
async fn health(State(gateway): State<Arc<Gateway>>, Path(check): Path<String>) -> Response {
    match gateway.handle.health(&format!("/health/{check}"), true).await {
        Some(answer) => answer.map(|body: Bytes| axum::body::Body::new(Full::new(body))),
        None => nothing_at(&format!("/health/{check}")).into_response(),
    }
}

async fn not_found(uri: Uri) -> ApiError {
    nothing_at(uri.path())
}

fn nothing_at(path: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format_args!("there is nothing at {path}"))
}

async fn method_refused(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(ErrorCode::MethodRefused, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Every path with its methods, as docs/api.md lists them.
    const ALL: [(&str, &str); 34] = [
        ("/", "get"),
        ("/api/v1/ai/providers", "get"),
        ("/api/v1/ai/requests", "get"),
        ("/api/v1/ai/requests/{id}", "get"),
        ("/api/v1/components", "get"),
        ("/api/v1/disconnect", "post"),
        ("/api/v1/emit", "post"),
        ("/api/v1/join", "post"),
        ("/api/v1/leave", "post"),
        ("/api/v1/links", "get"),
        ("/api/v1/links/trace/{id}", "get"),
        ("/api/v1/links/{name}", "get"),
        ("/api/v1/links/{name}/drop", "post"),
        ("/api/v1/links/{name}/parked", "get"),
        ("/api/v1/links/{name}/probe", "post"),
        ("/api/v1/links/{name}/renew", "post"),
        ("/api/v1/links/{name}/retry", "post"),
        ("/api/v1/links/{name}/send", "post"),
        ("/api/v1/metrics", "get"),
        ("/api/v1/openapi.json", "get"),
        ("/api/v1/packet-logs", "put"),
        ("/api/v1/reload", "post"),
        ("/api/v1/rooms", "get"),
        ("/api/v1/services", "get"),
        ("/api/v1/services/{name}", "get"),
        ("/api/v1/services/{name}/logs", "get"),
        ("/api/v1/services/{name}/restart", "post"),
        ("/api/v1/services/{name}/start", "post"),
        ("/api/v1/services/{name}/stop", "post"),
        ("/api/v1/sockets", "get"),
        ("/api/v1/sockets/{sid}/story", "get"),
        ("/api/v1/status", "get"),
        ("/api/v1/stop", "post"),
        ("/metrics", "get"),
    ];

    #[test]
    fn the_description_lists_every_path() {
        let description = serde_json::to_value(description()).unwrap();
        let mut found = BTreeSet::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation["summary"].as_str().is_some_and(|words| words.ends_with('.')));
                found.insert((path.clone(), method.clone()));
            }
        }
        let all = ALL.map(|(path, method)| (path.to_owned(), method.to_owned()));
        assert_eq!(found, BTreeSet::from(all));
    }

    #[test]
    fn every_schema_that_is_referred_to_is_there() {
        let description = serde_json::to_value(description()).unwrap();
        let mut open = vec![&description];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(description.pointer(pointer).is_some(), "{reference}");
                    }
                    open.extend(members.values());
                }
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
    }
}
