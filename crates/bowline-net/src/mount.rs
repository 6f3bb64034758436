//! What an embedding program serves over HTTP beside Socket.IO, on the same public listeners.

use std::{
    convert::Infallible,
    fmt,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{sync::mpsc, time::timeout};

use crate::{connection::Connection, limit::PIECE_BYTES_MAX};

/// Answers clients' requests that are for neither `/health/*` nor the path of the engine.
///
/// Called on the thread of a shard: what takes time must be done elsewhere, on a runtime of its own,
/// so that a large request never delays a ping.
pub trait HttpService: Send + Sync + 'static {
    /// Whether a path is this service's.
    fn serves(&self, path: &str) -> bool;

    /// Judges a request by its head, before any of its body is read. `client` is the address it is
    /// for: the peer's, or what a trusted proxy says.
    ///
    /// # Errors
    ///
    /// The answer to a request that is refused. The connection is closed behind it.
    fn admit(&self, client: IpAddr, head: &Parts) -> Result<Box<dyn HttpCall>, Box<HttpResponse>>;
}

/// A request that was let in, and whatever was set aside for it.
pub trait HttpCall: Send {
    /// How large its body may be; a larger one is answered 413.
    fn body_bytes_max(&self) -> usize;

    /// Asked as the body arrives, before so many bytes of it are kept: memory is set aside for what is there, not for
    /// what was announced. Default always.
    ///
    /// # Errors
    ///
    /// The answer when there is no room. The connection is closed behind it.
    fn make_room(&mut self, bytes: usize) -> Result<(), Box<HttpResponse>> {
        let _ = bytes;
        Ok(())
    }

    /// Answers it. When the client leaves first, the future is dropped, or the body of its answer.
    fn run(self: Box<Self>, request: Request<Bytes>) -> HttpAnswer;
}

/// An answer under way.
pub type HttpAnswer = Pin<Box<dyn Future<Output = HttpResponse> + Send>>;

/// An answer: whole, or the beginning of a stream.
pub type HttpResponse = Response<HttpBody>;

/// The body of an answer.
pub struct HttpBody(Kind);

enum Kind {
    Whole(Full<Bytes>),
    Stream(mpsc::Receiver<Piece>),
    GivenUp,
    Over,
}

enum Piece {
    Data(Bytes),
    End,
}

impl HttpBody {
    /// A body that is made while it is sent. So many pieces wait for a client that reads slowly.
    pub fn stream(pieces: usize) -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(pieces.max(1));
        (BodySender(sender), Self(Kind::Stream(receiver)))
    }
}

impl From<Bytes> for HttpBody {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Whole(Full::new(bytes)))
    }
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Whole(_) => "HttpBody(whole)",
            Kind::Stream(_) | Kind::GivenUp | Kind::Over => "HttpBody(stream)",
        })
    }
}

/// Makes the body of an answer. Dropped before [`finish`](Self::finish), it breaks the connection, so
/// that no client takes for whole what is not.
#[derive(Debug)]
pub struct BodySender(mpsc::Sender<Piece>);

impl BodySender {
    /// Sends a piece at once, as a chunk of its own; waits while the client reads slowly. One of more than 64 KiB is
    /// sent in parts, so that what waits is bounded in bytes as well.
    ///
    /// # Errors
    ///
    /// The client has left.
    pub async fn send(&self, mut data: Bytes) -> Result<(), ClientLeft> {
        self.send_part(&mut data).await?;
        while !data.is_empty() {
            self.send_part(&mut data).await?;
        }
        Ok(())
    }

    /// Sends a piece as [`send`](Self::send) does, to a client that reads something of it within each `stall`: a large
    /// piece may take a slow client minutes. Needs a runtime with timers.
    ///
    /// # Errors
    ///
    /// The client has left, or has read nothing for so long.
    pub async fn send_within(&self, mut data: Bytes, stall: Duration) -> Result<(), ClientLeft> {
        timeout(stall, self.send_part(&mut data)).await.map_err(|_| ClientLeft)??;
        while !data.is_empty() {
            timeout(stall, self.send_part(&mut data)).await.map_err(|_| ClientLeft)??;
        }
        Ok(())
    }

    async fn send_part(&self, data: &mut Bytes) -> Result<(), ClientLeft> {
        let part = data.split_to(data.len().min(PIECE_BYTES_MAX));
        self.0.send(Piece::Data(part)).await.map_err(|_| ClientLeft)
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// The client has left.
    pub async fn finish(self) -> Result<(), ClientLeft> {
        self.0.send(Piece::End).await.map_err(|_| ClientLeft)
    }

    /// Waits until the client has left.
    pub async fn left(&self) {
        self.0.closed().await;
    }
}

/// Nobody reads the answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLeft;

impl fmt::Display for ClientLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client has left")
    }
}

impl std::error::Error for ClientLeft {}

/// A body was given up before its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unfinished;

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer was given up before its end")
    }
}

impl std::error::Error for Unfinished {}

impl From<Infallible> for Unfinished {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl HttpBody {
    fn poll_frame(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        match &mut self.0 {
            Kind::Whole(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Unfinished::from)))
            }
            Kind::Stream(pieces) => match ready!(pieces.poll_recv(cx)) {
                Some(Piece::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::End) => {
                    self.0 = Kind::Over;
                    Poll::Ready(None)
                }
                None => {
                    // hyper drops at an error what it has not written yet, and writes at a pause.
                    self.0 = Kind::GivenUp;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
            Kind::GivenUp => Poll::Ready(Some(Err(Unfinished))),
            Kind::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(body) => body.is_end_stream(),
            Kind::Stream(_) | Kind::GivenUp => false,
            Kind::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(body) => body.size_hint(),
            Kind::Stream(_) | Kind::GivenUp => SizeHint::default(),
            Kind::Over => SizeHint::with_exact(0),
        }
    }
}

/// A body on its way out: the times of its connection begin when it is over, not with its head.
pub(crate) struct Outgoing {
    body: HttpBody,
    connection: Rc<Connection>,
}

impl Outgoing {
    pub(crate) fn new(body: HttpBody, connection: Rc<Connection>) -> Self {
        Self { body, connection }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.connection.on_answered();
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        self.body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
