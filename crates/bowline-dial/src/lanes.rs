//! HTTP requests to one server whose answers are read as they come: streams of minutes, beside short
//! ones.
//!
//! A [`Lane`] carries one request. Under it is an HTTP/1.1 connection of its own or, where TLS agreed on
//! that, a share of an HTTP/2 one. An HTTP/1.1 connection has no task: whoever reads the answer moves its
//! bytes, and while it is idle nobody does. An HTTP/2 connection has tasks, which end with its last user.
//! An answer that is dropped before its end closes its HTTP/1.1 connection, or resets its HTTP/2 stream, at
//! once: the server sees that nobody listens.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread::{self, ThreadId},
    time::Duration,
};

use bowline_proto::Time;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::{
    Response,
    body::{Body as _, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::{
    clock::Clock,
    limit::{
        HTTP1_BUFFER_BYTES, HTTP2_PING_EVERY, HTTP2_PONG_MAX, HTTP2_STREAMS_MAX, HTTP2_WINDOW_BYTES,
    },
    pool::Origin,
    target::Target,
    tls::Stream,
};

/// How many connections there may be, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneOptions {
    /// Connections at a time, those that are idle among them. A request that needs one more waits.
    /// Default 256.
    pub connections_max: usize,
    /// How long a connection that carries nothing may be used again. Default 60 s. The server should
    /// allow longer: a request that meets its goodbye is lost.
    pub idle_max: Duration,
    /// Whether HTTP/2 is spoken where TLS agrees on it. Without TLS it is always HTTP/1.1. Default yes.
    pub http2: bool,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self { connections_max: 256, idle_max: Duration::from_secs(60), http2: true }
    }
}

/// What the connections to a server are doing, and what they did since they were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneFigures {
    /// Connections that are open.
    pub open: usize,
    /// Those of them that carry nothing.
    pub idle: usize,
    /// Requests under way: from the lane that was got to the end of its answer.
    pub in_use: usize,
    /// Requests that wait because [`LaneOptions::connections_max`] is reached.
    pub waiting: usize,
    /// Connections that were opened.
    pub opened: u64,
    /// Requests that a connection was there for.
    pub reused: u64,
    /// Requests that had to wait for one, or share one that carries more than it should.
    pub waited: u64,
    /// Connections that could not be opened.
    pub failed: u64,
}

/// The connections to one server. Clones share them.
#[derive(Debug, Clone)]
pub struct Lanes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Target,
    path: String,
    options: LaneOptions,
    clock: Clock,
    /// One for each connection that is not idle; what is idle is taken before anything is opened, so
    /// they bound all of them.
    slots: Arc<Semaphore>,
    /// HTTP/1.1; the freshest last.
    idle: Mutex<Vec<(Time, Single)>>,
    /// HTTP/2.
    multiplexed: Mutex<Vec<Arc<Multiplexed>>>,
    /// What the server has agreed on last: [`UNKNOWN`], [`HTTP1`] or [`HTTP2`].
    spoken: AtomicU8,
    /// Whoever opens the first HTTP/2 connection; the others wait to share it.
    opening: tokio::sync::Mutex<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    in_use: AtomicUsize,
    waiting: AtomicUsize,
    opened: AtomicU64,
    reused: AtomicU64,
    waited: AtomicU64,
    failed: AtomicU64,
}

const UNKNOWN: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

/// Why there is no lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLane {
    /// The connection was not there in time.
    TimedOut,
    /// It could not be opened; the words are to be read after "the server".
    Failed(String),
}

/// Why there is no more of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyFailure {
    /// The connection was closed in the middle.
    CutOff,
    /// It broke; the words are to be read after "the server".
    Broken(String),
    /// The answer is larger than anybody wants to read.
    TooBig,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum SendFailure {
    /// The connection was closed before anything of the request was sent, which is here again. After
    /// [`Lane::is_reused`] that is common, and another lane may carry it.
    NotSent(Box<Request<Full<Bytes>>>),
    /// It was sent, or a part of it may have been. The words are to be read after "the server".
    Broken(String),
}

impl Lanes {
    /// The connections to a server.
    pub fn new(origin: &Origin, options: LaneOptions) -> Self {
        let target = Target::clone(&origin.target);
        let target = if options.http2 { target.offering_http2() } else { target };
        let shared = Shared {
            path: origin.path().to_owned(),
            clock: Clock::start(),
            slots: Arc::new(Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS))),
            idle: Mutex::default(),
            multiplexed: Mutex::default(),
            spoken: AtomicU8::new(if target.offers_http2() { UNKNOWN } else { HTTP1 }),
            opening: tokio::sync::Mutex::default(),
            counts: Arc::default(),
            target,
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The value of `Host`.
    pub fn authority(&self) -> &str {
        &self.shared.target.authority
    }

    /// The path of the server's URL, which requests go below.
    pub fn path(&self) -> &str {
        &self.shared.path
    }

    /// Gets a place for one request: on a connection that is there, or on a new one. Waits while
    /// [`LaneOptions::connections_max`] is reached; opening takes at most
    /// [`Options::connect_timeout`](crate::Options::connect_timeout).
    ///
    /// # Errors
    ///
    /// There is no connection, and none could be opened.
    pub async fn lane(&self) -> Result<Lane, NoLane> {
        let shared = &self.shared;
        if let Some(lane) = shared.share(false) {
            return Ok(lane);
        }
        let slot = match Arc::clone(&shared.slots).try_acquire_owned() {
            Ok(slot) => slot,
            // No more connections: one that is shared takes more than it should.
            Err(_) => match shared.share(true) {
                Some(lane) => {
                    shared.counts.waited.fetch_add(1, Ordering::Relaxed);
                    return Ok(lane);
                }
                None => shared.wait().await,
            },
        };
        if let Some(lane) = shared.share(false) {
            return Ok(lane);
        }
        while let Some(mut single) = shared.take_idle() {
            if single.is_usable().await {
                shared.counts.reused.fetch_add(1, Ordering::Relaxed);
                return Ok(Lane::single(shared, single, slot, true));
            }
        }
        let opened = match timeout(shared.target.connect_timeout(), shared.open(slot)).await {
            Ok(opened) => opened.map_err(NoLane::Failed),
            Err(_) => Err(NoLane::TimedOut),
        };
        if opened.is_err() {
            shared.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }

    /// Closes what has been idle for too long. It also happens whenever a connection is taken or put
    /// back; this is for servers that nobody asks any more.
    pub fn sweep(&self) {
        self.shared.sweep();
    }

    /// Closes every connection that is idle.
    pub fn close_idle(&self) {
        let idle = std::mem::take(&mut *lock(&self.shared.idle));
        let mut unused = Vec::new();
        lock(&self.shared.multiplexed).retain(|one| {
            let used = one.streams.load(Ordering::Relaxed) > 0;
            if !used {
                unused.push(Arc::clone(one));
            }
            used
        });
        drop((idle, unused));
    }

    /// What the connections are doing.
    pub fn figures(&self) -> LaneFigures {
        let counts = &self.shared.counts;
        let unused = |one: &&Arc<Multiplexed>| one.streams.load(Ordering::Relaxed) == 0;
        let idle = lock(&self.shared.idle).len();
        LaneFigures {
            open: counts.open.load(Ordering::Relaxed),
            idle: idle + lock(&self.shared.multiplexed).iter().filter(unused).count(),
            in_use: counts.in_use.load(Ordering::Relaxed),
            waiting: counts.waiting.load(Ordering::Relaxed),
            opened: counts.opened.load(Ordering::Relaxed),
            reused: counts.reused.load(Ordering::Relaxed),
            waited: counts.waited.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    /// A stream on an HTTP/2 connection that is there: the one that carries least, if it is not full.
    /// One that is `crowded` queues what its server does not let through yet.
    fn share(self: &Arc<Self>, crowded: bool) -> Option<Lane> {
        if self.spoken.load(Ordering::Relaxed) == HTTP1 {
            return None;
        }
        let mut connections = lock(&self.multiplexed);
        connections.retain(|one| one.takes_more());
        let streams = |one: &&Arc<Multiplexed>| one.streams.load(Ordering::Relaxed);
        let best = connections.iter().min_by_key(streams)?;
        if streams(&best) >= HTTP2_STREAMS_MAX && !crowded {
            return None;
        }
        let lane = Lane::multiplexed(self, best, true);
        drop(connections);
        self.counts.reused.fetch_add(1, Ordering::Relaxed);
        Some(lane)
    }

    /// Waits until a connection may be opened, or one has come free.
    async fn wait(&self) -> OwnedSemaphorePermit {
        let _waiting = Waiting::new(&self.counts);
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        slot.expect("slots are never closed")
    }

    /// The freshest that was opened on this thread, if there is one: what comes on another thread's costs a switch
    /// between the two where each has a runtime of its own.
    fn take_idle(&self) -> Option<Single> {
        self.sweep();
        let (here, mut idle) = (thread::current().id(), lock(&self.idle));
        let at = idle.iter().rposition(|(_, single)| single.home == here);
        let at = at.or(idle.len().checked_sub(1))?;
        Some(idle.remove(at).1)
    }

    fn sweep(&self) {
        let now = self.clock.now();
        let stale = |since: Time| now.since(since) >= self.options.idle_max;
        let mut idle = lock(&self.idle);
        let singles = idle.partition_point(|(since, _)| stale(*since));
        let singles: Vec<_> = idle.drain(..singles).collect();
        drop(idle);
        let mut multiplexed = Vec::new();
        lock(&self.multiplexed).retain(|one| {
            let gone = !one.takes_more()
                || one.streams.load(Ordering::Relaxed) == 0 && stale(*lock(&one.idle_since));
            if gone {
                multiplexed.push(Arc::clone(one));
            }
            !gone
        });
        // They are closed here, where nothing is locked.
        drop((singles, multiplexed));
    }

    async fn open(self: &Arc<Self>, slot: OwnedSemaphorePermit) -> Result<Lane, String> {
        // A hundred requests to a server that speaks HTTP/2 are to open one connection.
        let may_be_shared = self.spoken.load(Ordering::Relaxed) != HTTP1;
        let turn = if may_be_shared { Some(self.opening.lock().await) } else { None };
        if let Some(lane) = self.share(false) {
            return Ok(lane);
        }
        let not_reached = |error: io::Error| format!("was not reached: {error}");
        let stream = self.target.dial().await.map_err(not_reached)?;
        let open = Open::new(&self.counts);
        if !stream.speaks_http2() {
            self.spoken.store(HTTP1, Ordering::Relaxed);
            drop(turn);
            let mut builder = http1::Builder::new();
            let shaken =
                builder.max_buf_size(HTTP1_BUFFER_BYTES).handshake(TokioIo::new(stream)).await;
            let (sender, connection) = shaken.map_err(|error| error.to_string())?;
            let connection = Box::pin(connection);
            let home = thread::current().id();
            let single = Single { sender, connection, home, ended: false, _open: open };
            return Ok(Lane::single(self, single, slot, false));
        }
        self.spoken.store(HTTP2, Ordering::Relaxed);
        let connection = Multiplexed::open(stream, open, slot, self.clock.now());
        let connection = Arc::new(connection.await?);
        let lane = Lane::multiplexed(self, &connection, false);
        lock(&self.multiplexed).push(connection);
        Ok(lane)
    }

    fn put_back(&self, single: Single) {
        let now = self.clock.now();
        lock(&self.idle).push((now, single));
    }
}

/// An HTTP/1.1 connection.
struct Single {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: Pin<Box<http1::Connection<TokioIo<Stream>, Full<Bytes>>>>,
    /// Where it was opened.
    home: ThreadId,
    ended: bool,
    _open: Open,
}

impl Single {
    /// Whether it is still open, as far as this side can know, and has nothing left to do.
    async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| {
            self.poll_connection(cx);
            let ready = matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())));
            Poll::Ready(ready && !self.ended)
        })
        .await
    }

    /// Moves its bytes.
    fn poll_connection(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            // Its error is the request's too, which reports it.
            self.ended = self.connection.as_mut().poll(cx).is_ready();
        }
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let mut sending = pin!(self.sender.try_send_request(request));
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                return Poll::Ready(sent);
            }
            if !*ended {
                *ended = connection.as_mut().poll(cx).is_ready();
            }
            sending.as_mut().poll(cx)
        });
        sent.await.map_err(|mut error| match error.take_message() {
            Some(request) => SendFailure::NotSent(Box::new(request)),
            None => SendFailure::Broken(words(error.error())),
        })
    }
}

impl fmt::Debug for Single {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Single").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// An HTTP/2 connection. It is open until the last of its streams has ended and nobody keeps it.
#[derive(Debug)]
struct Multiplexed {
    sender: http2::SendRequest<Full<Bytes>>,
    /// It did not take a request: its server has said goodbye, and lets the streams that there are end.
    leaving: AtomicBool,
    streams: AtomicUsize,
    idle_since: Mutex<Time>,
    _tasks: Arc<Tasks>,
    _open: Open,
    _slot: OwnedSemaphorePermit,
}

impl Multiplexed {
    async fn open(
        stream: Stream,
        open: Open,
        slot: OwnedSemaphorePermit,
        now: Time,
    ) -> Result<Self, String> {
        let tasks = Arc::new(Tasks::default());
        let shaken = http2::Builder::new(Spawner(Arc::downgrade(&tasks)))
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING_EVERY)
            .keep_alive_timeout(HTTP2_PONG_MAX)
            .initial_stream_window_size(HTTP2_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_WINDOW_BYTES * 4)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = shaken.map_err(|error| error.to_string())?;
        tasks.spawn(async move {
            // Its error is that of every request on it, which report it.
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            leaving: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            idle_since: Mutex::new(now),
            _tasks: tasks,
            _open: open,
            _slot: slot,
        })
    }

    fn takes_more(&self) -> bool {
        !self.sender.is_closed() && !self.leaving.load(Ordering::Relaxed)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, SendFailure> {
        let sent = self.sender.clone().try_send_request(request).await;
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => {
                self.leaving.store(true, Ordering::Relaxed);
                SendFailure::NotSent(Box::new(request))
            }
            None => SendFailure::Broken(words(error.error())),
        })
    }
}

/// One request's share of an HTTP/2 connection.
#[derive(Debug)]
struct Share {
    connection: Arc<Multiplexed>,
    clock: Clock,
}

impl Share {
    fn new(connection: &Arc<Multiplexed>, clock: Clock) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Self { connection: Arc::clone(connection), clock }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *lock(&self.connection.idle_since) = self.clock.now();
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The tasks of an HTTP/2 connection: one that moves its bytes, and hyper's own for each stream. They
/// end with it.
#[derive(Debug, Default)]
struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.0);
        // Those that are over go whenever one comes, so that there are never many of them.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// Hyper's way to [`Tasks`]. The tasks themselves hold it, so it must not keep them.
#[derive(Debug, Clone)]
struct Spawner(Weak<Tasks>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.spawn(task);
        }
    }
}

/// A place for one request. Dropped, its connection is closed, unless it is shared.
#[derive(Debug)]
pub struct Lane {
    carrier: Carrier,
    reused: bool,
    shared: Arc<Shared>,
    in_use: InUse,
}

#[derive(Debug)]
enum Carrier {
    Single { single: Box<Single>, slot: OwnedSemaphorePermit },
    Share(Share),
}

impl Lane {
    fn single(
        shared: &Arc<Shared>,
        single: Single,
        slot: OwnedSemaphorePermit,
        reused: bool,
    ) -> Self {
        let carrier = Carrier::Single { single: Box::new(single), slot };
        let in_use = InUse::new(&shared.counts);
        Self { carrier, reused, shared: Arc::clone(shared), in_use }
    }

    fn multiplexed(shared: &Arc<Shared>, connection: &Arc<Multiplexed>, reused: bool) -> Self {
        let carrier = Carrier::Share(Share::new(connection, shared.clock));
        let in_use = InUse::new(&shared.counts);
        Self { carrier, reused, shared: Arc::clone(shared), in_use }
    }

    /// Whether the connection has been there before this lane was asked for.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether this is a stream of an HTTP/2 connection.
    pub fn is_http2(&self) -> bool {
        matches!(self.carrier, Carrier::Share(_))
    }

    /// Sends a request and waits for the head of its answer. The URI of the request is path and query
    /// alone; what names the server is added, and so are the headers of
    /// [`Options`](crate::Options::headers) that it does not have itself. There is no deadline; dropped,
    /// the request ends at once.
    ///
    /// # Errors
    ///
    /// There was no answer. A request that was written, even in part, is not written again.
    pub async fn send(
        self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<StreamedAnswer, SendFailure> {
        let Self { carrier, shared, in_use, reused: _ } = self;
        shared.target.complete(&mut request, matches!(carrier, Carrier::Share(_)));
        let (response, source) = match carrier {
            Carrier::Single { mut single, slot } => {
                let response = single.send(request).await?;
                (response, Source::Single { single, slot, shared })
            }
            Carrier::Share(share) => {
                let response = share.connection.send(request).await?;
                (response, Source::Share { _share: share })
            }
        };
        let (parts, incoming) = response.into_parts();
        let body = StreamedBody { incoming, source: Some((source, in_use)) };
        Ok(StreamedAnswer { status: parts.status, headers: parts.headers, body })
    }
}

/// What a server has answered, as far as it has come.
#[derive(Debug)]
pub struct StreamedAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// What comes of its body.
    pub body: StreamedBody,
}

/// The body of an answer. Read to its end, its connection is kept for the next request; dropped before,
/// it is closed, or its HTTP/2 stream reset.
#[derive(Debug)]
pub struct StreamedBody {
    incoming: Incoming,
    /// `None` after the end.
    source: Option<(Source, InUse)>,
}

#[derive(Debug)]
enum Source {
    Single { single: Box<Single>, slot: OwnedSemaphorePermit, shared: Arc<Shared> },
    Share { _share: Share },
}

impl StreamedBody {
    /// The next bytes; `None` at the end, and ever after. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// The body ended before its end. The words are to be read after "the server".
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyFailure>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFailure>>> {
        let mut moved = false;
        while let Some((source, _)) = &mut self.source {
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                match source {
                    Source::Single { single, .. } if !moved => single.poll_connection(cx),
                    Source::Single { .. } | Source::Share { .. } => return Poll::Pending,
                }
                moved = true;
                continue;
            };
            match frame.map(|frame| frame.map(hyper::body::Frame::into_data)) {
                // Empty frames say nothing, and what is no data is trailers.
                Some(Ok(Ok(data))) if data.is_empty() => {}
                Some(Ok(Ok(data))) => return Poll::Ready(Some(Ok(data))),
                Some(Ok(Err(_))) => {}
                Some(Err(error)) => {
                    self.source = None;
                    return Poll::Ready(Some(Err(failed(&error))));
                }
                None => self.finish(cx),
            }
        }
        Poll::Ready(None)
    }

    /// Reads the rest, which may be so many bytes.
    ///
    /// # Errors
    ///
    /// It is more, or it ended before its end.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Bytes, BodyFailure> {
        let said = self.incoming.size_hint().exact().unwrap_or_default();
        if said > bytes_max as u64 {
            return Err(BodyFailure::TooBig);
        }
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await.transpose()? else {
            return if first.len() > bytes_max { Err(BodyFailure::TooBig) } else { Ok(first) };
        };
        let mut whole = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(data) = next {
            if whole.len() + data.len() > bytes_max {
                return Err(BodyFailure::TooBig);
            }
            whole.extend_from_slice(&data);
            next = self.next().await.transpose()?;
        }
        Ok(whole.freeze())
    }

    /// After the last byte: the connection is kept if nothing is left of the exchange.
    fn finish(&mut self, cx: &mut Context<'_>) {
        let Some((source, _in_use)) = self.source.take() else { return };
        if let Source::Single { mut single, slot, shared } = source {
            single.poll_connection(cx);
            if !single.ended && !single.sender.is_closed() {
                shared.put_back(*single);
            }
            // Whoever waits finds it there.
            drop(slot);
        }
    }
}

/// Counts one connection as open.
#[derive(Debug)]
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        counts.opened.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request as under way.
#[derive(Debug)]
struct InUse(Arc<Counts>);

impl InUse {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.in_use.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request as waiting.
struct Waiting<'a>(&'a Counts);

impl<'a> Waiting<'a> {
    fn new(counts: &'a Counts) -> Self {
        counts.waiting.fetch_add(1, Ordering::Relaxed);
        counts.waited.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn failed(error: &hyper::Error) -> BodyFailure {
    let source = std::error::Error::source(error);
    let kind = source.and_then(|it| it.downcast_ref::<io::Error>()).map(io::Error::kind);
    if error.is_incomplete_message() || kind == Some(io::ErrorKind::UnexpectedEof) {
        return BodyFailure::CutOff;
    }
    BodyFailure::Broken(words(error))
}

/// What went wrong with an exchange, to be read after "the server".
pub(crate) fn words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "closed the connection without a whole answer".to_owned();
    }
    if error.is_parse() {
        return format!("did not answer in HTTP: {error}");
    }
    match std::error::Error::source(error) {
        Some(source) => format!("broke the connection: {source}"),
        None => format!("broke the connection: {error}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
