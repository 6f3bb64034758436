//! A WebSocket whose messages are JSON or bytes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bowline_dial::{
    Message as Frame, Outbox,
    socket::{self, Socket, SocketEvent, SocketOptions},
};
use bowline_proto::keeper::{Level, OpenFailure, Verdict};
use bytes::Bytes;
use bytestring::ByteString;
use http::{StatusCode, Uri};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Unusable, Way, bytes_of, fill, host_of,
    reading::{Pointers, binary, content_id, kept_id, nonce_in},
    verdict::{of_close, of_refusal},
};
use crate::{
    far::{Boxed, Command, Connection, Event, Message, OpenHow, Outgoing, Profile, QUEUE},
    local::rules::{self, Answer, Asked, ConfirmedBy, Did, Noted, Rules},
    settings,
};

/// What a binary message begins with where it is kept: no text begins with that byte.
const BINARY: u8 = 0xFF;

/// A service behind a WebSocket.
pub struct WebSocket {
    options: SocketOptions,
    /// What is said first.
    hello: Option<ByteString>,
    reading: Pointers,
    /// What is sent as a routing probe, with `{nonce}` in it.
    probe: Option<String>,
    /// What acknowledges a message, with `{id}` in it.
    ack: Option<String>,
    host: String,
    pongs: Arc<Pongs>,
}

impl WebSocket {
    /// A service as the settings name it.
    pub(super) fn new(link: &settings::Link, way: Way) -> Result<Self, Unusable> {
        let settings::Profile::WebSocket {
            url,
            headers,
            hello,
            message_id,
            room,
            probe,
            ack,
            protocols,
        } = &link.profile
        else {
            return Err(Unusable("it is no WebSocket".to_owned()));
        };
        let token = link.token.as_ref();
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), fill(value.expose(), token)));
        let Way { trust, proxy } = way;
        let options = SocketOptions {
            headers: headers.collect(),
            protocols: protocols.clone(),
            proxy,
            trust,
            connect_timeout: link.http.connect_timeout,
            ..SocketOptions::new(url.clone())
        };
        Ok(Self {
            options,
            hello: hello.as_ref().map(|hello| fill(hello.expose(), token).into()),
            reading: Pointers { id: message_id.clone(), room: room.clone() },
            probe: probe.clone(),
            ack: ack.clone(),
            host: authority_of(url)?,
            pongs: Arc::new(Pongs::new(&link.name)),
        })
    }

    async fn open(&self) -> Result<Connection, OpenFailure> {
        let socket = socket::open(self.options.clone()).await.map_err(of_refusal)?;
        if let Some(hello) = &self.hello
            && socket.sender.send(Frame::Text(hello.clone())).await.is_err()
        {
            let words = "the service closed the connection at once".to_owned();
            return Err(OpenFailure { verdict: Verdict::Again, words, retry_after: None });
        }
        let (commands, command_receiver) = mpsc::channel(QUEUE);
        let (outbox, events) = Outbox::new(bytes_of);
        let driver = Driver {
            socket,
            reading: self.reading.clone(),
            probe: self.probe.clone(),
            ack: self.ack.clone(),
            commands: command_receiver,
            events: outbox,
            over: false,
            pongs: Arc::clone(&self.pongs),
            pings: 0,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        Ok(Connection { commands, events, address: None, tasks })
    }
}

impl Profile for WebSocket {
    fn open(&self, _how: OpenHow) -> Boxed<'_, Result<Connection, OpenFailure>> {
        // Names are looked up each time, and nothing else is kept of an address.
        Box::pin(self.open())
    }

    fn fetch<'a>(&'a self, message: &'a Message) -> Boxed<'a, Result<Bytes, String>> {
        Box::pin(std::future::ready(Ok(as_json(&message.body))))
    }

    fn can_probe(&self) -> bool {
        self.probe.is_some()
    }

    fn host(&self) -> String {
        self.host.clone()
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("host", &self.host).finish_non_exhaustive()
    }
}

/// One connection.
struct Driver {
    socket: Socket,
    reading: Pointers,
    probe: Option<String>,
    ack: Option<String>,
    commands: mpsc::Receiver<Command>,
    events: Outbox<Event>,
    over: bool,
    pongs: Arc<Pongs>,
    /// Since the last pong, or routing probe that came back.
    pings: u32,
}

/// Whether the service of a link answers pings. It must (RFC 6455 section 5.5.2), and some that work otherwise do not.
#[derive(Debug)]
struct Pongs {
    link: String,
    /// How often it was found that it does not. `None`: there was a pong once, or it was told.
    silent: Mutex<Option<u32>>,
}

/// How often it must be found, and how many pings must be unanswered when a routing probe comes back.
const SILENT: u32 = 3;

impl Pongs {
    fn new(link: &str) -> Self {
        Self { link: link.to_owned(), silent: Mutex::new(Some(0)) }
    }

    fn silent(&self) -> MutexGuard<'_, Option<u32>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There was a pong.
    fn has_one(&self) {
        *self.silent() = None;
    }

    /// A routing probe came back, and so many pings since the one before were not answered.
    fn are_missing(&self, pings: u32) {
        let mut silent = self.silent();
        let Some(times) = silent.as_mut().filter(|_| pings >= SILENT) else { return };
        *times += 1;
        if *times >= SILENT {
            *silent = None;
            tracing::warn!(
                link = self.link,
                "the service works and has never answered a WebSocket ping: the connection is doubted for it again and \
                 again. `ping-interval = \"0s\"` for the link ends that; its routing probes prove it then"
            );
        }
    }
}

/// What the loop woke up for.
enum Turn {
    Command(Command),
    Heard(Option<SocketEvent>),
    /// Events were taken, or frames were sent.
    Room,
}

impl Driver {
    async fn run(mut self) {
        while !self.over {
            let turn = self.choose().await;
            self.handle(turn).await;
            self.events.deliver();
        }
        self.events.finish().await;
    }

    /// Bounded both ways: events that are not taken stop the reading, frames that are not sent stop the taking of
    /// commands.
    async fn choose(&mut self) -> Turn {
        let (has_room, may_read) = (self.socket.sender.has_room(), !self.events.is_full());
        let sender = self.socket.sender.clone();
        tokio::select! {
            Some(command) = self.commands.recv(), if has_room => Turn::Command(command),
            () = sender.room(), if !has_room => Turn::Room,
            heard = self.socket.next(), if may_read => Turn::Heard(heard),
            () = self.events.room() => Turn::Room,
        }
    }

    async fn handle(&mut self, turn: Turn) {
        match turn {
            Turn::Command(command) => self.command(command).await,
            Turn::Heard(Some(event)) => self.heard(event),
            Turn::Heard(None) => self.over = true,
            Turn::Room => {}
        }
    }

    /// There is room for a frame.
    async fn command(&mut self, command: Command) {
        let sender = &self.socket.sender;
        match command {
            Command::Ping => {
                self.pings = self.pings.saturating_add(1);
                // That it is over is told by an event.
                let _ = sender.ping(Bytes::new()).await;
            }
            Command::Probe { nonce } => {
                let said = match &self.probe {
                    Some(probe) => {
                        let text = probe.replace("{nonce}", &nonce);
                        sender.send(Frame::Text(text.into())).await.map_err(|gone| gone.to_string())
                    }
                    None => Err("the link has no probe".to_owned()),
                };
                if let Err(words) = said {
                    self.events.push(Event::NotProbed { nonce, words });
                }
            }
            Command::Send(Outgoing { body, text, ask, .. }) => {
                let sent = match frame(body, text) {
                    Ok(frame) => sender.send(frame).await.map_err(|gone| gone.to_string()),
                    Err(words) => Err(words),
                };
                if let Some(ask) = ask {
                    let answer = sent.map(|()| Bytes::new()).map_err(Into::into);
                    self.events.push(Event::Answered { ask, answer });
                }
            }
            Command::Acknowledge { receipt } => {
                if let Some(ack) = &self.ack {
                    let text = ack.replace("{id}", &within_json(&receipt));
                    // One that is not sent is repeated by the service.
                    let _ = sender.send(Frame::Text(text.into())).await;
                }
            }
            Command::Close { within } => {
                let _ = sender.close(NORMAL_CLOSURE, "", within);
            }
            Command::Confirmed { id } => {
                let _ = sender.mark(id).await;
            }
            // Its protocol is not known: there are no pings of its own.
            Command::Ack => {}
        }
    }

    fn heard(&mut self, event: SocketEvent) {
        let event = match event {
            SocketEvent::Message(frame) => match nonce_in(frame.as_bytes()) {
                Some(nonce) => {
                    self.pongs.are_missing(std::mem::take(&mut self.pings));
                    Event::Probed { nonce }
                }
                None => Event::Message(self.message(&frame)),
            },
            SocketEvent::Pong(_) => {
                self.pongs.has_one();
                self.pings = 0;
                Event::Heard(Level::Pong)
            }
            SocketEvent::Heard => Event::Heard(Level::Tcp),
            SocketEvent::Written(id) => Event::Written { id },
            SocketEvent::Closed { code, reason, .. } => {
                self.over = true;
                let words = match code {
                    Some(code) => format!("the service closed with code {code} {reason}"),
                    None => reason,
                };
                Event::Closed { verdict: of_close(code), words: words.trim_end().to_owned() }
            }
        };
        self.events.push(event);
    }

    fn message(&self, frame: &Frame) -> Message {
        let json = match frame {
            Frame::Text(text) if !self.reading.are_none() => {
                serde_json::from_str::<Value>(text).ok()
            }
            Frame::Text(_) | Frame::Binary(_) => None,
        };
        let body = match frame {
            Frame::Text(text) => text.as_bytes().clone(),
            Frame::Binary(bytes) => [&[BINARY], &bytes[..]].concat().into(),
        };
        let id = json.as_ref().and_then(|json| self.reading.id(json));
        Message {
            own_id: id.is_some(),
            id: id.as_deref().map_or_else(|| content_id(&body), kept_id),
            room: json.as_ref().map(|json| self.reading.room(json)).unwrap_or_default(),
            receipt: id.filter(|_| self.ack.is_some()),
            confirm: true,
            body,
        }
    }
}

/// A text as it stands inside of a JSON string.
fn within_json(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The frame that a body was made of.
fn frame_of(body: &Bytes) -> Option<Frame> {
    match body.split_first() {
        Some((&BINARY, _)) => Some(Frame::Binary(body.slice(1..))),
        _ => ByteString::try_from(body.clone()).ok().map(Frame::Text),
    }
}

fn frame(body: Bytes, text: bool) -> Result<Frame, String> {
    if !text {
        return Ok(Frame::Binary(body));
    }
    let text = ByteString::try_from(body);
    text.map(Frame::Text).map_err(|_| "the message is no text".to_owned())
}

/// What an app gets of a body.
fn as_json(body: &Bytes) -> Bytes {
    match frame_of(body) {
        Some(Frame::Text(text)) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => {
            body.clone()
        }
        Some(Frame::Text(text)) => Value::from(&*text).to_string().into(),
        Some(Frame::Binary(bytes)) => binary(&bytes).to_string().into(),
        None => binary(body).to_string().into(),
    }
}

fn authority_of(url: &str) -> Result<String, Unusable> {
    let uri = url.parse::<Uri>().ok();
    let authority = uri.as_ref().and_then(Uri::authority);
    let authority = authority.ok_or_else(|| Unusable("its URL names no host".to_owned()))?;
    Ok(authority.as_str().to_ascii_lowercase())
}

/// Bots that would open the WebSocket themselves.
#[derive(Debug)]
pub struct WebSocketRules {
    host: String,
    path: String,
    /// What the link has said for the bot already.
    hello: Option<ByteString>,
}

impl WebSocketRules {
    /// The rules of a link.
    pub(super) fn new(link: &settings::Link) -> Result<Self, Unusable> {
        let settings::Profile::WebSocket { url, hello, .. } = &link.profile else {
            return Err(Unusable("it is no WebSocket".to_owned()));
        };
        let uri = url.parse::<Uri>().map_err(|error| Unusable(format!("its URL: {error}")))?;
        let hello = hello.as_ref().map(|hello| fill(hello.expose(), link.token.as_ref()).into());
        let path = if uri.path().is_empty() { "/" } else { uri.path() }.to_owned();
        Ok(Self { host: host_of(url)?, path, hello })
    }
}

impl Rules for WebSocketRules {
    fn hosts(&self) -> Vec<String> {
        vec![self.host.clone()]
    }

    fn is_socket(&self, host: &str, target: &str) -> bool {
        // What is in the query is often a token, or the time.
        let path = target.split('?').next().unwrap_or_default();
        host.eq_ignore_ascii_case(&self.host) && path == self.path
    }

    fn answer(&self, _request: &Asked<'_>, _socket_url: &str) -> Option<Answer> {
        None
    }

    fn observe(&self, _request: &Asked<'_>, _status: StatusCode, _body: &Bytes) -> Vec<Noted> {
        Vec::new()
    }

    fn socket(&self) -> Box<dyn rules::Socket> {
        Box::new(BotSocket { hello: self.hello.clone() })
    }
}

/// A bot's WebSocket: what it says goes to the service, but for the hello that the link has said.
#[derive(Debug)]
struct BotSocket {
    hello: Option<ByteString>,
}

impl rules::Socket for BotSocket {
    fn opened(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn heard(&mut self, frame: &Frame) -> Vec<Did> {
        let (body, text) = match frame {
            Frame::Text(text) if self.hello.as_ref() == Some(text) => {
                self.hello = None;
                return Vec::new();
            }
            Frame::Text(text) => (text.as_bytes().clone(), true),
            Frame::Binary(bytes) => (bytes.clone(), false),
        };
        vec![Did::Say(Outgoing { body, text, ask: None, reply_to: None })]
    }

    fn offer(&mut self, message: &Message, _attempt: u32) -> Option<Frame> {
        frame_of(&message.body)
    }

    fn pass(&mut self, body: &Bytes) -> Option<Frame> {
        frame_of(body)
    }

    /// A bot's library answers a ping when it has read what was sent before it.
    fn confirmed_by(&self) -> ConfirmedBy {
        ConfirmedBy::Pong
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// RFC 6455 section 7.4.1.
const NORMAL_CLOSURE: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_answers_no_ping_is_told_of_once_and_only_if_it_works() {
        let pongs = Pongs::new("ann");
        let missing = |pings| {
            pongs.are_missing(pings);
            *pongs.silent()
        };
        assert_eq!(missing(2), Some(0), "it had no time");
        assert_eq!([missing(3), missing(0), missing(9)], [Some(1), Some(1), Some(2)]);
        assert_eq!(missing(3), None, "told");
        assert_eq!(missing(3), None);

        let pongs = Pongs::new("ann");
        pongs.has_one();
        pongs.are_missing(3);
        assert_eq!(*pongs.silent(), None, "it can");
    }
}
