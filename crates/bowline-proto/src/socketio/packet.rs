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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{limit::Limits, socketio::Decoder};

    fn text(version: Version, packet: &Packet) -> String {
        encode(version, packet).text.to_string()
    }

    fn admin() -> ByteString {
        ByteString::from_static("/admin")
    }

    #[test]
    fn packets_are_written_as_the_protocol_document_shows() {
        let namespace = Packet::ROOT;
        let args = Args::new(r#"["hello",1]"#).unwrap();
        let sid = Some(ByteString::from_static("{\"sid\":\"x\"}"));
        for (packet, expected) in [
            (Packet::Connect { namespace: Packet::ROOT, auth: None }, "0"),
            (Packet::Connect { namespace: admin(), auth: sid }, "0/admin,{\"sid\":\"x\"}"),
            (Packet::Disconnect { namespace: admin() }, "1/admin,"),
            (
                Packet::Event { namespace: namespace.clone(), ack: None, args: args.clone() },
                "2[\"hello\",1]",
            ),
            (
                Packet::Event { namespace: admin(), ack: Some(12), args: args.clone() },
                "2/admin,12[\"hello\",1]",
            ),
            (Packet::Ack { namespace: admin(), id: 456, args }, "3/admin,456[\"hello\",1]"),
            (
                Packet::ConnectError { namespace, data: "{\"message\":\"no\"}".into() },
                "4{\"message\":\"no\"}",
            ),
        ] {
            assert_eq!(text(Version::V4, &packet), expected);
        }
    }

    #[test]
    fn socket_io_4_has_no_payload_in_connect() {
        let auth = Some(ByteString::from_static("{\"sid\":\"x\"}"));
        let packet = Packet::Connect { namespace: admin(), auth };
        assert_eq!(text(Version::V3, &packet), "0/admin,");
    }

    #[test]
    fn attachments_are_counted_before_the_namespace() {
        let json = json!(["a", Args::placeholder(0), Args::placeholder(1)]).to_string();
        let attachments = vec![Bytes::from_static(b"x"), Bytes::from_static(b"y")];
        let args = Args::with_attachments(json.clone(), attachments.clone()).unwrap();
        let packet = Packet::Event { namespace: admin(), ack: Some(1), args: args.clone() };
        let encoded = encode(Version::V4, &packet);
        assert_eq!(encoded.text, format!("52-/admin,1{json}"));
        assert_eq!(encoded.attachments, attachments);
        assert_eq!(ack_header("/", 7, &args), "62-7");
    }

    fn packet() -> impl Strategy<Value = Packet> {
        let namespace = prop_oneof![Just("/".to_owned()), "/[^,?]{0,8}"];
        let name = "[^cdnr]{0,6}";
        let ack = proptest::option::of(any::<u64>());
        let attachments = proptest::collection::vec(any::<Vec<u8>>(), 0..3);
        (namespace, name, ack, any::<String>(), attachments, 0..6_u8).prop_map(
            |(namespace, name, ack, text, attachments, kind)| {
                let namespace = ByteString::from(namespace);
                let mut values = vec![json!(name), json!({ "text": text })];
                values.extend((0..attachments.len()).map(Args::placeholder));
                let attachments = attachments.into_iter().map(Bytes::from).collect();
                let json = Args::from_values(&values).json;
                let args = Args::with_attachments(json, attachments).unwrap();
                let auth = json!({ "text": text }).to_string();
                match kind {
                    0 => Packet::Connect { namespace, auth: Some(auth.into()) },
                    1 => Packet::Connect { namespace, auth: None },
                    2 => Packet::Disconnect { namespace },
                    3 => Packet::ConnectError { namespace, data: auth.into() },
                    4 => Packet::Event { namespace, ack, args },
                    _ => Packet::Ack { namespace, id: ack.unwrap_or_default(), args },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(packets in proptest::collection::vec(packet(), 1..4)) {
            let mut decoder = Decoder::new();
            for packet in packets {
                let encoded = encode(Version::V4, &packet);
                let limits = Limits::default();
                let mut read = decoder.decode_text(Version::V4, &limits, encoded.text).unwrap();
                for attachment in encoded.attachments {
                    prop_assert_eq!(read, None);
                    read = decoder.decode_binary(attachment).unwrap();
                }
                prop_assert_eq!(read, Some(packet));
                prop_assert!(!decoder.is_pending());
            }
        }
    }
}
