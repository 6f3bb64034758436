//! The requests of the polling transport: one lane for GETs, one for POSTs, each with a connection
//! that is used again while it is fresh.

use std::{future, sync::Arc};

use bowline_proto::{
    Time,
    client::{HttpRequest, RequestId, Response},
};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::{limit::HTTP_IDLE_MAX, target::Target};

/// The requests under way, and the connections between them. Dropped, they all end.
#[derive(Debug)]
pub(crate) struct Http {
    target: Arc<Target>,
    requests: JoinSet<Answered>,
    /// Of them POSTs.
    posts: usize,
    /// By [`lane_of`].
    idle: [Option<(Time, Lane)>; 2],
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) id: RequestId,
    pub(crate) response: Response,
    lane: usize,
    /// The connection, if it can be used again.
    connection: Option<Lane>,
}

/// One HTTP/1.1 connection.
#[derive(Debug)]
struct Lane {
    sender: http1::SendRequest<Full<Bytes>>,
    /// The one task that moves its bytes; ends with the lane.
    _connection: JoinSet<()>,
}

impl Http {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target, requests: JoinSet::new(), posts: 0, idle: [None, None] }
    }

    /// Begins a request.
    pub(crate) fn send(&mut self, now: Time, request: HttpRequest) {
        let lane = lane_of(&request);
        self.posts += lane;
        let idle = self.idle[lane].take();
        let fresh = idle.filter(|(since, _)| now.since(*since) < HTTP_IDLE_MAX);
        let target = Arc::clone(&self.target);
        self.requests.spawn(async move {
            let id = request.id;
            match perform(&target, fresh.map(|(_, lane)| lane), request).await {
                Ok((response, connection)) => Answered { id, response, lane, connection },
                Err(detail) => {
                    Answered { id, response: Response::Failed { detail }, lane, connection: None }
                }
            }
        });
    }

    /// Whether something is being sent.
    pub(crate) fn is_posting(&self) -> bool {
        self.posts > 0
    }

    /// The next request that is over; waits for ever if there is none. Nothing is lost if it is
    /// dropped.
    pub(crate) async fn next(&mut self) -> Answered {
        loop {
            match self.requests.join_next().await {
                Some(Ok(answered)) => return answered,
                // Requests neither panic nor are they aborted one by one.
                Some(Err(_)) => {}
                None => future::pending().await,
            }
        }
    }

    /// Keeps the connection of a request that is over.
    pub(crate) fn keep(&mut self, now: Time, answered: &mut Answered) {
        self.posts -= answered.lane;
        self.idle[answered.lane] = answered.connection.take().map(|lane| (now, lane));
    }
}

/// 0 for GETs, 1 for POSTs.
fn lane_of(request: &HttpRequest) -> usize {
    usize::from(request.body.is_some())
}

async fn perform(
    target: &Target,
    idle: Option<Lane>,
    request: HttpRequest,
) -> Result<(Response, Option<Lane>), String> {
    let request = to_http(target, request)?;
    if let Some(mut lane) = idle
        && lane.sender.ready().await.is_ok()
    {
        match lane.sender.send_request(request.clone()).await {
            Ok(response) => return read(target, response, lane).await,
            // It was closed before the request was written: a new connection may try again.
            Err(error) if error.is_canceled() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let stream = target.connect().await?;
    let handshake = http1::handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // Its errors are those of the request, which reports them.
        let _ = connection.await;
    });
    let mut lane = Lane { sender, _connection: tasks };
    let response = lane.sender.send_request(request).await.map_err(|error| error.to_string())?;
    read(target, response, lane).await
}

fn to_http(target: &Target, request: HttpRequest) -> Result<Request<Full<Bytes>>, String> {
    let mut builder = Request::builder()
        .method(request.method())
        .uri(&request.target)
        .header(header::HOST, &target.authority)
        .header(header::ACCEPT, "*/*");
    for (name, value) in &target.headers {
        builder = builder.header(name, value);
    }
    let body = match request.content() {
        Some((content_type, bytes)) => {
            builder = builder.header(header::CONTENT_TYPE, content_type);
            bytes.clone()
        }
        None => Bytes::new(),
    };
    builder.body(Full::new(body)).map_err(|error| format!("the request cannot be written: {error}"))
}

async fn read(
    target: &Target,
    response: http::Response<Incoming>,
    lane: Lane,
) -> Result<(Response, Option<Lane>), String> {
    let status = response.status().as_u16();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let binary =
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/octet-stream"));
    let body = Limited::new(response.into_body(), target.max_message_bytes);
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    let lane = (!lane.sender.is_closed()).then_some(lane);
    Ok((Response::Answered { status, body, binary }, lane))
}
