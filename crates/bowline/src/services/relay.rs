//! The API of services on the admin listener of a gateway: each request goes to the control socket of the
//! master, which looks after them, and its answer comes back as it is made.
//!
//! The control socket it is, and not the cord or a second pair of sockets: the cord is the master's to ask on,
//! and what is asked here has its limits, its streams and its words there already.

use std::{
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bowline_names::ErrorCode;
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::Full;
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{
    desk::{Done, Patience, SERVICES, Services},
    status::ServiceStatus,
};
use crate::{
    api::{ApiError, ErrorBody},
    gateway::Gateway,
};

/// What an answer may take: what may be waited for, and some.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3_610);

/// The longest request.
const REQUEST_BYTES: usize = 64 << 10;

/// What goes on while a stream is read.
type Driving = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// All services: state, process, what is awaited, how they ended.
#[utoipa::path(get, path = "/api/v1/services", operation_id = "services", tag = "observe", responses(
    (status = 200, description = "By name", body = Services),
    (status = 503, description = "The master does not answer", body = ErrorBody),
))]
pub(crate) async fn services(state: State<Arc<Gateway>>, request: Request) -> Response {
    relay(state, request).await
}

/// One service.
#[utoipa::path(get, path = "/api/v1/services/{name}", operation_id = "service", tag = "observe", params(
    ("name" = String, Path, description = "Its name in [services]", example = "api"),
), responses(
    (status = 200, description = "As it is now", body = ServiceStatus),
    (status = 404, description = "There is no such service", body = ErrorBody),
))]
pub(crate) async fn service(state: State<Arc<Gateway>>, request: Request) -> Response {
    relay(state, request).await
}

/// The last lines of a service's log, and with `follow` those that come from then on.
///
/// With `follow` the answer is a stream of events: each line is one; an event `missed` says how many lines a
/// reader was too slow for.
#[utoipa::path(get, path = "/api/v1/services/{name}/logs", operation_id = "service_logs", tag = "observe", params(
    ("name" = String, Path, description = "Its name in [services]", example = "api"),
    ("lines" = Option<u32>, Query, description = "How many of the last lines; 100 if it is not said, 10,000 at most"),
    ("follow" = Option<bool>, Query, description = "Whether to go on"),
), responses(
    (status = 200, description = "Lines of text, or `text/event-stream` with `follow`", content_type = "text/plain", body = String),
    (status = 400, description = "A parameter is wrong", body = ErrorBody),
    (status = 404, description = "There is no such service", body = ErrorBody),
))]
pub(crate) async fn logs(state: State<Arc<Gateway>>, request: Request) -> Response {
    relay(state, request).await
}

/// Starts a service, and what it needs.
#[utoipa::path(post, path = "/api/v1/services/{name}/start", operation_id = "start_service", tag = "act", params(
    ("name" = String, Path, description = "Its name in [services]", example = "api"),
), request_body = Patience, responses(
    (status = 200, description = "It is ready, or has completed", body = Done),
    (status = 202, description = "It is under way", body = Done),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "There is no such service", body = ErrorBody),
    (status = 409, description = "It does not come up; it is tried again as its table says", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
    (status = 503, description = "The master does not answer", body = ErrorBody),
))]
pub(crate) async fn start(state: State<Arc<Gateway>>, request: Request) -> Response {
    relay(state, request).await
}

/// Stops a service, until somebody starts it.
#[utoipa::path(post, path = "/api/v1/services/{name}/stop", operation_id = "stop_service", tag = "act", params(
    ("name" = String, Path, description = "Its name in [services]", example = "api"),
), request_body = Patience, responses(
    (status = 200, description = "Nothing of it is left", body = Done),
    (status = 202, description = "It is under way", body = Done),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "There is no such service", body = ErrorBody),
    (status = 409, description = "It does not end", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
    (status = 503, description = "The master does not answer", body = ErrorBody),
))]
pub(crate) async fn stop(state: State<Arc<Gateway>>, request: Request) -> Response {
    relay(state, request).await
}

/// Starts a service anew; with `overlap` the old one goes when the new one is ready.
#[utoipa::path(post, path = "/api/v1/services/{name}/restart", operation_id = "restart_service", tag = "act", params(
    ("name" = String, Path, description = "Its name in [services]", example = "api"),
), request_body = Patience, responses(
    (status = 200, description = "The new one is ready", body = Done),
    (status = 202, description = "It is under way", body = Done),
    (status = 400, description = "The request is wrong", body = ErrorBody),
    (status = 404, description = "There is no such service", body = ErrorBody),
    (status = 409, description = "The new one does not come up; with `overlap` the old one stays", body = ErrorBody),
    (status = 415, description = "It is no JSON", body = ErrorBody),
    (status = 503, description = "The master does not answer", body = ErrorBody),
))]
pub(crate) async fn restart(state: State<Arc<Gateway>>, request: Request) -> Response {
    relay(state, request).await
}

async fn relay(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let Some(place) = &gateway.charter.state_dir else {
        let words = "this server has no control socket, and looks after no services";
        return ApiError::new(ErrorCode::ControlSilent, words).into_response();
    };
    match ask(&place.join("control.sock"), request).await {
        Ok(response) => response,
        Err(error) => {
            let message = format!("the master does not answer: {error}");
            ApiError::new(ErrorCode::ControlSilent, message).into_response()
        }
    }
}

/// Has the master restart a service, without waiting for it.
///
/// # Errors
/// The master does not answer, or will not.
pub(crate) async fn restart_of(
    place: &Path,
    service: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let request = Request::post(format!("{SERVICES}/{service}/restart"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{}"))?;
    let response = ask(&place.join("control.sock"), request).await?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("it answered {status}").into()) }
}

async fn ask(
    socket: &Path,
    request: Request,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, REQUEST_BYTES).await?;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut asked = http::Request::builder()
        .method(head.method)
        .uri(target)
        .header(header::HOST, HeaderValue::from_static("localhost"))
        .body(Full::new(body))?;
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        asked.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driving: Driving = Box::pin(connection);
    let mut answer = Box::pin(sender.send_request(asked));
    let response = tokio::select! {
        response = &mut answer => response?,
        ended = &mut driving => {
            ended?;
            answer.await?
        }
    };
    let (mut head, body) = response.into_parts();
    // These were for that connection.
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Body::new(Relayed { body, driving: Some(driving) })))
}

/// A body that comes over a connection of its own, which is driven as it is read.
struct Relayed {
    body: Incoming,
    driving: Option<Driving>,
}

impl hyper::body::Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(driving) = &mut self.driving
            && driving.as_mut().poll(cx).is_ready()
        {
            // How it ended the body says.
            self.driving = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}
