//! Messages to packets.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Map, Value};

use super::{
    Args, Packet,
    json::{self, Fault, Kind},
};
use crate::{
    engineio::{Version, form_pairs, suffix},
    limit::Limits,
};

/// Names that mean something to the clients' own libraries and that nobody may send.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Puts the packets of one session together. Eight bytes while no attachments are awaited.
///
/// After an error it must not be used any further: the session has lost its place.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Option<Box<Pending>>,
}

/// A packet whose attachments have not all arrived.
#[derive(Debug)]
struct Pending {
    header: Header,
    json: ByteString,
    attachments: Vec<Bytes>,
    expected: usize,
}

/// What an event or an ack says before its arguments.
#[derive(Debug)]
enum Header {
    Event { namespace: ByteString, ack: Option<u64> },
    Ack { namespace: ByteString, id: u64 },
}

impl Header {
    fn finish(self, args: Args) -> Packet {
        match self {
            Self::Event { namespace, ack } => Packet::Event { namespace, ack, args },
            Self::Ack { namespace, id } => Packet::Ack { namespace, id, args },
        }
    }
}

impl Decoder {
    /// A decoder that awaits nothing.
    pub const fn new() -> Self {
        Self { pending: None }
    }

    /// Whether attachments of a packet are still to come.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes a text message and returns its packet, or `None` if attachments are to follow.
    ///
    /// In revision 3 the query that such clients append to the name of a namespace is taken off; the
    /// one of a CONNECT becomes its `auth`, an object of strings.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; the session must end.
    pub fn decode_text(
        &mut self,
        version: Version,
        limits: &Limits,
        text: ByteString,
    ) -> Result<Option<Packet>, DecodeError> {
        self.decode_text_at(version, limits, text, 0)
    }

    /// The same for a text in which the packet begins at `from`: each cut costs a look through all of
    /// it.
    pub(crate) fn decode_text_at(
        &mut self,
        version: Version,
        limits: &Limits,
        text: ByteString,
        from: usize,
    ) -> Result<Option<Packet>, DecodeError> {
        if self.pending.is_some() {
            return Err(DecodeError::AttachmentsMissing);
        }
        let kind = text.as_bytes().get(from).copied();
        let mut at = from + 1;
        let attachments = match kind {
            Some(b'5' | b'6') => {
                let number = digits(&text, at);
                at += number.len();
                if text.as_bytes().get(at) != Some(&b'-') {
                    return Err(DecodeError::InvalidAttachmentCount);
                }
                at += 1;
                // A number that does not fit is none, or far too large: leading zeros aside, both
                // are refused.
                match number.parse() {
                    Ok(0) => return Err(DecodeError::InvalidAttachmentCount),
                    Ok(number) if number > limits.attachments => {
                        return Err(DecodeError::TooManyAttachments);
                    }
                    Ok(number) => Some(number),
                    Err(_) if number.is_empty() => {
                        return Err(DecodeError::InvalidAttachmentCount);
                    }
                    Err(_) => return Err(DecodeError::TooManyAttachments),
                }
            }
            Some(b'0'..=b'4') => None,
            Some(_) | None => return Err(DecodeError::UnknownType),
        };
        let mut name = "/";
        if text.as_bytes().get(at) == Some(&b'/') {
            let end = text[at..].find(',').map_or(text.len(), |comma| at + comma);
            name = &text[at..end];
            at = text.len().min(end + 1);
        }
        let mut query = None;
        if version == Version::V3
            && let Some((path, rest)) = name.split_once('?')
        {
            name = path;
            query = Some(rest);
        }
        let id_digits = digits(&text, at);
        at += id_digits.len();
        let id = match id_digits {
            "" => None,
            digits => Some(digits.parse().map_err(|_| DecodeError::InvalidAckId)?),
        };
        let payload = &text[at..];
        let header = match kind {
            Some(b'0') => {
                return Ok(Some(Packet::Connect {
                    auth: match query {
                        _ if !payload.is_empty() => {
                            if json::check_value(payload) != Ok(Kind::Object) {
                                return Err(DecodeError::InvalidPayload);
                            }
                            // Copied, as a namespace may outlive its CONNECT by far.
                            Some(payload.into())
                        }
                        Some(query) => Some(query_as_json(query)),
                        None => None,
                    },
                    namespace: if name == "/" { Packet::ROOT } else { name.into() },
                }));
            }
            Some(b'1') => {
                if !payload.is_empty() {
                    return Err(DecodeError::InvalidPayload);
                }
                return Ok(Some(Packet::Disconnect { namespace: share(&text, name) }));
            }
            Some(b'4') => {
                match json::check_value(payload) {
                    _ if payload.is_empty() => {}
                    Ok(Kind::Object | Kind::String) => {}
                    Ok(Kind::Array | Kind::Number | Kind::Literal) if version == Version::V3 => {}
                    Ok(Kind::Array | Kind::Number | Kind::Literal) | Err(_) => {
                        return Err(DecodeError::InvalidPayload);
                    }
                }
                let namespace = share(&text, name);
                return Ok(Some(Packet::ConnectError { namespace, data: suffix(text, at) }));
            }
            Some(b'2' | b'5') => {
                check_event(payload, attachments)?;
                Header::Event { namespace: share(&text, name), ack: id }
            }
            _ => {
                json::check_array(payload, attachments)?;
                let id = id.ok_or(DecodeError::InvalidAckId)?;
                Header::Ack { namespace: share(&text, name), id }
            }
        };
        let json = suffix(text, at);
        match attachments {
            None => Ok(Some(header.finish(Args::from_checked(json, Vec::new())))),
            Some(expected) => {
                let attachments = Vec::with_capacity(expected);
                self.pending = Some(Box::new(Pending { header, json, attachments, expected }));
                Ok(None)
            }
        }
    }

    /// Takes a binary message and returns the packet it completes, or `None` if more are to follow.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if no attachment is awaited; the session must end.
    pub fn decode_binary(&mut self, bytes: Bytes) -> Result<Option<Packet>, DecodeError> {
        let Some(mut pending) = self.pending.take() else {
            return Err(DecodeError::UnexpectedBinary);
        };
        pending.attachments.push(bytes);
        if pending.attachments.len() < pending.expected {
            self.pending = Some(pending);
            return Ok(None);
        }
        let Pending { header, json, attachments, .. } = *pending;
        Ok(Some(header.finish(Args::from_checked(json, attachments))))
    }
}

fn check_event(payload: &str, attachments: Option<usize>) -> Result<(), DecodeError> {
    match json::check_array(payload, attachments)? {
        Some((Kind::Number, _)) => Ok(()),
        Some((Kind::String, name)) if !is_reserved(name) => Ok(()),
        Some((Kind::String, _)) => Err(DecodeError::ReservedName),
        Some((Kind::Array | Kind::Object | Kind::Literal, _)) | None => {
            Err(DecodeError::InvalidPayload)
        }
    }
}

/// Whether the literal of a name is one of those. Its first letter tells most apart.
fn is_reserved(literal: &str) -> bool {
    matches!(literal.as_bytes().get(1), Some(b'c' | b'd' | b'n' | b'r' | b'\\'))
        && RESERVED.contains(&&*json::unescape(literal))
}

/// The ASCII digits from `at` on.
fn digits(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    &rest[..end]
}

/// The name of a namespace as a part of the text it stands in; the root costs nothing.
fn share(text: &ByteString, name: &str) -> ByteString {
    if name == "/" { Packet::ROOT } else { text.slice_ref(name) }
}

fn query_as_json(query: &str) -> ByteString {
    let pairs = form_pairs(query).map(|(key, value)| (key.into_owned(), Value::from(&*value)));
    Value::Object(pairs.collect::<Map<_, _>>()).to_string().into()
}

/// Why messages of a peer are not Socket.IO. The peer is to blame for all of them; the session ends
/// with `parse error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The message is empty or begins with none of the known types.
    UnknownType,
    /// The number of attachments is missing, zero, or not followed by `-`.
    InvalidAttachmentCount,
    /// More attachments are announced than `limits.attachments`.
    TooManyAttachments,
    /// An ack has no id, or an id does not fit in 64 bits.
    InvalidAckId,
    /// The payload is not JSON, or not of the kind its type demands.
    InvalidPayload,
    /// An event has a name that is reserved.
    ReservedName,
    /// A placeholder names no attachment.
    InvalidPlaceholder,
    /// A text message came while attachments are awaited.
    AttachmentsMissing,
    /// A binary message came while none is awaited.
    UnexpectedBinary,
}

impl DecodeError {
    /// Whether `limits.attachments` was crossed.
    pub fn is_too_many_attachments(self) -> bool {
        self == Self::TooManyAttachments
    }
}

impl From<Fault> for DecodeError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Syntax => Self::InvalidPayload,
            Fault::Placeholder => Self::InvalidPlaceholder,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownType => "the peer sent a packet of an unknown type",
            Self::InvalidAttachmentCount => "the peer sent a binary packet without a valid count",
            Self::TooManyAttachments => "the peer announced more attachments than allowed",
            Self::InvalidAckId => "the peer sent an ack without an id that fits in 64 bits",
            Self::InvalidPayload => "the peer sent a packet with an invalid payload",
            Self::ReservedName => "the peer sent an event with a reserved name",
            Self::InvalidPlaceholder => "the peer sent a placeholder that names no attachment",
            Self::AttachmentsMissing => "the peer sent text where it owes an attachment",
            Self::UnexpectedBinary => "the peer sent an attachment that belongs to no packet",
        })
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<Packet>, DecodeError> {
        Decoder::new().decode_text(Version::V4, &Limits::default(), text.into())
    }

    fn read_v3(text: &str) -> Packet {
        let packet = Decoder::new().decode_text(Version::V3, &Limits::default(), text.into());
        packet.unwrap().unwrap()
    }

    fn event(namespace: &'static str, ack: Option<u64>, json: &str) -> Packet {
        let namespace = ByteString::from_static(namespace);
        Packet::Event { namespace, ack, args: Args::new(json).unwrap() }
    }

    #[test]
    fn a_decoder_at_rest_is_one_word() {
        assert_eq!(size_of::<Decoder>(), size_of::<usize>());
    }

    #[test]
    fn events_have_a_namespace_and_an_ack_id_if_they_say_so() {
        for (text, packet) in [
            ("2[\"a\",1]", event("/", None, "[\"a\",1]")),
            ("212[\"a\"]", event("/", Some(12), "[\"a\"]")),
            ("2/ns,[\"a\"]", event("/ns", None, "[\"a\"]")),
            ("2/ns,0[\"a\"]", event("/ns", Some(0), "[\"a\"]")),
            ("2/,[\"a\"]", event("/", None, "[\"a\"]")),
            (
                "2[5,\"numeric names are legal\"]",
                event("/", None, "[5,\"numeric names are legal\"]"),
            ),
            ("2[\"\"]", event("/", None, "[\"\"]")),
            ("2[\"a\",\"\\ud83d\"]", event("/", None, "[\"a\",\"\\ud83d\"]")),
            ("218446744073709551615[\"a\"]", event("/", Some(u64::MAX), "[\"a\"]")),
        ] {
            assert_eq!(read(text), Ok(Some(packet)), "{text}");
        }
    }

    #[test]
    fn an_event_shares_the_frame_it_came_in() {
        for length in [10, 5_000] {
            let text = ByteString::from(format!("2[\"a\",\"{}\"]", "x".repeat(length)));
            let whole = text.as_bytes().as_ptr_range();
            let packet = Decoder::new().decode_text(Version::V4, &Limits::default(), text).unwrap();
            let Some(Packet::Event { args, .. }) = packet else { panic!("an event") };
            let part = args.json().as_bytes().as_ptr_range();
            assert_eq!((part.start, part.end), (whole.start.wrapping_add(1), whole.end));
        }
    }

    #[test]
    fn a_namespace_ends_at_a_comma_or_at_the_end() {
        for text in ["0/random", "0/random,"] {
            let namespace = ByteString::from_static("/random");
            assert_eq!(read(text), Ok(Some(Packet::Connect { namespace, auth: None })), "{text}");
        }
        let namespace = ByteString::from_static("/ns");
        assert_eq!(read("1/ns,"), Ok(Some(Packet::Disconnect { namespace })));
        assert_eq!(read("1"), Ok(Some(Packet::Disconnect { namespace: Packet::ROOT })));
        let query = ByteString::from_static("/a?b=c");
        let packet = Packet::Connect { namespace: query, auth: None };
        assert_eq!(read("0/a?b=c"), Ok(Some(packet)), "a query is part of the name in Socket.IO 5");
    }

    #[test]
    fn the_payload_of_connect_is_an_object_or_nothing() {
        let auth = Some(ByteString::from_static("{\"token\":\"x\"}"));
        let packet = Packet::Connect { namespace: Packet::ROOT, auth };
        assert_eq!(read("0{\"token\":\"x\"}"), Ok(Some(packet)));
        for text in ["0[]", "0null", "0\"a\"", "0{", "01x", "0/ns,[]", "0true", "0{}{}"] {
            assert_eq!(read(text), Err(DecodeError::InvalidPayload), "{text}");
        }
    }

    #[test]
    fn what_the_reference_closes_for_is_refused() {
        use DecodeError::{
            InvalidAckId, InvalidAttachmentCount, InvalidPayload, ReservedName, TooManyAttachments,
            UnknownType,
        };
        for (text, error) in [
            ("", UnknownType),
            ("7[\"a\"]", UnknownType),
            ("a", UnknownType),
            (" ", UnknownType),
            ("é", UnknownType),
            ("2{}", InvalidPayload),
            ("2abc[\"a\"]", InvalidPayload),
            ("2[]", InvalidPayload),
            ("2", InvalidPayload),
            ("2[null]", InvalidPayload),
            ("2[{\"a\":1}]", InvalidPayload),
            ("2[[\"a\"]]", InvalidPayload),
            ("2[\"a\"", InvalidPayload),
            ("2[\"a\"]x", InvalidPayload),
            ("2\"a\"", InvalidPayload),
            ("2/ns", InvalidPayload),
            ("2-1[\"a\"]", InvalidPayload),
            ("1{}", InvalidPayload),
            ("3/ns,1{}", InvalidPayload),
            ("3[\"a\"]", InvalidAckId),
            ("299999999999999999999[\"a\"]", InvalidAckId),
            ("4[]", InvalidPayload),
            ("4null", InvalidPayload),
            ("2[\"connect\"]", ReservedName),
            ("2[\"connect_error\"]", ReservedName),
            ("2[\"disconnect\"]", ReservedName),
            ("2[\"disconnecting\"]", ReservedName),
            ("2[\"newListener\"]", ReservedName),
            ("2[\"removeListener\"]", ReservedName),
            ("2[\"\\u0063onnect\"]", ReservedName),
            ("51-[\"connect\"]", ReservedName),
            ("5", InvalidAttachmentCount),
            ("5[\"a\"]", InvalidAttachmentCount),
            ("5-[\"a\"]", InvalidAttachmentCount),
            ("51[\"a\"]", InvalidAttachmentCount),
            ("51", InvalidAttachmentCount),
            ("5a-[\"a\"]", InvalidAttachmentCount),
            ("5-1-[\"a\"]", InvalidAttachmentCount),
            ("50-[\"a\"]", InvalidAttachmentCount),
            ("511-[\"a\"]", TooManyAttachments),
            ("599999999999999999999999-[\"a\"]", TooManyAttachments),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }

    #[test]
    fn attachments_follow_their_packet_and_nothing_else_does() {
        let limits = Limits::default();
        let mut decoder = Decoder::new();
        let json = "[\"a\",{\"_placeholder\":true,\"num\":1},{\"_placeholder\":true,\"num\":0}]";
        let text = ByteString::from(format!("52-/ns,7{json}"));
        assert_eq!(decoder.decode_text(Version::V4, &limits, text.clone()), Ok(None));
        assert!(decoder.is_pending());
        assert_eq!(decoder.decode_binary(Bytes::from_static(b"x")), Ok(None));
        let attachments = vec![Bytes::from_static(b"x"), Bytes::from_static(b"y")];
        let packet = Packet::Event {
            namespace: ByteString::from_static("/ns"),
            ack: Some(7),
            args: Args::with_attachments(json, attachments).unwrap(),
        };
        assert_eq!(decoder.decode_binary(Bytes::from_static(b"y")), Ok(Some(packet)));
        assert!(!decoder.is_pending());
        let stray = decoder.decode_binary(Bytes::from_static(b"z"));
        assert_eq!(stray, Err(DecodeError::UnexpectedBinary));
        assert_eq!(decoder.decode_text(Version::V4, &limits, text), Ok(None));
        let early = decoder.decode_text(Version::V4, &limits, "2[\"b\"]".into());
        assert_eq!(early, Err(DecodeError::AttachmentsMissing));
    }

    #[test]
    fn a_binary_ack_has_type_6() {
        let mut decoder = Decoder::new();
        let text = "61-3[{\"_placeholder\":true,\"num\":0}]".into();
        assert_eq!(decoder.decode_text(Version::V4, &Limits::default(), text), Ok(None));
        let packet = decoder.decode_binary(Bytes::from_static(b"x")).unwrap();
        assert!(matches!(packet, Some(Packet::Ack { id: 3, .. })));
    }

    #[test]
    fn placeholders_are_checked_in_binary_packets_only() {
        let text = "51-[\"a\",{\"_placeholder\":true,\"num\":1}]";
        assert_eq!(read(text), Err(DecodeError::InvalidPlaceholder));
        let json = "[\"a\",{\"_placeholder\":true,\"num\":1}]";
        assert_eq!(read(&format!("2{json}")), Ok(Some(event("/", None, json))));
    }

    #[test]
    fn as_many_attachments_as_the_limit_says() {
        assert_eq!(read("510-[\"a\"]"), Ok(None));
        assert_eq!(read("5010-[\"a\"]"), Ok(None), "JavaScript reads a leading zero so");
        let limits = Limits { attachments: 1, ..Limits::default() };
        let mut decoder = Decoder::new();
        let result = decoder.decode_text(Version::V4, &limits, "52-[\"a\"]".into());
        assert_eq!(result, Err(DecodeError::TooManyAttachments));
    }

    #[test]
    fn socket_io_4_says_in_a_query_what_it_has_to_say() {
        let namespace = ByteString::from_static("/admin");
        let auth = Some(ByteString::from_static("{\"a\":\"b c\",\"token\":\"1\"}"));
        let packet = Packet::Connect { namespace: namespace.clone(), auth };
        assert_eq!(read_v3("0/admin?token=1&a=b+c"), packet);
        assert_eq!(read_v3("0/admin?token=1&a=b+c,"), packet);
        assert_eq!(read_v3("0/admin"), Packet::Connect { namespace, auth: None });
        assert_eq!(read_v3("2/admin?token=1,5[\"a\"]"), event("/admin", Some(5), "[\"a\"]"));
        assert_eq!(
            read_v3("4\"no\""),
            Packet::ConnectError { namespace: Packet::ROOT, data: "\"no\"".into() }
        );
    }

    proptest! {
        #[test]
        fn any_messages_are_read_or_refused(
            messages in proptest::collection::vec(
                prop_oneof![
                    "[0-7]{1,2}-?(/[a-z?]{0,2},)?[0-9]{0,2}[\\[\\]{}\":,a-z0-9_]{0,12}".prop_map(Ok),
                    any::<String>().prop_map(Ok),
                    any::<Vec<u8>>().prop_map(Err),
                ],
                0..6,
            ),
        ) {
            for version in [Version::V3, Version::V4] {
                let mut decoder = Decoder::new();
                for message in &messages {
                    let read = match message {
                        Ok(text) => {
                            let text = text.as_str().into();
                            decoder.decode_text(version, &Limits::default(), text)
                        }
                        Err(bytes) => decoder.decode_binary(bytes.clone().into()),
                    };
                    if read.is_err() {
                        break;
                    }
                }
            }
        }
    }
}
