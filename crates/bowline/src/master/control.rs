//! The control socket: the API as the master answers it. Who may open the socket may ask
//! everything; what is about clients is passed on to the gateway.

use std::{collections::BTreeMap, io, os::unix::net::UnixListener, process, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bowline_names::ErrorCode;
use bowline_proto::Time;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{
    Now, Shared, Wish,
    cord::Cord,
    limit,
    plan::{GatewayState, View},
};
use crate::{
    api::{ApiError, GatewayStatus, ListenerStatus, Restarts, Status, audited},
    charter::Door,
    failure::Failure,
    services::desk,
};

/// What every request can use.
struct Desk {
    shared: Shared,
    now: watch::Receiver<Now>,
    wishes: mpsc::Sender<Wish>,
}

/// Answers on the socket for ever.
///
/// # Errors
/// Those of the system.
pub(super) fn serve(
    listener: UnixListener,
    shared: Shared,
    now: watch::Receiver<Now>,
    wishes: mpsc::Sender<Wish>,
) -> io::Result<impl Future<Output = ()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let services = desk::router(shared.post.clone());
    let desk = Arc::new(Desk { shared, now, wishes });
    let router = Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/stop", post(stop))
        .merge(services)
        .route_layer(middleware::from_fn(audited))
        .fallback(forward)
        .with_state(desk);
    Ok(async move {
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= limit::CONTROL_CONNECTIONS {
                connections.join_next().await;
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let service = TowerToHyperService::new(router.clone());
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(limit::CONTROL_IDLE)
                            .serve_connection(TokioIo::new(stream), service);
                        // A client that breaks off has told nobody anything.
                        connections.spawn(async move { drop(connection.await) });
                    }
                    // No descriptor is left, most likely: what is open may end.
                    Err(error) => {
                        tracing::warn!(%error, "the control socket cannot accept");
                        tokio::time::sleep(limit::CONTROL_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    })
}

/// What only the gateway knows of the status.
const OF_THE_GATEWAY: [&str; 7] =
    ["components", "links", "links_store", "links_gone", "alerts", "sessions", "connections"];

/// What is so: what the master knows, and what the gateway adds if it answers.
async fn status(State(desk): State<Arc<Desk>>) -> Response {
    let now = desk.now.borrow().clone();
    let (asked, theirs) = match now.cord.clone() {
        Some(cord) => (now.view.pid, ask_status(cord).await),
        None => (None, None),
    };
    // Again, since asking took its time.
    let now = desk.now.borrow().clone();
    let mut status = desk.status(&now);
    if theirs.is_none() && asked.is_some() && asked == now.view.pid {
        silence(&mut status.gateway, now.view.gateway);
    }
    let Ok(Value::Object(mut status)) = serde_json::to_value(status) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    for (key, value) in theirs.unwrap_or_default() {
        if OF_THE_GATEWAY.contains(&&*key) {
            status.insert(key, value);
        }
    }
    Json(status).into_response()
}

/// Says of a gateway that was asked and did not answer that it is silent: it was stopped, or hangs.
/// One that starts or drains has said that it is busy.
fn silence(status: &mut GatewayStatus, state: GatewayState) {
    if state.has_answered() {
        status.state = "silent".to_owned();
        status.answered = false;
    }
}

/// The gateway's own status; `None` if it does not give it in time.
async fn ask_status(mut cord: Cord) -> Option<Map<String, Value>> {
    let request = http::Request::get("http://gateway/api/v1/status").body(Bytes::new()).ok()?;
    let answer = cord.ask(request, limit::STATUS_PATIENCE).await.ok()?;
    serde_json::from_slice(answer.body()).ok().filter(|_| answer.status().is_success())
}

impl Desk {
    /// What the master knows.
    fn status(&self, now: &Now) -> Status {
        let shared = &self.shared;
        let time = shared.clock.now();
        let View { server, gateway, pid, since, restarts, last_end, next_attempt, waiting_for } =
            &now.view;
        let by_reason: BTreeMap<String, u64> =
            restarts.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect();
        let listeners = shared.listeners.iter().map(|listener| ListenerStatus {
            door: listener.door.name().to_owned(),
            address: listener.address,
            tls: now.tls && listener.door == Door::Public,
        });
        let started = |since: Time| timestamp(shared.started_unix_ms + since.as_micros() / 1_000);
        Status {
            state: server.name().to_owned(),
            management: shared.management.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            started: timestamp(shared.started_unix_ms),
            uptime_seconds: time.as_micros() / 1_000_000,
            state_dir: shared.state_dir.clone(),
            config_file: shared.config_file.clone(),
            gateway: GatewayStatus {
                state: gateway.name().to_owned(),
                pid: *pid,
                started: since.map(started),
                answered: gateway.has_answered(),
                restarts: Restarts { total: by_reason.values().sum(), by_reason },
                last_end: last_end.clone(),
                next_attempt_seconds: next_attempt.map(|at| at.since(time).as_secs_f64()),
                waiting_for: waiting_for.clone(),
            },
            listeners: listeners.collect(),
            components: Vec::new(),
            services: shared.post.statuses().borrow().to_vec(),
            links: Vec::new(),
            links_store: None,
            links_gone: Vec::new(),
            alerts: Vec::new(),
            sessions: None,
            connections: None,
        }
    }
}

/// Points beyond jiff's reach, year 9999, are its last.
fn timestamp(unix_ms: u64) -> Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// Reads the configuration again and says what that did.
async fn reload(State(desk): State<Arc<Desk>>) -> Response {
    let (tell, done) = oneshot::channel();
    let asked = desk.wishes.try_send(Wish::Reload(tell)).is_ok();
    match done.await {
        Ok(Ok(reloaded)) if asked => Json(reloaded).into_response(),
        Ok(Err(failure)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &failure),
        _ => {
            let message = "the server is stopping, or too many reloads are waiting";
            let failure = Failure::new(ErrorCode::GatewayRestarting, message);
            refuse(StatusCode::SERVICE_UNAVAILABLE, &failure)
        }
    }
}

/// Begins a drain, as SIGTERM does; asked again, cuts it.
async fn stop(State(desk): State<Arc<Desk>>) -> Response {
    // A queue that is full of wishes has one to stop among them.
    let _ = desk.wishes.try_send(Wish::Stop);
    (StatusCode::ACCEPTED, Json(json!({ "state": "draining" }))).into_response()
}

/// Asks the gateway.
async fn forward(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, limit::REQUEST_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let cord = desk.now.borrow().cord.clone();
    let Some(mut cord) = cord else { return restarting("none is running") };
    // Only the API and what is beside it: what the master alone may ask is not for others.
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if path.starts_with("/internal/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let Ok(uri) = Uri::try_from(format!("http://gateway{path}")) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut asked = http::Request::new(body);
    *asked.method_mut() = parts.method;
    *asked.uri_mut() = uri;
    // Of what the client said only this means anything; the rest was for this connection.
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = parts.headers.get(&name) {
            asked.headers_mut().insert(name, value.clone());
        }
    }
    match cord.ask(asked, limit::FORWARD_PATIENCE).await {
        Ok(answer) => answer.map(Body::from),
        Err(error) => restarting(&error.to_string()),
    }
}

fn restarting(why: &str) -> Response {
    let message = format!("the gateway cannot be asked: {why}");
    let failure = Failure::new(ErrorCode::GatewayRestarting, message);
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, &failure);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn refuse(status: StatusCode, failure: &Failure) -> Response {
    let error = ApiError::new(failure.code, &failure.message);
    (status, Json(error.body())).into_response()
}
