//! HTTP requests to one server: each connection carries one at a time and is used again while it is
//! fresh.
//!
//! A connection has no task of its own. Whoever makes a request on it moves its bytes, and while it is
//! idle nobody does: that an app has closed it is seen when it is taken out again, before anything is
//! sent. A request that is dropped takes its connection along, so that a late answer finds nobody.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bowline_proto::Time;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response,
    body::{Body as _, Incoming},
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;

use crate::{ConnectError, Options, target::Target, tls::Stream};

/// A server that HTTP requests are made to, and the path of its URL.
#[derive(Debug, Clone)]
pub struct Origin {
    pub(crate) target: Arc<Target>,
    path: String,
}

impl Origin {
    /// Reads `http://host:port/path?query`, or `https`. Of the options, those of the connection count.
    ///
    /// # Errors
    ///
    /// The URL cannot be dialled.
    pub fn parse(url: &str, options: &Options) -> Result<Self, ConnectError> {
        let (target, rest) = Target::parse(url, options)?;
        let and = if rest.query.is_empty() { "" } else { "?" };
        let path = format!("{}{and}{}", rest.namespace, rest.query);
        Ok(Self { target: Arc::new(target), path })
    }

    /// The value of `Host`.
    pub fn authority(&self) -> &str {
        &self.target.authority
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The connections to one server that are idle.
#[derive(Debug)]
pub struct Pool {
    origin: Origin,
    answer_bytes_max: usize,
    idle_max: Duration,
    /// The freshest last.
    idle: Mutex<Vec<(Time, Lane)>>,
}

/// One HTTP/1.1 connection.
#[derive(Debug)]
struct Lane {
    sender: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Connection<TokioIo<Stream>, Full<Bytes>>>>,
    ended: bool,
}

/// What a server has answered.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
}

/// Why there is no answer. The words are to be read after "the server".
#[derive(Debug)]
pub enum HttpFailure {
    /// Nothing of the request was sent.
    NotSent(String),
    /// It was sent, or a part of it may have been.
    Broken(String),
    /// The answer is larger than anybody wants to read.
    TooBig,
}

impl Pool {
    /// The connections to a server. Of an answer so many bytes are read; a connection that has been
    /// idle for longer is not used again. That must be less than the server itself allows, since a
    /// request that meets its goodbye is lost.
    pub fn new(origin: Origin, answer_bytes_max: usize, idle_max: Duration) -> Self {
        Self { origin, answer_bytes_max, idle_max, idle: Mutex::default() }
    }

    /// Where the server is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Sends a request, on a connection that is there or on a new one, and reads the whole answer.
    /// The connection comes along, to be kept. There is no deadline; dropped, the request ends with
    /// its connection.
    ///
    /// # Errors
    ///
    /// There was no answer. A request that was written, even in part, is not written again.
    pub async fn send(
        &self,
        now: Time,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(HttpAnswer, Kept), HttpFailure> {
        while let Some(mut lane) = self.take(now) {
            if !lane.is_usable().await {
                continue;
            }
            match lane.exchange(request, self.answer_bytes_max).await {
                Ok(answer) => return Ok((answer, Kept(lane.reusable()))),
                Err(Exchange::NotSent(back)) => request = *back,
                Err(Exchange::Failed(failure)) => return Err(failure),
            }
        }
        let mut lane = Lane::open(&self.origin.target).await.map_err(HttpFailure::NotSent)?;
        match lane.exchange(request, self.answer_bytes_max).await {
            Ok(answer) => Ok((answer, Kept(lane.reusable()))),
            Err(Exchange::NotSent(_)) => {
                Err(HttpFailure::NotSent("closed the connection before the request".to_owned()))
            }
            Err(Exchange::Failed(failure)) => Err(failure),
        }
    }

    /// Keeps the connection of a request that is over.
    pub fn keep(&self, now: Time, kept: Kept) {
        if let Some(lane) = kept.0 {
            self.idle().push((now, lane));
        }
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&self, now: Time) {
        let mut idle = self.idle();
        let stale = idle.partition_point(|(since, _)| now.since(*since) >= self.idle_max);
        let stale: Vec<_> = idle.drain(..stale).collect();
        drop(idle);
        drop(stale);
    }

    fn take(&self, now: Time) -> Option<Lane> {
        let (since, lane) = self.idle().pop()?;
        if now.since(since) < self.idle_max {
            return Some(lane);
        }
        // The others are older still.
        self.idle().clear();
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Time, Lane)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection of a request that is over, if it can be used again.
#[derive(Debug)]
pub struct Kept(Option<Lane>);

enum Exchange {
    NotSent(Box<Request<Full<Bytes>>>),
    Failed(HttpFailure),
}

impl Lane {
    async fn open(target: &Target) -> Result<Self, String> {
        let stream = target.connect().await.map_err(|error| format!("was not reached: {error}"))?;
        let handshake = http1::handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
        Ok(Self { sender, connection: Box::pin(connection), ended: false })
    }

    /// Whether it is still open, as far as this side can know.
    async fn is_usable(&mut self) -> bool {
        let Self { sender, connection, ended } = self;
        poll_fn(|cx| {
            poll_connection(connection, ended, cx);
            if *ended { Poll::Ready(false) } else { sender.poll_ready(cx).map(|ok| ok.is_ok()) }
        })
        .await
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        answer_bytes_max: usize,
    ) -> Result<HttpAnswer, Exchange> {
        let Self { sender, connection, ended } = self;
        let mut exchange = pin!(async {
            let sending = sender.try_send_request(request);
            let response = sending.await.map_err(|mut error| match error.take_message() {
                Some(request) => Exchange::NotSent(Box::new(request)),
                None => Exchange::Failed(broken(error.error())),
            })?;
            read(response, answer_bytes_max).await.map_err(Exchange::Failed)
        });
        poll_fn(|cx| {
            if let Poll::Ready(done) = exchange.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            poll_connection(connection, ended, cx);
            exchange.as_mut().poll(cx)
        })
        .await
    }

    /// Itself, if nothing came behind the answer and nothing is left of it.
    fn reusable(self) -> Option<Self> {
        (!self.ended && !self.sender.is_closed()).then_some(self)
    }
}

/// Moves the bytes of a connection.
fn poll_connection(
    connection: &mut Pin<Box<Connection<TokioIo<Stream>, Full<Bytes>>>>,
    ended: &mut bool,
    cx: &mut Context<'_>,
) {
    if !*ended {
        // Its error is the request's too, which reports it.
        *ended = connection.as_mut().poll(cx).is_ready();
    }
}

async fn read(response: Response<Incoming>, max: usize) -> Result<HttpAnswer, HttpFailure> {
    let (parts, mut body) = response.into_parts();
    let said = body.size_hint().exact().unwrap_or_default();
    if said > max as u64 {
        return Err(HttpFailure::TooBig);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > max {
                return Err(HttpFailure::TooBig);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(HttpAnswer { status: parts.status, headers: parts.headers, body: whole.freeze() })
}

fn broken(error: &hyper::Error) -> HttpFailure {
    let words = if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "closed the connection without a whole answer".to_owned()
    } else if error.is_parse() {
        format!("did not answer in HTTP: {error}")
    } else {
        format!("broke the connection: {error}")
    };
    HttpFailure::Broken(words)
}
