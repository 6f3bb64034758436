//! The WebSocket of a connection: dialled, read, written, closed.

use std::{
    fmt, future, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bowline_proto::{
    client::write_frame,
    engineio::{Packet, Version},
    wall::Lost,
    websocket::{
        DecodeConfig, Decoder, Incoming, Message, OpCode, Role, close_frame, encode,
        handshake::{ClientHandshake, HandshakeError},
    },
};
use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf},
    task::JoinSet,
    time::timeout,
};

use crate::{
    entropy::Entropy,
    limit::{KEPT_WRITE_BYTES, READ_BYTES, WEBSOCKET_CLOSE_MAX},
    target::Target,
    tls::Stream,
};

/// The one WebSocket that a session has at most.
pub(crate) struct WebSocket {
    state: State,
    entropy: Entropy,
    /// WebSockets that were given up and are being closed.
    closing: JoinSet<()>,
}

enum State {
    None,
    Dialling(JoinSet<Result<Open, String>>),
    Open(Box<Open>),
}

/// A connection whose handshake is done.
pub(crate) struct Open {
    pub(crate) stream: Stream,
    pub(crate) decoder: Decoder,
    pub(crate) config: DecodeConfig,
    /// Bytes that are to be decoded: at first, what came with the handshake's answer.
    pub(crate) input: Vec<u8>,
    /// How the reading ended, for whoever comes to it.
    pub(crate) end: Option<(Lost, String)>,
    /// Bytes that are to be written, from `written` on.
    pub(crate) out: Vec<u8>,
    written: usize,
    /// What was written is with the kernel.
    flushed: bool,
}

/// What happened to it.
#[derive(Debug)]
pub(crate) enum Heard {
    Opened,
    Message(Message),
    Pong,
    Lost { why: Lost, detail: String },
}

impl WebSocket {
    pub(crate) fn new() -> Self {
        Self { state: State::None, entropy: Entropy::new(), closing: JoinSet::new() }
    }

    /// Begins to open it.
    pub(crate) fn dial(&mut self, target: Arc<Target>, path: String) {
        let key = self.entropy.bytes();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let handshake = handshake(&target, &path, key);
            target.in_time("opening a WebSocket", handshake).await
        });
        self.state = State::Dialling(task);
    }

    /// Queues a packet; [`flush`](Self::flush) sends it.
    pub(crate) fn send(&mut self, version: Version, packet: &Packet) {
        if let State::Open(open) = &mut self.state {
            write_frame(&mut open.out, version, packet, self.entropy.bytes());
        }
    }

    /// Queues a ping, if it is open.
    pub(crate) fn ping(&mut self) {
        if let State::Open(open) = &mut self.state {
            encode(&mut open.out, OpCode::Ping, false, Some(self.entropy.bytes()), &[]);
        }
    }

    /// Bytes that wait to be written.
    pub(crate) fn unsent_bytes(&self) -> usize {
        match &self.state {
            State::Open(open) => open.unsent_bytes(),
            State::None | State::Dialling(_) => 0,
        }
    }

    /// Whether something is not with the kernel yet.
    pub(crate) fn has_unsent(&self) -> bool {
        matches!(&self.state, State::Open(open) if open.has_unsent())
    }

    /// Writes what can be written at once.
    pub(crate) fn flush(&mut self) -> Option<Heard> {
        let State::Open(open) = &mut self.state else { return None };
        let error = open.try_write().err()?;
        Some(self.lose(Lost::Failed, format!("writing: {error}")))
    }

    /// Waits until something can be done; [`take`](Self::take) does it. Waits for ever if there is
    /// no WebSocket. Nothing is lost if it is dropped.
    pub(crate) async fn ready(&mut self, may_read: bool) -> Ready {
        match &mut self.state {
            State::None => future::pending().await,
            State::Dialling(task) => match task.join_next().await {
                Some(Ok(Ok(open))) => Ready::Opened(Box::new(open)),
                Some(Ok(Err(detail))) => Ready::Failed(detail),
                Some(Err(error)) => Ready::Failed(error.to_string()),
                None => future::pending().await,
            },
            State::Open(open) => {
                open.ready(may_read).await;
                Ready::Open
            }
        }
    }

    /// Does what [`ready`](Self::ready) waited for and says what happened.
    pub(crate) fn take(&mut self, ready: Ready, may_read: bool) -> Vec<Heard> {
        match ready {
            Ready::Opened(open) => {
                self.state = State::Open(open);
                vec![Heard::Opened]
            }
            Ready::Failed(detail) => vec![self.lose(Lost::Failed, detail)],
            Ready::Open => {
                let mut heard = Vec::new();
                heard.extend(self.flush());
                if may_read {
                    self.read(&mut heard);
                }
                heard
            }
        }
    }

    /// Reads once and decodes all of it.
    fn read(&mut self, heard: &mut Vec<Heard>) {
        let State::Open(open) = &mut self.state else { return };
        // Whether there is more is asked again before anything is waited for.
        let _ = open.poll_read(&mut Context::from_waker(Waker::noop()));
        if let Some((why, detail)) = open.end.take() {
            heard.push(self.lose(why, detail));
            return;
        }

        let mut input = &mut open.input[..];
        let end = loop {
            match open.decoder.decode(&open.config, &mut input) {
                Ok(None) => break None,
                Ok(Some(Incoming::Message(message))) => heard.push(Heard::Message(message)),
                Ok(Some(Incoming::Ping(payload))) => {
                    let mask = Some(self.entropy.bytes());
                    encode(&mut open.out, OpCode::Pong, false, mask, &[&payload]);
                }
                Ok(Some(Incoming::Pong(_))) => heard.push(Heard::Pong),
                Ok(Some(Incoming::Close(close))) => {
                    let code =
                        close.code.map_or("no code".to_owned(), |code| format!("code {code}"));
                    let detail =
                        format!("the server closed the WebSocket with {code} {}", close.reason);
                    break Some((close.code, Lost::Closed, detail));
                }
                Err(error) => {
                    let why =
                        if error.close_code() == 1009 { Lost::TooBig } else { Lost::Protocol };
                    break Some((Some(error.close_code()), why, error.to_string()));
                }
            }
        };
        open.input.clear();
        if let Some((code, why, detail)) = end {
            self.close(code);
            heard.push(Heard::Lost { why, detail });
        }
    }

    /// Sends what is queued, a close frame, and closes. Nothing more is heard.
    pub(crate) fn close(&mut self, code: Option<u16>) {
        if let State::Open(mut open) = std::mem::replace(&mut self.state, State::None) {
            open.out.extend_from_slice(&close_frame(code, "", Some(self.entropy.bytes())));
            self.closing.spawn(async move {
                // Whether the goodbye arrives or not, it is over after that time.
                let _ = timeout(WEBSOCKET_CLOSE_MAX, open.finish()).await;
            });
        }
    }

    /// Waits until every WebSocket is closed, which is soon.
    pub(crate) async fn closed(&mut self) {
        while self.closing.join_next().await.is_some() {}
    }

    fn lose(&mut self, why: Lost, detail: String) -> Heard {
        self.state = State::None;
        Heard::Lost { why, detail }
    }
}

/// What a WebSocket is ready for.
pub(crate) enum Ready {
    Opened(Box<Open>),
    Failed(String),
    /// To be read or written.
    Open,
}

impl Open {
    /// Waits until something can be read or written. Nothing is lost if it is dropped.
    pub(crate) async fn ready(&mut self, may_read: bool) {
        if may_read && !self.input.is_empty() {
            return;
        }
        future::poll_fn(|cx| {
            let read = may_read && self.poll_read(cx).is_ready();
            // An error is found again by the write that follows.
            let written = self.has_unsent() && self.poll_write(cx).is_ready();
            if read || written { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Reads once, unless something is there to be taken.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.input.is_empty() || self.end.is_some() {
            return Poll::Ready(());
        }
        self.input.resize(READ_BYTES, 0);
        let mut buf = ReadBuf::new(&mut self.input);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
        let len = buf.filled().len();
        self.input.truncate(len);
        match ready!(polled) {
            Ok(()) if len > 0 => {}
            Ok(()) => {
                self.end = Some((Lost::Closed, "the server closed the connection".to_owned()));
            }
            Err(error) => self.end = Some((Lost::Failed, format!("reading: {error}"))),
        }
        Poll::Ready(())
    }

    /// Bytes that wait to be written.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    /// Whether something is not with the kernel yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.written < self.out.len() || !self.flushed
    }

    /// Writes until all is with the kernel.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            self.flushed = false;
            let unsent = &self.out[self.written..];
            self.written += ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))?;
        }
        self.written = 0;
        self.out.clear();
        self.out.shrink_to(KEPT_WRITE_BYTES);
        if !self.flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what can be written at once; who waits for the rest asks again.
    pub(crate) fn try_write(&mut self) -> io::Result<()> {
        match self.poll_write(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Writes the rest and reads until the server closes, which is its part (RFC 6455 section 7.1.1).
    /// A socket that is closed with unread input is reset, and the server may lose what was written
    /// last.
    pub(crate) async fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.stream.write_all(&self.out[self.written..]).await?;
        self.stream.flush().await?;
        self.input.resize(READ_BYTES, 0);
        while self.stream.read(&mut self.input).await? > 0 {}
        Ok(())
    }
}

/// Opens the connection and shakes hands.
async fn handshake(target: &Target, path: &str, key: [u8; 16]) -> Result<Open, String> {
    let shaken = shake(target, path, key, &target.headers).await;
    shaken.map(|(open, _)| open).map_err(|error| error.to_string())
}

/// Why hands were not shaken.
pub(crate) enum NotShaken {
    /// There was no answer, or one that is none.
    Failed(String),
    /// The server answered with another status than 101.
    Refused {
        status: u16,
        /// What came so far: the head, and perhaps more.
        received: Vec<u8>,
        stream: Stream,
    },
}

impl fmt::Display for NotShaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(words) => f.write_str(words),
            Self::Refused { status, .. } => HandshakeError::Refused { status: *status }.fmt(f),
        }
    }
}

/// Opens the connection and shakes hands, with these headers. The head of the answer comes along.
pub(crate) async fn shake(
    target: &Target,
    path: &str,
    key: [u8; 16],
    headers: &[(String, String)],
) -> Result<(Open, Vec<u8>), NotShaken> {
    let handshake = ClientHandshake::new(&target.authority, path, key, headers, false)
        .map_err(|error| NotShaken::Failed(error.to_string()))?;
    let mut stream = target.connect().await.map_err(NotShaken::Failed)?;
    let broken = |error: io::Error| NotShaken::Failed(error.to_string());
    stream.write_all(handshake.request()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut input = Vec::new();
    loop {
        if stream.read_buf(&mut input).await.map_err(broken)? == 0 {
            return Err(NotShaken::Failed("the server closed the connection".to_owned()));
        }
        match handshake.check_response(&input) {
            Ok(None) => {}
            Ok(Some(agreed)) => {
                let rest = input.split_off(agreed.head_bytes);
                let config = DecodeConfig {
                    max_message_bytes: target.max_message_bytes,
                    deflate: agreed.deflate,
                };
                let open = Open {
                    stream,
                    decoder: Decoder::new(Role::Client),
                    config,
                    input: rest,
                    end: None,
                    out: Vec::new(),
                    written: 0,
                    flushed: true,
                };
                return Ok((open, input));
            }
            Err(HandshakeError::Refused { status }) => {
                return Err(NotShaken::Refused { status, received: input, stream });
            }
            Err(error) => return Err(NotShaken::Failed(error.to_string())),
        }
    }
}
