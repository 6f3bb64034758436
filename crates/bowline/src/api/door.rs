//! The admin listener: the guard, and a way from a shard's thread to the office.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use axum::response::IntoResponse as _;
use bowline_names::ErrorCode;
use bowline_net::{AdminAnswer, AdminService, BodySender, HttpBody, HttpResponse};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    runtime,
    sync::{oneshot, watch},
    time,
};
use tower::ServiceExt as _;

use super::{
    audit::{self, Caller},
    emit::EMIT,
    error::ApiError,
    guard::Guard,
    links,
    token::Tokens,
};
use crate::{
    clock::Clock,
    config::Config,
    emit::limit,
    failure::Failure,
    gateway::Gateway,
    services::{desk::SERVICES, relay},
};

/// How long an answer may take: longer than the probe of `/health/websocket`.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is passed on as it is made.
const STREAM: &str = "text/event-stream";

/// Pieces of a stream that wait for an operator who reads slowly.
const STREAM_PIECES: usize = 8;

/// Headers of every answer: what a browser shall not do with it.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The page has a style of its own and nothing else, and stands in no frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Answers what comes to the admin listener. Made before the server is bound, which needs it;
/// [opened](Self::open) when the server is there, which it needs.
#[derive(Clone)]
pub(crate) struct AdminDoor(Arc<Inner>);

struct Inner {
    office: runtime::Handle,
    clock: Clock,
    guard: Mutex<Guard>,
    /// Read from `admin.token-file`, if there is one.
    tokens: RwLock<Option<Arc<Tokens>>>,
    router: OnceLock<axum::Router>,
}

impl AdminDoor {
    /// Reads the tokens, and reads them again with every reload. `office` is where requests are
    /// answered.
    ///
    /// # Errors
    /// When the file with the token cannot be used. A gateway that takes the place of another, so
    /// not the `first`, lets nobody in here until it can: its clients do not wait for operators.
    pub(crate) fn new(
        office: &runtime::Handle,
        config: watch::Receiver<Arc<Config>>,
        first: bool,
    ) -> Result<Self, Failure> {
        let path = config.borrow().admin.token_file.clone();
        let tokens = match read(path) {
            Ok(tokens) => tokens.map(Arc::new),
            Err(why) if first => return Err(Failure::new(ErrorCode::AdminTokenUnreadable, why)),
            Err(error) => {
                let words = "no operator gets in: the file of the admin token is unusable";
                tracing::error!(error, "{words}");
                Some(Arc::new(Tokens::none()))
            }
        };
        let inner = Arc::new(Inner {
            office: office.clone(),
            clock: Clock::start(),
            guard: Mutex::new(Guard::new(own_names())),
            tokens: RwLock::new(tokens),
            router: OnceLock::new(),
        });
        // It ends with the configuration's other end, which is the gateway's.
        drop(office.spawn(follow(Arc::clone(&inner), config)));
        Ok(Self(inner))
    }

    /// Lets requests in. Those before were told to come again.
    pub(crate) fn open(&self, gateway: Arc<Gateway>) {
        // A second gateway in one process there is not.
        let _ = self.0.router.set(super::router(gateway));
    }
}

impl AdminService for AdminDoor {
    fn call(&self, peer: SocketAddr, request: Request<Bytes>) -> AdminAnswer {
        // A task of the office, so that large answers are made on its threads and not on a shard's.
        let (tell, told) = oneshot::channel();
        drop(self.0.office.spawn(answer(Arc::clone(&self.0), peer, request, tell)));
        Box::pin(async move {
            told.await.unwrap_or_else(|_| {
                tracing::error!("a request to the admin listener could not be answered");
                let mut response = Response::new(HttpBody::from(Bytes::new()));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            })
        })
    }
}

/// Answers a request, and goes on for as long as its answer is a stream that is read.
async fn answer(
    door: Arc<Inner>,
    peer: SocketAddr,
    request: Request<Bytes>,
    mut tell: oneshot::Sender<HttpResponse>,
) {
    let (mut head, body) = request.into_parts();
    let response = match door.check(peer, &head) {
        Err(error) => {
            audit::refused(peer, &head.method, head.uri.path(), error.status(), error.code);
            error.into_response()
        }
        Ok(router) => {
            head.extensions.insert(Caller { peer });
            let patience = match head.uri.path() {
                EMIT => limit::PATIENCE,
                path if path.starts_with(SERVICES) => relay::PATIENCE,
                path if path.starts_with(links::LINKS) => links::PATIENCE,
                _ => PATIENCE,
            };
            let request = Request::from_parts(head, axum::body::Body::new(Full::new(body)));
            // What takes that long is not waited for when nobody reads it: it goes on without.
            let may_leave = patience == relay::PATIENCE;
            let answered = tokio::select! {
                answered = time::timeout(patience, router.oneshot(request)) => answered,
                () = tell.closed(), if may_leave => return,
            };
            match answered {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => ApiError::new(ErrorCode::Busy, "a shard does not answer").into_response(),
            }
        }
    };
    let (mut head, body) = response.into_parts();
    for (name, value) in HEADERS {
        head.headers.insert(name, HeaderValue::from_static(value));
    }
    let streams = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == STREAM);
    if streams {
        let (sender, whole) = HttpBody::stream(STREAM_PIECES);
        // Whoever left before it began is noticed at once.
        let _ = tell.send(Response::from_parts(head, whole));
        return pass_on(body, sender).await;
    }
    // The other bodies are in memory, or come from the master: what breaks is cut short.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let _ = tell.send(Response::from_parts(head, HttpBody::from(body)));
}

/// Sends what a body says, piece by piece, until it is over or nobody reads it any more.
async fn pass_on(mut body: axum::body::Body, sender: BodySender) {
    loop {
        let piece = tokio::select! {
            piece = body.frame() => piece,
            () = sender.left() => return,
        };
        let data = match piece {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            // A stream of events may end anywhere: whoever reads it comes again.
            Some(Err(_)) | None => break,
        };
        if sender.send(data).await.is_err() {
            return;
        }
    }
    let _ = sender.finish().await;
}

impl Inner {
    fn check(
        &self,
        peer: SocketAddr,
        head: &http::request::Parts,
    ) -> Result<axum::Router, ApiError> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.check(self.clock.now(), peer.ip(), head, tokens.as_deref())?;
        let starting = || ApiError::new(ErrorCode::Busy, "the gateway is starting");
        self.router.get().cloned().ok_or_else(starting)
    }
}

/// Reads the tokens whenever the configuration was read again: the file may say something else
/// although its path is the same.
async fn follow(door: Arc<Inner>, mut config: watch::Receiver<Arc<Config>>) {
    while config.changed().await.is_ok() {
        let path = config.borrow_and_update().admin.token_file.clone();
        match read(path) {
            Ok(tokens) => {
                let mut place = door.tokens.write().unwrap_or_else(PoisonError::into_inner);
                *place = tokens.map(Arc::new);
            }
            Err(error) => {
                tracing::error!(error, "the admin token stays what it was: its file is unusable");
            }
        }
    }
}

fn read(path: Option<PathBuf>) -> Result<Option<Tokens>, String> {
    path.map(|path| Tokens::read(&path)).transpose()
}

/// The name that the machine gives itself.
fn own_names() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    (!name.is_empty()).then_some(name)
}
