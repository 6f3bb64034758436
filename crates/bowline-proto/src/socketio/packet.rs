//! Packets, and how they are written.

use bytes::Bytes;
use bytestring::ByteString;

use super::Args;
use crate::engineio::Version;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A client asks to join a namespace; the server agrees.
    Connect {
        /// The namespace; `/` is the root.
        namespace: ByteString,
        /// A JSON object: what the client says of itself, or the sid the server gives.
        auth: Option<ByteString>,
    },
    /// Either side leaves a namespace.
    Disconnect {
        /// The namespace.
        namespace: ByteString,
    },
    /// An event; its name is the first argument.
    Event {
        /// The namespace.
        namespace: ByteString,
        /// Under which id the sender wants it acked.
        ack: Option<u64>,
        /// Name and arguments.
        args: Args,
    },
    /// The answer to an event.
    Ack {
        /// The namespace.
        namespace: ByteString,
        /// The id the event gave.
        id: u64,
        /// What is answered.
        args: Args,
    },
    /// The server refuses a CONNECT.
    ConnectError {
        /// The namespace.
        namespace: ByteString,
        /// JSON: an object with `message`; in Socket.IO 4 any value.
        data: ByteString,
    },
}

impl Packet {
    /// The name of the root namespace, which is not written on the wire.
    pub const ROOT: ByteString = ByteString::from_static("/");

    /// The namespace it belongs to.
    pub fn namespace(&self) -> &ByteString {
        match self {
            Self::Connect { namespace, .. }
            | Self::Disconnect { namespace }
            | Self::Event { namespace, .. }
            | Self::Ack { namespace, .. }
            | Self::ConnectError { namespace, .. } => namespace,
        }
    }
}

/// A packet as it is sent: one text message, then its attachments as binary messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The text message.
    pub text: ByteString,
    /// The binary messages.
    pub attachments: Vec<Bytes>,
}

/// Writes a packet. In revision 3 (Socket.IO 4) a CONNECT has no payload.
pub fn encode(version: Version, packet: &Packet) -> Encoded {
    let (mut text, payload, attachments) = match packet {
        Packet::Connect { namespace, auth } => {
            let auth = auth.as_deref().filter(|_| version == Version::V4);
            (header("0", 0, namespace, None), auth, &[][..])
        }
        Packet::Disconnect { namespace } => (header("1", 0, namespace, None), None, &[][..]),
        Packet::Event { namespace, ack, args } => {
            (event_header(namespace, *ack, args), Some(&**args.json()), args.attachments())
        }
        Packet::Ack { namespace, id, args } => {
            (ack_header(namespace, *id, args), Some(&**args.json()), args.attachments())
        }
        Packet::ConnectError { namespace, data } => {
            (header("4", 0, namespace, None), Some(&**data), &[][..])
        }
    };
    text.push_str(payload.unwrap_or_default());
    Encoded { text: text.into(), attachments: attachments.to_vec() }
}

/// Writes what stands before the JSON of an event, so that both can go into a frame without being joined first.
pub fn event_header(namespace: &str, ack: Option<u64>, args: &Args) -> String {
    let kind = if args.attachments().is_empty() { "2" } else { "5" };
    header(kind, args.attachments().len(), namespace, ack)
}

/// Writes what stands before the JSON of an ack.
pub fn ack_header(namespace: &str, id: u64, args: &Args) -> String {
    let kind = if args.attachments().is_empty() { "3" } else { "6" };
    header(kind, args.attachments().len(), namespace, Some(id))
}

fn header(kind: &str, attachments: usize, namespace: &str, id: Option<u64>) -> String {
    let mut out = String::with_capacity(namespace.len() + 24);
    out.push_str(kind);
    if attachments > 0 {
        out.push_str(&attachments.to_string());
        out.push('-');
    }
    if namespace != "/" {
        out.push_str(namespace);
        out.push(',');
    }
    if let Some(id) = id {
        out.push_str(&id.to_string());
    }
    out
}
