//! The body of an answer to a bot: whole, or passed on as it comes.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bowline_dial::{LegBody, LegFailure};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::connect::Watched;
use crate::far::Boxed;

/// What a bot gets after the head.
pub(super) struct Body {
    state: State,
    /// What is told of the exchange in the end.
    watched: Option<Box<Watched>>,
}

enum State {
    Whole(Option<Bytes>),
    /// Waits for somebody to read.
    Kept(LegBody),
    Reading(Boxed<'static, (LegBody, Option<Result<Bytes, LegFailure>>)>),
    Ended,
}

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { state: State::Whole(Some(bytes)), watched: None }
    }

    pub(super) fn empty() -> Self {
        Self { state: State::Whole(None), watched: None }
    }

    /// Passes on what the service answers, and tells at the end what was seen.
    pub(super) fn passed_on(body: LegBody, watched: Watched) -> Self {
        Self { state: State::Kept(body), watched: Some(Box::new(watched)) }
    }
}

impl Drop for Body {
    /// Whoever sends it knows its end from its length, and does not ask for it; and a bot that hung up has got its
    /// answer all the same.
    fn drop(&mut self) {
        if let Some(watched) = self.watched.take() {
            watched.tell();
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = LegFailure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LegFailure>>> {
        loop {
            match &mut self.state {
                State::Whole(bytes) => {
                    let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                    return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
                }
                State::Kept(_) => {
                    if let State::Kept(mut body) = std::mem::replace(&mut self.state, State::Ended)
                    {
                        self.state = State::Reading(Box::pin(async move {
                            let piece = body.chunk().await;
                            (body, piece)
                        }));
                    }
                }
                State::Reading(reading) => match ready!(reading.as_mut().poll(cx)) {
                    (body, Some(Ok(piece))) => {
                        self.state = State::Kept(body);
                        if let Some(watched) = &mut self.watched {
                            watched.see(&piece);
                        }
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    (_, Some(Err(failure))) => {
                        self.state = State::Ended;
                        self.watched = None;
                        return Poll::Ready(Some(Err(failure)));
                    }
                    (_, None) => {
                        self.state = State::Ended;
                        return Poll::Ready(None);
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            State::Kept(_) | State::Reading(_) => false,
            State::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            State::Kept(_) | State::Reading(_) | State::Ended => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
