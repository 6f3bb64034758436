//! One frame: its header, its mask, and how it is written (RFC 6455 section 5).

use bytes::Bytes;

use super::{Error, Role};

/// What a frame is (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpCode {
    /// A further fragment of a message.
    Continuation,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// The end of the connection.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl OpCode {
    /// Its four bits on the wire.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Whether it is a control frame, which may stand between the fragments of a message.
    pub const fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }

    fn from_bits(bits: u8) -> Result<Self, Error> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            other => Err(Error::ReservedOpCode(other)),
        }
    }
}

/// The largest payload of a control frame (RFC 6455 section 5.5).
pub(super) const CONTROL_MAX_BYTES: usize = 125;

/// The most bytes a header can have: two, a length of eight, a mask of four.
pub(super) const HEADER_MAX_BYTES: usize = 14;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
const MASKED: u8 = 0x80;

/// A header that is valid by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    /// Compressed (RFC 7692 section 6). Only on the first frame of a message.
    pub(super) rsv1: bool,
    pub(super) opcode: OpCode,
    pub(super) len: u64,
    /// All zero where frames are not masked, which unmasks to the same bytes.
    pub(super) mask: [u8; 4],
}

impl Header {
    /// Reads the header at the front of `bytes` and says how long it is; `None` if there is more
    /// to come. What can be refused is refused as soon as it is seen. `reader` is this end.
    pub(super) fn parse(
        reader: Role,
        deflate: bool,
        bytes: &[u8],
    ) -> Result<Option<(Self, usize)>, Error> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let opcode = OpCode::from_bits(first & 0x0f)?;
        let fin = first & FIN != 0;
        let rsv1 = first & RSV1 != 0;
        let compressible = deflate && matches!(opcode, OpCode::Text | OpCode::Binary);
        if first & RSV2_RSV3 != 0 || (rsv1 && !compressible) {
            return Err(Error::ReservedBits);
        }
        if opcode.is_control() && !fin {
            return Err(Error::FragmentedControl);
        }

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & MASKED != 0;
        if masked != (reader == Role::Server) {
            return Err(Error::WrongMasking { sender: reader.peer() });
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > CONTROL_MAX_BYTES {
            return Err(Error::LongControl);
        }

        let rest = &bytes[2..];
        let (len, rest) = match short {
            126 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                let len = u64::from(u16::from_be_bytes(*len));
                if len < 126 {
                    return Err(Error::BadLength);
                }
                (len, rest)
            }
            127 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                let len = u64::from_be_bytes(*len);
                if len <= u64::from(u16::MAX) || len > i64::MAX as u64 {
                    return Err(Error::BadLength);
                }
                (len, rest)
            }
            short => (u64::from(short), rest),
        };
        let (mask, rest) = if masked {
            let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (*mask, rest)
        } else {
            ([0; 4], rest)
        };
        Ok(Some((Self { fin, rsv1, opcode, len, mask }, bytes.len() - rest.len())))
    }
}

/// Masks or unmasks `bytes`, which begin `offset` bytes into their payload (RFC 6455 section
/// 5.3).
pub(super) fn apply_mask(mask: [u8; 4], offset: u64, bytes: &mut [u8]) {
    if mask == [0; 4] {
        return;
    }
    let mut turned = mask;
    turned.rotate_left((offset % 4) as usize);
    // Pieces of a fixed size become wide instructions.
    let wide = |bytes: &mut [u8]| {
        for (byte, mask) in bytes.iter_mut().zip([turned; 8].as_flattened()) {
            *byte ^= mask;
        }
    };
    let (chunks, rest) = bytes.as_chunks_mut::<32>();
    chunks.iter_mut().for_each(|chunk| wide(chunk));
    let (words, rest) = rest.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(turned)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(turned) {
        *byte ^= mask;
    }
}

/// Appends one whole frame (FIN set) to `out`; its payload is the concatenation of `parts`.
///
/// Clients must give a fresh unpredictable `mask` (RFC 6455 section 5.3), servers none. `rsv1`
/// says that the payload is compressed. The parts of a control frame may have 125 bytes together.
pub fn encode(
    out: &mut Vec<u8>,
    opcode: OpCode,
    rsv1: bool,
    mask: Option<[u8; 4]>,
    parts: &[&[u8]],
) {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    debug_assert!(
        !opcode.is_control() || (len <= CONTROL_MAX_BYTES && !rsv1),
        "RFC 6455 section 5.5"
    );

    let mask_len = mask.map_or(0, |mask| mask.len());
    out.reserve(header_len(len) + mask_len + len);
    push_header(out, opcode, rsv1, mask.is_some(), len);
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
    let payload = out.len();
    for part in parts {
        out.extend_from_slice(part);
    }
    if let Some(mask) = mask {
        apply_mask(mask, 0, &mut out[payload..]);
    }
}

/// Appends what stands before the mask and the payload.
fn push_header(out: &mut Vec<u8>, opcode: OpCode, rsv1: bool, masked: bool, len: usize) {
    let first = FIN | if rsv1 { RSV1 } else { 0 } | opcode.bits();
    let masked = if masked { MASKED } else { 0 };
    match len {
        0..126 => out.extend_from_slice(&[first, masked | len as u8]),
        126..=0xffff => {
            let [a, b] = (len as u16).to_be_bytes();
            out.extend_from_slice(&[first, masked | 126, a, b]);
        }
        len => {
            out.extend_from_slice(&[first, masked | 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// One whole frame of a server, in an allocation of exactly its size.
pub fn server_frame(opcode: OpCode, parts: &[&[u8]]) -> Bytes {
    // Exact, because `Bytes` takes over a vector without spare capacity as it is.
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(header_len(len) + len);
    push_header(&mut out, opcode, false, false, len);
    for part in parts.iter().filter(|part| !part.is_empty()) {
        out.extend_from_slice(part);
    }
    Bytes::from(out)
}

/// One close frame (RFC 6455 section 5.5.1). Without a code it is empty, and so is the reason; a
/// reason of more than 123 bytes is cut at a character.
pub fn close_frame(code: Option<u16>, reason: &str, mask: Option<[u8; 4]>) -> Bytes {
    let mut out = Vec::new();
    match code {
        None => encode(&mut out, OpCode::Close, false, mask, &[]),
        Some(code) => {
            let end = reason.floor_char_boundary(CONTROL_MAX_BYTES - 2);
            let parts: [&[u8]; 2] = [&code.to_be_bytes(), &reason.as_bytes()[..end]];
            encode(&mut out, OpCode::Close, false, mask, &parts);
        }
    }
    Bytes::from(out)
}

/// Bytes of the header before a payload of `len` bytes, without a mask.
fn header_len(len: usize) -> usize {
    match len {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}
