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
