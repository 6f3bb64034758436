//! Socket.IO 4 and 5: packets.
//!
//! A packet is the content of one Engine.IO text message, followed by one binary message for each of
//! its attachments. [`Decoder`] puts them together, one per session; [`encode`] takes them apart and
//! keeps no state. Arguments stay JSON text on their way through: they are checked once, when they
//! arrive, and never built into values.
//!
//! Sources: the protocol document of `socketio/socket.io-protocol`, and the behaviour of
//! socket.io-parser 4.2.7 where it is silent. Intended differences from it: a type or an ack id made
//! of white space is refused (the reference takes it for 0), so are an event without arguments and an
//! ack without an id (it ignores them), an ack id must fit in 64 bits, and the `num` of a placeholder
//! must be an integer.

mod args;
mod decode;
mod json;
mod packet;

pub use args::{Args, InvalidArgs};
pub use decode::{DecodeError, Decoder};
pub(crate) use packet::Header;
pub use packet::{Encoded, Packet, encode};
