//! One server, spoken to request by request: for checks that must know which step went wrong, and
//! how. Sessions are the business of [`connect`](crate::connect); here nothing is repeated, and
//! nothing but [`Options::connect_timeout`] has a deadline.

use std::{io, time::Duration};

use bowline_proto::websocket::{Incoming, Message, OpCode, close_frame, encode};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};

use crate::{
    ConnectError, Options,
    entropy::Entropy,
    limit::READ_BYTES,
    target::Target,
    websocket::{NotShaken, Open, shake},
};

/// A server, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Wire {
    target: Target,
    prefix: String,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What `Server` says: proxies name themselves there.
    pub server: Option<String>,
    /// What `Content-Type` says.
    pub content_type: Option<String>,
    /// What `Retry-After` says: whoever sends it wants to be asked again.
    pub retry_after: Option<String>,
    /// The body; empty where a WebSocket was asked for.
    pub body: Bytes,
}

/// Why there is no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The server answered with something else than 101.
    Answered(Answer),
    /// There was no answer, or one that is none.
    Failed(String),
}

impl Wire {
    /// Takes the address of a server; a path in it is put before every path that is asked for.
    /// Of the options, those of the protocol do not matter.
    ///
    /// # Errors
    ///
    /// The URL cannot be dialled.
    pub fn new(url: &str, options: &Options) -> Result<Self, ConnectError> {
        let (target, rest) = Target::parse(url, options)?;
        let prefix = rest.namespace.trim_end_matches('/').to_owned();
        Ok(Self { target, prefix })
    }

    /// Makes one request, on a connection of its own: a POST if there is a body, else a GET. `path`
    /// begins with a slash and may have a query.
    ///
    /// # Errors
    ///
    /// There was no whole answer. The text says how far it went.
    pub async fn request(&self, path: &str, body: Option<&str>) -> Result<Answer, String> {
        let target = &self.target;
        let mut request = Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(format!("{}{path}", self.prefix))
            .header(header::HOST, &target.authority)
            .header(header::CONNECTION, "close")
            .header(header::ACCEPT, "*/*");
        for (name, value) in &target.headers {
            request = request.header(name, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "text/plain;charset=UTF-8");
        }
        let body = Full::new(Bytes::copy_from_slice(body.unwrap_or_default().as_bytes()));
        let request = request.body(body).map_err(|error| error.to_string())?;

        let stream = target.connect().await?;
        let handshake = http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| words(&error))?;
        // The one task that moves the bytes; it ends with this request.
        let mut moving = JoinSet::new();
        moving.spawn(async move {
            // Its errors are those of the request, which reports them.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| words(&error))?;
        let text = |name| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let (server, content_type) = (text(header::SERVER), text(header::CONTENT_TYPE));
        let retry_after = text(header::RETRY_AFTER);
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), target.max_message_bytes).collect();
        let body = body.await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, server, content_type, retry_after, body })
    }

    /// Opens a WebSocket, without compression.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn websocket(&self, path: &str) -> Result<WireSocket, Refusal> {
        let mut entropy = Entropy::new();
        let (target, path) = (&self.target, format!("{}{path}", self.prefix));
        match shake(target, &path, entropy.bytes(), &target.headers).await {
            Ok((open, _)) => Ok(WireSocket { open, entropy }),
            Err(NotShaken::Refused { status, received, .. }) => {
                Err(Refusal::Answered(refusal(status, &received)))
            }
            Err(NotShaken::Failed(words)) => Err(Refusal::Failed(words)),
        }
    }
}

/// Reads what else the head of an answer says.
fn refusal(status: u16, head: &[u8]) -> Answer {
    let head = String::from_utf8_lossy(head);
    let find = |wanted: &str| {
        let lines = head.lines().take_while(|line| !line.is_empty());
        let mut headers = lines.filter_map(|line| line.split_once(':'));
        let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some(value.trim().to_owned())
    };
    Answer {
        status,
        server: find("server"),
        content_type: find("content-type"),
        retry_after: find("retry-after"),
        body: Bytes::new(),
    }
}

/// An open WebSocket. Dropped, the connection is closed without a goodbye.
pub struct WireSocket {
    open: Open,
    entropy: Entropy,
}

impl WireSocket {
    /// Sends a text.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub async fn send(&mut self, text: &str) -> Result<(), String> {
        self.send_frame(OpCode::Text, text.as_bytes()).await
    }

    /// The next message. Pings are answered.
    ///
    /// # Errors
    ///
    /// The WebSocket is over. The text says how it ended.
    pub async fn receive(&mut self) -> Result<Message, String> {
        loop {
            let Open { decoder, config, input, .. } = &mut self.open;
            let mut unread = &mut input[..];
            let decoded = decoder.decode(config, &mut unread);
            let left = unread.len();
            input.drain(..input.len() - left);
            match decoded.map_err(|error| error.to_string())? {
                Some(Incoming::Message(message)) => return Ok(message),
                Some(Incoming::Ping(payload)) => self.send_frame(OpCode::Pong, &payload).await?,
                Some(Incoming::Pong(_)) => {}
                Some(Incoming::Close(close)) => {
                    let code = close.code.map_or("no code".to_owned(), |it| format!("code {it}"));
                    return Err(format!("the WebSocket was closed with {code}"));
                }
                None => {
                    let Open { stream, input, .. } = &mut self.open;
                    input.reserve(READ_BYTES);
                    let read = stream.read_buf(input).await;
                    if read.map_err(|error| error.to_string())? == 0 {
                        return Err(HUNG_UP.to_owned());
                    }
                }
            }
        }
    }

    /// Says goodbye, and waits until the other end closes too, at most so long.
    pub async fn close(mut self, patience: Duration) {
        let frame = close_frame(Some(NORMAL_CLOSURE), "", Some(self.entropy.bytes()));
        let Open { stream, input, .. } = &mut self.open;
        let goodbye = async {
            stream.write_all(&frame).await?;
            stream.flush().await?;
            input.resize(READ_BYTES, 0);
            while stream.read(input).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether it is heard or not, it is over after that time.
        let _ = timeout(patience, goodbye).await;
    }

    async fn send_frame(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), String> {
        let mut frame = Vec::new();
        encode(&mut frame, opcode, false, Some(self.entropy.bytes()), &[payload]);
        let stream = &mut self.open.stream;
        let writing = async {
            stream.write_all(&frame).await?;
            stream.flush().await
        };
        writing.await.map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for WireSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireSocket").finish_non_exhaustive()
    }
}

/// What hyper says, and what was behind it.
fn words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return HUNG_UP.to_owned();
    }
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

const HUNG_UP: &str = "the connection was closed without an answer";

/// RFC 6455 section 7.4.1.
const NORMAL_CLOSURE: u16 = 1000;
