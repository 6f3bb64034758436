//! One HTTP connection: hyper on a socket whose times are watched, and what happens to the socket
//! when HTTP is over.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use bowline_proto::{Time, limit::LimitKey, websocket::close_frame};
use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};

use crate::{
    accept::Local,
    admission::{Door, Permit, Standing},
    clock::Clock,
    limit,
    mailbox::{Adoption, Entry, Message},
    mount::Outgoing,
    opening,
    process::Process,
    routes,
    stream::Stream,
};

/// One HTTP connection, as its requests see it.
pub(crate) struct Connection {
    pub(crate) local: Local,
    pub(crate) peer: SocketAddr,
    pub(crate) door: Door,
    pub(crate) standing: Standing,
    /// Set by the request that turns this connection into a WebSocket.
    pub(crate) ticket: RefCell<Option<Ticket>>,
    /// The place of this connection, until it moves on.
    pub(crate) permit: RefCell<Option<Permit>>,
    /// The answer to the handshake of a WebSocket, which goes out together with the first packet.
    held: RefCell<Vec<u8>>,
    /// A response went out before its request was read to the end.
    pub(crate) unread_body: Cell<bool>,
    watch: Watch,
}

impl Connection {
    /// Whether it came to ask something of a server that may be about to end, and has not yet.
    fn is_yet_to_ask(&self) -> bool {
        self.door == Door::Admin && matches!(self.watch.phase.get(), Phase::Fresh | Phase::Head)
    }

    /// All of an answer has been handed to the connection, or nobody takes the rest.
    pub(crate) fn on_answered(&self) {
        let now = self.local.process().clock.now();
        self.watch.on_response(now + limit::KEEP_ALIVE);
    }
}

/// Where a WebSocket goes when its handshake is done.
pub(crate) struct Ticket {
    pub(crate) shard: u8,
    pub(crate) deflate: bool,
    /// `None` if it is to be closed.
    pub(crate) entry: Option<Entry>,
}

/// How serving HTTP ended.
enum End {
    /// By itself.
    Over,
    /// By an error of the connection.
    Broken,
    /// A deadline passed.
    TimedOut,
}

/// Serves HTTP on a connection until one end closes it or it becomes a WebSocket.
pub(crate) async fn serve(
    local: &Local,
    stream: TcpStream,
    peer: SocketAddr,
    door: Door,
    mut permit: Permit,
) {
    let process = local.process();
    let (stream, peer) = if opening::is_needed(process, door, peer) {
        // Boxed: it is large, and over when the connection has hardly begun.
        match Box::pin(opening::open(local, stream, peer, &mut permit)).await {
            Some(opened) => opened,
            None => return,
        }
    } else {
        (Stream::Plain(stream), peer)
    };
    let head_time = head_time(process, permit.standing);
    let watch = Watch::new(process.clock, process.clock.now() + head_time);
    let connection = Rc::new(Connection {
        local: local.clone(),
        peer,
        door,
        standing: permit.standing,
        ticket: RefCell::new(None),
        permit: RefCell::new(Some(permit)),
        held: RefCell::default(),
        unread_body: Cell::new(false),
        watch,
    });
    let io = TokioIo::new(Watched { stream, connection: Rc::clone(&connection) });
    let of_requests = Rc::clone(&connection);
    let service = service_fn(move |request| answer(Rc::clone(&of_requests), request));
    let mut http = local.http().serve_connection(io, service);
    match drive(&connection, &mut http).await {
        End::Over => {}
        End::Broken => return,
        End::TimedOut => {
            // One that was merely idle ends like any other.
            if connection.watch.phase.get() != Phase::Idle {
                process.counters.on_limit(LimitKey::RequestHead);
                return;
            }
        }
    }
    let parts = http.into_parts();
    part(&connection, parts.io.into_inner().stream, parts.read_buf).await;
}

/// What happens to a connection that HTTP is done with. `unread` came behind the last request.
async fn part(connection: &Connection, stream: Stream, unread: Bytes) {
    let permit = connection.permit.take();
    match connection.ticket.take() {
        Some(Ticket { shard, deflate, entry: Some(entry) }) => {
            let Ok((stream, tls)) = stream.into_std() else { return };
            let Some(permit) = permit else { return };
            let adoption = Box::new(Adoption {
                stream,
                tls,
                head: connection.held.take().into(),
                unread,
                entry,
                deflate,
                permit,
            });
            let shards = &connection.local.process().shards;
            shards[usize::from(shard)].mailbox.push(Message::Adopt(adoption));
        }
        Some(Ticket { entry: None, .. }) => {
            // A WebSocket that nothing serves is told so before it ends.
            let mut last = connection.held.take();
            last.extend_from_slice(&close_frame(None, "", None));
            linger(stream, &last).await;
        }
        None if connection.unread_body.get() => linger(stream, &[]).await,
        // Without it the client could not tell the end from a cut.
        None if stream.is_tls() => say_goodbye(stream).await,
        None => {}
    }
}

/// How long the head of a first request may take.
pub(crate) fn head_time(process: &Process, standing: Standing) -> Duration {
    let head_time = process.settings().limits.request_head;
    match standing {
        Standing::Served => head_time,
        Standing::Full | Standing::AddressFull => head_time.min(limit::OVERFLOW_HEAD),
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Outgoing>, Infallible>>>>;

fn answer(connection: Rc<Connection>, request: Request<Incoming>) -> Answer {
    connection.watch.on_request();
    Box::pin(async move {
        let response = routes::respond(&connection, request).await;
        Ok(response.map(|body| Outgoing::new(body, connection)))
    })
}

/// Drives HTTP, the deadlines, and the server's wish to close.
async fn drive<S>(
    connection: &Connection,
    http: &mut hyper::server::conn::http1::Connection<TokioIo<Watched>, S>,
) -> End
where
    S: hyper::service::HttpService<Incoming, ResBody = Outgoing> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Unpin,
{
    let local = &connection.local;
    let clock = local.process().clock;
    let watch = &connection.watch;
    let mut close = pin!(local.close().notified());
    close.as_mut().enable();
    let mut told_to_close = false;
    let mut armed = watch.deadline().unwrap_or_default();
    let mut sleep = pin!(tokio::time::sleep_until(clock.instant(armed)));
    poll_fn(|cx| {
        loop {
            let closing = local.is_closing() || close.as_mut().poll(cx).is_ready();
            if !told_to_close && closing && !connection.is_yet_to_ask() {
                told_to_close = true;
                Pin::new(&mut *http).graceful_shutdown();
            }
            match http.poll_without_shutdown(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(End::Over),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "http connection ended");
                    return Poll::Ready(End::Broken);
                }
                Poll::Pending => {}
            }
            // It may have asked just now, and nothing else would wake this task.
            if told_to_close || !local.is_closing() || connection.is_yet_to_ask() {
                break;
            }
        }
        // The timer is moved only to earlier; when it fires early it is set anew. So a busy
        // connection touches the timer wheel about once in the time an idle one may last.
        while let Some(deadline) = watch.deadline() {
            if deadline < armed {
                armed = deadline;
                sleep.as_mut().reset(clock.instant(armed));
            }
            ready!(sleep.as_mut().poll(cx));
            let now = clock.now();
            if deadline <= now {
                return Poll::Ready(End::TimedOut);
            }
            armed = deadline;
            sleep.as_mut().reset(clock.instant(armed));
        }
        Poll::Pending
    })
    .await
}

/// Tells the client that nothing more comes.
async fn say_goodbye(mut stream: Stream) {
    // Whether it arrives or not, the connection is over.
    let _ = tokio::time::timeout(limit::LINGER, stream.shutdown()).await;
}

/// Sends the last words and closes a connection whose peer may still be sending. To close it at
/// once would reset it, and the response could be lost.
pub(crate) async fn linger(mut stream: Stream, last: &[u8]) {
    let drain = async {
        if stream.write_all(last).await.is_err() || stream.shutdown().await.is_err() {
            return;
        }
        let stream = stream.into_tcp();
        let mut left = limit::LINGER_BYTES;
        let mut scratch = vec![0; 16 * 1024];
        while left > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut scratch) {
                Ok(0) => break,
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    let _ = tokio::time::timeout(limit::LINGER, drain).await;
}

/// What a connection is waiting for, and until when.
struct Watch {
    clock: Clock,
    phase: Cell<Phase>,
    /// Until when the peer must have sent something.
    read_by: Cell<Option<Time>>,
    /// Until when the peer must have taken something.
    write_by: Cell<Option<Time>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// For the first request, none of which is there.
    Fresh,
    /// For the rest of a request's head.
    Head,
    /// For the answer, which takes as long as it takes.
    Request,
    /// For another request.
    Idle,
}

impl Watch {
    fn new(clock: Clock, read_by: Time) -> Self {
        Self {
            clock,
            phase: Cell::new(Phase::Fresh),
            read_by: Cell::new(Some(read_by)),
            write_by: Cell::new(None),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match (self.read_by.get(), self.write_by.get()) {
            (Some(read), Some(write)) => Some(read.min(write)),
            (read, write) => read.or(write),
        }
    }

    fn on_read(&self, request_head: Duration) {
        match self.phase.get() {
            Phase::Fresh => self.phase.set(Phase::Head),
            Phase::Idle => {
                self.phase.set(Phase::Head);
                self.read_by.set(Some(self.clock.now() + request_head));
            }
            Phase::Head | Phase::Request => {}
        }
    }

    fn on_write(&self, blocked: bool) {
        if !blocked {
            self.write_by.set(None);
        } else if self.write_by.get().is_none() {
            self.write_by.set(Some(self.clock.now() + limit::WRITE_TIMEOUT));
        }
    }

    fn on_request(&self) {
        self.phase.set(Phase::Request);
        self.read_by.set(None);
    }

    fn on_response(&self, next_by: Time) {
        self.phase.set(Phase::Idle);
        self.read_by.set(Some(next_by));
    }
}

/// A socket that tells its connection's [`Watch`] what happens on it.
struct Watched {
    stream: Stream,
    connection: Rc<Connection>,
}

impl Watched {
    /// Takes what is written after a request was granted its WebSocket.
    fn hold<'a>(&self, bufs: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
        self.connection.ticket.borrow().as_ref()?;
        let mut held = self.connection.held.borrow_mut();
        let before = held.len();
        bufs.for_each(|buf| held.extend_from_slice(buf));
        Some(held.len() - before)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            let connection = &self.connection;
            connection.watch.on_read(connection.local.process().settings().limits.request_head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(bytes) = self.hold(std::iter::once(buf)) {
            return Poll::Ready(Ok(bytes));
        }
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.connection.watch.on_write(poll.is_pending());
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(bytes) = self.hold(bufs.iter().map(|buf| &**buf)) {
            return Poll::Ready(Ok(bytes));
        }
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.connection.watch.on_write(poll.is_pending());
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        if self.stream.is_tls() {
            // What was written went no further than its buffer.
            self.connection.watch.on_write(poll.is_pending());
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, Phase, Watch};

    #[test]
    fn a_head_has_its_time_from_its_first_byte_and_an_answer_has_no_deadline() {
        let clock = Clock::start();
        let head = Duration::from_secs(5);
        let fresh_by = clock.now() + head;
        let watch = Watch::new(clock, fresh_by);
        watch.on_read(head);
        // The first head has been awaited since the connection was accepted.
        assert_eq!((watch.phase.get(), watch.deadline()), (Phase::Head, Some(fresh_by)));
        watch.on_request();
        watch.on_read(head);
        assert_eq!((watch.phase.get(), watch.deadline()), (Phase::Request, None));
        let next_by = clock.now() + Duration::from_secs(75);
        watch.on_response(next_by);
        assert_eq!((watch.phase.get(), watch.deadline()), (Phase::Idle, Some(next_by)));
        watch.on_read(head);
        assert_eq!(watch.phase.get(), Phase::Head);
        assert!(watch.deadline().is_some_and(|at| at < next_by));
    }

    #[test]
    fn a_peer_that_takes_nothing_has_a_deadline_until_it_takes_something() {
        let clock = Clock::start();
        let watch = Watch::new(clock, clock.now());
        watch.on_request();
        watch.on_write(true);
        let deadline = watch.deadline();
        assert!(deadline.is_some());
        watch.on_write(true);
        assert_eq!(watch.deadline(), deadline);
        watch.on_write(false);
        assert_eq!(watch.deadline(), None);
    }
}
