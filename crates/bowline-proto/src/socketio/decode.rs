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
        if self.pending.is_some() {
            return Err(DecodeError::AttachmentsMissing);
        }
        let kind = text.as_bytes().first().copied();
        let mut at = 1;
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
        Some((Kind::String, name)) if !RESERVED.contains(&&*json::unescape(name)) => Ok(()),
        Some((Kind::String, _)) => Err(DecodeError::ReservedName),
        Some((Kind::Array | Kind::Object | Kind::Literal, _)) | None => {
            Err(DecodeError::InvalidPayload)
        }
    }
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
