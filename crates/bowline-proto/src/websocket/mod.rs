//! WebSocket: frames (RFC 6455) and permessage-deflate (RFC 7692), for both ends.
//!
//! Bytes become messages in a [`Decoder`], one per connection; messages become bytes through
//! [`encode`] and its shorthands, which keep no state. What stands before the first frame, the
//! opening handshake, is in [`handshake`]; compression in [`deflate`].

use bytes::Bytes;
use bytestring::ByteString;

mod decode;
pub mod deflate;
mod error;
mod frame;
pub mod handshake;
#[cfg(test)]
mod tests;

pub use decode::{CloseFrame, DecodeConfig, Decoder, Incoming};
pub use error::Error;
pub use frame::{OpCode, close_frame, encode, server_frame};

/// One whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message, UTF-8 checked.
    Text(ByteString),
    /// A binary message.
    Binary(Bytes),
}

impl Message {
    /// Bytes of its payload.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether its payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its payload.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The opcode of the frame that carries it.
    pub fn opcode(&self) -> OpCode {
        match self {
            Self::Text(_) => OpCode::Text,
            Self::Binary(_) => OpCode::Binary,
        }
    }
}

/// Which end of a connection one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads masked frames, writes unmasked ones.
    Server,
    /// Reads unmasked frames, writes masked ones.
    Client,
}

impl Role {
    /// The other end.
    pub fn peer(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }
}
