//! The API of services, as the master answers it on its control socket. A gateway [passes it on](super::relay)
//! from its admin listener.

use std::{
    convert::Infallible,
    fmt::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bowline_fleet::{
    crew::Handle,
    logs::Follow,
    plan::{self, Command, Outcome},
};
use bowline_names::ErrorCode;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast::error::RecvError},
    task, time,
};
use utoipa::ToSchema;

use super::{post::Post, status::ServiceStatus};
use crate::{api::ApiError, config::read_duration};

/// How far what is told of services may be behind what is so.
const MOMENT: Duration = Duration::from_millis(500);

/// Where all of it is.
pub(crate) const SERVICES: &str = "/api/v1/services";

/// How many lines of a log are told if nothing else is said.
const LINES: usize = 100;

/// The same, at most: what one reads, and some megabytes of memory.
const LINES_MAX: usize = 10_000;

/// Who may follow logs at a time: each takes a connection of the control socket, which has 32.
const FOLLOWERS: usize = 16;

/// How often a follower to whom nothing is told is told that: proxies cut what is silent.
const STILL_THERE: Duration = Duration::from_secs(15);

/// How long may be waited for what was asked.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// What an answer takes that waits for nothing: the crew takes a wish in no time.
const AT_ONCE: Duration = Duration::from_millis(50);

/// What a request needs.
#[derive(Clone)]
struct Desk {
    post: Post,
    followers: Arc<Semaphore>,
}

/// All services.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Services {
    services: Vec<ServiceStatus>,
}

/// How long is waited for what is asked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patience {
    /// A duration such as `30s`, up to `1h`; without it the answer comes at once.
    #[schema(example = "30s")]
    wait: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    /// `done`, or `pending` if it is not over yet.
    #[schema(example = "done")]
    outcome: &'static str,
    /// The same in words.
    text: String,
    /// The service as it is now; null if it has just been taken out of the configuration.
    service: Option<ServiceStatus>,
}

/// Which lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    lines: Option<usize>,
    follow: Option<String>,
}

/// Makes the routes.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(place: Post) -> Router<S> {
    let desk = Desk { post: place, followers: Arc::new(Semaphore::new(FOLLOWERS)) };
    Router::new()
        .route(SERVICES, get(services))
        .route(&format!("{SERVICES}/{{name}}"), get(service))
        .route(&format!("{SERVICES}/{{name}}/logs"), get(logs))
        .route(&format!("{SERVICES}/{{name}}/start"), post(start))
        .route(&format!("{SERVICES}/{{name}}/stop"), post(stop))
        .route(&format!("{SERVICES}/{{name}}/restart"), post(restart))
        .with_state(desk)
}

async fn services(State(desk): State<Desk>) -> Json<Services> {
    let services = desk.post.statuses().borrow().to_vec();
    Json(Services { services })
}

async fn service(
    State(desk): State<Desk>,
    Path(name): Path<String>,
) -> Result<Json<ServiceStatus>, ApiError> {
    desk.service(&name).map(Json).ok_or_else(|| unknown(&name))
}

async fn start(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, ApiError> {
    desk.carry_out(&name, Command::Start, &body).await
}

async fn stop(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, ApiError> {
    desk.carry_out(&name, Command::Stop, &body).await
}

async fn restart(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, ApiError> {
    desk.carry_out(&name, Command::Restart, &body).await
}

async fn logs(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(LogQuery { lines, follow }) = query?;
    let lines = lines.unwrap_or(LINES);
    if lines > LINES_MAX {
        let message = format!("\"lines\" is at most {LINES_MAX}");
        return Err(ApiError::new(ErrorCode::RequestInvalid, message));
    }
    let follows = follow.is_some_and(|word| !matches!(&*word, "false" | "0"));
    let place = Arc::clone(&desk.followers).try_acquire_owned();
    let place =
        place.map_err(|_| ApiError::new(ErrorCode::Busy, "too many follow logs already"))?;
    let log = desk.crew(&name)?.follow(&name, lines).await.ok_or_else(|| unknown(&name))?;
    let Follow { before, lines } = log;
    let before = task::spawn_blocking(move || before.read()).await;
    let before = match before {
        Ok(Ok(before)) => before,
        Ok(Err(error)) => return Err(unreadable(&name, &error)),
        Err(error) => return Err(unreadable(&name, &error)),
    };
    if !follows {
        let text = before.into_iter().fold(String::new(), |text, line| text + &line + "\n");
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Ok((kind, text).into_response());
    }
    let mut first = String::new();
    before.iter().for_each(|line| push_event(&mut first, line));
    let feed = Feed::new(Source { lines, _place: place }, Bytes::from(first));
    let mut response = Response::new(Body::new(feed));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Desk {
    fn service(&self, name: &str) -> Option<ServiceStatus> {
        let statuses = self.post.statuses();
        let statuses = statuses.borrow();
        statuses.iter().find(|service| service.name == name).cloned()
    }

    fn crew(&self, name: &str) -> Result<&Handle, ApiError> {
        self.post.crew().ok_or_else(|| match self.service(name) {
            Some(_) => ApiError::new(ErrorCode::Busy, "the services are about to be started"),
            None => unknown(name),
        })
    }

    async fn carry_out(
        &self,
        name: &str,
        command: Command,
        body: &[u8],
    ) -> Result<Response, ApiError> {
        let wait = wait_of(body)?;
        let outcome = self.crew(name)?.command(name, command);
        // What is not waited for goes on all the same.
        let outcome = time::timeout(wait.max(AT_ONCE), outcome).await;
        if let Ok(Outcome::Done(_)) = outcome {
            // What is told of it is a moment behind.
            let mut statuses = self.post.statuses();
            let settled = statuses.wait_for(|statuses| {
                let service = statuses.iter().find(|service| service.name == name);
                service.is_none_or(|service| settled(service, command))
            });
            let _ = time::timeout(MOMENT, settled).await;
        }
        let told = |status, outcome, text| {
            let done = Done { outcome, text, service: self.service(name) };
            Ok((status, Json(done)).into_response())
        };
        match outcome {
            Ok(Outcome::Done(text)) => told(StatusCode::OK, "done", text),
            Ok(Outcome::Failed(text)) => {
                Err(ApiError::new(ErrorCode::ServiceNotReady, format!("{name}: {text}")))
            }
            Ok(Outcome::Unknown) => Err(unknown(name)),
            Err(_) => told(StatusCode::ACCEPTED, "pending", "it is under way".to_owned()),
        }
    }
}

/// Whether a service is told to be as a command that is done has left it.
fn settled(service: &ServiceStatus, command: Command) -> bool {
    let state = service.known_state();
    match command {
        Command::Start | Command::Restart => {
            matches!(state, Some(plan::State::Ready | plan::State::Completed))
        }
        Command::Stop => state == Some(plan::State::Stopped),
    }
}

fn wait_of(body: &[u8]) -> Result<Duration, ApiError> {
    if body.is_empty() {
        return Ok(Duration::ZERO);
    }
    let invalid = |words: String| ApiError::new(ErrorCode::RequestInvalid, words);
    let patience: Patience =
        serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    let Some(wait) = patience.wait else { return Ok(Duration::ZERO) };
    let read = read_duration(&wait).ok().filter(|wait| *wait <= WAIT_MAX);
    read.ok_or_else(|| invalid("\"wait\" is a duration such as \"30s\", up to \"1h\"".to_owned()))
}

fn unknown(name: &str) -> ApiError {
    let message = format!("there is no service \"{}\"", name.escape_debug());
    ApiError::new(ErrorCode::ServiceUnknown, message)
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::LogMissing, format!("the log of {name} cannot be read: {error}"))
}

/// Writes a line of a log as an event.
fn push_event(text: &mut String, line: &str) {
    // A carriage return ends a line of the stream too.
    for part in line.split(['\r', '\n']) {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "data: {part}");
    }
    text.push('\n');
}

/// Where the pieces of a stream come from, and the place that it takes.
struct Source {
    lines: tokio::sync::broadcast::Receiver<Arc<str>>,
    _place: OwnedSemaphorePermit,
}

impl Source {
    /// Waits for the next piece; `None` when the service has no log any more.
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = String::new();
        match time::timeout(STILL_THERE, self.lines.recv()).await {
            Err(_) => text.push_str(":\n\n"),
            Ok(Ok(line)) => {
                push_event(&mut text, &line);
                // What has come meanwhile goes with it, up to what fits a packet or some.
                while text.len() < 16 * 1024
                    && let Ok(line) = self.lines.try_recv()
                {
                    push_event(&mut text, &line);
                }
            }
            Ok(Err(RecvError::Lagged(missed))) => {
                let _ = write!(text, "event: missed\ndata: {missed}\n\n");
            }
            Ok(Err(RecvError::Closed)) => return None,
        }
        Some(Bytes::from(text))
    }
}

type NextPiece = Pin<Box<dyn Future<Output = Option<(Bytes, Source)>> + Send>>;

/// A body that asks for its next piece when the one before it is out.
struct Feed(Option<NextPiece>);

impl Feed {
    fn new(source: Source, first: Bytes) -> Self {
        Self(Some(Box::pin(async move { Some((first, source)) })))
    }
}

impl hyper::body::Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        match std::task::ready!(next.as_mut().poll(cx)) {
            None => {
                self.0 = None;
                Poll::Ready(None)
            }
            Some((piece, mut source)) => {
                self.0 = Some(Box::pin(async move {
                    let piece = source.next().await?;
                    Some((piece, source))
                }));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }
}
