//! Packets, and how they are written.

use bytes::Bytes;
use bytestring::ByteString;

use super::Args;
use crate::{engineio::Version, short::Short};

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
    let (header, payload, attachments) = match packet {
        Packet::Connect { namespace, auth } => {
            let auth = auth.as_deref().filter(|_| version == Version::V4);
            (Header::new("40", 0, namespace, None), auth, &[][..])
        }
        Packet::Disconnect { namespace } => (Header::new("41", 0, namespace, None), None, &[][..]),
        Packet::Event { namespace, ack, args } => {
            (Header::event(namespace, *ack, args), Some(&**args.json()), args.attachments())
        }
        Packet::Ack { namespace, id, args } => {
            (Header::ack(namespace, *id, args), Some(&**args.json()), args.attachments())
        }
        Packet::ConnectError { namespace, data } => {
            (Header::new("44", 0, namespace, None), Some(&**data), &[][..])
        }
    };
    let [kind, namespace, id] = header.of_packet();
    let text = [kind, namespace, id, payload.unwrap_or_default()].concat();
    Encoded { text: text.into(), attachments: attachments.to_vec() }
}

/// What stands before the JSON of a packet, in the parts in which it is written: so it goes into a
/// frame without being joined first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    /// The type of the Engine.IO packet, that of this one, and the number of attachments. In the root
    /// namespace, which is not written, the id of the ack too.
    kind: Short<48>,
    namespace: &'a str,
    /// A comma and the id of the ack.
    id: Short<24>,
}

impl<'a> Header<'a> {
    pub(crate) fn event(namespace: &'a str, ack: Option<u64>, args: &Args) -> Self {
        let kind = if args.attachments().is_empty() { "42" } else { "45" };
        Self::new(kind, args.attachments().len(), namespace, ack)
    }

    pub(crate) fn ack(namespace: &'a str, id: u64, args: &Args) -> Self {
        let kind = if args.attachments().is_empty() { "43" } else { "46" };
        Self::new(kind, args.attachments().len(), namespace, Some(id))
    }

    fn new(types: &str, attachments: usize, namespace: &'a str, ack: Option<u64>) -> Self {
        let mut kind = Short::new();
        kind.push(types);
        if attachments > 0 {
            kind.push_decimal(attachments as u64);
            kind.push("-");
        }
        let mut header = Self { kind, namespace: "", id: Short::new() };
        if namespace == "/" {
            ack.inspect(|ack| header.kind.push_decimal(*ack));
        } else {
            header.namespace = namespace;
            header.id.push(",");
            ack.inspect(|ack| header.id.push_decimal(*ack));
        }
        header
    }

    /// What a WebSocket message begins with.
    pub(crate) fn of_frame(&self) -> [&[u8]; 3] {
        [self.kind.as_bytes(), self.namespace.as_bytes(), self.id.as_bytes()]
    }

    /// What the data of an Engine.IO packet begins with.
    pub(crate) fn of_packet(&self) -> [&str; 3] {
        [&self.kind.as_str()[1..], self.namespace, self.id.as_str()]
    }

    /// Bytes of what the data of an Engine.IO packet begins with.
    pub(crate) fn len(&self) -> usize {
        self.of_frame().iter().map(|part| part.len()).sum::<usize>() - 1
    }
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
        assert_eq!(Header::ack("/", 7, &args).of_packet().concat(), "62-7");
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
