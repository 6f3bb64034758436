//! Polling bodies: several packets in one.
//!
//! Revision 4 separates packets by 0x1e and writes binary as base64. Revision 3 puts a length
//! before each, counted in UTF-16 code units as JavaScript counts, and has a binary form for bodies
//! with a binary packet. JSONP wraps either in a call of JavaScript.

use bytes::{Buf as _, Bytes};
use bytestring::ByteString;
use memchr::memchr;

use super::{DecodeError, Packet, PollStyle, Version, request::form_pairs};
use crate::{wall::PollBody, websocket::Message};

/// Stands between the packets of a body of revision 4.
const SEPARATOR: u8 = 0x1e;
/// Ends the length of a packet in a binary body of revision 3.
const LENGTH_END: u8 = 0xff;
/// No body is longer than this many digits can say, so that a length cannot overflow.
const LENGTH_DIGITS_MAX: usize = 10;

/// Reads a polling body. `binary` says that it is labelled `application/octet-stream`; `packets_max`
/// is `limits.packets-per-payload`. The packets are parts of `body`, not copies, but for base64.
///
/// # Errors
///
/// [`DecodeError`] if any packet cannot be read.
pub fn decode(
    version: Version,
    body: Bytes,
    binary: bool,
    packets_max: usize,
) -> Result<Vec<Packet>, DecodeError> {
    let mut packets = Vec::new();
    decode_into(version, body, binary, packets_max, &mut packets)?;
    Ok(packets)
}

/// Reads a polling body as [`decode`] does and appends its packets to `packets`.
///
/// # Errors
///
/// [`DecodeError`] if a packet cannot be read. Those before it are in `packets` then: the
/// reference acts on them before it ends the session.
pub fn decode_into(
    version: Version,
    body: Bytes,
    binary: bool,
    packets_max: usize,
    packets: &mut Vec<Packet>,
) -> Result<(), DecodeError> {
    let mut sink = Sink { packets, room: packets_max };
    match (version, binary) {
        (Version::V4, false) => decode_separated(into_text(body)?, &mut sink),
        (Version::V4, true) => Err(DecodeError::BinaryBody),
        (Version::V3, false) => decode_counted(&into_text(body)?, &mut sink),
        (Version::V3, true) => decode_binary(body, &mut sink),
    }
}

/// Takes the payload out of a JSONP POST, a form whose field `d` holds it with its newlines
/// escaped. Read the result with [`decode`].
///
/// # Errors
///
/// [`DecodeError`] if it is not UTF-8 or there is no field `d`.
pub fn decode_jsonp_body(body: &Bytes) -> Result<Bytes, DecodeError> {
    let text = std::str::from_utf8(body).map_err(|_| DecodeError::InvalidUtf8)?;
    let (_, value) =
        form_pairs(text).find(|(key, _)| key == "d").ok_or(DecodeError::MissingField)?;
    // Browsers turn a newline in a form field into CR LF, so clients send `\n` in two characters,
    // and what was `\n` in two characters already with one more backslash before it.
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        rest = match rest {
            [b'\\', b'\\', b'n', tail @ ..] => {
                out.extend_from_slice(b"\\n");
                tail
            }
            [b'\\', b'n', tail @ ..] => {
                out.push(b'\n');
                tail
            }
            [slash, tail @ ..] => {
                out.push(*slash);
                tail
            }
            [] => break,
        };
    }
    out.extend_from_slice(rest);
    Ok(out.into())
}

/// Writes a polling body with these packets, which may be none.
pub fn encode<'a>(
    version: Version,
    style: &PollStyle,
    packets: impl Iterator<Item = &'a Packet> + Clone,
) -> PollBody {
    let binary = version == Version::V3
        && !style.base64
        && style.jsonp.is_none()
        && packets.clone().any(|packet| matches!(packet.data, Message::Binary(_)));
    if binary {
        return PollBody::Binary(encode_binary(packets));
    }
    let text = match version {
        Version::V4 => encode_separated(packets),
        Version::V3 => encode_counted(packets),
    };
    match &style.jsonp {
        None => PollBody::Text(text.into()),
        Some(digits) => PollBody::Script(script(digits, &text).into()),
    }
}

/// Where packets go, and how many more may.
struct Sink<'a> {
    packets: &'a mut Vec<Packet>,
    room: usize,
}

impl Sink<'_> {
    fn push(&mut self, packet: Packet) -> Result<(), DecodeError> {
        self.room = self.room.checked_sub(1).ok_or(DecodeError::TooManyPackets)?;
        self.packets.push(packet);
        Ok(())
    }
}

fn into_text(body: Bytes) -> Result<ByteString, DecodeError> {
    ByteString::try_from(body).map_err(|_| DecodeError::InvalidUtf8)
}

fn decode_separated(text: ByteString, sink: &mut Sink<'_>) -> Result<(), DecodeError> {
    // One packet is by far the most frequent case, and then nothing is shared.
    let Some(mut end) = memchr(SEPARATOR, text.as_bytes()) else {
        return sink.push(Packet::from_text(Version::V4, text)?);
    };
    let mut rest = &*text;
    loop {
        sink.push(Packet::from_text(Version::V4, text.slice_ref(&rest[..end]))?)?;
        if end == rest.len() {
            return Ok(());
        }
        rest = &rest[end + 1..];
        end = memchr(SEPARATOR, rest.as_bytes()).unwrap_or(rest.len());
    }
}

fn encode_separated<'a>(packets: impl Iterator<Item = &'a Packet>) -> String {
    let mut out = String::new();
    for (index, packet) in packets.enumerate() {
        if index > 0 {
            out.push(char::from(SEPARATOR));
        }
        packet.push_text(Version::V4, &mut out);
    }
    out
}

fn decode_counted(text: &ByteString, sink: &mut Sink<'_>) -> Result<(), DecodeError> {
    if text.is_empty() {
        return Err(DecodeError::Empty);
    }
    let mut rest = &**text;
    while !rest.is_empty() {
        let (digits, tail) = rest.split_once(':').ok_or(DecodeError::InvalidLength)?;
        let units = parse_length(digits.bytes().map(|digit| digit.wrapping_sub(b'0')))?;
        let bytes = utf16_prefix(tail, units).ok_or(DecodeError::InvalidLength)?;
        // An empty packet is skipped, as in the reference, which writes `0:` for no packets.
        if bytes > 0 {
            sink.push(Packet::from_text(Version::V3, text.slice_ref(&tail[..bytes]))?)?;
        }
        rest = &tail[bytes..];
    }
    Ok(())
}

fn encode_counted<'a>(packets: impl Iterator<Item = &'a Packet>) -> String {
    let mut out = String::new();
    let mut one = String::new();
    for packet in packets {
        one.clear();
        packet.push_text(Version::V3, &mut one);
        push_number(utf16_len(&one), |digit| out.push(char::from(b'0' + digit)));
        out.push(':');
        out.push_str(&one);
    }
    if out.is_empty() { "0:".to_owned() } else { out }
}

fn decode_binary(mut body: Bytes, sink: &mut Sink<'_>) -> Result<(), DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::Empty);
    }
    while let Some(form) = body.first().copied() {
        let window = &body[1..body.len().min(LENGTH_DIGITS_MAX + 2)];
        let digits = memchr(LENGTH_END, window).ok_or(DecodeError::InvalidLength)?;
        let bytes = parse_length(window[..digits].iter().copied())?;
        body.advance(1 + digits + 1);
        if bytes > body.len() {
            return Err(DecodeError::InvalidLength);
        }
        let one = body.split_to(bytes);
        let packet = match form {
            0 => Packet::from_text(Version::V3, into_text(one)?),
            1 => Packet::from_typed_bytes(one),
            _ => Err(DecodeError::UnknownType),
        };
        sink.push(packet?)?;
    }
    Ok(())
}

fn encode_binary<'a>(packets: impl Iterator<Item = &'a Packet>) -> Bytes {
    let mut out = Vec::new();
    for packet in packets {
        let (form, kind, data) = match &packet.data {
            // Here, unlike in a text body, the length of text is counted in bytes.
            Message::Text(text) => (0, packet.kind.digit(), text.as_bytes().as_ref()),
            Message::Binary(bytes) => (1, packet.kind.value(), bytes.as_ref()),
        };
        out.push(form);
        push_number(1 + data.len(), |digit| out.push(digit));
        out.push(LENGTH_END);
        out.push(kind);
        out.extend_from_slice(data);
    }
    out.into()
}

/// Reads a decimal number from the values of its digits.
fn parse_length(digits: impl Iterator<Item = u8>) -> Result<usize, DecodeError> {
    let mut count = 0;
    let mut number = 0_u64;
    for digit in digits {
        count += 1;
        if digit > 9 || count > LENGTH_DIGITS_MAX {
            return Err(DecodeError::InvalidLength);
        }
        number = number * 10 + u64::from(digit);
    }
    match usize::try_from(number) {
        Ok(number) if count > 0 => Ok(number),
        Ok(_) | Err(_) => Err(DecodeError::InvalidLength),
    }
}

/// Hands over the values of the decimal digits of `number`.
fn push_number(number: usize, mut push: impl FnMut(u8)) {
    for byte in number.to_string().bytes() {
        push(byte - b'0');
    }
}

/// How many code units `text` has in UTF-16, which is what JavaScript calls its length.
fn utf16_len(text: &str) -> usize {
    // One unit for every byte that begins a character, one more for those outside the BMP.
    text.bytes().map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(byte >= 0xf0)).sum()
}

/// Returns how many bytes of `text` are `units` code units of UTF-16, or `None` if it has fewer or
/// a character would be cut.
fn utf16_prefix(text: &str, units: usize) -> Option<usize> {
    // Every unit takes at least a byte, so more units than bytes cannot be there.
    if units > text.len() {
        return None;
    }
    if text.as_bytes()[..units].is_ascii() {
        return Some(units);
    }
    let mut left = units;
    for (at, char) in text.char_indices() {
        if left == 0 {
            return Some(at);
        }
        left = left.checked_sub(char.len_utf16())?;
    }
    (left == 0).then_some(text.len())
}

/// Writes the JavaScript that hands `text` to the callback a JSONP client has made.
fn script(digits: &str, text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8 + 32);
    out.push_str("___eio[");
    out.push_str(digits);
    out.push_str("](");
    push_js_string(text, &mut out);
    out.push_str(");");
    out
}

/// Writes a string literal that is both JSON and JavaScript: JSON may hold U+2028 and U+2029 as
/// they are, JavaScript before 2019 may not.
fn push_js_string(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                let code = u32::from(char);
                out.push_str("\\u");
                for shift in [12, 8, 4, 0] {
                    out.push(char::from_digit(code >> shift & 0xf, 16).unwrap_or_default());
                }
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engineio::PacketKind;

    fn read(version: Version, body: &[u8]) -> Result<Vec<Packet>, DecodeError> {
        decode(version, Bytes::copy_from_slice(body), false, 100)
    }

    fn read_binary(body: &[u8]) -> Result<Vec<Packet>, DecodeError> {
        decode(Version::V3, Bytes::copy_from_slice(body), true, 100)
    }

    fn message(text: &str) -> Packet {
        Packet::text(PacketKind::Message, text)
    }

    fn blob(bytes: &[u8]) -> Packet {
        Packet::message(Message::Binary(Bytes::copy_from_slice(bytes)))
    }

    fn write(version: Version, style: &PollStyle, packets: &[Packet]) -> PollBody {
        encode(version, style, packets.iter())
    }

    fn jsonp(digits: &str) -> PollStyle {
        PollStyle { base64: true, jsonp: Some(digits.into()) }
    }

    fn body_of(body: PollBody) -> Bytes {
        match body {
            PollBody::Text(bytes) | PollBody::Binary(bytes) | PollBody::Script(bytes) => bytes,
        }
    }

    #[test]
    fn revision_4_separates_packets_and_writes_binary_without_a_digit() {
        let packets = [message("hello"), Packet::bare(PacketKind::Ping), blob(&[1, 2, 3, 4])];
        let body = "4hello\u{1e}2\u{1e}bAQIDBA==";
        assert_eq!(
            write(Version::V4, &PollStyle::default(), &packets),
            PollBody::Text(body.into())
        );
        assert_eq!(read(Version::V4, body.as_bytes()), Ok(packets.to_vec()));
    }

    #[test]
    fn revision_4_refuses_empty_packets_and_binary_bodies() {
        for body in ["", "\u{1e}", "4a\u{1e}", "\u{1e}4a", "4a\u{1e}\u{1e}4b"] {
            assert_eq!(read(Version::V4, body.as_bytes()), Err(DecodeError::Empty), "{body:?}");
        }
        assert_eq!(read(Version::V4, b"abc"), Err(DecodeError::UnknownType));
        assert_eq!(read(Version::V4, b"4\xff"), Err(DecodeError::InvalidUtf8));
        let body = Bytes::from_static(b"4a");
        assert_eq!(decode(Version::V4, body, true, 100), Err(DecodeError::BinaryBody));
    }

    #[test]
    fn packets_before_a_broken_one_are_handed_over() {
        let mut packets = Vec::new();
        let body = Bytes::from_static(b"4a\x1e4b\x1ez");
        let result = decode_into(Version::V4, body, false, 100, &mut packets);
        assert_eq!(result, Err(DecodeError::UnknownType));
        assert_eq!(packets, [message("a"), message("b")]);
    }

    #[test]
    fn packets_are_counted_in_every_form() {
        let three = Bytes::from_static(b"4\x1e4\x1e4");
        assert_eq!(decode(Version::V4, three.clone(), false, 3).map(|all| all.len()), Ok(3));
        assert_eq!(decode(Version::V4, three, false, 2), Err(DecodeError::TooManyPackets));
        let three = Bytes::from_static(b"1:41:41:4");
        assert_eq!(decode(Version::V3, three, false, 2), Err(DecodeError::TooManyPackets));
        let three = Bytes::from_static(&[0, 1, 255, b'4', 0, 1, 255, b'4', 1, 1, 255, 4]);
        assert_eq!(decode(Version::V3, three, true, 2), Err(DecodeError::TooManyPackets));
    }

    #[test]
    fn revision_3_counts_utf16_code_units() {
        // One unit each for the digit and the euro sign, two for the emoji.
        let packets = [message("€"), message("😀"), message("")];
        let body = "2:4€3:4😀1:4";
        assert_eq!(
            write(Version::V3, &PollStyle::default(), &packets),
            PollBody::Text(body.into())
        );
        assert_eq!(read(Version::V3, body.as_bytes()), Ok(packets.to_vec()));
        assert_eq!(
            read(Version::V3, "2:4😀".as_bytes()),
            Err(DecodeError::InvalidLength),
            "half a surrogate pair"
        );
    }

    #[test]
    fn revision_3_refuses_lengths_that_are_none_or_too_large() {
        for body in [
            "4hello",
            "6:",
            "6:4hell",
            ":4",
            "a:4",
            "-1:4",
            "0x1:4",
            "1.0:4",
            " 1:4",
            "+1:4",
            "99999999999999999999:4",
            "12345678901:4",
            "1:41",
            "1:4:",
        ] {
            let packets = read(Version::V3, body.as_bytes());
            assert_eq!(packets, Err(DecodeError::InvalidLength), "{body}");
        }
        assert_eq!(read(Version::V3, b""), Err(DecodeError::Empty));
        assert_eq!(read(Version::V3, b"1:z"), Err(DecodeError::UnknownType));
        assert_eq!(read(Version::V3, b"0:"), Ok(vec![]), "what the reference writes for nothing");
        assert_eq!(read(Version::V3, b"0:1:20:"), Ok(vec![Packet::bare(PacketKind::Ping)]));
    }

    #[test]
    fn revision_3_has_a_binary_form_when_a_packet_is_binary() {
        let packets = [message("é"), blob(&[1, 255, 3])];
        // In this form the length of text is counted in bytes.
        let body = [&[0, 3, 255][..], "4é".as_bytes(), &[1, 4, 255, 4, 1, 255, 3]].concat();
        assert_eq!(
            write(Version::V3, &PollStyle::default(), &packets),
            PollBody::Binary(body.clone().into())
        );
        assert_eq!(read_binary(&body), Ok(packets.to_vec()));
        let long = [blob(&[7; 1233])];
        let body = body_of(write(Version::V3, &PollStyle::default(), &long));
        assert_eq!(body[..7], [1, 1, 2, 3, 4, 255, 4]);
        assert_eq!(read_binary(&body), Ok(long.to_vec()));
    }

    #[test]
    fn revision_3_writes_binary_as_typed_base64_to_those_who_ask() {
        let packets = [message("a"), blob(&[1, 2])];
        let style = PollStyle { base64: true, jsonp: None };
        let body = "2:4a6:b4AQI=";
        assert_eq!(write(Version::V3, &style, &packets), PollBody::Text(body.into()));
        assert_eq!(read(Version::V3, body.as_bytes()), Ok(packets.to_vec()));
    }

    #[test]
    fn broken_binary_bodies_are_refused() {
        for (body, error) in [
            (&[][..], DecodeError::Empty),
            (&[0], DecodeError::InvalidLength),
            (&[0, 1], DecodeError::InvalidLength),
            (&[0, 255], DecodeError::InvalidLength),
            (&[0, 10, 255, b'4'], DecodeError::InvalidLength),
            (&[0, b'1', 255, b'4'], DecodeError::InvalidLength),
            (&[0, 2, 255, b'4'], DecodeError::InvalidLength),
            (&[1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 255], DecodeError::InvalidLength),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 255, 4], DecodeError::InvalidLength),
            (&[2, 1, 255, 4], DecodeError::UnknownType),
            (&[0, 0, 255], DecodeError::Empty),
            (&[1, 0, 255], DecodeError::Empty),
            (&[1, 1, 255, 7], DecodeError::UnknownType),
            (&[0, 2, 255, b'4', 0xc3], DecodeError::InvalidUtf8),
        ] {
            assert_eq!(read_binary(body), Err(error), "{body:?}");
        }
    }

    #[test]
    fn jsonp_is_a_call_that_is_valid_javascript() {
        let packets = [message("\"\\\n\r\t\u{8}\u{c}\u{1}\u{2028}\u{2029}</é😀")];
        let body = write(Version::V3, &jsonp("7"), &packets);
        let expected = "___eio[7](\"16:4\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u2028\\u2029</é😀\");";
        assert_eq!(body, PollBody::Script(expected.into()));
        let body = write(Version::V4, &jsonp(""), &[message("a"), blob(&[1])]);
        assert_eq!(body, PollBody::Script("___eio[](\"4a\\u001ebAQ==\");".into()));
    }

    #[test]
    fn a_jsonp_post_is_a_form_with_escaped_newlines() {
        let check = |body: &'static str, expected: &str| {
            let decoded = decode_jsonp_body(&Bytes::from_static(body.as_bytes()));
            assert_eq!(decoded, Ok(Bytes::copy_from_slice(expected.as_bytes())), "{body}");
        };
        check("d=3%3A4ab", "3:4ab");
        check("x=1&d=4a+b", "4a b");
        check("d=4a%5Cnb", "4a\nb");
        check("d=4a%5C%5Cnb", "4a\\nb");
        check("d=4a%5C%5C%5Cnb", "4a\\\\nb");
        check("d=4%5C", "4\\");
        check("d=4%5Ct", "4\\t");
        check("d=", "");
        let error = decode_jsonp_body(&Bytes::from_static(b"e=1"));
        assert_eq!(error, Err(DecodeError::MissingField));
    }

    #[test]
    fn no_packets_make_a_body_that_reads_as_none() {
        let body = write(Version::V3, &PollStyle::default(), &[]);
        assert_eq!(body, PollBody::Text("0:".into()));
        let body = write(Version::V4, &PollStyle::default(), &[]);
        assert_eq!(body, PollBody::Text("".into()));
    }

    #[test]
    fn utf16_lengths_agree_with_the_standard_library() {
        for text in ["", "a", "é", "€", "😀", "a😀é€\u{10ffff}\u{ffff}"] {
            assert_eq!(utf16_len(text), text.encode_utf16().count(), "{text}");
        }
    }

    fn packets(separable: bool) -> impl Strategy<Value = Vec<Packet>> {
        let text = any::<String>()
            .prop_map(move |text| if separable { text.replace('\u{1e}', "") } else { text });
        let packet = prop_oneof![
            (proptest::sample::select(&PacketKind::ALL), text)
                .prop_map(|(kind, text)| Packet::text(kind, text)),
            any::<Vec<u8>>().prop_map(|bytes| blob(&bytes)),
        ];
        proptest::collection::vec(packet, 1..8)
    }

    proptest! {
        #[test]
        fn revision_4_reads_what_it_writes(packets in packets(true)) {
            let body = body_of(write(Version::V4, &PollStyle::default(), &packets));
            prop_assert_eq!(decode(Version::V4, body, false, 100), Ok(packets));
        }

        #[test]
        fn revision_3_reads_what_it_writes(packets in packets(false), base64: bool) {
            let style = PollStyle { base64, jsonp: None };
            let body = write(Version::V3, &style, &packets);
            let binary = matches!(body, PollBody::Binary(_));
            prop_assert_eq!(decode(Version::V3, body_of(body), binary, 100), Ok(packets));
        }

        #[test]
        fn a_jsonp_body_is_json_within_its_call(packets in packets(false)) {
            let plain = body_of(write(Version::V3, &PollStyle { base64: true, jsonp: None }, &packets));
            let body = body_of(write(Version::V3, &jsonp("0"), &packets));
            let literal = body.strip_prefix(b"___eio[0](").and_then(|rest| rest.strip_suffix(b");"));
            let text: String = serde_json::from_slice(literal.unwrap()).unwrap();
            prop_assert_eq!(text.as_bytes(), &plain);
            let body = std::str::from_utf8(&body).unwrap();
            let raw = body.contains(['\u{2028}', '\u{2029}', '\n', '\u{1e}']);
            prop_assert!(!raw);
        }

        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>, binary: bool) {
            for version in [Version::V3, Version::V4] {
                let _ = decode(version, body.clone().into(), binary, 100);
            }
            let _ = decode_jsonp_body(&body.into());
        }
    }
}
