//! One client: its connections, and what it makes of what it hears.

use std::time::Instant;

use super::lane::Lane;
use crate::{
    error::Error,
    wire::{
        http, packet,
        packet::Packet,
        polling,
        script::Script,
        websocket::{self, opcode},
    },
};

/// A client.
#[derive(Debug)]
pub(crate) struct Session {
    /// The WebSocket, or the connection without a protocol.
    pub(crate) main: Option<Main>,
    /// What it polls with, until it has upgraded.
    pub(crate) http: Option<Box<Http>>,
    pub(crate) ear: Ear,
    /// The ack id that its next event has.
    pub(crate) next_ack: u32,
    /// Whether it is in its namespace.
    pub(crate) joined: bool,
    pub(crate) begun: Instant,
}

/// The connection that messages take.
#[derive(Debug)]
pub(crate) struct Main {
    pub(crate) lane: Lane,
    /// Whether it still awaits `101 Switching Protocols`, or the hello of the floor.
    pub(crate) greeting: bool,
    /// Without a protocol: the bytes of an event that has not arrived whole.
    pub(crate) left_over: usize,
}

/// Long-polling: a connection that awaits what the server says, another that speaks.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) get: Lane,
    /// Browsers open it when they need it; servers may close it when it is idle.
    pub(crate) post: Option<Lane>,
    /// Known since the engine is open.
    pub(crate) named: Option<Box<Named>>,
    pub(crate) polling: bool,
    pub(crate) posting: bool,
    /// What waits until the last post is answered.
    pub(crate) connect: bool,
    pub(crate) pongs: usize,
    pub(crate) events: usize,
    /// Whether the WebSocket works: then nothing new is polled or posted.
    pub(crate) pausing: bool,
}

/// Requests with the id of the session.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) poll: http::Numbered,
    /// The head of a post, up to the length of its body.
    pub(crate) post: http::Numbered,
}

/// What is known between one packet and the next.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    /// Attachments that are still to come.
    attachments: usize,
    /// Whether what they belong to is a message.
    counts: bool,
    /// Whether the namespace has let the session in.
    pub(crate) connected: bool,
}

/// What one read was worth.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) messages: usize,
    pub(crate) pongs_due: usize,
    /// The id in an open packet.
    pub(crate) opened: Option<String>,
    /// Whether the namespace has let the session in.
    pub(crate) connected: bool,
    /// Whether a new WebSocket works.
    pub(crate) probed: bool,
    /// What a WebSocket's own ping asks to have back.
    pub(crate) echo: Option<Vec<u8>>,
    /// Packets that are no messages, and not for the protocol.
    pub(crate) others: usize,
}

impl Heard {
    /// Whether there is anything but messages.
    #[inline]
    pub(crate) fn calls(&self) -> bool {
        self.pongs_due > 0
            || self.connected
            || self.probed
            || self.opened.is_some()
            || self.echo.is_some()
            || self.others > 0
    }
}

impl Ear {
    /// Takes all whole frames. Returns how many bytes they were.
    pub(crate) fn hear_frames(
        &mut self,
        script: &Script,
        input: &[u8],
        heard: &mut Heard,
    ) -> Result<usize, Error> {
        let mut rest = input;
        while let Some(frame) = websocket::split(rest) {
            rest = frame.rest;
            match frame.opcode {
                opcode::TEXT => self.hear_text(script, frame.payload, heard)?,
                opcode::BINARY => self.hear_attachment(heard),
                // The first frame of a message says what it is.
                opcode::CONTINUATION | opcode::PONG => {}
                opcode::PING => heard.echo = Some(frame.payload.to_vec()),
                opcode::CLOSE => return Err(closed(frame.payload)),
                other => return Err(Error::failed(format!("a frame has the opcode {other}"))),
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Takes the packets of a polling body.
    pub(crate) fn hear_body(
        &mut self,
        script: &Script,
        body: &[u8],
        heard: &mut Heard,
    ) -> Result<(), Error> {
        for packet in polling::split(body) {
            match packet {
                [b'b', ..] => self.hear_attachment(heard),
                text => self.hear_text(script, text, heard)?,
            }
        }
        Ok(())
    }

    fn hear_text(&mut self, script: &Script, text: &[u8], heard: &mut Heard) -> Result<(), Error> {
        let said = || String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
        match packet::read(text) {
            Some(Packet::Event { attachments, body }) => {
                self.hear_message(
                    attachments,
                    !script.ack && body.starts_with(&script.expected),
                    heard,
                );
            }
            Some(Packet::Ack { attachments }) => self.hear_message(attachments, script.ack, heard),
            Some(Packet::Ping) => heard.pongs_due += 1,
            Some(Packet::Open(json)) => {
                #[derive(serde::Deserialize)]
                struct Open {
                    sid: String,
                }
                let open: Open = serde_json::from_slice(json).map_err(|_| {
                    Error::failed(format!("an open packet without a sid: {}", said()))
                })?;
                heard.opened = Some(open.sid);
            }
            Some(Packet::Connected) => {
                self.connected = true;
                heard.connected = true;
            }
            Some(Packet::Pong(b"probe")) => heard.probed = true,
            Some(Packet::Pong(_) | Packet::Noop) => {}
            Some(Packet::Refused(_)) => {
                return Err(Error::failed(format!(
                    "the namespace refused a session: {}; --namespace says which one is joined",
                    said()
                )));
            }
            Some(Packet::Disconnected | Packet::Close) => {
                return Err(Error::failed(format!(
                    "the server sent a session away ({}): {WHY_AWAY}",
                    said()
                )));
            }
            None => {
                return Err(Error::failed(format!(
                    "the server said what is no packet: {}",
                    said()
                )));
            }
        }
        Ok(())
    }

    fn hear_message(&mut self, attachments: usize, counts: bool, heard: &mut Heard) {
        if attachments > 0 {
            self.attachments = attachments;
            self.counts = counts;
        } else if counts {
            heard.messages += 1;
        } else {
            heard.others += 1;
        }
    }

    fn hear_attachment(&mut self, heard: &mut Heard) {
        self.attachments = self.attachments.saturating_sub(1);
        if self.attachments == 0 {
            let counts = self.counts;
            self.hear_message(0, counts, heard);
        }
    }
}

/// Where to look when a server gets rid of a session.
const WHY_AWAY: &str = "a limit may have been reached, such as Bowline's limits.events-per-second and limits.queued-bytes-per-session";

/// What a close frame says.
fn closed(payload: &[u8]) -> Error {
    let (code, reason) = payload.split_at_checked(2).unwrap_or_default();
    let code = code.try_into().map_or(1005, u16::from_be_bytes);
    let reason = String::from_utf8_lossy(reason);
    Error::failed(format!("the server closed a WebSocket ({code} {reason}): {WHY_AWAY}"))
}

/// Why a request was answered with this.
pub(crate) fn refused(response: &http::Response<'_>) -> Error {
    let advice = match response.status {
        429 => {
            "; it lets in so many a second: --parallel 1, or raise Bowline's limits.handshakes-per-second"
        }
        503 => {
            "; it has as many connections as it takes: raise its limit on open files, or Bowline's limits.connections"
        }
        404 => "; the path of the engine can stand in --target",
        _ => "",
    };
    let body = &response.body[..response.body.len().min(200)];
    let body = String::from_utf8_lossy(body);
    Error::failed(format!("the server answered {} {}{advice}", response.status, body.trim()))
}
