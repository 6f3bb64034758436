//! Packets, and how a WebSocket message carries one.

use std::{borrow::Cow, fmt, time::Duration};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use bytes::{Buf as _, Bytes};
use bytestring::ByteString;

use crate::{
    Sid,
    short::Short,
    websocket::{Message, OpCode, server_frame},
};

/// A revision of the protocol, the `EIO` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Revision 3, spoken by Socket.IO 2 clients. Everything that does not ask for 4 is this.
    V3,
    /// Revision 4, spoken by Socket.IO 3 and 4 clients.
    V4,
}

/// What a packet is for. Its digit on the wire is its place in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketKind {
    /// The server's first word.
    Open,
    /// The session ends.
    Close,
    /// Asks for a [`PacketKind::Pong`]: sent by the server in revision 4, by the client in 3.
    Ping,
    /// Answers a ping, with its data.
    Pong,
    /// Carries data for the layer above.
    Message,
    /// The client has moved to this transport.
    Upgrade,
    /// Nothing; releases a poll.
    Noop,
}

impl PacketKind {
    /// Every kind, in the order of their digits.
    pub const ALL: [Self; 7] =
        [Self::Open, Self::Close, Self::Ping, Self::Pong, Self::Message, Self::Upgrade, Self::Noop];

    /// The ASCII digit that stands for it.
    pub fn digit(self) -> u8 {
        b'0' + self.value()
    }

    /// The number that stands for it where revision 3 writes raw bytes.
    pub fn value(self) -> u8 {
        self as u8
    }

    /// Returns the kind with this ASCII digit.
    pub fn from_digit(digit: u8) -> Option<Self> {
        Self::from_value(digit.wrapping_sub(b'0'))
    }

    /// Returns the kind with this number.
    pub fn from_value(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }

    fn text(self) -> &'static str {
        match self {
            Self::Open => "0",
            Self::Close => "1",
            Self::Ping => "2",
            Self::Pong => "3",
            Self::Message => "4",
            Self::Upgrade => "5",
            Self::Noop => "6",
        }
    }
}

/// One packet.
///
/// A packet holds what was said, not how it is written: the same one may go to any number of
/// receivers over any transport and revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// What it is for. In revision 4 a packet with binary data is always a message.
    pub kind: PacketKind,
    /// Its data; empty text if it has none.
    pub data: Message,
}

impl Packet {
    /// Makes a packet with text, which may be empty.
    pub fn text(kind: PacketKind, text: impl Into<ByteString>) -> Self {
        Self { kind, data: Message::Text(text.into()) }
    }

    /// Makes a packet without data.
    pub const fn bare(kind: PacketKind) -> Self {
        Self { kind, data: Message::Text(ByteString::new()) }
    }

    /// Makes a message packet.
    pub const fn message(data: Message) -> Self {
        Self { kind: PacketKind::Message, data }
    }

    /// Reads the packet that one WebSocket message carries. The data is a part of the message, not a copy.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the message is empty (binary messages of revision 4 may be), begins with
    /// no known type, or announces base64 and is not.
    pub fn from_frame(version: Version, message: Message) -> Result<Self, DecodeError> {
        match message {
            Message::Text(text) => Self::from_text(version, text),
            Message::Binary(bytes) => match version {
                Version::V4 => Ok(Self::message(Message::Binary(bytes))),
                Version::V3 => Self::from_typed_bytes(bytes),
            },
        }
    }

    /// Reads a packet in text form: a digit and data, or base64 behind a `b` (and, in revision 3,
    /// a digit).
    pub(super) fn from_text(version: Version, text: ByteString) -> Result<Self, DecodeError> {
        let Some(first) = text.as_bytes().first().copied() else {
            return Err(DecodeError::Empty);
        };
        if first == b'b' {
            return Self::from_base64(version, &text[1..]);
        }
        let kind = PacketKind::from_digit(first).ok_or(DecodeError::UnknownType)?;
        let data = if text.len() == 1 { ByteString::new() } else { suffix(text, 1) };
        Ok(Self { kind, data: Message::Text(data) })
    }

    fn from_base64(version: Version, text: &str) -> Result<Self, DecodeError> {
        let (kind, text) = match version {
            Version::V4 => (PacketKind::Message, text),
            Version::V3 => {
                let digit = text.as_bytes().first().copied().unwrap_or_default();
                let kind = PacketKind::from_digit(digit).ok_or(DecodeError::UnknownType)?;
                (kind, &text[1..])
            }
        };
        let bytes = LENIENT_BASE64
            .decode(text)
            .or_else(|_| LENIENT_BASE64_URL.decode(text))
            .map_err(|_| DecodeError::InvalidBase64)?;
        Ok(Self { kind, data: Message::Binary(bytes.into()) })
    }

    /// Reads a binary packet of revision 3: a byte with the number of its kind, and data.
    pub(super) fn from_typed_bytes(mut bytes: Bytes) -> Result<Self, DecodeError> {
        let Some(first) = bytes.first().copied() else {
            return Err(DecodeError::Empty);
        };
        let kind = PacketKind::from_value(first).ok_or(DecodeError::UnknownType)?;
        bytes.advance(1);
        Ok(Self { kind, data: Message::Binary(bytes) })
    }

    /// Appends the text form: a digit and data, or base64 behind a `b`.
    pub(super) fn push_text(&self, version: Version, out: &mut String) {
        match &self.data {
            Message::Text(text) => {
                out.push_str(self.kind.text());
                out.push_str(text);
            }
            Message::Binary(bytes) => {
                out.push('b');
                if version == Version::V3 {
                    out.push_str(self.kind.text());
                }
                STANDARD.encode_string(bytes, out);
            }
        }
    }
}

/// Padding is optional and stray trailing bits are ignored, as JavaScript writes and reads it.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const LENIENT_BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What a WebSocket message that carries a packet consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WsPayload<'a> {
    /// Text or binary.
    pub opcode: OpCode,
    /// The type, if the form has one: a digit, or in revision 3 a byte.
    pub head: &'static [u8],
    /// The data.
    pub data: Cow<'a, [u8]>,
}

/// Says how a WebSocket message carries `packet`.
pub fn ws_payload(version: Version, packet: &Packet) -> WsPayload<'_> {
    const VALUES: &[u8; 7] = &[0, 1, 2, 3, 4, 5, 6];
    match (&packet.data, version) {
        (Message::Text(text), _) => WsPayload {
            opcode: OpCode::Text,
            head: packet.kind.text().as_bytes(),
            data: Cow::Borrowed(text.as_bytes()),
        },
        (Message::Binary(bytes), Version::V4) => {
            WsPayload { opcode: OpCode::Binary, head: &[], data: Cow::Borrowed(bytes) }
        }
        (Message::Binary(bytes), Version::V3) => WsPayload {
            opcode: OpCode::Binary,
            head: std::slice::from_ref(&VALUES[usize::from(packet.kind.value())]),
            data: Cow::Borrowed(bytes),
        },
    }
}

/// The same for a client that asked for base64 (`b64` in its query): every message is text.
pub fn ws_payload_base64(version: Version, packet: &Packet) -> WsPayload<'_> {
    match &packet.data {
        Message::Text(_) => ws_payload(version, packet),
        Message::Binary(_) => {
            let mut text = String::new();
            packet.push_text(version, &mut text);
            WsPayload { opcode: OpCode::Text, head: &[], data: Cow::Owned(text.into_bytes()) }
        }
    }
}

/// Writes the whole WebSocket frame, as a server sends it, that carries `packet`. One without data,
/// as nearly all heartbeats are, costs no memory.
pub fn ws_frame(version: Version, packet: &Packet) -> Bytes {
    /// A text message of one character in one frame (RFC 6455 section 5.2), for each kind.
    const BARE: &[[u8; 3]; 7] = &[
        [0x81, 1, b'0'],
        [0x81, 1, b'1'],
        [0x81, 1, b'2'],
        [0x81, 1, b'3'],
        [0x81, 1, b'4'],
        [0x81, 1, b'5'],
        [0x81, 1, b'6'],
    ];
    if matches!(&packet.data, Message::Text(text) if text.is_empty()) {
        return Bytes::from_static(&BARE[usize::from(packet.kind.value())]);
    }
    let payload = ws_payload(version, packet);
    server_frame(payload.opcode, &[payload.head, &payload.data])
}

/// The same for a client that asked for base64 (`b64` in its query).
pub fn ws_frame_base64(version: Version, packet: &Packet) -> Bytes {
    let payload = ws_payload_base64(version, packet);
    server_frame(payload.opcode, &[payload.head, &payload.data])
}

/// Makes the packet that opens a session. Both durations are written in whole milliseconds.
pub fn open_packet(
    sid: Sid,
    upgrades: &[&str],
    ping_interval: Duration,
    ping_timeout: Duration,
    max_payload: usize,
) -> Packet {
    let mut json = String::with_capacity(128);
    // Neither a sid nor the name of a transport needs escapes.
    json.extend(["{\"sid\":\"", sid.text().as_str(), "\",\"upgrades\":["]);
    for (index, name) in upgrades.iter().enumerate() {
        json.extend([if index == 0 { "\"" } else { ",\"" }, name, "\""]);
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for (key, number) in [
        ("],\"pingInterval\":", millis(ping_interval)),
        (",\"pingTimeout\":", millis(ping_timeout)),
        (",\"maxPayload\":", max_payload as u64),
    ] {
        let mut digits = Short::<20>::new();
        digits.push_decimal(number);
        json.extend([key, digits.as_str()]);
    }
    json.push('}');
    Packet::text(PacketKind::Open, json)
}

/// Why bytes of a client are not Engine.IO. The client is to blame for all of them; its session
/// ends with `parse error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// There is nothing where a packet must be.
    Empty,
    /// A packet begins with none of the known types.
    UnknownType,
    /// A packet announces base64, and its data is not.
    InvalidBase64,
    /// A length is missing, is no number, or does not fit the data (revision 3).
    InvalidLength,
    /// A polling body, or a text packet in a binary one, is not UTF-8.
    InvalidUtf8,
    /// A polling body of revision 4 is labelled `application/octet-stream`.
    BinaryBody,
    /// A JSONP body has no form field `d`.
    MissingField,
    /// A polling body has more packets than `limits.packets-per-payload`.
    TooManyPackets,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the client sent an empty packet",
            Self::UnknownType => "the client sent a packet of an unknown type",
            Self::InvalidBase64 => "the client sent a packet that announces base64 and is not",
            Self::InvalidLength => "the client sent a polling body with a wrong packet length",
            Self::InvalidUtf8 => "the client sent text that is not UTF-8",
            Self::BinaryBody => "the client sent a binary polling body, which EIO 4 does not have",
            Self::MissingField => "the client sent a JSONP body without the form field d",
            Self::TooManyPackets => "the client sent more packets in one polling body than allowed",
        })
    }
}

impl std::error::Error for DecodeError {}

/// Up to this many bytes, checking UTF-8 once more is cheaper than what [`Bytes`] does when its
/// owner is first shared: one more allocation and two atomic counts.
const RECHECK_BYTES_MAX: usize = 512;

/// Returns `text` without its first `from` bytes, which must end at a character, without copying.
pub(crate) fn suffix(text: ByteString, from: usize) -> ByteString {
    if text.len() > RECHECK_BYTES_MAX {
        return text.slice_ref(&text[from..]);
    }
    let mut bytes = text.into_bytes();
    bytes.advance(from);
    let text = ByteString::try_from(bytes);
    debug_assert!(text.is_ok(), "cut inside a character");
    text.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Message {
        Message::Text(text.into())
    }

    fn binary(bytes: &[u8]) -> Message {
        Message::Binary(Bytes::copy_from_slice(bytes))
    }

    fn frame(version: Version, packet: &Packet) -> Message {
        let payload = ws_payload(version, packet);
        let bytes = [payload.head, &payload.data].concat();
        match payload.opcode {
            OpCode::Binary => Message::Binary(bytes.into()),
            _ => Message::Text(bytes.try_into().unwrap()),
        }
    }

    #[test]
    fn a_text_frame_is_a_digit_and_data() {
        for version in [Version::V3, Version::V4] {
            for kind in PacketKind::ALL {
                let written = format!("{}probe", char::from(kind.digit()));
                let packet = Packet::text(kind, "probe");
                assert_eq!(Packet::from_frame(version, text(&written)), Ok(packet.clone()));
                assert_eq!(frame(version, &packet), text(&written));
            }
            assert_eq!(
                Packet::from_frame(version, text("2")),
                Ok(Packet::bare(PacketKind::Ping)),
                "without data"
            );
        }
    }

    #[test]
    fn a_binary_frame_is_a_message_in_revision_4_and_typed_in_revision_3() {
        let packet = Packet::message(binary(&[4, 0, 255]));
        assert_eq!(frame(Version::V4, &packet), binary(&[4, 0, 255]));
        assert_eq!(frame(Version::V3, &packet), binary(&[4, 4, 0, 255]));
        assert_eq!(Packet::from_frame(Version::V4, binary(&[4, 0, 255])), Ok(packet.clone()));
        assert_eq!(Packet::from_frame(Version::V3, binary(&[4, 4, 0, 255])), Ok(packet));
        assert_eq!(
            Packet::from_frame(Version::V4, binary(&[])),
            Ok(Packet::message(binary(&[]))),
            "empty binary is a message"
        );
        assert_eq!(Packet::from_frame(Version::V3, binary(&[])), Err(DecodeError::Empty));
        assert_eq!(Packet::from_frame(Version::V3, binary(b"4x")), Err(DecodeError::UnknownType));
    }

    #[test]
    fn base64_has_a_type_digit_in_revision_3_only() {
        let packet = Packet::message(binary(&[0xff, 0xfe]));
        let check = |version, written| {
            assert_eq!(Packet::from_frame(version, text(written)), Ok(packet.clone()), "{written}");
        };
        check(Version::V4, "b//4=");
        check(Version::V4, "b//4");
        check(Version::V4, "b__4");
        check(Version::V3, "b4//4=");
        // Base64 that itself begins with the digit of a message must not lose it.
        let four = Packet::message(binary(&[0xe0, 0x00, 0x00]));
        assert_eq!(Packet::from_frame(Version::V4, text("b4AAA")), Ok(four.clone()));
        assert_eq!(Packet::from_frame(Version::V3, text("b44AAA")), Ok(four));
        assert_eq!(ws_payload_base64(Version::V3, &packet).data, b"b4//4=".as_slice());
        assert_eq!(ws_payload_base64(Version::V4, &packet).opcode, OpCode::Text);
        assert_eq!(ws_frame_base64(Version::V4, &packet)[2..], *b"b//4=");
        for (version, written, error) in [
            (Version::V4, "b!", DecodeError::InvalidBase64),
            (Version::V4, "bA", DecodeError::InvalidBase64),
            (Version::V3, "b", DecodeError::UnknownType),
            (Version::V3, "b9AAAA", DecodeError::UnknownType),
            (Version::V3, "bé", DecodeError::UnknownType),
        ] {
            assert_eq!(Packet::from_frame(version, text(written)), Err(error), "{written}");
        }
    }

    #[test]
    fn unknown_types_are_refused() {
        for version in [Version::V3, Version::V4] {
            assert_eq!(Packet::from_frame(version, text("")), Err(DecodeError::Empty));
            for written in ["7", "9abc", "a", " ", "é4", "\u{0}", "/", ":"] {
                let packet = Packet::from_frame(version, text(written));
                assert_eq!(packet, Err(DecodeError::UnknownType), "{written:?}");
            }
        }
    }

    #[test]
    fn the_open_packet_has_exactly_the_keys_of_the_reference_in_its_order() {
        let packet = open_packet(
            Sid::new(1, [0; 14]),
            &["websocket"],
            Duration::from_secs(25),
            Duration::from_millis(20_500),
            1_000_000,
        );
        let expected = "{\"sid\":\"AQAAAAAAAAAAAAAAAAAA\",\"upgrades\":[\"websocket\"],\
                        \"pingInterval\":25000,\"pingTimeout\":20500,\"maxPayload\":1000000}";
        assert_eq!(packet, Packet::text(PacketKind::Open, expected));
    }

    #[test]
    fn long_data_is_shared_and_short_data_needs_no_second_owner() {
        for length in [1, 511, 512, 513, 5_000] {
            let written = format!("4{}", "é".repeat(length));
            let packet = Packet::from_frame(Version::V4, text(&written)).unwrap();
            assert_eq!(packet, Packet::text(PacketKind::Message, &written[1..]));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            kind in proptest::sample::select(&PacketKind::ALL),
            data in ".*",
            bytes: Vec<u8>,
        ) {
            for version in [Version::V3, Version::V4] {
                let packet = Packet::text(kind, data.as_str());
                prop_assert_eq!(Packet::from_frame(version, frame(version, &packet)), Ok(packet));
                let packet = Packet::message(Message::Binary(bytes.clone().into()));
                prop_assert_eq!(Packet::from_frame(version, frame(version, &packet)), Ok(packet.clone()));
                let base64 = ws_payload_base64(version, &packet).data.into_owned();
                let message = Message::Text(base64.try_into().unwrap());
                prop_assert_eq!(Packet::from_frame(version, message), Ok(packet));
            }
        }
    }
}
