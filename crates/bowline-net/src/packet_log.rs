//! The packets of chosen sessions, in the log, for as long as an operator wants to see them.
//!
//! Off, it costs one look at whether a list is empty.

use std::time::Duration;

use bowline_proto::{
    Hub, SessionKey, Sid, Time, TransportId,
    engineio::payload,
    hub::SocketView,
    wall::PollBody,
    websocket::{Message as Payload, OpCode},
};
use bytes::Bytes;

use crate::limit;

/// Packets cannot be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketLogError {
    /// No socket has this Socket.IO sid.
    UnknownSocket,
    /// As many sessions of its shard are logged as may be.
    TooMany,
}

impl std::fmt::Display for PacketLogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownSocket => "no socket has this sid",
            Self::TooMany => "the packets of too many sessions are logged already",
        })
    }
}

impl std::error::Error for PacketLogError {}

/// The sessions of one shard whose packets are logged.
#[derive(Debug, Default)]
pub(crate) struct PacketLogs(Vec<Watched>);

#[derive(Debug)]
struct Watched {
    /// The Socket.IO sid it was asked for by.
    socket: Sid,
    /// Nobody's while the socket is away.
    session: SessionKey,
    until: Time,
    /// Since when the socket is not on this shard: it has gone, or its client came back to another one,
    /// which is about to say so.
    missing: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl PacketLogs {
    /// Whether any session is logged.
    pub(crate) fn is_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the session of this socket is logged, or will be once it has one again.
    pub(crate) fn has(&self, socket: &SocketView<'_>) -> bool {
        self.0.iter().any(|watched| {
            watched.socket == socket.id || (!socket.away && watched.session == socket.session)
        })
    }

    /// Gives up a socket that is on another shard now, and says how long it is to be logged.
    pub(crate) fn give(&mut self, socket: Sid) -> Option<Time> {
        let at = self.0.iter().position(|watched| watched.socket == socket)?;
        Some(self.0.swap_remove(at).until)
    }

    /// Takes on a socket that came from another shard.
    pub(crate) fn take(&mut self, socket: Sid, until: Time) {
        if self.0.len() < limit::PACKET_LOGS {
            self.0.push(Watched { socket, session: SessionKey::default(), until, missing: None });
        }
    }

    /// Logs the packets of a socket's session for some time, or no longer.
    pub(crate) fn set(
        &mut self,
        now: Time,
        hub: &Hub,
        socket: Sid,
        on_for: Option<Duration>,
    ) -> Result<(), PacketLogError> {
        self.prune(now, hub);
        let view = hub.find_socket(socket).and_then(|key| hub.socket(key));
        let view = view.ok_or(PacketLogError::UnknownSocket)?;
        let session = view.session;
        let known = self.0.iter().position(|watched| match view.away {
            true => watched.socket == socket,
            false => watched.session == session,
        });
        match (on_for, known) {
            (None, None) => {}
            (None, Some(at)) => {
                self.0.swap_remove(at);
                tracing::info!(target: TARGET, sid = %socket, "packets are logged no longer");
            }
            (Some(_), None) if self.0.len() >= limit::PACKET_LOGS => {
                return Err(PacketLogError::TooMany);
            }
            (Some(on_for), known) => {
                let until = now + on_for.min(limit::PACKET_LOG_MAX);
                match known {
                    Some(at) => self.0[at].until = until,
                    None => self.0.push(Watched { socket, session, until, missing: None }),
                }
                let seconds = on_for.min(limit::PACKET_LOG_MAX).as_secs();
                tracing::info!(target: TARGET, sid = %socket, seconds, "packets are logged");
            }
        }
        Ok(())
    }

    /// A WebSocket message arrived.
    pub(crate) fn on_message(
        &mut self,
        now: Time,
        hub: &Hub,
        transport: TransportId,
        message: &Payload,
    ) {
        if let Some(socket) = self.of_transport(now, hub, transport) {
            write(socket, Direction::In, "websocket", message);
        }
    }

    /// Frames go to a WebSocket.
    pub(crate) fn on_frames(
        &mut self,
        now: Time,
        hub: &Hub,
        transport: TransportId,
        frames: &[u8],
    ) {
        let Some(socket) = self.of_transport(now, hub, transport) else { return };
        let mut rest = frames;
        while let Some((frame, next)) = Frame::first_of(rest) {
            rest = next;
            let bytes = frame.payload.len();
            match (frame.opcode, frame.compressed, str::from_utf8(frame.payload)) {
                (TEXT, false, Ok(text)) => write_text(socket, Direction::Out, "websocket", text),
                (BINARY, ..) => write_unread(socket, Direction::Out, bytes, "binary"),
                (TEXT, ..) => write_unread(socket, Direction::Out, bytes, "compressed"),
                _ => {}
            }
        }
    }

    /// A polling body arrived.
    pub(crate) fn on_post(
        &mut self,
        now: Time,
        hub: &Hub,
        session: Sid,
        body: &Bytes,
        binary: bool,
    ) {
        let Some((socket, view)) = self.of_session(now, hub, session) else { return };
        let mut packets = Vec::new();
        // What is broken is the session's end, which the log says elsewhere.
        let _ = payload::decode_into(view.version, body.clone(), binary, usize::MAX, &mut packets);
        for packet in packets {
            match packet.data {
                Payload::Text(text) => {
                    let text = format!("{}{text}", char::from(packet.kind.digit()));
                    write_text(socket, Direction::In, "polling", &text);
                }
                data @ Payload::Binary(_) => write(socket, Direction::In, "polling", &data),
            }
        }
    }

    /// A polling body goes out.
    pub(crate) fn on_payload(&mut self, now: Time, hub: &Hub, session: Sid, body: &PollBody) {
        let Some((socket, _)) = self.of_session(now, hub, session) else { return };
        match body {
            PollBody::Text(body) | PollBody::Script(body) => {
                // Revision 4 parts packets so; a body of another kind is one piece.
                for packet in String::from_utf8_lossy(body).split('\u{1e}') {
                    write_text(socket, Direction::Out, "polling", packet);
                }
            }
            PollBody::Binary(body) => write_unread(socket, Direction::Out, body.len(), "binary"),
        }
    }

    fn of_transport(&mut self, now: Time, hub: &Hub, transport: TransportId) -> Option<Sid> {
        self.prune(now, hub);
        let serves = |watched: &&Watched| {
            hub.session(watched.session).is_some_and(|view| view.websocket == Some(transport))
        };
        self.0.iter().find(serves).map(|watched| watched.socket)
    }

    fn of_session(
        &mut self,
        now: Time,
        hub: &Hub,
        session: Sid,
    ) -> Option<(Sid, bowline_proto::hub::SessionView)> {
        self.prune(now, hub);
        let key = hub.find_session(session)?;
        let watched = self.0.iter().find(|watched| watched.session == key)?;
        Some((watched.socket, hub.session(key)?))
    }

    /// Drops those whose time is over, and those that have gone with their session. A socket that was
    /// kept goes on in its next one.
    fn prune(&mut self, now: Time, hub: &Hub) {
        self.0.retain_mut(|watched| {
            if hub.session(watched.session).is_none() {
                let view = hub.find_socket(watched.socket).and_then(|key| hub.socket(key));
                watched.session = view.map(|view| view.session).unwrap_or_default();
                watched.missing = if view.is_some() { None } else { watched.missing.or(Some(now)) };
            }
            let gone = watched.missing.is_some_and(|since| now - since > limit::PACKET_LOG_MISSING);
            let goes_on = now < watched.until && !gone;
            if !goes_on {
                tracing::info!(target: TARGET, sid = %watched.socket, "packets are logged no longer");
            }
            goes_on
        });
    }
}

/// The target of all that is written here.
const TARGET: &str = "packets";

const TEXT: u8 = OpCode::Text as u8;
const BINARY: u8 = OpCode::Binary as u8;

fn write(socket: Sid, direction: Direction, transport: &'static str, message: &Payload) {
    match message {
        Payload::Text(text) => write_text(socket, direction, transport, text),
        Payload::Binary(bytes) => write_unread(socket, direction, bytes.len(), "binary"),
    }
}

fn write_text(socket: Sid, direction: Direction, transport: &'static str, text: &str) {
    let bytes = text.len();
    let direction = direction.name();
    let packet = shown(text, direction == Direction::In.name());
    tracing::info!(target: TARGET, sid = %socket, direction, transport, bytes, packet, "packet");
}

fn write_unread(socket: Sid, direction: Direction, bytes: usize, content: &'static str) {
    let direction = direction.name();
    tracing::info!(target: TARGET, sid = %socket, direction, bytes, content, "packet");
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// The beginning of a packet, without what a client presents to be let in.
fn shown(text: &str, incoming: bool) -> String {
    let secret_from = match text.as_bytes() {
        // CONNECT: the name of the namespace may be seen, its query and the auth behind it not.
        [b'4', b'0', ..] if incoming => {
            text.find([',', '{', '?']).map(|at| match text.as_bytes()[at] {
                b',' => at + 1,
                _ => at,
            })
        }
        // The sid in an open packet stands for the whole session.
        [b'0', ..] => Some(1),
        _ => None,
    };
    match secret_from {
        Some(from) if from < text.len() => format!("{}…", &text[..from]),
        _ => match text.char_indices().nth(limit::PACKET_LOG_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        },
    }
}

/// One frame of a server's, which has no mask.
struct Frame<'a> {
    opcode: u8,
    compressed: bool,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits the first frame off, if it is whole.
    fn first_of(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (len, rest) = match second & 0x7f {
            126 => {
                let (len, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*len)), rest)
            }
            127 => {
                let (len, rest) = rest.split_first_chunk()?;
                (usize::try_from(u64::from_be_bytes(*len)).ok()?, rest)
            }
            len => (usize::from(len), rest),
        };
        let (payload, rest) = rest.split_at_checked(len)?;
        Some((Self { opcode: first & 0x0f, compressed: first & 0x40 != 0, payload }, rest))
    }
}

#[cfg(test)]
mod tests {
    use bowline_proto::websocket::{OpCode, server_frame};

    use super::{Frame, shown};

    #[test]
    fn what_a_client_presents_to_be_let_in_is_not_shown() {
        for (packet, seen) in [
            ("40", "40"),
            (r#"40{"token":"s3cret"}"#, "40…"),
            (r#"40/chat,{"token":"s3cret"}"#, "40/chat,…"),
            ("40/chat,", "40/chat,"),
            ("40/chat?token=s3cret,", "40/chat…"),
            ("40/chat?token=s3cret", "40/chat…"),
            (r#"42["say","hi"]"#, r#"42["say","hi"]"#),
            ("2", "2"),
        ] {
            assert_eq!(shown(packet, true), seen);
        }
        assert_eq!(shown(r#"0{"sid":"s3cret"}"#, false), "0…");
        assert_eq!(shown(r#"40{"sid":"public"}"#, false), r#"40{"sid":"public"}"#);
    }

    #[test]
    fn only_the_beginning_of_a_packet_is_shown_in_whole_characters() {
        let long = format!("42[\"{}\"]", "ü".repeat(500));
        let seen = shown(&long, true);
        assert_eq!(seen.chars().count(), 201);
        assert!(seen.ends_with("ü…"));
    }

    #[test]
    fn frames_behind_one_another_are_told_apart_whatever_their_length() {
        let lengths = [0, 1, 125, 126, 65_535, 65_536];
        let payloads: Vec<Vec<u8>> = lengths.iter().map(|len| vec![b'x'; *len]).collect();
        let frames: Vec<u8> = payloads
            .iter()
            .flat_map(|payload| server_frame(OpCode::Text, &[payload]).to_vec())
            .collect();
        let mut rest = &*frames;
        for payload in &payloads {
            let (frame, next) = Frame::first_of(rest).unwrap();
            assert_eq!((frame.opcode, frame.payload), (1, &**payload));
            rest = next;
        }
        assert!(rest.is_empty());
        for end in 0..frames.len().min(300) {
            // Half a frame is none, and no reason to panic.
            let mut rest = &frames[..end];
            while let Some((_, next)) = Frame::first_of(rest) {
                rest = next;
            }
        }
    }
}
