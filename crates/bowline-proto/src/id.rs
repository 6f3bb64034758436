//! The names of sessions, sockets, transports and requests.

use std::{
    borrow::Cow,
    fmt,
    hash::{BuildHasher, Hasher},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::short::Short;

/// A session id as clients see it: 20 characters of base64url, 15 bytes.
///
/// The first byte is the shard that owns the session, so a request that arrives elsewhere can be
/// passed to its owner without a look-up; the other 14 (112 bits) come from the shell's CSPRNG.
/// The Engine.IO sid is a secret that stands for the whole session; the Socket.IO sid of a
/// [socket](crate::hub) is public and unrelated to it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid([u8; 15]);

impl Sid {
    /// Characters of the text form.
    pub const TEXT_LEN: usize = 20;

    /// Makes the id of something that `shard` owns from 14 random bytes.
    pub fn new(shard: u8, random: [u8; 14]) -> Self {
        let mut bytes = [0; 15];
        bytes[0] = shard;
        bytes[1..].copy_from_slice(&random);
        Self(bytes)
    }

    /// The index of the shard that owns what this id names.
    pub fn shard(self) -> u8 {
        self.0[0]
    }
}

impl Sid {
    /// Its text form.
    pub(crate) fn text(self) -> Short<{ Self::TEXT_LEN }> {
        Short::fill(|text| {
            let written = URL_SAFE_NO_PAD.encode_slice(self.0, text);
            debug_assert_eq!(written, Ok(Self::TEXT_LEN));
        })
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for Sid {
    /// Prints the first characters only: a whole Engine.IO sid in a log would be a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({:.6}…)", self.to_string())
    }
}

impl Serialize for Sid {
    /// As text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Hashes [`Sid`]s: what is random already is its own hash. A map may use it as long as all ids in it are
/// from the shell's CSPRNG, or were made with a key; those that are looked up may be anything.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SidHash;

impl BuildHasher for SidHash {
    type Hasher = SidHasher;

    fn build_hasher(&self) -> SidHasher {
        SidHasher(0)
    }
}

/// The hasher of [`SidHash`].
#[derive(Debug)]
pub(crate) struct SidHasher(u64);

impl Hasher for SidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Of an id the last eight bytes: before them stand the shard and others that are as random.
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

/// The text is not a session id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSid;

impl fmt::Display for InvalidSid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a session id: 20 characters of base64url are expected")
    }
}

impl std::error::Error for InvalidSid {}

impl FromStr for Sid {
    type Err = InvalidSid;

    fn from_str(text: &str) -> Result<Self, InvalidSid> {
        let mut bytes = [0; 15];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(15) if text.len() == Self::TEXT_LEN => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(InvalidSid),
        }
    }
}

/// A WebSocket, as the shell numbers them. Never used again within a process.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportId(pub u64);

/// One HTTP request that awaits its response, as the shell numbers them. Never used again within
/// a process.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

slotmap::new_key_type! {
    /// A session within its hub: slot and generation. A key of a session that has ended finds
    /// nothing.
    pub struct SessionKey;

    /// A socket (one session's place in one namespace) within its hub: slot and generation. A key
    /// of a socket that has gone finds nothing.
    pub struct SocketKey;
}

/// Hashes [`TransportId`]s and [`ExchangeId`]s, which no peer chooses: fast, and without a key.
#[derive(Debug, Clone, Copy, Default)]
pub struct NumberHash;

impl BuildHasher for NumberHash {
    type Hasher = NumberHasher;

    fn build_hasher(&self) -> NumberHasher {
        NumberHasher(0)
    }
}

/// The hasher of [`NumberHash`].
#[derive(Debug)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: the golden ratio spreads neighbours over the high bits, and the
        // rotation brings them down to where the table looks.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
