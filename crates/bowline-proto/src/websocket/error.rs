//! How a peer can break the protocol, and the close code that tells it.

use std::fmt;

use super::Role;

/// The peer broke RFC 6455 or RFC 7692. The connection cannot go on: send a close frame with
/// [`Error::close_code`] and close ("_Fail the WebSocket Connection_", RFC 6455 section 7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// A reserved bit is set that no extension in use defines (RFC 6455 section 5.2).
    ReservedBits,
    /// An opcode that RFC 6455 section 5.2 reserves.
    ReservedOpCode(u8),
    /// A frame that is not masked came from the client, or a masked one from the server
    /// (RFC 6455 section 5.1).
    WrongMasking {
        /// Who sent it.
        sender: Role,
    },
    /// A length was not written in its shortest form, or has its highest bit set (RFC 6455
    /// section 5.2).
    BadLength,
    /// A control frame without FIN (RFC 6455 section 5.5).
    FragmentedControl,
    /// A control frame with more than 125 bytes (RFC 6455 section 5.5).
    LongControl,
    /// A continuation frame, and no message to continue (RFC 6455 section 5.4).
    NothingToContinue,
    /// A new message began before the last had ended (RFC 6455 section 5.4).
    Interleaved,
    /// Text, or a close reason, that is not UTF-8 (RFC 6455 section 8.1).
    InvalidUtf8,
    /// A close frame with half a code or with a code that must not be sent (RFC 6455 section 7.4).
    BadClose,
    /// A message larger than this many bytes, before or after it was inflated.
    TooBig {
        /// The limit.
        max_bytes: usize,
    },
    /// A compressed message that is not DEFLATE data (RFC 7692 section 7.2.2).
    BadDeflate,
}

impl Error {
    /// The status code of RFC 6455 section 7.4.1 that tells the peer: 1002, 1007 or 1009.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::ReservedBits
            | Self::ReservedOpCode(_)
            | Self::WrongMasking { .. }
            | Self::BadLength
            | Self::FragmentedControl
            | Self::LongControl
            | Self::NothingToContinue
            | Self::Interleaved
            | Self::BadClose => 1002,
            Self::InvalidUtf8 | Self::BadDeflate => 1007,
            Self::TooBig { .. } => 1009,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits => f.write_str("the peer set a reserved bit of a WebSocket frame"),
            Self::ReservedOpCode(opcode) => {
                write!(f, "the peer sent a WebSocket frame with the reserved opcode {opcode:#x}")
            }
            Self::WrongMasking { sender: Role::Client } => {
                f.write_str("the client sent a WebSocket frame without a mask")
            }
            Self::WrongMasking { sender: Role::Server } => {
                f.write_str("the server sent a WebSocket frame with a mask")
            }
            Self::BadLength => {
                f.write_str("the peer sent a WebSocket frame with an invalid length")
            }
            Self::FragmentedControl => {
                f.write_str("the peer sent a WebSocket control frame in fragments")
            }
            Self::LongControl => {
                f.write_str("the peer sent a WebSocket control frame of more than 125 bytes")
            }
            Self::NothingToContinue => {
                f.write_str("the peer continued a WebSocket message that it had not begun")
            }
            Self::Interleaved => {
                f.write_str("the peer began a WebSocket message before it had ended the last")
            }
            Self::InvalidUtf8 => f.write_str("the peer sent text that is not UTF-8"),
            Self::BadClose => {
                f.write_str("the peer sent a WebSocket close frame that is not valid")
            }
            Self::TooBig { max_bytes } => {
                write!(f, "the peer sent a message of more than {max_bytes} bytes")
            }
            Self::BadDeflate => {
                f.write_str("the peer sent a compressed message that cannot be inflated")
            }
        }
    }
}

impl std::error::Error for Error {}
