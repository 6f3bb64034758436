//! The HTTP of a link: requests to whatever server, on connections that are not trusted for long.
//!
//! Which connection carries a request, what is sent again and what is closed, is decided by
//! [`keeper::Leg`](bowline_proto::keeper::Leg); here are the connections. Each is HTTP/1.1 and has a task that moves its
//! bytes, so that the end of one that is idle is seen when it comes. A request that is dropped, or the body of its
//! answer, ends its connection.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bowline_proto::keeper::{self, Answered, LegConfig, LegId, Retry, Safety, Take};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    ConnectError, Options, Proxy, Trust,
    clock::Clock,
    lanes::words,
    limit::{HTTP1_BUFFER_BYTES, LEG_CONNECTIONS_MAX, LEG_READY_MAX},
    target::Target,
    tls::Tls,
};

/// How the requests of a link are made.
#[derive(Debug, Clone)]
pub struct LegOptions {
    /// The proxy on the way to every server. Default none.
    pub proxy: Option<Proxy>,
    /// Which servers are believed. Default: those the operating system trusts.
    pub trust: Trust,
    /// From nothing to a connection, TLS included. Default 10 s.
    pub connect_timeout: Duration,
    /// From the request to the head of its answer, where the policy does not want it sooner. Default 60 s.
    pub head_timeout: Duration,
    /// Between two pieces of the body of an answer. Default 60 s.
    pub body_timeout: Duration,
    /// How connections are kept.
    pub policy: LegConfig,
}

impl Default for LegOptions {
    fn default() -> Self {
        Self {
            proxy: None,
            trust: Trust::System,
            connect_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            policy: LegConfig::default(),
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct LegRequest {
    /// Its method. GET, HEAD and OPTIONS are safe: they may be sent a second time.
    pub method: Method,
    /// `http://` or `https://`, with path and query; without user and password.
    pub url: String,
    /// Its headers. `Host` and `Content-Length` are made of the URL and the body; those that are of a connection
    /// (RFC 9110 section 7.6.1), and `Expect`, are taken out.
    pub headers: HeaderMap,
    /// Its body; may be empty.
    pub body: Bytes,
}

/// What a server has answered, as far as it has come. Redirects are answers.
#[derive(Debug)]
pub struct LegAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those that are of a connection.
    pub headers: HeaderMap,
    /// What comes of its body.
    pub body: LegBody,
    /// Whether it is the answer to the second sending of the request.
    pub retried: bool,
}

/// Why there is no answer, or no more of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegFailure {
    /// For logs and people. Names the server, and nothing else of the URL.
    pub words: String,
    /// What happened.
    pub kind: LegFailureKind,
    /// Whether the server may have got the request.
    sent: bool,
}

/// What happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LegFailureKind {
    /// The URL cannot be dialled, or the request not be written.
    InvalidUrl,
    /// No connection could be opened.
    NotReached,
    /// Connecting, the head of the answer or a piece of its body took too long.
    TimedOut,
    /// The connection broke, or what came on it is no HTTP.
    Broken,
    /// The answer is larger than anybody wants to read.
    TooBig,
}

impl LegFailure {
    /// Whether something took too long.
    pub fn is_timeout(&self) -> bool {
        self.kind == LegFailureKind::TimedOut
    }

    /// Whether the server may have got the request: sending it again may do what it says twice.
    pub fn is_sent(&self) -> bool {
        self.sent
    }

    fn unsent(kind: LegFailureKind, words: String) -> Self {
        Self { words, kind, sent: false }
    }

    fn sent(kind: LegFailureKind, words: String) -> Self {
        Self { words, kind, sent: true }
    }
}

impl fmt::Display for LegFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for LegFailure {}

/// What a leg has done since it was made, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LegFigures {
    /// Requests that were answered, whatever the status, without being sent twice.
    pub ok: u64,
    /// Requests that were answered when they were sent a second time.
    pub retried: u64,
    /// Requests that were not answered.
    pub failed: u64,
    /// Connections that were opened.
    pub opened: u64,
    /// Requests that went on a connection that was there.
    pub reused: u64,
    /// Idle connections that were closed from this side.
    pub closed_idle: u64,
    /// Connections that are idle.
    pub idle: usize,
    /// Requests under way, from the connection that was got to the end of the answer.
    pub in_use: usize,
}

/// The HTTP of one link. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Leg {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What connections have in common.
    options: Options,
    tls: Result<Arc<ClientConfig>, ConnectError>,
    head_timeout: Duration,
    body_timeout: Duration,
    clock: Clock,
    slots: Arc<Semaphore>,
    pool: Mutex<Pool>,
    counts: Counts,
}

#[derive(Debug)]
struct Pool {
    policy: keeper::Leg,
    idle: BTreeMap<LegId, Line>,
    /// Closes what was idle for too long, as long as something is.
    sweeper: JoinSet<()>,
    is_swept: bool,
}

#[derive(Debug, Default)]
struct Counts {
    ok: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
    opened: AtomicU64,
    reused: AtomicU64,
    closed_idle: AtomicU64,
}

/// One connection.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// The one task that moves its bytes; ends with the line.
    _task: JoinSet<()>,
}

impl Leg {
    /// One without connections.
    pub fn new(options: LegOptions) -> Self {
        let LegOptions { proxy, trust, connect_timeout, head_timeout, body_timeout, policy } =
            options;
        let pool = Pool {
            policy: keeper::Leg::new(policy),
            idle: BTreeMap::new(),
            sweeper: JoinSet::new(),
            is_swept: false,
        };
        let shared = Shared {
            tls: Tls::config(&trust),
            options: Options { proxy, trust, connect_timeout, ..Options::default() },
            head_timeout,
            body_timeout,
            clock: Clock::start(),
            slots: Arc::new(Semaphore::new(LEG_CONNECTIONS_MAX)),
            pool: Mutex::new(pool),
            counts: Counts::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes a request and waits for the head of its answer. A safe one is sent a second time, on a new connection, if
    /// one that was used before does not answer. Dropped, it ends with its connection.
    ///
    /// # Errors
    ///
    /// There was no answer.
    pub async fn send(&self, request: LegRequest) -> Result<LegAnswer, LegFailure> {
        let sent = self.shared.send(request).await;
        let counts = &self.shared.counts;
        let count = match &sent {
            Ok(answer) if answer.retried => &counts.retried,
            Ok(_) => &counts.ok,
            Err(_) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        sent
    }

    /// Closes every connection that is idle, and lets none that is in use be used again: the next requests look names up
    /// and open new ones.
    pub fn fresh(&self) {
        let mut pool = self.shared.pool();
        pool.policy.fresh_pool();
        self.shared.close(pool);
    }

    /// What it has done.
    pub fn figures(&self) -> LegFigures {
        let counts = &self.shared.counts;
        LegFigures {
            ok: counts.ok.load(Ordering::Relaxed),
            retried: counts.retried.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            opened: counts.opened.load(Ordering::Relaxed),
            reused: counts.reused.load(Ordering::Relaxed),
            closed_idle: counts.closed_idle.load(Ordering::Relaxed),
            idle: self.shared.pool().policy.idle(),
            in_use: LEG_CONNECTIONS_MAX - self.shared.slots.available_permits(),
        }
    }
}

impl Shared {
    async fn send(self: &Arc<Self>, request: LegRequest) -> Result<LegAnswer, LegFailure> {
        let call = Call::new(self, request)?;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.expect("slots are never closed");
        let mut place = self.take(&call).await;
        let mut retried = false;
        loop {
            let Place { under_way, line, head_within } = place;
            let (answered, failure) =
                match self.exchange(&call, under_way.id, line, head_within).await {
                    Ok((response, line)) => {
                        return Ok(answer(response, line, under_way, slot, retried, &call.server));
                    }
                    Err(failed) => failed,
                };
            match under_way.failed(answered) {
                Retry::Fresh { connection } => {
                    place = self.new_place(connection);
                    retried = true;
                }
                Retry::No => return Err(failure),
            }
        }
    }

    /// A connection for a request: one that is there, or the number of a new one.
    async fn take(self: &Arc<Self>, call: &Call) -> Place {
        loop {
            let (take, line) = self.ask(call);
            match take {
                Take::Fresh { connection } => return self.new_place(connection),
                Take::Pooled { connection, head_within } => {
                    let under_way = UnderWay::new(self, connection);
                    // One that was closed by the server says so at once.
                    if let Some(mut line) = line
                        && timeout(LEG_READY_MAX, line.sender.ready())
                            .await
                            .is_ok_and(|it| it.is_ok())
                    {
                        self.counts.reused.fetch_add(1, Ordering::Relaxed);
                        let head_within = head_within.unwrap_or(self.head_timeout);
                        return Place { under_way, line: Some(line), head_within };
                    }
                }
            }
        }
    }

    fn new_place(self: &Arc<Self>, connection: LegId) -> Place {
        let under_way = UnderWay::new(self, connection);
        Place { under_way, line: None, head_within: self.head_timeout }
    }

    /// What the policy wants a request to go on.
    fn ask(&self, call: &Call) -> (Take, Option<Line>) {
        let mut pool = self.pool();
        let take = pool.policy.take(self.clock.now(), &call.origin, call.safety);
        let line = match take {
            Take::Fresh { .. } => None,
            Take::Pooled { connection, .. } => pool.idle.remove(&connection),
        };
        self.close(pool);
        (take, line)
    }

    async fn exchange(
        self: &Arc<Self>,
        call: &Call,
        id: LegId,
        line: Option<Line>,
        head_within: Duration,
    ) -> Result<(Response<Incoming>, Line), (Answered, LegFailure)> {
        let mut line = match line {
            Some(line) => line,
            None => self.open(call, id).await.map_err(|failure| (Answered::Unsent, failure))?,
        };
        let server = &call.server;
        match timeout(head_within, line.sender.try_send_request(call.request.clone())).await {
            Ok(Ok(response)) => Ok((response, line)),
            Ok(Err(mut error)) => {
                if error.take_message().is_some() {
                    let words =
                        format!("{server} closed the connection before the request was sent");
                    return Err((
                        Answered::Unsent,
                        LegFailure::unsent(LegFailureKind::Broken, words),
                    ));
                }
                let words = format!("{server} {}", words(error.error()));
                Err((Answered::Not, LegFailure::sent(LegFailureKind::Broken, words)))
            }
            Err(_) => {
                let words = format!("{server} did not answer within {head_within:?}");
                Err((Answered::Not, LegFailure::sent(LegFailureKind::TimedOut, words)))
            }
        }
    }

    async fn open(self: &Arc<Self>, call: &Call, id: LegId) -> Result<Line, LegFailure> {
        let within = self.options.connect_timeout;
        let opening = async {
            let stream = call.target.dial().await.map_err(|error| error.to_string())?;
            let mut builder = http1::Builder::new();
            let shaking = builder.max_buf_size(HTTP1_BUFFER_BYTES).handshake(TokioIo::new(stream));
            shaking.await.map_err(|error| error.to_string())
        };
        let server = &call.server;
        let (sender, connection) = match timeout(within, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                let words = format!("{server} was not reached: {error}");
                return Err(LegFailure::unsent(LegFailureKind::NotReached, words));
            }
            Err(_) => {
                let words = format!("{server} was not reached within {within:?}");
                return Err(LegFailure::unsent(LegFailureKind::TimedOut, words));
            }
        };
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        let leg = Arc::downgrade(self);
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Its error is the request's too, which reports it.
            let _ = connection.await;
            if let Some(leg) = leg.upgrade() {
                leg.ended(id);
            }
        });
        Ok(Line { sender, _task: task })
    }

    /// Keeps a connection whose answer has ended.
    fn give_back(self: &Arc<Self>, id: LegId, line: Line) {
        let mut pool = self.pool();
        if line.sender.is_closed() {
            pool.policy.ended(id);
            self.close(pool);
            return;
        }
        pool.policy.give_back(self.clock.now(), id);
        pool.idle.insert(id, line);
        if !pool.is_swept {
            pool.is_swept = true;
            while pool.sweeper.try_join_next().is_some() {}
            pool.sweeper.spawn(sweep(Arc::downgrade(self)));
        }
        self.close(pool);
    }

    /// A connection has ended, whoever ended it.
    fn ended(&self, id: LegId) {
        let mut pool = self.pool();
        // Of one that is in use, its request tells.
        if let Some(line) = pool.idle.remove(&id) {
            pool.policy.ended(id);
            drop(pool);
            drop(line);
        }
    }

    /// Closes what was idle for too long. Says when there is more of that to do.
    fn expire(&self) -> Option<Instant> {
        let mut pool = self.pool();
        pool.policy.expire(self.clock.now());
        let next = pool.policy.deadline().map(|at| self.clock.instant(at));
        // Whoever gives one back from now on starts another sweeper.
        pool.is_swept = next.is_some();
        self.close(pool);
        next
    }

    /// Closes what the policy wants closed, where nothing is locked.
    fn close(&self, mut pool: MutexGuard<'_, Pool>) {
        let mut closed = Vec::new();
        while let Some(id) = pool.policy.poll_close() {
            closed.extend(pool.idle.remove(&id));
        }
        drop(pool);
        self.counts.closed_idle.fetch_add(closed.len() as u64, Ordering::Relaxed);
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes idle connections when their time has come; ends when there are none.
async fn sweep(leg: Weak<Shared>) {
    while let Some(next) = leg.upgrade().and_then(|leg| leg.expire()) {
        sleep_until(next).await;
    }
}

/// A request as it is sent, once or twice.
struct Call {
    target: Target,
    /// What connections may be shared by.
    origin: String,
    /// For people.
    server: String,
    safety: Safety,
    request: Request<Full<Bytes>>,
}

impl Call {
    fn new(leg: &Shared, request: LegRequest) -> Result<Self, LegFailure> {
        let LegRequest { method, url, mut headers, body } = request;
        let invalid = |words: String| LegFailure::unsent(LegFailureKind::InvalidUrl, words);
        let (target, rest) = Target::parse_with(&url, &leg.options, |host| {
            Tls::with(leg.tls.as_ref().map_err(Clone::clone)?, host)
        })
        .map_err(|error| invalid(error.to_string()))?;
        let server = target.authority.clone();
        let host = server.parse::<HeaderValue>().map_err(|error| invalid(error.to_string()))?;
        strip(&mut headers);
        for name in [header::EXPECT, header::CONTENT_LENGTH] {
            headers.remove(name);
        }
        headers.insert(header::HOST, host);
        let and = if rest.query.is_empty() { "" } else { "?" };
        let path = format!("{}{and}{}", rest.namespace, rest.query);
        let safety = match method {
            Method::GET | Method::HEAD | Method::OPTIONS => Safety::Safe,
            _ => Safety::Unsafe,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|_| invalid(ConnectError::InvalidUrl.to_string()))?;
        *request.headers_mut() = headers;
        let scheme = if target.is_secure() { "https" } else { "http" };
        Ok(Self { origin: format!("{scheme}://{server}"), target, server, safety, request })
    }
}

/// What a request goes on.
struct Place {
    under_way: UnderWay,
    /// `None`: it has to be opened.
    line: Option<Line>,
    head_within: Duration,
}

/// A request that has a connection, or the number of one. Dropped, the policy knows that it is over.
#[derive(Debug)]
struct UnderWay {
    leg: Arc<Shared>,
    id: LegId,
    is_told: bool,
}

impl UnderWay {
    fn new(leg: &Arc<Shared>, id: LegId) -> Self {
        Self { leg: Arc::clone(leg), id, is_told: false }
    }

    fn failed(mut self, answered: Answered) -> Retry {
        self.is_told = true;
        let mut pool = self.leg.pool();
        let retry = pool.policy.failed(self.leg.clock.now(), self.id, answered);
        self.leg.close(pool);
        retry
    }

    fn give_back(mut self, line: Line) {
        self.is_told = true;
        self.leg.give_back(self.id, line);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.is_told {
            self.leg.pool().policy.ended(self.id);
        }
    }
}

/// The body of an answer. Read to its end, its connection may be kept for another request; dropped before, it is closed.
#[derive(Debug)]
pub struct LegBody {
    incoming: Incoming,
    server: String,
    body_timeout: Duration,
    /// `None` after the end.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    line: Line,
    under_way: UnderWay,
    /// Whether the server says that this is not the last answer of the connection.
    is_kept: bool,
    _slot: OwnedSemaphorePermit,
}

impl LegBody {
    /// The next bytes; `None` at the end, and ever after. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// The body ended before its end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, LegFailure>> {
        while self.held.is_some() {
            let next = std::future::poll_fn(|cx| Pin::new(&mut self.incoming).poll_frame(cx));
            match timeout(self.body_timeout, next).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    // Empty frames say nothing, and what is no data is trailers.
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => {}
                },
                Ok(Some(Err(error))) => {
                    let words = format!("{} {}", self.server, words(&error));
                    return Some(Err(self.broke(LegFailureKind::Broken, words)));
                }
                Ok(None) => self.finish(),
                Err(_) => {
                    let words = format!("{} went silent within its answer", self.server);
                    return Some(Err(self.broke(LegFailureKind::TimedOut, words)));
                }
            }
        }
        None
    }

    /// Reads the rest, which may be so many bytes.
    ///
    /// # Errors
    ///
    /// It is more, or it ended before its end.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Bytes, LegFailure> {
        let words = format!("the answer of {} has more than {bytes_max} bytes", self.server);
        let too_big = LegFailure::sent(LegFailureKind::TooBig, words);
        if self.incoming.size_hint().exact().unwrap_or_default() > bytes_max as u64 {
            return Err(too_big);
        }
        let mut whole = BytesMut::new();
        while let Some(data) = self.chunk().await.transpose()? {
            if whole.len() + data.len() > bytes_max {
                return Err(too_big);
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    fn finish(&mut self) {
        if let Some(Held { line, under_way, is_kept: true, .. }) = self.held.take() {
            under_way.give_back(line);
        }
    }

    fn broke(&mut self, kind: LegFailureKind, words: String) -> LegFailure {
        if let Some(held) = self.held.take() {
            // Nothing is sent again when its answer has begun.
            let _ = held.under_way.failed(Answered::Begun);
        }
        LegFailure::sent(kind, words)
    }
}

fn answer(
    response: Response<Incoming>,
    line: Line,
    under_way: UnderWay,
    slot: OwnedSemaphorePermit,
    retried: bool,
    server: &str,
) -> LegAnswer {
    let (mut parts, incoming) = response.into_parts();
    let says_close = has_token(&parts.headers, "close");
    let is_kept = parts.version == Version::HTTP_11 && !says_close;
    strip(&mut parts.headers);
    let body_timeout = under_way.leg.body_timeout;
    let held = Some(Held { line, under_way, is_kept, _slot: slot });
    let body = LegBody { incoming, server: server.to_owned(), body_timeout, held };
    LegAnswer { status: parts.status, headers: parts.headers, body, retried }
}

/// Takes out what is said about one connection (RFC 9110 section 7.6.1).
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

fn has_token(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut tokens =
        values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tokens.any(|token| token.trim().eq_ignore_ascii_case(wanted))
}
